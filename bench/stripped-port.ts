/**
 * The fast path of UserPort.load32 with all that notices a forgotten `yield*` left out: a pending
 * trap neither spends the budget nor makes the next access throw. The rest is the same text, over
 * its own table, so that racing the two measures the run-time check and nothing else. (The check
 * is meant to cost nothing here: what it adds is on the slow path and in the trap.)
 */
import type { Op, UserPort } from '../machine/user-port.ts';

const MICRO = 256;
const INVALID = 1;
const FULL = 0xfffff003 | 0;
const BUDGET = 100_000; // cycles charged at a time to the port behind

export class StrippedPort {
  readonly #port: UserPort;
  readonly #i32: Int32Array;
  readonly #rtag = new Int32Array(MICRO).fill(INVALID);
  readonly #radd = new Int32Array(MICRO);
  readonly #slot = 4;
  #left = 0;
  #retry = 0;

  /** @param words memory of the program, from address 0 on */
  constructor(port: UserPort, words: Int32Array) {
    this.#port = port;
    this.#i32 = words;
  }

  load32(va: number): number | undefined {
    const a = va | 0;
    const i = (a >>> 12) & (MICRO - 1);
    if (--this.#left >= 0 && this.#rtag[i] === ((a & FULL) | this.#slot)) {
      return this.#i32[(a + (this.#radd[i] as number)) >>> 2];
    }
    return this.#slow(a);
  }

  *fault(): Op<number> {
    const va = this.#retry;
    for (;;) {
      yield* this.#port.fault();
      const value = this.load32(va);
      if (value !== undefined) return value;
    }
  }

  /** A miss, or the budget is used up: the port behind translates, and charges the budget. */
  #slow(va: number): number | undefined {
    this.#retry = va;
    if (this.#left < 0) {
      this.#left = BUDGET;
      if (this.#port.work(BUDGET) === undefined) return undefined;
    }
    if (this.#port.load32(va) === undefined) return undefined;
    const i = (va >>> 12) & (MICRO - 1);
    this.#rtag[i] = (va & (FULL & ~3)) | this.#slot;
    this.#radd[i] = 0; // the array begins at address 0
    return this.#i32[va >>> 2];
  }
}
