/**
 * What the store knows of its room, as words of memory: how much of each segment is needed, and how
 * much each owner's keys have. Whose a key is, its first byte says. It decides nothing, but says
 * how much may be needed at once, in all and by one owner.
 */
import type { Op, UserPort } from '../syscalls.ts';

/**
 * Free segments that only cleaning uses. It needs one; a power cut in the middle can leave that one
 * begun and the one being cleaned not free.
 */
export const SPARE = 2;

export const Book = {
  free: 0, // segments
  retired: 4, // segments that the disk does not write
  pinned: 8, // segments that are kept for the checkpoint
  needed: 12, // bytes of all records that are needed
  kept: 16, // bytes of those that keys have
  listed: 20, // bytes that a list of all keys takes
  cleanings: 24,
  tail: 28, // oldest sequence in use when the newest segment was begun, which is durable
  moved: 32, // bytes that cleaning has copied
  tried: 36, // newest sequence when a checkpoint was tried last
  checkpoints: 40, // written
  owners: 44, // bytes that the keys of each have
} as const;
const STUCK = 2 ** 30; // in a segment's word: it cannot be read as a whole

export interface BooksSpec {
  /** zero-filled memory, a page: what Book says, 256 owners */
  readonly at: number;
  /** zero-filled memory of a word per segment: bytes needed of it */
  readonly live: number;
  /** owners among whom the room is divided, equally */
  readonly shares: number;
}

export class Books {
  readonly #port: UserPort;
  readonly #spec: BooksSpec;
  readonly #segments: number;
  readonly #usable: number; // bytes of records in a segment

  constructor(port: UserPort, spec: BooksSpec, segments: number, usable: number) {
    this.#port = port;
    this.#spec = spec;
    this.#segments = segments;
    this.#usable = usable;
  }

  *load(word: number): Op<number> {
    return yield* this.#port.load(this.#spec.at + word);
  }
  *store(word: number, value: number): Op<void> {
    yield* this.#port.store(this.#spec.at + word, value);
  }
  *add(word: number, by: number): Op<number> {
    const value = (yield* this.load(word)) + by;
    yield* this.store(word, value);
    return value;
  }

  // ---- what is needed ---------------------------------------------------------------------------

  /** Bytes of a segment are needed (negative: no more), by no key. */
  *need(segment: number, bytes: number): Op<void> {
    yield* this.#addLive(segment, bytes);
    yield* this.add(Book.needed, bytes);
  }
  /** Bytes of a segment are needed by a key of this owner's. */
  *keep(owner: number, segment: number, bytes: number): Op<void> {
    yield* this.need(segment, bytes);
    yield* this.add(Book.kept, bytes);
    yield* this.add(Book.owners + owner * 4, bytes);
  }
  *owned(owner: number): Op<number> {
    return yield* this.load(Book.owners + owner * 4);
  }

  *live(segment: number): Op<number> {
    return (yield* this.#live(segment)) & (STUCK - 1);
  }
  /** What was needed of one segment stands in another. */
  *transfer(from: number, to: number, bytes: number): Op<void> {
    yield* this.#addLive(from, -bytes);
    yield* this.#addLive(to, bytes);
  }
  /** Nothing of a segment is needed. */
  *clear(segment: number): Op<void> {
    yield* this.add(Book.needed, -(yield* this.live(segment)));
    yield* this.#port.store(this.#spec.live + segment * 4, 0);
  }

  /** It cannot be read as a whole, so what else stands in it cannot be moved. */
  *setStuck(segment: number): Op<void> {
    if (!(yield* this.isStuck(segment))) yield* this.#addLive(segment, STUCK);
  }
  *isStuck(segment: number): Op<boolean> {
    return (yield* this.#live(segment)) >= STUCK;
  }

  *#live(segment: number): Op<number> {
    return yield* this.#port.load(this.#spec.live + segment * 4);
  }
  *#addLive(segment: number, bytes: number): Op<void> {
    yield* this.#port.store(this.#spec.live + segment * 4, (yield* this.#live(segment)) + bytes);
  }

  // ---- how much may be --------------------------------------------------------------------------

  /** Bytes that may be needed at once: less than there are, or cleaning would gain nothing. */
  *capacity(): Op<number> {
    const gone = (yield* this.load(Book.retired)) + (yield* this.load(Book.pinned));
    return room(this.#segments - SPARE - 1 - gone, this.#usable);
  }

  /**
   * Bytes that the keys of one owner may have, if it is not alone. An eighth of all is for what is
   * said of removed keys.
   */
  get quota(): number {
    const { shares } = this.#spec;
    if (shares === 1) return Infinity;
    const all = room(this.#segments - SPARE - 1, this.#usable);
    return Math.floor((all * 7) / 8 / shares);
  }
}

const room = (segments: number, usable: number): number =>
  Math.max(0, Math.floor((segments * usable * 7) / 8));
