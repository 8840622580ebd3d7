/**
 * Paging to the swap area: programs whose data are more than the memory that they may have come to
 * the same end as with enough of it; whoever forks, ends or is replaced meanwhile loses no block.
 */
import { describe, expect, test } from 'vitest';

import type { Op } from '../../../libos/syscalls.ts';
import { at, CONTROL, Control, PAGE } from '../../../libos/unix/layout.ts';
import type { Process, Program } from '../../../libos/unix/process.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import { ALL_MODES, type Mode } from '../../../lab/modes.ts';
import { boot, Image, print, treeOf } from './real.ts';

const ENOUGH = 2000; // pages
const FEW = 290; // some 120 of them for programs
const ARRAY = 221; // pages; has no divisor in common with the strides below
const HOT = 40; // pages
const SWEEPS = 3;

const control = ({ port }: Process, word: number): Op<number> => port.load(at(CONTROL) + word * 4);
const say = (process: Process, ...what: readonly unknown[]): Op<number> =>
  print(process, 1, `${what.join(' ')}\n`);
const valueOf = (page: number, round: number): number => (page * 7919 + round * 104_729) | 0;

/** Writes each page of an array, several times over and not in order. */
function* fill({ port }: Process, array: number, round: number): Op<void> {
  for (let n = 0; n < ARRAY; n++) {
    const page = (n * 7) % ARRAY;
    yield* port.store(array + page * PAGE + (page % 64) * 4, valueOf(page, round));
  }
}

/** How many pages of it are not as `fill` left them. */
function* wrong({ port }: Process, array: number, round: number): Op<number> {
  let bad = 0;
  for (let n = 0; n < ARRAY; n++) {
    const page = (n * 11) % ARRAY;
    const got = yield* port.load(array + page * PAGE + (page % 64) * 4);
    const rest = yield* port.load(array + page * PAGE + PAGE - 4);
    if (got !== valueOf(page, round) || rest !== 0) bad++;
  }
  return bad;
}

const array: Program = {
  name: 'array',
  *main(process) {
    const pages = yield* process.heap(ARRAY * PAGE);
    for (const round of [1, 2]) {
      yield* fill(process, pages, round);
      yield* say(process, 'round', round, yield* wrong(process, pages, round));
    }
    return 0;
  },
};

/**
 * Forks with most of its pages on the disk, and those in memory no longer as they are there. Both
 * write, the parent first, and neither sees the other's.
 */
const family: Program = {
  name: 'family',
  *main(process) {
    const pages = yield* process.heap(ARRAY * PAGE);
    const pipe = yield* process.pipe();
    if (typeof pipe === 'number') return 1;
    yield* fill(process, pages, 1);
    yield* fill(process, pages, 2);
    const pid = yield* process.fork(0, pages + pipe[0]);
    if (pid < 0) return 1;
    yield* fill(process, pages, 3);
    yield* process.write(pipe[1], pages, 1);
    const ended = yield* process.wait();
    yield* say(process, 'parent', yield* wrong(process, pages, 3), String(ended).split(',')[1]);
    return 0;
  },
  children: [
    function* (process, argument): Op<number> {
      const pages = argument - (argument % PAGE);
      yield* process.read(argument % PAGE, yield* process.heap(PAGE), 1);
      const before = yield* wrong(process, pages, 2);
      const again = yield* wrong(process, pages, 2);
      yield* fill(process, pages, 4);
      return Math.min(255, before + again + (yield* wrong(process, pages, 4)));
    },
  ],
};

/** Has its memory used, and is then the small program that its arguments name. */
const replaced: Program = {
  name: 'replaced',
  *main(process) {
    yield* fill(process, yield* process.heap(ARRAY * PAGE), 1);
    return yield* process.exec('echo', ['echo', 'replaced']);
  },
};

/** Touches ever more pages. */
const hog: Program = {
  name: 'hog',
  *main(process) {
    for (;;) yield* process.port.store(yield* process.heap(PAGE), 1);
  },
};

/** Kills a child that is busy with the swap area at some moment. */
const killer: Program = {
  name: 'killer',
  *main(process) {
    for (let n = 0; n < 6; n++) {
      const pid = yield* process.fork(0, 0);
      const { port } = process;
      for (let turn = 0; turn < 3 + n; turn++) {
        if (port.work(700_000 + n * 77_777) === undefined) yield* port.fault();
      }
      yield* process.kill(pid, 9);
      yield* process.wait();
    }
    return 0;
  },
  children: [
    function* (process): Op<number> {
      const pages = yield* process.heap(ARRAY * PAGE);
      for (let round = 0; ; round++) yield* fill(process, pages, round);
    },
  ],
};

/** Some pages are needed all the time, the others in turn; nothing is written but at first. */
const hot: Program = {
  name: 'hot',
  *main(process) {
    const { port } = process;
    const often = yield* process.heap(HOT * PAGE);
    const pages = yield* process.heap(ARRAY * PAGE);
    for (let n = 0; n < HOT; n++) yield* port.store(often + n * PAGE, n);
    for (let n = 0; n < ARRAY; n++) yield* port.store(pages + n * PAGE, n);
    let bad = 0;
    for (let n = 0; n < SWEEPS * ARRAY; n++) {
      const page = n % ARRAY;
      if ((yield* port.load(pages + page * PAGE)) !== page) bad++;
      for (let k = 0; k < 4; k++) {
        const which = (n * 4 + k) % HOT;
        if ((yield* port.load(often + which * PAGE)) !== which) bad++;
      }
    }
    const written = yield* control(process, Control.swapOut);
    return yield* say(process, 'hot', bad, written, yield* control(process, Control.swapIn));
  },
};

