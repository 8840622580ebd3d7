/**
 * Paging: how the addresses of one virtual machine become its host's. This is all in which the
 * translation modes differ, so it is an interface of its own: nested.ts has hardware do it.
 *
 * Whatever the mode, the second-stage tables of pages.ts say which host page is behind a guest
 * page; a mode derives from them what it needs, and is told when they change (`changed`). A mode
 * trusts no number of a guest, and owes that no translation is wider than guest and host allow.
 */
import type { Hart } from '../../machine/hart.ts';
import type { Regime } from '../../machine/walker.ts';
import type { GuestMode, NeighbourPort, Privilege } from '../../machine/machine.ts';
import type { Context, Machine, PteUpdate, Trap } from '../supervisor.ts';
import type { Exit } from './state.ts';

/** What a mode may ask of the virtual machine that it serves. */
export interface GuestPort {
  readonly host: Machine;
  readonly hart: Hart;
  readonly level: number;
  /** row of the virtual machine */
  readonly vm: number;
  /** The guest's own trap, told to its supervisor when it next runs. */
  inject(trap: Trap): void;
  /** Into the hypervisor and back, in the middle of what the guest's supervisor does. */
  exit<T>(exit: Exit | ((result: T) => Exit), act: () => T): T;
  /** Second stage lacks `gpa`: an exit; the guest is stopped if it may not have it. */
  missing(gpa: number): void;
  /** Work of the hypervisor for a guest that does not run, uncharged. */
  outside(act: () => void): void;
  /** The guest's supervisor broke a rule and cannot go on. */
  stop(gpa: number): never;
  /** It must wait for a page of its own: what it was doing is begun anew. */
  block(gpa: number): never;
  /** Counts a reference that the mode makes in the guest: not its supervisor's. */
  aside(why: 'load' | 'store'): void;
  /** The host's `resolveFault`: whether what the hart lacked was missing further out. */
  resolve(vpn: number, write: boolean): boolean;
  /** Control registers that the guest's supervisor has to itself: no exit. */
  own(count: number): void;
  /** A store that an exit does for the guest's supervisor: undone, if its handler is. */
  noting<T>(act: () => T): T;
}

export interface Paging {
  /** Whether the guest's supervisor and programs run in guest mode of the host. */
  readonly inGuestMode: boolean;
  /** What the guest has of the hypervisor extension, for guests of its own. */
  readonly guestMode: GuestMode | null;
  /** What the hart is set to while the guest's supervisor runs. */
  regime(): Regime;
  /** The same for its programs: a unikernel's run in its supervisor's privilege. */
  programRegime(privilege: Privilege): Regime;
  /** Which supervisor a trap of the guest's programs reaches first. */
  trapLevel(cause: number, privilege: Privilege): number;

  // Guest-physical memory, as the guest's supervisor reaches it. Uncounted: the caller counted.
  load(gpa: number): number;
  store(gpa: number, value: number): void;
  /**
   * Page of the hart's memory behind a whole guest page, to be read or overwritten; or -1, and then
   * the hypervisor has done it, by `instead`, with the host page.
   */
  page(page: number, write: boolean, instead: (host: number) => void): number;
  /** Host page behind a guest page, in the host's machine; -1 if there is none. */
  behind(page: number): number;
  /** Entries `first` to `first + count - 1` of a table, as the guest wrote them. */
  readPtes(table: number, first: number, count: number): Uint32Array;
  writePtes(updates: readonly PteUpdate[]): void;
  /** Host page of a page of the guest's user memory, or null where its user could not go. */
  locate(vpn: number, write: boolean): number | null;

  // Control registers of the guest's supervisor, WARL already.
  setAddressSpace(root: number, asid: number): void;
  fence(asid: number | null, vpn: number | null): void;
  /** stimecmp was written: whatever that costs. */
  timerWritten(): void;

  // The way into the guest's supervisor and out of it.
  /** A trap is about to be told, which interrupted `from`: what hardware and hypervisor do. */
  entered(trap: Trap, from: Context | null): void;
  /** The supervisor resumes `to`, or waits. */
  left(to: Context | null, privilege: Privilege): void;
  /** What it has put off is done now. */
  settle(): void;

  // For the hypervisor.
  /** The guest has stopped running on the hart, and the hypervisor runs: its first act. */
  outside(): void;
  /** The guest goes on: the hypervisor's last act. */
  inside(): void;
  /** An exit: the registers that say what it was are read. */
  exited(): void;
  /** A world switch: the guest's control registers are taken out of the hart, or put in. */
  switched(to: boolean): void;
  /** An external interrupt is about to be told to the guest's supervisor. */
  interrupted(): void;
  /** The hypervisor makes events pending, bits as of Vm.pending, by whatever tells the guest. */
  pend(events: number): void;
  /** The guest's supervisor is to be told of an event: whether it still says so. */
  taken(event: number): boolean;
  /** A trap of the guest's programs that reached the hypervisor first. */
  trapped(trap: Trap): Answered;
  /** Whether the host page behind `page` may be taken away now. */
  yields(page: number): boolean;
  /** A second-stage fault of the guest's own guest; null: none runs, it is the guest's own. */
  innerFault(trap: Trap): Answered | null;
  /** The host page behind `page` changed, or may be written less: nothing may remember it. */
  changed(page: number): void;
  /** Why its guest cannot go on, as far as the mode knows; '' otherwise. */
  why(): string;
  /** The virtual machine is gone: nothing may remember it, and what it took of the host goes. */
  ended(): void;
  /** Reads a word of the record of stolen time, counted; null: it is in the device page. */
  readonly clock: ((word: number) => number) | null;
  /** Machines beside this one. */
  readonly neighbours: NeighbourPort;
  /** satp as the guest set it. */
  space(): AddressSpace;
  /**
   * satp stands at `space` again, uncharged: the guest's handler was rolled back, its tables with
   * it, or the guest was restored. What was derived from its tables is to be forgotten.
   * @param program privilege of the program that goes on; null: its supervisor does
   */
  restore(space: AddressSpace, program: Privilege | null): void;
  /** Forgets it, before the guest goes on: the hypervisor may have to wait for its own memory. */
  renew(): void;
  /** Whether what made the hart fault, under this guest, was the hypervisor's and is mended. */
  resolve(vpn: number, write: boolean): boolean;

  // The log of writes, for whoever copies a guest that runs.
  /** From now on the pages that are written are noted. */
  arm(): void;
  disarm(): void;
  /** Guest pages written since `arm` or the last call, a bit each in words of 32; noted afresh. */
  collect(): number[];
  /** The hypervisor wrote to a page of the guest itself. */
  wrote(page: number): void;
}

/** A root that is none: translation is off. */
export const BARE = -1;

export interface AddressSpace {
  readonly root: number; // guest-physical page, or BARE
  readonly asid: number;
}

/**
 * `handled`: the guest goes on; `given`: its supervisor will be told; `wait`: for a
 * page of its own; `stop`: it broke a rule.
 */
export type Answered = 'handled' | 'given' | 'wait' | 'stop';
