/**
 * `exoscope new NAME`: a commented skeleton of a library OS and a test of it, namely those of
 * examples/, which run as they are: in a checkout with imports by path, where the package is
 * installed with imports by its name. Nothing that exists is written over.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UsageError } from '../tree.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface Written {
  readonly libos: string;
  readonly test: string;
  /** whether it was written inside a checkout of Exoscope */
  readonly checkout: boolean;
}

/** Writes `NAME.ts` and `NAME.test.ts` into `directory`. */
export function writeSkeleton(name: string, directory?: string): Written {
  if (!/^[a-z][a-z0-9-]*$/.test(name)) {
    throw new UsageError(
      `new ${name}: a name has small letters, digits and hyphens, a letter first`,
    );
  }
  const here = `${resolve('.')}${sep}`.startsWith(ROOT);
  const folder = resolve(directory ?? (here ? join(ROOT, 'mine') : '.'));
  const libos = join(folder, `${name}.ts`);
  const test = join(folder, `${name}.test.ts`);
  for (const file of [libos, test]) {
    if (existsSync(file)) throw new UsageError(`new ${name}: ${file} exists; take another name`);
  }
  const checkout = `${folder}${sep}`.startsWith(ROOT);
  const prefix = checkout ? relativePrefix(folder) : packageName(folder);
  mkdirSync(folder, { recursive: true });
  writeFileSync(libos, textOf('skeleton.ts', name, prefix));
  writeFileSync(test, textOf('skeleton.test.ts', name, prefix));
  return { libos, test, checkout };
}

function relativePrefix(folder: string): string {
  const up = relative(folder, ROOT).split(sep).join('/');
  return up === '' ? '.' : up;
}

/** Outside a checkout the package must be found from there, as the files will look for it. */
function packageName(folder: string): string {
  let existing = folder;
  while (!existsSync(existing)) existing = dirname(existing);
  try {
    createRequire(join(existing, 'x.js')).resolve('exoscope/package.json');
    return 'exoscope';
  } catch {
    throw new UsageError(
      `new: ${folder} is outside a checkout of Exoscope, and no package 'exoscope' is found from ` +
        'there; npm install it there first, or choose --dir inside a checkout',
    );
  }
}

const className = (name: string): string =>
  name.replace(/(^|-)([a-z0-9])/g, (_, __, letter: string) => letter.toUpperCase());

/** The text of a file of examples/, with its name and the way to its imports exchanged. */
function textOf(file: string, name: string, prefix: string): string {
  return readFileSync(join(ROOT, 'examples', file), 'utf8')
    .replaceAll("'../", `'${prefix}/`)
    .replaceAll('examples/skeleton', name)
    .replaceAll('skeleton', name)
    .replaceAll('Skeleton', className(name));
}
