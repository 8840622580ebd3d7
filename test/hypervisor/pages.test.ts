/**
 * Guest memory under a host that has too little of it: what a guest wrote comes back bit for bit,
 * whatever was swapped, shared or given up meanwhile, its supervisor's own memory included; and the
 * ledger adds up at every exit.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { PAGE_BYTES } from '../../machine/units.ts';
import { Cause } from '../../kernel/supervisor.ts';
import { Cpu, Vm, VmState } from '../../kernel/hypervisor/state.ts';
import { Cell, Script } from '../machine/script.ts';
import { good, patterns, PRIMES } from './guests.ts';
import { LONG } from '../tiers.ts';
import { shadowCost } from '../../kernel/hypervisor/shadow-tables.ts';
import { violations } from './invariants.ts';
import { SWAP_FIRST, world } from './world.ts';

describe('host swap', () => {
  test('kernels and library OSes in half the memory that they touch: the same output', () => {
    const w = world([good(1), good(2, true), good(3), good(4, true)], 110, {}, 301);
    w.machine.run();
    for (const channel of [1, 2, 3, 4]) expect(w.output.get(channel)).toBe(PRIMES);
    expect(w.cpu(Cpu.swapOuts)).toBeGreaterThan(50);
    expect(w.cpu(Cpu.swapIns)).toBeGreaterThan(20);
    expect(w.machine.hart.counters.totals().restarts).toBeGreaterThan(5);
  });
});

describe('what was written comes back', () => {
  test('from shared pages, from the swap area, or both; nobody sees what another wrote', () => {
    let [merged, broken, out, begun] = [0, 0, 0, 0]; // `begun` anew, under shadow tables
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 10, maxLength: 40 }),
        fc.integer({ min: 1, max: 4 }),
        fc.boolean(),
        fc.boolean(),
        fc.constantFrom('nested' as const, 'shadow' as const),
        (steps, kinds, sharing, short, translation) => {
          const how = translation === 'shadow' ? { translation, shadowPages: 16 } : {};
          const guests = [1, 2, 3].map((n) => ({
            ...patterns(
              n,
              20,
              kinds,
              steps.map((s) => s * n),
            ),
            ...how,
          }));
          const tables = translation === 'shadow' ? 3 * shadowCost(16, 52) : 0;
          const config = { sliceCycles: 9_001, ...(sharing ? { sharing: 12 } : {}) };
          const w = world(guests, (short ? 66 : 250) + tables, config, 61);
          w.machine.run(100_000_000);
          for (const channel of [1, 2, 3]) expect(w.output.get(channel)).toBe('0 wrong');
          expect(violations(w.machine, w.hypervisor)).toEqual([]);
          merged += w.cpu(Cpu.merged);
          broken += w.cpu(Cpu.broken);
          out += w.cpu(Cpu.swapOuts);
          begun += translation === 'shadow' ? w.machine.hart.counters.totals().restarts : 0;
        },
      ),
      { numRuns: LONG ? 200 : 14 },
    );
    expect(Math.min(merged, broken, out, begun)).toBeGreaterThan(0);
  });

  test('or its guest is told that the disk cannot give it back; nobody else notices', () => {
    const w = world([good(1), good(2), good(3)], 80, {}, 301);
    for (let n = 0; n < 40; n++) w.machine.device.failBlock(SWAP_FIRST + n);
    w.machine.run(200_000_000);
    // A block that cannot be written is never relied on: what is there was written.
    for (const channel of [1, 2, 3]) {
      const stopped = w.vm(channel - 1, Vm.state) === VmState.stopped;
      expect(w.output.get(channel) === PRIMES || stopped).toBe(true);
    }
    expect(w.output.get(1)).toBe(PRIMES);
  });

  test('a page whose block fails after it was written stops its guest, and says why', () => {
    const swap = { firstBlock: SWAP_FIRST, blocks: 330 };
    const w = world([good(1), good(2)], 56, { swap }, 301);
    w.machine.run(w.machine.now() + 400_000);
    while (w.cpu(Cpu.swapOuts) < 12) w.machine.run(w.machine.now() + 20_000);
    for (let n = 0; n < 12; n++) w.machine.device.failBlock(SWAP_FIRST + n);
    w.machine.run(w.machine.now() + 50_000_000);
    expect(w.output.get(0)).toMatch(/stopped at guest-physical 0x[0-9a-f]+: the disk cannot give/);
    expect(violations(w.machine, w.hypervisor)).toEqual([]);
  });
});

describe('the balloon', () => {
  test('what a guest gives up is free for others, and comes back as zeros when it is touched', () => {
    const [first, count] = [40, 20];
    const seen: number[] = [];
    const supervisor = new Script({
      boot: (s) => {
        for (let n = 0; n < count; n++) s.machine.store((first + n) * PAGE_BYTES, 1000 + n);
        s.put(Cell.current, -1);
      },
      trap: (s, { cause }) => {
        if (cause !== Cause.externalInterrupt) return false;
        const { balloon } = s.machine;
        const want = balloon.target() - balloon.size();
        for (let n = 0; n < want; n++) balloon.give(first + n);
        for (let n = 0; n < -want; n++) seen.push(s.machine.load((first + n) * PAGE_BYTES));
        // Nonsense, and the device page, are nobody's to give.
        for (const page of [-1, 0.5, 2 ** 30, s.machine.pages]) balloon.give(page);
        return true;
      },
    });
    const at = { firstBlock: 0, blocks: 0, channel: 1 };
    const w = world([{ supervisor, images: [], pages: 100, ...at }], 200, {}, 1);
    w.machine.run();
    const before = w.cpu(Cpu.free);
    expect(w.hypervisor.balloon(0, 12)).toBe(null);
    w.machine.run();
    // But for a page that its supervisor touched for the first time.
    const after = w.cpu(Cpu.free);
    expect(after).toBeGreaterThanOrEqual(before + 11);
    expect(w.vm(0, Vm.ballooned)).toBe(12);
    expect(w.hypervisor.balloon(0, 4)).toBe(null);
    w.machine.run();
    expect(seen).toEqual([0, 0, 0, 0, 0, 0, 0, 0]);
    expect(w.cpu(Cpu.free)).toBe(after - 8);
    expect(w.hypervisor.balloon(0, 1e6)).toEqual({
      refused: '1000000 pages of 99: ask for 0 to 99',
    });
  });
});

test('violations are found when there are some', () => {
  const w = world([good(1)], 200, {}, 1e9);
  w.machine.run();
  expect(violations(w.machine, w.hypervisor)).toEqual([]);
  const { memory } = w.machine;
  const { state } = w.hypervisor;
  for (const [table, row, word] of [
    [state.cpu, 0, Cpu.free],
    [state.vm, 0, Vm.held],
    [state.vm, 0, Vm.tables],
    [state.vm, 0, Vm.swapped],
    [state.vm, 0, Vm.times],
    [state.page, w.vm(0, Vm.ring), 0],
    [state.page, w.vm(0, Vm.ring), 1],
  ] as const) {
    const at = table.address(row, word);
    const was = memory.get(at);
    memory.put(at, was + 1);
    expect(violations(w.machine, w.hypervisor)).not.toEqual([]);
    memory.put(at, was);
  }
  // An entry that names a page of the hypervisor's.
  const root = w.vm(0, Vm.root) * PAGE_BYTES;
  const middle = (memory.get(root) >>> 10) * PAGE_BYTES;
  const leaf = (memory.get(middle) >>> 10) * PAGE_BYTES;
  memory.put(leaf, (3 << 10) | (memory.get(leaf) & 0x3ff));
  expect(violations(w.machine, w.hypervisor)).not.toEqual([]);
});
