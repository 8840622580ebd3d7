/**
 * Lives of a store: a program that works on it directly, in its own environment, on a medium that
 * can lose power in the middle of any block that it writes. And the model: what a map of keys to
 * values would be after each operation. The model knows nothing of logs.
 */
import { MAP_READ, MAP_WRITE } from '../../../kernel/abi.ts';
import { Exokernel } from '../../../kernel/exokernel/exokernel.ts';
import { Kv, type KvConfig } from '../../../libos/kv/kv.ts';
import { KEY_SCRATCH } from '../../../libos/kv/memory.ts';
import { KvStatus } from '../../../libos/kv/protocol.ts';
import type { Store } from '../../../libos/kv/store.ts';
import { image, type Op } from '../../../libos/libos.ts';
import { FreePages } from '../../../libos/parts/free-pages.ts';
import type { Disk, Medium } from '../../../machine/disk.ts';
import { PhysicalMachine } from '../../../machine/physical.ts';
import { BLOCK_BYTES, SECTOR_BYTES } from '../../../machine/units.ts';
import { bytes, text } from './rig.ts';

const TABLE_BLOCKS = 2;
const VALUE_PAGE = 200; // first of VALUE_PAGES, of our own
const VALUE_PAGES = 16;

/** An operation of a life: put with a value, remove without; then perhaps a sync. */
export interface Act {
  readonly key: string;
  readonly value: string | null;
  readonly sync: boolean;
}
/** Keys and values, as a plain map. */
export type Model = ReadonlyMap<string, string>;

export function after(model: Model, { key, value }: Act): Model {
  const next = new Map(model);
  if (value === null) next.delete(key);
  else next.set(key, value);
  return next;
}

/** A medium in memory that loses power at block write number `at`: that block is torn. */
export class Perishable implements Medium {
  readonly blocks: number;
  readonly #contents: Map<number, Uint8Array>;
  writes = 0; // so far in this life
  reads = 0; // so far
  latest = -1; // block written last
  dead = false;
  /** write at which power goes, from 1; Infinity: never */
  deathAt = Infinity;
  /** whether a sector of the block being written then is kept */
  keeps: () => boolean = () => false;
  /** whether write number `n` is lost, though the power stays */
  loses: (n: number) => boolean = () => false;
  /** called before each write */
  onWrite: () => void = () => undefined;

  constructor(blocks: number, contents = new Map<number, Uint8Array>()) {
    this.blocks = blocks;
    this.#contents = contents;
  }

  read(block: number, into: Uint8Array): void {
    this.reads++;
    const bytes = this.#contents.get(block);
    if (bytes === undefined) into.fill(0);
    else into.set(bytes);
  }

  write(block: number, from: Uint8Array): void {
    if (this.dead) return;
    this.onWrite();
    this.writes++;
    if (this.loses(this.writes)) return;
    this.latest = block;
    if (this.writes < this.deathAt) {
      this.#contents.set(block, from.slice());
      return;
    }
    this.dead = true;
    this.#contents.set(block, torn(this.#contents.get(block), from, this.keeps));
  }

