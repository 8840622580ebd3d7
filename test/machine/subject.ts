/**
 * A random supervisor and its program: it shuffles memory, tables and address spaces under a program
 * that keeps touching them, and writes down all that it sees. It keeps the architecture's rules, and
 * fences what it changes: what hardware may do to one that does not, it need not do everywhere alike.
 */
import fc from 'fast-check';

import { pte, PTE_A, PTE_D, PTE_R, PTE_U, PTE_V, PTE_W, PTE_X } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Op, UserPort } from '../../machine/user-port.ts';
import { Cause } from '../../kernel/supervisor.ts';
import type { Setup } from './rigs.ts';
import { program, RW, Script } from './script.ts';

const FRAMES = 6; // pages that the supervisor shuffles
const FIRST_VPN = 4;
const VPNS = 4; // virtual pages that it maps them at
const SELF = FIRST_VPN + VPNS; // where it maps a table now and then
const UNTOUCHED = 60; // a page that nobody has written to
const GIANT = 512; // first virtual page of a superpage over guest memory from 0

// ---- what a supervisor does at a call, and its program between calls ------------------------------

const frame = fc.nat(FRAMES - 1);
const vpn = fc.integer({ min: FIRST_VPN, max: FIRST_VPN + VPNS - 1 });
const word = fc.nat(7).map((n) => n * 4);
const value = fc.oneof(fc.nat(9), fc.integer());
const space = fc.constantFrom(1, 2);
/** V, R, W, X, U, A, D in any company: some of them reserved, some nobody's, some not yet used. */
const flags = fc.oneof(
  { weight: 3, arbitrary: fc.constant(RW) },
  { weight: 3, arbitrary: fc.constantFrom(PTE_V | PTE_R | PTE_U, PTE_V | PTE_R | PTE_W | PTE_U) },
  {
    weight: 2,
    arbitrary: fc
      .subarray([PTE_R, PTE_W, PTE_X, PTE_U, PTE_A, PTE_D])
      .map((bits) => bits.reduce((all, bit) => all | bit, PTE_V)),
  },
  { weight: 1, arbitrary: fc.constant(0) },
);
/** How much is fenced after a change: always enough, now and then more. */
const fence = fc.constantFrom('page', 'space', 'all');

const act = fc.oneof(
  fc.record({ do: fc.constant('load' as const), frame, word }),
  fc.record({ do: fc.constant('store' as const), frame, word, value }),
  fc.record({ do: fc.constant('zero' as const), frame }),
  fc.record({ do: fc.constant('copy' as const), frame, from: frame }),
  fc.record({
    do: fc.constant('map' as const),
    space,
    vpn,
    frame,
    flags,
    fence,
    plain: fc.boolean(),
  }),
  fc.record({ do: fc.constant('list' as const), space, first: frame, flags }),
  fc.record({ do: fc.constant('table' as const), space, frame }),
  fc.record({ do: fc.constant('self' as const), space, vpn, frame, fence, look: fc.boolean() }),
  fc.record({ do: fc.constant('giant' as const), space, there: fc.boolean() }),
  fc.record({
    do: fc.constant('entries' as const),
    space,
    of: fc.constantFrom('leaf' as const, 'middle' as const, 'root' as const),
  }),
  fc.record({ do: fc.constant('loadUser' as const), space, vpn, word }),
  fc.record({ do: fc.constant('storeUser' as const), space, vpn, word, value }),
  fc.record({ do: fc.constant('readUser' as const), space, vpn, bytes: fc.nat(3 * PAGE_BYTES) }),
  fc.record({ do: fc.constant('switch' as const), space }),
  fc.record({ do: fc.constant('bare' as const), frame, word }),
  fc.record({ do: fc.constant('fence' as const) }),
);
type Act = typeof act extends fc.Arbitrary<infer T> ? T : never;

const touch = fc.oneof(
  fc.record({ do: fc.constant('load' as const), vpn, word }),
  fc.record({ do: fc.constant('store' as const), vpn, word, value }),
  fc.record({ do: fc.constant('swap' as const), vpn, word, value }),
  fc.record({ do: fc.constant('copy' as const), vpn, word, from: vpn }),
  fc.record({ do: fc.constant('giant' as const), frame, word }),
);
type Touch = typeof touch extends fc.Arbitrary<infer T> ? T : never;

export interface Step {
  readonly act: Act;
  readonly touches: readonly Touch[];
}
export const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({ act, touches: fc.array(touch, { maxLength: 3 }) }),
  { minLength: 4, maxLength: 24 },
);

/**
 * The same without what a paravirtual machine refuses (kernel/hypervisor/page-types.ts): superpages,
 * entries that hardware would not follow, and tables that their own guest maps writable.
 */
