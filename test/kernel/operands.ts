/**
 * Operands for random programs, bound late: a step says which call and a few numbers, and what they
 * stand for is looked up in the machine when the step runs. Most calls are meant to succeed; the
 * others have one argument spoilt by a near miss. Noise finds nothing.
 */
import {
  ACCESS_ENTRIES,
  ALL_RIGHTS,
  CAP_SLOTS,
  type CallName,
  DISK_FLUSH,
  Env,
  EnvState,
  Info,
  MAP_READ,
  MAP_WRITE,
  packName,
  PageKind,
  READ,
  Upcall,
  WRITE,
} from '../../kernel/abi.ts';
import { Extent, PageRecord } from '../../kernel/exokernel/state.ts';
import { BEGIN_MASK, END_MASK, Entry, type Raw, SCRATCH } from './harness.ts';
import { type Domain, REFUSALS } from './refusals.ts';

export interface Step {
  readonly actor: number;
  readonly call: CallName;
  /** which argument is spoilt, if below their number */
  readonly spoil: number;
  readonly picks: readonly number[];
  /** a user access beforehand: to which of the places, and whether it stores; none if past them */
  readonly touch: number;
}

export const PICKS = 6;
export const WINDOW = 256; // mappings go to a few entries from here on, so that they meet
export const PLACES = 8;

/** Picks the n-th of a list, round and round; NaN of an empty one. */
const one = (list: readonly number[], n: number): number => list[n % list.length] ?? NaN;

/** What an environment could rightly name. */
class View {
  readonly raw: Raw;
  readonly row: number;
  readonly #rows: number[];
  readonly #pages: number[];

  constructor(raw: Raw, row: number) {
    this.raw = raw;
    this.row = row;
    this.#rows = Array.from({ length: raw.rows - 1 }, (_, n) => n + 1);
    this.#pages = Array.from({ length: raw.pages }, (_, n) => n);
  }

  /** Nobody else is ready: who waits now ends the program. */
  get lonely(): boolean {
    return this.envs(EnvState.ready).every((row) => row === this.row);
  }
  get account(): number {
    return this.raw.env(this.row, Env.account);
  }
  #prefix(a: number, b: number): boolean {
    const mine = this.raw.cap(this.row, 0);
    const length = mine.a & 0xff;
    if (mine.rights !== ALL_RIGHTS || length > (a & 0xff)) return false;
    const bytes = (x: number, y: number): number[] =>
      [x >>> 8, x >>> 16, x >>> 24, y, y >>> 8, y >>> 16, y >>> 24].map((n) => n & 0xff);
    const [own, other] = [bytes(mine.a, mine.b), bytes(a, b)];
    return own.slice(0, length).every((byte, n) => other[n] === byte);
  }
  envs(...states: number[]): number[] {
    return this.#rows.filter((row) => states.includes(this.raw.stateOf(row)));
  }
  /** Environments under our authority, ourselves left out. */
  children(...states: number[]): number[] {
    const { raw } = this;
    const under = (row: number): boolean =>
      row !== this.row && this.#prefix(raw.env(row, Env.nameA), raw.env(row, Env.nameB));
    return this.envs(...states).filter(under);
  }
  pages(kind: number): number[] {
    return this.#pages.filter((page) => this.raw.kind(page) === kind);
  }
  own(): number[] {
    return this.pages(PageKind.user).filter((page) => {
      const { a, b } = this.raw.access(page, 0);
      return this.#prefix(a, b);
    });
  }
  idle(): number[] {
    return this.own().filter((page) => this.raw.page(page, PageRecord.leaves) === 0);
  }
  /** Pages and entries that slot 0 may use, as page * ACCESS_ENTRIES + entry. */
  usable(): number[] {
    const found = [];
    for (const page of this.pages(PageKind.user)) {
      for (let entry = 0; entry < ACCESS_ENTRIES; entry++) {
        const { a, b, rights } = this.raw.access(page, entry);
        if ((rights & READ) !== 0 && this.#prefix(a, b)) found.push(page * ACCESS_ENTRIES + entry);
      }
    }
    return found;
  }
  tables(...kinds: number[]): number[] {
    const rows = [this.row, ...this.children(1, 2, 3, 4, 5, 6)];
    return this.#pages.filter(
      (page) => kinds.includes(this.raw.kind(page)) && rows.includes(this.raw.owner(page)),
    );
  }
  slots(filled: boolean): number[] {
    const all = Array.from({ length: CAP_SLOTS - 1 }, (_, n) => n + 1);
    return all.filter((slot) => this.raw.cap(this.row, slot).rights > 0 === filled);
  }
  extents(valid: number): number[] {
    const all = Array.from({ length: this.raw.state.extent.rows }, (_, n) => n);
    return all.filter((row) => this.raw.extent(row, Extent.valid) === valid);
  }
  ownExtents(): number[] {
    return this.extents(1).filter((row) =>
      this.#prefix(this.raw.extent(row, Extent.nameA), this.raw.extent(row, Extent.nameB)),
    );
  }
}

