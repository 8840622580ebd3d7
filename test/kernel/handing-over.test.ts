/**
 * What is told to those who wait, and what is left of a wait that is over: results of sleepers and
 * senders, queues whose callee died, windows that are full, and registers on the way out and in.
 */
import { afterEach, describe, expect, test } from 'vitest';
import {
  Call,
  Env,
  EnvState,
  Info,
  packName,
  READ,
  Resource,
  Start,
  Status,
  Upcall,
  Woken,
} from '../../kernel/abi.ts';
import { Cpu, Private } from '../../kernel/exokernel/state.ts';
import { REGISTERS_ALL, REGISTERS_CALL, REGISTERS_YIELD } from '../../kernel/supervisor.ts';
import type { Image, Op } from '../../machine/user-port.ts';
import { books } from './books.ts';
import { Entry, type Home, REVOKE_MASK, Rig, type RigConfig } from './harness.ts';
import { audit } from './invariants.ts';

let rig: Rig;
const boot = (config: RigConfig = {}): Rig => (rig = new Rig(config));
afterEach(() => {
  expect([...audit(rig.raw, undefined, true), ...books(rig.raw)]).toEqual([]);
});

const NOTHING = [0, 0, 0, 0, -1, 0, 0] as const;
const said = (status: number, value: number): object => ({ status, value });
const events = ({ row }: Home): number => rig.raw.env(row, Env.events);
const sleeps = (home: Home): boolean => rig.calls(home.row, 'sleep', events(home), -1, 0, 0);
const rings = ({ row }: Home, callee: number, word = 0): boolean =>
  rig.calls(row, 'ipcCall', callee, word, 0, 0, 0, -1, 0, 0);
const waits = ({ row }: Home, client = -1): boolean =>
  rig.calls(row, 'ipcReplyWait', client, ...NOTHING);

describe('a patron', () => {
  test('that sleeps is woken by its ward with its event count', () => {
    const { a, b } = boot();
    const child = rig.child(a.row, [1, 5]);
    expect(waits(child)).toBe(false);
    const seen = events(a);
    expect(sleeps(a)).toBe(false);
    rig.must(b.row, 'ipcSend', child.id, ...NOTHING);
    rig.settle(a.row);
    expect(rig.answer(a.row)).toMatchObject(said(Status.ok, seen + 1));
    expect(rig.answer(a.row).message[0]).toBe(Woken.event);
  });

  test('hears that a ward which was suspended can run again', () => {
    const { a } = boot();
    const child = rig.child(a.row, [1, 5]);
    rig.must(a.row, 'envSuspend', child.id, 0, 1);
    const seen = events(a);
    rig.must(a.row, 'envSuspend', child.id, 0, 0);
    expect(events(a)).toBe(seen + 1);
  });
});

test('who suspends itself does not go on, not even to the end of its slice', () => {
  const { a } = boot();
  let after: number[] = [];
  rig.onExit = (seen) => {
    if (seen?.number !== Call.envSuspend) return;
    after = [rig.raw.cpu(Cpu.current), rig.raw.cpu(Cpu.owner)];
  };
  expect(rig.calls(a.row, 'envSuspend', a.id, 0, 1)).toBe(false);
  expect(after).not.toContain(a.row);
});

describe('the answer of a call that hands the CPU on', () => {
  test.each([
    ['yield', (b: Home): readonly number[] => [Call.yield, b.id]],
    ['ipcSend', (b: Home): readonly number[] => [Call.ipcSend, b.id, ...NOTHING]],
  ])('%s: ok, after one that was refused', (_, args) => {
    const { a, b } = boot();
    expect(waits(b)).toBe(false);
    const [call = 0, ...rest] = args(b);
    const child = rig.child(a.row, [1, 5]);
    const target = call === Call.yield ? child.id : b.id;
    const statuses = rig.does(a.row, function* (port): Op<number[]> {
      const refused = yield* port.call(Call.yield, 12_345);
      const given = yield* port.call(call, target, ...rest.slice(1));
      return [refused.status, given.status, given.value];
    });
    expect(statuses).toEqual([Status.badEnvironment, Status.ok, 0]);
  });
});

test('who gives its slice back is told ok, after a call that was refused', () => {
  const { a } = boot();
  const statuses = rig.does(a.row, function* (port): Op<number[]> {
    const refused = yield* port.call(Call.yield, 12_345);
    const back = yield* port.call(Call.yield, -1);
    return [refused.status, back.status, back.value];
  });
  expect(statuses).toEqual([Status.badEnvironment, Status.ok, 0]);
});

test('a deadline past 2^32 cycles is not past before it comes', () => {
  const { a } = boot({ tenants: 1 });
  const most = 2 ** 31 - 1;
  for (let n = 0; n < 3; n++) {
    const before = rig.machine.now();
    if (!rig.calls(a.row, 'sleep', events(a), most, 0, 0)) rig.run(most + 100_000);
    rig.settle(a.row);
    expect(rig.answer(a.row).message[0]).toBe(Woken.deadline);
    expect(rig.machine.now() - before).toBeGreaterThanOrEqual(most);
  }
  expect(rig.machine.now()).toBeGreaterThan(2 ** 32);
});

