/** Maps a page of its own into the victim's address space, where it will be trusted. */
import { PageKind, Status } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { HERE, Hostile, hostile, RW } from './hostile.ts';

class PlantPage extends Hostile {
  override *attack(): Op<string | null> {
    const table = yield* this.victimPage(PageKind.leaf);
    const { status } = yield* this.sys.pageUnmap(table, HERE, 1, 0);
    if (status !== Status.ok) return null;
    const page = yield* this.free.take(0);
    const planted = yield* this.sys.pageMap(table, HERE, page, 0, 0, RW, 0);
    if (planted.status === Status.ok) return "its page stands where the victim's secret was";
    return "the victim's mapping is gone";
  }
}

export default hostile('plant-page', (port) => new PlantPage(port));
