/**
 * The state that the specification speaks of: plain objects, maps and sets, as one would draw them
 * on paper. Names are lists of bytes; how much an account uses is counted when it is asked; who
 * maps a page is looked for among all mappings. Slow and obvious: the kernel is fast, and held to
 * this. Of the kernel it knows the numbers of kernel/abi.ts and nothing else.
 *
 * Each kind of thing is said once, as what a new one looks like.
 */
import * as abi from '../../kernel/abi.ts';

/** A capability's name: a path of bytes. */
export type Name = readonly number[];
/** Prefix order: the shorter name stands for all that begin with it. */
export const dominates = (a: Name, b: Name): boolean => a.every((byte, n) => byte === b[n]);
export type Capability = { readonly name: Name; readonly rights: number };
/** An access entry. One that is going justifies nothing new, and has neither name nor rights. */
export type Entry = Capability & { readonly going: boolean };
/** Page and access entry; the kernel's own requests have no entry: -1. */
export type Pair = readonly [page: number, entry: number];
/** What a filled entry of a leaf table names. Slot and entry are -1 if nothing justifies it. */
export type Leaf = { page: number; slot: number; entry: number; flags: number };

export const newPage = (at: number) => ({
  at,
  generation: 0,
  kind: 0,
  account: 0,
  kept: false,
  env: 0,
  parent: -1,
  index: 0,
  ledgers: [] as readonly number[], // of a table: where it hangs
  entries: [0, 1, 2, 3].map((): Entry | undefined => undefined),
  limits: [-1, -1] as readonly [leaves: number, writers: number], // -1 is none
});
export type Page = ReturnType<typeof newPage>;
export const newEnv = (row: number, generation: number) => ({
  row,
  generation,
  state: 0,
  parent: 0,
  patron: 0,
  root: 0,
  account: 0,
  image: 0,
  exitStatus: 0,
  events: 0,
  submitted: 0,
  done: 0,
  failed: 0,
  excess: 0,
  suspended: false,
  name: [] as Name,
  caps: new Map<number, Capability>(), // by slot
  upcalls: new Map<number, { entry: number; frame: number }>(), // by kind
  pending: new Set<number>(), // kinds of upcalls
  window: undefined as { table: number; index: number; slot: number } | undefined,
  offer: undefined as (Capability & { to: number }) | undefined,
  // A caller waits for `partner`, an id, who has heard `message` unless it stands in its queue.
  partner: 0,
  message: [] as readonly number[],
  queue: [] as readonly number[],
  deadline: 0,
  terms: [] as readonly number[], // of a sleeper: cycle, words
});
export type Env = ReturnType<typeof newEnv>;
export const newAccount = (at: number, parent: number, name: Name, minimum: number) => ({
  at,
  parent,
  name,
  minimum,
  tenant: at,
  holder: 0,
  losses: 0,
  limits: [0, 0, 0, 0, 0],
  wanted: 0,
  taker: 0,
  first: 0,
  pages: 0,
  deadline: 0, // of a revocation
  ring: new Map<number, readonly [page: number, block: number]>(), // what was lost
  saves: new Map<number, readonly [extent: number, generation: number, block: number]>(),
});
export type Account = ReturnType<typeof newAccount>;
export type Slice = { owner: number; account: number; generation: number };
export const newExtent = (generation: number) => ({
  generation,
  valid: false,
  first: 0,
  count: 0,
  name: [] as Name,
  account: 0,
});
export type Extent = ReturnType<typeof newExtent>;
/** Of an environment, by id, or the kernel's own: -1. */
export type Request = Record<'env' | 'account' | 'extent' | 'block' | 'flags', number> & {
  pages: Pair[];
};
/** What happens at the door: registers told, upcalls, programs begun and ended, bytes printed. */
export type Event = readonly [what: string, row: number, ...numbers: number[]];

