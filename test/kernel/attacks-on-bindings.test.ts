/**
 * Attacks by name on what changes hands: names that outlive what they stood for, offers, rights that
 * are taken away in steps, limits, marks, accounts, lists. The attacker is tenant B, the victim
 * tenant A, unless the attack is on one's own. After each test every invariant holds, and the books.
 */
import * as fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import {
  Account,
  ALL_RIGHTS,
  ARITY,
  BATCH_MAX,
  Call,
  CALL_COUNT,
  type CallName,
  Env,
  EnvState,
  Extent,
  EXTENT_BITS,
  GRANT,
  Info,
  LIMIT_MAX,
  Loss,
  MAP_READ,
  MAP_WRITE,
  packName,
  PAGE_BITS,
  PAGE_TAG_BITS,
  PageKind,
  READ,
  Resource,
  REVOKE,
  SLICE_BITS,
  Start,
  Status,
  STEP_LEAVES,
  TAG_BITS,
  tagOf,
  WRITE,
} from '../../kernel/abi.ts';
import { DEADLINE_MIN } from '../../kernel/exokernel/revocation.ts';
import { PageRecord } from '../../kernel/exokernel/state.ts';
import { Cause } from '../../machine/machine.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Op } from '../../machine/user-port.ts';
import {
  type Home,
  LATE_DISK,
  NAME_A,
  NAME_B,
  Rig,
  type RigConfig,
  SCRATCH,
  statusName,
} from './harness.ts';
import { audit, books } from '../../check/invariants/index.ts';

const RW = MAP_READ | MAP_WRITE;
const [A, B] = [1, 2] as const; // accounts, and rows of the first environments
const LENT = 20; // an account under B's
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
const take = ({ row }: Home): number => {
  const page = rig.raw.free();
  rig.must(row, 'pageAllocate', page, 0);
  return page;
};
const map = (home: Home, index: number, page: number, flags = RW, entry = 0): number =>
  rig.must(home.row, 'pageMap', home.leaf, index, page, 0, entry, flags, 0);
const words = (row: number, va: number, list: readonly number[]): void =>
  rig.does(row, function* (port): Op<void> {
    for (const [n, word] of list.entries()) {
      port.store32(va + n * 4, word) ?? (yield* port.fault());
    }
  });
const leaves = (page: number): number => rig.raw.page(page, PageRecord.leaves);

/** An account under B's with an environment of its own, that pays for what that takes. */
function lend(pages: number, minimum = 0): Home {
  const { a, b } = packName([2, 5]);
  rig.must(B, 'accountCreate', LENT, B, 0, a, b, minimum);
  rig.must(B, 'accountMove', B, LENT, 0, Resource.environments, 1);
  rig.must(B, 'accountMove', B, LENT, 0, Resource.pages, pages);
  return rig.child(B, [2, 5], { account: LENT });
}

