/**
 * A world with something wrong of every sort: tenant A, who makes the calls, and around it the
 * environments, pages, slots and lists that the refusal tables name.
 */
import {
  ALL_RIGHTS,
  Call,
  MAP_READ,
  MAP_WRITE,
  packName,
  READ,
  Resource,
  STEP_LEAVES,
  WRITE,
} from '../../../kernel/abi.ts';
import { PAGE_BYTES } from '../../../machine/units.ts';
import type { Op } from '../../../machine/user-port.ts';
import { type Home, LATE_DISK, NAME_B, Rig, type RigConfig, SCRATCH } from '../harness.ts';

export const WORLD_PAGES = 160;
export const RW = MAP_READ | MAP_WRITE;

/** Slots of tenant A, who makes the calls. */
export const Slot = {
  full: 0, // [1], all rights
  under: 1, // [1, 9], all rights
  reader: 2, // [1], READ
  writer: 3, // [1], READ and WRITE
  empty: 4,
  spare: 5, // [1], used by nothing
  beside: 6, // [1, 8], all rights
  forged: 8, // empty, for capForge
  stray: 9, // [2], all rights, as B offered it
} as const;

/** Scatter lists of one word, by what is wrong with it. */
export const List = {
  good: SCRATCH,
  beyond: SCRATCH + 4, // no such page
  entry: SCRATCH + 8, // no such access entry
  table: SCRATCH + 12, // no user page
  absent: SCRATCH + 16, // an empty access entry
  readOnly: SCRATCH + 20, // an access entry without WRITE
  pinned: SCRATCH + 24,
  exclusive: SCRATCH + 28, // a page that may have no further mapping
} as const;
export const UNMAPPED = 320 * PAGE_BYTES;
/** A record of the null call, and one of a call that cannot stand in a batch. */
export const BATCH = SCRATCH + 64;

/** Predicates of one term, by what is wrong with it. */
export const Term = {
  good: SCRATCH + 256,
  beyond: SCRATCH + 272, // no such page
  table: SCRATCH + 288, // no user page
  absent: SCRATCH + 304, // an empty access entry
  writeOnly: SCRATCH + 320, // an access entry without READ
  empty: SCRATCH + 336, // by an empty slot
  foreign: SCRATCH + 352, // an access entry that no slot of A dominates
} as const;

/** Accounts under A's, which is 1; B's is 2, and that of ROOT, whose name is empty, 3. */
export const Sub = {
  ward: 10, // [1, 4], asked for nothing
  idle: 11, // [1, 3], allotted nothing
  asked: 12, // [1, 2], and the deadline has passed
  pending: 13, // [1, 6], and the deadline is far
  none: 20, // a free row
} as const;
/** Losses of `asked` that the kernel saves at once: as many as it has requests of its own. */
const SAVES = 7;
const FAR = 2 ** 31 - 1; // cycles
/** Of an extent of `asked`. */
const SAVED = 7;
/** Extents of A, side by side, without transfers; its first has them. */
export const Quiet = { left: 8, right: 9 } as const;

export class World {
  readonly rig: Rig;
  readonly a: Home;
  readonly b: Home;
  readonly child: Home; // made, never started
  readonly runner: Home; // ready
  readonly zombie: Home;
  readonly crowded: Home; // a zombie that still has tables
  readonly server: Home; // receiving, with a window
  readonly mute: Home; // receiving, without a window
  readonly deaf: Home; // with a window, and ready: it does not wait
  readonly client: Home; // has called A and waits for the reply, with a window
  readonly bare: Home; // the same without a window
  readonly stale: number; // id of A's row, one generation late
  readonly own: number; // user pages of A, used by nothing
  readonly own2: number;
  readonly own3: number;
  readonly mapped: number; // at index 300 of A's leaf table
  readonly shared: number; // entry 1 to B, entry 2 to A for reading only, entry 3 empty
  readonly borrowed: number; // mapped at index 301 by entry 1
  readonly pinned: number; // a disk read is in flight to it
  readonly narrow: number; // named [1, 9]
  readonly narrow2: number;
  readonly leaf2: number; // an empty leaf table
  readonly exclusive: number; // mapped at index 302, and limited to that
  readonly going: number; // its entry 1 is being taken away, and one mapping is left, at 330
  readonly wanted: number; // asked for by root
  readonly poor: number; // id of an environment whose account may have no slice position
  readonly wards: readonly [number, number, number]; // pages that `ward` pays for
  readonly due: readonly number[]; // pages that `asked` pays for, and is to give back
  readonly kept: number; // one of those that it keeps
  readonly swept: number; // quarantined, with a mapping
  readonly gone: number; // quarantined, and a device reaches it
  readonly free: number;
  readonly kernel: number;
  readonly published: number;

