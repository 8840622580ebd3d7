/**
 * Pages of the store are asked back, or taken: by another environment, that has the right to revoke.
 * The store goes on with fewer, and what it gives out stays right.
 */
import { expect, test } from 'vitest';
import {
  Account,
  Info,
  MAP_READ,
  PAGE_ACCOUNT_SHIFT,
  PAGE_KEPT,
  PageKind,
  Start,
  Status,
} from '../../../kernel/abi.ts';
import { KvStatus } from '../../../libos/kv/protocol.ts';
import type { Op } from '../../../libos/libos.ts';
import { countsOf } from '../../../libos/parts/transfers.ts';
import { type Around, bytes, client, type Program, text, world } from './rig.ts';

const PAGE = 4096;
const STORE = 1; // its account
const BROKER = 3;
const FRAMES = 40;
const KEYS = 200; // on about 50 blocks

const keyOf = (n: number): Uint8Array => bytes(`key ${n}`);
const valueOf = (n: number): Uint8Array => bytes(`${n} `.repeat(250));

/** Puts, then reads everything again and again; `rounds` counts. */
const reader = (progress: { rounds: number }): Program =>
  function* ({ kv }) {
    expect(yield* kv.connect()).toBe(true);
    for (let n = 0; n < KEYS; n++) expect(yield* kv.put(keyOf(n), valueOf(n))).toBe(KvStatus.ok);
    for (; progress.rounds < 8; progress.rounds++) {
      for (let n = 0; n < KEYS; n++) {
        const { status, value } = yield* kv.get(keyOf((n * 7) % KEYS));
        expect([status, text(value)]).toEqual([KvStatus.ok, text(valueOf((n * 7) % KEYS))]);
      }
      // New keys: the index needs pages, whoever took others.
      for (let n = 0; n < 24; n++) {
        const long = bytes(`${progress.rounds} ${n} `.padEnd(200, '-'));
        expect(yield* kv.put(long, bytes('new'))).toBe(KvStatus.ok);
      }
    }
  };

/** A word of the store's row of accounts. */
function* account({ sys, leaf }: Around, word: number): Op<number> {
  const view = Start.freePages + 100;
  const table = yield* sys.port.load(Start.infoPage * PAGE + Info.accountPage * 4);
  yield* sys.pageMap(leaf, view, table, 0, 0, MAP_READ, 0); // occupied from the second time on
  return yield* sys.port.load(view * PAGE + (STORE * Account.words + word) * 4);
}

function* pause({ sys, self }: Around, cycles: number): Op<void> {
  yield* sys.sleep(yield* sys.port.load(countsOf(self).events), cycles);
}

function run(progress: { rounds: number }, broker: Program): number {
  const { machine, said, kernel } = world({
    store: { frames: FRAMES, tenants: 1 },
    quota: 140,
    minimum: 90,
    clients: [client(reader(progress)), client(broker)],
    tenant: (n) => (n === BROKER ? { name: [] } : {}),
  });
  machine.run(1e11);
  expect([...said.values()].join('')).toBe('');
  expect(progress.rounds).toBe(8);
  return kernel.state.account.get(STORE, Account.losses);
}

test('asked for half of its frames and more, it gives them before the deadline', () => {
  const progress = { rounds: 0 };
  let given = 0;
  const losses = run(progress, function* (around) {
    const { sys } = around;
    while (progress.rounds < 3) yield* pause(around, 100_000);
    const pages = yield* sys.port.load(Start.infoPage * PAGE + Info.pages * 4);
    const used = yield* account(around, Account.used);
    for (const count of [20, 10, 4]) {
      const range = { first: 0, pages };
      const { status } = yield* sys.revoke(STORE, 0, BROKER, range, count, 20_000_000);
      expect(status).toBe(Status.ok);
      while ((yield* account(around, Account.wanted)) > 0) yield* pause(around, 100_000);
    }
    given = used - (yield* account(around, Account.used));
  });
  expect([given, losses]).toEqual([34, 0]);
});

test('only pages of the range that was asked for are given', () => {
  const progress = { rounds: 0 };
  const kinds: number[] = [];
  run(progress, function* (around) {
    const { sys } = around;
    while (progress.rounds < 3) yield* pause(around, 100_000);
    const loose = yield* loosePages(around);
    const first = loose[10] ?? 0;
    const { status } = yield* sys.revoke(STORE, 0, BROKER, { first, pages: 3 }, 1, 20_000_000);
    expect(status).toBe(Status.ok);
    while ((yield* account(around, Account.wanted)) > 0) yield* pause(around, 100_000);
    for (let page = first; page < first + 3; page++) {
      kinds.push((yield* sys.port.load(Start.pagePages * PAGE + page * 4)) & 0xff);
    }
  });
  expect(kinds.filter((kind) => kind === PageKind.free)).toHaveLength(1);
});

/** Pages of the store that can be taken by force. */
function* loosePages({ sys }: Around): Op<number[]> {
  const pages = yield* sys.port.load(Start.infoPage * PAGE + Info.pages * 4);
  const loose: number[] = [];
  for (let page = 0; page < pages; page++) {
    const word = yield* sys.port.load(Start.pagePages * PAGE + page * 4);
    const own = (word & 0xff) === PageKind.user && (word & PAGE_KEPT) === 0;
    if (own && ((word >>> PAGE_ACCOUNT_SHIFT) & 0xff) === STORE) loose.push(page);
  }
  return loose;
}

test('frames and idle pages taken by force, at any moment: it does without them', () => {
  const progress = { rounds: 0 };
  let taken = 0;
  const losses = run(progress, function* (around) {
    const { sys, server } = around;
    const pages = yield* sys.port.load(Start.infoPage * PAGE + Info.pages * 4);
    while (progress.rounds < 2) yield* pause(around, 100_000);
    for (let turn = 0; turn < 8; turn++) {
      // It is stopped wherever it is, so that it cannot comply; then it goes on.
      yield* pause(around, 100_000 + turn * 7_777);
      yield* sys.envSuspend(server, 0, 1);
      const loose = yield* loosePages(around);
      const count = Math.min(4, loose.length);
      const range = { first: 0, pages };
      expect((yield* sys.revoke(STORE, 0, BROKER, range, count, 10_000)).status).toBe(Status.ok);
      yield* pause(around, 40_000);
      for (let n = 0; n < count; n++) {
        const page = loose[(n * 11 + turn * 5) % loose.length] ?? 0;
        const { status } = yield* sys.repossess(STORE, 0, page);
        if (status === Status.ok) taken++;
      }
      yield* sys.revoke(STORE, 0, BROKER, range, 0, 10_000);
      yield* sys.envSuspend(server, 0, 0);
    }
  });
  expect(losses).toBe(taken);
  expect(taken).toBeGreaterThan(20);
});
