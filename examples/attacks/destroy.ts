/** Destroys the victim by its id, which everybody can read. */
import { Info, Status } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { Hostile, hostile } from './hostile.ts';

class Destroy extends Hostile {
  override *attack(): Op<string | null> {
    const victim = yield* this.info(Info.sliceVector); // who holds the first slice
    const { status } = yield* this.sys.envDestroy(victim, 0, 0);
    return status === Status.ok ? 'the victim is dead' : null;
  }
}

export default hostile('destroy', (port) => new Destroy(port));
