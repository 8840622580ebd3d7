/**
 * The modes of every comparison: the same library OS and the same programs, on the same hardware
 * with the same memory for each tenant, under different supervisors. This file is where they differ
 * and the only one.
 */
import type { CostProfile } from '../machine/costs.ts';
import type { Image } from '../machine/user-port.ts';
import type { Medium } from '../machine/disk.ts';
import { PhysicalMachine } from '../machine/physical.ts';
import { Exokernel } from '../kernel/exokernel/exokernel.ts';
import { TABLE_BLOCKS } from '../kernel/exokernel/extents.ts';
import { Hypervisor } from '../kernel/hypervisor/hypervisor.ts';
import type { HypervisorConfig } from '../kernel/hypervisor/state.ts';
import type { Supervisor, Tenant } from '../kernel/supervisor.ts';
import { Unikernel } from '../kernel/unikernel/unikernel.ts';

export const MODES = ['bare', 'exokernel', 'vm', 'exokernel-in-vm'] as const;
export type Mode = (typeof MODES)[number];

/** What each mode is, in the words of the report. */
export const MODE_TITLES: Readonly<Record<Mode, string>> = {
  bare: 'unikernel on the machine, one tenant at a time: nothing is protected, the limit',
  exokernel: 'exokernel on the machine, tenants side by side',
  vm: 'unikernel in a virtual machine each, nested paging, tenants side by side',
  'exokernel-in-vm': 'exokernel in one virtual machine: the price of the layer',
};

export interface Parameters {
  /** pages that each tenant may use */
  readonly quota: number;
  /** blocks of each tenant's disk */
  readonly blocks: number;
  readonly sliceCycles: number;
  readonly backing: HypervisorConfig['backing'];
  readonly secondStage: HypervisorConfig['secondStage'];
  readonly walkCaches: boolean;
  readonly seed: number;
}

export const ENVIRONMENTS = 160; // rows of a kernel's table: two tenants of 64 processes, and spare
const SLICES = 16;
const EXTENTS = 16;
const MEGAPAGE = 512;

export interface Built {
  readonly machine: PhysicalMachine;
  /** the hypervisor, where there is one: for its exits by cause */
  readonly hypervisor: Hypervisor | null;
  /** the kernels that library OSes run on: of a mode with a kernel for each tenant, by tenant */
  readonly kernels: readonly (Exokernel | Unikernel)[];
}

export interface Wiring {
  readonly mode: Mode;
  /** numbers of the tenants that run, from 1: their console channels and accounts */
  readonly tenants: readonly number[];
  /** what tenants run: the n-th tenant, from 1, the n-th image, and round again */
  readonly images: readonly Image[];
  /** images that no tenant begins with, numbered behind those: it can start environments of them */
  readonly others?: readonly Image[];
  /** what else the exokernel is to know of a tenant, by number */
  readonly tenant?: (number: number) => Partial<Tenant>;
  readonly medium: Medium;
  readonly profile: CostProfile;
  readonly parameters: Parameters;
  readonly output: (channel: number, bytes: Uint8Array) => void;
  readonly storm?: boolean;
}

/** Whether the mode runs all tenants at once; bare has no protection to run two. */
export const sideBySide = (mode: Mode): boolean => mode !== 'bare';

/** Pages of kernel tables that a machine of `pages` pages needs, generously. */
const overhead = (pages: number): number => Math.ceil(pages * 0.03) + 320;

const withOverhead = (pages: number): number => {
  const all = pages + overhead(pages);
  return Math.ceil(all / MEGAPAGE) * MEGAPAGE;
};

/** Blocks of a disk for so many tenants: at its end the exokernel keeps the table of extents. */
export const diskFor = (tenants: number, blocks: number): number => tenants * blocks + TABLE_BLOCKS;

/** A machine in the given mode, booted as far as its supervisor. */
export function build(wiring: Wiring): Built {
  const { mode, tenants, medium, profile, parameters, output, storm } = wiring;
  const images = [...wiring.images, ...(wiring.others ?? [])];
  const { quota, blocks, sliceCycles, backing, secondStage, walkCaches, seed } = parameters;
  const imageOf = (number: number): number => (number - 1) % wiring.images.length;
  const tenant = (number: number, n: number): Tenant => ({
    image: imageOf(number),
    quota,
    firstBlock: n * blocks,
    blocks,
    ...wiring.tenant?.(number),
  });
  const exokernel = (): Exokernel =>
    new Exokernel(
      { environments: ENVIRONMENTS, slices: SLICES, sliceCycles, extents: EXTENTS },
      tenants.map(tenant),
    );
  const unikernel = (channel: number): Unikernel =>
    new Unikernel({ environments: ENVIRONMENTS, sliceCycles }, tenant(channel, 0), channel);

  const hosted = mode === 'vm' || mode === 'exokernel-in-vm';
  const guestPages = mode === 'vm' ? withOverhead(quota) : withOverhead(quota * tenants.length);
  const guests = mode === 'vm' ? tenants.length : 1;
  const pages = hosted
    ? withOverhead(guestPages * guests) + MEGAPAGE
    : withOverhead(quota * tenants.length);
  const machine = new PhysicalMachine({
    pages,
    images,
    medium,
    profile,
    output,
    seed,
    walkCaches,
    storm: storm === true,
  });
  if (!hosted) {
    const kernel = mode === 'bare' ? unikernel(tenants[0] ?? 1) : exokernel();
    machine.boot(kernel);
    return { machine, hypervisor: null, kernels: [kernel] };
  }
  const guest = (
    supervisor: Supervisor,
    n: number,
  ): ConstructorParameters<typeof Hypervisor>[1][0] => ({
    supervisor,
    images,
    pages: guestPages,
    firstBlock: n * blocks,
    blocks: mode === 'vm' ? blocks : diskFor(tenants.length, blocks),
    channel: tenants[n] ?? 1,
    accounts: mode === 'exokernel-in-vm',
  });
  const kernels = mode === 'vm' ? tenants.map(unikernel) : [exokernel()];
  const hypervisor = new Hypervisor({ sliceCycles, backing, secondStage }, kernels.map(guest));
  machine.boot(hypervisor);
  return { machine, hypervisor, kernels };
}
