/**
 * The refusal tables: for each call a valid example, and its refusals in their documented order,
 * each with a way to earn it. Row n of a table is the valid call with mistake n made on top of
 * every later one, so that the order of checks is tested with the checks. docs/ABI.md lists the
 * same refusals; abi-doc.test.ts holds the two together.
 */
import {
  ALL_RIGHTS,
  BATCH_MAX,
  Call,
  type CallName,
  DISK_BLOCKS_MAX,
  DISK_WRITE,
  MAP_READ,
  MAP_WRITE,
  packName,
  READ,
  Start,
  type StatusName,
  UNMAP_MAX,
  WRITE,
} from '../../kernel/abi.ts';
import { DISK_TAGS } from '../../kernel/exokernel/state.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Op } from '../../machine/user-port.ts';
import { type Home, LATE_DISK, NAME_B, Rig, SCRATCH } from './harness.ts';

export const WORLD_PAGES = 96;
const RW = MAP_READ | MAP_WRITE;

// ---- a world with something wrong of every sort -------------------------------------------------

/** Slots of tenant A, who makes the calls. */
export const Slot = {
  full: 0, // [1], all rights
  under: 1, // [1, 9], all rights
  reader: 2, // [1], READ
  writer: 3, // [1], READ and WRITE
  empty: 4,
  spare: 5, // [1], used by nothing
  beside: 6, // [1, 8], all rights
  forged: 8, // empty, for capForge
} as const;

/** Scatter lists of one word, by what is wrong with it. */
export const List = {
  good: SCRATCH,
  beyond: SCRATCH + 4, // no such page
  entry: SCRATCH + 8, // no such access entry
  table: SCRATCH + 12, // no user page
  absent: SCRATCH + 16, // an empty access entry
  readOnly: SCRATCH + 20, // an access entry without WRITE
} as const;
const UNMAPPED = 320 * PAGE_BYTES;
/** A record of the null call, and one of a call that cannot stand in a batch. */
export const BATCH = SCRATCH + 64;

export class World {
  readonly rig: Rig;
  readonly a: Home;
  readonly b: Home;
  readonly child: Home; // made, never started
  readonly runner: Home; // ready
  readonly zombie: Home;
  readonly crowded: Home; // a zombie that still has tables
  readonly server: Home; // receiving, with a window
  readonly deaf: Home; // with a window, and ready: it does not wait
  readonly client: Home; // has called A and waits for the reply, with a window
  readonly bare: Home; // the same without a window
  readonly stale: number; // id of A's row, one generation late
  readonly own: number; // user pages of A, used by nothing
  readonly own2: number;
  readonly own3: number;
  readonly mapped: number; // at index 300 of A's leaf table
  readonly shared: number; // entry 1 to B, entry 2 to A for reading only, entry 3 empty
  readonly borrowed: number; // mapped at index 301 by entry 1
  readonly pinned: number; // a disk read is in flight to it
  readonly narrow: number; // named [1, 9]
  readonly leaf2: number; // an empty leaf table
  readonly free: number;
  readonly kernel: number;
  readonly published: number;

