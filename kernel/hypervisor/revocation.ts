/**
 * Taking memory back, invisibly: read it beside the exokernel's file of this name. A guest can be
 * asked to give up pages of its own choice (a balloon), and need not; when free memory runs low,
 * pages are written to the swap area, whichever a blind choice hits, and their owners are not told.
 * Nobody names a page: the hypervisor cannot know which one matters.
 *
 *     free: ... high: enough ---- soft: ask ---- hard: take ---- low: only who pays best gets any
 *
 * Without `taking: 'balloon'` nobody is asked but by an operator, and what is taken is taken until
 * the high mark. With it a guest that is asked and does not answer is left alone, until it gives,
 * and the rest is taken, until the soft mark. What is asked for is asked back when there is enough.
 *
 * From whom: the one that pays least for each page it holds, that is holds most against its shares,
 * and holds more than its reservation. Waldspurger (OSDI 2002), sections 2, 5.1 and 6.3, without
 * the idle memory tax.
 */
import { PAGE_BYTES } from '../../machine/units.ts';
import { PTE_V } from '../../machine/sv39.ts';
import { Ring } from './device-page.ts';
import { loadTick, storeTick } from '../supervisor.ts';
import { find } from './second-stage.ts';
import { isPassed } from './passthrough.ts';
import { isShared } from './sharing.ts';
import { interrupt, makeReady } from './slices.ts';
import { Cpu, type State, Vm, VmState } from './state.ts';
import { startOut } from './swap.ts';

/** Watermarks, in parts of memory, and at least so many pages: the last is of the hard mark. */
const HIGH = 0.06;
const SOFT = 0.04;
const HARD = 0.02;
const LOW = 0.01;
const LEAST = 4;
/** Looks at a guest that gives nothing of what it was asked for, before it counts as deaf. */
const DEAF = 3;
const STEP = 8; // pages that one turn begins to write out
const TRIES = 16; // blind guesses before a search from the last one on
const SEARCH = 64; // pages that a search goes on for

const mark = (state: State, part: number): number =>
  Math.max(Math.round((LEAST * part) / HARD), Math.floor(part * state.machine.pages));

/** Free pages, those counted that are as good as free. */
const soonFree = (state: State): number => state.get(Cpu.free) + state.get(Cpu.leaving);

