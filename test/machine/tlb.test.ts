/**
 * The TLB: tags, fences, superpages, and that no size of it changes what a program computes.
 *
 * Its real customer is the hart with the tables in front of it, so most laws are stated there: what
 * a user access reaches, and how many walks were taken.
 */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { RISCV } from '../../machine/costs.ts';
import { Hart, type HartConfig } from '../../machine/hart.ts';
import { Memory } from '../../machine/memory.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { grip } from '../../machine/port.ts';
import { PTE_A, PTE_D, PTE_G, PTE_R, PTE_U, PTE_V, PTE_W } from '../../machine/sv39.ts';
import { spaceTag, Tlb } from '../../machine/tlb.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Regime } from '../../machine/walker.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { minimal } from '../../libos/minimal/minimal.ts';
import { entryOf, getEntry, putEntry, Tables } from './tables.ts';

const RWU = PTE_V | PTE_R | PTE_W | PTE_U | PTE_A | PTE_D;

describe('the TLB alone', () => {
  const FLAGS = RWU;
  const seen = (tlb: Tlb, vpn: number, space: number): number =>
    tlb.find(vpn, space) ? tlb.ppn : -1;

  test('ASID and VMID keep entries apart', () => {
    const tlb = new Tlb(4, 4);
    tlb.fill(8, spaceTag(0, 1), 100, FLAGS, 0);
    tlb.fill(8, spaceTag(0, 2), 101, FLAGS, 0);
    tlb.fill(8, spaceTag(1, 1), 102, FLAGS, 0);
    expect(seen(tlb, 8, spaceTag(0, 1))).toBe(100);
    expect(seen(tlb, 8, spaceTag(0, 2))).toBe(101);
    expect(seen(tlb, 8, spaceTag(1, 1))).toBe(102);
    expect(seen(tlb, 8, spaceTag(1, 2))).toBe(-1);
    expect(seen(tlb, 8, spaceTag(0, 0))).toBe(-1);
  });

  test('a global entry serves every ASID of its VMID and no other', () => {
    for (const level of [0, 1, 2]) {
      const tlb = new Tlb(4, 2);
      tlb.fill(0, spaceTag(3, 1), 512 * 512, FLAGS | PTE_G, level);
      expect(seen(tlb, 0, spaceTag(3, 9))).toBe(512 * 512);
      expect(seen(tlb, 0, spaceTag(2, 1))).toBe(-1);
    }
  });

  test('fences: a page of a space, a space, a guest; global entries only without an ASID', () => {
    const make = (): Tlb => {
      const tlb = new Tlb(8, 4);
      tlb.fill(1, spaceTag(0, 1), 11, FLAGS, 0);
      tlb.fill(2, spaceTag(0, 1), 12, FLAGS, 0);
      tlb.fill(1, spaceTag(0, 2), 21, FLAGS, 0);
      tlb.fill(3, spaceTag(0, 1), 13, FLAGS | PTE_G, 0);
      tlb.fill(1, spaceTag(1, 1), 31, FLAGS, 0);
      tlb.fill(512, spaceTag(0, 1), 512, FLAGS, 1);
      return tlb;
    };
    const left = (tlb: Tlb): number[] =>
      [...tlb.entries()].map(({ ppn }) => ppn).sort((a, b) => a - b);
    const after = (act: (tlb: Tlb) => void): number[] => {
      const tlb = make();
      act(tlb);
      return left(tlb);
    };
    expect(left(make())).toEqual([11, 12, 13, 21, 31, 512]);
    expect(after((tlb) => tlb.dropPage(1, 0, 1))).toEqual([12, 13, 21, 31, 512]);
    expect(after((tlb) => tlb.dropPage(1, 0, null))).toEqual([12, 13, 31, 512]);
    expect(after((tlb) => tlb.dropPage(3, 0, 1))).toEqual([11, 12, 13, 21, 31, 512]);
    expect(after((tlb) => tlb.dropPage(3, 0, null))).toEqual([11, 12, 21, 31, 512]);
    expect(after((tlb) => tlb.dropPage(700, 0, 1))).toEqual([11, 12, 13, 21, 31]);
    expect(after((tlb) => tlb.dropPage(700, 0, 2))).toEqual([11, 12, 13, 21, 31, 512]);
    expect(after((tlb) => tlb.dropSpace(0, 1))).toEqual([13, 21, 31]);
    expect(after((tlb) => tlb.dropSpace(0, null))).toEqual([31]);
    expect(after((tlb) => tlb.dropSpace(1, null))).toEqual([11, 12, 13, 21, 512]);
    expect(after((tlb) => tlb.clear())).toEqual([]);
  });

  test('superpage entries translate each page that they cover and none beside', () => {
    const tlb = new Tlb(4, 2);
    tlb.fill(512 * 3 + 40, spaceTag(0, 1), 512 * 7 + 40, FLAGS, 1);
    expect(seen(tlb, 512 * 3, spaceTag(0, 1))).toBe(512 * 7);
    expect(seen(tlb, 512 * 3 + 511, spaceTag(0, 1))).toBe(512 * 7 + 511);
    expect(seen(tlb, 512 * 4, spaceTag(0, 1))).toBe(-1);
    expect(seen(tlb, 512 * 3 - 1, spaceTag(0, 1))).toBe(-1);
  });

  test('`fill` says which page lost its entry', () => {
    const tlb = new Tlb(1, 2);
    expect(tlb.fill(1, 1, 1, FLAGS, 0)).toBe(-1);
    expect(tlb.fill(2, 1, 2, FLAGS, 0)).toBe(-1);
    expect(tlb.fill(3, 1, 3, FLAGS, 0)).toBe(1);
    expect(tlb.fill(4, 1, 4, FLAGS, 0)).toBe(2);
  });
});

