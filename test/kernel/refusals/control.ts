/** Refusals of protected control transfer: windows, calls, and replies. */
import { READ, WRITE } from '../../../kernel/abi.ts';
import {
  badPage,
  badSlot,
  badWord,
  m,
  type Mistake,
  noTable,
  put,
  set,
  stale,
  type Tables,
  WORDS,
} from './tables.ts';
import { Slot } from './world.ts';

const given = READ | (1 << 8);
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
  m(
    'sharing',
    7,
    "more mappings than the page's limits allow",
    put((w) => ({ 5: w.exclusive, 7: READ | (1 << 8) })),
  ),
];

export const CONTROL = {
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
  ipcSend: {
    domains: ['env', 'other', 'other', 'other', 'other', 'page', 'slot', 'other'],
    valid: (w) => [w.server.id, 1, 2, 3, 4, w.own, Slot.full, given],
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
        'it does not wait for a call',
        put((w) => ({ 0: w.deaf.id })),
      ),
      ...[1, 2, 3, 4].map(badWord),
      ...grant,
      m(
        'notReady',
        0,
        'a page, and no window with an empty entry',
        put((w) => ({ 0: w.mute.id })),
      ),
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
} satisfies Tables;