  constructor() {
    const rig = new Rig({
      exokernel: { environments: 16 },
      machine: { pages: WORLD_PAGES, profile: LATE_DISK },
    });
    this.rig = rig;
    const { a, b } = rig;
    [this.a, this.b] = [a, b];
    const row = a.row;
    const cap = (slot: number, name: readonly number[], rights: number): void => {
      const { a: word, b: more } = packName(name);
      rig.must(row, 'capForge', a.id, slot, Slot.full, word, more, rights);
    };
    cap(Slot.under, [1, 9], ALL_RIGHTS);
    cap(Slot.reader, [1], READ);
    cap(Slot.writer, [1], READ | WRITE);
    cap(Slot.spare, [1], ALL_RIGHTS);
    cap(Slot.beside, [1, 8], ALL_RIGHTS);
    const take = (slot: number = Slot.full): number => {
      const page = rig.raw.free();
      rig.must(row, 'pageAllocate', page, slot);
      return page;
    };
    [this.own, this.own2, this.own3] = [take(), take(), take()];
    this.mapped = take();
    rig.must(row, 'pageMap', a.leaf, 300, this.mapped, Slot.full, 0, RW, 0);
    this.shared = take();
    rig.must(row, 'accessAdd', this.shared, Slot.full, 1, NAME_B.a, NAME_B.b, READ | WRITE);
    const own = packName([1]);
    rig.must(row, 'accessAdd', this.shared, Slot.full, 2, own.a, own.b, READ);
    this.borrowed = take();
    rig.must(row, 'accessAdd', this.borrowed, Slot.full, 1, own.a, own.b, READ);
    rig.must(row, 'pageMap', a.leaf, 301, this.borrowed, Slot.full, 1, MAP_READ, 0);
    this.narrow = take(Slot.under);
    this.leaf2 = take();
    rig.must(row, 'tableCreate', a.middle, 5, this.leaf2, Slot.full, take(), take(), 0);
    rig.must(row, 'sliceFree', 2, 0);

    this.child = rig.child(row, [1, 7], { start: false });
    this.runner = rig.child(row, [1, 7]);
    this.zombie = rig.child(row, [1, 7]);
    rig.must(row, 'envDestroy', this.zombie.id, 0, 0);
    this.crowded = rig.child(row, [1, 7], { tables: true });
    rig.must(row, 'envDestroy', this.crowded.id, 0, 0);
    const windowed = (): Home => {
      const home = rig.child(row, [1, 7], { tables: true });
      rig.must(home.row, 'ipcWindow', home.leaf, 400, 0);
      return home;
    };
    this.server = windowed();
    rig.calls(this.server.row, 'ipcReplyWait', -1, 0, 0, 0, 0, -1, 0, 0);
    this.deaf = windowed();
    this.client = windowed();
    this.bare = rig.child(row, [1, 7]);
    for (const { row: caller } of [this.client, this.bare]) {
      rig.calls(caller, 'ipcCall', a.id, 5, 6, 7, 8, -1, 0, 0);
      rig.must(row, 'ipcReplyWait', -1, 0, 0, 0, 0, -1, 0, 0);
    }
    this.stale = a.id + (1 << 14);
    this.pinned = take();
    this.free = rig.raw.free();
    this.kernel = rig.kernel.state.root;
    this.published = rig.kernel.state.info.firstPage;
    const lists = [
      this.own,
      WORLD_PAGES,
      this.own | (5 << 28),
      a.leaf,
      this.shared | (3 << 28),
      this.shared | (2 << 28),
      this.pinned,
    ];
    rig.does(row, function* (port): Op<void> {
      for (const [n, word] of lists.entries()) {
        port.store32(SCRATCH + n * 4, word) ?? (yield* port.fault());
      }
      port.store32(BATCH, Call.null) ?? (yield* port.fault());
      port.store32(BATCH + 4, Call.yield) ?? (yield* port.fault());
    });
    rig.must(row, 'diskRequest', a.extent, 0, 0, 1, SCRATCH + 24, 0, 0);
  }
}

// ---- the tables ---------------------------------------------------------------------------------

export interface Mistake {
  readonly status: StatusName;
  /** index of the argument at fault */
  readonly argument: number;
  readonly why: string;
  readonly spoil: (args: number[], world: World) => void;
  /** changes the world for good: such a row is tried last */
  readonly prepare?: (world: World) => void;
}

export type Domain = 'page' | 'env' | 'slot' | 'index' | 'entry' | 'other';

export interface Table {
  readonly domains: readonly Domain[];
  /** a call that succeeds */
  readonly valid: (world: World) => number[];
  /** the caller waits afterwards */
  readonly waits?: true;
  /** several calls in one: the value of a refusal is how many were performed */
  readonly performs?: true;
  /** wild values that the call accepts, by argument: words are words, -1 may mean nobody */
  readonly accepts?: Readonly<Record<number, readonly number[]>>;
  readonly mistakes: readonly Mistake[];
}

type Spoil = Mistake['spoil'];
const set =
  (argument: number, value: number): Spoil =>
  (args) => {
    args[argument] = value;
  };
const put =
  (values: (world: World) => Readonly<Record<number, number>>): Spoil =>
  (args, world) => {
    for (const [argument, value] of Object.entries(values(world))) args[Number(argument)] = value;
  };
