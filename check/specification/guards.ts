/**
 * How calls are described: guards in the order of docs/ABI.md, and last the effect. A call is
 * refused
 * by the first guard that refuses, with its status and the argument that it blames. Here is what
 * many calls share.
 */
import * as abi from '../../kernel/abi.ts';
import * as m from './model.ts';
import type { Call, Env, Name, Page, World } from './model.ts';

type Of<T> = (c: Call) => T;
export type Guard = { status: abi.StatusName; argument: number; refuses: Of<boolean> };
export type Guards = Guard | readonly Guards[];
/** Gives the value, a whole answer, or `later` if it is told in time; anything else is 0. */
export type Effect = Of<unknown>;
export type Rules = Readonly<Record<string, readonly (Guards | Effect)[]>>;

export const no = (status: abi.StatusName, argument: number, refuses: Of<boolean>): Guard => ({
  status,
  argument,
  refuses,
});
export const flat = (guards: Guards): Guard[] =>
  'status' in guards ? [guards] : guards.flatMap((one) => flat(one));
/** These guards do not apply otherwise. */
export const only = (so: Of<boolean>, ...guards: Guards[]): Guard[] =>
  flat(guards).map((one) => ({ ...one, refuses: (c) => so(c) && one.refuses(c) }));
/** Guards for the ways in which something can be at fault: `fault status argument`. */
export const blame = (fault: Of<string | undefined>, ...rows: string[]): Guard[] =>
  rows.map((row) => {
    const [is, status = '', argument] = row.split(' ');
    return no(status as abi.StatusName, Number(argument), (c) => fault(c) === is);
  });

// ---- arguments that are in range ----------------------------------------------------------------

export const between = (n: number, low: number, high = Infinity): boolean =>
  Number.isInteger(n) && n >= low && n <= high;
/** Argument `n` is none, unless something is found, or true. */
export const bad = (n: number, is: Of<unknown>): Guard => no('badArgument', n, (c) => !is(c));
export const integer = (n: number, low = -Infinity, high = Infinity): Guard =>
  bad(n, (c) => between(c.a(n), low, high));
export const slot = (n: number): Guard => integer(n, 0, abi.CAP_SLOTS - 1);
export const entry = (n: number): Guard => integer(n, 0, abi.ACCESS_ENTRIES - 1);
export const index = (n: number): Guard => integer(n, 0, 511);
export const rights = (n: number): Guard => integer(n, 1, abi.ALL_RIGHTS);
export const word = (n: number): Guard => bad(n, (c) => m.isWord(c.a(n)));
export const name = (n: number): Guard => bad(n, (c) => m.nameOf(c.a(n), c.a(n + 1)));
export const page = (n: number): Guard => bad(n, (c) => c.maybePage(n));
export const extent = (n: number): Guard => bad(n, (c) => c.maybeExtent(n));
/** An account, from `lowest` on, and not that of argument `but`. */
export const account = (n: number, lowest = 0, but = -1): Guard =>
  bad(n, ({ w, a }) => w.accounts.has(a(n)) && a(n) >= lowest && (but < 0 || a(n) !== a(but)));
const ODD = ~(abi.MAP_READ | abi.MAP_WRITE | abi.MAP_SOFT);
export const flags = (n: number): Guard =>
  bad(n, ({ a }) => between(a(n), 0, 1023) && (a(n) & ODD) === 0 && (a(n) & abi.MAP_READ) !== 0);
export const env = (n: number): Guard => no('badEnvironment', n, (c) => !c.maybeEnv(n));
export const alive = (n: number): Guard =>
  no('badEnvironment', n, (c) => !m.isAlive(c.maybeEnv(n)));
export const kind = (n: number, ...kinds: readonly number[]): Guard =>
  no('wrongKind', n, (c) => !kinds.includes(c.page(n).kind));

// ---- authority ----------------------------------------------------------------------------------

export const held = (n: number, blamed = n): Guard => no('noCapability', blamed, (c) => !c.cap(n));
/** Slot argument `n` dominates the name with the rights. */
export const under = (n: number, of: Of<Name>, need: number | Of<number>, blamed = n): Guard =>
  no(
    'notPermitted',
    blamed,
    (c) => !m.holds(c.cap(n), of(c), typeof need === 'number' ? need : need(c)),
  );
