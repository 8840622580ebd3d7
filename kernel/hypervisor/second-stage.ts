/**
 * The second stage: which host page is behind a guest page, in Sv39x4 tables, and what a guest page
 * is when it is not there. Whatever the translation mode, these tables are the truth.
 *
 *     valid:      | host page                | - copied on a store (COPY) | U X W R V, A D |
 *     not valid:  | swap block, or host page | kind: swapped, leaving, coming, given up    |
 */
import { assert } from '../../machine/assert.ts';
import {
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
import { Page, PageKind, type State, Vm } from './state.ts';

export const LEAF = PTE_V | PTE_R | PTE_W | PTE_X | PTE_U | PTE_A | PTE_D;
/** A leaf that lacks W because others stand on the same host page. */
export const COPY = 1 << 8;
/** What an entry without V says, in bits 1 to 3; the number above the flags belongs to it. */
export const Absent = { never: 0, swapped: 2, leaving: 4, coming: 6, given: 8 } as const;
export const absence = (entry: number): number => entry & 14;

/** Where the second stage has a guest page: a leaf table, or a leaf of 2 MiB. */
export interface Place {
  readonly table: number;
  readonly index: number;
  readonly level: number;
  readonly entry: number;
}

/** The root is four pages: its index has two bits more. */
export const rootTable = (state: State, vm: number, page: number): number =>
  state.vm.get(vm, Vm.root) + Math.floor(page / ENTRIES ** 3);

/** Where the second stage has the page, by a walk in software; null if no table of it is there. */
export function find(state: State, vm: number, page: number): Place | null {
  let table = rootTable(state, vm, page);
  for (let level = 2; level >= 0; level--) {
    const index = vpnIndex(page, level);
    const entry = state.machine.readPtes(table, index, 1)[0] ?? 0;
    if (level === 0 || isLeaf(entry)) return { table, index, level, entry };
    if ((entry & PTE_V) === 0) return null;
    table = ptePpn(entry);
  }
  return null;
}

/** Host page behind a guest page by uncharged reads, for instruments; -1: it is not there. */
export function peekPage(state: State, vm: number, page: number): number {
  const { machine } = state;
  const root = machine.peek(state.vm.address(vm, Vm.root));
  if (root === null || !(page >= 0 && page < 2 ** 29)) return -1;
  let table = root + Math.floor(page / ENTRIES ** 3);
  for (let level = 2; level >= 0; level--) {
    const entry = (machine.peek(table * PAGE_BYTES + vpnIndex(page, level) * 8) ?? 0) >>> 0;
    if ((entry & PTE_V) === 0) return -1;
    if (isLeaf(entry)) return ptePpn(entry) + (page % (1 << (9 * level)));
    table = ptePpn(entry);
  }
  return -1;
}

/** Overwrites the entry of a page that has its tables, and lets nobody remember the old one. */
export function setEntry(state: State, vm: number, page: number, value: number): void {
  const place = find(state, vm, page);
  assert(place?.level === 0, 'pages: the page has a leaf table');
  state.machine.writePtes([{ table: place.table, index: place.index, value }]);
  if ((place.entry & PTE_V) !== 0) state.changed(vm, page);
}

/** A page that is on its way out is wanted again: it never left. */
export function rescue(state: State, vm: number, page: number, host: number): void {
  state.own(host, PageKind.guest, vm);
  setEntry(state, vm, page, pte(host, LEAF));
}

/** Whether a device reaches what the entry names. */
export function isBusy(state: State, entry: number): boolean {
  if ((entry & PTE_V) === 0) {
    return absence(entry) === Absent.leaving || absence(entry) === Absent.coming;
  }
  return (entry & COPY) === 0 && state.page.get(ptePpn(entry), Page.pins) > 0;
}
