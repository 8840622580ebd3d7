/**
 * Shadow paging: trap and emulate. The guest's supervisor runs in user mode, so whatever it does to
 * the machine traps: satp, fences, timer, sret, stores to tables that are shadowed. Hardware walks
 * shadow tables (shadow-tables.ts) in one stage; a fault that the guest's own tables allow is
 * hidden from it and mended, any other is given to its supervisor. deprivileged.ts has the ways in
 * and out.
 */
import { assert } from '../../machine/assert.ts';
import { E } from '../../machine/counters.ts';
import { ALONE, type Privilege } from '../../machine/machine.ts';
import { DIRECT_VPN } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Regime } from '../../machine/walker.ts';
import { Cause, type Context, type PteUpdate, type Trap } from '../supervisor.ts';
import { Deprivileged } from './deprivileged.ts';
import { type AddressSpace, type Answered, BARE, type GuestPort, type Paging } from './paging.ts';
import { type Filled, type Noting, type ShadowPages, ShadowTables } from './shadow-tables.ts';
import { Runs, runsOf, type State } from './state.ts';

export class ShadowPaging extends Deprivileged implements Paging {
  readonly neighbours = ALONE;
  readonly clock = null;
  readonly #tables: ShadowTables;
  #stored = false; // to a table, by the handler at hand
  #forgets = false; // one that was rolled back had
  readonly #noting: Noting;

