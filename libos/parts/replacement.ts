/**
 * Replacement policies for a cache of frames: LRU, MRU, clock and 2Q, behind one interface. A cache
 * tells its policy what happens to frames, and asks it which one to take next; a policy never takes
 * a frame itself. What a policy knows lies in simulated memory, so that what it costs is charged:
 * LRU and MRU relink a list at every touch, clock sets a bit, 2Q touches its long list only.
 *
 * Each promises: `victim` names a frame that holds something and is not among those excluded, or
 * says -1 if there is none; the order is the policy's, and depends on nothing but what it was told.
 */
import type { Op, UserPort } from '../syscalls.ts';

export interface Replacement {
  /** Frame `frame` holds `block` from now on. `once`: who asked says that it will not come back. */
  filled(frame: number, block: number, once: boolean): Op<void>;
  /** What is in the frame was used again; `once` as above. */
  touched(frame: number, once: boolean): Op<void>;
  /** The frame holds nothing any more; `evicted`: it was taken for something else. */
  emptied(frame: number, block: number, evicted: boolean): Op<void>;
  /** The frame to take next, of those not excluded; -1: none. */
  victim(excluded: readonly number[]): Op<number>;
}

export interface Policy {
  readonly name: string;
  /** bytes of zero-filled memory for so many frames, of a disk of so many blocks */
  bytes(frames: number, blocks: number): number;
  make(port: UserPort, at: number, frames: number, blocks: number): Replacement;
}

// ---- lists --------------------------------------------------------------------------------------

const NIL = 0; // links hold frame + 1
const Link = { previous: 0, next: 4, bytes: 8 } as const;
const LIST_BYTES = 12; // first, last, length

/** A doubly linked list of frames; every link is a word of simulated memory. */
class FrameList {
  readonly #port: UserPort;
  readonly #at: number; // address of first and last
  readonly #links: number; // address

  constructor(port: UserPort, at: number, links: number) {
    this.#port = port;
    this.#at = at;
    this.#links = links;
  }

