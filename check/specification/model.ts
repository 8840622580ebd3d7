/**
 * The state that the specification speaks of: plain objects, maps and sets, as one would draw them
 * on paper. Names are lists of bytes; how much an account uses is counted when it is asked; who
 * maps a page is looked for among all mappings. Slow and obvious: the kernel is fast, and held to
 * this. Of the kernel it knows the numbers of kernel/abi.ts and nothing else.
 */
import * as abi from '../../kernel/abi.ts';

/** A capability's name: a path of bytes. */
export type Name = readonly number[];
/** Prefix order: the shorter name stands for all that begin with it. */
export const dominates = (a: Name, b: Name): boolean => a.every((byte, n) => byte === b[n]);
export type Capability = { readonly name: Name; readonly rights: number };
/** An access entry. One that is going justifies nothing new, and has neither name nor rights. */
export type Entry = Capability & { readonly going: boolean };
/** What a filled entry of a leaf table names. Slot and entry are -1 if nothing justifies it. */
export type Leaf = { page: number; slot: number; entry: number; flags: number };

export const newPage = (at: number) => ({
  at,
  generation: 0,
  kind: 0,
  account: 0,
  kept: false,
  entries: [0, 1, 2, 3].map((): Entry | undefined => undefined),
  limits: [-1, -1] as readonly [leaves: number, writers: number], // -1 is none
  // Of a table: whose it is, where it hangs, and its ledger pages.
  env: 0,
  parent: -1,
  index: 0,
  ledgers: [] as readonly number[],
});
export type Page = ReturnType<typeof newPage>;
/** What an environment waits with: a sleeper, a caller, a caller that was not heard yet. */
export const AWAKE = {
  deadline: 0,
  terms: [] as readonly number[],
  partner: 0, // id
  message: [] as readonly number[],
};
export const newEnv = (row: number, generation: number) => ({
  row,
  generation,
  state: 0,
  parent: 0, // row
  patron: 0, // id
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
  offer: undefined as (Capability & { to: number; slot: number }) | undefined,
  queue: [] as readonly number[], // rows of callers that it has not heard yet
  ...AWAKE,
});
export type Env = ReturnType<typeof newEnv>;
export const newAccount = (at: number, parent: number, name: Name, minimum: number) => ({
  at,
  parent,
  name,
  minimum,
  tenant: at,
  holder: 0, // id
  limits: [0, 0, 0, 0, 0],
  // Of the revocation that stands, or stood last.
  wanted: 0,
  taker: 0,
  first: 0,
  pages: 0,
  deadline: 0,
  losses: 0,
  ring: new Map<number, readonly [page: number, block: number]>(), // what was lost
  saves: new Map<number, readonly [extent: number, generation: number, block: number]>(),
});
export type Account = ReturnType<typeof newAccount>;
export type Slice = { owner: number; account: number; generation: number; debt: number };
export const newExtent = (generation: number) => ({
  generation,
  valid: false,
  first: 0,
  count: 0,
  name: [] as Name,
  account: 0,
});
export type Extent = ReturnType<typeof newExtent>;
/** Of environment `env`, an id, or of the kernel: -1. Its interrupt is owed by a position. */
export type Request = {
  readonly [word in 'env' | 'account' | 'extent' | 'block' | 'flags']: number;
} & { position: number; readonly pages: readonly (readonly [page: number, entry: number])[] };
/** What happens at the door: registers told, upcalls, programs begun and ended, bytes printed. */
export type Event = readonly [what: string, row: number, ...numbers: number[]];

export type World = {
  readonly pages: Page[];
  readonly leaves: Map<number, Leaf>; // by table * 512 + index, oldest first
  readonly envs: Env[]; // by row; 0 is nobody
  readonly accounts: Map<number, Account>;
  readonly slices: Slice[];
  readonly extents: Extent[];
  readonly requests: Map<number, Request>; // by row of the table of requests
  readonly cpu: {
    current: number; // row of who runs, 0: nobody
    entered: number; // row of who ran last
    owner: number; // row, whose slice it is
    position: number; // of the slice
    end: number; // cycle
    grace: boolean; // the end has been announced
    told: number; // to that row
    timer: number;
  };
  /** The extent table on the disk: generations, and the position that pays for writing it. */
  readonly kept: { generation: number; durable: number; staged: number; payer: number };
  readonly blocks: number; // of the disk
  readonly sliceCycles: number;
  log: Event[];
  now: number;
  memory: Int32Array; // all of memory as the kernel found it
  /** The machine's own affairs: programs, room for another upcall, what was typed. */
  readonly hasEntry: (image: number, entry: number) => boolean;
  readonly hasRoom: (row: number) => boolean;
  /** Bytes that have arrived on a channel of the console, as many as it hands over at a time. */
  readonly arrived: (channel: number) => readonly number[];
};