describe('stale names', () => {
  const named = (page: number): number =>
    page | (tagOf(rig.raw.page(page, PageRecord.generation), PAGE_TAG_BITS) << PAGE_BITS);

  test('a page that has changed hands, and come back', () => {
    const { a, b } = boot();
    const page = take(b);
    const name = named(page);
    map(b, 300, name);
    rig.must(B, 'pageUnmap', b.leaf, 300, 1, 0);
    rig.must(B, 'pageFree', name, 0);
    const tries = (): void => {
      for (const [call, argument, ...args] of [
        ['pageAllocate', 0, name, 0],
        ['pageFree', 0, name, 0],
        ['accessAdd', 0, name, 0, 1, NAME_B.a, NAME_B.b, READ],
        ['accessRemove', 0, name, 0, 0],
        ['pageMap', 2, b.leaf, 300, name, 0, 0, MAP_READ, 0],
        ['tableCreate', 2, b.root, 9, name, 0, 0, 0, 0],
        ['pageLimit', 0, name, 0, 1, 1],
        ['pageKeep', 0, name, 0, 1],
        ['pageCopy', 0, name, 0, 0, b.stack, 0, 0],
        ['pageCopy', 3, b.stack, 0, 0, name, 0, 0],
        ['pageSweep', 0, name],
        ['envCreate', 1, rig.raw.freeRow(), name, 0, NAME_B.a, NAME_B.b, -1, -1],
        ['ipcCall', 5, a.id, 0, 0, 0, 0, name, 0, READ | (1 << 8)],
        ['ipcWindow', 0, name, 0, 0],
      ] as const) {
        expect(says(B, call, ...args), call).toBe(`badArgument ${argument}`);
      }
      words(B, SCRATCH, [name]);
      expect(says(B, 'pageMapList', b.leaf, 300, 1, SCRATCH, 0, MAP_READ, 0)).toBe('badArgument 3');
      expect(says(B, 'diskRequest', b.extent, 0, 0, 1, SCRATCH, 0, 0)).toBe('badArgument 4');
    };
    tries(); // free
    rig.must(A, 'pageAllocate', page, 0);
    tries(); // somebody else's
    rig.must(A, 'pageFree', page, 0);
    rig.must(B, 'pageAllocate', page, 0);
    tries(); // one's own, but another
    rig.must(B, 'pageFree', named(page), 0);
  });

  test('a tag comes round, after as many generations as there are tags, and not before', () => {
    const { b } = boot();
    const page = take(b);
    const name = named(page);
    const round = 2 ** PAGE_TAG_BITS - 1;
    for (let n = 0; n < round; n++) {
      const got = says(B, 'pageLimit', name, 0, -1, -1);
      expect(got).toBe(n === 0 ? 'ok 0' : 'badArgument 0');
      rig.must(B, 'pageFree', page, 0);
      rig.must(B, 'pageAllocate', page, 0);
    }
    expect(says(B, 'pageLimit', name, 0, -1, -1)).toBe('ok 0');
  });

  test('a tag that is none, and a name beyond all tags', () => {
    const { b } = boot();
    const page = take(b);
    const generation = rig.raw.page(page, PageRecord.generation);
    const own = tagOf(generation, PAGE_TAG_BITS);
    for (const tag of [1, 2, 3, 254, 255].filter((n) => n !== own)) {
      expect(says(B, 'pageFree', page | (tag << PAGE_BITS), 0)).toBe('badArgument 0');
    }
    for (const wide of [page + 2 ** 28, page + 2 ** 32, page - 2 ** 32]) {
      expect(says(B, 'pageFree', wide, 0)).toBe('badArgument 0');
    }
    rig.must(B, 'pageFree', page | (own << PAGE_BITS), 0);
  });

  test('an extent that was split or joined, and its free row', () => {
    const { b } = boot();
    const name = (row: number): number =>
      row | (tagOf(rig.raw.extent(row, Extent.generation), TAG_BITS) << EXTENT_BITS);
    const [whole, fresh] = [name(b.extent), name(5)];
    rig.must(B, 'extentSplit', whole, 0, fresh, 4, NAME_B.a, NAME_B.b);
    words(B, SCRATCH, [b.stack]);
    const tries = (stale: number): void => {
      expect(says(B, 'diskRequest', stale, 0, 0, 1, SCRATCH, 0, 0)).toBe('badArgument 0');
      expect(says(B, 'saveBlock', 0, stale, 0, 0)).toBe('badArgument 1');
      expect(says(B, 'extentJoin', stale, 0, 5)).toBe('badArgument 0');
      expect(says(B, 'extentJoin', b.extent, 0, stale)).toBe('badArgument 2');
      const { a: word, b: more } = NAME_B;
      expect(says(B, 'extentSplit', stale, 0, 6, 1, word, more)).toBe('badArgument 0');
      expect(says(B, 'extentSplit', b.extent, 0, stale, 1, word, more)).toBe('badArgument 2');
    };
    tries(whole);
    const [rest, part] = [name(b.extent), fresh]; // who took the row knows its name
    rig.must(B, 'extentJoin', rest, 0, part);
    for (const stale of [whole, rest, part]) tries(stale);
    // Another in the same row, of the same blocks: not what it was.
    rig.must(B, 'extentSplit', b.extent, 0, 5, 4, NAME_B.a, NAME_B.b);
    for (const stale of [whole, rest, part]) tries(stale);
  });

  test('a slice position that somebody else has taken meanwhile', () => {
    const { b } = boot();
    const name = (): number =>
      3 | (tagOf(rig.raw.info(Info.sliceGeneration + 3), TAG_BITS) << SLICE_BITS);
    const mine = name();
    rig.must(B, 'sliceFree', mine, 0);
    expect(says(B, 'sliceAllocate', mine, b.id, 0)).toBe('badArgument 0');
    rig.must(B, 'sliceAllocate', name(), b.id, 0);
    expect(says(B, 'sliceFree', mine, 0)).toBe('badArgument 0');
    rig.must(B, 'sliceFree', name(), 0);
  });
});

