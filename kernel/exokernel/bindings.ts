/**
 * Mappings. A mapping is a secure binding: authority is checked once, when it is made; from then on
 * TLB and tables enforce it and the kernel is not asked.
 *
 * Each leaf is justified by exactly one capability slot of the environment that it maps into and
 * one access entry of the page. Its record lies in the ledger pages of its table, which whoever
 * made the table paid for, and on one list per access entry: so taking the entry away can find
 * every leaf it justified, and the kernel needs no pool.
 *
 *     ledger record (16 bytes):  next leaf | previous leaf | slot, access entry | spare
 *
 * A leaf is named by table << 9 | index.
 */
import {
  ACCESS_ENTRIES,
  CAP_SLOTS,
  MAP_MAX,
  MAP_READ,
  MAP_SOFT,
  MAP_WRITE,
  PageKind,
  READ,
  Status,
  STEP_LEAVES,
  UNMAP_MAX,
  WRITE,
} from '../abi.ts';
import { ENTRIES, pte, PTE_A, PTE_D, PTE_U, PTE_V, PTE_W, ptePpn } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import {
  capOf,
  checkEnv,
  checkOwned,
  checkPage,
  isTaken,
  type Words,
  wordsAt,
} from './capabilities.ts';
import { fits, fitsMore, settle } from './pages.ts';
import {
  CAP_GOING,
  CAP_PIN,
  isEntry,
  isIndex,
  isSlot,
  pageNamed,
  PageRecord,
  type State,
} from './state.ts';

/** Views of a table stand on a list of their own, where a user page has that of access entry 2. */
const VIEWS = 2;

const LEDGER_RECORD = 16; // bytes

const PER_LEDGER = PAGE_BYTES / LEDGER_RECORD; // records

const Ledger = { next: 0, previous: 4, justification: 8 } as const;

// ---- making them --------------------------------------------------------------------------------

/**
 * pageMap(table, index, page, slot, access entry, flags, env slot): entry `index` of leaf table
 * `table` names `page` with `flags`. For a user page `slot` of the table's environment must
 * dominate `access entry` with the rights that `flags` ask for. Published pages can be mapped
 * read-only by anyone, table pages read-only by whoever has authority over their environment.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a leaf table); badArgument 1 (not an
 *   index); badArgument 6 (not a slot); noCapability 6 (the environment is another and the slot
 *   is empty); notPermitted 6 (the slot does not dominate its guard with WRITE); badArgument 2
 *   (not a page); badArgument 5 (not a set of flags, or without R); wrongKind 2 (not a user,
 *   published or table page); badArgument 3 (of a user page: not a slot); badArgument 4 (not an
 *   access entry); absent 4 (the access entry is empty); notPermitted 3 (the access entry lacks
 *   a right); noCapability 3 (the slot is empty); notPermitted 3 (the slot lacks a right or does
 *   not dominate the entry); notPermitted 5 (W, and not a user page); noCapability 2 (another
 *   environment's table, and the slot is empty); notPermitted 2 (the env slot does not dominate
 *   its guard); occupied 1 (the entry is filled); sharing 2 (more mappings than its limits allow)
 * @source Engler et al. (SOSP 1995), section 3.2: secure bindings.
 */
export function pageMap(state: State, caller: number, claim: Claims): Answer {
  const [table, index, flags, envSlot] = [pageNamed(state, claim(0)), claim(1), claim(5), claim(6)];
  const place = checkLeaf(state, caller, table, index, envSlot, 6);
  if (place.status !== Status.ok) return place;
  const page = pageNamed(state, claim(2));
  if (page < 0) return refuse(Status.badArgument, 2);
  if (!isFlags(flags)) return refuse(Status.badArgument, 5);
  const [slot, entry] = [claim(3), claim(4)];
  const may = checkMapping(state, caller, place.value, page, slot, entry, flags, envSlot);
  if (may.status !== Status.ok) return may;
  if (isFilled(state, table, index)) return refuse(Status.occupied, 1);
  if (may.value === PageKind.user && !fits(state, page, flags)) return refuse(Status.sharing, 2);

  bind(state, table, index, page, may.value, slot, entry, flags, place.value);
  return ok();
}

