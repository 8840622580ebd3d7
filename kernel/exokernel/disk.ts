/**
 * The disk: asynchronous transfers between extents and pages that the caller may use. Every page of
 * a request is checked and pinned before it is queued, and the kernel only queues. A completion is
 * told by exposed counters and an event. Xok (SOSP 1997), "disk_request"; pinning against use of a
 * freed page by a device.
 */
import {
  Account,
  DISK_BLOCKS_MAX,
  DISK_FLUSH,
  DISK_WRITE,
  Env,
  EnvState,
  Extent,
  Loss,
  LOSSES,
  PageKind,
  Queued,
  READ,
  Resource,
  SAVE_WORDS,
  Status,
  WRITE,
} from '../abi.ts';
import { assert } from '../../machine/assert.ts';
import { checkAccount, hasRoom, payer } from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { capOf, checkPage } from './capabilities.ts';
import { checkExtent, coversExtent, tableDone } from './extents.ts';
import { post } from './life.ts';
import { freeTag, KERNEL, release, submit, TABLE_TAG } from './requests.ts';
import { interrupted } from './slices.ts';
import { extentNamed, isEntry, isSlot, pageNamed, REQUESTS_MAX, type State } from './state.ts';

/**
 * diskRequest(extent, slot, block, count, list address, page slot, flags): queues a transfer of
 * `count` blocks, 1 to DISK_BLOCKS_MAX, from `block` of the extent on. The list has a word per
 * block: page | access entry << 28, each checked by `page slot`. The value is the request's number:
 * it is complete when the caller's diskDone has reached it.
 *
 * @refuses badArgument 0 (not a row, or stale); badArgument 1 (not a slot); badArgument 6 (not a
 *   set of flags); badArgument 2 (negative); badArgument 3 (below 1; of a flush, below 0); tooMany
 *   3 (more than 32; of a flush, than 0); absent 0 (no such extent); noCapability 1 (the slot is
 *   empty); notPermitted 1 (it does not dominate the guard, or lacks a right); badArgument 2
 *   (past the end of the extent); badArgument 5 (not a slot); badAddress 4 (the list cannot be
 *   read); badArgument 4 (a word of it names no page or no entry); wrongKind 4 (not a user
 *   page); absent 4 (the access entry is empty); notPermitted 5 (the access entry lacks a
 *   right); noCapability 5 (the slot is empty); notPermitted 5 (the slot lacks a right or does
 *   not dominate the entry); full 0 (the account has no request left)
 * @source Xok (SOSP 1997), "disk_request".
 */
