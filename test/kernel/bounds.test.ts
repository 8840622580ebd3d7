/**
 * No call takes long, whatever its arguments and whatever stands in the tables. kernel/exokernel/
 * bounds.ts says how many references of tables each call may make, and the kernel holds itself to
 * that after every call. Here each call is driven to its bound: a scene that makes it as long as it
 * gets. A bound that its scene does not come near is too generous; a scene that breaks it stops the
 * kernel.
 *
 * Names are longer than three bytes, so that both words of them are read; names of pages, extents
 * and positions carry their generation; whoever is woken has a sleeping patron.
 */
import { describe, expect, test } from 'vitest';
import {
  ACCESS_ENTRIES,
  BATCH_MAX,
  Call,
  type CallName,
  DISK_BLOCKS_MAX,
  Env,
  Extent,
  EXTENT_BITS,
  Info,
  LOSSES,
  MAP_MAX,
  MAP_READ,
  MAP_WRITE,
  type Name,
  packName,
  PAGE_BITS,
  PAGE_TAG_BITS,
  PREDICATE_TERMS,
  READ,
  Resource,
  SLICE_BITS,
  STEP_LEAVES,
  TAG_BITS,
  tagOf,
  Upcall,
  UNMAP_MAX,
  WRITE,
} from '../../kernel/abi.ts';
import { REFERENCES } from '../../kernel/exokernel/bounds.ts';
import { DEADLINE_MIN } from '../../kernel/exokernel/revocation.ts';
import { EXTENTS_MAX, PageRecord, REQUESTS_MAX } from '../../kernel/exokernel/state.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Op } from '../../machine/user-port.ts';
import {
  CALLS,
  Entry,
  type Home,
  LATE_DISK,
  LOSS_MASK,
  REVOKE_MASK,
  Rig,
  SCRATCH,
} from './harness.ts';

/** How near a scene must come to the bound that it attacks. */
const NEAR = 0.9;
const RW = MAP_READ | MAP_WRITE;
const A = 1; // row of the tenant, and its account
const OWN = [1, 1, 1, 1];
const UNDER = [1, 1, 1, 1, 1];
const own = packName(OWN);
const under = packName(UNDER);
const beside = packName([1, 1, 1, 1, 2]);
const CHAIN = 8; // environments that wait for one another
const WARD = 20; // an account under the tenant's
const OTHER = 21; // and another
const FAR = 2 ** 31 - 1;

/** A tenant with much of everything, and the longest that each call took. */
class Scene {
  readonly rig: Rig;
  readonly a: Home;
  /** by call number */
  readonly longest: number[] = [];

  constructor(late = false) {
    this.rig = new Rig({
      tenants: 1,
      exokernel: { environments: 40, extents: EXTENTS_MAX, slices: 4 },
      machine: { pages: 420, medium: new RamMedium(80), ...(late ? { profile: LATE_DISK } : {}) },
      blocks: 60,
      quota: 260,
      tenant: () => ({ name: OWN, minimum: 4 }),
    });
    this.a = this.rig.a;
    const { machine, kernel } = this.rig;
    this.rig.onExit = (seen) => {
      // The machine's owner asks for more than there is: whatever is free is given.
      machine.memory.put(kernel.state.info.address(0, Info.balloon), FAR);
      if (seen === null) return;
      const { number, references } = seen;
      this.longest[number] = Math.max(this.longest[number] ?? 0, references);
    };
  }

  // ---- names ------------------------------------------------------------------------------------

  page(page: number): number {
    const generation = this.rig.raw.page(page, PageRecord.generation);
    return page | (tagOf(generation, PAGE_TAG_BITS) << PAGE_BITS);
  }
  extent(row: number): number {
    return row | (tagOf(this.rig.raw.extent(row, Extent.generation), TAG_BITS) << EXTENT_BITS);
  }
  position(n: number): number {
    return n | (tagOf(this.rig.raw.info(Info.sliceGeneration + n), TAG_BITS) << SLICE_BITS);
  }

  // ---- what scenes are made of ------------------------------------------------------------------

