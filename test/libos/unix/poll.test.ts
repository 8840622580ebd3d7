/**
 * Waiting on several descriptors, by law: what poll calls ready does not make a read wait, what
 * comes wakes, time is kept to a slice, signals interrupt, and nobody is busy waiting. Where a
 * wakeup got lost, or a descriptor was called ready that is not, somebody here waits for ever.
 */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import type { Op } from '../../../libos/syscalls.ts';
import { at, HEAP, PAGE } from '../../../libos/unix/layout.ts';
import {
  Errno,
  O_CREATE,
  O_READ,
  O_WRITE,
  PIPE_BUF,
  Poll,
  type Process,
  type Program,
  SECOND,
  Signal,
} from '../../../libos/unix/process.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import { runOnHost } from './host.ts';
import { boot, Image, LIMIT, print, type RealConfig, runReal, treeOf } from './real.ts';

const say = (process: Process, ...what: readonly unknown[]): Op<number> =>
  print(process, 1, `${what.join(' ')}\n`);

function* pipe(process: Process): Op<readonly [number, number]> {
  const made = yield* process.pipe();
  if (typeof made === 'number') throw new Error(`no pipe: ${made}`);
  return made;
}

const BUFFER = at(HEAP) + PAGE; // two pages
/** On the first page of the heap: a descriptor for each writer to write to, and to be told by. */
const endOf = (writer: number): number => at(HEAP) + writer * 8;
const WRITER = 0;
/** Of an argument `bytes,pause`: what one writer writes in one round. */
const step = (text = ''): readonly number[] => text.split(',').map(Number);

/**
 * barrier WRITERS STEP..: in each round each writer writes once; all are told to go on when the
 * last bytes of the round have come. Who is read again before that makes no round end.
 */
const barrier: Program = {
  name: 'barrier',
  *main(process) {
    const [, count = '', ...steps] = process.args;
    const writers = Number(count);
    yield* process.heap(3 * PAGE);
    const sources: number[] = [];
    const gates: number[] = [];
    for (let n = 0; n < writers; n++) {
      const [data, gate] = [yield* pipe(process), yield* pipe(process)];
      yield* process.port.store(endOf(n), data[1]);
      yield* process.port.store(endOf(n) + 4, gate[0]);
      if ((yield* process.fork(WRITER, n)) < 0) return 1;
      for (const fd of [data[1], gate[0]]) yield* process.close(fd);
      sources.push(data[0]);
      gates.push(gate[1]);
    }
    for (let round = 0; round < steps.length / writers; round++) {
      const left = sources.map((_, n) => step(steps[round * writers + n])[0] ?? 0);
      while (left.some((bytes) => bytes > 0)) yield* take(process, sources, left);
      for (const gate of gates) yield* process.write(gate, BUFFER, 1);
    }
    // All have ended, or will: that is heard of too.
    const over = new Set<number>();
    while (over.size < writers) {
      const open = sources.filter((fd) => !over.has(fd));
      const found = yield* process.poll(
        open.map((fd) => ({ fd, events: Poll.IN })),
        -1,
      );
      if (typeof found === 'number') return 2;
      for (const [n, fd] of open.entries()) if (found[n] === Poll.HUP) over.add(fd);
    }
    for (let n = 0; n < writers; n++) yield* process.wait();
    yield* say(process, 'rounds', steps.length / writers);
    return 0;
  },
  children: [
    function* (process, writer): Op<number> {
      const [, count = '', ...steps] = process.args;
      const [out, gate] = [
        yield* process.port.load(endOf(writer)),
        yield* process.port.load(endOf(writer) + 4),
      ];
      for (let fd = 3; fd < 16; fd++) if (fd !== out && fd !== gate) yield* process.close(fd);
      for (let at = writer; at < steps.length; at += Number(count)) {
        const [bytes = 0, pause = 0] = step(steps[at]);
        if (pause % 2 === 1) yield* process.poll([], pause);
        else process.port.work(pause) ?? (yield* process.port.fault());
        yield* process.write(out, BUFFER, bytes);
        yield* process.read(gate, BUFFER, 1);
      }
      return 0;
    },
  ],
};

/** Waits for any of them, and reads what is said to be there. */
function* take(process: Process, sources: readonly number[], left: number[]): Op<void> {
  const found = yield* process.poll(
    sources.map((fd) => ({ fd, events: Poll.IN })),
    -1,
  );
  if (typeof found === 'number') throw new Error(`poll: ${found}`);
  for (const [n, fd] of sources.entries()) {
    if (((found[n] ?? 0) & Poll.IN) === 0) continue;
    const got = yield* process.read(fd, BUFFER, 2 * PAGE);
    left[n] = (left[n] ?? 0) - got;
  }
}

