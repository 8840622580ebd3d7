/**
 * Accounts: an allotment is a guarantee, whatever others do; nothing is lost or made by moving it;
 * and a parent takes a whole subtree back by name, against a child that does what it can.
 */
import * as fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import {
  Account,
  ALL_RIGHTS,
  Call,
  type CallName,
  DISK_WRITE,
  Env,
  EnvState,
  Extent,
  Info,
  MAP_READ,
  MAP_WRITE,
  packName,
  PageKind,
  READ,
  Resource,
  RESOURCES,
  Status,
  UNMAP_MAX,
  WRITE,
} from '../../kernel/abi.ts';
import { PageRecord } from '../../kernel/exokernel/state.ts';
import type { Op, UserPort } from '../../machine/user-port.ts';
import { accountsOf, pagesOf, usedBy } from '../../check/invariants/books.ts';
import {
  type Home,
  LATE_DISK,
  NAME_A,
  Rig,
  type RigConfig,
  SCRATCH,
  statusName,
} from './harness.ts';
import { audit, books } from '../../check/invariants/index.ts';
import { bind, PICKS, type Step } from './operands.ts';

const RW = MAP_READ | MAP_WRITE;
const [A, B] = [1, 2] as const; // accounts, and rows of the first environments
const LENT = 20; // account that B opens for its child

let rig: Rig;
const boot = (config: RigConfig = {}): Rig => (rig = new Rig(config));
afterEach(() => {
  expect([...audit(rig.raw, undefined, true), ...books(rig.raw)]).toEqual([]);
});

const indices = (count: number): number[] => Array.from({ length: count }, (_, n) => n);
const rest = (account: number, resource: number): number =>
  rig.raw.limit(account, resource) - rig.raw.used(account, resource);

/** Takes all that the tenant's account may take, and some more; what it got, by resource. */
function exhaust({ row, id, extent, stack }: Home, tag: number): number[] {
  const { raw } = rig;
  const got = new Array<number>(RESOURCES).fill(0);
  /** Tries until it is refused for the quota, and no other reason, or there is none at all. */
  const grab = (resource: number, call: CallName, args: () => readonly number[]): void => {
    for (;;) {
      const claims = args();
      if (claims.some((n) => Number.isNaN(n))) return;
      const { status } = rig.call(row, call, ...claims);
      if (status === Status.quota || status === Status.full) return;
      expect(statusName(status), call).toBe('ok');
      got[resource] = (got[resource] ?? 0) + 1;
    }
  };
  const { a, b } = packName([row, tag]);
  const roots: number[] = [];
  grab(Resource.environments, 'envCreate', () => {
    const root = roots[got[Resource.environments] ?? 0] ?? raw.free();
    if (raw.kind(root) === PageKind.free) {
      rig.must(row, 'pageAllocate', root, 0);
      roots.push(root);
    }
    return [raw.freeRow(), root, 0, a, b, -1, -1];
  });
  grab(Resource.pages, 'pageAllocate', () => [raw.free(), 0]);
  grab(Resource.extents, 'extentSplit', () => {
    const free = indices(raw.info(Info.extents)).find((n) => raw.extent(n, Extent.valid) === 0);
    return [extent, 0, free ?? NaN, 1, a, b];
  });
  rig.does(row, (port) => port.store(SCRATCH, stack));
  grab(Resource.requests, 'diskRequest', () => [extent, 0, 0, 1, SCRATCH, 0, DISK_WRITE]);
  grab(Resource.slices, 'sliceAllocate', () => {
    const free = indices(raw.info(Info.slices)).find((n) => raw.info(Info.sliceVector + n) === 0);
    return [free ?? NaN, id, 0];
  });
  got[Resource.pages] = (got[Resource.pages] ?? 0) + roots.length;
  return got;
}

