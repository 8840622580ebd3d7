/**
 * What the programs share: buffers in simulated memory, input by chunks, buffered output,
 * complaints. Bytes that host code works on are loaded from simulated memory first, and what comes
 * of them is stored there before it is written to a descriptor.
 */
import type { Op, UserPort } from '../../syscalls.ts';
import { Errno, O_READ, type Process, STDERR, STDIN, STDOUT } from '../process.ts';
import { bytesOf } from './bytes.ts';

export const BUFFER = 65_536; // bytes of an input or output buffer
const MESSAGE = 4096; // bytes of the buffer for complaints
const BROKEN_PIPE = 141; // exit status: what a Unix shell shows for death by SIGPIPE

const MESSAGES: Readonly<Record<number, string>> = {
  [Errno.EPERM]: 'Operation not permitted',
  [Errno.ENOENT]: 'No such file or directory',
  [Errno.ESRCH]: 'No such process',
  [Errno.EINTR]: 'Interrupted system call',
  [Errno.EIO]: 'Input/output error',
  [Errno.ENXIO]: 'No such device or address',
  [Errno.E2BIG]: 'Argument list too long',
  [Errno.EBADF]: 'Bad file descriptor',
  [Errno.ECHILD]: 'No child processes',
  [Errno.EAGAIN]: 'Resource temporarily unavailable',
  [Errno.ENOMEM]: 'Cannot allocate memory',
  [Errno.EACCES]: 'Permission denied',
  [Errno.EEXIST]: 'File exists',
  [Errno.ENOTDIR]: 'Not a directory',
  [Errno.EISDIR]: 'Is a directory',
  [Errno.EINVAL]: 'Invalid argument',
  [Errno.ENFILE]: 'Too many open files in system',
  [Errno.EMFILE]: 'Too many open files',
  [Errno.EFBIG]: 'File too large',
  [Errno.EMLINK]: 'Too many links',
  [Errno.ENOSPC]: 'No space left on device',
  [Errno.EPIPE]: 'Broken pipe',
  [Errno.ENAMETOOLONG]: 'File name too long',
  [Errno.ENOTEMPTY]: 'Directory not empty',
};

export const messageOf = (error: number): string => MESSAGES[error] ?? `Unknown error ${-error}`;

/** A running program's input and output, and the exit status that its complaints have led to. */
export class Io {
  readonly process: Process;
  readonly port: UserPort;
  readonly out: Output;
  readonly #trouble: number;
  status = 0;
  #buffer = 0; // address, 0 before the first use
  #message = 0;

  /** @param trouble exit status after an error: 1 for most programs, 2 for some */
  constructor(process: Process, trouble = 1) {
    this.process = process;
    this.port = process.port;
    this.#trouble = trouble;
    this.out = new Output(this);
  }

