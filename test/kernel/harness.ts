/**
 * A rig for tests of the exokernel: a machine, the kernel behind a probe, and tenants whose program
 * does what the test hands it, one request at a time. Programs, requests and faults are all user
 * code on the simulated hart; only the handing over is the test's.
 *
 * The probe sees every kernel entry and exit. For each call it compares memory before and after: a
 * refused call may have changed the caller's save area, the accessed and dirty bits that the
 * hardware set while the kernel read the caller's buffers, and nothing else. A breach throws, so
 * every test holds it for every refused call it makes, wanted or not.
 */
import {
  Call,
  CALL_COUNT,
  type CallName,
  Env,
  EnvState,
  GRACE,
  MAP_READ,
  MAP_WRITE,
  packName,
  READ,
  Start,
  Status,
  Upcall,
  WRITE,
} from '../../kernel/abi.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { Cpu, type ExokernelConfig, PageRecord } from '../../kernel/exokernel/state.ts';
import {
  Cause,
  type Context,
  type Machine,
  REGISTERS_CALL,
  type Supervisor,
  type Tenant,
  type Trap,
} from '../../kernel/supervisor.ts';
import { Raw } from '../../check/invariants/raw.ts';
import { RISCV } from '../../machine/costs.ts';
import { RamMedium } from '../../machine/disk.ts';
import { type MachineConfig, PhysicalMachine } from '../../machine/physical.ts';
import { PAGE_BYTES, PAGE_WORDS } from '../../machine/units.ts';
import type { Image, Op, UserPort } from '../../machine/user-port.ts';

export const PAGES = 96;
/** Pages that each tenant may take, beside those of its first environment. */
export const QUOTA = 24;
export const BLOCKS = 64; // of the disk
export const BLOCKS_EACH = 16; // of each tenant
export const CONFIG: ExokernelConfig = {
  environments: 16,
  slices: 4,
  sliceCycles: 10_000,
  extents: 8,
};
/** An ordinary disk, and one that answers so late that requests stand while a test goes on. */
export const LATE_DISK = { ...RISCV, diskAccess: { value: 1e9, source: 'test: never in time' } };

/** Guards of the first two tenants. */
export const NAME_A = packName([1]);
export const NAME_B = packName([2]);

const STATUS_REGISTER = 9; // of a context's register file: the kernel's answer
const RESULTS = 5; // message registers after the value
/** References of a kernel entry by a call: who runs, its registers, how many they are. */
const ENTRY = 2 + REGISTERS_CALL;
const CHUNK = 200; // cycles between two looks of the test at its machine
const PATIENCE = 4_000; // chunks

/** Entries of the scripted image. */
export const Entry = {
  main: 0,
  fault: 1,
  begin: 2,
  end: 3,
  prober: 4,
  revoke: 5,
  repossessed: 6,
} as const;
const FRAMES = Start.stackPage * PAGE_BYTES;
export const BEGIN_MASK = FRAMES + 1024;
export const END_MASK = FRAMES + 1028;
export const REVOKE_MASK = FRAMES + 1032;
export const LOSS_MASK = FRAMES + 1036;
/** A stretch of the stack page that tests may use. */
export const SCRATCH = FRAMES + 2048;

export type Request = (port: UserPort) => Op<unknown>;

export interface Outcome {
  readonly status: number;
  readonly value: number;
  /** message words and granted page, of an answer to an ipc call */
  readonly message: readonly number[];
}

export interface Fault {
  readonly cause: number;
  readonly address: number;
}

/** What one environment of the rig is to do, and what came of it. */
class Lane {
  request: Request | null = null;
  result: unknown = null;
  done = true;
  readonly faults: Fault[] = [];
  begins = 0; // slice-begin upcalls
  ends = 0;
  /** What the fault handler does before it returns; null lets it leave the faulting thread. */
  onFault: ((port: UserPort, fault: Fault) => Op<void>) | null = null;
  onEnd: Request | null = null;
  readonly revokes: (readonly number[])[] = []; // upcalls: pages wanted, cycles left
  readonly losses: number[] = []; // upcalls: losses so far
  onRevoke: ((port: UserPort, wanted: number) => Op<void>) | null = null;
  onRepossessed: ((port: UserPort, losses: number) => Op<void>) | null = null;
  /** What a thread started at Entry.prober does. */
  probe: (() => Op<void>) | null = null;
}

export interface ChildConfig {
  readonly tables?: boolean;
  readonly start?: boolean; // default true
  readonly account?: number; // default: the maker's
}

