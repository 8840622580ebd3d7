/**
 * All of the hypervisor's state: tables of words in its machine's memory. A virtual machine is a
 * row; its memory is what its second-stage tables name; a host page is a row of the ledger.
 */
import { assert } from '../../machine/assert.ts';
import { SCATTER } from '../../machine/disk.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { type GuestMode, Layout, type Machine, type Table } from '../supervisor.ts';

export interface HypervisorConfig {
  /** length of a slice in cycles */
  readonly sliceCycles: number;
  /** back guest memory at creation, or each page on first touch */
  readonly backing: 'populate' | 'touch';
  /** size of second-stage pages; what is larger than 4 KiB needs 'populate' */
  readonly secondStage: '4KiB' | '2MiB' | '1GiB';
  /** virtual machines at most; default: those of the start */
  readonly rows?: number;
  /** who runs next: see schedulers.ts; default round robin */
  readonly scheduler?: 'round-robin' | 'credit';
  /** blocks of the host's disk that guest pages may be swapped to; default none */
  readonly swap?: { readonly firstBlock: number; readonly blocks: number };
  /**
   * how memory is taken that is short: pages are written to the swap area, whichever a blind choice
   * hits; or guests are asked first (see revocation.ts). Default 'swap'
   */
  readonly taking?: 'swap' | 'balloon';
  /** look for pages of equal contents, so many at each turn of the CPU; default 0 */
  readonly sharing?: number;
}

/** The closed vocabulary of exits: every exit has one of these causes, and is counted under it. */
export const EXITS = [
  'timer',
  'interrupt',
  'wait',
  'memory',
  'disk',
  'console',
  'entropy',
  'balloon',
  'restart',
  // Of a guest whose supervisor runs in user mode: what it may not do itself.
  'fault', // a page fault of its programs, or of its supervisor
  'reflect', // another trap of its programs, to be given to its supervisor
  'store', // a store to a page table, or a load that only the hypervisor can do
  'satp',
  'fence',
  'stimecmp',
  'sret',
  'hypercall', // a batch of a paravirtual guest, if it crosses for nothing else
  'grant', // a page of a neighbour
  'event', // a port to a neighbour
  // Of a guest that runs guests of its own in guest mode.
  'compose', // a second-stage fault of its guest that was ours to mend
  'enter', // sret into its guest; the way back is `reflect`, `timer` or `interrupt`
  'register', // of the extension: hstatus, htval, hvip, vs*
  'hgatp',
  'hfence',
] as const;
export type Exit = (typeof EXITS)[number];

/** What a vCPU is at: at any moment one of these, and together they are all of its time. */
export const MODES = ['run', 'steal', 'idle', 'blocked'] as const;
export type Mode = (typeof MODES)[number];

/** The models of a guest's disk: see disk.ts, and passthrough.ts. */
export const DISKS = ['emulated', 'split', 'passthrough'] as const;
export type DiskModel = (typeof DISKS)[number];

/** Words of a virtual machine's row. A time takes two. */
export const Vm = {
  state: 0,
  root: 1, // page of the second-stage root, 16 KiB aligned
  pages: 2, // guest-physical, the ring page among them
  firstBlock: 3,
  blocks: 4,
  wake: 5, // when a waiting VM wants to run again
  pending: 7, // interrupts to be injected: bit 0 external, bit n of console channel n
  channel: 8, // of the console
  outstanding: 9, // disk requests
  typed: 10, // first page of the table of its page types, if it is paravirtual
  number: 11, // and what its neighbours call it
  clock: 12, // address of the record of stolen time: version, cycles; 0: it is in the device page
  ring: 26, // host page of the device page
  paused: 27, // 1: does not run, whatever its state
  // Its time.
  mode: 28, // index of MODES
  since: 29, // when it began to be at that
  born: 31,
  times: 33, // MODES.length times
  published: 41, // steal that the guest has been told of
  // The scheduler's.
  next: 43, // queue links: row + 1
  prev: 44,
  queue: 45, // queue + 1 that it stands in
  sleeper: 46, // place in the heap of sleepers + 1
  weight: 47,
  cap: 48, // percent of the CPU, 0: none
  credit: 49,
  epoch: 50, // that its credit is of
  period: 51, // of its cap
  capUsed: 52, // cycles
  boosted: 53,
  // Its memory.
  held: 54, // host pages behind its own, in flight included
  tables: 55, // host pages of its second stage
  shared: 56, // of its pages that stand on shared host pages
  swapped: 57, // of its pages that stand on the swap area
  ballooned: 58, // of its pages that it gave up
  target: 59, // that it is asked to give up
  reservation: 60, // pages that are never taken
  limit: 61, // pages that it may hold
  shares: 62, // weight of its claim to the rest
  ins: 63, // pages that came back so far
  waitsFor: 64, // guest page + 1 that it is blocked on; -1: any free page
  base: 65, // of ins: what came back since then its supervisor needs for the trap at hand
  leaving: 82, // of its pages that are being written to the swap area
  wish: 67, // of the target, what its operator asks for
  asked: 68, // and what the watermarks ask for
  waits: 66, // times that it waited for any page since it last got on
  answered: 80, // pages that it had given up when it was last looked at
  deaf: 81, // looks since it last gave one that was asked for
  // Its disk.
  disk: 84, // index of DISKS
  taken: 85, // of a split disk: requests taken out of its ring
  produced: 86, // and completions put into it
  diskQueue: 87, // queue of the host's disk that is passed through to it, + 1
  listens: 88, // 1: that queue's completions are told to us
  // Of a guest whose supervisor runs in user mode, or that runs guests of its own.
  runs: 69, // what runs, of Runs
  trap: 70, // 4 words: scause, sepc, stval, sstatus as its supervisor reads them
  registers: 96, // 32 words: the guest's, while the hypervisor uses them
  exits: 128, // EXITS.length words
  lives: 160, // machines that this row has been, which its neighbours are told apart by
  words: 161,
} as const;

