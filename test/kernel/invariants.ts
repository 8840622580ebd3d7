/**
 * The invariants of protection, computed from machine truth by a second route: raw words of memory,
 * an own walker, an own order on names. Nothing here calls the kernel; of its tables it knows where
 * they lie. Each check looks at all pages, all environments, all slots, and says what is wrong in
 * words. Ids are those of the catalogue of protection invariants (MEM, TLB, CAP, IPC, CON).
 */
import {
  ACCESS_ENTRIES,
  CAP_SLOTS,
  Env,
  envIndex,
  EnvState,
  Extent,
  Info,
  PageKind,
  Queued,
} from '../../kernel/abi.ts';
import {
  CAP_GOING,
  CAP_PIN,
  Cpu,
  DISK_TAGS,
  PageRecord,
  Private,
} from '../../kernel/exokernel/state.ts';
import type { Raw, RawName } from '../../check/invariants/raw.ts';

const [V, R, W, X, U, G, D] = [1, 2, 4, 8, 16, 32, 128] as const;
const READ = 1;
const WRITE = 2;
const VPNS = 2 ** 27;
/** Where a table's record has the list of its views. */
const VIEWS = 2;
const NONE: ReadonlySet<number> = new Set<number>();

/** One filled entry of a leaf table, as an own walk found it. */
export interface Leaf {
  readonly env: number; // row
  readonly vpn: number;
  readonly page: number;
  readonly flags: number;
  readonly table: number;
  readonly index: number;
}

/** What a pass over the machine saw: the premises of the invariants, to be counted. */
export interface Witness {
  leaves: number;
  writable: number;
  shared: number; // user pages mapped in environments of different accounts
  lists: number; // ledger lists of two leaves or more
  views: number; // read-only mappings of table pages
  pinned: number;
  queued: number; // callers in queues
  zombies: number;
  tlb: number; // user entries of the TLB
  borrowed: number; // leaves justified by an access entry other than 0
}

export const noWitness = (): Witness => ({
  leaves: 0,
  writable: 0,
  shared: 0,
  lists: 0,
  views: 0,
  pinned: 0,
  queued: 0,
  zombies: 0,
  tlb: 0,
  borrowed: 0,
});

/** Bytes of a name: the order on names once more, the slow way. */
function bytesOf({ a, b }: { a: number; b: number }): number[] {
  const all = [a >>> 8, a >>> 16, a >>> 24, b, b >>> 8, b >>> 16, b >>> 24].map((n) => n & 0xff);
  return all.slice(0, a & 0xff);
}
const isPrefix = (short: number[], long: number[]): boolean =>
  short.length <= long.length && short.every((byte, n) => long[n] === byte);

/**
 * All breaches of all invariants, none in a sound machine.
 * @param open capabilities were offered to strangers, or somebody's name dominates everybody's
 */
