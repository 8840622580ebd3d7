/**
 * Programs of the Xok tree about sleeping: wakeup predicates, alarms, sleeps with a deadline. Our
 * kernel wakes a sleeper for an event, a predicate or a deadline and says which; what an alarm is,
 * and whether a sleep may be interrupted, the library decides.
 */
import { describe, expect, test } from 'vitest';

import {
  Env,
  Operator,
  READ,
  Status,
  WRITE,
  Woken,
  packName,
  PAGE_BITS,
} from '../../kernel/abi.ts';
import { image, type Op } from '../../libos/libos.ts';
import type { Entry } from '../../machine/user-port.ts';
import { BOARDS, play } from './boards.ts';
import { at, BATCH, COMMON, FIRST, Jos, MEMORY, OWN, RW } from './jos.ts';

const lines = (text: string): string[] => text.split('\n').slice(0, -1);
/** Two pages that parent and child have at the same place. */
const [SHARED, GIVEN] = [MEMORY, MEMORY + 1];
const word = (n: number): number => at(SHARED) + n * 4;

/** A comparison of a word of the page in access entry `entry`, for slot `slot`. */
interface Comparison {
  readonly page: number;
  readonly word: number;
  readonly operator: number;
  readonly value: number;
  readonly tag: number;
  readonly last?: boolean;
  readonly entry?: number;
  readonly slot?: number;
}

abstract class Sleeper extends Jos {
  /** Why a sleep ended, with the tag of a product; or the refusal. */
  *sleeps(cycles: number, terms: readonly Comparison[], seen?: number): Op<readonly number[]> {
    const words = terms.flatMap((one) => [
      ((one.entry ?? 0) << 28) | one.page,
      one.word | (one.operator << 16) | ((one.slot ?? COMMON) << 20) | (one.last ? 1 << 24 : 0),
      one.value,
      one.tag,
    ]);
    for (const [n, value] of words.entries()) yield* this.port.store(BATCH + n * 4, value);
    const events = seen ?? (yield* this.env(this.self, Env.events));
    const { status, value } = yield* this.sys.sleep(events, cycles, BATCH, terms.length);
    if (status !== Status.ok) return [-status, value];
    return [this.port.result(1), this.port.result(2)];
  }
  /** Waits without sleeping for the other's word. */
  *until(at: number, value: number): Op<void> {
    while ((yield* this.port.load(at)) !== value) yield* this.sys.yieldTo(-1);
  }
}

