/**
 * A machine as a kernel under test sees it. The clock stands while the kernel works, so that the
 * specification can say to the cycle what is to happen; only seeing to a request that is over takes
 * a fixed time. And all that the kernel does at its door is written down: registers told, upcalls,
 * programs begun and ended, bytes printed, requests queued.
 */
import { DISK_FLUSH, DISK_FORCE, DISK_WRITE } from '../../kernel/abi.ts';
import type { DiskCompletion, DiskPort } from '../../machine/disk.ts';
import type { Hart } from '../../machine/hart.ts';
import { ALONE, type ContextPort, type Machine, type PteUpdate } from '../../machine/machine.ts';
import type { PhysicalMachine } from '../../machine/physical.ts';
import type { Regime } from '../../machine/walker.ts';
import type { Event } from '../specification/model.ts';

/** Cycles that seeing to a request takes. */
export const TOOK = 40;

export class Watched implements Machine {
  readonly level = 0;
  readonly guestMode = null; // for who runs no guests
  readonly contexts: ContextPort;
  readonly disk: DiskPort;
  readonly neighbours = ALONE;
  /** What the kernel did, and which requests it was told to be over, since `stop`. */
  events: Event[] = [];
  over: { row: number; worked: boolean }[] = [];
  /** What it took from a channel of the console. */
  read = { channel: -1, bytes: [] as readonly number[] };
  readonly #machine: PhysicalMachine;
  #at: number | null = null;

  constructor(machine: PhysicalMachine) {
    this.#machine = machine;
    this.contexts = this.#contextPort(machine.contexts);
    this.disk = this.#diskPort(machine.disk);
  }

  /** The clock stands from now on; returns the time. */
  stop(): number {
    this.events = [];
    this.over = [];
    this.read = { channel: -1, bytes: [] };
    return (this.#at = this.#machine.now());
  }
  go(): void {
    this.#at = null;
  }
  now(): number {
    return this.#at === null ? this.#machine.now() : this.#at + this.over.length * TOOK;
  }

  #contextPort(port: ContextPort): ContextPort {
    return {
      create: (number, image, privilege) => {
        port.create(number, image, privilege);
      },
      start: (number, entry, args) => {
        this.events.push(['start', number, port.imageOf(number), entry, ...args]);
        port.start(number, entry, args);
      },
      destroy: (number) => {
        this.events.push(['end', number]);
        port.destroy(number);
      },
      exists: (number) => port.exists(number),
      hasEntry: (image, entry) => port.hasEntry(image, entry),
      imageOf: (number) => port.imageOf(number),
      context: (number) => port.context(number),
      argument: (number, index) => port.argument(number, index),
      setResult: (number, status, ...values) => {
        this.events.push(['result', number, status, ...values]);
        port.setResult(number, status, ...values);
      },
      hasRoom: (number) => port.hasRoom(number),
      upcall: (number, entry, args) => {
        this.events.push(['upcall', number, entry, ...args]);
        port.upcall(number, entry, args);
      },
      save: (number, pa, count) => {
        port.save(number, pa, count);
      },
      restore: (number, pa, count) => {
        port.restore(number, pa, count);
      },
      failure: (number) => port.failure(number),
    };
  }
  #diskPort(port: DiskPort): DiskPort {
    return {
      blocks: port.blocks,
      room: () => port.room(),
      submit: (request) => {
        const { tag, write, force, flush, block, pages } = request;
        const flags =
          (write ? DISK_WRITE : 0) |
          (force === true ? DISK_FORCE : 0) |
          (flush === true ? DISK_FLUSH : 0);
        this.events.push(['disk', tag, flags, block, ...pages]);
        port.submit(request);
      },
      complete: (): DiskCompletion | null => {
        const done = port.complete();
        if (done !== null) this.over.push({ row: done.tag, worked: done.ok });
        return done;
      },
    };
  }
  console(channel: number, bytes: Uint8Array): void {
    // What is said of the dead is the kernel's own wording.
    this.events.push(channel === 0 ? ['obituary', 0] : ['print', channel, ...bytes]);
    this.#machine.console(channel, bytes);
  }

  consoleRead(channel: number): Uint8Array {
    const bytes = this.#machine.consoleRead(channel);
    this.read = { channel, bytes: [...bytes] };
    return bytes;
  }

  // ---- the rest is the machine's ----------------------------------------------------------------

  get pages(): number {
    return this.#machine.pages;
  }
  get profile(): Machine['profile'] {
    return this.#machine.profile;
  }
  get balloon(): Machine['balloon'] {
    return this.#machine.balloon;
  }
  get hart(): Hart {
    return this.#machine.hart;
  }
  load(pa: number): number {
    return this.#machine.load(pa);
  }
  store(pa: number, value: number): void {
    this.#machine.store(pa, value);
  }
  zeroPage(page: number): void {
    this.#machine.zeroPage(page);
  }
  copyPage(to: number, from: number): void {
    this.#machine.copyPage(to, from);
  }
  readPtes(table: number, first: number, count: number): Uint32Array {
    return this.#machine.readPtes(table, first, count);
  }
  writePtes(updates: readonly PteUpdate[]): void {
    this.#machine.writePtes(updates);
  }
  loadUser(va: number): number | null {
    return this.#machine.loadUser(va);
  }
  storeUser(va: number, value: number): boolean {
    return this.#machine.storeUser(va, value);
  }
  readUser(va: number, bytes: number): Uint8Array | null {
    return this.#machine.readUser(va, bytes);
  }
  setAddressSpace(space: { readonly root: number; readonly asid: number } | null): void {
    this.#machine.setAddressSpace(space);
  }
  fence(asid?: number, vpn?: number): void {
    this.#machine.fence(asid, vpn);
  }
  setTimer(at: number): void {
    this.#machine.setTimer(at);
  }
  attribute(owner: number): void {
    this.#machine.attribute(owner);
  }
  stolen(): number {
    return this.#machine.stolen();
  }
  references(): number {
    return this.#machine.references();
  }
  work(instructions: number): void {
    this.#machine.work(instructions);
  }
  moveRegisters(count: number): void {
    this.#machine.moveRegisters(count);
  }
  regime(): Regime {
    return this.#machine.regime();
  }
  peek(pa: number): number {
    return this.#machine.peek(pa);
  }
  trapLevel(): number {
    return this.#machine.trapLevel();
  }
  resolveFault(): boolean {
    return this.#machine.resolveFault();
  }
  entropy(): number {
    return this.#machine.entropy();
  }
}
