/**
 * Visible revocation against every sort of owner: it completes by its deadline, takes exactly what
 * was asked for, says so once for each page, saves what it was told to save, leaves the guaranteed
 * minimum, and touches nobody else.
 *
 * The broker has REVOKE over the empty name, which stands for everybody, and nothing else. After
 * the deadline its policy is the plainest: the first page of the range that can be taken.
 */
import * as fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import {
  Account,
  ALL_RIGHTS,
  Call,
  CAP_SLOTS,
  type CallName,
  DISK_WRITE,
  Env,
  EnvState,
  Info,
  Loss,
  LOSSES,
  MAP_READ,
  MAP_WRITE,
  packName,
  PageKind,
  READ,
  Resource,
  REVOKE,
  Status,
  STEP_LEAVES,
  Upcall,
  WRITE,
} from '../../kernel/abi.ts';
import { DEADLINE_MIN } from '../../kernel/exokernel/revocation.ts';
import { PageRecord } from '../../kernel/exokernel/state.ts';
import { RISCV } from '../../machine/costs.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { CallResult, Op, UserPort } from '../../machine/user-port.ts';
import { pagesOf } from '../../check/invariants/books.ts';
import {
  BLOCKS,
  Entry,
  type Home,
  NAME_A,
  NAME_B,
  Rig,
  type RigConfig,
  SCRATCH,
  statusName,
} from './harness.ts';
import { audit, books } from '../../check/invariants/index.ts';

const RW = MAP_READ | MAP_WRITE;
const [A, B, ROOT] = [1, 2, 3] as const; // accounts, and rows of the first environments
const FIRST = 300; // index that the owner's pages are mapped from
const OUTSIDE = 2; // pages of the owner that nobody asks for
const ASKED = 8; // pages of the range
const COUNT = 4; // of them, how many are wanted
const MINIMUM = 4;
const PAGES = 112;
const TIME = 60_000; // cycles: the owner has had a slice
const PATIENCE = 200; // tries of the broker
/** A request takes ten times as long as the owner is given. */
const SLOW_DISK = { ...RISCV, diskAccess: { value: 10 * TIME, source: 'test: past the deadline' } };

/** What was taken by force, and what it held at that moment. */
interface Taken {
  readonly page: number;
  readonly bytes: Uint8Array;
  readonly block: number; // + 1; 0: not saved
}

class Scene {
  readonly rig: Rig;
  readonly medium = new RamMedium(BLOCKS);
  readonly a: Home;
  readonly b: Home; // the owner
  readonly broker: Home;
  readonly outside: number[] = []; // pages of the owner, mapped one after the other
  readonly asked: number[] = [];
  readonly taken: Taken[] = [];
  readonly answers: string[] = []; // of the owner's own attempts

  constructor(config: RigConfig = {}) {
    this.rig = new Rig({
      tenants: 3,
      quota: 24,
      tenant: (n) => (n + 1 === ROOT ? { name: [], quota: 4 } : { minimum: MINIMUM }),
      ...config,
      machine: { pages: PAGES, medium: this.medium, ...config.machine },
    });
    const { rig } = this;
    [this.a, this.b] = [rig.a, rig.b];
    this.broker = rig.child(ROOT, [9]);
    rig.must(ROOT, 'capForge', this.broker.id, 1, 0, 0, 0, REVOKE);
    const page = this.take(this.a);
    rig.must(A, 'pageMap', this.a.leaf, FIRST, page, 0, 0, RW, 0);
    this.write(A, FIRST, 0xa);
    for (let n = 0; n < OUTSIDE + ASKED; n++) {
      const list = n < OUTSIDE ? this.outside : this.asked;
      list.push(this.take(this.b));
      rig.must(B, 'pageMap', this.b.leaf, FIRST + n, list.at(-1) ?? NaN, 0, 0, RW, 0);
      this.write(B, FIRST + n, 0xb00 + n);
    }
    expect((this.asked.at(-1) ?? NaN) - this.first).toBe(ASKED - 1);
  }

  get first(): number {
    return this.asked[0] ?? NaN;
  }
  get wanted(): number {
    return this.rig.raw.account(B, Account.wanted);
  }

  take({ row }: Home): number {
    const page = this.rig.raw.free();
    this.rig.must(row, 'pageAllocate', page, 0);
    return page;
  }

  /** Marks all of the page that is mapped at `index`. */
  write(row: number, index: number, mark: number): void {
    this.rig.does(row, function* (port): Op<void> {
      for (const word of [0, 1, 511, 1023]) {
        const at = index * PAGE_BYTES + word * 4;
        port.store32(at, mark * 4096 + word) ?? (yield* port.fault());
      }
    });
  }

  /** Where the owner's n-th page of the range is mapped. */
  index(page: number): number {
    return FIRST + OUTSIDE + this.asked.indexOf(page);
  }

