/**
 * PhysicalMachine: the hardware. It owns memory, hart and devices, drives the root supervisor's
 * run loop, skips idle time, and stops when nothing will ever happen again.
 *
 * It trusts nobody with its inside: a supervisor reaches it through Machine, a program through its
 * port. Same configuration, same seed, same trace, bit for bit.
 */
import { assert } from './assert.ts';
import { type CostProfile, RISCV } from './costs.ts';
import { Contexts } from './contexts.ts';
import { E } from './counters.ts';
import {
  Disk,
  type DiskCompletion,
  type DiskPort,
  type DiskRequest,
  type Medium,
  RamMedium,
} from './disk.ts';
import { DISK_QUEUES, type DiskQueues, Queues, type QueueRegisters } from './disk-queues.ts';
import { EventQueue } from './events.ts';
import { Hart, type HartConfig } from './hart.ts';
import { Blocked, HartLoop, type LoopMachine } from './hart-loop.ts';
import {
  ALONE,
  type BalloonPort,
  Cause,
  type Context,
  type GuestMode,
  type Machine,
  type PteUpdate,
  type Supervisor,
  type Trap,
} from './machine.ts';
import { Memory } from './memory.ts';
import { grip, type Image } from './port.ts';
import { NEVER, PAGE_BYTES, type Tick } from './units.ts';
import { Terminals } from './terminals.ts';
import { type Locate, loadUser, readUser, storeUser } from './user-memory.ts';
import type { Regime } from './walker.ts';

export interface MachineConfig extends HartConfig {
  /** physical pages */
  readonly pages: number;
  readonly images: readonly Image[];
  readonly profile?: CostProfile;
  readonly medium?: Medium;
  /** of entropy and of mishaps */
  readonly seed?: number;
  /** receives console bytes by channel */
  readonly output?: (channel: number, bytes: Uint8Array) => void;
  /** test mode: a spurious, uncharged timer trap before each user access */
  readonly storm?: boolean;
  /** test mode: each handler is rolled back at each of its stores once, and redelivered */
  readonly restarts?: boolean;
  /** keep the hash of memory from the start */
  readonly hashed?: boolean;
}

/** Why `run` returned. */
export type Stop = 'halted' | 'deadline';

export class PhysicalMachine implements Machine, LoopMachine {
  readonly level = 0;
  readonly memory: Memory;
  readonly hart: Hart;
  readonly contexts: Contexts;
  readonly disk: DiskPort;
  readonly neighbours = ALONE;
  readonly balloon: BalloonPort = {
    target: () => 0,
    size: () => 0,
    give: () => undefined,
  };
  readonly guestMode: GuestMode = {
    regime: (guest) => guest,
    select: () => {
      this.moveRegisters(1); // whoever runs brings his regime along
    },
    moveRegisters: (count) => {
      this.moveRegisters(count);
    },
    fence: (vmid) => {
      this.hart.fenceGuest(vmid); // whole: a TLB of both stages knows no guest-physical pages
    },
    enter: () => {
      this.left();
    },
    leave: () => {
      this.entered();
    },
  };
  readonly inGuestMode = false;
  readonly profile: CostProfile;
  readonly transactional: boolean;
  readonly #device: Disk;
  readonly #queues: Queues;
  readonly #events = new EventQueue();
  readonly #output: (channel: number, bytes: Uint8Array) => void;
  readonly #locate: Locate;
  #loop: HartLoop | null = null;
  #regime: Regime = { vmid: 0, asid: 0, root: -1, guestRoot: -1 };
  #timer: Tick = NEVER;
  #interrupt = false;
  readonly #terminals = new Terminals();
  #random: number;
  // A transaction: one delivery of one trap.
  #deferred: (() => void)[] | null = null;
  #undo: (() => void)[] | null = null;
  #attempt = 0;
  #submitting = 0; // requests that a commit will hand to the disk
  #stores = 0;
  #saved: ReturnType<PhysicalMachine['saveRegisters']> | null = null;
  #power = true;