describe('callers in the queue of one that dies', () => {
  test('stand in no queue, and do not spoil the next that one of them stands in', () => {
    const { a } = boot();
    const [callee, other, first, second, third] = [5, 6, 7, 8, 9].map((n) =>
      rig.child(a.row, [1, n]),
    ) as [Home, Home, Home, Home, Home];
    expect([first, second].map((one) => rings(one, callee.id))).toEqual([false, false]);
    rig.must(a.row, 'envDestroy', callee.id, 0, 0);
    rig.settle(first.row);
    expect(rig.answer(first.row)).toMatchObject(said(Status.badEnvironment, 0));
    expect(rig.raw.secret(first.row, Private.queuePrevious)).toBe(0);

    // Both queue up for another, and then the second of the old queue leaves it.
    expect([first, third].map((one) => rings(one, other.id))).toEqual([false, false]);
    rig.settle(second.row);
    expect(rig.answer(second.row)).toMatchObject(said(Status.badEnvironment, 0));
    expect(waits(other)).toBe(true);
    expect(rig.answer(other.row).value).toBe(first.id);
    rig.calls(other.row, 'ipcReplyWait', first.id, ...NOTHING);
    expect(rig.answer(other.row).value).toBe(third.id);
  });
});

test('a window that has reached the end of its table takes no more pages', () => {
  const { a, b } = boot();
  rig.must(a.row, 'ipcWindow', a.leaf, 511, 0);
  const page = rig.raw.free();
  rig.must(b.row, 'pageAllocate', page, 0);
  const send = (entry: number): object =>
    rig.call(b.row, 'ipcSend', a.id, 0, 0, 0, 0, page, 0, READ | (entry << 8));
  expect(waits(a)).toBe(false);
  expect(send(1)).toMatchObject(said(Status.ok, 0));
  rig.settle(a.row);
  expect(rig.raw.entry(a.leaf, 511) >>> 10).toBe(page);
  expect(waits(a)).toBe(false);
  expect(send(2)).toMatchObject(said(Status.notReady, 0));
});

describe('registers', () => {
  const area = ({ row }: Home, count: number): number[] =>
    Array.from({ length: count }, (_, n) => rig.raw.secret(row, Private.registers + n));
  const saved = ({ row }: Home): number => rig.raw.secret(row, Private.saved);

  test('a call saves a few; who is left for another saves what a callee must preserve', () => {
    const { a, b } = boot();
    const args = [b.id, 11, 12, 13, 14, 15, 16, 17];
    const seen: [number, number[]][] = [];
    rig.onExit = (call) => {
      if (call?.caller !== a.row) return;
      seen.push([saved(a), area(a, 9)]);
    };
    rig.does(a.row, function* (port): Op<void> {
      yield* port.call(Call.null, 21, 22, 23);
      yield* port.call(Call.yield, ...args);
    });
    const [call, handed] = seen.slice(-2) as [[number, number[]], [number, number[]]];
    expect(call[0]).toBe(REGISTERS_CALL);
    expect(call[1].slice(0, REGISTERS_CALL)).toEqual([Call.null, 21, 22, 23]);
    expect(handed[0]).toBe(REGISTERS_YIELD);
    expect(handed[1]).toEqual([Call.yield, ...args]);
  });

  test('an interrupt saves all', () => {
    const { a } = boot({ tenants: 1 });
    rig.does(a.row, function* (port): Op<void> {
      yield* port.call(Call.null, 31, 32, 33, 34, 35, 36, 37);
    });
    rig.run(50_000);
    expect(saved(a)).toBe(REGISTERS_ALL);
    expect(area(a, 8)).toEqual([Call.null, 31, 32, 33, 34, 35, 36, 37]);
  });
});

describe('an id that is almost that of an environment', () => {
  test('is that of none', () => {
    const { a, b } = boot();
    const near = [0.5, -0.5, 2 ** 31, 2 ** 32, -(2 ** 32), 2 ** 45].map((n) => b.id + n);
    const beyond = (1 << 14) | rig.raw.rows;
    for (const id of [...near, beyond, (1 << 14) | 0, 0]) {
      const { status, value } = rig.call(a.row, 'yield', id);
      expect([id, status, value]).toEqual([id, Status.badEnvironment, 0]);
    }
    rig.must(a.row, 'yield', b.id);
  });
});

