/**
 * The supervisor that tests script: a small kernel whose behaviour is given by callbacks. Like any
 * supervisor it keeps all that outlives a trap in machine memory (cells, a log of traps, notes), so
 * that its handlers may be rolled back and told again, and it runs on every machine.
 *
 * Memory: page 0 cells, pages 1 to 4 the log, page 5 notes, page 6 the kernel's root table; then
 * pages that it takes one after another.
 */
import { assert } from '../../machine/assert.ts';
import type { Image, Op, UserPort } from '../../machine/user-port.ts';
import { NEVER, PAGE_BYTES, type Tick } from '../../machine/units.ts';
import { pte, PTE_A, PTE_D, PTE_R, PTE_U, PTE_V, PTE_W } from '../../machine/sv39.ts';
import {
  Cause,
  type Context,
  type Machine,
  type Supervisor,
  type Trap,
  writeDirectMap,
} from '../../kernel/supervisor.ts';

export const RW = PTE_V | PTE_R | PTE_W | PTE_U | PTE_A | PTE_D;
export const RO = PTE_V | PTE_R | PTE_U | PTE_A | PTE_D;

/** Words of page 0. From `own` on they are the test's. */
export const Cell = {
  nextPage: 0,
  logged: 1,
  current: 2, // context that runs, -1 for none
  installed: 3, // context whose address space is set, + 1
  dispatches: 4,
  told: 5, // traps
  spurious: 6, // timer traps before their time
  timer: 8, // two words
  noted: 10,
  own: 32,
} as const;
const LOG_PAGE = 1;
const LOG_RECORDS = 1024; // of four words
const NOTE_PAGE = 5;
const ROOT_PAGE = 6;
const FIRST_FREE = 7;

/** An address space of one context: its tables, for 2 MiB of virtual addresses from 0. */
export interface Space {
  readonly asid: number;
  readonly root: number;
  readonly middle: number;
  readonly leaf: number;
}

export interface Logged {
  readonly cause: number;
  readonly tval: number;
  readonly level: number;
  readonly at: Tick;
}

export interface Acts {
  /** Makes contexts and starts them. Without it context 1 runs entry 0 of image 0. */
  readonly boot?: (s: Script) => void;
  /** True: the trap is dealt with. Spurious timer traps are not told. */
  readonly trap?: (s: Script, trap: Trap, current: number) => boolean;
  /** Context to run, -1 to wait. Without it, the current one. */
  readonly dispatch?: (s: Script) => number;
}

export class Script implements Supervisor {
  readonly acts: Acts;
  readonly #spaces = new Map<number, Space>(); // by context; made at boot, never changed after
  #machine: Machine | null = null;

  constructor(acts: Acts) {
    this.acts = acts;
  }