export type World = {
  readonly pages: Page[];
  readonly leaves: Map<number, Leaf>; // by table * 512 + index, oldest first
  readonly envs: Env[];
  readonly accounts: Map<number, Account>; // environments by row; 0 is nobody
  readonly slices: Slice[];
  readonly extents: Extent[];
  readonly requests: Map<number, Request>;
  current: number;
  entered: number; // rows: who runs, and who ran last
  owner: number; // id: whose slice it is
  log: Event[];
  now: number;
  memory: Int32Array; // as the kernel found them: the clock, and all of memory
  /** The machine's own affairs: programs, and room for another upcall. */
  readonly hasEntry: (image: number, entry: number) => boolean;
  readonly hasRoom: (row: number) => boolean;
};

/** What a guard before has made sure of. */
export function sure<T>(it: T | undefined): T {
  if (it === undefined) throw new Error('specification: a guard should have stood here');
  return it;
}

// ---- who has what -------------------------------------------------------------------------------

const FREE = abi.EnvState.free;
export const idOf = ({ generation, row }: Env): number => generation * 2 ** 14 + row;
/** The environment of that id, dead or alive. */
export const envBy = ({ envs }: World, id: number): Env | undefined =>
  envs.find((env) => env.state !== FREE && idOf(env) === id);
export const isAlive = (env: Env | undefined): env is Env =>
  !!env && env.state !== abi.EnvState.zombie;
export const holds = (cap: Capability | undefined, name: Name, rights: number): boolean =>
  !!cap && (cap.rights & rights) === rights && dominates(cap.name, name);
/** Mappings of a page, of one access entry if it is said: by entry, the newest first. */
export const mappings = (w: World, page: number, entry = -1): [key: number, leaf: Leaf][] =>
  [...w.leaves]
    .filter(([, leaf]) => leaf.page === page && (entry < 0 || leaf.entry === entry))
    .reverse()
    .sort(([, one], [, other]) => one.entry - other.entry);
export const isWriter = ({ flags }: { flags: number }): boolean => (flags & abi.MAP_WRITE) !== 0;
/** By which access entries requests in flight reach a page. */
export const pins = ({ requests }: World, page: number): number[] =>
  [...requests.values()].flatMap((one) => one.pages.flatMap(([at, by]) => (at === page ? by : [])));
export const isReached = (w: World, page: number): boolean =>
  mappings(w, page).length > 0 || pins(w, page).length > 0;
export const child = ({ pages }: World, table: number, index: number): Page | undefined =>
  pages.find((page) => page.parent === table && page.index === index);
/** Entries of a table that are filled. */
export const filled = ({ pages, leaves }: World, table: number): unknown[] => [
  ...pages.filter(({ parent }) => parent === table),
  ...[...leaves.keys()].filter((key) => key >>> 9 === table),
];

const UNPAID: readonly number[] = [abi.PageKind.free, abi.PageKind.published, abi.PageKind.kernel];
export type ResourceName = keyof typeof abi.Resource;
/** How much of each resource an account uses. */
export function used(w: World, at: number): Record<ResourceName, number> {
  const mine = (all: { account: number }[]): number => all.filter((it) => it.account === at).length;
  const environments = mine(w.envs.filter(({ state }) => state !== FREE));
  const requests = mine([...w.requests.values()].filter(({ env }) => env !== -1));
  const [slices, extents] = [
    mine(w.slices.filter((s) => s.owner)),
    mine(w.extents.filter((e) => e.valid)),
  ];
  return {
    pages: mine(w.pages.filter((p) => !UNPAID.includes(p.kind))),
    slices,
    environments,
    extents,
    requests,
  };
}
/** How many more it may take: what a revocation waits for is spoken for. */
export const room = (w: World, { at, limits, wanted }: Account, name: ResourceName): number =>
  sure(limits[abi.Resource[name]]) - (name === 'pages' ? wanted : 0) - used(w, at)[name];

// ---- user memory --------------------------------------------------------------------------------

