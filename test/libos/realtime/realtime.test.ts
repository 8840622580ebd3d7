/**
 * The periodic media loop: every deadline is met beside neighbours that take what they can get, and
 * its frames are the ones on the disk. Times are the machine's, taken when a frame is presented;
 * the library's own count of missed deadlines is checked against them.
 */
import { describe, expect, test } from 'vitest';
import {
  DISK_FORCE,
  DISK_WRITE,
  Env,
  envIndex,
  EnvState,
  Info,
  MAP_READ,
  MAP_WRITE,
  Start,
  Status,
} from '../../../kernel/abi.ts';
import { Exokernel } from '../../../kernel/exokernel/exokernel.ts';
import { diskFor, ALL_MODES } from '../../../lab/modes.ts';
import { image, type Image, LibOS, type Op } from '../../../libos/libos.ts';
import { FreePages } from '../../../libos/parts/free-pages.ts';
import { checksum, positionsFor, realtime, type Stream } from '../../../libos/realtime/realtime.ts';
import { RamMedium } from '../../../machine/disk.ts';
import { PhysicalMachine } from '../../../machine/physical.ts';
import { LONG } from '../../tiers.ts';
import { modeRun } from '../modes.ts';

const PAGE = 4096;
const SLICES = 8;
const SLICE = 40_000; // cycles
const STREAM: Stream = { frames: 100, period: 320_000, decode: 8_000, ahead: 32 };
const LONG_FRAMES = LONG ? 10_000 : 150;
const BLOCKS = 64; // of each tenant
const HEAP = Start.freePages * PAGE;

/** A medium on which each block is different. */
function film(blocks: number): RamMedium {
  const frames = new Map<number, Uint8Array>();
  for (let n = 0; n < blocks; n++) {
    frames.set(
      n,
      Uint8Array.from({ length: PAGE }, (_, at) => (at * (n + 3) + (at >> 5)) & 0xff),
    );
  }
  return new RamMedium(blocks, frames);
}

/** What the stream's checksum must be, from the medium. */
function expected(medium: RamMedium, first: number, blocks: number, frames: number): string {
  const bytes = new Uint8Array(PAGE);
  let sum = 1;
  for (let n = 0; n < frames; n++) {
    medium.read(first + (n % blocks), bytes);
    sum = checksum(sum, bytes);
  }
  return sum.toString(16);
}

// ---- neighbours ---------------------------------------------------------------------------------

abstract class Neighbour extends LibOS {
  readonly pages = new FreePages(this.sys);
  *spin(): Op<void> {
    for (;;) this.port.work(1_000) ?? (yield* this.port.fault());
  }
  *memory(leaf: number, pages: number): Op<void> {
    for (let n = 0; n < pages; n++) {
      const page = yield* this.pages.take(0);
      const { status } = yield* this.sys.pageMap(
        leaf,
        Start.freePages + n,
        page,
        0,
        0,
        MAP_READ | MAP_WRITE,
        0,
      );
      if (status !== Status.ok) throw new Error(`pageMap ${status}`);
      yield* this.port.store(HEAP + n * PAGE, page);
    }
  }
}

/** Is told of each slice's end, and goes on to the last of its grace. */
class Overrunner extends Neighbour {
  override *main(): Op<void> {
    yield* this.catchSlices();
    yield* this.spin();
  }
  override *onSliceEnd(): Op<void> {}
}

/** Yields, to whoever it is, without end. */
class YieldStorm extends Neighbour {
  override *main(self: number): Op<void> {
    for (let n = 0; ; n++) yield* this.sys.yieldTo(n % 3 === 0 ? -1 : self + 1 - (n % 5));
  }
}

/** Writes through to the medium, as many blocks a request and as many requests as it may. */
class DiskFlood extends Neighbour {
  override *main(
    _self: number,
    _root: number,
    _middle: number,
    leaf: number,
    _quota: number,
    extent: number,
  ): Op<void> {
    yield* this.memory(leaf, 33);
    const list = HEAP + 32 * PAGE;
    for (let n = 0; n < 32; n++) {
      yield* this.port.store(list + n * 4, yield* this.port.load(HEAP + n * PAGE));
    }
    for (;;) {
      yield* this.sys.diskRequest(extent, 0, 0, 32, list, 0, DISK_WRITE | DISK_FORCE);
    }
  }
}

/** Whose name dominates all others: takes all slices of environment 1 but the last. */
class Thief extends Neighbour {
  override *main(self: number): Op<void> {
    const seen = yield* this.port.load(
      Start.envPages * PAGE + (envIndex(self) * Env.words + Env.events) * 4,
    );
    yield* this.sys.sleep(seen, 30 * 230_000);
    const vector = (n: number): number => Start.infoPage * PAGE + (Info.sliceVector + n) * 4;
    const theirs: number[] = [];
    for (let n = 0; n < SLICES; n++) {
      if (envIndex(yield* this.port.load(vector(n))) === 1) theirs.push(n);
    }
    for (const n of theirs.slice(1)) yield* this.sys.sliceFree(n, 0);
    yield* this.spin();
  }
}

const NEIGHBOURS: Readonly<Record<string, Image>> = {
  overrunner: image('overrunner', (port) => new Overrunner(port)),
  'yield storm': image('yield storm', (port) => new YieldStorm(port)),
  'disk flood': image('disk flood', (port) => new DiskFlood(port)),
};

interface Seen {
  readonly text: string;
  /** when the stream's clock started */
  readonly start: number;
  /** when each frame was presented */
  readonly presented: readonly number[];
  readonly kernel: Exokernel;
  readonly machine: PhysicalMachine;
  readonly medium: RamMedium;
}

