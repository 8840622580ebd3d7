/**
 * What the process that plans and the processes that run tests tell one another, through files:
 * a plan for each round, and records, a line of JSON each, appended as they happen.
 */
import { appendFileSync, closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs';

/** Environment variable that names the file of the plan. */
export const PLAN = 'EXOSCOPE_MUTANTS';

export interface Plan {
  /** the tree whose kernel is mutated */
  readonly root: string;
  /** how many sites there are, tried or not */
  readonly count: number;
  /** numbers of the sites that are alive */
  readonly sites: readonly number[];
  /** file of the records */
  readonly records: string;
  readonly round: Round;
}

/** What is to be done with the test files, by path relative to the root. */
export type Round =
  /** Runs all tests but those named, to learn what they reach; tries what they are special for. */
  | { readonly type: 'learn'; readonly leaveOut: Readonly<Record<string, readonly string[]>> }
  /** Runs the tests named, and tries the sites named for each. */
  | {
      readonly type: 'try';
      readonly pairs: Readonly<Record<string, Readonly<Record<string, readonly number[]>>>>;
    };

export type How = 'failed' | 'endless';

/** A test passed with all sites on: what it reaches. Or it failed: it proves nothing. */
export interface Ran {
  readonly type: 'ran';
  readonly file: string;
  readonly test: string;
  readonly ms: number;
  readonly passed: boolean;
  /** sites, and how many times each */
  readonly reached: readonly (readonly [site: number, times: number])[];
}

/** A site is about to be switched off: what to blame if nothing more is heard. */
export interface Trying {
  readonly type: 'trying';
  readonly pid: number;
  readonly file: string;
  readonly test: string;
  readonly site: number;
}

export interface Killed {
  readonly type: 'killed';
  readonly file: string;
  readonly test: string;
  readonly site: number;
  readonly how: How;
  readonly why: string;
}

/** A test that fails with all sites on, after it has passed: it proves nothing. */
export interface Unsteady {
  readonly type: 'unsteady';
  readonly file: string;
  readonly test: string;
}

/** All tests of a file that are wanted have been through. */
export interface Done {
  readonly type: 'done';
  readonly pid: number;
  readonly file: string;
}

export type Entry = Ran | Trying | Killed | Unsteady | Done;

/** Records of a run: appended to by several processes, read by all. */
export class Records {
  readonly #path: string;
  readonly #file: number;
  #at = 0;
  #rest = '';

  constructor(path: string) {
    this.#path = path;
    this.#file = openSync(path, 'a+');
  }

  /** One write: lines of several processes do not mix. */
  add(entry: Entry): void {
    appendFileSync(this.#path, `${JSON.stringify(entry)}\n`);
  }

  /** What has been added since the last call, by whomever. */
  news(): Entry[] {
    const { size } = fstatSync(this.#file);
    if (size === this.#at) return [];
    const bytes = Buffer.alloc(size - this.#at);
    this.#at += readSync(this.#file, bytes, 0, bytes.length, this.#at);
    const lines = (this.#rest + bytes.toString('utf8')).split('\n');
    this.#rest = lines.pop() ?? '';
    return lines.map((line) => JSON.parse(line) as Entry);
  }

  close(): void {
    closeSync(this.#file);
  }
}

export const readPlan = (path: string): Plan => JSON.parse(readFileSync(path, 'utf8')) as Plan;

/** ms: a test that takes at most so long is tried at once. */
export const QUICK = 50;

/**
 * For each test the sites that it reaches oftener than some other test of its file does: what every
 * test does alike, such as booting, it is not special for.
 */
export function specialSites(tests: readonly Ran[]): Map<string, number[]> {
  const least = new Map<number, { times: number; tests: number }>();
  for (const { reached } of tests) {
    for (const [site, times] of reached) {
      const so = least.get(site) ?? { times, tests: 0 };
      least.set(site, { times: Math.min(so.times, times), tests: so.tests + 1 });
    }
  }
  const isSpecial = (site: number, times: number): boolean => {
    const so = least.get(site);
    return tests.length === 1 || so === undefined || so.tests < tests.length || times > so.times;
  };
  const of = ({ reached }: Ran): number[] =>
    reached.flatMap(([site, times]) => (isSpecial(site, times) ? [site] : []));
  return new Map(tests.map((ran) => [ran.test, of(ran)]));
}
