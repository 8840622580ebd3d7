/**
 * What the programs have in common: the library of JOS over this kernel's calls, as far as they
 * need it. Environments of one program trust one another: each has, in slot COMMON, a capability
 * that dominates the names of all its pages and environments.
 *
 *     page    1        stack page: upcall frames, a batch, what is printed
 *             2..      exposed tables, as Start says
 *           250        view of the own leaf table, 251 window for copying
 *           256-511    memory, from Start.freePages on: what fork gives to the child
 */
import {
  ALL_RIGHTS,
  Env,
  envIndex,
  EnvState,
  ENV_INDEX_BITS,
  Info,
  MAP_READ,
  MAP_SOFT_SHIFT,
  MAP_WRITE,
  type Name,
  packName,
  Start,
  Status,
} from '../../kernel/abi.ts';
import { LibOS, type Op, OWN_ENTRIES } from '../../libos/libos.ts';
import { FreePages } from '../../libos/parts/free-pages.ts';

export const PAGE = 4096;
export const at = (page: number): number => page * PAGE;
export const hex = (n: number): string => (n >>> 0).toString(16).padStart(8, '0');

export const OWN = 0; // slot of an environment's own name
export const COMMON = 1; // slot of the name that its program shares
const COMMON_NAME = 9; // second byte of that name
export const RW = MAP_READ | MAP_WRITE;
/** fork shares a page with this software bit, and copies any other. */
export const SHARE = 1 << MAP_SOFT_SHIFT;

const VIEW = 250;
const WINDOW = 251;
export const MEMORY = Start.freePages;
const MEMORY_END = 512;

// The saved registers of upcalls end at 3,328 bytes of the stack page.
const PRINTED = at(Start.stackPage) + 3_328;
const PRINTED_BYTES = 768;
export const BATCH = at(Start.stackPage) + 512;

/** An environment as its maker knows it. */
export interface Made {
  readonly env: number;
  /** root, middle, leaf, two ledgers, stack */
  readonly pages: readonly number[];
  readonly leaf: number;
}

/** The first number of an entry that a class lists itself. */
export const FIRST = OWN_ENTRIES;

export abstract class Jos extends LibOS {
  readonly #pages = new FreePages(this.sys);
  root = 0; // table pages of this environment; the first two in a tenant's first one only
  middle = 0;
  leaf = 0;
  account = 0; // first byte of all our names
  extent = 0;
  blocks = 0;

  /** The program. It ends with status 0 when it returns. */
  abstract umain(): Op<void>;

  override *main(
    self: number,
    root: number,
    middle: number,
    leaf: number,
    _quota: number,
    extent: number,
    blocks: number,
  ): Op<void> {
    Object.assign(this, { root, middle, leaf, extent, blocks });
    yield* this.#account();
    yield* this.sys.capForge(self, COMMON, OWN, this.commonName(), ALL_RIGHTS);
    // A tenant begins with all its positions; we keep one, the others are for children.
    let kept = false;
    for (let position = 0; position < (yield* this.info(Info.slices)); position++) {
      if ((yield* this.info(Info.sliceVector + position)) !== self) continue;
      if (kept) yield* this.sys.sliceFree(position, OWN);
      kept = true;
    }
    yield* this.umain();
  }

  /** The entry of a child: what `start` hands it comes first. */
  child(run: (argument: number) => Op<void>): (...args: number[]) => Op<void> {
    const begin = function* (this: Jos, leaf: number, argument: number): Op<void> {
      this.leaf = leaf;
      yield* this.#account();
      yield* run(argument);
    }.bind(this);
    return (_self, leaf, argument) => begin(leaf ?? 0, argument ?? 0);
  }

