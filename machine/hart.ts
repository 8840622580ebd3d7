/**
 * The hart: clock, TLB, walker, the user port, and the supervisor's own accesses to memory. It is
 * one physical thing however deep the supervisors nest: what changes from guest to guest is the
 * Regime that it translates for. It decides nothing; it translates, charges and counts.
 */
import { assert } from './assert.ts';
import { type CostProfile, type Cycles, cyclesOf } from './costs.ts';
import { Counters, E, USER_LAYER } from './counters.ts';
import type { Memory } from './memory.ts';
import { grip, UserPort, type UserMmu } from './port.ts';
import { DIRECT_VPN, GIGAPAGE_PAGES, PTE_D, PTE_R, PTE_U, PTE_W } from './sv39.ts';
import { spaceTag, Tlb } from './tlb.ts';
import type { Charge, Listener, TraceEvent } from './trace.ts';
import { PAGE_BYTES, type Tick } from './units.ts';
import { KEPT, type Regime, Walker } from './walker.ts';

export interface HartConfig {
  /** TLB sets, a power of two or 0 for none; default 128 */
  readonly tlbSets?: number;
  /** entries per set; default 4 */
  readonly tlbWays?: number;
  /** page-walk and nested translation caches; default true */
  readonly walkCaches?: boolean;
}

/** Thread operations that user mode reaches through the port. */
export interface UserThreads {
  /** of the context that they belong to */
  readonly number: number;
  spawn(entry: number, args: readonly number[]): number;
  currentThread(): number;
}

const HOST: Regime = { vmid: 0, asid: 0, root: -1, guestRoot: -1 };
const MICRO = 256; // guest supervisor pages known to be in the TLB
const SLOTS = 1024;

export class Hart implements UserMmu {
  readonly memory: Memory;
  readonly profile: CostProfile;
  readonly counters = new Counters();
  readonly port: UserPort;
  readonly costs: Cycles;
  readonly copyBytesPerCycle: number;
  readonly zeroBytesPerCycle: number;
  listener: Listener | null = null;

  readonly #tlb: Tlb;
  readonly #walker: Walker;
  readonly #access: number; // cycles of one counted supervisor reference
  #regime: Regime = HOST;
  #space = 0;
  #inUser = false;
  #attributedAt: Tick = 0;
  #storm = false;
  readonly #slots = new Map<number, number>();
  // Gigapages of the direct map that are in the TLB (host), one bit each.
  #direct = 0;
  // Pages of a guest's direct map that are in the TLB.
  readonly #guestTag = new Float64Array(MICRO).fill(-1);
  readonly #guestPpn = new Int32Array(MICRO);
  readonly #guestWrite = new Uint8Array(MICRO);
  threads: UserThreads | null = null;

  // UserMmu: what the last translation found.
  ppn = 0;
  faultCause = 0;
  faultGpa = 0;

