/**
 * What hostile clients send, and what a spoilt disk gives back: refused or recovered, never wrong
 * data, and never the end of the store.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { READ, Status, WRITE } from '../../../kernel/abi.ts';
import { KvClient } from '../../../libos/kv/client.ts';
import { BUFFER_PAGES_MAX, DATA_AT, KvStatus, PROTOCOL } from '../../../libos/kv/protocol.ts';
import type { Op } from '../../../libos/libos.ts';
import { contents, diskOf, doing, live, look } from './lives.ts';
import { type Around, BUFFER, bytes, client, type Program, text, world } from './rig.ts';

const PAGE = 4096;

/** Does what the programs do, one tenant each; the last one looks whether all is well. */
function together(programs: readonly Program[]): void {
  let well = false;
  const { machine, said } = world({
    clients: [
      ...programs.map((program) => client(program)),
      client(function* ({ kv, sys }) {
        expect(yield* kv.connect()).toBe(true);
        expect(yield* kv.put(bytes('own'), bytes('mine'))).toBe(KvStatus.ok);
        for (let n = 0; n < 40; n++) {
          expect(text((yield* kv.get(bytes('own'))).value)).toBe('mine');
          yield* sys.sleep(0, 20_000);
        }
        const { pairs } = yield* kv.scan(bytes(''), bytes(''));
        expect(pairs.map(({ key }) => text(key))).toEqual(['own']);
        well = true;
      }),
    ],
  });
  machine.run(1e10);
  expect([...said.values()].join('')).toBe('');
  expect(well).toBe(true);
}

/** A request in raw words. */
function* raw(around: Around, words: readonly number[]): Op<readonly number[]> {
  const answer = yield* around.sys.ipcCall(around.server, words);
  expect(answer.status).toBe(Status.ok);
  return answer.words;
}

