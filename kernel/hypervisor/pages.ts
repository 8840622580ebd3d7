/**
 * Guest memory. The guest sees contiguous pages from 0; the second stage (Sv39x4) says which host
 * pages they are, and the guest never learns. Nothing is checked per mapping: a guest that writes
 * its own tables can only ever name what the second stage gives it.
 *
 * Trusts no number that comes from a guest; owes each guest zeroed pages that nobody else has, and
 * the contents of those that it wrote, whoever's they have been meanwhile.
 */
import { ENTRIES, isLeaf, pte, PTE_V, ptePpn, vpnIndex } from '../../machine/sv39.ts';
import { assert } from '../../machine/assert.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { Ring } from './device-page.ts';
import { give, take } from './free-pages.ts';
import { mustWait } from './revocation.ts';
import {
  absence,
  Absent,
  COPY,
  find,
  isBusy,
  LEAF,
  rescue,
  rootTable,
  setEntry,
} from './second-stage.ts';
import { leaveShared, privateCopy } from './sharing.ts';
import { Cpu, Page, PageKind, type State, Vm } from './state.ts';
import { freeSlot, startIn } from './swap.ts';

const ROOT_PAGES = 4;
const ROOT_ORDER = 2;

/** What asking for a guest page came to. */
export const Backing = {
  refused: 0, // the guest has no such page, or there is no memory and will be none
  done: 1,
  wait: 2, // it comes: the guest must be blocked meanwhile
} as const;

/** An empty second stage; its root page, or -1 if there is no room for it. */
export function makeSecondStage(state: State, vm: number): number {
  const root = take(state, ROOT_ORDER);
  if (root < 0) return -1;
  for (let n = 0; n < ROOT_PAGES; n++) {
    state.own(root + n, PageKind.table, vm);
    state.machine.zeroPage(root + n);
  }
  state.vm.add(vm, Vm.tables, ROOT_PAGES);
  return root;
}

/**
 * Backs all of a guest's memory now, with pages as large as asked. False: memory is used up.
 * @param level of the leaves: 0 is 4 KiB, 1 is 2 MiB, 2 is 1 GiB
 */
export function populate(state: State, vm: number, level: number): boolean {
  const pages = state.vm.get(vm, Vm.pages);
  const step = 1 << (9 * level);
  for (let page = 0; page < pages; page += step) {
    if (level === 0 && hostPage(state, vm, page) >= 0) continue;
    const host = takeFor(state, vm, page, 9 * level);
    if (host < 0) return false;
    for (let n = 0; n < step; n++) state.machine.zeroPage(host + n);
    if (!mapHost(state, vm, page, host, level)) {
      for (let n = 0; n < step; n++) dropUnmapped(state, vm, host + n);
      return false;
    }
  }
  return true;
}

/** Takes a block of host pages for the guest pages from `page` on; -1 if there is none. */
export function takeFor(state: State, vm: number, page: number, order = 0): number {
  const host = take(state, order);
  if (host < 0) return -1;
  for (let n = 0; n < 1 << order; n++) {
    state.own(host + n, PageKind.guest, vm);
    state.page.put(host + n, Page.guest, page + n);
    state.page.put(host + n, Page.pins, 0);
  }
  state.vm.add(vm, Vm.held, 1 << order);
  return host;
}

/** Waiting for any page so often without getting on makes a guest the elder. */
const PATIENCE = 4;
/** A page, and two tables that it may need: all of them or none. */
const ROOM = 3;

/**
 * Sees to it that guest page `page` is there and may be stored to: on first touch, when it comes
 * back from the swap area, when it leaves a shared page. All exits for memory end here.
 */
