/**
 * Direct paging: the tables that hardware walks are the guest's own, with host page numbers in
 * them. What makes that safe are types and counts, as in Xen: a page is a table of one level, or
 * may be mapped writable, never both, and changes from one to the other only when no reference of
 * the first kind is left and no TLB can remember one.
 *
 * A page becomes a table when it is first used as a root or linked into one (promotion: each entry
 * is checked, its page number translated, its target counted), and stays one, checked and ready,
 * when nothing leads to it any more, until it is wanted as something else (demotion: the guest's
 * own numbers come back). That derived pin makes going back to an address space cheap.
 *
 * The guest's supervisor runs in user mode, with 64-bit addresses, its programs with 32-bit ones
 * (sstatus.UXL): so both can use one root, of which the upper half is the hypervisor's
 * (paravirt-pages.ts). In its direct map tables are missing, so that what touches them traps.
 *
 * No number of a guest is trusted. Owed: counts equal what a walk of all tables finds, no table can
 * be written but through here, and an entry names only pages of the guest.
 */
import { assert } from '../../machine/assert.ts';
import {
  DIRECT_INDEX,
  DIRECT_VPN,
  ENTRIES,
  isLeaf,
  pte,
  PTE_A,
  PTE_D,
  PTE_FLAGS,
  PTE_G,
  PTE_R,
  PTE_U,
  PTE_V,
  PTE_W,
  ptePpn,
} from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { type Machine, type PteUpdate, Table } from '../supervisor.ts';
import { giveRun, takeRun } from './free-pages.ts';
import { back, Backing, hostPage, isVacant } from './pages.ts';
import { BARE } from './paging.ts';
import {
  type ParavirtPages,
  READ,
  Shared,
  SHARED_INDEX,
  upperHalf,
  View,
  viewsOf,
  WINDOW_INDEX,
  WRITE,
  writeUpperHalf,
} from './paravirt-pages.ts';
import { giveRuns } from './runs.ts';
import { Page, PageKind, type State, Type, TypeRow, Vm } from './state.ts';

const levelOf = (type: number): number => type - Type.leaf;
const isTable = (type: number): boolean => type >= Type.leaf && type <= Type.root;

const Control = {
  root: 0, // the guest's root page + 2: 1 is Bare
  asid: 1, // of the host's machine
  epoch: 2, // counts the times that all of the TLB was dropped
  hand: 3, // word of the map of tables where a search begins
  views: 4, // free view + 1
  why: 5, // index of REASONS: what was refused last
  words: 6,
} as const;

const SPACES = 64; // ASIDs of the host for a guest: an ASID's place is it modulo this

/** What the guest is told is behind a host page that is no page of its own. */
export const Foreign = { direct: -1, own: -2 } as const;

/** What writeDirectMap writes, beside G. */
const DIRECT_LEAF = PTE_V | PTE_R | PTE_W | PTE_A | PTE_D;
/** Why a guest is stopped, for the message that says so. */
const REASONS = [
  '',
  'it names a page that it does not have',
  'a superpage: its host pages do not follow each other',
  'a global leaf would be one of other machines, too',
  'no kind of entry that there is',
  'no hypercall that there is',
  'a table would be mapped writable',
  'a page that may only be read would be mapped writable',
  'a table would be a table of another level, too',
  'a page that is mapped would be a table',
  'a page of a neighbour would be a table',
  'a table would be a buffer of a device',
  'there is no room to show another table to a program',
  'the upper half of a root is not its own, but for the direct map',
] as const;
type Reason = Exclude<(typeof REASONS)[number], ''>;

/** What a fault of the guest's supervisor at one of its own pages came to. */
export type Touched = 'filled' | 'table' | 'beyond';

export class PageTypes {
  readonly #state: State;
  readonly #machine: Machine;
  readonly #vm: number;
  readonly #pages: number;
  readonly #taken: ParavirtPages;
  readonly #row: Table;
  readonly #types: Table;
  readonly #frames: Table;
  readonly #view: Table;
  readonly #control: Table;
  readonly #spaces: Table; // ASID of the guest + 1
  readonly #firstAsid: number;

