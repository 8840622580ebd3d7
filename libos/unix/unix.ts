/**
 * A Unix as a library OS. Every process is an environment of its own; what processes share lies in
 * shared pages or behind messages to the file server, which is an environment too. The tenant's
 * first environment takes the pages, starts the file server and a shell, and from then on is the
 * scheduler: it owns the time slices and lends each to a process that is ready, by directed yield.
 *
 * Nothing here is trusted by any kernel. Processes of one Unix trust one another's library, as they
 * share its pages; other tenants cannot reach them.
 */
import {
  ALL_RIGHTS,
  Env,
  envIndex,
  EnvState,
  GRANT,
  Info,
  MAP_READ,
  MAP_WRITE,
  packName,
  PageKind,
  READ,
  Start,
  Status,
  WRITE,
} from '../../kernel/abi.ts';
import { startStore } from '../kv/lodge.ts';
import { image, LibOS, type Op, OWN_ENTRIES, type UserPort } from '../libos.ts';
import type { Entry } from '../../machine/user-port.ts';
import { FileServer } from './fs/server.ts';
import {
  at,
  BUILD_WINDOW,
  COMMON,
  Control,
  COUNT_PAGES,
  Descriptor,
  DISK,
  ENVS,
  FREE,
  FREE_PAGES,
  HEAP,
  INFO,
  Kind,
  OWN,
  PAGE,
  PROCESS_MAX,
  Row,
  RowState,
  SHARED_CONTROL,
  SHARED_COUNTS,
  SHARED_FREE,
  SHARED_PROCESSES,
  sharedAt,
  STACK,
  UAREA,
  User,
} from './layout.ts';
import { Errno, type Process, type Program, Signal, STDERR } from './process.ts';
import { Shared, SLEEP_MAX } from './shared.ts';
import { Revocation } from './revocation.ts';
import { Space } from './space.ts';
import {
  Exited,
  loadArguments,
  Replaced,
  SIGNALLED,
  storeArguments,
  type Surroundings,
  UnixProcess,
} from './unix-process.ts';
import { ROOT } from './fs/format.ts';
import { deadly } from './signals.ts';
import { TerminalInput } from './terminal.ts';

const SERVER_ENTRY = OWN_ENTRIES;
const SHELL_ENTRY = OWN_ENTRIES + 1;
const CHILD_ENTRY = OWN_ENTRIES + 2;
const PATIENCE = 16; // turns
const FOREVER = Number.MAX_SAFE_INTEGER;
const KILLED = 139; // exit status of a process that did not end itself
const RW = MAP_READ | MAP_WRITE;
/** The script that the first shell runs. */
export const RC = '/etc/rc';

/** A key-value store that lodges here: an environment of the same tenant, in a part of its own. */
export interface StoreSpec {
  /** number of the image that holds it */
  readonly image: number;
  readonly pages: number;
  /** at the end of the extent, behind the file system */
  readonly blocks: number;
}

export class Unix extends LibOS {
  readonly #programs: readonly Program[];
  readonly #store: StoreSpec | null;
  readonly #shared: Shared;
  readonly #space: Space;
  readonly #revocation: Revocation;

  constructor(port: UserPort, programs: readonly Program[], store: StoreSpec | null) {
    super(port);
    this.#store = store;
    this.#programs = programs;
    this.#shared = new Shared(this.sys);
    this.#space = new Space(this.sys, this.#shared);
    this.#revocation = new Revocation(this.sys, this.#shared, this.#space);
  }

  override entries(): readonly Entry[] {
    return [
      (self, extent, blocks) => this.#serve(self ?? 0, extent ?? 0, blocks ?? 0),
      (self) => this.#shell(self ?? 0),
      (self, which, argument) => this.#child(self ?? 0, which ?? 0, argument ?? 0),
    ];
  }

