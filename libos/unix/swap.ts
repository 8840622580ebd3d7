/**
 * Paging to disk. What the extent has behind the file system is the swap area. A process that needs
 * a page when few are left writes out pages of its own heap, in the order of a clock hand, and has
 * them read again when it touches them. Where they are stands in swap maps, a page for each leaf
 * table, a word for each of its entries: block + 1.
 *
 * A page stays mapped until it is on the disk, and its block stands in the map before that:
 * whenever a process dies, who buries it finds every page and block. A block that several swap maps
 * name (fork) is counted as pages are. It trusts its Unix to run nothing of a process whose pages
 * it writes out: they are its own, and it waits.
 */
import { Env, envIndex, MAP_READ, MAP_WRITE, Status } from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import { MAGIC, Super } from './fs/format.ts';
import {
  at,
  BATCH,
  COMMON,
  Control,
  DISK,
  ENVS,
  HEAP,
  LEAVES_MAX,
  PAGE,
  Row,
  SWAP_COUNT_PAGES,
  SWAP_COUNTS,
  SWAP_WINDOW,
  UAREA,
  User,
} from './layout.ts';
import type { Shared } from './shared.ts';
import type { Space } from './space.ts';

const ENTRIES = 512;
const PTE_VALID = 1;
const RW = MAP_READ | MAP_WRITE;
const WRITE_BLOCKS = 1; // flags of diskRequest
const READ_BLOCKS = 0;
const PATIENCE = 50_000; // cycles until a request that found no room is made again
/** Pages that go out with one request; who has as many and nowhere to put them is who ends. */
const CLUSTER = 16;
const VIEW = at(SWAP_WINDOW);

interface Victim {
  readonly index: number;
  readonly physical: number;
}

export class Swap {
  readonly #port: UserPort;
  readonly #sys: Syscalls;
  readonly #shared: Shared;
  readonly #space: Space;

  constructor(sys: Syscalls, shared: Shared, space: Space) {
    this.#port = sys.port;
    this.#sys = sys;
    this.#shared = shared;
    this.#space = space;
  }

  /**
   * Finds the swap area behind the file system; returns the blocks of the latter, or all if there
   * is none: then whoever mounts it says so.
   */
  *found(extent: number, blocks: number): Op<number> {
    const shared = this.#shared;
    yield* shared.setControl(Control.extent, extent);
    const page = yield* shared.take();
    if (page < 0) return blocks;
    const read = blocks > 0 && (yield* this.#move(0, [page], READ_BLOCKS));
    const used = yield* this.#space.through(
      SWAP_WINDOW,
      page,
      MAP_READ,
      function* (this: Swap): Op<number> {
        const magic = yield* this.#port.load(VIEW + Super.magic * 4);
        return magic === MAGIC ? yield* this.#port.load(VIEW + Super.blocks * 4) : blocks;
      }.bind(this),
    );
    yield* shared.drop(page);
    if (!read || used >>> 0 >= blocks) return blocks;
    const size = Math.min(blocks - used, SWAP_COUNT_PAGES * PAGE);
    for (let n = 0; n * PAGE < size; n++) {
      const counts = yield* shared.take();
      if (counts < 0) return used;
      yield* this.#zero(counts);
      yield* shared.setControl(Control.swapCounts + n, counts);
    }
    yield* shared.setControl(Control.swapBase, used);
    yield* shared.setControl(Control.swapFree, size);
    yield* shared.setControl(Control.swapBlocks, size);
    return used;
  }

  // ---- out --------------------------------------------------------------------------------------

  /**
   * Writes out up to CLUSTER pages of the process whose u-area stands at `view`: how many, or -1 if
   * it has as many and the swap area has no block left.
   */
  *evict(view: number): Op<number> {
    const port = this.#port;
    const leaves = yield* port.load(view + User.leaves * 4);
    let hand = yield* port.load(view + User.hand * 4);
    // Where the hand began, the first entries come last.
    for (let turn = 0; turn <= leaves; turn++) {
      if (hand >= leaves * ENTRIES) hand = 0;
      const n = Math.floor(hand / ENTRIES);
      const leaf = yield* port.load(view + (User.tables + n * 3) * 4);
      const victims = yield* this.#victims(leaf, Math.max(hand % ENTRIES, n === 0 ? HEAP : 0));
      const last = victims.at(-1);
      hand = n * ENTRIES + (victims.length === CLUSTER && last ? last.index + 1 : ENTRIES);
      yield* port.store(view + User.hand * 4, hand);
      if (victims.length > 0) return yield* this.#writeOut(view, n, leaf, victims);
    }
    return 0;
  }