describe('offers', () => {
  const offer = (from: Home, to: number, name: readonly number[], rights: number): string => {
    const { a, b } = packName(name);
    return says(from.row, 'capOffer', to, 0, a, b, rights);
  };

  test('to somebody else, to a predecessor in the row, and from one', () => {
    const { a, b, raw } = boot();
    const old = rig.child(B, [2, 5]);
    expect(offer(a, old.id, [1, 5], READ)).toBe('ok 0');
    expect(says(B, 'capAcquire', a.id, 5)).toBe('absent 0');
    expect(says(A, 'capAcquire', a.id, 5)).toBe('absent 0');
    expect(offer(old, b.id, [2, 5], READ)).toBe('ok 0');
    rig.must(B, 'envDestroy', old.id, 0, 0);
    expect(says(B, 'capAcquire', old.id, 5)).toBe('badEnvironment 0');
    expect(offer(a, old.id, [1, 5], READ)).toBe('ok 0'); // to a zombie, which never asks
    rig.must(B, 'envReap', old.id, 0);
    const next = rig.child(B, [2, 5]);
    expect(next.row).toBe(old.row);
    expect(says(next.row, 'capAcquire', a.id, 5)).toBe('absent 0');
    expect(says(B, 'capAcquire', next.id, 5)).toBe('absent 0');
    expect(offer(a, old.id, [1, 5], READ)).toBe('badEnvironment 0');
    expect(raw.cap(next.row, 5).rights).toBe(0);
  });

  test('replaced in between: what is acquired is the last one, and once', () => {
    const { a, b, raw } = boot();
    expect(offer(a, b.id, [1], ALL_RIGHTS)).toBe('ok 0');
    expect(offer(a, b.id, [1, 5], READ)).toBe('ok 0');
    expect(says(B, 'capAcquire', a.id, 5)).toBe('ok 0');
    expect(raw.cap(B, 5)).toMatchObject({ ...packName([1, 5]), rights: READ });
    expect(says(B, 'capAcquire', a.id, 6)).toBe('absent 0');
    // Nor is it a way to fill a slot that is filled.
    expect(offer(a, b.id, [1, 5], READ)).toBe('ok 0');
    expect(says(B, 'capAcquire', a.id, 0)).toBe('occupied 1');
    expect(says(B, 'capAcquire', a.id, 6)).toBe('ok 0');
  });

  test('of more than one has', () => {
    const { a, b } = boot();
    expect(offer(b, a.id, [], READ)).toBe('notPermitted 1');
    expect(offer(b, a.id, [1], READ)).toBe('notPermitted 1');
    rig.must(B, 'capForge', b.id, 3, 0, NAME_B.a, NAME_B.b, READ | GRANT);
    rig.must(B, 'capForge', b.id, 4, 0, NAME_B.a, NAME_B.b, READ | WRITE);
    const by = (slot: number, rights: number): string =>
      says(B, 'capOffer', a.id, slot, NAME_B.a, NAME_B.b, rights);
    expect(by(3, READ | WRITE)).toBe('notPermitted 1');
    expect(by(3, REVOKE)).toBe('notPermitted 1');
    expect(by(4, READ)).toBe('notPermitted 1');
    expect(by(3, READ)).toBe('ok 0');
  });

  test('as a hiding-place for what is taken back', () => {
    const { b } = boot();
    const [holder, friend] = [rig.child(B, [2, 5]), rig.child(B, [2, 6])];
    const name = packName([2, 7]);
    rig.must(B, 'capForge', holder.id, 5, 0, name.a, name.b, ALL_RIGHTS);
    rig.must(holder.row, 'capOffer', friend.id, 5, name.a, name.b, ALL_RIGHTS);
    rig.must(B, 'capDrop', holder.id, 5, 0);
    expect(says(friend.row, 'capAcquire', holder.id, 5)).toBe('absent 0');
    // Nor does something lesser in the same slot make it good.
    rig.must(B, 'capForge', holder.id, 5, 0, name.a, name.b, READ | GRANT);
    expect(says(friend.row, 'capAcquire', holder.id, 5)).toBe('absent 0');
    expect(b.row).toBe(B);
  });

  test('a capability that was acquired is dropped by who has authority over the holder alone', () => {
    const { a, b } = boot();
    expect(offer(a, b.id, [1, 5], ALL_RIGHTS)).toBe('ok 0');
    rig.must(B, 'capAcquire', a.id, 5);
    expect(says(A, 'capDrop', b.id, 5, 0)).toBe('notPermitted 0');
    rig.must(B, 'capDrop', b.id, 5, 0);
  });
});

describe('an access entry that is being taken away', () => {
  const MORE = STEP_LEAVES + 4;

  test('justifies nothing new, and cannot be used again, until it is gone', () => {
    const { a, b, raw } = boot();
    rig.catches(B);
    const page = take(a);
    rig.must(A, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ | WRITE);
    for (let n = 0; n < MORE; n++) map(b, 300 + n, page, n % 2 === 0 ? RW : MAP_READ, 1);
    expect(says(A, 'accessRemove', page, 0, 1)).toBe('again 0');
    expect(leaves(page)).toBe(MORE - STEP_LEAVES);
    expect(audit(raw, undefined, true)).toEqual([]);
    const left = Array.from({ length: MORE }, (_, n) => 300 + n).filter(
      (index) => (raw.entry(b.leaf, index) & 1) !== 0,
    );
    words(B, SCRATCH, [page | (1 << 28)]);
    for (const [expected, call, ...args] of [
      ['absent 4', 'pageMap', b.leaf, 400, page, 0, 1, MAP_READ, 0],
      ['absent 3', 'pageMapList', b.leaf, 400, 1, SCRATCH, 0, MAP_READ, 0],
      ['absent 4', 'diskRequest', b.extent, 0, 0, 1, SCRATCH, 0, 0],
      ['absent 2', 'pageCopy', page, 0, 1, b.stack, 0, 0],
      ['absent 5', 'pageCopy', b.stack, 0, 0, page, 0, 1],
    ] as const) {
      expect(says(B, call, ...args), call).toBe(expected);
    }
    const readable = left.find((index) => (raw.entry(b.leaf, index) & 4) === 0) ?? NaN;
    expect(says(B, 'pageProtect', b.leaf, readable, 1, RW, 0)).toBe('absent 3');
    expect(says(A, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ)).toBe('occupied 2');
    expect(says(A, 'pageFree', page, 0)).toBe('busy 0');
    const grant = [0, 0, 0, 0, page, 0, READ | (1 << 8)];
    expect(says(A, 'ipcCall', b.id, ...grant)).toBe('occupied 7');
    // What stands may be made less meanwhile, and taken away by its holder.
    rig.must(B, 'pageUnmap', b.leaf, left[0] ?? NaN, 1, 0);
    rig.must(A, 'accessRemove', page, 0, 1);
    expect(leaves(page)).toBe(0);
    for (const index of left) {
      expect(rig.access(B, at(index))).toEqual({ cause: Cause.loadPageFault, address: at(index) });
    }
    expect(says(A, 'accessRemove', page, 0, 1)).toBe('absent 2');
    rig.must(A, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ);
    map(b, 300, page, MAP_READ, 1);
  });

  test('entry 0 stays, and a limit keeps those whom it stands for from mapping again', () => {
    const { b, raw } = boot();
    const child = rig.child(B, [2, 5], { tables: true });
    const name = packName([2, 5]);
    rig.must(B, 'capForge', b.id, 3, 0, name.a, name.b, ALL_RIGHTS);
    const page = raw.free();
    rig.must(B, 'pageAllocate', page, 3);
    const remap = (): void => {
      for (let n = 0; n < MORE; n++) {
        rig.call(child.row, 'pageMap', child.leaf, 300 + n, page, 0, 0, RW, 0);
      }
    };
    remap();
    expect(leaves(page)).toBe(MORE);
    for (let n = 0; leaves(page) > 0; n++) {
      expect(n).toBeLessThan(10);
      rig.must(B, 'pageLimit', page, 0, leaves(page), -1);
      rig.call(B, 'accessRemove', page, 0, 0);
      rig.must(B, 'pageLimit', page, 0, leaves(page), -1);
      remap();
    }
    expect(says(B, 'accessRemove', page, 0, 0)).toBe('ok 0');
    rig.must(B, 'pageFree', page, 0);
  });
});

