/**
 * The file server: an environment of its own that keeps a file system on an extent. It trusts its
 * own Unix's processes to name windows that they hold, and checks everything else that they say:
 * inode numbers, offsets, lengths, names. Open files stand in the control page, so that it knows
 * which are open and may not be freed with their last name.
 *
 * It owes its clients that each operation is done whole or not at all, and that what `sync`
 * returned for survives a power cut; journal.ts says how.
 */
import { Env, envIndex, Status } from '../../../kernel/abi.ts';
import { BlockCache, tablesBytes } from '../../parts/block-cache.ts';
import type { Op, Syscalls, UserPort } from '../../syscalls.ts';
import {
  at,
  COMMON,
  Control,
  DISK,
  ENVS,
  HEAP,
  OPEN_FILES,
  OpenFile,
  PAGE,
  STACK,
  UAREA,
  UNNAMED,
  User,
  WINDOW_PAGES,
  WINDOW_SETS,
} from '../layout.ts';
import {
  Errno,
  O_APPEND,
  O_CREATE,
  O_DIRECTORY,
  O_EXCLUSIVE,
  O_READ,
  O_TRUNCATE,
  O_WRITE,
} from '../process.ts';
import type { Shared } from '../shared.ts';
import type { Space } from '../space.ts';
import { Directories, PARENT, type Place } from './directories.ts';
import { Files } from './files.ts';
import { BLOCK, Inode, InodeKind, LINKS_MAX, MODE_SHIFT, ROOT, Super } from './format.ts';
import { FsOp, opOf, setOf, UNLINK_DIRECTORY, UNLINK_FILE } from './protocol.ts';
import { Volume, volumeBytes } from './volume.ts';

/** The file windows stand in leaf table 1; the cache and its tables after them. */
const WINDOWS = 512; // virtual page
const AFTER = WINDOWS + WINDOW_SETS * WINDOW_PAGES;
const WINDOW_BYTES = WINDOW_PAGES * PAGE;
const DEPTH_MAX = 256; // directories between a directory and the root

type Reply = readonly [number, number?, number?, number?];

interface Mounted {
  readonly frames: number; // virtual page of the first
  readonly volume: Volume;
  readonly files: Files;
  readonly directories: Directories;
}

export class FileServer {
  readonly #port: UserPort;
  readonly #sys: Syscalls;
  readonly #shared: Shared;
  readonly #space: Space;
  #mounted: Mounted | null = null;

  constructor(sys: Syscalls, shared: Shared, space: Space) {
    this.#port = sys.port;
    this.#sys = sys;
    this.#shared = shared;
    this.#space = space;
  }

