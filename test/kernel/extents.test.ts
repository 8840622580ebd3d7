/**
 * Extents: blocks are in one extent or in none, whoever splits, joins and repeats old names; and
 * what the kernel has called durable is there after a power cut between any two sector writes, by
 * a reader of the disk that knows the format and not the kernel.
 */
import { describe, expect, test } from 'vitest';
import {
  Account,
  ALL_RIGHTS,
  Call,
  DISK_WRITE,
  Env,
  envIndex,
  Extent,
  EXTENT_BITS,
  Info,
  Loss,
  LOSSES,
  MAP_READ,
  MAP_WRITE,
  packName,
  Page,
  PAGE_BITS,
  PAGE_TAG_BITS,
  PageKind,
  Queued,
  READ,
  Resource,
  Status,
  TAG_BITS,
  tagOf,
  WRITE,
} from '../../kernel/abi.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { TABLE_TAG } from '../../kernel/exokernel/requests.ts';
import { REQUESTS_MAX } from '../../kernel/exokernel/state.ts';
import { Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import type { Tenant } from '../../kernel/supervisor.ts';
import { RISCV } from '../../machine/costs.ts';
import { type Medium, RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { BLOCK_BYTES, PAGE_BYTES, SECTOR_BYTES } from '../../machine/units.ts';
import type { Image, Op, UserPort } from '../../machine/user-port.ts';
import { BLOCKS, BLOCKS_EACH, CONFIG, LATE_DISK, NAME_A, NAME_B, Rig, SCRATCH } from './harness.ts';
import type { Raw } from '../../check/invariants/raw.ts';
import { audit } from '../../check/invariants/index.ts';

const FIRST_COPY = BLOCKS - 2;
const SECTORS = BLOCK_BYTES / SECTOR_BYTES;
const ROWS = 100; // of histories: their table has five sectors
const said = (status: number, value: number): object => ({ status, value });
const { diskAccess, diskBlock, diskFlush } = RISCV;
/** Cycles of one forced write, and a little. */
const WRITE_CYCLES = diskAccess.value + diskBlock.value + diskFlush.value + 2_000;

// ---- a second reader ----------------------------------------------------------------------------

/** A whole copy of the table: its generation, and rows of six words. */
interface Copy {
  readonly generation: number;
  readonly rows: readonly (readonly number[])[];
}

/** Copy `n` as docs/ABI.md describes it, or null if it is not whole. */
function copyOn(medium: Medium, n: number): Copy | null {
  const bytes = new Uint8Array(BLOCK_BYTES);
  medium.read(medium.blocks - 2 + n, bytes);
  const view = new DataView(bytes.buffer);
  const word = (at: number): number => view.getUint32(at * 4, true);
  const [generation, count] = [word(1), word(2)];
  if (new TextDecoder().decode(bytes.subarray(0, 4)) !== 'Eoxt' || count > 120) return null;
  let sum = 0n;
  const add = (value: number): void => {
    const turned = ((sum << 5n) | (sum >> 27n)) & 0xffff_ffffn;
    sum = ((turned ^ BigInt(value)) * 0x9e37_79b1n) & 0xffff_ffffn;
  };
  for (const at of [0, 1, 2]) add(word(at));
  for (let at = 4; at < 4 + count * 6; at++) add(word(at));
  if (Number(sum) !== word(3)) return null;
  const row = (r: number): number[] => [0, 1, 2, 3, 4, 5].map((w) => word(4 + r * 6 + w));
  return { generation, rows: Array.from({ length: count }, (_, r) => row(r)) };
}

/** The newest whole copy on a medium; generation 0 if there is none. */
function tableOn(medium: Medium): Copy {
  const whole = [copyOn(medium, 0), copyOn(medium, 1)].filter((copy) => copy !== null);
  whole.sort((x, y) => y.generation - x.generation);
  return whole[0] ?? { generation: 0, rows: [] };
}

const rowsOf = (raw: Raw): number[][] =>
  Array.from({ length: raw.state.extent.rows }, (_, row) =>
    [0, 1, 2, 3, 4, 5].map((word) => raw.extent(row, word) >>> 0),
  );
const isMade = (raw: Raw): number => raw.info(Info.extentGeneration);
const isDurable = (raw: Raw): number => raw.info(Info.extentDurable);

/** Blocks by the tenant whose name their guard is under; throws if two extents have one. */
function holders(raw: Raw): Map<number, number> {
  const blocks = new Map<number, number>();
  for (const [first = 0, count = 0, a = 0, , valid] of rowsOf(raw)) {
    if (valid === 0) continue;
    for (let block = first; block < first + count; block++) {
      if (blocks.has(block)) throw new Error(`block ${block} is in two extents`);
      if (block >= FIRST_COPY) throw new Error(`block ${block} is the kernel's`);
      blocks.set(block, (a >>> 8) & 0xff);
    }
  }
  return blocks;
}

// ---- histories ----------------------------------------------------------------------------------

/** One write that reached the medium, and what the kernel said at that moment. */
interface Written {
  readonly block: number;
  readonly bytes: Uint8Array;
  readonly durable: number;
  readonly made: number;
}

/** A medium that remembers the order of what is written to it. */
class Recorder implements Medium {
  readonly log: Written[] = [];
  readonly inner: RamMedium;
  said = (): { durable: number; made: number } => ({ durable: 0, made: 1 });

  constructor(inner = new RamMedium(BLOCKS)) {
    this.inner = inner;
  }
  get blocks(): number {
    return this.inner.blocks;
  }
  read(block: number, into: Uint8Array): void {
    this.inner.read(block, into);
  }
  write(block: number, from: Uint8Array): void {
    this.log.push({ block, bytes: from.slice(), ...this.said() });
    this.inner.write(block, from);
  }
}

/** The medium after the first `count` writes, and those sectors of the next that `kept` has. */
function cutAfter(log: readonly Written[], count: number, kept = 0): RamMedium {
  const medium = new RamMedium(BLOCKS);
  for (const { block, bytes } of log.slice(0, count)) medium.write(block, bytes);
  const torn = log[count];
  if (torn === undefined || kept === 0) return medium;
  const bytes = new Uint8Array(BLOCK_BYTES);
  medium.read(torn.block, bytes);
  for (let sector = 0; sector < SECTORS; sector++) {
    if (((kept >>> sector) & 1) === 0) continue;
    const at = sector * SECTOR_BYTES;
    bytes.set(torn.bytes.subarray(at, at + SECTOR_BYTES), at);
  }
  medium.write(torn.block, bytes);
  return medium;
}

/** Numbers below `n`, of a seed. */
function dice(seed: number): (n: number) => number {
  let x = seed;
  return (n) => {
    x = (Math.imul(x, 1_664_525) + 1_013_904_223) >>> 0;
    return (x >>> 8) % n;
  };
}

/** A step of a history: one of the two tenants splits an extent of its own, or joins two. */
function step(rig: Rig, roll: (n: number) => number): void {
  const tenant = rig.tenants[roll(2)];
  if (tenant === undefined) return;
  const { raw } = rig;
  const name = tenant.row === 1 ? NAME_A : NAME_B;
  const rows = rowsOf(raw).map((row, n) => ({ n, row }));
  const own = rows.filter(({ row }) => row[4] === 1 && row[2] === name.a);
  const pairs = own.flatMap((left) =>
    own
      .filter(({ row }) => row[0] === (left.row[0] ?? 0) + (left.row[1] ?? 0))
      .map((right) => [left.n, right.n] as const),
  );
  const used = raw.account(tenant.row, Account.used + Resource.extents);
  const room = used < raw.account(tenant.row, Account.limit + Resource.extents);
  const empty = rows.filter(({ row }) => row[4] === 0);
  const free = empty[roll(Math.max(1, empty.length))];
  const large = own.filter(({ row }) => (row[1] ?? 0) > 1);
  const victim = large[roll(Math.max(1, large.length))];
  if (room && free !== undefined && victim !== undefined && (pairs.length === 0 || roll(2) === 0)) {
    const blocks = 1 + roll((victim.row[1] ?? 2) - 1);
    rig.must(tenant.row, 'extentSplit', victim.n, 0, free.n, blocks, name.a, name.b);
  } else {
    const [left, right] = pairs[roll(Math.max(1, pairs.length))] ?? [0, 0];
    rig.must(tenant.row, 'extentJoin', left, 0, right);
  }
}

interface History {
  readonly log: readonly Written[];
  readonly medium: Medium;
  /** rows by generation */
  readonly tables: ReadonlyMap<number, readonly (readonly number[])[]>;
  readonly durable: number;
  readonly made: number;
}

/** Runs a history; at every kernel exit the medium has what is durable, whole, without a cache. */
function history(seed: number, steps = 24): History {
  const medium = new Recorder();
  const rig = new Rig({ machine: { medium }, exokernel: { extents: ROWS } });
  const { raw } = rig;
  medium.said = () => ({ durable: isDurable(raw), made: isMade(raw) });
  const tables = new Map<number, number[][]>();
  const note = (): void => {
    if (!tables.has(isMade(raw))) tables.set(isMade(raw), rowsOf(raw));
    const { generation } = tableOn(medium);
    const [durable, made] = [isDurable(raw), isMade(raw)];
    if (generation < durable || generation > made) {
      throw new Error(`on the disk: ${generation}; durable: ${durable}; made: ${made}`);
    }
  };
  note();
  rig.onExit = note;
  const roll = dice(seed);
  for (let n = 0; n < steps; n++) {
    step(rig, roll);
    const wait = [0, 0, 3_000, WRITE_CYCLES / 2, 2 * WRITE_CYCLES][roll(5)] ?? 0;
    if (wait > 0) rig.run(wait);
  }
  rig.run(3 * WRITE_CYCLES);
  expect(audit(raw)).toEqual([]);
  expect(isDurable(raw)).toBe(isMade(raw));
  return { log: medium.log, medium, tables, durable: isDurable(raw), made: isMade(raw) };
}

/** What a boot on `medium` finds is a whole generation from `durable` to `made`. */
function recovers(medium: RamMedium, { tables }: History, durable: number, made: number): void {
  const { generation, rows } = tableOn(medium);
  const { raw } = new Rig({ machine: { medium }, exokernel: { extents: ROWS } });
  expect(generation).toBeGreaterThanOrEqual(durable);
  expect(generation).toBeLessThanOrEqual(made);
  // With nothing on the disk it is as configured, which is the first generation.
  expect(rowsOf(raw)).toEqual(tables.get(Math.max(1, generation)));
  if (generation > 0) expect(rows).toEqual(tables.get(generation));
  expect(isMade(raw)).toBe(Math.max(1, generation));
  for (const [block, tenant] of holders(raw)) {
    expect(tenant).toBe(1 + Math.floor(block / BLOCKS_EACH));
  }
  expect(audit(raw)).toEqual([]);
}

describe('a power cut', () => {
  const SEEDS = [1, 2, 3, 4];

  test.each(SEEDS)('between any two sector writes of history %d', (seed) => {
    const told = history(seed);
    const { log } = told;
    expect(log.length).toBeGreaterThan(6);
    expect(log.every(({ block }) => block >= FIRST_COPY)).toBe(true);
    log.forEach(({ durable, made }, n) => {
      // A disk may write the sectors of a block in either direction.
      for (let sectors = 0; sectors < SECTORS; sectors++) {
        recovers(cutAfter(log, n, (1 << sectors) - 1), told, durable, made);
        recovers(cutAfter(log, n, 0xff & ~((1 << sectors) - 1)), told, durable, made);
      }
    });
    recovers(cutAfter(log, log.length), told, told.durable, told.made);
  });

  test.each([5, 6, 7, 8])('with any subset of sectors written, in history %d', (seed) => {
    const { log, tables } = history(seed, 32);
    log.forEach(({ durable, made }, n) => {
      for (let kept = 0; kept < 1 << SECTORS; kept++) {
        const { generation, rows } = tableOn(cutAfter(log, n, kept));
        expect(generation >= durable && generation <= made).toBe(true);
        if (generation > 0) expect(rows).toEqual(tables.get(generation));
      }
    });
  });

  test('of the machine itself, at any moment after a change', () => {
    for (let later = 0; later < 2 * WRITE_CYCLES; later += WRITE_CYCLES / 7) {
      const medium = new RamMedium(BLOCKS);
      const rig = new Rig({ machine: { medium } });
      rig.run(2 * WRITE_CYCLES);
      const { raw } = rig;
      const before = rowsOf(raw);
      rig.must(rig.a.row, 'extentSplit', rig.a.extent, 0, 4, 5, NAME_A.a, NAME_A.b);
      const after = rowsOf(raw);
      rig.run(later);
      const [durable, made] = [isDurable(raw), isMade(raw)];
      rig.machine.powerCut();
      const again = new Rig({ machine: { medium } });
      expect([durable, made]).toContain(isMade(again.raw));
      expect(rowsOf(again.raw)).toEqual(isMade(again.raw) === made ? after : before);
    }
  });

  test('in the write after one during which the table changed twice', () => {
    // The third generation would lie where the first does, which is the one that counts.
    const medium = new Recorder();
    const rig = new Rig({ machine: { medium } });
    rig.run(2 * WRITE_CYCLES);
    const { raw } = rig;
    medium.said = () => ({ durable: isDurable(raw), made: isMade(raw) });
    const split = (row: number): unknown =>
      rig.must(rig.a.row, 'extentSplit', rig.a.extent, 0, row, 2, NAME_A.a, NAME_A.b);
    split(4);
    split(5);
    rig.must(rig.a.row, 'extentJoin', 5, 0, 4);
    rig.run(4 * WRITE_CYCLES);
    const places = medium.log.map(({ block }) => block - FIRST_COPY);
    expect(places.length).toBeGreaterThanOrEqual(3);
    places.forEach((place, n) => expect(place).toBe((n + 1) % 2));
    expect(isDurable(raw)).toBe(isMade(raw));
  });
});

describe('the table on the disk', () => {
  test('a second boot finds what the first left, charged to whose name it is', () => {
    const medium = new RamMedium(BLOCKS);
    const rig = new Rig({ machine: { medium } });
    const child = packName([1, 7]);
    rig.must(rig.a.row, 'extentSplit', rig.a.extent, 0, 4, 5, child.a, child.b);
    rig.must(rig.a.row, 'extentSplit', rig.a.extent, 0, 6, 2, NAME_A.a, NAME_A.b);
    rig.run(3 * WRITE_CYCLES);
    const again = new Rig({ machine: { medium } });
    expect(rowsOf(again.raw)).toEqual(rowsOf(rig.raw));
    expect(isDurable(again.raw)).toBe(isMade(rig.raw));
    expect(again.raw.used(1, Resource.extents)).toBe(3);
    expect(again.raw.used(2, Resource.extents)).toBe(1);
    // And what is left is shared out anew, so that a guarantee is one.
    const limits = [0, 1, 2].map((row) => again.raw.limit(row, Resource.extents));
    expect(limits).toEqual([0, 5, 3]);
    expect(audit(again.raw)).toEqual([]);
  });

  test('is as good as new where a name knew an older generation', () => {
    const rig = new Rig();
    const name = (row: number): number =>
      (tagOf(rig.raw.extent(row, Extent.generation), TAG_BITS) << EXTENT_BITS) | row;
    const [old, oldFree] = [name(rig.a.extent), name(4)];
    rig.must(rig.a.row, 'extentSplit', old, 0, oldFree, 5, NAME_A.a, NAME_A.b);
    const stale = said(Status.badArgument, 0);
    const again = rig.call(rig.a.row, 'extentSplit', old, 0, 5, 5, NAME_A.a, NAME_A.b);
    expect(again).toMatchObject(stale);
    expect(rig.call(rig.a.row, 'diskRequest', old, 0, 0, 0, 0, 0, 4)).toMatchObject(stale);
    const [left, right] = [name(rig.a.extent), name(4)];
    expect(rig.must(rig.a.row, 'extentJoin', left, 0, right)).toBe(BLOCKS_EACH);
    expect(rig.call(rig.a.row, 'extentJoin', left, 0, right)).toMatchObject(stale);
    const freed = rig.call(rig.a.row, 'extentJoin', rig.a.extent, 0, right);
    expect(freed).toMatchObject(said(Status.badArgument, 2));
    const twice = rig.call(rig.a.row, 'extentJoin', rig.a.extent, 0, 4);
    expect(twice).toMatchObject(said(Status.absent, 2));
    expect(rig.call(rig.a.row, 'diskRequest', 4, 0, 0, 0, 0, 0, 4)).toMatchObject(
      said(Status.absent, 0),
    );
    expect(audit(rig.raw)).toEqual([]);
  });

  test('joins neighbours only, in their order, and nobody else’s', () => {
    const rig = new Rig();
    const { a, b } = rig;
    rig.must(a.row, 'extentSplit', a.extent, 0, 4, 4, NAME_A.a, NAME_A.b);
    rig.must(a.row, 'extentSplit', a.extent, 0, 5, 4, NAME_A.a, NAME_A.b);
    const join = (row: number, left: number, right: number): object =>
      rig.call(row, 'extentJoin', left, 0, right);
    const notNext = said(Status.badArgument, 2);
    expect(join(a.row, a.extent, 4)).toMatchObject(notNext);
    expect(join(a.row, 4, 5)).toMatchObject(notNext);
    expect(join(a.row, 4, 4)).toMatchObject(notNext);
    // B's begins where A's last ends.
    expect(join(a.row, 4, b.extent)).toMatchObject(said(Status.notPermitted, 2));
    expect(join(b.row, b.extent, 4)).toMatchObject(said(Status.notPermitted, 2));
    expect(join(b.row, 4, b.extent)).toMatchObject(said(Status.notPermitted, 1));
    expect(join(a.row, 5, 4)).toMatchObject(said(Status.ok, 8));
    expect(holders(rig.raw).size).toBe(2 * BLOCKS_EACH);
  });

  test('gives nobody more rows than its account is allotted', () => {
    const rig = new Rig();
    const split = (row: number, to: number): object =>
      rig.call(rig.a.row, 'extentSplit', row, 0, to, 1, NAME_A.a, NAME_A.b);
    for (const to of [2, 3, 4]) expect(split(0, to)).toMatchObject({ status: Status.ok });
    expect(split(0, 5)).toMatchObject(said(Status.quota, 2));
    for (const to of [5, 6, 7]) {
      rig.must(rig.b.row, 'extentSplit', rig.b.extent, 0, to, 1, NAME_B.a, NAME_B.b);
    }
    rig.must(rig.a.row, 'extentJoin', 3, 0, 2);
    expect(split(0, 2)).toMatchObject({ status: Status.ok });
    expect(audit(rig.raw)).toEqual([]);
  });

  test('is written although a tenant keeps the disk busy', () => {
    const rig = new Rig();
    rig.run(2 * WRITE_CYCLES);
    const { a, b, raw } = rig;
    rig.does(b.row, function* (port): Op<void> {
      port.store32(SCRATCH, b.stack) ?? (yield* port.fault());
    });
    // B asks whenever it runs; what is refused it asks again.
    rig.hand(b.row, function* (port): Op<void> {
      for (;;) yield* port.call(Call.diskRequest, b.extent, 0, 0, 1, SCRATCH, 0, DISK_WRITE);
    });
    rig.run(400_000);
    const limit = raw.limit(b.row, Resource.requests);
    expect(raw.used(b.row, Resource.requests)).toBeGreaterThan(limit - 3);
    const began = rig.machine.now();
    rig.must(a.row, 'extentSplit', a.extent, 0, 4, 2, NAME_A.a, NAME_A.b);
    const generation = isMade(raw);
    const each = diskAccess.value + diskBlock.value;
    while (isDurable(raw) < generation) {
      rig.run(5_000);
      const waited = rig.machine.now() - began;
      expect(waited).toBeLessThan((limit + 4) * each + 2 * WRITE_CYCLES);
    }
    rig.run(600_000);
    expect(raw.env(b.row, Env.diskDone)).toBeGreaterThan(2 * limit);
  });
});

describe('a request', () => {
  test('stands in the exposed table until it is over, and holds what it names', () => {
    const rig = new Rig();
    rig.run(2 * WRITE_CYCLES);
    const { a, b, raw } = rig;
    const page = raw.free();
    rig.must(a.row, 'pageAllocate', page, 0);
    rig.must(a.row, 'accessAdd', page, 0, 2, NAME_B.a, NAME_B.b, READ | WRITE);
    const tag = tagOf(raw.page(page, Page.generation), PAGE_TAG_BITS);
    const name = page | (tag << PAGE_BITS) | (2 << 28);
    rig.does(b.row, function* (port): Op<void> {
      port.store32(SCRATCH, name) ?? (yield* port.fault());
      port.store32(SCRATCH + 4, name ^ (2 << PAGE_BITS)) ?? (yield* port.fault());
    });
    const old = rig.call(b.row, 'diskRequest', b.extent, 0, 3, 1, SCRATCH + 4, 0, 0);
    expect(old).toMatchObject(said(Status.badArgument, 4));
    rig.must(b.row, 'diskRequest', b.extent, 0, 3, 1, SCRATCH, 0, 0);
    const words = Object.entries(Queued).filter(([word]) => word !== 'words');
    const row = Object.fromEntries(words.map(([word, at]) => [word, raw.queued(0, at)]));
    const block = BLOCKS_EACH + 3;
    const due = { env: b.id, count: 1, block, flags: 0, account: 2, extent: b.extent };
    expect(row).toMatchObject({ ...due, pages: page | (2 << 28) });
    expect(raw.used(2, Resource.requests)).toBe(1);
    // Whose page it is takes it back at once, but for the device.
    expect(rig.call(a.row, 'accessRemove', page, 0, 2)).toMatchObject({ status: Status.again });
    expect(rig.call(b.row, 'diskRequest', b.extent, 0, 3, 1, SCRATCH, 0, 0)).toMatchObject(
      said(Status.absent, 4),
    );
    expect(audit(raw)).toEqual([]);
    rig.run(100_000);
    rig.must(a.row, 'accessRemove', page, 0, 2);
    expect(raw.queued(0, Queued.env)).toBe(0);
    expect(raw.used(2, Resource.requests)).toBe(0);
    rig.must(a.row, 'pageFree', page, 0);
    expect(raw.kind(page)).toBe(PageKind.free);
    expect(audit(raw)).toEqual([]);
  });
});

// ---- disks that are not in order, and other machines --------------------------------------------

/** Tenants that write down what they were given; the first splits its extent if told to. */
function teller(told: number[][], row = -1): Image {
  const load = (port: UserPort): ((...args: number[]) => Op<void>)[] => [
    function* (self = 0, ...args: number[]): Op<void> {
      const [extent = -1, blocks = 0] = args.slice(4);
      told[envIndex(self) - 1] = [extent, blocks];
      if (row < 0 || envIndex(self) !== 1) return;
      yield* port.call(Call.extentSplit, extent, 0, row, 3, NAME_A.a, NAME_A.b);
    },
  ];
  return { name: 'teller', entryCount: 1, load };
}

const tenants = (blocks: number, count = 2): Tenant[] =>
  Array.from({ length: count }, (_, n) => ({ image: 0, quota: 8, firstBlock: n * blocks, blocks }));

interface Start {
  readonly told: readonly (readonly number[])[];
  readonly kernel: Exokernel;
  readonly machine: PhysicalMachine;
  readonly generation: number;
  readonly durable: number;
}

/** Boots on a medium and runs until nothing is left to do. */
function start(
  medium: Medium,
  { blocks = 8, row = -1, failing = [] as number[], restarts = false, extents = 8, count = 2 } = {},
): Start {
  const told: number[][] = [];
  const image = teller(told, row);
  const machine = new PhysicalMachine({ pages: 96, images: [image], medium, restarts });
  const kernel = new Exokernel({ ...CONFIG, extents }, tenants(blocks, count));
  machine.boot(kernel);
  for (const block of failing) machine.device.failBlock(block);
  machine.run(1e8);
  const { info } = kernel.state;
  const word = (n: number): number => machine.memory.get(info.address(0, n));
  const [generation, durable] = [word(Info.extentGeneration), word(Info.extentDurable)];
  return { told, kernel, machine, generation, durable };
}

const given = [
  [0, 8],
  [1, 8],
];

describe('boot', () => {
  test('a tenant begins with the first extent under its name, or with none', () => {
    const medium = new RamMedium(32);
    expect(start(medium, { row: 5 }).told).toEqual(given);
    const second = start(medium, { count: 3 });
    expect(second.told).toEqual([
      [0, 5],
      [1, 8],
      [-1, 0],
    ]);
    expect(second.generation).toBe(2);
  });

  test('one copy that cannot be read: the other counts', () => {
    const medium = new RamMedium(32);
    expect(start(medium, { row: 5 })).toMatchObject({ generation: 2, durable: 2 });
    expect(start(medium, { failing: [30] })).toMatchObject({ told: given, durable: 1 });
    const newer = start(medium, { failing: [31] });
    expect(newer.told).toEqual([
      [0, 5],
      [1, 8],
    ]);
  });

  test('both copies that cannot be read, or are spoilt: no extents, and nothing is written', () => {
    const medium = new RamMedium(32);
    start(medium, { row: 5 });
    const before = [copyOn(medium, 0), copyOn(medium, 1)];
    const none = [
      [-1, 0],
      [-1, 0],
    ];
    const deaf = start(medium, { failing: [30, 31] });
    expect(deaf).toMatchObject({ told: none, generation: 0, durable: 0 });
    expect([copyOn(medium, 0), copyOn(medium, 1)]).toEqual(before);
    const bytes = new Uint8Array(BLOCK_BYTES);
    for (const block of [30, 31]) {
      medium.read(block, bytes);
      bytes[40] = (bytes[40] ?? 0) ^ 4;
      medium.write(block, bytes);
    }
    expect(start(medium)).toMatchObject({ told: none, generation: 0, durable: 0 });
  });

  test('a table that cannot be written is not called durable', () => {
    const medium = new RamMedium(32);
    expect(start(medium)).toMatchObject({ generation: 1, durable: 1 });
    // Generation 2 is for the copy that fails; the first stays as it is.
    const failed = start(medium, { row: 5, failing: [30] });
    expect(failed).toMatchObject({ generation: 2, durable: 1 });
    expect(start(medium)).toMatchObject({ told: given, generation: 1 });
  });

  test('a disk without room for the table has no extents', () => {
    for (const blocks of [0, 1, 2]) {
      const none = [
        [-1, 0],
        [-1, 0],
      ];
      const small = start(new RamMedium(blocks), { blocks: 0, row: 1 });
      expect(small).toMatchObject({ told: none, generation: 0 });
    }
    expect(start(new RamMedium(3), { blocks: 1, count: 1 }).told).toEqual([[0, 1]]);
  });

  test('a configuration that reaches into the table, or has fewer rows than it, is a Bug', () => {
    expect(() => start(new RamMedium(17))).toThrow('the last two blocks');
    expect(() => start(new RamMedium(2), { blocks: 1, count: 1 })).toThrow('the last two blocks');
    const medium = new RamMedium(32);
    start(medium);
    expect(() => start(medium, { extents: 4 })).toThrow('as many extents');
  });

  test('a handler rolled back at each of its stores does the same', () => {
    const media = [new RamMedium(32), new RamMedium(32)] as const;
    const runs = media.map((medium, n) => start(medium, { row: 5, restarts: n === 1 }));
    expect(runs[1]?.told).toEqual(runs[0]?.told);
    expect(runs[1]?.durable).toBe(2);
    for (const n of [0, 1]) expect(copyOn(media[1], n)).toEqual(copyOn(media[0], n));
    const second = start(media[1], { restarts: true });
    expect(second.told[0]).toEqual([0, 5]);
  });

  test('in a virtual machine, on a part of a larger disk', () => {
    const medium = new RamMedium(64);
    const boot = (row: number): number[][] => {
      const told: number[][] = [];
      const supervisor = new Exokernel(CONFIG, tenants(8));
      const images = [teller(told, row)];
      const guest = { supervisor, images, pages: 128, firstBlock: 9, blocks: 18, channel: 1 };
      const machine = new PhysicalMachine({ pages: 1024, images: [], medium });
      const config = { sliceCycles: 50_000, backing: 'touch', secondStage: '4KiB' } as const;
      machine.boot(new Hypervisor(config, [guest]));
      machine.run(1e8);
      machine.powerCut();
      return told;
    };
    expect(boot(5)).toEqual(given);
    expect(boot(-1)).toEqual([
      [0, 5],
      [1, 8],
    ]);
    const part = new RamMedium(18);
    const bytes = new Uint8Array(BLOCK_BYTES);
    for (const block of [16, 17]) {
      medium.read(9 + block, bytes);
      part.write(block, bytes);
    }
    expect(tableOn(part).generation).toBe(2);
  });
});

// ---- saved pages --------------------------------------------------------------------------------

describe('what is repossessed', () => {
  const OWNER = 5; // row of the account
  const EXTENT = 4;
  const FIRST = 6; // its first block
  const guard = packName([1, 7]);
  const indexOf = (n: number): number => 300 + n;

  /** An account under A's with an environment and an extent, which has written `count` pages. */
  function owner(count: number, machine: object = {}): { rig: Rig; row: number; leaf: number } {
    const rig = new Rig({ machine: { pages: 160, ...machine }, quota: 40 });
    const { a } = rig;
    const { a: word, b: more } = guard;
    rig.must(a.row, 'accountCreate', OWNER, 1, 0, word, more, 0);
    rig.must(a.row, 'accountMove', 1, OWNER, 0, Resource.pages, 12);
    rig.must(a.row, 'accountMove', 1, OWNER, 0, Resource.environments, 1);
    rig.must(a.row, 'accountMove', 1, OWNER, 0, Resource.extents, 1);
    rig.must(a.row, 'extentSplit', a.extent, 0, EXTENT, BLOCKS_EACH - FIRST, word, more);
    const { row, leaf } = rig.child(a.row, [1, 7], { tables: true, account: OWNER });
    for (let n = 0; n < count; n++) {
      const page = rig.raw.free();
      rig.must(row, 'pageAllocate', page, 0);
      rig.must(row, 'pageMap', leaf, indexOf(n), page, 0, 0, MAP_READ | MAP_WRITE, 0);
      rig.does(row, function* (port): Op<void> {
        port.store32(indexOf(n) * PAGE_BYTES, 1000 + n) ?? (yield* port.fault());
      });
    }
    return { rig, row, leaf };
  }

  /** A asks for the pages, lets the deadline pass, and takes them. */
  function takeAll(rig: Rig, leaf: number, count: number): { status: number; value: number }[] {
    const { a, raw } = rig;
    rig.must(a.row, 'revoke', OWNER, 0, 1, 0, raw.pages, count, 10_000);
    rig.run(12_000);
    return Array.from({ length: count }, (_, n) => {
      const page = raw.entry(leaf, indexOf(n)) >>> 10;
      const { status, value } = rig.call(a.row, 'repossess', OWNER, 0, page);
      return { status, value };
    });
  }
  const firstWord = (medium: RamMedium, block: number): number => {
    const bytes = new Uint8Array(BLOCK_BYTES);
    medium.read(block, bytes);
    return new DataView(bytes.buffer).getInt32(0, true);
  };
  const lostTo = (raw: Raw, count: number): number[] =>
    Array.from({ length: count }, (_, n) => raw.loss(OWNER, Loss.ring + n * 2 + 1));

  test('is saved where its owner said, each place once, in the order of losses', () => {
    const medium = new RamMedium(BLOCKS);
    const { rig, row, leaf } = owner(4, { medium });
    const { a, raw } = rig;
    rig.must(row, 'saveBlock', 0, EXTENT, 0, 3);
    rig.must(row, 'saveBlock', 2, EXTENT, 0, 9);
    rig.must(row, 'saveBlock', 3, EXTENT, 0, 5);
    rig.must(row, 'saveBlock', 3, -1, 0, 0);
    const pages = [0, 1, 2, 3].map((n) => raw.entry(leaf, indexOf(n)) >>> 10);
    const taken = takeAll(rig, leaf, 4);
    expect(taken.map(({ status }) => status)).toEqual([0, 0, 0, 0]);
    const blocks = [FIRST + 4, 0, FIRST + 10, 0];
    expect(taken.map(({ value }) => value)).toEqual(blocks);
    // While the device has it, nobody else does.
    expect(raw.kind(pages[0] ?? 0)).toBe(PageKind.quarantined);
    expect(raw.kind(pages[1] ?? 0)).toBe(PageKind.free);
    expect(raw.extent(EXTENT, Extent.transfers)).toBe(2);
    const busy = rig.call(a.row, 'extentSplit', EXTENT, 0, 5, 1, guard.a, guard.b);
    expect(busy).toMatchObject(said(Status.busy, 0));
    expect(audit(raw)).toEqual([]);
    rig.run(300_000);
    expect(pages.map((page) => raw.kind(page))).toEqual(pages.map(() => PageKind.free));
    expect(pages.map((_, n) => raw.loss(OWNER, Loss.ring + n * 2))).toEqual(pages);
    expect(lostTo(raw, 4)).toEqual(blocks);
    for (let place = 0; place < LOSSES; place++) {
      expect(raw.loss(OWNER, Loss.saves + place * 4)).toBe(0);
    }
    rig.must(a.row, 'extentSplit', EXTENT, 0, 5, 1, guard.a, guard.b);
    expect(audit(raw)).toEqual([]);
    rig.machine.powerOff();
    expect([3, 9].map((block) => firstWord(medium, FIRST + block))).toEqual([1000, 1002]);
  });

  test('is not saved to an extent that was split or joined since', () => {
    const { rig, row, leaf } = owner(2);
    const { a } = rig;
    rig.must(row, 'saveBlock', 0, EXTENT, 0, 3);
    rig.must(a.row, 'extentSplit', EXTENT, 0, 5, 1, guard.a, guard.b);
    rig.must(row, 'saveBlock', 1, 5, 0, 0);
    rig.must(a.row, 'extentJoin', EXTENT, 0, 5);
    expect(takeAll(rig, leaf, 2)).toEqual([said(Status.ok, 0), said(Status.ok, 0)]);
    expect(audit(rig.raw)).toEqual([]);
  });

  test('is not called saved where the disk could not write', () => {
    const { rig, row, leaf } = owner(2);
    rig.must(row, 'saveBlock', 0, EXTENT, 0, 3);
    rig.must(row, 'saveBlock', 1, EXTENT, 0, 4);
    rig.machine.device.failBlock(FIRST + 3);
    const taken = takeAll(rig, leaf, 2).map(({ value }) => value);
    expect(taken).toEqual([FIRST + 4, FIRST + 5]);
    rig.run(300_000);
    expect(lostTo(rig.raw, 2)).toEqual([0, FIRST + 5]);
  });

  test('waits while the kernel has no request left, and starves neither table nor tenants', () => {
    const places = TABLE_TAG - REQUESTS_MAX;
    const { rig, row, leaf } = owner(places + 1, { profile: LATE_DISK });
    const { b, raw } = rig;
    for (let place = 0; place <= places; place++) {
      rig.must(row, 'saveBlock', place, EXTENT, 0, place);
    }
    const taken = takeAll(rig, leaf, places + 1);
    const last = taken.pop();
    expect(taken.every(({ status }) => status === Status.ok)).toBe(true);
    expect(last).toEqual(said(Status.full, 2));
    rig.does(b.row, function* (port): Op<void> {
      port.store32(SCRATCH, b.stack) ?? (yield* port.fault());
    });
    rig.must(b.row, 'diskRequest', b.extent, 0, 0, 1, SCRATCH, 0, DISK_WRITE);
    expect(raw.queued(TABLE_TAG, Queued.env)).toBe(-1);
    expect(audit(raw)).toEqual([]);
  });

  test('is saved where the whole account says, not a part of it, nor a stranger', () => {
    const { rig, row } = owner(0);
    const { a, b, raw } = rig;
    const part = packName([1, 7, 7]);
    rig.must(row, 'capForge', raw.id(row), 6, 0, part.a, part.b, ALL_RIGHTS);
    rig.must(a.row, 'extentSplit', EXTENT, 0, 5, 2, part.a, part.b);
    const over = said(Status.notPermitted, 2);
    expect(rig.call(row, 'saveBlock', 0, 5, 6, 0)).toMatchObject(over);
    expect(rig.call(row, 'saveBlock', 0, -1, 6, 0)).toMatchObject(over);
    const strange = { status: Status.notPermitted, value: 1 };
    expect(rig.call(b.row, 'saveBlock', 0, EXTENT, 0, 0)).toMatchObject(strange);
    rig.must(row, 'saveBlock', 0, 5, 0, 1);
  });
});
