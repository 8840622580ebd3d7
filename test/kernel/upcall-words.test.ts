/**
 * The words that the kernel writes and reads in an environment's memory when it tells it of
 * something: where one of them cannot be written, that is the environment's end; where one says
 * that an upcall is outstanding, others are as if it were alone.
 */
import { afterEach, describe, expect, test } from 'vitest';
import {
  Call,
  Env,
  EnvState,
  MAP_READ,
  MAP_WRITE,
  REVOKE,
  Status,
  Upcall,
  Woken,
} from '../../kernel/abi.ts';
import { Private } from '../../kernel/exokernel/state.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Op } from '../../machine/user-port.ts';
import {
  BEGIN_MASK,
  Entry,
  type Home,
  LOSS_MASK,
  REVOKE_MASK,
  Rig,
  type RigConfig,
} from './harness.ts';
import { audit } from './invariants.ts';

const RW = MAP_READ | MAP_WRITE;
let rig: Rig;
const boot = (config: RigConfig = {}): Rig => (rig = new Rig(config));
afterEach(() => {
  expect(audit(rig.raw, undefined, true)).toEqual([]);
});

const mapped = (home: Home, index: number, flags: number): number => {
  const page = rig.raw.free();
  rig.must(home.row, 'pageAllocate', page, 0);
  rig.must(home.row, 'pageMap', home.leaf, index, page, 0, 0, flags, 0);
  return page;
};

describe('a fault whose frame lies across two pages', () => {
  // The count in the last word of page 300, the frames from the beginning of page 301 on.
  const COUNT = 301 * PAGE_BYTES - 4;
  const faults = (first: number, second: number): Home => {
    const { a } = boot();
    mapped(a, 300, first);
    mapped(a, 301, second);
    rig.must(a.row, 'upcallSet', Upcall.fault, Entry.fault, COUNT);
    // The handler of the rig looks for the count in its own place: here it does nothing.
    rig.lane(a.id).onFault = function* (port): Op<void> {
      yield* port.call(Call.null);
    };
    rig.begin(a.row, function* (port) {
      return port.load32(400 * PAGE_BYTES) ?? (yield* port.fault());
    });
    return a;
  };

  test.each([
    ['the count cannot be written', MAP_READ, RW],
    ['the frame cannot be written', RW, MAP_READ],
  ])('%s: the environment ends, and its handler has not run', (_, first, second) => {
    const { row, id } = faults(first, second);
    expect(rig.raw.stateOf(row)).toBe(EnvState.zombie);
    expect(rig.lane(id).faults).toEqual([]);
    expect(rig.console.get(0)).toContain('no handler');
  });
});

describe('upcalls of revocation, while one is outstanding', () => {
  const REVOKED = 1; // account of A
  const kinds = { tenants: 3, quota: 12, tenant: (n: number) => (n === 2 ? { name: [] } : {}) };
  const ROOT = 3;

  /** A, asked for a page with its revoke mask standing, so that word of it stays pending. */
  function pending(): Home {
    const { a } = boot(kinds);
    rig.catchesRevocation(a.row);
    const page = rig.raw.free();
    rig.must(a.row, 'pageAllocate', page, 0);
    rig.must(ROOT, 'capForge', a.id, 5, 0, 0, 0, REVOKE);
    rig.does(a.row, function* (port) {
      port.store32(REVOKE_MASK, 1) ?? (yield* port.fault());
    });
    rig.must(ROOT, 'revoke', REVOKED, 0, ROOT, page, 1, 1, 1_000_000);
    rig.run(100_000);
    expect(rig.raw.secret(a.row, Private.pending)).toBe(1 << Upcall.revoke);
    return a;
  }
  const sleeps = ({ row }: Home): boolean =>
    rig.calls(row, 'sleep', rig.raw.env(row, Env.events), -1, 0, 0);

  test('the other kind, whose mask is clear, does not end a wait', () => {
    const a = pending();
    expect(rig.raw.word(a.stack, (LOSS_MASK % PAGE_BYTES) / 4)).toBe(0);
    expect(sleeps(a)).toBe(false);
  });

  test('a kind that is not registered any more does not, whatever its word says', () => {
    const a = pending();
    rig.must(a.row, 'upcallSet', Upcall.revoke, -1, BEGIN_MASK);
    expect(sleeps(a)).toBe(false);
  });

  test('it is told when its mask is clear: a wait ends at once', () => {
    const a = pending();
    const [status, why, told] = rig.does(a.row, function* (port): Op<number[]> {
      port.store32(REVOKE_MASK, 0) ?? (yield* port.fault());
      const answer = yield* port.call(Call.sleep, rig.raw.env(a.row, Env.events), -1, 0, 0);
      return [answer.status, port.result(1), rig.lane(a.id).revokes.length];
    });
    expect([status, why, told]).toEqual([Status.ok, Woken.event, 1]);
  });
});

test('slice upcalls that find one of their kind outstanding are counted', () => {
  const { a } = boot({ tenants: 1, exokernel: { slices: 2 } });
  rig.must(a.row, 'upcallSet', Upcall.sliceBegin, Entry.begin, BEGIN_MASK);
  rig.does(a.row, function* (port) {
    port.store32(BEGIN_MASK, 1) ?? (yield* port.fault());
  });
  const before = rig.raw.secret(a.row, Private.coalesced);
  const begins = rig.lane(a.id).begins;
  rig.run(100_000);
  const more = rig.raw.secret(a.row, Private.coalesced) - before;
  expect(more).toBeGreaterThanOrEqual(8);
  expect(more).toBeLessThanOrEqual(10);
  expect(rig.lane(a.id).begins).toBe(begins);
});
