/**
 * Authority. A capability is a hierarchical name with rights, in a kernel-held list per
 * environment; it is no object and has no address. A call names the resource and the slot; the
 * resource's access list holds names, and the one asked about must be dominated by the capability:
 * the capability's name is a prefix of it, and the rights suffice. One function decides that.
 *
 * Mazieres and Kaashoek, "Secure Applications Need Flexible Operating Systems", HotOS 1997.
 */
import { ALL_RIGHTS, Env, EnvState, GRANT, PageKind, Status, WRITE } from '../abi.ts';
import type { Table } from '../supervisor.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import {
  CAP_GOING,
  CAP_VALID,
  isEntry,
  isSlot,
  isWord,
  pageNamed,
  Private,
  type State,
} from './state.ts';

const NAME_MAX = 7; // bytes
const OFFER_SLOT = 8; // bits: of an offer's rights, above them the slot that it is made by
const COMPARE = 4; // instructions of one prefix comparison of two-word names

/** Whether name `a`, `b` is well formed: at most 7 bytes, nothing beyond its length. */
export function isName(a: number, b: number): boolean {
  if (!isWord(a) || !isWord(b)) return false;
  const length = a & 0xff;
  if (length > NAME_MAX) return false;
  return (a & ~maskA(length)) >>> 0 === 0 && (b & ~maskB(length)) >>> 0 === 0;
}

/** Words by number: a name's two, or a capability's, of which the first two are its name. */
export type Words = (n: number) => number;

/** The name in two arguments. */
export const nameOf =
  (a: number, b: number): Words =>
  (n) =>
    n === 0 ? a : b;

/** What stands in a row from `column` on: read once, when it is asked for. */
export function wordsAt(table: Table, row: number, column: number): Words {
  const read: number[] = [];
  return (n) => (read[n] ??= table.get(row, column + n));
}

/** Prefix order: the shorter name stands for all that begin with it. */
export function dominates(above: Words, below: Words): boolean {
  const [a1, a2] = [above(0), below(0)];
  const length = a1 & 0xff;
  if (length > (a2 & 0xff) || ((a1 ^ a2) & bytesA(length)) !== 0) return false;
  // Of a short name the first word says it all.
  return maskB(length) === 0 || ((above(1) ^ below(1)) & maskB(length)) === 0;
}

const bytesA = (length: number): number =>
  length === 0 ? 0 : length === 1 ? 0xff00 : length === 2 ? 0xffff00 : 0xffffff00 | 0;
const maskA = (length: number): number => bytesA(length) | 0xff;
const maskB = (length: number): number =>
  length <= 3 ? 0 : length >= 7 ? ~0 : (1 << ((length - 3) * 8)) - 1;

export const capOf = (state: State, env: number, slot: number): Words =>
  wordsAt(state.secret, env, state.cap(slot, 0));

/** Status 0 if the capability dominates the name with `rights`. */
export function check(state: State, cap: Words, name: Words, rights: number): number {
  const held = cap(2);
  if ((held & CAP_VALID) === 0) return Status.noCapability;
  if ((held & rights) !== rights) return Status.notPermitted;
  state.machine.work(COMPARE);
  return dominates(cap, name) ? Status.ok : Status.notPermitted;
}

/** Status 0 if the capability has `rights` to `page` by access entry `entry`. */
export function checkPage(
  state: State,
  cap: Words,
  page: number,
  entry: number,
  rights: number,
): number {
  const granted = state.page.get(page, state.access(entry, 2));
  if ((granted & CAP_VALID) === 0) return Status.absent;
  if ((granted & rights) !== rights) return Status.notPermitted;
  return check(state, cap, wordsAt(state.page, page, state.access(entry, 0)), rights);
}

/** Who dominates it has authority over the environment. */
export const guardOf = (state: State, env: number): Words => wordsAt(state.env, env, Env.nameA);

/** Status 0 if `caller` may act on environment `env`: itself, or its guard is dominated. */
export function checkEnv(state: State, caller: number, slot: number, env: number): number {
  if (caller === env) return Status.ok;
  return check(state, capOf(state, caller, slot), guardOf(state, env), WRITE);
}

/** Writes a capability into an empty slot, which counts no leaves. */
export function putCap(
  state: State,
  env: number,
  slot: number,
  a: number,
  b: number,
  rights: number,
): void {
  const { secret } = state;
  secret.put(env, state.cap(slot, 0), a);
  secret.put(env, state.cap(slot, 1), b);
  secret.put(env, state.cap(slot, 2), rights | CAP_VALID);
}

