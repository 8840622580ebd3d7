/**
 * The address space of a process: memory on demand, copy on write, and how a child's is built. What
 * a fault means is policy, and is ours; the kernel only checks the mappings that we ask for.
 */
import {
  Account,
  ALL_RIGHTS,
  Call,
  EnvState,
  GRANT,
  Info,
  MAP_MAX,
  MAP_READ,
  MAP_SOFT_SHIFT,
  MAP_WRITE,
  packName,
  READ,
  Status,
  UNMAP_MAX,
  WRITE,
} from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import {
  ACCOUNTS,
  at,
  BATCH,
  BUILD_WINDOW,
  COMMON,
  Control,
  DISK,
  ENVS,
  FILE_WINDOW,
  HEAP,
  INFO,
  LEAVES_MAX,
  PAGE,
  Row,
  RowState,
  SHARED_CONTROL,
  sharedAt,
  sharedPage,
  STACK,
  SWAP_COUNT_PAGES,
  SWAP_COUNTS,
  UAREA,
  User,
  VIEWS,
  WINDOW_PAGES,
} from './layout.ts';
import type { Shared } from './shared.ts';
import { Swap, SWAP_FULL } from './swap.ts';

const PTE_VALID = 1;
const ENTRIES = 512;
const RW = MAP_READ | MAP_WRITE;
/** A page that two processes share until one writes: read-only, and marked by a software bit. */
const COW = MAP_READ | (1 << MAP_SOFT_SHIFT);
const COW_BIT = 1 << MAP_SOFT_SHIFT;
const STORE_FAULT = 15;

/**
 * Heap pages come from the swap area's owners when no more than this are left: processes, tables
 * and swap maps are made of the rest. A fork takes seven pages and three for each 2 MB.
 */
export const RESERVE = 32;

const BY_FORCE = ': pages were taken by force';
/** How often a process gives way to the scheduler, for what that has to do first. */
const TURNS = 10_000;

const user = (word: number): number => at(UAREA) + word * 4;

/** A process being built: what its maker knows of it. */
export interface Draft {
  readonly pid: number;
  readonly env: number;
  readonly leaf: number;
  readonly middle: number;
}

const GAP = 8; // empty entries that are cheaper to pass over than to begin a call after

/** Runs of filled entries, each as much as one call may unmap. */
function spans(
  entries: Uint32Array,
  first: number,
  end: number,
): readonly { readonly index: number; readonly count: number }[] {
  const found: { index: number; count: number }[] = [];
  for (let index = first; index < end; index++) {
    if (((entries[index * 2] ?? 0) & PTE_VALID) === 0) continue;
    const last = found.at(-1);
    const near = last !== undefined && index - (last.index + last.count) <= GAP;
    if (near && index - last.index < UNMAP_MAX) last.count = index - last.index + 1;
    else found.push({ index, count: 1 });
  }
  return found;
}

export class Space {
  readonly #port: UserPort;
  readonly #sys: Syscalls;
  readonly #shared: Shared;
  readonly swap: Swap;
  /** Why the last fault could not be helped, if there is more to say than where it was. */
  why = '';

  constructor(sys: Syscalls, shared: Shared) {
    this.#port = sys.port;
    this.#sys = sys;
    this.#shared = shared;
    this.swap = new Swap(sys, shared, this);
  }

  // ---- faults -----------------------------------------------------------------------------------

