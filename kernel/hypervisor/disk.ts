/**
 * The virtual disk: blocks from 0, really a part of the host's, by a ring in guest memory. The
 * doorbell is an exit; the request is fetched once, checked, translated page by page, and queued;
 * completions are written into the ring and told by an injected interrupt.
 */
import { PAGE_BYTES } from '../../machine/units.ts';
import { SCATTER } from '../../machine/disk.ts';
import { unpin } from './free-pages.ts';
import { reach } from './pages.ts';
import { fill, freeTagOf, pagesOf, pump, REQUEST_WRITE } from './requests.ts';
import { interrupt } from './slices.ts';
import { cameIn, wentOut } from './swap.ts';
import { Cpu, Page, type State, Tag, TagState, Vm, PageKind } from './state.ts';
import { Ring, RING_SLOTS } from './device-page.ts';

/** Takes the request that the guest left in its ring. False: it makes no sense. */
export function doorbell(state: State, vm: number): boolean {
  const { machine } = state;
  const ring = state.vm.get(vm, Vm.ring) * PAGE_BYTES;
  return accept(state, vm, (n) => machine.load(ring + (Ring.request + n) * 4));
}

/** Checks and queues one request, whose words are read once each. False: it makes no sense. */
function accept(state: State, vm: number, word: (n: number) => number): boolean {
  const [guestTag, flags, block, count] = [word(0), word(1), word(2), word(3)];
  if (guestTag < 0 || count < 0 || count > SCATTER || block < 0) return false;
  if (block + count > state.vm.get(vm, Vm.blocks)) return false;
  const tag = freeTagOf(state, vm);
  if (tag < 0) return false;
  const pages: number[] = [];
  for (let n = 0; n < count; n++) {
    const host = reach(state, vm, word(4 + n), (flags & REQUEST_WRITE) === 0);
    if (host < 0) break;
    state.page.add(host, Page.pins, 1);
    pages.push(host);
  }
  if (pages.length < count) {
    for (const host of pages) unpin(state, host);
    return false;
  }
  state.vm.add(vm, Vm.outstanding, 1);
  const first = state.vm.get(vm, Vm.firstBlock);
  fill(state, tag, TagState.request, { vm, guestTag, flags, block: first + block, pages });
  return true;
}

/**
 * An external interrupt of the host: every completion goes to whom it concerns.
 * @param written told of each guest page that a device may have written
 * @param pageCame what a page came back for, or could not (`ok` false)
 */
export function completions(
  state: State,
  written: (vm: number, page: number) => void,
  pageCame: (vm: number, page: number, ok: boolean) => void,
): void {
  const { machine, tag: row } = state;
  for (let done = machine.disk.complete(); done !== null; done = machine.disk.complete()) {
    const { tag, ok } = done;
    const kind = row.get(tag, Tag.state);
    const vm = row.get(tag, Tag.vm) - 1;
    const guestTag = row.get(tag, Tag.guestTag);
    row.put(tag, Tag.state, TagState.free);
    state.add(Cpu.flying, -1);
    if (kind === TagState.request) {
      for (const host of pagesOf(state, tag)) {
        // Of a guest that has ended the page is nobody's, and there is no log.
        const theirs = vm >= 0 && state.kind(host) === PageKind.guest;
        if (theirs) written(vm, state.page.get(host, Page.guest));
        unpin(state, host);
      }
      complete(state, vm, guestTag, ok);
    } else if (kind === TagState.out) wentOut(state, guestTag, ok);
    else if (kind === TagState.in) {
      const page = state.page.get(guestTag, Page.guest);
      if (cameIn(state, guestTag, ok) !== null) pageCame(vm, page, ok);
    }
  }
  pump(state);
}

/** A request of a guest has ended: it is told, if it still lives. */
function complete(state: State, vm: number, guestTag: number, ok: boolean): void {
  const { machine } = state;
  state.vm.add(vm, Vm.outstanding, -1);
  const page = state.vm.get(vm, Vm.ring);
  if (page === 0) return;
  const ring = page * PAGE_BYTES;
  const produced = machine.load(ring + Ring.produced * 4);
  const at = ring + (Ring.completions + ((produced >>> 0) % RING_SLOTS)) * 4;
  machine.store(at, ok ? guestTag : guestTag | 0x80000000);
  machine.store(ring + Ring.produced * 4, produced + 1);
  interrupt(state, vm);
}
