/** File systems made on the host: what does not fit is refused, and what is there is found. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { DiskTooSmall, makeFileSystem, type Node } from '../../lab/mkfs.ts';
import {
  BITMAP_BLOCK,
  BITS_PER_BLOCK,
  BLOCK,
  DIRECT,
  geometry,
  INODES_PER_BLOCK,
  MAGIC,
  POINTERS,
} from '../../libos/unix/fs/format.ts';
import { type Files, runOnHost } from '../libos/unix/host.ts';
import { Image, runReal, treeOf } from '../libos/unix/real.ts';

const word = (bytes: Uint8Array | undefined, n: number): number =>
  bytes === undefined ? 0 : Buffer.from(bytes).readUInt32LE(n * 4);

/** Whether each block of the disk is marked as used. */
function used(disk: ReadonlyMap<number, Uint8Array>, blocks: number): boolean[] {
  return Array.from({ length: blocks }, (_, n) => {
    const bytes = disk.get(BITMAP_BLOCK + Math.floor(n / BITS_PER_BLOCK));
    const bit = n % BITS_PER_BLOCK;
    return ((bytes?.[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0;
  });
}

const file = (bytes: number): Node => ({ kind: 'file', bytes: new Uint8Array(bytes).fill(1) });
const directory = (entries: Readonly<Record<string, Node>>): Node => ({
  kind: 'directory',
  entries: new Map(Object.entries(entries)),
});

describe('geometry', () => {
  test.each([64, 300, 4096, BITS_PER_BLOCK, BITS_PER_BLOCK + 1, 3 * BITS_PER_BLOCK + 5])(
    '%i blocks',
    (blocks) => {
      const { bitmap, inodes, journal, journalBlocks, data } = geometry(blocks);
      expect(bitmap * BITS_PER_BLOCK).toBeGreaterThanOrEqual(blocks);
      expect((bitmap - 1) * BITS_PER_BLOCK).toBeLessThan(blocks);
      expect(journal).toBe(1 + bitmap + inodes);
      expect(data).toBe(journal + journalBlocks);
      expect(data).toBeLessThan(blocks);
      const disk = makeFileSystem(directory({ a: file(5000) }), blocks);
      expect([0, 1, 2, 3, 4].map((n) => word(disk.get(0), n))).toEqual([
        MAGIC,
        blocks,
        bitmap,
        inodes,
        data,
      ]);
      // Everything up to the data, the root directory and two blocks of the file.
      const marks = used(disk, bitmap * BITS_PER_BLOCK);
      const expected = marks.map((_, n) => n < data + 3 || n >= blocks);
      expect(marks).toEqual(expected);
      expect(Math.max(...disk.keys())).toBeLessThan(blocks);
    },
  );
});

describe('what does not fit', () => {
  const { data } = geometry(100);
  const room = 100 - data - 1; // blocks, less the root directory's

  test('one byte more than the last block holds', () => {
    const most = room - 1; // a file of so many has an indirect block
    expect(most).toBeGreaterThan(DIRECT);
    expect(() => makeFileSystem(directory({ a: file(most * BLOCK) }), 100)).not.toThrow();
    expect(() => makeFileSystem(directory({ a: file(most * BLOCK + 1) }), 100)).toThrow(
      DiskTooSmall,
    );
  });

  test('more files than inodes', () => {
    const inodes = geometry(1000).inodes * INODES_PER_BLOCK - 2; // nobody's and the root's
    const files = (count: number): Node =>
      directory(Object.fromEntries(Array.from({ length: count }, (_, n) => [`f${n}`, file(0)])));
    expect(() => makeFileSystem(files(inodes), 1000)).not.toThrow();
    expect(() => makeFileSystem(files(inodes + 1), 1000)).toThrow(DiskTooSmall);
  });

  test('a name of 256 bytes', () => {
    expect(() => makeFileSystem(directory({ ['n'.repeat(255)]: file(1) }), 100)).not.toThrow();
    expect(() => makeFileSystem(directory({ ['n'.repeat(256)]: file(1) }), 100)).toThrow(
      DiskTooSmall,
    );
  });
});

describe('the simulated Unix finds it', () => {
  const script = 'find . | sort; find . -type f -print0 | sort -z | xargs -0 -r sha256sum';
  const check = (files: Files, blocks: number): void => {
    const { stdout } = runReal(new Image(treeOf(files), blocks), [script], { mode: 'bare' });
    expect(stdout[0]).toBe(runOnHost(files, script).stdout);
  };

  test('files around each limit of an inode', () => {
    const sizes = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, DIRECT * BLOCK, DIRECT * BLOCK + 1];
    const limit = (DIRECT + POINTERS) * BLOCK;
    const files = Object.fromEntries(
      [...sizes, limit, limit + 1].map((size) => [
        `f${size}`,
        'abcdefg'.repeat(Math.ceil(size / 7)).slice(0, size),
      ]),
    );
    check(files, 3000);
  });

  test('directories of every length', () => {
    const name = fc.string({ unit: fc.constantFrom(...'ab-.\xe9 '), minLength: 1, maxLength: 200 });
    const names = fc.uniqueArray(
      name.filter((text) => text !== '.' && text !== '..'),
      { maxLength: 120 },
    );
    fc.assert(
      fc.property(names, (all) => {
        check(Object.fromEntries(all.map((text) => [text, text])), 700);
      }),
      { numRuns: 8 },
    );
  });
});
