/**
 * Saving, restoring, cloning, moving: a virtual machine as data. Everything that its supervisor can
 * know of goes along: memory, satp, timer, pending interrupts, the device page with its queue. What
 * cannot are the library OS's generators, which nobody can copy: only a library OS that re-creates
 * its threads from its memory (an entry `resume`) can be carried, and others are refused.
 *
 * A saved machine names no host page and no host time but that of its timer.
 */
import { PAGE_BYTES, PAGE_WORDS } from '../../machine/units.ts';
import { PTE_V, ptePpn } from '../../machine/sv39.ts';
import { type Refusal, refuse } from './life.ts';
import { isPassed } from './passthrough.ts';
import { hostPage, mapHost, reach } from './pages.ts';
import { find } from './second-stage.ts';
import { canStand, standBeside } from './sharing.ts';
import { type State, Vm } from './state.ts';
import type { SavedMachine } from './virtual-machine.ts';

const VERSION = 1;
/** Why a guest with a device of its own is neither saved, cloned nor moved. */
export const STAYS = 'its disk is passed through: what is under way in its queue nobody can carry';

export interface SavedPage {
  readonly page: number;
  readonly words: Int32Array; // [PAGE_WORDS]
}

/** A virtual machine as data. */
export interface Saved {
  readonly version: number;
  readonly pages: number;
  readonly blocks: number;
  readonly machine: SavedMachine;
  readonly memory: readonly SavedPage[]; // those that were ever touched
}

/** Why `vm` cannot be saved now; null if it can. */
export function cannotSave(state: State, vm: number): Refusal | null {
  const { vm: row } = state;
  if (row.get(vm, Vm.paused) === 0) return refuse('it runs: pause it first');
  if (isPassed(state, vm)) return refuse(STAYS);
  const requests = row.get(vm, Vm.outstanding);
  if (requests > 0) {
    return refuse(`${requests} disk requests of it are under way: let the host run until they end`);
  }
  if (row.get(vm, Vm.swapped) > 0) {
    return refuse(
      `${row.get(vm, Vm.swapped)} pages of it are on the swap area: let it run, or clone`,
    );
  }
  return null;
}

/** The contents of guest page `page`, or null if it was never touched. */
export function readPage(state: State, vm: number, page: number): SavedPage | null {
  const host = hostPage(state, vm, page);
  if (host < 0) return null;
  const words = new Int32Array(PAGE_WORDS);
  for (let n = 0; n < PAGE_WORDS; n++) words[n] = state.machine.load(host * PAGE_BYTES + n * 4);
  return { page, words };
}

/** Writes a guest page. False: there is no memory for it. */
export function writePage(state: State, vm: number, { page, words }: SavedPage): boolean {
  const host = reach(state, vm, page, true);
  if (host < 0) return false;
  words.forEach((word, n) => {
    state.machine.store(host * PAGE_BYTES + n * 4, word);
  });
  return true;
}

/** All pages that were ever touched. */
export function readMemory(state: State, vm: number): SavedPage[] {
  const memory = [];
  for (let page = 0; page < state.vm.get(vm, Vm.pages); page++) {
    const saved = readPage(state, vm, page);
    if (saved !== null) memory.push(saved);
  }
  return memory;
}

export function pack(state: State, vm: number, machine: SavedMachine): Saved {
  const [pages, blocks] = [state.vm.get(vm, Vm.pages), state.vm.get(vm, Vm.blocks)];
  return { version: VERSION, pages, blocks, machine, memory: readMemory(state, vm) };
}

/** Why `saved` cannot be restored as a machine of so many pages and blocks; null if it can. */
export function cannotRestore(saved: Saved, pages: number, blocks: number): Refusal | null {
  if (saved.version !== VERSION) {
    return refuse(`saved as version ${saved.version}, and this restores version ${VERSION}`);
  }
  if (saved.pages !== pages || saved.blocks !== blocks) {
    return refuse(
      `saved with ${saved.pages} pages and ${saved.blocks} blocks, to be restored with the same`,
    );
  }
  return null;
}

/**
 * Gives `child` the memory of `parent` without copying it: both stand on the same host pages, and
 * whoever stores gets a copy. A page that cannot be shared now is copied. False: memory is used up.
 */
export function shareMemory(state: State, parent: number, child: number): boolean {
  const { vm: row } = state;
  for (let page = 0; page < row.get(parent, Vm.pages); page++) {
    const place = find(state, parent, page);
    if (place === null || (place.entry & PTE_V) === 0) continue;
    const host = ptePpn(place.entry);
    if (canStand(state, parent, place)) {
      if (find(state, child, page) === null && !mapHost(state, child, page, host, 0)) return false;
      standBeside(state, parent, child, page, place);
    } else {
      const copy = readPage(state, parent, page);
      if (copy !== null && !writePage(state, child, copy)) return false;
    }
  }
  return true;
}
