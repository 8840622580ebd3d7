/**
 * Attacks that keep something from being taken back: by a view where nobody looks, by a window, by
 * a place that outlives the right to it, by requests in flight. After each test every invariant
 * holds, and the books.
 */
import { afterEach, describe, expect, test } from 'vitest';
import {
  ALL_RIGHTS,
  type CallName,
  Env,
  Extent,
  MAP_READ,
  MAP_WRITE,
  packName,
  PageKind,
  READ,
  Resource,
  STEP_LEAVES,
  WRITE,
} from '../../kernel/abi.ts';
import { DEADLINE_MIN } from '../../kernel/exokernel/revocation.ts';
import { PageRecord, Private } from '../../kernel/exokernel/state.ts';
import { RISCV } from '../../machine/costs.ts';
import { Cause } from '../../machine/machine.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Op } from '../../machine/user-port.ts';
import { type Home, NAME_A, NAME_B, Rig, type RigConfig, SCRATCH, statusName } from './harness.ts';
import { audit, books } from '../../check/invariants/index.ts';

/** Requests stand while a test goes on, and end. */
const SLOW_DISK = { ...RISCV, diskAccess: { value: 5e6, source: 'test: in time' } };

const RW = MAP_READ | MAP_WRITE;
const [A, B] = [1, 2] as const; // accounts, and rows of the first environments
const BORROWED = 5; // slot of a capability that somebody else gave
const at = (index: number): number => index * PAGE_BYTES;

let rig: Rig;
const boot = (config: RigConfig = {}): Rig => (rig = new Rig(config));
afterEach(() => {
  expect([...audit(rig.raw, undefined, true), ...books(rig.raw)]).toEqual([]);
});

/** A call's answer in words. */
function says(row: number, call: CallName, ...args: readonly number[]): string {
  const { status, value } = rig.call(row, call, ...args);
  return `${statusName(status)} ${value}`;
}
function take({ row }: Home): number {
  const page = rig.raw.free();
  rig.must(row, 'pageAllocate', page, 0);
  return page;
}
const views = (table: number): number => rig.raw.page(table, PageRecord.views);

/** `granter` gives `row` a capability of a name, which nobody can take from another's tree. */
function lend(granter: Home, to: Home, name: readonly number[], rights: number): void {
  const { a, b } = packName(name);
  rig.must(granter.row, 'capOffer', to.id, 0, a, b, rights);
  rig.must(to.row, 'capAcquire', granter.id, BORROWED);
}

