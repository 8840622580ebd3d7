/**
 * Guest memory. The guest sees contiguous pages from 0; the second stage (Sv39x4) says which host
 * pages they are, and the guest never learns. Nothing is checked per mapping: a guest that writes
 * its own tables can only ever name what the second stage gives it.
 *
 * Trusts no number that comes from a guest; owes each guest zeroed pages that nobody else has.
 */
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
import { assert } from '../../machine/assert.ts';
import { Cpu, type State, Vm } from './state.ts';

const LEAF = PTE_V | PTE_R | PTE_W | PTE_X | PTE_U | PTE_A | PTE_D;
const ROOT_PAGES = 4;

/** Takes `count` host pages that begin at a multiple of `align`, low ones; -1 if none are left. */
function take(state: State, count: number, align: number): number {
  const next = state.cpu.get(0, Cpu.nextPage);
  const first = Math.ceil(next / align) * align;
  if (first + count > state.cpu.get(0, Cpu.topPage)) return -1;
  state.cpu.put(0, Cpu.nextPage, first + count);
  return first;
}

/** Takes an aligned megapage from the top of memory, so that small pages do not split it. */
function takeMegapage(state: State): number {
  const top = state.cpu.get(0, Cpu.topPage);
  const first = Math.floor(top / MEGAPAGE_PAGES) * MEGAPAGE_PAGES - MEGAPAGE_PAGES;
  if (first < state.cpu.get(0, Cpu.nextPage)) return -1;
  state.cpu.put(0, Cpu.topPage, first);
  return first;
}

function takeTable(state: State, count = 1, align = 1): number {
  const first = take(state, count, align);
  assert(first >= 0, 'hypervisor: memory suffices for second-stage tables');
  for (let n = 0; n < count; n++) state.machine.zeroPage(first + n);
  return first;
}

/** An empty second stage; its root page. */
export function makeSecondStage(state: State): number {
  return takeTable(state, ROOT_PAGES, ROOT_PAGES);
}

/** Backs all of a guest's memory now, with pages as large as the configuration says. */
export function populate(state: State, vm: number): void {
  const pages = state.vm.get(vm, Vm.pages);
  const huge = state.config.secondStage === '2MiB';
  const step = huge ? MEGAPAGE_PAGES : 1;
  for (let page = 0; page < pages; page += step) {
    const host = huge ? takeMegapage(state) : take(state, 1, 1);
    assert(host >= 0, 'hypervisor: memory suffices for its guests');
    for (let n = 0; n < step; n++) state.machine.zeroPage(host + n);
    mapHost(state, vm, page, host, huge ? 1 : 0);
  }
}

/** Backs one page on first touch. False: the guest has no such page, or memory is used up. */
export function back(state: State, vm: number, page: number): boolean {
  if (page < 0 || page >= state.vm.get(vm, Vm.pages)) return false;
  if (hostPage(state, vm, page) >= 0) return false; // it is there: the fault has another reason
  // The page, and two tables that it may need: all of them or none.
  const spare = state.cpu.get(0, Cpu.topPage) - state.cpu.get(0, Cpu.nextPage);
  const host = spare < 3 ? -1 : take(state, 1, 1);
  if (host < 0) return false;
  state.machine.zeroPage(host);
  mapHost(state, vm, page, host, 0);
  return true;
}

function mapHost(state: State, vm: number, page: number, host: number, level: number): void {
  const { machine } = state;
  let table = state.vm.get(vm, Vm.root) + Math.floor(page / (ENTRIES * ENTRIES * ENTRIES));
  for (let at = 2; at > level; at--) {
    const index = vpnIndex(page, at);
    const entry = machine.readPtes(table, index, 1)[0] ?? 0;
    if ((entry & PTE_V) === 0) {
      const fresh = takeTable(state);
      machine.writePtes([{ table, index, value: pte(fresh, PTE_V) }]);
      table = fresh;
    } else table = ptePpn(entry);
  }
  machine.writePtes([{ table, index: vpnIndex(page, level), value: pte(host, LEAF) }]);
}

/** Host page behind a guest page, by a walk of the tables in software; -1 if there is none. */
export function hostPage(state: State, vm: number, page: number): number {
  if (!Number.isInteger(page) || page < 0 || page >= state.vm.get(vm, Vm.pages)) return -1;
  let table = state.vm.get(vm, Vm.root);
  for (let level = 2; level >= 0; level--) {
    const entry = state.machine.readPtes(table, vpnIndex(page, level), 1)[0] ?? 0;
    if ((entry & PTE_V) === 0) return -1;
    if (isLeaf(entry)) return ptePpn(entry) + (page % (1 << (9 * level)));
    table = ptePpn(entry);
  }
  return -1;
}

/** The same, backing it first if need be: what the hypervisor must reach itself. */
export function reach(state: State, vm: number, page: number): number {
  const host = hostPage(state, vm, page);
  if (host >= 0) return host;
  return back(state, vm, page) ? hostPage(state, vm, page) : -1;
}
