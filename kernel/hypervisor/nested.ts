/**
 * Nested paging: hardware guest mode. The guest writes its own tables, satp, fences and timer
 * without an exit; every access of its supervisor and its programs translates through both stages
 * on the one hart (RISC-V Privileged Architecture, "Two-Stage Address Translation"). An exit is
 * left for memory that the second stage lacks.
 */
import { E } from '../../machine/counters.ts';
import { ALONE } from '../../machine/machine.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Regime } from '../../machine/walker.ts';
import { Cause, type Context, type PteUpdate, type Trap } from '../supervisor.ts';
import { armLog, collectLog, markLog } from './dirty.ts';
import type { AddressSpace, Answered, GuestPort, Paging } from './paging.ts';
import type { State } from './state.ts';

const isSecondStage = (cause: number): boolean =>
  cause === Cause.loadGuestPageFault || cause === Cause.storeGuestPageFault;

export class NestedPaging implements Paging {
  readonly neighbours = ALONE;
  readonly clock = null;
  readonly #guest: GuestPort;
  readonly #state: State;
  readonly #guestRoot: number;
  #regime: Regime; // vsatp and hgatp

  /** @param guestRoot page of the second-stage root, in the host's machine */
  constructor(guest: GuestPort, state: State, guestRoot: number) {
    this.#guest = guest;
    this.#state = state;
    this.#guestRoot = guestRoot;
    this.#regime = this.#regimeOf(-1, 0);
  }

  #regimeOf(root: number, asid: number): Regime {
    const { host, vm } = this.#guest;
    return host.guestRegime({ vmid: vm + 1, asid, root, guestRoot: this.#guestRoot });
  }

  regime(): Regime {
    return this.#regime;
  }

  programRegime(): Regime {
    return this.#regime;
  }

  /** All causes that can be delegated are; the second stage is the hypervisor's. */
  trapLevel(cause: number): number {
    return isSecondStage(cause) ? this.#guest.host.level : this.#guest.level;
  }

  load(gpa: number): number {
    return this.#guest.hart.memory.get(this.#address(gpa, false));
  }

  store(gpa: number, value: number): void {
    this.#guest.hart.memory.put(this.#address(gpa, true), value);
  }

  page(page: number, write: boolean): number {
    return this.#address(page * PAGE_BYTES, write) / PAGE_BYTES;
  }

  /** What the hypervisor does for a guest it does here by the tables, too: never asked. */
  behind(): number {
    return -1;
  }

  readPtes(table: number, first: number, count: number): Uint32Array {
    const { hart } = this.#guest;
    const entries = new Uint32Array(count);
    for (let n = 0; n < count; n++) {
      hart.countReference('pte-read');
      entries[n] = hart.memory.get(this.#entry(table, first + n, false));
    }
    return entries;
  }

  /** Plain stores: the second stage guards what they can name. */
  writePtes(updates: readonly PteUpdate[]): void {
    const { hart } = this.#guest;
    for (const { table, index, value } of updates) {
      hart.countReference('pte-write');
      hart.counters.add(E.pteWrites, 1);
      const at = this.#entry(table, index, true);
      hart.memory.put(at, value | 0);
      if (hart.memory.get(at + 4) !== 0) hart.memory.put(at + 4, 0);
    }
  }

  #entry(table: number, index: number, write: boolean): number {
    const gpa = table * PAGE_BYTES + index * 8;
    if (gpa % 8 !== 0) this.#guest.stop(gpa);
    return this.#address(gpa, write);
  }

  /** Host address of a guest-physical one; an exit if the second stage lacks it. */
  #address(gpa: number, write: boolean): number {
    const { hart } = this.#guest;
    for (;;) {
      const at = hart.supervisorAddress(gpa, write);
      if (at >= 0) return at;
      if (!isSecondStage(hart.faultCause)) this.#guest.stop(hart.faultGpa);
      this.#guest.missing(hart.faultGpa);
    }
  }

  /** First stage the guest's own, second ours. */
  locate(vpn: number, write: boolean): number | null {
    const { hart } = this.#guest;
    for (;;) {
      if (hart.translateUser(vpn, write)) return hart.ppn;
      if (!isSecondStage(hart.faultCause)) return null;
      this.#guest.missing(hart.faultGpa);
    }
  }

  setAddressSpace(root: number, asid: number): void {
    this.#regime = this.#regimeOf(root, asid);
    this.#guest.hart.install(this.#regime);
  }

  fence(asid: number | null, vpn: number | null): void {
    this.#guest.hart.fence(this.#guest.vm + 1, asid, vpn);
  }

  /** vstimecmp (Sstc) is the guest's own register. */
  timerWritten(): void {
    // No exit.
  }

  entered(_trap: Trap, _from: Context | null): void {
    const { hart } = this.#guest;
    hart.charge('trap-entry', hart.costs.trapEntry);
  }

  left(_to: Context | null): void {
    const { hart } = this.#guest;
    hart.charge('trap-return', hart.costs.trapReturn);
  }

  settle(): void {
    // Nothing was put off.
  }

  pend(): void {
    // hvip is all that there is.
  }

  taken(): boolean {
    return true;
  }

  yields(): boolean {
    return true;
  }

  outside(): void {
    // satp is the hypervisor's own: the guest's is vsatp.
  }

  inside(): void {
    // As above.
  }

  interrupted(): void {
    // hvip says it all.
  }

  /** What its programs do goes to its own supervisor. */
  trapped(): Answered {
    return 'stop';
  }

  changed(_page: number): void {
    this.#guest.host.fenceGuest(this.#guest.vm + 1);
  }

  resolve(): boolean {
    const { hart } = this.#guest;
    if (!isSecondStage(hart.faultCause)) return false;
    this.#guest.missing(hart.faultGpa);
    return true;
  }

  arm(): void {
    armLog(this.#state, this.#guest.vm);
  }

  disarm(): void {
    // D bits cost nothing.
  }

  collect(): number[] {
    return collectLog(this.#state, this.#guest.vm);
  }

  wrote(page: number): void {
    markLog(this.#state, this.#guest.vm, page);
  }

  ended(): void {
    this.#guest.host.fenceGuest(this.#guest.vm + 1);
  }

  space(): AddressSpace {
    const { root, asid } = this.#regime;
    return { root, asid };
  }

  restore({ root, asid }: AddressSpace): void {
    this.#regime = this.#regimeOf(root, asid);
    this.#guest.hart.forgetTranslations();
  }
}