  override *onFault(cause: number, address: number): Op<boolean> {
    if (yield* this.#space.fault(cause, address)) return true;
    yield* this.#lastWords(cause, address);
    return false;
  }

  /** It may come at any moment: what is to be done is done between two processes. */
  override *onRevoke(): Op<void> {
    yield* this.#revocation.heard('asked');
  }
  override *onRepossessed(): Op<void> {
    yield* this.#revocation.heard('lost');
  }

  /** What is said of a process that its own fault kills, on its standard error. */
  *#lastWords(cause: number, address: number): Op<void> {
    if (this.#dying) return; // the words themselves faulted
    this.#dying = true;
    const { port } = this;
    const pid = yield* port.load(at(UAREA) + User.pid * 4);
    const where = `cause ${cause} at 0x${(address >>> 0).toString(16)}`;
    const { why } = this.#space;
    const text = `unix: process ${pid}, environment ${this.self}, killed: ${where}${why}\n`;
    const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0));
    const words = at(UAREA) + User.arguments; // read long ago
    if (port.write(words, bytes, 0, bytes.length) === undefined) yield* port.fault();
    const process = new UnixProcess(this.#around(), this.self, pid, '');
    yield* process.write(STDERR, words, bytes.length);
  }
  #dying = false;

  // ---- the first environment --------------------------------------------------------------------

  override *main(
    self: number,
    _root: number,
    middle: number,
    leaf: number,
    quota: number,
    extent: number,
    blocks: number,
  ): Op<void> {
    const { pages: lent, blocks: kept } = this.#store ?? { pages: 0, blocks: 0 };
    yield* this.#found(self, middle, leaf, quota - lent);
    const files = yield* this.#space.swap.found(extent, blocks - kept);
    const server = yield* this.#launch(SERVER_ENTRY, [extent, files]);
    yield* this.#shared.setControl(Control.server, server);
    if (this.#store !== null) {
      yield* this.#lodge(this.#store, self, leaf, extent, blocks - kept);
    }
    yield* this.#launch(SHELL_ENTRY, [0, 0]);
    yield* this.#schedule();
  }

