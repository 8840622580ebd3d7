/**
 * Free host pages: a buddy allocator in the ledger. Blocks of 1 page to 1 GiB, aligned to their
 * size; the smallest that fits is split, a freed one joins its buddy as often as it can. Taking and
 * giving are bounded by the number of orders, however much memory there is. Knuth, volume 1, 2.5.
 */
import { assert } from '../../machine/assert.ts';
import { Cpu, ORDERS, Page, PageKind, type State, Vm } from './state.ts';

/** All pages behind the hypervisor's tables become free. */
export function startFree(state: State): void {
  const { pages } = state.machine;
  for (let page = 0; page < state.end; page++) state.own(page, PageKind.own, -1);
  for (let page = state.end; page < pages;) {
    let order = 0;
    while (order + 1 < ORDERS && page % (2 << order) === 0 && page + (2 << order) <= pages) order++;
    link(state, page, order);
    page += 1 << order;
  }
  state.put(Cpu.free, pages - state.end);
}

/** Takes a block of 2^order pages, aligned to its size; -1 if there is none. The caller owns it. */
export function take(state: State, order = 0): number {
  let from = order;
  while (from < ORDERS && state.get(Cpu.blocks + from) === 0) from++;
  if (from === ORDERS) return -1;
  const page = state.get(Cpu.blocks + from) - 1;
  unlink(state, page, from);
  while (from > order) {
    from--;
    link(state, page + (1 << from), from);
  }
  state.add(Cpu.free, -(1 << order));
  return page;
}

/** Gives one page back. Its row is the allocator's from now on. */
export function give(state: State, page: number): void {
  state.add(Cpu.free, 1);
  let first = page;
  let order = 0;
  for (; order + 1 < ORDERS; order++) {
    const buddy = first ^ (1 << order);
    if (buddy >= state.machine.pages) break;
    if (state.page.get(buddy, Page.owner) !== (PageKind.free | (order << 8))) break;
    unlink(state, buddy, order);
    state.page.put(first, Page.owner, PageKind.inside);
    first = Math.min(first, buddy);
  }
  link(state, first, order);
}

function link(state: State, page: number, order: number): void {
  const { page: row } = state;
  const next = state.get(Cpu.blocks + order);
  row.put(page, Page.owner, PageKind.free | (order << 8));
  row.put(page, Page.guest, next);
  row.put(page, Page.pins, 0);
  if (next !== 0) row.put(next - 1, Page.pins, page + 1);
  state.put(Cpu.blocks + order, page + 1);
}

function unlink(state: State, page: number, order: number): void {
  const { page: row } = state;
  const [next, before] = [row.get(page, Page.guest), row.get(page, Page.pins)];
  if (before === 0) {
    assert(state.get(Cpu.blocks + order) === page + 1, 'free pages: the first block is first');
    state.put(Cpu.blocks + order, next);
  } else row.put(before - 1, Page.guest, next);
  if (next !== 0) row.put(next - 1, Page.pins, before);
  row.put(page, Page.owner, PageKind.inside);
}

/** A device request has ended that reached `host`. */
export function unpin(state: State, host: number): void {
  const pins = state.page.add(host, Page.pins, -1);
  if (pins > 0 || state.kind(host) !== PageKind.limbo) return;
  state.add(Cpu.limbo, -1);
  give(state, host);
}

/** Takes `count` pages that follow each other, zeroed and charged to a guest; -1: no room. */
export function takeRun(state: State, vm: number, count: number): number {
  const order = Math.ceil(Math.log2(count));
  const first = take(state, order);
  if (first < 0) return -1;
  for (let page = first + count; page < first + 2 ** order; page++) {
    state.own(page, PageKind.table, vm); // whole blocks only are taken
    give(state, page);
  }
  for (let page = first; page < first + count; page++) {
    state.own(page, PageKind.table, vm);
    state.machine.zeroPage(page);
  }
  state.vm.add(vm, Vm.tables, count);
  return first;
}

export function giveRun(state: State, vm: number, first: number, count: number): void {
  for (let page = first; page < first + count; page++) give(state, page);
  state.vm.add(vm, Vm.tables, -count);
}
