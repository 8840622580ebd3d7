/**
 * The swap area: blocks of the host's disk that hold guest pages while their host pages serve
 * somebody else. The guest is not told. A page comes back bit for bit; if the disk cannot give it
 * back, the guest is stopped and said so.
 *
 *     guest --(chosen)--> leaving --(written)--> swapped --(touched)--> coming --(read)--> guest
 *                          \--(touched)--> guest: it never left
 */
import { pte, ptePpn } from '../../machine/sv39.ts';
import { give, unpin } from './free-pages.ts';
import { Absent, COPY, isBusy, LEAF, type Place, rescue, setEntry } from './second-stage.ts';
import { REQUEST_WRITE } from '../../machine/disk-queues.ts';
import { fill, freeTag } from './requests.ts';
import { Cpu, Page, PageKind, Slot, type State, TagState, Vm } from './state.ts';

/** All blocks of the area are free. */
export function startSlots(state: State): void {
  const blocks = state.config.swap?.blocks ?? 0;
  for (let slot = 0; slot < blocks; slot++) {
    state.slot.put(slot, Slot.next, slot + 1 < blocks ? slot + 2 : 0);
  }
  state.put(Cpu.freeSlot, blocks > 0 ? 1 : 0);
  state.put(Cpu.freeSlots, blocks);
}

function takeSlot(state: State, vm: number): number {
  const slot = state.get(Cpu.freeSlot) - 1;
  if (slot < 0) return -1;
  state.put(Cpu.freeSlot, state.slot.get(slot, Slot.next));
  state.add(Cpu.freeSlots, -1);
  state.slot.put(slot, Slot.vm, vm + 1);
  return slot;
}

export function freeSlot(state: State, slot: number): void {
  state.slot.put(slot, Slot.vm, 0);
  state.slot.put(slot, Slot.next, state.get(Cpu.freeSlot));
  state.put(Cpu.freeSlot, slot + 1);
  state.add(Cpu.freeSlots, 1);
}

/** Transfers outward at one time: the other tags are for pages that somebody waits for. */
const LEAVING_MAX = 16;
/** A guest's last pages back stay: one access may need that many, its tables' included. */
const RECENT = 8;

/** Whether a page came back for what its guest is doing now: or it would never get done. */
function isKept(state: State, vm: number, host: number): boolean {
  const ins = state.vm.get(vm, Vm.ins);
  const from = Math.min(state.vm.get(vm, Vm.base), ins - RECENT);
  return state.page.get(host, Page.kept) > Math.max(0, from);
}

/**
 * Begins to write a page out. False: a device is at it, there is no room, or it is needed now and
 * `evenKept` is not set.
 */
export function startOut(
  state: State,
  vm: number,
  page: number,
  place: Place,
  evenKept: boolean,
): boolean {
  if (place.level > 0 || (place.entry & COPY) !== 0 || isBusy(state, place.entry)) return false;
  const host = ptePpn(place.entry);
  if (!evenKept && isKept(state, vm, host)) return false;
  if (state.get(Cpu.leaving) >= LEAVING_MAX) return false;
  const slot = takeSlot(state, vm);
  if (slot < 0) return false;
  state.page.put(host, Page.slot, slot + 1);
  state.own(host, PageKind.leaving, vm);
  setEntry(state, vm, page, pte(host, Absent.leaving));
  state.add(Cpu.leaving, 1);
  state.vm.add(vm, Vm.leaving, 1);
  transfer(state, TagState.out, vm, host, slot);
  return true;
}

/** Begins to read a page back into `host`. */
export function startIn(state: State, vm: number, page: number, host: number, slot: number): void {
  state.own(host, PageKind.coming, vm);
  state.page.put(host, Page.slot, slot + 1);
  state.page.put(host, Page.kept, state.vm.add(vm, Vm.ins, 1));
  setEntry(state, vm, page, pte(host, Absent.coming));
  transfer(state, TagState.in, vm, host, slot);
}

/** The page is pinned until the transfer has ended, whatever becomes of it meanwhile. */
function transfer(state: State, kind: number, vm: number, host: number, slot: number): void {
  state.page.add(host, Page.pins, 1);
  const block = (state.config.swap?.firstBlock ?? 0) + slot;
  const flags = kind === TagState.out ? REQUEST_WRITE : 0;
  fill(state, freeTag(state), kind, { vm, guestTag: host, flags, block, pages: [host] });
}

/** A page has been written out: its host page is free, unless it was wanted again meanwhile. */
export function wentOut(state: State, host: number, ok: boolean): void {
  const slot = state.page.get(host, Page.slot) - 1;
  const vm = state.ownerOf(host);
  const kind = state.kind(host);
  state.add(Cpu.leaving, -1);
  unpin(state, host);
  if (kind !== PageKind.leaving) {
    // It was wanted again meanwhile, or its guest is gone.
    if (ok) freeSlot(state, slot);
    return;
  }
  const page = state.page.get(host, Page.guest);
  state.vm.add(vm, Vm.leaving, -1);
  if (!ok) {
    // The medium did not take it: it stays, and that block is not tried again.
    rescue(state, vm, page, host);
    return;
  }
  setEntry(state, vm, page, pte(slot, Absent.swapped));
  state.add(Cpu.swapOuts, 1);
  state.vm.add(vm, Vm.swapped, 1);
  state.vm.add(vm, Vm.held, -1);
  give(state, host);
}

/** A page has been read back, or cannot be. Null: its guest is gone, and the page free. */
export function cameIn(state: State, host: number, ok: boolean): boolean | null {
  const slot = state.page.get(host, Page.slot) - 1;
  const vm = state.ownerOf(host);
  const kind = state.kind(host);
  unpin(state, host);
  if (kind !== PageKind.coming) {
    freeSlot(state, slot);
    return null;
  }
  if (!ok) return false; // it stays as it is: its guest ends
  state.own(host, PageKind.guest, vm);
  setEntry(state, vm, state.page.get(host, Page.guest), pte(host, LEAF));
  freeSlot(state, slot);
  state.add(Cpu.swapIns, 1);
  state.vm.add(vm, Vm.swapped, -1);
  return true;
}
