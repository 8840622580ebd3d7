/**
 * Grants and ports between paravirtual guests. What is offered is checked when it is used; what is
 * mapped can neither be taken back nor outlive its owner as somebody else's page (HYP-01, HYP-13,
 * HYP-15); a page has one owner at every moment, also when it changes hands; no signal is lost, and
 * none forged. The types of both guests are held after every exit.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { RamMedium } from '../../machine/disk.ts';
import { pte, PTE_V } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { NeighbourPort } from '../../machine/machine.ts';
import { Cause } from '../../kernel/supervisor.ts';
import { type Guest } from '../../kernel/hypervisor/hypervisor.ts';
import { Batch, Call } from '../../kernel/hypervisor/hypercalls.ts';
import { Offer } from '../../kernel/hypervisor/neighbours.ts';
import { Shared } from '../../kernel/hypervisor/paravirt-pages.ts';
import { ParavirtPaging } from '../../kernel/hypervisor/paravirt.ts';
import { Cpu, type HypervisorConfig, VmState } from '../../kernel/hypervisor/state.ts';
import { Cell, program, RO, RW, Script } from '../machine/script.ts';
import { typeViolations, watchTypes } from './page-books.ts';
import { violations } from './invariants.ts';
import { type Host, host } from './host.ts';

const CONFIG: HypervisorConfig = { sliceCycles: 4001, backing: 'touch', secondStage: '4KiB' };
const PAGES = 96;
const EMPTY = 70; // from here on nobody has touched a page
const [A, B] = [1, 2]; // numbers of the first two guests

type Body = Guest['images'][number];

const guest = (supervisor: Script, body: Body, channel: number): Guest => ({
  supervisor,
  images: [body],
  pages: PAGES,
  firstBlock: 4 * channel,
  blocks: 4,
  channel,
  translation: 'paravirt',
});

const world = (guests: readonly Guest[], rows = 3): Host =>
  host(guests, { ...CONFIG, rows }, { pages: 1024, medium: new RamMedium(16) });

/** What a guest does when its turn comes, and what came of it. */
interface Turn {
  readonly who: number;
  readonly act: (n: NeighbourPort, s: Script, w: Host) => boolean | number;
}
const a = (act: Turn['act']): Turn => ({ who: A, act });
const b = (act: Turn['act']): Turn => ({ who: B, act });

/** Two guests take turns, each in a handler of its own, and the books are held all the time. */
function play(
  turns: readonly Turn[],
  pause: { readonly after: number; readonly act: (w: Host) => void } | null = null,
): { readonly came: (boolean | number)[]; readonly w: Host } {
  const came: (boolean | number)[] = [];
  const late: Host[] = [];
  let allowed = pause?.after ?? turns.length;
  /** Whether who is next has been stopped. */
  const isStuck = (): boolean => {
    const next = turns[came.length]?.who ?? 0;
    return next > 0 && late[0]?.state(next - 1) === VmState.stopped;
  };
  const taker = (who: number): Script =>
    new Script({
      boot: (s) => {
        s.space(1);
        s.map(1, 4);
        s.start(1);
      },
      trap: (s, { cause }, current) => {
        if (cause === Cause.externalInterrupt) {
          s.put(Cell.own, s.get(Cell.own) + 1);
          return true;
        }
        if (cause !== Cause.environmentCall) return false;
        const turn = came.length < allowed ? turns[came.length] : undefined;
        const [w] = late;
        if (turn?.who === who && w !== undefined) came.push(turn.act(s.machine.neighbours, s, w));
        s.machine.contexts.setResult(current, 0, +(came.length >= turns.length || isStuck()));
        return true;
      },
    });
  const body = program(function* (port) {
    while ((yield* port.call(0)).value === 0) yield* port.load(0x4000);
  });
  const w = world([guest(taker(A), body, 1), guest(taker(B), body, 2)]);
  late.push(w);
  const wrong = watchTypes(w.machine, w.hypervisor, [0, 1], 5);
  const run = (): void => {
    for (let n = 0; n < 60 && came.length < allowed && !isStuck(); n++) {
      w.machine.run(w.machine.now() + 20_000);
    }
  };
  run();
  if (pause !== null) {
    pause.act(w);
    allowed = turns.length;
    run();
  }
  w.machine.run(w.machine.now() + 50_000);
  expect(wrong()).toEqual([]);
  for (const vm of [0, 1]) expect(typeViolations(w.machine, w.hypervisor, vm)).toEqual([]);
  expect(violations(w.machine, w.hypervisor)).toEqual([]);
  return { came, w };
}

