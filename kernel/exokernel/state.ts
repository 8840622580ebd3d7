/**
 * All of the exokernel's state: tables of words in the machine's memory. Published ones can be
 * mapped read-only by anyone; private ones hold capability lists and save areas.
 *
 * Trusts nothing that it reads from user memory; owes its callers rows and columns in range (an
 * assert stops the machine otherwise, for a wrong row is somebody else's authority).
 */
import { Layout, type Machine, type Table } from '../supervisor.ts';
import {
  ACCESS_ENTRIES,
  Account,
  ACCOUNTS,
  CAP_SLOTS,
  Env,
  envId,
  envIndex,
  EnvState,
  ENV_INDEX_BITS,
  Extent,
  EXTENT_BITS,
  Info,
  Loss,
  Page,
  PAGE_ACCOUNT_SHIFT,
  PAGE_BITS,
  PAGE_ENV_SHIFT,
  PAGE_KEPT,
  PAGE_TAG_BITS,
  PREDICATE_TERMS,
  Queued,
  SLICE_BITS,
  TAG_BITS,
  tagOf,
  Term,
} from '../abi.ts';

export interface ExokernelConfig {
  /** rows of the environment table, 2 to 16,383; row 0 is nobody */
  readonly environments: number;
  /** positions of the slice vector, 1 to 64 */
  readonly slices: number;
  /** length of a slice in cycles, SLICE_MIN at least; walks and kernel work come out of it */
  readonly sliceCycles: number;
  /** rows of the extent table, 1 to EXTENTS_MAX */
  readonly extents: number;
}

/** Below this a slice could be shorter than the work of switching to it. */
export const SLICE_MIN = 10_000;
export const SLICES_MAX = 64;
/** Forfeited slices beyond which an environment that overruns is destroyed. */
export const EXCESS_MAX = 8;
export const DISK_TAGS = 64;
/** Of them, those that accounts are allotted; the rest is for the kernel's own requests. */
export const REQUESTS_MAX = 56;

/** A table of as many fits a block of the disk, and is written in one bounded step. */
export const EXTENTS_MAX = 120;

/** Words of a capability: name a, name b, rights with CAP_VALID, leaves that it justifies. */
export const CAP_WORDS = 4;
export const CAP_VALID = 1 << 8;
/** Of an access entry that is being taken away: it justifies nothing new. */
export const CAP_GOING = 1 << 9;
/** Device requests in flight by an access entry stand above. */
export const CAP_PIN = 1 << 16;

/** Words of a private environment record. */
export const Private = {
  caps: 0, // CAP_SLOTS × CAP_WORDS
  registers: 64, // 32 words
  saved: 96, // how many of them stand there; from here to offerTo 0 of a new environment
  upcallEntry: 97, // per kind, entry + 1
  windowTable: 102, // 0: none
  queueHead: 103, // callers that wait for this environment, index, 0 if none
  queueTail: 104,
  queuePrevious: 105,
  pending: 106, // upcalls to be pushed when it runs next, a bit per kind
  coalesced: 107, // upcalls that were not pushed because one was outstanding
  offerTo: 108, // environment id that a capability is offered to, 0 if none
  offer: 109, // name a, name b, rights
  upcallFrame: 112, // per kind, user address
  windowIndex: 117,
  windowSlot: 118,
  queueNext: 119,
  message: 120, // 4 words of a queued call
  predicate: 124, // PREDICATE_TERMS × Term.words, of a sleeper
  words: 124 + PREDICATE_TERMS * Term.words,
} as const;

/**
 * Words of a page's record: the exposed ones, of which what follows generation, counts and pins
 * depends on the page's kind. A user page has access entries of CAP_WORDS words: name a, name b,
 * rights with CAP_VALID and pins, head of the list of leaves. Of a table entry 0 is kept and the
 * rest says where it hangs.
 */
export const PageRecord = {
  ...Page,
  views: Page.writers, // of a table: its read-only mappings
  ledger: 8, // two pages (tables at leaf level)
  parent: 10, // table that names this one
  parentIndex: 11,
  base: 12, // first virtual page that it translates
} as const;

/** Words of the kernel's own registers. */
export const Cpu = {
  current: 0, // environment that runs, 0 if none
  owner: 1, // environment whose slice it is
  end: 2, // two words: when the slice ends
  grace: 4, // 1: the slice has ended, its upcall is out
  installed: 5, // environment whose address space is set
  told: 6, // environment that the slice's end was announced to: it alone can overrun
  damaged: 7, // copies of the extent table that could not be read at boot
  stolen: 8, // two words: what was stolen from the machine when the slice began, or grew
  words: 10,
} as const;

export class State {
  readonly machine: Machine;
  readonly config: ExokernelConfig;
  readonly info: Table;
  readonly env: Table;
  readonly pageWord: Table;
  readonly page: Table; // access lists: published, for names are no secrets
  readonly extent: Table;
  readonly account: Table;
  readonly loss: Table;
  readonly queue: Table; // disk requests in flight
  readonly secret: Table;
  readonly cpu: Table;
  readonly staging: number; // page from which the extent table is written to the disk
  readonly firstPrivate: number;
  readonly end: number;
  readonly root: number;

