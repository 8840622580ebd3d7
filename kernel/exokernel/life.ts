/**
 * What befalls an environment: it becomes ready, an event is posted to it, it dies. Each takes
 * constant time, because a trap or an interrupt can cause it; whoever schedules it hears of it.
 */
import { Env, EnvState, Status, Woken } from '../abi.ts';
import { Cpu, Private, type State } from './state.ts';

/** An event for `env`; a sleeper wakes. */
export function post(state: State, env: number): void {
  const events = state.env.add(env, Env.events, 1);
  if (state.stateOf(env) === EnvState.sleeping) rouse(state, env, events, Woken.event, 0);
}

/** A sleeper wakes, and its sleep is answered: event count, reason, tag. */
export function rouse(state: State, env: number, events: number, why: number, tag: number): void {
  state.machine.contexts.setResult(env, Status.ok, events, why, tag);
  wake(state, env);
}

/** `env` is ready from now on, and its patron hears of it. */
export function wake(state: State, env: number): void {
  state.env.put(env, Env.state, EnvState.ready);
  tellPatron(state, env);
}

/** An event for the patron of `env`, if it still lives: who schedules must hear who can run. */
export function tellPatron(state: State, env: number): void {
  const patron = state.row(state.env.get(env, Env.patron));
  if (patron < 0 || patron === env) return;
  const events = state.env.add(patron, Env.events, 1);
  if (state.stateOf(patron) !== EnvState.sleeping) return;
  state.machine.contexts.setResult(patron, Status.ok, events, Woken.event, 0);
  state.env.put(patron, Env.state, EnvState.ready);
}

// ---- the queue of callers -----------------------------------------------------------------------

/** Of the first in a queue: it has no previous one, and stands in it all the same. */
const FIRST = -1;

/** Whether `env`, which calls, has not been heard yet. */
export const isQueued = (state: State, env: number): boolean =>
  state.secret.get(env, Private.queuePrevious) !== 0;

/** `caller` is the last of those that wait for `callee`. */
export function enqueue(state: State, caller: number, callee: number): void {
  const { secret } = state;
  const tail = secret.get(callee, Private.queueTail);
  if (tail === 0) secret.put(callee, Private.queueHead, caller);
  else secret.put(tail, Private.queueNext, caller);
  secret.put(caller, Private.queuePrevious, tail === 0 ? FIRST : tail);
  secret.put(caller, Private.queueNext, 0);
  secret.put(callee, Private.queueTail, caller);
}

/**
 * Takes `env` out of the queue that it stands in, if any. The callee may be dead, and even reaped:
 * then the ends of its queue are gone, and those who stand there are linked to each other only.
 */
export function unqueue(state: State, env: number): void {
  const { secret } = state;
  const previous = secret.get(env, Private.queuePrevious);
  if (previous === 0) return;
  const next = secret.get(env, Private.queueNext);
  const callee = state.row(state.env.get(env, Env.partner));
  if (previous !== FIRST) secret.put(previous, Private.queueNext, next);
  else if (callee > 0) secret.put(callee, Private.queueHead, next);
  if (next !== 0) secret.put(next, Private.queuePrevious, previous);
  else if (callee > 0) secret.put(callee, Private.queueTail, previous === FIRST ? 0 : previous);
  secret.put(env, Private.queuePrevious, 0);
}

/** Constant time. Who waits for the dead is released when somebody would run it: see runnerFor. */
export function kill(state: State, env: number, exitStatus: number): void {
  const { contexts } = state.machine;
  if (contexts.exists(env)) contexts.destroy(env);
  unqueue(state, env);
  state.env.put(env, Env.state, EnvState.zombie);
  state.env.put(env, Env.exitStatus, exitStatus);
  if (state.cpu.get(0, Cpu.current) === env) state.cpu.put(0, Cpu.current, 0);
  // The patron hears of it, as of readiness: somebody has to reap.
  tellPatron(state, env);
}
