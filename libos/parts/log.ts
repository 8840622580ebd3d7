/**
 * An append-only log in segments of an extent (log-format.ts draws them). Records are checksummed,
 * and seeded with the place that they were written for; the segment being filled stands in memory
 * as a whole and goes to the disk in log order, by forced writes, so the disk's volatile cache is
 * never trusted with it.
 *
 * It promises:
 * - What `sync` returned true for is found by every later `recover`, whatever write the power went
 *   at, as long as the medium keeps what it wrote.
 * - What `recover` finds is a prefix of what was appended: only the newest segment can be torn,
 *   since one is complete and durable before the next is begun. What a torn write left behind is
 *   never taken for a record later: each recovery begins a new epoch, which every record names.
 * - A medium that lost what it had kept is told from a torn write, and refused: a record marked
 *   FIRST says that everything before it was durable; a header says which segments must be there.
 * - A sector that `sync` returned for is rewritten with the same bytes at most.
 * - A write that the disk fails is tried again. If it fails for good, `relocate` and `begin` go on
 *   elsewhere, and the segment is retired: durably, by the same write that takes its place.
 * - After `anchor`, recovery reads no segment older than it says.
 *
 * It trusts its caller with the segments that it names, and a sector to be written whole or not.
 */
import { DISK_FORCE, DISK_WRITE } from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import {
  align,
  ANCHOR_BYTES,
  BLOCK,
  FIRST,
  type Found,
  Kind,
  LogFormat,
  type LogSpec,
  RECORD_BYTES,
  recordBytes,
  RETIRED,
  SECTOR,
  type Visit,
  Word,
} from './log-format.ts';
import { LogRecovery, type Recovery } from './log-recovery.ts';
import { Transfers } from './transfers.ts';

const TRIES = 3; // of a write that the disk fails

/** A piece of a record's payload: bytes of our own memory. */
export interface Piece {
  readonly from: number;
  readonly bytes: number;
}

/** What a record is made of: pieces of memory, or bytes that host code holds. */
export type Payload = readonly Piece[] | Uint8Array;

const payloadBytes = (payload: Payload): number =>
  payload instanceof Uint8Array
    ? payload.length
    : payload.reduce((sum, piece) => sum + piece.bytes, 0);

export class Log {
  readonly #port: UserPort;
  readonly #transfers: Transfers;
  readonly #spec: LogSpec;
  readonly #format: LogFormat;

  constructor(sys: Syscalls, spec: LogSpec) {
    this.#port = sys.port;
    this.#transfers = new Transfers(sys, spec);
    this.#spec = spec;
    this.#format = new LogFormat(sys.port, spec);
  }

  // ---- writing ----------------------------------------------------------------------------------

