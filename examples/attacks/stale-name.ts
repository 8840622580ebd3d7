/** Keeps the name of a page that has changed hands since, and uses it once more. */
import { PAGE_BITS, PAGE_TAG_BITS, Status, tagOf } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { Hostile, hostile } from './hostile.ts';

const GENERATIONS = 256; // more than a tag tells apart

class StaleName extends Hostile {
  override *attack(): Op<string | null> {
    const page = yield* this.free.take(0);
    // Its name as of now: the one tag that the kernel takes for it.
    const name = yield* this.#nameOf(page);
    yield* this.sys.pageFree(page, 0);
    yield* this.sys.pageAllocate(page, 0); // another generation of the same page
    const { status } = yield* this.sys.pageFree(name, 0);
    return status === Status.ok ? 'a name of something gone freed what stands there now' : null;
  }

  *#nameOf(page: number): Op<number> {
    for (let generation = 0; generation < GENERATIONS; generation++) {
      const name = page | (tagOf(generation, PAGE_TAG_BITS) << PAGE_BITS);
      if ((yield* this.sys.pageLimit(name, 0, -1, -1)).status === Status.ok) return name;
    }
    return page;
  }
}

export default hostile('stale-name', (port) => new StaleName(port));
