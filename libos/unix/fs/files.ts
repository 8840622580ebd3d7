/**
 * Files as bytes: which block holds which, reading, writing, cutting off. A file's data is written
 * in place, what says where it is by way of the journal.
 */
import type { Op, UserPort } from '../../syscalls.ts';
import { Errno } from '../process.ts';
import { BLOCK, DIRECT, Inode, InodeKind, POINTERS } from './format.ts';
import type { Volume } from './volume.ts';

const READ_AHEAD = 31; // blocks
const BYTES_MAX = 2 ** 32 - BLOCK;

export class Files {
  readonly #port: UserPort;
  readonly #volume: Volume;

  constructor(volume: Volume) {
    this.#port = volume.port;
    this.#volume = volume;
  }

  // ---- which block ------------------------------------------------------------------------------

  /**
   * Block of the extent that holds block `n` of a file; 0 is a hole, -1 an error or no space.
   * @param make whether a hole is filled: with data, or with what is the journal's affair
   */
  *blockOf(inode: number, n: number, make: 'data' | 'records' | null): Op<number> {
    if (n < DIRECT) return yield* this.#slotIn(inode, Inode.direct + n, make);
    let rest = n - DIRECT;
    const between = make === null ? null : 'records';
    if (rest < POINTERS) {
      return yield* this.#through(yield* this.#slotIn(inode, Inode.indirect, between), rest, make);
    }
    rest -= POINTERS;
    if (rest >= POINTERS * POINTERS) return -1;
    const top = yield* this.#slotIn(inode, Inode.double, between);
    const middle = yield* this.#through(top, Math.floor(rest / POINTERS), between);
    return yield* this.#through(middle, rest % POINTERS, make);
  }

