/**
 * A Unix process as its program sees it: descriptors, files, memory, children. What outlives a call
 * lies in the u-area and in the shared pages, so that a fork can take it along and the one who
 * buries us can close what we left open.
 */
import { Status } from '../../kernel/abi.ts';
import { KvClient } from '../kv/client.ts';
import { PROTOCOL } from '../kv/protocol.ts';
import { ask } from '../parts/messages.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import { FileClient } from './fs/client.ts';
import { BLOCK, InodeKind, RECORD_HEADER } from './fs/format.ts';
import { FsOp, UNLINK_ANY, UNLINK_DIRECTORY, UNLINK_FILE } from './fs/protocol.ts';
import {
  at,
  COMMON,
  Control,
  Descriptor,
  Kind,
  OpenFile,
  OWN,
  PAGE,
  Pipe,
  PROCESS_MAX,
  Row,
  RowState,
  STORE_BUFFER,
  STORE_BUFFER_PAGES,
  TERMINAL,
  UAREA,
  UNNAMED,
  User,
} from './layout.ts';
import { type End, Pipes } from './pipes.ts';
import {
  ARG_MAX,
  Errno,
  O_APPEND,
  O_READ,
  O_WRITE,
  OPEN_MAX,
  Poll,
  type PollFor,
  type Process,
  type Program,
  type Room,
  Signal,
  type Stat,
  STOPPED,
  type WaitFor,
} from './process.ts';
import { Proc, procPath } from './proc.ts';
import { type Shared, SLEEP_MAX } from './shared.ts';
import { isQuiet, isStop, post, postGroup, send, SIGNALS, take } from './signals.ts';
import type { Space } from './space.ts';
import { TerminalInput } from './terminal.ts';
import { Env, envIndex } from '../../kernel/abi.ts';
import { WORK } from './work.ts';

const user = (word: number): number => at(UAREA) + word * 4;
const STORE_ENTRY = 2; // access entry that grants a page to the store; 1 is the file server's
const CONSOLE_PART = 4096; // bytes of one console call
/** How often: to have the second page of a part read in, the first may be written out. */
const TOUCHES = 4;
const TTY = '/dev/tty';
const NULL = '/dev/null';
export const SIGNALLED = 128; // and the signal: exit status of whom it ended
const IGNORED = 1; // words of User.handlers
const HANDLER = 2;

/** Thrown by exec and exit: the program that runs is over. Caught where programs are started. */
export class Replaced extends Error {
  readonly program: string;
  constructor(program: string) {
    super(`exec ${program}`);
    this.program = program;
  }
}
export class Exited extends Error {
  readonly code: number;
  constructor(code: number) {
    super(`exit ${code}`);
    this.code = code;
  }
}

/** What a process needs of the Unix around it. */
export interface Surroundings {
  readonly sys: Syscalls;
  readonly shared: Shared;
  readonly space: Space;
  /** Entry number at which forked children start. */
  readonly childEntry: number;
  readonly hasProgram: (name: string) => boolean;
  /** Number by which a child finds its program again. */
  readonly programNumber: (name: string) => number;
  readonly program: (name: string) => Program | undefined;
}

export class UnixProcess implements Process {
  readonly port: UserPort;
  readonly pid: number;
  readonly args: readonly string[];
  readonly environment: readonly string[];
  readonly #around: Surroundings;
  readonly #sys: Syscalls;
  readonly #shared: Shared;
  readonly #files: FileClient;
  readonly #pipes: Pipes;
  readonly #terminal: TerminalInput;
  readonly #proc: Proc;
  readonly #self: number;
  readonly #program: string;
  #store: { readonly client: KvClient; readonly pages: readonly number[] } | null = null;