  *length(): Op<number> {
    return yield* this.#port.load(this.#at + 8);
  }
  *first(): Op<number> {
    return (yield* this.#port.load(this.#at)) - 1;
  }
  *last(): Op<number> {
    return (yield* this.#port.load(this.#at + 4)) - 1;
  }
  *after(frame: number): Op<number> {
    return (yield* this.#port.load(this.#link(frame, Link.next))) - 1;
  }
  *before(frame: number): Op<number> {
    return (yield* this.#port.load(this.#link(frame, Link.previous))) - 1;
  }

  *pushFirst(frame: number): Op<void> {
    const port = this.#port;
    const old = yield* port.load(this.#at);
    yield* port.store(this.#link(frame, Link.previous), NIL);
    yield* port.store(this.#link(frame, Link.next), old);
    yield* port.store(old === NIL ? this.#at + 4 : this.#link(old - 1, Link.previous), frame + 1);
    yield* port.store(this.#at, frame + 1);
    yield* this.#count(1);
  }

  *remove(frame: number): Op<void> {
    const port = this.#port;
    const previous = yield* port.load(this.#link(frame, Link.previous));
    const next = yield* port.load(this.#link(frame, Link.next));
    yield* port.store(previous === NIL ? this.#at : this.#link(previous - 1, Link.next), next);
    yield* port.store(next === NIL ? this.#at + 4 : this.#link(next - 1, Link.previous), previous);
    yield* this.#count(-1);
  }

  *#count(by: number): Op<void> {
    yield* this.#port.store(this.#at + 8, (yield* this.#port.load(this.#at + 8)) + by);
  }
  #link(frame: number, word: number): number {
    return this.#links + frame * Link.bytes + word;
  }
}

// ---- LRU and MRU --------------------------------------------------------------------------------

class Recency implements Replacement {
  readonly #list: FrameList; // most recently used first
  readonly #newest: boolean;

  constructor(port: UserPort, at: number, newest: boolean) {
    this.#list = new FrameList(port, at, at + LIST_BYTES);
    this.#newest = newest;
  }

  *filled(frame: number): Op<void> {
    yield* this.#list.pushFirst(frame);
  }
  *touched(frame: number): Op<void> {
    if ((yield* this.#list.first()) === frame) return;
    yield* this.#list.remove(frame);
    yield* this.#list.pushFirst(frame);
  }
  *emptied(frame: number): Op<void> {
    yield* this.#list.remove(frame);
  }
  *victim(excluded: readonly number[]): Op<number> {
    const list = this.#list;
    let frame = yield* this.#newest ? list.first() : list.last();
    while (frame >= 0 && excluded.includes(frame)) {
      frame = yield* this.#newest ? list.after(frame) : list.before(frame);
    }
    return frame;
  }
}

const recency = (name: string, newest: boolean): Policy => ({
  name,
  bytes: (frames) => LIST_BYTES + frames * Link.bytes,
  make: (port, at) => new Recency(port, at, newest),
});

/** Takes what has not been used for the longest time. */
export const LRU = recency('LRU', false);
/** Takes what was used last: best for a loop over more than fits. */
export const MRU = recency('MRU', true);

// ---- clock --------------------------------------------------------------------------------------

const EMPTY = 0;
const UNUSED = 1;
const USED = 2;

/** A word per frame, and the hand. */
class Clock implements Replacement {
  readonly #port: UserPort;
  readonly #at: number;
  readonly #frames: number;

  constructor(port: UserPort, at: number, frames: number) {
    this.#port = port;
    this.#at = at;
    this.#frames = frames;
  }

  *filled(frame: number, _block: number, once: boolean): Op<void> {
    yield* this.#port.store(this.#word(frame), once ? UNUSED : USED);
  }
  *touched(frame: number, once: boolean): Op<void> {
    if (!once && (yield* this.#port.load(this.#word(frame))) !== USED) {
      yield* this.#port.store(this.#word(frame), USED);
    }
  }
  *emptied(frame: number): Op<void> {
    yield* this.#port.store(this.#word(frame), EMPTY);
  }
  *victim(excluded: readonly number[]): Op<number> {
    const port = this.#port;
    for (let tries = 0; tries < this.#frames * 2; tries++) {
      const hand = yield* port.load(this.#at);
      yield* port.store(this.#at, (hand + 1) % this.#frames);
      const is = yield* port.load(this.#word(hand));
      if (is === EMPTY || excluded.includes(hand)) continue;
      if (is === UNUSED) return hand;
      yield* port.store(this.#word(hand), UNUSED);
    }
    return -1;
  }

  #word(frame: number): number {
    return this.#at + 4 + frame * 4;
  }
}

/** Second chance: goes round, and takes what was not used since it last came by. */
export const CLOCK: Policy = {
  name: 'clock',
  bytes: (frames) => 4 + frames * 4,
  make: (port, at, frames) => new Clock(port, at, frames),
};

// ---- 2Q -----------------------------------------------------------------------------------------

/**
 * Three queues: what came once (in, first in first out), what went out of that one lately (names
 * only: a word per block says at which eviction it went), and what came back from there (main, by
 * recency). A scan passes through the first and leaves the last alone.
 */
class TwoQueues implements Replacement {
  readonly #port: UserPort;
  readonly #in: FrameList;
  readonly #main: FrameList;
  readonly #gone: number; // address: evictions from `in` so far
  readonly #where: number; // address of a word per frame: IN or MAIN
  readonly #stamps: number; // address of a word per block: eviction at which it went, 0: never

  constructor(port: UserPort, at: number, frames: number) {
    const links = at + 2 * LIST_BYTES + 4;
    this.#port = port;
    this.#in = new FrameList(port, at, links);
    this.#main = new FrameList(port, at + LIST_BYTES, links);
    this.#gone = at + 2 * LIST_BYTES;
    this.#where = links + frames * Link.bytes;
    this.#stamps = this.#where + frames * 4;
  }

  *filled(frame: number, block: number, once: boolean): Op<void> {
    const back = !once && (yield* this.#wentLately(block));
    yield* this.#port.store(this.#where + frame * 4, back ? MAIN : IN);
    yield* (back ? this.#main : this.#in).pushFirst(frame);
  }

  /** A second use while it is new says nothing: it belongs to the first. */
  *touched(frame: number, once: boolean): Op<void> {
    if (once || (yield* this.#port.load(this.#where + frame * 4)) === IN) return;
    if ((yield* this.#main.first()) === frame) return;
    yield* this.#main.remove(frame);
    yield* this.#main.pushFirst(frame);
  }

  *emptied(frame: number, block: number, evicted: boolean): Op<void> {
    const isNew = (yield* this.#port.load(this.#where + frame * 4)) === IN;
    yield* (isNew ? this.#in : this.#main).remove(frame);
    if (!isNew || !evicted) return;
    const stamp = (yield* this.#port.load(this.#gone)) + 1;
    yield* this.#port.store(this.#gone, stamp);
    yield* this.#port.store(this.#stamps + block * 4, stamp);
  }

  *victim(excluded: readonly number[]): Op<number> {
    const news = yield* this.#in.length();
    const all = news + (yield* this.#main.length());
    const from = news * IN_PART > all ? [this.#in, this.#main] : [this.#main, this.#in];
    for (const list of from) {
      let frame = yield* list.last();
      while (frame >= 0 && excluded.includes(frame)) frame = yield* list.before(frame);
      if (frame >= 0) return frame;
    }
    return -1;
  }

  /** Whether it is among the last evictions from `in`: half as many as there are frames in use. */
  *#wentLately(block: number): Op<boolean> {
    const stamp = yield* this.#port.load(this.#stamps + block * 4);
    if (stamp === 0) return false;
    const frames = (yield* this.#in.length()) + (yield* this.#main.length());
    return (yield* this.#port.load(this.#gone)) - stamp < Math.ceil(frames / OUT_PART);
  }
}
const IN = 1;
const MAIN = 2;
const IN_PART = 4; // a quarter of the frames for what is new
const OUT_PART = 2; // names remembered of half as many as there are frames

/**
 * 2Q. Johnson and Shasha, "2Q: A Low Overhead High Performance Buffer Management Replacement
 * Algorithm", VLDB 1994, the full version, with the parts that its section 4.2 recommends.
 */
export const TWO_QUEUES: Policy = {
  name: '2Q',
  bytes: (frames, blocks) => 2 * LIST_BYTES + 4 + frames * (Link.bytes + 4) + blocks * 4,
  make: (port, at, frames) => new TwoQueues(port, at, frames),
};

export const POLICIES: readonly Policy[] = [LRU, MRU, CLOCK, TWO_QUEUES];
