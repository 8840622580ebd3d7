/**
 * Virtual machines come and go: what they had is free afterwards, to the page, whenever it happens;
 * a creation that cannot keep its promises is refused and changes nothing; and the thousandth costs
 * what the tenth did.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { virtualMachines } from '../../bench/virtual-machines.ts';
import { RamMedium } from '../../machine/disk.ts';
import { Cause } from '../../kernel/supervisor.ts';
import { type Guest } from '../../kernel/hypervisor/hypervisor.ts';
import { Cpu, type HypervisorConfig } from '../../kernel/hypervisor/state.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { minimal } from '../../libos/minimal/minimal.ts';
import { program, Script } from '../machine/script.ts';
import { violations, watch } from './invariants.ts';
import { host } from './host.ts';

const PRIMES = 'minimal: 9592 primes below 100000\n';
const CONFIG: HypervisorConfig = {
  sliceCycles: 20_001,
  backing: 'touch',
  secondStage: '4KiB',
  rows: 6,
};
const SWAPPING = { ...CONFIG, swap: { firstBlock: 64, blocks: 1000 } };

function world(config: HypervisorConfig, pages = 400) {
  const made = host([], config, { pages, medium: new RamMedium(1100) });
  watch(made.machine, made.hypervisor, 17);
  return { ...made, free: () => made.cpu(Cpu.free) };
}

function good(channel: number, more: Partial<Guest> = {}): Guest {
  const tenant = { image: 0, quota: 64, firstBlock: 0, blocks: 4 };
  const supervisor = new Unikernel({ environments: 8, sliceCycles: 20_000 }, tenant, channel);
  const at = { firstBlock: channel * 6, blocks: 6, channel };
  return { supervisor, images: [minimal], pages: 160, ...at, ...more };
}

/** A guest that always has disk requests under way. */
function busy(channel: number): Guest {
  const supervisor = new Script({
    boot: (s) => {
      s.space(1);
      s.map(1, 4);
      s.start(1);
      for (let n = 0; n < 8; n++) submit(s, n);
    },
    trap: (s, { cause }) => {
      if (cause !== Cause.externalInterrupt) return false;
      for (let done = s.machine.disk.complete(); done !== null; done = s.machine.disk.complete()) {
        submit(s, done.tag);
      }
      return true;
    },
  });
  const submit = (s: Script, n: number): void => {
    s.machine.disk.submit({ tag: n, write: n % 2 === 0, block: n % 6, pages: [20 + n, 30 + n] });
  };
  const spin = program(function* (port) {
    for (;;) yield* port.store(0x4000, (yield* port.load(0x4000)) + 1);
  });
  return { supervisor, images: [spin], pages: 64, firstBlock: channel * 6, blocks: 6, channel };
}

describe('death', () => {
  test('gives everything back, whenever it comes, requests under way included', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 300_000 }), { minLength: 1, maxLength: 6 }),
        fc.boolean(),
        (lives, swapping) => {
          const w = world(swapping ? SWAPPING : CONFIG, swapping ? 200 : 400);
          const before = w.free();
          lives.forEach((cycles, n) => {
            const kind = n % 2 === 0 ? busy(n + 1) : good(n + 1);
            const made = w.hypervisor.create(kind);
            if (typeof made !== 'number') throw new Error(made.refused);
            w.machine.run(w.machine.now() + cycles);
            if (n % 3 === 0) expect(w.hypervisor.destroy(made)).toBe(null);
          });
          for (let vm = 0; vm < 6; vm++) w.hypervisor.destroy(vm);
          expect(w.machine.run()).toBe('halted');
          expect(w.free()).toBe(before);
          expect(violations(w.machine, w.hypervisor)).toEqual([]);
        },
      ),
      { numRuns: 12 },
    );
  });

  test('its row serves another, whose output is its own; nobody else notices', () => {
    const w = world(CONFIG);
    for (let n = 1; n <= 9; n++) {
      const made = w.hypervisor.create(good(n));
      if (typeof made !== 'number') throw new Error(made.refused);
      w.machine.run();
      expect(w.output.get(n)).toBe(PRIMES);
      if (n % 2 === 0) w.hypervisor.destroy(made);
    }
    expect(w.hypervisor.destroy(9)).toEqual({ refused: 'there is no virtual machine 9' });
    expect(w.hypervisor.pause(-1, true)).toEqual({ refused: 'there is no virtual machine -1' });
  });
});

