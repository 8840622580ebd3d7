/**
 * Physical pages, table pages and mappings. A mapping is a store into a page table: no authority
 * is checked and no ledger kept, so nothing tells who else maps a page that is freed.
 *
 * Trusts its tenant to name its own pages. Owed is that a wild number is refused: what is written
 * as a table is a table, and what is scrubbed lies outside the unikernel's own.
 */
import { ENTRIES, pte, PTE_A, PTE_D, PTE_U, PTE_V, ptePpn } from '../../machine/sv39.ts';
import {
  Env,
  Info,
  MAP_MAX,
  MAP_READ,
  MAP_SOFT,
  MAP_WRITE,
  PAGE_GIVEN,
  PageKind,
  Status,
} from '../abi.ts';
import { writeDirectMap } from '../supervisor.ts';
import { returned, toBalloon } from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { isIndex, isPage, pageAt, type State } from './state.ts';

const FLAGS = MAP_READ | MAP_WRITE | MAP_SOFT; // what a caller may set

/** pageAllocate(page): takes free page `page`, scrubbed, for the caller's account. */
export function pageAllocate(state: State, caller: number, claim: Claims): Answer {
  const page = pageAt(claim(0));
  if (!isPage(state, page)) return refuse(Status.badArgument, 0);
  const word = state.pageWord.get(page, 0);
  if ((word & 0xff) !== PageKind.free) return refuse(Status.notFree, 0);

  if ((word & PAGE_GIVEN) !== 0) state.info.add(0, Info.balloon, 1);
  state.machine.zeroPage(page);
  state.setKind(page, PageKind.user, 0, state.env.get(caller, Env.account));
  return ok();
}

/** pageFree(page): gives a page back, whatever it was and whoever maps it. */
export function pageFree(state: State, claim: Claims): Answer {
  const page = pageAt(claim(0));
  if (!isPage(state, page)) return refuse(Status.badArgument, 0);
  // A table that is freed would be scrubbed under whoever runs on it.
  if (state.kind(page) !== PageKind.user) return refuse(Status.wrongKind, 0);

  const account = state.accountOf(page);
  state.setKind(page, PageKind.free, 0, 0);
  returned(state, account, page);
  toBalloon(state, page);
  return ok();
}

/** tableCreate(parent, index, page): makes `page` a table and hangs it under entry `index`. */
export function tableCreate(state: State, claim: Claims): Answer {
  const [parent, index, page] = [pageAt(claim(0)), claim(1), pageAt(claim(2))];
  if (!isPage(state, parent) || !isPage(state, page)) return refuse(Status.badArgument, 0);
  const top = state.kind(parent) === PageKind.root;
  if (!isPlace(state, parent, index, top ? PageKind.root : PageKind.middle)) {
    return refuse(Status.wrongKind, 0);
  }
  if (state.kind(page) !== PageKind.user) return refuse(Status.wrongKind, 2);

  const { machine } = state;
  machine.zeroPage(page);
  state.retype(page, top ? PageKind.middle : PageKind.leaf, state.envOf(parent));
  const base = state.base.get(parent, 0) + index * (top ? ENTRIES * ENTRIES : ENTRIES);
  state.base.put(page, 0, base);
  machine.writePtes([{ table: parent, index, value: pte(page, PTE_V) }]);
  return ok();
}

/** Makes page `page` the root table of `env`: the direct map above, nothing below. */
export function makeRoot(state: State, page: number, env: number): void {
  state.machine.zeroPage(page);
  writeDirectMap(state.machine, page);
  state.retype(page, PageKind.root, env);
  state.base.put(page, 0, 0);
}

/** tableDestroy(table): takes a leaf or middle table, emptied or not, out of its parent. */
export function tableDestroy(state: State, claim: Claims): Answer {
  const table = pageAt(claim(0));
  const kind = isPage(state, table) ? state.kind(table) : 0;
  if (kind !== PageKind.leaf && kind !== PageKind.middle) return refuse(Status.wrongKind, 0);

  const env = state.envOf(table);
  unhang(state, state.env.get(env, Env.root), table, kind === PageKind.leaf);
  state.retype(table, PageKind.user, 0);
  state.machine.fence(env);
  return ok();
}

/** Empties the entry that names `table`: a scan of the tables above it, charged as it goes. */
function unhang(state: State, root: number, table: number, leaf: boolean): void {
  const { machine } = state;
  const middles = leaf ? children(state, root) : [root];
  for (const above of middles) {
    for (let index = 0; index < ENTRIES / (above === root ? 2 : 1); index++) {
      const entry = machine.readPtes(above, index, 1)[0] ?? 0;
      if ((entry & PTE_V) !== 0 && ptePpn(entry) === table) {
        machine.writePtes([{ table: above, index, value: 0 }]);
        return;
      }
    }
  }
}

