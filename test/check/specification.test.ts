/**
 * The specification names the refusals of each call in the order in which the kernel makes them: its
 * guards are held to the same tables as the kernel is. It does not run in lock step with it yet.
 */
import { expect, test } from 'vitest';
import { Call } from '../../kernel/abi.ts';
import { CALLS } from '../../check/specification/specification.ts';
import { REFUSALS } from '../kernel/refusals/index.ts';

test('it has the calls of the interface, by number', () => {
  expect(CALLS.map(({ name }) => Call[name])).toEqual(CALLS.map((_, n) => n));
  expect(CALLS).toHaveLength(Object.keys(Call).length);
});

const text = ({ status, argument }: { status: string; argument: number }): string =>
  `${status} ${argument}`;

/** A batch's records are looked at as they are performed: that is its effect. */
const PERFORMED = ['badAddress 0', 'badCall 0'];

/** Their guards are put together otherwise than the tables: to be settled in lock step. */
const OPEN = ['envCreate', 'tableCreate', 'pageKeep', 'revoke'];

test.each(CALLS.filter(({ name }) => !OPEN.includes(name)))(
  '$name: its guards stand in the order of its refusals, and none is missing',
  ({ name, guards }) => {
    const due = REFUSALS[name].mistakes.map(text);
    const told = guards.map(text);
    // One guard may say two refusals in a row that blame the same; never in another order.
    let at = 0;
    for (const one of due) if (told[at] === one) at++;
    const left = told.slice(at).filter((one, n) => one !== told[at + n - 1]);
    expect(left, 'guards out of order').toEqual([]);
    const missing = due.filter((one) => !told.includes(one));
    expect(name === 'batch' ? missing.filter((one) => !PERFORMED.includes(one)) : missing).toEqual(
      [],
    );
  },
);
