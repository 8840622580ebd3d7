/**
 * The virtual disk, its back half: blocks from 0, really a part of the host's, by the device page
 * in guest memory. A request is fetched once, checked, translated page by page, and queued;
 * completions are written into the page and told by an injected interrupt. Two models of three are
 * here (passthrough.ts has the third), and differ in when one half tells the other:
 *
 * - emulated: a doorbell for each request, which is an exit, and an interrupt for each completion.
 * - split: requests wait in a ring. The guest notifies only if it was asked to, and is asked only
 *   when nothing else would make us run. While a request of the guest is under way something will,
 *   its completion, and then the ring is looked at for nothing. Completions are held off alike.
 *   Xen's block back end; virtio's event index.
 *
 * Every word of the page is a guest's claim; what makes no sense ends that guest. The law that is
 * owed: what is put into the ring is taken, whoever sleeps.
 */
import { PAGE_BYTES } from '../../machine/units.ts';
import { SCATTER } from '../../machine/disk.ts';
import { REQUEST_WRITE } from '../../machine/disk-queues.ts';
import { unpin } from './free-pages.ts';
import { reach } from './pages.ts';
import { fill, freeTagOf, pagesOf, pump } from './requests.ts';
import { interrupt } from './slices.ts';
import { cameIn, wentOut } from './swap.ts';
import { Cpu, DISKS, GUEST_QUEUE, Page, type State, Tag, TagState, Vm, PageKind } from './state.ts';
import { isDue, REQUEST_SLOTS, Ring, RING_SLOTS, slotAt } from './device-page.ts';

const SPLIT = DISKS.indexOf('split');

const isSplit = (state: State, vm: number): boolean => state.vm.get(vm, Vm.disk) === SPLIT;
const ringOf = (state: State, vm: number): number => state.vm.get(vm, Vm.ring) * PAGE_BYTES;

/** The guest wants to be heard. False: what stands in its page makes no sense. */
export function doorbell(state: State, vm: number): boolean {
  return isSplit(state, vm) ? drain(state, vm) : take(state, vm, 0);
}

/** The hypervisor runs for this guest anyway: requests that it was not told of. False: nonsense. */
export function lookAround(state: State, vm: number): boolean {
  const { vm: row } = state;
  if (row.get(vm, Vm.ring) === 0 || row.get(vm, Vm.outstanding) === 0) return true;
  return !isSplit(state, vm) || drain(state, vm);
}

/**
 * Both halves of a split disk begin where the page says that they are: at zero; or where those of a
 * saved machine were, whose requests had all been taken. Each is told of what comes next.
 */
export function connect(state: State, vm: number): void {
  if (!isSplit(state, vm)) return;
  const { machine, vm: row } = state;
  const ring = ringOf(state, vm);
  const taken = machine.load(ring + Ring.requested * 4);
  const produced = machine.load(ring + Ring.produced * 4);
  row.put(vm, Vm.taken, taken);
  row.put(vm, Vm.produced, produced);
  machine.store(ring + Ring.taken * 4, taken);
  machine.store(ring + Ring.requestEvent * 4, (taken + 1) | 0);
  machine.store(ring + Ring.completionEvent * 4, (produced + 1) | 0);
}

/** Takes what stands in the ring. */
function drain(state: State, vm: number): boolean {
  const { machine, vm: row } = state;
  const ring = ringOf(state, vm);
  let taken = row.get(vm, Vm.taken);
  // More looks than its queue takes requests find nothing, or a guest that changes what it said.
  for (let looks = 0; looks <= GUEST_QUEUE; looks++) {
    const requested = machine.load(ring + Ring.requested * 4);
    if ((requested - taken) >>> 0 > REQUEST_SLOTS) return false;
    if (requested !== taken) {
      for (; taken !== requested; taken = (taken + 1) | 0) {
        if (!take(state, vm, taken)) return false;
      }
      row.put(vm, Vm.taken, taken);
      machine.store(ring + Ring.taken * 4, taken);
    }
    if (willRun(state, vm)) return true;
    machine.store(ring + Ring.requestEvent * 4, (taken + 1) | 0);
    // What came between the last look and the asking nobody would tell of.
    if (machine.load(ring + Ring.requested * 4) === taken) return true;
  }
  return false;
}

/**
 * Whether a completion will make us look at the ring again. Not with a swap area: requests that
 * wait could lose pages that they name, so each is taken while its guest has just touched them.
 */
const willRun = (state: State, vm: number): boolean =>
  state.config.swap === undefined && state.vm.get(vm, Vm.outstanding) > 0;

/** Checks and queues the request in a slot, whose words are read once each. */
function take(state: State, vm: number, index: number): boolean {
  const slot = slotAt(ringOf(state, vm), index);
  const word = (n: number): number => state.machine.load(slot + n * 4);
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

/** What completions change beside the guests' own pages. */
export interface Told {
  /** A device may have written guest page `page`. */
  written(vm: number, page: number): void;
  /** What a page came back for, or could not. */
  pageCame(vm: number, page: number, ok: boolean): void;
  /** What stands in the guest's ring makes no sense. */
  nonsense(vm: number): void;
}

/** An external interrupt of the host: every completion goes to whom it concerns. */
export function completions(state: State, told: Told): void {
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
        if (theirs) told.written(vm, state.page.get(host, Page.guest));
        unpin(state, host);
      }
      if (!complete(state, vm, ok ? guestTag : guestTag | 0x80000000)) told.nonsense(vm);
    } else if (kind === TagState.out) wentOut(state, guestTag, ok);
    else if (kind === TagState.in) {
      const page = state.page.get(guestTag, Page.guest);
      if (cameIn(state, guestTag, ok) !== null) told.pageCame(vm, page, ok);
    }
  }
  pump(state);
}

/** A request of a guest has ended: it is told, if it still lives. False: its ring is nonsense. */
function complete(state: State, vm: number, word: number): boolean {
  const { machine, vm: row } = state;
  row.add(vm, Vm.outstanding, -1);
  const ring = ringOf(state, vm);
  if (ring === 0) return true;
  const split = isSplit(state, vm);
  const old = split ? row.get(vm, Vm.produced) : machine.load(ring + Ring.produced * 4);
  const now = (old + 1) | 0;
  machine.store(ring + (Ring.completions + ((old >>> 0) % RING_SLOTS)) * 4, word);
  machine.store(ring + Ring.produced * 4, now);
  if (split) row.put(vm, Vm.produced, now);
  if (!split || isDue(old, now, machine.load(ring + Ring.completionEvent * 4))) {
    interrupt(state, vm);
  }
  return !split || drain(state, vm);
}
