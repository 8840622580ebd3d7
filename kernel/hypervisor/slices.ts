/**
 * The CPU among virtual machines: a slice each, and no word to the guest of when it has the CPU and
 * when not. A VM that waits for an interrupt gives the rest of its slice up. Who is next is a
 * scheduler's to say (schedulers.ts).
 *
 * What a guest learns is how much was taken from it: at any moment its vCPU runs, is stolen from,
 * is idle or blocked, the four add up to its age, to the cycle, and what was stolen stands in its
 * device page. The hypervisor's own work for it counts as stolen. KVM's steal time; Xen's run
 * states.
 */
import { NEVER, PAGE_BYTES, type Tick } from '../../machine/units.ts';
import { loadTick, storeTick } from '../supervisor.ts';
import { capEnd, type Scheduler, SCHEDULERS, unqueue } from './schedulers.ts';
import { Cpu, type Mode, MODES, type State, Vm, VmState } from './state.ts';
import { Ring } from './device-page.ts';

/** Who was woken takes the CPU from nobody who has had it for less than this part of a slice. */
const LEAST_RUN = 1 / 16;
const FOREVER = 2 ** 52; // NEVER, in two words

const RUN = MODES.indexOf('run');
const STEAL = MODES.indexOf('steal');
const IDLE = MODES.indexOf('idle');
const BLOCKED = MODES.indexOf('blocked');

const schedulerOf = (state: State): Scheduler =>
  SCHEDULERS[state.config.scheduler ?? 'round-robin'];

// ---- whose turn it is ---------------------------------------------------------------------------

/** Row of the VM that runs next, or -1. The timer is set to what happens next. */
export function choose(state: State): number {
  const { machine } = state;
  const scheduler = schedulerOf(state);
  const now = machine.now();
  wakeSleepers(state, now);
  let vm = state.get(Cpu.current) - 1;
  if (vm >= 0) {
    if (keepsTurn(state, scheduler, now)) {
      // What could end its turn sooner than the timer says has its own interrupt.
      // But somebody may have asked anew, and the timer would go off for ever.
      const asked = loadTick(state.cpu, 0, Cpu.timer) === 0;
      if (scheduler.prompt || asked) setTimer(state, timerFor(state, scheduler, vm));
      return vm;
    }
    enter(state, vm, STEAL, now);
    scheduler.ready(state, vm, false);
    vm = -1;
  }
  while (vm < 0) {
    vm = scheduler.next(state);
    if (vm < 0) break;
    const cycles = scheduler.slice(state, vm);
    if (cycles >= 1) {
      storeTick(state.cpu, 0, Cpu.started, now);
      storeTick(state.cpu, 0, Cpu.end, now + cycles);
      break;
    }
    // Its cap is used up: it wants to run, and may not until the next period.
    sleep(state, vm, capEnd(state));
    vm = -1;
  }
  state.put(Cpu.current, vm + 1);
  setTimer(state, timerFor(state, scheduler, vm));
  return vm;
}

function keepsTurn(state: State, scheduler: Scheduler, now: Tick): boolean {
  if (now >= loadTick(state.cpu, 0, Cpu.end)) return false;
  if (!scheduler.preempts(state)) return true;
  return now < leastEnd(state);
}

const leastEnd = (state: State): Tick =>
  loadTick(state.cpu, 0, Cpu.started) + Math.floor(state.config.sliceCycles * LEAST_RUN);

function timerFor(state: State, scheduler: Scheduler, vm: number): Tick {
  const wake = firstWake(state);
  if (vm < 0) return wake;
  const end = loadTick(state.cpu, 0, Cpu.end);
  if (!scheduler.prompt) return end;
  const ask = scheduler.preempts(state) ? leastEnd(state) : Math.max(wake, leastEnd(state));
  return Math.min(end, ask);
}

/** One register write, if it has to change. */
function setTimer(state: State, at: Tick): void {
  const want = at === NEVER ? FOREVER : at;
  if (loadTick(state.cpu, 0, Cpu.timer) === want) return;
  storeTick(state.cpu, 0, Cpu.timer, want);
  state.machine.setTimer(at);
}

/** The timer is disarmed, and known to be. */
export function disarm(state: State): void {
  storeTick(state.cpu, 0, Cpu.timer, FOREVER);
  state.machine.setTimer(NEVER);
}

/** A timer trap at once: who runs is to be chosen anew. */
export function askAnew(state: State): void {
  storeTick(state.cpu, 0, Cpu.timer, 0);
  state.machine.setTimer(0);
}