/** A hart with a user program at the port, its tables in the first pages, data from page 40 up. */
function bench(config: HartConfig = {}): {
  hart: Hart;
  memory: Memory;
  tables: Tables;
  root: number;
  regime: Regime;
  /** The word a user loads at virtual page `vpn`, or -1 for a fault. */
  load: (vpn: number) => number;
  store: (vpn: number, value: number) => boolean;
  misses: (act: () => void) => number;
} {
  const memory = new Memory(2048);
  const hart = new Hart(memory, RISCV, config);
  const tables = new Tables(memory, 0);
  const root = tables.take();
  const regime = { vmid: 0, asid: 1, root, guestRoot: -1 };
  for (let page = 40; page < 2048; page++) memory.put(page * PAGE_BYTES, page);
  hart.install(regime);
  hart.enterLayer(3);
  const pass = (value: number | undefined): number => {
    if (value !== undefined) return value;
    grip.take(hart.port);
    return -1;
  };
  return {
    hart,
    memory,
    tables,
    root,
    regime,
    load: (vpn) => {
      grip.setBudget(hart.port, 2 ** 30);
      return pass(hart.port.load32(vpn * PAGE_BYTES));
    },
    store: (vpn, value) => {
      grip.setBudget(hart.port, 2 ** 30);
      return pass(hart.port.store32(vpn * PAGE_BYTES + 4, value)) === 0;
    },
    misses: (act) => {
      const before = hart.counters.totals().tlbMisses;
      act();
      return hart.counters.totals().tlbMisses - before;
    },
  };
}

