/**
 * Shadow tables: what hardware walks in one stage, composed of a guest's own tables and of the
 * second stage (pages.ts). They are a cache: an entry may be missing, but none may allow what
 * guest and host together do not, as of the guest's last fence.
 *
 * A bounded pool of pages for each virtual machine, and beside each of them a ledger page with two
 * words for every entry, so that entries hang on lists: a leaf on that of the guest page it maps
 * (the reverse map), a pointer on that of the shadow that it points to. Any entry, page or shadow
 * is therefore taken back by name, without a search. All of it is words of machine memory.
 *
 * The guest's supervisor runs in user mode too, so every address space has two roots: the kernel's
 * maps the supervisor's half and the user's, the user's root maps the user's half only. What lies
 * below is shared: supervisor pages in the upper half, user pages in the lower.
 *
 * A page that is shadowed as a table is mapped read-only everywhere, so that a store to it exits;
 * but a last-level table may go out of sync: it is written freely, and compared again at a fence.
 */
import { assert } from '../../machine/assert.ts';
import {
  DIRECT_VPN,
  ENTRIES,
  isLeaf,
  pte,
  PTE_A,
  PTE_D,
  PTE_R,
  PTE_U,
  PTE_V,
  PTE_W,
  PTE_X,
  ptePpn,
  vpnIndex,
} from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { type Machine, Table } from '../supervisor.ts';
import { EntryLists } from './entry-lists.ts';
import { back, Backing } from './pages.ts';
import { BARE } from './paging.ts';
import { giveRuns, type Run, takeRuns } from './runs.ts';
import { COPY, find } from './second-stage.ts';
import { type State, Vm } from './state.ts';

/** Words of a shadow: what it is derived from, and the lists that it is on. */
const Shadow = {
  kind: 0,
  level: 1,
  page: 2, // guest page: of the table it shadows, or the first that a part of a superpage maps
  base: 3, // first virtual page that it covers
  next: 4, // shadow + 1, of the same guest page; of a free one: the next free
  parents: 5, // entry + 1 that points here: head of a list
  stores: 6, // to the guest's table since it was last walked
  loose: 7, // 1: out of sync
  before: 8, // shadow + 1, in the list of those out of sync
  after: 9,
  writable: 10, // of a superpage's part: whether the superpage is
  space: 11, // space + 1 that walks it; MANY if several do
  words: 12,
} as const;
const Kind = { free: 0, table: 1, part: 2 } as const; // part: of a superpage
const MANY = -1;

/** Words of a guest page. */
const Guest = {
  tables: 0, // shadow + 1: those that shadow it as a table
  parts: 1, // shadow + 1: parts of superpages that begin at it
  leaves: 2, // entry + 1: shadow leaves that map it
  host: 3, // host page << 2 | writable << 1 | 1, as the second stage last said; 0 not known
  words: 4,
} as const;

/** Words of a cached address space. */
const Space = {
  root: 0, // the guest's root page + 2: 1 is Bare, 0 none
  asid: 1, // the guest's
  kernel: 2, // shadow of the root, as the supervisor sees it
  user: 3, // and as its programs do
  words: 4,
} as const;
const SPACES = 64; // a space's place is its ASID modulo this

const Control = { space: 0, free: 1, hand: 2, loose: 3, logging: 4, words: 8 } as const;

const FLOOD = 3; // stores to a table that nobody walks meanwhile: it has become something else
export const POOL_MIN = 16;
export const POOL_MAX = 512;

/** Does a store that is undone with the guest's handler, if that is. */
export type Noting = (act: () => void) => void;

/**
 * What came of a fault: hidden and mended; the guest's own; a store to a table that is shadowed and
 * in sync; a guest page that there is none of; or one that will be there later.
 */
export type Filled = 'filled' | 'fault' | 'table' | 'beyond' | 'wait';

/** What the shadows of one guest live on. */
export interface ShadowPages extends Readonly<Record<keyof ReturnType<typeof runsOf>, Run>> {
  readonly pool: number;
}

/** Pages of each of a guest's runs. */
const runsOf = (pool: number, pages: number) => {
  const table = (words: number): number => Math.max(1, Math.ceil((words * 4) / PAGE_BYTES));
  return {
    tables: pool,
    ledgers: pool,
    shadow: table(pool * Shadow.words),
    guest: table(pages * Guest.words),
    space: table(SPACES * Space.words),
    control: table(Control.words),
    dirty: table(Math.ceil(pages / 32)),
  };
};

