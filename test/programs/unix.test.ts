/**
 * JOS's programs that are shaped as Unix programs (lab 4, part B; lab 5): as processes of the Unix
 * library OS, on the exokernel on the physical machine and in a virtual one.
 */
import { describe, expect, test } from 'vitest';

import type { Mode } from '../../lab/modes.ts';
import type { Op } from '../../libos/syscalls.ts';
import { DIRECT } from '../../libos/unix/fs/format.ts';
import { at, HEAP, PAGE } from '../../libos/unix/layout.ts';
import {
  O_CREATE,
  O_READ,
  O_WRITE,
  type Process,
  type Program,
  Signal,
} from '../../libos/unix/process.ts';
import { PROGRAMS } from '../../libos/unix/programs/index.ts';
import { Image, print, runReal, treeOf } from '../libos/unix/real.ts';
import { BOARDS, type BoardName } from './boards.ts';

const MODE: Record<BoardName, Mode> = {
  'physical machine': 'exokernel',
  'virtual machine': 'exokernel-in-vm',
};

const say = (process: Process, ...what: readonly unknown[]): Op<number> =>
  print(process, 1, `${what.join(' ')}\n`);

/** Bytes of memory as text, a byte a character. */
function* text(process: Process, from: number, bytes: number): Op<string> {
  const copy = new Uint8Array(Math.max(0, bytes));
  process.port.read(from, copy, 0, copy.length) ?? (yield* process.port.fault());
  return String.fromCharCode(...copy);
}
function* put(process: Process, to: number, what: string): Op<void> {
  const bytes = Uint8Array.from(what, (char) => char.charCodeAt(0));
  process.port.write(to, bytes, 0, bytes.length) ?? (yield* process.port.fault());
}
function* pipe(process: Process): Op<readonly [number, number]> {
  const made = yield* process.pipe();
  if (typeof made === 'number') throw new Error(`no pipe: ${made}`);
  return made;
}

// ---- forktree -----------------------------------------------------------------------------------

const DEPTH = 3;
const NODE = at(HEAP); // first page of the heap: whose turn it is, one bit a byte

/** The name stands in memory that parent and child share until one writes: both write it. */
function* forktree(process: Process, depth: number): Op<number> {
  yield* say(process, `${process.pid}: I am '${yield* text(process, NODE, depth)}'`);
  if (depth === DEPTH) return 0;
  for (const branch of ['0', '1']) {
    yield* put(process, NODE + depth, branch);
    yield* process.fork(0, depth + 1);
  }
  yield* put(process, NODE, 'xxx');
  return 0;
}
const tree: Program = {
  name: 'forktree',
  *main(process) {
    yield* process.heap(PAGE);
    return yield* forktree(process, 0);
  },
  children: [forktree],
};

// ---- testpipe -----------------------------------------------------------------------------------

const MESSAGE = 'Now is the time for all good men to come to the aid of their party.';

const testpipe: Program = {
  name: 'testpipe',
  *main(process) {
    const buffer = yield* process.heap(PAGE);
    const [read, write] = yield* pipe(process);
    yield* process.fork(0, read | (write << 8));
    yield* process.close(read);
    yield* put(process, buffer, MESSAGE);
    yield* say(process, 'wrote', yield* process.write(write, buffer, MESSAGE.length));
    yield* process.close(write);
    yield* process.wait();
    // Now somebody writes to a pipe that nobody reads any more.
    const other = yield* pipe(process);
    yield* process.fork(1, other[0] | (other[1] << 8));
    yield* process.close(other[0]);
    yield* process.close(other[1]);
    const ended = yield* process.wait();
    yield* say(process, 'status', typeof ended === 'number' ? ended : ended[1]);
    yield* say(process, 'pipe tests passed');
    return 0;
  },
  children: [
    function* (process, ends): Op<number> {
      const buffer = yield* process.heap(PAGE);
      yield* process.close(ends >> 8);
      let got = '';
      for (;;) {
        const count = yield* process.read(ends & 0xff, buffer, 20);
        if (count <= 0) break;
        got += yield* text(process, buffer, count);
      }
      yield* say(process, 'pipe read closed', got === MESSAGE ? 'properly' : got);
      return 0;
    },
    function* (process, ends): Op<number> {
      const buffer = yield* process.heap(PAGE);
      yield* process.handle(Signal.PIPE, 'ignore');
      yield* process.close(ends & 0xff);
      // The parent may not have closed its end yet: until then there is room for these.
      for (let n = 0; n < 1000; n++) {
        const count = yield* process.write(ends >> 8, buffer, 1);
        if (count === 1) continue;
        yield* say(process, 'pipe write closed', count);
        return 5;
      }
      return 6;
    },
  ],
};

