/**
 * What a machine's memory says, in the words of the specification: a World read out of the kernel's
 * tables, the page tables and their ledgers. It shares no code with the specification, and calls
 * nothing of the kernel. What means nothing at the moment (the deadline of who does not sleep) is
 * read as it would be of something new.
 */
import {
  ACCESS_ENTRIES,
  Account,
  ACCOUNTS,
  CAP_SLOTS,
  Env,
  EnvState,
  Extent,
  Info,
  Loss,
  LOSSES,
  PageKind,
  Queued,
  RESOURCES,
  SAVE_WORDS,
  Term,
  UPCALL_KINDS,
} from '../../kernel/abi.ts';
import {
  CAP_GOING,
  CAP_VALID,
  CAP_WORDS,
  Cpu,
  DISK_TAGS,
  PageRecord,
  Private,
} from '../../kernel/exokernel/state.ts';
import type { Raw } from '../invariants/raw.ts';
import type * as spec from '../specification/model.ts';

const TABLE_TAG = DISK_TAGS - 1;
const OFFER_SLOT = 8; // bits of an offer's rights, above them the slot
const FLAGS = 0x306; // of an entry: R, W, and two bits of the library's

export type State = Omit<spec.World, 'log' | 'now' | 'memory' | 'hasEntry' | 'hasRoom' | 'arrived'>;

const bytesOf = (a: number, b: number): spec.Name =>
  [a >>> 8, a >>> 16, a >>> 24, b, b >>> 8, b >>> 16, b >>> 24]
    .map((n) => n & 255)
    .slice(0, a & 255);
const tick = (low: number, high: number): number => (low >>> 0) + high * 2 ** 32;
const upTo = (count: number): number[] => Array.from({ length: count }, (_, n) => n);

export function stateOf(raw: Raw): State {
  const tables = tablesOf(raw);
  return {
    pages: upTo(raw.pages).map((page) => pageOf(raw, page, tables)),
    leaves: leavesOf(raw),
    envs: upTo(raw.rows).map((row) => envOf(raw, row)),
    accounts: new Map(
      upTo(ACCOUNTS)
        .filter((at) => raw.account(at, Account.valid) !== 0)
        .map((at) => [at, accountOf(raw, at)]),
    ),
    slices: upTo(raw.info(Info.slices)).map((n) => ({
      owner: raw.info(Info.sliceVector + n),
      account: raw.info(Info.sliceVector + n) === 0 ? 0 : raw.info(Info.sliceAccount + n),
      generation: raw.info(Info.sliceGeneration + n),
      debt: raw.info(Info.sliceDebt + n),
    })),
    extents: upTo(raw.info(Info.extents)).map((row) => extentOf(raw, row)),
    requests: new Map(
      upTo(DISK_TAGS)
        .filter((tag) => raw.queued(tag, Queued.env) !== 0)
        .map((tag) => [tag, requestOf(raw, tag)]),
    ),
    cpu: cpuOf(raw),
    kept: {
      generation: raw.info(Info.extentGeneration),
      durable: raw.info(Info.extentDurable),
      staged: raw.word(raw.state.staging, 1),
      payer: raw.queued(TABLE_TAG, Queued.position) - 1,
    },
    blocks: raw.machine.disk.blocks,
    sliceCycles: raw.info(Info.sliceCycles),
  };
}

function cpuOf(raw: Raw): State['cpu'] {
  const serves = raw.cpu(Cpu.owner) !== 0;
  return {
    current: raw.cpu(Cpu.current),
    entered: raw.cpu(Cpu.installed),
    owner: raw.cpu(Cpu.owner),
    position: raw.info(Info.slicePosition),
    end: serves ? tick(raw.cpu(Cpu.end), raw.cpu(Cpu.end + 1)) : 0,
    grace: serves && raw.cpu(Cpu.grace) !== 0,
    told: raw.cpu(Cpu.told),
    timer: raw.machine.timer(),
  };
}

/** Where tables hang: what the entries of roots and middle tables name. */
function tablesOf(raw: Raw): Map<number, readonly [parent: number, index: number]> {
  const found = new Map<number, readonly [number, number]>();
  for (const table of upTo(raw.pages)) {
    const kind = raw.kind(table);
    if (kind !== PageKind.root && kind !== PageKind.middle) continue;
    const end = kind === PageKind.root ? 256 : 512;
    for (let index = 0; index < end; index++) {
      const entry = raw.entry(table, index);
      if ((entry & 1) !== 0) found.set(entry >>> 10, [table, index]);
    }
  }
  return found;
}

