/**
 * The user port against a byte-wise model: with faults in the middle, deadlines of every length,
 * operands of every kind, and programs that mean harm.
 */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { RISCV } from '../../machine/costs.ts';
import { Hart } from '../../machine/hart.ts';
import { Memory } from '../../machine/memory.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { grip } from '../../machine/port.ts';
import type { Image, Op, UserPort } from '../../machine/user-port.ts';
import { PTE_A, PTE_D, PTE_R, PTE_U, PTE_V, PTE_W } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { Cause } from '../../kernel/supervisor.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { minimal } from '../../libos/minimal/minimal.ts';
import { Cell, program, Script } from './script.ts';
import { Tables } from './tables.ts';

const RWU = PTE_V | PTE_R | PTE_W | PTE_U | PTE_A | PTE_D;

/** A hart, a port, tables in the first pages; pages from 32 up are data. */
class Bench {
  readonly memory = new Memory(128);
  readonly hart: Hart;
  readonly port: UserPort;
  readonly tables: Tables;
  readonly root: number;
  readonly faults: number[] = [];
  timers = 0;
  /** Clock at each timer trap. */
  readonly at: number[] = [];
  #page = 32;

  constructor(watched = false) {
    this.hart = new Hart(this.memory, RISCV, {});
    this.port = this.hart.port;
    this.tables = new Tables(this.memory, 0);
    this.root = this.tables.take();
    this.hart.install({ vmid: 0, asid: 1, root: this.root, guestRoot: -1 });
    this.hart.enterLayer(3);
    if (watched) this.memory.startHash();
  }

  /** Maps `vpn` to `page`; without it to pages that do not follow one another. */
  map(vpn: number, page?: number, flags = RWU): number {
    if (page === undefined) {
      page = this.#page;
      this.#page += 2;
    }
    this.tables.map(this.root, vpn, page, flags);
    this.hart.fence(0, 1, vpn);
    return page;
  }

  /** Runs user code to its end: maps what faults, gives each slice the next budget. */
  run(
    code: Op<void>,
    budgets: readonly number[] = [2 ** 30],
    onFault = (va: number) => void this.map(va >>> 12),
  ): void {
    const registers = new Float64Array(32);
    for (let slice = 0, left = 0; ;) {
      if (left <= 0) left = budgets[slice++ % budgets.length] ?? 1;
      const deadline = this.hart.now() + left;
      grip.setBudget(this.port, left);
      grip.setRegisters(this.port, registers);
      const ended = code.next().done === true;
      const cause = grip.take(this.port);
      const before = this.hart.now();
      if (ended) {
        expect(cause).toBe(0);
        return;
      }
      if (cause === 0x45) {
        this.timers++;
        this.at.push(before);
        left = 0;
        continue;
      }
      expect([13, 15]).toContain(cause);
      this.faults.push(grip.tval(this.port));
      onFault(grip.tval(this.port));
      grip.setNow(this.port, before); // fences cost nothing here
      left = Math.max(1, deadline - before);
    }
  }
}

