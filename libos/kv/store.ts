/**
 * The store itself: keys and values in a log on an extent (parts/log.ts), an index of all keys in
 * memory, and a cache of the log's blocks. It knows nothing of who asks.
 *
 *     put record:     kind PUT, tag: key bytes, payload: key | value
 *     remove record:  kind REMOVE, tag: key bytes, payload: key | sequence of its first segment
 *     freed record:   kind FREED, payload: segment | its sequence: what it held stands elsewhere
 *
 * It promises, to whoever calls it one operation at a time:
 * - What `sync` returned ok for survives a power cut at any write; after a cut the store is as it
 *   was after some prefix of the operations, one that includes everything synced.
 * - A get returns the bytes of the last put of that key or refuses: each is checked as it is read.
 * - The log never outgrows its extent: segments of which little is needed are cleaned. Some are
 *   always left free for that, so cleaning does not get stuck.
 * - A refused operation has changed nothing that anyone can see.
 */
import { BlockCache, type CacheCounts, type CacheSpec } from '../parts/block-cache.ts';
import {
  type Found,
  headerBytes,
  Kind,
  Log,
  type LogSpec,
  payloadMax,
  type Piece,
  RECORD_BYTES,
  recordBytes,
  type Recovery,
  SEGMENT_BLOCKS_MAX,
  SEGMENTS_MAX,
} from '../parts/log.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import { KvStatus, VALUE_MAX } from './protocol.ts';
import { compareBytes, type ListSpec, type Place, SkipList } from './skip-list.ts';

const BLOCK = 4096;
const PUT = Kind.own;
const REMOVE = Kind.own + 1;
const FREED = Kind.own + 2;
const SEQUENCE_BYTES = 4;
const FREED_BYTES = 8;
/**
 * Free segments that only cleaning uses. It needs one; a power cut in the middle can leave that one
 * begun and the one being cleaned not free.
 */
const SPARE = 2;
const OLDEST_EACH = 4; // every so many cleanings the oldest segment's turn comes
const SEGMENTS_LEAST = 4;
const AHEAD = 8; // blocks that a scan reads at once

/** How an extent of so many blocks is divided: segments, and blocks of each; null: too small. */
export function shapeOf(blocks: number): { segments: number; segmentBlocks: number } | null {
  const segmentBlocks = Math.min(SEGMENT_BLOCKS_MAX, Math.max(2, Math.floor(blocks / 16)));
  const segments = Math.min(SEGMENTS_MAX, Math.floor(blocks / segmentBlocks));
  return segments < SEGMENTS_LEAST ? null : { segments, segmentBlocks };
}

/** Words of memory that the store needs for so many segments, beside the log's. */
export const storeWords = (segments: number): number => Word.live / 4 + segments;

const Word = {
  free: 0, // segments
  needed: 4, // bytes of all records that are needed
  cleanings: 8,
  tail: 12, // oldest sequence in use when the newest segment was begun, which is durable
  moved: 16, // bytes that cleaning has copied
  live: 20, // bytes needed, per segment
} as const;

export interface StoreSpec {
  readonly log: LogSpec;
  readonly cache: CacheSpec;
  readonly list: ListSpec;
  /** zero-filled memory of storeWords(segments) words */
  readonly at: number;
}

export interface StoreCounts extends CacheCounts {
  readonly keys: number;
  readonly neededBytes: number;
  readonly cleanings: number;
  readonly movedBytes: number;
}

/** A pair as a scan finds it; `value` is null if it cannot be read: see status. */
export interface Scanned {
  readonly status: number;
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

export class Store {
  readonly #port: UserPort;
  readonly #log: Log;
  readonly #index: SkipList;
  readonly #spec: StoreSpec;
  readonly #segmentBytes: number;
  readonly #usable: number; // bytes of records in a segment
  readonly cache: BlockCache;

  constructor(sys: Syscalls, spec: StoreSpec) {
    const { segments, segmentBlocks } = spec.log;
    this.#port = sys.port;
    this.#spec = spec;
    this.#log = new Log(sys, spec.log);
    this.#index = new SkipList(sys.port, spec.list);
    this.cache = new BlockCache(sys, spec.cache);
    this.#segmentBytes = segmentBlocks * BLOCK;
    this.#usable = this.#segmentBytes - headerBytes(segments) - RECORD_BYTES;
  }

