/**
 * The index: every key, in byte order, and where its newest record stands. A skip list in the
 * store's own memory (Pugh, "Skip Lists: A Probabilistic Alternative to Balanced Trees", CACM
 * 33(6), 1990); how high a node is, its key's hash decides, so every mode builds the same list.
 * It owes the store one node per key, and says so if there is no memory for another.
 *
 *     node:   record's address | payload bytes | key bytes, height << 16 | next per level | key
 *     arena:  end of what is used | of what is mapped | keys | free nodes by size | head node
 */
import type { Op, UserPort } from '../syscalls.ts';

const LEVELS = 12; // a quarter of the nodes goes up each: enough for 4^12 keys
const Node = { address: 0, bytes: 4, shape: 8, next: 12 } as const;
const GRAIN = 16; // bytes: nodes are rounded up to it
const CLASSES = 24;
const PAGE = 4096;
const COMPARE = 4; // cycles a word of a key: choice, two loads, a compare, a branch

const Arena = { used: 0, mapped: 4, keys: 8, free: 12, head: 12 + CLASSES * 4 } as const;

/** Longest key: a node of the greatest height has a size class. */
export const KEY_BYTES_MAX = GRAIN * CLASSES - Node.next - LEVELS * 4;

export interface ListSpec {
  /** address of the arena, at the start of a page */
  readonly at: number;
  readonly end: number;
  /** maps one more zero-filled page at `address`, the end of what is mapped; false: no memory */
  readonly grow: (address: number) => Op<boolean>;
}

/** A key's place: what the store needs to know of it. */
export interface Place {
  readonly node: number;
  readonly address: number;
  readonly bytes: number;
}

export class SkipList {
  readonly #port: UserPort;
  readonly #spec: ListSpec;
  readonly #head: number;
  readonly #key = new Uint8Array(KEY_BYTES_MAX);

  constructor(port: UserPort, spec: ListSpec) {
    this.#port = port;
    this.#spec = spec;
    this.#head = spec.at + Arena.head;
  }

  /** An empty list. False: no memory for it. */
  *create(): Op<boolean> {
    const { at, grow } = this.#spec;
    if (!(yield* grow(at))) return false;
    yield* this.#port.store(at + Arena.mapped, at + PAGE);
    yield* this.#port.store(at + Arena.used, this.#head + Node.next + LEVELS * 4);
    yield* this.#port.store(this.#head + Node.shape, LEVELS << 16);
    return true;
  }

  *keys(): Op<number> {
    return yield* this.#port.load(this.#spec.at + Arena.keys);
  }

