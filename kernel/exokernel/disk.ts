/**
 * The disk: extents of blocks by physical name, each guarded by a name; asynchronous transfers
 * between them and pages that the caller may use. Every page of a request is checked and pinned
 * before it is queued, and the kernel only queues. A completion is told by exposed counters and an
 * event. Xok (SOSP 1997), "disk_request"; pinning against use of a freed page by a device.
 */
import {
  ALL_RIGHTS,
  DISK_BLOCKS_MAX,
  DISK_FLUSH,
  DISK_FORCE,
  DISK_WRITE,
  Env,
  EnvState,
  Info,
  PageKind,
  READ,
  Status,
  WRITE,
} from '../abi.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { check, checkPage, isName } from './capabilities.ts';
import { pin } from './pages.ts';
import { post } from './life.ts';
import { DISK_TAGS, Extent, isEntry, isPage, isSlot, isWord, type State, Tag } from './state.ts';

const isExtent = (state: State, n: number): boolean =>
  Number.isInteger(n) && n >= 0 && n < state.config.extents;

/** Status 0 if `slot` of `caller` dominates the guard of a valid extent with `rights`. */
function checkExtent(
  state: State,
  caller: number,
  extent: number,
  slot: number,
  rights: number,
): number {
  if (state.extent.get(extent, Extent.valid) === 0) return Status.absent;
  const a = state.extent.get(extent, Extent.nameA);
  const b = state.extent.get(extent, Extent.nameB);
  return check(state, caller, slot, a, b, rights);
}

/**
 * extentSplit(extent, slot, new extent, blocks, name a, name b): cuts the last `blocks` blocks off
 * an extent and makes them `new extent`, a free row, guarded by the given name. The value is its
 * first block. Extents cannot overlap: they only ever split.
 *
 * @refuses badArgument 0 (not a row); badArgument 1 (not a slot); badArgument 2 (not a row);
 *   badArgument 3 (below 1); badArgument 4 (the two words are not a name); absent 0 (no such
 *   extent); noCapability 1 (the slot is empty); notPermitted 1 (it does not dominate the guard
 *   with all rights); notPermitted 4 (the slot does not dominate the new name); notFree 2 (the
 *   row is taken); tooMany 3 (as many as the extent has, or more)
 */
