/**
 * Control transfer beyond the call: messages that nobody waits on, queues whose members die,
 * upcalls that end a wait, environments that are suspended wherever they stand, and positions that
 * change hands. After each test every invariant holds.
 */
import * as fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import {
  Call,
  Env,
  EnvState,
  Info,
  MAP_READ,
  READ,
  Resource,
  REVOKE,
  SLICE_BITS,
  Start,
  Status,
  TAG_BITS,
  tagOf,
  Upcall,
  Woken,
  WRITE,
} from '../../kernel/abi.ts';
import { Cpu, Private } from '../../kernel/exokernel/state.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Op } from '../../machine/user-port.ts';
import { Entry, GRACE, type Home, REVOKE_MASK, Rig, type RigConfig } from './harness.ts';
import { audit } from '../../check/invariants/index.ts';

let rig: Rig;
const boot = (config: RigConfig = {}): Rig => (rig = new Rig(config));
afterEach(() => {
  expect(audit(rig.raw, undefined, true)).toEqual([]);
});

const NOTHING = [0, 0, 0, 0, -1, 0, 0] as const;
const said = (status: number, value: number): object => ({ status, value });
const isReady = ({ row }: Home): boolean => rig.raw.stateOf(row) === EnvState.ready;
/** Waits for a call; true if it is answered at once. */
const waits = ({ row }: Home, client = -1): boolean =>
  rig.calls(row, 'ipcReplyWait', client, ...NOTHING);
const rings = ({ row }: Home, callee: number, word = 0): boolean =>
  rig.calls(row, 'ipcCall', callee, word, 0, 0, 0, -1, 0, 0);
const done = ({ id }: Home): boolean => rig.lane(id).done;

describe('a message without a reply', () => {
  test('reaches who waits, with the rest of the slice, and leaves the sender ready', () => {
    const { a, b } = boot();
    expect(waits(a)).toBe(false);
    let [owner, runs] = [0, 0];
    rig.onExit = (seen) => {
      if (seen?.number !== Call.ipcSend) return;
      [owner, runs] = [rig.raw.cpu(Cpu.owner), rig.raw.cpu(Cpu.current)];
    };
    expect(rig.call(b.row, 'ipcSend', a.id, 1, -2, 3, 2 ** 32 - 1, -1, 0, 0)).toMatchObject(
      said(Status.ok, 0),
    );
    expect([owner, runs]).toEqual([b.row, a.row]);
    rig.settle(a.row);
    const message = [1, -2, 3, -1, 0];
    expect(rig.answer(a.row)).toMatchObject({ status: Status.ok, value: b.id, message });
    // Nobody is owed an answer.
    expect(rig.call(a.row, 'ipcReplyWait', b.id, ...NOTHING)).toMatchObject(
      said(Status.notReady, 0),
    );
  });

  test('is refused by who does not wait: asleep, in a call, ready', () => {
    const { a, b } = boot();
    const send = (to: number): object => rig.call(b.row, 'ipcSend', to, ...NOTHING);
    const refused = said(Status.notReady, 0);
    expect(send(a.id)).toMatchObject(refused);
    const child = rig.child(a.row, [1, 5]);
    expect(rig.calls(child.row, 'sleep', 0, -1, 0, 0)).toBe(false);
    expect(send(child.id)).toMatchObject(refused);
    expect(rings(a, child.id)).toBe(false);
    expect(send(a.id)).toMatchObject(refused);
    expect(send(b.id)).toMatchObject(said(Status.badEnvironment, 0));
  });

  test('brings a page or does not arrive', () => {
    const { a, b } = boot();
    rig.must(a.row, 'ipcWindow', a.leaf, 400, 0);
    const page = rig.raw.free();
    rig.must(b.row, 'pageAllocate', page, 0);
    rig.must(b.row, 'pageMap', b.leaf, 300, page, 0, 0, MAP_READ, 0);
    rig.must(b.row, 'pageLimit', page, 0, 1, 0);
    expect(waits(a)).toBe(false);
    const send = (): object =>
      rig.call(b.row, 'ipcSend', a.id, 1, 2, 3, 4, page, 0, READ | WRITE | (1 << 8));
    expect(send()).toMatchObject(said(Status.sharing, 7));
    rig.must(b.row, 'pageLimit', page, 0, 2, 0); // no writer
    expect(send()).toMatchObject(said(Status.sharing, 7));
    expect([isReady(a), rig.raw.access(page, 1).rights]).toEqual([false, 0]);
    rig.must(b.row, 'pageLimit', page, 0, 2, 1);
    expect(send()).toMatchObject(said(Status.ok, 0));
    rig.settle(a.row);
    expect(rig.answer(a.row).message).toEqual([1, 2, 3, 4, 401]);
    expect(rig.access(a.row, 400 * PAGE_BYTES, 5)).toBe(0);
  });

  test('wakes the patron of who gets it: nothing else runs that when the slice is over', () => {
    const { a, b } = boot();
    const child = rig.child(a.row, [1, 5]);
    expect(waits(child)).toBe(false);
    expect(rig.calls(a.row, 'sleep', rig.raw.env(a.row, Env.events), -1, 0, 0)).toBe(false);
    rig.must(b.row, 'ipcSend', child.id, ...NOTHING);
    expect(isReady(a)).toBe(true);
  });
});