const results = (turns: readonly Turn[]): (boolean | number)[] => play(turns).came;

/** A stores 5 to page 50, and offers it. */
const offered = (write: boolean, page = 50): Turn =>
  a((n, s) => {
    s.machine.store(page * PAGE_BYTES, 5);
    n.offer(3, B, page, write);
    return true;
  });

describe('grants', () => {
  test('a page that is mapped is one page: stores of either are seen by both, at once', () => {
    expect(
      results([
        a((n) => n.self()),
        b((n) => n.self()),
        offered(true),
        b((n) => n.map(A, 3, EMPTY, true)),
        b((_n, s) => s.machine.load(EMPTY * PAGE_BYTES)),
        b((_n, s) => {
          s.machine.store(EMPTY * PAGE_BYTES, 6);
          s.map(1, 5, RW, EMPTY);
          return s.machine.storeUser(0x5004, 7);
        }),
        a((_n, s) => s.machine.load(50 * PAGE_BYTES) * 10 + s.machine.load(50 * PAGE_BYTES + 4)),
        // While its tables lead there it stays; what is mapped cannot be taken back.
        b((n) => n.unmap(EMPTY)),
        a((n) => n.withdraw(3)),
        b((n, s) => {
          s.unmap(1, 5);
          return n.unmap(EMPTY);
        }),
        a((n) => n.withdraw(3)),
        b((n) => n.map(A, 3, EMPTY, true)),
        // What stands there now is its own, zeroed.
        b((_n, s) => s.machine.load(EMPTY * PAGE_BYTES)),
        b((n) => n.unmap(EMPTY)),
      ]),
    ).toEqual([A, B, true, true, 5, true, 67, false, false, true, true, false, 0, false]);
  });

  const from = EMPTY;
  const refused: [string, readonly Turn[]][] = [
    ['nothing is offered', [b((n) => n.map(A, 3, from, false))]],
    [
      'it is offered to another',
      [a((n) => (n.offer(3, 3, 50, true), true)), b((n) => n.map(A, 3, from, false))],
    ],
    ['it may only be read', [offered(false), b((n) => n.map(A, 3, from, true))]],
    ['it may only be read: a copy to it', [offered(false), b((n) => n.copy(A, 3, 20, true))]],
    [
      'there is no such entry',
      [offered(true), b((n) => n.map(A, 256, from, false) || n.map(A, -1, from, false))],
    ],
    [
      'there is no such neighbour',
      [offered(true), b((n) => n.map(9, 3, from, false) || n.map(-1, 3, from, false))],
    ],
    ['it is its own', [a((n) => (n.offer(3, A, 50, true), n.map(A, 3, from, true)))]],
    ['a page stands there', [offered(true), b((n) => n.map(A, 3, 8, true))]],
    [
      'there is no such place',
      [offered(true), b((n) => n.map(A, 3, PAGES, true) || n.map(A, 3, -5, true))],
    ],
    ['its place is the device page', [offered(true), b((n) => n.map(A, 3, PAGES - 1, true))]],
    [
      'it is mapped already',
      [offered(true), b((n) => (n.map(A, 3, from, true), n.map(A, 3, from + 1, true)))],
    ],
    [
      'a table is offered',
      [
        a((n, s) => (n.offer(3, B, s.spaceOf(1).leaf, false), true)),
        b((n) => n.map(A, 3, from, false)),
      ],
    ],
    [
      'a table is offered, to be copied',
      [
        a((n, s) => (n.offer(3, B, s.spaceOf(1).root, false), true)),
        b((n) => n.copy(A, 3, 20, false)),
      ],
    ],
    [
      'what is offered is not there',
      [a((n) => (n.offer(3, B, 2 ** 20, true), true)), b((n) => n.map(A, 3, from, false))],
    ],
    [
      'a device page is offered',
      [a((n) => (n.offer(3, B, PAGES - 1, true), true)), b((n) => n.map(A, 3, from, false))],
    ],
    [
      'it expects a page, and offers none',
      [a((n) => (n.expect(3, B, from), true)), b((n) => n.map(A, 3, from, false))],
    ],
    [
      'a page is handed over where one was expected, once',
      [
        a((n) => (n.expect(3, B, from), true)),
        b((n) => n.transfer(A, 3, 20)),
        a((_n, s) => (s.machine.balloon.give(from), true)),
        b((n) => n.transfer(A, 3, 21)),
      ],
    ],
    [
      'another neighbour’s page stands there',
      [
        offered(true),
        a((n) => (n.offer(4, B, 51, true), true)),
        b((n) => n.map(A, 3, from, true) && n.map(A, 4, from, true)),
      ],
    ],
    [
      'a device has put something there',
      [
        offered(true),
        b((_n, s) => {
          s.machine.disk.submit({ tag: 1, write: false, block: 0, pages: [from] });
          return true;
        }),
        b((n) => n.map(A, 3, from, true)),
      ],
    ],
    [
      'its entry is far out',
      [offered(true), b((n) => n.map(A, 2 ** 24, from, true) || n.map(A, -(2 ** 24), from, true))],
    ],
    [
      'a negative page is offered',
      [a((n) => (n.offer(3, B, -5, true), true)), b((n) => n.map(A, 3, from, true))],
    ],
    [
      'a page of a neighbour is offered on',
      [
        offered(true),
        b((n) => (n.map(A, 3, from, true), n.offer(4, A, from, true), true)),
        a((n) => n.map(B, 4, from, true)),
      ],
    ],
    ['a page is handed over that nobody expects', [offered(true), b((n) => n.transfer(A, 3, 20))]],
    [
      'a page is handed over that is mapped',
      [
        a((n) => (n.expect(3, B, from), true)),
        b((n, s) => (s.map(1, 6, RO, 20), n.transfer(A, 3, 20))),
      ],
    ],
    [
      'a table is handed over',
      [a((n) => (n.expect(3, B, from), true)), b((n, s) => n.transfer(A, 3, s.spaceOf(1).leaf))],
    ],
    [
      'a page is handed over to a place that is taken',
      [a((n) => (n.expect(3, B, 8), true)), b((n) => n.transfer(A, 3, 20))],
    ],
    [
      'a page is handed over that a neighbour has mapped',
      [
        offered(true),
        b((n) => (n.map(A, 3, from, true), n.expect(1, A, from + 2), true)),
        a((n) => n.transfer(B, 1, 50)),
      ],
    ],
    [
      'a neighbour is handed its own page back',
      [
        offered(true),
        b((n) => n.map(A, 3, from, true)),
        a((n) => (n.expect(1, B, from), true)),
        b((n) => n.transfer(A, 1, from)),
      ],
    ],
    [
      'a second page is handed over for one expected',
      [
        a((n) => (n.expect(3, B, from), true)),
        b((n) => (n.transfer(A, 3, 20), n.transfer(A, 3, 21))),
      ],
    ],
  ];
  test.each(refused)('are refused if %s', (_name, turns) => {
    expect(results(turns).at(-1)).toBe(false);
  });

  test('what may only be read is not written: not by maps of its own tables either', () => {
    const table = 'a page of a neighbour would be a table';
    const harms: readonly [(s: Script) => void, string][] = [
      [(s) => s.machine.store(EMPTY * PAGE_BYTES, 1), 'stopped'],
      [(s) => s.machine.zeroPage(EMPTY), 'stopped'],
      [(s) => s.map(1, 5, RW, EMPTY), 'a page that may only be read would be mapped writable'],
      [(s) => s.machine.setAddressSpace({ root: EMPTY, asid: 3 }), table],
      [
        (s) => {
          const { middle } = s.spaceOf(1);
          s.machine.writePtes([{ table: middle, index: 1, value: pte(EMPTY, PTE_V) }]);
        },
        table,
      ],
    ];
    for (const [harm, why] of harms) {
      const { came, w } = play([
        offered(false),
        b((n) => n.map(A, 3, EMPTY, false)),
        b((_n, s) => s.machine.load(EMPTY * PAGE_BYTES)),
        b((_n, s) => {
          s.map(1, 6, RO, EMPTY);
          return s.machine.loadUser(0x6000) ?? -1;
        }),
        b((_n, s) => {
          harm(s);
          s.machine.loadUser(0x4000);
          return true;
        }),
      ]);
      expect(came.slice(0, 4)).toEqual([true, true, 5, 5]);
      expect(w.state(1)).toBe(VmState.stopped);
      expect([...w.output.values()].join('')).toContain(why);
      expect([w.peek(0)(50 * PAGE_BYTES), w.state(0)]).toEqual([5, VmState.waiting]);
    }
  });

  test('a batch that names a page that may only be read does not write it', () => {
    const { came, w } = play([
      offered(false),
      b((n) => n.map(A, 3, EMPTY, false)),
      b((_n, s, world_) => {
        const paging = world_.hypervisor.machines[1]?.paging;
        const page = paging instanceof ParavirtPaging ? paging.types.shared(Shared.calls) : 0;
        const { memory } = world_.machine;
        [Call.update, EMPTY * PAGE_BYTES, 99].forEach((word, n) => {
          memory.put(page * PAGE_BYTES + (Batch.elements + n) * 4, word);
        });
        memory.put(page * PAGE_BYTES + Batch.count * 4, 1);
        return (s.machine.loadUser(0x4000) ?? 0) >= 0;
      }),
    ]);
    expect(came.slice(0, 2)).toEqual([true, true]);
    expect([w.state(1), w.peek(0)(50 * PAGE_BYTES)]).toEqual([VmState.stopped, 5]);
  });

  test('what is mapped is no table of its owner, no balloon takes it, no device reaches it', () => {
    const { came, w } = play([
      offered(true),
      b((n) => n.map(A, 3, EMPTY, true)),
      a((_n, s) => {
        s.machine.balloon.give(50);
        return s.machine.load(50 * PAGE_BYTES);
      }),
      b((_n, s) => {
        s.machine.balloon.give(EMPTY);
        return s.machine.load(EMPTY * PAGE_BYTES) + s.machine.balloon.size();
      }),
      a((_n, s) => {
        s.machine.writePtes([{ table: s.spaceOf(1).middle, index: 1, value: pte(50, PTE_V) }]);
        s.machine.loadUser(0x4000);
        return true;
      }),
    ]);
    expect(came.slice(0, 4)).toEqual([true, true, 5, 5]);
    expect([w.state(0), w.state(1)]).toEqual([VmState.stopped, VmState.waiting]);
  });

  test('copies go both ways and map nothing', () => {
    expect(
      results([
        offered(true),
        b((n, s) => (n.copy(A, 3, 20, false) ? s.machine.load(20 * PAGE_BYTES) : -1)),
        b((n, s) => {
          s.machine.store(20 * PAGE_BYTES, 8);
          return n.copy(A, 3, 20, true);
        }),
        a((_n, s) => s.machine.load(50 * PAGE_BYTES)),
        a((n) => n.withdraw(3)),
      ]),
    ).toEqual([true, 5, true, 8, true]);
  });

  test('a page that is handed over has one owner, and goes with what is in it', () => {
    const { came, w } = play([
      a((n) => (n.expect(3, B, EMPTY), true)),
      b((n, s) => {
        s.machine.store(20 * PAGE_BYTES + 8, 9);
        return n.transfer(A, 3, 20);
      }),
      a((_n, s) => s.machine.load(EMPTY * PAGE_BYTES + 8)),
      b((_n, s) => s.machine.load(20 * PAGE_BYTES + 8)),
      a((_n, s) => s.machine.balloon.size()),
      b((n, s) => {
        s.machine.store(20 * PAGE_BYTES, 4);
        n.offer(7, A, 20, false);
        return s.machine.balloon.size();
      }),
    ]);
    expect(came).toEqual([true, true, 9, 0, 0, 0]);
    expect(w.peek(0)(EMPTY * PAGE_BYTES + 8)).toBe(9);
  });

  test('an owner may end before who has mapped its page: till then it is nobody else’s', () => {
    let [limbo, free] = [-1, -1];
    const end = (w: Host): void => {
      expect(w.hypervisor.destroy(0)).toBe(null);
      [limbo, free] = [w.cpu(Cpu.limbo), w.cpu(Cpu.free)];
    };
    const { came, w } = play(
      [
        offered(true),
        b((n) => n.map(A, 3, EMPTY, true)),
        b((_n, s) => s.machine.load(EMPTY * PAGE_BYTES)),
        b((n) => n.copy(A, 3, 20, false)),
        b((n) => n.unmap(EMPTY)),
      ],
      { after: 2, act: end },
    );
    expect(came).toEqual([true, true, 5, false, true]);
    expect([limbo, w.cpu(Cpu.limbo)]).toEqual([1, 0]);
    expect(w.cpu(Cpu.free)).toBe(free + 1);
  });

  test('who ends gives back what it had mapped; its number is nobody else’s later', () => {
    const seen: number[] = [];
    const { came } = play(
      [
        offered(true),
        b((n) => n.map(A, 3, EMPTY, true)),
        a((n) => n.withdraw(3)),
        offered(true),
        a((n) => n.listen(2, B)),
      ],
      {
        after: 2,
        act: (w) => {
          expect(w.hypervisor.destroy(1)).toBe(null);
          const heir = new Script({
            trap: (s, { cause }) => {
              if (cause !== Cause.environmentCall) return false;
              const n = s.machine.neighbours;
              seen.push(n.self(), +n.map(A, 3, EMPTY, true), +n.copy(A, 3, 20, false));
              s.machine.contexts.setResult(1, 0);
              return true;
            },
          });
          const body = program(function* (port) {
            for (let n = 0; n < 40; n++) {
              yield* port.call(0);
              port.work(1000) ?? (yield* port.fault());
            }
          });
          expect(w.hypervisor.create(guest(heir, body, 3))).toBe(1);
        },
      },
    );
    expect(came).toEqual([true, true, true, true, false]);
    expect(seen.length).toBeGreaterThan(30);
    expect([...new Set(seen)]).toEqual([5, 0]); // the second life of row 1, of 3 rows
  });

  test('an offer is fetched once: what changes after that is not seen', () => {
    let spoilt = 0;
    const { came } = play([
      offered(false),
      b((n, s, w) => {
        // Each word that is loaded is spoiled at once: the next look would find a table, writable.
        const paging = w.hypervisor.machines[0]?.paging;
        const page = paging instanceof ParavirtPaging ? paging.types.shared(Shared.grants) : 0;
        const first = page * PAGE_BYTES + 3 * Offer.words * 4;
        const lie = [3, A, s.spaceOf(1).leaf];
        const { memory } = w.machine;
        const get = memory.get.bind(memory);
        memory.get = (address) => {
          const word = get(address);
          if (address >= first && address < first + 12) {
            spoilt++;
            memory.put(address, lie[(address - first) / 4] ?? 0);
          }
          return word;
        };
        const may = n.map(A, 3, EMPTY, false);
        memory.get = get;
        return may;
      }),
      b((_n, s) => s.machine.load(EMPTY * PAGE_BYTES)),
      b((_n, s) => s.machine.readPtes(s.spaceOf(1).root, 0, 1).length),
    ]);
    expect(spoilt).toBeGreaterThan(2);
    expect(came).toEqual([true, true, 5, 1]);
  });
});

