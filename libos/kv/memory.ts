/**
 * What the store's environment has where: one address space, filled once at the start. All of its
 * pages are needed for as long as it lives, but for the frames of the cache.
 *
 *     page   1-19     as Start says
 *           20-24     pool of pages      25  tables, sessions     26  keys, lists, window entries
 *           27        log's words        28  bytes needed of each segment     31  the store's books
 *           29        its row of accounts, exposed
 *           32-63     the segment being filled
 *          256-511    window: pages that clients have granted
 *          512-1023   frames of the cache        1024-1535  its tables        1536-  index
 */
import {
  Account,
  Env,
  envIndex,
  Info,
  MAP_READ,
  MAP_WRITE,
  PAGE_ACCOUNT_SHIFT,
  PageKind,
  Start,
  Status,
} from '../../kernel/abi.ts';
import { tablesBytes } from '../parts/block-cache.ts';
import { FreePages } from '../parts/free-pages.ts';
import { PagePool, poolBytes } from '../parts/page-pool.ts';
import { PageTables } from '../parts/page-tables.ts';
import type { Policy } from '../parts/replacement.ts';
import { countsOf } from '../parts/transfers.ts';
import type { Op, Syscalls } from '../syscalls.ts';
import { shapeOf, Store } from './store.ts';

const PAGE = 4096;
const RW = MAP_READ | MAP_WRITE;
const at = (page: number): number => page * PAGE;

const POOL = 20;
const MISC = 25;
const SCRATCH = 26;
const LOG = 27;
const LIVE = 28;
const ACCOUNTS = 29;
const VIEW = 30; // of our leaf table, for a moment
const BOOKS = 31;
const BUFFER = 32;
const FRAMES = 512;
const FRAMES_MAX = 512;
const TABLES = 1024;
const INDEX = 1536;
const LEAVES = 64; // of our page tables: 128 MiB
const CAPACITY_MAX = 4096; // pages: what the pool's memory holds
const FRAMES_LEAST = 4; // that are never given back
const FRAMES_PART = 3 / 4; // of the pages that are left when the rest has been mapped

export const WINDOW = 256;
export const WINDOW_ENTRIES = 256;
export const SESSIONS_AT = at(MISC) + 1024;
export const KEY_SCRATCH = at(SCRATCH);
const LIST = at(SCRATCH) + 1024;
export const WINDOW_WORDS = at(SCRATCH) + 2048;

/** Words of our own, behind those of the page tables. */
const Word = { torn: 512, asked: 516, lost: 520, frames: 524 } as const;
const word = (n: number): number => at(MISC) + n;

export interface MemorySpec {
  readonly self: number;
  readonly root: number;
  readonly middle: number;
  readonly leaf: number;
  /** pages that may be taken from the kernel */
  readonly pages: number;
  readonly extent: number;
  readonly extentSlot: number;
  /** the store's part of the extent */
  readonly firstBlock: number;
  readonly blocks: number;
  readonly policy: Policy;
  /** owners of keys among whom the room is divided; default: one has it all */
  readonly shares?: number;
  /** frames of the cache; default: three quarters of what is left */
  readonly frames?: number;
}

/** A range of pages that somebody may want back. */
interface Asked {
  readonly wanted: number;
  readonly first: number;
  readonly pages: number;
}

export class Memory {
  readonly #sys: Syscalls;
  readonly #spec: MemorySpec;
  readonly #pool: PagePool;
  readonly #tables: PageTables;
  readonly #capacity: number;
  #store: Store | null = null;
  #standIn = 0; // page

