/**
 * What a machine says, gathered once for all invariants: an own walk of every environment's tables,
 * every leaf and what justifies it, what requests in flight hold. Nothing of the kernel is called;
 * of its tables it is known where they lie.
 */
import { ACCESS_ENTRIES, CAP_SLOTS, Env, EnvState, PageKind, Queued } from '../../kernel/abi.ts';
import {
  CAP_GOING,
  CAP_PIN,
  CAP_WORDS,
  DISK_TAGS,
  PageRecord,
} from '../../kernel/exokernel/state.ts';
import type { Raw, RawName } from './raw.ts';

/** Bits of a page-table entry. */
export const Bit = { V: 1, R: 2, W: 4, X: 8, U: 16, G: 32, A: 64, D: 128 } as const;
export const VPNS = 2 ** 27; // virtual pages of an address space
/** Where a table's record has the list of its views: where a user page has that of an entry. */
const VIEWS = 2;

/** One filled entry of a leaf table. */
export interface Leaf {
  readonly env: number; // row
  readonly vpn: number;
  readonly page: number;
  readonly flags: number;
  readonly table: number;
  readonly index: number;
  /** kind of the page; -1 beyond memory */
  readonly kind: number;
  // What its ledger record says justifies it.
  readonly slot: number;
  readonly entry: number;
}

/** A table as some entry names it. */
export interface Hang {
  readonly page: number;
  readonly kind: number; // by the level of the entry
  readonly env: number; // whose root it is under
  readonly sound: boolean; // the entry is a pointer, and to a page that there is
}

/** Premises of the invariants, counted: a property that checks nothing is always green. */
export interface Witness {
  leaves: number;
  writable: number;
  shared: number; // user pages mapped in environments of different accounts
  lists: number; // ledger lists of two leaves or more
  views: number; // read-only mappings of table pages
  pinned: number;
  queued: number; // callers in queues
  zombies: number;
  tlb: number; // user entries of the TLB
  borrowed: number; // leaves justified by an access entry other than 0
}

export const noWitness = (): Witness => ({
  leaves: 0,
  writable: 0,
  shared: 0,
  lists: 0,
  views: 0,
  pinned: 0,
  queued: 0,
  zombies: 0,
  tlb: 0,
  borrowed: 0,
});

/** Says what is wrong unless it holds. */
export type Say = (holds: boolean, words: () => string) => void;

export interface Invariant {
  readonly id: string;
  readonly sentence: string;
  readonly check: (facts: Facts, say: Say) => void;
}

/** One more of a key. */
const add = (map: Map<number, number>, key: number): void => {
  map.set(key, (map.get(key) ?? 0) + 1);
};

export const isTableKind = (kind: number): boolean =>
  kind === PageKind.root || kind === PageKind.middle || kind === PageKind.leaf;
/** Kinds of which leaves are justified by a slot and an access entry. */
export const isGivenKind = (kind: number): boolean =>
  kind === PageKind.user || kind === PageKind.quarantined;

export class Facts {
  readonly raw: Raw;
  readonly witness: Witness;
  /** Capabilities were offered to strangers, or somebody's name dominates everybody's. */
  readonly open: boolean;
  readonly pages: readonly number[];
  readonly envs: readonly number[]; // rows that are taken
  readonly hangs: Hang[] = []; // roots included
  readonly filled = new Map<number, number>(); // table: entries in use
  readonly leaves: Leaf[] = [];
  readonly ledgers: (readonly [ledger: number, table: number])[] = [];
  readonly mapped = new Map<number, number>(); // user page: leaves
  readonly writers = new Map<number, number>(); // user page: writable leaves
  readonly views = new Map<number, number>(); // table: leaves
  readonly justified = new Map<number, number>(); // row × slot: leaves
  readonly listed = new Map<number, Set<number>>(); // page × entry: leaves, table << 9 | index
  readonly requests: number[] = []; // rows of the table of requests in use
  readonly pins = new Map<number, number>(); // page: requests in flight

  constructor(raw: Raw, witness: Witness, open: boolean) {
    this.raw = raw;
    this.witness = witness;
    this.open = open;
    this.pages = Array.from({ length: raw.pages }, (_, n) => n);
    const rows = Array.from({ length: raw.rows - 1 }, (_, n) => n + 1);
    this.envs = rows.filter((row) => raw.stateOf(row) !== EnvState.free);
    for (const env of this.envs) this.#walk(env);
    for (const page of this.pages) {
      if (raw.kind(page) !== PageKind.leaf) continue;
      for (const n of [0, 1]) this.ledgers.push([raw.page(page, PageRecord.ledger + n), page]);
    }
    this.#count();
    for (let tag = 0; tag < DISK_TAGS; tag++) {
      if (raw.queued(tag, Queued.env) === 0) continue;
      this.requests.push(tag);
      for (const page of this.pagesOf(tag)) add(this.pins, page);
    }
  }

  /** Pages of a request. */
  pagesOf(tag: number): number[] {
    const count = this.raw.queued(tag, Queued.count);
    return Array.from(
      { length: count },
      (_, n) => this.raw.queued(tag, Queued.pages + n) & 0x0fffffff,
    );
  }

