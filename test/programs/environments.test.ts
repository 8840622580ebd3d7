/** JOS's programs about environments and the CPU (lab 4, parts A and C), over our interface. */
import { describe, expect, test } from 'vitest';

import { Env, PageKind } from '../../kernel/abi.ts';
import { image, type Op } from '../../libos/libos.ts';
import type { Entry } from '../../machine/user-port.ts';
import { Board, BOARDS, ended, play } from './boards.ts';
import { at, COMMON, FIRST, Jos, MEMORY, RW, SHARE } from './jos.ts';

/** Kinds of page that a tenant's first environment leaves behind with `memory` pages of its own. */
const left = (memory: number): Record<string, number> => ({
  root: 1,
  middle: 1,
  leaf: 1,
  ledger: 2,
  user: 1 + memory, // and its stack page
});
const kinds = (board: Board): Record<string, number> =>
  Object.fromEntries(
    (['root', 'middle', 'leaf', 'ledger', 'user'] as const).map((kind) => [
      kind,
      board.count(PageKind[kind]),
    ]),
  );

const lines = (text: string): string[] => text.split('\n').slice(0, -1);

describe.each(BOARDS)('on the %s', (on) => {
  test('dumbfork: a child with a copy of everything, in turn with its parent', () => {
    const I = at(MEMORY);
    const WHO = at(MEMORY + 3);
    class DumbFork extends Jos {
      override *umain(): Op<void> {
        yield* this.allocate(MEMORY);
        yield* this.allocate(MEMORY + 3);
        yield* this.write(WHO, 'parent');
        const child = yield* this.fork(FIRST, 20);
        yield* this.#count(10);
        if (child === null) return;
        yield* this.wait(child.env);
        yield* this.reap(child);
      }
      override entries(): readonly Entry[] {
        return [
          this.child(
            function* (this: DumbFork, times: number): Op<void> {
              yield* this.print(`${yield* this.string(WHO)}'s child\n`);
              yield* this.write(WHO, 'child');
              yield* this.#count(times);
            }.bind(this),
          ),
        ];
      }
      *#count(times: number): Op<void> {
        const { port } = this;
        for (; (yield* port.load(I)) < times; yield* port.store(I, (yield* port.load(I)) + 1)) {
          yield* this.print(`${yield* port.load(I)}: I am the ${yield* this.string(WHO)}!\n`);
          yield* this.sys.yieldTo(-1);
        }
      }
    }
    const board = play(on, { images: [image('dumbfork', (port) => new DumbFork(port), 1)] });
    const said = lines(board.said(1)).filter((line) => line !== "parent's child");
    const by = (who: string): string[] => said.filter((line) => line.includes(who));
    const counted = (who: string, times: number): string[] =>
      Array.from({ length: times }, (_, n) => `${n}: I am the ${who}!`);
    expect(lines(board.said(1))).toContain("parent's child");
    expect(by('parent')).toEqual(counted('parent', 10));
    expect(by('child')).toEqual(counted('child', 20));
    // In turn, once both count: a slice may end in the first round.
    const turns = said.slice(4, 20).map((line) => line.endsWith('parent!'));
    expect(turns).toEqual(turns.map((_, n) => turns[0] === (n % 2 === 0)));
    expect(board.said(0)).toBe('');
    expect(kinds(board)).toEqual(left(2));
  });

  test('testpteshare: a shared page is the same page after fork and spawn, and no other is', () => {
    const SHARED = at(MEMORY + 4);
    const PRIVATE = at(MEMORY + 5);
    class TestPteShare extends Jos {
      override *umain(): Op<void> {
        yield* this.allocate(MEMORY + 4, RW | SHARE);
        yield* this.allocate(MEMORY + 5);
        yield* this.write(PRIVATE, 'parent');
        const forked = yield* this.fork(FIRST);
        if (forked === null) return;
        yield* this.wait(forked.env);
        yield* this.#tell('fork', 'hello, world');
        // spawn starts afresh: what is shared, and nothing else.
        const spawned = yield* this.exofork();
        if (spawned === null) return;
        yield* this.give(spawned, (flags) => (flags & SHARE) !== 0);
        yield* this.start(spawned, FIRST + 1);
        const status = yield* this.wait(spawned.env);
        yield* this.#tell('spawn', 'goodbye, world');
        yield* this.print(`private in spawn: ${status}\n`);
        yield* this.reap(forked);
        yield* this.reap(spawned);
      }
      *#tell(what: string, wanted: string): Op<void> {
        const right = (yield* this.string(SHARED)) === wanted ? 'right' : 'wrong';
        yield* this.print(`${what} handles PTE_SHARE ${right}\n`);
        yield* this.print(`private: ${yield* this.string(PRIVATE)}\n`);
      }
      override entries(): readonly Entry[] {
        return [
          this.child(
            function* (this: TestPteShare): Op<void> {
              yield* this.print(`child has ${yield* this.string(PRIVATE)}\n`);
              yield* this.write(SHARED, 'hello, world');
              yield* this.write(PRIVATE, 'child');
            }.bind(this),
          ),
          this.child(
            function* (this: TestPteShare): Op<void> {
              yield* this.write(SHARED, 'goodbye, world');
              yield* this.write(PRIVATE, 'nobody');
            }.bind(this),
          ),
        ];
      }
    }
    const images = [image('testpteshare', (port) => new TestPteShare(port), 2)];
    const board = play(on, { images });
    expect(board.said(1)).toBe(
      'child has parent\nfork handles PTE_SHARE right\nprivate: parent\n' +
        'spawn handles PTE_SHARE right\nprivate: parent\nprivate in spawn: -1\n',
    );
    expect(board.said(0)).toMatch(
      /^environment \d+: cause 15 at 0x105000, and no handler for it\n$/,
    );
    expect(kinds(board)).toEqual(left(2));
  });

  test('yield: three environments come round in turn, five times', () => {
    class Yield extends Jos {
      override *umain(): Op<void> {
        yield* this.print(`Hello, I am environment ${this.self}.\n`);
        for (let n = 0; n < 5; n++) {
          yield* this.sys.yieldTo(-1);
          yield* this.print(`Back in environment ${this.self}, iteration ${n}.\n`);
        }
        yield* this.print(`All done in environment ${this.self}.\n`);
      }
    }
    const board = play(on, {
      images: [image('yield', (port) => new Yield(port))],
      tenants: [0, 0, 0],
      exokernel: { slices: 3 },
    });
    const order = board.lines.slice(0, 3).map(({ channel }) => channel);
    expect([...order].sort()).toEqual([1, 2, 3]);
    const wanted = order.map((n) => `Hello, I am environment ${board.id(n)}.\n`);
    for (let round = 0; round < 5; round++) {
      for (const n of order) {
        wanted.push(`Back in environment ${board.id(n)}, iteration ${round}.\n`);
        if (round === 4) wanted.push(`All done in environment ${board.id(n)}.\n`);
      }
    }
    expect(board.lines.map(({ text }) => text)).toEqual(wanted);
    expect([1, 2, 3].map((n) => board.end(n))).toEqual([ended(), ended(), ended()]);
  });

  test('spin: a child that never gives the CPU up is preempted, and killed', () => {
    const SPUN = at(MEMORY);
    class Spin extends Jos {
      override *umain(): Op<void> {
        yield* this.allocate(MEMORY, RW | SHARE);
        yield* this.print('I am the parent.  Forking the child...\n');
        const child = yield* this.fork(FIRST);
        if (child === null) return;
        yield* this.print('I am the parent.  Running the child...\n');
        for (let n = 0; n < 8; n++) yield* this.sys.yieldTo(-1);
        const spun = yield* this.port.load(SPUN);
        yield* this.print('I am the parent.  Killing the child...\n');
        yield* this.sys.envDestroy(child.env, COMMON, 9);
        const then = yield* this.port.load(SPUN);
        for (let n = 0; n < 8; n++) yield* this.sys.yieldTo(-1);
        const stopped = (yield* this.port.load(SPUN)) === then;
        yield* this.print(`spun ${spun > 1000}, stopped ${stopped}\n`);
        yield* this.print(`status ${yield* this.wait(child.env)}\n`);
        yield* this.reap(child);
      }
      override entries(): readonly Entry[] {
        return [
          this.child(
            function* (this: Spin): Op<void> {
              const { port } = this;
              yield* this.print('I am the child.  Spinning...\n');
              for (let n = 1; ; n++) port.store32(SPUN, n) ?? (yield* port.fault());
            }.bind(this),
          ),
        ];
      }
    }
    const board = play(on, { images: [image('spin', (port) => new Spin(port), 1)] });
    const said = lines(board.said(1));
    const child = 'I am the child.  Spinning...';
    expect(said).toContain(child);
    expect(said.filter((line) => line !== child)).toEqual([
      'I am the parent.  Forking the child...',
      'I am the parent.  Running the child...',
      'I am the parent.  Killing the child...',
      'spun true, stopped true',
      'status 9',
    ]);
    expect(board.said(0)).toBe('');
    expect(kinds(board)).toEqual(left(1));
  });

  test('stresssched: twenty counters are exact, though each is preempted while it counts', () => {
    const [GO, LAST, SWITCHED] = [at(MEMORY), at(MEMORY) + 4, at(MEMORY) + 8];
    const COUNTER = at(MEMORY + 1);
    const CHILDREN = 20;
    class StressSched extends Jos {
      override *umain(): Op<void> {
        const { port } = this;
        yield* this.allocate(MEMORY, RW | SHARE);
        yield* this.allocate(MEMORY + 1);
        const children = [];
        for (let n = 0; n < CHILDREN; n++) {
          const child = yield* this.fork(FIRST);
          if (child !== null) children.push(child);
        }
        yield* port.store(GO, 1);
        let exact = 0;
        for (const child of children) {
          if ((yield* this.wait(child.env)) === 0) exact++;
          yield* this.reap(child);
        }
        yield* this.print(`exact ${exact}, own counter ${yield* port.load(COUNTER)}\n`);
        yield* this.print(`preempted ${(yield* port.load(SWITCHED)) > CHILDREN * 5}\n`);
      }
      override entries(): readonly Entry[] {
        return [this.child(() => this.#count())];
      }
      *#count(): Op<void> {
        const { port } = this;
        while ((yield* port.load(GO)) === 0) yield* this.sys.yieldTo(-1);
        let switched = 0;
        for (let n = 0; n < 10; n++) {
          yield* this.sys.yieldTo(-1);
          yield* port.store(LAST, this.self);
          // More than a slice of them.
          for (let k = 0; k < 5_000; k++) {
            const count = port.load32(COUNTER) ?? (yield* port.fault());
            port.store32(COUNTER, count + 1) ?? (yield* port.fault());
            if ((port.load32(LAST) ?? (yield* port.fault())) === this.self) continue;
            switched++;
            yield* port.store(LAST, this.self);
          }
        }
        const total = yield* port.load(SWITCHED);
        yield* port.store(SWITCHED, total + switched);
        yield* this.exit((yield* port.load(COUNTER)) === 50_000 ? 0 : 1);
      }
    }
    const images = [image('stresssched', (port) => new StressSched(port), 1)];
    const board = play(on, { images });
    expect(board.said(1)).toBe(`exact ${CHILDREN}, own counter 0\npreempted true\n`);
    expect(board.said(0)).toBe('');
    expect(kinds(board)).toEqual(left(2));
    expect(board.env(1, Env.excess)).toBe(0);
  });
});
