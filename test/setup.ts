/**
 * Seeds every property test of a run, and prints the seed once, so that a failure can be had again:
 *
 *     EXOSCOPE_SEED=12345 npm test
 *
 * vitest loads this file twice over: in each test file for its effect, and once in a run for
 * `setup`, which prints.
 */
import * as fc from 'fast-check';

const SEED_DEFAULT = 20261123;

const seed = parseSeed(process.env['EXOSCOPE_SEED']);
fc.configureGlobal({ ...fc.readConfigureGlobal(), seed });

export function setup(): void {
  console.log(`property tests: EXOSCOPE_SEED=${seed}`);
}

/** A seed that is not a 32-bit integer is refused: silently running another one would mislead. */
function parseSeed(text: string | undefined): number {
  if (text === undefined || text === '') return SEED_DEFAULT;
  const value = Number(text);
  if (!Number.isInteger(value) || value !== (value | 0)) {
    throw new Error(`EXOSCOPE_SEED must be a 32-bit integer, not "${text}"`);
  }
  return value;
}
