/** The lab sheets: each check fails on the skeleton, and passes on the model solution. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { check, CHECKS } from '../../examples/labs/check.ts';

const fileOf = (path: string): string => fileURLToPath(new URL(path, import.meta.url));
const LABS = Object.keys(CHECKS);

describe('a lab sheet', () => {
  test.each(LABS)(
    '%s',
    async (lab) => {
      expect(await check(lab, fileOf(`../../examples/labs/${lab}.ts`))).not.toEqual([]);
      expect(await check(lab, fileOf(`labs/${lab}.ts`))).toEqual([]);
    },
    120_000,
  );

  test('there is one for each, which says how it is checked', () => {
    const folder = fileOf('../../docs/labs/');
    const sheets = readdirSync(folder).sort();
    expect(sheets).toEqual(LABS.map((lab, n) => `${n + 1}-${lab}.md`));
    sheets.forEach((sheet, n) => {
      const text = readFileSync(`${folder}${sheet}`, 'utf8');
      expect(text).toContain(`examples/labs/check.ts ${LABS[n]} mine/${LABS[n]}.ts`);
      expect(text).toContain('**You learn**');
    });
  });

  test('there is no other', async () => {
    await expect(check('nope', 'x.ts')).rejects.toThrow(/no lab 'nope'; there are pages, /);
  });
});
