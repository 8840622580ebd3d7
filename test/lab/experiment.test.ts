/**
 * The experiments: every workload in every mode against the host's own tools, on trees of many
 * kinds, and what the counts must have in common. Small trees, whole runs.
 */
import { beforeAll, describe, expect, test, vi } from 'vitest';

import { json, type Comparison } from '../../lab/compare.ts';
import { type Outcome, parametersFor, type Result, run, TENANTS } from '../../lab/experiment.ts';
import { LONG } from '../tiers.ts';
import { ALL_MODES, type Mode, MODES, type Parameters } from '../../lab/modes.ts';
import { table, why } from '../../lab/report.ts';
import { loadTree, type Tree } from '../../lab/tree.ts';
import { expect as expectOnHost } from '../../lab/verify.ts';
import { type Workload, WORKLOADS } from '../../lab/workloads.ts';
import { PROGRAMS } from '../../libos/unix/programs/index.ts';
import type { Program } from '../../libos/unix/process.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { assert } from '../../machine/assert.ts';
import { RISCV } from '../../machine/costs.ts';
import type { Files } from '../libos/unix/host.ts';
import { directoryOf, SMALL, text } from './trees.ts';

const PROFILE = RISCV.name;

const named = (name: string): Workload => {
  const found = WORKLOADS.find((workload) => workload.name === name);
  if (found === undefined) throw new Error(`no workload ${name}`);
  return found;
};

interface Verified extends Outcome {
  readonly verified: boolean;
}

interface Options {
  readonly parameters?: Partial<Parameters>;
  readonly programs?: typeof PROGRAMS;
  readonly seed?: number;
}

/** One run, held against the host's tools in the same directory. */
function verify(
  workload: Workload,
  mode: Mode,
  tree: Tree,
  directory: string,
  { parameters, programs, seed = 1 }: Options = {},
): Verified {
  const outcome = run({
    workload,
    mode,
    tree,
    profile: PROFILE,
    seed,
    ...(parameters === undefined ? {} : { parameters }),
    ...(programs === undefined ? {} : { programs }),
  });
  const host = expectOnHost(workload.hostCommand(tree.facts), directory);
  return { ...outcome, verified: outcome.ended && outcome.result.stdoutSha256 === host.sha256 };
}

/** Names of runs that are not verified, in all modes. */
function unverified(
  files: Files,
  workloads: readonly Workload[],
  modes: readonly Mode[] = MODES,
): string[] {
  const directory = directoryOf(files);
  const tree = loadTree(directory);
  return workloads.flatMap((workload) =>
    modes
      .map((mode) => ({ mode, ...verify(workload, mode, tree, directory) }))
      .filter(({ verified, result }) => !verified || result.complaints.length > 0)
      .map(({ mode, result }) => `${workload.name} ${mode} ${result.complaints.join(' ')}`),
  );
}

