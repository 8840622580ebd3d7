/**
 * Shadow tables are a cache of what guest and host allow together: at each way out of the
 * hypervisor every leaf that hardware could use is allowed by the guest's own tables and by the
 * second stage, and no table that is in sync can be written (HYP-02, HYP-03, HYP-17). What a guest
 * does to its tables, sensible or not, it sees as it would on hardware; or it is stopped, alone.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { USER_LAYER } from '../../machine/counters.ts';
import {
  DIRECT_VPN,
  GIGAPAGE_PAGES,
  isLeaf,
  pte,
  PTE_D,
  PTE_R,
  PTE_U,
  PTE_V,
  PTE_W,
  ptePpn,
  vpnIndex,
} from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { Cause } from '../../kernel/supervisor.ts';
import { type Guest, Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { ShadowPaging } from '../../kernel/hypervisor/shadow.ts';
import { type HypervisorConfig, Vm, VmState } from '../../kernel/hypervisor/state.ts';
import { hostPage } from '../machine/rigs.ts';
import { LONG } from '../tiers.ts';
import { program, RO, RW, Script } from '../machine/script.ts';
import { type Host, host } from './host.ts';

const CONFIG: HypervisorConfig = { sliceCycles: 1e9, backing: 'populate', secondStage: '4KiB' };
const PAGES = 128;

const world = (
  guests: readonly Guest[],
  config = CONFIG,
  hardware: Parameters<typeof host>[2] = {},
): Host => host(guests, config, hardware);

const guest = (
  supervisor: Script,
  body: Guest['images'][number],
  more: Partial<Guest> = {},
): Guest => ({
  supervisor,
  images: [body],
  pages: PAGES,
  firstBlock: 0,
  blocks: 4,
  channel: 1,
  translation: 'shadow',
  shadowPages: 24,
  ...more,
});

/** The guest's own walk, by plain reads of its memory: the leaf for 4 KiB, or 0. */
function guestLeaf(peek: (gpa: number) => number, root: number, vpn: number): number {
  if (root < 0) return pte(vpn >= DIRECT_VPN ? vpn - DIRECT_VPN : vpn, RW);
  let table = root;
  for (let level = 2; level >= 0; level--) {
    if (table >= PAGES) return 0;
    const entry = peek(table * PAGE_BYTES + vpnIndex(vpn, level) * 8) >>> 0;
    if ((entry & PTE_V) === 0) return 0;
    if (isLeaf(entry)) return pte(ptePpn(entry) + (vpn % (1 << (9 * level))), entry & 0x3ff);
    table = ptePpn(entry);
  }
  return 0;
}

/** Violations of what shadow tables owe, in words. */
function violations({ machine, hypervisor }: Host, vm: number): string[] {
  const paging = hypervisor.machines[vm]?.paging;
  if (!(paging instanceof ShadowPaging)) return [];
  const get = (at: number): number => machine.memory.get(at);
  const secondStage = get(hypervisor.state.vm.address(vm, Vm.root));
  const hostOf = (page: number): number => (page < PAGES ? hostPage(get, secondStage, page) : -1);
  const peek = (gpa: number): number => {
    const host = hostOf(gpa >>> 12);
    return host < 0 ? 0 : get(host * PAGE_BYTES + (gpa % PAGE_BYTES));
  };
  const wrong: string[] = [];
  const { tables } = paging;
  const guarded = new Set([...tables.guarded(get)].map(hostOf));
  for (const { root, kernel, user } of tables.spaces(get)) {
    for (const [top, half] of [
      [kernel, 'both'],
      [user, 'user'],
    ] as const) {
      const down = (table: number, level: number, base: number): void => {
        for (let index = 0; index < 512; index++) {
          const entry = get(table * PAGE_BYTES + index * 8) >>> 0;
          if (entry === 0) continue;
          const vpn = base + index * (1 << (9 * level));
          if (level > 0) {
            down(ptePpn(entry), level - 1, vpn);
            continue;
          }
          const at = `${vpn.toString(16)} in the ${half} root of ${root}`;
          if (half === 'user' && vpn >= DIRECT_VPN) wrong.push(`supervisor memory: ${at}`);
          if ((entry & PTE_W) !== 0 && guarded.has(ptePpn(entry))) wrong.push(`a table: ${at}`);
          if (tables.isLoose(get, table)) continue; // until its guest fences
          const leaf = guestLeaf(peek, root, vpn);
          const needs = entry & (PTE_V | PTE_R | PTE_W | PTE_D);
          if ((leaf & needs) !== needs) wrong.push(`more than the guest allows: ${at}`);
          if (root >= 0 && ((leaf & PTE_U) !== 0) !== vpn < DIRECT_VPN) wrong.push(`U: ${at}`);
          if (hostOf(ptePpn(leaf)) !== ptePpn(entry)) wrong.push(`another page: ${at}`);
        }
      };
      if (top >= 0) down(top, 2, 0);
    }
  }
  return wrong;
}

