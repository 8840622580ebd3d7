/**
 * Environments own resources and are made by environments, from resources that the maker names.
 * Death takes constant time, because a trap can kill: a zombie is reaped afterwards, by name, by
 * anyone who dominates its guard. Ids carry a generation, so a stale name is refused.
 */
import { assert } from '../../machine/assert.ts';
import {
  Account,
  ALL_RIGHTS,
  CAP_SLOTS,
  Env,
  envId,
  EnvState,
  PageKind,
  Resource,
  Status,
  WRITE,
} from '../abi.ts';
import { charge, checkAccount, covers, credit, hasRoom, isAccount, payer } from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { breakViews } from './bindings.ts';
import { capOf, check, checkEnv, isName, nameOf, putCap } from './capabilities.ts';
import { makeRoot, spendable, unmakeTable } from './tables.ts';
import { kill, tellPatron, wake } from './life.ts';
import { Cpu, isSlot, isWord, pageNamed, PageRecord, Private, type State } from './state.ts';

/**
 * envCreate(index, root page, slot, name a, name b, patron, account): makes an environment in free
 * row `index` with user page `root page` as its root table and the given name, which the capability
 * in `slot` dominates, as its guard and its slot 0. It has no mappings and does not run. `patron`,
 * -1 for the caller, is notified whenever it becomes ready: the caller, its own patron, or an
 * environment whose guard `slot` dominates, for an event is what notify needs authority for. Its
 * row and what it takes are charged to `account`, -1 for the caller's. The value is its id.
 *
 * @refuses badArgument 0 (not a row); notFree 0 (the row is taken); badArgument 2 (not a slot);
 *   badArgument 3 (the two words are not a name); badEnvironment 5 (no such environment);
 *   noCapability 2 (the slot is empty); notPermitted 2 (it does not dominate the name with all
 *   rights); notPermitted 5 (the patron is not the caller, nor its patron, nor dominated);
 *   badArgument 1 (not a page); wrongKind 1 (not a user page); notPermitted 2 (the slot does not
 *   dominate entry 0 of the page); busy 1 (the page has leaves, pins or further entries,
 *   or is asked for);
 *   badArgument 6 (no such account); notPermitted 6 (another account, whose name the slot does not
 *   dominate with WRITE); notPermitted 6 (the account's name does not dominate the given one);
 *   notPermitted 1 (the name of the page's account does not dominate it); quota 6 (the account has
 *   no row left)
 * @source Hyperkernel (SOSP 2017): the caller names row and pages.
 */
export function envCreate(state: State, caller: number, claim: Claims): Answer {
  const [index, slot, a, b] = [claim(0), claim(2), claim(3), claim(4)];
  const [root, patronId] = [pageNamed(state, claim(1)), claim(5)];
  if (!Number.isInteger(index) || index < 1 || index >= state.config.environments) {
    return refuse(Status.badArgument, 0);
  }
  if (state.stateOf(index) !== EnvState.free) return refuse(Status.notFree, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 2);
  if (!isName(a, b)) return refuse(Status.badArgument, 3);
  const patron = patronId === -1 ? caller : state.row(patronId);
  if (patron < 0) return refuse(Status.badEnvironment, 5);
  const [cap, name] = [capOf(state, caller, slot), nameOf(a, b)];
  const may = check(state, cap, name, ALL_RIGHTS);
  if (may !== Status.ok) return refuse(may, 2);
  if (!mayBePatron(state, caller, slot, patron)) return refuse(Status.notPermitted, 5);
  const fit = spendable(state, cap, root, slot, 1, 2);
  if (fit.status !== Status.ok) return fit;
  const account = claim(6) === -1 ? payer(state, caller) : claim(6);
  if (!isAccount(state, account)) return refuse(Status.badArgument, 6);
  const own = account === payer(state, caller);
  if (!own && checkAccount(state, caller, slot, account, WRITE) !== Status.ok) {
    return refuse(Status.notPermitted, 6);
  }
  if (!covers(state, account, name)) return refuse(Status.notPermitted, 6);
  if (!covers(state, fit.value, name)) return refuse(Status.notPermitted, 1);
  if (!hasRoom(state, account, Resource.environments)) return refuse(Status.quota, 6);

  makeRoot(state, root, index);
  return ok(makeEnv(state, index, root, a, b, caller, patron, account));
}

