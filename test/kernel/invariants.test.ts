/**
 * Random programs of two tenants and their children, and every invariant after every kernel exit.
 * The harness adds that a refused call changes nothing. Witness counters show that the premises
 * were reached: a property that checks nothing is green for ever.
 */
import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  Account,
  Call,
  type CallName,
  Env,
  envIndex,
  EnvState,
  packName,
  Resource,
  Status,
} from '../../kernel/abi.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Op, UserPort } from '../../machine/user-port.ts';
import { CALLS, type Outcome, Rig, SCRATCH, type Seen, statusName } from './harness.ts';
import { LONG } from '../tiers.ts';
import { audit, books, noWitness } from '../../check/invariants/index.ts';
import { bind, listFor, PICKS, PLACES, type Step, WINDOW } from './operands.ts';

const PROGRAMS = LONG ? 400 : 150;
const STEPS = 100;
/** Calls that find words at an address. */
const LISTS: readonly CallName[] = ['diskRequest', 'pageMapList', 'sleep'];
const TAIL = 12; // calls told of a breach
const SHRINKS = 300; // executions

/** How often a call is drawn: what builds state more often than what takes a program out. */
const WEIGHTS: Partial<Record<CallName, number>> = {
  pageAllocate: 5,
  pageMap: 8,
  pageUnmap: 3,
  pageProtect: 3,
  accessAdd: 4,
  accessRemove: 2,
  tableCreate: 6,
  tableDestroy: 2,
  envCreate: 3,
  envStart: 3,
  capForge: 2,
  ipcWindow: 3,
  ipcCall: 5,
  ipcReplyWait: 5,
  ipcSend: 3,
  diskRequest: 3,
  accountCreate: 2,
  accountMove: 5,
  revoke: 4,
  repossess: 5,
  pageSweep: 2,
  sliceFree: 2,
  sliceAllocate: 5,
};
const step: fc.Arbitrary<Step> = fc.record({
  actor: fc.nat(15),
  call: fc.oneof(
    ...CALLS.map((name) => ({ arbitrary: fc.constant(name), weight: WEIGHTS[name] ?? 1 })),
  ),
  spoil: fc.oneof({ arbitrary: fc.constant(99), weight: 3 }, { arbitrary: fc.nat(7), weight: 1 }),
  touch: fc.nat(4 * PLACES),
  picks: fc.array(fc.nat(0xffff), { minLength: PICKS, maxLength: PICKS }),
});
const program = fc.array(step, { minLength: STEPS, maxLength: STEPS, size: 'max' });

const witness = noWitness();
const statuses = new Map<number, number>();
const done = {
  exits: 0,
  calls: 0,
  grants: 0,
  touches: 0,
  programs: 0,
  accepted: new Map<string, number>(),
};

function count<K>(map: Map<K, number>, key: K): void {
  map.set(key, (map.get(key) ?? 0) + 1);
}

/**
 * An account under a tenant's, with an environment that uses it, so that something can be asked.
 */
function openWard(rig: Rig, row: number): void {
  const ward = 20 + row;
  const { a, b } = packName([row, 17]);
  rig.must(row, 'accountCreate', ward, row, 0, a, b, 1);
  rig.must(row, 'accountMove', row, ward, 0, Resource.environments, 1);
  rig.must(row, 'accountMove', row, ward, 0, Resource.pages, 4);
  const child = rig.child(row, [row, 17], { account: ward });
  for (let n = 0; n < 3; n++) rig.must(child.row, 'pageAllocate', rig.raw.free(), 0);
}

