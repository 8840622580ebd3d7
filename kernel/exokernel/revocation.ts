/**
 * Visible revocation: an account is asked for pages back, has until a deadline to choose which, and
 * then loses named ones by force. Who asks is an environment with the right to; the kernel counts,
 * enforces the deadline and the guaranteed minimum, and writes down every loss.
 *
 *     revoke -> upcall `revoke` -> pageFree, as the owner chooses -> wanted is 0: over
 *                              \-> deadline -> repossess, page by page -> upcall `repossessed`
 *
 * A page given back takes its allotment along to the account that asked, so the owner cannot take
 * it again. Nothing waits for the owner: it may ignore, lie or crash. Engler et al. (SOSP 1995),
 * 3.5.
 */
import {
  Account,
  LOSSES,
  Loss,
  PAGE_KEPT,
  PageKind,
  Resource,
  REVOKE,
  Status,
  Upcall,
} from '../abi.ts';
import { loadTick, storeTick } from '../supervisor.ts';
import {
  aboveMinimum,
  charge,
  checkAccount,
  credit,
  endRevocation,
  handOver,
  isAccount,
  isAskedFor,
} from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { saveReady, submitSave } from './disk.ts';
import { sweep } from './bindings.ts';
import { quarantine } from './pages.ts';
import { isSlot, pageNamed, type State } from './state.ts';
import { announce } from './upcalls.ts';

/** Cycles: no deadline is nearer, or it could pass before the owner has had a slice. */
export const DEADLINE_MIN = 10_000;
const DEADLINE_MAX = 2 ** 31 - 1;

/**
 * revoke(account, slot, taker, first page, pages, count, cycles): asks `account` for `count` pages,
 * at most LOSSES, out of the `pages` from `first page` on, within `cycles` from now. Each page of
 * that range that is freed meanwhile moves with its allotment to account `taker`. Count 0 withdraws
 * what is still wanted.
 *
 * @refuses badArgument 0 (no such account, or the reserve); badArgument 1 (not a slot); badArgument
 *   2 (no such account, or the same); badArgument 3 (not a page); badArgument 4 (below 1, or past
 *   the last page); badArgument 5 (negative); tooMany 5 (more than 32); badArgument 6 (below
 *   10,000, or beyond 2^31); noCapability 1 (the slot is empty); notPermitted 1 (it does not
 *   dominate the name of the account's parent with REVOKE); notPermitted 2 (it does not dominate
 *   the taker's with REVOKE); busy 0 (it is being asked already); quota 5 (more than it uses and
 *   does not keep, or than its allotment is above the minimum)
 * @source Engler et al. (SOSP 1995), section 3.5: visible revocation and the abort protocol.
 */
