/**
 * Direct paging: at each way out of the hypervisor no page is at once a table and writable, and its
 * counts are what a walk of all tables finds (HYP-02, HYP-03, HYP-13, HYP-17); a guest sees nothing
 * of host page numbers, whatever it does to its tables (HYP-04); one that lies is stopped, alone
 * (HYP-14); and what a handler changes costs one crossing.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { pte, PTE_A, PTE_D, PTE_G, PTE_R, PTE_U, PTE_V, PTE_W } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { Cause } from '../../kernel/supervisor.ts';
import { type Guest, Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { Batch, BATCH_MAX, Call } from '../../kernel/hypervisor/hypercalls.ts';
import { Shared } from '../../kernel/hypervisor/paravirt-pages.ts';
import { ParavirtPaging } from '../../kernel/hypervisor/paravirt.ts';
import { EXITS, type HypervisorConfig, VmState } from '../../kernel/hypervisor/state.ts';
import { Cell, program, RO, RW, Script } from '../machine/script.ts';
import { typeViolations, watchTypes } from './page-books.ts';
import { type Host, host } from './host.ts';

const CONFIG: HypervisorConfig = { sliceCycles: 1e9, backing: 'populate', secondStage: '4KiB' };
const PAGES = 128;
const VA = 0x4000;

const world = (guests: readonly Guest[], config = CONFIG): Host => host(guests, config);

type Body = Guest['images'][number];

const guest = (supervisor: Script, body: Body, more: Partial<Guest> = {}): Guest => ({
  supervisor,
  images: [body],
  pages: PAGES,
  firstBlock: 0,
  blocks: 4,
  channel: 1,
  translation: 'paravirt',
  ...more,
});

const caller = (calls: number): Body =>
  program(function* (port) {
    for (let n = 0; n < calls; n++) yield* port.call(n);
  });

/** A supervisor that does `act` at each call of its program. */
const atCall = (act: (s: Script, n: number) => void): Script =>
  new Script({
    trap: (s, { cause }) => {
      if (cause !== Cause.environmentCall) return false;
      act(s, s.machine.contexts.argument(1, 0));
      s.machine.contexts.setResult(1, 0);
      return true;
    },
  });

// ---- what a guest may do to its tables ----------------------------------------------------------

/** Pages that become tables, and pages that are data: of a sensible guest none is both at once. */
const TABLES = [44, 45] as const;
const DATA = [40, 41, 42] as const;

type Step =
  | {
      readonly do: 'map' | 'quietly' | 'read-table';
      readonly vpn: number;
      readonly page: number;
      readonly ro: boolean;
    }
  | {
      readonly do: 'move' | 'unmap' | 'peek' | 'poke' | 'copy' | 'wipe' | 'view';
      readonly vpn: number;
      readonly page: number;
    }
  | { readonly do: 'load' | 'store' | 'fence' | 'switch' | 'both'; readonly vpn: number };

const vpn = fc.integer({ min: 4, max: 5 });
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constantFrom('map' as const, 'quietly' as const, 'read-table' as const),
    vpn,
    page: fc.constantFrom(...DATA),
    ro: fc.boolean(),
  }),
  fc.record({
    do: fc.constantFrom(...(['move', 'unmap', 'peek', 'poke', 'copy', 'wipe', 'view'] as const)),
    vpn,
    page: fc.constantFrom(...TABLES),
  }),
  fc.record({
    do: fc.constantFrom(...(['load', 'store', 'fence', 'switch', 'both'] as const)),
    vpn,
  }),
);

