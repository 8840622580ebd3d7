/**
 * What shadow paging and the paravirtual mode have in common: the guest's supervisor runs in user
 * mode, under a satp of the host, so each trap of its programs reaches the hypervisor first, which
 * writes the guest's registers and lets its supervisor go on. nested.ts has hardware do that.
 *
 * The hypervisor has its address space to itself: on each way in it loads its own satp, on each way
 * out that of the guest's supervisor or of its programs. What is kept between traps is words of
 * memory; the fields here mirror registers of the hart.
 */
import type { Privilege } from '../../machine/machine.ts';
import type { Regime } from '../../machine/walker.ts';
import { Cause, type Context, type Trap } from '../supervisor.ts';
import { type AddressSpace, BARE, type GuestPort } from './paging.ts';
import { Runs, runsOf, type State, Vm } from './state.ts';

/** Registers that a trap writes, and an exit reads: scause, sepc, stval, sstatus. */
const TRAP_REGISTERS = 4;

export abstract class Deprivileged {
  readonly inGuestMode = false;
  readonly guestMode = null; // a machine whose supervisor runs in user mode has one stage
  protected readonly guest: GuestPort;
  protected readonly state: State;
  protected mode: number = Runs.supervisor; // what runs under satp while the guest runs
  protected asked: AddressSpace = { root: BARE, asid: 0 }; // the guest's satp
  #satp: Regime; // while the guest runs: the host's satp
  // Since a handler was rolled back: to be made good, and what goes on then.
  #restored = false;
  #goesOn: number = Runs.supervisor;

  constructor(guest: GuestPort, state: State) {
    this.guest = guest;
    this.state = state;
    this.#satp = guest.host.regime();
  }

  /** Root and ASID, in the host's machine, for what runs now. */
  protected abstract walked(): AddressSpace;
  /** A handler was rolled back: what was derived from what it did is derived anew. */
  protected abstract remake(space: AddressSpace): void;

  regime(): Regime {
    return this.#satp;
  }

  /** Whatever its programs do reaches the hypervisor; whose timer it was the run loop knows. */
  trapLevel(cause: number, privilege: Privilege): number {
    const { host, level } = this.guest;
    const procedure = cause === Cause.environmentCall && privilege === 'supervisor';
    if (procedure || cause === Cause.timerInterrupt) return level;
    return host.trapLevel(cause, 'user');
  }

  outside(): void {
    this.guest.host.setAddressSpace({ root: this.state.root, asid: 0 });
  }

  inside(): void {
    const { host, vm } = this.guest;
    this.mode = this.state.vm.get(vm, Vm.runs);
    host.setAddressSpace(this.walked());
    this.#satp = { ...host.regime(), lowered: true };
  }

  exited(): void {
    this.guest.host.moveRegisters(TRAP_REGISTERS);
  }

  /** The guest's registers are words of its row; satp is set on every way in. */
  switched(): void {
    // Nothing.
  }

  interrupted(): void {
    this.give();
  }

  /** It has no guests in guest mode. */
  innerFault(): null {
    return null;
  }

  /** A machine whose supervisor runs in user mode runs no guests. */
  resolve(): boolean {
    return false;
  }

  /** The guest's supervisor is told a trap: its registers say which, and it runs next. */
  protected give(): void {
    const { vm } = this.state;
    for (let n = 0; n < TRAP_REGISTERS; n++) vm.put(this.guest.vm, Vm.trap + n, 0);
    vm.put(this.guest.vm, Vm.runs, Runs.supervisor);
  }

  entered(trap: Trap, _from: Context | null): void {
    if (this.mode === Runs.supervisor) return; // it was given: the hypervisor had it first
    this.guest.exit(trap.cause === Cause.timerInterrupt ? 'timer' : 'reflect', () => {
      this.give();
    });
  }

  /** sret: to programs of its own privilege as well. */
  protected resume(privilege: Privilege): void {
    this.state.vm.put(this.guest.vm, Vm.runs, runsOf(privilege));
  }

  space(): AddressSpace {
    return this.asked;
  }

  /** Its handler will be told the trap again, and has it: the hypervisor knows. */
  restore(space: AddressSpace, program: Privilege | null): void {
    this.#goesOn = runsOf(program);
    this.asked = space;
    this.#restored = true;
  }

  renew(): void {
    if (!this.#restored) return;
    this.guest.outside(() => {
      this.remake(this.asked);
      this.state.vm.put(this.guest.vm, Vm.runs, this.#goesOn);
    });
    this.#restored = false;
  }
}
