/**
 * How a ratio is taken: contestants that do the same work run in turns (A B A B ...), each turn a
 * fresh batch of operations, and the medians of their turns are compared. The host is noisy; what
 * both sides suffer cancels out.
 *
 * Written by hand and not with a benchmark library: a turn is user code, a generator that yields to
 * the simulated hart in the middle of the batch, so nobody may stand between it and the hart; and
 * libraries run each task to its end before the next, which is A A A B B B.
 *
 * Warm-up is part of the measurement: code after a hot loop that has never run makes V8 deoptimise
 * at each exit of the loop. So first come many short batches under short slices, in which every
 * loop ends often and every trap is taken, then whole batches under the slices that are measured.
 */
import { assert } from '../machine/assert.ts';
import type { Op } from '../machine/user-port.ts';

/** One side of a comparison. */
export interface Contestant {
  /** operations in one timed batch; a millisecond or two of them */
  readonly batch: number;
  /** does `n` operations and returns what they computed */
  readonly run: (n: number) => Op<number>;
}

/** What the race needs of the board that it is run on. */
export interface Timer {
  /** cycles of a slice, from the next trap on */
  slice: number;
}

export const SLICE = 100_000; // cycles, as a kernel would have them
const SHORT_SLICE = 300;
const SHORT_BATCH = 64; // operations
const SHORT_RUNS = 3_000; // of all contestants together
const WHOLE_RUNS = 5;
const ROUNDS = 31;

/** Nanoseconds per operation of each contestant, in order: medians of interleaved batches. */
export function* race(
  timer: Timer,
  contestants: readonly Contestant[],
  rounds = ROUNDS,
): Op<number[]> {
  timer.slice = SHORT_SLICE;
  for (let n = 0; n < SHORT_RUNS; n++) {
    for (const { run, batch } of contestants) yield* run(Math.min(batch, SHORT_BATCH));
  }
  timer.slice = SLICE;
  for (let n = 0; n < WHOLE_RUNS; n++) for (const { run, batch } of contestants) yield* run(batch);

  const turns = contestants.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    for (let side = 0; side < contestants.length; side++) {
      const { run, batch } = contestants[side] as Contestant;
      const from = processorTime();
      yield* run(batch);
      turns[side]?.push((processorTime() - from) / batch);
    }
  }
  return turns.map(median);
}

/** All contestants compute the same from `n` operations: they are the same work. */
export function* agree(contestants: readonly Contestant[], n: number): Op<void> {
  const results: number[] = [];
  for (const { run } of contestants) results.push(yield* run(n));
  assert(
    results.every((result) => result === results[0]),
    `bench: all contestants compute the same, not ${results.join(', ')}`,
  );
}

/**
 * Nanoseconds that this process has run: unlike a clock on the wall it stands still while others
 * run, and it counts what the garbage collector does in other threads. Exact to a microsecond.
 */
export function processorTime(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) * 1_000;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted[sorted.length >> 1];
  assert(middle !== undefined, 'bench: a median of something');
  return middle;
}
