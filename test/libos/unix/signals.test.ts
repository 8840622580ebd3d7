/**
 * Signals on the real Unix: handlers, default actions, stopping, groups, what the kernel's side of
 * it cannot do (a process that makes no system call). Each program prints what it saw.
 */
import { describe, expect, test } from 'vitest';

import type { Op } from '../../../libos/syscalls.ts';
import {
  O_CREATE,
  O_EXCLUSIVE,
  O_READ,
  O_WRITE,
  type Process,
  type Program,
  Signal,
  STDOUT,
  STOPPED,
} from '../../../libos/unix/process.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import { at, HEAP, PAGE } from '../../../libos/unix/layout.ts';
import { Image, print, runReal, status, treeOf } from './real.ts';

const say = (process: Process, ...what: readonly unknown[]): Op<number> =>
  print(process, STDOUT, `${what.join(' ')}\n`);

/** What handlers leave for the program: on the first page of the heap, a word per signal. */
const HEARD = at(HEAP);
const heard = (process: Process, signal: number): Op<number> =>
  process.port.load(HEARD + signal * 4);

function* note(process: Process, signal: number): Op<number> {
  return yield* process.port.store(HEARD + signal * 4, (yield* heard(process, signal)) + 1);
}
function* exits(process: Process, code: number): Op<number> {
  return yield* process.exit(code);
}
/** Waits for a byte at the descriptor that word 60 of the heap names; then exits. */
function* waits(process: Process, code: number): Op<number> {
  const fd = yield* process.port.load(HEARD + 240);
  yield* process.read(fd, yield* process.heap(PAGE), 1);
  return code;
}
/** Computes for ever, without a system call. */
function* spins(process: Process): Op<number> {
  for (;;) process.port.work(1000) ?? (yield* process.port.fault());
}
const children = [note, exits, waits, spins];
const [NOTE, EXITS, WAITS, SPINS] = [0, 1, 2, 3];

/** A pipe whose reading end `waits` finds; the writing end. */
function* gate(process: Process): Op<number> {
  yield* process.heap(PAGE);
  const pipe = yield* process.pipe();
  if (typeof pipe === 'number') throw new Error(`no pipe: ${pipe}`);
  yield* process.port.store(HEARD + 240, pipe[0]);
  return pipe[1];
}

/** What wait says, however often a handler comes in between. */
function* ended(process: Process, pid: number): Op<string> {
  for (;;) {
    const told = yield* process.wait({ pid });
    if (typeof told !== 'number') return `${told[0] === pid} ${told[1]}`;
    if (told !== -4) return String(told);
  }
}

const handlers: Program = {
  name: 'handlers',
  *main(process) {
    yield* process.heap(PAGE);
    const { pid } = process;
    yield* say(process, yield* process.handle(Signal.USR1, NOTE));
    for (let n = 0; n < 2; n++) {
      yield* process.kill(pid, Signal.USR1);
      yield* process.read(9, 0, 0); // any call looks
    }
    yield* say(process, 'handled', yield* heard(process, Signal.USR1));
    yield* process.handle(Signal.USR1, 'ignore');
    yield* process.kill(pid, Signal.USR1);
    yield* say(process, 'ignored', yield* heard(process, Signal.USR1));
    const firm = [Signal.KILL, Signal.STOP, 0, 32];
    for (const signal of firm) yield* say(process, yield* process.handle(signal, 'ignore'));
    yield* process.handle(Signal.USR1, 'default');
    yield* process.kill(pid, Signal.USR1);
    yield* say(process, 'never');
    return 0;
  },
  children,
};

const child: Program = {
  name: 'child',
  *main(process) {
    yield* process.heap(PAGE);
    yield* process.handle(Signal.CHLD, NOTE);
    const told = yield* ended(process, yield* process.fork(EXITS, 3));
    yield* process.read(9, 0, 0);
    yield* say(process, told, 'heard', yield* heard(process, Signal.CHLD));
    yield* process.handle(Signal.CHLD, 'default');
    yield* say(process, yield* ended(process, yield* process.fork(EXITS, 4)));
    yield* say(process, 'heard', yield* heard(process, Signal.CHLD));
    return 0;
  },
  children,
};

const brokenPipe: Program = {
  name: 'broken',
  *main(process) {
    const write = yield* gate(process);
    yield* process.close(yield* process.port.load(HEARD + 240));
    const how = process.args[1] === 'handle' ? NOTE : 'default';
    yield* process.handle(Signal.PIPE, how);
    const wrote = yield* process.write(write, HEARD, 1);
    yield* say(process, wrote, yield* heard(process, Signal.PIPE));
    return 0;
  },
  children,
};

