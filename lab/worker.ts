/** One job of the pool: a workload in a mode. Each worker loads the tree itself and keeps it. */
import { type Outcome, run } from './experiment.ts';
import type { Mode, Parameters } from './modes.ts';
import { defaultTree, loadTree, type Tree } from './tree.ts';
import { WORKLOADS } from './workloads.ts';

export interface Job {
  readonly workload: string;
  readonly mode: Mode;
  readonly profile: string;
  readonly seed: number;
  readonly parameters: Partial<Parameters>;
  /** a directory; null is the default input, below `typescript` */
  readonly input: string | null;
  readonly typescript: string;
  /** counts up while the job runs: the watchdog of the command line looks at it */
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

export default function work(job: Job): Outcome {
  const workload = WORKLOADS.find(({ name }) => name === job.workload);
  if (workload === undefined) throw new Error(`no workload ${job.workload}`);
  const { mode, profile, seed, parameters } = job;
  return run({
    workload,
    mode,
    tree: treeOf(job),
    profile,
    seed,
    parameters,
    alive: () => {
      Atomics.add(job.heart, 0, 1);
    },
  });
}
