/**
 * The smallest useful library OS: memory on demand by its own policy, and a program on it. Copy it.
 *
 * It counts primes with a sieve in memory that does not exist yet: each first touch of a page
 * faults, the kernel forwards the fault to `onFault`, and that finds a free page in the exposed
 * table, allocates it by name and maps it. Another policy is another `onFault`.
 */
import { MAP_READ, MAP_WRITE, Start, Status } from '../../kernel/abi.ts';
import { image, LibOS, type Op } from '../libos.ts';
import { FreePages } from '../parts/free-pages.ts';

const PAGE = 4096;
const HEAP = Start.freePages * PAGE; // the rest of the first leaf table: 1 MiB
const HEAP_END = 512 * PAGE;
const LIMIT = 100_000; // sieve one byte a number: 25 pages
const RW = MAP_READ | MAP_WRITE;

export class Minimal extends LibOS {
  readonly #pages = new FreePages(this.sys);
  #leaf = 0; // page of our leaf table

  override *main(_self: number, _root: number, _middle: number, leaf: number): Op<void> {
    this.#leaf = leaf;
    yield* this.catchFaults();
    const primes = yield* this.#sieve();
    yield* this.#print(`minimal: ${primes} primes below ${LIMIT}\n`);
  }

  /** Zero-filled memory on first touch, inside the heap and nowhere else. */
  override *onFault(_cause: number, address: number): Op<boolean> {
    if (address < HEAP || address >= HEAP_END) return false;
    const page = yield* this.#pages.take(0);
    const index = Math.floor(address / PAGE);
    return (yield* this.sys.pageMap(this.#leaf, index, page, 0, 0, RW, 0)).status === Status.ok;
  }

  *#sieve(): Op<number> {
    const { port } = this;
    let primes = 0;
    for (let n = 2; n < LIMIT; n++) {
      if ((port.load8(HEAP + n) ?? (yield* port.fault())) !== 0) continue;
      primes++;
      for (let m = n * n; m < LIMIT; m += n) port.store8(HEAP + m, 1) ?? (yield* port.fault());
    }
    return primes;
  }

  *#print(text: string): Op<void> {
    const bytes = new TextEncoder().encode(text);
    this.port.write(HEAP, bytes, 0, bytes.length) ?? (yield* this.port.fault());
    yield* this.sys.consoleWrite(HEAP, bytes.length);
  }
}

export const minimal = image('minimal', (port) => new Minimal(port));
