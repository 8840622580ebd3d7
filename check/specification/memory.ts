/** The calls on pages, their access entries, tables and mappings. */
import * as abi from '../../kernel/abi.ts';
import * as e from './effects.ts';
import * as m from './model.ts';
import type { Call, Leaf } from './model.ts';
import * as g from './guards.ts';
import { bad, between, entry, no, only, owned, page, slot, spendable } from './guards.ts';

const { free, user, root, middle, leaf, ledger, published, quarantined } = abi.PageKind;
const isUser = (c: Call): boolean => c.page(2).kind === user;
const isRoot = (c: Call): boolean => c.page(0).kind === root;
const use = (p: number, s: number, at: number, need: number): g.Guard[] =>
  g.usable((c) => g.misuse(c.me, c.a(s), c.page(p), c.a(at), need), at, s);
/** Entry `n` of the table, from argument 1 on. */
const key = (c: Call, n = 0): number => c.page(0).at * 512 + c.a(1) + n;
/** Filled entries of the range of arguments 1 and 2. */
const inRange = (c: Call): [key: number, leaf: Leaf][] =>
  [...c.w.leaves]
    .filter(([at]) => between(at, key(c), key(c, c.a(2) - 1)))
    .sort(([x], [y]) => x - y);
/** Why entry `n` of the range cannot be mapped as word `n` of the list says, or nothing. */
function unmappable(c: Call, n: number): string | undefined {
  const [word] = c.words(c.a(3) + n * 4, 1);
  const wrong = g.mislisted(c.w, word, c.space(0), c.a(4), g.rightsFor(c.a(5)));
  if (wrong || c.w.leaves.has(key(c, n))) return wrong ?? 'filled';
  return g.fits(c, m.sure(c.w.pages[m.pairOf(c.w, word ?? 0)[0]]), c.a(5)) ? undefined : 'shared';
}
/** Why a mapping may not get the flags of argument 3, or nothing. */
function unprotectable(c: Call, old: Leaf | undefined): string | undefined {
  if (!old || m.isWriter(old) || !m.isWriter({ flags: c.a(3) })) return undefined;
  const target = m.sure(c.w.pages[old.page]);
  if (target.kind !== user) return 'unheld';
  const wrong = g.misuse(c.space(0), old.slot, target, old.entry, abi.READ | abi.WRITE);
  if (wrong) return wrong === 'absent' ? wrong : 'unheld';
  return g.fits(c, target, abi.MAP_WRITE, 0) ? undefined : 'shared';
}
const firstUnprotectable = (c: Call): string | undefined => unprotectable(c, inRange(c)[0]?.[1]);
const USED = 64 | 128; // accessed, dirty: the hardware's

