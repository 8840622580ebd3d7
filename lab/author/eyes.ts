/**
 * Reads what a machine's kernels hold, from outside: words of memory, uncharged and uncounted, so
 * that looking changes nothing. In a virtual machine it goes through the second stage first.
 */
import { assert } from '../../machine/assert.ts';
import { ENTRIES, isLeaf, PTE_R, PTE_U, PTE_V, PTE_W, ptePpn } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import {
  Account,
  CAP_SLOTS,
  Env,
  envIndex,
  Extent,
  Info,
  Page,
  PAGE_ACCOUNT_SHIFT,
  PAGE_BITS,
  PAGE_ENV_SHIFT,
  PAGE_KEPT,
  PageKind,
} from '../../kernel/abi.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { CAP_VALID, CAP_WORDS, Private } from '../../kernel/exokernel/state.ts';
import { Vm } from '../../kernel/hypervisor/state.ts';
import type { Table } from '../../kernel/supervisor.ts';
import type { Built } from '../modes.ts';

const KIND_NAMES = new Map<number, string>(
  Object.entries(PageKind).map(([name, kind]) => [kind, name]),
);
const RIGHTS = ['READ', 'WRITE', 'GRANT', 'REVOKE'];
const VPN_BITS = 9;

export interface Mapping {
  readonly va: number; // of its first byte
  readonly page: number;
  readonly writable: boolean;
}

export interface PageFacts {
  readonly kind: string;
  readonly account: number;
  readonly env: number; // of a table
  readonly kept: boolean;
}

/** The sight of one kernel of a machine. */
export class Eyes {
  readonly #built: Built;
  readonly #kernel: number;

  constructor(built: Built, kernel: number) {
    this.#built = built;
    this.#kernel = kernel;
  }

