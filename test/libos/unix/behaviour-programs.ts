/**
 * Programs that try what a Unix promises, a promise each, and print what they saw. What is printed
 * is the test's to judge.
 */
import type { Op } from '../../../libos/syscalls.ts';
import { at, CONTROL, Control, HEAP, PAGE } from '../../../libos/unix/layout.ts';
import {
  O_CREATE,
  O_READ,
  O_TRUNCATE,
  O_WRITE,
  type Process,
  type Program,
  Signal,
} from '../../../libos/unix/process.ts';
import { print } from './real.ts';

const say = (process: Process, ...what: readonly unknown[]): Op<number> =>
  print(process, 1, `${what.join(' ')}\n`);

/** A pipe that must be had. */
function* pipe(process: Process): Op<readonly [number, number]> {
  const made = yield* process.pipe();
  if (typeof made === 'number') throw new Error(`no pipe: ${made}`);
  return made;
}

/** A byte through a pipe: somebody waits for it. */
function* signal(process: Process, fd: number): Op<void> {
  const from = yield* process.heap(PAGE);
  yield* process.write(fd, from, 1);
}
function* await_(process: Process, fd: number): Op<void> {
  const to = yield* process.heap(PAGE);
  yield* process.read(fd, to, 1);
}

const number = (process: Process, n: number): number => Number(process.args[n] ?? '0');

/** Where the forked children of `cow` find what they need: the first page of the heap. */
const COW = at(HEAP);

const cow: Program = {
  name: 'cow',
  *main(process) {
    const { port } = process;
    const base = yield* process.heap(4 * PAGE);
    yield* say(process, 'base', base === COW);
    const [down, up] = [yield* pipe(process), yield* pipe(process)];
    // Words 0 to 3: the pipes. Page 1: written before the fork. Page 2: never touched before it.
    for (const [n, fd] of [...down, ...up].entries()) yield* port.store(base + n * 4, fd);
    yield* port.store(base + PAGE, 100);
    yield* port.store(base + 3 * PAGE, 1);
    yield* process.fork(0, 0);
    // The parent writes first, the child reads afterwards.
    yield* port.store(base + PAGE, 200);
    yield* port.store(base + 2 * PAGE, 201);
    yield* signal(process, down[1]);
    yield* await_(process, up[0]);
    // The child has written by now.
    const after = yield* port.load(base + PAGE);
    yield* say(process, 'parent', after, yield* port.load(base + 2 * PAGE));
    yield* say(process, 'parent', yield* port.load(base + 3 * PAGE));
    yield* port.store(base + 3 * PAGE, 4);
    yield* signal(process, down[1]);
    yield* process.wait();
    yield* say(process, 'parent', yield* port.load(base + 3 * PAGE));
    return 0;
  },
  children: [
    function* (process): Op<number> {
      const { port } = process;
      const [down, up] = [yield* port.load(COW), yield* port.load(COW + 12)];
      yield* await_(process, down);
      const seen = yield* port.load(COW + PAGE);
      yield* say(process, 'child', seen, yield* port.load(COW + 2 * PAGE));
      // Now the child writes first, and has a child of its own that shares all of it.
      yield* port.store(COW + PAGE, 300);
      yield* port.store(COW + 3 * PAGE, 3);
      yield* process.fork(1, 0);
      yield* process.wait();
      yield* signal(process, up);
      yield* await_(process, down);
      yield* say(process, 'child', yield* port.load(COW + PAGE), yield* port.load(COW + 3 * PAGE));
      return 0;
    },
    function* (process): Op<number> {
      const { port } = process;
      yield* port.store(COW + PAGE, 400);
      yield* say(process, 'grandchild', yield* port.load(COW + PAGE));
      yield* say(process, 'grandchild', yield* port.load(COW + 3 * PAGE));
      return 0;
    },
  ],
};

/** Prints how many pages of this Unix are free. */
const free: Program = {
  name: 'free',
  *main(process) {
    yield* say(process, yield* process.port.load(at(CONTROL) + Control.free * 4));
    return 0;
  },
};

