/**
 * Wakeup predicates and deadlines: what a sleeper is woken by, what it is told, and that a sleeper
 * holds nobody back. The kernel's evaluation is held to a naive one over random predicates.
 */
import * as fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import {
  Call,
  Env,
  EnvState,
  MAP_READ,
  MAP_WRITE,
  Operator,
  Page,
  PAGE_BITS,
  PAGE_TAG_BITS,
  PageKind,
  packName,
  PREDICATE_TERMS,
  READ,
  Status,
  tagOf,
  Woken,
} from '../../kernel/abi.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Op } from '../../machine/user-port.ts';
import { type Home, LATE_DISK, NAME_B, Rig, SCRATCH } from './harness.ts';
import { audit } from '../../check/invariants/index.ts';

const RW = MAP_READ | MAP_WRITE;
const TERMS = SCRATCH + 512;
const PLACE = 300; // virtual page that the tests watch
const at = PLACE * PAGE_BYTES;

let rig: Rig;
afterEach(() => {
  expect(audit(rig.raw)).toEqual([]);
});

interface Watch {
  readonly page: number;
  readonly entry?: number;
  readonly slot?: number;
  readonly word?: number;
  readonly operator?: number;
  readonly value?: number;
  readonly last?: boolean;
  readonly tag?: number;
}

const packed = ({ page, entry = 0, slot = 0, word = 0, ...more }: Watch): number[] => {
  const { operator = Operator.equal, value = 0, last = true, tag = 0 } = more;
  const what = word | (operator << 16) | (slot << 20) | ((last ? 1 : 0) << 24);
  return [page | (entry << 28), what, value, tag];
};

const store = (row: number, va: number, words: readonly number[]): void =>
  rig.does(row, function* (port): Op<void> {
    for (const [n, word] of words.entries()) {
      port.store32(va + n * 4, word) ?? (yield* port.fault());
    }
  });

/** Sleeps until the predicate holds, or `cycles` have passed. True: it did not have to wait. */
function sleeps({ row }: Home, terms: readonly Watch[], cycles = -1): boolean {
  store(row, TERMS, terms.flatMap(packed));
  const events = rig.raw.env(row, Env.events);
  return rig.calls(row, 'sleep', events, cycles, TERMS, terms.length);
}
/** What the sleeper is told, when it has had time to wake: status, reason, tag; null: it sleeps. */
function woken({ row }: Home, cycles = 100_000): number[] | null {
  rig.run(cycles);
  if (!rig.lane(rig.raw.id(row)).done) return null;
  const { status, message } = rig.answer(row);
  return [status, ...message.slice(0, 2)];
}
const byPredicate = (tag: number): number[] => [Status.ok, Woken.predicate, tag];
const broken = expect.arrayContaining([Status.notPermitted]) as number[];

/** A page of `home`, mapped at PLACE. */
function watched(home: Home): number {
  const page = rig.raw.free();
  rig.must(home.row, 'pageAllocate', page, 0);
  rig.must(home.row, 'pageMap', home.leaf, PLACE, page, 0, 0, RW, 0);
  return page;
}
/** A page of A's that B may read by entry 1. */
function lent({ a }: Rig): number {
  const page = watched(a);
  rig.must(a.row, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ);
  return page;
}

