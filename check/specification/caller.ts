/**
 * A call being made: what its arguments stand for, and by what right. Each function gives what it
 * is asked for, or refuses: the first refusal ends the call, and all of them stand before its first
 * effect. So a call reads as docs/ABI.md does: its refusals in order, and what it does.
 */
import * as abi from '../../kernel/abi.ts';
import * as m from './model.ts';
import type { Account, Capability, Env, Extent, Name, Page, Slice, World } from './model.ts';

export class Refusal extends Error {
  readonly status: abi.StatusName;
  readonly argument: number;
  constructor(status: abi.StatusName, argument: number) {
    super(`${status} ${argument}`);
    [this.status, this.argument] = [status, argument];
  }
}
export function need(holds: unknown, status: abi.StatusName, argument: number): asserts holds {
  if (!holds) throw new Refusal(status, argument);
}
/** What `act` is refused, if it is. */
export function refusal(act: () => unknown): Refusal | undefined {
  try {
    act();
    return undefined;
  } catch (error) {
    if (error instanceof Refusal) return error;
    throw error;
  }
}

export const between = (n: number, low: number, high = Infinity): boolean =>
  Number.isInteger(n) && n >= low && n <= high;
/** The bytes of a name that crosses in two words; nothing if they are not one. */
export function nameOf(a: number, b: number): Name | undefined {
  const bytes = [a >>> 8, a >>> 16, a >>> 24, b, b >>> 8, b >>> 16, b >>> 24].map((x) => x & 255);
  const length = a & 255;
  const isOne = [a, b].every((n) => between(n, -(2 ** 31), 2 ** 32 - 1)) && length <= 7;
  return isOne && bytes.slice(length).every((byte) => byte === 0)
    ? bytes.slice(0, length)
    : undefined;
}
/** What a name with a tag stands for: what stands there now, if the tag is its own, or 0. */
function named<T extends { generation: number }>(all: T[], n: number, bits: number, tags: number) {
  const [thing, tag] = [all[n % 2 ** bits], Math.floor(n / 2 ** bits)];
  const is = thing && between(n, 0, 2 ** (bits + tags) - 1);
  return is && [0, 1 + ((thing.generation >>> 0) % (2 ** tags - 1))].includes(tag)
    ? thing
    : undefined;
}
/** What a word of a list names: a page, and above it the access entry. */
export const listed = ({ pages }: World, word: number): [page: Page | undefined, entry: number] => [
  named(pages, word & 0x0fffffff, abi.PAGE_BITS, abi.PAGE_TAG_BITS),
  word >>> 28,
];

/** A capability dominates the name with the rights. */
function suffices(cap: Capability | undefined, name: Name, rights: number, argument: number): void {
  need(cap, 'noCapability', argument);
  need(m.has(cap.rights, rights) && m.dominates(cap.name, name), 'notPermitted', argument);
}
/** A slot of the environment may use the page by an access entry: which arguments are to blame. */
export function mayUse(
  env: Env,
  slot: number,
  page: Page,
  entry: number,
  rights: number,
  [ofEntry, ofSlot]: readonly [number, number],
): void {
  const granted = page.entries[entry];
  need(granted && !granted.going, 'absent', ofEntry);
  need(m.has(granted.rights, rights), 'notPermitted', ofSlot);
  suffices(env.caps.get(slot), granted.name, rights, ofSlot);
}
/** A word of a list names a user page that the slot may use. */
export function mayUseListed(
  w: World,
  word: number | undefined,
  env: Env,
  slot: number,
  rights: number,
  [ofList, ofSlot]: readonly [number, number],
): { page: Page; entry: number } {
  need(word !== undefined, 'badAddress', ofList);
  const [page, entry] = listed(w, word);
  need(page && entry < abi.ACCESS_ENTRIES, 'badArgument', ofList);
  need(page.kind === abi.PageKind.user, 'wrongKind', ofList);
  mayUse(env, slot, page, entry, rights, [ofList, ofSlot]);
  return { page, entry };
}

export class Call {
  readonly w: World;
  readonly me: Env;
  /** Argument `n`: any number at all. */
  readonly a: (n: number) => number;
  constructor(w: World, me: Env, a: (n: number) => number) {
    [this.w, this.me, this.a] = [w, me, a];
  }
  get payer(): Account {
    return m.accountOf(this.w, this.me);
  }
  load = (va: number): number | undefined => m.load(this.w, this.me, va);

  // ---- arguments --------------------------------------------------------------------------------