  /** A call of the owner's program, noted. */
  *tries(port: UserPort, name: CallName, ...args: readonly number[]): Op<CallResult> {
    const answer = yield* port.call(Call[name], ...args);
    this.answers.push(`${name} ${statusName(answer.status)} ${answer.value}`);
    return answer;
  }

  *gives(port: UserPort, page: number): Op<CallResult> {
    yield* port.call(Call.pageUnmap, this.b.leaf, this.index(page), 1, 0);
    return yield* this.tries(port, 'pageFree', page, 0);
  }

  onRevoke(handler: (port: UserPort) => Op<void>): void {
    this.rig.catchesRevocation(B);
    this.rig.lane(this.b.id).onRevoke = handler;
  }

  /** Places for the next losses, from block 0 of the owner's extent on. */
  registers(places: number): void {
    for (let n = 0; n < places; n++) this.rig.must(B, 'saveBlock', n, this.b.extent, 0, n);
  }

  asks(count = COUNT, cycles = TIME): void {
    const { rig, broker, first, asked } = this;
    rig.must(broker.row, 'revoke', B, 1, ROOT, first, asked.length, count, cycles);
  }

  /** Asks, waits, and takes what was not given. */
  reclaims(count = COUNT): void {
    this.asks(count);
    this.rig.run(TIME);
    this.forces();
  }

  forces(): void {
    const { rig, broker, asked } = this;
    const { raw } = rig;
    for (let n = 0; n < PATIENCE && this.wanted > 0; n++) {
      const page = asked.find(
        (it) => raw.kind(it) === PageKind.user && raw.accountOf(it) === B && !raw.kept(it),
      );
      if (page === undefined) {
        rig.run(TIME);
        continue;
      }
      const bytes = rig.machine.memory.bytes(page).slice();
      const { status, value } = rig.call(broker.row, 'repossess', B, 1, page);
      if (status === Status.full) {
        rig.run(TIME);
        continue;
      }
      expect([Status.ok, Status.again], statusName(status)).toContain(status);
      this.taken.push({ page, bytes, block: value });
      if (status === Status.again) rig.steps(broker.row, 'pageSweep', page);
    }
  }
}

/** All that a bystander has: what it is, holds, owns, and what stands in its pages. */
function holdings({ rig: { raw, machine } }: Scene, account: number): string {
  const words = [Env.state, Env.generation, Env.root, Env.account, Env.nameA, Env.nameB];
  const pages = pagesOf(raw, account);
  return JSON.stringify([
    words.map((word) => raw.env(account, word)),
    Array.from({ length: Account.words }, (_, word) => raw.account(account, word)),
    Array.from({ length: CAP_SLOTS }, (_, slot) => raw.cap(account, slot)),
    pages.map((page) => [
      page,
      raw.kind(page),
      raw.envOf(page),
      Array.from({ length: PageRecord.words }, (_, word) => raw.page(page, word)),
      Buffer.from(machine.memory.bytes(page)).toString('base64'),
    ]),
  ]);
}

let scene: Scene;
const boot = (config: RigConfig = {}): Scene => (scene = new Scene(config));
afterEach(() => {
  const { raw } = scene.rig;
  expect([...audit(raw, undefined, true), ...books(raw)]).toEqual([]);
});

/** Runs `act`, and holds it to having moved exactly `count` pages from the owner to the asker. */
function exactly(count: number, act: () => void): void {
  const { rig, taken, asked } = scene;
  const { raw } = rig;
  const limits = [B, ROOT].map((account) => raw.limit(account, Resource.pages));
  const before = holdings(scene, A);
  const losses = raw.account(B, Account.losses);
  const keeps = pagesOf(raw, B).filter((page) => raw.kept(page));
  act();
  expect(scene.wanted, 'nothing is wanted any more').toBe(0);
  const [owner = NaN, asker = NaN] = limits;
  expect(raw.limit(B, Resource.pages)).toBe(owner - count);
  expect(raw.limit(ROOT, Resource.pages)).toBe(asker + count);
  expect(raw.limit(B, Resource.pages)).toBeGreaterThanOrEqual(MINIMUM);
  // Each is logged once, in order, and came out of the range.
  expect(raw.account(B, Account.losses) - losses).toBe(taken.length);
  const logged = taken.map((_, n) => raw.loss(B, Loss.ring + ((losses + n) % LOSSES) * 2));
  expect(logged).toEqual(taken.map(({ page }) => page));
  const saved = taken.map((_, n) => raw.loss(B, Loss.ring + ((losses + n) % LOSSES) * 2 + 1));
  expect(saved).toEqual(taken.map(({ block }) => block));
  expect(taken.every(({ page }) => asked.includes(page))).toBe(true);
  for (const page of keeps) expect([raw.accountOf(page), raw.kept(page)]).toEqual([B, true]);
  expect(holdings(scene, A) === before, 'the bystander has what it had').toBe(true);
}