describe('a sleeper wakes', () => {
  test('when a word that another writes is what it waits for, and hears which', () => {
    rig = new Rig();
    const { a, b } = rig;
    const page = lent(rig);
    const waits = [
      { page, entry: 1, word: 0, value: 1, tag: 11 },
      { page, entry: 1, word: 1, value: 1, tag: 22 },
    ];
    expect(sleeps(b, waits)).toBe(false);
    expect(woken(b)).toBe(null);
    store(a.row, at + 4, [1]);
    expect(woken(b)).toEqual(byPredicate(22));
    // Nothing was pinned, and nothing is left of it.
    expect(rig.raw.page(page, Page.pins)).toBe(0);
    store(a.row, at, [1]);
    expect(sleeps(b, waits)).toBe(true); // both hold: the first is told
    expect(rig.answer(b.row).message.slice(0, 2)).toEqual([Woken.predicate, 11]);
  });

  test('when all terms of a product hold', () => {
    rig = new Rig();
    const { a, b } = rig;
    const page = lent(rig);
    const waits = [
      { page, entry: 1, word: 0, operator: Operator.greater, value: 5, last: false },
      { page, entry: 1, word: 1, operator: Operator.less, value: -5, last: true, tag: 3 },
      { page, entry: 1, word: 2, operator: Operator.notEqual, value: 0, last: false, tag: 4 },
    ];
    expect(sleeps(b, waits)).toBe(false);
    store(a.row, at, [6, -5]);
    expect(woken(b)).toBe(null);
    store(a.row, at, [5, -6]);
    expect(woken(b)).toBe(null);
    store(a.row, at, [6, -6]);
    expect(woken(b)).toEqual(byPredicate(3));
    expect(sleeps(b, waits.slice(2))).toBe(false);
    store(a.row, at + 8, [1]);
    expect(woken(b)).toEqual(byPredicate(4)); // the last term ends a product, marked or not
  });

  test('of a published word: somebody has died', () => {
    rig = new Rig();
    const { a, b } = rig;
    const page = rig.kernel.state.env.firstPage;
    const word = b.row * Env.words + Env.state;
    expect(sleeps(a, [{ page, word, value: EnvState.zombie, tag: 9 }])).toBe(false);
    expect(woken(a)).toBe(null);
    rig.calls(b.row, 'envDestroy', b.id, 0, 0);
    expect(woken(a)).toEqual(byPredicate(9));
  });

  test('when its time has come, the machine idle or not', () => {
    for (const busy of [true, false]) {
      rig = new Rig();
      const { a, b } = rig;
      if (!busy) rig.calls(b.row, 'sleep', rig.raw.env(b.row, Env.events), -1, 0, 0);
      const start = rig.machine.now();
      rig.begin(a.row, function* (port): Op<number[]> {
        const { status } = yield* port.call(Call.sleep, rig.raw.env(a.row, Env.events), 250_000);
        return [status, port.result(1), rig.machine.now() - start];
      });
      expect(rig.lane(a.id).done).toBe(false);
      rig.run(400_000);
      const [status, why, took] = rig.result(a.row) as [number, number, number];
      expect([status, why]).toEqual([Status.ok, Woken.deadline]);
      expect(took).toBeGreaterThanOrEqual(250_000);
      // Its position comes round at the latest when all others have had a slice and its grace.
      expect(took).toBeLessThan(250_000 + (busy ? 4 * 20_000 : 5_000));
    }
  });

  test('not at all with 0 cycles: it only looks', () => {
    rig = new Rig();
    const { a } = rig;
    const page = watched(a);
    const look = (value: number): readonly number[] => {
      expect(sleeps(a, [{ page, value, tag: 5 }], 0)).toBe(true);
      return rig.answer(a.row).message.slice(0, 2);
    };
    expect(look(1)).toEqual([Woken.deadline, 0]);
    expect(look(0)).toEqual([Woken.predicate, 5]);
    // An event that it has not seen comes first.
    expect(rig.call(a.row, 'sleep', -1, 0, TERMS, 1).message[0]).toBe(Woken.event);
  });

  test('of an event, before anything else is looked at', () => {
    rig = new Rig();
    const { a } = rig;
    const page = watched(a);
    const child = rig.child(a.row, [1, 5]);
    expect(rig.calls(child.row, 'sleep', 0, 1_000_000, 0, 0)).toBe(false);
    rig.must(a.row, 'notify', child.id, 0);
    expect(rig.raw.stateOf(child.row)).toBe(EnvState.ready);
    rig.settle(child.row);
    expect(rig.answer(child.row)).toMatchObject({ status: Status.ok, value: 1 });
    expect(rig.answer(child.row).message[0]).toBe(Woken.event);
    rig.must(a.row, 'pageUnmap', a.leaf, PLACE, 1, 0);
    rig.must(a.row, 'pageFree', page, 0);
  });

  test('when somebody yields to it, if it has no position of its own', () => {
    rig = new Rig();
    const { a } = rig;
    const child = rig.child(a.row, [1, 5]);
    expect(rig.calls(child.row, 'sleep', 0, 200_000, 0, 0)).toBe(false);
    const early = rig.call(a.row, 'yield', child.id);
    expect(early).toMatchObject({ status: Status.notReady, value: 0 });
    rig.run(300_000);
    expect(rig.raw.stateOf(child.row)).toBe(EnvState.sleeping); // nobody would run it
    rig.must(a.row, 'yield', child.id);
    rig.settle(child.row);
    expect(rig.answer(child.row).message[0]).toBe(Woken.deadline);
  });

  test('at its deadline although others owe the disk an age', () => {
    rig = new Rig({ machine: { profile: { ...LATE_DISK } } });
    const { a, b } = rig;
    const wait = (home: Home, cycles: number): boolean =>
      rig.calls(home.row, 'sleep', rig.raw.env(home.row, Env.events), cycles, 0, 0);
    expect([wait(a, 50_000), wait(b, 90_000)]).toEqual([false, false]);
    rig.run(60_000);
    expect([a, b].map(({ id }) => rig.lane(id).done)).toEqual([true, false]);
    expect(rig.raw.stateOf(b.row)).toBe(EnvState.sleeping);
    rig.run(60_000);
    expect(rig.lane(b.id).done).toBe(true);
  });
});

