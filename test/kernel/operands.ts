/**
 * Operands for random programs, bound late: a step says which call and a few numbers, and what they
 * stand for is looked up in the machine when the step runs. Most calls are meant to succeed; the
 * others have one argument spoilt by a near miss. Noise finds nothing.
 */
import {
  ACCESS_ENTRIES,
  Account,
  ACCOUNTS,
  ALL_RIGHTS,
  CAP_SLOTS,
  type CallName,
  DISK_FLUSH,
  Env,
  EnvState,
  Extent,
  Info,
  MAP_READ,
  MAP_WRITE,
  Operator,
  packName,
  PageKind,
  READ,
  RESOURCES,
  Resource,
  Upcall,
  WRITE,
} from '../../kernel/abi.ts';
import { PageRecord, Private } from '../../kernel/exokernel/state.ts';
import { DEADLINE_MIN } from '../../kernel/exokernel/revocation.ts';
import { BEGIN_MASK, END_MASK, Entry, LOSS_MASK, REVOKE_MASK, SCRATCH } from './harness.ts';
import type { Raw } from '../../check/invariants/raw.ts';
import { type Domain, REFUSALS } from './refusals/index.ts';

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
  /** First byte of our name: the tenant. */
  get tenant(): number {
    return (this.raw.env(this.row, Env.nameA) >>> 8) & 0xff;
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
  /** Of pages, those that our account pays for. */
  charged(pages: readonly number[]): number[] {
    return pages.filter((page) => this.raw.accountOf(page) === this.account);
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
      (page) => kinds.includes(this.raw.kind(page)) && rows.includes(this.raw.envOf(page)),
    );
  }
  slots(filled: boolean, row = this.row): number[] {
    const all = Array.from({ length: CAP_SLOTS - 1 }, (_, n) => n + 1);
    return all.filter((slot) => this.raw.cap(row, slot).rights > 0 === filled);
  }
  /** Accounts whose name we dominate. */
  accounts(): number[] {
    const all = Array.from({ length: ACCOUNTS - 1 }, (_, n) => n + 1);
    const { raw } = this;
    return all.filter((n) => {
      const [a, b] = [raw.account(n, Account.nameA), raw.account(n, Account.nameB)];
      return raw.account(n, Account.valid) !== 0 && this.#prefix(a, b);
    });
  }
  /** Of them, those whose parent's name we dominate too. */
  wards(): number[] {
    const accounts = this.accounts();
    return accounts.filter((n) => accounts.includes(this.raw.account(n, Account.parent)));
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

const under = (tenant: number, n: number): { a: number; b: number } =>
  packName(n % 3 === 0 ? [tenant] : [tenant, 16 + (n % 3)]);
const deeper = (tenant: number, n: number): { a: number; b: number } =>
  packName([tenant, 17 + (n % 2), 1 + (n % 5)]);

/** Entries and masks of upcalls 1 to 4. */
const HANDLERS = [
  [Entry.begin, BEGIN_MASK],
  [Entry.end, END_MASK],
  [Entry.revoke, REVOKE_MASK],
  [Entry.repossessed, LOSS_MASK],
] as const;

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
    const seen = v.raw.env(v.row, Env.events) + (waits ? 0 : 1);
    return [seen, p(pick, 1) % 2 === 0 ? -1 : 5_000, SCRATCH, p(pick, 2) % 4 === 0 ? 1 : 0];
  },
  notify: (v, pick) => [v.raw.id(one([v.row, ...v.children(2, 3)], p(pick, 0))), 0],
  envCreate: (v, pick) => {
    const name = under(v.tenant, 1 + (p(pick, 0) % 2));
    return [
      one(v.envs(EnvState.free), p(pick, 1)),
      one(v.idle(), p(pick, 2)),
      0,
      name.a,
      name.b,
      -1,
      p(pick, 3) % 3 === 0 ? one(v.accounts(), p(pick, 4)) : -1,
    ];
  },
  envStart: (v, pick) => [v.raw.id(one(v.children(EnvState.made), p(pick, 0))), 0, 0, 1, 2, 0],
  envDestroy: (v, pick) => [v.raw.id(one(v.children(1, 2, 3, 4, 5), p(pick, 0))), 0, p(pick, 1)],
  envReap: (v, pick) => [v.raw.id(one(v.children(EnvState.zombie), p(pick, 0))), 0],
  upcallSet: (_, pick) => {
    const [kind, off] = [p(pick, 0) % 4, p(pick, 1) % 4 === 0];
    const [entry, mask] = HANDLERS[kind] ?? HANDLERS[0];
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
    return [page, 0, p(pick, 2) % 5 === 0 ? 0 : one(entries, p(pick, 1))];
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
    const leaf = one(v.tables(PageKind.leaf), p(pick, 0));
    return [leaf, WINDOW + (p(pick, 1) % PLACES), 1 + (p(pick, 3) % PLACES), flags, 0];
  },
  capForge: (v, pick) => {
    const { a, b } = under(v.tenant, p(pick, 0));
    const env = one([v.row, ...v.children(1, 2, 3, 4, 5)], p(pick, 1));
    return [v.raw.id(env), one(v.slots(false), p(pick, 2)), 0, a, b, 1 + (p(pick, 3) % ALL_RIGHTS)];
  },
  capDrop: (v, pick) => {
    const env = one([v.row, ...v.children(1, 2, 3, 4, 5)], p(pick, 0));
    return [v.raw.id(env), one(v.slots(true, env), p(pick, 1)), 0];
  },
  capOffer: (v, pick) => {
    const { a, b } = under(v.tenant, p(pick, 0));
    const to = one([v.row, ...v.children(1, 2, 3, 4, 5)], p(pick, 1));
    return [v.raw.id(to), 0, a, b, 1 + (p(pick, 2) % ALL_RIGHTS)];
  },
  capAcquire: (v, pick) => {
    const { raw, row } = v;
    const granters = v.envs(1, 2, 3, 4, 5);
    const to = granters.filter((from) => raw.secret(from, Private.offerTo) === raw.id(row));
    return [raw.id(one(to, p(pick, 0))), one(v.slots(false), p(pick, 1))];
  },
  sliceAllocate: (v, pick) => {
    const all = Array.from({ length: v.raw.info(Info.slices) }, (_, n) => n);
    const free = all.filter((n) => v.raw.info(Info.sliceVector + n) === 0);
    const position = one(free.length > 0 ? free : all, p(pick, 0));
    return [position, v.raw.id(one([v.row, ...v.children(1, 2)], p(pick, 1))), 0];
  },
  sliceFree: (_, pick) => [2 + (p(pick, 0) % 2), 0],
  ipcWindow: (v, pick) => {
    const mine = v.tables(PageKind.leaf).filter((page) => v.raw.envOf(page) === v.row);
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
  ipcSend: (v, pick) => {
    const to = v.raw.id(one(v.envs(EnvState.receiving), p(pick, 0)));
    return [to, 1, 2, 3, 4, ...(p(pick, 1) % 2 === 0 ? [-1, 0, 0] : granted(v, pick))];
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
    const { a, b } = under(v.tenant, p(pick, 0));
    const count = 1 + (p(pick, 1) % 3);
    return [one(v.ownExtents(), p(pick, 2)), 0, one(v.extents(0), p(pick, 3)), count, a, b];
  },
  extentJoin: (v, pick) => {
    const own = v.ownExtents();
    const end = (row: number): number =>
      v.raw.extent(row, Extent.first) + v.raw.extent(row, Extent.count);
    const pairs = own.flatMap((row) =>
      own.filter((next) => v.raw.extent(next, Extent.first) === end(row)).map((n) => [row, n]),
    );
    const [extent, next] = pairs[p(pick, 0) % pairs.length] ?? [NaN, NaN];
    return [extent ?? NaN, 0, next ?? NaN];
  },
  saveBlock: (v, pick) => [p(pick, 0) % 2, one(v.ownExtents(), p(pick, 1)), 0, p(pick, 2) % 2],
  pageMapList: (v, pick) => {
    const leaf = one(v.tables(PageKind.leaf), p(pick, 0));
    const index = WINDOW + (p(pick, 1) % PLACES);
    const flags = p(pick, 2) % 3 === 0 ? MAP_READ : MAP_READ | MAP_WRITE;
    return [leaf, index, 1 + (p(pick, 3) % 2), SCRATCH, 0, flags, 0];
  },
  pageCopy: (v, pick) => {
    const usable = v.usable();
    const [to, from] = [one(usable, p(pick, 0)), one(usable, p(pick, 1))];
    const side = (n: number): number[] => [Math.floor(n / ACCESS_ENTRIES), 0, n % ACCESS_ENTRIES];
    return [...side(to), ...side(from)];
  },
  pageLimit: (v, pick) => {
    const limit = (n: number): number => [-1, -1, 0, 1, 2, 3][p(pick, n) % 6] ?? -1;
    return [one(v.own(), p(pick, 0)), 0, limit(1), limit(2)];
  },
  pageKeep: (v, pick) => [one(v.charged(v.own()), p(pick, 0)), 0, p(pick, 1) % 2],
  pageSweep: (v, pick) => [one(v.pages(PageKind.quarantined), p(pick, 0))],
  envSuspend: (v, pick) => {
    const children = v.children(1, 2, 3, 4, 5);
    const suspended = children.filter((row) => v.raw.env(row, Env.suspended) !== 0);
    const resume = suspended.length > 0 && p(pick, 0) % 3 > 0;
    return [v.raw.id(one(resume ? suspended : children, p(pick, 1))), 0, resume ? 0 : 1];
  },
  accountCreate: (v, pick) => {
    const free = Array.from({ length: ACCOUNTS - 1 }, (_, n) => n + 1).filter(
      (n) => v.raw.account(n, Account.valid) === 0,
    );
    const parent = one(v.accounts(), p(pick, 0));
    const long = v.raw.account(parent, Account.parent) !== 0;
    const n = p(pick, 1);
    const { a, b } = long ? deeper(v.tenant, n) : packName([v.tenant, 17 + (n % 2)]);
    return [free[0] ?? NaN, parent, 0, a, b, n % 3];
  },
  accountMove: (v, pick) => {
    const accounts = v.accounts();
    const [from, to] = [one(accounts, p(pick, 0)), one(accounts, p(pick, 1))];
    return [from, to, 0, p(pick, 2) % RESOURCES, 1 + (p(pick, 3) % 4)];
  },
  accountClose: (v, pick) => [one(v.wards(), p(pick, 0)), 0],
  revoke: (v, pick) => {
    const account = one(v.wards(), p(pick, 0));
    const taker = one(v.accounts(), p(pick, 1));
    const most = v.raw.used(account, Resource.pages);
    const count = p(pick, 2) % (Math.min(most, 3) + 1);
    return [account, 0, taker, 0, v.raw.pages, count, DEADLINE_MIN];
  },
  repossess: (v, pick) => {
    const wards = v.wards();
    const asked = wards.filter((n) => v.raw.account(n, Account.wanted) > 0);
    const account = one(asked.length > 0 ? asked : wards, p(pick, 0));
    const pages = v.pages(PageKind.user).filter((page) => v.raw.accountOf(page) === account);
    return [account, 0, one(pages, p(pick, 1))];
  },
  batch: (_, pick) => [SCRATCH + 256, 1 + (p(pick, 0) % 4)],
  diskRequest: (v, pick) => {
    const extent = one(v.ownExtents(), p(pick, 0));
    if (p(pick, 1) % 8 === 0) return [extent, 0, 0, 0, SCRATCH, 0, DISK_FLUSH];
    return [extent, 0, p(pick, 2) % 3, 1 + (p(pick, 3) % 2), SCRATCH, 0, p(pick, 1) % 3];
  },
  consoleWrite: (_, pick) => [SCRATCH + (p(pick, 0) % 64), p(pick, 1) % 64],
  consoleRead: () => [],
};

function granted(v: View, pick: readonly number[]): number[] {
  const page = one(v.own(), p(pick, 3));
  const entries = [1, 2, 3].filter((n) => v.raw.access(page, n).rights === 0);
  const rights = p(pick, 2) % 2 === 0 ? READ : READ | WRITE;
  return [page, 0, rights | (one(entries, p(pick, 4)) << 8)];
}

/** Words that the call finds at SCRATCH: of a scatter list, or of a term of a predicate. */
export function listFor(raw: Raw, row: number, { call, picks }: Step): number[] {
  const usable = new View(raw, row).usable();
  const words = [p(picks, 4), p(picks, 5)].map((n) => {
    const pair = one(usable, n);
    return Math.floor(pair / ACCESS_ENTRIES) | ((pair % ACCESS_ENTRIES) << 28);
  });
  if (call !== 'sleep') return words;
  return [words[0] ?? 0, Operator.notEqual << 16, p(picks, 3) % 2, 7];
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
    const own = HANDLERS[(args[0] ?? 0) - 1]?.[0] ?? Entry.end;
    if (isEntry(args[1])) args[1] = own;
    if (args[0] === Upcall.fault) args[0] = -1;
  }
  return args;
}