describe.each(BOARDS)('on the %s', (on) => {
  test('wk-test: a predicate wakes with the tag of the product that is true', () => {
    class WkTest extends Sleeper {
      override *umain(): Op<void> {
        const { port, sys } = this;
        const page = yield* this.allocate(SHARED);
        const given = yield* this.allocate(GIVEN);
        const made = yield* this.exofork();
        if (made === null) return;
        yield* this.map(SHARED, page, RW, made.leaf);
        // The second page by an entry of its own, for the child's own name.
        const name = packName([this.account, 9, 0, made.env & 0x3fff]);
        yield* sys.accessAdd(given, COMMON, 1, name, READ | WRITE);
        yield* port.store(word(8), given);
        yield* this.start(made, FIRST, page);
        // Each asleep before the word changes that it waits for.
        for (const [n, value] of [
          [1, 5], // half of the first product: not yet
          [2, 3], // the other half
          [3, -7], // less than -6, signed
        ] as const) {
          yield* this.until(word(7), n === 1 ? 1 : n - 1);
          for (let turns = 0; turns < 3; turns++) yield* sys.yieldTo(-1);
          yield* port.store(word(n), value);
        }
        // The right to the last one's page ends while it sleeps: it is not left waiting.
        yield* this.until(word(7), 3);
        for (let turns = 0; turns < 3; turns++) yield* sys.yieldTo(-1);
        while ((yield* sys.accessRemove(given, COMMON, 1)).status === Status.again);
        yield* this.wait(made.env);
      }
      override entries(): readonly Entry[] {
        return [
          this.child(
            function* (this: WkTest, page: number): Op<void> {
              const sum = [
                { page, word: 1, operator: Operator.equal, value: 5, tag: 10 },
                { page, word: 2, operator: Operator.greater, value: 2, tag: 11, last: true },
                { page, word: 3, operator: Operator.less, value: -6, tag: 12, last: true },
              ];
              yield* this.port.store(word(7), 1);
              yield* this.print(`${(yield* this.sleeps(-1, sum)).join(' ')}\n`);
              // Still true: it does not wait at all.
              yield* this.print(`${(yield* this.sleeps(-1, sum)).join(' ')}\n`);
              yield* this.port.store(word(7), 2);
              yield* this.print(`${(yield* this.sleeps(-1, sum.slice(2))).join(' ')}\n`);
              const given = yield* this.port.load(word(8));
              const never = { word: 0, operator: Operator.equal, value: 1, tag: 13 };
              yield* this.port.store(word(7), 3);
              const theirs = { ...never, page: given, entry: 1, slot: OWN };
              yield* this.print(`${(yield* this.sleeps(-1, [theirs])).join(' ')}\n`);
              // A page that it may not read, or that is none, it cannot wait for.
              yield* this.print(`${(yield* this.sleeps(0, [theirs])).join(' ')}\n`);
              const none = { ...never, page: (1 << PAGE_BITS) - 1 };
              yield* this.print(`${(yield* this.sleeps(0, [none])).join(' ')}\n`);
            }.bind(this),
          ),
        ];
      }
    }
    const board = play(on, { images: [image('wk-test', (port) => new WkTest(port), 1)] });
    const { predicate } = Woken;
    expect(lines(board.said(1))).toEqual([
      ...[`${predicate} 11`, `${predicate} 11`, `${predicate} 12`],
      ...[`${-Status.notPermitted} 2`, `${-Status.absent} 2`, `${-Status.badArgument} 2`],
    ]);
    expect(board.said(0)).toBe('');
  });

  test('alarm: set, it rings once and in time; cancelled, never; set again, at the later time', () => {
    const [ASK, RINGS, AT] = [1, 2, 3]; // words: cycles to go, or -1; how often it rang; when
    class Alarm extends Sleeper {
      override *umain(): Op<void> {
        const { port, sys } = this;
        const page = yield* this.allocate(SHARED);
        yield* port.store(word(ASK), -1);
        const clock = yield* this.exofork();
        if (clock === null) return;
        yield* this.map(SHARED, page, RW, clock.leaf);
        yield* this.start(clock, FIRST);
        const set = function* (cycles: number): Op<number> {
          yield* port.store(word(ASK), cycles);
          yield* sys.notify(clock.env, COMMON);
          return port.cycles();
        };
        const passes = function* (cycles: number): Op<void> {
          const until = port.cycles() + cycles;
          while (port.cycles() < until) yield* sys.yieldTo(-1);
        };
        const told = function* (this: Alarm, since: number, due: number): Op<void> {
          const late = (yield* port.load(word(AT))) - (since | 0) - due;
          const inTime = late >= 0 && late < 3 * 10_000;
          yield* this.print(`${yield* port.load(word(RINGS))} ${inTime ? 'in time' : late}\n`);
        }.bind(this);
        let since = yield* set(60_000);
        yield* passes(40_000);
        yield* this.print(`${yield* port.load(word(RINGS))}\n`);
        yield* passes(400_000); // once
        yield* told(since, 60_000);
        yield* set(60_000);
        yield* passes(20_000);
        yield* set(-1);
        yield* passes(200_000);
        yield* this.print(`${yield* port.load(word(RINGS))} cancelled\n`);
        yield* set(60_000);
        yield* passes(20_000);
        since = yield* set(200_000);
        yield* passes(150_000);
        yield* this.print(`${yield* port.load(word(RINGS))} not yet\n`);
        yield* passes(200_000);
        yield* told(since, 200_000);
        yield* sys.envDestroy(clock.env, COMMON, 0);
      }
      override entries(): readonly Entry[] {
        return [
          this.child(
            function* (this: Alarm): Op<void> {
              for (;;) {
                const seen = yield* this.env(this.self, Env.events);
                const cycles = yield* this.port.load(word(ASK));
                const [why] = yield* this.sleeps(cycles, [], seen);
                if (why !== Woken.deadline) continue; // another wish
                yield* this.port.store(word(AT), this.port.cycles() | 0);
                yield* this.port.store(word(RINGS), (yield* this.port.load(word(RINGS))) + 1);
                yield* this.port.store(word(ASK), -1);
              }
            }.bind(this),
          ),
        ];
      }
    }
    const board = play(on, { images: [image('alarm', (port) => new Alarm(port), 1)] });
    expect(lines(board.said(1))).toEqual([
      '0',
      '1 in time',
      '1 cancelled',
      '1 not yet',
      '2 in time',
    ]);
    expect(board.said(0)).toBe('');
  });

  test('tsleep: a time-out, a wakeup, and an interruption only if it was asked for', () => {
    const CHANNEL = 1; // word that is woken
    class TSleep extends Sleeper {
      /** BSD's: 0 woken, EWOULDBLOCK, or EINTR if `interruptible`. */
      *tsleep(page: number, value: number, cycles: number, interruptible: boolean): Op<string> {
        const wakeup = { page, word: CHANNEL, operator: Operator.equal, value, tag: 1 };
        const until = this.port.cycles() + cycles;
        for (;;) {
          const left = Math.max(0, until - this.port.cycles());
          const [why] = yield* this.sleeps(cycles < 0 ? -1 : left, [wakeup]);
          if (why === Woken.predicate) return '0';
          if (why === Woken.deadline) return 'EWOULDBLOCK';
          if (interruptible) return 'EINTR';
        }
      }
      override *umain(): Op<void> {
        const { port, sys } = this;
        const page = yield* this.allocate(SHARED);
        const made = yield* this.exofork();
        if (made === null) return;
        yield* this.map(SHARED, page, RW, made.leaf);
        yield* this.start(made, FIRST, page);
        const after = function* (this: TSleep, round: number): Op<void> {
          yield* this.until(word(2), round);
          for (let turns = 0; turns < 3; turns++) yield* sys.yieldTo(-1);
        }.bind(this);
        yield* after(2);
        yield* port.store(word(CHANNEL), 2); // wakeup
        yield* after(3);
        for (let n = 0; n < 3; n++) {
          yield* sys.notify(made.env, COMMON); // does not interrupt it
          for (let turns = 0; turns < 3; turns++) yield* sys.yieldTo(-1);
        }
        yield* this.print('not interrupted\n');
        yield* port.store(word(CHANNEL), 3);
        yield* after(4);
        yield* sys.notify(made.env, COMMON);
        yield* this.wait(made.env);
      }
      override entries(): readonly Entry[] {
        return [
          this.child(
            function* (this: TSleep, page: number): Op<void> {
              const before = this.port.cycles();
              const out = yield* this.tsleep(page, 1, 50_000, false);
              const took = this.port.cycles() - before;
              const inTime = took >= 50_000 && took < 80_000;
              yield* this.print(`${out} ${inTime ? 'in time' : took}\n`);
              for (const [round, cycles, interruptible] of [
                [2, -1, false],
                [3, 10_000_000, false],
                [4, -1, true],
              ] as const) {
                yield* this.port.store(word(2), round);
                const why = yield* this.tsleep(page, round, cycles, interruptible);
                yield* this.print(`${why}\n`);
              }
            }.bind(this),
          ),
        ];
      }
    }
    const board = play(on, { images: [image('tsleep', (port) => new TSleep(port), 1)] });
    expect(lines(board.said(1))).toEqual([
      ...['EWOULDBLOCK in time', '0', 'not interrupted', '0', 'EINTR'],
    ]);
    expect(board.said(0)).toBe('');
  });
});
