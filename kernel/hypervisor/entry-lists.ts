/**
 * Lists of page-table entries: those that map a guest page (the reverse map), or those that point
 * to a table. A ledger page beside each table page has two words for every entry, so that an entry
 * is put on a list and taken off it without a search, and any page is taken back by name.
 *
 * An entry's number is its table's row times 512 and its index. Entries of one ledger may stand on
 * lists of several kinds, each on one at a time; whoever has them knows which.
 */
import { ENTRIES } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Machine, Table } from '../supervisor.ts';

export class EntryLists {
  readonly #machine: Machine;
  readonly #ledger: number; // host page of row 0's
  readonly #heads: Table;
  readonly #column: number;

  /** @param column of `heads` in which the list of each of its rows begins: entry + 1 */
  constructor(machine: Machine, ledger: number, heads: Table, column: number) {
    this.#machine = machine;
    this.#ledger = ledger;
    this.#heads = heads;
    this.#column = column;
  }

  /** The first entry of list `of`, -1 if it is empty. */
  first(of: number): number {
    return this.#heads.get(of, this.#column) - 1;
  }

  /** Puts an entry at the head of list `of`. */
  put(entry: number, of: number): void {
    const next = this.#heads.get(of, this.#column);
    this.#heads.put(of, this.#column, entry + 1);
    // The entry after it, and the one before; minus whose list it is the first of.
    this.#machine.store(this.#note(entry), next);
    this.#machine.store(this.#note(entry) + 4, -(of + 1));
    if (next > 0) this.#machine.store(this.#note(next - 1) + 4, entry + 1);
  }

  /** Takes an entry off its list. */
  remove(entry: number): void {
    const next = this.#machine.load(this.#note(entry));
    const before = this.#machine.load(this.#note(entry) + 4);
    if (before > 0) this.#machine.store(this.#note(before - 1), next);
    else this.#heads.put(-before - 1, this.#column, next);
    if (next > 0) this.#machine.store(this.#note(next - 1) + 4, before);
  }

  /** Calls `act` for each entry of list `of`. It may take that one off. */
  each(of: number, act: (row: number, index: number) => void): void {
    let entry = this.first(of);
    while (entry >= 0) {
      const next = this.#machine.load(this.#note(entry)) - 1;
      act(Math.floor(entry / ENTRIES), entry % ENTRIES);
      entry = next;
    }
  }

  #note(entry: number): number {
    return this.#ledger * PAGE_BYTES + entry * 8;
  }
}
