/**
 * What a log looks like on its extent (log.ts), and how to tell what is one from what is not. It
 * trusts nothing that it reads, and takes the clock for every byte that it sums.
 *
 *     segment:  header | record | record | ... | end record
 *     header (36 bytes, then a word per segment, up to a whole sector), little-endian words:
 *       'EkvL' | version | segments | blocks of each | own number | own sequence | epoch | checksum
 *       sequence of the segment that holds the newest anchor, 0: none
 *       sequence of each segment in use when this one was begun, 0: free, RETIRED: never used again
 *     record (16 bytes, then the payload, up to a multiple of 8):
 *       checksum of what follows | epoch | kind | FIRST << 8 | tag << 16 | payload bytes
 *     anchor's payload:  first sequence | segments in use from that one to its own | its user's
 */
import type { Op, UserPort } from '../syscalls.ts';
import { CRC_CYCLES, crc32c } from './checksum.ts';
import type { DiskPlace } from './transfers.ts';

export const BLOCK = 4096;
export const SECTOR = 512;
export const MAGIC = 0x4c766b45; // 'EkvL'
export const VERSION = 2;
export const FIRST = 1;
/** In place of a segment's sequence: the disk does not write it. */
export const RETIRED = -1;

/** Free segments that are tried, if the disk fails them, before a log gives up: a sequence each. */
export const BEGINS_MAX = 4;

const HEADER_BYTES = 36;
const CHECKSUM = 7; // its word
export const ANCHOR_BYTES = 8; // of the payload, before its user's

export const RECORD_BYTES = 16; // before the payload
export const SEGMENT_BLOCKS_MAX = 32; // one disk request writes it whole
export const SEGMENTS_MAX = (BLOCK - HEADER_BYTES) / 4; // a header fits in a block

/** Kinds of record that are the log's own; its user's begin at Kind.own. */
export const Kind = { end: 1, epoch: 2, anchor: 3, own: 16 } as const;

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

/** The log's words of memory. */
export const Word = {
  active: 0, // segment being filled + 1, 0: none
  sequence: 4, // of the newest segment
  epoch: 8,
  position: 12, // where the next record goes, in bytes
  durable: 16, // the disk has everything before
  first: 20, // 1: the next record is the first after a sync
  ended: 24, // 1: the active segment has its end record, and takes no other
  anchorFrom: 28, // first sequence that recovery from the newest anchor reads
  anchorAt: 32, // sequence of the segment that holds it, 0: there is none
  table: 36, // sequence per segment, 0: free, RETIRED
} as const;

/** Words of memory that a log of so many segments needs. */
export const logWords = (segments: number): number => Word.table / 4 + segments;

/** A record as it was found: `offset` from the start of its segment. */
export interface Found {
  readonly segment: number;
  readonly offset: number;
  readonly kind: number;
  readonly tag: number;
  readonly payload: Uint8Array;
}
export type Visit = (found: Found) => Op<void>;

/** A record that checks. */
interface Raw extends Omit<Found, 'segment' | 'offset'> {
  readonly epoch: number;
  readonly first: boolean;
}

/** A segment's header as it was found; without a sequence it is not whole. */
export interface Header {
  readonly sequence: number;
  readonly epoch: number;
  readonly anchor: number;
  readonly table: readonly number[];
  readonly image: Uint8Array | null; // the block, if it is not whole
  readonly why: 'foreign' | 'size' | 'version' | null; // what it is if it was never ours
  readonly unread: boolean; // the disk does not give it
}
export const NONE: Header = {
  ...{ sequence: 0, epoch: 0, anchor: 0, table: [] },
  ...{ image: null, why: null, unread: false },
};

export interface Walked {
  readonly offset: number; // where what is whole ends
  readonly epoch: number; // of the last record
  readonly ended: boolean; // by an end record
}

export const align = (n: number, to: number): number => Math.ceil(n / to) * to;
/** Bytes that a record with so much payload takes. */
export const recordBytes = (payload: number): number => RECORD_BYTES + align(payload, 8);
/** Bytes of a segment's header. */
export const headerBytes = (segments: number): number => align(HEADER_BYTES + segments * 4, SECTOR);
/** The most payload that one record of a segment can have. */
export const payloadMax = (segments: number, segmentBlocks: number): number =>
  segmentBlocks * BLOCK - headerBytes(segments) - 2 * RECORD_BYTES;

/** What a checksum begins with: a record is good in its own place only. */
const seed = (sequence: number, offset: number): number => Math.imul(sequence, 0x9e3779b1) ^ offset;

/** Reads and writes images of segments of one shape. */
export class LogFormat {
  readonly #port: UserPort;
  readonly #segments: number;
  readonly #segmentBlocks: number;
  readonly bytes: number; // of a segment
  readonly start: number; // of its first record

  constructor(port: UserPort, { segments, segmentBlocks }: LogSpec) {
    this.#port = port;
    this.#segments = segments;
    this.#segmentBlocks = segmentBlocks;
    this.bytes = segmentBlocks * BLOCK;
    this.start = headerBytes(segments);
  }

