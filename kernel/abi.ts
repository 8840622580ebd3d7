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
  sleep: 2, // events seen, cycles | -1, predicate address, terms
  notify: 3, // env, slot
  envCreate: 4, // index, root page, slot, name a, name b, patron | -1, account | -1
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
  pageProtect: 17, // table, index, count, flags, env slot
  capForge: 18, // env, slot there, slot here, name a, name b, rights
  capDrop: 19, // env, slot there, slot here
  sliceAllocate: 20, // position, env, slot
  sliceFree: 21, // position, slot
  ipcWindow: 22, // table, index, slot
  ipcCall: 23, // env, word 0..3, page | -1, slot | entry << 8, rights | new entry << 8
  ipcReplyWait: 24, // env | -1, word 0..3, page | -1, slot | entry << 8, rights | new entry << 8
  extentSplit: 25, // extent, slot, new extent, blocks, name a, name b
  diskRequest: 26, // extent, slot, block, count, list address, page slot, flags
  consoleWrite: 27, // address, bytes
  batch: 28, // address, count
  capOffer: 29, // env, slot, name a, name b, rights
  capAcquire: 30, // env, slot
  pageMapList: 31, // table, index, count, list address, slot, flags, env slot
  pageCopy: 32, // to, slot, access entry, from, slot, access entry
  pageLimit: 33, // page, slot, leaves | -1, writers | -1
  pageKeep: 34, // page, slot, 0 | 1
  pageSweep: 35, // page
  envSuspend: 36, // env, slot, 0 | 1
  ipcSend: 37, // env, word 0..3, page | -1, slot | entry << 8, rights | new entry << 8
  extentJoin: 38, // extent, slot, neighbour
  accountCreate: 39, // account, parent, slot, name a, name b, minimum
  accountMove: 40, // from, to, slot, resource, amount
  accountClose: 41, // account, slot
  revoke: 42, // account, slot, taker, first page, pages, count, cycles
  repossess: 43, // account, slot, page
  saveBlock: 44, // place, extent, slot, block
  consoleRead: 45, // nothing
} as const;
export type CallName = keyof typeof Call;
export const CALL_COUNT = 46;

/**
 * How many arguments each call has, by number: a record of a batch is its number and so many words.
 * Calls that may switch or wait, or answer more than a value, cannot stand in a batch: -1.
 */
export const ARITY: readonly number[] = [
  0, -1, -1, 2, 7, 6, -1, 2, 3, 2, 2, 6, 3, 7, 2, 7, 4, 5, 6, 3, 3, 2, 3, -1, -1, 6, 7, 2, -1, 5, 2,
  7, 6, 4, 3, 1, 3, -1, 3, 6, 5, 2, 7, 3, 4, -1,
];
export const BATCH_MAX = 32; // calls

/**
 * Statuses. 0 is success, and `again` a step of it; the value of a refusal is the index of the
 * argument at fault.
 */
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
  again: 14, // no refusal: a step was done and more remain; call again
  tooMany: 15, // beyond the stated bound of one call
  quota: 16, // the account's allotment is used up
  sharing: 17, // more mappings than the page's limits allow
  interrupted: 18, // an upcall came while the call waited
} as const;
export type StatusName = keyof typeof Status;

// ---- limits -------------------------------------------------------------------------------------

export const CAP_SLOTS = 16; // per environment
export const ACCESS_ENTRIES = 4; // per page
export const UNMAP_MAX = 64; // entries of one pageUnmap
export const STEP_LEAVES = 16; // mappings that one call takes away by force
export const MAP_MAX = 64; // entries of one pageMapList or pageProtect
export const LIMIT_MAX = 0xfffe; // of pageLimit
export const PREDICATE_TERMS = 8; // of one sleep
export const DISK_BLOCKS_MAX = 32; // blocks of one diskRequest
export const CONSOLE_MAX = 4096; // bytes of one consoleWrite

// ---- rights, names, flags -----------------------------------------------------------------------

export const READ = 1;
export const WRITE = 2;
/** May add to access lists, forge, free: whoever has it answers for the resource. */
export const GRANT = 4;
/** May ask an account for pages back, and take them when the deadline has passed. */
export const REVOKE = 8;
export const ALL_RIGHTS = READ | WRITE | GRANT | REVOKE;

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
  revoke: 3, // (pages wanted, cycles left)
  repossessed: 4, // (losses so far): read the loss table
} as const;
export const UPCALL_KINDS = 5;
/** Cycles between the slice-end upcall and the first cycle of excess. */
export const GRACE = 5_000;

/**
 * Where the kernel leaves word of an upcall: at the frame address that the environment registered.
 * Fault: word 0 counts the frames that stand, then frames of 4 words (cause, address, 0, 0). The
 * handler takes its frame off by decrementing word 0 before it returns. The others: word 0 is 1
 * while one is outstanding; the handler clears it. Others in the meantime are coalesced.
 */
export const FAULT_FRAME_WORDS = 4;
export const FAULT_FRAMES = 16;

// ---- exposed tables -----------------------------------------------------------------------------

