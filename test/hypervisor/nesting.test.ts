/**
 * Hypervisors in virtual machines: what a guest's guest computes is what it computes anywhere; each
 * of its exits is counted at each level that it costs one; composed second stages allow what both
 * hypervisors do, whatever either of them swaps, shares or takes away meanwhile, and whatever
 * stands in the inner one's tables.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { isLeaf, PTE_D, PTE_U, PTE_V, PTE_W, ptePpn, vpnIndex } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { type Guest, Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { Cpu, EXITS, type HypervisorConfig, Vm, VmState } from '../../kernel/hypervisor/state.ts';
import { LONG } from '../tiers.ts';
import { program, RW, Script } from '../machine/script.ts';
import { good, patterns, PRIMES } from './guests.ts';
import { composedOf, violations } from './invariants.ts';

const TOUCH: HypervisorConfig = { sliceCycles: 300_007, backing: 'touch', secondStage: '4KiB' };

interface World {
  readonly machine: PhysicalMachine;
  readonly outer: Hypervisor;
  readonly inner: Hypervisor;
  readonly output: Map<number, string>;
  /** state of a virtual machine of the inner hypervisor */
  state(vm: number): number | null;
}

interface Options {
  readonly outer?: Partial<HypervisorConfig>;
  readonly inner?: Partial<HypervisorConfig>;
  /** of the inner hypervisor's machine */
  readonly host?: Partial<Guest>;
  readonly others?: readonly Guest[];
  /** of the hardware, beside what the outer hypervisor keeps for itself */
  readonly pages?: number;
  /** looks at the invariants at every n-th of the outer hypervisor's exits */
  readonly every?: number;
}

const HOST_BLOCKS = 600;
const SWAP = 700;

/** Machine, hypervisor, virtual machine, hypervisor, and virtual machines for `guests`. */
function world(guests: readonly Guest[], options: Options = {}): World {
  const output = new Map<number, string>();
  const inner = new Hypervisor({ ...TOUCH, ...options.inner }, guests);
  const host: Guest = {
    supervisor: inner,
    images: [],
    pages: 1200,
    firstBlock: 0,
    blocks: HOST_BLOCKS,
    channel: 0,
    accounts: true,
    nestedPages: 64,
    ...options.host,
  };
  const all = [host, ...(options.others ?? [])];
  const config = { ...TOUCH, ...options.outer };
  const boot = (pages: number): { machine: PhysicalMachine; outer: Hypervisor } => {
    const machine = new PhysicalMachine({
      pages,
      images: [],
      medium: new RamMedium(SWAP + 4000),
      output: (channel, bytes) => {
        output.set(channel, (output.get(channel) ?? '') + new TextDecoder().decode(bytes));
      },
    });
    const outer = new Hypervisor(config, all);
    machine.boot(outer);
    return { machine, outer };
  };
  const { machine, outer } = boot(boot(4096).outer.state.end + (options.pages ?? 2000));
  let exits = 0;
  machine.hart.listener = (event) => {
    if (event.what !== 'return' || event.level !== 0) return;
    if (exits++ % (options.every ?? 97) !== 0) return;
    const wrong = violations(machine, outer);
    if (wrong.length > 0) throw new Error(wrong.slice(0, 5).join('\n'));
  };
  const state = (vm: number): number | null =>
    inner.state.machine.peek(inner.state.vm.address(vm, Vm.state));
  return { machine, outer, inner, output, state };
}

const sum = (hypervisor: Hypervisor): number => {
  let all = 0;
  for (let vm = 0; vm < hypervisor.state.vm.rows; vm++) {
    for (const exit of EXITS) all += hypervisor.exits(vm)[exit];
  }
  return all;
};