/** Host pages that `pool` shadows, and the books of a guest of `pages` pages, take. */
export const shadowCost = (pool: number, pages: number): number =>
  Object.values(runsOf(pool, pages)).reduce((sum, count) => sum + count, 0);

/** Takes them, zeroed and charged to the guest; null if there is no room. */
export function takeShadow(state: State, vm: number, pool: number): ShadowPages | null {
  const taken = takeRuns(state, vm, runsOf(pool, state.vm.get(vm, Vm.pages)));
  return taken === null ? null : { pool, ...taken };
}

interface Found {
  readonly level: number;
  /** guest page that the address is on */
  readonly page: number;
  readonly leaf: number; // the guest's entry, A and D marked
  readonly tables: readonly number[]; // guest page of the table at each level
}

export class ShadowTables {
  readonly #state: State;
  readonly #machine: Machine;
  readonly #vm: number;
  readonly #pages: number; // of the guest
  readonly #shadow: Table;
  readonly #guest: Table;
  readonly #space: Table;
  readonly #control: Table;
  readonly #dirty: Table; // a bit for each guest page
  readonly #pool: number; // first host page of the pool
  readonly #leaves: EntryLists; // that map a guest page
  readonly #parents: EntryLists; // pointers to a shadow
  readonly #firstAsid: number;
  readonly #taken: ShadowPages;
  #waits = false; // of the walk at hand: a page comes later

  /** @param firstAsid of the host: two for each cached space are used from here on */
  constructor(state: State, vm: number, pages: ShadowPages, firstAsid: number) {
    assert(firstAsid + ShadowTables.asids <= 2 ** 16, 'shadow: there are ASIDs for the guest');
    this.#state = state;
    const { machine } = state;
    this.#machine = machine;
    this.#vm = vm;
    this.#pages = state.vm.get(vm, Vm.pages);
    this.#taken = pages;
    const { pool } = pages;
    this.#shadow = new Table(machine, pages.shadow.first, pool, Shadow.words);
    this.#guest = new Table(machine, pages.guest.first, this.#pages, Guest.words);
    this.#space = new Table(machine, pages.space.first, SPACES, Space.words);
    this.#control = new Table(machine, pages.control.first, 1, Control.words);
    this.#dirty = new Table(machine, pages.dirty.first, Math.ceil(this.#pages / 32), 1);
    this.#pool = pages.tables.first;
    this.#leaves = new EntryLists(machine, pages.ledgers.first, this.#guest, Guest.leaves);
    this.#parents = new EntryLists(machine, pages.ledgers.first, this.#shadow, Shadow.parents);
    this.#firstAsid = firstAsid;
    for (let row = 0; row < pool; row++) this.#shadow.put(row, Shadow.next, row + 2);
    this.#shadow.put(pool - 1, Shadow.next, 0);
    this.#control.put(0, Control.free, 1);
  }