describe('bulk operations against a byte-wise model', () => {
  const PAGES = 5;
  const SIZE = PAGES * PAGE_BYTES;
  const address = fc.oneof(
    fc.nat(SIZE - 1),
    fc
      .tuple(fc.nat(PAGES - 1), fc.integer({ min: -3, max: 3 }))
      .map(([page, off]) => Math.max(0, page * PAGE_BYTES + off)),
  );
  const length = fc.oneof(fc.nat(9), fc.nat(600), fc.constantFrom(4095, 4096, 4097, 8192, 9000));
  const act = fc.oneof(
    fc.record({ do: fc.constant('copy' as const), to: address, from: address, n: length }),
    fc.record({ do: fc.constant('fill' as const), to: address, value: fc.nat(300), n: length }),
    fc.record({ do: fc.constant('read' as const), from: address, n: length, at: fc.nat(9) }),
    fc.record({ do: fc.constant('write' as const), to: address, n: length, at: fc.nat(9) }),
    fc.record({ do: fc.constant('load8' as const), from: address }),
    fc.record({ do: fc.constant('store8' as const), to: address, value: fc.integer() }),
    fc.record({ do: fc.constant('load32' as const), from: address.map((a) => a & ~3) }),
    fc.record({
      do: fc.constantFrom('store32' as const, 'swap' as const),
      to: address.map((a) => a & ~3),
      value: fc.integer(),
    }),
    fc.record({ do: fc.constant('work' as const), n: fc.nat(300) }),
  );
  type Act = typeof act extends fc.Arbitrary<infer T> ? T : never;

  const source = Uint8Array.from({ length: SIZE + 20 }, (_, n) => (n * 7 + (n >> 8)) & 0xff);

  /** What a program that does this reads, and what its memory is then. */
  function model(acts: readonly Act[]): { seen: number[]; bytes: Uint8Array } {
    const bytes = new Uint8Array(SIZE);
    const words = new DataView(bytes.buffer);
    const seen: number[] = [];
    for (const a of acts) {
      switch (a.do) {
        case 'copy': {
          // Page by page, forwards: what "copies page by page" means where the ranges overlap.
          let [to, from, left] = [a.to, a.from, Math.min(a.n, SIZE - a.to, SIZE - a.from)];
          while (left > 0) {
            const part = Math.min(
              left,
              PAGE_BYTES - (to % PAGE_BYTES),
              PAGE_BYTES - (from % PAGE_BYTES),
            );
            bytes.copyWithin(to, from, from + part);
            [to, from, left] = [to + part, from + part, left - part];
          }
          break;
        }
        case 'fill':
          bytes.fill(a.value, a.to, Math.min(SIZE, a.to + a.n));
          break;
        case 'read':
          seen.push(...bytes.subarray(a.from, Math.min(SIZE, a.from + a.n)), -1);
          break;
        case 'write':
          for (let n = 0; n < Math.min(a.n, SIZE - a.to); n++)
            bytes[a.to + n] = source[a.at + n] ?? 0;
          break;
        case 'load8':
          seen.push(bytes[a.from] ?? 0);
          break;
        case 'store8':
          bytes[a.to] = a.value;
          break;
        case 'load32':
          seen.push(words.getInt32(a.from, true));
          break;
        case 'store32':
          words.setInt32(a.to, a.value, true);
          break;
        case 'swap':
          seen.push(words.getInt32(a.to, true));
          words.setInt32(a.to, a.value, true);
          break;
        default:
      }
    }
    return { seen, bytes };
  }

  function* perform(port: UserPort, acts: readonly Act[], seen: number[]): Op<void> {
    for (const a of acts) {
      switch (a.do) {
        case 'copy': {
          const n = Math.min(a.n, SIZE - a.to, SIZE - a.from);
          port.copy(a.to, a.from, n) ?? (yield* port.fault());
          break;
        }
        case 'fill':
          port.fill(a.to, a.value, Math.min(a.n, SIZE - a.to)) ?? (yield* port.fault());
          break;
        case 'read': {
          const n = Math.min(a.n, SIZE - a.from);
          const into = new Uint8Array(n + 20).fill(0xee);
          port.read(a.from, into, a.at, n) ?? (yield* port.fault());
          seen.push(...into.subarray(a.at, a.at + n), -1);
          into.fill(0xee, a.at, a.at + n);
          if (into.some((byte) => byte !== 0xee)) seen.push(-99); // wrote outside its part
          break;
        }
        case 'write':
          port.write(a.to, source, a.at, Math.min(a.n, SIZE - a.to)) ?? (yield* port.fault());
          break;
        case 'load8':
          seen.push(port.load8(a.from) ?? (yield* port.fault()));
          break;
        case 'store8':
          port.store8(a.to, a.value) ?? (yield* port.fault());
          break;
        case 'load32':
          seen.push(port.load32(a.from) ?? (yield* port.fault()));
          break;
        case 'store32':
          port.store32(a.to, a.value) ?? (yield* port.fault());
          break;
        case 'swap':
          seen.push(port.swap32(a.to, a.value) ?? (yield* port.fault()));
          break;
        case 'work':
          port.work(a.n) ?? (yield* port.fault());
          break;
      }
    }
  }

  function check(
    acts: readonly Act[],
    budgets: readonly number[],
    watched: boolean,
    mapped: boolean,
  ): Bench {
    const bench = new Bench(watched);
    if (mapped) for (let vpn = 0; vpn < PAGES; vpn++) bench.map(vpn);
    const seen: number[] = [];
    bench.run(perform(bench.port, acts, seen), budgets);
    const expected = model(acts);
    expect(seen).toEqual(expected.seen);
    const bytes = new Uint8Array(SIZE);
    for (let vpn = 0; vpn < PAGES; vpn++) {
      if (!bench.hart.translateUser(vpn, false)) continue;
      bytes.set(bench.memory.bytes(bench.hart.ppn), vpn * PAGE_BYTES);
    }
    expect(Buffer.compare(bytes, expected.bytes)).toBe(0);
    // The pages between are nobody's.
    for (let page = 33; page < 64; page += 2) {
      expect(bench.memory.page(page).every((word) => word === 0)).toBe(true);
    }
    if (watched) expect(bench.memory.hash()).toEqual(bench.memory.computeHash());
    return bench;
  }

  test('random programs, faults and deadlines anywhere', () => {
    let timers = 0;
    fc.assert(
      fc.property(
        fc.array(act, { maxLength: 20 }),
        fc.array(fc.oneof(fc.integer({ min: 1, max: 6 }), fc.nat(700)), {
          minLength: 1,
          maxLength: 5,
        }),
        fc.boolean(),
        (acts, budgets, watched) => {
          timers += check(
            acts,
            budgets.map((b) => Math.max(1, b)),
            watched,
            false,
          ).timers;
        },
      ),
      { numRuns: 150 },
    );
    expect(timers).toBeGreaterThan(100);
  });

  test('one program with a deadline at every cycle', () => {
    const acts: Act[] = [
      { do: 'fill', to: 4000, value: 7, n: 5000 },
      { do: 'store32', to: 8, value: -5 },
      { do: 'work', n: 50 },
      { do: 'copy', to: 3, from: 4090, n: 4200 },
      { do: 'swap', to: 8, value: 9 },
      { do: 'write', to: 8190, n: 300, at: 3 },
      { do: 'load32', from: 8192 },
      { do: 'read', from: 4094, n: 20, at: 1 },
    ];
    for (let budget = 1; budget < 160; budget++) check(acts, [budget], false, budget % 2 === 0);
    for (let budget = 160; budget < 2600; budget += 37) check(acts, [budget, 2 ** 30], false, true);
  });

  test('a bulk access that faults for ever has done all the pages before, and nothing after', () => {
    const bench = new Bench();
    const pages = [bench.map(0), bench.map(1)];
    const code = (function* (): Op<void> {
      bench.port.fill(100, 5, 3 * PAGE_BYTES) ?? (yield* bench.port.fault());
    })();
    let asked = 0;
    expect(() =>
      bench.run(code, undefined, () => {
        if (++asked === 3) throw new Error('enough');
      }),
    ).toThrow('enough');
    expect(bench.faults).toEqual([0x2000, 0x2000, 0x2000]);
    expect(bench.memory.bytes(pages[0] ?? 0)[99]).toBe(0);
    expect(bench.memory.bytes(pages[0] ?? 0)[100]).toBe(5);
    expect(bench.memory.bytes(pages[1] ?? 0)[4095]).toBe(5);
  });

  test('what a bulk operation costs is its bytes at the published rate, however often interrupted', () => {
    const cost = (budget: number): number => {
      const bench = new Bench();
      for (let vpn = 0; vpn < 4; vpn++) bench.map(vpn);
      bench.run(
        (function* (): Op<void> {
          for (let n = 0; n < 4; n++) yield* bench.port.store(n * PAGE_BYTES, 1);
        })(),
      );
      const start = bench.hart.now();
      bench.run(
        (function* (): Op<void> {
          bench.port.fill(0, 1, 3 * PAGE_BYTES) ?? (yield* bench.port.fault());
          bench.port.copy(PAGE_BYTES, 0, 2 * PAGE_BYTES) ?? (yield* bench.port.fault());
        })(),
        [budget],
      );
      return bench.hart.now() - start;
    };
    const exact = (3 * PAGE_BYTES) / 8 + (2 * PAGE_BYTES) / 4;
    for (const budget of [2 ** 30, 1, 100, 513, 1025]) expect(cost(budget)).toBe(exact);
  });
});

