/**
 * A rig for tests of the key-value store: tenants on the exokernel, the first of them the store, the
 * others programs that the test hands over. Programs are user code; only the handing over is not.
 */
import { MAP_READ, MAP_WRITE, Start, Status } from '../../../kernel/abi.ts';
import { Exokernel } from '../../../kernel/exokernel/exokernel.ts';
import { KvClient, environmentIn } from '../../../libos/kv/client.ts';
import { kv, type KvConfig } from '../../../libos/kv/kv.ts';
import { image, LibOS, type Op } from '../../../libos/libos.ts';
import { FreePages } from '../../../libos/parts/free-pages.ts';
import type { Syscalls } from '../../../libos/syscalls.ts';
import type { Tenant } from '../../../kernel/supervisor.ts';
import { type Medium, RamMedium } from '../../../machine/disk.ts';
import { PhysicalMachine } from '../../../machine/physical.ts';
import type { Image } from '../../../machine/user-port.ts';

const PAGE = 4096;
export const BUFFER = Start.freePages; // page of a client's buffer
const TABLE_BLOCKS = 2;

/** What a client has: its calls, its buffer, and the means to make more. */
export interface Around {
  readonly sys: Syscalls;
  readonly self: number;
  readonly leaf: number;
  readonly server: number;
  readonly pages: readonly number[];
  readonly kv: KvClient;
}
export type Program = (around: Around) => Op<void>;

/** A libOS that has a buffer of so many pages, and does what the test says. */
export class Client extends LibOS {
  readonly #program: Program;
  readonly #count: number;

  constructor(port: LibOS['port'], program: Program, count: number) {
    super(port);
    this.#program = program;
    this.#count = count;
  }

  override *main(self: number, _root: number, _middle: number, leaf: number): Op<void> {
    const { sys } = this;
    const free = new FreePages(sys);
    const pages: number[] = [];
    for (let n = 0; n < this.#count; n++) {
      const page = yield* free.take(0);
      const flags = MAP_READ | MAP_WRITE;
      const { status } = yield* sys.pageMap(leaf, BUFFER + n, page, 0, 0, flags, 0);
      if (status !== Status.ok) throw new Error(`no buffer: status ${status}`);
      pages.push(page);
    }
    const server = yield* environmentIn(sys, 1);
    const client = new KvClient(sys, server, { address: BUFFER * PAGE, pages, slot: 0 });
    yield* this.#program({ sys, self, leaf, server, pages, kv: client });
  }
}

export const client = (program: Program, pages = 4): Image =>
  image('client', (port) => new Client(port, program, pages));

export interface World {
  readonly machine: PhysicalMachine;
  readonly kernel: Exokernel;
  readonly medium: Medium;
  /** what was said on the consoles, by channel */
  readonly said: Map<number, string>;
}

export interface WorldSpec {
  readonly store?: KvConfig;
  readonly clients: readonly Image[];
  readonly medium?: Medium;
  readonly blocks?: number; // of the store
  readonly quota?: number; // pages of the store
  readonly minimum?: number; // pages of the store that are never revoked
  readonly storm?: boolean;
  /** what is special about tenant `n`, from 1 */
  readonly tenant?: (n: number) => Partial<Tenant>;
}

/** The store as tenant 1, the clients as tenants 2 and up. */
export function world(spec: WorldSpec): World {
  const { blocks = 256, quota = 400, minimum = 0 } = spec;
  const images = [kv(spec.store), ...spec.clients];
  const medium = spec.medium ?? new RamMedium(blocks + TABLE_BLOCKS);
  const said = new Map<number, string>();
  const machine = new PhysicalMachine({
    pages: Math.max(2048, quota + spec.clients.length * 80 + 512),
    images,
    medium,
    storm: spec.storm === true,
    output: (channel, bytes) => {
      said.set(channel, (said.get(channel) ?? '') + new TextDecoder().decode(bytes));
    },
  });
  const tenants = images.map((_, n) => ({
    image: n,
    quota: n === 0 ? quota : 64,
    minimum: n === 0 ? minimum : 0,
    firstBlock: 0,
    blocks: n === 0 ? blocks : 0,
    ...spec.tenant?.(n + 1),
  }));
  const count = tenants.length;
  const config = {
    environments: Math.max(32, count + 8),
    slices: Math.max(8, count),
    ...{ sliceCycles: 100_000, extents: 8 },
  };
  const kernel = new Exokernel(config, tenants);
  machine.boot(kernel);
  return { machine, kernel, medium, said };
}

export const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
export const bytes = (string: string): Uint8Array => new TextEncoder().encode(string);
