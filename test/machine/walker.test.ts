/** The walker against the specification: counts by hand, edges by name, the rest against a model. */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { Memory } from '../../machine/memory.ts';
import { PTE_A, PTE_D, PTE_G, PTE_R, PTE_U, PTE_V, PTE_W, PTE_X } from '../../machine/sv39.ts';
import { type Regime, Walker } from '../../machine/walker.ts';
import { type Access, entryOf, getEntry, putEntry, Tables, walkOnce, walkTwice } from './tables.ts';

const AD = PTE_A | PTE_D;
const RWU = PTE_V | PTE_R | PTE_W | PTE_U | AD;
const KERNEL = PTE_V | PTE_R | PTE_W | AD;
const READ: Access = { write: false, user: true };
const WRITE: Access = { write: true, user: true };

interface Bench {
  readonly memory: Memory;
  readonly tables: Tables;
  readonly walker: Walker;
  /** Walks and says how many references it took, -1 for a fault. */
  readonly walk: (regime: Regime, vpn: number, access?: Access) => number;
}

function bench(pages: number, caches: boolean): Bench {
  const memory = new Memory(pages);
  let spent = 0;
  const walker = new Walker(memory, caches, (references) => {
    spent += references;
  });
  return {
    memory,
    tables: new Tables(memory, 0),
    walker,
    walk: (regime, vpn, { write, user } = READ) => {
      spent = 0;
      return walker.walk(regime, vpn, write, user) ? spent : -1;
    },
  };
}

const host = (root: number): Regime => ({ vmid: 0, asid: 1, root, guestRoot: -1 });

describe('references of a walk, without caches', () => {
  test('one stage: 3 for 4 KiB, 2 for 2 MiB, 1 for 1 GiB', () => {
    const b = bench(2048, false);
    const root = b.tables.take();
    b.tables.map(root, 5, 100, RWU);
    b.tables.map(root, 512, 1024, RWU, 1);
    b.tables.map(root, 2 ** 18, 0, RWU, 2);
    expect(b.walk(host(root), 5)).toBe(3);
    expect(b.walk(host(root), 512 + 17)).toBe(2);
    expect(b.walker.ppn).toBe(1024 + 17);
    expect(b.walker.level).toBe(1);
    expect(b.walk(host(root), 2 ** 18 + 77)).toBe(1);
    expect(b.walker.ppn).toBe(77);
    expect(b.walker.level).toBe(2);
  });

  test.each([
    [0, 15],
    [1, 11],
    [2, 7],
  ])('two stages, second-stage leaf of level %i: %i', (level, references) => {
    const b = bench(2048, false);
    const guestRoot = b.tables.take(4, 4);
    const guestPages = 64; // guest-physical 0.. is host 1024.., or the same for a gigapage
    const at = level === 2 ? 0 : 1024;
    if (level === 0) {
      for (let n = 0; n < guestPages; n++) b.tables.map(guestRoot, n, at + n, RWU);
    } else b.tables.map(guestRoot, 0, at, RWU, level);
    // The guest's tables, in its pages 30 to 32, written where they really are.
    const [root, middle, leaf] = [30, 31, 32];
    if (level === 2) expect(b.tables.next).toBeLessThan(30);
    putEntry(b.memory, at + root, 0, entryOf(middle, PTE_V));
    putEntry(b.memory, at + middle, 0, entryOf(leaf, PTE_V));
    putEntry(b.memory, at + leaf, 9, entryOf(40, RWU));
    const regime = { vmid: 1, asid: 1, root, guestRoot };
    expect(b.walk(regime, 9)).toBe(references);
    expect(b.walker.ppn).toBe(at + 40);
    expect(b.walk(regime, 9, WRITE)).toBe(references);
    // A guest in Bare: the second stage alone.
    expect(b.walk({ ...regime, root: -1 }, 9)).toBe(3 - level);
  });

  test('a fault ends the walk where it is found', () => {
    const b = bench(64, false);
    const root = b.tables.take();
    b.tables.map(root, 5, 10, RWU);
    const counts: number[] = [];
    const walker = new Walker(b.memory, false, (n) => counts.push(n));
    expect(walker.walk(host(root), 6, false, true)).toBe(false);
    expect(walker.walk(host(root), 512, false, true)).toBe(false);
    expect(walker.walk(host(root), 2 ** 18, false, true)).toBe(false);
    expect(counts).toEqual([3, 2, 1]);
  });
});

