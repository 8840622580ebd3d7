/**
 * All of the hypervisor's state: tables of words in its machine's memory. A virtual machine is a
 * row; its memory is what its second-stage tables name.
 */
import { Layout, type Machine, type Table } from '../supervisor.ts';

export interface HypervisorConfig {
  /** length of a slice in cycles */
  readonly sliceCycles: number;
  /** back guest memory at creation, or each page on first touch */
  readonly backing: 'populate' | 'touch';
  /** size of second-stage pages; 2 MiB needs 'populate' */
  readonly secondStage: '4KiB' | '2MiB';
}

/** The closed vocabulary of exits: every exit has one of these causes, and is counted under it. */
export const EXITS = [
  'timer',
  'interrupt',
  'wait',
  'memory',
  'disk',
  'console',
  'entropy',
] as const;
export type Exit = (typeof EXITS)[number];

/** Words of a virtual machine's row. */
export const Vm = {
  state: 0,
  root: 1, // page of the second-stage root, 16 KiB aligned
  pages: 2, // guest-physical, the ring page among them
  firstBlock: 3,
  blocks: 4,
  wake: 5, // two words: when a waiting VM wants to run again
  pending: 7, // an external interrupt waits to be injected
  channel: 8, // of the console
  outstanding: 9, // disk requests
  exits: 10, // EXITS.length words
  registers: 32, // 32 words: the guest's, while the hypervisor uses them
  words: 64,
} as const;

export const VmState = { free: 0, ready: 1, waiting: 2, stopped: 3 } as const;

/** Words of the hypervisor's own registers. */
export const Cpu = {
  current: 0, // VM row + 1 that runs, 0 if none
  end: 1, // two words: when its slice ends
  last: 3, // VM row + 1 whose registers are loaded
  nextPage: 4, // host pages below it are given out
  topPage: 5, // and those from here on
  words: 8,
} as const;

/** Words of a disk request in flight: VM row + 1, and the guest's tag. */
export const Tag = { vm: 0, guestTag: 1, words: 2 } as const;
export const TAGS = 256;

export class State {
  readonly machine: Machine;
  readonly config: HypervisorConfig;
  readonly vm: Table;
  readonly cpu: Table;
  readonly tag: Table;
  readonly root: number;
  readonly end: number;

  constructor(machine: Machine, config: HypervisorConfig, vms: number) {
    this.machine = machine;
    this.config = config;
    const layout = new Layout(machine, 0);
    this.vm = layout.table(vms, Vm.words);
    this.cpu = layout.table(1, Cpu.words);
    this.tag = layout.table(TAGS, Tag.words);
    this.root = layout.pages(1);
    this.end = layout.end;
  }

  /** Books an exit under its cause. */
  count(vm: number, exit: Exit): void {
    this.vm.add(vm, Vm.exits + EXITS.indexOf(exit), 1);
  }
}
