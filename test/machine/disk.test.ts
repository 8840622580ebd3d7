/** The disk: queue and service times, the volatile cache, and what a power cut may do to it. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { Disk, DISK_QUEUE, type DiskRequest, RamMedium, SCATTER } from '../../machine/disk.ts';
import { BLOCK_BYTES, PAGE_BYTES, SECTOR_BYTES } from '../../machine/units.ts';

const TIMING = { access: 1000, block: 10, flush: 500 };
const BLOCKS = 16;

interface Bench {
  readonly disk: Disk;
  readonly medium: RamMedium;
  readonly pages: Uint8Array[];
  /** Runs everything queued to its end; the times at which requests ended. */
  drain(): number[];
  submit(request: DiskRequest, now?: number): void;
}

function bench(medium = new RamMedium(BLOCKS), pageCount = 4): Bench {
  const pages = Array.from({ length: pageCount }, () => new Uint8Array(PAGE_BYTES));
  const at = (ppn: number): Uint8Array => pages[ppn] ?? new Uint8Array(PAGE_BYTES);
  const disk = new Disk(medium, TIMING, at, (ppn, bytes) => at(ppn).set(bytes));
  let due: number | null = null;
  return {
    disk,
    medium,
    pages,
    submit: (request, now = 0) => {
      due = disk.submit(request, now) ?? due;
    },
    drain: () => {
      const times: number[] = [];
      while (due !== null) {
        times.push(due);
        due = disk.finish(due);
      }
      return times;
    },
  };
}

const read = (medium: RamMedium, block: number): Uint8Array => {
  const bytes = new Uint8Array(BLOCK_BYTES);
  medium.read(block, bytes);
  return bytes;
};
const all = (value: number): Uint8Array => new Uint8Array(BLOCK_BYTES).fill(value);

