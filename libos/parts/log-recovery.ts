/**
 * Finds a log again after the power went (log.ts). It reads the first block of each segment, then
 * the segments from the newest anchor on, or all that are in use if there is no anchor: what is
 * older than the anchor need not even be readable.
 *
 * It trusts nothing on the disk that does not check, and rather refuses than give less than what
 * was durable: see Damage.
 */
import type { Op, UserPort } from '../syscalls.ts';
import {
  align,
  BEGINS_MAX,
  BLOCK,
  type Found,
  type Header,
  Kind,
  type LogFormat,
  type LogSpec,
  NONE,
  RECORD_BYTES,
  SECTOR,
  type Visit,
  Word,
} from './log-format.ts';
import type { Transfers } from './transfers.ts';

/** Why a log cannot be opened. */
export type Damage =
  | { readonly why: 'disk'; readonly block: number }
  | { readonly why: 'foreign' | 'size' | 'version' }
  | { readonly why: 'corrupt'; readonly segment: number; readonly offset: number };
export type Recovery =
  | { readonly why: 'fresh' }
  /** `doubt`: a block that may hold newer segments if the log's own end cannot be written */
  | { readonly why: 'recovered'; readonly doubt: number | null }
  | Damage;

interface Anchor {
  readonly sequence: number; // of the segment that it stands in
  readonly offset: number;
  readonly from: number;
  readonly count: number;
}

/** A segment as it was read; `bad`: where the first block that could not be begins, or Infinity. */
interface Image {
  readonly bytes: Uint8Array;
  readonly bad: number;
}

export class LogRecovery {
  readonly #port: UserPort;
  readonly #spec: LogSpec;
  readonly #format: LogFormat;
  readonly #transfers: Transfers;

  constructor(port: UserPort, spec: LogSpec, format: LogFormat, transfers: Transfers) {
    this.#port = port;
    this.#spec = spec;
    this.#format = format;
    this.#transfers = transfers;
  }