describe('limits of mappings', () => {
  test('evaded by pageProtect, a list, another table, another entry, or a message', () => {
    const { a, b } = boot();
    const page = take(a);
    rig.must(A, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ | WRITE);
    rig.must(A, 'pageLimit', page, 0, 4, 1);
    map(a, 300, page);
    const more = (flags: number, entry = 1, leaf = b.leaf): string =>
      says(B, 'pageMap', leaf, 300, page, 0, entry, flags, 0);
    expect(more(RW)).toBe('sharing 2');
    expect(more(MAP_READ)).toBe('ok 0');
    expect(says(B, 'pageProtect', b.leaf, 300, 1, RW, 0)).toBe('sharing 3');
    const leaf = take(b);
    rig.must(B, 'tableCreate', b.middle, 9, leaf, 0, take(b), take(b), 0);
    expect(more(RW, 1, leaf)).toBe('sharing 2');
    expect(says(A, 'pageMap', a.leaf, 301, page, 0, 0, RW, 0)).toBe('sharing 2');
    words(B, SCRATCH, [page | (1 << 28), page | (1 << 28), page | (1 << 28)]);
    expect(says(B, 'pageMapList', leaf, 301, 3, SCRATCH, 0, RW, 0)).toBe('sharing 3');
    // Two more may be there, and the list gets as far as that.
    expect(says(B, 'pageMapList', leaf, 301, 3, SCRATCH, 0, MAP_READ, 0)).toBe('ok 2');
    expect(says(B, 'pageProtect', leaf, 301, 2, RW, 0)).toBe('sharing 3');
    expect(more(MAP_READ, 1, leaf)).toBe('sharing 2');
    const child = rig.child(B, [2, 5], { tables: true });
    rig.must(child.row, 'ipcWindow', child.leaf, 400, 0);
    rig.calls(child.row, 'ipcReplyWait', -1, 0, 0, 0, 0, -1, 0, 0);
    const grant = (rights: number): string =>
      says(A, 'ipcCall', child.id, 0, 0, 0, 0, page, 0, rights | (2 << 8));
    expect([grant(READ), grant(READ | WRITE)]).toEqual(['sharing 7', 'sharing 7']);
    expect(says(A, 'pageLimit', page, 0, 3, 1)).toBe('busy 2');
    expect(says(A, 'pageLimit', page, 0, 4, 0)).toBe('busy 3');
    // Who gives up writing makes room for another to write.
    rig.must(A, 'pageProtect', a.leaf, 300, 1, MAP_READ, 0);
    expect(says(B, 'pageProtect', leaf, 301, 2, RW, 0)).toBe('ok 1');
    expect(rig.raw.page(page, PageRecord.writers)).toBe(1);
    rig.must(A, 'accessRemove', page, 0, 1);
    expect(rig.raw.page(page, PageRecord.writers)).toBe(0);
    rig.must(A, 'pageProtect', a.leaf, 300, 1, RW, 0);
  });

  test('at their ends, and after the page was a table or free', () => {
    const { b, raw } = boot();
    const page = take(b);
    rig.must(B, 'pageLimit', page, 0, LIMIT_MAX, LIMIT_MAX);
    map(b, 300, page);
    rig.must(B, 'pageUnmap', b.leaf, 300, 1, 0);
    rig.must(B, 'pageLimit', page, 0, 0, -1);
    expect(says(B, 'pageMap', b.leaf, 300, page, 0, 0, MAP_READ, 0)).toBe('sharing 2');
    rig.must(B, 'pageLimit', page, 0, -1, 0);
    expect(says(B, 'pageMap', b.leaf, 300, page, 0, 0, RW, 0)).toBe('sharing 2');
    // A table's entries and views are not mappings of it.
    rig.must(B, 'tableCreate', b.root, 9, page, 0, 0, 0, 0);
    rig.must(B, 'pageMap', b.leaf, 300, page, 0, 0, MAP_READ, 0);
    rig.must(B, 'pageUnmap', b.leaf, 300, 1, 0);
    rig.must(B, 'tableDestroy', page, 0);
    expect(says(B, 'pageMap', b.leaf, 300, page, 0, 0, RW, 0)).toBe('sharing 2');
    rig.must(B, 'pageFree', page, 0);
    rig.must(B, 'pageAllocate', page, 0);
    map(b, 300, page);
    expect(raw.page(page, PageRecord.limits)).toBe(0);
  });
});

