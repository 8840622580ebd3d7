/**
 * The composed second stage: what hardware walks while a guest's own guests run. A hart has one
 * second stage, so the tables of the two hypervisors, the guest's in its memory and ours, are
 * folded into one, from the inner guest's pages to ours, with what both allow. Filled at faults, as
 * a cache; the guest tells of changes to its tables by hfence.gvma, as it would tell hardware.
 *
 * A bounded pool of pages, charged to the guest, serves SLOTS guests of its own at a time; a fuller
 * pool evicts. Beside it stands a reverse map, so that what maps a page of the guest goes when the
 * page does. All of it is words of machine memory.
 *
 * It trusts no number in the guest's tables, and owes that no leaf reaches a page that is not
 * behind the guest, nor one that may be written before both stages have it marked as dirty: then
 * neither hypervisor's log of writes misses one.
 */
import { assert } from '../../machine/assert.ts';
import {
  ENTRIES,
  isLeaf,
  MEGAPAGE_PAGES,
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
import type { Regime } from '../../machine/walker.ts';
import { type Machine, Table } from '../supervisor.ts';
import { EntryLists } from './entry-lists.ts';
import { back, Backing } from './pages.ts';
import { giveRuns, type Run, takeRuns } from './runs.ts';
import { COPY, find, type Place } from './second-stage.ts';
import { type State, Vm } from './state.ts';

/** Guests of one guest whose tables are composed at a time: a guest's place is its VMID modulo. */
export const SLOTS = 4;
const ROOT_PAGES = 4;
const ROOTS = SLOTS * ROOT_PAGES;
const REACH = 2 ** 29; // pages of Sv39x4
export const COMPOSED_MIN = 16; // tables: one access takes up to four paths of two
export const COMPOSED_MAX = 512;

/** Words of a table. Rows from 0 are the root pages of the slots, those behind them the pool. */
const Row = {
  slot: 0, // slot + 1; 0: free
  level: 1,
  parent: 2, // entry that points here; of a free one the next free row + 1
  words: 3,
} as const;
const Slot = { vmid: 0, root: 1, words: 2 } as const; // VMID + 1 and root, as the guest named them
const Control = { free: 0, hand: 1, vmid: 2, root: 3, words: 4 } as const; // and the guest's hgatp

/** Physical VMIDs: a guest's own is its row + 1, those of its guests come behind all rows'. */
export const composedVmid = (rows: number, vm: number, slot: number): number =>
  rows + 1 + vm * SLOTS + slot;
const VMIDS = 2 ** 14;

/** What the composed second stage of one guest lives on. */
export interface ComposedPages extends Readonly<Record<keyof ReturnType<typeof runsOf>, Run>> {
  readonly pool: number;
}

const runsOf = (pool: number, pages: number) => {
  const table = (words: number): number => Math.max(1, Math.ceil((words * 4) / PAGE_BYTES));
  return {
    roots: ROOTS,
    tables: pool,
    ledgers: pool,
    row: table((ROOTS + pool) * Row.words),
    leaf: table(pages),
    slot: table(SLOTS * Slot.words),
    control: table(Control.words),
  };
};

/** Host pages that `pool` tables, and the books of a guest of `pages` pages, take. */
export const composedCost = (pool: number, pages: number): number =>
  Object.values(runsOf(pool, pages)).reduce((sum, count) => sum + count, 0);

/** Takes what `pool` tables and their books need; null if there is no room. */
export function takeComposed(state: State, vm: number, pool: number): ComposedPages | null {
  const taken = takeRuns(state, vm, runsOf(pool, state.vm.get(vm, Vm.pages)));
  return taken === null ? null : { pool, ...taken };
}

/**
 * What came of a fault: mended; the guest's affair, whose table lacks it; for a page of the guest
 * that comes later; or for one that it cannot be given.
 */
export type Composed = 'filled' | 'fault' | 'wait' | 'beyond';

/** Where the guest's table has a page of its guest. */
interface Inner {
  readonly page: number;
  readonly leaf: number; // A and D marked
  readonly level: number;
  /** whether it was found, and marked, for a store */
  readonly stores: boolean;
}

export class ComposedStage {
  readonly #state: State;
  readonly #machine: Machine;
  readonly #vm: number;
  readonly #pages: number; // of the guest
  readonly #row: Table;
  readonly #slot: Table;
  readonly #control: Table;
  readonly #leaves: EntryLists; // that map a page of the guest; of a large one its first
  readonly #roots: number; // host page of row 0
  readonly #tables: number; // host page of row ROOTS
  readonly #taken: ComposedPages;
  readonly #wrote: (page: number) => void;

  /** @param wrote told of pages of the guest that the hypervisor writes here */
  constructor(state: State, vm: number, pages: ComposedPages, wrote: (page: number) => void) {
    const { machine } = state;
    assert(composedVmid(state.vm.rows, vm, SLOTS) < VMIDS, 'composed: there are VMIDs for it');
    this.#state = state;
    this.#machine = machine;
    this.#vm = vm;
    this.#pages = state.vm.get(vm, Vm.pages);
    this.#taken = pages;
    this.#wrote = wrote;
    this.#roots = pages.roots.first;
    this.#tables = pages.tables.first;
    this.#row = new Table(machine, pages.row.first, ROOTS + pages.pool, Row.words);
    this.#slot = new Table(machine, pages.slot.first, SLOTS, Slot.words);
    this.#control = new Table(machine, pages.control.first, 1, Control.words);
    const heads = new Table(machine, pages.leaf.first, this.#pages, 1);
    // Roots have no leaves: gigapages are composed as megapages.
    this.#leaves = new EntryLists(machine, pages.ledgers.first - ROOTS, heads, 0);
    for (let row = 0; row < this.#row.rows; row++) {
      if (row < ROOTS) {
        this.#row.put(row, Row.slot, Math.floor(row / ROOT_PAGES) + 1);
        this.#row.put(row, Row.level, 2);
      } else this.#row.put(row, Row.parent, row + 1 < this.#row.rows ? row + 2 : 0);
    }
    this.#control.put(0, Control.free, ROOTS + 1);
    this.#control.put(0, Control.root, -1);
  }

  /** The guest is gone, and its guests with it. */
  end(): void {
    this.#fenceAll();
    const { roots, tables, ledgers, row, leaf, slot, control } = this.#taken;
    giveRuns(this.#state, this.#vm, [roots, tables, ledgers, row, leaf, slot, control]);
  }

  // ---- the guest's registers and fences ---------------------------------------------------------

  /** hgatp, WARL: whoever had its slot before is forgotten. */
  select(vmid: number, root: number): void {
    const [wantsVmid, wantsRoot] = [vmid & (VMIDS - 1), root & 0x3ffffc];
    this.#control.put(0, Control.vmid, wantsVmid);
    this.#control.put(0, Control.root, wantsRoot);
    const slot = wantsVmid % SLOTS;
    const has = this.#slot.get(slot, Slot.vmid) - 1;
    if (has === wantsVmid && this.#slot.get(slot, Slot.root) === wantsRoot) return;
    if (has >= 0) this.#forgetSlot(slot);
    this.#slot.put(slot, Slot.vmid, wantsVmid + 1);
    this.#slot.put(slot, Slot.root, wantsRoot);
  }

  /** What hgatp is in truth while the guest that `select` named runs: VMID, and root page. */
  selected(): { readonly vmid: number; readonly root: number } {
    const slot = this.#control.get(0, Control.vmid) % SLOTS;
    return { vmid: this.#vmid(slot), root: this.#roots + ROOT_PAGES * slot };
  }

  /** What the hart is set to for a guest of the guest, in our machine's pages. */
  regime({ vmid, asid, root }: Regime): Regime {
    const slot = (vmid & (VMIDS - 1)) % SLOTS;
    return { vmid: this.#vmid(slot), asid, root, guestRoot: this.#roots + ROOT_PAGES * slot };
  }

  #vmid(slot: number): number {
    return composedVmid(this.#state.vm.rows, this.#vm, slot);
  }

  /** hfence.gvma of the guest, for its guest `vmid`: of one page, or of all. */
  fence(vmid: number, page: number | null): void {
    const slot = (vmid & (VMIDS - 1)) % SLOTS;
    if (this.#slot.get(slot, Slot.vmid) - 1 !== (vmid & (VMIDS - 1))) return; // nothing is known
    if (page === null) this.#forgetSlot(slot);
    else {
      const at = this.#find(slot, page);
      if (at !== null) this.#drop(at.row, at.index);
      this.#state.guestMode.fence(this.#vmid(slot));
    }
  }

  #forgetSlot(slot: number): void {
    for (let row = ROOTS; row < this.#row.rows; row++) {
      if (this.#row.get(row, Row.slot) === slot + 1) this.#release(row);
    }
    this.#state.guestMode.fence(this.#vmid(slot));
  }

  // ---- filling ----------------------------------------------------------------------------------

  /** A second-stage fault of the guest's guest at `gpa` of that. */
  fill(gpa: number, write: boolean): Composed {
    const page = Math.floor(gpa / PAGE_BYTES);
    if (!(page >= 0 && page < REACH)) return 'fault';
    const slot = this.#control.get(0, Control.vmid) % SLOTS;
    // The cause names what the program did, and not whether the access that failed was hardware's
    // own, to read or mark a table of it; htinst would say so. Where there is a leaf, which can be
    // read, it was a store.
    const certain = this.#find(slot, page) !== null;
    const inner = this.#walk(page, write || certain, certain);
    if (typeof inner === 'string') return inner;
    const { stores } = inner;
    const outer = this.#reach(inner.page, stores);
    if (typeof outer === 'string') return outer;
    let { entry } = outer;
    if (stores && (entry & PTE_D) === 0) {
      entry = (entry | PTE_A | PTE_D) >>> 0;
      this.#machine.writePtes([{ table: outer.table, index: outer.index, value: entry }]);
    }
    const both = inner.leaf & entry;
    let flags = PTE_V | PTE_R | PTE_U | PTE_A | (both & PTE_X);
    if ((both & PTE_W) !== 0 && (both & PTE_D) !== 0) flags |= PTE_W | PTE_D;
    const level = Math.min(inner.level, outer.level, 1);
    const span = 1 << (9 * level);
    const host = ptePpn(entry) + (inner.page % (1 << (9 * outer.level)));
    const first = inner.page - (inner.page % span);
    this.#putLeaf(slot, page, level, first, pte(host - (host % span), flags));
    return 'filled';
  }

  /**
   * The guest's own second stage, as hardware would walk it: A and D are set, faults are its.
   * @param certain that it is a store; else, where none may be, a load will be found out by that
   */
  #walk(page: number, write: boolean, certain: boolean): Inner | Composed {
    let table = this.#control.get(0, Control.root) + Math.floor(page / ENTRIES ** 3);
    for (let level = 2; level >= 0; level--) {
      const where = this.#reach(table, false);
      if (typeof where === 'string') return where;
      const index = vpnIndex(page, level);
      const at = this.#address(where, table, index);
      const entry = this.#machine.load(at) >>> 0;
      const valid = (entry & PTE_V) !== 0 && this.#machine.load(at + 4) === 0;
      if (!valid || (entry & (PTE_R | PTE_W)) === PTE_W) return 'fault';
      if (!isLeaf(entry)) {
        if (level === 0) return 'fault';
        table = ptePpn(entry);
        continue;
      }
      const span = 1 << (9 * level);
      if (ptePpn(entry) % span !== 0 || (entry & PTE_U) === 0) return 'fault';
      const stores = write && (certain || (entry & PTE_W) !== 0);
      if ((entry & (stores ? PTE_W : PTE_R)) === 0) return 'fault';
      const found = ptePpn(entry) + (page % span);
      if (found >= this.#pages) return 'fault';
      const leaf = (entry | PTE_A | (stores ? PTE_D : 0)) >>> 0;
      if (leaf !== entry) {
        const mine = this.#reach(table, true);
        if (typeof mine === 'string') return mine;
        this.#machine.store(this.#address(mine, table, index), leaf);
        this.#wrote(table);
      }
      return { page: found, leaf, level, stores };
    }
    return 'fault';
  }

  #address({ entry, level }: Place, page: number, index: number): number {
    const host = ptePpn(entry) + (page % (1 << (9 * level)));
    return host * PAGE_BYTES + index * 8;
  }

  /** Where our second stage has a page of the guest, backed if need be. */
  #reach(page: number, write: boolean): Place | Composed {
    if (page >= this.#pages) return 'fault'; // there is no such memory, as hardware would say
    const place = find(this.#state, this.#vm, page);
    const entry = place?.entry ?? 0;
    const there = (entry & PTE_V) !== 0 && !(write && (entry & COPY) !== 0);
    if (there && place !== null) return place;
    const backing = back(this.#state, this.#vm, page);
    if (backing !== Backing.done) return backing === Backing.wait ? 'wait' : 'beyond';
    return find(this.#state, this.#vm, page) ?? 'beyond';
  }

  /** @param first page of the guest that the leaf maps */
  #putLeaf(slot: number, page: number, level: number, first: number, leaf: number): void {
    let row = slot * ROOT_PAGES + Math.floor(page / ENTRIES ** 3);
    const path: number[] = [];
    for (let at = 2; at > level; at--) {
      const index = vpnIndex(page, at);
      const entry = this.#entry(row, index);
      if (entry !== 0 && !isLeaf(entry)) row = ptePpn(entry) - this.#tables + ROOTS;
      else {
        if (entry !== 0) this.#drop(row, index);
        row = this.#allocate(slot, at - 1, row * ENTRIES + index, path);
      }
      path.push(row);
    }
    const index = vpnIndex(page, level);
    const entry = this.#entry(row, index);
    if (isLeaf(entry)) this.#drop(row, index);
    else if (entry !== 0) this.#release(ptePpn(entry) - this.#tables + ROOTS);
    this.#leaves.put(row * ENTRIES + index, first);
    this.#put(row, index, leaf);
  }

  /** Row and index of the leaf for a page of the guest's guest; null if there is none. */
  #find(slot: number, page: number): { readonly row: number; readonly index: number } | null {
    if (!(page >= 0 && page < REACH)) return null;
    let row = slot * ROOT_PAGES + Math.floor(page / ENTRIES ** 3);
    for (let level = 2; ; level--) {
      const index = vpnIndex(page, level);
      const entry = this.#entry(row, index);
      if (entry === 0) return null;
      if (isLeaf(entry)) return { row, index };
      row = ptePpn(entry) - this.#tables + ROOTS;
    }
  }

  // ---- tables -----------------------------------------------------------------------------------

  /** An empty table under `parent`. No row of `keep` is evicted for it. */
  #allocate(slot: number, level: number, parent: number, keep: readonly number[]): number {
    if (this.#control.get(0, Control.free) === 0) this.#evict(keep);
    const row = this.#control.get(0, Control.free) - 1;
    this.#control.put(0, Control.free, this.#row.get(row, Row.parent));
    this.#machine.zeroPage(this.#page(row));
    this.#row.put(row, Row.slot, slot + 1);
    this.#row.put(row, Row.level, level);
    this.#row.put(row, Row.parent, parent);
    this.#put(Math.floor(parent / ENTRIES), parent % ENTRIES, pte(this.#page(row), PTE_V));
    return row;
  }

  /** The next in turn goes, with what hangs on it. Hardware may remember it: it was right. */
  #evict(keep: readonly number[]): void {
    for (;;) {
      const hand = this.#control.get(0, Control.hand);
      this.#control.put(0, Control.hand, (hand + 1) % (this.#row.rows - ROOTS));
      if (keep.includes(ROOTS + hand)) continue;
      this.#release(ROOTS + hand);
      return;
    }
  }

  /** A table goes, its entries, and the one that leads to it. */
  #release(row: number): void {
    const level = this.#row.get(row, Row.level);
    for (const [index, entry] of this.#machine.readPtes(this.#page(row), 0, ENTRIES).entries()) {
      if (entry === 0) continue;
      if (isLeaf(entry)) this.#leaves.remove(row * ENTRIES + index);
      else if (level > 0) this.#release(ptePpn(entry) - this.#tables + ROOTS);
    }
    const parent = this.#row.get(row, Row.parent);
    this.#put(Math.floor(parent / ENTRIES), parent % ENTRIES, 0);
    this.#row.put(row, Row.slot, 0);
    this.#row.put(row, Row.parent, this.#control.get(0, Control.free));
    this.#control.put(0, Control.free, row + 1);
  }

  #drop(row: number, index: number): void {
    this.#leaves.remove(row * ENTRIES + index);
    this.#put(row, index, 0);
  }

  #page(row: number): number {
    return row < ROOTS ? this.#roots + row : this.#tables + row - ROOTS;
  }

  #entry(row: number, index: number): number {
    return this.#machine.readPtes(this.#page(row), index, 1)[0] ?? 0;
  }

  #put(row: number, index: number, value: number): void {
    this.#machine.writePtes([{ table: this.#page(row), index, value }]);
  }

  // ---- our own second stage ---------------------------------------------------------------------

  /** The host page behind `page` changed, may be written less, or counts as not written. */
  changed(page: number): void {
    this.#prune(page);
    this.#fenceAll();
  }

  /** The same of all pages that `words` has a bit set for. */
  cleaned(words: readonly number[]): void {
    for (const [n, word] of words.entries()) {
      for (let bit = 0; word >>> bit !== 0 && bit < 32; bit++) {
        if (((word >>> bit) & 1) !== 0) this.#prune(n * 32 + bit);
      }
    }
    this.#fenceAll();
  }

  #prune(page: number): void {
    if (page >= this.#pages) return;
    this.#leaves.each(page, (row, index) => {
      this.#drop(row, index);
    });
    const large = page - (page % MEGAPAGE_PAGES);
    if (large === page) return;
    this.#leaves.each(large, (row, index) => {
      if (this.#row.get(row, Row.level) > 0) this.#drop(row, index);
    });
  }

  /** Nothing is known: the guest's tables are not what they were. */
  forget(): void {
    for (let row = ROOTS; row < this.#row.rows; row++) {
      if (this.#row.get(row, Row.slot) !== 0) this.#release(row);
    }
    this.#fenceAll();
  }

  #fenceAll(): void {
    for (let slot = 0; slot < SLOTS; slot++) {
      if (this.#slot.get(slot, Slot.vmid) !== 0) this.#state.guestMode.fence(this.#vmid(slot));
    }
  }

  // ---- for tests, by plain reads ----------------------------------------------------------------

  /** Slots in use: VMID and root that the guest named, and the composed root's page. */
  *slots(get: (at: number) => number): Generator<{
    readonly vmid: number;
    readonly root: number;
    readonly composed: number;
  }> {
    for (let slot = 0; slot < SLOTS; slot++) {
      const vmid = get(this.#slot.address(slot, Slot.vmid)) - 1;
      const root = get(this.#slot.address(slot, Slot.root));
      if (vmid >= 0) yield { vmid, root, composed: this.#roots + ROOT_PAGES * slot };
    }
  }
}
