/**
 * Operands bound late: a token says what kind of thing is meant and which of them, and is looked up
 * in the world when its step is performed, as the caller sees it. So a program keeps its meaning
 * while steps are taken out of it. A token that stands for nothing at the moment gives nothing, and
 * its step is left out.
 *
 *     idle~3         the fourth of the caller's pages that nobody uses, round and round
 *     own~0+tag      the same with the tag of its generation; +stale: with another one
 *     by, its        the slot, and the access entry, by which the last page can be used
 *     over           the slot that has power over the last environment, extent or account
 *     name:1.17      a name, in two words
 *     42, -1, NaN    themselves
 */
import * as abi from '../../kernel/abi.ts';
import type { Account, Env, Extent, Name, Page, World } from '../specification/model.ts';

/** Entries of a leaf table that programs map at: few, so that they meet. */
export const PLACES = 8;
export const FIRST_PLACE = 256;
/** Where the caller keeps the words that a call looks into: in its own page. */
export const SCRATCH = abi.Start.stackPage * 4096 + 2048;

const { free, user, root, middle, leaf, quarantined, published, kernel } = abi.PageKind;
const { EnvState, ALL_RIGHTS, READ, WRITE, GRANT, REVOKE } = abi;

type Pick = (n: number) => number | readonly number[] | undefined;

/** The words of a name. */
export const nameWords = (name: Name): readonly [number, number] => {
  const { a, b } = abi.packName(name);
  return [a, b];
};
const startsWith = (long: Name, short: Name): boolean => short.every((byte, n) => byte === long[n]);
const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n);

export class Operands {
  readonly #w: World;
  readonly #me: Env;
  // What was named last.
  #page: Page | undefined;
  #entry = 0;
  #by = 0;
  #word: number | undefined;
  #over = 0;
  #env: Env;
  #table = 0;
  #account: Account | undefined;
  #extent: Extent | undefined;

  constructor(w: World, me: Env) {
    this.#w = w;
    this.#me = me;
    this.#env = me;
  }

