/**
 * The modes of every comparison: the same library OS and the same programs, on the same hardware
 * with the same memory for each tenant, under different supervisors. This file is where they differ
 * and the only one.
 */
import type { CostProfile } from '../machine/costs.ts';
import type { Image } from '../machine/user-port.ts';
import type { Medium } from '../machine/disk.ts';
import { GIGAPAGE_PAGES } from '../machine/sv39.ts';
import { PhysicalMachine } from '../machine/physical.ts';
import { Exokernel } from '../kernel/exokernel/exokernel.ts';
import { TABLE_BLOCKS } from '../kernel/exokernel/extents.ts';
import { composedCost } from '../kernel/hypervisor/composed.ts';
import { Hypervisor, shadowPool } from '../kernel/hypervisor/hypervisor.ts';
import type { Translation } from '../kernel/hypervisor/life.ts';
import { paravirtCost } from '../kernel/hypervisor/paravirt-pages.ts';
import { shadowCost } from '../kernel/hypervisor/shadow-tables.ts';
import type { DiskModel, HypervisorConfig } from '../kernel/hypervisor/state.ts';
import type { Supervisor, Tenant } from '../kernel/supervisor.ts';
import { Unikernel } from '../kernel/unikernel/unikernel.ts';

/** The modes that are compared unless others are asked for. */
export const MODES = ['bare', 'exokernel', 'vm', 'exokernel-in-vm'] as const;
/** All of them: the rest are the ways in which a virtual machine's memory can be translated. */
export const ALL_MODES = [
  ...MODES,
  'vm-nested',
  'vm-shadow',
  'vm-paravirt',
  'exokernel-in-shadow',
  'exokernel-in-paravirt',
  'vm-in-vm',
  'shadow-in-vm',
] as const;
export type Mode = (typeof ALL_MODES)[number];

/** What each mode is, in the words of the report. */
export const MODE_TITLES: Readonly<Record<Mode, string>> = {
  bare: 'unikernel on the machine, one tenant at a time: nothing is protected, the limit',
  exokernel: 'exokernel on the machine, tenants side by side',
  vm: 'unikernel in a virtual machine each, nested paging, tenants side by side',
  'exokernel-in-vm': 'exokernel in one virtual machine: the price of the layer',
  'vm-nested': 'the same as vm',
  'vm-shadow': 'unikernel in a virtual machine each, trap and emulate with shadow tables',
  'vm-paravirt': 'unikernel in a virtual machine each, hypercalls and direct paging',
  'exokernel-in-shadow': 'exokernel in one virtual machine with shadow tables',
  'exokernel-in-paravirt': 'exokernel in one paravirtual machine',
  'vm-in-vm': 'the same as vm, and their hypervisor in a virtual machine of another',
  'shadow-in-vm': 'the same as vm-shadow, and their hypervisor in a nested guest of another',
};

/** Of modes with a hypervisor: what runs in its guests, and how their memory is translated. */
interface Hosted {
  readonly exokernel: boolean;
  readonly translation: Translation;
  /** whether the hypervisor of these guests is a guest itself */
  readonly within?: boolean;
}
const HOSTED: Readonly<Partial<Record<Mode, Hosted>>> = {
  vm: { exokernel: false, translation: 'nested' },
  'vm-nested': { exokernel: false, translation: 'nested' },
  'vm-shadow': { exokernel: false, translation: 'shadow' },
  'vm-paravirt': { exokernel: false, translation: 'paravirt' },
  'exokernel-in-vm': { exokernel: true, translation: 'nested' },
  'exokernel-in-shadow': { exokernel: true, translation: 'shadow' },
  'exokernel-in-paravirt': { exokernel: true, translation: 'paravirt' },
  'vm-in-vm': { exokernel: false, translation: 'nested', within: true },
  'shadow-in-vm': { exokernel: false, translation: 'shadow', within: true },
};

