/**
 * A generational collector whose barriers are page faults. New pairs are made in the nursery; what
 * survives its collection moves to the old space, page by page. The old space is collected by
 * copying, while the program runs: a thread of the same environment scans page after page, and a
 * page that the program touches first is scanned in the fault. Appel, Ellis and Li, "Real-time
 * Concurrent Collection on Stock Multiprocessors" (PLDI 1988); Appel and Li (ASPLOS 1991).
 *
 * It trusts the kernel to forward each fault before the access is retried, and nobody else. The
 * lock is for the two threads of one hart: who does not get it runs the other.
 */
import type { Op, UserPort } from '../syscalls.ts';
import type { Heap } from './heap.ts';
import {
  addressOf,
  ALIAS,
  Count,
  FROM,
  GLOBALS,
  hasGone,
  HEAP,
  isPointer,
  LOCK,
  NEXT,
  OLD,
  PAGE,
  PAIR,
  register,
  REGISTERS,
  SPACE,
  STACK,
  State,
  WANTED,
  went,
} from './layout.ts';

const STORE_FAULT = 15;
const PROGRAM = 0; // number of the program's thread

/** What else is a root, as far as it is used: the language's machine says. */
export interface Roots {
  readonly globals: number; // words
  readonly stack: number; // address past the last word
}

export class Collector {
  readonly #port: UserPort;
  readonly #heap: Heap;
  readonly #roots: () => Roots;
  #thread = -1; // number of the collector's own

  constructor(port: UserPort, heap: Heap, roots: () => Roots) {
    this.#port = port;
    this.#heap = heap;
    this.#roots = roots;
  }

  /** From now on old space is collected in the background, by the thread that runs `background`. */
  use(thread: number): void {
    this.#thread = thread;
  }

  /**
   * A new pair, of which nothing is known: fill both words before anything else. May collect: then
   * pairs move, and registers, globals and stack are what still knows them.
   */
  *allocate(): Op<number> {
    const port = this.#port;
    let at = yield* port.load(NEXT);
    if (at === this.#heap.nurseryEnd) {
      yield* this.#minor();
      at = yield* port.load(NEXT);
    }
    yield* port.store(NEXT, at + PAIR);
    return at;
  }

  // ---- the nursery ------------------------------------------------------------------------------