  get #m(): Mounted {
    if (this.#mounted === null) throw new Error('file server: not mounted');
    return this.#mounted;
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
      if ((yield* this.#shared.control(Control.cacheLosses)) !== 0) yield* this.#lose();
      reply = message.granted >= 0 ? [message.granted] : yield* this.#answer(message.words);
      if ((yield* this.#shared.control(Control.shrink)) > 0) yield* this.#shrink();
    }
  }

  /** Does without the frames that were taken by force, unless they held what the disk does not. */
  *#lose(): Op<void> {
    const shared = this.#shared;
    const { frames, volume } = this.#m;
    yield* shared.setControl(Control.cacheLosses, 0);
    let differed = 0;
    const lost = yield* volume.cache.lose(
      function* (page): Op<boolean> {
        return !(yield* shared.isLost(page));
      },
      () => differed++,
    );
    if (differed > 0) throw new Error('file server: pages with unwritten data were taken by force');
    for (const frame of lost) yield* this.#space.displace(frames + frame);
    if ((yield* volume.cache.frames()) < (yield* volume.journal.framesLeast())) {
      throw new Error('file server: too many pages of its cache were taken by force');
    }
  }

  /** Parts with frames that the scheduler asks for, those that the cache needs least. */
  *#shrink(): Op<void> {
    const shared = this.#shared;
    const { frames, volume } = this.#m;
    const first = yield* shared.control(Control.shrinkFirst);
    const pages = yield* shared.control(Control.shrinkPages);
    const least = yield* volume.journal.framesLeast();
    for (let left = yield* shared.control(Control.shrink); left > 0; left--) {
      if ((yield* volume.cache.frames()) <= least) break;
      const given = yield* volume.cache.release((page) => page >= first && page < first + pages);
      if (given === null) break;
      yield* this.#space.displace(frames + given.frame);
      yield* shared.drop(given.page);
    }
    yield* shared.setControl(Control.shrink, -1);
  }

  *#mount(self: number, extent: number, blocks: number, frames: number): Op<void> {
    const port = this.#port;
    yield* port.store(at(UAREA) + User.end * 4, at(AFTER));
    const memory = yield* this.#space.grow(volumeBytes(blocks));
    const tables = yield* this.#space.grow(tablesBytes(frames));
    const data = yield* this.#space.grow(frames * PAGE);
    const row = at(ENVS) + envIndex(self) * Env.words * 4;
    const spec = {
      frames,
      data,
      tables,
      extent,
      extentSlot: DISK,
      pageSlot: COMMON,
      blocks,
      done: row + Env.diskDone * 4,
      failed: row + Env.diskFailed * 4,
      events: row + Env.events * 4,
    };
    const cache = new BlockCache(this.#sys, spec);
    for (let n = 0; n < frames; n++) {
      const page = yield* this.#shared.take();
      if (page < 0) throw new Error('file server: not enough pages for its cache');
      yield* this.#space.place(data / PAGE + n, page);
      yield* cache.setPage(n, page);
    }
    // The window table is leaf table 1, which placing the cache has made.
    const leaf = yield* port.load(at(UAREA) + (User.tables + 3) * 4);
    yield* this.#sys.ipcWindow(leaf, WINDOWS % 512, COMMON);
    const volume = new Volume(port, cache, spec, memory);
    if (!(yield* volume.mount())) throw new Error('file server: no file system on the extent');
    const files = new Files(volume);
    // From now on all of its memory is there: a page that is missing was taken by force.
    for (const page of [STACK, UAREA]) yield* this.#space.keep(page);
    for (let page = memory; page < data; page += PAGE) {
      yield* port.load(page);
      yield* this.#space.keep(page / PAGE);
    }
    yield* port.store(at(UAREA) + User.end * 4, at(HEAP));
    this.#mounted = {
      frames: data / PAGE,
      volume,
      files,
      directories: new Directories(volume, files),
    };
    yield* this.#reap(); // what was open when the power went is nobody's
  }