describe('marks of what is kept', () => {
  test("another's page, another account's, more than the minimum, and a mark that stays behind", () => {
    const { a, b, raw } = boot({ tenant: () => ({ minimum: 2 }) });
    const child = lend(6, 1);
    const [x, y, z] = [take(b), take(b), take(b)];
    const theirs = take(child);
    expect(says(B, 'pageKeep', a.stack, 0, 1)).toBe('notPermitted 1');
    expect(says(B, 'pageKeep', theirs, 0, 1)).toBe('notPermitted 0');
    for (const page of [x, x, y]) rig.must(B, 'pageKeep', page, 0, 1);
    expect(raw.account(B, Account.kept)).toBe(2);
    expect(says(B, 'pageKeep', z, 0, 1)).toBe('quota 2');
    // As a table it is kept as well; free it is not, and the mark can be given to another.
    rig.must(B, 'tableCreate', b.root, 9, x, 0, 0, 0, 0);
    expect(says(B, 'pageKeep', z, 0, 1)).toBe('quota 2');
    rig.must(B, 'tableDestroy', x, 0);
    rig.must(B, 'pageFree', x, 0);
    rig.must(B, 'pageKeep', z, 0, 1);
    rig.must(A, 'pageAllocate', x, 0);
    expect(raw.kept(x)).toBe(false);
    rig.must(B, 'pageKeep', y, 0, 0);
    rig.must(B, 'pageKeep', y, 0, 0);
    expect(raw.account(B, Account.kept)).toBe(1);
  });

  test('a kept page that is given up while a device reaches it', () => {
    const { b, raw } = boot({ machine: { profile: LATE_DISK }, tenant: () => ({ minimum: 1 }) });
    const page = take(b);
    rig.must(B, 'pageKeep', page, 0, 1);
    words(B, SCRATCH, [page]);
    rig.must(B, 'diskRequest', b.extent, 0, 0, 1, SCRATCH, 0, 0);
    rig.must(B, 'pageFree', page, 0);
    expect([raw.kept(page), raw.account(B, Account.kept)]).toEqual([false, 0]);
    rig.must(B, 'pageKeep', b.stack, 0, 1);
  });
});

describe('accounts', () => {
  test("a stranger's: opened under, moved from, closed, asked, or made to wait", () => {
    const { a } = boot();
    const under = packName([1, 5]);
    rig.must(A, 'accountCreate', 30, A, 0, under.a, under.b, 0);
    take(a);
    for (const [expected, call, ...args] of [
      ['notPermitted 2', 'accountCreate', 31, A, 0, under.a, under.b, 0],
      ['notPermitted 2', 'accountCreate', 31, 0, 0, NAME_B.a, NAME_B.b, 0],
      ['notPermitted 3', 'accountCreate', 31, B, 0, under.a, under.b, 0],
      ['notPermitted 3', 'accountCreate', 31, B, 0, NAME_B.a, NAME_B.b, 0],
      ['notPermitted 2', 'accountMove', A, B, 0, Resource.pages, 1],
      ['notPermitted 2', 'accountMove', 30, B, 0, Resource.pages, 1],
      ['notPermitted 2', 'accountMove', 0, B, 0, Resource.pages, 1],
      ['notPermitted 1', 'accountClose', 30, 0],
      ['notPermitted 1', 'revoke', A, 0, B, 0, rig.raw.pages, 1, DEADLINE_MIN],
      ['notPermitted 1', 'revoke', 30, 0, B, 0, rig.raw.pages, 1, DEADLINE_MIN],
      ['notPermitted 1', 'repossess', A, 0, a.stack],
      // Its own, and whatever it could get up to there.
      ['notPermitted 1', 'revoke', B, 0, 30, 0, rig.raw.pages, 1, DEADLINE_MIN],
    ] as const) {
      expect(says(B, call, ...args), `${call}(${args.join(', ')})`).toBe(expected);
    }
    // In favour of a stranger, or he could not close his account.
    const child = lend(4);
    take(child);
    const asks = says(B, 'revoke', LENT, 0, 30, 0, rig.raw.pages, 1, 2 ** 31 - 1);
    expect(asks).toBe('notPermitted 2');
    rig.must(A, 'accountClose', 30, 0);
  });

  test('closed while a revocation from it or in its favour is under way', () => {
    const { raw } = boot();
    const child = lend(4);
    take(child);
    const other = packName([2, 6]);
    rig.must(B, 'accountCreate', 21, B, 0, other.a, other.b, 0);
    rig.must(B, 'revoke', LENT, 0, 21, 0, raw.pages, 1, DEADLINE_MIN);
    expect(says(B, 'accountClose', 21, 0)).toBe('busy 0');
    expect(says(B, 'accountClose', LENT, 0)).toBe('busy 0');
    rig.must(B, 'revoke', LENT, 0, 21, 0, raw.pages, 0, DEADLINE_MIN);
    rig.must(B, 'accountClose', 21, 0);
    const parent = packName([2, 5, 1]);
    rig.must(B, 'accountCreate', 22, LENT, 0, parent.a, parent.b, 0);
    rig.must(B, 'envDestroy', child.id, 0, 0);
    rig.must(B, 'envReap', child.id, 0);
    expect(says(B, 'accountClose', LENT, 0)).toBe('busy 0');
  });

  test('a row used again: nothing of its last holder is left', () => {
    const { b, raw } = boot({ tenant: () => ({ minimum: 2 }) });
    const child = lend(6, 1);
    const pages = [take(child), take(child)];
    rig.must(child.row, 'pageKeep', pages[0] ?? NaN, 0, 1);
    const under = packName([2, 5]);
    rig.must(B, 'extentSplit', b.extent, 0, 5, 8, under.a, under.b);
    rig.must(child.row, 'saveBlock', 0, 5, 0, 3);
    rig.must(B, 'revoke', LENT, 0, B, 0, raw.pages, 1, DEADLINE_MIN);
    rig.run(2 * DEADLINE_MIN);
    rig.must(B, 'repossess', LENT, 0, pages[1] ?? NaN);
    rig.must(child.row, 'saveBlock', 1, 5, 0, 4);
    rig.must(B, 'pageFree', pages[0] ?? NaN, 0);
    rig.must(B, 'envDestroy', child.id, 0, 0);
    rig.must(B, 'envReap', child.id, 0);
    rig.run(200_000);
    rig.must(B, 'accountClose', LENT, 0);
    const name = packName([1, 7]);
    rig.must(A, 'accountCreate', LENT, A, 0, name.a, name.b, 0);
    const words = Array.from({ length: Account.words }, (_, n) => raw.account(LENT, n));
    const due = words.map(() => 0);
    due[Account.valid] = 1;
    [due[Account.nameA], due[Account.nameB]] = [name.a, name.b];
    [due[Account.parent], due[Account.tenant]] = [A, A];
    expect(words).toEqual(due);
    // Or what it loses would be written to its predecessor's blocks.
    for (let at = Loss.saves; at < Loss.words; at += 4) expect(raw.loss(LENT, at)).toBe(0);
  });

  test('given a page that no superior could take back: as a table or root of a stranger', () => {
    const { a, b, raw } = boot();
    rig.must(A, 'capOffer', b.id, 0, NAME_A.a, NAME_A.b, ALL_RIGHTS);
    rig.must(B, 'capAcquire', a.id, 5);
    const [x, y, z] = [take(b), take(b), take(b)];
    const hang = (...pages: readonly [number, number, number]): string =>
      says(B, 'tableCreate', a.middle, 9, pages[0], 0, pages[1], pages[2], 5);
    expect(hang(x, y, z)).toBe('notPermitted 2');
    expect(says(B, 'tableCreate', a.root, 9, x, 0, 0, 0, 5)).toBe('notPermitted 2');
    const under = packName([1, 5]);
    // A's account may pay for the row, but B's page is not A's root.
    const root = says(B, 'envCreate', raw.freeRow(), x, 5, under.a, under.b, -1, A);
    expect(root).toBe('notPermitted 2');
    expect(says(B, 'pageAllocate', raw.free(), 5)).toBe('notPermitted 1');
    expect(says(B, 'extentSplit', a.extent, 5, 5, 1, under.a, under.b)).toBe('notPermitted 4');
  });
});

