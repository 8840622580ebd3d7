/**
 * The client of the key-value store: a buffer of pages granted to it, and a method per operation.
 * For any library OS; it needs its kernel calls, an environment id to ask, and pages of its own.
 *
 * It trusts the store with what it puts, and with nothing else: the store can read and write the
 * granted pages while they are granted, and `close` ends that, whatever the store does.
 */
import { Env, ENV_INDEX_BITS, EnvState, READ, Start, Status, WRITE } from '../../kernel/abi.ts';
import { type Answer, ask } from '../parts/messages.ts';
import type { Op, Syscalls } from '../syscalls.ts';
import {
  AFTER,
  DATA_AT,
  DURABLE,
  Entry,
  KEY_AT,
  KEY_MAX,
  KvStatus,
  LAST_AT,
  PROTOCOL,
} from './protocol.ts';

const PAGE = 4096;
const TRIES = 2_000; // greetings before a page is granted: others may always come in between

/** The buffer: pages of ours, mapped one after another. */
export interface KvBuffer {
  readonly address: number;
  /** physical pages, in order: 1 to BUFFER_PAGES_MAX */
  readonly pages: readonly number[];
  /** our capability that answers for them */
  readonly slot: number;
  /** access entry, 1 to 3, that the store gets in each */
  readonly entry?: number;
}

/** Statuses are KvStatus, or -1: nobody answered. */
export interface Value {
  readonly status: number;
  readonly value: Uint8Array; // empty unless status is ok
}

export interface Pair {
  /** ok; or why the value of this key cannot be read, and is empty */
  readonly status: number;
  readonly key: Uint8Array;
  readonly value: Uint8Array;
}

export interface Range {
  readonly status: number;
  readonly pairs: readonly Pair[];
  /** true: there are further keys in the range; go on behind the last pair */
  readonly more: boolean;
}

/**
 * Id of the environment in a row of the exposed table, mapped where Start says; 0 if it is not
 * alive. The store of tenant `n` is in row `n` if it is the tenant's first environment.
 */
export function* environmentIn(sys: Syscalls, row: number): Op<number> {
  const at = Start.envPages * PAGE + row * Env.words * 4;
  const state = yield* sys.port.load(at + Env.state * 4);
  if (state === EnvState.free || state === EnvState.zombie) return 0;
  return ((yield* sys.port.load(at + Env.generation * 4)) << ENV_INDEX_BITS) | row;
}

export class KvClient {
  readonly #sys: Syscalls;
  readonly #server: number;
  readonly #buffer: KvBuffer;
  readonly #entry: number;

  constructor(sys: Syscalls, server: number, buffer: KvBuffer) {
    this.#sys = sys;
    this.#server = server;
    this.#buffer = buffer;
    this.#entry = buffer.entry ?? 1;
  }

  /** Bytes of value that the buffer takes. */
  get room(): number {
    return this.#buffer.pages.length * PAGE - DATA_AT;
  }
  /** Where a value stands in the buffer: whoever puts it there himself saves a copy. */
  get data(): number {
    return this.#buffer.address + DATA_AT;
  }

