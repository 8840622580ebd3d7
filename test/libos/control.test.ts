/**
 * Processor time in the hands of a library: a stride scheduler over directed yield, critical
 * sections that defer the end of a slice, and handlers of revocation. What runs is LibOS programs
 * on the exokernel; what is measured is who the kernel returned to, and when.
 */
import { describe, expect, test } from 'vitest';
import {
  Env,
  EnvState,
  GRACE,
  Info,
  MAP_READ,
  MAP_WRITE,
  packName,
  Start,
  Status,
} from '../../kernel/abi.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { Cpu } from '../../kernel/exokernel/state.ts';
import type { Context, Machine, Supervisor, Trap } from '../../kernel/supervisor.ts';
import { image, LibOS, type Op, OWN_ENTRIES } from '../../libos/libos.ts';
import { FreePages } from '../../libos/parts/free-pages.ts';
import { Stride } from '../../libos/parts/stride.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Entry, Image } from '../../machine/user-port.ts';

const SLICE = 20_000;
const TABLE = Start.freePages * PAGE_BYTES; // of the scheduler
const SPIN = OWN_ENTRIES; // entry of a client
const NAP = OWN_ENTRIES + 1;

/** A run of the kernel to an environment. */
interface Run {
  readonly env: number; // row
  readonly cycles: number;
}

/** The kernel, and a list of whom it returned to, each until the next. */
class Watch implements Supervisor {
  readonly kernel: Exokernel;
  readonly machine: PhysicalMachine;
  readonly runs: Run[] = [];
  /** How often the CPU went from environment 1 to 2 while this word of the former was set. */
  broken = 0;
  #since = 0;
  #env = 0;

