/**
 * What a disk that is passed through demands and forbids: each demand is refused in words where it
 * is not met, with nothing changed; and what would move a page under the device does not happen.
 */
import { describe, expect, test } from 'vitest';

import { RamMedium } from '../../machine/disk.ts';
import { DISK_QUEUES } from '../../machine/disk-queues.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { Cause } from '../../kernel/supervisor.ts';
import { type Guest, Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import {
  Cpu,
  type DiskModel,
  type HypervisorConfig,
  Page,
  PageKind,
  Vm,
} from '../../kernel/hypervisor/state.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { resumable } from '../../libos/minimal/resumable.ts';
import { program, Script } from '../machine/script.ts';
import { violations, watch } from './invariants.ts';

const CONFIG: HypervisorConfig = {
  sliceCycles: 20_001,
  backing: 'touch',
  secondStage: '4KiB',
  rows: 12,
};
const SWAP = { firstBlock: 200, blocks: 2000 };
const PAGES = 32;

function world(config: Partial<HypervisorConfig> = {}, pages = 1200) {
  const machine = new PhysicalMachine({ pages, images: [], medium: new RamMedium(2200) });
  const hypervisor = new Hypervisor({ ...CONFIG, ...config }, []);
  machine.boot(hypervisor);
  watch(machine, hypervisor, 31);
  const { state } = hypervisor;
  const cpu = (word: number): number => machine.memory.get(state.cpu.address(0, word));
  const vm = (row: number, word: number): number => machine.memory.get(state.vm.address(row, word));
  return { machine, hypervisor, cpu, vm };
}

const spin = program(function* (port) {
  for (let n = 0; n < 40; n++) {
    yield* port.store(0x4000, (yield* port.load(0x4000)) + 1);
    port.work(5000) ?? (yield* port.fault());
    yield* port.call(n);
  }
});

/** Keeps its disk busy; each page that it does not use has a word of its own, which must stay. */
function passed(
  n: number,
  more: Partial<Guest> = {},
  act = (_s: Script): void => undefined,
): Guest {
  const submit = (s: Script, tag: number): void => {
    s.machine.disk.submit({ tag, write: tag % 2 === 0, block: tag % 6, pages: [16 + tag] });
  };
  const supervisor = new Script({
    boot: (s) => {
      s.space(1);
      s.map(1, 4);
      for (let page = 24; page < PAGES - 1; page++) s.machine.store(page * PAGE_BYTES, page * 3);
      for (let tag = 0; tag < 8; tag++) submit(s, tag);
      s.start(1);
    },
    trap: (s, { cause }) => {
      const { disk } = s.machine;
      if (cause === Cause.environmentCall) act(s);
      if (cause !== Cause.externalInterrupt) return false;
      for (let done = disk.complete(); done !== null; done = disk.complete()) submit(s, done.tag);
      return true;
    },
  });
  const at = { firstBlock: n * 6, blocks: 6, channel: 1 };
  return { supervisor, images: [spin], pages: PAGES, ...at, disk: 'passthrough', ...more };
}

function row(made: unknown): number {
  if (typeof made !== 'number') throw new Error(JSON.stringify(made));
  return made;
}
const whyNot = (answer: unknown): string =>
  typeof answer === 'object' && answer !== null && 'refused' in answer
    ? String(answer.refused)
    : '';

describe('a guest is refused', () => {
  const cases: [string, Guest, RegExp][] = [
    ['whose tables hardware walks', passed(2, { translation: 'paravirt' }), /could write to the/],
    ['with less than all of its memory reserved', passed(2, { reservation: 31 }), /reserve them/],
    ['with a limit below its memory', passed(2, { limit: 20, reservation: 20 }), /all 32 pages/],
    ['on blocks of one that drives its own', passed(2, { firstBlock: 11 }), /machine 0 has 6 to/],
    [
      'that does not drive its own, on those of one that does',
      passed(2, { firstBlock: 8, blocks: 1, disk: 'split' }),
      /blocks 8 to 8: virtual machine 0 has 6 to 11; none are shared/,
    ],
    [
      'on blocks of one that does not',
      passed(2, { firstBlock: 60, blocks: 100 }),
      /virtual machine 1 has 100 to/,
    ],
    ['on the swap area', passed(2, { firstBlock: 190, blocks: 11 }), /the swap area is there/],
    ['on blocks that no disk has', passed(2, { firstBlock: 2199, blocks: 2 }), /0 to 2199/],
    ['on blocks below the first', passed(2, { firstBlock: -1 }), /blocks -1 to 4/],
    ['on half a block', passed(2, { firstBlock: 0.5 }), /blocks 0.5/],
    ['when all memory is promised', passed(2, { pages: 1100 }), /reserved, of|no memory for all/],
  ];
  test.each(cases)('%s', (_what, guest, why) => {
    const w = world({ swap: SWAP });
    row(w.hypervisor.create(passed(1)));
    row(w.hypervisor.create(passed(2, { firstBlock: 100, blocks: 20, disk: 'emulated' })));
    w.machine.run(60_000);
    const before = [w.cpu(Cpu.free), w.cpu(Cpu.reserved), w.cpu(Cpu.promised)];
    expect(whyNot(w.hypervisor.create(guest))).toMatch(why);
    expect([w.cpu(Cpu.free), w.cpu(Cpu.reserved), w.cpu(Cpu.promised)]).toEqual(before);
  });

  test('when all queues are passed through; one that ends gives its own back', () => {
    const w = world();
    for (let n = 0; n < DISK_QUEUES; n++) row(w.hypervisor.create(passed(n)));
    expect(whyNot(w.hypervisor.create(passed(9)))).toMatch(/all 8 queues of the disk/);
    expect(w.hypervisor.destroy(3)).toBe(null);
    expect(row(w.hypervisor.create(passed(9)))).toBe(3);
  });

  test('where the machine has none: a virtual disk has no queues', () => {
    const machine = new PhysicalMachine({ pages: 2000, images: [] });
    const inner = new Hypervisor({ ...CONFIG, rows: 2 }, []);
    const outer = new Hypervisor(CONFIG, [passed(0, { supervisor: inner, pages: 800 })]);
    machine.boot(outer);
    machine.run(3_000_000);
    expect(outer.machines[0]?.disk.queues).toBe(undefined);
    const { state } = inner;
    expect(state.machine.disk.queues).toBe(undefined);
    expect(whyNot(inner.create(passed(1)))).toMatch(/the disk of this machine has no queues/);
  });

  test('when there is no memory for all of it, now', () => {
    const w = world({}, 120);
    const before = w.cpu(Cpu.free);
    expect(whyNot(w.hypervisor.create(passed(1, { pages: 400 })))).toMatch(/would be reserved/);
    expect(w.cpu(Cpu.free)).toBe(before);
  });
});

describe('what would move a page under its device', () => {
  test('a balloon: is refused, and what it gives unasked is not taken', () => {
    const w = world();
    const vm = row(
      w.hypervisor.create(
        passed(1, {}, (s) => {
          s.machine.balloon.give(25);
        }),
      ),
    );
    expect(whyNot(w.hypervisor.balloon(vm, 1))).toMatch(/a device reaches all of its pages/);
    w.machine.run(500_000);
    expect([w.vm(vm, Vm.held), w.vm(vm, Vm.ballooned)]).toEqual([PAGES, 0]);
    expect(w.hypervisor.pagesOf(vm).find(({ page }) => page === 25)?.words[0]).toBe(75);
  });

  test('swapping and sharing: its neighbours only', () => {
    const config = { swap: SWAP, sharing: 40 };
    const w = world(config, world(config).hypervisor.state.end + 100);
    const alike = (n: number): Guest => passed(n + 9, { disk: 'split' });
    const vm = row(w.hypervisor.create(passed(1)));
    for (let n = 0; n < 3; n++) row(w.hypervisor.create(alike(n)));
    w.machine.run(1_500_000);
    expect(w.cpu(Cpu.swapOuts) + w.cpu(Cpu.merged)).toBeGreaterThan(0);
    expect([w.vm(vm, Vm.held), w.vm(vm, Vm.shared), w.vm(vm, Vm.swapped)]).toEqual([PAGES, 0, 0]);
    for (const { page, words } of w.hypervisor.pagesOf(vm)) {
      if (page >= 24 && page < PAGES - 1) expect(words[0]).toBe(page * 3);
    }
  });

  test('save, clone, move: are refused; so is what was saved, on such a disk', () => {
    const w = world();
    const there = world();
    const vm = row(w.hypervisor.create(passed(1)));
    w.machine.run(60_000);
    w.hypervisor.pause(vm, true);
    const stays = /nobody can carry/;
    expect(whyNot(w.hypervisor.save(vm))).toMatch(stays);
    expect(whyNot(w.hypervisor.clone(vm, passed(3, { blocks: 0, disk: 'split' })))).toMatch(stays);
    expect(whyNot(w.hypervisor.prepareMove(vm))).toMatch(stays);
    const tenant = { image: 0, quota: 64, firstBlock: 0, blocks: 0 };
    const plain = (disk: DiskModel): Guest => ({
      ...passed(2, {
        supervisor: new Unikernel({ environments: 8, sliceCycles: 20_000 }, tenant, 1),
      }),
      images: [resumable],
      pages: 160,
      disk,
    });
    const other = row(w.hypervisor.create(plain('split')));
    w.machine.run(w.machine.now() + 250_000);
    w.hypervisor.pause(other, true);
    const saved = w.hypervisor.save(other);
    if ('refused' in saved) throw new Error(saved.refused);
    const before = there.cpu(Cpu.free);
    expect(whyNot(there.hypervisor.restore(plain('passthrough'), saved))).toMatch(
      /emulated or split/,
    );
    expect(there.cpu(Cpu.free)).toBe(before);
    row(there.hypervisor.restore(plain('emulated'), saved));
  });
});

describe('its end', () => {
  test('what was under way does not reach whoever has its pages and its queue next', () => {
    const w = world();
    const idle = (): Guest => {
      const supervisor = new Script({ boot: (s) => s.space(1), dispatch: () => -1 });
      return passed(2, { supervisor });
    };
    for (const cycles of [9_000, 23_000, 41_000]) {
      const first = row(w.hypervisor.create(passed(1)));
      const root = w.vm(first, Vm.root);
      w.machine.run(w.machine.now() + cycles);
      w.hypervisor.destroy(first);
      const next = row(w.hypervisor.create(idle()));
      // The same tables: what translated for one would translate for the other.
      expect([w.vm(next, Vm.root), w.vm(next, Vm.diskQueue)]).toEqual([root, 1]);
      w.machine.run(w.machine.now() + 400_000);
      for (const { page, words } of w.hypervisor.pagesOf(next)) {
        if (page >= 16) expect(words.every((word) => word === 0)).toBe(true);
      }
      w.hypervisor.destroy(next);
    }
  });

  test('with requests under way: all is free at once, and no byte moves any more', () => {
    const w = world();
    const before = w.cpu(Cpu.free);
    for (let n = 0; n < 10; n++) {
      const vm = row(w.hypervisor.create(passed(1)));
      w.machine.run(w.machine.now() + 13_000 + n * 9001);
      expect(w.hypervisor.destroy(vm)).toBe(null);
      expect(w.cpu(Cpu.free)).toBe(before);
      const { state } = w.hypervisor;
      const { memory } = w.machine;
      for (let page = state.end; page < memory.pages; page++) {
        const kind = memory.get(state.page.address(page, Page.owner)) & 0xff;
        if (kind <= PageKind.free) memory.page(page).fill(0x5a5a5a5a);
      }
      w.machine.run(w.machine.now() + 400_000);
      for (let page = state.end; page < memory.pages; page++) {
        const words = memory.page(page);
        if (!words.every((word) => word === 0x5a5a5a5a)) throw new Error(`page ${page} is written`);
      }
    }
    expect(violations(w.machine, w.hypervisor)).toEqual([]);
  });
});
