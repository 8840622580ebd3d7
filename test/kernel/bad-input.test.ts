/**
 * Bad input: any call, any arguments at all, in any order. Whatever a program asks, the kernel
 * answers with a status, or ends that program; it never throws, on the physical machine or in a
 * virtual one. A neighbour counts on meanwhile, and every invariant holds at the end.
 *
 * refusals.test.ts spoils one argument of a valid call at a time and looks at the answer; here all
 * of them are drawn at once, of types as well that no program in TypeScript could name.
 */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  ALL_RIGHTS,
  BATCH_MAX,
  Call,
  CALL_COUNT,
  Env,
  EnvState,
  MAP_READ,
  MAP_WRITE,
  packName,
  PAGE_BITS,
  Start,
  Status,
} from '../../kernel/abi.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { image, type Op, type UserPort } from '../../libos/libos.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { Board, BOARDS, PAGES } from '../programs/boards.ts';
import { at, BATCH, Jos } from '../programs/jos.ts';
import { Raw } from '../../check/invariants/raw.ts';
import { audit } from '../../check/invariants/index.ts';

const KERNBASE = 0x8000_0000;
const TIME = 12_000_000; // cycles
const STATUSES: readonly number[] = Object.values(Status);

/** Numbers that are no argument of anything, or at its edge. */
const WILD = [
  ...[-1, -2, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 53, -(2 ** 31), -(2 ** 53)],
  ...[NaN, Infinity, -Infinity, 0.5, -1.5, 1e308, 5e-324, -0, 0x0fff_ffff, 0x1000_0000],
];
/** What is no number: a register takes it for one, once, or the program has failed. */
const ODD = [
  ...['5', '', 'null', true, null, undefined, [], [7], {}, { valueOf: () => 3 }, 10n],
  () => 1,
] as readonly unknown[] as readonly number[];
/** Addresses: unmapped, exposed, across the end of what is mapped, unaligned, the kernel's. */
const POINTERS = [
  ...[0, at(320), at(Start.infoPage), at(Start.stackPage + 1) - 4, at(Start.stackPage + 1) - 2],
  ...[BATCH, BATCH + 1, KERNBASE, KERNBASE + 4096, 2 ** 32 - 4, 2 ** 38, at(Start.pagePages)],
];
/** Names: rows, ids of the past and the future, pages of every kind, with and without a tag. */
const NAMES = [
  ...[1, 2, 3, 15, 16, 17, 63, 64, 100, 511, 512, PAGES - 1, PAGES, PAGES + 1],
  ...[(1 << 14) | 1, (1 << 14) | 2, (2 << 14) | 1, (1 << 14) | 0, (0x1ffff << 14) | 1],
  ...[40 | (1 << PAGE_BITS), 40 | (255 << PAGE_BITS), 300 | (2 << PAGE_BITS)],
  ...[packName([1]).a, packName([2]).a, packName([1, 1, 1, 1]).b, ALL_RIGHTS],
  ...[MAP_READ | MAP_WRITE, BATCH_MAX, BATCH_MAX + 1, 10_000],
];
const argument = fc.oneof(
  { weight: 3, arbitrary: fc.nat(12) },
  { weight: 2, arbitrary: fc.nat(PAGES) },
  { weight: 2, arbitrary: fc.constantFrom(...NAMES) },
  { weight: 2, arbitrary: fc.constantFrom(...POINTERS) },
  { weight: 2, arbitrary: fc.constantFrom(...WILD) },
);
const odd = fc.oneof({ weight: 4, arbitrary: argument }, fc.constantFrom(...ODD));
type Try = readonly [call: number, args: readonly number[]];
const tryOf = (calls: fc.Arbitrary<number>, args = argument): fc.Arbitrary<Try> =>
  fc.tuple(calls, fc.array(args, { minLength: 8, maxLength: 8 }));