export interface RigConfig {
  readonly tenants?: number;
  readonly exokernel?: Partial<ExokernelConfig>;
  readonly machine?: Partial<MachineConfig>;
  readonly images?: readonly Image[]; // beside the scripted one, from number 1 on
  readonly blocks?: number; // of each tenant
  readonly quota?: number; // of each tenant, default QUOTA
  /** Holds the kernel to the specification after every trap; its clock stands while it works. */
  readonly follow?: (kernel: Exokernel) => Supervisor;
  /** What is special about tenant `n`, from 0. */
  readonly tenant?: (n: number) => Partial<Tenant>;
}

/** One tenant's first environment, as Start describes it. */
export interface Home {
  readonly row: number;
  readonly id: number;
  readonly root: number;
  readonly middle: number;
  readonly leaf: number;
  readonly ledger0: number;
  readonly ledger1: number;
  readonly stack: number;
  readonly extent: number;
}

/** A call as the probe saw it come and go. */
export interface Seen {
  readonly caller: number; // row
  readonly number: number;
  readonly args: readonly number[];
  /** null: the answer comes later */
  readonly status: number | null;
  readonly value: number;
  /** of the kernel, from the trap until the call was performed; entering and leaving aside */
  readonly references: number;
}

export class Rig {
  readonly machine: PhysicalMachine;
  readonly kernel: Exokernel;
  readonly raw: Raw;
  readonly tenants: readonly Home[];
  /** console bytes by channel */
  readonly console = new Map<number, string>();
  /** Called after every kernel exit. */
  onExit: (seen: Seen | null) => void = () => undefined;
  readonly refusals = new Map<number, number>(); // status: how often
  readonly #lanes = new Map<number, Lane>(); // by environment id
  readonly #before: Uint8Array;
  #entered: { caller: number; number: number; args: number[]; references: number } | null = null;
  /** environment id that idle programs give the CPU to */
  #wanted = 0;

  constructor(config: RigConfig = {}) {
    const image = scripted(this);
    this.machine = new PhysicalMachine({
      pages: PAGES,
      images: [image, ...(config.images ?? [])],
      medium: new RamMedium(BLOCKS),
      hashed: true,
      output: (channel, bytes) => {
        const text = new TextDecoder().decode(bytes);
        this.console.set(channel, (this.console.get(channel) ?? '') + text);
      },
      ...config.machine,
    });
    const count = config.tenants ?? 2;
    const blocks = config.blocks ?? BLOCKS_EACH;
    const tenants = Array.from({ length: count }, (_, n) => ({
      image: 0,
      quota: config.quota ?? QUOTA,
      firstBlock: n * blocks,
      blocks,
      ...config.tenant?.(n),
    }));
    this.kernel = new Exokernel({ ...CONFIG, ...config.exokernel }, tenants);
    this.machine.boot(new Probe(this, config.follow?.(this.kernel) ?? this.kernel));
    this.raw = new Raw(this.machine, this.kernel.state);
    this.#before = new Uint8Array(this.machine.memory.u8.length);
    // The kernel has tenants when it has read the extent table off the disk, twice.
    const { diskAccess, diskBlock } = this.machine.hart.costs;
    this.machine.run(2 * (diskAccess + diskBlock));
    for (let n = 0; count > 0 && this.raw.stateOf(1) === EnvState.free; n++) {
      if (n > PATIENCE) throw new Error('the kernel does not boot');
      this.machine.run(this.machine.now() + CHUNK);
    }
    this.tenants = tenants.map((_, n) => this.#home(n + 1));
  }

  get a(): Home {
    return this.#tenant(0);
  }
  get b(): Home {
    return this.#tenant(1);
  }

  #tenant(n: number): Home {
    const home = this.tenants[n];
    if (home === undefined) throw new Error(`the rig has no tenant ${n + 1}`);
    return home;
  }

