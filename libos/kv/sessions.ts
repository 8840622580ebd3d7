/**
 * Sessions of the store's clients: who has one, and which pages of ours hold what it granted. There
 * are as many as fit into a page, and a window of so many pages; when either runs out, a tenant
 * that has more than its part gives one up at once, and one that has not when it has been served.
 *
 *     session (21 words):  environment id | space | pages | last used | served | window entries
 *     window (a word per entry):  session that it belongs to + 1, 0: free
 *
 * It promises each tenant that others cannot keep it from having a session, however many of them
 * there are; and that a session once begun lasts for TERM requests, or until it has not been used
 * for IDLE. Whose a client is, the kernel says: the first byte of its guard.
 */
import { Env, ENV_INDEX_BITS, envIndex, EnvState, Start } from '../../kernel/abi.ts';
import type { Piece } from '../parts/log.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import { SESSIONS_AT, WINDOW, WINDOW_ENTRIES, WINDOW_WORDS } from './memory.ts';
import { BUFFER_PAGES_MAX } from './protocol.ts';

const PAGE = 4096;
export const SESSIONS = 32;
const TERM = 16; // requests
const IDLE = 512; // calls of anyone
const Session = {
  env: 0,
  space: 4,
  pages: 8,
  used: 12,
  served: 16,
  entries: 20,
  bytes: 84,
} as const;

/** What runs out, and how much more of it than the others a tenant may have before it is asked. */
const SLACK = { sessions: 1, pages: BUFFER_PAGES_MAX } as const;
type Scarce = keyof typeof SLACK;

/** Who asks: a session, by the address of its record, and what the kernel says of its owner. */
export interface Client {
  readonly at: number;
  readonly space: number;
  readonly room: number; // bytes of its buffer
}

interface Holder {
  readonly at: number;
  readonly env: number;
  readonly space: number;
  readonly pages: number;
  readonly used: number;
  readonly isDone: boolean; // it has had its term, or does not use it
}

export class Sessions {
  readonly #sys: Syscalls;
  readonly #port: UserPort;
  readonly #leaf: number;
  readonly #rows: number; // of the environment table, as far as it is mapped
  #clock = 0; // calls so far: only orders sessions
  #window = -1; // where the kernel puts the next page

  constructor(sys: Syscalls, leaf: number, rows: number) {
    this.#sys = sys;
    this.#port = sys.port;
    this.#leaf = leaf;
    this.#rows = rows;
  }

