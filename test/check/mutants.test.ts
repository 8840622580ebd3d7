/**
 * The mutants themselves: sites are found, numbered and switched as they should be; in a small tree
 * with planted holes in its tests the command finds these and no others, and says so by its status.
 */
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { runInThisContext } from 'node:vm';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { allSites } from '../../check/mutants/mutants.ts';
import { instrument } from '../../check/mutants/sites.ts';
import { Switches } from '../../check/mutants/switches.ts';

const ROOT = join(import.meta.dirname, '..', '..');

/** Kind and text of each site of a source. */
const found = (source: string): string[] =>
  instrument('a.ts', source).sites.map(({ kind, text }) => `${kind} ${text}`);

/** What `source`, an expression of a function, does with site `off` switched off. */
function run(source: string, off: number, ...args: readonly unknown[]): unknown {
  const switches = new Switches(100);
  switches.install();
  const { code } = instrument('a.ts', `const subject = ${source};\nexport default subject;`);
  const script = ts.transpile(code, {
    target: ts.ScriptTarget.ES2022,
    module: ts.ModuleKind.CommonJS,
  });
  const module = { exports: {} as { default?: (...given: readonly unknown[]) => unknown } };
  const load = runInThisContext(`(exports) => { ${script} }`) as (exports: object) => void;
  load(module.exports);
  switches.start(off, 10_000);
  const result = module.exports.default?.(...args);
  switches.stop();
  return result;
}

describe('what is a site', () => {
  test('every way to refuse', () => {
    const source = `
      function f(n: number): Answer {
        if (n < 0) return refuse(Status.badArgument, 0);
        if (n > 9) {
          return refuse(Status.tooMany, 0);
        }
        if (may !== Status.ok) return may;
        if (place.status !== Status.ok) return place;
        if (!Array.isArray(pages)) return pages;
        if (n === 4) return Status.absent;
        if (n === 5) return { status: Status.badCall, value: 0 };
        if (n === 6) return -1;
        if (n === 7) return false;
        if (n === 8) { later(); return refuse(Status.busy, 0); }
        return fits(n) ? ok() : refuse(Status.sharing, 0);
      }`;
    const sites = instrument('a.ts', source).sites;
    expect(sites.filter(({ kind }) => kind === 'refusal')).toHaveLength(11);
    expect(sites.filter(({ kind }) => kind === 'write').map(({ text }) => text)).toEqual([
      'later()',
    ]);
  });

  test('what is done with a refusal, or returned for another reason, is none', () => {
    expect(
      found(`
        function f(n: number): Answer {
          const answer = refuse(Status.busy, 0);
          const which = n === 9 ? -1 : 4;
          pin(page, n === 9 ? -1 : 4);
          if (n === 0) return ok();
          if (n === 1) return found;
          if (n === 2) return;
          return { status: Status.ok, value: 1 };
        }`),
    ).toEqual(['write pin(page, n === 9 ? -1 : 4)']);
  });

  test('every call for its effect; not what only asserts or charges', () => {
    expect(
      found(`
        function f(): Answer {
          assert(true, 'so');
          state.machine.work(6);
          table.put(0, 1, 2);
          for (const n of list) charge(state, n);
          list.forEach((n) => { put(n); });
          if (!machine.storeUser(at, 1)) throw new Error();
          return ok(table.add(0, 1, 1));
        }`),
    ).toEqual([
      'write table.put(0, 1, 2)',
      'write charge(state, n)',
      'write put(n)',
      'write machine.storeUser(at, 1)',
      'write table.add(0, 1, 1)',
    ]);
  });

  test('a site keeps its key when lines come before it; equal texts are told apart', () => {
    const body = 'function f() { put(1); put(2); put(1); }';
    const [here, there] = [body, `// a comment\n\nfunction g() { put(1); }\n${body}`].map(
      (source) => instrument('a.ts', source, 5).sites,
    );
    expect(here?.map(({ number, key }) => [number, key])).toEqual([
      [5, 'a.ts f: put(1)'],
      [6, 'a.ts f: put(2)'],
      [7, 'a.ts f: put(1) #2'],
    ]);
    const keys = there?.map(({ key }) => key);
    expect(keys).toEqual(['a.ts g: put(1)', ...(here ?? []).map(({ key }) => key)]);
  });

  test("the kernel's sites: numbered without a gap, named once each, lines as they are", () => {
    const sites = allSites(ROOT, 'exokernel');
    expect(sites.length).toBeGreaterThan(500);
    expect(sites.map(({ number }) => number)).toEqual(sites.map((_, n) => n + 1));
    expect(new Set(sites.map(({ key }) => key)).size).toBe(sites.length);
    for (const file of new Set(sites.map((site) => site.file))) {
      const source = readFileSync(join(ROOT, file), 'utf8');
      const lines = source.split('\n');
      const shown = instrument(file, source).code.split('\n');
      expect(shown, file).toHaveLength(lines.length);
      for (const { line, text } of sites.filter((site) => site.file === file)) {
        const rest = lines.slice(line - 1, line + 20).join(' ');
        expect(rest.replace(/\s+/g, ' ')).toContain(text);
      }
    }
  });
});