  constructor(sys: Syscalls, spec: MemorySpec) {
    this.#sys = sys;
    this.#spec = spec;
    this.#capacity = Math.min(CAPACITY_MAX, spec.pages - FIXED.length);
    this.#pool = new PagePool(sys, { at: at(POOL), capacity: this.#capacity, slot: 0 });
    this.#tables = new PageTables(sys, {
      root: spec.root,
      at: at(MISC),
      leaves: LEAVES,
      slot: 0,
      take: () => this.#pool.take(),
      put: (page) => this.#pool.put(page),
    });
  }

  get store(): Store {
    if (this.#store === null) throw new Error('kv: the store is not open');
    return this.#store;
  }

  /** Maps everything. Null: done; or why not. */
  *furnish(): Op<string | null> {
    const { sys, spec } = { sys: this.#sys, spec: this.#spec };
    const shape = shapeOf(spec.blocks);
    if (shape === null) return `kv: an extent of ${spec.blocks} blocks is too small: 8 at least`;
    const first = new FreePages(sys);
    for (const page of FIXED) {
      const physical = this.#capacity < 0 ? -1 : yield* first.take(0);
      const { status } = yield* sys.pageMap(spec.leaf, page, physical, 0, 0, RW, 0);
      if (status !== Status.ok) return this.#tooSmall();
      yield* sys.pageKeep(physical, 0, 1);
    }
    yield* this.#keepStack();
    yield* this.#tables.adopt(spec.middle, spec.leaf);
    yield* this.#pool.fill(this.#capacity);
    yield* this.#showAccount();
    this.#standIn = yield* this.#kept();
    for (let n = 0; n < shape.segmentBlocks; n++) {
      const page = yield* this.#kept();
      if (page < 0 || (yield* this.#tables.map(BUFFER + n, page)) !== Status.ok) {
        return this.#tooSmall();
      }
      yield* sys.port.store(LIST + n * 4, page);
    }
    // Leaf tables first: what they are made of is not for frames.
    for (const page of [FRAMES, TABLES, INDEX]) yield* this.#tables.leafOf(page);
    const blocks = shape.segments * shape.segmentBlocks;
    const most = Math.min(FRAMES_MAX, spec.frames ?? FRAMES_MAX);
    const idle = (yield* this.#pool.idle()) - Math.ceil((blocks * 8 + most * 64) / PAGE);
    const frames = Math.min(most, spec.frames ?? Math.floor(idle * FRAMES_PART));
    const shadow = tablesBytes(frames, spec.policy, blocks);
    const tables = Math.ceil((shadow + blocks * 4) / PAGE);
    if (frames < FRAMES_LEAST || idle < frames) return this.#tooSmall();
    for (let n = 0; n < tables; n++) {
      const status = yield* this.#tables.map(TABLES + n, yield* this.#kept());
      if (status !== Status.ok) return this.#tooSmall();
    }
    const place = {
      ...countsOf(spec.self),
      extent: spec.extent,
      extentSlot: spec.extentSlot,
      base: spec.firstBlock,
      pageSlot: 0,
    };
    this.#store = new Store(sys, {
      log: { ...place, ...shape, buffer: at(BUFFER), pages: LIST, at: at(LOG) },
      cache: {
        ...place,
        frames,
        data: at(FRAMES),
        tables: at(TABLES),
        blocks,
        policy: spec.policy,
        shadow: at(TABLES) + shadow,
      },
      list: { at: at(INDEX), end: at(LEAVES * 512), grow: (to) => this.#grow(to) },
      books: { at: at(BOOKS), live: at(LIVE), shares: spec.shares ?? 1 },
    });
    for (let n = 0; n < frames; n++) {
      const page = yield* this.#pool.take();
      if (page < 0 || (yield* this.#tables.map(FRAMES + n, page)) !== Status.ok) {
        return this.#tooSmall();
      }
      yield* this.store.cache.setPage(n, page);
      yield* this.#add(Word.frames, 1);
    }
    return null;
  }

  #tooSmall(): string {
    return `kv: ${this.#spec.pages} pages are too few for it`;
  }

  /** The stack page is what upcalls need: our own table says which that is. */
  *#keepStack(): Op<void> {
    const { sys, spec } = { sys: this.#sys, spec: this.#spec };
    const { status } = yield* sys.pageMap(spec.leaf, VIEW, spec.leaf, 0, 0, MAP_READ, 0);
    if (status !== Status.ok) return;
    const entry = yield* sys.port.load(at(VIEW) + Start.stackPage * 8);
    yield* sys.pageKeep(entry >>> 10, 0, 1);
    yield* sys.pageUnmap(spec.leaf, VIEW, 1, 0);
  }

  /** A page that is never given back; kept from force too, as many as our minimum allows. */
  *#kept(): Op<number> {
    const page = yield* this.#pool.take();
    if (page >= 0) yield* this.#sys.pageKeep(page, 0, 1);
    return page;
  }

  /** The index takes one more page, from the cache if there is no other. */
  *#grow(address: number): Op<boolean> {
    let page = yield* this.#kept();
    if (page < 0) {
      page = yield* this.#surrender(() => true);
      if (page < 0) return false;
      yield* this.#sys.pageKeep(page, 0, 1);
    }
    const { port } = this.#sys;
    if ((yield* this.#tables.map(address / PAGE, page)) !== Status.ok) {
      yield* this.#pool.put(page);
      return false;
    }
    port.fill(address, 0, PAGE) ?? (yield* port.fault()); // a frame's page holds what it held
    return true;
  }

  // ---- giving back ------------------------------------------------------------------------------

  /** The frame that the cache needs least, unmapped: its page, or -1. */
  *#surrender(may: (page: number) => boolean): Op<number> {
    const frames = yield* this.#sys.port.load(word(Word.frames));
    const given = frames > FRAMES_LEAST ? yield* this.store.cache.release(may) : null;
    if (given === null) return -1;
    yield* this.#tables.unmap(FRAMES + given.frame);
    yield* this.#add(Word.frames, -1);
    return given.page;
  }

  /** Handler's part: word of it; what is to be done is done between two operations. */
  *heard(kind: 'asked' | 'lost'): Op<void> {
    yield* this.#sys.port.store(word(Word[kind]), 1);
  }

  /** Answers what was heard: gives back what is asked for, and does without what was taken. */
  *comply(): Op<void> {
    const { port } = this.#sys;
    if ((yield* port.load(word(Word.lost))) !== 0) {
      yield* port.store(word(Word.lost), 0);
      yield* this.#pool.purge((page) => this.#isOurs(page));
      const lost = yield* this.store.cache.lose((page) => this.#isOurs(page));
      for (const frame of lost) {
        yield* this.#tables.unmap(FRAMES + frame);
        yield* this.#pool.lost();
        yield* this.#add(Word.frames, -1);
      }
    }
    if ((yield* port.load(word(Word.asked))) === 0) return;
    yield* port.store(word(Word.asked), 0);
    const { wanted, first, pages } = yield* this.#askedFor();
    const may = (page: number): boolean => page >= first && page < first + pages;
    yield* this.#pool.giveBack(wanted, may, (range) => this.#surrender(range));
  }

  *#isOurs(page: number): Op<boolean> {
    const { port } = this.#sys;
    const is = yield* port.load(at(Start.pagePages) + page * 4);
    const own = yield* this.#account();
    return (is & 0xff) === PageKind.user && ((is >>> PAGE_ACCOUNT_SHIFT) & 0xff) === own;
  }

  *#account(): Op<number> {
    const row = at(Start.envPages) + envIndex(this.#spec.self) * Env.words * 4;
    return yield* this.#sys.port.load(row + Env.account * 4);
  }

  #accountRow(account: number): number {
    return at(ACCOUNTS) + ((account * Account.words * 4) % PAGE);
  }

  /** Our row of the exposed accounts, if the kernel has such a table. */
  *#showAccount(): Op<void> {
    const table = yield* this.#sys.port.load(at(Start.infoPage) + Info.accountPage * 4);
    if (table === 0) return;
    const page = table + Math.floor(((yield* this.#account()) * Account.words * 4) / PAGE);
    yield* this.#tables.map(ACCOUNTS, page, MAP_READ);
  }

  *#askedFor(): Op<Asked> {
    const { port } = this.#sys;
    const table = yield* port.load(at(Start.infoPage) + Info.accountPage * 4);
    if (table === 0) return { wanted: 0, first: 0, pages: 0 };
    const row = this.#accountRow(yield* this.#account());
    return {
      wanted: yield* port.load(row + Account.wanted * 4),
      first: yield* port.load(row + Account.first * 4),
      pages: yield* port.load(row + Account.pages * 4),
    };
  }

  /** Pages that nothing stands on: what is given back first. */
  *idle(): Op<number> {
    return yield* this.#pool.idle();
  }
  /** Frames that the cache has. */
  *frames(): Op<number> {
    return yield* this.#sys.port.load(word(Word.frames));
  }

  // ---- pages that others take away --------------------------------------------------------------

  /**
   * A fault in the window, or at a frame: its page has been taken back, or cannot be written.
   * Another stands in for it, so that whoever is at it gets to the end, and is told there. False:
   * it is no such fault.
   */
  *standIn(address: number): Op<boolean> {
    const page = Math.floor(address / PAGE);
    const others = page >= WINDOW && page < WINDOW + WINDOW_ENTRIES;
    if (!others && !(page >= FRAMES && page < FRAMES + FRAMES_MAX)) return false;
    yield* this.#sys.port.store(word(Word.torn), 1);
    yield* this.#tables.unmap(page); // a page that was granted for reading only is no better
    return (yield* this.#tables.map(page, this.#standIn)) === Status.ok;
  }

  /** Whether a page stood in for another since this was asked last. */
  *torn(): Op<boolean> {
    const { port } = this.#sys;
    const torn = (yield* port.load(word(Word.torn))) !== 0;
    if (torn) yield* port.store(word(Word.torn), 0);
    return torn;
  }

  *#add(n: number, by: number): Op<void> {
    const { port } = this.#sys;
    yield* port.store(word(n), (yield* port.load(word(n))) + by);
  }
}

const FIXED: readonly number[] = [
  ...Array.from({ length: Math.ceil(poolBytes(CAPACITY_MAX) / PAGE) }, (_, n) => POOL + n),
  MISC,
  SCRATCH,
  LOG,
  LIVE,
  BOOKS,
];
