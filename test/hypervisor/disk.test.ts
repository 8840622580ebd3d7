/**
 * The models of a guest's disk: whichever it has, every request ends, once, with its data; what the
 * guest writes into the page that it shares with the hypervisor ends that guest at worst.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { RamMedium } from '../../machine/disk.ts';
import { BLOCK_BYTES, NEVER, PAGE_BYTES } from '../../machine/units.ts';
import { Cause, type Machine, type Supervisor, type Trap } from '../../kernel/supervisor.ts';
import { REQUEST_SLOTS, Ring } from '../../kernel/hypervisor/device-page.ts';
import { type Guest } from '../../kernel/hypervisor/hypervisor.ts';
import {
  type DiskModel,
  DISKS,
  type HypervisorConfig,
  Vm,
  VmState,
} from '../../kernel/hypervisor/state.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { minimal } from '../../libos/minimal/minimal.ts';
import { Cell, program, Script } from '../machine/script.ts';
import { violations } from './invariants.ts';
import { host } from './host.ts';

const CONFIG: HypervisorConfig = { sliceCycles: 7001, backing: 'touch', secondStage: '4KiB' };
const PRIMES = 'minimal: 9592 primes below 100000\n';
const PAGES = 64; // of a guest
const QUEUE = 16;
const BLOCKS = 8;
const FIRST = 40; // block

const Own = { sent: Cell.own, done: Cell.own + 1, failed: Cell.own + 2 } as const;
const FIRST_BUFFER = 40; // guest page
const stamp = (n: number): number => 7000 + n;

/** Takes what has ended, no more than there can be; of each read it notes what came. */
function reap(s: Script): void {
  const { disk } = s.machine;
  for (let n = 0; n <= QUEUE; n++) {
    const done = disk.complete();
    if (done === null) return;
    s.put(Own.done, s.get(Own.done) + 1);
    if (!done.ok) s.put(Own.failed, s.get(Own.failed) + 1);
    const buffer = FIRST_BUFFER + (done.tag % QUEUE);
    if (done.tag % 2 === 1) s.note(done.tag, s.machine.load(buffer * PAGE_BYTES));
  }
}

/** Sends requests, as many as there is room for: writes, and reads of what was written. */
function send(s: Script, count: number): void {
  const { disk } = s.machine;
  for (let n = 0; n < count && disk.room() > 0; n++) {
    const tag = s.get(Own.sent);
    s.put(Own.sent, tag + 1);
    const page = FIRST_BUFFER + (tag % QUEUE);
    s.machine.store(page * PAGE_BYTES, stamp(tag));
    disk.submit({ tag, write: tag % 2 === 0, block: (tag >> 1) % BLOCKS, pages: [page] });
  }
}

/** A guest that sends requests in bursts, and works between. */
function worker(plan: readonly (readonly [burst: number, work: number])[], more = {}): Guest {
  const supervisor = new Script({
    trap: (s, { cause }) => {
      if (cause === Cause.externalInterrupt) reap(s);
      else if (cause === Cause.environmentCall) send(s, s.machine.contexts.argument(1, 0));
      else return false;
      if (cause === Cause.environmentCall) s.machine.contexts.setResult(1, 0);
      return true;
    },
  });
  const body = program(function* (port) {
    for (const [burst, work] of plan) {
      yield* port.call(burst);
      port.work(work) ?? (yield* port.fault());
    }
  });
  const at = { pages: PAGES, firstBlock: FIRST, blocks: BLOCKS, channel: 9 };
  return { supervisor, images: [body], ...at, ...more };
}

/** A guest that works: the minimal libOS on a kernel of its own. */
function good(channel: number): Guest {
  const tenant = { image: 0, quota: 64, firstBlock: 0, blocks: 4 };
  const supervisor = new Unikernel({ environments: 8, sliceCycles: 20_000 }, tenant, channel);
  return { supervisor, images: [minimal], pages: 160, firstBlock: channel * 6, blocks: 6, channel };
}

/** Blocks of the host's disk, each with its number in it. */
function marked(): RamMedium {
  const medium = new RamMedium(700);
  for (let block = 0; block < medium.blocks; block++) {
    medium.write(block, new Uint8Array(BLOCK_BYTES).fill(block));
  }
  return medium;
}
function isMarked(medium: RamMedium, block: number): boolean {
  const bytes = new Uint8Array(BLOCK_BYTES);
  medium.read(block, bytes);
  return bytes.every((byte) => byte === block % 256);
}

