/**
 * The table of disk requests: what stands in it is queued or being served. It is exposed, so a
 * library sees what it waits for; the pages that stand there are pinned, the extent is held.
 *
 * Rows are what starves or does not: tenants' requests stand in the first REQUESTS_MAX, as far as
 * their accounts are allotted them; the kernel's own in the rest, the extent table's in the last.
 * The queue of the device takes them all, so who has a row need not ask for room.
 */
import { DISK_FLUSH, DISK_FORCE, DISK_WRITE, Extent, Info, Queued, Resource } from '../abi.ts';
import { charge, credit } from './accounts.ts';
import { pin, unpin } from './pages.ts';
import { Cpu, DISK_TAGS, REQUESTS_MAX, type State } from './state.ts';

/** The kernel as the one who asked. */
export const KERNEL = -1;
/** Row of the requests that read and write the extent table: one at a time. */
export const TABLE_TAG = DISK_TAGS - 1;
const PAGE = 0x0fffffff; // of a word that names page and access entry

/** How many requests accounts can be allotted, while none stands: a guest's device takes few. */
export const requestsOf = (state: State): number =>
  Math.max(0, Math.min(REQUESTS_MAX, state.machine.disk.room() - (DISK_TAGS - REQUESTS_MAX)));

export interface Transfer {
  /** id, or KERNEL */
  readonly env: number;
  readonly account: number;
  /** row, or -1: blocks that are in no extent */
  readonly extent: number;
  /** of the disk */
  readonly block: number;
  /** DISK_WRITE, DISK_FORCE, DISK_FLUSH */
  readonly flags: number;
  /** page | access entry << 28 */
  readonly pages: readonly number[];
}

/** First free row from `first` on, below `end`; -1 if there is none. */
export function freeTag(state: State, first: number, end: number): number {
  for (let tag = first; tag < end; tag++) {
    if (state.queue.get(tag, Queued.env) === 0) return tag;
  }
  return -1;
}

/** Queues a transfer in free row `tag`; its pages stay where they are until it is over. */
export function submit(state: State, tag: number, transfer: Transfer): void {
  const { queue } = state;
  const { env, account, extent, block, flags, pages } = transfer;
  for (const [word, value] of [
    [Queued.env, env],
    [Queued.count, pages.length],
    [Queued.block, block],
    [Queued.flags, flags],
    [Queued.account, account],
    [Queued.extent, extent],
  ] as const) {
    queue.put(tag, word, value);
  }
  pages.forEach((word, n) => {
    queue.put(tag, Queued.pages + n, word);
    pin(state, word & PAGE, env === KERNEL ? -1 : word >>> 28);
  });
  // The kernel writes the extent table again unasked: for whoever changed it.
  if (tag !== TABLE_TAG) putPayer(state, tag);
  if (extent >= 0) state.extent.add(extent, Extent.transfers, 1);
  if (env !== KERNEL) charge(state, account, Resource.requests);
  state.info.add(0, Info.diskQueued, 1);
  state.setInfo(Info.diskArm, block);
  const [write, force] = [(flags & DISK_WRITE) !== 0, (flags & DISK_FORCE) !== 0];
  const flush = (flags & DISK_FLUSH) !== 0;
  state.machine.disk.submit({ tag, write, block, pages: pages.map((w) => w & PAGE), force, flush });
}

/** The position that is being served owes the interrupt that the request in row `tag` ends in. */
export function putPayer(state: State, tag: number): void {
  const serving = state.cpu.get(0, Cpu.owner) !== 0;
  const position = serving ? state.info.get(0, Info.slicePosition) + 1 : 0;
  state.queue.put(tag, Queued.position, position);
}

/** The request in row `tag` is over: it holds nothing any more. Its words can still be read. */
export function release(state: State, tag: number): void {
  const { queue } = state;
  const own = queue.get(tag, Queued.env) === KERNEL;
  const count = queue.get(tag, Queued.count);
  for (let n = 0; n < count; n++) {
    const word = queue.get(tag, Queued.pages + n);
    unpin(state, word & PAGE, own ? -1 : word >>> 28);
  }
  const extent = queue.get(tag, Queued.extent);
  if (extent >= 0) state.extent.add(extent, Extent.transfers, -1);
  if (!own) credit(state, queue.get(tag, Queued.account), Resource.requests);
  queue.put(tag, Queued.env, 0);
  state.info.add(0, Info.diskQueued, -1);
}