  /** Pages that nobody else maps, from entry `first` of a leaf table on. */
  *#victims(leaf: number, first: number): Op<Victim[]> {
    const words = yield* this.#words(leaf);
    const victims: Victim[] = [];
    for (let index = first; index < ENTRIES && victims.length < CLUSTER; index++) {
      const entry = words[index * 2] ?? 0;
      if ((entry & PTE_VALID) === 0 || (yield* this.#shared.isShared(entry >>> 10))) continue;
      victims.push({ index, physical: entry >>> 10 });
    }
    return victims;
  }

  *#writeOut(view: number, n: number, leaf: number, victims: readonly Victim[]): Op<number> {
    const map = yield* this.#map(view, n);
    if (map < 0) return 0;
    const [first, count] = yield* this.#through(map, RW, () => this.#assign(victims));
    if (count === 0) return victims.length === CLUSTER ? -1 : 0;
    const going = victims.slice(0, count);
    const pages = going.map(({ physical }) => physical);
    if (!(yield* this.#move(first, pages, WRITE_BLOCKS))) {
      for (const { index } of going) yield* this.settle(map, index);
      return 0;
    }
    for (const { index, physical } of going) {
      yield* this.#sys.pageUnmap(leaf, index, 1, COMMON);
      yield* this.#shared.drop(physical);
    }
    return count;
  }

  /** The swap map of leaf table `n`, made if there is none; -1 if there is no page for it. */
  *#map(view: number, n: number): Op<number> {
    const word = view + (User.maps + n) * 4;
    const map = yield* this.#port.load(word);
    if (map !== 0) return map;
    const page = yield* this.#shared.take();
    if (page < 0) return -1;
    yield* this.#zero(page);
    yield* this.#port.store(word, page);
    return page;
  }

  /** A run of free blocks for the first of the victims, and word of it in the map in the window. */
  *#assign(victims: readonly Victim[]): Op<readonly [first: number, count: number]> {
    const shared = this.#shared;
    const base = yield* shared.control(Control.swapBase);
    const blocks = yield* shared.control(Control.swapBlocks);
    yield* shared.lock();
    const free = yield* shared.control(Control.swapFree);
    let block = yield* shared.control(Control.swapNext);
    if (free > 0) while ((yield* this.#count(block)) !== 0) block = (block + 1) % blocks;
    const first = block;
    let count = 0;
    if (free > 0) {
      for (const { index } of victims) {
        if (block === blocks || (yield* this.#count(block)) !== 0) break;
        yield* this.#setCount(block, 1);
        block++;
        count++;
        yield* this.#port.store(VIEW + index * 4, block);
      }
    }
    yield* shared.setControl(Control.swapFree, free - count);
    yield* shared.setControl(Control.swapNext, block % blocks);
    yield* shared.unlock();
    return [base + first, count];
  }

  // ---- in ---------------------------------------------------------------------------------------

  /** Where virtual page `page` of this process was written to: block + 1, or 0. */
  *lookup(page: number): Op<number> {
    const map = yield* this.mapOf(page);
    if (map === 0) return 0;
    return yield* this.#through(map, MAP_READ, () => this.#port.load(VIEW + (page % ENTRIES) * 4));
  }

  /** The swap map for virtual page `page` of this process, or 0. */
  mapOf(page: number): Op<number> {
    return this.#port.load(at(UAREA) + (User.maps + Math.floor(page / ENTRIES)) * 4);
  }

  /** Reads what `lookup` found into a page. False: the disk failed. */
  *read(word: number, physical: number): Op<boolean> {
    const base = yield* this.#shared.control(Control.swapBase);
    return yield* this.#move(base + word - 1, [physical], READ_BLOCKS);
  }

  /** Entry `index` of a swap map names no block any more. */
  *settle(map: number, index: number): Op<void> {
    yield* this.#through(
      map,
      RW,
      function* (this: Swap): Op<void> {
        const word = yield* this.#port.load(VIEW + index * 4);
        yield* this.#port.store(VIEW + index * 4, 0);
        yield* this.#release([word]);
      }.bind(this),
    );
  }

  // ---- fork, exec, exit -------------------------------------------------------------------------

  /** Swap maps of a u-area, by leaf table; 0 where there is none. */
  *maps(view: number): Op<Uint32Array> {
    const bytes = new Uint8Array(LEAVES_MAX * 4);
    const address = view + User.maps * 4;
    if (this.#port.read(address, bytes, 0, bytes.length) === undefined) yield* this.#port.fault();
    return new Uint32Array(bytes.buffer);
  }

  /** Gives a child swap maps as ours are now. False: there are no pages for them. */
  *share(pid: number): Op<boolean> {
    const shared = this.#shared;
    for (const [n, map] of (yield* this.maps(at(UAREA))).entries()) {
      if (map === 0) continue;
      const copy = yield* shared.take();
      if (copy < 0) return false;
      yield* this.#sys.pageCopy(copy, COMMON, 0, map, COMMON, 0);
      const words = yield* this.#words(map);
      yield* shared.lock();
      for (const word of words) {
        if (word !== 0) yield* this.#setCount(word - 1, (yield* this.#count(word - 1)) + 1);
      }
      yield* shared.unlock();
      yield* this.#space.throughUarea(pid, (view) =>
        this.#port.store(view + (User.maps + n) * 4, copy),
      );
    }
    return true;
  }

  /** Frees the blocks that swap maps name, and the maps. */
  *forget(maps: Uint32Array): Op<void> {
    for (const map of maps) {
      if (map === 0) continue;
      yield* this.#release(yield* this.#words(map));
      yield* this.#shared.drop(map);
    }
  }

  *#release(words: Iterable<number>): Op<void> {
    const shared = this.#shared;
    yield* shared.lock();
    let free = yield* shared.control(Control.swapFree);
    for (const word of words) {
      if (word === 0) continue;
      const count = (yield* this.#count(word - 1)) - 1;
      yield* this.#setCount(word - 1, count);
      if (count === 0) free++;
    }
    yield* shared.setControl(Control.swapFree, free);
    yield* shared.unlock();
  }

  // ---- below ------------------------------------------------------------------------------------

  *#count(block: number): Op<number> {
    return this.#port.load8(at(SWAP_COUNTS) + block) ?? (yield* this.#port.fault());
  }
  *#setCount(block: number, count: number): Op<void> {
    if (this.#port.store8(at(SWAP_COUNTS) + block, count) === undefined) yield* this.#port.fault();
  }

  #through<T>(physical: number, flags: number, use: () => Op<T>): Op<T> {
    return this.#space.through(SWAP_WINDOW, physical, flags, use);
  }