describe('on a small tree', () => {
  const all = new Map<string, Verified>();
  const result = (workload: string, mode: Mode): Outcome['result'] => {
    const found = all.get(`${workload} ${mode}`);
    if (found === undefined) throw new Error(`${workload} ${mode} did not run`);
    return found.result;
  };
  const directory = { path: '' };
  let tree: Tree | null = null;
  const pairs = WORKLOADS.flatMap(({ name }) => MODES.map((mode) => [name, mode] as const));

  beforeAll(() => {
    directory.path = directoryOf(SMALL);
    tree = loadTree(directory.path);
    for (const [name, mode] of pairs) {
      all.set(`${name} ${mode}`, verify(named(name), mode, tree, directory.path));
    }
  }, 60_000);

  test.each(pairs)('%s, %s: verified', (name, mode) => {
    const found = all.get(`${name} ${mode}`);
    expect(found).toMatchObject({ verified: true, ended: true, result: { complaints: [] } });
    expect(found?.stdout).toHaveLength(TENANTS);
  });

  const others = ALL_MODES.filter((mode) => !MODES.some((one) => one === mode));
  const few = LONG ? WORKLOADS.map(({ name }) => name) : ['read', 'sort', 'fork'];
  test.each(few.flatMap((name) => others.map((mode) => [name, mode] as const)))(
    '%s in %s: the same',
    (name, mode) => {
      if (tree === null) throw new Error('no tree');
      const found = verify(named(name), mode, tree, directory.path);
      expect(found).toMatchObject({ verified: true, ended: true, result: { complaints: [] } });
      expect(found.result.stdoutSha256).toBe(result(name, 'bare').stdoutSha256);
    },
  );

  test.each(WORKLOADS.map(({ name }) => name))('%s: the same output in every mode', (name) => {
    const hashes = new Set(MODES.map((mode) => result(name, mode).stdoutSha256));
    expect(hashes.size).toBe(1);
  });

  test.each(['split', 'passthrough'] as const)('the same outputs with %s disks', (disk) => {
    if (tree === null) throw new Error('no tree');
    for (const name of ['copy', 'sort', 'read']) {
      for (const mode of name === 'copy' ? (['vm', 'exokernel-in-vm'] as const) : ['vm' as const]) {
        const run = verify(named(name), mode, tree, directory.path, { parameters: { disk } });
        expect(run, `${name} ${mode}`).toMatchObject({ verified: true, ended: true });
        expect(run.result.parameters.disk).toBe(disk);
        const { vmExits, diskReads, diskWrites } = run.result.counts;
        const emulated = result(name, mode).counts;
        expect([diskReads, diskWrites]).toEqual([emulated.diskReads, emulated.diskWrites]);
        expect(vmExits).toBeLessThanOrEqual(emulated.vmExits);
      }
    }
  });

  test('compute is a control: the same cycles in every mode, within 3 %', () => {
    const bare = result('compute', 'bare').cycles;
    for (const mode of MODES) {
      const ratio = result('compute', mode).cycles / bare;
      expect(ratio, mode).toBeGreaterThan(0.97);
      expect(ratio, mode).toBeLessThan(1.03);
    }
  });

  test.each(WORKLOADS.map(({ name }) => name))('%s: the counts make sense', (name) => {
    const of = Object.fromEntries(MODES.map((mode) => [mode, result(name, mode).counts]));
    const { bare, exokernel, vm, 'exokernel-in-vm': nested } = of as Record<Mode, Result['counts']>;
    expect(bare).toMatchObject({ kernelCalls: 0, vmExits: 0, guestPageFaults: 0 });
    expect(bare.procedureCalls).toBeGreaterThan(0);
    expect(exokernel).toMatchObject({ procedureCalls: 0, vmExits: 0, guestPageFaults: 0 });
    expect(exokernel.kernelCalls).toBeGreaterThan(0);
    expect(vm).toMatchObject({ kernelCalls: 0 });
    expect(vm.vmExits).toBeGreaterThan(0);
    expect(nested.vmExits).toBeGreaterThan(0);
    expect(nested.kernelCalls).toBeGreaterThan(0);
    for (const counts of [exokernel, vm, nested]) {
      // The same library OS and the same programs do the same work.
      expect(counts.diskReads).toBe(bare.diskReads);
      expect(counts.diskWrites).toBe(bare.diskWrites);
      expect(counts.diskFlushes).toBe(bare.diskFlushes);
      for (const count of Object.values(counts)) expect(count).toBeGreaterThanOrEqual(0);
    }
  });

  test('the layers add up to all cycles', () => {
    for (const [name, mode] of pairs) {
      const { cycles, cyclesByLayer } = result(name, mode);
      const { outer, inner, user } = cyclesByLayer;
      expect(outer + inner + user, `${name} ${mode}`).toBe(cycles);
      if (mode === 'bare' || mode === 'exokernel') expect(inner).toBe(0);
    }
  });

  test('the report has a line for each, and sentences', () => {
    const results = pairs.map(([name, mode]): Result => {
      return { ...result(name, mode), hostCommand: '', verified: name !== 'grep' };
    });
    const printed = table(results);
    expect(printed.match(/\byes\b/g)).toHaveLength(pairs.length - MODES.length);
    expect(printed.match(/\bNO\b/g)).toHaveLength(MODES.length);
    const lines = printed.split('\n').filter((line) => line.trim() !== '');
    expect(new Set(lines.map(({ length }) => length)).size).toBe(1);
    expect(why(results, RISCV)).toMatch(/^exokernel against bare: .*\nvm against bare: /);
  });

  test('once more: the same, byte for byte', () => {
    const again = tree;
    if (again === null) throw new Error('no tree');
    for (const [name, mode] of [
      ['read', 'vm'],
      ['fork', 'exokernel'],
    ] as const) {
      const outcome = verify(named(name), mode, again, directory.path);
      const spec = { profile: RISCV } as Comparison;
      const text = (one: Outcome): string =>
        json(spec, [{ ...one.result, hostCommand: '', verified: true }]);
      const first = all.get(`${name} ${mode}`);
      expect(text(outcome)).toBe(first === undefined ? '' : text(first));
      expect(JSON.parse(text(outcome))).toMatchObject({ schema: 1, machine: { profile: PROFILE } });
    }
  });

  test('one wrong byte is noticed', () => {
    const wrong = PROGRAMS.map((program): Program => {
      if (program.name !== 'wc') return program;
      return {
        ...program,
        *main(process) {
          const at = yield* process.heap(1);
          yield* process.port.store(at, 0x20);
          yield* process.write(1, at, 1);
          return yield* program.main(process);
        },
      };
    });
    if (tree === null) throw new Error('no tree');
    const outcome = verify(named('read'), 'exokernel', tree, directory.path, { programs: wrong });
    expect(outcome).toMatchObject({ ended: true, verified: false });
    const right = verify(named('fork'), 'exokernel', tree, directory.path, { programs: wrong });
    expect(right.verified).toBe(true);
  });

  test.each([
    { sliceCycles: 20_000 },
    { secondStage: '4KiB' },
    { secondStage: '4KiB', backing: 'touch' },
    { walkCaches: false },
    { quota: 1024 },
  ] as const)('with %j', (parameters) => {
    if (tree === null) throw new Error('no tree');
    for (const mode of MODES) {
      const { verified } = verify(named('grep'), mode, tree, directory.path, { parameters });
      expect(verified, mode).toBe(true);
    }
  });

  test('a run that does not end is stopped', () => {
    if (tree === null) throw new Error('no tree');
    const programs = PROGRAMS.map((program): Program => {
      if (program.name !== 'primes') return program;
      return {
        ...program,
        *main({ port }) {
          for (;;) port.work(100_000) ?? (yield* port.fault());
        },
      };
    });
    let alive = 0;
    const { ended } = run({
      workload: named('compute'),
      mode: 'vm',
      tree,
      profile: PROFILE,
      seed: 1,
      programs,
      limit: 2e8,
      alive: () => alive++,
    });
    expect({ ended, alive }).toEqual({ ended: false, alive: 9 });
  });

  test('a broken promise is thrown with what came before it', () => {
    if (tree === null) throw new Error('no tree');
    // eslint-disable-next-line @typescript-eslint/unbound-method -- called on each kernel below
    const { trap } = Exokernel.prototype;
    const traps = new WeakMap<object, number>();
    const spy = vi.spyOn(Exokernel.prototype, 'trap');
    spy.mockImplementation(function (this: Exokernel, ...args) {
      const count = (traps.get(this) ?? 0) + 1;
      traps.set(this, count);
      assert(count < 8000, 'planted: fewer than 8000 traps');
      trap.apply(this, args);
    });
    let message = '';
    try {
      run({ workload: named('fork'), mode: 'exokernel', tree, profile: PROFILE, seed: 7 });
    } catch (error) {
      message = error instanceof Error ? error.message : '';
    } finally {
      spy.mockRestore();
    }
    const [first, ...rest] = message.split('\n');
    expect(first).toBe('fork exokernel, seed 7: broken promise: planted: fewer than 8000 traps');
    expect(message).toContain('the last 32 events, by cycle:\n');
    const events = rest.filter((line) => /^ {2}\d+ {2}layer \d {2}(trap|exit|upcall)\b/.test(line));
    expect(events).toHaveLength(32);
    expect(events[31]).toMatch(/trap, cause/);
    expect(message).not.toContain('this time');
  });
});