  /** @param program that runs, by name: its forked children find their functions there */
  constructor(
    around: Surroundings,
    self: number,
    pid: number,
    program: string,
    { args, environment }: Given = { args: [], environment: [] },
  ) {
    this.#program = program;
    this.#around = around;
    this.#sys = around.sys;
    this.#shared = around.shared;
    this.port = around.sys.port;
    this.#self = self;
    this.pid = pid;
    this.args = args;
    this.environment = environment;
    this.#files = new FileClient(around.sys, around.shared);
    this.#pipes = new Pipes(around.sys, around.shared, around.space, { env: self, pid }, () =>
      this.#deliver(),
    );
    this.#terminal = new TerminalInput(around.sys, around.shared);
    this.#proc = new Proc(around.shared, around.space);
  }

  // ---- descriptors ------------------------------------------------------------------------------

  #slot(fd: number, word: number, base = at(UAREA)): number {
    return base + (User.descriptors + fd * Descriptor.words + word) * 4;
  }

  *#lowest(): Op<number> {
    for (let fd = 0; fd < OPEN_MAX; fd++) {
      if ((yield* this.port.load(this.#slot(fd, Descriptor.kind))) === Kind.none) return fd;
    }
    return Errno.EMFILE;
  }

  *#kind(fd: number): Op<number> {
    if (!Number.isInteger(fd) || fd < 0 || fd >= OPEN_MAX) return Kind.none;
    return yield* this.port.load(this.#slot(fd, Descriptor.kind));
  }

  *#install(fd: number, kind: number, value: number): Op<void> {
    yield* this.port.store(this.#slot(fd, Descriptor.kind), kind);
    yield* this.port.store(this.#slot(fd, Descriptor.value), value);
  }

  #file(file: number, word: number): number {
    return Control.files + file * OpenFile.words + word;
  }

  *open(path: string, flags: number): Op<number> {
    yield* this.#deliver();
    const fd = yield* this.#lowest();
    if (fd < 0) return fd;
    if (path === NULL) {
      yield* this.#install(fd, Kind.null, 0);
      return fd;
    }
    if (path === TTY) {
      if (!(yield* this.#terminal.open())) return Errno.ENOMEM;
      yield* this.#install(fd, Kind.terminal, 0);
      return fd;
    }
    const below = procPath(path);
    if (below !== null) return yield* this.#openProc(fd, below, flags);
    const [file] = yield* this.#files.path(FsOp.open, path, flags);
    if (file < 0) return file;
    yield* this.#install(fd, Kind.file, file);
    return fd;
  }

  /** The text as it is now, in a pipe without a writer. */
  *#openProc(fd: number, below: readonly string[], flags: number): Op<number> {
    const text = yield* this.#proc.text(below);
    if (typeof text === 'number') return text;
    if ((flags & O_WRITE) !== 0) return Errno.EACCES;
    const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0));
    const pipe = yield* this.#pipes.holding(bytes);
    if (pipe < 0) return pipe;
    yield* this.#install(fd, Kind.pipeRead, pipe);
    return fd;
  }

  *close(fd: number): Op<number> {
    const kind = yield* this.#kind(fd);
    if (kind === Kind.none) return Errno.EBADF;
    const value = yield* this.port.load(this.#slot(fd, Descriptor.value));
    yield* this.#install(fd, Kind.none, 0);
    yield* this.#count(kind, value, -1);
    return 0;
  }

  /** One more name for what a descriptor names, or one less. */
  *#count(kind: number, value: number, by: number): Op<void> {
    if (kind === Kind.pipeRead) yield* this.#pipes.count(value, Pipe.readers, by);
    else if (kind === Kind.pipeWrite) yield* this.#pipes.count(value, Pipe.writers, by);
    else if (kind === Kind.file) {
      yield* this.#shared.lock();
      const word = this.#file(value, OpenFile.count);
      const left = (yield* this.#shared.control(word)) + by;
      yield* this.#shared.setControl(word, left);
      yield* this.#shared.unlock();
      const unnamed = left === 0 && (yield* this.#flags(value)) & UNNAMED;
      // Who schedules may not wait for the file server; it finds the orphan later.
      if (unnamed && this.pid !== 0) yield* this.#files.ask(FsOp.reap, [0, 0, 0]);
    }
  }

  #flags(file: number): Op<number> {
    return this.#shared.control(this.#file(file, OpenFile.flags));
  }

  *read(fd: number, va: number, bytes: number): Op<number> {
    const kind = yield* this.#kind(fd);
    const value = kind === Kind.none ? 0 : yield* this.port.load(this.#slot(fd, Descriptor.value));
    yield* this.#deliver();
    switch (kind) {
      case Kind.console:
      case Kind.null:
        return 0; // nobody types
      case Kind.terminal:
        return yield* this.#pipes.readLine(this.#terminal, va, bytes);
      case Kind.pipeRead:
        return yield* this.#pipes.read(value, va, bytes);
      case Kind.file: {
        const flags = yield* this.#flags(value);
        if ((flags & O_READ) === 0) return Errno.EBADF;
        return yield* this.#through(value, va, bytes, false);
      }
      default:
        return Errno.EBADF;
    }
  }

  *write(fd: number, va: number, bytes: number): Op<number> {
    const kind = yield* this.#kind(fd);
    const value = kind === Kind.none ? 0 : yield* this.port.load(this.#slot(fd, Descriptor.value));
    yield* this.#deliver();
    switch (kind) {
      case Kind.console:
      case Kind.terminal:
        return yield* this.#toConsole(va, bytes);
      case Kind.null:
        return bytes;
      case Kind.pipeWrite: {
        const written = yield* this.#pipes.write(value, va, bytes);
        if (written === Errno.EPIPE) {
          yield* this.kill(this.pid, Signal.PIPE);
          yield* this.#deliver();
        }
        return written;
      }
      case Kind.file: {
        const flags = yield* this.#flags(value);
        if ((flags & O_WRITE) === 0) return Errno.EBADF;
        return yield* this.#through(value, va, bytes, true);
      }
      default:
        return Errno.EBADF;
    }
  }

  #inode(file: number): Op<number> {
    return this.#shared.control(this.#file(file, OpenFile.inode));
  }

  /** Reads what there is, up to `bytes`; writes all. The offset is shared with forked relatives. */
  *#through(file: number, va: number, bytes: number, put: boolean): Op<number> {
    const inode = yield* this.#inode(file);
    const append = put && ((yield* this.#flags(file)) & O_APPEND) !== 0;
    let done = 0;
    while (done < bytes) {
      if (append) {
        const [added, end] = yield* this.#files.append(inode, va + done, bytes - done);
        if (added < 0) return added;
        yield* this.#shared.setControl(this.#file(file, OpenFile.offset), end);
        done += added;
        continue;
      }
      const offset = (yield* this.#shared.control(this.#file(file, OpenFile.offset))) >>> 0;
      const got = put
        ? yield* this.#files.write(inode, offset, va + done, bytes - done)
        : yield* this.#files.read(inode, offset, va + done, bytes - done);
      if (got < 0) return put || done === 0 ? got : done;
      if (got === 0) break;
      yield* this.#shared.setControl(this.#file(file, OpenFile.offset), offset + got);
      done += got;
    }
    return done;
  }

  *#toConsole(va: number, bytes: number): Op<number> {
    for (let done = 0; done < bytes; done += CONSOLE_PART) {
      const part = Math.min(CONSOLE_PART, bytes - done);
      // The kernel copies out of our memory but takes no fault of it: touch it first.
      let status: number = Status.badAddress;
      for (let tries = 0; status === Status.badAddress && tries < TOUCHES; tries++) {
        yield* this.#touch(va + done, part);
        ({ status } = yield* this.#sys.consoleWrite(va + done, part));
      }
      if (status !== Status.ok) return Errno.EIO;
    }
    return bytes;
  }

  *#touch(va: number, bytes: number): Op<void> {
    for (let at = va; at < va + bytes; at += PAGE - (at % PAGE)) {
      if (this.port.load8(at) === undefined) yield* this.port.fault();
    }
  }

  *pipe(): Op<readonly [number, number] | number> {
    const read = yield* this.#lowest();
    if (read < 0) return read;
    const pipe = yield* this.#pipes.make();
    if (pipe < 0) return pipe;
    yield* this.#install(read, Kind.pipeRead, pipe);
    const write = yield* this.#lowest();
    if (write < 0) {
      yield* this.#pipes.count(pipe, Pipe.writers, -1);
      yield* this.close(read);
      return write;
    }
    yield* this.#install(write, Kind.pipeWrite, pipe);
    return [read, write];
  }

  *dup2(from: number, to: number): Op<number> {
    const kind = yield* this.#kind(from);
    if (kind === Kind.none || !Number.isInteger(to) || to < 0 || to >= OPEN_MAX) return Errno.EBADF;
    if (from === to) return to;
    yield* this.close(to);
    const value = yield* this.port.load(this.#slot(from, Descriptor.value));
    yield* this.#count(kind, value, 1);
    yield* this.#install(to, kind, value);
    return to;
  }

  *poll(wanted: readonly PollFor[], cycles: number): Op<readonly number[] | number> {
    if (!(Number.isInteger(cycles) && cycles >= -1 && wanted.length <= OPEN_MAX)) {
      return Errno.EINVAL;
    }
    // One that came since the last call counts too: whoever looks for its effect and then polls
    // would wait for what has been.
    if (yield* this.#deliver()) return Errno.EINTR;
    const until = this.port.cycles() + cycles;
    for (;;) {
      const seen = yield* this.#shared.env(envIndex(this.#self), Env.events);
      const found = yield* this.#look(wanted);
      if (found.some((events) => events !== 0)) return found;
      const left = cycles < 0 ? -1 : Math.min(until - this.port.cycles(), SLEEP_MAX);
      if (cycles >= 0 && left <= 0) return found;
      if (yield* this.#deliver()) return Errno.EINTR;
      yield* this.#sys.sleep(seen, left);
    }
  }

  /** What is so now of each; we are told when that changes. */
  *#look(wanted: readonly PollFor[]): Op<number[]> {
    const found: number[] = [];
    const ends: (End & { readonly at: number })[] = [];
    for (const [n, { fd, events: asked }] of wanted.entries()) {
      const kind = fd < 0 ? Kind.none : yield* this.#kind(fd);
      const events = asked | Poll.ERR | Poll.HUP;
      if (kind === Kind.pipeRead || kind === Kind.pipeWrite) {
        const pipe = yield* this.port.load(this.#slot(fd, Descriptor.value));
        ends.push({ at: n, pipe, kind, events });
      } else if (kind === Kind.terminal) ends.push({ at: n, pipe: TERMINAL, kind, events });
      const always = kind === Kind.none ? Poll.NVAL : asked & (Poll.IN | Poll.OUT);
      found.push(fd < 0 ? 0 : always);
    }
    const now = ends.length === 0 ? [] : yield* this.#pipes.look(ends, this.#terminal);
    for (const [n, { at, events }] of ends.entries()) found[at] = (now[n] ?? 0) & events;
    return found;
  }

  // ---- files ------------------------------------------------------------------------------------

  *stat(path: string): Op<Stat | number> {
    const below = procPath(path);
    if (below !== null) return yield* this.#proc.stat(below);
    const [inode, word, bytes] = yield* this.#files.path(FsOp.lookup, path);
    if (inode < 0) return inode;
    const directory = (word & 0xff) === InodeKind.directory;
    const [mode, links] = [(word >>> 8) & 0o777, word >>> 20];
    return { inode, directory, bytes: bytes >>> 0, mode, links };
  }

  *mkdir(path: string): Op<number> {
    const [inode] = yield* this.#files.path(FsOp.create, path, InodeKind.directory);
    return inode < 0 ? inode : 0;
  }

  *readdir(path: string): Op<readonly string[] | number> {
    const below = procPath(path);
    if (below !== null) return yield* this.#proc.names(below);
    const [inode] = yield* this.#files.path(FsOp.lookup, path);
    if (inode < 0) return inode;
    const names: string[] = [];
    let offset = 0;
    for (;;) {
      const [bytes, next] = yield* this.#files.ask(FsOp.list, [inode, offset, 0]);
      if (bytes < 0) return bytes;
      if (bytes === 0) return names;
      const block = yield* this.#files.window(BLOCK);
      if (this.port.work(BLOCK * WORK.scanByte) === undefined) yield* this.port.fault();
      collectNames(block, names);
      offset = next;
    }
  }

  *unlink(path: string, only?: 'file' | 'directory'): Op<number> {
    const how = only === undefined ? UNLINK_ANY : only === 'file' ? UNLINK_FILE : UNLINK_DIRECTORY;
    return (yield* this.#files.path(FsOp.unlink, path, how))[0];
  }

  *rename(from: string, to: string): Op<number> {
    return (yield* this.#files.paths(FsOp.rename, from, to))[0];
  }

  *link(from: string, to: string): Op<number> {
    return (yield* this.#files.paths(FsOp.link, from, to))[0];
  }

  *chmod(path: string, mode: number): Op<number> {
    return (yield* this.#files.path(FsOp.mode, path, mode))[0];
  }

  /** The open file behind a descriptor, or EBADF. */
  *#openFile(fd: number, needs: number): Op<number> {
    if ((yield* this.#kind(fd)) !== Kind.file) return Errno.EBADF;
    const file = yield* this.port.load(this.#slot(fd, Descriptor.value));
    return ((yield* this.#flags(file)) & needs) === needs ? file : Errno.EBADF;
  }

  *truncate(fd: number, bytes: number): Op<number> {
    const file = yield* this.#openFile(fd, O_WRITE);
    if (file < 0) return file;
    if (!(Number.isInteger(bytes) && bytes >= 0 && bytes < 2 ** 32)) return Errno.EINVAL;
    return (yield* this.#files.ask(FsOp.truncate, [yield* this.#inode(file), bytes, 0]))[0];
  }

  *seek(fd: number, offset: number, from: 'start' | 'here' | 'end'): Op<number> {
    const file = yield* this.#openFile(fd, 0);
    if (file < 0) return file;
    const word = this.#file(file, OpenFile.offset);
    let base = 0;
    if (from === 'here') base = (yield* this.#shared.control(word)) >>> 0;
    if (from === 'end') {
      const [size] = yield* this.#files.ask(FsOp.size, [yield* this.#inode(file), 0, 0]);
      base = size >>> 0;
    }
    const to = base + offset;
    if (!(Number.isInteger(to) && to >= 0 && to < 2 ** 32)) return Errno.EINVAL;
    yield* this.#shared.setControl(word, to);
    return to;
  }

  /** The journal makes everything before durable with it. */
  *fsync(fd: number): Op<number> {
    const file = yield* this.#openFile(fd, 0);
    return file < 0 ? file : yield* this.#syncFiles();
  }

  *room(): Op<Room | number> {
    const [error, blocks, freeBlocks, freeInodes] = yield* this.#files.ask(FsOp.space, [0, 0, 0]);
    return error < 0 ? error : { blocks, freeBlocks, freeInodes };
  }

  *chdir(path: string): Op<number> {
    const [inode, word] = yield* this.#files.path(FsOp.lookup, path);
    if (inode < 0) return inode;
    if ((word & 0xff) !== InodeKind.directory) return Errno.ENOTDIR;
    yield* this.port.store(user(User.directory), inode);
    return 0;
  }

  *sync(): Op<number> {
    const error = yield* this.#syncFiles();
    const store = yield* this.#shared.control(Control.store);
    if (store === 0) return error;
    const { status } = yield* ask(this.#sys, store, PROTOCOL.sync, {});
    return error < 0 || status === 0 ? error : Errno.EIO;
  }

  *#syncFiles(): Op<number> {
    return (yield* this.#files.ask(FsOp.sync, [0, 0, 0]))[0];
  }

  // ---- the key-value store ----------------------------------------------------------------------

  *openStore(): Op<KvClient | number> {
    if (this.#store !== null) return this.#store.client;
    const store = yield* this.#shared.control(Control.store);
    if (store === 0) return Errno.ENXIO;
    const pages = yield* this.#shared.takeMany(STORE_BUFFER_PAGES);
    if (pages === null) return Errno.ENOMEM;
    for (let n = 0; n < pages.length; n++) {
      yield* this.#around.space.place(STORE_BUFFER + n, pages[n] ?? 0);
    }
    const address = at(STORE_BUFFER);
    // What others left in the pages is not for the store.
    this.port.fill(address, 0, pages.length * PAGE) ?? (yield* this.port.fault());
    const buffer = { address, pages, slot: COMMON, entry: STORE_ENTRY };
    const client = new KvClient(this.#sys, store, buffer);
    this.#store = { client, pages };
    if (yield* client.connect()) return client;
    yield* this.closeStore();
    return Errno.ENXIO;
  }

  /** The store lets go of the pages first: until then they are for nothing else. */
  *closeStore(): Op<void> {
    if (this.#store === null) return;
    const { client, pages } = this.#store;
    yield* client.close();
    const leaf = yield* this.port.load(user(User.tables));
    yield* this.#sys.pageUnmap(leaf, STORE_BUFFER, pages.length, COMMON);
    for (const page of pages) yield* this.#shared.drop(page);
    this.#store = null;
  }

  // ---- memory -----------------------------------------------------------------------------------

  *heap(bytes: number): Op<number> {
    const address = yield* this.#around.space.grow(bytes);
    return address < 0 ? Errno.ENOMEM : address;
  }

  // ---- processes --------------------------------------------------------------------------------

  *fork(child: number, argument: number): Op<number> {
    yield* this.#deliver();
    return yield* this.#around.space.busy(() => this.#fork(child, argument));
  }

  *#fork(child: number, argument: number): Op<number> {
    const { space, childEntry } = this.#around;
    const account = yield* this.#shared.control(Control.account);
    const draft = yield* space.draft(this.pid, account, (view) => this.#inherit(view));
    if (draft === null) return Errno.EAGAIN;
    if (!(yield* space.shareHeap(draft))) {
      yield* this.#abandon(draft.pid, draft.env);
      return Errno.ENOMEM;
    }
    for (let fd = 0; fd < OPEN_MAX; fd++) {
      const kind = yield* this.port.load(this.#slot(fd, Descriptor.kind));
      if (kind === Kind.none) continue;
      yield* this.#count(kind, yield* this.port.load(this.#slot(fd, Descriptor.value)), 1);
    }
    for (const word of [Row.group, Row.own]) {
      yield* this.#shared.setRow(draft.pid, word, yield* this.#shared.row(this.pid, word));
    }
    yield* this.#shared.setRow(draft.pid, Row.state, RowState.running);
    const image = yield* this.#shared.control(Control.image);
    const program = this.#around.programNumber(this.#program);
    const which = draft.pid | (child << 8) | (program << 16);
    yield* this.#sys.envStart(draft.env, image, childEntry, [which, argument], COMMON);
    return draft.pid;
  }

  /** The child's u-area: ours, but for what is its own. */
  *#inherit(view: number): Op<void> {
    if (this.port.copy(view, at(UAREA), PAGE) === undefined) yield* this.port.fault();
  }

  *#abandon(pid: number, env: number): Op<void> {
    yield* this.#sys.envDestroy(env, COMMON, -1);
    yield* this.#around.space.bury(pid);
  }

  *exec(
    program: string,
    args: readonly string[],
    environment: readonly string[] = this.environment,
  ): Op<number> {
    if (!this.#around.hasProgram(program)) return Errno.ENOENT;
    const stored = yield* storeArguments(this.port, at(UAREA), { args, environment });
    if (stored < 0) return stored;
    yield* this.closeStore();
    yield* this.#around.space.busy(() => this.#around.space.clear());
    // Its functions are gone: only what is ignored stays so.
    for (let signal = 1; signal < SIGNALS; signal++) {
      if ((yield* this.port.load(user(User.handlers + signal))) > IGNORED) {
        yield* this.handle(signal, 'default');
      }
    }
    throw new Replaced(program);
  }

  *wait(what: WaitFor = {}): Op<readonly [pid: number, status: number] | number> {
    const shared = this.#shared;
    for (;;) {
      const seen = yield* shared.env(envIndex(this.#self), Env.events);
      yield* shared.setRow(this.pid, Row.waits, 1);
      let children = 0;
      let dying = 0; // environment of a child that has said its last word and not yet gone
      for (let pid = 1; pid < PROCESS_MAX; pid++) {
        const state = yield* shared.row(pid, Row.state);
        if (state === RowState.free || (yield* shared.row(pid, Row.parent)) !== this.pid) continue;
        if (what.pid !== undefined && pid !== what.pid) continue;
        children++;
        const stopped = what.stopped === true ? yield* shared.row(pid, Row.stopped) : 0;
        if (stopped > 0 && state === RowState.running) {
          yield* shared.setRow(pid, Row.stopped, -stopped); // told once
          yield* shared.setRow(this.pid, Row.waits, 0);
          return [pid, STOPPED | stopped];
        }
        if (state !== RowState.ended) continue;
        if (!(yield* this.#around.space.isDead(pid))) {
          dying = yield* shared.row(pid, Row.env);
          continue;
        }
        const status = yield* shared.row(pid, Row.status);
        yield* this.#around.space.bury(pid);
        yield* shared.setRow(this.pid, Row.waits, 0);
        return [pid, status];
      }
      if (children === 0) return Errno.ECHILD;
      if (what.noHang === true && dying === 0) return [0, 0];
      if (yield* this.#deliver()) return Errno.EINTR;
      // It has woken us already and will not again: lend it the rest of the slice to die in.
      if (dying !== 0) yield* this.#sys.yieldTo(dying);
      else yield* this.#sys.sleep(seen);
    }
  }

  *exit(status: number): Op<never> {
    throw new Exited(status);
  }

  /** The end of this process: everything closed, whoever waits told, then gone. */
  *end(status: number): Op<void> {
    yield* this.closeStore();
    for (let fd = 0; fd < OPEN_MAX; fd++) yield* this.close(fd);
    yield* this.settle(this.pid, status);
    yield* this.#sys.envDestroy(this.#self, OWN, status);
  }

  /** Books the end of `pid`: its window lent on, its children orphaned, its parent woken. */
  *settle(pid: number, status: number): Op<void> {
    const shared = this.#shared;
    yield* this.#files.release(pid);
    for (let child = 1; child < PROCESS_MAX; child++) {
      const state = yield* shared.row(child, Row.state);
      if (state !== RowState.free && (yield* shared.row(child, Row.parent)) === pid) {
        yield* shared.setRow(child, Row.parent, 0);
      }
    }
    yield* shared.setRow(pid, Row.status, status);
    yield* shared.setRow(pid, Row.state, RowState.ended);
    yield* this.#tellParent(pid);
  }

  *#tellParent(pid: number): Op<void> {
    const shared = this.#shared;
    const parent = yield* shared.row(pid, Row.parent);
    if (parent <= 0) return;
    if ((yield* shared.row(parent, Row.waits)) === 1) {
      yield* shared.wake(yield* shared.row(parent, Row.env), COMMON);
    }
    const catches = ((yield* shared.row(parent, Row.own)) & (1 << Signal.CHLD)) !== 0;
    // Who schedules may not wait for the lock, and nobody else runs meanwhile.
    if (catches && this.pid === 0) yield* post(shared, parent, Signal.CHLD);
    else if (catches) yield* send(shared, parent, Signal.CHLD);
  }

  // ---- signals ----------------------------------------------------------------------------------

  *kill(pid: number, signal: number): Op<number> {
    if (!(Number.isInteger(signal) && signal >= 0 && signal < SIGNALS)) return Errno.EINVAL;
    if (pid === 0 || !Number.isInteger(pid)) return Errno.EINVAL;
    if (pid > 0) return yield* send(this.#shared, pid, signal);
    yield* this.#shared.lock();
    const sent = yield* postGroup(this.#shared, -pid, signal);
    yield* this.#shared.unlock();
    return sent;
  }

  *handle(signal: number, how: 'default' | 'ignore' | number): Op<number> {
    if (!(Number.isInteger(signal) && signal > 0 && signal < SIGNALS)) return Errno.EINVAL;
    if (signal === Signal.KILL || signal === Signal.STOP) return Errno.EINVAL;
    const word = how === 'default' ? 0 : how === 'ignore' ? IGNORED : HANDLER + how;
    yield* this.port.store(user(User.handlers + signal), word);
    const own = (yield* this.#shared.row(this.pid, Row.own)) & ~(1 << signal);
    yield* this.#shared.setRow(this.pid, Row.own, word === 0 ? own : own | (1 << signal));
    return 0;
  }

  /** Does what pending signals ask for. True: one was handled, and who waits is to say EINTR. */
  *#deliver(): Op<boolean> {
    if (this.pid === 0) return false; // the scheduler, on somebody's behalf
    let handled = false;
    for (;;) {
      const signal = yield* take(this.#shared, this.pid);
      if (signal === 0) return handled;
      const word = yield* this.port.load(user(User.handlers + signal));
      if (word === IGNORED) continue;
      if (word >= HANDLER) {
        const handler = this.#around.program(this.#program)?.children?.[word - HANDLER];
        if (handler !== undefined) yield* handler(this, signal);
        handled = true;
      } else if (isStop(signal)) yield* this.#stop(signal);
      else if (!isQuiet(signal)) throw new Exited(SIGNALLED + signal);
    }
  }

  /** Sleeps until somebody says CONT, or KILL. */
  *#stop(signal: number): Op<void> {
    const shared = this.#shared;
    yield* shared.setRow(this.pid, Row.stopped, signal);
    yield* this.#tellParent(this.pid);
    for (;;) {
      const seen = yield* shared.env(envIndex(this.#self), Env.events);
      if ((yield* shared.row(this.pid, Row.stopped)) === 0) return;
      yield* this.#sys.sleep(seen);
    }
  }

  *setGroup(pid: number, group: number): Op<number> {
    if (!(pid > 0 && pid < PROCESS_MAX)) return Errno.ESRCH;
    if ((yield* this.#shared.row(pid, Row.state)) === RowState.free) return Errno.ESRCH;
    yield* this.#shared.setRow(pid, Row.group, group === 0 ? pid : group);
    return 0;
  }

  *setForeground(group: number): Op<void> {
    yield* this.#shared.setControl(Control.foreground, group);
  }

  /** Closes what a process that was killed had left open: its descriptors, through its u-area. */
  *closeFor(pid: number): Op<void> {
    const left = yield* this.#around.space.throughUarea(pid, (view) => this.#descriptorsAt(view));
    for (const [kind, value] of left) {
      if (kind === Kind.pipeRead || kind === Kind.pipeWrite) {
        yield* this.#pipes.abandon(value, pid);
      } else if (kind === Kind.terminal) yield* this.#pipes.abandon(TERMINAL, pid);
      yield* this.#count(kind, value, -1);
    }
  }

  *#descriptorsAt(view: number): Op<(readonly [number, number])[]> {
    const found: (readonly [number, number])[] = [];
    for (let fd = 0; fd < OPEN_MAX; fd++) {
      const kind = yield* this.port.load(this.#slot(fd, Descriptor.kind, view));
      const value = yield* this.port.load(this.#slot(fd, Descriptor.value, view));
      if (kind !== Kind.none) found.push([kind, value]);
    }
    return found;
  }
}

function collectNames(block: Uint8Array, names: string[]): void {
  const view = new DataView(block.buffer);
  for (let offset = 0; offset + RECORD_HEADER <= block.length;) {
    const length = view.getUint16(offset + 4, true);
    if (length < RECORD_HEADER) return;
    const start = offset + RECORD_HEADER;
    const bytes = block.subarray(start, start + view.getUint16(offset + 6, true));
    const name = String.fromCharCode(...bytes);
    if (view.getUint32(offset, true) !== 0 && name !== '..') names.push(name);
    offset += length;
  }
}

/** What a program is given: its arguments and its environment. */
export interface Given {
  readonly args: readonly string[];
  readonly environment: readonly string[];
}

/** Writes them into a u-area: strings, each ended by a zero byte. */
export function* storeArguments(
  port: UserPort,
  uarea: number,
  { args, environment }: Given,
): Op<number> {
  const strings = [...args, ...environment];
  const text = strings.map((one) => `${one}\0`).join('');
  if (text.length > ARG_MAX) return Errno.E2BIG;
  if (strings.some((one) => one.includes('\0'))) return Errno.EINVAL;
  const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0) & 0xff);
  if (port.write(uarea + User.arguments, bytes, 0, bytes.length) === undefined) yield* port.fault();
  yield* port.store(uarea + User.argc * 4, args.length);
  yield* port.store(uarea + User.envc * 4, environment.length);
  return 0;
}

export function* loadArguments(port: UserPort): Op<Given> {
  const argc = yield* port.load(user(User.argc));
  const envc = yield* port.load(user(User.envc));
  const bytes = new Uint8Array(ARG_MAX);
  if (port.read(at(UAREA) + User.arguments, bytes, 0, ARG_MAX) === undefined) {
    yield* port.fault();
  }
  const strings: string[] = [];
  for (let start = 0; strings.length < argc + envc;) {
    const end = bytes.indexOf(0, start);
    strings.push(String.fromCharCode(...bytes.subarray(start, end)));
    start = end + 1;
  }
  return { args: strings.slice(0, argc), environment: strings.slice(argc) };
}
