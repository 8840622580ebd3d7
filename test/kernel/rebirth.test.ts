/**
 * What the last holder of a row, a page or a table left there is gone when the next one has it: no
 * right, no name, no entry, no place in a list. And a tenant can be taken apart to the last table.
 */
import { afterEach, describe, expect, test } from 'vitest';
import {
  Account,
  DISK_WRITE,
  Env,
  EnvState,
  Info,
  MAP_READ,
  MAP_WRITE,
  packName,
  PageKind,
  READ,
  Resource,
  Start,
  STEP_LEAVES,
  Status,
  WRITE,
} from '../../kernel/abi.ts';
import { PageRecord } from '../../kernel/exokernel/state.ts';
import { PAGE_BYTES, PAGE_WORDS } from '../../machine/units.ts';
import { books } from './books.ts';
import { type Home, NAME_B, Rig, type RigConfig, SCRATCH } from './harness.ts';
import { audit } from './invariants.ts';

const RW = MAP_READ | MAP_WRITE;
const said = (status: number, value: number): object => ({ status, value });
let rig: Rig;
const boot = (config: RigConfig = {}): Rig => (rig = new Rig(config));
afterEach(() => {
  expect([...audit(rig.raw, undefined, true), ...books(rig.raw)]).toEqual([]);
});

const take = ({ row }: Home): number => {
  const page = rig.raw.free();
  rig.must(row, 'pageAllocate', page, 0);
  return page;
};
const map = ({ row, leaf }: Home, index: number, page: number, entry = 0): number =>
  rig.must(row, 'pageMap', leaf, index, page, 0, entry, RW, 0);
const unmap = ({ row, leaf }: Home, index: number, count = 1): number =>
  rig.must(row, 'pageUnmap', leaf, index, count, 0);
const store = ({ row }: Home, va: number, word: number): void =>
  rig.does(row, function* (port) {
    port.store32(va, word) ?? (yield* port.fault());
  });

describe('a row of the environment table', () => {
  const reborn = (): { rig: Rig; first: Home; second: Home } => {
    const { a } = boot();
    const first = rig.child(a.row, [1, 5], { start: false });
    const { a: x, b: y } = packName([1, 5, 7]);
    rig.must(a.row, 'capForge', first.id, 5, 0, x, y, READ | WRITE);
    rig.must(a.row, 'envDestroy', first.id, 0, 0);
    rig.must(a.row, 'envReap', first.id, 0);
    rig.must(a.row, 'pageFree', first.root, 0);
    const second = rig.child(a.row, [1, 6]);
    expect(second.row).toBe(first.row);
    return { rig, first, second };
  };

  test("holds none of its predecessor's capabilities", () => {
    const { second } = reborn();
    const slots = Array.from({ length: 16 }, (_, slot) => rig.raw.cap(second.row, slot).rights);
    expect(slots.slice(1)).toEqual(slots.slice(1).map(() => 0));
    const drop = rig.call(second.row, 'capDrop', second.id, 5, 0);
    expect(drop).toMatchObject(said(Status.noCapability, 1));
  });

  test('says who made its environment', () => {
    const { second } = reborn();
    expect(rig.raw.env(second.row, Env.parent)).toBe(rig.a.row);
    expect(rig.raw.env(second.row, Env.state)).toBe(EnvState.ready);
  });
});

describe('a page that becomes a root table', () => {
  test('keeps nothing that a user had written there', () => {
    const { a } = boot();
    const page = take(a);
    map(a, 300, page);
    // Words that would be page-table entries: valid, with every right, to page 1.
    rig.does(a.row, function* (port) {
      for (let n = 0; n < PAGE_WORDS / 2; n += 2) {
        port.store32(300 * PAGE_BYTES + n * 4, 0x4ff) ?? (yield* port.fault());
      }
    });
    unmap(a, 300);
    const { a: x, b: y } = packName([1, 5]);
    rig.must(a.row, 'envCreate', rig.raw.freeRow(), page, 0, x, y, -1, -1);
    const low = Array.from({ length: 256 }, (_, n) => rig.raw.entry(page, n));
    expect(low).toEqual(low.map(() => 0));
  });

  test('translates from 0 on, whatever stood in its record', () => {
    const { a } = boot();
    const page = take(a);
    rig.must(a.row, 'accessAdd', page, 0, 2, NAME_B.a, NAME_B.b, READ);
    rig.steps(a.row, 'accessRemove', page, 0, 2);
    const { a: x, b: y } = packName([1, 5]);
    rig.must(a.row, 'envCreate', rig.raw.freeRow(), page, 0, x, y, -1, -1);
    expect(rig.raw.page(page, PageRecord.base)).toBe(0);
    const middle = take(a);
    rig.must(a.row, 'tableCreate', page, 0, middle, 0, 0, 0, 0);
    expect(rig.raw.page(middle, PageRecord.base)).toBe(0);
  });
});