/** Runs, looking at the tables whenever the hypervisor gives the hart back. */
function watched(w: Host, vms: readonly number[]): string[] {
  const wrong: string[] = [];
  w.machine.hart.listener = (event) => {
    if (event.what !== 'exit' && !(event.what === 'return' && event.level === 0)) return;
    for (const vm of vms) wrong.push(...violations(w, vm));
  };
  w.machine.run(1e9);
  return wrong;
}

// ---- what a guest may do to its tables ------------------------------------------------------------

type Step =
  | {
      readonly do: 'map' | 'bare-map';
      readonly vpn: number;
      readonly page: number;
      readonly ro: boolean;
      readonly user: boolean;
    }
  | { readonly do: 'unmap' | 'table'; readonly vpn: number; readonly page: number }
  | { readonly do: 'load' | 'store'; readonly vpn: number }
  | { readonly do: 'fence' | 'switch' };

const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constantFrom('map' as const, 'bare-map' as const),
    vpn: fc.integer({ min: 4, max: 5 }),
    page: fc.integer({ min: 40, max: 41 }),
    ro: fc.boolean(),
    user: fc.boolean(),
  }),
  fc.record({
    do: fc.constantFrom('unmap' as const, 'table' as const),
    vpn: fc.integer({ min: 4, max: 5 }),
    page: fc.integer({ min: 40, max: 41 }),
  }),
  fc.record({
    do: fc.constantFrom('load' as const, 'store' as const),
    vpn: fc.integer({ min: 4, max: 5 }),
  }),
  fc.record({ do: fc.constantFrom('fence' as const, 'switch' as const) }),
);

/** A supervisor that does step n when its program makes call n, and notes what it finds. */
function stepper(steps: readonly Step[]): Script {
  return new Script({
    boot: (s) => {
      s.space(1);
      s.space(2);
      s.start(1);
    },
    trap: (s, { cause }) => {
      if (cause !== Cause.environmentCall) return false;
      const { machine: m } = s;
      const now = steps[m.contexts.argument(1, 0)];
      const { leaf, middle, root } = s.spaceOf(1);
      if (now?.do === 'map') s.map(1, now.vpn, now.ro ? RO : RW, now.page);
      else if (now?.do === 'bare-map') {
        // Fenced as all must be, but by the whole space, and A and D are hardware's to set.
        const flags = PTE_V | PTE_R | (now.user ? PTE_U : 0) | (now.ro ? 0 : PTE_W);
        m.writePtes([{ table: leaf, index: now.vpn, value: pte(now.page, flags) }]);
        m.fence(1);
      } else if (now?.do === 'unmap') s.unmap(1, now.vpn);
      else if (now?.do === 'table') {
        // The leaf table moves to another page, which had been data, and back.
        m.copyPage(now.page, leaf);
        m.writePtes([{ table: middle, index: 0, value: pte(now.page, PTE_V) }]);
        m.fence(1);
        m.loadUser(now.vpn * PAGE_BYTES);
        m.store(now.page * PAGE_BYTES + 8 * now.vpn, 0);
        m.fence();
        s.note(m.loadUser(now.vpn * PAGE_BYTES) ?? -1);
        m.writePtes([{ table: middle, index: 0, value: pte(leaf, PTE_V) }]);
        m.fence();
        m.zeroPage(now.page);
      } else if (now?.do === 'load') s.note(m.loadUser(now.vpn * PAGE_BYTES) ?? -1);
      else if (now?.do === 'store') s.note(+m.storeUser(now.vpn * PAGE_BYTES + 4, now.vpn));
      else if (now?.do === 'fence') m.fence();
      else if (now?.do === 'switch') {
        m.setAddressSpace({ root: s.spaceOf(2).root, asid: 2 });
        s.note(m.loadUser(0x4000) ?? -1);
        m.setAddressSpace({ root, asid: 1 });
      }
      s.note(...m.readPtes(leaf, 4, 6).map((entry) => entry | 0));
      m.contexts.setResult(1, 0);
      return true;
    },
  });
}