/** Runs a program; a breach says what was called before it. */
function run(steps: readonly Step[]): void {
  const made: string[] = [];
  const rig = new Rig({
    exokernel: { environments: 9 },
    machine: { pages: 80, tlbSets: 8, tlbWays: 2 },
    quota: 16,
  });
  const { raw } = rig;
  let strange = false;
  const tenantOf = (id: number): number =>
    raw.account(raw.env(envIndex(id), Env.account), Account.tenant);
  rig.onExit = (seen: Seen | null): void => {
    done.exits++;
    const wrong = [...audit(raw, witness, strange), ...books(raw)];
    if (wrong.length > 0) throw new Error([...wrong, ...made.slice(-TAIL)].join('\n'));
    if (seen === null) return;
    if (seen.status !== null) count(statuses, seen.status);
    const { status } = seen;
    if (status !== null && status !== Status.ok && status !== Status.again) return;
    const name = CALLS.find((call) => Call[call] === seen.number) ?? '';
    count(done.accepted, name);
    // From now on somebody may hold what another tenant has offered.
    if (name === 'capOffer') strange ||= tenantOf(seen.args[0] ?? 0) !== tenantOf(seen.caller);
    const grants = name === 'ipcCall' || name === 'ipcReplyWait' || name === 'ipcSend';
    if (grants && seen.args[5] !== -1) done.grants++;
  };
  for (const { row } of rig.tenants) {
    rig.catches(row);
    openWard(rig, row);
  }
  for (const step of steps) {
    const rows = Array.from({ length: raw.rows - 1 }, (_, n) => n + 1);
    const runs = (row: number): boolean =>
      raw.stateOf(row) === EnvState.ready && raw.env(row, Env.suspended) === 0;
    const ready = rows.filter(runs);
    const idle = ready.filter((row) => rig.lane(raw.id(row)).done || rig.settle(row));
    const row = idle[step.actor % idle.length];
    if (row === undefined) break;
    if (row <= 2 && step.touch < 2 * PLACES) {
      const va = (WINDOW + (step.touch >>> 1)) * PAGE_BYTES;
      const got = rig.access(row, va, (step.touch & 1) === 0 ? null : step.touch);
      if (typeof got === 'number') done.touches++;
      if (!runs(row)) continue;
    }
    const args = bind(raw, row, step);
    const number = Call[step.call];
    const list = LISTS.includes(step.call) && row <= 2 ? listFor(raw, row, step) : [];
    done.calls++;
    made.push(`${row}: ${step.call}(${args.join(', ')})`);
    const request = function* (port: UserPort): Op<Outcome> {
      for (const [n, word] of list.entries()) {
        port.store32(SCRATCH + n * 4, word) ?? (yield* port.fault());
      }
      return { ...(yield* port.call(number, ...args)), message: [] };
    };
    try {
      rig.begin(row, request);
    } catch (error) {
      throw new Error([String(error), ...made.slice(-TAIL)].join('\n'), { cause: error });
    }
  }
  done.programs++;
}

test(`the invariants hold after every kernel exit of ${PROGRAMS} programs`, () => {
  const details = fc.check(fc.property(program, run), {
    numRuns: PROGRAMS,
    endOnFailure: true,
  });
  const found = details.counterexample?.[0];
  if (found !== undefined && found !== null) {
    const { steps, why } = shrink(found);
    throw new Error(`seed ${details.seed}, ${steps.length} steps left\n${why}`);
  }
  const told = [...statuses].map(([status, n]) => `${statusName(status)} ${n}`).join(', ');
  console.log(JSON.stringify({ ...done, accepted: Object.fromEntries(done.accepted), ...witness }));
  console.log(told);
  expect(done.programs).toBe(PROGRAMS);
  expect(done.calls).toBeGreaterThanOrEqual((done.programs * STEPS) / 2);
  const unseen = Object.entries(witness).flatMap(([name, n]) => (n > 0 ? [] : [name]));
  expect(unseen, 'premises never reached').toEqual([]);
  expect(done.grants).toBeGreaterThan(0);
  expect(done.touches).toBeGreaterThan(0);
  // More mappings of one page than a call takes away: revocation.test.ts has them.
  const never = CALLS.filter((name) => !done.accepted.has(name) && name !== 'pageSweep');
  expect(never, 'calls never accepted').toEqual([]);
  // A full disk queue takes 64 requests at once, and a call number that is none a wilder program.
  const silent = Object.entries(Status).flatMap(([name, n]) => (statuses.has(n) ? [] : [name]));
  const rare = ['badCall', 'full', 'interrupted'];
  expect(silent.filter((name) => !rare.includes(name))).toEqual([]);
}, 120_000);

/** Takes out halves, quarters and at last single steps, as long as the program still fails. */
function shrink(program: readonly Step[]): { steps: readonly Step[]; why: string } {
  const failure = (steps: readonly Step[]): string => {
    try {
      run(steps);
      return '';
    } catch (error) {
      return error instanceof Error ? (error.stack ?? error.message) : String(error);
    }
  };
  let steps = program;
  let why = failure(steps);
  let left = SHRINKS;
  for (let size = steps.length >> 1; size > 0; size >>= 1) {
    for (let at = 0; at < steps.length && left > 0; left--) {
      const fewer = [...steps.slice(0, at), ...steps.slice(at + size)];
      const still = failure(fewer);
      if (still === '') at += size;
      else [steps, why] = [fewer, still];
    }
  }
  return { steps, why };
}
