/**
 * Where things stand in the address space of a Unix process, and in the pages that processes share.
 * Every number here is a virtual page or a word offset; physical pages are found in the tables.
 *
 *     page   0        nothing: a null pointer faults
 *            1        stack page: upcall frames
 *            2        exposed information    3-18  exposed environment table
 *           24        u-area: what is the process's own
 *           25        accounts, exposed
 *           32-49     shared pages 0-17
 *           64-191    exposed page table, in the first environment alone
 *          192-255    shared pages 18-81
 *          256-287    pipe buffers: shared pages 82-113
 *          288-351    views of the process's own leaf tables, read-only
 *          352        window for swap maps   353   window for building a child
 *          354-359    how many swap maps name each block of the swap area, a byte each
 *          360-367    file window, lent by the file server's client table
 *          368-383    buffer granted to the key-value store, while a program has it open
 *          384-       heap, on through further leaf tables
 */
import { Start } from '../../kernel/abi.ts';
import { ARG_MAX } from './process.ts';

export const PAGE = 4096;
export const at = (page: number): number => page * PAGE;

export const STACK = Start.stackPage;
/** Where lists of batched calls are written: on the stack page, behind the upcall frames. */
export const BATCH = STACK * 4096 + 512;
export const INFO = Start.infoPage;
export const ENVS = Start.envPages;
export const UAREA = 24;
export const ACCOUNTS = 25;
export const CONTROL = 32;
export const PROCESSES = 33;
export const COUNTS = 34; // a byte per physical page: how many mappings the libOS made of it
export const COUNT_PAGES = 16;
export const FREE = 192; // words: stack of free physical pages
export const FREE_PAGES = 64;
export const PIPE_BUFFERS = 256;
export const VIEWS = 288;
export const LEAVES_MAX = 64;
export const SWAP_WINDOW = 352;
export const BUILD_WINDOW = 353;
export const FILE_WINDOW = 360;
export const WINDOW_PAGES = 8;
export const STORE_BUFFER = 368;
export const STORE_BUFFER_PAGES = 16;
export const SWAP_COUNTS = 354;
export const SWAP_COUNT_PAGES = 6;
export const HEAP = 384;

/** Shared pages by number, and where each is mapped. */
export const SHARED_CONTROL = 0;
export const SHARED_PROCESSES = 1;
export const SHARED_COUNTS = 2;
export const SHARED_FREE = 18;
export const SHARED_PIPES = 82;
export const SHARED_PAGES = 114;

/** Virtual page of shared page `n`. */
export function sharedAt(n: number): number {
  if (n >= SHARED_PIPES) return PIPE_BUFFERS + (n - SHARED_PIPES);
  if (n >= SHARED_FREE) return FREE + (n - SHARED_FREE);
  return CONTROL + n;
}

/** Which shared page is mapped at virtual page `page`, or -1. */
export function sharedPage(page: number): number {
  if (page >= PIPE_BUFFERS && page < PIPE_BUFFERS + SHARED_PAGES - SHARED_PIPES) {
    return page - PIPE_BUFFERS + SHARED_PIPES;
  }
  if (page >= FREE && page < FREE + FREE_PAGES) return page - FREE + SHARED_FREE;
  return page >= CONTROL && page < CONTROL + SHARED_FREE ? page - CONTROL : -1;
}

// ---- the control page: words --------------------------------------------------------------------

