/**
 * A mounted file system: its inodes, and which blocks are free. All of it is looked at and changed
 * in the cache, and every change is told to the journal. It trusts its callers to name inodes that
 * `field` has shown to be alive.
 */
import { type BlockCache, type CacheSpec } from '../../parts/block-cache.ts';
import type { Op, UserPort } from '../../syscalls.ts';
import { Errno } from '../process.ts';
import {
  BITMAP_BLOCK,
  BITS_PER_BLOCK,
  BLOCK,
  geometry,
  Inode,
  INODE_WORDS,
  InodeKind,
  INODES_PER_BLOCK,
  linksWord,
  MAGIC,
  ROOT,
  Super,
} from './format.ts';
import { Journal, journalBytes } from './journal.ts';

/** Words of its own: where to look first, and whether blocks wait for a commit to be free. */
const Own = { block: 0, inode: 1, freed: 2, words: 4 } as const;

/** Zero-filled memory that a volume of `blocks` blocks needs: bytes. */
export function volumeBytes(blocks: number): number {
  const { bitmap, journalBlocks } = geometry(blocks);
  return Own.words * 4 + journalBytes(journalBlocks) + bitmap * BLOCK;
}

export class Volume {
  readonly port: UserPort;
  readonly cache: BlockCache;
  readonly journal: Journal;
  readonly blocks: number;
  readonly inodes: number;
  readonly #inodeBlock: number;
  readonly #data: number;
  readonly #own: number; // address
  readonly #frozen: number; // address: a bitmap of the blocks that were freed since the last commit
  readonly #bitmap: number; // blocks of it

  /** @param memory zero-filled, volumeBytes(blocks) bytes */
  constructor(port: UserPort, cache: BlockCache, spec: CacheSpec, memory: number) {
    const { bitmap, inodes, journal, journalBlocks, data } = geometry(spec.blocks);
    this.port = port;
    this.cache = cache;
    this.blocks = spec.blocks;
    this.inodes = inodes * INODES_PER_BLOCK;
    this.#inodeBlock = BITMAP_BLOCK + bitmap;
    this.#data = data;
    this.#bitmap = bitmap;
    this.#own = memory;
    const log = memory + Own.words * 4;
    this.#frozen = log + journalBytes(journalBlocks);
    const of = { first: journal, blocks: journalBlocks, bitmap, memory: log };
    this.journal = new Journal(port, cache, of);
  }

