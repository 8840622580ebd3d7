/**
 * Pages of equal contents stand on one host page, and whoever stores to one gets a copy first. The
 * guests are not told: what is shared are contents, not names. A scan hashes pages in turn and
 * remembers each under its hash; a second page with the hash of a remembered one is compared word
 * by word, and only then given away. Waldspurger (OSDI 2002), section 4.
 *
 * It owes each guest that nothing but the time of a store tells it that a page was shared.
 */
import { PAGE_BYTES, PAGE_WORDS } from '../../machine/units.ts';
import { pte, PTE_V, PTE_W, ptePpn } from '../../machine/sv39.ts';
import { give, take } from './free-pages.ts';
import { COPY, find, LEAF, type Place, setEntry } from './second-stage.ts';
import { Cpu, Page, PageKind, type State, Vm } from './state.ts';

const SHARED_LEAF = (LEAF & ~PTE_W) | COPY;

/** Looks at the next `count` host pages. */
export function scan(state: State, count: number): void {
  const { pages } = state.machine;
  for (let n = 0; n < count; n++) {
    const next = state.get(Cpu.scan);
    const host = next < state.end || next >= pages ? state.end : next;
    state.put(Cpu.scan, host + 1);
    if (host < pages && isStill(state, host)) lookAt(state, host);
  }
}

/** A page of one guest, of 4 KiB, that no device is at and that is not the device page. */
function isStill(state: State, host: number): boolean {
  if (state.kind(host) !== PageKind.guest || state.page.get(host, Page.pins) > 0) return false;
  const vm = state.ownerOf(host);
  if (state.vm.get(vm, Vm.ring) === host) return false;
  return find(state, vm, state.page.get(host, Page.guest))?.level === 0;
}

function lookAt(state: State, host: number): void {
  const { page, hint, machine } = state;
  state.add(Cpu.scanned, 1);
  const hash = hashOf(state, host);
  // What has changed since the last time will change again: it is not worth a copy.
  const still = page.get(host, Page.hash) === hash;
  page.put(host, Page.hash, hash);
  if (!still) return;
  const at = (hash >>> 0) % hint.rows;
  const other = hint.get(at, 0) - 1;
  hint.put(at, 0, host + 1);
  if (other < state.end || other === host || other >= machine.pages) return;
  const kind = state.kind(other);
  if (kind !== PageKind.shared && !isStill(state, other)) return;
  if (page.get(other, Page.hash) !== hash || !isEqual(state, host, other)) return;
  hint.put(at, 0, other + 1);
  merge(state, other, host);
}

/** Two lanes in one: collisions cost a comparison, no more. */
function hashOf(state: State, host: number): number {
  const { machine } = state;
  let hash = 0x811c9dc5;
  for (let n = 0; n < PAGE_WORDS; n++) {
    hash = Math.imul(hash ^ machine.load(host * PAGE_BYTES + n * 4), 0x01000193);
    hash ^= hash >>> 15;
  }
  machine.work(2 * PAGE_WORDS);
  return hash | 0;
}

function isEqual(state: State, a: number, b: number): boolean {
  const { machine } = state;
  for (let n = 0; n < PAGE_WORDS; n++) {
    const at = n * 4;
    if (machine.load(a * PAGE_BYTES + at) !== machine.load(b * PAGE_BYTES + at)) return false;
  }
  return true;
}

/** Who stands on `host` stands on `other` from now on, and `host` is free. */
function merge(state: State, other: number, host: number): void {
  if (state.kind(other) === PageKind.guest) {
    const first = state.ownerOf(other);
    stand(state, first, state.page.get(other, Page.guest), other);
    state.own(other, PageKind.shared, -1);
    state.page.put(other, Page.guest, 1);
    state.add(Cpu.shared, 1);
  }
  const vm = state.ownerOf(host);
  stand(state, vm, state.page.get(host, Page.guest), other);
  state.page.add(other, Page.guest, 1);
  state.add(Cpu.merged, 1);
  give(state, host);
}

/** Whether a page of 4 KiB may be shared: no device is at it, and it is not the device page. */
export function canStand(state: State, vm: number, place: Place): boolean {
  const host = ptePpn(place.entry);
  if (place.level > 0 || state.vm.get(vm, Vm.ring) === host) return false;
  return isShared(place.entry) || state.page.get(host, Page.pins) === 0;
}

/** Guest page `page` of `child` stands where that of `parent` does, whose `place` may. */
export function standBeside(
  state: State,
  parent: number,
  child: number,
  page: number,
  place: Place,
): void {
  const host = ptePpn(place.entry);
  if (!isShared(place.entry)) {
    stand(state, parent, page, host);
    state.own(host, PageKind.shared, -1);
    state.page.put(host, Page.guest, 1);
    state.add(Cpu.shared, 1);
  }
  setEntry(state, child, page, pte(host, SHARED_LEAF));
  state.vm.add(child, Vm.shared, 1);
  state.page.add(host, Page.guest, 1);
}

function stand(state: State, vm: number, page: number, host: number): void {
  setEntry(state, vm, page, pte(host, SHARED_LEAF));
  state.vm.add(vm, Vm.held, -1);
  state.vm.add(vm, Vm.shared, 1);
}

/** A store to a shared page: its guest gets one of its own. False: there is no memory for it. */
export function privateCopy(state: State, vm: number, page: number, place: Place): boolean {
  const shared = ptePpn(place.entry);
  let host = shared;
  if (state.page.get(shared, Page.guest) === 1) state.add(Cpu.shared, -1);
  else {
    host = take(state);
    if (host < 0) return false;
    state.machine.copyPage(host, shared);
    state.page.put(host, Page.pins, 0);
    state.page.add(shared, Page.guest, -1);
    state.add(Cpu.broken, 1);
  }
  state.own(host, PageKind.guest, vm);
  state.page.put(host, Page.guest, page);
  state.vm.add(vm, Vm.shared, -1);
  state.vm.add(vm, Vm.held, 1);
  setEntry(state, vm, page, pte(host, LEAF));
  return true;
}

/** A guest gives up its part of a shared page. */
export function leaveShared(state: State, vm: number, host: number): void {
  state.vm.add(vm, Vm.shared, -1);
  if (state.page.add(host, Page.guest, -1) > 0) return;
  state.add(Cpu.shared, -1);
  if (state.page.get(host, Page.pins) > 0) {
    state.own(host, PageKind.limbo, -1);
    state.add(Cpu.limbo, 1);
  } else give(state, host);
}

/** Whether an entry stands for a page that others stand on, too. */
export const isShared = (entry: number): boolean => (entry & (PTE_V | COPY)) === (PTE_V | COPY);