describe('random guests', () => {
  const page = fc.constantFrom(50, 51, 20, EMPTY, EMPTY + 1, PAGES - 1, 9, 10);
  const entry = fc.integer({ min: 0, max: 2 });
  const op = fc.record({
    what: fc.constantFrom(
      ...(['offer', 'expect', 'withdraw', 'map', 'unmap', 'copy', 'transfer'] as const),
      ...(['leaf', 'clear', 'touch', 'give', 'table'] as const),
    ),
    who: fc.constantFrom(A, B),
    entry,
    page,
    write: fc.boolean(),
  });

  test('keep types, owners and counts, and give all back at their end', () => {
    fc.assert(
      fc.property(fc.array(op, { minLength: 6, maxLength: 40 }), fc.boolean(), (ops, first) => {
        const turns = ops.map((does): Turn => ({
          who: does.who,
          act: (n, s) => {
            const { machine: m } = s;
            const other = A + B - does.who;
            if (does.what === 'offer') n.offer(does.entry, other, does.page, does.write);
            else if (does.what === 'expect') n.expect(does.entry, other, does.page);
            else if (does.what === 'withdraw') return n.withdraw(does.entry);
            else if (does.what === 'map') return n.map(other, does.entry, does.page, does.write);
            else if (does.what === 'unmap') return n.unmap(does.page);
            else if (does.what === 'copy') return n.copy(other, does.entry, does.page, does.write);
            else if (does.what === 'transfer') return n.transfer(other, does.entry, does.page);
            else if (does.what === 'leaf') s.map(1, 5, does.write ? RW : RO, does.page);
            else if (does.what === 'clear') s.unmap(1, 5);
            else if (does.what === 'touch') return m.load(does.page * PAGE_BYTES);
            else if (does.what === 'give') m.balloon.give(does.page);
            else {
              const { middle } = s.spaceOf(1);
              m.writePtes([{ table: middle, index: 1, value: pte(does.page, PTE_V) }]);
              m.writePtes([{ table: middle, index: 1, value: 0 }]);
            }
            m.loadUser(0x5000);
            return true;
          },
        }));
        const { w } = play(turns);
        const free = (): number => w.cpu(Cpu.free);
        for (const vm of first ? [0, 1] : [1, 0]) {
          expect(w.hypervisor.destroy(vm)).toBe(null);
          expect(violations(w.machine, w.hypervisor)).toEqual([]);
        }
        expect([free(), w.cpu(Cpu.limbo)]).toEqual([w.machine.pages - w.hypervisor.state.end, 0]);
      }),
      { numRuns: 25 },
    );
  });
});