  /** Recovers what was committed. False: there is no file system, or the disk fails. */
  *mount(): Op<boolean> {
    const { port } = this;
    const top = yield* this.cache.get(0);
    if (top < 0 || (yield* port.load(top + Super.magic * 4)) !== MAGIC) return false;
    if ((yield* port.load(top + Super.blocks * 4)) !== this.blocks) return false;
    if (!(yield* this.journal.recover())) return false;
    yield* port.store(this.#word(Own.block), this.#data);
    yield* port.store(this.#word(Own.inode), ROOT + 1);
    return true;
  }

  #word(n: number): number {
    return this.#own + n * 4;
  }

  /** Everything so far is durable; blocks that it freed can be used again. */
  *commit(): Op<boolean> {
    if (!(yield* this.journal.commit())) return false;
    if ((yield* this.port.load(this.#word(Own.freed))) !== 0) {
      yield* this.port.store(this.#word(Own.freed), 0);
      for (let n = 0; n < this.#bitmap; n++) yield* this.fill(this.#frozen + n * BLOCK, BLOCK);
    }
    return true;
  }

  /** Blocks that a commit would set free. */
  *freed(): Op<number> {
    return yield* this.port.load(this.#word(Own.freed));
  }

  *super(word: number): Op<number> {
    const top = yield* this.cache.get(0);
    return top < 0 ? Errno.EIO : yield* this.port.load(top + word * 4);
  }

  *setSuper(word: number, value: number): Op<void> {
    const top = yield* this.cache.get(0);
    if (top < 0) return;
    yield* this.port.store(top + word * 4, value);
    yield* this.journal.changed(top);
  }

  // ---- inodes -----------------------------------------------------------------------------------

  /** Address of an inode in the cache, until the next cache call; -1 on a disk error. */
  *#inode(inode: number): Op<number> {
    const address = yield* this.cache.get(this.#inodeBlock + Math.floor(inode / INODES_PER_BLOCK));
    return address < 0 ? -1 : address + (inode % INODES_PER_BLOCK) * INODE_WORDS * 4;
  }

  /** A word of an inode, or an error. */
  *field(inode: number, word: number): Op<number> {
    if (!(inode >= ROOT && inode < this.inodes)) return Errno.ENOENT;
    const address = yield* this.#inode(inode);
    return address < 0 ? Errno.EIO : (yield* this.port.load(address + word * 4)) >>> 0;
  }

  *setField(inode: number, word: number, value: number): Op<boolean> {
    const address = yield* this.#inode(inode);
    if (address < 0) return false;
    yield* this.port.store(address + word * 4, value);
    yield* this.journal.changed(address - (address % BLOCK));
    return true;
  }

  *newInode(kind: number): Op<number> {
    const first = ROOT + 1;
    const hint = yield* this.port.load(this.#word(Own.inode));
    for (let n = 0; n < this.inodes - first; n++) {
      const inode = first + ((hint - first + n) % (this.inodes - first));
      const address = yield* this.#inode(inode);
      if (address < 0) return Errno.EIO;
      if ((yield* this.port.load(address)) !== InodeKind.free) continue;
      yield* this.fill(address, INODE_WORDS * 4);
      yield* this.port.store(address, kind);
      yield* this.port.store(address + Inode.links * 4, linksWord(kind));
      yield* this.journal.changed(address - (address % BLOCK));
      yield* this.port.store(this.#word(Own.inode), inode + 1);
      return inode;
    }
    return Errno.ENOSPC;
  }

  // ---- blocks -----------------------------------------------------------------------------------

  /** Takes a free block, from the hint on; -1 if there is none. */
  *#allocate(): Op<number> {
    const { port } = this;
    const hint = yield* port.load(this.#word(Own.block));
    for (let n = 0; n <= this.blocks - this.#data; n++) {
      let block = hint + n;
      if (block >= this.blocks) block -= this.blocks - this.#data;
      const address = yield* this.#bit(block);
      if (address < 0) return -1;
      const word = yield* port.load(address);
      const taken = word | (yield* port.load(this.#frozenWord(block)));
      if (taken === -1 && block % 32 === 0) {
        n += 31; // a full word
        continue;
      }
      if ((taken & (1 << (block % 32))) !== 0) continue;
      yield* port.store(address, word | (1 << (block % 32)));
      yield* this.journal.changed(address - (address % BLOCK));
      yield* port.store(this.#word(Own.block), block + 1 < this.blocks ? block + 1 : this.#data);
      return block;
    }
    return -1;
  }

  /** The block is free once that is committed. */
  *release(block: number): Op<void> {
    const { port } = this;
    const address = yield* this.#bit(block);
    if (address < 0) return;
    const mask = 1 << (block % 32);
    yield* port.store(address, (yield* port.load(address)) & ~mask);
    yield* this.journal.changed(address - (address % BLOCK));
    const frozen = this.#frozenWord(block);
    yield* port.store(frozen, (yield* port.load(frozen)) | mask);
    yield* port.store(this.#word(Own.freed), (yield* this.freed()) + 1);
  }

  #frozenWord(block: number): number {
    return this.#frozen + Math.floor(block / 32) * 4;
  }

  *#bit(block: number): Op<number> {
    const map = yield* this.cache.get(BITMAP_BLOCK + Math.floor(block / BITS_PER_BLOCK));
    return map < 0 ? -1 : map + Math.floor((block % BITS_PER_BLOCK) / 32) * 4;
  }

  /** A free block, zero in the cache; of a directory or of pointers it is the journal's affair. */
  *newBlock(isData: boolean): Op<number> {
    const block = yield* this.#allocate();
    if (block < 0) return -1;
    const address = yield* this.cache.fresh(block);
    if (address < 0) return -1;
    yield* this.fill(address, BLOCK);
    if (isData) yield* this.cache.dirty(address);
    else yield* this.journal.changed(address);
    return block;
  }

  /** Free blocks and free inodes: counted, so it costs what looking costs. */
  *space(): Op<{ readonly blocks: number; readonly inodes: number } | null> {
    let [blocks, inodes] = [0, 0];
    const bytes = new Uint8Array(BLOCK);
    for (let n = 0; n < this.#bitmap; n++) {
      if (!(yield* this.#look(BITMAP_BLOCK + n, bytes))) return null;
      for (const word of new Uint32Array(bytes.buffer)) blocks += 32 - ones(word);
    }
    for (let n = 0; n < this.inodes / INODES_PER_BLOCK; n++) {
      if (!(yield* this.#look(this.#inodeBlock + n, bytes))) return null;
      const words = new Uint32Array(bytes.buffer);
      for (let at = 0; at < words.length; at += INODE_WORDS) if (words[at] === 0) inodes++;
    }
    return { blocks, inodes: inodes - 1 }; // inode 0 is nobody's
  }

  *#look(block: number, bytes: Uint8Array): Op<boolean> {
    const address = yield* this.cache.get(block);
    if (address < 0) return false;
    if (this.port.read(address, bytes, 0, BLOCK) === undefined) yield* this.port.fault();
    if (this.port.work(BLOCK / 4) === undefined) yield* this.port.fault();
    return true;
  }

  *fill(address: number, bytes: number): Op<void> {
    if (this.port.fill(address, 0, bytes) === undefined) yield* this.port.fault();
  }
}

function ones(word: number): number {
  let n = word - ((word >>> 1) & 0x55555555);
  n = (n & 0x33333333) + ((n >>> 2) & 0x33333333);
  return Math.imul((n + (n >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