/** forks N: children that write to what they share, and end in three ways. */
const forks: Program = {
  name: 'forks',
  *main(process) {
    const base = yield* process.heap(8 * PAGE);
    for (let n = 0; n < 8; n++) yield* process.port.store(base + n * PAGE, n);
    for (let n = 0; n < number(process, 1); n++) {
      const pid = yield* process.fork(0, n);
      yield* process.port.store(base + PAGE, n);
      const ended = yield* process.wait();
      if (typeof ended === 'number' || ended[0] !== pid) return 1;
    }
    return 0;
  },
  children: [
    function* (process, n): Op<number> {
      for (let k = 0; k < 8; k += 2) yield* process.port.store(COW + k * PAGE, n);
      const more = yield* process.heap(3 * PAGE);
      yield* process.port.store(more + PAGE, n);
      if (n % 3 === 0) return yield* process.exit(3);
      if (n % 3 === 1) return yield* process.exec('true', ['true']);
      return 0;
    },
  ],
};

/** orphans N: grandchildren that outlive their parents. */
const orphans: Program = {
  name: 'orphans',
  *main(process) {
    for (let n = 0; n < number(process, 1); n++) {
      yield* process.fork(0, n);
      yield* process.wait();
    }
    return 0;
  },
  children: [
    function* (process): Op<number> {
      yield* process.fork(1, 0);
      return 0;
    },
    function* (process): Op<number> {
      const { port } = process;
      for (let n = 0; n < 20; n++) port.work(10_000) ?? (yield* port.fault());
      return 0;
    },
  ],
};

const execs: Program = {
  name: 'execs',
  *main(process) {
    const base = yield* process.heap(2 * PAGE);
    yield* process.port.store(base, 77);
    yield* say(process, 'missing', yield* process.exec('nosuch', ['nosuch']));
    const long = 'x'.repeat(4000);
    yield* say(process, 'too long', yield* process.exec('echo', ['echo', long]));
    yield* process.exec('fresh', ['fresh', 'a', '', 'b c']);
    yield* say(process, 'never');
    return 0;
  },
};

const fresh: Program = {
  name: 'fresh',
  *main(process) {
    const base = yield* process.heap(PAGE);
    const old = yield* process.port.load(base);
    yield* say(process, 'fresh', base === COW, old, JSON.stringify(process.args));
    return 9;
  },
};

const exits: Program = {
  name: 'exits',
  *main(process) {
    const n = number(process, 1);
    return n % 2 === 0 ? n : yield* process.exit(n);
  },
};

/** Waits with no child, with several, and for one that ended long ago. */
const waits: Program = {
  name: 'waits',
  *main(process) {
    yield* say(process, 'none', yield* process.wait());
    const pids: number[] = [];
    for (let n = 0; n < 4; n++) pids.push(yield* process.fork(0, n));
    const got = [];
    for (let n = 0; n < 4; n++) got.push(yield* process.wait());
    const known = got.every((one) => typeof one !== 'number' && pids.includes(one[0]));
    const statuses = got.map((one) => (typeof one === 'number' ? one : one[1])).sort();
    yield* say(process, 'four', known, statuses, yield* process.wait());
    yield* process.fork(0, 9);
    const { port } = process;
    for (let n = 0; n < 100; n++) port.work(100_000) ?? (yield* port.fault());
    const late = yield* process.wait();
    yield* say(process, 'late', typeof late === 'number' ? late : late[1]);
    return 0;
  },
  children: [
    function* (process, n): Op<number> {
      return yield* process.exit(10 + n);
    },
  ],
};

const BYTES = 50_000;

