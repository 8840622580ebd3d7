/**
 * Protected control transfer between environments: a call hands a message in registers, and with it
 * the CPU, to an environment that waits for calls; the reply hands both back. The caller's name is
 * the kernel's word. A page can be granted with a message: message and page arrive both or neither.
 * Callers that come while the callee is at work wait in order of arrival.
 *
 * Aegis (SOSP 1995), section 5.4; JOS, lab 4, for the page; Hyperkernel for the named window.
 */
import { PTE_V } from '../../machine/sv39.ts';
import { Env, EnvState, MAP_READ, MAP_WRITE, PageKind, READ, Status, WRITE } from '../abi.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { bind } from './bindings.ts';
import { checkOwned, isTaken, putEntry } from './capabilities.ts';
import { enqueue, isQueued, unqueue, wake } from './life.ts';
import { fits } from './pages.ts';
import { runnerFor } from './slices.ts';
import {
  CAP_VALID,
  Cpu,
  isEntry,
  isIndex,
  isSlot,
  isWord,
  pageNamed,
  Private,
  type State,
} from './state.ts';
import { interrupts } from './upcalls.ts';

const MESSAGE = 4; // words

/**
 * ipcWindow(table, index, slot): pages granted to the caller from now on are mapped at `index` of
 * its leaf table `table`, by the name of its capability `slot`. The window moves up by one with
 * each page, as far as its table goes.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a leaf table); notPermitted 0 (not the
 *   caller's own); badArgument 1 (not an index); badArgument 2 (not a slot); noCapability 2 (the
 *   slot is empty)
 * @source Hyperkernel (SOSP 2017): the receiver names the place.
 */
export function ipcWindow(state: State, caller: number, claim: Claims): Answer {
  const [table, index, slot] = [pageNamed(state, claim(0)), claim(1), claim(2)];
  if (table < 0) return refuse(Status.badArgument, 0);
  if (state.kind(table) !== PageKind.leaf) return refuse(Status.wrongKind, 0);
  if (state.envOf(table) !== caller) return refuse(Status.notPermitted, 0);
  if (!isIndex(index)) return refuse(Status.badArgument, 1);
  if (!isSlot(slot)) return refuse(Status.badArgument, 2);
  if ((state.secret.get(caller, state.cap(slot, 2)) & CAP_VALID) === 0) {
    return refuse(Status.noCapability, 2);
  }

  state.secret.put(caller, Private.windowTable, table + 1);
  state.secret.put(caller, Private.windowIndex, index);
  state.secret.put(caller, Private.windowSlot, slot);
  return ok();
}

/**
 * ipcCall(env, word 0..3, page | -1, slot | entry << 8, rights | new entry << 8): calls `env` and
 * waits for its reply: the value is its id, result registers 1 to 4 the words, 5 the index of a
 * granted page + 1. The rest of the slice, and the caller's later ones until the reply, run the
 * callee.
 *
 * @refuses badEnvironment 0 (no such environment, or the caller); notReady 0 (dead, or not
 *   started); badArgument 1 (not a word); badArgument 2 (not a word); badArgument 3 (not a
 *   word); badArgument 4 (not a word); badArgument 6 (not a slot, or not by entry 0);
 *   badArgument 5 (not a page); wrongKind 5 (not a user page); noCapability 6 (the slot is
 *   empty); notPermitted 6 (the slot does not dominate entry 0 with GRANT); badArgument 7
 *   (rights are not READ, or READ and WRITE, or the entry is 0); occupied 7 (the access entry is
 *   filled); sharing 7 (more mappings than the page's limits allow); notReady 0 (a page, and no
 *   window with an empty entry); notReady 0 (a page, and it does not wait for a call)
 * @source Aegis (SOSP 1995), section 5.4: protected control transfer.
 */
export function ipcCall(state: State, caller: number, claim: Claims): Answer | null {
  const target = state.row(claim(0));
  if (target < 0 || target === caller) return refuse(Status.badEnvironment, 0);
  const is = state.stateOf(target);
  if (is === EnvState.zombie || is === EnvState.made) return refuse(Status.notReady, 0);
  const words = message(claim);
  if (typeof words === 'number') return refuse(Status.badArgument, words);
  const grant = checkGrant(state, caller, target, claim);
  if (grant.status !== Status.ok) return grant;
  // A page is granted to an environment that waits for it; a bare message may queue.
  if (is !== EnvState.receiving && claim(5) !== -1) return refuse(Status.notReady, 0);

  state.env.put(caller, Env.state, EnvState.calling);
  state.env.put(caller, Env.partner, state.id(target));
  if (is === EnvState.receiving) {
    deliver(state, caller, target, words, commitGrant(state, target, claim));
    state.env.put(target, Env.state, EnvState.ready);
  } else {
    words.forEach((word, n) => {
      state.secret.put(caller, Private.message + n, word);
    });
    enqueue(state, caller, target);
  }
  state.cpu.put(0, Cpu.current, runnerFor(state, target));
  return null;
}

