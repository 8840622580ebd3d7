/**
 * Attacks by name, each of which must fail, and what the kernel does to programs that misbehave.
 * The attacker is tenant B, the victim tenant A, unless the attack is on one's own tables. After
 * each test every invariant holds.
 */
import { afterEach, describe, expect, test } from 'vitest';
import {
  ALL_RIGHTS,
  Call,
  CALL_COUNT,
  CONSOLE_MAX,
  DISK_WRITE,
  Env,
  EnvState,
  FAULT_FRAMES,
  Info,
  MAP_READ,
  MAP_WRITE,
  packName,
  PageKind,
  READ,
  Resource,
  Start,
  Status,
  Upcall,
  WRITE,
} from '../../kernel/abi.ts';
import { Cpu, EXCESS_MAX, PageRecord, Private } from '../../kernel/exokernel/state.ts';
import { Cause } from '../../machine/machine.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Op, UserPort } from '../../machine/user-port.ts';
import {
  BLOCKS_EACH,
  Entry,
  GRACE,
  type Home,
  LATE_DISK,
  NAME_A,
  NAME_B,
  Rig,
  type RigConfig,
  SCRATCH,
} from './harness.ts';
import { audit, books } from '../../check/invariants/index.ts';

const RW = MAP_READ | MAP_WRITE;
const at = (index: number): number => index * PAGE_BYTES;
const LOAD = Cause.loadPageFault;
const STORE = Cause.storePageFault;
/** An answer by status and argument. */
const said = (status: number, value: number): object => ({ status, value });
const notPermitted = (argument: number): object => said(Status.notPermitted, argument);

let rig: Rig;
const boot = (config: RigConfig = {}): Rig => (rig = new Rig(config));
afterEach(() => {
  expect([...audit(rig.raw), ...books(rig.raw)]).toEqual([]);
});

const take = ({ row }: Home): number => {
  const page = rig.raw.free();
  rig.must(row, 'pageAllocate', page, 0);
  return page;
};
const map = (home: Home, index: number, page: number, flags = RW, entry = 0): number =>
  rig.must(home.row, 'pageMap', home.leaf, index, page, 0, entry, flags, 0);
/** A page of `home`, mapped at `index` and written to, so that its translation is cached. */
function fresh(home: Home, index: number, word = 7): number {
  const page = take(home);
  map(home, index, page);
  expect(rig.access(home.row, at(index), word)).toBe(0);
  return page;
}
const words = (row: number, va: number, list: readonly number[]): void =>
  rig.does(row, function* (port): Op<void> {
    for (const [n, word] of list.entries()) {
      port.store32(va + n * 4, word) ?? (yield* port.fault());
    }
  });

