/**
 * Queues that are given away: a driver reaches its blocks and what its second stage names, and
 * nothing else, whatever it writes; the queues are served in turn; a reset ends all at once.
 */
import { describe, expect, test } from 'vitest';

import { Disk, RamMedium } from '../../machine/disk.ts';
import { DISK_QUEUES, QueuePage, Queues, SLOT_WORDS } from '../../machine/disk-queues.ts';
import { Memory } from '../../machine/memory.ts';
import { pte, PTE_A, PTE_D, PTE_R, PTE_U, PTE_V, PTE_W } from '../../machine/sv39.ts';
import { BLOCK_BYTES, PAGE_BYTES } from '../../machine/units.ts';

const ROOT = 4; // of the second stage, four pages; then its tables
const OWN = 10; // host page behind guest page 0, and so on
const RING = 7; // guest page
const LEAF = PTE_V | PTE_R | PTE_W | PTE_U | PTE_A;
const TIMING = { access: 100, block: 10, flush: 50 };
const FIRST = 20; // block
const BLOCKS = 4;

/** Guest pages 0 to 7 are host pages 10 to 17; 3 is read-only, 4 is not there, 5 is a kernel's. */
function board() {
  const memory = new Memory(64);
  const entry = (table: number, index: number, value: number): void => {
    memory.put(table * PAGE_BYTES + index * 8, value | 0);
  };
  entry(ROOT, 0, pte(8, PTE_V));
  entry(8, 0, pte(9, PTE_V));
  for (let page = 0; page < 8; page++) {
    if (page !== 4) entry(9, page, pte(OWN + page, LEAF));
  }
  entry(9, 3, pte(OWN + 3, LEAF & ~PTE_W));
  entry(9, 5, pte(OWN + 5, LEAF & ~PTE_U));
  const medium = new RamMedium(64);
  for (let block = 0; block < 64; block++) {
    medium.write(block, new Uint8Array(BLOCK_BYTES).fill(block));
  }
  const queues = new Queues(memory);
  const dma = (ppn: number, bytes: Uint8Array): void => {
    memory.dma(ppn, bytes);
  };
  const disk = new Disk(medium, TIMING, (ppn) => memory.bytes(ppn), dma, queues);
  const to = { root: ROOT, page: RING, firstBlock: FIRST, blocks: BLOCKS };
  queues.assign(0, to);
  const ring = (OWN + RING) * PAGE_BYTES;
  let put = 0;
  /** Puts words into the next slot. */
  const write = (...words: number[]): void => {
    const slot = QueuePage.slots + (put++ % 8) * SLOT_WORDS;
    words.forEach((word, n) => {
      memory.put(ring + (slot + n) * 4, word);
    });
  };
  const play = (): number => {
    let [at, served] = [disk.start(0), 0];
    for (; at !== null; served++) at = disk.finish(at);
    return served;
  };
  const completions = (): number[] =>
    Array.from({ length: memory.get(ring) }, (_, n) =>
      memory.get(ring + (QueuePage.completions + n) * 4),
    );
  return {
    memory,
    medium,
    queues,
    disk,
    write,
    ring: () => queues.ring(0, put),
    play,
    completions,
  };
}
const failed = (tag: number): number => tag | 0x80000000;
const READ = 0;
const WRITE = 1;

