/**
 * The tutorial's library OS: more memory than it has pages for, with a replacement of its own.
 *
 * Its heap is as large as its extent of the disk; a few pages of physical memory are its frames. A
 * touch of what is not there faults; `onFault` frees a frame by its own policy, writing it back if
 * the dirty bit in its own page table says so, and reads what is wanted. Which frame goes is
 * `victim`, and nobody else's business.
 */
import { DISK_WRITE, MAP_READ, MAP_WRITE, Start, Status } from '../kernel/abi.ts';
import { image, type Image, LibOS, type Op, type UserPort } from '../libos/libos.ts';
import { FreePages } from '../libos/parts/free-pages.ts';
import { countsOf, Transfers } from '../libos/parts/transfers.ts';

const PAGE = 4096;
const RW = MAP_READ | MAP_WRITE;
const TABLE = Start.freePages; // virtual page: our own leaf table, read-only, as the hardware has it
const WORDS = TABLE + 1; // virtual page: the words below
const HEAP = TABLE + 2; // virtual page: of block 0
const DIRTY = 1 << 7; // of a table entry (Sv39)

/** Words of the page WORDS: what the handler must remember, in memory like everybody's. */
const Word = {
  list: 0, // of a disk request: one page
  last: 1, // frame that was filled last
  faults: 2,
  reads: 3,
  writes: 4,
  busy: 5, // a fault is being handled: who asks for pages meanwhile is served at its end
  owed: 6, // pages
  frames: 16, // FRAME words each: physical page + 1, block + 1
  saved: 128, // per block: 1, the disk has it
} as const;
const FRAME = 2;

/** Which frame goes next: its number, given which frame was filled last. */
export type Victim = (last: number, frames: number) => number;
/** First in, first out: round and round. */
export const fifo: Victim = (last, frames) => (last + 1) % frames;
/** What was filled last goes first: best for a loop over more than fits. */
export const newest: Victim = (last) => last;

export class Pager extends LibOS {
  readonly #free = new FreePages(this.sys);
  readonly #frames: number;
  readonly #victim: Victim;
  #leaf = 0;
  #disk: Transfers | null = null;

  constructor(port: UserPort, frames: number, victim: Victim) {
    super(port);
    this.#frames = frames;
    this.#victim = victim;
  }

