/**
 * Checkpoints: opening reads little, whatever is old need not be readable then, and none of it
 * takes room from those who put. That a power cut at any write of one is survived, crash.test.ts
 * shows.
 */
import { expect, test } from 'vitest';
import { KvStatus } from '../../../libos/kv/protocol.ts';
import type { StoreCounts } from '../../../libos/kv/store.ts';
import { contents, diskOf, live, look, type Model, type Perishable } from './lives.ts';

const BLOCKS = 1024; // 32 segments of 32 blocks
const SEGMENT_BLOCKS = 32;
const KEYS = 320; // 6,000 bytes each: about 15 segments
const keyOf = (n: number): string => `key ${n}`;

/** A store with so many keys, of which a few have been put again and again since. */
function aged(): { medium: Perishable; model: Model; counts: StoreCounts } {
  const medium = diskOf(BLOCKS);
  const model = new Map<string, string>();
  let counts: StoreCounts | null = null;
  const { said } = live(
    medium,
    function* ({ store, put }) {
      for (let n = 0; n < KEYS * 2; n++) {
        const key = keyOf(n < KEYS ? n : n % 20);
        const value = `${n} `.padEnd(6_000, 'v');
        expect(yield* put(key, value)).toBe(KvStatus.ok);
        model.set(key, value);
      }
      expect(yield* store.sync()).toBe(KvStatus.ok);
      counts = yield* store.counts();
    },
    { quota: 200 },
  );
  expect(said).toBe('');
  if (counts === null) throw new Error('it did not end');
  return { medium, model, counts };
}
const { medium: old, model, counts } = aged();

test('opening reads headers, the checkpoint and what came after it', () => {
  expect(counts.checkpoints).toBeGreaterThanOrEqual(2);
  const inUse = 32 - counts.freeSegments;
  expect(inUse).toBeGreaterThan(18);
  const medium = old.copy();
  const before = medium.reads;
  const { said } = live(
    medium,
    function* ({ store }) {
      expect((yield* store.counts()).keys).toBe(KEYS);
    },
    { quota: 200 },
  );
  expect(said).toBe('');
  // A block of each segment; a checkpoint of one; eight segments and the one being filled, twice.
  const most = 32 + (1 + 8 + 2) * SEGMENT_BLOCKS;
  expect(medium.reads - before).toBeLessThanOrEqual(most);
  expect(most).toBeLessThan(inUse * SEGMENT_BLOCKS);
  expect(contents(medium, { quota: 200 })).toEqual(model);
});

test('a block of what is old is damaged: the store opens, and says so of the keys that it held', () => {
  const medium = old.copy();
  // The segments that were filled first hold keys that were never put again.
  for (const block of [40, 70]) {
    medium.spoil(block, (data) => {
      data[2_000] = (data[2_000] ?? 0) ^ 4;
    });
  }
  const { said, found, unread } = look(medium, { quota: 200, disk: (disk) => disk.failBlock(100) });
  expect(said).toBe('');
  expect([...new Set(unread.values())].sort()).toEqual([KvStatus.disk, KvStatus.corrupt]);
  // A record of 6,000 bytes lies on two blocks or three, and a block holds parts of three at most.
  expect(unread.size).toBeGreaterThanOrEqual(3);
  expect(unread.size).toBeLessThanOrEqual(5);
  for (const [key, value] of model) {
    expect([key, found.get(key)]).toEqual([key, unread.has(key) ? undefined : value]);
  }
});

test('put again or removed, a key that could not be read is as any other; cleaning goes round', () => {
  const medium = old.copy();
  const disk = (device: { failBlock(block: number): void }): void => device.failBlock(100);
  const first = look(medium, { quota: 200, disk });
  const [lost = '', ...others] = first.unread.keys();
  const expected = new Map(first.found);
  const life = live(
    medium,
    function* ({ store, put }) {
      for (const key of others) expect(yield* store.remove(new TextEncoder().encode(key))).toBe(0);
      for (let n = 0; n < 600; n++) {
        const [key, value] = [keyOf(n % 25), `again ${n}`.padEnd(6_000, 'w')];
        expect(yield* put(key, value)).toBe(KvStatus.ok);
        expected.set(key, value);
      }
      expect(yield* put(lost, 'found')).toBe(KvStatus.ok);
      expected.set(lost, 'found');
      expect((yield* store.counts()).cleanings).toBeGreaterThan(10);
      expect(yield* store.sync()).toBe(KvStatus.ok);
    },
    { quota: 200, disk },
  );
  expect(life.said).toBe('');
  const { said, found, unread } = look(medium, { quota: 200, disk });
  expect([said, [...unread]]).toEqual(['', []]);
  expect(found).toEqual(expected);
});

test('a store that is filled up has no checkpoint, and all its room', () => {
  const medium = diskOf(48); // 16 segments of three blocks
  const model = new Map<string, string>();
  let last: StoreCounts | null = null;
  let most = 0;
  const { said } = live(medium, function* ({ store, put }) {
    for (let n = 0; n < 2_000; n++) {
      const key = keyOf(n < 60 ? n : n - 40);
      const value = 'f'.repeat(400);
      const status = yield* put(key, value);
      last = yield* store.counts();
      most = Math.max(most, last.pinnedSegments);
      if (status === KvStatus.full) break;
      expect(status).toBe(KvStatus.ok);
      model.set(key, value);
    }
    expect(yield* store.sync()).toBe(KvStatus.ok);
  });
  expect(said).toBe('');
  expect(most).toBeGreaterThan(0);
  const end = last as StoreCounts | null;
  expect(end?.pinnedSegments).toBe(0);
  // Seven eighths of thirteen segments.
  expect(end?.neededBytes).toBeGreaterThan(13 * 11_000 * (7 / 8) - 2_000);
  expect(contents(medium)).toEqual(model);
});
