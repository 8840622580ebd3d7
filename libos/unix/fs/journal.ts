/**
 * The journal. What operations change of bitmaps, inodes, directories and pointer blocks stays in
 * the cache until a commit: data first, then copies of all changed blocks into the journal, and
 * when those are on the medium one forced write that says so; only then are the blocks written in
 * place. So at a power cut the medium has all of a commit or nothing of it, and since operations
 * are never divided, a legal tree.
 *
 * It promises: what `commit` returned true for is on the medium for good; a block that was freed is
 * not used again before the commit that frees it, or its old owner could lose what it had synced.
 * It trusts the disk that a forced write is whole, and that a flush means what it says.
 *
 *     memory (words):  count | sequence | an unfinished commit | block numbers
 */
import { DISK_BLOCKS_MAX, DISK_FORCE, DISK_WRITE } from '../../../kernel/abi.ts';
import type { BlockCache } from '../../parts/block-cache.ts';
import { CRC_CYCLES, crc32c } from '../../parts/checksum.ts';
import type { Op, UserPort } from '../../syscalls.ts';
import { BLOCK, Log, LOG_MAGIC } from './format.ts';

const FORCED = DISK_WRITE | DISK_FORCE;
const OPERATION = 24; // blocks that one operation may change, the bitmap's left out
const SPARE = 16; // frames besides
const Word = { count: 0, sequence: 1, unfinished: 2, blocks: 3 } as const;

export interface JournalSpec {
  /** blocks of the extent: the first, and how many */
  readonly first: number;
  readonly blocks: number;
  readonly bitmap: number; // blocks
  /** zero-filled memory, journalBytes(blocks) bytes */
  readonly memory: number;
}
export const journalBytes = (blocks: number): number => (Word.blocks + blocks) * 4;

export class Journal {
  readonly #port: UserPort;
  readonly #cache: BlockCache;
  readonly #spec: JournalSpec;

  constructor(port: UserPort, cache: BlockCache, spec: JournalSpec) {
    this.#port = port;
    this.#cache = cache;
    this.#spec = spec;
  }

  #at(word: number): number {
    return this.#spec.memory + word * 4;
  }

  /** Blocks that may be held: half of the frames that the cache has now. */
  *#capacity(): Op<number> {
    return Math.min(this.#spec.blocks - 1, Math.floor((yield* this.#cache.frames()) / 2));
  }

  /** Frames that the cache must keep: what is held now, and an operation. */
  *framesLeast(): Op<number> {
    const held = yield* this.#port.load(this.#at(Word.count));
    return 2 * Math.max(held, OPERATION + this.#spec.bitmap) + SPARE;
  }

  /** The block at `address` was changed by the operation under way. */
  *changed(address: number): Op<void> {
    const block = yield* this.#cache.hold(address);
    if (block < 0) return;
    const count = yield* this.#port.load(this.#at(Word.count));
    if (count >= (yield* this.#capacity()))
      throw new Error('journal: an operation changed too much');
    yield* this.#port.store(this.#at(Word.blocks + count), block);
    yield* this.#port.store(this.#at(Word.count), count + 1);
  }

  /** Whether one more operation might not fit. */
  *isFull(): Op<boolean> {
    const count = yield* this.#port.load(this.#at(Word.count));
    return count > (yield* this.#capacity()) - OPERATION - this.#spec.bitmap;
  }

  /** Makes everything so far durable. False: the disk would not, and nothing of it counts. */
  *commit(): Op<boolean> {
    const port = this.#port;
    // The last commit is in the journal and not in place yet: its copies must stay.
    if ((yield* port.load(this.#at(Word.unfinished))) !== 0) {
      if (!(yield* this.#finish(yield* this.#cache.sync()))) return false;
    }
    const count = yield* port.load(this.#at(Word.count));
    const blocks: number[] = [];
    for (let n = 0; n < count; n++) blocks.push(yield* port.load(this.#at(Word.blocks + n)));
    for (let n = 0; n < count; n += DISK_BLOCKS_MAX) {
      const part = blocks.slice(n, n + DISK_BLOCKS_MAX);
      if (!(yield* this.#cache.copyOut(part, this.#spec.first + 1 + n, FORCED))) return false;
    }
    // Data that the disk will not take is told, and keeps nobody else from being durable.
    const data = yield* this.#cache.sync();
    if (count === 0) return data;
    if (!(yield* this.#describe(blocks))) return false;
    yield* port.store(this.#at(Word.unfinished), 1);
    for (const block of blocks) yield* this.#cache.letGo(block);
    yield* port.store(this.#at(Word.count), 0);
    return (yield* this.#finish(yield* this.#cache.settle(blocks))) && data;
  }

  /** What was committed is written in place: the journal is empty. */
  *#finish(settled: boolean): Op<boolean> {
    if (!settled || !(yield* this.#describe([]))) return false;
    yield* this.#port.store(this.#at(Word.unfinished), 0);
    return true;
  }

  /** Says on the medium whose copies the journal holds. */
  *#describe(blocks: readonly number[]): Op<boolean> {
    const port = this.#port;
    const sequence = (yield* port.load(this.#at(Word.sequence))) + 1;
    yield* port.store(this.#at(Word.sequence), sequence);
    const words = new Uint32Array(BLOCK / 4);
    words.set([LOG_MAGIC, blocks.length, sequence], 0);
    words.set(blocks, Log.blocks);
    words[Log.checksum] = crc32c(0, new Uint8Array(words.buffer));
    const { first } = this.#spec;
    const address = yield* this.#cache.fresh(first);
    if (address < 0) return false;
    const bytes = new Uint8Array(words.buffer);
    if (port.write(address, bytes, 0, BLOCK) === undefined) yield* port.fault();
    if (port.work(BLOCK * CRC_CYCLES) === undefined) yield* port.fault();
    return yield* this.#cache.copyOut([first], first, FORCED);
  }

  /** At a mount: what was committed and not written in place is written now. */
  *recover(): Op<boolean> {
    const port = this.#port;
    const words = yield* this.#read(this.#spec.first);
    if (words === null) return false;
    const [magic = 0, count = 0, sequence = 0, checksum = 0] = words;
    yield* port.store(this.#at(Word.sequence), sequence);
    if (magic !== LOG_MAGIC || count === 0 || count >= this.#spec.blocks) return true;
    words[Log.checksum] = 0;
    if (port.work(BLOCK * CRC_CYCLES) === undefined) yield* port.fault();
    if (crc32c(0, new Uint8Array(words.buffer)) >>> 0 !== checksum) return true;
    for (let n = 0; n < count; n++) {
      const copy = yield* this.#read(this.#spec.first + 1 + n);
      const address = copy === null ? -1 : yield* this.#cache.fresh(words[Log.blocks + n] ?? 0);
      if (copy === null || address < 0) return false;
      const bytes = new Uint8Array(copy.buffer);
      if (port.write(address, bytes, 0, BLOCK) === undefined) yield* port.fault();
      yield* this.#cache.dirty(address);
    }
    return yield* this.#finish(yield* this.#cache.sync());
  }

  *#read(block: number): Op<Uint32Array<ArrayBuffer> | null> {
    const address = yield* this.#cache.get(block);
    if (address < 0) return null;
    const bytes = new Uint8Array(BLOCK);
    if (this.#port.read(address, bytes, 0, BLOCK) === undefined) yield* this.#port.fault();
    return new Uint32Array(bytes.buffer);
  }
}