  /** Moves what lives in the nursery to the old space. Roots are also the pages stored to since. */
  *#minor(): Op<void> {
    const port = this.#port;
    const heap = this.#heap;
    if ((yield* port.load(FROM)) !== 0) yield* this.#finish();
    const [first, end] = [HEAP, heap.nurseryEnd];
    const start = yield* port.load(OLD);
    yield* this.#forwardRoots(first, end);
    const last = heap.pageOf(start - 1);
    for (let page = heap.pageOf(yield* port.load(SPACE)); page <= last; page++) {
      if ((yield* heap.state(page)) !== State.dirty) continue;
      const at = HEAP + page * PAGE;
      yield* this.#forwardWords(at, Math.min(at + PAGE, start), first, end);
      yield* heap.clean(page);
    }
    for (let done = start; done < (yield* port.load(OLD)); done += PAIR) {
      yield* this.#forwardWords(done, done + PAIR, first, end);
    }
    yield* port.store(NEXT, HEAP);
    yield* this.#count(Count.minor);
    const used = (yield* port.load(OLD)) - (yield* port.load(SPACE));
    if (used > (heap.shape.half / 2) * PAGE) yield* this.#flip();
  }

  // ---- the old space ----------------------------------------------------------------------------

  /** Begins to empty the half in use: from here on the program knows pairs of the other only. */
  *#flip(): Op<void> {
    const port = this.#port;
    const heap = this.#heap;
    const from = yield* port.load(SPACE);
    const to = heap.otherThan(from);
    yield* heap.complete(to);
    yield* heap.shut(to);
    yield* port.store(SPACE, to);
    yield* port.store(OLD, to);
    yield* this.#forwardRoots(from, from + heap.shape.half * PAGE);
    yield* this.#count(Count.major);
    yield* port.store(FROM, from); // last: now the thread may begin
  }

  /**
   * Scans one page: what it points to in the old half moves. Pairs may be moved to this very page
   * while it is scanned; when it is done it is full, or closed, so that it stays scanned.
   */
  *#scan(page: number): Op<void> {
    const port = this.#port;
    const from = yield* port.load(FROM);
    const [start, end] = [HEAP + page * PAGE, HEAP + (page + 1) * PAGE];
    for (let at = start; at < end; at += PAIR) {
      if (at === (yield* port.load(OLD))) {
        yield* port.store(OLD, end);
        // What an earlier life of the page left there is no pair.
        port.fill(at + ALIAS, 0, end - at) ?? (yield* port.fault());
        break;
      }
      yield* this.#forwardWords(at, at + PAIR, from, from + this.#heap.shape.half * PAGE);
    }
    yield* this.#heap.open(page, 1);
  }

  /** The next page that holds something and is not scanned, or -1: then the half is empty. */
  *#next(): Op<number> {
    const heap = this.#heap;
    const end = yield* this.#port.load(OLD);
    for (let at = yield* this.#port.load(SPACE); at < end; at += PAGE) {
      const page = heap.pageOf(at);
      if ((yield* heap.state(page)) === State.unscanned) return page;
    }
    return -1;
  }

  /** One page, or the end of it. Under the lock. */
  *#step(): Op<boolean> {
    const port = this.#port;
    const page = yield* this.#next();
    if (page >= 0) {
      yield* this.#scan(page);
      return true;
    }
    const heap = this.#heap;
    const rest = heap.pageOf(yield* port.load(OLD));
    const end = heap.pageOf(yield* port.load(SPACE)) + heap.shape.half;
    yield* heap.open(rest, end - rest);
    yield* port.store(FROM, 0);
    return false;
  }

  /** The program cannot wait for the thread: it does the rest itself. */
  *#finish(): Op<void> {
    yield* this.#lock();
    while ((yield* this.#port.load(FROM)) !== 0) yield* this.#step();
    yield* this.#port.store(LOCK, 0);
  }

  /** The program's way to the lock: while the thread has it, the thread runs. */
  *#lock(): Op<void> {
    const port = this.#port;
    while ((port.swap32(LOCK, 1) ?? (yield* port.fault())) !== 0) {
      yield* port.store(WANTED, 1);
      yield* port.switchTo(this.#thread);
    }
  }

  /** What the collector's thread does, for ever. */
  *background(): Op<void> {
    const port = this.#port;
    for (;;) {
      const due = (yield* port.load(FROM)) !== 0;
      if (!due || (port.swap32(LOCK, 1) ?? (yield* port.fault())) !== 0) {
        yield* port.switchTo(PROGRAM);
        continue;
      }
      // The program may have ended it between the look and the lock.
      if ((yield* port.load(FROM)) !== 0 && (yield* this.#step())) {
        yield* this.#count(Count.background);
      }
      yield* port.store(LOCK, 0);
      if ((yield* port.load(WANTED)) === 0) continue;
      yield* port.store(WANTED, 0);
      yield* port.switchTo(PROGRAM);
    }
  }

  /** A slice begins: while there is something to collect, program and collector take turns. */
  *turn(): Op<void> {
    const port = this.#port;
    if ((yield* port.load(FROM)) === 0) return;
    yield* port.switchTo(port.thread() === PROGRAM ? this.#thread : PROGRAM);
  }

  // ---- faults -----------------------------------------------------------------------------------

  /** A fault of the program. True: the access can be tried again. */
  *fault(cause: number, address: number): Op<boolean> {
    const heap = this.#heap;
    const space = yield* this.#port.load(SPACE);
    if (address < space || address >= space + heap.shape.half * PAGE) return false;
    const page = heap.pageOf(address);
    const state = yield* heap.state(page);
    if (state === State.unscanned) {
      yield* this.#lock();
      if ((yield* heap.state(page)) === State.unscanned) {
        yield* this.#scan(page);
        yield* this.#count(Count.trapped);
      }
      yield* this.#port.store(LOCK, 0);
    } else if (state === State.clean && cause === STORE_FAULT) {
      yield* heap.soil(page);
      yield* this.#count(Count.barrier);
    }
    // Else the thread scanned it between the fault and this look.
    return true;
  }

  /** Pages are asked for: the half that is not in use can go, until the next flip needs it. */
  *revoked(wanted: number): Op<void> {
    const port = this.#port;
    if ((yield* port.load(FROM)) !== 0) return; // both are in use now
    const idle = this.#heap.otherThan(yield* port.load(SPACE));
    const given = yield* this.#heap.giveBack(idle, wanted);
    yield* port.store(Count.returned, (yield* port.load(Count.returned)) + given);
  }

  // ---- moving pairs -----------------------------------------------------------------------------

  *#forwardRoots(first: number, end: number): Op<void> {
    const port = this.#port;
    const { globals, stack } = this.#roots();
    for (const [from, to] of [
      [register(0), register(REGISTERS)],
      [GLOBALS, GLOBALS + globals * 4],
      [STACK, stack],
    ] as const) {
      for (let at = from; at < to; at += 4) {
        const word = port.load32(at) ?? (yield* port.fault());
        if (!isPointer(word) || word < first || word >= end) continue;
        yield* port.store(at, yield* this.#moved(word));
      }
    }
  }

  /** Words from `at` to `to`: what they point to between `first` and `end` moves. */
  *#forwardWords(at: number, to: number, first: number, end: number): Op<void> {
    const port = this.#port;
    for (let va = at + ALIAS; va < to + ALIAS; va += 4) {
      const word = port.load32(va) ?? (yield* port.fault());
      if (!isPointer(word) || word < first || word >= end) continue;
      yield* port.store(va, yield* this.#moved(word));
    }
  }

  /** Where the pair of a pointer is now: it moves if it has not yet. */
  *#moved(word: number): Op<number> {
    const port = this.#port;
    const kind = word & 7;
    const old = addressOf(word) + ALIAS;
    const head = yield* port.load(old);
    if (hasGone(head)) return addressOf(head) | kind;
    const to = yield* port.load(OLD);
    const { half } = this.#heap.shape;
    if (to >= (yield* port.load(SPACE)) + half * PAGE) {
      throw new Error(`gc: the heap is full: ${half} pages of pairs live`);
    }
    yield* port.store(to + ALIAS, head);
    yield* port.store(to + ALIAS + 4, yield* port.load(old + 4));
    yield* port.store(old, went(to));
    yield* port.store(OLD, to + PAIR);
    yield* this.#count(Count.copied);
    return to | kind;
  }

  *#count(at: number): Op<void> {
    yield* this.#port.store(at, (yield* this.#port.load(at)) + 1);
  }
}