function mayBePatron(state: State, caller: number, slot: number, patron: number): boolean {
  if (patron === state.row(state.env.get(caller, Env.patron))) return true;
  return checkEnv(state, caller, slot, patron) === Status.ok;
}

/** Fills free row `index`, of which only the generation is not zero. Returns the id. */
export function makeEnv(
  state: State,
  index: number,
  root: number,
  a: number,
  b: number,
  parent: number,
  patron: number,
  account: number,
): number {
  const { env, secret } = state;
  const generation = (env.get(index, Env.generation) + 1) & 0x1ffff;
  env.put(index, Env.generation, generation);
  env.put(index, Env.parent, parent);
  env.put(index, Env.patron, patron === index ? envId(index, generation) : state.id(patron));
  env.put(index, Env.root, root);
  env.put(index, Env.account, account);
  charge(state, account, Resource.environments);
  if (state.row(state.account.get(account, Account.holder)) < 0) {
    state.account.put(account, Account.holder, envId(index, generation));
  }
  env.put(index, Env.nameA, a);
  env.put(index, Env.nameB, b);
  env.put(index, Env.state, EnvState.made);
  for (let slot = 0; slot < CAP_SLOTS; slot++) secret.put(index, state.cap(slot, 2), 0);
  for (let word = Private.saved; word <= Private.offerTo; word++) secret.put(index, word, 0);
  putCap(state, index, 0, a, b, ALL_RIGHTS);
  // The row's number is the ASID: what the previous holder cached must go.
  state.machine.fence(index);
  return state.id(index);
}

/**
 * envStart(env, image, entry, argument 0, argument 1, slot): loads image `image` and makes the
 * environment ready at its entry `entry`, called with (env id, argument 0, argument 1).
 *
 * @refuses badEnvironment 0 (no such environment); badArgument 1 (no such image); badArgument 2
 *   (no such entry); badArgument 3 (not a word); badArgument 4 (not a word); badArgument 5 (not
 *   a slot); noCapability 5 (the environment is another and the slot is empty); notPermitted 5
 *   (the slot does not dominate its guard with WRITE); notReady 0 (it has been started)
 */
export function envStart(state: State, caller: number, claim: Claims): Answer {
  const [id, image, entry, argument0, argument1, slot] = [0, 1, 2, 3, 4, 5].map(claim) as Six;
  const env = state.row(id);
  if (env < 0) return refuse(Status.badEnvironment, 0);
  const { contexts } = state.machine;
  if (!contexts.hasEntry(image, 0)) return refuse(Status.badArgument, 1);
  if (!contexts.hasEntry(image, entry)) return refuse(Status.badArgument, 2);
  if (!isWord(argument0)) return refuse(Status.badArgument, 3);
  if (!isWord(argument1)) return refuse(Status.badArgument, 4);
  if (!isSlot(slot)) return refuse(Status.badArgument, 5);
  const may = checkEnv(state, caller, slot, env);
  if (may !== Status.ok) return refuse(may, 5);
  if (state.stateOf(env) !== EnvState.made) return refuse(Status.notReady, 0);

  startEnv(state, env, image, entry, [id, argument0, argument1]);
  return ok();
}

export function startEnv(
  state: State,
  env: number,
  image: number,
  entry: number,
  args: readonly number[],
): void {
  const { contexts } = state.machine;
  contexts.create(env, image, 'user');
  contexts.start(env, entry, args);
  state.env.put(env, Env.image, image);
  wake(state, env);
}

/**
 * envSuspend(env, slot, 0 | 1): with 1 the environment does not run until somebody resumes it with
 * 0, wherever it stands; messages, events and completions still reach it. Who takes a tree of
 * environments back suspends it first, or it would forge and allocate behind him.
 *
 * @refuses badEnvironment 0 (no such environment, or dead); badArgument 1 (not a slot); badArgument
 *   2 (not 0 or 1); noCapability 1 (the environment is another and the slot is empty); notPermitted
 *   1 (the slot does not dominate its guard with WRITE)
 */
