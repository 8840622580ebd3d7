/**
 * Finding a free page by reading the kernel's exposed page table: no call, one load an entry.
 * What is read may be stale by the time of the allocation: then the kernel refuses, one looks on.
 */
import { Info, PageKind, Start, Status } from '../../kernel/abi.ts';
import type { Op, Syscalls } from '../syscalls.ts';

const PAGE = 4096;

export class FreePages {
  readonly #sys: Syscalls;
  #next = 0; // where to look first: a hint, nothing depends on it

  constructor(sys: Syscalls) {
    this.#sys = sys;
  }

  /** Takes a free page for capability `slot`; its number, or -1 if the machine has none left. */
  *take(slot: number): Op<number> {
    const { port } = this.#sys;
    const pages = yield* port.load(Start.infoPage * PAGE + Info.pages * 4);
    for (let n = 0; n < pages; n++) {
      const page = (this.#next + n) % pages;
      const word = yield* port.load(Start.pagePages * PAGE + page * 4);
      if ((word & 0xff) !== PageKind.free) continue;
      const { status } = yield* this.#sys.pageAllocate(page, slot);
      if (status !== Status.ok) continue;
      this.#next = page + 1;
      return page;
    }
    return -1;
  }
}