test('an upcall that cannot be told ends whoever is yielded to, before it runs', () => {
  const ROOT = 3;
  boot({ tenants: 3, quota: 12, tenant: (n) => (n === 2 ? { name: [] } : {}) });
  const { a, b } = rig;
  const page = rig.raw.free();
  rig.must(a.row, 'pageAllocate', page, 0);
  rig.must(a.row, 'upcallSet', Upcall.revoke, Entry.revoke, REVOKE_MASK);
  rig.must(a.row, 'upcallSet', Upcall.repossessed, Entry.repossessed, REVOKE_MASK);
  rig.must(a.row, 'pageUnmap', a.leaf, Start.stackPage, 1, 0);
  rig.must(ROOT, 'envSuspend', a.id, 0, 1);
  rig.must(ROOT, 'revoke', 1, 0, ROOT, page, 1, 1, 10_000);
  rig.run(50_000);
  rig.must(ROOT, 'repossess', 1, 0, page);
  rig.must(ROOT, 'envSuspend', a.id, 0, 0);
  // Both kinds are pending: the first ends it, and the second is not tried.
  rig.call(b.row, 'yield', a.id);
  expect(rig.raw.stateOf(a.row)).toBe(EnvState.zombie);
  expect(rig.raw.env(a.row, Env.exitStatus)).toBe(-1);
});

test('an upcall goes to an entry of the image that the environment runs', () => {
  let answer: unknown = null;
  const small: Image = {
    name: 'of one entry',
    entryCount: 1,
    load: (port) => [
      function* (self = 0): Op<void> {
        const { status, value } = yield* port.call(Call.upcallSet, Upcall.fault, 3, 0);
        answer = { status, value };
        yield* port.call(Call.envDestroy, self, 0, 0);
      },
    ],
  };
  const { a } = boot({ images: [small] });
  const child = rig.child(a.row, [1, 5], { start: false });
  rig.must(a.row, 'envStart', child.id, 1, 0, 0, 0, 0);
  rig.call(a.row, 'yield', child.id);
  rig.run(50_000);
  expect(answer).toEqual(said(Status.badArgument, 1));
  expect(rig.raw.env(child.row, Env.image)).toBe(1);
});

describe('accounts', () => {
  const name = packName([1, 5]);

  test('one that has children, or is asked for a page that it does not have, is not closed', () => {
    const { a } = boot();
    rig.must(a.row, 'accountCreate', 20, 1, 0, name.a, name.b, 0);
    rig.must(a.row, 'accountCreate', 21, 20, 0, ...nameWords([1, 5, 1]), 0);
    expect(rig.call(a.row, 'accountClose', 20, 0)).toMatchObject(said(Status.busy, 0));
    rig.must(a.row, 'accountClose', 21, 0);

    rig.must(a.row, 'accountMove', 1, 20, 0, Resource.environments, 1);
    rig.must(a.row, 'accountMove', 1, 20, 0, Resource.pages, 2);
    const child = rig.child(a.row, [1, 5], { account: 20 });
    const page = rig.raw.free();
    rig.must(child.row, 'pageAllocate', page, 0);
    rig.must(a.row, 'envDestroy', child.id, 0, 0);
    rig.must(a.row, 'envReap', child.id, 0);
    rig.must(a.row, 'revoke', 20, 0, 1, rig.raw.free(), 1, 1, 10_000);
    rig.must(a.row, 'pageFree', page, 0);
    expect(rig.raw.used(20, Resource.pages)).toBe(0);
    expect(rig.call(a.row, 'accountClose', 20, 0)).toMatchObject(said(Status.busy, 0));
    rig.must(a.row, 'revoke', 20, 0, 1, rig.raw.free(), 1, 0, 10_000);
    rig.must(a.row, 'accountClose', 20, 0);
  });

  test("a superior's is not drawn on by who has its own name alone", () => {
    const { a } = boot();
    rig.must(a.row, 'accountCreate', 20, 1, 0, name.a, name.b, 0);
    for (const [resource, count] of [
      [Resource.environments, 2],
      [Resource.pages, 4],
    ] as const) {
      rig.must(a.row, 'accountMove', 1, 20, 0, resource, count);
    }
    const child = rig.child(a.row, [1, 5], { account: 20 });
    const root = rig.raw.free();
    rig.must(child.row, 'pageAllocate', root, 0);
    const make = (account: number): object =>
      rig.call(
        child.row,
        'envCreate',
        rig.raw.freeRow(),
        root,
        0,
        ...nameWords([1, 5, 7]),
        -1,
        account,
      );
    expect(make(1)).toMatchObject(said(Status.notPermitted, 6));
    expect(make(20)).toMatchObject({ status: Status.ok });
  });
});

test('before anybody runs, the kernel translates through a space of its own', () => {
  boot({ tenants: 0 });
  rig.run(1_000_000);
  expect(rig.machine.regime()).toMatchObject({ root: rig.raw.state.root, asid: 0 });
  expect(rig.raw.info(Info.sliceVector)).toBe(0);
});

function nameWords(name: readonly number[]): [number, number] {
  const { a, b } = packName(name);
  return [a, b];
}
