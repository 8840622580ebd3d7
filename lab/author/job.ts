/** A run of authors' files as a job of the pool: files in, plain data out. */
import { UsageError } from '../tree.ts';
import { loadImage } from './libos-file.ts';
import { type ModeResult, runMode, type RunSpec } from './run.ts';

export interface LibosJob {
  readonly what: 'libos';
  readonly spec: RunSpec;
  /** of the library OSes, tenants in turn */
  readonly files: readonly string[];
  readonly heart: Int32Array;
}

/** A result, or what is wrong with the files. */
export type LibosOutcome =
  { readonly result: ModeResult } | { readonly unusable: string } | { readonly hung: string };

export async function runFiles(job: LibosJob, alive: () => void): Promise<LibosOutcome> {
  try {
    const images = [];
    for (const file of job.files) images.push(await loadImage(file));
    return { result: runMode(job.spec, images, job.files, alive) };
  } catch (error) {
    if (error instanceof UsageError) return { unusable: error.message };
    throw error;
  }
}