describe('the clock', () => {
  test('work is preempted exactly at the deadline, and costs exactly what it says', () => {
    for (let budget = 1; budget < 40; budget++) {
      for (const cycles of [
        0,
        1,
        2,
        budget - 1,
        budget,
        budget + 1,
        3 * budget,
        3 * budget + 1,
        100,
      ]) {
        const bench = new Bench();
        bench.run(
          (function* (): Op<void> {
            bench.port.work(cycles) ?? (yield* bench.port.fault());
          })(),
          [budget],
        );
        expect(bench.hart.now()).toBe(cycles);
        expect(bench.at).toEqual(
          Array.from(
            { length: Math.max(0, Math.ceil(cycles / budget) - 1) },
            (_, n) => (n + 1) * budget,
          ),
        );
      }
    }
  });

  test('loads and stores are preempted exactly: as many as the budget, each 1 cycle, a swap 2', () => {
    for (let budget = 1; budget < 20; budget++) {
      const bench = new Bench();
      bench.map(0);
      bench.run(
        (function* (): Op<void> {
          yield* bench.port.store(0, 1);
        })(),
      );
      const start = bench.hart.now();
      bench.run(
        (function* (): Op<void> {
          for (let n = 0; n < 30; n++) {
            yield* bench.port.store(0, n);
            yield* bench.port.load(0);
          }
        })(),
        [budget],
      );
      expect(bench.hart.now() - start).toBe(60);
      expect(bench.at).toEqual(
        Array.from({ length: Math.ceil(60 / budget) - 1 }, (_, n) => start + (n + 1) * budget),
      );
    }
    const bench = new Bench();
    bench.map(0);
    const start = bench.hart.now();
    const before = bench.hart.counters.totals().pageWalkReferences;
    bench.run(
      (function* (): Op<void> {
        bench.port.swap32(0, 1) ?? (yield* bench.port.fault());
      })(),
    );
    const walk = (bench.hart.counters.totals().pageWalkReferences - before) * 20;
    expect(bench.hart.now() - start - walk).toBe(2);
  });

  test('the program reads the same clock, a pending trap or not', () => {
    const bench = new Bench();
    const seen: number[] = [];
    bench.run(
      (function* (): Op<void> {
        bench.port.work(10) ?? (yield* bench.port.fault());
        seen.push(bench.port.cycles());
        const value = bench.port.load32(0);
        seen.push(bench.port.cycles());
        if (value === undefined) yield* bench.port.fault();
      })(),
    );
    expect(seen[0]).toBe(10);
    expect((seen[1] ?? 0) - (seen[0] ?? 0)).toBeLessThanOrEqual(60); // the walk, nothing else
  });
});