  constructor(machine: Machine, config: ExokernelConfig) {
    this.machine = machine;
    this.config = config;
    const layout = new Layout(machine, 0);
    this.info = layout.table(1, 1024);
    this.env = layout.table(config.environments, Env.words);
    this.pageWord = layout.table(machine.pages, 1);
    this.page = layout.table(machine.pages, PageRecord.words);
    this.extent = layout.table(config.extents, Extent.words);
    this.account = layout.table(ACCOUNTS, Account.words);
    this.loss = layout.table(ACCOUNTS, Loss.words);
    this.queue = layout.table(DISK_TAGS, Queued.words);
    this.firstPrivate = layout.end;
    this.secret = layout.table(config.environments, Private.words);
    this.cpu = layout.table(1, Cpu.words);
    this.staging = layout.pages(1);
    this.root = layout.pages(1);
    this.end = layout.end;
  }

  // ---- environments -----------------------------------------------------------------------------

  /** Id of the environment in row `index`. */
  id(index: number): number {
    return envId(index, this.env.get(index, Env.generation));
  }

  stateOf(index: number): number {
    return this.env.get(index, Env.state);
  }

  /** Row of a live environment id, or -1 for anything else, a stale generation included. */
  row(id: number): number {
    if (!Number.isInteger(id) || id < 0 || id >= 2 ** 31) return -1;
    const index = envIndex(id);
    if (index === 0 || index >= this.config.environments) return -1;
    if (this.env.get(index, Env.generation) !== id >>> ENV_INDEX_BITS) return -1;
    return this.env.get(index, Env.state) === EnvState.free ? -1 : index;
  }

  get current(): number {
    return this.cpu.get(0, Cpu.current);
  }

  // ---- pages ------------------------------------------------------------------------------------

  kind(page: number): number {
    return this.pageWord.get(page, 0) & 0xff;
  }

  /** Account that a page is charged to. */
  accountOf(page: number): number {
    return (this.pageWord.get(page, 0) >>> PAGE_ACCOUNT_SHIFT) & 0xff;
  }

  /** Environment that a table belongs to. */
  envOf(table: number): number {
    return (this.pageWord.get(table, 0) & ~PAGE_KEPT) >>> PAGE_ENV_SHIFT;
  }

  /** All at once, for what is read often. */
  pageOf(page: number): { readonly kind: number; readonly account: number; readonly env: number } {
    const word = this.pageWord.get(page, 0);
    const account = (word >>> PAGE_ACCOUNT_SHIFT) & 0xff;
    return { kind: word & 0xff, account, env: (word & ~PAGE_KEPT) >>> PAGE_ENV_SHIFT };
  }

  setPage(page: number, kind: number, account: number, env: number): void {
    const word = kind | (account << PAGE_ACCOUNT_SHIFT) | (env << PAGE_ENV_SHIFT);
    this.pageWord.put(page, 0, word);
  }

  /** Another kind for a page that stays charged to whom it was, and kept if it was. */
  retype(page: number, kind: number, env: number): void {
    const stays = this.pageWord.get(page, 0) & (PAGE_KEPT | (0xff << PAGE_ACCOUNT_SHIFT));
    this.pageWord.put(page, 0, stays | kind | (env << PAGE_ENV_SHIFT));
  }

  /** Column of word `word` of access entry `entry` in a page's record. */
  access(entry: number, word: number): number {
    return PageRecord.access + entry * CAP_WORDS + word;
  }

  /** Column of word `word` of capability slot `slot` in a private record. */
  cap(slot: number, word: number): number {
    return Private.caps + slot * CAP_WORDS + word;
  }

  setInfo(word: number, value: number): void {
    this.info.put(0, word, value);
  }

  sliceOwner(position: number): number {
    return this.info.get(0, Info.sliceVector + position);
  }
}

/** Index of a name if it stands for something: in range, and no tag but the present one. */
function named(
  n: number,
  count: number,
  bits: number,
  tags: number,
  at: (i: number) => number,
): number {
  if (!Number.isInteger(n) || n < 0 || n >= 2 ** (bits + tags)) return -1;
  const index = n & ((1 << bits) - 1);
  if (index >= count) return -1;
  const tag = n >>> bits;
  return tag === 0 || tag === tagOf(at(index), tags) ? index : -1;
}

/** The page that a caller names, or -1. */
export const pageNamed = (state: State, n: number): number =>
  named(n, state.machine.pages, PAGE_BITS, PAGE_TAG_BITS, (page) =>
    state.page.get(page, PageRecord.generation),
  );
export const extentNamed = (state: State, n: number): number =>
  named(n, state.config.extents, EXTENT_BITS, TAG_BITS, (row) =>
    state.extent.get(row, Extent.generation),
  );
export const positionNamed = (state: State, n: number): number =>
  named(n, state.config.slices, SLICE_BITS, TAG_BITS, (position) =>
    state.info.get(0, Info.sliceGeneration + position),
  );
export const isIndex = (n: number): boolean => Number.isInteger(n) && n >= 0 && n < 512;
export const isSlot = (n: number): boolean => Number.isInteger(n) && n >= 0 && n < CAP_SLOTS;
export const isEntry = (n: number): boolean => Number.isInteger(n) && n >= 0 && n < ACCESS_ENTRIES;
export const isWord = (n: number): boolean => Number.isInteger(n) && n >= -(2 ** 31) && n < 2 ** 32;
