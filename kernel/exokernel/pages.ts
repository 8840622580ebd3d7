/**
 * Physical pages: named by the caller, scrubbed when they change hands, charged to an account. A
 * page that is given up while a device or a mapping still reaches it is quarantined: nobody's, and
 * free only when nothing reaches it any more.
 */
import {
  Account,
  ACCESS_ENTRIES,
  ALL_RIGHTS,
  Info,
  LIMIT_MAX,
  MAP_WRITE,
  PAGE_GIVEN,
  PAGE_KEPT,
  PageKind,
  READ,
  Resource,
  Status,
  WRITE,
} from '../abi.ts';
import { charge, covers, credit, hasRoom, isWanted, payer, returned } from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { capOf, checkOwned, checkPage, putEntry } from './capabilities.ts';
import { CAP_PIN, CAP_VALID, isEntry, isSlot, pageNamed, PageRecord, type State } from './state.ts';

/**
 * pageAllocate(page, slot): takes free page `page` for the name of capability `slot`, scrubbed, at
 * the expense of the caller's account.
 *
 * @refuses badArgument 0 (not a page); badArgument 1 (not a slot); noCapability 1 (the slot is
 *   empty); notPermitted 1 (the slot lacks a right); notPermitted 1 (the account's name does not
 *   dominate its name); notFree 0 (the page is taken); quota 0 (the
 *   account has no page left, or owes it)
 * @source Engler et al. (SOSP 1995), section 3.1: physical names, no implicit allocation.
 */