  *find(key: Uint8Array): Op<Place | null> {
    const node = yield* this.seek(key);
    return node !== 0 && (yield* this.#compare(node, key)) === 0 ? yield* this.place(node) : null;
  }

  /** The first node whose key is not less than `key`; 0: none. */
  *seek(key: Uint8Array): Op<number> {
    const path = yield* this.#path(key);
    return yield* this.after(path[0] ?? this.#head);
  }

  /** The node of the least key; 0: none. */
  *first(): Op<number> {
    return yield* this.after(this.#head);
  }

  /** The node after `node` in key order; 0: none. */
  *after(node: number): Op<number> {
    return yield* this.#port.load(node + Node.next);
  }

  *place(node: number): Op<Place> {
    const address = yield* this.#port.load(node + Node.address);
    return { node, address, bytes: yield* this.#port.load(node + Node.bytes) };
  }

  *keyOf(node: number): Op<Uint8Array> {
    const shape = yield* this.#port.load(node + Node.shape);
    const key = new Uint8Array(shape & 0xffff);
    const at = node + Node.next + (shape >>> 16) * 4;
    this.#port.read(at, key, 0, key.length) ?? (yield* this.#port.fault());
    return key;
  }

  /** What a key's record is from now on. */
  *move(node: number, address: number, bytes: number): Op<void> {
    yield* this.#port.store(node + Node.address, address);
    yield* this.#port.store(node + Node.bytes, bytes);
  }

  /** A key that is not in the list. False: no memory for a node. */
  *insert(key: Uint8Array, address: number, bytes: number): Op<boolean> {
    const port = this.#port;
    const path = yield* this.#path(key);
    const height = heightOf(key);
    port.work(key.length) ?? (yield* port.fault());
    const node = yield* this.#take(Node.next + height * 4 + key.length);
    if (node === 0) return false;
    yield* this.move(node, address, bytes);
    yield* port.store(node + Node.shape, key.length | (height << 16));
    const at = node + Node.next + height * 4;
    port.write(at, key, 0, key.length) ?? (yield* port.fault());
    for (let level = 0; level < height; level++) {
      const link = (path[level] ?? this.#head) + Node.next + level * 4;
      yield* port.store(node + Node.next + level * 4, yield* port.load(link));
      yield* port.store(link, node);
    }
    yield* this.#count(1);
    return true;
  }

  /** Takes a key out. False: it was not there. */
  *remove(key: Uint8Array): Op<boolean> {
    const port = this.#port;
    const path = yield* this.#path(key);
    const node = yield* this.after(path[0] ?? this.#head);
    if (node === 0 || (yield* this.#compare(node, key)) !== 0) return false;
    const shape = yield* port.load(node + Node.shape);
    const height = shape >>> 16;
    for (let level = 0; level < height; level++) {
      const link = (path[level] ?? this.#head) + Node.next + level * 4;
      yield* port.store(link, yield* port.load(node + Node.next + level * 4));
    }
    const head = this.#freeList(Node.next + height * 4 + (shape & 0xffff));
    yield* port.store(node, yield* port.load(head));
    yield* port.store(head, node);
    yield* this.#count(-1);
    return true;
  }

  /** On each level the last node whose key is less than `key`. */
  *#path(key: Uint8Array): Op<number[]> {
    const path = new Array<number>(LEVELS).fill(this.#head);
    let node = this.#head;
    for (let level = LEVELS - 1; level >= 0; level--) {
      for (;;) {
        const next: number = yield* this.#port.load(node + Node.next + level * 4);
        if (next === 0 || (yield* this.#compare(next, key)) >= 0) break;
        node = next;
      }
      path[level] = node;
    }
    return path;
  }

  /** Below, at or above zero: the node's key before, at or behind `key`, byte by byte. */
  *#compare(node: number, key: Uint8Array): Op<number> {
    const port = this.#port;
    const shape = yield* port.load(node + Node.shape);
    const own = shape & 0xffff;
    const at = node + Node.next + (shape >>> 16) * 4;
    port.read(at, this.#key, 0, own) ?? (yield* port.fault());
    const order = compareBytes(this.#key.subarray(0, own), key);
    port.work(Math.ceil(Math.min(own, key.length) / 4) * COMPARE) ?? (yield* port.fault());
    return order;
  }

  *#take(bytes: number): Op<number> {
    const port = this.#port;
    const list = this.#freeList(bytes);
    const free = yield* port.load(list);
    if (free !== 0) {
      yield* port.store(list, yield* port.load(free));
      return free;
    }
    const { at, end, grow } = this.#spec;
    const node = yield* port.load(at + Arena.used);
    const next = node + Math.ceil(bytes / GRAIN) * GRAIN;
    const mapped = yield* port.load(at + Arena.mapped);
    if (next > mapped) {
      if (mapped + PAGE > end || !(yield* grow(mapped))) return 0;
      yield* port.store(at + Arena.mapped, mapped + PAGE);
    }
    yield* port.store(at + Arena.used, next);
    return node;
  }

  #freeList(bytes: number): number {
    return this.#spec.at + Arena.free + (Math.ceil(bytes / GRAIN) - 1) * 4;
  }

  *#count(by: number): Op<void> {
    const at = this.#spec.at + Arena.keys;
    yield* this.#port.store(at, (yield* this.#port.load(at)) + by);
  }
}

export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const shorter = Math.min(a.length, b.length);
  for (let n = 0; n < shorter; n++) {
    const order = (a[n] ?? 0) - (b[n] ?? 0);
    if (order !== 0) return order;
  }
  return a.length - b.length;
}

/** 1 to LEVELS, each with a quarter of the chance of the one before: FNV-1a, two bits a level. */
function heightOf(key: Uint8Array): number {
  let hash = 0x811c9dc5;
  for (const byte of key) hash = Math.imul(hash ^ byte, 0x01000193);
  hash ^= hash >>> 15;
  let height = 1;
  while (height < LEVELS && (hash & 3) === 0) {
    height++;
    hash >>>= 2;
    if (hash === 0) break;
  }
  return height;
}