describe('the queue of callers', () => {
  /** Callers in some order, some of whom die, some of whom are heard, in some order. */
  const action = fc.record({ what: fc.constantFrom('call', 'kill', 'hear'), who: fc.nat(7) });
  test('is in order of arrival, whoever dies in it', () => {
    let [heard, killed] = [0, 0];
    fc.assert(
      fc.property(fc.array(action, { minLength: 12, maxLength: 24, size: 'max' }), (actions) => {
        boot({ exokernel: { environments: 20 }, quota: 40, machine: { pages: 128 } });
        const { a, b } = rig;
        const callers = Array.from({ length: 6 }, () => rig.child(b.row, [2, 5]));
        const free = new Set(callers);
        const queue: Home[] = [];
        for (const { what, who } of actions) {
          if (what === 'call') {
            const caller = [...free][who % Math.max(1, free.size)];
            if (caller === undefined) continue;
            free.delete(caller);
            queue.push(caller);
            expect(rings(caller, a.id, caller.row)).toBe(false);
          } else if (what === 'kill') {
            const [victim] = queue.splice(who % Math.max(1, queue.length), 1);
            if (victim === undefined) continue;
            rig.must(b.row, 'envDestroy', victim.id, 0, 0);
            // Nothing of it is left behind: the row can go at once.
            rig.must(b.row, 'envReap', victim.id, 0);
            killed++;
          } else if (queue.length > 0) {
            const first = queue.shift();
            expect(waits(a)).toBe(true);
            expect(rig.answer(a.row)).toMatchObject({ value: first?.id });
            heard++;
          }
          expect(audit(rig.raw)).toEqual([]);
        }
      }),
      { numRuns: 20 },
    );
    expect(heard).toBeGreaterThan(25);
    expect(killed).toBeGreaterThan(25);
  });

  test('of a dead callee sets its members free, and its row begins anew', () => {
    const { a, b } = boot();
    const server = rig.child(a.row, [1, 5]);
    const callers = [1, 2, 3].map(() => rig.child(b.row, [2, 5]));
    for (const caller of callers) expect(rings(caller, server.id)).toBe(false);
    rig.must(a.row, 'envDestroy', server.id, 0, 0);
    rig.must(a.row, 'envReap', server.id, 0);
    const heir = rig.child(a.row, [1, 5]);
    expect(heir.row).toBe(server.row);
    const [x, y, z] = callers as [Home, Home, Home];
    // The heir has a queue of its own; who stood in the old one leaves it in any order.
    expect(rings(b, heir.id, 77)).toBe(false);
    rig.must(a.row, 'yield', y.id);
    rig.settle(y.row);
    expect(rig.answer(y.row)).toMatchObject(said(Status.badEnvironment, 0));
    expect(rings(y, heir.id, 78)).toBe(false);
    rig.must(a.row, 'yield', x.id);
    rig.settle(x.row);
    expect(rig.answer(x.row)).toMatchObject(said(Status.badEnvironment, 0));
    expect(waits(heir)).toBe(true);
    expect(rig.answer(heir.row)).toMatchObject({ value: b.id });
    expect(waits(heir)).toBe(true);
    expect(rig.answer(heir.row)).toMatchObject({ value: y.id });
    expect(done(z)).toBe(false);
    expect(rig.raw.secret(heir.row, Private.queueHead)).toBe(0);
  });
});

