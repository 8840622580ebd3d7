/** Parts of the shelf, each held to what its file promises. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  Account,
  Info,
  MAP_READ,
  packName,
  READ,
  Start,
  Status,
  Upcall,
  WRITE,
} from '../../../kernel/abi.ts';
import { environmentIn } from '../../../libos/kv/client.ts';
import { image, LibOS, type Op, OWN_ENTRIES } from '../../../libos/libos.ts';
import { crc32c } from '../../../libos/parts/checksum.ts';
import { CHILD_WORDS, childWord, makeChild } from '../../../libos/parts/child.ts';
import { ask, operation, parse } from '../../../libos/parts/messages.ts';
import { PagePool, poolBytes } from '../../../libos/parts/page-pool.ts';
import { PageTables, tablesWords } from '../../../libos/parts/page-tables.ts';
import {
  Ring,
  ringData,
  RING_OWN_BYTES,
  RingReceiver,
  RingSender,
} from '../../../libos/parts/ring.ts';
import { Threads, threadsBytes } from '../../../libos/parts/threads.ts';
import { countsOf } from '../../../libos/parts/transfers.ts';
import { type Bench, bench } from './bench.ts';

const PAGE = 4096;

test('CRC-32C is the one of RFC 3720', () => {
  expect(crc32c(0, new Uint8Array(32)) >>> 0).toBe(0x8a9136aa);
  expect(crc32c(0, new Uint8Array(32).fill(0xff)) >>> 0).toBe(0x62a8ab43);
  expect(
    crc32c(
      0,
      Uint8Array.from({ length: 32 }, (_, n) => n),
    ) >>> 0,
  ).toBe(0x46dd794e);
  const digits = new TextEncoder().encode('123456789');
  expect(crc32c(crc32c(0, digits, 0, 4), digits, 4) >>> 0).toBe(0xe3069283);
});

// ---- page pool ----------------------------------------------------------------------------------

describe('page pool', () => {
  /** Pages that the exposed account says we use. */
  function* used({ sys, leaf }: Bench): Op<number> {
    const view = Start.freePages - 1;
    const accounts = yield* sys.port.load(Start.infoPage * PAGE + Info.accountPage * 4);
    yield* sys.pageMap(leaf, view, accounts, 0, 0, MAP_READ, 0);
    return yield* sys.port.load(view * PAGE + (Account.words + Account.used) * 4);
  }

  test('hands out pages of its own, each to one borrower, up to its capacity', () => {
    bench(function* (at) {
      const before = yield* used(at);
      const pool = new PagePool(at.sys, { at: at.space(poolBytes(20)), capacity: 20, slot: 0 });
      expect(yield* pool.fill(12)).toBe(12);
      expect(yield* used(at)).toBe(before + 12);
      const taken: number[] = [];
      for (let n = 0; n < 25; n++) taken.push(yield* pool.take());
      expect(taken.slice(20)).toEqual([-1, -1, -1, -1, -1]);
      expect(new Set(taken.slice(0, 20)).size).toBe(20);
      for (const page of taken.slice(0, 5)) yield* pool.put(page);
      expect([yield* pool.idle(), yield* pool.held()]).toEqual([5, 20]);
    });
  });

  test('gives back idle pages first, then what the policy names, and only of the range', () => {
    bench(function* (at) {
      const pool = new PagePool(at.sys, { at: at.space(poolBytes(20)), capacity: 20, slot: 0 });
      yield* pool.fill(10);
      const lent: number[] = [];
      for (let n = 0; n < 6; n++) lent.push(yield* pool.take());
      const before = yield* used(at);
      const barred = lent[5] ?? 0;
      const given = yield* pool.giveBack(
        9,
        (page) => page !== barred,
        function* (may) {
          yield* at.sys.nullCall();
          return lent.find((page, n) => may(page) && lent.splice(n, 1).length > 0) ?? -1;
        },
      );
      expect(given).toBe(9); // 4 idle ones, 5 from the policy
      expect(lent).toEqual([barred]);
      expect(yield* used(at)).toBe(before - 9);
      expect([yield* pool.idle(), yield* pool.held()]).toEqual([0, 1]);
    });
  });

  test('a page that is still mapped stays its own', () => {
    bench(function* (at) {
      const pool = new PagePool(at.sys, { at: at.space(poolBytes(4)), capacity: 4, slot: 0 });
      const page = yield* pool.take();
      yield* at.sys.pageMap(at.leaf, Start.freePages - 2, page, 0, 0, MAP_READ, 0);
      let asked = 0;
      const given = yield* pool.giveBack(
        1,
        () => true,
        function* () {
          yield* at.sys.nullCall();
          return asked++ === 0 ? page : -1;
        },
      );
      expect([given, yield* pool.held(), yield* pool.idle()]).toEqual([0, 1, 1]);
    });
  });
});

