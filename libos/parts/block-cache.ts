/**
 * A block cache: frames of one block in the library's own memory, found by a hash, replaced by the
 * clock rule, written back when replaced or on sync. What it knows lies in simulated memory and is
 * touched word by word; only the numbers that say where are its own.
 *
 *     frame record (4 words):  block + 1 | flags | next in the hash chain | physical page
 *
 * It promises: `get` returns the address at which the block stands until the next call; a block
 * marked dirty is on the disk after `sync`, durably, in spite of replacement.
 */
import { DISK_BLOCKS_MAX, DISK_FLUSH, DISK_WRITE, Status } from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';

const PAGE = 4096;
const Frame = { block: 0, flags: 1, next: 2, page: 3, words: 4 } as const;
const DIRTY = 1;
const REFERENCED = 2;

export interface CacheSpec {
  readonly frames: number;
  /** address of the first frame's data; frame n is PAGE bytes at data + n × PAGE */
  readonly data: number;
  /** zero-filled memory for tablesBytes(frames) bytes */
  readonly tables: number;
  readonly extent: number;
  readonly extentSlot: number;
  readonly pageSlot: number;
  /** blocks of the extent: nothing beyond is asked for */
  readonly blocks: number;
  /** addresses of our own diskDone, diskFailed and event counts in the exposed table */
  readonly done: number;
  readonly failed: number;
  readonly events: number;
}

const buckets = (frames: number): number => 2 ** Math.ceil(Math.log2(frames * 2));

/** Bytes of tables that a cache of `frames` frames needs. */
export function tablesBytes(frames: number): number {
  return (buckets(frames) + frames * Frame.words + DISK_BLOCKS_MAX + 4) * 4;
}

export class BlockCache {
  readonly #port: UserPort;
  readonly #sys: Syscalls;
  readonly #spec: CacheSpec;
  readonly #buckets: number;
  readonly #records: number; // address
  readonly #list: number; // address of a disk request's list
  readonly #hand: number; // address of the clock's hand

  constructor(sys: Syscalls, spec: CacheSpec) {
    this.#port = sys.port;
    this.#sys = sys;
    this.#spec = spec;
    this.#buckets = buckets(spec.frames);
    this.#records = spec.tables + this.#buckets * 4;
    this.#list = this.#records + spec.frames * Frame.words * 4;
    this.#hand = this.#list + DISK_BLOCKS_MAX * 4;
  }

  /** Says which physical page stands behind frame `n`: once for each, before use. */
  setPage(n: number, page: number): Op<number> {
    return this.#port.store(this.#word(n, Frame.page), page);
  }

