/**
 * `npm run mutants`: switches off every refusal and every write of the exokernel, or with
 * `--of hypervisor` of that, one at a time; each time a test must fail. Exit status 0: all are
 * killed or listed as equivalent; 1: a survivor, or a wrong list; 2: bad usage.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, realpathSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Command, CommanderError, InvalidArgumentError, Option } from 'commander';

import type { Equivalent } from './equivalents.ts';
import {
  isSurvivor,
  isWronglyListed,
  mutated,
  type Outcome,
  type Result,
  type Subject,
  SUBJECTS,
  tryMutants,
} from './mutants.ts';
import type { Site } from './sites.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

interface Flags {
  readonly of: Subject;
  readonly only?: Place;
  readonly shard?: Shard;
  readonly changed?: string;
  readonly sample?: number;
  readonly seed: number;
  readonly tests?: string[];
  readonly slowest: number;
  readonly jobs: number;
  readonly json?: string;
  readonly root: string;
}

interface Place {
  readonly file: string;
  readonly line: number | null;
}

interface Shard {
  readonly index: number;
  readonly of: number;
}

interface Listed {
  readonly EQUIVALENTS: readonly Equivalent[];
}

/** What the user asked for cannot be done: one line, exit status 2. */
class Usage extends Error {}

const positive = (text: string): number => {
  if (!/^[1-9]\d{0,8}$/.test(text))
    throw new InvalidArgumentError('It is a whole number from 1 on.');
  return Number(text);
};

const integer = (text: string): number => {
  if (!/^-?\d{1,10}$/.test(text)) throw new InvalidArgumentError('It is a whole number.');
  return Number(text);
};

