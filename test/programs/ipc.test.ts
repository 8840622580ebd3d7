/**
 * JOS's programs about IPC (lab 4, part C) and Xok's ipctest, over protected control transfer: a
 * call waits for its reply, and callers wait in a queue. So what JOS sends and receives are here
 * calls and replies, and what JOS starves is served in order of arrival.
 */
import { describe, expect, test } from 'vitest';

import { EnvState, READ, Status, WRITE } from '../../kernel/abi.ts';
import { image, type Op } from '../../libos/libos.ts';
import type { Entry } from '../../machine/user-port.ts';
import { Cause } from '../../machine/machine.ts';
import { Board, BOARDS, ended, play } from './boards.ts';
import { at, COMMON, FIRST, hex, Jos, MEMORY } from './jos.ts';

const lines = (text: string): string[] => text.split('\n').slice(0, -1);

describe.each(BOARDS)('on the %s', (on) => {
  test('sendpage: the same page there and back, with what the child wrote in it', () => {
    const [TEMP, THERE, BACK] = [MEMORY, 300, 400];
    const TO_CHILD = 'hello child environment! how are you?';
    const TO_PARENT = 'hello parent environment! I am good.';
    class SendPage extends Jos {
      override *umain(): Op<void> {
        const { port, sys } = this;
        yield* this.catchFaults();
        const page = yield* this.allocate(TEMP);
        yield* sys.ipcWindow(this.leaf, BACK, COMMON);
        const child = yield* this.spawn(FIRST);
        if (child === null) return;
        while ((yield* this.stateOf(child.env)) !== EnvState.receiving) yield* sys.yieldTo(-1);
        yield* this.write(at(TEMP), TO_CHILD);
        const grant = { page, slot: COMMON, rights: READ | WRITE, entry: 1 };
        const { from, granted, words } = yield* sys.ipcCall(child.env, [page, 5], grant);
        yield* this.print(`answer ${words[1]}, page at ${granted}\n`);
        yield* this.#receive('parent', from, BACK, TO_PARENT);
        // It is the page that was sent: what is written here is read there. And it is read-only.
        yield* port.store(at(TEMP) + 2048, 77);
        yield* this.print(`same page ${(yield* port.load(at(BACK) + 2048)) === 77}\n`);
        yield* port.store(at(BACK) + 2048, 78);
      }
      override *onFault(cause: number, address: number): Op<boolean> {
        yield* this.print(`cause ${cause} at ${hex(address)}\n`);
        yield* this.exit(4);
        return true;
      }
      *#receive(who: string, from: number, index: number, wanted: string): Op<void> {
        const got = yield* this.string(at(index));
        yield* this.print(`${from} got message: ${got}\n`);
        if (got === wanted) yield* this.print(`${who} received correct message\n`);
      }
      override entries(): readonly Entry[] {
        return [
          this.child(
            function* (this: SendPage): Op<void> {
              const { sys } = this;
              yield* sys.ipcWindow(this.leaf, THERE, COMMON);
              const { from, words, granted } = yield* sys.ipcReplyWait(-1, []);
              yield* this.#receive('child', from, granted, TO_CHILD);
              yield* this.write(at(granted), TO_PARENT);
              const grant = { page: words[0], slot: COMMON, rights: READ, entry: 2 };
              yield* sys.ipcReplyWait(from, [0, words[1] + 1], grant);
            }.bind(this),
          ),
        ];
      }
    }
    const board = play(on, { images: [image('sendpage', (port) => new SendPage(port), 1)] });
    expect(board.said(1)).toBe(
      `${board.id(1)} got message: ${TO_CHILD}\nchild received correct message\n` +
        `answer 6, page at 400\n${board.id(2)} got message: ${TO_PARENT}\n` +
        'parent received correct message\nsame page true\n' +
        `cause ${Cause.storePageFault} at ${hex(at(BACK) + 2048)}\n`,
    );
    expect(board.said(0)).toBe('');
    expect(board.end(1)).toEqual(ended(4));
    expect(board.end(2).state).toBe('receiving');
  });

  test("pingpong: a number goes up to ten between two; who sent it is the kernel's word", () => {
    class PingPong extends Jos {
      override *umain(): Op<void> {
        const child = yield* this.spawn(FIRST);
        if (child === null) return;
        yield* this.print(`send 0 from ${this.self} to ${child.env}\n`);
        for (let i = 0; ; i++) {
          const { status, from, words } = yield* this.sys.ipcCall(child.env, [i]);
          if (status !== Status.ok) {
            yield* this.print(`${this.self} got refusal ${status}\n`);
            return;
          }
          [i] = words;
          yield* this.print(`${this.self} got ${i} from ${from}\n`);
        }
      }
      override entries(): readonly Entry[] {
        return [
          this.child(
            function* (this: PingPong): Op<void> {
              let message = yield* this.sys.ipcReplyWait(-1, []);
              for (;;) {
                const { from, words } = message;
                yield* this.print(`${this.self} got ${words[0]} from ${from}\n`);
                if (words[0] === 10) return;
                message = yield* this.sys.ipcReplyWait(from, [words[0] + 1]);
              }
            }.bind(this),
          ),
        ];
      }
    }
    const board = play(on, { images: [image('pingpong', (port) => new PingPong(port), 1)] });
    const [parent, child] = [board.id(1), board.id(2)];
    const wanted = Array.from({ length: 11 }, (_, i) =>
      i % 2 === 0 ? `${child} got ${i} from ${parent}` : `${parent} got ${i} from ${child}`,
    );
    // The child ended without an answer to the last call.
    expect(lines(board.said(1))).toEqual([
      `send 0 from ${parent} to ${child}`,
      ...wanted,
      `${parent} got refusal ${Status.badEnvironment}`,
    ]);
    expect([board.end(1), board.end(2)]).toEqual([ended(), ended()]);
  });

  test('primes: a pipeline of environments, one for each prime, until there is none left', () => {
    class Primes extends Jos {
      override *umain(): Op<void> {
        const first = yield* this.spawn(FIRST);
        if (first === null) return;
        for (let n = 2; ; n++) {
          const { status } = yield* this.sys.ipcCall(first.env, [n]);
          if (status !== Status.ok) break;
        }
      }
      override entries(): readonly Entry[] {
        return [this.child(() => this.#stage())];
      }
      *#stage(): Op<void> {
        const { sys } = this;
        let message = yield* sys.ipcReplyWait(-1, []);
        const [prime] = message.words;
        yield* this.print(`${prime}\n`);
        const right = yield* this.spawn(FIRST);
        // The last one, and with it each that waits for the one after it.
        if (right === null) return;
        for (;;) {
          message = yield* sys.ipcReplyWait(message.from, []);
          if (message.words[0] % prime === 0) continue;
          const { status } = yield* sys.ipcCall(right.env, message.words);
          if (status !== Status.ok) return;
        }
      }
    }
    const environments = 26;
    const board = play(on, {
      images: [image('primes', (port) => new Primes(port), 1)],
      exokernel: { environments },
    });
    const primes: number[] = [];
    for (let n = 2; primes.length < environments - 2; n++) {
      if (primes.every((prime) => n % prime !== 0)) primes.push(n);
    }
    // Row 0 is nobody, row 1 the generator.
    expect(lines(board.said(1)).map(Number)).toEqual(primes);
    for (let row = 1; row < environments; row++) expect(board.end(row)).toEqual(ended());
    expect(board.said(0)).toBe('');
  });

  // In JOS one of the two starves.
  describe('fairness: two that call in a loop are both heard', () => {
    const TIMES = 100;
    class Fairness extends Jos {
      readonly #work: number;
      constructor(port: Jos['port'], work: number) {
        super(port);
        this.#work = work;
      }
      override *umain(): Op<void> {
        const { port, sys } = this;
        const children = [yield* this.spawn(FIRST, this.self), yield* this.spawn(FIRST, this.self)];
        let client = -1;
        for (let n = 0; n < TIMES; n++) {
          client = (yield* sys.ipcReplyWait(client, [])).from;
          yield* this.print(`${this.self} recv from ${client}\n`);
          port.work(this.#work) ?? (yield* port.fault());
        }
        for (const child of children) {
          if (child !== null) yield* sys.envDestroy(child.env, COMMON, 0);
        }
      }
      override entries(): readonly Entry[] {
        return [
          this.child(
            function* (this: Fairness, server: number): Op<void> {
              for (;;) yield* this.sys.ipcCall(server, []);
            }.bind(this),
          ),
        ];
      }
    }
    /** Who was heard, as rows, once both were there. */
    function heard(work: number): number[] {
      const board = play(on, {
        images: [image('fairness', (port) => new Fairness(port, work), 1)],
      });
      const from = lines(board.said(1)).map((line) => Number(line.split(' from ')[1]));
      expect(from).toHaveLength(TIMES);
      expect(board.said(0)).toBe('');
      const both = from.slice(from.indexOf(board.id(3)));
      expect(both.length).toBeGreaterThan(TIMES * 0.7);
      expect(new Set(both)).toEqual(new Set([board.id(2), board.id(3)]));
      return both.map((env) => (env === board.id(2) ? 2 : 3));
    }

    test('by a server that is quick: by the slices that they pay with', () => {
      const rows = heard(0);
      for (const row of [2, 3]) {
        expect(rows.filter((n) => n === row).length).toBeGreaterThan(rows.length / 4);
        expect(rows.join('')).not.toContain(`${row}`.repeat(TIMES / 4));
      }
    });

    test('by a server that takes longer than a slice: in the order in which they queue', () => {
      const rows = heard(30_000);
      expect(rows).toEqual(rows.map((_, n) => (n % 2 === 0 ? 3 : 2)));
    });
  });

  test('ipctest: a ping is two kernel calls, with a callback four, and waits for nobody', () => {
    class IpcTest extends Jos {
      readonly #pings: number;
      readonly #callback: boolean;
      constructor(port: Jos['port'], pings: number, callback: boolean) {
        super(port);
        this.#pings = pings;
        this.#callback = callback;
      }
      override *umain(): Op<void> {
        const { sys } = this;
        const helper = yield* this.spawn(FIRST, 1);
        const server = yield* this.spawn(FIRST, this.#callback ? (helper?.env ?? 0) : 2);
        if (helper === null || server === null) return;
        let sum = 0;
        for (let n = 0; n < this.#pings; n++) sum += (yield* sys.ipcCall(server.env, [n])).words[0];
        yield* this.print(`${sum}\n`);
        for (const { env } of [server, helper]) yield* sys.envDestroy(env, COMMON, 0);
      }
      override entries(): readonly Entry[] {
        return [
          this.child(
            function* (this: IpcTest, what: number): Op<void> {
              let [client, answer] = [-1, 0];
              for (;;) {
                const { from, words } = yield* this.sys.ipcReplyWait(client, [answer]);
                client = from;
                answer = words[0] + what;
                if (what > 2) [answer] = (yield* this.sys.ipcCall(what, words)).words;
              }
            }.bind(this),
          ),
        ];
      }
    }
    const after = (pings: number, callback: boolean): { board: Board; calls: number } => {
      const images = [image('ipctest', (port) => new IpcTest(port, pings, callback), 1)];
      const board = play(on, { images, exokernel: { sliceCycles: 10_000_000 } });
      const sum = (pings * (pings - 1)) / 2 + pings * (callback ? 1 : 2);
      expect(board.said(1)).toBe(`${sum}\n`);
      return { board, calls: board.machine.hart.counters.totals().kernelCalls };
    };
    const calls = (callback: boolean): number =>
      after(110, callback).calls - after(10, callback).calls;
    expect([calls(false), calls(true)]).toEqual([200, 400]);
    const { timerInterrupts } = after(110, true).board.machine.hart.counters.totals();
    expect(timerInterrupts).toBeLessThan(5);
  });
});
