/**
 * 06 an application's cache policy: what is it worth to choose for oneself?
 *
 * A loop over twelve blocks with a cache of eight: LRU, which an operating system would choose for
 * everybody, throws out each block just before it comes again. The block cache of libos/parts takes
 * its policy as an argument; the application that knows its loop passes another.
 *
 *     LRU    48 reads of the disk for 48 uses
 *     MRU    24 reads of the disk for 48 uses
 *     clock  28 reads of the disk for 48 uses
 *     2Q     48 reads of the disk for 48 uses
 *
 * Now change this line: LOOP, the order in which blocks are used. Find one for which LRU is best.
 */
import { MAP_READ, MAP_WRITE, Start } from '../kernel/abi.ts';
import { image, LibOS, type Op, type UserPort } from '../libos/libos.ts';
import { BlockCache, tablesBytes } from '../libos/parts/block-cache.ts';
import { FreePages } from '../libos/parts/free-pages.ts';
import { POLICIES, type Policy } from '../libos/parts/replacement.ts';
import { countsOf } from '../libos/parts/transfers.ts';
import { main, outputs, run } from './show.ts';

const PAGE = 4096;
const FRAMES = 8;
const BLOCKS = 12;
const LOOP = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
const ROUNDS = 4;
const DATA = Start.freePages; // virtual pages: frames, then the cache's tables

class Looper extends LibOS {
  readonly #policy: Policy;

  constructor(port: UserPort, policy: Policy) {
    super(port);
    this.#policy = policy;
  }

  override *main(...[self = 0, , , leaf = 0, , extent = 0]: number[]): Op<void> {
    const free = new FreePages(this.sys);
    const policy = this.#policy;
    const tables = Math.ceil(tablesBytes(FRAMES, policy, BLOCKS) / PAGE);
    const pages: number[] = [];
    for (let n = 0; n < FRAMES + tables; n++) {
      const page = yield* free.take(0);
      yield* this.sys.pageMap(leaf, DATA + n, page, 0, 0, MAP_READ | MAP_WRITE, 0);
      pages.push(page);
    }
    const cache = new BlockCache(this.sys, {
      extent,
      extentSlot: 0,
      pageSlot: 0,
      ...countsOf(self),
      frames: FRAMES,
      data: DATA * PAGE,
      tables: (DATA + FRAMES) * PAGE,
      blocks: BLOCKS,
      policy,
    });
    for (let n = 0; n < FRAMES; n++) yield* cache.setPage(n, pages[n] ?? 0);
    for (let round = 0; round < ROUNDS; round++) {
      for (const block of LOOP) yield* cache.get(block);
    }
    const { misses } = yield* cache.counts();
    const uses = LOOP.length * ROUNDS;
    yield* this.print(`${policy.name.padEnd(6)} ${misses} reads of the disk for ${uses} uses\n`);
  }
}

export const show = (): string =>
  POLICIES.map((policy) =>
    outputs(run([image('looper', (port) => new Looper(port, policy))])),
  ).join('');
main(import.meta, show);