describe('walks taken', () => {
  test('one per page on first touch, one more for the first store to a clean page', () => {
    const b = bench();
    b.tables.map(b.root, 5, 50, RWU & ~(PTE_A | PTE_D));
    expect(b.misses(() => b.load(5))).toBe(1);
    expect(b.misses(() => b.load(5))).toBe(0);
    expect(b.misses(() => b.store(5, 1))).toBe(1);
    expect(b.misses(() => b.store(5, 2))).toBe(0);
    expect(b.misses(() => b.load(5))).toBe(0);
  });

  test('without a TLB every access walks', () => {
    const b = bench({ tlbSets: 0, tlbWays: 0 });
    b.tables.map(b.root, 5, 50, RWU);
    for (let n = 0; n < 3; n++) expect(b.misses(() => b.load(5))).toBe(1);
    for (let n = 0; n < 3; n++) expect(b.misses(() => b.store(5, n))).toBe(1);
  });

  test('a TLB of one entry remembers one page', () => {
    const b = bench({ tlbSets: 1, tlbWays: 1 });
    for (const vpn of [5, 6]) b.tables.map(b.root, vpn, 50 + vpn, RWU);
    expect(b.misses(() => [5, 5, 5].forEach(b.load))).toBe(1);
    expect(b.misses(() => [6, 5, 6, 5].forEach(b.load))).toBe(4);
  });

  test('pages that share a slot of the table in front do not share a translation', () => {
    const b = bench();
    b.tables.map(b.root, 5, 50, RWU);
    b.tables.map(b.root, 5 + 256, 51, RWU);
    for (let n = 0; n < 3; n++) expect([b.load(5), b.load(5 + 256)]).toEqual([50, 51]);
  });

  test('a superpage is one entry: one walk to load, one more for its first store, no others', () => {
    const b = bench();
    b.tables.map(b.root, 512, 1024, RWU & ~(PTE_A | PTE_D), 1);
    expect(
      b.misses(() => [0, 1, 2, 511].forEach((n) => expect(b.load(512 + n)).toBe(1024 + n))),
    ).toBe(1);
    expect(b.misses(() => b.store(512, 1))).toBe(1);
    expect(b.misses(() => [1, 2, 3, 511].forEach((n) => b.store(512 + n, 1)))).toBe(0);
    expect([...b.hart.tlbEntries()].filter(({ pages }) => pages === 512)).toHaveLength(1);
  });
});

