/**
 * Fairness, measured from outside: an environment that is always ready, and holds q of the N slice
 * positions, gets its share of any stretch of time less a constant, whatever its neighbour does.
 * The share is what it gets beside a neighbour that only computes; the stretches are all between
 * two kernel exits of a run of hundreds of rotations, so that whatever is lost again and again
 * shows.
 */
import { describe, expect, test } from 'vitest';
import {
  BATCH_MAX,
  Call,
  DISK_WRITE,
  Env,
  EnvState,
  GRACE,
  MAP_READ,
  MAP_WRITE,
  Operator,
  packName,
  PREDICATE_TERMS,
  Start,
  Upcall,
} from '../../kernel/abi.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { Cpu } from '../../kernel/exokernel/state.ts';
import type { Context, Machine, Supervisor, Trap } from '../../kernel/supervisor.ts';
import { type Cost, RISCV } from '../../machine/costs.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Entry, Op, UserPort } from '../../machine/user-port.ts';

const SLICES = 8; // tenants in turn: neighbour, victim, and two that only compute
const SLICE = 20_000;
const ROTATION = SLICES * SLICE;
const ROTATIONS = 1000;
/**
 * What may be missing from any stretch: the latest that a neighbour can leave, a few times over.
 */
const CONSTANT = 2 * SLICE;
/** To store a neighbour's registers is in the victim's slice, and some leave more than others. */
const SWITCH = 100; // cycles a slice

const VICTIM = 2; // row
const MINE = [0, 4] as const; // positions of the neighbour
const PAGES = 128;
const BOOT = 400_000; // cycles
const PAGES_EACH = 4; // of a disk request
const quick = (value: number): Cost => ({ value, source: 'test: often' });
const DISK = { ...RISCV, diskAccess: quick(1_000), diskBlock: quick(100) };
const STACK = Start.stackPage * PAGE_BYTES;
const MASK = STACK + 1024;
const LIST = STACK + 2048;
const RW = MAP_READ | MAP_WRITE;

// ---- the rig ------------------------------------------------------------------------------------

/** How much the victim has lost of its share in the worst stretch so far. */
class Ledger {
  readonly #share: number;
  #cycles = 0; // that the victim has had
  #best = -Infinity; // of cycles less share, so far
  worst = 0;

  /** @param share of all cycles that the victim is to have */
  constructor(share: number) {
    this.#share = share;
  }
  get cycles(): number {
    return this.#cycles;
  }
  add(cycles: number, now: number): void {
    this.#cycles += cycles;
    const ahead = this.#cycles - this.#share * now;
    this.#best = Math.max(this.#best, ahead);
    this.worst = Math.max(this.worst, this.#best - ahead);
  }
}

/** The kernel, with a clock at its door: what the victim spends outside it is its own. */
class Timekeeper implements Supervisor {
  readonly #kernel: Exokernel;
  readonly #ledger: Ledger;
  #machine: Machine | null = null;
  #left = 0; // when the kernel was left
  #runs = 0; // row that runs

  constructor(kernel: Exokernel, ledger: Ledger) {
    this.#kernel = kernel;
    this.#ledger = ledger;
  }
  boot(machine: Machine): void {
    this.#machine = machine;
    this.#kernel.boot(machine);
  }
  get #now(): number {
    return this.#machine?.now() ?? 0;
  }
  trap(trap: Trap): void {
    const spent = this.#runs === VICTIM ? this.#now - this.#left : 0;
    this.#ledger.add(spent, this.#now);
    this.#kernel.trap(trap);
  }
  dispatch(): Context | null {
    const next = this.#kernel.dispatch();
    this.#runs = this.#kernel.state.cpu.get(0, Cpu.current);
    this.#left = this.#now;
    return next;
  }
}

/** Entries of a neighbour: the first environment's, a child's, and a handler of slice ends. */
const CHILD = 1;
const HANDLER = 2;

interface Neighbour {
  readonly main: (port: UserPort, home: Home) => Op<void>;
  readonly child?: (port: UserPort, args: readonly number[]) => Op<void>;
  readonly onEnd?: (port: UserPort) => Op<void>;
  /** Whether it did what it is here for. */
  readonly did: (seen: Seen) => boolean;
}
interface Seen {
  readonly calls: number;
  readonly interrupts: number;
  readonly upcalls: number;
  readonly births: number; // of environments in row ROW
  readonly sleepers: number;
}
interface Home {
  readonly self: number;
  readonly leaf: number;
  readonly extent: number;
}

