/**
 * The CPU among virtual machines: time adds up to the cycle, shares follow weights, caps hold, who
 * wakes is served at once and gains nothing by it, and a guest can read how much was stolen.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { USER_LAYER } from '../../machine/counters.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { NEVER, PAGE_BYTES, type Tick } from '../../machine/units.ts';
import { Cause } from '../../kernel/supervisor.ts';
import { Info } from '../../kernel/abi.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { type Guest, Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { type HypervisorConfig, Vm } from '../../kernel/hypervisor/state.ts';
import { hostPage } from '../machine/rigs.ts';
import { Cell, program, Script } from '../machine/script.ts';
import { watch } from './invariants.ts';

const SLICE = 20_000;
const RR: HypervisorConfig = { sliceCycles: SLICE, backing: 'touch', secondStage: '4KiB' };
const CREDIT: HypervisorConfig = { ...RR, scheduler: 'credit' };

/** A guest that computes for ever, or naps: runs `busy` cycles, then waits `nap` cycles. */
function guest(channel: number, busy: Tick, nap: Tick, more: Partial<Guest> = {}): Guest {
  const spin = program(function* (port) {
    for (;;) {
      for (let done = 0; done < busy; done += 100) port.work(100) ?? (yield* port.fault());
      if (nap > 0) yield* port.call(1);
    }
  });
  const supervisor = new Script({
    trap: (s, { cause }) => {
      if (cause === Cause.environmentCall) {
        s.machine.contexts.setResult(1, 0);
        s.put(Cell.current, -1);
        s.put(Cell.own, s.machine.now() | 0);
        s.setTimer(s.machine.now() + nap);
        return true;
      }
      if (cause === Cause.timerInterrupt) {
        // How late it is served: the worst so far.
        const late = s.machine.now() - (s.get(Cell.own) >>> 0) - nap;
        s.put(Cell.own + 1, Math.max(s.get(Cell.own + 1), late));
        s.put(Cell.own + 2, s.machine.stolen());
        s.put(Cell.current, 1);
        return true;
      }
      return false;
    },
  });
  return { supervisor, images: [spin], pages: 32, firstBlock: 0, blocks: 0, channel, ...more };
}

function run(config: HypervisorConfig, guests: readonly Guest[], cycles: Tick, every = 7) {
  const machine = new PhysicalMachine({ pages: 1024, images: [] });
  const hypervisor = new Hypervisor(config, guests);
  machine.boot(hypervisor);
  watch(machine, hypervisor, every);
  machine.run(cycles);
  const times = guests.map((_, vm) => hypervisor.times(vm));
  const { memory } = machine;
  const cell = (vm: number, n: number): number => {
    const root = memory.get(hypervisor.state.vm.address(vm, Vm.root));
    return memory.get(hostPage((at) => memory.get(at), root, 0) * PAGE_BYTES + n * 4);
  };
  return { machine, hypervisor, times, cell };
}

describe('time', () => {
  for (const config of [RR, CREDIT]) {
    test(`adds up, and run is what the machine itself counted: ${config.scheduler ?? 'rr'}`, () => {
      fc.assert(
        fc.property(
          fc.array(fc.tuple(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 0, max: 90 })), {
            minLength: 1,
            maxLength: 5,
          }),
          (naps) => {
            const guests = naps.map(([busy, nap], n) => guest(n + 1, busy * 1000, nap * 1000));
            const { machine, times } = run(config, guests, 1_000_000, 5);
            let all = 0;
            times.forEach(({ run: ran, elapsed }, vm) => {
              const { counters } = machine.hart;
              const counted = [1, 2, 3].reduce((n, layer) => n + counters.cycles(vm + 1, layer), 0);
              expect(ran).toBe(counted);
              expect(elapsed).toBeLessThanOrEqual(machine.now());
              all += ran;
            });
            expect(all).toBeLessThanOrEqual(machine.now());
          },
        ),
        { numRuns: 12 },
      );
    });
  }

  test('a lone guest is robbed of its exits and nothing else', () => {
    const { times, machine } = run(RR, [guest(1, 1000, 0)], 2_000_000);
    const mine = times[0];
    expect(mine?.idle).toBe(0);
    expect((mine?.steal ?? 0) / machine.now()).toBeLessThan(0.035);
  });
});

describe('shares', () => {
  test('round robin: equal, whatever the weights', () => {
    const { times } = run(RR, [guest(1, 1000, 0, { weight: 1 }), guest(2, 1000, 0)], 4_000_000);
    const [a = 0, b = 0] = times.map(({ run: ran }) => ran);
    expect(a / b).toBeCloseTo(1, 1);
  });

  test('credit: in proportion to weights, within a round', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 64, max: 1024 }), { minLength: 2, maxLength: 4 }),
        (weights) => {
          const guests = weights.map((weight, n) => guest(n + 1, 1000, 0, { weight }));
          const cycles = 12_000_000;
          const { times } = run(CREDIT, guests, cycles, 97);
          const total = times.reduce((n, { run: ran }) => n + ran, 0);
          const all = weights.reduce((n, weight) => n + weight, 0);
          const round = (2 * SLICE * all) / 256;
          times.forEach(({ run: ran }, vm) => {
            const share = (total * (weights[vm] ?? 0)) / all;
            expect(Math.abs(ran - share)).toBeLessThan(round + 2 * SLICE);
          });
        },
      ),
      { numRuns: 6 },
    );
  });

  test('who naps to be woken with a boost gets no more than its weight says', () => {
    // It sleeps for next to nothing, just before its slice would end, again and again.
    const cheat = guest(1, SLICE * 0.9, 200);
    const { times } = run(CREDIT, [cheat, guest(2, 1000, 0), guest(3, 1000, 0)], 12_000_000, 97);
    const total = times.reduce((n, { run: ran }) => n + ran, 0);
    expect((times[0]?.run ?? 0) / total).toBeLessThan(0.36);
    expect((times[1]?.run ?? 0) / total).toBeGreaterThan(0.3);
  });

  test('a cap is kept in each period, though nobody else wants the CPU', () => {
    fc.assert(
      fc.property(fc.integer({ min: 5, max: 90 }), (cap) => {
        const machine = new PhysicalMachine({ pages: 1024, images: [] });
        const hypervisor = new Hypervisor(CREDIT, [guest(1, 1000, 0, { cap })]);
        machine.boot(hypervisor);
        let before = 0;
        const period = 10 * SLICE;
        for (let n = 1; n <= 12; n++) {
          machine.run(n * period);
          const { run: ran } = hypervisor.times(0);
          const share = (ran - before) / period;
          if (n > 1) {
            expect(share).toBeLessThan(cap / 100 + 0.02);
            expect(share).toBeGreaterThan(cap / 100 - 0.03);
          }
          before = ran;
        }
      }),
      { numRuns: 6 },
    );
  });
});