export const Control = {
  lock: 0,
  free: 1, // entries of the free stack
  init: 2, // environment id of the scheduler
  server: 3, // environment id of the file server
  info: 4, // physical page of the exposed information
  envs: 5, // first physical page of the exposed environment table
  envPages: 6,
  nextEnv: 7, // where to look for a free environment first
  image: 8,
  account: 9, // first byte of all our names
  sets: 16, // WINDOW_SETS words: 0 never made, 1 free, 2 + pid in use
  pipes: 80, // PIPES × PIPE_WORDS
  files: 336, // OPEN_FILES × FILE_WORDS
  shared: 592, // SHARED_PAGES words: physical page, 0 if not made
  windows: 706, // WINDOW_SETS × WINDOW_PAGES words: physical pages of file windows
  foreground: 962, // process group that ^C is for
  terminal: 963, // 1: somebody has opened it
  terminalFlags: 964,
  store: 965, // environment id of the key-value store, 0 if there is none
  extent: 966,
  swapBase: 967, // first block of the swap area, of the extent
  swapBlocks: 968, // 0: there is none
  swapFree: 969,
  swapNext: 970, // where to look for a free block first
  swapCounts: 971, // SWAP_COUNT_PAGES words: physical pages
  movers: 977, // PIPES words: process that moves bytes in or out, 0 if nobody
  swapOut: 1009, // pages written so far
  swapIn: 1010, // pages read so far
  accountRow: 1011, // address
  asked: 1012, // 1: heard that pages are asked back
  shrink: 1013, // frames that the file server is to part with; -1: it has
  shrinkFirst: 1014, // of which range
  shrinkPages: 1015,
  patience: 1016, // turns that it still has for that
  lastEvicted: 1017, // process whose pages went last
  accountPage: 1018, // physical; 0: the kernel shows no accounts
  losses: 1019, // pages taken by force that have been seen to
  cacheLosses: 1020, // 1: the file server is to look for what it lost
  giving: 1021, // how far the scheduler is with what is asked for, as revocation.ts says
  lost: 1022, // 1: heard that pages were taken by force
} as const;

export const WINDOW_SETS = 32;
export const PIPES = 32;
/** The last of them is the terminal's. */
export const TERMINAL = PIPES - 1;
export const Pipe = {
  readers: 0,
  writers: 1,
  head: 2, // bytes taken out so far
  tail: 3, // bytes put in so far
  readerWaits: 4, // two words: a bit for each process that waits to read
  writerWaits: 6,
  words: 8,
} as const;
export const OPEN_FILES = 64;
export const OpenFile = { count: 0, inode: 1, offset: 2, flags: 3, words: 4 } as const;
/** Among an open file's flags: its last name has gone, and who closes it last says so. */
export const UNNAMED = 1 << 8;

// ---- the process table --------------------------------------------------------------------------

export const PROCESS_MAX = 64;
export const Row = {
  state: 0,
  env: 1,
  parent: 2,
  status: 3,
  waits: 4, // 1: in wait()
  uarea: 5, // physical pages
  stack: 6,
  root: 7,
  middle: 8,
  set: 9, // file window in use, + 1
  pending: 10, // signals, a bit each
  group: 11,
  stopped: 12, // the signal that stopped it
  own: 13, // signals with which it has its own way, a bit each
  patience: 14, // how often it was run with a signal that ends it
  fatal: 15, // the signal that ended it
  words: 16,
} as const;
export const RowState = { free: 0, building: 1, running: 2, ended: 3 } as const;

// ---- the u-area: words --------------------------------------------------------------------------

export const User = {
  pid: 0,
  leaves: 1, // leaf tables so far
  end: 2, // first address beyond the heap
  directory: 3, // inode of the working directory
  argc: 4,
  image: 5,
  middle: 6,
  paging: 7, // 1: its pages may go to the swap area
  busy: 8, // above 0: it is changing its tables, and is not to be ended
  hand: 9, // of the clock: a virtual page
  envc: 10, // strings of the environment, behind the arguments
  resident: 11, // heap pages that are mapped: one less is one taken by force
  handlers: 320, // SIGNALS words: 0 default, 1 ignored, 2 + number of a function
  descriptors: 16, // OPEN_MAX × DESCRIPTOR_WORDS
  tables: 128, // LEAVES_MAX × 3: leaf, ledger, ledger
  maps: 352, // LEAVES_MAX words: swap map of each leaf table, or 0
  arguments: PAGE - ARG_MAX, // byte offset: strings, each ended by a zero byte
} as const;
export const Descriptor = { kind: 0, value: 1, words: 2 } as const;
export const Kind = {
  none: 0,
  console: 1,
  file: 2,
  pipeRead: 3,
  pipeWrite: 4,
  terminal: 5,
  null: 6,
} as const;

/** Capability slots: the process's own name, and the one that all of this Unix shares. */
export const OWN = 0;
export const COMMON = 1;
/** Of who asks the disk: the tenant's own name, which guards the extent. */
export const DISK = 2;
