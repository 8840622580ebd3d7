/**
 * Checkpoints: now and then the index is written to the log as it is, so that opening the store
 * need not read what is older. It begins with a segment, and is complete with an anchor (log.ts);
 * one that the power interrupted was never there. Its segments are kept from cleaning until there
 * is a newer one, or the room is needed: without a checkpoint all of the log is read.
 *
 *     part record:  kind PART, payload: per key: address | payload bytes (16) | key bytes (8) | key
 *     anchor:       its user's payload: per segment, bytes needed of it by no key
 *
 * It owes the store that an index restored from it, and from the records behind it, is what the
 * records of all the log would have made.
 */
import { ANCHOR_BYTES, type Found, Kind, recordBytes } from '../parts/log-format.ts';
import type { Op } from '../syscalls.ts';
import { Book, SPARE } from './books.ts';
import { type Cleaner, PART, type Rooms } from './cleaner.ts';
import { KvStatus } from './protocol.ts';

const ENTRY_BYTES = 7; // and the key
const ENTRY_MAX = ENTRY_BYTES + 255;
const PART_BYTES = 2048; // payload of a record at most
const COMPOSE = 10; // cycles per key: three stores, a subtraction, a compare, a branch
/** Segments that are filled at least between two checkpoints; or so many times its own. */
const EACH = 8;
const EACH_OWN = 2;

/** Bytes that a key takes in a checkpoint. */
export const listedBytes = (key: Uint8Array): number => ENTRY_BYTES + key.length;

export class Checkpoint {
  readonly #rooms: Rooms;
  readonly #cleaner: Cleaner;

  constructor(rooms: Rooms, cleaner: Cleaner) {
    this.#rooms = rooms;
    this.#cleaner = cleaner;
  }

  /** Writes one if it is time and there is room. Called when a segment has been begun. */
  *keepUp(): Op<void> {
    const { log, books } = this.#rooms;
    const newest = yield* log.newest();
    const since = newest - Math.max(yield* log.anchored(), yield* books.load(Book.tried));
    const own = this.#segmentsFor(yield* books.load(Book.listed));
    if (since < Math.max(EACH, EACH_OWN * own)) return;
    yield* books.store(Book.tried, newest);
    if (yield* this.#makeRoom(own)) yield* this.#write();
  }

  /** Segments that a checkpoint takes at most. */
  #segmentsFor(listed: number): number {
    const { shape, usable } = this.#rooms;
    const parts = Math.ceil(listed / (PART_BYTES - ENTRY_MAX));
    const anchor = recordBytes(ANCHOR_BYTES + 4 * shape.segments);
    const part = recordBytes(PART_BYTES);
    return Math.ceil((parts * part + anchor) / (usable - Math.max(part, anchor)));
  }

  /** Cleans until so many segments are free beyond the spare ones. False: it cannot be. */
  *#makeRoom(segments: number): Op<boolean> {
    const { books, shape, usable } = this.#rooms;
    const free = (yield* books.capacity()) - segments * usable;
    for (let tries = 0; tries <= shape.segments; tries++) {
      if ((yield* books.load(Book.free)) >= SPARE + segments) return true;
      if ((yield* books.load(Book.needed)) > free) return false;
      if ((yield* this.#cleaner.clean()) !== KvStatus.ok) return false;
    }
    return false;
  }

  /** False: the disk failed, or there was no room; what was written of it means nothing. */
  *#write(): Op<boolean> {
    const { port, log, index, books, shape, segmentBytes, usable } = this.#rooms;
    const isFresh = (yield* log.room()) === usable;
    if (!isFresh && !(yield* this.#cleaner.next())) return false;
    const from = yield* log.newest();
    const payload = new Uint8Array(4 * shape.segments);
    const said = new DataView(payload.buffer);
    for (let n = 0; n < shape.segments; n++) {
      said.setInt32(n * 4, yield* books.live(n), true);
    }
    const part = new Uint8Array(PART_BYTES);
    const view = new DataView(part.buffer);
    let at = 0;
    for (let node = yield* index.first(); node !== 0; node = yield* index.after(node)) {
      const key = yield* index.keyOf(node);
      const { address, bytes } = yield* index.place(node);
      if (at + listedBytes(key) > PART_BYTES) {
        if (!(yield* this.#append(part.subarray(0, at)))) return false;
        at = 0;
      }
      view.setUint32(at, address, true);
      view.setUint16(at + 4, bytes, true);
      view.setUint8(at + 6, key.length);
      part.set(key, at + ENTRY_BYTES);
      at += listedBytes(key);
      const segment = Math.floor(address / segmentBytes) * 4;
      said.setInt32(segment, said.getInt32(segment, true) - recordBytes(bytes), true);
      port.work(COMPOSE) ?? (yield* port.fault());
    }
    if (at > 0 && !(yield* this.#append(part.subarray(0, at)))) return false;
    return yield* this.#complete(from, payload);
  }

  *#append(part: Uint8Array): Op<boolean> {
    const { log } = this.#rooms;
    if ((yield* log.append(PART, 0, part)) >= 0) return true;
    return (yield* this.#cleaner.next()) && (yield* log.append(PART, 0, part)) >= 0;
  }

  *#complete(from: number, payload: Uint8Array): Op<boolean> {
    const { log, books } = this.#rooms;
    if ((yield* log.appendAnchor(from, payload)) < 0) {
      if (!(yield* this.#cleaner.next())) return false;
      if ((yield* log.appendAnchor(from, payload)) < 0) return false;
    }
    if (!(yield* this.#cleaner.persist())) return false;
    yield* log.anchor(from);
    yield* this.pin();
    yield* books.add(Book.checkpoints, 1);
    return true;
  }

  /** Takes note of how many segments the newest anchor keeps. */
  *pin(): Op<void> {
    const { log, books, shape } = this.#rooms;
    let pinned = 0;
    for (let n = 0; n < shape.segments; n++) {
      if (yield* log.isPinned(yield* log.sequenceOf(n))) pinned++;
    }
    yield* books.store(Book.pinned, pinned);
  }

  /** A record of the checkpoint does to an empty index what all before it did. False: no memory. */
  *restore({ kind, payload }: Found): Op<boolean> {
    const { log, index, books, shape } = this.#rooms;
    const view = new DataView(payload.buffer, payload.byteOffset, payload.length);
    if (kind === Kind.anchor) {
      for (let n = 0; n < shape.segments; n++) {
        // What has been begun since says for itself what is needed of it.
        const sequence = yield* log.sequenceOf(n);
        if (sequence <= 0 || sequence >= view.getInt32(0, true)) continue;
        yield* books.need(n, view.getInt32(ANCHOR_BYTES + n * 4, true));
      }
      return true;
    }
    if (kind !== PART) return true;
    for (let at = 0; at < payload.length;) {
      const key = payload.subarray(at + ENTRY_BYTES, at + ENTRY_BYTES + view.getUint8(at + 6));
      const address = view.getUint32(at, true);
      if (!(yield* index.insert(key, address, view.getUint16(at + 4, true)))) return false;
      at += listedBytes(key);
    }
    return true;
  }
}
