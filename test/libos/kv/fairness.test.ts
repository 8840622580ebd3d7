/**
 * More who want than there is: sessions, window pages, room on the disk. Who is modest gets its
 * part, whatever the others do, and everybody gets on.
 */
import { expect, test } from 'vitest';
import { BUFFER_PAGES_MAX, KvStatus, PROTOCOL } from '../../../libos/kv/protocol.ts';
import { SESSIONS } from '../../../libos/kv/sessions.ts';
import { type Around, bytes, client, type Program, text, world } from './rig.ts';
import type { Op } from '../../../libos/libos.ts';

const HOG = 99; // a tenant of many environments

/** Puts its own name under it, and gets it again and again; it never closes its session. */
const loyal = (name: string, rounds: number, done: Set<string>): Program =>
  function* ({ kv, sys }) {
    expect(yield* kv.connect()).toBe(true);
    expect(yield* kv.put(bytes(name), bytes(name))).toBe(KvStatus.ok);
    for (let n = 0; n < rounds; n++) {
      const { status, value } = yield* kv.get(bytes(name));
      expect([name, status, text(value)]).toEqual([name, KvStatus.ok, name]);
      if (n % 3 === 0) yield* sys.yieldTo(-1);
    }
    done.add(name);
  };

/** Asks for its key without ever making a session anew: whether it is told that it has none. */
function* isForgotten({ sys, server }: Around): Op<boolean> {
  const { words } = yield* sys.ipcCall(server, [PROTOCOL.get.number, 4]);
  return words[0] === KvStatus.noSession;
}

test('more tenants than sessions: all are served, for a term at least, though nobody closes', () => {
  const count = SESSIONS + 8;
  const done = new Set<number>();
  const short: number[] = []; // terms that were
  const clients = Array.from({ length: count }, (_, n) =>
    client(function* (around) {
      const { kv, sys } = around;
      let [served, terms] = [0, 0];
      while (served < 48) {
        expect(yield* kv.connect()).toBe(true);
        expect(yield* kv.put(bytes('name'), bytes(`${n}`))).toBe(KvStatus.ok);
        // Others come in between after every request.
        let term = 1;
        while (served < 48 && !(yield* isForgotten(around))) {
          [term, served] = [term + 1, served + 1];
          yield* sys.yieldTo(-1);
        }
        if (served < 48 && term < 16) short.push(term);
        terms++;
      }
      expect(terms).toBeLessThan(5);
      done.add(n);
      while (done.size < count) yield* sys.yieldTo(-1);
    }),
  );
  const { machine, said } = world({ clients, store: { tenants: 64 }, blocks: 512 });
  machine.run(1e11, () => done.size === count);
  expect([...said.values()].join('')).toBe('');
  expect([done.size, short]).toEqual([count, []]);
});

test.each([
  ['sessions', SESSIONS + 4, 1],
  ['window pages', 18, BUFFER_PAGES_MAX],
])('a tenant of many environments takes %s from itself, not from others', (_, count, pages) => {
  const done = new Set<string>();
  let modest = 0;
  let forgotten = 0;
  const many = Array.from({ length: count }, (_, n) => client(loyal(`hog ${n}`, 60, done), pages));
  const others = Array.from({ length: 3 }, (_, n) =>
    client(function* (around) {
      const { kv, sys } = around;
      expect(yield* kv.connect()).toBe(true);
      expect(yield* kv.put(bytes('name'), bytes(`modest ${n}`))).toBe(KvStatus.ok);
      for (let round = 0; round < 60; round++) {
        if (yield* isForgotten(around)) forgotten++;
        yield* sys.yieldTo(-1);
      }
      modest++;
    }, 4),
  );
  const { machine, said } = world({
    clients: [...many, ...others],
    store: { tenants: 8 },
    blocks: 512,
    tenant: (n) => (n > 1 && n <= count + 1 ? { name: [HOG, n] } : {}),
  });
  machine.run(1e11);
  expect([...said.values()].join('')).toBe('');
  expect([modest, forgotten, done.size]).toEqual([3, 0, count]);
});

test('a tenant that fills its part is told so, and the others have theirs', () => {
  const seen = { taken: 0, most: 0, has: 0, other: -1, again: -1 };
  const value = new Uint8Array(3_000).fill(7);
  const { machine, said } = world({
    store: { tenants: 2 },
    blocks: 96,
    clients: [
      client(function* ({ kv, sys, server }) {
        expect(yield* kv.connect()).toBe(true);
        let status = 0;
        for (; seen.taken < 200; seen.taken++) {
          status = yield* kv.put(bytes(`key ${seen.taken}`), value);
          if (status !== KvStatus.ok) break;
        }
        expect(status).toBe(KvStatus.quota);
        const words = [PROTOCOL.put.number, 3, 3_000, 0];
        [, seen.most, seen.has] = (yield* sys.ipcCall(server, words)).words;
        // What it has it may write anew, and as many as it removes it may put.
        expect(yield* kv.put(bytes('key 0'), value)).toBe(KvStatus.ok);
        for (let n = 0; n < 400; n++) {
          expect(yield* kv.remove(bytes(`key ${n}`))).toBe(KvStatus.ok);
          expect(yield* kv.put(bytes(`key ${n + seen.taken}`), value)).toBe(KvStatus.ok);
          expect(yield* kv.put(bytes('one more'), value)).toBe(KvStatus.quota);
        }
        seen.again = yield* kv.sync();
      }),
      client(function* ({ kv, sys }) {
        // It comes late, when the other has all it can have and goes on writing.
        for (let n = 0; n < 200; n++) yield* sys.yieldTo(-1);
        expect(yield* kv.connect()).toBe(true);
        for (seen.other = 0; seen.other < 200; seen.other++) {
          const status = yield* kv.put(bytes(`key ${seen.other}`), value);
          if (status === KvStatus.ok) continue;
          expect(status).toBe(KvStatus.quota);
          break;
        }
      }),
    ],
  });
  machine.run(1e11);
  expect([...said.values()].join('')).toBe('');
  expect(seen.taken).toBeGreaterThan(30);
  expect([seen.other, seen.again]).toEqual([seen.taken, KvStatus.ok]);
  expect(seen.has).toBeLessThanOrEqual(seen.most);
  expect(seen.has).toBeGreaterThan(seen.most - 3_100);
});