describe('operands of every kind', () => {
  /**
   * Four mapped pages; every other page of memory holds a canary. `reach` names what an operand
   * should reach: its address truncated and taken modulo 2^32.
   */
  function cage(): {
    bench: Bench;
    canaries: () => void;
    pages: Map<number, number>;
  } {
    const bench = new Bench();
    const pages = new Map<number, number>();
    for (const vpn of [0, 2, 64, 128, 2 ** 20 - 1]) pages.set(vpn, bench.map(vpn));
    const owned = new Set(pages.values());
    for (let page = 31; page < 128; page++) {
      if (!owned.has(page)) bench.memory.page(page).fill(0x5a5a5a5a);
    }
    return {
      bench,
      pages,
      canaries: () => {
        for (let page = 31; page < 128; page++) {
          if (owned.has(page)) continue;
          expect(bench.memory.page(page).every((word) => word === 0x5a5a5a5a)).toBe(true);
        }
      },
    };
  }

  const wild = fc.oneof(
    fc.double(),
    fc.constantFrom(
      Number.NaN,
      -0,
      -1,
      -4,
      -4096,
      -(2 ** 31),
      2 ** 31,
      2 ** 32,
      2 ** 32 + 8192,
      2 ** 53,
      2 ** 53 + 2,
      -(2 ** 53),
      Number.MAX_SAFE_INTEGER,
      Number.MAX_VALUE,
      Number.POSITIVE_INFINITY,
      Number.NEGATIVE_INFINITY,
      0.5,
      3.999,
      4092.5,
      1e300,
    ),
    // Near the end of a page, by less than an ulp of any physical address.
    fc
      .tuple(fc.constantFrom(0, 2, 64, 128), fc.integer({ min: 20, max: 40 }))
      .map(([vpn, bits]) => (vpn + 1) * PAGE_BYTES - 2 ** -bits),
    // Far beyond 2^53, where sums round: multiples of 4 KiB to 1 MiB modulo 2^32.
    fc
      .tuple(fc.integer({ min: 53, max: 75 }), fc.nat(300), fc.constantFrom(1, -1))
      .map(([e, k, sign]) => sign * (2 ** e + k * 2 ** Math.max(2, e - 52))),
    fc
      .tuple(fc.constantFrom(0, 2, 64, 128), fc.nat(1023), fc.integer({ min: 32, max: 60 }))
      .map(([vpn, word, e]) => 2 ** e + vpn * PAGE_BYTES + word * 4),
  );

  /** One access; what it returned, or the cause of its trap. */
  function once(bench: Bench, act: () => number | undefined): number | string {
    grip.setBudget(bench.port, 2 ** 30);
    const got = act();
    const cause = grip.take(bench.port);
    return got ?? `trap ${cause}`;
  }

  test('an address is its value modulo 2^32, and nothing else is ever reached', () => {
    fc.assert(
      fc.property(fc.array(wild, { minLength: 1, maxLength: 12 }), (addresses) => {
        const { bench, canaries, pages } = cage();
        const { port } = bench;
        // Warm the tables in front, for those are what a wild number would fool.
        for (const vpn of pages.keys()) once(bench, () => port.store32(vpn * PAGE_BYTES, vpn));
        for (const va of addresses) {
          const plain = va >>> 0;
          expect(once(bench, () => port.load32(va))).toBe(once(bench, () => port.load32(plain)));
          expect(once(bench, () => port.load8(va))).toBe(once(bench, () => port.load8(plain)));
          once(bench, () => port.store8(va, 0x11));
          expect(once(bench, () => port.load8(va))).toBe(once(bench, () => port.load8(plain)));
          const stored = once(bench, () => port.store32(va, 0x22));
          const loaded = once(bench, () => port.load32(plain));
          expect(loaded).toBe(stored === 0 ? 0x22 : loaded);
          once(bench, () => port.swap32(va, 0x33));
          once(bench, () => port.fill(va, 0x44, 3));
          once(bench, () => port.copy(va, plain, 5));
        }
        canaries();
      }),
      { numRuns: 300 },
    );
  });

  test('a value is its low 32 or 8 bits', () => {
    const { bench } = cage();
    const { port } = bench;
    for (const value of [2 ** 32 + 5, -1, 2 ** 53, Number.NaN, 0.9, -0.9, 1e300, 2 ** 31]) {
      // Both by the slow path and by the table in front.
      for (let n = 0; n < 2; n++) {
        once(bench, () => port.store32(0, value));
        expect(once(bench, () => port.load32(0))).toBe(value | 0);
        once(bench, () => port.store8(4, value));
        expect(once(bench, () => port.load8(4))).toBe(value & 0xff);
      }
    }
  });

  test('an operand that changes its mind reaches no other memory', () => {
    const { bench, canaries } = cage();
    const { port } = bench;
    for (const vpn of [0, 2]) once(bench, () => port.store32(vpn * PAGE_BYTES, 1));
    for (let period = 1; period < 7; period++) {
      for (const other of [0x5000, 0x100000, 0x40004, -0x3000, 77]) {
        let asked = 0;
        const fickle = { valueOf: () => (++asked % 7 === period ? other : 0x2000) } as never;
        once(bench, () => port.store32(fickle, 0x77));
        once(bench, () => port.store8(fickle, 0x77));
        once(bench, () => port.swap32(fickle, 0x77));
        once(bench, () => port.fill(fickle, 0x77, 4));
        const got = once(bench, () => port.load32(fickle));
        expect(got).not.toBe(0x5a5a5a5a);
        expect(once(bench, () => port.load8(fickle))).not.toBe(0x5a);
      }
    }
    canaries();
  });

  test('bulk lengths are modulo 2^32 too; a copy that wraps round faults where it must', () => {
    const { bench, canaries } = cage();
    const { port } = bench;
    expect(once(bench, () => port.fill(0, 1, 2 ** 32))).toBe(0);
    expect(once(bench, () => port.fill(0, 1, Number.NaN))).toBe(0);
    expect(once(bench, () => port.fill(0, 1, -1))).toBe('trap 15');
    expect(once(bench, () => port.fill(2 ** 32 - 8, 1, 16))).not.toBe('trap 15'); // 0 is mapped
    expect(once(bench, () => port.load8(7))).toBe(1);
    expect(once(bench, () => port.copy(2 ** 32 - 4096, 0, 4100))).not.toBe('trap 15');
    canaries();
  });
});

