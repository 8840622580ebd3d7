/** A run of authors' files as a job of the pool: files in, plain data out. */
import { UsageError } from '../tree.ts';
import { Chart, type Moment } from './chart.ts';
import { loadImage } from './libos-file.ts';
import { type ModeResult, runMode, type RunSpec } from './run.ts';

export interface LibosJob {
  readonly what: 'libos';
  readonly spec: RunSpec;
  /** of the library OSes, tenants in turn */
  readonly files: readonly string[];
  readonly heart: Int32Array;
  /** cycles between two looks at who owns what; absent: nobody looks */
  readonly every?: number;
}

/** A result, or what is wrong with the files. */
export type LibosOutcome =
  | { readonly result: ModeResult; readonly moments: readonly Moment[] }
  | { readonly unusable: string }
  | { readonly hung: string };

export async function runFiles(job: LibosJob, alive: () => void): Promise<LibosOutcome> {
  process.exit = noExit; // it would be the worker's end, and nobody would hear why
  try {
    const images = [];
    for (const file of job.files) images.push(await loadImage(file));
    const { spec, files, every } = job;
    const holders = spec.tenants + (spec.revocation === null ? 0 : 1);
    const chart = every === undefined ? null : new Chart(every, holders);
    const result = runMode(spec, images, files, alive, chart);
    return { result, moments: chart?.moments ?? [] };
  } catch (error) {
    if (error instanceof UsageError) return { unusable: error.message };
    throw error;
  }
}

function noExit(): never {
  throw new Error('process.exit: a library OS has no process; it ends when main returns');
}