/** What is said of every kind of descriptor. */
const kinds: Program = {
  name: 'kinds',
  *main(process) {
    yield* process.heap(3 * PAGE);
    const ask = function* (...fds: readonly number[]): Op<number> {
      const wanted = fds.map((fd) => ({ fd, events: Poll.IN | Poll.OUT }));
      return yield* say(process, yield* process.poll(wanted, 0));
    };
    const file = yield* process.open('new', O_CREATE | O_READ | O_WRITE);
    const nothing = yield* process.open('/dev/null', O_READ);
    yield* ask(0, file, nothing, -1, 9, 99);
    const [read, write] = yield* pipe(process);
    yield* ask(read, write);
    let written = 0;
    for (;;) {
      const found = yield* process.poll([{ fd: write, events: Poll.OUT }], 0);
      if (typeof found === 'number' || found[0] !== Poll.OUT) break;
      written += yield* process.write(write, BUFFER, PIPE_BUF);
    }
    yield* say(process, 'full', written);
    yield* process.read(read, BUFFER, 1);
    yield* ask(read, write);
    yield* process.read(read, BUFFER, PIPE_BUF - 1);
    yield* ask(read, write);
    yield* process.close(write);
    yield* ask(read);
    yield* process.read(read, BUFFER, 2 * PAGE);
    yield* ask(read);
    const other = yield* pipe(process);
    yield* process.close(other[0]);
    yield* ask(other[1]);
    const many = Array.from({ length: 17 }, () => ({ fd: 0, events: Poll.IN }));
    const bad = [yield* process.poll(many, 0), yield* process.poll([], -2)];
    yield* say(process, 'bad', ...bad, yield* process.poll([], 0.5));
    return 0;
  },
};

/** clock CYCLES SPINNERS: how long poll takes beside processes that compute. */
const clock: Program = {
  name: 'clock',
  *main(process) {
    const [, cycles = '', spinners = ''] = process.args;
    const [read, write] = yield* pipe(process);
    const pids: number[] = [];
    for (let n = 0; n < Number(spinners); n++) pids.push(yield* process.fork(0, 0));
    for (const wanted of [[], [{ fd: read, events: Poll.IN }]]) {
      const begun = process.port.cycles();
      yield* process.poll(wanted, Number(cycles));
      yield* say(process, process.port.cycles() - begun);
    }
    for (const pid of pids) yield* process.kill(pid, Signal.KILL);
    for (let n = 0; n < pids.length; n++) yield* process.wait();
    yield* process.close(write);
    return 0;
  },
  children: [
    function* (process): Op<number> {
      for (;;) process.port.work(1000) ?? (yield* process.port.fault());
    },
  ],
};

/** Signals that are handled end it, those that are ignored do not; a stop only holds it up. */
const signals: Program = {
  name: 'signals',
  *main(process) {
    const [NOTE, SENDS, WAITS] = [0, 1, 2];
    yield* process.handle(Signal.USR1, NOTE);
    yield* process.handle(Signal.USR2, 'ignore');
    const [read] = yield* pipe(process);
    for (const signal of [Signal.USR1, Signal.USR2]) {
      yield* process.fork(SENDS, signal);
      const cycles = 5_000_000;
      yield* say(process, yield* process.poll([{ fd: read, events: Poll.IN }], cycles));
      yield* process.wait();
    }
    yield* process.kill(process.pid, Signal.USR1); // has come before
    yield* say(process, yield* process.poll([], -1));
    const pid = yield* process.fork(WAITS, 0);
    yield* process.poll([], 1_000_000);
    yield* process.kill(pid, Signal.STOP);
    const told = yield* process.wait({ pid, stopped: true });
    yield* process.poll([], 5_000_000); // its time passes meanwhile
    yield* process.kill(pid, Signal.CONT);
    const ended = yield* process.wait({ pid });
    yield* say(process, typeof told, typeof ended === 'number' ? ended : ended[1]);
    return 0;
  },
  children: [
    function* (process): Op<number> {
      return yield* say(process, 'handler');
    },
    function* (process, signal): Op<number> {
      yield* process.poll([], 1_000_000);
      // Its number of pages and children does not matter: only the parent polls.
      return Math.min(0, yield* process.kill(parentOf(process), signal));
    },
    function* (process): Op<number> {
      const found = yield* process.poll([], 3_000_000);
      return typeof found === 'number' ? 1 : 7;
    },
  ],
};
/** Pids are given in order, and nobody else is there. */
const parentOf = (process: Process): number => process.pid - 1;

const image = new Image(treeOf({}), 512);
const programs = [...PROGRAMS, barrier, kinds, clock, signals];
const MODES = ['exokernel', 'vm'] as const;
type Config = Omit<RealConfig, 'programs'>;

function said(script: string, config: Config): string {
  const { stdout, ended, complaints } = runReal(image, [script], { ...config, programs });
  expect({ ended, complaints }, script).toEqual({ ended: true, complaints: [] });
  return stdout[0] ?? '';
}

/** The same in each, with long slices and with short ones. */
function everywhere(script: string, wanted: string): void {
  for (const mode of MODES) {
    for (const sliceCycles of [1_000_000, 20_001]) {
      expect(said(script, { mode, parameters: { sliceCycles } }), mode).toBe(wanted);
    }
  }
}

