/**
 * A kernel's tables as words of machine memory, read past the kernel and without charge: what every
 * check of its state rests on. Nothing here calls the kernel; of its tables it knows where they
 * lie.
 */
import {
  Account,
  Env,
  envIndex,
  EnvState,
  PAGE_ACCOUNT_SHIFT,
  PAGE_ENV_SHIFT,
  PAGE_KEPT,
  PageKind,
} from '../../kernel/abi.ts';
import {
  CAP_VALID,
  CAP_WORDS,
  PageRecord,
  Private,
  type State,
} from '../../kernel/exokernel/state.ts';
import type { Table } from '../../kernel/supervisor.ts';
import type { PhysicalMachine } from '../../machine/physical.ts';
import { PAGE_BYTES, PAGE_WORDS } from '../../machine/units.ts';

/** A capability or access entry, read raw. */
export interface RawName {
  readonly a: number;
  readonly b: number;
  readonly rights: number; // 0 if not valid
  readonly last: number; // leaves of a capability; head of the list of an access entry
}

/** The kernel's tables as words of memory, read past the kernel and without charge. */
export class Raw {
  readonly machine: PhysicalMachine;
  readonly state: State;

  constructor(machine: PhysicalMachine, state: State) {
    this.machine = machine;
    this.state = state;
  }

  #cell(table: Table, row: number, column: number): number {
    const at = table.firstPage * PAGE_BYTES + (row * table.columns + column) * 4;
    return this.machine.memory.i32[at >>> 2] ?? 0;
  }

  get rows(): number {
    return this.state.env.rows;
  }
  get pages(): number {
    return this.machine.pages;
  }
  env(row: number, word: number): number {
    return this.#cell(this.state.env, row, word);
  }
  id(row: number): number {
    return (this.env(row, Env.generation) << 14) | row;
  }
  live(id: number): boolean {
    const row = envIndex(id);
    return this.id(row) === id && this.stateOf(row) !== EnvState.free;
  }
  stateOf(row: number): number {
    return this.env(row, Env.state);
  }
  secret(row: number, word: number): number {
    return this.#cell(this.state.secret, row, word);
  }
  page(page: number, word: number): number {
    return this.#cell(this.state.page, page, word);
  }
  kind(page: number): number {
    return this.#cell(this.state.pageWord, page, 0) & 0xff;
  }
  /** Environment that a table belongs to. */
  envOf(table: number): number {
    return (this.#cell(this.state.pageWord, table, 0) & ~PAGE_KEPT) >>> PAGE_ENV_SHIFT;
  }
  /** Account that a page is charged to. */
  accountOf(page: number): number {
    return (this.#cell(this.state.pageWord, page, 0) >>> PAGE_ACCOUNT_SHIFT) & 0xff;
  }
  kept(page: number): boolean {
    return (this.#cell(this.state.pageWord, page, 0) & PAGE_KEPT) !== 0;
  }
  account(row: number, word: number): number {
    return this.#cell(this.state.account, row, word);
  }
  used(row: number, resource: number): number {
    return this.account(row, Account.used + resource);
  }
  limit(row: number, resource: number): number {
    return this.account(row, Account.limit + resource);
  }
  loss(row: number, word: number): number {
    return this.#cell(this.state.loss, row, word);
  }
  cpu(word: number): number {
    return this.#cell(this.state.cpu, 0, word);
  }
  info(word: number): number {
    return this.#cell(this.state.info, 0, word);
  }
  extent(row: number, word: number): number {
    return this.#cell(this.state.extent, row, word);
  }
  queued(row: number, word: number): number {
    return this.#cell(this.state.queue, row, word);
  }
  /** Lower word of a page-table entry, unsigned. */
  entry(table: number, index: number): number {
    return (this.machine.memory.i32[table * PAGE_WORDS + index * 2] ?? 0) >>> 0;
  }
  word(page: number, word: number): number {
    return this.machine.memory.i32[page * PAGE_WORDS + word] ?? 0;
  }
  cap(row: number, slot: number): RawName {
    const at = Private.caps + slot * CAP_WORDS;
    const rights = this.secret(row, at + 2);
    return rawName(
      this.secret(row, at),
      this.secret(row, at + 1),
      rights,
      this.secret(row, at + 3),
    );
  }
  access(page: number, entry: number): RawName {
    const at = PageRecord.access + entry * CAP_WORDS;
    const rights = this.page(page, at + 2);
    return rawName(this.page(page, at), this.page(page, at + 1), rights, this.page(page, at + 3));
  }
  /** First free page, counting `skip` more. */
  free(skip = 0): number {
    for (let page = 0; page < this.pages; page++) {
      if (this.kind(page) === PageKind.free && skip-- === 0) return page;
    }
    throw new Error('no page is free');
  }
  freeRow(): number {
    for (let row = 1; row < this.rows; row++) {
      if (this.stateOf(row) === EnvState.free) return row;
    }
    throw new Error('no row is free');
  }

  /** Whether a word of memory is of the registers that the kernel saved of `row`. */
  isSaveArea(word: number, row: number): boolean {
    const { firstPage, columns } = this.state.secret;
    const at = word - firstPage * PAGE_WORDS - row * columns;
    return at >= Private.registers && at <= Private.saved;
  }

  /** Whether `difference` is the hardware's own work on a filled leaf. */
  isAccessedBit(word: number, difference: number): boolean {
    const page = Math.floor(word / PAGE_WORDS);
    return this.kind(page) === PageKind.leaf && word % 2 === 0 && (difference & ~0xc0) === 0;
  }

  describe(word: number): string {
    const page = Math.floor(word / PAGE_WORDS);
    const { info, env, pageWord, extent, account, loss, queue, secret, cpu } = this.state;
    const exposed = { info, env, pageWord, page: this.state.page, extent, account, loss, queue };
    const tables = { ...exposed, secret, cpu };
    for (const [name, table] of Object.entries(tables)) {
      if (page < table.firstPage || page >= table.firstPage + table.pages) continue;
      const at = word - table.firstPage * PAGE_WORDS;
      return `${name}[${Math.floor(at / table.columns)}][${at % table.columns}]`;
    }
    return `word ${word % PAGE_WORDS} of page ${page}, of kind ${this.kind(page)}`;
  }
}

function rawName(a: number, b: number, rights: number, last: number): RawName {
  return { a, b, rights: (rights & CAP_VALID) !== 0 ? rights & 0xff : 0, last };
}
