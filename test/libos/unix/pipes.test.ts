/**
 * Pipes with several readers and writers at once: every record arrives once and whole, each
 * writer's in order, and nobody is left waiting; whatever the lengths of slices are.
 */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import type { Op } from '../../../libos/syscalls.ts';
import { at, HEAP, PAGE } from '../../../libos/unix/layout.ts';
import { PIPE_BUF, type Process, type Program } from '../../../libos/unix/process.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import { Image, print, type RealConfig, runReal, treeOf } from './real.ts';

/** On the first page of the heap: the pipe's ends, records of each writer, bytes of one, of a read. */
const [READ, WRITE, COUNT, SIZE, PIECE] = [0, 4, 8, 12, 16].map((n) => at(HEAP) + n) as [
  ...[number, number, number, number, number],
];
const BUFFER = at(HEAP) + PAGE;
const [WRITER, READER] = [0, 1];

/** Byte `n` of a record: who wrote it, which it is, and a pattern that tells them apart. */
const byte = (writer: number, record: number, n: number): number =>
  n === 0 ? writer : n === 1 ? record : (writer * 31 + record * 7 + n) & 0xff;

/** Writes its records, each at once. */
function* writes(process: Process, writer: number): Op<number> {
  const { port } = process;
  yield* process.close(yield* port.load(READ));
  const [fd, count, size] = [
    yield* port.load(WRITE),
    yield* port.load(COUNT),
    yield* port.load(SIZE),
  ];
  for (let record = 0; record < count; record++) {
    const bytes = Uint8Array.from({ length: size }, (_, n) => byte(writer, record, n));
    port.write(BUFFER, bytes, 0, size) ?? (yield* port.fault());
    if ((yield* process.write(fd, BUFFER, size)) !== size) return 1;
  }
  return 0;
}

/** Reads some records at a time to the end, and prints which they were, or where one is broken. */
function* reads(process: Process): Op<number> {
  const { port } = process;
  yield* process.close(yield* port.load(WRITE));
  const [fd, size, piece] = [
    yield* port.load(READ),
    yield* port.load(SIZE),
    yield* port.load(PIECE),
  ];
  let said = '';
  for (;;) {
    const got = yield* process.read(fd, BUFFER, piece);
    if (got === 0) break;
    const bytes = new Uint8Array(Math.max(0, got));
    port.read(BUFFER, bytes, 0, bytes.length) ?? (yield* port.fault());
    if (got < 0 || got % size !== 0) said += `read ${got}\n`;
    for (let from = 0; from < bytes.length; from += size) {
      const record = bytes.subarray(from, from + size);
      const [writer = 0, number = 0] = record;
      const whole = record.every((one, n) => one === byte(writer, number, n));
      said += whole ? `${writer} ${number}\n` : `broken ${writer} ${number}\n`;
    }
  }
  yield* print(process, 1, `${said}reader\n`);
  return 0;
}

/** crowd WRITERS READERS RECORDS SIZE PIECE */
const crowd: Program = {
  name: 'crowd',
  *main(process) {
    const [writers = 0, readers = 0, count = 0, size = 0, piece = 0] = process.args
      .slice(1)
      .map(Number);
    yield* process.heap(3 * PAGE);
    const pipe = yield* process.pipe();
    if (typeof pipe === 'number') return 1;
    for (const [n, word] of [...pipe, count, size, piece].entries()) {
      yield* process.port.store(at(HEAP) + n * 4, word);
    }
    for (let n = 0; n < Math.max(writers, readers); n++) {
      if (n < readers && (yield* process.fork(READER, n)) < 0) return 1;
      if (n < writers && (yield* process.fork(WRITER, n)) < 0) return 1;
    }
    for (const fd of pipe) yield* process.close(fd);
    let status = 0;
    for (let n = 0; n < writers + readers; n++) {
      const ended = yield* process.wait();
      if (typeof ended === 'number' || ended[1] !== 0) status = 1;
    }
    yield* print(process, 1, `all ${status}\n`);
    return status;
  },
  children: [writes, reads],
};

/**
 * A process that is ended in the middle of a read: its buffer is no memory of its own. The others
 * go on.
 */
