/**
 * What a fork must not do: leave the child anything of its parent's name, lose pages when it cannot
 * be done, or give a descriptor up that it only renames. Each is a mistake that was really made
 * (check/mistakes/list.ts).
 */
import { describe, expect, test } from 'vitest';

import { type Op, Syscalls, type UserPort } from '../../../libos/syscalls.ts';
import { at, COMMON, CONTROL, Control, FREE, PAGE } from '../../../libos/unix/layout.ts';
import { Errno, O_READ, type Process, type Program } from '../../../libos/unix/process.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import { Image, print, runReal, treeOf } from './real.ts';

const say = (process: Process, ...what: readonly unknown[]): Op<number> =>
  print(process, 1, `${what.join(' ')}\n`);

/** Reads a file of one letter, a few bytes at a time; how many bytes were another's. */
function* readsOnly(process: Process, letter: string): Op<number> {
  const { port } = process;
  const buffer = yield* process.heap(PAGE);
  const bytes = new Uint8Array(100);
  const fd = yield* process.open(letter, O_READ);
  let wrong = fd < 0 ? 1 : 0;
  for (;;) {
    const count = yield* process.read(fd, buffer, bytes.length);
    if (count <= 0) return wrong;
    port.read(buffer, bytes, 0, count) ?? (yield* port.fault());
    wrong += bytes.subarray(0, count).filter((byte) => byte !== letter.charCodeAt(0)).length;
  }
}

/** Parent and child read files at the same time: the file window is a process's own. */
const readers: Program = {
  name: 'readers',
  *main(process) {
    yield* process.stat('a'); // has a window before the fork
    yield* process.fork(0, 0);
    yield* say(process, 'parent', yield* readsOnly(process, 'a'));
    yield* process.wait();
    return 0;
  },
  children: [
    function* (process): Op<number> {
      yield* say(process, 'child', yield* readsOnly(process, 'b'));
      return 0;
    },
  ],
};

const orphan: Program = {
  name: 'killed',
  *main(process) {
    yield* say(process, 'forked', yield* process.fork(0, 0));
    yield* process.wait();
    return 0;
  },
  children: [(process): Op<number> => process.port.load(0)],
};

/** Forks with 30 to 0 pages left, and says how many of them are left afterwards. */
const hungry: Program = {
  name: 'hungry',
  *main(process) {
    const { port } = process;
    const free = (): Op<number> => port.load(at(CONTROL) + Control.free * 4);
    // Space for the texts first: they take pages.
    const texts = yield* process.heap(2 * PAGE);
    for (const page of [0, 1]) yield* port.store(texts + page * PAGE, 0);
    let text = '';
    while ((yield* free()) > 30) yield* port.store(yield* process.heap(PAGE), 1);
    for (;;) {
      const before = yield* free();
      const pid = yield* process.fork(0, 0);
      if (pid > 0) yield* process.wait();
      const after = yield* free();
      text += `${before} ${pid > 0 ? 'ok' : pid} ${after - before}\n`;
      if (before === 0) break;
      yield* port.store(yield* process.heap(PAGE), 1);
    }
    const bytes = Uint8Array.from(text, (char) => char.charCodeAt(0));
    port.write(texts, bytes, 0, bytes.length) ?? (yield* port.fault());
    yield* process.write(1, texts, bytes.length);
    return 0;
  },
  children: [
    function* (): Op<number> {
      return 0;
    },
  ],
};

/** Makes every descriptor of a pipe, the only ones there are, a name of itself. */
const same: Program = {
  name: 'same',
  *main(process) {
    const buffer = yield* process.heap(PAGE);
    yield* process.pipe(); // pipe 0: the ends below are of another
    const ends = yield* process.pipe();
    if (typeof ends === 'number') return 1;
    const [read, write] = ends;
    const made = [yield* process.dup2(read, read), yield* process.dup2(write, write)];
    yield* say(process, made.join() === ends.join(), yield* process.write(write, buffer, 5));
    yield* process.close(write);
    const got = [yield* process.read(read, buffer, 9), yield* process.read(read, buffer, 9)];
    yield* say(process, ...got);
    return 0;
  },
};

