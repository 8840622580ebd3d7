/**
 * `npm run mistakes`: makes each mistake of the lists in a copy of the tree, and runs the test that
 * is to catch it. Exit status 0: every mistake is caught; 1: one is not, or its text is not there.
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
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command } from 'commander';

import { BREACHES } from './hypervisor.ts';
import { INEXPRESSIBLE, type Mistake, MISTAKES } from './list.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** What tests need of the tree, beside node_modules. */
const FOLDERS = ['bench', 'check', 'examples', 'kernel', 'lab', 'libos', 'machine', 'test'];
const FILES = ['package.json', 'tsconfig.json', 'vitest.config.ts'];
const PATIENCE = 180_000; // ms, for one run of tests

/** The source with the mistake in it. Throws if its text is not there, or more than once. */
export function spoilt(source: string, { file, text, instead }: Mistake): string {
  const found = source.split(text).length - 1;
  if (found !== 1) throw new Error(`its text is found ${found} times in ${file}`);
  return source.replace(text, () => instead);
}

/** Does `work` in a copy of the tree, with the mistake in it if there is one. */
function inCopy<T>(mistake: Mistake | null, work: (top: string) => T): T {
  const cache = join(ROOT, 'node_modules', '.cache', 'mistakes');
  mkdirSync(cache, { recursive: true });
  const top = mkdtempSync(join(cache, 'tree-'));
  try {
    for (const name of [...FOLDERS, ...FILES]) {
      cpSync(join(ROOT, name), join(top, name), { recursive: true });
    }
    symlinkSync(join(ROOT, 'node_modules'), join(top, 'node_modules'));
    if (mistake !== null) {
      const file = join(top, mistake.file);
      writeFileSync(file, spoilt(readFileSync(file, 'utf8'), mistake));
    }
    return work(top);
  } finally {
    rmSync(top, { recursive: true, force: true });
  }
}

/** What vitest reports as JSON, as far as it is read here. */
interface Report {
  readonly testResults: readonly {
    readonly message: string;
    readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[];
  }[];
}

interface Outcome {
  readonly passed: readonly string[]; // full names of tests
  readonly failed: readonly string[];
}

/** Runs the tests of `files` whose full names contain one of `names`. */
function runTests(top: string, files: readonly string[], names: readonly string[]): Outcome {
  const output = join(top, 'report.json');
  const pattern = names.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|');
  const vitest = join('node_modules', 'vitest', 'vitest.mjs');
  const { error } = spawnSync(
    process.execPath,
    [vitest, 'run', ...files, '-t', pattern, '--reporter=json', `--outputFile=${output}`],
    { cwd: top, timeout: PATIENCE, stdio: 'ignore' },
  );
  if (error !== undefined) throw new Error(`its tests do not end: ${error.message}`);
  const { testResults } = JSON.parse(readFileSync(output, 'utf8')) as Report;
  const broken = testResults.find(({ assertionResults }) => assertionResults.length === 0);
  if (broken !== undefined) throw new Error(`its tests cannot be loaded: ${broken.message}`);
  const all = testResults.flatMap(({ assertionResults }) => assertionResults);
  const named = (status: string): string[] =>
    all.filter((one) => one.status === status).map(({ fullName }) => fullName);
  return { passed: named('passed'), failed: named('failed') };
}

/** Tests that fail without a mistake, or that nothing is called, catch nothing. */
function sound(mistakes: readonly Mistake[]): string[] {
  const files = [...new Set(mistakes.map(({ test: [file] }) => file))];
  const names = [...new Set(mistakes.map(({ test: [, name] }) => name))];
  const { passed, failed } = inCopy(null, (top) => runTests(top, files, names));
  const wrong = failed.map((name) => `fails without any mistake: ${name}`);
  for (const name of names) {
    if (!passed.some((full) => full.includes(name))) wrong.push(`no test is called: ${name}`);
  }
  return wrong;
}

/** Which tests fail with the mistake; none, and why, if it is not caught. */
function tryOut(mistake: Mistake): { readonly failed: readonly string[]; readonly why: string } {
  const [file, name] = mistake.test;
  try {
    const { failed } = inCopy(mistake, (top) => runTests(top, [file], [name]));
    return { failed, why: 'all tests pass' };
  } catch (error) {
    return { failed: [], why: error instanceof Error ? error.message : String(error) };
  }
}

function main(only: string | undefined): number {
  const print = (text: string): boolean => process.stdout.write(`${text}\n`);
  const chosen = [...MISTAKES, ...BREACHES].filter(
    ({ number }) => only === undefined || number === only,
  );
  if (chosen.length === 0) {
    process.stderr.write(`mistakes: there is no mistake ${only}\n`);
    return 2;
  }
  const wrong = sound(chosen);
  for (const text of wrong) print(text);
  let caught = 0;
  for (const mistake of chosen) {
    print(`${mistake.number.padEnd(8)}${mistake.title}\n        in ${mistake.file}`);
    const { failed, why } = tryOut(mistake);
    const [first] = failed;
    if (first !== undefined) caught++;
    const more = failed.length > 1 ? `, and ${failed.length - 1} more` : '';
    const [file] = mistake.test;
    print(
      first === undefined
        ? `        NOT CAUGHT: ${why}`
        : `        caught by ${file}: ${first}${more}`,
    );
  }
  print(`\n${chosen.length} mistakes, ${caught} caught`);
  if (only === undefined) {
    print('\nnot to be made here:');
    for (const { number, title, why } of INEXPRESSIBLE)
      print(`${number.padEnd(8)}${title}: ${why}`);
  }
  return caught === chosen.length && wrong.length === 0 ? 0 : 1;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  new Command('mistakes')
    .description('Makes mistakes of two lists, one at a time; tests must catch them.')
    .option('--only <number>', 'one of the lists, such as 4a or HYP-02')
    .action(({ only }: { only?: string }) => {
      process.exitCode = main(only);
    })
    .parse();
}
