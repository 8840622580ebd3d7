/**
 * Exits of virtual machines: each is counted once under its cause; what needs none takes none; and
 * a guest that breaks the rules, by accident or on purpose, stops alone.
 */
import { describe, expect, test } from 'vitest';

import { Bug } from '../../machine/assert.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import type { Image } from '../../machine/user-port.ts';
import { PTE_R, PTE_V, PTE_W } from '../../machine/sv39.ts';
import { NEVER, PAGE_BYTES } from '../../machine/units.ts';
import { Cause } from '../../kernel/supervisor.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { type Guest, Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import {
  EXITS,
  type HypervisorConfig,
  Page,
  PageKind,
  Vm,
  VmState,
} from '../../kernel/hypervisor/state.ts';
import { Ring } from '../../kernel/hypervisor/device-page.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { minimal } from '../../libos/minimal/minimal.ts';
import { hostPage } from '../machine/rigs.ts';
import { Cell, program, Script } from '../machine/script.ts';

const CONFIG: HypervisorConfig = { sliceCycles: 7001, backing: 'touch', secondStage: '4KiB' };
const POPULATED: HypervisorConfig = { sliceCycles: 1e9, backing: 'populate', secondStage: '4KiB' };

interface World {
  readonly machine: PhysicalMachine;
  readonly hypervisor: Hypervisor;
  readonly output: Map<number, string>;
  exits(): number;
  state(vm: number): number;
}

function world(
  guests: readonly Guest[],
  config: HypervisorConfig = CONFIG,
  options: { readonly storm?: boolean; readonly restarts?: boolean; readonly pages?: number } = {},
  guarded = false,
): World {
  const output = new Map<number, string>();
  const machine = new PhysicalMachine({
    pages: 2048,
    images: [],
    medium: new RamMedium(64),
    output: (channel, bytes) => {
      output.set(channel, (output.get(channel) ?? '') + new TextDecoder().decode(bytes));
    },
    ...options,
  });
  const hypervisor = new Hypervisor(config, guests);
  if (guarded) {
    // A clock that is no number never reaches a deadline: fail, do not hang.
    machine.hart.listener = (_event, _layer, now) => {
      if (!(Number.isInteger(now) && now >= 0)) throw new Error(`the clock says ${now}`);
    };
  }
  machine.boot(hypervisor);
  return {
    machine,
    hypervisor,
    output,
    exits: () => {
      let sum = 0;
      for (const [vm] of guests.entries()) {
        for (const exit of EXITS) sum += hypervisor.exits(vm)[exit];
      }
      return sum;
    },
    state: (vm) => machine.memory.get(hypervisor.state.vm.address(vm, Vm.state)),
  };
}

const tenant = { image: 0, quota: 64, firstBlock: 0, blocks: 4 };

/** A guest that works: the minimal libOS on a kernel of its own. */
function good(channel: number, exo = false): Guest {
  const supervisor = exo
    ? new Exokernel({ environments: 8, extents: 4, slices: 4, sliceCycles: 20_000 }, [tenant])
    : new Unikernel({ environments: 8, sliceCycles: 20_000 }, tenant, channel);
  return { supervisor, images: [minimal], pages: 160, firstBlock: channel * 6, blocks: 6, channel };
}

/** A scripted guest, with a program that calls `calls` times. */
function scripted(supervisor: Script, body: Image, pages = 64, channel = 9): Guest {
  return { supervisor, images: [body], pages, firstBlock: 40, blocks: 8, channel };
}
const TRANSLATIONS = ['nested', 'paravirt'] as const;
const caller = (calls: number): Image =>
  program(function* (port) {
    for (let n = 0; n < calls; n++) yield* port.call(n);
  });

/** A valid leaf of guest page 0, neither accessed nor dirty. */
const CANARY = PTE_V | PTE_R | PTE_W;
const PRIMES = 'minimal: 9592 primes below 100000\n';