  get #state(): Built['kernels'][number]['state'] {
    const kernel = this.#built.kernels[this.#kernel];
    assert(kernel !== undefined, 'eyes: the kernel exists');
    return kernel.state;
  }

  /** Tables that only the exokernel has; null on a unikernel, where nothing is anybody's. */
  get #exokernel(): Exokernel['state'] | null {
    const kernel = this.#built.kernels[this.#kernel];
    return kernel instanceof Exokernel ? kernel.state : null;
  }

  get protects(): boolean {
    return this.#exokernel !== null;
  }

  /** The word at a physical address of the kernel's machine; 0 where nothing is. */
  word(pa: number): number {
    const { machine, hypervisor } = this.#built;
    if (hypervisor === null) return this.#host(pa);
    const page = this.#secondStage(Math.floor(pa / PAGE_BYTES));
    return page < 0 ? 0 : machine.memory.get(page * PAGE_BYTES + (pa % PAGE_BYTES));
  }

  #host(pa: number): number {
    const { memory } = this.#built.machine;
    return pa >= 0 && pa < memory.pages * PAGE_BYTES ? memory.get(pa) : 0;
  }

  /** Host page behind a guest's page, as the hypervisor's tables have it; -1 if there is none. */
  #secondStage(page: number): number {
    const { hypervisor } = this.#built;
    if (hypervisor === null) return page;
    const { vm } = hypervisor.state;
    let table = this.#host(vm.address(this.#kernel, Vm.root)) + (page >>> (3 * VPN_BITS));
    for (let level = 2; level >= 0; level--) {
      const index = (page >>> (VPN_BITS * level)) % ENTRIES;
      const entry = this.#host(table * PAGE_BYTES + index * 8) >>> 0;
      if ((entry & PTE_V) === 0) return -1;
      if (isLeaf(entry)) return ptePpn(entry) + (page % (1 << (VPN_BITS * level)));
      table = ptePpn(entry);
    }
    return -1;
  }

  cell(table: Table, row: number, column: number): number {
    if (row < 0 || row >= table.rows) return 0;
    return this.word(table.address(row, column));
  }

  // ---- environments -----------------------------------------------------------------------------

  get environments(): number {
    return this.#state.env.rows;
  }

  env(index: number, column: number): number {
    return this.cell(this.#state.env, index, column);
  }

  info(word: number): number {
    return this.cell(this.#state.info, 0, word);
  }

  /** The filled leaves of an environment's tables, by address. */
  mappings(env: number): Mapping[] {
    const found: Mapping[] = [];
    const root = this.env(env, Env.root);
    const each = (table: number, level: number, base: number): void => {
      const lower = level === 2 ? ENTRIES / 2 : ENTRIES; // above is the kernel's direct map
      for (let index = 0; index < lower; index++) {
        const entry = this.word(table * PAGE_BYTES + index * 8) >>> 0;
        if ((entry & PTE_V) === 0) continue;
        const va = base + index * PAGE_BYTES * 2 ** (VPN_BITS * level);
        if (!isLeaf(entry)) each(ptePpn(entry), level - 1, va);
        else if ((entry & PTE_U) !== 0 && (entry & PTE_R) !== 0) {
          found.push({ va, page: ptePpn(entry), writable: (entry & PTE_W) !== 0 });
        }
      }
    };
    if (root > 0) each(root, 2, 0);
    return found;
  }

  /** The word at a virtual address of an environment; -1 where nothing is mapped. */
  userWord(env: number, address: number): number {
    const base = address - (address % PAGE_BYTES);
    const here = this.mappings(env).find(({ va }) => va === base);
    return here === undefined ? -1 : this.word(here.page * PAGE_BYTES + (address - base));
  }

  // ---- pages and what else has an owner ---------------------------------------------------------

  get pages(): number {
    return this.#state.pageWord.rows;
  }

  page(page: number): PageFacts {
    const word = this.cell(this.#state.pageWord, page, 0);
    return {
      kind: KIND_NAMES.get(word & 0xff) ?? '?',
      account: (word >>> PAGE_ACCOUNT_SHIFT) & 0xff,
      env: (word & ~PAGE_KEPT) >>> PAGE_ENV_SHIFT,
      kept: (word & PAGE_KEPT) !== 0,
    };
  }

  /** Tenant that an account was allotted to, by number; 0: nobody. */
  tenantOf(account: number): number {
    const state = this.#exokernel;
    if (state === null) return 0;
    return this.cell(state.account, account, Account.tenant);
  }

  account(account: number, column: number): number {
    const state = this.#exokernel;
    return state === null ? 0 : this.cell(state.account, account, column);
  }

  extent(row: number, column: number): number {
    const state = this.#exokernel;
    return state === null ? 0 : this.cell(state.extent, row, column);
  }

  get extents(): number {
    return this.#exokernel?.extent.rows ?? 0;
  }

  /** What holds a name: `page 12 is tenant 2's: ...`, or null if it names nothing. */
  owner(kind: Named, name: number): string | null {
    const state = this.#exokernel;
    if (state === null || !Number.isInteger(name) || name < 0) return null;
    switch (kind) {
      case 'page':
        return this.#pageText(name & ((1 << PAGE_BITS) - 1));
      case 'extent': {
        const row = name & 0xff;
        if (row >= this.extents || this.extent(row, Extent.valid) === 0) return null;
        const [first, count, account] = [Extent.first, Extent.count, Extent.account].map((column) =>
          this.extent(row, column),
        );
        const guard = nameText(this.extent(row, Extent.nameA), this.extent(row, Extent.nameB));
        return (
          `extent ${row} is ${this.holder(account ?? 0)}: blocks ${first} to ` +
          `${(first ?? 0) + (count ?? 0) - 1}, guarded by name ${guard}`
        );
      }
      case 'position': {
        const position = name & 0x3f;
        if (position >= this.info(Info.slices)) return null;
        const env = this.info(Info.sliceVector + position);
        const account = this.info(Info.sliceAccount + position);
        if (env === 0) return `slice position ${position} is free`;
        return `slice position ${position} is ${this.holder(account)}, held by environment ${env}`;
      }
      case 'env': {
        const index = envIndex(name);
        if (index >= this.environments || this.env(index, Env.state) === 0) return null;
        const guard = nameText(this.env(index, Env.nameA), this.env(index, Env.nameB));
        const account = this.env(index, Env.account);
        return `environment ${name} is ${this.holder(account)}, guarded by name ${guard}`;
      }
      case 'account': {
        if (this.account(name, Account.valid) === 0) return null;
        const of = nameText(this.account(name, Account.nameA), this.account(name, Account.nameB));
        const [used, limit] = [this.account(name, Account.used), this.account(name, Account.limit)];
        return `account ${name} is ${this.holder(name)}, named ${of}: ${used} of ${limit} pages`;
      }
    }
  }

  #pageText(page: number): string | null {
    if (page >= this.pages) return null;
    const { kind, account, env } = this.page(page);
    if (kind === 'free') return `page ${page} is free`;
    if (kind === 'kernel' || kind === 'published') return `page ${page} is the kernel's (${kind})`;
    const whose = `page ${page} is ${this.holder(account)}`;
    if (kind !== 'user') return `${whose}: ${kind} of environment row ${env}`;
    const entries = [0, 1, 2, 3].flatMap((entry) => {
      const [a, b, rights] = [0, 1, 2].map((word) => this.#access(page, entry, word)) as Three;
      return (rights & CAP_VALID) === 0
        ? []
        : [`access entry ${entry}: name ${nameText(a, b)} ${rightsText(rights)}`];
    });
    return `${whose}: ${entries.join(', ')}; ${this.#record(page, Page.leaves)} mapped`;
  }

  #record(page: number, column: number): number {
    const state = this.#exokernel;
    return state === null ? 0 : this.cell(state.page, page, column);
  }

  #access(page: number, entry: number, word: number): number {
    return this.#record(page, Page.access + entry * CAP_WORDS + word);
  }

  /** What stands in a capability slot. */
  slot(env: number, slot: number): string | null {
    const state = this.#exokernel;
    if (state === null || !Number.isInteger(slot) || slot < 0 || slot >= CAP_SLOTS) return null;
    const [a, b, rights] = [0, 1, 2].map((word) =>
      this.cell(state.secret, env, Private.caps + slot * CAP_WORDS + word),
    ) as Three;
    if ((rights & CAP_VALID) === 0) return `slot ${slot} is empty`;
    return `slot ${slot} is a capability for name ${nameText(a, b)} with ${rightsText(rights)}`;
  }

  holder(account: number): string {
    const tenant = this.tenantOf(account);
    if (account === 0) return `the reserve's`;
    return tenant === account || tenant === 0
      ? `tenant ${account}'s`
      : `tenant ${tenant}'s (account ${account})`;
  }
}

