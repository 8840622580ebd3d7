/**
 * Table pages, level by level: the caller names each page that becomes a table, and where it hangs.
 * A leaf table takes two pages more for the ledger of its mappings: who makes a table pays for it.
 *
 * Nelson et al., "Hyperkernel", SOSP 2017, section 4.
 */
import { GRANT, PageKind, Status } from '../abi.ts';
import { writeDirectMap } from '../supervisor.ts';
import { ENTRIES, pte, PTE_V } from '../../machine/sv39.ts';
import { covers, isWanted } from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { breakViews } from './bindings.ts';
import { capOf, checkEnv, checkPage, guardOf, isTaken, type Words } from './capabilities.ts';
import { isIdle } from './pages.ts';
import { isIndex, isSlot, pageNamed, PageRecord, type State } from './state.ts';

/** Of tableCreate: the pages that it takes. */
const ARGUMENTS = [2, 4, 5];

/**
 * tableCreate(parent, index, page, slot, ledger 0, ledger 1, env slot): makes user page `page` a
 * table and hangs it under entry `index` of `parent`, a root or a middle table. A leaf table takes
 * two more pages for its ledger; under a root the ledger arguments are ignored.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a root or a middle table); badArgument 1
 *   (not an index; of a root, of its lower half); badArgument 2 (not a page); wrongKind 2 (not a
 *   user page); badArgument 3 (not a slot); noCapability 3 (the slot is empty); notPermitted 3
 *   (it does not dominate entry 0 of the page); busy 2 (the page has leaves, pins or further
 *   entries, or is asked for); badArgument 4 (not a page); wrongKind 4 (not a user page);
 *   notPermitted 3 (it does not dominate entry 0 of ledger 0); busy 4 (ledger 0 has leaves, pins or
 *   further entries, or is asked for); badArgument 5 (not a page); wrongKind 5 (not a user page);
 *   notPermitted 3 (it does not dominate entry 0 of ledger 1); busy 5 (ledger 1 has leaves, pins or
 *   further entries, or is asked for); badArgument 4 (ledger 0 is ledger 1 or the page);
 *   badArgument 5 (ledger 1 is the page); badArgument 6 (not a slot); noCapability 6 (the
 *   environment is another and the slot is empty); notPermitted 6 (the slot does not dominate its
 *   guard with WRITE); notPermitted 2 (the name of its account does not dominate the guard);
 *   notPermitted 4 (the name of its account does not dominate the guard); notPermitted 5 (the name
 *   of its account does not dominate the guard); occupied 1 (the entry is filled)
 * @source Hyperkernel (SOSP 2017), section 4: tables level by level.
 */
export function tableCreate(state: State, caller: number, claim: Claims): Answer {
  const named = (n: number): number => pageNamed(state, claim(n));
  const [parent, index, page, slot] = [named(0), claim(1), named(2), claim(3)];
  const [ledger0, ledger1, envSlot] = [named(4), named(5), claim(6)];
  if (parent < 0) return refuse(Status.badArgument, 0);
  const above = state.kind(parent);
  if (above !== PageKind.root && above !== PageKind.middle) return refuse(Status.wrongKind, 0);
  const top = above === PageKind.root;
  // The upper half of a root is the kernel's.
  if (!isIndex(index) || (top && index >= ENTRIES / 2)) return refuse(Status.badArgument, 1);
  const cap = capOf(state, caller, slot);
  const pages = [page, ...(top ? [] : [ledger0, ledger1])];
  const accounts: number[] = [];
  for (const [n, one] of pages.entries()) {
    const fit = spendable(state, cap, one, slot, ARGUMENTS[n] ?? 0, 3);
    if (fit.status !== Status.ok) return fit;
    accounts.push(fit.value);
  }
  if (!top && (ledger0 === ledger1 || ledger0 === page)) return refuse(Status.badArgument, 4);
  if (!top && ledger1 === page) return refuse(Status.badArgument, 5);
  if (!isSlot(envSlot)) return refuse(Status.badArgument, 6);
  const env = state.envOf(parent);
  const may = checkEnv(state, caller, envSlot, env);
  if (may !== Status.ok) return refuse(may, 6);
  // A table is taken back through its environment: who allotted a page must have authority there.
  const guard = guardOf(state, env);
  for (const [n, account] of accounts.entries()) {
    if (!covers(state, account, guard)) return refuse(Status.notPermitted, ARGUMENTS[n] ?? 0);
  }
  const { machine } = state;
  if (((machine.readPtes(parent, index, 1)[0] ?? 0) & PTE_V) !== 0) {
    return refuse(Status.occupied, 1);
  }

  const base =
    state.page.get(parent, PageRecord.base) + index * (top ? ENTRIES * ENTRIES : ENTRIES);
  machine.zeroPage(page);
  state.retype(page, top ? PageKind.middle : PageKind.leaf, env);
  state.page.put(page, PageRecord.parent, parent);
  state.page.put(page, PageRecord.parentIndex, index);
  state.page.put(page, PageRecord.base, base);
  if (!top) {
    state.page.put(page, PageRecord.ledger, ledger0);
    state.page.put(page, PageRecord.ledger + 1, ledger1);
    for (const ledger of [ledger0, ledger1]) {
      state.retype(ledger, PageKind.ledger, env);
    }
  }
  state.page.add(parent, PageRecord.leaves, 1);
  machine.writePtes([{ table: parent, index, value: pte(page, PTE_V) }]);
  return ok();
}