/** Entries as they are compared: A and D are set when hardware does, which a view may not show. */
const plain = (entry: number): number => (entry & ~(PTE_A | PTE_D)) | 0;

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
      const other = s.spaceOf(2);
      if (now?.do === 'map') s.map(1, now.vpn, now.ro ? RO : RW, now.page);
      else if (now?.do === 'quietly') {
        const flags = PTE_V | PTE_R | PTE_U | (now.ro ? 0 : PTE_W);
        m.writePtes([
          { table: leaf, index: now.vpn, value: 0 },
          { table: leaf, index: now.vpn, value: pte(now.page, flags) },
        ]);
        s.note(...m.readPtes(leaf, now.vpn, 1).map(plain));
        m.fence(1);
      } else if (now?.do === 'read-table') {
        // Its program may read the table that maps it.
        s.map(1, 7, RO, now.ro ? leaf : middle);
        s.note(plain(m.loadUser(0x7000 + 8 * now.vpn) ?? -1));
        s.map(1, now.vpn, now.ro ? RO : RW, now.page);
        s.note(plain(m.loadUser(0x7000 + 8 * now.vpn) ?? -1));
        s.note(plain(m.loadUser(0x7000) ?? -1));
      } else if (now?.do === 'unmap') s.unmap(1, now.vpn);
      else if (now?.do === 'move') {
        // The leaf table moves to another page for a while, which then is data again.
        m.copyPage(now.page, leaf);
        m.writePtes([{ table: middle, index: 0, value: pte(now.page, PTE_V) }]);
        m.fence(1);
        s.note(m.loadUser(now.vpn * PAGE_BYTES) ?? -1);
        m.store(now.page * PAGE_BYTES + 8 * now.vpn, 0);
        m.fence();
        s.note(m.loadUser(now.vpn * PAGE_BYTES) ?? -1);
        m.writePtes([{ table: middle, index: 0, value: pte(leaf, PTE_V) }]);
        m.fence();
        s.note(...m.readPtes(now.page, 3, 4).map(plain));
        m.zeroPage(now.page);
      } else if (now?.do === 'peek') {
        s.note(plain(m.load(leaf * PAGE_BYTES + 8 * now.vpn)), m.load(leaf * PAGE_BYTES + 4));
        s.note(plain(m.load(root * PAGE_BYTES)), plain(m.load(root * PAGE_BYTES + 256 * 8)));
        s.note(...m.readPtes(root, 255, 7).map(plain));
      } else if (now?.do === 'poke') {
        m.store(leaf * PAGE_BYTES + 8 * now.vpn, pte(DATA[0], RW) | 0);
        m.store(leaf * PAGE_BYTES + 8 * now.vpn + 4, now.page === TABLES[0] ? 0 : 8);
        m.fence(1, now.vpn);
        s.note(m.loadUser(now.vpn * PAGE_BYTES) ?? -1);
        m.store(leaf * PAGE_BYTES + 8 * now.vpn + 4, 0);
      } else if (now?.do === 'copy') {
        m.copyPage(now.page, middle);
        s.note(plain(m.load(now.page * PAGE_BYTES)));
        m.copyPage(now.page, leaf);
        s.note(...m.readPtes(now.page, 4, 2).map(plain));
        // And back over the table in use, a word of it changed.
        m.store(now.page * PAGE_BYTES + 8 * 9, pte(DATA[1], RO) | 0);
        m.copyPage(leaf, now.page);
        m.fence();
        s.note(m.loadUser(0x9000) ?? -1);
        m.zeroPage(now.page);
      } else if (now?.do === 'wipe') {
        m.zeroPage(leaf);
        m.fence();
        s.note(m.loadUser(now.vpn * PAGE_BYTES) ?? -1);
        s.map(1, now.vpn, RW, DATA[2]);
      } else if (now?.do === 'view') {
        // A table that is read becomes data under the reader's eyes, and a table again.
        m.writePtes([
          { table: now.page, index: 3, value: pte(DATA[0], RO) },
          { table: middle, index: 1, value: pte(now.page, PTE_V) },
        ]);
        s.map(1, 7, RO, now.page);
        s.note(plain(m.loadUser(0x7000 + 24) ?? -1), m.loadUser(0x203000) ?? -1);
        m.writePtes([{ table: middle, index: 1, value: 0 }]);
        m.fence();
        m.store(now.page * PAGE_BYTES + 24, 77);
        m.fence();
        s.note(m.loadUser(0x7000 + 24) ?? -1);
        s.unmap(1, 7);
        m.zeroPage(now.page);
      } else if (now?.do === 'load') s.note(m.loadUser(now.vpn * PAGE_BYTES) ?? -1);
      else if (now?.do === 'store') s.note(+m.storeUser(now.vpn * PAGE_BYTES + 4, now.vpn));
      else if (now?.do === 'fence') m.fence();
      else if (now?.do === 'switch') {
        m.setAddressSpace({ root: other.root, asid: 2 });
        s.note(m.loadUser(VA) ?? -1);
        m.setAddressSpace({ root, asid: 1 });
      } else if (now?.do === 'both') {
        // Two spaces share a leaf table.
        m.writePtes([{ table: other.middle, index: 0, value: pte(leaf, PTE_V) }]);
        m.setAddressSpace({ root: other.root, asid: 2 });
        m.fence();
        s.note(m.loadUser(now.vpn * PAGE_BYTES) ?? -1);
        m.writePtes([{ table: other.middle, index: 0, value: pte(other.leaf, PTE_V) }]);
        m.setAddressSpace({ root, asid: 1 });
        m.fence();
      }
      s.note(...m.readPtes(leaf, 4, 6).map(plain));
      m.contexts.setResult(1, 0);
      return true;
    },
  });
}