// ---- page tables --------------------------------------------------------------------------------

describe('page tables', () => {
  const LEAVES = 1_100; // middle tables 0 to 2

  function* tablesOf(at: Bench, capacity = 60): Op<{ tables: PageTables; pool: PagePool }> {
    const pool = new PagePool(at.sys, { at: at.space(poolBytes(80)), capacity, slot: 0 });
    const tables = new PageTables(at.sys, {
      root: at.root,
      at: at.space(tablesWords(LEAVES) * 4),
      leaves: LEAVES,
      slot: 0,
      take: () => pool.take(),
      put: (page) => pool.put(page),
    });
    yield* tables.adopt(at.middle, at.leaf);
    return { tables, pool };
  }

  test('map at any address, tables made when they are needed and once', () => {
    bench(function* (at) {
      const { tables, pool } = yield* tablesOf(at);
      const places = [600, 601, 5_000, 512 * 512 + 7, 512 * 512 * 2 + 9];
      for (const place of places) {
        expect(yield* tables.map(place, yield* pool.take())).toBe(Status.ok);
        yield* at.sys.port.store(place * PAGE, place);
      }
      for (const place of places) expect(yield* at.sys.port.load(place * PAGE)).toBe(place);
      // Five pages, four leaf tables of three pages, two middle tables.
      expect((yield* pool.held()) - (yield* pool.idle())).toBe(5 + 4 * 3 + 2);
      expect(yield* tables.map(600, at.pages[0] ?? 0)).toBe(Status.occupied);
      yield* tables.unmap(600);
      expect(yield* tables.map(600, at.pages[0] ?? 0)).toBe(Status.ok);
      yield* tables.unmap(300_000); // no table: nothing to do
      expect(yield* tables.map(LEAVES * 512, at.pages[0] ?? 0)).toBe(Status.quota);
    });
  });

  test('without pages for a table nothing is mapped and nothing is lost', () => {
    bench(function* (at) {
      const { tables, pool } = yield* tablesOf(at, 2);
      expect(yield* tables.map(600, at.pages[0] ?? 0)).toBe(Status.quota);
      expect([yield* pool.idle(), yield* pool.held()]).toEqual([2, 2]);
    });
  });
});

// ---- ring ---------------------------------------------------------------------------------------

