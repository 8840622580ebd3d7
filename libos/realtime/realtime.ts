/**
 * A library OS for one periodic media loop: every period it decodes one frame of a stream on its
 * disk, and presents it before the period is over, whoever its neighbours are.
 *
 * It needs no real-time class in the kernel. It buys slices by position, as many and as far apart
 * as an admission test says, and gives the others back; it binds everything in advance (pages,
 * table, list, reads of the disk far ahead), so that once the clock runs nothing faults and nothing
 * is allocated. It trusts the kernel that a position's share of any stretch of time is its own.
 *
 * An empty console write says that the clock starts, and then one that a frame is presented: the
 * machine's owner can see and time them.
 */
import {
  Env,
  envIndex,
  GRACE,
  Info,
  MAP_READ,
  MAP_WRITE,
  Start,
  Status,
} from '../../kernel/abi.ts';
import { image, type Image, LibOS, type Op } from '../libos.ts';
import { FreePages } from '../parts/free-pages.ts';

export interface Stream {
  readonly frames: number;
  /** cycles from one frame to the next; a frame is due when the next is released */
  readonly period: number;
  /** cycles of decoding a frame, beside looking at its bytes */
  readonly decode: number;
  /** frames that are read in advance, 1 to RING_MAX */
  readonly ahead: number;
}

export const RING_MAX = 64;
const PAGE = 4096;
const RING = Start.freePages * PAGE; // frames that are read ahead: a page each
/** One page more: the page behind each place in the ring, as diskRequest reads it. */
const LIST = RING + RING_MAX * PAGE;
const RW = MAP_READ | MAP_WRITE;
const INFO = Start.infoPage * PAGE;

/** Cycles that looking at a byte of a frame takes: a table-driven checksum. */
const BYTE = 2;
/**
 * How late a turn may come, beyond the way round the vector: the grace of a neighbour that overruns
 * its slice, the longest kernel path at its end, and as much again when our own is over.
 */
const SLACK = 4 * GRACE;

/**
 * How many positions of the vector the stream needs: a frame takes `turns` turns of a slice, the
 * first comes at most a gap after the release, the others a gap each.
 * @returns positions, or -1 if no number of them meets every deadline
 */
export function positionsFor(stream: Stream, slices: number, sliceCycles: number): number {
  const work = stream.decode + PAGE * BYTE;
  const usable = sliceCycles - SLACK;
  if (usable <= 0) return -1;
  const turns = Math.ceil(work / usable);
  const spare = stream.period - sliceCycles - SLACK;
  const gap = Math.floor(spare / turns / sliceCycles); // positions from one turn to the next
  return gap < 1 ? -1 : Math.min(slices, Math.ceil(slices / gap));
}

/** A rolling checksum over the bytes of a frame: what "decoded" means here. */
export function checksum(before: number, bytes: Uint8Array): number {
  let [low, high] = [before & 0xffff, before >>> 16];
  for (const byte of bytes) {
    low = (low + byte + 1) % 65_521;
    high = (high + low) % 65_521;
  }
  return ((high << 16) | low) >>> 0;
}

class Realtime extends LibOS {
  readonly #stream: Stream;
  readonly #pages = new FreePages(this.sys);
  readonly #frame = new Uint8Array(PAGE);
  #events = 0; // addresses of our counters in the exposed table
  #done = 0;
  #failed = 0;

  constructor(port: LibOS['port'], stream: Stream) {
    super(port);
    this.#stream = stream;
  }

