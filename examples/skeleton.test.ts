/** Skeleton prints the same in every mode. */
import { describe, expect, test } from 'vitest';
import { runMode } from '../lab/author/run.ts';
import { MODES } from '../lab/modes.ts';
import libos from './skeleton.ts';

describe('skeleton', () => {
  test.each(MODES)('prints what it should: %s', (mode) => {
    const { tenants } = runMode(
      {
        mode,
        tenants: 2, // side by side, where the mode protects them from each other
        memory: 256, // pages each
        slice: 100_000, // cycles
        seed: 1,
        limit: 1e9, // cycles
        revocation: null, // or { pages: 4, at: 300_000, deadline: 200_000 }
      },
      [libos],
      [],
    );
    for (const { output, account } of tenants) {
      expect({ output, account }).toEqual({
        output: 'skeleton: the sum is 499500\n',
        account: [], // what befell it, if it failed
      });
    }
  });
});