describe('ring', () => {
  interface Ends {
    readonly shared: number;
    readonly sender: RingSender;
    readonly receiver: RingReceiver;
  }
  function endsOf({ sys, space }: Bench, bytes: number): Ends {
    const shared = space(PAGE);
    const spec = { shared, bytes };
    const own = space(PAGE);
    return {
      shared,
      sender: new RingSender(sys.port, { ...spec, own }),
      receiver: new RingReceiver(sys.port, { ...spec, own: own + RING_OWN_BYTES }),
    };
  }

  test('what is sent arrives, in order, whole, also round the end', () => {
    const step = fc.oneof(fc.constant(null), fc.uint8Array({ maxLength: 140 }));
    fc.assert(
      fc.property(fc.array(step, { minLength: 40, maxLength: 120 }), (steps) => {
        bench(function* (at) {
          const { sender, receiver } = endsOf(at, 330); // 256 bytes of data
          const queue: Uint8Array[] = [];
          const taken = (): number =>
            queue.reduce((sum, one) => sum + 4 + Math.ceil(one.length / 4) * 4, 0);
          for (const message of steps) {
            if (message === null) {
              const into = new Uint8Array(140);
              const got = yield* receiver.receive(into);
              const expected = queue.shift();
              expect(got).toBe(expected?.length ?? Ring.wait);
              if (expected !== undefined) expect(into.slice(0, got)).toEqual(expected);
            } else {
              const fits = taken() + 4 + Math.ceil(message.length / 4) * 4 <= 256;
              expect(yield* sender.send(message)).toBe(fits ? message.length : Ring.wait);
              if (fits) queue.push(message);
            }
          }
        });
      }),
      { numRuns: 10 },
    );
  });

  test('whatever the other side writes, neither is led astray', () => {
    const lie = fc.record({
      word: fc.oneof(fc.constantFrom(0, 1), fc.nat({ max: 90 })),
      value: fc.oneof(
        fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }),
        fc.integer({ min: -8, max: 300 }),
      ),
    });
    fc.assert(
      fc.property(fc.array(lie, { minLength: 20, maxLength: 60 }), fc.boolean(), (lies, sends) => {
        bench(function* (at) {
          const { shared, sender, receiver } = endsOf(at, 330);
          const size = ringData(330);
          const guard = new Uint8Array(PAGE - 64 - size);
          for (const { word, value } of lies) {
            // The liar is the other side: it can write all that is shared.
            yield* at.sys.port.store(shared + (word % ((64 + size) / 4)) * 4, value);
            const into = new Uint8Array(100).fill(0xee);
            const got = sends
              ? yield* sender.send(new Uint8Array(60).fill(0xaa))
              : yield* receiver.receive(into.subarray(0, 64));
            expect(got).toBeLessThanOrEqual(64);
            expect(got).toBeGreaterThanOrEqual(Ring.tooLong);
            expect(into.subarray(64)).toEqual(new Uint8Array(36).fill(0xee));
          }
          // Behind the data nothing was touched.
          const rest = new Uint8Array(guard.length);
          at.sys.port.read(shared + 64 + size, rest, 0, rest.length) ??
            (yield* at.sys.port.fault());
          expect(rest).toEqual(guard);
        });
      }),
      { numRuns: 8 },
    );
  });

  test('an index that lies is told, for good', () => {
    bench(function* (at) {
      const { shared, sender, receiver } = endsOf(at, 330);
      yield* at.sys.port.store(shared + 4, 257); // sent: more than there is room for
      expect(yield* receiver.receive(new Uint8Array(64))).toBe(Ring.lied);
      yield* at.sys.port.store(shared + 4, 0);
      expect(yield* receiver.receive(new Uint8Array(64))).toBe(Ring.lied);
      yield* at.sys.port.store(shared, 4); // received: what was never sent
      expect(yield* sender.send(new Uint8Array(4))).toBe(Ring.lied);
      expect(yield* sender.send(new Uint8Array(300))).toBe(Ring.tooLong);
    });
  });
});

// ---- messages, and a ring between tenants -------------------------------------------------------

const SUMS = {
  add: operation(1, ['left', 'right'], ['sum']),
  share: operation(2, [], ['total']),
} as const;
const TABLE = Start.freePages;

