/**
 * The laws of Machine: one suite, run over every implementer and in every test mode (storms of
 * spurious timer traps, handlers that are rolled back at each of their stores).
 *
 * A test writes a program and a scripted supervisor, runs to the end, and compares what the program
 * saw and what the supervisor noted in machine memory. Cycles are compared nowhere: modes differ.
 */
import { describe, expect, test } from 'vitest';

import type { Op, UserPort } from '../../machine/user-port.ts';
import { NEVER, PAGE_BYTES } from '../../machine/units.ts';
import { PTE_A, PTE_D, PTE_R, PTE_V, PTE_W } from '../../machine/sv39.ts';
import { Cause } from '../../kernel/supervisor.ts';
import type { Maker, Rig } from './rigs.ts';
import { type Acts, Cell, type Logged, program, RO, RW, Script } from './script.ts';

type Body = (port: UserPort, ...args: number[]) => Op<void>;

interface Outcome {
  readonly rig: Rig;
  readonly log: Logged[];
  /** causes told, timer traps left out: in a storm any number of them is right */
  readonly causes: number[];
  readonly notes: number[];
  readonly cell: (n: number) => number;
}

const VA = 0x4000; // a virtual page that tests map
const VPN = VA / PAGE_BYTES;

export function machineContract({ name, make, storm, restarts, virtual }: Maker): void {
  function play(acts: Acts, ...bodies: Body[]): Outcome {
    const supervisor = new Script(acts);
    const rig = make({ supervisor, images: [program(...bodies)] });
    expect(rig.run()).toBe('halted');
    const log = Script.log(rig.peek);
    const causes = log.map(({ cause }) => cause).filter((cause) => cause !== Cause.timerInterrupt);
    const cell = (n: number): number => Script.cell(rig.peek, n);
    // dispatch exactly once after each trap told to this supervisor, and once after boot
    expect(cell(Cell.dispatches)).toBe(cell(Cell.told) + 1);
    // a timer trap before its time is allowed to a storm only
    if (!storm) expect(cell(Cell.spurious)).toBe(0);
    expect(log.every(({ level }) => level === rig.level)).toBe(true);
    return { rig, log, causes, notes: Script.notes(rig.peek), cell };
  }

  /** One context with one space; `setup` maps what it likes. */
  const alone =
    (setup: (s: Script) => void = () => undefined) =>
    (s: Script): void => {
      s.space(1);
      setup(s);
      s.start(1);
    };

  describe(`machine contract: ${name}`, () => {
    // ---- memory ---------------------------------------------------------------------------------

    /** Notes what memory answers, with translation as it stands. */
    function memoryLaws(s: Script): void {
      const m = s.machine;
      const [a, b] = [s.page(), s.page()];
      const at = a * PAGE_BYTES;
      s.note(m.load(at), m.load(at + PAGE_BYTES - 4));
      m.store(at, -1);
      m.store(at + 4, 0x7fffffff);
      m.store(at + PAGE_BYTES - 4, 2 ** 31);
      s.note(m.load(at), m.load(at + 4), m.load(at + PAGE_BYTES - 4));
      m.copyPage(b, a);
      m.store(at, 5);
      s.note(m.load(b * PAGE_BYTES), m.load(b * PAGE_BYTES + PAGE_BYTES - 4), m.load(at));
      m.copyPage(b, b);
      s.note(m.load(b * PAGE_BYTES + 4));
      m.zeroPage(b);
      s.note(m.load(b * PAGE_BYTES), m.load(b * PAGE_BYTES + PAGE_BYTES - 4), m.load(at));
      // Entries: in order, so that the last of a batch wins; whole, so that no upper word stands.
      m.store(b * PAGE_BYTES + 7 * 8 + 4, 99);
      m.writePtes([
        { table: b, index: 7, value: 0xfffffc01 },
        { table: b, index: 8, value: 1 },
        { table: b, index: 8, value: 2 },
        { table: a, index: 511, value: 3 },
      ]);
      m.writePtes([]);
      s.note(m.load(b * PAGE_BYTES + 7 * 8 + 4));
      const read = m.readPtes(b, 6, 4);
      s.note(read.length, ...[...read].map((entry) => (entry === 0xfffffc01 ? 77 : entry)));
      s.note(m.readPtes(a, 511, 1)[0] ?? -1, m.readPtes(a, 0, 0).length);
    }
    const memoryNotes = [
      [0, 0],
      [-1, 0x7fffffff, -(2 ** 31)],
      [-1, -(2 ** 31), 5],
      [0x7fffffff],
      [0, 0, 5],
      [0],
      [4, 0, 77, 2, 0],
      [3, 0],
    ].flat();

    test('load, store, zeroPage, copyPage, readPtes, writePtes: bare and by the direct map', () => {
      const { notes } = play(
        {
          boot: alone(memoryLaws),
          trap: (s, { cause }) => {
            if (cause !== Cause.environmentCall) return false;
            memoryLaws(s);
            s.machine.contexts.setResult(1, 0);
            return true;
          },
        },
        function* (port) {
          yield* port.call(1);
        },
      );
      expect(notes).toEqual([...memoryNotes, ...memoryNotes]);
    });

    test('the last word and the last page of the machine are there', () => {
      const { notes } = play(
        {
          boot: alone((s) => {
            const last = s.machine.pages * PAGE_BYTES - 4;
            s.machine.store(last, 42);
            s.note(s.machine.load(last));
            s.machine.copyPage(s.machine.pages - 2, s.machine.pages - 1);
            s.note(s.machine.load(last - PAGE_BYTES));
          }),
        },
        function* () {},
      );
      expect(notes).toEqual([42, 42]);
    });

    test('a supervisor reaches user memory as its user would, and no further', () => {
      const { notes, causes } = play(
        {
          boot: alone((s) => {
            s.map(1, 4);
            s.map(1, 5, RO);
            s.map(1, 6, PTE_V | PTE_R | PTE_W | PTE_A | PTE_D); // no U
          }),
          trap: (s, { cause }) => {
            if (cause !== Cause.environmentCall) return false;
            const m = s.machine;
            const no = (value: number | null): number => (value === null ? -7 : value);
            s.note(no(m.loadUser(0x4000)), no(m.loadUser(0x4002)), no(m.loadUser(0x7000)));
            s.note(no(m.loadUser(0x6000)), no(m.loadUser(-4)), no(m.loadUser(2 ** 32)));
            s.note(no(m.loadUser(Number.NaN)), no(m.loadUser(0.5)), no(m.loadUser(0xfffffffc)));
            s.note(+m.storeUser(0x4004, 9), +m.storeUser(0x5000, 9), +m.storeUser(0x6000, 9));
            s.note(+m.storeUser(0x4001, 9), +m.storeUser(0x7000, 9), no(m.loadUser(0x5000)));
            const bytes = m.readUser(0x4ffe, 4);
            s.note(bytes?.length ?? -1, ...(bytes ?? []));
            s.note(m.readUser(0x5ffe, 4)?.length ?? -7, m.readUser(0x4ffe, 0)?.length ?? -7);
            s.note(m.readUser(0xffffffff, 2)?.length ?? -7, m.readUser(0x4000, -1)?.length ?? -7);
            s.note(m.readUser(Number.NaN, 1)?.length ?? -7);
            m.contexts.setResult(1, 0);
            return true;
          },
        },
        function* (port) {
          yield* port.store(0x4000, 123);
          port.store8(0x4ffe, 1) ?? (yield* port.fault());
          port.store8(0x4fff, 2) ?? (yield* port.fault());
          yield* port.call(1);
          yield* port.call((yield* port.load(0x4004)) === 9 ? 2 : 3);
        },
      );
      const round = [
        [123, -7, -7],
        [-7, -7, -7],
        [-7, -7, -7],
        [1, 0, 0],
        [0, 0, 0],
        [4, 1, 2, 0, 0],
        [-7, 0],
        [-7, -7],
        [-7],
      ].flat();
      expect(notes).toEqual([...round, ...round]);
      expect(causes).toEqual([8, 8, Cause.threadEnd]);
    });

    test('satp: the same address is another page in another space, and ASIDs keep them apart', () => {
      const seen: number[] = [];
      const body: Body = function* (port, self = 0) {
        for (let n = 0; n < 5; n++) {
          const was = yield* port.load(VA);
          seen.push(self, was);
          yield* port.store(VA, was + self);
          yield* port.call(0);
        }
      };
      const { causes, cell } = play(
        {
          boot: (s) => {
            for (const context of [1, 2]) {
              s.space(context);
              s.map(context, VPN);
              s.start(context, 0, 0, [context]);
            }
            s.put(Cell.current, 1);
            s.put(Cell.own, 2);
          },
          trap: (s, { cause }, current) => {
            if (cause === Cause.environmentCall) s.machine.contexts.setResult(current, 0);
            else if (cause === Cause.threadEnd) {
              s.machine.contexts.destroy(current);
              s.put(Cell.own, s.get(Cell.own) - 1);
            } else return false;
            s.put(Cell.current, 3 - current);
            if (s.get(Cell.own) === 0) s.put(Cell.current, -1);
            return true;
          },
        },
        body,
      );
      expect(causes).toHaveLength(12);
      expect(cell(Cell.own)).toBe(0);
      const of = (self: number): number[] =>
        seen.filter((_, n) => n % 2 === 1 && seen[n - 1] === self);
      expect(of(1)).toEqual([0, 1, 2, 3, 4]);
      expect(of(2)).toEqual([0, 2, 4, 6, 8]);
    });

    test('pages that nobody has touched yet are there, zeroed, and no supervisor hears of it', () => {
      const seen: number[] = [];
      const { causes } = play(
        {
          boot: alone((s) => {
            for (let n = 0; n < 40; n++) s.map(1, 0x20 + n, RW, 300 + n);
          }),
        },
        function* (port) {
          for (let n = 0; n < 40; n++) {
            seen.push(yield* port.load(0x20000 + n * PAGE_BYTES));
            yield* port.store(0x20ffc + n * PAGE_BYTES, n + 1);
          }
          for (let n = 0; n < 40; n++) seen.push(yield* port.load(0x20ffc + n * PAGE_BYTES));
        },
      );
      expect(seen.slice(0, 40)).toEqual(Array.from({ length: 40 }, () => 0));
      expect(seen.slice(40)).toEqual(Array.from({ length: 40 }, (_, n) => n + 1));
      expect(causes).toEqual([Cause.threadEnd]);
    });

    test('a long computation hears of no outer event: not one trap, not one dispatch', () => {
      const { cell } = play({ boot: alone((s) => s.map(1, VPN)) }, function* (port) {
        for (let n = 0; n < 300; n++) {
          yield* port.store(VA, n);
          port.work(200) ?? (yield* port.fault());
        }
      });
      if (!storm) expect([cell(Cell.told), cell(Cell.dispatches)]).toEqual([1, 2]);
    });

    test('after a fence the old mapping is never used', () => {
      const seen: number[] = [];
      play(
        {
          boot: alone((s) => {
            s.put(Cell.own, s.map(1, VPN));
            const other = s.page();
            s.put(Cell.own + 1, other);
            s.machine.store(other * PAGE_BYTES, 2);
          }),
          trap: (s, { cause }) => {
            if (cause !== Cause.environmentCall) return false;
            const which = s.machine.contexts.argument(1, 1);
            s.map(1, VPN, RW, s.get(Cell.own + which));
            s.machine.contexts.setResult(1, 0);
            return true;
          },
        },
        function* (port) {
          yield* port.store(VA, 1);
          for (let n = 0; n < 6; n++) {
            yield* port.call(1, n % 2);
            seen.push(yield* port.load(VA));
          }
        },
      );
      expect(seen).toEqual([1, 2, 1, 2, 1, 2]);
    });

    // ---- calls ----------------------------------------------------------------------------------

    test('a call carries eight arguments in and seven words out', () => {
      const seen: number[] = [];
      const { notes } = play(
        {
          trap: (s, { cause }) => {
            if (cause !== Cause.environmentCall) return false;
            const { contexts } = s.machine;
            for (let n = 0; n <= 8; n++) s.note(contexts.argument(1, n));
            contexts.setResult(1, 3, 10, 11, 12, 13, 14, 15, 16);
            return true;
          },
        },
        function* (port) {
          const { status, value } = yield* port.call(99, 1, 2, 3, 4, 5, 6, 7, 8);
          seen.push(status, value);
          for (let n = 0; n < 7; n++) seen.push(port.result(n));
          yield* port.call(98);
        },
      );
      expect(notes.slice(0, 9)).toEqual([99, 1, 2, 3, 4, 5, 6, 7, 8]);
      expect(notes.slice(9)).toEqual([98, 0, 0, 0, 0, 0, 0, 0, 0]); // what is not given is 0
      expect(seen).toEqual([3, 10, 10, 11, 12, 13, 14, 15, 16]);
    });

    test('results reach the call that asked, though an upcall ran and called in between', () => {
      const seen: number[] = [];
      play(
        {
          boot: alone((s) => s.map(1, VPN)),
          trap: (s, { cause }) => {
            if (cause !== Cause.environmentCall) return false;
            const { contexts } = s.machine;
            const n = contexts.argument(1, 0);
            contexts.setResult(1, n, n * 10, n * 100, n * 1000);
            if (n === 1 || n === 2) contexts.upcall(1, n, [n]);
            return true;
          },
        },
        function* (port) {
          const { status, value } = yield* port.call(1);
          seen.push(status, value, port.result(1), port.result(2));
        },
        function* (port) {
          const { value } = yield* port.call(2);
          seen.push(value, port.result(2));
        },
        function* (port, n = 0) {
          const { value } = yield* port.call(3);
          seen.push(n, value, yield* port.load(VA));
        },
      );
      expect(seen).toEqual([2, 30, 0, 20, 2000, 1, 10, 100, 1000]);
    });

    test("a supervisor that pushes first and answers then: the answer is the call's all the same", () => {
      const seen: number[] = [];
      play(
        {
          trap: (s, { cause }) => {
            if (cause !== Cause.environmentCall) return false;
            const { contexts } = s.machine;
            if (contexts.argument(1, 0) === 1) contexts.upcall(1, 1, []);
            contexts.setResult(1, 5, 50);
            return true;
          },
        },
        function* (port) {
          const { status, value } = yield* port.call(1);
          seen.push(status, value);
        },
        function* () {},
      );
      expect(seen).toEqual([5, 50]);
    });

    test('two contexts call in turn: each gets its own arguments seen and its own answers', () => {
      const seen = new Map<number, number[]>();
      const body: Body = function* (port, self = 0) {
        const mine: number[] = [];
        seen.set(self, mine);
        for (let n = 0; n < 4; n++) mine.push((yield* port.call(self, n)).value, port.result(1));
      };
      play(
        {
          boot: (s) => {
            for (const context of [1, 2]) {
              s.space(context);
              s.start(context, 0, 0, [context]);
            }
          },
          trap: (s, { cause }, current) => {
            const { contexts } = s.machine;
            const other = 3 - current;
            if (cause === Cause.environmentCall) {
              // The answer of one comes only when the other has called.
              const waiting = s.get(Cell.own);
              s.put(Cell.own, current);
              if (waiting !== 0) {
                contexts.setResult(
                  waiting,
                  0,
                  contexts.argument(waiting, 0) * 100 + contexts.argument(waiting, 1),
                  waiting,
                );
              }
              s.put(Cell.current, other);
              return true;
            }
            if (cause !== Cause.threadEnd) return false;
            contexts.destroy(current);
            const waiting = s.get(Cell.own);
            s.put(Cell.own, 0);
            if (waiting === other) {
              contexts.setResult(other, 0, other * 100 + contexts.argument(other, 1), other);
              s.put(Cell.current, other);
            } else s.put(Cell.current, contexts.exists(other) ? other : -1);
            return true;
          },
        },
        body,
      );
      expect(seen.get(1)).toEqual([100, 1, 101, 1, 102, 1, 103, 1]);
      expect(seen.get(2)).toEqual([200, 2, 201, 2, 202, 2, 203, 2]);
    });

    // ---- faults ---------------------------------------------------------------------------------

    test('page faults: cause and address are right, the access is done once, when it can be', () => {
      const seen: number[] = [];
      const { log, causes } = play(
        {
          trap: (s, { cause, tval }) => {
            if (cause !== Cause.loadPageFault && cause !== Cause.storePageFault) return false;
            const page = s.map(1, tval >>> 12);
            s.machine.store(page * PAGE_BYTES + (tval & 0xffc), 1000 + (tval >>> 12));
            return true;
          },
        },
        function* (port) {
          seen.push(yield* port.load(0x10004));
          yield* port.store(0x11008, 7);
          seen.push(yield* port.load(0x11008));
          seen.push(port.swap32(0x1200c, 8) ?? (yield* port.fault()));
          seen.push(yield* port.load(0x1200c));
          seen.push(port.load8(0x13001) ?? (yield* port.fault()));
          port.store8(0x14003, 5) ?? (yield* port.fault());
          seen.push(yield* port.load(0x14000));
        },
      );
      expect(log.filter(({ cause }) => cause < 20).map(({ cause, tval }) => [cause, tval])).toEqual(
        [
          [13, 0x10004],
          [15, 0x11008],
          [15, 0x1200c],
          [13, 0x13001],
          [15, 0x14003],
        ],
      );
      expect(causes.at(-1)).toBe(Cause.threadEnd);
      expect(seen).toEqual([1016, 7, 1018, 8, (1019 >> 8) & 0xff, (1020 & 0x00ffffff) | (5 << 24)]);
    });

    test('misaligned words fault with their own cause; a refused store changes nothing', () => {
      const access: Body[] = [
        function* (port) {
          yield* port.load(VA + 2);
        },
        function* (port) {
          yield* port.store(VA + 1, 1);
        },
        function* (port) {
          port.swap32(VA + 3, 1) ?? (yield* port.fault());
        },
        function* (port) {
          yield* port.store(VA, 1);
        },
        function* (port) {
          port.store8(VA, 1) ?? (yield* port.fault());
        },
        function* (port) {
          port.swap32(VA, 1) ?? (yield* port.fault());
        },
        function* (port) {
          port.fill(VA, 1, 8) ?? (yield* port.fault());
        },
      ];
      const { log, notes } = play(
        {
          boot: (s) => {
            for (let n = access.length - 1; n >= 0; n--) {
              s.space(n + 1);
              const page = s.map(n + 1, VPN, RO);
              s.put(Cell.own + n, page);
              s.machine.store(page * PAGE_BYTES, 77);
              s.start(n + 1, 0, n);
            }
          },
          trap: (s, _trap, current) => {
            s.note(s.machine.load(s.get(Cell.own + current - 1) * PAGE_BYTES));
            s.end(current);
            s.put(Cell.current, current === access.length ? -1 : current + 1);
            return true;
          },
        },
        ...access,
      );
      expect(log.map(({ cause, tval }) => [cause, tval])).toEqual([
        [Cause.loadMisaligned, VA + 2],
        [Cause.storeMisaligned, VA + 1],
        [Cause.storeMisaligned, VA + 3],
        [Cause.storePageFault, VA],
        [Cause.storePageFault, VA],
        [Cause.storePageFault, VA],
        [Cause.storePageFault, VA],
      ]);
      expect(notes).toEqual(access.map(() => 77));
    });

    test('upcall frames nest, see their arguments, and return to what they interrupted', () => {
      const trace: string[] = [];
      const { causes } = play(
        {
          trap: (s, { cause, tval }) => {
            const { contexts } = s.machine;
            if (cause === Cause.loadPageFault) contexts.upcall(1, 1, [cause, tval, 9]);
            else if (cause === Cause.environmentCall) {
              const page = s.map(1, contexts.argument(1, 1) >>> 12);
              s.machine.store(page * PAGE_BYTES, contexts.argument(1, 1) >>> 12);
              contexts.setResult(1, 0, page);
            } else return false;
            return true;
          },
        },
        function* (port) {
          trace.push(`main ${yield* port.load(0x20000)}`);
        },
        function* (port, cause = 0, address = 0, last = 0) {
          trace.push(`> ${cause} ${address.toString(16)} ${last}`);
          if (address < 0x22000) trace.push(`${yield* port.load(address + 0x1000)}`);
          yield* port.call(1, address);
          trace.push(`< ${address.toString(16)}`);
        },
      );
      expect(trace).toEqual([
        '> 13 20000 9',
        '> 13 21000 9',
        '> 13 22000 9',
        '< 22000',
        '34',
        '< 21000',
        '33',
        '< 20000',
        'main 32',
      ]);
      expect(causes).toEqual([13, 13, 13, 8, 8, 8, Cause.threadEnd]);
    });

    test('one thread takes 63 frames more, and `hasRoom` says when no more fit', () => {
      let deepest = 0;
      const { causes } = play(
        {
          trap: (s, { cause, tval }) => {
            const { contexts } = s.machine;
            if (cause !== Cause.loadPageFault) return false;
            if (contexts.hasRoom(1)) contexts.upcall(1, 1, [tval]);
            else s.map(1, tval >>> 12);
            return true;
          },
        },
        function* (port) {
          yield* port.load(0x20000);
        },
        function* (port, address = 0) {
          deepest = Math.max(deepest, (address >>> 12) - 31);
          yield* port.load(address + 0x1000);
          yield* port.call(1);
          // Now the page beneath would fault again and push; end here instead.
          throw new Error('deep enough');
        },
      );
      expect(deepest).toBe(63);
      expect(causes.filter((cause) => cause === 13)).toHaveLength(64);
      expect(causes.slice(-2)).toEqual([Cause.environmentCall, Cause.userException]);
    });

    // ---- time -----------------------------------------------------------------------------------

    test('a timer trap comes, never before its time, and again for the next time', () => {
      const { log, cell } = play(
        {
          boot: alone((s) => {
            s.map(1, VPN);
            s.put(Cell.own, s.machine.now() + 5000);
            s.setTimer(s.get(Cell.own));
          }),
          trap: (s, { cause }) => {
            if (cause !== Cause.timerInterrupt) return false;
            s.note(+(s.machine.now() >= s.get(Cell.own)), s.get(Cell.own + 1));
            s.put(Cell.own + 1, s.get(Cell.own + 1) + 1);
            if (s.get(Cell.own + 1) === 5) s.end(1);
            else {
              s.put(Cell.own, s.machine.now() + 3000);
              s.setTimer(s.get(Cell.own));
            }
            return true;
          },
        },
        function* (port) {
          for (;;) yield* port.store(VA, (yield* port.load(VA)) + 1);
        },
      );
      expect(log.map(({ cause }) => cause)).toEqual([69, 69, 69, 69, 69]);
      expect(cell(Cell.own + 1)).toBe(5);
    });

    test('a timer among other traps comes no earlier for them', () => {
      const { cell } = play(
        {
          boot: alone((s) => s.setTimer(s.machine.now() + 1000)),
          trap: (s, { cause }) => {
            if (cause === Cause.timerInterrupt) {
              s.put(Cell.own, s.get(Cell.own) + 1);
              s.setTimer(s.machine.now() + 1000 + s.get(Cell.own) * 7);
            } else if (cause === Cause.environmentCall) s.machine.contexts.setResult(1, 0);
            else s.setTimer(NEVER);
            return cause !== Cause.threadEnd;
          },
        },
        function* (port) {
          for (let n = 0; n < 150; n++) yield* port.call(n);
        },
      );
      expect(cell(Cell.own)).toBeGreaterThan(10);
    });

    test('a time that has passed traps at once; NEVER disarms', () => {
      const { log } = play(
        {
          boot: alone((s) => s.map(1, VPN)),
          trap: (s, { cause }) => {
            if (cause === Cause.environmentCall) {
              const call = s.machine.contexts.argument(1, 0);
              s.setTimer(s.machine.now() - 100);
              if (call === 2) s.setTimer(NEVER);
              s.machine.contexts.setResult(1, 0);
              return true;
            }
            return cause === Cause.timerInterrupt;
          },
        },
        function* (port) {
          yield* port.call(1);
          yield* port.call(2);
          for (let n = 0; n < 3000; n++) yield* port.store(VA, n);
        },
      );
      expect(log.map(({ cause }) => cause)).toEqual([8, 69, 8, Cause.threadEnd]);
    });

    test('idle time is skipped to the timer; a supervisor that waits for nothing halts', () => {
      const far = 50_000_000;
      const { rig, log } = play(
        {
          boot: (s) => {
            s.space(1);
            s.setTimer(far);
          },
          trap: (s, { cause }) => {
            if (cause !== Cause.timerInterrupt) return false;
            s.note(+(s.machine.now() >= far));
            if (s.get(Cell.own) === 0) {
              s.put(Cell.own, 1);
              s.setTimer(2 * far);
            }
            return true;
          },
        },
        function* () {},
      );
      expect(log.map(({ cause }) => cause)).toEqual([69, 69]);
      expect(rig.physical.now()).toBeGreaterThanOrEqual(2 * far);
      expect(rig.physical.now()).toBeLessThan(2 * far + 100_000);
      expect(rig.physical.hart.counters.cycles()).toBeLessThan(far);
    });

    test('work alone is preempted too', () => {
      let done = 0;
      const { log } = play(
        {
          boot: alone((s) => s.setTimer(s.machine.now() + 50_000)),
          trap: (_s, { cause }) => cause === Cause.timerInterrupt,
        },
        function* (port) {
          port.work(200_000) ?? (yield* port.fault());
          done = port.cycles();
        },
      );
      expect(log.map(({ cause }) => cause)).toEqual([69, Cause.threadEnd]);
      expect(done).toBeGreaterThan(200_000);
    });

    // ---- what programs may do to themselves -----------------------------------------------------

    /** The trap that ends a program, and what the machine says of it. */
    function endOf(body: Body, ...more: Body[]): { causes: number[]; failure: string } {
      const failures: string[] = [];
      const { causes } = play(
        {
          boot: alone((s) => s.map(1, VPN)),
          trap: (s, { cause }, current) => {
            if (cause === Cause.environmentCall) return false;
            failures.push(s.machine.contexts.failure(current));
            return false;
          },
        },
        body,
        ...more,
      );
      return { causes, failure: failures.at(-1) ?? '' };
    }

    test('an entry that returns is a trap that says so', () => {
      expect(endOf(function* () {}).causes).toEqual([Cause.threadEnd]);
    });

    test('what it throws becomes a trap that says what', () => {
      const { causes, failure } = endOf(function* (port) {
        yield* port.load(VA);
        throw new TypeError('no such thing');
      });
      expect(causes).toEqual([Cause.userException]);
      expect(failure).toBe('TypeError: no such thing');
      for (const thrown of ['text', 7, null, undefined, { a: 1 }, Symbol('s'), () => 1]) {
        expect(
          endOf(function* () {
            // eslint-disable-next-line @typescript-eslint/only-throw-error -- hostile
            throw thrown;
          }).causes,
        ).toEqual([Cause.userException]);
      }
    });

    test('an exception that cannot be printed is one all the same', () => {
      const trick = new Proxy(new Error('x'), {
        get: () => {
          throw new Error('no');
        },
        getPrototypeOf: () => {
          throw new Error('no');
        },
      });
      const { causes, failure } = endOf(function* () {
        throw trick;
      });
      expect(causes).toEqual([Cause.userException]);
      expect(failure).toContain('cannot be printed');
    });

    test('"generator already running" is the program\'s own exception', () => {
      const { causes, failure } = endOf(function* (port) {
        const self: { op?: Op<void> } = {};
        self.op = (function* (): Op<void> {
          yield* port.load(VA);
          self.op?.next();
        })();
        yield* self.op;
      });
      expect(causes).toEqual([Cause.userException]);
      expect(failure).toContain('already running');
    });

    test("a stack that overflows is the program's own exception", () => {
      const deep = function* (port: UserPort): Op<void> {
        yield* deep(port);
      };
      const { causes } = endOf(deep);
      expect(causes).toEqual([Cause.userException]);
    });

    test('whatever it yields is an illegal instruction, a forged cause most of all', () => {
      const forged: unknown[] = [
        undefined,
        0,
        8,
        13,
        21,
        23,
        0x45,
        0x49,
        -1,
        Number.NaN,
        'text',
        null,
        { cause: 13, tval: 0, gpa: 0, level: -1 },
      ];
      for (const value of forged) {
        const { causes } = endOf(function* () {
          yield value;
        });
        expect(causes).toEqual([Cause.illegalInstruction]);
      }
    });

    test('an entry that is no generator ends with a trap', () => {
      const wrong = (() => 5) as never;
      expect(endOf(wrong).causes).toEqual([Cause.userException]);
      const odd = (() => ({ [Symbol.iterator]: () => ({ next: () => 5 }) })) as never;
      expect(endOf(odd).causes).toEqual([Cause.userException]);
    });

    test('going on past a trap throws at the next access, and says how to write it', () => {
      const { causes, failure } = endOf(function* (port) {
        const lost = port.load32(0x9000);
        yield* port.store(VA, lost ?? 0);
      });
      expect(causes).toEqual([Cause.userException]);
      expect(failure).toContain('yield*');
      const caught = endOf(function* (port) {
        const lost = port.load32(0x9000);
        for (let n = lost ?? 0; n < 9; n++) {
          try {
            yield* port.load(VA);
          } catch {
            // A program may be stubborn; it gets no further.
          }
        }
        yield* port.call(1);
      });
      expect(caught.causes).toEqual([Cause.userException]);
    });

    test('returning past a trap is noticed at the end of the thread', () => {
      const { causes, failure } = endOf(function* (port) {
        const lost = port.load32(0x9000);
        if (lost !== undefined) yield* port.call(1);
      });
      expect(causes).toEqual([Cause.userException]);
      expect(failure).toContain('yield*');
    });

    test('yielding past a trap hands over that trap and no other', () => {
      const { log } = play({ boot: alone() }, function* (port) {
        const lost = port.load32(0x9000);
        yield lost ?? 8;
      });
      // In a storm the trap that was pending is the spurious one, and the program is none the wiser.
      if (storm) expect(log.map(({ cause }) => cause)).toEqual([Cause.threadEnd]);
      else expect(log.at(-1)).toMatchObject({ cause: Cause.loadPageFault, tval: 0x9000 });
    });

    test('a program that fails does not hurt its neighbour', () => {
      const seen: number[] = [];
      const { causes } = play(
        {
          boot: (s) => {
            s.space(2);
            s.map(2, VPN);
            s.start(2, 0, 1);
            s.space(1);
            s.start(1);
          },
          trap: (s, { cause }, current) => {
            if (current !== 1) return false;
            s.end(1);
            s.put(Cell.current, 2);
            return cause === Cause.userException;
          },
        },
        function* (port) {
          const lost = port.load32(0x9000);
          throw new Error(String(lost));
        },
        function* (port) {
          yield* port.store(VA, 5);
          seen.push(yield* port.load(VA));
        },
      );
      expect(causes).toEqual([Cause.userException, Cause.threadEnd]);
      expect(seen).toEqual([5]);
    });

    test('describing what was thrown runs no code that could reach the next program', () => {
      const seen: number[] = [];
      const { causes } = play(
        {
          boot: (s) => {
            s.space(2);
            s.map(2, VPN);
            s.start(2, 0, 1);
            s.space(1);
            s.start(1);
          },
          trap: (s, _trap, current) => {
            if (current !== 1) return false;
            s.end(1);
            s.put(Cell.current, 2);
            return true;
          },
        },
        function* (port) {
          // eslint-disable-next-line @typescript-eslint/only-throw-error -- hostile
          throw {
            toString: () => String(port.load32(0x9000)), // leaves a trap pending, if it can
          };
        },
        function* (port) {
          yield* port.store(VA, 5);
          seen.push(yield* port.load(VA));
        },
      );
      expect(causes).toEqual([Cause.userException, Cause.threadEnd]);
      expect(seen).toEqual([5]);
    });

    // ---- threads --------------------------------------------------------------------------------

    test('threads of a program take turns, and the supervisor hears nothing of it', () => {
      const trace: number[] = [];
      const { causes } = play(
        { boot: alone((s) => s.map(1, VPN)) },
        function* (port) {
          const other = port.spawn(1, 41, 42);
          trace.push(port.thread(), other);
          for (let n = 0; n < 3; n++) {
            yield* port.store(VA, n);
            yield* port.switchTo(other);
            trace.push(yield* port.load(VA));
          }
        },
        function* (port, a = 0, b = 0) {
          trace.push(port.thread(), a, b);
          for (;;) {
            yield* port.store(VA, (yield* port.load(VA)) + 100);
            yield* port.switchTo(0);
          }
        },
      );
      expect(trace).toEqual([0, 1, 1, 41, 42, 100, 101, 102]);
      expect(causes).toEqual([Cause.threadEnd]);
    });

    test('each thread has registers of its own, and a call answers the thread that asked', () => {
      const trace: number[] = [];
      play(
        {
          trap: (s, { cause }) => {
            if (cause !== Cause.environmentCall) return false;
            const { contexts } = s.machine;
            // An upcall to the caller's thread before it goes on, which switches away.
            const n = contexts.argument(1, 0);
            contexts.setResult(1, 0, n + 1000);
            if (n === 1) contexts.upcall(1, 2, []);
            return true;
          },
        },
        function* (port) {
          port.spawn(1);
          const { value } = yield* port.call(1);
          trace.push(value, port.thread());
        },
        function* (port) {
          trace.push((yield* port.call(2)).value, port.thread());
          yield* port.switchTo(0);
        },
        function* (port) {
          yield* port.switchTo(1);
          trace.push(-1, port.thread());
        },
      );
      expect(trace).toEqual([1002, 1, -1, 0, 1001, 0]);
    });

    test('a switch to a thread that is not there is an illegal instruction', () => {
      for (const to of [1, -1, 0.5, Number.NaN, 2 ** 31, 2 ** 53, Number.POSITIVE_INFINITY]) {
        const { causes } = endOf(function* (port) {
          yield* port.switchTo(to);
        });
        expect(causes).toEqual([Cause.illegalInstruction]);
      }
      const ended = endOf(
        function* (port) {
          port.spawn(1);
          yield* port.switchTo(1);
        },
        function* () {},
      );
      expect(ended.causes).toEqual([Cause.threadEnd]);
    });

    test('spawn at an entry that is not there makes no thread', () => {
      const seen: number[] = [];
      endOf(function* (port) {
        for (const entry of [1, -1, 0.5, Number.NaN, 2 ** 53]) seen.push(port.spawn(entry));
        for (let n = 1; n < 1030; n++) seen.push(port.spawn(0));
        yield* port.call(0);
      });
      expect(seen.slice(0, 5)).toEqual([-1, -1, -1, -1, -1]);
      expect(seen.slice(5, 1028)).toEqual(Array.from({ length: 1023 }, (_, n) => n + 1));
      expect(seen.slice(1028).every((thread) => thread === -1)).toBe(true);
    });

    test('threads that do nothing but switch are preempted', () => {
      let turns = 0;
      const limit = 20_000; // so that the test ends even where the law is broken
      const { log } = play(
        {
          boot: alone((s) => s.setTimer(s.machine.now() + 10_000)),
          trap: (s, { cause }, current) => {
            if (cause === Cause.timerInterrupt) s.end(current);
            return cause === Cause.timerInterrupt;
          },
        },
        function* (port) {
          port.spawn(1);
          while (turns++ < limit) yield* port.switchTo(1);
        },
        function* (port) {
          while (turns++ < limit) yield* port.switchTo(0);
        },
      );
      expect(log.map(({ cause }) => cause)).toEqual([Cause.timerInterrupt]);
      expect(turns).toBeLessThan(1000);
    });

    // ---- contexts -------------------------------------------------------------------------------

    test('contexts: exist when made, have the entries of their image, can be made again', () => {
      const { notes } = play(
        {
          boot: alone((s) => {
            const { contexts } = s.machine;
            s.note(+contexts.exists(2), +contexts.exists(1));
            contexts.create(2, 0, 'user');
            s.note(+contexts.exists(2), contexts.imageOf(2));
            contexts.destroy(2);
            s.note(+contexts.exists(2));
            contexts.create(2, 0, 'user');
            s.note(+contexts.exists(2));
            s.note(+contexts.hasEntry(0, 0), +contexts.hasEntry(0, 1), +contexts.hasEntry(0, 2));
            s.note(+contexts.hasEntry(1, 0), +contexts.hasEntry(0, -1), +contexts.hasEntry(0, 0.5));
            s.note(+contexts.hasEntry(-1, 0), +contexts.hasEntry(Number.NaN, Number.NaN));
          }),
        },
        function* () {},
        function* () {},
      );
      expect(notes).toEqual([0, 0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 0, 0]);
    });

    test('a context made by one trap may be started by another', () => {
      const seen: number[] = [];
      const { causes } = play(
        {
          boot: (s) => {
            s.space(2);
            s.space(1);
            s.start(1);
          },
          trap: (s, { cause }, current) => {
            const { contexts } = s.machine;
            if (current !== 1) return false;
            if (cause === Cause.threadEnd) s.put(Cell.current, 2);
            else if (contexts.argument(1, 0) === 1) contexts.create(2, 0, 'user');
            else {
              contexts.start(2, 1, [6, 7]);
              s.put(Cell.own, 1);
              s.put(Cell.own, 2);
            }
            if (cause === Cause.environmentCall) contexts.setResult(1, 0);
            return true;
          },
        },
        function* (port) {
          yield* port.call(1);
          yield* port.call(2);
        },
        function* (_port, a = 0, b = 0) {
          seen.push(a, b);
        },
      );
      expect(causes).toEqual([8, 8, Cause.threadEnd, Cause.threadEnd]);
      expect(seen).toEqual([6, 7]);
    });

    test('save stores the registers of the current thread, as words', () => {
      const { notes } = play(
        {
          trap: (s, { cause }) => {
            if (cause !== Cause.environmentCall) return false;
            const at = s.page() * PAGE_BYTES;
            s.machine.contexts.save(1, at, 5);
            s.machine.contexts.restore(1, at, 5);
            for (let n = 0; n < 6; n++) s.note(s.machine.load(at + n * 4));
            return false;
          },
        },
        function* (port) {
          yield* port.call(7, 1, -2, 2 ** 31, 4, 5);
        },
      );
      expect(notes).toEqual([7, 1, -2, -(2 ** 31), 4, 0]);
    });

    // ---- devices --------------------------------------------------------------------------------

    test('disk: what is written and flushed is read back; completions come in order', () => {
      const { notes } = play(
        {
          boot: alone((s) => {
            const [a, b, c] = [s.page(), s.page(), s.page()];
            [a, b].forEach((page, n) => s.machine.store(page * PAGE_BYTES, 500 + n));
            s.put(Cell.own, c);
            s.put(Cell.own + 1, s.page());
            const { disk } = s.machine;
            s.note(disk.blocks, +(disk.room() >= 4), disk.complete() === null ? 1 : 0);
            const free = disk.room();
            disk.submit({ tag: 10, write: true, block: 3, pages: [a, b] });
            disk.submit({ tag: 11, write: false, block: 0, pages: [], flush: true });
            disk.submit({ tag: 12, write: false, block: 4, pages: [c, s.get(Cell.own + 1)] });
            disk.submit({ tag: 13, write: true, block: 31, pages: [b], force: true });
            s.note(free - disk.room());
          }),
          trap: (s, { cause }) => {
            if (cause !== Cause.externalInterrupt) return false;
            for (;;) {
              const done = s.machine.disk.complete();
              if (done === null) return true;
              s.note(done.tag, +done.ok);
              s.put(Cell.own + 2, s.get(Cell.own + 2) + 1);
              if (done.tag !== 12) continue;
              s.note(s.machine.load(s.get(Cell.own) * PAGE_BYTES));
              s.note(s.machine.load(s.get(Cell.own + 1) * PAGE_BYTES));
            }
          },
        },
        function* () {},
      );
      expect(notes).toEqual([32, 1, 1, 4, 10, 1, 11, 1, 12, 1, 501, 0, 13, 1]);
    });

    test('disk: the queue is bounded, a handler that fills it sees it full, and it empties', () => {
      const { notes, causes } = play(
        {
          trap: (s, { cause }) => {
            const { disk } = s.machine;
            if (cause === Cause.environmentCall) {
              const page = s.page();
              let sent = 0;
              while (disk.room() > 0 && sent < 1000) {
                disk.submit({ tag: sent++, write: true, block: 0, pages: [page] });
              }
              s.put(Cell.own, sent);
              s.note(+(sent >= 16), +(sent <= 256));
              s.machine.contexts.setResult(1, 0);
              return true;
            }
            if (cause !== Cause.externalInterrupt) return false;
            for (let done = disk.complete(); done !== null; done = disk.complete()) {
              if (done.tag !== s.get(Cell.own + 1)) s.note(-1);
              s.put(Cell.own + 1, s.get(Cell.own + 1) + 1);
            }
            // Once: a handler that is begun anew may take what another interrupt was to tell of.
            if (s.get(Cell.own + 1) === s.get(Cell.own) && s.get(Cell.own + 2) === 0) {
              s.put(Cell.own + 2, 1);
              s.note(+(disk.room() >= 16));
            }
            return true;
          },
        },
        function* (port) {
          yield* port.call(1);
        },
      );
      expect(notes).toEqual([1, 1, 1]);
      expect(causes).toContain(Cause.threadEnd);
    });

    test('disk: an interrupt per wake-up at most, and none once all is taken', () => {
      const { notes, cell } = play(
        {
          boot: alone((s) => {
            s.map(1, VPN);
            for (let tag = 0; tag < 3; tag++) {
              s.machine.disk.submit({ tag, write: true, block: tag, pages: [s.page()] });
            }
          }),
          trap: (s, { cause }) => {
            if (cause !== Cause.externalInterrupt) return false;
            s.put(Cell.own, s.get(Cell.own) + 1);
            for (let done = s.machine.disk.complete(); done !== null;) {
              s.note(done.tag);
              done = s.machine.disk.complete();
            }
            return true;
          },
        },
        function* (port) {
          for (let n = 0; n < 2000; n++) {
            yield* port.store(VA, n);
            port.work(100) ?? (yield* port.fault());
          }
        },
      );
      expect(notes).toEqual([0, 1, 2]);
      expect(cell(Cell.own)).toBeLessThanOrEqual(3);
    });

    test('console: bytes come out once, in order', () => {
      const { rig } = play(
        {
          boot: alone((s) => s.machine.console(1, Uint8Array.of(1, 2))),
          trap: (s, { cause }) => {
            if (cause !== Cause.environmentCall) return false;
            s.machine.console(1, Uint8Array.of(s.machine.contexts.argument(1, 0)));
            s.machine.console(1, new Uint8Array(0));
            s.put(Cell.own, 1);
            s.machine.contexts.setResult(1, 0);
            return true;
          },
        },
        function* (port) {
          for (let n = 3; n < 9; n++) yield* port.call(n);
        },
      );
      expect(rig.output()).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    });

    test('neighbours: what nobody offered or connected is refused, and there may be none', () => {
      const { notes } = play(
        {
          trap: (s, { cause }) => {
            if (cause !== Cause.environmentCall) return false;
            const n = s.machine.neighbours;
            const page = s.machine.pages - 2;
            s.note(+(n.self() >= 0), +n.map(1, 0, page, true), +n.unmap(page));
            s.note(+n.copy(2, 0, 30, false), +n.transfer(1, 0, 30), +n.connect(1, 2, 3));
            s.note(+n.send(1), +n.close(1), n.take(), +n.listen(0, 999));
            s.machine.contexts.setResult(1, 0);
            return true;
          },
        },
        function* (port) {
          yield* port.call(0);
        },
      );
      expect(notes).toEqual([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    });

    test('entropy: 32 bits, the same for the same seed, another for another', () => {
      const draw = (seed: number): number[] => {
        const supervisor = new Script({
          trap: (s, { cause }) => {
            if (cause !== Cause.environmentCall) return false;
            s.note(s.machine.entropy(), s.machine.entropy());
            return false;
          },
        });
        const body = program(function* (port) {
          for (let n = 0; n < 8; n++) yield* port.call(0);
        });
        const rig = make({ supervisor, images: [body], seed });
        expect(rig.run()).toBe('halted');
        return Script.notes(rig.peek);
      };
      const first = draw(1);
      expect(first).toHaveLength(16);
      expect(new Set(first).size).toBe(16);
      expect(draw(1)).toEqual(first);
      expect(draw(2)).not.toEqual(first);
      expect(draw(0).every((value) => value !== 0)).toBe(true);
    });

    test('the same run twice: same log, same cycles, same counters', () => {
      const once = (): unknown => {
        const { rig, log } = play(
          {
            trap: (s, { cause, tval }) => {
              if (cause !== Cause.storePageFault) return false;
              s.map(1, tval >>> 12);
              return true;
            },
          },
          function* (port) {
            for (let n = 0; n < 100; n++) yield* port.store(0x10000 + n * 4096, n);
          },
        );
        const { counters } = rig.physical.hart;
        return [log, rig.physical.now(), counters.totals(), counters.cycles(0, 0)];
      };
      expect(once()).toEqual(once());
    });

    // ---- addresses beyond the machine -----------------------------------------------------------

    // A virtual machine's own last page, past `pages`, is its disk's ring: begin after it.
    const past = (s: Script): number => s.machine.pages + 1;
    const beyond: [string, (s: Script) => void][] = [
      ['load', (s) => s.machine.load(past(s) * PAGE_BYTES)],
      ['load, far', (s) => s.machine.load(0xfffff000)],
      ['load at 2^32', (s) => s.machine.load(2 ** 32)],
      ['load below 0', (s) => s.machine.load(-(2 ** 32))],
      ['store', (s) => s.machine.store(past(s) * PAGE_BYTES, 1)],
      ['store, far', (s) => s.machine.store(0xfffffffc, 1)],
      ['store at 2^32', (s) => s.machine.store(2 ** 32, 1)],
      ['zeroPage', (s) => s.machine.zeroPage(past(s))],
      ['zeroPage at 2^20', (s) => s.machine.zeroPage(2 ** 20)],
      ['copyPage from', (s) => s.machine.copyPage(1, past(s))],
      ['copyPage to', (s) => s.machine.copyPage(past(s), 1)],
      ['writePtes', (s) => s.machine.writePtes([{ table: past(s), index: 0, value: 1 }])],
      ['readPtes', (s) => s.machine.readPtes(past(s), 0, 1)],
    ];
    for (const [what, act] of beyond) {
      test(`${what} beyond the machine: a Bug on hardware, the end of a guest`, () => {
        const supervisor = new Script({
          trap: (s, { cause }) => {
            if (cause !== Cause.environmentCall) return false;
            act(s);
            s.note(1); // it went on: wrong
            return false;
          },
        });
        const body = program(function* (port) {
          yield* port.call(0);
        });
        const rig = make({ supervisor, images: [body] });
        if (virtual) expect(rig.run()).toBe('halted');
        else expect(() => rig.run()).toThrow('broken promise');
        expect(Script.notes(rig.peek)).toEqual([]);
      });
    }

    test('test modes are what they say', () => {
      const { rig, cell } = play({ boot: alone((s) => s.map(1, VPN)) }, function* (port) {
        for (let n = 0; n < 10; n++) yield* port.store(VA, n);
      });
      expect(cell(Cell.spurious) >= 10).toBe(storm);
      expect(rig.physical.hart.counters.totals().restarts > 0).toBe(restarts);
    });
  });
}