describe('a suspended environment', () => {
  test('runs no further: not by itself, a slice, a gift, an answer or an upcall', () => {
    const { a, b, raw } = boot();
    const child = rig.child(B, [2, 5]);
    let steps = 0;
    rig.begin(child.row, function* (port): Op<void> {
      yield* port.call(Call.envSuspend, child.id, 0, 1);
      for (;;) {
        steps++;
        yield* port.call(Call.null);
      }
    });
    rig.must(B, 'sliceFree', 3, 0);
    rig.must(B, 'sliceAllocate', 3, child.id, 0);
    rig.run(200_000);
    expect(says(A, 'yield', child.id)).toBe('notReady 0');
    rig.must(B, 'notify', child.id, 0);
    rig.run(200_000);
    expect(steps).toBe(0);
    expect(raw.stateOf(child.row)).toBe(EnvState.ready);
    // A stranger does not wake it; its parent does.
    expect(says(A, 'envSuspend', child.id, 0, 0)).toBe('notPermitted 1');
    rig.must(B, 'envSuspend', child.id, 0, 0);
    rig.run(200_000);
    expect(steps).toBeGreaterThan(0);
    expect([a.row, b.row]).toEqual([A, B]);
  });

  test('whose call is answered goes on when it is resumed, and has the answer', () => {
    const { a } = boot();
    const child = rig.child(B, [2, 5]);
    expect(rig.calls(A, 'ipcReplyWait', -1, 0, 0, 0, 0, -1, 0, 0)).toBe(false);
    expect(rig.calls(child.row, 'ipcCall', a.id, 7, 0, 0, 0, -1, 0, 0)).toBe(false);
    expect(rig.settle(A)).toBe(true);
    rig.must(B, 'envSuspend', child.id, 0, 1);
    rig.calls(A, 'ipcReplyWait', child.id, 8, 0, 0, 0, -1, 0, 0);
    rig.run(100_000);
    expect(rig.lane(child.id).done).toBe(false);
    rig.must(B, 'envSuspend', child.id, 0, 0);
    expect(rig.settle(child.row)).toBe(true);
    expect(rig.answer(child.row)).toMatchObject({ status: Status.ok, value: a.id });
    expect(rig.answer(child.row).message[0]).toBe(8);
  });

  test('a server that is suspended holds its callers, who can be destroyed all the same', () => {
    const { b } = boot();
    const [server, client] = [rig.child(B, [2, 5]), rig.child(B, [2, 6])];
    rig.calls(server.row, 'ipcReplyWait', -1, 0, 0, 0, 0, -1, 0, 0);
    rig.must(B, 'envSuspend', server.id, 0, 1);
    expect(rig.calls(client.row, 'ipcCall', server.id, 1, 0, 0, 0, -1, 0, 0)).toBe(false);
    rig.run(50_000);
    expect(rig.lane(server.id).done).toBe(false);
    rig.must(B, 'envDestroy', client.id, 0, 0);
    rig.must(B, 'envReap', client.id, 0);
    rig.must(B, 'envSuspend', server.id, 0, 0);
    expect(rig.settle(server.row)).toBe(true); // it was heard before its caller died
    rig.calls(server.row, 'ipcReplyWait', client.id, 1, 0, 0, 0, -1, 0, 0);
    expect(rig.answer(server.row)).toMatchObject({ status: Status.badEnvironment });
    expect(b.row).toBe(B);
  });
});

