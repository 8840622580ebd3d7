/**
 * At a power cut at any moment the tree is legal, and what `sync` returned for is there. Here a
 * short form; `npm run power-cuts` has 2,000 files and 200 cuts.
 */
import { expect, test } from 'vitest';
import * as fc from 'fast-check';
import { cutPower } from './power-cuts.ts';

const LONG = process.env['EXOSCOPE_LONG'] === '1';
const size = LONG ? { files: 2000, cuts: 200 } : { files: 40, cuts: 10 };

test.each(LONG ? (['exokernel', 'vm'] as const) : (['exokernel'] as const))('%s', (mode) => {
  const { problems, cuts, after } = cutPower({
    ...size,
    mode,
    seed: fc.readConfigureGlobal().seed ?? 1,
  });
  expect(problems).toEqual([]);
  expect(cuts).toBe(size.cuts);
  // Cuts fell before the first sync and after others: else this has shown little.
  expect(after[0]).toBeGreaterThan(0);
  expect(after.slice(1).filter((n) => n > 0).length).toBeGreaterThan(0);
});