/**
 * ipcSend(env, word 0..3, page | -1, slot | entry << 8, rights | new entry << 8): tells `env`,
 * which waits for a call, and gives it the rest of the slice. The caller stays ready and is owed no
 * reply: one is refused. Message and page arrive as a call's do.
 *
 * @refuses badEnvironment 0 (no such environment, or the caller); notReady 0 (it does not wait for
 *   a call); badArgument 1 (not a word); badArgument 2 (not a word); badArgument 3 (not a word);
 *   badArgument 4 (not a word); badArgument 6 (not a slot, or not by entry 0); badArgument 5 (not a
 *   page); wrongKind 5 (not a user page); noCapability 6 (the slot is empty); notPermitted 6 (the
 *   slot does not dominate entry 0 with GRANT); badArgument 7 (rights are not READ, or READ and
 *   WRITE, or the entry is 0); occupied 7 (the access entry is filled); sharing 7 (more mappings
 *   than the page's limits allow); notReady 0 (a page, and no window with an empty entry)
 * @source Aegis (SOSP 1995), section 5.4: asynchronous protected control transfer.
 */
export function ipcSend(state: State, caller: number, claim: Claims): Answer | null {
  const target = state.row(claim(0));
  if (target < 0 || target === caller) return refuse(Status.badEnvironment, 0);
  if (state.stateOf(target) !== EnvState.receiving) return refuse(Status.notReady, 0);
  const words = message(claim);
  if (typeof words === 'number') return refuse(Status.badArgument, words);
  const grant = checkGrant(state, caller, target, claim);
  if (grant.status !== Status.ok) return grant;

  deliver(state, caller, target, words, commitGrant(state, target, claim));
  // Its patron hears of it: when this slice is over, nothing else would run it.
  wake(state, target);
  state.machine.contexts.setResult(caller, Status.ok, 0);
  const runner = runnerFor(state, target);
  if (runner !== 0) state.cpu.put(0, Cpu.current, runner);
  return null;
}

/**
 * ipcReplyWait(env, word 0..3, page | -1, slot | entry << 8, rights | new entry << 8): answers
 * `env`, which called the caller and waits, and waits for the next call, as ipcCall's answer is
 * told. With -1 it only waits. An upcall that comes meanwhile ends the wait: status `interrupted`,
 * and whoever was to be answered has been.
 *
 * @refuses badEnvironment 0 (no such environment); notReady 0 (it has not called, or was not
 *   heard yet); badArgument 1 (not a word); badArgument 2 (not a word); badArgument 3 (not a
 *   word); badArgument 4 (not a word); badArgument 5 (a page, and nobody to grant it to);
 *   badArgument 6 (not a slot, or not by entry 0); badArgument 5 (not a page); wrongKind 5 (not
 *   a user page); noCapability 6 (the slot is empty); notPermitted 6 (the slot does not dominate
 *   entry 0 with GRANT); badArgument 7 (rights are not READ, or READ and WRITE, or the entry is
 *   0); occupied 7 (the access entry is filled); sharing 7 (more mappings than the page's limits
 *   allow); notReady 0 (a page, and no window with an empty entry)
 * @source JOS, lab 4, for the page.
 */
export function ipcReplyWait(state: State, caller: number, claim: Claims): Answer | null {
  const id = claim(0);
  const client = id === -1 ? 0 : state.row(id);
  if (client < 0) return refuse(Status.badEnvironment, 0);
  if (client > 0 && !waitsFor(state, client, caller)) return refuse(Status.notReady, 0);
  const words = message(claim);
  if (typeof words === 'number') return refuse(Status.badArgument, words);
  if (claim(5) !== -1 && client === 0) return refuse(Status.badArgument, 5);
  const grant = checkGrant(state, caller, client, claim);
  if (grant.status !== Status.ok) return grant;

  if (client > 0) {
    deliver(state, caller, client, words, commitGrant(state, client, claim));
    wake(state, client);
  }
  const next = state.secret.get(caller, Private.queueHead);
  if (next > 0) {
    unqueue(state, next);
    const queued = [0, 1, 2, 3].map((n) => state.secret.get(next, Private.message + n));
    deliver(state, next, caller, queued, 0);
  } else if (interrupts(state, caller)) {
    state.machine.contexts.setResult(caller, Status.interrupted, 0);
  } else {
    state.env.put(caller, Env.state, EnvState.receiving);
    state.cpu.put(0, Cpu.current, client === 0 ? 0 : runnerFor(state, client));
  }
  return null;
}

