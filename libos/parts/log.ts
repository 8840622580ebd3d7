/**
 * An append-only log in segments of an extent. Records are checksummed, and seeded with the place
 * that they were written for; the segment being filled stands in memory as a whole and goes to the
 * disk in log order, by forced writes, so the disk's volatile cache is never trusted with it.
 *
 *     segment:  header | record | record | ... | end record
 *     header (32 bytes, then a word per segment, up to a whole sector), little-endian words:
 *       'EkvL' | version | segments | blocks of each | own number | own sequence | epoch | checksum
 *       sequence of each segment in use when this one was begun, 0: free
 *     record (16 bytes, then the payload, up to a multiple of 8):
 *       checksum of what follows | epoch | kind | FIRST << 8 | tag << 16 | payload bytes
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
 *
 * It trusts its caller with the segments that it names, and a sector to be written whole or not.
 */
import { DISK_FORCE, DISK_WRITE } from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import { CRC_CYCLES, crc32c } from './checksum.ts';
import { type DiskPlace, Transfers } from './transfers.ts';

const BLOCK = 4096;
const SECTOR = 512;
const MAGIC = 0x4c766b45; // 'EkvL'
const VERSION = 1;
const HEADER_BYTES = 32;
const FIRST = 1;

export const RECORD_BYTES = 16; // before the payload
export const SEGMENT_BLOCKS_MAX = 32; // one disk request writes it whole
export const SEGMENTS_MAX = (BLOCK - HEADER_BYTES) / 4; // a header fits in a block

/** Kinds of record that are the log's own; its user's begin at Kind.own. */
export const Kind = { end: 1, epoch: 2, own: 16 } as const;

export interface LogSpec extends DiskPlace {
  readonly segments: number; // 2 to SEGMENTS_MAX
  readonly segmentBlocks: number; // 2 to SEGMENT_BLOCKS_MAX
  /** address of segmentBlocks × BLOCK bytes: the image of the segment that is being filled */
  readonly buffer: number;
  /** address of segmentBlocks words: the physical pages behind it, in order */
  readonly pages: number;
  /** zero-filled memory of logWords(segments) words */
  readonly at: number;
}

const Word = {
  active: 0, // segment being filled + 1, 0: none
  sequence: 4, // of the newest segment
  epoch: 8,
  position: 12, // where the next record goes, in bytes
  durable: 16, // the disk has everything before
  first: 20, // 1: the next record is the first after a sync
  ended: 24, // 1: the active segment has its end record, and takes no other
  table: 28, // sequence per segment, 0: free
} as const;

/** Words of memory that a log of so many segments needs. */
export const logWords = (segments: number): number => Word.table / 4 + segments;

/** A piece of a record's payload: bytes of our own memory. */
export interface Piece {
  readonly from: number;
  readonly bytes: number;
}

/** What a record is made of: pieces of memory, or bytes that host code holds. */
export type Payload = readonly Piece[] | Uint8Array;

/** A record as it was found: `offset` from the start of its segment. */
export interface Found {
  readonly segment: number;
  readonly offset: number;
  readonly kind: number;
  readonly tag: number;
  readonly payload: Uint8Array;
}

/** Why a log cannot be opened. */
export type Damage =
  | { readonly why: 'disk'; readonly block: number }
  | { readonly why: 'foreign' | 'size' }
  | { readonly why: 'corrupt'; readonly segment: number; readonly offset: number };
export type Recovery = { readonly why: 'fresh' } | { readonly why: 'recovered' } | Damage;

const payloadBytes = (payload: Payload): number =>
  payload instanceof Uint8Array
    ? payload.length
    : payload.reduce((sum, piece) => sum + piece.bytes, 0);