function pageOf(raw: Raw, at: number, tables: ReturnType<typeof tablesOf>): spec.Page {
  const kind = raw.kind(at);
  const isTable = kind === PageKind.root || kind === PageKind.middle || kind === PageKind.leaf;
  const [parent, index] = (isTable ? tables.get(at) : undefined) ?? [-1, 0];
  const limits = kind === PageKind.free ? 0 : raw.page(at, PageRecord.limits);
  return {
    at,
    generation: raw.page(at, PageRecord.generation),
    kind,
    account: raw.accountOf(at),
    kept: raw.kept(at),
    entries: entriesOf(raw, at, kind),
    limits: [(limits & 0xffff) - 1, (limits >>> 16) - 1],
    env: raw.envOf(at),
    parent,
    index,
    ledgers:
      kind === PageKind.leaf
        ? [raw.page(at, PageRecord.ledger), raw.page(at, PageRecord.ledger + 1)]
        : [],
  };
}

/** Of a table the first is kept, and the rest of the record says where it hangs. */
const ENTRIES = new Map<number, number>([
  [PageKind.user, ACCESS_ENTRIES],
  [PageKind.ledger, ACCESS_ENTRIES],
  [PageKind.root, 1],
  [PageKind.middle, 1],
  [PageKind.leaf, 1],
]);
function entriesOf(raw: Raw, page: number, kind: number): (spec.Entry | undefined)[] {
  const found: (spec.Entry | undefined)[] = [];
  for (let entry = 0; entry < ACCESS_ENTRIES; entry++) {
    found.push(entry < (ENTRIES.get(kind) ?? 0) ? entryOf(raw, page, entry) : undefined);
  }
  return found;
}
function entryOf(raw: Raw, page: number, entry: number): spec.Entry | undefined {
  const at = PageRecord.access + entry * CAP_WORDS;
  const word = raw.page(page, at + 2);
  if ((word & CAP_GOING) !== 0) return { name: [], rights: 0, going: true };
  if ((word & CAP_VALID) === 0) return undefined;
  return {
    name: bytesOf(raw.page(page, at), raw.page(page, at + 1)),
    rights: word & 255,
    going: false,
  };
}

function leavesOf(raw: Raw): Map<number, spec.Leaf> {
  const leaves = new Map<number, spec.Leaf>();
  for (const table of upTo(raw.pages)) {
    if (raw.kind(table) !== PageKind.leaf) continue;
    for (let index = 0; index < 512; index++) {
      const entry = raw.entry(table, index);
      if ((entry & 1) === 0) continue;
      const page = entry >>> 10;
      const kind = raw.kind(page);
      const justified = kind === PageKind.user || kind === PageKind.quarantined;
      const ledger = raw.page(table, PageRecord.ledger + (index >>> 8));
      const why = justified ? raw.word(ledger, (index & 255) * 4 + 2) : -1;
      const by = justified ? { slot: why & 255, entry: why >>> 8 } : { slot: -1, entry: -1 };
      leaves.set(table * 512 + index, { page, flags: entry & FLAGS, ...by });
    }
  }
  return leaves;
}

function envOf(raw: Raw, row: number): spec.Env {
  const at = (word: number): number => raw.env(row, word);
  const secret = (word: number): number => raw.secret(row, word);
  const state = at(Env.state);
  const is = (one: number): boolean => state === one;
  const [there, alive] = [!is(EnvState.free), !is(EnvState.free) && !is(EnvState.zombie)];
  const of = (word: number): number => (there ? at(word) : 0);
  const queue: number[] = [];
  for (let next = alive ? secret(Private.queueHead) : 0; next !== 0 && queue.length < raw.rows;) {
    queue.push(next);
    next = raw.secret(next, Private.queueNext);
  }
  // Who stands in the queue of a dead one stands nowhere.
  const calls = is(EnvState.calling);
  const callee = at(Env.partner);
  const isHeardOf = raw.live(callee) && raw.stateOf(callee & 0x3fff) !== EnvState.zombie;
  const queued = calls && isHeardOf && secret(Private.queuePrevious) !== 0;
  return {
    row,
    generation: at(Env.generation),
    state,
    parent: of(Env.parent),
    patron: of(Env.patron),
    root: of(Env.root),
    account: of(Env.account),
    image: of(Env.image),
    exitStatus: of(Env.exitStatus),
    events: of(Env.events),
    submitted: of(Env.diskSubmitted),
    done: of(Env.diskDone),
    failed: of(Env.diskFailed),
    excess: of(Env.excess),
    suspended: of(Env.suspended) !== 0,
    name: there ? bytesOf(at(Env.nameA), at(Env.nameB)) : [],
    caps: new Map(there ? capsOf(raw, row) : []),
    upcalls: new Map(alive ? upcallsOf(raw, row) : []),
    pending: new Set(
      upTo(UPCALL_KINDS).filter((n) => alive && (secret(Private.pending) & (1 << n)) !== 0),
    ),
    window:
      there && secret(Private.windowTable) !== 0
        ? {
            table: secret(Private.windowTable) - 1,
            index: secret(Private.windowIndex),
            slot: secret(Private.windowSlot),
          }
        : undefined,
    offer: alive && secret(Private.offerTo) !== 0 ? offerOf(raw, row) : undefined,
    queue,
    deadline: is(EnvState.sleeping) ? tick(at(Env.deadline), at(Env.deadline + 1)) : 0,
    terms: is(EnvState.sleeping)
      ? upTo(at(Env.terms) * Term.words).map((n) => secret(Private.predicate + n))
      : [],
    partner: calls ? callee : 0,
    message: queued ? upTo(4).map((n) => secret(Private.message + n)) : [],
  };
}

