/**
 * Serves the store to other environments: a session per client with the pages that it granted, one
 * request at a time. Clients are hostile: every number that they send is checked, what they wrote
 * is copied before it is looked at, and their pages may vanish while they are being read.
 *
 *     session (20 words):  environment id | space | pages | last used | window entry of each page
 *     window (a word per entry):  session that it belongs to + 1, 0: free
 *
 * It promises each tenant a space of keys of its own: the kernel says whose a caller is, by the
 * first byte of its guard, and that byte goes before every key. A client that takes too many pages
 * loses its own session before others lose theirs.
 */
import { Env, ENV_INDEX_BITS, envIndex, EnvState, Start, Status } from '../../kernel/abi.ts';
import { parse, type Request } from '../parts/messages.ts';
import type { Piece } from '../parts/log.ts';
import type { Message, Op, Syscalls, UserPort } from '../syscalls.ts';
import {
  KEY_SCRATCH,
  type Memory,
  SESSIONS_AT,
  WINDOW,
  WINDOW_ENTRIES,
  WINDOW_WORDS,
} from './memory.ts';
import {
  AFTER,
  BUFFER_PAGES_MAX,
  DATA_AT,
  DURABLE,
  Entry,
  KEY_AT,
  KEY_MAX,
  KvStatus,
  LAST_AT,
  PROTOCOL,
} from './protocol.ts';
import type { Scanned, Store } from './store.ts';

const PAGE = 4096;
const SESSIONS = 32;
const Session = { env: 0, space: 4, pages: 8, used: 12, entries: 16, bytes: 80 } as const;

type Reply = readonly number[];
type Asked = Request<typeof PROTOCOL>;

/** Who asks: a session, by the address of its record, and what the kernel says of its owner. */
interface Client {
  readonly at: number;
  readonly space: number;
  readonly room: number; // bytes of its buffer
}

export class KvServer {
  readonly #sys: Syscalls;
  readonly #port: UserPort;
  readonly #memory: Memory;
  readonly #leaf: number;
  readonly #rows: number; // of the environment table, as far as it is mapped
  #clock = 0; // requests so far: only orders sessions
  #window = -1; // where the kernel puts the next page

  constructor(sys: Syscalls, memory: Memory, leaf: number, rows: number) {
    this.#sys = sys;
    this.#port = sys.port;
    this.#memory = memory;
    this.#leaf = leaf;
    this.#rows = rows;
  }