/** What the library would take next. */
function* nextPage(port: UserPort): Op<number> {
  const free = yield* port.load(at(CONTROL) + Control.free * 4);
  return yield* port.load(at(FREE) + (free - 1) * 4);
}

/**
 * A child whose next page has gone behind its library's back, or may not be mapped, writes where it
 * needs one: a page that is new, or one that it shares with its parent. It dies, and has kept none
 * of the free pages.
 */
const refused: Program = {
  name: 'refused',
  *main(process) {
    const { port } = process;
    const free = (): Op<number> => port.load(at(CONTROL) + Control.free * 4);
    const mine = yield* process.heap(2 * PAGE);
    yield* port.store(mine, 1);
    const text = yield* process.heap(PAGE);
    yield* port.store(text, 0);
    let line = '';
    for (const child of [0, 1]) {
      for (const address of [mine + PAGE, mine]) {
        const before = yield* free();
        yield* process.fork(child, address);
        const ended = yield* process.wait();
        line += `${(yield* free()) - before} ${typeof ended === 'number' ? ended : ended[1]}\n`;
      }
    }
    const bytes = Uint8Array.from(line, (char) => char.charCodeAt(0));
    port.write(text, bytes, 0, bytes.length) ?? (yield* port.fault());
    return yield* process.write(1, text, bytes.length);
  },
  children: [
    function* ({ port }, address): Op<number> {
      yield* new Syscalls(port).pageFree(yield* nextPage(port), COMMON);
      return yield* port.store(address, 2);
    },
    function* ({ port }, address): Op<number> {
      yield* new Syscalls(port).pageLimit(yield* nextPage(port), COMMON, 0, 0);
      return yield* port.store(address, 2);
    },
  ],
};

const programs = [...PROGRAMS, readers, orphan, hungry, same, refused];
const disk = new Image(treeOf({ a: 'a'.repeat(9_000), b: 'b'.repeat(9_000) }), 800);

function output(script: string, sliceCycles = 1_000_000): string {
  const parameters = { sliceCycles };
  const got = runReal(disk, [script], { mode: 'exokernel', programs, parameters, limit: 3e8 });
  expect({ ended: got.ended, complaints: got.complaints }).toEqual({ ended: true, complaints: [] });
  return got.stdout[0] ?? '';
}

describe('a forked child', () => {
  test.each([20_000, 50_021])('reads files beside its parent, in slices of %d', (sliceCycles) => {
    const lines = output('readers', sliceCycles).split('\n');
    expect(lines.sort()).toEqual(['', 'child 0', 'parent 0']);
  });

  test('that is killed is called by its own pid', () => {
    const stdout = output('killed');
    const pid = /^forked (\d+)$/m.exec(stdout)?.[1] ?? 'nobody';
    expect(stdout).toMatch(new RegExp(`^unix: process ${pid}, environment \\d+, killed: `, 'm'));
  });
});

test('a fork that cannot be done takes no pages', () => {
  const lines = output('hungry').split('\n').slice(0, -1);
  expect(lines).toHaveLength(31);
  const [enough, few] = [lines.filter((line) => line.includes('ok')), lines.slice(-7)];
  expect(enough.length).toBeGreaterThan(0);
  expect(few.every((line) => line.includes(` ${Errno.EAGAIN} `))).toBe(true);
  expect(lines.map((line) => line.split(' ')[2])).toEqual(lines.map(() => '0'));
});

test('a descriptor that is made a name of itself stays what it is', () => {
  expect(output('same')).toBe('true 5\n5 0\n');
});

test('a page that cannot be mapped or copied to is not kept', () => {
  const lines = output('refused').split('\n');
  expect(lines.filter((line) => /^unix: process .* killed: /.test(line))).toHaveLength(4);
  expect(lines.filter((line) => / 139$/.test(line))).toEqual(Array<string>(4).fill('0 139'));
});
