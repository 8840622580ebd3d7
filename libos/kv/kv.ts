/**
 * kv: a persistent key-value store as a library OS of its own, in one address space, straight on
 * its extent. A tenant's first environment, or one that a tenant of another library OS has made
 * (lodge.ts); the store is the same. libos/kv/README.md says why it is as it is.
 *
 * It trusts its kernel, and whoever made it; clients it does not trust.
 */
import { ENV_PAGES, Env, Info, Start } from '../../kernel/abi.ts';
import type { Entry } from '../../machine/user-port.ts';
import { image, LibOS, type Op, OWN_ENTRIES } from '../libos.ts';
import { childWord } from '../parts/child.ts';
import type { Damage } from '../parts/log-recovery.ts';
import { type Policy, TWO_QUEUES } from '../parts/replacement.ts';
import { Memory, type MemorySpec } from './memory.ts';
import { KvServer } from './server.ts';

const PAGE = 4096;
const TEXT = Start.stackPage * PAGE + 512;
const TEXT_MAX = 256;

/** Entry of a store that is not its tenant's first environment. */
export const LODGER_ENTRY = OWN_ENTRIES;
/** Words that its maker leaves for a lodger, in this order. */
export const LodgerWords = [
  'root',
  'middle',
  'leaf',
  'pages',
  'extent',
  'extentSlot',
  'firstBlock',
  'blocks',
] as const;

/** Tenants that a store which is a tenant of its own serves, if it is not told. */
const TENANTS = 4;

export interface KvConfig {
  /** tenants that share it: each may fill one part of so many; default: 4, as a lodger 1 */
  readonly tenants?: number;
  readonly policy?: Policy;
  /** frames of the cache; default: what memory there is */
  readonly frames?: number;
}

export class Kv extends LibOS {
  readonly #config: KvConfig;
  #memory: Memory | null = null;

  constructor(port: LibOS['port'], config: KvConfig = {}) {
    super(port);
    this.#config = config;
  }

  override *main(...args: number[]): Op<void> {
    const [self = 0, root = 0, middle = 0, leaf = 0, pages = 0, extent = 0, blocks = 0] = args;
    const place = { self, root, middle, leaf, pages, extent, extentSlot: 0, firstBlock: 0, blocks };
    const shares = this.#config.tenants ?? TENANTS;
    if (yield* this.open({ ...place, shares })) yield* this.serve(leaf);
  }

  override entries(): readonly Entry[] {
    return [(...args) => this.#lodge(...args)];
  }

  *#lodge(...args: number[]): Op<void> {
    const words = new Map<string, number>();
    for (const [n, name] of LodgerWords.entries()) words.set(name, yield* childWord(this.sys, n));
    const word = (name: (typeof LodgerWords)[number]): number => words.get(name) ?? 0;
    const place = {
      self: args[0] ?? 0,
      root: word('root'),
      middle: word('middle'),
      leaf: word('leaf'),
      pages: word('pages'),
      extent: word('extent'),
      extentSlot: word('extentSlot'),
      firstBlock: word('firstBlock'),
      blocks: word('blocks'),
      shares: this.#config.tenants ?? 1,
    };
    if (yield* this.open(place)) yield* this.serve(place.leaf);
  }

  /** What the store has where; open it first. */
  get memory(): Memory {
    if (this.#memory === null) throw new Error('kv: it is not open');
    return this.#memory;
  }

  /** Maps memory and recovers the store. False: it cannot be, and the console says why. */
  *open(place: Omit<MemorySpec, 'policy' | 'frames'>): Op<boolean> {
    yield* this.catchFaults();
    const { policy = TWO_QUEUES, frames } = this.#config;
    this.#memory = new Memory(this.sys, {
      ...place,
      policy,
      ...(frames === undefined ? {} : { frames }),
    });
    yield* this.catchRevocation();
    const trouble = (yield* this.memory.furnish()) ?? (yield* this.#recover());
    if (trouble === null) return true;
    yield* this.#say(`${trouble}\n`);
    return false;
  }

  *#recover(): Op<string | null> {
    const recovery = yield* this.memory.store.open();
    switch (recovery.why) {
      case 'fresh':
      case 'recovered':
        return null;
      case 'memory':
        return 'kv: there are more keys on the disk than its memory holds';
      default:
        return explain(recovery);
    }
  }

  /** Answers calls for ever. */
  *serve(leaf: number): Op<void> {
    const rows = yield* this.port.load(Start.infoPage * PAGE + Info.environments * 4);
    const seen = Math.min(rows, Math.floor((ENV_PAGES * PAGE) / (Env.words * 4)));
    yield* new KvServer(this.sys, this.memory, leaf, seen).serve();
  }

  override *onFault(_cause: number, address: number): Op<boolean> {
    return this.#memory !== null && (yield* this.#memory.standIn(address));
  }
  override *onRevoke(): Op<void> {
    yield* this.memory.heard('asked');
  }
  override *onRepossessed(): Op<void> {
    yield* this.memory.heard('lost');
  }

  *#say(text: string): Op<void> {
    const bytes = new TextEncoder().encode(text).subarray(0, TEXT_MAX);
    this.port.write(TEXT, bytes, 0, bytes.length) ?? (yield* this.port.fault());
    yield* this.sys.consoleWrite(TEXT, bytes.length);
  }
}

/** Why a log cannot be used, and what would help. */
function explain(damage: Damage): string {
  switch (damage.why) {
    case 'disk':
      return `kv: the disk does not read or write block ${damage.block} of the store`;
    case 'foreign':
      return 'kv: the extent holds something else: give it one that is empty';
    case 'version':
      return 'kv: the extent holds a store of another format: empty it, or use what made it';
    case 'size':
      return 'kv: the extent holds a store of another size: give it the one it was made in';
    case 'corrupt':
      return (
        `kv: segment ${damage.segment} is damaged at byte ${damage.offset}, in what was durable: ` +
        'restore it from a copy, or empty the extent'
      );
  }
}

/** The store, as an image. */
export const kv = (config: KvConfig = {}): ReturnType<typeof image> =>
  image('kv', (port) => new Kv(port, config), 1);