describe('one stage, the edges', () => {
  /** A table tree of pages 0 (root), 1, 2 with one path for page 0; `put` spoils it. */
  function path(pages = 2048): Bench & { put(level: number, entry: bigint): void } {
    const b = bench(pages, false);
    putEntry(b.memory, 0, 0, entryOf(1, PTE_V));
    putEntry(b.memory, 1, 0, entryOf(2, PTE_V));
    putEntry(b.memory, 2, 0, entryOf(9, RWU));
    return { ...b, put: (level, entry) => putEntry(b.memory, 2 - level, 0, entry) };
  }
  const faults = (level: number, entry: bigint, access = READ, pages = 2048): void => {
    const p = path(pages);
    p.put(level, entry);
    const before = p.memory.computeHash();
    expect(p.walk(host(0), 0, access)).toBe(-1);
    expect(p.walker.faultStage).toBe(1);
    expect(p.memory.computeHash()).toEqual(before); // a walk that faults marks nothing
  };

  test('V clear, whatever else is set', () => {
    for (let level = 0; level < 3; level++) faults(level, entryOf(1, 0x3fe));
  });
  test('W without R', () => {
    for (const access of [READ, WRITE]) {
      faults(0, entryOf(9, PTE_V | PTE_W | PTE_U | AD), access);
      faults(0, entryOf(9, PTE_V | PTE_W | PTE_X | PTE_U | AD), access);
      faults(1, entryOf(0, PTE_V | PTE_W | PTE_U | AD), access);
    }
  });
  test('a pointer in the last level', () => faults(0, entryOf(9, PTE_V)));
  test('A, D or U in a pointer', () => {
    for (const flag of [PTE_A, PTE_D, PTE_U]) {
      faults(2, entryOf(1, PTE_V | flag));
      faults(1, entryOf(2, PTE_V | flag));
    }
  });
  test('G and the software bits in a pointer are allowed', () => {
    const p = path();
    p.put(2, entryOf(1, PTE_V | PTE_G | (3 << 8)));
    expect(p.walk(host(0), 0)).toBe(3);
  });
  test('each reserved or too high bit of the upper word', () => {
    for (let bit = 32n; bit < 64n; bit++) {
      for (const level of [0, 1, 2]) {
        const flags = level === 0 ? RWU : PTE_V;
        faults(level, entryOf(level === 0 ? 9 : 3 - level, flags) | (1n << bit));
      }
    }
  });
  test('a misaligned superpage', () => {
    for (const ppn of [1, 256, 511, 513]) faults(1, entryOf(ppn, RWU));
    for (const ppn of [1, 512, 2 ** 17]) faults(2, entryOf(ppn, RWU));
  });
  test('page numbers beyond memory, of leaves and of tables', () => {
    for (const ppn of [2048, 2 ** 20, 2 ** 22 - 1]) {
      faults(0, entryOf(ppn, RWU));
      faults(1, entryOf(ppn, PTE_V));
      faults(2, entryOf(ppn, PTE_V));
    }
    faults(1, entryOf(512, RWU), READ, 512);
  });
  test('a superpage that only begins in memory: inside works, outside faults', () => {
    const b = bench(700, false);
    const tables = new Tables(b.memory, 0);
    const root = tables.take();
    tables.map(root, 512, 512, RWU, 1);
    expect(b.walk(host(root), 512 + 187)).toBe(2);
    expect(b.walk(host(root), 512 + 188)).toBe(-1);
  });
  test('a root beyond memory', () => {
    const b = bench(16, false);
    expect(b.walk(host(16), 0)).toBe(-1);
    expect(b.walk(host(2 ** 22), 0)).toBe(-1);
  });
  test('permissions: R for a load, W for a store, X is neither', () => {
    faults(0, entryOf(9, PTE_V | PTE_R | PTE_U | AD), WRITE);
    faults(0, entryOf(9, PTE_V | PTE_X | PTE_U | AD), READ);
    faults(0, entryOf(9, PTE_V | PTE_X | PTE_U | AD), WRITE);
  });
  test('U: a user needs it, a supervisor must not meet it', () => {
    faults(0, entryOf(9, KERNEL), READ);
    faults(0, entryOf(9, RWU), { write: false, user: false });
    const p = path();
    p.put(0, entryOf(9, KERNEL));
    expect(p.walk(host(0), 0, { write: true, user: false })).toBe(3);
  });
  test('A is set by a load, A and D by a store, and nothing is written twice', () => {
    const p = path();
    const clean = PTE_V | PTE_R | PTE_W | PTE_U;
    p.put(0, entryOf(9, clean | (2 << 8)));
    expect(p.walk(host(0), 0, READ)).toBe(3);
    expect(getEntry(p.memory, 2, 0)).toBe(entryOf(9, clean | (2 << 8) | PTE_A));
    expect(p.walker.flags & PTE_D).toBe(0);
    p.walk(host(0), 0, WRITE);
    expect(getEntry(p.memory, 2, 0)).toBe(entryOf(9, clean | (2 << 8) | AD));
    expect(getEntry(p.memory, 1, 0)).toBe(entryOf(2, PTE_V)); // pointers are left alone
    const settled = p.memory.computeHash();
    p.walk(host(0), 0, WRITE);
    p.walk(host(0), 0, READ);
    expect(p.memory.computeHash()).toEqual(settled);
  });
});