/** Adds numbers; and adds up the bytes that come through a ring on the page that it is granted. */
class Adder extends LibOS {
  override *main(_self: number, _root: number, _middle: number, leaf: number): Op<void> {
    const { sys } = this;
    yield* sys.ipcWindow(leaf, TABLE, 0);
    let message = yield* sys.ipcReplyWait(-1, []);
    for (;;) {
      message = yield* sys.ipcReplyWait(message.from, yield* this.#answer(message));
    }
  }

  *#answer(message: {
    words: readonly [number, number, number, number];
    granted: number;
  }): Op<readonly number[]> {
    const request = parse(SUMS, message.words);
    if (request === null) return [1];
    if (request.name === 'add') return [0, request.fields.left + request.fields.right];
    const ring = new RingReceiver(this.port, {
      shared: message.granted * PAGE,
      bytes: PAGE,
      own: Start.stackPage * PAGE + 512,
    });
    const into = new Uint8Array(64);
    let total = 0;
    for (let got = yield* ring.receive(into); got >= 0; got = yield* ring.receive(into)) {
      total += into.subarray(0, got).reduce((sum, byte) => sum + byte, 0);
    }
    return [0, total];
  }
}
const adder = image('adder', (port) => new Adder(port));

test('typed messages, and a ring over a page that is granted and taken back', () => {
  bench(
    function* (at) {
      const { sys } = at;
      const server = yield* environmentIn(sys, 2);
      const sum = yield* ask(sys, server, SUMS.add, { left: 40, right: 2 });
      expect(sum).toEqual({ kernel: Status.ok, status: 0, sum: 42 });
      const unknown = yield* ask(sys, server, operation(77), {});
      expect(unknown.status).toBe(1);
      const nobody = yield* ask(sys, server + 1, SUMS.add, { left: 1, right: 1 });
      expect([nobody.kernel, nobody.status]).toEqual([Status.badEnvironment, -1]);
      const shared = at.space(PAGE);
      const page = at.pages[(shared - at.data) / PAGE] ?? 0;
      const ring = new RingSender(sys.port, { shared, bytes: PAGE, own: at.space(PAGE) });
      for (const message of [[1, 2, 3], [], [100]]) yield* ring.send(Uint8Array.from(message));
      const grant = { page, slot: 0, rights: READ | WRITE, entry: 1 };
      const shares = yield* ask(sys, server, SUMS.share, {}, grant);
      expect(shares).toEqual({ kernel: Status.ok, status: 0, total: 106 });
      expect((yield* sys.accessRemove(page, 0, 1)).status).toBe(Status.ok);
    },
    { others: [adder] },
  );
});

// ---- children -----------------------------------------------------------------------------------

test('a child finds the world as a first environment does, and the words that it was left', () => {
  let seen: number[] = [];
  const child = function* (libos: LibOS): Op<void> {
    const word = yield* childWord(libos.sys, 1);
    const pages = yield* libos.port.load(Start.infoPage * PAGE + Info.pages * 4);
    const kind = yield* libos.port.load(Start.pagePages * PAGE);
    yield* libos.port.store(CHILD_WORDS, 7); // its stack page is its own to write
    seen = [word, pages, kind & 0xff, yield* libos.port.load(CHILD_WORDS)];
  };
  bench(
    function* (at) {
      const pool = new PagePool(at.sys, { at: at.space(poolBytes(20)), capacity: 20, slot: 0 });
      const spec = {
        image: 0,
        entry: OWN_ENTRIES,
        name: packName([1, 9]),
        slot: 0,
        words: () => [5, 6],
        window: { leaf: at.leaf, index: Start.freePages - 1 },
        take: () => pool.take(),
        put: (page: number) => pool.put(page),
      };
      const env = yield* makeChild(at.sys, spec);
      expect(env).toBeGreaterThan(0);
      yield* at.sys.yieldTo(env);
      // Who has no capability of that name makes nobody, and keeps the pages.
      expect(yield* makeChild(at.sys, { ...spec, name: packName([2]) })).toBe(-1);
      expect(yield* pool.idle()).toBe((yield* pool.held()) - 6); // the first child's
      expect(yield* makeChild(at.sys, { ...spec, take: () => none() })).toBe(-1);
    },
    { entries: (libos) => [() => child(libos)] },
  );
  expect(seen).toEqual([6, 1024, 7, 7]);
});
function* none(): Op<number> {
  return -1;
}