  constructor(config: RigConfig = {}) {
    const rig = new Rig({
      ...config,
      tenants: 3,
      exokernel: { environments: 46, extents: 12 },
      machine: { pages: WORLD_PAGES, profile: LATE_DISK },
      tenant: (n) => [{ quota: 90, minimum: 2 }, { quota: 4 }, { quota: 0, name: [] }][n] ?? {},
    });
    this.rig = rig;
    const { a, b } = rig;
    [this.a, this.b] = [a, b];
    const row = a.row;
    const cap = (slot: number, name: readonly number[], rights: number): void => {
      const { a: word, b: more } = packName(name);
      rig.must(row, 'capForge', a.id, slot, Slot.full, word, more, rights);
    };
    cap(Slot.under, [1, 9], ALL_RIGHTS);
    cap(Slot.reader, [1], READ);
    cap(Slot.writer, [1], READ | WRITE);
    cap(Slot.spare, [1], ALL_RIGHTS);
    cap(Slot.beside, [1, 8], ALL_RIGHTS);
    const take = (slot: number = Slot.full): number => {
      const page = rig.raw.free();
      rig.must(row, 'pageAllocate', page, slot);
      return page;
    };
    [this.own, this.own2, this.own3] = [take(), take(), take()];
    this.mapped = take();
    rig.must(row, 'pageMap', a.leaf, 300, this.mapped, Slot.full, 0, RW, 0);
    this.shared = take();
    rig.must(row, 'accessAdd', this.shared, Slot.full, 1, NAME_B.a, NAME_B.b, READ | WRITE);
    const own = packName([1]);
    rig.must(row, 'accessAdd', this.shared, Slot.full, 2, own.a, own.b, READ);
    this.borrowed = take();
    rig.must(row, 'accessAdd', this.borrowed, Slot.full, 1, own.a, own.b, READ);
    rig.must(row, 'pageMap', a.leaf, 301, this.borrowed, Slot.full, 1, MAP_READ, 0);
    rig.must(row, 'accessAdd', this.borrowed, Slot.full, 2, own.a, own.b, WRITE);
    [this.narrow, this.narrow2] = [take(Slot.under), take(Slot.under)];
    this.leaf2 = take();
    rig.must(row, 'tableCreate', a.middle, 5, this.leaf2, Slot.full, take(), take(), 0);
    this.exclusive = take();
    rig.must(row, 'pageMap', a.leaf, 302, this.exclusive, Slot.full, 0, MAP_READ, 0);
    rig.must(row, 'pageLimit', this.exclusive, Slot.full, 1, 0);
    this.going = take();
    rig.must(row, 'accessAdd', this.going, Slot.full, 1, own.a, own.b, READ | WRITE);
    for (let n = 0; n <= STEP_LEAVES; n++) {
      rig.must(row, 'pageMap', a.leaf, 330 + n, this.going, Slot.full, 1, MAP_READ, 0);
    }
    rig.call(row, 'accessRemove', this.going, Slot.full, 1);
    // Position 2 is nobody's, and A may have it.
    const root = rig.tenants[2]?.row ?? 0;
    rig.must(root, 'sliceFree', 2, 0);
    rig.must(root, 'accountMove', 3, 1, 0, Resource.slices, 1);
    rig.must(b.row, 'capOffer', a.id, 0, NAME_B.a, NAME_B.b, ALL_RIGHTS);
    rig.must(row, 'capAcquire', b.id, Slot.stray);
    this.wanted = take();
    rig.must(root, 'revoke', 1, 0, 3, this.wanted, 1, 1, FAR);

    this.child = rig.child(row, [1, 7], { start: false });
    this.runner = rig.child(row, [1, 7]);
    this.zombie = rig.child(row, [1, 7]);
    rig.must(row, 'envDestroy', this.zombie.id, 0, 0);
    this.crowded = rig.child(row, [1, 7], { tables: true });
    rig.must(row, 'envDestroy', this.crowded.id, 0, 0);
    const windowed = (): Home => {
      const home = rig.child(row, [1, 7], { tables: true });
      rig.must(home.row, 'ipcWindow', home.leaf, 400, 0);
      return home;
    };
    this.server = windowed();
    rig.calls(this.server.row, 'ipcReplyWait', -1, 0, 0, 0, 0, -1, 0, 0);
    this.mute = rig.child(row, [1, 7]);
    rig.calls(this.mute.row, 'ipcReplyWait', -1, 0, 0, 0, 0, -1, 0, 0);
    this.deaf = windowed();
    this.client = windowed();
    this.bare = rig.child(row, [1, 7]);
    for (const { row: caller } of [this.client, this.bare]) {
      rig.calls(caller, 'ipcCall', a.id, 5, 6, 7, 8, -1, 0, 0);
      rig.must(row, 'ipcReplyWait', -1, 0, 0, 0, 0, -1, 0, 0);
    }
    this.stale = a.id + (1 << 14);
    const offered = packName([1, 7]);
    rig.must(this.runner.row, 'capOffer', a.id, 0, offered.a, offered.b, READ);

    this.wards = this.#open(Sub.ward, [1, 4], 3).pages as [number, number, number];
    this.#open(Sub.idle, [1, 3], 0);
    const pending = this.#open(Sub.pending, [1, 6], 1);
    this.poor = rig.raw.id(pending.row);
    this.#ask(Sub.pending, pending.pages, 1, FAR);
    const asked = this.#open(Sub.asked, [1, 2], SAVES + 3);
    const [kept, crowd, ...due] = asked.pages as [number, number, ...number[]];
    [this.kept, this.swept, this.due] = [kept, crowd, due];
    rig.must(asked.row, 'pageKeep', kept, 0, 1);
    for (let n = 0; n <= STEP_LEAVES; n++) {
      rig.must(row, 'pageMap', a.leaf, 350 + n, crowd, Slot.full, 0, MAP_READ, 0);
    }
    this.#ask(Sub.asked, asked.pages, SAVES + 2, 10_000);
    const name = packName([1, 2]);
    rig.must(row, 'extentSplit', a.extent, 0, SAVED, 4, name.a, name.b);
    rig.must(root, 'accountMove', 3, 1, 0, Resource.extents, 1);
    rig.must(row, 'extentSplit', a.extent, 0, Quiet.right, 4, own.a, own.b);
    rig.must(row, 'extentSplit', a.extent, 0, Quiet.left, 4, own.a, own.b);
    rig.run(20_000);
    rig.call(row, 'repossess', Sub.asked, 0, crowd);
    for (let n = 0; n <= SAVES; n++) rig.must(asked.row, 'saveBlock', 1 + n, SAVED, 0, n % 4);

    this.pinned = take();
    this.gone = take();
    this.free = rig.raw.free();
    this.kernel = rig.kernel.state.root;
    this.published = rig.kernel.state.info.firstPage;
    const lists = [
      this.own,
      WORLD_PAGES,
      this.own | (5 << 28),
      a.leaf,
      this.shared | (3 << 28),
      this.shared | (2 << 28),
      this.pinned,
      this.exclusive,
      this.gone,
    ];
    const terms: readonly (readonly [number, number])[] = [
      [this.own, Slot.full],
      [WORLD_PAGES, Slot.full],
      [a.leaf, Slot.full],
      [this.shared | (3 << 28), Slot.full],
      [this.borrowed | (2 << 28), Slot.full],
      [this.own, Slot.empty],
      [this.shared | (1 << 28), Slot.full],
    ];
    rig.does(row, function* (port): Op<void> {
      for (const [n, word] of lists.entries()) {
        port.store32(SCRATCH + n * 4, word) ?? (yield* port.fault());
      }
      for (const [n, [page, slot]] of terms.entries()) {
        port.store32(Term.good + n * 16, page) ?? (yield* port.fault());
        port.store32(Term.good + n * 16 + 4, slot << 20) ?? (yield* port.fault());
      }
      port.store32(BATCH, Call.null) ?? (yield* port.fault());
      port.store32(BATCH + 4, Call.yield) ?? (yield* port.fault());
    });
    rig.must(row, 'diskRequest', a.extent, 0, 0, 1, List.pinned, 0, 0);
    rig.must(row, 'diskRequest', a.extent, 0, 0, 1, SCRATCH + 32, 0, 0);
    rig.must(row, 'pageFree', this.gone, 0);
  }