describe('memory', () => {
  test("mapping another tenant's page", () => {
    const { a, b } = boot();
    for (const page of [a.stack, take(a)]) {
      for (const flags of [MAP_READ, RW]) {
        const got = rig.call(b.row, 'pageMap', b.leaf, 300, page, 0, 0, flags, 0);
        expect(got).toMatchObject(notPermitted(3));
      }
    }
    expect(rig.call(b.row, 'pageFree', a.stack, 0)).toMatchObject(notPermitted(1));
    const add = rig.call(b.row, 'accessAdd', a.stack, 0, 1, NAME_B.a, NAME_B.b, READ);
    expect(add).toMatchObject(notPermitted(1));
  });

  test("mapping one's own page into another tenant's table, and unmapping there", () => {
    const { a, b } = boot();
    const page = take(b);
    const into = rig.call(b.row, 'pageMap', a.leaf, 300, page, 0, 0, RW, 0);
    expect(into).toMatchObject(notPermitted(6));
    const stack = rig.call(b.row, 'pageUnmap', a.leaf, Start.stackPage, 1, 0);
    expect(stack).toMatchObject(notPermitted(3));
    const flags = rig.call(b.row, 'pageProtect', a.leaf, Start.stackPage, 1, MAP_READ, 0);
    expect(flags).toMatchObject(notPermitted(4));
    expect(rig.call(b.row, 'tableDestroy', a.leaf, 0)).toMatchObject(notPermitted(1));
    const [x, y, z] = [take(b), take(b), take(b)];
    const hang = rig.call(b.row, 'tableCreate', a.middle, 9, x, 0, y, z, 0);
    expect(hang).toMatchObject(notPermitted(6));
  });

  test('mapping a page table writable', () => {
    const { a, b } = boot();
    for (const table of [b.root, b.middle, b.leaf]) {
      const got = rig.call(b.row, 'pageMap', b.leaf, 300, table, 0, 0, RW, 0);
      expect(got).toMatchObject(notPermitted(5));
    }
    map(b, 300, b.leaf, MAP_READ);
    const more = rig.call(b.row, 'pageProtect', b.leaf, 300, 1, RW, 0);
    expect(more).toMatchObject(notPermitted(3));
    rig.catches(b.row);
    expect(rig.access(b.row, at(300), -1)).toEqual({ cause: STORE, address: at(300) });
    // Reading is exposure, and only of one's own: the entry of page 300 is there to be seen.
    expect(rig.access(b.row, at(300) + 300 * 8)).toBe(rig.raw.word(b.leaf, 600));
    for (const table of [a.root, a.middle, a.leaf]) {
      const got = rig.call(b.row, 'pageMap', b.leaf, 301, table, 0, 0, MAP_READ, 0);
      expect(got).toMatchObject(notPermitted(2));
    }
    // A device is no way round.
    words(b.row, SCRATCH, [b.leaf]);
    const read = rig.call(b.row, 'diskRequest', b.extent, 0, 0, 1, SCRATCH, 0, 0);
    expect(read).toMatchObject(said(Status.wrongKind, 4));
  });

  test("mapping the kernel's own pages, ledgers and free pages", () => {
    const { a, b } = boot();
    const { state } = rig.kernel;
    const pages = Array.from({ length: state.end - state.firstPrivate }, (_, n) => n);
    for (const page of [...pages.map((n) => state.firstPrivate + n), b.ledger0, a.ledger1]) {
      const got = rig.call(b.row, 'pageMap', b.leaf, 300, page, 0, 0, MAP_READ, 0);
      expect(got).toMatchObject(said(Status.wrongKind, 2));
    }
    const free = rig.call(b.row, 'pageMap', b.leaf, 300, rig.raw.free(), 0, 0, MAP_READ, 0);
    expect(free).toMatchObject(said(Status.wrongKind, 2));
    for (let page = 0; page < state.firstPrivate; page++) {
      const got = rig.call(b.row, 'pageMap', b.leaf, 300, page, 0, 0, RW, 0);
      expect(got).toMatchObject(notPermitted(5));
    }
    rig.catches(b.row);
    for (const page of [Start.infoPage, Start.envPages, Start.pagePages]) {
      expect(rig.access(b.row, at(page), 1)).toEqual({ cause: STORE, address: at(page) });
    }
  });

  test('reaching the direct map, and addresses beyond the tables', () => {
    const { b } = boot();
    rig.catches(b.row);
    for (const va of [0, at(512), 2 ** 31, 2 ** 32 - 4]) {
      expect(rig.access(b.row, va)).toEqual({ cause: LOAD, address: va });
      expect(rig.access(b.row, va, 1)).toEqual({ cause: STORE, address: va });
    }
    const [x, y, z] = [take(b), take(b), take(b)];
    for (const index of [256, 511]) {
      const got = rig.call(b.row, 'tableCreate', b.root, index, x, 0, y, z, 0);
      expect(got).toMatchObject(said(Status.badArgument, 1));
    }
  });

  test('writing through a read-only mapping of a shared page', () => {
    const { a, b } = boot();
    const page = fresh(a, 300);
    rig.must(a.row, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ);
    const wide = rig.call(b.row, 'pageMap', b.leaf, 300, page, 0, 1, RW, 0);
    expect(wide).toMatchObject(notPermitted(3));
    map(b, 300, page, MAP_READ, 1);
    rig.catches(b.row);
    expect(rig.access(b.row, at(300))).toBe(7);
    expect(rig.access(b.row, at(300), 1)).toEqual({ cause: STORE, address: at(300) });
    const wider = rig.call(b.row, 'pageProtect', b.leaf, 300, 1, RW, 0);
    expect(wider).toMatchObject(notPermitted(3));
    words(b.row, SCRATCH, [page | (1 << 28)]);
    const dma = rig.call(b.row, 'diskRequest', b.extent, 0, 0, 1, SCRATCH, 0, 0);
    expect(dma).toMatchObject(notPermitted(5));
    expect(rig.access(a.row, at(300))).toBe(7);
  });

  test('a stale translation after pageUnmap, of one page and of many', () => {
    const { b } = boot();
    rig.catches(b.row);
    for (const count of [1, 3, 4, 5, 8]) {
      const pages = Array.from({ length: count }, (_, n) => fresh(b, 300 + n, n));
      rig.must(b.row, 'pageUnmap', b.leaf, 300, count, 0);
      for (const [n, page] of pages.entries()) {
        const va = at(300 + n);
        expect(rig.access(b.row, va, 9)).toEqual({ cause: STORE, address: va });
        expect(rig.access(b.row, va)).toEqual({ cause: LOAD, address: va });
        rig.must(b.row, 'pageFree', page, 0);
      }
    }
  });

  test('a stale right after pageProtect', () => {
    const { b } = boot();
    rig.catches(b.row);
    fresh(b, 300);
    rig.must(b.row, 'pageProtect', b.leaf, 300, 1, MAP_READ, 0);
    expect(rig.access(b.row, at(300), 9)).toEqual({ cause: STORE, address: at(300) });
    expect(rig.access(b.row, at(300))).toBe(7);
    rig.must(b.row, 'pageProtect', b.leaf, 300, 1, RW, 0);
    expect(rig.access(b.row, at(300), 9)).toBe(0);
  });

  test('a stale walk after tableDestroy: another table in the place of the old one', () => {
    const { b } = boot();
    rig.catches(b.row);
    const [leaf, ledger0, ledger1, page] = [take(b), take(b), take(b), take(b)];
    const va = at(512 * 3);
    const hang = (): number =>
      rig.must(b.row, 'tableCreate', b.middle, 3, leaf, 0, ledger0, ledger1, 0);
    hang();
    rig.must(b.row, 'pageMap', leaf, 0, page, 0, 0, RW, 0);
    expect(rig.access(b.row, va, 5)).toBe(0);
    const used = rig.call(b.row, 'tableDestroy', leaf, 0);
    expect(used).toMatchObject(said(Status.busy, 0));
    rig.must(b.row, 'pageUnmap', leaf, 0, 1, 0);
    // The walker has the way to the empty table in its cache again.
    expect(rig.access(b.row, va)).toEqual({ cause: LOAD, address: va });
    rig.must(b.row, 'tableDestroy', leaf, 0);
    expect(rig.access(b.row, va)).toEqual({ cause: LOAD, address: va });
    // What is user memory again must not be walked: forge entries in it, then look.
    map(b, 300, leaf);
    expect(rig.access(b.row, at(300), (b.leaf << 10) | 0xd7)).toBe(0);
    expect(rig.access(b.row, va)).toEqual({ cause: LOAD, address: va });
    rig.must(b.row, 'pageUnmap', b.leaf, 300, 1, 0);
    hang();
    expect(rig.access(b.row, va)).toEqual({ cause: LOAD, address: va });
  });

  test('flags that are flags modulo 2^32 only', () => {
    const { b } = boot();
    const page = take(b);
    const wide = 2 ** 32 + MAP_READ;
    const mapped = rig.call(b.row, 'pageMap', b.leaf, 300, page, 0, 0, wide, 0);
    expect(mapped).toMatchObject(said(Status.badArgument, 5));
    map(b, 300, page);
    const changed = rig.call(b.row, 'pageProtect', b.leaf, 300, 1, wide, 0);
    expect(changed).toMatchObject(said(Status.badArgument, 3));
  });

  test('what the last owner left in a page', () => {
    const { a, b } = boot();
    rig.catches(a.row);
    const page = fresh(a, 300, 0x5ec2e7);
    rig.must(a.row, 'pageUnmap', a.leaf, 300, 1, 0);
    rig.must(a.row, 'pageFree', page, 0);
    rig.must(b.row, 'pageAllocate', page, 0);
    map(b, 300, page);
    rig.catches(b.row);
    expect(rig.access(b.row, at(300))).toBe(0);
  });

  test('freeing twice', () => {
    const { b } = boot();
    const page = take(b);
    rig.must(b.row, 'pageFree', page, 0);
    expect(rig.call(b.row, 'pageFree', page, 0)).toMatchObject(said(Status.wrongKind, 0));
  });

  test('one page as table and both its ledgers', () => {
    const { b } = boot();
    const [x, y] = [take(b), take(b)];
    const thrice = (...pages: [number, number, number]): object =>
      rig.call(b.row, 'tableCreate', b.middle, 9, pages[0], 0, pages[1], pages[2], 0);
    expect(thrice(x, x, x)).toMatchObject(said(Status.badArgument, 4));
    expect(thrice(x, x, y)).toMatchObject(said(Status.badArgument, 4));
    expect(thrice(x, y, y)).toMatchObject(said(Status.badArgument, 4));
    expect(thrice(x, y, x)).toMatchObject(said(Status.badArgument, 5));
  });

  test('a ledger forged before it becomes one', () => {
    const { a, b } = boot();
    rig.catches(b.row);
    const [leaf, ledger0, ledger1] = [take(b), take(b), take(b)];
    // Records that name A's stack page, and link into A's table.
    const forged = [(a.leaf << 9) | 1, (a.leaf << 9) | 1, a.stack, 0];
    for (const ledger of [ledger0, ledger1]) {
      map(b, 300, ledger);
      words(b.row, at(300), [...forged, ...forged, ...forged]);
      rig.must(b.row, 'pageUnmap', b.leaf, 300, 1, 0);
    }
    rig.must(b.row, 'tableCreate', b.middle, 9, leaf, 0, ledger0, ledger1, 0);
    expect(rig.must(b.row, 'pageUnmap', leaf, 0, 64, 0)).toBe(0);
    const protect = rig.call(b.row, 'pageProtect', leaf, 0, 1, RW, 0);
    expect(protect).toMatchObject(said(Status.absent, 1));
    const page = take(b);
    for (const index of [0, 1, 256]) {
      rig.must(b.row, 'pageMap', leaf, index, page, 0, 0, RW, 0);
    }
    expect(audit(rig.raw)).toEqual([]);
    expect(rig.must(b.row, 'pageUnmap', leaf, 0, 2, 0)).toBe(2);
    expect(rig.raw.page(a.stack, PageRecord.leaves)).toBe(1);
    const map1 = rig.call(b.row, 'pageMap', b.leaf, 301, ledger0, 0, 0, MAP_READ, 0);
    expect(map1).toMatchObject(said(Status.wrongKind, 2));
  });

  test('a root forged before it becomes one', () => {
    const { a, b } = boot();
    const [root, middle] = [take(b), take(b)];
    // Entries that would make A's tables, and a middle table of B's own making, the child's.
    for (const page of [root, middle]) {
      map(b, 300, page);
      words(b.row, at(300), [(a.middle << 10) | 1, 0, (a.leaf << 10) | 1, 0]);
      rig.must(b.row, 'pageUnmap', b.leaf, 300, 1, 0);
    }
    const row = rig.raw.freeRow();
    rig.must(b.row, 'envCreate', row, root, 0, NAME_B.a, NAME_B.b, -1, -1);
    expect([0, 1].map((n) => rig.raw.entry(root, n))).toEqual([0, 0]);
    rig.must(b.row, 'tableCreate', root, 0, middle, 0, 0, 0, 0);
    expect([0, 1].map((n) => rig.raw.entry(middle, n))).toEqual([0, 0]);
  });

  test('a root that was shared before: where its tables lie is not what was left in it', () => {
    const { b } = boot();
    const [root, middle, leaf, ledger0, ledger1] = [0, 1, 2, 3, 4].map(() => take(b)) as Five;
    const other = packName([9, 9, 9]);
    rig.must(b.row, 'accessAdd', root, 0, 2, other.a, other.b, READ);
    rig.must(b.row, 'accessRemove', root, 0, 2);
    const row = rig.raw.freeRow();
    rig.must(b.row, 'envCreate', row, root, 0, NAME_B.a, NAME_B.b, -1, -1);
    rig.must(b.row, 'tableCreate', root, 3, middle, 0, 0, 0, 0);
    rig.must(b.row, 'tableCreate', middle, 5, leaf, 0, ledger0, ledger1, 0);
    // Or what is fenced when a mapping goes would be another page.
    expect(rig.raw.page(leaf, PageRecord.base)).toBe((3 << 18) | (5 << 9));
  });

  test('keeping a page that is taken away, by a mapping, its capability or its translation', () => {
    const { a, b } = boot();
    rig.catches(b.row);
    const page = take(a);
    rig.must(a.row, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ);
    rig.must(b.row, 'capForge', b.id, 3, 0, NAME_B.a, NAME_B.b, READ);
    rig.must(b.row, 'pageMap', b.leaf, 300, page, 3, 1, MAP_READ, 0);
    expect(rig.access(b.row, at(300))).toBe(0);
    expect(rig.call(b.row, 'capDrop', b.id, 3, 0)).toMatchObject(said(Status.busy, 1));
    expect(rig.call(a.row, 'pageFree', page, 0)).toMatchObject(said(Status.busy, 0));
    rig.must(a.row, 'accessRemove', page, 0, 1);
    expect(rig.access(b.row, at(300))).toEqual({ cause: LOAD, address: at(300) });
    const again = rig.call(b.row, 'pageMap', b.leaf, 300, page, 0, 1, MAP_READ, 0);
    expect(again).toMatchObject(said(Status.absent, 4));
    rig.must(b.row, 'capDrop', b.id, 3, 0);
    rig.must(a.row, 'pageFree', page, 0);
  });

  test('a shared page made a table: its sharers would write in it', () => {
    const { a } = boot();
    const page = take(a);
    const [x, y] = [take(a), take(a)];
    rig.must(a.row, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ | WRITE);
    const table = rig.call(a.row, 'tableCreate', a.middle, 9, page, 0, x, y, 0);
    expect(table).toMatchObject(said(Status.busy, 2));
    const { a: word, b: more } = packName([1, 1]);
    const root = rig.call(a.row, 'envCreate', rig.raw.freeRow(), page, 0, word, more, -1, -1);
    expect(root).toMatchObject(said(Status.busy, 1));
  });
});

