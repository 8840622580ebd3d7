/**
 * VirtualMachine: what the hypervisor exports, Machine again. A supervisor inside cannot tell it
 * from the hardware, but by the clock. It is driven by the same run loop, so a vCPU is a Context.
 *
 * How its memory is translated, and what of that exits, is its Paging's affair (paging.ts). What
 * exits whatever the mode is here, with one cause each: the disk's doorbell, the console, waiting.
 * Its disk is front-end.ts, over a page that is the guest's own last.
 */
import type { Image } from '../../machine/user-port.ts';
import { Contexts, type SavedContext } from '../../machine/contexts.ts';
import type { CostProfile } from '../../machine/costs.ts';
import { E, type Layer } from '../../machine/counters.ts';
import { assert } from '../../machine/assert.ts';
import type { DiskPort } from '../../machine/disk.ts';
import type { QueueRegisters } from '../../machine/disk-queues.ts';
import type { Hart } from '../../machine/hart.ts';
import type { GuestMode, Privilege } from '../../machine/machine.ts';
import { Blocked, HartLoop, type LoopMachine } from '../../machine/hart-loop.ts';
import { Journal } from '../../machine/memory.ts';
import { NEVER, PAGE_BYTES, type Tick } from '../../machine/units.ts';
import { type Locate, loadUser, readUser, storeUser } from '../../machine/user-memory.ts';
import type { Regime } from '../../machine/walker.ts';
import type { BalloonPort, NeighbourPort } from '../../machine/machine.ts';
import {
  Cause,
  type Context,
  type Machine,
  type PteUpdate,
  type Supervisor,
  type Trap,
} from '../supervisor.ts';
import { Ring } from './device-page.ts';
import { frontEnd } from './front-end.ts';
import { Backing } from './pages.ts';
import type { AddressSpace, GuestPort, Paging } from './paging.ts';
import type { DiskModel, Exit } from './state.ts';

const ATTEMPTS = 400; // a handler in test mode is rolled back so often at most

/** What a hypervisor answers for its guest. Each method is one exit. */
export interface Monitor {
  /** Second stage lacks `gpa`: of Backing, what became of it. */
  memory(vm: number, gpa: number): number;
  /** The disk's doorbell. False: what it points to makes no sense. */
  doorbell(vm: number): boolean;
  console(vm: number, channel: number, bytes: Uint8Array): void;
  consoleRead(vm: number, channel: number): Uint8Array;
  entropy(vm: number): number;
  /** The guest gives page `page` up. */
  give(vm: number, page: number): void;
  /** A word of the guest's memory as it stands, uncharged; null: its page is away. */
  peek(vm: number, gpa: number): number | null;
  /** What a translation mode exits for. */
  exit<T>(vm: number, exit: Exit | ((result: T) => Exit), act: () => T): T;
}

export interface VirtualMachineSpec {
  readonly vm: number; // row, from 0
  readonly pages: number; // guest-physical, ring page included
  readonly blocks: number;
  readonly disk: DiskModel;
  /** the queue of the host's disk that is passed through to it */
  readonly queue: QueueRegisters | null;
  /** whether hardware tells it of that queue's completions while it runs */
  readonly posted: boolean;
  /** how its memory is translated */
  readonly paging: (guest: GuestPort) => Paging;
  readonly images: readonly Image[];
  /** whether its supervisor says to whom counters are attributed */
  readonly accounts: boolean;
  /** its handlers may have to wait for a page: they must be undoable */
  readonly transactional: boolean;
  /** test mode: each handler is rolled back at each of its stores once, and redelivered */
  readonly restarts: boolean;
}

/** A virtual machine beside its memory: plain data. */
export interface SavedMachine {
  readonly timer: Tick;
  readonly interrupts: number;
  /** context that runs; -1: it waits */
  readonly current: number;
  readonly contexts: readonly SavedContext[];
  readonly space: AddressSpace;
}

/** A vCPU in guest mode: its traps, and the way back to it, are not those of a program. */
const isGuest = (context: Context | null): boolean =>
  context instanceof HartLoop && context.inGuestMode;