/** Touches everything between the calls; a fault ends it. */
const toucher = (steps: number): Body =>
  program(function* (port) {
    for (let n = 0; n < steps; n++) {
      yield* port.call(n);
      if (n % 3 === 2) yield* port.load((4 + (n % 2)) * PAGE_BYTES);
    }
  });

/** Runs, holding the types after every exit. */
function watched(w: Host, vms: readonly number[]): void {
  const wrong = watchTypes(w.machine, w.hypervisor, vms);
  w.machine.run(1e9);
  for (const vm of vms) expect(typeViolations(w.machine, w.hypervisor, vm)).toEqual([]);
  expect(wrong()).toEqual([]);
}

describe('page types', () => {
  test('a guest sees what it would on hardware, whatever it does to its tables', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 4, maxLength: 16 }), (steps) => {
        const seen = (translation: 'paravirt' | 'nested', restarts = false): number[] => {
          const how = { translation, restarts };
          const w = world([guest(stepper(steps), toucher(steps.length), how)]);
          watched(w, [0]);
          const peek = w.peek(0);
          const causes = Script.log(peek).flatMap(({ cause, tval }) => [cause, tval]);
          return [w.state(0), ...Script.notes(peek), ...causes];
        };
        expect(seen('paravirt')).toEqual(seen('nested'));
      }),
      { numRuns: 40 },
    );
  });

  test('hold while handlers are rolled back at each of their stores', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 2, maxLength: 4 }), (steps) => {
        const seen = (restarts: boolean): number[] => {
          const w = world([guest(stepper(steps), toucher(steps.length), { restarts })]);
          watched(w, [0]);
          const causes = Script.log(w.peek(0)).map(({ cause }) => cause);
          return [w.state(0), ...Script.notes(w.peek(0)), ...causes];
        };
        expect(seen(true)).toEqual(seen(false));
      }),
      { numRuns: 4 },
    );
  });

  // ---- guests without sense ---------------------------------------------------------------------

  /** A valid guest beside which a spoiled one runs. */
  function beside(harm: (s: Script, w: Host) => void, calls = 3): Host {
    const late: Host[] = [];
    const bad = guest(
      atCall((s, n) => {
        const [w] = late;
        if (n === 1 && w !== undefined) harm(s, w);
      }),
      caller(calls),
      { channel: 2 },
    );
    const steps: Step[] = [
      { do: 'map', vpn: 4, page: 40, ro: false },
      { do: 'read-table', vpn: 5, page: 41, ro: true },
      { do: 'move', vpn: 4, page: 44 },
    ];
    const sane = guest(stepper(steps), toucher(3), { firstBlock: 8, channel: 3 });
    const w = world([bad, sane]);
    late.push(w);
    watched(w, [0, 1]);
    expect(w.state(1)).toBe(VmState.waiting);
    expect(Script.notes(w.peek(1))).toEqual(alone());
    return w;
  }
  let known: number[] | null = null;
  /** What the valid guest notes when nobody is beside it. */
  function alone(): number[] {
    if (known !== null) return known;
    known = [];
    known = Script.notes(beside(() => undefined).peek(1));
    return known;
  }

  test('a guest without sense is stopped or lives, and its neighbour sees nothing (HYP-14)', () => {
    known = null;
    const w = world([
      guest(
        stepper([
          { do: 'map', vpn: 4, page: 40, ro: false },
          { do: 'read-table', vpn: 5, page: 41, ro: true },
          { do: 'move', vpn: 4, page: 44 },
        ]),
        toucher(3),
      ),
    ]);
    watched(w, [0]);
    known = Script.notes(w.peek(0));
    const entry = fc.record({
      table: fc.integer({ min: 0, max: PAGES + 3 }),
      index: fc.constantFrom(0, 1, 4, 255, 256, 257, 260, 261, 511),
      value: fc.oneof(
        fc.integer({ min: 0, max: 2 ** 31 - 1 }),
        fc
          .tuple(fc.integer({ min: 0, max: PAGES }), fc.integer({ min: 0, max: 255 }))
          .map(([page, flags]) => pte(page, flags)),
        fc
          .tuple(fc.integer({ min: 28, max: 34 }), fc.constantFrom(PTE_V, RO, RW))
          .map(([page, flags]) => pte(page, flags)),
      ),
      how: fc.constantFrom(...(['call', 'store', 'upper', 'root', 'zero', 'copy'] as const)),
    });
    fc.assert(
      fc.property(fc.array(entry, { minLength: 1, maxLength: 10 }), (entries) => {
        const w = beside((s) => {
          const { machine: m } = s;
          const own = s.spaceOf(1);
          // Its own tables among the targets, and itself among the entries: self-mapping too.
          for (const { table, index, value, how } of entries) {
            const at = table < 5 ? ([own.root, own.middle, own.leaf, 30, 31][table] ?? 0) : table;
            if (how === 'call') m.writePtes([{ table: at, index, value }]);
            else if (how === 'store') m.store(at * PAGE_BYTES + index * 8, value);
            else if (how === 'upper') m.store(at * PAGE_BYTES + index * 8 + 4, value);
            else if (how === 'root') m.setAddressSpace({ root: at, asid: value & 0xffff });
            else if (how === 'zero') m.zeroPage(at);
            else m.copyPage(at, value % PAGES);
            m.loadUser(VA);
            m.storeUser(VA, 1);
          }
          m.fence();
        });
        expect([VmState.waiting, VmState.stopped]).toContain(w.state(0));
      }),
      { numRuns: 40 },
    );
  });

  const RESERVED = PTE_V | PTE_W | PTE_U;
  /** What it names, what it does, and what the hypervisor says of it. */
  const refused: [string, (s: Script, w: Host) => void, string?][] = [
    [
      'a root beyond its memory',
      (s) => s.machine.setAddressSpace({ root: PAGES, asid: 1 }),
      ': it names a page that it does not have',
    ],
    ['half a root', (s) => s.machine.setAddressSpace({ root: s.spaceOf(1).leaf, asid: 1 })],
    [
      'a table that maps itself as the table below',
      (s) => {
        const { root } = s.spaceOf(1);
        s.machine.writePtes([{ table: root, index: 1, value: pte(root, PTE_V) }]);
      },
    ],
    [
      'one page as two levels',
      (s) => {
        const { root, leaf } = s.spaceOf(1);
        s.machine.writePtes([{ table: root, index: 1, value: pte(leaf, PTE_V) }]);
      },
    ],
    [
      'a root of which some entries are good and one is not',
      (s) => {
        const [root, middle, leaf] = [s.page(), s.page(), s.page()];
        s.machine.copyPage(root, s.spaceOf(1).root);
        s.machine.writePtes([
          { table: root, index: 1, value: pte(middle, PTE_V) },
          { table: middle, index: 0, value: pte(leaf, PTE_V) },
          { table: leaf, index: 0, value: pte(DATA[0], RO) },
          { table: leaf, index: 1, value: pte(s.spaceOf(1).leaf, RO) },
          { table: leaf, index: 2, value: pte(DATA[1], RW) },
          { table: leaf, index: 9, value: pte(PAGES, RW) },
        ]);
        s.machine.setAddressSpace({ root, asid: 4 });
      },
    ],
    [
      'a table mapped writable',
      (s) => s.map(1, 5, RW, s.spaceOf(1).leaf),
      ': a table would be mapped writable',
    ],
    ['its root mapped writable', (s) => s.map(1, 5, RW, s.spaceOf(1).root)],
    [
      'a page that is mapped writable as a table',
      (s) => {
        const page = s.map(1, 5);
        s.machine.writePtes([{ table: s.spaceOf(1).middle, index: 1, value: pte(page, PTE_V) }]);
      },
    ],
    [
      'a page that is mapped read-only as a table',
      (s) => {
        const page = s.map(1, 5, RO);
        s.machine.writePtes([{ table: s.spaceOf(1).middle, index: 1, value: pte(page, PTE_V) }]);
      },
    ],
    ['a page beyond its memory', (s) => s.map(1, 5, RW, PAGES)],
    ['a page of the host', (s) => s.map(1, 5, RO, 1500)],
    ['a global page', (s) => s.map(1, 5, RW | PTE_G), ': a global leaf .*'],
    ['a reserved kind of entry', (s) => s.map(1, 5, RESERVED), ': no kind of entry .*'],
    [
      'a superpage',
      (s) => s.machine.writePtes([{ table: s.spaceOf(1).middle, index: 1, value: pte(0, RW) }]),
    ],
    [
      'a pointer in the last level',
      (s) => s.machine.writePtes([{ table: s.spaceOf(1).leaf, index: 1, value: pte(30, PTE_V) }]),
    ],
    [
      'a pointer with flags of a leaf',
      (s) =>
        s.machine.writePtes([
          { table: s.spaceOf(1).middle, index: 1, value: pte(30, PTE_V | PTE_U) },
        ]),
    ],
    [
      "entries of the hypervisor's own half",
      (s) => s.machine.writePtes([{ table: s.spaceOf(1).root, index: 260, value: pte(30, PTE_V) }]),
    ],
    [
      'another direct map',
      (s) =>
        s.machine.writePtes([
          { table: s.spaceOf(1).root, index: 257, value: pte(0, PTE_V | PTE_R) },
        ]),
    ],
    [
      "the upper half of an entry of the hypervisor's",
      (s) => s.machine.store(s.spaceOf(1).root * PAGE_BYTES + 261 * 8 + 4, 1),
    ],
    [
      'no direct map, and goes on',
      (s) => {
        s.machine.writePtes([{ table: s.spaceOf(1).root, index: 256, value: 0 }]);
        s.machine.fence();
        s.machine.loadUser(VA);
        for (let page = 0; page < PAGES - 1; page++) s.machine.load(page * PAGE_BYTES);
      },
    ],
    [
      'a direct map with an upper half, and goes on',
      (s) => {
        s.machine.store(s.spaceOf(1).root * PAGE_BYTES + 256 * 8 + 4, 1);
        s.machine.fence();
        s.machine.loadUser(VA);
        s.machine.load(0);
      },
    ],
    [
      'a table as a buffer of the disk',
      (s) => {
        const { leaf } = s.spaceOf(1);
        s.machine.disk.submit({ tag: 1, write: false, block: 0, pages: [leaf] });
      },
    ],
    [
      'a table to be written to the disk',
      (s) => {
        const { leaf } = s.spaceOf(1);
        s.machine.disk.submit({ tag: 1, write: true, block: 0, pages: [leaf] });
      },
    ],
    [
      'a buffer of the disk as a table',
      (s) => {
        const page = s.page();
        s.machine.disk.submit({ tag: 1, write: false, block: 0, pages: [page] });
        s.machine.writePtes([{ table: s.spaceOf(1).middle, index: 1, value: pte(page, PTE_V) }]);
      },
    ],
  ];
  test.each(refused)('a guest that names %s is stopped', (_name, harm, why = '') => {
    const w = beside(harm);
    expect(w.state(0)).toBe(VmState.stopped);
    expect(w.output.get(0)).toMatch(new RegExp(`^virtual machine 0: stopped at .*${why}\n$`));
  });

  test('a page that only dead tables lead to can be anything', () => {
    const w = beside((s) => {
      const { machine: m } = s;
      // Mapped writable in a space that nobody uses any more, and never unmapped.
      const page = s.page();
      const [root, middle, leaf] = [s.page(), s.page(), s.page()];
      m.copyPage(root, s.spaceOf(1).root);
      m.writePtes([
        { table: root, index: 0, value: pte(middle, PTE_V) },
        { table: middle, index: 0, value: pte(leaf, PTE_V) },
        { table: leaf, index: 4, value: pte(page, RW) },
      ]);
      m.setAddressSpace({ root, asid: 9 });
      m.storeUser(VA, 5);
      m.setAddressSpace({ root: s.spaceOf(1).root, asid: 1 });
      m.zeroPage(page);
      m.writePtes([
        { table: s.spaceOf(1).middle, index: 1, value: pte(page, PTE_V) },
        { table: page, index: 0, value: pte(leaf, RO) },
      ]);
      s.note(m.loadUser(0x200000 + 32) ?? -1);
    });
    expect(w.state(0)).toBe(VmState.waiting);
    // The leaf table of the dead space is data again, with the guest's own number in it.
    expect(
      Script.notes(w.peek(0)).map((word) => (word >>> 10) - w.peek(0)(Cell.nextPage * 4)),
    ).toEqual([-4]);
  });

  test('zeros in the half of a root that is not its own change nothing', () => {
    const w = beside((s) => {
      const { root } = s.spaceOf(1);
      s.machine.writePtes([260, 261].map((index) => ({ table: root, index, value: 0 })));
      s.machine.fence();
      s.machine.loadUser(VA);
      s.note(...s.machine.readPtes(root, 256, 6).map((entry) => entry & PTE_V));
      s.map(1, 4, RW, DATA[0]);
      s.note(s.machine.loadUser(VA) ?? -1);
    });
    expect(Script.notes(w.peek(0))).toEqual([1, 0, 0, 0, 0, 0, 0]);
  });

  test('a program that reads its tables sees no page as clean that it has written to', () => {
    const seen: number[] = [];
    const script = atCall((s, n) => {
      const { leaf } = s.spaceOf(1);
      if (n === 0) s.map(1, 7, RO, leaf);
      const flags = PTE_V | PTE_R | PTE_W | PTE_U;
      if (n === 1) s.machine.writePtes([{ table: leaf, index: 4, value: pte(40, flags) }]);
    });
    const body = program(function* (port) {
      yield* port.call(0);
      yield* port.call(1);
      yield* port.store(VA, 1);
      seen.push(yield* port.load(0x7000 + 4 * 8), yield* port.load(0x7000 + 7 * 8));
    });
    const w = world([guest(script, body)]);
    watched(w, [0]);
    expect(seen.map((entry) => entry >>> 10)).toEqual([40, w.peek(0)(0) - 1]);
    expect((seen[0] ?? 0) & PTE_D).toBe(PTE_D);
  });

  test('ASIDs that share a place of the host are kept apart', () => {
    const w = beside((s) => {
      const { machine: m } = s;
      const spaces = [s.spaceOf(1).root, s.page()];
      m.store(DATA[0] * PAGE_BYTES, 11);
      m.store(DATA[1] * PAGE_BYTES, 22);
      s.map(1, 4, RW, DATA[0]);
      const [root = 0, other = 0] = spaces;
      const [middle, leaf] = [s.page(), s.page()];
      m.copyPage(other, root);
      m.writePtes([
        { table: other, index: 0, value: pte(middle, PTE_V) },
        { table: middle, index: 0, value: pte(leaf, PTE_V) },
        { table: leaf, index: 4, value: pte(DATA[1], RW) },
      ]);
      for (let n = 0; n < 6; n++) {
        m.setAddressSpace({ root: spaces[n % 2] ?? 0, asid: 1 + (n % 2) * 64 });
        s.note(m.loadUser(VA) ?? -1);
      }
      m.setAddressSpace({ root, asid: 1 });
    });
    expect(Script.notes(w.peek(0))).toEqual([11, 22, 11, 22, 11, 22]);
  });

  test('what a call in its own privilege changes is there when it returns', () => {
    const seen: number[] = [];
    const script = new Script({
      boot: (s) => {
        s.space(1);
        s.machine.contexts.create(1, 0, 'supervisor');
        s.machine.contexts.start(1, 0, []);
        s.put(Cell.current, 1);
      },
      trap: (s, { cause }) => {
        if (cause !== Cause.environmentCall) return false;
        const n = s.machine.contexts.argument(1, 0);
        s.machine.store((40 + n) * PAGE_BYTES, n);
        s.map(1, 4, RW, 40 + n);
        s.machine.contexts.setResult(1, 0);
        return true;
      },
    });
    const body = program(function* (port) {
      for (let n = 0; n < 8; n++) {
        yield* port.call(n);
        seen.push(yield* port.load(VA));
      }
    });
    const w = world([guest(script, body)]);
    watched(w, [0]);
    expect(seen).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(w.hypervisor.exits(0)).toMatchObject({ hypercall: 8, reflect: 1 });
  });

  // ---- the batch --------------------------------------------------------------------------------

  /** Host address of a word of the batch of a guest. */
  function batchOf(w: Host, vm: number): (word: number) => number {
    const paging = w.hypervisor.machines[vm]?.paging;
    const page = paging instanceof ParavirtPaging ? paging.types.shared(Shared.calls) : -1;
    return (word) => page * PAGE_BYTES + word * 4;
  }

  const lies: [string, readonly number[]][] = [
    ['a negative count', [-1]],
    ['more elements than there is room for', [BATCH_MAX + 1]],
    ['the largest count', [2 ** 31 - 1]],
    ['no call', [1, 0, 0, 0]],
    ['a call that there is not', [1, 99, 0, 0]],
    ['an entry across two', [1, Call.update, 4, 0]],
    ['an entry beyond its memory', [1, Call.update, -8, 1]],
    ['a root that is none', [1, Call.space, -2, 0]],
    ['its leaf table as a root', [1, Call.space, 9, 0]],
  ];
  test.each(lies)('a batch with %s stops the guest (HYP-18)', (_name, [count = 0, ...words]) => {
    const w = beside((_s, { machine: { memory }, ...rest }) => {
      const at = batchOf({ machine: { memory }, ...rest } as Host, 0);
      memory.put(at(Batch.count), count);
      words.forEach((word, n) => {
        memory.put(at(Batch.elements + n), word);
      });
    });
    expect(w.state(0)).toBe(VmState.stopped);
  });

  test('what stands in a batch is fetched once: later changes are not seen', () => {
    // Each word that the hypervisor loads is spoiled as soon as it has been loaded.
    const body = program(function* (port) {
      yield* port.call(1);
      yield* port.store(VA, 1);
      yield* port.call(2);
    });
    const seen = (spoil: boolean): number[] => {
      const late: Host[] = [];
      const script = atCall((s, n) => {
        if (n === 1) s.map(1, 4, RW, 40);
        else s.note(s.machine.load(40 * PAGE_BYTES));
      });
      const w = world([guest(script, body)]);
      late.push(w);
      const at = batchOf(w, 0);
      let loads = 0;
      const { memory } = w.machine;
      const get = memory.get.bind(memory);
      if (spoil) {
        const first = at(Batch.elements);
        memory.get = (address) => {
          const word = get(address);
          const inside = address >= first && address < at(1024);
          if (inside && w.machine.hart.counters.layer === 0) {
            loads++;
            memory.put(address, -1);
          }
          return word;
        };
      }
      w.machine.run(1e7);
      expect(loads > 0).toBe(spoil);
      return [w.state(0), ...Script.notes(w.peek(0))];
    };
    expect(seen(true)).toEqual(seen(false));
  });

  test('elements before the one that is refused stay done', () => {
    const w = beside((s) => {
      const { leaf } = s.spaceOf(1);
      s.machine.writePtes([
        { table: leaf, index: 4, value: pte(40, RW) },
        { table: leaf, index: 5, value: pte(leaf, RW) },
        { table: leaf, index: 6, value: pte(41, RW) },
      ]);
    });
    expect(w.state(0)).toBe(VmState.stopped);
  });

  test('a handler that maps, fences, switches and sets its timer crosses once, to return', () => {
    const exits = (changes: number): Record<string, number> => {
      const script = atCall((s, n) => {
        for (let k = 0; k < changes; k++) s.map(1, 4 + ((n + k) % 3), RW, 40 + (k % 20));
        s.machine.setAddressSpace(s.spaceOf(1));
        s.setTimer(1e12);
      });
      const w = world([guest(script, caller(20))]);
      w.machine.run(1e7);
      expect(w.state(0)).toBe(VmState.waiting);
      return w.hypervisor.exits(0);
    };
    const [none, many] = [exits(0), exits(30)];
    expect(many).toEqual(none);
    expect(none).toMatchObject({
      reflect: 21,
      store: 0,
      fence: 0,
      satp: 0,
      stimecmp: 0,
      memory: 0,
    });
    expect(none['sret']).toBe(21);
    // A batch that is full crosses before.
    expect(exits(200)['hypercall']).toBeGreaterThan(many['hypercall'] ?? 0);
  });

  test('going back to an address space validates nothing again', () => {
    const references = (switches: number, spaces: boolean): number => {
      const script = new Script({
        boot: (s) => {
          s.space(1);
          s.space(2);
          for (const context of [1, 2]) s.map(context, 4);
          s.start(1);
        },
        trap: (s, { cause }) => {
          if (cause !== Cause.environmentCall) return false;
          const to = spaces ? 1 + (s.machine.contexts.argument(1, 0) % 2) : 1;
          s.machine.setAddressSpace({ root: s.spaceOf(to).root, asid: to });
          s.machine.setAddressSpace({ root: s.spaceOf(1).root, asid: 1 });
          s.machine.contexts.setResult(1, 0);
          return true;
        },
      });
      const w = world([guest(script, caller(switches))]);
      w.machine.run(1e8);
      expect(w.state(0)).toBe(VmState.waiting);
      return w.machine.hart.references;
    };
    const more = references(40, true) - references(20, true);
    const same = references(40, false) - references(20, false);
    // Ten visits more to the other space: each less than the entries of a single table.
    expect(more - same).toBeGreaterThan(0);
    expect(more - same).toBeLessThan(10 * 100);
  });

  test('a miss walks three tables, as on hardware', () => {
    const references = (accesses: number): number => {
      const body = program(function* (port) {
        for (let n = 0; n < accesses; n++) yield* port.load(VA);
      });
      const script = new Script({
        boot: (s) => {
          s.space(1);
          s.map(1, 4);
          s.start(1);
        },
      });
      const machine = new PhysicalMachine({
        pages: 2048,
        images: [],
        medium: new RamMedium(64),
        tlbSets: 0,
        walkCaches: false,
      });
      machine.boot(new Hypervisor(CONFIG, [guest(script, body)]));
      machine.run();
      return machine.hart.counters.totals(null, 3).pageWalkReferences;
    };
    expect(references(60) - references(10)).toBe(150);
  });

  test('what was stolen stands in a page that it reads without an exit', () => {
    const stolen: number[] = [];
    const body = program(function* (port) {
      for (let n = 0; n < 60; n++) {
        yield* port.call(n);
        port.work(500) ?? (yield* port.fault());
      }
    });
    const reads = (times: number): { readonly exits: number; readonly steal: number } => {
      stolen.length = 0;
      const script = atCall((s) => {
        for (let n = 0; n < times; n++) stolen.push(s.machine.stolen());
      });
      const other = guest(
        atCall(() => undefined),
        body,
        { channel: 2, firstBlock: 8 },
      );
      const w = world([guest(script, body), other], { ...CONFIG, sliceCycles: 3001 });
      w.machine.run(1e8);
      const exits = w.hypervisor.exits(0);
      const { steal } = w.hypervisor.times(0);
      return { exits: EXITS.reduce((sum, exit) => sum + exits[exit], -exits.timer), steal };
    };
    const once = reads(1);
    expect(stolen.every((now, n) => n === 0 || now >= (stolen[n - 1] ?? 0))).toBe(true);
    expect(stolen.at(-1)).toBeGreaterThan(0);
    expect(stolen.at(-1)).toBeLessThanOrEqual(once.steal);
    expect(reads(8).exits).toBe(once.exits);
  });

  test('an event that the guest itself takes out of its page is not told: its own affair', () => {
    const told = (clear: boolean): number => {
      let heard = 0;
      const script = new Script({
        trap: (s, { cause }) => {
          if (cause === Cause.externalInterrupt) {
            heard++;
            return true;
          }
          if (cause !== Cause.environmentCall) return false;
          s.machine.disk.submit({ tag: 1, write: false, block: 0, pages: [s.page()] });
          s.machine.contexts.setResult(1, 0);
          return true;
        },
      });
      const w = world([guest(script, caller(1))]);
      const paging = w.hypervisor.machines[0]?.paging;
      const page = paging instanceof ParavirtPaging ? paging.types.shared(Shared.events) : 0;
      // As soon as the hypervisor has made it pending.
      w.machine.hart.listener = () => {
        if (clear) w.machine.memory.put(page * PAGE_BYTES, 0);
      };
      w.machine.run(1e9);
      expect(w.state(0)).toBe(VmState.waiting);
      return heard;
    };
    expect([told(false), told(true)]).toEqual([1, 0]);
  });

  // ---- beside the rest of the hypervisor --------------------------------------------------------

  test.each([
    ['a swap area', { swap: { firstBlock: 8, blocks: 4000 }, backing: 'touch' }, {}],
    ['sharing', { sharing: 4, backing: 'touch' }, {}],
    ['more memory than its tables can name', {}, { pages: 2 ** 16 + 1 }],
  ] as const)('is refused with %s', (_name, config, more) => {
    const w = world([], { ...CONFIG, rows: 2, ...config });
    const script = new Script({});
    const made = w.hypervisor.create(guest(script, caller(1), more));
    expect(made).toEqual({ refused: expect.stringContaining('paravirtual') as string });
    expect(w.hypervisor.create(guest(script, caller(1), { translation: 'nested' }))).toBe(0);
  });

  test('is neither saved, cloned, moved nor restored', () => {
    const body = { ...caller(1), resume: 0 };
    const of = (translation: 'paravirt' | 'nested'): Guest =>
      guest(new Script({}), body, { translation, blocks: 0 });
    const w = world([], { ...CONFIG, rows: 4, backing: 'touch' });
    const { hypervisor: h } = w;
    expect([h.create(of('paravirt')), h.create(of('nested'))]).toEqual([0, 1]);
    w.machine.run(1e7);
    for (const vm of [0, 1]) h.pause(vm, true);
    const no = { refused: expect.stringContaining('paravirtual') as string };
    expect([h.save(0), h.clone(0, of('nested')), h.prepareMove(0)]).toEqual([no, no, no]);
    const attached = { ...of('paravirt'), supervisor: Object.assign(new Script({}), ATTACH) };
    expect(h.clone(1, attached)).toEqual(no);
  });
  const ATTACH = { attach: (): void => undefined };

  test('a guest that ends gives all its pages back, its tables with them (HYP-15, HYP-19)', () => {
    const w = world([], { ...CONFIG, rows: 2 });
    const free = (): number => w.machine.memory.get(w.hypervisor.state.cpu.address(0, 4));
    const before = free();
    const steps: Step[] = [{ do: 'read-table', vpn: 5, page: 41, ro: true }];
    const vm = w.hypervisor.create(guest(stepper(steps), toucher(1)));
    expect(vm).toBe(0);
    w.machine.run(1e7);
    expect(before - free()).toBeGreaterThan(PAGES + 10);
    expect(w.hypervisor.destroy(0)).toBe(null);
    expect(free()).toBe(before);
  });

  test('the balloon takes what nothing leads to, and nothing else', () => {
    const w = beside((s) => {
      const { machine: m } = s;
      const [data, idle] = [s.map(1, 5), s.page()];
      m.storeUser(0x5000, 7);
      m.store(idle * PAGE_BYTES, 9);
      for (const page of [data, s.spaceOf(1).leaf, s.spaceOf(1).root, idle]) m.balloon.give(page);
      s.note(m.balloon.size(), m.loadUser(0x5000) ?? -1, m.load(idle * PAGE_BYTES));
      s.note(m.balloon.size());
      // What it has just unmapped counts as unmapped, though that has not crossed yet.
      s.unmap(1, 5);
      m.balloon.give(data);
      s.note(m.balloon.size());
    });
    expect(Script.notes(w.peek(0))).toEqual([1, 7, 0, 0, 1]);
  });
});