describe('two stages, the edges', () => {
  const [ROOT, MIDDLE, LEAF, DATA] = [30, 31, 32, 40];
  const AT = 128; // host page of guest page 0

  function guest(): Bench & { readonly regime: Regime; readonly guestRoot: number } {
    const b = bench(256, false);
    const guestRoot = b.tables.take(4, 4);
    for (let n = 0; n < 64; n++) b.tables.map(guestRoot, n, AT + n, RWU);
    putEntry(b.memory, AT + ROOT, 0, entryOf(MIDDLE, PTE_V));
    putEntry(b.memory, AT + MIDDLE, 0, entryOf(LEAF, PTE_V));
    putEntry(b.memory, AT + LEAF, 0, entryOf(DATA, RWU));
    return { ...b, guestRoot, regime: { vmid: 1, asid: 0, root: ROOT, guestRoot } };
  }

  test("the first-stage page table is missing: the guest's address of it, the access as it was", () => {
    for (const [page, access] of [
      [ROOT, READ],
      [MIDDLE, WRITE],
      [LEAF, WRITE],
      [DATA, READ],
    ] as const) {
      const g = guest();
      g.tables.map(g.guestRoot, page, 0, 0);
      expect(g.walk(g.regime, 0, access)).toBe(-1);
      expect([g.walker.faultStage, g.walker.faultGpa]).toEqual([2, page * 4096]);
    }
  });
  test('a second-stage leaf needs U', () => {
    const g = guest();
    g.tables.map(g.guestRoot, DATA, AT + DATA, KERNEL);
    expect(g.walk(g.regime, 0)).toBe(-1);
    expect(g.walker.faultStage).toBe(2);
  });
  test('a second-stage leaf with W and without R is reserved', () => {
    const g = guest();
    g.tables.map(g.guestRoot, DATA, AT + DATA, PTE_V | PTE_W | PTE_U | AD);
    expect(g.walk(g.regime, 0, WRITE)).toBe(-1);
    expect(g.walker.faultStage).toBe(2);
  });
  test('a store to a page that the second stage gives read-only', () => {
    const g = guest();
    g.tables.map(g.guestRoot, DATA, AT + DATA, PTE_V | PTE_R | PTE_U | AD);
    expect(g.walk(g.regime, 0, READ)).toBe(15);
    expect(g.walk(g.regime, 0, WRITE)).toBe(-1);
    expect([g.walker.faultStage, g.walker.faultGpa]).toEqual([2, DATA * 4096]);
  });
  test('guest page numbers beyond 50 bits of address, or beyond the host, are its faults', () => {
    const g = guest();
    for (const page of [64, 2 ** 20, 2 ** 22 - 1]) {
      putEntry(g.memory, AT + LEAF, 0, entryOf(page, RWU));
      expect(g.walk(g.regime, 0)).toBe(-1);
      expect([g.walker.faultStage, g.walker.faultGpa]).toEqual([2, page * 4096]);
    }
    expect(g.walk({ ...g.regime, root: 2 ** 22 }, 0)).toBe(-1);
    g.tables.map(g.guestRoot, 50, 256, RWU); // the host's own mistake is a fault too
    putEntry(g.memory, AT + LEAF, 0, entryOf(50, RWU));
    expect(g.walk(g.regime, 0)).toBe(-1);
  });
  test('a leaf beyond memory is not marked accessed: the access did not happen', () => {
    const g = guest();
    const clean = PTE_V | PTE_R | PTE_W | PTE_U;
    g.tables.map(g.guestRoot, 50, 256, clean);
    putEntry(g.memory, AT + LEAF, 0, entryOf(50, RWU));
    const before = g.memory.computeHash();
    expect(g.walk(g.regime, 0, WRITE)).toBe(-1);
    expect(g.memory.computeHash()).toEqual(before);
  });
  test("a load marks A in both stages; a store A and D; the guest's own tables A only", () => {
    const g = guest();
    const clean = PTE_V | PTE_R | PTE_W | PTE_U;
    for (const page of [ROOT, MIDDLE, LEAF, DATA])
      g.tables.map(g.guestRoot, page, AT + page, clean);
    const second = (page: number): number => {
      let table = g.guestRoot;
      for (const level of [2, 1]) {
        const entry = getEntry(g.memory, table, (page >>> (9 * level)) & 511);
        table = Number(entry >> 10n);
      }
      return Number(getEntry(g.memory, table, page) & 0xc0n);
    };
    g.walk(g.regime, 0, READ);
    expect([ROOT, MIDDLE, LEAF, DATA].map(second)).toEqual([PTE_A, PTE_A, PTE_A, PTE_A]);
    g.walk(g.regime, 0, WRITE);
    expect([ROOT, MIDDLE, LEAF, DATA].map(second)).toEqual([PTE_A, PTE_A, PTE_A, AD]);
  });
  test("marking a guest's entry is a store to the page it stands in: D there, W needed", () => {
    // "Guest-Page Faults": implicit writes of VS-stage page tables translate as stores.
    const g = guest();
    const clean = PTE_V | PTE_R | PTE_W | PTE_U;
    g.tables.map(g.guestRoot, LEAF, AT + LEAF, PTE_V | PTE_R | PTE_U | AD);
    putEntry(g.memory, AT + LEAF, 0, entryOf(DATA, clean));
    expect(g.walk(g.regime, 0, READ)).toBe(-1);
    expect([g.walker.faultStage, g.walker.faultGpa]).toEqual([2, LEAF * 4096]);
    expect(getEntry(g.memory, AT + LEAF, 0)).toBe(entryOf(DATA, clean));
  });
  test('a first-stage superpage over small second-stage pages is small', () => {
    const g = guest();
    putEntry(g.memory, AT + MIDDLE, 0, entryOf(0, RWU));
    expect(g.walk(g.regime, 7)).toBe(11);
    expect([g.walker.ppn, g.walker.level]).toEqual([AT + 7, 0]);
    expect(g.walk(g.regime, 64)).toBe(-1);
    expect(g.walker.faultGpa).toBe(64 * 4096);
  });
});

