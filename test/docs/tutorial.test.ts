/** docs/tutorial.md is run: its pieces make the library OS, its commands print what it says. */
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { codeLinesOf } from '../../lab/lines.ts';
import { commandsOf, expectTold, run } from './told.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const text = readFileSync(join(ROOT, 'docs/tutorial.md'), 'utf8');
const pieces = [...text.matchAll(/^```ts\n([\s\S]*?)^```$/gm)].map(([, code]) => code ?? '');
const FILES = ['pager.ts', 'pager.test.ts'].map((file) => join(ROOT, 'mine', file));
const HIDDEN = (file: string): string => `${file}.aside`;

// Somebody who follows the tutorial has files of these names.
beforeAll(() => {
  mkdirSync(join(ROOT, 'mine'), { recursive: true });
  for (const file of FILES) if (existsSync(file)) renameSync(file, HIDDEN(file));
});
afterAll(() => {
  for (const file of FILES) {
    rmSync(file, { force: true });
    if (existsSync(HIDDEN(file))) renameSync(HIDDEN(file), file);
  }
});

describe('docs/tutorial.md', () => {
  test('its pieces are examples/pager.ts, under 150 lines of code', () => {
    const pager = readFileSync(join(ROOT, 'examples/pager.ts'), 'utf8');
    const bare = (code: string): string =>
      code
        .replace(/^\/\*\*[\s\S]*?\*\/\n/, '')
        .split('\n')
        .filter((line) => line.trim() !== '')
        .join('\n');
    expect(pieces.join('')).toContain('extends LibOS');
    expect(
      pieces
        .join('')
        .split('\n')
        .filter((line) => line.trim() !== '')
        .join('\n'),
    ).toBe(bare(pager));
    const lines = codeLinesOf(pieces.join('\n'));
    expect(lines).toBeLessThan(150);
    expect(text).toContain(`The whole of it is ${lines} lines of code`);
  });

  test('its commands print what it says', async () => {
    const file = FILES[0] ?? '';
    const whole = pieces.join('\n');
    for (const told of commandsOf(text)) {
      // The file of the reader: the skeleton, then the pieces, then with the other policy.
      if (told.prints.some((line) => line.includes('22 faults'))) {
        writeFileSync(file, whole.replace('pager(fifo);', 'pager(newest);'));
      } else if (told.command.startsWith('run') && !told.prints.join().includes('499500')) {
        writeFileSync(file, whole);
      }
      expectTold((await run(told.command.split(' '))).text, told);
    }
  }, 120_000);
});
