/**
 * Everything that a guest's supervisor can ask of its machine, with whatever arguments, acts on that
 * machine and on nothing else (HYP-05, HYP-14): the host's registers and accounts, its disk outside
 * the guest's blocks, the hypervisor's tables and the neighbour stay as they are. The table has a row
 * for each member of Machine; a new one without a row does not compile.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { Cause, type Machine } from '../../kernel/supervisor.ts';
import { Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import type { Translation } from '../../kernel/hypervisor/life.ts';
import { Page, PageKind, Vm, VmState } from '../../kernel/hypervisor/state.ts';
import { LONG } from '../tiers.ts';
import { busyGuest } from '../machine/rigs.ts';
import { program, Script } from '../machine/script.ts';
import { violations } from './invariants.ts';

const PAGES = 64;
const FIRST_BLOCK = 8;
const BLOCKS = 8;
const MINE = 9; // its console channel, and its account
const NEIGHBOUR = 10;

type Ask = (m: Machine, args: readonly number[]) => void;
const nothing: Ask = () => undefined;

const at = (args: readonly number[], n: number): number => args[n % args.length] ?? 0;
/** What a supervisor can do with each member of its machine. */
const ASKS: Record<keyof Machine, Ask> = {
  // No calls, or the hardware's own: what those of a guest may be is stated in docs/CAVEATS.md.
  level: nothing,
  pages: nothing,
  profile: nothing,
  hart: nothing,
  regime: nothing,
  trapLevel: nothing,
  resolveFault: nothing,
  contexts: nothing, // bugs of the supervisor stop the simulator: they are its own objects

  guestMode: ({ guestMode }, a) => {
    if (guestMode === null) return;
    const [what, n, m] = [Math.abs(at(a, 3)) % 6, at(a, 0), at(a, 1)];
    if (what === 0) guestMode.select(n, m);
    else if (what === 1) guestMode.moveRegisters(Math.min(n, 1000));
    else if (what === 2) guestMode.fence(n, m);
    else if (what === 3) guestMode.fence(n);
    else if (what === 4) guestMode.enter();
    else guestMode.leave(n);
  },
  peek: (m, a) => m.peek(at(a, 0)),
  load: (m, a) => m.load(at(a, 0)),
  store: (m, a) => {
    m.store(at(a, 0), at(a, 1));
  },
  zeroPage: (m, a) => {
    m.zeroPage(at(a, 0));
  },
  copyPage: (m, a) => {
    m.copyPage(at(a, 0), at(a, 1));
  },
  readPtes: (m, a) => m.readPtes(at(a, 0), at(a, 1), Math.abs(at(a, 2)) % 600),
  writePtes: (m, a) => {
    m.writePtes([{ table: at(a, 0), index: at(a, 1), value: at(a, 2) }]);
  },
  loadUser: (m, a) => m.loadUser(at(a, 0)),
  storeUser: (m, a) => m.storeUser(at(a, 0), at(a, 1)),
  readUser: (m, a) => m.readUser(at(a, 0), Math.abs(at(a, 1)) % 10_000),
  setAddressSpace: (m, a) => {
    m.setAddressSpace(at(a, 0) < 0 ? null : { root: at(a, 0), asid: at(a, 1) });
  },
  fence: (m, a) => {
    m.fence(...a.slice(0, Math.abs(at(a, 0)) % 3));
  },
  setTimer: (m, a) => {
    m.setTimer(at(a, 0));
  },
  now: (m) => m.now(),
  stolen: (m) => m.stolen(),
  attribute: (m, a) => {
    m.attribute(at(a, 0));
  },
  references: (m) => m.references(),
  work: (m, a) => {
    m.work(Math.min(at(a, 0), 1e6));
  },
  moveRegisters: (m, a) => {
    m.moveRegisters(Math.min(at(a, 0), 1e5));
  },
  disk: (m, a) => {
    const pages = a.slice(3).map((page) => page);
    const [write, flush] = [at(a, 0) % 2 === 0, at(a, 1) % 3 === 0];
    m.disk.submit({ tag: at(a, 0), write, flush, block: at(a, 2), pages });
    m.disk.complete();
  },
  balloon: (m, a) => {
    m.balloon.give(at(a, 0));
  },
  neighbours: (m, a) => {
    const n = m.neighbours;
    n.offer(at(a, 0), at(a, 1), at(a, 2), true);
    n.expect(at(a, 3), at(a, 1), at(a, 2));
    n.map(at(a, 1), at(a, 0), at(a, 2), at(a, 3) > 0);
    n.copy(at(a, 1), at(a, 0), at(a, 2), at(a, 3) > 0);
    n.transfer(at(a, 1), at(a, 0), at(a, 2));
    n.unmap(at(a, 2));
    n.withdraw(at(a, 0));
    n.listen(at(a, 0), at(a, 1));
    n.connect(at(a, 0), at(a, 1), at(a, 2));
    n.send(at(a, 0));
    n.mask(at(a, 3));
    n.take();
    n.close(at(a, 0));
  },
  console: (m, a) => {
    m.console(at(a, 0), Uint8Array.of(at(a, 1)));
  },
  consoleRead: (m, a) => m.consoleRead(at(a, 0)),
  entropy: (m) => m.entropy(),
};
const METHODS = (Object.keys(ASKS) as (keyof Machine)[]).filter((name) => ASKS[name] !== nothing);