describe('ready, and woken', () => {
  const one = fc.tuple(fc.integer({ min: 1, max: 5000 }), fc.integer({ min: 0, max: 60_000 }));
  const plan = fc.integer({ min: 1, max: 5 }).chain((writers) =>
    fc.record({
      writers: fc.constant(writers),
      rounds: fc.array(fc.tuple(...Array.from({ length: writers }, () => one)), {
        minLength: 1,
        maxLength: 5,
      }),
    }),
  );
  const script = (writers: number, rounds: readonly (readonly (readonly number[])[])[]): string =>
    `barrier ${writers} ${rounds.flat().join(' ')}`;

  test.each(MODES)('several writers in rounds, in slices of odd lengths: %s', (mode) => {
    const slices = fc.integer({ min: 20_001, max: 60_007 });
    fc.assert(
      fc.property(plan, slices, ({ writers, rounds }, sliceCycles) => {
        const text = said(script(writers, rounds), { mode, parameters: { sliceCycles } });
        expect(text).toBe(`rounds ${rounds.length}\n`);
      }),
      { numRuns: 4 },
    );
  });

  test('whatever traps come between', () => {
    const rounds = [[[700, 11] as const, [30, 2000] as const]];
    const config = { mode: 'exokernel' as const, storm: true };
    expect(said(script(2, rounds), config)).toBe('rounds 1\n');
  });

  test('kinds of descriptors', () => {
    const [ready, none] = [Poll.IN | Poll.OUT, Poll.NVAL];
    everywhere(
      'kinds',
      `${ready},${ready},${ready},0,${none},${none}\n0,${Poll.OUT}\nfull 4096\n${Poll.IN},0\n` +
        `${Poll.IN},${Poll.OUT}\n${Poll.IN | Poll.HUP}\n${Poll.HUP}\n${Poll.ERR}\n` +
        `bad ${Errno.EINVAL} ${Errno.EINVAL} ${Errno.EINVAL}\n`,
    );
  });

  test('signals', () => {
    everywhere('signals', `handler\n${Errno.EINTR}\n0\nhandler\n${Errno.EINTR}\nobject 7\n`);
  });
});

describe('time', () => {
  test.each(MODES)('is kept to a slice of each who computes: %s', (mode) => {
    const TIMES = [0, 1, 50_000, 1_234_567];
    const runs = [0, 1, 3].flatMap((spinners) =>
      TIMES.map((cycles) => [cycles, spinners] as const),
    );
    const script = runs.map((one) => `clock ${one.join(' ')}`).join('; ');
    for (const sliceCycles of [20_001, 300_000]) {
      const took = said(script, { mode, parameters: { sliceCycles } }).trimEnd().split('\n');
      for (const [n, text] of took.entries()) {
        const [cycles = 0, spinners = 0] = runs[n >> 1] ?? [];
        expect(Number(text)).toBeGreaterThanOrEqual(cycles);
        // Of each one slice, and one that has begun; and what the calls themselves take.
        const most = spinners === 0 ? 20_000 : (spinners + 2) * (sliceCycles + 20_000);
        expect(Number(text) - cycles).toBeLessThan(most);
      }
      expect(took).toHaveLength(2 * runs.length);
    }
  });

  test.each(MODES)('passes without work: %s', (mode) => {
    const work = (script: string): { calls: number; now: number } => {
      const { machine } = boot(image, image.medium([script]), 1, { mode, programs });
      expect(machine.run(LIMIT)).toBe('halted');
      const { kernelCalls, procedureCalls } = machine.hart.counters.totals();
      return { calls: kernelCalls + procedureCalls, now: machine.now() };
    };
    const [short, long] = [work('sleep .1'), work('sleep 2')];
    expect(long.calls).toBe(short.calls);
    expect(long.now - short.now).toBeGreaterThan(1.8 * SECOND);
  });
});

describe('programs', () => {
  test.each(MODES)('mux passes on lines as they come: %s', (mode) => {
    const script =
      "mux 'echo a; sleep 2; echo d' 'sleep 1; echo b; sleep .5; echo c'; " +
      "mux -l 'echo x' 'sleep 1; exit 3' 'seq 2 3' | sort; mux 'exit 4' 'exit 5'; echo $?";
    expect(said(script, { mode })).toBe('a\nb\nc\nd\n1: x\n3: 2\n3: 3\n4\n');
  });

  test('mux loses no line, and mixes none', () => {
    const script = "mux 'seq 1 3000' 'seq 3001 6000' 'seq 6001 9000' | sort -n | sha256sum";
    const wanted = runOnHost({}, 'seq 1 9000 | sha256sum').stdout;
    const parameters = { sliceCycles: 20_001 };
    for (const mode of MODES) expect(said(script, { mode, parameters })).toBe(wanted);
  });

  test('timeout, as on the host', () => {
    const script =
      'timeout 5 echo in time; timeout .2 sleep 4; echo $?; timeout 9 false; echo $?; ' +
      'timeout 0 true; echo $?; timeout 1 nosuch; echo $?; timeout x true; echo $?; timeout 1; ' +
      'echo $?';
    everywhere(script.replace(/timeout/g, '2>/dev/null timeout'), runOnHost({}, script).stdout);
  });
});