  /**
   * Address of `block`, read from the disk if need be, with as many as `ahead` blocks that follow
   * it if they are not here either; or -1 after a disk error.
   */
  *get(block: number, ahead = 0): Op<number> {
    const found = yield* this.#find(block);
    if (found >= 0) return yield* this.#touch(found);
    let count = 1;
    const most = Math.min(ahead + 1, DISK_BLOCKS_MAX, this.#spec.blocks - block);
    while (count < most && (yield* this.#find(block + count)) < 0) count++;
    const frames: number[] = [];
    for (let n = 0; n < count; n++) {
      const frame: number = yield* this.#claim(block + n, frames);
      if (frame < 0) break;
      frames.push(frame);
    }
    const [first] = frames;
    if (first === undefined) return -1;
    if (!(yield* this.#transfer(block, frames, 0))) {
      // Whichever it was that failed, only the first was asked for.
      for (const frame of frames.slice(1)) yield* this.#forget(frame);
      if (frames.length === 1 || !(yield* this.#transfer(block, [first], 0))) {
        yield* this.#forget(first);
        return -1;
      }
    }
    return yield* this.#touch(first);
  }

  /** Address of `block` without reading it: all of it is about to be written. -1 on an error. */
  *fresh(block: number): Op<number> {
    const found = yield* this.#find(block);
    const frame = found >= 0 ? found : yield* this.#claim(block, []);
    return frame < 0 ? -1 : yield* this.#touch(frame);
  }

  /** The block that stands at `address` differs from the disk. */
  *dirty(address: number): Op<void> {
    const at = this.#word((address - this.#spec.data) / PAGE, Frame.flags);
    yield* this.#port.store(at, (yield* this.#port.load(at)) | DIRTY);
  }

  /**
   * Writes everything dirty, in block order, neighbours together; flushes. False if a block could
   * not be written: it stays dirty, the others are durable.
   */
  *sync(): Op<boolean> {
    const dirty: { block: number; frame: number }[] = [];
    for (let frame = 0; frame < this.#spec.frames; frame++) {
      if (((yield* this.#port.load(this.#word(frame, Frame.flags))) & DIRTY) === 0) continue;
      const block = (yield* this.#port.load(this.#word(frame, Frame.block))) - 1;
      dirty.push({ block, frame });
    }
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
    return (yield* this.#request(0, 0, DISK_FLUSH)) && !failed;
  }

  #word(frame: number, word: number): number {
    return this.#records + (frame * Frame.words + word) * 4;
  }

  #bucket(block: number): number {
    return this.#spec.tables + (block & (this.#buckets - 1)) * 4;
  }

  *#touch(frame: number): Op<number> {
    const at = this.#word(frame, Frame.flags);
    const flags = yield* this.#port.load(at);
    if ((flags & REFERENCED) === 0) yield* this.#port.store(at, flags | REFERENCED);
    return this.#spec.data + frame * PAGE;
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

  /** Empties a frame by the clock rule and files it under `block`; -1 after a disk error. */
  *#claim(block: number, spare: readonly number[]): Op<number> {
    for (let tries = 0; tries < this.#spec.frames * 3; tries++) {
      const hand = yield* this.#port.load(this.#hand);
      yield* this.#port.store(this.#hand, (hand + 1) % this.#spec.frames);
      if (spare.includes(hand)) continue;
      const at = this.#word(hand, Frame.flags);
      const flags = yield* this.#port.load(at);
      if ((flags & REFERENCED) !== 0) {
        yield* this.#port.store(at, flags & ~REFERENCED);
        continue;
      }
      const old = (yield* this.#port.load(this.#word(hand, Frame.block))) - 1;
      // What cannot be written stays: the others go on with the frames that are left.
      if ((flags & DIRTY) !== 0 && !(yield* this.#writeBack(hand, old))) continue;
      if (old >= 0) yield* this.#unfile(hand, old);
      const bucket = this.#bucket(block);
      yield* this.#port.store(this.#word(hand, Frame.next), yield* this.#port.load(bucket));
      yield* this.#port.store(bucket, hand + 1);
      yield* this.#port.store(this.#word(hand, Frame.block), block + 1);
      yield* this.#port.store(at, 0);
      return hand;
    }
    return -1;
  }

  /** Writes a dirty frame, and the dirty neighbours that follow it on the disk, if they let it. */
  *#writeBack(frame: number, block: number): Op<boolean> {
    const run = [frame];
    while (run.length < DISK_BLOCKS_MAX) {
      const next = yield* this.#find(block + run.length);
      if (next < 0 || ((yield* this.#port.load(this.#word(next, Frame.flags))) & DIRTY) === 0)
        break;
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

  *#forget(frame: number): Op<void> {
    const block = (yield* this.#port.load(this.#word(frame, Frame.block))) - 1;
    yield* this.#unfile(frame, block);
    yield* this.#port.store(this.#word(frame, Frame.block), 0);
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
    return yield* this.#request(block, frames.length, flags);
  }

  /** Queues one request and waits until it is complete. False if the disk failed it. */
  *#request(block: number, count: number, flags: number): Op<boolean> {
    const { extent, extentSlot, pageSlot, done, failed, events } = this.#spec;
    const before = yield* this.#port.load(failed);
    let ticket = 0;
    for (;;) {
      const seen = yield* this.#port.load(events);
      const { status, value } = yield* this.#sys.diskRequest(
        extent,
        extentSlot,
        block,
        count,
        this.#list,
        pageSlot,
        flags,
      );
      ticket = value;
      if (status === Status.ok) break;
      if (status !== Status.full) return false;
      yield* this.#sys.sleep(seen); // somebody's completion makes room
    }
    for (;;) {
      const seen = yield* this.#port.load(events);
      if ((yield* this.#port.load(done)) - ticket >= 0) break;
      yield* this.#sys.sleep(seen);
    }
    return (yield* this.#port.load(failed)) === before;
  }
}