describe('creation', () => {
  const refusals: [string, Partial<Guest>, HypervisorConfig, RegExp][] = [
    ['too few pages', { pages: 1 }, CONFIG, /give it 2 to 1048576/],
    ['pages that are no number', { pages: 3.5 }, CONFIG, /give it 2 to 1048576/],
    ['a reservation above its limit', { reservation: 161 }, CONFIG, /none above the next/],
    ['a limit without a swap area', { limit: 100 }, CONFIG, /takes a swap area/],
    ['a limit that no handler fits into', { limit: 8 }, SWAPPING, /at least 16 pages/],
    ['a cap without credit', { cap: 50 }, CONFIG, /credit scheduler/],
    ['a cap of more than all', { cap: 101 }, { ...CONFIG, scheduler: 'credit' }, /1 to 100/],
    ['no weight', { weight: 0 }, CONFIG, /give 1 to 4096/],
    ['a reservation beyond memory', { pages: 900, reservation: 800 }, CONFIG, /would be reserved/],
    ['more than can be swapped', { pages: 1200 }, SWAPPING, /could be asked for 1200/],
    ['a machine beyond memory', {}, { ...CONFIG, backing: 'populate' }, /no memory for all/],
  ];
  test.each(refusals)('%s is refused, and nothing has changed', (_name, more, config, why) => {
    const w = world(config, config.backing === 'populate' ? 150 : 400);
    const before = w.free();
    const made = w.hypervisor.create(good(1, more));
    expect(typeof made === 'number' ? '' : made.refused).toMatch(why);
    expect(w.free()).toBe(before);
    expect(violations(w.machine, w.hypervisor)).toEqual([]);
    expect(w.machine.run()).toBe('halted');
  });

  test('of one more than there are rows is refused', () => {
    const w = world(CONFIG);
    for (let n = 0; n < 6; n++) expect(w.hypervisor.create(good(n + 1))).toBe(n);
    const made = w.hypervisor.create(good(7));
    expect(made).toEqual({ refused: 'all 6 rows are taken: destroy a virtual machine' });
  });

  test('under shadow tables in a row that has no ASIDs is refused', () => {
    const { hypervisor } = world({ ...CONFIG, rows: 513 }, 8192);
    expect(hypervisor.prepare(8, 511)).toBe(511);
    const shadow = good(1, { translation: 'shadow' });
    expect(hypervisor.create(shadow)).toMatchObject({
      refused: expect.stringContaining('row 511 has no ASIDs') as string,
    });
    expect(hypervisor.create(good(1))).toBe(512); // the search goes round from there
  });

  test('from a prepared shell takes half of the cycles, and gives the same machine', () => {
    const cost = (shells: number): number => {
      const w = world(CONFIG);
      expect(w.hypervisor.prepare(160, shells)).toBe(shells);
      const at = w.machine.now();
      expect(w.hypervisor.create(good(1))).toBe(0);
      const cycles = w.machine.now() - at;
      w.machine.run();
      expect(w.output.get(1)).toBe(PRIMES);
      return cycles;
    };
    expect(cost(1)).toBeLessThan(cost(0) / 2);
    // A shell can be dropped again.
    const w = world(CONFIG);
    const before = w.free();
    w.hypervisor.prepare(160, 3);
    for (let vm = 0; vm < 3; vm++) expect(w.hypervisor.destroy(vm)).toBe(null);
    expect(w.free()).toBe(before);
  });

  test('costs the same however many there are, but for cold misses', () => {
    const { created } = virtualMachines(60);
    const [tenth, last] = [created[10], created[59]];
    for (const of of ['create', 'output'] as const) {
      const [a, b] = [tenth?.[of] ?? 0, last?.[of] ?? 0];
      expect(Math.abs(a - b) / a).toBeLessThan(0.05);
    }
  });
});