  *#account(): Op<void> {
    this.account = ((yield* this.env(this.self, Env.nameA)) >>> 8) & 0xff;
  }

  commonName(...more: readonly number[]): Name {
    return packName([this.account, COMMON_NAME, ...more]);
  }

  // ---- console ----------------------------------------------------------------------------------

  override *print(text: string): Op<void> {
    const bytes = new TextEncoder().encode(text).subarray(0, PRINTED_BYTES);
    this.port.write(PRINTED, bytes, 0, bytes.length) ?? (yield* this.port.fault());
    yield* this.sys.consoleWrite(PRINTED, bytes.length);
  }

  // ---- exposed tables ---------------------------------------------------------------------------

  info(word: number): Op<number> {
    return this.port.load(at(Start.infoPage) + word * 4);
  }

  /** A word of the record of whoever stands in the row that `env` names. */
  env(env: number, word: number): Op<number> {
    return this.port.load(at(Start.envPages) + (envIndex(env) * Env.words + word) * 4);
  }

  /** State of an environment; free if its row has another holder by now. */
  *stateOf(env: number): Op<number> {
    const generation = yield* this.env(env, Env.generation);
    return generation === env >>> ENV_INDEX_BITS ? yield* this.env(env, Env.state) : EnvState.free;
  }

  // ---- memory -----------------------------------------------------------------------------------

  /** A page of our program's name, zero-filled; -1 if the machine has none left. */
  take(): Op<number> {
    return this.#pages.take(COMMON);
  }

  map(index: number, page: number, flags = RW, leaf = this.leaf): Op<{ status: number }> {
    return this.sys.pageMap(leaf, index, page, COMMON, 0, flags, COMMON);
  }

  /** A fresh page, mapped at `index`; the page. */
  *allocate(index: number, flags = RW): Op<number> {
    const page = yield* this.take();
    yield* this.map(index, page, flags);
    return page;
  }

  *write(va: number, text: string): Op<void> {
    const bytes = new TextEncoder().encode(`${text}\0`);
    this.port.write(va, bytes, 0, bytes.length) ?? (yield* this.port.fault());
  }

  /** The string at `va`, up to its zero byte. */
  *string(va: number): Op<string> {
    let text = '';
    for (let n = va; ; n++) {
      const byte = this.port.load8(n) ?? (yield* this.port.fault());
      if (byte === 0) return text;
      text += String.fromCharCode(byte);
    }
  }

  // ---- environments -----------------------------------------------------------------------------

  /** A blank environment with tables, a stack page and the exposed tables; null if none is free. */
  *exofork(account = -1): Op<Made | null> {
    const { sys } = this;
    const row = yield* this.#freeRow();
    if (row < 0) return null;
    const pages: number[] = [];
    for (let n = 0; n < 6; n++) pages.push(yield* this.take());
    const [root = 0, middle = 0, leaf = 0, ledger0 = 0, ledger1 = 0, stack = 0] = pages;
    const name = this.commonName(row >> 8, row & 0xff);
    const made = yield* sys.envCreate(row, root, COMMON, name, -1, account);
    if (made.status !== Status.ok) {
      for (const page of pages) yield* sys.pageFree(page, COMMON);
      return null;
    }
    const env = made.value;
    yield* sys.capForge(env, COMMON, COMMON, this.commonName(), ALL_RIGHTS);
    yield* sys.tableCreate(root, 0, middle, COMMON, [0, 0], COMMON);
    yield* sys.tableCreate(middle, 0, leaf, COMMON, [ledger0, ledger1], COMMON);
    yield* this.map(Start.stackPage, stack, RW, leaf);
    yield* this.map(Start.infoPage, yield* this.info(Info.page), MAP_READ, leaf);
    yield* this.#expose(leaf, Start.envPages, Info.envPage, yield* this.info(Info.envPages));
    const words = Math.ceil((yield* this.info(Info.pages)) / (PAGE / 4));
    yield* this.#expose(leaf, Start.pagePages, Info.pagePage, words);
    return { env, pages, leaf };
  }

  *#expose(leaf: number, index: number, first: number, count: number): Op<void> {
    const page = yield* this.info(first);
    for (let n = 0; n < count; n++) yield* this.map(index + n, page + n, MAP_READ, leaf);
  }

  *#freeRow(): Op<number> {
    const rows = yield* this.info(Info.environments);
    for (let row = 1; row < rows; row++) {
      if ((yield* this.env(row, Env.state)) === EnvState.free) return row;
    }
    return -1;
  }

  /** Starts it at an entry of our image, made by `child`, with a free position of the vector. */
  *start({ env, leaf }: Made, entry: number, argument = 0): Op<void> {
    const slices = yield* this.info(Info.slices);
    for (let position = 0; position < slices; position++) {
      const { status } = yield* this.sys.sliceAllocate(position, env, COMMON);
      if (status === Status.ok) break;
    }
    const program = yield* this.env(this.self, Env.image);
    yield* this.sys.envStart(env, program, entry, [leaf, argument], COMMON);
  }

  /** A child that shares nothing with us but the library; null if there can be none. */
  *spawn(entry: number, argument = 0): Op<Made | null> {
    const made = yield* this.exofork();
    if (made !== null) yield* this.start(made, entry, argument);
    return made;
  }

  /** JOS's dumbfork: the child has a copy of each page of our memory, and those that are shared. */
  *fork(entry: number, argument = 0): Op<Made | null> {
    const made = yield* this.exofork();
    if (made === null) return null;
    yield* this.give(made, () => true);
    yield* this.start(made, entry, argument);
    return made;
  }

  /** Gives a child those pages of our memory whose flags are `wanted`. */
  *give({ leaf }: Made, wanted: (flags: number) => boolean): Op<void> {
    const { sys } = this;
    yield* sys.pageMap(this.leaf, VIEW, this.leaf, OWN, 0, MAP_READ, OWN);
    for (let index = MEMORY; index < MEMORY_END; index++) {
      const entry = yield* this.port.load(at(VIEW) + index * 8);
      if ((entry & 1) === 0 || !wanted(entry)) continue;
      const flags = entry & (RW | SHARE);
      if ((flags & SHARE) !== 0) {
        yield* this.map(index, entry >>> 10, flags, leaf);
        continue;
      }
      const copy = yield* this.allocate(WINDOW);
      this.port.copy(at(WINDOW), at(index), PAGE) ?? (yield* this.port.fault());
      yield* sys.pageUnmap(this.leaf, WINDOW, 1, OWN);
      yield* this.map(index, copy, flags, leaf);
    }
    yield* sys.pageUnmap(this.leaf, VIEW, 1, OWN);
  }

  /** Sleeps until a child is dead; its exit status. Its maker is its patron, and hears of it. */
  *wait(env: number): Op<number> {
    for (;;) {
      const seen = yield* this.env(this.self, Env.events);
      if ((yield* this.stateOf(env)) === EnvState.zombie) {
        return yield* this.env(env, Env.exitStatus);
      }
      yield* this.sys.sleep(seen);
    }
  }

  /** Takes a dead child apart, pages and all; its memory too, but what others still have mapped. */
  *reap({ env, pages, leaf }: Made): Op<number> {
    const { sys } = this;
    yield* sys.pageMap(this.leaf, VIEW, leaf, OWN, 0, MAP_READ, COMMON);
    const memory: number[] = [];
    for (let index = MEMORY; index < MEMORY_END; index++) {
      const entry = yield* this.port.load(at(VIEW) + index * 8);
      if ((entry & 1) !== 0) memory.push(entry >>> 10);
    }
    yield* sys.pageUnmap(this.leaf, VIEW, 1, OWN);
    for (let index = 0; index < 512; index += 64) yield* sys.pageUnmap(leaf, index, 64, COMMON);
    yield* sys.tableDestroy(leaf, COMMON);
    yield* sys.tableDestroy(pages[1] ?? 0, COMMON);
    const { status } = yield* sys.envReap(env, COMMON);
    for (const page of [...pages, ...memory]) yield* sys.pageFree(page, COMMON);
    return status;
  }

  exit(status: number): Op<unknown> {
    return this.sys.envDestroy(this.self, OWN, status);
  }
}
