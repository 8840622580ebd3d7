/**
 * The waist: all that a supervisor may do to hardware, and the two nouns around it.
 *
 * `PhysicalMachine` (machine/physical.ts) implements Machine; a hypervisor's `VirtualMachine`
 * implements it again, so a supervisor that names only this file runs on either, unchanged. One
 * contract suite, test/machine/contract.ts, runs over all implementers.
 *
 * Every method that stands for work charges for it: a reference plus a stated number of
 * instructions for memory, the profile's number for anything else. A supervisor's accesses
 * translate like anyone's: natively through a global direct map of 1 GiB pages, in a guest through
 * both stages.
 *
 * Machine trusts its supervisor with everything that the machine owns. A page number or an address
 * beyond the machine is a Bug on the physical machine and stops the guest in a virtual one.
 */
import type { CostProfile } from './costs.ts';
import type { DiskPort } from './disk.ts';
import type { Entry, Image } from './port.ts';
import type { Hart } from './hart.ts';
import type { Tick } from './units.ts';
import type { Regime } from './walker.ts';

export type { Entry, Image };

/** scause values (RISC-V Privileged Architecture, "Supervisor Cause Register"), and our own. */
export const Cause = {
  none: 0,
  illegalInstruction: 2,
  loadMisaligned: 4,
  storeMisaligned: 6,
  environmentCall: 8,
  virtualSupervisorCall: 10,
  loadPageFault: 13,
  storePageFault: 15,
  loadGuestPageFault: 21,
  virtualInstruction: 22, // WFI of a guest, with hstatus.VTW set
  storeGuestPageFault: 23,
  // Not of the specification: what happens to a program written in TypeScript.
  userException: 24, // user code threw
  threadEnd: 25, // the entry function returned
  threadSwitch: 26, // user-mode register load; never reaches a supervisor
  guestStopped: 27, // a guest broke a rule that only its hypervisor can state
  guestBlocked: 28, // a guest's supervisor waits for its machine: its handler was rolled back
  timerInterrupt: 0x45,
  externalInterrupt: 0x49,
  consoleInterrupt: 0x50, // a local interrupt of the platform's own: tval is the channel
} as const;
export type Cause = (typeof Cause)[keyof typeof Cause];

/**
 * What stopped a context. `level` is the depth of the supervisor that it is for, assigned by the
 * hart: causes that can be delegated go to the innermost supervisor, second-stage faults to the
 * one that runs the guest.
 */
export interface Trap {
  readonly cause: Cause;
  /** stval: the user virtual address, or what the cause says */
  readonly tval: number;
  /** htval: guest-physical address of a second-stage fault */
  readonly gpa: number;
  readonly level: number;
}

/** What a hart runs until the next trap: a user thread, or a vCPU. */
export interface Context {
  /** Runs until a trap or until the clock reaches `until`, which is a timer trap. */
  run(until: Tick): Trap;
}

/**
 * What answers traps. It owns no loop: the machine calls `boot` once, then `dispatch` exactly once
 * after each trap told to it (and once after boot). Supervisors are restartable: the machine may
 * roll a handler back and deliver the same trap again, so nothing that outlives a handler may stand
 * in a field of the object; it stands in machine memory.
 */
export interface Supervisor {
  /** Lays out tables in the machine's memory. Runs once, translation off. */
  boot(machine: Machine): void;
  /** Which context runs next, or null to wait for an interrupt. */
  dispatch(): Context | null;
  /** Answers one trap. Timer traps may be spurious. */
  trap(trap: Trap): void;
  /**
   * Takes over a machine that another instance of the same configuration booted: views of what
   * stands in its memory, and nothing written. Who lacks it cannot be restored.
   */
  attach?(machine: Machine): void;
}

/** One page-table entry to write: entry `index` of the table in page `table`. */
export interface PteUpdate {
  readonly table: number;
  readonly index: number;
  readonly value: number;
}

/**
 * How a machine's owner asks for memory back, and how a supervisor gives some: pages of its own
 * choice. Nobody has to. A change of the target is told by an external interrupt.
 */
export interface BalloonPort {
  /** Pages that the owner would like to be given; 0 on the hardware. */
  target(): number;
  /** Pages given up so far and not taken back. */
  size(): number;
  /** Gives a page up: its contents are gone. Who touches it later takes it back, zeroed. */
  give(page: number): void;
}

