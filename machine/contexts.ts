/**
 * Contexts: the programs that a machine has loaded, their threads and register files. A thread is
 * a register file and a stack: a generator, with the frames of pending upcalls on top of it. Code
 * has names, an image number and an entry number, so that kernels hold numbers only.
 *
 * The program inside is hostile: whatever it throws, yields or returns becomes a trap here.
 */
import { assert, Bug } from './assert.ts';
import { E, USER_LAYER } from './counters.ts';
import type { Hart, UserThreads } from './hart.ts';
import { Cause, type Context, type ContextPort, type Privilege, type Trap } from './machine.ts';
import {
  Done,
  type Entry,
  grip,
  type Image,
  type Op,
  REGISTERS,
  RESULTS,
  STATUS,
  VALUE,
} from './port.ts';
import type { Tick } from './units.ts';
import type { Regime } from './walker.ts';

const FRAME_LIMIT = 64; // nested upcalls of one thread
const THREAD_LIMIT = 1024; // per context

/**
 * An activation of an entry, which is called by the first `run`, in user mode: user code runs
 * nowhere else. It drives the generator by hand, as `yield*` would: another generator around it
 * would be one more in every thread. `next` is looked up once, because V8 gives the generators of
 * each closure a hidden class of their own.
 */
class Frame {
  /** what the frame beneath had in its registers when this one was pushed */
  readonly beneath: Float64Array | null;
  #enter: (() => Op<void>) | null;
  #code: Op<void> | null = null;
  #next: (() => IteratorResult<unknown>) | null = null;

  constructor(enter: () => Op<void>, beneath: Float64Array | null) {
    this.#enter = enter;
    this.beneath = beneath;
  }

