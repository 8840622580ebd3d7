/**
 * Upcalls: faults and slice boundaries are forwarded to the environment that they concern, and
 * handled there. Word of them goes through the environment's own mappings, and its frame address is
 * believed; owed is only that a store which cannot be made fails, and the unikernel does not fault.
 */
import {
  Account,
  Env,
  EnvState,
  FAULT_FRAME_WORDS,
  FAULT_FRAMES,
  Status,
  Upcall,
  UPCALL_KINDS,
} from '../abi.ts';
import { loadTick } from '../supervisor.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { post, wake } from './life.ts';
import { Cpu, Private, type State } from './state.ts';

/** upcallSet(kind, entry | -1, frame address): upcalls of `kind` go to `entry`; -1: nowhere. */
export function upcallSet(state: State, caller: number, claim: Claims): Answer {
  const [kind, entry, frame] = [claim(0), claim(1), claim(2)];
  if (!Number.isInteger(kind) || kind < 0 || kind >= UPCALL_KINDS) {
    return refuse(Status.badArgument, 0);
  }
  const { contexts } = state.machine;
  if (entry !== -1 && !contexts.hasEntry(state.env.get(caller, Env.image), entry)) {
    return refuse(Status.badArgument, 1);
  }

  state.secret.put(caller, Private.upcallEntry + kind, entry + 1);
  state.secret.put(caller, Private.upcallFrame + kind, frame | 0);
  return ok();
}

/** Forwards a fault. False: there is no handler, or no room for it: the environment must die. */
export function pushFault(state: State, env: number, cause: number, address: number): boolean {
  const { machine, secret } = state;
  const entry = secret.get(env, Private.upcallEntry + Upcall.fault);
  if (entry === 0 || !machine.contexts.hasRoom(env)) return false;
  const frames = secret.get(env, Private.upcallFrame + Upcall.fault) >>> 0;
  const standing = machine.loadUser(frames);
  if (standing === null || standing < 0 || standing >= FAULT_FRAMES) return false;
  const at = frames + (1 + standing * FAULT_FRAME_WORDS) * 4;
  if (!machine.storeUser(at, cause) || !machine.storeUser(at + 4, address | 0)) return false;
  if (!machine.storeUser(frames, standing + 1)) return false;
  machine.contexts.upcall(env, entry - 1, [cause, address]);
  return true;
}

/** Announces a slice boundary, unless none is wanted or one is outstanding. True: it was pushed. */
export const pushSliceUpcall = (state: State, env: number, kind: number): boolean =>
  push(state, env, kind, []);

function push(state: State, env: number, kind: number, args: readonly number[]): boolean {
  const { machine, secret } = state;
  const entry = secret.get(env, Private.upcallEntry + kind);
  if (entry === 0) return false;
  const mask = secret.get(env, Private.upcallFrame + kind) >>> 0;
  const outstanding = machine.loadUser(mask);
  if (outstanding === 0 && machine.contexts.hasRoom(env) && machine.storeUser(mask, 1)) {
    machine.contexts.upcall(env, entry - 1, args);
    return true;
  }
  return false;
}

/** `env` is to hear that its account is asked for pages: at once if it waits, else when it runs. */
export function announceRevocation(state: State, env: number): void {
  state.secret.put(env, Private.pending, 1);
  if (state.cpu.get(0, Cpu.installed) === env) state.cpu.put(0, Cpu.installed, 0);
  post(state, env);
  const heard = state.secret.get(env, Private.upcallEntry + Upcall.revoke) !== 0;
  if (!heard || state.stateOf(env) !== EnvState.receiving) return;
  state.machine.contexts.setResult(env, Status.interrupted, 0);
  wake(state, env);
}

/** Pushes what is pending to `env`, which is being entered. */
export function pushPending(state: State, env: number): void {
  if (state.secret.get(env, Private.pending) === 0) return;
  const { account: table } = state;
  const account = state.env.get(env, Env.account);
  const left = loadTick(table, account, Account.deadline) - state.machine.now();
  const wanted = table.get(account, Account.wanted);
  if (push(state, env, Upcall.revoke, [wanted, Math.max(0, left)])) {
    state.secret.put(env, Private.pending, 0);
  }
}