export function extentSplit(state: State, caller: number, claim: Claims): Answer {
  const [extent, slot, fresh, blocks, a, b] = [0, 1, 2, 3, 4, 5].map(claim) as Six;
  if (!isExtent(state, extent)) return refuse(Status.badArgument, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  if (!isExtent(state, fresh)) return refuse(Status.badArgument, 2);
  if (!Number.isInteger(blocks) || blocks < 1) return refuse(Status.badArgument, 3);
  if (!isName(a, b)) return refuse(Status.badArgument, 4);
  const may = checkExtent(state, caller, extent, slot, ALL_RIGHTS);
  if (may !== Status.ok) return refuse(may, may === Status.absent ? 0 : 1);
  const under = check(state, caller, slot, a, b, ALL_RIGHTS);
  if (under !== Status.ok) return refuse(under, 4);
  if (state.extent.get(fresh, Extent.valid) !== 0) return refuse(Status.notFree, 2);
  const count = state.extent.get(extent, Extent.count);
  if (blocks >= count) return refuse(Status.tooMany, 3);

  const first = state.extent.get(extent, Extent.first) + count - blocks;
  state.extent.put(extent, Extent.count, count - blocks);
  putExtent(state, fresh, first, blocks, a, b);
  return ok(first);
}

export function putExtent(
  state: State,
  extent: number,
  first: number,
  count: number,
  a: number,
  b: number,
): void {
  state.extent.put(extent, Extent.first, first);
  state.extent.put(extent, Extent.count, count);
  state.extent.put(extent, Extent.nameA, a);
  state.extent.put(extent, Extent.nameB, b);
  state.extent.put(extent, Extent.valid, 1);
}

/**
 * diskRequest(extent, slot, block, count, list address, page slot, flags): queues a transfer of
 * `count` blocks, 1 to DISK_BLOCKS_MAX, from `block` of the extent on. The list has a word per
 * block: page | access entry << 28, each checked by `page slot`. The value is the request's number:
 * it is complete when the caller's diskDone has reached it.
 *
 * @refuses badArgument 0 (not a row); badArgument 1 (not a slot); badArgument 6 (not a set of
 *   flags); badArgument 2 (negative); badArgument 3 (below 1; of a flush, below 0); tooMany 3
 *   (more than 32; of a flush, than 0); absent 0 (no such extent); noCapability 1 (the slot is
 *   empty); notPermitted 1 (it does not dominate the guard, or lacks a right); badArgument 2
 *   (past the end of the extent); badArgument 5 (not a slot); badAddress 4 (the list cannot be
 *   read); badArgument 4 (a word of it names no page or no entry); wrongKind 4 (not a user
 *   page); absent 4 (the access entry is empty); notPermitted 5 (the access entry lacks a
 *   right); noCapability 5 (the slot is empty); notPermitted 5 (the slot lacks a right or does
 *   not dominate the entry); full 0 (no request more)
 * @source Xok (SOSP 1997), "disk_request".
 */
export function diskRequest(state: State, caller: number, claim: Claims): Answer {
  const [extent, slot, block, count] = [claim(0), claim(1), claim(2), claim(3)];
  const [list, pageSlot, flags] = [claim(4), claim(5), claim(6)];
  if (!isExtent(state, extent)) return refuse(Status.badArgument, 0);
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
  const tag = freeTag(state);
  if (tag < 0 || state.machine.disk.room() === 0) return refuse(Status.full, 0);

  const first = state.extent.get(extent, Extent.first) + block;
  pin(state, pages, 1);
  state.tag.put(tag, Tag.env, state.id(caller));
  state.tag.put(tag, Tag.count, pages.length);
  pages.forEach((page, n) => {
    state.tag.put(tag, Tag.pages + n, page);
  });
  state.setInfo(Info.diskQueued, state.info.get(0, Info.diskQueued) + 1);
  state.setInfo(Info.diskArm, first);
  const number = state.env.add(caller, Env.diskSubmitted, 1);
  const force = (flags & DISK_FORCE) !== 0;
  state.machine.disk.submit({ tag, write, block: first, pages, force, flush });
  return ok(number);
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
  if (!isWord(list) || list % 4 !== 0) return refuse(Status.badAddress, 4);
  const pages = [];
  for (let n = 0; n < count; n++) {
    const word = state.machine.loadUser(list + n * 4);
    if (word === null) return refuse(Status.badAddress, 4);
    const page = word & 0x0fffffff;
    const entry = word >>> 28;
    if (!isPage(state, page) || !isEntry(entry)) return refuse(Status.badArgument, 4);
    if (state.kind(page) !== PageKind.user) return refuse(Status.wrongKind, 4);
    // A device that reads the disk writes the page, and the other way round.
    const may = checkPage(state, caller, pageSlot, page, entry, write ? READ : WRITE);
    if (may !== Status.ok) return refuse(may, may === Status.absent ? 4 : 5);
    pages.push(page);
  }
  return pages;
}

function freeTag(state: State): number {
  for (let tag = 0; tag < DISK_TAGS; tag++) {
    if (state.tag.get(tag, Tag.env) === 0) return tag;
  }
  return -1;
}

/** An external interrupt: takes every completion, unpins its pages, tells its owner. */
export function completions(state: State): void {
  const { disk } = state.machine;
  for (let done = disk.complete(); done !== null; done = disk.complete()) {
    const { tag, ok: worked } = done;
    const count = state.tag.get(tag, Tag.count);
    const pages = [];
    for (let n = 0; n < count; n++) pages.push(state.tag.get(tag, Tag.pages + n));
    pin(state, pages, -1);
    const env = state.row(state.tag.get(tag, Tag.env));
    state.tag.put(tag, Tag.env, 0);
    state.setInfo(Info.diskQueued, state.info.get(0, Info.diskQueued) - 1);
    if (env < 0) continue;
    state.env.add(env, Env.diskDone, 1);
    if (!worked) state.env.add(env, Env.diskFailed, 1);
    if (state.stateOf(env) !== EnvState.zombie) post(state, env);
  }
}

type Six = [number, number, number, number, number, number];