/** What is free of the memory and of the swap area. */
const left: Program = {
  name: 'left',
  *main(process) {
    const free = yield* control(process, Control.free);
    return yield* say(process, 'left', free, yield* control(process, Control.swapFree));
  },
};

const programs = [...PROGRAMS, array, family, replaced, hog, killer, hot, left];
const lines = Array.from({ length: 2000 }, (_, n) => `${(n * 7919) % 2001} ${'x'.repeat(240)}\n`);
const tree = treeOf({ lines: lines.join('') });
const FILES = 1000; // blocks
const SWAP = 600;
const disk = new Image(tree, FILES, SWAP);
const without = new Image(tree, FILES);

interface How {
  readonly mode?: Mode;
  readonly quota?: number;
  readonly image?: Image;
  /** blocks of the swap area that fail, once so many pages have been written */
  readonly failing?: { readonly from: number; readonly to: number; readonly after: number };
}

function output(
  script: string,
  { mode = 'exokernel', quota = FEW, image = disk, failing }: How = {},
): string {
  const config = { mode, programs, parameters: { quota } };
  const { machine, outcome } = boot(image, image.medium([script]), 1, config);
  const { after = 0, from = 0, to = 0 } = failing ?? {};
  let halted = false;
  while (!halted && machine.hart.counters.totals(1).diskWrites < after) {
    halted = machine.run(machine.now() + 100_000) === 'halted';
  }
  for (let block = from; block < to; block++) machine.device.failBlock(FILES + block);
  if (!halted) expect(machine.run(machine.now() + 2e10)).toBe('halted');
  const { stdout, complaints } = outcome();
  expect(complaints).toEqual([]);
  return stdout[0] ?? '';
}

const ENOUGH_OF_IT = { quota: ENOUGH, image: without } as const;
const SORT = 'sort lines | sha256sum';

describe('with half the memory that it needs', () => {
  const expected = 'round 1 0\nround 2 0\n';

  test('an array comes to its end only with a swap area', () => {
    expect(output('array', ENOUGH_OF_IT)).toBe(expected);
    expect(output('array', { image: without })).toMatch(/^unix: .*: out of memory$/m);
  });

  test.each(ALL_MODES.filter((mode) => mode !== 'vm-nested'))('and in every mode: %s', (mode) => {
    expect(output('array', { mode })).toBe(expected);
  });

  test('a sort', () => {
    const sorted = output(SORT, ENOUGH_OF_IT);
    expect(output(SORT)).toBe(sorted);
    expect(output(SORT, { image: without })).not.toBe(sorted);
  });
});

test('pages that are needed all the time stay, and none is written twice for nothing', () => {
  const [, bad, written = 0, read = 0] = output('hot').trim().split(' ').map(Number);
  expect(bad).toBe(0);
  expect(written).toBeGreaterThan(ARRAY / 2);
  expect(written).toBeLessThan((HOT + ARRAY) * 1.2);
  // Each sweep has every page of the array read, and little else.
  expect(read).toBeGreaterThan(ARRAY);
  expect(read).toBeLessThan(SWEEPS * ARRAY * 1.15);
});

test('pages and blocks come back from whoever ends, forks, is replaced or killed', () => {
  // Once before: file windows and pipe buffers are made for the first and kept.
  const names = ['array', 'family', 'replaced', 'killer', 'hog', SORT];
  const text = output(`${names.join('; ')}; left; ${names.join('; left; ')}; left`);
  const said = text.split('\n').filter((line) => line.startsWith('left '));
  expect(said).toHaveLength(names.length + 1);
  expect(new Set(said).size).toBe(1);
  expect(said[0]?.split(' ')[2]).toBe(String(SWAP));
});

test('parent and child that share what is on the disk have each their own', () => {
  expect(output('family')).toBe('parent 0 0\n');
});

test('who is replaced has no old pages', () => {
  expect(output('replaced; array')).toBe('replaced\nround 1 0\nround 2 0\n');
});

test('with the swap area full the one that asks for more ends, with one line', () => {
  const text = output('hog; echo $?; array; echo alive | wc');
  const said = text.split('\n').filter((line) => line.startsWith('unix: '));
  expect(said).toHaveLength(1);
  expect(said[0]).toMatch(/out of memory, and the swap area is full$/);
  expect(text).toContain('139\nround 1 0\nround 2 0\n');
});

describe('a disk that fails', () => {
  const lines = (text: string): string[] => text.match(/^unix: .*$/gm) ?? [];

  test('some blocks cannot be written: others are, and nothing else is noticed', () => {
    const failing = { from: 20, to: 30, after: 0 };
    expect(output('array', { failing })).toBe('round 1 0\nround 2 0\n');
  });

  test('no block can be written: who needs more than memory ends, the others go on', () => {
    const text = output('array; echo $?; left; echo a | wc -l; left', {
      failing: { from: 0, to: SWAP, after: 0 },
    });
    expect(lines(text)).toHaveLength(1);
    expect(text).toMatch(/: out of memory, and the swap area cannot be written\n139\n/);
    expect(text).toMatch(/\nleft (\d+) 600\n1\nleft \d+ 600\n$/);
  });

  test('what was written cannot be read: its owner ends, the others go on', () => {
    const text = output('array; echo $?; left; echo a | wc -l; array; left', {
      failing: { from: 0, to: 16, after: 3 * 16 },
    });
    expect(lines(text)).toHaveLength(1);
    expect(text).toMatch(/: the swap area cannot be read\n139\n/);
    expect(text).toMatch(/\nleft \d+ 600\n1\nround 1 0\nround 2 0\nleft \d+ 600\n$/);
  });
});
