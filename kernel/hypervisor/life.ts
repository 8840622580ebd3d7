/**
 * Virtual machines come and go: created from nothing or from a prepared shell, paused, destroyed.
 * A creation is refused before anything is changed, in words, if what it promises could not be
 * kept; a death gives everything back, at the latest when the last device request has ended.
 */
import { assert } from '../../machine/assert.ts';
import type { Image } from '../../machine/user-port.ts';
import type { Supervisor } from '../supervisor.ts';
import { connect } from './disk.ts';
import {
  dropUnmapped,
  hostPage,
  makeSecondStage,
  mapHost,
  populate,
  release,
  takeFor,
} from './pages.ts';
import { cannotPass, isPassed, pass, takeBack } from './passthrough.ts';
import { DEFAULT_WEIGHT } from './schedulers.ts';
import { COMPOSED_MAX, COMPOSED_MIN } from './composed.ts';
import { POOL_MAX, POOL_MIN } from './shadow-tables.ts';
import { makeReady, makeUnready, startClock } from './slices.ts';
import { Cpu, type DiskModel, DISKS, Page, type State, Vm, VmState } from './state.ts';

/** A guest to boot, and what its machine is to have. */
export interface Guest {
  readonly supervisor: Supervisor;
  readonly images: readonly Image[];
  /** guest-physical pages, one of which is the disk ring's */
  readonly pages: number;
  readonly firstBlock: number;
  readonly blocks: number;
  readonly channel: number;
  /** let its supervisor say to whom counters are attributed: for measuring tenants inside */
  readonly accounts?: boolean;
  /** how its memory is translated: in two stages, or in one by shadow tables, or by its own */
  readonly translation?: Translation;
  /** pages of shadow tables, 16 to 512; default: one for 16 pages of the guest */
  readonly shadowPages?: number;
  /** nested: tables for guests of its own in guest mode, 16 to 512; default 0, and it has none */
  readonly nestedPages?: number;
  /** of the CPU, against others'; default 256 */
  readonly weight?: number;
  /** percent of the CPU that it may have; default no cap */
  readonly cap?: number;
  /** pages that are never taken from it; default 0, or all if its disk is passed through */
  readonly reservation?: number;
  /** host pages that it may hold; default all of its own */
  readonly limit?: number;
  /** its claim to memory between the two, against others'; default 1000 */
  readonly shares?: number;
  /** by which model it has its disk: see disk.ts, passthrough.ts; default 'emulated' */
  readonly disk?: DiskModel;
  /** test mode: each handler of its supervisor is rolled back at each of its stores once */
  readonly restarts?: boolean;
}

export type Translation = 'nested' | 'shadow' | 'paravirt';

/** Why something was not done. Nothing has changed. */
export interface Refusal {
  readonly refused: string;
}
export const refuse = (refused: string): Refusal => ({ refused });

/** Of second-stage leaves, by their size. */
const LEVEL_OF = { '4KiB': 0, '2MiB': 1, '1GiB': 2 } as const;
const LEAST_PAGES = 16; // that a limit leaves: one handler must find all that it touches
const DEFAULT_SHARES = 1000;

/** Pages of second-stage tables for so many guest pages, at most. */
const tablesFor = (pages: number): number =>
  4 + Math.ceil(pages / 2 ** 18) + Math.ceil(pages / 512);

const reservationOf = ({ reservation, disk, pages }: Guest): number =>
  reservation ?? (disk === 'passthrough' ? pages : 0);

/** Why the guest cannot have the blocks that it is to have; '' if it can. */
function cannotHave(state: State, { firstBlock, blocks }: Guest): string {
  const { vm: row, config, machine } = state;
  if (blocks === 0) return '';
  const [first, end] = [firstBlock, firstBlock + blocks];
  const mine = `blocks ${first} to ${end - 1}`;
  const sound = Number.isInteger(first) && Number.isInteger(blocks) && first >= 0 && blocks > 0;
  if (!sound || end > machine.disk.blocks) {
    return `${mine}: the disk has 0 to ${machine.disk.blocks - 1}`;
  }
  const meets = (from: number, count: number): boolean => from < end && first < from + count;
  const { swap } = config;
  if (swap !== undefined && meets(swap.firstBlock, swap.blocks)) {
    return `${mine}: the swap area is there, from ${swap.firstBlock} on`;
  }
  for (let vm = 0; vm < row.rows; vm++) {
    const is = row.get(vm, Vm.state);
    if (is === VmState.free || is === VmState.shell) continue;
    const [from, count] = [row.get(vm, Vm.firstBlock), row.get(vm, Vm.blocks)];
    if (meets(from, count)) {
      return `${mine}: virtual machine ${vm} has ${from} to ${from + count - 1}; none are shared`;
    }
  }
  return '';
}

