/**
 * Who chooses what goes when memory is taken away. A program pages for itself: its data are twice
 * what it has of frames, and least recently used is what it sends to its disk. In the middle of its
 * work a part of its memory is taken, in one of three ways, at the same point of the work:
 *
 * - an exokernel asks, and the library gives the frames that it needs least;
 * - a hypervisor asks the same of the kernel in its guest, by a balloon;
 * - a hypervisor takes pages blindly, to a swap area of its own, and tells nobody: the program goes
 *   on paging in memory that it believes to have (double paging; Goldberg and Hassinger 1974).
 *
 *     npx tsx lab/double-paging.ts
 */
import { fileURLToPath } from 'node:url';
import { RISCV } from '../machine/costs.ts';
import { RamMedium } from '../machine/disk.ts';
import { PhysicalMachine } from '../machine/physical.ts';
import { MAP_READ, MAP_WRITE, Start, Status } from '../kernel/abi.ts';
import { Hypervisor } from '../kernel/hypervisor/hypervisor.ts';
import { Cpu, Vm } from '../kernel/hypervisor/state.ts';
import { Unikernel } from '../kernel/unikernel/unikernel.ts';
import { environmentIn } from '../libos/kv/client.ts';
import { image, type Image, LibOS, type Op, type UserPort } from '../libos/libos.ts';
import { BlockCache, type CacheCounts, tablesBytes } from '../libos/parts/block-cache.ts';
import { FreePages } from '../libos/parts/free-pages.ts';
import { LRU } from '../libos/parts/replacement.ts';
import { countsOf } from '../libos/parts/transfers.ts';
import { Broker, BROKER_ROW } from './kv-policies.ts';
import { build, diskFor } from './modes.ts';
import { aligned, number } from './report.ts';

const PAGE = 4096;
const FRAMES = 128;
const BLOCKS = 256;
const TAKEN = 32; // pages
const USES = 1200; // of blocks, before and after
const STORES = 3; // one use in so many writes
const WORK = 2_000; // instructions for each use
const LIMIT = 1e11; // cycles
const RW = MAP_READ | MAP_WRITE;
const TABLES = Math.ceil(tablesBytes(FRAMES, LRU, BLOCKS) / PAGE);
const SHADOW = Math.ceil((BLOCKS * 4) / PAGE);

/** In which order blocks are used: the n-th use. */
type Pattern = (n: number) => number;
const chance = (n: number): number => {
  let h = Math.imul(n + 1, 0x9e3779b1);
  h = Math.imul(h ^ (h >>> 15), 0x85ebca6b);
  return ((h ^ (h >>> 13)) >>> 0) / 2 ** 32;
};
/** Few blocks are used often: the k-th of them about 1/k of the time. */
const zipf: Pattern = (n) => Math.floor(BLOCKS ** chance(n)) - 1;
export const PATTERNS: Readonly<Record<string, Pattern>> = {
  zipf,
  scan: (n) => n % BLOCKS,
  // A collector: most is local, now and then everything is touched.
  collector: (n) => (n % 600 < BLOCKS ? n % 600 : zipf(n)),
};

export const WAYS = [
  'exokernel, nobody',
  'exokernel asks',
  'vm, nobody',
  'balloon',
  'blind swap',
] as const;
type Way = (typeof WAYS)[number];

/** What a run counted from the moment when memory was asked for, or taken. */
export interface Outcome {
  readonly way: Way;
  readonly refaults: number; // misses of the program's that had been here before
  readonly disk: number; // blocks read and written, by whomever
  readonly out: number; // pages that the hypervisor wrote to its swap area
  readonly back: number; // and read again
  readonly cycles: number; // of work
  readonly elapsed: number;
  readonly frames: number; // at the end
}

/** A program that pages. Each block counts its stores; all are held against what they must be. */
class Pager extends LibOS {
  readonly #pattern: Pattern;
  readonly #phase: (which: 'before' | 'after', counts: CacheCounts, frames: number) => void;
  #leaf = 0;
  #wanted = 0;
  #cache: BlockCache | null = null;

  constructor(port: UserPort, pattern: Pattern, phase: Pager['phase']) {
    super(port);
    this.#pattern = pattern;
    this.#phase = phase;
  }
  get phase(): (which: 'before' | 'after', counts: CacheCounts, frames: number) => void {
    return this.#phase;
  }

