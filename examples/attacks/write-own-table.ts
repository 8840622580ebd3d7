/** Maps its own page table writable, to enter there whatever page it likes. */
import { Status } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { HERE, Hostile, hostile, PAGE, RW, SECRET } from './hostile.ts';

const VALID_READ_USER = 0b1010011; // V, R, U and A of a Sv39 entry

class WriteOwnTable extends Hostile {
  override *attack(): Op<string | null> {
    const { status } = yield* this.sys.pageMap(this.leaf, HERE, this.leaf, 0, 0, RW, 0);
    if (status !== Status.ok) return null;
    const entry = ((yield* this.victimPage()) << 10) | VALID_READ_USER;
    yield* this.port.store(HERE * PAGE + (HERE + 1) * 8, entry);
    const got = yield* this.port.load((HERE + 1) * PAGE);
    return got === SECRET ? 'it mapped the secret itself, and read it' : null;
  }
}

export default hostile('write-own-table', (port) => new WriteOwnTable(port));
