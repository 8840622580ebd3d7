/**
 * Guest memory under a host that has too little of it: what a guest wrote comes back bit for bit,
 * whatever was swapped, shared or given up meanwhile, its supervisor's own memory included; and the
 * ledger adds up at every exit.
 */
import { describe, expect, test } from 'vitest';

import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { type Guest, Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { Cpu, type HypervisorConfig, Vm } from '../../kernel/hypervisor/state.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { minimal } from '../../libos/minimal/minimal.ts';
import { violations, watch } from './invariants.ts';

const PRIMES = 'minimal: 9592 primes below 100000\n';
const SWAP_FIRST = 64;
const SWAP_BLOCKS = 4000;

interface World {
  readonly machine: PhysicalMachine;
  readonly hypervisor: Hypervisor;
  readonly output: Map<number, string>;
  cpu(word: number): number;
  vm(row: number, word: number): number;
}

/** A host with `spare` pages beside the hypervisor's own tables. */
function world(
  guests: readonly Guest[],
  spare: number,
  config: Partial<HypervisorConfig> = {},
  every = 31,
): World {
  const output = new Map<number, string>();
  const full: HypervisorConfig = {
    sliceCycles: 50_001,
    backing: 'touch',
    secondStage: '4KiB',
    swap: { firstBlock: SWAP_FIRST, blocks: SWAP_BLOCKS },
    ...config,
  };
  const boot = (pages: number): World => {
    const machine = new PhysicalMachine({
      pages,
      images: [],
      medium: new RamMedium(SWAP_FIRST + SWAP_BLOCKS),
      output: (channel, bytes) => {
        output.set(channel, (output.get(channel) ?? '') + new TextDecoder().decode(bytes));
      },
    });
    const hypervisor = new Hypervisor(full, guests);
    machine.boot(hypervisor);
    const { state } = hypervisor;
    return {
      machine,
      hypervisor,
      output,
      cpu: (word) => machine.memory.get(state.cpu.address(0, word)),
      vm: (row, word) => machine.memory.get(state.vm.address(row, word)),
    };
  };
  const own = boot(2048).hypervisor.state.end;
  const made = boot(own + spare);
  watch(made.machine, made.hypervisor, every);
  return made;
}

const tenant = { image: 0, quota: 64, firstBlock: 0, blocks: 4 };

/** The minimal libOS on a kernel of its own: 25 pages of sieve, and the kernel's tables. */
function good(channel: number, exo = false, more: Partial<Guest> = {}): Guest {
  const supervisor = exo
    ? new Exokernel({ environments: 8, extents: 4, slices: 4, sliceCycles: 20_000 }, [tenant])
    : new Unikernel({ environments: 8, sliceCycles: 20_000 }, tenant, channel);
  const at = { firstBlock: channel * 6, blocks: 6, channel };
  return { supervisor, images: [minimal], pages: 160, ...at, ...more };
}

describe('host swap', () => {
  test('kernels and library OSes in half the memory that they touch: the same output', () => {
    const w = world([good(1), good(2, true), good(3), good(4, true)], 110, {}, 301);
    w.machine.run();
    for (const channel of [1, 2, 3, 4]) expect(w.output.get(channel)).toBe(PRIMES);
    expect(w.cpu(Cpu.swapOuts)).toBeGreaterThan(50);
    expect(w.cpu(Cpu.swapIns)).toBeGreaterThan(20);
    expect(w.machine.hart.counters.totals().restarts).toBeGreaterThan(5);
  });
});

test('violations are found when there are some', () => {
  const w = world([good(1)], 200, {}, 1e9);
  w.machine.run();
  expect(violations(w.machine, w.hypervisor)).toEqual([]);
  const { memory } = w.machine;
  const { state } = w.hypervisor;
  for (const [table, row, word] of [
    [state.cpu, 0, Cpu.free],
    [state.vm, 0, Vm.held],
    [state.vm, 0, Vm.tables],
    [state.vm, 0, Vm.swapped],
    [state.vm, 0, Vm.times],
    [state.page, w.vm(0, Vm.ring), 0],
    [state.page, w.vm(0, Vm.ring), 1],
  ] as const) {
    const at = table.address(row, word);
    const was = memory.get(at);
    memory.put(at, was + 1);
    expect(violations(w.machine, w.hypervisor)).not.toEqual([]);
    memory.put(at, was);
  }
  // An entry that names a page of the hypervisor's.
  const root = w.vm(0, Vm.root) * PAGE_BYTES;
  const middle = (memory.get(root) >>> 10) * PAGE_BYTES;
  const leaf = (memory.get(middle) >>> 10) * PAGE_BYTES;
  memory.put(leaf, (3 << 10) | (memory.get(leaf) & 0x3ff));
  expect(violations(w.machine, w.hypervisor)).not.toEqual([]);
});
