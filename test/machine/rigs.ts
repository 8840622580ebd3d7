/**
 * Machines to hold the contract against: the hardware in its test modes, and virtual machines of
 * every kind of second stage. A virtual one has a busy neighbour and slices of a prime length, so
 * that outer events fall anywhere.
 */
import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine, type Stop } from '../../machine/physical.ts';
import { isLeaf, PTE_V, ptePpn, vpnIndex } from '../../machine/sv39.ts';
import { NEVER, PAGE_BYTES, type Tick } from '../../machine/units.ts';
import type { Image } from '../../machine/user-port.ts';
import type { Supervisor } from '../../kernel/supervisor.ts';
import { Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import type { DiskModel, HypervisorConfig } from '../../kernel/hypervisor/state.ts';
import type { Guest, Translation } from '../../kernel/hypervisor/life.ts';
import { program, Script } from './script.ts';

export const GUEST_PAGES = 512; // the disk ring's page is the last of them
export const BLOCKS = 32;

export interface Setup {
  readonly supervisor: Supervisor;
  readonly images: readonly Image[];
  readonly seed?: number;
}

export interface Rig {
  readonly physical: PhysicalMachine;
  readonly run: (deadline?: Tick) => Stop;
  /** A word of the machine's memory, by its own address. */
  readonly peek: (pa: number) => number;
  /** What the machine wrote to its console, as bytes. */
  readonly output: () => number[];
  /** Depth of the supervisor under test. */
  readonly level: number;
}

export interface Maker {
  readonly name: string;
  /** spurious timer traps before each access */
  readonly storm: boolean;
  /** handlers are rolled back and told again */
  readonly restarts: boolean;
  readonly virtual: boolean;
  /** its supervisor may not do everything to its tables: page-types.ts */
  readonly paravirtual?: boolean;
  readonly make: (setup: Setup) => Rig;
}

export function physicalMaker(
  name: string,
  modes: { readonly storm?: boolean; readonly restarts?: boolean; readonly hashed?: boolean },
): Maker {
  return {
    name,
    storm: modes.storm === true,
    restarts: modes.restarts === true,
    virtual: false,
    make: ({ supervisor, images, seed }) => {
      const bytes: number[] = [];
      const physical = new PhysicalMachine({
        pages: GUEST_PAGES,
        images,
        seed: seed ?? 1,
        medium: new RamMedium(BLOCKS),
        output: (_channel, sent) => bytes.push(...sent),
        ...modes,
      });
      physical.boot(supervisor);
      return {
        physical,
        run: (deadline = NEVER) => physical.run(deadline),
        peek: (pa) => physical.memory.get(pa),
        output: () => bytes,
        level: 0,
      };
    },
  };
}

const CHANNEL = 5;

/** A guest that computes and touches memory for about `cycles`, then waits for ever. */
export function busyGuest(cycles: number): { supervisor: Script; images: Image[] } {
  const spin = program(function* (port) {
    for (let n = 0; n < cycles / 100; n++) {
      yield* port.store(0, (yield* port.load(0)) + 1);
      port.work(90) ?? (yield* port.fault());
    }
  });
  const supervisor = new Script({
    boot: (s) => {
      s.space(1);
      s.map(1, 0);
      s.start(1);
    },
  });
  return { supervisor, images: [spin] };
}

/** The hardware below virtual machines, and what channel CHANNEL of it wrote. */
function hostOf(pages: number, seed: number | undefined, storm: boolean) {
  const bytes: number[] = [];
  const physical = new PhysicalMachine({
    pages,
    images: [],
    seed: seed ?? 1,
    medium: new RamMedium(BLOCKS + 16),
    output: (channel, sent) => {
      if (channel === CHANNEL) bytes.push(...sent);
    },
    storm,
  });
  return { physical, output: () => bytes };
}

export function virtualMaker(
  name: string,
  hypervisor: Pick<HypervisorConfig, 'backing' | 'secondStage'>,
  modes: {
    readonly storm?: boolean;
    readonly company?: boolean;
    readonly restarts?: boolean;
    readonly translation?: Translation;
    readonly shadowPages?: number;
    readonly disk?: DiskModel;
  } = {},
): Maker {
  return {
    name,
    storm: modes.storm === true,
    restarts: modes.restarts === true,
    virtual: true,
    paravirtual: modes.translation === 'paravirt',
    make: ({ supervisor, images, seed }) => {
      const { physical, output } = hostOf(4 * GUEST_PAGES, seed, modes.storm === true);
      const { translation = 'nested', shadowPages = 48, disk = 'emulated' } = modes;
      const guest = {
        supervisor,
        images,
        pages: GUEST_PAGES,
        firstBlock: 7,
        blocks: BLOCKS,
        channel: CHANNEL,
        restarts: modes.restarts === true,
        translation,
        shadowPages,
        disk,
      };
      const neighbour = {
        ...busyGuest(60_000),
        pages: 64,
        firstBlock: 0,
        blocks: 7,
        channel: 6,
        translation,
      };
      const guests = modes.company === true ? [neighbour, guest] : [guest];
      const config = { sliceCycles: modes.company === true ? 1_999 : 1_000_003, ...hypervisor };
      const root = new Hypervisor(config, guests);
      physical.boot(root);
      const memory = physical.memory;
      const secondStage = root.state.vm.address(guests.indexOf(guest), 1);
      return {
        physical,
        run: (deadline = NEVER) => physical.run(deadline),
        peek: (pa) => {
          const host = hostPage((at) => memory.get(at), memory.get(secondStage), pa >>> 12);
          return host < 0 ? 0 : memory.get(host * PAGE_BYTES + (pa % PAGE_BYTES));
        },
        output,
        level: 1,
      };
    },
  };
}

/** One of the two hypervisors of a rig of depth 2. */
type Level = Pick<HypervisorConfig, 'backing' | 'secondStage'> & {
  readonly company?: boolean;
  readonly restarts?: boolean;
};

/** A machine in a machine: the rig's hypervisor runs in a nested guest of another. */
export function nestedMaker(
  name: string,
  outer: Level,
  inner: Level & { readonly translation?: Translation },
  modes: { readonly storm?: boolean; readonly nestedPages?: number } = {},
): Maker {
  return {
    name,
    storm: modes.storm === true,
    restarts: inner.restarts === true || outer.restarts === true,
    virtual: true,
    make: ({ supervisor, images, seed }) => {
      const { physical, output } = hostOf(10 * GUEST_PAGES, seed, modes.storm === true);
      const { translation = 'nested' } = inner;
      const guest = {
        supervisor,
        images,
        pages: GUEST_PAGES,
        firstBlock: 3,
        blocks: BLOCKS,
        channel: CHANNEL,
        restarts: inner.restarts === true,
        translation,
      };
      const busy = (level: Level, translation: Translation): Guest[] => {
        const at = { pages: 64, firstBlock: 0, blocks: 3, channel: 6, translation };
        return level.company === true ? [{ ...busyGuest(60_000), ...at }] : [];
      };
      const config = (level: Level, slice: number): HypervisorConfig => ({
        sliceCycles: level.company === true ? slice : 1e12,
        backing: level.backing,
        secondStage: level.secondStage,
      });
      const innerGuests = [...busy(inner, translation), guest];
      const hypervisor = new Hypervisor(config(inner, 79_999), innerGuests);
      const { nestedPages = 64 } = modes;
      const outerGuests = [
        ...busy(outer, 'nested'),
        {
          supervisor: hypervisor,
          images: [],
          pages: 6 * GUEST_PAGES,
          firstBlock: 4,
          blocks: BLOCKS + 4,
          channel: CHANNEL,
          restarts: outer.restarts === true,
          nestedPages,
        },
      ];
      const root = new Hypervisor(config(outer, 5_003), outerGuests);
      physical.boot(root);
      const peek = (pa: number): number => {
        const machine = hypervisor.machines[innerGuests.indexOf(guest)];
        return machine?.peek(pa) ?? 0;
      };
      return {
        physical,
        run: (deadline = NEVER) => physical.run(deadline),
        peek,
        output,
        level: 2,
      };
    },
  };
}

/** The tester's own walk of a second stage, by plain reads. -1: not backed. */
export function hostPage(get: (pa: number) => number, root: number, page: number): number {
  let table = root;
  for (let level = 2; level >= 0; level--) {
    const entry = get(table * PAGE_BYTES + vpnIndex(page, level) * 8) >>> 0;
    if ((entry & PTE_V) === 0) return -1;
    if (isLeaf(entry)) return ptePpn(entry) + (page % (1 << (9 * level)));
    table = ptePpn(entry);
  }
  return -1;
}

const NESTED = { backing: 'populate', secondStage: '4KiB' } as const;
const TOUCH = { backing: 'touch', secondStage: '4KiB' } as const;
const HUGE = { backing: 'populate', secondStage: '2MiB' } as const;

export const MAKERS: readonly Maker[] = [
  physicalMaker('physical', {}),
  physicalMaker('physical, storm', { storm: true }),
  physicalMaker('physical, restarts', { restarts: true }),
  physicalMaker('physical, restarts in a storm, hashed', {
    restarts: true,
    storm: true,
    hashed: true,
  }),
  virtualMaker('virtual, 4 KiB populated', NESTED),
  virtualMaker('virtual, 4 KiB on touch', { backing: 'touch', secondStage: '4KiB' }),
  virtualMaker('virtual, 2 MiB populated', { backing: 'populate', secondStage: '2MiB' }),
  virtualMaker('virtual, storm', NESTED, { storm: true }),
  virtualMaker('virtual, restarts', NESTED, { restarts: true }),
  virtualMaker('virtual, beside a neighbour', NESTED, { company: true }),
  virtualMaker('virtual, beside a neighbour in a storm', NESTED, { company: true, storm: true }),
  virtualMaker('shadow', NESTED, { translation: 'shadow' }),
  virtualMaker('shadow, the smallest pool', NESTED, { translation: 'shadow', shadowPages: 16 }),
  virtualMaker('shadow, storm', NESTED, { translation: 'shadow', storm: true }),
  virtualMaker(
    'shadow, 4 KiB on touch beside a neighbour',
    { backing: 'touch', secondStage: '4KiB' },
    { translation: 'shadow', company: true },
  ),
  virtualMaker('virtual, split disk, restarts', NESTED, { disk: 'split', restarts: true }),
  virtualMaker('virtual, split disk, beside a neighbour in a storm', NESTED, {
    disk: 'split',
    company: true,
    storm: true,
  }),
  virtualMaker('shadow, split disk', NESTED, { disk: 'split', translation: 'shadow' }),
  virtualMaker('paravirtual', NESTED, { translation: 'paravirt' }),
  virtualMaker('paravirtual, restarts', NESTED, { translation: 'paravirt', restarts: true }),
  virtualMaker(
    'paravirtual, 4 KiB on touch beside a neighbour',
    { backing: 'touch', secondStage: '4KiB' },
    { translation: 'paravirt', company: true },
  ),
  virtualMaker('virtual, disk passed through, restarts', NESTED, {
    disk: 'passthrough',
    restarts: true,
  }),
  virtualMaker('virtual, disk passed through, beside a neighbour in a storm', NESTED, {
    disk: 'passthrough',
    company: true,
    storm: true,
  }),
  virtualMaker('shadow, disk passed through', NESTED, {
    disk: 'passthrough',
    translation: 'shadow',
  }),
  nestedMaker('nested in nested, on touch, the smallest pool', TOUCH, TOUCH, { nestedPages: 16 }),
  nestedMaker(
    'nested in nested, neighbours',
    { ...TOUCH, company: true },
    { ...NESTED, company: true },
  ),
  nestedMaker('nested in nested, the inner one restarts', TOUCH, { ...TOUCH, restarts: true }),
  nestedMaker(
    'shadow in nested, neighbours',
    { ...TOUCH, company: true },
    { ...TOUCH, company: true, translation: 'shadow' },
  ),
];

/** Beside them, for who has the time. */
export const LONG_MAKERS: readonly Maker[] = [
  nestedMaker('nested in nested', NESTED, NESTED),
  nestedMaker('nested in nested, 2 MiB, storm', HUGE, HUGE, { storm: true }),
  nestedMaker('nested in nested, the outer one restarts', { ...TOUCH, restarts: true }, TOUCH),
  nestedMaker('shadow in nested', TOUCH, { ...NESTED, translation: 'shadow' }),
];
