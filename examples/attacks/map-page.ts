/** Maps a page of the victim's, which the exposed table shows to everybody, and reads it. */
import { MAP_READ, Status } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { HERE, Hostile, hostile, PAGE, SECRET } from './hostile.ts';

class MapPage extends Hostile {
  override *attack(): Op<string | null> {
    const page = yield* this.victimPage();
    const { status } = yield* this.sys.pageMap(this.leaf, HERE, page, 0, 0, MAP_READ, 0);
    if (status !== Status.ok) return null;
    return (yield* this.port.load(HERE * PAGE)) === SECRET ? 'it read the secret' : null;
  }
}

export default hostile('map-page', (port) => new MapPage(port));