describe('hostile clients', () => {
  test('numbers that make no sense are refused, whatever they are', () => {
    const odd = fc.oneof(
      fc.constantFrom(0, -1, 1, 250, 251, 255, 256, 4096, 65_280, 65_536, 2 ** 31 - 1, -(2 ** 31)),
      fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
    );
    const words = fc.tuple(fc.oneof(fc.integer({ min: -2, max: 12 }), odd), odd, odd, odd);
    fc.assert(
      fc.property(fc.array(words, { minLength: 60, maxLength: 60 }), (requests) => {
        together([
          function* (around) {
            expect(yield* around.kv.connect()).toBe(true);
            for (const request of requests) {
              const [status = -1, a = 0] = yield* raw(around, request);
              expect(status).toBeGreaterThanOrEqual(0);
              expect(status).toBeLessThanOrEqual(KvStatus.revoked);
              // No answer claims more than the buffer holds.
              const got = request[0] === PROTOCOL.get.number && status === KvStatus.ok;
              if (got) expect(a).toBeLessThanOrEqual(around.kv.room);
              const gone = request[0] === PROTOCOL.detach.number;
              if (gone) expect(yield* around.kv.connect()).toBe(true);
            }
          },
        ]);
      }),
      { numRuns: 4 },
    );
  });

  test('without a session, with a page too many, with a page that nobody asked for', () => {
    together([
      function* (around) {
        const { sys, server, pages } = around;
        expect(yield* raw(around, [PROTOCOL.get.number, 3])).toEqual([
          KvStatus.noSession,
          ...[0, 0, 0],
        ]);
        expect((yield* raw(around, [PROTOCOL.attach.number]))[0]).toBe(KvStatus.badRequest);
        const [page = 0] = pages;
        const grant = { page, slot: 0, rights: READ | WRITE, entry: 1 };
        const wrong = yield* sys.ipcCall(server, [PROTOCOL.sync.number], grant);
        expect(wrong.words[0]).toBe(KvStatus.badRequest);
        // The store has let go of it: it can be freed once its entry is gone.
        expect((yield* sys.accessRemove(page, 0, 1)).status).toBe(Status.ok);
        for (let n = 0; n <= BUFFER_PAGES_MAX; n++) {
          const { words } = yield* sys.ipcCall(server, [PROTOCOL.attach.number], grant);
          const full = n === BUFFER_PAGES_MAX;
          expect(words[0]).toBe(full ? KvStatus.full : KvStatus.ok);
          yield* sys.accessRemove(page, 0, 1);
        }
        // A buffer of which nothing is left: told, and the session is over.
        expect((yield* raw(around, [PROTOCOL.get.number, 3]))[0]).toBe(KvStatus.revoked);
        expect((yield* raw(around, [PROTOCOL.get.number, 3]))[0]).toBe(KvStatus.noSession);
      },
    ]);
  });

  test('a page taken back is no part of what is stored', () => {
    together([
      function* ({ kv, sys, pages }) {
        const big = new Uint8Array(2 * PAGE).fill(0x41);
        expect(yield* kv.connect()).toBe(true);
        expect(yield* kv.put(bytes('big'), big)).toBe(KvStatus.ok);
        // The second page of the buffer is gone before the store reads it.
        yield* sys.accessRemove(pages[1] ?? 0, 0, 1);
        expect(yield* kv.putInPlace(bytes('big'), 2 * PAGE)).toBe(KvStatus.revoked);
        const { status, value } = yield* kv.get(bytes('big'));
        expect([status, value.length]).toEqual([KvStatus.ok, 2 * PAGE]);
        expect(value).toEqual(big);
      },
    ]);
  });

  test('a read-only page is no place for an answer', () => {
    together([
      function* ({ kv, sys, server, pages }) {
        expect(yield* kv.connect()).toBe(true);
        expect(yield* kv.put(bytes('k'), bytes('v'))).toBe(KvStatus.ok);
        yield* kv.close();
        const grant = { page: pages[0] ?? 0, slot: 0, rights: READ, entry: 1 };
        const { words } = yield* sys.ipcCall(server, [PROTOCOL.attach.number], grant);
        expect(words[0]).toBe(KvStatus.ok);
        sys.port.write(BUFFER * PAGE, bytes('k'), 0, 1) ?? (yield* sys.port.fault());
        const answer = yield* sys.ipcCall(server, [PROTOCOL.get.number, 1]);
        expect([answer.status, answer.words[0]]).toEqual([Status.ok, KvStatus.revoked]);
      },
    ]);
  });

  test('a value that the buffer does not hold is not given, and told how long it is', () => {
    together([
      function* ({ kv, sys, server, pages }) {
        const big = new Uint8Array(2 * PAGE).fill(0x41);
        expect(yield* kv.connect()).toBe(true);
        expect(yield* kv.put(bytes('big'), big)).toBe(KvStatus.ok);
        yield* kv.close();
        const small = { address: BUFFER * PAGE, pages: pages.slice(0, 1), slot: 0 };
        const other = new KvClient(sys, server, small);
        expect(yield* other.connect()).toBe(true);
        const { status, valueBytes } = yield* other.getInPlace(bytes('big'));
        expect([status, valueBytes]).toEqual([KvStatus.tooLarge, big.length]);
        expect((yield* other.scan(bytes(''), bytes(''))).status).toBe(KvStatus.tooLarge);
        expect(yield* other.remove(bytes('big'))).toBe(KvStatus.ok);
      },
    ]);
  });

  test('absurd lengths', () => {
    together([
      function* (around) {
        const { kv } = around;
        expect(yield* kv.connect()).toBe(true);
        expect(yield* kv.put(new Uint8Array(), bytes('v'))).toBe(KvStatus.badRequest);
        expect(yield* kv.put(new Uint8Array(251), bytes('v'))).toBe(KvStatus.badRequest);
        expect(yield* kv.put(bytes('k'), new Uint8Array(kv.room + 1))).toBe(KvStatus.tooLarge);
        const put = (valueBytes: number): Op<readonly number[]> =>
          raw(around, [PROTOCOL.put.number, 1, valueBytes, 0]);
        expect((yield* put(kv.room + 1))[0]).toBe(KvStatus.badRequest);
        expect((yield* put(-1))[0]).toBe(KvStatus.badRequest);
        expect((yield* put(2 ** 31 - 1))[0]).toBe(KvStatus.badRequest);
        expect(kv.room).toBe(4 * PAGE - DATA_AT);
        expect(yield* kv.put(new Uint8Array(250).fill(1), new Uint8Array(kv.room))).toBe(0);
        expect(yield* kv.remove(new Uint8Array(250).fill(1))).toBe(0);
      },
    ]);
  });

  test('who takes many sessions loses its own', () => {
    let sessions = 0;
    together([
      function* ({ kv, sys }) {
        // Each connection of this tenant takes a session's worth of window, again and again.
        for (let n = 0; n < 30; n++) {
          if (yield* kv.connect()) sessions++;
          yield* sys.yieldTo(-1);
        }
      },
      function* ({ sys, server, pages }) {
        const grant = { page: pages[0] ?? 0, slot: 0, rights: READ | WRITE, entry: 1 };
        for (let n = 0; n < 300; n++) {
          yield* sys.ipcCall(server, [PROTOCOL.attach.number], grant);
          yield* sys.accessRemove(pages[0] ?? 0, 0, 1);
        }
      },
    ]);
    expect(sessions).toBe(30);
  });
});