function world(guests: readonly Guest[], config = CONFIG, storm = false, medium = marked()) {
  const made = host(guests, config, { pages: 1024, medium, storm });
  /** A word of a guest's device page. */
  const page = (row: number, word: number): number =>
    made.machine.memory.get(made.vm(row, Vm.ring) * PAGE_BYTES + word * 4);
  // Of guest 0: its cells and notes, wherever its pages are.
  return { ...made, medium, page, peek: made.peek(0) };
}
type World = ReturnType<typeof world>;

/** Every request that the guest in row 0 sent has ended, well and in order, with its data. */
function allCameBack(w: World): number {
  expect(w.output.get(0)).toBe(undefined);
  const sent = Script.cell(w.peek, Own.sent);
  expect([Script.cell(w.peek, Own.done), Script.cell(w.peek, Own.failed)]).toEqual([sent, 0]);
  const reads = Array.from({ length: sent }, (_, n) => n).filter((n) => n % 2 === 1);
  expect(Script.notes(w.peek)).toEqual(reads.flatMap((n) => [n, stamp(n - 1)]));
  return sent;
}

describe('every request ends, whatever the model', () => {
  const bursts = fc.array(
    fc.tuple(fc.integer({ min: 0, max: QUEUE }), fc.integer({ min: 1, max: 40_000 })),
    { minLength: 1, maxLength: 9 },
  );
  for (const disk of DISKS) {
    test(`${disk}: bursts of any size, slices, storms, a swap area, rolled-back handlers`, () => {
      fc.assert(
        fc.property(
          bursts,
          fc.integer({ min: 500, max: 90_000 }),
          fc.constantFrom('', 'storm', 'restarts', 'swap', 'company', 'shadow'),
          (plan, sliceCycles, twist) => {
            const swap = twist === 'swap' ? { swap: { firstBlock: 80, blocks: 600 } } : {};
            const mode = {
              disk,
              // So few pages that some of those that requests name are always away.
              ...(twist === 'swap' && disk !== 'passthrough' ? { limit: 32 } : {}),
              restarts: twist === 'restarts',
              translation: twist === 'shadow' ? ('shadow' as const) : ('nested' as const),
            };
            const guests = [worker(plan, mode), ...(twist === 'company' ? [good(1)] : [])];
            const config = { ...CONFIG, sliceCycles, ...swap };
            const w = world(guests, config, twist === 'storm');
            heldOff(w);
            expect(w.machine.run(60_000_000)).toBe('halted');
            allCameBack(w);
            expect(violations(w.machine, w.hypervisor)).toEqual([]);
            if (twist === 'company') expect(w.output.get(1)).toBe(PRIMES);
          },
        ),
        { numRuns: 12 },
      );
    });
  }

  /** No notification is lost: at every return to the guest, who holds off is sure to look again. */
  function heldOff(w: World): void {
    w.machine.hart.listener = (event) => {
      if (event.what !== 'return' || event.level !== 0) return;
      if (w.vm(0, Vm.disk) !== DISKS.indexOf('split') || w.vm(0, Vm.ring) === 0) return;
      if (w.vm(0, Vm.outstanding) > 0) return; // a completion will come
      const [requested, taken] = [w.page(0, Ring.requested), w.vm(0, Vm.taken)];
      if (requested !== taken) throw new Error(`${requested} requests, and nobody looks`);
      if (w.page(0, Ring.requestEvent) !== taken + 1) throw new Error('nobody asks for the next');
    };
  }

  test('an exit for each request, for each burst, for none', () => {
    const plan = Array.from({ length: 8 }, () => [8, 400_000] as const);
    const exits = (disk: DiskModel): number => {
      const w = world([worker(plan, { disk })]);
      w.machine.run();
      expect(allCameBack(w)).toBe(64);
      return w.hypervisor.exits(0).disk;
    };
    expect(exits('emulated')).toBe(64);
    // The first of a burst; the others are found when that is through.
    expect(exits('split')).toBe(8);
    expect(exits('passthrough')).toBe(0);
  });

  test('indices go round: 2^32 requests and on', () => {
    const later = Array.from({ length: 9 }, () => [5, 400_000] as const);
    const w = world([worker([[1, 100_000], ...later], { disk: 'split' })]);
    w.machine.run(60_000);
    const at = w.vm(0, Vm.ring) * PAGE_BYTES;
    const { memory } = w.machine;
    expect(w.vm(0, Vm.outstanding)).toBe(0);
    // As if it had sent 2^32 - 9 before, and all had ended.
    for (const word of [Ring.requested, Ring.taken, Ring.produced, Ring.consumed]) {
      memory.put(at + word * 4, memory.get(at + word * 4) - 9);
    }
    for (const word of [Ring.requestEvent, Ring.completionEvent]) {
      memory.put(at + word * 4, memory.get(at + word * 4) - 9);
    }
    const { state } = w.hypervisor;
    for (const word of [Vm.taken, Vm.produced]) {
      memory.put(state.vm.address(0, word), w.vm(0, word) - 9);
    }
    expect(w.machine.run(60_000_000)).toBe('halted');
    expect(allCameBack(w)).toBe(46);
    expect(w.vm(0, Vm.taken)).toBe(46 - 9);
  });
});

