/**
 * What must hold of a hypervisor's tables at each of its exits, read by plain loads that are nobody's:
 * the tester's own walk of second stages and ledger. Ids are those of the protection catalogue.
 */
import type { PhysicalMachine } from '../../machine/physical.ts';
import { isLeaf, PTE_D, PTE_V, PTE_W, ptePpn } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { type ComposedStage, composedVmid, SLOTS } from '../../kernel/hypervisor/composed.ts';
import type { Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { NestedPaging } from '../../kernel/hypervisor/nested.ts';
import { absence, Absent, COPY } from '../../kernel/hypervisor/second-stage.ts';
import { Cpu, MODES, Page, PageKind, Vm, VmState } from '../../kernel/hypervisor/state.ts';
import type { Table } from '../../kernel/supervisor.ts';

export interface Leaf {
  readonly page: number;
  readonly entry: number;
  readonly level: number;
}

/** Each leaf of a virtual machine's second stage, and each word about a page that is not there. */
export function leaves(machine: PhysicalMachine, hypervisor: Hypervisor, vm: number): Leaf[] {
  return leavesUnder(machine, machine.memory.get(hypervisor.state.vm.address(vm, Vm.root)));
}

function leavesUnder({ memory }: PhysicalMachine, root: number): Leaf[] {
  const found: Leaf[] = [];
  const down = (table: number, level: number, first: number): void => {
    for (let index = 0; index < 512; index++) {
      const entry = memory.get(table * PAGE_BYTES + index * 8) >>> 0;
      if (entry === 0) continue;
      const page = first + index * (1 << (9 * level));
      if (level > 0 && !isLeaf(entry)) down(ptePpn(entry), level - 1, page);
      else found.push({ page, entry, level });
    }
  };
  for (let n = 0; n < 4; n++) down(root + n, 2, n * 2 ** 27);
  return found;
}

/**
 * Composed second stages: a leaf, and what the TLB has of it, reaches nothing that is not behind
 * the guest, and may be written only where the log of writes has the page marked already.
 */
function composedViolations(
  machine: PhysicalMachine,
  hypervisor: Hypervisor,
  vm: number,
): string[] {
  const composed = composedOf(hypervisor, vm);
  if (composed === null) return [];
  const get = (at: number): number => machine.memory.get(at);
  const behind = new Map<number, boolean>(); // host page: whether it may be written
  const writable = PTE_W | PTE_D;
  for (const { entry, level } of leaves(machine, hypervisor, vm)) {
    if ((entry & PTE_V) === 0) continue;
    for (let n = 0; n < 1 << (9 * level); n++) {
      behind.set(ptePpn(entry) + n, (entry & (writable | COPY)) === writable);
    }
  }
  const wrong: string[] = [];
  const check = (what: string, host: number, pages: number, flags: number): void => {
    for (let n = host; n < host + pages; n++) {
      const may = behind.get(n);
      if (may === undefined) wrong.push(`vm ${vm}: ${what} reaches host page ${n}`);
      else if ((flags & writable) === writable && !may) wrong.push(`vm ${vm}: ${what} writes ${n}`);
    }
  };
  const vmids = new Set<number>();
  for (const { vmid, composed: root } of composed.slots(get)) {
    vmids.add(composedVmid(hypervisor.state.vm.rows, vm, vmid % SLOTS));
    for (const { page, entry, level } of leavesUnder(machine, root)) {
      check(`page ${page} of its guest`, ptePpn(entry), 1 << (9 * level), entry);
    }
  }
  for (const { space, ppn, pages, flags } of machine.hart.tlbEntries()) {
    if (vmids.has(space >>> 16)) check("its guest's TLB", ppn, pages, flags);
  }
  return wrong;
}

export function composedOf(hypervisor: Hypervisor, vm: number): ComposedStage | null {
  const paging = hypervisor.machines[vm]?.paging;
  return paging instanceof NestedPaging ? paging.composed : null;
}

/** Violations, in words; none if all is well. */
export function violations(machine: PhysicalMachine, hypervisor: Hypervisor): string[] {
  const { memory } = machine;
  const { state } = hypervisor;
  const wrong: string[] = [];
  const word = (table: Table, row: number, column: number): number =>
    memory.get(table.address(row, column));
  const cpu = (n: number): number => word(state.cpu, 0, n);
  const expect = (got: number, want: number, what: string): void => {
    if (got !== want) wrong.push(`${what}: ${got}, and it is ${want}`);
  };

  // The ledger: every page has one holder, and the sums are what they say (HYP-15, HYP-19).
  const kinds = new Map<number, number>();
  const held = new Map<number, number>();
  const tables = new Map<number, number>();
  const bump = (map: Map<number, number>, key: number): void => {
    map.set(key, (map.get(key) ?? 0) + 1);
  };
  for (let page = 0; page < memory.pages; page++) {
    const owner = word(state.page, page, Page.owner);
    const kind = owner & 0xff;
    bump(kinds, kind);
    const { guest, leaving, coming, table } = PageKind;
    if (kind === guest || kind === leaving || kind === coming) bump(held, (owner >>> 8) - 1);
    else if (kind === table) bump(tables, (owner >>> 8) - 1);
  }
  const count = (...of: number[]): number => of.reduce((n, kind) => n + (kinds.get(kind) ?? 0), 0);
  expect(cpu(Cpu.free), count(PageKind.free, PageKind.inside), 'free pages');
  expect(cpu(Cpu.shared), count(PageKind.shared), 'shared pages');
  expect(cpu(Cpu.limbo), count(PageKind.limbo), 'pages in limbo');
  expect(state.end, count(PageKind.own), "the hypervisor's own pages");

  // Second stages: each names pages that are its own, or shared read-only (HYP-01, HYP-13).
  const sharers = new Map<number, number>();
  const slots = new Set<number>();
  const seen = new Set<number>();
  let sum = state.end + cpu(Cpu.free) + cpu(Cpu.shared) + cpu(Cpu.limbo);
  for (let vm = 0; vm < state.vm.rows; vm++) {
    const row = (n: number): number => word(state.vm, vm, n);
    const is = row(Vm.state);
    const name = `vm ${vm}`;
    expect(row(Vm.held), held.get(vm) ?? 0, `${name} holds pages`);
    expect(row(Vm.tables), tables.get(vm) ?? 0, `${name} has tables`);
    sum += row(Vm.held) + row(Vm.tables);
    if (is === VmState.free || is === VmState.stopped || is === VmState.dying) {
      expect(row(Vm.held) + row(Vm.tables), 0, `${name} is gone, with pages`);
      continue;
    }
    let [swapped, shared, given, leaving] = [0, 0, 0, 0];
    for (const { page, entry, level } of leaves(machine, hypervisor, vm)) {
      const host = ptePpn(entry);
      const what = `${name}, page ${page}`;
      if ((entry & PTE_V) === 0) {
        const why = absence(entry);
        if (why === Absent.swapped) {
          swapped++;
          if (slots.has(host)) wrong.push(`${what}: its swap block is another's too`);
          slots.add(host);
        } else if (why === Absent.given) given++;
        else {
          const kind = why === Absent.leaving ? PageKind.leaving : PageKind.coming;
          expect(word(state.page, host, Page.owner), kind | ((vm + 1) << 8), `${what} travels`);
          slots.add(word(state.page, host, Page.slot) - 1);
          if (why === Absent.coming) swapped++;
          else leaving++;
        }
        continue;
      }
      if ((entry & COPY) !== 0) {
        shared++;
        bump(sharers, host);
        expect(word(state.page, host, Page.owner) & 0xff, PageKind.shared, `${what} is shared`);
        if ((entry & PTE_W) !== 0) wrong.push(`${what}: shared, and may be written`);
        continue;
      }
      for (let n = 0; n < 1 << (9 * level); n++) {
        const owner = word(state.page, host + n, Page.owner);
        expect(owner, PageKind.guest | ((vm + 1) << 8), `${what} is on host page ${host + n}`);
        expect(word(state.page, host + n, Page.guest), page + n, `host page ${host + n} is page`);
        if (seen.has(host + n)) wrong.push(`host page ${host + n} is behind two guest pages`);
        seen.add(host + n);
      }
    }
    expect(row(Vm.swapped), swapped, `${name} has swapped pages`);
    expect(row(Vm.leaving), leaving, `${name} has pages that leave`);
    expect(row(Vm.shared), shared, `${name} has shared pages`);
    expect(row(Vm.ballooned), given, `${name} has given pages up`);
    if (row(Vm.ring) !== 0 && !seen.has(row(Vm.ring))) wrong.push(`${name}: its device page moved`);
  }
  expect(sum, memory.pages, 'pages of guests, hypervisor and free add up');
  for (const [host, n] of sharers) {
    expect(word(state.page, host, Page.guest), n, `sharers of host page ${host}`);
  }

  // The TLB of a guest reaches nothing that its second stage does not, nor more freely.
  const reached = new Map<number, Set<number>>();
  for (const { space, ppn, flags, pages } of machine.hart.tlbEntries()) {
    const vm = (space >>> 16) - 1;
    if (vm < 0 || vm >= state.vm.rows || pages > 1) continue;
    let mine = reached.get(vm);
    if (mine === undefined) {
      mine = new Set<number>();
      for (const { entry, level } of leaves(machine, hypervisor, vm)) {
        if ((entry & PTE_V) === 0) continue;
        for (let n = 0; n < 1 << (9 * level); n++) {
          mine.add((ptePpn(entry) + n) * 2 + ((entry & PTE_W) !== 0 ? 1 : 0));
        }
      }
      reached.set(vm, mine);
    }
    const writes = (flags & (1 << 2)) !== 0 && (flags & (1 << 7)) !== 0;
    if (!mine.has(ppn * 2 + 1) && (writes || !mine.has(ppn * 2))) {
      wrong.push(`vm ${vm}: its TLB still has host page ${ppn}`);
    }
  }

  for (let vm = 0; vm < state.vm.rows; vm++)
    wrong.push(...composedViolations(machine, hypervisor, vm));

  // Time: what a vCPU was at adds up to its age, to the cycle (HYP-20).
  for (let vm = 0; vm < state.vm.rows; vm++) {
    if (word(state.vm, vm, Vm.state) === VmState.free) continue;
    const times = hypervisor.times(vm);
    const total = MODES.reduce((n, mode) => n + times[mode], 0);
    expect(total, times.elapsed, `vm ${vm}: run, steal, idle and blocked`);
  }
  return wrong;
}

/** Holds the invariants at every exit of the hypervisor from now on; what it finds is thrown. */
export function watch(machine: PhysicalMachine, hypervisor: Hypervisor, every = 1): void {
  let exits = 0;
  machine.hart.listener = (event) => {
    if (event.what !== 'return' || event.level !== 0 || exits++ % every !== 0) return;
    const wrong = violations(machine, hypervisor);
    if (wrong.length > 0) throw new Error(wrong.slice(0, 5).join('\n'));
  };
}