/** The contents of what was taken stand where the loss table says. */
function savedAll(): void {
  const { rig, medium, taken } = scene;
  for (let n = 0; n < PATIENCE && rig.raw.info(Info.diskQueued) > 0; n++) rig.run(10 * TIME);
  rig.machine.powerOff();
  for (const { bytes, block } of taken) {
    expect(block).toBeGreaterThan(0);
    const found = new Uint8Array(PAGE_BYTES);
    medium.read(block - 1, found);
    expect(Buffer.compare(found, bytes)).toBe(0);
  }
}

interface Owner {
  readonly config?: RigConfig;
  /** before it is asked */
  readonly prepare?: (s: Scene) => void;
  readonly handler?: (s: Scene, port: UserPort) => Op<void>;
  /** how many pages must be taken by force */
  readonly forced: number;
  readonly after?: (s: Scene) => void;
}

const OWNERS: Readonly<Record<string, Owner>> = {
  'has no handler': { forced: COUNT },
  obeys: {
    *handler(s, port) {
      for (const page of s.asked.slice(0, COUNT)) yield* s.gives(port, page);
    },
    forced: 0,
    after: (s) => {
      const [[wanted = NaN, cycles = NaN] = []] = s.rig.lane(s.b.id).revokes;
      expect(wanted).toBe(COUNT);
      expect(cycles).toBeGreaterThan(0);
      expect(cycles).toBeLessThan(TIME);
      expect(s.rig.lane(s.b.id).losses).toEqual([]);
    },
  },
  'gives some of it': {
    *handler(s, port) {
      yield* s.gives(port, s.first + 5);
    },
    forced: COUNT - 1,
  },
  'gives more than it was asked for': {
    *handler(s, port) {
      for (const page of s.asked) yield* s.gives(port, page);
    },
    forced: 0,
  },
  'says that it is done': {
    *handler(s, port) {
      yield* port.call(Call.pageUnmap, s.b.leaf, FIRST, OUTSIDE + ASKED, 0);
    },
    forced: COUNT,
    after: (s) => {
      s.rig.run(TIME);
      expect(s.rig.lane(s.b.id).losses).toEqual([COUNT]);
    },
  },
  'hands back the wrong pages': {
    *handler(s, port) {
      yield* port.call(Call.pageUnmap, s.b.leaf, FIRST, OUTSIDE, 0);
      for (const page of s.outside) yield* s.tries(port, 'pageFree', page, 0);
      yield* s.tries(port, 'pageFree', s.a.stack, 0);
    },
    forced: COUNT,
    after: (s) => {
      expect(s.answers).toEqual(['pageFree ok 0', 'pageFree ok 0', 'pageFree notPermitted 1']);
    },
  },
  'faults in the handler': {
    *handler(_, port) {
      yield* port.load(500 * PAGE_BYTES);
    },
    forced: COUNT,
    after: (s) => {
      expect(s.rig.raw.stateOf(B)).toBe(EnvState.zombie);
    },
  },
  'has a handler that cannot be told': {
    prepare: (s) => {
      const nowhere = 500 * PAGE_BYTES;
      s.rig.must(B, 'upcallSet', Upcall.revoke, Entry.revoke, nowhere);
    },
    forced: COUNT,
    after: (s) => {
      expect(s.rig.raw.stateOf(B)).toBe(EnvState.zombie);
    },
  },
  'never returns from the handler': {
    *handler(_, port) {
      for (;;) port.work(1_000) ?? (yield* port.fault());
    },
    forced: COUNT,
  },
  'frees and takes again, without a page to spare': {
    prepare: (s) => {
      while (s.rig.call(B, 'pageAllocate', s.rig.raw.free(), 0).status === Status.ok);
    },
    *handler(s, port) {
      for (const page of s.asked.slice(0, COUNT)) {
        yield* s.gives(port, page);
        yield* s.tries(port, 'pageAllocate', page, 0);
      }
    },
    forced: 0,
    after: (s) => {
      const round = ['pageFree ok 0', 'pageAllocate quota 0'];
      expect(s.answers).toEqual(Array.from({ length: COUNT }, () => round).flat());
    },
  },
  'frees and takes again, out of what it did not use': {
    *handler(s, port) {
      for (const page of s.asked.slice(0, COUNT)) {
        yield* s.gives(port, page);
        yield* s.tries(port, 'pageAllocate', page, 0);
      }
    },
    forced: 0,
  },
  'turns its pages into tables': {
    *handler(s, port) {
      yield* port.call(Call.pageUnmap, s.b.leaf, FIRST, OUTSIDE + ASKED, 0);
      for (let n = 0; n + 2 < ASKED; n += 3) {
        const [x = 0, y = 0, z = 0] = s.asked.slice(n);
        yield* s.tries(port, 'tableCreate', s.b.root, 9 + n, x, 0, 0, 0, 0);
        yield* s.tries(port, 'tableCreate', s.b.middle, 9 + n, s.outside[0] ?? 0, 0, y, z, 0);
        const { a, b } = packName([2, 5]);
        yield* s.tries(port, 'envCreate', s.rig.raw.freeRow(), z, 0, a, b, -1, -1);
      }
    },
    forced: COUNT,
    after: (s) => {
      const each = ['tableCreate busy 2', 'tableCreate busy 4', 'envCreate busy 1'];
      expect(s.answers).toEqual([...each, ...each]);
    },
  },
  'suspends itself': {
    *handler(s, port) {
      yield* port.call(Call.envSuspend, s.b.id, 0, 1);
    },
    forced: COUNT,
    after: (s) => {
      expect(s.rig.raw.env(B, Env.suspended)).toBe(1);
    },
  },
  'was suspended before': {
    prepare: (s) => {
      s.rig.catchesRevocation(B);
      s.rig.must(ROOT, 'envSuspend', s.b.id, 0, 1);
    },
    forced: COUNT,
    after: (s) => {
      const { revokes, losses } = s.rig.lane(s.b.id);
      expect([revokes, losses]).toEqual([[], []]);
      // What it missed it is told when it can hear again, and only what is still so.
      s.rig.must(ROOT, 'envSuspend', s.b.id, 0, 0);
      s.rig.run(TIME);
      expect([revokes, losses]).toEqual([[[0, 0]], [COUNT]]);
    },
  },
  'dies in between': {
    *handler(s, port) {
      yield* port.call(Call.envDestroy, s.b.id, 0, 0);
    },
    forced: COUNT,
    after: (s) => {
      expect(s.rig.raw.stateOf(B)).toBe(EnvState.zombie);
    },
  },
  'keeps its minimum, and would keep more': {
    prepare: (s) => {
      for (const page of s.asked.slice(0, 2)) s.rig.must(B, 'pageKeep', page, 0, 1);
    },
    *handler(s, port) {
      for (const page of [...s.asked, ...s.outside, s.b.stack]) {
        yield* s.tries(port, 'pageKeep', page, 0, 1);
      }
    },
    forced: COUNT,
    after: (s) => {
      const kept = ['pageKeep ok 0', 'pageKeep ok 0'];
      const busy = Array.from({ length: ASKED - 2 }, () => 'pageKeep busy 0');
      expect(s.answers).toEqual([...kept, ...busy, ...kept, 'pageKeep quota 2']);
    },
  },
  'asks itself, or withdraws what others ask': {
    *handler(s, port) {
      const range = [0, s.rig.raw.pages] as const;
      yield* s.tries(port, 'revoke', B, 0, A, ...range, 0, DEADLINE_MIN);
      yield* s.tries(port, 'revoke', B, 0, A, ...range, 1, 2 ** 31 - 1);
      yield* s.tries(port, 'repossess', B, 0, s.first);
    },
    forced: COUNT,
    after: (s) => {
      const no = 'notPermitted 1';
      expect(s.answers).toEqual([`revoke ${no}`, `revoke ${no}`, `repossess ${no}`]);
    },
  },
  'moves its allotment away, to a friend and to a child': {
    prepare: (s) => {
      const { a, b } = packName([2, 5]);
      s.rig.must(B, 'accountCreate', 20, B, 0, a, b, 0);
    },
    *handler(s, port) {
      for (const to of [ROOT, 20]) {
        for (let n = 0; n < 3; n++) yield* s.tries(port, 'accountMove', B, to, 0, 0, 1);
        yield* s.tries(port, 'accountMove', B, to, 0, 0, 12);
      }
      yield* s.tries(port, 'accountClose', B, 0);
      // And takes it back, that the scales are even.
      yield* port.call(Call.accountMove, 20, B, 0, 0, 3);
    },
    forced: COUNT,
  },
  'unmaps, maps elsewhere and shares what it should give': {
    *handler(s, port) {
      for (const page of s.asked) {
        yield* port.call(Call.accessAdd, page, 0, 1, NAME_A.a, NAME_A.b, READ | WRITE);
        yield* port.call(Call.pageMap, s.b.leaf, s.index(page) + 50, page, 0, 0, RW, 0);
        yield* port.call(Call.pageLimit, page, 0, 2, 2);
      }
    },
    forced: COUNT,
  },
};

