/** A host that has booted its hypervisor, and what tests read of it by loads that are nobody's. */
import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine, type MachineConfig } from '../../machine/physical.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { type Guest, Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { type HypervisorConfig, Vm } from '../../kernel/hypervisor/state.ts';
import { hostPage } from '../machine/rigs.ts';

export interface Host {
  readonly machine: PhysicalMachine;
  readonly hypervisor: Hypervisor;
  /** what was printed, by channel */
  readonly output: Map<number, string>;
  /** A word of the hypervisor's, and of a virtual machine's row. */
  cpu(word: number): number;
  vm(row: number, word: number): number;
  state(row: number): number;
  /** A word of a guest, by its own address; 0 where nothing is behind it. */
  peek(row: number): (gpa: number) => number;
}

export function host(
  guests: readonly Guest[],
  config: HypervisorConfig,
  hardware: Partial<MachineConfig> = {},
): Host {
  const output = new Map<number, string>();
  const machine = new PhysicalMachine({
    pages: 2048,
    images: [],
    medium: new RamMedium(64),
    output: (channel, bytes) => {
      output.set(channel, (output.get(channel) ?? '') + new TextDecoder().decode(bytes));
    },
    ...hardware,
  });
  const hypervisor = new Hypervisor(config, guests);
  machine.boot(hypervisor);
  const { state } = hypervisor;
  const get = (at: number): number => machine.memory.get(at);
  const vm = (row: number, word: number): number => get(state.vm.address(row, word));
  return {
    machine,
    hypervisor,
    output,
    cpu: (word) => get(state.cpu.address(0, word)),
    vm,
    state: (row) => vm(row, Vm.state),
    peek: (row) => (gpa) => {
      const page = hostPage(get, vm(row, Vm.root), gpa >>> 12);
      return page < 0 ? 0 : get(page * PAGE_BYTES + (gpa % PAGE_BYTES));
    },
  };
}
