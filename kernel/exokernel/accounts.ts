/**
 * Accounts: who pays. Every page, slice position, environment row, extent and disk request is
 * charged to one account, and the limits of all accounts add up to what the machine has. So an
 * allotment is a guarantee: who has used less than its limit finds a free one, whatever others do.
 *
 * Accounts form the tree of names: opened under a parent, allotted from what the parent has, closed
 * into it again. Which environment is charged never depends on who frees.
 *
 * Mazieres and Kaashoek (HotOS 1997): the prefix says who is responsible.
 */
import {
  Account,
  ACCOUNTS,
  ALL_RIGHTS,
  Env,
  Loss,
  Resource,
  RESOURCES,
  REVOKE,
  SAVE_WORDS,
  Status,
} from '../abi.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { capOf, check, dominates, isName, wordsAt, nameOf, type Words } from './capabilities.ts';
import { isSlot, type State } from './state.ts';

export const isAccount = (state: State, n: number): boolean =>
  Number.isInteger(n) && n >= 0 && n < ACCOUNTS && state.account.get(n, Account.valid) !== 0;

/** Account that an environment draws on. */
export const payer = (state: State, env: number): number => state.env.get(env, Env.account);

/** How many more of `resource` the account may take: what a revocation waits for is spoken for. */
export function slack(state: State, account: number, resource: number): number {
  const { account: table } = state;
  const rest = table.get(account, Account.limit + resource);
  const spoken = resource === Resource.pages ? table.get(account, Account.wanted) : 0;
  return rest - spoken - table.get(account, Account.used + resource);
}

export const hasRoom = (state: State, account: number, resource: number): boolean =>
  slack(state, account, resource) > 0;

export function charge(state: State, account: number, resource: number): void {
  state.account.add(account, Account.used + resource, 1);
}

export function credit(state: State, account: number, resource: number): void {
  state.account.add(account, Account.used + resource, -1);
}

/** Moves `amount` of an allotment; both accounts stay within their limits. */
export function allot(
  state: State,
  from: number,
  to: number,
  resource: number,
  amount: number,
): void {
  state.account.add(from, Account.limit + resource, -amount);
  state.account.add(to, Account.limit + resource, amount);
}

/** A page of `account` is free again: it goes on account of what is wanted. */
export function returned(state: State, account: number, page: number): void {
  const { account: table } = state;
  if (table.get(account, Account.wanted) === 0 || !isAskedFor(state, account, page)) return;
  handOver(state, account);
}

/** One page less is wanted, and its allotment is the taker's. */
export function handOver(state: State, account: number): void {
  const { account: table } = state;
  allot(state, account, table.get(account, Account.taker), Resource.pages, 1);
  if (table.add(account, Account.wanted, -1) === 0) endRevocation(state, account);
}

export function endRevocation(state: State, account: number): void {
  const { account: table } = state;
  table.put(account, Account.wanted, 0);
  table.add(table.get(account, Account.taker), Account.awaits, -1);
}

/** Whether a revocation waits for `page`: then it can neither be kept nor become a table. */
export function isWanted(state: State, account: number, page: number): boolean {
  return state.account.get(account, Account.wanted) !== 0 && isAskedFor(state, account, page);
}

export function isAskedFor(state: State, account: number, page: number): boolean {
  const first = state.account.get(account, Account.first);
  return page >= first && page < first + state.account.get(account, Account.pages);
}

/** Status 0 if `slot` of `caller` dominates the account's name with `rights`. */
export function checkAccount(
  state: State,
  caller: number,
  slot: number,
  account: number,
  rights: number,
): number {
  return check(state, capOf(state, caller, slot), titleOf(state, account), rights);
}

/** Whether the account's name dominates `name`: what its superiors can take back by name. */
export const covers = (state: State, account: number, name: Words): boolean =>
  dominates(titleOf(state, account), name);

const titleOf = (state: State, account: number): Words =>
  wordsAt(state.account, account, Account.nameA);

/** Writes row `account`: no allotment yet. */
export function putAccount(
  state: State,
  account: number,
  parent: number,
  a: number,
  b: number,
  minimum: number,
): void {
  const { account: table } = state;
  for (let word = 0; word < Account.words; word++) table.put(account, word, 0);
  table.put(account, Account.valid, 1);
  table.put(account, Account.nameA, a);
  table.put(account, Account.nameB, b);
  table.put(account, Account.parent, parent);
  table.put(account, Account.minimum, minimum);
  // What its environments print and spend is their tenant's, as the parent's is.
  const tenant = parent === 0 ? account : table.get(parent, Account.tenant);
  table.put(account, Account.tenant, tenant);
  table.add(parent, Account.children, 1);
  // Or its losses would be saved where the row's last holder said.
  for (let at = Loss.saves; at < Loss.words; at += SAVE_WORDS) state.loss.put(account, at, 0);
}

