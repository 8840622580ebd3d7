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
import type { Invariant } from './facts.ts';
import type { Raw } from './raw.ts';

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

/** Whether the account's name dominates another. */
const covers = (raw: Raw, account: number, name: Name): boolean =>
  dominates(raw.account(account, Account.nameA), raw.account(account, Account.nameB), name);

/** The invariants of the books. */
export const BOOKS: readonly Invariant[] = [
  {
    id: 'AVL-03',
    sentence: 'An allotment is a guarantee: limits add up to what there is, and nobody uses more.',
    check: ({ raw }, say) => {
      const accounts = accountsOf(raw);
      stock(raw).forEach((all, resource) => {
        const sum = accounts.reduce((n, account) => n + raw.limit(account, resource), 0);
        say(sum === all, () => `limits of resource ${resource} add up to ${sum}, not to ${all}`);
        for (const account of accounts) {
          const [used, limit] = [raw.used(account, resource), raw.limit(account, resource)];
          say(used <= limit, () => `account ${account} uses ${used} of ${resource}, of ${limit}`);
        }
      });
    },
  },
  {
    id: 'KM-02',
    sentence: 'What an account is charged is what stands in the tables of the resources, no more.',
    check: ({ raw }, say) => {
      for (const account of accountsOf(raw)) {
        usedBy(raw, account).forEach((count, resource) => {
          const used = raw.used(account, resource);
          say(used === count, () => `account ${account}: ${used} of ${resource}, uses ${count}`);
        });
      }
    },
  },
  {
    id: 'ACC-01',
    sentence: 'Accounts form a tree, and count their children and who owes them pages.',
    check: ({ raw }, say) => {
      const accounts = accountsOf(raw);
      for (const account of accounts) {
        const at = (word: number): number => raw.account(account, word);
        const parent = at(Account.parent);
        const children = accounts.filter(
          (n) => n > 0 && raw.account(n, Account.parent) === account,
        );
        const debtors = accounts.filter(
          (n) => raw.account(n, Account.wanted) > 0 && raw.account(n, Account.taker) === account,
        );
        say(account === 0 || accounts.includes(parent), () => `${account} is under ${parent}`);
        say(children.length === at(Account.children), () => `account ${account}: its children`);
        say(debtors.length === at(Account.awaits), () => `account ${account}: who owes it`);
        say(at(Account.wanted) >= 0, () => `account ${account}: less than nothing is wanted`);
      }
    },
  },
  {
    id: 'ACC-02',
    sentence: 'Whoever allotted a thing can take it back by its name, or its environment’s.',
    check: ({ raw }, say) => {
      for (const page of indices(raw.pages)) {
        const account = raw.accountOf(page);
        const user = raw.kind(page) === PageKind.user;
        const named = !user || covers(raw, account, raw.access(page, 0));
        say(named, () => `page ${page} is stray`);
        const env = raw.envOf(page);
        const fits = env === 0 || covers(raw, account, guard(raw, env));
        say(fits, () => `table ${page} of ${env} is stray`);
      }
      for (const row of indices(raw.info(Info.extents))) {
        if (raw.extent(row, Extent.valid) === 0) continue;
        const name = { a: raw.extent(row, Extent.nameA), b: raw.extent(row, Extent.nameB) };
        const fits = covers(raw, raw.extent(row, Extent.account), name);
        say(fits, () => `extent ${row} is stray`);
      }
      for (const row of takenRows(raw)) {
        const fits = covers(raw, raw.env(row, Env.account), guard(raw, row));
        say(fits, () => `environment ${row} is stray`);
      }
    },
  },
  {
    id: 'ACC-03',
    sentence: 'An account keeps as many pages as it counts, and no more than its minimum.',
    check: ({ raw }, say) => {
      for (const account of accountsOf(raw)) {
        const kept = pagesOf(raw, account).filter((page) => raw.kept(page)).length;
        const counted = raw.account(account, Account.kept);
        say(kept === counted, () => `account ${account} keeps ${kept}, not ${counted}`);
        const minimum = raw.account(account, Account.minimum);
        say(kept <= minimum, () => `account ${account} keeps ${kept}, more than ${minimum}`);
      }
      for (const page of indices(raw.pages)) {
        const nobody = raw.accountOf(page) === 0 && raw.kept(page);
        say(!nobody, () => `page ${page} is nobody’s and kept`);
      }
    },
  },
  {
    id: 'ACC-04',
    sentence:
      'Who pays for a page or an environment is there, and the kernel’s own pages cost nobody.',
    check: ({ raw }, say) => {
      const accounts = accountsOf(raw);
      for (const page of indices(raw.pages)) {
        const [kind, account] = [raw.kind(page), raw.accountOf(page)];
        const own = KERNELS.includes(kind) === (account === 0);
        say(own, () => `page ${page} of kind ${kind}: ${account} pays`);
        const there = account === 0 || accounts.includes(account);
        say(there, () => `page ${page}: no account ${account}`);
      }
      for (const row of takenRows(raw)) {
        const account = raw.env(row, Env.account);
        say(accounts.includes(account), () => `environment ${row}: no account ${account}`);
        say(envIndex(raw.id(row)) === row, () => `environment ${row}: its id`);
      }
    },
  },
];

const takenRows = (raw: Raw): number[] =>
  indices(raw.rows).filter((row) => row > 0 && raw.stateOf(row) !== EnvState.free);
