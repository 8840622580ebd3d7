/**
 * Refusals: every call, every refusal in its order, every argument spoilt by boundary and wild
 * values and by names of the wrong kind. The harness holds each refused call to having changed
 * nothing; a Bug out of the kernel fails the test by itself.
 */
import { describe, expect, test } from 'vitest';
import { CALL_COUNT, type CallName, Status } from '../../kernel/abi.ts';
import { CALLS, Rig, statusName } from './harness.ts';
import { audit } from '../../check/invariants/index.ts';
import {
  type Domain,
  type Mistake,
  REFUSALS,
  type Table,
  World,
  WORLD_PAGES,
} from './refusals/index.ts';

/** The valid call with mistake `n` made on top of every later one. */
function wrongFrom(table: Table, n: number, world: World): number[] {
  const args = table.valid(world);
  for (let k = table.mistakes.length - 1; k >= n; k--) table.mistakes[k]?.spoil(args, world);
  return args;
}

const told = (status: number, value: number): string => `${statusName(status)} (${value})`;
const wanted = ({ status, argument }: Mistake): string => `${status} (${argument})`;

describe('each refusal, also wrong in every later way', () => {
  for (const name of CALLS) {
    const table = REFUSALS[name];
    test(name, () => {
      const world = new World();
      const { rig, a } = world;
      const got: string[] = [];
      const due: string[] = [];
      const tryRow = (mistake: Mistake, n: number): void => {
        mistake.prepare?.(world);
        const { status, value } = rig.call(a.row, name, ...wrongFrom(table, n, world));
        got.push(`${mistake.why}: ${told(status, value)}`);
        due.push(`${mistake.why}: ${wanted(mistake)}`);
      };
      table.mistakes.forEach((mistake, n) => {
        if (mistake.prepare === undefined) tryRow(mistake, n);
      });
      const answered = rig.calls(a.row, name, ...table.valid(world));
      if (table.waits !== true) {
        const { status, value } = rig.answer(a.row);
        expect(told(status, answered ? 0 : value), 'the valid call').toBe('ok (0)');
      } else expect(answered, 'the valid call waits').toBe(false);
      table.mistakes.forEach((mistake, n) => {
        if (mistake.prepare !== undefined) tryRow(mistake, n);
      });
      expect(got).toEqual(due);
      expect(audit(rig.raw, undefined, true)).toEqual([]);
    });
  }

  test('a number that is no call', () => {
    const rig = new Rig();
    for (const number of [
      CALL_COUNT,
      -1,
      1.5,
      NaN,
      Infinity,
      -Infinity,
      2 ** 31,
      2 ** 32,
      2 ** 53,
    ]) {
      expect(rig.call(rig.a.row, number)).toMatchObject({ status: Status.badCall, value: 0 });
    }
    rig.must(rig.a.row, 'null');
  });
});

/** A world that is made anew after a call that was not refused. */
class Trial {
  #world: World | null = null;
  get world(): World {
    this.#world ??= new World();
    return this.#world;
  }
  /** Status and value of a call; null if the caller waits. */
  call(name: CallName, args: readonly number[]): string {
    const { rig, a } = this.world;
    const answered = rig.calls(a.row, name, ...args);
    if (!answered) {
      this.#world = null;
      return 'waits';
    }
    const { status, value } = rig.answer(a.row);
    if (status === Status.ok) {
      this.#world = null;
      return 'ok';
    }
    return told(status, value);
  }
}

const WILD = [-1, 2 ** 31, 2 ** 32, 2 ** 53, NaN, 1.5, Infinity, -Infinity, -(2 ** 60)];

describe('wild values, one argument at a time', () => {
  for (const name of CALLS) {
    const table = REFUSALS[name];
    if (table.domains.length === 0) continue;
    test(name, () => {
      const trial = new Trial();
      const problems: string[] = [];
      table.domains.forEach((_, argument) => {
        for (const wild of WILD) {
          const args = table.valid(trial.world);
          args[argument] = wild;
          const got = trial.call(name, args);
          const accepted = got === 'ok' || got === 'waits';
          const may = table.accepts?.[argument]?.includes(wild) === true;
          const blames = blamed(name, argument).some((n) => got.endsWith(`(${n})`));
          if (accepted ? !may : may || !blames) problems.push(`${argument} = ${wild}: ${got}`);
        }
      });
      expect(problems).toEqual([]);
    });
  }
});

