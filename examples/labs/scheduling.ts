/** Lab 4, scheduling: the skeleton. The sheet is docs/labs/4-scheduling.md. */
import type { Entry } from '../../machine/user-port.ts';
import { image, LibOS, type Op, OWN_ENTRIES } from '../../libos/libos.ts';

export const TICKETS = [3, 1]; // of the two threads
const TURNS = 40;

export class Scheduling extends LibOS {
  protected readonly turns = [0, 0];

  /** YOURS: which thread runs next, so that each gets its share of tickets, whenever one looks. */
  next(_turn: number): number {
    return 0;
  }

  override entries(): readonly Entry[] {
    return [(_self, me) => this.work(me ?? 0)];
  }

  /** A thread: counts a turn, and switches back. No kernel call: registers are loaded. */
  *work(me: number): Op<void> {
    for (;;) {
      this.turns[me] = (this.turns[me] ?? 0) + 1;
      yield* this.port.switchTo(0);
    }
  }

  override *main(): Op<void> {
    const threads = TICKETS.map((_, n) => this.port.spawn(OWN_ENTRIES, this.self, n));
    for (let turn = 0; turn < TURNS; turn++) {
      yield* this.port.switchTo(threads[this.next(turn)] ?? 0);
      if (turn === 7) yield* this.print(`after 8 turns: ${this.turns.join(' and ')}\n`);
    }
    yield* this.print(`after ${TURNS}: ${this.turns.join(' and ')}\n`);
  }
}

export default image('scheduling', (port) => new Scheduling(port), 1);
