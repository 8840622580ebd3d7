/**
 * Makes a file system on a disk from a tree of files, as a host tool would: for the Unix libOS to
 * find when it boots. Files lie in one piece, in the order of the tree.
 */
import {
  BITMAP_BLOCK,
  BITS_PER_BLOCK,
  BLOCK,
  DIRECT,
  geometry,
  Inode,
  INODE_WORDS,
  InodeKind,
  INODES_PER_BLOCK,
  Log,
  LOG_MAGIC,
  linksWord,
  MAGIC,
  NAME_MAX,
  POINTERS,
  recordBytes,
  RECORD_HEADER,
  ROOT,
  Super,
} from '../libos/unix/fs/format.ts';

/** A directory or a file; names are strings of bytes, one character each. */
export type Node =
  | { readonly kind: 'directory'; readonly entries: ReadonlyMap<string, Node> }
  | { readonly kind: 'file'; readonly bytes: Uint8Array };

export class DiskTooSmall extends Error {
  override readonly name = 'DiskTooSmall';
}

/** Blocks by number from 0; absent ones are zero. Throws DiskTooSmall if the tree does not fit. */
export function makeFileSystem(root: Node, blocks: number): Map<number, Uint8Array> {
  const disk = new Map<number, Uint8Array>();
  const { bitmap, inodes, journal, journalBlocks, data } = geometry(blocks);
  let nextBlock = data;
  let nextInode = ROOT;

  const block = (n: number): Uint8Array => {
    let bytes = disk.get(n);
    if (bytes === undefined) {
      bytes = new Uint8Array(BLOCK);
      disk.set(n, bytes);
    }
    return bytes;
  };
  const put = (n: number, word: number, value: number): void => {
    const bytes = block(n);
    new DataView(bytes.buffer, bytes.byteOffset).setUint32(word * 4, value >>> 0, true);
  };
  const take = (): number => {
    if (nextBlock >= blocks) throw new DiskTooSmall(`the tree does not fit on ${blocks} blocks`);
    return nextBlock++;
  };
  const inodeWord = (inode: number, word: number, value: number): void => {
    const at = BITMAP_BLOCK + bitmap + Math.floor(inode / INODES_PER_BLOCK);
    put(at, (inode % INODES_PER_BLOCK) * INODE_WORDS + word, value);
  };
  const takeInode = (): number => {
    if (nextInode >= inodes * INODES_PER_BLOCK) {
      throw new DiskTooSmall(`the tree has more files than ${blocks} blocks have inodes`);
    }
    return nextInode++;
  };

  const writeFile = (inode: number, kind: number, bytes: Uint8Array): void => {
    inodeWord(inode, Inode.kind, kind);
    inodeWord(inode, Inode.bytes, bytes.length);
    inodeWord(inode, Inode.links, linksWord(kind));
    const count = Math.ceil(bytes.length / BLOCK);
    let indirect = 0;
    let double = 0;
    let middle = 0;
    for (let n = 0; n < count; n++) {
      if (n === DIRECT) {
        indirect = take();
        inodeWord(inode, Inode.indirect, indirect);
      }
      const rest = n - DIRECT - POINTERS;
      if (rest === 0) {
        double = take();
        inodeWord(inode, Inode.double, double);
      }
      if (rest >= 0 && rest % POINTERS === 0) {
        middle = take();
        put(double, rest / POINTERS, middle);
      }
      const at = take();
      block(at).set(bytes.subarray(n * BLOCK, (n + 1) * BLOCK));
      if (n < DIRECT) inodeWord(inode, Inode.direct + n, at);
      else if (rest < 0) put(indirect, n - DIRECT, at);
      else put(middle, rest % POINTERS, at);
    }
  };

  const writeNode = (node: Node, inode: number, parent: number): void => {
    if (node.kind === 'file') {
      writeFile(inode, InodeKind.file, node.bytes);
      return;
    }
    const children = [...node.entries].map(([name, child]) => ({
      name,
      child,
      inode: takeInode(),
    }));
    const names = [{ name: '..', inode: parent }, ...children];
    writeFile(inode, InodeKind.directory, directoryBytes(names));
    for (const { child, inode: number } of children) writeNode(child, number, inode);
  };

  writeNode(root, takeInode(), ROOT);
  put(0, Super.magic, MAGIC);
  put(0, Super.blocks, blocks);
  put(0, Super.bitmapBlocks, bitmap);
  put(0, Super.inodeBlocks, inodes);
  put(0, Super.data, data);
  put(0, Super.journal, journal);
  put(0, Super.journalBlocks, journalBlocks);
  put(journal, Log.magic, LOG_MAGIC);
  // Used blocks, and the bits beyond the end of the disk.
  const used = (n: number): void => {
    const bytes = block(BITMAP_BLOCK + Math.floor(n / BITS_PER_BLOCK));
    const bit = n % BITS_PER_BLOCK;
    bytes[bit >>> 3] = (bytes[bit >>> 3] ?? 0) | (1 << (bit & 7));
  };
  for (let n = 0; n < nextBlock; n++) used(n);
  for (let n = blocks; n < bitmap * BITS_PER_BLOCK; n++) used(n);
  return disk;
}

/** A directory's blocks: the last record of each block reaches to its end. */
function directoryBytes(names: readonly { name: string; inode: number }[]): Uint8Array {
  const blocks: Uint8Array[] = [];
  let view = new DataView(new ArrayBuffer(0));
  let offset = BLOCK;
  let last = 0;
  for (const { name, inode } of names) {
    if (name.length > NAME_MAX) throw new DiskTooSmall(`a name is longer than ${NAME_MAX} bytes`);
    const need = recordBytes(name.length);
    if (offset + need > BLOCK) {
      const bytes = new Uint8Array(BLOCK);
      view = new DataView(bytes.buffer);
      blocks.push(bytes);
      offset = 0;
    } else {
      view.setUint16(last + 4, offset - last, true);
    }
    view.setUint32(offset, inode, true);
    view.setUint16(offset + 4, BLOCK - offset, true);
    view.setUint16(offset + 6, name.length, true);
    for (let n = 0; n < name.length; n++) {
      view.setUint8(offset + RECORD_HEADER + n, name.charCodeAt(n) & 0xff);
    }
    last = offset;
    offset += need;
  }
  const all = new Uint8Array(blocks.length * BLOCK);
  blocks.forEach((bytes, n) => {
    all.set(bytes, n * BLOCK);
  });
  return all;
}