const number = fc.oneof(
  fc.integer({ min: -2, max: PAGES + 2 }),
  fc.integer({ min: 0, max: PAGES }).map((page) => page * PAGE_BYTES),
  fc.constantFrom(-1, 2 ** 31, 2 ** 32, 2 ** 32 - 4, 2 ** 44, 0.5, NaN, Infinity, -Infinity),
  fc.integer(),
);
const asks = fc.array(
  fc.tuple(fc.constantFrom(...METHODS), fc.array(number, { minLength: 4, maxLength: 7 })),
  { minLength: 1, maxLength: 8 },
);

/** Runs one who asks, beside one who works; what is not the asker's, when all is over. */
function play(
  list: readonly (readonly [keyof Machine, readonly number[]])[],
  translation: Translation,
) {
  const asker = new Script({
    trap: (s, { cause }) => {
      if (cause !== Cause.environmentCall) return false;
      s.machine.contexts.setResult(1, 0);
      for (const [name, args] of list) ASKS[name](s.machine, args);
      return true;
    },
  });
  const body = program(function* (port) {
    yield* port.call(0);
  });
  const guest = {
    supervisor: asker,
    images: [body],
    pages: PAGES,
    firstBlock: FIRST_BLOCK,
    blocks: BLOCKS,
    channel: MINE,
    translation,
    shadowPages: 24,
    nestedPages: translation === 'nested' ? 16 : 0,
  };
  const beside = { pages: PAGES, firstBlock: 0, blocks: FIRST_BLOCK, channel: NEIGHBOUR };
  const sent: number[] = [];
  const medium = new RamMedium(3 * BLOCKS);
  const machine = new PhysicalMachine({
    pages: 1024,
    images: [],
    medium,
    output: (channel) => sent.push(channel),
  });
  const config = { sliceCycles: 20_011, backing: 'touch', secondStage: '4KiB' } as const;
  const hypervisor = new Hypervisor(config, [guest, { ...busyGuest(30_000), ...beside }]);
  machine.boot(hypervisor);
  machine.run(5e7);
  const { state } = hypervisor;
  const get = (pa: number): number => machine.memory.get(pa);
  // Of the neighbour: its tables and its program's page. Its log has times, the device page has too.
  const neighbour = new Map<number, number>();
  for (let page = 0; page < machine.pages; page++) {
    if (get(state.page.address(page, Page.owner)) !== (PageKind.guest | (2 << 8))) continue;
    const theirs = get(state.page.address(page, Page.guest));
    if (theirs < 6 || theirs === PAGES - 1) continue;
    const sum = machine.memory.page(page).reduce((all, word) => (Math.imul(all, 31) + word) | 0, 7);
    neighbour.set(theirs, sum);
  }
  const foreign = [...Array(3 * BLOCKS).keys()].filter((n) => n >> 3 !== FIRST_BLOCK >> 3);
  const { counters } = machine.hart;
  const accounts = Array.from({ length: 64 }, (_, owner) => counters.cycles(owner));
  return {
    states: [0, 1].map((vm) => get(state.vm.address(vm, Vm.state))),
    violations: violations(machine, hypervisor),
    channels: [...new Set(sent)].filter((channel) => channel !== 0),
    charged: accounts.flatMap((cycles, owner) => (cycles > 0 ? [owner] : [])),
    blocks: foreign.map((n) => {
      const bytes = new Uint8Array(PAGE_BYTES);
      medium.read(n, bytes);
      return bytes.reduce((sum, byte) => sum + byte, 0);
    }),
    neighbour,
  };
}

describe('whatever a guest asks of its machine stays in it', () => {
  test.each(['nested', 'shadow', 'paravirt'] as const)('%s', (translation) => {
    const alone = play([], translation);
    expect(alone.states).toEqual([VmState.waiting, VmState.waiting]);
    expect(alone.neighbour.size).toBeGreaterThan(3);
    fc.assert(
      fc.property(asks, (list) => {
        const after = play(list, translation);
        expect([VmState.waiting, VmState.stopped, VmState.ready]).toContain(after.states[0]);
        expect(after.states[1]).toBe(VmState.waiting);
        expect(after.violations).toEqual([]);
        expect([[], [MINE]]).toContainEqual(after.channels);
        expect(after.charged).toEqual(alone.charged);
        expect(after.blocks).toEqual(alone.blocks);
        expect(after.neighbour).toEqual(alone.neighbour);
      }),
      { numRuns: LONG ? 500 : 40 },
    );
  });
});
