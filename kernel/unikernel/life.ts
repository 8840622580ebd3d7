/**
 * What befalls an environment: it becomes ready, an event is posted to it, it dies. All of them are
 * one tenant's, so who may cause it is not asked; whoever schedules an environment is owed word.
 */
import { Env, EnvState, Status, Woken } from '../abi.ts';
import { Cpu, type State } from './state.ts';

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

/** Constant time. Who waits for the dead is released when somebody would run it: see runnerFor. */
export function kill(state: State, env: number, exitStatus: number): void {
  const { contexts } = state.machine;
  if (contexts.exists(env)) contexts.destroy(env);
  state.env.put(env, Env.state, EnvState.zombie);
  state.env.put(env, Env.exitStatus, exitStatus);
  if (state.cpu.get(0, Cpu.current) === env) state.cpu.put(0, Cpu.current, 0);
  tellPatron(state, env);
}
