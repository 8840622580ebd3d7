/**
 * JOS's programs about faults and bad pointers (lab 3 and lab 4, part B), over our interface. JOS
 * destroys whoever passes a bad pointer to a call; here the call is refused and the caller goes on.
 */
import { describe, expect, test } from 'vitest';

import { Call, EnvState, Info, PageKind, Start, Status, Upcall } from '../../kernel/abi.ts';
import { image, type Op, OWN_ENTRIES, type UserPort } from '../../libos/libos.ts';
import { Cause } from '../../machine/machine.ts';
import { DIRECT_VPN } from '../../machine/sv39.ts';
import { BOARDS, Board, ended, obituary, play } from './boards.ts';
import { at, BATCH, hex, Jos, PAGE } from './jos.ts';

const LOAD = Cause.loadPageFault;
const STORE = Cause.storePageFault;

/** JOS's kernel begins here; and where ours is, which user mode has no address for. */
const KERNBASE = 0xf000_0000;
const DIRECT_MAP = DIRECT_VPN * PAGE; // 2^38 and up: only its low 32 bits arrive

/** A program that is no more than its body. */
function program(name: string, body: (jos: Program) => Op<void>): ReturnType<typeof image> {
  return image(name, (port) => new Program(port, body));
}
class Program extends Jos {
  readonly #body: (jos: Program) => Op<void>;
  constructor(port: UserPort, body: (jos: Program) => Op<void>) {
    super(port);
    this.#body = body;
  }
  override umain(): Op<void> {
    return this.#body(this);
  }
}

/** Prints the refusal of a call, or its success. */
function* tell(jos: Jos, { status, value }: { status: number; value: number }): Op<void> {
  const name = Object.entries(Status).find(([, number]) => number === status)?.[0];
  yield* jos.print(`${name} ${value}\n`);
}

