/**
 * The kernel interface: numbers and memory. Exokernel and unikernel answer it; a libOS may import
 * this file of the kernel and no other.
 *
 * A call is a number and up to eight integer arguments in registers. It returns a status and a
 * value: status 0 and the call's value, or a refusal and the index of the argument at fault. A
 * refused call has changed nothing. Buffers are named by virtual address and fetched once, through
 * the caller's own mappings. No object, closure or view crosses.
 *
 * The caller names every resource: pages, table pages, blocks, environments, slots, slices. It
 * reads the exposed tables, mapped read-only, to choose; the kernel only checks. docs/ABI.md has
 * each call's arguments, effect and refusals in order.
 */

/** Call numbers. Noun first. */
export const Call = {
  null: 0,
  yield: 1, // target | -1
  sleep: 2, // events seen
  notify: 3, // env, slot
  envCreate: 4, // index, root page, slot, name a, name b, patron
  envStart: 5, // env, image, entry, argument 0, argument 1, slot
  envDestroy: 6, // env, slot, exit status
  envReap: 7, // env, slot
  upcallSet: 8, // kind, entry | -1, frame address
  pageAllocate: 9, // page, slot
  pageFree: 10, // page, slot
  accessAdd: 11, // page, slot, entry, name a, name b, rights
  accessRemove: 12, // page, slot, entry
  tableCreate: 13, // parent, index, page, slot, ledger 0, ledger 1, env slot
  tableDestroy: 14, // table, env slot
  pageMap: 15, // table, index, page, slot, access entry, flags, env slot
  pageUnmap: 16, // table, index, count, env slot
  pageProtect: 17, // table, index, flags, env slot
  capForge: 18, // env, slot there, slot here, name a, name b, rights
  capDrop: 19, // slot
  sliceAllocate: 20, // position, env, slot
  sliceFree: 21, // position, slot
  ipcWindow: 22, // table, index, slot
  ipcCall: 23, // env, word 0..3, page | -1, slot | entry << 8, rights | new entry << 8
  ipcReplyWait: 24, // env | -1, word 0..3, page | -1, slot | entry << 8, rights | new entry << 8
  extentSplit: 25, // extent, slot, new extent, blocks, name a, name b
  diskRequest: 26, // extent, slot, block, count, list address, page slot, flags
  consoleWrite: 27, // address, bytes
  batch: 28, // address, count
} as const;
export type CallName = keyof typeof Call;
export const CALL_COUNT = 29;

/**
 * How many arguments each call has, by number: a record of a batch is its number and so many words.
 * Calls that may switch or wait cannot stand in a batch: -1.
 */
export const ARITY: readonly number[] = [
  0, -1, -1, 2, 6, 6, -1, 2, 3, 2, 2, 6, 3, 7, 2, 7, 4, 4, 6, 1, 3, 2, 3, -1, -1, 6, 7, 2, -1,
];
export const BATCH_MAX = 32; // calls

/** Statuses. 0 is success; the value of a refusal is the index of the argument at fault. */
export const Status = {
  ok: 0,
  badCall: 1, // no such call
  badArgument: 2, // not an integer in the argument's range
  badAddress: 3, // the caller could not access it
  badEnvironment: 4, // no such environment, or a stale generation
  noCapability: 5, // the slot is empty
  notPermitted: 6, // the capability does not dominate, or lacks the right
  notFree: 7, // the resource named to be taken is taken
  wrongKind: 8, // the page is not of the kind that the call needs
  occupied: 9, // the entry named to be filled is filled
  absent: 10, // the entry named to be used is empty
  busy: 11, // in use: leaves, pins or references remain
  notReady: 12, // the target cannot take it now
  full: 13, // a bounded queue has no room
  again: 14, // a step was done, more remain
  tooMany: 15, // beyond the stated bound of one call
} as const;
export type StatusName = keyof typeof Status;

// ---- limits -------------------------------------------------------------------------------------

export const CAP_SLOTS = 16; // per environment
export const ACCESS_ENTRIES = 4; // per page
export const UNMAP_MAX = 64; // entries of one pageUnmap
export const DISK_BLOCKS_MAX = 32; // blocks of one diskRequest
export const CONSOLE_MAX = 4096; // bytes of one consoleWrite

// ---- rights, names, flags -----------------------------------------------------------------------

export const READ = 1;
export const WRITE = 2;
/** May add to access lists, forge, free: whoever has it answers for the resource. */
export const GRANT = 4;
export const ALL_RIGHTS = READ | WRITE | GRANT;

/** Mapping flags: Sv39's R, W, X, and the two bits that belong to software. */
export const MAP_READ = 1 << 1;
export const MAP_WRITE = 1 << 2;
export const MAP_SOFT_SHIFT = 8; // two bits
export const MAP_SOFT = 3 << MAP_SOFT_SHIFT;

