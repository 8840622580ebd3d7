/**
 * The collector at work: what programs compute is what the host computes, on heaps so small that
 * everything moves many times; and it is the page faults that do it, counted in its own memory.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { Env } from '../../../kernel/abi.ts';
import { Exokernel } from '../../../kernel/exokernel/exokernel.ts';
import { ALL_MODES } from '../../../lab/modes.ts';
import { gc } from '../../../libos/gc/gc.ts';
import type { Shape } from '../../../libos/gc/heap.ts';
import { Count } from '../../../libos/gc/layout.ts';
import { PROGRAMS } from '../../../libos/gc/programs.ts';
import { image, LibOS, type Image, type Op } from '../../../libos/libos.ts';
import { RamMedium } from '../../../machine/disk.ts';
import { PhysicalMachine } from '../../../machine/physical.ts';
import { modeRun } from '../modes.ts';

const PAGE = 4096;
const SMALL: Shape = { nursery: 2, half: 8 };

// ---- what the programs must print, in plain TypeScript ------------------------------------------

function queens(n: number, placed: readonly number[] = []): number {
  if (placed.length === n) return 1;
  let ways = 0;
  for (let row = 1; row <= n; row++) {
    if (placed.every((at, k) => at !== row && Math.abs(at - row) !== k + 1)) {
      ways += queens(n, [row, ...placed]);
    }
  }
  return ways;
}

function sorted(n: number): string {
  let seed = 1;
  const keys = new Set([32_768]);
  for (let k = 0; k < n; k++) {
    seed = (seed * 1103 + 12_345) % 65_536;
    keys.add(seed);
  }
  return `(true ${[...keys].reduce((sum, key) => (sum + key) % 100_003, 0)})`;
}

function passed(length: number, n: number): number {
  const queue = [0, ...Array.from({ length }, (_, k) => length - k)];
  let total = 0;
  for (let k = n; k > 0; k--) {
    queue.push(k);
    total = (total + (queue.shift() ?? 0)) % 100_003;
  }
  return total;
}

const EXPECTED =
  `queens: (${queens(4)} ${queens(5)})\n` +
  `tree: ${sorted(500)}\n` +
  `queue: ${passed(500, 3000)}\n`;

// ---- runs ---------------------------------------------------------------------------------------

interface Run {
  readonly text: string;
  readonly complaints: string;
  readonly counts: Readonly<Record<keyof typeof Count, number>>;
}

/** Tenants of the exokernel; the first is the collector, whose counts are read at its last line. */
function run(program: Image, sliceCycles: number, others: readonly Image[] = [], quota = 200): Run {
  const images = [program, ...others];
  const tenants = images.map((_, n) => ({
    image: n,
    quota,
    firstBlock: 0,
    blocks: 0,
    ...(n === 2 ? { name: [] } : {}),
  }));
  const config = { environments: 16, slices: 6, sliceCycles, extents: 8 };
  const kernel = new Exokernel(config, tenants);
  const texts = ['', ''];
  let counts: Run['counts'] | null = null;
  const machine: PhysicalMachine = new PhysicalMachine({
    pages: 2048,
    images,
    medium: new RamMedium(16),
    output: (channel, bytes) => {
      texts[channel] += new TextDecoder().decode(bytes);
      if (channel === 1) counts = read(machine, kernel);
    },
  });
  machine.boot(kernel);
  for (let n = 0; n < 4000 && machine.run(machine.now() + 1_000_000) !== 'halted'; n++) {
    if (kernel.state.stateOf(1) === 6 || texts[1]?.includes('queue')) break;
  }
  if (counts === null) throw new Error(`it printed nothing: ${texts[0]}`);
  return { text: texts[1] ?? '', complaints: texts[0] ?? '', counts };
}

/** The collector's counts, through its own page tables. */
function read(machine: PhysicalMachine, kernel: Exokernel): Run['counts'] {
  const word = (pa: number): number => machine.memory.i32[pa >>> 2] ?? 0;
  const next = (page: number, index: number): number =>
    (word(page * PAGE + index * 8) >>> 10) & 0xfffff;
  const root = word(kernel.state.env.address(1, Env.root));
  const leaf = next(next(root, 0), 0);
  const counts: Partial<Record<keyof typeof Count, number>> = {};
  for (const [name, at] of Object.entries(Count)) {
    const page = next(leaf, Math.floor(at / PAGE));
    counts[name as keyof typeof Count] = word(page * PAGE + (at % PAGE));
  }
  return counts as Run['counts'];
}

