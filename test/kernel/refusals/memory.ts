/** Refusals of the calls on memory: pages, their access entries, page tables. */
import {
  LIMIT_MAX,
  MAP_MAX,
  MAP_READ,
  MAP_WRITE,
  READ,
  Resource,
  Start,
  UNMAP_MAX,
} from '../../../kernel/abi.ts';
import { NAME_B } from '../harness.ts';
import {
  badName,
  badPage,
  badSlot,
  m,
  type Mistake,
  noTable,
  overEnv,
  ownedPage,
  put,
  set,
  type Tables,
} from './tables.ts';
import { List, RW, Slot, Sub, UNMAPPED } from './world.ts';

const leafAndEnv = (slot: number): Mistake[] => [
  badPage(0),
  noTable(0, 'not a leaf table'),
  m('badArgument', 1, 'not an index', set(1, 512)),
  badSlot(slot),
  ...overEnv(0, slot, (w) => w.b.leaf),
];

export const MEMORY = {
  pageAllocate: {
    domains: ['page', 'slot'],
    valid: (w) => [w.free, Slot.full],
    mistakes: [
      badPage(0),
      badSlot(1),
      m('noCapability', 1, 'the slot is empty', set(1, Slot.empty)),
      m('notPermitted', 1, 'the slot lacks a right', set(1, Slot.writer)),
      m('notPermitted', 1, "the account's name does not dominate its name", set(1, Slot.stray)),
      m(
        'notFree',
        0,
        'the page is taken',
        put((w) => ({ 0: w.own, 1: Slot.full })),
      ),
      {
        ...m(
          'quota',
          0,
          'the account has no page left, or owes it',
          put((w) => ({ 0: w.rig.raw.free() })),
        ),
        prepare: ({ rig, a }) => {
          // One is asked for, and spoken for.
          const rest = rig.raw.limit(1, Resource.pages) - rig.raw.used(1, Resource.pages) - 1;
          rig.must(a.row, 'accountMove', 1, Sub.ward, 0, Resource.pages, rest);
        },
      },
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
        'the page has leaves',
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
      m('badArgument', 5, 'not a set of rights', set(5, 16)),
      m('occupied', 2, 'the access entry is filled', set(2, 0)),
    ],
  },
  accessRemove: {
    domains: ['page', 'slot', 'entry'],
    valid: (w) => [w.shared, Slot.full, 1],
    mistakes: [
      ...ownedPage(0, 1),
      m('badArgument', 2, 'not an access entry', set(2, 4)),
      m('absent', 2, 'the access entry is empty', set(2, 3)),
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
      m('busy', 2, 'the page has leaves, pins or further entries, or is asked for', (args, w) => {
        [args[2], args[3]] = [w.wanted, Slot.full];
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
      m('busy', 4, 'ledger 0 has leaves, pins or further entries, or is asked for', (args, w) => {
        [args[2], args[3], args[4]] = [w.own, Slot.full, w.mapped];
      }),
      badPage(5),
      m(
        'wrongKind',
        5,
        'not a user page',
        put((w) => ({ 5: w.a.leaf })),
      ),
      m('notPermitted', 3, 'it does not dominate entry 0 of ledger 1', (args, w) => {
        [args[2], args[3], args[4], args[5]] = [w.narrow, Slot.under, w.narrow2, w.own3];
      }),
      m('busy', 5, 'ledger 1 has leaves, pins or further entries, or is asked for', (args, w) => {
        [args[2], args[3], args[4], args[5]] = [w.own, Slot.full, w.own2, w.mapped];
      }),
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
      m(
        'notPermitted',
        2,
        'the name of its account does not dominate the guard',
        put((w) => ({ 0: w.a.middle, 2: w.wards[0], 6: Slot.full })),
      ),
      m(
        'notPermitted',
        4,
        'the name of its account does not dominate the guard',
        put((w) => ({ 2: w.own, 4: w.wards[1] })),
      ),
      m(
        'notPermitted',
        5,
        'the name of its account does not dominate the guard',
        put((w) => ({ 4: w.own2, 5: w.wards[2] })),
      ),
      m('occupied', 1, 'the entry is filled', (args, w) => {
        [args[0], args[1], args[5]] = [w.a.middle, 0, w.own3];
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
        'the table has entries',
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
      m(
        'sharing',
        2,
        'more mappings than its limits allow',
        put((w) => ({ 1: 310, 2: w.exclusive })),
      ),
    ],
  },
  pageMapList: {
    domains: ['page', 'index', 'other', 'other', 'slot', 'other', 'slot'],
    valid: (w) => [w.a.leaf, 310, 1, List.good, Slot.full, MAP_READ, Slot.full],
    mistakes: [
      ...leafAndEnv(6),
      m('badArgument', 2, 'below 1, or past the end of the table', set(2, 0)),
      m('tooMany', 2, `more than ${MAP_MAX}`, set(2, MAP_MAX + 1)),
      m('badArgument', 5, 'not a set of flags, or without R', set(5, MAP_WRITE)),
      badSlot(4),
      m('badAddress', 3, 'the list cannot be read', set(3, UNMAPPED)),
      m('badArgument', 3, 'its first word names no page or no access entry', set(3, List.beyond)),
      m('wrongKind', 3, 'not a user page', set(3, List.table)),
      m('absent', 3, 'the access entry is empty', set(3, List.absent)),
      m('notPermitted', 4, 'the access entry lacks a right', (args) => {
        [args[3], args[5]] = [List.readOnly, RW];
      }),
      m('noCapability', 4, 'the slot is empty', (args) => {
        [args[3], args[4]] = [List.good, Slot.empty];
      }),
      m('notPermitted', 4, 'the slot lacks a right or does not dominate the entry', (args) => {
        [args[3], args[4], args[5]] = [List.good, Slot.reader, RW];
      }),
      m('occupied', 1, 'the entry is filled', (args, w) => {
        [args[0], args[1], args[4]] = [w.a.leaf, Start.stackPage, Slot.full];
      }),
      m('sharing', 3, 'more mappings than its limits allow', (args) => {
        [args[1], args[3]] = [310, List.exclusive];
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
    domains: ['page', 'index', 'other', 'other', 'slot'],
    valid: (w) => [w.a.leaf, 300, 1, MAP_READ, Slot.full],
    mistakes: [
      ...leafAndEnv(4),
      m('badArgument', 2, 'below 1, or past the end of the table', set(2, 0)),
      m('tooMany', 2, `more than ${MAP_MAX}`, set(2, MAP_MAX + 1)),
      m('badArgument', 3, 'not a set of flags, or without R', set(3, MAP_WRITE)),
      m('absent', 1, 'no entry is filled', set(1, 311)),
      m(
        'notPermitted',
        3,
        'of the first that is filled: W is more than justifies it',
        (args, w) => {
          [args[0], args[1], args[2], args[3], args[4]] = [w.a.leaf, 301, 1, RW, Slot.full];
        },
      ),
      m(
        'absent',
        3,
        'W, and its access entry is being taken away',
        put(() => ({ 1: 330, 3: RW })),
      ),
      m(
        'sharing',
        3,
        'W, and more writable mappings than its limits allow',
        put(() => ({ 1: 302, 3: RW })),
      ),
    ],
  },
  pageCopy: {
    domains: ['page', 'slot', 'entry', 'page', 'slot', 'entry'],
    valid: (w) => [w.own, Slot.full, 0, w.own2, Slot.full, 0],
    mistakes: [
      badPage(0),
      badSlot(1),
      m('badArgument', 2, 'not an access entry', set(2, 4)),
      m(
        'badArgument',
        3,
        'not a page, or the same',
        put((w) => ({ 0: w.own, 3: w.own })),
      ),
      badSlot(4),
      m('badArgument', 5, 'not an access entry', set(5, 4)),
      m(
        'wrongKind',
        0,
        'not a user page',
        put((w) => ({ 0: w.a.leaf })),
      ),
      m(
        'wrongKind',
        3,
        'not a user page',
        put((w) => ({ 3: w.a.middle })),
      ),
      m(
        'absent',
        2,
        'the access entry is empty',
        put((w) => ({ 0: w.shared, 2: 3 })),
      ),
      m(
        'notPermitted',
        1,
        'the access entry lacks WRITE',
        put((w) => ({ 0: w.shared, 2: 2 })),
      ),
      m(
        'noCapability',
        1,
        'the slot is empty',
        put((w) => ({ 0: w.own, 1: Slot.empty, 2: 0 })),
      ),
      m(
        'notPermitted',
        1,
        'the slot lacks WRITE or does not dominate the entry',
        put((w) => ({ 0: w.own, 1: Slot.reader, 2: 0 })),
      ),
      m(
        'absent',
        5,
        'the access entry is empty',
        put((w) => ({ 0: w.own, 1: Slot.full, 2: 0, 3: w.borrowed, 5: 3 })),
      ),
      m(
        'notPermitted',
        4,
        'the access entry lacks READ',
        put((w) => ({ 3: w.borrowed, 5: 2 })),
      ),
      m(
        'noCapability',
        4,
        'the slot is empty',
        put((w) => ({ 3: w.own2, 4: Slot.empty, 5: 0 })),
      ),
      m(
        'notPermitted',
        4,
        'the slot lacks READ or does not dominate the entry',
        put((w) => ({ 3: w.own2, 4: Slot.beside, 5: 0 })),
      ),
    ],
  },
  pageLimit: {
    domains: ['page', 'slot', 'other', 'other'],
    valid: (w) => [w.own, Slot.full, 1, 1],
    accepts: { 2: [-1], 3: [-1] },
    mistakes: [
      ...ownedPage(0, 1),
      m('badArgument', 2, 'not a limit', set(2, LIMIT_MAX + 1)),
      m('badArgument', 3, 'not a limit', set(3, -2)),
      m(
        'busy',
        2,
        'it has more mappings',
        put((w) => ({ 0: w.mapped, 1: Slot.full, 2: 0 })),
      ),
      m(
        'busy',
        3,
        'it has more writable ones',
        put((w) => ({ 0: w.mapped, 1: Slot.full, 2: 1, 3: 0 })),
      ),
    ],
  },
  pageKeep: {
    domains: ['page', 'slot', 'other'],
    valid: (w) => [w.own, Slot.full, 1],
    mistakes: [
      ...ownedPage(0, 1),
      m('badArgument', 2, 'not 0 or 1', set(2, 2)),
      m(
        'notPermitted',
        0,
        'charged to another account',
        put((w) => ({ 0: w.wards[0], 1: Slot.full, 2: 1 })),
      ),
      m(
        'busy',
        0,
        'it is asked for',
        put((w) => ({ 0: w.wanted, 2: 1 })),
      ),
      {
        ...m(
          'quota',
          2,
          'the account keeps as many as its minimum',
          put((w) => ({ 0: w.own3, 1: Slot.full })),
        ),
        prepare: ({ rig, a, own2 }) => {
          rig.must(a.row, 'pageKeep', own2, 0, 1);
        },
      },
    ],
  },
  pageSweep: {
    domains: ['page'],
    valid: (w) => [w.swept],
    mistakes: [
      badPage(0),
      m(
        'wrongKind',
        0,
        'not quarantined',
        put((w) => ({ 0: w.own })),
      ),
      m(
        'busy',
        0,
        'no mapping is left, and a device still reaches it',
        put((w) => ({ 0: w.gone })),
      ),
    ],
  },
} satisfies Tables;