/**
 * A user page that the caller answers for by `cap`, its `slot`, and nobody uses: fit to become a
 * table. The value is the account that pays for it.
 */
export function spendable(
  state: State,
  cap: Words,
  page: number,
  slot: number,
  argument: number,
  slotArgument: number,
): Answer {
  if (page < 0) return refuse(Status.badArgument, argument);
  const { kind, account } = state.pageOf(page);
  if (kind !== PageKind.user) return refuse(Status.wrongKind, argument);
  if (!isSlot(slot)) return refuse(Status.badArgument, slotArgument);
  const may = checkPage(state, cap, page, 0, GRANT);
  if (may !== Status.ok) return refuse(may, slotArgument);
  // Tables are not taken by force: what a revocation waits for stays what it is.
  const free = isIdle(state, page) && !isShared(state, page) && !isWanted(state, account, page);
  return free ? ok(account) : refuse(Status.busy, argument);
}

const isShared = (state: State, page: number): boolean =>
  [1, 2, 3].some((entry) => isTaken(state, page, entry));

/** Makes user page `page` the root table of `env`: the direct map above, nothing below. */
export function makeRoot(state: State, page: number, env: number): void {
  state.machine.zeroPage(page);
  writeDirectMap(state.machine, page);
  state.retype(page, PageKind.root, env);
  state.page.put(page, PageRecord.base, 0);
}

/** A table page is a user page again. Its ledger pages too. */
export function unmakeTable(state: State, table: number, leaf: boolean): void {
  if (leaf) {
    for (const n of [0, 1]) {
      const ledger = state.page.get(table, PageRecord.ledger + n);
      state.retype(ledger, PageKind.user, 0);
    }
  }
  // Where it hung stands in access entry 1, which is empty again: its rights and its list.
  state.page.put(table, state.access(1, 2), 0);
  state.page.put(table, state.access(1, 3), 0);
  state.retype(table, PageKind.user, 0);
}

/**
 * tableDestroy(table, env slot): takes an empty leaf or middle table out of its parent; it and its
 * ledger are user pages again. Read-only views of it go first, wherever they are: `again` if more
 * than STEP_LEAVES stood.
 *
 * @refuses badArgument 0 (not a page); wrongKind 0 (not a leaf or a middle table); badArgument 1
 *   (not a slot); noCapability 1 (the environment is another and the slot is empty);
 *   notPermitted 1 (the slot does not dominate its guard with WRITE); busy 0 (the table has
 *   entries)
 */
export function tableDestroy(state: State, caller: number, claim: Claims): Answer {
  const [table, envSlot] = [pageNamed(state, claim(0)), claim(1)];
  if (table < 0) return refuse(Status.badArgument, 0);
  const kind = state.kind(table);
  if (kind !== PageKind.leaf && kind !== PageKind.middle) return refuse(Status.wrongKind, 0);
  if (!isSlot(envSlot)) return refuse(Status.badArgument, 1);
  const env = state.envOf(table);
  const may = checkEnv(state, caller, envSlot, env);
  if (may !== Status.ok) return refuse(may, 1);
  if (state.page.get(table, PageRecord.leaves) !== 0) return refuse(Status.busy, 0);

  if (!breakViews(state, table, kind)) return { status: Status.again, value: 0 };
  const parent = state.page.get(table, PageRecord.parent);
  const index = state.page.get(table, PageRecord.parentIndex);
  state.machine.writePtes([{ table: parent, index, value: 0 }]);
  state.machine.fence(env);
  state.page.add(parent, PageRecord.leaves, -1);
  unmakeTable(state, table, kind === PageKind.leaf);
  return ok();
}