const align = (n: number, to: number): number => Math.ceil(n / to) * to;
/** Bytes that a record with so much payload takes. */
export const recordBytes = (payload: number): number => RECORD_BYTES + align(payload, 8);
/** Bytes of a segment's header. */
export const headerBytes = (segments: number): number => align(HEADER_BYTES + segments * 4, SECTOR);
/** The most payload that one record of a segment can have. */
export const payloadMax = (segments: number, segmentBlocks: number): number =>
  segmentBlocks * BLOCK - headerBytes(segments) - 2 * RECORD_BYTES;

export class Log {
  readonly #port: UserPort;
  readonly #transfers: Transfers;
  readonly #spec: LogSpec;
  readonly #bytes: number; // of a segment
  readonly #start: number; // of its first record

  constructor(sys: Syscalls, spec: LogSpec) {
    this.#port = sys.port;
    this.#transfers = new Transfers(sys, spec);
    this.#spec = spec;
    this.#bytes = spec.segmentBlocks * BLOCK;
    this.#start = headerBytes(spec.segments);
  }

  // ---- writing ----------------------------------------------------------------------------------

  /** The segment being filled, -1: none. */
  *active(): Op<number> {
    return (yield* this.#load(Word.active)) - 1;
  }
  /** Sequence of a segment, 0: free. */
  *sequenceOf(segment: number): Op<number> {
    return yield* this.#load(Word.table + segment * 4);
  }
  /** Bytes that the segment being filled still takes. */
  *room(): Op<number> {
    if ((yield* this.active()) < 0 || (yield* this.#load(Word.ended)) !== 0) return 0;
    return this.#bytes - RECORD_BYTES - (yield* this.#load(Word.position));
  }

  /** Declares a segment free: what was needed of it has been appended again. */
  *free(segment: number): Op<void> {
    yield* this.#store(Word.table + segment * 4, 0);
  }

  /**
   * Ends the segment being filled, makes it durable, and begins free segment `segment`, durably.
   * False: the disk failed; the old one is still being filled, or none.
   */
  *begin(segment: number): Op<boolean> {
    if ((yield* this.active()) >= 0) {
      const ended = (yield* this.#load(Word.ended)) !== 0;
      if (!ended && (yield* this.#load(Word.position)) + RECORD_BYTES <= this.#bytes) {
        yield* this.#store(Word.ended, 1);
        yield* this.#put(Kind.end, 0, new Uint8Array());
      }
      if (!(yield* this.sync())) return false;
    }
    const sequence = (yield* this.#load(Word.sequence)) + 1;
    const { segments, segmentBlocks, buffer, at } = this.#spec;
    const header = new Uint8Array(this.#start);
    const table = new Uint8Array(segments * 4);
    this.#port.read(at + Word.table, table, 0, table.length) ?? (yield* this.#port.fault());
    header.set(table, HEADER_BYTES);
    const view = new DataView(header.buffer);
    const epoch = yield* this.#load(Word.epoch);
    [MAGIC, VERSION, segments, segmentBlocks, segment, sequence, epoch].forEach((word, n) => {
      view.setInt32(n * 4, word, true);
    });
    view.setInt32(HEADER_BYTES + segment * 4, sequence, true);
    view.setInt32(28, yield* this.#sum(0, header), true);
    this.#port.fill(buffer, 0, this.#bytes) ?? (yield* this.#port.fault());
    this.#port.write(buffer, header, 0, header.length) ?? (yield* this.#port.fault());
    yield* this.#store(Word.active, 0);
    if (!(yield* this.#write(segment, 0, 1))) return false;
    yield* this.#store(Word.table + segment * 4, sequence);
    yield* this.#store(Word.sequence, sequence);
    yield* this.#store(Word.active, segment + 1);
    yield* this.#store(Word.ended, 0);
    yield* this.#store(Word.position, this.#start);
    yield* this.#store(Word.durable, this.#start);
    yield* this.#store(Word.first, 1);
    return true;
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
    const sequence = yield* this.#load(Word.sequence);
    yield* port.store(at, yield* this.#sum(seed(sequence, offset), own.subarray(4)));
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
    const next = Math.min(align(position, SECTOR), this.#bytes);
    yield* this.#store(Word.position, next);
    yield* this.#store(Word.durable, next);
    yield* this.#store(Word.first, 1);
    return true;
  }

  /** Writes blocks of the buffer to their places, forced. */
  *#write(segment: number, block: number, count: number): Op<boolean> {
    const { segmentBlocks, pages } = this.#spec;
    const to = segment * segmentBlocks + block;
    return yield* this.#transfers.move(to, count, pages + block * 4, DISK_WRITE | DISK_FORCE);
  }

  // ---- recovery ---------------------------------------------------------------------------------

  /**
   * Reads the log and hands every record of its user's to `visit`, oldest first. Afterwards the log
   * goes on where it ended, in a new epoch. `fresh`: there is no log, and nothing else either;
   * `begin` makes one. Damage: nothing can be appended, and what was visited may be incomplete.
   */
  *recover(visit: (found: Found) => Op<void>): Op<Recovery> {
    const headers = yield* this.#headers();
    if (!Array.isArray(headers)) return headers;
    const newest = headers.reduce((best, one) => (one.sequence > best.sequence ? one : best), NONE);
    const other = headers.find(({ why }) => why !== null)?.why ?? null;
    if (newest.sequence === 0 && other !== null) return { why: other };
    const lost = yield* this.#lostHeader(headers, newest.sequence + 1);
    if (lost !== null) return lost;
    if (newest.sequence === 0) return { why: 'fresh' };
    const used = [...newest.table.entries()].filter(([, sequence]) => sequence > 0);
    used.sort(([, a], [, b]) => a - b);
    for (const [segment, sequence] of used) {
      const header = headers[segment];
      if (header?.sequence !== sequence) return { why: 'corrupt', segment, offset: 0 };
      yield* this.#store(Word.table + segment * 4, sequence);
      yield* this.#store(Word.sequence, sequence);
      const last = sequence === newest.sequence;
      const trouble = yield* this.#replay(segment, header, last, visit);
      if (trouble !== null) return trouble;
    }
    return { why: 'recovered' };
  }

  /** The header of each segment, through the buffer. */
  *#headers(): Op<Header[] | Damage> {
    const { segments, segmentBlocks, buffer, pages } = this.#spec;
    const port = this.#port;
    const headers: Header[] = [];
    for (let segment = 0; segment < segments; segment++) {
      const block = segment * segmentBlocks;
      if (!(yield* this.#transfers.move(block, 1, pages, 0))) return { why: 'disk', block };
      const image = new Uint8Array(BLOCK);
      port.read(buffer, image, 0, BLOCK) ?? (yield* port.fault());
      headers.push(yield* this.#parse(segment, image));
    }
    return headers;
  }

  *#parse(segment: number, image: Uint8Array): Op<Header> {
    const bytes = image.slice(0, this.#start);
    const view = new DataView(bytes.buffer);
    const word = (n: number): number => view.getInt32(n * 4, true);
    if (bytes.every((byte) => byte === 0)) return { ...NONE, image };
    if (word(0) !== MAGIC) return { ...NONE, image, why: 'foreign' };
    const { segments, segmentBlocks } = this.#spec;
    const fits = word(1) === VERSION && word(2) === segments && word(3) === segmentBlocks;
    if (!fits) return { ...NONE, image, why: 'size' };
    const sum = word(7);
    view.setInt32(28, 0, true);
    const whole = (yield* this.#sum(0, bytes)) === sum && word(4) === segment && word(5) > 0;
    if (!whole) return { ...NONE, image };
    const table = Array.from({ length: segments }, (_, n) => word(HEADER_BYTES / 4 + n));
    return { sequence: word(5), epoch: word(6), table, image: null, why: null };
  }

  /**
   * A segment whose header does not check may be one that was just being begun; but if a record
   * that only it can hold stands in it, its header was whole once, and is lost.
   */
  *#lostHeader(headers: readonly Header[], sequence: number): Op<Damage | null> {
    for (const [segment, { image }] of headers.entries()) {
      if (image === null) continue;
      const record = yield* this.#at(image, this.#start, sequence);
      if (record !== null) return { why: 'corrupt', segment, offset: 0 };
    }
    return null;
  }

  /** Visits the records of one segment. The newest may end anywhere; the log goes on there. */
  *#replay(
    segment: number,
    header: Header,
    last: boolean,
    visit: (found: Found) => Op<void>,
  ): Op<Damage | null> {
    const { segmentBlocks, buffer, pages } = this.#spec;
    const block = segment * segmentBlocks;
    if (!(yield* this.#transfers.move(block, segmentBlocks, pages, 0))) {
      return { why: 'disk', block };
    }
    const image = new Uint8Array(this.#bytes);
    this.#port.read(buffer, image, 0, image.length) ?? (yield* this.#port.fault());
    const walked = yield* this.#walk(segment, image, header, visit);
    const { offset, epoch, ended } = walked;
    if (!last) return this.#isWhole(walked) ? null : { why: 'corrupt', segment, offset };
    const broken = yield* this.#wasDurable(image, offset, header.sequence);
    if (broken) return { why: 'corrupt', segment, offset };
    const going = yield* this.#goOn(segment, ended ? this.#bytes : offset, epoch + 1);
    return going ? null : { why: 'disk', block };
  }

  /** Hands each record of a segment's image to `visit`; says where what is whole in it ends. */
  *#walk(
    segment: number,
    image: Uint8Array,
    header: { readonly sequence: number; readonly epoch: number },
    visit: (found: Found) => Op<void>,
  ): Op<Walked> {
    let offset = this.#start;
    let { epoch } = header;
    let ended = false;
    while (!ended && offset <= this.#bytes - RECORD_BYTES) {
      // After a sync the next record is at the start of a sector.
      const here = yield* this.#at(image, offset, header.sequence);
      const next = align(offset, SECTOR);
      const there = here ?? (yield* this.#at(image, next, header.sequence));
      if (there === null || (here === null && !there.first)) break;
      const place = here === null ? next : offset;
      const begins = there.kind === Kind.epoch && there.epoch === epoch + 1;
      if (there.epoch !== epoch && !begins) break;
      ({ epoch } = there);
      ended = there.kind === Kind.end;
      offset = place + recordBytes(there.payload.length);
      const { kind, tag, payload } = there;
      if (kind >= Kind.own) yield* visit({ segment, offset: place, kind, tag, payload });
    }
    return { offset, epoch, ended };
  }

  #isWhole({ offset, ended }: Walked): boolean {
    return ended || align(offset, SECTOR) >= this.#bytes;
  }

  /** Whether a record behind `offset` says that everything before it had been durable. */
  *#wasDurable(image: Uint8Array, offset: number, sequence: number): Op<boolean> {
    for (let at = align(offset + 1, SECTOR); at < this.#bytes; at += SECTOR) {
      if ((yield* this.#at(image, at, sequence))?.first === true) return true;
    }
    return false;
  }

  /**
   * The log goes on in a segment that was being filled, where what is whole in it ends. The new
   * epoch is durable before anything is appended in it: no two lives share one. False: it is not.
   */
  *#goOn(segment: number, offset: number, epoch: number): Op<boolean> {
    const port = this.#port;
    const position = Math.min(align(offset, SECTOR), this.#bytes);
    const { buffer } = this.#spec;
    port.fill(buffer + offset, 0, this.#bytes - offset) ?? (yield* port.fault());
    yield* this.#store(Word.active, segment + 1);
    yield* this.#store(Word.position, position);
    yield* this.#store(Word.durable, position);
    yield* this.#store(Word.first, 1);
    yield* this.#store(Word.epoch, epoch);
    // Without room for it, the next segment's header has it.
    if (position + 2 * RECORD_BYTES > this.#bytes) {
      yield* this.#store(Word.position, this.#bytes);
      yield* this.#store(Word.durable, this.#bytes);
      return true;
    }
    yield* this.#put(Kind.epoch, 0, new Uint8Array());
    return yield* this.sync();
  }

  /** The record at `offset` of a segment's image, if there is one that checks. */
  *#at(image: Uint8Array, offset: number, sequence: number): Op<Raw | null> {
    if (offset + RECORD_BYTES > image.length) return null;
    const view = new DataView(image.buffer, image.byteOffset + offset);
    const payload = view.getInt32(12, true);
    if (payload < 0 || offset + RECORD_BYTES + payload > image.length) return null;
    const end = offset + RECORD_BYTES + payload;
    const sum = yield* this.#sum(seed(sequence, offset), image.subarray(offset + 4, end));
    if (sum !== view.getInt32(0, true)) return null;
    const what = view.getInt32(8, true);
    return {
      epoch: view.getInt32(4, true),
      kind: what & 0xff,
      first: ((what >>> 8) & FIRST) !== 0,
      tag: what >>> 16,
      payload: image.subarray(offset + RECORD_BYTES, end),
    };
  }

  // ---- reading ----------------------------------------------------------------------------------

  /**
   * Hands each record of a complete segment to `visit`, from an image that somebody read. False:
   * the image is not all of what was written there, and what was visited is not either.
   */
  *survey(segment: number, image: Uint8Array, visit: (found: Found) => Op<void>): Op<boolean> {
    const sequence = yield* this.sequenceOf(segment);
    const { sequence: own, epoch } = yield* this.#parse(segment, image.subarray(0, BLOCK));
    if (own !== sequence) return false;
    return this.#isWhole(yield* this.#walk(segment, image, { sequence, epoch }, visit));
  }

  /**
   * Checks a record that somebody read whole, header included, from `offset` of `segment`. Null:
   * it is not what was written there.
   */
  *check(segment: number, offset: number, record: Uint8Array): Op<Found | null> {
    const sequence = yield* this.sequenceOf(segment);
    const sum = yield* this.#sum(seed(sequence, offset), record.subarray(4));
    const view = new DataView(record.buffer, record.byteOffset, record.length);
    if (sum !== view.getInt32(0, true)) return null;
    const what = view.getInt32(8, true);
    const payload = record.subarray(RECORD_BYTES);
    return { segment, offset, kind: what & 0xff, tag: what >>> 16, payload };
  }

  *#sum(from: number, bytes: Uint8Array): Op<number> {
    this.#port.work(bytes.length * CRC_CYCLES) ?? (yield* this.#port.fault());
    return crc32c(from, bytes);
  }
  *#load(word: number): Op<number> {
    return yield* this.#port.load(this.#spec.at + word);
  }
  *#store(word: number, value: number): Op<void> {
    yield* this.#port.store(this.#spec.at + word, value);
  }
}

/** What a checksum begins with: a record is good in its own place only. */
const seed = (sequence: number, offset: number): number => Math.imul(sequence, 0x9e3779b1) ^ offset;

interface Walked {
  readonly offset: number; // where what is whole ends
  readonly epoch: number; // of the last record
  readonly ended: boolean; // by an end record
}

interface Raw {
  readonly epoch: number;
  readonly kind: number;
  readonly first: boolean;
  readonly tag: number;
  readonly payload: Uint8Array;
}

/** A segment's header as it was found; without a sequence it is not whole. */
interface Header {
  readonly sequence: number;
  readonly epoch: number;
  readonly table: readonly number[];
  readonly image: Uint8Array | null; // the block, if it is not whole
  readonly why: 'foreign' | 'size' | null; // what it is if it was never ours
}
const NONE: Header = { sequence: 0, epoch: 0, table: [], image: null, why: null };
