/**
 * An independent look at a file system: reads a medium by the layout that libos/unix/fs/format.ts
 * draws, with code of its own, and says all that is not legal. A journal that holds a commit is
 * applied first, as a mount would.
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
  Log,
  LOG_MAGIC,
  MAGIC,
  POINTERS,
  ROOT,
  Super,
} from '../../../libos/unix/fs/format.ts';
import type { Medium } from '../../../machine/disk.ts';

export interface Checked {
  readonly problems: readonly string[];
  /** contents by path, a byte a character; directories end in a slash */
  readonly tree: ReadonlyMap<string, string>;
  /** whether the journal held a commit */
  readonly replayed: boolean;
}

/** @param first block of the medium at which the extent begins */
export function fsck(medium: Medium, first = 0): Checked {
  const problems: string[] = [];
  const tree = new Map<string, string>();
  const replayed = new Map<number, Uint8Array>();
  const bytesOf = (n: number): Uint8Array => {
    const copy = replayed.get(n);
    if (copy !== undefined) return copy;
    const bytes = new Uint8Array(BLOCK);
    medium.read(first + n, bytes);
    return bytes;
  };
  const wordsOf = (n: number): Uint32Array => new Uint32Array(bytesOf(n).slice().buffer);
  const bad = (what: string): void => void problems.push(what);

  const top = wordsOf(0);
  if (top[Super.magic] !== MAGIC) return { problems: ['no file system'], tree, replayed: false };
  const blocks = top[Super.blocks] ?? 0;
  const { bitmap, inodes, journal, data } = geometry(blocks);
  const log = wordsOf(journal);
  if (log[Log.magic] === LOG_MAGIC) {
    for (let n = 0; n < (log[Log.count] ?? 0); n++) {
      const copy = new Uint8Array(BLOCK);
      medium.read(first + journal + 1 + n, copy);
      replayed.set(log[Log.blocks + n] ?? 0, copy);
    }
  }

  const table = new Uint32Array((inodes * BLOCK) / 4);
  for (let n = 0; n < inodes; n++) {
    table.set(wordsOf(BITMAP_BLOCK + bitmap + n), (n * BLOCK) / 4);
  }
  const count = (inodes * BLOCK) / 4 / INODE_WORDS;
  const field = (inode: number, word: number): number => table[inode * INODE_WORDS + word] ?? 0;
  const owner = new Map<number, number>(); // inode by block
  const use = (block: number, inode: number): boolean => {
    if (block < data || block >= blocks) bad(`inode ${inode}: block ${block} is none of a file's`);
    else if (owner.has(block)) bad(`block ${block}: of inodes ${owner.get(block)} and ${inode}`);
    else {
      owner.set(block, inode);
      return true;
    }
    return false;
  };
  /** Blocks of an inode in order, 0 for a hole. */
  const mapOf = (inode: number): number[] => {
    const map: number[] = [];
    const data = (block: number, at: number): void => {
      if (block !== 0 && use(block, inode)) map[at] = block;
    };
    for (let n = 0; n < DIRECT; n++) data(field(inode, Inode.direct + n), n);
    const leaf = (block: number, at: number): void => {
      if (block === 0 || !use(block, inode)) return;
      wordsOf(block).forEach((pointer, n) => {
        data(pointer, at + n);
      });
    };
    leaf(field(inode, Inode.indirect), DIRECT);
    const double = field(inode, Inode.double);
    if (double !== 0 && use(double, inode)) {
      wordsOf(double).forEach((pointer, n) => {
        leaf(pointer, DIRECT + POINTERS + n * POINTERS);
      });
    }
    const size = field(inode, Inode.bytes);
    if (map.length > Math.ceil(size / BLOCK)) bad(`inode ${inode}: a block behind its end`);
    return map;
  };
  const contents = (inode: number): Uint8Array => {
    const size = field(inode, Inode.bytes);
    const all = new Uint8Array(Math.ceil(size / BLOCK) * BLOCK);
    mapOf(inode).forEach((block, n) => {
      if (block !== 0 && n * BLOCK < all.length) all.set(bytesOf(block), n * BLOCK);
    });
    return all.subarray(0, size);
  };

  const texts = new Map<number, string>(); // contents by inode
  const names = new Map<number, number>(); // how many lead to an inode
  const directory = (inode: number, parent: number, path: string): void => {
    tree.set(path, '');
    const bytes = contents(inode);
    if (bytes.length % BLOCK !== 0) bad(`${path}: ${bytes.length} bytes are no whole blocks`);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const seen = new Set<string>();
    for (let at = 0; at < bytes.length;) {
      const [length, name] = [view.getUint16(at + 4, true), view.getUint16(at + 6, true)];
      const ends = Math.ceil((at + 1) / BLOCK) * BLOCK;
      const needed = 8 + Math.ceil(name / 4) * 4;
      const target = view.getUint32(at, true);
      if (length < 8 || at + length > ends || (target !== 0 && needed > length)) {
        bad(`${path}: a torn record at ${at}`);
        return;
      }
      if (target !== 0) {
        const text = Buffer.from(bytes.subarray(at + 8, at + 8 + name)).toString('latin1');
        if (seen.has(text)) bad(`${path}: '${text}' twice`);
        seen.add(text);
        if (text === '..') {
          if (target !== parent) bad(`${path}..: ${target}, not ${parent}`);
        } else entry(target, inode, path + text);
      }
      at += length;
    }
    if (!seen.has('..')) bad(`${path}: no parent`);
  };
  const entry = (inode: number, parent: number, path: string): void => {
    if (inode >= count) return bad(`${path}: no inode ${inode}`);
    const before = names.get(inode) ?? 0;
    names.set(inode, before + 1);
    switch (field(inode, Inode.kind)) {
      case InodeKind.directory:
        if (before > 0) return bad(`${path}: a directory of two names`);
        directory(inode, parent, `${path}/`);
        return;
      case InodeKind.file:
        // By a second name its blocks are not counted again.
        if (before === 0) texts.set(inode, Buffer.from(contents(inode)).toString('latin1'));
        tree.set(path, texts.get(inode) ?? '');
        return;
      default:
        bad(`${path}: inode ${inode} is free`);
    }
  };
  names.set(ROOT, 1);
  directory(ROOT, ROOT, '/');
  for (let orphan = top[Super.orphan] ?? 0; orphan !== 0;) {
    if (orphan >= count || names.has(orphan)) {
      bad(`orphan ${orphan}: has a name, or is met twice`);
      break;
    }
    names.set(orphan, 0);
    mapOf(orphan);
    orphan = field(orphan, Inode.next);
  }
  for (let inode = ROOT; inode < count; inode++) {
    const kind = field(inode, Inode.kind);
    const links = field(inode, Inode.links) & 0xffff;
    if (kind === InodeKind.free) continue;
    if (!names.has(inode)) bad(`inode ${inode}: nobody leads to it`);
    else if (links !== names.get(inode)) bad(`inode ${inode}: ${links} links`);
  }
  for (let block = data; block < blocks; block++) {
    const bits = bytesOf(BITMAP_BLOCK + Math.floor(block / BITS_PER_BLOCK));
    const bit = block % BITS_PER_BLOCK;
    const taken = ((bits[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0;
    if (taken !== owner.has(block)) bad(`block ${block}: ${taken ? 'lost' : 'free and in use'}`);
    if (problems.length > 20) break;
  }
  return { problems, tree, replayed: replayed.size > 0 };
}