  /** A header, up to where the first record goes. */
  *header(
    segment: number,
    { sequence, epoch, anchor, table }: Pick<Header, 'sequence' | 'epoch' | 'anchor' | 'table'>,
  ): Op<Uint8Array> {
    const header = new Uint8Array(this.start);
    const view = new DataView(header.buffer);
    const shape = [MAGIC, VERSION, this.#segments, this.#segmentBlocks];
    [...shape, segment, sequence, epoch, 0, anchor, ...table].forEach((word, n) => {
      view.setInt32(n * 4, word, true);
    });
    view.setInt32(CHECKSUM * 4, yield* this.#sum(0, header), true);
    return header;
  }

  /** The header in the first block of a segment. */
  *parse(segment: number, image: Uint8Array): Op<Header> {
    const bytes = image.slice(0, this.start);
    const view = new DataView(bytes.buffer);
    const word = (n: number): number => view.getInt32(n * 4, true);
    if (bytes.every((byte) => byte === 0)) return { ...NONE, image };
    if (word(0) !== MAGIC) return { ...NONE, image, why: 'foreign' };
    if (word(1) !== VERSION) return { ...NONE, image, why: 'version' };
    const fits = word(2) === this.#segments && word(3) === this.#segmentBlocks;
    if (!fits) return { ...NONE, image, why: 'size' };
    const sum = word(CHECKSUM);
    view.setInt32(CHECKSUM * 4, 0, true);
    const whole = (yield* this.#sum(0, bytes)) === sum && word(4) === segment && word(5) > 0;
    if (!whole) return { ...NONE, image };
    const table = Array.from({ length: this.#segments }, (_, n) => word(HEADER_BYTES / 4 + n));
    return { ...NONE, sequence: word(5), epoch: word(6), anchor: word(8), table };
  }

  /** Checksum of a record, whose own place for it is its first word. */
  *seal(record: Uint8Array, sequence: number, offset: number): Op<number> {
    return yield* this.#sum(seed(sequence, offset), record.subarray(4));
  }

  /** The record at `offset` of a segment's image, if there is one that checks. */
  *at(image: Uint8Array, offset: number, sequence: number): Op<Raw | null> {
    const end = claimedEnd(image, offset);
    if (end > image.length) return null;
    const view = new DataView(image.buffer, image.byteOffset + offset);
    const sum = yield* this.seal(image.subarray(offset, end), sequence, offset);
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

  /** Hands each record of a segment's image to `visit`; says where what is whole in it ends. */
  *walk(
    segment: number,
    image: Uint8Array,
    { sequence, epoch: begun }: Pick<Header, 'sequence' | 'epoch'>,
    visit: Visit,
  ): Op<Walked> {
    let offset = this.start;
    let epoch = begun;
    let ended = false;
    while (!ended && offset <= this.bytes - RECORD_BYTES) {
      // After a sync the next record is at the start of a sector.
      const here = yield* this.at(image, offset, sequence);
      const next = align(offset, SECTOR);
      const there = here ?? (yield* this.at(image, next, sequence));
      if (there === null || (here === null && !there.first)) break;
      const place = here === null ? next : offset;
      const begins = there.kind === Kind.epoch && there.epoch === epoch + 1;
      if (there.epoch !== epoch && !begins) break;
      ({ epoch } = there);
      ended = there.kind === Kind.end;
      offset = place + recordBytes(there.payload.length);
      const { kind, tag, payload } = there;
      yield* visit({ segment, offset: place, kind, tag, payload });
    }
    return { offset, epoch, ended };
  }

  /** Nothing more was ever written there. */
  isWhole({ offset, ended }: Walked): boolean {
    return ended || align(offset, SECTOR) >= this.bytes;
  }

  /** Whether a record behind `offset` says that everything before it had been durable. */
  *wasDurable(image: Uint8Array, offset: number, sequence: number): Op<boolean> {
    for (let at = align(offset + 1, SECTOR); at < this.bytes; at += SECTOR) {
      if ((yield* this.at(image, at, sequence))?.first === true) return true;
    }
    return false;
  }

  /** Where a record that would go on at `offset` ends at most, as far as its image tells. */
  reach(image: Uint8Array, offset: number): number {
    return Math.max(claimedEnd(image, offset), claimedEnd(image, align(offset, SECTOR)));
  }

  /**
   * A segment's image as it is to be where sequence is `to`: records at the same places, sealed
   * anew, and no header yet. The first record says nothing of what was durable before it.
   */
  *moved(segment: number, image: Uint8Array, to: number): Op<Uint8Array> {
    const copy = image.slice();
    const view = new DataView(copy.buffer);
    const format = this as LogFormat;
    copy.fill(0, 0, this.start);
    yield* this.walk(segment, image, yield* this.parse(segment, image), function* (found) {
      const { offset, payload } = found;
      if (offset === format.start) copy[offset + 9] = (copy[offset + 9] ?? 0) & ~FIRST;
      const record = copy.subarray(offset, offset + RECORD_BYTES + payload.length);
      view.setInt32(offset, yield* format.seal(record, to, offset), true);
    });
    return copy;
  }

  *#sum(from: number, bytes: Uint8Array): Op<number> {
    this.#port.work(bytes.length * CRC_CYCLES) ?? (yield* this.#port.fault());
    return crc32c(from, bytes);
  }
}

/** Where the record at `offset` ends, if it is one; Infinity: none could. */
function claimedEnd(image: Uint8Array, offset: number): number {
  if (offset + RECORD_BYTES > image.length) return Infinity;
  const payload = new DataView(image.buffer, image.byteOffset + offset).getInt32(12, true);
  return payload < 0 ? Infinity : offset + RECORD_BYTES + payload;
}