/** One step, if there is too little free memory: bounded work, at each turn of the CPU. */
export function reclaim(state: State): void {
  const asks = state.config.taking === 'balloon';
  if (asks) balance(state);
  if (state.config.swap === undefined) return;
  if (state.get(Cpu.tight) !== 0) tighten(state);
  const free = soonFree(state);
  const taking = state.get(Cpu.taking) !== 0;
  const enough = asks ? SOFT : HIGH;
  if (free >= mark(state, taking ? enough : HARD) && state.get(Cpu.waiters) === 0) {
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

/** From now on `vm` may hold so many pages. */
export function lowerLimit(state: State, vm: number, pages: number): void {
  state.vm.put(vm, Vm.limit, pages);
  state.put(Cpu.tight, 1);
}

/** Whoever holds more than he may loses some; in steps, as all that is taken. */
function tighten(state: State): void {
  const { vm: row } = state;
  let over = false;
  for (let vm = 0; vm < row.rows; vm++) {
    if (!isThere(state, vm)) continue;
    for (let n = 0; n < STEP && keeps(state, vm) > row.get(vm, Vm.limit); n++) {
      if (!takeOne(state, vm, false)) break;
    }
    over ||= keeps(state, vm) > row.get(vm, Vm.limit);
  }
  if (!over) state.put(Cpu.tight, 0);
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
    if (keeps(state, vm) > row.get(vm, Vm.reservation) && takeOne(state, vm, true)) return;
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
  for (let vm = 0; vm < row.rows; vm++) {
    const wants = isThere(state, vm) && row.get(vm, Vm.waitsFor) === -1;
    if (wants && keeps(state, vm) >= row.get(vm, Vm.limit)) return vm;
  }
  const elder = state.get(Cpu.elder);
  return leastPaying(state, (_, vm) => {
    return keeps(state, vm) > row.get(vm, Vm.reservation) && vm + 1 !== elder;
  });
}

/** Of those who may be chosen, who pays least for each page it holds; -1 if none may. */
function leastPaying(state: State, may: (state: State, vm: number) => boolean): number {
  const { vm: row } = state;
  let least = -1;
  let price = Number.POSITIVE_INFINITY;
  for (let vm = 0; vm < row.rows; vm++) {
    if (!isThere(state, vm) || !may(state, vm)) continue;
    const missing = Math.max(0, row.get(vm, Vm.target) - row.get(vm, Vm.ballooned));
    const pays = row.get(vm, Vm.shares) / Math.max(1, keeps(state, vm) - missing);
    if (pays < price) {
      price = pays;
      least = vm;
    }
  }
  return least;
}

/** Pages that it holds and will go on to hold. */
const keeps = (state: State, vm: number): number =>
  state.vm.get(vm, Vm.held) - state.vm.get(vm, Vm.leaving);

/** It holds memory and will use it. */
function isThere(state: State, vm: number): boolean {
  const is = state.vm.get(vm, Vm.state);
  const { free, stopped, dying, shell } = VmState;
  return is !== free && is !== stopped && is !== dying && is !== shell;
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

// ---- asking -------------------------------------------------------------------------------------

/** An operator asks a guest to give up `pages` of its own choice. */
export function ask(state: State, vm: number, pages: number): void {
  state.vm.put(vm, Vm.wish, pages);
  tell(state, vm);
}

/** What a guest is asked for, by its device page and an interrupt: the larger of two wishes. */
function tell(state: State, vm: number): void {
  const { vm: row, machine } = state;
  const target = Math.max(row.get(vm, Vm.wish), row.get(vm, Vm.asked));
  if (target === row.get(vm, Vm.target)) return;
  row.put(vm, Vm.target, target);
  machine.store(row.get(vm, Vm.ring) * PAGE_BYTES + Ring.target * 4, target);
  interrupt(state, vm);
}

/** Between the marks guests are asked; above the high one less is asked of them. Once a slice. */
function balance(state: State): void {
  const { machine } = state;
  const free = soonFree(state);
  const high = mark(state, HIGH);
  const asking = state.get(Cpu.asking) !== 0;
  if (asking && free >= high) state.put(Cpu.asking, 0);
  else if (!asking && free < mark(state, SOFT)) state.put(Cpu.asking, 1);
  else if (!asking && (free <= high || state.get(Cpu.asked) === 0)) return;
  const now = machine.now();
  if (now < loadTick(state.cpu, 0, Cpu.nextLook)) return;
  storeTick(state.cpu, 0, Cpu.nextLook, now + state.config.sliceCycles);
  let need = high - free - lookAtAnswers(state);
  // In few steps, whatever there is of memory: each looks at every row.
  for (const step = stepOf(need); need > 0;) {
    const vm = leastPaying(state, mayBeAsked);
    if (vm < 0) return;
    const pages = Math.min(step, need, askable(state, vm));
    askOf(state, vm, pages);
    need -= pages;
  }
  let more = free - high;
  for (const step = stepOf(more); more > 0 && state.get(Cpu.asked) > 0;) {
    const vm = bestPaying(state);
    const pages = Math.min(step, more, state.vm.get(vm, Vm.asked));
    askOf(state, vm, -pages);
    more -= pages;
  }
}

const stepOf = (pages: number): number => Math.max(STEP, Math.ceil(pages / STEP));

/**
 * Below the low mark: whether `vm`, which wants one more page, is the one that pays least for what
 * it holds. It waits, until it has waited in vain so often that it is the elder.
 */
export function mustWait(state: State, vm: number): boolean {
  const { taking, swap } = state.config;
  if (taking !== 'balloon' || swap === undefined) return false;
  return state.get(Cpu.free) < mark(state, LOW) && victim(state) === vm;
}

function askOf(state: State, vm: number, pages: number): void {
  state.vm.add(vm, Vm.asked, pages);
  state.add(Cpu.asked, pages);
  tell(state, vm);
}

/** Nothing is asked of one that has ended. */
export function askNoMore(state: State, vm: number): void {
  state.add(Cpu.asked, -state.vm.get(vm, Vm.asked));
  state.vm.put(vm, Vm.asked, 0);
}

/** Who gave something since the last look, and who did not; pages that are still to be expected. */
function lookAtAnswers(state: State): number {
  const { vm: row } = state;
  let coming = 0;
  for (let vm = 0; vm < row.rows; vm++) {
    if (!isThere(state, vm)) continue;
    const [given, before] = [row.get(vm, Vm.ballooned), row.get(vm, Vm.answered)];
    const missing = row.get(vm, Vm.target) - given;
    row.put(vm, Vm.answered, given);
    const deaf = missing <= 0 || given > before ? 0 : row.get(vm, Vm.deaf) + 1;
    row.put(vm, Vm.deaf, Math.min(deaf, DEAF));
    if (missing > 0 && deaf < DEAF) coming += missing;
  }
  return coming;
}

/** Pages that it could still be asked for: what it holds, asked for ones left out. */
function askable(state: State, vm: number): number {
  const { vm: row } = state;
  const missing = Math.max(0, row.get(vm, Vm.target) - row.get(vm, Vm.ballooned));
  const all = row.get(vm, Vm.pages) - 1 - row.get(vm, Vm.target);
  return Math.min(all, keeps(state, vm) - missing - row.get(vm, Vm.reservation));
}

const mayBeAsked = (state: State, vm: number): boolean =>
  state.vm.get(vm, Vm.deaf) < DEAF && !isPassed(state, vm) && askable(state, vm) > 0;

/** Of those who are asked for pages, who pays most for what it holds. */
function bestPaying(state: State): number {
  const { vm: row } = state;
  let best = -1;
  let price = -1;
  for (let vm = 0; vm < row.rows; vm++) {
    if (!isThere(state, vm) || row.get(vm, Vm.asked) === 0) continue;
    const pays = row.get(vm, Vm.shares) / Math.max(1, row.get(vm, Vm.held));
    if (pays <= price) continue;
    price = pays;
    best = vm;
  }
  return best;
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
