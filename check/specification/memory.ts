/** The calls on pages, their access entries, tables and mappings. */
import * as abi from '../../kernel/abi.ts';
import { type Call, mayUse, mayUseListed, need, refusal } from './caller.ts';
import * as e from './effects.ts';
import * as m from './model.ts';
import type { Leaf } from './model.ts';

const { free, user, root, middle, leaf, ledger, published, quarantined } = abi.PageKind;
const rightsFor = (flags: number): number => abi.READ | (m.isWriter({ flags }) ? abi.WRITE : 0);
/** Filled entries of a range. */
const inRange = (c: Call, key: number, count: number): [key: number, leaf: Leaf][] =>
  [...c.w.leaves].filter(([at]) => at >= key && at < key + count).sort(([x], [y]) => x - y);

export function pageAllocate(c: Call): void {
  const page = c.page(0);
  c.slot(1);
  const { name, rights } = c.held(1);
  need(rights === abi.ALL_RIGHTS, 'notPermitted', 1);
  c.paidFor(c.me, name, 1);
  need(page.kind === free, 'notFree', 0);
  need(m.room(c.w, c.payer, 'pages') > 0, 'quota', 0);

  Object.assign(page, { kind: user, account: c.payer.at });
  page.entries[0] = { name, rights, going: false };
  c.w.memory.fill(0, page.at * 1024, (page.at + 1) * 1024);
}
export function pageFree(c: Call): void {
  const page = c.owned();
  need(m.mappings(c.w, page.at).length === 0, 'busy', 0);

  e.giveUp(c.w, page, page.account);
}
export function accessAdd(c: Call): void {
  const { entries } = c.owned();
  const [entry, name, rights] = [c.entry(2), c.name(3), c.rights(5)];
  need(!entries[entry], 'occupied', 2);

  entries[entry] = { name, rights, going: false };
}
export function accessRemove(c: Call) {
  const page = c.owned();
  const entry = c.entry(2);
  need(page.entries[entry], 'absent', 2);

  const remains = e.unbind(c.w, page, entry) || m.pins(c.w, page.at).includes(entry);
  // Entry 0 says whose the page is: its mappings go, it stays.
  const left = remains ? { name: [], rights: 0, going: true } : undefined;
  if (entry !== 0) page.entries[entry] = left;
  return e.stepped(remains);
}
export function tableCreate(c: Call): void {
  const parent = c.pageOf(0, root, middle);
  const isRoot = parent.kind === root;
  const index = c.integer(1, 0, isRoot ? 255 : 511);
  const page = c.spendable(2, 3);
  const ledgers = isRoot ? [] : [c.spendable(4, 3), c.spendable(5, 3)];
  const [first, second] = ledgers;
  need(isRoot || (first !== second && first !== page), 'badArgument', 4);
  need(isRoot || second !== page, 'badArgument', 5);
  c.slot(6);
  const env = m.sure(c.w.envs[parent.env]);
  c.over(6, env);
  c.paidFor(page, env.name, 2);
  ledgers.forEach((one, n) => {
    c.paidFor(one, env.name, 4 + n);
  });
  need(!m.child(c.w, parent.at, index), 'occupied', 1);

  e.retype(page, isRoot ? middle : leaf, env.row, parent.at, index);
  page.ledgers = ledgers.map((one) => e.retype(one, ledger, env.row).at);
}
export function tableDestroy(c: Call) {
  const table = c.pageOf(0, leaf, middle);
  c.slot(1);
  c.over(1, m.sure(c.w.envs[table.env]));
  need(m.isEmpty(c.w, table.at), 'busy', 0);

  return e.unmakeTable(c.w, table);
}
export function pageMap(c: Call): void {
  const { space, key } = c.place(6);
  const page = c.page(2);
  const flags = c.flags(5);
  const isView = [root, middle, leaf].some((kind) => kind === page.kind);
  need(isView || page.kind === user || page.kind === published, 'wrongKind', 2);
  let by = { slot: -1, entry: -1 };
  if (page.kind === user) {
    by = { slot: c.slot(3), entry: c.entry(4) };
    mayUse(space, by.slot, page, by.entry, rightsFor(flags), [4, 3]);
  } else need(!m.isWriter({ flags }), 'notPermitted', 5);
  if (isView) c.over(6, m.sure(c.w.envs[page.env]), 2);
  need(!c.w.leaves.has(key), 'occupied', 1);
  need(page.kind !== user || fitsFlags(c, page, flags), 'sharing', 2);

  c.w.leaves.set(key, { page: page.at, flags, ...by });
}
const fitsFlags = (c: Call, page: m.Page, flags: number): boolean =>
  m.fits(c.w, page, 1, Number(m.isWriter({ flags })));

