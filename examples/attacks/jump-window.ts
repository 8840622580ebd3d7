/** Grants the victim a page that it does not wait for, so that its window jumps past the next. */
import { Info, READ, Status } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { Hostile, hostile } from './hostile.ts';

class JumpWindow extends Hostile {
  override *attack(): Op<string | null> {
    const victim = yield* this.info(Info.sliceVector); // who holds the first slice
    const page = yield* this.ownPage(0);
    const grant = { page, slot: 0, rights: READ, entry: 1 };
    const { status } = yield* this.sys.ipcSend(victim, [0, 0, 0, 0], grant);
    return status === Status.ok ? "its page stands where the victim expects a partner's" : null;
  }
}

export default hostile('jump-window', (port) => new JumpWindow(port));
