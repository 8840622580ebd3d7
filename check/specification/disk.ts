/** The calls on extents and the disk. */
import * as abi from '../../kernel/abi.ts';
import { type Call, mayUseListed, need } from './caller.ts';
import * as e from './effects.ts';
import * as m from './model.ts';
import type { Account, Extent, Page, World } from './model.ts';

const BOTH = abi.READ | abi.WRITE;

/** Argument 0 is an extent that slot argument 1 dominates with the rights. */
function guarded(c: Call, extent: Extent, rights: number): void {
  need(extent.valid, 'absent', 0);
  c.under(1, extent.name, rights);
}
const rowOf = ({ extents }: World, extent: Extent): number => extents.indexOf(extent);
/** No transfer of the extent is in flight. */
function idle({ w }: Call, extent: Extent, n: number): void {
  const row = rowOf(w, extent);
  need(![...w.requests.values()].some((one) => one.extent === row), 'busy', n);
}

export function extentSplit(c: Call): number {
  const extent = c.extent(0);
  c.slot(1);
  const made = c.extent(2);
  const [blocks, name] = [c.integer(3, 1), c.name(4)];
  guarded(c, extent, abi.ALL_RIGHTS);
  c.under(1, name, abi.ALL_RIGHTS, 4);
  need(!made.valid, 'notFree', 2);
  idle(c, extent, 0);
  need(blocks < extent.count, 'tooMany', 3);
  c.paidFor(c.me, name, 4);
  need(m.room(c.w, c.payer, 'extents') > 0, 'quota', 2);

  extent.count -= blocks;
  extent.generation++;
  const first = extent.first + extent.count;
  Object.assign(made, { valid: true, first, count: blocks, name, account: c.payer.at });
  e.changeExtents(c.w);
  return first;
}
export function extentJoin(c: Call): number {
  const extent = c.extent(0);
  c.slot(1);
  const next = c.extent(2);
  guarded(c, extent, abi.ALL_RIGHTS);
  need(next.valid, 'absent', 2);
  c.under(1, next.name, abi.ALL_RIGHTS, 2);
  need(next.first === extent.first + extent.count, 'badArgument', 2);
  idle(c, extent, 0);
  idle(c, next, 2);

  extent.count += next.count;
  extent.generation++;
  Object.assign(next, m.newExtent(next.generation + 1));
  e.changeExtents(c.w);
  return extent.count;
}
export function diskRequest(c: Call): number {
  const extent = c.extent(0);
  c.slot(1);
  const flags = c.integer(6, 0, 7);
  const [isFlush, isWrite] = [m.has(flags, abi.DISK_FLUSH), m.has(flags, abi.DISK_WRITE)];
  const block = c.integer(2, 0);
  const count = c.count(3, isFlush ? 0 : 1, isFlush ? 0 : abi.DISK_BLOCKS_MAX);
  guarded(c, extent, isWrite || isFlush ? BOTH : abi.READ);
  need(block + count <= extent.count, 'badArgument', 2);
  // A device that reads the disk writes the page.
  const rights = isWrite ? abi.READ : abi.WRITE;
  if (!isFlush) c.slot(5);
  const pages = Array.from({ length: count }, (_, n) => {
    const word = c.load(c.a(4) + n * 4);
    const { page, entry } = mayUseListed(c.w, word, c.me, c.a(5), rights, [4, 5]);
    return [page.at, entry] as const;
  });
  need(m.room(c.w, c.payer, 'requests') > 0, 'full', 0);

  const mine = { env: m.idOf(c.me), account: c.payer.at, extent: rowOf(c.w, extent), flags, pages };
  e.submit(c.w, 0, { ...mine, block: extent.first + block });
  return ++c.me.submitted;
}

// ---- losses that are to be saved ----------------------------------------------------------------

/** Rows of the table of requests that are kept for saving. */
export const SAVE_ROWS = [56, 57, 58, 59, 60, 61, 62];

export function saveBlock(c: Call): void {
  const place = c.integer(0, 0, abi.LOSSES - 1);
  const extent = c.a(1) === -1 ? undefined : c.extent(1);
  c.slot(2);
  const block = c.integer(3, 0);
  c.under(2, c.payer.name, BOTH);
  if (extent) {
    need(extent.valid, 'absent', 1);
    c.paidFor(c.me, extent.name, 1);
    need(block < extent.count, 'badArgument', 3);
  }

  c.payer.saves.delete(place);
  if (extent) c.payer.saves.set(place, [rowOf(c.w, extent), extent.generation, block]);
}
/** Where an account's next loss is to be saved, if that place still stands. */
export function nextSave(w: World, { saves, losses }: Account) {
  const [row = -1, generation, block = 0] = saves.get(losses % abi.LOSSES) ?? [];
  const extent = w.extents[row];
  const stands = extent?.valid && extent.generation === generation;
  return stands ? { extent: row, block: extent.first + block } : undefined;
}
/** Queues the saving of a page. The block of the disk + 1, or 0. */
export function save(w: World, from: Account, { at }: Page): number {
  const next = nextSave(w, from);
  if (!next) return 0;
  from.saves.delete(from.losses % abi.LOSSES);
  const [pages, flags] = [[[at, -1] as const], abi.DISK_WRITE];
  e.submit(w, m.sure(SAVE_ROWS[0]), { ...next, env: -1, account: from.at, flags, pages });
  return next.block + 1;
}