/** The argument that a refusal names for a wild one: itself, or the first word of a name. */
function blamed(name: CallName, argument: number): number[] {
  const second = {
    envCreate: 4,
    accessAdd: 4,
    capForge: 4,
    extentSplit: 5,
    capOffer: 3,
    accountCreate: 4,
  } as const;
  if (Object.entries(second).some(([call, n]) => call === name && n === argument)) {
    return [argument - 1];
  }
  // A page to grant, and -1 for whom to grant it to: the page is at fault.
  if (name === 'ipcReplyWait' && argument === 0) return [0, 5];
  return [argument];
}

describe('names of the wrong kind, one argument at a time', () => {
  const candidates = (domain: Domain, w: World): Readonly<Record<string, number>> => {
    switch (domain) {
      case 'page':
        return {
          root: w.a.root,
          middle: w.a.middle,
          leaf: w.leaf2,
          ledger: w.a.ledger0,
          kernel: w.kernel,
          published: w.published,
          free: w.free,
          foreign: w.b.stack,
          'foreign root': w.b.root,
          'foreign leaf': w.b.leaf,
          beyond: WORLD_PAGES,
        };
      case 'env':
        return {
          stale: w.stale,
          early: w.a.id - (1 << 14),
          nobody: 0,
          'free row': w.rig.raw.freeRow(),
          beyond: (1 << 14) | 16,
          foreign: w.b.id,
        };
      case 'slot':
        return { sixteen: 16, empty: 4 };
      case 'index':
        return { past: 512 };
      case 'entry':
        return { four: 4 };
      default:
        return {};
    }
  };
  /** What is taken although its kind is not the example's, and rightly. */
  const taken: Readonly<Record<string, readonly string[]>> = {
    'yield 0': ['foreign'],
    'pageAllocate 0': ['free'],
    'tableCreate 0': ['root', 'middle'],
    'tableDestroy 0': ['leaf'],
    'pageMap 0': ['leaf'],
    'pageMap 2': ['root', 'middle', 'leaf', 'published'],
    'pageUnmap 0': ['leaf'],
    'ipcWindow 0': ['leaf'],
    // One's own environment needs no capability: the slot is not looked at.
    'capForge 1': ['empty'],
    'tableCreate 6': ['empty'],
    'tableDestroy 1': ['empty'],
    'pageMap 6': ['empty'],
    'pageUnmap 3': ['empty'],
    'pageProtect 4': ['empty'],
    'pageMapList 0': ['leaf'],
    'pageMapList 6': ['empty'],
    'capDrop 2': ['empty'],
    'capOffer 0': ['foreign'],
    'capAcquire 1': ['empty'],
    // Where a range begins: the range is what counts.
    'revoke 3': ['published'],
    'sliceAllocate 2': ['empty'],
    'sliceFree 1': ['empty'],
  };
  for (const name of CALLS) {
    const table = REFUSALS[name];
    if (!table.domains.some((domain) => domain !== 'other')) continue;
    test(name, () => {
      const trial = new Trial();
      const accepted: string[] = [];
      table.domains.forEach((domain, argument) => {
        for (const what of Object.keys(candidates(domain, trial.world))) {
          const args = table.valid(trial.world);
          args[argument] = candidates(domain, trial.world)[what] ?? NaN;
          const got = trial.call(name, args);
          if (got === 'ok' || got === 'waits') accepted.push(`${argument} ${what}`);
        }
      });
      const due = table.domains.flatMap((_, argument) =>
        (taken[`${name} ${argument}`] ?? []).map((what) => `${argument} ${what}`),
      );
      expect(accepted.sort()).toEqual(due.sort());
    });
  }
});