describe('kernels and library OSes in a virtual machine of a virtual machine', () => {
  for (const translation of ['nested', 'shadow'] as const) {
    test(`${translation} in nested: the same output, every exit counted once at its level`, () => {
      const w = world([good(1, false, { translation }), good(2, true, { translation })]);
      w.machine.run(1e9);
      expect([w.output.get(1), w.output.get(2)]).toEqual([PRIMES, PRIMES]);
      const { counters } = w.machine.hart;
      expect(sum(w.outer)).toBe(counters.totals(null, 0).vmExits);
      expect(sum(w.inner)).toBe(counters.totals(null, 1).vmExits);
      const { compose, enter, register } = w.outer.exits(0);
      const nested = translation === 'nested';
      expect([compose > 0, enter > 0, register > 0]).toEqual([nested, nested, nested]);
      // One exit of the inner guest: told to its hypervisor, two registers read, and back.
      if (nested) expect(sum(w.outer) / sum(w.inner)).toBeGreaterThan(4);
    });
  }

  test('and one deeper', () => {
    const middle = new Hypervisor(TOUCH, [good(1)]);
    const host = { images: [], firstBlock: 0, blocks: HOST_BLOCKS, channel: 0, accounts: true };
    const w = world([{ ...host, supervisor: middle, pages: 700, nestedPages: 32 }]);
    w.machine.run(1e10);
    expect(w.output.get(1)).toBe(PRIMES);
    expect(sum(middle)).toBeGreaterThan(20);
    expect(sum(w.inner)).toBeGreaterThan(4 * sum(middle));
    expect(sum(w.outer)).toBeGreaterThan(4 * sum(w.inner));
  });

  test('handlers of the inner hypervisor are begun anew at each of their stores', () => {
    const once = (restarts: boolean): unknown[] => {
      const inner = { sliceCycles: 1e12 };
      const w = world([writer([50, 51, 52], 2)], { inner, host: { restarts }, every: 1009 });
      w.machine.run(1e9);
      expect(w.state(0)).toBe(VmState.waiting);
      const begun = w.machine.hart.counters.totals().restarts;
      if (restarts) expect(begun).toBeGreaterThan(500);
      else expect(begun).toBe(0);
      const pages = Array.from({ length: 100 * 8 }, (_, n) => n * 512);
      return pages.map((pa) => w.inner.machines[0]?.peek(pa) ?? -1);
    };
    const [plain, again] = [once(false), once(true)];
    // But for its log of times and its device page.
    const theirs = (words: unknown[]): unknown[] => words.slice(5 * 8, 99 * 8);
    expect(theirs(again)).toEqual(theirs(plain));
  });

  test('the end of the inner machine gives everything back', () => {
    const w = world([good(1)]);
    const free = (): number => w.machine.memory.get(w.outer.state.cpu.address(0, Cpu.free));
    w.machine.run(1e9);
    expect(w.output.get(1)).toBe(PRIMES);
    expect(w.outer.destroy(0)).toBe(null);
    expect(free()).toBe(w.machine.pages - w.outer.state.end);
    expect(violations(w.machine, w.outer)).toEqual([]);
  });
});

describe('memory is short, at either depth', () => {
  test('what a guest of a guest wrote comes back, and handlers are restarted', () => {
    const restarts: boolean[] = [];
    let [outs, ins] = [0, 0];
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 1000 }), { minLength: 8, maxLength: 20 }),
        fc.constantFrom('outer', 'inner', 'both'),
        fc.boolean(),
        fc.constantFrom('nested' as const, 'shadow' as const),
        (steps, short, sharing, translation) => {
          const guests = [1, 2].map((n) => ({
            ...patterns(
              n,
              20,
              3,
              steps.map((step) => step * n),
            ),
            translation,
            ...(translation === 'shadow' ? { shadowPages: 16 } : {}),
          }));
          const share = sharing ? { sharing: 12 } : {};
          const swap = (firstBlock: number): Partial<HypervisorConfig> => ({
            swap: { firstBlock, blocks: 500 },
          });
          const [outside, inside] = [short !== 'inner', short !== 'outer'];
          const shadows = translation === 'shadow' ? 2 * 44 : 0;
          const pages = inside ? 56 + (shadows * 3) / 4 : 300;
          const w = world(guests, {
            outer: { ...share, ...(outside ? swap(SWAP) : {}) },
            inner: { ...share, ...(inside ? swap(20) : {}) },
            host: { pages: pages + 20, nestedPages: 16 },
            pages: outside ? 115 + (shadows * 3) / 4 : 800,
            every: 7,
          });
          w.machine.run(4e9);
          expect([w.output.get(1), w.output.get(2)]).toEqual(['0 wrong', '0 wrong']);
          restarts.push(w.machine.hart.counters.totals().restarts > 0);
          outs += w.machine.memory.get(w.outer.state.cpu.address(0, Cpu.swapOuts));
          ins += w.inner.state.machine.peek(w.inner.state.cpu.address(0, Cpu.swapOuts)) ?? 0;
        },
      ),
      { numRuns: LONG ? 100 : 8 },
    );
    expect(restarts).toContain(true);
    expect(Math.min(outs, ins)).toBeGreaterThan(0);
  });
});