/** Its supervisor, told of a trap; a program, or one in its supervisor's privilege; its guest. */
export const Runs = { supervisor: 0, user: 1, program: 2, guest: 3 } as const;

/** What goes on, by the privilege of a program; null: its supervisor. */
export const runsOf = (program: 'user' | 'supervisor' | null): number => {
  if (program === null) return Runs.supervisor;
  return program === 'user' ? Runs.user : Runs.program;
};

export const VmState = {
  free: 0,
  ready: 1,
  waiting: 2, // for an interrupt or its timer
  stopped: 3, // broke a rule
  blocked: 4, // for a page of its own
  dying: 5, // destroyed, its last requests under way
  shell: 6, // prepared: a guest is still to come
} as const;

/** Words of the hypervisor's own registers. */
export const Cpu = {
  current: 0, // VM row + 1 that runs, 0 if none
  end: 1, // two words: when its slice ends
  last: 3, // VM row + 1 whose registers are loaded
  free: 4, // host pages that are free
  shared: 5, // host pages with more than one guest page on them
  limbo: 6, // host pages of the dead that a device still reaches
  started: 7, // two words: when the slice began
  left: 31, // two words: when the guest that has the CPU last left it
  sleepers: 9, // in the heap
  epoch: 10, // of credit
  leaving: 11, // pages being written to the swap area
  queueHead: 28, // requests that wait for room in the device's queue: tag + 1
  queueTail: 29,
  waiters: 12, // virtual machines blocked for want of any page
  random: 13, // of victims
  scan: 14, // host page that sharing looks at next
  freeSlot: 15, // first free block of the swap area + 1
  freeSlots: 16,
  promised: 17, // swap blocks that creation has promised to guests
  reserved: 18, // pages that it has promised
  scanned: 19, // pages that sharing has looked at
  merged: 20,
  broken: 21, // copies made of shared pages
  swapOuts: 22,
  swapIns: 23,
  elder: 33, // row + 1 of the first that waited in vain: it goes before all until it gets on
  shells: 44, // prepared
  flying: 45, // disk requests that wait or are under way
  dying: 30, // virtual machines whose last requests are under way
  freeRow: 25, // where to look for a free row first
  taking: 24, // 1: from the hard mark until the high one
  timer: 26, // two words: what the timer is set to
  queues: 48, // per queue: head, tail: row + 1
  asking: 62, // 1: guests are asked, from the soft mark until the high one
  asked: 63, // pages that the watermarks ask for, of all guests
  nextLook: 64, // two words: when it is looked at what they gave
  tight: 66, // 1: somebody's limit was lowered, and he may hold more
  queueOwners: 54, // DISK_QUEUES words: row + 1 that a queue of the disk is passed through to
  blocks: 72, // ORDERS words, per order: first free block of so many pages + 1
  words: 91,
} as const;

/** Words of the ledger's row of a host page. */
export const Page = {
  owner: 0, // kind | row + 1 << 8; of a free block its order << 8
  guest: 1, // guest page; of a free block the next one + 1; of a shared page how many stand on it
  pins: 2, // device requests in flight; of a free block the one before + 1
  kept: 3, // when it came back: its owner's `ins` at that time
  hash: 4, // of its contents when sharing last looked
  slot: 5, // of the swap area + 1, while it travels
  words: 6,
} as const;

export const PageKind = {
  inside: 0, // of a larger free block
  free: 1, // first of a free block
  own: 2, // the hypervisor's tables
  table: 3, // of a second stage
  guest: 4,
  shared: 5,
  leaving: 6, // being written to the swap area
  coming: 7, // being read from it
  limbo: 8,
} as const;

/**
 * Words of a disk request, from its doorbell to its completion. Each virtual machine has
 * GUEST_QUEUE rows of its own, so that nobody's requests can crowd out another's; the last rows are
 * the swap area's.
 */
