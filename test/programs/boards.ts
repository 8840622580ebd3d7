/**
 * The two boards that the programs run on: the exokernel on the physical machine, and the same
 * kernel in a virtual machine. A test looks at what happened from outside: at the console, and at
 * the exposed tables in the machine's memory, which it reads word by word past any kernel. When the
 * programs have ended, every invariant of the kernel must hold.
 */
import { Env, envId, envIndex, EnvState, Info } from '../../kernel/abi.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import type { ExokernelConfig } from '../../kernel/exokernel/state.ts';
import { Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { Vm } from '../../kernel/hypervisor/state.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine, type Stop } from '../../machine/physical.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Image } from '../../machine/user-port.ts';
import { Raw } from '../../check/invariants/raw.ts';
import { audit } from '../../check/invariants/index.ts';
import { hostPage } from '../machine/rigs.ts';

export const PAGES = 512;
export const BLOCKS = 16; // of the disk, each tenant
export const CONFIG: ExokernelConfig = {
  environments: 32,
  slices: 32,
  sliceCycles: 10_000,
  extents: 6,
};
const SPARE = 8; // blocks that are no tenant's
const LIMIT = 100_000_000; // cycles: a program that needs them hangs

export const BOARDS = ['physical machine', 'virtual machine'] as const;
export type BoardName = (typeof BOARDS)[number];

export interface Plan {
  readonly images: readonly Image[];
  /** image number of each tenant's first environment; default one tenant, image 0 */
  readonly tenants?: readonly number[];
  readonly exokernel?: Partial<ExokernelConfig>;
}

export class Board {
  readonly machine: PhysicalMachine;
  readonly kernel: Exokernel;
  /** in the order in which they were written */
  readonly lines: { readonly channel: number; readonly text: string }[] = [];
  readonly #medium: RamMedium;
  readonly #virtual: boolean;
  readonly #page: (page: number) => number; // of the kernel's machine, in the physical one

  constructor(name: BoardName, { images, tenants = [0], exokernel }: Plan) {
    this.kernel = new Exokernel(
      { ...CONFIG, ...exokernel },
      tenants.map((image, n) => ({
        image,
        quota: Math.floor(PAGES / 2 / tenants.length),
        firstBlock: n * BLOCKS,
        blocks: BLOCKS,
      })),
    );
    const blocks = BLOCKS * tenants.length + SPARE;
    this.#medium = new RamMedium(blocks);
    this.#virtual = name === 'virtual machine';
    this.machine = new PhysicalMachine({
      pages: this.#virtual ? 4 * PAGES : PAGES,
      images: this.#virtual ? [] : images,
      medium: this.#medium,
      output: (channel, bytes) => {
        this.lines.push({ channel, text: new TextDecoder().decode(bytes) });
      },
    });
    if (!this.#virtual) {
      this.machine.boot(this.kernel);
      this.#page = (page) => page;
      return;
    }
    // One page more: a guest's last page is its disk ring.
    const guest = { images, pages: PAGES + 1, firstBlock: 0, blocks, channel: 9, accounts: true };
    const hypervisor = new Hypervisor(
      { sliceCycles: 1_000_003, backing: 'touch', secondStage: '4KiB' },
      [{ supervisor: this.kernel, ...guest }],
    );
    this.machine.boot(hypervisor);
    const { memory } = this.machine;
    const root = memory.get(hypervisor.state.vm.address(0, Vm.root));
    this.#page = (page) => hostPage((at) => memory.get(at), root, page);
  }

  /** Runs until nothing will ever happen again. */
  run(): void {
    const stop: Stop = this.machine.run(LIMIT);
    if (stop !== 'halted') throw new Error(`the programs have not ended: ${this.said(0)}`);
    if (this.#virtual) return; // the audit reads physical memory
    const wrong = audit(new Raw(this.machine, this.kernel.state));
    if (wrong.length > 0) throw new Error(wrong.join('\n'));
  }

  /** All that was written to a channel: 0 is the kernel's, n that of tenant n. */
  said(channel: number): string {
    return this.lines.map((line) => (line.channel === channel ? line.text : '')).join('');
  }

  /** Word `word` of page `page` of the kernel's machine; 0 of one that was never touched. */
  word(page: number, word: number): number {
    const at = this.#page(page + Math.floor(word / (PAGE_BYTES / 4)));
    return at < 0 ? 0 : this.machine.memory.get(at * PAGE_BYTES + ((word * 4) % PAGE_BYTES));
  }

  /** The information page is the first of all. */
  info(word: number): number {
    return this.word(0, word);
  }
  env(row: number, word: number): number {
    return this.word(this.info(Info.envPage), row * Env.words + word);
  }
  id(row: number): number {
    return envId(row, this.env(row, Env.generation));
  }
  /** Kind of a page. */
  kind(page: number): number {
    return this.word(this.info(Info.pagePage), page) & 0xff;
  }
  /** First word of a block of the disk, as it stands on the medium. */
  block(block: number): number {
    const bytes = new Uint8Array(PAGE_BYTES);
    this.#medium.read(block, bytes);
    return new DataView(bytes.buffer).getInt32(0, true);
  }
  /** How many pages are of this kind. */
  count(kind: number): number {
    return Array.from({ length: PAGES }, (_, n) => this.kind(n)).filter((k) => k === kind).length;
  }

  /** State and exit status of the environment with this id, or of the row. */
  end(env: number): { readonly state: string; readonly status: number } {
    const row = envIndex(env);
    const is = this.env(row, Env.state);
    const state = Object.entries(EnvState).find(([, number]) => number === is)?.[0] ?? `${is}`;
    return { state, status: this.env(row, Env.exitStatus) };
  }
}

/** Runs the programs of a plan to their end. */
export function play(name: BoardName, plan: Plan): Board {
  const board = new Board(name, plan);
  board.run();
  return board;
}

/** An environment that ended itself with `status`, or was ended by the kernel: -1. */
export const ended = (status = 0): object => ({ state: 'zombie', status });

/** What the kernel says of an environment that it destroyed for a fault. */
export const obituary = (env: number, cause: number, address: number): string =>
  `environment ${env}: cause ${cause} at 0x${address.toString(16)}, and no handler for it\n`;
