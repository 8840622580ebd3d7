/** Model solution of lab 1. */
import { HERE, PAGE, Pages, RW } from '../../../examples/labs/pages.ts';
import { image, type Op } from '../../../libos/libos.ts';

class Solved extends Pages {
  override *take(leaf: number): Op<number[]> {
    const pages: number[] = [];
    for (let n = 0; n < 4; n++) {
      const page = yield* this.free.take(0);
      yield* this.sys.pageMap(leaf, HERE + n, page, 0, 0, RW, 0);
      yield* this.port.store((HERE + n) * PAGE, n * n);
      pages.push(page);
    }
    return pages;
  }

  override *give(leaf: number, pages: readonly number[]): Op<void> {
    for (const n of [1, 3]) {
      yield* this.sys.pageUnmap(leaf, HERE + n, 1, 0);
      yield* this.sys.pageFree(pages[n] ?? -1, 0);
    }
  }
}

export default image('pages', (port) => new Solved(port));