describe('buffers that lie', () => {
  const OUTSIDE = 0xa5;

  /** A buffer of 64 bytes in the middle of a larger one: outside it nothing may change. */
  function victim(): { big: Uint8Array; small: Uint8Array; intact: () => boolean } {
    const big = new Uint8Array(256).fill(OUTSIDE);
    const small = new Uint8Array(big.buffer, 96, 64);
    small.fill(0);
    return {
      big,
      small,
      intact: () => big.every((byte, n) => (n >= 96 && n < 160) || byte === OUTSIDE),
    };
  }
  const lies: [string, (small: Uint8Array) => Uint8Array][] = [
    ['length', (b) => Object.defineProperty(b, 'length', { value: 1e6 })],
    ['byteLength', (b) => Object.defineProperty(b, 'byteLength', { value: 1e6 })],
    ['byteOffset', (b) => Object.defineProperty(b, 'byteOffset', { value: 0 })],
    ['buffer', (b) => Object.defineProperty(b, 'buffer', { value: new ArrayBuffer(1e6) })],
    [
      'subarray',
      (b) => Object.defineProperty(b, 'subarray', { value: () => new Uint8Array(b.buffer) }),
    ],
    ['constructor', (b) => Object.defineProperty(b, 'constructor', { value: Array })],
    ['set', (b) => Object.defineProperty(b, 'set', { value: () => undefined })],
    ['prototype', (b) => Object.setPrototypeOf(b, { length: 1e6, byteOffset: 0 }) as Uint8Array],
  ];

  function attempt(bench: Bench, act: () => number | undefined): void {
    grip.setBudget(bench.port, 2 ** 30);
    try {
      act();
    } catch (error) {
      expect(error).not.toHaveProperty('name', 'Bug'); // the program's mistake, never ours
    }
    grip.take(bench.port);
  }

  for (const [what, lie] of lies) {
    test(`about its ${what}`, () => {
      const bench = new Bench();
      const pages = [bench.map(0), bench.map(1)];
      const guard = bench.memory.page(pages[0] === undefined ? 0 : pages[0] + 1);
      guard.fill(77);
      const v = victim();
      const liar = lie(v.small);
      for (const [at, n] of [
        [0, 64],
        [0, 65],
        [1, 64],
        [0, 256],
        [64, 1],
        [-1, 2],
        [60, 1e5],
      ] as const) {
        attempt(bench, () => bench.port.read(0, liar, at, n));
        attempt(bench, () => bench.port.write(0, liar, at, n));
        expect(v.intact()).toBe(true);
      }
      expect(guard.every((word) => word === 77)).toBe(true);
    });
  }

  test("what is no array of bytes is refused, as the program's own mistake", () => {
    const bench = new Bench();
    bench.map(0);
    const proxy = new Proxy(new Uint8Array(8), {});
    const wrong: unknown[] = [
      proxy,
      {},
      [],
      null,
      undefined,
      'text',
      5,
      new ArrayBuffer(8),
      new DataView(new ArrayBuffer(8)),
    ];
    for (const thing of wrong) {
      for (const name of ['read', 'write'] as const) {
        expect(() => bench.port[name](0, thing as Uint8Array, 0, 4)).toThrow(TypeError);
      }
    }
  });

  test('a range outside the buffer is refused before anything moves', () => {
    const bench = new Bench();
    bench.map(0);
    const v = victim();
    for (const [at, n] of [
      [0, 65],
      [64, 1],
      [-1, 1],
      [0, -1],
      [Number.NaN, 1],
      [0, Number.NaN],
      [2 ** 32, 1],
      [0, 2 ** 32],
    ] as const) {
      expect(() => bench.port.read(0, v.small, at, n)).toThrow(RangeError);
      expect(() => bench.port.write(0, v.small, at, n)).toThrow(RangeError);
    }
    expect(v.intact()).toBe(true);
  });

  test('a buffer that shrinks while its access waits harms nobody', () => {
    const bench = new Bench();
    // Resizable buffers are newer than the library that this project compiles against.
    const made: unknown = Reflect.construct(ArrayBuffer, [8192, { maxByteLength: 8192 }]);
    const resizable = made as ArrayBuffer & { resize(length: number): void };
    const into = new Uint8Array(resizable);
    const code = (function* (): Op<void> {
      bench.port.read(0, into, 0, 8192) ?? (yield* bench.port.fault());
    })();
    expect(() =>
      bench.run(code, undefined, (va) => {
        bench.map(va >>> 12);
        resizable.resize(100);
      }),
    ).toThrow(RangeError);
  });
});

