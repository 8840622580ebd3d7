/**
 * The process's side of the file server: a file window borrowed when the first file is touched, and
 * one message per operation. The windows are pages granted to the server once and lent to one
 * process after another.
 */
import { EnvState, READ, Status, WRITE } from '../../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../../syscalls.ts';
import { FsOp, request } from './protocol.ts';
import {
  at,
  COMMON,
  Control,
  FILE_WINDOW,
  PAGE,
  Row,
  UAREA,
  User,
  WINDOW_PAGES,
  WINDOW_SETS,
} from '../layout.ts';
import { Errno } from '../process.ts';
import type { Shared } from '../shared.ts';

const WINDOW = at(FILE_WINDOW);
export const WINDOW_BYTES = WINDOW_PAGES * PAGE;
const SERVER_ENTRY = 1; // access entry that grants a window page to the server

/** States of a window set in the control page. */
const NEVER = 0;
const FREE = 1;
const USED = 2; // + pid

export type FsReply = readonly [result: number, a: number, b: number, c: number];

export class FileClient {
  readonly #port: UserPort;
  readonly #sys: Syscalls;
  readonly #shared: Shared;

  constructor(sys: Syscalls, shared: Shared) {
    this.#port = sys.port;
    this.#sys = sys;
    this.#shared = shared;
  }

