/**
 * What runs have reached: each call's success, and each refusal of docs/ABI.md. A generator that
 * never succeeds, or is never refused, finds nothing.
 */
import { CALL_NAMES } from './follower.ts';
import type { Tally } from './lockstep.ts';

/** A row of a call's refusals, as the tally counts it. */
export interface Row {
  readonly call: string;
  readonly key: string;
}

/** Rows that random programs do not reach, and why. All others are owed. */
export const EXCEPTIONS: ReadonlyMap<string, string> = new Map([
  [
    'repossess full 2',
    'seven saves must be in flight at once, and these tenants lose a page at a time; ' +
      'the refusal tables, which run in lock step too, provoke it',
  ],
]);

/** The refusals of docs/ABI.md, of each call in order; one that stands twice is one row. */
export function refusalsOf(abi: string): Row[] {
  const rows = abi.split(/^## /m).flatMap((section) => {
    const call = /^(\w+) \(\d+\)\n/.exec(section)?.[1];
    if (call === undefined) return [];
    return [...section.matchAll(/^\d+\. `(\w+)` \((\d)\): /gm)].map(
      ([, status = '', argument = '']) =>
        call === 'batch' ? `${call} ${status}` : `${call} ${status} ${argument}`,
    );
  });
  return [...new Set(rows)].map((key) => ({ call: key.split(' ')[0] ?? '', key }));
}

export const successes = (tally: Tally, call: string): number =>
  (tally.answers.get(`${call} ok`) ?? 0) + (tally.answers.get(`${call} again`) ?? 0);

/** Calls that never succeeded and rows that were never reached, but for the exceptions. */
export function unreached(tally: Tally, rows: readonly Row[]): string[] {
  return [
    ...CALL_NAMES.filter((call) => successes(tally, call) === 0).map((call) => `${call} ok`),
    ...rows.map(({ key }) => key).filter((key) => !tally.answers.has(key)),
  ].filter((key) => !EXCEPTIONS.has(key));
}

/** A line for each call: how often it succeeded, and how often each refusal was reached. */
export function coverageTable(tally: Tally, rows: readonly Row[]): string {
  const width = Math.max(...CALL_NAMES.map((name) => name.length));
  return CALL_NAMES.map((call) => {
    const told = rows
      .filter((row) => row.call === call)
      .map(({ key }) => `${key.slice(call.length + 1)} ×${tally.answers.get(key) ?? 0}`);
    const ok = String(successes(tally, call)).padStart(8);
    return `${call.padEnd(width)} ${ok}  ${told.join(', ')}`.trimEnd();
  }).join('\n');
}
