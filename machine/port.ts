/**
 * The user port: the unprivileged instructions of the hart, as user code written in TypeScript
 * issues them, and the hart's grip on it. User code is hostile: it can describe instructions here,
 * in any order and with any operands, and execute no privileged one. All state is in #fields; the
 * grip, which can reach them, is exported for the hart alone (libOSes may import user-port.ts only,
 * and a test holds that).
 *
 * An access returns its value, or undefined when a trap is pending: write
 *
 *     const v = port.load32(va) ?? (yield* port.fault());
 *
 * `fault` captures what is to be retried in its own frame, yields, and tries again when it is
 * resumed, so faults are precise and re-entrant. Whoever forgets it is told at the next access,
 * which throws UnhandledTrap. The hart believes its own #pending cause and ignores what is yielded.
 *
 * A small table in front of the TLB, tagged with a slot per address space, lets a hit cost one
 * decrement, one compare and one load. It is a subset of the TLB and has no cycles of its own.
 */
import { assert } from './assert.ts';
import type { Memory } from './memory.ts';
import { PAGE_BYTES, type Tick } from './units.ts';

/** User code: a generator that yields to the hart. What it yields is ignored. */
export type Op<T> = Generator<unknown, T, void>;

/** What a kernel call returned: status 0 and a value, or a refusal and its detail. */
export interface CallResult {
  readonly status: number;
  readonly value: number;
}

/** A function that a thread can start at; its arguments are the integers it was started with. */
export type Entry = (...args: number[]) => Op<void>;

/** A program: makes its entries anew for each context that loads it, around the user port. */
export interface Image {
  readonly name: string;
  readonly entryCount: number;
  /**
   * Entry at which a context goes on from its memory alone, with the arguments of its start. Only
   * who has one can be saved, cloned or moved: a generator cannot be copied.
   */
  readonly resume?: number;
  readonly load: (port: UserPort) => readonly Entry[];
}

/** Thrown into user code that went on past a trap without `yield* port.fault()`. */
export class UnhandledTrap extends Error {
  override readonly name = 'UnhandledTrap';
  constructor() {
    super('a trap is pending: write `port.load32(va) ?? (yield* port.fault())`, or use `yield*`');
  }
}

/** What the port needs of the hart behind it. */
export interface UserMmu {
  readonly memory: Memory;
  /** Finds the page of a user access: fills `ppn`, or says what fault it is. */
  translateUser(vpn: number, write: boolean): boolean;
  readonly ppn: number;
  readonly faultCause: number;
  readonly faultGpa: number;
  /** Whether the port may keep a copy of the translation. */
  readonly cacheable: boolean;
  readonly copyBytesPerCycle: number;
  readonly zeroBytesPerCycle: number;
  /** Whether somebody listens to `trapped`. */
  readonly observed: boolean;
  /** An instruction has trapped; of an ecall, `words` are its number and arguments. */
  trapped(cause: number, tval: number, words: readonly number[]): void;
  /** A whole page was zeroed or copied by user code: counted with those of supervisors. */
  countPage(zeroed: boolean): void;
  /** User-mode thread operations of the context that runs. */
  spawn(entry: number, args: readonly number[]): number;
  currentThread(): number;
}

export const REGISTERS = 32; // words of a saved register file
const ARGUMENTS = 9; // call number and eight arguments, in the register file's first words
export const STATUS = 9; // where the kernel's answer stands
export const VALUE = 10;
export const RESULTS = 7; // value and six words more: a message

const SLOTS = 1024; // address-space tags of the table: bits 2 to 11 of an entry
const MICRO = 256; // entries, direct-mapped by virtual page
const INVALID = 1; // misaligned and slot 0: equals no address
const FULL = 0xfffff003 | 0; // page number and alignment
const PAGE = 0xfffff000 | 0;

const TIMER = 0x45;
const ECALL = 8;
const SWITCH = 26;
const MISALIGNED_LOAD = 4;
const MISALIGNED_STORE = 6;

type Kind = 'none' | 'load32' | 'store32' | 'load8' | 'store8' | 'swap' | 'work' | Bulk;
type Bulk = 'copy' | 'fill' | 'read' | 'write';

/** An Op by hand: what would be a generator, but for what a generator costs. */
abstract class Plain<T> implements Op<T> {
  abstract next(): IteratorResult<unknown, T>;
  return(value: T): IteratorResult<unknown, T> {
    return { done: true, value };
  }
  throw(error: unknown): IteratorResult<unknown, T> {
    throw error;
  }
  [Symbol.iterator](): Op<T> {
    return this;
  }
}

