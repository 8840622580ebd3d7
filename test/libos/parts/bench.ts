/** One environment with memory and a disk, in which a test tries a part. */
import { MAP_READ, MAP_WRITE, Start } from '../../../kernel/abi.ts';
import { Exokernel } from '../../../kernel/exokernel/exokernel.ts';
import { image, LibOS, type Op } from '../../../libos/libos.ts';
import { FreePages } from '../../../libos/parts/free-pages.ts';
import type { Syscalls } from '../../../libos/syscalls.ts';
import { type Medium, RamMedium } from '../../../machine/disk.ts';
import { PhysicalMachine } from '../../../machine/physical.ts';
import type { Entry, Image } from '../../../machine/user-port.ts';

const PAGE = 4096;
const DATA = 64; // pages of memory from `data` on
const BLOCKS = 64;

export interface Bench {
  readonly sys: Syscalls;
  readonly libos: LibOS;
  readonly self: number;
  readonly root: number;
  readonly middle: number;
  readonly leaf: number;
  readonly extent: number;
  /** memory: its address, and the physical pages behind it */
  readonly data: number;
  readonly pages: readonly number[];
  /** so many bytes of it, from a page's start, that nobody else has */
  readonly space: (bytes: number) => number;
}
export type Trial = (bench: Bench) => Op<void>;

export interface BenchConfig {
  /** entries of the program, from OWN_ENTRIES on */
  readonly entries?: (libos: LibOS) => readonly Entry[];
  readonly onSliceEnd?: (libos: LibOS) => Op<void>;
  readonly quota?: number;
  readonly cycles?: number;
  readonly sliceCycles?: number;
  readonly medium?: Medium;
  /** further tenants */
  readonly others?: readonly Image[];
}

class Tried extends LibOS {
  readonly #trial: Trial;
  readonly #config: BenchConfig;
  constructor(port: LibOS['port'], trial: Trial, config: BenchConfig) {
    super(port);
    this.#trial = trial;
    this.#config = config;
  }
  override *main(...args: number[]): Op<void> {
    const [self = 0, root = 0, middle = 0, leaf = 0, , extent = 0] = args;
    const { sys } = this;
    const free = new FreePages(sys);
    const pages: number[] = [];
    for (let n = 0; n < DATA; n++) {
      const page = yield* free.take(0);
      yield* sys.pageMap(leaf, Start.freePages + n, page, 0, 0, MAP_READ | MAP_WRITE, 0);
      pages.push(page);
    }
    const data = Start.freePages * PAGE;
    let used = data;
    const space = (bytes: number): number => {
      const at = used;
      used += Math.ceil(bytes / PAGE) * PAGE;
      return at;
    };
    yield* this.#trial({ sys, libos: this, self, root, middle, leaf, extent, data, pages, space });
  }
  override entries(): readonly Entry[] {
    return this.#config.entries?.(this) ?? [];
  }
  override *onSliceEnd(): Op<void> {
    if (this.#config.onSliceEnd === undefined) yield* super.onSliceEnd();
    else yield* this.#config.onSliceEnd(this);
  }
}

/** Runs the trial to its end; what went wrong in it is thrown. The medium that it worked on. */
export function bench(trial: Trial, config: BenchConfig = {}): Medium {
  const { quota = 160, cycles = 1e10, sliceCycles = 100_000, others = [] } = config;
  let failure: unknown = null;
  let ended = false;
  const guarded: Trial = function* (at) {
    try {
      yield* trial(at);
      ended = true;
    } catch (error) {
      failure = error;
    }
  };
  const own = image('bench', (port) => new Tried(port, guarded, config), 4);
  const medium = config.medium ?? new RamMedium(BLOCKS + 2);
  const images = [own, ...others];
  const said: string[] = [];
  const machine = new PhysicalMachine({
    pages: 1024,
    images,
    medium,
    output: (_, bytes) => said.push(new TextDecoder().decode(bytes)),
  });
  const tenants = images.map((_, n) => ({
    image: n,
    quota: n === 0 ? quota : 40,
    firstBlock: 0,
    blocks: n === 0 ? BLOCKS : 0,
  }));
  const kernel = { environments: 16, slices: 4, sliceCycles, extents: 8 };
  machine.boot(new Exokernel(kernel, tenants));
  machine.run(cycles);
  if (failure !== null) throw failure as Error;
  if (!ended) throw new Error(`the trial did not end: ${said.join('')}`);
  machine.powerOff();
  return medium;
}
