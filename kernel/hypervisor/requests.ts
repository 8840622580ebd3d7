/**
 * The table of disk requests: what stands in it waits for the device's queue, or is in it. Each
 * virtual machine has GUEST_QUEUE rows of its own, and what does not fit into the device's queue
 * waits in order of arrival: no guest's requests can make another's fail.
 */
import { assert } from '../../machine/assert.ts';
import { REQUEST_FLUSH, REQUEST_FORCE, REQUEST_WRITE } from '../../machine/disk-queues.ts';
import { Cpu, GUEST_QUEUE, type State, Tag, TagState } from './state.ts';

export interface Wanted {
  readonly vm: number;
  readonly guestTag: number;
  readonly flags: number;
  /** of the host's disk */
  readonly block: number;
  /** host pages, pinned by the caller */
  readonly pages: readonly number[];
}

/** A free row of the hypervisor's own. There is one: guests wait for one page each. */
export function freeTag(state: State): number {
  const tag = search(state, state.vm.rows * GUEST_QUEUE, state.tag.rows);
  assert(tag >= 0, 'requests: a tag for each page that is waited for');
  return tag;
}

/** A free row of a virtual machine's; -1: it has as many requests as it may. */
export const freeTagOf = (state: State, vm: number): number =>
  search(state, vm * GUEST_QUEUE, (vm + 1) * GUEST_QUEUE);

function search(state: State, from: number, to: number): number {
  for (let tag = from; tag < to; tag++) {
    if (state.tag.get(tag, Tag.state) === TagState.free) return tag;
  }
  return -1;
}

/** Makes row `tag` a request, and hands it to the device when that has room. */
export function fill(state: State, tag: number, kind: number, wanted: Wanted): void {
  const { tag: row } = state;
  row.put(tag, Tag.state, kind);
  state.add(Cpu.flying, 1);
  row.put(tag, Tag.vm, wanted.vm + 1);
  row.put(tag, Tag.guestTag, wanted.guestTag);
  row.put(tag, Tag.flags, wanted.flags);
  row.put(tag, Tag.block, wanted.block);
  row.put(tag, Tag.count, wanted.pages.length);
  row.put(tag, Tag.next, 0);
  wanted.pages.forEach((page, n) => {
    row.put(tag, Tag.pages + n, page);
  });
  const tail = state.get(Cpu.queueTail);
  if (tail === 0) state.put(Cpu.queueHead, tag + 1);
  else row.put(tail - 1, Tag.next, tag + 1);
  state.put(Cpu.queueTail, tag + 1);
  pump(state);
}

/** Hands waiting requests to the device while it has room. */
export function pump(state: State): void {
  const { tag: row, machine } = state;
  for (let head = state.get(Cpu.queueHead); head !== 0;) {
    if (machine.disk.room() === 0) return;
    const tag = head - 1;
    head = row.get(tag, Tag.next);
    state.put(Cpu.queueHead, head);
    if (head === 0) state.put(Cpu.queueTail, 0);
    const flags = row.get(tag, Tag.flags);
    machine.disk.submit({
      tag,
      write: (flags & REQUEST_WRITE) !== 0,
      force: (flags & REQUEST_FORCE) !== 0,
      flush: (flags & REQUEST_FLUSH) !== 0,
      block: row.get(tag, Tag.block),
      pages: pagesOf(state, tag),
    });
  }
}

export function pagesOf(state: State, tag: number): number[] {
  const count = state.tag.get(tag, Tag.count);
  return Array.from({ length: count }, (_, n) => state.tag.get(tag, Tag.pages + n));
}
