/** The table of disks: what each model is said to save it saves, and no model moves other data. */
import { expect, test } from 'vitest';

import { blockTable, type Counted, measure } from '../../lab/block-io.ts';
import type { DiskModel } from '../../kernel/hypervisor/state.ts';

test('a doorbell each, for the first of a burst, for none; the hardware takes no exit at all', () => {
  const of = (disk: DiskModel, depth: number): Counted => measure('vm', disk, depth);
  const requests = of('emulated', 1).doorbells;
  expect(of('emulated', 4).doorbells).toBe(requests);
  const split = of('split', 4);
  expect(split.doorbells).toBeLessThan(requests / 10);
  const passed = of('passthrough', 4);
  expect(passed.doorbells).toBe(0);
  expect(passed.cycles).toBeLessThan(split.cycles);
  // One at a time, the ring has nothing to hold off.
  expect(of('split', 1).doorbells).toBe(requests);
  const bare = measure('bare', null, 4);
  expect(bare.exits).toBe(0);
  expect(bare.cycles).toBeLessThan(passed.cycles);
  const lines = blockTable([bare, split, passed]).split('\n');
  expect(lines).toHaveLength(6);
  expect(lines[4]).toMatch(/^vm +split +4 +1\.0\d +0\.0\d +[\d,]+ +[\d,]+$/);
});
