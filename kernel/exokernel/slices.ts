/**
 * The CPU: a vector of time slices, held by position. The kernel goes round it; each position runs
 * its owner, or whom the owner's call is waiting for, or whom it yielded to. A position whose owner
 * cannot run is passed over. The slice's end is announced to whoever registered for it, and who
 * overruns the grace period pays with a later slice. Aegis (SOSP 1995), section 5.1.1.
 */
import { NEVER } from '../../machine/units.ts';
import { Env, EnvState, GRACE, Info, Status, Upcall } from '../abi.ts';
import {
  type Context,
  loadTick,
  REGISTERS_ALL,
  REGISTERS_CALL,
  REGISTERS_YIELD,
  storeTick,
} from '../supervisor.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { checkEnv } from './capabilities.ts';
import { kill, post } from './life.ts';
import { Cpu, EXCESS_MAX, isSlot, Private, type State } from './state.ts';
import { pushSliceUpcall } from './upcalls.ts';

const CALL_CHAIN = 8; // environments that wait for one another, followed at most this far

/**
 * yield(target | -1): gives the rest of the slice to a ready environment, or back.
 *
 * @refuses badEnvironment 0 (no such environment); notReady 0 (neither it nor whom it calls can
 *   run)
 * @source Aegis (SOSP 1995), section 5.1.1: directed yield.
 */
export function yieldTo(state: State, caller: number, claim: Claims): Answer | null {
  const id = claim(0);
  if (id === -1) {
    state.machine.contexts.setResult(caller, Status.ok, 0);
    giveBack(state, caller);
    return null;
  }
  const target = state.row(id);
  if (target < 0) return refuse(Status.badEnvironment, 0);
  const runner = runnerFor(state, target);
  if (runner === 0) return refuse(Status.notReady, 0);

  state.machine.contexts.setResult(caller, Status.ok, 0);
  state.cpu.put(0, Cpu.current, runner);
  return null;
}

/** The rest of a borrowed slice goes back to its owner; an owner gives it up. */
function giveBack(state: State, caller: number): void {
  if (state.cpu.get(0, Cpu.owner) === caller) state.cpu.put(0, Cpu.owner, 0);
  state.cpu.put(0, Cpu.current, 0);
}

/**
 * sleep(seen): waits until the caller's event count is not `seen`. The value is the count.
 *
 * @refuses badArgument 0 (not an integer)
 * @source Xok (SOSP 1997), section 3: wakeup predicates, here one counter.
 */
export function sleep(state: State, caller: number, claim: Claims): Answer | null {
  const seen = claim(0);
  if (!Number.isInteger(seen)) return refuse(Status.badArgument, 0);
  const events = state.env.get(caller, Env.events);
  if (events !== (seen | 0)) return ok(events);

  state.env.put(caller, Env.state, EnvState.sleeping);
  state.machine.contexts.setResult(caller, Status.ok, events);
  giveBack(state, caller);
  return null;
}

/**
 * notify(env, slot): posts an event to an environment under the caller's authority.
 *
 * @refuses badEnvironment 0 (no such environment); badArgument 1 (not a slot); noCapability 1
 *   (the environment is another and the slot is empty); notPermitted 1 (the slot does not
 *   dominate its guard with WRITE)
 */
export function notify(state: State, caller: number, claim: Claims): Answer {
  const env = state.row(claim(0));
  if (env < 0) return refuse(Status.badEnvironment, 0);
  const slot = claim(1);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  const may = checkEnv(state, caller, slot, env);
  if (may !== Status.ok) return refuse(may, 1);

  post(state, env);
  return ok();
}

/**
 * sliceAllocate(position, env, slot): gives a free position to an environment.
 *
 * @refuses badArgument 0 (not a position); badEnvironment 1 (no such environment); badArgument 2
 *   (not a slot); noCapability 2 (the environment is another and the slot is empty);
 *   notPermitted 2 (the slot does not dominate its guard with WRITE); notFree 0 (a living
 *   environment holds it)
 * @source Aegis (SOSP 1995), section 5.1.1: the slice vector.
 */