function* spin(port: UserPort): Op<void> {
  for (;;) port.work(500) ?? (yield* port.fault());
}

const load =
  ({ main, child, onEnd }: Neighbour) =>
  (port: UserPort): readonly Entry[] => [
    (self = 0, _root = 0, _middle = 0, leaf = 0, _quota = 0, extent = 0) =>
      main(port, { self, leaf, extent }),
    (...args) => (child ?? spin)(port, args),
    () => (onEnd ?? spin)(port),
  ];

const IDEAL: Neighbour = { main: spin, did: () => true };

/** The worst of a run beside `neighbour`, and the victim's part of all cycles. */
function run(
  neighbour: Neighbour,
  share: number,
  victim: Neighbour = IDEAL,
  tenantCount = 4,
): { worst: number; part: number; seen: Seen } {
  const images = [
    { name: 'neighbour', entryCount: 3, load: load(neighbour) },
    { name: 'victim', entryCount: 3, load: load(victim) },
    { name: 'other', entryCount: 3, load: load(IDEAL) },
  ];
  const config = { environments: 16, slices: SLICES, sliceCycles: SLICE, extents: 8 };
  const tenants = [
    { image: 0, quota: 32, firstBlock: 0, blocks: 8 },
    ...[1, 2, 2].map((image) => ({ image, quota: 0, firstBlock: 8, blocks: 0 })),
  ].slice(0, tenantCount);
  const kernel = new Exokernel(config, tenants);
  const machine = new PhysicalMachine({
    pages: PAGES,
    images,
    medium: new RamMedium(16),
    profile: DISK,
  });
  const ledger = new Ledger(share);
  machine.boot(new Timekeeper(kernel, ledger));
  machine.run(BOOT); // the kernel reads its table, the neighbour makes itself ready
  const [before, began] = [ledger.cycles, machine.now()];
  ledger.worst = 0;
  machine.run(began + ROTATIONS * ROTATION);
  const part = (ledger.cycles - before) / (machine.now() - began);
  const { state } = kernel;
  const sleeps = (row: number): boolean => state.stateOf(row) === EnvState.sleeping;
  const counts = machine.hart.counters.totals();
  const seen = {
    calls: counts.kernelCalls,
    interrupts: counts.externalInterrupts,
    upcalls: counts.upcalls,
    births: state.env.get(ROW, Env.generation),
    sleepers: [1, 2, 3, 4, 5].filter(sleeps).length,
  };
  return { worst: ledger.worst, part, seen };
}

// ---- what neighbours do -------------------------------------------------------------------------

/** Does calls that must be done: a refusal ends the neighbour, and the test with it. */
function* must(port: UserPort, ...call: readonly [number, ...number[]]): Op<number> {
  const { status, value } = yield* port.call(...call);
  if (status !== 0) throw new Error(`${call.join(' ')}: ${status} (${value})`);
  return value;
}

/** Own pages, from the end of memory on. */
const page = (n: number): number => PAGES - 1 - n;
const ROW = 5; // of a child
const NAME = packName([1]);

/** A child in row ROW with a page of memory at STACK; pages 0 to 5 have been taken for it. */
function* makeChild(port: UserPort, home: Home): Op<number> {
  const [root, middle, leaf] = [page(0), page(1), page(2)];
  const id = yield* must(port, Call.envCreate, ROW, root, 0, NAME.a, NAME.b, -1, -1);
  yield* must(port, Call.tableCreate, root, 0, middle, 0, 0, 0, 0);
  yield* must(port, Call.tableCreate, middle, 0, leaf, 0, page(3), page(4), 0);
  yield* must(port, Call.pageMap, leaf, Start.stackPage, page(5), 0, 0, RW, 0);
  yield* must(port, Call.envStart, id, 0, CHILD, home.self, 0, 0);
  return id;
}
function* takePages(port: UserPort): Op<void> {
  for (let n = 0; n < 6; n++) yield* must(port, Call.pageAllocate, page(n), 0);
}
function* reapChild(port: UserPort, id: number): Op<void> {
  yield* must(port, Call.pageUnmap, page(2), Start.stackPage, 1, 0);
  yield* must(port, Call.tableDestroy, page(2), 0);
  yield* must(port, Call.tableDestroy, page(1), 0);
  yield* must(port, Call.envReap, id, 0);
}
function* givePositions(port: UserPort, id: number): Op<void> {
  yield* must(port, Call.sliceFree, MINE[1], 0);
  yield* must(port, Call.sliceAllocate, MINE[1], id, 0);
}