describe('an owner that', () => {
  for (const [name, owner] of Object.entries(OWNERS)) {
    test(name, () => {
      const s = boot(owner.config);
      const { raw } = s.rig;
      s.registers(COUNT);
      owner.prepare?.(s);
      const { handler } = owner;
      if (handler !== undefined) s.onRevoke((port) => handler(s, port));
      const friendly = name.startsWith('moves its allotment');
      if (friendly) {
        s.reclaims();
        expect(s.wanted).toBe(0);
        // Three pages of allotment went to the asker of the owner's own accord.
        expect(s.answers.filter((it) => it === 'accountMove ok 0')).toHaveLength(6);
        expect(s.answers.at(-1)).toBe('accountClose busy 0');
      } else exactly(COUNT, () => s.reclaims());
      expect(s.taken).toHaveLength(owner.forced);
      for (const { page } of s.taken) expect(raw.kind(page)).not.toBe(PageKind.user);
      owner.after?.(s);
      savedAll();
    });
  }
});

describe('the page', () => {
  test('is in forty environments: it goes out of each, a step at a time', () => {
    const forty = 40;
    const s = boot({
      exokernel: { environments: 70 },
      machine: { pages: 440 },
      tenant: (n) => (n + 1 === ROOT ? { name: [], quota: 4 } : { quota: n === 1 ? 240 : 24 }),
    });
    const { rig, b, broker } = s;
    rig.must(ROOT, 'accountMove', ROOT, B, 0, Resource.environments, 20);
    const name = packName([2, 5]);
    const page = s.first;
    rig.must(B, 'accessAdd', page, 0, 1, name.a, name.b, READ | WRITE);
    for (let n = 0; n < forty; n++) {
      const [root, middle, leaf, x, y] = [0, 1, 2, 3, 4].map(() => s.take(b)) as Five;
      const { a: word, b: more } = name;
      rig.must(B, 'envCreate', rig.raw.freeRow(), root, 0, word, more, -1, -1);
      rig.must(B, 'tableCreate', root, 0, middle, 0, 0, 0, 0);
      rig.must(B, 'tableCreate', middle, 0, leaf, 0, x, y, 0);
      rig.must(B, 'pageMap', leaf, n, page, 0, 1, n % 2 === 0 ? RW : MAP_READ, 0);
    }
    rig.catches(B);
    const leaves = (): number => rig.raw.page(page, PageRecord.leaves);
    expect(leaves()).toBe(forty + 1);
    exactly(1, () => {
      s.asks(1);
      rig.run(TIME);
      const bytes = rig.machine.memory.bytes(page).slice();
      const first = rig.call(broker.row, 'repossess', B, 1, page);
      expect(first).toMatchObject({ status: Status.again, value: 0 });
      s.taken.push({ page, bytes, block: 0 });
    });
    expect(leaves()).toBe(forty + 1 - STEP_LEAVES);
    expect(audit(rig.raw, undefined, true)).toEqual([]);
    const more = rig.call(B, 'pageMap', b.leaf, 400, page, 0, 0, MAP_READ, 0);
    expect(more).toMatchObject({ status: Status.wrongKind, value: 2 });
    const taken = rig.call(A, 'pageAllocate', page, 0);
    expect(taken).toMatchObject({ status: Status.notFree, value: 0 });
    // Anybody may do the rest.
    expect(rig.steps(A, 'pageSweep', page)).toBe(Math.ceil((forty + 1) / STEP_LEAVES) - 1);
    expect(rig.raw.kind(page)).toBe(PageKind.free);
    const va = s.index(page) * PAGE_BYTES;
    expect(rig.access(B, va)).toMatchObject({ address: va });
    expect(rig.access(B, va, 1)).toMatchObject({ address: va });
  });

  test('is being written by a slow device: nobody has it until that is over', () => {
    const s = boot({ machine: { profile: SLOW_DISK } });
    const { rig, b, asked } = s;
    const pinned = asked.slice(0, COUNT);
    list(s, pinned);
    rig.must(B, 'diskRequest', b.extent, 0, 0, COUNT, SCRATCH, 0, 0);
    exactly(COUNT, () => s.reclaims());
    expect(s.taken.map(({ page }) => page)).toEqual(pinned);
    for (const page of pinned) {
      expect([rig.raw.kind(page), rig.raw.accountOf(page)]).toEqual([PageKind.quarantined, ROOT]);
      const got = rig.call(A, 'pageAllocate', page, 0);
      expect(got).toMatchObject({ status: Status.notFree, value: 0 });
    }
    rig.run(30 * TIME);
    for (const page of pinned) expect(rig.raw.kind(page)).toBe(PageKind.free);
    expect(rig.raw.env(B, Env.diskDone)).toBe(1);
  });

  test('is given back while a slow device writes it: others are taken, and exactly as many', () => {
    const s = boot({ machine: { profile: SLOW_DISK } });
    const { rig, b, asked } = s;
    const pinned = asked.slice(0, COUNT);
    list(s, pinned);
    rig.must(B, 'diskRequest', b.extent, 0, 0, COUNT, SCRATCH, 0, 0);
    s.onRevoke(function* (port) {
      for (const page of pinned) yield* s.gives(port, page);
    });
    const used = rig.raw.used(B, Resource.pages);
    exactly(COUNT, () => s.reclaims());
    expect(s.taken.map(({ page }) => page)).toEqual(asked.slice(COUNT));
    // What was given back comes late, and the owner may use as many again.
    expect(rig.raw.used(B, Resource.pages)).toBe(used - COUNT);
    rig.run(30 * TIME);
    expect(rig.raw.used(B, Resource.pages)).toBe(used - 2 * COUNT);
  });

  test('is to be saved, and the owner floods the disk', () => {
    const diskAccess = { value: 2 * TIME, source: 'test: slow' };
    const s = boot({ machine: { profile: { ...RISCV, diskAccess } } });
    const { rig, b, broker } = s;
    s.registers(ASKED);
    list(s, [s.outside[0] ?? NaN]);
    const flood = (port: UserPort): Op<CallResult> =>
      port.call(Call.diskRequest, b.extent, 0, ASKED, 1, SCRATCH, 0, DISK_WRITE);
    rig.hand(B, function* (port): Op<void> {
      for (;;) yield* flood(port);
    });
    const refusals = rig.refusals.get(Status.full) ?? 0;
    exactly(ASKED, () => s.reclaims(ASKED));
    // Some of that was the owner's, some the broker's: what is refused is tried again.
    expect(rig.refusals.get(Status.full) ?? 0).toBeGreaterThan(refusals);
    expect(s.taken).toHaveLength(ASKED);
    rig.must(ROOT, 'envDestroy', b.id, 0, 0);
    savedAll();
    expect(rig.raw.stateOf(broker.row)).toBe(EnvState.ready);
  });

  test('is to be saved to an extent that is another by now: it is not saved, and taken', () => {
    const s = boot();
    const { rig, b } = s;
    s.registers(COUNT);
    rig.must(B, 'extentSplit', b.extent, 0, 5, 2, NAME_B.a, NAME_B.b);
    exactly(COUNT, () => s.reclaims());
    expect(s.taken.map(({ block }) => block)).toEqual([0, 0, 0, 0]);
  });

  test('is a table already: that is not taken by force, and whoever asked asks for others', () => {
    const s = boot();
    const { rig, b, broker, asked } = s;
    rig.must(B, 'pageUnmap', b.leaf, FIRST, OUTSIDE + ASKED, 0);
    const [t0, t1, t2, t3, t4, t5, t6, t7] = asked as Eight;
    rig.must(B, 'tableCreate', b.root, 9, t0, 0, 0, 0, 0);
    rig.must(B, 'tableCreate', t0, 9, t1, 0, t2, t3, 0);
    rig.must(B, 'tableCreate', t0, 10, t4, 0, t5, t6, 0);
    rig.must(B, 'tableCreate', b.root, 10, t7, 0, 0, 0, 0);
    exactly(0, () => {
      s.asks();
      rig.run(TIME);
      for (const page of asked) {
        const got = rig.call(broker.row, 'repossess', B, 1, page);
        expect(got).toMatchObject({ status: Status.wrongKind, value: 2 });
      }
      s.asks(0);
    });
    s.asked.splice(0, ASKED, ...s.outside);
    exactly(OUTSIDE, () => s.reclaims(OUTSIDE));
    expect(s.taken).toHaveLength(OUTSIDE);
  });
});