// ---- testpiperace -------------------------------------------------------------------------------

const ROUNDS = 60;

/** Names of the read end come and go, one always remains: the writer must not see it closed. */
const testpiperace: Program = {
  name: 'testpiperace',
  *main(process) {
    const buffer = yield* process.heap(PAGE);
    const [read, write] = yield* pipe(process);
    yield* process.fork(0, read | (write << 8));
    yield* process.close(write);
    let total = 0;
    for (let n = 0; n < ROUNDS; n++) {
      yield* process.dup2(read, 10);
      yield* process.dup2(10, 11);
      yield* process.close(10);
      yield* process.dup2(read, read);
      yield* process.close(read);
      yield* process.dup2(11, read);
      yield* process.close(11);
      if (n % 10 === 0) yield* process.fork(1, 0);
      total += yield* process.read(read, buffer, 1);
    }
    for (let got = 1; got > 0; total += got) got = yield* process.read(read, buffer, PAGE);
    yield* say(process, total === 2 * ROUNDS ? "race didn't happen" : `RACE: read ${total}`);
    for (let n = 0; n <= ROUNDS / 10; n++) yield* process.wait();
    return 0;
  },
  children: [
    function* (process, ends): Op<number> {
      const buffer = yield* process.heap(PAGE);
      yield* process.close(ends & 0xff);
      for (let n = 0; n < 2 * ROUNDS; n++) {
        const count = yield* process.write(ends >> 8, buffer, 1);
        if (count !== 1) yield* say(process, 'RACE: pipe appears closed', count);
      }
      yield* say(process, 'child done with loop');
      return 0;
    },
    // Has all the names for as long as it lives, which is not long.
    function* (): Op<number> {
      return 0;
    },
  ],
};

// ---- testfile -----------------------------------------------------------------------------------

const MOTD = 'This is /motd, the message of the day.\n\nWelcome to the kernel, now with files!\n';
const BLOCKS = DIRECT * 3; // the last two thirds behind the indirect block

const testfile: Program = {
  name: 'testfile',
  *main(process) {
    const { port } = process;
    const buffer = yield* process.heap(PAGE);
    yield* say(process, 'not found', yield* process.open('not-found', O_READ));
    const stat = yield* process.stat('motd');
    yield* say(process, 'stat', typeof stat === 'number' ? stat : stat.bytes === MOTD.length);
    const motd = yield* process.open('motd', O_READ);
    const count = yield* process.read(motd, buffer, PAGE);
    yield* say(process, 'read', (yield* text(process, buffer, count)) === MOTD);
    yield* process.close(motd);
    yield* say(process, 'closed', yield* process.read(motd, buffer, PAGE));
    // A file without a name lives until it is closed, and nobody else finds it.
    const old = yield* process.open('old', O_READ);
    yield* process.unlink('old');
    const left = [yield* process.read(old, buffer, 1), yield* process.open('old', O_READ)];
    yield* say(process, 'stale', ...left);
    yield* process.close(old);

    const made = yield* process.open('new-file', O_WRITE | O_CREATE);
    yield* put(process, buffer, MOTD);
    const wrote = yield* process.write(made, buffer, MOTD.length);
    yield* process.close(made);
    port.fill(buffer, 0, PAGE) ?? (yield* port.fault());
    const again = yield* process.open('new-file', O_READ);
    yield* process.read(again, buffer, PAGE);
    const same = (yield* text(process, buffer, MOTD.length)) === MOTD;
    yield* say(process, 'write', wrote === MOTD.length && same);
    yield* process.close(again);

    const big = yield* process.open('big', O_WRITE | O_CREATE);
    for (let n = 0; n < BLOCKS; n++) {
      yield* port.store(buffer, n);
      yield* process.write(big, buffer, PAGE);
    }
    yield* process.close(big);
    const bigger = yield* process.open('big', O_READ);
    let right = 0;
    for (let n = 0; n < BLOCKS; n++) {
      const got = yield* process.read(bigger, buffer, PAGE);
      if (got === PAGE && (yield* port.load(buffer)) === n) right++;
    }
    yield* say(process, 'large file', right, yield* process.read(bigger, buffer, PAGE));
    return 0;
  },
};