/** Calls that may end the caller, or keep it waiting for ever, come last. */
const LAST: readonly number[] = [
  ...[Call.sleep, Call.ipcCall, Call.ipcReplyWait, Call.envDestroy, Call.envSuspend, Call.yield],
];
const FIRST = Array.from({ length: CALL_COUNT }, (_, n) => n).filter((n) => !LAST.includes(n));
const tries = fc
  .tuple(
    fc.array(tryOf(fc.constantFrom(...FIRST)), { minLength: 60, maxLength: 60 }),
    fc.array(tryOf(fc.constantFrom(...LAST, ...FIRST, -1, CALL_COUNT, 0.5, NaN), odd), {
      maxLength: 6,
    }),
  )
  .map(([first, last]) => [...first, ...last]);

/** Makes the tries, and says what it was answered. */
class Hostile extends Jos {
  readonly #tries: readonly Try[];
  readonly #heard: (status: number, value: number) => void;
  constructor(port: UserPort, all: readonly Try[], heard: Hostile['heard']) {
    super(port);
    this.#tries = all;
    this.#heard = heard;
  }
  heard(status: number, value: number): void {
    this.#heard(status, value);
  }
  override *umain(): Op<void> {
    yield* this.catchFaults();
    for (const [call, args] of this.#tries) {
      // Buffers hold something: words that name pages, slots and calls.
      for (let n = 0; n < 16; n++) {
        const va = BATCH + n * 4;
        this.port.store32(va, (n * 37 + call) % PAGES) ?? (yield* this.port.fault());
      }
      const { status, value } = yield* this.port.call(call, ...args);
      this.heard(status, value);
    }
  }
}

/** Counts as long as it lives. */
class Neighbour extends Jos {
  override *umain(): Op<void> {
    for (let n = 0; ; n++) {
      yield* this.port.store(at(Start.stackPage) + 3_000, n);
      this.port.work(200) ?? (yield* this.port.fault());
      if (n % 500 === 499) yield* this.print('.');
    }
  }
}

/** Every answer is a status; of a refusal the value is the index of an argument. */
function expectAnswers(heard: readonly (readonly [number, number])[]): void {
  const odd = heard.filter(([status, value]) => {
    const refused = status !== Status.ok && status !== Status.again;
    return !STATUSES.includes(status) || (refused && !(value >= 0 && value < BATCH_MAX));
  });
  expect(odd).toEqual([]);
}

describe.each(BOARDS)('the exokernel on the %s', (on) => {
  test('answers whatever it is asked, and goes on', () => {
    let answers = 0;
    fc.assert(
      fc.property(tries, (all) => {
        const heard: (readonly [number, number])[] = [];
        const hostile = image('hostile', (port) => {
          return new Hostile(port, all, (status, value) => heard.push([status, value]));
        });
        const neighbour = image('neighbour', (port) => new Neighbour(port));
        const board = new Board(on, { images: [hostile, neighbour], tenants: [0, 1] });
        board.machine.run(TIME);
        expectAnswers(heard);
        answers += heard.length;
        expect(board.env(2, Env.state)).toBe(EnvState.ready);
        expect(board.said(2).length).toBeGreaterThan(5);
        if (on === 'physical machine') {
          expect(audit(new Raw(board.machine, board.kernel.state), undefined, true)).toEqual([]);
        }
      }),
      { numRuns: on === 'physical machine' ? 20 : 10 },
    );
    // Most tries are answered: it does not fall silent at the first.
    expect(answers).toBeGreaterThan(on === 'physical machine' ? 700 : 350);
  });
});

test('the unikernel answers whatever it is asked, and the simulator stands', () => {
  let answers = 0;
  fc.assert(
    fc.property(tries, (all) => {
      const heard: (readonly [number, number])[] = [];
      const hostile = image('hostile', (port) => {
        return new Hostile(port, all, (status, value) => heard.push([status, value]));
      });
      const machine = new PhysicalMachine({
        pages: PAGES,
        images: [hostile],
        medium: new RamMedium(20),
        output: () => undefined,
      });
      const tenant = { image: 0, quota: 200, firstBlock: 0, blocks: 16 };
      machine.boot(new Unikernel({ environments: 16, sliceCycles: 20_000 }, tenant, 1));
      machine.run(TIME);
      expectAnswers(heard);
      answers += heard.length;
    }),
    { numRuns: 30 },
  );
  expect(answers).toBeGreaterThan(1_000);
});