const stops: Program = {
  name: 'stops',
  *main(process) {
    const write = yield* gate(process);
    for (const signal of [Signal.STOP, Signal.TSTP]) {
      const pid = yield* process.fork(WAITS, 7);
      yield* process.kill(pid, signal);
      const told = yield* process.wait({ pid, stopped: true });
      yield* say(process, typeof told === 'number' ? told : told[1] - STOPPED);
      yield* process.write(write, HEARD, 1); // it would end with this
      yield* say(process, yield* process.wait({ pid, noHang: true, stopped: true }));
      yield* process.kill(pid, Signal.CONT);
      yield* say(process, yield* ended(process, pid));
    }
    const pid = yield* process.fork(WAITS, 8);
    yield* process.kill(pid, Signal.STOP);
    yield* process.wait({ pid, stopped: true });
    yield* process.kill(pid, Signal.KILL);
    yield* say(process, yield* ended(process, pid));
    return 0;
  },
  children,
};

const groups: Program = {
  name: 'groups',
  *main(process) {
    const pids: number[] = [];
    const gates: number[] = [];
    for (let n = 0; n < 4; n++) {
      gates.push(yield* gate(process));
      pids.push(yield* process.fork(WAITS, 20 + n));
    }
    const [leader = 0, second = 0, other = 0, third = 0] = pids;
    yield* process.setGroup(leader, 0);
    for (const pid of [second, third]) yield* process.setGroup(pid, leader);
    yield* say(process, yield* process.kill(-leader, 0), yield* process.kill(-leader, Signal.TERM));
    for (const pid of [leader, second, third]) yield* say(process, yield* ended(process, pid));
    yield* say(process, 'empty', yield* process.kill(-leader, Signal.TERM));
    yield* say(process, 'nobody', yield* process.kill(leader, 0), yield* process.kill(63, 9));
    yield* say(process, 'absurd', yield* process.kill(0, 9), yield* process.kill(1.5, 9));
    yield* say(process, yield* process.kill(other, 0), yield* process.kill(other, 32));
    yield* process.write(gates[2] ?? -1, HEARD, 1);
    yield* say(process, yield* ended(process, other));
    return 0;
  },
  children,
};

/** Sends each signal to a child that waits; those that do not end it, get a byte. */
const defaults: Program = {
  name: 'defaults',
  *main(process) {
    const write = yield* gate(process);
    for (const [name, signal] of Object.entries(Signal)) {
      const pid = yield* process.fork(WAITS, 0);
      yield* process.kill(pid, signal);
      const stopped = signal === Signal.STOP || signal === Signal.TSTP;
      if (stopped) {
        yield* process.wait({ pid, stopped: true });
        yield* process.kill(pid, Signal.CONT);
      }
      if (stopped || signal === Signal.CHLD || signal === Signal.CONT) {
        yield* process.write(write, HEARD, 1);
      }
      yield* say(process, name, (yield* ended(process, pid)).split(' ')[1]);
    }
    return 0;
  },
  children,
};

const deaf: Program = {
  name: 'deaf',
  *main(process) {
    for (const signals of [[Signal.TERM], [Signal.STOP, Signal.KILL]]) {
      const pid = yield* process.fork(SPINS, 0);
      for (const signal of signals) yield* process.kill(pid, signal);
      yield* say(process, (yield* ended(process, pid)).split(' ')[1]);
    }
    return 0;
  },
  children,
};

/** Lengths, offsets and permissions. */
const lengths: Program = {
  name: 'lengths',
  *main(process) {
    const buffer = yield* process.heap(4 * PAGE);
    process.port.fill(buffer, 65, 4 * PAGE) ?? (yield* process.port.fault());
    const fd = yield* process.open('new', O_READ | O_WRITE | O_CREATE | O_EXCLUSIVE);
    yield* process.write(fd, buffer, 3 * PAGE);
    const seeks = [
      yield* process.seek(fd, 0, 'here'),
      yield* process.seek(fd, -5, 'end'),
      yield* process.seek(fd, 3, 'here'),
      yield* process.seek(fd, 10, 'start'),
      yield* process.seek(fd, -11, 'here'),
      yield* process.seek(fd, 0.5, 'start'),
      yield* process.seek(0, 0, 'start'),
    ];
    yield* say(process, 'seek', ...seeks);
    const size = function* (): Op<number> {
      const stat = yield* process.stat('new');
      return typeof stat === 'number' ? stat : stat.bytes;
    };
    yield* say(process, 'cut', yield* process.truncate(fd, PAGE + 1), yield* size());
    yield* say(process, 'grow', yield* process.truncate(fd, 2 * PAGE), yield* size());
    yield* process.seek(fd, PAGE, 'start');
    yield* say(process, 'read', yield* process.read(fd, buffer, PAGE));
    const byte = function* (n: number): Op<number> {
      return process.port.load8(buffer + n) ?? (yield* process.port.fault());
    };
    // What was cut off does not come back.
    yield* say(process, 'bytes', yield* byte(0), yield* byte(1), yield* byte(PAGE - 1));
    yield* process.seek(fd, 3 * PAGE, 'start');
    yield* say(process, 'hole', yield* process.write(fd, buffer, 1), yield* size());
    const wrong = [yield* process.truncate(fd, -1), yield* process.truncate(fd, 2 ** 32)];
    const read = yield* process.open('new', O_READ);
    yield* say(process, 'refused', ...wrong, yield* process.truncate(read, 0), yield* size());
    yield* say(process, 'fsync', yield* process.fsync(fd), yield* process.fsync(1));
    return 0;
  },
};

