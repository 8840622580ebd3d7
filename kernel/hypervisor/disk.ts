/**
 * The virtual disk: blocks from 0, really a part of the host's, by a ring in guest memory. The
 * doorbell is an exit; the request is fetched once, checked, translated page by page, and queued;
 * completions are written into the ring and told by an injected interrupt.
 */
import { PAGE_BYTES } from '../../machine/units.ts';
import { SCATTER } from '../../machine/disk.ts';
import { reach } from './pages.ts';
import { type State, Tag, TAGS, Vm } from './state.ts';
import {
  GUEST_QUEUE,
  REQUEST_FLUSH,
  REQUEST_FORCE,
  REQUEST_WRITE,
  Ring,
  RING_SLOTS,
} from './virtual-machine.ts';

/** Host address of the guest's ring, or -1 if it cannot be backed. */
function ringAt(state: State, vm: number): number {
  const page = reach(state, vm, state.vm.get(vm, Vm.pages) - 1);
  return page < 0 ? -1 : page * PAGE_BYTES;
}

/** Takes the request that the guest left in its ring. False: it makes no sense. */
export function doorbell(state: State, vm: number): boolean {
  const { machine } = state;
  const ring = ringAt(state, vm);
  if (ring < 0) return false;
  const word = (n: number): number => machine.load(ring + (Ring.request + n) * 4);
  const [guestTag, flags, block, count] = [word(0), word(1), word(2), word(3)];
  if (guestTag < 0 || count < 0 || count > SCATTER || block < 0) return false;
  if (block + count > state.vm.get(vm, Vm.blocks)) return false;
  if (state.vm.get(vm, Vm.outstanding) >= GUEST_QUEUE || machine.disk.room() === 0) return false;
  const pages = [];
  for (let n = 0; n < count; n++) {
    const host = reach(state, vm, word(4 + n));
    if (host < 0) return false;
    pages.push(host);
  }
  let tag = 0;
  while (tag < TAGS && state.tag.get(tag, Tag.vm) !== 0) tag++;
  if (tag === TAGS) return false;
  state.tag.put(tag, Tag.vm, vm + 1);
  state.tag.put(tag, Tag.guestTag, guestTag);
  state.vm.add(vm, Vm.outstanding, 1);
  machine.disk.submit({
    tag,
    write: (flags & REQUEST_WRITE) !== 0,
    force: (flags & REQUEST_FORCE) !== 0,
    flush: (flags & REQUEST_FLUSH) !== 0,
    block: state.vm.get(vm, Vm.firstBlock) + block,
    pages,
  });
  return true;
}

/** An external interrupt of the host: every completion goes to its guest's ring. */
export function completions(state: State): void {
  const { machine } = state;
  for (let done = machine.disk.complete(); done !== null; done = machine.disk.complete()) {
    const vm = state.tag.get(done.tag, Tag.vm) - 1;
    const guestTag = state.tag.get(done.tag, Tag.guestTag);
    state.tag.put(done.tag, Tag.vm, 0);
    if (vm < 0) continue;
    state.vm.add(vm, Vm.outstanding, -1);
    const ring = ringAt(state, vm);
    if (ring < 0) continue;
    const produced = machine.load(ring + Ring.produced * 4);
    const at = ring + (Ring.completions + ((produced >>> 0) % RING_SLOTS)) * 4;
    machine.store(at, done.ok ? guestTag : guestTag | 0x80000000);
    machine.store(ring + Ring.produced * 4, produced + 1);
    state.vm.put(vm, Vm.pending, 1);
  }
}
