/** What is typed at a channel: an event for its tenant alone, and the bytes, once, in order. */
import { afterEach, expect, test } from 'vitest';
import { Env, Status } from '../../kernel/abi.ts';
import { type Home, Rig } from './harness.ts';
import { audit } from './invariants.ts';

let rig: Rig;
afterEach(() => {
  expect(audit(rig.raw, undefined, true)).toEqual([]);
});
const events = ({ row }: Home): number => rig.raw.env(row, Env.events);

test('is an event for the first environment of the channel, which takes it in pieces', () => {
  rig = new Rig();
  const { a, b } = rig;
  const before = [a, b].map(events);
  rig.machine.type(2, new TextEncoder().encode('abcdefghijklmnopqr'));
  rig.run(50_000);
  expect([a, b].map(events)).toEqual([before[0], (before[1] ?? 0) + 1]);

  const word = (text: string): number =>
    [...text].reduceRight((sum, letter) => sum * 256 + letter.charCodeAt(0), 0);
  const read = (home: Home): [number, number, readonly number[]] => {
    const { status, value, message } = rig.call(home.row, 'consoleRead');
    return [status, value, message.slice(0, 4)];
  };
  expect(read(a).slice(0, 2)).toEqual([Status.ok, 0]);
  const words = ['abcd', 'efgh', 'ijkl', 'mnop'].map(word);
  expect(read(b)).toEqual([Status.ok, 16, words]);
  expect(read(b)).toEqual([Status.ok, 2, [word('qr'), 0, 0, 0]]);
  expect(read(b)).toEqual([Status.ok, 0, [0, 0, 0, 0]]);
});