  *#zero(physical: number): Op<void> {
    yield* this.#through(
      physical,
      RW,
      function* (this: Swap): Op<void> {
        if (this.#port.fill(VIEW, 0, PAGE) === undefined) yield* this.#port.fault();
      }.bind(this),
    );
  }

  /** A page, read as words. */
  *#words(physical: number): Op<Uint32Array> {
    const bytes = new Uint8Array(PAGE);
    yield* this.#through(
      physical,
      MAP_READ,
      function* (this: Swap): Op<void> {
        if (this.#port.read(VIEW, bytes, 0, PAGE) === undefined) yield* this.#port.fault();
      }.bind(this),
    );
    return new Uint32Array(bytes.buffer);
  }

  /**
   * Moves pages to or from neighbouring blocks of the extent, and waits for it. Unlike
   * parts/transfers.ts all requests may be other processes', whose ends nobody tells us.
   */
  *#move(block: number, pages: readonly number[], flags: number): Op<boolean> {
    const port = this.#port;
    const pid = yield* port.load(at(UAREA) + User.pid * 4);
    const self =
      pid === 0 ? yield* this.#shared.control(Control.init) : yield* this.#shared.row(pid, Row.env);
    const mine = (word: number): Op<number> =>
      port.load(at(ENVS) + (envIndex(self) * Env.words + word) * 4);
    const extent = yield* this.#shared.control(Control.extent);
    const list = new Uint8Array(Uint32Array.from(pages).buffer);
    const failed = yield* mine(Env.diskFailed);
    let ticket = 0;
    for (;;) {
      const seen = yield* mine(Env.events);
      if (port.write(BATCH, list, 0, list.length) === undefined) yield* port.fault();
      const { length } = pages;
      const made = yield* this.#sys.diskRequest(extent, DISK, block, length, BATCH, COMMON, flags);
      ticket = made.value;
      if (made.status === Status.ok) break;
      if (made.status !== Status.full) return false;
      yield* this.#sys.sleep(seen, PATIENCE);
    }
    for (;;) {
      const seen = yield* mine(Env.events);
      if ((yield* mine(Env.diskDone)) - ticket >= 0) break;
      yield* this.#sys.sleep(seen);
    }
    return (yield* mine(Env.diskFailed)) === failed;
  }
}
