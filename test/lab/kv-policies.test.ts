/** The store's own policy against LRU when half of its memory is revoked: `lab/kv-policies.ts`. */
import { expect, test } from 'vitest';
import { measure, policyTable } from '../../lab/kv-policies.ts';
import { LRU, TWO_QUEUES } from '../../libos/parts/replacement.ts';

const ROUNDS = 48; // three times over all keys, and more

test('after the revocation 2Q reads again less than two thirds of what LRU does', () => {
  const [lru, own] = [measure(LRU, ROUNDS), measure(TWO_QUEUES, ROUNDS)];
  expect([lru.frames, own.frames]).toEqual([80, 80]);
  expect(own.after.refaults).toBeLessThan((lru.after.refaults * 2) / 3);
  // The load itself is no easier for one of them.
  const uses = own.before.reads / lru.before.reads;
  expect(uses).toBeGreaterThan(0.95);
  expect(uses).toBeLessThan(1.05);
  const table = policyTable([lru, own]);
  expect(table).toContain(own.after.refaults.toLocaleString('en-US'));
});