const PLAN = [
  [5, 10],
  [9, 9000],
  [3, 10],
] as const;

/** A supervisor without programs, that can be carried: its timer sends bursts, interrupts reap. */
class Pump implements Supervisor {
  static readonly total = 60; // requests
  #machine: Machine | null = null;

  get #m(): Machine {
    if (this.#machine === null) throw new Error('booted');
    return this.#machine;
  }
  boot(machine: Machine): void {
    this.attach(machine);
    machine.setTimer(machine.now() + 1000);
  }
  attach(machine: Machine): void {
    this.#machine = machine;
  }
  dispatch(): null {
    return null;
  }
  trap({ cause }: Trap): void {
    const { disk } = this.#m;
    const get = (cell: number): number => this.#m.load(cell * 4);
    const put = (cell: number, value: number): void => {
      this.#m.store(cell * 4, value);
    };
    if (cause === Cause.timerInterrupt) {
      for (let n = 0; n < 5 && disk.room() > 0 && get(Own.sent) < Pump.total; n++) {
        const tag = get(Own.sent);
        put(Own.sent, tag + 1);
        const page = FIRST_BUFFER + (tag % QUEUE);
        this.#m.store(page * PAGE_BYTES, stamp(tag));
        disk.submit({ tag, write: tag % 2 === 0, block: (tag >> 1) % BLOCKS, pages: [page] });
      }
      const through = get(Own.sent) === Pump.total;
      this.#m.setTimer(through ? NEVER : this.#m.now() + 35_000);
      return;
    }
    for (let done = disk.complete(); done !== null; done = disk.complete()) {
      put(Own.done, get(Own.done) + 1);
      const came = this.#m.load((FIRST_BUFFER + (done.tag % QUEUE)) * PAGE_BYTES);
      const right = done.tag % 2 === 0 || came === stamp(done.tag - 1);
      if (!done.ok || !right) put(Own.failed, get(Own.failed) + 1);
    }
  }
}

describe('a machine that is carried goes on at its disk', () => {
  for (const [from, to] of [
    ['emulated', 'split'],
    ['split', 'split'],
    ['split', 'emulated'],
  ] as const) {
    test(`saved with a disk ${from}, restored with one ${to}, at any moment`, () => {
      const at = { images: [], pages: PAGES, firstBlock: FIRST, blocks: BLOCKS, channel: 9 };
      const config = { ...CONFIG, rows: 2 };
      fc.assert(
        fc.property(fc.integer({ min: 20_000, max: 900_000 }), (when) => {
          const here = world([{ supervisor: new Pump(), ...at, disk: from }], config);
          here.machine.run(when);
          here.hypervisor.pause(0, true);
          while (!here.hypervisor.isQuiet(0)) here.machine.run(here.machine.now() + 5000);
          const saved = here.hypervisor.save(0);
          if ('refused' in saved) throw new Error(saved.refused);
          here.machine.powerOff();
          const there = world([], config, false, here.medium);
          const guest = { supervisor: new Pump(), ...at, disk: to };
          expect(there.hypervisor.restore(guest, structuredClone(saved))).toBe(0);
          there.hypervisor.pause(0, false);
          expect(there.machine.run(60_000_000)).toBe('halted');
          const cell = (n: number): number => Script.cell(there.peek, n);
          expect([cell(Own.sent), cell(Own.done), cell(Own.failed)]).toEqual([
            Pump.total,
            Pump.total,
            0,
          ]);
        }),
        { numRuns: 6 },
      );
    });
  }
});