/** One delivery of one trap: what it takes to undo it, and what waits until it cannot be. */
interface Transaction {
  readonly journal: Journal;
  readonly outside: Journal | null; // where writes were noted before
  readonly undo: (() => void)[];
  readonly deferred: (() => void)[];
  readonly drawn: number[]; // random words: the next attempt sees the same
  readonly typed: Uint8Array[]; // and what it read of the console
  readonly drawnAgain: number[]; // those that an attempt before this one had seen
  readonly typedAgain: Uint8Array[];
  readonly counts: Layer;
  readonly owner: number;
  readonly timer: Tick;
  readonly interrupts: number;
  readonly space: AddressSpace;
}

export class VirtualMachine implements Machine, LoopMachine {
  readonly level: number;
  readonly pages: number;
  readonly hart: Hart;
  readonly profile: CostProfile;
  readonly contexts: Contexts;
  readonly disk: DiskPort;
  readonly transactional: boolean;
  readonly balloon: BalloonPort;
  readonly neighbours: NeighbourPort;
  readonly vcpu: HartLoop;
  readonly #host: Machine;
  readonly #monitor: Monitor;
  readonly #spec: VirtualMachineSpec;
  readonly #ring: number; // guest-physical address
  readonly #locate: Locate;
  readonly #paging: Paging;
  /** The machine below, if that is a guest's: its supervisor may be rolled back under ours. */
  readonly #outer: VirtualMachine | null;
  #timer: Tick = NEVER; // vstimecmp
  #interrupts = 0; // hvip: as Vm.pending
  #transaction: Transaction | null = null;
  #committing = false; // what was put off happens now
  #drawn: number[] = []; // random words that a rolled-back handler had been given
  #typed: Uint8Array[] = []; // and what it had read of the console
  #owner = 0; // to whom its supervisor attributed last
  #attempt = 0; // test mode
  #stores = 0;