/** A pipe from here to a child, `args[1]` bytes at a time there and `args[2]` here. */
const pipes: Program = {
  name: 'pipes',
  *main(process) {
    const { port } = process;
    const buffer = yield* process.heap(BYTES);
    const bytes = Uint8Array.from({ length: BYTES }, (_, n) => n * n * 7 + (n >> 8));
    port.write(buffer, bytes, 0, BYTES) ?? (yield* port.fault());
    const [read, write] = yield* pipe(process);
    yield* process.fork(0, read | (write << 8));
    yield* process.close(read);
    const part = number(process, 2);
    for (let done = 0; done < BYTES; done += part) {
      const count = Math.min(part, BYTES - done);
      const wrote = yield* process.write(write, buffer + done, count);
      if (wrote !== count) yield* say(process, 'wrote', wrote);
    }
    yield* process.close(write);
    yield* process.wait();
    return 0;
  },
  children: [
    function* (process, ends): Op<number> {
      const { port } = process;
      yield* process.close(ends >> 8);
      const buffer = yield* process.heap(BYTES);
      const bytes = new Uint8Array(BYTES);
      const part = number(process, 1);
      let [count, sum] = [0, 0];
      for (;;) {
        const got = yield* process.read(ends & 0xff, buffer, part);
        if (got <= 0) break;
        port.read(buffer, bytes, 0, got) ?? (yield* port.fault());
        for (let n = 0; n < got; n++) sum = (Math.imul(sum, 31) + (bytes[n] ?? 0)) | 0;
        count += got;
      }
      yield* say(process, 'read', count, sum);
      return 0;
    },
  ],
};

const ends: Program = {
  name: 'ends',
  *main(process) {
    yield* process.handle(Signal.PIPE, 'ignore');
    const buffer = yield* process.heap(2 * PAGE);
    const [read, write] = yield* pipe(process);
    yield* process.write(write, buffer, 5);
    yield* process.close(write);
    yield* say(process, 'five', yield* process.read(read, buffer, 100));
    yield* say(process, 'end', yield* process.read(read, buffer, 100));
    yield* say(process, 'end', yield* process.read(read, buffer, 100));
    yield* process.close(read);
    yield* say(process, 'closed', yield* process.read(read, buffer, 100));
    const other = yield* pipe(process);
    yield* process.close(other[0]);
    yield* say(process, 'nobody reads', yield* process.write(other[1], buffer, 5));
    yield* process.close(other[1]);
    // The reader goes while the writer waits for room.
    const third = yield* pipe(process);
    yield* process.fork(0, third[0]);
    yield* process.close(third[0]);
    yield* say(process, 'gone', yield* process.write(third[1], buffer, 2 * PAGE));
    yield* process.close(third[1]);
    yield* process.wait();
    // The last writer goes while the reader waits.
    const fourth = yield* pipe(process);
    yield* process.fork(0, fourth[0]);
    yield* process.close(fourth[1]);
    yield* say(process, 'none left', yield* process.read(fourth[0], buffer, 5));
    yield* process.wait();
    // The wrong end, and ends that nobody has.
    const [r, w] = yield* pipe(process);
    const wrong = [yield* process.write(r, buffer, 1), yield* process.read(w, buffer, 1)];
    yield* say(process, 'wrong', ...wrong);
    for (const fd of [-1, 16, 0.5, NaN, 1e9, 14]) {
      const got = [yield* process.read(fd, buffer, 1), yield* process.write(fd, buffer, 1)];
      got.push(yield* process.close(fd), yield* process.dup2(fd, 3), yield* process.dup2(1, fd));
      yield* say(process, 'bad', fd === 14 ? got.slice(0, 4) : got);
    }
    return 0;
  },
  children: [
    function* (process, fd): Op<number> {
      const { port } = process;
      for (let n = 0; n < 30; n++) port.work(100_000) ?? (yield* port.fault());
      yield* process.close(fd);
      return 0;
    },
  ],
};