describe('capabilities', () => {
  test('forging up: a broader name, a stranger’s, more rights, or without GRANT', () => {
    const { a, b } = boot();
    const forge = (here: number, name: readonly number[], rights: number, id = b.id): object => {
      const { a: word, b: more } = packName(name);
      return rig.call(b.row, 'capForge', id, 15, here, word, more, rights);
    };
    expect(forge(0, [], ALL_RIGHTS)).toMatchObject(notPermitted(2));
    expect(forge(0, [1], READ)).toMatchObject(notPermitted(2));
    expect(forge(0, [1, 2], READ)).toMatchObject(notPermitted(2));
    rig.must(b.row, 'capForge', b.id, 1, 0, NAME_B.a, NAME_B.b, READ | WRITE);
    rig.must(b.row, 'capForge', b.id, 2, 0, NAME_B.a, NAME_B.b, READ | 4);
    const under = packName([2, 5]);
    rig.must(b.row, 'capForge', b.id, 3, 0, under.a, under.b, ALL_RIGHTS);
    expect(forge(1, [2], READ)).toMatchObject(notPermitted(2));
    expect(forge(2, [2], WRITE)).toMatchObject(notPermitted(2));
    expect(forge(3, [2], READ)).toMatchObject(notPermitted(2));
    expect(forge(3, [2, 6], READ)).toMatchObject(notPermitted(2));
    expect(forge(0, [2], READ, a.id)).toMatchObject(notPermitted(0));
    const over = rig.call(b.row, 'capForge', b.id, 0, 0, NAME_B.a, NAME_B.b, READ);
    expect(over).toMatchObject(said(Status.occupied, 1));
    const malformed = rig.call(b.row, 'capForge', b.id, 9, 0, NAME_B.a | (1 << 24), 0, READ);
    expect(malformed).toMatchObject(said(Status.badArgument, 3));
  });

  test('a child acting on its parent, and on a sibling', () => {
    const { a } = boot();
    const child = rig.child(a.row, [1, 5]);
    const sibling = rig.child(a.row, [1, 6]);
    for (const { id } of [a, sibling]) {
      expect(rig.call(child.row, 'notify', id, 0)).toMatchObject(notPermitted(1));
      expect(rig.call(child.row, 'envDestroy', id, 0, 0)).toMatchObject(notPermitted(1));
    }
    expect(rig.call(child.row, 'pageFree', a.stack, 0)).toMatchObject(notPermitted(1));
    rig.must(a.row, 'notify', child.id, 0);
  });

  test('the id of an environment that is no more, and of its successor', () => {
    const { a, b } = boot();
    const old = rig.child(b.row, [2, 5]);
    rig.must(b.row, 'envDestroy', old.id, 0, 0);
    const gone = said(Status.badEnvironment, 0);
    expect(rig.call(b.row, 'envDestroy', old.id, 0, 0)).toMatchObject(gone);
    rig.must(b.row, 'envReap', old.id, 0);
    const tries = (): void => {
      for (const [call, ...args] of [
        ['yield'],
        ['notify', 0],
        ['envStart', 0, 0, 0, 0, 0],
        ['envDestroy', 0, 0],
        ['envReap', 0],
        ['capForge', 5, 0, NAME_B.a, NAME_B.b, READ],
        ['ipcCall', 0, 0, 0, 0, -1, 0, 0],
        ['ipcReplyWait', 0, 0, 0, 0, -1, 0, 0],
      ] as const) {
        expect(rig.call(b.row, call, old.id, ...args), call).toMatchObject(gone);
      }
      const slice = rig.call(b.row, 'sliceAllocate', 0, old.id, 0);
      expect(slice).toMatchObject(said(Status.badEnvironment, 1));
    };
    tries();
    // The row goes to the other tenant: the old id names nobody, the old parent nothing.
    const next = rig.child(a.row, [1, 5]);
    expect(next.row).toBe(old.row);
    tries();
    expect(rig.call(b.row, 'notify', next.id, 0)).toMatchObject(notPermitted(1));
  });

  test('a stranger as patron: events are what notify needs authority for', () => {
    const { a, b } = boot();
    const page = take(b);
    const { a: word, b: more } = packName([2, 5]);
    const make = (patron: number): object =>
      rig.call(b.row, 'envCreate', rig.raw.freeRow(), page, 0, word, more, patron, -1);
    expect(make(a.id)).toMatchObject(notPermitted(5));
    expect(make(b.id)).toMatchObject({ status: Status.ok });
    // A child may name its own patron, which it does not dominate: who schedules it.
    const child = rig.child(b.row, [2, 6]);
    const root = take(b);
    rig.must(b.row, 'pageFree', root, 0);
    rig.must(child.row, 'pageAllocate', root, 0);
    const name = packName([2, 6, 1]);
    const row = rig.raw.freeRow();
    const grandchild = rig.call(child.row, 'envCreate', row, root, 0, name.a, name.b, b.id, -1);
    expect(grandchild).toMatchObject({ status: Status.ok });
  });

  test('the successor of a patron hears nothing', () => {
    const { a, b } = boot();
    const middle = rig.child(b.row, [2, 6]);
    const page = take(b);
    rig.must(b.row, 'pageFree', page, 0);
    rig.must(middle.row, 'pageAllocate', page, 0);
    const { a: word, b: more } = packName([2, 6, 1]);
    const row = rig.raw.freeRow();
    const id = rig.must(middle.row, 'envCreate', row, page, 0, word, more, -1, -1);
    rig.must(b.row, 'envDestroy', middle.id, 0, 0);
    rig.must(b.row, 'envReap', middle.id, 0);
    const next = rig.child(a.row, [1, 5], { start: false });
    expect(next.row).toBe(middle.row);
    rig.must(b.row, 'envStart', id, 0, 0, 0, 0, 0); // becomes ready, and tells its patron
    rig.must(b.row, 'envDestroy', id, 0, 0);
    expect(rig.raw.env(next.row, Env.events)).toBe(0);
  });

  test('reaping a living environment', () => {
    const { b } = boot();
    const child = rig.child(b.row, [2, 5], { tables: true });
    const alive = said(Status.notReady, 0);
    expect(rig.call(b.row, 'envReap', child.id, 0)).toMatchObject(alive);
    expect(rig.call(b.row, 'envReap', b.id, 0)).toMatchObject(alive);
    rig.must(b.row, 'envDestroy', child.id, 0, 3);
    expect(rig.call(b.row, 'envReap', child.id, 0)).toMatchObject(said(Status.busy, 0));
    rig.must(b.row, 'pageUnmap', child.leaf, Start.stackPage, 1, 0);
    rig.must(b.row, 'tableDestroy', child.leaf, 0);
    rig.must(b.row, 'tableDestroy', child.middle, 0);
    rig.must(b.row, 'envReap', child.id, 0);
    expect(rig.raw.kind(child.root)).toBe(PageKind.user);
    rig.must(b.row, 'pageFree', child.root, 0);
  });

  test('an address-space number used again brings no access along', () => {
    const { a, b } = boot();
    const old = rig.child(b.row, [2, 5], { tables: true });
    const page = take(b);
    const name = packName([2, 5]);
    rig.must(b.row, 'accessAdd', page, 0, 1, name.a, name.b, READ | WRITE);
    rig.must(b.row, 'pageMap', old.leaf, 300, page, 0, 1, RW, 0);
    rig.catches(old.row);
    expect(rig.access(old.row, at(300), 99)).toBe(0);
    rig.must(b.row, 'envDestroy', old.id, 0, 0);
    rig.must(b.row, 'pageUnmap', old.leaf, 300, 1, 0);
    rig.must(b.row, 'pageUnmap', old.leaf, Start.stackPage, 1, 0);
    rig.must(b.row, 'tableDestroy', old.leaf, 0);
    rig.must(b.row, 'tableDestroy', old.middle, 0);
    rig.must(b.row, 'envReap', old.id, 0);
    const next = rig.child(a.row, [1, 5], { tables: true });
    expect(next.row).toBe(old.row);
    rig.catches(next.row);
    expect(rig.access(next.row, at(300))).toEqual({ cause: LOAD, address: at(300) });
    expect(rig.access(next.row, at(300), 1)).toEqual({ cause: STORE, address: at(300) });
    expect(rig.access(next.row, SCRATCH)).toBe(0);
  });
});