/** Whether a guest can be made, or why not. */
export function admit(state: State, guest: Guest): Refusal | null {
  const { pages } = guest;
  const { swap } = state.config;
  const [reservation, limit] = [reservationOf(guest), guest.limit ?? pages];
  const whole = (n: number): boolean => Number.isInteger(n) && n >= 0;
  if (!whole(pages) || pages < 2 || pages > 2 ** 20) {
    return refuse(`a machine of ${pages} pages: give it 2 to 1048576`);
  }
  if (!whole(reservation) || reservation > limit || !whole(limit) || limit > pages) {
    return refuse(
      `reservation ${reservation}, limit ${limit}, pages ${pages}: none above the next`,
    );
  }
  if (limit < pages && (swap === undefined || limit < LEAST_PAGES)) {
    return refuse(`a limit below its pages takes a swap area, and at least ${LEAST_PAGES} pages`);
  }
  const no = cannotPass(state, guest) || cannotHave(state, guest);
  if (no !== '') return refuse(no);
  const cap = guest.cap ?? 0;
  if (!whole(cap) || cap > 100) return refuse(`a cap of ${cap} percent: give 1 to 100, or none`);
  if (cap > 0 && state.config.scheduler !== 'credit') {
    return refuse('a cap takes the credit scheduler');
  }
  const shadows = guest.shadowPages ?? POOL_MIN;
  if (!whole(shadows) || shadows < POOL_MIN || shadows > POOL_MAX) {
    return refuse(`${shadows} shadow pages: give ${POOL_MIN} to ${POOL_MAX}`);
  }
  if (state.machine.regime().lowered === true) {
    return refuse(
      'a machine under shadow tables runs no machines: translate its own in two stages',
    );
  }
  if (guest.translation !== 'shadow' && state.machine.guestMode === null) {
    return refuse('this machine has one stage: give it nestedPages, or its guests shadow tables');
  }
  const nested = guest.nestedPages ?? 0;
  if (nested !== 0 && (!whole(nested) || nested < COMPOSED_MIN || nested > COMPOSED_MAX)) {
    return refuse(`${nested} nested pages: give ${COMPOSED_MIN} to ${COMPOSED_MAX}, or none`);
  }
  if (nested !== 0 && guest.translation === 'shadow') {
    return refuse('under shadow tables there is no guest mode: no nested pages');
  }
  const weight = guest.weight ?? DEFAULT_WEIGHT;
  if (!whole(weight) || weight < 1 || weight > 4096) {
    return refuse(`a weight of ${weight}: give 1 to 4096`);
  }
  const memory = state.machine.pages - state.end;
  const reserved = state.get(Cpu.reserved) + reservation + tablesFor(pages);
  if (reservation > 0 && reserved > memory) {
    return refuse(`${reserved} pages would be reserved, of ${memory} that there are`);
  }
  const promised = state.get(Cpu.promised) + pages - reservation;
  if (swap !== undefined && promised > swap.blocks) {
    return refuse(`the swap area has ${swap.blocks} blocks, and could be asked for ${promised}`);
  }
  return null;
}

/** Why `vm`'s limit cannot become `pages`; null if it can. */
export function cannotLimit(state: State, vm: number, pages: number): Refusal | null {
  const { vm: row } = state;
  const [all, reservation] = [row.get(vm, Vm.pages), row.get(vm, Vm.reservation)];
  if (state.config.swap === undefined) return refuse('a limit takes a swap area');
  const least = Math.max(LEAST_PAGES, reservation);
  if (Number.isInteger(pages) && pages >= least && pages <= all) return null;
  return refuse(`a limit of ${pages} pages: give ${least} to ${all}`);
}

/** Makes row `vm` a virtual machine that is ready to run. Refused: memory is used up. */
export function makeVm(state: State, vm: number, guest: Guest): Refusal | null {
  const { vm: row } = state;
  const shell = row.get(vm, Vm.state) === VmState.shell;
  if (!shell && !makeShell(state, vm, guest.pages)) return refuse('there is no memory for it');
  const reservation = reservationOf(guest);
  row.put(vm, Vm.firstBlock, guest.firstBlock);
  row.put(vm, Vm.blocks, guest.blocks);
  row.put(vm, Vm.disk, DISKS.indexOf(guest.disk ?? 'emulated'));
  row.put(vm, Vm.channel, guest.channel);
  row.put(vm, Vm.weight, guest.weight ?? DEFAULT_WEIGHT);
  row.put(vm, Vm.cap, guest.cap ?? 0);
  row.put(vm, Vm.epoch, state.get(Cpu.epoch) - 1);
  row.put(vm, Vm.reservation, reservation);
  row.put(vm, Vm.limit, guest.limit ?? guest.pages);
  row.put(vm, Vm.shares, guest.shares ?? DEFAULT_SHARES);
  const { backing, secondStage } = state.config;
  const all = backing === 'populate' || guest.disk === 'passthrough';
  if (all && !populate(state, vm, LEVEL_OF[secondStage])) {
    dropShell(state, vm);
    return refuse('there is no memory for all of its pages');
  }
  state.add(Cpu.shells, -1);
  if (row.get(vm, Vm.ring) === 0) pinRing(state, vm, hostPage(state, vm, guest.pages - 1));
  connect(state, vm);
  if (isPassed(state, vm)) pass(state, vm);
  state.add(Cpu.reserved, reservation + tablesFor(guest.pages));
  state.add(Cpu.promised, guest.pages - reservation);
  startClock(state, vm);
  makeReady(state, vm, false);
  return null;
}