/** Arguments that name something with an owner. */
export type Named = 'page' | 'extent' | 'position' | 'env' | 'account';

/** What an argument of that name in docs/ABI.md names. */
export function namedBy(call: string, arg: string): Named | null {
  if (call.startsWith('account') && ['parent', 'from', 'to'].includes(arg)) return 'account';
  const words: Readonly<Record<string, Named>> = {
    page: 'page',
    'root page': 'page',
    table: 'page',
    parent: 'page',
    to: 'page',
    from: 'page',
    'ledger 0': 'page',
    'ledger 1': 'page',
    extent: 'extent',
    neighbour: 'extent',
    position: 'position',
    env: 'env',
    target: 'env',
    account: 'account',
    taker: 'account',
  };
  return words[arg] ?? null;
}

/** A name as people write it: its bytes, with points between; the empty one is above all. */
export function nameText(a: number, b: number): string {
  const bytes = [8, 16, 24].map((shift) => (a >>> shift) & 0xff);
  for (const shift of [0, 8, 16, 24]) bytes.push((b >>> shift) & 0xff);
  const length = a & 0xff;
  return length === 0 ? '(empty)' : bytes.slice(0, length).join('.');
}

const rightsText = (rights: number): string =>
  RIGHTS.filter((_, n) => (rights & (1 << n)) !== 0).join(' ') || 'no rights';

type Three = [number, number, number];
