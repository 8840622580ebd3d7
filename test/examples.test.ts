/** Each example prints what its opening comment says, and is no longer than a person reads. */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

const FOLDER = new URL('../examples/', import.meta.url);
const NUMBERED = readdirSync(FOLDER).filter((file) => /^\d\d-/.test(file));

/** The indented lines of a file's opening comment. */
function promised(text: string): string {
  const comment = /^\/\*\*\n([\s\S]*?)\n \*\//.exec(text)?.[1] ?? '';
  const lines = comment.split('\n').map((line) => line.replace(/^ \* ?/, ''));
  const first = lines.findIndex((line) => line.startsWith('    '));
  const last = lines.findLastIndex((line) => line.startsWith('    '));
  return lines
    .slice(first, last + 1)
    .map((line) => `${line.slice(4)}\n`)
    .join('');
}

describe('examples', () => {
  test('are numbered without gaps', () => {
    expect(NUMBERED.map((file) => Number(file.slice(0, 2)))).toEqual(NUMBERED.map((_, n) => n + 1));
  });

  test.each(NUMBERED)('%s asks one question, and prints what it says', async (file) => {
    const text = readFileSync(new URL(file, FOLDER), 'utf8');
    expect(text).toMatch(/^\/\*\*\n \* \d\d [^?]+\?\n/);
    expect(text).toContain('Now change this line: ');
    expect(text.split('\n').length).toBeLessThan(120);
    const { show } = (await import(new URL(file, FOLDER).href)) as {
      show: () => string | Promise<string>;
    };
    const printed = (await show()).split('\n').map((line) => `${line.trimEnd()}\n`);
    expect(printed.slice(0, -1).join('')).toBe(promised(text));
  });
});
