/**
 * The store itself: keys and values in a log on an extent (parts/log.ts), an index of all keys in
 * memory, and a cache of the log's blocks. Of who asks it knows what the key's first byte says:
 * its owner, who may have so much and no more.
 *
 *     put record:     kind PUT, tag: key bytes, payload: key | value
 *     remove record:  kind REMOVE, tag: key bytes, payload: key | sequence of its first segment
 *
 * It promises, to whoever calls it one operation at a time:
 * - What `sync` returned ok for survives a power cut at any write; after a cut the store is as it
 *   was after some prefix of the operations, one that includes everything synced.
 * - A get returns the bytes of the last put of that key or refuses, for that key alone: each is
 *   checked as it is read.
 * - The log never outgrows its extent (cleaner.ts), and opening does not read all of it
 *   (checkpoint.ts). What the disk does not write goes elsewhere.
 * - No owner can use up the room of another.
 * - A refused operation has changed nothing that anyone can see.
 */
import { BlockCache, type CacheCounts, type CacheSpec } from '../parts/block-cache.ts';
import { Log, type Piece } from '../parts/log.ts';
import {
  type Found,
  headerBytes,
  type LogSpec,
  payloadMax,
  RECORD_BYTES,
  recordBytes,
  SEGMENT_BLOCKS_MAX,
  SEGMENTS_MAX,
  BLOCK,
} from '../parts/log-format.ts';
import type { Recovery } from '../parts/log-recovery.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import { Book, Books, type BooksSpec } from './books.ts';
import { Checkpoint, listedBytes } from './checkpoint.ts';
import { Cleaner, PUT, REMOVE, type Rooms } from './cleaner.ts';
import { KvStatus, VALUE_MAX } from './protocol.ts';
import { compareBytes, type ListSpec, type Place, SkipList } from './skip-list.ts';

const SEQUENCE_BYTES = 4;
const SEGMENTS_LEAST = 4;

/** How an extent of so many blocks is divided: segments, and blocks of each; null: too small. */
export function shapeOf(blocks: number): { segments: number; segmentBlocks: number } | null {
  const segmentBlocks = Math.min(SEGMENT_BLOCKS_MAX, Math.max(2, Math.floor(blocks / 16)));
  const segments = Math.min(SEGMENTS_MAX, Math.floor(blocks / segmentBlocks));
  return segments < SEGMENTS_LEAST ? null : { segments, segmentBlocks };
}

export interface StoreSpec {
  readonly log: LogSpec;
  readonly cache: CacheSpec;
  readonly list: ListSpec;
  readonly books: BooksSpec;
}

export interface StoreCounts extends CacheCounts {
  readonly keys: number;
  readonly neededBytes: number;
  readonly cleanings: number;
  readonly movedBytes: number;
  readonly checkpoints: number;
  readonly freeSegments: number;
  readonly retiredSegments: number;
  /** segments that are kept for the checkpoint, 0: there is none */
  readonly pinnedSegments: number;
}

/** A pair as a scan finds it; `value` is empty if it cannot be read: see status. */
export interface Scanned {
  readonly status: number;
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

export class Store {
  readonly #port: UserPort;
  readonly #spec: StoreSpec;
  readonly #log: Log;
  readonly #index: SkipList;
  readonly #books: Books;
  readonly #cleaner: Cleaner;
  readonly #checkpoint: Checkpoint;
  readonly #segmentBytes: number;
  readonly cache: BlockCache;