export function envSuspend(state: State, caller: number, claim: Claims): Answer {
  const [env, slot, suspended] = [state.row(claim(0)), claim(1), claim(2)];
  if (env < 0 || state.stateOf(env) === EnvState.zombie) return refuse(Status.badEnvironment, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  if (suspended !== 0 && suspended !== 1) return refuse(Status.badArgument, 2);
  const may = checkEnv(state, caller, slot, env);
  if (may !== Status.ok) return refuse(may, 1);

  state.env.put(env, Env.suspended, suspended);
  const { cpu } = state;
  if (suspended === 1 && cpu.get(0, Cpu.current) === env) cpu.put(0, Cpu.current, 0);
  // Who schedules it must hear that it can run again.
  if (suspended === 0 && state.stateOf(env) === EnvState.ready) tellPatron(state, env);
  return ok();
}

/**
 * envDestroy(env, slot, exit status): the environment stops for ever and becomes a zombie. What it
 * owned stays until reaped by name. Destroying oneself does not return.
 *
 * @refuses badEnvironment 0 (no such environment, or dead); badArgument 1 (not a slot);
 *   badArgument 2 (not a word); noCapability 1 (the environment is another and the slot is
 *   empty); notPermitted 1 (the slot does not dominate its guard with WRITE)
 * @source DESIGN: death is O(1), because a trap can kill.
 */
export function envDestroy(state: State, caller: number, claim: Claims): Answer | null {
  const [id, slot, exitStatus] = [claim(0), claim(1), claim(2)];
  const env = state.row(id);
  if (env < 0 || state.stateOf(env) === EnvState.zombie) return refuse(Status.badEnvironment, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  if (!isWord(exitStatus)) return refuse(Status.badArgument, 2);
  const may = checkEnv(state, caller, slot, env);
  if (may !== Status.ok) return refuse(may, 1);

  kill(state, env, exitStatus);
  return env === caller ? null : ok();
}

/**
 * envReap(env, slot): frees the row of a zombie whose root table is empty; the root page is a user
 * page again, by the access list that it had. Who waits for it learns from its stale id. Views of
 * the root go first, as tableDestroy says.
 *
 * @refuses badEnvironment 0 (no such environment); badArgument 1 (not a slot); noCapability 1
 *   (the environment is another and the slot is empty); notPermitted 1 (the slot does not
 *   dominate its guard with WRITE); notReady 0 (it is not dead); busy 0 (its root has entries, or
 *   requests are in flight)
 */
export function envReap(state: State, caller: number, claim: Claims): Answer {
  const [id, slot] = [claim(0), claim(1)];
  const env = state.row(id);
  if (env < 0) return refuse(Status.badEnvironment, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  const may = checkEnv(state, caller, slot, env);
  if (may !== Status.ok) return refuse(may, 1);
  if (state.stateOf(env) !== EnvState.zombie) return refuse(Status.notReady, 0);
  const root = state.env.get(env, Env.root);
  if (state.page.get(root, PageRecord.leaves) !== 0) return refuse(Status.busy, 0);
  if (state.env.get(env, Env.diskSubmitted) !== state.env.get(env, Env.diskDone)) {
    return refuse(Status.busy, 0);
  }

  if (!breakViews(state, root, PageKind.root)) return { status: Status.again, value: 0 };
  // Or its root would still be in satp, and supervisors translate through it.
  assert(state.cpu.get(0, Cpu.installed) !== env, 'exokernel: who reaps runs in its own space');
  unmakeTable(state, root, false);
  credit(state, payer(state, env), Resource.environments);
  // Nothing of it is shown any more, but the generation.
  for (let word = 0; word < Env.words; word++) {
    if (word !== Env.generation) state.env.put(env, word, 0);
  }
  return ok();
}

type Six = [number, number, number, number, number, number];