describe('fences', () => {
  test('a page: it, and whatever else the same leaf translated', () => {
    // "invalidates all address-translation cache entries that contain leaf page table entries
    // corresponding to the virtual address": a superpage leaf corresponds to all of its addresses.
    const b = bench();
    b.tables.map(b.root, 512, 1024, RWU, 1);
    expect([b.load(512), b.load(513)]).toEqual([1024, 1025]);
    b.tables.map(b.root, 512, 1536, RWU, 1);
    b.hart.fence(0, 1, 512);
    expect([b.load(512), b.load(513)]).toEqual([1536, 1537]);
  });

  test("a page of a guest's superpage that the second stage splits", () => {
    const b = bench();
    const guestRoot = b.tables.take(4, 4);
    for (let n = 0; n < 1024; n++) b.tables.map(guestRoot, n, 1024 + n, RWU);
    const [root, middle] = [1, 2]; // the guest's, at host pages 1025, 1026
    putEntry(b.memory, 1024 + root, 0, entryOf(middle, PTE_V));
    putEntry(b.memory, 1024 + middle, 1, entryOf(0, RWU));
    b.hart.install({ vmid: 1, asid: 1, root, guestRoot });
    expect([b.load(512 + 8), b.load(512 + 9)]).toEqual([1024 + 8, 1024 + 9]);
    putEntry(b.memory, 1024 + middle, 1, entryOf(512, RWU));
    b.hart.fence(1, 1, 512 + 8);
    expect([b.load(512 + 8), b.load(512 + 9)]).toEqual([1536 + 8, 1536 + 9]);
  });

  test('a page of one space leaves the others; a global page needs a fence without ASID', () => {
    const b = bench();
    b.tables.map(b.root, 5, 50, RWU | PTE_G);
    b.tables.map(b.root, 6, 60, RWU);
    b.load(5);
    b.load(6);
    b.hart.fence(0, 2, 6);
    b.hart.fence(0, 1, 5);
    expect(b.misses(() => b.load(6))).toBe(0);
    expect(b.misses(() => b.load(5))).toBe(0);
    b.tables.map(b.root, 5, 51, RWU | PTE_G);
    b.hart.fence(0, null, 5);
    expect(b.load(5)).toBe(51);
  });

  test('after hfence.gvma nothing of the old second stage is used', () => {
    const b = bench();
    const guestRoot = b.tables.take(4, 4);
    for (let n = 0; n < 64; n++) b.tables.map(guestRoot, n, 1024 + n, RWU);
    for (const base of [1024, 1536]) {
      putEntry(b.memory, base + 1, 0, entryOf(2, PTE_V));
      putEntry(b.memory, base + 2, 0, entryOf(3, PTE_V));
      for (let n = 0; n < 64; n++) putEntry(b.memory, base + 3, n, entryOf(n, RWU));
    }
    b.hart.install({ vmid: 1, asid: 0, root: 1, guestRoot });
    for (let n = 8; n < 32; n++) expect(b.load(n)).toBe(1024 + n);
    for (let n = 0; n < 64; n++) b.tables.map(guestRoot, n, 1536 + n, RWU);
    b.hart.fenceGuest(1);
    for (let n = 8; n < 32; n++) expect(b.load(n)).toBe(1536 + n);
  });

  test('more spaces than the table in front has tags', () => {
    const b = bench();
    const roots = [b.root, b.tables.take()];
    roots.forEach((root, n) => b.tables.map(root, 5, 50 + n, RWU));
    for (let asid = 1; asid <= 2100; asid++) {
      b.hart.install({ vmid: 0, asid, root: roots[asid % 2] ?? 0, guestRoot: -1 });
      expect(b.load(5)).toBe(50 + (asid % 2));
    }
    for (let asid = 1; asid <= 2100; asid += 97) {
      b.hart.install({ vmid: 0, asid, root: roots[asid % 2] ?? 0, guestRoot: -1 });
      expect(b.load(5)).toBe(50 + (asid % 2));
    }
  });

  // Map, unmap, fence and access at random, in two spaces and on both page sizes: an access finds
  // one of the mappings that stood since the last fence that covers it, and after a fence only one.
  const SLOTS = 2; // pages (or superpages) that mappings are changed in
  const where = { space: fc.constantFrom(0, 0, 1), slot: fc.nat(SLOTS - 1), offset: fc.nat(1) };
  const one = <T extends string>(
    ...names: T[]
  ): fc.Arbitrary<{
    do: T;
    space: number;
    slot: number;
    offset: number;
  }> => fc.record({ do: fc.constantFrom(...names), ...where });
  const command = fc.oneof(
    { weight: 8, arbitrary: one('load', 'store') },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('map' as const),
        ...where,
        target: fc.nat(2),
        writable: fc.constantFrom(true, true, false),
      }),
    },
    { weight: 1, arbitrary: one('unmap') },
    { weight: 2, arbitrary: one('fence page') },
    { weight: 1, arbitrary: one('fence space', 'fence all') },
  );

  for (const huge of [false, true]) {
    for (const [sets, ways] of [
      [0, 0],
      [1, 1],
      [128, 4],
    ] as const) {
      test(`no stale translation: ${huge ? '2 MiB' : '4 KiB'}, ${sets} sets of ${ways}`, () => {
        fc.assert(
          fc.property(
            fc.array(command, { minLength: 1, maxLength: 90, size: 'max' }),
            (commands) => {
              const memory = new Memory(2048);
              const hart = new Hart(memory, RISCV, { tlbSets: sets, tlbWays: ways });
              const tables = new Tables(memory, 0);
              const roots = [tables.take(), tables.take()];
              hart.enterLayer(3);
              const size = huge ? 512 : 1;
              const vpnOf = (slot: number): number => (huge ? 512 * slot : slot * 256);
              const target = (n: number): number => (huge ? 512 * (n + 1) : 100 + n);
              // What may be used: first page and right to store, or null for "faults".
              type May = { base: number; writable: boolean } | null;
              const may = new Map<string, May[]>();
              const key = (space: number, slot: number): string => `${space}/${slot}`;
              const now = new Map<string, May>();
              const settle = (space: number, slot: number): void => {
                may.set(key(space, slot), [now.get(key(space, slot)) ?? null]);
              };
              for (const space of [0, 1]) {
                for (let slot = 0; slot < SLOTS; slot++) settle(space, slot);
              }
              for (const c of commands) {
                const id = key(c.space, c.slot);
                const root = roots[c.space] ?? 0;
                switch (c.do) {
                  case 'map':
                  case 'unmap': {
                    const base = c.do === 'map' ? target(c.target) : 0;
                    const flags = c.do === 'unmap' ? 0 : c.writable ? RWU : RWU & ~PTE_W;
                    tables.map(root, vpnOf(c.slot), base, flags, huge ? 1 : 0);
                    const is = c.do === 'unmap' ? null : { base, writable: c.writable };
                    now.set(id, is);
                    may.get(id)?.push(is);
                    break;
                  }
                  case 'fence page':
                    hart.fence(0, c.space + 1, vpnOf(c.slot) + (c.offset % size));
                    settle(c.space, c.slot);
                    break;
                  case 'fence space':
                    hart.fence(0, c.space + 1, null);
                    for (let slot = 0; slot < SLOTS; slot++) settle(c.space, slot);
                    break;
                  case 'fence all':
                    hart.fence(0, null, null);
                    for (const space of [0, 1]) {
                      for (let slot = 0; slot < SLOTS; slot++) settle(space, slot);
                    }
                    break;
                  default: {
                    hart.install({ vmid: 0, asid: c.space + 1, root, guestRoot: -1 });
                    const offset = c.offset % size;
                    const vpn = vpnOf(c.slot) + offset;
                    grip.setBudget(hart.port, 2 ** 30);
                    const write = c.do === 'store';
                    for (let n = 0; n < 3; n++)
                      memory.put((target(n) + offset) * PAGE_BYTES, n + 1);
                    const got = write
                      ? hart.port.store32(vpn * PAGE_BYTES, 99)
                      : hart.port.load32(vpn * PAGE_BYTES);
                    grip.take(hart.port);
                    let reached = got === undefined ? null : (got ?? 0);
                    if (write && got !== undefined) {
                      reached = 0;
                      for (let n = 0; n < 3; n++) {
                        if (memory.get((target(n) + offset) * PAGE_BYTES) === 99) reached = n + 1;
                      }
                    }
                    const allowed = (may.get(id) ?? []).map((m) =>
                      m === null || (write && !m.writable) ? null : (m.base - target(0)) / size + 1,
                    );
                    expect(allowed).toContain(reached);
                  }
                }
              }
            },
          ),
          { numRuns: 60 },
        );
      });
    }
  }
});