/** Arguments 2 to 5 of pageMap allow the mapping: the value is the page's kind. */
function checkMapping(
  state: State,
  caller: number,
  env: number,
  page: number,
  slot: number,
  entry: number,
  flags: number,
  envSlot: number,
): Answer {
  const kind = state.kind(page);
  const view = isTable(kind);
  if (kind !== PageKind.user && kind !== PageKind.published && !view) {
    return refuse(Status.wrongKind, 2);
  }
  if (kind === PageKind.user) {
    if (!isSlot(slot)) return refuse(Status.badArgument, 3);
    if (!isEntry(entry)) return refuse(Status.badArgument, 4);
    const may = checkPage(state, capOf(state, env, slot), page, entry, rightsOf(flags));
    if (may !== Status.ok) return refuse(may, may === Status.absent ? 4 : 3);
  } else {
    if ((flags & MAP_WRITE) !== 0) return refuse(Status.notPermitted, 5);
    if (view) {
      const may = checkEnv(state, caller, envSlot, state.envOf(page));
      if (may !== Status.ok) return refuse(may, 2);
    }
  }
  return ok(kind);
}

const isFilled = (state: State, table: number, index: number): boolean =>
  ((state.machine.readPtes(table, index, 1)[0] ?? 0) & PTE_V) !== 0;

/** Makes a mapping that was checked, of a page of `kind`: ledger, counts, leaf. */
export function bind(
  state: State,
  table: number,
  index: number,
  page: number,
  kind: number,
  slot: number,
  entry: number,
  flags: number,
  env: number,
): void {
  enter(state, recordsOf(state, table), table, index, page, kind, slot, entry, flags);
  count(state, table, env, kind === PageKind.user ? slot : -1, 1);
}

/** A leaf, its record, and what counts it with the page. The rest is for `count`. */
function enter(
  state: State,
  record: Records,
  table: number,
  index: number,
  page: number,
  kind: number,
  slot: number,
  entry: number,
  flags: number,
): void {
  const leaf = (table << 9) | index;
  if (isTable(kind)) {
    link(state, record(index), leaf, page, 0, VIEWS);
    state.page.add(page, PageRecord.views, 1);
  } else if (kind === PageKind.user) {
    link(state, record(index), leaf, page, slot, entry);
    state.page.add(page, PageRecord.leaves, 1);
    if ((flags & MAP_WRITE) !== 0) state.page.add(page, PageRecord.writers, 1);
  }
  state.machine.writePtes([{ table, index, value: pte(page, flags | PTE_U | PTE_V) }]);
}

/** So many leaves more in `table` of `env`, which capability `slot` justifies (-1: none does). */
function count(state: State, table: number, env: number, slot: number, leaves: number): void {
  state.page.add(table, PageRecord.leaves, leaves);
  if (slot >= 0) state.secret.add(env, state.cap(slot, 3), leaves);
}

/**
 * pageMapList(table, index, count, list address, slot, flags, env slot): maps `count` user pages, 1
 * to MAP_MAX, at consecutive entries from `index` on, each by `slot` of the table's environment and
 * with `flags`. The list has a word per page: page | access entry << 28. It stops at the first that
 * pageMap would refuse. The value is how many were mapped; the reason is in the answer only if it
 * is the first, so one more call from there on tells it.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a leaf table); badArgument 1 (not an
 *   index); badArgument 6 (not a slot); noCapability 6 (the environment is another and the slot is
 *   empty); notPermitted 6 (the slot does not dominate its guard with WRITE); badArgument 2 (below
 *   1, or past the end of the table); tooMany 2 (more than 64); badArgument 5 (not a set of flags,
 *   or without R); badArgument 4 (not a slot); badAddress 3 (the list cannot be read); of its first
 *   word: badArgument 3 (no page, or no access entry); wrongKind 3 (not a user page); absent 3 (the
 *   access entry is empty); notPermitted 4 (the access entry lacks a right); noCapability 4 (the
 *   slot is empty); notPermitted 4 (the slot lacks a right or does not dominate the entry);
 *   occupied 1 (the entry is filled); sharing 3 (more mappings than its limits allow)
 * @source Xok, insert_pte_range: reports how many were done, so that it can be restarted.
 */