  /** @param firstAsid of ShadowTables.asids in the host's machine */
  constructor(guest: GuestPort, state: State, pages: ShadowPages, firstAsid: number) {
    super(guest, state);
    this.#noting = (act) => {
      this.#stored = true;
      guest.noting(act);
    };
    this.#tables = new ShadowTables(state, guest.vm, pages, firstAsid);
    this.#tables.use(BARE, 0);
  }

  get tables(): ShadowTables {
    return this.#tables;
  }

  programRegime(privilege: Privilege): Regime {
    const runs = this.mode === runsOf(privilege);
    assert(runs, 'shadow: a program runs under the root of its privilege');
    return this.regime();
  }

  // ---- the way in and out -----------------------------------------------------------------------

  /** A root that the guest does not have: its next access says so. */
  protected walked(): AddressSpace {
    return this.#tables.root(this.mode !== Runs.user) ?? { root: this.state.root, asid: 0 };
  }

  trapped(trap: Trap): Answered {
    const { cause, tval } = trap;
    if (cause === Cause.loadPageFault || cause === Cause.storePageFault) {
      const filled = this.#fillUser(tval >>> 12, cause === Cause.storePageFault);
      if (filled === 'filled') return 'handled';
      if (filled === 'beyond') return 'stop';
      if (filled === 'wait') return 'wait';
    }
    this.give();
    this.guest.inject(trap);
    return 'given';
  }

  /** A program may store to a table, if its supervisor lets it: then it is none, until walked. */
  #fillUser(vpn: number, write: boolean): Filled {
    const filled = this.#tables.fill(vpn, write, this.mode !== Runs.user);
    return filled.is === 'table' && this.#tables.unshadow(filled.page) ? 'filled' : filled.is;
  }

  left(to: Context | null, privilege: Privilege): void {
    if (to === null) return; // wfi, which exits anyway
    this.guest.exit('sret', () => {
      this.resume(privilege);
    });
  }

  settle(): void {
    // Nothing was put off: each register that it wrote was an exit.
  }

  // ---- memory, as the guest's supervisor reaches it ---------------------------------------------

  load(gpa: number): number {
    return this.guest.hart.memory.get(this.#reach(gpa, false, neither));
  }

  store(gpa: number, value: number): void {
    const at = this.#reach(gpa, true, () => this.#tables.store(gpa, value, null, this.#noting));
    if (at >= 0) this.guest.hart.memory.put(at, value);
  }

  page(page: number, write: boolean, instead: (host: number) => void): number {
    // Overwritten, word by word or not: after a few stores it is no table any more.
    const at = this.#reach(page * PAGE_BYTES, write, () => {
      this.#tables.unshadow(page);
      const host = this.#tables.behind(page, true);
      if (host >= 0) {
        this.#noting(() => {
          instead(host);
        });
      }
      return host >= 0;
    });
    return at < 0 ? -1 : at / PAGE_BYTES;
  }

  behind(page: number): number {
    return this.#tables.behind(page, false);
  }

  readPtes(table: number, first: number, count: number): Uint32Array {
    const { hart } = this.guest;
    const entries = new Uint32Array(count);
    for (let n = 0; n < count; n++) {
      hart.countReference('pte-read');
      const gpa = this.#entry(table, first + n);
      entries[n] = hart.memory.get(this.#reach(gpa, false, neither));
    }
    return entries;
  }

  /** Stores like any others: those to tables that are shadowed, and in sync, trap. */
  writePtes(updates: readonly PteUpdate[]): void {
    const { hart } = this.guest;
    for (const { table, index, value } of updates) {
      hart.countReference('pte-write');
      hart.counters.add(E.pteWrites, 1);
      const gpa = this.#entry(table, index);
      const at = this.#reach(gpa, true, () => this.#tables.store(gpa, value | 0, 0, this.#noting));
      if (at < 0) continue;
      hart.memory.put(at, value | 0);
      if (hart.memory.get(at + 4) !== 0) hart.memory.put(at + 4, 0);
    }
  }

  #entry(table: number, index: number): number {
    const gpa = table * PAGE_BYTES + index * 8;
    if (gpa % 8 !== 0) this.guest.stop(gpa);
    return gpa;
  }

  /**
   * Host address of a guest-physical one, or -1 if the store was done for the guest.
   * @param emulate does the store, if the page is guarded; false: it cannot
   */
  #reach(gpa: number, write: boolean, emulate: () => boolean): number {
    const { hart } = this.guest;
    if (!(gpa >= 0 && gpa < 2 ** 32)) this.guest.stop(gpa);
    const vpn = DIRECT_VPN + (gpa >>> 12);
    for (;;) {
      const at = hart.supervisorAddress(gpa, write);
      if (at >= 0) return at;
      if (this.guest.resolve(vpn, write)) continue;
      const filled = this.guest.exit<Filled | 'done'>(
        (result) => (result === 'done' ? 'store' : 'fault'),
        () => {
          const { is } = this.#tables.fill(vpn, write, true);
          return is === 'table' && emulate() ? 'done' : is;
        },
      );
      if (filled === 'done') return -1;
      if (filled === 'wait') this.guest.block(gpa);
      if (filled !== 'filled') this.guest.stop(gpa);
    }
  }

  /** A guest's supervisor reaches user memory by its own root, which maps it too. */
  locate(vpn: number, write: boolean): number | null {
    const { hart } = this.guest;
    for (;;) {
      if (hart.translateUser(vpn, write)) return hart.ppn;
      if (this.guest.resolve(vpn, write)) continue;
      const filled = this.guest.exit('fault', () => this.#fillUser(vpn, write));
      if (filled === 'fault') return null;
      if (filled === 'wait') this.guest.block(vpn * PAGE_BYTES);
      if (filled !== 'filled') this.guest.stop(vpn * PAGE_BYTES);
    }
  }

  // ---- control registers: each an exit ----------------------------------------------------------

  setAddressSpace(root: number, asid: number): void {
    this.asked = { root, asid };
    this.guest.exit('satp', () => {
      this.#tables.use(root, asid);
    });
  }

  fence(asid: number | null, vpn: number | null): void {
    this.guest.exit('fence', () => {
      this.#tables.fence(asid, vpn);
    });
  }

  timerWritten(): void {
    this.guest.exit('stimecmp', () => {
      this.state.machine.moveRegisters(1);
    });
  }

  // ---- for the hypervisor -----------------------------------------------------------------------

  pend(): void {
    // hvip is all that there is.
  }

  taken(): boolean {
    return true;
  }

  why(): string {
    return '';
  }

  yields(): boolean {
    return true;
  }

  changed(page: number): void {
    this.#tables.changed(page);
  }

  ended(): void {
    this.#tables.end();
  }

  /** A handler begins that may be rolled back. */
  override space(): AddressSpace {
    this.#stored = false;
    return super.space();
  }

  override restore(space: AddressSpace, program: Privilege | null): void {
    super.restore(space, program);
    this.#forgets ||= this.#stored;
  }

  protected remake({ root, asid }: AddressSpace): void {
    if (this.#forgets || this.#tables.loose) this.#tables.forget();
    this.#tables.use(root, asid);
    this.#forgets = false;
  }

  arm(): void {
    this.#tables.arm();
  }

  disarm(): void {
    this.#tables.disarm();
  }

  collect(): number[] {
    return this.#tables.collect();
  }

  wrote(page: number): void {
    this.#tables.wrote(page);
  }
}

const neither = (): boolean => false;