  /** Another medium with the same contents, as it would be if power went while `block` is written. */
  copy(): Perishable {
    return new Perishable(this.blocks, new Map(this.#contents));
  }
  revive(): void {
    this.dead = false;
    this.writes = 0;
    this.deathAt = Infinity;
  }
  /** Flips bits, or writes anything: damage, not a power cut. */
  spoil(block: number, change: (bytes: Uint8Array) => void): void {
    const bytes = this.#contents.get(block)?.slice() ?? new Uint8Array(BLOCK_BYTES);
    change(bytes);
    this.#contents.set(block, bytes);
  }
}

function torn(old: Uint8Array | undefined, fresh: Uint8Array, keeps: () => boolean): Uint8Array {
  const mixed = old?.slice() ?? new Uint8Array(BLOCK_BYTES);
  for (let at = 0; at < BLOCK_BYTES; at += SECTOR_BYTES) {
    if (keeps()) mixed.set(fresh.subarray(at, at + SECTOR_BYTES), at);
  }
  return mixed;
}

/** What a life did to its store directly: the store, and a place for values in memory. */
export interface Direct {
  readonly store: Store;
  readonly put: (key: string, value: string) => Op<number>;
}
export type Work = (direct: Direct) => Op<void>;
export interface LifeConfig extends KvConfig {
  readonly quota?: number;
  readonly isOver?: () => boolean;
  /** is told of the disk, before anything runs */
  readonly disk?: (disk: Disk) => void;
}

class Life extends Kv {
  readonly #work: Work;
  constructor(port: Kv['port'], config: KvConfig, work: Work) {
    super(port, config);
    this.#work = work;
  }
  override *main(...args: number[]): Op<void> {
    const [self = 0, root = 0, middle = 0, leaf = 0, pages = 0, extent = 0, blocks = 0] = args;
    const free = new FreePages(this.sys);
    for (let n = 0; n < VALUE_PAGES; n++) {
      const page = yield* free.take(0);
      yield* this.sys.pageMap(leaf, VALUE_PAGE + n, page, 0, 0, MAP_READ | MAP_WRITE, 0);
    }
    const place = { self, root, middle, leaf, extent, extentSlot: 0, firstBlock: 0, blocks };
    if (!(yield* this.open({ ...place, pages: pages - VALUE_PAGES }))) return;
    const { store } = this.memory;
    const { port } = this;
    const put = function* (key: string, value: string): Op<number> {
      const [k, v] = [bytes(key), bytes(value)];
      const from = VALUE_PAGE * 4096;
      port.write(KEY_SCRATCH, k, 0, k.length) ?? (yield* port.fault());
      port.write(from, v, 0, v.length) ?? (yield* port.fault());
      return yield* store.put(k, KEY_SCRATCH, [{ from, bytes: v.length }]);
    };
    yield* this.#work({ store, put });
  }
}

export interface Lived {
  readonly said: string;
  readonly ended: boolean;
}

/** One life on the medium, until the work is done or the power goes. */
export function live(medium: Medium, work: Work, config: LifeConfig = {}): Lived {
  const { quota = 110, isOver = () => false, disk = () => undefined } = config;
  let said = '';
  const machine = new PhysicalMachine({
    pages: 384,
    images: [image('life', (port) => new Life(port, config, work), 1)],
    medium,
    output: (_, out) => {
      said += text(out);
    },
  });
  disk(machine.device);
  const tenant = { image: 0, quota, firstBlock: 0, blocks: medium.blocks - TABLE_BLOCKS };
  machine.boot(
    new Exokernel({ environments: 8, slices: 2, sliceCycles: 1_000_000, extents: 4 }, [tenant]),
  );
  const stop = machine.run(1e13, isOver);
  return { said, ended: stop === 'halted' && !isOver() };
}

/** What a life that only looks is told: on the console, and key by key. */
export interface Looked {
  readonly said: string;
  readonly found: Model;
  /** statuses of the keys that cannot be read */
  readonly unread: ReadonlyMap<string, number>;
}
export function look(medium: Medium, config: LifeConfig = {}): Looked {
  const [found, unread] = [new Map<string, string>(), new Map<string, number>()];
  const { said } = live(
    medium,
    function* ({ store }) {
      yield* store.scan(bytes(''), bytes(''), false, function* ({ status, key, value }) {
        if (status !== KvStatus.ok) unread.set(text(key), status);
        else found.set(text(key), text(value));
        return yield* go();
      });
    },
    config,
  );
  return { said, found, unread };
}

/** Everything that is in the store on this medium; or what is wrong with it. */
export function contents(medium: Medium, config: LifeConfig = {}): Model | string {
  const { said, found, unread } = look(medium, config);
  const troubles = [...unread].map(([key, status]) => `${key}: status ${status}\n`).join('');
  return said + troubles === '' ? found : said + troubles;
}
function* go(): Op<boolean> {
  return true;
}

/** Does the acts one after another; `done` and `synced` count them as they are answered. */
export function doing(
  acts: readonly Act[],
  report: (what: 'done' | 'synced' | 'full', upTo: number) => void,
): Work {
  return function* ({ store, put }) {
    for (const [n, { key, value, sync }] of acts.entries()) {
      const status = yield* value === null ? store.remove(bytes(key)) : put(key, value);
      if (status === KvStatus.full) report('full', n);
      else if (status !== KvStatus.ok && status !== KvStatus.absent) {
        throw new Error(`act ${n}: status ${status}`);
      }
      report('done', n + 1);
      if (!sync) continue;
      if ((yield* store.sync()) !== KvStatus.ok) throw new Error('sync failed');
      report('synced', n + 1);
    }
  };
}

export const diskOf = (blocks: number): Perishable => new Perishable(blocks + TABLE_BLOCKS);

/** xorshift32: a stream of numbers from 0 to n - 1. */
export function dice(seed: number): (n: number) => number {
  let x = seed | 1;
  return (n) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % n;
  };
}

/** Acts on few keys, so that there is much to clean. Each value says which act wrote it. */
export function script(count: number, roll: (n: number) => number, from = 0): Act[] {
  return Array.from({ length: count }, (_, n) => {
    const key = `key ${roll(40)}`;
    const value = roll(5) === 0 ? null : `${from + n}:`.padEnd(4 + roll(8) * roll(200), 'x');
    return { key, value, sync: roll(4) === 0 };
  });
}

/** The number of acts after which the model is what was found, between the two; -1: none. */
export function prefix(
  models: readonly Model[],
  found: Model,
  least: number,
  most: number,
): number {
  for (let n = most; n >= least; n--) if (same(models[n] ?? new Map(), found)) return n;
  return -1;
}
const same = (a: Model, b: Model): boolean =>
  a.size === b.size && [...a].every(([key, value]) => b.get(key) === value);

export function modelsOf(acts: readonly Act[], first: Model = new Map()): Model[] {
  const models = [first];
  for (const act of acts) models.push(after(models.at(-1) ?? first, act));
  return models;
}