const under = (account: number, n: number): { a: number; b: number } =>
  packName(n % 3 === 0 ? [account] : [account, 16 + (n % 3)]);

type Live = (v: View, pick: readonly number[]) => number[];
const p = (pick: readonly number[], n: number): number => pick[n] ?? 0;

/** Arguments that should succeed, as far as the moment allows. */
const LIVE: Readonly<Record<CallName, Live>> = {
  null: () => [],
  yield: (v, pick) => [
    p(pick, 0) % 3 === 0 ? -1 : v.raw.id(one(v.envs(EnvState.ready), p(pick, 1))),
  ],
  sleep: (v, pick) => {
    const waits = !v.lonely && p(pick, 0) % 6 === 0;
    return [v.raw.env(v.row, Env.events) + (waits ? 0 : 1)];
  },
  notify: (v, pick) => [v.raw.id(one([v.row, ...v.children(2, 3)], p(pick, 0))), 0],
  envCreate: (v, pick) => {
    const name = under(v.account, 1 + (p(pick, 0) % 2));
    return [
      one(v.envs(EnvState.free), p(pick, 1)),
      one(v.idle(), p(pick, 2)),
      0,
      name.a,
      name.b,
      -1,
    ];
  },
  envStart: (v, pick) => [v.raw.id(one(v.children(EnvState.made), p(pick, 0))), 0, 0, 1, 2, 0],
  envDestroy: (v, pick) => [v.raw.id(one(v.children(1, 2, 3, 4, 5), p(pick, 0))), 0, p(pick, 1)],
  envReap: (v, pick) => [v.raw.id(one(v.children(EnvState.zombie), p(pick, 0))), 0],
  upcallSet: (_, pick) => {
    const [kind, off] = [p(pick, 0) % 2, p(pick, 1) % 4 === 0];
    const [entry, mask] = kind === 0 ? [Entry.begin, BEGIN_MASK] : [Entry.end, END_MASK];
    return [1 + kind, off ? -1 : entry, mask];
  },
  pageAllocate: (v, pick) => [one(v.pages(PageKind.free), p(pick, 0)), 0],
  pageFree: (v, pick) => [one(v.idle(), p(pick, 0)), 0],
  accessAdd: (v, pick) => {
    const name = under(1 + (p(pick, 0) % 2), p(pick, 1) & 1 ? 0 : p(pick, 1));
    const rights = [READ, READ | WRITE, ALL_RIGHTS][p(pick, 2) % 3] ?? READ;
    return [one(v.own(), p(pick, 3)), 0, 1 + (p(pick, 4) % 3), name.a, name.b, rights];
  },
  accessRemove: (v, pick) => {
    const pages = v.own().filter((page) => [1, 2, 3].some((n) => v.raw.access(page, n).rights > 0));
    const page = one(pages, p(pick, 0));
    const entries = [1, 2, 3].filter((n) => v.raw.access(page, n).rights > 0);
    return [page, 0, one(entries, p(pick, 1))];
  },
  tableCreate: (v, pick) => {
    const idle = v.idle();
    const parents = v.tables(PageKind.root, PageKind.middle);
    const [first, n] = [p(pick, 0), idle.length];
    const page = (k: number): number => one(idle, (first % Math.max(n, 1)) + k);
    return [one(parents, p(pick, 1)), p(pick, 2) % 4, page(0), 0, page(1), page(2), 0];
  },
  tableDestroy: (v, pick) => {
    const empty = (page: number): boolean => v.raw.page(page, PageRecord.leaves) === 0;
    return [one(v.tables(PageKind.leaf, PageKind.middle).filter(empty), p(pick, 0)), 0];
  },
  pageMap: (v, pick) => {
    const leaf = one(v.tables(PageKind.leaf), p(pick, 0));
    const index = WINDOW + (p(pick, 1) % PLACES);
    const what = p(pick, 2) % 8;
    if (what === 0) return [leaf, index, p(pick, 3) % 6, 0, 0, MAP_READ, 0];
    const views = v.tables(PageKind.root, PageKind.middle, PageKind.leaf);
    if (what === 1) return [leaf, index, one(views, p(pick, 3)), 0, 0, MAP_READ, 0];
    // Shared pages are rarer than a library's own, and worth more here.
    const usable = v.usable();
    const borrowed = usable.filter((n) => n % ACCESS_ENTRIES > 0);
    const pair = one(p(pick, 4) % 2 === 0 && borrowed.length > 0 ? borrowed : usable, p(pick, 3));
    const [page, entry] = [Math.floor(pair / ACCESS_ENTRIES), pair % ACCESS_ENTRIES];
    const may = v.raw.access(page, entry).rights & WRITE;
    const flags = may !== 0 && p(pick, 5) % 3 > 0 ? MAP_READ | MAP_WRITE : MAP_READ;
    return [leaf, index, page, 0, entry, flags, 0];
  },
  pageUnmap: (v, pick) => {
    const leaf = one(v.tables(PageKind.leaf), p(pick, 0));
    return [leaf, WINDOW + (p(pick, 1) % PLACES), 1 + (p(pick, 2) % PLACES), 0];
  },
  pageProtect: (v, pick) => {
    const flags = p(pick, 2) % 2 === 0 ? MAP_READ : MAP_READ | MAP_WRITE;
    return [one(v.tables(PageKind.leaf), p(pick, 0)), WINDOW + (p(pick, 1) % PLACES), flags, 0];
  },
  capForge: (v, pick) => {
    const { a, b } = under(v.account, p(pick, 0));
    const env = one([v.row, ...v.children(1, 2, 3, 4, 5)], p(pick, 1));
    return [v.raw.id(env), one(v.slots(false), p(pick, 2)), 0, a, b, 1 + (p(pick, 3) % ALL_RIGHTS)];
  },
  capDrop: (v, pick) => [one(v.slots(true), p(pick, 0))],
  sliceAllocate: (v, pick) => [
    p(pick, 0) % v.raw.info(Info.slices),
    v.raw.id(one([v.row, ...v.children(1, 2)], p(pick, 1))),
    0,
  ],
  sliceFree: (_, pick) => [2 + (p(pick, 0) % 2), 0],
  ipcWindow: (v, pick) => {
    const mine = v.tables(PageKind.leaf).filter((page) => v.raw.owner(page) === v.row);
    return [one(mine, p(pick, 0)), WINDOW + (p(pick, 1) % PLACES), 0];
  },
  ipcCall: (v, pick) => {
    const waiting = v.envs(EnvState.receiving);
    const others = v.envs(EnvState.ready, EnvState.sleeping).filter((row) => row !== v.row);
    if (waiting.length === 0 && v.lonely) return [NaN, 1, 2, 3, 4, -1, 0, 0];
    const to = v.raw.id(one(waiting.length > 0 ? waiting : others, p(pick, 0)));
    if (waiting.length === 0 || p(pick, 1) % 3 === 0) return [to, 1, 2, 3, 4, -1, 0, 0];
    return [to, 1, 2, 3, 4, ...granted(v, pick)];
  },
  ipcReplyWait: (v, pick) => {
    const { raw, row } = v;
    const heard = v
      .envs(EnvState.calling)
      .filter((from) => raw.env(from, Env.partner) === raw.id(row));
    const client = one(heard, p(pick, 0));
    const nobody = [v.lonely ? NaN : -1, 0, 0, 0, 0, -1, 0, 0];
    if (Number.isNaN(client) || p(pick, 1) % 7 === 0) return nobody;
    if (p(pick, 1) % 2 === 0) return [raw.id(client), 5, 6, 7, 8, -1, 0, 0];
    return [raw.id(client), 5, 6, 7, 8, ...granted(v, pick)];
  },
  extentSplit: (v, pick) => {
    const { a, b } = under(v.account, p(pick, 0));
    const count = 1 + (p(pick, 1) % 3);
    return [one(v.ownExtents(), p(pick, 2)), 0, one(v.extents(0), p(pick, 3)), count, a, b];
  },
  batch: (_, pick) => [SCRATCH + 256, 1 + (p(pick, 0) % 4)],
  diskRequest: (v, pick) => {
    const extent = one(v.ownExtents(), p(pick, 0));
    if (p(pick, 1) % 8 === 0) return [extent, 0, 0, 0, SCRATCH, 0, DISK_FLUSH];
    return [extent, 0, p(pick, 2) % 3, 1 + (p(pick, 3) % 2), SCRATCH, 0, p(pick, 1) % 3];
  },
  consoleWrite: (_, pick) => [SCRATCH + (p(pick, 0) % 64), p(pick, 1) % 64],
};