describe('an allotment is a guarantee', () => {
  test('a tenant that takes all it can leaves the other all of its own', () => {
    const { a, b, raw } = boot({ machine: { profile: LATE_DISK } });
    // A position of A's is free when B reaches for it.
    rig.must(A, 'sliceFree', 2, 0);
    exhaust(b, 5);
    for (let resource = 0; resource < RESOURCES; resource++) expect(rest(B, resource)).toBe(0);
    const due = indices(RESOURCES).map((resource) => rest(A, resource));
    expect(due.every((n) => n > 0)).toBe(true);
    expect(exhaust(a, 5)).toEqual(due);
    expect(usedBy(raw, A)).toEqual(indices(RESOURCES).map((n) => raw.limit(A, n)));
    // What A gives up is A's to take again, and nobody else's.
    const page = pagesOf(raw, A).find((it) => raw.kind(it) === PageKind.user && it !== a.stack);
    rig.must(A, 'pageFree', page ?? NaN, 0);
    expect(rig.call(B, 'pageAllocate', page ?? NaN, 0)).toMatchObject({ status: Status.quota });
    rig.must(A, 'pageAllocate', page ?? NaN, 0);
  });

  test('of a child too: its parent has less, and cannot have more', () => {
    const { b, raw } = boot();
    const name = packName([2, 5]);
    rig.must(B, 'accountCreate', LENT, B, 0, name.a, name.b, 3);
    rig.must(B, 'accountMove', B, LENT, 0, Resource.environments, 1);
    rig.must(B, 'accountMove', B, LENT, 0, Resource.pages, 6);
    const child = rig.child(B, [2, 5], { account: LENT });
    exhaustPages(b);
    const back = (amount: number): object =>
      rig.call(B, 'accountMove', LENT, B, 0, Resource.pages, amount);
    // It may take back what is not in use, down to what it promised.
    expect(back(4)).toMatchObject({ status: Status.quota, value: 4 });
    expect(back(3)).toMatchObject({ status: Status.ok });
    expect(back(1)).toMatchObject({ status: Status.quota, value: 4 });
    for (let n = 0; n < 3; n++) rig.must(child.row, 'pageAllocate', raw.free(), 0);
    const more = rig.call(child.row, 'pageAllocate', raw.free(), 0);
    expect(more).toMatchObject({ status: Status.quota, value: 0 });
    // The quota is the account's, whoever of it asks, and whatever name it asks by.
    expect(rig.call(B, 'accountClose', LENT, 0)).toMatchObject({ status: Status.busy, value: 0 });
  });

  test('an account that does not cover a name pays for nobody of that name', () => {
    const { a, b, raw } = boot();
    rig.must(A, 'capOffer', b.id, 0, NAME_A.a, NAME_A.b, ALL_RIGHTS);
    rig.must(B, 'capAcquire', a.id, 5);
    const stray = rig.call(B, 'pageAllocate', raw.free(), 5);
    expect(stray).toMatchObject({ status: Status.notPermitted, value: 1 });
    const page = raw.free();
    rig.must(A, 'pageAllocate', page, 0);
    const { a: word, b: more } = packName([1, 5]);
    const make = (account: number): object =>
      rig.call(B, 'envCreate', raw.freeRow(), page, 5, word, more, -1, account);
    expect(make(-1)).toMatchObject({ status: Status.notPermitted, value: 6 });
    expect(make(B)).toMatchObject({ status: Status.notPermitted, value: 6 });
    // A's would, for that is what A offered.
    expect(make(A)).toMatchObject({ status: Status.ok });
  });
});

/** Everything under B's child, as the exposed tables show it. */
class Subtree {
  readonly #name: number; // of two bytes, so the first word has it all

