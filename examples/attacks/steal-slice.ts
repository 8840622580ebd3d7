/** Frees a time slice of the victim's, to take it itself. */
import { Info, Status } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { Hostile, hostile } from './hostile.ts';

class StealSlice extends Hostile {
  override *attack(): Op<string | null> {
    const slices = yield* this.info(Info.slices);
    const own = yield* this.info(Info.sliceVector + 1);
    for (let position = 0; position < slices; position++) {
      if ((yield* this.info(Info.sliceVector + position)) === own) continue;
      if ((yield* this.sys.sliceFree(position, 0)).status !== Status.ok) return null;
      return `position ${position} is the victim's no more`;
    }
    return null;
  }
}

export default hostile('steal-slice', (port) => new StealSlice(port));