/** Words of an exposed environment record. */
export const Env = {
  words: 20,
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
  account: 10, // index
  exitStatus: 11,
  partner: 12, // id: in a call, the callee
  image: 13,
  nameA: 14, // guard: who dominates it has authority over this environment
  nameB: 15,
  suspended: 16, // 1: does not run until it is resumed
  deadline: 17, // of a sleep: cycle count, two words; 0 is none
  terms: 19, // of the predicate that it sleeps with
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

/**
 * A page's word in the page table: kind in the low byte, then the account that it is charged to
 * (8 bits), then of a table the environment that it belongs to (14 bits), then PAGE_KEPT.
 */
export const PageKind = {
  free: 0,
  user: 1,
  root: 2,
  middle: 3,
  leaf: 4,
  ledger: 5,
  kernel: 6,
  published: 7,
  quarantined: 8, // given up, but a device or a mapping still reaches it
} as const;
export const PAGE_ACCOUNT_SHIFT = 8;
export const PAGE_ENV_SHIFT = 16;
export const PAGE_KEPT = 1 << 30; // never taken by force
/** Of a free page: it is in the balloon, whoever takes it has it back from the machine's owner. */
export const PAGE_GIVEN = 1 << 29;

/**
 * A name may carry the generation that its user knows: index, and above it a tag of `bits` bits, 0
 * for "whatever stands there now". A tag that is not the present one makes the name stale.
 */
export const PAGE_BITS = 20;
export const PAGE_TAG_BITS = 8;
export const EXTENT_BITS = 8;
export const SLICE_BITS = 6;
export const TAG_BITS = 16; // of extents and slice positions
export const tagOf = (generation: number, bits: number): number =>
  1 + ((generation >>> 0) % ((1 << bits) - 1));

/** Words of an exposed page record, as far as they are for everyone. */
export const Page = {
  words: 21,
  generation: 0,
  leaves: 1, // mappings; of a table, its filled entries
  pins: 2, // device requests in flight
  writers: 3, // writable mappings; of a table, the read-only views of it
  access: 4, // ACCESS_ENTRIES × (name a, name b, rights, first leaf)
  limits: 20, // most leaves + 1, most writers + 1 << 16; 0 is none
} as const;

/** Words of an exposed extent. */
export const Extent = {
  words: 8,
  first: 0, // block
  count: 1,
  nameA: 2,
  nameB: 3,
  valid: 4,
  generation: 5,
  transfers: 6, // requests in flight
  account: 7,
} as const;

/** What an account is allotted. */
export const Resource = { pages: 0, slices: 1, environments: 2, extents: 3, requests: 4 } as const;
export const RESOURCES = 5;
export const ACCOUNTS = 64; // 0 is the reserve
export const LOSSES = 32; // that the loss table remembers of each account
export const SAVE_WORDS = 4; // of a place that a loss is to be saved to

/** Words of an exposed account. The sum of all limits is what the machine has. */
export const Account = {
  words: 32,
  valid: 0,
  nameA: 1,
  nameB: 2,
  parent: 3,
  children: 4,
  tenant: 5, // account of a first environment: console channel and counters
  holder: 6, // environment id: its first; hears of revocation
  minimum: 7, // pages below which nobody revokes
  kept: 8, // pages marked PAGE_KEPT, at most the minimum
  wanted: 9, // pages that a revocation still waits for
  taker: 10, // account that gets them
  first: 11, // of the range asked for
  pages: 12,
  deadline: 13, // cycle count, two words
  losses: 15, // pages repossessed so far
  used: 16, // by resource
  awaits: 21, // revocations in its favour
  limit: 24, // by resource
} as const;

/** The loss table: per account a ring of LOSSES entries, and where contents are to be saved. */
export const Loss = {
  words: LOSSES * 6,
  ring: 0, // page, block of the disk that it was saved to + 1
  saves: LOSSES * 2, // extent + 1, its generation, block within it, 0: used in turn with the ring
} as const;

/** Words of an exposed disk request. */
export const Queued = {
  words: 40,
  env: 0, // id; 0: free; -1: the kernel's own
  count: 1, // pages
  block: 2, // first, of the disk
  flags: 3, // DISK_WRITE, DISK_FORCE, DISK_FLUSH
  account: 4,
  extent: 5,
  position: 6, // + 1, of the slice that it was made in: owes the interrupt; 0: nobody's
  pages: 8, // page | access entry << 28
} as const;

/** A term of a wakeup predicate: 4 words. Terms up to one with `last` set form a product. */
export const Term = {
  words: 4,
  where: 0, // page | access entry << 28
  what: 1, // word of the page | operator << 16 | slot << 20 | last << 24
  value: 2,
  tag: 3, // told to the sleeper when its product is true
} as const;
export const Operator = { equal: 0, notEqual: 1, less: 2, greater: 3 } as const;
/** Why a sleeper woke: result register 1 of sleep. */
export const Woken = { event: 0, predicate: 1, deadline: 2 } as const;

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
  recordPage: 11, // of the page records
  accountPage: 12,
  lossPage: 13,
  extentPage: 14,
  extents: 15, // rows
  queuePage: 16, // of the disk requests
  requests: 17, // rows
  extentGeneration: 18, // changes of the extent table so far
  extentDurable: 19, // the last one that a power cut cannot undo
  balloonTarget: 20, // pages that the machine's owner asks for
  balloon: 21, // of them still to be given; negative: that it can do without
  sliceVector: 64, // env id per position, 0 if free
  sliceGeneration: 128,
  sliceAccount: 192,
  sliceDebt: 256, // cycles that a position has run beyond its turns, and owes
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