  constructor(sys: Syscalls, spec: StoreSpec) {
    const { segments, segmentBlocks } = spec.log;
    const usable = segmentBlocks * BLOCK - headerBytes(segments) - RECORD_BYTES;
    this.#port = sys.port;
    this.#spec = spec;
    this.#log = new Log(sys, spec.log);
    this.#index = new SkipList(sys.port, spec.list);
    this.#books = new Books(sys.port, spec.books, segments, usable);
    this.cache = new BlockCache(sys, spec.cache);
    this.#segmentBytes = segmentBlocks * BLOCK;
    const rooms: Rooms = {
      ...{ port: sys.port, log: this.#log, index: this.#index, books: this.#books },
      ...{ cache: this.cache, shape: spec.log, segmentBytes: this.#segmentBytes, usable },
    };
    this.#cleaner = new Cleaner(rooms);
    this.#checkpoint = new Checkpoint(rooms, this.#cleaner);
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
    if (!(yield* this.#index.create())) return { why: 'memory' };
    let memory = true;
    const visit = function* (this: Store, found: Found): Op<void> {
      if (memory) memory = yield* this.#replay(found);
    };
    const restore = function* (this: Store, found: Found): Op<void> {
      if (memory) memory = yield* this.#checkpoint.restore(found);
    };
    const recovery = yield* this.#log.recover(visit.bind(this), restore.bind(this));
    if (!memory) return { why: 'memory' };
    yield* this.#count();
    if (recovery.why === 'fresh' && !(yield* this.#cleaner.next())) {
      return { why: 'disk', block: 0 };
    }
    if (recovery.why !== 'recovered' || (yield* this.#log.sync())) return recovery;
    // Where the log ends cannot be written. Had it gone on elsewhere, in blocks that cannot be
    // read now, this would be an older state than was durable.
    if (recovery.doubt !== null) return { why: 'disk', block: recovery.doubt };
    return (yield* this.#cleaner.persist()) ? recovery : { why: 'disk', block: 0 };
  }

  /** A record of the log does to the index what it did when it was written. */
  *#replay({ segment, offset, kind, tag, payload }: Found): Op<boolean> {
    if (kind !== PUT && kind !== REMOVE) return true;
    const key = payload.subarray(0, tag);
    const old = yield* this.#index.find(key);
    const address = segment * this.#segmentBytes + offset;
    if (kind === REMOVE) {
      if (old !== null) yield* this.#index.remove(key);
      yield* this.#books.need(segment, recordBytes(payload.length));
      return true;
    }
    if (old === null) return yield* this.#index.insert(key, address, payload.length);
    yield* this.#index.move(old.node, address, payload.length);
    return true;
  }

  /** The books, of what is in the index; what removed keys need is in them already. */
  *#count(): Op<void> {
    let [free, retired] = [0, 0];
    for (let n = 0; n < this.#spec.log.segments; n++) {
      const sequence = yield* this.#log.sequenceOf(n);
      if (sequence === 0) free++;
      if (sequence < 0) retired++;
    }
    yield* this.#books.store(Book.free, free);
    yield* this.#books.store(Book.retired, retired);
    yield* this.#checkpoint.pin();
    for (let node = yield* this.#index.first(); node !== 0; node = yield* this.#index.after(node)) {
      yield* this.#enter(yield* this.#index.keyOf(node), yield* this.#index.place(node), 1);
      yield* this.#books.add(Book.listed, listedBytes(yield* this.#index.keyOf(node)));
    }
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
    const more = bytes - (before === null ? 0 : recordBytes(before.bytes));
    const owned = yield* this.#books.owned(key[0] ?? 0);
    if (more > 0 && owned + more > this.#books.quota) return KvStatus.quota;
    const admitted = yield* this.#cleaner.admit(more);
    if (admitted !== KvStatus.ok) return admitted;
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
      yield* this.#books.add(Book.listed, listedBytes(key));
    }
    if (!good) return yield* this.#undo(offset, KvStatus.revoked);
    if (old !== null) {
      yield* this.#enter(key, old, -1);
      yield* this.#index.move(old.node, address, payload);
    }
    yield* this.#books.keep(key[0] ?? 0, segment, bytes);
    return KvStatus.ok;
  }

  *#reserve(bytes: number): Op<number> {
    return yield* this.#cleaner.reserve(bytes, () => this.#checkpoint.keepUp());
  }

  /** What a key needs is in the books (1), or no more (-1). */
  *#enter(key: Uint8Array, { address, bytes }: Place, sign: 1 | -1): Op<void> {
    const segment = Math.floor(address / this.#segmentBytes);
    yield* this.#books.keep(key[0] ?? 0, segment, sign * recordBytes(bytes));
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
    if (old !== null) yield* this.#enter(key, old, -1);
    yield* this.#index.remove(key);
    yield* this.#books.add(Book.listed, -listedBytes(key));
    yield* this.#books.need(segment, recordBytes(payload.length));
    return KvStatus.ok;
  }

  /** ok: everything so far survives a power cut. */
  *sync(): Op<number> {
    return (yield* this.#cleaner.persist()) ? KvStatus.ok : KvStatus.disk;
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

  /** Bytes of records that an owner's keys have, and may have. */
  *share(owner: number): Op<{ readonly owned: number; readonly quota: number }> {
    return { owned: yield* this.#books.owned(owner), quota: this.#books.quota };
  }

  *counts(): Op<StoreCounts> {
    const book = (word: number): Op<number> => this.#books.load(word);
    return {
      ...(yield* this.cache.counts()),
      keys: yield* this.#index.keys(),
      neededBytes: yield* book(Book.needed),
      cleanings: yield* book(Book.cleanings),
      movedBytes: yield* book(Book.moved),
      checkpoints: yield* book(Book.checkpoints),
      freeSegments: yield* book(Book.free),
      retiredSegments: yield* book(Book.retired),
      pinnedSegments: yield* book(Book.pinned),
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
    // What does not check may be the cache's fault, and what fails chance: once more.
    for (let tries = 0; tries < 2; tries++) {
      let there = true;
      if (segment === (yield* this.#log.active())) {
        const from = this.#spec.log.buffer + offset;
        this.#port.read(from, record, 0, record.length) ?? (yield* this.#port.fault());
      } else there = yield* this.#cleaner.fetch(place.address, record, once);
      const found = there ? yield* this.#log.check(segment, offset, record) : null;
      const own = found?.kind === PUT && found.tag === key.length;
      if (own && compareBytes(found.payload.subarray(0, found.tag), key) === 0) {
        return { status: KvStatus.ok, value: found.payload.subarray(found.tag) };
      }
      status = there ? KvStatus.corrupt : KvStatus.disk;
      yield* this.#forget(place.address, record.length);
    }
    return { status, value: EMPTY };
  }

  *#forget(address: number, bytes: number): Op<void> {
    const block = Math.floor(address / BLOCK);
    const count = Math.ceil((address + bytes) / BLOCK) - block;
    yield* this.cache.forget(block, count);
  }
}

const EMPTY = new Uint8Array();
function* INTACT(): Op<boolean> {
  return true;
}
