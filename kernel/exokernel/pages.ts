/**
 * Physical pages, table pages and mappings. A mapping is a secure binding: authority is checked
 * once, when it is made; from then on TLB and tables enforce it and the kernel is not asked.
 *
 * Each leaf is justified by exactly one capability slot of the environment that it maps into and
 * one access entry of the page. Its record lies in the ledger pages of its table, which whoever
 * made the table paid for, and on one list per access entry: so taking the entry away can find
 * every leaf it justified, and the kernel needs no pool.
 *
 *     ledger record (16 bytes):  next leaf | previous leaf | page | slot, entry, rights
 *
 * A leaf is named by table << 9 | index. Nelson et al., "Hyperkernel", SOSP 2017, section 4.
 */
import {
  ALL_RIGHTS,
  MAP_READ,
  MAP_SOFT,
  MAP_WRITE,
  PageKind,
  READ,
  Status,
  UNMAP_MAX,
  WRITE,
} from '../abi.ts';
import { writeDirectMap } from '../supervisor.ts';
import { ENTRIES, pte, PTE_A, PTE_D, PTE_U, PTE_V, ptePpn } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { checkEnv, checkOwned, checkPage, putEntry } from './capabilities.ts';
import { CAP_VALID, isEntry, isIndex, isPage, isSlot, PageRecord, type State } from './state.ts';

const LEDGER_RECORD = 16; // bytes
const PER_LEDGER = PAGE_BYTES / LEDGER_RECORD; // records
const Ledger = { next: 0, previous: 4, page: 8, justification: 12 } as const;

/**
 * pageAllocate(page, slot): takes free page `page` for the name of capability `slot`, scrubbed.
 * Engler et al., SOSP 1995, section 3.1: physical names, no implicit allocation.
 *
 * @refuses badArgument 0 (not a page); badArgument 1 (not a slot); noCapability 1 (the slot is
 *   empty); notPermitted 1 (the slot lacks a right); notFree 0 (the page is taken)
 * @source Engler et al. (SOSP 1995), section 3.1: physical names, no implicit allocation.
 */
