/**
 * Sees to it that the store's log always has room to go on: begins segments, cleans those of which
 * little is needed, and goes round those that the disk does not write.
 * It owes the store that nothing needed is lost or changes its order, whenever the power goes; of
 * the spare segments, that cleaning does not get stuck. It trusts the index to say what is needed.
 */
import type { BlockCache } from '../parts/block-cache.ts';
import type { Log } from '../parts/log.ts';
import {
  BEGINS_MAX,
  BLOCK,
  type Found,
  Kind,
  type LogSpec,
  recordBytes,
} from '../parts/log-format.ts';
import type { Op, UserPort } from '../syscalls.ts';
import { Book, type Books, SPARE } from './books.ts';
import { KvStatus } from './protocol.ts';
import type { SkipList } from './skip-list.ts';

/** Kinds of the store's records. */
export const PUT = Kind.own;
export const REMOVE = Kind.own + 1;
export const PART = Kind.own + 2;

const OLDEST_EACH = 4; // every so many cleanings the oldest segment's turn comes
const AHEAD = 8; // blocks that a scan reads at once

/** What all parts of the store share. */
export interface Rooms {
  readonly port: UserPort;
  readonly log: Log;
  readonly shape: Pick<LogSpec, 'segments' | 'segmentBlocks'>;
  readonly index: SkipList;
  readonly books: Books;
  readonly cache: BlockCache;
  readonly segmentBytes: number;
  /** bytes of records in a segment */
  readonly usable: number;
}

export class Cleaner {
  readonly #rooms: Rooms;

  constructor(rooms: Rooms) {
    this.#rooms = rooms;
  }

  // ---- the segment being filled -----------------------------------------------------------------

  /** True: everything appended is durable: here or, if the disk does not write it, elsewhere. */
  *persist(): Op<boolean> {
    const { log, books } = this.#rooms;
    if (yield* log.sync()) return true;
    const from = yield* log.active();
    if (from < 0) return false;
    const retired = yield* log.sequenceOf(from);
    const isPinned = yield* log.isPinned(retired);
    const failed: number[] = [];
    for (const segment of yield* this.#freeOnes()) {
      if (yield* log.relocate(segment, failed)) {
        yield* this.#adopt(from, segment);
        yield* this.#retire(failed.length + 1);
        yield* books.add(Book.free, -failed.length - 1);
        if (isPinned) yield* this.unpin(); // the checkpoint has lost a segment
        return true;
      }
      failed.push(segment);
    }
    return false;
  }

