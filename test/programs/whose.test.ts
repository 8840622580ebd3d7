/**
 * Whose pointer, whose capability: two programs that only a kernel gets wrong which asks the wrong
 * environment (check/mistakes/list.ts). A pointer is looked up in the address space of whoever
 * named it, whoever ran before; a mapping is justified by a capability of the environment that gets
 * it, whoever makes it.
 */
import { describe, expect, test } from 'vitest';

import { READ, Status, Upcall, WRITE } from '../../kernel/abi.ts';
import { image, type Op } from '../../libos/libos.ts';
import { BOARDS, ended, play } from './boards.ts';
import { at, COMMON, FIRST, Jos, MEMORY, OWN, RW } from './jos.ts';

const told = ({ status, value }: { status: number; value: number }): string =>
  `${Object.entries(Status).find(([, number]) => number === status)?.[0]} ${value}\n`;

describe.each(BOARDS)('on the %s', (on) => {
  test('a slice upcall leaves word in the memory of who registered for it', () => {
    const BEGIN = 2; // entry of every libOS
    class Slices extends Jos {
      #begins = 0;
      /** A page that the other tenant has not: the word of upcalls stands there. */
      get #mask(): number {
        return at(300 + this.account);
      }
      override *umain(): Op<void> {
        const { port } = this;
        yield* this.allocate(300 + this.account);
        yield* this.sys.upcallSet(Upcall.sliceBegin, BEGIN, this.#mask);
        while (this.#begins < 5) port.work(1_000) ?? (yield* port.fault());
        yield* this.print(`${this.#begins} slices\n`);
      }
      override *onSliceBegin(): Op<void> {
        if ((yield* this.port.load(this.#mask)) === 1) this.#begins++;
        yield* this.port.store(this.#mask, 0);
      }
    }
    const images = [image('slices', (port) => new Slices(port))];
    const board = play(on, { images, tenants: [0, 0], exokernel: { slices: 2 } });
    expect([board.said(0), board.said(1), board.said(2)]).toEqual(['', '5 slices\n', '5 slices\n']);
    expect([board.end(1), board.end(2)]).toEqual([ended(), ended()]);
  });

  test('a page is mapped for an environment by what that environment may, not by its maker', () => {
    const [OURS, THEIRS] = [5, 6]; // slots that one of the two has filled
    class Maker extends Jos {
      override *umain(): Op<void> {
        const { sys } = this;
        const child = yield* this.exofork();
        if (child === null) return;
        const secret = yield* this.take();
        yield* sys.pageFree(secret, COMMON);
        // Of our own name, which the child does not dominate; and one that is the child's as well.
        yield* sys.pageAllocate(secret, OWN);
        const shared = yield* this.take();
        const mine = this.commonName();
        yield* sys.capForge(this.self, OURS, OWN, mine, READ | WRITE);
        yield* sys.capForge(child.env, THEIRS, OWN, mine, READ | WRITE);
        for (const [page, slot] of [
          [secret, OWN],
          [secret, COMMON],
          [shared, OURS],
          [shared, THEIRS],
        ] as const) {
          const got = yield* sys.pageMap(child.leaf, MEMORY + slot, page, slot, 0, RW, COMMON);
          yield* this.print(told(got));
        }
        yield* this.start(child, FIRST);
        yield* this.wait(child.env);
      }
      override entries(): ReturnType<Jos['entries']> {
        return [
          this.child(
            function* (this: Maker): Op<void> {
              yield* this.print(`${yield* this.port.load(at(MEMORY + THEIRS))}\n`);
              yield* this.port.load(at(MEMORY + OWN));
            }.bind(this),
          ),
        ];
      }
    }
    const board = play(on, { images: [image('maker', (port) => new Maker(port), 1)] });
    expect(board.said(1)).toBe('notPermitted 3\nnotPermitted 3\nnoCapability 3\nok 0\n0\n');
    expect(board.end(1)).toEqual(ended());
    expect(board.end(2)).toEqual(ended(-1));
  });
});
