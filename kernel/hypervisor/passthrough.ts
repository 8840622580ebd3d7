/**
 * A disk passed through: a queue of the host's disk, and with it blocks of its own, is the guest's
 * to drive. It submits without an exit, and while it runs it takes its completions itself; when it
 * waits, the hardware calls and it is woken. Nobody stands between to check, so the hardware does
 * (machine/disk-queues.ts), against what is set here once: blocks that are nobody else's, and the
 * guest's second stage for what the device reaches.
 *
 * A device cannot wait for a page. So all memory of such a guest is there from the beginning,
 * reserved and pinned: it cannot be swapped, shared or given up. And nobody knows what is under way
 * in the queue, so the guest can be neither saved, cloned nor moved. This is the price.
 */
import { assert } from '../../machine/assert.ts';
import { DISK_QUEUES, type DiskQueues, type QueueRegisters } from '../../machine/disk-queues.ts';
import { ptePpn } from '../../machine/sv39.ts';
import { find } from './second-stage.ts';
import { interrupt, makeReady } from './slices.ts';
import { Cpu, type DiskModel, DISKS, Page, type State, Vm, VmState } from './state.ts';

const PASSED = DISKS.indexOf('passthrough');

/** What is asked of a guest with such a disk. */
interface Wish {
  readonly disk?: DiskModel;
  readonly pages: number;
  readonly reservation?: number;
  readonly limit?: number;
  readonly translation?: string;
}

export const isPassed = (state: State, vm: number): boolean => state.vm.get(vm, Vm.disk) === PASSED;

/** Why the guest cannot have such a disk, in words; '' if it can, or wants none. */
export function cannotPass(state: State, guest: Wish): string {
  if (guest.disk !== 'passthrough') return '';
  const { pages, reservation = pages, limit = pages } = guest;
  if (state.machine.disk.queues === undefined) {
    return 'the disk of this machine has no queues to pass through: give an emulated or split one';
  }
  if (guest.translation === 'paravirt') {
    return 'a device could write to the tables of a paravirtual machine: no disk is passed through';
  }
  if (reservation < pages || limit < pages) {
    return (
      `a disk that is passed through reaches all ${pages} pages of its guest: ` +
      `reserve them (reservation ${reservation}, limit ${limit})`
    );
  }
  if (freeQueue(state) >= 0) return '';
  return `all ${DISK_QUEUES} queues of the disk are passed through: give an emulated or split one`;
}

function freeQueue(state: State): number {
  for (let queue = 0; queue < DISK_QUEUES; queue++) {
    if (state.get(Cpu.queueOwners + queue) === 0) return queue;
  }
  return -1;
}

/** Gives `vm`, all of whose memory is there, a queue of the disk. */
export function pass(state: State, vm: number): void {
  const { vm: row } = state;
  const queue = freeQueue(state);
  assert(queue >= 0, 'passthrough: admission has found a queue');
  pin(state, vm, 1);
  state.put(Cpu.queueOwners + queue, vm + 1);
  row.put(vm, Vm.diskQueue, queue + 1);
  const [firstBlock, blocks] = [row.get(vm, Vm.firstBlock), row.get(vm, Vm.blocks)];
  const page = row.get(vm, Vm.pages) - 1;
  queuesOf(state).assign(queue, { root: row.get(vm, Vm.root), page, firstBlock, blocks });
}

/** Takes the queue back, whatever is under way in it; before its memory goes. */
export function takeBack(state: State, vm: number): void {
  const queue = state.vm.get(vm, Vm.diskQueue) - 1;
  if (queue < 0) return;
  queuesOf(state).reset(queue);
  state.put(Cpu.queueOwners + queue, 0);
  state.vm.put(vm, Vm.diskQueue, 0);
  pin(state, vm, -1);
}

/** The guest's registers of its queue; null if it has none. */
export function registersOf(state: State, vm: number): QueueRegisters | null {
  const queue = state.vm.get(vm, Vm.diskQueue) - 1;
  return queue < 0 ? null : queuesOf(state).registers(queue);
}

/** The guest does not run, or cannot be interrupted by hardware: its completions are told to us. */
export function listen(state: State, vm: number, on: boolean): void {
  if ((state.vm.get(vm, Vm.listens) !== 0) === on) return;
  state.vm.put(vm, Vm.listens, on ? 1 : 0);
  queuesOf(state).listen(state.vm.get(vm, Vm.diskQueue) - 1, on);
}

/**
 * An external interrupt of the host: guests whose queues call are woken.
 * @param posted whether the guest takes interrupts of its own
 * @param stopped told of a guest that rang without sense
 */
export function wake(
  state: State,
  posted: (vm: number) => boolean,
  stopped: (vm: number) => void,
): void {
  const { queues } = state.machine.disk;
  if (queues === undefined) return;
  for (let queue = queues.claim(); queue >= 0; queue = queues.claim()) {
    const vm = state.get(Cpu.queueOwners + queue) - 1;
    assert(vm >= 0, 'passthrough: a queue that calls has an owner');
    state.vm.put(vm, Vm.listens, 0);
    if (queues.isStopped(queue)) stopped(vm);
    else if (!posted(vm)) {
      queues.registers(queue).takeInterrupt();
      interrupt(state, vm);
      listen(state, vm, true);
    } else if (state.vm.get(vm, Vm.state) === VmState.waiting) makeReady(state, vm, true);
  }
}

function queuesOf(state: State): DiskQueues {
  const { queues } = state.machine.disk;
  assert(queues !== undefined, 'passthrough: admission has found queues');
  return queues;
}

/** Pins all of a guest's pages, or no longer. */
function pin(state: State, vm: number, by: number): void {
  const pages = state.vm.get(vm, Vm.pages);
  for (let page = 0; page < pages;) {
    const place = find(state, vm, page);
    assert(place !== null, 'passthrough: all of its memory is there');
    const span = 1 << (9 * place.level);
    for (let n = 0; n < span; n++) state.page.add(ptePpn(place.entry) + n, Page.pins, by);
    page += span;
  }
}
