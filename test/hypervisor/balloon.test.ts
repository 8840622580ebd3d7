/**
 * How the kernels answer a balloon: what the machine's owner asks for is a word of the exposed
 * tables; pages move as library OSes free them, nobody else notices, and the sums hold at every exit.
 */
import { describe, expect, test } from 'vitest';

import {
  Account,
  Info,
  Operator,
  packName,
  PAGE_GIVEN,
  PageKind,
  Resource,
  Start,
  Status,
} from '../../kernel/abi.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import type { Guest } from '../../kernel/hypervisor/hypervisor.ts';
import { Cpu, Vm } from '../../kernel/hypervisor/state.ts';
import type { Table } from '../../kernel/supervisor.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { PTE_V, ptePpn } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { image, type Image, LibOS, type Op } from '../../libos/libos.ts';
import { minimal } from '../../libos/minimal/minimal.ts';
import { FreePages } from '../../libos/parts/free-pages.ts';
import { leaves, violations } from './invariants.ts';
import { at, END, HOLDS, info, keeper, RW } from './keeper.ts';
import type { Host } from './host.ts';
import { world } from './world.ts';

const ASKED = 12;
const LESS = 5; // what is asked for later
const PRIMES = 'minimal: 9592 primes below 100000\n';

/** Has REVOKE over everybody: what the machine's owner wants it asks of account 1, for the reserve. */
class Broker extends LibOS {
  override *main(...[, , , leaf = 0]: number[]): Op<void> {
    const { sys, port } = this;
    const terms = at(Start.freePages);
    const page = yield* new FreePages(sys).take(0);
    yield* sys.pageMap(leaf, Start.freePages, page, 0, 0, RW, 0);
    const range = { first: 0, pages: yield* info(port, Info.pages) };
    let [moved, target, events] = [0, 0, 0];
    while (port.cycles() < END) {
      yield* port.store(terms, yield* info(port, Info.page));
      yield* port.store(terms + 4, Info.balloonTarget | (Operator.notEqual << 16) | (1 << 24));
      yield* port.store(terms + 8, target);
      yield* port.store(terms + 12, 0);
      events = (yield* sys.sleep(events, END, terms, 1)).value;
      target = yield* info(port, Info.balloonTarget);
      if (target > moved) {
        const { status } = yield* sys.revoke(1, 0, 0, range, target - moved, 1_000_000);
        if (status === Status.ok) moved = target;
      } else if (target < moved) {
        yield* sys.accountMove(0, 1, 0, Resource.pages, moved - target);
        moved = target;
      }
    }
  }
}
const broker = image('broker', (port) => new Broker(port));

/** One guest, pages to spare on its host, and its kernel's tables as its memory has them. */
class Scene {
  readonly w: Host;
  readonly #kernel: Unikernel | Exokernel;

  constructor(kernel: Unikernel | Exokernel, images: readonly Image[]) {
    const at = { firstBlock: 0, blocks: 16, channel: 1 };
    const guest: Guest = { supervisor: kernel, images, pages: 200, ...at };
    this.#kernel = kernel;
    this.w = world([guest], 260, {}, 301);
  }

  run(cycles: number): void {
    this.w.machine.run(this.w.machine.now() + cycles);
  }

  word(table: Table, row: number, column: number): number {
    const { machine, hypervisor } = this.w;
    const pa = table.address(row, column);
    const place = leaves(machine, hypervisor, 0).find(
      (n) => n.page === Math.floor(pa / PAGE_BYTES),
    );
    if (place === undefined || (place.entry & PTE_V) === 0) return NaN;
    return machine.memory.get(ptePpn(place.entry) * PAGE_BYTES + (pa % PAGE_BYTES));
  }

