/**
 * Reads a directory of the host into a tree for the simulated disk. Regular files and directories
 * only: a symbolic link or a device would mean something else there. Names are kept byte for byte.
 */
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Node } from './mkfs.ts';
import type { TreeFacts } from './workloads.ts';

/** A mistake of whoever typed the command: one line, exit status 2, nothing half-written. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

export interface Tree {
  readonly root: Node;
  readonly facts: TreeFacts;
  /** directories, the root included */
  readonly directories: number;
  /** blocks that files and directories fill */
  readonly blocks: number;
  /** entries left out because they are neither file nor directory */
  readonly skipped: number;
  readonly largestFile: number; // bytes
  readonly largestText: number; // bytes; 0 if there is none
}

const NUL = 0;
const BLOCK = 4096;

/** Loads the tree below `path`. Throws UsageError with what was wrong and where. */
export function loadTree(path: string): Tree {
  const facts = { files: 0, bytes: 0, largestText: null as string | null };
  let [largestBytes, largestFile, directories, blocks, skipped] = [-1, 0, 0, 0, 0];

  const readDirectory = (at: Buffer, name: string): Node => {
    directories++;
    const entries = new Map<string, Node>();
    for (const entry of readdirSync(at, { withFileTypes: true, encoding: 'buffer' })) {
      const child = entry.name.toString('latin1');
      const where = Buffer.concat([at, Buffer.from('/'), entry.name]);
      const relative = `${name}/${child}`;
      if (entry.isDirectory()) entries.set(child, readDirectory(where, relative));
      else if (entry.isFile()) {
        const bytes = readFileSync(where);
        facts.files++;
        facts.bytes += bytes.length;
        blocks += Math.ceil(bytes.length / BLOCK) + 2;
        largestFile = Math.max(largestFile, bytes.length);
        const text = bytes.length > largestBytes && !bytes.includes(NUL);
        if (text && !relative.includes('\n')) {
          largestBytes = bytes.length;
          facts.largestText = relative;
        }
        entries.set(child, { kind: 'file', bytes });
      } else skipped++;
    }
    blocks += Math.ceil((entries.size * 64 + 64) / BLOCK) + 1;
    return { kind: 'directory', entries };
  };

  let isDirectory = false;
  try {
    isDirectory = statSync(path).isDirectory();
  } catch (error) {
    throw new UsageError(`--input ${path}: ${reason(error)}; name a directory that you can read`);
  }
  if (!isDirectory) {
    throw new UsageError(`--input ${path}: not a directory; name one, or its parent`);
  }
  try {
    const root = readDirectory(Buffer.from(path), '.');
    const largestText = Math.max(0, largestBytes);
    return { root, facts, directories, blocks, skipped, largestFile, largestText };
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`--input ${path}: ${reason(error)}; every file below it must be readable`);
  }
}

/** The default input: the type declarations of TypeScript's own library, pinned by the lockfile. */
export function defaultTree(typescript: string): Tree {
  const lib = join(typescript, 'lib');
  const entries = new Map<string, Node>();
  const facts = { files: 0, bytes: 0, largestText: null as string | null };
  let [largestFile, blocks] = [0, 2];
  for (const name of readdirSync(lib).sort()) {
    if (!name.startsWith('lib.') || !name.endsWith('.d.ts')) continue;
    const bytes = readFileSync(join(lib, name));
    entries.set(name, { kind: 'file', bytes });
    facts.files++;
    facts.bytes += bytes.length;
    blocks += Math.ceil(bytes.length / BLOCK) + 2;
    if (bytes.length > largestFile) {
      largestFile = bytes.length;
      facts.largestText = `./${name}`;
    }
  }
  if (facts.files === 0) throw new UsageError(`${lib}: no lib.*.d.ts there; run npm ci first`);
  return {
    root: { kind: 'directory', entries },
    facts,
    directories: 1,
    blocks,
    skipped: 0,
    largestFile,
    largestText: largestFile,
  };
}

function reason(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const { code, path } = error as NodeJS.ErrnoException;
  const words: Readonly<Record<string, string>> = {
    ENOENT: 'no such directory',
    EACCES: 'permission denied',
    ENOTDIR: 'not a directory',
  };
  const what = words[code ?? ''] ?? error.message;
  return path === undefined ? what : `${what} (${path})`;
}