const modes: Program = {
  name: 'modes',
  *main(process) {
    const tried = function* (path: string): Op<string> {
      const results: number[] = [];
      for (const flags of [O_READ, O_WRITE, O_READ | O_WRITE, O_WRITE | O_CREATE]) {
        const fd = yield* process.open(path, flags);
        results.push(Math.min(fd, 0));
        if (fd >= 0) yield* process.close(fd);
      }
      return results.join(' ');
    };
    for (const mode of [0o600, 0o400, 0o200, 0o000, 0o077]) {
      yield* process.chmod('file', mode);
      yield* say(process, mode.toString(8), yield* tried('file'));
    }
    yield* say(
      process,
      'chmod',
      yield* process.chmod('file', 0o1000),
      yield* process.chmod('no', 0),
    );
    yield* process.chmod('file', 0o644);
    for (const mode of [0o700, 0o500, 0o600, 0o300]) {
      yield* process.chmod('dir', mode);
      const made = yield* process.mkdir('dir/sub');
      const gone = yield* process.unlink('dir/sub');
      const list = yield* process.readdir('dir');
      const names = typeof list === 'number' ? list : list.length;
      yield* say(process, mode.toString(8), made, gone, names, yield* tried('dir/old'));
    }
    return 0;
  },
};

const own = [handlers, child, brokenPipe, stops, groups, defaults, deaf, lengths, modes];
const image = new Image(treeOf({ file: 'text', 'dir/old': 'text' }), 1024);

/** The same in each, with long slices and with short ones. */
function everywhere(script: string, wanted: string): void {
  for (const mode of ['exokernel', 'vm'] as const) {
    for (const sliceCycles of [1_000_000, 20_000]) {
      const config = { mode, programs: [...PROGRAMS, status, ...own], parameters: { sliceCycles } };
      const { stdout, complaints, ended: end } = runReal(image, [script], config);
      expect({ end, complaints, said: stdout[0] }, `${mode} ${sliceCycles}`).toEqual({
        ...{ end: true, complaints: [], said: wanted },
      });
    }
  }
}

describe('signals', () => {
  test('a handler runs, one ignores, the default ends', () => {
    everywhere(
      'status handlers; echo after',
      '0\nhandled 2\nignored 2\n-22\n-22\n-22\n-22\n=status 138=after\n',
    );
  });

  test('CHLD is heard by who wants to', () => {
    everywhere('child', 'true 3 heard 1\ntrue 4\nheard 1\n');
  });

  test('PIPE ends who writes to nobody, or is handled', () => {
    everywhere('status broken; status "broken handle"', '=status 141=-32 1\n=status 0=');
  });

  test('STOP and TSTP hold a process until CONT, or KILL', () => {
    everywhere('stops', '19\n0,0\ntrue 7\n20\n0,0\ntrue 7\ntrue 137\n');
  });

  test('a group, all of it and nobody else', () => {
    everywhere(
      'groups',
      '0 0\ntrue 143\ntrue 143\ntrue 143\nempty -3\nnobody -3 -3\nabsurd -22 -22\n0 -22\ntrue 22\n',
    );
  });

  test('default actions', () => {
    const quiet: number[] = [Signal.CHLD, Signal.CONT, Signal.STOP, Signal.TSTP];
    const wanted = Object.entries(Signal).map(
      ([name, signal]) => `${name} ${quiet.includes(signal) ? 0 : 128 + signal}\n`,
    );
    everywhere('defaults', wanted.join(''));
  });

  test('who makes no system call is ended all the same', () => {
    everywhere('deaf', '143\n137\n');
  });
});

describe('files', () => {
  test('lengths and offsets', () => {
    everywhere(
      'lengths',
      'seek 12288 12283 12286 10 -22 -22 -9\ncut 0 4097\ngrow 0 8192\nread 4096\nbytes 65 0 0\n' +
        'hole 1 12289\nrefused -22 -22 -9 12289\nfsync 0 -9\n',
    );
  });

  test('permissions', () => {
    everywhere(
      'modes',
      '600 0 0 0 0\n400 0 -13 -13 -13\n200 -13 0 -13 0\n0 -13 -13 -13 -13\n77 -13 -13 -13 -13\n' +
        'chmod -22 -2\n700 0 0 1 0 0 0 0\n500 -13 -2 1 0 0 0 0\n' +
        '600 -13 -13 1 -13 -13 -13 -13\n300 0 0 -13 0 0 0 0\n',
    );
  });
});