  /** Argument `n` is what was found. */
  found<T>(it: T | undefined, n: number): T {
    need(it !== undefined, 'badArgument', n);
    return it;
  }
  integer(n: number, low = -Infinity, high = Infinity): number {
    need(between(this.a(n), low, high), 'badArgument', n);
    return this.a(n);
  }
  /** An integer with an upper bound of which the caller is told apart. */
  count(n: number, low: number, most: number): number {
    need(this.integer(n, low) <= most, 'tooMany', n);
    return this.a(n);
  }
  slot = (n: number): number => this.integer(n, 0, abi.CAP_SLOTS - 1);
  entry = (n: number): number => this.integer(n, 0, abi.ACCESS_ENTRIES - 1);
  index = (n: number): number => this.integer(n, 0, 511);
  rights = (n: number): number => this.integer(n, 1, abi.ALL_RIGHTS);
  word = (n: number): number => this.integer(n, -(2 ** 31), 2 ** 32 - 1) | 0;
  name = (n: number): Name => this.found(nameOf(this.a(n), this.a(n + 1)), n);
  flags(n: number): number {
    const odd = ~(abi.MAP_READ | abi.MAP_WRITE | abi.MAP_SOFT);
    const flags = this.integer(n, 0, 1023);
    need((flags & odd) === 0 && m.has(flags, abi.MAP_READ), 'badArgument', n);
    return flags;
  }
  account(n: number, lowest = 0): Account {
    const account = this.a(n) < lowest ? undefined : this.w.accounts.get(this.a(n));
    return this.found(account, n);
  }
  page = (n: number): Page =>
    this.found(named(this.w.pages, this.a(n), abi.PAGE_BITS, abi.PAGE_TAG_BITS), n);
  extent = (n: number): Extent =>
    this.found(named(this.w.extents, this.a(n), abi.EXTENT_BITS, abi.TAG_BITS), n);
  slice = (n: number): Slice =>
    this.found(named(this.w.slices, this.a(n), abi.SLICE_BITS, abi.TAG_BITS), n);
  env(n: number): Env {
    const env = m.envBy(this.w, this.a(n));
    need(env, 'badEnvironment', n);
    return env;
  }
  alive(n: number): Env {
    const env = m.envBy(this.w, this.a(n));
    need(m.isAlive(env), 'badEnvironment', n);
    return env;
  }
  pageOf(n: number, ...kinds: readonly number[]): Page {
    const page = this.page(n);
    need(kinds.includes(page.kind), 'wrongKind', n);
    return page;
  }
  /** Entries of a table from argument 1 on, as many as argument 2 says. */
  range(most: number): number {
    need(between(this.a(2), 1, 512 - this.a(1)), 'badArgument', 2);
    return this.count(2, 1, most);
  }

  // ---- authority --------------------------------------------------------------------------------

  held(n: number, argument = n): Capability {
    const cap = this.me.caps.get(this.a(n));
    need(cap, 'noCapability', argument);
    return cap;
  }
  /** Slot argument `n` dominates the name with the rights. */
  under(n: number, name: Name, rights: number, argument = n): void {
    suffices(this.me.caps.get(this.a(n)), name, rights, argument);
  }
  /** The caller is the environment, or slot argument `n` dominates its guard with WRITE. */
  over(n: number, env: Env, argument = n): void {
    if (env !== this.me) this.under(n, env.name, abi.WRITE, argument);
  }
  /** Slot argument `n` answers for a user page. */
  answers(n: number, page: Page): void {
    this.under(n, page.entries[0]?.name ?? [], abi.GRANT);
  }
  /** Argument 0 is a user page that slot argument 1 answers for. */
  owned(): Page {
    const page = this.pageOf(0, abi.PageKind.user);
    this.slot(1);
    this.answers(1, page);
    return page;
  }
  /** Arguments 0 and 1 are an entry of a leaf table, in the power of slot argument `n`. */
  place(n: number): { space: Env; key: number } {
    const table = this.pageOf(0, abi.PageKind.leaf);
    const index = this.index(1);
    this.slot(n);
    const space = m.sure(this.w.envs[table.env]);
    this.over(n, space);
    return { space, key: table.at * 512 + index };
  }
  /** Argument `n` is a page that slot argument `by` answers for, and that may become a table. */
  spendable(n: number, by: number): Page {
    const page = this.pageOf(n, abi.PageKind.user);
    this.slot(by);
    this.answers(by, page);
    const account = m.accountOf(this.w, page);
    const isShared = page.entries.slice(1).some((entry) => entry);
    const isWanted = account.wanted > 0 && m.isInRange(account, page);
    need(!m.isReached(this.w, page.at) && !isShared && !isWanted, 'busy', n);
    return page;
  }
  /** Whoever pays for it can take back by name what bears this one. */
  paidFor(at: { account: number }, name: Name, argument: number): void {
    need(m.dominates(m.accountOf(this.w, at).name, name), 'notPermitted', argument);
  }
}