// ---- threads ------------------------------------------------------------------------------------

describe('threads', () => {
  const COUNTS = 2048; // words of the stack page's rest: what each thread has done

  interface Team {
    threads: Threads | null;
  }
  const teamOf = (at: Bench, count: number): Threads =>
    new Threads(at.sys, {
      at: at.space(threadsBytes(count)),
      threads: count,
      events: countsOf(at.self).events,
    });

  test('threads that never give way share the slices', () => {
    const team: Team = { threads: null };
    const counts = [0, 0, 0];
    const spin = function* (libos: LibOS, own: number): Op<void> {
      for (;;) {
        libos.port.work(500) ?? (yield* libos.port.fault());
        counts[own] = (counts[own] ?? 0) + 1;
      }
    };
    bench(
      function* (at) {
        const threads = teamOf(at, 4);
        team.threads = threads;
        yield* threads.adopt();
        for (const own of [1, 2]) {
          expect(yield* threads.create(OWN_ENTRIES, at.self, own)).toBe(own);
        }
        yield* at.libos.catchSlices();
        while ((counts[0] ?? 0) < 4_000) {
          at.sys.port.work(500) ?? (yield* at.sys.port.fault());
          counts[0] = (counts[0] ?? 0) + 1;
        }
        yield* at.sys.upcallSet(Upcall.sliceEnd, -1, COUNTS);
      },
      {
        entries: (libos) => [(_self = 0, own = 0) => spin(libos, own)],
        onSliceEnd: function* (libos) {
          yield* team.threads?.sliceEnded(() => libos.acknowledge(Upcall.sliceEnd)) ?? none();
        },
        sliceCycles: 20_000,
      },
    );
    for (const count of counts) {
      expect(count).toBeGreaterThan(3_500);
      expect(count).toBeLessThan(4_500);
    }
  });

  test('wait, wake, pass and exit: a queue between threads, whenever slices end', () => {
    const team: Team = { threads: null };
    const order: number[] = [];
    const consumer = function* (at: Bench, box: number): Op<void> {
      const { port } = at.sys;
      const threads = team.threads;
      if (threads === null) return;
      for (let n = 0; n < 200; n++) {
        while ((yield* port.load(box)) === 0) yield* threads.pass();
        order.push(yield* port.load(box));
        yield* port.store(box, 0);
        yield* threads.wake(0);
      }
      yield* threads.exit();
    };
    let bench0: Bench | null = null;
    let box = 0;
    bench(
      function* (at) {
        bench0 = at;
        box = at.space(PAGE);
        const threads = teamOf(at, 3);
        team.threads = threads;
        yield* threads.adopt();
        const row = yield* threads.create(OWN_ENTRIES, at.self);
        yield* at.libos.catchSlices();
        for (let n = 1; n <= 200; n++) {
          yield* at.sys.port.store(box, n);
          while ((yield* at.sys.port.load(box)) !== 0) yield* threads.wait();
        }
        yield* threads.pass(); // lets it end
        // Its row is free for another.
        expect(yield* threads.create(OWN_ENTRIES, at.self)).toBe(row);
        expect(yield* threads.create(OWN_ENTRIES, at.self)).toBe(row + 1);
        expect(yield* threads.create(OWN_ENTRIES, at.self)).toBe(-1);
        yield* at.sys.upcallSet(Upcall.sliceEnd, -1, COUNTS);
      },
      {
        entries: () => [() => (bench0 === null ? stop() : consumer(bench0, box))],
        onSliceEnd: function* (libos) {
          yield* team.threads?.sliceEnded(() => libos.acknowledge(Upcall.sliceEnd)) ?? none();
        },
        sliceCycles: 10_000,
      },
    );
    expect(order).toEqual(Array.from({ length: 200 }, (_, n) => n + 1));
  });
});
function* stop(): Op<void> {
  yield* none();
}