test('what the outer hypervisor takes from the inner one, its guest does not reach', () => {
  const steps = Array.from({ length: 30 }, (_, n) => n * 7);
  const w = world([patterns(1, 40, 40, steps), patterns(2, 40, 40, steps)], {
    outer: { swap: { firstBlock: SWAP, blocks: 500 }, sharing: 24, sliceCycles: 50_000 },
    host: { pages: 320, nestedPages: 16 },
    pages: 125,
    every: 1,
  });
  w.machine.run(4e9);
  expect([w.output.get(1), w.output.get(2)]).toEqual(['0 wrong', '0 wrong']);
  expect(w.machine.memory.get(w.outer.state.cpu.address(0, Cpu.swapOuts))).toBeGreaterThan(20);
});

/** A guest whose program writes pages in rounds, and whose supervisor zeroes one each time. */
function writer(pages: readonly number[], rounds: number): Guest {
  const script = new Script({
    boot: (s) => {
      s.space(1);
      pages.forEach((page, n) => s.map(1, 4 + n, RW, page));
      s.start(1);
    },
    trap: (s, { cause }) => {
      if (cause !== 8) return false;
      s.machine.zeroPage(60 + s.machine.contexts.argument(1, 0));
      s.machine.contexts.setResult(1, 0);
      return true;
    },
  });
  const body = program(function* (port) {
    for (let round = 0; round < rounds; round++) {
      for (const n of pages.keys()) {
        const va = (4 + n) * PAGE_BYTES;
        if ((n + round) % 2 === 0) yield* port.store(va, round);
        else yield* port.load(va);
        port.work(8_000) ?? (yield* port.fault());
      }
      yield* port.call(round);
    }
  });
  return { supervisor: script, images: [body], pages: 100, firstBlock: 0, blocks: 0, channel: 1 };
}