describe('random tables against the model', () => {
  // A tree that works (root 0, middle 1, leaf 2; second stage 4 to 7, 8, 9, the identity), then
  // near misses: entries of it replaced by others that are nearly right. Noise alone finds nothing.
  const PAGES = 16;
  const flags = fc.oneof(
    { weight: 3, arbitrary: fc.constantFrom(PTE_V, PTE_V | PTE_G) },
    { weight: 6, arbitrary: fc.constantFrom(RWU, RWU & ~AD, RWU & ~PTE_D, RWU & ~PTE_W) },
    { weight: 2, arbitrary: fc.constantFrom(KERNEL, KERNEL & ~AD, KERNEL | PTE_X) },
    { weight: 3, arbitrary: fc.nat(0x3ff) },
  );
  const ppn = fc.oneof(
    { weight: 8, arbitrary: fc.nat(PAGES - 1) },
    { weight: 3, arbitrary: fc.constantFrom(0, 512, 2 ** 18) },
    { weight: 2, arbitrary: fc.constantFrom(PAGES, 2 ** 20, 2 ** 22 - 1) },
  );
  const upper = fc.oneof(
    { weight: 12, arbitrary: fc.constant(0n) },
    { weight: 1, arbitrary: fc.bigInt(1n, 2n ** 32n - 1n) },
  );
  const spoilt = fc.record({
    page: fc.constantFrom(0, 1, 2, 4, 8, 9, 2, 9),
    index: fc.constantFrom(0, 0, 1, 2, 3),
    ppn,
    flags,
    upper,
  });
  type Slot = { page: number; index: number; ppn: number; flags: number; upper: bigint };
  const leaves = fc.array(fc.tuple(fc.nat(3), fc.nat(PAGES - 1), flags), { maxLength: 4 });
  const vpn = fc
    .tuple(fc.constantFrom(0, 0, 0, 1, 256), fc.constantFrom(0, 0, 0, 1), fc.nat(3))
    .map(([a, b, c]) => a * 2 ** 18 + b * 512 + c);
  const access = fc.record({ write: fc.boolean(), user: fc.constantFrom(true, true, false) });
  const scenario = fc.record({
    leaves,
    spoilt: fc.array(spoilt, { maxLength: 4 }),
    walks: fc.array(fc.tuple(vpn, access), { minLength: 1, maxLength: 8 }),
    root: fc.constantFrom(0, 0, 0, 0, 1, PAGES),
  });

  /** Two memories with the same tables: one for the machine, one for the model. */
  function twice(
    entries: readonly (readonly [number, number, number])[],
    slots: readonly Slot[],
  ): [Memory, Memory] {
    const both: [Memory, Memory] = [new Memory(PAGES), new Memory(PAGES)];
    for (const memory of both) {
      putEntry(memory, 0, 0, entryOf(1, PTE_V));
      putEntry(memory, 1, 0, entryOf(2, PTE_V));
      for (let n = 0; n < 4; n++) putEntry(memory, 2, n, entryOf(10 + n, RWU));
      for (const [index, page, how] of entries) putEntry(memory, 2, index, entryOf(page, how));
      putEntry(memory, 4, 0, entryOf(8, PTE_V));
      putEntry(memory, 8, 0, entryOf(9, PTE_V));
      for (let n = 0; n < PAGES; n++) putEntry(memory, 9, n, entryOf(n, RWU));
      for (const s of slots) {
        putEntry(memory, s.page, s.index, entryOf(s.ppn, s.flags) | (s.upper << 32n));
      }
    }
    return both;
  }

  test('one stage: the same page or a fault, and the same memory after', () => {
    let translated = 0;
    let faulted = 0;
    fc.assert(
      fc.property(scenario, ({ leaves: entries, spoilt: slots, walks, root }) => {
        const [memory, model] = twice(entries, slots);
        const walker = new Walker(memory, false, () => undefined);
        for (const [page, how] of walks) {
          const found = walker.walk(host(root), page, how.write, how.user);
          const expected = walkOnce(model, root, page, how);
          expect(found ? walker.ppn : -1).toBe(expected.stage === 0 ? expected.ppn : -1);
          if (found) translated++;
          else faulted++;
        }
        expect(memory.computeHash()).toEqual(model.computeHash());
      }),
      { numRuns: 1000 },
    );
    expect(Math.min(translated, faulted)).toBeGreaterThan(500);
  });

  test('two stages: the same page, or a fault of the same stage at the same address', () => {
    let translated = 0;
    let faulted = 0;
    fc.assert(
      fc.property(scenario, ({ leaves: entries, spoilt: slots, walks, root }) => {
        const [memory, model] = twice(entries, slots);
        const walker = new Walker(memory, false, () => undefined);
        for (const [page, how] of walks) {
          for (const first of [root, -1]) {
            const regime = { vmid: 1, asid: 0, root: first, guestRoot: 4 };
            const found = walker.walk(regime, page, how.write, how.user);
            const expected = walkTwice(model, first, 4, page, how);
            const got = found
              ? { stage: 0, ppn: walker.ppn }
              : walker.faultStage === 2
                ? { stage: 2, gpa: walker.faultGpa }
                : { stage: 1 };
            expect(got).toEqual(expected);
            if (found) translated++;
            else faulted++;
          }
        }
      }),
      { numRuns: 1000 },
    );
    expect(Math.min(translated, faulted)).toBeGreaterThan(500);
  });

  test('with caches never more references, and the same answer', () => {
    let saved = 0;
    fc.assert(
      fc.property(scenario, ({ leaves: entries, spoilt: slots, walks, root }) => {
        const [memory, other] = twice(entries, slots);
        let plain = 0;
        let cached = 0;
        const a = new Walker(memory, false, (n) => (plain = n));
        const b = new Walker(other, true, (n) => (cached = n));
        for (const [page, how] of [...walks, ...walks]) {
          for (const regime of [host(root), { vmid: 1, asid: 0, root, guestRoot: 4 }]) {
            const found = a.walk(regime, page, how.write, how.user);
            expect(b.walk(regime, page, how.write, how.user)).toBe(found);
            expect(cached).toBeLessThanOrEqual(plain);
            if (found) expect(b.ppn).toBe(a.ppn);
            saved += plain - cached;
          }
        }
      }),
      { numRuns: 500 },
    );
    expect(saved).toBeGreaterThan(1000);
  });
});
