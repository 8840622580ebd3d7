/**
 * Pages that are asked back. The kernel asks the Unix's first environment, which is its scheduler;
 * between two processes that it runs, it frees what this Unix can best do without, in this order:
 *
 *     free pages, but for some       nobody notices
 *     frames of the block cache      the file server parts with them, between two operations
 *     pages of processes             to the swap area, as when memory is short
 *     free pages, to the reserve     if there is a swap area; and then no more
 *
 * What is wanted beyond that whoever asks may take by force. Then the processes that lost pages
 * are ended, for what stood there is gone, and the others go on. Processes that change their
 * tables at this moment, and the file server's other pages, are left alone. Owed is that no
 * process notices but by its time. It trusts the exposed account for what is wanted.
 */
import {
  Account,
  Env,
  envIndex,
  EnvState,
  Info,
  MAP_READ,
  PAGE_ACCOUNT_SHIFT,
  PageKind,
  Start,
  Status,
} from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import { FsOp, request } from './fs/protocol.ts';
import {
  ACCOUNTS,
  at,
  BATCH,
  COMMON,
  Control,
  COUNTS,
  FREE,
  HEAP,
  INFO,
  PAGE,
  PROCESS_MAX,
  Row,
  RowState,
  User,
  WINDOW_PAGES,
} from './layout.ts';
import type { Shared } from './shared.ts';
import { RESERVE, type Space } from './space.ts';

/** Free pages that are kept while anything else can go: forks and first touches come at once. */
const COMFORT = 128;
const PATIENCE = 64; // turns of the scheduler that the file server has for its part

/** Words of Control.giving. */
const NOT = 0;
const ASKED = 1;
const SPENT = 2; // all that could go has gone: now only what happens to be free

/** A range of pages that somebody wants back, and how many of them. */
interface Asked {
  readonly wanted: number;
  readonly first: number;
  readonly pages: number;
}

export class Revocation {
  readonly #port: UserPort;
  readonly #sys: Syscalls;
  readonly #shared: Shared;
  readonly #space: Space;

  constructor(sys: Syscalls, shared: Shared, space: Space) {
    this.#port = sys.port;
    this.#sys = sys;
    this.#shared = shared;
    this.#space = space;
  }

  /** Shows us our account, in leaf table `leaf`. */
  *found(self: number, leaf: number): Op<void> {
    const table = yield* this.#port.load(at(INFO) + Info.accountPage * 4);
    if (table === 0) return; // this kernel shows none, and asks for nothing
    const account = yield* this.#shared.env(envIndex(self), Env.account);
    const page = table + Math.floor((account * Account.words * 4) / PAGE);
    yield* this.#sys.pageMap(leaf, ACCOUNTS, page, COMMON, 0, MAP_READ, COMMON);
    yield* this.#shared.setControl(Control.accountPage, page);
    const row = at(ACCOUNTS) + ((account * Account.words * 4) % PAGE);
    yield* this.#shared.setControl(Control.accountRow, row);
    yield* this.#recover(); // from what was taken before anybody could hear of it
  }

  /** A handler's part: word of it. */
  heard(what: 'asked' | 'lost'): Op<number> {
    return this.#shared.setControl(Control[what], 1);
  }

