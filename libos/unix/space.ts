/**
 * The address space of a process: memory on demand, copy on write, and how a child's is built. What
 * a fault means is policy, and is ours; the kernel only checks the mappings that we ask for.
 */
import {
  ALL_RIGHTS,
  Call,
  EnvState,
  Info,
  MAP_READ,
  MAP_SOFT_SHIFT,
  MAP_WRITE,
  packName,
  Status,
  UNMAP_MAX,
} from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import {
  at,
  BATCH,
  BUILD_WINDOW,
  COMMON,
  Control,
  COPY_WINDOW,
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
  UAREA,
  User,
  VIEWS,
  WINDOW_PAGES,
} from './layout.ts';
import type { Shared } from './shared.ts';

const PTE_VALID = 1;
const ENTRIES = 512;
const RW = MAP_READ | MAP_WRITE;
/** A page that two processes share until one writes: read-only, and marked by a software bit. */
const COW = MAP_READ | (1 << MAP_SOFT_SHIFT);
const COW_BIT = 1 << MAP_SOFT_SHIFT;
const STORE_FAULT = 15;

const user = (word: number): number => at(UAREA) + word * 4;

/** A process being built: what its maker knows of it. */
export interface Draft {
  readonly pid: number;
  readonly env: number;
  readonly leaf: number;
  readonly middle: number;
}

export class Space {
  readonly #port: UserPort;
  readonly #sys: Syscalls;
  readonly #shared: Shared;

  constructor(sys: Syscalls, shared: Shared) {
    this.#port = sys.port;
    this.#sys = sys;
    this.#shared = shared;
  }

  // ---- faults -----------------------------------------------------------------------------------