  /** True: the access can be tried again. */
  *fault(cause: number, address: number): Op<boolean> {
    const page = Math.floor(address / PAGE);
    const exposed = page === INFO || page === ACCOUNTS || (page >= ENVS && page < ENVS + 16);
    const view = page >= VIEWS && page < VIEWS + LEAVES_MAX;
    if (cause === STORE_FAULT && (exposed || view)) return false; // read-only for ever
    if (page === INFO) return yield* this.#mapExposed(page, Control.info, 0);
    if (page === ACCOUNTS) return yield* this.#mapExposed(page, Control.accountPage, 0);
    if (exposed) return yield* this.#mapExposed(page, Control.envs, ENVS);
    const shared = sharedPage(page);
    if (shared >= 0) {
      const physical = yield* this.#shared.control(Control.shared + shared);
      return physical !== 0 && (yield* this.#map(page, physical, RW));
    }
    if (view) return yield* this.#mapView(page - VIEWS);
    if (page >= FILE_WINDOW && page < FILE_WINDOW + WINDOW_PAGES) {
      return yield* this.#mapWindow(page - FILE_WINDOW);
    }
    if (page >= SWAP_COUNTS && page < SWAP_COUNTS + SWAP_COUNT_PAGES) {
      const counts = yield* this.#shared.control(Control.swapCounts + page - SWAP_COUNTS);
      return counts !== 0 && (yield* this.#map(page, counts, RW));
    }
    if (page < HEAP) return false;
    if (address >= (yield* this.#port.load(user(User.end))) >>> 0) {
      // The file server has all of its memory from the start: what is missing was taken.
      if ((yield* this.#shared.control(Control.losses)) !== 0) this.why = BY_FORCE;
      return false;
    }
    if (!(yield* this.#areLossesSeen())) return false;
    const helped = yield* this.busy(() => this.#heapFault(cause, page));
    yield* this.#beEnded();
    return helped;
  }

  /**
   * A page that was taken by force looks like one that was never touched: while there are losses
   * that the scheduler has not seen to, no page of a heap is made.
   */
  *#areLossesSeen(): Op<boolean> {
    const shared = this.#shared;
    const row = yield* shared.control(Control.accountRow);
    if (row === 0) return true;
    for (let turn = 0; turn < TURNS; turn++) {
      const losses = yield* this.#port.load(row + Account.losses * 4);
      if (losses === (yield* shared.control(Control.losses))) return true;
      yield* this.#sys.yieldTo(yield* shared.control(Control.init));
    }
    this.why = BY_FORCE;
    return false;
  }

  /** Heap pages of ours that are mapped: so many more. */
  *#count(by: number): Op<void> {
    const resident = yield* this.#port.load(user(User.resident));
    yield* this.#port.store(user(User.resident), resident + by);
  }

  /**
   * A process that does little but wait for its pages is always found busy: if it has a signal, it
   * lets the scheduler look here.
   */
  *#beEnded(): Op<void> {
    if ((yield* this.#port.load(user(User.paging))) === 0) return;
    const pid = yield* this.#port.load(user(User.pid));
    if ((yield* this.#shared.row(pid, Row.pending)) === 0) return;
    yield* this.#sys.yieldTo(yield* this.#shared.control(Control.init));
  }

  *#heapFault(cause: number, page: number): Op<boolean> {
    const entry = yield* this.#entry(page);
    if ((entry & PTE_VALID) === 0) {
      const word = yield* this.swap.lookup(page);
      return word === 0 ? yield* this.#zeroFill(page) : yield* this.#swapIn(page, word);
    }
    if (cause !== STORE_FAULT || (entry & COW_BIT) === 0) return false;
    return yield* this.#copyOnWrite(page, entry >>> 10);
  }

  *#mapExposed(page: number, word: number, first: number): Op<boolean> {
    const physical = (yield* this.#shared.control(word)) + (first === 0 ? 0 : page - first);
    if (first !== 0 && page - first >= (yield* this.#shared.control(Control.envPages)))
      return false;
    return yield* this.#map(page, physical, MAP_READ);
  }

  *#mapView(leaf: number): Op<boolean> {
    if (leaf >= (yield* this.#port.load(user(User.leaves)))) return false;
    return yield* this.#map(VIEWS + leaf, yield* this.#leaf(leaf), MAP_READ);
  }

  *#mapWindow(n: number): Op<boolean> {
    const pid = yield* this.#port.load(user(User.pid));
    const set = (yield* this.#shared.row(pid, Row.set)) - 1;
    if (set < 0) return false;
    const physical = yield* this.#shared.control(Control.windows + set * WINDOW_PAGES + n);
    return yield* this.#map(FILE_WINDOW + n, physical, RW);
  }

  *#zeroFill(page: number): Op<boolean> {
    if (!(yield* this.#ensureLeaf(Math.floor(page / ENTRIES)))) return false;
    const physical = yield* this.#frame();
    if (physical < 0) return false;
    if (!(yield* this.#map(page, physical, RW))) {
      yield* this.#shared.drop(physical);
      return false;
    }
    yield* this.#count(1);
    if (this.#port.fill(at(page), 0, PAGE) === undefined) yield* this.#port.fault();
    return true;
  }

  *#copyOnWrite(page: number, physical: number): Op<boolean> {
    const leaf = yield* this.#leaf(Math.floor(page / ENTRIES));
    if (!(yield* this.#shared.isShared(physical))) {
      const { status } = yield* this.#sys.pageProtect(leaf, page % ENTRIES, 1, RW, COMMON);
      return status === Status.ok;
    }
    const copy = yield* this.#frame();
    if (copy < 0) return false;
    const { status } = yield* this.#sys.pageCopy(copy, COMMON, 0, physical, COMMON, 0);
    if (status !== Status.ok) {
      yield* this.#shared.drop(copy);
      return false;
    }
    yield* this.#sys.pageUnmap(leaf, page % ENTRIES, 1, COMMON);
    yield* this.#shared.drop(physical);
    if (yield* this.#map(page, copy, RW)) return true;
    yield* this.#count(-1);
    yield* this.#shared.drop(copy);
    return false;
  }

  *#swapIn(page: number, word: number): Op<boolean> {
    if (!(yield* this.#ensureLeaf(Math.floor(page / ENTRIES)))) return false;
    const physical = yield* this.#frame();
    if (physical < 0) return false;
    const read = yield* this.swap.read(page, word, physical);
    if (!read) this.why = ': the swap area cannot be read';
    if (!read || !(yield* this.#map(page, physical, RW))) {
      yield* this.#shared.drop(physical);
      return false;
    }
    yield* this.#count(1);
    return true;
  }

  /** A page for our heap, if need be by writing out others of it; -1 if there is none. */
  *#frame(): Op<number> {
    const paging = (yield* this.#port.load(user(User.paging))) !== 0;
    if (paging && (yield* this.#shared.control(Control.free)) <= RESERVE) {
      const freed = yield* this.swap.evict(at(UAREA));
      if (freed < 0) {
        const of = freed === SWAP_FULL ? 'is full' : 'cannot be written';
        this.why = `: out of memory, and the swap area ${of}`;
        return -1;
      }
    }
    const page = yield* this.#shared.take();
    if (page < 0) this.why = ': out of memory';
    return page;
  }

  /** Runs `body` as what is not to be ended in the middle. */
  *busy<T>(body: () => Op<T>): Op<T> {
    const depth = yield* this.#port.load(user(User.busy));
    yield* this.#port.store(user(User.busy), depth + 1);
    const result = yield* body();
    yield* this.#port.store(user(User.busy), depth);
    return result;
  }

  /** Whether a process is in the middle of such. */
  *isBusy(pid: number): Op<boolean> {
    return yield* this.throughUarea(
      pid,
      function* (this: Space, view: number): Op<boolean> {
        return (yield* this.#port.load(view + User.busy * 4)) !== 0;
      }.bind(this),
    );
  }

  // ---- tables -----------------------------------------------------------------------------------

  /** Physical page of our leaf table number `n`. */
  #leaf(n: number): Op<number> {
    return this.#port.load(user(User.tables + n * 3));
  }

  /** Our page-table entry of virtual page `page`, read through the view; 0 without a leaf table. */
  *#entry(page: number): Op<number> {
    const n = Math.floor(page / ENTRIES);
    if (n >= (yield* this.#port.load(user(User.leaves)))) return 0;
    return yield* this.#port.load(at(VIEWS + n) + (page % ENTRIES) * 8);
  }

  *#ensureLeaf(n: number): Op<boolean> {
    let leaves = yield* this.#port.load(user(User.leaves));
    const middle = yield* this.#port.load(user(User.middle));
    for (; leaves <= n; leaves++) {
      if (leaves === LEAVES_MAX) return false;
      const pages = yield* this.#shared.takeMany(3);
      if (pages === null) return false;
      if (!(yield* this.#hang(middle, leaves, pages))) return false;
      for (let k = 0; k < 3; k++) {
        yield* this.#port.store(user(User.tables + leaves * 3 + k), pages[k] ?? 0);
      }
      yield* this.#port.store(user(User.leaves), leaves + 1);
    }
    return true;
  }

  /** Makes a leaf table of three pages that were taken for it; if that is refused, they go back. */
  *#hang(parent: number, index: number, pages: readonly number[]): Op<boolean> {
    const [table, ledger0, ledger1] = [pages[0] ?? 0, pages[1] ?? 0, pages[2] ?? 0];
    const ledgers = [ledger0, ledger1] as const;
    const { status } = yield* this.#sys.tableCreate(parent, index, table, COMMON, ledgers, COMMON);
    if (status === Status.ok) return true;
    for (const page of pages) yield* this.#shared.drop(page);
    return false;
  }

  *#map(page: number, physical: number, flags: number): Op<boolean> {
    const leaf = yield* this.#leaf(Math.floor(page / ENTRIES));
    const index = page % ENTRIES;
    const { status } = yield* this.#sys.pageMap(leaf, index, physical, COMMON, 0, flags, COMMON);
    return status === Status.ok;
  }

  *#unmap(page: number): Op<void> {
    const leaf = yield* this.#leaf(Math.floor(page / ENTRIES));
    yield* this.#sys.pageUnmap(leaf, page % ENTRIES, 1, COMMON);
  }

  /** Maps `physical` at a window page, for `use`; then takes it out. */
  *through<T>(window: number, physical: number, flags: number, use: () => Op<T>): Op<T> {
    yield* this.#map(window, physical, flags);
    const result = yield* use();
    yield* this.#unmap(window);
    return result;
  }

  /** Maps a page for good, making its leaf table if need be. */
  *place(page: number, physical: number): Op<boolean> {
    if (!(yield* this.#ensureLeaf(Math.floor(page / ENTRIES)))) return false;
    return yield* this.#map(page, physical, RW);
  }

  /** Our page there is not to be taken by force, as far as the account's minimum allows. */
  *keep(page: number, slot = COMMON): Op<void> {
    yield* this.#sys.pageKeep((yield* this.#entry(page)) >>> 10, slot, 1);
  }

  /** Takes a page out that was placed. */
  displace(page: number): Op<void> {
    return this.#unmap(page);
  }

  // ---- the heap ---------------------------------------------------------------------------------

  /** `bytes` more of it; the address, or -1. Pages come when they are touched. */
  *grow(bytes: number): Op<number> {
    const end = (yield* this.#port.load(user(User.end))) >>> 0;
    const pages = Math.ceil(bytes / PAGE);
    if (end + pages * PAGE > at(LEAVES_MAX * ENTRIES)) return -1;
    yield* this.#port.store(user(User.end), end + pages * PAGE);
    return end;
  }

  /** Drops every heap page: exec. */
  *clear(): Op<void> {
    const leaves = yield* this.#port.load(user(User.leaves));
    for (let n = 0; n < leaves; n++) {
      yield* this.#emptyLeaf(yield* this.#leaf(n), at(VIEWS + n), n === 0 ? HEAP : 0);
    }
    yield* this.swap.forget(yield* this.swap.maps(at(UAREA)));
    const maps = LEAVES_MAX * 4;
    if (this.#port.fill(user(User.maps), 0, maps) === undefined) yield* this.#port.fault();
    yield* this.#port.store(user(User.end), at(HEAP));
    yield* this.#port.store(user(User.resident), 0);
  }

  /** Unmaps entries `first` and up of a leaf table seen at `view`, dropping their pages. */
  *#emptyLeaf(leaf: number, view: number, first: number): Op<void> {
    const entries = yield* this.#readLeaf(view);
    for (const { index, count } of spans(entries, first, ENTRIES)) {
      yield* this.#sys.pageUnmap(leaf, index, count, COMMON);
      for (let n = index; n < index + count; n++) {
        const entry = entries[n * 2] ?? 0;
        if ((entry & PTE_VALID) !== 0) yield* this.#shared.drop(entry >>> 10);
      }
    }
  }

  *#readLeaf(view: number): Op<Uint32Array> {
    const bytes = new Uint8Array(PAGE);
    if (this.#port.read(view, bytes, 0, PAGE) === undefined) yield* this.#port.fault();
    return new Uint32Array(bytes.buffer);
  }

  // ---- children ---------------------------------------------------------------------------------

  /**
   * Builds an environment with empty heap, a stack page, a u-area that `fill` writes through the
   * build window, and the control page. Null if pages, rows or environments are used up.
   */
  *draft(parent: number, account: number, fill: (view: number) => Op<void>): Op<Draft | null> {
    const pid = yield* this.#shared.claimRow(parent);
    if (pid < 0) return null;
    const pages = yield* this.#shared.takeMany(7);
    if (pages === null) {
      yield* this.#shared.setRow(pid, Row.state, RowState.free);
      return null;
    }
    const [root, middle, leaf, ledger0, ledger1] = pages as Seven;
    const [stack, uarea] = [pages[5] ?? 0, pages[6] ?? 0];
    const env = yield* this.#create(root, account);
    if (env < 0) {
      for (const page of pages) yield* this.#shared.drop(page);
      yield* this.#shared.setRow(pid, Row.state, RowState.free);
      return null;
    }
    const common = packName([account, COMMON]);
    const control = yield* this.#shared.control(Control.shared + SHARED_CONTROL);
    const map = (page: number, physical: number): number[] => [
      Call.pageMap,
      ...[leaf, page, physical, COMMON, 0, RW, COMMON],
    ];
    const whole = packName([account]);
    const swapping = (yield* this.#shared.control(Control.swapBlocks)) !== 0;
    const disk = swapping
      ? [[Call.capForge, env, DISK, DISK, whole.a, whole.b, READ | WRITE | GRANT]]
      : [];
    yield* this.#sys.batch(BATCH, [
      [Call.capForge, env, COMMON, COMMON, common.a, common.b, ALL_RIGHTS],
      [Call.tableCreate, root, 0, middle, COMMON, 0, 0, COMMON],
      [Call.tableCreate, middle, 0, leaf, COMMON, ledger0, ledger1, COMMON],
      map(STACK, stack),
      map(UAREA, uarea),
      map(sharedAt(SHARED_CONTROL), control),
      ...disk,
    ]);
    yield* this.through(
      BUILD_WINDOW,
      uarea,
      RW,
      function* (this: Space): Op<void> {
        const view = at(BUILD_WINDOW);
        if (this.#port.fill(view, 0, PAGE) === undefined) yield* this.#port.fault();
        yield* fill(view);
        const put = (word: number, value: number): Op<number> =>
          this.#port.store(view + word * 4, value);
        yield* put(User.pid, pid);
        yield* put(User.leaves, 1);
        yield* put(User.middle, middle);
        yield* put(User.tables, leaf);
        yield* put(User.tables + 1, ledger0);
        yield* put(User.tables + 2, ledger1);
        yield* put(User.busy, 0);
        yield* put(User.hand, 0);
        const maps = view + User.maps * 4;
        if (this.#port.fill(maps, 0, LEAVES_MAX * 4) === undefined) yield* this.#port.fault();
      }.bind(this),
    );
    const set = (word: number, value: number): Op<number> => this.#shared.setRow(pid, word, value);
    yield* set(Row.env, env);
    yield* set(Row.uarea, uarea);
    yield* set(Row.stack, stack);
    yield* set(Row.root, root);
    yield* set(Row.middle, middle);
    return { pid, env, leaf, middle };
  }

  *#create(root: number, account: number): Op<number> {
    const limit = yield* this.#port.load(at(INFO) + Info.environments * 4);
    const init = yield* this.#shared.control(Control.init);
    for (let tries = 0; tries < limit; tries++) {
      const index = yield* this.#shared.freeEnv(limit);
      if (index < 0) return -1;
      const name = packName([account, COMMON, index >> 8, index & 0xff]);
      const { status, value } = yield* this.#sys.envCreate(index, root, COMMON, name, init);
      if (status === Status.ok) return value;
      // Somebody was quicker with this row: look on from the next one.
      if (status !== Status.notFree) return -1;
      yield* this.#shared.setControl(Control.nextEnv, index + 1);
    }
    return -1;
  }

  /**
   * Gives a drafted child all of our heap, copy on write. The child's entry is made before ours is
   * demoted, or a write between the two would be the child's as well.
   */
  *shareHeap(child: Draft): Op<boolean> {
    const leaves = yield* this.#port.load(user(User.leaves));
    const tables = [child.leaf];
    for (let n = 0; n < leaves; n++) {
      const entries = yield* this.#readLeaf(at(VIEWS + n));
      yield* this.swap.settle(n, entries);
      let index = n === 0 ? HEAP : 0;
      while (index < ENTRIES) {
        const run: number[] = [];
        for (; run.length < MAP_MAX && index + run.length < ENTRIES;) {
          const entry = entries[(index + run.length) * 2] ?? 0;
          if ((entry & PTE_VALID) === 0) break;
          run.push(entry >>> 10);
        }
        if (run.length > 0) {
          if (tables[n] === undefined && !(yield* this.#childLeaves(child, tables, n)))
            return false;
          const ours = yield* this.#leaf(n);
          if (!(yield* this.#shareRun(tables[n] ?? 0, ours, index, run))) return false;
        }
        index += Math.max(run.length, 1);
      }
    }
    return yield* this.swap.share(child.pid);
  }

  /** Gives `run`, what stands at `index` and after it in our table, to the child's table. */
  *#shareRun(theirs: number, ours: number, index: number, run: readonly number[]): Op<boolean> {
    const port = this.#port;
    for (const physical of run) yield* this.#shared.keep(physical);
    const list = new Uint8Array(Uint32Array.from(run).buffer);
    if (port.write(BATCH, list, 0, list.length) === undefined) yield* port.fault();
    const { length } = run;
    const sys = this.#sys;
    const mapped = yield* sys.pageMapList(theirs, index, length, BATCH, COMMON, COW, COMMON);
    const done = mapped.status === Status.ok ? mapped.value : 0;
    for (const physical of run.slice(done)) yield* this.#shared.drop(physical);
    if (done < length) return false;
    const { status } = yield* sys.pageProtect(ours, index, length, COW, COMMON);
    return status === Status.ok;
  }

  *#childLeaves(child: Draft, tables: number[], n: number): Op<boolean> {
    while (tables.length <= n) {
      const pages = yield* this.#shared.takeMany(3);
      if (pages === null) return false;
      if (!(yield* this.#hang(child.middle, tables.length, pages))) return false;
      const slot = tables.length;
      tables.push(pages[0] ?? 0);
      yield* this.throughUarea(
        child.pid,
        function* (this: Space, view: number): Op<void> {
          for (let k = 0; k < 3; k++) {
            yield* this.#port.store(view + (User.tables + slot * 3 + k) * 4, pages[k] ?? 0);
          }
          yield* this.#port.store(view + User.leaves * 4, slot + 1);
        }.bind(this),
      );
    }
    return true;
  }

  /** The u-area of another process, through the build window. */
  *throughUarea<T>(pid: number, use: (view: number) => Op<T>): Op<T> {
    const uarea = yield* this.#shared.row(pid, Row.uarea);
    return yield* this.through(BUILD_WINDOW, uarea, RW, () => use(at(BUILD_WINDOW)));
  }

  /** Takes a dead process apart: every page, table and row of it is free again. */
  *bury(pid: number): Op<void> {
    const shared = this.#shared;
    yield* shared.setRow(pid, Row.state, RowState.building); // nobody else may begin with it
    const env = yield* shared.row(pid, Row.env);
    const [tables, maps] = yield* this.throughUarea(
      pid,
      function* (this: Space, view: number): Op<readonly [number[], Uint32Array]> {
        const found = [];
        const leaves = yield* this.#port.load(view + User.leaves * 4);
        for (let n = 0; n < leaves * 3; n++) {
          found.push(yield* this.#port.load(view + (User.tables + n) * 4));
        }
        return [found, yield* this.swap.maps(view)];
      }.bind(this),
    );
    // Views of its tables first, or no table could go; then heap; then what is shared.
    const first = tables[0] ?? 0;
    yield* this.#sys.pageUnmap(first, VIEWS, LEAVES_MAX, COMMON);
    for (let n = 0; n < tables.length; n += 3) {
      const leaf = tables[n] ?? 0;
      const rest = yield* this.through(BUILD_WINDOW, leaf, MAP_READ, () =>
        this.#empty(leaf, n === 0 ? HEAP : 0),
      );
      yield* this.#sys.batch(BATCH, [...rest, [Call.tableDestroy, leaf, COMMON]]);
      for (let k = 0; k < 3; k++) yield* shared.drop(tables[n + k] ?? 0);
    }
    yield* this.swap.forget(maps);
    yield* this.#sys.batch(BATCH, [
      [Call.tableDestroy, yield* shared.row(pid, Row.middle), COMMON],
      [Call.envReap, env, COMMON],
    ]);
    for (const word of [Row.middle, Row.root, Row.stack, Row.uarea]) {
      yield* shared.drop(yield* shared.row(pid, word));
    }
    yield* shared.setRow(pid, Row.state, RowState.free);
  }

  /** Empties a leaf table seen in the build window of its heap; returns what unmaps the rest. */
  *#empty(leaf: number, heap: number): Op<number[][]> {
    const entries = yield* this.#readLeaf(at(BUILD_WINDOW));
    yield* this.#emptyLeaf(leaf, at(BUILD_WINDOW), heap);
    return spans(entries, 0, heap).map(({ index, count }) => [
      Call.pageUnmap,
      ...[leaf, index, count, COMMON],
    ]);
  }

  /** Whether the environment of a row is dead. */
  *isDead(pid: number): Op<boolean> {
    const env = yield* this.#shared.row(pid, Row.env);
    return (yield* this.#shared.stateOf(env)) === EnvState.zombie;
  }
}

type Seven = [number, number, number, number, number, number, number];