  /** Grants the buffer to the store. False: it refuses, it is busy for long, or there is nobody. */
  *connect(): Op<boolean> {
    const { slot, pages } = this.#buffer;
    yield* this.close(); // an earlier session
    let granted = 0;
    for (let tries = 0; tries < TRIES; tries++) {
      // A page arrives only where a call is waited for, as it is after an answer.
      const hello = yield* ask(this.#sys, this.#server, PROTOCOL.hello, {});
      if (hello.kernel !== Status.ok) return false;
      if (hello.status === KvStatus.busy) {
        yield* this.#sys.yieldTo(-1);
        continue;
      }
      const page = pages[granted] ?? 0;
      const grant = { page, slot, rights: READ | WRITE, entry: this.#entry };
      const answer = yield* ask(this.#sys, this.#server, PROTOCOL.attach, {}, grant);
      if (answer.kernel === Status.notReady) continue;
      if (answer.kernel !== Status.ok) return false;
      if (answer.status === KvStatus.ok && answer.pages === granted + 1) {
        granted++;
        if (granted === pages.length) return true;
        continue;
      }
      if (answer.status !== KvStatus.ok && answer.status !== KvStatus.busy) return false;
      // It was made to forget us meanwhile: from the start.
      yield* this.close();
      granted = 0;
    }
    return false;
  }

  /** The store forgets us, and could not reach our pages any more if it did not. */
  *close(): Op<void> {
    yield* ask(this.#sys, this.#server, PROTOCOL.detach, {});
    yield* this.#withdraw();
  }

  *get(key: Uint8Array): Op<Value> {
    const { status, valueBytes } = yield* this.getInPlace(key);
    if (status !== KvStatus.ok) return { status, value: new Uint8Array() };
    const value = new Uint8Array(valueBytes);
    yield* this.#read(DATA_AT, value);
    return { status, value };
  }

  /** As get, and the value stays in the buffer. */
  *getInPlace(key: Uint8Array): Op<{ readonly status: number; readonly valueBytes: number }> {
    if (!isKey(key)) return { status: KvStatus.badRequest, valueBytes: 0 };
    const { status, valueBytes } = yield* this.#retried(KEY_AT, key, () =>
      ask(this.#sys, this.#server, PROTOCOL.get, { keyBytes: key.length }),
    );
    // What the store says is a claim: it does not make us read behind our buffer.
    const good = valueBytes >= 0 && valueBytes <= this.room;
    return { status: status === KvStatus.ok && !good ? KvStatus.badRequest : status, valueBytes };
  }

  *put(key: Uint8Array, value: Uint8Array, durable = false): Op<number> {
    if (value.length > this.room) return KvStatus.tooLarge;
    return yield* this.#put(key, value.length, durable, value);
  }

  /** As put; the value stands in the buffer already. */
  *putInPlace(key: Uint8Array, valueBytes: number, durable = false): Op<number> {
    return yield* this.#put(key, valueBytes, durable, null);
  }

  *#put(
    key: Uint8Array,
    valueBytes: number,
    durable: boolean,
    value: Uint8Array | null,
  ): Op<number> {
    if (!isKey(key)) return KvStatus.badRequest;
    const flags = durable ? DURABLE : 0;
    const send = function* (this: KvClient): Op<Answer<string>> {
      if (value !== null) yield* this.#write(DATA_AT, value);
      const fields = { keyBytes: key.length, valueBytes, flags };
      return yield* ask(this.#sys, this.#server, PROTOCOL.put, fields);
    };
    return (yield* this.#retried(KEY_AT, key, send.bind(this))).status;
  }

  /** absent: it was not there. */
  *remove(key: Uint8Array, durable = false): Op<number> {
    if (!isKey(key)) return KvStatus.badRequest;
    const fields = { keyBytes: key.length, flags: durable ? DURABLE : 0 };
    const { status } = yield* this.#retried(KEY_AT, key, () =>
      ask(this.#sys, this.#server, PROTOCOL.remove, fields),
    );
    return status;
  }

  /** Everything that was answered before is durable: ok. */
  *sync(): Op<number> {
    return (yield* ask(this.#sys, this.#server, PROTOCOL.sync, {})).status;
  }

  /**
   * Pairs in key order from `first` on, up to and without `last` (empty: no end), as many as fit
   * into the buffer. `after`: without `first` itself. Goes on with the last key of an answer.
   */
  *scan(first: Uint8Array, last: Uint8Array, after = false): Op<Range> {
    const bad = first.length > KEY_MAX || last.length > KEY_MAX;
    if (bad) return { status: KvStatus.badRequest, pairs: [], more: false };
    const fields = {
      firstBytes: first.length,
      lastBytes: last.length,
      flags: after ? AFTER : 0,
    };
    const send = function* (this: KvClient): Op<Answer<'count' | 'bytes' | 'more'>> {
      yield* this.#write(LAST_AT, last);
      return yield* ask(this.#sys, this.#server, PROTOCOL.scan, fields);
    };
    const { status, count, bytes, more } = yield* this.#retried(KEY_AT, first, send.bind(this));
    if (status !== KvStatus.ok) return { status, pairs: [], more: false };
    const found = new Uint8Array(Math.min(Math.max(bytes, 0), this.room));
    yield* this.#read(DATA_AT, found);
    return { status, pairs: unpack(found, count), more: more !== 0 };
  }

  /** Writes the key and asks; once more with a new session if the store has forgotten ours. */
  *#retried<R extends string>(
    at: number,
    key: Uint8Array,
    send: () => Op<Answer<R>>,
  ): Op<Answer<R>> {
    yield* this.#write(at, key);
    const answer = yield* send();
    if (answer.status !== KvStatus.noSession || !(yield* this.connect())) return answer;
    yield* this.#write(at, key);
    return yield* send();
  }

  *#withdraw(): Op<void> {
    for (const page of this.#buffer.pages) {
      for (;;) {
        const { status } = yield* this.#sys.accessRemove(page, this.#buffer.slot, this.#entry);
        if (status !== Status.again) break;
      }
    }
  }

  *#write(at: number, bytes: Uint8Array): Op<void> {
    const { port } = this.#sys;
    port.write(this.#buffer.address + at, bytes, 0, bytes.length) ?? (yield* port.fault());
  }
  *#read(at: number, into: Uint8Array): Op<void> {
    const { port } = this.#sys;
    port.read(this.#buffer.address + at, into, 0, into.length) ?? (yield* port.fault());
  }
}

const isKey = (key: Uint8Array): boolean => key.length >= 1 && key.length <= KEY_MAX;

/** The pairs of a scan's answer; it ends where its numbers stop making sense. */
function unpack(found: Uint8Array, count: number): Pair[] {
  const view = new DataView(found.buffer);
  const pairs: Pair[] = [];
  let at = 0;
  while (pairs.length < count && at + Entry.bytes <= found.length) {
    const keyBytes = view.getUint32(at + Entry.keyBytes, true);
    const valueBytes = view.getUint32(at + Entry.valueBytes, true);
    const key = at + Entry.bytes;
    const end = key + keyBytes + valueBytes;
    if (end > found.length) break;
    pairs.push({
      status: view.getUint32(at + Entry.status, true),
      key: found.slice(key, key + keyBytes),
      value: found.slice(key + keyBytes, end),
    });
    at = Math.ceil(end / 4) * 4;
  }
  return pairs;
}
