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
  CAP_SLOTS,
  Env,
  envId,
  envIndex,
  EnvState,
  ENV_INDEX_BITS,
  Info,
  PAGE_OWNER_SHIFT,
} from '../abi.ts';

export interface ExokernelConfig {
  /** rows of the environment table, 2 to 16,383; row 0 is nobody */
  readonly environments: number;
  /** positions of the slice vector, 1 to 64 */
  readonly slices: number;
  /** length of a slice in cycles, SLICE_MIN at least; walks and kernel work come out of it */
  readonly sliceCycles: number;
  /** rows of the extent table */
  readonly extents: number;
}

/** Below this a slice could be shorter than the work of switching to it. */
export const SLICE_MIN = 10_000;
export const SLICES_MAX = 64;
/** Forfeited slices beyond which an environment that overruns is destroyed. */
export const EXCESS_MAX = 8;
export const DISK_TAGS = 64;

/** Words of a capability: name a, name b, rights with CAP_VALID, leaves that it justifies. */
export const CAP_WORDS = 4;
export const CAP_VALID = 1 << 8;

/** Words of a private environment record. */
export const Private = {
  caps: 0, // CAP_SLOTS × CAP_WORDS
  registers: 64, // 32 words
  saved: 96, // how many of them stand there
  upcallEntry: 97, // per kind, entry + 1
  upcallFrame: 100, // per kind, user address
  windowTable: 103, // 0: none
  windowIndex: 104,
  windowSlot: 105,
  queueHead: 106, // callers that wait for this environment, index, 0 if none
  queueTail: 107,
  queueNext: 108,
  message: 109, // 4 words of a queued call
  coalesced: 113, // upcalls that were not pushed because one was outstanding
  words: 128,
} as const;

/**
 * Words of a page's record. What follows its generation, counts and pins depends on its kind:
 * access entries of CAP_WORDS words (name a, name b, rights with CAP_VALID, head of the list of
 * leaves) for a user page; for a table, entry 0 is kept and the rest says where it hangs.
 */
export const PageRecord = {
  generation: 0,
  leaves: 1, // mappings of this page; of a table page, its own filled entries
  pins: 2, // device requests in flight
  views: 3, // read-only mappings of a table page
  access: 4, // ACCESS_ENTRIES × 4
  ledger: 8, // two pages (tables at leaf level)
  parent: 10, // table that names this one
  parentIndex: 11,
  base: 12, // first virtual page that it translates
  words: 20,
} as const;

/** Words of an extent: first block, count, name a, name b, valid. */
export const Extent = { first: 0, count: 1, nameA: 2, nameB: 3, valid: 4, words: 5 } as const;

/** Words of the kernel's own registers. */
export const Cpu = {
  current: 0, // environment that runs, 0 if none
  owner: 1, // environment whose slice it is
  end: 2, // two words: when the slice ends
  grace: 4, // 1: the slice has ended, its upcall is out
  installed: 5, // environment whose address space is set
  told: 6, // environment that the slice's end was announced to: it alone can overrun
  words: 8,
} as const;

/** Words of a disk request in flight: environment id, pages, then the pages. */
export const Tag = { env: 0, count: 1, pages: 2, words: 34 } as const;

export class State {
  readonly machine: Machine;
  readonly config: ExokernelConfig;
  readonly info: Table;
  readonly env: Table;
  readonly pageWord: Table;
  readonly page: Table; // access lists: published, for names are no secrets
  readonly extent: Table;
  readonly secret: Table;
  readonly cpu: Table;
  readonly tag: Table;
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
    this.firstPrivate = layout.end;
    this.secret = layout.table(config.environments, Private.words);
    this.cpu = layout.table(1, Cpu.words);
    this.tag = layout.table(DISK_TAGS, Tag.words);
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

  ownerOf(page: number): number {
    return this.pageWord.get(page, 0) >>> PAGE_OWNER_SHIFT;
  }

  setKind(page: number, kind: number, owner: number): void {
    this.pageWord.put(page, 0, kind | (owner << PAGE_OWNER_SHIFT));
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

export const isPage = (state: State, n: number): boolean =>
  Number.isInteger(n) && n >= 0 && n < state.machine.pages;
export const isIndex = (n: number): boolean => Number.isInteger(n) && n >= 0 && n < 512;
export const isSlot = (n: number): boolean => Number.isInteger(n) && n >= 0 && n < CAP_SLOTS;
export const isEntry = (n: number): boolean => Number.isInteger(n) && n >= 0 && n < ACCESS_ENTRIES;
export const isWord = (n: number): boolean => Number.isInteger(n) && n >= -(2 ** 31) && n < 2 ** 32;
