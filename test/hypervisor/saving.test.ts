/**
 * A virtual machine as data: restored or cloned at any moment it goes on as if nothing had been,
 * on other host pages; what cannot be carried is refused in words; clones do not see each other.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { RamMedium } from '../../machine/disk.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { type Guest, type Refusal } from '../../kernel/hypervisor/hypervisor.ts';
import { Cpu, type HypervisorConfig, Vm } from '../../kernel/hypervisor/state.ts';
import { migrate } from '../../kernel/hypervisor/migration.ts';
import type { Saved } from '../../kernel/hypervisor/saving.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { minimal } from '../../libos/minimal/minimal.ts';
import { resumable } from '../../libos/minimal/resumable.ts';
import { LONG } from '../tiers.ts';
import { violations, watch } from './invariants.ts';
import { type Host, host } from './host.ts';

const LINE = 'resumable: 9592 primes below 100000\n';
const CONFIG: HypervisorConfig = {
  sliceCycles: 30_001,
  backing: 'touch',
  secondStage: '4KiB',
  rows: 5,
};

function world(config = CONFIG): Host {
  const made = host([], config, { pages: 900, medium: new RamMedium(1100) });
  watch(made.machine, made.hypervisor, 101);
  return made;
}

const tenant = { image: 0, quota: 64, firstBlock: 0, blocks: 0 };
const kernel = (exo: boolean, channel: number) =>
  exo
    ? new Exokernel({ environments: 8, extents: 4, slices: 4, sliceCycles: 20_000 }, [tenant])
    : new Unikernel({ environments: 8, sliceCycles: 20_000 }, tenant, channel);

function guest(channel: number, exo: boolean, more: Partial<Guest> = {}): Guest {
  const at = { firstBlock: 0, blocks: exo ? 4 : 0, channel };
  return { supervisor: kernel(exo, channel), images: [resumable], pages: 160, ...at, ...more };
}

const whyNot = (answer: object | number): unknown =>
  typeof answer === 'object' && 'refused' in answer ? answer.refused : '';

function row(made: number | Refusal): number {
  if (typeof made !== 'number') throw new Error(made.refused);
  return made;
}

describe('save and restore', () => {
  for (const [exo, translation, onto] of [
    [false, 'nested', 'nested'],
    [true, 'nested', 'shadow'],
    [false, 'shadow', 'shadow'],
    [true, 'shadow', 'nested'],
  ] as const) {
    const what = exo ? 'exokernel' : 'unikernel';
    test(`at any moment, onto other pages, another host: ${what}, ${translation} to ${onto}`, () => {
      fc.assert(
        fc.property(fc.integer({ min: 20_000, max: 400_000 }), (when) => {
          const here = world();
          const vm = row(here.hypervisor.create(guest(1, exo, { translation })));
          here.machine.run(when);
          if (here.output.has(1)) return; // it was through
          here.hypervisor.pause(vm, true);
          const saved = here.hypervisor.save(vm);
          if ('refused' in saved) {
            // Only what has not begun, or is at its disk, is put off.
            expect(saved.refused).toMatch(/has not booted yet|are under way/);
            return;
          }
          // It is data: a copy by value is as good.
          const there = world();
          row(there.hypervisor.create(guest(3, false)));
          const copy = row(
            there.hypervisor.restore(guest(2, exo, { translation: onto }), structuredClone(saved)),
          );
          expect(there.hypervisor.save(copy)).toMatchObject({ pages: 160, blocks: saved.blocks });
          there.hypervisor.pause(copy, false);
          there.machine.run(20_000_000);
          expect(there.output.get(2)).toBe(LINE);
          // The original is none the worse for it.
          here.hypervisor.pause(vm, false);
          here.machine.run(20_000_000);
          expect(here.output.get(1)).toBe(LINE);
        }),
        { numRuns: LONG ? 40 : 5 },
      );
    });
  }

  test('what is saved is equal to what is restored, word for word', () => {
    const w = world();
    const vm = row(w.hypervisor.create(guest(1, false)));
    w.machine.run(250_000);
    w.hypervisor.pause(vm, true);
    const first = w.hypervisor.save(vm);
    if ('refused' in first) throw new Error(first.refused);
    const again = row(w.hypervisor.restore(guest(2, false), first));
    const second = w.hypervisor.save(again);
    expect(second).toEqual(first);
  });
});

describe('clone', () => {
  test('stands on the same pages, costs few of its own, and goes its own way', () => {
    const w = world();
    const parent = row(w.hypervisor.create(guest(1, false)));
    w.machine.run(250_000);
    w.hypervisor.pause(parent, true);
    const before = w.cpu(Cpu.free);
    const clones = [2, 3].map((n) => row(w.hypervisor.clone(parent, guest(n, false))));
    const held = w.machine.memory.get(w.hypervisor.state.vm.address(parent, Vm.shared));
    expect(held).toBeGreaterThan(25);
    // Each took its tables and its device page.
    expect(before - w.cpu(Cpu.free)).toBeLessThan(2 * 10);
    expect(violations(w.machine, w.hypervisor)).toEqual([]);
    for (const vm of [...clones, parent]) w.hypervisor.pause(vm, false);
    w.machine.run();
    for (const channel of [1, 2, 3]) expect(w.output.get(channel)).toBe(LINE);
    expect(w.cpu(Cpu.broken)).toBeGreaterThan(0);
    for (const vm of [...clones, parent]) w.hypervisor.destroy(vm);
    expect(violations(w.machine, w.hypervisor)).toEqual([]);
    expect(w.cpu(Cpu.shared)).toBe(0);
  });
});

describe('live migration', () => {
  test('in rounds while it runs: the target has the memory as it was at the switch', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 60_000, max: 250_000 }),
        fc.constantFrom(0.5, 2, 8),
        fc.boolean(),
        fc.constantFrom('nested' as const, 'shadow' as const),
        (when, bytesPerCycle, exo, translation) => {
          const [here, there] = [world(), world()];
          const vm = row(here.hypervisor.create(guest(1, exo, { translation })));
          here.machine.run(translation === 'shadow' ? when + 150_000 : when); // it boots
          const link = {
            bytesPerCycle,
            pass: (cycles: number) => {
              for (const { machine } of [here, there]) machine.run(machine.now() + cycles);
            },
          };
          const save = here.hypervisor.save.bind(here.hypervisor);
          let truth: Saved | null = null;
          here.hypervisor.save = (at) => {
            const saved = save(at);
            if (!('refused' in saved)) truth = saved;
            return saved;
          };
          const moved = migrate(
            here.hypervisor,
            vm,
            there.hypervisor,
            guest(2, exo, { translation }),
            link,
          );
          if ('refused' in moved) throw new Error(moved.refused);
          // It was stopped when it was saved: the target has each of its pages as it was then.
          there.hypervisor.pause(moved.vm, true);
          const got = there.hypervisor.save(moved.vm);
          if ('refused' in got) throw new Error(got.refused);
          const memory = (saved: Saved | null): unknown => saved?.memory;
          expect(got.memory).toEqual(memory(truth));
          there.hypervisor.pause(moved.vm, false);
          there.machine.run(20_000_000);
          const all = (here.output.get(1) ?? '') + (there.output.get(2) ?? '');
          expect(all).toBe(LINE);
          expect(moved.rounds.length).toBeLessThanOrEqual(6);
          const sent = moved.rounds.reduce((n, pages) => n + pages, 0);
          expect(sent).toBeGreaterThanOrEqual(got.memory.length);
          expect(moved.bytes).toBeGreaterThan(sent * 4096);
          // Shorter than stopping it and sending all would have been.
          expect(moved.downtime).toBeLessThan((got.memory.length * 4104) / bytesPerCycle);
          // The source has nothing of it any more.
          expect(violations(here.machine, here.hypervisor)).toEqual([]);
        },
      ),
      { numRuns: 8 },
    );
  });

  test('of one that cannot be carried is refused, and it runs on where it is', () => {
    const [here, there] = [world(), world()];
    const vm = row(here.hypervisor.create(guest(1, false, { images: [minimal] })));
    here.machine.run(100_000);
    const link = { bytesPerCycle: 1, pass: () => undefined };
    const moved = migrate(here.hypervisor, vm, there.hypervisor, guest(2, false), link);
    expect(whyNot(moved)).toMatch(/no entry 'resume'/);
    here.machine.run();
    expect(here.output.get(1)).toBe('minimal: 9592 primes below 100000\n');
  });
});

describe('what cannot be carried is refused, and says why', () => {
  const paused = (w: ReturnType<typeof world>, g: Guest, cycles = 300_000): number => {
    const vm = row(w.hypervisor.create(g));
    w.machine.run(w.machine.now() + cycles);
    w.hypervisor.pause(vm, true);
    return vm;
  };
  test('threads that cannot be re-created', () => {
    const w = world();
    const vm = paused(w, guest(1, false, { images: [minimal] }));
    expect(w.hypervisor.save(vm)).toEqual({
      refused: "the threads of 'minimal' cannot be carried: its image has no entry 'resume'",
    });
    expect(w.hypervisor.clone(vm, guest(2, false))).toEqual(w.hypervisor.save(vm));
  });
  test('a machine that runs, has not booted, or is not there', () => {
    const w = world();
    const vm = row(w.hypervisor.create(guest(1, false)));
    expect(w.hypervisor.save(vm)).toEqual({ refused: 'it runs: pause it first' });
    w.hypervisor.pause(vm, true);
    expect(whyNot(w.hypervisor.save(vm))).toMatch(/not booted/);
    expect(w.hypervisor.save(4)).toEqual({ refused: 'there is no virtual machine 4' });
  });
  test('another version, another size, a supervisor that cannot take over', () => {
    const w = world();
    const saved = w.hypervisor.save(paused(w, guest(1, false)));
    if ('refused' in saved) throw new Error(saved.refused);
    const free = w.cpu(Cpu.free);
    for (const [g, s, why] of [
      [guest(2, false), { ...saved, version: 2 }, /saved as version 2/],
      [guest(2, false, { pages: 161 }), saved, /saved with 160 pages/],
      [guest(2, false, { blocks: 3 }), saved, /and 0 blocks/],
    ] as const) {
      const made = w.hypervisor.restore(g, s);
      expect(typeof made === 'number' ? '' : made.refused).toMatch(why);
    }
    const deaf = { boot: () => undefined, dispatch: () => null, trap: () => undefined };
    const made = w.hypervisor.restore(guest(2, false, { supervisor: deaf }), saved);
    expect(typeof made === 'number' ? '' : made.refused).toMatch(/cannot take over/);
    expect(w.cpu(Cpu.free)).toBe(free);
  });
  test("a clone that would write to its parent's disk", () => {
    const w = world();
    const vm = paused(w, guest(1, false));
    expect(whyNot(w.hypervisor.clone(vm, guest(2, false, { blocks: 4 })))).toMatch(/no blocks/);
  });
});