export interface Parameters {
  /** pages that each tenant may use */
  readonly quota: number;
  /** blocks of each tenant's disk */
  readonly blocks: number;
  /** of them, at its end: for pages of a Unix that its memory has no room for; default 0 */
  readonly swap?: number;
  readonly sliceCycles: number;
  readonly backing: HypervisorConfig['backing'];
  readonly secondStage: HypervisorConfig['secondStage'];
  readonly walkCaches: boolean;
  /** by which model a virtual machine has its disk */
  readonly disk: DiskModel;
  readonly seed: number;
}

export const ENVIRONMENTS = 160; // rows of a kernel's table: two tenants of 64 processes, and spare
const SLICES = 16;
const EXTENTS = 16;
const MEGAPAGE = 512; // pages
const NESTED_PAGES = 256; // of composed tables, where the hypervisor is a guest itself

export interface Built {
  readonly machine: PhysicalMachine;
  /** the hypervisor, where there is one; that of the tenants' kernels */
  readonly hypervisor: Hypervisor | null;
  /** all of them, the outermost first: for their exits by cause */
  readonly hypervisors: readonly Hypervisor[];
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
  readonly parameters: Omit<Parameters, 'disk'> & Partial<Pick<Parameters, 'disk'>>;
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

/** Pages of a machine for so many guests of so many pages each. */
function hostPages(guests: number, guestPages: number, translation: Translation): number {
  let tables = 0;
  if (translation === 'shadow') tables = shadowCost(shadowPool(guestPages), guestPages) + MEGAPAGE;
  if (translation === 'paravirt')
    tables = paravirtCost(guestPages, 2 * guests * guestPages) + MEGAPAGE;
  return withOverhead((guestPages + tables) * guests) + MEGAPAGE;
}

/** The same, if each begins with a page of 1 GiB: the hypervisor lives in the first. */
const hostGigapages = (guests: number, guestPages: number): number =>
  (1 + guests * Math.ceil(guestPages / GIGAPAGE_PAGES)) * GIGAPAGE_PAGES;

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

  const hosted = HOSTED[mode];
  const side = hosted?.exokernel === false;
  const guestPages = side ? withOverhead(quota) : withOverhead(quota * tenants.length);
  const guests = side ? tenants.length : 1;
  const hosting =
    hosted === undefined
      ? withOverhead(quota * tenants.length)
      : secondStage === '1GiB'
        ? hostGigapages(guests, guestPages)
        : hostPages(guests, guestPages, hosted.translation);
  const within = hosted?.within === true;
  const pages = !within
    ? hosting
    : secondStage === '1GiB'
      ? hostGigapages(1, hosting)
      : hostPages(1, hosting + composedCost(NESTED_PAGES, hosting), 'nested');
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
  if (hosted === undefined) {
    const kernel = mode === 'bare' ? unikernel(tenants[0] ?? 1) : exokernel();
    machine.boot(kernel);
    return { machine, hypervisor: null, hypervisors: [], kernels: [kernel] };
  }
  const guest = (
    supervisor: Supervisor,
    n: number,
  ): ConstructorParameters<typeof Hypervisor>[1][0] => ({
    supervisor,
    images,
    pages: guestPages,
    firstBlock: n * blocks,
    blocks: side ? blocks : diskFor(tenants.length, blocks),
    channel: tenants[n] ?? 1,
    accounts: hosted.exokernel,
    translation: hosted.translation,
    disk: parameters.disk ?? 'emulated',
  });
  const kernels = side ? tenants.map(unikernel) : [exokernel()];
  const config = { sliceCycles, backing, secondStage };
  const hypervisor = new Hypervisor(config, kernels.map(guest));
  if (!within) {
    machine.boot(hypervisor);
    return { machine, hypervisor, hypervisors: [hypervisor], kernels };
  }
  const outer = new Hypervisor(config, [
    {
      supervisor: hypervisor,
      images: [],
      pages: hosting,
      firstBlock: 0,
      blocks: diskFor(tenants.length, blocks),
      channel: tenants[0] ?? 1,
      accounts: true,
      nestedPages: hosted.translation === 'nested' ? NESTED_PAGES : 0,
    },
  ]);
  machine.boot(outer);
  return { machine, hypervisor, hypervisors: [outer, hypervisor], kernels };
}
