/**
 * xargs: runs a command with arguments from standard input. -0 items end with NUL (else blanks,
 * with quotes and backslash), -r no run without items, -n N items a run. A run has at most 32
 * arguments and 2 KiB of them, the command's own included; less with a large environment.
 *
 * The command line of a run lies in the heap, where the forked child finds it:
 *
 *     word 0: arguments | word 1: bytes of them | arguments, each ended by NUL
 */
import type { Op } from '../../syscalls.ts';
import { ARG_MAX, Errno, type Process, type Program, STDIN } from '../process.ts';
import { WORK } from '../work.ts';
import { bytesOf, NEWLINE, textOf } from './bytes.ts';
import { Io, messageOf } from './io.ts';
import { parseNumber, parseOptions } from './options.ts';

const ARGUMENTS_MAX = 32;
const BYTES_MAX = 2048;
const HEADER = 8; // bytes
const RUN = 0; // child function

const NOT_FOUND = 127;
const CANNOT_RUN = 126;
const CHILD_FAILED = 123;
const CHILD_GAVE_UP = 124;

export const xargs: Program = {
  name: 'xargs',
  *main(process) {
    const io = new Io(process);
    const { flags, values, operands } = yield* parseOptions(io, '0r', 'n', false);
    const items = yield* parseNumber(io, values.get('n') ?? String(ARGUMENTS_MAX), 1);
    const batch = new Batch(io, operands.length === 0 ? ['echo'] : operands, items);
    yield* batch.begin();
    const splitter = new Splitter(flags.has('0'));
    const error = yield* io.forEachChunk(STDIN, function* (bytes) {
      io.port.work(bytes.length * WORK.scanByte) ?? (yield* io.port.fault());
      for (const byte of bytes) {
        const item = splitter.take(byte);
        if (item === 'unmatched') yield* io.die('unmatched quote');
        else if (item !== null) yield* batch.add(Uint8Array.from(item));
      }
    });
    if (error < 0) yield* io.failed('-', error);
    const last = splitter.end();
    if (last === 'unmatched') yield* io.die('unmatched quote');
    else if (last !== null) yield* batch.add(Uint8Array.from(last));
    if (batch.items > 0 || (batch.runs === 0 && !flags.has('r'))) yield* batch.run();
    return yield* io.end();
  },
  children: [run],
};

/** The child: becomes the command whose line lies at `block`. */
function* run(process: Process, block: number): Op<number> {
  const { port } = process;
  const io = new Io(process, CANNOT_RUN);
  const bytes = new Uint8Array(yield* port.load(block + 4));
  port.read(block + HEADER, bytes, 0, bytes.length) ?? (yield* port.fault());
  const args = textOf(bytes, 0, bytes.length - 1).split('\0');
  const name = args[0] ?? '';
  // Its standard input is empty: the parent's belongs to the parent.
  const pipe = yield* process.pipe();
  if (typeof pipe !== 'number') {
    yield* process.close(pipe[1]);
    yield* process.dup2(pipe[0], STDIN);
    if (pipe[0] !== STDIN) yield* process.close(pipe[0]);
  }
  const error = yield* process.exec(name, args);
  yield* io.failed(name, error);
  return error === Errno.ENOENT ? NOT_FOUND : CANNOT_RUN;
}

/** The command line under construction. */
class Batch {
  readonly #io: Io;
  readonly #command: readonly string[];
  readonly #itemsMax: number;
  readonly #bytesMax: number;
  #block = 0; // address
  #own = 0; // bytes of the command itself
  #used = 0; // bytes, the command's own included
  items = 0;
  runs = 0;

  constructor(io: Io, command: readonly string[], itemsMax: number) {
    this.#io = io;
    this.#command = command;
    const environment = io.process.environment.join('\0').length + 1;
    this.#bytesMax = Math.min(BYTES_MAX, ARG_MAX - environment);
    this.#itemsMax = Math.min(itemsMax, ARGUMENTS_MAX - command.length);
  }

  *begin(): Op<void> {
    const io = this.#io;
    const bytes = bytesOf(this.#command.map((word) => `${word}\0`).join(''));
    if (this.#itemsMax < 1 || bytes.length >= this.#bytesMax) yield* io.die('command too long');
    this.#block = yield* io.allocate(HEADER + BYTES_MAX);
    io.port.write(this.#block + HEADER, bytes, 0, bytes.length) ?? (yield* io.port.fault());
    this.#own = bytes.length;
    this.#used = bytes.length;
  }

  /** Adds an item, after a run if it does not fit any more; runs if none will fit. */
  *add(item: Uint8Array): Op<void> {
    const { port } = this.#io;
    const bytes = item.length + 1;
    if (this.#own + bytes > this.#bytesMax) yield* this.#io.die('argument line too long');
    if (this.#used + bytes > this.#bytesMax) yield* this.run();
    const at = this.#block + HEADER + this.#used;
    port.write(at, item, 0, item.length) ?? (yield* port.fault());
    port.store8(at + item.length, 0) ?? (yield* port.fault());
    this.#used += bytes;
    this.items++;
    if (this.items === this.#itemsMax) yield* this.run();
  }

  *run(): Op<void> {
    const io = this.#io;
    const { process, port } = io;
    yield* port.store(this.#block, this.#command.length + this.items);
    yield* port.store(this.#block + 4, this.#used);
    const pid = yield* process.fork(RUN, this.#block);
    if (pid < 0) yield* io.die(`cannot fork: ${messageOf(pid)}`);
    const ended = yield* process.wait();
    const status = typeof ended === 'number' ? NOT_FOUND : ended[1];
    if (status === NOT_FOUND || status === CANNOT_RUN) yield* process.exit(status);
    if (status === 255) {
      yield* io.complain(`${this.#command[0] ?? ''}: exited with status 255; aborting`);
      yield* process.exit(CHILD_GAVE_UP);
    }
    if (status !== 0) io.status = CHILD_FAILED;
    this.runs++;
    this.items = 0;
    this.#used = this.#own;
  }
}

/** Makes items of bytes, one at a time. */
class Splitter {
  readonly #byNul: boolean;
  #item: number[] | null = null;
  #quote = 0; // the quote that is open, or a backslash
  constructor(byNul: boolean) {
    this.#byNul = byNul;
  }

  /** The item that `byte` ends, if it does. */
  take(byte: number): readonly number[] | 'unmatched' | null {
    if (this.#byNul) {
      if (byte === 0) return this.#finish() ?? [];
      (this.#item ??= []).push(byte);
      return null;
    }
    if (this.#quote === BACKSLASH) this.#quote = 0;
    else if (this.#quote !== 0) {
      if (byte === NEWLINE) return 'unmatched';
      if (byte === this.#quote) {
        this.#quote = 0;
        return null;
      }
    } else if (byte === BACKSLASH || byte === 0x22 || byte === 0x27) {
      this.#item ??= [];
      this.#quote = byte;
      return null;
    } else if (byte === 0x20 || byte === 0x09 || byte === NEWLINE) return this.#finish();
    (this.#item ??= []).push(byte);
    return null;
  }

  end(): readonly number[] | 'unmatched' | null {
    return this.#quote !== 0 ? 'unmatched' : this.#finish();
  }

  #finish(): number[] | null {
    const item = this.#item;
    this.#item = null;
    return item;
  }
}
const BACKSLASH = 0x5c;
