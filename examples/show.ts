/** What examples have in common: run library OSes, and show what they printed. */
import { fileURLToPath } from 'node:url';
import { type ModeResult, runMode, type RunSpec } from '../lab/author/run.ts';
import type { Image } from '../libos/libos.ts';

const SPEC: RunSpec = {
  mode: 'exokernel',
  tenants: 1,
  memory: 256,
  slice: 100_000,
  seed: 1,
  limit: 1e9,
  revocation: null,
};

/** Runs a tenant for each image. */
export const run = (images: readonly Image[], spec: Partial<RunSpec> = {}): ModeResult =>
  runMode({ ...SPEC, tenants: images.length, ...spec }, images, []);

/** What the tenants printed, one after the other, and what befell those who failed. */
export function outputs({ tenants }: ModeResult): string {
  return tenants.map(({ output, account }) => [output, ...account].join('')).join('');
}

/** Prints what an example shows if its file is what was started: `npx tsx examples/01-hello.ts`. */
export function main(meta: ImportMeta, show: () => string | Promise<string>): void {
  if (process.argv[1] !== fileURLToPath(meta.url)) return;
  void Promise.resolve(show()).then((text) => process.stdout.write(text));
}