  /** The guest is gone: so are its shadows. */
  end(): void {
    const { tables, ledgers, shadow, guest, space, control, dirty } = this.#taken;
    giveRuns(this.#state, this.#vm, [tables, ledgers, shadow, guest, space, control, dirty]);
    this.#machine.fence();
  }

  /** Whether a table is out of sync. */
  get loose(): boolean {
    return this.#control.get(0, Control.loose) !== 0;
  }

  /** Everything derived from the guest's tables is forgotten: they are not what they were. */
  forget(): void {
    for (let at = 0; at < SPACES; at++) {
      if (this.#space.get(at, Space.root) !== 0) this.#forgetSpace(at);
    }
    for (let row = 0; row < this.#shadow.rows; row++) {
      if (this.#shadow.get(row, Shadow.kind) !== Kind.free) this.#release(row);
    }
    this.#control.put(0, Control.space, 0);
  }

  static readonly asids = 2 * SPACES;

  // ---- address spaces ---------------------------------------------------------------------------

  /** The guest's satp from now on: a cached space, or a new one in its place. */
  use(root: number, asid: number): void {
    const at = asid % SPACES;
    const is = this.#space.get(at, Space.root);
    if (is === root + 2 && this.#space.get(at, Space.asid) === asid) {
      this.#control.put(0, Control.space, at + 1);
      return;
    }
    this.#control.put(0, Control.space, at + 1); // its roots are not victims
    if (is !== 0) this.#forgetSpace(at);
    this.#space.put(at, Space.root, root + 2);
    this.#space.put(at, Space.asid, asid);
    this.#space.put(at, Space.kernel, 0);
    this.#space.put(at, Space.user, 0);
    const kind = root === BARE ? Kind.part : Kind.table;
    const page = root === BARE ? 0 : root;
    if (page >= this.#pages) return; // a walk will say so
    const kernel = this.#allocate(kind, 2, page, 0, 0, at + 1, []);
    this.#space.put(at, Space.kernel, kernel + 1);
    const user = this.#allocate(kind, 2, page, 0, 0, at + 1, [kernel]);
    this.#space.put(at, Space.user, user + 1);
  }

  /** Root page and ASID, in the host's machine, of the current space; null if it has none. */
  root(kernel: boolean): { readonly root: number; readonly asid: number } | null {
    const at = this.#control.get(0, Control.space) - 1;
    const row = this.#space.get(at, kernel ? Space.kernel : Space.user) - 1;
    if (row < 0) return null;
    return { root: this.#pool + row, asid: this.#asid(at, kernel) };
  }

  #asid(space: number, kernel: boolean): number {
    return this.#firstAsid + 2 * space + (kernel ? 0 : 1);
  }

  #forgetSpace(at: number): void {
    for (const column of [Space.kernel, Space.user]) {
      const row = this.#space.get(at, column) - 1;
      this.#space.put(at, column, 0);
      if (row >= 0) this.#release(row);
    }
    this.#space.put(at, Space.root, 0);
    this.#machine.fence(this.#asid(at, true));
    this.#machine.fence(this.#asid(at, false));
  }

  // ---- filling ----------------------------------------------------------------------------------

  /**
   * A fault at `vpn`: hidden if the guest's own tables allow the access, and then it is there now.
   * @param view whether the kernel's root was in use: then a supervisor reached user memory, too
   */
  fill(vpn: number, write: boolean, view: boolean): { is: Filled; page: number } {
    const kernel = vpn >= DIRECT_VPN;
    this.#waits = false;
    const at = this.#control.get(0, Control.space) - 1;
    const root = this.#space.get(at, Space.root) - 2;
    const found = root === BARE ? this.#bare(vpn, kernel) : this.#walk(root, vpn, write, kernel);
    if (found === 'beyond') return { is: this.#waits ? 'wait' : found, page: 0 };
    if (found === 'fault') return { is: found, page: 0 };
    const { page, leaf } = found;
    const host = this.#host(page, write);
    if (host === 0) return { is: this.#waits ? 'wait' : 'beyond', page };
    const may = (leaf & PTE_W) !== 0 && (leaf & PTE_D) !== 0;
    if (write && !this.#loosen(page)) return { is: 'table', page };
    const row = this.#path(at, vpn, view, found);
    const index = vpnIndex(vpn, 0);
    if (this.#entry(row, index) !== 0) this.#drop(row, index);
    let flags = PTE_V | PTE_R | PTE_U | PTE_A | (leaf & PTE_X);
    if (write) this.wrote(page);
    if (may && (host & 2) !== 0 && !this.#guarded(page) && this.#mayWrite(page)) {
      flags |= PTE_W | PTE_D;
    }
    this.#putLeaf(row, index, page, pte(host >>> 2, flags));
    return { is: 'filled', page };
  }

  /** Translation off: guest-physical addresses, for the supervisor by its direct map as ever. */
  #bare(vpn: number, kernel: boolean): Found | 'beyond' {
    const page = kernel ? vpn - DIRECT_VPN : vpn;
    if (page >= this.#pages) return 'beyond';
    const leaf = PTE_V | PTE_R | PTE_W | PTE_X | PTE_U | PTE_A | PTE_D;
    return { level: 2, page, leaf, tables: [0, 0, 0] };
  }

  /** The guest's own tables, as hardware would walk them: A and D are set, faults are its own. */
  #walk(root: number, vpn: number, write: boolean, kernel: boolean): Found | 'fault' | 'beyond' {
    const tables = [0, 0, root];
    let table = root;
    for (let level = 2; level >= 0; level--) {
      const host = table < this.#pages ? this.#host(table, false) : 0;
      if (host === 0) return 'beyond';
      const at = (host >>> 2) * PAGE_BYTES + vpnIndex(vpn, level) * 8;
      const entry = this.#machine.load(at) >>> 0;
      const valid = (entry & PTE_V) !== 0 && this.#machine.load(at + 4) === 0;
      if (!valid || (entry & (PTE_R | PTE_W)) === PTE_W) return 'fault';
      if (!isLeaf(entry)) {
        if (level === 0 || (entry & (PTE_A | PTE_D | PTE_U)) !== 0) return 'fault';
        table = ptePpn(entry);
        tables[level - 1] = table;
        continue;
      }
      const span = 1 << (9 * level);
      if (ptePpn(entry) % span !== 0 || kernel === ((entry & PTE_U) !== 0)) return 'fault';
      if ((entry & (write ? PTE_W : PTE_R)) === 0) return 'fault';
      const page = ptePpn(entry) + (vpn % span);
      if (page >= this.#pages) return 'beyond';
      const leaf = (entry | PTE_A | (write ? PTE_D : 0)) >>> 0;
      if (leaf !== entry) {
        this.#machine.store(at, leaf);
        this.wrote(table);
      }
      return { level, page, leaf, tables };
    }
    return 'fault';
  }

  /** The shadow of the last level that covers `vpn`, made as far as it is missing. */
  #path(at: number, vpn: number, view: boolean, found: Found): number {
    let row = this.#space.get(at, view ? Space.kernel : Space.user) - 1;
    const path = [row];
    for (let level = 2; level > 0; level--) {
      const index = vpnIndex(vpn, level);
      const below = level - 1;
      const base = vpn - (vpn % (1 << (9 * level)));
      const kind = level > found.level ? Kind.table : Kind.part;
      const inside = vpn % (1 << (9 * level)); // of a superpage, where this part begins
      const page = kind === Kind.table ? (found.tables[below] ?? 0) : found.page - inside;
      const dirty = (found.leaf & (PTE_W | PTE_D)) === (PTE_W | PTE_D);
      const writable = kind === Kind.part && dirty ? 1 : 0;
      const entry = this.#entry(row, index);
      let child = entry === 0 ? -1 : ptePpn(entry) - this.#pool;
      if (child >= 0 && !this.#is(child, kind, below, page, base, writable)) {
        this.#drop(row, index);
        child = -1;
      }
      if (child < 0) {
        child = this.#find(kind, below, page, base, writable);
        if (child < 0) child = this.#allocate(kind, below, page, base, writable, at + 1, path);
        else if (this.#shadow.get(child, Shadow.space) !== at + 1) {
          this.#shadow.put(child, Shadow.space, MANY);
        }
        this.#putPointer(row, index, child);
      }
      if (kind === Kind.table) this.#shadow.put(child, Shadow.stores, 0);
      path.push(child);
      row = child;
    }
    return row;
  }

  #is(
    row: number,
    kind: number,
    level: number,
    page: number,
    base: number,
    writable: number,
  ): boolean {
    const get = (column: number): number => this.#shadow.get(row, column);
    return (
      get(Shadow.kind) === kind &&
      get(Shadow.level) === level &&
      get(Shadow.page) === page &&
      get(Shadow.base) === base &&
      get(Shadow.writable) === writable
    );
  }

  #find(kind: number, level: number, page: number, base: number, writable: number): number {
    const column = kind === Kind.table ? Guest.tables : Guest.parts;
    let row = this.#guest.get(page, column) - 1;
    while (row >= 0 && !this.#is(row, kind, level, page, base, writable)) {
      row = this.#shadow.get(row, Shadow.next) - 1;
    }
    return row;
  }

  /** An empty shadow. A table's page is read-only from now on. Never one of `keep` as victim. */
  #allocate(
    kind: number,
    level: number,
    page: number,
    base: number,
    writable: number,
    space: number,
    keep: readonly number[],
  ): number {
    if (this.#control.get(0, Control.free) === 0) this.#evict(keep);
    const row = this.#control.get(0, Control.free) - 1;
    const { machine } = this.#state;
    this.#control.put(0, Control.free, this.#shadow.get(row, Shadow.next));
    machine.zeroPage(this.#pool + row);
    const column = kind === Kind.table ? Guest.tables : Guest.parts;
    if (kind === Kind.table) this.#guard(page);
    const fields: [number, number][] = [
      [Shadow.kind, kind],
      [Shadow.level, level],
      [Shadow.page, page],
      [Shadow.base, base],
      [Shadow.next, this.#guest.get(page, column)],
      [Shadow.parents, 0],
      [Shadow.stores, 0],
      [Shadow.loose, 0],
      [Shadow.writable, writable],
      [Shadow.space, space],
    ];
    for (const [field, value] of fields) this.#shadow.put(row, field, value);
    this.#guest.put(page, column, row + 1);
    return row;
  }

  /** The next in turn that is not needed now goes: its entries, and those that lead to it. */
  #evict(keep: readonly number[]): void {
    const at = this.#control.get(0, Control.space) - 1;
    const roots = [Space.kernel, Space.user].map((column) => this.#space.get(at, column) - 1);
    for (;;) {
      const row = this.#control.get(0, Control.hand);
      this.#control.put(0, Control.hand, (row + 1) % this.#shadow.rows);
      if (keep.includes(row) || roots.includes(row)) continue;
      if (this.#shadow.get(row, Shadow.kind) === Kind.free) continue;
      if (this.#shadow.get(row, Shadow.level) === 2) {
        const space = this.#shadow.get(row, Shadow.space) - 1;
        this.#forgetSpace(space);
      } else this.#release(row);
      return;
    }
  }

  #release(row: number): void {
    this.#empty(row);
    for (;;) {
      const parent = this.#parents.first(row);
      if (parent < 0) break;
      this.#drop(Math.floor(parent / ENTRIES), parent % ENTRIES);
    }
    this.#tighten(row);
    const page = this.#shadow.get(row, Shadow.page);
    const table = this.#shadow.get(row, Shadow.kind) === Kind.table;
    const column = table ? Guest.tables : Guest.parts;
    const next = this.#shadow.get(row, Shadow.next);
    let before = this.#guest.get(page, column) - 1;
    if (before === row) this.#guest.put(page, column, next);
    else {
      while (this.#shadow.get(before, Shadow.next) - 1 !== row) {
        before = this.#shadow.get(before, Shadow.next) - 1;
      }
      this.#shadow.put(before, Shadow.next, next);
    }
    this.#shadow.put(row, Shadow.kind, Kind.free);
    this.#shadow.put(row, Shadow.next, this.#control.get(0, Control.free));
    this.#control.put(0, Control.free, row + 1);
    // The walker may remember the page as a table: it must not when the page is another.
    this.#machine.fence();
  }

  #empty(row: number): void {
    const entries = this.#machine.readPtes(this.#pool + row, 0, ENTRIES);
    for (const [index, entry] of entries.entries()) if (entry !== 0) this.#drop(row, index);
  }

  // ---- entries and their lists ------------------------------------------------------------------

  #entry(row: number, index: number): number {
    return this.#machine.readPtes(this.#pool + row, index, 1)[0] ?? 0;
  }

  #putLeaf(row: number, index: number, page: number, entry: number): void {
    this.#leaves.put(row * ENTRIES + index, page);
    this.#machine.writePtes([{ table: this.#pool + row, index, value: entry }]);
  }

  #putPointer(row: number, index: number, child: number): void {
    this.#parents.put(row * ENTRIES + index, child);
    const value = pte(this.#pool + child, PTE_V);
    this.#machine.writePtes([{ table: this.#pool + row, index, value }]);
  }

  #drop(row: number, index: number): void {
    const lists = this.#shadow.get(row, Shadow.level) === 0 ? this.#leaves : this.#parents;
    lists.remove(row * ENTRIES + index);
    this.#machine.writePtes([{ table: this.#pool + row, index, value: 0 }]);
  }

  // ---- guarding the guest's tables --------------------------------------------------------------

  /** Whether stores to `page` must exit. */
  #guarded(page: number): boolean {
    let row = this.#guest.get(page, Guest.tables) - 1;
    for (; row >= 0; row = this.#shadow.get(row, Shadow.next) - 1) {
      if (this.#shadow.get(row, Shadow.loose) === 0) return true;
    }
    return false;
  }

  /** The page is a table from now on: its shadows are compared, its mappings read-only. */
  #guard(page: number): void {
    let row = this.#guest.get(page, Guest.tables) - 1;
    for (; row >= 0; row = this.#shadow.get(row, Shadow.next) - 1) {
      if (this.#shadow.get(row, Shadow.loose) === 0) continue;
      this.#compare(row, 0, ENTRIES);
      this.#tighten(row);
    }
    this.#narrow(page);
  }

  /** Takes W from every mapping of `page`. */
  #narrow(page: number): void {
    const narrowed: number[] = [];
    this.#leaves.each(page, (row, index) => {
      const entry = this.#entry(row, index);
      if ((entry & PTE_W) === 0) return;
      const value = (entry & ~(PTE_W | PTE_D)) >>> 0;
      this.#machine.writePtes([{ table: this.#pool + row, index, value }]);
      narrowed.push(this.#shadow.get(row, Shadow.base) + index);
    });
    if (narrowed.length > 4) this.#machine.fence();
    else for (const vpn of narrowed) this.#machine.fence(undefined, vpn);
  }

