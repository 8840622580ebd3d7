/**
 * The hypervisor: multiplexes its machine by pretending to be several. It boots any supervisor in
 * a VirtualMachine, by nested paging: a unikernel, an exokernel, from the same code.
 *
 * It trusts its machine and no guest. It owes each guest a machine of its own whose memory, disk
 * and interrupts nobody else touches; it hides which pages and blocks they really are, and when the
 * CPU is elsewhere. The guests' supervisors are its only objects; all its state is tables.
 */
import { assert } from '../../machine/assert.ts';
import type { Image } from '../../machine/user-port.ts';
import { NEVER, PAGE_BYTES } from '../../machine/units.ts';
import {
  Cause,
  type Context,
  type Machine,
  REGISTERS_ALL,
  type Supervisor,
  type Trap,
  writeDirectMap,
} from '../supervisor.ts';
import { completions, doorbell } from './disk.ts';
import { NestedPaging } from './nested.ts';
import type { GuestPort, Paging } from './paging.ts';
import { back, makeSecondStage, populate } from './pages.ts';
import { choose, tick, wait } from './slices.ts';
import { Cpu, type Exit, EXITS, type HypervisorConfig, State, Vm, VmState } from './state.ts';
import { type Monitor, VirtualMachine } from './virtual-machine.ts';

/** A guest to boot, and what its machine is to have. */
export interface Guest {
  readonly supervisor: Supervisor;
  readonly images: readonly Image[];
  /** guest-physical pages, one of which is the disk ring's */
  readonly pages: number;
  readonly firstBlock: number;
  readonly blocks: number;
  readonly channel: number;
  /** let its supervisor say to whom counters are attributed: for measuring tenants inside */
  readonly accounts?: boolean;
}

/** Control registers of a guest: what a world switch reads out and what it writes in. */
const GUEST_REGISTERS = 9; // vsstatus vsie vstvec vsscratch vsepc vscause vstval vsatp hvip
const SWITCH_REGISTERS = GUEST_REGISTERS + 2; // and hgatp, vstimecmp
/** Read at every exit: sepc, scause, stval, htval, sstatus, hstatus. */
const EXIT_REGISTERS = 6;

export class Hypervisor implements Supervisor, Monitor {
  readonly #config: HypervisorConfig;
  readonly #guests: readonly Guest[];
  #state: State | null = null; // views of machine memory, made once at boot
  #machines: readonly VirtualMachine[] = [];

  constructor(config: HypervisorConfig, guests: readonly Guest[]) {
    assert(guests.length > 0, 'hypervisor: a guest to run');
    assert(
      config.secondStage === '4KiB' || config.backing === 'populate',
      'hypervisor: megapages are populated, not touched',
    );
    this.#config = config;
    this.#guests = guests;
  }