/** Words of a scatter list at SCRATCH of the owner. */
function list({ rig }: Scene, words: readonly number[]): void {
  rig.does(B, function* (port): Op<void> {
    for (const [n, word] of words.entries()) {
      port.store32(SCRATCH + n * 4, word) ?? (yield* port.fault());
    }
  });
}
type Five = [number, number, number, number, number];
type Eight = [number, number, number, number, number, number, number, number];

describe('the broker', () => {
  test('can ask and take, and else nothing', () => {
    const { rig, a, b, broker, first } = boot();
    const { a: word, b: more } = packName([2, 5]);
    const refused: readonly (readonly [CallName, ...number[]])[] = [
      ['pageAllocate', rig.raw.free(), 1],
      ['pageFree', first, 1],
      ['pageMap', b.leaf, 400, first, 1, 0, MAP_READ, 1],
      ['pageMapList', b.leaf, 400, 1, SCRATCH, 1, MAP_READ, 1],
      ['pageUnmap', b.leaf, FIRST, 1, 1],
      ['pageProtect', b.leaf, FIRST, 1, MAP_READ, 1],
      ['tableCreate', b.root, 9, first, 1, 0, 0, 1],
      ['tableDestroy', b.leaf, 1],
      ['accessAdd', first, 1, 1, 0, 0, READ],
      ['accessRemove', first, 1, 0],
      ['pageLimit', first, 1, -1, -1],
      ['pageKeep', first, 1, 1],
      ['pageCopy', first, 1, 0, first + 1, 1, 0],
      ['pageCopy', first + 1, 1, 0, first, 1, 0],
      ['capForge', b.id, 5, 1, 0, 0, REVOKE],
      ['capForge', broker.id, 5, 1, 0, 0, REVOKE],
      ['capForge', broker.id, 5, 1, word, more, READ],
      ['capDrop', b.id, 0, 1],
      ['capOffer', a.id, 1, 0, 0, REVOKE],
      ['notify', b.id, 1],
      ['envCreate', rig.raw.freeRow(), first, 1, word, more, -1, B],
      ['envSuspend', b.id, 1, 1],
      ['envDestroy', b.id, 1, 0],
      ['sliceFree', 1, 1],
      ['sliceAllocate', 1, b.id, 1],
      ['extentSplit', b.extent, 1, 5, 1, word, more],
      ['extentJoin', b.extent, 1, b.extent],
      ['diskRequest', b.extent, 1, 0, 1, SCRATCH, 1, 0],
      ['saveBlock', 0, b.extent, 1, 0],
      ['accountCreate', 20, B, 1, word, more, 0],
      ['accountClose', B, 1],
    ];
    for (const [call, ...args] of refused) {
      const { status } = rig.call(broker.row, call, ...args);
      expect(statusName(status), call).toBe('notPermitted');
    }
  });

  test('is held to the deadline, the range, the count, the minimum and what is kept', () => {
    const s = boot();
    const { rig, broker, asked, outside } = s;
    const { raw } = rig;
    const says = (call: CallName, ...args: readonly number[]): string => {
      const { status, value } = rig.call(broker.row, call, ...args);
      return `${statusName(status)} ${value}`;
    };
    const [one, two, three] = asked as [number, number, number];
    expect(says('repossess', B, 1, one)).toBe('absent 0');
    expect(says('revoke', B, 1, ROOT, one, 2, 2, DEADLINE_MIN - 1)).toBe('badArgument 6');
    const limit = raw.limit(B, Resource.pages);
    const most = limit - MINIMUM;
    // As far as it has pages, and as far as they are not guaranteed.
    rig.must(B, 'accountMove', B, A, 0, Resource.pages, limit - raw.used(B, Resource.pages));
    expect(most).toBeGreaterThan(ASKED);
    const spare = raw.used(B, Resource.pages) - MINIMUM;
    expect(says('revoke', B, 1, ROOT, one, 2, spare + 1, TIME)).toBe('quota 5');
    rig.must(B, 'pageKeep', two, 0, 1);
    s.rig.must(broker.row, 'revoke', B, 1, ROOT, one, 2, 1, TIME);
    expect(says('repossess', B, 1, one)).toBe('notReady 0');
    rig.run(TIME);
    expect(says('repossess', B, 1, three)).toBe('notPermitted 2');
    expect(says('repossess', B, 1, outside[0] ?? NaN)).toBe('notPermitted 2');
    expect(says('repossess', B, 1, two)).toBe('notPermitted 2');
    expect(says('repossess', B, 1, s.a.stack)).toBe('notPermitted 2');
    expect(says('repossess', A, 1, one)).toBe('absent 0');
    expect(says('repossess', B, 1, one)).toBe('ok 0');
    expect(says('repossess', B, 1, three)).toBe('absent 0');
  });

  test('asks somebody who is to get the pages himself: each passes on', () => {
    const s = boot();
    const { rig, broker, first } = s;
    const { raw } = rig;
    const limits = [A, B, ROOT].map((n) => raw.limit(n, Resource.pages));
    // Whatever ROOT gets of the range goes to A.
    rig.must(broker.row, 'revoke', ROOT, 1, A, first, ASKED, 1, TIME);
    s.reclaims();
    expect([B, ROOT].map((n) => raw.account(n, Account.wanted))).toEqual([0, 0]);
    const now = [A, B, ROOT].map((n) => raw.limit(n, Resource.pages));
    const [x = NaN, y = NaN, z = NaN] = limits;
    expect(now).toEqual([x + 1, y - COUNT, z + COUNT - 1]);
  });

  test('takes more than the loss table remembers: the last of them stand there', () => {
    const s = boot({
      machine: { pages: 160 },
      tenant: (n) => (n + 1 === ROOT ? { name: [], quota: 4 } : { quota: 52 }),
    });
    const { rig } = s;
    while (s.asked.length < LOSSES + ASKED) s.asked.push(s.take(s.b));
    s.reclaims(LOSSES);
    s.reclaims(ASKED);
    expect(s.taken).toHaveLength(LOSSES + ASKED);
    expect(rig.raw.account(B, Account.losses)).toBe(LOSSES + ASKED);
    const ring = Array.from({ length: LOSSES }, (_, n) => rig.raw.loss(B, Loss.ring + n * 2));
    const pages = s.taken.map(({ page }) => page);
    expect(ring).toEqual([...pages.slice(LOSSES), ...pages.slice(ASKED, LOSSES)]);
  });

  test('withdraws: what was given stays given, and the rest is the owner’s', () => {
    const s = boot();
    s.onRevoke(function* (port) {
      yield* s.gives(port, s.first);
    });
    exactly(1, () => {
      s.asks();
      s.rig.run(TIME);
      s.asks(0);
    });
    const { status } = s.rig.call(s.broker.row, 'repossess', B, 1, s.first + 1);
    expect(status).toBe(Status.absent);
    // And the pages are the owner's to do with what it likes.
    s.rig.must(B, 'pageKeep', s.first + 1, 0, 1);
  });
});

