/** Memory: the hash that is kept against the hash from scratch, and rollback to the last byte. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { Memory } from '../../machine/memory.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { Cause } from '../../kernel/supervisor.ts';
import { Cell, program, RW, Script } from './script.ts';

const PAGES = 4;

type Write =
  | { readonly do: 'put'; readonly word: number; readonly value: number }
  | { readonly do: 'byte'; readonly at: number; readonly value: number }
  | { readonly do: 'zero'; readonly page: number }
  | { readonly do: 'copy'; readonly page: number; readonly from: number }
  | { readonly do: 'dma'; readonly page: number; readonly value: number };

const value = fc.oneof(fc.constantFrom(0, 1, -1, 2 ** 31, 2 ** 32 + 5, -(2 ** 31)), fc.integer());
const word = fc
  .tuple(fc.nat(PAGES - 1), fc.constantFrom(0, 1, 2, 1023))
  .map(([p, w]) => p * 1024 + w);
const write: fc.Arbitrary<Write> = fc.oneof(
  fc.record({ do: fc.constant('put' as const), word, value }),
  fc.record({
    do: fc.constant('byte' as const),
    at: word.map((w) => w * 4 + 1),
    value: fc.nat(255),
  }),
  fc.record({ do: fc.constant('zero' as const), page: fc.nat(PAGES - 1) }),
  fc.record({ do: fc.constant('copy' as const), page: fc.nat(PAGES - 1), from: fc.nat(PAGES - 1) }),
  fc.record({ do: fc.constant('dma' as const), page: fc.nat(PAGES - 1), value: fc.nat(255) }),
);

function perform(memory: Memory, w: Write): void {
  switch (w.do) {
    case 'put':
      return memory.put(w.word * 4, w.value);
    case 'byte':
      return memory.putByte(w.at, w.value);
    case 'zero':
      return memory.zeroPage(w.page);
    case 'copy':
      return memory.copyPage(w.page, w.from);
    case 'dma':
      return memory.dma(w.page, new Uint8Array(PAGE_BYTES).fill(w.value));
  }
}

describe('memory', () => {
  test('the kept hash is the hash from scratch, and equal bytes hash equally however they came', () => {
    fc.assert(
      fc.property(fc.array(write, { maxLength: 30 }), fc.nat(30), (writes, from) => {
        const memory = new Memory(PAGES);
        const plain = new Memory(PAGES);
        writes.forEach((w, n) => {
          if (n === from) memory.startHash();
          perform(memory, w);
          perform(plain, w);
        });
        if (from >= writes.length) memory.startHash();
        expect(memory.hash()).toEqual(memory.computeHash());
        expect(memory.hash()).toEqual(plain.computeHash());
      }),
      { numRuns: 200 },
    );
  });

  test('zero memory hashes to 0, 0; one word changed changes it, and back again restores it', () => {
    const memory = new Memory(PAGES);
    memory.startHash();
    expect(memory.hash()).toEqual({ a: 0, b: 0 });
    const seen = new Set<string>();
    for (let n = 0; n < 4096; n++) {
      memory.put(n * 4, 1 + (n % 7));
      seen.add(JSON.stringify(memory.hash()));
    }
    expect(seen.size).toBe(4096);
    for (let page = 0; page < PAGES; page++) memory.zeroPage(page);
    expect(memory.hash()).toEqual({ a: 0, b: 0 });
  });

  test('two words exchanged, or the same change in two places, do not cancel out', () => {
    const hashOf = (...words: [number, number][]): string => {
      const memory = new Memory(1);
      for (const [at, v] of words) memory.put(at * 4, v);
      return JSON.stringify(memory.computeHash());
    };
    expect(hashOf([1, 5], [2, 6])).not.toBe(hashOf([1, 6], [2, 5]));
    expect(hashOf([1, 5], [2, 5])).not.toBe(hashOf([3, 5], [4, 5]));
    expect(hashOf([1, 5], [2, 5])).not.toBe(hashOf());
  });

  test('a rollback restores bytes and hash; a commit keeps them', () => {
    fc.assert(
      fc.property(
        fc.array(write, { maxLength: 10 }),
        fc.array(fc.tuple(fc.array(write, { maxLength: 12 }), fc.boolean()), { maxLength: 4 }),
        fc.boolean(),
        (before, transactions, hashed) => {
          const memory = new Memory(PAGES);
          if (hashed) memory.startHash();
          for (const w of before) perform(memory, w);
          for (const [writes, keep] of transactions) {
            const bytes = memory.u8.slice();
            memory.begin();
            for (const w of writes) perform(memory, w);
            const after = memory.u8.slice();
            if (keep) memory.commit();
            else memory.rollback();
            expect(Buffer.compare(memory.u8, keep ? after : bytes)).toBe(0);
            if (hashed) expect(memory.hash()).toEqual(memory.computeHash());
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  test('outside physical memory there is nothing', () => {
    const memory = new Memory(PAGES);
    expect(() => memory.get(PAGES * PAGE_BYTES)).toThrow('broken promise');
    expect(() => memory.put(PAGES * PAGE_BYTES, 1)).toThrow('broken promise');
    expect(() => memory.page(PAGES)).toThrow('broken promise');
    expect(() => memory.bytes(-1)).toThrow('broken promise');
    expect(() => new Memory(0)).toThrow('broken promise');
    expect(() => new Memory(2 ** 20 + 1)).toThrow('broken promise');
  });
});

describe('a hashed machine', () => {
  // What a user does to two mapped pages and one that it must fault in, with disk writes into a
  // third: every store must reach the hash.
  const act = fc.oneof(
    fc.record({ do: fc.constantFrom('store32', 'swap32' as const), at: fc.nat(2047), value }),
    fc.record({ do: fc.constant('store8' as const), at: fc.nat(8191), value: fc.nat(255) }),
    ...(['copy', 'fill', 'write'] as const).map((name) =>
      fc.record({
        do: fc.constant(name),
        at: fc.nat(8191),
        from: fc.nat(8191),
        bytes: fc.nat(5000),
      }),
    ),
    fc.record({ do: fc.constant('disk' as const), block: fc.nat(7) }),
  );

  for (const late of [false, true]) {
    test(`the hash is exact, ${late ? 'kept from the middle' : 'kept from the start'}`, () => {
      fc.assert(
        fc.property(fc.array(act, { maxLength: 25 }), fc.boolean(), (acts, restarts) => {
          const base = new Map([[3, new Uint8Array(PAGE_BYTES).fill(9)]]);
          const body = program(function* (port) {
            for (const a of acts) {
              const at = 'at' in a ? a.at : 0;
              if (a.do === 'store32') yield* port.store(at * 4, a.value);
              else if (a.do === 'swap32') port.swap32(at * 4, a.value) ?? (yield* port.fault());
              else if (a.do === 'store8') port.store8(at, a.value) ?? (yield* port.fault());
              else if (a.do === 'copy') port.copy(at, a.from, a.bytes) ?? (yield* port.fault());
              else if (a.do === 'fill') port.fill(at, a.from, a.bytes) ?? (yield* port.fault());
              else if (a.do === 'disk') yield* port.call(1, a.block);
              else if (a.do === 'write') {
                const bytes = new Uint8Array(a.bytes).fill(a.from);
                port.write(at, bytes, 0, a.bytes) ?? (yield* port.fault());
              }
            }
          });
          const supervisor = new Script({
            boot: (s) => {
              s.space(1);
              s.map(1, 0);
              s.map(1, 2);
              s.map(1, 3);
              s.put(Cell.own, s.map(1, 4));
              s.start(1);
            },
            trap: (s, { cause, tval }) => {
              if (cause === Cause.storePageFault || cause === Cause.loadPageFault) {
                s.map(1, tval >>> 12, RW);
                return true;
              }
              if (cause === Cause.environmentCall) {
                const block = s.machine.contexts.argument(1, 1);
                const page = s.get(Cell.own);
                s.machine.disk.submit({ tag: 0, write: block % 2 === 0, block, pages: [page] });
                return false;
              }
              if (cause === Cause.externalInterrupt) s.machine.disk.complete();
              return false;
            },
          });
          const machine = new PhysicalMachine({
            pages: 64,
            images: [body],
            medium: new RamMedium(8, base),
            restarts,
            hashed: !late,
          });
          machine.boot(supervisor);
          if (late) {
            machine.run(machine.now() + 3000);
            machine.watch();
          }
          machine.run();
          expect(machine.memory.hash()).toEqual(machine.memory.computeHash());
        }),
        { numRuns: 60 },
      );
    });
  }

  test('hashing and restarts change nothing that a program computes, nor what it costs', () => {
    const run = (modes: { hashed?: boolean; restarts?: boolean }): unknown[] => {
      const seen: number[] = [];
      const body = program(function* (port) {
        for (let n = 0; n < 40; n++) {
          yield* port.store(0x10000 + n * 4096, n);
          seen.push(yield* port.load(0x10000 + n * 2048));
        }
      });
      const supervisor = new Script({
        trap: (s, { cause, tval }) => {
          if (cause !== Cause.storePageFault && cause !== Cause.loadPageFault) return false;
          s.map(1, tval >>> 12);
          return true;
        },
      });
      const machine = new PhysicalMachine({ pages: 128, images: [body], ...modes });
      machine.boot(supervisor);
      machine.run();
      const totals = machine.hart.counters.totals();
      return [seen, totals.supervisorReferences, totals.pteWrites, totals.traps, totals.pageFaults];
    };
    expect(run({ hashed: true })).toEqual(run({}));
    expect(run({ restarts: true })).toEqual(run({}));
    expect(run({ restarts: true, hashed: true })).toEqual(run({}));
  });
});