/** The stream as tenant 1 of the exokernel, beside neighbours. */
function play(
  stream: Stream,
  neighbours: readonly Image[],
  slices = SLICES,
  above: Image | null = null,
): Seen {
  const images = [realtime(stream), ...neighbours, ...(above === null ? [] : [above])];
  const tenants = images.map((_, n) => ({
    image: n,
    quota: 80,
    firstBlock: n * BLOCKS,
    blocks: BLOCKS,
    ...(above !== null && n === images.length - 1 ? { name: [] } : {}),
  }));
  const config = { environments: 16, slices, sliceCycles: SLICE, extents: 8 };
  const kernel = new Exokernel(config, tenants);
  const medium = film(diskFor(images.length, BLOCKS));
  const times: number[] = [];
  let text = '';
  const machine: PhysicalMachine = new PhysicalMachine({
    pages: 1024,
    images,
    medium,
    output: (_, bytes) => {
      if (bytes.length === 0) times.push(machine.now());
      else text += new TextDecoder().decode(bytes);
    },
  });
  machine.boot(kernel);
  while (
    !text.includes('realtime') &&
    machine.run(machine.now() + 10 * stream.period) !== 'halted'
  ) {
    if (machine.now() > stream.period * (stream.frames + 100)) break;
  }
  const [start = 0, ...presented] = times;
  return { text, start, presented, kernel, machine, medium };
}

/** Frames that were presented after the next was released, by the machine's clock. */
const late = ({ start, presented }: Seen, { period }: Stream): number =>
  presented.filter((at, n) => at > start + (n + 1) * period).length;

function met(stream: Stream, neighbours: readonly Image[]): Seen {
  const seen = play(stream, neighbours);
  const sum = expected(seen.medium, 0, BLOCKS, stream.frames);
  expect(seen.text).toContain(
    `realtime: ${stream.frames} frames, checksum ${sum}, 0 deadlines missed\n`,
  );
  expect(seen.presented).toHaveLength(stream.frames);
  expect(late(seen, stream)).toBe(0);
  return seen;
}

describe('no deadline is missed', () => {
  test.each(Object.keys(NEIGHBOURS))('beside: %s', (name) => {
    const neighbour = NEIGHBOURS[name];
    if (neighbour === undefined) throw new Error(name);
    const { kernel } = met(STREAM, [neighbour]);
    // It lives, and takes what is left.
    expect(kernel.state.stateOf(2)).not.toBe(EnvState.zombie);
  });

  test(`beside all of them at once, over ${LONG_FRAMES} periods`, () => {
    const { kernel, machine } = met({ ...STREAM, frames: LONG_FRAMES }, Object.values(NEIGHBOURS));
    // They were what they are called.
    const word = (pa: number): number => machine.memory.i32[pa >>> 2] ?? 0;
    const submitted = word(kernel.state.env.address(4, Env.diskSubmitted));
    expect(submitted).toBeGreaterThan(LONG_FRAMES / 3);
    expect(machine.hart.counters.totals().kernelCalls).toBeGreaterThan(LONG_FRAMES * 100);
  });
});

describe('slices by position', () => {
  test('it keeps what the admission test says, far apart, and gives the rest back', () => {
    const { kernel, machine } = met({ ...STREAM, frames: 20 }, [NEIGHBOURS['overrunner'] as Image]);
    const word = (pa: number): number => machine.memory.i32[pa >>> 2] ?? 0;
    const vector = Array.from({ length: SLICES }, (_, n) =>
      word(kernel.state.info.address(0, Info.sliceVector + n)),
    );
    const id = kernel.state.id(1);
    const mine = [...vector.keys()].filter((n) => vector[n] === id);
    expect(mine).toHaveLength(positionsFor(STREAM, SLICES, SLICE));
    expect(vector.filter((owner) => owner === 0)).toHaveLength(SLICES / 2 - mine.length);
  });

  test('a stream that no number of slices can serve does not begin', () => {
    const { text, presented } = play({ ...STREAM, period: 50_000, frames: 3 }, []);
    expect(presented).toHaveLength(0);
    expect(text).toContain('no number of slices meets these deadlines');
  });

  test('nor one that needs more slices than its allotment', () => {
    const crowd = Object.values(NEIGHBOURS);
    const { text, presented } = play({ ...STREAM, period: 105_000, frames: 3 }, crowd);
    expect(presented).toHaveLength(0);
    expect(text).toMatch(/2 slices to be had, of \d+ that the stream needs/);
  });

  test('whose slices are taken by who has the authority misses deadlines, and says so', () => {
    const stream = { ...STREAM, period: 230_000, frames: 100 };
    expect(positionsFor(stream, SLICES, SLICE)).toBe(2);
    const thief = image('thief', (port) => new Thief(port));
    const busy = NEIGHBOURS['overrunner'] as Image;
    const seen = play(stream, [busy, busy], SLICES, thief);
    const counted = Number(/(\d+) deadlines missed/.exec(seen.text)?.[1]);
    expect(counted).toBeGreaterThan(0);
    expect(late(seen, stream)).toBe(counted);
  });
});

test('the same in every mode', () => {
  const stream = { ...STREAM, frames: 50, period: 4_000_000 };
  for (const mode of ALL_MODES) {
    const { texts, medium, blocks } = modeRun(mode, realtime(stream), film);
    texts.forEach((text, n) => {
      const sum = expected(medium, n * blocks, blocks, stream.frames);
      expect(text, `${mode}, tenant ${n + 1}`).toBe(
        `realtime: ${stream.frames} frames, checksum ${sum}, 0 deadlines missed\n`,
      );
    });
  }
});