describe('a table that is a user page again', () => {
  test('has its access entry 1 empty, where it hung', () => {
    // A parent whose number has the bit in it that would make a right of it.
    const { a } = boot({ machine: { pages: 300 } });
    const root = rig.raw.pages - 1;
    const { a: x, b: y } = packName([1, 5]);
    rig.must(a.row, 'pageAllocate', root, 0);
    expect(root & 0x100).not.toBe(0);
    rig.must(a.row, 'envCreate', rig.raw.freeRow(), root, 0, x, y, -1, -1);
    const middle = take(a);
    rig.must(a.row, 'tableCreate', root, 3, middle, 0, 0, 0, 0);
    rig.must(a.row, 'tableDestroy', middle, 0);
    expect(rig.raw.access(middle, 1)).toMatchObject({ rights: 0, last: 0 });
    rig.must(a.row, 'accessAdd', middle, 0, 1, NAME_B.a, NAME_B.b, READ | WRITE);
    expect(rig.raw.access(middle, 1)).toMatchObject({ rights: READ | WRITE, last: 0 });
    rig.must(rig.b.row, 'pageMap', rig.b.leaf, 300, middle, 0, 1, RW, 0);
    unmap(rig.b, 300);
  });
});

describe('a page that was given back', () => {
  test('while an access entry was being taken away has that entry free', () => {
    const { a, b } = boot();
    const page = take(a);
    rig.must(a.row, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ | WRITE);
    store(b, SCRATCH, page | (1 << 28));
    rig.must(b.row, 'diskRequest', b.extent, 0, 0, 1, SCRATCH, 0, DISK_WRITE);
    const going = rig.call(a.row, 'accessRemove', page, 0, 1);
    expect(going).toMatchObject(said(Status.again, 0));
    rig.must(a.row, 'pageFree', page, 0);
    expect(rig.raw.kind(page)).toBe(PageKind.quarantined);
    for (let n = 0; rig.raw.info(Info.diskQueued) > 0; n++) {
      if (n > 1_000) throw new Error('the request does not end');
      rig.run(20_000);
    }
    expect(rig.raw.kind(page)).toBe(PageKind.free);
    rig.must(b.row, 'pageAllocate', page, 0);
    rig.must(b.row, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ);
  });

  test('by force, and had more mappings than a step takes, is free with the last of them', () => {
    boot({ tenants: 3, quota: 12, tenant: (n) => (n === 2 ? { name: [] } : {}) });
    const { a } = rig;
    const page = take(a);
    const mappings = STEP_LEAVES + 3;
    for (let n = 0; n < mappings; n++) map(a, 300 + n, page);
    rig.must(3, 'revoke', 1, 0, 3, page, 1, 1, 10_000);
    rig.run(50_000);
    expect(rig.call(3, 'repossess', 1, 0, page).status).toBe(Status.again);
    expect(rig.raw.kind(page)).toBe(PageKind.quarantined);
    expect(unmap(a, 300, mappings)).toBe(3);
    expect(rig.raw.kind(page)).toBe(PageKind.free);
    expect(rig.raw.used(3, Resource.pages)).toBe(rig.raw.used(2, Resource.pages));
  });
});

test('leaves taken out of the middle of a list leave the others in it', () => {
  const { a } = boot();
  const page = take(a);
  const { a: x, b: y } = packName([1]);
  rig.must(a.row, 'accessAdd', page, 0, 1, x, y, READ | WRITE);
  for (const index of [300, 301, 302, 303]) map(a, index, page, 1);
  unmap(a, 302); // the list is 303, 301, 300
  unmap(a, 301);
  unmap(a, 300);
  expect(rig.raw.page(page, PageRecord.leaves)).toBe(1);
  expect(rig.steps(a.row, 'accessRemove', page, 0, 1)).toBe(1);
  expect(rig.raw.page(page, PageRecord.leaves)).toBe(0);
  expect(rig.raw.entry(a.leaf, 303)).toBe(0);
});

test('a tenant is taken apart by its superior, to its last table', () => {
  boot({ tenants: 3, quota: 12, tenant: (n) => (n === 2 ? { name: [] } : {}) });
  const [{ a }, top] = [rig, 3];
  const published = rig.raw.word(0, 0);
  rig.must(top, 'envDestroy', a.id, 0, 0);
  for (let index = 0; index < 512; index += 64) {
    rig.must(top, 'pageUnmap', a.leaf, index, 64, 0);
  }
  expect(rig.raw.entry(a.leaf, Start.stackPage)).toBe(0);
  rig.must(top, 'tableDestroy', a.leaf, 0);
  rig.must(top, 'tableDestroy', a.middle, 0);
  expect([rig.raw.entry(a.root, 0), rig.raw.entry(a.middle, 0)]).toEqual([0, 0]);
  expect(rig.raw.word(0, 0)).toBe(published);
  rig.must(top, 'envReap', a.id, 0);
  for (const page of [a.root, a.middle, a.leaf, a.ledger0, a.ledger1, a.stack]) {
    rig.must(top, 'pageFree', page, 0);
  }
  expect(rig.raw.account(1, Account.used + Resource.pages)).toBe(0);
  expect(rig.raw.stateOf(a.row)).toBe(EnvState.free);
});