/**
 * capForge(env, slot there, slot here, name a, name b, rights): puts a capability that the one in
 * `slot here` dominates into an empty slot of `env`, the caller or an environment under its
 * authority. Forging goes only downwards.
 *
 * @refuses badEnvironment 0 (no such environment); badArgument 1 (not a slot); badArgument 2
 *   (not a slot); badArgument 3 (the two words are not a name); badArgument 5 (not a set of
 *   rights); noCapability 0 (the environment is another and slot here is empty); notPermitted 0
 *   (slot here does not dominate its guard with WRITE); noCapability 2 (slot here is empty);
 *   notPermitted 2 (it does not dominate the name with the rights and GRANT); occupied 1 (slot
 *   there is filled)
 * @source Mazieres and Kaashoek (HotOS 1997).
 */
export function capForge(state: State, caller: number, claim: Claims): Answer {
  const [id, there, here, a, b, rights] = [0, 1, 2, 3, 4, 5].map(claim) as Six;
  const env = state.row(id);
  if (env < 0) return refuse(Status.badEnvironment, 0);
  if (!isSlot(there)) return refuse(Status.badArgument, 1);
  if (!isSlot(here)) return refuse(Status.badArgument, 2);
  if (!isName(a, b)) return refuse(Status.badArgument, 3);
  if (!isRights(rights)) return refuse(Status.badArgument, 5);

  const over = checkEnv(state, caller, here, env);
  if (over !== Status.ok) return refuse(over, 0);
  const may = check(state, capOf(state, caller, here), nameOf(a, b), rights | GRANT);
  if (may !== Status.ok) return refuse(may, 2);
  if ((state.secret.get(env, state.cap(there, 2)) & CAP_VALID) !== 0) {
    return refuse(Status.occupied, 1);
  }

  putCap(state, env, there, a, b, rights);
  return ok();
}

/**
 * capDrop(env, slot there, slot here): empties a slot of `env`, the caller or an environment under
 * its authority, that justifies no leaf: how a capability is taken back by name. The window that it
 * is named by is shut.
 *
 * @refuses badEnvironment 0 (no such environment); badArgument 1 (not a slot); badArgument 2 (not a
 *   slot); noCapability 0 (the environment is another and slot here is empty); notPermitted 0 (slot
 *   here does not dominate its guard with WRITE); noCapability 1 (the slot is empty); busy 1 (it
 *   justifies leaves)
 */