/** Middle tables under the first entries of a root. */
function children(state: State, root: number): number[] {
  const found = [];
  for (let index = 0; index < 4; index++) {
    const entry = state.machine.readPtes(root, index, 1)[0] ?? 0;
    if ((entry & PTE_V) !== 0) found.push(ptePpn(entry));
  }
  return found;
}

/** pageMap(table, index, page, -, -, flags): entry `index` of leaf table `table` maps `page`. */
export function pageMap(state: State, claim: Claims): Answer {
  return mapPage(state, pageAt(claim(0)), claim(1), pageAt(claim(2)), claim(5));
}

/** pageMapList(table, index, count, list address, -, flags): maps the pages of a list, in order. */
export function pageMapList(state: State, claim: Claims): Answer {
  const [table, index, count, list] = [pageAt(claim(0)), claim(1), claim(2), claim(3)];
  const { machine } = state;
  for (let n = 0; n < count; n++) {
    const word = n < MAP_MAX ? machine.loadUser(list + n * 4) : null;
    const at = word === null ? -1 : pageAt(word & LISTED_PAGE);
    const done = mapPage(state, table, index + n, at, claim(5));
    if (done.status !== Status.ok) return n === 0 ? done : ok(n);
  }
  return ok(count);
}
const LISTED_PAGE = 0x0fffffff;

/** pageCopy(to, -, -, from): copies a page over another. */
export function pageCopy(state: State, claim: Claims): Answer {
  const [to, from] = [pageAt(claim(0)), pageAt(claim(3))];
  if (!isPage(state, to) || state.kind(to) !== PageKind.user) return refuse(Status.wrongKind, 0);
  if (!isPage(state, from)) return refuse(Status.badArgument, 3);

  state.machine.copyPage(to, from);
  return ok();
}

/** Maps any page of memory, over whatever the entry held; flags that are not the caller's go. */
export function mapPage(
  state: State,
  table: number,
  index: number,
  page: number,
  flags: number,
): Answer {
  const { machine } = state;
  if (!isPlace(state, table, index, PageKind.leaf)) return refuse(Status.wrongKind, 0);
  if (!Number.isInteger(page) || page < 0 || page >= machine.pages) {
    return refuse(Status.badArgument, 2);
  }

  machine.writePtes([{ table, index, value: pte(page, (flags & FLAGS) | PTE_U | PTE_V) }]);
  return ok();
}

/** Whether `table` is a table and `index` in it: else a store would go anywhere. */
function isPlace(state: State, table: number, index: number, kind: number): boolean {
  return isPage(state, table) && isIndex(index) && state.kind(table) === kind;
}

/** pageUnmap(table, index, count): empties entries from `index` on; how many were filled. */
export function pageUnmap(state: State, claim: Claims): Answer {
  const [table, index, count] = [pageAt(claim(0)), claim(1), claim(2)];
  if (!isPlace(state, table, index, PageKind.leaf)) return refuse(Status.wrongKind, 0);
  if (!Number.isInteger(count) || count < 1 || index + count > ENTRIES) {
    return refuse(Status.badArgument, 2);
  }

  const { machine } = state;
  const entries = machine.readPtes(table, index, count);
  const updates = [];
  for (let n = 0; n < count; n++) {
    if (((entries[n] ?? 0) & PTE_V) !== 0) updates.push({ table, index: index + n, value: 0 });
  }
  machine.writePtes(updates);
  fenceAll(state, table, updates);
  return ok(updates.length);
}

/** pageProtect(table, index, count, flags): changes filled entries' flags; A and D stay. */
export function pageProtect(state: State, claim: Claims): Answer {
  const [table, index, count, flags] = [pageAt(claim(0)), claim(1), claim(2), claim(3)];
  if (!isPlace(state, table, index, PageKind.leaf)) return refuse(Status.wrongKind, 0);
  if (!Number.isInteger(count) || count < 1 || index + count > ENTRIES) {
    return refuse(Status.badArgument, 2);
  }
  const { machine } = state;
  const entries = machine.readPtes(table, index, count);
  const updates = [];
  for (let n = 0; n < count; n++) {
    const old = entries[n] ?? 0;
    if ((old & PTE_V) === 0) continue;
    const kept = (flags & FLAGS) | (old & (PTE_A | PTE_D));
    updates.push({ table, index: index + n, value: pte(ptePpn(old), kept | PTE_U | PTE_V) });
  }
  if (updates.length === 0) return refuse(Status.absent, 1);
  machine.writePtes(updates);
  fenceAll(state, table, updates);
  return ok(count);
}

/** Past a few entries one fence of the space is cheaper than one for each page. */
function fenceAll(
  state: State,
  table: number,
  updates: readonly { readonly index: number }[],
): void {
  const env = state.envOf(table);
  if (updates.length > 4) state.machine.fence(env);
  else {
    for (const { index } of updates) state.machine.fence(env, state.base.get(table, 0) + index);
  }
}
