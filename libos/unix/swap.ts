/**
 * Paging to disk. What the extent has behind the file system is the swap area. A process that needs
 * a page when few are left writes out pages of its own heap, and has them read again when it
 * touches them. Where they are stands in swap maps, a page for each leaf table, a word for each of
 * its entries: block + 1.
 *
 * Which pages: those that the hardware has not marked as accessed since the clock hand last came
 * by. The marks are read in the process's own tables; there is no call that clears one, but a page
 * that is unmapped and mapped again has none, and a run of pages is two calls. What is read back
 * keeps its block as long as it is not written to, which the hardware marks as well: such a page
 * goes out without a transfer. (A mapping made anew has no such mark: a software bit remembers it.)
 *
 * A page stays mapped until it is on the disk, and its block stands in the map before that:
 * whenever a process dies, who buries it finds every page and block. A block that several swap maps
 * name (fork) is counted as pages are. It trusts its Unix to run nothing of a process whose pages
 * it writes out: they are its own, and it waits.
 */
import {
  Call,
  Env,
  envIndex,
  MAP_MAX,
  MAP_READ,
  MAP_SOFT,
  MAP_SOFT_SHIFT,
  MAP_WRITE,
  Status,
} from '../../kernel/abi.ts';
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
const PTE_ACCESSED = 1 << 6;
const PTE_DIRTY = 1 << 7;
const RW = MAP_READ | MAP_WRITE;
/** Of a mapping that was made anew: it was dirty before. */
const WAS_DIRTY = 2 << MAP_SOFT_SHIFT;
const WRITE_BLOCKS = 1; // flags of diskRequest
const READ_BLOCKS = 0;
const PATIENCE = 50_000; // cycles until a request that found no room is made again
const TRIES = 3; // of a transfer that fails
/** Pages that go out with one request; who has as many and nowhere to put them is who ends. */
const CLUSTER = 16;
const VIEW = at(SWAP_WINDOW);
/** Blocks that a swap area can have: what its counts have room for. */
export const SWAP_MAX = SWAP_COUNT_PAGES * PAGE;

/** What `evict` says if it is not a count. */
export const SWAP_FULL = -1;
export const SWAP_FAILS = -2;

interface Victim {
  readonly index: number;
  readonly physical: number;
}

