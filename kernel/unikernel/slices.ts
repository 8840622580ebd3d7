/**
 * The CPU: a vector of time slices, held by position, as the ABI shows it to a scheduler in the
 * libOS. Trusts every environment to yield when its slice ends: the end is announced, and there is
 * nobody to be unfair to, so no grace is measured and nothing forfeited.
 */
import { NEVER } from '../../machine/units.ts';
import { Env, EnvState, Info, PREDICATE_TERMS, SLICE_BITS, Status, Upcall, Woken } from '../abi.ts';
import {
  type Context,
  loadTick,
  REGISTERS_ALL,
  REGISTERS_YIELD,
  storeTick,
} from '../supervisor.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { post, rouse } from './life.ts';
import { evaluate, fetchTerms, holds, keepTerms } from './predicates.ts';
import { Cpu, indexOf, Private, SLICES, type State } from './state.ts';
import { pushPending, pushSliceUpcall } from './upcalls.ts';

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

/**
 * sleep(seen, cycles | -1, predicate address, terms): waits until the caller's event count is not
 * `seen`, `cycles` have passed or the predicate holds. Its value is the count; then reason and tag.
 */
export function sleep(state: State, caller: number, claim: Claims): Answer | null {
  const [seen, cycles, address, terms] = [claim(0), claim(1), claim(2), claim(3)];
  if (!(terms >= 0 && terms <= PREDICATE_TERMS)) return refuse(Status.tooMany, 3);
  const words = fetchTerms(state, address, terms);
  if (!Array.isArray(words)) return words;

  const { contexts } = state.machine;
  const events = state.env.get(caller, Env.events);
  const tag = evaluate(state, terms, (n) => words[n] ?? 0);
  if (events !== (seen | 0)) contexts.setResult(caller, Status.ok, events, Woken.event, 0);
  else if (tag !== null) contexts.setResult(caller, Status.ok, events, Woken.predicate, tag);
  else if (cycles === 0) contexts.setResult(caller, Status.ok, events, Woken.deadline, 0);
  else {
    const deadline = cycles < 0 ? 0 : state.machine.now() + cycles;
    storeTick(state.env, caller, Env.deadline, deadline);
    keepTerms(state, caller, words);
    state.env.put(caller, Env.state, EnvState.sleeping);
    giveBack(state, caller);
  }
  return null;
}

/** Wakes sleeper `env` if its time has come or its predicate is true. */
function isDue(state: State, env: number): boolean {
  const events = state.env.get(env, Env.events);
  const tag = state.env.get(env, Env.terms) > 0 ? holds(state, env) : null;
  const deadline = loadTick(state.env, env, Env.deadline);
  if (tag !== null) rouse(state, env, events, Woken.predicate, tag);
  else if (deadline === 0 || state.machine.now() < deadline) return false;
  else rouse(state, env, events, Woken.deadline, 0);
  return true;
}

/** notify(env): posts an event to any environment. */
export function notify(state: State, claim: Claims): Answer {
  const env = state.row(claim(0));
  if (env < 0) return refuse(Status.badEnvironment, 0);

  post(state, env);
  return ok();
}

/** sliceAllocate(position, env): gives a position that no living environment has to one. */
export function sliceAllocate(state: State, claim: Claims): Answer {
  const [position, id] = [indexOf(claim(0), SLICE_BITS), claim(1)];
  if (!isPosition(position)) return refuse(Status.badArgument, 0);
  const owner = state.row(state.sliceOwner(position));
  if (owner > 0 && state.stateOf(owner) !== EnvState.zombie) return refuse(Status.notFree, 0);

  state.setInfo(Info.sliceVector + position, id);
  return ok();
}

/** sliceFree(position): frees a position, whoever has it. */
export function sliceFree(state: State, claim: Claims): Answer {
  const position = indexOf(claim(0), SLICE_BITS);
  if (!isPosition(position)) return refuse(Status.badArgument, 0);
  if (state.sliceOwner(position) === 0) return refuse(Status.absent, 0);

  state.setInfo(Info.sliceVector + position, 0);
  return ok();
}

const isPosition = (n: number): boolean => n >= 0 && n < SLICES;

/** Who runs when `env` has the CPU: itself, or whom its call waits for; 0 if nobody can. */
export function runnerFor(state: State, env: number): number {
  const at = endOfCalls(state, env);
  if (at === 0) return 0;
  const is = state.stateOf(at);
  if (is === EnvState.ready) return at;
  return is === EnvState.sleeping && isDue(state, at) ? at : 0;
}

/**
 * Whom `env` waits for in the end: the first that is in no call, itself perhaps; 0 if one of them
 * is suspended. A call whose callee has died ends here, refused: its caller is ready.
 */
function endOfCalls(state: State, env: number): number {
  let at = env;
  for (let hop = 0; hop < CALL_CHAIN; hop++) {
    if (state.env.get(at, Env.suspended) !== 0) return 0;
    if (state.stateOf(at) !== EnvState.calling) return at;
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
      machine.setTimer(firstDeadline(state));
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

/** The first deadline that a position would run somebody for. */
function firstDeadline(state: State): number {
  let wake = NEVER;
  for (let position = 0; position < SLICES; position++) {
    const owner = state.row(state.sliceOwner(position));
    const at = owner < 0 ? 0 : endOfCalls(state, owner);
    if (at === 0 || state.stateOf(at) !== EnvState.sleeping) continue;
    const deadline = loadTick(state.env, at, Env.deadline);
    if (deadline !== 0) wake = Math.min(wake, deadline);
  }
  return wake;
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
  if (installed !== env) pushPending(state, env);
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