export const DISK_WRITE = 1;
export const DISK_FORCE = 2; // durable when complete
export const DISK_FLUSH = 4; // no blocks: all completed writes durable

export interface Name {
  readonly a: number;
  readonly b: number;
}

/**
 * A capability's name: 0 to 7 bytes, a path in the tree of accounts. Two words cross the boundary:
 *
 *     a:  byte 2 | byte 1 | byte 0 | length        b:  byte 6 | byte 5 | byte 4 | byte 3
 */
export function packName(bytes: readonly number[]): Name {
  const at = (n: number): number => (bytes[n] ?? 0) & 0xff;
  const a = (bytes.length | (at(0) << 8) | (at(1) << 16) | (at(2) << 24)) >>> 0;
  const b = (at(3) | (at(4) << 8) | (at(5) << 16) | (at(6) << 24)) >>> 0;
  return { a, b };
}

// ---- upcalls ------------------------------------------------------------------------------------

export const Upcall = {
  fault: 0, // (cause, address)
  sliceBegin: 1, // ()
  sliceEnd: 2, // (): yield before the grace period ends
} as const;
export const UPCALL_KINDS = 3;
/** Cycles between the slice-end upcall and the first cycle of excess. */
export const GRACE = 5_000;

/**
 * Where the kernel leaves word of an upcall: at the frame address that the environment registered.
 * Fault: word 0 counts the frames that stand, then frames of 4 words (cause, address, 0, 0). The
 * handler takes its frame off by decrementing word 0 before it returns. Slice upcalls: word 0 is 1
 * while one is outstanding; the handler clears it. Others in the meantime are coalesced.
 */
export const FAULT_FRAME_WORDS = 4;
export const FAULT_FRAMES = 16;

// ---- exposed tables -----------------------------------------------------------------------------

/** Words of an exposed environment record. */
export const Env = {
  words: 16,
  state: 0,
  generation: 1,
  parent: 2, // index
  patron: 3, // id: notified when this one becomes ready, or dies
  events: 4, // posted so far; sleep waits for a change
  diskDone: 5, // own requests completed so far, in the order of submission
  diskFailed: 6,
  diskSubmitted: 7,
  excess: 8, // time slices still to be forfeited
  root: 9, // page
  account: 10, // first byte of its name
  exitStatus: 11,
  partner: 12, // id: in a call, the callee
  image: 13,
  nameA: 14, // guard: who dominates it has authority over this environment
  nameB: 15,
} as const;

export const EnvState = {
  free: 0,
  made: 1, // created, not started
  ready: 2,
  sleeping: 3,
  calling: 4, // waits for a reply
  receiving: 5, // waits for a call
  zombie: 6,
} as const;

/** An environment id carries its generation: a stale one is refused. */
export const ENV_INDEX_BITS = 14;
export const envId = (index: number, generation: number): number =>
  (generation << ENV_INDEX_BITS) | index;
export const envIndex = (id: number): number => id & ((1 << ENV_INDEX_BITS) - 1);

/** Kinds of page, in the low byte of its word in the page table; above it the owner's index. */
export const PageKind = {
  free: 0,
  user: 1,
  root: 2,
  middle: 3,
  leaf: 4,
  ledger: 5,
  kernel: 6,
  published: 7,
} as const;
export const PAGE_OWNER_SHIFT = 8;

/** Words of the information page. */
export const Info = {
  pages: 0, // of the machine
  environments: 1, // rows of the environment table
  slices: 2, // positions of the vector
  sliceCycles: 3,
  diskQueued: 4, // requests outstanding
  diskArm: 5, // block last named to the disk
  slicePosition: 6, // being served
  page: 7, // where this page is
  envPage: 8, // first page of the environment table
  envPages: 9,
  pagePage: 10, // first page of the page table
  sliceVector: 64, // env id per position, 0 if free
} as const;

/**
 * What the first environment of a tenant finds at its start. Virtual pages of its first leaf table:
 */
export const Start = {
  stackPage: 1, // its own: upcall frames and whatever it likes
  infoPage: 2, // exposed
  envPages: 3, // exposed: environment table, first ENV_PAGES pages of it
  pagePages: 64, // exposed: page table, first PAGE_PAGES pages of it
  freePages: 256, // from here on nothing is mapped
} as const;
export const ENV_PAGES = 16;
export const PAGE_PAGES = 128;

/** Arguments of its entry 0: ids and names of what it was made of. */
export interface StartArguments {
  readonly self: number; // environment id
  readonly root: number;
  readonly middle: number;
  readonly leaf: number;
  readonly quota: number; // pages that it may take
  readonly extent: number;
  readonly blocks: number; // of the extent
}
