/**
 * The paravirtual mode. Below stands the guest's half of it, what a supervisor ported to Xen has
 * instead of privileged instructions: it puts what it changes into a batch (hypercalls.ts) and
 * crosses once, reads tables through a window, and knows from a published map which pages are
 * tables. The hypervisor's half is page-types.ts. A supervisor here sees Machine, as ever: numbers
 * of host pages are turned into its own before it sees them.
 *
 * The batch is carried out before anything that could tell: before user memory is reached, before a
 * table is read of which an entry is among the elements, before whoever called goes on, at the
 * latest when the batch is full. A plain store or load that meets a table traps: if the table is
 * in use the hypervisor does it, as one more update; else it is a table no longer. deprivileged.ts
 * has the ways in and out.
 */
import { E } from '../../machine/counters.ts';
import type { NeighbourPort, Privilege } from '../../machine/machine.ts';
import { DIRECT_VPN, PTE_V, ptePpn } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Regime } from '../../machine/walker.ts';
import type { Context, PteUpdate, Trap } from '../supervisor.ts';
import { ALL, Batch, BATCH_MAX, Call, ELEMENT, MARKS, runBatch } from './hypercalls.ts';
import { type Ask, Events, type Neighbours, Offer, OfferFlag, OFFERS } from './neighbours.ts';
import { canonical, type PageTypes, type Touched } from './page-types.ts';
import { framesAt, PARAVIRT_PAGES_MAX, Shared, SHARED_VPN, WINDOW_VPN } from './paravirt-pages.ts';
import { Deprivileged } from './deprivileged.ts';
import { type Guest, type Refusal, refuse } from './life.ts';
import type { AddressSpace, Answered, GuestPort, Paging } from './paging.ts';
import { type Exit, type HypervisorConfig, type State, Vm } from './state.ts';

/** What does not go together with host pages that stand in a guest's tables; null: nothing. */
export function admitParavirt(config: HypervisorConfig, guest: Guest): Refusal | null {
  if (guest.translation !== 'paravirt') return null;
  const names = 'the tables of a paravirtual machine name host pages';
  if (config.swap !== undefined) return refuse(`${names}: it takes a hypervisor without swap area`);
  if (config.sharing !== undefined) return refuse(`${names}: it takes one without sharing`);
  if (guest.pages <= PARAVIRT_PAGES_MAX) return null;
  return refuse(`a paravirtual machine of ${guest.pages} pages: give it ${PARAVIRT_PAGES_MAX}`);
}

export class ParavirtPaging extends Deprivileged implements Paging {
  readonly #types: PageTypes;
  readonly #neighbours: Neighbours;
  readonly neighbours: NeighbourPort;
  readonly clock = (word: number): number => this.#read(Shared.time, word);
  readonly #pages: number; // of the guest, its device page included
  constructor(guest: GuestPort, state: State, types: PageTypes, neighbours: Neighbours) {
    super(guest, state);
    this.#types = types;
    this.#neighbours = neighbours;
    neighbours.enter(guest.vm);
    this.neighbours = this.#neighbourPort();
    this.#pages = state.vm.get(guest.vm, Vm.pages);
  }

  get types(): PageTypes {
    return this.#types;
  }

  /** One root serves all: what runs under it differs by sstatus.UXL. */
  programRegime(): Regime {
    return this.regime();
  }

  // ---- crossing ---------------------------------------------------------------------------------