/**
 * Makes free row `vm` a shell: all that a machine of `pages` pages needs before its guest is known,
 * second stage and device page. False: there is no memory for it.
 */
export function makeShell(state: State, vm: number, pages: number): boolean {
  const { vm: row } = state;
  for (let word = 0; word < Vm.registers; word++) row.put(vm, word, 0);
  row.put(vm, Vm.pages, pages);
  const root = makeSecondStage(state, vm);
  if (root < 0) return false;
  row.put(vm, Vm.root, root);
  // A device page of its own is always there, so that telling the guest something cannot fail.
  const huge = state.config.secondStage !== '4KiB';
  const ring = huge ? -1 : takeFor(state, vm, pages - 1);
  if (ring >= 0) state.machine.zeroPage(ring);
  if (!huge && (ring < 0 || !mapHost(state, vm, pages - 1, ring, 0))) {
    if (ring >= 0) dropUnmapped(state, vm, ring);
    release(state, vm);
    return false;
  }
  if (!huge) pinRing(state, vm, ring);
  row.put(vm, Vm.state, VmState.shell);
  state.add(Cpu.shells, 1);
  return true;
}

function pinRing(state: State, vm: number, host: number): void {
  assert(host >= 0, 'life: the device page is there');
  state.page.add(host, Page.pins, 1);
  state.vm.put(vm, Vm.ring, host);
}

/** A shell that no guest came for. */
export function dropShell(state: State, vm: number): void {
  giveMemory(state, vm);
  state.add(Cpu.shells, -1);
  state.vm.put(vm, Vm.state, VmState.free);
}

function giveMemory(state: State, vm: number): void {
  const ring = state.vm.get(vm, Vm.ring);
  if (ring !== 0) state.page.add(ring, Page.pins, -1);
  release(state, vm);
}

/** A shell of so many pages, or a free row; -1 if there is neither. */
export function rowFor(state: State, pages: number): number {
  const shell = state.get(Cpu.shells) > 0 ? search(state, VmState.shell, pages) : -1;
  return shell >= 0 ? shell : search(state, VmState.free, 0);
}

function search(state: State, is: number, pages: number): number {
  const { vm: row } = state;
  const hint = state.get(Cpu.freeRow);
  for (let n = 0; n < row.rows; n++) {
    const vm = (hint + n) % row.rows;
    if (row.get(vm, Vm.state) !== is) continue;
    if (is === VmState.shell && row.get(vm, Vm.pages) !== pages) continue;
    state.put(Cpu.freeRow, vm + 1 === row.rows ? 0 : vm + 1);
    return vm;
  }
  return -1;
}

/** Its memory goes back, all of it. What it was stays to be read until the row is freed. */
export function endVm(state: State, vm: number): void {
  const { vm: row } = state;
  const waits = row.get(vm, Vm.state) === VmState.blocked && row.get(vm, Vm.waitsFor) === -1;
  if (waits) state.add(Cpu.waiters, -1);
  row.put(vm, Vm.waitsFor, 0);
  makeUnready(state, vm, VmState.stopped);
  takeBack(state, vm);
  giveMemory(state, vm);
  const reservation = row.get(vm, Vm.reservation);
  const pages = row.get(vm, Vm.pages);
  state.add(Cpu.reserved, -(reservation + tablesFor(pages)));
  state.add(Cpu.promised, -(pages - reservation));
}

/** Frees the row of one that has ended, as soon as none of its requests is under way. */
export function reap(state: State, vm: number): boolean {
  const { vm: row } = state;
  if (row.get(vm, Vm.state) !== VmState.dying || row.get(vm, Vm.outstanding) > 0) return false;
  row.put(vm, Vm.state, VmState.free);
  state.put(Cpu.freeRow, vm);
  state.add(Cpu.dying, -1);
  return true;
}