  /** Answers what was heard, or goes on with it. The scheduler's, while nobody holds the lock. */
  *answer(): Op<void> {
    const shared = this.#shared;
    if ((yield* shared.control(Control.lost)) !== 0) {
      yield* shared.setControl(Control.lost, 0);
      if (!(yield* this.#recover())) yield* shared.setControl(Control.lost, 1);
    }
    if ((yield* shared.control(Control.asked)) !== 0) {
      yield* shared.setControl(Control.asked, 0);
      yield* shared.setControl(Control.patience, PATIENCE);
      yield* shared.setControl(Control.giving, ASKED);
    }
    if ((yield* shared.control(Control.giving)) !== NOT) yield* this.#comply();
  }

  /** Whether there is anything to answer. */
  *isDue(): Op<boolean> {
    for (const word of [Control.asked, Control.lost, Control.giving]) {
      if ((yield* this.#shared.control(word)) === 0) continue;
      return (yield* this.#shared.control(Control.lock)) === 0;
    }
    return false;
  }

  *#comply(): Op<void> {
    const shared = this.#shared;
    const asked = yield* this.#askedFor();
    const may = (page: number): boolean => page >= asked.first && page < asked.first + asked.pages;
    let left = asked.wanted;
    const spent = (yield* shared.control(Control.giving)) === SPENT;
    if (left > 0 && !spent) {
      left -= yield* this.#giveFree(left, COMFORT, may);
      if (left > 0 && (yield* this.#waitsForCache(left, asked))) return;
      while (left > 0) {
        const freed = yield* this.#evict(may);
        left -= yield* this.#giveFree(left, COMFORT, may);
        if (freed <= 0) break;
      }
    }
    // Without a swap area whoever touches one page more than there are would be ended.
    const floor = (yield* shared.control(Control.swapBlocks)) === 0 ? COMFORT : RESERVE;
    if (left > 0) left -= yield* this.#giveFree(left, floor, may);
    if (left === 0) yield* shared.setControl(Control.shrink, 0);
    yield* shared.setControl(Control.giving, left > 0 ? SPENT : NOT);
  }

  *#askedFor(): Op<Asked> {
    const row = yield* this.#shared.control(Control.accountRow);
    const word = (n: number): Op<number> => this.#port.load(row + n * 4);
    return {
      wanted: yield* word(Account.wanted),
      first: yield* word(Account.first),
      pages: yield* word(Account.pages),
    };
  }

  /** Frees up to `count` free pages of the range while more than `floor` are left; how many. */
  *#giveFree(count: number, floor: number, may: (page: number) => boolean): Op<number> {
    const [port, shared] = [this.#port, this.#shared];
    let free = yield* shared.control(Control.free);
    let given = 0;
    for (let n = free - 1; n >= 0 && given < count && free > floor; n--) {
      const page = yield* port.load(at(FREE) + n * 4);
      if (!may(page)) continue;
      // Refused if a mapping is left of it: then it is no page to give.
      if ((yield* this.#sys.pageFree(page, COMMON)).status !== Status.ok) continue;
      free--;
      given++;
      yield* port.store(at(FREE) + n * 4, yield* port.load(at(FREE) + free * 4));
      yield* shared.setControl(Control.free, free);
    }
    return given;
  }

  // ---- the block cache --------------------------------------------------------------------------

  /**
   * Whether the file server is still to part with frames. It is told by a word that it looks at
   * after each operation, and by a message if it waits for one.
   */
  *#waitsForCache(count: number, { first, pages }: Asked): Op<boolean> {
    const shared = this.#shared;
    const state = yield* shared.control(Control.shrink);
    const patience = yield* shared.control(Control.patience);
    if (state < 0 || patience === 0) {
      yield* shared.setControl(Control.shrink, 0); // it has, or has no time now
      yield* shared.setControl(Control.patience, 0);
      return false;
    }
    yield* shared.setControl(Control.patience, patience - 1);
    if (state === 0) {
      yield* shared.setControl(Control.shrinkFirst, first);
      yield* shared.setControl(Control.shrinkPages, pages);
      yield* shared.setControl(Control.shrink, count);
    }
    const server = yield* shared.control(Control.server);
    if ((yield* shared.stateOf(server)) === EnvState.receiving) {
      yield* this.#sys.ipcSend(server, [request(FsOp.shrink, 0)]);
    }
    return true;
  }

  // ---- processes --------------------------------------------------------------------------------

  /** Sends pages of some process to the swap area, of each in turn; how many, 0 if of none. */
  *#evict(may: (page: number) => boolean): Op<number> {
    const shared = this.#shared;
    if ((yield* shared.control(Control.swapBlocks)) === 0) return 0;
    const last = yield* shared.control(Control.lastEvicted);
    for (let n = 1; n <= PROCESS_MAX; n++) {
      const pid = (last + n) % PROCESS_MAX;
      if (pid === 0 || (yield* shared.row(pid, Row.state)) !== RowState.running) continue;
      const state = yield* shared.stateOf(yield* shared.row(pid, Row.env));
      if (state === EnvState.zombie || state === EnvState.free) continue;
      const freed = yield* this.#space.throughUarea(pid, (view) => this.#evictFrom(view, may));
      if (freed <= 0) continue;
      yield* shared.setControl(Control.lastEvicted, pid);
      return freed;
    }
    return 0;
  }

  *#evictFrom(view: number, may: (page: number) => boolean): Op<number> {
    if ((yield* this.#port.load(view + User.paging * 4)) === 0) return 0;
    if ((yield* this.#port.load(view + User.busy * 4)) !== 0) return 0;
    return yield* this.#space.swap.evict(view, may);
  }

  // ---- what was taken by force ------------------------------------------------------------------

  *#losses(): Op<number> {
    const row = yield* this.#shared.control(Control.accountRow);
    return yield* this.#port.load(row + Account.losses * 4);
  }

  /**
   * Ends whoever lost something, and forgets the pages. False: some process changes its tables, and
   * cannot be judged yet.
   */
  *#recover(): Op<boolean> {
    const shared = this.#shared;
    const losses = yield* this.#losses();
    if (losses === (yield* shared.control(Control.losses))) return true;
    yield* this.#forget();
    yield* shared.setControl(Control.cacheLosses, 1);
    const server = yield* shared.control(Control.server);
    let all = true;
    for (let pid = 1; pid < PROCESS_MAX; pid++) {
      const env = yield* shared.row(pid, Row.env);
      if ((yield* shared.row(pid, Row.state)) !== RowState.running || env === server) continue;
      const state = yield* shared.stateOf(env);
      if (state === EnvState.zombie || state === EnvState.free) continue;
      const whole = yield* this.#isWhole(pid);
      if (whole === null) all = false;
      else if (!whole) yield* this.#end(pid, env);
    }
    if (all) yield* shared.setControl(Control.losses, losses);
    return all;
  }

  /** Lost pages are no longer among the free ones, and whoever lets go of one frees nothing. */
  *#forget(): Op<void> {
    const [port, shared] = [this.#port, this.#shared];
    const account = yield* shared.env(envIndex(yield* shared.control(Control.init)), Env.account);
    const limit = yield* port.load(at(INFO) + Info.pages * 4);
    const ours = new Uint8Array(limit);
    const bytes = new Uint8Array(PAGE);
    const words = new Uint32Array(bytes.buffer);
    for (let base = 0; base < limit; base += PAGE / 4) {
      if (port.read(at(Start.pagePages) + base * 4, bytes, 0, PAGE) === undefined) {
        yield* port.fault();
      }
      if (port.work(PAGE / 4) === undefined) yield* port.fault();
      for (let n = 0; n < PAGE / 4 && base + n < limit; n++) {
        const word = words[n] ?? 0;
        const kind = word & 0xff;
        const given = kind !== PageKind.free && kind !== PageKind.quarantined;
        if (given && ((word >>> PAGE_ACCOUNT_SHIFT) & 0xff) === account) ours[base + n] = 1;
      }
    }
    let free = yield* shared.control(Control.free);
    for (let n = free - 1; n >= 0; n--) {
      if (ours[yield* port.load(at(FREE) + n * 4)] === 1) continue;
      free--;
      yield* port.store(at(FREE) + n * 4, yield* port.load(at(FREE) + free * 4));
    }
    yield* shared.setControl(Control.free, free);
    for (let base = 0; base < limit; base += PAGE) {
      const count = Math.min(PAGE, limit - base);
      if (port.read(at(COUNTS) + base, bytes, 0, count) === undefined) yield* port.fault();
      for (let n = 0; n < count; n++) {
        if ((bytes[n] ?? 0) !== 0 && ours[base + n] === 0) yield* shared.lost(base + n);
      }
    }
  }

  /** Whether a process has all that it had; null: that cannot be told now. */
  *#isWhole(pid: number): Op<boolean | null> {
    const shared = this.#shared;
    for (const word of [Row.stack, Row.uarea]) {
      if (yield* shared.isLost(yield* shared.row(pid, word))) return false;
    }
    const set = (yield* shared.row(pid, Row.set)) - 1;
    if (set >= 0 && (yield* this.#isSetLost(set))) return false;
    return yield* this.#space.throughUarea(pid, (view) => this.#hasItsHeap(view));
  }

  *#hasItsHeap(view: number): Op<boolean | null> {
    const [port, { swap }] = [this.#port, this.#space];
    if ((yield* port.load(view + User.busy * 4)) !== 0) return null;
    for (const map of yield* swap.maps(view)) {
      if (map !== 0 && (yield* this.#shared.isLost(map))) return false;
    }
    let missing = yield* port.load(view + User.resident * 4);
    const leaves = yield* port.load(view + User.leaves * 4);
    for (let n = 0; n < leaves; n++) {
      const entries = yield* swap.words(yield* port.load(view + (User.tables + n * 3) * 4));
      for (let at = n === 0 ? HEAP * 2 : 0; at < entries.length; at += 2) {
        missing -= (entries[at] ?? 0) & 1;
      }
      if (port.work(entries.length / 2) === undefined) yield* port.fault();
    }
    return missing === 0;
  }

  *#isSetLost(set: number): Op<boolean> {
    const shared = this.#shared;
    for (let n = 0; n < WINDOW_PAGES; n++) {
      const page = yield* shared.control(Control.windows + set * WINDOW_PAGES + n);
      if (page !== 0 && (yield* shared.isLost(page))) return true;
    }
    return false;
  }

  *#end(pid: number, env: number): Op<void> {
    const shared = this.#shared;
    const who = `unix: process ${pid}, environment ${env}`;
    const text = `${who}, killed: pages of it were taken by force\n`;
    const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0));
    if (this.#port.write(BATCH, bytes, 0, bytes.length) === undefined) yield* this.#port.fault();
    yield* this.#sys.consoleWrite(BATCH, bytes.length);
    const set = (yield* shared.row(pid, Row.set)) - 1;
    if (set >= 0 && (yield* this.#isSetLost(set))) yield* shared.setRow(pid, Row.set, 0);
    if (yield* shared.isLost(yield* shared.row(pid, Row.uarea))) yield* this.#disown(pid);
    yield* this.#sys.envDestroy(env, COMMON, -1);
  }

  /** Nobody can bury it, for where its pages stand is lost: its row stays taken. */
  *#disown(pid: number): Op<void> {
    const shared = this.#shared;
    const parent = yield* shared.row(pid, Row.parent);
    yield* shared.setRow(pid, Row.state, RowState.building);
    for (let other = 1; other < PROCESS_MAX; other++) {
      const orphan = other === pid || (yield* shared.row(other, Row.parent)) === pid;
      if (orphan) yield* shared.setRow(other, Row.parent, 0);
    }
    if (parent > 0) yield* shared.wake(yield* shared.row(parent, Row.env), COMMON);
  }
}