describe('composed second stages', () => {
  for (const whose of ['outer', 'inner'] as const) {
    for (const secondStage of ['4KiB', '2MiB'] as const) {
      test(`the ${whose} log of writes misses none: ${secondStage}`, () => {
        const populate = { backing: 'populate', secondStage } as const;
        const guest = writer([50, 51, 52, 53, 54, 55], 30);
        const w = world([guest], {
          outer: populate,
          inner: populate,
          host: { pages: secondStage === '2MiB' ? 1536 : 320 },
          pages: 5120,
        });
        const { machine, outer, inner } = w;
        const hypervisor = whose === 'outer' ? outer : inner;
        const pages = whose === 'inner' ? 99 : secondStage === '2MiB' ? 1535 : 319;
        const contents = (): string[] =>
          Array.from({ length: pages }, (_, page) => {
            const vm = hypervisor.machines[0];
            const at = Array.from({ length: 4 }, (_, n) => page * PAGE_BYTES + n * 1024);
            return at.map((pa) => vm?.peek(pa)).join();
          });
        const begun = (): boolean => (inner.machines[0]?.peek(52 * PAGE_BYTES) ?? 0) !== 0;
        while (!begun()) machine.run(machine.now() + 10_000);
        hypervisor.logWrites(0, true);
        let before = contents();
        let [changes, named, rounds] = [0, 0, 0];
        while (w.state(0) !== VmState.waiting && rounds < 200) {
          machine.run(machine.now() + 60_000);
          const now = contents();
          const words = hypervisor.written(0);
          const isNamed = (page: number): boolean =>
            (((words[page >>> 5] ?? 0) >>> (page & 31)) & 1) === 1;
          now.forEach((text, page) => {
            if (isNamed(page)) named++;
            if (text === before[page]) return;
            changes++;
            expect([page, isNamed(page)]).toEqual([page, true]);
          });
          rounds++;
          before = contents();
        }
        expect(w.state(0)).toBe(VmState.waiting);
        expect([changes > 10, rounds > 10]).toEqual([true, true]);
        expect(named).toBeLessThan((rounds * pages) / 3); // and it does not name everything
        expect(violations(machine, outer)).toEqual([]);
      });
    }
  }

  test('whatever stands in the inner tables: that machine only, and nothing beyond it', () => {
    fc.assert(
      fc.property(
        fc.array(
          fc.record({
            level: fc.integer({ min: 0, max: 2 }),
            index: fc.integer({ min: 0, max: 99 }),
            page: fc.oneof(fc.integer({ min: 0, max: 1300 }), fc.integer({ min: 0, max: 2 ** 22 })),
            flags: fc.constantFrom(0x01, 0xd7, 0xdf, 0x53, 0x03, 0x17, 0x3ff),
            upper: fc.boolean(),
          }),
          { minLength: 1, maxLength: 12 },
        ),
        fc.boolean(),
        (entries, fences) => {
          const w = world([writer([50, 51, 52, 53], 40)]);
          const { machine, inner, outer } = w;
          machine.run(1_000_000);
          const [host, composed] = [outer.machines[0], composedOf(outer, 0)];
          const peek = (pa: number): number => host?.peek(pa) ?? 0;
          const root = peek(inner.state.vm.address(0, Vm.root));
          for (const { level, index, page, flags, upper } of entries) {
            let table = root;
            for (let at = 2; at > level; at--) {
              const entry = peek(table * PAGE_BYTES) >>> 0;
              if ((entry & PTE_V) !== 0 && !isLeaf(entry) && ptePpn(entry) < 1200) {
                table = ptePpn(entry);
              }
            }
            const host = physical(w, table * PAGE_BYTES);
            if (host < 0) continue; // nobody has touched it
            const at = host + (level > 0 ? index % 2 : index) * 8;
            machine.memory.put(at, (page << 10) | flags);
            if (upper) machine.memory.put(at + 4, 1);
          }
          machine.hart.install(machine.regime());
          if (fences) composed?.fence(1, null);
          const came = new Set<string | undefined>();
          for (let page = 0; page < 1100; page = page < 100 ? page + 1 : page + 311) {
            came.add(composed?.fill(page * PAGE_BYTES, page % 2 === 0));
            came.add(composed?.fill(page * PAGE_BYTES, page % 3 === 0));
          }
          for (const gpa of [-4096, 2 ** 41, 2 ** 40 - 1, Number.NaN, 2 ** 53]) {
            expect(composed?.fill(gpa, true)).toBe('fault');
          }
          for (const what of came) expect(['filled', 'fault']).toContain(what);
          expect(violations(machine, outer)).toEqual([]);
        },
      ),
      { numRuns: LONG ? 300 : 25 },
    );
  });

  test('leaves are no wider than the inner table, as of its last fence', () => {
    const guests = [good(1), patterns(2, 20, 2, [5, 9, 17, 60, 71, 300, 301, 5, 7, 9])];
    const w = world(guests, {
      inner: { sharing: 100, sliceCycles: 40_000 },
      host: { pages: 400 },
      every: 1e9,
    });
    const { machine, inner, outer } = w;
    let [leaves, writable] = [0, 0];
    machine.hart.listener = (event) => {
      if (event.what !== 'exit' || event.cause !== 'compose') return;
      const composed = composedOf(outer, 0);
      const host = outer.machines[0];
      const get = (at: number): number => machine.memory.get(at);
      for (const { vmid, root, composed: at } of composed?.slots(get) ?? []) {
        for (let page = 0; page < 160; page++) {
          const leaf = walk(get, at, page);
          if (leaf === 0) continue;
          const says = walk((pa) => host?.peek(pa) ?? 0, root, page);
          leaves++;
          expect(says & (PTE_V | PTE_U)).toBe(PTE_V | PTE_U);
          if ((leaf & PTE_W) !== 0) {
            writable++;
            expect([vmid, page, says & (PTE_W | PTE_D)]).toEqual([vmid, page, PTE_W | PTE_D]);
          }
        }
      }
    };
    machine.run(1e9);
    expect(w.output.get(1)).toBe(PRIMES);
    expect(inner.state.machine.peek(inner.state.cpu.address(0, Cpu.merged))).toBeGreaterThan(0);
    expect(Math.min(leaves, writable)).toBeGreaterThan(100);
  });
});