export const paravirtual = (list: readonly Step[]): Step[] =>
  list
    .filter(({ act }) => act.do !== 'giant' && act.do !== 'self' && !('flags' in act && isOdd(act)))
    .map(({ act, touches }) => ({ act, touches: touches.filter(({ do: is }) => is !== 'giant') }));

const isOdd = ({ flags }: { readonly flags: number }): boolean =>
  (flags & PTE_V) !== 0 && ((flags & (PTE_R | PTE_X)) === 0 || (flags & (PTE_R | PTE_W)) === PTE_W);

/** The page numbers that a script has taken at boot: the same on every machine. */
interface Layout {
  readonly frames: readonly number[];
  readonly spare: number; // becomes a leaf table now and then
}

class Subject {
  readonly script: Script;
  #layout: Layout = { frames: [], spare: -1 };

  constructor(steps: readonly Step[]) {
    this.script = new Script({
      boot: (s) => {
        s.space(1);
        s.space(2);
        this.#layout = {
          frames: Array.from({ length: FRAMES }, () => s.page()),
          spare: s.page(),
        };
        s.note(
          s.machine.load(UNTOUCHED * PAGE_BYTES),
          s.machine.load(UNTOUCHED * PAGE_BYTES + 2048),
        );
        this.frames.forEach((page, n) => {
          s.machine.store(page * PAGE_BYTES, n + 100);
        });
        s.start(2);
        s.start(1);
      },
      dispatch: (s) => s.get(2),
      trap: (s, trap, current) => {
        if (trap.cause === Cause.environmentCall) {
          const argument = (n: number): number => s.machine.contexts.argument(current, n);
          s.note(argument(1));
          const step = steps[argument(0)];
          if (step !== undefined) this.#do(s, step.act);
          s.machine.contexts.setResult(current, 0, 0);
          return true;
        }
        const { loadPageFault, storePageFault } = Cause;
        if (trap.cause !== loadPageFault && trap.cause !== storePageFault) return false;
        // What is missing is put there.
        const at = Math.floor(trap.tval / PAGE_BYTES);
        s.note(at);
        if (at >= GIANT) this.#giant(s, current, true);
        else s.map(current, at, RW, this.frame(at));
        return true;
      },
    });
  }

  get frames(): readonly number[] {
    return this.#layout.frames;
  }

  frame(n: number): number {
    return this.frames[n % FRAMES] ?? 0;
  }

  #fence(s: Script, { space, vpn, fence }: { space: number; vpn: number; fence: string }): void {
    if (fence === 'page') s.machine.fence(space, vpn);
    else if (fence === 'space') s.machine.fence(space);
    else s.machine.fence();
  }

  #giant(s: Script, space: number, there: boolean): void {
    const value = there ? pte(0, PTE_V | PTE_R | PTE_U) : 0;
    s.machine.writePtes([{ table: s.spaceOf(space).middle, index: 1, value }]);
    s.machine.fence(space);
  }

  #do(s: Script, act: Act): void {
    const { machine: m } = s;
    const of = (n: number): ReturnType<Script['spaceOf']> => s.spaceOf(n);
    /** In the space named, whoever's program called. */
    const within = (n: number, work: () => void): void => {
      const now = s.get(3);
      m.setAddressSpace({ root: of(n).root, asid: n });
      work();
      m.setAddressSpace({ root: of(now - 1).root, asid: now - 1 });
    };
    switch (act.do) {
      case 'load':
        return s.note(m.load(this.frame(act.frame) * PAGE_BYTES + act.word));
      case 'store':
        return m.store(this.frame(act.frame) * PAGE_BYTES + act.word, act.value);
      case 'zero':
        return m.zeroPage(this.frame(act.frame));
      case 'copy':
        return m.copyPage(this.frame(act.frame), this.frame(act.from));
      case 'map': {
        const entry = pte(this.frame(act.frame), act.flags);
        const { leaf } = of(act.space);
        if (act.plain) m.store(leaf * PAGE_BYTES + act.vpn * 8, entry | 0);
        else m.writePtes([{ table: leaf, index: act.vpn, value: entry }]);
        return this.#fence(s, act);
      }
      case 'list': {
        const { leaf } = of(act.space);
        const updates = Array.from({ length: VPNS }, (_, n) => ({
          table: leaf,
          index: FIRST_VPN + n,
          value: pte(this.frame(act.first + n), act.flags),
        }));
        m.writePtes(updates);
        m.fence(act.space);
        return;
      }
      case 'table': {
        // The leaf table moves to a page that had been nothing, is used there, and moves back.
        const { leaf, middle } = of(act.space);
        const { spare } = this.#layout;
        m.copyPage(spare, leaf);
        m.writePtes([{ table: middle, index: 0, value: pte(spare, PTE_V) }]);
        m.fence(act.space);
        within(act.space, () => {
          s.note(m.loadUser(FIRST_VPN * PAGE_BYTES) ?? -1);
          m.store(spare * PAGE_BYTES + FIRST_VPN * 8, pte(this.frame(act.frame), RW) | 0);
          m.fence(act.space, FIRST_VPN);
          s.note(m.loadUser(FIRST_VPN * PAGE_BYTES) ?? -1);
        });
        m.writePtes([{ table: middle, index: 0, value: pte(leaf, PTE_V) }]);
        m.fence(act.space);
        m.zeroPage(spare);
        return;
      }
      case 'self': {
        // A table that its own space maps writable: an entry is stored to as user memory.
        const { leaf } = of(act.space);
        const entry = SELF * PAGE_BYTES + act.vpn * 8;
        s.map(act.space, SELF, RW, leaf);
        m.fence(act.space);
        within(act.space, () => {
          s.note(m.loadUser(act.vpn * PAGE_BYTES) ?? -1);
          if (act.look) s.note(m.loadUser(entry) ?? -1);
          s.note(+m.storeUser(entry, pte(this.frame(act.frame), RW)));
          this.#fence(s, act);
          s.note(m.loadUser(act.vpn * PAGE_BYTES) ?? -1);
        });
        return s.unmap(act.space, SELF);
      }
      case 'giant':
        return this.#giant(s, act.space, act.there);
      case 'entries': {
        const first = act.of === 'leaf' ? FIRST_VPN : 0;
        const entries = m.readPtes(of(act.space)[act.of], first, VPNS);
        return s.note(...[...entries].map((entry) => entry | 0));
      }
      case 'loadUser':
        return within(act.space, () => {
          s.note(m.loadUser(act.vpn * PAGE_BYTES + act.word) ?? -1);
        });
      case 'storeUser':
        return within(act.space, () => {
          s.note(+m.storeUser(act.vpn * PAGE_BYTES + act.word, act.value));
        });
      case 'readUser':
        return within(act.space, () => {
          const bytes = m.readUser(act.vpn * PAGE_BYTES, act.bytes);
          s.note(bytes === null ? -1 : bytes.reduce((sum, byte) => (sum * 31 + byte) | 0, 0));
        });
      case 'switch':
        // Context 2 may have ended; then the other goes on.
        if (m.contexts.exists(act.space)) s.put(2, act.space);
        return;
      case 'bare':
        m.setAddressSpace(null);
        s.note(m.load(this.frame(act.frame) * PAGE_BYTES + act.word));
        return within(s.get(3) - 1, () => undefined);
      case 'fence':
        return m.fence();
    }
  }
}

