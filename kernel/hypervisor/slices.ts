/**
 * The CPU among virtual machines: round robin, a slice each, and no word to the guest of when it
 * has the CPU and when not. A VM that waits for an interrupt gives the rest of its slice up.
 */
import { NEVER } from '../../machine/units.ts';
import { loadTick, storeTick } from '../supervisor.ts';
import { Cpu, type State, Vm, VmState } from './state.ts';

/** Row of the VM that runs next, or -1. The timer is set to what happens next. */
export function choose(state: State): number {
  const { cpu, machine } = state;
  const current = cpu.get(0, Cpu.current) - 1;
  if (current >= 0 && state.vm.get(current, Vm.state) === VmState.ready) return current;
  const now = machine.now();
  const { rows } = state.vm;
  const last = cpu.get(0, Cpu.last) - 1;
  let wake = NEVER;
  for (let n = 1; n <= rows; n++) {
    const vm = (last + n + rows) % rows;
    const is = state.vm.get(vm, Vm.state);
    if (is === VmState.waiting) {
      const at = state.vm.get(vm, Vm.pending) !== 0 ? now : loadWake(state, vm);
      if (at > now) {
        wake = Math.min(wake, at);
        continue;
      }
      state.vm.put(vm, Vm.state, VmState.ready);
    } else if (is !== VmState.ready) continue;
    const end = now + state.config.sliceCycles;
    cpu.put(0, Cpu.current, vm + 1);
    storeTick(cpu, 0, Cpu.end, end);
    machine.setTimer(end);
    return vm;
  }
  cpu.put(0, Cpu.current, 0);
  machine.setTimer(wake);
  return -1;
}

/** A timer trap, perhaps spurious: the slice may have ended. */
export function tick(state: State): void {
  if (state.machine.now() >= loadTick(state.cpu, 0, Cpu.end)) state.cpu.put(0, Cpu.current, 0);
}

/** WFI: the VM waits until its own timer or an interrupt. */
export function wait(state: State, vm: number, until: number): void {
  state.vm.put(vm, Vm.state, VmState.waiting);
  storeTick(state.vm, vm, Vm.wake, until === NEVER ? 2 ** 52 : until);
  state.cpu.put(0, Cpu.current, 0);
}

function loadWake(state: State, vm: number): number {
  const at = loadTick(state.vm, vm, Vm.wake);
  return at >= 2 ** 52 ? NEVER : at;
}
