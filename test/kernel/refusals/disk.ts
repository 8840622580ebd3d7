/** Refusals of the calls on the disk: extents and requests. */
import { DISK_BLOCKS_MAX, DISK_WRITE, LOSSES, packName } from '../../../kernel/abi.ts';
import { DISK_TAGS } from '../../../kernel/exokernel/state.ts';
import { NAME_B, SCRATCH } from '../harness.ts';
import { badName, badSlot, forged, m, type Mistake, set, type Tables } from './tables.ts';
import { List, Quiet, Slot, UNMAPPED } from './world.ts';

const ROWS = 12; // of the extent table
const FREE = 10; // of them, like the next
const badExtent = (argument: number): Mistake =>
  m('badArgument', argument, 'not a row, or stale', set(argument, ROWS));

export const DISK = {
  extentSplit: {
    domains: ['other', 'slot', 'other', 'other', 'other', 'other'],
    valid: () => [Quiet.left, Slot.full, FREE, 2, forged.a, forged.b],
    mistakes: [
      badExtent(0),
      badSlot(1),
      badExtent(2),
      m('badArgument', 3, 'below 1', set(3, 0)),
      badName(4),
      m('absent', 0, 'no such extent', set(0, FREE)),
      m('noCapability', 1, 'the slot is empty', set(1, Slot.empty)),
      m('notPermitted', 1, 'it does not dominate the guard with all rights', set(1, Slot.writer)),
      m('notPermitted', 4, 'the slot does not dominate the new name', (args) => {
        [args[0], args[1], args[4], args[5]] = [Quiet.left, Slot.full, NAME_B.a, NAME_B.b];
      }),
      m('notFree', 2, 'the row is taken', set(2, 1)),
      m('busy', 0, 'transfers are in flight', (args, w) => {
        args[0] = w.a.extent;
      }),
      m('tooMany', 3, 'as many as the extent has, or more', (args) => {
        args.splice(0, 2, Quiet.left, Slot.full);
        args.splice(3, 3, 4, forged.a, forged.b);
      }),
      m('notPermitted', 4, "the account's name does not dominate the new name", (args, w) => {
        [args[0], args[1], args[3]] = [w.b.extent, Slot.stray, 1];
        [args[4], args[5]] = [NAME_B.a, NAME_B.b];
      }),
      {
        ...m('quota', 2, 'the account has no extent left', (args) => {
          [args[0], args[2], args[3]] = [Quiet.right, FREE + 1, 1];
        }),
        prepare: () => undefined, // the valid call took the last
      },
    ],
  },
  extentJoin: {
    domains: ['other', 'slot', 'other'],
    valid: () => [Quiet.left, Slot.full, Quiet.right],
    mistakes: [
      badExtent(0),
      badSlot(1),
      badExtent(2),
      m('absent', 0, 'no such extent', set(0, FREE)),
      m('noCapability', 1, 'the slot is empty', set(1, Slot.empty)),
      m('notPermitted', 1, 'it does not dominate the guard with all rights', set(1, Slot.writer)),
      m('absent', 2, 'no such extent', set(2, FREE)),
      m('notPermitted', 2, "the slot does not dominate the neighbour's guard", (args, w) => {
        args[2] = w.b.extent;
      }),
      m('badArgument', 2, 'it does not begin where the extent ends', (args, w) => {
        args[2] = w.a.extent;
      }),
      m('busy', 0, 'transfers are in flight', (args, w) => {
        [args[0], args[2]] = [w.a.extent, Quiet.left];
      }),
      {
        ...m('busy', 2, 'transfers are in flight', () => undefined),
        prepare: ({ rig, a }) => {
          const name = packName([1]);
          const { left, right } = Quiet;
          rig.must(a.row, 'extentSplit', left, 0, right, 4, name.a, name.b);
          rig.must(a.row, 'diskRequest', right, 0, 0, 1, List.pinned, 0, 0);
        },
      },
    ],
  },
  saveBlock: {
    domains: ['other', 'other', 'slot', 'other'],
    valid: (w) => [0, w.a.extent, Slot.full, 3],
    accepts: { 1: [-1] },
    mistakes: [
      m('badArgument', 0, 'not a place', set(0, LOSSES)),
      m('badArgument', 1, 'neither -1 nor a row, or stale', set(1, ROWS)),
      badSlot(2),
      m('badArgument', 3, 'negative', set(3, -1)),
      m('noCapability', 2, 'the slot is empty', set(2, Slot.empty)),
      m(
        'notPermitted',
        2,
        "it does not dominate the account's name with READ and WRITE",
        set(2, Slot.reader),
      ),
      m('absent', 1, 'no such extent', set(1, FREE)),
      m('notPermitted', 1, "the account's name does not dominate the guard", (args, w) => {
        args[1] = w.b.extent;
      }),
      m('badArgument', 3, 'past the end of the extent', set(3, 4)),
    ],
  },
  diskRequest: {
    domains: ['other', 'slot', 'other', 'other', 'other', 'slot', 'other'],
    valid: (w) => [w.a.extent, Slot.full, 0, 1, List.good, Slot.full, 0],
    mistakes: [
      badExtent(0),
      badSlot(1),
      m('badArgument', 6, 'not a set of flags', set(6, 8)),
      m('badArgument', 2, 'negative', set(2, -1)),
      m('badArgument', 3, 'below 1; of a flush, below 0', set(3, 0)),
      m('tooMany', 3, `more than ${DISK_BLOCKS_MAX}; of a flush, than 0`, set(3, 33)),
      m('absent', 0, 'no such extent', set(0, FREE)),
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
        ...m('full', 0, 'the account has no request left', (args) => {
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
} satisfies Tables;
