/**
 * The kernel in lock step with its specification: the short form of `npm run lockstep`. And that it
 * bites: a kernel that tampers with any of its tables is found out, and the program made short.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { auditAll } from '../../check/invariants/index.ts';
import { CALL_NAMES } from '../../check/lockstep/follower.ts';
import { dice, PRELUDE, randomProgram, randomStep } from '../../check/lockstep/generator.ts';
import { EXCEPTIONS, refusalsOf, successes, unreached } from '../../check/lockstep/coverage.ts';
import {
  Lockstep,
  type LockstepOptions,
  type MakeKernel,
  Tally,
} from '../../check/lockstep/lockstep.ts';
import { parse, print, type Step } from '../../check/lockstep/program.ts';
import { shrink } from '../../check/lockstep/shrink.ts';
import { Account, Env, Extent, Info, Queued } from '../../kernel/abi.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { Cpu, PageRecord, Private, type State } from '../../kernel/exokernel/state.ts';
import type { Table, Tenant, Trap } from '../../kernel/supervisor.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { ExokernelConfig } from '../../kernel/exokernel/state.ts';

const PROGRAMS = 16;
const STEPS_EACH = 160;

/** What a program fails with, null if it does not. */
function failure(steps: readonly Step[], options: LockstepOptions = {}): string | null {
  try {
    new Lockstep(steps, { audit: (raw) => auditAll(raw, true), ...options }).run();
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

test(`${PROGRAMS} random programs: no difference, and no breach of an invariant`, () => {
  const tally = new Tally();
  const programs = fc.array(fc.nat(), {
    minLength: STEPS_EACH,
    maxLength: STEPS_EACH,
    size: 'max',
  });
  const details = fc.check(
    fc.property(programs, (seeds) => {
      const steps = [...parse(PRELUDE), ...seeds.map((seed) => randomStep(dice(seed)))];
      const why = failure(steps, { tally });
      if (why === null) return;
      const short = shrink(steps, (fewer) => failure(fewer) !== null);
      throw new Error(`${print(short)}\n${failure(short) ?? why}`);
    }),
    { numRuns: PROGRAMS, endOnFailure: true },
  );
  if (details.failed) throw new Error(fc.defaultReportMessage(details) ?? 'failed');
  // A generator that never succeeds finds nothing.
  expect(tally.calls).toBeGreaterThan(PROGRAMS * 100);
  const never = CALL_NAMES.filter((name) => successes(tally, name) === 0);
  expect(never.length, never.join(', ')).toBeLessThan(CALL_NAMES.length / 4);
});

const PROGRAM_FILES = fileURLToPath(new URL('programs', import.meta.url));
test.each(readdirSync(PROGRAM_FILES))('%s: a program that is kept', (file) => {
  expect(failure(parse(readFileSync(`${PROGRAM_FILES}/${file}`, 'utf8')))).toBeNull();
});

// ---- it bites -----------------------------------------------------------------------------------

/** A kernel that does something to its tables after each trap. */
class Tampering extends Exokernel {
  readonly #tamper: (state: State, traps: number) => void;
  #traps = 0;
  constructor(
    config: ExokernelConfig,
    tenants: readonly Tenant[],
    tamper: (state: State, traps: number) => void,
  ) {
    super(config, tenants);
    this.#tamper = tamper;
  }
  override trap(trap: Trap): void {
    super.trap(trap);
    this.#tamper(this.state, this.#traps++);
  }
}
const tampering =
  (tamper: (state: State, traps: number) => void): MakeKernel =>
  (config, tenants) =>
    new Tampering(config, tenants, tamper);

type Cell = (state: State) => readonly [table: Table, row: number, column: number];
const PAGE = 60; // a free one
/** A word of each kind that the abstraction is to look at. */
const CELLS: Readonly<Record<string, Cell>> = {
  'the kind of a page': ({ pageWord }) => [pageWord, PAGE, 0],
  'the generation of a page': ({ page }) => [page, PAGE, PageRecord.generation],
  'the state of a row': ({ env }) => [env, 9, Env.state],
  'an event count': ({ env }) => [env, 3, Env.events],
  'a patron': ({ env }) => [env, 1, Env.patron],
  'requests that are complete': ({ env }) => [env, 1, Env.diskDone],
  'an excess': ({ env }) => [env, 2, Env.excess],
  'who pays for an environment': ({ env }) => [env, 1, Env.account],
  'the name of an environment': ({ env }) => [env, 1, Env.nameA],
  'a suspension': ({ env }) => [env, 3, Env.suspended],
  'an exit status': ({ env }) => [env, 3, Env.exitStatus],
  'a capability': ({ secret }) => [secret, 1, Private.caps + 2],
  'the name of a capability': ({ secret }) => [secret, 1, Private.caps],
  'a handler': ({ secret }) => [secret, 1, Private.upcallEntry],
  'the frame of a handler': ({ secret }) => [secret, 1, Private.upcallFrame],
  'what is pending': ({ secret }) => [secret, 2, Private.pending],
  'an offer': ({ secret }) => [secret, 2, Private.offerTo],
  'a limit': ({ account }) => [account, 1, Account.limit],
  'a minimum': ({ account }) => [account, 2, Account.minimum],
  'a holder': ({ account }) => [account, 1, Account.holder],
  'a deadline': ({ account }) => [account, 1, Account.deadline],
  losses: ({ account }) => [account, 2, Account.losses],
  'a place for a loss': ({ loss }) => [loss, 1, 64],
  'a holder of a position': ({ info }) => [info, 0, Info.sliceVector + 4],
  'the generation of a position': ({ info }) => [info, 0, Info.sliceGeneration + 1],
  'a debt': ({ info }) => [info, 0, Info.sliceDebt + 3],
  'the blocks of an extent': ({ extent }) => [extent, 1, Extent.count],
  'the generation of an extent': ({ extent }) => [extent, 5, Extent.generation],
  'a request': ({ queue }) => [queue, 5, Queued.env],
  'whose slice it is': ({ cpu }) => [cpu, 0, Cpu.owner],
  'the end of a slice': ({ cpu }) => [cpu, 0, Cpu.end],
};

describe('a kernel that tampers is found out', () => {
  const steps = [...parse(PRELUDE), ...parse('work 100\nwork 100\nnull')];
  test('and one that does not is not', () => {
    expect(failure(steps, { make: tampering(() => undefined) })).toBeNull();
  });
  test.each(Object.entries(CELLS))('%s', (_, cell) => {
    const make = tampering((state, traps) => {
      const [table, row, column] = cell(state);
      if (traps === 40) table.put(row, column, table.get(row, column) + 1);
    });
    expect(failure(steps, { make })).toMatch(/^(state|at the door|word|KM-03)/);
  });
  test('a word of a user page', () => {
    const make = tampering(({ machine, end }, traps) => {
      const stack = end + 5; // of the first tenant, who has the first pages
      if (traps === 40) machine.store(stack * PAGE_BYTES + 8, 1);
    });
    expect(failure(steps, { make })).toMatch(/^word 2 of page/);
  });
});

test('what finds it is made short, and can be replayed from its text', () => {
  // It forgets that a page is limited.
  const make = tampering(({ page, machine }) => {
    for (let n = 0; n < machine.pages; n++) {
      if (page.get(n, PageRecord.limits) !== 0) page.put(n, PageRecord.limits, 0);
    }
  });
  const fails = (steps: readonly Step[]): boolean => failure(steps, { make }) !== null;
  const found = Array.from({ length: 20 }, (_, n) => randomProgram(dice(n))).find(fails) ?? [];
  const short = shrink(found, fails);
  expect(short.length).toBeLessThan(5);
  expect(print(short)).toContain('pageLimit');
  expect(fails(parse(print(short)))).toBe(true);
  expect(failure(short)).toBeNull();
});

test('programs are read as they are written', () => {
  fc.assert(
    fc.property(fc.nat(), (seed) => {
      const steps = randomProgram(dice(seed), 20);
      expect(parse(print(steps))).toEqual(steps);
    }),
    { numRuns: 50 },
  );
});

test('a line that is no step is refused by its number', () => {
  expect(() => parse('null\npageMop 3')).toThrow('line 2: "pageMop 3" is neither a call nor');
});

test('the exceptions from what is to be reached are refusals of docs/ABI.md', () => {
  const rows = refusalsOf(readFileSync('docs/ABI.md', 'utf8'));
  expect(rows.length).toBeGreaterThan(350);
  const keys = [...rows.map(({ key }) => key), ...CALL_NAMES.map((name) => `${name} ok`)];
  for (const [key, why] of EXCEPTIONS) {
    expect(keys).toContain(key);
    expect(why.length).toBeGreaterThan(20);
  }
  // With nothing reached all but the exceptions are told.
  expect(unreached(new Tally(), rows)).toHaveLength(
    rows.length + CALL_NAMES.length - EXCEPTIONS.size,
  );
});