describe('latency', () => {
  test('credit serves who wakes at once; round robin when its turn comes', () => {
    const guests = (): Guest[] => [
      guest(1, 500, 70_000),
      guest(2, 1000, 0),
      guest(3, 1000, 0),
      guest(4, 1000, 0),
    ];
    const worst = (config: HypervisorConfig): number =>
      run(config, guests(), 5_000_000, 97).cell(0, Cell.own + 1);
    expect(worst(CREDIT)).toBeLessThan(SLICE / 8);
    expect(worst(RR)).toBeGreaterThan(2 * SLICE);
  });
});

test('stolen time is published: what the guest reads is what was taken when it last began', () => {
  const { times, cell } = run(RR, [guest(1, 500, 30_000), guest(2, 1000, 0)], 3_000_000);
  const read = cell(0, Cell.own + 2);
  const steal = times[0]?.steal ?? 0;
  expect(read).toBeGreaterThan(0);
  expect(read).toBeLessThanOrEqual(steal);
  expect(steal - read).toBeLessThan(2 * SLICE);
  expect(new PhysicalMachine({ pages: 8, images: [] }).stolen()).toBe(0);
});

test('a virtual machine that is paused does not run, and goes on where it was', () => {
  const machine = new PhysicalMachine({ pages: 1024, images: [] });
  const hypervisor = new Hypervisor(RR, [guest(1, 1000, 0), guest(2, 500, 9_000)]);
  machine.boot(hypervisor);
  watch(machine, hypervisor);
  machine.run(300_000);
  for (const vm of [0, 1]) {
    expect(hypervisor.pause(vm, true)).toBe(null);
    const before = hypervisor.times(vm);
    machine.run(machine.now() + 300_000);
    const after = hypervisor.times(vm);
    expect(after.run).toBe(before.run);
    expect(after.blocked - before.blocked).toBe(after.elapsed - before.elapsed);
    expect(hypervisor.pause(vm, false)).toBe(null);
    machine.run(machine.now() + 300_000);
    expect(hypervisor.times(vm).run).toBeGreaterThan(after.run);
  }
  // Both paused: nothing happens, and that ends.
  for (const vm of [0, 1]) hypervisor.pause(vm, true);
  expect(machine.run(NEVER)).toBe('halted');
});

test('slices inside stolen time: what was taken of one lengthens it, and nobody owes it', () => {
  const INNER = 100_000;
  const tenant = (firstBlock: number) => ({ image: 0, quota: 32, firstBlock, blocks: 2 });
  const kernel = new Exokernel({ environments: 8, slices: 4, sliceCycles: INNER, extents: 4 }, [
    tenant(0),
    tenant(2),
  ]);
  const spin = program(function* (port) {
    for (;;) port.work(100) ?? (yield* port.fault());
  });
  const inner: Guest = {
    supervisor: kernel,
    images: [spin],
    pages: 400,
    firstBlock: 0,
    blocks: 64,
    channel: 1,
    accounts: true,
  };
  const beside = guest(5, 1_000, 0, { firstBlock: 64 });
  // Slices of the host are of a length that falls anywhere in those of the guest.
  const config: HypervisorConfig = { ...RR, sliceCycles: 73_331 };
  const machine = new PhysicalMachine({ pages: 1024, images: [], medium: new RamMedium(96) });
  const hypervisor = new Hypervisor(config, [inner, beside]);
  machine.boot(hypervisor);
  const peek = (pa: number): number => {
    const root = machine.memory.get(hypervisor.state.vm.address(0, Vm.root));
    const host = hostPage((at) => machine.memory.get(at), root, Math.floor(pa / PAGE_BYTES));
    return machine.memory.get(host * PAGE_BYTES + (pa % PAGE_BYTES));
  };
  let most = 0;
  for (let n = 0; n < 1200; n++) {
    machine.run(machine.now() + 50_021);
    for (let position = 0; position < 4; position++) {
      most = Math.max(most, peek(kernel.state.info.address(0, Info.sliceDebt + position)));
    }
  }
  const { run: ran, steal } = hypervisor.times(0);
  expect(steal).toBeGreaterThan(ran * 0.8);
  expect(most).toBeLessThan(INNER / 50);
  const [one, other] = [1, 2].map((owner) => machine.hart.counters.cycles(owner, USER_LAYER));
  expect(Math.abs((one ?? 0) / (other ?? 1) - 1)).toBeLessThan(0.05);
  // And what they run counts to them, whoever had the CPU in between.
  expect((one ?? 0) + (other ?? 0)).toBeGreaterThan(ran * 0.9);
});
