/**
 * Page tables of an environment: map and unmap at any address below a stated end, middle and leaf
 * tables made when they are first needed, of pages that the caller's pool gives.
 *
 *     words:  a page number + 1 per leaf table, 0: not made; behind them the same per middle table
 *
 * It promises: a mapping that was refused has mapped nothing, and the tables that were made for it
 * stay for the next. Every check is the kernel's; the words only save looking where tables are.
 */
import { MAP_READ, MAP_WRITE, Status } from '../../kernel/abi.ts';
import type { Op, Syscalls } from '../syscalls.ts';

const ENTRIES = 512;
const RW = MAP_READ | MAP_WRITE;

export interface TablesSpec {
  /** the environment's root table */
  readonly root: number;
  /** zero-filled memory of tablesWords(leaves) words */
  readonly at: number;
  /** leaf tables at most, of 2 MiB each: where the addresses end */
  readonly leaves: number;
  /** capability by which pages are made tables and mapped */
  readonly slot: number;
  /** capability over the environment, if it is another than the caller */
  readonly envSlot?: number;
  /** a page to make a table of; -1: there is none */
  readonly take: () => Op<number>;
  readonly put: (page: number) => Op<void>;
}

const middlesFor = (leaves: number): number => Math.ceil(leaves / ENTRIES);
/** Words that tables of so many leaf tables need. */
export const tablesWords = (leaves: number): number => leaves + middlesFor(leaves);

export class PageTables {
  readonly #sys: Syscalls;
  readonly #spec: TablesSpec;
  readonly #envSlot: number;

  constructor(sys: Syscalls, spec: TablesSpec) {
    this.#sys = sys;
    this.#spec = spec;
    this.#envSlot = spec.envSlot ?? 0;
  }

  /** Tells it of the tables that the environment began with: middle 0 and leaf 0. */
  *adopt(middle: number, leaf: number): Op<void> {
    yield* this.#sys.port.store(this.#middle(0), middle + 1);
    yield* this.#sys.port.store(this.#leaf(0), leaf + 1);
  }

  /** The leaf table that translates virtual page `page`, made if need be; -1: it cannot be. */
  *leafOf(page: number): Op<number> {
    const n = Math.floor(page / ENTRIES);
    if (n >= this.#spec.leaves) return -1;
    const known = yield* this.#sys.port.load(this.#leaf(n));
    if (known !== 0) return known - 1;
    const middle = yield* this.#middleOf(n);
    return middle < 0 ? -1 : yield* this.#hang(middle, n % ENTRIES, this.#leaf(n), 3);
  }

  /** Maps physical page `physical` at virtual page `page`; the kernel's status. */
  *map(page: number, physical: number, flags = RW, entry = 0): Op<number> {
    const leaf = yield* this.leafOf(page);
    if (leaf < 0) return Status.quota;
    const { slot } = this.#spec;
    const { status } = yield* this.#sys.pageMap(
      leaf,
      page % ENTRIES,
      physical,
      slot,
      entry,
      flags,
      this.#envSlot,
    );
    return status;
  }

  /** Empties the entry of virtual page `page`; makes no table for it. */
  *unmap(page: number): Op<void> {
    const known = yield* this.#sys.port.load(this.#leaf(Math.floor(page / ENTRIES)));
    if (known === 0) return;
    yield* this.#sys.pageUnmap(known - 1, page % ENTRIES, 1, this.#envSlot);
  }

  *#middleOf(leaf: number): Op<number> {
    const n = Math.floor(leaf / ENTRIES);
    const known = yield* this.#sys.port.load(this.#middle(n));
    return known !== 0 ? known - 1 : yield* this.#hang(this.#spec.root, n, this.#middle(n), 1);
  }

  /** Hangs a new table under entry `index`; a leaf table takes two ledger pages besides. */
  *#hang(parent: number, index: number, word: number, count: number): Op<number> {
    const pages: number[] = [];
    while (pages.length < count) {
      const page = yield* this.#spec.take();
      if (page < 0) break;
      pages.push(page);
    }
    const [table = -1, ledger0 = 0, ledger1 = 0] = pages;
    if (pages.length === count) {
      const { status } = yield* this.#sys.tableCreate(
        parent,
        index,
        table,
        this.#spec.slot,
        [ledger0, ledger1],
        this.#envSlot,
      );
      if (status === Status.ok) {
        yield* this.#sys.port.store(word, table + 1);
        return table;
      }
    }
    for (const page of pages) yield* this.#spec.put(page);
    return -1;
  }

  #leaf(n: number): number {
    return this.#spec.at + n * 4;
  }
  #middle(n: number): number {
    return this.#spec.at + (this.#spec.leaves + n) * 4;
  }
}
