/**
 * Skeleton: a library OS. All of it is unprivileged code, one instance per environment.
 *
 *     exoscope run skeleton.ts --mode all
 *
 * Rules of the house: what can trap is `yield*`; a page, a table, a block is named by you and only
 * checked by the kernel (docs/ABI.md has every call); a refusal is a value and has changed nothing.
 */
import { MAP_READ, MAP_WRITE, Start, Status } from '../kernel/abi.ts';
import { image, LibOS, type Op } from '../libos/libos.ts';
import { FreePages } from '../libos/parts/free-pages.ts';

const PAGE = 4096;
const HEAP = Start.freePages * PAGE; // from here on nothing is mapped yet
const HEAP_END = 512 * PAGE; // where our first leaf table ends

export class Skeleton extends LibOS {
  /** Finds free pages by reading the kernel's exposed table. */
  readonly #free = new FreePages(this.sys);
  #leaf = 0; // page of our leaf table: mappings are made in it

  /** Started once, with what the kernel made this environment of (StartArguments in abi.ts). */
  override *main(_self: number, _root: number, _middle: number, leaf: number): Op<void> {
    this.#leaf = leaf;
    yield* this.catchFaults(); // from now on a fault is an upcall to onFault
    yield* this.catchRevocation(); // and a request for pages one to onRevoke

    let sum = 0;
    for (let n = 0; n < 1000; n++) yield* this.port.store(HEAP + n * 4, n);
    for (let n = 0; n < 1000; n++) sum += yield* this.port.load(HEAP + n * 4);
    yield* this.print(`skeleton: the sum is ${sum}\n`);
  }

  /** An access trapped. True: it is tried again. This policy: a zeroed page at the first touch. */
  override *onFault(_cause: number, address: number): Op<boolean> {
    if (address < HEAP || address >= HEAP_END) return false; // a mistake: the environment ends
    const page = yield* this.#free.take(0); // capability slot 0 is our own name, with all rights
    const index = Math.floor(address / PAGE);
    const flags = MAP_READ | MAP_WRITE;
    return (yield* this.sys.pageMap(this.#leaf, index, page, 0, 0, flags, 0)).status === Status.ok;
  }

  /** `wanted` pages are to be given back within `cycles`: which, is ours to choose. */
  override *onRevoke(_wanted: number, _cycles: number): Op<void> {
    // pageUnmap what can best be missed, then pageFree it. What is not given is taken.
  }
}

export default image('skeleton', (port) => new Skeleton(port));
