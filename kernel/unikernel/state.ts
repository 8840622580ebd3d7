/**
 * All of the unikernel's state: tables of words in the machine's memory. Published ones are mapped
 * read-only where the ABI says, private ones are not; that is layout, and keeps nobody out.
 *
 * Trusts its tenant, who could write here; owes its callers rows and columns in range (an assert).
 */
import {
  Account,
  ACCOUNTS,
  Env,
  envId,
  envIndex,
  EnvState,
  ENV_INDEX_BITS,
  Extent,
  Info,
  PAGE_ACCOUNT_SHIFT,
  PAGE_BITS,
  PAGE_ENV_SHIFT,
  PREDICATE_TERMS,
  Term,
} from '../abi.ts';
import { Layout, type Machine, type Table } from '../supervisor.ts';

export interface UnikernelConfig {
  readonly environments: number;
  /** cycles after which the scheduler of the libOS is asked again */
  readonly sliceCycles: number;
}

/** The tenant's account, as on the exokernel: 0 is nobody's. */
export const ACCOUNT = 1;
/** Rows of the extent table. */
export const EXTENTS = 16;
/** Positions of the slice vector. */
export const SLICES = 16;
export const DISK_TAGS = 64;

/** Words of a private environment record. */
export const Private = {
  registers: 0, // 32 words
  saved: 32, // how many of them stand there
  upcallEntry: 33, // per kind, entry + 1
  upcallFrame: 38, // per kind, user address
  windowTable: 43, // table + 1, 0: none
  windowIndex: 44,
  queueHead: 45, // callers that wait for this environment, index, 0 if none
  queueTail: 46,
  queueNext: 47,
  message: 48, // 4 words of a queued call
  pending: 52, // 1: is to hear of a revocation when it runs next
  predicate: 53, // PREDICATE_TERMS × Term.words, of a sleeper
  words: 53 + PREDICATE_TERMS * Term.words,
} as const;

/** Words of the unikernel's own registers. */
export const Cpu = {
  current: 0, // environment that runs, 0 if none
  owner: 1, // environment whose slice it is
  end: 2, // two words: when the slice ends
  installed: 4, // environment whose address space is set
  words: 8,
} as const;

/** Words of a disk request in flight: environment id. */
export const Tag = { env: 0, words: 1 } as const;

export class State {
  readonly machine: Machine;
  readonly config: UnikernelConfig;
  readonly channel: number; // of the console, for all output of the tenant
  readonly info: Table;
  readonly env: Table;
  readonly pageWord: Table;
  readonly extent: Table;
  readonly account: Table;
  readonly base: Table; // per table page: first virtual page that it translates
  readonly secret: Table; // the private records, by the exokernel's name for them
  readonly cpu: Table;
  readonly tag: Table;
  readonly root: number;
  readonly end: number;

  constructor(machine: Machine, config: UnikernelConfig, channel: number) {
    this.machine = machine;
    this.config = config;
    this.channel = channel;
    const layout = new Layout(machine, 0);
    this.info = layout.table(1, 1024);
    this.env = layout.table(config.environments, Env.words);
    this.pageWord = layout.table(machine.pages, 1);
    this.extent = layout.table(EXTENTS, Extent.words);
    this.account = layout.table(ACCOUNTS, Account.words);
    this.base = layout.table(machine.pages, 1);
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

  // ---- pages ------------------------------------------------------------------------------------

  kind(page: number): number {
    return this.pageWord.get(page, 0) & 0xff;
  }

  /** Environment that a table belongs to. */
  envOf(table: number): number {
    return this.pageWord.get(table, 0) >>> PAGE_ENV_SHIFT;
  }

  accountOf(page: number): number {
    return (this.pageWord.get(page, 0) >>> PAGE_ACCOUNT_SHIFT) & 0xff;
  }

  /** Another kind for a page of the same account. */
  retype(page: number, kind: number, env: number): void {
    this.setKind(page, kind, env, this.accountOf(page));
  }

  setKind(page: number, kind: number, env: number, account: number): void {
    const word = kind | (account << PAGE_ACCOUNT_SHIFT) | (env << PAGE_ENV_SHIFT);
    this.pageWord.put(page, 0, word);
  }

  setInfo(word: number, value: number): void {
    this.info.put(0, word, value);
  }

  sliceOwner(position: number): number {
    return this.info.get(0, Info.sliceVector + position);
  }
}

/** A name's index, without the generation that it may carry: nothing is ever stale here. */
export const indexOf = (n: number, bits: number): number =>
  Number.isInteger(n) && n >= 0 ? n % 2 ** bits : -1;
export const pageAt = (n: number): number => indexOf(n, PAGE_BITS);

/** A page behind the tables: a call that scrubs or retypes one must not hit the unikernel. */
export const isPage = (state: State, n: number): boolean =>
  Number.isInteger(n) && n >= state.end && n < state.machine.pages;
export const isIndex = (n: number): boolean => Number.isInteger(n) && n >= 0 && n < 512;
