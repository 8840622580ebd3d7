/**
 * Runs of host pages: what a translation mode keeps for one guest beside its second stage, tables
 * and books of its own. Taken whole when the guest is made, zeroed and charged to it, and given
 * back whole when it ends; so nothing that a guest does can make them grow.
 */
import { giveRun, takeRun } from './free-pages.ts';
import type { State } from './state.ts';

/** Host pages that follow each other, aligned to the next power of two of their number. */
export interface Run {
  readonly first: number;
  readonly count: number;
}

/** Takes a run of each size in `counts`; null, and nothing is taken, if there is no room. */
export function takeRuns<Name extends string>(
  state: State,
  vm: number,
  counts: Readonly<Record<Name, number>>,
): Record<Name, Run> | null {
  const taken: Partial<Record<Name, Run>> = {};
  for (const name in counts) {
    const count = counts[name];
    const first = takeRun(state, vm, count);
    if (first < 0) {
      giveRuns(state, vm, Object.values<Run | undefined>(taken));
      return null;
    }
    taken[name] = { first, count };
  }
  return taken as Record<Name, Run>;
}

export function giveRuns(state: State, vm: number, runs: readonly (Run | undefined)[]): void {
  for (const run of runs) {
    if (run !== undefined) giveRun(state, vm, run.first, run.count);
  }
}