describe('a sleeper holds nobody back', () => {
  test('the page that it watches is freed: it hears that it is broken', () => {
    rig = new Rig();
    const { a, b } = rig;
    const page = lent(rig);
    expect(sleeps(b, [{ page, entry: 1, value: 1 }])).toBe(false);
    rig.must(a.row, 'pageUnmap', a.leaf, PLACE, 1, 0);
    rig.must(a.row, 'pageFree', page, 0);
    expect(rig.raw.kind(page)).toBe(PageKind.free);
    expect(woken(b)).toEqual(broken);
    expect(rig.answer(b.row).value).toBe(2); // where the terms stood
  });

  test('its right to a page is taken: also if another term is false, or true, before', () => {
    for (const first of [0, 1]) {
      rig = new Rig();
      const { a, b } = rig;
      const page = lent(rig);
      const own = rig.raw.free();
      rig.must(b.row, 'pageAllocate', own, 0);
      const waits = [
        { page: own, word: 0, value: 1, last: false },
        { page, entry: 1, word: 0, value: 1 },
      ];
      expect(sleeps(b, first === 0 ? waits : [...waits].reverse())).toBe(false);
      rig.steps(a.row, 'accessRemove', page, 0, 1);
      expect(woken(b)).toEqual(broken);
    }
  });

  test('another page by now: its name is stale with the generation, and not without', () => {
    for (const tagged of [true, false]) {
      rig = new Rig();
      const { a } = rig;
      const page = watched(a);
      const tag = tagOf(rig.raw.page(page, Page.generation), PAGE_TAG_BITS);
      const name = tagged ? page | (tag << PAGE_BITS) : page;
      const child = rig.child(a.row, [1], { tables: true });
      expect(sleeps(child, [{ page: name, value: 7, tag: 1 }])).toBe(false);
      rig.must(a.row, 'pageUnmap', a.leaf, PLACE, 1, 0);
      rig.must(a.row, 'pageFree', page, 0);
      rig.must(a.row, 'pageAllocate', page, 0);
      rig.must(a.row, 'pageMap', a.leaf, PLACE, page, 0, 0, RW, 0);
      store(a.row, at, [7]);
      rig.must(a.row, 'yield', child.id);
      expect(woken(child)).toEqual(tagged ? broken : byPredicate(1));
    }
  });

  test('its capability is dropped by who has authority over it', () => {
    rig = new Rig();
    const { a } = rig;
    const page = watched(a);
    const child = rig.child(a.row, [1, 5], { tables: true });
    const { a: word, b: more } = packName([1]);
    rig.must(a.row, 'capForge', child.id, 3, 0, word, more, READ);
    expect(sleeps(child, [{ page, slot: 3, value: 1 }])).toBe(false);
    expect(rig.call(a.row, 'yield', child.id).status).toBe(Status.notReady);
    rig.must(a.row, 'capDrop', child.id, 3, 0);
    rig.must(a.row, 'yield', child.id);
    expect(woken(child)).toEqual(broken);
  });
});

