/**
 * The words behind a slice, to the cycle: when it ends, what its position owes when it ended late,
 * by whatever, and that the hardware's timer says what the words say.
 */
import { afterEach, describe, expect, test } from 'vitest';
import { Call, DISK_WRITE, Env, EnvState, Info, Status } from '../../kernel/abi.ts';
import { Cpu, EXCESS_MAX } from '../../kernel/exokernel/state.ts';
import type { Op } from '../../machine/user-port.ts';
import { CONFIG, GRACE, type Home, Rig, type RigConfig, SCRATCH } from './harness.ts';
import { audit } from './invariants.ts';

let rig: Rig;
const boot = (config: RigConfig = {}): Rig => (rig = new Rig(config));
afterEach(() => {
  expect(audit(rig.raw, undefined, true)).toEqual([]);
});

interface Turn {
  readonly now: number;
  readonly alive: boolean; // the first tenant
  readonly position: number;
  readonly owner: number;
  readonly end: number;
  readonly grace: number;
  readonly timer: number;
  readonly owed: readonly number[]; // by position
}

function turn(): Turn {
  const { raw, machine } = rig;
  const end = (raw.cpu(Cpu.end) >>> 0) + raw.cpu(Cpu.end + 1) * 2 ** 32;
  return {
    now: machine.now(),
    alive: raw.stateOf(1) !== EnvState.zombie,
    position: raw.info(Info.slicePosition),
    owner: raw.cpu(Cpu.owner),
    end,
    grace: raw.cpu(Cpu.grace),
    timer: machine.timer(),
    owed: Array.from({ length: CONFIG.slices }, (_, n) => raw.info(Info.sliceDebt + n)),
  };
}

/** What stood after each kernel exit of `act`, and before the first. */
function watched(act: () => void): Turn[] {
  const turns = [turn()];
  rig.onExit = () => turns.push(turn());
  act();
  rig.onExit = () => undefined;
  return turns;
}

const pairs = (turns: readonly Turn[]): [Turn, Turn][] =>
  turns.slice(1).map((after, n) => [turns[n] as Turn, after]);
const owes = ({ owed, position }: Turn): number => owed[position] ?? NaN;

/** Overruns each slice end by `cycles`, and gives the rest back. */
const late = ({ row, id }: Home, cycles: number): void => {
  rig.catchesSlices(row);
  rig.lane(id).onEnd = function* (port): Op<void> {
    for (let n = 0; n < cycles; n += 20) port.work(20) ?? (yield* port.fault());
    yield* port.call(Call.yield, -1);
  };
};

