/** Lab 2, faults: the skeleton. The sheet is docs/labs/2-faults.md. */
import { Start } from '../../kernel/abi.ts';
import { image, LibOS, type Op } from '../../libos/libos.ts';
import { FreePages } from '../../libos/parts/free-pages.ts';

export const PAGE = 4096;
export const HEAP = Start.freePages; // virtual page: of 16
export const GUARD = HEAP + 16; // virtual page: whoever touches it has gone too far
const TOUCHED = [0, 3, 3, 7, 7, 1, 16];

export class Faults extends LibOS {
  protected readonly free = new FreePages(this.sys);
  protected leaf = 0;
  protected faults = 0;
  protected guarded = 0;

  /** YOURS: count it; map a fresh page in the heap, and at GUARD, which you count besides. */
  override *onFault(_cause: number, _address: number): Op<boolean> {
    return false;
  }

  override *main(...[, , , leaf = 0]: number[]): Op<void> {
    this.leaf = leaf;
    yield* this.catchFaults();
    for (const page of TOUCHED) yield* this.port.store((HEAP + page) * PAGE, page);
    yield* this.print(`${this.faults} faults, the guard page was touched ${this.guarded} time\n`);
    yield* this.port.store((GUARD + 1) * PAGE, 0); // must stay uncaught
  }
}

export default image('faults', (port) => new Faults(port));
