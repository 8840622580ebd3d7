/**
 * The file server: an environment of its own that keeps directories and files on an extent, behind
 * a write-back block cache. It trusts its own Unix's processes to name windows that they hold, and
 * checks everything else that they say: inode numbers, offsets, lengths, names.
 */
import { Env, envIndex, Status } from '../../kernel/abi.ts';
import { BlockCache, tablesBytes } from '../parts/block-cache.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
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
  MAGIC,
  NAME_MAX,
  POINTERS,
  RECORD_HEADER,
  recordBytes,
  ROOT,
  Super,
} from './fs-format.ts';
import { FsOp, opOf, setOf } from './fs-protocol.ts';
import { at, COMMON, DISK, ENVS, PAGE, User, UAREA, WINDOW_PAGES, WINDOW_SETS } from './layout.ts';
import { Errno } from './process.ts';
import type { Shared } from './shared.ts';
import type { Space } from './space.ts';
import { WORK } from './work.ts';

/** The file windows stand in leaf table 1; the cache and its tables after them. */
const WINDOWS = 512; // virtual page
const AFTER = WINDOWS + WINDOW_SETS * WINDOW_PAGES;
const READ_AHEAD = 31; // blocks
const WINDOW_BYTES = WINDOW_PAGES * PAGE;

const PARENT = Uint8Array.of(0x2e, 0x2e);

type Reply = readonly [number, number?, number?, number?];

/** A record of a directory, and where its header stands in the directory file. */
interface Found {
  readonly inode: number;
  readonly offset: number;
}

export class FileServer {
  readonly #port: UserPort;
  readonly #sys: Syscalls;
  readonly #shared: Shared;
  readonly #space: Space;
  #cache: BlockCache | null = null;
  #inodeBlock = 0;
  #inodes = 0;
  #blocks = 0;
  #data = 0;
  #hint = 0; // address of two words: where to look for a free block first, and for a free inode

  constructor(sys: Syscalls, shared: Shared, space: Space) {
    this.#port = sys.port;
    this.#sys = sys;
    this.#shared = shared;
    this.#space = space;
  }

  get #c(): BlockCache {
    if (this.#cache === null) throw new Error('file server: not mounted');
    return this.#cache;
  }

  /** Mounts the extent and serves for ever. */
  *run(self: number, extent: number, blocks: number, frames: number): Op<void> {
    yield* this.#mount(self, extent, blocks, frames);
    let reply: Reply = [0];
    let client = -1;
    for (;;) {
      const words = [reply[0], reply[1] ?? 0, reply[2] ?? 0, reply[3] ?? 0];
      let message = yield* this.#sys.ipcReplyWait(client, words);
      // A client that died meanwhile cannot be answered.
      if (message.status !== Status.ok) message = yield* this.#sys.ipcReplyWait(-1, []);
      client = message.from;
      reply = message.granted >= 0 ? [message.granted] : yield* this.#serve(message.words);
    }
  }