test('terms are fetched once: what is written there later counts for nothing', () => {
  rig = new Rig();
  const { a, b } = rig;
  const page = lent(rig);
  const share = rig.raw.entry(b.leaf, 1) >>> 10; // the page that the terms stand on
  const { a: word, b: more } = packName([1]);
  rig.must(b.row, 'accessAdd', share, 0, 1, word, more, READ | 2);
  rig.must(a.row, 'pageMap', a.leaf, PLACE + 1, share, 0, 1, RW, 0);
  expect(sleeps(b, [{ page, entry: 1, value: 1, tag: 4 }])).toBe(false);
  const there = at + PAGE_BYTES + (TERMS % PAGE_BYTES);
  store(a.row, there, packed({ page: rig.kernel.state.root, value: 0, tag: 5 }));
  expect(woken(b)).toBe(null);
  store(a.row, at, [1]);
  expect(woken(b)).toEqual(byPredicate(4));
});

// ---- against a naive evaluation -----------------------------------------------------------------

const term = fc.record({
  word: fc.nat(3),
  operator: fc.nat(3),
  value: fc.integer({ min: -2, max: 2 }),
  last: fc.boolean(),
  tag: fc.nat(100),
});
type Drawn = typeof term extends fc.Arbitrary<infer T> ? T : never;

/** Splits the list into products, and finds the first of which every comparison is true. */
function naive(words: readonly number[], terms: readonly Drawn[]): number | null {
  const products: Drawn[][] = [[]];
  terms.forEach((one, n) => {
    products[products.length - 1]?.push(one);
    if (one.last && n + 1 < terms.length) products.push([]);
  });
  const isTrue = ({ word, operator, value }: Drawn): boolean => {
    const now = words[word] ?? 0;
    return [now === value, now !== value, now < value, now > value][operator] === true;
  };
  const found = products.find((product) => product.length > 0 && product.every(isTrue));
  return found === undefined ? null : (found[found.length - 1]?.tag ?? null);
}

test('any predicate over any words is what a naive evaluation makes of it', () => {
  rig = new Rig();
  const { a } = rig;
  const page = watched(a);
  let held = 0;
  const words = fc.array(fc.integer({ min: -2, max: 2 }), { minLength: 4, maxLength: 4 });
  const terms = fc.array(term, { minLength: 0, maxLength: PREDICATE_TERMS, size: 'max' });
  fc.assert(
    fc.property(words, terms, (now, predicate) => {
      store(a.row, at, now);
      expect(
        sleeps(
          a,
          predicate.map((one) => ({ ...one, page })),
          0,
        ),
      ).toBe(true);
      const due = naive(now, predicate);
      const told = rig.answer(a.row).message.slice(0, 2);
      expect(told).toEqual(due === null ? [Woken.deadline, 0] : [Woken.predicate, due]);
      if (due !== null) held++;
    }),
    { numRuns: 300 },
  );
  expect(held).toBeGreaterThan(50);
  expect(held).toBeLessThan(250);
});