/** Leaf of 4 KiB for a page; 0 if there is none. */
function walk(get: (pa: number) => number, root: number, page: number): number {
  let table = root;
  for (let level = 2; level >= 0; level--) {
    const entry = get(table * PAGE_BYTES + vpnIndex(page, level) * 8) >>> 0;
    if ((entry & PTE_V) === 0) return 0;
    if (isLeaf(entry)) return entry;
    table = ptePpn(entry);
  }
  return 0;
}

/** Host address of one of the inner hypervisor's machine, by plain reads. */
function physical({ machine, outer }: World, pa: number): number {
  const { memory } = machine;
  const root = memory.get(outer.state.vm.address(0, Vm.root));
  const entry = walk((at) => memory.get(at), root, pa >>> 12);
  if ((entry & PTE_V) === 0) return -1;
  return ptePpn(entry) * PAGE_BYTES + (pa % PAGE_BYTES);
}

describe('what cannot be is refused', () => {
  const guest = good(1);
  const inVm = (host: Partial<Guest>, inner: Partial<Guest> = {}): unknown => {
    const w = world([good(2, false, { translation: 'shadow' })], {
      inner: { rows: 2 },
      host: { nestedPages: 0, ...host },
    });
    w.machine.run(1e8);
    return w.inner.create({ ...guest, ...inner });
  };
  test('a nested guest in a machine that has no guest mode', () => {
    const refused = 'this machine has one stage: give it nestedPages, or its guests shadow tables';
    expect(inVm({})).toEqual({ refused });
    expect(inVm({}, { translation: 'shadow' })).toBe(1);
    expect(inVm({ nestedPages: 16 })).toBe(1);
  });
  test('any guest in a machine under shadow tables', () => {
    const inner = new Hypervisor({ ...TOUCH, rows: 1 }, []);
    const w = world([], {
      host: { supervisor: inner, translation: 'shadow', nestedPages: 0 },
      inner: { rows: 1 },
    });
    w.machine.run(1e8);
    const refused =
      'a machine under shadow tables runs no machines: translate its own in two stages';
    expect(inner.create({ ...guest, translation: 'shadow' })).toEqual({ refused });
    expect(inner.create(guest)).toEqual({ refused });
  });
  test.each([
    [{ nestedPages: 15 }, '15 nested pages: give 16 to 512, or none'],
    [{ nestedPages: 513 }, '513 nested pages: give 16 to 512, or none'],
    [{ nestedPages: 16.5 }, '16.5 nested pages: give 16 to 512, or none'],
    [
      { nestedPages: 16, translation: 'shadow' },
      'under shadow tables there is no guest mode: no nested pages',
    ],
  ] as const)('%o', (more, refused) => {
    const hypervisor = new Hypervisor({ ...TOUCH, rows: 1 }, []);
    const machine = new PhysicalMachine({ pages: 1024, images: [], medium: new RamMedium(64) });
    machine.boot(hypervisor);
    expect(hypervisor.create({ ...guest, ...more })).toEqual({ refused });
    expect(machine.memory.get(hypervisor.state.cpu.address(0, Cpu.free))).toBe(
      machine.pages - hypervisor.state.end,
    );
  });
});