  #home(row: number): Home {
    const { raw } = this;
    const root = raw.env(row, Env.root);
    const middle = raw.entry(root, 0) >>> 10;
    const leaf = raw.entry(middle, 0) >>> 10;
    return {
      row,
      id: raw.id(row),
      root,
      middle,
      leaf,
      ledger0: raw.page(leaf, PageRecord.ledger),
      ledger1: raw.page(leaf, PageRecord.ledger + 1),
      stack: raw.entry(leaf, Start.stackPage) >>> 10,
      extent: row - 1,
    };
  }

  // ---- requests ---------------------------------------------------------------------------------

  lane(id: number): Lane {
    let lane = this.#lanes.get(id);
    if (lane === undefined) {
      lane = new Lane();
      this.#lanes.set(id, lane);
    }
    return lane;
  }

  get wanted(): number {
    return this.#wanted;
  }

  /** Hands `request` to the environment in `row`, and runs until it is done or cannot go on. */
  begin(row: number, request: Request): boolean {
    const id = this.raw.id(row);
    const lane = this.lane(id);
    if (!lane.done) throw new Error(`environment ${row} has a request already`);
    lane.request = request;
    lane.done = false;
    return this.settle(row);
  }

  /** Hands over a request that need not end, and does not run it yet. */
  hand(row: number, request: Request): void {
    const lane = this.lane(this.raw.id(row));
    lane.request = request;
    lane.done = false;
  }

  /** Runs until `row` has done its request (true), or waits, or is dead (false). */
  settle(row: number): boolean {
    const id = this.raw.id(row);
    const lane = this.lane(id);
    this.#wanted = id;
    for (let n = 0; n < PATIENCE; n++) {
      if (lane.done) return true;
      const stop = this.machine.run(this.machine.now() + CHUNK);
      if (lane.done) return true;
      if (this.raw.id(row) !== id || this.raw.stateOf(row) !== EnvState.ready) return false;
      if (this.raw.env(row, Env.suspended) !== 0) return false;
      if (stop === 'halted') return false;
    }
    throw new Error(`environment ${row} is ready and makes no progress`);
  }

  result(row: number): unknown {
    return this.lane(this.raw.id(row)).result;
  }

  /** Runs user code of the test in `row` to its end. */
  does<T>(row: number, request: (port: UserPort) => Op<T>): T {
    if (!this.begin(row, request)) throw new Error(`environment ${row} did not finish`);
    return this.result(row) as T;
  }

  /** Begins a kernel call. True: it is answered, see `answer`. */
  calls(row: number, name: CallName | number, ...args: readonly number[]): boolean {
    const number = typeof name === 'number' ? name : Call[name];
    return this.begin(row, function* (port): Op<Outcome> {
      const { status, value } = yield* port.call(number, ...args);
      const message = Array.from({ length: RESULTS }, (_, n) => port.result(n + 1));
      return { status, value, message };
    });
  }

  answer(row: number): Outcome {
    return this.result(row) as Outcome;
  }

  /** One kernel call, answered at once. */
  call(row: number, name: CallName | number, ...args: readonly number[]): Outcome {
    if (!this.calls(row, name, ...args)) throw new Error(`call ${name} of ${row} has no answer`);
    return this.answer(row);
  }

  /** One kernel call that must succeed; its value. */
  must(row: number, name: CallName, ...args: readonly number[]): number {
    const { status, value } = this.call(row, name, ...args);
    if (status === Status.ok) return value;
    throw new Error(`${name}(${args.join(', ')}) refused: ${statusName(status)} (${value})`);
  }

  /** One kernel call that is done in steps: made until nothing remains; how many it took. */
  steps(row: number, name: CallName, ...args: readonly number[]): number {
    for (let n = 1; n <= PATIENCE; n++) {
      const { status, value } = this.call(row, name, ...args);
      if (status === Status.ok) return n;
      if (status !== Status.again) throw new Error(`${name}: ${statusName(status)} (${value})`);
    }
    throw new Error(`${name}(${args.join(', ')}) does not end`);
  }

  /**
   * A child of `row`, named by its slot 0: created, with tables down to a leaf table and a stack
   * page if asked, and started on the scripted image if asked.
   */
  child(row: number, name: readonly number[], how: ChildConfig = {}): Home {
    const { raw } = this;
    const take = (): number => {
      const page = raw.free();
      this.must(row, 'pageAllocate', page, 0);
      return page;
    };
    const { a, b } = packName(name);
    const index = raw.freeRow();
    const root = take();
    const account = how.account ?? -1;
    const id = this.must(row, 'envCreate', index, root, 0, a, b, -1, account);
    const home = { row: index, id, root, middle: 0, leaf: 0, ledger0: 0, ledger1: 0, stack: 0 };
    if (how.tables === true) {
      home.middle = take();
      this.must(row, 'tableCreate', root, 0, home.middle, 0, 0, 0, 0);
      [home.leaf, home.ledger0, home.ledger1] = [take(), take(), take()];
      this.must(row, 'tableCreate', home.middle, 0, home.leaf, 0, home.ledger0, home.ledger1, 0);
      home.stack = take();
      const flags = MAP_READ | MAP_WRITE;
      // By the child's own slot 0, so the page must be of the child's name.
      this.must(row, 'accessAdd', home.stack, 0, 1, a, b, READ | WRITE);
      this.must(row, 'pageMap', home.leaf, Start.stackPage, home.stack, 0, 1, flags, 0);
    }
    if (how.start !== false) this.must(row, 'envStart', id, 0, Entry.main, 0, 0, 0);
    return { ...home, extent: -1 };
  }

  /** Lets the machine go on without a request, everybody idle. */
  run(cycles: number): void {
    this.#wanted = 0;
    this.machine.run(this.machine.now() + cycles);
  }

  // ---- faults -----------------------------------------------------------------------------------

  /** Switches fault upcalls on: faults are recorded, and the thread that faulted is left. */
  catches(row: number): void {
    this.must(row, 'upcallSet', Upcall.fault, Entry.fault, FRAMES);
  }

  catchesSlices(row: number): void {
    this.must(row, 'upcallSet', Upcall.sliceBegin, Entry.begin, BEGIN_MASK);
    this.must(row, 'upcallSet', Upcall.sliceEnd, Entry.end, END_MASK);
  }

  /** Switches the upcalls of revocation on. */
  catchesRevocation(row: number): void {
    this.must(row, 'upcallSet', Upcall.revoke, Entry.revoke, REVOKE_MASK);
    this.must(row, 'upcallSet', Upcall.repossessed, Entry.repossessed, LOSS_MASK);
  }

  /** One access by a thread of its own: what it read or wrote, or the fault. Needs `catches`. */
  access(row: number, va: number, store: number | null = null): number | Fault {
    const lane = this.lane(this.raw.id(row));
    const before = lane.faults.length;
    const finished = this.begin(row, function* (port): Op<unknown> {
      const here = port.thread();
      const box: { value: number | null } = { value: null };
      lane.probe = function* (): Op<void> {
        box.value =
          store === null
            ? (port.load32(va) ?? (yield* port.fault()))
            : (port.store32(va, store) ?? (yield* port.fault()));
        yield* port.switchTo(here);
      };
      yield* port.switchTo(port.spawn(Entry.prober));
      return box.value;
    });
    const fault = lane.faults[before];
    if (fault !== undefined) return fault;
    // Dead of it: no handler, or none that could be reached.
    return finished ? (this.result(row) as number) : { cause: 0, address: va };
  }

  // ---- the probe --------------------------------------------------------------------------------

  enter(trap: Trap): void {
    this.#entered = null;
    if (trap.cause !== Cause.environmentCall) return;
    const caller = this.raw.cpu(Cpu.current);
    const { contexts, memory } = this.machine;
    const args = Array.from({ length: 8 }, (_, n) => contexts.argument(caller, n + 1));
    this.#entered = { caller, number: contexts.argument(caller, 0), args, references: 0 };
    this.#before.set(memory.u8);
  }

  performed(references: number): void {
    if (this.#entered !== null) this.#entered.references = references;
  }

  exit(): void {
    const entered = this.#entered;
    this.#entered = null;
    if (entered === null) {
      this.onExit(null);
      return;
    }
    const { contexts } = this.machine;
    const { caller } = entered;
    const answered = contexts.exists(caller) && this.raw.stateOf(caller) === EnvState.ready;
    const status = answered ? contexts.argument(caller, STATUS_REGISTER) : null;
    const value = answered ? contexts.argument(caller, STATUS_REGISTER + 1) : 0;
    if (status !== null && isRefusal(status)) {
      this.refusals.set(status, (this.refusals.get(status) ?? 0) + 1);
      const call = `${callName(entered.number)}(${entered.args.join(', ')})`;
      // What a batch performed before the refused call stays performed.
      if (entered.number !== Call.batch || value === 0) this.#unchanged(caller, call);
    }
    this.onExit({ ...entered, status, value });
  }

  /** A refused call has changed nothing but what is listed in the head of this file. */
  #unchanged(caller: number, call: string): void {
    const { memory } = this.machine;
    const after = memory.u8;
    const before = new Int32Array(this.#before.buffer);
    const hash = memory.hash();
    const changed: number[] = [];
    for (let page = 0; page < memory.pages; page++) {
      const [from, to] = [page * PAGE_BYTES, (page + 1) * PAGE_BYTES];
      if (Buffer.compare(this.#before.subarray(from, to), after.subarray(from, to)) === 0) continue;
      for (let word = page * PAGE_WORDS; word < (page + 1) * PAGE_WORDS; word++) {
        if (before[word] !== memory.i32[word]) changed.push(word);
      }
    }
    for (const word of changed) {
      const now = memory.i32[word] ?? 0;
      if (this.raw.isSaveArea(word, caller)) continue;
      if (this.raw.isAccessedBit(word, (before[word] ?? 0) ^ now)) continue;
      throw new Error(`${call} was refused and changed ${this.raw.describe(word)}`);
    }
    // The same by the machine's own hash: with those words put back it is what it was.
    const kept = changed.map((word) => memory.i32[word] ?? 0);
    changed.forEach((word) => memory.put(word * 4, before[word] ?? 0));
    const back = memory.hash();
    changed.forEach((word, n) => memory.put(word * 4, kept[n] ?? 0));
    const again = memory.hash();
    if (again.a !== hash.a || again.b !== hash.b) throw new Error('the hash is not a hash');
    const was = this.#hashBefore;
    if (back.a !== was.a || back.b !== was.b) throw new Error(`${call} was refused; hash differs`);
  }

  #hashBefore = { a: 0, b: 0 };
  noteHash(): void {
    this.#hashBefore = this.machine.memory.hash();
  }
}

/** The kernel, with eyes on its door. */
class Probe implements Supervisor {
  readonly #rig: Rig;
  readonly #kernel: Supervisor;
  #booted = false;

  constructor(rig: Rig, kernel: Supervisor) {
    this.#rig = rig;
    this.#kernel = kernel;
  }
  boot(machine: Machine): void {
    this.#kernel.boot(machine);
  }
  dispatch(): Context | null {
    const next = this.#kernel.dispatch();
    if (this.#booted) this.#rig.exit();
    this.#booted = true;
    return next;
  }
  trap(trap: Trap): void {
    this.#rig.noteHash();
    this.#rig.enter(trap);
    const { machine } = this.#rig;
    const before = machine.references();
    this.#kernel.trap(trap);
    this.#rig.performed(machine.references() - before - ENTRY);
  }
}

// ---- the program --------------------------------------------------------------------------------

function scripted(rig: Rig): Image {
  const load = (port: UserPort): ((...args: number[]) => Op<void>)[] => {
    const own = { id: 0 };
    const lane = (): Lane => rig.lane(own.id);
    const leave = { thread: 0 };
    return [
      function* (self = 0): Op<void> {
        own.id = self;
        for (;;) {
          const { request } = lane();
          if (request !== null) {
            lane().request = null;
            const result = yield* request(port);
            lane().result = result;
            lane().done = true;
          } else if (rig.wanted === self || rig.wanted === 0) {
            port.work(20) ?? (yield* port.fault());
          } else {
            const { status } = yield* port.call(Call.yield, rig.wanted);
            if (status !== Status.ok) yield* port.call(Call.yield, -1);
          }
        }
      },
      function* (cause = 0, address = 0): Op<void> {
        const fault = { cause, address };
        lane().faults.push(fault);
        const standing = port.load32(FRAMES) ?? (yield* port.fault());
        const { onFault } = lane();
        if (onFault !== null) yield* onFault(port, fault);
        port.store32(FRAMES, standing - 1) ?? (yield* port.fault());
        if (onFault === null) yield* port.switchTo(leave.thread);
      },
      function* (): Op<void> {
        lane().begins++;
        port.store32(BEGIN_MASK, 0) ?? (yield* port.fault());
      },
      function* (): Op<void> {
        lane().ends++;
        const { onEnd } = lane();
        if (onEnd !== null) yield* onEnd(port);
        port.store32(END_MASK, 0) ?? (yield* port.fault());
        if (onEnd === null) yield* port.call(Call.yield, -1);
      },
      function* (): Op<void> {
        const { probe } = lane();
        if (probe !== null) yield* probe();
        yield* port.switchTo(leave.thread);
      },
      function* (wanted = 0, cycles = 0): Op<void> {
        const { onRevoke, revokes } = lane();
        revokes.push([wanted, cycles]);
        if (onRevoke !== null) yield* onRevoke(port, wanted);
        port.store32(REVOKE_MASK, 0) ?? (yield* port.fault());
      },
      function* (total = 0): Op<void> {
        const { onRepossessed, losses } = lane();
        losses.push(total);
        if (onRepossessed !== null) yield* onRepossessed(port, total);
        port.store32(LOSS_MASK, 0) ?? (yield* port.fault());
      },
    ];
  };
  return { name: 'scripted', entryCount: 7, load };
}

/** `again` is no refusal, a step was done; nor is `interrupted`, a wait is over. */
export const isRefusal = (status: number): boolean =>
  status !== Status.ok && status !== Status.again && status !== Status.interrupted;

// ---- names --------------------------------------------------------------------------------------

const nameIn = (table: Readonly<Record<string, number>>, value: number): string =>
  Object.entries(table).find(([, number]) => number === value)?.[0] ?? `${value}`;
export const statusName = (status: number): string => nameIn(Status, status);
export const callName = (number: number): string => nameIn(Call, number);

export const CALLS = Object.keys(Call) as CallName[];
export { CALL_COUNT, GRACE };