describe.each(BOARDS)('on the %s', (on) => {
  /** The board after a program that its first access past the wrong line kills. */
  function dies(name: string, cause: number, address: number, body: (jos: Jos) => Op<void>): void {
    const board = play(on, { images: [program(name, body)] });
    expect(board.said(0)).toBe(obituary(board.id(1), cause, address >>> 0));
    expect(board.said(1)).toBe('');
    expect(board.end(1)).toEqual(ended(-1));
  }

  test('faultread: ended by a read of address 0', () => {
    dies('faultread', LOAD, 0, function* (jos) {
      yield* jos.print(`I read ${yield* jos.port.load(0)} from location 0!\n`);
    });
  });

  test('faultwrite: ended by a write to address 0', () => {
    dies('faultwrite', STORE, 0, function* (jos) {
      yield* jos.port.store(0, 1);
      yield* jos.print('I wrote to location 0!\n');
    });
  });

  // The kernel's half is not at a forbidden address: user mode has no address for it at all.
  test.each([KERNBASE + 0x10_0000, DIRECT_MAP + KERNBASE, DIRECT_MAP])(
    'faultreadkernel, faultwritekernel: %d is an address modulo 2^32, with nothing there',
    (address) => {
      const low = address % 2 ** 32;
      dies('faultreadkernel', LOAD, low, function* (jos) {
        yield* jos.print(`I read ${yield* jos.port.load(address)} from location ${address}!\n`);
      });
      dies('faultwritekernel', STORE, low, function* (jos) {
        yield* jos.port.store(address, 1);
        yield* jos.print(`I wrote to location ${address}!\n`);
      });
    },
  );

  test('buggyhello: a bad pointer is refused, and its caller goes on', () => {
    const buggyhello = program('buggyhello', function* (jos) {
      yield* tell(jos, yield* jos.sys.consoleWrite(1, 1));
    });
    const board = play(on, { images: [buggyhello] });
    expect(board.said(1)).toBe('badAddress 0\n');
    expect(board.said(0)).toBe('');
    expect(board.end(1)).toEqual(ended());
  });

  test("evilhello: the kernel's memory is no buffer, by any name of it", () => {
    const evilhello = program('evilhello', function* (jos) {
      for (const address of [KERNBASE + 0x10_000c, DIRECT_MAP, DIRECT_MAP + KERNBASE, -PAGE]) {
        yield* tell(jos, yield* jos.sys.consoleWrite(address, 100));
      }
    });
    const board = play(on, { images: [evilhello] });
    expect(board.said(1)).toBe(`badAddress 0\n${'badArgument 0\n'.repeat(3)}`);
    expect(board.said(0)).toBe('');
    expect(board.end(1)).toEqual(ended());
  });

  test('faultdie: the handler hears of address and cause, and ends the environment', () => {
    class FaultDie extends Jos {
      override *umain(): Op<void> {
        yield* this.catchFaults();
        // A byte: a word at an odd address is another mistake.
        this.port.store8(0xdead_beef, 0) ?? (yield* this.port.fault());
        yield* this.print('unreachable\n');
      }
      override *onFault(cause: number, address: number): Op<boolean> {
        yield* this.print(`i faulted at va ${hex(address)}, cause ${cause}\n`);
        yield* this.exit(33);
        return true;
      }
    }
    const board = play(on, { images: [image('faultdie', (port) => new FaultDie(port))] });
    expect(board.said(1)).toBe(`i faulted at va deadbeef, cause ${STORE}\n`);
    expect(board.said(0)).toBe('');
    expect(board.end(1)).toEqual(ended(33));
  });

  /** Memory wherever it is touched, with a text at the address of the touch. */
  abstract class FaultAlloc extends Jos {
    override *onFault(_cause: number, address: number): Op<boolean> {
      yield* this.print(`fault ${hex(address)}\n`);
      const page = Math.floor(address / PAGE);
      yield* this.map(page % 512, yield* this.take(), undefined, yield* this.#leafFor(page));
      yield* this.write(address, `this string was faulted in at ${hex(address)}`);
      return true;
    }

    readonly #middles = new Map<number, number>();
    readonly #leaves = new Map<number, number>();

    /** Leaf table of a virtual page, made with those above it if need be. */
    *#leafFor(page: number): Op<number> {
      const [top, second] = [page >>> 18, page >>> 9];
      const { sys } = this;
      let middle = top === 0 ? this.middle : this.#middles.get(top);
      if (middle === undefined) {
        middle = yield* this.take();
        yield* sys.tableCreate(this.root, top, middle, 1, [0, 0], 0);
        this.#middles.set(top, middle);
      }
      let leaf = second === 0 ? this.leaf : this.#leaves.get(second);
      if (leaf === undefined) {
        leaf = yield* this.take();
        const ledgers = [yield* this.take(), yield* this.take()] as const;
        yield* sys.tableCreate(middle, second % 512, leaf, 1, ledgers, 0);
        this.#leaves.set(second, leaf);
      }
      return leaf;
    }
  }

  test('faultalloc: the handler makes memory; in the middle of its text it faults itself', () => {
    class Program extends FaultAlloc {
      override *umain(): Op<void> {
        yield* this.catchFaults();
        yield* this.print(`${yield* this.string(0xdead_beef)}\n`);
        yield* this.print(`${yield* this.string(0xcafe_bffe)}\n`);
      }
    }
    const board = play(on, { images: [image('faultalloc', (port) => new Program(port))] });
    expect(board.said(1)).toBe(
      'fault deadbeef\nthis string was faulted in at deadbeef\n' +
        'fault cafebffe\nfault cafec000\nthis string was faulted in at cafebffe\n',
    );
    expect(board.said(0)).toBe('');
    expect(board.end(1)).toEqual(ended());
  });

  // A fault of the kernel's own, on behalf of a call, is nobody's upcall.
  test('faultallocbad: the same address in a call is refused, and no handler hears of it', () => {
    class Program extends FaultAlloc {
      override *umain(): Op<void> {
        yield* this.catchFaults();
        yield* tell(this, yield* this.sys.consoleWrite(0xdead_beef, 4));
        yield* tell(this, yield* this.port.call(Call.batch, 0xcafe_c000, 1));
        yield* this.port.store(BATCH, Call.consoleWrite);
        yield* this.port.store(BATCH + 4, at(400));
        yield* this.port.store(BATCH + 8, 4);
        yield* tell(this, yield* this.port.call(Call.batch, BATCH, 1));
        const list = yield* this.sys.diskRequest(this.extent, 0, 0, 1, at(400), 0, 0);
        yield* tell(this, list);
      }
    }
    const board = play(on, { images: [image('faultallocbad', (port) => new Program(port))] });
    expect(board.said(1)).toBe('badAddress 0\nbadAddress 0\nbadAddress 0\nbadAddress 4\n');
    expect(board.said(0)).toBe('');
    expect(board.end(1)).toEqual(ended());
  });

  /** A handler is registered with this frame address; then it would be needed. */
  const badFrame = (frame: number): ReturnType<typeof image> =>
    program('bad frame', function* (jos) {
      yield* tell(jos, yield* jos.sys.upcallSet(Upcall.fault, 1, frame));
      yield* jos.port.store(0, 1);
      yield* jos.print('goes on\n');
    });

  /** Beside a tenant that prints its own id once it has lost sight of the other. */
  function alone(broken: ReturnType<typeof image>): Board {
    const other = program('bystander', function* (jos) {
      while ((yield* jos.env(1, 0)) !== EnvState.zombie) yield* jos.sys.yieldTo(-1);
      yield* jos.print('lives\n');
    });
    const board = play(on, { images: [broken, other], tenants: [0, 1] });
    expect(board.said(2)).toBe('lives\n');
    expect(board.end(1)).toEqual(ended(-1));
    expect(board.end(2)).toEqual(ended());
    return board;
  }

  test('faultnostack: a handler without a place for its frames is none', () => {
    for (const frame of [at(Start.freePages), 0xeebf_f000, 2 ** 32 - 4]) {
      const board = alone(badFrame(frame));
      expect(board.said(1)).toBe('ok 0\n');
      expect(board.said(0)).toBe(obituary(board.id(1), STORE, 0));
    }
  });

  // A handler is the number of an entry: an address that is none cannot be registered.
  test('faultbadhandler: no entry, no handler', () => {
    const board = alone(
      program('faultbadhandler', function* (jos) {
        for (const entry of [0xdead_beef, OWN_ENTRIES, -2, KERNBASE + 0x20]) {
          yield* tell(jos, yield* jos.sys.upcallSet(Upcall.fault, entry, at(Start.stackPage)));
        }
        yield* tell(jos, yield* jos.sys.upcallSet(Upcall.fault, 1, at(Start.stackPage) + 2));
        yield* jos.port.store(0, 1);
        yield* jos.print('goes on\n');
      }),
    );
    expect(board.said(1)).toBe(`${'badArgument 1\n'.repeat(4)}badAddress 2\n`);
    expect(board.said(0)).toBe(obituary(board.id(1), STORE, 0));
  });

  test("faultevilhandler: frames in the kernel's memory are written by nobody", () => {
    for (const frame of [at(Start.infoPage), at(Start.pagePages), KERNBASE + 0x20]) {
      const board = alone(badFrame(frame));
      expect(board.said(0)).toBe(obituary(board.id(1), STORE, 0));
      // What would have been overwritten: the head of the information page, and of the page table.
      expect([board.info(Info.pages), board.kind(0)]).toEqual([512, PageKind.published]);
    }
  });
});
