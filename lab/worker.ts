/** One job of the pool. Each worker loads what it needs itself and keeps it. */
import { threadId } from 'node:worker_threads';
import { runFiles, type LibosJob, type LibosOutcome } from './author/job.ts';
import { type Outcome, run } from './experiment.ts';
import type { Mode, Parameters } from './modes.ts';
import { startHeart } from './pool.ts';
import { defaultTree, loadTree, type Tree } from './tree.ts';
import { WORKLOADS } from './workloads.ts';

/** A workload in a mode. */
export interface Job {
  readonly what: 'workload';
  readonly workload: string;
  readonly mode: Mode;
  readonly profile: string;
  readonly seed: number;
  readonly parameters: Partial<Parameters>;
  /** a directory; null is the default input, below `typescript` */
  readonly input: string | null;
  readonly typescript: string;
  /** beats while the job runs: the watchdog of the pool looks at it */
  readonly heart: Int32Array;
}

let cached: { readonly key: string; readonly tree: Tree } | null = null;

function treeOf(job: Job): Tree {
  const key = job.input ?? '';
  if (cached?.key !== key) {
    const tree = job.input === null ? defaultTree(job.typescript) : loadTree(job.input);
    cached = { key, tree };
  }
  return cached.tree;
}

export default function work(job: Job | LibosJob): Outcome | Promise<LibosOutcome> {
  const alive = startHeart(job.heart, threadId);
  return job.what === 'libos' ? runFiles(job, alive) : runWorkload(job, alive);
}

function runWorkload(job: Job, alive: () => void): Outcome {
  const workload = WORKLOADS.find(({ name }) => name === job.workload);
  if (workload === undefined) throw new Error(`no workload ${job.workload}`);
  const { mode, profile, seed, parameters } = job;
  return run({ workload, mode, tree: treeOf(job), profile, seed, parameters, alive });
}