  constructor(kernel: Exokernel, images: readonly Image[]) {
    this.kernel = kernel;
    this.machine = new PhysicalMachine({ pages: 256, images, medium: new RamMedium(8) });
    this.machine.boot(this);
  }
  boot(machine: Machine): void {
    this.kernel.boot(machine);
  }
  trap(trap: Trap): void {
    this.kernel.trap(trap);
  }
  dispatch(): Context | null {
    const next = this.kernel.dispatch();
    const env = this.#word(this.kernel.state.cpu.address(0, Cpu.current));
    if (env === this.#env) return next;
    const now = this.machine.now();
    this.runs.push({ env: this.#env, cycles: now - this.#since });
    if (this.#env === 1 && env === 2) this.broken += this.memory(1)[0] ?? 0;
    [this.#env, this.#since] = [env, now];
    return next;
  }

  /** A word, read past the kernel and without charge. */
  #word(pa: number): number {
    return this.machine.memory.i32[pa >>> 2] ?? 0;
  }
  /** Words that stand in the first environment's memory at TABLE; none if nothing is mapped. */
  memory(count: number): number[] {
    const table = (page: number, index: number): number =>
      (this.#word(page * PAGE_BYTES + index * 8) >>> 10) & 0xfffff;
    const root = this.#word(this.kernel.state.env.address(1, Env.root));
    const page = table(table(table(root, 0), 0), TABLE / PAGE_BYTES);
    if (page === 0) return [];
    return Array.from({ length: count }, (_, n) => this.#word(page * PAGE_BYTES + n * 4));
  }
  cycles(env: number): number {
    const own = this.runs.filter((one) => one.env === env);
    return own.reduce((sum, { cycles }) => sum + cycles, 0);
  }
}

/** Tenants of one image each, after `cycles`. */
function run(images: readonly Image[], cycles: number, slices = 4): Watch {
  const config = { environments: 32, slices, sliceCycles: SLICE, extents: 8 };
  const tenants = images.map((_, n) => ({
    image: n,
    quota: 40,
    firstBlock: 0,
    blocks: 0,
    ...(n === 2 ? { name: [] } : {}),
  }));
  const watch = new Watch(new Exokernel(config, tenants), images);
  watch.machine.run(cycles);
  return watch;
}

abstract class Program extends LibOS {
  readonly pages = new FreePages(this.sys);

  *must(answer: Op<{ status: number; value: number }>): Op<number> {
    const { status, value } = yield* answer;
    if (status !== Status.ok) throw new Error(`refused: ${status} (${value})`);
    return value;
  }
  /** Memory at TABLE. */
  *memory(leaf: number): Op<number> {
    const page = yield* this.pages.take(0);
    const index = TABLE / PAGE_BYTES;
    yield* this.must(this.sys.pageMap(leaf, index, page, 0, 0, MAP_READ | MAP_WRITE, 0));
    return page;
  }
  /** An environment in row `row`, without memory, ready at `entry`. */
  *client(row: number, entry: number): Op<number> {
    const root = yield* this.pages.take(0);
    const id = yield* this.must(this.sys.envCreate(row, root, 0, packName([1, row]), -1));
    yield* this.must(this.sys.envStart(id, 0, entry, [0, 0], 0));
    return id;
  }
  override entries(): readonly Entry[] {
    return [() => this.spin(), () => this.nap()];
  }
  *spin(): Op<void> {
    for (;;) this.port.work(1_000) ?? (yield* this.port.fault());
  }
  /** Works a little, and waits for an event or some slices. */
  *nap(): Op<void> {
    for (;;) {
      this.port.work(500) ?? (yield* this.port.fault());
      yield* this.sys.sleep(0, 10 * SLICE);
    }
  }
}

// ---- stride -------------------------------------------------------------------------------------

/** Three clients that compute, with 3, 2 and 1 tickets; perhaps others that are of no use. */
let useless = false; // clients

class Scheduler extends Program {
  override *main(self: number, _root: number, _middle: number, leaf: number): Op<void> {
    yield* this.memory(leaf);
    const stride = new Stride(this.sys, TABLE, 8);
    for (const [n, tickets] of [3, 2, 1].entries()) {
      yield* stride.add(yield* this.client(10 + n, SPIN), tickets);
    }
    if (useless) {
      yield* stride.add(yield* this.client(13, NAP), 6);
      const dead = yield* this.client(14, SPIN);
      yield* stride.add(dead, 100);
      yield* this.must(this.sys.envDestroy(dead, 0, 0));
      yield* this.must(this.sys.envReap(dead, 0));
      expect(yield* stride.add(self + 1, 1)).toBe(true); // nobody
    }
    for (;;) yield* stride.serve();
  }
}
const scheduler = image('scheduler', (port) => new Scheduler(port), 2);

/** How often, and for how many cycles, each of these ran; after the first `skip` of all runs. */
function shares({ runs }: Watch, envs: readonly number[], turns: number): number[][] {
  const theirs = runs.filter(({ env }) => envs.includes(env)).slice(0, turns);
  expect(theirs).toHaveLength(turns);
  return envs.map((env) => {
    const own = theirs.filter((one) => one.env === env);
    return [own.length, own.reduce((sum, { cycles }) => sum + cycles, 0)];
  });
}

describe('a stride scheduler', () => {
  test('gives 3 : 2 : 1 of its slices within 1 % over 1,000, in turns and in cycles', () => {
    useless = false;
    const watch = run([scheduler], 1_020 * SLICE);
    const got = shares(watch, [10, 11, 12], 1_000);
    const all = got.reduce((sum, [, cycles = 0]) => sum + cycles, 0);
    got.forEach(([turns = 0, cycles = 0], n) => {
      const due = (3 - n) / 6;
      expect(Math.abs(turns - 1_000 * due)).toBeLessThanOrEqual(10 * due);
      expect(Math.abs(cycles / all - due)).toBeLessThanOrEqual(0.01 * due);
    });
  });

  test('the same with clients that sleep, that died, that never were', () => {
    useless = true;
    const watch = run([scheduler], 1_400 * SLICE);
    const got = shares(watch, [10, 11, 12], 1_000);
    got.forEach(([turns = 0], n) => {
      const due = (3 - n) / 6;
      expect(Math.abs(turns - 1_000 * due)).toBeLessThanOrEqual(30 * due);
    });
    // Who slept has had its turns when it was awake, and has not saved the others up.
    const naps = watch.runs.filter(({ env }) => env === 13);
    expect(naps.length).toBeGreaterThan(50);
    expect(naps.length).toBeLessThan(200);
  });
});

// ---- critical sections --------------------------------------------------------------------------

const SECTION = 2_500; // cycles: half the grace
const LONG = 3 * GRACE;
const INSIDE = TABLE; // words of its memory: 1 within a section
const ENDED = TABLE + 4; // slice ends that its own handler saw
const SECTIONS = TABLE + 8;

let sectionCycles = SECTION;

/** Sections without end, one in the other. */
class Careful extends Program {
  override *main(_self: number, _root: number, _middle: number, leaf: number): Op<void> {
    yield* this.memory(leaf);
    yield* this.catchSlices();
    for (let n = 1; ; n++) {
      yield* this.critical(() => this.#outer());
      yield* this.port.store(SECTIONS, n);
      this.port.work(700) ?? (yield* this.port.fault());
    }
  }
  *#outer(): Op<void> {
    yield* this.port.store(INSIDE, 1);
    yield* this.critical(() => this.#inner());
    yield* this.port.store(INSIDE, 0);
  }
  *#inner(): Op<void> {
    this.port.work(sectionCycles) ?? (yield* this.port.fault());
  }
  override *onSliceEnd(): Op<void> {
    yield* this.port.store(ENDED, (yield* this.port.load(ENDED)) + 1);
    yield* super.onSliceEnd();
  }
}
const careful = image('careful', (port) => new Careful(port), 2);
class Other extends Program {
  override *main(): Op<void> {
    yield* this.spin();
  }
}
const other = image('other', (port) => new Other(port), 2);

describe('a critical section', () => {
  const sideBySide = (cycles: number): Watch => {
    sectionCycles = cycles;
    return run([careful, other], 400 * SLICE);
  };

  test('that is shorter than the grace is not interrupted, and the slice is given up after', () => {
    const watch = sideBySide(SECTION);
    const [, ended = 0, sections = 0] = watch.memory(3);
    expect(watch.broken).toBe(0);
    expect(ended).toBeGreaterThan(150); // most slice ends fell into a section, and were honoured
    expect(sections).toBeGreaterThan(800);
    expect(watch.kernel.state.env.get(1, Env.excess)).toBe(0);
    // What it took of the grace its position paid: half of all, and the switches.
    expect(watch.cycles(1)).toBeLessThan(1.02 * watch.cycles(2) + 2 * SLICE);
  });

  test('that is longer is interrupted all the same, and paid for with turns', () => {
    const watch = sideBySide(LONG);
    expect(watch.broken).toBeGreaterThan(50);
    expect(watch.cycles(1)).toBeLessThan(watch.cycles(2));
    expect(watch.kernel.state.stateOf(1)).toBe(EnvState.ready); // forfeited turns pay for it
  });
});

// ---- revocation ---------------------------------------------------------------------------------

const SEEN = TABLE + 64; // wanted, cycles, losses

/** Gives nothing back, and writes down what it hears. */
class Miser extends Program {
  override *main(_self: number, _root: number, _middle: number, leaf: number): Op<void> {
    yield* this.memory(leaf);
    yield* this.catchRevocation();
    for (let n = 0; n < 4; n++) yield* this.pages.take(0);
    const answer = yield* this.sys.ipcReplyWait(-1, []);
    yield* this.port.store(SEEN + 12, answer.status);
    yield* this.spin();
  }
  override *onRevoke(wanted: number, cycles: number): Op<void> {
    yield* this.port.store(SEEN, wanted);
    yield* this.port.store(SEEN + 4, cycles);
  }
  override *onRepossessed(losses: number): Op<void> {
    yield* this.port.store(SEEN + 8, losses);
  }
}
const miser = image('miser', (port) => new Miser(port), 2);

/** The third tenant, whose name is empty: asks the first for pages, and takes the last of them. */
class Broker extends Program {
  override *main(): Op<void> {
    yield* this.sys.sleep(-1, 0);
    const seen = yield* this.port.load(
      Start.envPages * PAGE_BYTES + Env.words * 12 + Env.events * 4,
    );
    yield* this.sys.sleep(seen, 10 * SLICE);
    const pages = yield* this.port.load(Start.infoPage * PAGE_BYTES + Info.pages * 4);
    yield* this.must(this.sys.revoke(1, 0, 3, { first: 0, pages }, 2, 100_000));
    yield* this.sys.sleep(seen, 20 * SLICE);
    for (let page = pages - 1, taken = 0; taken < 2 && page >= 0; page--) {
      if ((yield* this.sys.repossess(1, 0, page)).status === Status.ok) taken++;
    }
    yield* this.spin();
  }
}
const broker = image('broker', (port) => new Broker(port), 2);

test('what a library hears of revocation, and what it loses', () => {
  const watch = run([miser, other, broker], 100 * SLICE, 6);
  const words = watch.memory(20);
  const [wanted, cycles = 0, losses, status] = words.slice(16);
  expect([wanted, losses, status]).toEqual([2, 2, Status.interrupted]);
  expect(cycles).toBeGreaterThan(0);
  expect(cycles).toBeLessThanOrEqual(100_000);
});