/** Touches memory between the calls, and tells each call what it found. */
function toucher(steps: readonly Step[], frames: () => readonly number[]) {
  return function* (port: UserPort): Op<void> {
    let found = 0;
    for (const [n, { touches }] of steps.entries()) {
      yield* port.call(n, found);
      found = 0;
      for (const one of touches) {
        if (one.do === 'giant') {
          const page = GIANT + (frames()[one.frame] ?? 0);
          found = (found * 3 + (yield* port.load(page * PAGE_BYTES + one.word))) | 0;
          continue;
        }
        const va = one.vpn * PAGE_BYTES + one.word;
        if (one.do === 'load') found = (found * 3 + (yield* port.load(va))) | 0;
        else if (one.do === 'store') yield* port.store(va, one.value);
        else if (one.do === 'swap') {
          found = (found * 3 + (port.swap32(va, one.value) ?? (yield* port.fault()))) | 0;
        } else port.copy(va, one.from * PAGE_BYTES, 64) ?? (yield* port.fault());
      }
    }
    yield* port.call(steps.length, found);
  };
}

/** A machine that has been booted with the subject. */
interface Bench {
  readonly run: (deadline: number) => unknown;
  readonly peek: (pa: number) => number;
}

/**
 * All that the supervisor saw: its notes, the traps told to it, and the words of its pages; the
 * clock is left out, which is no machine's own.
 */
export function seen(boot: (setup: Setup) => Bench, list: readonly Step[]): readonly unknown[] {
  const subject = new Subject(list);
  const body = toucher(list, () => subject.frames);
  const { run, peek } = boot({ supervisor: subject.script, images: [program(body)] });
  run(2e8);
  const traps = Script.log(peek)
    .filter(({ cause }) => cause !== Cause.timerInterrupt)
    .map(({ cause, tval }) => `${cause} at ${tval}`);
  const words = subject.frames.flatMap((page) =>
    [0, 1, 2, 3, 4, 5, 6, 7].map((n) => peek(page * PAGE_BYTES + n * 4)),
  );
  return [Script.notes(peek), traps, words];
}