export function pageAllocate(state: State, caller: number, claim: Claims): Answer {
  const page = pageNamed(state, claim(0));
  const slot = claim(1);
  if (page < 0) return refuse(Status.badArgument, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  const cap = capOf(state, caller, slot);
  const rights = cap(2);
  if ((rights & CAP_VALID) === 0) return refuse(Status.noCapability, 1);
  if ((rights & ALL_RIGHTS) !== ALL_RIGHTS) return refuse(Status.notPermitted, 1);
  const account = payer(state, caller);
  // Or those who allotted it could not take it back by name.
  if (!covers(state, account, cap)) return refuse(Status.notPermitted, 1);
  const word = state.pageWord.get(page, 0);
  if ((word & 0xff) !== PageKind.free) return refuse(Status.notFree, 0);
  if (!hasRoom(state, account, Resource.pages)) return refuse(Status.quota, 0);

  if ((word & PAGE_GIVEN) !== 0) state.info.add(0, Info.balloon, 1);
  claimPage(state, page, account, cap(0), cap(1));
  return ok();
}

/** A free page becomes a user page of the given name, zeroed. */
export function claimPage(state: State, page: number, account: number, a: number, b: number): void {
  state.machine.zeroPage(page);
  state.setPage(page, PageKind.user, account, 0);
  state.page.put(page, PageRecord.limits, 0);
  putEntry(state, page, 0, a, b, ALL_RIGHTS);
  charge(state, account, Resource.pages);
}

/**
 * pageFree(page, slot): gives a user page back. It must have no leaves. While a device still
 * reaches it, it is quarantined, and free when the last request is over.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a user page); badArgument 1 (not a
 *   slot); noCapability 1 (the slot is empty); notPermitted 1 (the slot does not dominate entry
 *   0 with GRANT); busy 0 (the page has leaves)
 * @source Xok: a pinned page is not handed on.
 */
export function pageFree(state: State, caller: number, claim: Claims): Answer {
  const page = pageNamed(state, claim(0));
  const owned = checkOwned(state, caller, page, claim(1));
  if (owned.status !== Status.ok) return owned;
  if (state.page.get(page, PageRecord.leaves) !== 0) return refuse(Status.busy, 0);

  quarantine(state, page, state.accountOf(page));
  settle(state, page);
  return ok();
}

/** Takes every right to a page away, at `account`'s expense as long as something reaches it. */
export function quarantine(state: State, page: number, account: number): void {
  unkeep(state, page);
  state.setPage(page, PageKind.quarantined, account, 0);
  for (let entry = 0; entry < ACCESS_ENTRIES; entry++) {
    const rights = state.page.get(page, state.access(entry, 2));
    state.page.put(page, state.access(entry, 2), rights & ~(CAP_VALID | ALL_RIGHTS));
  }
}

/** A quarantined page that nothing reaches any more is free. */
export function settle(state: State, page: number): void {
  if (state.page.get(page, PageRecord.leaves) !== 0) return;
  if (state.page.get(page, PageRecord.pins) !== 0) return;
  const account = state.accountOf(page);
  for (let entry = 0; entry < ACCESS_ENTRIES; entry++) {
    state.page.put(page, state.access(entry, 2), 0);
  }
  state.page.add(page, PageRecord.generation, 1);
  state.setPage(page, PageKind.free, 0, 0);
  credit(state, account, Resource.pages);
  returned(state, account, page);
  toBalloon(state, page);
}

/**
 * A page that is free goes to the machine's owner, if it asks for some: what was there is nobody's,
 * and whoever takes the page gets it scrubbed, from there or from here.
 */
function toBalloon(state: State, page: number): void {
  const wanted = state.info.get(0, Info.balloon);
  if (wanted <= 0) return;
  state.setInfo(Info.balloon, wanted - 1);
  state.pageWord.put(page, 0, PageKind.free | PAGE_GIVEN);
  state.machine.balloon.give(page);
}

/** An interrupt: what the machine's owner asks for is published, for whoever may revoke. */
export function asked(state: State): void {
  const { balloon } = state.machine;
  const target = balloon.target();
  if (target === state.info.get(0, Info.balloonTarget)) return;
  state.setInfo(Info.balloonTarget, target);
  state.setInfo(Info.balloon, target - balloon.size());
}

/** The mark of a page that is never taken by force goes with its kind. */
function unkeep(state: State, page: number): void {
  if ((state.pageWord.get(page, 0) & PAGE_KEPT) === 0) return;
  state.account.add(state.accountOf(page), Account.kept, -1);
}

/**
 * pageKeep(page, slot, 0 | 1): marks a page of the caller's account as one that is never taken by
 * force, or takes the mark off: as many as the account's minimum. It is for what the handlers of
 * revocation need themselves.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a user page); badArgument 1 (not a slot);
 *   noCapability 1 (the slot is empty); notPermitted 1 (the slot does not dominate entry 0 with
 *   GRANT); badArgument 2 (not 0 or 1); notPermitted 0 (charged to another account); busy 0 (it is
 *   asked for); quota 2 (the account keeps as many as its minimum)
 * @source Engler et al. (SOSP 1995), section 3.5: a small number of guaranteed pages.
 */
export function pageKeep(state: State, caller: number, claim: Claims): Answer {
  const [page, keep] = [pageNamed(state, claim(0)), claim(2)];
  const owned = checkOwned(state, caller, page, claim(1));
  if (owned.status !== Status.ok) return owned;
  if (keep !== 0 && keep !== 1) return refuse(Status.badArgument, 2);
  const account = payer(state, caller);
  if (state.accountOf(page) !== account) return refuse(Status.notPermitted, 0);
  const kept = (state.pageWord.get(page, 0) & PAGE_KEPT) !== 0;
  const { account: table } = state;
  if (keep === 1 && !kept && isWanted(state, account, page)) return refuse(Status.busy, 0);
  const full = table.get(account, Account.kept) >= table.get(account, Account.minimum);
  if (keep === 1 && !kept && full) return refuse(Status.quota, 2);

  unkeep(state, page);
  state.pageWord.put(page, 0, (state.pageWord.get(page, 0) & ~PAGE_KEPT) | (keep * PAGE_KEPT));
  if (keep === 1) table.add(account, Account.kept, 1);
  return ok();
}

/**
 * pageLimit(page, slot, leaves | -1, writers | -1): how many mappings of a page there may be, and
 * how many writable ones: 0 to LIMIT_MAX, or any (-1). 1, 1 makes a mapping exclusive.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a user page); badArgument 1 (not a slot);
 *   noCapability 1 (the slot is empty); notPermitted 1 (the slot does not dominate entry 0 with
 *   GRANT); badArgument 2 (not a limit); badArgument 3 (not a limit); busy 2 (it has more
 *   mappings); busy 3 (it has more writable ones)
 * @source Xok, pstate_mod: reader and writer limits.
 */
export function pageLimit(state: State, caller: number, claim: Claims): Answer {
  const [page, leaves, writers] = [pageNamed(state, claim(0)), claim(2), claim(3)];
  const owned = checkOwned(state, caller, page, claim(1));
  if (owned.status !== Status.ok) return owned;
  if (!isLimit(leaves)) return refuse(Status.badArgument, 2);
  if (!isLimit(writers)) return refuse(Status.badArgument, 3);
  const beyond = (limit: number, word: number): boolean =>
    limit >= 0 && state.page.get(page, word) > limit;
  if (beyond(leaves, PageRecord.leaves)) return refuse(Status.busy, 2);
  if (beyond(writers, PageRecord.writers)) return refuse(Status.busy, 3);

  state.page.put(page, PageRecord.limits, (leaves + 1) | ((writers + 1) << 16));
  return ok();
}

const isLimit = (n: number): boolean => Number.isInteger(n) && n >= -1 && n <= LIMIT_MAX;

/** Whether the page's limits admit one more mapping with `flags`. */
export const fits = (state: State, page: number, flags: number): boolean =>
  fitsMore(state, page, 1, (flags & MAP_WRITE) !== 0 ? 1 : 0);

export function fitsMore(state: State, page: number, leaves: number, writers: number): boolean {
  const limits = state.page.get(page, PageRecord.limits);
  if (limits === 0) return true;
  const within = (limit: number, word: number, more: number): boolean =>
    more === 0 || limit === 0 || state.page.get(page, word) + more < limit;
  return (
    within(limits & 0xffff, PageRecord.leaves, leaves) &&
    within(limits >>> 16, PageRecord.writers, writers)
  );
}

/**
 * pageCopy(to, slot, access entry, from, slot, access entry): copies page `from`, which the caller
 * may read, over page `to`, which it may write: what copy-on-write needs, without mapping either.
 *
 * @refuses badArgument 0 (not a page); badArgument 1 (not a slot); badArgument 2 (not an access
 *   entry); badArgument 3 (not a page, or the same); badArgument 4 (not a slot); badArgument 5 (not
 *   an access entry); wrongKind 0 (not a user page); wrongKind 3 (not a user page); absent 2 (the
 *   access entry is empty); notPermitted 1 (the access entry lacks WRITE); noCapability 1 (the slot
 *   is empty); notPermitted 1 (the slot lacks WRITE or does not dominate the entry); absent 5 (the
 *   access entry is empty); notPermitted 4 (the access entry lacks READ); noCapability 4 (the slot
 *   is empty); notPermitted 4 (the slot lacks READ or does not dominate the entry)
 * @source Hyperkernel (SOSP 2017): copy_frame.
 */
export function pageCopy(state: State, caller: number, claim: Claims): Answer {
  const [to, toSlot, toEntry] = [pageNamed(state, claim(0)), claim(1), claim(2)];
  const [from, fromSlot, fromEntry] = [pageNamed(state, claim(3)), claim(4), claim(5)];
  if (to < 0) return refuse(Status.badArgument, 0);
  if (!isSlot(toSlot)) return refuse(Status.badArgument, 1);
  if (!isEntry(toEntry)) return refuse(Status.badArgument, 2);
  if (from < 0 || from === to) return refuse(Status.badArgument, 3);
  if (!isSlot(fromSlot)) return refuse(Status.badArgument, 4);
  if (!isEntry(fromEntry)) return refuse(Status.badArgument, 5);
  if (state.kind(to) !== PageKind.user) return refuse(Status.wrongKind, 0);
  if (state.kind(from) !== PageKind.user) return refuse(Status.wrongKind, 3);
  const write = checkPage(state, capOf(state, caller, toSlot), to, toEntry, WRITE);
  if (write !== Status.ok) return refuse(write, write === Status.absent ? 2 : 1);
  const read = checkPage(state, capOf(state, caller, fromSlot), from, fromEntry, READ);
  if (read !== Status.ok) return refuse(read, read === Status.absent ? 5 : 4);

  state.machine.copyPage(to, from);
  return ok();
}

export const isIdle = (state: State, page: number): boolean =>
  state.page.get(page, PageRecord.leaves) === 0 && state.page.get(page, PageRecord.pins) === 0;

/** A device request names the page by an access entry; -1: the kernel itself. */
export function pin(state: State, page: number, entry: number): void {
  state.page.add(page, PageRecord.pins, 1);
  if (entry >= 0) state.page.add(page, state.access(entry, 2), CAP_PIN);
}

/** The request is over: a page that was given up meanwhile may be free now. */
export function unpin(state: State, page: number, entry: number): void {
  state.page.add(page, PageRecord.pins, -1);
  if (entry >= 0) state.page.add(page, state.access(entry, 2), -CAP_PIN);
  if (state.kind(page) === PageKind.quarantined) settle(state, page);
}