  /** True: the access can be tried again. */
  *fault(cause: number, address: number): Op<boolean> {
    const page = Math.floor(address / PAGE);
    const exposed = page === INFO || (page >= ENVS && page < ENVS + 16);
    const view = page >= VIEWS && page < VIEWS + LEAVES_MAX;
    if (cause === STORE_FAULT && (exposed || view)) return false; // read-only for ever
    if (page === INFO) return yield* this.#mapExposed(page, Control.info, 0);
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
    if (page < HEAP || address >= (yield* this.#port.load(user(User.end))) >>> 0) return false;
    const entry = yield* this.#entry(page);
    if ((entry & PTE_VALID) === 0) return yield* this.#zeroFill(page);
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
    const physical = yield* this.#shared.take();
    if (physical < 0) return false;
    if (!(yield* this.#map(page, physical, RW))) return false;
    if (this.#port.fill(at(page), 0, PAGE) === undefined) yield* this.#port.fault();
    return true;
  }

  *#copyOnWrite(page: number, physical: number): Op<boolean> {
    const leaf = yield* this.#leaf(Math.floor(page / ENTRIES));
    if (!(yield* this.#shared.isShared(physical))) {
      const { status } = yield* this.#sys.pageProtect(leaf, page % ENTRIES, RW, COMMON);
      return status === Status.ok;
    }
    const copy = yield* this.#shared.take();
    if (copy < 0) return false;
    if (!(yield* this.#map(COPY_WINDOW, copy, RW))) return false;
    if (this.#port.copy(at(COPY_WINDOW), at(page), PAGE) === undefined) yield* this.#port.fault();
    yield* this.#unmap(COPY_WINDOW);
    yield* this.#sys.pageUnmap(leaf, page % ENTRIES, 1, COMMON);
    if (!(yield* this.#map(page, copy, RW))) return false;
    yield* this.#shared.drop(physical);
    return true;
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

  *#hang(parent: number, index: number, pages: readonly number[]): Op<boolean> {
    const [table, ledger0, ledger1] = [pages[0] ?? 0, pages[1] ?? 0, pages[2] ?? 0];
    const ledgers = [ledger0, ledger1] as const;
    const { status } = yield* this.#sys.tableCreate(parent, index, table, COMMON, ledgers, COMMON);
    return status === Status.ok;
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
    yield* this.#port.store(user(User.end), at(HEAP));
  }

  /** Unmaps entries `first` and up of a leaf table seen at `view`, dropping their pages. */
  *#emptyLeaf(leaf: number, view: number, first: number): Op<void> {
    const bytes = new Uint8Array(PAGE);
    if (this.#port.read(view, bytes, 0, PAGE) === undefined) yield* this.#port.fault();
    const entries = new Uint32Array(bytes.buffer);
    for (let chunk = first; chunk < ENTRIES; chunk += UNMAP_MAX) {
      const dropped = [];
      for (let n = chunk; n < Math.min(chunk + UNMAP_MAX, ENTRIES); n++) {
        const entry = entries[n * 2] ?? 0;
        if ((entry & PTE_VALID) !== 0) dropped.push(entry >>> 10);
      }
      if (dropped.length === 0) continue;
      const count = Math.min(UNMAP_MAX, ENTRIES - chunk);
      yield* this.#sys.pageUnmap(leaf, chunk, count, COMMON);
      for (const physical of dropped) yield* this.#shared.drop(physical);
    }
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
    yield* this.#sys.batch(BATCH, [
      [Call.capForge, env, COMMON, COMMON, common.a, common.b, ALL_RIGHTS],
      [Call.tableCreate, root, 0, middle, COMMON, 0, 0, COMMON],
      [Call.tableCreate, middle, 0, leaf, COMMON, ledger0, ledger1, COMMON],
      map(STACK, stack),
      map(UAREA, uarea),
      map(sharedAt(SHARED_CONTROL), control),
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
    const bytes = new Uint8Array(PAGE);
    const entries = new Uint32Array(bytes.buffer);
    const tables = [child.leaf];
    for (let n = 0; n < leaves; n++) {
      if (this.#port.read(at(VIEWS + n), bytes, 0, PAGE) === undefined) yield* this.#port.fault();
      const calls: number[][] = [];
      const given: { readonly physical: number; readonly call: number }[] = [];
      for (let index = n === 0 ? HEAP : 0; index < ENTRIES; index++) {
        const entry = entries[index * 2] ?? 0;
        if ((entry & PTE_VALID) === 0) continue;
        const physical = entry >>> 10;
        if (tables[n] === undefined && !(yield* this.#childLeaves(child, tables, n))) return false;
        const theirs = tables[n] ?? 0;
        given.push({ physical, call: calls.length });
        calls.push([Call.pageMap, theirs, index, physical, COMMON, 0, COW, COMMON]);
        if ((entry & MAP_WRITE) !== 0) {
          calls.push([Call.pageProtect, yield* this.#leaf(n), index, COW, COMMON]);
        }
        yield* this.#shared.keep(physical);
      }
      const done = yield* this.#sys.batch(BATCH, calls);
      if (done === calls.length) continue;
      for (const { physical, call } of given) if (call >= done) yield* this.#shared.drop(physical);
      return false;
    }
    return true;
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
    const tables = yield* this.throughUarea(
      pid,
      function* (this: Space, view: number): Op<number[]> {
        const found = [];
        const leaves = yield* this.#port.load(view + User.leaves * 4);
        for (let n = 0; n < leaves * 3; n++) {
          found.push(yield* this.#port.load(view + (User.tables + n) * 4));
        }
        return found;
      }.bind(this),
    );
    // Views of its tables first, or no table could go; then heap; then what is shared.
    const first = tables[0] ?? 0;
    yield* this.#sys.pageUnmap(first, VIEWS, LEAVES_MAX, COMMON);
    for (let n = 0; n < tables.length; n += 3) {
      const leaf = tables[n] ?? 0;
      yield* this.through(BUILD_WINDOW, leaf, MAP_READ, () =>
        this.#emptyLeaf(leaf, at(BUILD_WINDOW), n === 0 ? HEAP : 0),
      );
      const rest: number[][] = [];
      for (let from = 0; n === 0 && from < HEAP; from += UNMAP_MAX) {
        rest.push([Call.pageUnmap, leaf, from, UNMAP_MAX, COMMON]);
      }
      yield* this.#sys.batch(BATCH, [...rest, [Call.tableDestroy, leaf, COMMON]]);
      for (let k = 0; k < 3; k++) yield* shared.drop(tables[n + k] ?? 0);
    }
    yield* this.#sys.batch(BATCH, [
      [Call.tableDestroy, yield* shared.row(pid, Row.middle), COMMON],
      [Call.envReap, env, COMMON],
    ]);
    for (const word of [Row.middle, Row.root, Row.stack, Row.uarea]) {
      yield* shared.drop(yield* shared.row(pid, word));
    }
    yield* shared.setRow(pid, Row.state, RowState.free);
  }

  /** Whether the environment of a row is dead. */
  *isDead(pid: number): Op<boolean> {
    const env = yield* this.#shared.row(pid, Row.env);
    return (yield* this.#shared.stateOf(env)) === EnvState.zombie;
  }
}

type Seven = [number, number, number, number, number, number, number];