  /** The segment being filled, -1: none. */
  *active(): Op<number> {
    return (yield* this.#load(Word.active)) - 1;
  }
  /** Sequence of the newest segment. */
  *newest(): Op<number> {
    return yield* this.#load(Word.sequence);
  }
  /** Sequence of a segment, 0: free, RETIRED. */
  *sequenceOf(segment: number): Op<number> {
    return yield* this.#load(Word.table + segment * 4);
  }
  /** Bytes that the segment being filled still takes. */
  *room(): Op<number> {
    if ((yield* this.active()) < 0 || (yield* this.#load(Word.ended)) !== 0) return 0;
    return this.#format.bytes - RECORD_BYTES - (yield* this.#load(Word.position));
  }

  /** Declares a segment free: what was needed of it has been appended again. */
  *free(segment: number): Op<void> {
    yield* this.#store(Word.table + segment * 4, 0);
  }

  /** Ends the segment being filled, durably. False: the disk failed; it takes nothing any more. */
  *finish(): Op<boolean> {
    if ((yield* this.active()) < 0) return true;
    const ended = (yield* this.#load(Word.ended)) !== 0;
    const position = yield* this.#load(Word.position);
    if (!ended && position + RECORD_BYTES <= this.#format.bytes) {
      yield* this.#store(Word.ended, 1);
      yield* this.#put(Kind.end, 0, new Uint8Array());
    }
    return yield* this.sync();
  }

  /**
   * Begins free segment `segment`, durably; the one before is finished. Those of `retired` could
   * not be begun, and are used no more. False: the disk failed; there is no segment to be filled.
   */
  *begin(segment: number, retired: readonly number[] = []): Op<boolean> {
    const { buffer } = this.#spec;
    const sequence = (yield* this.#load(Word.sequence)) + 1;
    this.#port.fill(buffer, 0, this.#format.bytes) ?? (yield* this.#port.fault());
    yield* this.#writeHeader(segment, sequence, retired);
    // A header that did not arrive may have arrived all the same: its sequence is used up.
    yield* this.#store(Word.sequence, sequence);
    yield* this.#store(Word.active, 0);
    if (!(yield* this.#write(segment, 0, 1))) return false;
    yield* this.#commit(segment, sequence, retired);
    yield* this.#store(Word.ended, 0);
    yield* this.#setPosition(this.#format.start);
    return true;
  }

  /**
   * The segment being filled cannot be written: all of it goes to free segment `segment`, records
   * at the same offsets, and it is retired, with those of `retired`. True: everything is durable.
   * False: the disk failed that too, and nothing has changed.
   */
  *relocate(segment: number, retired: readonly number[] = []): Op<boolean> {
    const port = this.#port;
    const { buffer } = this.#spec;
    const { bytes } = this.#format;
    const active = yield* this.active();
    const position = yield* this.#load(Word.position);
    const sequence = (yield* this.#load(Word.sequence)) + 1;
    const image = new Uint8Array(bytes);
    port.read(buffer, image, 0, bytes) ?? (yield* port.fault());
    const moved = yield* this.#format.moved(active, image, sequence);
    port.write(buffer, moved, 0, bytes) ?? (yield* port.fault());
    yield* this.#store(Word.sequence, sequence);
    // Whoever sees the header sees all records: they are durable before it is written.
    let good = yield* this.#write(segment, 0, Math.ceil(position / BLOCK));
    if (good) {
      yield* this.#writeHeader(segment, sequence, [...retired, active]);
      good = yield* this.#write(segment, 0, 1);
    }
    if (!good) {
      port.write(buffer, image, 0, bytes) ?? (yield* port.fault());
      return false;
    }
    yield* this.#commit(segment, sequence, [...retired, active]);
    yield* this.#setPosition(Math.min(align(position, SECTOR), bytes));
    return true;
  }

  *#writeHeader(segment: number, sequence: number, retired: readonly number[]): Op<void> {
    const table: number[] = [];
    for (let n = 0; n < this.#spec.segments; n++) {
      const own = n === segment ? sequence : yield* this.sequenceOf(n);
      table.push(retired.includes(n) ? RETIRED : own);
    }
    const epoch = yield* this.#load(Word.epoch);
    const anchor = yield* this.#load(Word.anchorAt);
    const header = yield* this.#format.header(segment, { sequence, epoch, anchor, table });
    const port = this.#port;
    port.write(this.#spec.buffer, header, 0, header.length) ?? (yield* port.fault());
  }

  *#commit(segment: number, sequence: number, retired: readonly number[]): Op<void> {
    for (const n of retired) yield* this.#store(Word.table + n * 4, RETIRED);
    yield* this.#store(Word.table + segment * 4, sequence);
    yield* this.#store(Word.active, segment + 1);
  }

  /** Everything up to here is durable, and the next record goes here. */
  *#setPosition(position: number): Op<void> {
    yield* this.#store(Word.position, position);
    yield* this.#store(Word.durable, position);
    yield* this.#store(Word.first, 1);
  }

  /** Appends a record in memory: its offset in the active segment, or -1: it does not fit there. */
  *append(kind: number, tag: number, payload: Payload): Op<number> {
    if (recordBytes(payloadBytes(payload)) > (yield* this.room())) return -1;
    return yield* this.#put(kind, tag, payload);
  }

  /** Takes back the record at `offset`, the last one appended, before any sync. */
  *retract(offset: number): Op<void> {
    const port = this.#port;
    const at = this.#spec.buffer + offset;
    const position = yield* this.#load(Word.position);
    yield* this.#store(Word.first, ((yield* port.load(at + 8)) >>> 8) & FIRST);
    port.fill(at, 0, position - offset) ?? (yield* port.fault());
    yield* this.#store(Word.position, offset);
  }

  *#put(kind: number, tag: number, from: Payload): Op<number> {
    const port = this.#port;
    const offset = yield* this.#load(Word.position);
    const at = this.#spec.buffer + offset;
    const payload = payloadBytes(from);
    if (from instanceof Uint8Array) {
      port.write(at + RECORD_BYTES, from, 0, payload) ?? (yield* port.fault());
    } else {
      let end = at + RECORD_BYTES;
      for (const piece of from) {
        port.copy(end, piece.from, piece.bytes) ?? (yield* port.fault());
        end += piece.bytes;
      }
    }
    const first = yield* this.#load(Word.first);
    yield* port.store(at + 4, yield* this.#load(Word.epoch));
    yield* port.store(at + 8, kind | ((first * FIRST) << 8) | (tag << 16));
    yield* port.store(at + 12, payload);
    // The checksum is of our own copy: whoever wrote the pieces may be writing still.
    const own = new Uint8Array(RECORD_BYTES + payload);
    port.read(at, own, 0, own.length) ?? (yield* port.fault());
    const sequence = yield* this.sequenceOf(yield* this.active());
    yield* port.store(at, yield* this.#format.seal(own, sequence, offset));
    yield* this.#store(Word.position, offset + recordBytes(payload));
    yield* this.#store(Word.first, 0);
    return offset;
  }

  /** True: everything appended is durable. False: the disk failed; what was durable still is. */
  *sync(): Op<boolean> {
    const segment = yield* this.active();
    if (segment < 0) return false;
    const position = yield* this.#load(Word.position);
    const durable = yield* this.#load(Word.durable);
    if (position === durable) return true;
    const from = Math.floor(durable / BLOCK);
    const to = Math.ceil(position / BLOCK);
    if (!(yield* this.#write(segment, from, to - from))) return false;
    yield* this.#setPosition(Math.min(align(position, SECTOR), this.#format.bytes));
    return true;
  }

  /** Writes blocks of the buffer to their places, forced. */
  *#write(segment: number, block: number, count: number): Op<boolean> {
    const { segmentBlocks, pages } = this.#spec;
    const to = segment * segmentBlocks + block;
    for (let tries = 0; tries < TRIES; tries++) {
      const flags = DISK_WRITE | DISK_FORCE;
      if (yield* this.#transfers.move(to, count, pages + block * 4, flags)) return true;
    }
    return false;
  }

  // ---- anchors ----------------------------------------------------------------------------------

  /** Appends an anchor: recovery from it reads the segments from sequence `from` on. Or -1. */
  *appendAnchor(from: number, payload: Uint8Array): Op<number> {
    const whole = new Uint8Array(ANCHOR_BYTES + payload.length);
    const view = new DataView(whole.buffer);
    view.setInt32(0, from, true);
    view.setInt32(4, yield* this.#since(from), true);
    whole.set(payload, ANCHOR_BYTES);
    return yield* this.append(Kind.anchor, 0, whole);
  }

  /** Segments in use from sequence `from` on. */
  *#since(from: number): Op<number> {
    let count = 0;
    for (let n = 0; n < this.#spec.segments; n++) if ((yield* this.sequenceOf(n)) >= from) count++;
    return count;
  }

  /** The anchor just appended is durable, and names sequence `from`: it is the newest. */
  *anchor(from: number): Op<void> {
    yield* this.#store(Word.anchorFrom, from);
    yield* this.#store(Word.anchorAt, yield* this.sequenceOf(yield* this.active()));
  }
  /** Its segments are not kept for it any more: there is no anchor. */
  *forgetAnchor(): Op<void> {
    yield* this.#store(Word.anchorFrom, 0);
    yield* this.#store(Word.anchorAt, 0);
  }
  /** Sequence of the segment of the newest anchor, 0: there is none. */
  *anchored(): Op<number> {
    return yield* this.#load(Word.anchorAt);
  }
  /** Whether recovery from the newest anchor needs this sequence's segment, whatever it holds. */
  *isPinned(sequence: number): Op<boolean> {
    const from = yield* this.#load(Word.anchorFrom);
    return from > 0 && sequence >= from && sequence <= (yield* this.anchored());
  }

  // ---- recovery and reading ---------------------------------------------------------------------

  /** See LogRecovery.recover. Before anything is appended, `sync` is to return true. */
  *recover(visit: Visit, restore?: Visit): Op<Recovery> {
    const recovery = new LogRecovery(this.#port, this.#spec, this.#format, this.#transfers);
    return yield* recovery.recover(visit, restore ?? visit, () =>
      this.#put(Kind.epoch, 0, new Uint8Array()),
    );
  }

  /** The image of the segment that is being filled, as it stands in memory. */
  *image(): Op<Uint8Array> {
    const image = new Uint8Array(this.#format.bytes);
    this.#port.read(this.#spec.buffer, image, 0, image.length) ?? (yield* this.#port.fault());
    return image;
  }

  /**
   * Hands each record of a complete segment to `visit`, from an image that somebody read. False:
   * the image is not all of what was written there, and what was visited is not either.
   */
  *survey(segment: number, image: Uint8Array, visit: Visit): Op<boolean> {
    const sequence = yield* this.sequenceOf(segment);
    const { sequence: own, epoch } = yield* this.#format.parse(segment, image);
    if (own !== sequence) return false;
    return this.#format.isWhole(
      yield* this.#format.walk(segment, image, { sequence, epoch }, visit),
    );
  }

  /**
   * Checks a record that somebody read whole, header included, from `offset` of `segment`. Null:
   * it is not what was written there.
   */
  *check(segment: number, offset: number, record: Uint8Array): Op<Found | null> {
    const sequence = yield* this.sequenceOf(segment);
    const sum = yield* this.#format.seal(record, sequence, offset);
    const view = new DataView(record.buffer, record.byteOffset, record.length);
    if (sum !== view.getInt32(0, true)) return null;
    const what = view.getInt32(8, true);
    const payload = record.subarray(RECORD_BYTES);
    return { segment, offset, kind: what & 0xff, tag: what >>> 16, payload };
  }

  *#load(word: number): Op<number> {
    return yield* this.#port.load(this.#spec.at + word);
  }
  *#store(word: number, value: number): Op<void> {
    yield* this.#port.store(this.#spec.at + word, value);
  }
}