describe('a batch', () => {
  test('stops at the first refusal; what was done before stays, what comes after is not', () => {
    const { a, b } = boot();
    const [x, y] = [rig.raw.free(), rig.raw.free(1)];
    const steal = [Call.pageFree, a.stack, 0];
    words(b.row, SCRATCH, [Call.pageAllocate, x, 0, ...steal, Call.pageAllocate, y, 0]);
    expect(rig.call(b.row, 'batch', SCRATCH, 3)).toMatchObject(said(Status.notPermitted, 1));
    expect([x, y].map((page) => rig.raw.kind(page))).toEqual([PageKind.user, PageKind.free]);
    words(b.row, SCRATCH, steal);
    expect(rig.call(b.row, 'batch', SCRATCH, 1)).toMatchObject(said(Status.notPermitted, 0));
  });

  test('holds no batch, and nothing that may wait, switch or end its caller', () => {
    const { b } = boot();
    for (const number of [
      Call.batch,
      Call.yield,
      Call.sleep,
      Call.ipcCall,
      Call.ipcReplyWait,
      Call.envDestroy,
      CALL_COUNT,
      -1,
    ]) {
      words(b.row, SCRATCH, [number, b.id, 0, 0, 0, 0, 0, 0, 0]);
      expect(rig.call(b.row, 'batch', SCRATCH, 1)).toMatchObject(said(Status.badCall, 0));
    }
  });

  test('that runs into an unmapped page, or unmaps its own list', () => {
    const { b } = boot();
    rig.catches(b.row);
    fresh(b, 300);
    words(b.row, at(301) - 8, [Call.null, Call.capDrop]);
    expect(rig.call(b.row, 'batch', at(301) - 8, 2)).toMatchObject(said(Status.badAddress, 1));
    words(b.row, at(300), [Call.pageUnmap, b.leaf, 300, 1, 0, Call.null]);
    expect(rig.call(b.row, 'batch', at(300), 2)).toMatchObject(said(Status.badAddress, 1));
    for (const address of [at(300) + 2, -4, NaN, 2 ** 32, 2 ** 53]) {
      expect(rig.call(b.row, 'batch', address, 1)).toMatchObject(said(Status.badAddress, 0));
    }
  });
});