function granted(v: View, pick: readonly number[]): number[] {
  const page = one(v.own(), p(pick, 3));
  const entries = [1, 2, 3].filter((n) => v.raw.access(page, n).rights === 0);
  const rights = p(pick, 2) % 2 === 0 ? READ : READ | WRITE;
  return [page, 0, rights | (one(entries, p(pick, 4)) << 8)];
}

/** Words of a scatter list that the actor could use. */
export function listFor(raw: Raw, row: number, picks: readonly number[]): number[] {
  const usable = new View(raw, row).usable();
  return [p(picks, 4), p(picks, 5)].map((n) => {
    const pair = one(usable, n);
    return Math.floor(pair / ACCESS_ENTRIES) | ((pair % ACCESS_ENTRIES) << 28);
  });
}

const ODD = [0, 1, 2, 3, -1, 4, 7, 8, 65, 4097, 2 ** 31, 2 ** 32, NaN, 1.5] as const;

const isEntry = (n: number | undefined): n is number =>
  n !== undefined && Object.values<number>(Entry).includes(n);

/** A near miss in the place of an argument. */
function spoilt(raw: Raw, domain: Domain, n: number, value: number): number {
  switch (domain) {
    case 'page':
      return n % 5 === 0 ? one([-1, raw.pages, 2 ** 32], n >>> 3) : (n >>> 3) % raw.pages;
    case 'env':
      if (n % 3 === 0) return value - (1 << 14);
      return n % 3 === 1
        ? raw.id(1 + ((n >>> 3) % (raw.rows - 1)))
        : one([0, -1, 2 ** 31], n >>> 3);
    case 'slot':
      return (n >>> 3) % (CAP_SLOTS + 1);
    case 'index':
      return one([0, 1, 255, 256, 511, 512, 300], n >>> 3);
    case 'entry':
      return (n >>> 3) % (ACCESS_ENTRIES + 1);
    case 'other':
      return one(ODD, n >>> 3);
  }
}

/** The arguments of a step, as the machine stands now. */
export function bind(raw: Raw, row: number, { call, spoil, picks }: Step): number[] {
  const args = LIVE[call](new View(raw, row), picks);
  const domain = REFUSALS[call].domains[spoil];
  if (domain !== undefined) args[spoil] = spoilt(raw, domain, p(picks, 0), args[spoil] ?? 0);
  if (call === 'upcallSet') {
    // Entries that are no handlers of slices never return, and a request beneath never ends. The
    // handler of faults stays, or the first touch of an empty place is the last.
    const handlers: readonly number[] = [Entry.begin, Entry.end];
    if (isEntry(args[1]) && !handlers.includes(args[1])) args[1] = Entry.end;
    if (args[0] === Upcall.fault) args[0] = 3;
  }
  return args;
}
