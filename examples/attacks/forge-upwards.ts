/** Forges itself a capability for the empty name, which is above everybody's. */
import { ALL_RIGHTS, MAP_READ, packName, Status } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { HERE, Hostile, hostile, PAGE, SECRET } from './hostile.ts';

class ForgeUpwards extends Hostile {
  override *attack(): Op<string | null> {
    const { status } = yield* this.sys.capForge(this.self, 1, 0, packName([]), ALL_RIGHTS);
    if (status !== Status.ok) return null;
    yield* this.sys.pageMap(this.leaf, HERE, yield* this.victimPage(), 1, 0, MAP_READ, 0);
    const got = yield* this.port.load(HERE * PAGE);
    return got === SECRET ? 'it is above everybody, and read the secret' : null;
  }
}

export default hostile('forge-upwards', (port) => new ForgeUpwards(port));
