/**
 * Every machine does what the hardware does: random supervisors see the same words, the same faults
 * with the same addresses, and the same A and D bits on all of them (HYP-06; and HYP-05: what should
 * be intercepted and is not would act on the host).
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { LONG } from '../tiers.ts';
import { MAKERS, type Maker } from './rigs.ts';
import { paravirtual, seen, steps } from './subject.ts';

const [hardware, ...others] = MAKERS as readonly [Maker, ...Maker[]];

describe('a random supervisor sees what it would see on the hardware', () => {
  test.each(others.map((maker) => [maker.name, maker] as const))('%s', (_name, maker) => {
    fc.assert(
      fc.property(maker.paravirtual ? steps.map(paravirtual) : steps, (list) => {
        expect(seen(maker.make, list)).toEqual(seen(hardware.make, list));
      }),
      { numRuns: LONG ? 1000 : 20 },
    );
  });
});