describe('devices', () => {
  test('a page freed or taken back while a disk read to it is in flight', () => {
    const { a } = boot({ machine: { profile: LATE_DISK } });
    const page = take(a);
    const [x, y] = [take(a), take(a)];
    words(a.row, SCRATCH, [page]);
    rig.must(a.row, 'diskRequest', a.extent, 0, 0, 1, SCRATCH, 0, 0);
    const table = rig.call(a.row, 'tableCreate', a.middle, 9, page, 0, x, y, 0);
    expect(table).toMatchObject(said(Status.busy, 2));
    const ledger = rig.call(a.row, 'tableCreate', a.middle, 9, x, 0, page, y, 0);
    expect(ledger).toMatchObject(said(Status.busy, 4));
    const { a: word, b: more } = packName([1, 1]);
    const root = rig.call(a.row, 'envCreate', rig.raw.freeRow(), page, 0, word, more, -1, -1);
    expect(root).toMatchObject(said(Status.busy, 1));
    rig.must(a.row, 'pageFree', page, 0);
    expect(rig.raw.kind(page)).toBe(PageKind.quarantined);
    const taken = rig.call(a.row, 'pageAllocate', page, 0);
    expect(taken).toMatchObject(said(Status.notFree, 0));
  });

  test('a page freed while a device writes to it: nobody has it until the request is over', () => {
    const { a, b } = boot();
    const page = take(a);
    words(a.row, SCRATCH, [page]);
    rig.must(a.row, 'diskRequest', a.extent, 0, 0, 1, SCRATCH, 0, 0);
    const used = rig.raw.used(a.row, Resource.pages);
    rig.must(a.row, 'pageFree', page, 0);
    for (const [call, ...args] of [
      ['pageFree', page, 0],
      ['pageMap', a.leaf, 300, page, 0, 0, MAP_READ, 0],
      ['accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ],
      ['pageLimit', page, 0, -1, -1],
      ['pageKeep', page, 0, 0],
      ['pageCopy', page, 0, 0, a.stack, 0, 0],
      ['pageCopy', a.stack, 0, 0, page, 0, 0],
      ['diskRequest', a.extent, 0, 0, 1, SCRATCH, 0, 0],
    ] as const) {
      expect(rig.call(a.row, call, ...args).status, call).toBe(Status.wrongKind);
    }
    expect(rig.call(b.row, 'pageAllocate', page, 0)).toMatchObject(said(Status.notFree, 0));
    expect(rig.call(b.row, 'pageSweep', page)).toMatchObject(said(Status.busy, 0));
    // And it is A's expense as long as A's request stands.
    expect(rig.raw.used(a.row, Resource.pages)).toBe(used);
    rig.run(100_000);
    expect(rig.raw.env(a.row, Env.diskDone)).toBe(1);
    expect(rig.raw.kind(page)).toBe(PageKind.free);
    expect(rig.raw.used(a.row, Resource.pages)).toBe(used - 1);
    rig.must(b.row, 'pageAllocate', page, 0);
  });

  test('an access entry taken back while a device uses the page by it', () => {
    const { a, b } = boot();
    const page = take(a);
    rig.must(a.row, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ | WRITE);
    words(b.row, SCRATCH, [page | (1 << 28)]);
    const request = (): object => rig.call(b.row, 'diskRequest', b.extent, 0, 0, 1, SCRATCH, 0, 0);
    expect(request()).toMatchObject({ status: Status.ok });
    const again = said(Status.again, 0);
    for (let n = 0; n < 3; n++) {
      expect(rig.call(a.row, 'accessRemove', page, 0, 1)).toMatchObject(again);
    }
    // Meanwhile the entry is nobody's: neither for a new request nor to be filled.
    expect(request()).toMatchObject(said(Status.absent, 4));
    const fill = rig.call(a.row, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ);
    expect(fill).toMatchObject(said(Status.occupied, 2));
    rig.run(100_000);
    rig.must(a.row, 'accessRemove', page, 0, 1);
    const none = rig.call(a.row, 'accessRemove', page, 0, 1);
    expect(none).toMatchObject(said(Status.absent, 2));
    rig.must(a.row, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ);
  });

  test('a dead environment with a request in flight is not reaped', () => {
    const { a } = boot({ machine: { profile: LATE_DISK } });
    const child = rig.child(a.row, [1, 5], { tables: true });
    const page = take(a);
    const name = packName([1, 5]);
    rig.must(a.row, 'accessAdd', page, 0, 1, name.a, name.b, READ | WRITE);
    const fresh = rig.must(a.row, 'extentSplit', a.extent, 0, 4, 2, name.a, name.b);
    expect(fresh).toBe(BLOCKS_EACH - 2);
    words(child.row, SCRATCH, [page | (1 << 28)]);
    rig.must(child.row, 'diskRequest', 4, 0, 0, 1, SCRATCH, 0, 0);
    rig.must(a.row, 'envDestroy', child.id, 0, 0);
    rig.must(a.row, 'pageUnmap', child.leaf, Start.stackPage, 1, 0);
    rig.must(a.row, 'tableDestroy', child.leaf, 0);
    rig.must(a.row, 'tableDestroy', child.middle, 0);
    expect(rig.call(a.row, 'envReap', child.id, 0)).toMatchObject(said(Status.busy, 0));
    rig.must(a.row, 'pageFree', page, 0);
    expect(rig.raw.kind(page)).toBe(PageKind.quarantined);
  });

  test('blocks past the end of an extent', () => {
    const { a, b } = boot();
    words(b.row, SCRATCH, [b.stack, b.stack]);
    const request = (block: number, count: number, flags = DISK_WRITE): object =>
      rig.call(b.row, 'diskRequest', b.extent, 0, block, count, SCRATCH, 0, flags);
    const past = said(Status.badArgument, 2);
    expect(request(BLOCKS_EACH - 1, 2)).toMatchObject(past);
    expect(request(BLOCKS_EACH, 1)).toMatchObject(past);
    expect(request(2 ** 32, 1)).toMatchObject(past);
    expect(request(2 ** 53, 1)).toMatchObject(past);
    expect(request(-1, 2)).toMatchObject(past);
    const other = rig.call(b.row, 'diskRequest', a.extent, 0, 0, 1, SCRATCH, 0, 0);
    expect(other).toMatchObject(notPermitted(1));
    expect(request(BLOCKS_EACH - 2, 2)).toMatchObject({ status: Status.ok });
  });

  test('a scatter list that runs into an unmapped page', () => {
    const { b } = boot();
    rig.catches(b.row);
    const page = fresh(b, 300, 0);
    const queued = rig.raw.info(Info.diskQueued);
    const list = at(301) - 4;
    words(b.row, list, [page]);
    const got = rig.call(b.row, 'diskRequest', b.extent, 0, 0, 2, list, 0, 0);
    expect(got).toMatchObject(said(Status.badAddress, 4));
    const wrap = rig.call(b.row, 'diskRequest', b.extent, 0, 0, 2, 2 ** 32 - 4, 0, 0);
    expect(wrap).toMatchObject(said(Status.badAddress, 4));
    expect(rig.raw.page(page, PageRecord.pins)).toBe(0);
    // One bad page spoils the whole request, pinning none.
    words(b.row, SCRATCH, [page, rig.a.stack]);
    const mixed = rig.call(b.row, 'diskRequest', b.extent, 0, 0, 2, SCRATCH, 0, 0);
    expect(mixed).toMatchObject(notPermitted(5));
    expect(rig.raw.page(page, PageRecord.pins)).toBe(0);
    expect(rig.raw.info(Info.diskQueued)).toBe(queued);
  });

  test('a console buffer that runs into an unmapped page', () => {
    const { b } = boot();
    rig.catches(b.row);
    fresh(b, 300);
    const bad = said(Status.badAddress, 0);
    expect(rig.call(b.row, 'consoleWrite', at(301) - 8, 16)).toMatchObject(bad);
    expect(rig.call(b.row, 'consoleWrite', at(299), 1)).toMatchObject(bad);
    expect(rig.call(b.row, 'consoleWrite', 2 ** 32 - 8, 16)).toMatchObject(bad);
    const far = rig.call(b.row, 'consoleWrite', at(300), CONSOLE_MAX + 1);
    expect(far).toMatchObject(said(Status.tooMany, 1));
    expect(rig.console.size).toBe(0);
    words(b.row, at(300), [0x21696f68]);
    rig.must(b.row, 'consoleWrite', at(300), 4);
    expect([...rig.console]).toEqual([[2, 'hoi!']]);
  });

  test('an extent split beyond itself, or over a taken row', () => {
    const { a, b } = boot();
    const split = (from: number, to: number, blocks: number): object =>
      rig.call(b.row, 'extentSplit', from, 0, to, blocks, NAME_B.a, NAME_B.b);
    expect(split(b.extent, 4, BLOCKS_EACH)).toMatchObject(said(Status.tooMany, 3));
    expect(split(b.extent, 4, 2 ** 32 + 1)).toMatchObject(said(Status.tooMany, 3));
    expect(split(b.extent, a.extent, 1)).toMatchObject(said(Status.notFree, 2));
    expect(split(b.extent, b.extent, 1)).toMatchObject(said(Status.notFree, 2));
    expect(split(a.extent, 4, 1)).toMatchObject(notPermitted(1));
    const away = rig.call(b.row, 'extentSplit', b.extent, 0, 4, 1, NAME_A.a, NAME_A.b);
    expect(away).toMatchObject(notPermitted(4));
  });
});

describe('control transfer', () => {
  const wait = (row: number): boolean => rig.calls(row, 'ipcReplyWait', -1, 0, 0, 0, 0, -1, 0, 0);
  const reply = (row: number, id: number): boolean =>
    rig.calls(row, 'ipcReplyWait', id, 1, 2, 3, 4, -1, 0, 0);
  const ring = (row: number, id: number, word = 0): boolean =>
    rig.calls(row, 'ipcCall', id, word, 0, 0, 0, -1, 0, 0);

  test('a reply to somebody who did not call', () => {
    const { a, b } = boot();
    const none = said(Status.notReady, 0);
    expect(reply(b.row, a.id)).toBe(true);
    expect(rig.answer(b.row)).toMatchObject(none);
    // Nor to one who called somebody else.
    const server = rig.child(a.row, [1, 5]);
    expect(wait(server.row)).toBe(false);
    expect(ring(a.row, server.id)).toBe(false);
    expect(reply(b.row, a.id)).toBe(true);
    expect(rig.answer(b.row)).toMatchObject(none);
    expect(rig.settle(server.row)).toBe(true);
    expect(rig.answer(server.row)).toMatchObject({ status: Status.ok, value: a.id });
  });

  test('a reply twice', () => {
    const { a, b } = boot();
    expect(wait(b.row)).toBe(false);
    expect(ring(a.row, b.id, 42)).toBe(false);
    expect(rig.settle(b.row)).toBe(true);
    expect(rig.answer(b.row).message[0]).toBe(42);
    expect(reply(b.row, a.id)).toBe(false); // answered, and waits for the next call
    expect(rig.settle(a.row)).toBe(true);
    expect(rig.answer(a.row)).toMatchObject({ value: b.id, message: [1, 2, 3, 4, 0] });
    const child = rig.child(a.row, [1, 5]);
    expect(ring(child.row, b.id)).toBe(false); // lets B go on
    expect(rig.settle(b.row)).toBe(true);
    expect(reply(b.row, a.id)).toBe(true);
    expect(rig.answer(b.row)).toMatchObject(said(Status.notReady, 0));
  });

  test('jumping the queue: a reply to a caller that was not heard yet', () => {
    const { a, b } = boot();
    const [first, second] = [rig.child(a.row, [1, 5]), rig.child(a.row, [1, 6])];
    expect(ring(first.row, b.id, 1)).toBe(false);
    expect(ring(second.row, b.id, 2)).toBe(false);
    for (const { id } of [second, first]) {
      expect(reply(b.row, id)).toBe(true);
      expect(rig.answer(b.row)).toMatchObject(said(Status.notReady, 0));
    }
    expect(wait(b.row)).toBe(true);
    expect(rig.answer(b.row)).toMatchObject({ value: first.id, message: [1, 0, 0, 0, 0] });
    expect(reply(b.row, second.id)).toBe(true);
    expect(rig.answer(b.row)).toMatchObject(said(Status.notReady, 0));
    expect(reply(b.row, first.id)).toBe(true); // and hears the second
    expect(rig.answer(b.row)).toMatchObject({ value: second.id, message: [2, 0, 0, 0, 0] });
  });

  test('a grant into a filled window, or into none', () => {
    const { a, b } = boot();
    rig.must(a.row, 'capForge', a.id, 5, 0, NAME_A.a, NAME_A.b, READ);
    const page = take(b);
    const grant = (): boolean =>
      rig.calls(b.row, 'ipcCall', a.id, 0, 0, 0, 0, page, 0, READ | (1 << 8));
    const refused = said(Status.notReady, 0);
    expect(wait(a.row)).toBe(false);
    expect(grant()).toBe(true);
    expect(rig.answer(b.row)).toMatchObject(refused); // no window
    const plain = rig.child(b.row, [2, 5]);
    expect(ring(plain.row, a.id)).toBe(false);
    expect(rig.settle(a.row)).toBe(true);
    rig.must(a.row, 'ipcWindow', a.leaf, Start.stackPage, 0);
    expect(wait(a.row)).toBe(false);
    expect(grant()).toBe(true);
    expect(rig.answer(b.row)).toMatchObject(refused); // A's stack is there
    expect(rig.raw.access(page, 1).rights).toBe(0);
    // A window whose capability grants less than the page would.
    const again = rig.child(b.row, [2, 6]);
    expect(ring(again.row, a.id)).toBe(false);
    expect(rig.settle(a.row)).toBe(true);
    rig.must(a.row, 'ipcWindow', a.leaf, 400, 5);
    expect(wait(a.row)).toBe(false);
    const wide = READ | WRITE | (1 << 8);
    expect(rig.calls(b.row, 'ipcCall', a.id, 0, 0, 0, 0, page, 0, wide)).toBe(true);
    expect(rig.answer(b.row)).toMatchObject(refused);
    const last = rig.child(b.row, [2, 7]);
    expect(ring(last.row, a.id)).toBe(false);
    expect(rig.settle(a.row)).toBe(true);
    rig.must(a.row, 'ipcWindow', a.leaf, 511, 0);
    expect(wait(a.row)).toBe(false);
    expect(grant()).toBe(false); // the last entry of the table
    expect(rig.settle(a.row)).toBe(true);
    expect(rig.answer(a.row).message[4]).toBe(512);
    expect(rig.raw.access(page, 1)).toMatchObject({ ...NAME_A, rights: READ });
    expect(rig.raw.secret(a.row, Private.windowIndex)).toBe(512); // past the table: shut
  });

  test("granting another's page, or more than READ and WRITE", () => {
    const { a, b } = boot();
    rig.must(a.row, 'ipcWindow', a.leaf, 400, 0);
    expect(wait(a.row)).toBe(false);
    const grant = (page: number, slot: number, given: number): object =>
      rig.call(b.row, 'ipcCall', a.id, 0, 0, 0, 0, page, slot, given);
    expect(grant(a.stack, 0, READ | (1 << 8))).toMatchObject(notPermitted(6));
    const page = take(b);
    expect(grant(page, 0, ALL_RIGHTS | (1 << 8))).toMatchObject(said(Status.badArgument, 7));
    expect(grant(page, 0, READ)).toMatchObject(said(Status.badArgument, 7));
    expect(grant(page, 0, READ | (4 << 8))).toMatchObject(said(Status.badArgument, 7));
  });

  test('a callee that dies lets its callers go, and its successor cannot answer them', () => {
    const { a, b } = boot();
    const server = rig.child(b.row, [2, 5]);
    const [heard, queued] = [a, rig.child(a.row, [1, 6])];
    expect(wait(server.row)).toBe(false);
    expect(ring(heard.row, server.id)).toBe(false);
    expect(ring(queued.row, server.id)).toBe(false);
    expect(rig.settle(server.row)).toBe(true);
    rig.must(b.row, 'envDestroy', server.id, 0, 0);
    rig.must(b.row, 'envReap', server.id, 0);
    const next = rig.child(b.row, [2, 7]);
    expect(next.row).toBe(server.row);
    expect(reply(next.row, heard.id)).toBe(true);
    expect(rig.answer(next.row)).toMatchObject(said(Status.notReady, 0));
    for (const { row } of [heard, queued]) {
      rig.settle(row);
      expect(rig.settle(row)).toBe(true);
      expect(rig.answer(row)).toMatchObject(said(Status.badEnvironment, 0));
    }
  });

  test('dying in a queue: whoever has the row next does not stand there', () => {
    const { a, b } = boot();
    const [first, trap, last] = [
      rig.child(a.row, [1, 6]),
      rig.child(b.row, [2, 5]),
      rig.child(a.row, [1, 7]),
    ];
    expect(ring(first.row, a.id, 1)).toBe(false);
    expect(ring(trap.row, a.id, 2)).toBe(false);
    expect(ring(last.row, a.id, 3)).toBe(false);
    rig.must(b.row, 'envDestroy', trap.id, 0, 0);
    rig.must(b.row, 'envReap', trap.id, 0);
    const next = rig.child(b.row, [2, 5]);
    expect(next.row).toBe(trap.row);
    for (const { id } of [first, last]) {
      expect(wait(a.row)).toBe(true);
      expect(rig.answer(a.row)).toMatchObject({ value: id });
    }
    expect(reply(a.row, next.id)).toBe(true);
    expect(rig.answer(a.row)).toMatchObject(said(Status.notReady, 0));
  });

  test('calling oneself, and the dead', () => {
    const { b } = boot();
    const made = rig.child(b.row, [2, 5], { start: false });
    const dead = rig.child(b.row, [2, 6]);
    rig.must(b.row, 'envDestroy', dead.id, 0, 0);
    expect(ring(b.row, b.id)).toBe(true);
    expect(rig.answer(b.row)).toMatchObject(said(Status.badEnvironment, 0));
    for (const { id } of [made, dead]) {
      expect(ring(b.row, id)).toBe(true);
      expect(rig.answer(b.row)).toMatchObject(said(Status.notReady, 0));
    }
  });
});

describe('the CPU', () => {
  const progress = (row: number, calls: number): void => {
    for (let n = 0; n < calls; n++) rig.must(row, 'null');
  };
  const forever = function* (step: (port: UserPort) => Op<void>, port: UserPort): Op<void> {
    for (;;) yield* step(port);
  };

  test.for([
    ['loads', (port: UserPort) => port.load32(SCRATCH)],
    ['stores', (port: UserPort) => port.store32(SCRATCH, 1)],
    ['work', (port: UserPort) => port.work(1_000_000)],
    ['copies', (port: UserPort) => port.copy(SCRATCH, SCRATCH + 512, 512)],
  ] as const)('a program that loops on %s is preempted', ([, step]) => {
    const { a, b } = boot();
    rig.hand(b.row, (port) =>
      forever(function* (port): Op<void> {
        step(port) ?? (yield* port.fault());
      }, port),
    );
    progress(a.row, 20);
    expect(rig.raw.stateOf(b.row)).toBe(EnvState.ready);
  });

  test('a program that loops on kernel calls is preempted', () => {
    const { a, b } = boot();
    rig.hand(b.row, (port) =>
      forever(function* (port): Op<void> {
        yield* port.call(Call.null);
      }, port),
    );
    progress(a.row, 20);
  });

  test("the positions of the vector are their holders' alone", () => {
    const { a, b } = boot();
    expect(rig.call(b.row, 'sliceFree', 0, 0)).toMatchObject(notPermitted(1));
    const take = (): object => rig.call(b.row, 'sliceAllocate', 0, b.id, 0);
    expect(take()).toMatchObject(said(Status.notFree, 0));
    rig.must(a.row, 'sliceFree', 0, 0);
    // A's all the same, until A gives the allotment away.
    expect(take()).toMatchObject(said(Status.quota, 1));
    rig.must(a.row, 'accountMove', a.row, b.row, 0, Resource.slices, 1);
    expect(take()).toMatchObject({ status: Status.ok });
    expect(rig.call(a.row, 'sliceFree', 0, 0)).toMatchObject(notPermitted(1));
    const back = rig.call(a.row, 'sliceAllocate', 0, a.id, 0);
    expect(back).toMatchObject(said(Status.notFree, 0));
  });

  test('a slice upcall whose mask is set is not pushed again', () => {
    const { b } = boot();
    rig.catchesSlices(b.row);
    const lane = rig.lane(b.id);
    lane.onEnd = function* (port): Op<void> {
      yield* port.call(Call.yield, -1);
    };
    rig.run(200_000);
    expect(lane.begins).toBeGreaterThan(3);
    expect(Math.abs(lane.begins - lane.ends)).toBeLessThanOrEqual(1);
  });

  test('who overruns the grace period forfeits slices, and past the limit its life', () => {
    const { a, b } = boot();
    rig.catchesSlices(b.row);
    const lane = rig.lane(b.id);
    lane.onEnd = (port) =>
      forever(function* (port): Op<void> {
        port.work(GRACE) ?? (yield* port.fault());
      }, port);
    let most = 0;
    rig.onExit = () => {
      most = Math.max(most, rig.raw.env(b.row, Env.excess));
    };
    rig.run(100_000);
    expect(most).toBeGreaterThan(0);
    progress(a.row, 3);
    expect(most).toBeLessThanOrEqual(EXCESS_MAX + 1);
  });

  test('switching threads for ever is preempted too', () => {
    const { a, b } = boot();
    rig.hand(b.row, function* (port): Op<void> {
      for (let n = 0; n < 20_000; n++) yield* port.switchTo(port.thread());
    });
    const start = rig.machine.now();
    progress(a.row, 4);
    expect(rig.machine.now() - start).toBeLessThan(100_000);
  });

  test('grace given away is not excess of who is given it', () => {
    const { a, b } = boot();
    rig.catchesSlices(b.row);
    // B is told that its slice ends, waits for the last of its grace, and gives that to A.
    rig.lane(b.id).onEnd = function* (port): Op<void> {
      port.work(GRACE - 1_500) ?? (yield* port.fault());
      yield* port.call(Call.yield, a.id);
    };
    let slices = 0; // begun for A
    let before = 0;
    rig.onExit = () => {
      const position = rig.raw.info(Info.slicePosition);
      if (rig.raw.cpu(Cpu.owner) === a.row && before !== position) slices++;
      before = position;
    };
    rig.run(400_000);
    expect(slices).toBeGreaterThan(10);
  });

  test('who runs after an idle time has a slice that ends', () => {
    const diskAccess = { value: 100_000, source: 'test: slow enough for everybody to wait' };
    const { a, b } = boot({ machine: { profile: { ...LATE_DISK, diskAccess } } });
    const child = rig.child(b.row, [2, 5], { tables: true });
    const name = packName([2, 5]);
    rig.must(b.row, 'extentSplit', b.extent, 0, 4, 2, name.a, name.b);
    words(child.row, SCRATCH, [child.stack | (1 << 28)]);
    words(a.row, SCRATCH, [a.stack]);
    let spun = 0;
    rig.begin(child.row, function* (port): Op<void> {
      yield* port.call(Call.diskRequest, 4, 0, 0, 1, SCRATCH, 0, DISK_WRITE);
      yield* port.call(Call.ipcReplyWait, -1, 0, 0, 0, 0, -1, 0, 0);
      yield* port.call(Call.sleep, rig.raw.env(child.row, Env.events), -1, 0, 0);
      for (; spun < 200; spun++) port.work(10_000) ?? (yield* port.fault());
    });
    rig.begin(a.row, function* (port): Op<void> {
      yield* port.call(Call.diskRequest, a.extent, 0, 0, 1, SCRATCH, 0, DISK_WRITE);
      yield* port.call(Call.sleep, rig.raw.env(a.row, Env.events), -1, 0, 0);
    });
    // The child sleeps on B's slice, and nobody can run until the child's request is done.
    rig.calls(b.row, 'ipcCall', child.id, 0, 0, 0, 0, -1, 0, 0);
    rig.settle(child.row);
    expect([a, b, child].map(({ row }) => rig.raw.stateOf(row))).toEqual([3, 4, 3]);
    for (let n = 0; n < 10_000 && !rig.lane(a.id).done; n++) rig.run(500);
    expect(rig.lane(a.id).done).toBe(true);
    expect(spun).toBeLessThan(20);
  });
});

describe('programs that misbehave', () => {
  const obituary = (): string => rig.console.get(0) ?? '';

  test('a fault without a handler ends that environment alone, by name', () => {
    const { a, b } = boot();
    expect(rig.begin(b.row, (port) => port.load(at(300)))).toBe(false);
    expect(rig.raw.stateOf(b.row)).toBe(EnvState.zombie);
    expect(rig.raw.env(b.row, Env.exitStatus)).toBe(-1);
    const where = at(300).toString(16);
    expect(obituary()).toBe(`environment ${b.id}: cause 13 at 0x${where}, and no handler for it\n`);
    expect(rig.raw.stateOf(a.row)).toBe(EnvState.ready);
    rig.must(a.row, 'null');
  });

  test('a fault is told to its handler, precisely, and the access is tried again', () => {
    const { b } = boot();
    rig.catches(b.row);
    const page = take(b);
    const lane = rig.lane(b.id);
    lane.onFault = function* (port): Op<void> {
      yield* port.call(Call.pageMap, b.leaf, 300, page, 0, 0, RW, 0);
    };
    const got = rig.does(b.row, function* (port): Op<number> {
      yield* port.store(at(300) + 8, 5);
      return yield* port.load(at(300) + 8);
    });
    expect(got).toBe(5);
    expect(lane.faults).toEqual([{ cause: STORE, address: at(300) + 8 }]);
    expect(rig.raw.word(b.stack, 0)).toBe(0); // no frame stands
    expect(rig.raw.word(b.stack, 1)).toBe(STORE);
    expect(rig.raw.word(b.stack, 2)).toBe(at(300) + 8);
  });

  test('a fault in the handler nests', () => {
    const { b } = boot();
    rig.catches(b.row);
    const [outer, inner] = [take(b), take(b)];
    const lane = rig.lane(b.id);
    let deepest = 0;
    lane.onFault = function* (port, { address }): Op<void> {
      deepest = Math.max(deepest, rig.raw.word(b.stack, 0));
      if (address === at(300)) yield* port.load(at(301));
      const [index, page] = address === at(300) ? [300, outer] : [301, inner];
      yield* port.call(Call.pageMap, b.leaf, index, page, 0, 0, RW, 0);
    };
    expect(rig.does(b.row, (port) => port.load(at(300)))).toBe(0);
    expect(deepest).toBe(2);
    expect(lane.faults.map(({ address }) => address)).toEqual([at(300), at(301)]);
  });

  test('a handler that always faults ends its environment', () => {
    const { a, b } = boot();
    rig.catches(b.row);
    const lane = rig.lane(b.id);
    lane.onFault = function* (port): Op<void> {
      yield* port.load(at(301));
    };
    expect(rig.begin(b.row, (port) => port.load(at(300)))).toBe(false);
    expect(rig.raw.stateOf(b.row)).toBe(EnvState.zombie);
    expect(lane.faults).toHaveLength(FAULT_FRAMES);
    expect(obituary()).toContain(`environment ${b.id}: cause 13`);
    rig.must(a.row, 'null');
  });

  test('a handler that takes its frames off and still faults ends it all the same', () => {
    const { b } = boot();
    rig.catches(b.row);
    const lane = rig.lane(b.id);
    lane.onFault = function* (port): Op<void> {
      yield* port.store(at(Start.stackPage), 0);
      yield* port.load(at(301));
    };
    expect(rig.begin(b.row, (port) => port.load(at(300)))).toBe(false);
    expect(rig.raw.stateOf(b.row)).toBe(EnvState.zombie);
  });

  test.for([
    ['nowhere', at(300)],
    ['in an exposed table', at(Start.infoPage)],
    ['at the end of the address space', 2 ** 32 - 4],
    ['at the end of a page', at(Start.stackPage + 1) - 4],
  ] as const)('a frame address %s ends the environment, not the kernel', ([, frame]) => {
    const { a, b } = boot();
    const before = rig.raw.word(rig.kernel.state.info.firstPage, 0);
    rig.must(b.row, 'upcallSet', Upcall.fault, Entry.fault, frame);
    expect(rig.begin(b.row, (port) => port.load(at(310)))).toBe(false);
    expect(rig.raw.stateOf(b.row)).toBe(EnvState.zombie);
    expect(obituary()).toContain(`environment ${b.id}: cause 13`);
    expect(rig.raw.word(rig.kernel.state.info.firstPage, 0)).toBe(before);
    rig.must(a.row, 'null');
  });

  test('a count of frames that is none', () => {
    for (const count of [-1, FAULT_FRAMES, 2 ** 31 - 1, -(2 ** 31)]) {
      const { b } = boot();
      rig.catches(b.row);
      words(b.row, at(Start.stackPage), [count]);
      expect(rig.begin(b.row, (port) => port.load(at(300)))).toBe(false);
      expect(rig.raw.stateOf(b.row)).toBe(EnvState.zombie);
    }
  });

  test('a slice upcall whose mask cannot be written ends the environment', () => {
    const { a, b } = boot();
    rig.must(b.row, 'upcallSet', Upcall.sliceBegin, Entry.begin, at(300));
    rig.run(100_000);
    expect(rig.raw.stateOf(b.row)).toBe(EnvState.zombie);
    rig.must(a.row, 'null');
  });

  test('an exception in user code, and one that would write another’s obituary', () => {
    const { a, b } = boot();
    const text = `oops\nenvironment ${a.id}: cause 13 ${'x'.repeat(1_000)}`;
    const raise = function* (): Op<void> {
      throw new Error(text);
    };
    expect(rig.begin(b.row, raise)).toBe(false);
    expect(rig.raw.stateOf(b.row)).toBe(EnvState.zombie);
    expect(obituary()).toMatch(new RegExp(`^environment ${b.id}: Error: oops.*\\n$`));
    expect(obituary().length).toBeLessThan(300);
    rig.must(a.row, 'null');
  });

  test.for([
    ['nothing', undefined],
    ['a symbol', Symbol('no')],
    ['an object that cannot be printed', { toString: null }],
    ['an error that throws', Object.create(Error.prototype, { message: { get: () => null } })],
  ] as const)('throwing %s', ([, thrown]) => {
    const { a, b } = boot();
    const raise = function* (): Op<void> {
      throw thrown;
    };
    expect(rig.begin(b.row, raise)).toBe(false);
    expect(rig.raw.stateOf(b.row)).toBe(EnvState.zombie);
    rig.must(a.row, 'null');
  });

  test('a yield for no reason, and an access past a trap', () => {
    const { a } = boot({ tenants: 3, quota: 12 });
    const [, b, c] = rig.tenants as [Home, Home, Home];
    const idle = function* (): Op<void> {
      yield 13;
    };
    expect(rig.begin(b.row, idle)).toBe(false);
    const careless = function* (port: UserPort): Op<void> {
      // eslint-disable-next-line exoscope/no-forgotten-yield -- that is the mistake
      port.load32(at(300));
      // eslint-disable-next-line exoscope/no-forgotten-yield -- and here it is told
      port.load32(SCRATCH);
    };
    expect(rig.begin(c.row, careless)).toBe(false);
    expect(obituary()).toContain(`environment ${b.id}: cause ${Cause.illegalInstruction}`);
    expect(obituary()).toContain(`environment ${c.id}: UnhandledTrap`);
    rig.must(a.row, 'null');
  });

  test('garbage call numbers', () => {
    const { b } = boot();
    for (const number of [CALL_COUNT, -1, 0.5, NaN, Infinity, 2 ** 32, 2 ** 53]) {
      expect(rig.call(b.row, number, 1, 2, 3)).toMatchObject(said(Status.badCall, 0));
    }
    rig.must(b.row, 'null');
  });

  test('an end is an end: exit status, patron told, slices free', () => {
    const { a } = boot();
    const child = rig.child(a.row, [1, 5]);
    rig.must(a.row, 'sliceFree', 2, 0);
    rig.must(a.row, 'sliceAllocate', 2, child.id, 0);
    const events = rig.raw.env(a.row, Env.events);
    rig.calls(child.row, 'envDestroy', child.id, 0, 77);
    expect(rig.raw.stateOf(child.row)).toBe(EnvState.zombie);
    expect(rig.raw.env(child.row, Env.exitStatus)).toBe(77);
    expect(rig.raw.env(a.row, Env.events)).toBe(events + 1);
    rig.must(a.row, 'sliceAllocate', 2, a.id, 0);
  });
});

type Five = [number, number, number, number, number];