/** `vm` wants to run, and may. @param woken it waited for an event @param since it wants to */
export function makeReady(
  state: State,
  vm: number,
  woken: boolean,
  since = state.machine.now(),
): void {
  if (state.vm.get(vm, Vm.sleeper) !== 0) unsleep(state, vm);
  state.vm.put(vm, Vm.state, VmState.ready);
  if (state.vm.get(vm, Vm.paused) !== 0) return;
  enter(state, vm, STEAL, since);
  schedulerOf(state).ready(state, vm, woken);
}

/** `vm` does not run any more, for the reason that `is` says. */
export function makeUnready(state: State, vm: number, is: number): void {
  if (state.vm.get(vm, Vm.sleeper) !== 0) unsleep(state, vm);
  unqueue(state, vm);
  if (state.get(Cpu.current) === vm + 1) state.put(Cpu.current, 0);
  state.vm.put(vm, Vm.state, is);
  enter(state, vm, is === VmState.waiting ? IDLE : BLOCKED, state.machine.now());
}

/** WFI: the VM waits until its own timer or an interrupt. */
export function wait(state: State, vm: number, until: Tick): void {
  makeUnready(state, vm, VmState.waiting);
  if (state.vm.get(vm, Vm.pending) !== 0) makeReady(state, vm, true);
  else if (until !== NEVER) sleep(state, vm, Math.max(until, 0));
}

/** Interrupts for the guest, bits of Vm.pending: injected when the guest is next dispatched. */
export function interrupt(state: State, vm: number, bits = 1): void {
  state.vm.put(vm, Vm.pending, state.vm.get(vm, Vm.pending) | bits);
  if (state.vm.get(vm, Vm.state) === VmState.waiting) makeReady(state, vm, true);
}

/** Stops a VM from running, whatever its state, or lets it run again. */
export function setPaused(state: State, vm: number, paused: boolean): void {
  const { vm: row } = state;
  if ((row.get(vm, Vm.paused) !== 0) === paused) return;
  row.put(vm, Vm.paused, paused ? 1 : 0);
  const is = row.get(vm, Vm.state);
  if (paused) {
    unqueue(state, vm);
    if (state.get(Cpu.current) === vm + 1) state.put(Cpu.current, 0);
    enter(state, vm, BLOCKED, state.machine.now());
  } else if (is === VmState.ready) makeReady(state, vm, false);
  else enter(state, vm, is === VmState.waiting ? IDLE : BLOCKED, state.machine.now());
}

// ---- sleepers: a binary heap of rows by the time at which they want to be woken -----------------

const wakeOf = (state: State, vm: number): Tick => loadTick(state.vm, vm, Vm.wake);

/** When the first sleeper wants to be woken; NEVER if nobody does. */
function firstWake(state: State): Tick {
  return state.get(Cpu.sleepers) === 0 ? NEVER : wakeOf(state, state.sleeper.get(0, 0));
}

function wakeSleepers(state: State, now: Tick): void {
  while (firstWake(state) <= now) {
    const vm = state.sleeper.get(0, 0);
    const parked = state.vm.get(vm, Vm.state) === VmState.ready;
    // It wanted to run since its time had come, not since we noticed.
    const at = Math.max(wakeOf(state, vm), loadTick(state.vm, vm, Vm.since));
    makeReady(state, vm, !parked, parked ? now : at);
  }
}

function sleep(state: State, vm: number, until: Tick): void {
  storeTick(state.vm, vm, Vm.wake, until);
  const at = state.add(Cpu.sleepers, 1) - 1;
  place(state, at, vm);
  rise(state, at);
}

function unsleep(state: State, vm: number): void {
  const at = state.vm.get(vm, Vm.sleeper) - 1;
  const last = state.add(Cpu.sleepers, -1);
  state.vm.put(vm, Vm.sleeper, 0);
  if (at === last) return;
  place(state, at, state.sleeper.get(last, 0));
  rise(state, at);
  sink(state, at);
}

function place(state: State, at: number, vm: number): void {
  state.sleeper.put(at, 0, vm);
  state.vm.put(vm, Vm.sleeper, at + 1);
}

const isEarlier = (state: State, a: number, b: number): boolean =>
  wakeOf(state, state.sleeper.get(a, 0)) < wakeOf(state, state.sleeper.get(b, 0));

function exchange(state: State, a: number, b: number): void {
  const vm = state.sleeper.get(a, 0);
  place(state, a, state.sleeper.get(b, 0));
  place(state, b, vm);
}

function rise(state: State, from: number): void {
  for (let at = from; at > 0;) {
    const above = (at - 1) >> 1;
    if (!isEarlier(state, at, above)) return;
    exchange(state, at, above);
    at = above;
  }
}

