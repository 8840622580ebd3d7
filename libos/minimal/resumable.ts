/**
 * `minimal` once more, as a library OS that can be saved, cloned and moved: it keeps nothing in
 * variables that it could not find again. How far its sieve is stands in memory, and marking
 * multiples twice does no harm; so whatever instruction its machine was stopped at, `resume` goes
 * on from there. What it had printed, it may print again.
 */
import { MAP_READ, MAP_WRITE, Start, Status } from '../../kernel/abi.ts';
import { image, LibOS, type Op, OWN_ENTRIES } from '../libos.ts';
import { FreePages } from '../parts/free-pages.ts';

const PAGE = 4096;
const NEXT = Start.stackPage * PAGE + 3072; // number that the sieve is at
const HEAP = Start.freePages * PAGE; // the rest of the first leaf table: 1 MiB
const HEAP_END = 512 * PAGE;
const LIMIT = 100_000; // sieve one byte a number: 25 pages
const RW = MAP_READ | MAP_WRITE;

export class Resumable extends LibOS {
  readonly #pages = new FreePages(this.sys);
  #leaf = 0; // page of our leaf table

  override main(...args: number[]): Op<void> {
    return this.resume(...args);
  }

  /** From memory alone, zeroed at first, and the arguments of the start. */
  *resume(_self = 0, _root = 0, _middle = 0, leaf = 0): Op<void> {
    this.#leaf = leaf;
    yield* this.catchFaults();
    yield* this.#sieve();
    yield* this.print(`resumable: ${yield* this.#count()} primes below ${LIMIT}\n`);
  }

  override entries(): readonly ((...args: number[]) => Op<void>)[] {
    return [(...args) => this.resume(...args)];
  }

  /** Zero-filled memory on first touch, inside the heap and nowhere else. */
  override *onFault(_cause: number, address: number): Op<boolean> {
    if (address < HEAP || address >= HEAP_END) return false;
    const page = yield* this.#pages.take(0);
    const index = Math.floor(address / PAGE);
    return (yield* this.sys.pageMap(this.#leaf, index, page, 0, 0, RW, 0)).status === Status.ok;
  }

  *#sieve(): Op<void> {
    const { port } = this;
    for (;;) {
      const n = Math.max(2, yield* port.load(NEXT)); // 0: it has not begun
      if (n * n >= LIMIT) return;
      if ((port.load8(HEAP + n) ?? (yield* port.fault())) === 0) {
        for (let m = n * n; m < LIMIT; m += n) port.store8(HEAP + m, 1) ?? (yield* port.fault());
      }
      yield* port.store(NEXT, n + 1);
    }
  }

  *#count(): Op<number> {
    const { port } = this;
    let primes = 0;
    for (let n = 2; n < LIMIT; n++) {
      if ((port.load8(HEAP + n) ?? (yield* port.fault())) === 0) primes++;
    }
    return primes;
  }
}

export const resumable = {
  ...image('resumable', (port) => new Resumable(port), 1),
  resume: OWN_ENTRIES,
};