export function back(state: State, vm: number, page: number): number {
  const { vm: row } = state;
  if (!Number.isInteger(page) || page < 0 || page >= row.get(vm, Vm.pages)) return Backing.refused;
  const place = find(state, vm, page);
  const entry = place?.entry ?? 0;
  if ((entry & PTE_V) !== 0) {
    // It is there: it is a store to a shared page, or the fault has another reason.
    if ((entry & COPY) === 0 || place === null) return Backing.refused;
    return privateCopy(state, vm, page, place) ? Backing.done : waitForAny(state, vm);
  }
  switch (absence(entry)) {
    case Absent.leaving:
      // If somebody waits in vain it goes all the same: or the same pages are taken for ever.
      if (state.get(Cpu.elder) !== 0) return waitForAny(state, vm);
      rescue(state, vm, page, ptePpn(entry));
      row.add(vm, Vm.leaving, -1);
      return Backing.done;
    case Absent.coming:
      row.put(vm, Vm.waitsFor, page + 1);
      return Backing.wait;
    default:
  }
  const within = row.get(vm, Vm.held) < row.get(vm, Vm.limit);
  const room = entry === 0 ? ROOM : 1; // where something was, its tables are
  if (state.get(Cpu.free) < room || !within || !mayTake(state, vm)) return waitForAny(state, vm);
  const host = takeFor(state, vm, page);
  assert(host >= 0, 'pages: a free page can be taken');
  if (absence(entry) === Absent.swapped) {
    startIn(state, vm, page, host, ptePpn(entry));
    row.put(vm, Vm.waitsFor, page + 1);
    return Backing.wait;
  }
  if (absence(entry) === Absent.given) countGiven(state, vm, -1);
  state.machine.zeroPage(host);
  assert(mapHost(state, vm, page, host, 0), 'pages: there was room for its tables');
  return Backing.done;
}

/** What is short is the elder's, if there is one, or each would take what the other needs. */
function mayTake(state: State, vm: number): boolean {
  const elder = state.get(Cpu.elder);
  return elder === 0 ? !mustWait(state, vm) : elder === vm + 1;
}

/** There is no page now. With a swap area there will be one. */
function waitForAny(state: State, vm: number): number {
  if (state.config.swap === undefined) return Backing.refused;
  state.vm.put(vm, Vm.waitsFor, -1);
  if (state.vm.add(vm, Vm.waits, 1) > PATIENCE && state.get(Cpu.elder) === 0) {
    state.put(Cpu.elder, vm + 1);
  }
  return Backing.wait;
}

/** Maps `host` as guest page `page`, making the tables that lack. False: there is no room. */
export function mapHost(
  state: State,
  vm: number,
  page: number,
  host: number,
  level: number,
): boolean {
  const { machine } = state;
  let table = rootTable(state, vm, page);
  for (let at = 2; at > level; at--) {
    const index = vpnIndex(page, at);
    const entry = machine.readPtes(table, index, 1)[0] ?? 0;
    if ((entry & PTE_V) === 0) {
      const fresh = take(state);
      if (fresh < 0) return false;
      state.own(fresh, PageKind.table, vm);
      state.vm.add(vm, Vm.tables, 1);
      machine.zeroPage(fresh);
      machine.writePtes([{ table, index, value: pte(fresh, PTE_V) }]);
      table = fresh;
    } else table = ptePpn(entry);
  }
  machine.writePtes([{ table, index: vpnIndex(page, level), value: pte(host, LEAF) }]);
  return true;
}

/** Host page behind a guest page; -1 if there is none. */
export function hostPage(state: State, vm: number, page: number): number {
  if (!Number.isInteger(page) || page < 0 || page >= state.vm.get(vm, Vm.pages)) return -1;
  const place = find(state, vm, page);
  if (place === null || (place.entry & PTE_V) === 0) return -1;
  return ptePpn(place.entry) + (page % (1 << (9 * place.level)));
}

/**
 * The same for what the hypervisor must reach itself, backing it first if need be; -1 if it cannot
 * be there now. @param write whether it will be written: then it must be nobody else's, too
 */
export function reach(state: State, vm: number, page: number, write: boolean): number {
  if (!Number.isInteger(page) || page < 0 || page >= state.vm.get(vm, Vm.pages)) return -1;
  // A device must neither write a table that hardware walks nor read host numbers out of it.
  if (state.isBarred(vm, page)) return -1;
  const place = find(state, vm, page);
  const entry = place?.entry ?? 0;
  const there = (entry & PTE_V) !== 0 && !(write && (entry & COPY) !== 0);
  if (there || back(state, vm, page) === Backing.done) return hostPage(state, vm, page);
  return -1;
}

/**
 * The guest gives page `page` up: its contents are gone, and it finds zeros when it next touches
 * it. False: a device is at it, or it is part of a larger page.
 */
export function giveUp(state: State, vm: number, page: number): boolean {
  const place = find(state, vm, page);
  if (place !== null && place.entry !== 0) {
    if (place.level > 0 || isBusy(state, place.entry)) return false;
    drop(state, vm, place.entry);
  }
  // Without a table nothing was there, and there is nothing to write down.
  if (place === null || absence(place.entry) === Absent.given) return place !== null;
  setEntry(state, vm, page, Absent.given);
  countGiven(state, vm, 1);
  return true;
}