export function pageAllocate(state: State, caller: number, claim: Claims): Answer {
  const page = claim(0);
  const slot = claim(1);
  if (!isPage(state, page)) return refuse(Status.badArgument, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  const { secret } = state;
  const rights = secret.get(caller, state.cap(slot, 2));
  if ((rights & CAP_VALID) === 0) return refuse(Status.noCapability, 1);
  if ((rights & ALL_RIGHTS) !== ALL_RIGHTS) return refuse(Status.notPermitted, 1);
  if (state.kind(page) !== PageKind.free) return refuse(Status.notFree, 0);

  const a = secret.get(caller, state.cap(slot, 0));
  const b = secret.get(caller, state.cap(slot, 1));
  claimPage(state, page, caller, a, b);
  return ok();
}

/** A free page becomes a user page of the given name, zeroed. */
export function claimPage(state: State, page: number, env: number, a: number, b: number): void {
  state.machine.zeroPage(page);
  state.setKind(page, PageKind.user, env);
  putEntry(state, page, 0, a, b, ALL_RIGHTS);
}

/**
 * pageFree(page, slot): gives a user page back. It must have no leaves and no pins: a page that a
 * device still writes to is never handed on.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a user page); badArgument 1 (not a
 *   slot); noCapability 1 (the slot is empty); notPermitted 1 (the slot does not dominate entry
 *   0 with GRANT); busy 0 (the page has leaves or pins)
 */
export function pageFree(state: State, caller: number, claim: Claims): Answer {
  const page = claim(0);
  const owned = checkOwned(state, caller, page, claim(1));
  if (owned.status !== Status.ok) return owned;
  if (!isIdle(state, page)) return refuse(Status.busy, 0);

  releasePage(state, page);
  return ok();
}

function releasePage(state: State, page: number): void {
  for (let entry = 0; entry < 4; entry++) state.page.put(page, state.access(entry, 2), 0);
  state.page.add(page, PageRecord.generation, 1);
  state.setKind(page, PageKind.free, 0);
}

const isIdle = (state: State, page: number): boolean =>
  state.page.get(page, PageRecord.leaves) === 0 && state.page.get(page, PageRecord.pins) === 0;

/**
 * tableCreate(parent, index, page, slot, ledger 0, ledger 1, env slot): makes user page `page` a
 * table and hangs it under entry `index` of `parent`, a root or a middle table. A leaf table takes
 * two more pages for its ledger; under a root the ledger arguments are ignored.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a root or a middle table); badArgument 1
 *   (not an index; of a root, of its lower half); badArgument 2 (not a page); wrongKind 2 (not a
 *   user page); badArgument 3 (not a slot); noCapability 3 (the slot is empty); notPermitted 3
 *   (it does not dominate entry 0 of the page); busy 2 (the page has leaves, pins or further
 *   entries); badArgument 4 (not a page); wrongKind 4 (not a user page); notPermitted 3 (it does
 *   not dominate entry 0 of ledger 0); busy 4 (ledger 0 has leaves, pins or further entries);
 *   badArgument 5 (not a page); wrongKind 5 (not a user page); busy 5 (ledger 1 has leaves, pins
 *   or further entries); badArgument 4 (ledger 0 is ledger 1 or the page); badArgument 5 (ledger
 *   1 is the page); badArgument 6 (not a slot); noCapability 6 (the environment is another and
 *   the slot is empty); notPermitted 6 (the slot does not dominate its guard with WRITE);
 *   occupied 1 (the entry is filled)
 * @source Hyperkernel (SOSP 2017), section 4: tables level by level.
 */
export function tableCreate(state: State, caller: number, claim: Claims): Answer {
  const [parent, index, page, slot] = [claim(0), claim(1), claim(2), claim(3)];
  const [ledger0, ledger1, envSlot] = [claim(4), claim(5), claim(6)];
  if (!isPage(state, parent)) return refuse(Status.badArgument, 0);
  const above = state.kind(parent);
  if (above !== PageKind.root && above !== PageKind.middle) return refuse(Status.wrongKind, 0);
  const top = above === PageKind.root;
  // The upper half of a root is the kernel's.
  if (!isIndex(index) || (top && index >= ENTRIES / 2)) return refuse(Status.badArgument, 1);
  const owned = spendable(state, caller, page, slot, 2, 3);
  if (owned.status !== Status.ok) return owned;
  if (!top) {
    const first = spendable(state, caller, ledger0, slot, 4, 3);
    if (first.status !== Status.ok) return first;
    const second = spendable(state, caller, ledger1, slot, 5, 3);
    if (second.status !== Status.ok) return second;
    if (ledger0 === ledger1 || ledger0 === page) return refuse(Status.badArgument, 4);
    if (ledger1 === page) return refuse(Status.badArgument, 5);
  }
  if (!isSlot(envSlot)) return refuse(Status.badArgument, 6);
  const env = state.ownerOf(parent);
  const may = checkEnv(state, caller, envSlot, env);
  if (may !== Status.ok) return refuse(may, 6);
  const { machine } = state;
  if (((machine.readPtes(parent, index, 1)[0] ?? 0) & PTE_V) !== 0) {
    return refuse(Status.occupied, 1);
  }

  const base =
    state.page.get(parent, PageRecord.base) + index * (top ? ENTRIES * ENTRIES : ENTRIES);
  machine.zeroPage(page);
  state.setKind(page, top ? PageKind.middle : PageKind.leaf, env);
  state.page.put(page, PageRecord.leaves, 0);
  state.page.put(page, PageRecord.views, 0);
  state.page.put(page, PageRecord.parent, parent);
  state.page.put(page, PageRecord.parentIndex, index);
  state.page.put(page, PageRecord.base, base);
  if (!top) {
    state.page.put(page, PageRecord.ledger, ledger0);
    state.page.put(page, PageRecord.ledger + 1, ledger1);
    for (const ledger of [ledger0, ledger1]) {
      state.setKind(ledger, PageKind.ledger, env);
    }
  }
  state.page.add(parent, PageRecord.leaves, 1);
  machine.writePtes([{ table: parent, index, value: pte(page, PTE_V) }]);
  return ok();
}

/** A user page that the caller answers for and nobody uses: fit to become a table. */
function spendable(
  state: State,
  caller: number,
  page: number,
  slot: number,
  argument: number,
  slotArgument: number,
): Answer {
  if (!isPage(state, page)) return refuse(Status.badArgument, argument);
  if (state.kind(page) !== PageKind.user) return refuse(Status.wrongKind, argument);
  const owned = checkOwned(state, caller, page, slot);
  if (owned.status !== Status.ok) return refuse(owned.status, slotArgument);
  return isIdle(state, page) && !isShared(state, page) ? ok() : refuse(Status.busy, argument);
}

const isShared = (state: State, page: number): boolean =>
  [1, 2, 3].some((entry) => (state.page.get(page, state.access(entry, 2)) & CAP_VALID) !== 0);

/** Makes user page `page` the root table of `env`: the direct map above, nothing below. */
export function makeRoot(state: State, page: number, env: number): void {
  state.machine.zeroPage(page);
  writeDirectMap(state.machine, page);
  state.setKind(page, PageKind.root, env);
  state.page.put(page, PageRecord.leaves, 0);
  state.page.put(page, PageRecord.views, 0);
  state.page.put(page, PageRecord.base, 0);
}

/** Whether a page may become a root: see spendable. */
export const checkRoot = spendable;

/** A table page is a user page again. Its ledger pages too. */
export function unmakeTable(state: State, table: number, leaf: boolean, env: number): void {
  if (leaf) {
    for (const n of [0, 1]) {
      const ledger = state.page.get(table, PageRecord.ledger + n);
      state.setKind(ledger, PageKind.user, env);
    }
  }
  for (let entry = 1; entry < 4; entry++) {
    for (let word = 0; word < 4; word++) state.page.put(table, state.access(entry, word), 0);
  }
  state.page.put(table, PageRecord.views, 0);
  state.setKind(table, PageKind.user, env);
}

/**
 * tableDestroy(table, env slot): takes an empty leaf or middle table out of its parent; it and its
 * ledger are user pages again.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a leaf or a middle table); badArgument 1
 *   (not a slot); noCapability 1 (the environment is another and the slot is empty);
 *   notPermitted 1 (the slot does not dominate its guard with WRITE); busy 0 (the table has
 *   entries or views)
 */
export function tableDestroy(state: State, caller: number, claim: Claims): Answer {
  const [table, envSlot] = [claim(0), claim(1)];
  if (!isPage(state, table)) return refuse(Status.badArgument, 0);
  const kind = state.kind(table);
  if (kind !== PageKind.leaf && kind !== PageKind.middle) return refuse(Status.wrongKind, 0);
  if (!isSlot(envSlot)) return refuse(Status.badArgument, 1);
  const env = state.ownerOf(table);
  const may = checkEnv(state, caller, envSlot, env);
  if (may !== Status.ok) return refuse(may, 1);
  if (state.page.get(table, PageRecord.leaves) !== 0) return refuse(Status.busy, 0);
  if (state.page.get(table, PageRecord.views) !== 0) return refuse(Status.busy, 0);

  const parent = state.page.get(table, PageRecord.parent);
  const index = state.page.get(table, PageRecord.parentIndex);
  state.machine.writePtes([{ table: parent, index, value: 0 }]);
  state.machine.fence(env);
  state.page.add(parent, PageRecord.leaves, -1);
  unmakeTable(state, table, kind === PageKind.leaf, env);
  return ok();
}

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
 *   its guard); occupied 1 (the entry is filled)
 * @source Engler et al. (SOSP 1995), section 3.2: secure bindings.
 */