  account(account: number, column: number): number {
    return this.word(this.#kernel.state.account, account, column);
  }

  /** What the owner has been given, by its own count; the guest's books say the same. */
  given(): number {
    const { w } = this;
    const { state } = this.#kernel;
    expect(violations(w.machine, w.hypervisor)).toEqual([]);
    const given = w.vm(0, Vm.ballooned);
    expect(this.word(state.info, 0, Info.balloon)).toBe(w.vm(0, Vm.target) - given);
    let marked = 0;
    for (let page = state.end; page < 200 - 1; page++) {
      const word = this.word(state.pageWord, page, 0);
      if ((word & PAGE_GIVEN) === 0) continue;
      expect(word & 0xff).toBe(PageKind.free);
      marked++;
    }
    expect(marked).toBe(given);
    return given;
  }
}

const LIMIT = Account.limit + Resource.pages;
const QUICK = { environments: 8, sliceCycles: 20_000 };
const tenant = { image: 0, quota: 60, firstBlock: 0, blocks: 4 };

const unikernel = (complies: boolean): Scene =>
  new Scene(new Unikernel(QUICK, tenant, 1), [keeper(complies)]);

describe('pages go to the hypervisor and come back', () => {
  test('from a unikernel: its libOS is asked, and chooses', () => {
    const scene = unikernel(true);
    const { w } = scene;
    scene.run(6_000_000);
    const [free, limit] = [w.cpu(Cpu.free), scene.account(1, LIMIT)];
    expect(w.hypervisor.balloon(0, ASKED)).toBe(null);
    scene.run(3_000_000);
    expect(scene.given()).toBe(ASKED);
    // But for a page that its supervisor touched for the first time.
    const after = w.cpu(Cpu.free);
    expect(after).toBeGreaterThanOrEqual(free + ASKED - 1);
    expect([scene.account(1, LIMIT), scene.account(1, Account.wanted)]).toEqual([limit - ASKED, 0]);
    expect(w.hypervisor.balloon(0, LESS)).toBe(null);
    scene.run(3_000_000);
    expect(scene.given()).toBe(LESS);
    expect(w.cpu(Cpu.free)).toBe(after - (ASKED - LESS));
    expect([scene.account(1, LIMIT), scene.account(1, Account.wanted)]).toEqual([limit - LESS, 0]);
    w.machine.run();
    expect(w.output.get(1)).toBe(`${HOLDS - LESS} pages, 0 wrong, asked 1`);
    expect(scene.given()).toBe(LESS);
  });

  test('from an exokernel: a broker asks for the reserve, the tenant beside it does not notice', () => {
    const config = { ...QUICK, extents: 4, slices: 6 };
    const kernel = new Exokernel(config, [
      { ...tenant, quota: HOLDS },
      { ...tenant, quota: 40, image: 1, blocks: 0 },
      { ...tenant, quota: 4, image: 2, blocks: 0, name: [] },
    ]);
    const scene = new Scene(kernel, [keeper(true), minimal, broker]);
    const { w } = scene;
    scene.run(1_500_000);
    expect(w.output.get(2)).toBe(undefined);
    const [reserve, limit] = [scene.account(0, LIMIT), scene.account(1, LIMIT)];
    expect(w.hypervisor.balloon(0, ASKED)).toBe(null);
    scene.run(2_500_000);
    expect(scene.given()).toBe(ASKED);
    expect([scene.account(0, LIMIT), scene.account(1, LIMIT)]).toEqual([
      reserve + ASKED,
      limit - ASKED,
    ]);
    expect(w.hypervisor.balloon(0, LESS)).toBe(null);
    scene.run(3_000_000);
    expect(scene.given()).toBe(LESS);
    expect([scene.account(0, LIMIT), scene.account(1, LIMIT)]).toEqual([
      reserve + LESS,
      limit - LESS,
    ]);
    w.machine.run();
    expect(w.output.get(1)).toContain(`${HOLDS - LESS} pages, 0 wrong, asked 1`);
    expect(scene.given()).toBe(LESS);
    expect(w.output.get(1)).toContain(PRIMES);
  });
});

test('a libOS that does not hear loses nothing by the balloon', () => {
  const scene = unikernel(false);
  const { w } = scene;
  scene.run(6_000_000);
  const free = w.cpu(Cpu.free);
  expect(w.hypervisor.balloon(0, ASKED)).toBe(null);
  scene.run(3_000_000);
  expect([scene.given(), w.cpu(Cpu.free)]).toEqual([0, free]);
  expect(scene.account(1, Account.wanted)).toBe(ASKED);
  w.machine.run();
  expect(w.output.get(1)).toBe(`${HOLDS} pages, 0 wrong, asked 1`);
});

/** Asks itself for pages, for an account of its own, and takes its time. */
class Owing extends LibOS {
  override *main(): Op<void> {
    const range = { first: 0, pages: yield* info(this.port, Info.pages) };
    yield* this.sys.accountCreate(2, 1, 0, packName([1, 1]), 0);
    yield* this.sys.revoke(1, 0, 2, range, 3, 1_000_000);
    for (let events = 0; this.port.cycles() < END;) {
      events = (yield* this.sys.sleep(events, 1_000_000)).value;
    }
  }
}

test('a unikernel whose tenant is in a revocation of its own is not asked in its place', () => {
  const kernel = new Unikernel(QUICK, tenant, 1);
  const scene = new Scene(kernel, [image('owing', (port) => new Owing(port))]);
  scene.run(3_000_000);
  expect(scene.w.hypervisor.balloon(0, ASKED)).toBe(null);
  scene.run(3_000_000);
  expect([scene.account(1, Account.wanted), scene.account(1, Account.taker)]).toEqual([3, 2]);
  expect(scene.word(kernel.state.info, 0, Info.balloonTarget)).toBe(ASKED);
});