describe('suspended', () => {
  const suspend = (by: Home, who: Home, how: 0 | 1): number =>
    rig.must(by.row, 'envSuspend', who.id, 0, how);
  /** Exits of the kernel to `who` in the next `cycles`. */
  function runs(who: Home, cycles = 200_000): number {
    let count = 0;
    rig.onExit = () => {
      if (rig.raw.cpu(Cpu.current) === who.row) count++;
    };
    rig.run(cycles);
    rig.onExit = () => undefined;
    return count;
  }

  test('it does not run: by its slices, by a yield, by a call, by itself', () => {
    const { a } = boot();
    const child = rig.child(a.row, [1, 5]);
    rig.must(a.row, 'sliceFree', 2, 0);
    rig.must(a.row, 'sliceAllocate', 2, child.id, 0);
    expect(runs(child)).toBeGreaterThan(0);
    suspend(a, child, 1);
    expect(runs(child)).toBe(0);
    expect(rig.call(a.row, 'yield', child.id)).toMatchObject(said(Status.notReady, 0));
    expect(rings(a, child.id)).toBe(false); // it is queued: its slices run nobody
    expect(runs(child)).toBe(0);
    const { b } = rig;
    expect(rig.call(b.row, 'envSuspend', child.id, 0, 0)).toMatchObject({
      status: Status.notPermitted,
    });
  });

  test('it hears, and goes on when it is resumed', () => {
    const { a, b } = boot();
    const child = rig.child(a.row, [1, 5]);
    expect(waits(child)).toBe(false);
    suspend(a, child, 1);
    rig.must(a.row, 'notify', child.id, 0);
    expect(rig.raw.env(child.row, Env.events)).toBe(1);
    rig.must(b.row, 'ipcSend', child.id, 5, 0, 0, 0, -1, 0, 0); // and B goes on at once
    expect(isReady(child)).toBe(true);
    expect(runs(child)).toBe(0);
    suspend(a, child, 0);
    rig.settle(child.row);
    expect(rig.answer(child.row)).toMatchObject({ value: b.id, message: [5, 0, 0, 0, 0] });
  });

  test('by its own call it stops there', () => {
    const { a, b } = boot();
    const child = rig.child(a.row, [1, 5]);
    expect(rig.begin(child.row, (port) => port.call(Call.envSuspend, child.id, 0, 1))).toBe(false);
    expect(isReady(child)).toBe(true);
    expect(runs(child)).toBe(0);
    expect(rig.call(b.row, 'yield', child.id)).toMatchObject(said(Status.notReady, 0));
    suspend(a, child, 0);
    expect(rig.settle(child.row)).toBe(true);
  });

  test('a sleeper does not wake by time, and its deadline does not wake the machine', () => {
    const { a, b } = boot();
    const child = rig.child(a.row, [1, 5]);
    rig.must(a.row, 'sliceFree', 2, 0);
    rig.must(a.row, 'sliceAllocate', 2, child.id, 0);
    expect(rig.calls(child.row, 'sleep', 0, 50_000, 0, 0)).toBe(false);
    suspend(a, child, 1);
    for (const home of [a, b]) {
      expect(rig.calls(home.row, 'sleep', rig.raw.env(home.row, Env.events), 400_000, 0, 0)).toBe(
        false,
      );
    }
    rig.run(200_000);
    expect(rig.raw.stateOf(child.row)).toBe(EnvState.sleeping);
    rig.run(400_000);
    expect([done(a), done(b), done(child)]).toEqual([true, true, false]);
    suspend(a, child, 0);
    rig.settle(child.row);
    rig.run(50_000);
    expect(rig.answer(child.row).message[0]).toBe(Woken.deadline);
  });
});

