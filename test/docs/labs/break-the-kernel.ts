/** Model solution of lab 6. */
import { hostile } from '../../../examples/attacks/hostile.ts';
import { Freeze } from '../../../examples/labs/break-the-kernel.ts';
import { Info, Status } from '../../../kernel/abi.ts';
import type { Op } from '../../../libos/libos.ts';

class Solved extends Freeze {
  override *attack(): Op<string | null> {
    const victim = yield* this.info(Info.sliceVector);
    const { status } = yield* this.sys.envSuspend(victim, 0, 1);
    return status === Status.ok ? 'the victim does not run any more' : null;
  }
}

export default hostile('freeze', (port) => new Solved(port));