  /**
   * Reads the log and hands the records of its user's, oldest first, to `visit`; those up to the
   * anchor that it begins at, the anchor included, to `restore`. Afterwards the log goes on where
   * it ended, in a new epoch, which `begin` appends the record of. `fresh`: there is no log, and
   * nothing else either. Damage: nothing can be appended, and what was visited may be incomplete.
   */
  *recover(visit: Visit, restore: Visit, begin: () => Op<number>): Op<Recovery> {
    const headers = yield* this.#headers();
    const newest = headers.reduce((best, one) => (one.sequence > best.sequence ? one : best), NONE);
    // A log of another shape has its headers elsewhere too: one that is known tells more.
    const strange = headers.map(({ why }) => why).filter((why) => why !== null);
    const other = strange.find((why) => why !== 'foreign') ?? strange[0] ?? null;
    if (newest.sequence === 0 && other !== null) return { why: other };
    const lost = yield* this.#lostHeader(headers, newest.sequence + 1);
    if (lost !== null) return lost;
    if (newest.sequence === 0) {
      const unread = headers.findIndex((header) => header.unread);
      return unread < 0 ? { why: 'fresh' } : { why: 'disk', block: this.#blockOf(unread) };
    }
    for (const [segment, sequence] of newest.table.entries()) {
      yield* this.#store(Word.table + segment * 4, sequence);
    }
    yield* this.#store(Word.sequence, newest.sequence);
    const used = [...newest.table.entries()].filter(([, sequence]) => sequence > 0);
    used.sort(([, a], [, b]) => a - b);
    const anchor = yield* this.#anchor(headers, newest, used);
    if (anchor !== null) {
      yield* this.#store(Word.anchorFrom, anchor.from);
      yield* this.#store(Word.anchorAt, anchor.sequence);
    }
    for (const [segment, sequence] of used) {
      if (anchor !== null && sequence < anchor.from) continue;
      const header = headers[segment] ?? NONE;
      if (header.unread) return { why: 'disk', block: this.#blockOf(segment) };
      if (header.sequence !== sequence) return { why: 'corrupt', segment, offset: 0 };
      const user = function* (found: Found): Op<void> {
        if (found.kind < Kind.anchor) return;
        const isBehind =
          anchor === null ||
          sequence > anchor.sequence ||
          (sequence === anchor.sequence && found.offset > anchor.offset);
        yield* (isBehind ? visit : restore)(found);
      };
      if (sequence < newest.sequence) {
        const trouble = yield* this.#complete(segment, header, user);
        if (trouble !== null) return trouble;
      } else return yield* this.#last(segment, header, headers, user, begin);
    }
    return { why: 'corrupt', segment: 0, offset: 0 }; // the newest lists itself, or never checked
  }

  /** The header of each segment, through the buffer. */
  *#headers(): Op<Header[]> {
    const { segments, buffer, pages } = this.#spec;
    const headers: Header[] = [];
    for (let segment = 0; segment < segments; segment++) {
      const block = this.#blockOf(segment);
      // Twice: what fails once may be chance.
      const there =
        (yield* this.#transfers.move(block, 1, pages, 0)) ||
        (yield* this.#transfers.move(block, 1, pages, 0));
      if (there) {
        const image = new Uint8Array(BLOCK);
        this.#port.read(buffer, image, 0, BLOCK) ?? (yield* this.#port.fault());
        headers.push(yield* this.#format.parse(segment, image));
      } else headers.push({ ...NONE, unread: true });
    }
    return headers;
  }

  /**
   * A segment whose header does not check may be one that was just being begun; but if a record
   * stands in it that was appended after its header was durable, that was whole once, and is lost.
   */
  *#lostHeader(headers: readonly Header[], sequence: number): Op<Damage | null> {
    for (const [segment, { image }] of headers.entries()) {
      if (image === null) continue;
      for (let ahead = 0; ahead < BEGINS_MAX; ahead++) {
        const record = yield* this.#format.at(image, this.#format.start, sequence + ahead);
        if (record?.first === true) return { why: 'corrupt', segment, offset: 0 };
      }
    }
    return null;
  }

  // ---- anchors ----------------------------------------------------------------------------------

  /** The newest anchor, if all the segments are in use that were when it was appended. */
  *#anchor(
    headers: readonly Header[],
    newest: Header,
    used: readonly (readonly [segment: number, sequence: number])[],
  ): Op<Anchor | null> {
    // The newest segment may hold a newer one than its own header knows.
    for (const wanted of new Set([newest.sequence, newest.anchor])) {
      const [segment] = used.find(([, sequence]) => sequence === wanted) ?? [-1];
      const header = headers[segment];
      if (header?.sequence !== wanted) continue;
      const { bytes } = yield* this.#read(segment);
      let last: Anchor | null = null;
      const look = function* ({ kind, offset, payload }: Found): Op<void> {
        if (kind !== Kind.anchor) return yield* nothing();
        const view = new DataView(payload.buffer, payload.byteOffset);
        const [from, count] = [view.getInt32(0, true), view.getInt32(4, true)];
        last = { sequence: wanted, offset, from, count };
      };
      yield* this.#format.walk(segment, bytes, header, look);
      const found = last as Anchor | null;
      if (found === null) continue;
      const there = used.filter(([, n]) => n >= found.from && n <= found.sequence);
      if (there.length === found.count) return found;
    }
    return null;
  }

  // ---- segments ---------------------------------------------------------------------------------

  /** Visits the records of a segment that must be whole. */
  *#complete(segment: number, header: Header, visit: Visit): Op<Damage | null> {
    const { bytes, bad } = yield* this.#read(segment);
    const walked = yield* this.#format.walk(segment, bytes, header, visit);
    if (this.#format.isWhole(walked)) return null;
    if (bad < Infinity) return { why: 'disk', block: this.#blockOf(segment) + bad / BLOCK };
    return { why: 'corrupt', segment, offset: walked.offset };
  }

  /** Visits the records of the newest segment. It may end anywhere; the log goes on there. */
  *#last(
    segment: number,
    header: Header,
    headers: readonly Header[],
    visit: Visit,
    begin: () => Op<number>,
  ): Op<Recovery> {
    const { bytes, bad } = yield* this.#read(segment);
    const { offset, epoch, ended } = yield* this.#format.walk(segment, bytes, header, visit);
    if (!ended) {
      // What goes on into a block that cannot be read may have been durable.
      const reach = this.#format.reach(bytes, offset);
      if (reach > bad) return { why: 'disk', block: this.#blockOf(segment) + bad / BLOCK };
      const broken = yield* this.#format.wasDurable(bytes, offset, header.sequence);
      if (broken) return { why: 'corrupt', segment, offset };
    }
    // A free segment whose header cannot be read: it may have been begun since, if this one is
    // complete; or have taken its place, if this one cannot be written any more.
    let doubt: number | null = null;
    for (const [n, { unread }] of headers.entries()) {
      if (!unread || (yield* this.#port.load(this.#spec.at + Word.table + n * 4)) !== 0) continue;
      if (ended) return { why: 'disk', block: this.#blockOf(n) };
      doubt = this.#blockOf(n);
    }
    yield* this.#goOn(segment, ended ? this.#format.bytes : offset, epoch + 1, begin);
    return { why: 'recovered', doubt };
  }

  /** Reads a segment into the buffer, block by block if need be; what cannot be read is zero. */
  *#read(segment: number): Op<Image> {
    const { segmentBlocks, buffer, pages } = this.#spec;
    const port = this.#port;
    const first = this.#blockOf(segment);
    let bad = Infinity;
    if (!(yield* this.#transfers.move(first, segmentBlocks, pages, 0))) {
      for (let n = segmentBlocks - 1; n >= 0; n--) {
        if (yield* this.#transfers.move(first + n, 1, pages + n * 4, 0)) continue;
        port.fill(buffer + n * BLOCK, 0, BLOCK) ?? (yield* port.fault());
        bad = n * BLOCK;
      }
    }
    const bytes = new Uint8Array(this.#format.bytes);
    port.read(buffer, bytes, 0, bytes.length) ?? (yield* port.fault());
    return { bytes, bad };
  }

  /**
   * The log goes on in a segment that was being filled, where what is whole in it ends: in a new
   * epoch, so that no two lives share one.
   */
  *#goOn(segment: number, offset: number, epoch: number, begin: () => Op<number>): Op<void> {
    const { bytes } = this.#format;
    const position = Math.min(align(offset, SECTOR), bytes);
    const port = this.#port;
    port.fill(this.#spec.buffer + offset, 0, bytes - offset) ?? (yield* port.fault());
    yield* this.#store(Word.active, segment + 1);
    yield* this.#store(Word.first, 1);
    yield* this.#store(Word.epoch, epoch);
    // Without room for its record, the next segment's header names it.
    const room = position + 2 * RECORD_BYTES <= bytes;
    yield* this.#store(Word.position, room ? position : bytes);
    yield* this.#store(Word.durable, room ? position : bytes);
    if (room) yield* begin();
  }

  #blockOf(segment: number): number {
    return segment * this.#spec.segmentBlocks;
  }
  *#store(word: number, value: number): Op<void> {
    yield* this.#port.store(this.#spec.at + word, value);
  }
}

function* nothing(): Op<void> {}