describe('an upcall of revocation', () => {
  const ROOT = 3; // the third tenant: REVOKE over everybody
  const REVOKED = 1; // account of A
  const kinds = { tenants: 3, quota: 12, tenant: (n: number) => (n === 2 ? { name: [] } : {}) };
  /** ROOT asks A's account for a page of `page`, until it is withdrawn. */
  const ask = (page: number): number =>
    rig.must(ROOT, 'revoke', REVOKED, 0, 3, page, 1, 1, 1_000_000);
  const withdraw = (page: number): number =>
    rig.must(ROOT, 'revoke', REVOKED, 0, 3, page, 1, 0, 1_000_000);
  const owned = ({ row }: Home): number => {
    const page = rig.raw.free();
    rig.must(row, 'pageAllocate', page, 0);
    return page;
  };
  const told = ({ id }: Home): number => rig.lane(id).revokes.length;

  test('comes when the environment runs next, with what is wanted and for how long', () => {
    const { a } = boot(kinds);
    rig.catchesRevocation(a.row);
    const page = owned(a);
    ask(page);
    expect(told(a)).toBe(0);
    rig.run(100_000);
    const [[wanted, cycles]] = rig.lane(a.id).revokes as [[number, number]];
    expect(wanted).toBe(1);
    expect(cycles).toBeGreaterThan(1_000_000 - 150_000);
    expect(cycles).toBeLessThan(1_000_000);
    expect(rig.raw.secret(a.row, Private.pending)).toBe(0);
  });

  test('ends a wait for a call or an event, not one for a reply', () => {
    const { a, b } = boot(kinds);
    rig.catchesRevocation(a.row);
    const page = owned(a);
    expect(waits(a)).toBe(false);
    ask(page);
    rig.settle(a.row);
    expect(rig.answer(a.row)).toMatchObject(said(Status.interrupted, 0));
    expect(told(a)).toBe(1);
    withdraw(page);

    expect(rig.calls(a.row, 'sleep', rig.raw.env(a.row, Env.events), -1, 0, 0)).toBe(false);
    ask(page);
    rig.settle(a.row);
    expect(rig.answer(a.row).message[0]).toBe(Woken.event);
    expect(told(a)).toBe(2);
    withdraw(page);

    expect(waits(b)).toBe(false);
    expect(rings(a, b.id)).toBe(false);
    ask(page);
    rig.run(100_000);
    expect([done(a), told(a)]).toEqual([false, 2]);
    rig.settle(b.row);
    expect(rig.calls(b.row, 'ipcReplyWait', a.id, ...NOTHING)).toBe(false);
    rig.settle(a.row);
    expect([rig.answer(a.row).status, told(a)]).toEqual([Status.ok, 3]);
  });

  test('without a handler a wait for a call goes on, and the table says what is wanted', () => {
    const { a, b } = boot(kinds);
    const page = owned(a);
    expect(waits(a)).toBe(false);
    ask(page);
    rig.run(100_000);
    expect(rig.raw.stateOf(a.row)).toBe(EnvState.receiving);
    rig.must(b.row, 'ipcSend', a.id, ...NOTHING);
    rig.settle(a.row);
    // Who registers later is not told of what is past.
    rig.catchesRevocation(a.row);
    rig.run(100_000);
    expect(told(a)).toBe(0);
  });

  test('is told after the one before it, and not lost to a wait', () => {
    const { a } = boot(kinds);
    rig.catchesRevocation(a.row);
    const page = owned(a);
    rig.must(ROOT, 'capForge', a.id, 5, 0, 0, 0, REVOKE);
    const asks = [Call.revoke, REVOKED, 5, 3, page, 1] as const;
    rig.lane(a.id).onRevoke = function* (port): Op<void> {
      if (told(a) > 1) return;
      // It is asked again, here by itself, while its mask stands.
      yield* port.call(...asks, 0, 1_000_000);
      yield* port.call(...asks, 1, 1_000_000);
    };
    const waited = rig.does(a.row, function* (port): Op<number[]> {
      yield* port.call(...asks, 1, 1_000_000);
      const before = told(a);
      const { status } = yield* port.call(Call.ipcReplyWait, -1, ...NOTHING);
      return [before, status, told(a)];
    });
    expect(waited).toEqual([1, Status.interrupted, 2]);
    expect(waits(a)).toBe(false); // the next wait is one
  });

  test('of which nobody could take word ends the environment, and nobody else', () => {
    for (const [mask, name] of [
      [REVOKE_MASK, Upcall.revoke],
      [300 * PAGE_BYTES, Upcall.revoke],
    ] as const) {
      const { a, b } = boot(kinds);
      const page = owned(a);
      rig.must(a.row, 'upcallSet', name, Entry.revoke, mask);
      const child = rig.child(a.row, [1, 5]);
      expect(rings(b, child.id)).toBe(false);
      if (mask === REVOKE_MASK) rig.must(a.row, 'pageUnmap', a.leaf, Start.stackPage, 1, 0);
      ask(page);
      rig.run(100_000);
      expect(rig.raw.stateOf(a.row)).toBe(EnvState.zombie);
      expect([b, child].map(({ row }) => rig.raw.stateOf(row))).toEqual([
        EnvState.calling,
        EnvState.ready,
      ]);
    }
  });

  test('one kind beside the other: both are told', () => {
    const { a } = boot(kinds);
    rig.catchesRevocation(a.row);
    const [page, other] = [owned(a), owned(a)];
    rig.must(ROOT, 'envSuspend', a.id, 0, 1);
    rig.must(ROOT, 'revoke', REVOKED, 0, 3, page, 1, 1, 10_000);
    rig.run(50_000);
    rig.must(ROOT, 'repossess', REVOKED, 0, page);
    rig.must(ROOT, 'revoke', REVOKED, 0, 3, other, 1, 1, 1_000_000);
    expect([told(a), rig.lane(a.id).losses]).toEqual([0, []]);
    rig.must(ROOT, 'envSuspend', a.id, 0, 0);
    rig.run(100_000);
    // What was asked for meanwhile is told once: the table has the rest.
    expect([told(a), rig.lane(a.id).losses]).toEqual([1, [1]]);
  });
});