  take(row: number = A): number {
    const page = this.rig.raw.free();
    this.rig.must(row, 'pageAllocate', page, 0);
    return page;
  }
  takeMany(count: number): number[] {
    return Array.from({ length: count }, () => this.take());
  }
  words(row: number, at: number, list: readonly number[]): void {
    this.rig.does(row, function* (port): Op<void> {
      for (const [n, word] of list.entries()) {
        port.store32(at + n * 4, word) ?? (yield* port.fault());
      }
    });
  }
  /** An empty leaf table under `home`, at `index` of its middle table. */
  table({ row, middle }: Home, index: number): number {
    const [table, ledger0, ledger1] = [this.take(row), this.take(row), this.take(row)];
    this.rig.must(row, 'tableCreate', middle, index, table, 0, ledger0, ledger1, 0);
    return table;
  }
  /** A child without tables; its patron sleeps. */
  child(patron: number, name: Name = under, start = true): { row: number; id: number } {
    const { rig } = this;
    const row = rig.raw.freeRow();
    const { a, b } = name;
    const id = rig.must(A, 'envCreate', row, this.take(), 0, a, b, patron, -1);
    if (start) rig.must(A, 'envStart', id, 0, Entry.main, 0, 0, 0);
    return { row, id };
  }
  /** An environment that sleeps for ever. */
  sleeper(): { row: number; id: number } {
    const made = this.child(-1);
    this.rig.calls(made.row, 'sleep', this.rig.raw.env(made.row, Env.events), -1, 0, 0);
    return made;
  }
  /** It sleeps again, for whom it is a patron has woken it. */
  dozes({ row }: { readonly row: number }): void {
    this.rig.settle(row);
    this.rig.calls(row, 'sleep', this.rig.raw.env(row, Env.events), -1, 0, 0);
  }
  /** An account under the tenant's with an environment of its own, which has tables if asked. */
  ward(pages: number, tables = false, account = WARD, name = UNDER): Home {
    const { rig } = this;
    const { a, b } = packName(name);
    rig.must(A, 'accountCreate', account, A, 0, a, b, 4);
    rig.must(A, 'accountMove', A, account, 0, Resource.environments, 1);
    rig.must(A, 'accountMove', A, account, 0, Resource.pages, pages);
    return rig.child(A, name, { account, tables });
  }
  /** A predicate of as many terms as there may be, all of one page, at SCRATCH + 512 of `row`. */
  predicate(row: number, page: number, entry: number, value: number): readonly [number, number] {
    const where = (entry << 28) | this.page(page);
    const term = [where, 1 << 24, value, 7]; // word 0 is equal; a product of its own
    const at = SCRATCH + 512;
    this.words(row, at, Array.from({ length: PREDICATE_TERMS }, () => term).flat());
    return [at, PREDICATE_TERMS];
  }
  /**
   * A chain of calls as long as it is followed: its head is yielded to or called, its end sleeps
   * with a predicate that has become true meanwhile.
   */
  chain(): number {
    const { rig } = this;
    const end = rig.child(A, UNDER, { tables: true });
    const page = this.take();
    rig.must(A, 'accessAdd', page, 0, 1, under.a, under.b, READ);
    const [at, terms] = this.predicate(end.row, page, 1, 5);
    rig.calls(end.row, 'sleep', rig.raw.env(end.row, Env.events), -1, at, terms);
    let target = end.id;
    for (let n = 1; n < CHAIN; n++) {
      const { row, id } = this.child(-1);
      rig.calls(row, 'ipcCall', target, 1, 2, 3, 4, -1, 0, 0);
      target = id;
    }
    rig.must(A, 'pageMap', this.a.leaf, 500, page, 0, 0, RW, 0);
    this.words(A, 500 * PAGE_BYTES, [5]);
    return target;
  }
  /** A page with a limit on both sorts of mappings, and mapped once. */
  limited(at: number): number {
    const page = this.take();
    this.rig.must(A, 'pageLimit', page, 0, 100, 100);
    this.rig.must(A, 'pageMap', this.a.leaf, at, page, 0, 0, RW, 0);
    return page;
  }
  /** The child waits for calls, with an open window; the page is fit to be granted to it. */
  receiver(): { home: Home; page: number } {
    const { rig } = this;
    const home = rig.child(A, UNDER, { tables: true });
    rig.must(home.row, 'ipcWindow', this.page(home.leaf), 400, 0);
    return { home, page: this.limited(300) };
  }
  /** Asks `WARD` for `count` pages of the machine, for `taker`, and lets the time pass. */
  revoke(count: number, taker = A, account = WARD, cycles = DEADLINE_MIN): void {
    const { pages } = this.rig.raw;
    this.rig.must(A, 'revoke', account, 0, taker, 0, pages, count, cycles);
    if (cycles === DEADLINE_MIN) this.rig.run(2 * DEADLINE_MIN);
  }
}