/**
 * accountCreate(account, parent, slot, name a, name b, minimum): opens free row `account` under
 * `parent`, whose name must be a proper prefix of the given one. It is allotted nothing yet:
 * accountMove. Of what it will have, `minimum` pages are never revoked.
 *
 * @refuses badArgument 0 (not a row); badArgument 1 (no such account); badArgument 2 (not a slot);
 *   badArgument 3 (the two words are not a name); badArgument 5 (negative, or beyond the machine);
 *   notFree 0 (the row is taken); noCapability 2 (the slot is empty); notPermitted 2 (it does not
 *   dominate the parent's name with all rights); notPermitted 3 (the parent's name is not a proper
 *   prefix)
 * @source Mazieres and Kaashoek (HotOS 1997): the prefix is the account.
 */
export function accountCreate(state: State, caller: number, claim: Claims): Answer {
  const [account, parent, slot, a, b, minimum] = [0, 1, 2, 3, 4, 5].map(claim) as Six;
  if (!Number.isInteger(account) || account < 1 || account >= ACCOUNTS) {
    return refuse(Status.badArgument, 0);
  }
  if (!isAccount(state, parent)) return refuse(Status.badArgument, 1);
  if (!isSlot(slot)) return refuse(Status.badArgument, 2);
  if (!isName(a, b)) return refuse(Status.badArgument, 3);
  if (!Number.isInteger(minimum) || minimum < 0 || minimum > state.machine.pages) {
    return refuse(Status.badArgument, 5);
  }
  if (isAccount(state, account)) return refuse(Status.notFree, 0);
  const may = checkAccount(state, caller, slot, parent, ALL_RIGHTS);
  if (may !== Status.ok) return refuse(may, 2);
  const proper = (state.account.get(parent, Account.nameA) & 0xff) < (a & 0xff);
  if (!proper || !covers(state, parent, nameOf(a, b))) return refuse(Status.notPermitted, 3);

  putAccount(state, account, parent, a, b, minimum);
  return ok();
}

/**
 * accountMove(from, to, slot, resource, amount): moves allotment that `from` does not use to `to`.
 *
 * @refuses badArgument 0 (no such account); badArgument 1 (no such account, or the same);
 *   badArgument 2 (not a slot); badArgument 3 (not a resource); badArgument 4 (below 1);
 *   noCapability 2 (the slot is empty); notPermitted 2 (it does not dominate the name of `from`
 *   with REVOKE); quota 4 (more than `from` has left, or, of pages, than is above its minimum)
 * @source DESIGN: a parent takes back by name.
 */
export function accountMove(state: State, caller: number, claim: Claims): Answer {
  const [from, to, slot, resource, amount] = [0, 1, 2, 3, 4].map(claim) as Five;
  if (!isAccount(state, from)) return refuse(Status.badArgument, 0);
  if (!isAccount(state, to) || to === from) return refuse(Status.badArgument, 1);
  if (!isSlot(slot)) return refuse(Status.badArgument, 2);
  if (!Number.isInteger(resource) || resource < 0 || resource >= RESOURCES) {
    return refuse(Status.badArgument, 3);
  }
  if (!Number.isInteger(amount) || amount < 1) return refuse(Status.badArgument, 4);
  const may = checkAccount(state, caller, slot, from, REVOKE);
  if (may !== Status.ok) return refuse(may, 2);
  if (amount > slack(state, from, resource)) return refuse(Status.quota, 4);
  if (resource === Resource.pages && amount > aboveMinimum(state, from)) {
    return refuse(Status.quota, 4);
  }

  allot(state, from, to, resource, amount);
  return ok();
}

/** Pages of the allotment that are neither guaranteed nor spoken for. */
export function aboveMinimum(state: State, account: number): number {
  const { account: table } = state;
  const limit = table.get(account, Account.limit + Resource.pages);
  return limit - table.get(account, Account.wanted) - table.get(account, Account.minimum);
}

/**
 * accountClose(account, slot): closes an account that uses nothing; its allotment is its parent's.
 *
 * @refuses badArgument 0 (no such account, or the reserve); badArgument 1 (not a slot);
 *   noCapability 1 (the slot is empty); notPermitted 1 (it does not dominate the name with all
 *   rights); busy 0 (it has children, something is charged to it, or a revocation from it or in its
 *   favour is under way)
 */
export function accountClose(state: State, caller: number, claim: Claims): Answer {
  const [account, slot] = [claim(0), claim(1)];
  if (account === 0 || !isAccount(state, account)) return refuse(Status.badArgument, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  const may = checkAccount(state, caller, slot, account, ALL_RIGHTS);
  if (may !== Status.ok) return refuse(may, 1);
  const { account: table } = state;
  if (table.get(account, Account.children) !== 0) return refuse(Status.busy, 0);
  if (table.get(account, Account.wanted) !== 0) return refuse(Status.busy, 0);
  if (table.get(account, Account.awaits) !== 0) return refuse(Status.busy, 0);
  for (let resource = 0; resource < RESOURCES; resource++) {
    if (table.get(account, Account.used + resource) !== 0) return refuse(Status.busy, 0);
  }

  const parent = table.get(account, Account.parent);
  for (let resource = 0; resource < RESOURCES; resource++) {
    allot(state, account, parent, resource, table.get(account, Account.limit + resource));
  }
  table.put(account, Account.valid, 0);
  table.add(parent, Account.children, -1);
  return ok();
}

type Five = [number, number, number, number, number];
type Six = [number, number, number, number, number, number];