  /** Says `program: text` on standard error; the exit status will tell. */
  *complain(text: string): Op<void> {
    this.status = this.#trouble;
    if (this.#message === 0) this.#message = yield* this.process.heap(MESSAGE);
    if (this.#message < 0) return; // nowhere to put it
    const bytes = bytesOf(`${this.process.args[0] ?? ''}: ${text}\n`);
    const length = Math.min(bytes.length, MESSAGE);
    this.port.write(this.#message, bytes, 0, length) ?? (yield* this.port.fault());
    yield* this.process.write(STDERR, this.#message, length);
  }

  *failed(path: string, error: number): Op<void> {
    yield* this.complain(`${path}: ${messageOf(error)}`);
  }

  /** Complains and ends the program. */
  *die(text: string): Op<never> {
    yield* this.complain(text);
    return yield* this.process.exit(this.status);
  }

  /** Fresh heap memory, or the end of the program. */
  *allocate(bytes: number): Op<number> {
    const address = yield* this.process.heap(bytes);
    if (address < 0) yield* this.die('memory exhausted');
    return address;
  }

  /** The program's one input buffer, BUFFER bytes. */
  *buffer(): Op<number> {
    if (this.#buffer === 0) this.#buffer = yield* this.allocate(BUFFER);
    return this.#buffer;
  }

  /** Hands everything that `fd` still holds to `act`, in host memory. 0 at the end, or an error. */
  *forEachChunk(fd: number, act: (bytes: Uint8Array) => Op<void>): Op<number> {
    const buffer = yield* this.buffer();
    const bytes = new Uint8Array(BUFFER);
    for (;;) {
      const got = yield* this.process.read(fd, buffer, BUFFER);
      if (got <= 0) return got;
      this.port.read(buffer, bytes, 0, got) ?? (yield* this.port.fault());
      yield* act(bytes.subarray(0, got));
    }
  }

  /**
   * Opens each operand in turn (`-`, or none at all: standard input); reports what fails.
   * @param act its result below zero is the error that reading ended with
   */
  *forEachInput(
    operands: readonly string[],
    act: (fd: number, name: string) => Op<number>,
  ): Op<void> {
    for (const name of operands.length === 0 ? ['-'] : operands) {
      const fd = name === '-' ? STDIN : yield* this.process.open(name, O_READ);
      const error = fd < 0 ? fd : yield* act(fd, name);
      if (error < 0) yield* this.failed(name, error);
      if (fd >= 0 && name !== '-') yield* this.process.close(fd);
    }
  }

  /** Copies all of `from` to `to` through the input buffer, never looking at it. */
  *pour(from: number, to: number): Op<{ readonly read: number; readonly written: number }> {
    const buffer = yield* this.buffer();
    for (;;) {
      const read = yield* this.process.read(from, buffer, BUFFER);
      if (read <= 0) return { read, written: 0 };
      const written = yield* this.process.write(to, buffer, read);
      if (written < 0) return { read: 0, written };
    }
  }

  /** A broken pipe ends a program without a word, any other failure of its output with one. */
  *outputFailed(error: number): Op<never> {
    if (error === Errno.EPIPE) return yield* this.process.exit(BROKEN_PIPE);
    return yield* this.die(`write error: ${messageOf(error)}`);
  }

  /** Flushes the output; the exit status. */
  *end(): Op<number> {
    yield* this.out.flush();
    return this.status;
  }
}

/** Standard output, buffered in simulated memory. */
export class Output {
  readonly #io: Io;
  #base = 0; // address, 0 before the first use
  #used = 0;

  constructor(io: Io) {
    this.#io = io;
  }

  *put(bytes: Uint8Array, from = 0, to: number = bytes.length): Op<void> {
    const { port } = this.#io;
    for (let at = from; at < to;) {
      const part = Math.min(yield* this.#room(), to - at);
      port.write(this.#base + this.#used, bytes, at, part) ?? (yield* port.fault());
      this.#used += part;
      at += part;
    }
  }

  *text(text: string): Op<void> {
    yield* this.put(bytesOf(text));
  }

  /** Bytes that lie in simulated memory already. */
  *copy(address: number, bytes: number): Op<void> {
    const { port } = this.#io;
    for (let at = 0; at < bytes;) {
      const part = Math.min(yield* this.#room(), bytes - at);
      port.copy(this.#base + this.#used, address + at, part) ?? (yield* port.fault());
      this.#used += part;
      at += part;
    }
  }

  *flush(): Op<void> {
    if (this.#used === 0) return;
    const written = yield* this.#io.process.write(STDOUT, this.#base, this.#used);
    this.#used = 0;
    if (written < 0) yield* this.#io.outputFailed(written);
  }

  /** Bytes that fit; at least one. */
  *#room(): Op<number> {
    if (this.#base === 0) this.#base = yield* this.#io.allocate(BUFFER);
    if (this.#used === BUFFER) yield* this.flush();
    return BUFFER - this.#used;
  }
}