  /** What a token stands for: a number, the two of a name, or nothing. */
  resolve(token: string): readonly number[] | undefined {
    const number = Number(token);
    if (token === 'NaN' || !Number.isNaN(number)) return [number];
    if (token.startsWith('name:')) {
      return nameWords(token.slice(5) === '' ? [] : token.slice(5).split('.').map(Number));
    }
    const [, word = '', nth = '0', suffix = ''] =
      /^([a-z]+)(?:~(\d+))?(\+[a-z]+)?$/.exec(token) ?? [];
    const pick = (this.#kinds as Partial<Record<string, Pick>>)[word];
    if (pick === undefined) throw new Error(`no such operand: ${token}`);
    const found = pick(Number(nth));
    if (found === undefined) return undefined;
    const values = typeof found === 'number' ? [found] : found;
    return suffix === '' ? values : values.map((value) => this.#tagged(word, value, suffix));
  }

  // ---- what is at hand --------------------------------------------------------------------------

  #one<T>(list: readonly T[], n: number): T | undefined {
    return list[n % list.length];
  }
  /** A slot of `env` that dominates the name with the rights. */
  #slot(env: Env, name: Name, rights: number): number | undefined {
    const able = [...env.caps].filter(
      ([, cap]) => (cap.rights & rights) === rights && startsWith(name, cap.name),
    );
    return able.map(([slot]) => slot).sort((x, y) => x - y)[0];
  }
  #pages(kinds: readonly number[], and: (page: Page) => boolean = () => true): Page[] {
    return this.#w.pages.filter((page) => kinds.includes(page.kind) && and(page));
  }
  #answering = (page: Page): boolean =>
    this.#slot(this.#me, page.entries[0]?.name ?? [], GRANT) !== undefined;
  #isIdle = (page: Page): boolean =>
    ![...this.#w.leaves.values()].some((one) => one.page === page.at) &&
    ![...this.#w.requests.values()].some(({ pages }) => pages.some(([at]) => at === page.at)) &&
    page.entries.slice(1).every((one) => one === undefined);
  /** A page of the caller's, and the slot that answers for it. */
  #own(pages: readonly Page[], n: number): number | undefined {
    const page = this.#one(pages, n);
    if (page === undefined) return undefined;
    this.#page = page;
    this.#entry = 0;
    this.#by = this.#slot(this.#me, page.entries[0]?.name ?? [], GRANT) ?? this.#by;
    return page.at;
  }
  /** A page that a slot of the environment named last may use, by some access entry. */
  #use(rights: number, n: number): Page | undefined {
    const pairs = this.#pages([user]).flatMap((page) =>
      page.entries.flatMap((granted, entry) => {
        if (granted === undefined || granted.going || (granted.rights & rights) !== rights)
          return [];
        const slot = this.#slot(this.#env, granted.name, rights);
        return slot === undefined ? [] : [{ page, entry, slot }];
      }),
    );
    // What others share is rarer than what one has, and worth more.
    const shared = pairs.filter(({ entry }) => entry > 0);
    const pair = this.#one(n % 2 === 1 && shared.length > 0 ? shared : pairs, n >>> 1);
    this.#page = pair?.page;
    this.#entry = pair?.entry ?? 0;
    this.#by = pair?.slot ?? this.#by;
    return pair?.page;
  }
  #packed(page: Page | undefined): number | undefined {
    if (page === undefined) return undefined;
    return (this.#word = page.at | (this.#entry << 28));
  }
  #id = (env: Env): number => env.generation * 2 ** 14 + env.row;
  #live = (): Env[] => this.#w.envs.filter(({ row, state }) => row > 0 && state !== EnvState.free);
  #envs(n: number, and: (env: Env) => boolean): number | undefined {
    const env = this.#one(
      this.#live().filter((one) => and(one)),
      n,
    );
    if (env === undefined) return undefined;
    this.#env = env;
    this.#over = this.#slot(this.#me, env.name, WRITE) ?? this.#over;
    return this.#id(env);
  }
  #isUnder = (env: Env): boolean =>
    env !== this.#me && this.#slot(this.#me, env.name, WRITE) !== undefined;
  #isMine = (row: number): boolean => {
    const env = this.#w.envs[row];
    return env !== undefined && (env === this.#me || this.#isUnder(env));
  };
  /** A table of an environment in the caller's power. */
  #tables(n: number, kinds: readonly number[], and: (page: Page) => boolean = () => true) {
    const page = this.#one(
      this.#pages(kinds, (one) => this.#isMine(one.env) && and(one)),
      n,
    );
    if (page === undefined) return undefined;
    this.#table = page.at;
    this.#env = this.#w.envs[page.env] ?? this.#me;
    this.#over = this.#slot(this.#me, this.#env.name, WRITE) ?? this.#over;
    return page.at;
  }
  #accounts(n: number, rights: number, of: (account: Account) => Name | undefined) {
    const all = [...this.#w.accounts.values()].filter((account) => {
      const name = of(account);
      return name !== undefined && this.#slot(this.#me, name, rights) !== undefined;
    });
    const account = this.#one(all, n);
    if (account === undefined) return undefined;
    this.#account = account;
    this.#over = this.#slot(this.#me, of(account) ?? [], rights) ?? this.#over;
    return account.at;
  }
  #parentName = (account: Account): Name | undefined =>
    account.at === 0 ? undefined : this.#w.accounts.get(account.parent)?.name;
  #extents(n: number, and: (extent: Extent) => boolean): number | undefined {
    const { extents } = this.#w;
    const extent = this.#one(extents.filter(and), n);
    if (extent === undefined) return undefined;
    this.#extent = extent;
    this.#over = this.#slot(this.#me, extent.name, ALL_RIGHTS) ?? this.#over;
    return extents.indexOf(extent);
  }
  #isEmpty = (table: number): boolean =>
    !this.#w.pages.some(({ parent }) => parent === table) &&
    ![...this.#w.leaves].some(([key, { page }]) => key >>> 9 === table || page === table);

  /** The generation that a name with a tag knows, or another. */
  #tagged(word: string, value: number, suffix: string): number {
    const [generation, bits, tags] = word.endsWith('slice')
      ? [this.#w.slices[value]?.generation, abi.SLICE_BITS, abi.TAG_BITS]
      : word.endsWith('extent') || word === 'next'
        ? [this.#w.extents[value]?.generation, abi.EXTENT_BITS, abi.TAG_BITS]
        : [this.#w.pages[value]?.generation, abi.PAGE_BITS, abi.PAGE_TAG_BITS];
    const old = (generation ?? 0) + (suffix === '+stale' ? -1 : 0);
    return value + abi.tagOf(old, tags) * 2 ** bits;
  }

  /** By name. */
  readonly #kinds = {
    // Pages.
    free: (n) => this.#one(this.#pages([free]), n)?.at,
    own: (n) => this.#own(this.#pages([user], this.#answering), n),
    idle: (n) =>
      this.#own(
        this.#pages([user], (page) => this.#answering(page) && this.#isIdle(page)),
        n,
      ),
    shared: (n) =>
      this.#own(
        this.#pages(
          [user],
          (page) => this.#answering(page) && page.entries.slice(1).some((one) => one !== undefined),
        ),
        n,
      ),
    loose: (n) =>
      this.#own(
        this.#pages([user], (page) => this.#answering(page) && page.account === this.#me.account),
        n,
      ),
    foreign: (n) =>
      this.#own(
        this.#pages([user], (page) => !this.#answering(page)),
        n,
      ),
    mapped: (n) => {
      const at = new Set([...this.#w.leaves.values()].map(({ page }) => page));
      return this.#own(
        this.#pages([user], (page) => this.#answering(page) && at.has(page.at)),
        n,
      );
    },
    usable: (n) => this.#use(READ, n)?.at,
    writable: (n) => this.#use(READ | WRITE, n)?.at,
    pair: (n) => this.#packed(this.#use(READ, n)),
    again: () => this.#word,
    /** A page that can be used, by an entry that may not do. */
    mispair: (n) => {
      const page = this.#use(READ, n >>> 2);
      return page === undefined ? undefined : page.at | ((n % 4) << 28);
    },
    wpair: (n) => this.#packed(this.#use(READ | WRITE, n)),
    quarantined: (n) => this.#one(this.#pages([quarantined]), n)?.at,
    published: (n) => this.#one(this.#pages([published]), n)?.at,
    private: (n) => this.#one(this.#pages([kernel]), n)?.at,
    page: (n) => this.#one(this.#w.pages, n)?.at,
    root: (n) => this.#tables(n, [root]),
    parent: (n) => this.#tables(n, [root, middle]),
    middle: (n) => this.#tables(n, [middle]),
    leaf: (n) => this.#tables(n, [leaf]),
    anymiddle: (n) => this.#one(this.#pages([middle]), n)?.at,
    strangerleaf: (n) =>
      this.#one(
        this.#pages([leaf], ({ env }) => !this.#isMine(env)),
        n,
      )?.at,
    ownleaf: (n) => this.#tables(n, [leaf], ({ env }) => env === this.#me.row),
    view: (n) => {
      const table = this.#table;
      const at = this.#tables(n, [root, middle, leaf]);
      this.#table = table;
      return at;
    },
    bare: (n) => this.#tables(n, [middle, leaf], ({ at }) => this.#isEmpty(at)),
    table: (n) => this.#one(this.#pages([root, middle, leaf]), n)?.at,
    asked: (n) => {
      const { at, first, pages } = this.#account ?? { at: -1, first: 0, pages: 0 };
      const inRange = (page: Page): boolean =>
        page.account === at && page.at >= first && page.at < first + pages;
      return this.#one(this.#pages([user], inRange), n)?.at;
    },
    // Places in a table, and access entries of a page.
    place: (n) => FIRST_PLACE + (n % PLACES),
    gap: (n) =>
      this.#one(
        upTo(PLACES)
          .map((k) => FIRST_PLACE + k)
          .filter((index) => !this.#w.leaves.has(this.#table * 512 + index)),
        n,
      ),
    filled: (n) =>
      this.#one(
        [...this.#w.leaves.keys()]
          .filter((key) => key >>> 9 === this.#table)
          .map((key) => key & 511)
          .filter((index) => index >= FIRST_PLACE),
        n,
      ),
    hook: (n) => {
      const hangs = (index: number): boolean =>
        this.#w.pages.some((page) => page.parent === this.#table && page.index === index);
      return this.#one(
        upTo(4).filter((index) => !hangs(index)),
        n,
      );
    },
    hole: (n) => this.#one(this.#holes(), n),
    entry: (n) =>
      this.#one(
        [1, 2, 3].filter((entry) => this.#page?.entries[entry] !== undefined),
        n,
      ),
    grant: (n) => {
      const entry = this.#one(this.#holes(), n >>> 1);
      return entry === undefined ? undefined : (n % 2 === 0 ? READ : READ | WRITE) + entry * 256;
    },
    its: () => this.#entry,
    // Slots.
    by: () => this.#by,
    over: () => this.#over,
    empty: (n) =>
      this.#one(
        upTo(abi.CAP_SLOTS).filter((slot) => !this.#env.caps.has(slot)),
        n,
      ),
    cap: (n) => this.#one([...this.#env.caps.keys()], n),
    mine: (n) => this.#one([...this.#me.caps.keys()], n),
    full: (n) =>
      this.#one(
        [...this.#me.caps].filter(([, { rights }]) => rights === ALL_RIGHTS).map(([slot]) => slot),
        n,
      ),
    giver: (n) => {
      const able = [...this.#me.caps].filter(([, { rights }]) => (rights & GRANT) !== 0);
      return this.#one(able, n)?.[0];
    },
    // Environments.
    self: () => this.#envs(0, (env) => env === this.#me),
    child: (n) => this.#envs(n, this.#isUnder),
    kid: (n) => this.#envs(n, (env) => this.#isUnder(env) && env.state !== EnvState.zombie),
    made: (n) => this.#envs(n, (env) => this.#isMine(env.row) && env.state === EnvState.made),
    zombie: (n) => this.#envs(n, (env) => this.#isUnder(env) && env.state === EnvState.zombie),
    dead: (n) => this.#envs(n, (env) => env.state === EnvState.zombie),
    suspended: (n) => this.#envs(n, (env) => this.#isUnder(env) && env.suspended),
    ready: (n) => this.#envs(n, (env) => env !== this.#me && env.state === EnvState.ready),
    asleep: (n) => this.#envs(n, (env) => env.state === EnvState.sleeping),
    waiting: (n) => this.#envs(n, (env) => env.state === EnvState.receiving),
    open: (n) => this.#envs(n, (env) => env.state === EnvState.receiving && this.#hasWindow(env)),
    calling: (n) => this.#envs(n, (env) => env.state === EnvState.calling),
    other: (n) => this.#envs(n, (env) => env !== this.#me),
    stranger: (n) => this.#envs(n, (env) => env !== this.#me && !this.#isUnder(env)),
    client: (n) => this.#envs(n, (env) => this.#isClient(env)),
    guest: (n) => this.#envs(n, (env) => this.#isClient(env) && this.#hasWindow(env)),
    offering: (n) => this.#envs(n, ({ offer }) => offer?.to === this.#id(this.#me)),
    gone: (n) => {
      const { row, generation } = this.#w.envs[1 + (n % (this.#w.envs.length - 1))] ?? this.#me;
      return ((generation + 0x1ffff) & 0x1ffff) * 2 ** 14 + row;
    },
    row: (n) =>
      this.#one(
        this.#w.envs.filter((env) => env.row > 0 && env.state === EnvState.free),
        n,
      )?.row,
    seen: () => this.#me.events,
    // Names.
    under: (n) => {
      const names = [...this.#me.caps.values()].map(({ name }) => name);
      const name = this.#one(names, n >>> 2);
      if (name === undefined) return undefined;
      return nameWords(n % 4 < 2 || name.length > 5 ? name : [...name, 14 + (n % 4)]);
    },
    guard: (n) => nameWords(this.#one(this.#live(), n)?.name ?? []),
    deeper: (n) => {
      const name = this.#account?.name ?? [];
      return name.length > 6 ? undefined : nameWords([...name, 16 + (n % 3)]);
    },
    // Accounts.
    account: (n) => this.#accounts(n, ALL_RIGHTS, ({ name }) => name),
    purse: (n) => this.#accounts(n, REVOKE, ({ name }) => name),
    any: (n) => this.#one([...this.#w.accounts.keys()], n),
    ward: (n) => this.#accounts(n, REVOKE, this.#parentName),
    poor: (n) =>
      this.#accounts(n, ALL_RIGHTS, (account) =>
        account.at > 0 && this.#isUnused(account) ? account.name : undefined,
      ),
    due: (n) =>
      this.#accounts(n, REVOKE, (account) =>
        account.wanted > 0 ? this.#parentName(account) : undefined,
      ),
    ripe: (n) =>
      this.#accounts(n, REVOKE, (account) =>
        account.wanted > 0 && account.deadline <= this.#w.now
          ? this.#parentName(account)
          : undefined,
      ),
    opening: (n) =>
      this.#one(
        upTo(abi.ACCOUNTS).filter((at) => !this.#w.accounts.has(at)),
        n,
      ),
    // The disk, the CPU.
    extent: (n) =>
      this.#extents(
        n,
        ({ valid, name }) => valid && this.#slot(this.#me, name, ALL_RIGHTS) !== undefined,
      ),
    vacantextent: (n) => {
      const extent = this.#one(
        this.#w.extents.filter(({ valid }) => !valid),
        n,
      );
      return extent === undefined ? undefined : this.#w.extents.indexOf(extent);
    },
    anyextent: (n) => n % this.#w.extents.length,
    first: (n) => {
      const { extents } = this.#w;
      return this.#extents(n, (one) =>
        extents.some((next) => next.valid && next.first === one.first + one.count),
      );
    },
    joint: (n) =>
      this.#extents(n, (one) => {
        const end = one.first + one.count;
        const next = this.#w.extents.find(({ valid, first }) => valid && first === end);
        const mine = (name: Name): boolean => this.#slot(this.#me, name, ALL_RIGHTS) !== undefined;
        return next !== undefined && one.valid && mine(one.name) && mine(next.name);
      }),
    next: () => {
      const end = (this.#extent?.first ?? 0) + (this.#extent?.count ?? 0);
      const at = this.#w.extents.findIndex(({ valid, first }) => valid && first === end);
      return at < 0 ? undefined : at;
    },
    slice: (n) => n % this.#w.slices.length,
    vacantslice: (n) => {
      const alive = new Set(
        this.#live()
          .filter(({ state }) => state !== EnvState.zombie)
          .map(this.#id),
      );
      const all = [...this.#w.slices.entries()].filter(([, { owner }]) => !alive.has(owner));
      return this.#one(all, n)?.[0];
    },
    heldslice: (n) => {
      const all = [...this.#w.slices.entries()].filter(([, { owner }]) => owner !== 0);
      return this.#one(all, n)?.[0];
    },
    list: () => SCRATCH,
    /** Of a predicate's term, after its page: word, operator, slot, and whether it is the last. */
    mistest: (n) => (n % 4) | ((n % 3) << 16) | (((n >>> 4) % 16) << 20),
    test: (n) => (n % 4) | (((n >>> 2) % 4) << 16) | (this.#by << 20) | (((n >>> 4) % 2) << 24),
  } satisfies Record<string, Pick>;

  #holes = (): number[] => [1, 2, 3].filter((entry) => this.#page?.entries[entry] === undefined);
  #hasWindow({ window }: Env): boolean {
    return window !== undefined && !this.#w.leaves.has(window.table * 512 + window.index);
  }
  #isClient(env: Env): boolean {
    const waits = env.state === EnvState.calling && env.partner === this.#id(this.#me);
    return waits && !this.#me.queue.includes(env.row);
  }
  #isUnused({ at }: Account): boolean {
    const { pages, envs, slices, extents, accounts } = this.#w;
    const uses = [
      ...pages.filter(({ kind }) => kind !== free && kind !== kernel && kind !== published),
      ...envs.filter(({ state }) => state !== EnvState.free),
      ...slices.filter(({ owner }) => owner !== 0),
      ...extents.filter(({ valid }) => valid),
    ];
    const children = [...accounts.values()].filter((one) => one.at > 0 && one.parent === at);
    return children.length === 0 && !uses.some(({ account }) => account === at);
  }
}
