/** Refusals of the calls on processor time: giving it away, waiting, waking, slices. */
import { badSlot, m, overEnv, put, set, stale, type Tables } from './tables.ts';
import { Slot, Term, UNMAPPED } from './world.ts';

export const CPU = {
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
    domains: ['other', 'other', 'other', 'other'],
    valid: () => [12_345, -1, Term.good, 1],
    accepts: { 0: [-1, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 60)], 1: [-1] },
    mistakes: [
      m('badArgument', 0, 'not an integer', set(0, 1.5)),
      m('badArgument', 1, 'not -1, nor 0 to 2^31 - 1', set(1, -2)),
      m('badArgument', 3, 'negative', set(3, -1)),
      m('tooMany', 3, 'more than 8', set(3, 9)),
      m('badAddress', 2, 'a term cannot be read', set(2, UNMAPPED)),
      m('badArgument', 2, 'a term names no page, word, entry or operator', set(2, Term.beyond)),
      m('wrongKind', 2, 'its page is neither a published nor a user page', set(2, Term.table)),
      m('absent', 2, 'the access entry is empty', set(2, Term.absent)),
      m('notPermitted', 2, 'the access entry lacks READ', set(2, Term.writeOnly)),
      m('noCapability', 2, 'the slot is empty', set(2, Term.empty)),
      m(
        'notPermitted',
        2,
        'the slot lacks READ or does not dominate the entry',
        set(2, Term.foreign),
      ),
    ],
  },
  notify: {
    domains: ['env', 'slot'],
    valid: (w) => [w.runner.id, Slot.full],
    mistakes: [stale(0), badSlot(1), ...overEnv(0, 1, (w) => w.b.id)],
  },
  sliceAllocate: {
    domains: ['other', 'env', 'slot'],
    valid: (w) => [2, w.a.id, Slot.full],
    mistakes: [
      m('badArgument', 0, 'not a position', set(0, 4)),
      m(
        'badEnvironment',
        1,
        'no such environment, or dead',
        put((w) => ({ 1: w.zombie.id })),
      ),
      badSlot(2),
      ...overEnv(1, 2, (w) => w.b.id),
      m(
        'notFree',
        0,
        'a living environment holds it',
        put((w) => ({ 0: 0, 1: w.a.id })),
      ),
      m(
        'quota',
        1,
        'its account has no position left',
        put((w) => ({ 1: w.poor })),
      ),
    ],
  },
  sliceFree: {
    domains: ['other', 'slot'],
    valid: () => [0, Slot.full],
    mistakes: [
      m('badArgument', 0, 'not a position', set(0, 4)),
      badSlot(1),
      m('absent', 0, 'nobody holds it', set(0, 2)),
      m('noCapability', 1, 'another, alive, holds it and the slot is empty', (args) => {
        [args[0], args[1]] = [1, Slot.empty];
      }),
      m('notPermitted', 1, "the slot does not dominate the holder's guard with WRITE", (args) => {
        [args[0], args[1]] = [1, Slot.full];
      }),
    ],
  },
} satisfies Tables;