describe('on trees of odd shapes', () => {
  const IO = ['read', 'copy', 'grep', 'sha256'].map(named);
  const some = ['bare', 'exokernel', 'vm'] as const;
  const few = IO.slice(0, 2);

  test.each<[string, Files]>([
    ['nothing', {}],
    ['an empty file', { empty: '' }],
    ['empty directories', { 'a/b/c/': '', 'd/': '' }],
    ['50 levels', { [`${'d/'.repeat(50)}file`]: text(30), 'd/d/d/d/other': text(3) }],
    ['long names', { ['n'.repeat(255)]: 'a\n', [`${'m'.repeat(255)}/${'o'.repeat(255)}`]: 'b\n' }],
    ['NULs', { nuls: '\0'.repeat(70_000), 'text-and-nul': 'function\0function\n\0' }],
  ])('%s', (_, files) => {
    expect(
      unverified(
        files,
        WORKLOADS.filter(({ kind }) => kind === 'io'),
        [...some],
      ),
    ).toEqual([]);
  });

  test('names that need care', () => {
    const names = [
      'with space',
      ' leading',
      'trailing ',
      "it's",
      '"quoted"',
      'new\nline',
      'tab\tbed',
      '-n',
      '--',
      '-',
      'back\\slash',
      '$HOME',
      '`id`',
      '*',
      '?',
      '[a]',
      '#',
      '~',
      'a;b',
      'a|b',
      '\xe9t\xe9',
      '\xff',
      '.hidden',
      '...',
      'return\rhere',
      '\x01\x7f',
      '!',
      '(a)',
      '{a}',
      'a=b',
      '%s',
    ];
    const files = Object.fromEntries(
      names.map((name) => [name, `function in ${name}\n${text(3)}`]),
    );
    const deep = Object.fromEntries(names.map((name) => [`dir ${name}/x`, `${name}\n`]));
    const workloads = WORKLOADS.filter(({ kind }) => kind === 'io');
    expect(unverified({ ...files, ...deep }, workloads, ['exokernel', 'vm'])).toEqual([]);
    // The largest text has a name like these.
    for (const name of [" '\xe9 ", '-n', '$HOME"', 'a\\b']) {
      const one = { [name]: text(20), small: 'x\n' };
      expect(unverified(one, [named('sort')], ['bare']), name).toEqual([]);
    }
  });

  test('300 files in a directory', () => {
    const files = Object.fromEntries(
      Array.from({ length: 300 }, (_, n) => [`many/${'f'.repeat(n % 90)}${n}`, text(n % 7, n)]),
    );
    expect(unverified(files, few, ['exokernel', 'vm'])).toEqual([]);
  });

  test('a file of 5 MB', () => {
    const files = { large: text(450_000), 'x/small': 'function\n' };
    expect(unverified(files, few, ['exokernel'])).toEqual([]);
    expect(unverified(files, [named('read')], ['bare', 'vm'])).toEqual([]);
  });

  test('sort of a large text', () => {
    expect(unverified({ lines: text(20_000) }, [named('sort')], ['exokernel', 'vm'])).toEqual([]);
  });

  test('disks follow the tree', () => {
    const tree = loadTree(directoryOf({ large: 'x'.repeat(3_000_000) }));
    const copy = parametersFor(tree, named('copy'));
    const read = parametersFor(tree, named('read'));
    expect(copy.blocks * 4096).toBeGreaterThan(6_000_000);
    expect(read.blocks * 4096).toBeLessThan(copy.blocks * 4096);
  });
});
