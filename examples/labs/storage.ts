/** Lab 5, storage: the skeleton. The sheet is docs/labs/5-storage.md. */
import { MAP_READ, MAP_WRITE, Start } from '../../kernel/abi.ts';
import { image, LibOS, type Op } from '../../libos/libos.ts';
import { FreePages } from '../../libos/parts/free-pages.ts';
import { countsOf, Transfers } from '../../libos/parts/transfers.ts';

const PAGE = 4096;
const RW = MAP_READ | MAP_WRITE;
export const BUFFER = Start.freePages * PAGE; // the page that blocks go through
export const LIST = BUFFER + PAGE; // its number stands there: what a request names

export class Storage extends LibOS {
  protected disk: Transfers | null = null;

  /** YOURS: `value` into the first word of block `block`, so that a power cut does not undo it. */
  *save(_block: number, _value: number): Op<void> {}

  /** YOURS: the first word of block `block`. */
  *read(_block: number): Op<number> {
    return 0;
  }

  override *main(...[self = 0, , , leaf = 0, , extent = 0]: number[]): Op<void> {
    const free = new FreePages(this.sys);
    const page = yield* free.take(0);
    yield* this.sys.pageMap(leaf, Start.freePages, page, 0, 0, RW, 0);
    yield* this.sys.pageMap(leaf, Start.freePages + 1, yield* free.take(0), 0, 0, RW, 0);
    yield* this.port.store(LIST, page);
    this.disk = new Transfers(this.sys, { extent, extentSlot: 0, pageSlot: 0, ...countsOf(self) });
    for (const block of [3, 1, 2]) yield* this.save(block, block * 11);
    this.port.fill(BUFFER, 0, PAGE) ?? (yield* this.port.fault());
    const found: number[] = [];
    for (const block of [1, 2, 3]) found.push(yield* this.read(block));
    yield* this.print(`blocks hold ${found.join(' ')}\n`);
  }
}

export default image('storage', (port) => new Storage(port));
