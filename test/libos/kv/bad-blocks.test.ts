/**
 * Blocks that the disk does not write or read any more, and requests that fail by chance. What was
 * answered ok stays so; what cannot be read is told, key by key, and nothing is ever made up.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { KvStatus } from '../../../libos/kv/protocol.ts';
import type { StoreCounts } from '../../../libos/kv/store.ts';
import type { Disk } from '../../../machine/disk.ts';
import {
  type Act,
  after,
  contents,
  type Direct,
  diskOf,
  doing,
  live,
  look,
  type Model,
  modelsOf,
  type Perishable,
  script,
  dice,
} from './lives.ts';
import { bytes, text } from './rig.ts';
import type { Op } from '../../../libos/libos.ts';

const BLOCKS = 48; // 16 segments of three blocks

const mishap = fc.record({
  act: fc.nat({ max: 249 }), // it happens before this one
  block: fc.nat({ max: BLOCKS - 1 }),
  times: fc.constantFrom(1, 2, 3, 10_000), // requests that fail; many: for good
});

/** Does the acts while blocks go bad: the model, as far as it was answered. */
function* through(
  { store, put }: Direct,
  acts: readonly Act[],
  before: (act: number) => void,
): Op<Model> {
  let model: Model = new Map();
  for (const [n, act] of acts.entries()) {
    before(n);
    const { key, value } = act;
    const status = yield* value === null ? store.remove(bytes(key)) : put(key, value);
    const had = model.has(key);
    expect([n, status]).toEqual([n, value === null && !had ? KvStatus.absent : KvStatus.ok]);
    model = after(model, act);
    if (act.sync) expect([n, yield* store.sync()]).toEqual([n, KvStatus.ok]);
    const got = yield* store.get(bytes(key));
    // Right, or a refusal: never another value.
    if (got.status === KvStatus.ok) expect(text(got.value)).toBe(model.get(key));
    else expect([KvStatus.absent, KvStatus.disk]).toContain(got.status);
    if (got.status === KvStatus.absent) expect(model.has(key)).toBe(false);
  }
  expect(yield* store.sync()).toBe(KvStatus.ok);
  return model;
}