  /** Puts a path into the window and asks; word 2 is its length. */
  *path(op: number, path: string, c = 0, length = path.length): Op<FsReply> {
    if (path.length === 0) return [Errno.ENOENT, 0, 0, 0];
    if (path.length > PAGE) return [Errno.ENAMETOOLONG, 0, 0, 0];
    const set = yield* this.#window();
    if (set < 0) return [set, 0, 0, 0];
    const bytes = Uint8Array.from(path, (char) => char.charCodeAt(0) & 0xff);
    if (this.#port.write(WINDOW, bytes, 0, bytes.length) === undefined) yield* this.#port.fault();
    const directory = yield* this.#port.load(at(UAREA) + User.directory * 4);
    return yield* this.#ask(set, op, [directory, length, c]);
  }

  /** Puts two paths into the window, one behind the other; words 2 and 3 are their lengths. */
  *paths(op: number, from: string, to: string): Op<FsReply> {
    if (from.length === 0 || to.length === 0) return [Errno.ENOENT, 0, 0, 0];
    if (from.length + to.length > PAGE) return [Errno.ENAMETOOLONG, 0, 0, 0];
    return yield* this.path(op, from + to, to.length, from.length);
  }

  *ask(op: number, words: readonly [number, number, number]): Op<FsReply> {
    const set = yield* this.#window();
    return set < 0 ? [set, 0, 0, 0] : yield* this.#ask(set, op, words);
  }

  /** Reads from a file into our memory: the window's contents, copied. */
  *read(inode: number, offset: number, va: number, bytes: number): Op<number> {
    const wanted = Math.min(bytes, WINDOW_BYTES);
    const [count] = yield* this.ask(FsOp.read, [inode, offset, wanted]);
    if (count <= 0) return count;
    if (this.#port.copy(va, WINDOW, count) === undefined) yield* this.#port.fault();
    return count;
  }

  *write(inode: number, offset: number, va: number, bytes: number): Op<number> {
    const set = yield* this.#window();
    if (set < 0) return set;
    const count = Math.min(bytes, WINDOW_BYTES);
    if (this.#port.copy(WINDOW, va, count) === undefined) yield* this.#port.fault();
    return (yield* this.#ask(set, FsOp.write, [inode, offset, count]))[0];
  }

  /** Writes at the end of a file, wherever that is by then: how many bytes, and where they end. */
  *append(inode: number, va: number, bytes: number): Op<FsReply> {
    const set = yield* this.#window();
    if (set < 0) return [set, 0, 0, 0];
    const count = Math.min(bytes, WINDOW_BYTES);
    if (this.#port.copy(WINDOW, va, count) === undefined) yield* this.#port.fault();
    return yield* this.#ask(set, FsOp.append, [inode, count, 0]);
  }

  /** Bytes that the last answer left in the window. */
  *window(bytes: number): Op<Uint8Array> {
    const copy = new Uint8Array(bytes);
    if (this.#port.read(WINDOW, copy, 0, bytes) === undefined) yield* this.#port.fault();
    return copy;
  }

  /** Gives the window of process `pid` back, if it has one: at its end. */
  *release(pid: number): Op<void> {
    const set = (yield* this.#shared.row(pid, Row.set)) - 1;
    if (set < 0) return;
    yield* this.#shared.setControl(Control.sets + set, FREE);
    yield* this.#shared.setRow(pid, Row.set, 0);
  }

  *#ask(set: number, op: number, words: readonly number[]): Op<FsReply> {
    const server = yield* this.#shared.control(Control.server);
    for (;;) {
      const { status, words: got } = yield* this.#sys.ipcCall(server, [request(op, set), ...words]);
      if (status === Status.ok) return got;
      const state = yield* this.#shared.stateOf(server);
      if (status !== Status.notReady || state === EnvState.zombie) return [Errno.EIO, 0, 0, 0];
      yield* this.#sys.yieldTo(yield* this.#shared.control(Control.init));
    }
  }

  /** Our window set, borrowed or made if we have none; negative if it cannot be had. */
  *#window(): Op<number> {
    const pid = yield* this.#port.load(at(UAREA) + User.pid * 4);
    const have = yield* this.#shared.row(pid, Row.set);
    if (have > 0) return have - 1;
    yield* this.#shared.lock();
    let set = -1;
    let fresh = -1;
    for (let n = 0; n < WINDOW_SETS && set < 0; n++) {
      const state = yield* this.#shared.control(Control.sets + n);
      if (state === FREE) set = n;
      if (state === NEVER && fresh < 0) fresh = n;
    }
    if (set >= 0 || fresh >= 0) {
      yield* this.#shared.setControl(Control.sets + (set >= 0 ? set : fresh), USED + pid);
    }
    yield* this.#shared.unlock();
    if (set < 0) {
      if (fresh < 0) return Errno.EAGAIN;
      const made = yield* this.#makeSet(fresh);
      if (made < 0) {
        yield* this.#shared.setControl(Control.sets + fresh, NEVER);
        return made;
      }
      set = fresh;
    }
    yield* this.#shared.setRow(pid, Row.set, set + 1);
    return set;
  }

  /**
   * Grants the server WINDOW_PAGES pages, one with each message. The server's window moves up by
   * one a page, so sets must come in order: whoever makes one is alone, by the order of the sets.
   */
  *#makeSet(set: number): Op<number> {
    while (
      set > 0 &&
      (yield* this.#shared.control(Control.windows + set * WINDOW_PAGES - 1)) === 0
    ) {
      yield* this.#sys.yieldTo(yield* this.#shared.control(Control.init));
    }
    const pages = yield* this.#shared.takeMany(WINDOW_PAGES);
    if (pages === null) return Errno.ENOMEM;
    const server = yield* this.#shared.control(Control.server);
    for (let n = 0; n < WINDOW_PAGES; n++) {
      const page = pages[n] ?? 0;
      const grant = { page, slot: COMMON, rights: READ | WRITE, entry: SERVER_ENTRY };
      for (;;) {
        const { status } = yield* this.#sys.ipcCall(server, [request(FsOp.window, set)], grant);
        if (status === Status.ok) break;
        if (status !== Status.notReady) return Errno.EIO;
        yield* this.#sys.yieldTo(yield* this.#shared.control(Control.init));
      }
      yield* this.#shared.setControl(Control.windows + set * WINDOW_PAGES + n, page);
    }
    return 0;
  }
}