export function capDrop(state: State, caller: number, claim: Claims): Answer {
  const [id, slot, here] = [claim(0), claim(1), claim(2)];
  const env = state.row(id);
  if (env < 0) return refuse(Status.badEnvironment, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  if (!isSlot(here)) return refuse(Status.badArgument, 2);
  const may = checkEnv(state, caller, here, env);
  if (may !== Status.ok) return refuse(may, 0);
  const { secret } = state;
  if ((secret.get(env, state.cap(slot, 2)) & CAP_VALID) === 0) {
    return refuse(Status.noCapability, 1);
  }
  if (secret.get(env, state.cap(slot, 3)) !== 0) return refuse(Status.busy, 1);

  secret.put(env, state.cap(slot, 2), 0);
  // Or pages would arrive by the name of whatever fills the slot next.
  if (secret.get(env, Private.windowSlot) === slot) secret.put(env, Private.windowTable, 0);
  return ok();
}

/**
 * capOffer(env, slot, name a, name b, rights): offers `env` a capability that the one in `slot`
 * dominates. One offer stands at a time; another replaces it, and it lasts until it is acquired.
 *
 * @refuses badEnvironment 0 (no such environment); badArgument 1 (not a slot); badArgument 2 (the
 *   two words are not a name); badArgument 4 (not a set of rights); noCapability 1 (the slot is
 *   empty); notPermitted 1 (it does not dominate the name with the rights and GRANT)
 * @source Xok: acquire takes what a granter has offered, and is dominated by the granter's own.
 */
export function capOffer(state: State, caller: number, claim: Claims): Answer {
  const [id, slot, a, b, rights] = [0, 1, 2, 3, 4].map(claim) as Five;
  if (state.row(id) < 0) return refuse(Status.badEnvironment, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  if (!isName(a, b)) return refuse(Status.badArgument, 2);
  if (!isRights(rights)) return refuse(Status.badArgument, 4);
  const may = check(state, capOf(state, caller, slot), nameOf(a, b), rights | GRANT);
  if (may !== Status.ok) return refuse(may, 1);

  state.secret.put(caller, Private.offerTo, id);
  [a, b, rights | (slot << OFFER_SLOT)].forEach((word, n) => {
    state.secret.put(caller, Private.offer + n, word);
  });
  return ok();
}

/**
 * capAcquire(env, slot): takes the capability that `env` offers to the caller into an empty slot.
 * Nobody fills another's slots unasked. What `env` may no longer give it does not offer.
 *
 * @refuses badEnvironment 0 (no such environment, or dead); badArgument 1 (not a slot); absent 0
 *   (it offers the caller nothing, or may not any more); occupied 1 (the slot is filled)
 * @source Xok, self_acquire.
 */
export function capAcquire(state: State, caller: number, claim: Claims): Answer {
  const [granter, slot] = [state.row(claim(0)), claim(1)];
  if (granter < 0 || state.stateOf(granter) === EnvState.zombie) {
    return refuse(Status.badEnvironment, 0);
  }
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  const { secret } = state;
  if (secret.get(granter, Private.offerTo) !== state.id(caller)) return refuse(Status.absent, 0);
  const [a, b, how] = [0, 1, 2].map((n) => secret.get(granter, Private.offer + n)) as Three;
  const rights = how & ALL_RIGHTS;
  // An offer is no hiding-place: who takes the granter's capability back takes it back, too.
  const granting = capOf(state, granter, how >>> OFFER_SLOT);
  if (check(state, granting, nameOf(a, b), rights | GRANT) !== Status.ok) {
    return refuse(Status.absent, 0);
  }
  if ((secret.get(caller, state.cap(slot, 2)) & CAP_VALID) !== 0) {
    return refuse(Status.occupied, 1);
  }

  putCap(state, caller, slot, a, b, rights);
  secret.put(granter, Private.offerTo, 0);
  return ok();
}

/**
 * accessAdd(page, slot, entry, name a, name b, rights): fills empty access entry `entry` of a page
 * of which the caller's `slot` has GRANT by entry 0: how a page is shared.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a user page); badArgument 1 (not a
 *   slot); noCapability 1 (the slot is empty); notPermitted 1 (the slot does not dominate entry
 *   0 with GRANT); badArgument 2 (not an access entry); badArgument 3 (the two words are not a
 *   name); badArgument 5 (not a set of rights); occupied 2 (the access entry is filled)
 * @source Mazieres and Kaashoek (HotOS 1997): hierarchical names.
 */
export function accessAdd(state: State, caller: number, claim: Claims): Answer {
  const [name, slot, entry, a, b, rights] = [0, 1, 2, 3, 4, 5].map(claim) as Six;
  const page = pageNamed(state, name);
  const owned = checkOwned(state, caller, page, slot);
  if (owned.status !== Status.ok) return owned;
  if (!isEntry(entry)) return refuse(Status.badArgument, 2);
  if (!isName(a, b)) return refuse(Status.badArgument, 3);
  if (!isRights(rights)) return refuse(Status.badArgument, 5);
  if (isTaken(state, page, entry)) return refuse(Status.occupied, 2);

  putEntry(state, page, entry, a, b, rights);
  return ok();
}

/** Whether an access entry is filled, or was and still reaches something. */
export const isTaken = (state: State, page: number, entry: number): boolean =>
  (state.page.get(page, state.access(entry, 2)) & (CAP_VALID | CAP_GOING)) !== 0;

/** Writes an access entry; the list of an empty one is empty. */
export function putEntry(
  state: State,
  page: number,
  entry: number,
  a: number,
  b: number,
  rights: number,
): void {
  state.page.put(page, state.access(entry, 0), a);
  state.page.put(page, state.access(entry, 1), b);
  state.page.put(page, state.access(entry, 2), rights | CAP_VALID);
}

/**
 * `page`, argument 0, is a user page, and argument 1 a slot that answers for it (GRANT, entry 0).
 */
export function checkOwned(state: State, caller: number, page: number, slot: number): Answer {
  if (page < 0) return refuse(Status.badArgument, 0);
  if (state.kind(page) !== PageKind.user) return refuse(Status.wrongKind, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  const may = checkPage(state, capOf(state, caller, slot), page, 0, GRANT);
  return may === Status.ok ? ok() : refuse(may, 1);
}

export const isRights = (n: number): boolean => Number.isInteger(n) && n >= 1 && n <= ALL_RIGHTS;

type Three = [number, number, number];
type Five = [number, number, number, number, number];
type Six = [number, number, number, number, number, number];