  get machine(): Machine {
    assert(this.#machine !== null, 'script: booted');
    return this.#machine;
  }

  boot(machine: Machine): void {
    this.#machine = machine;
    this.put(Cell.nextPage, FIRST_FREE);
    this.put(Cell.current, -1);
    writeDirectMap(machine, ROOT_PAGE);
    machine.setAddressSpace({ root: ROOT_PAGE, asid: 0 });
    machine.fence();
    this.setTimer(NEVER);
    if (this.acts.boot !== undefined) this.acts.boot(this);
    else {
      this.space(1);
      this.start(1);
    }
  }

  dispatch(): Context | null {
    this.put(Cell.dispatches, this.get(Cell.dispatches) + 1);
    const next = this.acts.dispatch?.(this) ?? this.get(Cell.current);
    if (next < 0) return null;
    if (this.get(Cell.installed) !== next + 1) {
      const space = this.spaceOf(next);
      this.machine.setAddressSpace({ root: space.root, asid: space.asid });
      this.put(Cell.installed, next + 1);
    }
    return this.machine.contexts.context(next);
  }

  trap(trap: Trap): void {
    // When it was taken, not when it was told: entering the supervisor takes its time.
    const taken = this.machine.now() - this.machine.profile.trapEntry.value;
    this.put(Cell.told, this.get(Cell.told) + 1);
    const current = this.get(Cell.current);
    if (trap.cause === Cause.timerInterrupt) {
      if (taken < this.#timer()) {
        this.put(Cell.spurious, this.get(Cell.spurious) + 1);
        return;
      }
      this.setTimer(NEVER);
    }
    this.#log(trap);
    if (this.acts.trap?.(this, trap, current) === true) return;
    switch (trap.cause) {
      case Cause.timerInterrupt:
      case Cause.externalInterrupt:
        return;
      case Cause.environmentCall:
        this.machine.contexts.setResult(current, 0, 0);
        return;
      default:
        this.end(current); // a thread that ended, or a fault that the test did not expect
    }
  }

  // ---- for the callbacks ------------------------------------------------------------------------

  get(cell: number): number {
    return this.machine.load(cell * 4);
  }

  put(cell: number, value: number): void {
    this.machine.store(cell * 4, value);
  }

  /** A number for the test to read when all is over. */
  note(...values: readonly number[]): void {
    let n = this.get(Cell.noted);
    for (const value of values) this.machine.store(NOTE_PAGE * PAGE_BYTES + n++ * 4, value);
    this.put(Cell.noted, n);
  }

  page(): number {
    const page = this.get(Cell.nextPage);
    this.put(Cell.nextPage, page + 1);
    this.machine.zeroPage(page);
    return page;
  }

  /** An address space for context `context`, whose ASID is the same number. At boot only. */
  space(context: number, direct = true): Space {
    const [root, middle, leaf] = [this.page(), this.page(), this.page()];
    if (direct) writeDirectMap(this.machine, root);
    this.machine.writePtes([
      { table: root, index: 0, value: pte(middle, PTE_V) },
      { table: middle, index: 0, value: pte(leaf, PTE_V) },
    ]);
    const space = { asid: context, root, middle, leaf };
    this.#spaces.set(context, space);
    return space;
  }

  spaceOf(context: number): Space {
    const space = this.#spaces.get(context);
    assert(space !== undefined, 'script: the context has a space');
    return space;
  }

  /** Maps `page`, or a fresh one, at virtual page `vpn` of a context; its number. */
  map(context: number, vpn: number, flags = RW, page = this.page()): number {
    const { leaf, asid } = this.spaceOf(context);
    this.machine.writePtes([{ table: leaf, index: vpn, value: pte(page, flags) }]);
    this.machine.fence(asid, vpn);
    return page;
  }

  unmap(context: number, vpn: number): void {
    const { leaf, asid } = this.spaceOf(context);
    this.machine.writePtes([{ table: leaf, index: vpn, value: 0 }]);
    this.machine.fence(asid, vpn);
  }

  start(context: number, image = 0, entry = 0, args: readonly number[] = []): void {
    this.machine.contexts.create(context, image, 'user');
    this.machine.contexts.start(context, entry, args);
    this.put(Cell.current, context);
  }

  end(context: number): void {
    if (context >= 0 && this.machine.contexts.exists(context)) {
      this.machine.contexts.destroy(context);
    }
    this.put(Cell.current, -1);
  }

  setTimer(at: Tick): void {
    const word = at === NEVER ? 2 ** 52 : at;
    this.put(Cell.timer, word | 0);
    this.put(Cell.timer + 1, Math.floor(word / 2 ** 32));
    this.machine.setTimer(at);
  }

  #timer(): Tick {
    return (this.get(Cell.timer) >>> 0) + this.get(Cell.timer + 1) * 2 ** 32;
  }

  #log({ cause, tval, level }: Trap): void {
    const n = this.get(Cell.logged);
    assert(n < LOG_RECORDS, 'script: the log has room');
    const now = this.machine.now();
    [cause, tval | 0, level, now | 0].forEach((word, at) => {
      this.machine.store(LOG_PAGE * PAGE_BYTES + (n * 4 + at) * 4, word);
    });
    this.put(Cell.logged, n + 1);
  }

  // ---- for the test, when the machine stands ----------------------------------------------------

  static cell(peek: (pa: number) => number, cell: number): number {
    return peek(cell * 4);
  }

  static log(peek: (pa: number) => number): Logged[] {
    return Array.from({ length: peek(Cell.logged * 4) }, (_, n) => {
      const word = (at: number): number => peek(LOG_PAGE * PAGE_BYTES + (n * 4 + at) * 4);
      return { cause: word(0), tval: word(1) >>> 0, level: word(2), at: word(3) >>> 0 };
    });
  }

  static notes(peek: (pa: number) => number): number[] {
    const count = peek(Cell.noted * 4);
    return Array.from({ length: count }, (_, n) => peek(NOTE_PAGE * PAGE_BYTES + n * 4));
  }
}

/** An image of plain functions: each takes the port, then the integers it was started with. */
export function program(
  ...entries: readonly ((port: UserPort, ...args: number[]) => Op<void>)[]
): Image {
  return {
    name: 'program',
    entryCount: entries.length,
    load: (port) =>
      entries.map(
        (entry) =>
          (...args: number[]) =>
            entry(port, ...args),
      ),
  };
}