function* capsOf(raw: Raw, row: number): Iterable<[number, spec.Capability]> {
  for (let slot = 0; slot < CAP_SLOTS; slot++) {
    const at = Private.caps + slot * CAP_WORDS;
    const word = raw.secret(row, at + 2);
    if ((word & CAP_VALID) === 0) continue;
    const name = bytesOf(raw.secret(row, at), raw.secret(row, at + 1));
    yield [slot, { name, rights: word & 255 }];
  }
}

function* upcallsOf(raw: Raw, row: number): Iterable<[number, { entry: number; frame: number }]> {
  for (const kind of upTo(UPCALL_KINDS)) {
    const entry = raw.secret(row, Private.upcallEntry + kind) - 1;
    const frame = raw.secret(row, Private.upcallFrame + kind) >>> 0;
    if (entry >= 0) yield [kind, { entry, frame }];
  }
}

function offerOf(raw: Raw, row: number): spec.Env['offer'] {
  const word = (n: number): number => raw.secret(row, Private.offer + n);
  const how = word(2);
  return {
    to: raw.secret(row, Private.offerTo),
    name: bytesOf(word(0), word(1)),
    rights: how & 15,
    slot: how >>> OFFER_SLOT,
  };
}

function accountOf(raw: Raw, at: number): spec.Account {
  const word = (n: number): number => raw.account(at, n);
  const losses = word(Account.losses);
  return {
    at,
    parent: word(Account.parent),
    name: bytesOf(word(Account.nameA), word(Account.nameB)),
    minimum: word(Account.minimum),
    tenant: word(Account.tenant),
    holder: word(Account.holder),
    limits: upTo(RESOURCES).map((n) => word(Account.limit + n)),
    wanted: word(Account.wanted),
    taker: word(Account.taker),
    first: word(Account.first),
    pages: word(Account.pages),
    deadline: tick(word(Account.deadline), word(Account.deadline + 1)),
    losses,
    ring: new Map(
      upTo(Math.min(losses, LOSSES)).map((n) => [
        n,
        [raw.loss(at, Loss.ring + n * 2), raw.loss(at, Loss.ring + n * 2 + 1)],
      ]),
    ),
    saves: new Map(
      upTo(LOSSES).flatMap((place): [number, readonly [number, number, number]][] => {
        const save = (n: number): number => raw.loss(at, Loss.saves + place * SAVE_WORDS + n);
        return save(0) === 0 ? [] : [[place, [save(0) - 1, save(1), save(2)]]];
      }),
    ),
  };
}

function extentOf(raw: Raw, row: number): spec.Extent {
  const valid = raw.extent(row, Extent.valid) !== 0;
  const of = (word: number): number => (valid ? raw.extent(row, word) : 0);
  return {
    generation: raw.extent(row, Extent.generation),
    valid,
    first: of(Extent.first),
    count: of(Extent.count),
    name: valid ? bytesOf(of(Extent.nameA), of(Extent.nameB)) : [],
    account: of(Extent.account),
  };
}

function requestOf(raw: Raw, tag: number): spec.Request {
  const word = (n: number): number => raw.queued(tag, n);
  const isOwn = word(Queued.env) === -1;
  // What the extent table is written from is the kernel's own page.
  const count = tag === TABLE_TAG ? 0 : word(Queued.count);
  return {
    env: word(Queued.env),
    account: word(Queued.account),
    extent: word(Queued.extent),
    block: word(Queued.block),
    flags: word(Queued.flags),
    position: word(Queued.position) - 1,
    pages: upTo(count).map((n) => {
      const listed = word(Queued.pages + n);
      return [listed & 0x0fffffff, isOwn ? -1 : listed >>> 28];
    }),
  };
}