describe('what stands in a ring is a claim', () => {
  /** Runs the harm with I/O in flight, between two good guests. */
  function beside(harm: (s: Script) => void, disk: DiskModel): World {
    const supervisor = new Script({
      trap: (s, { cause }) => {
        if (cause !== Cause.environmentCall) return false;
        send(s, 5);
        if (s.machine.contexts.argument(1, 0) === 1) harm(s);
        s.machine.contexts.setResult(1, 0);
        return true;
      },
    });
    const body = program(function* (port) {
      for (let n = 0; n < 3; n++) yield* port.call(n);
    });
    const at = { pages: PAGES, firstBlock: FIRST, blocks: BLOCKS, channel: 9 };
    const w = world([{ supervisor, images: [body], ...at, disk }, good(1), good(2)]);
    w.machine.run(20_000_000);
    return w;
  }
  function unharmed(w: World): void {
    expect([w.output.get(1), w.output.get(2)]).toEqual([PRIMES, PRIMES]);
    expect(violations(w.machine, w.hypervisor)).toEqual([]);
    for (const block of [FIRST - 1, FIRST + BLOCKS]) expect(isMarked(w.medium, block)).toBe(true);
  }
  const word =
    (at: number, value: number) =>
    (s: Script): void => {
      s.machine.store(s.machine.pages * PAGE_BYTES + at * 4, value);
    };
  const slots = (value: number) => (s: Script) => {
    for (let n = 0; n < 544; n++) word(Ring.slots + n, value)(s);
  };

  const stopped: [string, (s: Script) => void][] = [
    ['a producer beyond the slots', word(Ring.requested, REQUEST_SLOTS + 100)],
    ['a producer that goes back', word(Ring.requested, -1)],
    ['a producer at the end of numbers', word(Ring.requested, -(2 ** 31))],
    ['slots of ones', slots(-1)],
    ['slots of large numbers', slots(2 ** 30)],
  ];
  test.each(stopped)('%s: that guest is stopped', (_what, harm) => {
    const w = beside(harm, 'split');
    expect(w.vm(0, Vm.state)).toBe(VmState.stopped);
    expect(w.output.get(0)).toContain('virtual machine 0: stopped');
    // What it had put into slots before, twice five; nothing is taken on a count that is a lie.
    expect(w.machine.hart.counters.totals().diskRequests).toBeLessThanOrEqual(10);
    unharmed(w);
  });
  test.each(stopped.slice(0, 3))('%s: of a disk passed through, too', (_what, harm) => {
    const w = beside(harm, 'passthrough');
    expect(w.vm(0, Vm.state)).toBe(VmState.stopped);
    expect(w.output.get(0)).toContain('it rang the doorbell of its disk without sense');
    unharmed(w);
  });
  const own: [string, (s: Script) => void][] = [
    ['an event that never comes', word(Ring.requestEvent, 2 ** 30)],
    ['a completion event in the past', word(Ring.completionEvent, -5)],
    ['a consumer ahead of the producer', word(Ring.consumed, 1000)],
    ['a producer of completions', word(Ring.produced, -77)],
    ['slots that it says are free', word(Ring.taken, 2 ** 31 - 1)],
  ];
  test.each(own)('%s: its own affair', (_what, harm) => {
    for (const disk of DISKS) unharmed(beside(harm, disk));
  });

  for (const disk of DISKS) {
    test(`${disk}: a page that changes between any two reads of the hypervisor`, () => {
      const values = fc.oneof(
        fc.constantFrom(0, 1, 2, 4, 7, 8, 9, 39, 40, 63, 64, 65, -1, 2 ** 31 - 1, -(2 ** 31)),
        fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
      );
      const writes = fc.array(fc.tuple(fc.integer({ min: 0, max: 300 }), values), {
        minLength: 4,
        maxLength: 40,
      });
      fc.assert(
        fc.property(writes, fc.integer({ min: 0, max: 200 }), (changes, from) => {
          const w = world([worker(PLAN, { disk }), good(1)]);
          // Another hart of the guest would write at any moment: so does this, as the loads go by.
          let loads = 0;
          w.machine.hart.listener = (event, layer) => {
            if (event.what !== 'charge' || event.why !== 'load' || layer !== 0) return;
            const change = changes[(loads++ - from) % changes.length];
            const ring = w.vm(0, Vm.ring);
            if (change === undefined || ring === 0) return;
            const [at, value] = change;
            // The words that the hypervisor reads, and what stands beside them.
            w.machine.memory.put(ring * PAGE_BYTES + (at < 16 ? at : at + 80) * 4, value);
          };
          expect(w.machine.run(12_000_000)).not.toBe(undefined);
          w.machine.hart.listener = null;
          expect(w.output.get(1)).toBe(PRIMES);
          expect(violations(w.machine, w.hypervisor)).toEqual([]);
          for (let block = 0; block < 700; block++) {
            const mine = block >= FIRST && block < FIRST + BLOCKS;
            if (!mine && !isMarked(w.medium, block)) throw new Error(`block ${block} is written`);
          }
        }),
        { numRuns: 8 },
      );
    });
  }
});
