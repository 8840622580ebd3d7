/**
 * A block cache: frames of one block in the library's own memory, found by a hash, replaced by the
 * policy that it is given (replacement.ts), written back when replaced or on sync. What it knows
 * lies in simulated memory and is touched word by word; only numbers that say where are its own.
 *
 *     frame record (4 words):  block + 1 | flags | next of its hash, or free | physical page
 *
 * It promises: `get` returns the address at which the block stands until the next call; a block
 * marked dirty is on the disk after `sync`, durably, in spite of replacement; one that is held is
 * not written in its place before it is let go; what `release`
 * takes away holds nothing that the disk does not have, and is not used until it is given back.
 */
import { DISK_BLOCKS_MAX, DISK_FLUSH, DISK_WRITE } from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import { CLOCK, type Policy, type Replacement } from './replacement.ts';
import { type DiskPlace, Transfers } from './transfers.ts';

const PAGE = 4096;
const Frame = { block: 0, flags: 1, next: 2, page: 3, words: 4 } as const;
const DIRTY = 1;
const HELD = 2;
const NO_PAGE = 0; // the first page of every machine is a kernel's

export interface CacheSpec extends DiskPlace {
  readonly frames: number;
  /** address of the first frame's data; frame n is PAGE bytes at data + n × PAGE */
  readonly data: number;
  /** zero-filled memory for tablesBytes(frames, policy, blocks) bytes */
  readonly tables: number;
  /** blocks of the extent: nothing beyond is asked for */
  readonly blocks: number;
  /** default: clock */
  readonly policy?: Policy;
  /**
   * zero-filled memory, a word per block: at which eviction it went. With it refaults are counted:
   * misses of what was here before.
   */
  readonly shadow?: number;
}

/** Blocks found here, read, read again although they were here once, sent away; frames it has. */
const Count = { hits: 0, misses: 1, refaults: 2, evictions: 3, frames: 4, words: 5 } as const;
export interface CacheCounts {
  readonly hits: number;
  readonly misses: number;
  readonly refaults: number;
  readonly evictions: number;
}

const buckets = (frames: number): number => 2 ** Math.ceil(Math.log2(frames * 2));

/** Bytes of tables that a cache of `frames` frames needs. */
export function tablesBytes(frames: number, policy: Policy = CLOCK, blocks = 0): number {
  const own = buckets(frames) + frames * Frame.words + DISK_BLOCKS_MAX + 1 + Count.words;
  return own * 4 + policy.bytes(frames, blocks);
}

export class BlockCache {
  readonly #port: UserPort;
  readonly #transfers: Transfers;
  readonly #spec: CacheSpec;
  readonly #policy: Replacement;
  readonly #buckets: number;
  readonly #records: number; // address
  readonly #list: number; // address of a disk request's list
  readonly #free: number; // address: frame + 1, of those that hold nothing
  readonly #counts: number; // address

  constructor(sys: Syscalls, spec: CacheSpec) {
    this.#port = sys.port;
    this.#transfers = new Transfers(sys, spec);
    this.#spec = spec;
    this.#buckets = buckets(spec.frames);
    this.#records = spec.tables + this.#buckets * 4;
    this.#list = this.#records + spec.frames * Frame.words * 4;
    this.#free = this.#list + DISK_BLOCKS_MAX * 4;
    this.#counts = this.#free + 4;
    const { policy = CLOCK, frames, blocks } = spec;
    this.#policy = policy.make(sys.port, this.#counts + Count.words * 4, frames, blocks);
  }

  /** Gives it frame `n`, behind which stands this physical page: each before its first use. */
  *setPage(n: number, page: number): Op<void> {
    yield* this.#port.store(this.#word(n, Frame.page), page);
    yield* this.#putFree(n);
    yield* this.#add(Count.frames);
  }

  /** Frames that it has: those that were given and not taken away. */
  *frames(): Op<number> {
    return yield* this.#port.load(this.#counts + Count.frames * 4);
  }