export function pageMapList(state: State, caller: number, claim: Claims): Answer {
  const [table, index, number] = [pageNamed(state, claim(0)), claim(1), claim(2)];
  const [list, slot, flags, envSlot] = [claim(3), claim(4), claim(5), claim(6)];
  const place = checkLeaf(state, caller, table, index, envSlot, 6);
  if (place.status !== Status.ok) return place;
  const range = checkRange(index, number, 2, MAP_MAX);
  if (range.status !== Status.ok) return range;
  if (!isFlags(flags)) return refuse(Status.badArgument, 5);
  if (!isSlot(slot)) return refuse(Status.badArgument, 4);
  const [cap, record] = [capOf(state, place.value, slot), recordsOf(state, table)];
  let [done, may] = [0, ok()];
  for (; done < number; done++) {
    const at = index + done;
    const word = state.machine.loadUser(list + done * 4);
    may =
      word === null
        ? refuse(Status.badAddress, 3)
        : checkListed(state, table, at, word, cap, flags);
    if (may.status !== Status.ok) break;
    const entry = (word ?? 0) >>> 28;
    enter(state, record, table, at, may.value, PageKind.user, slot, entry, flags);
  }
  if (done === 0) return may;
  count(state, table, place.value, slot, done);
  return ok(done);
}

/** One word of a list allows the mapping: the value is the page. */
function checkListed(
  state: State,
  table: number,
  index: number,
  word: number,
  cap: Words,
  flags: number,
): Answer {
  const [page, entry] = [pageNamed(state, word & LISTED_PAGE), word >>> 28];
  if (page < 0 || !isEntry(entry)) return refuse(Status.badArgument, 3);
  if (state.kind(page) !== PageKind.user) return refuse(Status.wrongKind, 3);
  const may = checkPage(state, cap, page, entry, rightsOf(flags));
  if (may !== Status.ok) return refuse(may, may === Status.absent ? 3 : 4);
  if (isFilled(state, table, index)) return refuse(Status.occupied, 1);
  return fits(state, page, flags) ? ok(page) : refuse(Status.sharing, 3);
}

/** A list's word: page name, and above it the access entry. */
export const LISTED_PAGE = 0x0fffffff;

/** `count` entries from `index` on are of one table, and no more than one call may take. */
function checkRange(index: number, count: number, argument: number, most: number): Answer {
  if (!Number.isInteger(count) || count < 1 || index + count > ENTRIES) {
    return refuse(Status.badArgument, argument);
  }
  return count > most ? refuse(Status.tooMany, argument) : ok();
}

const isTable = (kind: number): boolean =>
  kind === PageKind.leaf || kind === PageKind.middle || kind === PageKind.root;

const MAP_ALL = MAP_READ | MAP_WRITE | MAP_SOFT;

const isFlags = (n: number): boolean =>
  Number.isInteger(n) && n >= 0 && n <= MAP_ALL && (n & ~MAP_ALL) === 0 && (n & MAP_READ) !== 0;

const rightsOf = (flags: number): number => READ | ((flags & MAP_WRITE) !== 0 ? WRITE : 0);

/** Arguments name an entry of a leaf table over whose environment the caller has authority. */
function checkLeaf(
  state: State,
  caller: number,
  table: number,
  index: number,
  envSlot: number,
  argument: number,
): Answer {
  if (table < 0) return refuse(Status.badArgument, 0);
  const { kind, env } = state.pageOf(table);
  if (kind !== PageKind.leaf) return refuse(Status.wrongKind, 0);
  if (!isIndex(index)) return refuse(Status.badArgument, 1);
  if (!isSlot(envSlot)) return refuse(Status.badArgument, argument);
  const may = checkEnv(state, caller, envSlot, env);
  return may === Status.ok ? ok(env) : refuse(may, argument);
}