  /** Makes the store: it runs while it is called, and when the scheduler finds it ready. */
  *#lodge(
    store: StoreSpec,
    self: number,
    leaf: number,
    extent: number,
    firstBlock: number,
  ): Op<void> {
    const shared = this.#shared;
    const env = yield* startStore(this.sys, {
      ...store,
      ...{ self, extent, firstBlock },
      slot: OWN,
      patron: self,
      window: { leaf, index: BUILD_WINDOW },
      take: () => shared.take(),
      put: (page) => shared.drop(page),
    });
    if (env < 0) throw new Error('unix: the quota is too small for the key-value store');
    yield* shared.setControl(Control.store, env);
  }

  /** Takes all pages of the quota and lays the shared state out in the first of them. */
  *#found(self: number, middle: number, leaf: number, quota: number): Op<void> {
    const { port, sys } = this;
    const first = yield* port.load(at(ENVS) + (envIndex(self) * Env.words + Env.nameA) * 4);
    const account = (first >>> 8) & 0xff;
    yield* sys.capForge(self, COMMON, OWN, packName([account, COMMON]), ALL_RIGHTS);
    yield* sys.capForge(self, DISK, OWN, packName([account]), READ | WRITE | GRANT);
    const pages = yield* this.#claim(quota);
    const limit = yield* port.load(at(INFO) + Info.pages * 4);
    const map = (page: number, physical: number): Op<unknown> =>
      sys.pageMap(leaf, page, physical, COMMON, 0, RW, COMMON);
    const next = (): number => {
      const page = pages.pop();
      if (page === undefined) throw new Error('unix: the quota is too small');
      return page;
    };
    const uarea = next();
    yield* map(UAREA, uarea);
    yield* port.store(at(UAREA) + User.leaves * 4, 1);
    yield* port.store(at(UAREA) + User.tables * 4, leaf);
    yield* port.store(at(UAREA) + User.middle * 4, middle);
    yield* port.store(at(UAREA) + User.end * 4, at(HEAP));
    if (limit > COUNT_PAGES * PAGE) throw new Error(`unix: ${limit} pages are too many to count`);
    const frees = Math.min(FREE_PAGES, Math.ceil((pages.length * 4) / PAGE));
    const shared: number[] = [SHARED_CONTROL, SHARED_PROCESSES];
    // All of them, however few would do: every mode is to leave the same number of pages.
    for (let n = 0; n < COUNT_PAGES; n++) shared.push(SHARED_COUNTS + n);
    for (let n = 0; n < frees; n++) shared.push(SHARED_FREE + n);
    const physical = shared.map(next);
    for (let n = 0; n < shared.length; n++) yield* map(sharedAt(shared[n] ?? 0), physical[n] ?? 0);
    // What none can do without is not to be taken by force: as much as our minimum allows.
    for (const page of [uarea, ...physical]) {
      if ((yield* sys.pageKeep(page, COMMON, 1)).status !== Status.ok) break;
    }
    const set = (word: number, value: number): Op<number> => this.#shared.setControl(word, value);
    for (let n = 0; n < shared.length; n++) {
      yield* set(Control.shared + (shared[n] ?? 0), physical[n] ?? 0);
    }
    const info = (n: number): Op<number> => port.load(at(INFO) + n * 4);
    yield* set(Control.info, yield* info(Info.page));
    yield* set(Control.envs, yield* info(Info.envPage));
    yield* set(Control.envPages, yield* info(Info.envPages));
    yield* set(Control.init, self);
    yield* set(Control.nextEnv, 1);
    yield* set(Control.account, account);
    yield* set(Control.image, yield* this.#shared.env(envIndex(self), Env.image));
    const list = new Uint8Array(Uint32Array.from(pages).buffer);
    if (port.write(at(FREE), list, 0, list.length) === undefined) yield* port.fault();
    yield* set(Control.free, pages.length);
    yield* this.catchFaults();
    yield* this.#space.keep(STACK, OWN);
    yield* this.catchRevocation();
    yield* this.#revocation.found(self, leaf);
  }

  /** Allocates `quota` pages that the exposed table shows free, a table page read at a time. */
  *#claim(quota: number): Op<number[]> {
    const { port } = this;
    const limit = yield* port.load(at(INFO) + Info.pages * 4);
    const words = new Uint8Array(PAGE);
    const table = new Uint32Array(words.buffer);
    const pages: number[] = [];
    for (let base = 0; base < limit && pages.length < quota; base += PAGE / 4) {
      const view = at(Start.pagePages) + base * 4;
      if (port.read(view, words, 0, PAGE) === undefined) yield* port.fault();
      if (port.work(PAGE / 4) === undefined) yield* port.fault();
      for (let n = 0; n < PAGE / 4 && pages.length < quota; n++) {
        if (base + n >= limit || ((table[n] ?? 0) & 0xff) !== PageKind.free) continue;
        const { status } = yield* this.sys.pageAllocate(base + n, COMMON);
        if (status === Status.ok) pages.push(base + n);
      }
    }
    return pages;
  }

  /** Starts a process that is nobody's child. */
  *#launch(entry: number, args: readonly [number, number]): Op<number> {
    const account = yield* this.#shared.control(Control.account);
    const { port } = this;
    // The file server's pages are in its requests: none of them goes to the swap area.
    const paging = entry === SHELL_ENTRY && (yield* this.#shared.control(Control.swapBlocks)) !== 0;
    const draft = yield* this.#space.draft(0, account, function* (view): Op<void> {
      yield* port.store(view + User.paging * 4, paging ? 1 : 0);
      yield* port.store(view + User.end * 4, at(HEAP));
      yield* port.store(view + User.directory * 4, ROOT);
      for (let fd = 0; fd < 3; fd++) {
        const slot = view + (User.descriptors + fd * Descriptor.words + Descriptor.kind) * 4;
        yield* port.store(slot, Kind.console);
      }
    });
    if (draft === null) throw new Error('unix: the quota is too small');
    const swapping = (yield* this.#shared.control(Control.swapBlocks)) !== 0;
    if (entry === SERVER_ENTRY && !swapping) {
      const name = packName([account]);
      yield* this.sys.capForge(draft.env, DISK, OWN, name, READ | WRITE);
    }
    yield* this.#shared.setRow(draft.pid, Row.group, draft.pid);
    yield* this.#shared.setRow(draft.pid, Row.state, RowState.running);
    const program = yield* this.#shared.control(Control.image);
    yield* this.sys.envStart(draft.env, program, entry, args, COMMON);
    return draft.env;
  }

  /** Round robin over the processes that are ready, or due; sleeps when none is, until one is. */
  *#schedule(): Op<void> {
    const shared = this.#shared;
    const terminal = new TerminalInput(this.sys, shared);
    let last = 0;
    for (;;) {
      const seen = yield* shared.env(envIndex(this.self), Env.events);
      yield* terminal.feed();
      if (yield* this.#revocation.isDue()) yield* this.#revocation.answer();
      const store = yield* shared.control(Control.store);
      let ran = store !== 0 && (yield* shared.stateOf(store)) === EnvState.ready;
      if (ran) ran = (yield* this.sys.yieldTo(store)).status === Status.ok;
      const from = last + 1;
      let due = FOREVER;
      for (let n = 0; n < PROCESS_MAX && !ran; n++) {
        const pid = (from + n) % PROCESS_MAX;
        if (pid === 0) continue;
        const state = yield* shared.row(pid, Row.state);
        if (state !== RowState.running && state !== RowState.ended) continue;
        const env = yield* shared.row(pid, Row.env);
        const is = yield* shared.stateOf(env);
        if (is === EnvState.zombie) {
          // Whoever holds the lock runs in our slices only: we must not wait for it.
          if ((yield* shared.control(Control.lock)) !== 0) continue;
          yield* this.#cleanUp(pid, state === RowState.running);
        } else if (is === EnvState.ready || (yield* this.#isStranded(env, is))) {
          if (yield* this.#isHeld(pid, env)) continue;
          last = pid;
          ran = (yield* this.sys.yieldTo(env)).status === Status.ok;
        } else if (is === EnvState.sleeping) {
          const deadline = yield* shared.deadlineOf(env);
          if (deadline === 0) continue;
          due = Math.min(due, deadline);
          if (deadline > this.port.cycles()) continue;
          last = pid;
          ran = (yield* this.sys.yieldTo(env)).status === Status.ok;
        }
      }
      if (ran) continue;
      const left = Math.max(0, Math.min(due - this.port.cycles(), SLEEP_MAX));
      yield* this.sys.sleep(seen, due === FOREVER ? -1 : left);
    }
  }

  /**
   * Whether a process is not to run: it has not looked at a signal that stops or ends it, though it
   * had the time for any system call. Who holds the lock goes on until it does not.
   */
  *#isHeld(pid: number, env: number): Op<boolean> {
    const shared = this.#shared;
    const pending = yield* shared.row(pid, Row.pending);
    if (pending === 0) return false;
    const own = yield* shared.row(pid, Row.own);
    const patience = (yield* shared.row(pid, Row.patience)) + 1;
    yield* shared.setRow(pid, Row.patience, patience);
    if (patience < PATIENCE || (yield* shared.control(Control.lock)) !== 0) return false;
    const signal = deadly(pending, own);
    if (signal === 0 && (pending & (1 << Signal.STOP)) === 0) return false;
    // It may have what others wait for: a pipe, or what it is making a child of.
    if (yield* this.#space.isBusy(pid)) return false;
    if (signal === 0) return true;
    yield* shared.setRow(pid, Row.fatal, signal);
    yield* this.sys.envDestroy(env, COMMON, -1);
    return true;
  }

  /** Waits for an answer from an environment that is dead: whoever runs it releases it. */
  *#isStranded(env: number, state: number): Op<boolean> {
    if (state !== EnvState.calling) return false;
    const callee = yield* this.#shared.env(envIndex(env), Env.partner);
    const is = yield* this.#shared.stateOf(callee);
    return is === EnvState.zombie || is === EnvState.free;
  }

  /** A process that was killed is booked as ended; an orphan that ended is buried. */
  *#cleanUp(pid: number, killed: boolean): Op<void> {
    const shared = this.#shared;
    if (killed) {
      const someone = new UnixProcess(this.#around(), this.self, 0, '');
      yield* someone.closeFor(pid);
      const fatal = yield* shared.row(pid, Row.fatal);
      yield* someone.settle(pid, fatal === 0 ? KILLED : SIGNALLED + fatal);
    }
    if ((yield* shared.row(pid, Row.parent)) === 0) yield* this.#space.bury(pid);
  }

  // ---- the other environments -------------------------------------------------------------------

  *#serve(self: number, extent: number, blocks: number): Op<void> {
    yield* this.catchFaults();
    // A third of the pages for the cache; programs need the rest.
    const free = yield* this.#shared.control(Control.free);
    const frames = Math.max(64, Math.floor(free / 3));
    yield* new FileServer(this.sys, this.#shared, this.#space).run(self, extent, blocks, frames);
  }

  *#shell(self: number): Op<void> {
    yield* this.catchFaults();
    const pid = yield* this.port.load(at(UAREA) + User.pid * 4);
    const process = new UnixProcess(this.#around(), self, pid, 'sh');
    const script = (yield* this.#readAll(process, RC)).trimEnd();
    const given = { args: ['sh', '-c', script], environment: [] };
    const stored = yield* storeArguments(this.port, at(UAREA), given);
    if (stored < 0) throw new Error(`unix: ${RC} is too long`);
    yield* this.#space.clear();
    // Word to whoever measures: this Unix is up, and what follows is the work.
    yield* this.sys.consoleWrite(at(UAREA), 0);
    yield* this.#runPrograms(self, pid, 'sh');
  }

  *#readAll(process: Process, path: string): Op<string> {
    const fd = yield* process.open(path, 1);
    if (fd < 0) throw new Error(`unix: cannot open ${path}: error ${-fd}`);
    const buffer = yield* process.heap(PAGE);
    const count = yield* process.read(fd, buffer, PAGE);
    yield* process.close(fd);
    const bytes = new Uint8Array(Math.max(0, count));
    const read = this.port.read(buffer, bytes, 0, bytes.length);
    if (read === undefined) yield* this.port.fault();
    return String.fromCharCode(...bytes);
  }

  /** A forked child: finds its function by the numbers that it was started with. */
  *#child(self: number, which: number, argument: number): Op<void> {
    yield* this.catchFaults();
    const pid = which & 0xff;
    const program = this.#programs[(which >>> 16) & 0xff];
    const start = program?.children?.[(which >>> 8) & 0xff];
    const given = yield* loadArguments(this.port);
    const process = new UnixProcess(this.#around(), self, pid, program?.name ?? '', given);
    yield* this.#run(process, () =>
      start === undefined ? process.exit(Errno.EINVAL & 0xff) : start(process, argument),
    );
  }

  /** Runs programs in this environment, one after the other's exec, until one ends. */
  *#runPrograms(self: number, pid: number, first: string): Op<void> {
    const given = yield* loadArguments(this.port);
    const process = new UnixProcess(this.#around(), self, pid, first, given);
    yield* this.#run(process, () => this.#named(first).main(process));
  }

  *#run(process: UnixProcess, start: () => Op<number>): Op<void> {
    try {
      const status = yield* start();
      yield* process.end(status);
    } catch (error) {
      if (error instanceof Exited) yield* process.end(error.code);
      else if (error instanceof Replaced) {
        yield* this.#runPrograms(this.self, process.pid, error.program);
      } else throw error;
    }
  }

  #named(name: string): Program {
    const program = this.#programs.find((candidate) => candidate.name === name);
    if (program === undefined) throw new Error(`unix: no program ${name}`);
    return program;
  }

  #around(): Surroundings {
    return {
      sys: this.sys,
      shared: this.#shared,
      space: this.#space,
      childEntry: CHILD_ENTRY,
      hasProgram: (name) => this.#programs.some((program) => program.name === name),
      program: (name) => this.#programs.find((program) => program.name === name),
      programNumber: (name) => this.#programs.findIndex((program) => program.name === name),
    };
  }
}

/** The Unix with these programs, as an image; with a store, if it is told where that is. */
export const unix = (
  programs: readonly Program[],
  store: StoreSpec | null = null,
): ReturnType<typeof image> => image('unix', (port) => new Unix(port, programs, store), 3);