export const MEMORY = {
  pageAllocate: [
    page(0),
    slot(1),
    g.held(1),
    no('notPermitted', 1, (c) => c.cap(1)?.rights !== abi.ALL_RIGHTS),
    no('notFree', 0, (c) => c.page(0).kind !== free),
    no('quota', 0, (c) => c.room('pages') < 1),
    (c) => {
      const { at, entries } = Object.assign(c.page(0), { kind: user, account: c.me.account });
      entries[0] = { name: m.sure(c.cap(1)).name, rights: abi.ALL_RIGHTS, going: false };
      c.w.memory.fill(0, at * 1024, (at + 1) * 1024);
    },
  ],
  pageFree: [
    owned(0, 1),
    no('busy', 0, (c) => c.leaves(0).length > 0),
    ({ w, page: of }) => e.giveUp(w, of(0), of(0).account),
  ],
  accessAdd: [
    owned(0, 1),
    entry(2),
    g.name(3),
    g.rights(5),
    no('occupied', 2, (c) => c.page(0).entries[c.a(2)] !== undefined),
    (c) => (c.page(0).entries[c.a(2)] = { name: c.name(3), rights: c.a(5), going: false }),
  ],
  accessRemove: [
    owned(0, 1),
    entry(2),
    no('absent', 2, (c) => !c.page(0).entries[c.a(2)]),
    ({ w, a, page: of }) => {
      const more = e.unbind(w, of(0), a(2)) || m.pins(w, of(0).at).includes(a(2));
      // Entry 0 says whose the page is: its mappings go, it stays.
      if (a(2) !== 0) of(0).entries[a(2)] = more ? { name: [], rights: 0, going: true } : undefined;
      return more ? e.step(0) : 0;
    },
  ],
  tableCreate: [
    page(0),
    g.kind(0, root, middle),
    bad(1, (c) => between(c.a(1), 0, isRoot(c) ? 255 : 511)),
    page(2),
    g.kind(2, user),
    slot(3),
    g.held(3),
    g.answering(2, 3),
    spendable(2),
    only(
      (c) => !isRoot(c),
      page(4),
      g.kind(4, user),
      g.answering(4, 3),
      spendable(4),
      page(5),
      g.kind(5, user),
      g.answering(5, 3),
      spendable(5),
      bad(4, (c) => ![c.page(5), c.page(2)].includes(c.page(4))),
      bad(5, (c) => c.page(5) !== c.page(2)),
    ),
    slot(6),
    g.over(6, (c) => c.space(0)),
    no('occupied', 1, (c) => !!m.child(c.w, c.page(0).at, c.a(1))),
    (c) => {
      const { at, env } = c.page(0);
      const ledgers = isRoot(c)
        ? []
        : [c.page(4), c.page(5)].map((one) => e.retype(one, ledger, env).at);
      Object.assign(e.retype(c.page(2), isRoot(c) ? middle : leaf, env, at, c.a(1)), { ledgers });
    },
  ],
  tableDestroy: [
    page(0),
    g.kind(0, leaf, middle),
    slot(1),
    g.over(1, (c) => c.space(0)),
    g.empty(0, (c) => c.page(0).at),
    (c) => (e.unbind(c.w, c.page(0)) ? e.step(0) : e.unmakeTable(c.w, c.page(0))),
  ],
  pageMap: [
    g.place(6),
    page(2),
    g.flags(5),
    g.kind(2, user, published, root, middle, leaf),
    only(
      isUser,
      slot(3),
      entry(4),
      g.usable(
        ({ space, page: of, a }) => g.misuse(space(0), a(3), of(2), a(4), g.rightsFor(a(5))),
        4,
        3,
      ),
    ),
    no('notPermitted', 5, (c) => !isUser(c) && m.isWriter({ flags: c.a(5) })),
    only(
      (c) => !isUser(c) && c.page(2).kind !== published,
      g.over(6, (c) => c.space(2), 2),
    ),
    no('occupied', 1, (c) => c.w.leaves.has(key(c))),
    no('sharing', 2, (c) => isUser(c) && !g.fits(c, c.page(2), c.a(5))),
    (c) => {
      const by = isUser(c) ? { slot: c.a(3), entry: c.a(4) } : { slot: -1, entry: -1 };
      c.w.leaves.set(key(c), { page: c.page(2).at, flags: c.a(5), ...by });
    },
  ],
  pageMapList: [
    g.place(6),
    g.range(abi.MAP_MAX),
    g.flags(5),
    slot(4),
    g.usableList((c) => unmappable(c, 0), 3, 4),
    g.blame((c) => unmappable(c, 0), 'filled occupied 1', 'shared sharing 3'),
    (c) => {
      let n = 0;
      for (; n < c.a(2) && !unmappable(c, n); n++) {
        const [at, by] = m.pairOf(c.w, m.sure(c.words(c.a(3) + n * 4, 1)[0]));
        c.w.leaves.set(key(c, n), { page: at, slot: c.a(4), entry: by, flags: c.a(5) });
      }
      return n;
    },
  ],
  pageUnmap: [
    g.place(3),
    g.range(abi.UNMAP_MAX),
    (c) => {
      const found = inRange(c);
      for (const [at] of found) c.w.leaves.delete(at);
      for (const [, { page: was }] of found) e.settle(c.w, m.sure(c.w.pages[was]));
      return found.length;
    },
  ],
  pageProtect: [
    g.place(4),
    g.range(abi.MAP_MAX),
    g.flags(3),
    no('absent', 1, (c) => inRange(c).length === 0),
    g.blame(firstUnprotectable, 'unheld notPermitted 3', 'absent absent 3', 'shared sharing 3'),
    (c) => {
      for (const [at, old] of inRange(c)) {
        if (unprotectable(c, old)) return at - key(c);
        old.flags = (old.flags & USED) | c.a(3);
      }
      return c.a(2);
    },
  ],
  pageCopy: [
    page(0),
    slot(1),
    entry(2),
    bad(3, (c) => ![undefined, c.page(0)].includes(c.maybePage(3))),
    slot(4),
    entry(5),
    g.kind(0, user),
    g.kind(3, user),
    use(0, 1, 2, abi.WRITE),
    use(3, 4, 5, abi.READ),
    ({ w, page: of }) =>
      w.memory.copyWithin(of(0).at * 1024, of(3).at * 1024, (of(3).at + 1) * 1024),
  ],
  pageLimit: [
    owned(0, 1),
    g.integer(2, -1, abi.LIMIT_MAX),
    g.integer(3, -1, abi.LIMIT_MAX),
    no('busy', 2, (c) => c.a(2) >= 0 && c.leaves(0).length > c.a(2)),
    no('busy', 3, (c) => c.a(3) >= 0 && c.leaves(0).filter(m.isWriter).length > c.a(3)),
    (c) => (c.page(0).limits = [c.a(2), c.a(3)]),
  ],
  pageKeep: [
    owned(0, 1),
    g.integer(2, 0, 1),
    no('notPermitted', 0, (c) => c.page(0).account !== c.me.account),
    no(
      'quota',
      2,
      ({ w, me, a, page: of, payer }) =>
        a(2) > Number(of(0).kept) &&
        w.pages.filter((one) => one.kept && one.account === me.account).length >= payer().minimum,
    ),
    (c) => {
      c.page(0).kept = c.a(2) === 1;
    },
  ],
  pageSweep: [
    page(0),
    g.kind(0, quarantined),
    no('busy', 0, (c) => c.leaves(0).length === 0),
    (c) => e.sweep(c.w, c.page(0)),
  ],
} satisfies g.Rules;