export function pageMap(state: State, caller: number, claim: Claims): Answer {
  const [table, index, page, slot] = [claim(0), claim(1), claim(2), claim(3)];
  const [entry, flags, envSlot] = [claim(4), claim(5), claim(6)];
  const place = checkLeaf(state, caller, table, index, envSlot, 6);
  if (place.status !== Status.ok) return place;
  if (!isPage(state, page)) return refuse(Status.badArgument, 2);
  if (!isFlags(flags)) return refuse(Status.badArgument, 5);
  const env = place.value;
  const kind = state.kind(page);
  const view = isView(kind);
  if (kind !== PageKind.user && kind !== PageKind.published && !view) {
    return refuse(Status.wrongKind, 2);
  }
  if (kind === PageKind.user) {
    if (!isSlot(slot)) return refuse(Status.badArgument, 3);
    if (!isEntry(entry)) return refuse(Status.badArgument, 4);
    const may = checkPage(state, env, slot, page, entry, rightsOf(flags));
    if (may !== Status.ok) return refuse(may, may === Status.absent ? 4 : 3);
  } else {
    if ((flags & MAP_WRITE) !== 0) return refuse(Status.notPermitted, 5);
    if (view) {
      const may = checkEnv(state, caller, envSlot, state.ownerOf(page));
      if (may !== Status.ok) return refuse(may, 2);
    }
  }
  if (((state.machine.readPtes(table, index, 1)[0] ?? 0) & PTE_V) !== 0) {
    return refuse(Status.occupied, 1);
  }

  if (kind === PageKind.user) link(state, table, index, page, slot, entry, env);
  else if (view) state.page.add(page, PageRecord.views, 1);
  state.page.add(table, PageRecord.leaves, 1);
  state.machine.writePtes([{ table, index, value: pte(page, flags | PTE_U | PTE_V) }]);
  return ok();
}