describe('a queue that was given away', () => {
  test('moves blocks of its own to and from pages of its own', () => {
    const b = board();
    b.memory.put((OWN + 1) * PAGE_BYTES, 77);
    b.write(1, WRITE, 2, 1, 1);
    b.write(2, READ, 1, 2, 0, 2);
    b.write(3, READ, 3, 1, 3); // a page that may only be read
    b.write(4, WRITE, 3, 1, 3);
    expect(b.ring()).toHaveLength(4);
    expect(b.play()).toBe(4);
    expect(b.completions()).toEqual([1, 2, failed(3), 4]);
    expect(b.memory.get(OWN * PAGE_BYTES)).toBe(0x15151515); // block 21
    expect(b.memory.get((OWN + 2) * PAGE_BYTES)).toBe(77);
    // The dirty bit is set: whoever logs writes sees the device's as well.
    expect(b.memory.get(9 * PAGE_BYTES) & PTE_D).not.toBe(0);
  });

  const refused: [string, number[]][] = [
    ['a block past its last', [1, READ, 4, 1, 0]],
    ['blocks across its end', [1, READ, 3, 2, 0, 1]],
    ['a block below its first', [1, READ, -1, 1, 0]],
    ['a block that wraps round', [1, READ, 2 ** 31 - 1, 2, 0, 1]],
    ['too many pages', [1, READ, 0, 65]],
    ['fewer than none', [1, READ, 0, -1]],
    ['a page that is not there', [1, READ, 0, 1, 4]],
    ['a page without U', [1, WRITE, 0, 1, 5]],
    ['a page beyond its memory', [1, WRITE, 0, 1, 8]],
    ['a page far out', [1, READ, 0, 1, 2 ** 31 - 1]],
    ['a page below 0', [1, READ, 0, 1, -1]],
    ['one good page and one bad', [1, READ, 0, 2, 0, 4]],
  ];
  test.each(refused)('%s: that request fails and moves nothing', (_what, words) => {
    const b = board();
    b.write(...words);
    const before = b.memory.i32.slice();
    b.ring();
    b.play();
    expect(b.completions()).toEqual([failed(1)]);
    const changed = [...b.memory.i32.keys()].filter((n) => b.memory.i32[n] !== before[n]);
    // Its completion, and bits that the walk sets.
    expect(changed.every((n) => [OWN + RING, 9].includes(Math.floor(n / 1024)))).toBe(true);
    const bytes = new Uint8Array(BLOCK_BYTES);
    for (let block = 0; block < 64; block++) {
      b.medium.read(block, bytes);
      expect(bytes[0]).toBe(block);
    }
    // The next one is none the worse for it.
    b.write(2, READ, 0, 1, 0);
    b.ring();
    b.play();
    expect(b.completions()).toEqual([failed(1), 2]);
  });

  test('is translated when it moves, not when it is asked for', () => {
    const b = board();
    b.write(1, READ, 0, 1, 0);
    b.ring();
    b.memory.put(9 * PAGE_BYTES, 0); // the page is taken away meanwhile
    b.play();
    expect(b.completions()).toEqual([failed(1)]);
    expect(b.memory.get(OWN * PAGE_BYTES)).toBe(0);
  });

  test.each([9, 100, -1])('stops at a doorbell of %i, and says so', (requested) => {
    const b = board();
    expect(b.queues.calls).toBe(false);
    expect(b.queues.ring(0, requested)).toEqual([]);
    expect([b.queues.isStopped(0), b.queues.calls, b.queues.claim()]).toEqual([true, true, 0]);
    expect([b.queues.calls, b.queues.claim()]).toEqual([false, -1]);
    b.write(1, READ, 0, 1, 0);
    expect(b.ring()).toEqual([]);
  });

  test('is reset with what was under way: no byte moves, nobody is told', () => {
    const b = board();
    for (const tag of [1, 2, 3]) b.write(tag, READ, 0, 1, 0);
    b.ring();
    const at = b.disk.start(0);
    b.queues.reset(0);
    expect(at).not.toBe(null);
    expect(b.disk.finish(at ?? 0)).toBe(null);
    expect([b.completions(), b.queues.calls, b.memory.get(OWN * PAGE_BYTES)]).toEqual([
      [],
      false,
      0,
    ]);
    expect(b.ring()).toEqual([]); // and it belongs to nobody
  });

  test('calls its owner when it is listened to, once', () => {
    const b = board();
    b.write(1, READ, 0, 1, 0);
    b.ring();
    b.play();
    expect(b.queues.calls).toBe(false);
    b.queues.listen(0, true);
    expect([b.queues.claim(), b.queues.claim()]).toEqual([0, -1]);
    expect([b.queues.takeInterrupt(0), b.queues.takeInterrupt(0)]).toEqual([true, false]);
  });

  test('takes turns with the others, and with the supervisor', () => {
    const b = board();
    b.queues.assign(3, { root: ROOT, page: RING, firstBlock: FIRST, blocks: BLOCKS });
    const done: string[] = [];
    for (let n = 0; n < 3; n++) {
      b.disk.submit({ tag: n, write: true, block: 0, pages: [OWN + 2] }, 0);
    }
    for (let n = 0; n < 3; n++) b.write(10 + n, READ, n, 1, 0);
    b.queues.ring(0, 3);
    b.queues.ring(3, 3);
    for (let at: number | null = 110; at !== null;) {
      at = b.disk.finish(at);
      if (b.disk.complete() !== null) done.push('own');
      for (const n of [0, 3]) if (b.queues.takeInterrupt(n)) done.push(`queue ${n}`);
    }
    const given = ['queue 3', 'queue 0', 'queue 3', 'queue 0'];
    expect(done.slice(0, 6)).toEqual(given.slice(0, 3).flatMap((queue) => ['own', queue]));
    expect(done.slice(6)).toEqual(['queue 0', 'queue 3', 'queue 0']);
    expect(DISK_QUEUES).toBeGreaterThan(3);
  });
});