export function pageMapList(c: Call): number {
  const { space, key } = c.place(6);
  const count = c.range(abi.MAP_MAX);
  const [flags, slot] = [c.flags(5), c.slot(4)];

  // As far as pageMap would; the reason is told only if that is nowhere.
  for (let n = 0; n < count; n++) {
    const refused = refusal(() => {
      const word = c.load(c.a(3) + n * 4);
      const { page, entry } = mayUseListed(c.w, word, space, slot, rightsFor(flags), [3, 4]);
      need(!c.w.leaves.has(key + n), 'occupied', 1);
      need(fitsFlags(c, page, flags), 'sharing', 3);
      c.w.leaves.set(key + n, { page: page.at, slot, entry, flags });
    });
    if (refused && n === 0) throw refused;
    if (refused) return n;
  }
  return count;
}
export function pageUnmap(c: Call): number {
  const { key } = c.place(3);
  const found = inRange(c, key, c.range(abi.UNMAP_MAX));

  for (const [at, { page }] of found) {
    c.w.leaves.delete(at);
    e.settle(c.w, m.sure(c.w.pages[page]));
  }
  return found.length;
}
export function pageProtect(c: Call): number {
  const { space, key } = c.place(4);
  const count = c.range(abi.MAP_MAX);
  const flags = c.flags(3);
  const found = inRange(c, key, count);
  need(found.length > 0, 'absent', 1);

  // As far as it is allowed; the reason is told only if that is nowhere.
  for (const [n, [at, old]] of found.entries()) {
    const refused = m.isWriter({ flags }) && !m.isWriter(old) && refusal(() => mayWrite(old));
    if (refused && n === 0) throw refused;
    if (refused) return at - key;
    old.flags = flags;
  }
  return count;

  function mayWrite({ page: at, slot, entry }: Leaf): void {
    const page = m.sure(c.w.pages[at]);
    need(page.kind === user, 'notPermitted', 3);
    mayUse(space, slot, page, entry, abi.READ | abi.WRITE, [3, 3]);
    need(m.fits(c.w, page, 0, 1), 'sharing', 3);
  }
}
export function pageCopy(c: Call): void {
  const [to, toSlot, toEntry] = [c.page(0), c.slot(1), c.entry(2)];
  const from = c.page(3);
  need(from !== to, 'badArgument', 3);
  const [fromSlot, fromEntry] = [c.slot(4), c.entry(5)];
  need(to.kind === user, 'wrongKind', 0);
  need(from.kind === user, 'wrongKind', 3);
  mayUse(c.me, toSlot, to, toEntry, abi.WRITE, [2, 1]);
  mayUse(c.me, fromSlot, from, fromEntry, abi.READ, [5, 4]);

  c.w.memory.copyWithin(to.at * 1024, from.at * 1024, (from.at + 1) * 1024);
}
export function pageLimit(c: Call): void {
  const page = c.owned();
  const [leaves, writers] = [c.integer(2, -1, abi.LIMIT_MAX), c.integer(3, -1, abi.LIMIT_MAX)];
  const now = m.mappings(c.w, page.at).map(([, one]) => one);
  need(leaves < 0 || now.length <= leaves, 'busy', 2);
  need(writers < 0 || now.filter(m.isWriter).length <= writers, 'busy', 3);

  page.limits = [leaves, writers];
}
export function pageKeep(c: Call): void {
  const page = c.owned();
  const keep = c.integer(2, 0, 1) === 1;
  const { at, wanted, minimum } = c.payer;
  need(page.account === at, 'notPermitted', 0);
  const isNew = keep && !page.kept;
  need(!isNew || wanted === 0 || !m.isInRange(c.payer, page), 'busy', 0);
  need(!isNew || m.keptBy(c.w, at) < minimum, 'quota', 2);

  page.kept = keep;
}
export function pageSweep(c: Call) {
  const page = c.pageOf(0, quarantined);
  need(m.mappings(c.w, page.at).length > 0, 'busy', 0);

  return e.sweep(c.w, page);
}
