/**
 * Memory that is short: guests are asked at the soft mark, and memory is taken blindly only when
 * that did not help; whoever pays least gives first, nobody below his reservation; and whatever
 * happens, pages add up and contents come back bit for bit.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { PAGE_BYTES } from '../../machine/units.ts';
import { Cause } from '../../kernel/supervisor.ts';
import type { Guest } from '../../kernel/hypervisor/hypervisor.ts';
import { Cpu, type HypervisorConfig, Vm, VmState } from '../../kernel/hypervisor/state.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { program, Script } from '../machine/script.ts';
import { violations } from './invariants.ts';
import { HOLDS, keeper } from './keeper.ts';
import type { Host } from './host.ts';
import { world } from './world.ts';

const SPARE = 420; // pages beside the hypervisor's own
const BALLOON: Partial<HypervisorConfig> = { taking: 'balloon' };

function keeping(channel: number, complies: boolean, more: Partial<Guest> = {}): Guest {
  const tenant = { image: 0, quota: 60, firstBlock: 0, blocks: 4 };
  const supervisor = new Unikernel({ environments: 8, sliceCycles: 20_000 }, tenant, channel);
  const at = { firstBlock: channel * 4, blocks: 4, channel };
  return { supervisor, images: [keeper(complies)], pages: 120, ...at, ...more };
}

/** Touches one page after another up to `want.pages`, and gives them up again when that is less. */
class Grower {
  want = 0;
  pace = 1; // pages at a time
  wrong = 0;
  readonly guest: Guest;

  constructor(more: Partial<Guest> = {}) {
    const first = 20;
    const have = 32; // cell
    const supervisor = new Script({
      trap: (s, { cause }) => {
        if (cause !== Cause.environmentCall) return false;
        const { machine: m } = s;
        for (let step = 0; step < this.pace; step++) {
          const n = s.get(have);
          const page = first + n;
          if (n < this.want) {
            if (m.load(page * PAGE_BYTES) !== 0) this.wrong++;
            m.store(page * PAGE_BYTES, page * 7);
            s.put(have, n + 1);
          } else if (n > this.want) {
            if (m.load((page - 1) * PAGE_BYTES) !== (page - 1) * 7) this.wrong++;
            m.balloon.give(page - 1);
            s.put(have, n - 1);
          } else if (n > 0) {
            const some = first + ((m.contexts.argument(1, 0) * 4 + step) % n);
            if (m.load(some * PAGE_BYTES) !== some * 7) this.wrong++;
          }
        }
        m.contexts.setResult(1, 0);
        return true;
      },
    });
    const body = program(function* (port) {
      for (let n = 0; n < 600; n++) {
        yield* port.call(n);
        port.work(60_000) ?? (yield* port.fault());
      }
    });
    const at = { firstBlock: 0, blocks: 0, channel: 9 };
    this.guest = { supervisor, images: [body], pages: 400, ...at, ...more };
  }
}

/** The policy's books, beside what invariants.ts holds at each exit. */
function books(w: Host): string[] {
  const wrong = violations(w.machine, w.hypervisor);
  let asked = 0;
  for (let vm = 0; vm < w.hypervisor.state.vm.rows; vm++) {
    asked += w.vm(vm, Vm.asked);
    const target = Math.max(w.vm(vm, Vm.wish), w.vm(vm, Vm.asked));
    if (w.vm(vm, Vm.target) !== target && w.vm(vm, Vm.state) !== VmState.stopped) {
      wrong.push(`vm ${vm} is asked for ${w.vm(vm, Vm.target)}, and should be for ${target}`);
    }
  }
  if (asked !== w.cpu(Cpu.asked))
    wrong.push(`${asked} pages are asked for, not ${w.cpu(Cpu.asked)}`);
  return wrong;
}

