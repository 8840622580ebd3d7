/**
 * Replacement policies and the block cache that asks them. Each policy is held to a model of it that
 * is a list in host memory, over random uses; then what each is for.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { CLOCK, LRU, MRU, type Policy, TWO_QUEUES } from '../../../libos/parts/replacement.ts';
import { BlockCache, tablesBytes } from '../../../libos/parts/block-cache.ts';
import { countsOf } from '../../../libos/parts/transfers.ts';
import { type Bench, bench } from './bench.ts';

const FRAMES = 8;
const BLOCKS = 40;

/** The plain cache: which blocks a policy keeps, told in order of use. */
interface Plain {
  use(block: number): boolean; // true: it was there
}

function recency(newest: boolean): Plain {
  const held: number[] = []; // most recent last
  return {
    use(block) {
      const at = held.indexOf(block);
      if (at >= 0) held.splice(at, 1);
      else if (held.length === FRAMES) {
        if (newest) held.pop();
        else held.shift();
      }
      held.push(block);
      return at >= 0;
    },
  };
}

function clock(): Plain {
  const frames: { block: number; used: boolean }[] = [];
  const free = Array.from({ length: FRAMES }, (_, n) => n).reverse(); // frames are given in order
  let hand = 0;
  return {
    use(block) {
      const there = frames.find((frame) => frame?.block === block);
      if (there !== undefined) {
        there.used = true;
        return true;
      }
      let to = free.shift();
      while (to === undefined) {
        const frame = frames[hand];
        if (frame?.used === false) to = hand;
        else if (frame !== undefined) frame.used = false;
        hand = (hand + 1) % FRAMES;
      }
      frames[to] = { block, used: true };
      return false;
    },
  };
}

function twoQueues(): Plain {
  const fresh: number[] = []; // oldest first
  const main: number[] = [];
  const gone: number[] = []; // every eviction from `fresh`, oldest first
  return {
    use(block) {
      if (fresh.includes(block)) return true;
      const at = main.indexOf(block);
      if (at >= 0) {
        main.push(...main.splice(at, 1));
        return true;
      }
      if (fresh.length + main.length === FRAMES) {
        const out = fresh.length * 4 > FRAMES || main.length === 0 ? fresh.shift() : undefined;
        if (out !== undefined) gone.push(out);
        else main.shift();
      }
      const held = fresh.length + main.length;
      const lately = gone.slice(Math.max(0, gone.length - Math.ceil(held / 2)));
      if (lately.includes(block) && gone.lastIndexOf(block) >= gone.length - Math.ceil(held / 2)) {
        main.push(block);
      } else fresh.push(block);
      return false;
    },
  };
}

/** A cache of FRAMES frames with the policy, in an environment. */
function* cacheOf(at: Bench, policy: Policy): Generator<unknown, BlockCache, void> {
  const { sys, self, extent, space, pages } = at;
  const tables = tablesBytes(FRAMES, policy, BLOCKS);
  const cache = new BlockCache(sys, {
    frames: FRAMES,
    data: space(FRAMES * 4096),
    tables: space(tables),
    shadow: space(BLOCKS * 4),
    blocks: BLOCKS,
    policy,
    extent,
    extentSlot: 0,
    pageSlot: 0,
    ...countsOf(self),
  });
  for (let n = 0; n < FRAMES; n++) yield* cache.setPage(n, pages[n] ?? 0);
  return cache;
}

const MODELS: readonly (readonly [Policy, () => Plain])[] = [
  [LRU, () => recency(false)],
  [MRU, () => recency(true)],
  [CLOCK, clock],
  [TWO_QUEUES, twoQueues],
];

describe('each policy keeps what its model keeps', () => {
  test.each(MODELS.map(([policy, model]) => [policy.name, policy, model] as const))(
    '%s',
    (_, policy, model) => {
      const block = fc.oneof(fc.nat({ max: BLOCKS - 1 }), fc.nat({ max: 11 }));
      fc.assert(
        fc.property(fc.array(block, { minLength: 30, maxLength: 120 }), (uses) => {
          const plain = model();
          const expected = uses.map((use) => plain.use(use));
          const found: boolean[] = [];
          let refaults = -1;
          bench(function* (at) {
            const cache = yield* cacheOf(at, policy);
            for (const use of uses) {
              const { hits } = yield* cache.counts();
              expect(yield* cache.get(use)).toBeGreaterThanOrEqual(0);
              found.push((yield* cache.counts()).hits > hits);
            }
            ({ refaults } = yield* cache.counts());
          });
          expect(found).toEqual(expected);
          const misses = expected.filter((there) => !there).length;
          expect(refaults).toBe(misses - new Set(uses).size);
        }),
        { numRuns: 8 },
      );
    },
  );
});

describe('the cache', () => {
  test('gives up frames one by one, the ones its policy needs least, and goes on with fewer', () => {
    bench(function* (at) {
      const cache = yield* cacheOf(at, LRU);
      for (let n = 0; n < FRAMES; n++) yield* cache.get(n);
      yield* cache.get(0); // used last
      const given: number[] = [];
      for (let n = 0; n < FRAMES - 1; n++) {
        const out = yield* cache.release((page) => page !== at.pages[3]);
        if (out !== null) given.push(out.frame);
      }
      // Not the one whose page was not to be given; the one used last at the end.
      expect(given).toHaveLength(FRAMES - 1);
      expect(given).not.toContain(3);
      expect(yield* cache.release((page) => page !== at.pages[3])).toBeNull();
      for (let n = 0; n < 20; n++) expect(yield* cache.get(n)).toBe(at.data + 3 * 4096);
    });
  });

  test('a dirty frame that is released is on the disk', () => {
    const medium = bench(function* (at) {
      const cache = yield* cacheOf(at, TWO_QUEUES);
      const address = yield* cache.fresh(5);
      yield* at.sys.port.store(address, 0x600d);
      yield* cache.dirty(address);
      for (let n = 0; n < FRAMES; n++) expect(yield* cache.release(() => true)).not.toBeNull();
      expect(yield* cache.get(1)).toBe(-1); // there is no frame for it
    });
    const block = new Uint8Array(4096);
    medium.read(5, block);
    expect(new DataView(block.buffer).getInt32(0, true)).toBe(0x600d);
  });

  test('what is forgotten is read again, and is no refault', () => {
    bench(function* (at) {
      const cache = yield* cacheOf(at, CLOCK);
      yield* cache.get(7);
      yield* cache.forget(0, 10);
      yield* cache.get(7);
      expect(yield* cache.counts()).toEqual({ hits: 0, misses: 2, refaults: 0, evictions: 0 });
    });
  });

  test('a frame whose page was taken by force is not used again', () => {
    bench(function* (at) {
      const cache = yield* cacheOf(at, LRU);
      yield* cache.get(1);
      const taken = at.pages[0] ?? 0;
      const lost = yield* cache.lose(function* (page) {
        yield* at.sys.nullCall();
        return page !== taken;
      });
      expect(lost).toEqual([0]);
      for (let n = 0; n < 30; n++) expect(yield* cache.get(n)).not.toBe(at.data);
    });
  });
});
