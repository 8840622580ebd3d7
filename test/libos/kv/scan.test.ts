/**
 * The law of scans: whatever is put and removed between the answers, a key that was there all the
 * time is given once, with the value that it had; no key is given twice, and no value is made up.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { KvStatus } from '../../../libos/kv/protocol.ts';
import { RamMedium } from '../../../machine/disk.ts';
import { bytes, client, text, world } from './rig.ts';

const KEYS = 60;
const keyOf = (n: number): string => `key ${String(n).padStart(3, '0')}`;

/** Between two answers: puts (even) and removals of keys; sometimes the session is lost. */
const gap = fc.record({
  acts: fc.array(fc.nat({ max: KEYS * 2 - 1 }), { maxLength: 8 }),
  forgotten: fc.boolean(),
});

test('between the answers anything may happen but to what was there all the time', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.nat({ max: KEYS - 1 }), { minLength: 1, maxLength: KEYS - 4 }),
      fc.array(gap, { minLength: 12, maxLength: 24 }),
      fc.nat({ max: KEYS }),
      (stable, gaps, from) => {
        const isStable = (n: number): boolean => stable.includes(n);
        const given: string[] = [];
        const had = new Map<string, Set<string>>(); // values since the scan began
        const { machine, said } = world({
          clients: [
            client(function* ({ kv }) {
              const now = new Map<string, string>();
              let count = 0;
              const put = function* (key: string) {
                const value = `${key} ${count++} `.padEnd(400, '.');
                expect(yield* kv.put(bytes(key), bytes(value))).toBe(KvStatus.ok);
                now.set(key, value);
                had.get(key)?.add(value);
              };
              expect(yield* kv.connect()).toBe(true);
              for (let n = 0; n < KEYS; n++) if (isStable(n) || n % 3 === 0) yield* put(keyOf(n));
              for (let n = 0; n < KEYS; n++) {
                const value = now.get(keyOf(n));
                had.set(keyOf(n), new Set(value === undefined ? [] : [value]));
              }
              let [cursor, isBehind, more] = [keyOf(from), false, true];
              for (let answer = 0; more; answer++) {
                const range = yield* kv.scan(bytes(cursor), bytes(''), isBehind);
                expect(range.status).toBe(KvStatus.ok);
                for (const { status, key, value } of range.pairs) {
                  expect(status).toBe(KvStatus.ok);
                  given.push(text(key));
                  expect([...(had.get(text(key)) ?? [])]).toContain(text(value));
                }
                [cursor, isBehind] = [given.at(-1) ?? cursor, given.length > 0];
                ({ more } = range);
                const { acts, forgotten } = gaps[answer % gaps.length] ?? {
                  acts: [],
                  forgotten: false,
                };
                for (const act of acts) {
                  const n = Math.floor(act / 2);
                  if (isStable(n)) continue;
                  if (act % 2 === 0) yield* put(keyOf(n));
                  else if (now.delete(keyOf(n))) yield* kv.remove(bytes(keyOf(n)));
                }
                if (forgotten) yield* kv.close();
              }
            }, 1),
          ],
        });
        machine.run(1e10);
        expect([...said.values()].join('')).toBe('');
        expect(given).toEqual([...new Set(given)].sort());
        const wanted = stable.filter((n) => n >= from).map(keyOf);
        expect(wanted.filter((key) => !given.includes(key))).toEqual([]);
      },
    ),
    { numRuns: 12 },
  );
});

test('a value that cannot be read is told in its place, and the scan goes on', () => {
  const statuses: [string, number, number][] = [];
  const medium = new RamMedium(258);
  let isBad = false;
  const read = medium.read.bind(medium);
  medium.read = (block, into) => {
    read(block, into);
    // Most blocks of the first segments: bits flip.
    if (isBad && block % 16 > 2 && block < 48) into.fill(0xff, 100, 200);
  };
  const { machine, said } = world({
    medium,
    store: { tenants: 1, frames: 8 },
    clients: [
      client(function* ({ kv }) {
        expect(yield* kv.connect()).toBe(true);
        for (let n = 0; n < KEYS; n++) {
          expect(yield* kv.put(bytes(keyOf(n)), new Uint8Array(6_000).fill(n))).toBe(KvStatus.ok);
        }
        isBad = true;
        let cursor = '';
        for (let more = true; more;) {
          const range = yield* kv.scan(bytes(cursor), bytes(''), cursor !== '');
          expect(range.status).toBe(KvStatus.ok);
          for (const { key, status, value } of range.pairs) {
            statuses.push([text(key), status, value.length]);
            if (status === KvStatus.ok)
              expect(new Set(value)).toEqual(new Set([statuses.length - 1]));
            cursor = text(key);
          }
          ({ more } = range);
        }
      }),
    ],
  });
  machine.run(1e10);
  expect([...said.values()].join('')).toBe('');
  expect(statuses.map(([key]) => key)).toEqual(Array.from({ length: KEYS }, (_, n) => keyOf(n)));
  const bad = statuses.filter(([, status]) => status === KvStatus.corrupt);
  expect(bad.length).toBeGreaterThan(5);
  expect(bad.every(([, , length]) => length === 0)).toBe(true);
  const good = statuses.filter(([, status, length]) => status === KvStatus.ok && length === 6_000);
  expect([good.length > 5, good.length + bad.length]).toEqual([true, KEYS]);
});