function* catchEnd(port: UserPort): Op<void> {
  port.store32(MASK, 0) ?? (yield* port.fault());
  yield* must(port, Call.upcallSet, Upcall.sliceEnd, HANDLER, MASK);
}
/** Takes the slice's end for told, and goes on. */
function* ignore(port: UserPort): Op<void> {
  port.store32(MASK, 0) ?? (yield* port.fault());
}
const BATCH_WORDS = [Call.consoleWrite, STACK, 2048] as const;
/** Lists a batch of calls that are long: what a slice's end has to wait for. */
function* listLong(port: UserPort): Op<void> {
  for (let n = 0; n < BATCH_MAX * BATCH_WORDS.length; n++) {
    const word = BATCH_WORDS[n % BATCH_WORDS.length] ?? 0;
    port.store32(LIST + n * 4, word) ?? (yield* port.fault());
  }
}
/** Asks the disk for something, if it takes more; else computes. */
function* ask(port: UserPort, extent: number, blocks: number, flags: number): Op<void> {
  const { status } = yield* port.call(Call.diskRequest, extent, 0, 0, blocks, LIST, 0, flags);
  if (status !== 0) port.work(500) ?? (yield* port.fault());
}
function* listPages(port: UserPort): Op<void> {
  yield* takePages(port);
  for (let n = 0; n < PAGES_EACH; n++) {
    port.store32(LIST + n * 4, page(n)) ?? (yield* port.fault());
  }
}