  *#slotIn(inode: number, word: number, make: 'data' | 'records' | null): Op<number> {
    const have = yield* this.#volume.field(inode, word);
    if (have !== 0 || make === null) return have;
    const block = yield* this.#volume.newBlock(make === 'data');
    if (block > 0) yield* this.#volume.setField(inode, word, block);
    return block;
  }

  *#through(table: number, index: number, make: 'data' | 'records' | null): Op<number> {
    if (table <= 0) return table;
    const { cache } = this.#volume;
    const address = yield* cache.get(table);
    if (address < 0) return -1;
    const have = yield* this.#port.load(address + index * 4);
    if (have !== 0 || make === null) return have;
    const block = yield* this.#volume.newBlock(make === 'data');
    if (block <= 0 || !(yield* this.#setPointer(table, index, block))) return -1;
    return block;
  }

  *#setPointer(table: number, index: number, block: number): Op<boolean> {
    const address = yield* this.#volume.cache.get(table);
    if (address < 0) return false;
    yield* this.#port.store(address + index * 4, block);
    yield* this.#volume.journal.changed(address);
    return true;
  }

  /** Lets block `n` of a file be `block`, whose place exists. */
  *#setBlock(inode: number, n: number, block: number): Op<void> {
    if (n < DIRECT) {
      yield* this.#volume.setField(inode, Inode.direct + n, block);
      return;
    }
    const rest = n - DIRECT;
    let table = yield* this.#volume.field(inode, Inode.indirect);
    if (rest >= POINTERS) {
      const double = yield* this.#volume.field(inode, Inode.double);
      table = yield* this.#through(double, Math.floor((rest - POINTERS) / POINTERS), null);
    }
    const index = rest < POINTERS ? rest : (rest - POINTERS) % POINTERS;
    if (table > 0) yield* this.#setPointer(table, index, block);
  }

  // ---- bytes ------------------------------------------------------------------------------------

  /** 0, or why this is no file. */
  *check(inode: number): Op<number> {
    const kind = yield* this.#volume.field(inode, Inode.kind);
    if (kind === InodeKind.file) return 0;
    return kind === InodeKind.directory ? Errno.EISDIR : kind < 0 ? kind : Errno.ENOENT;
  }

  *read(inode: number, offset: number, bytes: number, to: number): Op<number> {
    const wrong = yield* this.check(inode);
    if (wrong < 0) return wrong;
    const size = yield* this.#volume.field(inode, Inode.bytes);
    const count = Math.min(bytes, Math.max(0, size - offset));
    const blocks = Math.ceil(size / BLOCK);
    for (let done = 0; done < count;) {
      const from = (offset + done) % BLOCK;
      const n = Math.floor((offset + done) / BLOCK);
      const part = Math.min(count - done, BLOCK - from);
      const block = yield* this.blockOf(inode, n, null);
      if (block < 0) return done > 0 ? done : Errno.EIO;
      if (block === 0) {
        if (this.#port.fill(to + done, 0, part) === undefined) yield* this.#port.fault();
      } else {
        const ahead = Math.min(READ_AHEAD, blocks - n - 1);
        if (!(yield* this.copyFrom(block, ahead, from, to + done, part))) {
          return done > 0 ? done : Errno.EIO;
        }
      }
      done += part;
    }
    return count;
  }

  *copyFrom(block: number, ahead: number, from: number, to: number, bytes: number): Op<boolean> {
    const address = yield* this.#volume.cache.get(block, ahead);
    if (address < 0) return false;
    if (this.#port.copy(to, address + from, bytes) === undefined) yield* this.#port.fault();
    return true;
  }

  /** Writes bytes of ours into a file, which grows with it; how many. */
  *write(inode: number, offset: number, bytes: number, source: number): Op<number> {
    const wrong = yield* this.check(inode);
    if (wrong < 0) return wrong;
    if (offset + bytes > BYTES_MAX) return Errno.EFBIG;
    let done = 0;
    while (done < bytes) {
      const from = (offset + done) % BLOCK;
      const part = Math.min(bytes - done, BLOCK - from);
      const n = Math.floor((offset + done) / BLOCK);
      const block = yield* this.blockOf(inode, n, 'data');
      if (block <= 0) break;
      // What will be covered whole need not be read.
      const { cache } = this.#volume;
      const address = part === BLOCK ? yield* cache.fresh(block) : yield* cache.get(block);
      if (address < 0) return Errno.EIO;
      if (this.#port.copy(address + from, source + done, part) === undefined) {
        yield* this.#port.fault();
      }
      yield* cache.dirty(address);
      done += part;
    }
    const size = yield* this.#volume.field(inode, Inode.bytes);
    if (offset + done > size && done > 0) {
      yield* this.#volume.setField(inode, Inode.bytes, offset + done);
    }
    return done === 0 && bytes > 0 ? Errno.ENOSPC : done;
  }

  /** A file of `bytes` bytes: cut off, or with a hole at its end. */
  *truncate(inode: number, bytes: number): Op<number> {
    const wrong = yield* this.check(inode);
    if (wrong < 0) return wrong;
    if (bytes > BYTES_MAX) return Errno.EFBIG;
    const size = yield* this.#volume.field(inode, Inode.bytes);
    if (bytes < size && bytes % BLOCK !== 0) {
      const last = yield* this.#cutBlock(inode, Math.floor(bytes / BLOCK), bytes % BLOCK);
      if (last < 0) return last;
    }
    yield* this.free(inode, Math.ceil(bytes / BLOCK), Math.ceil(size / BLOCK));
    yield* this.#volume.setField(inode, Inode.bytes, bytes);
    return 0;
  }

  /**
   * Block `n` of a file keeps its first bytes, zeros after them: in a new block, since the old one
   * is what a power cut would bring back.
   */
  *#cutBlock(inode: number, n: number, bytes: number): Op<number> {
    const old = yield* this.blockOf(inode, n, null);
    if (old < 0) return Errno.EIO;
    if (old === 0) return 0;
    const { cache } = this.#volume;
    const kept = new Uint8Array(bytes);
    const from = yield* cache.get(old);
    if (from < 0) return Errno.EIO;
    if (this.#port.read(from, kept, 0, bytes) === undefined) yield* this.#port.fault();
    const block = yield* this.#volume.newBlock(true);
    if (block <= 0) return Errno.ENOSPC;
    const to = yield* cache.get(block);
    if (to < 0) return Errno.EIO;
    if (this.#port.write(to, kept, 0, bytes) === undefined) yield* this.#port.fault();
    yield* cache.dirty(to);
    yield* this.#volume.release(old);
    yield* this.#setBlock(inode, n, block);
    return 0;
  }

  /**
   * Releases blocks `from` up to `to` of a file, and the pointer blocks that hold nothing else.
   * What is released whole is not written to: the old tree still needs it until the commit.
   */
  *free(inode: number, from: number, to: number): Op<void> {
    const volume = this.#volume;
    for (let n = from; n < to; n++) {
      const block = yield* this.blockOf(inode, n, null);
      if (block <= 0) continue;
      yield* volume.release(block);
      if (this.#isKept(n, from)) yield* this.#setBlock(inode, n, 0);
    }
    const double = to > DIRECT + POINTERS ? yield* volume.field(inode, Inode.double) : 0;
    if (double > 0) {
      const first = Math.max(0, Math.ceil((from - DIRECT - POINTERS) / POINTERS));
      for (let k = first; k < Math.ceil((to - DIRECT - POINTERS) / POINTERS); k++) {
        const middle = yield* this.#through(double, k, null);
        if (middle <= 0) continue;
        yield* volume.release(middle);
        if (from > DIRECT + POINTERS) yield* this.#setPointer(double, k, 0);
      }
      if (from <= DIRECT + POINTERS) {
        yield* volume.release(double);
        yield* volume.setField(inode, Inode.double, 0);
      }
    }
    const indirect = from <= DIRECT ? yield* volume.field(inode, Inode.indirect) : 0;
    if (indirect > 0) {
      yield* volume.release(indirect);
      yield* volume.setField(inode, Inode.indirect, 0);
    }
  }

  /** Whether the pointer to block `n` stands where something before `from` keeps it. */
  #isKept(n: number, from: number): boolean {
    if (n < DIRECT) return true;
    const rest = n - DIRECT;
    if (rest < POINTERS) return from > DIRECT;
    const table = Math.floor((rest - POINTERS) / POINTERS);
    return from > DIRECT + POINTERS + table * POINTERS;
  }
}