describe('a read-only view of a table', () => {
  /** A child of A with tables, whose leaf table is empty; B may act on it, and sees its tables. */
  function viewed(count: number): { child: Home; rest: readonly number[] } {
    const { a, b } = boot();
    const child = rig.child(A, [1, 7], { tables: true });
    lend(a, b, [1, 7], WRITE);
    rig.must(A, 'pageUnmap', child.leaf, 1, 1, 0);
    for (let n = 0; n < count; n++) {
      rig.must(B, 'pageMap', b.leaf, 300 + n, child.leaf, 0, 0, MAP_READ, BORROWED);
    }
    return { child, rest: [child.middle, child.root] };
  }

  test('by a stranger does not keep the table from being destroyed', () => {
    const { child } = viewed(1);
    const { b } = rig;
    rig.catches(B);
    // The view is in use, and its translation cached.
    expect(rig.access(B, at(300))).toBe(0);
    expect(views(child.leaf)).toBe(1);
    expect(says(A, 'tableDestroy', child.leaf, 0)).toBe('ok 0');
    expect(rig.raw.kind(child.leaf)).toBe(PageKind.user);
    expect(rig.raw.entry(b.leaf, 300)).toBe(0);
    expect(rig.access(B, at(300))).toMatchObject({ cause: Cause.loadPageFault });
    // Nothing of it is left: the page is one's own, and B's entry is free.
    rig.must(A, 'accessAdd', child.leaf, 0, 2, NAME_B.a, NAME_B.b, READ);
    rig.must(B, 'pageMap', b.leaf, 300, child.leaf, 0, 2, MAP_READ, 0);
    rig.must(A, 'accessRemove', child.leaf, 0, 2);
    rig.must(A, 'pageFree', child.leaf, 0);
  });

  test('more of them than one step takes away', () => {
    const { child } = viewed(2 * STEP_LEAVES + 1);
    const { b } = rig;
    // Some have gone meanwhile: the first, the last and one between.
    for (const n of [0, 7, 2 * STEP_LEAVES]) rig.must(B, 'pageUnmap', b.leaf, 300 + n, 1, 0);
    expect(views(child.leaf)).toBe(2 * STEP_LEAVES - 2);
    expect(says(A, 'tableDestroy', child.leaf, 0)).toBe('again 0');
    expect(rig.raw.kind(child.leaf)).toBe(PageKind.leaf);
    expect(views(child.leaf)).toBe(STEP_LEAVES - 2);
    expect(says(A, 'tableDestroy', child.leaf, 0)).toBe('ok 0');
    for (let n = 0; n <= 2 * STEP_LEAVES; n++) expect(rig.raw.entry(b.leaf, 300 + n)).toBe(0);
  });

  test('of the root does not keep a zombie from being reaped', () => {
    const { child, rest } = viewed(0);
    const { b } = rig;
    for (let n = 0; n <= STEP_LEAVES; n++) {
      rig.must(B, 'pageMap', b.leaf, 400 + n, child.root, 0, 0, MAP_READ, BORROWED);
    }
    rig.must(A, 'envDestroy', child.id, 0, 0);
    rig.must(A, 'tableDestroy', child.leaf, 0);
    rig.must(A, 'tableDestroy', rest[0] ?? NaN, 0);
    expect(says(A, 'envReap', child.id, 0)).toBe('again 0');
    expect(says(A, 'envReap', child.id, 0)).toBe('ok 0');
    expect(rig.raw.kind(child.root)).toBe(PageKind.user);
    for (let n = 0; n <= STEP_LEAVES; n++) expect(rig.raw.entry(b.leaf, 400 + n)).toBe(0);
  });

  test('goes with the table that it is mapped by, and does not justify writing', () => {
    const { child } = viewed(3);
    const { b } = rig;
    expect(says(B, 'pageProtect', b.leaf, 301, 1, RW, 0)).toBe('notPermitted 3');
    expect(says(B, 'pageProtect', b.leaf, 301, 1, MAP_READ | (1 << 8), 0)).toBe('ok 1');
    rig.must(B, 'pageUnmap', b.leaf, 300, 3, 0);
    expect(views(child.leaf)).toBe(0);
    expect(says(A, 'tableDestroy', child.leaf, 0)).toBe('ok 0');
  });

  test('is refused to whoever has no authority over the environment, and breaks nobody else’s', () => {
    const { a, b } = boot();
    expect(says(B, 'pageMap', b.leaf, 300, a.leaf, 0, 0, MAP_READ, 0)).toBe('notPermitted 2');
    rig.must(A, 'pageMap', a.leaf, 300, a.middle, 0, 0, MAP_READ, 0);
    expect(says(B, 'tableDestroy', a.middle, 0)).toBe('notPermitted 1');
    // A table with entries keeps its views.
    expect(says(A, 'tableDestroy', a.middle, 0)).toBe('busy 0');
    expect(views(a.middle)).toBe(1);
  });
});