const fatal: Program = {
  name: 'fatal',
  *main(process) {
    yield* process.heap(3 * PAGE);
    const pipe = yield* process.pipe();
    if (typeof pipe === 'number') return 1;
    const words = [...pipe, 5, 8, 8];
    for (const [n, word] of words.entries()) yield* process.port.store(at(HEAP) + n * 4, word);
    const dead = yield* process.fork(2, 0);
    yield* process.fork(READER, 0);
    yield* process.fork(WRITER, 0);
    for (const fd of pipe) yield* process.close(fd);
    for (let n = 0; n < 3; n++) {
      const ended = yield* process.wait();
      if (typeof ended === 'number') return 1;
      yield* print(process, 1, ended[0] === dead ? `dead ${ended[1]}\n` : `ended ${ended[1]}\n`);
    }
    return 0;
  },
  children: [
    writes,
    reads,
    function* (process): Op<number> {
      yield* process.close(yield* process.port.load(WRITE));
      return yield* process.read(yield* process.port.load(READ), 8 * PAGE, 8);
    },
  ],
};

const image = new Image(treeOf({}), 512);
const programs = [...PROGRAMS, crowd, fatal];
const MODES = ['exokernel', 'vm'] as const;

function said(script: string, config: Omit<RealConfig, 'programs'>): string[] {
  const { stdout, ended, complaints } = runReal(image, [script], { ...config, programs });
  expect({ ended, complaints }).toEqual({ ended: true, complaints: [] });
  return (stdout[0] ?? '').trimEnd().split('\n');
}

interface Crowd {
  readonly writers: number;
  readonly readers: number;
  readonly count: number;
  readonly size: number;
  readonly together: number; // records of a read
}

function holds(crowd: Crowd, config: Omit<RealConfig, 'programs'>): void {
  const { writers, readers, count, size, together } = crowd;
  const lines = said(`crowd ${writers} ${readers} ${count} ${size} ${size * together}`, config);
  expect(lines.pop()).toBe('all 0');
  expect(lines.filter((line) => line === 'reader')).toHaveLength(readers);
  const wanted = Array.from(
    { length: writers * count },
    (_, n) => `${n % writers} ${(n / writers) | 0}`,
  );
  const records = lines.filter((line) => line !== 'reader');
  expect([...records].sort()).toEqual(wanted.sort());
  // What one reader got of one writer came in its order.
  for (const part of lines.join('\n').split('reader')) {
    for (let writer = 0; writer < writers; writer++) {
      const matches = [...part.matchAll(new RegExp(`^${writer} (\\d+)$`, 'gm'))];
      const numbers = matches.map(([, number]) => Number(number));
      expect(numbers).toEqual([...numbers].sort((a, b) => a - b));
    }
  }
}

const crowds = fc.record({
  writers: fc.integer({ min: 1, max: 4 }),
  readers: fc.integer({ min: 1, max: 4 }),
  count: fc.integer({ min: 1, max: 30 }),
  size: fc.oneof(fc.integer({ min: 2, max: PIPE_BUF }), fc.constant(PIPE_BUF)),
  together: fc.integer({ min: 1, max: 7 }),
});

describe('several readers and writers', () => {
  test.each(MODES)('every record once and whole, in slices of odd lengths: %s', (mode) => {
    const slices = fc.integer({ min: 20_001, max: 60_007 });
    fc.assert(
      fc.property(crowds, slices, (one, sliceCycles) => {
        holds(one, { mode, parameters: { sliceCycles } });
      }),
      { numRuns: 5 },
    );
  });

  test('whatever traps come between', () => {
    holds(
      { writers: 3, readers: 2, count: 6, size: 100, together: 3 },
      { mode: 'vm', storm: true },
    );
  });

  test.each(MODES)('one of them dies in the middle of a read: %s', (mode) => {
    for (const sliceCycles of [1_000_000, 20_001]) {
      const lines = said('fatal', { mode, parameters: { sliceCycles } });
      const records = [0, 1, 2, 3, 4].map((n) => `0 ${n}`);
      const wanted = ['dead 139', 'ended 0', 'ended 0', 'reader', ...records];
      expect(lines.filter((line) => !line.startsWith('unix: process ')).sort()).toEqual(
        wanted.sort(),
      );
    }
  });
});