  *#mount(self: number, extent: number, blocks: number, frames: number): Op<void> {
    const port = this.#port;
    yield* port.store(at(UAREA) + User.end * 4, at(AFTER));
    const tables = yield* this.#space.grow(tablesBytes(frames) + 8);
    const data = yield* this.#space.grow(frames * PAGE);
    const row = at(ENVS) + envIndex(self) * Env.words * 4;
    this.#cache = new BlockCache(this.#sys, {
      frames,
      data,
      tables: tables + 8,
      extent,
      extentSlot: DISK,
      pageSlot: COMMON,
      blocks,
      done: row + Env.diskDone * 4,
      failed: row + Env.diskFailed * 4,
      events: row + Env.events * 4,
    });
    this.#hint = tables;
    for (let n = 0; n < frames; n++) {
      const page = yield* this.#shared.take();
      if (page < 0) throw new Error('file server: not enough pages for its cache');
      yield* this.#space.place(data / PAGE + n, page);
      yield* this.#c.setPage(n, page);
    }
    // The window table is leaf table 1, which placing the cache has made.
    const leaf = yield* port.load(at(UAREA) + (User.tables + 3) * 4);
    yield* this.#sys.ipcWindow(leaf, WINDOWS % 512, COMMON);
    const top = yield* this.#c.get(0);
    if (top < 0 || (yield* port.load(top + Super.magic * 4)) !== MAGIC) {
      throw new Error('file server: no file system on the extent');
    }
    const { bitmap, inodes, data: first } = geometry(yield* port.load(top + Super.blocks * 4));
    this.#blocks = yield* port.load(top + Super.blocks * 4);
    this.#inodeBlock = BITMAP_BLOCK + bitmap;
    this.#inodes = inodes * INODES_PER_BLOCK;
    this.#data = first;
    yield* port.store(this.#hint, first);
    yield* port.store(this.#hint + 4, ROOT + 1);
  }

  *#serve([word, a, b, c]: readonly [number, number, number, number]): Op<Reply> {
    const set = setOf(word);
    if (set >= WINDOW_SETS) return [Errno.EINVAL];
    const window = at(WINDOWS + set * WINDOW_PAGES);
    switch (opOf(word)) {
      case FsOp.lookup: {
        const inode = yield* this.#walk(a, window, b);
        return inode < 0 ? [inode] : yield* this.#describe(inode);
      }
      case FsOp.read:
        return [yield* this.#read(a, b >>> 0, c >>> 0, window)];
      case FsOp.write:
        return [yield* this.#write(a, b >>> 0, c >>> 0, window)];
      case FsOp.create:
        return yield* this.#create(a, window, b, c);
      case FsOp.truncate:
        return [yield* this.#truncate(a, b >>> 0)];
      case FsOp.unlink:
        return [yield* this.#unlink(a, window, b)];
      case FsOp.list:
        return yield* this.#list(a, b >>> 0, window);
      case FsOp.sync:
        return [(yield* this.#c.sync()) ? 0 : Errno.EIO];
      default:
        return [Errno.EINVAL];
    }
  }

  // ---- inodes -----------------------------------------------------------------------------------

  /** Address of an inode in the cache, until the next cache call; -1 on a disk error. */
  *#inode(inode: number): Op<number> {
    const block = this.#inodeBlock + Math.floor(inode / INODES_PER_BLOCK);
    const address = yield* this.#c.get(block);
    return address < 0 ? -1 : address + (inode % INODES_PER_BLOCK) * INODE_WORDS * 4;
  }

  /** A word of a live inode, or an error. */
  *#field(inode: number, word: number): Op<number> {
    if (!(inode >= ROOT && inode < this.#inodes)) return Errno.ENOENT;
    const address = yield* this.#inode(inode);
    return address < 0 ? Errno.EIO : (yield* this.#port.load(address + word * 4)) >>> 0;
  }

  *#setField(inode: number, word: number, value: number): Op<boolean> {
    const address = yield* this.#inode(inode);
    if (address < 0) return false;
    yield* this.#port.store(address + word * 4, value);
    yield* this.#c.dirty(address - (address % PAGE));
    return true;
  }

  *#describe(inode: number): Op<Reply> {
    const kind = yield* this.#field(inode, Inode.kind);
    if (kind <= 0) return [kind === 0 ? Errno.ENOENT : kind];
    return [inode, kind, yield* this.#field(inode, Inode.bytes)];
  }

  *#newInode(kind: number): Op<number> {
    const first = ROOT + 1;
    const hint = yield* this.#port.load(this.#hint + 4);
    for (let n = 0; n < this.#inodes - first; n++) {
      const inode = first + ((hint - first + n) % (this.#inodes - first));
      const address = yield* this.#inode(inode);
      if (address < 0) return Errno.EIO;
      if ((yield* this.#port.load(address)) !== InodeKind.free) continue;
      if (this.#port.fill(address, 0, INODE_WORDS * 4) === undefined) yield* this.#port.fault();
      yield* this.#port.store(address, kind);
      yield* this.#c.dirty(address - (address % PAGE));
      yield* this.#port.store(this.#hint + 4, inode + 1);
      return inode;
    }
    return Errno.ENOSPC;
  }

  // ---- blocks -----------------------------------------------------------------------------------

  /** Takes a free block, from the hint on; -1 if the extent is full. */
  *#allocate(): Op<number> {
    const hint = yield* this.#port.load(this.#hint);
    for (let n = 0; n <= this.#blocks - this.#data; n++) {
      let block = hint + n;
      if (block >= this.#blocks) block -= this.#blocks - this.#data;
      const address = yield* this.#bit(block);
      if (address < 0) return -1;
      const word = yield* this.#port.load(address);
      if (word === -1 && block % 32 === 0) {
        n += 31; // a full word
        continue;
      }
      if ((word & (1 << (block % 32))) !== 0) continue;
      yield* this.#port.store(address, word | (1 << (block % 32)));
      yield* this.#c.dirty(address - (address % PAGE));
      yield* this.#port.store(this.#hint, block + 1 < this.#blocks ? block + 1 : this.#data);
      return block;
    }
    return -1;
  }

  *#release(block: number): Op<void> {
    const address = yield* this.#bit(block);
    if (address < 0) return;
    const word = yield* this.#port.load(address);
    yield* this.#port.store(address, word & ~(1 << (block % 32)));
    yield* this.#c.dirty(address - (address % PAGE));
  }

  *#bit(block: number): Op<number> {
    const map = yield* this.#c.get(BITMAP_BLOCK + Math.floor(block / BITS_PER_BLOCK));
    return map < 0 ? -1 : map + Math.floor((block % BITS_PER_BLOCK) / 32) * 4;
  }

  /** Block of the extent that holds block `n` of a file; 0 is a hole, -1 an error or no space. */
  *#blockOf(inode: number, n: number, make: boolean): Op<number> {
    if (n < DIRECT) return yield* this.#slotIn(inode, Inode.direct + n, make);
    let rest = n - DIRECT;
    if (rest < POINTERS) {
      return yield* this.#through(yield* this.#slotIn(inode, Inode.indirect, make), rest, make);
    }
    rest -= POINTERS;
    if (rest >= POINTERS * POINTERS) return -1;
    const top = yield* this.#slotIn(inode, Inode.double, make);
    const middle = yield* this.#through(top, Math.floor(rest / POINTERS), make);
    return yield* this.#through(middle, rest % POINTERS, make);
  }

  *#slotIn(inode: number, word: number, make: boolean): Op<number> {
    const have = yield* this.#field(inode, word);
    if (have !== 0 || !make) return have;
    const block = yield* this.#newBlock();
    if (block > 0) yield* this.#setField(inode, word, block);
    return block;
  }

  *#through(table: number, index: number, make: boolean): Op<number> {
    if (table <= 0) return table;
    const address = yield* this.#c.get(table);
    if (address < 0) return -1;
    const have = yield* this.#port.load(address + index * 4);
    if (have !== 0 || !make) return have;
    const block = yield* this.#newBlock();
    if (block <= 0) return -1;
    const again = yield* this.#c.get(table);
    if (again < 0) return -1;
    yield* this.#port.store(again + index * 4, block);
    yield* this.#c.dirty(again);
    return block;
  }

  /** A free block, zero in the cache. */
  *#newBlock(): Op<number> {
    const block = yield* this.#allocate();
    if (block < 0) return -1;
    const address = yield* this.#c.fresh(block);
    if (address < 0) return -1;
    if (this.#port.fill(address, 0, BLOCK) === undefined) yield* this.#port.fault();
    yield* this.#c.dirty(address);
    return block;
  }

  // ---- files ------------------------------------------------------------------------------------

  *#read(inode: number, offset: number, bytes: number, window: number): Op<number> {
    const kind = yield* this.#field(inode, Inode.kind);
    if (kind !== InodeKind.file) return kind === InodeKind.directory ? Errno.EISDIR : Errno.ENOENT;
    const size = yield* this.#field(inode, Inode.bytes);
    const count = Math.min(bytes, WINDOW_BYTES, Math.max(0, size - offset));
    const blocks = Math.ceil(size / BLOCK);
    for (let done = 0; done < count;) {
      const from = (offset + done) % BLOCK;
      const n = Math.floor((offset + done) / BLOCK);
      const part = Math.min(count - done, BLOCK - from);
      const block = yield* this.#blockOf(inode, n, false);
      if (block < 0) return done > 0 ? done : Errno.EIO;
      const ok =
        block === 0
          ? this.#port.fill(window + done, 0, part)
          : yield* this.#copyFrom(
              block,
              Math.min(READ_AHEAD, blocks - n - 1),
              from,
              window + done,
              part,
            );
      if (ok === undefined) yield* this.#port.fault();
      else if (ok < 0) return done > 0 ? done : Errno.EIO;
      done += part;
    }
    return count;
  }

  *#copyFrom(block: number, ahead: number, from: number, to: number, bytes: number): Op<number> {
    const address = yield* this.#c.get(block, ahead);
    if (address < 0) return -1;
    if (this.#port.copy(to, address + from, bytes) === undefined) yield* this.#port.fault();
    return 0;
  }

  *#write(inode: number, offset: number, bytes: number, window: number): Op<number> {
    const kind = yield* this.#field(inode, Inode.kind);
    if (kind !== InodeKind.file) return kind === InodeKind.directory ? Errno.EISDIR : Errno.ENOENT;
    if (bytes > WINDOW_BYTES || offset + bytes > 2 ** 32 - BLOCK) return Errno.EINVAL;
    return yield* this.#put(inode, offset, bytes, window);
  }

  /** Writes bytes of ours into a file or directory; the size grows with it. */
  *#put(inode: number, offset: number, bytes: number, source: number): Op<number> {
    let done = 0;
    while (done < bytes) {
      const from = (offset + done) % BLOCK;
      const part = Math.min(bytes - done, BLOCK - from);
      const block = yield* this.#blockOf(inode, Math.floor((offset + done) / BLOCK), true);
      if (block <= 0) break;
      const address = yield* this.#c.get(block);
      if (address < 0) return Errno.EIO;
      if (this.#port.copy(address + from, source + done, part) === undefined) {
        yield* this.#port.fault();
      }
      yield* this.#c.dirty(address);
      done += part;
    }
    const size = yield* this.#field(inode, Inode.bytes);
    if (offset + done > size) yield* this.#setField(inode, Inode.bytes, offset + done);
    return done === 0 && bytes > 0 ? Errno.ENOSPC : done;
  }

  *#truncate(inode: number, bytes: number): Op<number> {
    const kind = yield* this.#field(inode, Inode.kind);
    if (kind !== InodeKind.file) return kind === InodeKind.directory ? Errno.EISDIR : Errno.ENOENT;
    const size = yield* this.#field(inode, Inode.bytes);
    yield* this.#free(inode, Math.ceil(bytes / BLOCK), Math.ceil(size / BLOCK));
    yield* this.#setField(inode, Inode.bytes, bytes);
    return 0;
  }

  /** Releases blocks `from` up to `to` of a file, its pointer blocks too if nothing is kept. */
  *#free(inode: number, from: number, to: number): Op<void> {
    for (let n = from; n < to; n++) {
      const block = yield* this.#blockOf(inode, n, false);
      if (block <= 0) continue;
      yield* this.#release(block);
      yield* this.#clearPointer(inode, n);
    }
    if (from > DIRECT) return;
    const indirect = yield* this.#field(inode, Inode.indirect);
    if (indirect > 0) yield* this.#release(indirect);
    const double = yield* this.#field(inode, Inode.double);
    if (double > 0) {
      for (let n = 0; n < POINTERS; n++) {
        const middle = yield* this.#through(double, n, false);
        if (middle > 0) yield* this.#release(middle);
      }
      yield* this.#release(double);
    }
    if (indirect > 0) yield* this.#setField(inode, Inode.indirect, 0);
    if (double > 0) yield* this.#setField(inode, Inode.double, 0);
  }

  *#clearPointer(inode: number, n: number): Op<void> {
    if (n < DIRECT) {
      yield* this.#setField(inode, Inode.direct + n, 0);
      return;
    }
    const rest = n - DIRECT;
    let table = yield* this.#field(inode, Inode.indirect);
    if (rest >= POINTERS) {
      const double = yield* this.#field(inode, Inode.double);
      table = yield* this.#through(double, Math.floor((rest - POINTERS) / POINTERS), false);
    }
    const address = table > 0 ? yield* this.#c.get(table) : -1;
    if (address < 0) return;
    yield* this.#port.store(address + (rest % POINTERS) * 4, 0);
    yield* this.#c.dirty(address);
  }

  // ---- directories ------------------------------------------------------------------------------

  /** The path in the window, a component at a time, from a directory or the root. */
  *#walk(from: number, window: number, bytes: number): Op<number> {
    const parts = yield* this.#path(window, bytes);
    if (typeof parts === 'number') return parts;
    return yield* this.#descend(parts.absolute ? ROOT : from, parts.names);
  }

  *#descend(from: number, names: readonly Uint8Array[]): Op<number> {
    let inode = from;
    for (const name of names) {
      const found = yield* this.#find(inode, name);
      if (typeof found === 'number') return found;
      inode = found.inode;
    }
    return inode;
  }

  *#path(
    window: number,
    bytes: number,
  ): Op<{ readonly absolute: boolean; readonly names: readonly Uint8Array[] } | number> {
    if (!(bytes >= 0 && bytes <= PAGE)) return Errno.EINVAL;
    const text = new Uint8Array(bytes);
    if (this.#port.read(window, text, 0, bytes) === undefined) yield* this.#port.fault();
    yield* this.#work(bytes * WORK.scanByte);
    const names = [];
    let start = 0;
    for (let n = 0; n <= bytes; n++) {
      if (n < bytes && text[n] !== 0x2f) continue;
      const name = text.subarray(start, n);
      start = n + 1;
      if (name.length === 0 || (name.length === 1 && name[0] === 0x2e)) continue;
      if (name.length > NAME_MAX) return Errno.ENAMETOOLONG;
      names.push(name);
    }
    return { absolute: text[0] === 0x2f, names };
  }

  /** The record of `name` in a directory, or an error. */
  *#find(directory: number, name: Uint8Array): Op<Found | number> {
    const kind = yield* this.#field(directory, Inode.kind);
    if (kind !== InodeKind.directory) return kind === InodeKind.file ? Errno.ENOTDIR : Errno.ENOENT;
    const size = yield* this.#field(directory, Inode.bytes);
    const bytes = new Uint8Array(BLOCK);
    for (let base = 0; base < size; base += BLOCK) {
      const block = yield* this.#blockOf(directory, base / BLOCK, false);
      if (block <= 0) return Errno.EIO;
      const address = yield* this.#c.get(block);
      if (address < 0) return Errno.EIO;
      if (this.#port.read(address, bytes, 0, BLOCK) === undefined) yield* this.#port.fault();
      const view = new DataView(bytes.buffer);
      let offset = 0;
      let found: Found | null = null;
      while (offset < Math.min(BLOCK, size - base)) {
        const length = view.getUint16(offset + 4, true);
        if (length < RECORD_HEADER || offset + length > BLOCK) return Errno.EIO;
        const inode = view.getUint32(offset, true);
        if (
          inode !== 0 &&
          sameName(bytes, offset + RECORD_HEADER, view.getUint16(offset + 6, true), name)
        ) {
          found = { inode, offset: base + offset };
          break;
        }
        offset += length;
      }
      yield* this.#work(Math.min(offset + RECORD_HEADER, BLOCK) * WORK.scanByte);
      if (found !== null) return found;
    }
    return Errno.ENOENT;
  }

  *#create(from: number, window: number, bytes: number, kind: number): Op<Reply> {
    if (kind !== InodeKind.file && kind !== InodeKind.directory) return [Errno.EINVAL];
    const parts = yield* this.#path(window, bytes);
    if (typeof parts === 'number') return [parts];
    const name = parts.names[parts.names.length - 1];
    if (name === undefined) return [Errno.EEXIST];
    const parent = yield* this.#descend(parts.absolute ? ROOT : from, parts.names.slice(0, -1));
    if (parent < 0) return [parent];
    const there = yield* this.#find(parent, name);
    if (typeof there !== 'number') return [Errno.EEXIST, there.inode];
    if (there !== Errno.ENOENT) return [there];
    const inode = yield* this.#newInode(kind);
    if (inode < 0) return [inode];
    // What it holds first: a directory without a parent is found by nobody.
    const inside = kind === InodeKind.directory ? yield* this.#link(inode, PARENT, parent) : 0;
    const linked = inside < 0 ? inside : yield* this.#link(parent, name, inode);
    if (linked < 0) {
      yield* this.#free(inode, 0, 1);
      yield* this.#setField(inode, Inode.kind, InodeKind.free);
      return [linked];
    }
    return [inode];
  }

  /** Adds a record: into one that has room behind its name, or into a new block. */
  *#link(directory: number, name: Uint8Array, inode: number): Op<number> {
    const need = recordBytes(name.length);
    const size = yield* this.#field(directory, Inode.bytes);
    // Directories only grow at their end: the last block is where room may be.
    const base = size - BLOCK;
    if (size > 0) {
      const block = yield* this.#blockOf(directory, base / BLOCK, false);
      const address = block > 0 ? yield* this.#c.get(block) : -1;
      if (address < 0) return Errno.EIO;
      const bytes = new Uint8Array(BLOCK);
      if (this.#port.read(address, bytes, 0, BLOCK) === undefined) yield* this.#port.fault();
      const view = new DataView(bytes.buffer);
      for (let offset = 0; offset < BLOCK;) {
        const length = view.getUint16(offset + 4, true);
        if (length < RECORD_HEADER) return Errno.EIO;
        const used =
          view.getUint32(offset, true) === 0 ? 0 : recordBytes(view.getUint16(offset + 6, true));
        if (length - used >= need) {
          yield* this.#work((offset + length) * WORK.scanByte);
          if (used > 0) {
            const header = used | (view.getUint16(offset + 6, true) << 16);
            yield* this.#port.store(address + offset + 4, header);
          }
          yield* this.#record(address + offset + used, inode, length - used, name);
          yield* this.#c.dirty(address);
          return 0;
        }
        offset += length;
      }
      yield* this.#work(BLOCK * WORK.scanByte);
    }
    const block = yield* this.#blockOf(directory, size / BLOCK, true);
    const address = block > 0 ? yield* this.#c.get(block) : -1;
    if (address < 0) return Errno.ENOSPC;
    yield* this.#record(address, inode, BLOCK, name);
    yield* this.#c.dirty(address);
    yield* this.#setField(directory, Inode.bytes, size + BLOCK);
    return 0;
  }

  *#record(address: number, inode: number, length: number, name: Uint8Array): Op<void> {
    yield* this.#port.store(address, inode);
    yield* this.#port.store(address + 4, length | (name.length << 16));
    const done = this.#port.write(address + RECORD_HEADER, name, 0, name.length);
    if (done === undefined) yield* this.#port.fault();
  }

  *#unlink(from: number, window: number, bytes: number): Op<number> {
    const parts = yield* this.#path(window, bytes);
    if (typeof parts === 'number') return parts;
    const name = parts.names[parts.names.length - 1];
    if (name === undefined) return Errno.EINVAL;
    const parent = yield* this.#descend(parts.absolute ? ROOT : from, parts.names.slice(0, -1));
    if (parent < 0) return parent;
    const found = yield* this.#find(parent, name);
    if (typeof found === 'number') return found;
    const { inode, offset } = found;
    const kind = yield* this.#field(inode, Inode.kind);
    if (kind === InodeKind.directory && !(yield* this.#isEmpty(inode))) return Errno.ENOTEMPTY;
    const block = yield* this.#blockOf(parent, Math.floor(offset / BLOCK), false);
    const address = block > 0 ? yield* this.#c.get(block) : -1;
    if (address < 0) return Errno.EIO;
    yield* this.#port.store(address + (offset % BLOCK), 0); // the record stays, for nobody
    yield* this.#c.dirty(address);
    const size = yield* this.#field(inode, Inode.bytes);
    yield* this.#free(inode, 0, Math.ceil(size / BLOCK));
    yield* this.#setField(inode, Inode.kind, InodeKind.free);
    return 0;
  }

  /** Nothing in it but its parent. */
  *#isEmpty(directory: number): Op<boolean> {
    const size = yield* this.#field(directory, Inode.bytes);
    const bytes = new Uint8Array(BLOCK);
    for (let base = 0; base < size; base += BLOCK) {
      const block = yield* this.#blockOf(directory, base / BLOCK, false);
      const address = block > 0 ? yield* this.#c.get(block) : -1;
      if (address < 0) return false;
      if (this.#port.read(address, bytes, 0, BLOCK) === undefined) yield* this.#port.fault();
      yield* this.#work(BLOCK * WORK.scanByte);
      const view = new DataView(bytes.buffer);
      for (let offset = 0; offset < BLOCK;) {
        const length = view.getUint16(offset + 4, true);
        if (length < RECORD_HEADER) return false;
        const isParent = bytes[offset + 8] === 0x2e && bytes[offset + 9] === 0x2e;
        const two = view.getUint16(offset + 6, true) === 2;
        if (view.getUint32(offset, true) !== 0 && !(two && isParent)) return false;
        offset += length;
      }
    }
    return true;
  }

  /** A block of a directory's records, raw, to the window. */
  *#list(inode: number, offset: number, window: number): Op<Reply> {
    const kind = yield* this.#field(inode, Inode.kind);
    if (kind !== InodeKind.directory)
      return [kind === InodeKind.file ? Errno.ENOTDIR : Errno.ENOENT];
    const size = yield* this.#field(inode, Inode.bytes);
    if (offset >= size) return [0, offset];
    const block = yield* this.#blockOf(inode, Math.floor(offset / BLOCK), false);
    if (block <= 0 || (yield* this.#copyFrom(block, 0, 0, window, BLOCK)) < 0) return [Errno.EIO];
    return [BLOCK, offset + BLOCK];
  }

  *#work(cycles: number): Op<void> {
    if (this.#port.work(cycles) === undefined) yield* this.#port.fault();
  }
}

function sameName(bytes: Uint8Array, start: number, length: number, name: Uint8Array): boolean {
  if (length !== name.length) return false;
  for (let n = 0; n < length; n++) if (bytes[start + n] !== name[n]) return false;
  return true;
}