  /** Into the hypervisor, which does the batch first. What it does is undone with the handler. */
  #cross<T>(exit: Exit | ((result: T) => Exit), act: () => T): T {
    const port = this.guest;
    const types = this.#types;
    const booked = (result: { readonly of: T } | null): Exit => {
      if (result === null) return 'hypercall';
      return typeof exit === 'string' ? exit : exit(result.of);
    };
    const result = port.exit<{ readonly of: T } | null>(booked, () =>
      port.noting(() => {
        const good = runBatch(port.host, types, types.shared(Shared.calls));
        return good ? { of: act() } : null;
      }),
    );
    return result === null ? this.guest.stop(0) : result.of;
  }

  /** What was put off is done now, if there is any. */
  #flush(): void {
    if (this.#pending() > 0) this.#cross('hypercall', () => undefined);
  }

  protected walked(): AddressSpace {
    return this.#types.root();
  }

  trapped(trap: Trap): Answered {
    this.give();
    this.guest.inject(trap);
    return 'given';
  }

  /** Back to a program: the last call of the handler, which what it put off shares. */
  left(to: Context | null, privilege: Privilege): void {
    if (to === null) {
      this.#flush();
      return;
    }
    this.#cross('sret', () => {
      this.resume(privilege);
    });
  }

  settle(): void {
    this.#flush();
  }

  // ---- events: a bit in a page, and an upcall that finds it there -------------------------------

  pend(events: number): void {
    const { host } = this.guest;
    const at = this.#types.shared(Shared.events) * PAGE_BYTES + Events.pending * 4;
    host.store(at, host.load(at) | events);
  }

  taken(event: number): boolean {
    const { hart, level } = this.guest;
    hart.install(this.regime());
    hart.enterLayer(Math.min(level, 2));
    const pending = this.#read(Shared.events, Events.pending);
    if ((pending & (1 << event)) === 0) return false;
    this.#write(Shared.events, Events.pending, pending & ~(1 << event));
    return true;
  }

  // ---- neighbours -------------------------------------------------------------------------------

  #ask(what: Ask, ...args: readonly (number | boolean)[]): boolean {
    const registers = args.map((arg) => Number(arg) | 0);
    return this.#cross(PORT_CALLS.includes(what) ? 'event' : 'grant', () =>
      this.#neighbours.ask(this.guest.vm, what, registers),
    );
  }

  /** The words of an offer; the flags last, when the rest stands. */
  #offer(entry: number, flags: number, to: number, page: number): void {
    if (!isOffer(entry)) return;
    this.#write(Shared.grants, entry * Offer.words + Offer.to, to | 0);
    this.#write(Shared.grants, entry * Offer.words + Offer.page, page | 0);
    this.#write(Shared.grants, entry * Offer.words + Offer.flags, flags);
  }

  #neighbourPort(): NeighbourPort {
    const { vm } = this.guest;
    const number = this.state.vm.get(vm, Vm.number);
    return {
      self: () => number,
      offer: (entry, to, page, write) => {
        this.#offer(entry, write ? OfferFlag.map | OfferFlag.write : OfferFlag.map, to, page);
      },
      expect: (entry, from, page) => {
        this.#offer(entry, OfferFlag.expect, from, page);
      },
      withdraw: (entry) => {
        if (!isOffer(entry)) return false;
        const flags = this.#read(Shared.grants, entry * Offer.words + Offer.flags);
        if ((flags & (OfferFlag.read | OfferFlag.written)) !== 0) return false;
        this.#write(Shared.grants, entry * Offer.words + Offer.flags, 0);
        return true;
      },
      map: (from, entry, page, write) => this.#ask('map', from, entry, page, write),
      unmap: (page) => this.#ask('unmap', page),
      copy: (from, entry, page, write) => this.#ask('copy', from, entry, page, write),
      transfer: (to, entry, page) => this.#ask('transfer', to, entry, page),
      listen: (port, from) => this.#ask('listen', port, from),
      connect: (port, to, remote) => this.#ask('connect', port, to, remote),
      close: (port) => this.#ask('close', port),
      send: (port) => this.#ask('send', port),
      take: () => {
        const ports = this.#read(Shared.events, Events.ports);
        const masked = this.#read(Shared.events, Events.masked);
        if ((ports & ~masked) !== 0) this.#write(Shared.events, Events.ports, ports & masked);
        return (ports & ~masked) >>> 0;
      },
      mask: (ports) => {
        this.#write(Shared.events, Events.masked, ports | 0);
      },
    };
  }

  // ---- the batch --------------------------------------------------------------------------------

  /** Host address of a word of the pages that guest and hypervisor share: counted. */
  #shared(page: number, word: number, write: boolean): number {
    this.guest.aside(write ? 'store' : 'load');
    return this.#reachVpn(SHARED_VPN + page + (word >>> 10), write) + (word & 1023) * 4;
  }

  /** Host address of a page of the hypervisor's part of the upper half. */
  #reachVpn(vpn: number, write: boolean): number {
    const { hart, host } = this.guest;
    while (!hart.translateUser(vpn, write)) {
      if (!host.resolveFault(vpn, write)) this.guest.stop(0);
    }
    return hart.ppn * PAGE_BYTES;
  }

  #read(page: number, word: number): number {
    return this.guest.hart.memory.get(this.#shared(page, word, false));
  }

  #write(page: number, word: number, value: number): void {
    this.guest.hart.memory.put(this.#shared(page, word, true), value);
  }

  #pending(): number {
    return this.#read(Shared.calls, Batch.count);
  }

  #call(call: number, first: number, second: number): void {
    let n = this.#pending();
    if (n === 0) for (let k = 0; k < MARKS; k++) this.#write(Shared.calls, Batch.marks + k, 0);
    if (n === BATCH_MAX) {
      this.#flush();
      n = 0;
    }
    const at = Batch.elements + n * ELEMENT;
    this.#write(Shared.calls, at, call);
    this.#write(Shared.calls, at + 1, first);
    this.#write(Shared.calls, at + 2, second);
    this.#write(Shared.calls, Batch.count, n + 1);
  }

  // ---- memory, as the guest's supervisor reaches it ---------------------------------------------

  load(gpa: number): number {
    const at = this.#reach(gpa, false, () => this.#types.load(gpa));
    return at.done ? at.value : this.guest.hart.memory.get(at.value);
  }

  store(gpa: number, value: number): void {
    const at = this.#reach(gpa, true, () => this.#types.store(gpa, value));
    if (!at.done) this.guest.hart.memory.put(at.value, value);
  }

  page(page: number, write: boolean, instead: (host: number) => void): number {
    const types = this.#types;
    const at = this.#reach(page * PAGE_BYTES, write, () => {
      if (!write) return types.copy(page);
      if (types.release(page)) return 'plain';
      return types.replace(page, instead) ? 'done' : 'refused';
    });
    if (!at.done) return at.value / PAGE_BYTES;
    return write ? -1 : at.value;
  }

  /** Of a table: a copy of what the guest wrote there. */
  behind(page: number): number {
    return this.#types.isTable(page) ? this.#types.copy(page) : this.#types.behind(page);
  }

  /**
   * Host address of a guest-physical one; or it is a table, and done with.
   * @param emulate does it, or says what is wrong
   */
  #reach(
    gpa: number,
    write: boolean,
    emulate: () => number | 'done' | 'plain' | 'refused',
  ): { readonly done: boolean; readonly value: number } {
    const { hart, host } = this.guest;
    if (!(gpa >= 0 && gpa < 2 ** 32)) this.guest.stop(gpa);
    for (;;) {
      const at = hart.supervisorAddress(gpa, write);
      if (at >= 0) return { done: false, value: at };
      if (host.resolveFault(DIRECT_VPN + (gpa >>> 12), write)) continue;
      const did = this.#cross<ReturnType<typeof emulate> | Touched>(
        (result) => (result === 'filled' ? 'memory' : 'store'),
        () => {
          const touched = this.#types.touch(gpa >>> 12);
          return touched === 'table' ? emulate() : touched;
        },
      );
      if (did === 'done') return { done: true, value: 0 };
      if (did === 'beyond' || did === 'refused' || did === 'table') this.guest.stop(gpa);
      if (typeof did === 'number') return { done: true, value: did };
    }
  }

  // ---- tables -----------------------------------------------------------------------------------

  /** Whether a guest page is a table, as the hypervisor has published it. */
  #isTable(page: number): boolean {
    if (page >= this.#pages) return false; // an access says so
    return ((this.#read(Shared.types, page >>> 5) >>> (page & 31)) & 1) === 1;
  }

  /** Through the window, where tables can be read; host numbers are looked up. */
  readPtes(table: number, first: number, count: number): Uint32Array {
    const { hart } = this.guest;
    const entries = new Uint32Array(count);
    let [known, typed] = [-1, false];
    for (let n = 0; n < count; n++) {
      const gpa = this.#entry(table, first + n);
      const page = gpa >>> 12;
      if (page !== known) [known, typed] = [page, this.#isTable(page)];
      if (!typed) {
        hart.countReference('pte-read');
        entries[n] = this.load(gpa);
        continue;
      }
      if (this.#isMarked(gpa)) this.#flush();
      hart.countReference('pte-read');
      const at = this.#reachVpn(WINDOW_VPN + page, false) + (gpa % PAGE_BYTES);
      const entry = hart.memory.get(at) >>> 0;
      if ((entry & PTE_V) === 0) entries[n] = entry;
      else entries[n] = canonical(entry, this.#read(framesAt(this.#pages), ptePpn(entry)));
    }
    return entries;
  }

  /** Entries of tables are put into the batch; what is no table yet is memory. */
  writePtes(updates: readonly PteUpdate[]): void {
    const { hart } = this.guest;
    let [known, typed] = [-1, false];
    for (const { table, index, value } of updates) {
      hart.counters.add(E.pteWrites, 1);
      const gpa = this.#entry(table, index);
      const page = gpa >>> 12;
      if (page !== known) [known, typed] = [page, this.#isTable(page)];
      if (typed) {
        this.#call(Call.update, gpa | 0, value | 0);
        this.#mark(gpa);
        continue;
      }
      hart.countReference('pte-write');
      this.store(gpa, value | 0);
      const at = hart.supervisorAddress(gpa + 4, true);
      if (at >= 0 && hart.memory.get(at) !== 0) hart.memory.put(at, 0);
    }
  }

  #entry(table: number, index: number): number {
    const gpa = table * PAGE_BYTES + index * 8;
    if (gpa % 8 !== 0 || !(gpa >= 0 && gpa < 2 ** 32)) this.guest.stop(gpa);
    return gpa;
  }

  /** Marks say which entries are among the elements; now and then of one that is not. */
  #mark(gpa: number): void {
    const { word, bit } = markOf(gpa);
    this.#write(Shared.calls, word, this.#read(Shared.calls, word) | bit);
  }

  #isMarked(gpa: number): boolean {
    if (this.#pending() === 0) return false;
    const { word, bit } = markOf(gpa);
    return (this.#read(Shared.calls, word) & bit) !== 0;
  }

  /** No fault is hidden here: what its tables allow is there. */
  locate(vpn: number, write: boolean): number | null {
    const { hart, host } = this.guest;
    this.#flush();
    for (;;) {
      if (hart.translateUser(vpn, write)) return hart.ppn;
      if (host.resolveFault(vpn, write)) continue;
      this.#cross('fault', () => undefined);
      return null;
    }
  }

  // ---- control registers ------------------------------------------------------------------------

  setAddressSpace(root: number, asid: number): void {
    this.asked = { root, asid };
    this.#call(Call.space, root, asid);
  }

  fence(asid: number | null, vpn: number | null): void {
    this.#call(Call.fence, asid === null ? ALL : asid & 0xffff, vpn === null ? ALL : vpn | 0);
  }

  timerWritten(): void {
    this.#call(Call.timer, 0, 0);
  }

  // ---- for the hypervisor -----------------------------------------------------------------------

  why(): string {
    return this.#types.why();
  }

  yields(page: number): boolean {
    return this.#types.yields(page);
  }

  changed(page: number): void {
    this.#types.changed(page);
  }

  ended(): void {
    this.#neighbours.left(this.guest.vm);
    this.#types.end();
  }

  /** What its handler changed is undone, types and tables with it. */
  override restore(space: AddressSpace, program: Privilege | null): void {
    super.restore(space, program);
    this.guest.hart.forgetTranslations();
  }

  protected remake(): void {
    // As above: its tables are what hardware walks.
  }

  // The log of writes: tables of the guest's own have no room for one. All counts as written.
  arm(): void {
    // As above.
  }

  disarm(): void {
    // As above.
  }

  collect(): number[] {
    return new Array<number>(Math.ceil(this.#pages / 32)).fill(-1);
  }

  wrote(): void {
    // As above.
  }
}

function markOf(gpa: number): { readonly word: number; readonly bit: number } {
  const at = ((gpa >>> 3) + (gpa >>> 12) * 31) % (MARKS * 32);
  return { word: Batch.marks + (at >>> 5), bit: 1 << (at & 31) };
}

const PORT_CALLS: readonly Ask[] = ['listen', 'connect', 'close', 'send'];
const isOffer = (entry: number): boolean => Number.isInteger(entry) && entry >= 0 && entry < OFFERS;