export const Tag = {
  state: 0, // of TagState
  vm: 1, // row + 1; 0: the owner is gone
  guestTag: 2, // of a transfer of our own, the host page
  flags: 3,
  block: 4, // of the host's disk
  count: 5, // pages
  next: 6, // tag + 1, of those that wait for room in the device's queue
  pages: 8, // host pages, at most SCATTER
  words: 8 + SCATTER,
} as const;
export const TagState = { free: 0, request: 1, out: 2, in: 3 } as const;
export const GUEST_QUEUE = 16; // requests of one guest
/** Beside one for each virtual machine, which waits for one page at a time. */
export const SWAP_TAGS = 24;

/** Words of a paravirtual guest's page. */
export const TypeRow = {
  type: 0,
  types: 1, // references of that type
  refs: 2, // references of any kind
  stamp: 3, // epoch when a reference was last dropped
  more: 4, // of a table: view + 1, first of a list; of a neighbour's page: 1, it may be written
  words: 5,
} as const;
/** What such a page is used as. Tables: by level. */
export const Type = { none: 0, writable: 1, leaf: 2, middle: 3, root: 4, foreign: 5 } as const;

/** Words of a block of the swap area. */
export const Slot = { vm: 0, next: 1, words: 2 } as const; // row + 1 that has it; the next free + 1

export const QUEUES = 3;
export const ORDERS = 19; // free blocks of 1 page to 1 GiB

/** Room to remember the hashes of all pages: a power of two. */
const hints = (pages: number): number => 2 ** Math.ceil(Math.log2(Math.max(1024, pages)));

export class State {
  readonly machine: Machine;
  readonly config: HypervisorConfig;
  readonly vm: Table;
  readonly cpu: Table;
  readonly tag: Table;
  readonly page: Table;
  readonly sleeper: Table; // [rows]: a heap of rows by wake
  readonly slot: Table;
  readonly hint: Table; // [a power of two]: page + 1 last seen with such a hash
  readonly root: number;
  readonly end: number;
  /** Told when the host page behind a guest page changes, or may be written less. */
  readonly changed: (vm: number, page: number) => void;

  constructor(
    machine: Machine,
    config: HypervisorConfig,
    vms: number,
    changed: (vm: number, page: number) => void,
  ) {
    this.machine = machine;
    this.config = config;
    this.changed = changed;
    const layout = new Layout(machine, 0);
    this.vm = layout.table(vms, Vm.words);
    this.cpu = layout.table(1, Cpu.words);
    this.tag = layout.table(vms * GUEST_QUEUE + vms + SWAP_TAGS, Tag.words);
    this.page = layout.table(machine.pages, Page.words);
    this.sleeper = layout.table(vms, 1);
    this.slot = layout.table(Math.max(1, config.swap?.blocks ?? 0), Slot.words);
    this.hint = layout.table(config.sharing === undefined ? 1 : hints(machine.pages), 1);
    this.root = layout.pages(1);
    this.end = layout.end;
    assert(EXITS.length <= Vm.lives - Vm.exits, 'hypervisor: a row has room for its exits');
  }

  /** The machine's hypervisor extension. Who has none makes no guests that need it. */
  get guestMode(): GuestMode {
    const { guestMode } = this.machine;
    assert(guestMode !== null, 'hypervisor: guests in guest mode take a machine that has it');
    return guestMode;
  }

  /** Books an exit under its cause. */
  count(vm: number, exit: Exit): void {
    this.vm.add(vm, Vm.exits + EXITS.indexOf(exit), 1);
  }

  /** A word of a row as it stands, uncharged: for reports. It must not be swapped out. */
  peek(vm: number, word: number): number {
    const value = this.machine.peek(this.vm.address(vm, word));
    assert(value !== null, 'hypervisor: a report takes its tables in memory: ask again later');
    return value;
  }

  // ---- the hypervisor's own registers -----------------------------------------------------------

  get(word: number): number {
    return this.cpu.get(0, word);
  }
  put(word: number, value: number): void {
    this.cpu.put(0, word, value);
  }
  add(word: number, n: number): number {
    return this.cpu.add(0, word, n);
  }

  /** Interrupts of a guest that wait to be injected. */
  pendingOf(vm: number): number {
    return this.vm.get(vm, Vm.pending);
  }

  /** Whether no device may reach a guest page: a paravirtual guest's table, or a neighbour's. */
  isBarred(vm: number, page: number): boolean {
    const first = this.vm.get(vm, Vm.typed);
    if (first === 0) return false;
    const at = first * PAGE_BYTES + (page * TypeRow.words + TypeRow.type) * 4;
    return this.machine.load(at) >= Type.leaf;
  }

  // ---- the ledger -------------------------------------------------------------------------------

  kind(page: number): number {
    return this.page.get(page, Page.owner) & 0xff;
  }
  /** Row of the virtual machine that a page is charged to, -1 if none. */
  ownerOf(page: number): number {
    return (this.page.get(page, Page.owner) >>> 8) - 1;
  }
  own(page: number, kind: number, vm: number): void {
    this.page.put(page, Page.owner, kind | ((vm + 1) << 8));
  }
}