/** Physical addresses of the ledger records of a table, by index: its pages are looked up once. */
type Records = (index: number) => number;
function recordsOf(state: State, table: number): Records {
  const ledger = wordsAt(state.page, table, PageRecord.ledger);
  return (index) =>
    ledger(Math.floor(index / PER_LEDGER)) * PAGE_BYTES + (index % PER_LEDGER) * LEDGER_RECORD;
}

const recordOf = (state: State, leaf: number): number =>
  recordsOf(state, leaf >>> 9)(leaf & (ENTRIES - 1));

/** Puts a leaf first on the list of the access entry that justifies it. */
function link(
  state: State,
  record: number,
  leaf: number,
  page: number,
  slot: number,
  entry: number,
): void {
  const { machine } = state;
  const next = state.page.get(page, state.access(entry, 3));
  machine.store(record + Ledger.next, next);
  machine.store(record + Ledger.justification, slot | (entry << 8));
  if (next !== 0) machine.store(recordOf(state, next) + Ledger.previous, leaf);
  state.page.put(page, state.access(entry, 3), leaf);
}

/**
 * Takes a leaf, whose entry was `old`, off its list and out of the page's counts. Returns the slot
 * that justified it, or -1.
 */
function unlink(
  state: State,
  record: number,
  leaf: number,
  page: number,
  kind: number,
  old: number,
): number {
  const { machine } = state;
  const next = machine.load(record + Ledger.next);
  const justification = machine.load(record + Ledger.justification);
  const head = state.access(justification >>> 8, 3);
  if (state.page.get(page, head) === leaf) state.page.put(page, head, next);
  else {
    // The first of a list has no previous one; who is not the first knows who is.
    const previous = machine.load(record + Ledger.previous);
    machine.store(recordOf(state, previous) + Ledger.next, next);
    if (next !== 0) machine.store(recordOf(state, next) + Ledger.previous, previous);
  }
  if (isTable(kind)) {
    state.page.add(page, PageRecord.views, -1);
    return -1;
  }
  state.page.add(page, PageRecord.leaves, -1);
  if ((old & PTE_W) !== 0) state.page.add(page, PageRecord.writers, -1);
  return justification & 0xff;
}

/**
 * pageUnmap(table, index, count, env slot): empties `count` entries from `index` on, 1 to
 * UNMAP_MAX; empty ones are passed over. The value is how many were filled.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a leaf table); badArgument 1 (not an
 *   index); badArgument 3 (not a slot); noCapability 3 (the environment is another and the slot
 *   is empty); notPermitted 3 (the slot does not dominate its guard with WRITE); badArgument 2
 *   (below 1, or past the end of the table); tooMany 2 (more than 64)
 */
export function pageUnmap(state: State, caller: number, claim: Claims): Answer {
  const [table, index] = [pageNamed(state, claim(0)), claim(1)];
  const [number, envSlot] = [claim(2), claim(3)];
  const place = checkLeaf(state, caller, table, index, envSlot, 3);
  if (place.status !== Status.ok) return place;
  const range = checkRange(index, number, 2, UNMAP_MAX);
  if (range.status !== Status.ok) return range;

  const env = place.value;
  const entries = state.machine.readPtes(table, index, number);
  const record = recordsOf(state, table);
  const justified = new Map<number, number>(); // by slot
  const updates = [];
  for (let at = index; at < index + number; at++) {
    const entry = entries[at - index] ?? 0;
    if ((entry & PTE_V) === 0) continue;
    const page = ptePpn(entry);
    const kind = state.kind(page);
    if (kind !== PageKind.published) {
      const slot = unlink(state, record(at), (table << 9) | at, page, kind, entry);
      justified.set(slot, (justified.get(slot) ?? 0) + 1);
    }
    if (kind === PageKind.quarantined) settle(state, page);
    updates.push({ table, index: at, value: 0 });
  }
  state.machine.writePtes(updates);
  fenceAll(state, env, table, updates);
  count(state, table, env, -1, -updates.length);
  for (const [slot, leaves] of justified) {
    if (slot >= 0) state.secret.add(env, state.cap(slot, 3), -leaves);
  }
  return ok(updates.length);
}