  /** Longest value that this store takes for a key of so many bytes. */
  valueMax(keyBytes: number): number {
    const { segments, segmentBlocks } = this.#spec.log;
    // Two of the longest fit into a segment, or half of each could be wasted.
    const half = Math.floor((payloadMax(segments, segmentBlocks) - RECORD_BYTES) / 2) & ~7;
    return Math.min(VALUE_MAX, half - RECORD_BYTES - keyBytes);
  }

  // ---- opening ----------------------------------------------------------------------------------

  /** Recovers what is there, or begins an empty store where there is nothing. */
  *open(): Op<Recovery | { readonly why: 'memory' }> {
    const { segments } = this.#spec.log;
    if (!(yield* this.#index.create())) return { why: 'memory' };
    let memory = true;
    const visit = function* (this: Store, found: Found): Op<void> {
      if (memory) memory = yield* this.#replay(found);
    };
    const recovery = yield* this.#log.recover(visit.bind(this));
    if (!memory) return { why: 'memory' };
    let free = 0;
    for (let n = 0; n < segments; n++) if ((yield* this.#log.sequenceOf(n)) === 0) free++;
    yield* this.#store(Word.free, free);
    if (recovery.why === 'fresh') {
      if (!(yield* this.#begin(0))) return { why: 'disk', block: 0 };
    }
    return recovery;
  }

  /** A record of the log does to the index what it did when it was written. */
  *#replay(found: Found): Op<boolean> {
    const { segment, offset, kind, tag, payload } = found;
    if (kind === FREED) {
      const view = new DataView(payload.buffer, payload.byteOffset);
      const [freed, sequence] = [view.getInt32(0, true), view.getInt32(4, true)];
      if ((yield* this.#log.sequenceOf(freed)) === sequence) yield* this.#free(freed);
      return true;
    }
    const key = payload.subarray(0, tag);
    const bytes = recordBytes(payload.length);
    const old = yield* this.#index.find(key);
    if (old !== null) yield* this.#unneed(old);
    yield* this.#need(segment, bytes);
    const address = segment * this.#segmentBytes + offset;
    if (kind === REMOVE) {
      if (old !== null) yield* this.#index.remove(key);
      return true;
    }
    if (old === null) return yield* this.#index.insert(key, address, payload.length);
    yield* this.#index.move(old.node, address, payload.length);
    return true;
  }

  // ---- operations -------------------------------------------------------------------------------

  /**
   * `key` has this value from now on. The key's bytes also stand at `at` in memory; the value's
   * pieces may be other people's, and change as we read; `intact` is asked after they have been.
   */
  *put(
    key: Uint8Array,
    at: number,
    value: readonly Piece[],
    intact: () => Op<boolean> = INTACT,
  ): Op<number> {
    const valueBytes = value.reduce((sum, piece) => sum + piece.bytes, 0);
    if (valueBytes > this.valueMax(key.length)) return KvStatus.tooLarge;
    const payload = key.length + valueBytes;
    const bytes = recordBytes(payload);
    const before = yield* this.#index.find(key);
    const replaced = before === null ? 0 : recordBytes(before.bytes);
    const needed = yield* this.#load(Word.needed);
    if (needed + bytes - replaced > this.#capacity()) return KvStatus.full;
    const status = yield* this.#reserve(bytes);
    if (status !== KvStatus.ok) return status;
    const pieces = [{ from: at, bytes: key.length }, ...value];
    const offset = yield* this.#log.append(PUT, key.length, pieces);
    if (offset < 0) return KvStatus.full;
    const segment = yield* this.#log.active();
    const address = segment * this.#segmentBytes + offset;
    let good = yield* intact();
    // Cleaning has moved what was there, perhaps.
    const old = yield* this.#index.find(key);
    if (good && old === null) {
      good = yield* this.#index.insert(key, address, payload);
      if (!good) return yield* this.#undo(offset, KvStatus.full);
    }
    if (!good) return yield* this.#undo(offset, KvStatus.revoked);
    if (old !== null) {
      yield* this.#unneed(old);
      yield* this.#index.move(old.node, address, payload);
    }
    yield* this.#need(segment, bytes);
    return KvStatus.ok;
  }

  *#undo(offset: number, status: number): Op<number> {
    yield* this.#log.retract(offset);
    return status;
  }

  *get(key: Uint8Array): Op<{ readonly status: number; readonly value: Uint8Array }> {
    const place = yield* this.#index.find(key);
    if (place === null) return { status: KvStatus.absent, value: EMPTY };
    return yield* this.#read(key, place, false);
  }

  *remove(key: Uint8Array): Op<number> {
    if ((yield* this.#index.find(key)) === null) return KvStatus.absent;
    const payload = new Uint8Array(key.length + SEQUENCE_BYTES);
    payload.set(key);
    const status = yield* this.#reserve(recordBytes(payload.length));
    if (status !== KvStatus.ok) return status;
    const segment = yield* this.#log.active();
    const sequence = yield* this.#log.sequenceOf(segment);
    new DataView(payload.buffer).setInt32(key.length, sequence, true);
    if ((yield* this.#log.append(REMOVE, key.length, payload)) < 0) return KvStatus.full;
    const old = yield* this.#index.find(key);
    if (old !== null) yield* this.#unneed(old);
    yield* this.#index.remove(key);
    yield* this.#need(segment, recordBytes(payload.length));
    return KvStatus.ok;
  }

  /** ok: everything so far survives a power cut. */
  *sync(): Op<number> {
    return (yield* this.#log.sync()) ? KvStatus.ok : KvStatus.disk;
  }

  /**
   * Hands pairs to `visit` in key order, from `first` on (`after`: behind it), up to and without
   * `last` (empty: no end), until it says that it has enough. True: the range has no more.
   */
  *scan(
    first: Uint8Array,
    last: Uint8Array,
    after: boolean,
    visit: (pair: Scanned) => Op<boolean>,
  ): Op<boolean> {
    let node = yield* this.#index.seek(first);
    while (node !== 0) {
      const key = yield* this.#index.keyOf(node);
      if (last.length > 0 && compareBytes(key, last) >= 0) break;
      if (!after || compareBytes(key, first) > 0) {
        const { status, value } = yield* this.#read(key, yield* this.#index.place(node), true);
        if (!(yield* visit({ status, key, value }))) return false;
      }
      node = yield* this.#index.after(node);
    }
    return true;
  }

  *counts(): Op<StoreCounts> {
    return {
      ...(yield* this.cache.counts()),
      keys: yield* this.#index.keys(),
      neededBytes: yield* this.#load(Word.needed),
      cleanings: yield* this.#load(Word.cleanings),
      movedBytes: yield* this.#load(Word.moved),
    };
  }

  // ---- reading ----------------------------------------------------------------------------------

  *#read(
    key: Uint8Array,
    place: Place,
    once: boolean,
  ): Op<{ readonly status: number; readonly value: Uint8Array }> {
    const segment = Math.floor(place.address / this.#segmentBytes);
    const offset = place.address % this.#segmentBytes;
    const record = new Uint8Array(RECORD_BYTES + place.bytes);
    let status: number = KvStatus.corrupt;
    // What does not check may be the cache's fault: once more from the disk.
    for (let tries = 0; tries < 2; tries++) {
      if (segment === (yield* this.#log.active())) {
        const from = this.#spec.log.buffer + offset;
        this.#port.read(from, record, 0, record.length) ?? (yield* this.#port.fault());
      } else if (!(yield* this.#fetch(place.address, record, once))) {
        return { status: KvStatus.disk, value: EMPTY };
      }
      const found = yield* this.#log.check(segment, offset, record);
      const own = found?.kind === PUT && found.tag === key.length;
      if (own && compareBytes(found.payload.subarray(0, found.tag), key) === 0) {
        return { status: KvStatus.ok, value: found.payload.subarray(found.tag) };
      }
      status = KvStatus.corrupt;
      yield* this.#forget(place.address, record.length);
    }
    return { status, value: EMPTY };
  }

  /** Reads bytes of the log, through the cache. False: the disk failed. */
  *#fetch(address: number, into: Uint8Array, once: boolean): Op<boolean> {
    const end = address + into.length;
    for (let at = address; at < end;) {
      const block = Math.floor(at / BLOCK);
      const rest = Math.ceil(end / BLOCK) - block - 1;
      const ahead = once ? Math.max(rest, this.#ahead(block)) : rest;
      const from = yield* this.cache.get(block, ahead, once);
      if (from < 0) return false;
      const bytes = Math.min(end - at, BLOCK - (at % BLOCK));
      this.#port.read(from + (at % BLOCK), into, at - address, bytes) ??
        (yield* this.#port.fault());
      at += bytes;
    }
    return true;
  }

  /** Blocks worth reading with `block` when a whole segment is wanted: not past its end. */
  #ahead(block: number): number {
    const { segmentBlocks } = this.#spec.log;
    return Math.min(AHEAD, segmentBlocks - (block % segmentBlocks)) - 1;
  }

  *#forget(address: number, bytes: number): Op<void> {
    const block = Math.floor(address / BLOCK);
    const count = Math.ceil((address + bytes) / BLOCK) - block;
    yield* this.cache.forget(block, count);
  }

  // ---- room -------------------------------------------------------------------------------------

  /** Bytes that may be needed at once: less than there are, or cleaning would gain nothing. */
  #capacity(): number {
    return Math.floor(((this.#spec.log.segments - SPARE - 1) * this.#usable * 7) / 8);
  }

  /** Makes room for `bytes` in the segment being filled: in the next, after cleaning if need be. */
  *#reserve(bytes: number): Op<number> {
    const { segments } = this.#spec.log;
    for (let tries = 0; tries <= 2 * segments; tries++) {
      const free = yield* this.#load(Word.free);
      // Below that a power cut came in the middle of cleaning: first things first.
      if (free >= SPARE && (yield* this.#log.room()) >= bytes) return KvStatus.ok;
      if (free > SPARE) {
        if (!(yield* this.#next())) return KvStatus.disk;
        continue;
      }
      const status = yield* this.#clean();
      if (status !== KvStatus.ok) return status;
    }
    return KvStatus.full;
  }

  /** Begins any free segment. */
  *#next(): Op<boolean> {
    const { segments } = this.#spec.log;
    const active = Math.max(0, yield* this.#log.active());
    for (let n = 1; n <= segments; n++) {
      const segment = (active + n) % segments;
      if ((yield* this.#log.sequenceOf(segment)) === 0) return yield* this.#begin(segment);
    }
    return false;
  }

  *#begin(segment: number): Op<boolean> {
    if (!(yield* this.#log.begin(segment))) return false;
    yield* this.#add(Word.free, -1);
    let oldest = yield* this.#log.sequenceOf(segment);
    for (let n = 0; n < this.#spec.log.segments; n++) {
      const sequence = yield* this.#log.sequenceOf(n);
      if (sequence > 0) oldest = Math.min(oldest, sequence);
    }
    yield* this.#store(Word.tail, oldest);
    return true;
  }

  /**
   * Copies what is needed of one segment to the end of the log, and frees it.
   * Most often it is the one of which least is needed; now and then the oldest, or what it says
   * about keys long removed would have to be kept for ever.
   */
  *#clean(): Op<number> {
    const cleaning = yield* this.#add(Word.cleanings, 1);
    const victim = yield* this.#victim(cleaning % OLDEST_EACH === 0);
    if (victim < 0) return KvStatus.full;
    const { segmentBlocks } = this.#spec.log;
    const image = new Uint8Array(this.#segmentBytes);
    if (!(yield* this.#fetch(victim * this.#segmentBytes, image, true))) return KvStatus.disk;
    let failed = false;
    const move = function* (this: Store, found: Found): Op<void> {
      if (!failed) failed = !(yield* this.#move(found));
    };
    const whole = yield* this.#log.survey(victim, image, move.bind(this));
    if (failed) return KvStatus.disk;
    if (!whole) return KvStatus.corrupt;
    const record = new Uint8Array(FREED_BYTES);
    const view = new DataView(record.buffer);
    view.setInt32(0, victim, true);
    view.setInt32(4, yield* this.#log.sequenceOf(victim), true);
    yield* this.#free(victim);
    yield* this.cache.forget(victim * segmentBlocks, segmentBlocks);
    // Nothing is written over it before the copies are durable: that takes a new segment, and the
    // old one is synced before. Whatever comes behind this record in the log, on the disk too,
    // comes after the segment was free. Without room for it the next segment's header says so.
    const said = yield* this.#log.append(FREED, 0, record);
    return said >= 0 || (yield* this.#next()) ? KvStatus.ok : KvStatus.disk;
  }

  *#free(segment: number): Op<void> {
    yield* this.#log.free(segment);
    yield* this.#add(Word.free, 1);
    yield* this.#add(Word.needed, -(yield* this.#load(liveOf(segment))));
    yield* this.#store(liveOf(segment), 0);
  }

  /** The segment to clean; -1: none would gain anything, or none can be cleaned. */
  *#victim(oldest: boolean): Op<number> {
    const active = yield* this.#log.active();
    // Without a free segment, what is needed of it must fit where we are.
    const tight = (yield* this.#load(Word.free)) === 0;
    const most = tight ? yield* this.#log.room() : this.#usable;
    let [best, least] = [-1, oldest ? Infinity : this.#usable - this.#usable / 16];
    for (let n = 0; n < this.#spec.log.segments; n++) {
      const sequence = yield* this.#log.sequenceOf(n);
      const live = yield* this.#load(liveOf(n));
      if (n === active || sequence === 0 || live > most) continue;
      const rank = oldest ? sequence : live;
      if (rank < least) [best, least] = [n, rank];
    }
    return best;
  }

  /** A record of a segment that is being cleaned: copied if it is needed. False: it cannot be. */
  *#move({ segment, offset, kind, tag, payload }: Found): Op<boolean> {
    if (kind === FREED) return true; // either it is in use again, or that is all there was to say
    const key = payload.subarray(0, tag);
    const address = segment * this.#segmentBytes + offset;
    const place = yield* this.#index.find(key);
    if (kind === PUT && place?.address !== address) return true;
    // A key that was put again says so itself, and a copy of this would come behind it.
    if (kind === REMOVE && (place !== null || !(yield* this.#stillSays(payload, tag)))) return true;
    const bytes = recordBytes(payload.length);
    if ((yield* this.#log.room()) < bytes && !(yield* this.#next())) return false;
    const moved = yield* this.#log.append(kind, tag, payload);
    if (moved < 0) return false;
    const to = yield* this.#log.active();
    yield* this.#add(Word.moved, bytes);
    yield* this.#add(liveOf(segment), -bytes);
    yield* this.#add(liveOf(to), bytes);
    if (kind === PUT && place !== null) {
      yield* this.#index.move(place.node, to * this.#segmentBytes + moved, payload.length);
    }
    return true;
  }

  /** Whether a put of the key it removes may still stand in a segment that recovery would read. */
  *#stillSays(payload: Uint8Array, tag: number): Op<boolean> {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    return view.getInt32(tag, true) >= (yield* this.#load(Word.tail));
  }

  // ---- bookkeeping ------------------------------------------------------------------------------

  *#need(segment: number, bytes: number): Op<void> {
    yield* this.#add(liveOf(segment), bytes);
    yield* this.#add(Word.needed, bytes);
  }
  *#unneed({ address, bytes }: Place): Op<void> {
    yield* this.#need(Math.floor(address / this.#segmentBytes), -recordBytes(bytes));
  }
  *#load(word: number): Op<number> {
    return yield* this.#port.load(this.#spec.at + word);
  }
  *#store(word: number, value: number): Op<void> {
    yield* this.#port.store(this.#spec.at + word, value);
  }
  *#add(word: number, by: number): Op<number> {
    const value = (yield* this.#load(word)) + by;
    yield* this.#store(word, value);
    return value;
  }
}

const EMPTY = new Uint8Array();
const liveOf = (segment: number): number => Word.live + segment * 4;
function* INTACT(): Op<boolean> {
  return true;
}