/** What must be there. */
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
export const accountOf = ({ accounts }: World, { account }: { account: number }): Account =>
  sure(accounts.get(account));
export const has = (rights: number, need: number): boolean => (rights & need) === need;
export const isWriter = ({ flags }: { flags: number }): boolean => has(flags, abi.MAP_WRITE);

/** Mappings of a page, of one access entry if it is said: by entry, the newest first. */
export const mappings = (w: World, page: number, entry = -1): [key: number, leaf: Leaf][] =>
  [...w.leaves]
    .filter(([, leaf]) => leaf.page === page && (entry < 0 || leaf.entry === entry))
    .reverse()
    .sort(([, one], [, other]) => one.entry - other.entry);
/** By which access entries requests in flight reach a page. */
export const pins = ({ requests }: World, page: number): number[] =>
  [...requests.values()].flatMap((one) => one.pages.flatMap(([at, by]) => (at === page ? by : [])));
export const isReached = (w: World, page: number): boolean =>
  mappings(w, page).length > 0 || pins(w, page).length > 0;
/** The table that hangs in an entry of another. */
export const child = ({ pages }: World, table: number, index: number): Page | undefined =>
  pages.find((page) => page.parent === table && page.index === index);
/** Whether a table has no entries. */
export const isEmpty = (w: World, table: number): boolean =>
  !w.pages.some(({ parent }) => parent === table) &&
  ![...w.leaves.keys()].some((key) => key >>> 9 === table);
/** Whether a page's limits admit so many more mappings, and so many more writable ones. */
export function fits(w: World, { at, limits }: Page, more: number, moreWriters: number): boolean {
  const now = mappings(w, at).map(([, leaf]) => leaf);
  const within = (limit = -1, count = 0, add = 0): boolean =>
    add === 0 || limit < 0 || count + add <= limit;
  return (
    within(limits[0], now.length, more) &&
    within(limits[1], now.filter(isWriter).length, moreWriters)
  );
}

const UNPAID: readonly number[] = [abi.PageKind.free, abi.PageKind.published, abi.PageKind.kernel];
export type ResourceName = keyof typeof abi.Resource;
export const RESOURCE_NAMES = Object.keys(abi.Resource) as ResourceName[];
/** How much of a resource an account uses. */
export function used(w: World, at: number, resource: ResourceName): number {
  const all: Record<ResourceName, () => { account: number }[]> = {
    pages: () => w.pages.filter(({ kind }) => !UNPAID.includes(kind)),
    slices: () => w.slices.filter(({ owner }) => owner !== 0),
    environments: () => w.envs.filter(({ state }) => state !== FREE),
    extents: () => w.extents.filter(({ valid }) => valid),
    requests: () => [...w.requests.values()].filter(({ env }) => env !== -1),
  };
  return all[resource]().filter(({ account }) => account === at).length;
}
/** How many more it may take: what a revocation waits for is spoken for. */
export const room = (w: World, { at, limits, wanted }: Account, name: ResourceName): number =>
  sure(limits[abi.Resource[name]]) - (name === 'pages' ? wanted : 0) - used(w, at, name);
/** Pages of the allotment that are neither guaranteed nor spoken for. */
export const spare = ({ limits, wanted, minimum }: Account): number =>
  sure(limits[abi.Resource.pages]) - wanted - minimum;
/** How many of its pages an account keeps. */
export const keptBy = ({ pages }: World, at: number): number =>
  pages.filter(({ kept, account }) => kept && account === at).length;
/** Whether a page is in the range that an account is, or was, asked for. */
export const isInRange = ({ first, pages }: Account, { at }: Page): boolean =>
  at >= first && at < first + pages;

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
/** Whether the environment could store there, and then it is done. */
export function store(w: World, env: Env, va: number, value: number): boolean {
  const at = wordAt(w, env, va, true);
  if (at !== undefined) w.memory[at] = value;
  return at !== undefined;
}