  constructor(host: Machine, monitor: Monitor, spec: VirtualMachineSpec, guest: Supervisor) {
    this.#host = host;
    this.#monitor = monitor;
    this.#spec = spec;
    this.hart = host.hart;
    this.profile = host.profile;
    this.level = host.level + 1;
    this.pages = spec.pages - 1;
    this.#outer = host instanceof VirtualMachine && host.transactional ? host : null;
    this.transactional = spec.transactional || spec.restarts || this.#outer !== null;
    this.#ring = this.pages * PAGE_BYTES;
    const paging = spec.paging(this.#port());
    this.#paging = paging;
    this.neighbours = paging.neighbours;
    this.contexts = new Contexts(this.hart, spec.images, paging);
    this.contexts.attach(
      (pa) => this.load(pa),
      (pa, value) => {
        this.store(pa, value);
      },
    );
    this.#locate = (vpn, write) => paging.locate(vpn, write);
    this.disk = frontEnd(spec.disk, spec.blocks, this.#ring, {
      load: (pa) => this.load(pa),
      store: (pa, value) => {
        this.store(pa, value);
      },
      finally: (act) => {
        this.#finally(act);
      },
      touch: (pages) => {
        if (!this.transactional) return;
        for (const page of pages) paging.load(page * PAGE_BYTES);
      },
      notify: () => {
        if (!this.#exit('disk', () => monitor.doorbell(spec.vm))) this.#stop(this.#ring);
      },
      queue: spec.queue,
    });
    this.balloon = {
      target: () => this.load(this.#ring + Ring.target * 4),
      size: () => this.load(this.#ring + Ring.ballooned * 4),
      give: (page) => {
        this.#finally(() => {
          paging.settle();
          this.#exit('balloon', () => {
            monitor.give(spec.vm, page);
          });
        });
      },
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
      exit: (exit, act) => this.#exit(exit, () => this.#monitor.exit(this.#spec.vm, exit, act)),
      inject: (trap) => {
        const undo = this.vcpu.inject(trap);
        this.#outer?.undone(undo);
      },
      missing: (gpa) => {
        this.#missing(gpa);
      },
      stop: (gpa) => this.#stop(gpa),
      block: (gpa) => this.#block(gpa),
      outside: (act) => {
        this.#outside(act);
      },
      aside: (why) => {
        this.hart.countReference(why);
        this.#foreign++;
      },
      resolve: (vpn, write) => {
        // The work of a host further out is nobody's here.
        const before = this.hart.references;
        const resolved = this.#host.resolveFault(vpn, write);
        this.#foreign += this.hart.references - before;
        return resolved;
      },
      own: (count) => {
        this.moveRegisters(count);
      },
      noting: (act) => this.#noting(act),
    };
  }

  // ---- memory -----------------------------------------------------------------------------------

  load(pa: number): number {
    this.hart.countReference('load');
    return this.#paging.load(this.#aligned(pa, 4));
  }

  store(pa: number, value: number): void {
    this.#restartPoint();
    this.hart.countReference('store');
    this.#paging.store(this.#aligned(pa, 4), value);
  }

  zeroPage(page: number): void {
    this.#restartPoint();
    const { hart } = this;
    const at = this.#page(page, true, (to) => {
      this.#host.zeroPage(to);
    });
    if (at < 0) return;
    hart.counters.add(E.pagesZeroed, 1);
    hart.charge('zero-page', Math.ceil(PAGE_BYTES / hart.zeroBytesPerCycle));
    hart.memory.zeroPage(at);
  }

  copyPage(to: number, from: number): void {
    this.#restartPoint();
    const { hart } = this;
    const source = this.#page(from, false, () => undefined);
    const target = this.#page(to, true, (page) => {
      this.#host.copyPage(page, this.#paging.behind(from));
    });
    if (target < 0) return;
    hart.counters.add(E.pagesCopied, 1);
    hart.charge('copy-page', Math.ceil(PAGE_BYTES / hart.copyBytesPerCycle));
    hart.memory.copyPage(target, source);
  }

  readPtes(table: number, first: number, count: number): Uint32Array {
    return this.#paging.readPtes(table, first, count);
  }

  writePtes(updates: readonly PteUpdate[]): void {
    if (this.#spec.restarts) {
      for (const update of updates) {
        this.#restartPoint();
        this.#paging.writePtes([update]);
      }
    } else this.#paging.writePtes(updates);
  }

  loadUser(va: number): number | null {
    return loadUser(this.hart, this.#locate, va);
  }

  storeUser(va: number, value: number): boolean {
    this.#restartPoint();
    return storeUser(this.hart, this.#locate, va, value);
  }

  readUser(va: number, bytes: number): Uint8Array | null {
    return readUser(this.hart, this.#locate, va, bytes);
  }

  #page(page: number, write: boolean, instead: (host: number) => void): number {
    this.#aligned(page * PAGE_BYTES, PAGE_BYTES);
    return this.#paging.page(page, write, instead);
  }

  /** What lies across two pages, as only an unaligned address can, would be somebody else's. */
  #aligned(gpa: number, align: number): number {
    if (gpa % align !== 0) this.#stop(gpa);
    return gpa;
  }

  #missing(gpa: number): void {
    const backing = this.#exit('memory', () => this.#monitor.memory(this.#spec.vm, gpa));
    this.hart.counters.add(E.guestPageFaults, 1);
    if (backing === Backing.refused) this.#stop(gpa);
    if (backing === Backing.wait) this.#block(gpa);
  }

  /** The guest supervisor cannot go on now: its handler is begun anew when it can. */
  #block(gpa: number): never {
    throw new Blocked({ cause: Cause.guestBlocked, tval: 0, gpa, level: this.#host.level });
  }

  /** The guest supervisor cannot go on: what it was doing is dropped with it. */
  #stop(gpa: number): never {
    throw new Blocked({ cause: Cause.guestStopped, tval: gpa, gpa, level: this.#host.level });
  }

  // ---- control registers ------------------------------------------------------------------------

  setAddressSpace(space: { readonly root: number; readonly asid: number } | null): void {
    // WARL: whole pages, and 16 bits of ASID.
    const root = space === null ? -1 : space.root & 0x3fffff;
    this.#paging.setAddressSpace(root, (space?.asid ?? 0) & 0xffff);
  }

  /** The registers have 16 bits of ASID and 27 of page number: more is ignored. */
  fence(asid?: number, vpn?: number): void {
    this.#paging.fence(
      asid === undefined ? null : asid & 0xffff,
      vpn === undefined ? null : vpn & 0x7ffffff,
    );
  }

  /** vstimecmp. */
  setTimer(at: Tick): void {
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

  /** As the hypervisor left it: a version that is odd is being written. */
  stolen(): Tick {
    const inPage = (word: number): number => this.load(this.#ring + (Ring.steal + word) * 4);
    const word = this.#paging.clock ?? inPage;
    for (;;) {
      const version = word(0);
      const cycles = (word(1) >>> 0) + word(2) * 2 ** 32;
      if (version % 2 === 0 && word(0) === version) return cycles;
    }
  }

  /** To whom time counts is the host's to say, unless it let the guest. */
  attribute(owner: number): void {
    if (this.#spec.accounts) this.hart.attribute(owner, this.hart.counters.layer);
    this.#owner = owner;
  }

  /** It has the CPU again: what it runs counts to whom it said. */
  attributeAgain(): void {
    if (this.#spec.accounts) this.hart.attribute(this.#owner, this.hart.counters.layer);
  }

  /** Without those of whoever took its exits. */
  references(): number {
    return this.hart.references - this.#foreign;
  }
  #foreign = 0;

  work(instructions: number): void {
    this.hart.charge('work', instructions);
  }

  peek(pa: number): number | null {
    return this.#monitor.peek(this.#spec.vm, pa);
  }

  get guestMode(): GuestMode | null {
    return this.#paging.guestMode;
  }

  get inGuestMode(): boolean {
    return this.#paging.inGuestMode;
  }

  // ---- devices ----------------------------------------------------------------------------------

  console(channel: number, bytes: Uint8Array): void {
    this.#finally(() => {
      this.#exit('console', () => {
        this.#monitor.console(this.#spec.vm, channel, bytes);
      });
    });
  }

  consoleRead(channel: number): Uint8Array {
    const read = (): Uint8Array => this.#monitor.consoleRead(this.#spec.vm, channel);
    const again = this.#typed.shift();
    const bytes = again ?? this.#exit('console', read);
    this.#transaction?.[again === undefined ? 'typed' : 'typedAgain'].push(bytes);
    return bytes;
  }

  entropy(): number {
    const again = this.#drawn.shift();
    const word = again ?? this.#exit('entropy', () => this.#monitor.entropy(this.#spec.vm));
    this.#transaction?.[again === undefined ? 'drawn' : 'drawnAgain'].push(word);
    return word;
  }

  /** Into the hypervisor and back, in the middle of the guest's handler. */
  #exit<T>(exit: Exit | ((result: T) => Exit), act: () => T): T {
    const { hart } = this;
    const layer = hart.counters.layer;
    const before = hart.references;
    // It may be in the middle of what a guest of ours does, and goes on with that.
    const inner = hart.regime === this.#paging.regime() ? null : hart.regime;
    const { guestMode } = this.#host;
    const crossing = this.inGuestMode ? guestMode : null;
    hart.enterLayer(Math.min(this.#host.level, 2));
    hart.counters.add(E.vmExits, 1);
    hart.counters.add(E.traps, 1);
    if (crossing === null) hart.charge('trap-entry', hart.costs.trapEntry);
    else crossing.leave(Cause.none);
    // What the host does for us stays done when we are rolled back; if it is a guest itself, its
    // own machine takes note.
    const noted = hart.memory.exchange(this.#outer?.journal ?? null);
    this.#paging.outside();
    hart.install(this.#host.regime());
    const result = act();
    if (hart.listener !== null) {
      hart.tell({ what: 'exit', cause: typeof exit === 'string' ? exit : exit(result) });
    }
    this.#paging.inside();
    hart.memory.exchange(noted);
    if (crossing === null) hart.charge('trap-return', hart.costs.trapReturn);
    else crossing.enter();
    this.#foreign += hart.references - before;
    hart.install(inner ?? this.#paging.regime());
    hart.enterLayer(layer);
    return result;
  }

  /** Uncharged, and not undone: what a rollback makes the hypervisor forget. */
  #outside(act: () => void): void {
    const { hart } = this;
    const inner = hart.regime === this.#paging.regime() ? null : hart.regime;
    const noted = hart.memory.exchange(this.#outer?.journal ?? null);
    const before = hart.now();
    const counts = hart.counters.save();
    this.#paging.outside();
    hart.install(this.#host.regime());
    act();
    this.#paging.inside();
    hart.settle();
    hart.counters.restore(counts);
    hart.rewind(before);
    hart.memory.exchange(noted);
    hart.install(inner ?? this.#paging.regime());
  }

  /** A store that an exit does for our supervisor is undone with its handler. */
  #noting<T>(act: () => T): T {
    const { journal } = this;
    if (journal === null) return act();
    const noted = this.hart.memory.exchange(journal);
    const result = act();
    this.hart.memory.exchange(noted);
    return result;
  }

  /** The host page behind `page` changed, or may be written less. */
  changed(page: number): void {
    this.#paging.changed(page);
  }

  /** The log of what is written to its memory, for who copies it while it runs: see Paging. */
  arm(): void {
    this.#paging.arm();
  }
  written(): number[] {
    return this.#paging.collect();
  }

  /** It will not run again: nothing may remember its memory. */
  ended(): void {
    this.#paging.ended();
  }

  /** How its memory is translated, for its hypervisor. */
  get paging(): Paging {
    return this.#paging;
  }

  // ---- LoopMachine ------------------------------------------------------------------------------

  /** hvip: an external interrupt for the guest, taken when it next runs. */
  inject(interrupts: number): void {
    this.#paging.pend(interrupts);
    const was = this.#interrupts;
    this.#outer?.undone(() => (this.#interrupts = was));
    this.#interrupts |= interrupts;
  }

  /** Something of the machine inside that our supervisor did: undone if its handler is. */
  undone(undo: () => void): void {
    this.#transaction?.undo.push(undo);
  }

  regime(): Regime {
    return this.#paging.regime();
  }

  entered(trap: Trap, from: Context | null): void {
    if (isGuest(from) && this.guestMode !== null) {
      this.guestMode.leave(trap.cause);
      // That much has happened, should the handler be begun anew.
      this.#paging.space();
    } else this.#paging.entered(trap, from);
  }

  left(to: Context | null): void {
    if (isGuest(to) && this.guestMode !== null) this.guestMode.enter();
    else this.#paging.left(to, to === null ? 'supervisor' : this.privilegeOf(to));
  }

  returned(): void {
    this.#paging.settle();
  }

  trapLevel(cause: number, privilege: Privilege): number {
    return this.#paging.trapLevel(cause, privilege);
  }

  resolveFault(vpn: number, write: boolean): boolean {
    return this.#paging.resolve(vpn, write);
  }

  timer(): Tick {
    return this.#timer;
  }

  takeInterrupt(): boolean {
    const was = (this.#interrupts & 1) !== 0;
    this.#interrupts &= ~1;
    const { posted, queue } = this.#spec;
    return (posted && queue?.takeInterrupt() === true) || (was && this.#paging.taken(0));
  }

  takeTyped(): number {
    if (this.#interrupts >>> 1 === 0) return -1;
    const channel = 31 - Math.clz32(this.#interrupts);
    this.#interrupts &= ~(1 << channel);
    return this.#paging.taken(channel) ? channel : -1;
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

  // ---- saving: all that is data of the machine itself, its memory apart -------------------------

  /** Why it cannot be saved, or what there is beside its memory. */
  saved(): SavedMachine | string {
    const { rest } = this.vcpu;
    if (rest === null) return 'it has not booted yet, or waits for a page: let it run on';
    const contexts = this.contexts.saved();
    if (typeof contexts === 'string') {
      return `the threads of '${contexts}' cannot be carried: its image has no entry 'resume'`;
    }
    const current = rest.current === null ? -1 : this.contexts.numberOf(rest.current);
    const [timer, interrupts] = [this.#timer, this.#interrupts];
    return { timer, interrupts, current, contexts, space: this.#paging.space() };
  }

  /** Goes on where another machine was. Its supervisor takes over what stands in memory. */
  adopt(saved: SavedMachine, supervisor: Supervisor): void {
    this.#timer = saved.timer;
    this.#interrupts = saved.interrupts;
    this.contexts.resume(saved.contexts);
    const current = saved.current < 0 ? null : this.contexts.context(saved.current);
    this.#paging.restore(saved.space, current === null ? null : this.privilegeOf(current));
    this.#paging.renew();
    // It does not run yet: the hypervisor goes on.
    this.#paging.outside();
    this.hart.install(this.#host.regime());
    assert(supervisor.attach !== undefined, 'virtual machine: its supervisor can take it over');
    supervisor.attach(this);
    this.vcpu.resume(current);
  }

  // ---- transactions: one delivery of one trap, undone if the supervisor must wait ---------------

  /** What the machine inside notes its supervisor's writes in. */
  get journal(): Journal | null {
    return this.#transaction?.journal ?? null;
  }

  /** Outer ones open first: the host's supervisor takes our exits in the middle of this handler. */
  begin(): void {
    this.#outer?.begin();
    const { hart } = this;
    const undo: (() => void)[] = [];
    this.contexts.undo = undo;
    hart.settle();
    const journal = new Journal();
    this.#transaction = {
      journal,
      outside: hart.memory.exchange(journal),
      undo,
      deferred: [],
      drawn: [],
      typed: [],
      drawnAgain: [],
      typedAgain: [],
      counts: hart.counters.saveLayer(Math.min(this.level, 2)),
      owner: hart.counters.owner,
      timer: this.#timer,
      interrupts: this.#interrupts,
      space: this.#paging.space(),
    };
    this.#attempt++;
    this.#stores = 0;
    this.#paging.renew();
  }

  /** Doorbells and output go out now, in order. An outer machine may still have to wait. */
  commit(): void {
    const transaction = this.#transaction;
    assert(transaction !== null, 'virtual machine: a commit ends a transaction');
    this.#committing = true;
    if (transaction.deferred.length > 0) {
      // Ours to do, also when it is a handler of the machine inside that has come to its end.
      const { hart } = this;
      const [regime, layer] = [hart.regime, hart.counters.layer];
      const inner = regime === this.#paging.regime() ? null : regime;
      hart.install(this.#paging.regime());
      hart.enterLayer(Math.min(this.level, 2));
      for (const act of transaction.deferred) act();
      hart.install(inner ?? this.#paging.regime());
      hart.enterLayer(layer);
    }
    // Should the outer one have to wait, ours is still open, and undone.
    this.hart.memory.exchange(transaction.outside);
    this.#outer?.commit();
    this.#over();
    this.#attempt = 0;
    this.#drawn = [];
    this.#typed = [];
  }

  rollback(blocked: Trap): Trap {
    const given = this.#undo();
    const outer = this.#outer;
    // A handler that waits for our host keeps what the host has done for it.
    if (outer !== null && blocked.level < outer.level) return outer.rollback(blocked);
    try {
      outer?.commit();
    } catch (error) {
      if (!(error instanceof Blocked) || outer === null) throw error;
      return outer.rollback(error.trap);
    }
    this.#drawn.push(...given.drawn);
    this.#typed.push(...given.typed);
    return blocked;
  }

  /**
   * Undoes what the handler did. The clock goes back by what it cost: it will cost that again.
   * Returns what it was given for the first time, and its host still counts as given.
   */
  #undo(): Pick<Transaction, 'drawn' | 'typed'> {
    const transaction = this.#transaction;
    if (transaction === null) return { drawn: [], typed: [] };
    const { hart } = this;
    hart.memory.exchange(null);
    hart.memory.undo(transaction.journal);
    for (const undo of transaction.undo.reverse()) undo();
    this.#drawn = [...transaction.drawnAgain, ...this.#drawn];
    this.#typed = [...transaction.typedAgain, ...this.#typed];
    this.#timer = transaction.timer;
    this.#interrupts = transaction.interrupts;
    this.#close(transaction);
    hart.settle();
    hart.rewind(hart.now() - hart.counters.restoreLayer(transaction.counts));
    if (this.#spec.accounts) this.attribute(transaction.owner);
    this.#paging.restore(transaction.space, null);
    return transaction;
  }

  #close(transaction: Transaction): void {
    this.hart.memory.exchange(transaction.outside);
    this.#over();
  }

  #over(): void {
    this.contexts.undo = null;
    this.#transaction = null;
    this.#committing = false;
  }

  /** What cannot be undone happens when the handler is through. */
  #finally(act: () => void): void {
    if (this.#transaction === null || this.#committing) act();
    else this.#transaction.deferred.push(act);
  }

  /** Test mode: the n-th delivery of a trap is rolled back at its n-th store. */
  #restartPoint(): void {
    if (!this.#spec.restarts || this.#transaction === null || this.#committing) return;
    this.#stores++;
    if (this.#stores === this.#attempt && this.#attempt <= ATTEMPTS) this.#block(0);
  }
}
