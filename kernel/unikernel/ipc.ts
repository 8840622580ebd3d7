/**
 * Control transfer between environments: a call hands a message in registers, and with it the CPU,
 * to an environment that waits for calls; the reply hands both back. The sender is trusted with the
 * page that it grants, and no access list is kept; owed is that message and page arrive both or
 * neither. Callers that come while the callee is at work wait in order of arrival.
 */
import { ENTRIES } from '../../machine/sv39.ts';
import { Env, EnvState, MAP_READ, MAP_WRITE, READ, Status, WRITE } from '../abi.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { wake } from './life.ts';
import { mapPage } from './pages.ts';
import { runnerFor } from './slices.ts';
import { Cpu, isPage, pageAt, Private, type State } from './state.ts';

/** ipcWindow(table, index): pages granted to the caller are mapped there, one after another. */
export function ipcWindow(state: State, caller: number, claim: Claims): Answer {
  const [table, index] = [pageAt(claim(0)), claim(1)];
  if (!isPage(state, table)) return refuse(Status.badArgument, 0);

  state.secret.put(caller, Private.windowTable, table + 1);
  state.secret.put(caller, Private.windowIndex, index);
  return ok();
}

/** ipcCall(env, word 0..3, page | -1, -, rights): calls `env` and waits for its reply. */
export function ipcCall(state: State, caller: number, claim: Claims): Answer | null {
  const target = state.row(claim(0));
  if (target < 0 || target === caller) return refuse(Status.badEnvironment, 0);
  const is = state.stateOf(target);
  if (is === EnvState.zombie || is === EnvState.made) return refuse(Status.notReady, 0);
  // A page is granted to an environment that waits for it; a bare message may queue.
  if (is !== EnvState.receiving && claim(5) !== -1) return refuse(Status.notReady, 0);
  const index = grant(state, target, claim);
  if (index < 0) return refuse(Status.notReady, 0);

  state.env.put(caller, Env.state, EnvState.calling);
  state.env.put(caller, Env.partner, state.id(target));
  if (is === EnvState.receiving) {
    deliver(state, caller, target, message(claim), index);
    state.env.put(target, Env.state, EnvState.ready);
  } else {
    enqueue(state, caller, target, message(claim));
  }
  state.cpu.put(0, Cpu.current, runnerFor(state, target));
  return null;
}

/** ipcSend(env, word 0..3, page | -1, -, rights): tells `env`, and gives it the slice's rest. */
export function ipcSend(state: State, caller: number, claim: Claims): Answer | null {
  const target = state.row(claim(0));
  if (target < 0 || target === caller) return refuse(Status.badEnvironment, 0);
  if (state.stateOf(target) !== EnvState.receiving) return refuse(Status.notReady, 0);
  const index = grant(state, target, claim);
  if (index < 0) return refuse(Status.notReady, 0);

  deliver(state, caller, target, message(claim), index);
  wake(state, target);
  state.machine.contexts.setResult(caller, Status.ok, 0);
  const runner = runnerFor(state, target);
  if (runner !== 0) state.cpu.put(0, Cpu.current, runner);
  return null;
}

/** ipcReplyWait(env | -1, word 0..3, page | -1, -, rights): answers `env`, waits for a call. */
export function ipcReplyWait(state: State, caller: number, claim: Claims): Answer | null {
  const id = claim(0);
  const client = id === -1 ? 0 : state.row(id);
  if (client < 0) return refuse(Status.badEnvironment, 0);
  if (client > 0) {
    if (!waitsFor(state, client, caller)) return refuse(Status.notReady, 0);
    const index = grant(state, client, claim);
    if (index < 0) return refuse(Status.notReady, 0);
    deliver(state, caller, client, message(claim), index);
    wake(state, client);
  }
  const next = dequeue(state, caller);
  if (next > 0) {
    const queued = [0, 1, 2, 3].map((n) => state.secret.get(next, Private.message + n));
    deliver(state, next, caller, queued, 0);
    return null;
  }
  state.env.put(caller, Env.state, EnvState.receiving);
  state.cpu.put(0, Cpu.current, client === 0 ? 0 : runnerFor(state, client));
  return null;
}

/** The four words of a message. */
const message = (claim: Claims): number[] => [1, 2, 3, 4].map((n) => claim(n) | 0);

/** Whether `client` called `server` and has no answer yet. */
const waitsFor = (state: State, client: number, server: number): boolean =>
  state.stateOf(client) === EnvState.calling &&
  state.row(state.env.get(client, Env.partner)) === server;

/** The receiver's return registers: sender, words, granted page. */
function deliver(
  state: State,
  from: number,
  to: number,
  words: readonly number[],
  granted: number,
): void {
  state.machine.contexts.setResult(to, Status.ok, state.id(from), ...words, granted);
}

function enqueue(state: State, caller: number, target: number, words: readonly number[]): void {
  const { secret } = state;
  words.forEach((word, n) => {
    secret.put(caller, Private.message + n, word);
  });
  const tail = secret.get(target, Private.queueTail);
  if (tail === 0) secret.put(target, Private.queueHead, caller);
  else secret.put(tail, Private.queueNext, caller);
  secret.put(target, Private.queueTail, caller);
}

/** The first caller in the queue that still lives, or 0; the dead are passed over. */
function dequeue(state: State, server: number): number {
  const { secret } = state;
  for (;;) {
    const head = secret.get(server, Private.queueHead);
    if (head === 0) return 0;
    const next = secret.get(head, Private.queueNext);
    secret.put(server, Private.queueHead, next);
    if (next === 0) secret.put(server, Private.queueTail, 0);
    secret.put(head, Private.queueNext, 0);
    if (state.stateOf(head) === EnvState.calling) return head;
  }
}

/** Maps argument 5 into the receiver's window; index + 1, 0 without a page, -1 if it cannot be. */
function grant(state: State, to: number, claim: Claims): number {
  const [page, given] = [claim(5), claim(7)];
  if (page === -1) return 0;
  const { secret } = state;
  const table = secret.get(to, Private.windowTable) - 1;
  const index = secret.get(to, Private.windowIndex);
  if (table < 0 || index >= ENTRIES) return -1;
  const flags = MAP_READ | ((given & WRITE) !== 0 ? MAP_WRITE : 0);
  const mapped = mapPage(state, table, index, page, flags);
  if (mapped.status !== Status.ok || (given & READ) === 0) return -1;
  secret.put(to, Private.windowIndex, index + 1);
  return index + 1;
}