/** dup2, and an offset that parent and child share. */
const dups: Program = {
  name: 'dups',
  *main(process) {
    const buffer = yield* process.heap(PAGE);
    const made = yield* process.open('digits', O_WRITE | O_CREATE | O_TRUNCATE);
    yield* process.dup2(made, 9);
    yield* print(process, made, '01234');
    yield* print(process, 9, '56789');
    yield* process.close(made);
    yield* print(process, 9, 'abcde');
    yield* process.close(9);
    const fd = yield* process.open('digits', O_READ);
    yield* process.read(fd, buffer, 3);
    yield* process.fork(0, fd);
    yield* process.wait();
    const got = yield* process.read(fd, buffer, 100);
    yield* process.write(1, buffer, got);
    yield* say(process, '');
    yield* say(process, 'cannot', yield* process.write(fd, buffer, 1));
    // Until none is left: the last two stand for many.
    const open = [];
    for (let n = 0; n < 20; n++) open.push(yield* process.open('digits', O_READ));
    yield* say(process, 'many', open.at(-1), Math.max(...open));
    return 0;
  },
  children: [
    function* (process, fd): Op<number> {
      const buffer = yield* process.heap(PAGE);
      const got = yield* process.read(fd, buffer, 4);
      yield* process.write(1, buffer, got);
      yield* say(process, '');
      return 0;
    },
  ],
};

// ---- programs that misbehave --------------------------------------------------------------------

const ABSURD = [-1, NaN, Infinity, -Infinity, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 31), 0.5, 1e300];
// These wait for ever, as they should.
const SLEEP = 2;
const IPC_REPLY_WAIT = 24;

const bad: Program = {
  name: 'bad',
  *main(process) {
    const { port } = process;
    const base = yield* process.heap(PAGE);
    yield* say(process, 'begins', process.args[1]);
    switch (process.args[1]) {
      case 'null':
        yield* port.store(0, 1);
        break;
      case 'wild':
        yield* port.load(0x7fff_f000);
        break;
      case 'odd':
        yield* port.load(base + 2);
        break;
      case 'readonly':
        yield* port.store(at(2), 1); // the exposed tables
        break;
      case 'throw':
        throw new Error('on purpose');
      case 'strange':
        // eslint-disable-next-line @typescript-eslint/only-throw-error -- a hostile program does
        throw { toString: null };
      case 'past':
        // eslint-disable-next-line exoscope/no-forgotten-yield -- what is tried
        port.load32(0);
        return 0;
      case 'further':
        // eslint-disable-next-line exoscope/no-forgotten-yield -- what is tried
        port.load32(0);
        // eslint-disable-next-line exoscope/no-forgotten-yield -- what is tried
        port.load32(base);
        break;
      case 'yield':
        yield 'for nothing';
        break;
      case 'bounds':
        port.read(base, new Uint8Array(4), 0, 8) ?? (yield* port.fault());
        break;
      case 'absurd':
        for (let call = -1; call < 40; call++) {
          for (const n of ABSURD) {
            if (call === IPC_REPLY_WAIT || (call === SLEEP && (n | 0) === 0)) continue;
            yield* port.call(call, n, n, n, n, n, n, n, n);
          }
        }
        for (const n of ABSURD) yield* port.call(n, 1, 2, 3);
        return 0;
      case 'loop':
        for (;;) yield* port.load(base);
      case 'work':
        for (;;) port.work(1_000_000) ?? (yield* port.fault());
      case 'memory':
        for (let n = 0; n < 100_000; n++) yield* port.store(yield* process.heap(PAGE), n);
    }
    yield* say(process, 'goes on');
    return 0;
  },
};

// ---- files --------------------------------------------------------------------------------------

const rm: Program = {
  name: 'rm',
  *main(process) {
    let status = 0;
    for (const path of process.args.slice(1)) {
      const error = yield* process.unlink(path);
      if (error < 0) yield* say(process, 'rm', path, error);
      if (error < 0) status = 1;
    }
    return status;
  },
};

const mkdir: Program = {
  name: 'mkdir',
  *main(process) {
    for (const path of process.args.slice(1)) {
      const error = yield* process.mkdir(path);
      if (error < 0) yield* say(process, 'mkdir', path, error);
    }
    return 0;
  },
};

