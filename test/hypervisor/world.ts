/** A host whose memory may be short, its swap area, and the checks of invariants.ts as it runs. */
import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { type Guest, Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import type { HypervisorConfig } from '../../kernel/hypervisor/state.ts';
import { watch } from './invariants.ts';

export const SWAP_FIRST = 64;
const SWAP_BLOCKS = 4000;

export interface World {
  readonly machine: PhysicalMachine;
  readonly hypervisor: Hypervisor;
  readonly output: Map<number, string>;
  cpu(word: number): number;
  vm(row: number, word: number): number;
}

/** A host with `spare` pages beside the hypervisor's own tables. */
export function world(
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
