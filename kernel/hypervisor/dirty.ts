/**
 * The log of writes under nested paging: the D bits of the second stage, which hardware sets. To be
 * told page by page, superpages are split when the log is armed; a superpage for which there is no
 * table counts as written as a whole. The log never misses a write: it may name too much.
 */
import {
  ENTRIES,
  isLeaf,
  pte,
  PTE_D,
  PTE_FLAGS,
  PTE_V,
  ptePpn,
  vpnIndex,
} from '../../machine/sv39.ts';
import type { PteUpdate } from '../supervisor.ts';
import { take } from './free-pages.ts';
import { rootTable } from './second-stage.ts';
import { PageKind, type State, Vm } from './state.ts';

/** From now on writes are noted: no page counts as written. */
export function armLog(state: State, vm: number): void {
  const pages = state.vm.get(vm, Vm.pages);
  for (let page = 0; page < pages; page += ENTRIES) leafTable(state, vm, page, true);
  collectLog(state, vm);
}

/** Guest pages written since, a bit each in words of 32; from now on they count as not written. */
export function collectLog(state: State, vm: number): number[] {
  const pages = state.vm.get(vm, Vm.pages);
  const words = new Array<number>(Math.ceil(pages / 32)).fill(0);
  const note = (page: number): void => {
    words[page >>> 5] = (words[page >>> 5] ?? 0) | (1 << (page & 31));
  };
  for (let first = 0; first < pages; first += ENTRIES) {
    const { table, index, level } = leafTable(state, vm, first, false);
    if (level < 0) continue;
    const count = level === 0 ? Math.min(ENTRIES, pages - first) : 1;
    const entries = state.machine.readPtes(table, index, count);
    const updates: PteUpdate[] = [];
    for (const [n, entry] of entries.entries()) {
      if ((entry & (PTE_V | PTE_D)) !== (PTE_V | PTE_D)) continue;
      updates.push({ table, index: index + n, value: (entry & ~PTE_D) >>> 0 });
      if (level === 0) note(first + n);
      else for (let page = first; page < Math.min(first + ENTRIES, pages); page++) note(page);
    }
    state.machine.writePtes(updates);
  }
  state.guestMode.fence(vm + 1);
  return words;
}

/** The hypervisor wrote to the page: so does the second stage say. */
export function markLog(state: State, vm: number, page: number): void {
  if (page >= state.vm.get(vm, Vm.pages)) return;
  const { table, index, level } = leafTable(state, vm, page - (page % ENTRIES), false);
  if (level < 0) return;
  const at = level === 0 ? page % ENTRIES : index;
  const entry = state.machine.readPtes(table, at, 1)[0] ?? 0;
  if ((entry & PTE_V) === 0 || (entry & PTE_D) !== 0) return;
  state.machine.writePtes([{ table, index: at, value: (entry | PTE_D) >>> 0 }]);
}

interface Place {
  readonly table: number;
  readonly index: number;
  readonly level: number; // of the entry: 0 if `table` is of the last level; -1 there is none
}

/** Where the entries of 512 guest pages from `first` stand. Superpages are split if asked. */
function leafTable(state: State, vm: number, first: number, split: boolean): Place {
  const { machine } = state;
  let table = rootTable(state, vm, first);
  for (let level = 2; level > 0; level--) {
    const index = vpnIndex(first, level);
    const entry = machine.readPtes(table, index, 1)[0] ?? 0;
    if ((entry & PTE_V) === 0) return { table, index, level: -1 };
    if (isLeaf(entry)) {
      const fresh = split ? take(state) : -1;
      if (fresh < 0) return { table, index, level };
      state.own(fresh, PageKind.table, vm);
      state.vm.add(vm, Vm.tables, 1);
      const span = 1 << (9 * (level - 1));
      const updates = Array.from({ length: ENTRIES }, (_, n) => ({
        table: fresh,
        index: n,
        value: pte(ptePpn(entry) + n * span, entry & PTE_FLAGS),
      }));
      machine.writePtes(updates);
      machine.writePtes([{ table, index, value: pte(fresh, PTE_V) }]);
      state.guestMode.fence(vm + 1);
      table = fresh;
    } else table = ptePpn(entry);
  }
  return { table, index: 0, level: 0 };
}