describe('slice positions', () => {
  const used = (account: number): number => rig.raw.used(account, Resource.slices);
  const position = (n: number): number =>
    n | (tagOf(rig.raw.info(Info.sliceGeneration + n), TAG_BITS) << SLICE_BITS);

  test('are charged, and a dead holder keeps its account charged until somebody takes over', () => {
    const { a, b } = boot();
    expect([used(1), used(2)]).toEqual([2, 2]);
    const child = rig.child(a.row, [1, 5]);
    const full = rig.call(a.row, 'sliceAllocate', 1, child.id, 0);
    expect(full).toMatchObject(said(Status.notFree, 0));
    rig.must(a.row, 'sliceFree', 2, 0);
    expect(used(1)).toBe(1);
    const poor = rig.call(b.row, 'sliceAllocate', 2, b.id, 0);
    expect(poor).toMatchObject(said(Status.quota, 1));
    rig.must(a.row, 'sliceAllocate', 2, child.id, 0);
    rig.must(a.row, 'envDestroy', child.id, 0, 0);
    expect(used(1)).toBe(2);
    // At its limit, and yet: it takes over what it pays for already.
    rig.must(a.row, 'sliceAllocate', 2, a.id, 0);
    expect(used(1)).toBe(2);
  });

  test("a dead holder's position anybody may free, who dominates it or not", () => {
    const { a, b } = boot();
    const child = rig.child(a.row, [1, 5]);
    rig.must(a.row, 'sliceFree', 2, 0);
    rig.must(a.row, 'sliceAllocate', 2, child.id, 0);
    const alive = rig.call(b.row, 'sliceFree', 2, 0);
    expect(alive).toMatchObject(said(Status.notPermitted, 1));
    rig.must(a.row, 'envDestroy', child.id, 0, 0);
    rig.must(b.row, 'sliceFree', 2, 0);
    expect([used(1), rig.raw.info(Info.sliceVector + 2)]).toEqual([1, 0]);
    expect(rig.call(b.row, 'sliceFree', 2, 0)).toMatchObject(said(Status.absent, 0));
  });

  test('are known by a name that ends with the tenure', () => {
    const { a } = boot();
    const old = position(2);
    rig.must(a.row, 'sliceFree', old, 0);
    expect(rig.call(a.row, 'sliceFree', old, 0)).toMatchObject(said(Status.badArgument, 0));
    const free = position(2);
    rig.must(a.row, 'sliceAllocate', free, a.id, 0);
    expect(rig.call(a.row, 'sliceFree', free, 0)).toMatchObject(said(Status.badArgument, 0));
    rig.must(a.row, 'sliceFree', position(2), 0);
    expect(rig.raw.info(Info.sliceVector + 2)).toBe(0);
  });
});

test('grace that is given back is not excess of who gave it away', () => {
  const { a, b } = boot();
  // A, told that B's slice ends, returns it at once; B waits for the last of the grace, and lets A
  // have that. It would be A's excess each time, and in the end its death.
  rig.catchesSlices(a.row);
  rig.must(a.row, 'sliceFree', 2, 0);
  rig.must(a.row, 'sliceFree', 0, 0);
  let [given, most] = [0, 0];
  rig.onExit = () => {
    most = Math.max(most, rig.raw.env(a.row, Env.excess));
  };
  const lane = rig.lane(a.id);
  rig.hand(b.row, function* (port): Op<void> {
    for (;;) {
      const before = lane.ends;
      const { status } = yield* port.call(Call.yield, a.id);
      if (status !== Status.ok || lane.ends === before) continue;
      port.work(GRACE - 1_300) ?? (yield* port.fault());
      given++;
    }
  });
  rig.run(1_000_000);
  expect(given).toBeGreaterThan(20);
  expect(most).toBe(0);
  expect(isReady(a)).toBe(true);
});