describe('an exchange', () => {
  /** A's program fills a page, B's program reads it: by what they share, in `rounds` rounds. */
  function exchange(rounds: number): { readonly got: number[]; readonly w: Host } {
    const got: number[] = [];
    const [MINE, PORT] = [50, 3];
    /** Runs on when the other has signalled; who does not wait keeps the signal. */
    const wake = (s: Script): boolean => {
      if (s.machine.neighbours.take() === 0) return true;
      s.put(Cell.own, s.get(Cell.current) < 0 ? 0 : 1);
      s.put(Cell.current, 1);
      return true;
    };
    const wait = (s: Script): void => {
      const signalled = s.get(Cell.own) + s.machine.neighbours.take();
      s.put(Cell.own, 0);
      if (signalled === 0) s.put(Cell.current, -1);
    };
    const producer = new Script({
      boot: (s) => {
        s.space(1);
        s.map(1, 5, RW, MINE);
        s.machine.neighbours.offer(0, B, MINE, true);
        s.machine.neighbours.listen(PORT, B);
        s.start(1);
      },
      trap: (s, { cause }) => {
        if (cause === Cause.externalInterrupt) return wake(s);
        if (cause !== Cause.environmentCall) return false;
        s.machine.contexts.setResult(1, 0);
        if (s.machine.contexts.argument(1, 0) === 1) s.machine.neighbours.send(PORT);
        else wait(s);
        return true;
      },
    });
    const consumer = new Script({
      boot: (s) => {
        s.space(1);
        s.map(1, 4);
        s.start(1);
      },
      trap: (s, { cause }) => {
        if (cause === Cause.externalInterrupt) return wake(s);
        if (cause !== Cause.environmentCall) return false;
        const { neighbours: n, contexts } = s.machine;
        const call = contexts.argument(1, 0);
        if (call === 0) {
          const there = n.connect(PORT, A, PORT) && n.map(A, 0, EMPTY, true);
          if (there) s.map(1, 5, RW, EMPTY);
          contexts.setResult(1, 0, +there);
          return true;
        }
        contexts.setResult(1, 0);
        if (call === 1) n.send(PORT);
        else wait(s);
        return true;
      },
    });
    // Signals only wake: what there is to read, and what has been read, stands in the page.
    const [FILLED, READ] = [0x5020, 0x5024];
    const fills = program(function* (port) {
      for (let n = 0; n < rounds; n++) {
        for (let word = 0; word < 8; word++) yield* port.store(0x5000 + word * 4, n * 10 + word);
        yield* port.store(FILLED, n + 1);
        yield* port.call(1);
        while ((yield* port.load(READ)) !== n + 1) yield* port.call(2);
      }
    });
    const reads = program(function* (port) {
      while ((yield* port.call(0)).value === 0) yield* port.load(0x4000);
      for (let n = 0; n < rounds; n++) {
        while ((yield* port.load(FILLED)) !== n + 1) yield* port.call(2);
        let sum = 0;
        for (let word = 0; word < 8; word++) sum += yield* port.load(0x5000 + word * 4);
        got.push(sum);
        yield* port.store(READ, n + 1);
        yield* port.call(1);
      }
    });
    const w = world([guest(producer, fills, 1), guest(consumer, reads, 2)]);
    const wrong = watchTypes(w.machine, w.hypervisor, [0, 1], 7);
    w.machine.run(2e7);
    expect(wrong()).toEqual([]);
    return { got, w };
  }

  test('of what one program writes and another reads copies nothing: two signals a round', () => {
    const [few, many] = [exchange(10), exchange(40)];
    expect(many.got).toEqual(Array.from({ length: 40 }, (_, n) => n * 80 + 28));
    for (const { w } of [few, many]) expect(w.machine.hart.counters.totals().pagesCopied).toBe(0);
    for (const vm of [0, 1]) {
      const [less, more] = [few.w.hypervisor.exits(vm), many.w.hypervisor.exits(vm)];
      expect([more.event - less.event, more.grant - less.grant]).toEqual([30, 0]);
    }
  });
});