describe('copies and sweeps', () => {
  test('of and onto what is not a user page, or not one’s own', () => {
    const { a, b, raw } = boot({ machine: { profile: LATE_DISK } });
    const page = take(b);
    const shared = take(a);
    rig.must(A, 'accessAdd', shared, 0, 1, NAME_B.a, NAME_B.b, READ);
    const gone = take(b);
    words(B, SCRATCH, [gone]);
    rig.must(B, 'diskRequest', b.extent, 0, 0, 1, SCRATCH, 0, 0);
    rig.must(B, 'pageFree', gone, 0);
    const others = [b.root, b.middle, b.leaf, b.ledger0, gone, raw.free()];
    for (const other of [...others, raw.state.root, raw.state.info.firstPage]) {
      expect(says(B, 'pageCopy', other, 0, 0, page, 0, 0)).toBe('wrongKind 0');
      expect(says(B, 'pageCopy', page, 0, 0, other, 0, 0)).toBe('wrongKind 3');
      if (other !== gone) expect(says(B, 'pageSweep', other)).toBe('wrongKind 0');
    }
    expect(says(B, 'pageCopy', a.stack, 0, 0, page, 0, 0)).toBe('notPermitted 1');
    expect(says(B, 'pageCopy', page, 0, 0, a.stack, 0, 0)).toBe('notPermitted 4');
    expect(says(B, 'pageCopy', shared, 0, 1, page, 0, 0)).toBe('notPermitted 1');
    expect(says(B, 'pageCopy', page, 0, 0, shared, 0, 1)).toBe('ok 0');
    expect(says(B, 'pageSweep', page)).toBe('wrongKind 0');
    expect(says(A, 'pageSweep', gone)).toBe('busy 0');
  });

  test('what was copied is seen by whoever has the page mapped', () => {
    const { b } = boot();
    rig.catches(B);
    const [from, to] = [take(b), take(b)];
    map(b, 300, from);
    map(b, 301, to);
    for (const word of [0, 4, 4092]) {
      expect(rig.access(B, at(300) + word, 77 + word)).toBe(0);
      expect(rig.access(B, at(301) + word)).toBe(0);
    }
    rig.must(B, 'pageCopy', to, 0, 0, from, 0, 0);
    for (const word of [0, 4, 4092]) expect(rig.access(B, at(301) + word)).toBe(77 + word);
  });
});

describe('a list of pages', () => {
  test('that lies in the pages that it maps', () => {
    const { b, raw } = boot();
    rig.catches(B);
    const [x, y, z] = [take(b), take(b), take(b)];
    map(b, 300, x);
    map(b, 310, y);
    // The second word is read from y, at 301, where the first word has just put it.
    words(B, at(300) + 4092, [y]);
    words(B, at(310), [z, b.leaf, 0]);
    const list = at(300) + 4092;
    expect(says(B, 'pageMapList', b.leaf, 301, 3, list, 0, RW, 0)).toBe('ok 2');
    expect([301, 302, 303].map((index) => raw.entry(b.leaf, index) >>> 10)).toEqual([y, z, 0]);
    expect(says(B, 'pageMapList', b.leaf, 303, 1, at(301) + 4, 0, RW, 0)).toBe('wrongKind 3');
    // Unmapped again, it ends there.
    rig.must(B, 'pageUnmap', b.leaf, 301, 2, 0);
    expect(says(B, 'pageMapList', b.leaf, 320, 2, list, 0, MAP_READ, 0)).toBe('ok 1');
    expect(says(B, 'pageMapList', b.leaf, 330, 1, at(301), 0, RW, 0)).toBe('badAddress 3');
  });

  test('that another environment rewrites between two calls, and a device between them', () => {
    const { a, b } = boot();
    const page = take(b);
    rig.must(B, 'accessAdd', page, 0, 1, NAME_A.a, NAME_A.b, READ | WRITE);
    map(b, 300, page);
    map(a, 300, page, RW, 1);
    words(B, at(300), [b.stack]);
    words(A, at(300), [a.stack]);
    expect(says(B, 'pageMapList', b.leaf, 301, 1, at(300), 0, RW, 0)).toBe('notPermitted 4');
    words(A, at(300), [b.stack]);
    rig.must(B, 'pageMapList', b.leaf, 301, 1, at(300), 0, RW, 0);
    words(B, SCRATCH, [page]);
    rig.must(B, 'diskRequest', b.extent, 0, 0, 1, SCRATCH, 0, 0);
    rig.run(100_000);
    // Zeros, off the disk: page 0 is published, and no user page.
    expect(says(B, 'pageMapList', b.leaf, 302, 1, at(300), 0, MAP_READ, 0)).toBe('wrongKind 3');
  });

  test('at addresses that wrap around, are not aligned, or nowhere', () => {
    const { b } = boot();
    for (const list of [2 ** 32 - 4, -4, SCRATCH + 2, 2 ** 32 + SCRATCH, NaN, 0.5, at(500)]) {
      const got = says(B, 'pageMapList', b.leaf, 300, 2, list, 0, MAP_READ, 0);
      expect(got, `${list}`).toBe('badAddress 3');
    }
    words(B, SCRATCH, [b.stack, b.stack]);
    for (const [index, count] of [
      [511, 2],
      [500, 64],
      [0, 2 ** 32 + 1],
    ] as const) {
      const got = says(B, 'pageMapList', b.leaf, index, count, SCRATCH, 0, MAP_READ, 0);
      expect(got).toBe('badArgument 2');
      expect(says(B, 'pageProtect', b.leaf, index, count, MAP_READ, 0)).toBe('badArgument 2');
      expect(says(B, 'pageUnmap', b.leaf, index, count, 0)).toBe('badArgument 2');
    }
    expect(leaves(b.stack)).toBe(1);
  });

  test('with words that name more than a page and an entry', () => {
    const { b } = boot();
    const page = take(b);
    for (const word of [page | (4 << 28), page | (8 << 28), -1, page | (1 << 27), 2 ** 21]) {
      words(B, SCRATCH, [word]);
      const got = says(B, 'pageMapList', b.leaf, 300, 1, SCRATCH, 0, MAP_READ, 0);
      expect(got, `${word}`).toBe('badArgument 3');
    }
  });
});

