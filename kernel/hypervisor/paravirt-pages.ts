/**
 * What a paravirtual guest takes of the host beside its memory, and the half of its address spaces
 * that is the hypervisor's: the direct map of the guest's pages, a window in which all can be read,
 * and the pages that guest and hypervisor share.
 */
import {
  DIRECT_INDEX,
  DIRECT_VPN,
  ENTRIES,
  GIGAPAGE_PAGES,
  pte,
  PTE_A,
  PTE_D,
  PTE_R,
  PTE_U,
  PTE_V,
  PTE_W,
} from '../../machine/sv39.ts';
import type { Machine, PteUpdate } from '../supervisor.ts';
import { type Run, takeRuns } from './runs.ts';
import { type State, TypeRow, Vm } from './state.ts';

/**
 * Words of a view: where a program may read a table, it reads a copy with the guest's own numbers,
 * which follows each update. The page stays the view's when nobody wants it any more: a TLB may
 * remember it.
 */
export const View = {
  host: 0, // its page; 0: none yet
  where: 1, // table << 9 | index of the leaf that maps it
  next: 2, // view + 1, of the same table; of a free one: the next free
  words: 3,
} as const;

// The upper half of every root, and of the one for translation off.
export const WINDOW_INDEX = DIRECT_INDEX + 4;
export const SHARED_INDEX = DIRECT_INDEX + 5;
/** All pages of the guest, to be read. */
export const WINDOW_VPN = DIRECT_VPN + 4 * GIGAPAGE_PAGES;
/** What guest and hypervisor share: the pages of `Shared`. */
export const SHARED_VPN = DIRECT_VPN + 5 * GIGAPAGE_PAGES;
export const Shared = {
  calls: 0, // the batch of hypercalls: the guest writes it
  events: 1, // pending and masked events: both write it
  time: 2, // the guest reads it: a record of stolen time
  grants: 3, // what the guest offers its neighbours: it writes it
  // A bit for each guest page: whether it is a table. Then the guest page of each host page.
  types: 4,
} as const;

/** Leaves of that half. */
export const READ = PTE_V | PTE_R | PTE_U | PTE_A;
export const WRITE = READ | PTE_W | PTE_D;

/** The most guest pages: their tables and rows are runs of at most 512 pages. */
export const PARAVIRT_PAGES_MAX = 2 ** 16;

const typePages = (pages: number): number => Math.ceil(pages / 32 / 1024);
/** Where the guest page of each host page stands, in Shared. */
export const framesAt = (pages: number): number => Shared.types + typePages(pages);

/** Views that there can be at a time. */
export const viewsOf = (pages: number): number => Math.max(64, pages / 16);

/** Pages of each run that a guest takes. */
const runsOf = (pages: number, hostPages: number) => {
  const frames = Math.ceil(hostPages / 1024);
  return {
    direct: Math.ceil(pages / ENTRIES),
    window: Math.ceil(pages / ENTRIES),
    shared: Math.ceil((framesAt(pages) + frames) / ENTRIES),
    tops: 4, // the tables above those three, and the root for translation off
    scratch: 2,
    calls: Shared.types, // the pages before that
    types: typePages(pages),
    frames,
    rows: Math.ceil((pages * TypeRow.words) / 1024),
    views: Math.ceil((viewsOf(pages) * View.words) / 1024),
    control: 1,
    links: 2, // to neighbours
  };
};

/** What was taken for a guest. */
export type ParavirtPages = Readonly<Record<keyof ReturnType<typeof runsOf>, Run>>;

/** Host pages that a guest of `pages` pages takes beside them. */
export const paravirtCost = (pages: number, hostPages: number): number =>
  Object.values(runsOf(pages, hostPages)).reduce((sum, count) => sum + count, 0);

/** Takes them, charged to the guest; null if there is no room. */
export const takeParavirt = (state: State, vm: number): ParavirtPages | null =>
  takeRuns(state, vm, runsOf(state.vm.get(vm, Vm.pages), state.machine.pages));

/** Writes that half, once for all roots, and the root for translation off. */
export function writeUpperHalf(machine: Machine, pages: number, taken: ParavirtPages): void {
  const { direct, window, shared, tops, calls, types, frames } = taken;
  const updates: PteUpdate[] = [];
  const below = (top: number, { first, count }: Run): void => {
    for (let n = 0; n < count; n++) {
      updates.push({ table: tops.first + top, index: n, value: pte(first + n, PTE_V) });
    }
  };
  below(0, direct);
  below(1, window);
  below(2, shared);
  const share = (at: number, { first, count }: Run, flags: number): void => {
    for (let n = 0; n < count; n++) {
      const table = shared.first + Math.floor((at + n) / ENTRIES);
      updates.push({ table, index: (at + n) % ENTRIES, value: pte(first + n, flags) });
    }
  };
  const one = (n: number): Run => ({ first: calls.first + n, count: 1 });
  share(Shared.calls, one(Shared.calls), WRITE);
  share(Shared.events, one(Shared.events), WRITE);
  share(Shared.time, one(Shared.time), READ);
  share(Shared.grants, one(Shared.grants), WRITE);
  share(Shared.types, types, READ);
  share(framesAt(pages), frames, READ);
  const bare = tops.first + 3;
  // Translation off: the lower half is the direct map, too.
  updates.push({ table: bare, index: 0, value: pte(tops.first, PTE_V) });
  updates.push({ table: bare, index: DIRECT_INDEX, value: pte(tops.first, PTE_V) });
  machine.writePtes([...updates, ...upperHalf(bare, taken)]);
}

/** The entries of a root that are the hypervisor's alone. */
export const upperHalf = (root: number, { tops }: ParavirtPages): PteUpdate[] => [
  { table: root, index: WINDOW_INDEX, value: pte(tops.first + 1, PTE_V) },
  { table: root, index: SHARED_INDEX, value: pte(tops.first + 2, PTE_V) },
];
