/** Reads a block of the victim's part of the disk. */
import { Status } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { countsOf, Transfers } from '../../libos/parts/transfers.ts';
import { HERE, Hostile, hostile, PAGE, SECRET } from './hostile.ts';

const VICTIMS = 0; // its extent: the exposed table has it

class DiskBlock extends Hostile {
  override *attack(): Op<string | null> {
    const page = yield* this.ownPage(0);
    yield* this.ownPage(1);
    const list = (HERE + 1) * PAGE;
    yield* this.port.store(list, page);
    const place = { extent: VICTIMS, extentSlot: 0, pageSlot: 0, ...countsOf(this.self) };
    const { status } = yield* this.sys.diskRequest(VICTIMS, 0, 0, 1, list, 0, 0);
    if (status !== Status.ok) return null;
    yield* new Transfers(this.sys, place).move(0, 1, list, 0);
    return (yield* this.port.load(HERE * PAGE)) === SECRET
      ? 'it read the secret off the disk'
      : null;
  }
}

export default hostile('disk-block', (port) => new DiskBlock(port));
