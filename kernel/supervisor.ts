/**
 * What every supervisor here is built of: cells, that is words in the machine's own memory, and a
 * layout of tables over them. Kernels and hypervisors keep nothing else: no field of theirs
 * outlives a trap, so a handler can be rolled back, a machine hashed, a supervisor nested.
 *
 * Published tables lie on pages of their own, so that they can be mapped read-only by anyone.
 */
import { assert } from '../machine/assert.ts';
import type { Machine } from '../machine/machine.ts';
import {
  DIRECT_INDEX,
  GIGAPAGE_PAGES,
  pte,
  PTE_A,
  PTE_D,
  PTE_G,
  PTE_R,
  PTE_V,
  PTE_W,
} from '../machine/sv39.ts';
import { PAGE_BYTES } from '../machine/units.ts';

export type {
  Context,
  GuestMode,
  Machine,
  PteUpdate,
  Supervisor,
  Trap,
} from '../machine/machine.ts';
export { Cause } from '../machine/machine.ts';

/** Rows of words at a fixed place in memory: [rows × columns], counted access only. */
export class Table {
  readonly rows: number;
  readonly columns: number;
  readonly firstPage: number;
  readonly pages: number;
  readonly #machine: Machine;
  readonly #base: number;

  constructor(machine: Machine, firstPage: number, rows: number, columns: number) {
    this.#machine = machine;
    this.firstPage = firstPage;
    this.rows = rows;
    this.columns = columns;
    this.pages = Math.max(1, Math.ceil((rows * columns * 4) / PAGE_BYTES));
    this.#base = firstPage * PAGE_BYTES;
  }

  get(row: number, column: number): number {
    return this.#machine.load(this.address(row, column));
  }

  put(row: number, column: number, value: number): void {
    this.#machine.store(this.address(row, column), value);
  }

  /** Adds to a cell and returns the sum: one load and one store. */
  add(row: number, column: number, n: number): number {
    const sum = this.get(row, column) + n;
    this.put(row, column, sum);
    return sum;
  }

  address(row: number, column: number): number {
    assert(
      row >= 0 && row < this.rows && column >= 0 && column < this.columns,
      'table: the cell is in it',
    );
    return this.#base + (row * this.columns + column) * 4;
  }
}

/** Lays tables out one after another from the first page of memory, each on pages of its own. */
export class Layout {
  readonly #machine: Machine;
  #next: number;

  constructor(machine: Machine, firstPage: number) {
    this.#machine = machine;
    this.#next = firstPage;
  }

  table(rows: number, columns: number): Table {
    const table = new Table(this.#machine, this.#next, rows, columns);
    this.#next += table.pages;
    assert(this.#next <= this.#machine.pages, 'layout: the tables fit into memory');
    return table;
  }

  pages(count: number): number {
    const first = this.#next;
    this.#next += count;
    assert(this.#next <= this.#machine.pages, 'layout: the pages fit into memory');
    return first;
  }

  get end(): number {
    return this.#next;
  }
}

/**
 * The upper half of a root table: all of memory, 1 GiB a leaf, supervisor only.
 * @param shared whether every address space has it, which TLB entries may then say (G)
 */
export function writeDirectMap(machine: Machine, root: number, shared = true): void {
  const updates = [];
  const flags = PTE_V | PTE_R | PTE_W | PTE_A | PTE_D | (shared ? PTE_G : 0);
  for (let n = 0; n * GIGAPAGE_PAGES < machine.pages; n++) {
    updates.push({ table: root, index: DIRECT_INDEX + n, value: pte(n * GIGAPAGE_PAGES, flags) });
  }
  machine.writePtes(updates);
}

/** A time in two words, low and high. */
export function loadTick(table: Table, row: number, column: number): number {
  return (table.get(row, column) >>> 0) + table.get(row, column + 1) * 2 ** 32;
}

export function storeTick(table: Table, row: number, column: number, at: number): void {
  table.put(row, column, at | 0);
  table.put(row, column + 1, Math.floor(at / 2 ** 32));
}

/** Words of a register file that a trap handler stores before it may use the registers itself. */
export const REGISTERS_ALL = 32; // fault or interrupt: everything, and the program counter
export const REGISTERS_CALL = 4; // kernel call: pc, sp and two scratch; the stub keeps the rest
export const REGISTERS_YIELD = 14; // a call that switches: what a callee must preserve

/** A tenant: the first environment that a kernel makes at boot, and what it is given. */
export interface Tenant {
  readonly image: number;
  /** its name, 0 to 7 bytes; default: its number, from 1 */
  readonly name?: readonly number[];
  /** pages that it may take, beside those of its first environment */
  readonly quota: number;
  /** of them, pages that are never revoked; default 0 */
  readonly minimum?: number;
  /** its part of the disk */
  readonly firstBlock: number;
  readonly blocks: number;
}

/** Pages that a tenant's first environment is made of: three tables, two ledgers, a stack. */
export const TENANT_PAGES = 6;

/** At most 16 bytes as the four words of a message, the first byte lowest. */
export function messageOf(bytes: Uint8Array): Int32Array {
  const copy = new Uint8Array(16);
  copy.set(bytes);
  return new Int32Array(copy.buffer);
}
