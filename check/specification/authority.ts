/** The calls on capabilities, accounts, extents and the disk, and revocation. */
import * as abi from '../../kernel/abi.ts';
import * as e from './effects.ts';
import * as m from './model.ts';
import type { Account, Call, Page, World } from './model.ts';
import * as g from './guards.ts';
import { account, alive, bad, between, env, extent, held, integer, name } from './guards.ts';
import { no, only, over, page, rights, slot, under } from './guards.ts';

const BOTH = abi.READ | abi.WRITE;
const nameOf0 = (c: Call): m.Name => c.account(0).name;
/** Pages of the allotment that are neither guaranteed nor spoken for. */
const spare = ({ limits, wanted, minimum }: Account): number => (limits[0] ?? 0) - wanted - minimum;
const RESOURCES = Object.keys(abi.Resource) as m.ResourceName[];
/** Whether slot argument 1 of environment argument 0 justifies a mapping. */
const isUsed = ({ w, a, env: of }: Call): boolean =>
  [...w.leaves].some(([key, by]) => by.slot === a(1) && w.pages[key >>> 9]?.env === of(0).row);

// ---- requests -----------------------------------------------------------------------------------

const SAVES = [56, 57, 58, 59, 60, 61, 62]; // rows that are kept for saving
/** Queues a request in the first free row from `from` on. */
function submit(w: World, from: number, request: m.Request): void {
  let row = from;
  while (w.requests.has(row)) row++;
  w.requests.set(row, request);
  w.log.push(['disk', row, request.flags, request.block, ...request.pages.map(([at]) => at)]);
}
/** The request in a row is over. */
export function complete(w: World, row: number, worked: boolean): void {
  const { env: id, account: at, block, pages } = m.sure(w.requests.get(row));
  w.requests.delete(row);
  for (const [one] of pages) e.settle(w, m.sure(w.pages[one]));
  const { ring } = w.accounts.get(at) ?? m.newAccount(at, 0, [], 0);
  // A loss that could not be saved is not said to have been.
  for (const [n, [one, to]] of ring)
    if (id === -1 && !worked && to === block + 1) ring.set(n, [one, 0]);
  const asker = m.envBy(w, id);
  if (asker) Object.assign(asker, { done: asker.done + 1, failed: asker.failed + Number(!worked) });
  if (m.isAlive(asker)) e.post(w, asker);
}
/** Where an account's next loss is to be saved, if that place still stands. */
function nextSave(w: World, { saves, losses }: Account): [row: number, block: number] | undefined {
  const [row = -1, generation, block = 0] = saves.get(losses % abi.LOSSES) ?? [];
  const there = w.extents[row];
  return there?.valid && there.generation === generation ? [row, there.first + block] : undefined;
}
/** Queues the saving of a page. The block of the disk + 1, or 0. */
function save(w: World, from: Account, { at }: Page): number {
  const [row = 0, block = -1] = nextSave(w, from) ?? [];
  const asked = { env: -1, account: from.at, extent: row, block, flags: abi.DISK_WRITE };
  if (block >= 0 && from.saves.delete(from.losses % abi.LOSSES))
    submit(w, 56, { ...asked, pages: [[at, -1]] });
  return block + 1;
}
/** Extent argument `n` is there, and slot argument `s` dominates its guard. */
const guarded = (n: number, s: number, need: number | ((c: Call) => number)): g.Guards => [
  no('absent', n, (c) => !c.extent(n).valid),
  held(s),
  under(s, (c) => c.extent(n).name, need),
];
const rowOf = ({ w, extent: of }: Call, n = 0): number => w.extents.indexOf(of(n));
const idle = (n: number): g.Guard =>
  no('busy', n, (c) => [...c.w.requests.values()].some((one) => one.extent === rowOf(c, n)));
const has = (c: Call, flag: number): boolean => (c.a(6) & flag) !== 0;
const most = (c: Call): number => (has(c, abi.DISK_FLUSH) ? 0 : abi.DISK_BLOCKS_MAX);
/** Why the list names no pages for the transfer, or nothing. */
const unfit = (c: Call): string | undefined =>
  c
    .words(c.a(4), c.a(3))
    .map((word) =>
      g.mislisted(c.w, word, c.me, c.a(5), has(c, abi.DISK_WRITE) ? abi.READ : abi.WRITE),
    )
    .find((one) => one);