describe('ports', () => {
  /** Whether a guest took an external interrupt since its last turn like this. */
  const heard: Turn['act'] = (_n, s) => {
    const times = s.get(Cell.own);
    s.put(Cell.own, 0);
    return times;
  };
  const joined: readonly Turn[] = [
    a((n) => n.listen(4, B)),
    b((n) => n.connect(9, A, 4)),
    a((n) => n.take()),
    b((n) => n.take()),
    a(heard),
    b(heard),
  ];

  test('connecting signals both once; a signal is told once, and taken once', () => {
    expect(
      results([
        ...joined,
        b((n) => n.send(9)),
        b((n) => n.send(9)),
        a(() => true),
        a(heard),
        a((n) => n.take()),
        a((n) => n.take()),
        a(heard),
        a((n) => n.send(4)),
        b((n) => n.take()),
      ]),
    ).toEqual([true, true, 1 << 4, 1 << 9, 1, 1, true, true, true, 1, 1 << 4, 0, 0, true, 1 << 9]);
  });

  test('a masked port interrupts nobody, and is not lost', () => {
    expect(
      results([
        ...joined,
        a((n) => (n.mask(1 << 4), true)),
        b((n) => n.send(9)),
        a(() => true),
        a((n, s, w) => n.take() * 10 + Number(heard(n, s, w))),
        a((n) => (n.mask(0), n.take())),
        b((n) => n.send(9)),
        a((n) => n.take()),
      ]).slice(joined.length),
    ).toEqual([true, true, true, 0, 1 << 4, true, 1 << 4]);
  });

  test('a port that is signalled already tells nobody again', () => {
    expect(
      results([
        ...joined,
        b((n) => n.send(9)),
        a(() => true),
        a(heard),
        b((n) => n.send(9)),
        a(() => true),
        a(heard),
        a((n) => n.take()),
      ]).slice(joined.length),
    ).toEqual([true, true, 1, true, true, 0, 1 << 4]);
  });

  test.each([
    [
      'a port of its own that is taken',
      [...joined, a((n) => n.listen(5, B)), b((n) => n.connect(9, A, 5))],
    ],
    ['a port to itself', [a((n) => n.listen(4, A))]],
    ['a port that is not connected', [b((n) => n.send(9))]],
    ['a port that only awaits', [b((n) => n.listen(9, A)), b((n) => n.send(9))]],
    ['a port that nobody awaits', [b((n) => n.connect(9, A, 4))]],
    [
      'a port that awaits another',
      [a((n) => n.listen(4, 3) || n.listen(4, A)), b((n) => n.connect(9, A, 4))],
    ],
    ['a port that is taken', [...joined, b((n) => n.listen(9, A))]],
    ['a port that is connected', [...joined, b((n) => n.connect(10, A, 4))]],
    ['no port', [b((n) => n.listen(32, A) || n.listen(-1, A) || n.send(99) || n.close(-7))]],
    [
      'a port that was closed at the other end',
      [...joined, a((n) => n.close(4)), b((n) => n.send(9))],
    ],
  ] as [string, readonly Turn[]][])('are refused: %s', (_name, turns) => {
    expect(results(turns).at(-1)).toBe(false);
  });

  test('a port whose other end is gone is free', () => {
    const { came } = play(
      [...joined, a((n) => n.send(4)), a((n) => n.close(4)), a((n) => n.listen(4, B))],
      { after: joined.length, act: (w) => expect(w.hypervisor.destroy(1)).toBe(null) },
    );
    expect(came.slice(joined.length)).toEqual([false, false, false]);
  });

  test('what a guest writes into its page of events is its own affair', () => {
    const lie = (word: number): Turn =>
      a((_n, _s, w) => {
        const paging = w.hypervisor.machines[0]?.paging;
        const page = paging instanceof ParavirtPaging ? paging.types.shared(Shared.events) : 0;
        for (let n = 0; n < 8; n++) w.machine.memory.put(page * PAGE_BYTES + n * 4, word);
        return true;
      });
    const { came, w } = play([
      ...joined,
      lie(-1),
      b((n) => n.send(9)),
      a((n) => n.take()),
      lie(0),
      b((n) => n.send(9)),
      a((n) => n.take()),
    ]);
    expect(came.slice(joined.length)).toEqual([true, true, 0, true, true, 1 << 4]);
    expect([w.state(0), w.state(1)]).toEqual([VmState.waiting, VmState.waiting]);
  });
});