  #walk(env: number): void {
    const root = this.raw.env(env, Env.root);
    this.#hang(root, PageKind.root, env, true);
    for (const [top, middle] of this.#entries(root, 256)) {
      if (!this.#point(middle, PageKind.middle, env)) continue;
      for (const [mid, table] of this.#entries(middle >>> 10, 512)) {
        if (!this.#point(table, PageKind.leaf, env)) continue;
        for (const [index, leaf] of this.#entries(table >>> 10, 512)) {
          this.#leaf(env, (top << 18) | (mid << 9) | index, leaf, table >>> 10, index);
        }
      }
    }
  }
  /** Entries in use of a table, as far as `end`. */
  #entries(table: number, end: number): [index: number, entry: number][] {
    const { i32 } = this.raw.machine.memory;
    const found: [number, number][] = [];
    for (let index = 0; index < end; index++) {
      const entry = (i32[table * 1024 + index * 2] ?? 0) >>> 0;
      if ((entry & Bit.V) !== 0) found.push([index, entry]);
    }
    this.filled.set(table, found.length);
    return found;
  }
  #hang(page: number, kind: number, env: number, sound: boolean): void {
    this.hangs.push({ page, kind, env, sound });
  }
  #point(entry: number, kind: number, env: number): boolean {
    const page = entry >>> 10;
    const exists = page < this.raw.pages;
    this.#hang(page, kind, env, exists && (entry & 0x3ff) === Bit.V);
    return exists;
  }
  #leaf(env: number, vpn: number, raw: number, table: number, index: number): void {
    const page = raw >>> 10;
    const kind = page < this.raw.pages ? this.raw.kind(page) : -1;
    const { slot, entry } = ledgerRecord(this.raw, table, index);
    this.leaves.push({ env, vpn, page, flags: raw & 0x3ff, table, index, kind, slot, entry });
  }

  #count(): void {
    const accounts = new Map<number, Set<number>>();
    for (const leaf of this.leaves) {
      const { env, page, flags, kind, slot, entry } = leaf;
      this.witness.leaves++;
      if (isTableKind(kind)) {
        add(this.views, page);
        this.#list(page, VIEWS, leaf);
        this.witness.views++;
      }
      if (!isGivenKind(kind)) continue;
      add(this.mapped, page);
      if ((flags & Bit.W) !== 0) add(this.writers, page);
      if ((flags & Bit.W) !== 0) this.witness.writable++;
      if (slot >= CAP_SLOTS || entry >= ACCESS_ENTRIES) continue;
      add(this.justified, env * CAP_SLOTS + slot);
      this.#list(page, entry, leaf);
      if (entry > 0) this.witness.borrowed++;
      const who = accounts.get(page) ?? new Set<number>();
      accounts.set(page, who.add(this.raw.env(env, Env.account)));
    }
    for (const who of accounts.values()) if (who.size > 1) this.witness.shared++;
    for (const set of this.listed.values()) if (set.size > 1) this.witness.lists++;
  }
  #list(page: number, entry: number, { table, index }: Leaf): void {
    const key = page * ACCESS_ENTRIES + entry;
    const set = this.listed.get(key) ?? new Set<number>();
    this.listed.set(key, set.add((table << 9) | index));
  }
}

// ---- what several invariants ask ----------------------------------------------------------------

export interface LedgerRecord {
  readonly next: number;
  readonly previous: number;
  readonly slot: number;
  readonly entry: number;
}
export function ledgerRecord(raw: Raw, table: number, index: number): LedgerRecord {
  const ledger = raw.page(table, PageRecord.ledger + (index >>> 8));
  const at = (index & 255) * 4;
  const why = raw.word(ledger, at + 2);
  return {
    next: raw.word(ledger, at),
    previous: raw.word(ledger, at + 1),
    slot: why & 0xff,
    entry: why >>> 8,
  };
}

/** Bytes of a name: the order on names once more, the slow way. */
export function bytesOf({ a, b }: { readonly a: number; readonly b: number }): number[] {
  const all = [a >>> 8, a >>> 16, a >>> 24, b, b >>> 8, b >>> 16, b >>> 24].map((n) => n & 0xff);
  return all.slice(0, a & 0xff);
}
export const isPrefix = (short: readonly number[], long: readonly number[]): boolean =>
  short.length <= long.length && short.every((byte, n) => long[n] === byte);

/** A name of at most 7 bytes, with nothing beyond its length. */
export function isWellFormed({ a, b }: RawName): boolean {
  const length = a & 0xff;
  const all = bytesOf({ a: (a & ~0xff) | 7, b });
  return length <= 7 && all.slice(length).every((byte) => byte === 0);
}

/** Whether an access entry is being taken away. */
export const isGoing = (raw: Raw, page: number, entry: number): boolean =>
  (raw.page(page, PageRecord.access + entry * CAP_WORDS + 2) & CAP_GOING) !== 0;

/** What is wrong with an empty access entry, '' if nothing is: nothing is left in it. */
export function emptyProblem(raw: Raw, page: number, entry: number, leaves: number): string {
  if (leaves > 0) return 'an empty entry justifies leaves';
  // Or what is next there would begin with it.
  const left = raw.page(page, PageRecord.access + entry * CAP_WORDS + 2) % CAP_PIN;
  const { last } = raw.access(page, entry);
  return last === 0 && left === 0 ? '' : 'something is left in an empty entry';
}

/** What is wrong with a ledger list, '' if nothing is: it has exactly the leaves that are due. */
export function listProblem(
  raw: Raw,
  page: number,
  entry: number,
  due: ReadonlySet<number>,
): string {
  const seen = new Set<number>();
  let before = 0;
  for (let at = raw.access(page, entry).last; at !== 0;) {
    if (seen.has(at)) return 'it is a ring';
    seen.add(at);
    if (!due.has(at)) return `leaf ${at} does not belong`;
    const { next, previous } = ledgerRecord(raw, at >>> 9, at & 511);
    // Who is first is named by the entry, and has no previous one.
    if (before !== 0 && previous !== before)
      return `leaf ${at} says ${previous} comes before it, not ${before}`;
    before = at;
    at = next;
  }
  return seen.size === due.size ? '' : `${due.size - seen.size} leaves are missing`;
}
export const viewList = VIEWS;
