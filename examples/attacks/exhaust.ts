/** Takes every page that is free, so that nobody else finds one. */
import { Info, PageKind, Start, Status } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { Hostile, hostile, PAGE } from './hostile.ts';

class Exhaust extends Hostile {
  override *attack(): Op<string | null> {
    const pages = yield* this.info(Info.pages);
    let [free, taken] = [0, 0];
    for (let page = 0; page < pages; page++) {
      const word = yield* this.port.load(Start.pagePages * PAGE + page * 4);
      if ((word & 0xff) !== PageKind.free) continue;
      free++;
      if ((yield* this.sys.pageAllocate(page, 0)).status === Status.ok) taken++;
    }
    return taken === free ? 'it took every free page of the machine' : null;
  }
}

export default hostile('exhaust', (port) => new Exhaust(port));