/** An iterator that is already done: what sugar returns on a hit, so that it allocates nothing. */
export class Done extends Plain<number> {
  readonly #result: { done: true; value: number } = { done: true, value: 0 };
  of(value: number): this {
    this.#result.value = value;
    return this;
  }
  override next(): IteratorResult<unknown, number> {
    return this.#result;
  }
}

/**
 * A kernel call: it traps when `yield*` begins, and leaves the waiting to an iterator that all
 * calls share, because what each waits for stands in its thread's registers. Nothing of it survives
 * the trap: of 100,000 waiting generators the collector would copy every one.
 */
class Call extends Plain<CallResult> {
  readonly #port: UserPort;
  readonly #number: number;
  readonly #args: readonly number[];
  #made = false;
  constructor(port: UserPort, number: number, args: readonly number[]) {
    super();
    this.#port = port;
    this.#number = number;
    this.#args = args;
  }
  override [Symbol.iterator](): Op<CallResult> {
    if (!this.#made) enterKernel(this.#port, this.#number, this.#args);
    this.#made = true;
    return answerOf(this.#port);
  }
  override next(): IteratorResult<unknown, CallResult> {
    return this[Symbol.iterator]().next();
  }
}

/** Yields while the call's trap is pending; after that, the answer is in the registers. */
class Answer extends Plain<CallResult> {
  readonly #read: () => CallResult | null;
  constructor(read: () => CallResult | null) {
    super();
    this.#read = read;
  }
  override next(): IteratorResult<unknown, CallResult> {
    const value = this.#read();
    return value === null ? { done: false, value: undefined } : { done: true, value };
  }
}

// Intrinsics taken before any user code runs: a buffer's own properties may lie about its size.
const prototype: object = Object.getPrototypeOf(Uint8Array.prototype) as object;
const getter = (name: string): ((array: Uint8Array) => unknown) => {
  const property = Object.getOwnPropertyDescriptor(prototype, name);
  // eslint-disable-next-line @typescript-eslint/unbound-method -- applied to each array below
  const get = property?.get;
  assert(get !== undefined, 'port: typed arrays have their accessors');
  return (array) => Reflect.apply(get, array, []) as unknown;
};
const bufferOf = getter('buffer');
const offsetOf = getter('byteOffset');
const lengthOf = getter('length');

/** A view that is exactly `length` bytes of the caller's array from `at`, whatever it claims. */
function window(array: Uint8Array, at: number, length: number): Uint8Array {
  const start = offsetOf(array) as number;
  const size = lengthOf(array) as number;
  if (!(at >= 0 && length >= 0 && at + length <= size)) {
    throw new RangeError(`a buffer of ${size} bytes does not hold ${length} bytes at ${at}`);
  }
  return new Uint8Array(bufferOf(array) as ArrayBuffer, start + at, length);
}

/** The hart's grip on its port. For machine/ alone. */
export interface Grip {
  now(port: UserPort): Tick;
  spend(port: UserPort, cycles: number): void;
  /** Moves the clock: idle time skipped, or the refund of a handler that was rolled back. */
  setNow(port: UserPort, at: Tick): void;
  /** Cycles that user code may spend before a timer trap; the clock stands still. */
  setBudget(port: UserPort, cycles: number): void;
  /** The pending cause, taken: 0 if user code yielded for no reason that the hart knows. */
  take(port: UserPort): number;
  tval(port: UserPort): number;
  gpa(port: UserPort): number;
  /** Registers of the thread that runs, and the iterator that its sugar returns. */
  setRegisters(port: UserPort, registers: Float64Array, done?: Done): void;
  setSlot(port: UserPort, slot: number): void;
  forgetPage(port: UserPort, vpn: number): void;
  forgetAll(port: UserPort): void;
  forgetStores(port: UserPort): void;
  setStorm(port: UserPort, storm: boolean): void;
}
export let grip: Grip; // assigned by the class below while it is being made
/** Leaves number and arguments in the registers and traps. */
let enterKernel: (port: UserPort, number: number, args: readonly number[]) => void;
let answerOf: (port: UserPort) => Op<CallResult>;

export class UserPort {
  readonly #mmu: UserMmu;
  readonly #memory: Memory;
  readonly #i32: Int32Array;
  readonly #u8: Uint8Array;
  readonly #rtag = new Int32Array(MICRO).fill(INVALID);
  readonly #wtag = new Int32Array(MICRO).fill(INVALID);
  readonly #radd = new Int32Array(MICRO); // physical minus virtual address, modulo 2^32
  readonly #wadd = new Int32Array(MICRO);
  #done = new Done();
  readonly #answer = Object.freeze(new Answer(() => this.#received())); // everyone gets to hold it
  #slot = 4;
  #left = 0; // cycles before the deadline, counting down
  #base = 0; // clock = base - left
  #saved = 0; // left, while a trap is pending
  #pending = 0; // cause of the pending trap, 0 if none
  #tval = 0;
  #gpa = 0;
  #registers: Float64Array = new Float64Array(VALUE + RESULTS);
  #storm = false;
  #stormed = false;
  // What a pending access must retry.
  #op: Kind = 'none';
  #a = 0;
  #b = 0;
  #c = 0;
  #bytes: Uint8Array | null = null;
  #at = 0;

  constructor(mmu: UserMmu) {
    this.#mmu = mmu;
    this.#memory = mmu.memory;
    this.#i32 = mmu.memory.i32;
    this.#u8 = mmu.memory.u8;
    // Every program holds this one object: none may put code of its own into it.
    Object.freeze(this);
  }

  // ---- primitives: a value, or undefined when a trap is pending ---------------------------------

  /** lw: the signed word at `va`, 1 cycle. Faults: misaligned, page fault. */
  load32(va: number): number | undefined {
    const a = va | 0; // once: an operand may be an object that changes its mind
    const i = (a >>> 12) & (MICRO - 1);
    if (--this.#left >= 0 && this.#rtag[i] === ((a & FULL) | this.#slot)) {
      return this.#i32[(a + (this.#radd[i] as number)) >>> 2];
    }
    return this.#slow('load32', a, 0);
  }

  /** sw: stores the low 32 bits of `value` at `va`, 1 cycle. */
  store32(va: number, value: number): number | undefined {
    const a = va | 0;
    const b = value | 0;
    const i = (a >>> 12) & (MICRO - 1);
    if (--this.#left >= 0 && this.#wtag[i] === ((a & FULL) | this.#slot)) {
      this.#i32[(a + (this.#wadd[i] as number)) >>> 2] = b;
      return 0;
    }
    return this.#slow('store32', a, b);
  }

  /** lbu: the byte at `va`, 1 cycle. */
  load8(va: number): number | undefined {
    const a = va | 0;
    const i = (a >>> 12) & (MICRO - 1);
    if (--this.#left >= 0 && this.#rtag[i] === ((a & PAGE) | this.#slot)) {
      return this.#u8[(a + (this.#radd[i] as number)) >>> 0];
    }
    return this.#slow('load8', a, 0);
  }

  /** sb: stores the low 8 bits of `value` at `va`, 1 cycle. */
  store8(va: number, value: number): number | undefined {
    const a = va | 0;
    const b = value & 0xff;
    const i = (a >>> 12) & (MICRO - 1);
    if (--this.#left >= 0 && this.#wtag[i] === ((a & PAGE) | this.#slot)) {
      this.#u8[(a + (this.#wadd[i] as number)) >>> 0] = b;
      return 0;
    }
    return this.#slow('store8', a, b);
  }

  /** amoswap.w: stores `value` at `va` and returns what stood there, in one step. 2 cycles. */
  swap32(va: number, value: number): number | undefined {
    const a = va | 0;
    const b = value | 0;
    this.#left--;
    return this.#slow('swap', a, b);
  }

  /** `cycles` of computation that touches no memory; preempted wherever the slice ends. */
  work(cycles: number): number | undefined {
    const n = cycles >>> 0;
    this.#left -= n;
    if (this.#left >= 0 && !this.#storm) return 0;
    this.#left += n;
    return this.#slow('work', n, 0);
  }

  /** Copies `bytes` from `from` to `to`, page by page, restartable; copyBytesPerCycle. */
  copy(to: number, from: number, bytes: number): number | undefined {
    return this.#bulk('copy', to >>> 0, from >>> 0, bytes >>> 0, null, 0);
  }

  /** Stores `bytes` copies of the byte `value` from `va` on; zeroBytesPerCycle. */
  fill(va: number, value: number, bytes: number): number | undefined {
    return this.#bulk('fill', va >>> 0, value & 0xff, bytes >>> 0, null, 0);
  }

  /** Loads `bytes` bytes at `va` into a host array from `at` on: what host code then works on. */
  read(va: number, into: Uint8Array, at: number, bytes: number): number | undefined {
    const [a, from, count] = [va >>> 0, +at, +bytes];
    window(into, from, count);
    return this.#bulk('read', a, 0, count >>> 0, into, from);
  }

  /** Stores `bytes` bytes of a host array, from `at` on, at `va`. */
  write(va: number, from: Uint8Array, at: number, bytes: number): number | undefined {
    const [a, start, count] = [va >>> 0, +at, +bytes];
    window(from, start, count);
    return this.#bulk('write', a, 0, count >>> 0, from, start);
  }

  /** Hands the pending trap to the hart and retries the access until it succeeds. */
  *fault(): Op<number> {
    for (;;) {
      const [op, a, b, c, bytes, at] = [this.#op, this.#a, this.#b, this.#c, this.#bytes, this.#at];
      yield;
      if (op === 'none') return 0; // there was no access of ours to retry
      const result =
        bytes !== null || op === 'copy' || op === 'fill'
          ? this.#bulk(op as Bulk, a, b, c, bytes, at)
          : this.#again(op, a, b);
      if (result !== undefined) return result;
    }
  }

  // ---- sugar: one rule, what can trap is `yield*` -----------------------------------------------

  /** `yield* port.load(va)`: load32 with its fault handled; allocates nothing on a hit. */
  load(va: number): Op<number> {
    const value = this.load32(va);
    return value === undefined ? this.fault() : this.#done.of(value);
  }

  /** `yield* port.store(va, value)`: store32 with its fault handled. */
  store(va: number, value: number): Op<number> {
    const stored = this.store32(va, value);
    return stored === undefined ? this.fault() : this.#done.of(stored);
  }

  // ---- calls and threads ------------------------------------------------------------------------

  /** ecall: a kernel call by number, with up to eight arguments in registers. */
  call(number: number, ...args: readonly number[]): Op<CallResult> {
    return new Call(this, number, args);
  }

  /** Result register `n`, 0 the value: read it right after `call`, before any other trap. */
  result(n: number): number {
    return this.#registers[VALUE + n] ?? 0;
  }

  /** Makes a thread of this environment, not yet running, at entry number `entry`. */
  spawn(entry: number, ...args: readonly number[]): number {
    if (this.#pending !== 0) throw new UnhandledTrap();
    this.#left -= REGISTERS; // its register file is filled in
    return this.#mmu.spawn(entry, args);
  }

  /** Loads the registers of another thread of this environment: user mode, no trap. */
  *switchTo(thread: number): Op<void> {
    if (this.#pending !== 0) throw new UnhandledTrap();
    this.#op = 'none';
    this.#raise(SWITCH, thread, 0);
    yield;
  }

  /** The number of the thread that runs; 0 is the first. */
  thread(): number {
    return this.#mmu.currentThread();
  }

  /** rdcycle. */
  cycles(): number {
    return this.#base - (this.#pending === 0 ? this.#left : this.#saved);
  }

  /** The register file as 32 words of bytes: what a handler saves to its own memory. */
  registers(): Uint8Array {
    const words = new Int32Array(REGISTERS);
    this.#registers.forEach((value, n) => (words[n] = value));
    return new Uint8Array(words.buffer);
  }

  /** The kernel's answer, null while the call is pending. */
  #received(): CallResult | null {
    if (this.#pending !== 0) return null;
    return { status: this.#registers[STATUS] ?? 0, value: this.#registers[VALUE] ?? 0 };
  }

  // ---- slow paths -------------------------------------------------------------------------------

  #again(op: Kind, a: number, b: number): number | undefined {
    switch (op) {
      case 'load32':
        return this.load32(a);
      case 'store32':
        return this.store32(a, b);
      case 'load8':
        return this.load8(a);
      case 'store8':
        return this.store8(a, b);
      case 'swap':
        return this.swap32(a, b);
      default:
        return this.work(a);
    }
  }

  /** A miss, the deadline, a storm, or an access past a pending trap. */
  #slow(op: Kind, a: number, b: number): number | undefined {
    if (this.#pending !== 0) throw new UnhandledTrap();
    this.#op = op;
    this.#a = a;
    this.#b = b;
    this.#bytes = null;
    if (op === 'work') return this.#workOn(a);
    if (this.#interrupted(1)) return undefined;
    const wide = op === 'load32' || op === 'store32' || op === 'swap';
    const write = op === 'store32' || op === 'store8' || op === 'swap';
    if (wide && (a & 3) !== 0) {
      this.#left++;
      this.#raise(write ? MISALIGNED_STORE : MISALIGNED_LOAD, a >>> 0, 0);
      return undefined;
    }
    const ppn = this.#page(a >>> 12, write);
    if (ppn < 0) {
      this.#left++;
      this.#raise(this.#mmu.faultCause, a >>> 0, this.#mmu.faultGpa);
      return undefined;
    }
    this.#stormed = false;
    const pa = ppn * PAGE_BYTES + (a & (PAGE_BYTES - 1));
    switch (op) {
      case 'load32':
        return this.#i32[pa >>> 2];
      case 'load8':
        return this.#u8[pa];
      case 'store32':
        this.#memory.put(pa, b);
        return 0;
      case 'store8':
        this.#memory.putByte(pa, b);
        return 0;
      default: {
        this.#left--; // the store half
        const old = this.#i32[pa >>> 2];
        this.#memory.put(pa, b);
        return old;
      }
    }
  }

  #workOn(cycles: number): number | undefined {
    if (cycles === 0) return 0;
    if (this.#interrupted(0)) return undefined;
    this.#stormed = false;
    const part = Math.min(cycles, this.#left);
    this.#left -= part;
    if (part === cycles) return 0;
    this.#a = cycles - part;
    this.#raise(TIMER, 0, 0);
    return undefined;
  }

  /** Timer traps come before an access, which is refunded; in a storm, one before each access. */
  #interrupted(charged: number): boolean {
    if (this.#left >= 0 && (!this.#storm || this.#stormed)) return false;
    this.#stormed = true;
    this.#left += charged;
    this.#raise(TIMER, 0, 0);
    return true;
  }

  #bulk(
    op: Bulk,
    a: number,
    b: number,
    c: number,
    bytes: Uint8Array | null,
    at: number,
  ): number | undefined {
    if (this.#pending !== 0) throw new UnhandledTrap();
    let [to, from, left, offset] = [a, b, c, at];
    while (left > 0) {
      this.#op = op;
      this.#a = to;
      this.#b = from;
      this.#c = left;
      this.#bytes = bytes;
      this.#at = offset;
      if (this.#interrupted(0)) return undefined;
      let part = Math.min(left, PAGE_BYTES - (to & (PAGE_BYTES - 1)));
      let source = 0;
      if (op === 'copy') {
        part = Math.min(part, PAGE_BYTES - (from & (PAGE_BYTES - 1)));
        const page = this.#page(from >>> 12, false);
        if (page < 0) {
          this.#raise(this.#mmu.faultCause, from, this.#mmu.faultGpa);
          return undefined;
        }
        source = page * PAGE_BYTES + (from & (PAGE_BYTES - 1));
      }
      const page = this.#page(to >>> 12, op !== 'read');
      if (page < 0) {
        this.#raise(this.#mmu.faultCause, to, this.#mmu.faultGpa);
        return undefined;
      }
      this.#stormed = false;
      const pa = page * PAGE_BYTES + (to & (PAGE_BYTES - 1));
      this.#move(op, pa, source, from, part, bytes, offset);
      const rate = op === 'copy' ? this.#mmu.copyBytesPerCycle : this.#mmu.zeroBytesPerCycle;
      this.#left -= Math.ceil(part / rate);
      if (part === PAGE_BYTES && (op === 'copy' || (op === 'fill' && from === 0))) {
        this.#mmu.countPage(op === 'fill');
      }
      to = (to + part) >>> 0;
      if (op === 'copy') from = (from + part) >>> 0;
      left -= part;
      offset += part;
    }
    return c;
  }

  #move(
    op: Bulk,
    pa: number,
    source: number,
    value: number,
    part: number,
    bytes: Uint8Array | null,
    offset: number,
  ): void {
    if (op === 'read') {
      if (bytes !== null) window(bytes, offset, part).set(this.#u8.subarray(pa, pa + part));
      return;
    }
    if (!this.#memory.watched) {
      if (op === 'copy') this.#u8.copyWithin(pa, source, source + part);
      else if (op === 'fill') this.#u8.fill(value, pa, pa + part);
      else if (bytes !== null) this.#u8.set(window(bytes, offset, part), pa);
      return;
    }
    const from = op === 'write' && bytes !== null ? window(bytes, offset, part) : null;
    const overlap = op === 'copy' ? this.#u8.slice(source, source + part) : from;
    for (let n = 0; n < part; n++) {
      this.#memory.putByte(pa + n, overlap === null ? value : (overlap[n] ?? 0));
    }
  }

  /** The host page of a user page, from the table in front or through the hart; -1 on a fault. */
  #page(vpn: number, write: boolean): number {
    const i = vpn & (MICRO - 1);
    const tag = (vpn << 12) | this.#slot;
    const tags = write ? this.#wtag : this.#rtag;
    const adds = write ? this.#wadd : this.#radd;
    if (tags[i] === tag) return ((vpn << 12) + (adds[i] as number)) >>> 12;
    if (!this.#mmu.translateUser(vpn, write)) return -1;
    const { ppn } = this.#mmu;
    if (this.#storm || !this.#mmu.cacheable) return ppn;
    const add = (ppn << 12) - (vpn << 12);
    this.#rtag[i] = tag;
    this.#radd[i] = add;
    if (write && !this.#memory.watched) {
      this.#wtag[i] = tag;
      this.#wadd[i] = add;
    }
    return ppn;
  }

  /** While a trap is pending the budget is spent: another access takes the slow path and throws. */
  #raise(cause: number, tval: number, gpa: number): void {
    this.#pending = cause;
    this.#tval = tval;
    this.#gpa = gpa;
    this.#saved = this.#left;
    this.#left = -1;
    if (this.#mmu.observed) {
      const words = cause === ECALL ? [...this.#registers.subarray(0, ARGUMENTS)] : [];
      this.#mmu.trapped(cause, tval, words);
    }
  }

  static {
    enterKernel = (port, number, args) => {
      if (port.#pending !== 0) throw new UnhandledTrap();
      const registers = port.#registers;
      registers[0] = number;
      for (let n = 1; n < ARGUMENTS; n++) registers[n] = args[n - 1] ?? 0;
      // An argument that is an object ran code of the program's while it became a number.
      if (port.#pending !== 0) throw new UnhandledTrap();
      port.#op = 'none';
      port.#raise(ECALL, 0, 0);
    };
    answerOf = (port) => port.#answer;
    grip = {
      now: (port) => port.#base - (port.#pending === 0 ? port.#left : port.#saved),
      spend: (port, cycles) => {
        port.#left -= cycles;
      },
      setNow: (port, at) => {
        port.#base = at + port.#left;
      },
      setBudget: (port, budget) => {
        const now = port.#base - port.#left;
        port.#left = budget;
        port.#base = now + budget;
      },
      take: (port) => {
        const cause = port.#pending;
        if (cause !== 0) {
          port.#pending = 0;
          port.#left = port.#saved;
        }
        // Whoever waits has captured it; nobody else may retry it.
        port.#op = 'none';
        port.#bytes = null;
        return cause;
      },
      tval: (port) => port.#tval,
      gpa: (port) => port.#gpa,
      setRegisters: (port, registers, done = new Done()) => {
        port.#registers = registers;
        port.#done = done;
      },
      setSlot: (port, slot) => {
        assert(slot > 0 && slot < SLOTS, 'port: address-space slots are 1 to 1023');
        port.#slot = slot << 2;
      },
      forgetPage: (port, vpn) => {
        const i = vpn & (MICRO - 1);
        port.#rtag[i] = INVALID;
        port.#wtag[i] = INVALID;
      },
      forgetAll: (port) => {
        port.#rtag.fill(INVALID);
        port.#wtag.fill(INVALID);
      },
      forgetStores: (port) => {
        port.#wtag.fill(INVALID);
      },
      setStorm: (port, storm) => {
        port.#storm = storm;
        port.#stormed = false;
        port.#rtag.fill(INVALID);
        port.#wtag.fill(INVALID);
      },
    };
  }
}

// Every program holds objects of these classes, too.
const shared: readonly object[] = [UserPort, Plain, Done, Call, Answer].flatMap((made) => [
  made,
  made.prototype as object,
]);
for (const part of shared) Object.freeze(part);