describe('an open window', () => {
  test('does not keep its capability from being dropped by a superior', () => {
    boot();
    const child = rig.child(A, [1, 7], { tables: true });
    const broad = packName([1]);
    rig.must(A, 'capForge', child.id, 3, 0, broad.a, broad.b, READ | WRITE);
    rig.must(child.row, 'ipcWindow', child.leaf, 400, 3);
    expect(says(A, 'capDrop', child.id, 3, 0)).toBe('ok 0');
    expect(rig.raw.secret(child.row, Private.windowTable)).toBe(0);
    // What fills the slot next has no window.
    rig.must(A, 'capForge', child.id, 3, 0, broad.a, broad.b, READ | WRITE);
    rig.calls(child.row, 'ipcReplyWait', -1, 0, 0, 0, 0, -1, 0, 0);
    const page = take(rig.a);
    expect(says(A, 'ipcSend', child.id, 1, 2, 3, 4, page, 0, READ | (1 << 8))).toBe('notReady 0');
    expect(rig.raw.entry(child.leaf, 400)).toBe(0);
  });

  test('of another slot stays open, and one that justifies mappings is busy', () => {
    boot();
    const child = rig.child(A, [1, 7], { tables: true });
    const name = packName([1, 7]);
    rig.must(child.row, 'capForge', child.id, 3, 0, name.a, name.b, READ);
    rig.must(child.row, 'ipcWindow', child.leaf, 400, 0);
    rig.must(A, 'capDrop', child.id, 3, 0);
    expect(rig.raw.secret(child.row, Private.windowTable)).toBe(child.leaf + 1);
    // Its stack is mapped by slot 0: refused, so nothing has changed.
    expect(says(A, 'capDrop', child.id, 0, 0)).toBe('busy 1');
    expect(rig.raw.secret(child.row, Private.windowTable)).toBe(child.leaf + 1);
  });
});

describe('a place to save a loss to', () => {
  const WARD = 20; // an account under B's
  test('outside one’s account: it would outlive the right to it', () => {
    const { a, b, raw } = boot();
    const { a: word, b: more } = packName([2, 5]);
    rig.must(B, 'accountCreate', WARD, B, 0, word, more, 0);
    rig.must(B, 'accountMove', B, WARD, 0, Resource.environments, 1);
    rig.must(B, 'accountMove', B, WARD, 0, Resource.pages, 4);
    const child = rig.child(B, [2, 5], { account: WARD });
    const page = take(child);
    // The right to the parent's extent, and to a stranger's: for a while.
    rig.must(B, 'capForge', child.id, 3, 0, NAME_B.a, NAME_B.b, ALL_RIGHTS);
    expect(says(child.row, 'saveBlock', 0, b.extent, 3, 0)).toBe('notPermitted 1');
    lend(a, child, [1], ALL_RIGHTS);
    expect(says(child.row, 'saveBlock', 0, a.extent, BORROWED, 0)).toBe('notPermitted 2');
    expect(says(child.row, 'saveBlock', 0, a.extent, 3, 0)).toBe('notPermitted 1');
    // A part of it that is the account's own: the place stands, until the part is taken back.
    rig.must(B, 'extentSplit', b.extent, 0, 5, 4, word, more);
    rig.must(child.row, 'saveBlock', 0, 5, 3, 0);
    rig.must(B, 'capDrop', child.id, 3, 0);
    rig.must(B, 'extentJoin', b.extent, 0, 5);
    rig.must(B, 'revoke', WARD, 0, B, 0, raw.pages, 1, DEADLINE_MIN);
    rig.run(2 * DEADLINE_MIN);
    expect(says(B, 'repossess', WARD, 0, page)).toBe('ok 0'); // saved nowhere
  });
});

describe('mappings of one page', () => {
  test('that go from the middle of the list, the end and the front are off it, and no other', () => {
    const { a, b } = boot();
    const page = take(a);
    rig.must(A, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ);
    for (let n = 0; n < 6; n++) rig.must(B, 'pageMap', b.leaf, 300 + n, page, 0, 1, MAP_READ, 0);
    for (const n of [3, 2, 0, 5]) {
      rig.must(B, 'pageUnmap', b.leaf, 300 + n, 1, 0);
      expect(audit(rig.raw)).toEqual([]);
    }
    expect(says(A, 'accessRemove', page, 0, 1)).toBe('ok 0');
    for (let n = 0; n < 6; n++) expect(rig.raw.entry(b.leaf, 300 + n)).toBe(0);
  });

  test('of one that is nobody’s any more: whoever takes the last away makes it free', () => {
    const { b, raw } = boot();
    const { a: word, b: more } = packName([2, 5]);
    rig.must(B, 'accountCreate', 20, B, 0, word, more, 0);
    rig.must(B, 'accountMove', B, 20, 0, Resource.environments, 1);
    rig.must(B, 'accountMove', B, 20, 0, Resource.pages, 4);
    const page = take(rig.child(B, [2, 5], { account: 20 }));
    for (let n = 0; n < STEP_LEAVES + 2; n++) {
      rig.must(B, 'pageMap', b.leaf, 300 + n, page, 0, 0, RW, 0);
    }
    rig.must(B, 'revoke', 20, 0, B, 0, raw.pages, 1, DEADLINE_MIN);
    rig.run(2 * DEADLINE_MIN);
    const used = raw.used(B, Resource.pages);
    expect(says(B, 'repossess', 20, 0, page)).toBe('again 0');
    expect([raw.kind(page), raw.used(B, Resource.pages)]).toEqual([PageKind.quarantined, used + 1]);
    rig.must(B, 'pageUnmap', b.leaf, 300, 1, 0);
    expect(raw.kind(page)).toBe(PageKind.quarantined);
    rig.must(B, 'pageUnmap', b.leaf, 301, 1, 0);
    expect([raw.kind(page), raw.used(B, Resource.pages)]).toEqual([PageKind.free, used]);
  });
});