  /** The client that an environment is; null: it has no session. */
  *clientOf(env: number): Op<Client | null> {
    this.#clock++;
    const at = yield* this.#find(env);
    if (at < 0) return null;
    yield* this.#port.store(at + Session.used, this.#clock);
    const served = (yield* this.#port.load(at + Session.served)) + 1;
    yield* this.#port.store(at + Session.served, served);
    return {
      at,
      space: yield* this.#port.load(at + Session.space),
      room: (yield* this.#port.load(at + Session.pages)) * PAGE,
    };
  }

  /** Sees to it that a page of this environment would have a place. False: others are not done. */
  *admit(env: number): Op<boolean> {
    this.#clock++;
    const isNew = (yield* this.#find(env)) < 0;
    if (isNew && (yield* this.#find(0)) < 0 && !(yield* this.#evict(env, 'sessions'))) return false;
    if ((yield* this.#freeEntry()) >= 0) return true;
    return yield* this.#evict(env, 'pages');
  }

  /** Pages that a client's buffer has with the one at window entry `entry`; 0: no place for it. */
  *attach(env: number, entry: number): Op<number> {
    this.#clock++;
    this.#window = entry + 1;
    let at = yield* this.#find(env);
    if (at < 0) {
      at = yield* this.#find(0);
      if (at < 0) return 0;
      yield* this.#port.store(at + Session.env, env);
      yield* this.#port.store(at + Session.space, yield* this.#spaceOf(env));
      yield* this.#port.store(at + Session.served, 0);
    }
    const pages = yield* this.#port.load(at + Session.pages);
    if (pages === BUFFER_PAGES_MAX) return BUFFER_PAGES_MAX + 1;
    yield* this.#port.store(at + Session.entries + pages * 4, entry);
    yield* this.#port.store(at + Session.pages, pages + 1);
    yield* this.#port.store(at + Session.used, this.#clock);
    yield* this.#port.store(windowWord(entry), (at - SESSIONS_AT) / Session.bytes + 1);
    return pages + 1;
  }

  /** A page that is not wanted. */
  *refuse(entry: number): Op<void> {
    this.#window = entry + 1;
    yield* this.#sys.pageUnmap(this.#leaf, entry, 1, 0);
  }

  /** Ends a client's session, if it has one. */
  *end(env: number): Op<void> {
    const at = yield* this.#find(env);
    if (at >= 0) yield* this.#drop(at);
  }

  /** Where bytes of a client's buffer stand in our window: its pages may lie anywhere in it. */
  *pieces(client: Client, from: number, bytes: number): Op<Piece[]> {
    const pieces: Piece[] = [];
    for (let at = from; at < from + bytes;) {
      const page = Math.floor(at / PAGE);
      const entry = yield* this.#port.load(client.at + Session.entries + page * 4);
      const part = Math.min(from + bytes - at, PAGE - (at % PAGE));
      pieces.push({ from: entry * PAGE + (at % PAGE), bytes: part });
      at += part;
    }
    return pieces;
  }

  /** Says where the next granted page goes; if there is no place, the kernel takes none. */
  *openWindow(): Op<void> {
    if (yield* this.#isFree(this.#window)) return;
    const entry = yield* this.#freeEntry();
    if (entry < 0) return;
    this.#window = entry;
    yield* this.#sys.ipcWindow(this.#leaf, entry, 0);
  }

  // ---- who has to go ----------------------------------------------------------------------------

  /**
   * Ends a session for the sake of `env`: a dead client's if there is one; else of the tenant that
   * has most, at once if that is more than `env`'s would have, or when it is done. False: none.
   */
  *#evict(env: number, scarce: Scarce): Op<boolean> {
    const space = yield* this.#spaceOf(env);
    const all = yield* this.#all();
    const has = new Map<number, number>();
    const weight = (one: Holder): number => (scarce === 'sessions' ? 1 : one.pages);
    for (const one of all) has.set(one.space, (has.get(one.space) ?? 0) + weight(one));
    const own = has.get(space) ?? 0;
    const holders = all.filter((one) => one.env !== env);
    const excess = (one: Holder): number => (has.get(one.space) ?? 0) - own;
    const most = Math.max(...holders.map(excess));
    let worst: Holder | null = null;
    for (const one of holders) {
      if (yield* this.#isDead(one.env)) {
        worst = one;
        break;
      }
      const isGreedy = most > SLACK[scarce] && excess(one) === most;
      const mayGo = one.isDone && (excess(one) > 0 || one.space === space);
      if (most > SLACK[scarce] ? !isGreedy : !mayGo) continue;
      if (worst === null || one.used < worst.used) worst = one;
    }
    if (worst === null) return false;
    yield* this.#drop(worst.at);
    return true;
  }

  *#all(): Op<Holder[]> {
    const port = this.#port;
    const holders: Holder[] = [];
    for (let n = 0; n < SESSIONS; n++) {
      const at = SESSIONS_AT + n * Session.bytes;
      const owner = yield* port.load(at + Session.env);
      if (owner === 0) continue;
      const used = yield* port.load(at + Session.used);
      const served = yield* port.load(at + Session.served);
      holders.push({
        at,
        env: owner,
        space: yield* port.load(at + Session.space),
        pages: yield* port.load(at + Session.pages),
        used,
        isDone: served >= TERM || this.#clock - used >= IDLE,
      });
    }
    return holders;
  }

  *#drop(session: number): Op<void> {
    const pages = yield* this.#port.load(session + Session.pages);
    for (let n = 0; n < pages; n++) {
      const entry = yield* this.#port.load(session + Session.entries + n * 4);
      yield* this.#sys.pageUnmap(this.#leaf, entry, 1, 0);
      yield* this.#port.store(windowWord(entry), 0);
    }
    yield* this.#port.store(session + Session.env, 0);
    yield* this.#port.store(session + Session.pages, 0);
  }

  /** The session of an environment, or a free one for 0; -1: none. */
  *#find(env: number): Op<number> {
    const home = envIndex(env) % SESSIONS;
    for (let n = 0; n < SESSIONS; n++) {
      const at = SESSIONS_AT + ((home + n) % SESSIONS) * Session.bytes;
      if ((yield* this.#port.load(at + Session.env)) === env) return at;
    }
    return -1;
  }

  *#freeEntry(): Op<number> {
    for (let entry = WINDOW; entry < WINDOW + WINDOW_ENTRIES; entry++) {
      if (yield* this.#isFree(entry)) return entry;
    }
    return -1;
  }

  *#isFree(entry: number): Op<boolean> {
    if (entry < WINDOW || entry >= WINDOW + WINDOW_ENTRIES) return false;
    return (yield* this.#port.load(windowWord(entry))) === 0;
  }

  // ---- what the kernel says of clients ----------------------------------------------------------

  /** First byte of its guard: its tenant. A row that is not mapped here is in space 0. */
  *#spaceOf(env: number): Op<number> {
    if (envIndex(env) >= this.#rows) return 0;
    return ((yield* this.#port.load(rowOf(env) + Env.nameA * 4)) >>> 8) & 0xff;
  }

  *#isDead(env: number): Op<boolean> {
    if (envIndex(env) >= this.#rows) return false;
    const state = yield* this.#port.load(rowOf(env) + Env.state * 4);
    const generation = yield* this.#port.load(rowOf(env) + Env.generation * 4);
    const gone = generation !== env >>> ENV_INDEX_BITS;
    return gone || state === EnvState.free || state === EnvState.zombie;
  }
}

const rowOf = (env: number): number => Start.envPages * PAGE + envIndex(env) * Env.words * 4;
const windowWord = (entry: number): number => WINDOW_WORDS + (entry - WINDOW) * 4;
