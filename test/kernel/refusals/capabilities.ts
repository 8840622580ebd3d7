/** Refusals of the calls on capabilities. */
import { ALL_RIGHTS, READ } from '../../../kernel/abi.ts';
import { badName, badSlot, forged, m, put, set, stale, type Tables } from './tables.ts';
import { Slot } from './world.ts';

export const CAPABILITIES = {
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
    domains: ['env', 'slot', 'slot'],
    valid: (w) => [w.a.id, Slot.spare, Slot.full],
    mistakes: [
      stale(0),
      badSlot(1),
      badSlot(2),
      m('noCapability', 0, 'the environment is another and slot here is empty', (args, w) => {
        [args[0], args[2]] = [w.b.id, Slot.empty];
      }),
      m('notPermitted', 0, 'slot here does not dominate its guard with WRITE', (args, w) => {
        [args[0], args[2]] = [w.b.id, Slot.full];
      }),
      m(
        'noCapability',
        1,
        'slot there is empty',
        put((w) => ({ 0: w.a.id, 1: Slot.empty })),
      ),
      m('busy', 1, 'it justifies leaves', set(1, Slot.full)),
    ],
  },
  capOffer: {
    domains: ['env', 'slot', 'other', 'other', 'other'],
    valid: (w) => [w.b.id, Slot.full, forged.a, forged.b, READ],
    mistakes: [
      stale(0),
      badSlot(1),
      badName(2),
      m('badArgument', 4, 'not a set of rights', set(4, 0)),
      m('noCapability', 1, 'the slot is empty', set(1, Slot.empty)),
      m(
        'notPermitted',
        1,
        'it does not dominate the name with the rights and GRANT',
        set(1, Slot.reader),
      ),
    ],
  },
  capAcquire: {
    domains: ['env', 'slot'],
    valid: (w) => [w.runner.id, Slot.forged],
    mistakes: [
      m(
        'badEnvironment',
        0,
        'no such environment, or dead',
        put((w) => ({ 0: w.zombie.id })),
      ),
      badSlot(1),
      m(
        'absent',
        0,
        'it offers the caller nothing, or may not any more',
        put((w) => ({ 0: w.deaf.id })),
      ),
      m(
        'occupied',
        1,
        'the slot is filled',
        put((w) => ({ 0: w.runner.id, 1: Slot.full })),
      ),
    ],
  },
} satisfies Tables;
