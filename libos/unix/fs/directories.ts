/**
 * Directories: names in them, and paths through them. Their blocks are the journal's. Records fill
 * each block to its end; one that is for nobody has inode 0, and its room can be used again.
 */
import type { Op, UserPort } from '../../syscalls.ts';
import { Errno } from '../process.ts';
import { WORK } from '../work.ts';
import type { Files } from './files.ts';
import {
  BLOCK,
  Inode,
  InodeKind,
  MODE_SHIFT,
  NAME_MAX,
  RECORD_HEADER,
  recordBytes,
  ROOT,
} from './format.ts';
import type { Volume } from './volume.ts';

const PAGE = 4096;
export const PARENT = Uint8Array.of(0x2e, 0x2e);
const MAY_WRITE = 0o200 << MODE_SHIFT;
const MAY_SEARCH = 0o100 << MODE_SHIFT;

/** A record of a directory, and where its header stands in the directory file. */
export interface Found {
  readonly inode: number;
  readonly offset: number;
}

/** Where a path leads but for its last name: `parent` is a directory, or an error below 0. */
export interface Place {
  readonly parent: number;
  readonly name: Uint8Array | null; // null: the path ends in no name, as `/` and `.` do
}

export class Directories {
  readonly #port: UserPort;
  readonly #volume: Volume;
  readonly #files: Files;

  constructor(volume: Volume, files: Files) {
    this.#port = volume.port;
    this.#volume = volume;
    this.#files = files;
  }

  // ---- paths ------------------------------------------------------------------------------------

  /** The inode at the end of a path of `bytes` bytes at `address`, or an error. */
  *walk(from: number, address: number, bytes: number): Op<number> {
    const path = yield* this.#path(address, bytes);
    if (typeof path === 'number') return path;
    return yield* this.#descend(path.absolute ? ROOT : from, path.names);
  }

  *place(from: number, address: number, bytes: number): Op<Place> {
    const path = yield* this.#path(address, bytes);
    if (typeof path === 'number') return { parent: path, name: null };
    const name = path.names.at(-1) ?? null;
    const start = path.absolute ? ROOT : from;
    return { parent: yield* this.#descend(start, path.names.slice(0, -1)), name };
  }

  *#descend(from: number, names: readonly Uint8Array[]): Op<number> {
    let inode = from;
    for (const name of names) {
      const found = yield* this.find(inode, name);
      if (typeof found === 'number') return found;
      inode = found.inode;
    }
    return inode;
  }