/** Touches everything between the calls; a fault ends it. */
const toucher = (steps: number): Guest['images'][number] =>
  program(function* (port) {
    for (let n = 0; n < steps; n++) {
      yield* port.call(n);
      if (n % 3 === 2) yield* port.load((4 + (n % 2)) * PAGE_BYTES);
    }
  });

describe('shadow tables', () => {
  test('allow what guest and host allow, whatever the guest does to its tables', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 4, maxLength: 16 }), (steps) => {
        const seen = (translation: 'shadow' | 'nested'): number[] => {
          const w = world([guest(stepper(steps), toucher(steps.length), { translation })]);
          expect(watched(w, [0])).toEqual([]);
          const { state } = w.hypervisor;
          const get = (at: number): number => w.machine.memory.get(at);
          const root = get(state.vm.address(0, Vm.root));
          const peek = (gpa: number): number =>
            get(hostPage(get, root, gpa >>> 12) * PAGE_BYTES + (gpa % PAGE_BYTES));
          const causes = Script.log(peek).flatMap(({ cause, tval }) => [cause, tval]);
          return [w.state(0), ...Script.notes(peek), ...causes];
        };
        expect(seen('shadow')).toEqual(seen('nested'));
      }),
      { numRuns: 40 },
    );
  });

  // Each kind of fence after each kind of change: a table of the last level goes out of sync at the
  // first store to it, one above it stays guarded, and what hung on the entry is not used again.
  const fences: [string, (s: Script) => void][] = [
    ['a page', (s) => s.machine.fence(1, 4)],
    ['a page of all spaces', (s) => s.machine.fence(undefined, 4)],
    ['a space', (s) => s.machine.fence(1)],
    ['everything', (s) => s.machine.fence()],
  ];
  const changes: [string, (s: Script, n: number) => void][] = [
    [
      'the last level',
      (s, n) => {
        const value = pte(40 + (n % 2), RW);
        s.machine.writePtes([{ table: s.spaceOf(1).leaf, index: 4, value }]);
      },
    ],
    [
      'the level above it',
      (s, n) => {
        const table = n % 2 === 0 ? s.spaceOf(1).leaf : 42;
        s.machine.writePtes([{ table: s.spaceOf(1).middle, index: 0, value: pte(table, PTE_V) }]);
      },
    ],
    [
      'the root',
      (s, n) => {
        const table = n % 2 === 0 ? s.spaceOf(1).middle : 43;
        s.machine.writePtes([{ table: s.spaceOf(1).root, index: 0, value: pte(table, PTE_V) }]);
      },
    ],
  ];
  for (const [what, change] of changes) {
    test.each(fences)(`a change of ${what} holds as of the next fence of %s`, (_name, fence) => {
      const script = new Script({
        boot: (s) => {
          s.space(1);
          s.map(1, 4, RW, 40);
          // Another page, another table of the last level, another above it: all lead to page 41.
          for (const page of [40, 41]) s.machine.store(page * PAGE_BYTES, page);
          s.machine.writePtes([
            { table: 42, index: 4, value: pte(41, RW) },
            { table: 43, index: 0, value: pte(42, PTE_V) },
          ]);
          s.start(1);
        },
        trap: (s, { cause }) => {
          if (cause !== Cause.environmentCall) return false;
          const n = s.machine.contexts.argument(1, 0);
          s.note(s.machine.loadUser(0x4000) ?? -1);
          change(s, n + 1);
          fence(s);
          s.note(s.machine.loadUser(0x4000) ?? -1);
          s.machine.contexts.setResult(1, 0);
          return true;
        },
      });
      const seen: number[] = [];
      const body = program(function* (port) {
        for (let n = 0; n < 6; n++) {
          seen.push(yield* port.load(0x4000));
          yield* port.call(n);
        }
      });
      const w = world([guest(script, body)]);
      expect(watched(w, [0])).toEqual([]);
      const notes = Script.notes((pa) => w.hypervisor.machines[0]?.peek(pa) ?? 0);
      expect(seen).toEqual([40, 41, 40, 41, 40, 41]);
      expect(notes).toEqual([40, 41, 41, 40, 40, 41, 41, 40, 40, 41, 41, 40]);
    });
  }

  test('a guest without sense is stopped or lives, and its neighbour sees nothing', () => {
    const entry = fc.record({
      table: fc.integer({ min: 0, max: PAGES + 3 }),
      index: fc.constantFrom(0, 1, 4, 255, 256, 257, 511),
      value: fc.oneof(
        fc.integer({ min: 0, max: 2 ** 31 - 1 }),
        fc
          .tuple(fc.integer({ min: 0, max: PAGES }), fc.integer({ min: 0, max: 255 }))
          .map(([page, flags]) => pte(page, flags)),
      ),
    });
    fc.assert(
      fc.property(
        fc.array(entry, { minLength: 1, maxLength: 12 }),
        fc.boolean(),
        (entries, root) => {
          const mad = new Script({
            trap: (s, { cause }) => {
              if (cause !== Cause.environmentCall) return false;
              const { machine: m } = s;
              const own = s.spaceOf(1);
              // Its own tables among the targets, and itself among the entries: self-mapping too.
              for (const { table, index, value } of entries) {
                const target =
                  table < 4 ? ([own.root, own.middle, own.leaf, 30][table] ?? 0) : table;
                m.writePtes([{ table: target, index, value }]);
                if (root) m.setAddressSpace({ root: target, asid: 1 });
                m.loadUser(0x4000);
                m.storeUser(0x4000, 1);
              }
              m.fence();
              m.contexts.setResult(1, 0);
              return true;
            },
          });
          const sane = guest(
            stepper([{ do: 'map', vpn: 4, page: 40, ro: false, user: true }]),
            toucher(1),
          );
          const w = world([
            guest(mad, toucher(6), { channel: 2 }),
            { ...sane, firstBlock: 8, channel: 3 },
          ]);
          expect(watched(w, [1])).toEqual([]);
          expect(w.state(1)).toBe(VmState.waiting);
          expect([VmState.waiting, VmState.stopped]).toContain(w.state(0));
        },
      ),
      { numRuns: 25 },
    );
  });

  test.each([
    ['shadow', '4KiB', 3],
    ['nested', '4KiB', 15],
    ['nested', '2MiB', 11],
    ['nested', '1GiB', 7],
  ] as const)('%s, second stage of %s: %i references a miss', (translation, secondStage, each) => {
    const references = (accesses: number, walkCaches: boolean): number => {
      const body = program(function* (port) {
        for (let n = 0; n < accesses; n++) yield* port.load(0x4000);
      });
      const script = new Script({
        boot: (s) => {
          s.space(1);
          s.map(1, 4);
          s.start(1);
        },
      });
      const pages = secondStage === '1GiB' ? 2 * GIGAPAGE_PAGES : 2048;
      const hardware = { tlbSets: 0, walkCaches, pages };
      const w = world([guest(script, body, { translation })], { ...CONFIG, secondStage }, hardware);
      w.machine.run();
      return w.machine.hart.counters.totals(null, USER_LAYER).pageWalkReferences;
    };
    expect(references(60, false) - references(10, false)).toBe(50 * each);
    if (secondStage === '1GiB' && !LONG) return; // each boot takes its time
    expect(references(60, true) - references(10, true)).toBeLessThanOrEqual(50 * each);
  });

  for (const translation of ['nested', 'shadow'] as const) {
    test(`the log of writes misses none: ${translation}`, () => {
      const pages = [50, 51, 52, 53, 54, 55];
      const script = new Script({
        boot: (s) => {
          s.space(1);
          pages.forEach((page, n) => s.map(1, 4 + n, RW, page));
          s.start(1);
        },
        trap: (s, { cause }) => {
          if (cause === Cause.environmentCall) {
            const round = s.machine.contexts.argument(1, 0);
            s.machine.zeroPage(60 + round);
            // A device writes memory too: what page 50 was goes out, and comes back elsewhere.
            const { disk } = s.machine;
            disk.submit({ tag: 2 * round, write: true, block: round, pages: [50] });
            if (round > 0) {
              disk.submit({
                tag: 2 * round + 1,
                write: false,
                block: round - 1,
                pages: [70 + round],
              });
            }
            s.machine.contexts.setResult(1, 0);
          }
          return cause === Cause.environmentCall;
        },
      });
      const body = program(function* (port) {
        for (let round = 0; round < 3; round++) {
          for (let n = 0; n < 6; n++) {
            const va = (4 + n) * PAGE_BYTES;
            if ((n + round) % 2 === 0) yield* port.store(va, round + 1);
            else yield* port.load(va);
          }
          yield* port.call(round);
        }
      });
      const secondStage = translation === 'nested' ? '2MiB' : '4KiB';
      const w = world([guest(script, body, { translation })], { ...CONFIG, secondStage });
      const { memory } = w.machine;
      const root = memory.get(w.hypervisor.state.vm.address(0, Vm.root));
      const all = (): string[] =>
        Array.from({ length: PAGES }, (_, page) =>
          memory.page(hostPage((at) => memory.get(at), root, page)).join(),
        );
      w.machine.run(w.machine.now() + 1200);
      w.hypervisor.logWrites(0, true);
      let before = all();
      let [rounds, named] = [0, 0];
      const look = (): void => {
        const now = all();
        const words = w.hypervisor.written(0);
        const isNamed = (page: number): boolean =>
          (((words[page >>> 5] ?? 0) >>> (page & 31)) & 1) === 1;
        now.forEach((text, page) => {
          if (text !== before[page]) expect([page, isNamed(page)]).toEqual([page, true]);
          if (isNamed(page)) named++;
        });
        rounds++;
        before = all();
      };
      for (let turn = 0; turn < 200 && w.state(0) !== VmState.waiting; turn++) {
        w.machine.run(w.machine.now() + 1200);
        look();
      }
      w.machine.run(); // until the disk is through
      look();
      expect(w.state(0)).toBe(VmState.waiting);
      expect(rounds).toBeGreaterThan(3);
      expect(named).toBeLessThan((rounds * PAGES) / 2); // and it does not name everything
    });
  }

  test('a hypervisor in a nested machine runs a guest under shadow tables of its own', () => {
    const seen: number[] = [];
    const body = program(function* (port) {
      yield* port.store(0x4000, 7);
      yield* port.call(3);
      seen.push(yield* port.load(0x4000));
      yield* port.load(0x9000);
    });
    const script = new Script({
      boot: (s) => {
        s.space(1);
        s.map(1, 4);
        s.start(1);
      },
    });
    const inner = new Hypervisor(CONFIG, [guest(script, body, { pages: 64 })]);
    const outer = guest(script, body, { pages: 1024, translation: 'nested' });
    const w = world([{ ...outer, supervisor: inner, images: [] }], CONFIG, { pages: 4096 });
    w.machine.run(5e7);
    expect(seen).toEqual([7]);
    // Its programs' traps go to the inner hypervisor: none of them leaves the outer machine.
    expect(w.hypervisor.exits(0)).toMatchObject({ wait: 1, memory: 0, fault: 0, reflect: 0 });
    expect(w.machine.hart.counters.totals().vmExits).toBeGreaterThan(8);
  });
});
