/**
 * What a guest sees does not depend on which host pages it has got, nor on what stood in them before
 * (HYP-04): the same guest on hosts of different pasts sees the same.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { type Guest, Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import type { Translation } from '../../kernel/hypervisor/life.ts';
import { PageKind, Page, Vm } from '../../kernel/hypervisor/state.ts';
import { LONG } from '../tiers.ts';
import { busyGuest, hostPage, type Setup } from '../machine/rigs.ts';
import { paravirtual, seen, steps } from '../machine/subject.ts';

const HOST_PAGES = 2048;
const GUEST_PAGES = 128;

/** One who was there before: how large it was, and whether it is still there, asleep. */
interface Forerunner {
  readonly pages: number;
  readonly stays: boolean;
}

/** A host on which others were before, and on whose free pages their words still stand. */
function hostOf(forerunners: readonly Forerunner[], stain: number) {
  const machine = new PhysicalMachine({
    pages: HOST_PAGES,
    images: [],
    medium: new RamMedium(64),
  });
  const config = { sliceCycles: 9_973, backing: 'touch', secondStage: '4KiB', rows: 8 } as const;
  const hypervisor = new Hypervisor(config, []);
  machine.boot(hypervisor);
  const { state } = hypervisor;
  const made = forerunners.map(({ pages, stays }, n) => {
    const at = { pages, channel: 2, firstBlock: 16 + n * 4, blocks: 4 };
    const vm = hypervisor.create({ ...busyGuest(5_000), ...at });
    expect(typeof vm).toBe('number');
    return { vm: Number(vm), stays };
  });
  machine.run(1e8);
  for (const { vm, stays } of made) if (!stays) expect(hypervisor.destroy(vm)).toBeNull();
  for (let page = 0; page < HOST_PAGES; page++) {
    const kind = machine.memory.get(state.page.address(page, Page.owner)) & 0xff;
    if (kind !== PageKind.free && kind !== PageKind.inside) continue;
    machine.memory.page(page).fill(stain ^ page);
  }
  return { machine, hypervisor };
}

function bootOn(
  forerunners: readonly Forerunner[],
  stain: number,
  translation: Translation,
  frames: Set<number>,
) {
  return ({ supervisor, images }: Setup) => {
    const { machine, hypervisor } = hostOf(forerunners, stain);
    const guest: Guest = {
      supervisor,
      images,
      pages: GUEST_PAGES,
      firstBlock: 0,
      blocks: 8,
      channel: 1,
      translation,
    };
    const vm = Number(hypervisor.create(guest));
    const get = (pa: number): number => machine.memory.get(pa);
    const behind = (page: number): number =>
      hostPage(get, get(hypervisor.state.vm.address(vm, Vm.root)), page);
    return {
      run: (deadline: number) => {
        machine.run(deadline);
        for (let page = 0; page < GUEST_PAGES; page++) frames.add(behind(page));
      },
      peek: (pa: number) => get(behind(pa >>> 12) * PAGE_BYTES + (pa % PAGE_BYTES)),
    };
  };
}

const past = fc.array(fc.record({ pages: fc.integer({ min: 20, max: 90 }), stays: fc.boolean() }), {
  maxLength: 5,
});

describe('a guest sees the same on whichever host pages', () => {
  test.each(['nested', 'shadow', 'paravirt'] as const)('%s', (translation) => {
    const kind = translation === 'paravirt' ? steps.map(paravirtual) : steps;
    let moved = 0;
    fc.assert(
      fc.property(kind, past, past, fc.integer(), (list, one, other, stain) => {
        const [here, there] = [new Set<number>(), new Set<number>()];
        const first = seen(bootOn(one, stain, translation, here), list);
        expect(seen(bootOn(other, stain + 1, translation, there), list)).toEqual(first);
        if ([...there].some((page) => !here.has(page))) moved++;
      }),
      { numRuns: LONG ? 500 : 10 },
    );
    expect(moved).toBeGreaterThan(2); // or nothing was renamed, and nothing shown
  });
});