const m = (status: StatusName, argument: number, why: string, spoil: Spoil): Mistake => ({
  status,
  argument,
  why,
  spoil,
});

const badSlot = (argument: number): Mistake =>
  m('badArgument', argument, 'not a slot', set(argument, 16));
const badPage = (argument: number): Mistake =>
  m('badArgument', argument, 'not a page', set(argument, WORLD_PAGES));
const noTable = (argument: number, why: string): Mistake =>
  m(
    'wrongKind',
    argument,
    why,
    put((w) => ({ [argument]: w.own })),
  );
const stale = (argument: number): Mistake =>
  m(
    'badEnvironment',
    argument,
    'no such environment',
    put((w) => ({ [argument]: w.stale })),
  );
/** Authority over an environment: another tenant's, by an empty slot, then by one that strays. */
const overEnv = (env: number, slot: number, pick: (w: World) => number): Mistake[] => [
  m('noCapability', slot, 'the environment is another and the slot is empty', (args, w) => {
    [args[env], args[slot]] = [pick(w), Slot.empty];
  }),
  m('notPermitted', slot, 'the slot does not dominate its guard with WRITE', (args, w) => {
    [args[env], args[slot]] = [pick(w), Slot.full];
  }),
];
const ownedPage = (page: number, slot: number): Mistake[] => [
  badPage(page),
  m(
    'wrongKind',
    page,
    'not a user page',
    put((w) => ({ [page]: w.a.leaf })),
  ),
  badSlot(slot),
  m('noCapability', slot, 'the slot is empty', set(slot, Slot.empty)),
  m('notPermitted', slot, 'the slot does not dominate entry 0 with GRANT', set(slot, Slot.writer)),
];
const badName = (argument: number): Mistake =>
  m('badArgument', argument, 'the two words are not a name', set(argument, 8));
const badWord = (argument: number): Mistake =>
  m('badArgument', argument, 'not a word', set(argument, 2 ** 32));
const WORDS = [-1, 2 ** 31];

const leafAndEnv = (slot: number): Mistake[] => [
  badPage(0),
  noTable(0, 'not a leaf table'),
  m('badArgument', 1, 'not an index', set(1, 512)),
  badSlot(slot),
  ...overEnv(0, slot, (w) => w.b.leaf),
];

const grant: readonly Mistake[] = [
  m('badArgument', 6, 'not a slot, or not by entry 0', set(6, 16)),
  badPage(5),
  m(
    'wrongKind',
    5,
    'not a user page',
    put((w) => ({ 5: w.a.leaf })),
  ),
  m('noCapability', 6, 'the slot is empty', set(6, Slot.empty)),
  m('notPermitted', 6, 'the slot does not dominate entry 0 with GRANT', set(6, Slot.writer)),
  m('badArgument', 7, 'rights are not READ, or READ and WRITE, or the entry is 0', set(7, WRITE)),
  m(
    'occupied',
    7,
    'the access entry is filled',
    put((w) => ({ 5: w.shared, 7: READ | (1 << 8) })),
  ),
];
const [forged, given] = [packName([1, 5]), READ | (1 << 8)];