interface Scene {
  readonly w: Host;
  readonly grower: Grower;
  readonly run: (cycles: number) => void;
}
function scene(guests: readonly Guest[], config = BALLOON, spare = SPARE): Scene {
  const grower = new Grower();
  const w = world([...guests, grower.guest], spare, config, 997);
  const run = (cycles: number): void => {
    w.machine.run(w.machine.now() + cycles);
  };
  return { w, grower, run };
}
const said = (w: Host, channel: number): string => w.output.get(channel) ?? '';

describe('below the soft mark', () => {
  /** Two keepers have settled; then a third guest takes what is free but `left` pages. */
  function short(guests: readonly Guest[], config = BALLOON, left = 4): Scene {
    const s = scene(guests, config);
    s.run(8_000_000);
    expect([s.w.cpu(Cpu.swapOuts), s.w.cpu(Cpu.asked)]).toEqual([0, 0]);
    s.grower.want = s.w.cpu(Cpu.free) - left;
    s.run(25_000_000);
    return s;
  }

  test('guests that comply are asked, nothing is swapped; in time they get it back', () => {
    const { w, grower, run } = short([keeping(1, true), keeping(2, true)]);
    const given = w.vm(0, Vm.ballooned) + w.vm(1, Vm.ballooned);
    expect(given).toBeGreaterThan(10);
    expect([w.cpu(Cpu.swapOuts), w.vm(0, Vm.deaf), w.vm(1, Vm.deaf)]).toEqual([0, 0, 0]);
    // Asked of both alike, for what both hold alike.
    expect(Math.abs(w.vm(0, Vm.ballooned) - w.vm(1, Vm.ballooned))).toBeLessThanOrEqual(8);
    expect(books(w)).toEqual([]);
    grower.want = 0;
    run(20_000_000);
    expect([w.cpu(Cpu.asked), w.vm(0, Vm.target), w.vm(1, Vm.target)]).toEqual([0, 0, 0]);
    w.machine.run();
    for (const channel of [1, 2]) {
      expect(said(w, channel)).toMatch(new RegExp(`^${HOLDS} pages, 0 wrong, asked [1-9]`));
    }
    expect([grower.wrong, ...books(w)]).toEqual([0]);
  });

  test('the same without asking: pages are swapped, of whoever it hits', () => {
    const { w } = short([keeping(1, true), keeping(2, true)], {});
    expect(w.cpu(Cpu.swapOuts)).toBeGreaterThan(0);
    expect(w.vm(0, Vm.ballooned) + w.vm(1, Vm.ballooned)).toBe(0);
  });

  test('those that do not hear are left alone after a while, and swapped', () => {
    const { w, grower } = short([keeping(1, false), keeping(2, false)]);
    expect([w.vm(0, Vm.ballooned), w.vm(1, Vm.ballooned)]).toEqual([0, 0]);
    expect(w.vm(0, Vm.deaf) + w.vm(1, Vm.deaf)).toBeGreaterThan(0);
    expect(w.cpu(Cpu.swapOuts)).toBeGreaterThan(0);
    w.machine.run();
    for (const channel of [1, 2]) expect(said(w, channel)).toContain(`${HOLDS} pages, 0 wrong`);
    expect([grower.wrong, ...books(w)]).toEqual([0]);
  });

  test('who pays least gives first; a reservation is not touched', () => {
    const { w } = short([keeping(1, true, { shares: 4000 }), keeping(2, true, { shares: 500 })]);
    expect(w.vm(1, Vm.ballooned)).toBeGreaterThan(w.vm(0, Vm.ballooned));
    const kept = short([keeping(1, true, { reservation: 120 }), keeping(2, true)]);
    expect([kept.w.vm(0, Vm.target), kept.w.vm(0, Vm.swapped)]).toEqual([0, 0]);
    expect(kept.w.vm(1, Vm.ballooned)).toBeGreaterThan(0);
  });

  test('nor by several pages that leave at once', () => {
    const poor = { shares: 1, limit: 120 };
    const { w: before } = short([keeping(1, false, poor)], {}, 60);
    const reservation = before.vm(0, Vm.held) - 3;
    const { w, run } = short([keeping(1, false, { ...poor, reservation })], {});
    run(5_000_000);
    expect(w.cpu(Cpu.swapOuts)).toBeGreaterThan(3);
    expect(w.vm(0, Vm.held)).toBeGreaterThanOrEqual(reservation);
    expect(w.vm(0, Vm.swapped)).toBeGreaterThan(0);
  });

  test('what an operator asks for stands beside it', () => {
    const { w, grower, run } = short([keeping(1, true), keeping(2, true)]);
    expect(w.hypervisor.balloon(0, HOLDS - 2)).toBe(null);
    expect(w.vm(0, Vm.target)).toBe(HOLDS - 2);
    run(4_000_000);
    expect(w.vm(0, Vm.ballooned)).toBe(HOLDS - 2);
    grower.want = 0;
    run(15_000_000);
    expect([w.vm(0, Vm.target), w.cpu(Cpu.asked)]).toEqual([HOLDS - 2, 0]);
    expect(w.hypervisor.balloon(0, 0)).toBe(null);
    run(3_000_000);
    expect([w.vm(0, Vm.target), ...books(w)]).toEqual([0]);
  });
});