  /** One operation: a commit first if it might not fit, and after it if only that makes room. */
  *#answer(words: readonly [number, number, number, number]): Op<Reply> {
    const { volume } = this.#m;
    if (yield* volume.journal.isFull()) {
      if (!(yield* volume.commit()) && (yield* volume.journal.isFull())) return [Errno.EIO];
    }
    const reply = yield* this.#serve(words);
    if (reply[0] !== Errno.ENOSPC || (yield* volume.freed()) === 0) return reply;
    return (yield* volume.commit()) ? yield* this.#serve(words) : reply;
  }

  *#serve([word, a, b, c]: readonly [number, number, number, number]): Op<Reply> {
    const set = setOf(word);
    if (set >= WINDOW_SETS) return [Errno.EINVAL];
    const window = at(WINDOWS + set * WINDOW_PAGES);
    const { volume, files, directories } = this.#m;
    switch (opOf(word)) {
      case FsOp.lookup: {
        const inode = yield* directories.walk(a, window, b);
        return inode < 0 ? [inode] : yield* this.#describe(inode);
      }
      case FsOp.open:
        return yield* this.#open(yield* directories.place(a, window, b), a, window, b, c);
      case FsOp.read:
        return [yield* files.read(a, b >>> 0, Math.min(c >>> 0, WINDOW_BYTES), window)];
      case FsOp.write:
        if (c >>> 0 > WINDOW_BYTES) return [Errno.EINVAL];
        return [yield* files.write(a, b >>> 0, c >>> 0, window)];
      case FsOp.append: {
        if (b >>> 0 > WINDOW_BYTES) return [Errno.EINVAL];
        const size = yield* volume.field(a, Inode.bytes);
        const done = size < 0 ? size : yield* files.write(a, size, b >>> 0, window);
        return [done, done < 0 ? 0 : size + done];
      }
      case FsOp.create:
        return [yield* this.#create(yield* directories.place(a, window, b), c)];
      case FsOp.truncate:
        return [yield* files.truncate(a, b >>> 0)];
      case FsOp.unlink:
        return [yield* this.#unlink(yield* directories.place(a, window, b), c)];
      case FsOp.rename:
      case FsOp.link: {
        if (!(b >= 0 && c >= 0 && b + c <= PAGE)) return [Errno.EINVAL];
        const from = yield* directories.place(a, window, b);
        const to = yield* directories.place(a, window + b, c);
        const isLink = opOf(word) === FsOp.link;
        return [isLink ? yield* this.#link(from, to) : yield* this.#rename(from, to)];
      }
      case FsOp.mode:
        return [yield* this.#setMode(yield* directories.walk(a, window, b), c)];
      case FsOp.list: {
        const mode = (yield* volume.field(a, Inode.links)) >>> MODE_SHIFT;
        if ((mode & 0o400) === 0) return [Errno.EACCES];
        const count = yield* directories.list(a, b >>> 0, window);
        return [count, (b >>> 0) + BLOCK];
      }
      case FsOp.size:
        return [yield* volume.field(a, Inode.bytes)];
      case FsOp.reap:
        yield* this.#reap();
        return [0];
      case FsOp.sync:
        yield* this.#reap();
        return [(yield* volume.commit()) ? 0 : Errno.EIO];
      case FsOp.shrink:
        return [0]; // seen to after every operation
      case FsOp.space: {
        const space = yield* volume.space();
        return space === null ? [Errno.EIO] : [0, volume.blocks, space.blocks, space.inodes];
      }
      default:
        return [Errno.EINVAL];
    }
  }

  *#describe(inode: number): Op<Reply> {
    const { volume } = this.#m;
    const kind = yield* volume.field(inode, Inode.kind);
    if (kind <= 0) return [kind === 0 ? Errno.ENOENT : kind];
    const links = yield* volume.field(inode, Inode.links);
    const mode = (links >>> MODE_SHIFT) & 0o777;
    const word = kind | (mode << 8) | (Math.min(links & LINKS_MAX, 0x7ff) << 20);
    return [inode, word, yield* volume.field(inode, Inode.bytes)];
  }

  // ---- making and opening -----------------------------------------------------------------------

  *#open(place: Place, from: number, window: number, bytes: number, flags: number): Op<Reply> {
    const { volume, files, directories } = this.#m;
    let inode = yield* directories.walk(from, window, bytes);
    if (inode === Errno.ENOENT && (flags & O_CREATE) !== 0) {
      inode = yield* this.#create(place, InodeKind.file);
    } else if (inode >= 0 && (flags & O_EXCLUSIVE) !== 0) return [Errno.EEXIST];
    if (inode < 0) return [inode];
    const kind = yield* volume.field(inode, Inode.kind);
    if (kind <= 0) return [kind === 0 ? Errno.ENOENT : kind];
    const isDirectory = kind === InodeKind.directory;
    if (isDirectory && (flags & O_WRITE) !== 0) return [Errno.EISDIR];
    if (!isDirectory && (flags & O_DIRECTORY) !== 0) return [Errno.ENOTDIR];
    const mode = (yield* volume.field(inode, Inode.links)) >>> MODE_SHIFT;
    const needs = ((flags & O_READ) !== 0 ? 0o400 : 0) | ((flags & O_WRITE) !== 0 ? 0o200 : 0);
    if ((mode & needs) !== needs) return [Errno.EACCES];
    if ((flags & O_TRUNCATE) !== 0 && (flags & O_WRITE) !== 0) {
      const cut = yield* files.truncate(inode, 0);
      if (cut < 0) return [cut];
    }
    return [yield* this.#claim(inode, flags & (O_READ | O_WRITE | O_APPEND))];
  }

  #openWord(file: number, word: number): number {
    return Control.files + file * OpenFile.words + word;
  }

  /** An entry of the table of open files for the inode; its number, or EMFILE. */
  *#claim(inode: number, flags: number): Op<number> {
    const shared = this.#shared;
    yield* shared.lock();
    let file = 0;
    while (file < OPEN_FILES) {
      if ((yield* shared.control(this.#openWord(file, OpenFile.count))) <= 0) break;
      file++;
    }
    if (file < OPEN_FILES) {
      yield* shared.setControl(this.#openWord(file, OpenFile.count), 1);
      yield* shared.setControl(this.#openWord(file, OpenFile.inode), inode);
      yield* shared.setControl(this.#openWord(file, OpenFile.offset), 0);
      yield* shared.setControl(this.#openWord(file, OpenFile.flags), flags);
    }
    yield* shared.unlock();
    return file < OPEN_FILES ? file : Errno.ENFILE;
  }

  /** A new file or directory; its inode, or an error. */
  *#create({ parent, name }: Place, kind: number): Op<number> {
    const { volume, files, directories } = this.#m;
    if (kind !== InodeKind.file && kind !== InodeKind.directory) return Errno.EINVAL;
    if (parent < 0) return parent;
    if (name === null) return Errno.EEXIST;
    const there = yield* directories.find(parent, name);
    if (typeof there !== 'number') return Errno.EEXIST;
    if (there !== Errno.ENOENT) return there;
    const wrong = yield* directories.mayChange(parent);
    if (wrong < 0) return wrong;
    const inode = yield* volume.newInode(kind);
    if (inode < 0) return inode;
    // What it holds first: a directory without a parent is found by nobody.
    const inside = kind === InodeKind.directory ? yield* directories.add(inode, PARENT, parent) : 0;
    const linked = inside < 0 ? inside : yield* directories.add(parent, name, inode);
    if (linked >= 0) return inode;
    yield* files.free(inode, 0, 1);
    yield* volume.setField(inode, Inode.kind, InodeKind.free);
    return linked;
  }

  // ---- names ------------------------------------------------------------------------------------

  *#unlink({ parent, name }: Place, how: number): Op<number> {
    const { volume, directories } = this.#m;
    if (parent < 0) return parent;
    if (name === null) return Errno.EINVAL;
    const found = yield* directories.find(parent, name);
    if (typeof found === 'number') return found;
    if (isParent(name)) return Errno.EINVAL;
    const kind = yield* volume.field(found.inode, Inode.kind);
    if (kind === InodeKind.directory && how === UNLINK_FILE) return Errno.EISDIR;
    if (kind !== InodeKind.directory && how === UNLINK_DIRECTORY) return Errno.ENOTDIR;
    const wrong = yield* directories.mayChange(parent);
    if (wrong < 0) return wrong;
    if (kind === InodeKind.directory && !(yield* directories.isEmpty(found.inode))) {
      return Errno.ENOTEMPTY;
    }
    const gone = yield* directories.set(parent, found.offset, 0);
    if (gone < 0) return gone;
    yield* this.#drop(found.inode);
    return 0;
  }

  *#link(from: Place, to: Place): Op<number> {
    const { volume, directories } = this.#m;
    const source = yield* this.#there(from);
    if (typeof source === 'number') return source;
    if ((yield* volume.field(source.inode, Inode.kind)) !== InodeKind.file) return Errno.EPERM;
    if (to.parent < 0) return to.parent;
    if (to.name === null) return Errno.EEXIST;
    const there = yield* directories.find(to.parent, to.name);
    if (there !== Errno.ENOENT) return typeof there === 'number' ? there : Errno.EEXIST;
    const wrong = yield* directories.mayChange(to.parent);
    if (wrong < 0) return wrong;
    const links = yield* volume.field(source.inode, Inode.links);
    if ((links & LINKS_MAX) === LINKS_MAX) return Errno.EMLINK;
    const added = yield* directories.add(to.parent, to.name, source.inode);
    if (added < 0) return added;
    yield* volume.setField(source.inode, Inode.links, links + 1);
    return 0;
  }

  *#there({ parent, name }: Place): Op<{ inode: number; offset: number } | number> {
    if (parent < 0) return parent;
    if (name === null || isParent(name)) return Errno.EINVAL;
    return yield* this.#m.directories.find(parent, name);
  }

  /** What stands at the new name goes, if it is of the same kind; all of it is one commit. */
  *#rename(from: Place, to: Place): Op<number> {
    const { volume, directories } = this.#m;
    const source = yield* this.#there(from);
    if (typeof source === 'number') return source;
    if (to.parent < 0) return to.parent;
    if (to.name === null || isParent(to.name)) return Errno.EINVAL;
    const isDirectory = (yield* volume.field(source.inode, Inode.kind)) === InodeKind.directory;
    const target = yield* directories.find(to.parent, to.name);
    if (typeof target === 'number' && target !== Errno.ENOENT) return target;
    if (typeof target !== 'number') {
      if (target.inode === source.inode) return 0;
      const onto = (yield* volume.field(target.inode, Inode.kind)) === InodeKind.directory;
      if (onto && !isDirectory) return Errno.EISDIR;
      if (!onto && isDirectory) return Errno.ENOTDIR;
      if (onto && !(yield* directories.isEmpty(target.inode))) return Errno.ENOTEMPTY;
    }
    for (const parent of [from.parent, to.parent]) {
      const wrong = yield* directories.mayChange(parent);
      if (wrong < 0) return wrong;
    }
    if (isDirectory && (yield* this.#isWithin(to.parent, source.inode))) return Errno.EINVAL;
    if (typeof target === 'number') {
      const added = yield* directories.add(to.parent, to.name, source.inode);
      if (added < 0) return added;
    } else {
      yield* directories.set(to.parent, target.offset, source.inode);
      yield* this.#drop(target.inode);
    }
    // A new record may have moved nothing but itself: the old one stands where it stood.
    yield* directories.set(from.parent, source.offset, 0);
    if (isDirectory && from.parent !== to.parent) {
      const up = yield* directories.find(source.inode, PARENT);
      if (typeof up !== 'number') yield* directories.set(source.inode, up.offset, to.parent);
    }
    return 0;
  }

  /** Whether `directory` is `above`, or below it. */
  *#isWithin(directory: number, above: number): Op<boolean> {
    let here = directory;
    for (let n = 0; n < DEPTH_MAX; n++) {
      if (here === above) return true;
      if (here === ROOT) return false;
      const up = yield* this.#m.directories.find(here, PARENT);
      if (typeof up === 'number') return true;
      here = up.inode;
    }
    return true;
  }

  *#setMode(inode: number, mode: number): Op<number> {
    if (inode < 0) return inode;
    if (!(mode >= 0 && mode <= 0o777)) return Errno.EINVAL;
    const { volume } = this.#m;
    const links = yield* volume.field(inode, Inode.links);
    yield* volume.setField(inode, Inode.links, (links & LINKS_MAX) | (mode << MODE_SHIFT));
    return 0;
  }

  // ---- what has no name any more ----------------------------------------------------------------

  /** One name less. With the last the inode is free, or an orphan while it is open. */
  *#drop(inode: number): Op<void> {
    const { volume } = this.#m;
    const links = (yield* volume.field(inode, Inode.links)) - 1;
    yield* volume.setField(inode, Inode.links, links);
    if ((links & LINKS_MAX) !== 0) return;
    if (!(yield* this.#isOpen(inode, true))) {
      yield* this.#free(inode);
      return;
    }
    yield* volume.setField(inode, Inode.next, yield* volume.super(Super.orphan));
    yield* volume.setSuper(Super.orphan, inode);
  }

  *#free(inode: number): Op<void> {
    const { volume, files } = this.#m;
    const size = yield* volume.field(inode, Inode.bytes);
    yield* files.free(inode, 0, Math.ceil(size / BLOCK));
    yield* volume.setField(inode, Inode.kind, InodeKind.free);
  }

  /** Whether a process has it open; `mark` lets whoever closes it last say so. */
  *#isOpen(inode: number, mark: boolean): Op<boolean> {
    const shared = this.#shared;
    let open = false;
    for (let file = 0; file < OPEN_FILES; file++) {
      if ((yield* shared.control(this.#openWord(file, OpenFile.count))) <= 0) continue;
      if ((yield* shared.control(this.#openWord(file, OpenFile.inode))) !== inode) continue;
      open = true;
      if (!mark) break;
      const flags = this.#openWord(file, OpenFile.flags);
      yield* shared.setControl(flags, (yield* shared.control(flags)) | UNNAMED);
    }
    return open;
  }

  /** Frees the orphans that nobody has open. */
  *#reap(): Op<void> {
    const { volume } = this.#m;
    let before = 0; // the orphan before, 0 for the list's head
    let inode = yield* volume.super(Super.orphan);
    while (inode > 0) {
      const next = yield* volume.field(inode, Inode.next);
      if (yield* this.#isOpen(inode, false)) before = inode;
      else {
        if (yield* volume.journal.isFull()) yield* volume.commit();
        if (before === 0) yield* volume.setSuper(Super.orphan, next);
        else yield* volume.setField(before, Inode.next, next);
        yield* this.#free(inode);
      }
      inode = next;
    }
  }
}

const isParent = (name: Uint8Array): boolean =>
  name.length === 2 && name[0] === 0x2e && name[1] === 0x2e;
