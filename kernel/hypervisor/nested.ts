/**
 * Nested paging: hardware guest mode. The guest writes its own tables, satp, fences and timer
 * without an exit; every access of its supervisor and its programs translates through both stages
 * on the one hart (RISC-V Privileged Architecture, "Two-Stage Address Translation"). An exit is
 * left for memory that the second stage lacks.
 *
 * A guest that is to run guests of its own has guest mode, too, in software: each of its registers
 * exits, each way into its guest and out of it, and hardware walks a composed second stage
 * (composed.ts).
 */
import { E } from '../../machine/counters.ts';
import { ALONE, type GuestMode } from '../../machine/machine.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Regime } from '../../machine/walker.ts';
import { Cause, type Context, type PteUpdate, type Trap } from '../supervisor.ts';
import { type Composed, type ComposedPages, ComposedStage } from './composed.ts';
import { armLog, collectLog, markLog } from './dirty.ts';
import type { AddressSpace, Answered, GuestPort, Paging } from './paging.ts';
import { Runs, type State, Vm } from './state.ts';

/** vsstatus vsie vstvec vsscratch vsepc vscause vstval vsatp hvip: of a world switch. */
const GUEST_REGISTERS = 9;
/** Of an exit: sepc, scause, stval, sstatus; and htval, hstatus, which are of the extension. */
const EXIT_REGISTERS = 4;
const EXIT_GUEST_REGISTERS = 2;

const isSecondStage = (cause: number): boolean =>
  cause === Cause.loadGuestPageFault || cause === Cause.storeGuestPageFault;

export class NestedPaging implements Paging {
  readonly neighbours = ALONE;
  readonly clock = null;
  readonly inGuestMode = true;
  readonly guestMode: GuestMode | null;
  readonly #guest: GuestPort;
  readonly #state: State;
  readonly #guestRoot: number;
  readonly #composed: ComposedStage | null;
  #regime: Regime; // vsatp and hgatp
  // Mirrors of the row, as of when the hypervisor last let the guest go on.
  #runs: number = Runs.supervisor;
  #ran: number = Runs.supervisor; // when the handler at hand began
  #restored = false; // a handler was rolled back: to be made good

  /**
   * @param guestRoot page of the second-stage root, in the host's machine
   * @param pages of the composed second stage; null: the guest runs no guests in guest mode
   */
  constructor(guest: GuestPort, state: State, guestRoot: number, pages: ComposedPages | null) {
    this.#guest = guest;
    this.#state = state;
    this.#guestRoot = guestRoot;
    this.#regime = this.#regimeOf(-1, 0);
    if (pages === null) {
      this.#composed = null;
      this.guestMode = null;
      return;
    }
    const composed = new ComposedStage(state, guest.vm, pages, (page) => {
      markLog(state, guest.vm, page);
    });
    this.#composed = composed;
    this.guestMode = {
      regime: (inner) => state.guestMode.regime(composed.regime(inner)),
      select: (vmid, root) => {
        guest.exit('hgatp', () => {
          composed.select(vmid, root);
        });
      },
      moveRegisters: (count) => {
        if (!Number.isInteger(count)) return;
        for (let n = 0; n < count; n++) {
          // Each is a copy that the hypervisor holds: a word of it.
          guest.exit('register', () => state.vm.get(guest.vm, Vm.registers));
        }
      },
      fence: (vmid, page) => {
        guest.exit('hfence', () => {
          composed.fence(vmid, page ?? null);
        });
      },
      enter: () => {
        guest.exit('enter', () => {
          this.#toGuest(composed);
        });
      },
      leave: (cause) => {
        if (this.#runs !== Runs.guest) return; // it was given: the hypervisor had it first
        guest.exit(cause === Cause.timerInterrupt ? 'timer' : 'reflect', () => {
          this.#toSupervisor();
        });
      },
    };
  }

  /** What its guests run on, for tests. */
  get composed(): ComposedStage | null {
    return this.#composed;
  }

  #regimeOf(root: number, asid: number): Regime {
    const guestRoot = this.#guestRoot;
    return this.#state.guestMode.regime({ vmid: this.#vmid, asid, root, guestRoot });
  }