test('a limit that is lowered: what is beyond goes, and comes back when it is needed', () => {
  const { w, run } = scene([keeping(1, false)], {});
  run(8_000_000);
  const held = w.vm(0, Vm.held);
  expect(w.hypervisor.limit(0, held - 12)).toBe(null);
  for (const [pages, why] of [
    [15, /give 16 to 120/],
    [121, /give 16 to 120/],
    [20.5, /20.5 pages/],
  ] as const) {
    expect(w.hypervisor.limit(0, pages)?.refused).toMatch(why);
  }
  run(10_000_000);
  expect(w.vm(0, Vm.held)).toBeLessThanOrEqual(held - 12);
  expect(w.vm(0, Vm.swapped)).toBeGreaterThanOrEqual(12);
  expect(w.cpu(Cpu.swapIns)).toBeGreaterThan(0);
  w.machine.run();
  expect(said(w, 1)).toContain(`${HOLDS} pages, 0 wrong`);
  const dry = world([keeping(1, true)], SPARE, {});
  expect(dry.hypervisor.limit(3, 50)?.refused).toMatch(/no virtual machine 3/);
});

test('any mix of guests, any pressure: pages add up, contents are what they were', () => {
  const kinds = fc.array(
    fc.record({
      complies: fc.boolean(),
      shares: fc.constantFrom(300, 1000, 5000),
      reservation: fc.constantFrom(0, 60, 70, 80),
    }),
    { minLength: 1, maxLength: 2 },
  );
  const wants = fc.array(fc.integer({ min: 0, max: 260 }), { minLength: 1, maxLength: 3 });
  fc.assert(
    fc.property(kinds, wants, fc.boolean(), fc.constantFrom(1, 6), (guests, steps, low, pace) => {
      const keepers = guests.map(({ complies, ...more }, n) => keeping(n + 1, complies, more));
      const { w, grower, run } = scene(keepers, BALLOON, low ? 300 : SPARE);
      grower.pace = pace;
      for (const want of [0, ...steps]) {
        grower.want = want;
        run(9_000_000);
        expect(books(w)).toEqual([]);
        guests.forEach(({ reservation }, vm) => {
          // What it gave up itself it does not hold.
          if (w.vm(vm, Vm.swapped) === 0) return;
          const least = w.vm(vm, Vm.held) + w.vm(vm, Vm.ballooned);
          expect(least).toBeGreaterThanOrEqual(reservation);
        });
      }
      w.machine.run(80_000_000);
      guests.forEach((_, n) => expect(said(w, n + 1)).toMatch(/^\d+ pages, 0 wrong/));
      expect([grower.wrong, said(w, 0), ...books(w)]).toEqual([0, '']);
    }),
    { numRuns: 3 },
  );
}, 60_000);