/**
 * pageProtect(table, index, count, flags, env slot): changes the flags of `count` entries from
 * `index` on, 1 to MAP_MAX, within the rights that justify each; empty ones are passed over. It
 * stops at the first that it must refuse. Accessed and dirty bits stay. The value is how many
 * entries it went over; the reason is in the answer only if it is the first filled one.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a leaf table); badArgument 1 (not an
 *   index); badArgument 4 (not a slot); noCapability 4 (the environment is another and the slot
 *   is empty); notPermitted 4 (the slot does not dominate its guard with WRITE); badArgument 2
 *   (below 1, or past the end of the table); tooMany 2 (more than 64); badArgument 3 (not a set of
 *   flags, or without R); absent 1 (no entry is filled); notPermitted 3 (W is more than justifies
 *   the leaf); absent 3 (W, and its access entry is going); sharing 3 (W, and more writable
 *   mappings than its limits allow)
 */
export function pageProtect(state: State, caller: number, claim: Claims): Answer {
  const [table, index, number] = [pageNamed(state, claim(0)), claim(1), claim(2)];
  const [flags, envSlot] = [claim(3), claim(4)];
  const place = checkLeaf(state, caller, table, index, envSlot, 4);
  if (place.status !== Status.ok) return place;
  const range = checkRange(index, number, 2, MAP_MAX);
  if (range.status !== Status.ok) return range;
  if (!isFlags(flags)) return refuse(Status.badArgument, 3);

  const entries = state.machine.readPtes(table, index, number);
  const mayWrite = writeCheck(state, table, place.value);
  const updates = [];
  let [done, fault] = [0, Status.absent as number];
  for (; done < number; done++) {
    const old = entries[done] ?? 0;
    if ((old & PTE_V) === 0) continue;
    const [page, kept] = [ptePpn(old), old & (PTE_A | PTE_D)];
    const more = ((flags & MAP_WRITE) !== 0 ? 1 : 0) - ((old & PTE_W) !== 0 ? 1 : 0);
    fault = more > 0 ? mayWrite(index + done, page) : Status.ok;
    if (fault !== Status.ok) break;
    if (more !== 0) state.page.add(page, PageRecord.writers, more);
    const value = pte(page, flags | kept | PTE_U | PTE_V);
    updates.push({ table, index: index + done, value });
  }
  if (updates.length === 0) {
    return refuse(fault, fault === Status.absent && done === number ? 1 : 3);
  }
  state.machine.writePtes(updates);
  fenceAll(state, place.value, table, updates);
  return ok(done);
}

/** Whether a leaf of the table may become writable, by what justifies it: status 0, or why not. */
function writeCheck(
  state: State,
  table: number,
  env: number,
): (index: number, page: number) => number {
  const record = recordsOf(state, table);
  const caps = Array.from({ length: CAP_SLOTS }, (_, slot) => capOf(state, env, slot));
  return (index, page) => {
    if (state.kind(page) !== PageKind.user) return Status.notPermitted;
    const justification = state.machine.load(record(index) + Ledger.justification);
    const [slot, entry] = [justification & 0xff, justification >>> 8];
    const cap = caps[slot] ?? capOf(state, env, slot);
    const may = checkPage(state, cap, page, entry, READ | WRITE);
    if (may !== Status.ok) return may;
    return fitsMore(state, page, 0, 1) ? Status.ok : Status.sharing;
  };
}

/** Past a few entries one fence of the space is cheaper than one for each page. */
function fenceAll(
  state: State,
  env: number,
  table: number,
  updates: readonly { readonly index: number }[],
): void {
  if (updates.length > 4) {
    state.machine.fence(env);
    return;
  }
  const base = state.page.get(table, PageRecord.base);
  for (const { index } of updates) state.machine.fence(env, base + index);
}

