/**
 * The main job: every chosen workload in every chosen mode, on all cores, each output held against
 * the host's own tools. Results come back in the order of the choice, whatever the order of work.
 */
import { writeFileSync, renameSync } from 'node:fs';
import { cyclesOf, type CostProfile } from '../machine/costs.ts';
import { type Outcome, type Result, title } from './experiment.ts';
import type { Mode, Parameters } from './modes.ts';
import { Hung, inWorkers, newHeart } from './pool.ts';
import { defaultDirectory, expect, removeDirectory } from './verify.ts';
import type { Tree } from './tree.ts';
import type { Job } from './worker.ts';
import type { Workload } from './workloads.ts';

export interface Comparison {
  readonly workloads: readonly Workload[];
  readonly modes: readonly Mode[];
  readonly tree: Tree;
  readonly input: string | null;
  readonly typescript: string;
  readonly profile: CostProfile;
  readonly seed: number;
  readonly parameters: Partial<Parameters>;
  readonly jobs: number;
  /** seconds without a sign of life after which a run is given up */
  readonly watchdog: number;
  readonly progress: (done: number, all: number, what: string) => void;
}

/** The simulator itself failed: exit status 70. */
export class InternalFailure extends Error {
  override readonly name = 'InternalFailure';
}

export interface Compared {
  readonly results: readonly Result[];
  /** one line for each output that is not what the host's tools print */
  readonly mismatches: readonly string[];
}

export async function compare(spec: Comparison): Promise<Compared> {
  const jobs = spec.workloads.flatMap((workload) => spec.modes.map((mode) => ({ workload, mode })));
  const { profile, seed, parameters, input, typescript } = spec;
  const messages = jobs.map(({ workload, mode }): Job => ({
    what: 'workload',
    workload: workload.name,
    mode,
    profile: profile.name,
    seed,
    parameters,
    input,
    typescript,
    heart: newHeart(),
  }));
  const directory = input ?? defaultDirectory(typescript);
  let done = 0;
  const ended = (outcome: Outcome, n: number): Outcome => {
    done++;
    spec.progress(done, jobs.length, `${jobs[n]?.workload.name} ${jobs[n]?.mode}`);
    return outcome;
  };
  const failed = (error: unknown, n: number): Outcome => {
    const { workload, mode } = jobs[n] ?? {};
    const text = error instanceof Error ? error.message : String(error);
    if (error instanceof Hung) {
      throw new InternalFailure(
        `${workload?.name} ${mode}: ${text}; a program loops without one (seed ${seed}); put ` +
          '`yield* port.work(n)` into the loop',
      );
    }
    const name = title(workload?.name ?? '', mode ?? 'bare', seed);
    throw new InternalFailure(text.startsWith(name) ? text : `${name}: ${text}`);
  };
  try {
    return judge(jobs, await inWorkers(messages, spec, ended, failed), spec, directory);
  } finally {
    if (input === null) removeDirectory(directory);
  }
}

/** Holds every tenant's output against the host's. */
function judge(
  jobs: readonly { readonly workload: Workload; readonly mode: Mode }[],
  outcomes: readonly Outcome[],
  spec: Comparison,
  directory: string,
): Compared {
  const mismatches: string[] = [];
  const expected = new Map(
    spec.workloads.map((workload) => {
      return [workload.name, expect(workload.hostCommand(spec.tree.facts), directory)];
    }),
  );
  const results = jobs.map(({ workload, mode }, n): Result => {
    const outcome = outcomes[n];
    const host = expected.get(workload.name);
    if (outcome === undefined || host === undefined)
      throw new InternalFailure('a result is missing');
    const { result, stdout, ended } = outcome;
    const verified = ended && result.stdoutSha256 === host.sha256;
    if (!verified) {
      stdout.forEach((bytes, tenant) => {
        mismatches.push(
          mismatch(`${workload.name} ${mode} tenant ${tenant + 1}`, bytes, host.stdout),
        );
      });
      mismatches.push(...result.complaints.map((line) => `  ${line}`));
      if (!ended) mismatches.push('  stopped at the limit of cycles');
    }
    return { ...result, hostCommand: host.command, verified };
  });
  return { results, mismatches };
}

function mismatch(what: string, got: Uint8Array, wanted: Uint8Array): string {
  let at = 0;
  while (at < got.length && got[at] === wanted[at]) at++;
  if (at === got.length && at === wanted.length) return `${what}: as expected`;
  const excerpt = (bytes: Uint8Array): string =>
    JSON.stringify(new TextDecoder('latin1').decode(bytes.subarray(at, at + 40)));
  return (
    `${what}: ${got.length} bytes, the host prints ${wanted.length}; ` +
    `they differ at byte ${at}: ${excerpt(got)} against ${excerpt(wanted)}`
  );
}

/** The results as JSON: nothing in it depends on the host's clock. */
export function json(spec: Comparison, results: readonly Result[]): string {
  const machine = { profile: spec.profile.name, cycles: cyclesOf(spec.profile), harts: 1 };
  return `${JSON.stringify({ schema: 1, machine, results }, null, 2)}\n`;
}

/** Writes a file whole or not at all. */
export function writeWhole(file: string, text: string): void {
  const temporary = `${file}.${process.pid}.tmp`;
  writeFileSync(temporary, text);
  renameSync(temporary, file);
}