describe('exits are counted', () => {
  for (const options of [{}, { storm: true }, { restarts: true }]) {
    test(`once each, under one cause: ${JSON.stringify(options)}`, () => {
      const disk = new Script({
        trap: (s, { cause }) => {
          const { machine: m } = s;
          if (cause === Cause.externalInterrupt) {
            for (let done = m.disk.complete(); done !== null;) done = m.disk.complete();
            return true;
          }
          if (cause !== Cause.environmentCall) return false;
          const n = m.contexts.argument(1, 0);
          m.disk.submit({ tag: n, write: n % 2 === 0, block: n % 8, pages: [s.page()] });
          m.console(0, Uint8Array.of(65 + n));
          m.entropy();
          m.contexts.setResult(1, 0);
          return true;
        },
      });
      const pages = 'storm' in options || 'restarts' in options ? 40 : 64;
      const guests = [scripted(disk, caller(9), pages)];
      if (!('storm' in options)) guests.push(good(1), good(2, true));
      const w = world(guests, CONFIG, options);
      w.machine.run();
      expect(w.exits()).toBe(w.machine.hart.counters.totals().vmExits);
      const exits = w.hypervisor.exits(0);
      expect([exits.disk, exits.console, exits.entropy]).toEqual([9, 9, 9]);
      expect(w.output.get(9)).toBe('ABCDEFGHI');
      expect(Math.min(exits.memory, exits.wait)).toBeGreaterThan(0);
    });
  }

  test('exits that a VM takes itself do not depend on its neighbour', () => {
    const own = (guests: Guest[]): number[] => {
      const w = world(guests);
      w.machine.run();
      const { memory, disk, console, entropy } = w.hypervisor.exits(0);
      return [memory, disk, console, entropy];
    };
    expect(own([good(1), good(2)])).toEqual(own([good(1)]));
  });
});

describe('what needs no exit takes none', () => {
  /** vmExits of a guest whose program does `body` n times. */
  function exitsOf(
    body: (n: number) => Image,
    acts: ConstructorParameters<typeof Script>[0],
    n: number,
  ): number {
    const w = world([scripted(new Script(acts), body(n), 400)], POPULATED);
    w.machine.run();
    expect(w.state(0)).not.toBe(VmState.stopped);
    expect(w.exits()).toBe(w.machine.hart.counters.totals().vmExits);
    return w.exits();
  }
  const boot =
    (privilege: 'user' | 'supervisor') =>
    (s: Script): void => {
      s.space(1);
      s.machine.contexts.create(1, 0, privilege);
      s.machine.contexts.start(1, 0, []);
      s.put(Cell.current, 1);
    };
  const cases: [string, (n: number) => Image, ConstructorParameters<typeof Script>[0]][] = [
    ['kernel call', caller, { boot: boot('user') }],
    ['procedure call', caller, { boot: boot('supervisor') }],
    [
      'page fault, and the mapping that answers it',
      (n) =>
        program(function* (port) {
          for (let page = 0; page < n; page++) yield* port.store(0x10000 + page * PAGE_BYTES, page);
        }),
      {
        trap: (s, { cause, tval }) => {
          if (cause !== Cause.storePageFault) return false;
          s.map(1, tval >>> 12);
          return true;
        },
      },
    ],
    [
      'satp, fence, timer, register moves, work',
      caller,
      {
        trap: (s, { cause }) => {
          if (cause !== Cause.environmentCall) return false;
          const { machine: m } = s;
          m.setAddressSpace(s.spaceOf(1));
          m.fence(1, 3);
          m.fence(1);
          m.fence();
          m.setTimer(m.now() + 1e8);
          m.setTimer(NEVER);
          m.moveRegisters(3);
          m.work(50);
          m.zeroPage(s.get(Cell.nextPage));
          m.contexts.setResult(1, 0);
          return true;
        },
      },
    ],
    [
      'its own timer',
      (n) =>
        program(function* (port) {
          for (let k = 0; k < n; k++) {
            yield* port.call(1);
            port.work(3000) ?? (yield* port.fault());
          }
        }),
      {
        trap: (s, { cause }) => {
          if (cause === Cause.environmentCall) s.setTimer(s.machine.now() + 1000);
          return false;
        },
      },
    ],
    [
      'upcall and user thread switch',
      (n) =>
        program(
          function* (port) {
            port.spawn(1);
            for (let k = 0; k < n; k++) {
              yield* port.call(1);
              yield* port.switchTo(1);
            }
          },
          function* (port) {
            for (;;) yield* port.switchTo(0);
          },
          function* () {},
        ),
      {
        trap: (s, { cause }) => {
          if (cause !== Cause.environmentCall) return false;
          s.machine.contexts.setResult(1, 0);
          s.machine.contexts.upcall(1, 2, []);
          return true;
        },
      },
    ],
  ];
  test.each(cases)('%s', (_name, body, acts) => {
    expect(exitsOf(body, acts, 120)).toBe(exitsOf(body, acts, 2));
  });

  test('and the wait at the end is the only exit there is', () => {
    expect(exitsOf(caller, { boot: boot('user') }, 50)).toBe(1);
  });
});