/**
 * Machines beside this one, under the same owner, by number: pages that they let one another use,
 * and ports by which they signal. Nobody has to have any: then `self` is 0, all else is refused.
 * What is offered stands in a table of 256 entries of the machine's own; it is checked when it is
 * used. Refusals are false, and change nothing. A signal is told by an external interrupt.
 */
export interface NeighbourPort {
  /** This machine's number, from 1; 0: it has no neighbours. */
  self(): number;

  /** Lets neighbour `to` map `page`, or copy from and to it, under `entry`. */
  offer(entry: number, to: number, page: number, write: boolean): void;
  /** Lets neighbour `from` put a page of its own in the place of `page`, which is given up. */
  expect(entry: number, from: number, page: number): void;
  /** Empties an entry. False: what it offers is mapped, and cannot be taken back. */
  withdraw(entry: number): boolean;
  /** Page `page`, which is given up, is from now on what `from` offers. */
  map(from: number, entry: number, page: number, write: boolean): boolean;
  /** False: it is no such page, or tables in use lead to it. */
  unmap(page: number): boolean;
  /** Copies what `from` offers over `page`, or the other way if `write`. */
  copy(from: number, entry: number, page: number, write: boolean): boolean;
  /** Puts `page` where `to` expects one: it is given up, and what is in it is the other's. */
  transfer(to: number, entry: number, page: number): boolean;

  /** Free port `port`, of 32, awaits that `from` connects one of its own to it. */
  listen(port: number, from: number): boolean;
  /** Connects free port `port` to one that awaits it. Both are signalled, once. */
  connect(port: number, to: number, remote: number): boolean;
  close(port: number): boolean;
  /** Signals whoever is at the other end. A port that is signalled already stays so. */
  send(port: number): boolean;
  /** Ports that were signalled and are not masked, a bit each; they are so no longer. */
  take(): number;
  /** Ports that interrupt nobody, a bit each. What was signalled meanwhile has to be taken. */
  mask(ports: number): void;
}

/** Of a machine that has none. */
export const ALONE: NeighbourPort = {
  self: () => 0,
  offer: () => undefined,
  expect: () => undefined,
  withdraw: () => false,
  map: () => false,
  unmap: () => false,
  copy: () => false,
  transfer: () => false,
  listen: () => false,
  connect: () => false,
  close: () => false,
  send: () => false,
  take: () => 0,
  mask: () => undefined,
};

export interface Machine {
  /** Depth: 0 on the hardware, 1 in its guest. */
  readonly level: number;
  /** Physical pages, numbered from 0. */
  readonly pages: number;
  readonly profile: CostProfile;

  // Memory, by physical address. Words are 32 bits, signed; addresses are multiples of 4.
  load(pa: number): number;
  store(pa: number, value: number): void;
  zeroPage(page: number): void;
  copyPage(to: number, from: number): void;
  /** Reads `count` entries of a table, as unsigned lower words. */
  readPtes(table: number, first: number, count: number): Uint32Array;
  /** Writes entries, in order. One call, so that every mode has its place to intervene. */
  writePtes(updates: readonly PteUpdate[]): void;

  // User memory through the current address space, user permissions (SUM set).
  /** The word at `va`, or null where the user could not load it. */
  loadUser(va: number): number | null;
  /** False where the user could not store there; then nothing is written. */
  storeUser(va: number, value: number): boolean;
  /** Copies bytes out of user memory, once; null if any page of it cannot be read. */
  readUser(va: number, bytes: number): Uint8Array | null;

  // Control registers.
  /** satp: root table page and ASID; null is Bare. Orders nothing: fences are yours. */
  setAddressSpace(space: { readonly root: number; readonly asid: number } | null): void;
  /** sfence.vma: one page of a space, a space, or (no arguments) everything. */
  fence(asid?: number, vpn?: number): void;
  /** stimecmp: a timer trap at or after `at`. NEVER disarms. */
  setTimer(at: Tick): void;
  /** The cycle counter. */
  now(): Tick;
  /**
   * Cycles for which this machine wanted to run and somebody else did, as of when it last got the
   * CPU; 0 on the hardware.
   */
  stolen(): Tick;
  /** To whom counters are attributed from now on (root supervisor only; else no effect). */
  attribute(owner: number): void;
  /** Counted loads and stores of this supervisor so far: an instrument, for asserting bounds. */
  references(): number;
  /** A word as it stands, uncharged: an instrument, for reports. Null: its page is away. */
  peek(pa: number): number | null;
  /** Charges `instructions` of computation that no counted access stands for. */
  work(instructions: number): void;