  override *main(...[self = 0, , , leaf = 0, , extent = 0]: number[]): Op<void> {
    this.#leaf = leaf;
    yield* this.sys.pageMap(leaf, TABLE, leaf, 0, 0, MAP_READ, 0);
    yield* this.sys.pageMap(leaf, WORDS, yield* this.#free.take(0), 0, 0, RW, 0);
    this.#disk = new Transfers(this.sys, { extent, extentSlot: 0, pageSlot: 0, ...countsOf(self) });
    yield* this.catchFaults();
    yield* this.catchRevocation();
    yield* this.program();
  }

  /** Twelve pages, three times over, in eight frames. */
  *program(): Op<void> {
    let sum = 0;
    for (let round = 0; round < 3; round++) {
      for (let n = 0; n < 12; n++) {
        const at = (HEAP + n) * PAGE;
        yield* this.port.store(at, (yield* this.port.load(at)) + n);
        sum += yield* this.port.load(at);
      }
    }
    const [faults, reads, writes] = [
      yield* this.#get(Word.faults),
      yield* this.#get(Word.reads),
      yield* this.#get(Word.writes),
    ];
    yield* this.print(`sum ${sum}; ${faults} faults, ${reads} blocks read, ${writes} written\n`);
  }

  override *onFault(_cause: number, address: number): Op<boolean> {
    const block = Math.floor(address / PAGE) - HEAP;
    if (block < 0 || block >= 64) return false; // not of the heap: a mistake
    yield* this.#put(Word.faults, (yield* this.#get(Word.faults)) + 1);
    yield* this.#put(Word.busy, 1);
    const filled = yield* this.#fill(block);
    yield* this.#put(Word.busy, 0);
    yield* this.#giveBack(yield* this.#get(Word.owed));
    return filled;
  }

  *#fill(block: number): Op<boolean> {
    const frame = yield* this.#frame();
    const page = (yield* this.#get(Word.frames + frame * FRAME)) - 1;
    if (page < 0) return false;
    const saved = (yield* this.#get(Word.saved + block)) === 1;
    if (saved) yield* this.#move(Word.reads, block, page, 0);
    const { status } = yield* this.sys.pageMap(this.#leaf, HEAP + block, page, 0, 0, RW, 0);
    if (status !== Status.ok) return false;
    yield* this.#put(Word.frames + frame * FRAME + 1, block + 1);
    const clean = saved || this.port.fill((HEAP + block) * PAGE, 0, PAGE);
    if (clean === undefined) yield* this.port.fault(); // another block's bytes stood there
    return true;
  }

  /** An empty frame with a page: one never used yet, or the victim's. */
  *#frame(): Op<number> {
    for (let frame = 0; frame < this.#frames; frame++) {
      if ((yield* this.#get(Word.frames + frame * FRAME + 1)) !== 0) continue;
      if ((yield* this.#get(Word.frames + frame * FRAME)) === 0) {
        const page = yield* this.#free.take(0);
        if (page < 0) break; // then the frames that there are must do
        yield* this.#put(Word.frames + frame * FRAME, page + 1);
      }
      yield* this.#put(Word.last, frame);
      return frame;
    }
    let frame = yield* this.#get(Word.last);
    do frame = this.#victim(frame, this.#frames);
    while ((yield* this.#get(Word.frames + frame * FRAME + 1)) === 0);
    yield* this.#evict(frame);
    yield* this.#put(Word.last, frame);
    return frame;
  }

  /** Takes what is in the frame out of our address space, and saves it if it was written. */
  *#evict(frame: number): Op<void> {
    const page = (yield* this.#get(Word.frames + frame * FRAME)) - 1;
    const block = (yield* this.#get(Word.frames + frame * FRAME + 1)) - 1;
    const entry = yield* this.port.load(TABLE * PAGE + (HEAP + block) * 8);
    yield* this.sys.pageUnmap(this.#leaf, HEAP + block, 1, 0);
    if ((entry & DIRTY) !== 0) {
      yield* this.#move(Word.writes, block, page, DISK_WRITE);
      yield* this.#put(Word.saved + block, 1);
    }
    yield* this.#put(Word.frames + frame * FRAME + 1, 0);
  }

  /** The kernel asks: we choose which frames we can best do without, and go on with the others. */
  override *onRevoke(wanted: number): Op<void> {
    if ((yield* this.#get(Word.busy)) === 1) yield* this.#put(Word.owed, wanted);
    else yield* this.#giveBack(wanted);
  }

  *#giveBack(wanted: number): Op<void> {
    yield* this.#put(Word.owed, 0);
    let given = 0;
    for (let frame = this.#frames - 1; frame > 0 && given < wanted; frame--) {
      const page = (yield* this.#get(Word.frames + frame * FRAME)) - 1;
      if (page < 0) continue;
      if ((yield* this.#get(Word.frames + frame * FRAME + 1)) !== 0) yield* this.#evict(frame);
      if ((yield* this.sys.pageFree(page, 0)).status !== Status.ok) continue;
      yield* this.#put(Word.frames + frame * FRAME, 0);
      given++;
    }
  }

  *#move(count: number, block: number, page: number, flags: number): Op<void> {
    yield* this.#put(Word.list, page);
    yield* this.#put(count, (yield* this.#get(count)) + 1);
    yield* this.#disk?.move(block, 1, WORDS * PAGE + Word.list * 4, flags) ?? [];
  }

  *#get(word: number): Op<number> {
    return yield* this.port.load(WORDS * PAGE + word * 4);
  }
  *#put(word: number, value: number): Op<void> {
    yield* this.port.store(WORDS * PAGE + word * 4, value);
  }
}

export const pager = (victim: Victim, frames = 8): Image =>
  image('pager', (port) => new Pager(port, frames, victim));

export default pager(fifo);
