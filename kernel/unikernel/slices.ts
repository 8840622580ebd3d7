/**
 * The CPU: a vector of time slices, held by position, as the ABI shows it to a scheduler in the
 * libOS. Trusts every environment to yield when its slice ends: the end is announced, and there is
 * nobody to be unfair to, so no grace is measured and nothing forfeited.
 */
import { NEVER } from '../../machine/units.ts';
import { Env, EnvState, Info, Status, Upcall } from '../abi.ts';
import {
  type Context,
  loadTick,
  REGISTERS_ALL,
  REGISTERS_YIELD,
  storeTick,
} from '../supervisor.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { post } from './life.ts';
import { Cpu, Private, SLICES, type State } from './state.ts';
import { pushSliceUpcall } from './upcalls.ts';

const CALL_CHAIN = 8; // environments that wait for one another, followed at most this far

/** yield(target | -1): gives the rest of the slice to a ready environment, or back. */
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

/** sleep(seen): waits until the caller's event count is not `seen`. The value is the count. */
export function sleep(state: State, caller: number, claim: Claims): Answer | null {
  const seen = claim(0);
  const events = state.env.get(caller, Env.events);
  if (events !== (seen | 0)) return ok(events);

  state.env.put(caller, Env.state, EnvState.sleeping);
  state.machine.contexts.setResult(caller, Status.ok, events);
  giveBack(state, caller);
  return null;
}

/** notify(env): posts an event to any environment. */
export function notify(state: State, claim: Claims): Answer {
  const env = state.row(claim(0));
  if (env < 0) return refuse(Status.badEnvironment, 0);

  post(state, env);
  return ok();
}

/** sliceAllocate(position, env): gives a position to an environment, whoever has it. */
export function sliceAllocate(state: State, claim: Claims): Answer {
  const [position, id] = [claim(0), claim(1)];
  if (!isPosition(position)) return refuse(Status.badArgument, 0);

  state.setInfo(Info.sliceVector + position, id);
  return ok();
}

/** sliceFree(position): frees a position, whoever has it. */
export function sliceFree(state: State, claim: Claims): Answer {
  const position = claim(0);
  if (!isPosition(position)) return refuse(Status.badArgument, 0);

  state.setInfo(Info.sliceVector + position, 0);
  return ok();
}

const isPosition = (n: number): boolean => Number.isInteger(n) && n >= 0 && n < SLICES;

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
      state.env.put(at, Env.state, EnvState.ready);
      return at;
    }
    at = callee;
  }
  return 0;
}

/** A timer trap. It may be spurious; where the slice's end is announced, a new slice begins. */
export function tick(state: State): void {
  const { machine, cpu, config } = state;
  const now = machine.now();
  if (now < loadTick(cpu, 0, Cpu.end)) return;
  const current = cpu.get(0, Cpu.current);
  if (current === 0) return;
  if (pushSliceUpcall(state, current, Upcall.sliceEnd)) {
    const end = machine.now() + config.sliceCycles;
    storeTick(cpu, 0, Cpu.end, end);
    machine.setTimer(end);
    return;
  }
  cpu.put(0, Cpu.current, 0);
  cpu.put(0, Cpu.owner, 0);
}

/** Which context runs next, or null if none can. */
export function dispatch(state: State): Context | null {
  const { machine, cpu } = state;
  let next = cpu.get(0, Cpu.current);
  if (next === 0 || state.stateOf(next) !== EnvState.ready) {
    const owner = cpu.get(0, Cpu.owner);
    next = owner === 0 ? 0 : runnerFor(state, owner);
    if (next === 0) next = nextSlice(state);
    cpu.put(0, Cpu.current, next);
    if (next === 0) {
      machine.setTimer(NEVER);
      return null;
    }
  }
  enter(state, next);
  return machine.contexts.context(next);
}

/** Goes on to the next position whose owner can run, and starts its slice; 0 if there is none. */
function nextSlice(state: State): number {
  const { cpu, machine, config } = state;
  let position = state.info.get(0, Info.slicePosition);
  for (let n = 0; n < SLICES; n++) {
    position = (position + 1) % SLICES;
    const owner = state.row(state.sliceOwner(position));
    if (owner < 0) continue;
    const runner = runnerFor(state, owner);
    if (runner === 0) continue;
    state.setInfo(Info.slicePosition, position);
    cpu.put(0, Cpu.owner, owner);
    const end = machine.now() + config.sliceCycles;
    storeTick(cpu, 0, Cpu.end, end);
    machine.setTimer(end);
    enter(state, runner);
    pushSliceUpcall(state, runner, Upcall.sliceBegin);
    return runner;
  }
  return 0;
}

/** Loads the registers and the address space of the environment that runs next. */
function enter(state: State, env: number): void {
  const { machine, cpu, secret } = state;
  const installed = cpu.get(0, Cpu.installed);
  if (installed !== env) {
    if (installed !== 0 && machine.contexts.exists(installed)) saveMore(state, installed);
    machine.setAddressSpace({ root: state.env.get(env, Env.root), asid: env });
    machine.attribute(state.channel & 63);
    cpu.put(0, Cpu.installed, env);
  }
  const saved = secret.get(env, Private.saved);
  if (saved > 0) {
    machine.contexts.restore(env, secret.address(env, Private.registers), saved);
    secret.put(env, Private.saved, 0);
  }
}

/** A procedure call saved nothing; leaving its environment, what a callee must preserve goes. */
function saveMore(state: State, env: number): void {
  const { secret, machine } = state;
  if (secret.get(env, Private.saved) !== 0) return;
  machine.contexts.save(env, secret.address(env, Private.registers), REGISTERS_YIELD);
  secret.put(env, Private.saved, REGISTERS_YIELD);
}

/** On the way in, from a fault or an interrupt: frees the registers that the handler needs. */
export function leave(state: State, env: number): void {
  const { secret, machine } = state;
  machine.contexts.save(env, secret.address(env, Private.registers), REGISTERS_ALL);
  secret.put(env, Private.saved, REGISTERS_ALL);
}