  override *main(...[self = 0, , , leaf = 0, , extent = 0]: number[]): Op<void> {
    const { sys, port } = this;
    this.#leaf = leaf;
    const pool = new FreePages(sys);
    const frames: number[] = [];
    for (let n = 0; n < FRAMES + TABLES + SHADOW; n++) {
      const page = yield* pool.take(0);
      const { status } = yield* sys.pageMap(leaf, Start.freePages + n, page, 0, 0, RW, 0);
      if (status !== Status.ok) throw new Error(`page ${n}: refused: ${status}`);
      frames.push(page);
    }
    const data = Start.freePages * PAGE;
    const tables = data + FRAMES * PAGE;
    const place = { extent, extentSlot: 0, pageSlot: 0, ...countsOf(self) };
    const shadow = tables + TABLES * PAGE;
    const at = { frames: FRAMES, data, tables, blocks: BLOCKS, policy: LRU, shadow };
    const cache = new BlockCache(sys, { ...place, ...at });
    for (let n = 0; n < FRAMES; n++) yield* cache.setPage(n, frames[n] ?? 0);
    this.#cache = cache;
    yield* this.catchRevocation();
    const stores = new Int32Array(BLOCKS);
    for (let n = 0; n < USES; n++) yield* this.#use(cache, n, stores);
    this.#phase('before', yield* cache.counts(), yield* cache.frames());
    // Whoever asks begins now. Where nobody of that name is, the call is refused.
    yield* sys.ipcSend(yield* environmentIn(sys, BROKER_ROW), [0]);
    for (let n = USES; n < 2 * USES; n++) yield* this.#use(cache, n, stores);
    this.#phase('after', yield* cache.counts(), yield* cache.frames());
    for (let block = 0; block < BLOCKS; block++) {
      const address = yield* cache.get(block);
      const word = address < 0 ? -1 : yield* port.load(address);
      if (word !== stores[block]) throw new Error(`block ${block}: ${word}, not ${stores[block]}`);
    }
  }

  *#use(cache: BlockCache, n: number, stores: Int32Array): Op<void> {
    const { port } = this;
    const block = this.#pattern(n);
    const address = yield* cache.get(block);
    if (address < 0) throw new Error(`block ${block} cannot be read`);
    const word = yield* port.load(address);
    if (n % STORES === 0) {
      yield* port.store(address, word + 1);
      yield* cache.dirty(address);
      stores[block] = (stores[block] ?? 0) + 1;
    }
    port.work(WORK) ?? (yield* port.fault());
    while (this.#wanted > 0) {
      this.#wanted--;
      yield* this.#give();
    }
  }

  /** Told how many; which, is said when nothing of the cache is in use. */
  override *onRevoke(wanted: number): Op<void> {
    this.#wanted += wanted;
    yield* this.port.load(Start.infoPage * PAGE);
  }

  *#give(): Op<void> {
    if (this.#cache === null) return;
    const given = yield* this.#cache.release(() => true);
    if (given === null) return;
    yield* this.sys.pageUnmap(this.#leaf, Start.freePages + given.frame, 1, 0);
    yield* this.sys.pageFree(given.page, 0);
  }
}

const QUOTA = 220;
const GUEST_PAGES = 320;
const SWAP = { firstBlock: BLOCKS, blocks: 600 };

interface Snapshot {
  readonly counts: CacheCounts;
  readonly frames: number;
  readonly disk: number;
  readonly outs: number;
  readonly ins: number;
  readonly cycles: number;
  readonly at: number;
}