// ---- breaking them ------------------------------------------------------------------------------

/**
 * pageSweep(page): takes STEP_LEAVES mappings of a quarantined page away. Anybody may: the page has
 * no owner any more.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not quarantined); busy 0 (no mapping is left,
 *   and a device still reaches it)
 */
export function pageSweep(state: State, _caller: number, claim: Claims): Answer {
  const page = pageNamed(state, claim(0));
  if (page < 0) return refuse(Status.badArgument, 0);
  if (state.kind(page) !== PageKind.quarantined) return refuse(Status.wrongKind, 0);
  if (state.page.get(page, PageRecord.leaves) === 0) return refuse(Status.busy, 0);

  return sweep(state, page);
}

/** A step of emptying a quarantined page: `again` while mappings remain. */
export function sweep(state: State, page: number): Answer {
  let budget = STEP_LEAVES;
  for (let entry = 0; entry < ACCESS_ENTRIES; entry++) {
    budget -= breakLeaves(state, page, PageKind.quarantined, entry, budget);
  }
  if (state.page.get(page, PageRecord.leaves) !== 0) return { status: Status.again, value: 0 };
  settle(state, page);
  return ok();
}

/**
 * A step of taking away the views of `table`, for who may take the table away: whoever made them
 * may not even live any more. True: none is left.
 */
export function breakViews(state: State, table: number, kind: number): boolean {
  if (state.page.get(table, PageRecord.views) === 0) return true;
  breakLeaves(state, table, kind, VIEWS, STEP_LEAVES);
  return state.page.get(table, PageRecord.views) === 0;
}

/** Takes away up to `most` leaves that an access entry justifies; returns how many. */
function breakLeaves(
  state: State,
  page: number,
  kind: number,
  entry: number,
  most: number,
): number {
  const { machine } = state;
  for (let n = 0; n < most; n++) {
    const leaf = state.page.get(page, state.access(entry, 3));
    if (leaf === 0) return n;
    const [table, index] = [leaf >>> 9, leaf & 511];
    const env = state.envOf(table);
    const old = machine.readPtes(table, index, 1)[0] ?? 0;
    const slot = unlink(state, recordOf(state, leaf), leaf, page, kind, old);
    machine.writePtes([{ table, index, value: 0 }]);
    machine.fence(env, state.page.get(table, PageRecord.base) + index);
    count(state, table, env, slot, -1);
  }
  return most;
}

/**
 * accessRemove(page, slot, entry): takes access entry `entry` away, and with it at most STEP_LEAVES
 * of the mappings that it justified, wherever they are; `again` while mappings remain, or a device
 * request by it is in flight. From the first step on it justifies nothing new. Entry 0 says whose
 * the page is: its mappings go, the entry stays.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a user page); badArgument 1 (not a
 *   slot); noCapability 1 (the slot is empty); notPermitted 1 (the slot does not dominate entry
 *   0 with GRANT); badArgument 2 (not an access entry); absent 2 (the access entry is empty)
 * @source Engler et al. (SOSP 1995), section 3.3: breaking a secure binding.
 */
export function accessRemove(state: State, caller: number, claim: Claims): Answer {
  const [page, entry] = [pageNamed(state, claim(0)), claim(2)];
  const owned = checkOwned(state, caller, page, claim(1));
  if (owned.status !== Status.ok) return owned;
  if (!isEntry(entry)) return refuse(Status.badArgument, 2);
  if (!isTaken(state, page, entry)) return refuse(Status.absent, 2);

  const column = state.access(entry, 2);
  const pins = state.page.get(page, column) & ~(CAP_PIN - 1);
  if (entry !== 0) state.page.put(page, column, pins | CAP_GOING);
  breakLeaves(state, page, PageKind.user, entry, STEP_LEAVES);
  const left = state.page.get(page, state.access(entry, 3)) !== 0;
  if (left || pins !== 0) return { status: Status.again, value: 0 };
  if (entry !== 0) state.page.put(page, column, 0);
  return ok();
}
