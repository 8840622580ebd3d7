/** Lab 3, fork: the skeleton. The sheet is docs/labs/3-fork.md. */
import { MAP_READ, Start } from '../../kernel/abi.ts';
import { image, LibOS, type Op } from '../../libos/libos.ts';
import { FreePages } from '../../libos/parts/free-pages.ts';

export const PAGE = 4096;
export const PARENT = Start.freePages; // virtual page
export const CHILD = PARENT + 1; // virtual page
export const STORE = 15; // cause of a fault: a store that may not be

export class Fork extends LibOS {
  protected readonly free = new FreePages(this.sys);
  protected leaf = 0;
  protected copies = 0;
  /** which physical page stands at PARENT, and at CHILD */
  protected readonly at = [0, 0];

  /**
   * YOURS: the page is shared read-only. Whoever stores gets a copy of it, writable; the last one
   * that has it needs no copy.
   */
  override *onFault(_cause: number, _address: number): Op<boolean> {
    return false;
  }

  override *main(...[, , , leaf = 0]: number[]): Op<void> {
    this.leaf = leaf;
    yield* this.catchFaults();
    const page = yield* this.free.take(0);
    yield* this.sys.pageMap(leaf, PARENT, page, 0, 0, MAP_READ | 4, 0);
    yield* this.port.store(PARENT * PAGE, 7);
    // fork: both see the same page from now on, and neither may write it
    yield* this.sys.pageProtect(leaf, PARENT, 1, MAP_READ, 0);
    yield* this.sys.pageMap(leaf, CHILD, page, 0, 0, MAP_READ, 0);
    this.at.fill(page);
    yield* this.port.store(PARENT * PAGE, 1);
    yield* this.show();
    yield* this.port.store(CHILD * PAGE, 2);
    yield* this.show();
  }

  *show(): Op<void> {
    const [parent, child] = [
      yield* this.port.load(PARENT * PAGE),
      yield* this.port.load(CHILD * PAGE),
    ];
    yield* this.print(`parent ${parent}, child ${child}, copies ${this.copies}\n`);
  }
}

export default image('fork', (port) => new Fork(port));