  get #store(): Store {
    return this.#memory.store;
  }

  /** Answers calls for ever. */
  *serve(): Op<void> {
    let [client, reply]: [number, Reply] = [-1, []];
    for (;;) {
      yield* this.#memory.comply();
      yield* this.#openWindow();
      const message = yield* this.#sys.ipcReplyWait(client, reply);
      client = -1;
      // Interrupted by a revocation, or who was to be answered is gone: there is no call yet.
      if (message.status !== Status.ok) continue;
      client = message.from;
      yield* this.#memory.torn(); // of what nobody waits for any more
      reply = yield* this.#answer(message);
    }
  }

  *#answer(message: Message): Op<Reply> {
    if (message.granted >= 0) return yield* this.#granted(message);
    const request = parse(PROTOCOL, message.words);
    if (request === null || request.name === 'attach') return [KvStatus.badRequest];
    if (request.name === 'hello') return [KvStatus.ok];
    const session = yield* this.#sessionOf(message.from);
    if (request.name === 'detach') {
      if (session >= 0) yield* this.#drop(session);
      return [KvStatus.ok];
    }
    if (request.name === 'sync') return [yield* this.#store.sync()];
    if (session < 0) return [KvStatus.noSession];
    const client = {
      at: session,
      space: yield* this.#port.load(session + Session.space),
      room: (yield* this.#port.load(session + Session.pages)) * PAGE,
    };
    yield* this.#port.store(session + Session.used, ++this.#clock);
    const reply = yield* this.#perform(request, client);
    return (yield* this.#memory.torn()) ? yield* this.#betrayed(client) : reply;
  }

  /** Its pages went while it was served: it has no session any more. */
  *#betrayed(client: Client): Op<Reply> {
    yield* this.#drop(client.at);
    return [KvStatus.revoked];
  }

  *#perform(request: Asked, client: Client): Op<Reply> {
    switch (request.name) {
      case 'get':
        return yield* this.#get(client, request.fields.keyBytes);
      case 'put':
        return yield* this.#put(client, request.fields);
      case 'remove':
        return yield* this.#remove(client, request.fields);
      case 'scan':
        return yield* this.#scan(client, request.fields);
      default:
        return [KvStatus.badRequest];
    }
  }

  // ---- operations -------------------------------------------------------------------------------

  *#get(client: Client, keyBytes: number): Op<Reply> {
    const key = yield* this.#key(client, KEY_AT, keyBytes);
    if (key === null) return [KvStatus.badRequest];
    const { status, value } = yield* this.#store.get(key);
    if (status !== KvStatus.ok) return [status];
    if (value.length > client.room - DATA_AT) return [KvStatus.tooLarge, value.length];
    yield* this.#write(client, DATA_AT, value);
    return [KvStatus.ok, value.length];
  }

  *#put(
    client: Client,
    fields: { readonly keyBytes: number; readonly valueBytes: number; readonly flags: number },
  ): Op<Reply> {
    const { keyBytes, valueBytes, flags } = fields;
    const key = yield* this.#key(client, KEY_AT, keyBytes);
    const fits = valueBytes >= 0 && valueBytes <= client.room - DATA_AT;
    if (key === null || !fits || (flags & ~DURABLE) !== 0) return [KvStatus.badRequest];
    this.#port.write(KEY_SCRATCH, key, 0, key.length) ?? (yield* this.#port.fault());
    const value = yield* this.#pieces(client, DATA_AT, valueBytes);
    const intact = function* (this: KvServer): Op<boolean> {
      return !(yield* this.#memory.torn());
    };
    const status = yield* this.#store.put(key, KEY_SCRATCH, value, intact.bind(this));
    if (status === KvStatus.tooLarge) return [status, this.#store.valueMax(key.length)];
    if (status === KvStatus.revoked) return yield* this.#betrayed(client);
    return [yield* this.#settled(status, flags)];
  }

  *#remove(
    client: Client,
    { keyBytes, flags }: { readonly keyBytes: number; readonly flags: number },
  ): Op<Reply> {
    const key = yield* this.#key(client, KEY_AT, keyBytes);
    if (key === null || (flags & ~DURABLE) !== 0) return [KvStatus.badRequest];
    return [yield* this.#settled(yield* this.#store.remove(key), flags)];
  }

  /** What is to be durable is, before it is answered. */
  *#settled(status: number, flags: number): Op<number> {
    if (status !== KvStatus.ok || (flags & DURABLE) === 0) return status;
    return yield* this.#store.sync();
  }

  *#scan(
    client: Client,
    fields: { readonly firstBytes: number; readonly lastBytes: number; readonly flags: number },
  ): Op<Reply> {
    const { firstBytes, lastBytes, flags } = fields;
    const first = yield* this.#key(client, KEY_AT, firstBytes, 0);
    const last = yield* this.#key(client, LAST_AT, lastBytes, 0);
    if (first === null || last === null || (flags & ~AFTER) !== 0) return [KvStatus.badRequest];
    // No end is the end of the tenant's space.
    const end = lastBytes > 0 ? last : after(client.space);
    const room = client.room - DATA_AT;
    let [count, bytes, trouble]: [number, number, Reply | null] = [0, 0, null];
    const visit = function* (this: KvServer, pair: Scanned): Op<boolean> {
      const entry = pack(pair);
      if (pair.status !== KvStatus.ok) trouble = [pair.status];
      else if (bytes + entry.length > room) {
        if (count === 0) trouble = [KvStatus.tooLarge, pair.value.length];
        return false;
      } else {
        yield* this.#write(client, DATA_AT + bytes, entry);
        bytes += entry.length;
        count++;
      }
      return trouble === null;
    };
    const done = yield* this.#store.scan(first, end, (flags & AFTER) !== 0, visit.bind(this));
    return trouble ?? [KvStatus.ok, count, bytes, done ? 0 : 1];
  }

  // ---- the client's buffer ----------------------------------------------------------------------

  /** The key that stands in the buffer, in its tenant's space; null: no key is so long. */
  *#key(client: Client, at: number, bytes: number, least = 1): Op<Uint8Array | null> {
    if (bytes < least || bytes > KEY_MAX) return null;
    const key = new Uint8Array(1 + bytes);
    key[0] = client.space;
    const [piece] = yield* this.#pieces(client, at, bytes);
    if (piece !== undefined) {
      this.#port.read(piece.from, key, 1, bytes) ?? (yield* this.#port.fault());
    }
    return key;
  }

  *#write(client: Client, at: number, bytes: Uint8Array): Op<void> {
    let done = 0;
    for (const piece of yield* this.#pieces(client, at, bytes.length)) {
      this.#port.write(piece.from, bytes, done, piece.bytes) ?? (yield* this.#port.fault());
      done += piece.bytes;
    }
  }

  /** Where bytes of the buffer stand in our window: its pages may lie anywhere in it. */
  *#pieces(client: Client, from: number, bytes: number): Op<Piece[]> {
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

  // ---- sessions ---------------------------------------------------------------------------------

  /** A message with a page: the next one of a session's buffer, or not wanted. */
  *#granted(message: Message): Op<Reply> {
    const { granted: entry, from, words } = message;
    this.#window = entry + 1;
    if (words[0] !== PROTOCOL.attach.number) return yield* this.#refuse(entry, KvStatus.badRequest);
    let session = yield* this.#sessionOf(from);
    if (session < 0) session = yield* this.#newSession(from);
    const pages = yield* this.#port.load(session + Session.pages);
    if (pages === BUFFER_PAGES_MAX) return yield* this.#refuse(entry, KvStatus.full);
    yield* this.#port.store(session + Session.entries + pages * 4, entry);
    yield* this.#port.store(session + Session.pages, pages + 1);
    yield* this.#port.store(session + Session.used, ++this.#clock);
    const number = (session - SESSIONS_AT) / Session.bytes;
    yield* this.#port.store(windowWord(entry), number + 1);
    return [KvStatus.ok, pages + 1];
  }

  *#refuse(entry: number, status: number): Op<Reply> {
    yield* this.#sys.pageUnmap(this.#leaf, entry, 1, 0);
    return [status];
  }

  *#sessionOf(env: number): Op<number> {
    const home = envIndex(env) % SESSIONS;
    for (let n = 0; n < SESSIONS; n++) {
      const at = SESSIONS_AT + ((home + n) % SESSIONS) * Session.bytes;
      if ((yield* this.#port.load(at + Session.env)) === env) return at;
    }
    return -1;
  }

  *#newSession(env: number): Op<number> {
    const space = yield* this.#spaceOf(env);
    let at = yield* this.#freeSession(env);
    if (at < 0) {
      yield* this.#evict(space);
      at = yield* this.#freeSession(env);
    }
    yield* this.#port.store(at + Session.env, env);
    yield* this.#port.store(at + Session.space, space);
    return at;
  }

  *#freeSession(env: number): Op<number> {
    const home = envIndex(env) % SESSIONS;
    for (let n = 0; n < SESSIONS; n++) {
      const at = SESSIONS_AT + ((home + n) % SESSIONS) * Session.bytes;
      if ((yield* this.#port.load(at + Session.env)) === 0) return at;
    }
    return -1;
  }

  /**
   * Ends one session: a dead client's if there is one, else the one longest unused of the tenant
   * that has the most sessions; `space` has one more than it seems, since it wants one.
   */
  *#evict(space: number): Op<void> {
    const counts = new Map<number, number>([[space, 1]]);
    const all: { at: number; space: number; used: number; dead: boolean }[] = [];
    for (let n = 0; n < SESSIONS; n++) {
      const at = SESSIONS_AT + n * Session.bytes;
      const env = yield* this.#port.load(at + Session.env);
      if (env === 0) continue;
      const own = yield* this.#port.load(at + Session.space);
      const used = yield* this.#port.load(at + Session.used);
      counts.set(own, (counts.get(own) ?? 0) + 1);
      all.push({ at, space: own, used, dead: yield* this.#isDead(env) });
    }
    const most = Math.max(...all.map((one) => counts.get(one.space) ?? 0));
    const worst = all.reduce((best, one) => {
      const rank = (of: typeof one): number =>
        of.dead ? -2 : counts.get(of.space) === most ? of.used - 1 : Infinity;
      return rank(one) < rank(best) ? one : best;
    });
    yield* this.#drop(worst.at);
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

  /** Sees to it that the next granted page has a place, whoever must give one up for it. */
  *#openWindow(): Op<void> {
    if (yield* this.#isFree(this.#window)) return;
    let entry = yield* this.#freeEntry();
    while (entry < 0) {
      yield* this.#evict(-1);
      entry = yield* this.#freeEntry();
    }
    this.#window = entry;
    yield* this.#sys.ipcWindow(this.#leaf, entry, 0);
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
/** The least key that is behind all of a space: empty, that is no end, behind the last. */
const after = (space: number): Uint8Array => Uint8Array.from(space === 255 ? [] : [space + 1]);

/** A pair as it stands in a scan's answer. Its key goes without the space. */
function pack({ key, value }: Scanned): Uint8Array {
  const own = key.subarray(1);
  const bytes = new Uint8Array(Math.ceil((Entry.bytes + own.length + value.length) / 4) * 4);
  const view = new DataView(bytes.buffer);
  view.setUint32(Entry.keyBytes, own.length, true);
  view.setUint32(Entry.valueBytes, value.length, true);
  bytes.set(own, Entry.bytes);
  bytes.set(value, Entry.bytes + own.length);
  return bytes;
}
