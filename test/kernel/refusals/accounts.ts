/** Refusals of the calls on accounts: who pays, and what is taken back. */
import { ACCOUNTS, LOSSES, Resource, RESOURCES } from '../../../kernel/abi.ts';
import { DEADLINE_MIN } from '../../../kernel/exokernel/revocation.ts';
import { NAME_A } from '../harness.ts';
import { badName, badPage, badSlot, forged, m, put, set, type Tables } from './tables.ts';
import { Slot, Sub, type World, WORLD_PAGES } from './world.ts';

const [A, B] = [1, 2]; // accounts of the tenants

export const ACCOUNTING = {
  accountCreate: {
    domains: ['other', 'other', 'slot', 'other', 'other', 'other'],
    valid: () => [Sub.none, A, Slot.full, forged.a, forged.b, 0],
    mistakes: [
      m('badArgument', 0, 'not a row', set(0, ACCOUNTS)),
      m('badArgument', 1, 'no such account', set(1, Sub.none)),
      badSlot(2),
      badName(3),
      m('badArgument', 5, 'negative, or beyond the machine', set(5, WORLD_PAGES + 1)),
      m('notFree', 0, 'the row is taken', set(0, Sub.ward)),
      m('noCapability', 2, 'the slot is empty', set(2, Slot.empty)),
      m(
        'notPermitted',
        2,
        "it does not dominate the parent's name with all rights",
        set(2, Slot.writer),
      ),
      m('notPermitted', 3, "the parent's name is not a proper prefix", (args) => {
        [args[2], args[3], args[4]] = [Slot.full, NAME_A.a, NAME_A.b];
      }),
    ],
  },
  accountMove: {
    domains: ['other', 'other', 'slot', 'other', 'other'],
    valid: () => [A, Sub.ward, Slot.full, Resource.pages, 1],
    mistakes: [
      m('badArgument', 0, 'no such account', set(0, Sub.none)),
      m(
        'badArgument',
        1,
        'no such account, or the same',
        put(() => ({ 0: A, 1: A })),
      ),
      badSlot(2),
      m('badArgument', 3, 'not a resource', set(3, RESOURCES)),
      m('badArgument', 4, 'below 1', set(4, 0)),
      m('noCapability', 2, 'the slot is empty', set(2, Slot.empty)),
      m(
        'notPermitted',
        2,
        'it does not dominate the name of `from` with REVOKE',
        set(2, Slot.writer),
      ),
      m(
        'quota',
        4,
        'more than `from` has left, or, of pages, than is above its minimum',
        (args) => {
          [args[2], args[4]] = [Slot.full, WORLD_PAGES];
        },
      ),
    ],
  },
  accountClose: {
    domains: ['other', 'slot'],
    valid: () => [Sub.idle, Slot.full],
    mistakes: [
      m('badArgument', 0, 'no such account, or the reserve', set(0, 0)),
      badSlot(1),
      m('noCapability', 1, 'the slot is empty', set(1, Slot.empty)),
      m('notPermitted', 1, 'it does not dominate the name with all rights', set(1, Slot.writer)),
      m(
        'busy',
        0,
        'it has children, something is charged to it, or a revocation from it or in its favour ' +
          'is under way',
        put(() => ({ 0: Sub.ward, 1: Slot.full })),
      ),
    ],
  },
  revoke: {
    domains: ['other', 'slot', 'other', 'page', 'other', 'other', 'other'],
    valid: () => [Sub.ward, Slot.full, A, 0, WORLD_PAGES, 1, DEADLINE_MIN],
    mistakes: [
      m('badArgument', 0, 'no such account, or the reserve', set(0, 0)),
      badSlot(1),
      m(
        'badArgument',
        2,
        'no such account, or the same',
        put(() => ({ 0: Sub.ward, 2: Sub.ward })),
      ),
      badPage(3),
      m('badArgument', 4, 'below 1, or past the last page', set(4, WORLD_PAGES + 1)),
      m('badArgument', 5, 'negative', set(5, -1)),
      m('tooMany', 5, `more than ${LOSSES}`, set(5, LOSSES + 1)),
      m('badArgument', 6, 'below 10,000, or beyond 2^31 - 1', set(6, DEADLINE_MIN - 1)),
      m('noCapability', 1, 'the slot is empty', set(1, Slot.empty)),
      m(
        'notPermitted',
        1,
        "it does not dominate the name of the account's parent with REVOKE",
        set(1, Slot.under),
      ),
      m(
        'notPermitted',
        2,
        "it does not dominate the taker's name with REVOKE",
        put(() => ({ 1: Slot.full, 2: B })),
      ),
      m(
        'busy',
        0,
        'it is being asked already',
        put(() => ({ 0: Sub.pending, 2: A })),
      ),
      m(
        'quota',
        5,
        'more than it uses and does not keep, or than its allotment is above the minimum',
        put(() => ({ 0: Sub.ward, 5: LOSSES })),
      ),
    ],
  },
  repossess: {
    domains: ['other', 'slot', 'page'],
    valid: (w) => [Sub.asked, Slot.full, first(w)],
    mistakes: [
      m('badArgument', 0, 'no such account, or the reserve', set(0, 0)),
      badSlot(1),
      m('noCapability', 1, 'the slot is empty', set(1, Slot.empty)),
      m(
        'notPermitted',
        1,
        "it does not dominate the name of the account's parent with REVOKE",
        set(1, Slot.under),
      ),
      m(
        'absent',
        0,
        'nothing is wanted of it',
        put(() => ({ 0: Sub.ward, 1: Slot.full })),
      ),
      m('notReady', 0, 'the deadline has not passed', set(0, Sub.pending)),
      badPage(2),
      m(
        'wrongKind',
        2,
        'not a user page',
        put((w) => ({ 0: Sub.asked, 2: w.a.leaf })),
      ),
      m(
        'notPermitted',
        2,
        'charged to another account, outside what was asked for, or kept',
        put((w) => ({ 0: Sub.asked, 2: w.kept })),
      ),
      {
        ...m(
          'full',
          2,
          'its save block cannot be written now',
          put((w) => ({ 2: w.due.at(-1) ?? NaN })),
        ),
        prepare: ({ rig, a, due }) => {
          for (const page of due.slice(1, -1)) {
            rig.must(a.row, 'repossess', Sub.asked, Slot.full, page);
          }
        },
      },
    ],
  },
} satisfies Tables;

const first = ({ due }: World): number => due[0] ?? NaN;