export function audit(raw: Raw, witness: Witness = noWitness(), open = false): string[] {
  const wrong: string[] = [];
  const say = (id: string, holds: boolean, words: () => string): void => {
    if (!holds) wrong.push(`${id}: ${words()}`);
  };
  const rows = Array.from({ length: raw.rows - 1 }, (_, n) => n + 1);
  const alive = rows.filter((row) => raw.stateOf(row) !== EnvState.free);
  const pages = Array.from({ length: raw.pages }, (_, n) => n);

  // ---- an own walk: every table that is reached, from where, and every leaf ---------------------

  const parents = new Map<number, { kind: number; env: number }[]>();
  const reached = (page: number, kind: number, env: number): void => {
    const list = parents.get(page);
    if (list === undefined) parents.set(page, [{ kind, env }]);
    else list.push({ kind, env });
  };
  const filled = new Map<number, number>(); // entries of a table that are in use
  const leaves: Leaf[] = [];
  const exists = (page: number): boolean => page < raw.pages;
  const { i32 } = raw.machine.memory;
  const entryOf = (table: number, index: number): number =>
    (i32[table * 1024 + index * 2] ?? 0) >>> 0;
  const pointer = (entry: number): boolean => (entry & 0x3ff) === V;
  for (const env of alive) {
    const root = raw.env(env, Env.root);
    reached(root, PageKind.root, env);
    let tops = 0;
    for (let top = 0; top < 256; top++) {
      const first = entryOf(root, top);
      if ((first & V) === 0) continue;
      tops++;
      const middle = first >>> 10;
      say('MEM-06', pointer(first) && exists(middle), () => `root ${root}[${top}] is no pointer`);
      reached(middle, PageKind.middle, env);
      let seconds = 0;
      for (let mid = 0; mid < 512; mid++) {
        const second = entryOf(middle, mid);
        if ((second & V) === 0) continue;
        seconds++;
        const table = second >>> 10;
        say('MEM-06', pointer(second) && exists(table), () => `middle ${middle}[${mid}] is none`);
        reached(table, PageKind.leaf, env);
        let thirds = 0;
        for (let index = 0; index < 512; index++) {
          const third = entryOf(table, index);
          if ((third & V) === 0) continue;
          thirds++;
          const vpn = (top << 18) | (mid << 9) | index;
          leaves.push({ env, vpn, page: third >>> 10, flags: third & 0x3ff, table, index });
        }
        filled.set(table, thirds);
      }
      filled.set(middle, seconds);
    }
    filled.set(root, tops);
    // The kernel's half: its direct map and nothing of the user's.
    for (let top = 256; top < 512; top++) {
      const entry = entryOf(root, top);
      const own = top === 256 ? (V | R | W | G | 64 | D) >>> 0 : 0;
      say('MEM-07', entry === own, () => `root ${root}[${top}] is not the direct map`);
    }
  }

  // ---- MEM-01, MEM-02, MEM-06, CON: kinds of pages ----------------------------------------------

  const { info, secret, end } = raw.state;
  const byKind = new Map<number, number>();
  const ledgers = new Map<number, number>(); // ledger page: its table
  for (const page of pages) {
    if (raw.kind(page) !== PageKind.leaf) continue;
    for (const n of [0, 1]) {
      const ledger = raw.page(page, PageRecord.ledger + n);
      say('MEM-06', !ledgers.has(ledger), () => `ledger ${ledger} serves two tables`);
      ledgers.set(ledger, page);
    }
  }
  for (const page of pages) {
    const kind = raw.kind(page);
    byKind.set(kind, (byKind.get(kind) ?? 0) + 1);
    const up = parents.get(page) ?? [];
    const isTable = kind === PageKind.root || kind === PageKind.middle || kind === PageKind.leaf;
    const env = raw.envOf(page);
    say(
      'MEM-06',
      up.length === (isTable ? 1 : 0),
      () => `page ${page} hangs in ${up.length} places`,
    );
    for (const { kind: as, env: above } of up) {
      say('MEM-06', as === kind, () => `page ${page} of kind ${kind} is used as ${as}`);
      say('MEM-06', env === above, () => `table ${page} of ${env} hangs under ${above}`);
    }
    say('MEM-01', kind <= PageKind.quarantined, () => `page ${page} has kind ${kind}`);
    const published = page >= info.firstPage && page < secret.firstPage;
    const kernel = page >= secret.firstPage && page < end;
    say('MEM-01', published === (kind === PageKind.published), () => `page ${page}: published`);
    say('MEM-01', kernel === (kind === PageKind.kernel), () => `page ${page}: kernel`);
    say('MEM-01', ledgers.has(page) === (kind === PageKind.ledger), () => `page ${page}: ledger`);
    const table = ledgers.get(page);
    if (table !== undefined) {
      say('MEM-06', env === raw.envOf(table), () => `ledger ${page} is not its table's owner's`);
    }
    const account = raw.accountOf(page);
    const owned = kind !== PageKind.free && !published && !kernel;
    say('MEM-02', owned === account > 0, () => `page ${page} of kind ${kind}: account ${account}`);
    const paged = isTable || table !== undefined;
    say('MEM-02', paged === env > 0, () => `page ${page} of kind ${kind} is of ${env}`);
    const first = raw.access(page, 0);
    say(
      'MEM-02',
      (owned && kind !== PageKind.quarantined) === first.rights > 0,
      () => `page ${page} of kind ${kind}: entry 0`,
    );
    if (isTable) {
      const count = raw.page(page, PageRecord.leaves);
      say('MEM-13', count === filled.get(page), () => `table ${page} counts ${count} entries`);
      say('CON', first.last === 0, () => `table ${page} has a list of leaves`);
    }
  }
  const total = [...byKind.values()].reduce((sum, n) => sum + n, 0);
  say('CON', total === raw.pages, () => `${total} pages of ${raw.pages} have a kind`);

  // ---- MEM-03, MEM-04, MEM-07, MEM-08: every leaf -----------------------------------------------

  const named = new Map<number, number>(); // page: leaves
  const viewed = new Map<number, number>();
  const writers = new Map<number, number>();
  const capLeaves = new Map<number, number>(); // environment × slot
  const listed = new Map<number, Set<number>>(); // page × entry: leaves that it justifies
  const accounts = new Map<number, Set<number>>();
  for (const leaf of leaves) {
    const { env, page, flags, table, index, vpn } = leaf;
    const at = (): string => `page ${page} at ${vpn} of environment ${env}`;
    witness.leaves++;
    say('MEM-05', exists(page), () => `${at()} is beyond memory`);
    if (!exists(page)) continue;
    say('MEM-07', (flags & (U | G | X)) === U, () => `${at()} has flags ${flags}`);
    say('MEM-07', (flags & R) !== 0, () => `${at()} is not readable`);
    const kind = raw.kind(page);
    if (kind !== PageKind.user && kind !== PageKind.quarantined) {
      say('MEM-07', (flags & W) === 0, () => `${at()} of kind ${kind} is writable`);
      const table3 = kind === PageKind.root || kind === PageKind.middle || kind === PageKind.leaf;
      say('MEM-08', kind === PageKind.published || table3, () => `${at()} of kind ${kind} is seen`);
      if (table3) {
        viewed.set(page, (viewed.get(page) ?? 0) + 1);
        const key = page * ACCESS_ENTRIES + VIEWS;
        listed.set(key, (listed.get(key) ?? new Set<number>()).add((table << 9) | index));
        witness.views++;
      }
      continue;
    }
    if ((flags & W) !== 0) witness.writable++;
    named.set(page, (named.get(page) ?? 0) + 1);
    const { slot, entry } = ledgerRecord(raw, table, index);
    say('MEM-04', slot < CAP_SLOTS && entry < ACCESS_ENTRIES, () => `${at()}: bad justification`);
    if (slot >= CAP_SLOTS || entry >= ACCESS_ENTRIES) continue;
    const held = env * CAP_SLOTS + slot;
    capLeaves.set(held, (capLeaves.get(held) ?? 0) + 1);
    const key = page * ACCESS_ENTRIES + entry;
    const set = listed.get(key) ?? new Set<number>();
    listed.set(key, set.add((table << 9) | index));
    if ((flags & W) !== 0) writers.set(page, (writers.get(page) ?? 0) + 1);
    // What is being taken away justifies nothing any more, and goes step by step.
    if (kind === PageKind.quarantined || isGoing(raw, page, entry)) continue;
    const cap = raw.cap(env, slot);
    const granted = raw.access(page, entry);
    const need = READ | ((flags & W) !== 0 ? WRITE : 0);
    say('MEM-04', (cap.rights & need) === need, () => `${at()}: slot ${slot} has ${cap.rights}`);
    say('MEM-03', (granted.rights & need) === need, () => `${at()}: entry ${entry} grants less`);
    say('MEM-04', isPrefix(bytesOf(cap), bytesOf(granted)), () => `${at()}: slot ${slot} strays`);
    if (entry > 0) witness.borrowed++;
    const who = accounts.get(page) ?? new Set<number>();
    accounts.set(page, who.add(raw.env(env, Env.account)));
  }
  for (const who of accounts.values()) if (who.size > 1) witness.shared++;

  // ---- MEM-13, MEM-14, CON: counts and lists ----------------------------------------------------

  const pins = new Map<number, number>();
  let requests = 0;
  for (let tag = 0; tag < DISK_TAGS; tag++) {
    const id = raw.queued(tag, Queued.env);
    if (id === 0) continue;
    requests++;
    const [own, row] = [id === -1, envIndex(id)];
    say('MEM-14', own || raw.id(row) === id, () => `disk request ${tag} is of a stale ${id}`);
    for (let n = 0; n < raw.queued(tag, Queued.count); n++) {
      const page = raw.queued(tag, Queued.pages + n) & 0x0fffffff;
      pins.set(page, (pins.get(page) ?? 0) + 1);
      const is = raw.kind(page);
      const given = is === PageKind.user || is === PageKind.quarantined;
      say('MEM-15', given || page === raw.state.staging, () => `page ${page} is in flight: ${is}`);
    }
  }
  say(
    'CON',
    raw.info(Info.diskQueued) === requests,
    () => 'diskQueued is not the requests in flight',
  );
  for (const page of pages) {
    const kind = raw.kind(page);
    const pinned = raw.page(page, PageRecord.pins);
    say('MEM-13', pinned === (pins.get(page) ?? 0), () => `page ${page} has ${pinned} pins`);
    if (pinned > 0) witness.pinned++;
    const views = raw.page(page, PageRecord.views);
    const seen = viewed.get(page) ?? writers.get(page) ?? 0;
    say('MEM-13', views === seen, () => `page ${page} has ${views} views or writers, not ${seen}`);
    if (kind === PageKind.free) {
      const left = [PageRecord.leaves, PageRecord.pins, PageRecord.views];
      say(
        'MEM-14',
        left.every((word) => raw.page(page, word) === 0),
        () => `free ${page} is in use`,
      );
      for (let entry = 0; entry < ACCESS_ENTRIES; entry++) {
        say(
          'MEM-14',
          raw.access(page, entry).rights === 0,
          () => `free ${page} has entry ${entry}`,
        );
      }
    }
    if (kind === PageKind.root || kind === PageKind.middle || kind === PageKind.leaf) {
      const wanted = listed.get(page * ACCESS_ENTRIES + VIEWS) ?? NONE;
      const problem = chainProblem(raw, raw.access(page, VIEWS).last, wanted);
      say('CON', problem === '', () => `views of table ${page}: ${problem}`);
    }
    if (kind !== PageKind.user && kind !== PageKind.quarantined) continue;
    if (kind === PageKind.quarantined) {
      const reached = raw.page(page, PageRecord.leaves) + pinned;
      say('MEM-14', reached > 0, () => `quarantined ${page} is reached by nothing`);
    }
    const count = raw.page(page, PageRecord.leaves);
    say('MEM-13', count === (named.get(page) ?? 0), () => `page ${page} counts ${count} leaves`);
    for (let entry = 0; entry < ACCESS_ENTRIES; entry++) {
      const wanted = listed.get(page * ACCESS_ENTRIES + entry) ?? NONE;
      const problem = listProblem(raw, page, entry, wanted);
      say('CON', problem === '', () => `list of page ${page}, entry ${entry}: ${problem}`);
      if (wanted.size > 1) witness.lists++;
      const granted = raw.access(page, entry);
      say('CAP', granted.rights === 0 || wellFormed(granted), () => `page ${page}: name ${entry}`);
    }
  }

  // ---- CAP-02, CAP-14: capabilities -------------------------------------------------------------

  for (const env of alive) {
    const guard = { a: raw.env(env, Env.nameA), b: raw.env(env, Env.nameB) };
    for (let slot = 0; slot < CAP_SLOTS; slot++) {
      const cap = raw.cap(env, slot);
      const count = capLeaves.get(env * CAP_SLOTS + slot) ?? 0;
      if (cap.rights === 0) {
        say('CAP-14', count === 0, () => `empty slot ${slot} of ${env} justifies leaves`);
        continue;
      }
      say('MEM-13', cap.last === count, () => `slot ${slot} of ${env} counts ${cap.last} leaves`);
      say('CAP-02', wellFormed(cap), () => `slot ${slot} of ${env} has a malformed name`);
      if (open) continue;
      // Forging goes downwards and into one's own: the first byte of a name, the account, stays.
      say('CAP-02', (cap.a & 0xff) > 0, () => `slot ${slot} of ${env} dominates everybody`);
      const same = bytesOf(cap)[0] === bytesOf(guard)[0];
      say('CAP-02', same, () => `slot ${slot} of ${env} is of another account`);
    }
    if (raw.stateOf(env) === EnvState.zombie) witness.zombies++;
  }

  // ---- IPC-06: queues ---------------------------------------------------------------------------

  const inQueue = new Map<number, number>();
  for (const server of alive) {
    let last = 0;
    let at = raw.secret(server, Private.queueHead);
    for (let hops = 0; at !== 0 && hops < raw.rows; hops++) {
      witness.queued++;
      say('IPC-06', !inQueue.has(at), () => `environment ${at} stands in two queues`);
      inQueue.set(at, server);
      const is = raw.stateOf(at);
      say('IPC-06', is === EnvState.calling, () => `${at} in queue: ${is}`);
      const callee = raw.env(at, Env.partner);
      say('IPC-06', callee === raw.id(server), () => `${at} queues at the wrong door`);
      last = at;
      at = raw.secret(at, Private.queueNext);
    }
    say('IPC-06', at === 0, () => `the queue of ${server} is a ring`);
    const tail = raw.secret(server, Private.queueTail);
    say('IPC-06', tail === last, () => `the queue of ${server} ends at ${last}, not at ${tail}`);
  }
  for (const env of alive) {
    const stands = raw.secret(env, Private.queuePrevious) !== 0;
    // Whose callee has been reaped stands in a queue without ends until somebody would run it.
    const gone = !raw.live(raw.env(env, Env.partner));
    say('IPC-06', stands ? gone || inQueue.has(env) : !inQueue.has(env), () => `${env}: queued?`);
  }

  // ---- CON: extents, CPU ------------------------------------------------------------------------

  const blocks = new Set<number>();
  for (let extent = 0; extent < raw.state.extent.rows; extent++) {
    if (raw.extent(extent, Extent.valid) === 0) continue;
    const first = raw.extent(extent, Extent.first);
    for (let n = 0; n < raw.extent(extent, Extent.count); n++) {
      say('CON', !blocks.has(first + n), () => `block ${first + n} is in two extents`);
      blocks.add(first + n);
    }
  }
  const current = raw.cpu(Cpu.current);
  if (current > 0) {
    say(
      'CPU-01',
      raw.stateOf(current) === EnvState.ready,
      () => `${current} runs and is not ready`,
    );
    say('CPU-01', raw.cpu(Cpu.installed) === current, () => `${current} runs in another's space`);
    const { root, asid } = raw.machine.regime();
    say('UPC-01', root === raw.env(current, Env.root), () => `${current} runs on root ${root}`);
    say('UPC-01', asid === current, () => `${current} runs with ASID ${asid}`);
  }

  // ---- TLB-01, TLB-04 ---------------------------------------------------------------------------

  const walk = new Map<number, Leaf>();
  for (const leaf of leaves) walk.set(leaf.env * VPNS + leaf.vpn, leaf);
  for (const { vpn, space, ppn, flags, pages: span } of raw.machine.hart.tlbEntries()) {
    if ((flags & G) !== 0) {
      say('TLB-01', (flags & U) === 0 && vpn - ppn === 2 ** 26, () => `global entry for ${vpn}`);
      continue;
    }
    witness.tlb++;
    const leaf = walk.get(space * VPNS + vpn);
    say('TLB-04', leaf !== undefined, () => `TLB maps ${vpn} of space ${space} to ${ppn}: no leaf`);
    if (leaf === undefined) continue;
    const weaker = (flags & (R | W | X) & ~leaf.flags) === 0 && (flags & U) === (leaf.flags & U);
    const same = ppn === leaf.page && span === 1;
    say('TLB-01', same && weaker, () => `TLB maps ${vpn} of space ${space} to ${ppn}, ${flags}`);
  }
  return wrong;
}

