/**
 * The disk: all of it is the tenant's, in extents that nothing guards; asynchronous transfers to
 * and from any page. The tenant is trusted to keep a page until its transfer is done, and none is
 * pinned. Owed are a block that the disk has and a page that memory has; a completion is told by
 * exposed counters and an event.
 */
import {
  DISK_BLOCKS_MAX,
  DISK_FLUSH,
  DISK_FORCE,
  DISK_WRITE,
  Env,
  EnvState,
  Extent,
  Info,
  Status,
} from '../abi.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { extentAt } from './extents.ts';
import { post } from './life.ts';
import { DISK_TAGS, pageAt, type State, Tag } from './state.ts';

const LISTED_PAGE = 0x0fffffff;

/** diskRequest(extent, -, block, count, list address, -, flags): queues a transfer; its number. */
export function diskRequest(state: State, caller: number, claim: Claims): Answer {
  const [block, count, list, flags] = [claim(2), claim(3), claim(4), claim(6)];
  const { disk } = state.machine;
  if (!(count >= 0 && count <= DISK_BLOCKS_MAX)) return refuse(Status.tooMany, 3);
  const extent = extentAt(state, claim(0));
  if (extent < 0) return refuse(Status.badArgument, 0);
  if (state.extent.get(extent, Extent.valid) === 0) return refuse(Status.absent, 0);
  const blocks = state.extent.get(extent, Extent.count);
  if (!(block >= 0 && block + count <= blocks)) return refuse(Status.badArgument, 2);
  const pages = fetchList(state, list, count);
  if (!Array.isArray(pages)) return pages;
  const tag = freeTag(state);
  if (tag < 0 || disk.room() === 0) return refuse(Status.full, 0);

  state.tag.put(tag, Tag.env, state.id(caller));
  state.info.add(0, Info.diskQueued, 1);
  const first = state.extent.get(extent, Extent.first) + block;
  state.setInfo(Info.diskArm, first);
  const number = state.env.add(caller, Env.diskSubmitted, 1);
  const write = (flags & DISK_WRITE) !== 0;
  const force = (flags & DISK_FORCE) !== 0;
  const flush = (flags & DISK_FLUSH) !== 0;
  disk.submit({ tag, write, block: first, pages, force, flush });
  return ok(number);
}

/** The scatter list: pages of memory, or the refusal. */
function fetchList(state: State, list: number, count: number): number[] | Answer {
  const pages = [];
  for (let n = 0; n < count; n++) {
    const word = state.machine.loadUser(list + n * 4);
    if (word === null) return refuse(Status.badAddress, 4);
    const page = pageAt(word & LISTED_PAGE);
    if (page >= state.machine.pages) return refuse(Status.badArgument, 4);
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

/** An external interrupt: takes every completion and tells its owner. */
export function completions(state: State): void {
  const { disk } = state.machine;
  for (let done = disk.complete(); done !== null; done = disk.complete()) {
    const { tag, ok: worked } = done;
    const env = state.row(state.tag.get(tag, Tag.env));
    state.tag.put(tag, Tag.env, 0);
    state.info.add(0, Info.diskQueued, -1);
    if (env < 0) continue;
    state.env.add(env, Env.diskDone, 1);
    if (!worked) state.env.add(env, Env.diskFailed, 1);
    if (state.stateOf(env) !== EnvState.zombie) post(state, env);
  }
}