export function diskRequest(state: State, caller: number, claim: Claims): Answer {
  const [extent, slot, block, count] = [extentNamed(state, claim(0)), claim(1), claim(2), claim(3)];
  const [list, pageSlot, flags] = [claim(4), claim(5), claim(6)];
  if (extent < 0) return refuse(Status.badArgument, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  if (!Number.isInteger(flags) || flags < 0 || flags > 7) return refuse(Status.badArgument, 6);
  const flush = (flags & DISK_FLUSH) !== 0;
  if (!Number.isInteger(block) || block < 0) return refuse(Status.badArgument, 2);
  if (!Number.isInteger(count) || count < (flush ? 0 : 1)) return refuse(Status.badArgument, 3);
  if (count > (flush ? 0 : DISK_BLOCKS_MAX)) return refuse(Status.tooMany, 3);
  const write = (flags & DISK_WRITE) !== 0;
  const may = checkExtent(state, caller, extent, slot, write || flush ? READ | WRITE : READ);
  if (may !== Status.ok) return refuse(may, may === Status.absent ? 0 : 1);
  if (block + count > state.extent.get(extent, Extent.count)) return refuse(Status.badArgument, 2);
  const pages = flush ? [] : fetchList(state, caller, list, count, pageSlot, write);
  if (!Array.isArray(pages)) return pages;
  const account = payer(state, caller);
  if (!hasRoom(state, account, Resource.requests)) return refuse(Status.full, 0);

  const tag = freeTag(state, 0, REQUESTS_MAX);
  assert(tag >= 0, 'disk: no more requests are allotted than there are rows');
  const first = state.extent.get(extent, Extent.first) + block;
  submit(state, tag, { env: state.id(caller), account, extent, block: first, flags, pages });
  return ok(state.env.add(caller, Env.diskSubmitted, 1));
}

/** The scatter list, fetched once: pages that the caller may use, or the refusal. */
function fetchList(
  state: State,
  caller: number,
  list: number,
  count: number,
  pageSlot: number,
  write: boolean,
): number[] | Answer {
  if (!isSlot(pageSlot)) return refuse(Status.badArgument, 5);
  const cap = capOf(state, caller, pageSlot);
  const pages = [];
  for (let n = 0; n < count; n++) {
    const word = state.machine.loadUser(list + n * 4);
    if (word === null) return refuse(Status.badAddress, 4);
    const page = pageNamed(state, word & 0x0fffffff);
    const entry = word >>> 28;
    if (page < 0 || !isEntry(entry)) return refuse(Status.badArgument, 4);
    if (state.kind(page) !== PageKind.user) return refuse(Status.wrongKind, 4);
    // A device that reads the disk writes the page, and the other way round.
    const may = checkPage(state, cap, page, entry, write ? READ : WRITE);
    if (may !== Status.ok) return refuse(may, may === Status.absent ? 4 : 5);
    pages.push(page | (entry << 28));
  }
  return pages;
}

/**
 * saveBlock(place, extent, slot, block): the contents of a page that is repossessed from the
 * caller's account go to `block` of the extent. The account's k-th loss, from 0, uses place k mod
 * LOSSES, once; a place whose extent was split or joined since is not used. Extent -1 clears it.
 * Any page of the account may be saved there, so the slot must stand for the account; and a place
 * outlives the slot, so the extent must lie under the account's name.
 *
 * @refuses badArgument 0 (not a place); badArgument 1 (neither -1 nor a row, or stale);
 *   badArgument 2 (not a slot); badArgument 3 (negative); noCapability 2 (the slot is empty);
 *   notPermitted 2 (it does not dominate the account's name with READ and WRITE); absent 1 (no such
 *   extent); notPermitted 1 (the account's name does not dominate the guard); badArgument 3 (past
 *   the end of the extent)
 * @source Engler et al. (SOSP 1995), section 3.5: the vector is pre-loaded with disk blocks.
 */
export function saveBlock(state: State, caller: number, claim: Claims): Answer {
  const [place, clear, slot, block] = [claim(0), claim(1) === -1, claim(2), claim(3)];
  const extent = clear ? -1 : extentNamed(state, claim(1));
  if (!Number.isInteger(place) || place < 0 || place >= LOSSES) {
    return refuse(Status.badArgument, 0);
  }
  if (!clear && extent < 0) return refuse(Status.badArgument, 1);
  if (!isSlot(slot)) return refuse(Status.badArgument, 2);
  if (!Number.isInteger(block) || block < 0) return refuse(Status.badArgument, 3);
  const account = payer(state, caller);
  const may = checkAccount(state, caller, slot, account, READ | WRITE);
  if (may !== Status.ok) return refuse(may, 2);
  if (!clear) {
    if (state.extent.get(extent, Extent.valid) === 0) return refuse(Status.absent, 1);
    if (!coversExtent(state, account, extent)) return refuse(Status.notPermitted, 1);
    if (block >= state.extent.get(extent, Extent.count)) return refuse(Status.badArgument, 3);
  }

  const generation = clear ? 0 : state.extent.get(extent, Extent.generation);
  [extent + 1, generation, block].forEach((word, n) => {
    state.loss.put(account, Loss.saves + place * SAVE_WORDS + n, word);
  });
  return ok();
}

/** Column of the place for the account's next loss; -1 if nothing stands there that can be used. */
function nextSave(state: State, account: number): number {
  const losses = state.account.get(account, Account.losses) >>> 0;
  const at = Loss.saves + (losses % LOSSES) * SAVE_WORDS;
  const extent = state.loss.get(account, at) - 1;
  if (extent < 0 || state.extent.get(extent, Extent.valid) === 0) return -1;
  const generation = state.extent.get(extent, Extent.generation);
  return state.loss.get(account, at + 1) === generation ? at : -1;
}

const freeSave = (state: State): number => freeTag(state, REQUESTS_MAX, TABLE_TAG);

/** Whether the account's next loss can be saved now, or is not to be saved at all. */
export const saveReady = (state: State, account: number): boolean =>
  nextSave(state, account) < 0 || freeSave(state) >= 0;

/** Queues the saving of `page`, the account's next loss. Returns disk block + 1; 0: not saved. */
export function submitSave(state: State, account: number, page: number): number {
  const at = nextSave(state, account);
  if (at < 0) return 0;
  const extent = state.loss.get(account, at) - 1;
  const block = state.extent.get(extent, Extent.first) + state.loss.get(account, at + 2);
  state.loss.put(account, at, 0);
  const pages = [page];
  const flags = DISK_WRITE;
  submit(state, freeSave(state), { env: KERNEL, account, extent, block, flags, pages });
  return block + 1;
}

/** The disk failed to save a page: the loss table does not say any more that it did. */
function unsaved(state: State, tag: number): void {
  const account = state.queue.get(tag, Queued.account);
  const block = state.queue.get(tag, Queued.block);
  for (let n = 0; n < LOSSES; n++) {
    const at = Loss.ring + n * 2 + 1;
    if (state.loss.get(account, at) === block + 1) state.loss.put(account, at, 0);
  }
}

/**
 * An external interrupt: takes every completion, unpins its pages, tells its owner. True: the
 * extents stand now, and boot goes on.
 * @param since when the trap came
 */
export function completions(state: State, since: number): boolean {
  const { disk } = state.machine;
  let [booted, from] = [false, since];
  for (let done = disk.complete(); done !== null; done = disk.complete()) {
    const { tag, ok: worked } = done;
    const id = state.queue.get(tag, Queued.env);
    const position = state.queue.get(tag, Queued.position) - 1;
    release(state, tag);
    if (tag === TABLE_TAG) booted = tableDone(state, worked) || booted;
    else if (id === KERNEL && !worked) unsaved(state, tag);
    const env = state.row(id);
    if (env > 0) tellDone(state, env, worked);
    from = interrupted(state, from, position);
  }
  return booted;
}

function tellDone(state: State, env: number, worked: boolean): void {
  state.env.add(env, Env.diskDone, 1);
  if (!worked) state.env.add(env, Env.diskFailed, 1);
  if (state.stateOf(env) !== EnvState.zombie) post(state, env);
}