const isView = (kind: number): boolean =>
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
  if (!isPage(state, table)) return refuse(Status.badArgument, 0);
  if (state.kind(table) !== PageKind.leaf) return refuse(Status.wrongKind, 0);
  if (!isIndex(index)) return refuse(Status.badArgument, 1);
  if (!isSlot(envSlot)) return refuse(Status.badArgument, argument);
  const env = state.ownerOf(table);
  const may = checkEnv(state, caller, envSlot, env);
  return may === Status.ok ? ok(env) : refuse(may, argument);
}

/** Physical address of a leaf's ledger record. */
function ledgerAt(state: State, leaf: number): number {
  const table = leaf >>> 9;
  const index = leaf & 511;
  const which = index < PER_LEDGER ? 0 : 1;
  const ledger = state.page.get(table, PageRecord.ledger + which);
  return ledger * PAGE_BYTES + (index % PER_LEDGER) * LEDGER_RECORD;
}

/** Puts a leaf on its access entry's list and counts it with its capability. */
export function link(
  state: State,
  table: number,
  index: number,
  page: number,
  slot: number,
  entry: number,
  env: number,
): void {
  const { machine } = state;
  const leaf = (table << 9) | index;
  const at = ledgerAt(state, leaf);
  const head = state.page.get(page, state.access(entry, 3));
  machine.store(at + Ledger.next, head);
  machine.store(at + Ledger.previous, 0);
  machine.store(at + Ledger.page, page);
  machine.store(at + Ledger.justification, slot | (entry << 8));
  if (head !== 0) machine.store(ledgerAt(state, head) + Ledger.previous, leaf);
  state.page.put(page, state.access(entry, 3), leaf);
  state.page.add(page, PageRecord.leaves, 1);
  state.secret.add(env, state.cap(slot, 3), 1);
}

