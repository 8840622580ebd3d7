/**
 * The ordered queue of future events of the devices. Equal times keep the order in which they were
 * added. Idle time is skipped to the earliest one.
 */
import { NEVER, type Tick } from './units.ts';

interface Pending {
  readonly at: Tick;
  readonly act: () => void;
}

export class EventQueue {
  readonly #pending: Pending[] = []; // earliest first

  add(at: Tick, act: () => void): void {
    let n = this.#pending.length;
    while (n > 0 && (this.#pending[n - 1]?.at ?? 0) > at) n--;
    this.#pending.splice(n, 0, { at, act });
  }

  /** When the earliest event is due; NEVER if there is none. */
  get next(): Tick {
    return this.#pending[0]?.at ?? NEVER;
  }

  /** Performs all events due at `now`, in order. */
  runUntil(now: Tick): void {
    for (;;) {
      const first = this.#pending[0];
      if (first === undefined || first.at > now) return;
      this.#pending.shift();
      first.act();
    }
  }
}
