/**
 * Pages that are asked back. The kernel asks the Unix's first environment, which is its scheduler;
 * between two processes that it runs, it frees what this Unix can best do without, in this order:
 *
 *     free pages, but for some       nobody notices
 *     frames of the block cache      the file server parts with them, between two operations
 *     pages of processes             to the swap area, as when memory is short
 *     free pages, to the reserve     if there is a swap area; and then no more
 *
 * What is wanted beyond that whoever asks may take by force. Processes that change their tables at
 * this moment, and the file server's other pages, are left alone. Owed is that no process notices
 * but by the time that it takes. It trusts the exposed account for what is wanted.
 */
import { Account, Env, envIndex, EnvState, Info, MAP_READ, Status } from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import { FsOp, request } from './fs/protocol.ts';
import {
  ACCOUNTS,
  at,
  COMMON,
  Control,
  FREE,
  INFO,
  PAGE,
  PROCESS_MAX,
  Row,
  RowState,
  User,
} from './layout.ts';
import type { Shared } from './shared.ts';
import { RESERVE, type Space } from './space.ts';

/** Free pages that are kept while anything else can go: forks and first touches come at once. */
const COMFORT = 128;
const PATIENCE = 64; // turns of the scheduler that the file server has for its part

/** Words of Control.asked. */
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
    const row = at(ACCOUNTS) + ((account * Account.words * 4) % PAGE);
    yield* this.#shared.setControl(Control.accountRow, row);
  }

  /** The handler's part: word of it. */
  *heard(): Op<void> {
    yield* this.#shared.setControl(Control.patience, PATIENCE);
    yield* this.#shared.setControl(Control.asked, ASKED);
  }

  /** Answers what was heard, or goes on with it. Nobody holds the lock. */
  *comply(): Op<void> {
    const shared = this.#shared;
    const asked = yield* this.#askedFor();
    const may = (page: number): boolean => page >= asked.first && page < asked.first + asked.pages;
    let left = asked.wanted;
    const spent = (yield* shared.control(Control.asked)) === SPENT;
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
    yield* shared.setControl(Control.asked, left > 0 ? SPENT : NOT);
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
}