const isDirty = (entry: number): boolean => (entry & (PTE_DIRTY | WAS_DIRTY)) !== 0;

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
    const size = Math.min(blocks - used, SWAP_MAX);
    for (let n = 0; n * PAGE < size; n++) {
      const counts = yield* shared.take();
      if (counts < 0) return used;
      yield* this.#zero(counts);
      yield* this.#sys.pageKeep(counts, COMMON, 1); // as far as the account's minimum allows
      yield* shared.setControl(Control.swapCounts + n, counts);
    }
    yield* shared.setControl(Control.swapBase, used);
    yield* shared.setControl(Control.swapFree, size);
    yield* shared.setControl(Control.swapBlocks, size);
    return used;
  }

  // ---- out --------------------------------------------------------------------------------------

  /**
   * Frees up to CLUSTER pages that `may` go, of the process whose u-area stands at `view`. How many
   * it were; SWAP_FULL if it has as many and there is no block for them, SWAP_FAILS if none can be
   * written.
   */
  *evict(view: number, may: (page: number) => boolean = () => true): Op<number> {
    const port = this.#port;
    const leaves = yield* port.load(view + User.leaves * 4);
    let hand = yield* port.load(view + User.hand * 4);
    let full = false;
    // Twice round, since the first time may find marks everywhere, and the first table at the end.
    for (let turn = 0; turn <= 2 * leaves; turn++) {
      if (hand >= leaves * ENTRIES) hand = 0;
      const n = Math.floor(hand / ENTRIES);
      const leaf = yield* port.load(view + (User.tables + n * 3) * 4);
      const words = yield* this.words(leaf);
      const first = Math.max(hand % ENTRIES, n === 0 ? HEAP : 0);
      const { victims, used } = yield* this.#candidates(words, first, may);
      yield* this.#refresh(leaf, words, used);
      const last = victims.at(-1);
      hand = n * ENTRIES + (victims.length === CLUSTER && last ? last.index + 1 : ENTRIES);
      yield* port.store(view + User.hand * 4, hand);
      if (victims.length === 0) continue;
      // With no block left, there may still be pages that need none.
      const freed = yield* this.#putOut(view, n, leaf, words, victims);
      if (freed !== SWAP_FULL && freed !== 0) return freed;
      full ||= freed === SWAP_FULL;
    }
    return full ? SWAP_FULL : 0;
  }

  /**
   * Pages that nobody else maps, from entry `first` of a leaf table on: CLUSTER that were not
   * accessed, and those before them that were.
   */
  *#candidates(
    words: Uint32Array,
    first: number,
    may: (page: number) => boolean,
  ): Op<{ readonly victims: Victim[]; readonly used: Victim[] }> {
    const victims: Victim[] = [];
    const used: Victim[] = [];
    for (let index = first; index < ENTRIES && victims.length < CLUSTER; index++) {
      const entry = words[index * 2] ?? 0;
      const physical = entry >>> 10;
      if ((entry & PTE_VALID) === 0 || !may(physical)) continue;
      if (yield* this.#shared.isShared(physical)) continue;
      ((entry & PTE_ACCESSED) === 0 ? victims : used).push({ index, physical });
    }
    if (this.#port.work(ENTRIES) === undefined) yield* this.#port.fault();
    return { victims, used };
  }

  /** Takes the marks of access away, by mapping the pages anew, neighbours together. */
  *#refresh(leaf: number, words: Uint32Array, used: readonly Victim[]): Op<void> {
    const flagsOf = ({ index }: Victim): number => {
      const entry = words[index * 2] ?? 0;
      return (entry & (RW | MAP_SOFT)) | (isDirty(entry) ? WAS_DIRTY : 0);
    };
    let run: Victim[] = [];
    for (const victim of used) {
      const last = run.at(-1);
      const goesOn = last?.index === victim.index - 1 && flagsOf(last) === flagsOf(victim);
      if (!goesOn || run.length === MAP_MAX) {
        yield* this.#mapAnew(leaf, run, last === undefined ? 0 : flagsOf(last));
        run = [];
      }
      run.push(victim);
    }
    const last = run.at(-1);
    if (last !== undefined) yield* this.#mapAnew(leaf, run, flagsOf(last));
  }

  *#mapAnew(leaf: number, run: readonly Victim[], flags: number): Op<void> {
    const index = run[0]?.index ?? 0;
    if (run.length === 0) return;
    const list = new Uint8Array(Uint32Array.from(run, ({ physical }) => physical).buffer);
    if (this.#port.write(BATCH, list, 0, list.length) === undefined) yield* this.#port.fault();
    yield* this.#sys.pageUnmap(leaf, index, run.length, COMMON);
    for (let n = 0; n < run.length;) {
      const left = run.length - n;
      const at = BATCH + n * 4;
      const mapped = yield* this.#sys.pageMapList(leaf, index + n, left, at, COMMON, flags, COMMON);
      // It stops at a page that is no longer ours: that one was taken by force.
      n += mapped.status === Status.ok && mapped.value > 0 ? mapped.value : 1;
    }
  }

  /** Unmaps and frees the victims, those that differ from the disk once they are written there. */
  *#putOut(
    view: number,
    n: number,
    leaf: number,
    words: Uint32Array,
    victims: readonly Victim[],
  ): Op<number> {
    const map = yield* this.#map(view, n);
    if (map < 0) return 0;
    const blocks = yield* this.words(map);
    const dirty = ({ index }: Victim): boolean =>
      (blocks[index] ?? 0) === 0 || isDirty(words[index * 2] ?? 0);
    const clean = victims.filter((victim) => !dirty(victim));
    yield* this.#drop(view, leaf, clean);
    const differ = victims.filter(dirty);
    yield* this.#unlist(
      map,
      differ.map(({ index }) => index),
    );
    const result = differ.length > 0 ? yield* this.#writeOut(view, leaf, map, differ) : 0;
    if (result >= 0 || clean.length > 0) return Math.max(result, 0) + clean.length;
    return result === SWAP_FULL && victims.length < CLUSTER ? 0 : result;
  }

  *#writeOut(view: number, leaf: number, map: number, victims: readonly Victim[]): Op<number> {
    for (let tries = 0; tries < TRIES; tries++) {
      const [first, count] = yield* this.#through(map, RW, () => this.#assign(victims));
      if (count === 0) return SWAP_FULL;
      const going = victims.slice(0, count);
      const pages = going.map(({ physical }) => physical);
      if (yield* this.#move(first, pages, WRITE_BLOCKS)) {
        yield* this.#drop(view, leaf, going);
        return count;
      }
      // What cannot be written stays in memory, and its turn is over; other blocks may be better.
      yield* this.#unlist(
        map,
        going.map(({ index }) => index),
      );
    }
    return SWAP_FAILS;
  }

  /** Unmaps pages and gives them back. */
  *#drop(view: number, leaf: number, victims: readonly Victim[]): Op<void> {
    const calls = victims.map(({ index }) => [Call.pageUnmap, leaf, index, 1, COMMON]);
    yield* this.#sys.batch(BATCH, calls);
    const word = view + User.resident * 4;
    yield* this.#port.store(word, (yield* this.#port.load(word)) - victims.length);
    for (const { physical } of victims) yield* this.#shared.drop(physical);
  }

  /** Pages of a leaf table that are in memory, have a block, and are as `which` says. */
  *#withCopy(
    map: number,
    entries: Uint32Array,
    which: (entry: number) => boolean,
  ): Op<readonly number[]> {
    const found: number[] = [];
    for (const [index, word] of (yield* this.words(map)).entries()) {
      const entry = entries[index * 2] ?? 0;
      if (word !== 0 && index < ENTRIES && (entry & PTE_VALID) !== 0 && which(entry)) {
        found.push(index);
      }
    }
    if (this.#port.work(ENTRIES) === undefined) yield* this.#port.fault();
    return found;
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
    yield* shared.setControl(Control.swapOut, (yield* shared.control(Control.swapOut)) + count);
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

  /**
   * Reads what `lookup` found for virtual page `page` into a page. It keeps its block, while there
   * are more of them free than used. False: the disk failed.
   */
  *read(page: number, word: number, physical: number): Op<boolean> {
    const shared = this.#shared;
    const base = yield* shared.control(Control.swapBase);
    let read = false;
    for (let tries = 0; tries < TRIES && !read; tries++) {
      read = yield* this.#move(base + word - 1, [physical], READ_BLOCKS);
    }
    if (!read) return false;
    yield* shared.lock();
    yield* shared.setControl(Control.swapIn, (yield* shared.control(Control.swapIn)) + 1);
    const free = yield* shared.control(Control.swapFree);
    yield* shared.unlock();
    if (free * 2 < (yield* shared.control(Control.swapBlocks))) {
      yield* this.#unlist(yield* this.mapOf(page), [page % ENTRIES]);
    }
    return true;
  }

  /** Entries of a swap map name no block any more. */
  *#unlist(map: number, indexes: readonly number[]): Op<void> {
    if (indexes.length === 0) return;
    yield* this.#through(
      map,
      RW,
      function* (this: Swap): Op<void> {
        const words: number[] = [];
        for (const index of indexes) {
          words.push(yield* this.#port.load(VIEW + index * 4));
          yield* this.#port.store(VIEW + index * 4, 0);
        }
        yield* this.#release(words);
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

  /** Before a fork: pages of leaf table `n`, seen in `entries`, that differ from their blocks. */
  *settle(n: number, entries: Uint32Array): Op<void> {
    const map = yield* this.#port.load(at(UAREA) + (User.maps + n) * 4);
    if (map !== 0) yield* this.#unlist(map, yield* this.#withCopy(map, entries, isDirty));
  }

  /** Gives a child swap maps as ours are now. False: there are no pages for them. */
  *share(pid: number): Op<boolean> {
    const shared = this.#shared;
    for (const [n, map] of (yield* this.maps(at(UAREA))).entries()) {
      if (map === 0) continue;
      const copy = yield* shared.take();
      if (copy < 0) return false;
      yield* this.#sys.pageCopy(copy, COMMON, 0, map, COMMON, 0);
      const words = yield* this.words(map);
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
      yield* this.#release(yield* this.words(map));
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
  /** Entries of a leaf table, or words of a swap map. */
  *words(physical: number): Op<Uint32Array> {
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