  /** Lets `page` be written, if all its shadows are of the last level: they go out of sync. */
  #loosen(page: number): boolean {
    const rows: number[] = [];
    let row = this.#guest.get(page, Guest.tables) - 1;
    for (; row >= 0; row = this.#shadow.get(row, Shadow.next) - 1) {
      if (this.#shadow.get(row, Shadow.level) !== 0) return false;
      if (this.#shadow.get(row, Shadow.loose) === 0) rows.push(row);
    }
    for (const one of rows) {
      const head = this.#control.get(0, Control.loose);
      this.#shadow.put(one, Shadow.loose, 1);
      this.#shadow.put(one, Shadow.before, 0);
      this.#shadow.put(one, Shadow.after, head);
      if (head !== 0) this.#shadow.put(head - 1, Shadow.before, one + 1);
      this.#control.put(0, Control.loose, one + 1);
    }
    return true;
  }

  /** Takes a shadow off the list of those out of sync. */
  #tighten(row: number): void {
    if (this.#shadow.get(row, Shadow.loose) === 0) return;
    const before = this.#shadow.get(row, Shadow.before);
    const after = this.#shadow.get(row, Shadow.after);
    if (before === 0) this.#control.put(0, Control.loose, after);
    else this.#shadow.put(before - 1, Shadow.after, after);
    if (after !== 0) this.#shadow.put(after - 1, Shadow.before, before);
    this.#shadow.put(row, Shadow.loose, 0);
  }

  /** Drops those of `count` entries that the guest's table no longer says. */
  #compare(row: number, first: number, count: number): void {
    const entries = this.#machine.readPtes(this.#pool + row, first, count);
    const table = this.#known(this.#shadow.get(row, Shadow.page));
    const kernel = this.#shadow.get(row, Shadow.base) >= DIRECT_VPN;
    for (let n = 0; n < count; n++) {
      const entry = entries[n] ?? 0;
      if (entry === 0) continue;
      const at = (table >>> 2) * PAGE_BYTES + (first + n) * 8;
      const says = table === 0 ? 0 : this.#machine.load(at) >>> 0;
      const upper = table === 0 ? 0 : this.#machine.load(at + 4);
      if (upper !== 0 || !this.#allows(says, entry, kernel)) this.#drop(row, first + n);
    }
  }

  /** Whether the guest's last-level entry still says all that the shadow's does. */
  #allows(says: number, entry: number, kernel: boolean): boolean {
    const need = PTE_V | PTE_R | PTE_A | (entry & (PTE_X | PTE_W | PTE_D));
    if ((says & need) !== need || kernel === ((says & PTE_U) !== 0)) return false;
    const page = ptePpn(says);
    return page < this.#pages && this.#known(page) >>> 2 === ptePpn(entry);
  }