/** Word of memory behind an address, if the environment itself could read, or write, it. */
export function wordAt(w: World, env: Env, va: number, write = false): number | undefined {
  if (!Number.isInteger(va) || va < 0 || va >= 2 ** 32 || va % 4 !== 0) return undefined;
  const middle = child(w, env.root, Math.floor(va / 2 ** 30))?.at ?? -1;
  const table = child(w, middle, (va >>> 21) & 511)?.at ?? -1;
  const leaf = w.leaves.get(table * 512 + ((va >>> 12) & 511));
  return !leaf || (write && !isWriter(leaf)) ? undefined : leaf.page * 1024 + ((va >>> 2) & 1023);
}
export const load = (w: World, env: Env, va: number): number | undefined =>
  w.memory[wordAt(w, env, va) ?? -1];

// ---- names that cross the door ------------------------------------------------------------------

export const isWord = (n: number): boolean => Number.isInteger(n) && n >= -(2 ** 31) && n < 2 ** 32;
/** The bytes of a name that crosses in two words; nothing if they are not one. */
export function nameOf(a: number, b: number): Name | undefined {
  const bytes = [a >>> 8, a >>> 16, a >>> 24, b, b >>> 8, b >>> 16, b >>> 24].map((x) => x & 255);
  const name = bytes.slice(0, a & 255);
  const isOne =
    isWord(a) && isWord(b) && (a & 255) <= 7 && !bytes.slice(a & 255).some((byte) => byte);
  return isOne ? name : undefined;
}
/** What a name with a tag stands for: what stands there now, if the tag is its own, or 0. */
function tagged<T extends { generation: number }>(all: T[], n: number, bits: number, tags: number) {
  if (!Number.isInteger(n) || n < 0 || n >= 2 ** (bits + tags)) return undefined;
  const [thing, tag] = [all[n % 2 ** bits], Math.floor(n / 2 ** bits)];
  return !thing || tag === 0 || tag === 1 + ((thing.generation >>> 0) % (2 ** tags - 1))
    ? thing
    : undefined;
}
/** What a word of a list names: a page, and above it the access entry. */
export const pairOf = ({ pages }: World, listed: number): Pair => [
  tagged(pages, listed & 0x0fffffff, 20, 8)?.at ?? -1,
  listed >>> 28,
];

/** A call being made: the world, the caller, and what its arguments stand for. */
export class Call {
  readonly w: World;
  readonly me: Env;
  readonly a: (n: number) => number;
  constructor(w: World, me: Env, a: (n: number) => number) {
    [this.w, this.me, this.a] = [w, me, a];
  }
  maybePage = (n: number) => tagged(this.w.pages, this.a(n), 20, 8);
  maybeExtent = (n: number) => tagged(this.w.extents, this.a(n), 8, 16);
  maybeSlice = (n: number) => tagged(this.w.slices, this.a(n), 6, 16);
  maybeEnv = (n: number) => envBy(this.w, this.a(n));
  page = (n: number): Page => sure(this.maybePage(n));
  extent = (n: number): Extent => sure(this.maybeExtent(n));
  slice = (n: number): Slice => sure(this.maybeSlice(n));
  env = (n: number): Env => sure(this.maybeEnv(n));
  account = (n: number): Account => sure(this.w.accounts.get(this.a(n)));
  name = (n: number): Name => sure(nameOf(this.a(n), this.a(n + 1)));
  cap = (n: number): Capability | undefined => this.me.caps.get(this.a(n));
  /** The environment that table argument `n` belongs to. */
  space = (n: number): Env => sure(this.w.envs[this.page(n).env]);
  payer = (): Account => sure(this.w.accounts.get(this.me.account));
  room = (name: ResourceName): number => room(this.w, this.payer(), name);
  leaves = (n: number): Leaf[] => mappings(this.w, this.page(n).at).map(([, leaf]) => leaf);
  /** Words at an address of the caller's, as many as can be read. */
  words = (address: number, count: number): (number | undefined)[] =>
    Array.from({ length: count }, (_, n) => load(this.w, this.me, address + n * 4));
}