  constructor(first: number, second: number) {
    this.#name = packName([first, second]).a;
  }
  #under(a: number): boolean {
    return (a & 0xff) >= 2 && ((a ^ this.#name) & 0xffff00) === 0;
  }
  envs(): number[] {
    const { raw } = rig;
    return indices(raw.rows).filter(
      (row) =>
        row > 0 && raw.stateOf(row) !== EnvState.free && this.#under(raw.env(row, Env.nameA)),
    );
  }
  accounts(): number[] {
    const { raw } = rig;
    return accountsOf(raw).filter((n) => n > 0 && this.#under(raw.account(n, Account.nameA)));
  }
}

/** What B does to have it all back: it reads exposed tables, and makes calls by slot 0. */
class Bailiff {
  readonly tree: Subtree;
  readonly home: Home;
  calls = 0;

  constructor(tree: Subtree, home: Home) {
    this.tree = tree;
    this.home = home;
  }

  /** In one crossing, so that nobody comes in between; stops at the first that is refused. */
  batch(...calls: readonly (readonly [CallName, ...number[]])[]): void {
    const words = calls.flatMap(([name, ...args]) => [Call[name], ...args]);
    rig.does(B, function* (port): Op<void> {
      for (const [n, word] of words.entries()) yield* port.store(SCRATCH + n * 4, word);
    });
    this.calls++;
    rig.call(B, 'batch', SCRATCH, calls.length);
  }

  one(name: CallName, ...args: readonly number[]): number {
    this.calls++;
    return rig.call(B, name, ...args).status;
  }

  /** Nothing more than is in use: whoever still runs cannot have another. */
  starve(): void {
    for (const account of this.tree.accounts()) {
      for (let resource = 0; resource < RESOURCES; resource++) {
        const spare = rest(account, resource);
        if (spare > 0) this.one('accountMove', account, B, 0, resource, spare);
      }
    }
  }

  suspend(): void {
    const { raw } = rig;
    const runs = (row: number): boolean =>
      raw.stateOf(row) !== EnvState.zombie && raw.env(row, Env.suspended) === 0;
    for (const row of this.tree.envs().filter(runs)) this.one('envSuspend', raw.id(row), 0, 1);
  }

  destroy(): void {
    const { raw } = rig;
    const lives = (row: number): boolean => raw.stateOf(row) !== EnvState.zombie;
    for (const row of this.tree.envs().filter(lives)) this.one('envDestroy', raw.id(row), 0, 0);
  }

  /** Tables first, then the row; what it was charged to is starved of it at once. */
  reap(): void {
    const { raw } = rig;
    for (const row of this.tree.envs()) {
      const tables = (kind: number): number[] =>
        indices(raw.pages).filter((page) => raw.kind(page) === kind && raw.envOf(page) === row);
      for (const leaf of tables(PageKind.leaf)) {
        for (let at = 0; at < 512 && raw.page(leaf, PageRecord.leaves) > 0; at += UNMAP_MAX) {
          this.one('pageUnmap', leaf, at, UNMAP_MAX, 0);
        }
        this.one('tableDestroy', leaf, 0);
      }
      for (const middle of tables(PageKind.middle)) this.one('tableDestroy', middle, 0);
      const account = raw.env(row, Env.account);
      const move = ['accountMove', account, B, 0, Resource.environments, 1] as const;
      this.batch(['envReap', raw.id(row), 0], move);
    }
  }

  /** Breaks whatever reaches the pages, strangers' mappings too, and frees them. */
  pages(): void {
    const { raw } = rig;
    for (const account of this.tree.accounts()) {
      for (const page of pagesOf(raw, account)) {
        if (raw.kind(page) === PageKind.quarantined) {
          this.one('pageSweep', page);
          continue;
        }
        // Whoever maps it again and again is held to what it has, and that shrinks.
        this.one('pageLimit', page, 0, raw.page(page, PageRecord.leaves), -1);
        const filled = [1, 2, 3].filter((entry) => raw.access(page, entry).rights > 0);
        const remove = [...filled, 0].map((entry) => ['accessRemove', page, 0, entry] as const);
        this.batch(...remove, ['pageFree', page, 0]);
      }
    }
  }

  slices(): void {
    const { raw } = rig;
    const accounts = this.tree.accounts();
    for (const n of indices(raw.info(Info.slices))) {
      const held = raw.info(Info.sliceVector + n) !== 0;
      if (held && accounts.includes(raw.info(Info.sliceAccount + n))) this.one('sliceFree', n, 0);
    }
  }

  extents(): void {
    const { raw } = rig;
    const rows = (): number[] =>
      indices(raw.info(Info.extents)).filter((n) => raw.extent(n, Extent.valid) !== 0);
    const accounts = this.tree.accounts();
    for (const row of rows().filter((n) => accounts.includes(raw.extent(n, Extent.account)))) {
      const first = raw.extent(row, Extent.first);
      const before = rows().find(
        (n) => raw.extent(n, Extent.first) + raw.extent(n, Extent.count) === first,
      );
      if (before !== undefined) this.one('extentJoin', before, 0, row);
    }
  }

  close(): void {
    for (const account of this.tree.accounts().reverse()) this.one('accountClose', account, 0);
  }

  /** What is still charged, for the report of a failure. */
  stands(): string {
    const { raw } = rig;
    return this.tree
      .accounts()
      .map((account) => {
        const pages = pagesOf(raw, account).map((page) => {
          const entries = [0, 1, 2, 3].map((n) => raw.access(page, n).rights);
          return `${page}: kind ${raw.kind(page)} of ${raw.envOf(page)}, entries ${entries.join()}`;
        });
        const used = usedBy(raw, account);
        return `${account} uses ${used.join()}, children ${raw.account(account, Account.children)}, ${pages.join('; ')}`;
      })
      .join('\n');
  }

  /** Until nothing is left. */
  clear(): void {
    for (let round = 0; this.tree.accounts().length > 0; round++) {
      if (round > 40) throw new Error(`the subtree stands: ${this.stands()}`);
      this.starve();
      this.suspend();
      this.destroy();
      this.reap();
      this.slices();
      this.extents();
      this.pages();
      this.starve();
      this.close();
    }
  }
}

/** A generator of choices that a program of the test makes. */
function chooser(seed: number): (n: number) => number {
  let state = seed | 1;
  return (n) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0;
    return (state >>> 8) % n;
  };
}

describe('a subtree is taken back by name', () => {
  const free = (skip: number): number => {
    const pages = indices(rig.raw.pages).filter((page) => rig.raw.kind(page) === PageKind.free);
    return pages[skip % pages.length] ?? 0;
  };
  const owned = (account: number): number[] =>
    pagesOf(rig.raw, account).filter((page) => rig.raw.kind(page) === PageKind.user);

  /** Forks, forges, allocates, shares, and never stops. */
  function child(row: number, seed: number, tally: Map<string, number>) {
    return function* (port: UserPort): Op<void> {
      const { raw } = rig;
      const pick = chooser(seed);
      const self = raw.id(row);
      const tries = function* (name: CallName, ...args: readonly number[]): Op<number> {
        const { status } = yield* port.call(Call[name], ...args);
        if (status === Status.ok) tally.set(name, (tally.get(name) ?? 0) + 1);
        return status;
      };
      const account = raw.env(row, Env.account);
      for (;;) {
        const mine = owned(account);
        const page = mine[pick(mine.length + 1)] ?? 0;
        const name = packName([2, 5, 1 + pick(3)]);
        switch (pick(13)) {
          case 0:
          case 1:
            yield* tries('pageAllocate', free(pick(8)), pick(2));
            break;
          case 2: {
            const index = raw.freeRow();
            yield* tries('envCreate', index, page, 0, name.a, name.b, -1, -1);
            const made = raw.id(index);
            rig.hand(index, child(index, seed + index, tally));
            yield* tries('envStart', made, 0, 0, 0, 0, 0);
            break;
          }
          case 3: {
            const [x = 0, y = 0, z = 0] = mine.slice(pick(mine.length + 1));
            yield* tries('tableCreate', raw.env(row, Env.root), pick(4), x, 0, 0, 0, 0);
            const middle = indices(raw.pages).find(
              (it) => raw.kind(it) === PageKind.middle && raw.envOf(it) === row,
            );
            yield* tries('tableCreate', middle ?? 0, pick(4), x, 0, y, z, 0);
            break;
          }
          case 4: {
            const leaves = indices(raw.pages).filter(
              (it) => raw.kind(it) === PageKind.leaf && raw.envOf(it) === row,
            );
            const leaf = leaves[pick(leaves.length + 1)] ?? 0;
            yield* tries('pageMap', leaf, 200 + pick(300), page, 0, 0, RW, 0);
            break;
          }
          case 5:
            yield* tries('accessAdd', page, 0, 1 + pick(3), NAME_A.a, NAME_A.b, READ | WRITE);
            break;
          case 6:
            yield* tries('capOffer', raw.id(A), 0, packName([2, 5]).a, 0, ALL_RIGHTS);
            yield* tries('capAcquire', raw.id(A), 1);
            break;
          case 7:
            yield* tries('capForge', self, 1 + pick(15), 0, name.a, name.b, ALL_RIGHTS);
            break;
          case 8:
            yield* tries('pageKeep', page, 0, 1);
            break;
          case 9:
            yield* tries('accountCreate', 30 + pick(4), account, 0, name.a, name.b, 1);
            yield* tries('accountMove', account, 30 + pick(4), 0, pick(RESOURCES), 1);
            break;
          case 10:
            yield* tries('sliceAllocate', pick(4), self, 0);
            break;
          case 11:
            yield* tries('extentSplit', 4 + pick(4), 0, 4 + pick(4), 1, name.a, name.b);
            break;
          default:
            yield* tries('pageFree', page, 0);
        }
      }
    };
  }

  /** Takes what is offered, and keeps hold of it by every means that it has. */
  function stranger(home: Home, seed: number, tally: Map<string, number>) {
    return function* (port: UserPort): Op<void> {
      const { raw } = rig;
      const pick = chooser(seed);
      const tries = function* (name: CallName, ...args: readonly number[]): Op<void> {
        const { status } = yield* port.call(Call[name], ...args);
        if (status === Status.ok) tally.set(`A ${name}`, (tally.get(`A ${name}`) ?? 0) + 1);
      };
      const tree = new Subtree(2, 5);
      for (;;) {
        const theirs = tree.accounts().flatMap((account) => owned(account));
        const page = theirs[pick(theirs.length + 1)] ?? 0;
        const envs = tree.envs();
        const env = raw.id(envs[pick(envs.length + 1)] ?? 0);
        switch (pick(7)) {
          case 0:
            yield* tries('capAcquire', env, 1 + pick(3));
            break;
          case 1:
          case 2:
            // Slot 0 by the entries for A, the others by what was offered.
            yield* tries('pageMap', home.leaf, 300 + pick(200), page, pick(3), pick(3), RW, 0);
            break;
          case 3:
            yield* tries('envSuspend', env, 1, 0);
            break;
          case 4:
            yield* tries('pageLimit', page, 1, -1, -1);
            break;
          case 5:
            yield* tries('capOffer', env, 0, NAME_A.a, NAME_A.b, ALL_RIGHTS);
            break;
          default: {
            const { a, b } = packName([2, 5, 7]);
            yield* tries('envCreate', raw.freeRow(), page, 1, a, b, -1, LENT);
          }
        }
      }
    };
  }

  const DEEDS = [
    ...['pageAllocate', 'pageKeep', 'envCreate', 'envStart', 'tableCreate', 'capForge'],
    ...['capOffer', 'capAcquire', 'accessAdd', 'accountCreate', 'accountMove', 'extentSplit'],
    ...['A capAcquire', 'A pageMap', 'A pageLimit', 'A envSuspend'],
  ];
  test.for([1, 2, 3])(
    'completely, against a child and a stranger who do what they can (%i)',
    (seed) => {
      const { a, b, raw } = boot({
        exokernel: { environments: 25, extents: 12, slices: 6 },
        machine: { pages: 152 },
        quota: 50,
      });
      const before = indices(RESOURCES).map((n) => [raw.limit(B, n), raw.used(B, n)]);
      const bystander = indices(RESOURCES).map((n) => raw.limit(A, n));
      const name = packName([2, 5]);
      rig.must(B, 'accountCreate', LENT, B, 0, name.a, name.b, 3);
      rig.must(B, 'sliceFree', 5, 0);
      for (const [resource, n] of [
        [Resource.pages, 40],
        [Resource.slices, 1],
        [Resource.environments, 8],
        [Resource.extents, 3],
        [Resource.requests, 6],
      ] as const) {
        rig.must(B, 'accountMove', B, LENT, 0, resource, n);
      }
      const root = raw.free();
      rig.must(B, 'pageAllocate', root, 0);
      const row = raw.freeRow();
      const id = rig.must(B, 'envCreate', row, root, 0, name.a, name.b, b.id, LENT);
      rig.must(B, 'extentSplit', b.extent, 0, 4, 8, name.a, name.b);
      const tally = new Map<string, number>();
      rig.hand(row, child(row, seed, tally));
      rig.must(B, 'envStart', id, 0, 0, 0, 0, 0);
      rig.must(B, 'sliceAllocate', 5, id, 0);
      rig.hand(A, stranger(a, seed * 77, tally));
      rig.run(1_500_000);
      expect(books(raw)).toEqual([]);
      expect(audit(raw, undefined, true)).toEqual([]);

      const tree = new Subtree(2, 5);
      const bailiff = new Bailiff(tree, b);
      bailiff.clear();
      // All that was tried was done, now and then, or this shows nothing.
      for (const done of DEEDS) expect(tally.get(done) ?? 0, done).toBeGreaterThan(0);

      // All is B's: what it had before, but for the extent and the pages that it spent itself.
      rig.must(B, 'extentJoin', b.extent, 0, 4);
      rig.must(B, 'sliceAllocate', 5, b.id, 0);
      rig.must(B, 'pageFree', root, 0);
      expect(indices(RESOURCES).map((n) => [raw.limit(B, n), raw.used(B, n)])).toEqual(before);
      expect(indices(RESOURCES).map((n) => raw.limit(A, n))).toEqual(bystander);
      expect(tree.accounts()).toEqual([]);
      expect(tree.envs().filter((it) => raw.env(it, Env.account) !== A)).toEqual([]);
    },
  );
});

function exhaustPages({ row }: Home): void {
  while (rig.call(row, 'pageAllocate', rig.raw.free(), 0).status === Status.ok);
}

describe('whatever is moved, taken and given back', () => {
  const CALLS: readonly CallName[] = [
    'accountCreate',
    'accountMove',
    'accountMove',
    'accountClose',
    'envCreate',
    'envStart',
    'envDestroy',
    'envReap',
    'pageAllocate',
    'pageAllocate',
    'pageFree',
    'pageKeep',
    'tableCreate',
    'tableDestroy',
    'sliceFree',
    'sliceAllocate',
    'extentSplit',
    'extentJoin',
    'diskRequest',
    'revoke',
    'repossess',
  ];
  const step: fc.Arbitrary<Step> = fc.record({
    actor: fc.nat(15),
    call: fc.constantFrom(...CALLS),
    spoil: fc.oneof({ arbitrary: fc.constant(99), weight: 4 }, { arbitrary: fc.nat(6), weight: 1 }),
    touch: fc.constant(99),
    picks: fc.array(fc.nat(0xffff), { minLength: PICKS, maxLength: PICKS }),
  });
  const seen = { moved: 0, lent: 0, taken: 0 };

  test('the books balance after each step, and at the end everybody can have his own', () => {
    const property = fc.property(fc.array(step, { maxLength: 50, size: 'max' }), (steps) => {
      const { raw } = boot({ exokernel: { environments: 13 } });
      for (const row of [A, B]) {
        const name = packName([row, 17]);
        rig.must(row, 'accountCreate', LENT + row, row, 0, name.a, name.b, 2);
        rig.must(row, 'accountMove', row, LENT + row, 0, Resource.environments, 2);
        rig.must(row, 'accountMove', row, LENT + row, 0, Resource.pages, 8);
        const child = rig.child(row, [row, 17], { account: LENT + row });
        for (let n = 0; n < 4; n++) rig.must(child.row, 'pageAllocate', raw.free(), 0);
      }
      const ready = (): number[] =>
        indices(raw.rows).filter(
          (row) => raw.stateOf(row) === EnvState.ready && rig.lane(raw.id(row)).done,
        );
      for (const each of steps) {
        const actors = ready();
        const row = actors[each.actor % actors.length] ?? A;
        // Some end by what they did, or never began to listen.
        if (!rig.calls(row, each.call, ...bind(raw, row, each))) continue;
        const { status } = rig.answer(row);
        if (each.call === 'accountMove' && status === Status.ok) seen.moved++;
        if (each.call === 'revoke' && status === Status.ok) rig.run(12_000);
        if (each.call === 'repossess' && status === Status.ok) seen.taken++;
        expect(books(raw)).toEqual([]);
      }
      for (const row of ready().filter((it) => rig.calls(it, 'null'))) {
        const account = raw.env(row, Env.account);
        let left = rest(account, Resource.pages) - raw.account(account, Account.wanted);
        if (account > B) seen.lent++;
        for (; left > 0; left--) rig.must(row, 'pageAllocate', raw.free(), 0);
        const more = rig.call(row, 'pageAllocate', raw.free(), 0);
        expect(more).toMatchObject({ status: Status.quota, value: 0 });
      }
      expect(books(raw)).toEqual([]);
    });
    fc.assert(property, { numRuns: 60 });
    expect(Math.min(seen.moved, seen.lent, seen.taken)).toBeGreaterThan(0);
  });
});