describe('pageProtect over many entries', () => {
  test('stops at the first that it may not change, and has changed those before', () => {
    const { a, b, raw } = boot();
    rig.catches(B);
    const [mine, theirs] = [take(b), take(a)];
    rig.must(A, 'accessAdd', theirs, 0, 1, NAME_B.a, NAME_B.b, READ);
    map(b, 300, mine, MAP_READ);
    map(b, 302, mine, MAP_READ);
    map(b, 303, theirs, MAP_READ, 1);
    map(b, 304, mine, MAP_READ);
    expect(says(B, 'pageProtect', b.leaf, 300, 5, RW, 0)).toBe('ok 3');
    const writable = [300, 302, 303, 304].map((index) => (raw.entry(b.leaf, index) & 4) !== 0);
    expect(writable).toEqual([true, true, false, false]);
    expect(says(B, 'pageProtect', b.leaf, 303, 2, RW, 0)).toBe('notPermitted 3');
    // Taking rights away needs no right, and leaves no translation that has them.
    expect(rig.access(B, at(302), 5)).toBe(0);
    expect(says(B, 'pageProtect', b.leaf, 300, 5, MAP_READ, 0)).toBe('ok 5');
    expect(rig.access(B, at(302), 5)).toEqual({ cause: Cause.storePageFault, address: at(302) });
    expect(raw.page(mine, PageRecord.writers)).toBe(0);
  });
});

describe('a batch of all of these', () => {
  test('a step that is not the last ends it, with what is done', () => {
    const { a, b } = boot();
    const page = take(a);
    rig.must(A, 'accessAdd', page, 0, 1, NAME_B.a, NAME_B.b, READ);
    for (let n = 0; n <= STEP_LEAVES; n++) map(b, 300 + n, page, MAP_READ, 1);
    const remove = [Call.accessRemove, page, 0, 1];
    words(A, SCRATCH, [Call.null, ...remove, Call.pageFree, page, 0]);
    expect(says(A, 'batch', SCRATCH, 3)).toBe('again 1');
    expect(leaves(page)).toBe(1);
    words(A, SCRATCH, [...remove, Call.pageFree, page, 0]);
    expect(says(A, 'batch', SCRATCH, 2)).toBe('ok 2');
  });

  test('that suspends its caller: the rest of it is done, and nothing after it', () => {
    const { b, raw } = boot();
    const page = raw.free();
    const suspend = [Call.envSuspend, b.id, 0, 1];
    words(B, SCRATCH, [...suspend, Call.pageAllocate, page, 0]);
    expect(rig.calls(B, 'batch', SCRATCH, 2)).toBe(false);
    expect([raw.kind(page), raw.env(B, Env.suspended)]).toEqual([PageKind.user, 1]);
    rig.run(100_000);
    expect(rig.lane(b.id).done).toBe(false);
  });

  test('of any records at all', () => {
    const near = (n: number): number => n;
    const record = fc.tuple(
      fc.integer({ min: -1, max: CALL_COUNT }),
      fc.array(
        fc.oneof(
          fc.integer(),
          fc.nat(100).map(near),
          fc.constantFrom(-1, 0, 1, 2, 3, 14, 15, 16, 255, 256, 511, 512, SCRATCH, at(300)),
        ),
        { minLength: 8, maxLength: 8 },
      ),
    );
    const statuses = new Set<number>();
    const property = fc.property(fc.array(record, { maxLength: BATCH_MAX }), (records) => {
      const { b, raw } = boot({ machine: { pages: 80 }, quota: 16 });
      rig.catches(B);
      map(b, 300, take(b));
      for (const [number, args] of records) {
        // Ends of environments are for other tests: this one wants to go on.
        if (number === Call.envDestroy || number === Call.envSuspend) continue;
        words(B, SCRATCH, [number, ...args.slice(0, Math.max(0, ARITY[number] ?? 0))]);
        const { status } = rig.call(B, 'batch', SCRATCH, 1);
        statuses.add(status);
        expect(status).toBeLessThanOrEqual(Status.interrupted);
      }
      expect([...audit(raw, undefined, true), ...books(raw)]).toEqual([]);
      expect(raw.entry(b.leaf, Start.infoPage) & 4).toBe(0);
    });
    fc.assert(property, { numRuns: 60 });
    expect(statuses.size).toBeGreaterThan(5);
  });
});
