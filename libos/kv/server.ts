/**
 * Serves the store to other environments: a session per client with the pages that it granted, one
 * request at a time. Clients are hostile: every number that they send is checked, what they wrote
 * is copied before it is looked at, and their pages may vanish while they are being read.
 *
 * It promises each tenant a space of keys of its own, and a part of the room: the kernel says whose
 * a caller is, by the first byte of its guard, and that byte goes before every key. Of a scan in
 * several answers, each going on behind the last key of the one before: a key that was there from
 * the first to the last is given once, with a value that it had meanwhile, or with the reason why
 * that cannot be read; one that came or went meanwhile once or not at all; no other.
 */
import { Status } from '../../kernel/abi.ts';
import { parse, type Request } from '../parts/messages.ts';
import type { Message, Op, Syscalls, UserPort } from '../syscalls.ts';
import { KEY_SCRATCH, type Memory } from './memory.ts';
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
import { type Client, Sessions } from './sessions.ts';
import type { Scanned, Store } from './store.ts';

type Reply = readonly number[];
type Asked = Request<typeof PROTOCOL>;

export class KvServer {
  readonly #sys: Syscalls;
  readonly #port: UserPort;
  readonly #memory: Memory;
  readonly #sessions: Sessions;

  /** @param rows of the environment table, as far as it is mapped */
  constructor(sys: Syscalls, memory: Memory, leaf: number, rows: number) {
    this.#sys = sys;
    this.#port = sys.port;
    this.#memory = memory;
    this.#sessions = new Sessions(sys, leaf, rows);
  }

  get #store(): Store {
    return this.#memory.store;
  }

  /** Answers calls for ever. */
  *serve(): Op<void> {
    let [client, reply]: [number, Reply] = [-1, []];
    for (;;) {
      yield* this.#memory.comply();
      yield* this.#sessions.openWindow();
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
    const { from, granted } = message;
    const request = parse(PROTOCOL, message.words);
    if (granted >= 0) {
      if (request?.name === 'attach') return yield* this.#attach(from, granted);
      yield* this.#sessions.refuse(granted);
      return [KvStatus.badRequest];
    }
    if (request === null || request.name === 'attach') return [KvStatus.badRequest];
    if (request.name === 'hello') {
      return [(yield* this.#sessions.admit(from)) ? KvStatus.ok : KvStatus.busy];
    }
    if (request.name === 'detach') {
      yield* this.#sessions.end(from);
      return [KvStatus.ok];
    }
    if (request.name === 'sync') return [yield* this.#store.sync()];
    const client = yield* this.#sessions.clientOf(from);
    if (client === null) return [KvStatus.noSession];
    const reply = yield* this.#perform(request, client);
    // Its pages went while it was served: it has no session any more.
    if (!(yield* this.#memory.torn()) && reply[0] !== KvStatus.revoked) return reply;
    yield* this.#sessions.end(from);
    return [KvStatus.revoked];
  }

  *#attach(from: number, entry: number): Op<Reply> {
    const pages = yield* this.#sessions.attach(from, entry);
    if (pages > 0 && pages <= BUFFER_PAGES_MAX) return [KvStatus.ok, pages];
    yield* this.#sessions.refuse(entry);
    return [pages === 0 ? KvStatus.busy : KvStatus.full];
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
    const value = yield* this.#sessions.pieces(client, DATA_AT, valueBytes);
    const intact = function* (this: KvServer): Op<boolean> {
      return !(yield* this.#memory.torn());
    };
    const status = yield* this.#store.put(key, KEY_SCRATCH, value, intact.bind(this));
    if (status === KvStatus.tooLarge) return [status, this.#store.valueMax(key.length)];
    if (status === KvStatus.quota) {
      const { owned, quota } = yield* this.#store.share(client.space);
      return [status, quota, owned];
    }
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
      if (bytes + entry.length > room) {
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
    const [piece] = yield* this.#sessions.pieces(client, at, bytes);
    if (piece !== undefined) {
      this.#port.read(piece.from, key, 1, bytes) ?? (yield* this.#port.fault());
    }
    return key;
  }

  *#write(client: Client, at: number, bytes: Uint8Array): Op<void> {
    let done = 0;
    for (const piece of yield* this.#sessions.pieces(client, at, bytes.length)) {
      this.#port.write(piece.from, bytes, done, piece.bytes) ?? (yield* this.#port.fault());
      done += piece.bytes;
    }
  }
}

/** The least key that is behind all of a space: empty, that is no end, behind the last. */
const after = (space: number): Uint8Array => Uint8Array.from(space === 255 ? [] : [space + 1]);

/** A pair as it stands in a scan's answer. Its key goes without the space. */
function pack({ status, key, value }: Scanned): Uint8Array {
  const own = key.subarray(1);
  const bytes = new Uint8Array(Math.ceil((Entry.bytes + own.length + value.length) / 4) * 4);
  const view = new DataView(bytes.buffer);
  view.setUint32(Entry.keyBytes, own.length, true);
  view.setUint32(Entry.valueBytes, value.length, true);
  view.setUint32(Entry.status, status, true);
  bytes.set(own, Entry.bytes);
  bytes.set(value, Entry.bytes + own.length);
  return bytes;
}
