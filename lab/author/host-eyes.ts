/**
 * Reads what a hypervisor holds, from outside: the ledger of host pages and the rows of its virtual
 * machines, uncharged and uncounted. It is the operator's view: no guest can see any of it, since
 * what a hypervisor exports is a machine and not who else is on it.
 */
import { assert } from '../../machine/assert.ts';
import type { Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { Page, PageKind, Vm, VmState } from '../../kernel/hypervisor/state.ts';
import type { Table } from '../../kernel/supervisor.ts';
import type { Built } from '../modes.ts';

/** What a host page is used for. */
export type HostUse = 'hypervisor' | 'free' | 'table' | 'guest' | 'shared' | 'moving' | 'limbo';

const USES = new Map<number, HostUse>([
  [PageKind.own, 'hypervisor'],
  [PageKind.inside, 'free'],
  [PageKind.free, 'free'],
  [PageKind.table, 'table'],
  [PageKind.guest, 'guest'],
  [PageKind.shared, 'shared'],
  [PageKind.leaving, 'moving'],
  [PageKind.coming, 'moving'],
  [PageKind.limbo, 'limbo'],
]);

export interface Guest {
  readonly pages: number; // guest-physical
  readonly held: number; // host pages behind them
  readonly tables: number;
  readonly shared: number;
  readonly swapped: number;
  readonly ballooned: number;
  readonly firstBlock: number;
  readonly blocks: number;
}

export class HostEyes {
  readonly #built: Built;
  readonly #hypervisor: Hypervisor;

  constructor(built: Built) {
    assert(built.hypervisor !== null, 'eyes: there is a hypervisor');
    this.#built = built;
    this.#hypervisor = built.hypervisor;
  }

  get pages(): number {
    return this.#hypervisor.state.page.rows;
  }

  /** What a host page is used for, and by which guest, from 1; 0: none. */
  page(page: number): { readonly use: HostUse; readonly guest: number } {
    const owner = this.#cell(this.#hypervisor.state.page, page, Page.owner);
    const use = USES.get(owner & 0xff) ?? 'hypervisor';
    const hasOwner = use === 'table' || use === 'guest' || use === 'moving';
    return { use, guest: hasOwner ? owner >>> 8 : 0 };
  }

  /** The virtual machines that there are. */
  guests(): Guest[] {
    const { vm } = this.#hypervisor.state;
    const guests: Guest[] = [];
    for (let row = 0; row < vm.rows; row++) {
      const word = (column: number): number => this.#cell(vm, row, column);
      if (word(Vm.state) === VmState.free) continue;
      guests.push({
        pages: word(Vm.pages),
        held: word(Vm.held),
        tables: word(Vm.tables),
        shared: word(Vm.shared),
        swapped: word(Vm.swapped),
        ballooned: word(Vm.ballooned),
        firstBlock: word(Vm.firstBlock),
        blocks: word(Vm.blocks),
      });
    }
    return guests;
  }

  #cell(table: Table, row: number, column: number): number {
    return this.#built.machine.memory.get(table.address(row, column));
  }
}