describe('what a program computes does not depend on the TLB', () => {
  const SIZES: readonly HartConfig[] = [
    {},
    { tlbSets: 1, tlbWays: 1 },
    { tlbSets: 0, tlbWays: 0 },
    { tlbSets: 16, tlbWays: 1, walkCaches: false },
  ];
  const tenant = { image: 0, quota: 64, firstBlock: 0, blocks: 64 };
  const kernel = (): Exokernel =>
    new Exokernel({ environments: 8, extents: 4, slices: 4, sliceCycles: 100_000 }, [tenant]);

  function run(config: HartConfig, virtual: boolean): { output: string; misses: number } {
    let output = '';
    const machine = new PhysicalMachine({
      pages: 1024,
      images: virtual ? [] : [minimal],
      output: (_channel, bytes) => (output += new TextDecoder().decode(bytes)),
      ...config,
    });
    const uni = new Unikernel({ environments: 8, sliceCycles: 100_000 }, tenant, 1);
    const guest = {
      supervisor: uni,
      images: [minimal],
      pages: 512,
      firstBlock: 0,
      blocks: 64,
      channel: 1,
    };
    const hypervisor = { sliceCycles: 50_000, backing: 'touch', secondStage: '4KiB' } as const;
    machine.boot(virtual ? new Hypervisor(hypervisor, [guest]) : kernel());
    machine.run();
    return { output, misses: machine.hart.counters.totals().tlbMisses };
  }

  for (const virtual of [false, true]) {
    test(virtual ? 'in a virtual machine' : 'on the exokernel', () => {
      const runs = SIZES.map((config) => run(config, virtual));
      expect(runs[0]?.output).toContain('9592 primes below 100000');
      for (const { output } of runs) expect(output).toBe(runs[0]?.output);
      expect(runs[1]?.misses).toBeGreaterThan(runs[0]?.misses ?? 0);
      expect(runs[2]?.misses).toBeGreaterThan(runs[1]?.misses ?? 0);
    });
  }

  test('the helper that reads entries reads all of them', () => {
    const memory = new Memory(1);
    putEntry(memory, 0, 3, 0x8000_0001_ffff_ffffn);
    expect(getEntry(memory, 0, 3)).toBe(0x8000_0001_ffff_ffffn);
  });
});
