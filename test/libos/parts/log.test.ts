/** The log: what was synced is found again, in order; what was not is not made up. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Log } from '../../../libos/parts/log.ts';
import { Kind, logWords, payloadMax, recordBytes } from '../../../libos/parts/log-format.ts';
import { countsOf } from '../../../libos/parts/transfers.ts';
import { Perishable } from '../kv/lives.ts';
import { type Bench, bench } from './bench.ts';
import type { Op } from '../../../libos/libos.ts';

const SEGMENTS = 6;
const SEGMENT_BLOCKS = 2;
const PAYLOAD_MAX = payloadMax(SEGMENTS, SEGMENT_BLOCKS);

/** Makes logs on one place of the disk: each has memory of its own, as after a power cut. */
function* maker(at: Bench): Op<() => Log> {
  const buffer = at.space(SEGMENT_BLOCKS * 4096);
  const list = at.space(4096);
  for (let n = 0; n < SEGMENT_BLOCKS; n++) {
    yield* at.sys.port.store(list + n * 4, at.pages[(buffer - at.data) / 4096 + n] ?? 0);
  }
  return () =>
    new Log(at.sys, {
      ...countsOf(at.self),
      ...{ extent: at.extent, extentSlot: 0, pageSlot: 0, base: 3 },
      ...{ segments: SEGMENTS, segmentBlocks: SEGMENT_BLOCKS, buffer, pages: list },
      at: at.space(logWords(SEGMENTS) * 4),
    });
}

function* read(log: Log): Op<{ why: string; texts: string[] }> {
  const texts: string[] = [];
  const { why } = yield* log.recover(function* ({ kind, tag, payload }) {
    texts.push(`${kind}.${tag}.${new TextDecoder().decode(payload)}`);
    yield* nothing();
  });
  return { why, texts };
}
function* nothing(): Op<void> {}

const step = fc.record({
  tag: fc.nat({ max: 65_535 }),
  text: fc.string({ maxLength: 900 }),
  sync: fc.boolean(),
});

describe('log', () => {
  test('after any records and syncs, recovery finds what was synced, and can go on', () => {
    fc.assert(
      fc.property(fc.array(fc.array(step, { maxLength: 12 }), { maxLength: 4 }), (lives) => {
        bench(function* (at) {
          const make = yield* maker(at);
          let durable: string[] = [];
          for (const life of lives) {
            const log = make();
            const { why, texts } = yield* read(log);
            expect(texts).toEqual(durable);
            if (why === 'fresh') expect(yield* log.begin(0)).toBe(true);
            else {
              expect(why).toBe('recovered');
              expect(yield* log.sync()).toBe(true);
            }
            const all = [...durable];
            for (const { tag, text, sync } of life) {
              const payload = new TextEncoder().encode(text);
              if ((yield* log.append(Kind.own, tag, payload)) < 0) {
                const free = yield* freeSegment(log);
                if (free < 0) break;
                expect(yield* log.finish()).toBe(true);
                expect(yield* log.begin(free)).toBe(true);
                durable = [...all];
                expect(yield* log.append(Kind.own, tag, payload)).toBeGreaterThan(0);
              }
              all.push(`${Kind.own}.${tag}.${text}`);
              if (!sync) continue;
              expect(yield* log.sync()).toBe(true);
              durable = [...all];
            }
          }
          expect((yield* read(make())).texts).toEqual(durable);
        });
      }),
      { numRuns: 25 },
    );
  });

  test('what a torn write left behind is no record later, even where one would begin', () => {
    const medium = new Perishable(66);
    bench(
      function* (at) {
        const make = yield* maker(at);
        let log = make();
        yield* read(log);
        yield* log.begin(0);
        // A record that ends where the second block begins.
        const fill = function* (tag: number): Op<number> {
          const position = SEGMENT_BLOCKS * 4096 - 16 - (yield* log.room());
          const payload = new Uint8Array(4096 - position - 16).fill(0x61);
          expect(yield* log.append(Kind.own, tag, payload)).toBe(position);
          return payload.length;
        };
        for (let life = 0; life < 2; life++) {
          yield* fill(1);
          expect(yield* log.append(Kind.own, 2, new Uint8Array(40))).toBe(4096);
          // Power goes: of the two blocks only the second has been written.
          const before = medium.writes;
          medium.loses = (n) => n === before + 1;
          yield* log.sync();
          medium.loses = () => false;
          log = make();
          expect((yield* read(log)).texts).toEqual([]);
          expect(yield* log.sync()).toBe(true);
        }
        const bytes = yield* fill(3);
        expect(yield* log.sync()).toBe(true);
        expect((yield* read(make())).texts).toEqual([`${Kind.own}.3.${'a'.repeat(bytes)}`]);
      },
      { medium },
    );
  });

  test('the longest record fits, one byte more does not; a record taken back was never there', () => {
    bench(function* (at) {
      const make = yield* maker(at);
      const log = make();
      expect((yield* read(log)).why).toBe('fresh');
      expect(yield* log.sync()).toBe(false); // there is nothing to be durable
      yield* log.begin(2);
      expect(yield* log.append(Kind.own, 0, new Uint8Array(PAYLOAD_MAX + 1))).toBe(-1);
      const offset = yield* log.append(Kind.own, 1, new Uint8Array(50));
      yield* log.retract(offset);
      expect(yield* log.append(Kind.own, 2, new Uint8Array(PAYLOAD_MAX).fill(0x41))).toBe(offset);
      expect(recordBytes(PAYLOAD_MAX)).toBeGreaterThan(yield* log.room());
      yield* log.sync();
      const { texts } = yield* read(make());
      expect(texts).toEqual([`${Kind.own}.2.${'A'.repeat(PAYLOAD_MAX)}`]);
    });
  });

  test('what somebody read is checked against the place that it was written for', () => {
    bench(function* (at) {
      const log = (yield* maker(at))();
      yield* read(log);
      yield* log.begin(1);
      const offset = yield* log.append(Kind.own, 3, Uint8Array.of(1, 2, 3));
      yield* log.sync();
      const record = new Uint8Array(16 + 3);
      const buffer = at.data;
      at.sys.port.read(buffer + offset, record, 0, record.length) ?? (yield* at.sys.port.fault());
      const found = yield* log.check(1, offset, record);
      expect([found?.tag, ...(found?.payload ?? [])]).toEqual([3, 1, 2, 3]);
      expect(yield* log.check(1, offset + 8, record)).toBeNull();
      expect(yield* log.check(2, offset, record)).toBeNull();
      record[17] = 9;
      expect(yield* log.check(1, offset, record)).toBeNull();
    });
  });
});

function* freeSegment(log: Log): Op<number> {
  for (let n = 0; n < SEGMENTS; n++) if ((yield* log.sequenceOf(n)) === 0) return n;
  return -1;
}