describe('on a small heap', () => {
  let slow: Run;
  beforeAll(() => {
    slow = run(gc(PROGRAMS, SMALL), 20_000);
  });

  test('the programs compute what the host computes', () => {
    expect(slow.complaints).toBe('');
    expect(slow.text).toBe(EXPECTED);
  });

  test('the nursery and the old space were collected many times', () => {
    expect(slow.counts.minor).toBeGreaterThan(50);
    expect(slow.counts.major).toBeGreaterThan(5);
    expect(slow.counts.copied).toBeGreaterThan(10_000);
  });

  test('the write barrier is a fault: of stores to old pages', () => {
    expect(slow.counts.barrier).toBeGreaterThan(50);
  });

  test('scanning is concurrent: by the thread in the background, and by faults of the program', () => {
    expect(slow.counts.background).toBeGreaterThan(3);
    expect(slow.counts.trapped).toBeGreaterThan(3);
  });
});

test.each([16_000, 23_457, 1_000_000])('with slices of %i cycles, the same', (slice) => {
  const { text, complaints } = run(gc(PROGRAMS, SMALL), slice);
  expect(complaints).toBe('');
  expect(text).toBe(EXPECTED);
});

test('the same in every mode', () => {
  for (const mode of ALL_MODES) {
    const { texts, complaints } = modeRun(mode, gc(PROGRAMS.slice(1, 2), SMALL), undefined, {
      quota: 200,
    });
    const rest = EXPECTED.slice(EXPECTED.indexOf('tree'), EXPECTED.indexOf('queue'));
    expect(complaints, mode).toBe('');
    expect(texts, mode).toEqual([rest, rest]);
  }
}, 120_000);

describe('memory', () => {
  /** Of the empty name: asks the first tenant for pages again and again. */
  class Broker extends LibOS {
    override *main(): Op<void> {
      for (let n = 0; ; n++) {
        yield* this.sys.sleep(yield* this.#events(), 400_000);
        yield* this.sys.revoke(1, 0, 3, { first: 0, pages: 2048 }, 6, 200_000);
      }
    }
    *#events(): Op<number> {
      return (yield* this.sys.sleep(-1, 0)).value;
    }
  }
  class Idle extends LibOS {
    override *main(): Op<void> {
      for (;;) this.port.work(1_000) ?? (yield* this.port.fault());
    }
  }

  test('that is asked for is given back, of the half that is idle, and taken again', () => {
    const others = [image('idle', (port) => new Idle(port)), image('broker', (p) => new Broker(p))];
    const { text, complaints, counts } = run(gc(PROGRAMS, SMALL), 20_000, others, 260);
    expect(complaints).toBe('');
    expect(text).toBe(EXPECTED);
    expect(counts.returned).toBeGreaterThan(6);
  });

  test('that is full is an error of the program, with the size of the heap', () => {
    const hoard =
      '(define (keep n all) (if (= n 0) all (keep (- n 1) (cons n all)))) (keep 20000 nil)';
    const program = gc(
      [
        { name: 'hoard', text: `1` },
        { name: 'more', text: hoard },
      ],
      SMALL,
    );
    const { text, complaints } = run(program, 20_000);
    expect(text).toBe('hoard: 1\n');
    expect(complaints).toContain('gc: the heap is full: 8 pages of pairs live');
  });

  test('beyond the quota is said at once', () => {
    expect(() => run(gc(PROGRAMS, SMALL), 20_000, [], 20)).toThrow(/too few pages for this heap/);
  });
});

describe('programs that are wrong end with a word of why', () => {
  test.each([
    ['(car 1)', 'no pair: 1'],
    ['(+ nil 1)', 'no integer: nil'],
    ['(1 2)', 'no procedure: 1'],
    ['(quotient 1 0)', 'division by zero'],
    ['nobody', 'no such name: nobody'],
    ['((lambda (x) x) 1 2)', 'too many operands'],
    ['((lambda (x y) x) 1)', 'too few operands'],
    ['(cons 1', 'a parenthesis is not closed'],
    [')', 'a parenthesis too many'],
  ])('%s', (text, why) => {
    const programs = [
      { name: 'first', text: '1' },
      { name: 'wrong', text },
    ];
    const { complaints } = run(gc(programs, SMALL), 50_000);
    expect(complaints).toContain(why);
  });

  test('one that calls itself for ever', () => {
    const programs = [
      { name: 'first', text: '1' },
      { name: 'wrong', text: '(define (f n) (+ 1 (f n))) (f 1)' },
    ];
    const { complaints } = run(gc(programs, { nursery: 4, half: 64 }), 50_000);
    expect(complaints).toContain('the stack is full');
  });
});