  /** Records of segment `from` stand at the same offsets of segment `to`. */
  *#adopt(from: number, to: number): Op<void> {
    const { log, index, books, segmentBytes } = this.#rooms;
    const adopt = function* ({ offset, kind, tag, payload }: Found): Op<void> {
      if (kind !== PUT) return;
      const place = yield* index.find(payload.subarray(0, tag));
      if (place?.address !== from * segmentBytes + offset) return;
      yield* index.move(place.node, to * segmentBytes + offset, place.bytes);
    };
    yield* log.survey(to, yield* log.image(), adopt);
    yield* books.transfer(from, to, yield* books.live(from));
  }

  *#retire(count: number): Op<void> {
    yield* this.#rooms.books.add(Book.retired, count);
  }

  /** Free segments, in the order in which they are tried. */
  *#freeOnes(): Op<number[]> {
    const { log, shape } = this.#rooms;
    const active = yield* log.active();
    const newest = yield* log.newest();
    // Behind the one being filled; elsewhere after each failure, since that takes a sequence.
    const first = active < 0 ? newest - 1 : active + newest - (yield* log.sequenceOf(active));
    const free: number[] = [];
    for (let n = 1; n <= shape.segments && free.length < BEGINS_MAX; n++) {
      const segment = (first + n + shape.segments) % shape.segments;
      if ((yield* log.sequenceOf(segment)) === 0) free.push(segment);
    }
    return free;
  }

  /** Begins a free segment; what was appended before is durable. */
  *next(): Op<boolean> {
    const { log, books, shape } = this.#rooms;
    if (!(yield* log.finish()) && !(yield* this.persist())) return false;
    const failed: number[] = [];
    for (const segment of yield* this.#freeOnes()) {
      if (!(yield* log.begin(segment, failed))) {
        failed.push(segment);
        continue;
      }
      yield* this.#retire(failed.length);
      yield* books.add(Book.free, -failed.length - 1);
      let oldest = yield* log.sequenceOf(segment);
      for (let n = 0; n < shape.segments; n++) {
        const sequence = yield* log.sequenceOf(n);
        if (sequence > 0) oldest = Math.min(oldest, sequence);
      }
      yield* books.store(Book.tail, oldest);
      return true;
    }
    return false;
  }

  /** The segments of the checkpoint are as any others. */
  *unpin(): Op<void> {
    yield* this.#rooms.log.forgetAnchor();
    yield* this.#rooms.books.store(Book.pinned, 0);
  }

  // ---- room -------------------------------------------------------------------------------------

  /** Makes room for `bytes` in the segment being filled: in the next, after cleaning if need be. */
  *reserve(bytes: number, between: () => Op<void>): Op<number> {
    const { log, books, shape } = this.#rooms;
    for (let tries = 0; tries <= 2 * shape.segments; tries++) {
      const free = yield* books.load(Book.free);
      // Below that a power cut came in the middle of cleaning: first things first.
      if (free >= SPARE && (yield* log.room()) >= bytes) return KvStatus.ok;
      if (free > SPARE) {
        if (!(yield* this.next())) return KvStatus.disk;
        yield* between();
        continue;
      }
      const status = yield* this.clean();
      if (status === KvStatus.full && (yield* books.load(Book.pinned)) > 0) yield* this.unpin();
      else if (status !== KvStatus.ok) return status;
    }
    return KvStatus.full;
  }

  /**
   * Whether `bytes` more may be needed. What is said of keys long removed makes way for them, and
   * so does the checkpoint.
   */
  *admit(bytes: number): Op<number> {
    const { books, shape, usable } = this.#rooms;
    for (let tries = 0; tries <= shape.segments; tries++) {
      const capacity = yield* books.capacity();
      if ((yield* books.load(Book.needed)) + bytes <= capacity) return KvStatus.ok;
      if ((yield* books.load(Book.pinned)) > 0) {
        yield* this.unpin();
        continue;
      }
      // Worth it only if that much is said of removed keys.
      const said = (yield* books.load(Book.needed)) - (yield* books.load(Book.kept));
      if (said < Math.max(bytes, usable / 4)) return KvStatus.full;
      const status = yield* this.clean(true);
      if (status !== KvStatus.ok) return status;
    }
    return KvStatus.full;
  }

  /**
   * Copies what is needed of one segment to the end of the log, and frees it.
   * Most often it is the one of which least is needed; now and then the oldest, or what it says
   * about keys long removed would have to be kept for ever.
   */
  *clean(oldest = false): Op<number> {
    const { log, books, cache, shape } = this.#rooms;
    const cleaning = yield* books.add(Book.cleanings, 1);
    const victim = yield* this.#victim(oldest || cleaning % OLDEST_EACH === 0);
    if (victim < 0) return KvStatus.full;
    if ((yield* books.live(victim)) > 0) {
      const emptied = yield* this.#empty(victim);
      if (emptied === 'disk') return KvStatus.disk;
      if (emptied === 'unread') {
        // Its keys are read one by one, those that can be; others do without the room it takes.
        yield* books.setStuck(victim);
        return KvStatus.ok;
      }
    }
    // Nothing is written over it before the copies are durable: that takes a new segment, and the
    // old one is synced before. The new one's header is what says that this one is free.
    yield* log.free(victim);
    yield* books.add(Book.free, 1);
    yield* books.clear(victim);
    yield* cache.forget(victim * shape.segmentBlocks, shape.segmentBlocks);
    return KvStatus.ok;
  }

  /** Copies what is needed of a segment. unread: what is left of it cannot be told. */
  *#empty(victim: number): Op<'done' | 'disk' | 'unread'> {
    const { log, cache, shape, segmentBytes } = this.#rooms;
    const image = new Uint8Array(segmentBytes);
    let failed = false;
    const move = function* (this: Cleaner, found: Found): Op<void> {
      if (!failed) failed = !(yield* this.#move(found));
    };
    for (let tries = 0; tries < 2 && !failed; tries++) {
      const there = yield* this.fetch(victim * segmentBytes, image, true);
      if (there && (yield* log.survey(victim, image, move.bind(this)))) break;
      if (tries > 0) return failed ? 'disk' : 'unread';
      // What does not check may be the cache's fault: once more from the disk.
      yield* cache.forget(victim * shape.segmentBlocks, shape.segmentBlocks);
    }
    return failed ? 'disk' : 'done';
  }

  /** The segment to clean; -1: none would gain anything, or none can be cleaned. */
  *#victim(oldest: boolean): Op<number> {
    const { log, books, shape, usable } = this.#rooms;
    const active = yield* log.active();
    // Without a free segment, what is needed of it must fit where we are.
    const tight = (yield* books.load(Book.free)) === 0;
    const most = tight ? yield* log.room() : usable;
    let [best, least] = [-1, oldest ? Infinity : usable - usable / 16];
    for (let n = 0; n < shape.segments; n++) {
      const sequence = yield* log.sequenceOf(n);
      if (n === active || sequence <= 0 || (yield* log.isPinned(sequence))) continue;
      const live = yield* books.live(n);
      if (live > most || (live > 0 && (yield* books.isStuck(n)))) continue;
      const rank = oldest ? sequence : live;
      if (rank < least) [best, least] = [n, rank];
    }
    return best;
  }

  /** A record of a segment that is being cleaned: copied if it is needed. False: it cannot be. */
  *#move({ segment, offset, kind, tag, payload }: Found): Op<boolean> {
    const { log, index, books, segmentBytes } = this.#rooms;
    if (kind !== PUT && kind !== REMOVE) return true;
    const key = payload.subarray(0, tag);
    const address = segment * segmentBytes + offset;
    const place = yield* index.find(key);
    if (kind === PUT && place?.address !== address) return true;
    // A key that was put again says so itself, and a copy of this would come behind it.
    if (kind === REMOVE && (place !== null || !(yield* this.#stillSays(payload, tag)))) return true;
    const bytes = recordBytes(payload.length);
    if ((yield* log.room()) < bytes && !(yield* this.next())) return false;
    const moved = yield* log.append(kind, tag, payload);
    if (moved < 0) return false;
    const to = yield* log.active();
    yield* books.add(Book.moved, bytes);
    yield* books.transfer(segment, to, bytes);
    if (kind === PUT && place !== null) {
      yield* index.move(place.node, to * segmentBytes + moved, payload.length);
    }
    return true;
  }

  /** Whether a put of the key it removes may still stand in a segment that recovery would read. */
  *#stillSays(payload: Uint8Array, tag: number): Op<boolean> {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    return view.getInt32(tag, true) >= (yield* this.#rooms.books.load(Book.tail));
  }

  // ---- blocks of complete segments --------------------------------------------------------------

  /** Reads bytes of the log, through the cache. False: the disk failed. */
  *fetch(address: number, into: Uint8Array, once: boolean): Op<boolean> {
    const { port, cache } = this.#rooms;
    const end = address + into.length;
    for (let at = address; at < end;) {
      const block = Math.floor(at / BLOCK);
      const rest = Math.ceil(end / BLOCK) - block - 1;
      const ahead = once ? Math.max(rest, this.#ahead(block)) : rest;
      const from = yield* cache.get(block, ahead, once);
      if (from < 0) return false;
      const bytes = Math.min(end - at, BLOCK - (at % BLOCK));
      port.read(from + (at % BLOCK), into, at - address, bytes) ?? (yield* port.fault());
      at += bytes;
    }
    return true;
  }

  /** Blocks worth reading with `block` when a whole segment is wanted: not past its end. */
  #ahead(block: number): number {
    const { segmentBlocks } = this.#rooms.shape;
    return Math.min(AHEAD, segmentBlocks - (block % segmentBlocks)) - 1;
  }
}
