/**
 * Proof that the tests bite: switches off each refusal and each write of the exokernel or of the
 * hypervisor in turn and looks for a test that fails.
 *
 * Rounds: first the tests that killed a site the last time; then all tests once, to learn what each
 * reaches, and what it reaches oftener than others of its file do: those sites are tried with it,
 * with the quick tests first; at last, for what is still alive, tests that reach it like any other.
 * Test files are loaded by vitest as ever, with runner.ts as its runner.
 */
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { Equivalent } from './equivalents.ts';
import {
  type Entry,
  type Killed,
  type Plan,
  PLAN,
  type Ran,
  Records,
  type Round,
  specialSites,
} from './plan.ts';
import { instrument, type Site } from './sites.ts';

/** What can be mutated: the files of some folders, not of their subfolders; and who is to kill. */
export const SUBJECTS = {
  exokernel: {
    folders: ['kernel', 'kernel/exokernel'],
    suites: ['test/kernel', 'test/programs', 'test/libos', 'test/check', 'test/hypervisor'],
  },
  hypervisor: {
    folders: ['kernel/hypervisor'],
    suites: ['test/hypervisor', 'test/machine'],
  },
} as const;
export type Subject = keyof typeof SUBJECTS;

/** What cannot: the suite that runs this, and the one of the bounds, which are off here. */
const LEFT_OUT = ['test/check/mutants.test.ts', 'test/kernel/bounds.test.ts'];
/** ms: the longer a test takes, the later its turn. */
const MOST = [100, 600];
/** So many tests at most are tried for a site that they all reach alike. */
const COMMON = 400;
/** ms without a word from a process that runs a mutant, beside what the test may take: killed. */
const SILENCE = 120_000;

const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

export interface Options {
  /** the tree */
  readonly root: string;
  readonly subject: Subject;
  /** processes that run tests */
  readonly jobs: number;
  /** files or folders of tests; default: those of the subject */
  readonly suites: readonly string[];
  /** ms: a test that takes longer is left out */
  readonly slowest: number;
  readonly equivalents: readonly Equivalent[];
  /** which of all sites are tried */
  readonly choose: (sites: readonly Site[]) => readonly Site[];
  readonly progress: (text: string) => void;
}

export interface Outcome {
  readonly site: Site;
  readonly killed: Killed | null;
  /** why nothing can kill it, if that is said */
  readonly equivalent: string | null;
  /** tests that reach it, of those that were run */
  readonly reachedBy: number;
}

export interface Result {
  /** of the sites that were tried */
  readonly outcomes: readonly Outcome[];
  /** equivalents that are no sites */
  readonly unknown: readonly string[];
  /** tests that prove nothing, and why */
  readonly unsound: readonly string[];
  /** tests that were left out because they take too long */
  readonly slow: readonly string[];
}

export const isSurvivor = ({ killed, equivalent }: Outcome): boolean =>
  killed === null && equivalent === null;
export const isWronglyListed = ({ killed, equivalent }: Outcome): boolean =>
  killed !== null && equivalent !== null;

/** All sites of the subject, in order. */
export function allSites(root: string, subject: Subject): Site[] {
  const sites: Site[] = [];
  for (const file of mutated(root, subject)) {
    sites.push(...sitesOf(root, file, sites.length + 1).sites);
  }
  return sites;
}

/** The files that are mutated. */
export function mutated(root: string, subject: Subject): string[] {
  return SUBJECTS[subject].folders.flatMap((folder) =>
    readdirSync(join(root, folder), { withFileTypes: true })
      .filter((entry) => entry.isFile() && entry.name.endsWith('.ts'))
      .map((entry) => `${folder}/${entry.name}`)
      .sort(),
  );
}

const sitesOf = (root: string, file: string, first: number): ReturnType<typeof instrument> =>
  instrument(file, readFileSync(join(root, file), 'utf8'), first);

/** Tries the sites that are chosen. */
export async function tryMutants(options: Options): Promise<Result> {
  const run = new Run(options);
  try {
    return await run.all();
  } finally {
    run.close();
  }
}

/** A site to be switched off for a test. */
interface Pair {
  readonly file: string;
  readonly test: string;
  readonly site: number;
}

const idOf = ({ file, test }: { readonly file: string; readonly test: string }): string =>
  `${file} > ${test}`;

class Run {
  readonly #options: Options;
  readonly #sites: readonly Site[];
  readonly #chosen: readonly Site[];
  readonly #folder: string;
  readonly #records: Records;
  readonly #alive: Set<number>;
  readonly #killed = new Map<number, Killed>();
  readonly #ran = new Map<string, Ran>(); // by test
  readonly #tried = new Set<string>(); // sites with tests
  readonly #unsound = new Map<string, string>();
  readonly #hints: Hints;
  #doing = '';