/** Whether nothing is behind a guest page, so that something could be put there. */
export function isVacant(state: State, vm: number, page: number): boolean {
  if (!Number.isInteger(page) || page < 0 || page >= state.vm.get(vm, Vm.pages)) return false;
  const entry = find(state, vm, page)?.entry ?? 0;
  return entry === 0 || ((entry & PTE_V) === 0 && absence(entry) === Absent.given);
}

/**
 * What is behind page `page` of `from` goes to page `at` of `to`, which is vacant, contents and
 * all. False: it is part of a larger page, or reached by somebody, or there is no room.
 */
export function handOver(
  state: State,
  from: number,
  page: number,
  to: number,
  at: number,
): boolean {
  const place = find(state, from, page);
  if (place === null || place.level > 0 || (place.entry & (PTE_V | COPY)) !== PTE_V) return false;
  const host = ptePpn(place.entry);
  if (state.page.get(host, Page.pins) > 0) return false;
  const within = state.vm.get(to, Vm.held) < state.vm.get(to, Vm.limit);
  if (state.get(Cpu.free) < ROOM || !within) return false;
  setEntry(state, from, page, Absent.given);
  countGiven(state, from, 1);
  state.vm.add(from, Vm.held, -1);
  if ((find(state, to, at)?.entry ?? 0) !== 0) countGiven(state, to, -1);
  state.own(host, PageKind.guest, to);
  state.page.put(host, Page.guest, at);
  state.vm.add(to, Vm.held, 1);
  assert(mapHost(state, to, at, host, 0), 'pages: there was room for its tables');
  return true;
}

/** The guest reads in its device page how much it has given. */
function countGiven(state: State, vm: number, n: number): void {
  const given = state.vm.add(vm, Vm.ballooned, n);
  state.machine.store(state.vm.get(vm, Vm.ring) * PAGE_BYTES + Ring.ballooned * 4, given);
}

/** What an entry names is no longer the guest's. The entry itself is the caller's to overwrite. */
function drop(state: State, vm: number, entry: number): void {
  if ((entry & PTE_V) === 0) {
    if (absence(entry) === Absent.swapped) {
      freeSlot(state, ptePpn(entry));
      state.vm.add(vm, Vm.swapped, -1);
    } else if (absence(entry) === Absent.given) state.vm.add(vm, Vm.ballooned, -1);
    else if (entry !== 0) {
      if (absence(entry) === Absent.coming) state.vm.add(vm, Vm.swapped, -1);
      toLimbo(state, vm, ptePpn(entry));
    }
    return;
  }
  const host = ptePpn(entry);
  if ((entry & COPY) !== 0) leaveShared(state, vm, host);
  else if (state.page.get(host, Page.pins) > 0) toLimbo(state, vm, host);
  else {
    state.vm.add(vm, Vm.held, -1);
    give(state, host);
  }
}

/** A device still reaches a page of the dead: it is free when its last request has ended. */
function toLimbo(state: State, vm: number, host: number): void {
  state.own(host, PageKind.limbo, -1);
  state.vm.add(vm, Vm.held, -1);
  state.add(Cpu.limbo, 1);
}

/** A page that was taken for a guest and could not be mapped goes back. */
export function dropUnmapped(state: State, vm: number, host: number): void {
  state.vm.add(vm, Vm.held, -1);
  give(state, host);
}

/** All memory of a virtual machine goes back: its pages, its tables, its swap blocks. */
export function release(state: State, vm: number): void {
  const { machine } = state;
  const root = state.vm.get(vm, Vm.root);
  const down = (table: number, level: number): void => {
    machine.readPtes(table, 0, ENTRIES).forEach((entry, index) => {
      if (entry === 0) return;
      if (level > 0 && !isLeaf(entry)) down(ptePpn(entry), level - 1);
      else if (level > 0) {
        for (let n = 0; n < 1 << (9 * level); n++) drop(state, vm, pte(ptePpn(entry) + n, LEAF));
      } else drop(state, vm, entry);
      machine.writePtes([{ table, index, value: 0 }]);
    });
    give(state, table);
    state.vm.add(vm, Vm.tables, -1);
  };
  for (let n = 0; n < ROOT_PAGES; n++) down(root + n, 2);
  state.vm.put(vm, Vm.ring, 0);
}