  /** Runs to the next yield; true if the code has ended. */
  run(): boolean {
    const enter = this.#enter;
    if (enter !== null) {
      this.#enter = null; // once, even if it throws
      const code = enter();
      this.#code = code[Symbol.iterator]();
      // eslint-disable-next-line @typescript-eslint/unbound-method -- applied to its generator
      this.#next = this.#code.next;
    }
    if (this.#code === null || this.#next === null) return true;
    const result = Reflect.apply(this.#next, this.#code, []);
    if (Object(result) !== result) throw new TypeError('an entry yields to the hart, and ends');
    return Boolean(result.done);
  }
}

interface Thread {
  readonly registers: Float64Array; // call number, arguments, status, value
  readonly frames: Frame[]; // innermost last
  readonly done: Done; // what its sugar returns on a hit: nobody else's loads show there
}

const REGISTER_WORDS = VALUE + RESULTS;
const BUDGET = 2 ** 30; // cycles, a small integer

const isEntryNumber = (n: number): boolean => Number.isInteger(n) && n >= 0;

/** What contexts need to know of the machine that they belong to. */
export interface ContextHome {
  /** What the hart is set to while a program of that privilege runs. */
  programRegime(privilege: Privilege): Regime;
  /** Level of the supervisor that a program's trap reaches first. */
  trapLevel(cause: number, privilege: Privilege): number;
}

/** What of a context is data. Its threads are not: it goes on at its image's `resume`. */
export interface SavedContext {
  readonly number: number;
  readonly image: number;
  readonly privilege: Privilege;
  /** of its start */
  readonly args: readonly number[];
}

class UserContext implements Context, UserThreads {
  readonly #hart: Hart;
  readonly #home: ContextHome;
  readonly number: number;
  readonly image: number;
  readonly privilege: Privilege;
  readonly #source: Image;
  #entries: readonly Entry[] | null = null; // made by the first thread, in user mode
  readonly #threads: Thread[] = [];
  #current = 0;
  #trapped = 1; // frames of the current thread when it trapped last
  failure = '';
  args: readonly number[] = []; // of its start

  constructor(
    hart: Hart,
    home: ContextHome,
    number: number,
    image: number,
    source: Image,
    privilege: Privilege,
  ) {
    this.#hart = hart;
    this.#home = home;
    this.number = number;
    this.image = image;
    this.#source = source;
    this.privilege = privilege;
  }

  get thread(): Thread {
    const thread = this.#threads[this.#current];
    assert(thread !== undefined, 'contexts: a started context has a current thread');
    return thread;
  }

  /** Registers of the frame that trapped last: an upcall pushed since has put them aside. */
  get callRegisters(): Float64Array {
    const { thread } = this;
    return thread.frames[this.#trapped]?.beneath ?? thread.registers;
  }

  get started(): boolean {
    return this.#threads.length > 0;
  }

  /** Adds a thread at `entry`; its number, or -1 if there are too many or no such entry. */
  spawn(entry: number, args: readonly number[]): number {
    if (this.#threads.length === THREAD_LIMIT) return -1;
    if (!this.#hasEntry(entry)) return -1;
    const registers = new Float64Array(REGISTER_WORDS);
    const frames = [this.#frame(entry, args, null)];
    return this.#threads.push({ registers, frames, done: new Done() }) - 1;
  }

  /** For a rolled-back handler. */
  unstart(): void {
    this.#threads.length = 0;
  }

  currentThread(): number {
    return this.#current;
  }

  push(entry: number, args: readonly number[]): void {
    const { thread } = this;
    assert(thread.frames.length < FRAME_LIMIT, 'contexts: upcalls nest to a stated depth');
    assert(this.#hasEntry(entry), 'contexts: the upcall has an entry');
    thread.frames.push(this.#frame(entry, args, thread.registers.slice()));
  }

  /** For a rolled-back handler. */
  pop(): void {
    const frame = this.thread.frames.pop();
    if (frame?.beneath != null) this.thread.registers.set(frame.beneath);
  }

  get depth(): number {
    return this.thread.frames.length;
  }

  run(until: Tick): Trap {
    const hart = this.#hart;
    const { port } = hart;
    hart.install(this.#home.programRegime(this.privilege));
    hart.threads = this;
    hart.enterLayer(USER_LAYER);
    // At least one user access per dispatch, or a slice shorter than its overhead never ends.
    grip.setBudget(port, Math.min(BUDGET, Math.max(1, until - hart.now())));
    for (;;) {
      const { thread } = this;
      const frame = thread.frames[thread.frames.length - 1];
      if (frame === undefined) return this.#trap(Cause.threadEnd, 0);
      grip.setRegisters(port, thread.registers, thread.done);
      let ended = false;
      try {
        ended = frame.run();
      } catch (error) {
        if (Bug.is(error)) throw error; // the machine's own, under an access
        grip.take(port);
        this.failure = describe(error);
        grip.take(port); // describing runs code of the program's once more
        hart.tell({ what: 'thrown', context: this.number, error });
        return this.#trap(Cause.userException, 0);
      }
      const cause = grip.take(port);
      if (ended) {
        if (cause !== 0) {
          this.failure = 'returned past a trap: some access lacks its `yield*`';
          hart.tell({ what: 'thrown', context: this.number, error: this.failure });
          return this.#trap(Cause.userException, 0);
        }
        this.pop();
        continue;
      }
      if (cause === Cause.threadSwitch) {
        if (!this.#switch(grip.tval(port))) return this.#trap(Cause.illegalInstruction, 0);
        // Threads that do nothing but switch are preempted as well.
        if (hart.now() >= until) return this.#trap(Cause.timerInterrupt, 0);
        continue;
      }
      if (cause === 0) return this.#trap(Cause.illegalInstruction, 0);
      return this.#trap(cause as Cause, grip.tval(port));
    }
  }

  #switch(to: number): boolean {
    const next = Number.isInteger(to) ? this.#threads[to] : undefined;
    if (next === undefined || next.frames.length === 0) return false;
    // A register file out, a register file in; nobody but the program knows.
    const hart = this.#hart;
    hart.charge('work', 2 * REGISTERS * hart.costs.reference);
    hart.counters.add(E.userThreadSwitches, 1);
    this.#current = to;
    return true;
  }

  #hasEntry(entry: number): boolean {
    return isEntryNumber(entry) && entry < this.#source.entryCount;
  }

  #frame(entry: number, args: readonly number[], beneath: Float64Array | null): Frame {
    return new Frame(() => this.#entry(entry)(...args), beneath);
  }

  /** The function at `entry`. The first use makes them: in user mode, constructors included. */
  #entry(entry: number): Entry {
    this.#entries ??= this.#source.load(this.#hart.port);
    const start = this.#entries[entry];
    if (start === undefined) throw new TypeError(`${this.#source.name} has no entry ${entry}`);
    return start;
  }

  #trap(cause: Cause, tval: number): Trap {
    this.#trapped = this.thread.frames.length;
    const { port } = this.#hart;
    return { cause, tval, gpa: grip.gpa(port), level: this.#home.trapLevel(cause, this.privilege) };
  }
}

function describe(error: unknown): string {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    return 'an exception that cannot be printed';
  }
}

/** All contexts of one machine. */
export class Contexts implements ContextPort {
  readonly #hart: Hart;
  readonly #images: readonly Image[];
  readonly #home: ContextHome;
  readonly #contexts: (UserContext | undefined)[] = []; // by number
  /** While a handler may be rolled back: how to undo what it did here. */
  undo: (() => void)[] | null = null;

  constructor(hart: Hart, images: readonly Image[], home: ContextHome) {
    this.#hart = hart;
    this.#images = images;
    this.#home = home;
  }

  create(number: number, image: number, privilege: Privilege): void {
    assert(!this.exists(number), 'contexts: a new context has an unused number');
    const source = this.#images[image];
    assert(source !== undefined, 'contexts: the image exists');
    const [hart, home] = [this.#hart, this.#home];
    const made = new UserContext(hart, home, number, image, source, privilege);
    this.#contexts[number] = made;
    this.undo?.push(() => (this.#contexts[number] = undefined));
  }

  start(number: number, entry: number, args: readonly number[]): void {
    const context = this.#at(number);
    assert(!context.started, 'contexts: a context starts once');
    assert(context.spawn(entry, args) === 0, 'contexts: the entry exists');
    context.args = args;
    this.undo?.push(() => {
      context.unstart();
    });
  }

  destroy(number: number): void {
    const context = this.#at(number);
    this.#contexts[number] = undefined;
    this.undo?.push(() => (this.#contexts[number] = context));
  }

  exists(number: number): boolean {
    return this.#contexts[number] !== undefined;
  }

  hasEntry(image: number, entry: number): boolean {
    return isEntryNumber(entry) && entry < (this.#images[image]?.entryCount ?? 0);
  }

  imageOf(number: number): number {
    return this.#at(number).image;
  }

  context(number: number): Context {
    return this.#at(number);
  }

  privilegeOf(context: Context | null): Privilege {
    return context instanceof UserContext ? context.privilege : 'user';
  }

  argument(number: number, index: number): number {
    return this.#at(number).thread.registers[index] ?? 0;
  }

  setResult(number: number, status: number, ...values: readonly number[]): void {
    assert(values.length <= RESULTS, 'contexts: the results fit into the registers');
    const registers = this.#at(number).callRegisters;
    if (this.undo !== null) {
      const before = registers.slice();
      this.undo.push(() => {
        registers.set(before);
      });
    }
    if (this.#hart.listener !== null) {
      const value = values[0] ?? 0;
      this.#hart.tell({ what: 'answer', context: number, status, value });
    }
    registers[STATUS] = status;
    for (let n = 0; n < values.length; n++) registers[VALUE + n] = values[n] ?? 0;
  }

  upcall(number: number, entry: number, args: readonly number[]): void {
    const context = this.#at(number);
    this.#hart.counters.add(E.upcalls, 1);
    this.#hart.tell({ what: 'upcall', context: number, entry });
    context.push(entry, args);
    this.undo?.push(() => {
      context.pop();
    });
  }

  /** Whether one more upcall frame fits: a supervisor asks before it pushes. */
  hasRoom(number: number): boolean {
    return this.#at(number).depth < FRAME_LIMIT;
  }

  save(number: number, pa: number, count: number): void {
    const { registers } = this.#at(number).thread;
    for (let n = 0; n < count; n++) this.#store(pa + n * 4, (registers[n] ?? 0) | 0);
  }

  restore(number: number, pa: number, count: number): void {
    assert(this.exists(number), 'contexts: the context exists');
    for (let n = 0; n < count; n++) this.#load(pa + n * 4);
  }

  failure(number: number): string {
    return this.#at(number).failure;
  }

  /** All contexts as data, or the name of an image whose contexts cannot be. */
  saved(): readonly SavedContext[] | string {
    const saved: SavedContext[] = [];
    for (const [number, context] of this.#contexts.entries()) {
      if (context === undefined) continue;
      const image = this.#images[context.image];
      if (image?.resume === undefined) return image?.name ?? '';
      const { privilege, args } = context;
      saved.push({ number, image: context.image, privilege, args });
    }
    return saved;
  }

  /** Each context of `saved` goes on from its memory. */
  resume(saved: readonly SavedContext[]): void {
    for (const { number, image, privilege, args } of saved) {
      const entry = this.#images[image]?.resume;
      assert(entry !== undefined, 'contexts: what was saved can be resumed');
      this.create(number, image, privilege);
      this.start(number, entry, args);
    }
  }

  /** The number of a context of ours; -1 if it is none. */
  numberOf(context: Context): number {
    return this.#contexts.findIndex((one) => one === context);
  }

  /** The owning machine's counted accesses. */
  attach(load: (pa: number) => number, store: (pa: number, value: number) => void): void {
    this.#load = load;
    this.#store = store;
  }
  #load: (pa: number) => number = () => 0;
  #store: (pa: number, value: number) => void = () => undefined;

  #at(number: number): UserContext {
    const context = this.#contexts[number];
    assert(context !== undefined, 'contexts: the context exists');
    return context;
  }
}
