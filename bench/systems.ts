/**
 * Figures that have no limit: what a supervisor's counted load costs the host, on the hardware and
 * in a virtual machine, and how long the smallest library OS takes, from bare machine to halt.
 */
import { Bench, type Task } from 'tinybench';
import { assert } from '../machine/assert.ts';
import { PhysicalMachine } from '../machine/physical.ts';
import { NEVER } from '../machine/units.ts';
import type { Op, UserPort } from '../machine/user-port.ts';
import { Exokernel } from '../kernel/exokernel/exokernel.ts';
import { Hypervisor } from '../kernel/hypervisor/hypervisor.ts';
import {
  Cause,
  type Context,
  type Machine,
  type Supervisor,
  type Trap,
} from '../kernel/supervisor.ts';
import { Unikernel } from '../kernel/unikernel/unikernel.ts';
import { minimal } from '../libos/minimal/minimal.ts';
import { BOARD_PAGES, mapUser } from './board.ts';
import { median, processorTime } from './race.ts';

const HYPERVISOR = { sliceCycles: 1_000_000, backing: 'populate', secondStage: '4KiB' } as const;

// ---- a supervisor's loads -----------------------------------------------------------------------

const AREA = 16 * 4096; // bytes that the loads go round in
const LOADS = 50_000;
const ROUNDS = 15;

export interface SupervisorLoads {
  readonly physical: number; // ns
  readonly virtual: number;
}

export function supervisorLoads(): SupervisorLoads {
  physicalLoads(); // both once, that neither is the first to run
  virtualLoads();
  return { physical: physicalLoads(), virtual: virtualLoads() };
}

function physicalLoads(): number {
  const supervisor = new Loader();
  const machine = new PhysicalMachine({ pages: BOARD_PAGES, images: [caller] });
  machine.boot(supervisor);
  machine.run();
  return median(supervisor.turns);
}

function virtualLoads(): number {
  const supervisor = new Loader();
  const guest = {
    supervisor,
    images: [caller],
    pages: BOARD_PAGES + 1, // the disk ring has one
    firstBlock: 0,
    blocks: 16,
    channel: 1,
  };
  const machine = new PhysicalMachine({ pages: 2 * BOARD_PAGES, images: [] });
  machine.boot(new Hypervisor(HYPERVISOR, [guest]));
  machine.run();
  return median(supervisor.turns);
}

const caller = {
  name: 'caller',
  entryCount: 1,
  load: (port: UserPort) => [
    function* (): Op<void> {
      for (;;) yield* port.call(0);
    },
  ],
};

/** Loads words of its machine in each trap, and writes down how long that took. */
class Loader implements Supervisor {
  readonly turns: number[] = []; // ns a load
  #machine: Machine | null = null;

  boot(machine: Machine): void {
    this.#machine = machine;
    mapUser(machine);
    machine.setTimer(NEVER);
    machine.contexts.create(1, 0, 'user');
    machine.contexts.start(1, 0, []);
  }

  dispatch(): Context | null {
    assert(this.#machine !== null, 'loader: booted');
    const done = this.turns.length === ROUNDS;
    return done ? null : this.#machine.contexts.context(1);
  }

  trap({ cause }: Trap): void {
    const machine = this.#machine;
    assert(machine !== null, 'loader: booted');
    if (cause !== Cause.environmentCall) return; // a slice of the hypervisor's
    machine.contexts.setResult(1, 0, 0);
    const from = processorTime();
    let sum = 0;
    for (let n = 0; n < LOADS; n++) sum = (sum + machine.load((n << 2) & (AREA - 1))) | 0;
    this.turns.push((processorTime() - from) / LOADS);
    assert(sum !== 0, 'loader: the tables were read');
  }
}

// ---- whole systems ------------------------------------------------------------------------------

const PAGES = 1_024;
const TENANT = { image: 0, quota: 256, firstBlock: 0, blocks: 16 };
const EXPECTED = 'minimal: 9592 primes below 100000\n';

export interface Systems {
  readonly exokernelMs: number;
  readonly virtualMs: number;
}

/** Medians of whole runs. Long, independent and without a ratio: what a library is for. */
export function systems(): Systems {
  const bench = new Bench({ time: 1_000, warmupTime: 300, throws: true });
  bench.add('exokernel', () => {
    const config = { environments: 16, slices: 4, sliceCycles: 100_000, extents: 16 };
    runMinimal((output) => {
      const machine = new PhysicalMachine({ pages: PAGES, images: [minimal], output });
      machine.boot(new Exokernel(config, [TENANT]));
      return machine;
    });
  });
  bench.add('vm', () => {
    runMinimal((output) => {
      const supervisor = new Unikernel({ environments: 16, sliceCycles: 100_000 }, TENANT, 1);
      const guest = {
        supervisor,
        images: [minimal],
        pages: PAGES,
        firstBlock: 0,
        blocks: 16,
        channel: 1,
      };
      const machine = new PhysicalMachine({ pages: 2 * PAGES, images: [], output });
      machine.boot(new Hypervisor(HYPERVISOR, [guest]));
      return machine;
    });
  });
  const [exokernelMs, virtualMs] = bench.runSync().map(medianOf) as [number, number];
  return { exokernelMs, virtualMs };
}

function runMinimal(
  boot: (output: (channel: number, bytes: Uint8Array) => void) => PhysicalMachine,
): void {
  let printed = '';
  const machine = boot((_channel, bytes) => (printed += new TextDecoder().decode(bytes)));
  assert(machine.run() === 'halted', 'systems: the machine comes to rest');
  assert(printed === EXPECTED, `systems: minimal counts its primes, not "${printed}"`);
}

function medianOf({ result }: Task): number {
  assert(result.state === 'completed', 'systems: the run was measured');
  return result.latency.p50;
}