describe('what a switch does', () => {
  const answer = 'const refuse = (why) => why; const ok = () => "ok";';

  test('a refusal falls through; what its condition does is done', () => {
    const source = `(n, log) => {
      ${answer}
      const seen = (x) => { log[0] = x; return x < 0; };
      if (seen(n)) return refuse('negative');
      if (n < -5) return refuse('very negative');
      return n === 7 ? refuse('seven') : ok();
    }`;
    const results = [-9, -1, 7, 1].map((n) => [0, 1, 2, 3].map((off) => run(source, off, n, [])));
    expect(results).toEqual([
      ['negative', 'very negative', 'negative', 'negative'],
      ['negative', 'ok', 'negative', 'negative'],
      ['seven', 'seven', 'seven', 'ok'],
      ['ok', 'ok', 'ok', 'ok'],
    ]);
    const log: unknown[] = [];
    run(source, 1, -1, log);
    expect(log).toEqual([-1]);
  });

  test('a write does not happen; its value is what it would have been', () => {
    class Cells {
      readonly cells = [5];
      get = (row: number, _column: number): number => this.cells[row] ?? 0;
      put = (row: number, _column: number, value: number): void => {
        this.cells[row] = value;
      };
      add = (row: number, column: number, n: number): number => {
        this.put(row, column, this.get(row, column) + n);
        return this.get(row, column);
      };
    }
    const source = '(t) => { t.put(0, 0, 10); return t.add(0, 0, 1); }';
    const seen = [0, 1, 2].map((off) => {
      const table = new Cells();
      return [run(source, off, table), table.cells[0]];
    });
    expect(seen).toEqual([
      [11, 11],
      [6, 6],
      [11, 10],
    ]);
  });

  test('what goes on for ever is cut', () => {
    const source = '(t) => { while (t.n < 3) t.next(); return t.n; }';
    const counter = (): object => ({
      n: 0,
      next(this: { n: number }): void {
        this.n++;
      },
    });
    expect(run(source, 0, counter())).toBe(3);
    expect(() => run(source, 1, counter())).toThrow('on and on');
  });
});

// A kernel of one call, and tests of it.
const VAULT = `
import { ok, refuse, Status, type Answer } from '../abi.ts';
export const cells = [0, 0, 0];
export const table = {
  get: (n: number, _: number): number => cells[n] ?? 0,
  put: (n: number, _: number, v: number): void => { cells[n] = v; },
};
export function deposit(n: number): Answer {
  if (n < 1) return refuse(Status.badArgument);
  if (n > 100) return refuse(Status.tooMany);
  table.put(0, 0, n);
  table.put(1, 0, n);
  while (table.get(2, 0) < 3) table.put(2, 0, table.get(2, 0) + 1);
  return ok();
}
`;
const ABI = `
export interface Answer { readonly status: number }
export const Status = { ok: 0, badArgument: 1, tooMany: 2 };
export const ok = (): Answer => ({ status: Status.ok });
export const refuse = (status: number): Answer => ({ status });
`;
const testOf = (name: string, ...lines: readonly string[]): string => `
import { afterEach, expect, test } from 'vitest';
import { cells, deposit } from '../../kernel/exokernel/vault.ts';
afterEach(() => { cells.fill(0); });
test('${name}', () => { ${lines.join('; ')} });
`;
const WEAK = testOf(
  'weak',
  'expect(deposit(0).status).toBe(1)',
  'deposit(5)',
  'expect(cells[0]).toBe(5)',
);
const STRONG = testOf(
  'strong',
  'expect(deposit(101).status).toBe(2)',
  'deposit(5)',
  'expect(cells[1]).toBe(5)',
);
const BROKEN = testOf('broken', 'expect(deposit(0).status).toBe(7)');
const KEY = 'kernel/exokernel/vault.ts deposit:';