export function sliceAllocate(state: State, caller: number, claim: Claims): Answer {
  const [position, id, slot] = [claim(0), claim(1), claim(2)];
  if (!isPosition(state, position)) return refuse(Status.badArgument, 0);
  const env = state.row(id);
  if (env < 0 || state.stateOf(env) === EnvState.zombie) return refuse(Status.badEnvironment, 1);
  if (!isSlot(slot)) return refuse(Status.badArgument, 2);
  const may = checkEnv(state, caller, slot, env);
  if (may !== Status.ok) return refuse(may, 2);
  if (liveOwner(state, position) !== 0) return refuse(Status.notFree, 0);

  state.setInfo(Info.sliceVector + position, id);
  return ok();
}

/**
 * sliceFree(position, slot): frees a position whose owner is under the caller's authority.
 *
 * @refuses badArgument 0 (not a position); badArgument 1 (not a slot); absent 0 (nobody alive
 *   holds it); noCapability 1 (another holds it and the slot is empty); notPermitted 1 (the slot
 *   does not dominate the holder's guard)
 */
export function sliceFree(state: State, caller: number, claim: Claims): Answer {
  const [position, slot] = [claim(0), claim(1)];
  if (!isPosition(state, position)) return refuse(Status.badArgument, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  const owner = liveOwner(state, position);
  if (owner === 0) return refuse(Status.absent, 0);
  const may = checkEnv(state, caller, slot, owner);
  if (may !== Status.ok) return refuse(may, 1);

  state.setInfo(Info.sliceVector + position, 0);
  return ok();
}

const isPosition = (state: State, n: number): boolean =>
  Number.isInteger(n) && n >= 0 && n < state.config.slices;

/** Row of the living environment that holds `position`, or 0: a dead owner holds nothing. */
function liveOwner(state: State, position: number): number {
  const row = state.row(state.sliceOwner(position));
  return row > 0 && state.stateOf(row) !== EnvState.zombie ? row : 0;
}

/**
 * Who runs when `env` has the CPU: itself, or whom its call waits for; 0 if nobody can. A call
 * whose callee has died ends here, refused: whoever would run the caller finds it ready.
 */
export function runnerFor(state: State, env: number): number {
  let at = env;
  for (let hop = 0; hop < CALL_CHAIN; hop++) {
    const is = state.stateOf(at);
    if (is === EnvState.ready) return at;
    if (is !== EnvState.calling) return 0;
    const callee = state.row(state.env.get(at, Env.partner));
    if (callee < 0 || state.stateOf(callee) === EnvState.zombie) {
      state.machine.contexts.setResult(at, Status.badEnvironment, 0);
      state.secret.put(at, Private.queueNext, 0);
      state.env.put(at, Env.state, EnvState.ready);
      return at;
    }
    at = callee;
  }
  return 0;
}

/** A timer trap. It may be spurious; the slice's end may be announced first, and overrun. */
export function tick(state: State): void {
  const { machine, cpu } = state;
  const end = loadTick(cpu, 0, Cpu.end);
  const now = machine.now();
  if (now < end) return;
  const current = cpu.get(0, Cpu.current);
  if (current === 0) return;
  if (cpu.get(0, Cpu.grace) === 0 && pushSliceUpcall(state, current, Upcall.sliceEnd)) {
    cpu.put(0, Cpu.grace, 1);
    cpu.put(0, Cpu.told, current);
    storeTick(cpu, 0, Cpu.end, now + GRACE);
    machine.setTimer(now + GRACE);
    return;
  }
  // Whoever it yielded to meanwhile has overrun nothing.
  if (cpu.get(0, Cpu.grace) === 1 && cpu.get(0, Cpu.told) === current) charge(state, current);
  cpu.put(0, Cpu.current, 0);
  cpu.put(0, Cpu.owner, 0);
}

/** An overrun of the grace period costs a later slice; too many cost the environment. */
function charge(state: State, env: number): void {
  const excess = state.env.add(env, Env.excess, 1);
  if (excess > EXCESS_MAX) kill(state, env, -1);
}

/** Which context runs next, or null if none can. */
export function dispatch(state: State): Context | null {
  const { machine, cpu } = state;
  let next = cpu.get(0, Cpu.current);
  if (next === 0 || state.stateOf(next) !== EnvState.ready) {
    const owner = cpu.get(0, Cpu.owner);
    next = owner === 0 ? 0 : runnerFor(state, owner);
    if (next === 0) next = nextSlice(state);
    if (next === 0) {
      machine.setTimer(NEVER);
      cpu.put(0, Cpu.current, 0);
      cpu.put(0, Cpu.owner, 0); // whoever wakes begins a slice of its own, with a timer
      return null;
    }
    cpu.put(0, Cpu.current, next);
  }
  enter(state, next);
  return machine.contexts.context(next);
}

/** Goes on to the next position whose owner can run, and starts its slice; 0 if there is none. */
function nextSlice(state: State): number {
  const { cpu, machine, config } = state;
  let position = state.info.get(0, Info.slicePosition);
  for (let n = 0; n < config.slices; n++) {
    position = position + 1 === config.slices ? 0 : position + 1;
    const owner = state.row(state.sliceOwner(position));
    if (owner < 0) continue;
    const runner = runnerFor(state, owner);
    if (runner === 0) continue;
    const excess = state.env.get(runner, Env.excess);
    if (excess > 0) {
      state.env.put(runner, Env.excess, excess - 1);
      // Alone on the machine it would wait for nothing; the debt is paid all the same.
      if (n + 1 < config.slices) continue;
    }
    state.setInfo(Info.slicePosition, position);
    cpu.put(0, Cpu.owner, owner);
    cpu.put(0, Cpu.grace, 0);
    const end = machine.now() + config.sliceCycles;
    storeTick(cpu, 0, Cpu.end, end);
    machine.setTimer(end);
    enter(state, runner);
    pushSliceUpcall(state, runner, Upcall.sliceBegin);
    if (state.stateOf(runner) === EnvState.ready) return runner;
  }
  return 0;
}

/** Loads the registers and the address space of the environment that runs next. */
function enter(state: State, env: number): void {
  const { machine, cpu, secret } = state;
  const installed = cpu.get(0, Cpu.installed);
  const at = secret.address(env, Private.registers);
  if (installed !== env) {
    if (installed !== 0 && machine.contexts.exists(installed)) saveMore(state, installed);
    machine.setAddressSpace({ root: state.env.get(env, Env.root), asid: env });
    machine.attribute(state.env.get(env, Env.account) & 63);
    cpu.put(0, Cpu.installed, env);
  }
  const saved = secret.get(env, Private.saved);
  if (saved > 0) {
    machine.contexts.restore(env, at, saved);
    secret.put(env, Private.saved, 0);
  }
}

/** A kernel call saved a few registers; leaving its environment, the rest must go too. */
function saveMore(state: State, env: number): void {
  const { secret, machine } = state;
  if (secret.get(env, Private.saved) !== REGISTERS_CALL) return;
  machine.contexts.save(env, secret.address(env, Private.registers), REGISTERS_YIELD);
  secret.put(env, Private.saved, REGISTERS_YIELD);
}

/** On the way in: frees the registers that the handler needs. */
export function leave(state: State, env: number, call: boolean): void {
  const count = call ? REGISTERS_CALL : REGISTERS_ALL;
  const { secret, machine } = state;
  machine.contexts.save(env, secret.address(env, Private.registers), count);
  secret.put(env, Private.saved, count);
}
