/**
 * Counters: what really happened, per event, per owner and per layer. The machine counts; nobody
 * else does, so that every mode is measured by the same instrument. Owner is whom the root
 * supervisor last named (an account, a virtual machine); layer is who was running: the supervisor
 * at depth 0, 1, 2 or user code.
 */
import { assert } from './assert.ts';

export const EVENTS = [
  'kernelCalls', // ecall from user mode into a supervisor
  'procedureCalls', // the same call to a supervisor in the caller's own privilege
  'upcalls', // handler frames that a supervisor pushed onto a user thread
  'vmExits', // entries into a supervisor from the guest that it runs
  'traps', // all entries into any supervisor, procedure calls excepted
  'pageFaults', // one-stage or guest-stage page faults delivered
  'guestPageFaults', // second-stage faults
  'timerInterrupts',
  'externalInterrupts',
  'tlbMisses', // walks: every miss takes one, so does the first store to a clean page
  'supervisorTlbMisses', // the part of tlbMisses that a supervisor's own accesses took
  'pageWalkReferences',
  'supervisorReferences', // counted loads and stores of supervisors
  'pteWrites',
  'fences',
  'csrAccesses',
  'mmioAccesses',
  'pagesZeroed',
  'pagesCopied',
  'userThreadSwitches',
  'addressSpaceSwitches',
  'diskRequests',
  'diskReads', // blocks
  'diskWrites', // blocks
  'diskFlushes',
  'consoleBytes',
  'restarts', // supervisor handlers rolled back and redelivered
] as const;

export type Event = (typeof EVENTS)[number];
export type Counts = { readonly [K in Event]: number };

type Index = { readonly [K in Event]: number };
const indexOf = (): Index => {
  const index: Partial<Record<Event, number>> = {};
  EVENTS.forEach((event, n) => (index[event] = n));
  return index as Index;
};

/** Positions in a row of counters, for the hot paths. */
export const E: Index = indexOf();

export const OWNERS = 64;
export const LAYERS = 4; // supervisors at depth 0, 1, 2; then user code
export const USER_LAYER = 3;

export interface Layer {
  readonly layer: number;
  readonly rows: Float64Array; // [OWNERS × EVENTS]
  readonly cycles: Float64Array; // [OWNERS]
}

export class Counters {
  readonly #rows = new Float64Array(OWNERS * LAYERS * EVENTS.length);
  readonly #cycles = new Float64Array(OWNERS * LAYERS);
  #base = USER_LAYER * EVENTS.length;
  #owner = 0;
  #layer = 0;

  /** Whoever runs from now on: owner 0 to OWNERS-1, layer 0 to LAYERS-1. */
  attribute(owner: number, layer: number): void {
    assert(owner >= 0 && owner < OWNERS && layer >= 0 && layer < LAYERS, 'counters: known row');
    this.#owner = owner;
    this.#layer = layer;
    this.#base = (owner * LAYERS + layer) * EVENTS.length;
  }

  add(event: number, n: number): void {
    const at = this.#base + event;
    this.#rows[at] = (this.#rows[at] ?? 0) + n;
  }

  spend(cycles: number): void {
    const at = this.#owner * LAYERS + this.#layer;
    this.#cycles[at] = (this.#cycles[at] ?? 0) + cycles;
  }

  get layer(): number {
    return this.#layer;
  }

  get owner(): number {
    return this.#owner;
  }

  /** Totals per event, over the owners and layers that match. */
  totals(owner: number | null = null, layer: number | null = null): Counts {
    const sum: Partial<Record<Event, number>> = {};
    EVENTS.forEach((event, n) => {
      let total = 0;
      for (let o = 0; o < OWNERS; o++) {
        if (owner !== null && owner !== o) continue;
        for (let l = 0; l < LAYERS; l++) {
          if (layer !== null && layer !== l) continue;
          total += this.#rows[(o * LAYERS + l) * EVENTS.length + n] ?? 0;
        }
      }
      sum[event] = total;
    });
    return sum as Counts;
  }

  /** Cycles spent running, idle time left out, over the owners and layers that match. */
  cycles(owner: number | null = null, layer: number | null = null): number {
    let total = 0;
    for (let o = 0; o < OWNERS; o++) {
      if (owner !== null && owner !== o) continue;
      for (let l = 0; l < LAYERS; l++) {
        if (layer !== null && layer !== l) continue;
        total += this.#cycles[o * LAYERS + l] ?? 0;
      }
    }
    return total;
  }

  /** The counts of one layer, for all owners: what a guest's restarted handler is refunded. */
  saveLayer(layer: number): Layer {
    const rows = new Float64Array(OWNERS * EVENTS.length);
    const cycles = new Float64Array(OWNERS);
    for (let owner = 0; owner < OWNERS; owner++) {
      const from = (owner * LAYERS + layer) * EVENTS.length;
      rows.set(this.#rows.subarray(from, from + EVENTS.length), owner * EVENTS.length);
      cycles[owner] = this.#cycles[owner * LAYERS + layer] ?? 0;
    }
    return { layer, rows, cycles };
  }

  /** Puts them back; the cycles that were spent since. */
  restoreLayer({ layer, rows, cycles }: Layer): number {
    let spent = 0;
    for (let owner = 0; owner < OWNERS; owner++) {
      const at = owner * LAYERS + layer;
      const row = rows.subarray(owner * EVENTS.length, (owner + 1) * EVENTS.length);
      this.#rows.set(row, at * EVENTS.length);
      spent += (this.#cycles[at] ?? 0) - (cycles[owner] ?? 0);
      this.#cycles[at] = cycles[owner] ?? 0;
    }
    return spent;
  }

  /** For the rollback of a restarted handler: its counts are refunded. */
  save(): { rows: Float64Array; cycles: Float64Array } {
    return { rows: this.#rows.slice(), cycles: this.#cycles.slice() };
  }

  restore(saved: { rows: Float64Array; cycles: Float64Array }): void {
    this.#rows.set(saved.rows);
    this.#cycles.set(saved.cycles);
  }
}