  /**
   * Takes a frame away from it, the one that it needs least of those whose page `may` be given: the
   * frame's number and page, or null if there is none that is clean or can be written.
   */
  *release(may: (page: number) => boolean): Op<{ frame: number; page: number } | null> {
    const rejected: number[] = [];
    for (;;) {
      let frame = yield* this.#takeFree();
      const free = frame >= 0;
      if (!free) frame = yield* this.#policy.victim(rejected);
      if (frame < 0) break;
      const page = yield* this.#port.load(this.#word(frame, Frame.page));
      if (may(page) && (free || (yield* this.#vacate(frame, true)))) {
        yield* this.#port.store(this.#word(frame, Frame.page), NO_PAGE);
        yield* this.#add(Count.frames, -1);
        for (const back of rejected) if (yield* this.#isEmpty(back)) yield* this.#putFree(back);
        return { frame, page };
      }
      rejected.push(frame);
    }
    for (const back of rejected) if (yield* this.#isEmpty(back)) yield* this.#putFree(back);
    return null;
  }

  /**
   * Drops every frame whose page is not `ours` any more: it was taken by force, with what was in
   * it. Which frames those were; `differed` is told of each that the disk did not have.
   */
  *lose(ours: (page: number) => Op<boolean>, differed: () => void = () => undefined): Op<number[]> {
    const lost: number[] = [];
    for (let frame = 0; frame < this.#spec.frames; frame++) {
      const page = yield* this.#port.load(this.#word(frame, Frame.page));
      if (page === NO_PAGE || (yield* ours(page))) continue;
      if (yield* this.#isEmpty(frame)) yield* this.#dropFree(frame);
      else {
        if (((yield* this.#port.load(this.#word(frame, Frame.flags))) & DIRTY) !== 0) differed();
        yield* this.#clean(frame);
        yield* this.#vacate(frame, false);
      }
      yield* this.#port.store(this.#word(frame, Frame.page), NO_PAGE);
      yield* this.#add(Count.frames, -1);
      lost.push(frame);
    }
    return lost;
  }

  /** Blocks `first` and on stand for something else now: what is here of them is forgotten. */
  *forget(first: number, count: number): Op<void> {
    for (let block = first; block < first + count; block++) {
      const frame = yield* this.#find(block);
      if (frame < 0) continue;
      yield* this.#clean(frame);
      yield* this.#vacate(frame, false);
      yield* this.#putFree(frame);
      if (this.#spec.shadow !== undefined) yield* this.#port.store(this.#shadow(block), 0);
    }
  }

  *counts(): Op<CacheCounts> {
    const read = (n: number): Op<number> => this.#port.load(this.#counts + n * 4);
    return {
      hits: yield* read(Count.hits),
      misses: yield* read(Count.misses),
      refaults: yield* read(Count.refaults),
      evictions: yield* read(Count.evictions),
    };
  }

  /**
   * Address of `block`, read from the disk if need be, with as many as `ahead` blocks that follow
   * it if they are not here either; or -1 after a disk error. `once`: it will not be asked for
   * again soon; what that means is the policy's affair.
   */
  *get(block: number, ahead = 0, once = false): Op<number> {
    const found = yield* this.#find(block);
    if (found >= 0) {
      yield* this.#add(Count.hits);
      return yield* this.#touch(found, once);
    }
    let count = 1;
    const most = Math.min(ahead + 1, DISK_BLOCKS_MAX, this.#spec.blocks - block);
    while (count < most && (yield* this.#find(block + count)) < 0) count++;
    const frames: number[] = [];
    for (let n = 0; n < count; n++) {
      const frame: number = yield* this.#claim(block + n, frames, once || n > 0);
      if (frame < 0) break;
      frames.push(frame);
      yield* this.#missed(block + n);
    }
    const [first] = frames;
    if (first === undefined) return -1;
    if (!(yield* this.#transfer(block, frames, 0))) {
      // Whichever it was that failed, only the first was asked for.
      for (const frame of frames.slice(1)) yield* this.#drop(frame);
      if (frames.length === 1 || !(yield* this.#transfer(block, [first], 0))) {
        yield* this.#drop(first);
        return -1;
      }
    }
    return this.#address(first);
  }

  /** Address of `block` without reading it: all of it is about to be written. -1 on an error. */
  *fresh(block: number): Op<number> {
    const found = yield* this.#find(block);
    if (found >= 0) return yield* this.#touch(found, false);
    const frame = yield* this.#claim(block, [], false);
    return frame < 0 ? -1 : this.#address(frame);
  }

  /** The block that stands at `address` differs from the disk. */
  *dirty(address: number): Op<void> {
    const at = this.#word((address - this.#spec.data) / PAGE, Frame.flags);
    yield* this.#port.store(at, (yield* this.#port.load(at)) | DIRTY);
  }

  /**
   * The block that stands at `address` differs from the disk, and stays here until it is let go.
   * Which block that is, or -1 if it was held already.
   */
  *hold(address: number): Op<number> {
    const frame = (address - this.#spec.data) / PAGE;
    const at = this.#word(frame, Frame.flags);
    const flags = yield* this.#port.load(at);
    if ((flags & HELD) !== 0) return -1;
    yield* this.#port.store(at, flags | DIRTY | HELD);
    return (yield* this.#port.load(this.#word(frame, Frame.block))) - 1;
  }

  *letGo(block: number): Op<void> {
    const frame = yield* this.#find(block);
    if (frame < 0) return;
    const at = this.#word(frame, Frame.flags);
    yield* this.#port.store(at, (yield* this.#port.load(at)) & ~HELD);
  }

  /** Writes what is here of `blocks` in place, and flushes. False if one could not be written. */
  *settle(blocks: readonly number[]): Op<boolean> {
    const dirty: { block: number; frame: number }[] = [];
    for (const block of blocks) {
      const frame = yield* this.#find(block);
      if (frame >= 0) dirty.push({ block, frame });
    }
    return yield* this.#writeAll(dirty);
  }

  /**
   * Writes what is here of `blocks`, at most DISK_BLOCKS_MAX, to neighbours on the disk from `to`
   * on: copies, or a block to its own place. All of them are here.
   */
  *copyOut(blocks: readonly number[], to: number, flags: number): Op<boolean> {
    const frames: number[] = [];
    for (const block of blocks) frames.push(yield* this.#find(block));
    if (frames.includes(-1)) return false;
    return yield* this.#transfer(to, frames, flags);
  }

  /**
   * Writes everything dirty and not held, in block order, neighbours together; flushes. False if a
   * block could not be written: it stays dirty, the others are durable.
   */
  *sync(): Op<boolean> {
    const dirty: { block: number; frame: number }[] = [];
    for (let frame = 0; frame < this.#spec.frames; frame++) {
      if (!(yield* this.#isLoose(frame))) continue;
      const block = (yield* this.#port.load(this.#word(frame, Frame.block))) - 1;
      dirty.push({ block, frame });
    }
    return yield* this.#writeAll(dirty);
  }

  *#writeAll(dirty: { block: number; frame: number }[]): Op<boolean> {
    let compared = 0;
    dirty.sort((a, b) => (compared++, a.block - b.block));
    if (this.#port.work(compared * 10) === undefined) yield* this.#port.fault();
    let failed = false;
    for (let n = 0; n < dirty.length;) {
      const first = dirty[n]?.block ?? 0;
      const run = [];
      while (n < dirty.length && dirty[n]?.block === first + run.length) {
        if (run.length === DISK_BLOCKS_MAX) break;
        run.push(dirty[n]?.frame ?? 0);
        n++;
      }
      if (!(yield* this.#writeRun(first, run))) failed = true;
    }
    return (yield* this.#transfers.move(0, 0, this.#list, DISK_FLUSH)) && !failed;
  }

  #word(frame: number, word: number): number {
    return this.#records + (frame * Frame.words + word) * 4;
  }

  #bucket(block: number): number {
    return this.#spec.tables + (block & (this.#buckets - 1)) * 4;
  }

  #address(frame: number): number {
    return this.#spec.data + frame * PAGE;
  }

  #shadow(block: number): number {
    return (this.#spec.shadow ?? 0) + block * 4;
  }

  *#add(count: number, by = 1): Op<number> {
    const at = this.#counts + count * 4;
    const value = (yield* this.#port.load(at)) + by;
    yield* this.#port.store(at, value);
    return value;
  }

  *#dropFree(frame: number): Op<void> {
    let link = this.#free;
    for (let here = yield* this.#port.load(link); here !== frame + 1;) {
      link = this.#word(here - 1, Frame.next);
      here = yield* this.#port.load(link);
    }
    yield* this.#port.store(link, yield* this.#port.load(this.#word(frame, Frame.next)));
  }

  *#missed(block: number): Op<void> {
    yield* this.#add(Count.misses);
    if (this.#spec.shadow === undefined) return;
    if ((yield* this.#port.load(this.#shadow(block))) !== 0) yield* this.#add(Count.refaults);
  }

  *#touch(frame: number, once: boolean): Op<number> {
    yield* this.#policy.touched(frame, once);
    return this.#address(frame);
  }

  *#isEmpty(frame: number): Op<boolean> {
    return (yield* this.#port.load(this.#word(frame, Frame.block))) === 0;
  }

  /** Dirty, and may be written. */
  *#isLoose(frame: number): Op<boolean> {
    const flags = yield* this.#port.load(this.#word(frame, Frame.flags));
    return (flags & (DIRTY | HELD)) === DIRTY;
  }

  *#putFree(frame: number): Op<void> {
    yield* this.#port.store(this.#word(frame, Frame.next), yield* this.#port.load(this.#free));
    yield* this.#port.store(this.#free, frame + 1);
  }

  *#takeFree(): Op<number> {
    const frame = (yield* this.#port.load(this.#free)) - 1;
    if (frame < 0) return -1;
    yield* this.#port.store(this.#free, yield* this.#port.load(this.#word(frame, Frame.next)));
    return frame;
  }

  *#clean(frame: number): Op<void> {
    const at = this.#word(frame, Frame.flags);
    yield* this.#port.store(at, (yield* this.#port.load(at)) & ~DIRTY);
  }

  /** The frame that holds `block`, or -1. Chains hold frame + 1. */
  *#find(block: number): Op<number> {
    let frame = (yield* this.#port.load(this.#bucket(block))) - 1;
    while (frame >= 0) {
      if ((yield* this.#port.load(this.#word(frame, Frame.block))) === block + 1) return frame;
      frame = (yield* this.#port.load(this.#word(frame, Frame.next))) - 1;
    }
    return -1;
  }

  /** An empty frame, filed under `block`; -1 after a disk error, or if there is none to take. */
  *#claim(block: number, spare: readonly number[], once: boolean): Op<number> {
    const excluded = [...spare];
    let frame = yield* this.#takeFree();
    while (frame < 0) {
      const victim: number = yield* this.#policy.victim(excluded);
      if (victim < 0) return -1;
      // What cannot be written stays: the others go on with the frames that are left.
      if (yield* this.#vacate(victim, true)) frame = victim;
      else excluded.push(victim);
    }
    const bucket = this.#bucket(block);
    yield* this.#port.store(this.#word(frame, Frame.next), yield* this.#port.load(bucket));
    yield* this.#port.store(bucket, frame + 1);
    yield* this.#port.store(this.#word(frame, Frame.block), block + 1);
    yield* this.#policy.filled(frame, block, once);
    return frame;
  }

  /** Empties a frame, writing back first what is dirty. False: that failed, and it stays. */
  *#vacate(frame: number, evicted: boolean): Op<boolean> {
    const old = (yield* this.#port.load(this.#word(frame, Frame.block))) - 1;
    const flags = yield* this.#port.load(this.#word(frame, Frame.flags));
    if ((flags & HELD) !== 0) return false;
    if ((flags & DIRTY) !== 0 && !(yield* this.#writeBack(frame, old))) return false;
    yield* this.#unfile(frame, old);
    yield* this.#port.store(this.#word(frame, Frame.block), 0);
    yield* this.#policy.emptied(frame, old, evicted);
    if (evicted) {
      const eviction = yield* this.#add(Count.evictions);
      if (this.#spec.shadow !== undefined) yield* this.#port.store(this.#shadow(old), eviction);
    }
    return true;
  }

  /** Writes a dirty frame, and the dirty neighbours that follow it on the disk, if they let it. */
  *#writeBack(frame: number, block: number): Op<boolean> {
    const run = [frame];
    while (run.length < DISK_BLOCKS_MAX) {
      const next = yield* this.#find(block + run.length);
      if (next < 0 || !(yield* this.#isLoose(next))) break;
      run.push(next);
    }
    yield* this.#writeRun(block, run);
    return ((yield* this.#port.load(this.#word(frame, Frame.flags))) & DIRTY) === 0;
  }

  /** Writes neighbours with one request; if that fails, each alone. False if one of them failed. */
  *#writeRun(block: number, frames: readonly number[]): Op<boolean> {
    const whole = yield* this.#transfer(block, frames, DISK_WRITE);
    let failed = false;
    for (let n = 0; n < frames.length; n++) {
      const frame = frames[n] ?? 0;
      const alone = !whole && frames.length > 1;
      const ok = alone ? yield* this.#transfer(block + n, [frame], DISK_WRITE) : whole;
      if (ok) yield* this.#clean(frame);
      else failed = true;
    }
    return !failed;
  }

  /** What was to be read into the frame could not be. */
  *#drop(frame: number): Op<void> {
    yield* this.#vacate(frame, false);
    yield* this.#putFree(frame);
  }

  *#unfile(frame: number, block: number): Op<void> {
    const next = yield* this.#port.load(this.#word(frame, Frame.next));
    let link = this.#bucket(block);
    for (;;) {
      const here = (yield* this.#port.load(link)) - 1;
      if (here < 0) return;
      if (here === frame) {
        yield* this.#port.store(link, next);
        return;
      }
      link = this.#word(here, Frame.next);
    }
  }

  *#transfer(block: number, frames: readonly number[], flags: number): Op<boolean> {
    for (let n = 0; n < frames.length; n++) {
      const page = yield* this.#port.load(this.#word(frames[n] ?? 0, Frame.page));
      yield* this.#port.store(this.#list + n * 4, page);
    }
    return yield* this.#transfers.move(block, frames.length, this.#list, flags);
  }
}
