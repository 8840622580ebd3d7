/**
 * Preemptive threads inside an environment. The kernel knows nothing of them: a switch is a load of
 * registers in user mode, and it is the end of the slice that makes one. A thread that waits costs
 * nothing, and when nobody can go on, the environment sleeps.
 *
 *     words:  1 while rows change; per thread:  number of its context | state
 *
 * It promises: a thread that is ready has a turn after at most as many slices as there are ready
 * threads; what a thread does between two statements of its own can be interrupted by any other,
 * but for critical sections (LibOS.critical). It trusts its threads: they share all memory, and one
 * that is over must say so. An ended thread leaves its register file behind until the environment
 * ends.
 */
import type { Op, Syscalls, UserPort } from '../syscalls.ts';

const Word = { busy: 0, rows: 4 } as const;
const Row = { thread: 0, state: 4, bytes: 8 } as const;
const State = { free: 0, ready: 1, waiting: 2, woken: 3 } as const; // woken: ready, and told so

/** Memory that so many threads need, the first one included, zero-filled: bytes. */
export const threadsBytes = (threads: number): number => Word.rows + threads * Row.bytes;

export interface ThreadsSpec {
  /** zero-filled memory of threadsBytes(threads) */
  readonly at: number;
  readonly threads: number;
  /** address of our own event count in the exposed table */
  readonly events: number;
}

export class Threads {
  readonly #sys: Syscalls;
  readonly #port: UserPort;
  readonly #spec: ThreadsSpec;

  constructor(sys: Syscalls, spec: ThreadsSpec) {
    this.#sys = sys;
    this.#port = sys.port;
    this.#spec = spec;
  }

  /** Begins with the thread that calls, in row 0. */
  *adopt(): Op<void> {
    yield* this.#port.store(this.#row(0) + Row.thread, this.#port.thread());
    yield* this.#port.store(this.#row(0) + Row.state, State.ready);
  }

  /**
   * A thread that will begin at entry `entry` of the program, with these arguments. Its row, or -1:
   * there is no room. It must end in `exit`: a thread that returns ends the environment.
   */
  *create(entry: number, ...args: readonly number[]): Op<number> {
    const port = this.#port;
    let made = -1;
    yield* this.#busy(1); // another could take the same row
    for (let row = 0; row < this.#spec.threads && made < 0; row++) {
      if ((yield* port.load(this.#row(row) + Row.state)) !== State.free) continue;
      yield* port.store(this.#row(row) + Row.thread, port.spawn(entry, ...args));
      yield* port.store(this.#row(row) + Row.state, State.ready);
      made = row;
    }
    yield* this.#busy(0);
    return made;
  }

  /** The row of the thread that runs; -1: it has ended. */
  *self(): Op<number> {
    const { threads } = this.#spec;
    const number = this.#port.thread();
    for (let row = 0; row < threads; row++) {
      if ((yield* this.#port.load(this.#row(row) + Row.state)) === State.free) continue;
      if ((yield* this.#port.load(this.#row(row) + Row.thread)) === number) return row;
    }
    return -1;
  }

  /** Lets the next ready thread have a turn; returns when it is ours again. */
  *pass(): Op<void> {
    const own = yield* this.self();
    const next = yield* this.#next(own);
    if (next !== own && next >= 0) yield* this.#switch(next);
  }

  /**
   * Waits until somebody wakes us, or has since we waited last; so nobody is late who looks, and
   * waits if there is nothing. Sleeps with all the environment if no thread is ready.
   */
  *wait(): Op<void> {
    const own = yield* this.self();
    const state = this.#row(own) + Row.state;
    yield* this.#busy(1); // a wake between looking and waiting would be lost
    const woken = (yield* this.#port.load(state)) === State.woken;
    yield* this.#port.store(state, woken ? State.ready : State.waiting);
    yield* this.#busy(0);
    // Whoever was preempted on the way to us may still bring us here: that is no waking.
    while ((yield* this.#port.load(state)) === State.waiting) yield* this.#others(own);
    yield* this.#port.store(state, State.ready);
  }

  /** A thread that waits is ready; one that does not will not wait the next time. */
  *wake(row: number): Op<void> {
    const at = this.#row(row) + Row.state;
    if ((yield* this.#port.load(at)) !== State.free) yield* this.#port.store(at, State.woken);
  }

  /** The thread that runs is over; its row is free. Does not return. */
  *exit(): Op<never> {
    const own = yield* this.self();
    yield* this.#port.store(this.#row(own) + Row.state, State.free);
    for (;;) yield* this.#others(own);
  }

  /**
   * What a library OS does when its slice ends: gives the rest back, and when the next slice has
   * begun, that is the next thread's. `done` clears the mask of the upcall: it must be clear before
   * another thread runs, or the slice's end would not be told to that one.
   */
  *sliceEnded(done: () => Op<void>): Op<void> {
    yield* this.#sys.yieldTo(-1);
    yield* done();
    if ((yield* this.#port.load(this.#spec.at + Word.busy)) === 0) yield* this.pass();
  }

  /** Lets the first ready thread behind row `own` run, or sleeps until an event if none is. */
  *#others(own: number): Op<void> {
    const seen = yield* this.#port.load(this.#spec.events);
    const next = yield* this.#next(own);
    if (next >= 0) yield* this.#switch(next);
    else yield* this.#sys.sleep(seen);
  }

  /** The first ready row behind `own`, that one last; -1: none is. */
  *#next(own: number): Op<number> {
    const { threads } = this.#spec;
    for (let n = 1; n <= threads; n++) {
      const row = (own + n) % threads;
      const state = yield* this.#port.load(this.#row(row) + Row.state);
      if (state === State.ready || state === State.woken) return row;
    }
    return -1;
  }

  *#busy(busy: 0 | 1): Op<void> {
    yield* this.#port.store(this.#spec.at + Word.busy, busy);
  }
  *#switch(row: number): Op<void> {
    yield* this.#port.switchTo(yield* this.#port.load(this.#row(row) + Row.thread));
  }

  #row(row: number): number {
    return this.#spec.at + Word.rows + row * Row.bytes;
  }
}
