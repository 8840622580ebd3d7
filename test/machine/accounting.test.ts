/**
 * Accounting: every cycle is somebody's, idle time is nobody's, and work that is added shows up as
 * exactly itself, in every mode alike. Otherwise no comparison of modes means anything.
 */
import { describe, expect, test } from 'vitest';

import { type Cost, RISCV } from '../../machine/costs.ts';
import { LAYERS, OWNERS } from '../../machine/counters.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import type { Image } from '../../machine/user-port.ts';
import {
  Cause,
  type Context,
  type Machine,
  type Supervisor,
  type Trap,
} from '../../kernel/supervisor.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { minimal } from '../../libos/minimal/minimal.ts';
import { Cell, program, Script } from './script.ts';

const REFERENCE = RISCV.reference.value + RISCV.instructionsPerReference.value;
const LONG = 2 ** 31 - 1; // a slice that no run here reaches the end of

/** A supervisor that loads one word `taxes` times more in every trap that it answers. */
class Taxed implements Supervisor {
  readonly #inner: Supervisor;
  readonly #taxes: number;
  #machine: Machine | null = null;
  traps = 0;

  constructor(inner: Supervisor, taxes: number) {
    this.#inner = inner;
    this.#taxes = taxes;
  }

  boot(machine: Machine): void {
    this.#machine = machine;
    this.#inner.boot(machine);
  }

  dispatch(): Context | null {
    return this.#inner.dispatch();
  }

  trap(trap: Trap): void {
    this.traps++;
    for (let n = 0; n < this.#taxes; n++) this.#machine?.load(0);
    this.#inner.trap(trap);
  }
}

/** Measures idle time from outside: from a dispatch of nothing to the trap that ends it. */
class Watched implements Supervisor {
  readonly #inner: Supervisor;
  #machine: Machine | null = null;
  #since = -1;
  idle = 0;

  constructor(inner: Supervisor) {
    this.#inner = inner;
  }

  boot(machine: Machine): void {
    this.#machine = machine;
    this.#inner.boot(machine);
  }

  dispatch(): Context | null {
    const next = this.#inner.dispatch();
    const now = this.#machine?.now() ?? 0;
    this.#since = next === null ? now + RISCV.trapReturn.value : -1;
    return next;
  }