  /** Reads or writes `count` control registers whose values matter to nobody here: a guest's. */
  moveRegisters(count: number): void;

  // For a supervisor that runs guests.
  /** The hart that a guest of this machine runs on: there is one, however deep. */
  readonly hart: Hart;
  /** The hypervisor extension (misa.H); null: this machine lacks it, and has one stage. */
  readonly guestMode: GuestMode | null;
  /** satp, and hgatp if this machine is a guest's, as they stand. */
  regime(): Regime;
  /** Level of the supervisor that a trap of this machine's programs reaches first. */
  trapLevel(cause: number, privilege: Privilege): number;
  /**
   * The hart faulted at `vpn` while it ran, as this machine's user code, a guest of its supervisor.
   * True: what was missing belongs to whoever runs this machine, and is there now.
   */
  resolveFault(vpn: number, write: boolean): boolean;

  // Contexts: user threads by number. The machine holds them; kernels hold numbers.
  readonly contexts: ContextPort;

  // Devices.
  readonly disk: DiskPort;
  readonly balloon: BalloonPort;
  readonly neighbours: NeighbourPort;
  /** Writes bytes to a serial channel. */
  console(channel: number, bytes: Uint8Array): void;
  /** Takes what has arrived on a channel, at most CONSOLE_FIFO bytes: counted register reads. */
  consoleRead(channel: number): Uint8Array;
  /** 32 random bits, seeded. */
  entropy(): number;
}

/**
 * The virtualised privilege pair, as far as supervisors here use it: what a guest in guest mode
 * does itself, the hart knows. Whatever of this a supervisor does that is a guest itself, exits.
 */
export interface GuestMode {
  /** What the hart is set to while guest `vmid` runs with these roots, in this machine's pages. */
  regime(guest: Regime): Regime;
  /** hgatp: which guest `enter` will enter, and the root of its second stage. Orders nothing. */
  select(vmid: number, guestRoot: number): void;
  /** Reads or writes `count` registers of the extension: hstatus, htval, hvip, vs*. */
  moveRegisters(count: number): void;
  /** hfence.gvma: what depends on the second stage of guest `vmid`, or on one page of it. */
  fence(vmid: number, page?: number): void;
  /** sret into guest mode: what it costs until the guest runs. */
  enter(): void;
  /** A guest traps to this machine's supervisor: what it costs until that runs. */
  leave(cause: number): void;
}

/** Bytes that a serial channel hands over at a time, as a 16550 does. */
export const CONSOLE_FIFO = 16;
/** Channels that can be typed at: 1 to this. */
export const CONSOLE_CHANNELS = 30;

/** Privilege that a context runs with. A unikernel's libOS runs beside it, in its own privilege. */
export type Privilege = 'user' | 'supervisor';

/**
 * The user side of the machine: programs, their threads and register files. A context number
 * belongs to whoever created it; using one that does not exist is a Bug of the supervisor.
 */
export interface ContextPort {
  /** Loads image `image` as context `number`: no thread runs yet. */
  create(number: number, image: number, privilege: Privilege): void;
  /** Starts the context's first thread at `entry` with up to 7 integer arguments. */
  start(number: number, entry: number, args: readonly number[]): void;
  destroy(number: number): void;
  exists(number: number): boolean;
  /** True if the image has such an entry: what a supervisor checks before start or upcall. */
  hasEntry(image: number, entry: number): boolean;
  imageOf(number: number): number;
  /** What `dispatch` returns to run it. */
  context(number: number): Context;
  /** Call argument 0 (the call's number) to 8, as the program left it: a claim, any number. */
  argument(number: number, index: number): number;
  /** Return registers of the call that trapped: status, value, and up to six words of a message. */
  setResult(number: number, status: number, ...values: readonly number[]): void;
  /** Whether one more upcall frame fits: asked before each push. */
  hasRoom(number: number): boolean;
  /** Pushes a frame for handler `entry` on the current thread; the thread goes on beneath it. */
  upcall(number: number, entry: number, args: readonly number[]): void;
  /** Stores `count` registers of the context's current thread at `pa`: counted stores. */
  save(number: number, pa: number, count: number): void;
  /** Loads them back: counted loads. */
  restore(number: number, pa: number, count: number): void;
  /** What user code threw, for the message that names the environment. */
  failure(number: number): string;
}
