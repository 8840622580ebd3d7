/**
 * Upcalls: faults and slice boundaries are forwarded to the environment that they concern, and
 * handled there. The kernel writes word of them through the environment's own mappings; where the
 * environment itself could not write, it is destroyed, and the kernel never faults. Handlers return
 * without the kernel. Aegis (SOSP 1995), section 5.3; JOS, lab 4, for the exception stack.
 */
import { FAULT_FRAME_WORDS, FAULT_FRAMES, Status, Upcall, UPCALL_KINDS } from '../abi.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { kill } from './life.ts';
import { isWord, Private, type State } from './state.ts';
import { Env } from '../abi.ts';

/**
 * upcallSet(kind, entry | -1, frame address): from now on upcalls of `kind` go to entry `entry` of
 * the caller's image, with word of them at `frame address`; -1 switches them off, as at the start.
 *
 * @refuses badArgument 0 (not a kind); badArgument 1 (not -1 nor an entry of the caller's
 *   image); badAddress 2 (not an aligned address)
 * @source Aegis (SOSP 1995), section 5.3; JOS, lab 4.
 */
export function upcallSet(state: State, caller: number, claim: Claims): Answer {
  const [kind, entry, frame] = [claim(0), claim(1), claim(2)];
  if (!Number.isInteger(kind) || kind < 0 || kind >= UPCALL_KINDS) {
    return refuse(Status.badArgument, 0);
  }
  const image = state.env.get(caller, Env.image);
  if (entry !== -1 && !state.machine.contexts.hasEntry(image, entry)) {
    return refuse(Status.badArgument, 1);
  }
  if (!isWord(frame) || frame < 0 || frame % 4 !== 0) return refuse(Status.badAddress, 2);

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
  const words = [cause, address | 0, 0, 0];
  for (let n = 0; n < FAULT_FRAME_WORDS; n++) {
    if (!machine.storeUser(at + n * 4, words[n] ?? 0)) return false;
  }
  if (!machine.storeUser(frames, standing + 1)) return false;
  machine.contexts.upcall(env, entry - 1, [cause, address]);
  return true;
}

/** Announces a slice boundary, unless none is wanted or one is outstanding. True: it was pushed. */
export function pushSliceUpcall(state: State, env: number, kind: number): boolean {
  const { machine, secret } = state;
  const entry = secret.get(env, Private.upcallEntry + kind);
  if (entry === 0) return false;
  const mask = secret.get(env, Private.upcallFrame + kind) >>> 0;
  const outstanding = machine.loadUser(mask);
  if (outstanding === 0 && machine.contexts.hasRoom(env) && machine.storeUser(mask, 1)) {
    machine.contexts.upcall(env, entry - 1, []);
    return true;
  }
  if (outstanding === null || outstanding === 0) kill(state, env, -1);
  else secret.add(env, Private.coalesced, 1);
  return false;
}