  /** Opens an account under A's, with an environment of its name, and pages that it pays for. */
  #open(account: number, name: readonly number[], pages: number): { row: number; pages: number[] } {
    const { rig, a } = this;
    const { a: word, b: more } = packName(name);
    rig.must(a.row, 'accountCreate', account, a.row, 0, word, more, 1);
    if (pages === 0) return { row: 0, pages: [] };
    rig.must(a.row, 'accountMove', a.row, account, 0, Resource.environments, 1);
    rig.must(a.row, 'accountMove', a.row, account, 0, Resource.pages, pages + 1);
    const root = rig.raw.free();
    rig.must(a.row, 'pageAllocate', root, 0);
    const row = rig.raw.freeRow();
    const id = rig.must(a.row, 'envCreate', row, root, 0, word, more, -1, account);
    rig.must(a.row, 'envStart', id, 0, 0, 0, 0, 0);
    const taken = Array.from({ length: pages }, () => {
      const page = rig.raw.free();
      rig.must(row, 'pageAllocate', page, 0);
      return page;
    });
    return { row, pages: taken };
  }

  /** A asks an account for some of these pages, which lie side by side, for itself. */
  #ask(account: number, pages: readonly number[], count: number, cycles: number): void {
    const { rig, a } = this;
    const [first] = pages as [number];
    rig.must(a.row, 'revoke', account, 0, a.row, first, pages.length, count, cycles);
  }
}