const overrunning = { onEnd: ignore } as const;
const NEIGHBOURS: Readonly<Record<string, Neighbour>> = {
  'computes without end': IDEAL,
  'overruns the grace of each slice': {
    ...overrunning,
    *main(port) {
      yield* catchEnd(port);
      yield* spin(port);
    },
    did: ({ upcalls }) => upcalls > ROTATIONS / 2,
  },
  'uses the grace of each slice to the last': {
    *main(port) {
      yield* catchEnd(port);
      yield* spin(port);
    },
    *onEnd(port) {
      port.work(GRACE - 600) ?? (yield* port.fault());
      yield* ignore(port);
      yield* must(port, Call.yield, -1);
    },
    did: ({ upcalls }) => upcalls > ROTATIONS,
  },
  'makes calls that overrun the slice, and is told of its end late': {
    *main(port) {
      yield* listLong(port);
      yield* catchEnd(port);
      for (;;) yield* must(port, Call.batch, LIST, BATCH_MAX);
    },
    *onEnd(port) {
      yield* ignore(port);
      yield* must(port, Call.yield, -1);
    },
    did: ({ upcalls }) => upcalls > ROTATIONS / 2,
  },
  'makes such calls, and gives its positions up for the same ones': {
    *main(port, { self }) {
      yield* listLong(port);
      for (;;) {
        yield* must(port, Call.batch, LIST, BATCH_MAX);
        for (const position of MINE) {
          yield* must(port, Call.sliceFree, position, 0);
          yield* must(port, Call.sliceAllocate, position, self, 0);
        }
      }
    },
    did: ({ calls }) => calls > ROTATIONS,
  },
  'gives each slice up at once': {
    *main(port) {
      for (;;) yield* must(port, Call.yield, -1);
    },
    did: ({ calls }) => calls > ROTATIONS,
  },
  'yields to a child and back in a storm': {
    *main(port, home) {
      yield* takePages(port);
      const child = yield* makeChild(port, home);
      for (;;) yield* must(port, Call.yield, child);
    },
    *child(port, [, parent = 0]) {
      for (;;) yield* must(port, Call.yield, parent);
    },
    did: ({ calls }) => calls > 10 * ROTATIONS,
  },
  'gives its slices to a child that overruns them, and dies of it': {
    ...overrunning,
    *main(port, home) {
      yield* takePages(port);
      for (;;) {
        const child = yield* makeChild(port, home);
        while ((yield* port.call(Call.yield, child)).status === 0);
        yield* reapChild(port, child);
      }
    },
    *child(port) {
      yield* catchEnd(port);
      yield* spin(port);
    },
    did: ({ births }) => births > ROTATIONS / 20,
  },
  'calls a child without positions that overruns': {
    ...overrunning,
    *main(port, home) {
      yield* takePages(port);
      const child = yield* makeChild(port, home);
      yield* port.call(Call.ipcCall, child, 0, 0, 0, 0, -1, 0, 0);
    },
    *child(port) {
      yield* port.call(Call.ipcReplyWait, -1, 0, 0, 0, 0, -1, 0, 0);
      yield* catchEnd(port);
      yield* spin(port);
    },
    did: ({ upcalls }) => upcalls > ROTATIONS / 2,
  },
  'is killed at each overrun, and reborn': {
    ...overrunning,
    *main(port, home) {
      yield* takePages(port);
      for (;;) {
        const child = yield* makeChild(port, home);
        yield* givePositions(port, child);
        yield* must(port, Call.yield, -1);
        yield* must(port, Call.envDestroy, child, 0, 0);
        yield* reapChild(port, child);
      }
    },
    *child(port) {
      yield* catchEnd(port);
      yield* spin(port);
    },
    did: ({ births }) => births > ROTATIONS / 4,
  },
  'keeps the disk busy': {
    *main(port, { extent }) {
      yield* listPages(port);
      for (;;) yield* ask(port, extent, 1, DISK_WRITE);
    },
    did: ({ interrupts }) => interrupts > 5 * ROTATIONS,
  },
  'aims its interrupts at the victim': {
    *main(port, { extent }) {
      yield* listPages(port);
      for (;;) {
        port.work(SLICE / 2) ?? (yield* port.fault());
        // They are served one after the other, from here on: all in the next slice.
        for (let n = 0; n < 8; n++) yield* ask(port, extent, PAGES_EACH, DISK_WRITE);
        yield* must(port, Call.yield, -1);
      }
    },
    did: ({ interrupts }) => interrupts > 5 * ROTATIONS,
  },
  'sleeps on what is never true': {
    *main(port, home) {
      yield* takePages(port);
      const child = yield* makeChild(port, home);
      yield* givePositions(port, child);
      yield* spin(port);
    },
    *child(port) {
      const term = [page(5), (Operator.less << 16) | (1 << 24), -1, 0] as const;
      for (let n = 0; n < PREDICATE_TERMS * term.length; n++) {
        port.store32(LIST + n * 4, term[n % term.length] ?? 0) ?? (yield* port.fault());
      }
      yield* port.call(Call.sleep, 0, -1, LIST, PREDICATE_TERMS);
    },
    did: ({ sleepers }) => sleepers === 1,
  },
};

describe('a share of any stretch of time less a constant, beside one who', () => {
  const fair = run(IDEAL, 0).part;
  for (const [does, neighbour] of Object.entries(NEIGHBOURS)) {
    test(does, () => {
      const { worst, seen } = run(neighbour, fair - (SWITCH / ROTATION) * MINE.length);
      expect(worst).toBeLessThan(CONSTANT);
      expect(neighbour.did(seen)).toBe(true);
    });
  }
});

/** Who always owes something itself must not be put on a level with who owes an age. */
test('the same alone with one who overruns, if the victim uses its own grace', () => {
  const name = 'uses the grace of each slice to the last';
  const victim = NEIGHBOURS[name] ?? IDEAL;
  const fair = run(IDEAL, 0, victim, 2).part;
  for (const does of ['makes calls that overrun the slice, and is told of its end late', name]) {
    const neighbour = NEIGHBOURS[does] ?? IDEAL;
    const { worst, seen } = run(neighbour, fair - (SWITCH / ROTATION) * (SLICES / 2), victim, 2);
    expect(worst).toBeLessThan(2 * CONSTANT);
    expect(neighbour.did(seen)).toBe(true);
  }
});