describe('a transfer in flight', () => {
  test('holds its extent and its pages, also when every right to them is gone, and nothing else', () => {
    const { b, raw } = boot({ machine: { profile: SLOW_DISK } });
    const child = rig.child(B, [2, 5], { tables: true });
    const { a: word, b: more } = packName([2, 5]);
    const page = take(b);
    rig.must(B, 'accessAdd', page, 0, 1, word, more, READ | WRITE);
    rig.must(B, 'capForge', child.id, 3, 0, NAME_B.a, NAME_B.b, READ | WRITE);
    rig.does(child.row, function* (port): Op<void> {
      port.store32(SCRATCH, page | (1 << 28)) ?? (yield* port.fault());
    });
    rig.must(child.row, 'diskRequest', b.extent, 3, 0, 1, SCRATCH, 0, 1);
    // The extent can neither be split nor joined under it.
    expect(says(B, 'extentSplit', b.extent, 0, 5, 4, NAME_B.a, NAME_B.b)).toBe('busy 0');
    rig.must(B, 'capDrop', child.id, 3, 0);
    expect(says(B, 'accessRemove', page, 0, 1)).toBe('again 0');
    expect(says(child.row, 'diskRequest', b.extent, 3, 0, 1, SCRATCH, 0, 1)).toBe('noCapability 1');
    rig.must(B, 'envDestroy', child.id, 0, 0);
    rig.must(B, 'pageFree', page, 0);
    expect(raw.kind(page)).toBe(PageKind.quarantined);
    expect(says(A, 'pageAllocate', page, 0)).toBe('notFree 0');
    expect(raw.extent(b.extent, Extent.transfers)).toBe(1);
    rig.run(4 * SLOW_DISK.diskAccess.value);
    expect(raw.extent(b.extent, Extent.transfers)).toBe(0);
    expect(raw.kind(page)).toBe(PageKind.free);
    rig.must(B, 'extentSplit', b.extent, 0, 5, 4, NAME_B.a, NAME_B.b);
  });
});

describe('what the exposed tables show of the dead', () => {
  test('pages and rows of a reaped environment are nobody’s, or their account’s', () => {
    const { raw } = boot();
    const child = rig.child(A, [1, 7], { tables: true, start: false });
    const { root, middle, leaf, ledger0, ledger1, stack } = child;
    rig.must(A, 'envDestroy', child.id, 0, 0);
    rig.must(A, 'pageUnmap', leaf, 1, 1, 0);
    rig.must(A, 'tableDestroy', leaf, 0);
    rig.must(A, 'tableDestroy', middle, 0);
    rig.must(A, 'envReap', child.id, 0);
    for (const page of [root, middle, leaf, ledger0, ledger1, stack]) {
      expect([raw.kind(page), raw.envOf(page), raw.accountOf(page)]).toEqual([PageKind.user, 0, A]);
      expect(raw.access(page, 0)).toMatchObject({ ...NAME_A, rights: ALL_RIGHTS });
      rig.must(A, 'pageFree', page, 0);
      expect(raw.accountOf(page)).toBe(0);
    }
    for (const word of [Env.root, Env.account, Env.partner, Env.patron, Env.parent] as const) {
      expect(raw.env(child.row, word), `word ${word} of a free row`).toBe(0);
    }
  });
});
