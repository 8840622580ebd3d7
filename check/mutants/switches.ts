/**
 * The switches that instrumented kernel code asks, in the process in which it runs: which site is
 * off, which were reached, and how long it may go on. A mutant that loops for ever is cut by a
 * budget of sites, function entries and turns of loops, so every run ends the same way each time.
 */
import { SWITCHES } from './sites.ts';

export class Switches {
  /** site that is switched off, 0 if none */
  off = 0;
  /** sites, function entries and turns of loops since `start` */
  count = 0;
  /** by number: how many times it was reached since `start` */
  readonly #reached: Uint32Array;
  #limit = Infinity;

  constructor(sites: number) {
    this.#reached = new Uint32Array(sites + 1);
  }

  /** Makes these the switches of all instrumented code of this process. */
  install(): void {
    const $beat = (): void => {
      if (++this.count > this.#limit) throw new Error('mutants: it goes on and on');
    };
    const $on = (site: number): boolean => {
      $beat();
      this.#reached[site] = (this.#reached[site] ?? 0) + 1;
      return site !== this.off;
    };
    Object.assign(globalThis, { [SWITCHES]: { $on, $beat } });
  }

  start(off: number, limit: number): void {
    this.off = off;
    this.count = 0;
    this.#limit = limit;
    this.#reached.fill(0);
  }

  /** Switches everything on again. True: it went on for longer than it was allowed. */
  stop(): boolean {
    const over = this.count > this.#limit;
    this.off = 0;
    this.#limit = Infinity;
    return over;
  }

  sitesReached(): [site: number, times: number][] {
    return [...this.#reached.entries()].filter(([, times]) => times > 0);
  }
}