describe('programs that mean harm', () => {
  /** Contexts 1 and 2 in turn, each until it calls, ends or fails; a resumed one goes on. */
  function duel(
    first: Image,
    second: Image,
    setup: (s: Script) => void = () => undefined,
  ): {
    log: ReturnType<typeof Script.log>;
    machine: PhysicalMachine;
  } {
    const supervisor = new Script({
      boot: (s) => {
        for (const context of [2, 1]) {
          s.space(context);
          s.map(context, 4);
        }
        setup(s);
        s.start(2, 1);
        s.start(1, 0);
      },
      trap: (s, { cause }, current) => {
        const { contexts } = s.machine;
        if (cause === Cause.timerInterrupt) return true;
        if (cause === Cause.environmentCall) contexts.setResult(current, 0);
        // An illegal instruction is forwarded, and its handler says "go on": as a libOS may.
        else if (cause !== Cause.illegalInstruction || s.get(Cell.own) > 20)
          contexts.destroy(current);
        s.put(Cell.own, s.get(Cell.own) + 1);
        const other = 3 - current;
        s.put(
          Cell.current,
          contexts.exists(other) ? other : contexts.exists(current) ? current : -1,
        );
        return true;
      },
    });
    const machine = new PhysicalMachine({ pages: 64, images: [first, second] });
    machine.boot(supervisor);
    machine.run(10_000_000);
    return { log: Script.log((pa) => machine.memory.get(pa)), machine };
  }
  const VA = 0x4000;

  test('a `fault` without a trap repeats no access of another program, least of all its buffers', () => {
    const secret = Uint8Array.from({ length: 16 }, (_, n) => n + 1);
    const inbox = new Uint8Array(16);
    const stolen: number[] = [];
    for (const leak of ['write', 'read'] as const) {
      const first = program(function* (port) {
        if (leak === 'write') port.write(VA, secret, 0, 16) ?? (yield* port.fault());
        else port.read(VA, inbox, 0, 16) ?? (yield* port.fault());
        yield* port.call(1);
      });
      const attack: Image = program(function* (port) {
        yield* port.fault();
        stolen.push(yield* port.load(VA));
        yield* port.store(VA, 0x0bad0bad);
        yield* port.call(1);
        yield* port.fault();
      });
      duel(first, attack);
    }
    expect(stolen.every((word) => word === 0)).toBe(true);
    expect([...inbox].every((byte) => byte === 0)).toBe(true);
  });

  test('a call begun by hand and taken up by `fault` repeats no access of another program', () => {
    const secret = Uint8Array.from({ length: 16 }, (_, n) => n + 1);
    const stolen: number[] = [];
    const first = program(function* (port) {
      port.write(VA, secret, 0, 16) ?? (yield* port.fault());
      yield* port.call(1);
    });
    const attack = program(function* (port) {
      port.call(1).next();
      yield* port.fault();
      stolen.push(yield* port.load(VA));
    });
    duel(first, attack);
    expect(stolen.every((word) => word === 0)).toBe(true);
  });

  test('what one program does to the objects that it is handed, the next does not see', () => {
    const seen: unknown[] = [];
    const attempt = (act: () => void): void => {
      try {
        act();
      } catch {
        // Frozen: as it should be.
      }
    };
    const evil = (): never => {
      throw new Error('code of another program');
    };
    const first = program(function* (port) {
      yield* port.store(VA, 1);
      const handed: object[] = [port, port.load(VA), port.store(VA, 1), port.call(1), port.fault()];
      for (const thing of handed) {
        const prototype = Object.getPrototypeOf(thing) as object;
        // Generators of all programs have a common ancestor, which is the language's and not ours.
        const ours = thing === handed[4] ? [thing] : [thing, prototype];
        for (const target of ours) {
          for (const name of ['load32', 'store32', 'load', 'call', 'fault', 'next', 'of']) {
            attempt(() => Object.defineProperty(target, name, { value: evil, configurable: true }));
          }
          attempt(() =>
            Object.defineProperty(target, Symbol.iterator, { value: evil, configurable: true }),
          );
        }
      }
      yield* port.call(1);
    });
    const second = program(function* (port) {
      yield* port.store(VA, 7);
      seen.push(port.load32(VA) ?? (yield* port.fault()));
      seen.push(yield* port.load(VA));
      seen.push((yield* port.call(3)).status);
    });
    const original = new Map<object, Map<PropertyKey, PropertyDescriptor>>();
    const { port } = new Bench();
    for (const thing of [port, port.load(0), port.call(1)]) {
      const prototype = Object.getPrototypeOf(thing) as object;
      const own = Object.getOwnPropertyDescriptors(prototype) as Record<
        PropertyKey,
        PropertyDescriptor
      >;
      original.set(prototype, new Map(Reflect.ownKeys(own).map((key) => [key, own[key] ?? {}])));
    }
    try {
      const { log } = duel(first, second);
      expect(seen).toEqual([7, 7, 0]);
      expect(log.map(({ cause }) => cause)).not.toContain(Cause.userException);
    } finally {
      // Should the law be broken, the tests after this one shall not be.
      for (const [prototype, own] of original) {
        for (const key of Reflect.ownKeys(prototype)) {
          if (!own.has(key)) attempt(() => Reflect.deleteProperty(prototype, key));
        }
        for (const [key, descriptor] of own) {
          attempt(() => Object.defineProperty(prototype, key, descriptor));
        }
      }
    }
  });

  test('a result that one program keeps does not show what another loads', () => {
    const kept: IteratorResult<unknown, unknown>[] = [];
    const seen: unknown[] = [];
    const first = program(function* (port) {
      yield* port.store(VA, 1);
      yield* port.load(VA);
      kept.push(port.load(VA).next(), port.store(VA, 1).next());
      yield* port.call(1);
      seen.push(...kept.map(({ value }) => value));
    });
    const second = program(function* (port) {
      yield* port.store(VA, 0x5ec2e7);
      seen.push(yield* port.load(VA));
      yield* port.call(1);
    });
    duel(first, second);
    expect(seen[0]).toBe(0x5ec2e7);
    expect(seen.slice(1)).not.toContain(0x5ec2e7);
  });

  test('a switch to what is no number is an illegal instruction', () => {
    for (const to of ['length', 'push', '__proto__', {}, null, undefined, [0]]) {
      const first = program(function* (port) {
        yield* port.switchTo(to as never);
        for (;;) yield 0;
      });
      const { log } = duel(
        first,
        program(function* () {}),
      );
      expect(log[0]?.cause).toBe(Cause.illegalInstruction);
    }
  });

  test('loading an image runs its code for nobody but itself: throwing is its own end', () => {
    const seen: number[] = [];
    const bad: Image = {
      name: 'bad',
      entryCount: 1,
      load: () => {
        throw new Error('no program');
      },
    };
    const good = program(function* (port) {
      yield* port.store(VA, 5);
      seen.push(yield* port.load(VA));
    });
    const { log } = duel(bad, good);
    expect(log.map(({ cause }) => cause)).toEqual([Cause.userException, Cause.threadEnd]);
    expect(seen).toEqual([5]);
  });

  test('loading an image reaches no memory, and leaves nothing behind for the next program', () => {
    const seen: unknown[] = [];
    const bad: Image = {
      name: 'bad',
      entryCount: 1,
      load: (port) => {
        // While translation is off, or another space is set, this would be somebody's memory.
        for (const va of [0, VA, 0x7000, 0x40000000]) {
          try {
            seen.push(port.load32(va), port.store32(va, 0x0bad));
          } catch (error) {
            seen.push(error instanceof Error ? error.name : error);
          }
        }
        return [];
      },
    };
    const good = program(function* (port) {
      seen.push(yield* port.load(VA));
      yield* port.load(0x9000); // a fault of its own, told as such
    });
    const { log } = duel(bad, good);
    expect(seen.filter((got) => typeof got === 'number')).toEqual([0]);
    expect(log.map(({ cause }) => cause)).toEqual([Cause.userException, Cause.loadPageFault]);
  });

  test('an image that has fewer entries than it says ends its own context', () => {
    const bad: Image = { name: 'bad', entryCount: 3, load: () => [] };
    const { log } = duel(
      bad,
      program(function* () {}),
    );
    expect(log.map(({ cause }) => cause)).toEqual([Cause.userException, Cause.threadEnd]);
  });
});

test('the same program on the exokernel twice: identical counters, cycles, output', () => {
  const once = (): unknown => {
    let output = '';
    const machine = new PhysicalMachine({
      pages: 256,
      images: [minimal],
      output: (_channel, bytes) => (output += new TextDecoder().decode(bytes)),
    });
    const config = { environments: 8, extents: 4, slices: 4, sliceCycles: 20_000 };
    machine.boot(
      new Exokernel(
        config,
        [1, 2].map((n) => ({ image: 0, quota: 40, firstBlock: n, blocks: 1 })),
      ),
    );
    machine.run();
    const { counters } = machine.hart;
    const rows = [0, 1, 2, 3].map((layer) => [
      counters.totals(null, layer),
      counters.cycles(null, layer),
    ]);
    return [output, machine.now(), rows];
  };
  expect(once()).toEqual(once());
});