  /** @param firstAsid of the host: one for each of SPACES is used from here on */
  constructor(state: State, vm: number, taken: ParavirtPages, firstAsid: number) {
    assert(firstAsid + SPACES <= 2 ** 16, 'page types: there are ASIDs for the guest');
    const { machine } = state;
    this.#state = state;
    this.#machine = machine;
    this.#vm = vm;
    this.#taken = taken;
    this.#firstAsid = firstAsid;
    const pages = state.vm.get(vm, Vm.pages);
    this.#pages = pages;
    this.#row = new Table(machine, taken.rows.first, pages, TypeRow.words);
    this.#types = new Table(machine, taken.types.first, Math.ceil(pages / 32), 1);
    this.#frames = new Table(machine, taken.frames.first, machine.pages, 1);
    this.#view = new Table(machine, taken.views.first, Math.floor(viewsOf(pages)), View.words);
    for (let view = 0; view < this.#view.rows; view++) {
      this.#view.put(view, View.next, view + 1 < this.#view.rows ? view + 2 : 0);
    }
    this.#control = new Table(machine, taken.control.first, 1, Control.words);
    this.#control.put(0, Control.views, 1);
    this.#spaces = new Table(machine, taken.control.first, SPACES + Control.words, 1);
    this.#control.put(0, Control.root, BARE + 2);
    this.#control.put(0, Control.asid, firstAsid);
    this.#control.put(0, Control.epoch, 1);
    writeUpperHalf(machine, pages, taken);
    this.#frames.put(taken.tops.first, 0, Foreign.direct);
    this.#frames.put(taken.tops.first + 1, 0, Foreign.own);
    this.#frames.put(taken.tops.first + 2, 0, Foreign.own);
    state.vm.put(vm, Vm.typed, taken.rows.first);
    state.vm.put(vm, Vm.clock, this.shared(Shared.time) * PAGE_BYTES);
    for (let page = 0; page < pages; page++) {
      const host = hostPage(state, vm, page);
      if (host >= 0) this.#enter(page, host);
    }
  }

