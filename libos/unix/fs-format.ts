/**
 * The file system on an extent. Block 0 says what it is; then a bitmap of blocks, the inodes, and
 * data. Everything is little-endian words.
 *
 *     block 0    magic, blocks, bitmap blocks, inode blocks, first data block
 *     inode      kind, bytes, DIRECT block numbers, indirect and double indirect block: 128 bytes
 *     directory  records: inode, bytes of the record | bytes of the name << 16, name, padding to 4
 *
 * Block number 0 in an inode is a hole. Inode 0 is nobody; inode 1 is the root.
 */
export const MAGIC = 0x45584653; // "EXFS"
export const BLOCK = 4096;
export const Super = { magic: 0, blocks: 1, bitmapBlocks: 2, inodeBlocks: 3, data: 4 } as const;
export const BITMAP_BLOCK = 1;
export const BITS_PER_BLOCK = BLOCK * 8;

export const INODE_WORDS = 32;
export const INODES_PER_BLOCK = BLOCK / (INODE_WORDS * 4);
export const DIRECT = 26;
export const Inode = { kind: 0, bytes: 1, direct: 2, indirect: 28, double: 29 } as const;
export const InodeKind = { free: 0, file: 1, directory: 2 } as const;
export const ROOT = 1;
export const POINTERS = BLOCK / 4;

export const RECORD_HEADER = 8;
export const NAME_MAX = 255;
export const recordBytes = (name: number): number => RECORD_HEADER + Math.ceil(name / 4) * 4;

/** How an extent of `blocks` blocks is divided. */
export function geometry(blocks: number): { bitmap: number; inodes: number; data: number } {
  const bitmap = Math.ceil(blocks / BITS_PER_BLOCK);
  const inodes = Math.max(4, Math.ceil(blocks / 64));
  return { bitmap, inodes, data: BITMAP_BLOCK + bitmap + inodes };
}