export const REFUSALS: Readonly<Record<CallName, Table>> = {
  null: { domains: [], valid: () => [], mistakes: [] },
  yield: {
    domains: ['env'],
    valid: (w) => [w.runner.id],
    accepts: { 0: [-1] },
    mistakes: [
      stale(0),
      m(
        'notReady',
        0,
        'neither it nor whom it calls can run',
        put((w) => ({ 0: w.child.id })),
      ),
    ],
  },
  sleep: {
    domains: ['other'],
    valid: () => [12_345],
    accepts: { 0: [-1, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 60)] },
    mistakes: [m('badArgument', 0, 'not an integer', set(0, 1.5))],
  },
  notify: {
    domains: ['env', 'slot'],
    valid: (w) => [w.runner.id, Slot.full],
    mistakes: [stale(0), badSlot(1), ...overEnv(0, 1, (w) => w.b.id)],
  },
  envCreate: {
    domains: ['other', 'page', 'slot', 'other', 'other', 'env'],
    valid: (w) => [w.rig.raw.freeRow(), w.own, Slot.full, forged.a, forged.b, -1],
    accepts: { 5: [-1] },
    mistakes: [
      m('badArgument', 0, 'not a row', set(0, 0)),
      m('notFree', 0, 'the row is taken', set(0, 1)),
      badSlot(2),
      badName(3),
      stale(5),
      m('noCapability', 2, 'the slot is empty', set(2, Slot.empty)),
      m('notPermitted', 2, 'it does not dominate the name with all rights', set(2, Slot.reader)),
      m(
        'notPermitted',
        5,
        'the patron is not the caller, nor its patron, nor dominated',
        put((w) => ({ 5: w.b.id })),
      ),
      badPage(1),
      m(
        'wrongKind',
        1,
        'not a user page',
        put((w) => ({ 1: w.a.leaf })),
      ),
      m('notPermitted', 2, 'the slot does not dominate entry 0 of the page', (args, w) => {
        const { a, b } = packName([1, 8, 1]);
        [args[1], args[2], args[3], args[4]] = [w.narrow, Slot.beside, a, b];
      }),
      m(
        'busy',
        1,
        'the page has leaves, pins or further entries',
        put((w) => ({ 1: w.mapped })),
      ),
    ],
  },
  envStart: {
    domains: ['env', 'other', 'other', 'other', 'other', 'slot'],
    valid: (w) => [w.child.id, 0, 0, 1, 2, Slot.full],
    accepts: { 3: WORDS, 4: WORDS },
    mistakes: [
      stale(0),
      m('badArgument', 1, 'no such image', set(1, 7)),
      m('badArgument', 2, 'no such entry', set(2, 99)),
      badWord(3),
      badWord(4),
      badSlot(5),
      ...overEnv(0, 5, (w) => w.b.id),
      m(
        'notReady',
        0,
        'it has been started',
        put((w) => ({ 0: w.runner.id, 5: Slot.full })),
      ),
    ],
  },
  envDestroy: {
    domains: ['env', 'slot', 'other'],
    valid: (w) => [w.runner.id, Slot.full, 7],
    accepts: { 2: WORDS },
    mistakes: [
      m(
        'badEnvironment',
        0,
        'no such environment, or dead',
        put((w) => ({ 0: w.zombie.id })),
      ),
      badSlot(1),
      badWord(2),
      ...overEnv(0, 1, (w) => w.b.id),
    ],
  },
  envReap: {
    domains: ['env', 'slot'],
    valid: (w) => [w.zombie.id, Slot.full],
    mistakes: [
      stale(0),
      badSlot(1),
      ...overEnv(0, 1, (w) => w.b.id),
      m(
        'notReady',
        0,
        'it is not dead',
        put((w) => ({ 0: w.runner.id, 1: Slot.full })),
      ),
      m(
        'busy',
        0,
        'its root has entries or views, requests are in flight, or a queue holds it',
        put((w) => ({ 0: w.crowded.id })),
      ),
    ],
  },
  upcallSet: {
    domains: ['other', 'other', 'other'],
    valid: () => [0, 1, PAGE_BYTES],
    accepts: { 1: [-1], 2: [2 ** 31] },
    mistakes: [
      m('badArgument', 0, 'not a kind', set(0, 3)),
      m('badArgument', 1, "not -1 nor an entry of the caller's image", set(1, 99)),
      m('badAddress', 2, 'not an aligned address', set(2, PAGE_BYTES + 2)),
    ],
  },
  pageAllocate: {
    domains: ['page', 'slot'],
    valid: (w) => [w.free, Slot.full],
    mistakes: [
      badPage(0),
      badSlot(1),
      m('noCapability', 1, 'the slot is empty', set(1, Slot.empty)),
      m('notPermitted', 1, 'the slot lacks a right', set(1, Slot.writer)),
      m(
        'notFree',
        0,
        'the page is taken',
        put((w) => ({ 0: w.own, 1: Slot.full })),
      ),
    ],
  },
  pageFree: {
    domains: ['page', 'slot'],
    valid: (w) => [w.own, Slot.full],
    mistakes: [
      ...ownedPage(0, 1),
      m(
        'busy',
        0,
        'the page has leaves or pins',
        put((w) => ({ 0: w.mapped, 1: Slot.full })),
      ),
    ],
  },
  accessAdd: {
    domains: ['page', 'slot', 'entry', 'other', 'other', 'other'],
    valid: (w) => [w.own, Slot.full, 1, NAME_B.a, NAME_B.b, READ],
    mistakes: [
      ...ownedPage(0, 1),
      m('badArgument', 2, 'not an access entry', set(2, 4)),
      badName(3),
      m('badArgument', 5, 'not a set of rights', set(5, 8)),
      m('occupied', 2, 'the access entry is filled', set(2, 0)),
    ],
  },
  accessRemove: {
    domains: ['page', 'slot', 'entry'],
    valid: (w) => [w.shared, Slot.full, 1],
    mistakes: [
      ...ownedPage(0, 1),
      m('badArgument', 2, 'not an access entry, or entry 0', set(2, 0)),
      m('absent', 2, 'the access entry is empty', set(2, 3)),
      m(
        'busy',
        2,
        'it justifies leaves, or the page has pins',
        put((w) => ({ 0: w.borrowed, 1: Slot.full, 2: 1 })),
      ),
    ],
  },
  tableCreate: {
    domains: ['page', 'index', 'page', 'slot', 'page', 'page', 'slot'],
    valid: (w) => [w.a.middle, 7, w.own, Slot.full, w.own2, w.own3, Slot.full],
    mistakes: [
      badPage(0),
      m(
        'wrongKind',
        0,
        'not a root or a middle table',
        put((w) => ({ 0: w.a.leaf })),
      ),
      m('badArgument', 1, 'not an index; of a root, of its lower half', set(1, 512)),
      badPage(2),
      m(
        'wrongKind',
        2,
        'not a user page',
        put((w) => ({ 2: w.a.leaf })),
      ),
      badSlot(3),
      m('noCapability', 3, 'the slot is empty', set(3, Slot.empty)),
      m('notPermitted', 3, 'it does not dominate entry 0 of the page', set(3, Slot.writer)),
      m('busy', 2, 'the page has leaves, pins or further entries', (args, w) => {
        [args[2], args[3]] = [w.mapped, Slot.full];
      }),
      badPage(4),
      m(
        'wrongKind',
        4,
        'not a user page',
        put((w) => ({ 4: w.a.leaf })),
      ),
      m('notPermitted', 3, 'it does not dominate entry 0 of ledger 0', (args, w) => {
        [args[2], args[3], args[4]] = [w.narrow, Slot.under, w.own2];
      }),
      m('busy', 4, 'ledger 0 has leaves, pins or further entries', (args, w) => {
        [args[2], args[3], args[4]] = [w.own, Slot.full, w.mapped];
      }),
      badPage(5),
      m(
        'wrongKind',
        5,
        'not a user page',
        put((w) => ({ 5: w.a.leaf })),
      ),
      m(
        'busy',
        5,
        'ledger 1 has leaves, pins or further entries',
        put((w) => ({ 5: w.mapped })),
      ),
      m(
        'badArgument',
        4,
        'ledger 0 is ledger 1 or the page',
        put((w) => ({ 2: w.own, 4: w.own })),
      ),
      m(
        'badArgument',
        5,
        'ledger 1 is the page',
        put((w) => ({ 2: w.own, 5: w.own })),
      ),
      badSlot(6),
      ...overEnv(0, 6, (w) => w.b.middle),
      m('occupied', 1, 'the entry is filled', (args, w) => {
        [args[0], args[1], args[6]] = [w.a.middle, 0, Slot.full];
      }),
    ],
  },
  tableDestroy: {
    domains: ['page', 'slot'],
    valid: (w) => [w.leaf2, Slot.full],
    mistakes: [
      badPage(0),
      noTable(0, 'not a leaf or a middle table'),
      badSlot(1),
      ...overEnv(0, 1, (w) => w.b.leaf),
      m(
        'busy',
        0,
        'the table has entries or views',
        put((w) => ({ 0: w.a.leaf, 1: Slot.full })),
      ),
    ],
  },
  pageMap: {
    domains: ['page', 'index', 'page', 'slot', 'entry', 'other', 'slot'],
    valid: (w) => [w.a.leaf, 310, w.own, Slot.full, 0, MAP_READ, Slot.full],
    mistakes: [
      ...leafAndEnv(6),
      badPage(2),
      m('badArgument', 5, 'not a set of flags, or without R', set(5, MAP_WRITE)),
      m(
        'wrongKind',
        2,
        'not a user, published or table page',
        put((w) => ({ 2: w.kernel })),
      ),
      m(
        'badArgument',
        3,
        'of a user page: not a slot',
        put((w) => ({ 2: w.shared, 3: 16 })),
      ),
      m(
        'badArgument',
        4,
        'not an access entry',
        put((w) => ({ 2: w.shared, 4: 4 })),
      ),
      m(
        'absent',
        4,
        'the access entry is empty',
        put((w) => ({ 2: w.shared, 4: 3 })),
      ),
      m('notPermitted', 3, 'the access entry lacks a right', (args, w) => {
        [args[2], args[4], args[5]] = [w.shared, 2, RW];
      }),
      m('noCapability', 3, 'the slot is empty', (args, w) => {
        [args[2], args[3], args[4]] = [w.own, Slot.empty, 0];
      }),
      m('notPermitted', 3, 'the slot lacks a right or does not dominate the entry', (args, w) => {
        [args[2], args[3], args[4], args[5]] = [w.own, Slot.reader, 0, RW];
      }),
      m(
        'notPermitted',
        5,
        'W, and not a user page',
        put((w) => ({ 2: w.published, 5: RW })),
      ),
      m('noCapability', 2, "another environment's table, and the slot is empty", (args, w) => {
        [args[0], args[2], args[5], args[6]] = [w.a.leaf, w.b.leaf, MAP_READ, Slot.empty];
      }),
      m('notPermitted', 2, 'the env slot does not dominate its guard', (args, w) => {
        [args[0], args[2], args[5], args[6]] = [w.a.leaf, w.b.leaf, MAP_READ, Slot.full];
      }),
      m('occupied', 1, 'the entry is filled', (args, w) => {
        [args[0], args[1], args[2]] = [w.a.leaf, Start.stackPage, w.own];
      }),
    ],
  },
  pageUnmap: {
    domains: ['page', 'index', 'other', 'slot'],
    valid: (w) => [w.a.leaf, 300, 1, Slot.full],
    mistakes: [
      ...leafAndEnv(3),
      m('badArgument', 2, 'below 1, or past the end of the table', set(2, 0)),
      m('tooMany', 2, `more than ${UNMAP_MAX}`, set(2, UNMAP_MAX + 1)),
    ],
  },
  pageProtect: {
    domains: ['page', 'index', 'other', 'slot'],
    valid: (w) => [w.a.leaf, 300, MAP_READ, Slot.full],
    mistakes: [
      ...leafAndEnv(3),
      m('badArgument', 2, 'not a set of flags, or without R', set(2, MAP_WRITE)),
      m('absent', 1, 'the entry is empty', set(1, 311)),
      m('notPermitted', 2, 'W is more than justifies the leaf', (args, w) => {
        [args[0], args[1], args[2], args[3]] = [w.a.leaf, 301, RW, Slot.full];
      }),
    ],
  },
  capForge: {
    domains: ['env', 'slot', 'slot', 'other', 'other', 'other'],
    valid: (w) => [w.a.id, Slot.forged, Slot.full, forged.a, forged.b, ALL_RIGHTS],
    mistakes: [
      stale(0),
      badSlot(1),
      badSlot(2),
      badName(3),
      m('badArgument', 5, 'not a set of rights', set(5, 0)),
      m('noCapability', 0, 'the environment is another and slot here is empty', (args, w) => {
        [args[0], args[2]] = [w.b.id, Slot.empty];
      }),
      m('notPermitted', 0, 'slot here does not dominate its guard with WRITE', (args, w) => {
        [args[0], args[2]] = [w.b.id, Slot.full];
      }),
      m('noCapability', 2, 'slot here is empty', (args, w) => {
        [args[0], args[2]] = [w.a.id, Slot.empty];
      }),
      m('notPermitted', 2, 'it does not dominate the name with the rights and GRANT', (args, w) => {
        [args[0], args[2]] = [w.a.id, Slot.under];
      }),
      m(
        'occupied',
        1,
        'slot there is filled',
        put(() => ({ 1: 0, 2: Slot.full })),
      ),
    ],
  },
  capDrop: {
    domains: ['slot'],
    valid: () => [Slot.spare],
    mistakes: [
      badSlot(0),
      m('noCapability', 0, 'the slot is empty', set(0, Slot.empty)),
      m('busy', 0, "it justifies leaves, or is the window's", set(0, Slot.full)),
    ],
  },
  sliceAllocate: {
    domains: ['other', 'env', 'slot'],
    valid: (w) => [2, w.a.id, Slot.full],
    mistakes: [
      m('badArgument', 0, 'not a position', set(0, 4)),
      stale(1),
      badSlot(2),
      ...overEnv(1, 2, (w) => w.b.id),
      m(
        'notFree',
        0,
        'a living environment holds it',
        put((w) => ({ 0: 0, 1: w.a.id })),
      ),
    ],
  },
  sliceFree: {
    domains: ['other', 'slot'],
    valid: () => [0, Slot.full],
    mistakes: [
      m('badArgument', 0, 'not a position', set(0, 4)),
      badSlot(1),
      m('absent', 0, 'nobody alive holds it', set(0, 2)),
      m('noCapability', 1, 'another holds it and the slot is empty', (args) => {
        [args[0], args[1]] = [1, Slot.empty];
      }),
      m('notPermitted', 1, "the slot does not dominate the holder's guard", (args) => {
        [args[0], args[1]] = [1, Slot.full];
      }),
    ],
  },
  ipcWindow: {
    domains: ['page', 'index', 'slot'],
    valid: (w) => [w.a.leaf, 400, Slot.full],
    mistakes: [
      badPage(0),
      noTable(0, 'not a leaf table'),
      m(
        'notPermitted',
        0,
        "not the caller's own",
        put((w) => ({ 0: w.b.leaf })),
      ),
      m('badArgument', 1, 'not an index', set(1, 512)),
      badSlot(2),
      m('noCapability', 2, 'the slot is empty', set(2, Slot.empty)),
    ],
  },
  ipcCall: {
    domains: ['env', 'other', 'other', 'other', 'other', 'page', 'slot', 'other'],
    valid: (w) => [w.server.id, 1, 2, 3, 4, w.own, Slot.full, given],
    waits: true,
    accepts: { 1: WORDS, 2: WORDS, 3: WORDS, 4: WORDS, 5: [-1] },
    mistakes: [
      m(
        'badEnvironment',
        0,
        'no such environment, or the caller',
        put((w) => ({ 0: w.a.id })),
      ),
      m(
        'notReady',
        0,
        'dead, or not started',
        put((w) => ({ 0: w.child.id })),
      ),
      ...[1, 2, 3, 4].map(badWord),
      ...grant,
      m(
        'notReady',
        0,
        'a page, and no window with an empty entry',
        put((w) => ({ 0: w.runner.id })),
      ),
      m('notReady', 0, 'a page, and it does not wait for a call', (args, w) => {
        [args[0], args[5], args[7]] = [w.deaf.id, w.own, given];
      }),
    ],
  },
  ipcReplyWait: {
    domains: ['env', 'other', 'other', 'other', 'other', 'page', 'slot', 'other'],
    valid: (w) => [w.client.id, 1, 2, 3, 4, w.own, Slot.full, given],
    waits: true,
    accepts: { 1: WORDS, 2: WORDS, 3: WORDS, 4: WORDS, 5: [-1] },
    mistakes: [
      stale(0),
      m(
        'notReady',
        0,
        'it has not called, or was not heard yet',
        put((w) => ({ 0: w.runner.id })),
      ),
      ...[1, 2, 3, 4].map(badWord),
      m('badArgument', 5, 'a page, and nobody to grant it to', set(0, -1)),
      ...grant,
      m('notReady', 0, 'a page, and no window with an empty entry', (args, w) => {
        [args[0], args[5], args[7]] = [w.bare.id, w.own, given];
      }),
    ],
  },
  extentSplit: {
    domains: ['other', 'slot', 'other', 'other', 'other', 'other'],
    valid: (w) => [w.a.extent, Slot.full, 4, 4, forged.a, forged.b],
    mistakes: [
      m('badArgument', 0, 'not a row', set(0, 6)),
      badSlot(1),
      m('badArgument', 2, 'not a row', set(2, 6)),
      m('badArgument', 3, 'below 1', set(3, 0)),
      badName(4),
      m('absent', 0, 'no such extent', set(0, 5)),
      m('noCapability', 1, 'the slot is empty', set(1, Slot.empty)),
      m('notPermitted', 1, 'it does not dominate the guard with all rights', set(1, Slot.writer)),
      m('notPermitted', 4, 'the slot does not dominate the new name', (args, w) => {
        [args[0], args[1], args[4], args[5]] = [w.a.extent, Slot.full, NAME_B.a, NAME_B.b];
      }),
      m('notFree', 2, 'the row is taken', set(2, 1)),
      m('tooMany', 3, 'as many as the extent has, or more', set(3, 16)),
    ],
  },
  diskRequest: {
    domains: ['other', 'slot', 'other', 'other', 'other', 'slot', 'other'],
    valid: (w) => [w.a.extent, Slot.full, 0, 1, List.good, Slot.full, 0],
    mistakes: [
      m('badArgument', 0, 'not a row', set(0, 6)),
      badSlot(1),
      m('badArgument', 6, 'not a set of flags', set(6, 8)),
      m('badArgument', 2, 'negative', set(2, -1)),
      m('badArgument', 3, 'below 1; of a flush, below 0', set(3, 0)),
      m('tooMany', 3, `more than ${DISK_BLOCKS_MAX}; of a flush, than 0`, set(3, 33)),
      m('absent', 0, 'no such extent', set(0, 5)),
      m('noCapability', 1, 'the slot is empty', set(1, Slot.empty)),
      m('notPermitted', 1, 'it does not dominate the guard, or lacks a right', (args) => {
        [args[1], args[6]] = [Slot.reader, DISK_WRITE];
      }),
      m('badArgument', 2, 'past the end of the extent', set(2, 16)),
      badSlot(5),
      m('badAddress', 4, 'the list cannot be read', set(4, UNMAPPED)),
      m('badArgument', 4, 'a word of it names no page or no entry', set(4, List.beyond)),
      m('wrongKind', 4, 'not a user page', set(4, List.table)),
      m('absent', 4, 'the access entry is empty', set(4, List.absent)),
      m('notPermitted', 5, 'the access entry lacks a right', (args) => {
        [args[4], args[6]] = [List.readOnly, 0];
      }),
      m('noCapability', 5, 'the slot is empty', (args) => {
        [args[4], args[5]] = [List.good, Slot.empty];
      }),
      m('notPermitted', 5, 'the slot lacks a right or does not dominate the entry', (args) => {
        [args[4], args[5], args[6]] = [List.good, Slot.reader, 0];
      }),
      {
        ...m('full', 0, 'no request more', (args) => {
          args[5] = Slot.full;
        }),
        prepare: ({ rig, a }) => {
          const list = SCRATCH + 24;
          for (let n = 0; n < DISK_TAGS; n++) {
            rig.call(a.row, 'diskRequest', a.extent, 0, 0, 1, list, 0, 0);
          }
        },
      },
    ],
  },
  // Of a refused batch the value is how many calls were performed, and those stay performed.
  batch: {
    domains: ['other', 'other'],
    valid: () => [BATCH, 1],
    performs: true,
    mistakes: [
      m('badArgument', 1, 'below 1', set(1, 0)),
      m('tooMany', 1, `more than ${BATCH_MAX}`, set(1, BATCH_MAX + 1)),
      m('badAddress', 0, 'a record cannot be read', set(0, UNMAPPED)),
      m('badCall', 0, 'a record is of no call, or of one that may wait', set(0, BATCH + 4)),
    ],
  },
  consoleWrite: {
    domains: ['other', 'other'],
    valid: () => [SCRATCH, 16],
    mistakes: [
      m('badArgument', 0, 'not an address', set(0, -1)),
      m('badArgument', 1, 'not a count', set(1, -1)),
      m('tooMany', 1, 'more than 4096', set(1, 4097)),
      m('badAddress', 0, 'the bytes cannot be read', set(0, UNMAPPED)),
    ],
  },
};