const place = (text: string): Place => {
  const [, file, line] = /^(.+?)(?::(\d+))?$/.exec(text) ?? [];
  if (file === undefined) throw new InvalidArgumentError('It is FILE or FILE:LINE.');
  return { file: file.replace(/^\.\//, ''), line: line === undefined ? null : Number(line) };
};

const shard = (text: string): Shard => {
  const [, index, of] = (/^(\d+)\/(\d+)$/.exec(text) ?? []).map(Number);
  if (index === undefined || of === undefined || index < 1 || index > of) {
    throw new InvalidArgumentError('It is I/N, with I from 1 to N.');
  }
  return { index, of };
};

/** Which sites the flags leave. */
function chooser(flags: Flags): (sites: readonly Site[]) => readonly Site[] {
  const { only, changed, root, of } = flags;
  const files = mutated(root, of);
  if (only !== undefined && !files.includes(only.file)) {
    throw new Usage(`--only: ${only.file} is not mutated. These are: ${files.join(', ')}`);
  }
  const since = changed === undefined ? null : changedFiles(root, changed);
  return (sites) => {
    let left = sites.filter(({ file }) => since === null || since.has(file));
    if (only !== undefined) {
      left = left.filter(({ file, line }) => file === only.file && line === (only.line ?? line));
      if (left.length === 0) throw new Usage(`--only: ${place(only.file).file} has no site there`);
    }
    if (flags.shard !== undefined) {
      const { index, of } = flags.shard;
      left = left.filter((_, n) => n % of === index - 1);
    }
    return flags.sample === undefined ? left : sample(left, flags.sample, flags.seed);
  };
}

function changedFiles(root: string, revision: string): Set<string> {
  try {
    const told = execFileSync('git', ['diff', '--name-only', '--relative', revision, '--'], {
      cwd: root,
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return new Set(told.split('\n'));
  } catch {
    throw new Usage(`--changed: git knows no revision ${revision} here`);
  }
}

/** `count` of the sites, the same for the same seed. */
function sample(sites: readonly Site[], count: number, seed: number): Site[] {
  const left = [...sites];
  const chosen: Site[] = [];
  let state = seed >>> 0;
  while (chosen.length < count && left.length > 0) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0; // Numerical Recipes
    chosen.push(...left.splice(Math.floor((state / 2 ** 32) * left.length), 1));
  }
  return chosen.sort((a, b) => a.number - b.number);
}

const print = (text: string): boolean => process.stdout.write(`${text}\n`);

/** On a terminal one line that is written over; elsewhere a line now and then. */
function progress(): (text: string) => void {
  const { stderr } = process;
  let last = 0;
  return (text) => {
    if (stderr.isTTY) stderr.write(`\r\x1b[K${text}`);
    else if (Date.now() - last > 20_000) {
      stderr.write(`${text}\n`);
      last = Date.now();
    }
  };
}

const where = ({ file, line }: Site): string => `${file}:${line}`;

function report({ outcomes, unknown, unsound, slow }: Result): number {
  const survivors = outcomes.filter(isSurvivor);
  const wrong = outcomes.filter(isWronglyListed);
  for (const text of unsound) print(`proves nothing: ${text}`);
  for (const { site, reachedBy } of survivors) {
    const tests = reachedBy === 0 ? 'no test reaches it' : `${reachedBy} tests reach it`;
    print(`SURVIVED ${where(site)} ${site.kind}, ${tests}\n    ${site.key}`);
  }
  for (const { site, killed } of wrong) {
    print(`listed as equivalent, but killed by ${killed?.file}: ${killed?.test}\n    ${site.key}`);
  }
  for (const key of unknown) print(`listed as equivalent, but no site: ${key}`);

  if (slow.length > 0) print(`${slow.length} tests take too long and were left out (--slowest)`);
  const count = (test: (outcome: Outcome) => boolean): number => outcomes.filter(test).length;
  const refusals = count(({ site }) => site.kind === 'refusal');
  const endless = count(({ killed }) => killed?.how === 'endless');
  print(`${refusals} refusals, ${outcomes.length - refusals} writes; ${endless} killed as endless`);
  const killed = count((one) => one.killed !== null);
  const listed = count((one) => one.killed === null && one.equivalent !== null);
  const rest = survivors.length > 0 ? ` + ${survivors.length} SURVIVORS` : '';
  print(`${outcomes.length} sites = ${killed} killed + ${listed} listed equivalents${rest}`);
  return survivors.length + wrong.length + unknown.length > 0 ? 1 : 0;
}

const asJson = ({ outcomes, ...rest }: Result): string =>
  JSON.stringify(
    {
      sites: outcomes.length,
      killed: outcomes.filter(({ killed }) => killed !== null).length,
      equivalents: outcomes.filter((one) => !isSurvivor(one) && one.killed === null).length,
      survivors: outcomes.filter(isSurvivor).length,
      ...rest,
      outcomes: outcomes.map(({ site, killed, equivalent, reachedBy }) => ({
        ...site,
        reachedBy,
        outcome: killed !== null ? 'killed' : equivalent !== null ? 'equivalent' : 'survived',
        ...(killed && { by: `${killed.file} > ${killed.test}`, how: killed.how, why: killed.why }),
        ...(equivalent !== null && { equivalent }),
      })),
    },
    null,
    2,
  );

/** The tree's own list: another kernel has other equivalents. */
async function equivalentsOf(root: string): Promise<readonly Equivalent[]> {
  const path = join(root, 'check', 'mutants', 'equivalents.ts');
  if (!existsSync(path)) return [];
  const { EQUIVALENTS } = (await import(pathToFileURL(path).href)) as Listed;
  return EQUIVALENTS;
}

async function main(flags: Flags): Promise<number> {
  const missing = SUBJECTS[flags.of].folders.find((one) => !existsSync(join(flags.root, one)));
  if (missing !== undefined) throw new Usage(`--root: ${flags.root} has no ${missing}`);
  const root = realpathSync(resolve(flags.root)); // as vitest names files
  for (const suite of flags.tests ?? []) {
    if (!existsSync(join(root, suite))) throw new Usage(`--tests: there is no ${suite}`);
  }
  if (flags.json !== undefined) writeFileSync(flags.json, ''); // known now, not after an hour
  const choose = chooser({ ...flags, root });
  const result = await tryMutants({
    root,
    subject: flags.of,
    jobs: flags.jobs,
    suites: flags.tests ?? [],
    slowest: flags.slowest,
    equivalents: await equivalentsOf(root),
    choose,
    progress: progress(),
  });
  if (process.stderr.isTTY) process.stderr.write('\r\x1b[K');
  if (flags.json !== undefined) writeFileSync(flags.json, `${asJson(result)}\n`);
  return report(result);
}

const command = new Command('mutants')
  .description('Switches off every refusal and write of the kernel in turn; a test must fail.')
  .addOption(
    new Option('--of <kernel>', 'what is mutated')
      .choices(Object.keys(SUBJECTS))
      .default('exokernel'),
  )
  .option('--only <place>', 'sites of one file, or of one line of it (FILE:LINE)', place)
  .option('--changed <revision>', 'sites in files that differ from a git revision')
  .option('--shard <i/n>', 'every n-th site, from the i-th on', shard)
  .option('--sample <count>', 'so many sites, by chance', positive)
  .option('--seed <number>', 'of that chance', integer, 1)
  .option('--tests <paths...>', 'the suites that are to kill, files or folders')
  .option('--slowest <ms>', 'leave out tests that take longer', positive, 3000)
  .option('--jobs <count>', 'processes', positive, availableParallelism())
  .option('--json <file>', 'write the outcome of each site there')
  .option('--root <folder>', 'the tree with the kernel and its tests', ROOT)
  .exitOverride()
  .allowExcessArguments(false);

try {
  command.parse();
  process.exitCode = await main(command.opts<Flags>());
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else if (error instanceof Usage) {
    process.stderr.write(`mutants: ${error.message}\n`);
    process.exitCode = 2;
  } else throw error;
}