function sink(state: State, from: number): void {
  const count = state.get(Cpu.sleepers);
  for (let at = from; ;) {
    let least = at;
    for (const below of [2 * at + 1, 2 * at + 2]) {
      if (below < count && isEarlier(state, below, least)) least = below;
    }
    if (least === at) return;
    exchange(state, at, least);
    at = least;
  }
}

// ---- time ---------------------------------------------------------------------------------------

/** A new vCPU's time begins. It wants nothing yet. */
export function startClock(state: State, vm: number): void {
  const now = state.machine.now();
  for (let n = 0; n < MODES.length; n++) storeTick(state.vm, vm, Vm.times + 2 * n, 0);
  storeTick(state.vm, vm, Vm.born, now);
  storeTick(state.vm, vm, Vm.since, now);
  storeTick(state.vm, vm, Vm.published, 0);
  state.vm.put(vm, Vm.mode, BLOCKED);
}

/**
 * From `at` on the vCPU is at `mode`: what went before is booked. One that had the CPU had it until
 * it left it.
 */
function enter(state: State, vm: number, mode: number, at: Tick): void {
  const { vm: row } = state;
  const was = row.get(vm, Vm.mode);
  if (was === mode) return;
  const until = was === RUN ? loadTick(state.cpu, 0, Cpu.left) : at;
  const spent = until - loadTick(row, vm, Vm.since);
  addTick(state, vm, Vm.times + 2 * was, spent);
  storeTick(row, vm, Vm.since, until);
  row.put(vm, Vm.mode, mode);
  if (was === RUN) schedulerOf(state).ran(state, vm, spent);
}

function addTick(state: State, vm: number, word: number, cycles: Tick): void {
  storeTick(state.vm, vm, word, loadTick(state.vm, vm, word) + cycles);
}

/** References that booking takes after it has read the clock. */
const BOOKING = 8;

/** The guest has the CPU as soon as we are through: the last thing before the way out. */
export function entering(state: State, vm: number): void {
  const { vm: row, machine, cpu } = state;
  const { reference, instructionsPerReference, trapReturn } = machine.profile;
  const was = row.get(vm, Vm.mode);
  const left = was === RUN ? loadTick(cpu, 0, Cpu.left) : 0;
  if (was !== RUN) row.put(vm, Vm.mode, RUN);
  const access = reference.value + instructionsPerReference.value;
  const at = machine.now() + BOOKING * access + trapReturn.value;
  const since = loadTick(row, vm, Vm.since);
  // Back from an exit: its time is cut out of the guest's, and is stolen.
  addTick(state, vm, Vm.times + 2 * (was === RUN ? STEAL : was), at - (was === RUN ? left : since));
  storeTick(row, vm, Vm.since, was === RUN ? since + at - left : at);
}

/** The guest had the CPU until `at`: an exit. */
export function leaving(state: State, at: Tick): void {
  storeTick(state.cpu, 0, Cpu.left, at);
}

/** Tells the guest how much was stolen from it: a version, odd while it is written; two words. */
export function publish(state: State, vm: number): void {
  const { machine, vm: row } = state;
  const stolen = Vm.times + 2 * STEAL;
  const [low, high] = [row.get(vm, stolen), row.get(vm, stolen + 1)];
  if (low === row.get(vm, Vm.published) && high === row.get(vm, Vm.published + 1)) return;
  row.put(vm, Vm.published, low);
  row.put(vm, Vm.published + 1, high);
  const clock = row.get(vm, Vm.clock);
  const at = clock !== 0 ? clock : row.get(vm, Vm.ring) * PAGE_BYTES + Ring.steal * 4;
  const version = machine.load(at);
  machine.store(at, version + 1);
  machine.store(at + 4, low);
  machine.store(at + 8, high);
  machine.store(at, version + 2);
}

/** Time of a vCPU by what it was at, until now. */
export function timesOf(state: State, vm: number): Record<Mode | 'elapsed', Tick> {
  const word = (n: number): number => state.peek(vm, n);
  const tick = (n: number): Tick => (word(n) >>> 0) + word(n + 1) * 2 ** 32;
  const now = state.machine.now();
  const mode = word(Vm.mode);
  const spent = (n: number): Tick =>
    tick(Vm.times + 2 * n) + (n === mode ? now - tick(Vm.since) : 0);
  return {
    run: spent(RUN),
    steal: spent(STEAL),
    idle: spent(IDLE),
    blocked: spent(BLOCKED),
    elapsed: now - tick(Vm.born),
  };
}
