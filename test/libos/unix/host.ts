/** The host's own tools: what programs of the simulated Unix are compared with. */
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const OUTPUT_MAX = 64 << 20; // bytes

/** Files: contents by path, each character a byte; a path with / at the end is a directory. */
export type Files = Readonly<Record<string, string>>;

export interface HostOutcome {
  readonly stdout: string; // a byte a character
  readonly status: number;
}

/** Runs `sh -c script` in a fresh directory that holds the files. */
export function runOnHost(files: Files, script: string): HostOutcome {
  const top = mkdtempSync(join(tmpdir(), 'exoscope-'));
  try {
    for (const [path, text] of Object.entries(files)) {
      const parts = path.split('/');
      const name = parts.pop() ?? '';
      const directory = Buffer.from([top, ...parts].join('/'), 'latin1');
      mkdirSync(directory, { recursive: true });
      if (name !== '') {
        const at = Buffer.from([top, path].join('/'), 'latin1');
        writeFileSync(at, Buffer.from(text, 'latin1'));
      }
    }
    const { stdout, status } = spawnSync('sh', ['-c', script], {
      cwd: top,
      env: { PATH: process.env['PATH'] ?? '', LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'ignore'],
      maxBuffer: OUTPUT_MAX,
    });
    return { stdout: stdout.toString('latin1'), status: status ?? -1 };
  } finally {
    rmSync(top, { recursive: true, force: true });
  }
}