  override *main(
    self: number,
    _root: number,
    _middle: number,
    leaf: number,
    _quota: number,
    extent: number,
    blocks: number,
  ): Op<void> {
    const { frames, period, ahead } = this.#stream;
    const row = Start.envPages * PAGE + envIndex(self) * Env.words * 4;
    [this.#events, this.#done, this.#failed] = [Env.events, Env.diskDone, Env.diskFailed].map(
      (word) => row + word * 4,
    ) as [number, number, number];
    yield* this.#bindMemory(leaf);
    yield* this.#buySlices(self);

    let asked = 0; // frames
    const ask = function* (libos: Realtime, upTo: number): Op<void> {
      while (asked < Math.min(upTo, frames)) {
        const list = LIST + (asked % ahead) * 4;
        const block = asked % blocks;
        const { status } = yield* libos.sys.diskRequest(extent, 0, block, 1, list, 0, 0);
        if (status === Status.full) return; // a later period asks again
        if (status !== Status.ok) throw new Error(`the disk refuses block ${block}: ${status}`);
        asked++;
      }
    };
    yield* ask(this, ahead);
    yield* this.#arrival(asked);

    let [digest, missed] = [1, 0];
    yield* this.sys.consoleWrite(LIST, 0); // the clock starts
    const start = this.port.cycles();
    for (let n = 0; n < frames; n++) {
      yield* this.#release(start + n * period);
      yield* ask(this, n + ahead);
      yield* this.#arrival(n + 1);
      digest = yield* this.#decode(digest, n % ahead);
      yield* this.sys.consoleWrite(LIST, 0);
      if (this.port.cycles() > start + (n + 1) * period) missed++;
    }
    const failed = yield* this.port.load(this.#failed);
    yield* this.print(
      `realtime: ${frames} frames, checksum ${digest.toString(16)}, ` +
        `${missed} deadlines missed${failed > 0 ? `, ${failed} frames unreadable` : ''}\n`,
    );
  }

  /** Takes, maps and touches all memory that the loop will ever use. */
  *#bindMemory(leaf: number): Op<void> {
    const { ahead } = this.#stream;
    for (let n = 0; n <= ahead; n++) {
      const page = yield* this.#pages.take(0);
      if (page < 0) throw new Error(`${n} pages to be had, of ${ahead + 1} that the stream needs`);
      const at = n < ahead ? RING + n * PAGE : LIST;
      const { status } = yield* this.sys.pageMap(leaf, at / PAGE, page, 0, 0, RW, 0);
      if (status !== Status.ok) throw new Error(`page ${page} is not mapped: ${status}`);
      yield* this.port.store(at, page);
    }
    for (let n = 0; n < ahead; n++) {
      yield* this.port.store(LIST + n * 4, yield* this.port.load(RING + n * PAGE));
    }
  }

  /**
   * Keeps or buys the positions that the stream needs, as evenly as the vector admits, and frees
   * the rest. Throws if they are not to be had: a stream that is not admitted does not begin.
   */
  *#buySlices(self: number): Op<void> {
    const { port } = this;
    const slices = yield* port.load(INFO + Info.slices * 4);
    const sliceCycles = yield* port.load(INFO + Info.sliceCycles * 4);
    const wanted = positionsFor(this.#stream, slices, sliceCycles);
    if (wanted < 0) throw new Error('no number of slices meets these deadlines: period too short');
    const owners: number[] = [];
    for (let n = 0; n < slices; n++) {
      owners.push(yield* port.load(INFO + (Info.sliceVector + n) * 4));
    }
    const targets = new Set<number>();
    const usable = (n: number): boolean =>
      (owners[n] === self || owners[n] === 0) && !targets.has(n);
    for (let n = 0; n < wanted; n++) {
      // Not later than its even place, so that no gap is longer: an earlier one, if need be.
      const even = Math.floor((n * slices) / wanted);
      for (let back = 0; back < slices; back++) {
        const position = (even - back + slices) % slices;
        if (!usable(position)) continue;
        targets.add(position);
        break;
      }
    }
    for (const [position, owner] of owners.entries()) {
      if (owner === self && !targets.has(position)) yield* this.sys.sliceFree(position, 0);
    }
    let got = 0;
    for (const position of targets) {
      const kept = owners[position] === self;
      if (kept || (yield* this.sys.sliceAllocate(position, self, 0)).status === Status.ok) got++;
    }
    if (got < wanted)
      throw new Error(`${got} slices to be had, of ${wanted} that the stream needs`);
  }

  /** Waits until the clock says `at`. */
  *#release(at: number): Op<void> {
    for (;;) {
      const left = at - this.port.cycles();
      if (left <= 0) return;
      const seen = yield* this.port.load(this.#events);
      yield* this.sys.sleep(seen, left);
    }
  }

  /** Waits until `count` of our reads are complete: they are, in the order of asking. */
  *#arrival(count: number): Op<void> {
    for (;;) {
      const seen = yield* this.port.load(this.#events);
      if ((yield* this.port.load(this.#done)) >= count) return;
      yield* this.sys.sleep(seen);
    }
  }

  *#decode(digest: number, place: number): Op<number> {
    const { port } = this;
    port.read(RING + place * PAGE, this.#frame, 0, PAGE) ?? (yield* port.fault());
    port.work(this.#stream.decode + PAGE * BYTE) ?? (yield* port.fault());
    return checksum(digest, this.#frame);
  }
}

/** The program, for a stream. */
export function realtime(stream: Stream): Image {
  return image('realtime', (port) => new Realtime(port, stream));
}