/** many DIRECTORY N: files with names of many lengths, of which every third goes again. */
const many: Program = {
  name: 'many',
  *main(process) {
    const [, directory = '', count = '0'] = process.args;
    const name = (n: number): string => `${directory}/${'n'.repeat(n % 97)}${n}`;
    yield* process.mkdir(directory);
    for (let n = 0; n < Number(count); n++) {
      const fd = yield* process.open(name(n), O_WRITE | O_CREATE);
      if (fd < 0) return 1;
      yield* print(process, fd, `${n}\n`);
      yield* process.close(fd);
    }
    for (let n = 0; n < Number(count); n += 3) {
      const error = yield* process.unlink(name(n));
      if (error < 0) return 2;
    }
    const names = yield* process.readdir(directory);
    yield* say(process, typeof names === 'number' ? names : names.length);
    return 0;
  },
};

/** Errors of paths. */
const paths: Program = {
  name: 'paths',
  *main(process) {
    const open = (path: string, flags: number): Op<number> => process.open(path, flags);
    yield* process.mkdir('d');
    yield* process.close(yield* open('d/f', O_WRITE | O_CREATE));
    const long = 'x'.repeat(256);
    yield* say(
      process,
      yield* open('', O_READ),
      yield* open('nope', O_READ),
      yield* open('d/f/g', O_READ),
      yield* open('d', O_WRITE),
      yield* open(long, O_WRITE | O_CREATE),
      yield* open(long.slice(1), O_WRITE | O_CREATE),
      yield* open('y/'.repeat(4000), O_READ),
      yield* process.mkdir('d'),
      yield* process.mkdir('/'),
      yield* process.unlink('d'),
      yield* process.unlink('nope'),
      yield* process.unlink('d/f'),
      yield* process.unlink('d'),
      yield* process.chdir('d'),
      yield* process.readdir('nope'),
    );
    const top = yield* process.stat('/../../in/./..//in');
    const here = yield* process.stat('.');
    if (typeof top === 'number' || typeof here === 'number') return 1;
    yield* say(process, top.inode === here.inode, top.directory);
    return 0;
  },
};

/** Bytes at any offset: a file's holes and overlaps, by a shared offset and several writes. */
const patches: Program = {
  name: 'patches',
  *main(process) {
    const { port } = process;
    const size = 3 * 65_536 + 1234;
    const model = new Uint8Array(size);
    const buffer = yield* process.heap(size);
    const write = yield* process.open('patched', O_WRITE | O_CREATE | O_TRUNCATE);
    let seed = 7;
    for (let from = 0; from < size;) {
      seed = (Math.imul(seed, 1_103_515_245) + 12_345) >>> 0;
      const count = Math.min(size - from, 1 + ((seed >>> 8) % 50_000));
      for (let n = 0; n < count; n++) model[from + n] = (seed >>> 16) + n;
      port.write(buffer + from, model, from, count) ?? (yield* port.fault());
      yield* process.write(write, buffer + from, count);
      from += count;
    }
    yield* process.close(write);
    const read = yield* process.open('patched', O_READ);
    const again = yield* process.heap(size);
    let [total, wrong] = [0, 0];
    for (;;) {
      const got = yield* process.read(read, again + total, 4567);
      if (got <= 0) break;
      total += got;
    }
    const bytes = new Uint8Array(size);
    port.read(again, bytes, 0, size) ?? (yield* port.fault());
    for (let n = 0; n < size; n++) if (bytes[n] !== model[n]) wrong++;
    const stat = yield* process.stat('patched');
    yield* say(
      process,
      total === size,
      wrong,
      typeof stat === 'number' ? stat : stat.bytes === size,
    );
    return 0;
  },
};

export const TRIALS: readonly Program[] = [
  cow,
  free,
  forks,
  orphans,
  execs,
  fresh,
  exits,
  waits,
  pipes,
  ends,
  dups,
  bad,
  rm,
  mkdir,
  many,
  paths,
  patches,
];
