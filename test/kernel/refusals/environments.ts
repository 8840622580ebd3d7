/** Refusals of the calls on environments: their life, and where their upcalls go. */
import { packName, UPCALL_KINDS } from '../../../kernel/abi.ts';
import { PAGE_BYTES } from '../../../machine/units.ts';
import {
  badName,
  badPage,
  badSlot,
  badWord,
  forged,
  m,
  overEnv,
  put,
  set,
  stale,
  type Tables,
  WORDS,
} from './tables.ts';
import { Slot, Sub } from './world.ts';

export const ENVIRONMENTS = {
  envCreate: {
    domains: ['other', 'page', 'slot', 'other', 'other', 'env', 'other'],
    valid: (w) => [w.rig.raw.freeRow(), w.own, Slot.full, forged.a, forged.b, -1, -1],
    accepts: { 5: [-1], 6: [-1] },
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
        'the page has leaves, pins or further entries, or is asked for',
        put((w) => ({ 1: w.mapped, 2: Slot.full, 3: forged.a, 4: forged.b })),
      ),
      m(
        'badArgument',
        6,
        'no such account',
        put((w) => ({ 1: w.own, 6: Sub.none })),
      ),
      m(
        'notPermitted',
        6,
        'another account, whose name the slot does not dominate with WRITE',
        set(6, 2),
      ),
      m('notPermitted', 6, "the account's name does not dominate the given one", set(6, Sub.ward)),
      m(
        'notPermitted',
        1,
        "the name of the page's account does not dominate it",
        put((w) => ({ 1: w.wards[0], 6: -1 })),
      ),
      m('quota', 6, 'the account has no row left', (args, w) => {
        const { a, b } = packName([1, 3, 1]);
        [args[1], args[3], args[4], args[6]] = [w.own, a, b, Sub.idle];
      }),
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
        'its root has entries, or requests are in flight',
        put((w) => ({ 0: w.crowded.id })),
      ),
    ],
  },
  envSuspend: {
    domains: ['env', 'slot', 'other'],
    valid: (w) => [w.runner.id, Slot.full, 1],
    mistakes: [
      m(
        'badEnvironment',
        0,
        'no such environment, or dead',
        put((w) => ({ 0: w.zombie.id })),
      ),
      badSlot(1),
      m('badArgument', 2, 'not 0 or 1', set(2, 2)),
      ...overEnv(0, 1, (w) => w.b.id),
    ],
  },
  upcallSet: {
    domains: ['other', 'other', 'other'],
    valid: () => [0, 1, PAGE_BYTES],
    accepts: { 1: [-1], 2: [2 ** 31] },
    mistakes: [
      m('badArgument', 0, 'not a kind', set(0, UPCALL_KINDS)),
      m('badArgument', 1, "not -1 nor an entry of the caller's image", set(1, 99)),
      m('badAddress', 2, 'not an aligned address', set(2, PAGE_BYTES + 2)),
    ],
  },
} satisfies Tables;
