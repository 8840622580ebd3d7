/**
 * Taking memory back, invisibly: read it beside the exokernel's file of this name. A guest can be
 * asked to give up pages of its own choice (a balloon), and need not; when free memory runs low,
 * pages are written to the swap area, whichever a blind choice hits, and their owners are not told.
 * Nobody names a page: the hypervisor cannot know which one matters.
 *
 *     free: ... high: stop taking ---- hard: take ---- 0: whoever needs a page waits
 *
 * From whom: the one that pays least for each page it holds, that is holds most against its shares,
 * and holds more than its reservation. Waldspurger (OSDI 2002), sections 2, 5.1 and 6.3, without
 * the idle memory tax.
 */
import { PAGE_BYTES } from '../../machine/units.ts';
import { PTE_V } from '../../machine/sv39.ts';
import { Ring } from './device-page.ts';
import { find } from './second-stage.ts';
import { isShared } from './sharing.ts';
import { interrupt, makeReady } from './slices.ts';
import { Cpu, type State, Vm, VmState } from './state.ts';
import { startOut } from './swap.ts';

/** Watermarks, in parts of memory, and at least so many pages. */
const HIGH = 0.06;
const HARD = 0.02;
const LEAST = 4;
const STEP = 8; // pages that one turn begins to write out
const TRIES = 16; // blind guesses before a search from the last one on
const SEARCH = 64; // pages that a search goes on for

const mark = (state: State, part: number): number =>
  Math.max(Math.round((LEAST * part) / HARD), Math.floor(part * state.machine.pages));

/** Free pages, those counted that are as good as free. */
const soonFree = (state: State): number => state.get(Cpu.free) + state.get(Cpu.leaving);

/** One step, if there is too little free memory: bounded work, at each turn of the CPU. */
export function reclaim(state: State): void {
  if (state.config.swap === undefined) return;
  const free = soonFree(state);
  const taking = state.get(Cpu.taking) !== 0;
  if (free >= mark(state, taking ? HIGH : HARD) && state.get(Cpu.waiters) === 0) {
    if (taking) state.put(Cpu.taking, 0);
    return;
  }
  if (!taking) state.put(Cpu.taking, 1);
  for (let n = 0; n < STEP; n++) {
    const vm = victim(state);
    if (vm >= 0 && takeOne(state, vm, false)) continue;
    if (state.get(Cpu.waiters) > 0 && state.get(Cpu.leaving) === 0) takeKept(state);
    return;
  }
}

/**
 * All that could go is needed for what its owner does now, and somebody waits. So that one gets on
 * at least, the first that waited becomes the elder: the others must do without.
 */
function takeKept(state: State): void {
  const { vm: row } = state;
  for (let vm = 0; vm < row.rows && state.get(Cpu.elder) === 0; vm++) {
    if (row.get(vm, Vm.waitsFor) === -1) state.put(Cpu.elder, vm + 1);
  }
  for (let vm = 0; vm < row.rows; vm++) {
    if (vm + 1 === state.get(Cpu.elder)) continue;
    if (row.get(vm, Vm.held) > row.get(vm, Vm.reservation) && takeOne(state, vm, true)) return;
  }
  // Nobody else has any: of its own, what it does not need for what it does now.
  const elder = state.get(Cpu.elder) - 1;
  if (elder >= 0) takeOne(state, elder, false);
}

/** The elder got on, or is gone. */
export function stepDown(state: State, vm: number): void {
  if (vm < 0 || state.vm.get(vm, Vm.waits) === 0) return;
  state.vm.put(vm, Vm.waits, 0);
  if (state.get(Cpu.elder) !== vm + 1) return;
  state.put(Cpu.elder, 0);
  wakeWaiters(state);
}

/** Who must give a page: over its limit and in want, or the one that pays least. -1: nobody. */
function victim(state: State): number {
  const { vm: row } = state;
  const elder = state.get(Cpu.elder);
  let least = -1;
  let price = Number.POSITIVE_INFINITY;
  for (let vm = 0; vm < row.rows; vm++) {
    const is = row.get(vm, Vm.state);
    if (is === VmState.free || is === VmState.stopped || is === VmState.dying) continue;
    const held = row.get(vm, Vm.held);
    if (row.get(vm, Vm.waitsFor) === -1 && held >= row.get(vm, Vm.limit)) return vm;
    if (held <= row.get(vm, Vm.reservation) || vm + 1 === elder) continue;
    const pays = row.get(vm, Vm.shares) / held;
    if (pays < price) {
      price = pays;
      least = vm;
    }
  }
  return least;
}

/** Begins to write some page of `vm` out. False: none was found that can go now. */
function takeOne(state: State, vm: number, evenKept: boolean): boolean {
  const pages = state.vm.get(vm, Vm.pages) - 1; // not the device page
  let page = 0;
  for (let n = 0; n < TRIES + SEARCH; n++) {
    page = n < TRIES ? random(state) % pages : (page + 1) % pages;
    const place = find(state, vm, page);
    if (place === null || (place.entry & PTE_V) === 0 || isShared(place.entry)) continue;
    if (startOut(state, vm, page, place, evenKept)) return true;
  }
  return false;
}

/** xorshift32: blind on purpose, or it would fight the guests' own choice. */
function random(state: State): number {
  let x = state.get(Cpu.random);
  if (x === 0) x = 0x9e3779b9;
  x ^= x << 13;
  x ^= x >>> 17;
  x ^= x << 5;
  state.put(Cpu.random, x);
  return x >>> 0;
}

/** Asks a guest to give up `pages` of its own choice, by its device page and an interrupt. */
export function ask(state: State, vm: number, pages: number): void {
  state.vm.put(vm, Vm.target, pages);
  state.machine.store(state.vm.get(vm, Vm.ring) * PAGE_BYTES + Ring.target * 4, pages);
  interrupt(state, vm);
}

/** A virtual machine is blocked until a page of its own is there, or any page is free. */
export function block(state: State, vm: number): void {
  if (state.vm.get(vm, Vm.waitsFor) === -1) state.add(Cpu.waiters, 1);
}

/** One that waits for any page, and none will ever be free: nothing runs, nothing is under way. */
export function hopeless(state: State): number {
  if (state.get(Cpu.waiters) === 0 || state.get(Cpu.flying) > 0) return -1;
  const { vm: row } = state;
  for (let vm = 0; vm < row.rows; vm++) {
    const waits = row.get(vm, Vm.state) === VmState.blocked && row.get(vm, Vm.waitsFor) === -1;
    if (waits) return vm;
  }
  return -1;
}

/** Memory may be free again: whoever waits for any page tries once more. */
export function wakeWaiters(state: State): void {
  if (state.get(Cpu.waiters) === 0) return;
  const { vm: row } = state;
  for (let vm = 0; vm < row.rows; vm++) {
    if (row.get(vm, Vm.state) === VmState.blocked && row.get(vm, Vm.waitsFor) === -1)
      unblock(state, vm);
  }
}

/** What it waited for is there, or may be: it runs again. */
export function unblock(state: State, vm: number): void {
  const { vm: row } = state;
  if (row.get(vm, Vm.state) !== VmState.blocked) return;
  if (row.get(vm, Vm.waitsFor) === -1) state.add(Cpu.waiters, -1);
  row.put(vm, Vm.waitsFor, 0);
  makeReady(state, vm, true);
}