describe('a slice', () => {
  test('ends a turn after it began, and the timer says so', () => {
    boot();
    const begun = pairs(watched(() => rig.run(200_000))).filter(
      ([before, after]) => before.position !== after.position,
    );
    expect(begun.length).toBeGreaterThan(10);
    for (const [, { now, end, timer, position, owner }] of begun) {
      expect(end - now).toBeLessThanOrEqual(CONFIG.sliceCycles);
      expect(end - now).toBeGreaterThan(CONFIG.sliceCycles / 2 - 1_000);
      expect(timer).toBe(end);
      expect(rig.raw.info(Info.sliceVector + position) & 0x3fff).toBe(owner);
    }
  });

  test('whose end is announced goes on for the grace, and owes what it was late by until then', () => {
    const { a } = boot();
    late(a, GRACE / 5);
    const announced = pairs(watched(() => rig.run(200_000))).filter(
      ([before, after]) => before.grace === 0 && after.grace === 1,
    );
    expect(announced.length).toBeGreaterThan(3);
    for (const [before, after] of announced) {
      const told = after.end - GRACE; // when the kernel looked at its clock
      expect(after.timer).toBe(after.end);
      expect(told).toBeGreaterThanOrEqual(before.end);
      expect(told).toBeLessThanOrEqual(after.now);
      expect(owes(after) - owes(before)).toBe(told - before.end);
    }
  });

  test('that its owner ends by death in its grace leaves the grace owed by the position', () => {
    const { a } = boot();
    rig.catchesSlices(a.row);
    rig.lane(a.id).onEnd = function* (port): Op<void> {
      // In a slice of its own, that nobody goes on with.
      if (rig.raw.cpu(Cpu.owner) === a.row) yield* port.call(Call.envDestroy, a.id, 0, 0);
    };
    const turns = watched(() => rig.run(100_000));
    expect(rig.raw.stateOf(a.row)).toBe(EnvState.zombie);
    const dies = pairs(turns).find(([before, after]) => before.alive && !after.alive);
    const [before, after] = dies as [Turn, Turn];
    const owed = (after.owed[before.position] ?? 0) - owes(before);
    expect(owed).toBeGreaterThan(0);
    // It began its grace GRACE before its end, and is charged all of it.
    expect(owed).toBeLessThanOrEqual(GRACE);
  });

  test('of an interrupt is longer by what its asker then owes', () => {
    const { a, b } = boot();
    rig.does(b.row, function* (port) {
      port.store32(SCRATCH, b.stack) ?? (yield* port.fault());
    });
    let asker = -1;
    rig.onExit = (seen) => {
      if (seen?.number === Call.diskRequest) asker = rig.raw.info(Info.slicePosition);
    };
    rig.must(b.row, 'diskRequest', b.extent, 0, 0, 1, SCRATCH, 0, DISK_WRITE);
    const done = (): number => rig.raw.env(b.row, Env.diskDone);
    let seen = done();
    const lengthened: [Turn, Turn][] = [];
    let before = turn();
    rig.onExit = () => {
      const after = turn();
      if (done() !== seen) lengthened.push([before, after]);
      [seen, before] = [done(), after];
    };
    for (let n = 0; lengthened.length === 0 && n < 1_000; n++) rig.run(20_000);
    expect(lengthened).toHaveLength(1);
    const [[from, to]] = lengthened as [[Turn, Turn]];
    const took = (to.owed[asker] ?? 0) - (from.owed[asker] ?? 0);
    expect(took).toBeGreaterThan(0);
    expect(to.end - from.end).toBe(took);
    expect(to.timer).toBe(to.end);
    expect(a.row).not.toBe(b.row);
  });
});

test('a position that is alone and owes more than a turn is served again: turns are passed', () => {
  const { a } = boot({ tenants: 1, exokernel: { slices: 1 } });
  late(a, 2 * GRACE);
  const turns = watched(() => rig.run(300_000));
  const owed = turns.map(owes);
  expect(Math.max(...owed)).toBeLessThan(CONFIG.sliceCycles);
  expect(rig.lane(a.id).ends).toBeGreaterThan(5);
});

test('who overruns its grace on more positions in a row than it may loses its life', () => {
  const { a } = boot({ tenants: 1, exokernel: { slices: 2 * EXCESS_MAX } });
  rig.catchesSlices(a.row);
  rig.lane(a.id).onEnd = function* (port): Op<void> {
    for (let n = 0; n < GRACE + 1_000; n += 20) port.work(20) ?? (yield* port.fault());
  };
  const excess: number[] = [];
  rig.onExit = () => excess.push(rig.raw.env(a.row, Env.excess));
  rig.run(2 * EXCESS_MAX * (CONFIG.sliceCycles + 2 * GRACE));
  expect(Math.max(...excess)).toBe(EXCESS_MAX + 1);
  expect(rig.raw.stateOf(a.row)).toBe(EnvState.zombie);
  expect(rig.raw.env(a.row, Env.exitStatus)).toBe(-1);
});

test('what a call of one that is out of turn answers is not lost: yield says ok', () => {
  const { a, b } = boot();
  const [refused, given] = rig.does(a.row, function* (port): Op<number[]> {
    const first = yield* port.call(Call.yield, 12345);
    const second = yield* port.call(Call.yield, b.id);
    return [first.status, second.status, second.value];
  });
  expect([refused, given]).toEqual([Status.badEnvironment, Status.ok]);
});