  get #vmid(): number {
    return this.#guest.vm + 1;
  }

  /** The guest's own guest runs next: its registers in, and the composed second stage. */
  #toGuest(composed: ComposedStage): void {
    const { guestMode, vm } = this.#state;
    guestMode.moveRegisters(2 * GUEST_REGISTERS);
    const { vmid, root } = composed.selected();
    guestMode.select(vmid, root);
    vm.put(this.#guest.vm, Vm.runs, Runs.guest);
  }

  /** The guest's supervisor runs next, and is told of what its guest did. */
  #toSupervisor(): void {
    const { guestMode, vm } = this.#state;
    guestMode.moveRegisters(2 * GUEST_REGISTERS);
    guestMode.select(this.#vmid, this.#guestRoot);
    vm.put(this.#guest.vm, Vm.runs, Runs.supervisor);
  }

  regime(): Regime {
    return this.#regime;
  }

  programRegime(): Regime {
    return this.#regime;
  }

  /** All causes that can be delegated are; the second stage is whose the hart is. */
  trapLevel(cause: number): number {
    const { host, level } = this.#guest;
    return isSecondStage(cause) ? host.trapLevel(cause, 'user') : level;
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
      this.#missing(write);
    }
  }

  /** What the hart's second stage lacks is mended by whose it is: there may be several hosts. */
  #missing(write: boolean): void {
    const { hart } = this.#guest;
    const gpa = hart.faultGpa;
    if (!this.#guest.resolve(0, write)) this.#guest.missing(gpa);
  }

  /** First stage the guest's own, second ours. */
  locate(vpn: number, write: boolean): number | null {
    const { hart } = this.#guest;
    for (;;) {
      if (hart.translateUser(vpn, write)) return hart.ppn;
      if (!isSecondStage(hart.faultCause)) return null;
      this.#missing(write);
    }
  }

  setAddressSpace(root: number, asid: number): void {
    this.#guest.own(1);
    this.#regime = this.#regimeOf(root, asid);
    this.#guest.hart.install(this.#regime);
  }

  fence(asid: number | null, vpn: number | null): void {
    this.#guest.hart.fence(this.#regime.vmid, asid, vpn);
  }

  /** vstimecmp (Sstc) is the guest's own register. */
  timerWritten(): void {
    this.#guest.own(1);
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

  why(): string {
    return '';
  }

  yields(): boolean {
    return true;
  }

  outside(): void {
    // satp is the hypervisor's own: the guest's is vsatp.
  }

  inside(): void {
    if (this.#composed !== null) this.#runs = this.#state.vm.get(this.#guest.vm, Vm.runs);
  }

  exited(): void {
    this.#state.machine.moveRegisters(EXIT_REGISTERS);
    this.#state.guestMode.moveRegisters(EXIT_GUEST_REGISTERS);
  }

  /** And vstimecmp, and hgatp. */
  switched(to: boolean): void {
    const { guestMode } = this.#state;
    guestMode.moveRegisters(to ? GUEST_REGISTERS + 1 : GUEST_REGISTERS);
    if (!to) return;
    if (this.#composed !== null && this.#inner()) {
      const { vmid, root } = this.#composed.selected();
      guestMode.select(vmid, root);
    } else guestMode.select(this.#vmid, this.#guestRoot);
  }

  /** hvip says it all, if the guest's supervisor runs. */
  interrupted(): void {
    this.#state.guestMode.moveRegisters(1);
    if (this.#composed !== null && this.#inner()) this.#toSupervisor();
  }

  #inner(): boolean {
    return this.#state.vm.get(this.#guest.vm, Vm.runs) === Runs.guest;
  }

  /** What its programs do goes to its own supervisor. */
  trapped(): Answered {
    return 'stop';
  }

  changed(page: number): void {
    this.#state.guestMode.fence(this.#vmid, page);
    this.#composed?.changed(page);
  }

  innerFault(trap: Trap): Answered | null {
    const composed = this.#composed;
    if (composed === null || !this.#inner()) return null;
    switch (composed.fill(trap.gpa, trap.cause === Cause.storeGuestPageFault)) {
      case 'filled':
        return 'handled';
      case 'wait':
        return 'wait';
      case 'beyond':
        return 'stop';
      case 'fault':
        this.#toSupervisor();
        this.#guest.inject(trap);
        return 'given';
    }
  }

  /** The same in the middle of what the supervisor of the guest's guest does. */
  resolve(_vpn: number, write: boolean): boolean {
    const { hart } = this.#guest;
    if (!isSecondStage(hart.faultCause)) return false;
    const gpa = hart.faultGpa;
    const composed = this.#composed;
    const inner = hart.regime.vmid !== this.#regime.vmid;
    if (this.#guest.resolve(0, write)) return true;
    if (!inner || composed === null) {
      this.#guest.missing(gpa);
      return true;
    }
    const filled = this.#guest.exit<Composed>(
      (result) => (result === 'fault' ? 'reflect' : 'compose'),
      () => {
        const result = composed.fill(gpa, write);
        if (result === 'fault') this.#toSupervisor();
        return result;
      },
    );
    if (filled === 'wait') this.#guest.block(gpa);
    if (filled === 'beyond') this.#guest.stop(gpa);
    return filled === 'filled';
  }

  /** No page counts as written: whatever may be written by a composed leaf must be marked anew. */
  arm(): void {
    armLog(this.#state, this.#guest.vm);
    this.#composed?.forget();
  }

  disarm(): void {
    // D bits cost nothing.
  }

  collect(): number[] {
    const words = collectLog(this.#state, this.#guest.vm);
    this.#composed?.cleaned(words);
    return words;
  }

  wrote(page: number): void {
    markLog(this.#state, this.#guest.vm, page);
  }

  ended(): void {
    this.#state.guestMode.fence(this.#vmid);
    this.#composed?.end();
  }

  space(): AddressSpace {
    const { root, asid } = this.#regime;
    if (!this.#restored) this.#ran = this.#runs;
    return { root, asid };
  }

  /** What a handler wrote that is undone may have been its guests' second stages. */
  restore({ root, asid }: AddressSpace): void {
    this.#regime = this.#regimeOf(root, asid);
    this.#guest.hart.forgetTranslations();
    this.#restored = this.#composed !== null;
  }

  renew(): void {
    const composed = this.#composed;
    if (composed === null || !this.#restored) return;
    this.#guest.outside(() => {
      composed.forget();
      this.#state.vm.put(this.#guest.vm, Vm.runs, this.#ran);
    });
    this.#restored = false;
  }
}