export function revoke(state: State, caller: number, claim: Claims): Answer {
  const [account, slot, taker] = [claim(0), claim(1), claim(2)];
  const [first, pages, count, cycles] = [pageNamed(state, claim(3)), claim(4), claim(5), claim(6)];
  if (account === 0 || !isAccount(state, account)) return refuse(Status.badArgument, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  if (!isAccount(state, taker) || taker === account) return refuse(Status.badArgument, 2);
  if (first < 0) return refuse(Status.badArgument, 3);
  if (!Number.isInteger(pages) || pages < 1 || first + pages > state.machine.pages) {
    return refuse(Status.badArgument, 4);
  }
  if (!Number.isInteger(count) || count < 0) return refuse(Status.badArgument, 5);
  if (count > LOSSES) return refuse(Status.tooMany, 5);
  if (!Number.isInteger(cycles) || cycles < DEADLINE_MIN || cycles > DEADLINE_MAX) {
    return refuse(Status.badArgument, 6);
  }
  const may = checkSuperior(state, caller, slot, account);
  if (may !== Status.ok) return refuse(may, 1);
  // Or a stranger's account could be kept from being closed.
  const over = checkAccount(state, caller, slot, taker, REVOKE);
  if (over !== Status.ok) return refuse(over, 2);
  const { account: table } = state;
  if (count > 0 && table.get(account, Account.wanted) > 0) return refuse(Status.busy, 0);
  const loose =
    table.get(account, Account.used + Resource.pages) - table.get(account, Account.kept);
  if (count > loose || count > aboveMinimum(state, account)) return refuse(Status.quota, 5);

  if (table.get(account, Account.wanted) > 0) endRevocation(state, account);
  if (count === 0) return ok();
  table.put(account, Account.wanted, count);
  table.put(account, Account.taker, taker);
  table.add(taker, Account.awaits, 1);
  table.put(account, Account.first, first);
  table.put(account, Account.pages, pages);
  storeTick(table, account, Account.deadline, state.machine.now() + cycles);
  tell(state, account, Upcall.revoke);
  return ok();
}

/**
 * repossess(account, slot, page): takes `page` from an account that let the deadline pass: every
 * right to it ends, the loss is written down, the contents go to the next registered save block.
 * `again` if more than STEP_LEAVES mappings stood: pageSweep takes the rest. The value is the disk
 * block that it was saved to + 1, or 0.
 *
 * @refuses badArgument 0 (no such account, or the reserve); badArgument 1 (not a slot);
 *   noCapability 1 (the slot is empty); notPermitted 1 (it does not dominate the name of the
 *   account's parent with REVOKE); absent 0 (nothing is wanted of it); notReady 0 (the deadline has
 *   not passed); badArgument 2 (not a page); wrongKind 2 (not a user page); notPermitted 2 (charged
 *   to another account, outside what was asked for, or kept); full 2 (its save block cannot be
 *   written now)
 * @source Engler et al. (SOSP 1995), section 3.5: the abort protocol, the repossession vector.
 */
export function repossess(state: State, caller: number, claim: Claims): Answer {
  const [account, slot] = [claim(0), claim(1)];
  if (account === 0 || !isAccount(state, account)) return refuse(Status.badArgument, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  const may = checkSuperior(state, caller, slot, account);
  if (may !== Status.ok) return refuse(may, 1);
  const { account: table, machine } = state;
  if (table.get(account, Account.wanted) === 0) return refuse(Status.absent, 0);
  if (machine.now() < loadTick(table, account, Account.deadline)) {
    return refuse(Status.notReady, 0);
  }
  const page = pageNamed(state, claim(2));
  if (page < 0) return refuse(Status.badArgument, 2);
  if (state.kind(page) !== PageKind.user) return refuse(Status.wrongKind, 2);
  const kept = (state.pageWord.get(page, 0) & PAGE_KEPT) !== 0;
  if (kept || state.accountOf(page) !== account || !isAskedFor(state, account, page)) {
    return refuse(Status.notPermitted, 2);
  }
  if (!saveReady(state, account)) return refuse(Status.full, 2);

  const block = submitSave(state, account, page);
  const taker = table.get(account, Account.taker);
  handOver(state, account);
  credit(state, account, Resource.pages);
  charge(state, taker, Resource.pages);
  quarantine(state, page, taker);
  const loss = Loss.ring + ((table.add(account, Account.losses, 1) - 1) % LOSSES) * 2;
  state.loss.put(account, loss, page);
  state.loss.put(account, loss + 1, block);
  tell(state, account, Upcall.repossessed);
  const { status } = sweep(state, page);
  return { status, value: block };
}

/**
 * Status 0 if `slot` has REVOKE over the parent of `account`. Everybody has it over an account of
 * its own name: an owner that could ask itself could withdraw what others ask, or be asked already.
 */
function checkSuperior(state: State, caller: number, slot: number, account: number): number {
  return checkAccount(state, caller, slot, state.account.get(account, Account.parent), REVOKE);
}

/** An upcall to the account's first environment, if it still lives. */
function tell(state: State, account: number, kind: number): void {
  const holder = state.row(state.account.get(account, Account.holder));
  if (holder > 0) announce(state, holder, kind);
}