describe('an owner that does anything at all', () => {
  /** What it can do with a page of the range, or to itself. */
  const acts: readonly ((s: Scene, page: number, n: number) => (readonly number[])[])[] = [
    (s, page) => [
      [Call.pageUnmap, s.b.leaf, s.index(page), 1, 0],
      [Call.pageFree, page, 0],
    ],
    (s, page) => [[Call.pageUnmap, s.b.leaf, s.index(page), 1, 0]],
    (s, page, n) => [[Call.pageMap, s.b.leaf, 400 + (n % 8), page, 0, n % 2, RW, 0]],
    (_, page) => [[Call.pageKeep, page, 0, 1]],
    (_, page) => [[Call.pageAllocate, page, 0]],
    (s, page, n) => [[Call.tableCreate, s.b.root, 10 + (n % 200), page, 0, 0, 0, 0]],
    (s, page, n) => [[Call.tableCreate, s.b.middle, 10 + n, s.outside[0] ?? 0, 0, page, n, 0]],
    (_, page) => [[Call.accessAdd, page, 0, 1, NAME_B.a, NAME_B.b, READ | WRITE]],
    (_, page, n) => [[Call.accessRemove, page, 0, n % 4]],
    (_, page, n) => [[Call.pageLimit, page, 0, (n % 4) - 1, -1]],
    (s, page, n) => [
      [Call.pageCopy, page, 0, 0, s.outside[1] ?? 0, 0, 0],
      [Call.capForge, s.b.id, 1 + (n % 15), 0, NAME_B.a, NAME_B.b, ALL_RIGHTS],
    ],
    (s, page, n) =>
      [[Call.diskRequest, s.b.extent, 0, n % 8, 1, SCRATCH, 0, n % 2]].concat([
        [Call.pageSweep, page],
      ]),
    () => [[Call.accountMove, B, 20, 0, Resource.pages, 1]],
    (s) => [[Call.envSuspend, s.b.id, 0, 1]],
    (s, _, n) => (n % 4 === 0 ? [[Call.envDestroy, s.b.id, 0, 0]] : []),
  ];
  const act = fc.tuple(fc.nat(acts.length - 1), fc.nat(ASKED - 1), fc.nat(199));
  const done = { forced: 0, given: 0, runs: 0 };

  test('gives what is asked, or loses it', () => {
    const property = fc.property(fc.array(act, { maxLength: 24, size: 'max' }), (program) => {
      const s = boot();
      const { rig } = s;
      const { a, b } = packName([2, 5]);
      rig.must(B, 'accountCreate', 20, B, 0, a, b, 0);
      s.registers(2);
      list(s, [s.first]);
      s.onRevoke(function* (port): Op<void> {
        for (const [which, at, n] of program) {
          const page = s.asked[at] ?? NaN;
          for (const call of acts[which]?.(s, page, n) ?? [])
            yield* port.call(...(call as [number]));
        }
      });
      const before = rig.raw.limit(B, Resource.pages);
      const asker = rig.raw.limit(ROOT, Resource.pages);
      const bystander = holdings(s, A);
      s.reclaims();
      const { raw } = rig;
      expect(s.wanted).toBe(0);
      expect(raw.limit(ROOT, Resource.pages)).toBe(asker + COUNT);
      expect(raw.limit(B, Resource.pages)).toBeLessThanOrEqual(before - COUNT);
      expect(raw.limit(B, Resource.pages)).toBeGreaterThanOrEqual(MINIMUM);
      expect(raw.account(B, Account.losses)).toBe(s.taken.length);
      expect(s.taken.every(({ page }) => s.asked.includes(page))).toBe(true);
      expect(holdings(s, A) === bystander).toBe(true);
      expect([...audit(raw, undefined, true), ...books(raw)]).toEqual([]);
      done.forced += s.taken.length;
      done.given += COUNT - s.taken.length;
      done.runs++;
    });
    fc.assert(property, { numRuns: 120 });
    // Both ends of a revocation were reached, or this shows nothing.
    expect(Math.min(done.forced, done.given)).toBeGreaterThan(done.runs / 4);
  });
});
