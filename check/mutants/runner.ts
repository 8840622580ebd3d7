/**
 * Runs inside vitest, in place of its own runner: after a file's tests have passed as ever, each is
 * run again for the mutants that are to be tried with it and that nobody has killed, the quickest
 * first. So a file is loaded once, not once a mutant.
 *
 * A kill counts only if the same test passes again with every site on.
 */
import { setMaxListeners } from 'node:events';
import { relative } from 'node:path';
import {
  type RunnerTask,
  type RunnerTestCase,
  type RunnerTestFile,
  type RunnerTestSuite,
  type TestContext,
  TestRunner,
} from 'vitest';

import {
  type How,
  type Plan,
  PLAN,
  QUICK,
  type Ran,
  readPlan,
  Records,
  type Round,
  specialSites,
} from './plan.ts';
import { Switches } from './switches.ts';

/** A mutant may go on for so many times what the test takes, and so much longer. */
const PATIENCE = { times: 10, more: 20_000 };

/** What a test has asked for with onTestFinished and onTestFailed while it ran. */
interface Handlers {
  onFinished?: ((context: TestContext) => unknown)[];
  onFailed?: unknown;
}

interface Baseline {
  readonly task: RunnerTestCase;
  readonly ran: Ran;
  readonly count: number;
}

export default class MutantRunner extends TestRunner {
  readonly #plan: Plan;
  readonly #records: Records;
  readonly #switches: Switches;
  readonly #alive: Set<number>;
  readonly #names = new Map<string, string>(); // by task id
  #files: string[] = [];
  #baselines: Baseline[] = [];
  #since = 0;

  constructor(config: ConstructorParameters<typeof TestRunner>[0]) {
    super(config);
    const path = process.env[PLAN];
    if (path === undefined) throw new Error(`mutants: ${PLAN} names no plan`);
    this.#plan = readPlan(path);
    this.#records = new Records(this.#plan.records);
    this.#switches = new Switches(this.#plan.count);
    this.#switches.install();
    this.#alive = new Set(this.#plan.sites);
  }

