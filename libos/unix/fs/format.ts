/**
 * The file system on an extent. Block 0 says what it is; then a bitmap of blocks, the inodes, the
 * journal, and data. Everything is little-endian words.
 *
 *     block 0    magic, blocks, bitmap blocks, inode blocks, first data block, orphan, journal's
 *                first block, journal's blocks
 *     inode      kind, bytes, DIRECT block numbers, indirect and double indirect block,
 *                links | mode << 16, next orphan: 128 bytes
 *     directory  records: inode, bytes of the record | bytes of the name << 16, name, padding to 4
 *     journal    block 0: magic, count, sequence, checksum, then the block numbers of `count`
 *                copies, which stand in the blocks after it; count 0: nothing to be done again
 *
 * Block number 0 in an inode is a hole. Inode 0 is nobody; inode 1 is the root. An orphan has no
 * name any more and was open when the last one went; orphans form a list.
 */
export const MAGIC = 0x45584654; // "EXFT"
export const BLOCK = 4096;
export const Super = {
  magic: 0,
  blocks: 1,
  bitmapBlocks: 2,
  inodeBlocks: 3,
  data: 4,
  orphan: 5,
  journal: 6,
  journalBlocks: 7,
} as const;
export const BITMAP_BLOCK = 1;
export const BITS_PER_BLOCK = BLOCK * 8;

export const INODE_WORDS = 32;
export const INODES_PER_BLOCK = BLOCK / (INODE_WORDS * 4);
export const DIRECT = 26;
export const Inode = {
  kind: 0,
  bytes: 1,
  direct: 2,
  indirect: 28,
  double: 29,
  links: 30, // | mode << 16
  next: 31,
} as const;
export const InodeKind = { free: 0, file: 1, directory: 2 } as const;
export const ROOT = 1;
export const POINTERS = BLOCK / 4;
export const LINKS_MAX = 0xffff;

/** Mode bits as Unix has them; there is one user, so the first three count. */
export const MODE_SHIFT = 16;
export const FILE_MODE = 0o644;
export const DIRECTORY_MODE = 0o755;
export const linksWord = (kind: number, links = 1): number =>
  links | ((kind === InodeKind.directory ? DIRECTORY_MODE : FILE_MODE) << MODE_SHIFT);

export const RECORD_HEADER = 8;
export const NAME_MAX = 255;
export const recordBytes = (name: number): number => RECORD_HEADER + Math.ceil(name / 4) * 4;

/** Words of the journal's first block. */
export const Log = { magic: 0, count: 1, sequence: 2, checksum: 3, blocks: 4 } as const;
export const LOG_MAGIC = 0x4c4f4758;
const JOURNAL_LEAST = 32;
const JOURNAL_MOST = 256;

/** How an extent of `blocks` blocks is divided. */
export function geometry(blocks: number): {
  bitmap: number;
  inodes: number;
  journal: number;
  journalBlocks: number;
  data: number;
} {
  const bitmap = Math.ceil(blocks / BITS_PER_BLOCK);
  const inodes = Math.max(4, Math.ceil(blocks / 64));
  const journal = BITMAP_BLOCK + bitmap + inodes;
  const journalBlocks = Math.min(JOURNAL_MOST, Math.max(JOURNAL_LEAST, Math.floor(blocks / 32)));
  return { bitmap, inodes, journal, journalBlocks, data: journal + journalBlocks };
}
