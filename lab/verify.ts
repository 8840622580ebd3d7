/**
 * The independent side of every measurement: the host's own tools do the same work on the same
 * files, and their standard output is what the simulated Unix must have printed, byte for byte.
 * Nothing of the library OS is imported here.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Expected {
  readonly command: string;
  readonly sha256: string;
  readonly bytes: number;
}

const OUTPUT_MAX = 1 << 30;

/** Runs `command` by sh in `directory`, LC_ALL=C, no input. Its exit status does not matter. */
export function expect(command: string, directory: string): Expected & { stdout: Buffer } {
  const { stdout, error } = spawnSync('sh', ['-c', inBytes(command)], {
    cwd: directory,
    env: { ...process.env, LC_ALL: 'C' },
    maxBuffer: OUTPUT_MAX,
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  if (error !== undefined) throw new Error(`host command could not run: ${error.message}`);
  const sha256 = createHash('sha256').update(stdout).digest('hex');
  return { command, sha256, bytes: stdout.length, stdout };
}

/** Characters are bytes here, and Node would encode them: a command beyond ASCII goes in octal. */
function inBytes(command: string): string {
  if (/^[\0-\x7f]*$/.test(command)) return command;
  const bytes = [...Buffer.from(command, 'latin1')];
  const octal = bytes.map((byte) => `\\${byte.toString(8).padStart(3, '0')}`).join('');
  return `eval "$(printf '${octal}')"`;
}

/** A directory with just the default input's files, for the host's tools to work in. */
export function defaultDirectory(typescript: string): string {
  const directory = mkdtempSync(join(tmpdir(), 'exoscope-'));
  const lib = join(typescript, 'lib');
  for (const name of readdirSync(lib)) {
    if (!name.startsWith('lib.') || !name.endsWith('.d.ts')) continue;
    copyFileSync(join(lib, name), join(directory, name));
  }
  return directory;
}

export function removeDirectory(directory: string): void {
  rmSync(directory, { recursive: true, force: true });
}
