/** Trees of real files for the lab's suites, made on the host and taken away again. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';

import type { Files } from '../libos/unix/host.ts';

const made: string[] = [];

afterAll(() => {
  for (const directory of made) {
    chmodSync(directory, 0o700);
    rmSync(directory, { recursive: true, force: true });
  }
});

/** A fresh directory that holds the files; a path with / at the end is a directory. */
export function directoryOf(files: Files): string {
  const top = mkdtempSync(join(tmpdir(), 'exoscope-test-'));
  made.push(top);
  for (const [path, text] of Object.entries(files)) {
    const parts = path.split('/');
    const name = parts.pop() ?? '';
    mkdirSync(Buffer.from([top, ...parts].join('/'), 'latin1'), { recursive: true });
    const at = Buffer.from(`${top}/${path}`, 'latin1');
    if (name !== '') writeFileSync(at, Buffer.from(text, 'latin1'));
  }
  return top;
}

/** Some hundred lines with a word to be found now and then. */
export const text = (lines: number, seed = 1): string =>
  Array.from({ length: lines }, (_, n) => {
    const k = Math.imul(n + seed, 2_654_435_761) >>> 20;
    return k % 5 === 0 ? `function f${k}()\n` : `line ${k % 50}\n`;
  }).join('');

export const SMALL: Files = {
  'a.ts': text(400),
  'b.ts': text(90, 7),
  'lib/c.ts': text(900, 3),
  'lib/deeper/d': '',
  'lib/deeper/e f': 'no newline at the end: function',
  'lib/binary': `\0\x01function\n${'\xff\xfe'.repeat(3000)}`,
  'none/': '',
};