/** The four words of a message, or the index of the first that is none. */
function message(claim: Claims): number[] | number {
  const words = [];
  for (let n = 1; n <= MESSAGE; n++) {
    const word = claim(n);
    if (!isWord(word)) return n;
    words.push(word | 0);
  }
  return words;
}

/** Whether `client` called `server`, has been heard, and has no answer yet. */
const waitsFor = (state: State, client: number, server: number): boolean =>
  state.stateOf(client) === EnvState.calling &&
  state.row(state.env.get(client, Env.partner)) === server &&
  !isQueued(state, client);

/** The receiver's return registers: sender, words, granted page. Only these cross. */
function deliver(
  state: State,
  from: number,
  to: number,
  words: readonly number[],
  granted: number,
): void {
  state.machine.contexts.setResult(to, Status.ok, state.id(from), ...words, granted);
}

/** Arguments 5 to 7: a page that the sender answers for, for the receiver's window. */
function checkGrant(state: State, from: number, to: number, claim: Claims): Answer {
  if (claim(5) === -1) return ok();
  const [page, held, given] = [pageNamed(state, claim(5)), claim(6), claim(7)];
  if (!isWord(held) || !isSlot(held & 0xff) || held >>> 8 !== 0) {
    return refuse(Status.badArgument, 6);
  }
  const owned = checkOwned(state, from, page, held & 0xff);
  if (owned.status !== Status.ok) return refuse(owned.status, 5 + owned.value);
  const rights = given & 0xff;
  const entry = given >>> 8;
  const readable = (rights & READ) !== 0 && (rights & ~(READ | WRITE)) === 0;
  if (!isWord(given) || !readable || !isEntry(entry) || entry === 0) {
    return refuse(Status.badArgument, 7);
  }
  if (isTaken(state, page, entry)) return refuse(Status.occupied, 7);
  if (!fits(state, page, flagsFor(rights))) return refuse(Status.sharing, 7);
  // The receiver named a place for it, and the place is free.
  const table = state.secret.get(to, Private.windowTable) - 1;
  if (table < 0 || state.kind(table) !== PageKind.leaf || state.envOf(table) !== to) {
    return refuse(Status.notReady, 0);
  }
  const slot = state.secret.get(to, Private.windowSlot);
  const cap = state.secret.get(to, state.cap(slot, 2));
  if ((cap & CAP_VALID) === 0 || (cap & rights) !== rights) return refuse(Status.notReady, 0);
  const index = state.secret.get(to, Private.windowIndex);
  if (!isIndex(index)) return refuse(Status.notReady, 0);
  const filled = ((state.machine.readPtes(table, index, 1)[0] ?? 0) & PTE_V) !== 0;
  return filled ? refuse(Status.notReady, 0) : ok();
}

const flagsFor = (rights: number): number => MAP_READ | ((rights & WRITE) !== 0 ? MAP_WRITE : 0);

/**
 * Entry, leaf and ledger at once; the window moves up. Returns the leaf's index + 1, 0: no page.
 */
function commitGrant(state: State, to: number, claim: Claims): number {
  if (claim(5) === -1) return 0;
  const [page, given] = [pageNamed(state, claim(5)), claim(7)];
  const [rights, entry] = [given & 0xff, given >>> 8];
  const { secret } = state;
  const table = secret.get(to, Private.windowTable) - 1;
  const index = secret.get(to, Private.windowIndex);
  const slot = secret.get(to, Private.windowSlot);
  const a = secret.get(to, state.cap(slot, 0));
  const b = secret.get(to, state.cap(slot, 1));
  putEntry(state, page, entry, a, b, rights);
  bind(state, table, index, page, PageKind.user, slot, entry, flagsFor(rights), to);
  secret.put(to, Private.windowIndex, index + 1);
  return index + 1;
}