  /** Leaves out what is not wanted. Tests of the same name are told apart by a number. */
  onCollected(files: RunnerTestFile[]): void {
    for (const file of files) {
      const path = this.#pathOf(file);
      this.#files.push(path);
      const wanted = wantedOf(this.#plan.round, path);
      const seen = new Map<string, number>();
      for (const test of testsOf(file)) {
        const full = fullName(test);
        const nth = (seen.get(full) ?? 0) + 1;
        seen.set(full, nth);
        const name = nth === 1 ? full : `${full} #${nth}`;
        this.#names.set(test.id, name);
        if (!wanted(name)) test.mode = 'skip';
      }
    }
  }

  override onBeforeTryTask(test: RunnerTask): void {
    super.onBeforeTryTask(test);
    this.#switches.start(0, Infinity);
    this.#since = performance.now();
  }

  override onAfterRunTask(test: RunnerTask): void {
    super.onAfterRunTask(test);
    if (test.type !== 'test') return;
    const ms = performance.now() - this.#since;
    const { count } = this.#switches;
    const reached = this.#switches.sitesReached();
    this.#switches.stop();
    const [file, name] = [this.#pathOf(test.file), this.#names.get(test.id) ?? test.name];
    const passed = test.result?.state === 'pass';
    const ran: Ran = { type: 'ran', file, test: name, ms, passed, reached };
    this.#records.add(ran);
    if (passed) this.#baselines.push({ task: test, ran, count });
  }

  /** The tests of a file are over: the mutants' turn. */
  override async onAfterRunSuite(suite: RunnerTestSuite): Promise<void> {
    if ('filepath' in suite) await this.#tryFile();
    await super.onAfterRunSuite(suite);
  }

  async #tryFile(): Promise<void> {
    const { round } = this.#plan;
    const all = this.#baselines.map(({ ran }) => ran);
    const special = round.type === 'learn' ? specialSites(all) : null;
    this.#baselines.sort((a, b) => a.ran.ms - b.ran.ms);
    for (const baseline of this.#baselines) {
      const { file, test, ms } = baseline.ran;
      if (round.type === 'try') await this.#tryAll(baseline, round.pairs[file]?.[test] ?? []);
      else if (ms <= QUICK) await this.#tryAll(baseline, special?.get(test) ?? []);
    }
    for (const file of this.#files) this.#records.add({ type: 'done', pid: process.pid, file });
    [this.#baselines, this.#files] = [[], []];
  }

  async #tryAll(baseline: Baseline, sites: readonly number[]): Promise<void> {
    const { file, test } = baseline.ran;
    for (const site of sites) {
      if (!this.#alive.has(site)) continue;
      this.#hear();
      if (!this.#alive.has(site)) continue;
      this.#records.add({ type: 'trying', pid: process.pid, file, test, site });
      const outcome = await this.#run(baseline, site);
      if (outcome === null) continue;
      if ((await this.#run(baseline, 0)) !== null) {
        this.#records.add({ type: 'unsteady', file, test });
        return;
      }
      this.#alive.delete(site);
      const { how, why } = outcome;
      this.#records.add({ type: 'killed', file, test, site, how, why });
    }
  }

  /** What the others have killed. */
  #hear(): void {
    for (const entry of this.#records.news()) {
      if (entry.type === 'killed') this.#alive.delete(entry.site);
    }
  }

  /** Runs a test with `site` off, 0 for none. Null: it passes. */
  async #run({ task, count }: Baseline, site: number): Promise<{ how: How; why: string } | null> {
    setMaxListeners(0, task.context.signal); // each run of a test adds one, for good
    super.onBeforeTryTask(task);
    this.#switches.start(site, PATIENCE.times * count + PATIENCE.more);
    const errors: unknown[] = [];
    const attempt = async (step: () => unknown): Promise<void> => {
      try {
        await step();
      } catch (error) {
        errors.push(error);
      }
    };
    await attempt(async () => {
      const cleanups = await hooks(task, 'beforeEach');
      await attempt(async () => {
        await TestRunner.getTestFn(task)();
        this.onAfterTryTask(task);
      });
      await hooks(task, 'afterEach');
      for (const cleanup of cleanups)
        if (typeof cleanup === 'function') await (cleanup as () => unknown)();
    });
    const handlers = task as RunnerTestCase & Handlers;
    for (const finished of handlers.onFinished ?? []) await attempt(() => finished(task.context));
    delete handlers.onFinished;
    delete handlers.onFailed;
    if (this.#switches.stop()) return { how: 'endless', why: 'it goes on and on' };
    const [error] = errors;
    if (task.fails === true) {
      return error === undefined ? { how: 'failed', why: 'a test that is to fail passes' } : null;
    }
    return error === undefined ? null : { how: 'failed', why: firstLine(error) };
  }

  #pathOf(file: RunnerTestFile): string {
    return relative(this.#plan.root, file.filepath).replaceAll('\\', '/');
  }
}

/** Runs the hooks around a test, of its suite and those around it; returns what they returned. */
async function hooks(task: RunnerTestCase, kind: 'beforeEach' | 'afterEach'): Promise<unknown[]> {
  const suites: RunnerTestSuite[] = [];
  for (let at = task.suite; at !== undefined; at = at.suite) suites.push(at);
  if (!suites.includes(task.file)) suites.push(task.file);
  if (kind === 'beforeEach') suites.reverse(); // outermost first
  const results: unknown[] = [];
  for (const suite of suites) {
    const list = TestRunner.getSuiteHooks(suite)[kind];
    const order = kind === 'beforeEach' ? list : list.toReversed();
    for (const hook of order) results.push(await hook(task.context, suite));
  }
  return results;
}

/** Which tests of a file a round wants. */
function wantedOf(round: Round, file: string): (test: string) => boolean {
  if (round.type === 'learn') {
    const not = new Set(round.leaveOut[file]);
    return (test) => !not.has(test);
  }
  const only = new Set(Object.keys(round.pairs[file] ?? {}));
  return (test) => only.has(test);
}

function testsOf(suite: RunnerTestSuite): RunnerTestCase[] {
  return suite.tasks.flatMap((task) => (task.type === 'test' ? [task] : testsOf(task)));
}

function fullName(test: RunnerTestCase): string {
  const names = [test.name];
  for (let at = test.suite; at !== undefined && at !== test.file; at = at.suite) {
    names.unshift(at.name);
  }
  return names.join(' > ');
}

const firstLine = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).split('\n', 1)[0]?.slice(0, 200) ?? '';
