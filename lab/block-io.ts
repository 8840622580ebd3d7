/**
 * Block input and output, by every model of a virtual disk: a program keeps so many reads of 4 KiB
 * under way, anywhere on its disk. What is counted is how often the guest left for its hypervisor
 * for each request, and the cycles of all who worked, from when the program is up until its last
 * read has ended. The same program runs on the machine itself, under a unikernel and an exokernel.
 *
 *     npx tsx lab/block-io.ts
 */
import { fileURLToPath } from 'node:url';
import { RISCV } from '../machine/costs.ts';
import { RamMedium } from '../machine/disk.ts';
import { DISKS, type DiskModel } from '../kernel/hypervisor/state.ts';
import { Start, Status } from '../kernel/abi.ts';
import { image, LibOS, type Op } from '../libos/libos.ts';
import { FreePages } from '../libos/parts/free-pages.ts';
import { countsOf } from '../libos/parts/transfers.ts';
import { build, diskFor, type Mode } from './modes.ts';
import { aligned, number } from './report.ts';

const PAGE = 4096;
const BLOCKS = 256;
const REQUESTS = 240;
const DEPTHS = [1, 2, 4, 8] as const;
const LIMIT = 1e9; // cycles

/** Reads blocks, `depth` at a time. */
class Reader extends LibOS {
  readonly #depth: number;

  constructor(port: LibOS['port'], depth: number) {
    super(port);
    this.#depth = depth;
  }

  override *main(...[self = 0, , , , , extent = 0]: number[]): Op<void> {
    const { sys, port } = this;
    const list = (Start.stackPage + 1) * PAGE - 64 * 4;
    const pool = new FreePages(sys);
    for (let n = 0; n < this.#depth; n++) yield* port.store(list + n * 4, yield* pool.take(0));
    const { done, events } = countsOf(self);
    yield* sys.consoleWrite(list, 0); // it begins
    let block = 1;
    for (let sent = 0; ;) {
      const seen = yield* port.load(events);
      const ended = yield* port.load(done);
      while (sent < REQUESTS && sent - ended < this.#depth) {
        block = (block * 5 + 3) % BLOCKS; // all of them, in no order
        const page = list + (sent % this.#depth) * 4;
        const { status } = yield* sys.diskRequest(extent, 0, block, 1, page, 0, 0);
        if (status !== Status.ok) throw new Error(`refused: ${status}`);
        sent++;
      }
      if (ended === REQUESTS) break;
      yield* sys.sleep(seen);
    }
  }
}

export interface Counted {
  readonly mode: Mode;
  readonly disk: DiskModel | null; // null: the machine's own
  readonly depth: number;
  readonly exits: number;
  readonly doorbells: number;
  readonly cycles: number;
  readonly elapsed: number;
}

export function measure(mode: Mode, disk: DiskModel | null, depth: number): Counted {
  let begun: { exits: number; cycles: number; at: number; doorbells: number } | null = null;
  const said: string[] = [];
  const { machine, hypervisor } = build({
    mode,
    tenants: [1],
    images: [image('reader', (port) => new Reader(port, depth))],
    medium: new RamMedium(diskFor(1, BLOCKS)),
    profile: RISCV,
    parameters: {
      quota: 64,
      blocks: BLOCKS,
      sliceCycles: 1_000_000,
      backing: 'populate',
      secondStage: '4KiB',
      walkCaches: true,
      seed: 1,
      disk: disk ?? 'emulated',
    },
    output: (_channel, bytes) => {
      if (bytes.length > 0) said.push(new TextDecoder().decode(bytes));
      else begun ??= counts();
    },
  });
  const counts = () => {
    const { hart } = machine;
    hart.settle();
    let cycles = 0;
    for (let owner = 0; owner < 64; owner++) {
      for (let layer = 0; layer < 4; layer++) cycles += hart.counters.cycles(owner, layer);
    }
    const doorbells = hypervisor?.exits(0).disk ?? 0;
    return { exits: hart.counters.totals().vmExits, cycles, at: machine.now(), doorbells };
  };
  const stop = machine.run(LIMIT);
  const end = counts();
  if (stop !== 'halted' || begun === null || said.length > 0) {
    throw new Error(`${mode}: the reads did not end: ${said.join('')}`);
  }
  const from: ReturnType<typeof counts> = begun;
  return {
    mode,
    disk,
    depth,
    exits: end.exits - from.exits,
    doorbells: end.doorbells - from.doorbells,
    cycles: end.cycles - from.cycles,
    elapsed: end.at - from.at,
  };
}

/** Every way to a disk, at every depth. */
export function measureAll(): Counted[] {
  const ways: readonly (readonly [Mode, DiskModel | null])[] = [
    ['bare', null],
    ['exokernel', null],
    ...(['vm', 'vm-shadow'] as const).flatMap((mode) => DISKS.map((disk) => [mode, disk] as const)),
  ];
  return ways.flatMap(([mode, disk]) => DEPTHS.map((depth) => measure(mode, disk, depth)));
}

export function blockTable(all: readonly Counted[]): string {
  const each = (n: number): string => (n / REQUESTS).toFixed(2);
  const rows = all.map(({ mode, disk, depth, exits, doorbells, cycles, elapsed }) => [
    mode,
    disk ?? '-',
    `${depth}`,
    each(exits),
    each(doorbells),
    number(cycles / REQUESTS),
    number(elapsed / REQUESTS),
  ]);
  const head = ['mode', 'disk', 'depth', 'exits', 'doorbells', 'cycles', 'elapsed'];
  return [
    `${REQUESTS} reads of 4 KiB; exits, cycles of work and cycles elapsed for each`,
    '',
    ...aligned([head, ...rows], 2),
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(`${blockTable(measureAll())}\n`);
}
