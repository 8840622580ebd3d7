/**
 * The lists of `npm run mistakes` are held to the source: each text is there, once, and the test that
 * is to catch the mistake has a file. That it does catch it is what the command tries.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

import { BREACHES } from '../check/mistakes/hypervisor.ts';
import { INEXPRESSIBLE, type Mistake, MISTAKES } from '../check/mistakes/list.ts';
import { spoilt } from '../check/mistakes/main.ts';

const ROOT = join(import.meta.dirname, '..');

describe('mistakes', () => {
  test.each([...MISTAKES, ...BREACHES])('$number: $title', (mistake) => {
    const source = readFileSync(join(ROOT, mistake.file), 'utf8');
    const text = spoilt(source, mistake);
    expect(text).not.toBe(source);
    const [file, name] = mistake.test;
    expect(existsSync(join(ROOT, file))).toBe(true);
    expect(readFileSync(join(ROOT, file), 'utf8')).toContain(name.split(':')[0]);
  });

  test('all thirteen can be made, or it is said why not', () => {
    const all = [...MISTAKES, ...INEXPRESSIBLE].map(({ number }) => parseInt(number, 10));
    expect([...new Set(all)].sort((a, b) => a - b)).toEqual(
      Array.from({ length: 13 }, (_, n) => n + 1),
    );
    const numbers = MISTAKES.map(({ number }) => number);
    expect(new Set(numbers).size).toBe(numbers.length);
  });

  test('a text that is not there, or twice, is refused; one with a $ is taken as it stands', () => {
    const mistake: Mistake = { ...(MISTAKES[0] as Mistake), text: 'b', instead: "$&$'" };
    expect(spoilt('abc', mistake)).toBe("a$&$'c");
    expect(() => spoilt('ac', mistake)).toThrow('found 0 times');
    expect(() => spoilt('abcb', mistake)).toThrow('found 2 times');
  });
});