/** The scene of each call. Calls that it makes on the way are measured as well, and do no harm. */
const SCENES: Record<CallName, (scene: Scene) => void> = {
  null: ({ rig }) => {
    rig.must(A, 'null');
  },
  yield: (scene) => {
    scene.rig.calls(A, 'yield', scene.chain());
  },
  sleep: (scene) => {
    const { rig } = scene;
    // Both upcalls wait behind one that is outstanding, in the child's masks.
    const ward = scene.ward(40, true);
    const pages = Array.from({ length: 3 }, () => scene.take(ward.row));
    rig.catchesRevocation(ward.row);
    scene.words(ward.row, REVOKE_MASK, [1]);
    scene.words(ward.row, LOSS_MASK, [1]);
    scene.revoke(2);
    rig.must(A, 'repossess', WARD, 0, pages[0] ?? 0);
    const [at, terms] = scene.predicate(ward.row, pages[1] ?? 0, 0, 5);
    rig.calls(ward.row, 'sleep', rig.raw.env(ward.row, Env.events), 1000, at, terms);
  },
  notify: (scene) => {
    const { rig } = scene;
    const patron = scene.sleeper();
    const child = scene.child(patron.id);
    scene.dozes(patron);
    rig.calls(child.row, 'sleep', rig.raw.env(child.row, Env.events), -1, 0, 0);
    rig.must(A, 'notify', child.id, 0);
  },
  envCreate: (scene) => {
    const { rig } = scene;
    // Another account, which is being asked for pages beyond the root; a patron that is dominated.
    const patron = scene.sleeper().id;
    rig.must(A, 'accountCreate', WARD, A, 0, under.a, under.b, 0);
    rig.must(A, 'accountMove', A, WARD, 0, Resource.environments, 1);
    rig.must(A, 'accountMove', A, WARD, 0, Resource.pages, 8);
    const first = rig.child(A, UNDER, { account: WARD, tables: true });
    const [page, more] = [scene.take(first.row), scene.take(first.row)];
    expect(more).toBeGreaterThan(page);
    rig.must(A, 'revoke', WARD, 0, A, 0, 1, 1, FAR);
    rig.must(A, 'envDestroy', first.id, 0, 0);
    rig.must(A, 'accountMove', A, WARD, 0, Resource.environments, 1);
    const row = rig.raw.freeRow();
    const { a, b } = under;
    rig.must(A, 'envCreate', row, scene.page(page), 0, a, b, patron, WARD);
  },
  envStart: (scene) => {
    const { id } = scene.child(scene.sleeper().id, under, false);
    scene.rig.must(A, 'envStart', id, 0, Entry.main, 0, 0, 0);
  },
  envDestroy: (scene) => {
    const { rig } = scene;
    // The middle one of three in a queue.
    const server = scene.child(-1);
    const patron = scene.sleeper();
    const callers = [0, 1, 2].map(() => scene.child(patron.id));
    for (const { row } of callers) rig.calls(row, 'ipcCall', server.id, 1, 2, 3, 4, -1, 0, 0);
    scene.dozes(patron);
    rig.must(A, 'envDestroy', callers[1]?.id ?? 0, 0, 0);
  },
  envReap: (scene) => {
    const { rig, a } = scene;
    const child = scene.child(-1);
    const root = rig.raw.env(child.row, Env.root);
    for (let n = 0; n < STEP_LEAVES; n++) {
      rig.must(A, 'pageMap', a.leaf, 300 + n, root, 0, 0, MAP_READ, 0);
    }
    rig.must(A, 'envDestroy', child.id, 0, 0);
    rig.must(A, 'envReap', child.id, 0);
  },
  upcallSet: ({ rig }) => {
    rig.must(A, 'upcallSet', Upcall.fault, Entry.fault, PAGE_BYTES);
  },
  pageAllocate: (scene) => {
    scene.rig.must(A, 'pageAllocate', scene.page(scene.rig.raw.free()), 0);
  },
  pageFree: (scene) => {
    const { rig } = scene;
    // Kept, and the last one that its account is asked for.
    const ward = scene.ward(40);
    const page = scene.take(ward.row);
    scene.take(ward.row);
    rig.must(ward.row, 'pageKeep', page, 0, 1);
    scene.revoke(1, A, WARD, FAR);
    rig.must(A, 'pageFree', scene.page(page), 0);
  },
  accessAdd: (scene) => {
    const { a, b } = under;
    scene.rig.must(A, 'accessAdd', scene.page(scene.take()), 0, 1, a, b, READ);
  },
  accessRemove: (scene) => {
    const { rig, a } = scene;
    const page = scene.take();
    rig.must(A, 'accessAdd', page, 0, 1, own.a, own.b, READ | WRITE);
    for (let n = 0; n < STEP_LEAVES; n++) {
      rig.must(A, 'pageMap', a.leaf, 300 + n, page, 0, 1, RW, 0);
    }
    rig.must(A, 'accessRemove', scene.page(page), 0, 1);
  },
  tableCreate: (scene) => {
    const { rig } = scene;
    // Another's table, of pages of an account that is asked for others.
    const child = rig.child(A, UNDER, { tables: true });
    const [table, ledger0, ledger1] = scene.takeMany(3).map((page) => scene.page(page));
    rig.must(A, 'accountCreate', WARD, A, 0, under.a, under.b, 0);
    const middle = scene.page(child.middle);
    rig.must(A, 'tableCreate', middle, 9, table ?? 0, 0, ledger0 ?? 0, ledger1 ?? 0, 0);
  },
  tableDestroy: (scene) => {
    const { rig, a } = scene;
    const child = rig.child(A, UNDER, { tables: true });
    rig.must(A, 'pageUnmap', child.leaf, 1, 1, 0);
    for (let n = 0; n < STEP_LEAVES; n++) {
      rig.must(A, 'pageMap', a.leaf, 300 + n, child.leaf, 0, 0, MAP_READ, 0);
    }
    rig.must(A, 'tableDestroy', scene.page(child.leaf), 0);
  },
  pageMap: (scene) => {
    const { rig } = scene;
    const child = rig.child(A, UNDER, { tables: true });
    rig.must(A, 'capForge', child.id, 1, 0, own.a, own.b, READ | WRITE);
    const page = scene.limited(300);
    const { leaf } = child;
    rig.must(A, 'pageMap', scene.page(leaf), 300, scene.page(page), 1, 0, RW, 0);
  },
  pageUnmap: (scene) => {
    const { rig, a } = scene;
    // 64 quarantined pages, the last mapping of each, whose account is asked for them.
    const ward = scene.ward(3 + UNMAP_MAX + 20);
    const pages = Array.from({ length: UNMAP_MAX }, () => scene.take(ward.row));
    const tables = [a.leaf, scene.table(a, 9), scene.table(a, 10), scene.table(a, 11)];
    for (let n = 0; n <= STEP_LEAVES; n++) {
      scene.words(A, SCRATCH, pages);
      const [table, at] = n === 0 ? [0, 300] : [1 + ((n - 1) >>> 3), ((n - 1) & 7) * UNMAP_MAX];
      rig.must(A, 'pageMapList', tables[table] ?? 0, at, UNMAP_MAX, SCRATCH, 0, RW, 0);
    }
    for (const [n, taker] of [OTHER, OTHER + 1].entries()) {
      const { a: word, b: more } = packName([...OWN, 2 + n]);
      rig.must(A, 'accountCreate', taker, A, 0, word, more, 0);
      scene.revoke(LOSSES, taker);
      for (const page of pages.slice(n * LOSSES, (n + 1) * LOSSES)) {
        rig.call(A, 'repossess', WARD, 0, page);
      }
      rig.must(A, 'revoke', taker, 0, A, 0, rig.raw.pages, LOSSES, FAR);
    }
    rig.must(A, 'pageUnmap', scene.page(a.leaf), 300, UNMAP_MAX, 0);
  },
  pageProtect: (scene) => {
    const { rig, a } = scene;
    // Each by another slot, as far as there are any; pages with limits.
    for (let slot = 1; slot < 15; slot++) {
      rig.must(A, 'capForge', a.id, slot, 0, own.a, own.b, READ | WRITE);
    }
    for (let n = 0; n < MAP_MAX; n++) {
      const page = scene.take();
      rig.must(A, 'pageLimit', page, 0, 100, 100);
      rig.must(A, 'pageMap', a.leaf, 220 + n, page, n % 15, 0, MAP_READ, 0);
    }
    rig.must(A, 'pageProtect', scene.page(a.leaf), 220, MAP_MAX, RW, 0);
  },
  capForge: (scene) => {
    const { id } = scene.child(-1);
    scene.rig.must(A, 'capForge', id, 3, 0, under.a, under.b, READ);
  },
  capDrop: (scene) => {
    const { rig } = scene;
    const child = rig.child(A, UNDER, { tables: true });
    rig.must(A, 'capForge', child.id, 3, 0, under.a, under.b, READ);
    rig.must(child.row, 'ipcWindow', child.leaf, 400, 3);
    rig.must(A, 'capDrop', child.id, 3, 0);
  },
  sliceAllocate: (scene) => {
    const { rig } = scene;
    // A dead owner's position, of another account.
    const ward = scene.ward(20);
    const child = scene.child(-1);
    rig.must(A, 'sliceFree', 3, 0);
    rig.must(A, 'accountMove', A, WARD, 0, Resource.slices, 1);
    rig.must(A, 'sliceAllocate', 3, ward.id, 0);
    rig.must(A, 'envDestroy', ward.id, 0, 0);
    rig.must(A, 'sliceFree', 2, 0);
    rig.must(A, 'sliceAllocate', scene.position(3), child.id, 0);
  },
  sliceFree: (scene) => {
    const { rig } = scene;
    const child = scene.child(-1);
    rig.must(A, 'sliceFree', 3, 0);
    rig.must(A, 'sliceAllocate', 3, child.id, 0);
    rig.must(A, 'sliceFree', scene.position(3), 0);
  },
  ipcWindow: (scene) => {
    scene.rig.must(A, 'ipcWindow', scene.page(scene.a.leaf), 400, 0);
  },
  ipcCall: (scene) => {
    const target = scene.chain();
    const { row } = scene.child(-1);
    scene.rig.calls(row, 'ipcCall', target, 1, 2, 3, 4, -1, 0, 0);
    scene.rig.calls(A, 'ipcCall', target, 1, 2, 3, 4, -1, 0, 0);
  },
  ipcReplyWait: (scene) => {
    const { rig } = scene;
    // A page for who is answered, whose patron sleeps; and two more callers in the queue.
    const { home, page } = scene.receiver();
    rig.calls(home.row, 'ipcCall', scene.a.id, 1, 2, 3, 4, -1, 0, 0);
    rig.must(A, 'ipcReplyWait', -1, 0, 0, 0, 0, -1, 0, 0);
    for (let n = 0; n < 2; n++) {
      rig.calls(scene.child(-1).row, 'ipcCall', scene.a.id, 1, 2, 3, 4, -1, 0, 0);
    }
    const given = READ | WRITE | (1 << 8);
    rig.must(A, 'ipcReplyWait', home.id, 1, 2, 3, 4, scene.page(page), 0, given);
  },
  extentSplit: (scene) => {
    const { rig, a } = scene;
    rig.run(200_000); // the first generation is durable
    const { a: word, b: more } = under;
    rig.must(A, 'extentSplit', scene.extent(a.extent), 0, scene.extent(9), 2, word, more);
    rig.run(200_000);
    rig.must(A, 'extentSplit', scene.extent(a.extent), 0, scene.extent(10), 2, word, more);
  },
  diskRequest: (scene) => {
    const { rig, a } = scene;
    const pages = scene.takeMany(DISK_BLOCKS_MAX);
    const list = pages.map((page) => scene.page(page));
    scene.words(A, SCRATCH, list);
    for (let n = 1; n < REQUESTS_MAX; n++) {
      rig.must(A, 'diskRequest', a.extent, 0, 0, 1, SCRATCH, 0, 0);
    }
    rig.must(A, 'diskRequest', scene.extent(a.extent), 0, 0, DISK_BLOCKS_MAX, SCRATCH, 0, 0);
  },
  consoleRead: ({ rig }) => {
    rig.machine.type(A, new Uint8Array(100));
    rig.must(A, 'consoleRead');
  },
  consoleWrite: ({ rig }) => {
    rig.must(A, 'consoleWrite', SCRATCH, 2048);
  },
  batch: (scene) => {
    const { rig } = scene;
    // The widest records; what the calls themselves make is known from one that is made alone.
    scene.ward(20);
    const withdraw = [WARD, 0, A, 0, 1, 0, DEADLINE_MIN];
    rig.must(A, 'revoke', ...withdraw);
    const each = scene.longest[Call.revoke] ?? 0;
    const records = Array.from({ length: BATCH_MAX }, () => [Call.revoke, ...withdraw]);
    scene.words(A, SCRATCH, records.flat());
    rig.must(A, 'batch', SCRATCH, BATCH_MAX);
    scene.longest[Call.batch] = (scene.longest[Call.batch] ?? 0) - BATCH_MAX * each;
  },
  capOffer: (scene) => {
    const { id } = scene.child(-1);
    scene.rig.must(A, 'capOffer', id, 0, under.a, under.b, READ);
  },
  capAcquire: (scene) => {
    const { row, id } = scene.child(-1);
    scene.rig.must(A, 'capOffer', id, 0, under.a, under.b, READ);
    scene.rig.must(row, 'capAcquire', scene.a.id, 3);
  },
  pageMapList: (scene) => {
    const { rig } = scene;
    const child = rig.child(A, UNDER, { tables: true });
    rig.must(A, 'capForge', child.id, 1, 0, own.a, own.b, READ | WRITE);
    const pages = scene.takeMany(MAP_MAX);
    scene.words(A, SCRATCH, pages);
    rig.must(A, 'pageMapList', scene.a.leaf, 300, MAP_MAX, SCRATCH, 0, RW, 0);
    for (const page of pages) rig.must(A, 'pageLimit', page, 0, 100, 100);
    scene.words(
      A,
      SCRATCH,
      pages.map((page) => scene.page(page)),
    );
    rig.must(A, 'pageMapList', scene.page(child.leaf), 220, MAP_MAX, SCRATCH, 1, RW, 0);
  },
  pageCopy: (scene) => {
    const [to, from] = [scene.page(scene.take()), scene.page(scene.take())];
    scene.rig.must(A, 'pageCopy', to, 0, 0, from, 0, 0);
  },
  pageLimit: (scene) => {
    scene.rig.must(A, 'pageLimit', scene.page(scene.take()), 0, 5, 5);
  },
  pageKeep: (scene) => {
    const { rig } = scene;
    const ward = scene.ward(40);
    const [first, page] = [scene.take(ward.row), scene.take(ward.row)];
    rig.must(A, 'revoke', WARD, 0, A, first, 1, 1, FAR);
    expect(page).toBeGreaterThan(first);
    rig.must(ward.row, 'pageKeep', scene.page(page), 0, 1);
    rig.must(ward.row, 'pageKeep', scene.page(page), 0, 1);
  },
  pageSweep: (scene) => {
    const { rig, a } = scene;
    // Of an account that is asked for it; mappings by the last access entry.
    const ward = scene.ward(40);
    const page = scene.take(ward.row);
    scene.take(ward.row);
    const last = ACCESS_ENTRIES - 1;
    rig.must(A, 'accessAdd', page, 0, last, own.a, own.b, READ | WRITE);
    for (let n = 0; n < 2 * STEP_LEAVES; n++) {
      rig.must(A, 'pageMap', a.leaf, 300 + n, page, 0, last, RW, 0);
    }
    rig.must(A, 'accountCreate', OTHER, A, 0, beside.a, beside.b, 0);
    scene.revoke(1, OTHER);
    rig.call(A, 'repossess', WARD, 0, page);
    rig.must(A, 'revoke', OTHER, 0, A, 0, rig.raw.pages, 1, FAR);
    rig.must(A, 'pageSweep', scene.page(page));
  },
  envSuspend: (scene) => {
    const patron = scene.sleeper();
    const child = scene.child(patron.id);
    scene.dozes(patron);
    scene.rig.must(A, 'envSuspend', child.id, 0, 0);
  },
  ipcSend: (scene) => {
    const { rig } = scene;
    const { home, page } = scene.receiver();
    rig.calls(home.row, 'ipcReplyWait', -1, 0, 0, 0, 0, -1, 0, 0);
    const given = READ | WRITE | (1 << 8);
    rig.call(A, 'ipcSend', home.id, 1, 2, 3, 4, scene.page(page), 0, given);
  },
  extentJoin: (scene) => {
    const { rig, a } = scene;
    const { a: word, b: more } = own;
    rig.must(A, 'extentSplit', a.extent, 0, 9, 2, word, more);
    rig.run(400_000);
    rig.must(A, 'extentJoin', scene.extent(a.extent), 0, scene.extent(9));
    rig.must(A, 'extentSplit', a.extent, 0, 9, 2, word, more);
    rig.must(A, 'extentSplit', a.extent, 0, 10, 2, word, more);
    rig.run(400_000);
    rig.must(A, 'extentJoin', scene.extent(a.extent), 0, scene.extent(10));
  },
  accountCreate: (scene) => {
    scene.rig.must(A, 'accountCreate', WARD, A, 0, under.a, under.b, 0);
  },
  accountMove: (scene) => {
    scene.ward(8);
  },
  accountClose: (scene) => {
    scene.rig.must(A, 'accountCreate', WARD, A, 0, under.a, under.b, 0);
    scene.rig.must(A, 'accountClose', WARD, 0);
  },
  revoke: (scene) => {
    const { rig } = scene;
    // Who is asked sleeps, as does its patron, and wants to hear of it.
    const ward = scene.ward(40, true);
    scene.take(ward.row);
    scene.take(ward.row);
    rig.catchesRevocation(ward.row);
    rig.calls(ward.row, 'sleep', rig.raw.env(ward.row, Env.events), -1, 0, 0);
    rig.must(A, 'revoke', WARD, 0, A, scene.page(0), rig.raw.pages, 1, FAR);
  },
  repossess: (scene) => {
    const { rig, a } = scene;
    // The last page that is asked for, with mappings by its last access entry and a place to save
    // it to, while all rows but the last are in use; who loses it sleeps.
    const ward = scene.ward(60, true);
    const pages = Array.from({ length: 8 }, () => scene.take(ward.row));
    const page = pages.at(-1) ?? 0;
    const last = ACCESS_ENTRIES - 1;
    rig.must(A, 'accessAdd', page, 0, last, own.a, own.b, READ | WRITE);
    for (let n = 0; n <= STEP_LEAVES; n++) {
      rig.must(A, 'pageMap', a.leaf, 300 + n, page, 0, last, RW, 0);
    }
    rig.must(A, 'extentSplit', a.extent, 0, 9, 8, under.a, under.b);
    for (let n = 0; n < 7; n++) rig.must(ward.row, 'saveBlock', n, 9, 0, n);
    rig.catchesRevocation(ward.row);
    scene.revoke(7);
    for (const one of pages.slice(0, 6)) rig.must(A, 'repossess', WARD, 0, one);
    rig.calls(ward.row, 'sleep', rig.raw.env(ward.row, Env.events), -1, 0, 0);
    rig.call(A, 'repossess', WARD, 0, scene.page(page));
  },
  saveBlock: (scene) => {
    const { rig, a } = scene;
    rig.must(A, 'saveBlock', 0, scene.extent(a.extent), 0, 3);
  },
};
/** Scenes in which requests must not end. */
const LATE: readonly string[] = ['diskRequest', 'repossess'];

describe('every call can be driven to its bound', () => {
  for (const name of CALLS) {
    test(name, () => {
      const scene = new Scene(LATE.includes(name));
      SCENES[name](scene);
      const bound = REFERENCES[Call[name]] ?? NaN;
      const reached = scene.longest[Call[name]] ?? 0;
      expect(reached).toBeLessThanOrEqual(bound);
      expect(reached / Math.max(bound, 1), `${reached} of ${bound}`).toBeGreaterThanOrEqual(
        bound === 0 ? 0 : NEAR,
      );
    });
  }
});