describe('blocks go bad', () => {
  test('whichever and whenever: every put is taken, every value is right or refused', () => {
    let [retired, unreadable, refused, opened] = [0, 0, 0, 0];
    fc.assert(
      fc.property(
        fc.array(mishap, { minLength: 1, maxLength: 3 }),
        fc.integer(),
        (mishaps, seed) => {
          const medium = diskOf(BLOCKS);
          let device: Disk | null = null;
          let model: Model = new Map();
          const { said } = live(
            medium,
            function* (direct) {
              model = yield* through(direct, script(250, dice(seed)), (act) => {
                for (const one of mishaps.filter((m) => m.act === act)) {
                  device?.failBlock(one.block, one.times);
                }
              });
              retired += (yield* direct.store.counts()).retiredSegments;
            },
            { disk: (disk) => (device = disk) },
          );
          expect(said).toBe('');
          // The next life, on the same disk: what is bad still is.
          const bad = mishaps.filter(({ times }) => times > 10);
          const next = look(medium, {
            disk: (disk) => {
              for (const { block } of bad) disk.failBlock(block);
            },
          });
          if (next.said !== '') {
            expect(next.said).toMatch(
              /^kv: the disk does not read or write block \d+ of the store/,
            );
            refused++;
          } else {
            opened++;
            unreadable += next.unread.size;
            for (const [key, value] of next.found)
              expect([key, value]).toEqual([key, model.get(key)]);
            expect(next.found.size + next.unread.size).toBe(model.size);
          }
          // And if the disk is mended, everything is there.
          expect(contents(medium)).toEqual(model);
        },
      ),
      { numRuns: 25 },
    );
    expect(retired).toBeGreaterThan(3);
    expect(opened).toBeGreaterThan(10);
    expect(refused + unreadable).toBeGreaterThan(0);
  });

  test('requests that fail by chance are tried again, and retire nothing', () => {
    const medium = diskOf(BLOCKS);
    const acts = script(700, dice(7));
    let counts: StoreCounts | null = null;
    let model: Model = new Map();
    let device: Disk | null = null;
    const { said } = live(
      medium,
      function* (direct) {
        model = yield* through(direct, acts, (n) => {
          device?.failBlock(((n + 47) * 7) % BLOCKS, 0);
          device?.failBlock((n * 7) % BLOCKS, 2);
        });
        counts = yield* direct.store.counts();
      },
      { disk: (disk) => (device = disk) },
    );
    expect(said).toBe('');
    const { retiredSegments, cleanings } = counts ?? { retiredSegments: -1, cleanings: 0 };
    expect(retiredSegments).toBe(0);
    expect(cleanings).toBeGreaterThan(4);
    expect(contents(medium)).toEqual(model);
  });

  test('a retired segment is never written again, not in another life either', () => {
    const medium = diskOf(BLOCKS);
    const acts = script(300, dice(11));
    let device: Disk | null = null;
    const bad = 19; // of segment 6
    const writes = record(medium);
    const first = live(
      medium,
      function* (direct) {
        yield* doing(acts.slice(0, 30), () => undefined)(direct);
        device?.failBlock(bad);
        yield* doing(acts.slice(30), () => undefined)(direct);
        expect((yield* direct.store.counts()).retiredSegments).toBe(1);
        expect(yield* direct.store.sync()).toBe(KvStatus.ok);
      },
      { disk: (disk) => (device = disk) },
    );
    // The disk is another, and would write it; the store knows what it knows.
    writes.length = 0;
    const second = live(medium, function* (direct) {
      expect((yield* direct.store.counts()).retiredSegments).toBe(1);
      yield* doing(acts, () => undefined)(direct);
      expect((yield* direct.store.counts()).cleanings).toBeGreaterThan(4);
      expect(yield* direct.store.sync()).toBe(KvStatus.ok);
    });
    expect([first.said, second.said]).toEqual(['', '']);
    expect(writes.length).toBeGreaterThan(100);
    expect(writes.filter((block) => Math.floor(block / 3) === 6)).toEqual([]);
    const twice = modelsOf(acts, modelsOf(acts).at(-1)).at(-1);
    expect(contents(medium)).toEqual(twice);
  });

  test('no write at all for a while: told, nothing is given up, and then all is as before', () => {
    const medium = diskOf(BLOCKS);
    let device: Disk | null = null;
    const all = (times: number): void => {
      for (let block = 0; block < BLOCKS; block++) device?.failBlock(block, times);
    };
    let told = 0;
    const { said } = live(
      medium,
      function* ({ store, put }) {
        for (let n = 0; n < 40; n++) expect(yield* put(`${n}`, 'before')).toBe(KvStatus.ok);
        expect(yield* store.sync()).toBe(KvStatus.ok);
        all(10_000);
        for (let n = 0; n < 200; n++) {
          const status = yield* put(`${n % 50}`, `during ${n}`.padEnd(500));
          const synced = yield* store.sync();
          if (status !== KvStatus.ok) expect(status).toBe(KvStatus.disk);
          expect(synced).toBe(KvStatus.disk);
          told++;
          // What was durable or still stands in memory can be read.
          const { status: got, value } = yield* store.get(bytes('0'));
          if (got === KvStatus.ok) expect(text(value)).toMatch(/^(before|during)/);
          else expect(got).toBe(KvStatus.disk);
        }
        all(0);
        for (let n = 0; n < 300; n++) {
          expect(yield* put(`${n % 50}`, `after ${n}`.padEnd(500))).toBe(KvStatus.ok);
        }
        expect(yield* store.sync()).toBe(KvStatus.ok);
        expect((yield* store.counts()).retiredSegments).toBe(0);
      },
      { disk: (disk) => (device = disk) },
    );
    expect([said, told]).toEqual(['', 200]);
    const found = contents(medium);
    if (typeof found === 'string') throw new Error(found);
    expect([...found.values()].every((value) => value.startsWith('after'))).toBe(true);
    expect(found.size).toBe(50);
  });
});

/** The blocks that are written from now on. */
function record(medium: Perishable): number[] {
  const writes: number[] = [];
  const write = medium.write.bind(medium);
  medium.write = (block, from) => {
    writes.push(block);
    write(block, from);
  };
  return writes;
}
