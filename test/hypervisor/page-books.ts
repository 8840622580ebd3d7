/**
 * What must hold of a paravirtual guest's page types after every exit, by the tester's own walk of
 * its tables and plain loads that are nobody's. Ids are those of the protection catalogue.
 */
import type { PhysicalMachine } from '../../machine/physical.ts';
import {
  DIRECT_INDEX,
  isLeaf,
  PTE_A,
  PTE_D,
  PTE_FLAGS,
  PTE_G,
  PTE_V,
  PTE_W,
  ptePpn,
} from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { ParavirtPaging } from '../../kernel/hypervisor/paravirt.ts';
import { Page, PageKind, Type, Vm, VmState } from '../../kernel/hypervisor/state.ts';
import { hostPage } from '../machine/rigs.ts';

const CODES: readonly number[] = [VmState.stopped, VmState.free, VmState.dying, VmState.shell];

/** Violations, in words; none if all is well. */
export function typeViolations(
  machine: PhysicalMachine,
  hypervisor: Hypervisor,
  vm: number,
): string[] {
  const paging = hypervisor.machines[vm]?.paging;
  const { state } = hypervisor;
  const get = (at: number): number => machine.memory.get(at);
  const row = (word: number): number => get(state.vm.address(vm, word));
  if (!(paging instanceof ParavirtPaging) || CODES.includes(row(Vm.state))) return [];
  const wrong: string[] = [];
  const books = paging.types.books(get);
  const pages = row(Vm.pages);
  const ledger = (host: number, word: number): number => get(state.page.address(host, word));

  // Names: guest page to host page and back (HYP-01).
  const hostOf = (page: number): number => hostPage(get, row(Vm.root), page);
  const pageOf = new Map<number, number>();
  for (let page = 0; page < pages; page++) {
    const { window, direct, isTable, isForeign, type } = books.page(page);
    if (isTable !== (type >= Type.leaf && !isForeign))
      wrong.push(`page ${page}: the map of tables says ${isTable}`);
    if (window === 0) {
      if (direct !== 0) wrong.push(`page ${page}: in the direct map, and not known`);
      continue;
    }
    const host = ptePpn(window);
    pageOf.set(host, page);
    if (isForeign) {
      // A neighbour's page is pinned, whoever has it, so that it is nobody's meanwhile.
      if (ledger(host, Page.pins) < 1) wrong.push(`page ${page}: a neighbour's, and not pinned`);
      if (ledger(host, Page.owner) >>> 8 === vm + 1) wrong.push(`page ${page}: its own neighbour`);
      if (hostOf(page) >= 0) wrong.push(`page ${page}: a neighbour's, and its own`);
      if (books.frame(host) !== page + 1) wrong.push(`page ${page}: it has another name`);
      continue;
    }
    if (host !== hostOf(page)) wrong.push(`page ${page}: another host page than it has`);
    if (ledger(host, Page.owner) !== (PageKind.guest | ((vm + 1) << 8))) {
      wrong.push(`page ${page}: its host page is not its own`);
    }
    if (books.frame(host) !== page + 1) wrong.push(`page ${page}: its host page has another name`);
    if ((window & PTE_W) !== 0) wrong.push(`page ${page}: its window can be written`);
    // No page is a table and written, by this map or by a device (T-inv 1, HYP-03).
    if (isTable && direct !== 0) wrong.push(`page ${page}: a table in the direct map`);
    if (!isTable && (direct === 0 || ptePpn(direct) !== host)) {
      wrong.push(`page ${page}: not in the direct map`);
    }
    if (isTable && ledger(host, Page.pins) > 0) wrong.push(`page ${page}: a table, and a buffer`);
  }
  const viewOf = new Map(books.views.map(({ host, page }) => [host, page]));

  // Counts: what a walk of all tables finds, and no entry that its type forbids (T-inv 2 and 4).
  const refs = new Map<number, number>();
  const types = new Map<number, number>();
  const bump = (map: Map<number, number>, page: number): void => {
    map.set(page, (map.get(page) ?? 0) + 1);
  };
  if (books.root >= 0) {
    bump(refs, books.root);
    bump(types, books.root);
    if (books.page(books.root).type !== Type.root) wrong.push('satp: not a root');
  }
  const seen = new Set<number>();
  for (let page = 0; page < pages; page++) {
    const { isTable, type, window } = books.page(page);
    if (!isTable) continue;
    const level = type - Type.leaf;
    for (let index = 0; index < 512; index++) {
      const at = ptePpn(window) * PAGE_BYTES + index * 8;
      const entry = get(at) >>> 0;
      if ((entry & PTE_V) === 0) continue;
      const where = `entry ${index} of page ${page}`;
      if (level === 2 && index >= DIRECT_INDEX) {
        if (isLeaf(entry)) wrong.push(`${where}: a leaf in the hypervisor's half`);
        continue;
      }
      const host = ptePpn(entry);
      const view = viewOf.get(host);
      const target = view ?? pageOf.get(host);
      if (target === undefined) {
        wrong.push(`${where}: host page ${host}, which is not the guest's`);
        continue;
      }
      const is = books.page(target);
      bump(refs, target);
      if (!isLeaf(entry)) {
        bump(types, target);
        if (is.type !== type - 1) wrong.push(`${where}: leads to a page of another type`);
        continue;
      }
      if (level > 0) wrong.push(`${where}: a superpage`);
      if ((entry & PTE_G) !== 0) wrong.push(`${where}: global`);
      if ((entry & PTE_W) !== 0) {
        bump(types, target);
        const may = is.isForeign ? (is.direct & PTE_W) !== 0 : is.type === Type.writable;
        if (!may) wrong.push(`${where}: page ${target} may be written`);
      } else if (view === undefined && is.isTable) wrong.push(`${where}: shows host numbers`);
      if (view !== undefined) seen.add(host);
    }
  }
  for (let page = 0; page < pages; page++) {
    const is = books.page(page);
    if (is.refs !== (refs.get(page) ?? 0)) {
      wrong.push(`page ${page}: ${is.refs} references, and there are ${refs.get(page) ?? 0}`);
    }
    if (is.types !== (types.get(page) ?? 0)) {
      wrong.push(`page ${page}: ${is.types} of its type, and there are ${types.get(page) ?? 0}`);
    }
  }

  // Views show what the guest wrote, and are where they are said to be (HYP-04).
  for (const { host, page } of books.views) {
    if (!seen.has(host)) wrong.push(`a view of page ${page} that is not mapped`);
    const table = ptePpn(books.page(page).window);
    const root = books.page(page).type === Type.root;
    for (let index = 0; index < (root ? DIRECT_INDEX : 512); index++) {
      const real = get(table * PAGE_BYTES + index * 8) >>> 0;
      const shown = get(host * PAGE_BYTES + index * 8) >>> 0;
      const flags = PTE_FLAGS & ~(PTE_A | PTE_D);
      const name = (real & PTE_V) === 0 ? ptePpn(real) : books.frame(ptePpn(real)) - 1;
      if (ptePpn(shown) !== name || (shown & flags) !== (real & flags)) {
        wrong.push(`a view of page ${page} shows another entry ${index}`);
      }
      if ((real & ~shown & PTE_D) !== 0 && (real & PTE_V) !== 0) {
        wrong.push(`a view of page ${page} shows entry ${index} as clean`);
      }
    }
  }

  // The TLB: nothing that is not the guest's, and no table for stores (HYP-03, HYP-13).
  const { first, count } = books.asids;
  for (const { vpn, space, ppn, flags } of machine.hart.tlbEntries()) {
    if (space < first || space >= first + count) continue;
    const writes = (flags & (PTE_W | PTE_D)) === (PTE_W | PTE_D);
    const page = pageOf.get(ppn);
    const own = ledger(ppn, Page.owner) >>> 8 === vm + 1 || page !== undefined;
    if (!own) wrong.push(`TLB: ${vpn.toString(16)} is host page ${ppn}, which is not the guest's`);
    const is = page === undefined ? null : books.page(page);
    if (writes && is !== null && (is.isTable || (is.isForeign && (is.direct & PTE_W) === 0))) {
      wrong.push(`TLB: table ${page} can be written at ${vpn.toString(16)}`);
    }
  }
  return wrong;
}

/** Holds them at every exit from now on; what it finds is thrown. */
export function watchTypes(
  machine: PhysicalMachine,
  hypervisor: Hypervisor,
  vms: readonly number[],
  every = 1,
): () => string[] {
  const wrong: string[] = [];
  let exits = 0;
  machine.hart.listener = (event) => {
    if (event.what !== 'exit' && !(event.what === 'return' && event.level === 0)) return;
    if (exits++ % every !== 0 || wrong.length > 0) return;
    for (const vm of vms) wrong.push(...typeViolations(machine, hypervisor, vm));
  };
  return () => wrong.slice(0, 8);
}