  // ---- what the guest does to its tables --------------------------------------------------------

  /**
   * A store to a guarded page, done for the guest: what was derived from the entry goes.
   * @param upper the entry's other word, if it is stored as a whole
   */
  store(gpa: number, value: number, upper: number | null, noting: Noting): boolean {
    const page = gpa >>> 12;
    const host = this.#host(page, true);
    if (host === 0) return false;
    const to = (host >>> 2) * PAGE_BYTES + (gpa % PAGE_BYTES);
    noting(() => {
      this.#machine.store(to, value);
      if (upper !== null) this.#machine.store(to + 4, upper);
    });
    this.wrote(page);
    let flood = false;
    let row = this.#guest.get(page, Guest.tables) - 1;
    for (; row >= 0; row = this.#shadow.get(row, Shadow.next) - 1) {
      const index = (gpa % PAGE_BYTES) >>> 3;
      if (this.#entry(row, index) !== 0) this.#drop(row, index);
      if (this.#shadow.add(row, Shadow.stores, 1) >= FLOOD) flood = true;
    }
    if (flood) this.unshadow(page);
    return true;
  }

  /** Host page behind a guest page, which the hypervisor may write for the guest; -1 if none. */
  behind(page: number, write: boolean): number {
    const host = page < this.#pages ? this.#host(page, write) : 0;
    if (write) this.wrote(page);
    return host === 0 ? -1 : host >>> 2;
  }

  /**
   * The page is no table any more: its shadows go. Roots in use stay, emptied: false if there are.
   */
  unshadow(page: number): boolean {
    let next = this.#guest.get(page, Guest.tables) - 1;
    const current = this.#control.get(0, Control.space) - 1;
    let spaces = 0;
    while (next >= 0) {
      const row = next;
      next = this.#shadow.get(row, Shadow.next) - 1;
      if (this.#shadow.get(row, Shadow.level) !== 2) this.#release(row);
      else if (this.#shadow.get(row, Shadow.space) - 1 === current) {
        this.#empty(row);
        this.#shadow.put(row, Shadow.stores, 0);
      } else spaces++;
    }
    // Both roots of a space go together, which changes the list under our feet: one at a time.
    for (; spaces > 0; spaces -= 2) {
      let row = this.#guest.get(page, Guest.tables) - 1;
      while (this.#shadow.get(row, Shadow.space) - 1 === current) {
        row = this.#shadow.get(row, Shadow.next) - 1;
      }
      this.#forgetSpace(this.#shadow.get(row, Shadow.space) - 1);
    }
    this.#machine.fence();
    return this.#guest.get(page, Guest.tables) === 0;
  }

  /** sfence.vma of the guest. Shadows out of sync are compared; hardware is told. */
  fence(asid: number | null, vpn: number | null): void {
    if (vpn !== null) {
      for (const at of this.#named(asid)) this.#fencePage(at, vpn);
      return;
    }
    const space = asid === null ? 0 : (asid % SPACES) + 1;
    let row = this.#control.get(0, Control.loose) - 1;
    while (row >= 0) {
      const one = row;
      row = this.#shadow.get(one, Shadow.after) - 1;
      const of = this.#shadow.get(one, Shadow.space);
      if (space !== 0 && of !== space && of !== MANY) continue;
      if (this.#shadow.get(one, Shadow.parents) === 0) {
        this.#release(one); // nothing leads here any more
        continue;
      }
      this.#compare(one, 0, ENTRIES);
      this.#tighten(one);
      if (this.#guarded(this.#shadow.get(one, Shadow.page))) {
        this.#narrow(this.#shadow.get(one, Shadow.page));
      }
    }
    if (asid === null) this.#machine.fence();
    else {
      for (const at of this.#named(asid)) {
        this.#machine.fence(this.#asid(at, true));
        this.#machine.fence(this.#asid(at, false));
      }
    }
  }

  #named(asid: number | null): number[] {
    if (asid !== null) {
      const at = asid % SPACES;
      const is = this.#space.get(at, Space.root) !== 0 && this.#space.get(at, Space.asid) === asid;
      return is ? [at] : [];
    }
    return Array.from({ length: SPACES }, (_, at) => at).filter(
      (at) => this.#space.get(at, Space.root) !== 0,
    );
  }

  #fencePage(at: number, vpn: number): void {
    // Whoever shares a last-level shadow walks the same one: the kernel's root leads to all.
    for (const kernel of [true, false]) {
      let row = this.#space.get(at, kernel ? Space.kernel : Space.user) - 1;
      for (let level = 2; level > 0 && row >= 0; level--) {
        const entry = this.#entry(row, vpnIndex(vpn, level));
        row = entry === 0 ? -1 : ptePpn(entry) - this.#pool;
      }
      if (row >= 0 && this.#shadow.get(row, Shadow.loose) !== 0) {
        this.#compare(row, vpnIndex(vpn, 0), 1);
      }
      this.#machine.fence(this.#asid(at, kernel), vpn);
    }
  }

  // ---- the second stage -------------------------------------------------------------------------

  /** What the second stage says of a guest page, backed if need be; 0 if it cannot be had now. */
  #host(page: number, write: boolean): number {
    const known = this.#known(page);
    if (known !== 0 && (!write || (known & 2) !== 0)) return known;
    const backing = back(this.#state, this.#vm, page);
    this.#waits = backing === Backing.wait;
    return backing === Backing.done ? this.#known(page) : 0;
  }

  /** The same of a page that is there; 0 if it is not. */
  #known(page: number): number {
    const known = this.#guest.get(page, Guest.host);
    if (known !== 0) return known;
    const place = find(this.#state, this.#vm, page);
    if (place === null || (place.entry & PTE_V) === 0) return 0;
    const host = ptePpn(place.entry) + (page % (1 << (9 * place.level)));
    const writable = (place.entry & PTE_W) !== 0 && (place.entry & COPY) === 0;
    const says = (host << 2) | (writable ? 2 : 0) | 1;
    this.#guest.put(page, Guest.host, says);
    return says;
  }

  /** The backing of `page` changed: no shadow leaf may name the old one. */
  changed(page: number): void {
    this.#guest.put(page, Guest.host, 0);
    this.#leaves.each(page, (row, index) => {
      this.#drop(row, index);
    });
    this.#machine.fence();
  }