describe('the disk', () => {
  test('serves in order, one at a time, each for its access, its blocks and its flush', () => {
    const b = bench();
    b.submit({ tag: 1, write: true, block: 0, pages: [0] }, 100);
    b.submit({ tag: 2, write: false, block: 4, pages: [1, 2, 3] }, 100);
    b.submit({ tag: 3, write: true, block: 8, pages: [0, 1], force: true }, 150);
    b.submit({ tag: 4, write: false, block: 0, pages: [], flush: true }, 160);
    expect(b.disk.complete()).toBe(null);
    expect(b.drain()).toEqual([1110, 1110 + 1030, 2140 + 1520, 3660 + 1500]);
    const tags = [1, 2, 3, 4].map((tag) => ({ tag, ok: true }));
    expect(tags.map(() => b.disk.complete())).toEqual(tags);
    expect(b.disk.complete()).toBe(null);
  });

  test('the queue is bounded and says so', () => {
    const b = bench();
    expect(b.disk.room).toBe(DISK_QUEUE);
    for (let tag = 0; tag < DISK_QUEUE; tag++)
      b.submit({ tag, write: false, block: 0, pages: [0] });
    expect(b.disk.room).toBe(0);
    expect(() => b.submit({ tag: 0, write: false, block: 0, pages: [0] })).toThrow(
      'broken promise',
    );
    b.drain();
    expect(b.disk.room).toBe(DISK_QUEUE);
    expect(b.disk.pending).toBe(true);
  });

  test('a block that is not there, and a list that is too long, are a Bug', () => {
    const b = bench();
    const pages = Array.from({ length: SCATTER + 1 }, () => 0);
    for (const request of [
      { tag: 0, write: false, block: BLOCKS, pages: [0] },
      { tag: 0, write: false, block: BLOCKS - 1, pages: [0, 1] },
      { tag: 0, write: false, block: -1, pages: [0] },
      { tag: 0, write: false, block: Number.NaN, pages: [0] },
      { tag: 0, write: false, block: 0, pages },
    ]) {
      expect(() => b.submit(request)).toThrow('broken promise');
      expect(b.disk.room).toBe(DISK_QUEUE);
    }
  });

  test('bytes move when the request ends, not before', () => {
    const b = bench();
    b.pages[0]?.fill(1);
    b.submit({ tag: 0, write: true, block: 3, pages: [0] });
    b.submit({ tag: 1, write: false, block: 3, pages: [1] });
    b.pages[0]?.fill(2);
    expect(b.pages[1]).toEqual(all(0));
    b.drain();
    expect(b.pages[1]).toEqual(all(2));
  });

  test('a write is volatile until a flush, a forced one is not; reads see both', () => {
    const b = bench();
    b.pages[0]?.fill(1);
    b.submit({ tag: 0, write: true, block: 1, pages: [0] });
    b.submit({ tag: 1, write: true, block: 2, pages: [0], force: true });
    b.submit({ tag: 2, write: false, block: 1, pages: [2, 3] });
    b.drain();
    expect([b.pages[2], b.pages[3]]).toEqual([all(1), all(1)]);
    expect([read(b.medium, 1), read(b.medium, 2)]).toEqual([all(0), all(1)]);
    b.submit({ tag: 3, write: false, block: 0, pages: [], flush: true });
    b.drain();
    expect(read(b.medium, 1)).toEqual(all(1));
  });

  test('a forced write replaces what the cache held', () => {
    const b = bench();
    b.pages[0]?.fill(1);
    b.pages[1]?.fill(2);
    b.submit({ tag: 0, write: true, block: 1, pages: [0] });
    b.submit({ tag: 1, write: true, block: 1, pages: [1], force: true });
    b.submit({ tag: 2, write: false, block: 0, pages: [], flush: true });
    b.drain();
    expect(read(b.medium, 1)).toEqual(all(2));
  });

  test('a failed block fails every request that touches it, and moves no byte of it', () => {
    const b = bench();
    b.disk.failBlock(5);
    b.pages[0]?.fill(7);
    b.pages[2]?.fill(8);
    b.submit({ tag: 0, write: true, block: 4, pages: [0, 1], force: true });
    b.submit({ tag: 1, write: false, block: 5, pages: [2] });
    b.submit({ tag: 2, write: true, block: 6, pages: [0], force: true });
    expect(b.drain()).toHaveLength(3);
    expect([b.disk.complete()?.ok, b.disk.complete()?.ok, b.disk.complete()?.ok]).toEqual([
      false,
      false,
      true,
    ]);
    expect(b.pages[2]).toEqual(all(8));
    expect(read(b.medium, 4)).toEqual(all(0));
    expect(read(b.medium, 6)).toEqual(all(7));
  });

  test('shutting down in good order loses nothing', () => {
    const b = bench();
    b.pages[0]?.fill(3);
    b.submit({ tag: 0, write: true, block: 9, pages: [0] });
    b.drain();
    b.disk.shutDown();
    expect(read(b.medium, 9)).toEqual(all(3));
  });

  test('after a power cut the disk is as new: no queue, no completions, no cache', () => {
    const b = bench();
    for (let tag = 0; tag < 5; tag++) b.submit({ tag, write: true, block: tag, pages: [0] });
    b.drain();
    b.disk.powerCut(() => 1);
    expect(b.disk.room).toBe(DISK_QUEUE);
    expect(b.disk.complete()).toBe(null);
    b.submit({ tag: 9, write: false, block: 2, pages: [1] }, 50_000);
    b.drain();
    expect(b.disk.complete()).toEqual({ tag: 9, ok: true });
  });

  test('a base is never written', () => {
    const base = new Map([[2, all(5)]]);
    const b = bench(new RamMedium(BLOCKS, base));
    b.pages[0]?.fill(6);
    b.submit({ tag: 0, write: true, block: 2, pages: [0], force: true });
    b.drain();
    expect(base.get(2)).toEqual(all(5));
    expect(read(new RamMedium(BLOCKS, base), 2)).toEqual(all(5));
    expect(read(b.medium, 2)).toEqual(all(6));
  });

  // Writes, flushes and forced writes at random, the power cut after some of them. Each write has a
  // number of its own in every byte, so that a sector tells which write it is of.
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ block: fc.nat(3), force: fc.constantFrom(false, false, true) }),
    },
    { weight: 2, arbitrary: fc.constant('flush' as const) },
  );

  test('a power cut keeps what was flushed, and tears the rest at sectors only', () => {
    let torn = 0;
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 20 }),
        fc.nat(20),
        fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), {
          minLength: 1,
          maxLength: 40,
        }),
        (steps, completed, chances) => {
          const b = bench();
          // Per block: what is durable, and the last completed write after it.
          const durable = [0, 0, 0, 0];
          const cached: (number | null)[] = [null, null, null, null];
          steps.forEach((s, n) => {
            b.pages[0]?.fill(n + 1);
            const request: DiskRequest =
              s === 'flush'
                ? { tag: n, write: false, block: 0, pages: [], flush: true }
                : { tag: n, write: true, block: s.block, pages: [0], force: s.force };
            b.submit(request, n * 1e6);
            if (n >= completed) return; // still in the queue when the power goes
            b.drain();
            if (s === 'flush') {
              cached.forEach((value, block) => {
                if (value !== null) durable[block] = value;
                cached[block] = null;
              });
            } else if (s.force) {
              durable[s.block] = n + 1;
              cached[s.block] = null;
            } else cached[s.block] = n + 1;
          });
          let draw = 0;
          b.disk.powerCut(() => chances[draw++ % chances.length] ?? 0);
          for (let block = 0; block < 4; block++) {
            const bytes = read(b.medium, block);
            const allowed = [durable[block], cached[block] ?? durable[block]];
            const sectors = new Set<number>();
            for (let at = 0; at < BLOCK_BYTES; at += SECTOR_BYTES) {
              const sector = new Set(bytes.subarray(at, at + SECTOR_BYTES));
              expect(sector.size).toBe(1); // a sector is of one write
              const [of] = sector;
              expect(allowed).toContain(of);
              if (of !== undefined) sectors.add(of);
            }
            if (sectors.size > 1) torn++;
          }
          for (let block = 4; block < BLOCKS; block++) expect(read(b.medium, block)[0]).toBe(0);
        },
      ),
      { numRuns: 400 },
    );
    expect(torn).toBeGreaterThan(5); // the cut really tears
  });
});