// ---- testfdsharing ------------------------------------------------------------------------------

const PART = 10; // bytes

/** Prints the next bytes of a descriptor. */
function* next(process: Process, who: string, fd: number): Op<number> {
  const buffer = yield* process.heap(PAGE);
  const count = yield* process.read(fd, buffer, PART);
  return yield* say(process, who, JSON.stringify(yield* text(process, buffer, count)));
}

const testfdsharing: Program = {
  name: 'testfdsharing',
  *main(process) {
    const fd = yield* process.open('motd', O_READ);
    yield* next(process, 'parent', fd);
    for (const child of [0, 1, 2]) {
      yield* process.fork(child, fd);
      yield* process.wait();
      yield* next(process, 'parent', fd);
    }
    return 0;
  },
  children: [
    function* (process, fd): Op<number> {
      yield* next(process, 'child', fd);
      // Its own descriptor: the parent's stays open.
      yield* process.close(fd);
      return 0;
    },
    function* (process, fd): Op<number> {
      return yield* process.exec('next', ['next', `${fd}`]);
    },
    // An offset of its own begins at 0, and moves no other.
    function* (process): Op<number> {
      const fd = yield* process.open('motd', O_READ);
      yield* next(process, 'own', fd);
      return 0;
    },
  ],
};
const reader: Program = {
  name: 'next',
  *main(process) {
    yield* next(process, 'exec', Number(process.args[1]));
    return 0;
  },
};

const programs = [...PROGRAMS, tree, testpipe, testpiperace, testfile, testfdsharing, reader];
const disk = new Image(treeOf({ motd: MOTD, old: 'x' }), 1000);
const SHORT = { sliceCycles: 20_000 };
const LIMIT = 100_000_000; // cycles: a script that needs them hangs

describe.each(BOARDS)('on the %s', (on) => {
  /** What a script prints, of which the kernel has nothing to say. */
  function output(script: string, parameters: { readonly sliceCycles?: number } = {}): string {
    const got = runReal(disk, [script], { mode: MODE[on], programs, parameters, limit: LIMIT });
    expect({ ended: got.ended, complaints: got.complaints }).toEqual({
      ended: true,
      complaints: [],
    });
    return got.stdout[0] ?? '';
  }

  test.each([{}, SHORT])('forktree: a tree of copy-on-write children, eight leaves: %o', (how) => {
    const lines = output('forktree', how).split('\n').slice(0, -1);
    const names = lines.map((line) => /^\d+: I am '([01]*)'$/.exec(line)?.[1] ?? line);
    const wanted = [''];
    for (const name of wanted) if (name.length < DEPTH) wanted.push(`${name}0`, `${name}1`);
    expect(names.sort()).toEqual(wanted.sort());
    expect(names.filter((name) => name.length === DEPTH)).toHaveLength(8);
  });

  test('testpipe: read to the end, and no write without a reader', () => {
    expect(output('testpipe')).toBe(
      `wrote ${MESSAGE.length}\npipe read closed properly\n` +
        'pipe write closed -32\nstatus 5\npipe tests passed\n',
    );
  });

  test.each([{}, SHORT])('testpiperace: a pipe never appears closed while it is not: %o', (how) => {
    expect(output('testpiperace', how)).toBe("child done with loop\nrace didn't happen\n");
  });

  test('testfile: not found, stat, read, stale, write, and beyond the indirect block', () => {
    expect(output('testfile')).toBe(
      'not found -2\nstat true\nread true\nclosed -9\nstale 1 -2\nwrite true\n' +
        `large file ${BLOCKS} 0\n`,
    );
  });

  test('testfdsharing: the offset is shared over fork and exec, the descriptor is not', () => {
    const part = (n: number): string => JSON.stringify(MOTD.slice(n * PART, (n + 1) * PART));
    const who = ['parent', 'child', 'parent', 'exec', 'parent'];
    const lines = who.map((name, n) => `${name} ${part(n)}\n`);
    lines.push(`own ${part(0)}\n`, `parent ${part(5)}\n`);
    expect(output('testfdsharing')).toBe(lines.join(''));
  });
});
