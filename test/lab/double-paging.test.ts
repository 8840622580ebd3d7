/** The table of double paging: who may choose loses as much asked in either way, and less. */
import { expect, test } from 'vitest';

import { measure, PATTERNS, pagingTable } from '../../lab/double-paging.ts';

const zipf = PATTERNS['zipf'] ?? (() => 0);

test('asked by an exokernel or a balloon: the same refaults; blindly: more of all', () => {
  const [asked, balloon] = [measure('exokernel asks', zipf), measure('balloon', zipf)];
  const [alone, blind] = [measure('vm, nobody', zipf), measure('blind swap', zipf)];
  expect([asked.frames, balloon.frames, blind.frames]).toEqual([96, 96, 128]);
  expect([balloon.refaults, balloon.disk]).toEqual([asked.refaults, asked.disk]);
  expect([asked.out, balloon.out, balloon.back]).toEqual([0, 0, 0]);
  // It believes to have all of its frames, and pages as if.
  expect(blind.refaults).toBe(alone.refaults);
  expect(blind.disk).toBeGreaterThan(alone.disk + blind.back);
  expect(blind.back).toBeGreaterThan(balloon.refaults - alone.refaults);
  expect(blind.elapsed).toBeGreaterThan(1.5 * balloon.elapsed);
  expect(blind.cycles).toBeGreaterThan(balloon.cycles);
  expect(asked.cycles).toBeLessThan(balloon.cycles);
  expect(pagingTable('zipf', [asked, blind]).split('\n')).toHaveLength(5);
});