/** A name of at most 7 bytes, with nothing beyond its length. */
function wellFormed({ a, b }: RawName): boolean {
  const length = a & 0xff;
  if (length > 7) return false;
  const all = [a >>> 8, a >>> 16, a >>> 24, b, b >>> 8, b >>> 16, b >>> 24].map((n) => n & 0xff);
  return all.slice(length).every((byte) => byte === 0);
}

/** Whether an access entry is being taken away. */
const isGoing = (raw: Raw, page: number, entry: number): boolean =>
  (raw.page(page, PageRecord.access + entry * 4 + 2) & CAP_GOING) !== 0;

interface LedgerRecord {
  readonly next: number;
  readonly previous: number;
  readonly slot: number;
  readonly entry: number;
}

function ledgerRecord(raw: Raw, table: number, index: number): LedgerRecord {
  const ledger = raw.page(table, PageRecord.ledger + (index >>> 8));
  const at = (word: number): number => raw.word(ledger, (index & 255) * 4 + word);
  return {
    next: at(0),
    previous: at(1),
    slot: at(2) & 0xff,
    entry: at(2) >>> 8,
  };
}

/** What is wrong with the list of an access entry, '' if nothing is. */
function listProblem(raw: Raw, page: number, entry: number, wanted: ReadonlySet<number>): string {
  const granted = raw.access(page, entry);
  const going = raw.kind(page) === PageKind.quarantined || isGoing(raw, page, entry);
  if (granted.rights === 0 && !going) {
    if (wanted.size > 0) return 'an empty entry justifies leaves';
    // Or what is next there would begin with it.
    const left = raw.page(page, PageRecord.access + entry * 4 + 2) % CAP_PIN;
    return granted.last === 0 && left === 0 ? '' : 'something is left in an empty entry';
  }
  return chainProblem(raw, granted.last, wanted);
}

/** The same of a list with the given head, whatever it is of. */
function chainProblem(raw: Raw, head: number, wanted: ReadonlySet<number>): string {
  const seen = new Set<number>();
  let before = 0;
  for (let at = head; at !== 0;) {
    if (seen.has(at)) return 'it is a ring';
    seen.add(at);
    if (!wanted.has(at)) return `leaf ${at} does not belong`;
    const { next, previous } = ledgerRecord(raw, at >>> 9, at & 511);
    // Who is first is named by the entry, and has no previous one.
    if (before !== 0 && previous !== before)
      return `leaf ${at} says ${previous} comes before it, not ${before}`;
    before = at;
    at = next;
  }
  return seen.size === wanted.size ? '' : `${wanted.size - seen.size} leaves are missing`;
}