describe('a spoilt disk', () => {
  const acts = Array.from({ length: 120 }, (_, n) => ({
    key: `key ${n % 30}`,
    value: `${n}:`.padEnd(300, 'y'),
    sync: true,
  }));
  const filled = (): ReturnType<typeof diskOf> => {
    const medium = diskOf(48);
    expect(
      live(
        medium,
        doing(acts, () => undefined),
      ).said,
    ).toBe('');
    // A life more: behind the last act stands an epoch, so that its loss can be told.
    expect(contents(medium)).not.toBeTypeOf('string');
    return medium;
  };
  const { found: whole } = look(filled());

  test('one flipped bit anywhere: the same contents, or a refusal that says where or which key', () => {
    const medium = filled();
    let [refused, same] = [0, 0];
    fc.assert(
      fc.property(
        fc.nat({ max: 47 }),
        fc.nat({ max: 4095 }),
        fc.nat({ max: 7 }),
        (block, at, bit) => {
          const copy = medium.copy();
          copy.spoil(block, (data) => {
            data[at] = (data[at] ?? 0) ^ (1 << bit);
          });
          const { said, found, unread } = look(copy);
          if (said !== '') {
            expect(said).toMatch(/^kv: segment \d+ is damaged at byte \d+, in what was durable/);
            refused++;
            return;
          }
          // What is older than the checkpoint is told key by key, and of that key alone.
          for (const [key, status] of unread) {
            expect([key, status]).toEqual([key, KvStatus.corrupt]);
            expect(found.has(key)).toBe(false);
          }
          if (unread.size > 0) refused++;
          else same++;
          const rest = [...whole].filter(([key]) => !unread.has(key));
          expect([...found]).toEqual(rest);
        },
      ),
      { numRuns: 60 },
    );
    expect(refused).toBeGreaterThan(5);
    expect(same).toBeGreaterThan(0); // where nothing stands
  });

  test('in the segment that was being filled too: what was durable is missed', () => {
    const medium = filled();
    const last = Math.floor(medium.latest / 3) * 3; // segments of three blocks
    let refused = 0;
    for (let at = last * 8; at < (last + 3) * 8; at++) {
      const copy = medium.copy();
      copy.spoil(Math.floor(at / 8), (data) => {
        data[(at % 8) * 512 + 40] = (data[(at % 8) * 512 + 40] ?? 0) ^ 1;
      });
      const found = contents(copy);
      if (typeof found === 'string') refused++;
      else expect(found).toEqual(whole);
    }
    expect(refused).toBeGreaterThan(0);
  });

  test('a block that says it was written and was not is noticed', () => {
    const medium = filled();
    const before = medium.copy();
    // A later life writes; one of its blocks never arrives.
    const later = acts.map((act) => ({ ...act, value: `later ${act.value}` }));
    let lost = -1;
    const write = medium.write.bind(medium);
    let count = 0;
    medium.write = (block, from) => {
      if (++count === 40) lost = block;
      else write(block, from);
    };
    expect(
      live(
        medium,
        doing(later, () => undefined),
      ).said,
    ).toBe('');
    expect(lost).toBeGreaterThanOrEqual(0);
    const found = contents(medium);
    const last = new Map<string, string>();
    for (const { key, value } of later) last.set(key, value);
    // The block may have been written again since, with all that it held.
    if (typeof found === 'string') expect(found).toMatch(/is damaged at byte/);
    else expect(found).toEqual(last);
    expect(contents(before)).toEqual(whole);
  });

  test.each([
    ['something else', 0, 'the extent holds something else'],
    ['a store of another size', 40, 'the extent holds a store of another size'],
  ])('%s', (_, blocks, message) => {
    const medium = filled();
    const other = diskOf(blocks === 0 ? 48 : blocks);
    for (let block = 0; block < other.blocks - 2; block++) {
      const data = new Uint8Array(PAGE);
      if (blocks === 0) data.fill(0x55);
      else medium.read(block, data);
      other.write(block, data);
    }
    expect(contents(other)).toContain(message);
  });

  test('an extent that is too small, memory that is too little', () => {
    expect(contents(diskOf(7))).toContain('kv: an extent of 7 blocks is too small: 8 at least');
    expect(
      live(
        diskOf(48),
        doing([], () => undefined),
        { quota: 40 },
      ).said,
    ).toContain('pages are too few for it');
  });

  test('a full disk is told, nothing is lost, and removing makes room again', () => {
    const medium = diskOf(24);
    let full = -1;
    const script = Array.from({ length: 400 }, (_, n) => ({
      key: `unique ${n}`,
      value: 'z'.repeat(400),
      sync: n % 16 === 0,
    }));
    let again = -1;
    const { said } = live(medium, function* (direct) {
      for (const [n, { key, value }] of script.entries()) {
        const status = yield* direct.put(key, value);
        if (status === KvStatus.ok) continue;
        expect(status).toBe(KvStatus.full);
        full = n;
        break;
      }
      expect(yield* direct.store.sync()).toBe(KvStatus.ok);
      for (let n = 0; n < full; n += 2) {
        expect(yield* direct.store.remove(bytes(`unique ${n}`))).toBe(KvStatus.ok);
      }
      again = yield* direct.put('again', 'z'.repeat(400));
      expect(yield* direct.store.sync()).toBe(KvStatus.ok);
    });
    expect(said).toBe('');
    expect([full > 60, again]).toEqual([true, KvStatus.ok]);
    const found = contents(medium);
    if (typeof found === 'string') throw new Error(found);
    expect(found.size).toBe(Math.floor(full / 2) + 1);
  });

  test('a long run fits: many times the extent is written, and removed keys leave nothing', () => {
    const medium = diskOf(24);
    const { said } = live(medium, function* ({ store, put }) {
      for (let n = 0; n < 1_500; n++) {
        expect(yield* put(`${n % 50}`, 'w'.repeat(300))).toBe(KvStatus.ok);
        if (n % 3 === 0) yield* store.remove(bytes(`${(n * 7) % 50}`));
      }
      for (let n = 0; n < 50; n++) yield* store.remove(bytes(`${n}`));
      // Nothing is needed any more but, for a while, what says that keys were removed.
      for (let n = 0; n < 2_500; n++) expect(yield* put('one', 'w'.repeat(300))).toBe(KvStatus.ok);
      const { neededBytes, keys } = yield* store.counts();
      expect(keys).toBe(1);
      expect(neededBytes).toBeLessThan(1_000);
    });
    expect(said).toBe('');
  });
});