  // ---- the log of writes ------------------------------------------------------------------------

  /** From now on the first write to each page is noted. */
  arm(): void {
    this.#control.put(0, Control.logging, 1);
    for (let n = 0; n < this.#dirty.rows; n++) this.#dirty.put(n, 0, 0);
    for (let page = 0; page < this.#pages; page++) this.#narrow(page);
  }

  disarm(): void {
    this.#control.put(0, Control.logging, 0);
  }

  /** Pages written since `arm` or the last call, a bit each in words of 32; armed again. */
  collect(): number[] {
    const words: number[] = [];
    for (let n = 0; n < this.#dirty.rows; n++) {
      const word = this.#dirty.get(n, 0);
      words.push(word);
      if (word === 0) continue;
      this.#dirty.put(n, 0, 0);
      for (let bit = 0; bit < 32; bit++) {
        if (((word >>> bit) & 1) !== 0) this.#narrow(n * 32 + bit);
      }
    }
    return words;
  }

  /** Somebody wrote to a page of the guest otherwise than by a shadow that allows it. */
  wrote(page: number): void {
    if (this.#control.get(0, Control.logging) === 0) return;
    const word = this.#dirty.get(page >>> 5, 0);
    this.#dirty.put(page >>> 5, 0, word | (1 << (page & 31)));
  }

  #mayWrite(page: number): boolean {
    if (this.#control.get(0, Control.logging) === 0) return true;
    return ((this.#dirty.get(page >>> 5, 0) >>> (page & 31)) & 1) !== 0;
  }

  // ---- for tests, by plain reads ----------------------------------------------------------------

  /** The cached spaces: the guest's root, and the shadow roots' pages; -1 if there is none. */
  *spaces(get: (at: number) => number): Generator<{
    readonly root: number;
    readonly kernel: number;
    readonly user: number;
  }> {
    for (let at = 0; at < SPACES; at++) {
      const word = (column: number): number => get(this.#space.address(at, column));
      const page = (column: number): number => (word(column) === 0 ? -1 : this.#page(word(column)));
      if (word(Space.root) === 0) continue;
      const [kernel, user] = [page(Space.kernel), page(Space.user)];
      yield { root: word(Space.root) - 2, kernel, user };
    }
  }

  #page(shadow: number): number {
    return this.#pool + shadow - 1;
  }

  /** Guest pages that may not be written: tables with a shadow in sync. */
  *guarded(get: (at: number) => number): Generator<number> {
    for (let row = 0; row < this.#shadow.rows; row++) {
      const word = (column: number): number => get(this.#shadow.address(row, column));
      if (word(Shadow.kind) === Kind.table && word(Shadow.loose) === 0) yield word(Shadow.page);
    }
  }

  /** Whether the shadow on page `page` is out of sync. */
  isLoose(get: (at: number) => number, page: number): boolean {
    return get(this.#shadow.address(page - this.#pool, Shadow.loose)) !== 0;
  }
}