function unlink(state: State, table: number, index: number, page: number, env: number): void {
  const { machine } = state;
  const at = ledgerAt(state, (table << 9) | index);
  const next = machine.load(at + Ledger.next);
  const previous = machine.load(at + Ledger.previous);
  const justification = machine.load(at + Ledger.justification);
  const slot = justification & 0xff;
  const entry = justification >>> 8;
  if (previous === 0) state.page.put(page, state.access(entry, 3), next);
  else machine.store(ledgerAt(state, previous) + Ledger.next, next);
  if (next !== 0) machine.store(ledgerAt(state, next) + Ledger.previous, previous);
  state.page.add(page, PageRecord.leaves, -1);
  state.secret.add(env, state.cap(slot, 3), -1);
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
  const [table, index, count, envSlot] = [claim(0), claim(1), claim(2), claim(3)];
  const place = checkLeaf(state, caller, table, index, envSlot, 3);
  if (place.status !== Status.ok) return place;
  if (!Number.isInteger(count) || count < 1 || index + count > ENTRIES) {
    return refuse(Status.badArgument, 2);
  }
  if (count > UNMAP_MAX) return refuse(Status.tooMany, 2);

  const env = place.value;
  const entries = state.machine.readPtes(table, index, count);
  const base = state.page.get(table, PageRecord.base);
  const updates = [];
  for (let n = 0; n < count; n++) {
    const entry = entries[n] ?? 0;
    if ((entry & PTE_V) === 0) continue;
    const page = ptePpn(entry);
    const kind = state.kind(page);
    if (kind === PageKind.user) unlink(state, table, index + n, page, env);
    else if (isView(kind)) state.page.add(page, PageRecord.views, -1);
    updates.push({ table, index: index + n, value: 0 });
  }
  state.machine.writePtes(updates);
  // Past a few entries one fence of the space is cheaper than one for each page.
  if (updates.length > 4) state.machine.fence(env);
  else for (const { index: at } of updates) state.machine.fence(env, base + at);
  state.page.add(table, PageRecord.leaves, -updates.length);
  return ok(updates.length);
}

/**
 * pageProtect(table, index, flags, env slot): changes the flags of a filled entry, within the
 * rights that justify it. Accessed and dirty bits stay.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a leaf table); badArgument 1 (not an
 *   index); badArgument 3 (not a slot); noCapability 3 (the environment is another and the slot
 *   is empty); notPermitted 3 (the slot does not dominate its guard with WRITE); badArgument 2
 *   (not a set of flags, or without R); absent 1 (the entry is empty); notPermitted 2 (W is more
 *   than justifies the leaf)
 */
export function pageProtect(state: State, caller: number, claim: Claims): Answer {
  const [table, index, flags, envSlot] = [claim(0), claim(1), claim(2), claim(3)];
  const place = checkLeaf(state, caller, table, index, envSlot, 3);
  if (place.status !== Status.ok) return place;
  if (!isFlags(flags)) return refuse(Status.badArgument, 2);
  const old = state.machine.readPtes(table, index, 1)[0] ?? 0;
  if ((old & PTE_V) === 0) return refuse(Status.absent, 1);
  const page = ptePpn(old);
  const env = place.value;
  if ((flags & MAP_WRITE) !== 0) {
    if (state.kind(page) !== PageKind.user) return refuse(Status.notPermitted, 2);
    const at = ledgerAt(state, (table << 9) | index) + Ledger.justification;
    const justification = state.machine.load(at);
    const [slot, entry] = [justification & 0xff, justification >>> 8];
    const may = checkPage(state, env, slot, page, entry, READ | WRITE);
    if (may !== Status.ok) return refuse(may, 2);
  }

  const kept = old & (PTE_A | PTE_D);
  state.machine.writePtes([{ table, index, value: pte(page, flags | kept | PTE_U | PTE_V) }]);
  state.machine.fence(env, state.page.get(table, PageRecord.base) + index);
  return ok();
}

/** Pins pages of a disk request, or takes the pins off. */
export function pin(state: State, pages: readonly number[], by: number): void {
  for (const page of pages) state.page.add(page, PageRecord.pins, by);
}