describe('the command', { timeout: 120_000 }, () => {
  let top = '';

  const put = (path: string, text: string): void => {
    mkdirSync(dirname(join(top, path)), { recursive: true });
    writeFileSync(join(top, path), text);
  };
  const mutants = (...args: readonly string[]): { status: number | null; told: string } =>
    mutantsOf(top, ...args);
  const mutantsOf = (
    root: string,
    ...args: readonly string[]
  ): { status: number | null; told: string } => {
    const main = join(ROOT, 'check', 'mutants', 'main.ts');
    const env = Object.fromEntries(
      Object.entries(process.env).filter(([name]) => !/^(VITEST|NODE_ENV|TEST$)/.test(name)),
    );
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      ['--import', 'tsx', main, '--root', root, '--jobs', '1', ...args],
      { cwd: ROOT, encoding: 'utf8', env },
    );
    return { status, told: stdout + stderr };
  };

  beforeAll(() => {
    const cache = join(ROOT, 'node_modules', '.cache', 'mutants');
    mkdirSync(cache, { recursive: true });
    top = mkdtempSync(join(cache, 'tree-'));
    symlinkSync(join(ROOT, 'node_modules'), join(top, 'node_modules'));
    for (const name of ['package.json', 'tsconfig.json', 'vitest.config.ts', 'test/setup.ts']) {
      mkdirSync(dirname(join(top, name)), { recursive: true });
      cpSync(join(ROOT, name), join(top, name));
    }
    put('kernel/abi.ts', ABI);
    put('kernel/exokernel/vault.ts', VAULT);
    put('test/kernel/weak.test.ts', WEAK);
    put('test/kernel/strong.test.ts', STRONG);
    put('test/kernel/broken.test.ts', BROKEN);
  });
  afterAll(() => {
    rmSync(top, { recursive: true, force: true });
  });

  test('planted survivors are reported, with status 1; a test that fails anyhow kills none', () => {
    const json = join(top, 'out.json');
    const { status, told } = mutants(
      '--tests',
      'test/kernel/weak.test.ts',
      'test/kernel/broken.test.ts',
      '--json',
      json,
    );
    expect(told).toContain('proves nothing: test/kernel/broken.test.ts > broken: fails without');
    expect(told).toMatch(/SURVIVED kernel\/exokernel\/vault.ts:10 refusal, no test reaches it/);
    expect(told).toMatch(/SURVIVED kernel\/exokernel\/vault.ts:12 write, 1 tests? reach it/);
    expect(told).toContain('2 refusals, 3 writes; 1 killed as endless');
    expect(told).toContain('5 sites = 3 killed + 0 listed equivalents + 2 SURVIVORS');
    expect(status).toBe(1);
    expect(JSON.parse(readFileSync(json, 'utf8'))).toMatchObject({
      sites: 5,
      killed: 3,
      survivors: 2,
    });
  });

  test('all killed, with status 0; what is listed wrongly is an error', () => {
    const suites = ['--tests', 'test/kernel/weak.test.ts', 'test/kernel/strong.test.ts'];
    const well = mutants(...suites);
    expect(well.told).toContain('5 sites = 5 killed + 0 listed equivalents\n');
    expect(well.status).toBe(0);

    const listed = [`${KEY} table.put(0, 0, n)`, `${KEY} no such text`];
    const list = listed.map((key) => ({ key, why: 'so it is said' }));
    put('check/mutants/equivalents.ts', `export const EQUIVALENTS = ${JSON.stringify(list)};`);
    const badly = mutants(...suites, '--only', 'kernel/exokernel/vault.ts:11');
    expect(badly.told).toContain('listed as equivalent, but killed by test/kernel/weak.test.ts');
    expect(badly.told).toContain(`listed as equivalent, but no site: ${KEY} no such text`);
    expect(badly.status).toBe(1);
  });

  test.each([
    [['--only', 'kernel/none.ts'], 'kernel/none.ts is not mutated'],
    [['--shard', '3/2'], 'I from 1 to N'],
  ])('%j is bad usage, status 2', (args, why) => {
    const { status, told } = mutants(...args);
    expect(told).toContain(why);
    expect(status).toBe(2);
  });

  test('of this kernel, a sample of the writes behind disk requests: each is missed by a test', () => {
    const only = ['--only', 'kernel/exokernel/requests.ts', '--sample', '10'];
    const seed = process.env['EXOSCOPE_SEED'] ?? '20261123';
    const suites = ['--tests', 'test/kernel/disk-outcomes.test.ts'];
    const { status, told } = mutantsOf(ROOT, ...only, `--seed=${seed}`, ...suites);
    expect(told).toContain('10 sites = 10 killed + 0 listed equivalents\n');
    expect(status).toBe(0);
  });
});
