/**
 * Upcalls: faults, slice boundaries and revocation are forwarded to the environment that they
 * concern, and handled there. The kernel writes word of them through the environment's own
 * mappings; where the environment itself could not write, it is destroyed, and the kernel never
 * faults. Handlers return without the kernel. Aegis (SOSP 1995), section 5.3; JOS, lab 4, for the
 * exception stack.
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
import { payer } from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { kill, post, wake } from './life.ts';
import { Cpu, isWord, Private, type State } from './state.ts';

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
  return push(state, env, kind, []) === Push.done;
}

const Push = { unwanted: 0, outstanding: 1, done: 2, fatal: 3 } as const;

/** Pushes an upcall that is masked while one of its kind is outstanding. */
function push(state: State, env: number, kind: number, args: readonly number[]): number {
  const { machine, secret } = state;
  const entry = secret.get(env, Private.upcallEntry + kind);
  if (entry === 0) return Push.unwanted;
  const mask = secret.get(env, Private.upcallFrame + kind) >>> 0;
  const outstanding = machine.loadUser(mask);
  if (outstanding === 0 && machine.contexts.hasRoom(env) && machine.storeUser(mask, 1)) {
    machine.contexts.upcall(env, entry - 1, args);
    return Push.done;
  }
  if (outstanding === null || outstanding === 0) {
    kill(state, env, -1);
    return Push.fatal;
  }
  secret.add(env, Private.coalesced, 1);
  return Push.outstanding;
}

/** Kinds that wait until their environment is entered. */
const PENDING = [Upcall.revoke, Upcall.repossessed] as const;

/**
 * An upcall of `kind` for an environment that does not run, or is in a call of its own: it is
 * pushed when the environment is next entered. A wait for events or calls ends; one for a reply
 * does not.
 */
export function announce(state: State, env: number, kind: number): void {
  const { secret, cpu } = state;
  if (state.stateOf(env) === EnvState.zombie) return;
  secret.put(env, Private.pending, secret.get(env, Private.pending) | (1 << kind));
  if (cpu.get(0, Cpu.installed) === env) enterAnew(state);
  post(state, env);
  const heard = secret.get(env, Private.upcallEntry + kind) !== 0;
  if (!heard || state.stateOf(env) !== EnvState.receiving) return;
  state.machine.contexts.setResult(env, Status.interrupted, 0);
  wake(state, env);
}

/** Whoever is installed is entered as if it had not been: pending upcalls are seen to. */
const enterAnew = (state: State): void => {
  state.cpu.put(0, Cpu.installed, 0);
};

/**
 * Whether an upcall is pending that could be pushed to the caller now: then it must not wait. One
 * that had to wait for its predecessor would otherwise be told after the wait, or never.
 */
export function interrupts(state: State, caller: number): boolean {
  const { secret, machine } = state;
  const pending = secret.get(caller, Private.pending);
  const due = PENDING.some((kind) => {
    if ((pending & (1 << kind)) === 0) return false;
    if (secret.get(caller, Private.upcallEntry + kind) === 0) return false;
    const mask = secret.get(caller, Private.upcallFrame + kind) >>> 0;
    return machine.loadUser(mask) === 0;
  });
  if (due) enterAnew(state);
  return due;
}

/** Pushes what is pending to `env`, which is being entered. False: that was the end of it. */
export function pushPending(state: State, env: number): boolean {
  const { secret } = state;
  const pending = secret.get(env, Private.pending);
  if (pending === 0) return true;
  let left = pending;
  for (const kind of PENDING) {
    if ((pending & (1 << kind)) === 0) continue;
    const pushed = push(state, env, kind, argumentsOf(state, env, kind));
    if (pushed === Push.fatal) return false;
    if (pushed !== Push.outstanding) left &= ~(1 << kind);
  }
  secret.put(env, Private.pending, left);
  return true;
}

/** What the handler is told: what stands in the account table now. */
function argumentsOf(state: State, env: number, kind: number): number[] {
  const { account: table, machine } = state;
  const account = payer(state, env);
  if (kind === Upcall.repossessed) return [table.get(account, Account.losses)];
  const left = loadTick(table, account, Account.deadline) - machine.now();
  return [table.get(account, Account.wanted), Math.max(0, left)];
}
