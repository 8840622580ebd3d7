/**
 * A page pool: physical pages that the library took from the kernel in advance, handed out and
 * taken back without a call. Under revocation it gives pages back: idle ones first, then those that
 * a policy, given as an argument, parts with one by one.
 *
 *     words:  idle pages | pages held, lent ones included | where to look first | the idle ones
 *
 * It promises: a page that it handed out is its borrower's until `put`; it never holds more than
 * its capacity; `giveBack` frees nothing but idle pages and what the policy named. It trusts the
 * policy to have unmapped the pages that it parts with: the kernel does not free what is mapped.
 */
import { Info, PageKind, Start, Status } from '../../kernel/abi.ts';
import type { Op, Syscalls } from '../syscalls.ts';

const PAGE = 4096;
const Word = { idle: 0, held: 4, next: 8, stack: 12 } as const;

/** Memory for a pool of at most `capacity` pages, zero-filled: bytes. */
export const poolBytes = (capacity: number): number => Word.stack + capacity * 4;

/** Parts with a page of those that `may` be given, unmapped already; -1: with none. */
export type Surrender = (may: (page: number) => boolean) => Op<number>;

export interface PoolSpec {
  /** zero-filled memory of poolBytes(capacity) */
  readonly at: number;
  readonly capacity: number;
  /** capability by which pages are taken */
  readonly slot: number;
}

export class PagePool {
  readonly #sys: Syscalls;
  readonly #spec: PoolSpec;

  constructor(sys: Syscalls, spec: PoolSpec) {
    this.#sys = sys;
    this.#spec = spec;
  }

  /** Takes pages that the exposed table shows free until `count` are idle; how many are. */
  *fill(count: number): Op<number> {
    const { port } = this.#sys;
    const { slot, capacity } = this.#spec;
    const limit = yield* port.load(Start.infoPage * PAGE + Info.pages * 4);
    const words = new Uint8Array(PAGE);
    const table = new Int32Array(words.buffer);
    let idle = yield* this.#load(Word.idle);
    let page = yield* this.#load(Word.next);
    // Once round the table, a page of it at a time; what was read may be stale, and is refused.
    for (let left = limit; left > 0 && idle < count;) {
      if (page >= limit) page = 0;
      const base = page - (page % (PAGE / 4));
      const end = Math.min(base + PAGE / 4, limit, page + left);
      port.read(Start.pagePages * PAGE + base * 4, words, 0, PAGE) ?? (yield* port.fault());
      port.work(end - page) ?? (yield* port.fault());
      left -= end - page;
      for (; page < end && idle < count; page++) {
        if (((table[page - base] ?? 0) & 0xff) !== PageKind.free) continue;
        if ((yield* this.#load(Word.held)) >= capacity) return idle;
        const { status } = yield* this.#sys.pageAllocate(page, slot);
        if (status === Status.quota) return idle;
        if (status !== Status.ok) continue;
        yield* this.#add(Word.held, 1);
        yield* this.put(page);
        yield* this.#store(Word.next, page + 1);
        idle++;
      }
      if (idle < count) page = end;
    }
    return idle;
  }

  /** An idle page, taken from the kernel if there is none; -1: the kernel gives none either. */
  *take(): Op<number> {
    const idle = yield* this.#load(Word.idle);
    if (idle === 0 && (yield* this.fill(1)) === 0) return -1;
    const left = (yield* this.#load(Word.idle)) - 1;
    yield* this.#store(Word.idle, left);
    return yield* this.#load(Word.stack + left * 4);
  }

  /** A page that was taken is idle again. */
  *put(page: number): Op<void> {
    const idle = yield* this.#load(Word.idle);
    yield* this.#store(Word.stack + idle * 4, page);
    yield* this.#store(Word.idle, idle + 1);
  }

  /** A page that was lent is gone for good: the kernel took it by force. */
  *lost(): Op<void> {
    yield* this.#add(Word.held, -1);
  }

  /** Pages were taken by force: forgets the idle ones that are not `ours` any more; how many. */
  *purge(ours: (page: number) => Op<boolean>): Op<number> {
    let lost = 0;
    for (let n = (yield* this.#load(Word.idle)) - 1; n >= 0; n--) {
      if (yield* ours(yield* this.#load(Word.stack + n * 4))) continue;
      yield* this.#remove(n);
      yield* this.lost();
      lost++;
    }
    return lost;
  }

  *idle(): Op<number> {
    return yield* this.#load(Word.idle);
  }
  *held(): Op<number> {
    return yield* this.#load(Word.held);
  }

  /**
   * Frees up to `wanted` pages that `may` be given: idle ones, then what `surrender` parts with.
   * How many were freed: fewer, if neither has more.
   */
  *giveBack(wanted: number, may: (page: number) => boolean, surrender: Surrender): Op<number> {
    let given = 0;
    for (let n = (yield* this.#load(Word.idle)) - 1; n >= 0 && given < wanted; n--) {
      const page = yield* this.#load(Word.stack + n * 4);
      if (!may(page) || !(yield* this.#free(page))) continue;
      yield* this.#remove(n);
      given++;
    }
    while (given < wanted) {
      const page = yield* surrender(may);
      if (page < 0) break;
      if (yield* this.#free(page)) given++;
      else yield* this.put(page); // somebody else maps it: it stays ours
    }
    return given;
  }

  /** Takes place `n` out of the idle ones; the last one moves there. */
  *#remove(n: number): Op<void> {
    const last = (yield* this.#load(Word.idle)) - 1;
    yield* this.#store(Word.stack + n * 4, yield* this.#load(Word.stack + last * 4));
    yield* this.#store(Word.idle, last);
  }

  *#free(page: number): Op<boolean> {
    const { status } = yield* this.#sys.pageFree(page, this.#spec.slot);
    if (status !== Status.ok) return false;
    yield* this.#add(Word.held, -1);
    return true;
  }

  *#load(word: number): Op<number> {
    return yield* this.#sys.port.load(this.#spec.at + word);
  }
  *#store(word: number, value: number): Op<void> {
    yield* this.#sys.port.store(this.#spec.at + word, value);
  }
  *#add(word: number, by: number): Op<void> {
    yield* this.#store(word, (yield* this.#load(word)) + by);
  }
}