/** The environment is the caller, or slot argument `n` dominates its guard with WRITE. */
export const over = (n: number, of: Of<Env>, blamed = n): Guard[] =>
  only(
    (c) => of(c) !== c.me,
    held(n, blamed),
    under(n, (c) => of(c).name, abi.WRITE, blamed),
  );
/** Slot argument `s` answers for page argument `p`, a user page. */
export const answering = (p: number, s: number): Guard =>
  under(s, (c) => c.page(p).entries[0]?.name ?? [], abi.GRANT);
export const owned = (p: number, s: number): Guards => [
  page(p),
  kind(p, abi.PageKind.user),
  slot(s),
  held(s),
  answering(p, s),
];
/** A page that becomes a table has no mappings, no requests in flight and no further entries. */
export const spendable = (n: number): Guard =>
  no(
    'busy',
    n,
    ({ w, page: of }) =>
      m.isReached(w, of(n).at) ||
      of(n)
        .entries.slice(1)
        .some((one) => one),
  );
/** A table has no entries. */
export const empty = (n: number, of: Of<number>): Guard =>
  no('busy', n, (c) => m.filled(c.w, of(c)).length > 0);
/** Arguments 0 and 1 are an entry of a leaf table, under the authority of slot argument `s`. */
export const place = (s: number): Guards => [
  page(0),
  kind(0, abi.PageKind.leaf),
  index(1),
  slot(s),
  over(s, (c) => c.space(0)),
];
/** As many entries from argument 1 on as argument 2 says are of one table, and few enough. */
export const range = (most: number): Guards => [
  bad(2, ({ a }) => between(a(2), 1, 512 - a(1))),
  no('tooMany', 2, ({ a }) => a(2) > most),
];

// ---- pages that are used by an access entry -----------------------------------------------------

/** Why the slot of an environment may not use a page by an access entry, or nothing. */
export function misuse({ caps }: Env, by: number, { entries }: Page, at: number, need: number) {
  const granted = entries[at];
  if (!granted || granted.going) return 'absent';
  if ((granted.rights & need) !== need) return 'ungranted';
  return !caps.has(by)
    ? 'slotless'
    : m.holds(caps.get(by), granted.name, need)
      ? undefined
      : 'unheld';
}
/** The access entry is there and grants; the slot is filled, and dominates it with the rights. */
export const usable = (of: Of<string | undefined>, e: number, s: number): Guard[] =>
  blame(
    of,
    `absent absent ${e}`,
    `ungranted notPermitted ${s}`,
    `slotless noCapability ${s}`,
    `unheld notPermitted ${s}`,
  );
/** Why a word of a list names no page that the slot may use, or nothing. */
export function mislisted(
  w: World,
  listed: number | undefined,
  env: Env,
  by: number,
  need: number,
) {
  if (listed === undefined) return 'unread';
  const [at, entryAt] = m.pairOf(w, listed);
  const target = w.pages[at];
  if (!target || entryAt >= abi.ACCESS_ENTRIES) return 'unnamed';
  return target.kind === abi.PageKind.user ? misuse(env, by, target, entryAt, need) : 'kind';
}
export const usableList = (of: Of<string | undefined>, list: number, s: number): Guard[] => [
  ...blame(
    of,
    `unread badAddress ${list}`,
    `unnamed badArgument ${list}`,
    `kind wrongKind ${list}`,
  ),
  ...usable(of, list, s),
];
export const rightsFor = (mapFlags: number): number =>
  abi.READ | (m.isWriter({ flags: mapFlags }) ? abi.WRITE : 0);
/** Whether a page's limits admit one more mapping with these flags; or one more writer only. */
export function fits(
  { w }: Call,
  { at, limits: [most, mostWriters] }: Page,
  mapFlags: number,
  more = 1,
): boolean {
  const now = m.mappings(w, at).map(([, leaf]) => leaf);
  const writers = now.filter(m.isWriter).length + Number(m.isWriter({ flags: mapFlags }));
  return (most < 0 || now.length + more <= most) && (mostWriters < 0 || writers <= mostWriters);
}
