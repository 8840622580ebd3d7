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
import type { Privilege } from '../../machine/machine.ts';
import type { Context, Machine, PteUpdate, Trap } from '../supervisor.ts';
import type { Exit } from './state.ts';

/** What a mode may ask of the virtual machine that it serves. */
export interface GuestPort {
  readonly host: Machine;
  readonly hart: Hart;
  readonly level: number;
  /** row of the virtual machine */
  readonly vm: number;
  /** Into the hypervisor and back, in the middle of what the guest's supervisor does. */
  exit<T>(exit: Exit, act: () => T): T;
  /** Second stage lacks `gpa`: an exit; the guest is stopped if it may not have it. */
  missing(gpa: number): void;
  /** The guest's supervisor broke a rule and cannot go on. */
  stop(gpa: number): never;
}

export interface Paging {
  /** What the hart is set to while the guest's supervisor runs. */
  regime(): Regime;
  /** The same for its programs: a unikernel's run in its supervisor's privilege. */
  programRegime(privilege: Privilege): Regime;
  /** Which supervisor a trap of the guest's programs reaches first. */
  trapLevel(cause: number): number;

  // Guest-physical memory, as the guest's supervisor reaches it. Uncounted: the caller counted.
  load(gpa: number): number;
  store(gpa: number, value: number): void;
  /** Host page of a whole guest page, to be read or overwritten. */
  page(page: number, write: boolean): number;
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
  left(to: Context | null): void;

  // For the hypervisor.
  /** The host page behind `page` changed, or may be written less: nothing may remember it. */
  changed(page: number): void;
  /** The virtual machine is gone: nothing may remember it, and what it took of the host goes. */
  ended(): void;
  /** satp as the guest set it. */
  space(): AddressSpace;
  /**
   * satp stands at `space` again, uncharged: the guest's handler was rolled back, its tables with
   * it, or the guest was restored. What was derived from its tables is forgotten.
   */
  restore(space: AddressSpace): void;
}

export interface AddressSpace {
  readonly root: number; // guest-physical page; -1 is Bare
  readonly asid: number;
}
