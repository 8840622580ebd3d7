/**
 * VirtualMachine: what the hypervisor exports, Machine again. A supervisor inside cannot tell it
 * from the hardware, but by the clock. It is driven by the same run loop, so a vCPU is a Context.
 *
 * How its memory is translated, and what of that exits, is its Paging's affair (paging.ts). What
 * exits whatever the mode is here, with one cause each: the disk's doorbell, the console, waiting.
 * Its disk is a ring in the guest's own last page.
 */
import type { Image } from '../../machine/user-port.ts';
import { Contexts } from '../../machine/contexts.ts';
import type { CostProfile } from '../../machine/costs.ts';
import { E } from '../../machine/counters.ts';
import { assert } from '../../machine/assert.ts';
import type { DiskCompletion, DiskPort, DiskRequest } from '../../machine/disk.ts';
import type { Hart } from '../../machine/hart.ts';
import { Blocked, HartLoop, type LoopMachine } from '../../machine/hart-loop.ts';
import { NEVER, PAGE_BYTES, type Tick } from '../../machine/units.ts';
import { type Locate, loadUser, readUser, storeUser } from '../../machine/user-memory.ts';
import type { Regime } from '../../machine/walker.ts';
import {
  Cause,
  type Context,
  type Machine,
  type PteUpdate,
  type Supervisor,
  type Trap,
} from '../supervisor.ts';
import type { GuestPort, Paging } from './paging.ts';
import type { Exit } from './state.ts';

/**
 * The disk ring, in words of the guest's last page: completions that the hypervisor produced, in
 * order; the guest's consumer index; one request, as the doorbell hands it over.
 */
export const Ring = {
  produced: 0,
  consumed: 1,
  outstanding: 2,
  completions: 16, // RING_SLOTS words: tag | failed << 31
  request: 512, // tag, flags, block, count, then the pages
} as const;
export const RING_SLOTS = 64;
export const GUEST_QUEUE = 16; // requests of one guest
export const REQUEST_WRITE = 1;
export const REQUEST_FORCE = 2;
export const REQUEST_FLUSH = 4;

/** What a hypervisor answers for its guest. Each method is one exit. */
export interface Monitor {
  /** Second stage lacks `gpa`. False: the guest may not have it, and must be stopped. */
  memory(vm: number, gpa: number): boolean;
  /** The disk's doorbell. False: the request makes no sense. */
  doorbell(vm: number): boolean;
  console(vm: number, channel: number, bytes: Uint8Array): void;
  entropy(vm: number): number;
}

export interface VirtualMachineSpec {
  readonly vm: number; // row, from 0
  readonly pages: number; // guest-physical, ring page included
  readonly blocks: number;
  /** how its memory is translated */
  readonly paging: (guest: GuestPort) => Paging;
  readonly images: readonly Image[];
  /** whether its supervisor says to whom counters are attributed */
  readonly accounts: boolean;
}

export class VirtualMachine implements Machine, LoopMachine {
  readonly level: number;
  readonly pages: number;
  readonly hart: Hart;
  readonly profile: CostProfile;
  readonly contexts: Contexts;
  readonly disk: DiskPort;
  readonly transactional = false;
  readonly vcpu: HartLoop;
  readonly #host: Machine;
  readonly #monitor: Monitor;
  readonly #spec: VirtualMachineSpec;
  readonly #ring: number; // guest-physical address
  readonly #locate: Locate;
  readonly #paging: Paging;
  #timer: Tick = NEVER; // vstimecmp
  #interrupt = false; // hvip

