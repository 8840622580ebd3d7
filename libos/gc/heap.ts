/**
 * The memory of the collector: which pages stand behind the heap, and what the program may do
 * with each. All barriers are page rights, changed by calls of the kernel; the program's loads and
 * stores carry no check of their own. Appel and Li, "Virtual Memory Primitives for User Programs"
 * (ASPLOS 1991): PROT1, PROTN, UNPROT, TRAP, DIRTY and MAP2, which is the alias.
 *
 * It trusts the kernel's answers. It owes the program pairs that move in the collector's `allocate`
 * only, and then with registers, globals and stack following.
 */
import { MAP_MAX, MAP_READ, MAP_WRITE, Start, Status, UNMAP_MAX } from '../../kernel/abi.ts';
import type { CallResult, Op, Syscalls, UserPort } from '../syscalls.ts';
import type { FreePages } from '../parts/free-pages.ts';
import {
  HEAP,
  HEAP_PAGES,
  NEXT,
  OLD,
  OWN_PAGES,
  PAGE,
  PHYSICAL,
  SPACE,
  State,
  STATES,
} from './layout.ts';

const RW = MAP_READ | MAP_WRITE;

/** Pages of the nursery, and of each half of the old space. */
export interface Shape {
  readonly nursery: number;
  readonly half: number;
}

export class Heap {
  readonly #sys: Syscalls;
  readonly #port: UserPort;
  readonly #pages: FreePages;
  readonly shape: Shape;
  readonly nurseryEnd: number; // address
  #leaf = 0; // table of the program's view
  #alias = 0; // table of the collector's

  constructor(sys: Syscalls, pages: FreePages, shape: Shape) {
    const { nursery, half } = shape;
    if (nursery < 1 || half < 2 || nursery + 2 * half > HEAP_PAGES) {
      throw new Error(`a heap of ${nursery} + 2 x ${half} pages: 1 to ${HEAP_PAGES} in all`);
    }
    this.#sys = sys;
    this.#port = sys.port;
    this.#pages = pages;
    this.shape = shape;
    this.nurseryEnd = HEAP + nursery * PAGE;
  }

  /** Takes everything, and maps it: our own words, and the heap twice. Nothing is protected yet. */
  *bind(leaf: number, middle: number): Op<void> {
    for (let n = 0; n < OWN_PAGES; n++) {
      const page = yield* this.#take();
      yield* this.#must(this.#sys.pageMap(leaf, Start.freePages + n, page, 0, 0, RW, 0));
    }
    this.#leaf = yield* this.#table(middle, 1);
    this.#alias = yield* this.#table(middle, 2);
    const { nursery, half } = this.shape;
    const all = nursery + 2 * half;
    for (let n = 0; n < all; n++) yield* this.#port.store(PHYSICAL + n * 4, yield* this.#take());
    yield* this.#mapRun(this.#alias, 0, all, RW);
    yield* this.#mapRun(this.#leaf, 0, nursery, RW);
    yield* this.#mapRun(this.#leaf, nursery, 2 * half, MAP_READ);
    yield* this.#port.store(NEXT, HEAP);
    yield* this.#port.store(SPACE, this.nurseryEnd);
    yield* this.#port.store(OLD, this.nurseryEnd);
  }

  *#take(): Op<number> {
    const page = yield* this.#pages.take(0);
    if (page < 0) throw new Error('gc: the tenant has too few pages for this heap');
    return page;
  }

  *#must(answer: Op<CallResult>): Op<number> {
    const { status, value } = yield* answer;
    if (status !== Status.ok) throw new Error(`gc: the kernel refuses: ${status} (${value})`);
    return value;
  }

  *#table(middle: number, index: number): Op<number> {
    const [table, ledger0, ledger1] = [
      yield* this.#take(),
      yield* this.#take(),
      yield* this.#take(),
    ];
    yield* this.#must(this.#sys.tableCreate(middle, index, table, 0, [ledger0, ledger1], 0));
    return table;
  }

  *#mapRun(table: number, first: number, count: number, flags: number): Op<void> {
    for (let done = 0; done < count;) {
      const part = Math.min(MAP_MAX, count - done);
      const list = PHYSICAL + (first + done) * 4;
      done += yield* this.#must(
        this.#sys.pageMapList(table, first + done, part, list, 0, flags, 0),
      );
    }
  }

  *#unmapRun(table: number, first: number, count: number): Op<void> {
    for (let done = 0; done < count; done += UNMAP_MAX) {
      const part = Math.min(UNMAP_MAX, count - done);
      yield* this.#must(this.#sys.pageUnmap(table, first + done, part, 0));
    }
  }

  // ---- rights of the program --------------------------------------------------------------------

  pageOf(address: number): number {
    return (address - HEAP) >>> 12;
  }

  state(page: number): Op<number> {
    return this.#port.load(STATES + page * 4);
  }

  /** A store came: from now on the program may write the page, until it is scanned. */
  *soil(page: number): Op<void> {
    yield* this.#must(this.#sys.pageProtect(this.#leaf, page, 1, RW, 0));
    yield* this.#port.store(STATES + page * 4, State.dirty);
  }

  /** The page has been scanned: the next store shall be told. */
  *clean(page: number): Op<void> {
    yield* this.#must(this.#sys.pageProtect(this.#leaf, page, 1, MAP_READ, 0));
    yield* this.#port.store(STATES + page * 4, State.clean);
  }

  /** Shuts a half: whatever the program does there is told. */
  *shut(half: number): Op<void> {
    const first = this.pageOf(half);
    yield* this.#unmapRun(this.#leaf, first, this.shape.half);
    for (let n = 0; n < this.shape.half; n++) {
      yield* this.#port.store(STATES + (first + n) * 4, State.unscanned);
    }
  }

  /** Pages are scanned: the program may read them. Mapped first: the state is relied upon. */
  *open(page: number, count: number): Op<void> {
    yield* this.#mapRun(this.#leaf, page, count, MAP_READ);
    for (let n = 0; n < count; n++) {
      yield* this.#port.store(STATES + (page + n) * 4, State.clean);
    }
  }

  /** The other half of the old space. */
  otherThan(half: number): number {
    const { half: pages } = this.shape;
    return half === this.nurseryEnd ? half + pages * PAGE : half - pages * PAGE;
  }

  // ---- the idle half ----------------------------------------------------------------------------

  /** Gives pages of a half that nobody uses back to the kernel; returns how many it had. */
  *giveBack(half: number, wanted: number): Op<number> {
    const first = this.pageOf(half);
    let given = 0;
    for (let n = first; n < first + this.shape.half && given < wanted; n++) {
      const page = yield* this.#port.load(PHYSICAL + n * 4);
      if (page === 0) continue;
      yield* this.#unmapRun(this.#leaf, n, 1);
      yield* this.#unmapRun(this.#alias, n, 1);
      yield* this.#must(this.#sys.pageFree(page, 0));
      yield* this.#port.store(PHYSICAL + n * 4, 0);
      given++;
    }
    return given;
  }

  /** Before a half is used: takes pages in place of those that were given back. */
  *complete(half: number): Op<void> {
    const first = this.pageOf(half);
    for (let n = first; n < first + this.shape.half; n++) {
      if ((yield* this.#port.load(PHYSICAL + n * 4)) !== 0) continue;
      yield* this.#port.store(PHYSICAL + n * 4, yield* this.#take());
      yield* this.#mapRun(this.#alias, n, 1, RW);
    }
  }
}