  trap(trap: Trap): void {
    const now = (this.#machine?.now() ?? 0) - RISCV.trapEntry.value;
    if (this.#since >= 0) this.idle += now - this.#since;
    this.#inner.trap(trap);
  }
}

const tenant = { image: 0, quota: 64, firstBlock: 0, blocks: 16 };
const unikernel = (): Supervisor =>
  new Unikernel({ environments: 8, sliceCycles: LONG }, tenant, 1);
const exokernel = (): Supervisor =>
  new Exokernel({ environments: 8, extents: 4, slices: 4, sliceCycles: LONG }, [tenant]);
const inVm = (supervisor: Supervisor, images: readonly Image[], sliceCycles = LONG): Hypervisor =>
  new Hypervisor({ sliceCycles, backing: 'populate', secondStage: '2MiB' }, [
    { supervisor, images, pages: 512, firstBlock: 0, blocks: 64, channel: 1 },
  ]);

function machineFor(supervisor: Supervisor, images: readonly Image[]): PhysicalMachine {
  const machine = new PhysicalMachine({ pages: 2048, images });
  machine.boot(supervisor);
  return machine;
}

describe('cycles', () => {
  /** Waits for the disk and for timers, computes in between. */
  function sleeper(): { supervisor: Script; images: Image[] } {
    const body = program(function* (port) {
      for (let n = 0; n < 5; n++) {
        port.work(1000) ?? (yield* port.fault());
        yield* port.call(1);
      }
    });
    const supervisor = new Script({
      trap: (s, { cause }, current) => {
        if (cause === Cause.environmentCall) {
          const page = s.page();
          s.machine.disk.submit({ tag: 1, write: true, block: 1, pages: [page] });
          s.machine.contexts.setResult(1, 0);
          s.put(Cell.current, -1);
          return true;
        }
        if (cause === Cause.externalInterrupt) {
          if (s.machine.disk.complete() !== null) s.setTimer(s.machine.now() + 77_777);
          return true;
        }
        if (cause !== Cause.timerInterrupt) return false;
        if (current < 0 && s.machine.contexts.exists(1)) s.put(Cell.current, 1);
        return true;
      },
    });
    return { supervisor, images: [body] };
  }

  const runs: [string, () => { root: Watched; machine: PhysicalMachine; idles: boolean }][] = [
    ['bare', () => start(unikernel(), [minimal], false)],
    ['exokernel', () => start(exokernel(), [minimal], false)],
    ['vm', () => start(inVm(unikernel(), [minimal]), [], false)],
    ['exokernel in vm, short slices', () => start(inVm(exokernel(), [minimal], 3001), [], false)],
    [
      'waiting',
      () => {
        const { supervisor, images } = sleeper();
        return start(supervisor, images, true);
      },
    ],
    [
      'waiting in vm',
      () => {
        const { supervisor, images } = sleeper();
        return start(inVm(supervisor, images, 5003), [], true);
      },
    ],
  ];
  function start(
    supervisor: Supervisor,
    images: readonly Image[],
    idles: boolean,
  ): { root: Watched; machine: PhysicalMachine; idles: boolean } {
    const root = new Watched(supervisor);
    return { root, machine: machineFor(root, images), idles };
  }

  for (const [name, make] of runs) {
    test(`over all layers and owners are the time that passed, less idle time: ${name}`, () => {
      const { root, machine, idles } = make();
      machine.run();
      const { counters } = machine.hart;
      let sum = 0;
      for (let owner = 0; owner < OWNERS; owner++) {
        for (let layer = 0; layer < LAYERS; layer++) sum += counters.cycles(owner, layer);
      }
      expect(sum).toBe(counters.cycles());
      expect(sum).toBe(machine.now() - root.idle);
      expect(root.idle > 300_000).toBe(idles);
    });
  }

  test('a listener is told every cycle that a supervisor is charged', () => {
    const machine = machineFor(exokernel(), [minimal]);
    const before = machine.hart.counters.cycles(null, 0);
    let told = 0;
    machine.hart.settle();
    const from = machine.hart.counters.cycles(null, 0);
    expect(from).toBeGreaterThanOrEqual(before);
    machine.hart.listener = (event, layer) => {
      if (event.what === 'charge' && layer === 0) told += event.cycles;
    };
    machine.run();
    expect(told).toBe(machine.hart.counters.cycles(null, 0) - from);
  });
});

describe('added work shows up as exactly itself', () => {
  test.each([false, true])('100 needless loads in one handler (in a vm: %s)', (virtual) => {
    const time = (loads: number): { now: number; references: number } => {
      const body = program(function* (port) {
        yield* port.call(1);
      });
      const supervisor = new Script({
        trap: (s, { cause }) => {
          if (cause !== Cause.environmentCall) return false;
          for (let n = 0; n < loads; n++) s.machine.load(Cell.own * 4);
          return false;
        },
      });
      const images = [body];
      const machine = virtual
        ? machineFor(inVm(supervisor, images), [])
        : machineFor(supervisor, images);
      machine.run();
      const { supervisorReferences } = machine.hart.counters.totals();
      return { now: machine.now(), references: supervisorReferences };
    };
    const [base, more] = [time(0), time(100)];
    expect(more.references - base.references).toBe(100);
    expect(more.now - base.now).toBe(100 * REFERENCE);
  });

  const modes: [string, () => Supervisor, boolean][] = [
    ['bare', unikernel, false],
    ['exokernel', exokernel, false],
    ['vm', unikernel, true],
    ['exokernel in vm', exokernel, true],
  ];
  test.each(modes)('k references in every trap: %s', (_name, make, virtual) => {
    const run = (taxes: number): { now: number; traps: number } => {
      const taxed = new Taxed(make(), taxes);
      const machine = virtual
        ? machineFor(inVm(taxed, [minimal]), [])
        : machineFor(taxed, [minimal]);
      machine.run();
      return { now: machine.now(), traps: taxed.traps };
    };
    const base = run(0);
    expect(base.traps).toBeGreaterThan(25);
    for (const k of [1, 10, 57]) {
      const taxed = run(k);
      expect(taxed.traps).toBe(base.traps);
      expect(taxed.now - base.now).toBe(base.traps * k * REFERENCE);
    }
  });

  test('every number of a profile has its source', () => {
    for (const [name, cost] of Object.entries<Cost | string>({ ...RISCV })) {
      if (typeof cost === 'string') continue;
      expect([name, cost.source.length > 5, cost.value > 0]).toEqual([name, true, true]);
    }
  });
});
