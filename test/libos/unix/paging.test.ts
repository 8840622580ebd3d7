/**
 * Paging to the swap area: programs whose data are more than the memory that they may have come to
 * the same end as with enough of it; whoever forks, ends or is replaced meanwhile loses no block.
 */
import { describe, expect, test } from 'vitest';

import type { Op } from '../../../libos/syscalls.ts';
import { at, CONTROL, Control, PAGE } from '../../../libos/unix/layout.ts';
import type { Process, Program } from '../../../libos/unix/process.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import { Image, print, runReal, treeOf } from './real.ts';

const ENOUGH = 2000; // pages
const FEW = 330; // some 150 of them for programs
const ARRAY = 300; // pages

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

/** Forks with most of its pages on the disk; both write, and neither sees the other's. */
const family: Program = {
  name: 'family',
  *main(process) {
    const pages = yield* process.heap(ARRAY * PAGE);
    yield* fill(process, pages, 1);
    const pid = yield* process.fork(0, pages);
    if (pid < 0) return 1;
    yield* fill(process, pages, 2);
    const ended = yield* process.wait();
    yield* say(process, 'parent', yield* wrong(process, pages, 2), String(ended).split(',')[1]);
    return 0;
  },
  children: [
    function* (process, pages): Op<number> {
      const before = yield* wrong(process, pages, 1);
      yield* fill(process, pages, 3);
      return before + (yield* wrong(process, pages, 3));
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

/** What is free of the memory and of the swap area. */
const left: Program = {
  name: 'left',
  *main(process) {
    const free = yield* control(process, Control.free);
    return yield* say(process, 'left', free, yield* control(process, Control.swapFree));
  },
};

const programs = [...PROGRAMS, array, family, replaced, hog, killer, left];
const lines = Array.from({ length: 9000 }, (_, n) => `${(n * 7919) % 9001} ${'x'.repeat(60)}\n`);
const tree = treeOf({ lines: lines.join('') });
const disk = new Image(tree, 1200, 900);
const without = new Image(tree, 1200);

interface How {
  readonly mode?: 'exokernel' | 'vm';
  readonly quota?: number;
  readonly image?: Image;
}

function output(
  script: string,
  { mode = 'exokernel', quota = FEW, image = disk }: How = {},
): string {
  const got = runReal(image, [script], { mode, programs, parameters: { quota }, limit: 2e10 });
  expect({ ended: got.ended, complaints: got.complaints }).toEqual({ ended: true, complaints: [] });
  return got.stdout[0] ?? '';
}

/** Every `left` of an output says the same as the first. */
function conserves(text: string): void {
  const said = text.split('\n').filter((line) => line.startsWith('left '));
  expect(said.length).toBeGreaterThan(1);
  expect(new Set(said).size).toBe(1);
}

describe.each(['exokernel', 'vm'] as const)('with half the memory that it needs, %s:', (mode) => {
  test('an array', () => {
    const text = output('array', { mode });
    expect(text).toBe('round 1 0\nround 2 0\n');
    expect(output('array', { mode, quota: ENOUGH, image: without })).toBe(text);
    expect(output('array', { mode, image: without })).toMatch(/^unix: .* out of memory$/m);
  });

  test('a sort', () => {
    const script = 'sort lines | sha256sum';
    const text = output(script, { mode });
    expect(text).toBe(output(script, { mode, quota: ENOUGH, image: without }));
    expect(output(script, { mode, image: without })).not.toBe(text);
  });
});

describe('pages and blocks come back', () => {
  test.each(['array', 'family', 'replaced', 'killer', 'hog', 'sort lines | wc'])(
    'from %s',
    (name) => {
      // Once before: file windows and pipe buffers are made for the first and kept.
      conserves(output(`${name}; left; ${name}; left; array; left`));
    },
  );
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
