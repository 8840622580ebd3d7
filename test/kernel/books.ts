/**
 * The books: what the accounts say they were allotted and use, counted once more from the tables of
 * the resources themselves. Limits add up to what the machine has, so an allotment is a guarantee.
 */
import {
  Account,
  ACCOUNTS,
  Env,
  envIndex,
  EnvState,
  Extent,
  Info,
  type Name,
  PageKind,
  Queued,
  Resource,
  RESOURCES,
} from '../../kernel/abi.ts';
import { DISK_TAGS, REQUESTS_MAX } from '../../kernel/exokernel/state.ts';
import type { Raw } from '../../check/invariants/raw.ts';

const indices = (count: number): number[] => Array.from({ length: count }, (_, n) => n);

export const accountsOf = (raw: Raw): number[] =>
  indices(ACCOUNTS).filter((n) => raw.account(n, Account.valid) !== 0);

const KERNELS: readonly number[] = [PageKind.free, PageKind.kernel, PageKind.published];

/** Pages charged to an account. */
export const pagesOf = (raw: Raw, account: number): number[] =>
  indices(raw.pages).filter(
    (page) => !KERNELS.includes(raw.kind(page)) && raw.accountOf(page) === account,
  );

/** How much of each resource is charged to `account`. */
export function usedBy(raw: Raw, account: number): number[] {
  const used = new Array<number>(RESOURCES).fill(0);
  used[Resource.pages] = pagesOf(raw, account).length;
  used[Resource.slices] = indices(raw.info(Info.slices)).filter(
    (n) => raw.info(Info.sliceVector + n) !== 0 && raw.info(Info.sliceAccount + n) === account,
  ).length;
  used[Resource.environments] = indices(raw.rows).filter(
    (row) => row > 0 && raw.stateOf(row) !== EnvState.free && raw.env(row, Env.account) === account,
  ).length;
  used[Resource.extents] = indices(raw.info(Info.extents)).filter(
    (row) => raw.extent(row, Extent.valid) !== 0 && raw.extent(row, Extent.account) === account,
  ).length;
  used[Resource.requests] = indices(DISK_TAGS).filter(
    (tag) => raw.queued(tag, Queued.env) > 0 && raw.queued(tag, Queued.account) === account,
  ).length;
  return used;
}

/** What there is of each resource. */
export function stock(raw: Raw): number[] {
  const all = new Array<number>(RESOURCES).fill(0);
  all[Resource.pages] = raw.pages - raw.state.end;
  all[Resource.slices] = raw.info(Info.slices);
  all[Resource.environments] = raw.rows - 1;
  all[Resource.extents] = raw.info(Info.extents);
  all[Resource.requests] = REQUESTS_MAX;
  return all;
}

const guard = (raw: Raw, row: number): Name => ({
  a: raw.env(row, Env.nameA),
  b: raw.env(row, Env.nameB),
});

/** The order on names the slow way: byte by byte. */
function dominates(a: number, b: number, name: Name): boolean {
  const bytes = (x: number, y: number): number[] =>
    [x >>> 8, x >>> 16, x >>> 24, y, y >>> 8, y >>> 16, y >>> 24].map((n) => n & 0xff);
  const [own, other] = [bytes(a, b), bytes(name.a, name.b)];
  const length = a & 0xff;
  return length <= (name.a & 0xff) && own.slice(0, length).every((byte, n) => other[n] === byte);
}

/** All that is wrong with the books, nothing in a sound machine. */
export function books(raw: Raw): string[] {
  const wrong: string[] = [];
  const say = (holds: boolean, words: string): void => {
    if (!holds) wrong.push(`ACC: ${words}`);
  };
  const accounts = accountsOf(raw);
  stock(raw).forEach((all, resource) => {
    const sum = accounts.reduce((n, account) => n + raw.limit(account, resource), 0);
    say(sum === all, `limits of resource ${resource} add up to ${sum}, not to ${all}`);
  });
  for (const account of accounts) {
    const at = (word: number): number => raw.account(account, word);
    usedBy(raw, account).forEach((count, resource) => {
      const [used, limit] = [raw.used(account, resource), raw.limit(account, resource)];
      say(used === count, `account ${account} is charged ${used} of ${resource}, uses ${count}`);
      say(used <= limit, `account ${account} uses ${used} of ${resource}, and may ${limit}`);
    });
    const kept = pagesOf(raw, account).filter((page) => raw.kept(page)).length;
    say(kept === at(Account.kept), `account ${account} keeps ${kept}, not ${at(Account.kept)}`);
    const minimum = at(Account.minimum);
    say(kept <= minimum, `account ${account} keeps ${kept} pages, more than ${minimum}`);
    const children = accounts.filter((n) => n > 0 && raw.account(n, Account.parent) === account);
    say(children.length === at(Account.children), `account ${account}: count of children`);
    const debtors = accounts.filter(
      (n) => raw.account(n, Account.wanted) > 0 && raw.account(n, Account.taker) === account,
    );
    say(debtors.length === at(Account.awaits), `account ${account}: count of revocations`);
    say(at(Account.wanted) >= 0, `account ${account}: less than nothing is wanted`);
    const parent = at(Account.parent);
    say(account === 0 || accounts.includes(parent), `account ${account} is under ${parent}`);
  }
  const covers = (account: number, name: Name): boolean =>
    dominates(raw.account(account, Account.nameA), raw.account(account, Account.nameB), name);
  for (const page of indices(raw.pages)) {
    const is = raw.kind(page);
    const account = raw.accountOf(page);
    say(KERNELS.includes(is) === (account === 0), `page ${page} of kind ${is}: ${account} pays`);
    say(account === 0 || accounts.includes(account), `page ${page}: no account ${account}`);
    say(account !== 0 || !raw.kept(page), `page ${page} is nobody's and kept`);
    // Whoever allotted it can have it back: by its name, or as a table by its environment's.
    if (is === PageKind.user) say(covers(account, raw.access(page, 0)), `page ${page} is stray`);
    const env = raw.envOf(page);
    if (env > 0) say(covers(account, guard(raw, env)), `table ${page} of ${env} is stray`);
  }
  for (const row of indices(raw.info(Info.extents))) {
    if (raw.extent(row, Extent.valid) === 0) continue;
    const name = { a: raw.extent(row, Extent.nameA), b: raw.extent(row, Extent.nameB) };
    say(covers(raw.extent(row, Extent.account), name), `extent ${row} is stray`);
  }
  for (const row of indices(raw.rows)) {
    if (row === 0 || raw.stateOf(row) === EnvState.free) continue;
    const account = raw.env(row, Env.account);
    say(accounts.includes(account), `environment ${row}: no account ${account}`);
    say(envIndex(raw.id(row)) === row, `environment ${row}: its id`);
    say(covers(account, guard(raw, row)), `environment ${row} is stray`);
  }
  return wrong;
}