  *#path(
    address: number,
    bytes: number,
  ): Op<{ readonly absolute: boolean; readonly names: readonly Uint8Array[] } | number> {
    if (!(bytes >= 0 && bytes <= PAGE)) return Errno.EINVAL;
    const text = new Uint8Array(bytes);
    if (this.#port.read(address, text, 0, bytes) === undefined) yield* this.#port.fault();
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

  // ---- records ----------------------------------------------------------------------------------

  /** 0 if the inode is a directory, or an error. */
  *check(inode: number): Op<number> {
    const kind = yield* this.#volume.field(inode, Inode.kind);
    if (kind === InodeKind.directory) return 0;
    return kind === InodeKind.file ? Errno.ENOTDIR : kind < 0 ? kind : Errno.ENOENT;
  }

  /** 0 if names may be made and removed in a directory, or an error. */
  *mayChange(directory: number): Op<number> {
    const wrong = yield* this.check(directory);
    if (wrong < 0) return wrong;
    const mode = yield* this.#volume.field(directory, Inode.links);
    return (mode & MAY_WRITE) === 0 || (mode & MAY_SEARCH) === 0 ? Errno.EACCES : 0;
  }

  /** Hands each block's records to `act` until it answers: a copy, and where the block begins. */
  *#blocks<T>(
    directory: number,
    act: (records: Uint8Array, base: number) => Op<T | null>,
  ): Op<T | number | null> {
    const wrong = yield* this.check(directory);
    if (wrong < 0) return wrong;
    const size = yield* this.#volume.field(directory, Inode.bytes);
    const bytes = new Uint8Array(BLOCK);
    for (let base = 0; base < size; base += BLOCK) {
      const address = yield* this.#block(directory, base);
      if (address < 0) return Errno.EIO;
      if (this.#port.read(address, bytes, 0, BLOCK) === undefined) yield* this.#port.fault();
      const answer = yield* act(bytes, base);
      if (answer !== null) return answer;
    }
    return null;
  }

  /** Address in the cache of the block with byte `offset` of a directory. */
  *#block(directory: number, offset: number): Op<number> {
    const block = yield* this.#files.blockOf(directory, Math.floor(offset / BLOCK), null);
    return block <= 0 ? -1 : yield* this.#volume.cache.get(block);
  }

  /** The record of `name` in a directory, or an error. */
  *find(directory: number, name: Uint8Array): Op<Found | number> {
    const wrong = yield* this.check(directory);
    if (wrong < 0) return wrong;
    const mode = yield* this.#volume.field(directory, Inode.links);
    if ((mode & MAY_SEARCH) === 0) return Errno.EACCES;
    const look = function* (this: Directories, bytes: Uint8Array, base: number): Op<Found | null> {
      let looked = 0;
      let found: Found | null = null;
      for (const record of recordsOf(bytes)) {
        looked = record.offset + RECORD_HEADER;
        if (record.inode === 0 || !sameName(bytes, record.offset, record.name, name)) continue;
        found = { inode: record.inode, offset: base + record.offset };
        break;
      }
      yield* this.#work((found === null ? BLOCK : looked) * WORK.scanByte);
      return found;
    };
    return (yield* this.#blocks(directory, look.bind(this))) ?? Errno.ENOENT;
  }

  /** Nothing in it but its parent. */
  *isEmpty(directory: number): Op<boolean> {
    const look = function* (this: Directories, bytes: Uint8Array): Op<true | null> {
      yield* this.#work(BLOCK * WORK.scanByte);
      for (const record of recordsOf(bytes)) {
        if (record.inode === 0) continue;
        if (!sameName(bytes, record.offset, record.name, PARENT)) return true;
      }
      return null;
    };
    return (yield* this.#blocks(directory, look.bind(this))) === null;
  }

  /** Adds a record: where there is room behind another's name, or in a new block. */
  *add(directory: number, name: Uint8Array, inode: number): Op<number> {
    const need = recordBytes(name.length);
    const size = yield* this.#volume.field(directory, Inode.bytes);
    // Room that names left is found from the end, where directories grow.
    for (let base = size - BLOCK; base >= 0 && base >= size - LOOK_BACK; base -= BLOCK) {
      const address = yield* this.#block(directory, base);
      if (address < 0) return Errno.EIO;
      const bytes = new Uint8Array(BLOCK);
      if (this.#port.read(address, bytes, 0, BLOCK) === undefined) yield* this.#port.fault();
      yield* this.#work(BLOCK * WORK.scanByte);
      for (const record of recordsOf(bytes)) {
        const used = record.inode === 0 ? 0 : recordBytes(record.name);
        if (record.length - used < need) continue;
        const at = address + record.offset;
        if (used > 0) yield* this.#port.store(at + 4, used | (record.name << 16));
        yield* this.#record(at + used, inode, record.length - used, name);
        yield* this.#volume.journal.changed(address);
        return 0;
      }
    }
    const block = yield* this.#files.blockOf(directory, size / BLOCK, 'records');
    const address = block > 0 ? yield* this.#volume.cache.get(block) : -1;
    if (address < 0) return Errno.ENOSPC;
    yield* this.#record(address, inode, BLOCK, name);
    yield* this.#volume.journal.changed(address);
    yield* this.#volume.setField(directory, Inode.bytes, size + BLOCK);
    return 0;
  }

  *#record(address: number, inode: number, length: number, name: Uint8Array): Op<void> {
    yield* this.#port.store(address, inode);
    yield* this.#port.store(address + 4, length | (name.length << 16));
    const done = this.#port.write(address + RECORD_HEADER, name, 0, name.length);
    if (done === undefined) yield* this.#port.fault();
  }

  /** The record at `offset` is for `inode` from now on; 0: for nobody. */
  *set(directory: number, offset: number, inode: number): Op<number> {
    const address = yield* this.#block(directory, offset);
    if (address < 0) return Errno.EIO;
    yield* this.#port.store(address + (offset % BLOCK), inode);
    yield* this.#volume.journal.changed(address);
    return 0;
  }

  /** A block of a directory's records, raw, to `to`; 0 behind the last. */
  *list(directory: number, offset: number, to: number): Op<number> {
    const wrong = yield* this.check(directory);
    if (wrong < 0) return wrong;
    if (offset >= (yield* this.#volume.field(directory, Inode.bytes))) return 0;
    const n = Math.floor(offset / BLOCK);
    const block = yield* this.#files.blockOf(directory, n, null);
    if (block <= 0 || !(yield* this.#files.copyFrom(block, 0, 0, to, BLOCK))) return Errno.EIO;
    return BLOCK;
  }

  *#work(cycles: number): Op<void> {
    if (this.#port.work(cycles) === undefined) yield* this.#port.fault();
  }
}

const LOOK_BACK = 4 * BLOCK;

interface Record {
  readonly inode: number;
  readonly offset: number; // in the block
  readonly length: number;
  readonly name: number; // bytes
}

/** The records of a block; a broken one ends it. */
function* recordsOf(bytes: Uint8Array): Generator<Record, void> {
  const view = new DataView(bytes.buffer);
  for (let offset = 0; offset + RECORD_HEADER <= BLOCK;) {
    const length = view.getUint16(offset + 4, true);
    if (length < RECORD_HEADER || offset + length > BLOCK) return;
    const name = view.getUint16(offset + 6, true);
    yield { inode: view.getUint32(offset, true), offset, length, name };
    offset += length;
  }
}

function sameName(bytes: Uint8Array, offset: number, length: number, name: Uint8Array): boolean {
  if (length !== name.length) return false;
  const start = offset + RECORD_HEADER;
  for (let n = 0; n < length; n++) if (bytes[start + n] !== name[n]) return false;
  return true;
}
