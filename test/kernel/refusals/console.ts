/** Refusals of the console, and of batches of calls. */
import { BATCH_MAX } from '../../../kernel/abi.ts';
import { SCRATCH } from '../harness.ts';
import { m, set, type Tables } from './tables.ts';
import { BATCH, UNMAPPED } from './world.ts';

export const CONSOLE = {
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
  consoleRead: { domains: [], valid: () => [], mistakes: [] },
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
} satisfies Tables;
