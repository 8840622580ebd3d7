/** Lab 1, pages: the skeleton. The sheet is docs/labs/1-pages.md. */
import { Info, MAP_READ, MAP_WRITE, PageKind, Start } from '../../kernel/abi.ts';
import { image, LibOS, type Op } from '../../libos/libos.ts';
import { FreePages } from '../../libos/parts/free-pages.ts';

export const PAGE = 4096;
export const HERE = Start.freePages; // virtual page
export const RW = MAP_READ | MAP_WRITE;

export class Pages extends LibOS {
  protected readonly free = new FreePages(this.sys);

  /** YOURS: take four pages, map them from HERE on, store n * n at the start of the n-th. */
  *take(_leaf: number): Op<number[]> {
    return [];
  }

  /** YOURS: unmap and free the second and the fourth. */
  *give(_leaf: number, _pages: readonly number[]): Op<void> {}

  override *main(...[, , , leaf = 0]: number[]): Op<void> {
    const pages = yield* this.take(leaf);
    let sum = 0;
    for (let n = 0; n < pages.length; n++) sum += yield* this.port.load((HERE + n) * PAGE);
    const before = yield* this.countFree();
    yield* this.give(leaf, pages);
    const back = (yield* this.countFree()) - before;
    yield* this.print(`${pages.length} pages hold ${sum}; ${back} were given back\n`);
  }

  /** Free pages of the machine, as the exposed table has them. */
  *countFree(): Op<number> {
    const pages = yield* this.port.load(Start.infoPage * PAGE + Info.pages * 4);
    let count = 0;
    for (let page = 0; page < pages; page++) {
      const word = yield* this.port.load(Start.pagePages * PAGE + page * 4);
      if ((word & 0xff) === PageKind.free) count++;
    }
    return count;
  }
}

export default image('pages', (port) => new Pages(port));