describe('a guest that breaks the rules stops alone', () => {
  type Harm = (s: Script) => void;
  const ring = (s: Script): number => s.machine.pages * PAGE_BYTES;
  const submit =
    (
      request: Partial<{
        tag: number;
        write: boolean;
        block: number;
        pages: number[];
        flush: boolean;
      }>,
    ): Harm =>
    (s) =>
      s.machine.disk.submit({ tag: 1, write: true, block: 0, pages: [9], ...request });

  /** Runs the harm between two good guests. */
  function beside(
    harm: Harm,
    guarded = false,
    translation: (typeof TRANSLATIONS)[number] = 'nested',
  ): World {
    const script = new Script({
      trap: (s, { cause }) => {
        if (cause === Cause.environmentCall && s.machine.contexts.argument(1, 0) === 1) harm(s);
        return false;
      },
    });
    const bad = { ...scripted(script, caller(3)), translation };
    const w = world([good(1), bad, good(2, true)], CONFIG, {}, guarded);
    w.machine.run(20_000_000);
    return w;
  }
  function unharmed(w: World): void {
    for (const vm of [0, 2]) expect(w.state(vm)).toBe(VmState.waiting);
    expect([w.output.get(1), w.output.get(2)]).toEqual([PRIMES, PRIMES]);
    expect(Number.isSafeInteger(w.machine.now())).toBe(true);
    expect(w.exits()).toBe(w.machine.hart.counters.totals().vmExits);
  }

  const stopped: [string, Harm][] = [
    ['loads beyond its machine', (s) => s.machine.load(2000 * PAGE_BYTES)],
    ['loads at the end of 32 bits', (s) => s.machine.load(0xfffffffc)],
    ['stores beyond its machine', (s) => s.machine.store(2000 * PAGE_BYTES, 1)],
    ['stores at 2^32', (s) => s.machine.store(2 ** 32 + 8, 1)],
    ['zeroes a page beyond', (s) => s.machine.zeroPage(2 ** 20 - 1)],
    ['copies from beyond', (s) => s.machine.copyPage(8, 5000)],
    ['reads a table beyond', (s) => s.machine.readPtes(2 ** 19, 0, 4)],
    ['writes a table beyond', (s) => s.machine.writePtes([{ table: 70, index: 0, value: 1 }])],
    [
      'maps for its user what it does not have',
      (s) => {
        s.map(1, 4, undefined, 3000);
        s.machine.loadUser(0x4000);
      },
    ],
    [
      'runs on a root that it does not have',
      (s) => {
        s.machine.setAddressSpace({ root: 5000, asid: 1 });
        s.machine.fence(); // the direct map is global: it would still be there
        s.machine.load(0);
      },
    ],
    [
      'runs on a root without a direct map',
      (s) => {
        s.machine.setAddressSpace({ root: s.page(), asid: 1 });
        s.machine.fence();
        s.machine.load(0);
      },
    ],
    ['submits a block past the end', submit({ block: 8 })],
    ['submits blocks across the end', submit({ block: 7, pages: [9, 10] })],
    ['submits a block below 0', submit({ block: -1 })],
    ['submits a block far out', submit({ block: 2 ** 31 - 1 })],
    ['submits a block that wraps round', submit({ block: 2 ** 32 - 40 })],
    ['submits a negative tag', submit({ tag: -1 })],
    ['submits a page beyond', submit({ pages: [64] })],
    ['submits a page far beyond', submit({ pages: [2 ** 20] })],
    ['submits a negative page', submit({ pages: [-1] })],
    [
      'submits too many pages',
      submit({ pages: Array.from({ length: 65 }, () => 9), write: false }),
    ],
    [
      'submits more than the ring page holds',
      submit({ pages: Array.from({ length: 600 }, () => 9) }),
    ],
    [
      'submits more requests than its queue takes',
      (s) => {
        for (let n = 0; n < 40; n++) submit({ tag: n })(s);
      },
    ],
  ];
  type By = (typeof TRANSLATIONS)[number];
  const each = (cases: [string, Harm][]): [By, string, Harm][] =>
    TRANSLATIONS.flatMap((by) => cases.map(([name, harm]): [By, string, Harm] => [by, name, harm]));
  test.each(each(stopped))('%s: it %s', (by, _name, harm) => {
    const w = beside(harm, false, by);
    expect(w.state(1)).toBe(VmState.stopped);
    expect(w.output.get(0)).toContain('virtual machine 1: stopped');
    unharmed(w);
  });

  const survived: [string, Harm][] = [
    [
      'scribbles over its completion ring',
      (s) => {
        for (let word = 0; word < 1024; word++) s.machine.store(ring(s) + word * 4, -1 - word);
        s.machine.disk.complete();
        s.machine.disk.room();
      },
    ],
    [
      'moves the producer while requests run',
      (s) => {
        submit({})(s);
        for (const value of [-1, 2 ** 31 - 1, -(2 ** 31)]) {
          s.machine.store(ring(s) + Ring.produced * 4, value);
          submit({ tag: 2 })(s);
        }
        s.machine.store(ring(s) + Ring.consumed * 4, -7);
        s.machine.disk.complete();
      },
    ],
    ['flushes with pages and no sense', submit({ flush: true, pages: [9, 9, 9] })],
    ['sets its timer to the past', (s) => s.machine.setTimer(-5)],
    ['sends a long message', (s) => s.machine.console(0, new Uint8Array(100_000))],
  ];
  test.each(each(survived))('%s: it %s: its own affair', (by, _name, harm) => {
    unharmed(beside(harm, false, by));
  });

  // Numbers that a hypervisor must not let into the one clock that all of its guests share.
  const clock: [string, Harm][] = [
    ['setTimer(NaN)', (s) => s.machine.setTimer(Number.NaN)],
    ['setTimer(now + 0.5)', (s) => s.machine.setTimer(s.machine.now() + 1000.5)],
    ['work(NaN)', (s) => s.machine.work(Number.NaN)],
    ['work(-1e6)', (s) => s.machine.work(-1e6)],
    ['work(Infinity)', (s) => s.machine.work(Number.POSITIVE_INFINITY)],
    ['work(0.25)', (s) => s.machine.work(0.25)],
    ['moveRegisters(-1e5)', (s) => s.machine.moveRegisters(-1e5)],
    ['moveRegisters(NaN)', (s) => s.machine.moveRegisters(Number.NaN)],
  ];
  test.each(clock)('the clock survives %s', (_name, harm) => {
    const before: number[] = [];
    const w = beside((s) => {
      before.push(s.machine.now());
      harm(s);
      before.push(s.machine.now());
    }, true);
    expect((before[1] ?? before[0] ?? 0) >= (before[0] ?? 0)).toBe(true);
    unharmed(w);
    for (const count of Object.values(w.machine.hart.counters.totals())) {
      expect(Number.isSafeInteger(count) && count >= 0).toBe(true);
    }
  });

  test('a user of a guest that names host pages reaches guest pages only', () => {
    // Every page number of the host, through the guest's own tables: only its own 64 are there.
    const reached: number[] = [];
    const script = new Script({
      trap: (s, { cause }) => {
        if (cause !== Cause.environmentCall) return false;
        const { machine: m } = s;
        const page = m.contexts.argument(1, 0) + 20;
        s.map(1, 4, undefined, page);
        m.contexts.setResult(1, 0, m.loadUser(0x4000) ?? -1);
        return true;
      },
    });
    const body = program(function* (port) {
      for (let n = 0; n < 2000; n++) reached.push((yield* port.call(n)).value);
    });
    const w = world([scripted(script, body), good(1)]);
    w.machine.run(20_000_000);
    expect(w.state(0)).toBe(VmState.stopped);
    expect(reached).toHaveLength(64 - 20); // the ring's page is its own too
    expect(reached.every((word) => word === 0)).toBe(true);
    expect(w.output.get(1)).toBe(PRIMES);
  });

  test("an address-space number of more than 16 bits is nobody else's", () => {
    // VMID and ASID share one tag: 0x10001 in guest 2 must not be 1 in guest 3.
    const seen: number[] = [];
    const victim = new Script({
      boot: (s) => {
        s.space(1);
        s.machine.store(s.map(1, 4) * PAGE_BYTES, 0x5ec2e7);
        s.start(1);
        s.setTimer(1e6);
      },
      trap: (_s, { cause }) => cause === Cause.timerInterrupt,
    });
    const keep = program(function* (port) {
      for (let n = 0; n < 3000; n++) {
        yield* port.load(0x4000);
        port.work(100) ?? (yield* port.fault());
      }
    });
    const attacker = new Script({
      boot: (s) => {
        const { root } = s.space(1);
        s.machine.setAddressSpace({ root, asid: 0x10001 });
        s.put(Cell.installed, 2); // or dispatch would set another
        s.start(1);
      },
    });
    const spy = program(function* (port) {
      port.work(200_000) ?? (yield* port.fault()); // until the others are well under way
      for (let n = 0; n < 100; n++) {
        seen.push(yield* port.load(0x4000));
      }
    });
    const apart = { ...scripted(victim, keep), firstBlock: 48 };
    const w = world([good(1), scripted(attacker, spy), apart]);
    w.machine.run(20_000_000);
    expect(seen).toEqual([]); // nothing is mapped there: its first load is its last
    expect(w.output.get(1)).toBe(PRIMES);
  });

  // What a guest's supervisor names is a number of TypeScript: also one that is no page number.
  const odd: [string, Harm][] = [
    ['zeroes half its last page', (s) => s.machine.zeroPage(63.5)],
    ['copies to half its last page', (s) => s.machine.copyPage(63.5, 8)],
    ['copies from half its last page', (s) => s.machine.copyPage(9, 63.5)],
    [
      'writes an entry across the end of its last page',
      (s) => s.machine.writePtes([{ table: 63, index: 511.5, value: -1 }]),
    ],
    ['stores across the end of its last page', (s) => s.machine.store(64 * PAGE_BYTES - 1, -1)],
    [
      'runs on half a root',
      (s) => {
        s.machine.setAddressSpace({ root: 63.5, asid: 1 });
        s.machine.fence();
        s.machine.load(0); // the direct map's entries: in the second half of a root
        s.machine.store(0, 1);
      },
    ],
  ];
  test.each(odd)('it %s, and reaches nothing of the host', (_name, harm) => {
    let machine: PhysicalMachine | null = null;
    let changed: number[] = [];
    let leaked = false;
    const script = new Script({
      trap: (s, { cause }) => {
        if (cause !== Cause.environmentCall || machine === null) return false;
        const { memory } = machine;
        const { state } = w.hypervisor;
        const root = memory.get(state.vm.address(0, Vm.root));
        const mine = Array.from({ length: 64 }, (_, n) =>
          hostPage((at) => memory.get(at), root, n),
        );
        // By the ledger: neither the guest's, nor a table, nor the hypervisor's.
        const isFree = (page: number): boolean =>
          (memory.get(state.page.address(page, Page.owner)) & 0xff) <= PageKind.free;
        // Whatever is free gets a canary: an entry that a walker would take, mark and write back.
        for (let page = w.hypervisor.state.end; page < memory.pages; page++) {
          const words = memory.page(page);
          if (isFree(page) && words.every((word) => word === 0)) {
            for (let n = 0; n < words.length; n += 2) words[n] = CANARY;
          }
        }
        const before = memory.i32.slice();
        try {
          harm(s);
        } finally {
          for (let page = w.hypervisor.state.end; page < memory.pages; page++) {
            const now = memory.page(page);
            const was = before.subarray(page * 1024, (page + 1) * 1024);
            if (mine.includes(page)) leaked ||= now.includes(CANARY);
            else if (now.some((word, n) => word !== was[n])) changed.push(page);
          }
        }
        return false;
      },
    });
    const w = world([scripted(script, caller(1))], POPULATED);
    machine = w.machine;
    changed = [];
    w.machine.run(20_000_000);
    expect([changed, leaked]).toEqual([[], false]);
  });

  for (let spare = 20; spare < 26; spare++) {
    test(`one that touches more than there is, ${spare} pages to spare`, () => {
      const script = new Script({
        trap: (s, { cause }) => {
          if (cause !== Cause.environmentCall) return false;
          // A page in each second-stage table: each touch takes a table, too.
          for (let page = 0; page < 300_000; page += 512) s.machine.store(page * PAGE_BYTES, 1);
          return true;
        },
      });
      const pages = 24 + spare + 40;
      let w: World | null = null;
      const run = (): void => {
        w = world([scripted(script, caller(1), 300_000)], CONFIG, { pages });
        w.machine.run(10_000_000);
      };
      expect(run).not.toThrow(Bug);
      expect(w).not.toBe(null);
    });
  }
});