  /** The guest is gone: so is all that was kept of it. */
  end(): void {
    for (let view = 0; view < this.#view.rows; view++) {
      const host = this.#view.get(view, View.host);
      if (host !== 0) giveRun(this.#state, this.#vm, host, 1);
    }
    giveRuns(this.#state, this.#vm, Object.values(this.#taken));
    this.#state.vm.put(this.#vm, Vm.typed, 0);
    this.#state.vm.put(this.#vm, Vm.clock, 0);
    this.#machine.fence();
  }

  /** Two pages for what is written down of its neighbours. */
  get links(): number {
    return this.#taken.links.first;
  }

  /** Host page of the n-th page of Shared, of the first ones. */
  shared(n: number): number {
    return this.#taken.calls.first + n;
  }

  // ---- which page is behind which ---------------------------------------------------------------

  #enter(page: number, host: number): void {
    const [table, index] = [page >>> 9, page & 511];
    this.#machine.writePtes([
      { table: this.#taken.window.first + table, index, value: pte(host, READ) },
      { table: this.#taken.direct.first + table, index, value: pte(host, WRITE) },
    ]);
    this.#frames.put(host, 0, page + 1);
  }

  /** Host page behind a guest page; -1 if there is none. */
  behind(page: number): number {
    if (page >= this.#pages) return -1;
    const entry =
      this.#machine.readPtes(this.#taken.window.first + (page >>> 9), page & 511, 1)[0] ?? 0;
    return entry === 0 ? -1 : ptePpn(entry);
  }

  /** The same, backed if need be; -1 if it cannot be. */
  #reach(page: number): number {
    const known = this.behind(page);
    if (known >= 0 || page >= this.#pages) return known;
    let host = hostPage(this.#state, this.#vm, page);
    if (host < 0 && back(this.#state, this.#vm, page) === Backing.done) {
      host = hostPage(this.#state, this.#vm, page);
    }
    // A page that others stand on could not be written.
    if (host < 0 || this.#state.kind(host) !== PageKind.guest) return -1;
    this.#enter(page, host);
    return host;
  }

  /** Whether nothing of the guest leads to `page`, as far as that can be brought about. */
  yields(page: number): boolean {
    if (page >= this.#pages) return true;
    if (this.#isForeign(page)) return false;
    if (this.isTable(page) && this.#row.get(page, TypeRow.types) === 0) this.#demote(page);
    return this.#sweep(() => this.#row.get(page, TypeRow.refs) === 0);
  }

  /** What was behind `page`, to which nothing leads, is not any more. */
  changed(page: number): void {
    const host = this.behind(page);
    if (host < 0) return;
    assert(this.#row.get(page, TypeRow.refs) === 0, 'page types: a page that goes is not in use');
    const [table, index] = [page >>> 9, page & 511];
    this.#machine.writePtes([
      { table: this.#taken.window.first + table, index, value: 0 },
      { table: this.#taken.direct.first + table, index, value: 0 },
    ]);
    this.#frames.put(host, 0, 0);
    this.#flush();
  }

  // ---- pages of neighbours ----------------------------------------------------------------------

  /** Host page behind a page that is plain memory of the guest's own; -1: it is not. */
  plain(page: number): number {
    if (page >= this.#pages - 1) return -1;
    const host = this.#reach(page);
    return this.#row.get(page, TypeRow.type) <= Type.writable ? host : -1;
  }

  /** Whether a neighbour's page could stand at `page`. */
  isVacant(page: number): boolean {
    return page < this.#pages && this.behind(page) < 0 && isVacant(this.#state, this.#vm, page);
  }

  /** Whether a host page has a name here. */
  names(host: number): boolean {
    return this.#frames.get(host, 0) !== 0;
  }

  /** A neighbour's page stands at vacant `page`. */
  adopt(page: number, host: number, write: boolean): void {
    this.#enter(page, host);
    this.#row.put(page, TypeRow.type, Type.foreign);
    this.#row.put(page, TypeRow.more, write ? 1 : 0);
    if (write) return;
    const [table, index] = [this.#taken.direct.first + (page >>> 9), page & 511];
    this.#machine.writePtes([{ table, index, value: pte(host, READ) }]);
  }

  /** It does no longer, and nothing remembers it. False: tables in use lead to it. */
  disown(page: number): boolean {
    if (!this.#sweep(() => this.#row.get(page, TypeRow.refs) === 0)) return false;
    this.#row.put(page, TypeRow.type, Type.none);
    this.#row.put(page, TypeRow.more, 0);
    this.changed(page);
    return true;
  }

  // ---- refusals ---------------------------------------------------------------------------------

  /** Something is refused. */
  refuse(why: Reason): false {
    this.#control.put(0, Control.why, REASONS.indexOf(why));
    return false;
  }

  /** The same of an entry. */
  #bad(why: Reason): -1 {
    this.refuse(why);
    return -1;
  }

  /** Why something was refused last; '' if nothing was. */
  why(): string {
    return REASONS[this.#control.get(0, Control.why)] ?? '';
  }

  // ---- references -------------------------------------------------------------------------------

  isTable(page: number): boolean {
    return isTable(this.#row.get(page, TypeRow.type));
  }

  #count(page: number, refs: number, types: number): void {
    this.#row.add(page, TypeRow.refs, refs);
    if (types !== 0) this.#row.add(page, TypeRow.types, types);
  }

  /** A TLB may remember what led to `page`, until all of it is dropped. */
  #stamp(page: number): void {
    this.#row.put(page, TypeRow.stamp, this.#control.get(0, Control.epoch));
  }

  #isForeign(page: number): boolean {
    return this.#row.get(page, TypeRow.type) === Type.foreign;
  }

  /** One more leaf that allows stores. False: it is a table that is in use, or only to be read. */
  #takeWritable(page: number): boolean {
    if (this.#isForeign(page)) {
      if (this.#row.get(page, TypeRow.more) !== 1) {
        return this.refuse('a page that may only be read would be mapped writable');
      }
      this.#count(page, 1, 1);
      return true;
    }
    if (this.isTable(page)) {
      if (this.#row.get(page, TypeRow.types) > 0) {
        return this.refuse('a table would be mapped writable');
      }
      this.#demote(page);
    }
    this.#row.put(page, TypeRow.type, Type.writable);
    this.#count(page, 1, 1);
    return true;
  }

  /** One more use of `page` as a table of that type. False: it cannot be one. */
  #takeTable(page: number, type: number): boolean {
    if (this.#reach(page) < 0) return this.refuse('it names a page that it does not have');
    const is = this.#row.get(page, TypeRow.type);
    if (is === Type.foreign) return this.refuse('a page of a neighbour would be a table');
    if (is === type) {
      this.#count(page, 1, 1); // checked already, used or not
      return true;
    }
    if (isTable(is)) {
      if (this.#row.get(page, TypeRow.types) > 0) {
        return this.refuse('a table would be a table of another level, too');
      }
      this.#demote(page);
    }
    // Nor may it be read where it is mapped: it would show host numbers.
    if (!this.#sweep(() => this.#row.get(page, TypeRow.refs) === 0)) {
      return this.refuse('a page that is mapped would be a table');
    }
    return this.#promote(page, type);
  }

  /** What the entry of a table leads to is led to once less. @returns its page, -1 if none */
  #drop(level: number, index: number, entry: number): number {
    if ((entry & PTE_V) === 0 || (level === 2 && index >= DIRECT_INDEX)) return -1;
    const page = this.#frames.get(ptePpn(entry), 0) - 1;
    assert(page >= 0, 'page types: an entry names a page of the guest');
    const typed = !isLeaf(entry) || (entry & PTE_W) !== 0;
    this.#count(page, -1, typed ? -1 : 0);
    if (!typed && this.isTable(page)) this.#dropView(page, ptePpn(entry));
    const is = this.#row.get(page, TypeRow.type);
    if (is === Type.writable && this.#row.get(page, TypeRow.types) === 0) {
      this.#row.put(page, TypeRow.type, Type.none);
    }
    return page;
  }

  // ---- views ------------------------------------------------------------------------------------

  /** A page that shows a table as the guest wrote it, for the leaf at `where`; -1: none. */
  #takeView(page: number, where: number): number {
    const view = this.#control.get(0, Control.views) - 1;
    if (view < 0) return -1;
    let host = this.#view.get(view, View.host);
    if (host === 0) {
      host = takeRun(this.#state, this.#vm, 1);
      if (host < 0) return -1;
      this.#view.put(view, View.host, host);
    }
    this.#control.put(0, Control.views, this.#view.get(view, View.next));
    this.#view.put(view, View.where, where);
    this.#view.put(view, View.next, this.#row.get(page, TypeRow.more));
    this.#row.put(page, TypeRow.more, view + 1);
    this.#frames.put(host, 0, page + 1);
    this.#write(page, host, shown);
    return host;
  }

  #dropView(page: number, host: number): void {
    let [before, view] = [-1, this.#row.get(page, TypeRow.more) - 1];
    while (this.#view.get(view, View.host) !== host) {
      [before, view] = [view, this.#view.get(view, View.next) - 1];
    }
    const next = this.#view.get(view, View.next);
    if (before < 0) this.#row.put(page, TypeRow.more, next);
    else this.#view.put(before, View.next, next);
    this.#view.put(view, View.next, this.#control.get(0, Control.views));
    this.#control.put(0, Control.views, view + 1);
  }

  /** The table is none any more: where it was read it can be read itself. */
  #endViews(page: number): void {
    const host = this.behind(page);
    for (;;) {
      const view = this.#row.get(page, TypeRow.more) - 1;
      if (view < 0) return;
      const where = this.#view.get(view, View.where);
      const [table, index] = [this.behind(where >>> 9), where & 511];
      const entry = this.#machine.readPtes(table, index, 1)[0] ?? 0;
      this.#machine.writePtes([{ table, index, value: pte(host, entry & PTE_FLAGS) }]);
      this.#dropView(page, this.#view.get(view, View.host));
      // Whoever remembers the view reads what was, until the guest fences.
    }
  }

  /** Each view of a table shows what the guest wrote into an entry. */
  #follow(page: number, index: number, value: number): void {
    let view = this.#row.get(page, TypeRow.more) - 1;
    for (; view >= 0; view = this.#view.get(view, View.next) - 1) {
      const table = this.#view.get(view, View.host);
      this.#machine.writePtes([{ table, index, value: shown(value) }]);
    }
  }

  /** Writes a table to page `to` of the hypervisor's as the guest wrote it, each entry by `as`. */
  #write(page: number, to: number, as: (entry: number) => number): void {
    const host = this.behind(page);
    this.#machine.copyPage(to, host);
    const level = levelOf(this.#row.get(page, TypeRow.type));
    const updates: PteUpdate[] = [];
    for (const [index, entry] of this.#machine.readPtes(host, 0, ENTRIES).entries()) {
      const value = as(this.#canonical(level, index, entry));
      if (value !== entry) updates.push({ table: to, index, value });
    }
    this.#machine.writePtes(updates);
  }

  /** Tables that nothing uses are demoted one after another, until `enough`. False: never. */
  #sweep(enough: () => boolean): boolean {
    if (enough()) return true;
    const words = this.#types.rows;
    for (let found = true; found;) {
      found = false;
      for (let n = 0; n < words; n++) {
        const at = this.#control.get(0, Control.hand);
        this.#control.put(0, Control.hand, (at + 1) % words);
        let word = this.#types.get(at, 0);
        for (; word !== 0; word &= word - 1) {
          const page = at * 32 + 31 - Math.clz32(word & -word);
          if (this.#row.get(page, TypeRow.types) > 0) continue;
          this.#demote(page);
          found = true;
          if (enough()) return true;
        }
      }
    }
    return false;
  }

  // ---- promotion and demotion -------------------------------------------------------------------

  #setTyped(page: number, on: boolean): void {
    const bit = 1 << (page & 31);
    const word = this.#types.get(page >>> 5, 0);
    this.#types.put(page >>> 5, 0, on ? word | bit : word & ~bit);
  }

  /** Nothing may remember a translation that a dropped reference allowed. */
  #forgotten(page: number): void {
    if (this.#row.get(page, TypeRow.stamp) === this.#control.get(0, Control.epoch)) this.#flush();
  }

  #flush(): void {
    this.#machine.fence();
    this.#control.add(0, Control.epoch, 1);
  }

  /** Makes a page that nothing leads to a table, used once. False: an entry is not good. */
  #promote(page: number, type: number): boolean {
    const host = this.behind(page);
    // A device could write to it behind everybody's back.
    if (this.#state.page.get(host, Page.pins) > 0) {
      return this.refuse('a table would be a buffer of a device');
    }
    this.#row.put(page, TypeRow.type, type);
    this.#count(page, 1, 1);
    this.#setTyped(page, true);
    const [table, at] = [this.#taken.direct.first + (page >>> 9), page & 511];
    this.#machine.writePtes([{ table, index: at, value: 0 }]);
    this.#machine.fence(undefined, DIRECT_VPN + page);
    this.#forgotten(page);
    const level = levelOf(type);
    const updates: PteUpdate[] = [];
    for (const [index, entry] of this.#machine.readPtes(host, 0, ENTRIES).entries()) {
      if (entry === 0) continue;
      const ours = level === 2 && isOurs(index);
      const value = ours
        ? this.#upperEntry(index, entry)
        : this.#translate(page, level, index, entry);
      if (value < 0) {
        // What was counted is not, and nothing has been written: it never was one.
        for (const done of updates) this.#drop(level, done.index, done.value);
        this.#count(page, -1, -1);
        this.#plain(page);
        return false;
      }
      updates.push({ table: host, index, value });
    }
    if (level === 2) updates.push(...upperHalf(host, this.#taken));
    this.#machine.writePtes(updates);
    return true;
  }

  /** A table that nothing uses is a page like others: what it leads to is led to once less. */
  #demote(page: number): void {
    this.#forgotten(page); // so nothing remembers what it led to, either
    const host = this.behind(page);
    const level = levelOf(this.#row.get(page, TypeRow.type));
    const updates: PteUpdate[] = [];
    for (const [index, entry] of this.#machine.readPtes(host, 0, ENTRIES).entries()) {
      if (entry === 0) continue;
      const value = this.#canonical(level, index, entry);
      this.#drop(level, index, entry);
      if (value !== entry) updates.push({ table: host, index, value });
    }
    this.#machine.writePtes(updates);
    this.#plain(page);
    this.#endViews(page);
  }

  /** Memory like other memory. */
  #plain(page: number): void {
    this.#row.put(page, TypeRow.type, Type.none);
    this.#setTyped(page, false);
    const [table, index] = [this.#taken.direct.first + (page >>> 9), page & 511];
    this.#machine.writePtes([{ table, index, value: pte(this.behind(page), WRITE) }]);
  }

  // ---- entries ----------------------------------------------------------------------------------

  /** An entry of the guest as hardware is to see it, its target counted; -1: it is not good. */
  #translate(table: number, level: number, index: number, entry: number): number {
    if (level === 2 && index >= DIRECT_INDEX) return this.#upperEntry(index, entry);
    if ((entry & PTE_V) === 0) return entry;
    const page = ptePpn(entry);
    if (!isLeaf(entry)) {
      if (level === 0 || (entry & (PTE_A | PTE_D | PTE_U)) !== 0) {
        return this.#bad('no kind of entry that there is');
      }
      if (!this.#takeTable(page, Type.leaf + level - 1)) return -1;
    } else {
      // No superpages: what follows a guest page is not what follows its host page. No G: the TLB
      // would have it for other machines, too.
      const writable = (entry & PTE_W) !== 0;
      if (level > 0) return this.#bad('a superpage: its host pages do not follow each other');
      if ((entry & PTE_G) !== 0)
        return this.#bad('a global leaf would be one of other machines, too');
      if (writable && (entry & PTE_R) === 0) return this.#bad('no kind of entry that there is');
      if (this.#reach(page) < 0) return this.#bad('it names a page that it does not have');
      if (!writable) {
        this.#count(page, 1, 0);
        const view = this.isTable(page) ? this.#takeView(page, (table << 9) | index) : 0;
        if (view < 0) return this.#bad('there is no room to show another table to a program');
        if (view > 0) return pte(view, entry & PTE_FLAGS);
      } else if (!this.#takeWritable(page)) return -1;
    }
    return pte(this.behind(page), entry & PTE_FLAGS);
  }

  /** The upper half of a root: the direct map as writeDirectMap writes it, and nothing else. */
  #upperEntry(index: number, entry: number): number {
    if ((entry & PTE_V) === 0 && !isOurs(index)) return entry;
    if (index !== DIRECT_INDEX || (entry & ~PTE_G) >>> 0 !== pte(0, DIRECT_LEAF)) {
      return this.#bad('the upper half of a root is not its own, but for the direct map');
    }
    return pte(this.#taken.tops.first, PTE_V | (entry & PTE_G));
  }

  /** An entry as the guest wrote it, A and D as hardware has set them since. */
  #canonical(level: number, index: number, entry: number): number {
    if (level === 2 && isOurs(index)) return 0;
    if ((entry & PTE_V) === 0) return entry;
    return canonical(entry, this.#frames.get(ptePpn(entry), 0));
  }

  /** The guest writes an entry of a table. False: it is not good. */
  update(page: number, index: number, value: number): boolean {
    const host = this.behind(page);
    const level = levelOf(this.#row.get(page, TypeRow.type));
    if (level === 2 && isOurs(index) && value === 0) return true;
    const entry = this.#translate(page, level, index, value);
    if (entry < 0) return false;
    const old = this.#machine.readPtes(host, index, 1)[0] ?? 0;
    this.#machine.writePtes([{ table: host, index, value: entry }]);
    const dropped = this.#drop(level, index, old);
    if (dropped >= 0) this.#stamp(dropped);
    this.#follow(page, index, value);
    return true;
  }

  /** The guest writes an entry somewhere: of a table, or in memory. False: it is not good. */
  write(gpa: number, value: number): boolean {
    const page = gpa >>> 12;
    const index = (gpa % PAGE_BYTES) >>> 3;
    if (page < this.#pages && this.isTable(page)) return this.update(page, index, value);
    const host = this.#reach(page);
    if (host < 0 || this.#isForeign(page)) return false;
    this.#machine.writePtes([{ table: host, index, value }]);
    return true;
  }

  // ---- what the guest's supervisor touches ------------------------------------------------------

  /** Its direct map lacks `page`, or lets it not be stored to. */
  touch(page: number): Touched {
    if (this.#reach(page) < 0) return 'beyond';
    if (this.isTable(page)) return 'table';
    if (this.#isForeign(page)) return 'beyond'; // a store to what may only be read
    // It is there now. A root without a direct map would lack it for ever.
    const { root } = this.root();
    const entry = this.#machine.readPtes(root, DIRECT_INDEX, 1)[0] ?? 0;
    const upper = this.#machine.load(root * PAGE_BYTES + DIRECT_INDEX * 8 + 4);
    return (entry & PTE_V) !== 0 && upper === 0 ? 'filled' : 'beyond';
  }

  /** A word of a table, as the guest wrote it. */
  load(gpa: number): number {
    const page = gpa >>> 12;
    const host = this.behind(page);
    const word = this.#machine.load(host * PAGE_BYTES + (gpa % PAGE_BYTES));
    if (gpa % 8 !== 0) return word;
    const level = levelOf(this.#row.get(page, TypeRow.type));
    return this.#canonical(level, (gpa % PAGE_BYTES) >>> 3, word >>> 0) | 0;
  }

  /**
   * A store to a table. If nothing uses it, it is one no longer, and 'plain' memory; else the entry
   * is written like any other.
   */
  store(gpa: number, value: number): 'done' | 'plain' | 'refused' {
    const page = gpa >>> 12;
    if (this.#row.get(page, TypeRow.types) === 0) {
      this.#demote(page);
      return 'plain';
    }
    if (gpa % 8 === 0) {
      return this.update(page, (gpa % PAGE_BYTES) >>> 3, value >>> 0) ? 'done' : 'refused';
    }
    // The upper half of an entry only ever makes it invalid.
    this.#machine.store(this.behind(page) * PAGE_BYTES + (gpa % PAGE_BYTES), value);
    return 'done';
  }

  /** Makes a table that nothing uses plain memory. False: it is used. */
  release(page: number): boolean {
    if (this.#row.get(page, TypeRow.types) > 0) return false;
    this.#demote(page);
    return true;
  }

  /** A copy of a table as the guest wrote it, on a page of the hypervisor's. */
  copy(page: number): number {
    const to = this.#taken.scratch.first;
    this.#write(page, to, (entry) => entry);
    return to;
  }

  /** A table in use is overwritten as a whole, with what `fill` puts on a page. */
  replace(page: number, fill: (host: number) => void): boolean {
    const from = this.#taken.scratch.first + 1;
    fill(from);
    const host = this.behind(page);
    const level = levelOf(this.#row.get(page, TypeRow.type));
    for (const [index, value] of this.#machine.readPtes(from, 0, ENTRIES).entries()) {
      if (!this.update(page, index, value)) return false;
      if (level === 2 && isOurs(index)) continue;
      const upper = this.#machine.load(from * PAGE_BYTES + index * 8 + 4);
      if (upper !== 0) this.#machine.store(host * PAGE_BYTES + index * 8 + 4, upper);
    }
    return true;
  }

  // ---- address spaces ---------------------------------------------------------------------------

  /** satp. False: that is no root. */
  use(root: number, asid: number): boolean {
    const was = this.#control.get(0, Control.root) - 2;
    if (root !== was) {
      if (root !== BARE && !this.#takeTable(root, Type.root)) return false;
      this.#control.put(0, Control.root, root + 2);
      if (was !== BARE) {
        this.#count(was, -1, -1);
        this.#stamp(was);
      }
    }
    const at = asid % SPACES;
    const host = this.#firstAsid + at;
    if (this.#spaces.get(Control.words + at, 0) !== asid + 1) {
      this.#spaces.put(Control.words + at, 0, asid + 1);
      this.#machine.fence(host);
    }
    this.#control.put(0, Control.asid, host);
    return true;
  }

  /** Root page and ASID, in the host's machine, of the space in use. */
  root(): { readonly root: number; readonly asid: number } {
    const root = this.#control.get(0, Control.root) - 2;
    const asid = this.#control.get(0, Control.asid);
    return { root: root === BARE ? this.#taken.tops.first + 3 : this.behind(root), asid };
  }

  /** sfence.vma of the guest. */
  fence(asid: number | null, vpn: number | null): void {
    if (asid === null) {
      if (vpn === null) this.#flush();
      else this.#machine.fence(undefined, vpn);
      return;
    }
    const at = asid % SPACES;
    if (this.#spaces.get(Control.words + at, 0) !== asid + 1) return;
    if (vpn === null) this.#machine.fence(this.#firstAsid + at);
    else this.#machine.fence(this.#firstAsid + at, vpn);
  }

  // ---- for tests, by plain reads ----------------------------------------------------------------

  /** What is written down of the guest's pages. */
  books(get: (at: number) => number): {
    /** the guest's root in use, BARE if translation is off */
    readonly root: number;
    /** first ASID of the host that is its own, and how many are */
    readonly asids: { readonly first: number; readonly count: number };
    readonly page: (page: number) => PageBook;
    /** what the guest is told of a host page */
    readonly frame: (host: number) => number;
    /** pages that show tables: which table, and where they are mapped */
    readonly views: readonly { readonly host: number; readonly page: number }[];
  } {
    const [direct, window, types] = [
      this.#taken.direct.first,
      this.#taken.window.first,
      this.#taken.types.first,
    ];
    const entry = (run: number, page: number): number =>
      get((run + (page >>> 9)) * PAGE_BYTES + (page & 511) * 8) >>> 0;
    const row = (page: number, column: number): number => get(this.#row.address(page, column));
    const views = [];
    for (let page = 0; page < this.#pages; page++) {
      if (!isTable(row(page, TypeRow.type))) continue;
      for (let view = row(page, TypeRow.more) - 1; view >= 0;) {
        views.push({ host: get(this.#view.address(view, View.host)), page });
        view = get(this.#view.address(view, View.next)) - 1;
      }
    }
    return {
      root: get(this.#control.address(0, Control.root)) - 2,
      asids: { first: this.#firstAsid, count: SPACES },
      page: (page) => ({
        type: row(page, TypeRow.type),
        types: row(page, TypeRow.types),
        refs: row(page, TypeRow.refs),
        isTable: ((get(types * PAGE_BYTES + (page >>> 5) * 4) >>> (page & 31)) & 1) === 1,
        isForeign: row(page, TypeRow.type) === Type.foreign,
        direct: entry(direct, page),
        window: entry(window, page),
      }),
      frame: (host) => get(this.#frames.address(host, 0)),
      views,
    };
  }
}

/** What is written down of a guest page, and its entries in direct map and window. */
export interface PageBook {
  readonly type: number;
  readonly types: number;
  readonly refs: number;
  readonly isTable: boolean;
  readonly isForeign: boolean;
  readonly direct: number;
  readonly window: number;
}

/** Entries of a root that are the hypervisor's alone. */
const isOurs = (index: number): boolean => index === WINDOW_INDEX || index === SHARED_INDEX;

/**
 * What a view shows of an entry. Hardware marks the table itself: so whatever can have been written
 * to since is shown as written to, or who trusts the mark would lose it.
 */
const shown = (entry: number): number =>
  (entry & (PTE_V | PTE_W)) === (PTE_V | PTE_W) ? (entry | PTE_D) >>> 0 : entry;

/** A valid entry of a table as its guest wrote it. @param frame what stands for its host page */
export function canonical(entry: number, frame: number): number {
  if (frame > 0) return pte(frame - 1, entry & PTE_FLAGS);
  return frame === Foreign.direct ? pte(0, DIRECT_LEAF | (entry & PTE_G)) : 0;
}
