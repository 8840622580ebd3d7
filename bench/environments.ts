/**
 * Many environments on the exokernel: 10,000 alive at once, and slices that go round among all of
 * them. Each holds a slice position when its turn comes, hands it to the next and gives the slice
 * up, so every switch is the kernel's whole path: call, vector, save, restore, address space.
 *
 * Started by itself it prints what that took of the host: bench/main.ts does, because the memory of
 * a process is that of everything which it has done.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { assert } from '../machine/assert.ts';
import { RamMedium } from '../machine/disk.ts';
import { PhysicalMachine } from '../machine/physical.ts';
import type { Op, UserPort } from '../machine/user-port.ts';
import { Call, EnvState, packName } from '../kernel/abi.ts';
import { Exokernel } from '../kernel/exokernel/exokernel.ts';
import { Cpu } from '../kernel/exokernel/state.ts';
import type { Context, Machine, Supervisor, Trap } from '../kernel/supervisor.ts';
import { processorTime } from './race.ts';

const FILE = fileURLToPath(import.meta.url);
const CHAINS = 63; // positions that go round; the first environment has the other one
const EACH = 159; // environments of a chain
const CROWD = CHAINS * EACH; // 10,017
const SWITCHES = 100_000;
const ROWS = 16_383;
const PAGES = 16_384; // 64 MiB: a root page each, and the kernel's tables
const NAME = packName([1]);
const FIRST = 2; // row of the first of the crowd
const CHILD = 1; // entry

export interface Environments {
  readonly mebibytes: number; // of the host, at most, all in all
  readonly nanoseconds: number; // a switch
}

/** In a process of its own. */
export function environments(): Environments {
  const args = [...process.execArgv, FILE, 'run'];
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' })) as Environments;
}

/** Generations are 1: nobody was there before. */
const idOf = (n: number): number => (1 << 14) | (FIRST + n);

const program = (port: UserPort): ((...args: number[]) => Op<void>)[] => {
  const must = function* (...call: readonly [number, ...number[]]): Op<void> {
    const { status } = yield* port.call(...call);
    assert(status === 0, `environments: call ${call.join(' ')} is not refused: ${status}`);
  };
  return [
    function* (): Op<void> {
      for (let n = 0; n < CROWD; n++) {
        const root = PAGES - 1 - n;
        yield* must(Call.pageAllocate, root, 0);
        yield* must(Call.envCreate, FIRST + n, root, 0, NAME.a, NAME.b, -1, -1);
        // From the n-th to the next of its chain, round and round.
        const next = (n + CHAINS) % CROWD;
        yield* must(Call.envStart, idOf(n), 0, CHILD, 1 + (n % CHAINS), idOf(next), 0);
      }
      for (let n = 0; n < CHAINS; n++) {
        yield* must(Call.sliceFree, 1 + n, 0);
        yield* must(Call.sliceAllocate, 1 + n, idOf(n), 0);
      }
      for (;;) yield* port.call(Call.ipcReplyWait, -1, 0, 0, 0, 0, -1, 0, 0);
    },
    function* (_self = 0, position = 0, next = 0): Op<void> {
      for (;;) {
        yield* must(Call.sliceFree, position, 0);
        yield* must(Call.sliceAllocate, position, next, 0);
        yield* must(Call.yield, -1);
      }
    },
  ];
};

/** The kernel, and how often the CPU went from one of the crowd to another. */
class Counter implements Supervisor {
  readonly kernel: Exokernel;
  readonly #turns = new Int32Array(ROWS); // by row
  switches = 0;
  #last = 0;

  constructor(kernel: Exokernel) {
    this.kernel = kernel;
  }
  boot(machine: Machine): void {
    this.kernel.boot(machine);
  }
  trap(trap: Trap): void {
    this.kernel.trap(trap);
  }
  dispatch(): Context | null {
    const next = this.kernel.dispatch();
    const current = this.kernel.state.cpu.get(0, Cpu.current);
    if (current === this.#last) return next;
    if (this.#last >= FIRST && current >= FIRST) this.switches++;
    this.#turns[current] = (this.#turns[current] ?? 0) + 1;
    this.#last = current;
    return next;
  }
  /** The fewest turns that one of the crowd had. */
  get fewest(): number {
    return this.#turns.subarray(FIRST, FIRST + CROWD).reduce((a, b) => Math.min(a, b));
  }
}

function run(): Environments {
  const config = { environments: ROWS, slices: 1 + CHAINS, sliceCycles: 100_000, extents: 1 };
  const tenant = { image: 0, quota: CROWD, firstBlock: 0, blocks: 0 };
  const image = { name: 'crowd', entryCount: 2, load: program };
  const machine = new PhysicalMachine({ pages: PAGES, images: [image], medium: new RamMedium(4) });
  const counter = new Counter(new Exokernel(config, [tenant]));
  machine.boot(counter);
  const until = (switches: number): void => {
    while (counter.switches < switches) machine.run(machine.now() + 100_000);
  };
  until(1);
  const from = processorTime();
  until(SWITCHES);
  const nanoseconds = (processorTime() - from) / SWITCHES;
  const { state } = counter.kernel;
  let alive = 0;
  for (let n = 0; n < CROWD; n++) if (state.stateOf(FIRST + n) === EnvState.ready) alive++;
  assert(alive === CROWD, 'environments: all are alive');
  assert(counter.fewest >= 9, 'environments: the slices went round among all');
  return { mebibytes: process.resourceUsage().maxRSS / 1024, nanoseconds };
}

if (process.argv[1] === FILE) console.log(JSON.stringify(run()));
