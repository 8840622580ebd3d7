/**
 * What paravirtual guests share: grants of pages and ports to signal by, as Xen's grant tables and
 * event channels.
 *
 * A guest offers pages in a table in memory of its own, so each entry is a claim: fetched once, and
 * checked when it is used, against who asks. What is mapped is written down here, not there, and
 * pinned: it can be neither a table nor given away until it is unmapped; if its owner ends first,
 * its page outlives it. So an offer that is in use cannot be taken back, and a map cannot dangle.
 *
 * Ports are words of the hypervisor's: who sends, and to whom, no guest can forge. What is pending
 * is a bit in a page that the guest shares, so that many signals are one upcall.
 */
import { PAGE_BYTES } from '../../machine/units.ts';
import { Table } from '../supervisor.ts';
import { unpin } from './free-pages.ts';
import type { PageTypes } from './page-types.ts';
import { Shared } from './paravirt-pages.ts';
import { handOver } from './pages.ts';
import { interrupt } from './slices.ts';
import { Page, type State, Vm } from './state.ts';

/** Words of an offer. */
export const Offer = { flags: 0, to: 1, page: 2, words: 4 } as const;
export const OFFERS = PAGE_BYTES / 4 / Offer.words;
/** The last two are the hypervisor's to set: what withdraws an offer looks at them. */
export const OfferFlag = { map: 1, write: 2, expect: 4, done: 8, read: 16, written: 32 } as const;
const IN_USE = OfferFlag.read | OfferFlag.written;

/** Words of the page of events. */
export const Events = {
  pending: 0, // events of the guest's devices, bits as of Vm.pending
  ports: 1, // that were signalled
  masked: 2, // ports of which no upcall tells
} as const;
export const PORTS = 32;

/** Words of a neighbour's page that a guest has mapped. */
const Mapped = { page: 0, host: 1, from: 2, entry: 3, write: 4, words: 5 } as const; // page + 1
const MAPS = 128;
/** Words of a port. */
const Port = { peer: 0, remote: 1, words: 2 } as const; // number; port + 1, or 0: it awaits it

/** What a guest asks for in a crossing, in registers: small integers, any at all. */
export type Ask = 'map' | 'unmap' | 'copy' | 'transfer' | 'listen' | 'connect' | 'close' | 'send';

export class Neighbours {
  readonly #state: State;
  readonly #typesOf: (vm: number) => PageTypes | null;

  constructor(state: State, typesOf: (vm: number) => PageTypes | null) {
    this.#state = state;
    this.#typesOf = typesOf;
  }

  /** Gives a machine a number that no other ever had: it says its row, and which life of it. */
  enter(vm: number): void {
    const { vm: row } = this.#state;
    const lives = row.add(vm, Vm.lives, 1) - 1;
    row.put(vm, Vm.number, (lives * row.rows + vm + 1) | 0);
  }

  /** Does what a guest asks for. False: it may not, and nothing has changed. */
  ask(vm: number, what: Ask, args: readonly number[]): boolean {
    const [first = 0, second = 0, third = 0, fourth = 0] = args;
    switch (what) {
      case 'map':
        return this.#map(vm, first, second, third, fourth !== 0);
      case 'unmap':
        return this.#unmap(vm, first);
      case 'copy':
        return this.#copy(vm, first, second, third, fourth !== 0);
      case 'transfer':
        return this.#transfer(vm, first, second, third);
      case 'listen':
        return this.#listen(vm, first, second);
      case 'connect':
        return this.#connect(vm, first, second, third);
      case 'close':
        return this.#close(vm, first);
      case 'send':
        return this.#send(vm, first);
    }
  }

  /** It is gone: what it had mapped is its neighbours' again, and its ports lead nowhere. */
  left(vm: number): void {
    const maps = this.#maps(vm);
    if (maps === null) return;
    for (let n = 0; n < MAPS; n++) if (maps.get(n, Mapped.page) !== 0) this.#release(vm, maps, n);
    for (let port = 0; port < PORTS; port++) this.#close(vm, port);
    this.#state.vm.put(vm, Vm.number, 0);
  }

  // ---- who is who -------------------------------------------------------------------------------

