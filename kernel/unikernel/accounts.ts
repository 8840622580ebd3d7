/**
 * Accounts: how one tenant divides what it has among its own environments. Nobody is held to an
 * allotment, so nothing is counted but the allotments; a revocation is a request and no more, for
 * nothing tells who maps a page, so none can be taken by force. Owed are rows that exist.
 */
import {
  Account,
  ACCOUNTS,
  Env,
  Info,
  PAGE_GIVEN,
  PageKind,
  Resource,
  RESOURCES,
  Status,
} from '../abi.ts';
import { storeTick } from '../supervisor.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { ACCOUNT, pageAt, type State } from './state.ts';
import { announceRevocation } from './upcalls.ts';

export const isAccount = (state: State, n: number): boolean =>
  Number.isInteger(n) && n >= 0 && n < ACCOUNTS && state.account.get(n, Account.valid) !== 0;

/** Writes row `account`: no allotment yet. */
export function putAccount(
  state: State,
  account: number,
  parent: number,
  a: number,
  b: number,
  minimum: number,
): void {
  for (let word = 0; word < Account.words; word++) state.account.put(account, word, 0);
  for (const [word, value] of [
    [Account.valid, 1],
    [Account.nameA, a],
    [Account.nameB, b],
    [Account.parent, parent],
    [Account.minimum, minimum],
    [Account.tenant, 1],
  ] as const) {
    state.account.put(account, word, value);
  }
  state.account.add(parent, Account.children, 1);
}

export function allot(state: State, from: number, to: number, what: number, amount: number): void {
  state.account.add(from, Account.limit + what, -amount);
  state.account.add(to, Account.limit + what, amount);
}

/** accountCreate(account, parent, -, name a, name b, minimum): opens free row `account`. */
export function accountCreate(state: State, claim: Claims): Answer {
  const [account, parent] = [claim(0), claim(1)];
  if (!Number.isInteger(account) || account < 1 || account >= ACCOUNTS) {
    return refuse(Status.badArgument, 0);
  }
  if (!isAccount(state, parent)) return refuse(Status.badArgument, 1);
  if (isAccount(state, account)) return refuse(Status.notFree, 0);

  putAccount(state, account, parent, claim(3), claim(4), claim(5));
  return ok();
}

/** accountMove(from, to, -, resource, amount): moves allotment. */
export function accountMove(state: State, claim: Claims): Answer {
  const [from, to, what, amount] = [claim(0), claim(1), claim(3), claim(4)];
  if (!isAccount(state, from)) return refuse(Status.badArgument, 0);
  if (!isAccount(state, to)) return refuse(Status.badArgument, 1);
  if (!Number.isInteger(what) || what < 0 || what >= RESOURCES) {
    return refuse(Status.badArgument, 3);
  }
  if (!Number.isInteger(amount) || amount < 1) return refuse(Status.badArgument, 4);
  if (amount > state.account.get(from, Account.limit + what)) return refuse(Status.quota, 4);

  allot(state, from, to, what, amount);
  return ok();
}

/** accountClose(account): its allotment is its parent's. */
export function accountClose(state: State, claim: Claims): Answer {
  const account = claim(0);
  if (account === 0 || !isAccount(state, account)) return refuse(Status.badArgument, 0);
  if (state.account.get(account, Account.children) !== 0) return refuse(Status.busy, 0);

  const parent = state.account.get(account, Account.parent);
  for (let what = 0; what < RESOURCES; what++) {
    allot(state, account, parent, what, state.account.get(account, Account.limit + what));
  }
  state.account.put(account, Account.valid, 0);
  state.account.add(parent, Account.children, -1);
  return ok();
}

/** revoke(account, -, taker, first page, pages, count, cycles): asks; 0 withdraws. */
export function revoke(state: State, claim: Claims): Answer {
  const [account, taker, first] = [claim(0), claim(2), pageAt(claim(3))];
  const [pages, count, cycles] = [claim(4), claim(5), claim(6)];
  if (account === 0 || !isAccount(state, account)) return refuse(Status.badArgument, 0);
  if (!isAccount(state, taker)) return refuse(Status.badArgument, 2);
  if (!Number.isInteger(count) || count < 0) return refuse(Status.badArgument, 5);
  if (!Number.isInteger(cycles) || cycles < 0) return refuse(Status.badArgument, 6);
  const { account: table } = state;
  if (count > 0 && table.get(account, Account.wanted) > 0) return refuse(Status.busy, 0);

  table.put(account, Account.wanted, count);
  table.put(account, Account.taker, taker);
  table.put(account, Account.first, first);
  table.put(account, Account.pages, pages);
  storeTick(table, account, Account.deadline, state.machine.now() + cycles);
  const holder = state.row(table.get(account, Account.holder));
  if (count > 0 && holder > 0) announceRevocation(state, holder);
  return ok();
}

/** A page of `account` is free again: it goes on account of what is wanted. */
export function returned(state: State, account: number, page: number): void {
  const { account: table } = state;
  if (table.get(account, Account.wanted) === 0) return;
  const first = table.get(account, Account.first);
  if (page < first || page >= first + table.get(account, Account.pages)) return;
  table.add(account, Account.wanted, -1);
  allot(state, account, table.get(account, Account.taker), Resource.pages, 1);
}

/**
 * An interrupt: the machine's owner asks for pages, or can do without some. The tenant hears of it
 * as of a revocation, unless it is in one of its own; row 0 keeps the allotment of what it gave.
 */
export function asked(state: State): void {
  const { machine, account: table, config } = state;
  const target = machine.balloon.target();
  if (target === state.info.get(0, Info.balloonTarget)) return;
  const wanted = target - machine.balloon.size();
  state.setInfo(Info.balloonTarget, target);
  state.setInfo(Info.balloon, wanted);
  const owed = table.get(ACCOUNT, Account.wanted);
  if (owed > 0 && table.get(ACCOUNT, Account.taker) !== 0) return;
  table.put(ACCOUNT, Account.wanted, Math.max(0, wanted));
  table.put(ACCOUNT, Account.taker, 0);
  table.put(ACCOUNT, Account.first, 0);
  table.put(ACCOUNT, Account.pages, machine.pages);
  storeTick(table, ACCOUNT, Account.deadline, machine.now() + config.sliceCycles);
  const back = Math.min(-wanted, table.get(0, Account.limit + Resource.pages));
  if (back > 0) allot(state, 0, ACCOUNT, Resource.pages, back);
  const holder = state.row(table.get(ACCOUNT, Account.holder));
  if (wanted > 0 && holder > 0) announceRevocation(state, holder);
}

/** A page that is free goes to the machine's owner, if it asks for some. */
export function toBalloon(state: State, page: number): void {
  const wanted = state.info.get(0, Info.balloon);
  if (wanted <= 0) return;
  state.setInfo(Info.balloon, wanted - 1);
  state.pageWord.put(page, 0, PageKind.free | PAGE_GIVEN);
  state.machine.balloon.give(page);
}

/** The first environment that draws on an account hears of revocation. */
export function drawOn(state: State, env: number, account: number): void {
  state.env.put(env, Env.account, account);
  if (state.row(state.account.get(account, Account.holder)) < 0) {
    state.account.put(account, Account.holder, state.id(env));
  }
}