export function measure(way: Way, pattern: Pattern): Outcome {
  const seen: Partial<Record<'before' | 'after', Snapshot>> = {};
  let machine: PhysicalMachine | null = null;
  let hypervisor: Hypervisor | null = null;
  const said: string[] = [];
  const note: Pager['phase'] = (which, counts, frames) => {
    if (machine === null) return;
    const { hart, memory } = machine;
    hart.settle();
    let cycles = 0;
    for (let owner = 0; owner < 64; owner++) {
      for (let layer = 0; layer < 4; layer++) cycles += hart.counters.cycles(owner, layer);
    }
    const cpu = (word: number): number =>
      hypervisor === null ? 0 : memory.get(hypervisor.state.cpu.address(0, word));
    const { diskReads, diskWrites } = hart.counters.totals();
    const [outs, ins] = [cpu(Cpu.swapOuts), cpu(Cpu.swapIns)];
    const disk = diskReads + diskWrites;
    seen[which] = { counts, frames, disk, outs, ins, cycles, at: machine.now() };
  };
  const pager = image('pager', (port) => new Pager(port, pattern, note));
  const output = (_channel: number, bytes: Uint8Array): void => {
    said.push(new TextDecoder().decode(bytes));
  };
  if (way.startsWith('exokernel')) machine = onExokernel(way, pager, output);
  else [machine, hypervisor] = inGuest(pager, output);

  machine.run(LIMIT, () => seen.before !== undefined);
  if (hypervisor !== null && way !== 'vm, nobody') {
    const held = machine.memory.get(hypervisor.state.vm.address(0, Vm.held));
    const no = way === 'balloon' ? hypervisor.balloon(0, TAKEN) : hypervisor.limit(0, held - TAKEN);
    if (no !== null) throw new Error(no.refused);
  }
  machine.run(LIMIT);
  const { before, after } = seen;
  if (before === undefined || after === undefined || said.length > 0) {
    throw new Error(`${way}: the program did not end: ${said.join('')}`);
  }
  return {
    way,
    refaults: after.counts.refaults - before.counts.refaults,
    disk: after.disk - before.disk,
    out: after.outs - before.outs,
    back: after.ins - before.ins,
    cycles: after.cycles - before.cycles,
    elapsed: after.at - before.at,
    frames: after.frames,
  };
}

type Output = (channel: number, bytes: Uint8Array) => void;

function onExokernel(way: Way, pager: Image, output: Output): PhysicalMachine {
  const pages = way === 'exokernel asks' ? TAKEN : 0;
  return build({
    mode: 'exokernel',
    tenants: [1, 2],
    images: [pager, image('broker', (port) => new Broker(port, pages))],
    tenant: (tenant) => (tenant === BROKER_ROW ? { name: [] } : {}),
    medium: new RamMedium(diskFor(2, BLOCKS)),
    profile: RISCV,
    parameters: {
      quota: QUOTA,
      blocks: BLOCKS,
      sliceCycles: 100_000,
      backing: 'populate',
      secondStage: '4KiB',
      walkCaches: true,
      seed: 1,
    },
    output,
  }).machine;
}

/** A unikernel in a virtual machine, on a host that has a swap area and no other guest. */
function inGuest(pager: Image, output: Output): [PhysicalMachine, Hypervisor] {
  const tenant = { image: 0, quota: QUOTA, firstBlock: 0, blocks: BLOCKS };
  const supervisor = new Unikernel({ environments: 8, sliceCycles: 100_000 }, tenant, 1);
  const place = { firstBlock: 0, blocks: BLOCKS, channel: 1 };
  const guest = { supervisor, images: [pager], pages: GUEST_PAGES, ...place };
  const hypervisor = new Hypervisor(
    { sliceCycles: 100_000, backing: 'touch', secondStage: '4KiB', swap: SWAP },
    [guest],
  );
  const machine = new PhysicalMachine({
    pages: 3 * GUEST_PAGES,
    images: [],
    medium: new RamMedium(SWAP.firstBlock + SWAP.blocks),
    output,
  });
  machine.boot(hypervisor);
  return [machine, hypervisor];
}

export function pagingTable(name: string, outcomes: readonly Outcome[]): string {
  const head = ['taken by', 'refaults', 'blocks', 'swapped', 'read back', 'cycles', 'elapsed'];
  const rows = outcomes.map(({ way, refaults, disk, out, back, cycles, elapsed }) => [
    way,
    ...[refaults, disk, out, back, cycles, elapsed].map(number),
  ]);
  return [`${name}:`, '', ...aligned([head, ...rows], 1)].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(
    `${USES} uses of ${BLOCKS} blocks in ${FRAMES} frames, after ${TAKEN} of them were taken\n`,
  );
  for (const [name, pattern] of Object.entries(PATTERNS)) {
    const outcomes = WAYS.map((way) => measure(way, pattern));
    process.stdout.write(`\n${pagingTable(name, outcomes)}\n`);
  }
}