  constructor(options: Options) {
    this.#options = options;
    this.#sites = allSites(options.root, options.subject);
    this.#chosen = options.choose(this.#sites);
    this.#alive = new Set(this.#chosen.map(({ number }) => number));
    this.#hints = new Hints(options.root);
    this.#folder = mkdtempSync(join(tmpdir(), 'exoscope-mutants-'));
    this.#records = new Records(join(this.#folder, 'records'));
  }

  close(): void {
    this.#records.close();
    rmSync(this.#folder, { recursive: true, force: true });
  }

  async all(): Promise<Result> {
    const { slowest, root, suites, subject } = this.#options;
    const files = testFiles(root, suites.length > 0 ? suites : suitesOf(root, subject));
    if (files.length === 0) throw new Error('there are no tests');

    await this.#try('what killed it last time', this.#hinted(files));
    const slow = new Set(
      this.#hints
        .slowTests(2 * slowest)
        .filter((id) => files.some((file) => id.startsWith(`${file} > `))),
    );
    const leaveOut = Object.fromEntries(files.map((file) => [file, namesIn(slow, file)]));
    await this.#round('what each test reaches', files, { type: 'learn', leaveOut });
    for (const most of [...MOST.filter((ms) => ms < slowest), slowest]) {
      await this.#try(`what tests of up to ${most} ms are special for`, this.#special(most));
    }
    await this.#try('what all tests do', this.#common(slowest));
    for (const [id, { ms }] of this.#ran) if (ms > slowest) slow.add(id);
    return this.#result([...slow]);
  }

  /** Tests that killed a site, last time. */
  #hinted(files: readonly string[]): Pair[] {
    return this.#chosen.flatMap(({ number: site, key }) => {
      const hint = this.#hints.killerOf(key);
      return hint !== undefined && files.includes(hint.file) ? [{ ...hint, site }] : [];
    });
  }

  /** Tests of at most `most` ms, each with what it reaches oftener than others of its file. */
  #special(most: number): Pair[] {
    const byFile = new Map<string, Ran[]>();
    for (const ran of this.#ran.values()) {
      if (ran.passed) byFile.set(ran.file, [...(byFile.get(ran.file) ?? []), ran]);
    }
    return [...byFile].flatMap(([file, tests]) => {
      const special = specialSites(tests);
      const quick = tests.filter(({ ms }) => ms <= most);
      return quick.flatMap(
        ({ test }) => special.get(test)?.map((site) => ({ file, test, site })) ?? [],
      );
    });
  }

  /** For each site the quickest of all tests that reach it, COMMON at most. */
  #common(most: number): Pair[] {
    const count = new Map<number, number>();
    const tests = [...this.#ran.values()].filter(({ passed, ms }) => passed && ms <= most);
    tests.sort((a, b) => a.ms - b.ms);
    return tests.flatMap(({ file, test, reached }) => {
      const few = reached.filter(([site]) => {
        const so = count.get(site) ?? 0;
        if (this.#tried.has(`${site} ${idOf({ file, test })}`)) return false;
        count.set(site, so + 1);
        return so < COMMON;
      });
      return few.map(([site]) => ({ file, test, site }));
    });
  }

  /** Tries pairs of what is alive and a test, but none twice. */
  async #try(name: string, pairs: readonly Pair[]): Promise<void> {
    const byFile: Record<string, Record<string, number[]>> = {};
    for (const { file, test, site } of pairs) {
      const id = `${site} ${idOf({ file, test })}`;
      if (!this.#alive.has(site) || this.#tried.has(id)) continue;
      const tests = (byFile[file] ??= {});
      (tests[test] ??= []).push(site);
    }
    await this.#round(name, Object.keys(byFile), { type: 'try', pairs: byFile });
  }

  /** Runs tests for what is alive; a file whose process has died is run again. */
  async #round(name: string, files: readonly string[], round: Round): Promise<void> {
    this.#doing = name;
    let left = [...files];
    while (left.length > 0 && this.#alive.size > 0) {
      const watch = new Watch(this.#options.progress);
      const plan: Plan = {
        root: this.#options.root,
        count: this.#sites.length,
        sites: [...this.#alive],
        records: join(this.#folder, 'records'),
        round,
      };
      writeFileSync(join(this.#folder, 'plan'), JSON.stringify(plan));
      const listening = setInterval(() => {
        this.#hear(watch, left.length);
        watch.killSilent(this.#ran);
      }, 500);
      try {
        await this.#vitest(left);
      } finally {
        clearInterval(listening);
        this.#hear(watch, left.length);
      }
      this.#hints.save(this.#sites, this.#killed, this.#ran);
      const undone = left.filter((file) => !watch.done.has(file));
      left = undone.filter((file) => this.#blame(watch, file));
    }
  }

  /** The process that ran `file` died, of the site that it was trying. False: of something else. */
  #blame(watch: Watch, file: string): boolean {
    const trying = watch.last.get(file);
    if (trying === undefined || !this.#alive.has(trying.site)) {
      this.#unsound.set(file, 'cannot be run');
      return false;
    }
    const { test, site } = trying;
    const why = 'its process had to be killed';
    this.#records.add({ type: 'killed', file, test, site, how: 'endless', why });
    this.#hear(watch, 0);
    return true;
  }

  async #vitest(files: readonly string[]): Promise<void> {
    const { root, jobs } = this.#options;
    const { startVitest } = await import('vitest/node'); // slow to load, and bad usage is not
    const { exitCode } = process;
    process.env[PLAN] = join(this.#folder, 'plan');
    const vitest = await startVitest(
      'test',
      [],
      {
        root,
        watch: false,
        include: [...files],
        setupFiles: [...setupOf(root), here('setup.ts')],
        globalSetup: [],
        runner: here('runner.ts'),
        reporters: [{}],
        silent: true,
        pool: 'forks',
        maxWorkers: jobs,
        testTimeout: 0,
        bail: 0,
        passWithNoTests: true,
      },
      { plugins: [this.#plugin()], server: { watch: null } },
    );
    for (const { filepath, result } of vitest.state.getFiles()) {
      const [error] = result?.errors ?? [];
      const file = relative(root, filepath).replaceAll('\\', '/');
      if (error !== undefined) this.#unsound.set(file, error.message.split('\n', 1)[0] ?? '');
    }
    const errors = vitest.state.getUnhandledErrors().map((error) => told(error));
    await vitest.close();
    process.exitCode = exitCode;
    const grave = errors.find((text) => !text.includes('exited unexpectedly'));
    if (grave !== undefined) throw new Error(`vitest: ${grave}`);
  }

  /** Hands out the kernel with switches, and without the assertion of its bounds. */
  #plugin(): { name: string; enforce: 'pre'; transform: (code: string, id: string) => unknown } {
    const { root } = this.#options;
    const firsts = new Map<string, number>();
    for (const { file, number } of this.#sites) {
      if (!firsts.has(file)) firsts.set(file, number);
    }
    return {
      name: 'exoscope-mutants',
      enforce: 'pre',
      transform: (code, id) => {
        const file = relative(root, id.replace(/\?.*$/, '')).replaceAll('\\', '/');
        // A mutant that is only too long is not a mutant that a test has caught.
        if (file === 'kernel/exokernel/bounds.ts') return `${code}\nREFERENCES.fill(Infinity);\n`;
        const first = firsts.get(file);
        return first === undefined ? null : { code: instrument(file, code, first).code, map: null };
      },
    };
  }

  #hear(watch: Watch, files: number): void {
    for (const entry of this.#records.news()) {
      watch.note(entry);
      if (entry.type === 'trying') this.#tried.add(`${entry.site} ${idOf(entry)}`);
      else if (entry.type === 'ran') {
        this.#ran.set(idOf(entry), entry);
        if (!entry.passed) this.#unsound.set(idOf(entry), 'fails without any mutant');
      } else if (entry.type === 'killed') {
        this.#alive.delete(entry.site);
        if (!this.#killed.has(entry.site)) this.#killed.set(entry.site, entry);
      } else if (entry.type === 'unsteady') {
        this.#unsound.set(idOf(entry), 'fails when it is run again');
      }
    }
    const [killed, all] = [this.#killed.size, this.#chosen.length];
    const at = files > 0 ? `, ${watch.done.size} of ${files} files` : '';
    watch.say(`${this.#doing}${at}: ${killed} of ${all} killed, ${this.#alive.size} alive`);
  }

  #result(slow: readonly string[]): Result {
    const reached = new Map<number, number>();
    for (const ran of this.#ran.values()) {
      for (const [site] of ran.reached) reached.set(site, (reached.get(site) ?? 0) + 1);
    }
    const { equivalents, subject } = this.#options;
    const why = new Map(equivalents.map((one) => [one.key, one.why]));
    const keys = new Set(this.#sites.map(({ key }) => key));
    return {
      outcomes: this.#chosen.map((site) => ({
        site,
        killed: this.#killed.get(site.number) ?? null,
        equivalent: why.get(site.key) ?? null,
        reachedBy: reached.get(site.number) ?? 0,
      })),
      unknown: [...why.keys()].filter((key) => isOf(key, subject) && !keys.has(key)),
      unsound: [...this.#unsound].map(([id, reason]) => `${id}: ${reason}`),
      slow,
    };
  }
}

/** What is heard of the processes of one run of vitest. */
class Watch {
  readonly done = new Set<string>();
  /** what each file tried last */
  readonly last = new Map<string, { readonly test: string; readonly site: number }>();
  readonly #trying = new Map<number, { readonly id: string; readonly since: number }>(); // by pid
  readonly #progress: (text: string) => void;
  #said = '';

  constructor(progress: (text: string) => void) {
    this.#progress = progress;
  }

  note(entry: Entry): void {
    if (entry.type === 'trying') {
      this.last.set(entry.file, entry);
      this.#trying.set(entry.pid, { id: idOf(entry), since: Date.now() });
    } else if (entry.type === 'done') {
      this.done.add(entry.file);
      this.#trying.delete(entry.pid);
    }
  }

  /** Ends a process that has said nothing for long: a loop in which the kernel takes no part. */
  killSilent(ran: ReadonlyMap<string, Ran>): void {
    for (const [pid, { id, since }] of this.#trying) {
      if (Date.now() - since < SILENCE + 40 * (ran.get(id)?.ms ?? 0)) continue;
      process.kill(pid, 'SIGKILL');
      this.#trying.delete(pid);
    }
  }

  say(text: string): void {
    if (text !== this.#said) this.#progress(text);
    this.#said = text;
  }
}

interface Stored {
  readonly killers: Record<string, { file: string; test: string }>; // by key
  readonly times: Record<string, number>; // ms, by test
}

/** Which test killed a site, and how long tests took, last time: where to begin, no more. */
class Hints {
  readonly #path: string;
  readonly #killers: Record<string, { file: string; test: string }>;
  readonly #times: Record<string, number>;

  constructor(root: string) {
    this.#path = join(root, 'node_modules', '.cache', 'mutants', 'hints.json');
    const { killers, times } = this.#load();
    this.#killers = killers;
    this.#times = times;
  }

  #load(): Stored {
    try {
      return JSON.parse(readFileSync(this.#path, 'utf8')) as Stored;
    } catch {
      return { killers: {}, times: {} };
    }
  }

  killerOf(key: string): { readonly file: string; readonly test: string } | undefined {
    return this.#killers[key];
  }

  slowTests(ms: number): string[] {
    return Object.keys(this.#times).filter((id) => (this.#times[id] ?? 0) > ms);
  }

  save(
    sites: readonly Site[],
    killed: ReadonlyMap<number, Killed>,
    ran: ReadonlyMap<string, Ran>,
  ): void {
    for (const { number, key } of sites) {
      const by = killed.get(number);
      if (by !== undefined) this.#killers[key] = { file: by.file, test: by.test };
    }
    for (const [id, { ms }] of ran) this.#times[id] = Math.round(ms);
    mkdirSync(join(this.#path, '..'), { recursive: true });
    const text = JSON.stringify({ killers: this.#killers, times: this.#times });
    writeFileSync(`${this.#path}.${process.pid}`, text);
    renameSync(`${this.#path}.${process.pid}`, this.#path);
  }
}

const told = (error: unknown): string =>
  typeof error === 'object' && error !== null && 'message' in error
    ? String(error.message)
    : String(error);

const namesIn = (ids: ReadonlySet<string>, file: string): string[] =>
  [...ids].flatMap((id) => (id.startsWith(`${file} > `) ? [id.slice(file.length + 3)] : []));

/** The tree's own set-up of tests comes before ours: it may set what ours changes. */
function setupOf(root: string): string[] {
  const own = 'test/setup.ts';
  return readdirSync(join(root, 'test')).includes('setup.ts') ? [join(root, own)] : [];
}

/** Those of the subject's suites that this tree has. */
function suitesOf(root: string, subject: Subject): string[] {
  const there = new Set(readdirSync(join(root, 'test')).map((name) => `test/${name}`));
  return SUBJECTS[subject].suites.filter((suite) => there.has(suite));
}

/** Whether a site of that key stands in a file of the subject. */
function isOf(key: string, subject: Subject): boolean {
  const folder = key.slice(0, key.lastIndexOf('/', key.indexOf(' ')));
  return SUBJECTS[subject].folders.some((one) => one === folder);
}

/** Test files under the given files and folders. */
function testFiles(root: string, suites: readonly string[]): string[] {
  const found = new Set<string>();
  const walk = (path: string): void => {
    for (const entry of readdirSync(join(root, path), { withFileTypes: true })) {
      const inner = `${path}/${entry.name}`;
      if (entry.isDirectory()) walk(inner);
      else if (inner.endsWith('.test.ts')) found.add(inner);
    }
  };
  for (const suite of suites) {
    if (suite.endsWith('.test.ts')) found.add(suite);
    else walk(suite);
  }
  for (const file of LEFT_OUT) found.delete(file);
  return [...found].sort();
}