  constructor(config: MachineConfig) {
    this.memory = new Memory(config.pages);
    this.profile = config.profile ?? RISCV;
    this.hart = new Hart(this.memory, this.profile, config);
    this.contexts = new Contexts(this.hart, config.images, {
      programRegime: () => this.#regime,
      trapLevel: () => this.trapLevel(),
    });
    this.contexts.attach(
      (pa) => this.load(pa),
      (pa, value) => {
        this.store(pa, value);
      },
    );
    this.transactional = config.restarts === true;
    this.#random = (config.seed ?? 1) >>> 0;
    this.#output = config.output ?? (() => undefined);
    const { diskAccess, diskBlock, diskFlush } = this.hart.costs;
    this.#queues = new Queues(this.memory);
    this.#device = new Disk(
      config.medium ?? new RamMedium(1024),
      { access: diskAccess, block: diskBlock, flush: diskFlush },
      (ppn) => this.memory.bytes(ppn),
      (ppn, bytes) => {
        this.memory.dma(ppn, bytes);
      },
      this.#queues,
    );
    this.disk = this.#diskPort();
    this.#locate = (vpn, write) => (this.hart.translateUser(vpn, write) ? this.hart.ppn : null);
    if (config.storm === true) this.hart.storm = true;
    if (config.hashed === true) this.watch();
  }

  get pages(): number {
    return this.memory.pages;
  }

  /** The disk behind the port: for power cuts and failing blocks. */
  get device(): Disk {
    return this.#device;
  }

  /** From now on keeps the hash of memory, user stores included. */
  watch(): void {
    grip.forgetStores(this.hart.port);
    this.memory.startHash();
  }

  /** Boots `supervisor`; `run` goes on from there. */
  boot(supervisor: Supervisor): void {
    assert(this.#loop === null, 'machine: boots once');
    this.hart.enterLayer(0);
    supervisor.boot(this);
    this.#loop = new HartLoop(this, supervisor);
  }

  /**
   * Runs until `deadline`, or until nothing will ever happen again.
   * @param enough asked after each return to the machine; true ends the run
   */
  run(deadline: Tick = NEVER, enough: () => boolean = () => false): Stop {
    const loop = this.#loop;
    assert(loop !== null && this.#power, 'machine: booted, and powered');
    while (this.now() < deadline && !enough()) {
      const got = loop.run(deadline);
      if (got.cause !== Cause.virtualInstruction) continue;
      if (got.tval === NEVER) {
        this.hart.settle();
        return 'halted';
      }
      const wake = Math.min(got.tval, deadline);
      if (wake > this.now()) this.hart.skipTo(wake);
    }
    this.hart.settle();
    return 'deadline';
  }

  /** Power is lost now: memory, queue and an unlucky part of the write cache are gone. */
  powerCut(): void {
    this.#power = false;
    this.#device.powerCut(() => (this.#next() >>> 0) / 2 ** 32);
  }

  /** Power goes in good order: what the disk has cached becomes durable. */
  powerOff(): void {
    this.#power = false;
    this.#device.shutDown();
  }

  // ---- Machine: memory --------------------------------------------------------------------------

  load(pa: number): number {
    this.hart.countReference('load');
    return this.memory.get(this.hart.supervisorAddress(pa, false));
  }

  store(pa: number, value: number): void {
    this.#restartPoint();
    this.hart.countReference('store');
    this.memory.put(this.hart.supervisorAddress(pa, true), value);
  }

  zeroPage(page: number): void {
    this.#restartPoint();
    const { hart } = this;
    hart.supervisorAddress(page * PAGE_BYTES, true);
    hart.counters.add(E.pagesZeroed, 1);
    hart.charge('zero-page', Math.ceil(PAGE_BYTES / hart.zeroBytesPerCycle));
    this.memory.zeroPage(page);
  }

  copyPage(to: number, from: number): void {
    this.#restartPoint();
    const { hart } = this;
    hart.supervisorAddress(from * PAGE_BYTES, false);
    hart.supervisorAddress(to * PAGE_BYTES, true);
    hart.counters.add(E.pagesCopied, 1);
    hart.charge('copy-page', Math.ceil(PAGE_BYTES / hart.copyBytesPerCycle));
    this.memory.copyPage(to, from);
  }

  readPtes(table: number, first: number, count: number): Uint32Array {
    assert(first >= 0 && first + count <= 2048, 'machine: the entries exist');
    const entries = new Uint32Array(count);
    for (let n = 0; n < count; n++) {
      this.hart.countReference('pte-read');
      const pa = table * PAGE_BYTES + (first + n) * 8;
      entries[n] = this.memory.get(this.hart.supervisorAddress(pa, false));
    }
    return entries;
  }

  writePtes(updates: readonly PteUpdate[]): void {
    for (const { table, index, value } of updates) {
      this.#restartPoint();
      this.hart.countReference('pte-write');
      this.hart.counters.add(E.pteWrites, 1);
      const pa = table * PAGE_BYTES + index * 8;
      const at = this.hart.supervisorAddress(pa, true);
      this.memory.put(at, value | 0);
      if (this.memory.get(at + 4) !== 0) this.memory.put(at + 4, 0);
    }
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

  // ---- Machine: control registers ---------------------------------------------------------------

  setAddressSpace(space: { readonly root: number; readonly asid: number } | null): void {
    this.moveRegisters(1);
    this.#regime = {
      vmid: 0,
      asid: (space?.asid ?? 0) & 0xffff, // WARL: ASIDLEN is 16
      root: space?.root ?? -1,
      guestRoot: -1,
    };
    this.hart.install(this.#regime);
  }

  fence(asid?: number, vpn?: number): void {
    this.hart.fence(0, asid === undefined ? null : asid & 0xffff, vpn ?? null);
  }

  setTimer(at: Tick): void {
    this.moveRegisters(1);
    this.#timer = Number.isNaN(at) ? NEVER : at;
  }

  moveRegisters(count: number): void {
    this.hart.counters.add(E.csrAccesses, count);
    this.hart.charge('csr', count * this.hart.costs.csr);
  }

  trapLevel(): number {
    return 0;
  }

  /** Below the hardware there is nobody. */
  resolveFault(): boolean {
    return false;
  }

  now(): Tick {
    return this.hart.now();
  }

  /** Nobody has the hardware but its supervisor. */
  stolen(): Tick {
    return 0;
  }

  attribute(owner: number): void {
    this.hart.attribute(owner, this.hart.counters.layer);
  }

  references(): number {
    return this.hart.references;
  }

  peek(pa: number): number {
    return this.memory.get(pa);
  }

  work(instructions: number): void {
    this.hart.charge('work', instructions);
  }

  // ---- Machine: devices -------------------------------------------------------------------------

  console(channel: number, bytes: Uint8Array): void {
    this.#mmio(1);
    this.hart.counters.add(E.consoleBytes, bytes.length);
    this.#later(() => {
      this.#output(channel, bytes);
    });
  }

  consoleRead(channel: number): Uint8Array {
    const { bytes, restore } = this.#terminals.read(channel);
    this.#mmio(1 + bytes.length);
    this.#undo?.push(restore);
    return bytes;
  }

  /** Somebody types: bytes arrive on a channel, and an interrupt says so. */
  type(channel: number, bytes: Uint8Array): void {
    this.#terminals.type(channel, bytes);
  }

  entropy(): number {
    this.#mmio(1);
    return this.#next();
  }

  // ---- LoopMachine ------------------------------------------------------------------------------

  regime(): Regime {
    return this.#regime;
  }

  entered(): void {
    this.hart.charge('trap-entry', this.hart.costs.trapEntry);
  }

  left(): void {
    this.hart.charge('trap-return', this.hart.costs.trapReturn);
  }

  returned(): void {
    // Nothing was put off.
  }

  timer(): Tick {
    return this.#timer;
  }

  takeInterrupt(): boolean {
    const was = this.#interrupt;
    this.#interrupt = false;
    return was || this.#queues.calls;
  }

  takeTyped(): number {
    return this.#terminals.interrupt();
  }

  nextEvent(): Tick {
    return this.#events.next;
  }

  poll(): void {
    this.#events.runUntil(this.now());
  }

  privilegeOf(context: Context): 'user' | 'supervisor' {
    return this.contexts.privilegeOf(context);
  }

  begin(): void {
    this.memory.begin();
    grip.forgetStores(this.hart.port);
    this.#deferred = [];
    this.#undo = [];
    this.contexts.undo = this.#undo;
    this.#attempt++;
    this.#stores = 0;
    this.#saved = this.saveRegisters();
  }

  commit(): void {
    this.memory.commit();
    const deferred = this.#deferred ?? [];
    this.#end();
    this.#attempt = 0;
    for (const act of deferred) act();
  }

  rollback(blocked: Trap): Trap {
    if (!this.transactional) return blocked;
    this.memory.rollback();
    for (const undo of (this.#undo ?? []).reverse()) undo();
    const saved = this.#saved;
    assert(saved !== null, 'machine: a rollback has what to go back to');
    this.#regime = saved.regime;
    this.#timer = saved.timer;
    this.#interrupt = saved.interrupt;
    this.#random = saved.random;
    this.hart.counters.restore(saved.counters);
    this.hart.rewind(saved.now);
    this.hart.forgetTranslations();
    this.hart.install(this.#regime);
    this.#end();
    return blocked;
  }

  private saveRegisters(): {
    regime: Regime;
    timer: Tick;
    interrupt: boolean;
    random: number;
    now: Tick;
    counters: { rows: Float64Array; cycles: Float64Array };
  } {
    this.hart.settle();
    return {
      regime: this.#regime,
      timer: this.#timer,
      interrupt: this.#interrupt,
      random: this.#random,
      now: this.now(),
      counters: this.hart.counters.save(),
    };
  }

  #end(): void {
    this.#submitting = 0;
    this.#deferred = null;
    this.#undo = null;
    this.contexts.undo = null;
  }

  /** Test mode: the n-th delivery of a trap blocks at its n-th store, until none is left. */
  #restartPoint(): void {
    if (this.#deferred === null) return;
    this.#stores++;
    if (this.#stores === this.#attempt) {
      throw new Blocked({ cause: Cause.none, tval: 0, gpa: 0, level: -1 });
    }
  }

  #diskPort(): DiskPort {
    return {
      blocks: this.#device.blocks,
      room: () => {
        this.#mmio(1);
        return this.#device.room - this.#submitting;
      },
      submit: (request) => {
        this.#submit(request);
      },
      complete: () => this.#complete(),
      queues: this.#diskQueues(),
    };
  }

  /** Registers of the device, of the IOMMU, and hgeie. */
  #diskQueues(): DiskQueues {
    const queues = this.#queues;
    return {
      count: DISK_QUEUES,
      assign: (queue, to) => {
        this.#mmio(4);
        this.#later(() => {
          queues.assign(queue, to);
        });
      },
      reset: (queue) => {
        this.#mmio(1);
        this.#later(() => {
          queues.reset(queue);
        });
      },
      listen: (queue, on) => {
        this.moveRegisters(1);
        this.#later(() => {
          queues.listen(queue, on);
        });
      },
      claim: () => {
        const queue = queues.claim();
        if (queue < 0) return queue; // that none calls, the cause of the interrupt has said
        this.moveRegisters(1);
        this.#undo?.push(() => {
          queues.listen(queue, true);
        });
        return queue;
      },
      isStopped: (queue) => {
        this.#mmio(1);
        return queues.isStopped(queue);
      },
      registers: (queue) => this.#registersOf(queue),
    };
  }

  #registersOf(queue: number): QueueRegisters {
    return {
      probe: () => {
        this.#mmio(1);
      },
      ring: (requested) => {
        this.#mmio(1);
        for (const request of this.#queues.ring(queue, requested)) this.#countRequest(request);
        this.#schedule(this.#device.start(this.now()));
      },
      takeInterrupt: () => this.#queues.takeInterrupt(queue),
    };
  }

  #submit(request: DiskRequest): void {
    // A descriptor per page in memory, then the doorbell.
    const { hart } = this;
    for (let n = 0; n < request.pages.length + 1; n++) hart.countReference('store');
    this.#mmio(1);
    this.#countRequest(request);
    if (this.#deferred !== null) this.#submitting++;
    this.#later(() => {
      this.#schedule(this.#device.submit(request, this.now()));
    });
  }

  #countRequest({ flush, write, pages }: DiskRequest): void {
    const { counters } = this.hart;
    counters.add(E.diskRequests, 1);
    if (flush === true) counters.add(E.diskFlushes, 1);
    else counters.add(write ? E.diskWrites : E.diskReads, pages.length);
  }

  #schedule(at: Tick | null): void {
    if (at === null) return;
    this.#events.add(at, () => {
      // Of another queue the interrupt is another's.
      this.#interrupt ||= this.#device.servesOwn;
      this.#schedule(this.#device.finish(at));
    });
  }

  #complete(): DiskCompletion | null {
    this.hart.countReference('load');
    const done = this.#device.complete();
    if (done !== null) {
      this.#undo?.push(() => {
        this.#device.uncomplete(done);
      });
    }
    return done;
  }

  #later(act: () => void): void {
    if (this.#deferred === null) act();
    else this.#deferred.push(act);
  }

  #mmio(count: number): void {
    this.hart.counters.add(E.mmioAccesses, count);
    this.hart.charge('mmio', count * this.hart.costs.mmio);
  }

  /** xorshift32, never zero. */
  #next(): number {
    let x = this.#random === 0 ? 0x9e3779b9 : this.#random;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#random = x >>> 0;
    return x >>> 0;
  }
}
