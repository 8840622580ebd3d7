/**
 * Who runs next: two schedulers behind one interface, both queues of rows in machine memory. No
 * operation depends on how many virtual machines there are, but that a round of credit begins with
 * one look at each that waits for it.
 *
 * - **round robin**: a slice each, in turn.
 * - **credit**: shares in proportion to weights, and a cap. A round begins by giving each as many
 *   credits as its weight says; running burns them, by the cycle; who has some left goes before who
 *   has none. Who wakes up with credits left goes before all (boost): an interrupt is answered at
 *   once; what it burns is burnt, so waking up often gains nothing over its share. When nobody who
 *   wants to run has credits, the next round begins. What was overdrawn is carried over: shares are
 *   exact in the long run. Xen's credit scheduler, with exact burning instead of sampling.
 *
 * A cap is a part of each CAP_PERIOD: who has used it up is parked until the next one.
 */
import { assert } from '../../machine/assert.ts';
import type { Tick } from '../../machine/units.ts';
import { Cpu, QUEUES, type State, Vm } from './state.ts';

export interface Scheduler {
  /** Row `vm` wants to run. @param woken it waited for an event until now */
  ready(state: State, vm: number, woken: boolean): void;
  /** Takes the row that runs next out of its queue; -1: nobody wants to. */
  next(state: State): number;
  /** Cycles that it may run now; 0: none before `capEnd`. */
  slice(state: State, vm: number): Tick;
  /** Row `vm` has run for so many cycles. */
  ran(state: State, vm: number, cycles: Tick): void;
  /** Whether somebody waits who goes before whoever runs. */
  preempts(state: State): boolean;
  /** Whether sleepers are to be woken before the slice is over. */
  readonly prompt: boolean;
}

/** Queues: before all, before others, after others. Round robin uses the second. */
const BOOST = 0;
const UNDER = 1;
const OVER = 2;

export const DEFAULT_WEIGHT = 256;
/** Credits of a round for each unit of weight: with the default weight, two slices. */
const perWeight = (state: State): number => (2 * state.config.sliceCycles) / DEFAULT_WEIGHT;
/** In slices. A cap is kept in each such period, but for the one access that ends a slice. */
const CAP_SLICES = 10;

// ---- queues -------------------------------------------------------------------------------------

const head = (queue: number): number => Cpu.queues + 2 * queue;
const tail = (queue: number): number => Cpu.queues + 2 * queue + 1;

function append(state: State, queue: number, vm: number): void {
  const { vm: row } = state;
  assert(row.get(vm, Vm.queue) === 0, 'schedulers: a row stands in one queue');
  const last = state.get(tail(queue));
  row.put(vm, Vm.queue, queue + 1);
  row.put(vm, Vm.next, 0);
  row.put(vm, Vm.prev, last);
  if (last === 0) state.put(head(queue), vm + 1);
  else row.put(last - 1, Vm.next, vm + 1);
  state.put(tail(queue), vm + 1);
}

/** Takes a row out of the queue that it stands in, if it stands in one. */
export function unqueue(state: State, vm: number): void {
  const { vm: row } = state;
  const queue = row.get(vm, Vm.queue) - 1;
  if (queue < 0) return;
  const [next, prev] = [row.get(vm, Vm.next), row.get(vm, Vm.prev)];
  if (prev === 0) state.put(head(queue), next);
  else row.put(prev - 1, Vm.next, next);
  if (next === 0) state.put(tail(queue), prev);
  else row.put(next - 1, Vm.prev, prev);
  row.put(vm, Vm.queue, 0);
}

function pop(state: State, queue: number): number {
  const vm = state.get(head(queue)) - 1;
  if (vm >= 0) unqueue(state, vm);
  return vm;
}

// ---- round robin --------------------------------------------------------------------------------

export const roundRobin: Scheduler = {
  ready: (state, vm) => {
    append(state, UNDER, vm);
  },
  next: (state) => pop(state, UNDER),
  slice: (state) => state.config.sliceCycles,
  ran: () => undefined,
  preempts: () => false,
  prompt: false,
};

// ---- credit -------------------------------------------------------------------------------------

/** Credits of row `vm` now: rounds that began since it was last looked at are made up for. */
function credits(state: State, vm: number): number {
  const { vm: row } = state;
  const epoch = state.get(Cpu.epoch);
  const rounds = epoch - row.get(vm, Vm.epoch);
  const had = row.get(vm, Vm.credit);
  if (rounds === 0) return had;
  const round = Math.min(2 ** 30, Math.round(row.get(vm, Vm.weight) * perWeight(state)));
  // Who slept does not hoard: at most one round's.
  const has = Math.min(round, had + rounds * round);
  row.put(vm, Vm.credit, has);
  row.put(vm, Vm.epoch, epoch);
  return has;
}

/** What is left to row `vm` of its cap in this period; Infinity without one. */
function allowance(state: State, vm: number): Tick {
  const { vm: row, machine } = state;
  const cap = row.get(vm, Vm.cap);
  if (cap === 0) return Number.POSITIVE_INFINITY;
  const period = Math.floor(machine.now() / capPeriod(state)) | 0;
  if (row.get(vm, Vm.period) !== period) {
    row.put(vm, Vm.period, period);
    row.put(vm, Vm.capUsed, 0);
  }
  const budget = Math.floor((capPeriod(state) * cap) / 100);
  return Math.max(0, budget - row.get(vm, Vm.capUsed));
}

export const capPeriod = (state: State): Tick => CAP_SLICES * state.config.sliceCycles;

/** When the next period of caps begins. */
export const capEnd = (state: State): Tick =>
  (Math.floor(state.machine.now() / capPeriod(state)) + 1) * capPeriod(state);

export const credit: Scheduler = {
  ready: (state, vm, woken) => {
    if (credits(state, vm) <= 0) append(state, OVER, vm);
    else append(state, woken ? BOOST : UNDER, vm);
  },
  next: (state) => {
    for (const queue of [BOOST, UNDER]) {
      const vm = pop(state, queue);
      if (vm >= 0) return vm;
    }
    // A new round, or several: whoever is deepest in debt waits longest.
    if (state.get(head(OVER)) === 0) return -1;
    for (;;) {
      state.add(Cpu.epoch, 1);
      let vm = state.get(head(OVER)) - 1;
      while (vm >= 0) {
        const after = state.vm.get(vm, Vm.next) - 1;
        if (credits(state, vm) > 0) {
          unqueue(state, vm);
          append(state, UNDER, vm);
        }
        vm = after;
      }
      const first = pop(state, UNDER);
      if (first >= 0) return first;
    }
  },
  slice: (state, vm) => Math.min(state.config.sliceCycles, allowance(state, vm)),
  ran: (state, vm, cycles) => {
    const { vm: row } = state;
    row.put(vm, Vm.credit, credits(state, vm) - cycles);
    if (row.get(vm, Vm.cap) !== 0) {
      allowance(state, vm);
      row.add(vm, Vm.capUsed, cycles);
    }
  },
  preempts: (state) => state.get(head(BOOST)) !== 0,
  prompt: true,
};

export const SCHEDULERS = { 'round-robin': roundRobin, credit } as const;

assert(QUEUES === 3, 'schedulers: as many queues as priorities');
