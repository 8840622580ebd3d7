/**
 * Names of more than three bytes: their second word counts as their first does, wherever a name is
 * kept. Two names that differ in their last byte alone never stand for one another.
 */
import { afterEach, describe, expect, test } from 'vitest';
import {
  ALL_RIGHTS,
  DISK_WRITE,
  Extent,
  MAP_READ,
  MAP_WRITE,
  packName,
  READ,
  Status,
  WRITE,
} from '../../kernel/abi.ts';
import { books } from './books.ts';
import { Rig, SCRATCH } from './harness.ts';
import { audit } from './invariants.ts';

const MINE = packName([1, 2, 3, 4, 5]);
const OTHER = packName([1, 2, 3, 4, 6]);
const [MINE_SLOT, OTHER_SLOT] = [3, 4];
const RW = MAP_READ | MAP_WRITE;
const said = (status: number, value: number): object => ({ status, value });

let rig: Rig;
/** Tenant A with a capability for each name, forged from its own shorter one. */
function boot(): Rig {
  rig = new Rig();
  const { id, row } = rig.a;
  rig.must(row, 'capForge', id, MINE_SLOT, 0, MINE.a, MINE.b, ALL_RIGHTS);
  rig.must(row, 'capForge', id, OTHER_SLOT, 0, OTHER.a, OTHER.b, ALL_RIGHTS);
  return rig;
}
afterEach(() => {
  expect([...audit(rig.raw), ...books(rig.raw)]).toEqual([]);
});

describe('of two names that differ in their fifth byte, one does not stand for the other', () => {
  test('as the guard of an environment', () => {
    const { a } = boot();
    const child = rig.child(a.row, [1, 2, 3, 4, 5], { start: false });
    const other = said(Status.notPermitted, 1);
    expect(rig.call(a.row, 'notify', child.id, OTHER_SLOT)).toMatchObject(other);
    rig.must(a.row, 'notify', child.id, MINE_SLOT);
  });

  test('as an access entry', () => {
    const { a } = boot();
    const page = rig.raw.free();
    rig.must(a.row, 'pageAllocate', page, 0);
    rig.must(a.row, 'accessAdd', page, 0, 1, MINE.a, MINE.b, READ | WRITE);
    const other = rig.call(a.row, 'pageMap', a.leaf, 300, page, OTHER_SLOT, 1, RW, 0);
    expect(other).toMatchObject(said(Status.notPermitted, 3));
    rig.must(a.row, 'pageMap', a.leaf, 300, page, MINE_SLOT, 1, RW, 0);
  });

  test('as an account', () => {
    const { a } = boot();
    rig.must(a.row, 'accountCreate', 20, 1, 0, MINE.a, MINE.b, 0);
    const other = rig.call(a.row, 'accountClose', 20, OTHER_SLOT);
    expect(other).toMatchObject(said(Status.notPermitted, 1));
    rig.must(a.row, 'accountClose', 20, MINE_SLOT);
  });

  test('as the guard of an extent', () => {
    const { a } = boot();
    rig.does(a.row, function* (port) {
      port.store32(SCRATCH, rig.a.stack) ?? (yield* port.fault());
    });
    const fresh = 2;
    rig.must(a.row, 'extentSplit', a.extent, 0, fresh, 4, MINE.a, MINE.b);
    expect([Extent.nameA, Extent.nameB].map((word) => rig.raw.extent(fresh, word))).toEqual([
      MINE.a,
      MINE.b,
    ]);
    const ask = (slot: number): object =>
      rig.call(a.row, 'diskRequest', fresh, slot, 0, 1, SCRATCH, 0, DISK_WRITE);
    expect(ask(OTHER_SLOT)).toMatchObject(said(Status.notPermitted, 1));
    expect(ask(MINE_SLOT)).toMatchObject(said(Status.ok, 1));
  });

  test('as what a tenant is called', () => {
    const name = [9, 8, 7, 6, 5];
    rig = new Rig({ tenants: 1, tenant: () => ({ name }) });
    const { a, b } = packName(name);
    expect(rig.raw.cap(rig.a.row, 0)).toMatchObject({ a, b });
    const near = packName([9, 8, 7, 6, 4, 1]);
    const under = packName([9, 8, 7, 6, 5, 1]);
    const forge = (n: { a: number; b: number }): number =>
      rig.call(rig.a.row, 'capForge', rig.a.id, 5, 0, n.a, n.b, READ).status;
    expect([forge(near), forge(under)]).toEqual([Status.notPermitted, Status.ok]);
  });
});
