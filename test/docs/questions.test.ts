/** docs/questions.md is run: each command of it prints what it says. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { commandsOf, expectTold, run } from './told.ts';

const text = readFileSync(new URL('../../docs/questions.md', import.meta.url), 'utf8');
const sections = text.split(/^## /m).slice(1);

describe('docs/questions.md', () => {
  test.each(sections.map((section) => [section.split('\n')[0] ?? '', section]))(
    '%s',
    async (_, section) => {
      const told = commandsOf(section);
      expect(told.length).toBeGreaterThan(0);
      for (const one of told) expectTold((await run(one.command.split(' '))).text, one);
    },
    120_000,
  );
});