  get state(): State {
    assert(this.#state !== null, 'hypervisor: booted');
    return this.#state;
  }

  /** The virtual machines, for tests and tools. */
  get machines(): readonly VirtualMachine[] {
    return this.#machines;
  }

  boot(machine: Machine): void {
    const state = new State(machine, this.#config, this.#guests.length);
    this.#state = state;
    writeDirectMap(machine, state.root);
    machine.setAddressSpace({ root: state.root, asid: 0 });
    machine.fence();
    machine.setTimer(NEVER);
    state.cpu.put(0, Cpu.nextPage, state.end);
    state.cpu.put(0, Cpu.topPage, machine.pages);
    this.#machines = this.#guests.map((guest, vm) => {
      const root = makeSecondStage(state);
      const { vm: row } = state;
      row.put(vm, Vm.state, VmState.ready);
      row.put(vm, Vm.root, root);
      row.put(vm, Vm.pages, guest.pages);
      row.put(vm, Vm.firstBlock, guest.firstBlock);
      row.put(vm, Vm.blocks, guest.blocks);
      row.put(vm, Vm.channel, guest.channel);
      if (this.#config.backing === 'populate') populate(state, vm);
      const { pages, blocks, images } = guest;
      const accounts = guest.accounts === true;
      const paging = (port: GuestPort): Paging => new NestedPaging(port, root);
      const spec = { vm, pages, blocks, paging, images, accounts };
      return new VirtualMachine(machine, this, spec, guest.supervisor);
    });
  }

  dispatch(): Context | null {
    const { state } = this;
    const vm = choose(state);
    if (vm < 0) return null;
    const machine = this.#machines[vm];
    assert(machine !== undefined, 'hypervisor: each row has its machine');
    const last = state.cpu.get(0, Cpu.last) - 1;
    if (last !== vm) {
      // A world switch: one guest's control registers out, the other's in.
      state.machine.moveRegisters((last < 0 ? 0 : GUEST_REGISTERS) + SWITCH_REGISTERS);
      if (this.#guests[vm]?.accounts !== true) {
        state.machine.attribute(state.vm.get(vm, Vm.channel) & 63);
      }
      state.cpu.put(0, Cpu.last, vm + 1);
    }
    if (state.vm.get(vm, Vm.pending) !== 0) {
      state.vm.put(vm, Vm.pending, 0);
      state.machine.moveRegisters(1);
      machine.inject();
    }
    this.#registers(vm, false);
    return machine.vcpu;
  }

  trap({ cause, tval, gpa }: Trap): void {
    const { state } = this;
    const vm = state.cpu.get(0, Cpu.current) - 1;
    if (vm >= 0) this.#enter(vm, EXIT_OF[cause] ?? 'memory');
    switch (cause) {
      case Cause.timerInterrupt:
        tick(state);
        return;
      case Cause.externalInterrupt:
        completions(state);
        // Its guest may be the one that runs: dispatch injects.
        return;
      case Cause.virtualInstruction:
        wait(state, vm, tval);
        return;
      case Cause.loadGuestPageFault:
      case Cause.storeGuestPageFault:
        if (!back(state, vm, Math.floor(gpa / PAGE_BYTES))) this.#stop(vm, gpa);
        return;
      default:
        this.#stop(vm, tval);
    }
  }

  // ---- exits in the middle of a guest's handler -------------------------------------------------

  memory(vm: number, gpa: number): boolean {
    return this.#inline(vm, 'memory', () => back(this.state, vm, Math.floor(gpa / PAGE_BYTES)));
  }

  doorbell(vm: number): boolean {
    return this.#inline(vm, 'disk', () => doorbell(this.state, vm));
  }

  console(vm: number, channel: number, bytes: Uint8Array): void {
    const { state } = this;
    this.#inline(vm, 'console', () => {
      // The buffer is copied out of the guest, as its kernel had copied it out of its user.
      state.machine.work(Math.ceil(bytes.length / 8));
      const shared = this.#guests[vm]?.accounts === true;
      state.machine.console(shared ? channel : state.vm.get(vm, Vm.channel), bytes);
    });
  }

  entropy(vm: number): number {
    return this.#inline(vm, 'entropy', () => this.state.machine.entropy());
  }

  #inline<T>(vm: number, exit: Exit, act: () => T): T {
    this.#enter(vm, exit);
    const result = act();
    this.#registers(vm, false);
    return result;
  }

  #enter(vm: number, exit: Exit): void {
    this.#registers(vm, true);
    this.state.machine.moveRegisters(EXIT_REGISTERS);
    this.state.count(vm, exit);
  }

  /** The guest's registers, to its row or back: stores and loads like any others. */
  #registers(vm: number, out: boolean): void {
    const { machine, vm: row } = this.state;
    for (let n = 0; n < REGISTERS_ALL; n++) {
      const at = row.address(vm, Vm.registers + n);
      if (out) machine.store(at, 0);
      else machine.load(at);
    }
  }

  /** A guest that broke a rule stops for ever; nobody else notices. */
  #stop(vm: number, address: number): void {
    const { state } = this;
    state.vm.put(vm, Vm.state, VmState.stopped);
    state.cpu.put(0, Cpu.current, 0);
    const text = `virtual machine ${vm}: stopped at guest-physical 0x${address.toString(16)}\n`;
    state.machine.console(0, new TextEncoder().encode(text));
  }

  /** Exits of a VM by cause, for reports. */
  exits(vm: number): Record<Exit, number> {
    const counts: Partial<Record<Exit, number>> = {};
    const { hart } = this.state.machine;
    const { vm: row } = this.state;
    EXITS.forEach((exit, n) => {
      counts[exit] = hart.memory.get(row.address(vm, Vm.exits + n));
    });
    return counts as Record<Exit, number>;
  }
}

/** Under which cause a trap that leaves the guest is booked. */
const EXIT_OF: Partial<Record<number, Exit>> = {
  [Cause.timerInterrupt]: 'timer',
  [Cause.externalInterrupt]: 'interrupt',
  [Cause.virtualInstruction]: 'wait',
  [Cause.loadGuestPageFault]: 'memory',
  [Cause.storeGuestPageFault]: 'memory',
  [Cause.guestStopped]: 'memory',
};