export const AUTHORITY = {
  capForge: [
    env(0),
    slot(1),
    slot(2),
    name(3),
    rights(5),
    over(2, (c) => c.env(0), 0),
    held(2),
    under(
      2,
      (c) => c.name(3),
      (c) => c.a(5) | abi.GRANT,
    ),
    no('occupied', 1, (c) => c.env(0).caps.has(c.a(1))),
    (c) => c.env(0).caps.set(c.a(1), { name: c.name(3), rights: c.a(5) }),
  ],
  capDrop: [
    env(0),
    slot(1),
    slot(2),
    over(2, (c) => c.env(0), 0),
    no('noCapability', 1, (c) => !c.env(0).caps.has(c.a(1))),
    no('busy', 1, isUsed),
    ({ a, env: of }) => {
      of(0).caps.delete(a(1));
      if (of(0).window?.slot === a(1)) of(0).window = undefined;
    },
  ],
  capOffer: [
    env(0),
    slot(1),
    name(2),
    rights(4),
    held(1),
    under(
      1,
      (c) => c.name(2),
      (c) => c.a(4) | abi.GRANT,
    ),
    (c) => (c.me.offer = { to: c.a(0), name: c.name(2), rights: c.a(4) }),
  ],
  capAcquire: [
    alive(0),
    slot(1),
    no('absent', 0, (c) => c.env(0).offer?.to !== m.idOf(c.me)),
    no('occupied', 1, (c) => c.me.caps.has(c.a(1))),
    (c) => {
      const { name: of, rights: may } = m.sure(c.env(0).offer);
      c.me.caps.set(c.a(1), { name: of, rights: may });
      c.env(0).offer = undefined;
    },
  ],
  accountCreate: [
    integer(0, 1, abi.ACCOUNTS - 1),
    account(1),
    slot(2),
    name(3),
    bad(5, (c) => between(c.a(5), 0, c.w.pages.length)),
    no('notFree', 0, (c) => c.w.accounts.has(c.a(0))),
    held(2),
    under(2, (c) => c.account(1).name, abi.ALL_RIGHTS),
    no(
      'notPermitted',
      3,
      (c) =>
        !m.dominates(c.account(1).name, c.name(3)) || m.dominates(c.name(3), c.account(1).name),
    ),
    ({ w, a, name: of, account: parent }) => {
      const opened = m.newAccount(a(0), a(1), of(3), a(5));
      if (a(1) !== 0) opened.tenant = parent(1).tenant;
      w.accounts.set(a(0), opened);
    },
  ],
  accountMove: [
    account(0),
    account(1, 0, 0),
    slot(2),
    integer(3, 0, 4),
    integer(4, 1),
    held(2),
    under(2, nameOf0, abi.REVOKE),
    no(
      'quota',
      4,
      ({ w, a, account: from }) =>
        a(4) > m.room(w, from(0), RESOURCES[a(3)] ?? 'pages') ||
        (a(3) === abi.Resource.pages && a(4) > spare(from(0))),
    ),
    (c) => e.allot(c.account(0), c.account(1), c.a(3), c.a(4)),
  ],
  accountClose: [
    account(0, 1),
    slot(1),
    held(1),
    under(1, nameOf0, abi.ALL_RIGHTS),
    no(
      'busy',
      0,
      ({ w, a }) =>
        Object.values(m.used(w, a(0))).some((used) => used > 0) ||
        [...w.accounts.values()].some(
          ({ at, parent, wanted, taker }) =>
            parent === a(0) || (wanted > 0 && [at, taker].includes(a(0))),
        ),
    ),
    ({ w, a, account: closed }) => {
      const parent = m.sure(w.accounts.get(closed(0).parent));
      closed(0).limits.forEach((limit, n) => e.allot(closed(0), parent, n, limit));
      w.accounts.delete(a(0));
    },
  ],
  revoke: [
    account(0, 1),
    slot(1),
    account(2, 0, 0),
    page(3),
    bad(4, (c) => between(c.a(4), 1, c.w.pages.length - c.page(3).at)),
    integer(5, 0),
    no('tooMany', 5, (c) => c.a(5) > abi.LOSSES),
    integer(6, 10_000, 2 ** 31 - 1),
    held(1),
    under(1, nameOf0, abi.REVOKE),
    no('busy', 0, (c) => c.a(5) > 0 && c.account(0).wanted > 0),
    no('quota', 5, (c) => c.a(5) > Math.min(m.used(c.w, c.a(0)).pages, spare(c.account(0)))),
    ({ w, a, page: of, account: from }) => {
      from(0).wanted = a(5);
      if (a(5) === 0) return;
      Object.assign(from(0), { taker: a(2), first: of(3).at, pages: a(4), deadline: w.now + a(6) });
      e.announce(w, m.envBy(w, from(0).holder), abi.Upcall.revoke);
    },
  ],
  repossess: [
    account(0, 1),
    slot(1),
    held(1),
    under(1, nameOf0, abi.REVOKE),
    no('absent', 0, (c) => c.account(0).wanted === 0),
    no('notReady', 0, (c) => c.w.now < c.account(0).deadline),
    page(2),
    g.kind(2, abi.PageKind.user),
    no(
      'notPermitted',
      2,
      ({ a, account: from, page: of }) =>
        of(2).kept || of(2).account !== a(0) || !e.isAskedFor(from(0), of(2)),
    ),
    no(
      'full',
      2,
      ({ w, account: from }) => !!nextSave(w, from(0)) && SAVES.every((row) => w.requests.has(row)),
    ),
    ({ w, account: of, page: taken }) => {
      const [from, block] = [of(0), save(w, of(0), taken(2))];
      e.handOver(w, from);
      e.giveUp(w, taken(2), from.taker);
      from.ring.set(from.losses++ % abi.LOSSES, [taken(2).at, block]);
      e.announce(w, m.envBy(w, from.holder), abi.Upcall.repossessed);
      return e.sweep(w, taken(2), block);
    },
  ],
  diskRequest: [
    extent(0),
    slot(1),
    integer(6, 0, 7),
    integer(2, 0),
    bad(3, (c) => between(c.a(3), Math.min(1, most(c)))),
    no('tooMany', 3, (c) => c.a(3) > most(c)),
    guarded(0, 1, (c) => (has(c, abi.DISK_WRITE | abi.DISK_FLUSH) ? BOTH : abi.READ)),
    bad(2, (c) => c.a(2) + c.a(3) <= c.extent(0).count),
    only((c) => !has(c, abi.DISK_FLUSH), slot(5), g.usableList(unfit, 4, 5)),
    no('full', 0, (c) => c.room('requests') < 1),
    (c) => {
      const pages = c.words(c.a(4), c.a(3)).map((word) => m.pairOf(c.w, m.sure(word)));
      const { first: block } = c.extent(0);
      const mine = { env: m.idOf(c.me), account: c.me.account, extent: rowOf(c), flags: c.a(6) };
      submit(c.w, 0, { ...mine, block: block + c.a(2), pages });
      return ++c.me.submitted;
    },
  ],
  extentSplit: [
    extent(0),
    slot(1),
    extent(2),
    integer(3, 1),
    name(4),
    guarded(0, 1, abi.ALL_RIGHTS),
    under(1, (c) => c.name(4), abi.ALL_RIGHTS, 4),
    no('notFree', 2, (c) => c.extent(2).valid),
    idle(0),
    no('tooMany', 3, (c) => c.a(3) >= c.extent(0).count),
    no('quota', 2, (c) => c.room('extents') < 1),
    ({ me, a, name: of, extent: one }) => {
      const { first, count, generation } = one(0);
      Object.assign(one(0), { count: count - a(3), generation: generation + 1 });
      const made = { first: first + count - a(3), count: a(3), name: of(4), account: me.account };
      return Object.assign(one(2), made, { valid: true, generation: one(2).generation + 1 }).first;
    },
  ],
  extentJoin: [
    extent(0),
    slot(1),
    extent(2),
    guarded(0, 1, abi.ALL_RIGHTS),
    no('absent', 2, (c) => !c.extent(2).valid),
    under(1, (c) => c.extent(2).name, abi.ALL_RIGHTS, 2),
    bad(2, ({ extent: of }) => of(2).first === of(0).first + of(0).count),
    idle(0),
    idle(2),
    ({ extent: of }) => {
      const count = of(0).count + of(2).count;
      Object.assign(of(2), m.newExtent(of(2).generation + 1));
      return Object.assign(of(0), { count, generation: of(0).generation + 1 }).count;
    },
  ],
  saveBlock: [
    integer(0, 0, abi.LOSSES - 1),
    bad(1, (c) => c.a(1) === -1 || c.maybeExtent(1)),
    slot(2),
    integer(3, 0),
    held(2),
    under(2, (c) => c.payer().name, BOTH),
    only(
      (c) => c.a(1) !== -1,
      no('absent', 1, (c) => !c.extent(1).valid),
      no('notPermitted', 1, (c) => !m.dominates(c.payer().name, c.extent(1).name)),
      bad(3, (c) => c.a(3) < c.extent(1).count),
    ),
    (c) => {
      c.payer().saves.delete(c.a(0));
      if (c.a(1) !== -1) c.payer().saves.set(c.a(0), [rowOf(c, 1), c.extent(1).generation, c.a(3)]);
    },
  ],
} satisfies g.Rules;