  constructor(host: Machine, monitor: Monitor, spec: VirtualMachineSpec, guest: Supervisor) {
    this.#host = host;
    this.#monitor = monitor;
    this.#spec = spec;
    this.hart = host.hart;
    this.profile = host.profile;
    this.level = host.level + 1;
    this.pages = spec.pages - 1;
    this.#ring = this.pages * PAGE_BYTES;
    const paging = spec.paging(this.#port());
    this.#paging = paging;
    this.contexts = new Contexts(this.hart, spec.images, paging);
    this.contexts.attach(
      (pa) => this.load(pa),
      (pa, value) => {
        this.store(pa, value);
      },
    );
    this.#locate = (vpn, write) => paging.locate(vpn, write);
    this.disk = {
      blocks: spec.blocks,
      room: () => GUEST_QUEUE - this.load(this.#ring + Ring.outstanding * 4),
      submit: (request) => {
        this.#submit(request);
      },
      complete: () => this.#complete(),
    };
    // The guest boots when it first runs, on its own time.
    this.vcpu = new HartLoop(this, guest, () => {
      guest.boot(this);
    });
  }

  #port(): GuestPort {
    return {
      host: this.#host,
      hart: this.hart,
      level: this.level,
      vm: this.#spec.vm,
      exit: (exit, act) => this.#exit(exit, act),
      missing: (gpa) => {
        this.#missing(gpa);
      },
      stop: (gpa) => this.#stop(gpa),
    };
  }

  // ---- memory -----------------------------------------------------------------------------------

  load(pa: number): number {
    this.hart.countReference('load');
    return this.#paging.load(this.#aligned(pa, 4));
  }

  store(pa: number, value: number): void {
    this.hart.countReference('store');
    this.#paging.store(this.#aligned(pa, 4), value);
  }

  zeroPage(page: number): void {
    const { hart } = this;
    const at = this.#page(page, true);
    hart.counters.add(E.pagesZeroed, 1);
    hart.charge('zero-page', Math.ceil(PAGE_BYTES / hart.zeroBytesPerCycle));
    hart.memory.zeroPage(at);
  }

  copyPage(to: number, from: number): void {
    const { hart } = this;
    const source = this.#page(from, false);
    const target = this.#page(to, true);
    hart.counters.add(E.pagesCopied, 1);
    hart.charge('copy-page', Math.ceil(PAGE_BYTES / hart.copyBytesPerCycle));
    hart.memory.copyPage(target, source);
  }

  readPtes(table: number, first: number, count: number): Uint32Array {
    return this.#paging.readPtes(table, first, count);
  }

  writePtes(updates: readonly PteUpdate[]): void {
    this.#paging.writePtes(updates);
  }

  loadUser(va: number): number | null {
    return loadUser(this.hart, this.#locate, va);
  }

  storeUser(va: number, value: number): boolean {
    return storeUser(this.hart, this.#locate, va, value);
  }

  readUser(va: number, bytes: number): Uint8Array | null {
    return readUser(this.hart, this.#locate, va, bytes);
  }

  #page(page: number, write: boolean): number {
    this.#aligned(page * PAGE_BYTES, PAGE_BYTES);
    return this.#paging.page(page, write);
  }

  /** What lies across two pages, as only an unaligned address can, would be somebody else's. */
  #aligned(gpa: number, align: number): number {
    if (gpa % align !== 0) this.#stop(gpa);
    return gpa;
  }

  #missing(gpa: number): void {
    const backed = this.#exit('memory', () => this.#monitor.memory(this.#spec.vm, gpa));
    this.hart.counters.add(E.guestPageFaults, 1);
    if (!backed) this.#stop(gpa);
  }

  /** The guest supervisor cannot go on: what it was doing is dropped with it. */
  #stop(gpa: number): never {
    throw new Blocked({ cause: Cause.guestStopped, tval: gpa, gpa, level: this.#host.level });
  }

  // ---- control registers ------------------------------------------------------------------------

  setAddressSpace(space: { readonly root: number; readonly asid: number } | null): void {
    this.moveRegisters(1);
    // WARL: whole pages, and 16 bits of ASID.
    const root = space === null ? -1 : space.root & 0x3fffff;
    this.#paging.setAddressSpace(root, (space?.asid ?? 0) & 0xffff);
  }

  fence(asid?: number, vpn?: number): void {
    this.#paging.fence(asid ?? null, vpn ?? null);
  }

  /** vstimecmp. */
  setTimer(at: Tick): void {
    this.moveRegisters(1);
    this.#timer = Number.isNaN(at) ? NEVER : at;
    this.#paging.timerWritten();
  }

  moveRegisters(count: number): void {
    if (!Number.isInteger(count) || count < 0) return;
    this.hart.counters.add(E.csrAccesses, count);
    this.hart.charge('csr', count * this.hart.costs.csr);
  }

  now(): Tick {
    return this.hart.now();
  }

  /** To whom time counts is the host's to say, unless it let the guest. */
  attribute(owner: number): void {
    if (this.#spec.accounts) this.hart.attribute(owner, this.hart.counters.layer);
  }

  /** Without those of whoever took its exits. */
  references(): number {
    return this.hart.references - this.#foreign;
  }
  #foreign = 0;

  work(instructions: number): void {
    this.hart.charge('work', instructions);
  }

  guestRegime(_guest: Regime): Regime {
    assert(false, 'virtual machine: guests of guests wait for composed second stages');
    return this.regime();
  }

  // ---- devices ----------------------------------------------------------------------------------

  console(channel: number, bytes: Uint8Array): void {
    this.#exit('console', () => {
      this.#monitor.console(this.#spec.vm, channel, bytes);
    });
  }

  entropy(): number {
    return this.#exit('entropy', () => this.#monitor.entropy(this.#spec.vm));
  }

  #submit(request: DiskRequest): void {
    const at = this.#ring + Ring.request * 4;
    const flags =
      (request.write ? REQUEST_WRITE : 0) |
      (request.force === true ? REQUEST_FORCE : 0) |
      (request.flush === true ? REQUEST_FLUSH : 0);
    const words = [request.tag, flags, request.block, request.pages.length, ...request.pages];
    words.forEach((word, n) => {
      this.store(at + n * 4, word);
    });
    const outstanding = this.#ring + Ring.outstanding * 4;
    this.store(outstanding, this.load(outstanding) + 1);
    if (!this.#exit('disk', () => this.#monitor.doorbell(this.#spec.vm))) this.#stop(at);
  }

  #complete(): DiskCompletion | null {
    const ring = this.#ring;
    const consumed = this.load(ring + Ring.consumed * 4);
    if (consumed === this.load(ring + Ring.produced * 4)) return null;
    const word = this.load(ring + (Ring.completions + (consumed % RING_SLOTS)) * 4);
    this.store(ring + Ring.consumed * 4, consumed + 1);
    const outstanding = ring + Ring.outstanding * 4;
    this.store(outstanding, this.load(outstanding) - 1);
    return { tag: word & 0x7fffffff, ok: word >= 0 };
  }