  /** Row of a machine by its number, which it has as long as it lives; -1: none, or `self`. */
  #row(number: number, self: number): number {
    if (number <= 0) return -1;
    const vm = (number - 1) % this.#state.vm.rows;
    return vm === self || this.#number(vm) !== number ? -1 : vm;
  }

  #number(vm: number): number {
    return this.#state.vm.get(vm, Vm.number);
  }

  #maps(vm: number): Table | null {
    const types = this.#typesOf(vm);
    return types && new Table(this.#state.machine, types.links, MAPS, Mapped.words);
  }

  #ports(vm: number): Table | null {
    const types = this.#typesOf(vm);
    return types && new Table(this.#state.machine, types.links + 1, PORTS, Port.words);
  }

  // ---- pages ------------------------------------------------------------------------------------

  #offerAt(types: PageTypes, entry: number): number {
    return types.shared(Shared.grants) * PAGE_BYTES + entry * Offer.words * 4;
  }

  /** What `from` offers `vm` under `entry`, fetched once: page and flags; null: not that. */
  #offer(
    vm: number,
    from: number,
    entry: number,
    needs: number,
  ): { readonly types: PageTypes; readonly page: number } | null {
    const types = from < 0 ? null : this.#typesOf(from);
    if (types === null || entry < 0 || entry >= OFFERS) return null;
    const { machine } = this.#state;
    const at = this.#offerAt(types, entry);
    const flags = machine.load(at + Offer.flags * 4);
    const to = machine.load(at + Offer.to * 4);
    const page = machine.load(at + Offer.page * 4);
    if ((flags & needs) !== needs || to !== this.#number(vm) || page < 0) return null;
    return { types, page };
  }

  #map(vm: number, from: number, entry: number, page: number, write: boolean): boolean {
    const needs = write ? OfferFlag.map | OfferFlag.write : OfferFlag.map;
    const offer = this.#offer(vm, this.#row(from, vm), entry, needs);
    const [types, maps] = [this.#typesOf(vm), this.#maps(vm)];
    if (offer === null || types === null || maps === null) return false;
    if (page < 0 || !types.isVacant(page)) return false;
    const n = this.#find(maps, 0);
    if (n < 0) return false;
    // Not a table: it would show host numbers, and could be written.
    const host = offer.types.plain(offer.page);
    if (host < 0 || types.names(host)) return false;

    const { machine } = this.#state;
    this.#state.page.add(host, Page.pins, 1);
    types.adopt(page, host, write);
    [page + 1, host, from, entry, write ? 1 : 0].forEach((word, k) => {
      maps.put(n, k, word);
    });
    const at = this.#offerAt(offer.types, entry) + Offer.flags * 4;
    machine.store(at, machine.load(at) | OfferFlag.read | (write ? OfferFlag.written : 0));
    return true;
  }

  #find(maps: Table, page: number): number {
    for (let n = 0; n < MAPS; n++) if (maps.get(n, Mapped.page) === page) return n;
    return -1;
  }

  #unmap(vm: number, page: number): boolean {
    const [types, maps] = [this.#typesOf(vm), this.#maps(vm)];
    if (types === null || maps === null || page < 0) return false;
    const n = this.#find(maps, page + 1);
    if (n < 0 || !types.disown(page)) return false;
    this.#release(vm, maps, n);
    return true;
  }

  /** What row `n` has mapped can be reached no more: its owner may have it back. */
  #release(vm: number, maps: Table, n: number): void {
    const word = (column: number): number => maps.get(n, column);
    const [host, from, entry] = [word(Mapped.host), word(Mapped.from), word(Mapped.entry)];
    maps.put(n, Mapped.page, 0);
    unpin(this.#state, host);
    const granter = this.#row(from, vm);
    const types = granter < 0 ? null : this.#typesOf(granter);
    if (types === null) return;
    let flags = 0; // of other maps by the same entry
    for (let k = 0; k < MAPS; k++) {
      if (maps.get(k, Mapped.page) === 0 || maps.get(k, Mapped.entry) !== entry) continue;
      if (maps.get(k, Mapped.from) !== from) continue;
      flags |= OfferFlag.read | (maps.get(k, Mapped.write) !== 0 ? OfferFlag.written : 0);
    }
    const at = this.#offerAt(types, entry) + Offer.flags * 4;
    const { machine } = this.#state;
    machine.store(at, (machine.load(at) & ~IN_USE) | flags);
  }

  #copy(vm: number, from: number, entry: number, page: number, write: boolean): boolean {
    const needs = write ? OfferFlag.map | OfferFlag.write : OfferFlag.map;
    const offer = this.#offer(vm, this.#row(from, vm), entry, needs);
    if (offer === null || page < 0) return false;
    const theirs = offer.types.plain(offer.page);
    const host = theirs < 0 ? -1 : (this.#typesOf(vm)?.plain(page) ?? -1);
    if (host < 0) return false;
    if (write) this.#state.machine.copyPage(theirs, host);
    else this.#state.machine.copyPage(host, theirs);
    return true;
  }

  #transfer(vm: number, to: number, entry: number, page: number): boolean {
    const receiver = this.#row(to, vm);
    const offer = this.#offer(vm, receiver, entry, OfferFlag.expect);
    const types = this.#typesOf(vm);
    if (offer === null || types === null || page < 0 || !offer.types.isVacant(offer.page)) {
      return false;
    }
    if (types.plain(page) < 0 || !types.yields(page)) return false;
    if (!handOver(this.#state, vm, page, receiver, offer.page)) return false;
    const at = this.#offerAt(offer.types, entry) + Offer.flags * 4;
    this.#state.machine.store(at, OfferFlag.done);
    return true;
  }

  // ---- ports ------------------------------------------------------------------------------------

  #listen(vm: number, port: number, from: number): boolean {
    const ports = this.#ports(vm);
    if (ports === null || !isPort(port) || this.#row(from, vm) < 0) return false;
    if (ports.get(port, Port.peer) !== 0) return false;
    ports.put(port, Port.peer, from);
    ports.put(port, Port.remote, 0);
    return true;
  }

  #connect(vm: number, port: number, to: number, remote: number): boolean {
    const peer = this.#row(to, vm);
    const [ports, theirs] = [this.#ports(vm), peer < 0 ? null : this.#ports(peer)];
    if (ports === null || theirs === null || !isPort(port) || !isPort(remote)) return false;
    if (ports.get(port, Port.peer) !== 0) return false;
    if (theirs.get(remote, Port.peer) !== this.#number(vm)) return false;
    if (theirs.get(remote, Port.remote) !== 0) return false;
    theirs.put(remote, Port.remote, port + 1);
    ports.put(port, Port.peer, to);
    ports.put(port, Port.remote, remote + 1);
    // Either may have meant to signal before: so both are.
    this.#signal(vm, port);
    this.#signal(peer, remote);
    return true;
  }

  #close(vm: number, port: number): boolean {
    const ports = this.#ports(vm);
    if (ports === null || !isPort(port) || ports.get(port, Port.peer) === 0) return false;
    const [peer, remote] = this.#other(vm, ports, port);
    if (peer >= 0) this.#ports(peer)?.put(remote, Port.peer, 0);
    ports.put(port, Port.peer, 0);
    return true;
  }

  #send(vm: number, port: number): boolean {
    const ports = this.#ports(vm);
    if (ports === null || !isPort(port) || ports.get(port, Port.peer) === 0) return false;
    const [peer, remote] = this.#other(vm, ports, port);
    if (peer < 0) return false;
    this.#signal(peer, remote);
    return true;
  }

  /** Row and port at the other end; row -1: there is none. Both ends come and go together. */
  #other(vm: number, ports: Table, port: number): readonly [vm: number, port: number] {
    const remote = ports.get(port, Port.remote) - 1;
    const peer = remote < 0 ? -1 : this.#row(ports.get(port, Port.peer), vm);
    return [peer, remote];
  }

  #signal(vm: number, port: number): void {
    const types = this.#typesOf(vm);
    if (types === null) return;
    const { machine } = this.#state;
    const at = types.shared(Shared.events) * PAGE_BYTES;
    const pending = machine.load(at + Events.ports * 4);
    if ((pending & (1 << port)) !== 0) return;
    machine.store(at + Events.ports * 4, pending | (1 << port));
    if ((machine.load(at + Events.masked * 4) & (1 << port)) === 0) interrupt(this.#state, vm);
  }
}

const isPort = (port: number): boolean => port >= 0 && port < PORTS;