  constructor(memory: Memory, profile: CostProfile, config: HartConfig) {
    this.memory = memory;
    this.profile = profile;
    this.costs = cyclesOf(profile);
    this.copyBytesPerCycle = this.costs.copyBytesPerCycle;
    this.zeroBytesPerCycle = this.costs.zeroBytesPerCycle;
    this.#access = this.costs.reference + this.costs.instructionsPerReference;
    this.#tlb = new Tlb(config.tlbSets ?? 128, config.tlbWays ?? 4);
    this.#walker = new Walker(memory, config.walkCaches ?? true, (references) => {
      this.counters.add(E.pageWalkReferences, references);
      this.charge('walk', references * this.costs.walkReference);
    });
    this.port = new UserPort(this);
  }

  // ---- clock and accounts -----------------------------------------------------------------------

  now(): Tick {
    return grip.now(this.port);
  }

  /** Idle time: the clock jumps, nobody is charged. */
  skipTo(at: Tick): void {
    this.settle();
    grip.setNow(this.port, at);
    this.#attributedAt = at;
  }

  /** The clock goes back: a handler was rolled back, or a storm's trap is free. */
  refundTo(at: Tick): void {
    this.settle();
    this.counters.spend(at - this.now());
    grip.setNow(this.port, at);
    this.#attributedAt = at;
  }

  /** The clock goes back and the counters were restored: as if nothing had been spent since. */
  rewind(at: Tick): void {
    grip.setNow(this.port, at);
    this.#attributedAt = at;
  }

  charge(why: Charge, cycles: number): void {
    // A guest's supervisor may name any number; time only ever goes on, by whole cycles.
    if (!(cycles >= 0 && cycles < 2 ** 31)) cycles = 0;
    grip.spend(this.port, Math.floor(cycles));
    if (this.listener !== null) this.tell({ what: 'charge', why, cycles });
  }

  tell(event: TraceEvent): void {
    this.listener?.(event, this.counters.layer, this.now());
  }

  /** Books the cycles since the last call to whoever ran until now. */
  settle(): void {
    const now = this.now();
    this.counters.spend(now - this.#attributedAt);
    this.#attributedAt = now;
  }

  /** Whoever runs from now on. */
  attribute(owner: number, layer: number): void {
    this.settle();
    this.counters.attribute(owner, layer);
  }

  enterLayer(layer: number): void {
    this.#inUser = layer === USER_LAYER;
    this.attribute(this.counters.owner, layer);
  }

  // ---- translation ------------------------------------------------------------------------------

  get regime(): Regime {
    return this.#regime;
  }

  /** Reprograms satp, vsatp and hgatp, in effect. Orders nothing. */
  install(regime: Regime): void {
    if (regime === this.#regime) return;
    const space = spaceTag(regime.vmid, regime.asid);
    if (space !== this.#space) this.counters.add(E.addressSpaceSwitches, 1);
    this.#regime = regime;
    this.#space = space;
    let slot = this.#slots.get(space);
    if (slot === undefined) {
      if (this.#slots.size === SLOTS - 1) {
        this.#slots.clear();
        grip.forgetAll(this.port);
      }
      slot = this.#slots.size + 1;
      this.#slots.set(space, slot);
    }
    grip.setSlot(this.port, slot);
  }

  /** A user access through TLB and walker. On a fault, `faultCause` and `faultGpa` say which. */
  translateUser(vpn: number, write: boolean): boolean {
    return this.#translate(vpn, write, true);
  }

  #translate(vpn: number, write: boolean, user: boolean): boolean {
    const need = write ? PTE_W | PTE_D : PTE_R;
    const tlb = this.#tlb;
    if (tlb.find(vpn, this.#space)) {
      const { flags } = tlb;
      if ((flags & need) === need && user === ((flags & PTE_U) !== 0)) {
        this.ppn = tlb.ppn;
        return true;
      }
    }
    this.counters.add(E.tlbMisses, 1);
    if (!user || !this.#inUser) this.counters.add(E.supervisorTlbMisses, 1);
    const walker = this.#walker;
    if (!walker.walk(this.#regime, vpn, write, user)) {
      const second = walker.faultStage === 2;
      this.faultGpa = walker.faultGpa;
      this.faultCause = second ? (write ? 23 : 21) : write ? 15 : 13;
      return false;
    }
    this.ppn = walker.ppn;
    const lost = tlb.fill(vpn, this.#space, walker.ppn, walker.flags & KEPT, walker.level);
    if (lost >= 0) {
      if (walker.level > 0) this.#forgetAll();
      else this.#forget(lost);
    }
    return true;
  }

  /** A translation is gone: so are the copies in the tables that stand in front of the TLB. */
  #forget(vpn: number): void {
    grip.forgetPage(this.port, vpn);
    this.#guestTag[vpn % MICRO] = -1;
    if (vpn >= DIRECT_VPN) this.#direct = 0;
  }

  #forgetAll(): void {
    grip.forgetAll(this.port);
    this.#direct = 0;
    this.#guestTag.fill(-1);
  }

  /** sfence.vma for guest `vmid` (0: the host). */
  fence(vmid: number, asid: number | null, vpn: number | null): void {
    this.counters.add(E.fences, 1);
    this.charge('fence', this.costs.fence);
    this.#walker.fence(vmid);
    if (vpn === null) {
      this.#tlb.dropSpace(vmid, asid);
      this.#forgetAll();
    } else {
      if (this.#tlb.dropPage(vpn, vmid, asid)) this.#forgetAll();
      else this.#forget(vpn);
    }
  }

  /** hfence.gvma: everything that depends on a guest's second stage. */
  fenceGuest(vmid: number): void {
    this.counters.add(E.fences, 1);
    this.charge('fence', this.costs.fence);
    this.#walker.fenceGuest();
    this.#tlb.dropSpace(vmid, null);
    this.#forgetAll();
  }

  /** All TLB entries, for tests. */
  tlbEntries(): ReturnType<Tlb['entries']> {
    return this.#tlb.entries();
  }

  /** Everything cached is dropped: after a rollback nothing may stand that was undone. */
  forgetTranslations(): void {
    this.#tlb.clear();
    this.#walker.fenceGuest();
    this.#forgetAll();
  }

  /** Test mode: a spurious, uncharged timer trap before each user access. */
  set storm(on: boolean) {
    this.#storm = on;
    grip.setStorm(this.port, on);
  }

  get storm(): boolean {
    return this.#storm;
  }

  /** Whether translations may be copied in front of the TLB: not if there is none. */
  get cacheable(): boolean {
    return this.#tlb.exists;
  }

  get observed(): boolean {
    return this.listener !== null;
  }

  trapped(cause: number, tval: number, words: readonly number[]): void {
    this.tell({ what: 'user-trap', context: this.threads?.number ?? -1, cause, tval, words });
  }

  countPage(zeroed: boolean): void {
    this.counters.add(zeroed ? E.pagesZeroed : E.pagesCopied, 1);
  }

  spawn(entry: number, args: readonly number[]): number {
    return this.threads?.spawn(entry, args) ?? -1;
  }

  currentThread(): number {
    return this.threads?.currentThread() ?? 0;
  }

  // ---- a supervisor's own accesses --------------------------------------------------------------

  /** Counted references of supervisors so far, never taken back: see Machine.references. */
  references = 0;

  /** Host address of supervisor-physical `pa`, or -1 on a second-stage fault. */
  supervisorAddress(pa: number, write: boolean): number {
    const regime = this.#regime;
    if (!(pa >= 0 && pa < 2 ** 32)) return this.#beyond(pa);
    const page = pa >>> 12;
    const lowered = regime.lowered === true;
    if (regime.vmid === 0 && !lowered) {
      if (page >= this.memory.pages) return this.#beyond(pa);
      if (regime.root >= 0) this.#directMap(page, write);
      return pa;
    }
    const key = (this.#space * 2 ** 20 + page) * 2 + (regime.root < 0 ? 1 : 0);
    const n = page % MICRO;
    if (this.#guestTag[n] === key && (!write || this.#guestWrite[n] === 1)) {
      return (this.#guestPpn[n] ?? 0) * PAGE_BYTES + (pa & (PAGE_BYTES - 1));
    }
    const vpn = regime.root < 0 ? page : DIRECT_VPN + page;
    if (!this.#translate(vpn, write, lowered)) return -1;
    if (this.#tlb.exists) this.#guestTag[n] = key;
    this.#guestPpn[n] = this.ppn;
    this.#guestWrite[n] = write ? 1 : 0;
    return this.ppn * PAGE_BYTES + (pa & (PAGE_BYTES - 1));
  }

  #directMap(page: number, write: boolean): void {
    const bit = 1 << (page / GIGAPAGE_PAGES);
    if ((this.#direct & bit) !== 0) return;
    const found = this.#translate(DIRECT_VPN + page, write, false);
    assert(found && this.ppn === page, 'hart: the supervisor has its direct map');
    if ((this.#tlb.find(DIRECT_VPN + page, this.#space) ? this.#tlb.flags & PTE_D : 0) !== 0) {
      this.#direct |= bit;
    }
  }

  #beyond(pa: number): number {
    const { vmid, lowered } = this.#regime;
    assert(vmid !== 0 || lowered === true, `hart: physical address ${pa} is inside memory`);
    this.faultCause = 23;
    this.faultGpa = pa;
    return -1;
  }

  countReference(why: Charge): void {
    this.references++;
    this.counters.add(E.supervisorReferences, 1);
    this.charge(why, this.#access);
  }
}