  /** Into the hypervisor and back, in the middle of the guest's handler. */
  #exit<T>(exit: Exit, act: () => T): T {
    const { hart } = this;
    const layer = hart.counters.layer;
    hart.install(this.#host.regime());
    hart.enterLayer(this.#host.level);
    hart.counters.add(E.vmExits, 1);
    hart.counters.add(E.traps, 1);
    if (hart.listener !== null) hart.tell({ what: 'exit', cause: exit });
    hart.charge('trap-entry', hart.costs.trapEntry);
    const before = hart.references;
    const result = act();
    this.#foreign += hart.references - before;
    hart.charge('trap-return', hart.costs.trapReturn);
    hart.install(this.#paging.regime());
    hart.enterLayer(layer);
    return result;
  }

  // ---- LoopMachine ------------------------------------------------------------------------------

  /** hvip: an external interrupt for the guest, taken when it next runs. */
  inject(): void {
    this.#interrupt = true;
  }

  regime(): Regime {
    return this.#paging.regime();
  }

  entered(trap: Trap, from: Context | null): void {
    this.#paging.entered(trap, from);
  }

  left(to: Context | null): void {
    this.#paging.left(to);
  }

  timer(): Tick {
    return this.#timer;
  }

  takeInterrupt(): boolean {
    const was = this.#interrupt;
    this.#interrupt = false;
    return was;
  }

  nextEvent(): Tick {
    return NEVER;
  }

  poll(): void {
    // Devices are the host's.
  }

  privilegeOf(context: Context): 'user' | 'supervisor' {
    return this.contexts.privilegeOf(context);
  }

  begin(): void {
    // No guest handler is rolled back but to be dropped.
  }

  commit(): void {
    // As above.
  }

  rollback(): void {
    // As above.
  }
}
