/**
 * Environments, made by anyone from a row and a root page that the maker names. All are trusted
 * with each other: none is guarded, and a reaped one's tables and pages are its tenant's to count.
 * Owed are a row that exists and a page outside the tables; ids carry a generation, so that a
 * stale one is noticed.
 */
import { Env, envId, EnvState, type Name, PageKind, Status } from '../abi.ts';
import { drawOn, isAccount } from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { kill, tellPatron, wake } from './life.ts';
import { makeRoot } from './pages.ts';
import { Cpu, isPage, pageAt, Private, type State } from './state.ts';

/** envCreate(index, root page, -, name a, name b, patron | -1, account | -1): a row's id. */
export function envCreate(state: State, caller: number, claim: Claims): Answer {
  const [index, root, patronId] = [claim(0), pageAt(claim(1)), claim(5)];
  if (!Number.isInteger(index) || index < 1 || index >= state.config.environments) {
    return refuse(Status.badArgument, 0);
  }
  if (state.stateOf(index) !== EnvState.free) return refuse(Status.notFree, 0);
  if (!isPage(state, root)) return refuse(Status.badArgument, 1);
  if (state.kind(root) !== PageKind.user) return refuse(Status.wrongKind, 1);
  const patron = patronId === -1 ? caller : state.row(patronId);
  if (patron < 0) return refuse(Status.badEnvironment, 5);
  const account = claim(6) === -1 ? state.env.get(caller, Env.account) : claim(6);
  if (!isAccount(state, account)) return refuse(Status.badArgument, 6);

  makeRoot(state, root, index);
  return ok(makeEnv(state, index, root, { a: claim(3), b: claim(4) }, caller, patron, account));
}

/** Fills row `index`; what the previous holder left in it is cleared. Returns the id. */
export function makeEnv(
  state: State,
  index: number,
  root: number,
  name: Name,
  parent: number,
  patron: number,
  account: number,
): number {
  const { env, secret } = state;
  const generation = (env.get(index, Env.generation) + 1) & 0x1ffff;
  for (let word = 0; word < Env.words; word++) env.put(index, word, 0);
  env.put(index, Env.generation, generation);
  env.put(index, Env.parent, parent);
  env.put(index, Env.patron, patron === index ? envId(index, generation) : state.id(patron));
  env.put(index, Env.root, root);
  env.put(index, Env.nameA, name.a);
  env.put(index, Env.nameB, name.b);
  env.put(index, Env.state, EnvState.made);
  drawOn(state, index, account);
  for (let word = Private.saved; word < Private.words; word++) secret.put(index, word, 0);
  // The row's number is the ASID: what the previous holder cached must go.
  state.machine.fence(index);
  return state.id(index);
}

/** envStart(env, image, entry, argument 0, argument 1): loads the image and makes `env` ready. */
export function envStart(state: State, claim: Claims): Answer {
  const [id, image, entry] = [claim(0), claim(1), claim(2)];
  const env = state.row(id);
  if (env < 0 || state.stateOf(env) !== EnvState.made) return refuse(Status.badEnvironment, 0);
  if (!state.machine.contexts.hasEntry(image, entry)) return refuse(Status.badArgument, 1);

  startEnv(state, env, image, entry, [id, claim(3), claim(4)]);
  return ok();
}

/** It runs in the unikernel's own privilege: its calls are procedure calls. */
export function startEnv(
  state: State,
  env: number,
  image: number,
  entry: number,
  args: readonly number[],
): void {
  const { contexts } = state.machine;
  contexts.create(env, image, 'supervisor');
  contexts.start(env, entry, args);
  state.env.put(env, Env.image, image);
  wake(state, env);
}

/** envSuspend(env, -, 0 | 1): with 1 `env` does not run until it is resumed with 0. */
export function envSuspend(state: State, claim: Claims): Answer {
  const env = state.row(claim(0));
  if (env < 0) return refuse(Status.badEnvironment, 0);

  state.env.put(env, Env.suspended, claim(2) === 1 ? 1 : 0);
  if (claim(2) === 1 && state.cpu.get(0, Cpu.current) === env) state.cpu.put(0, Cpu.current, 0);
  if (claim(2) !== 1 && state.stateOf(env) === EnvState.ready) tellPatron(state, env);
  return ok();
}

/** envDestroy(env, -, exit status): `env` becomes a zombie; destroying oneself does not return. */
export function envDestroy(state: State, caller: number, claim: Claims): Answer | null {
  const env = state.row(claim(0));
  if (env < 0 || state.stateOf(env) === EnvState.zombie) return refuse(Status.badEnvironment, 0);

  kill(state, env, claim(2) | 0);
  return env === caller ? null : ok();
}

/** envReap(env): frees the row of a zombie, whatever its tables hold; its root is a user page. */
export function envReap(state: State, claim: Claims): Answer {
  const env = state.row(claim(0));
  if (env < 0) return refuse(Status.badEnvironment, 0);
  if (state.stateOf(env) !== EnvState.zombie) return refuse(Status.notReady, 0);

  // Its root may still be in satp: nobody runs on it, but supervisors translate through it.
  if (state.cpu.get(0, Cpu.installed) === env) {
    state.machine.setAddressSpace({ root: state.root, asid: 0 });
    state.cpu.put(0, Cpu.installed, 0);
  }
  state.retype(state.env.get(env, Env.root), PageKind.user, 0);
  state.machine.fence(env);
  state.env.put(env, Env.state, EnvState.free);
  return ok();
}
