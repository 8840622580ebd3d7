/**
 * mux: `mux COMMAND..` runs commands of the shell side by side and passes on what they print, line
 * by line, as it comes; lines are never mixed. It waits for all of them at once, in poll. -l says
 * before each line which command it is of. Exit status: of the first that failed, 0 if none did.
 */
import type { Op } from '../../syscalls.ts';
import { type PollFor, Poll, type Process, type Program, STDIN, STDOUT } from '../process.ts';
import { WORK } from '../work.ts';
import { textOf } from './bytes.ts';
import { Io, messageOf } from './io.ts';
import { parseOptions } from './options.ts';

const COMMANDS_MAX = 12; // descriptors of a process, but for its own
const CHUNK = 4096;
const COMMAND = 0; // child

/** A command that runs: where its output comes from, and the line that has not ended yet. */
interface Source {
  readonly fd: number;
  readonly number: number;
  rest: string;
}

class Mux {
  readonly #io: Io;
  readonly #labels: boolean;
  #buffer = 0;

  constructor(io: Io, labels: boolean) {
    this.#io = io;
    this.#labels = labels;
  }

  /** Passes on what comes from any of them, until all have ended. */
  *all(sources: readonly Source[]): Op<void> {
    this.#buffer = yield* this.#io.allocate(CHUNK);
    let open = [...sources];
    while (open.length > 0) {
      const wanted = open.map(({ fd }): PollFor => ({ fd, events: Poll.IN }));
      const found = yield* this.#io.process.poll(wanted, -1);
      if (typeof found === 'number') continue; // a signal was handled
      const over = new Set<Source>();
      for (const [n, source] of open.entries()) {
        if (found[n] !== 0 && !(yield* this.#read(source))) over.add(source);
      }
      yield* this.#io.out.flush();
      open = open.filter((source) => !over.has(source));
    }
  }

  /** False: that was its end. */
  *#read(source: Source): Op<boolean> {
    const { process, port } = this.#io;
    const got = yield* process.read(source.fd, this.#buffer, CHUNK);
    const bytes = new Uint8Array(Math.max(0, got));
    port.read(this.#buffer, bytes, 0, bytes.length) ?? (yield* port.fault());
    port.work(bytes.length * WORK.scanByte) ?? (yield* port.fault());
    const lines = `${source.rest}${textOf(bytes)}`.split('\n');
    source.rest = lines.pop() ?? '';
    for (const line of lines) yield* this.#pass(source, `${line}\n`);
    if (got > 0) return true;
    if (source.rest !== '') yield* this.#pass(source, `${source.rest}\n`);
    yield* process.close(source.fd);
    return false;
  }

  *#pass({ number }: Source, line: string): Op<void> {
    yield* this.#io.out.text(this.#labels ? `${number}: ${line}` : line);
  }
}

export const mux: Program = {
  name: 'mux',
  *main(process) {
    const io = new Io(process);
    const { flags, operands } = yield* parseOptions(io, 'l', '', false);
    if (operands.length === 0) yield* io.die('usage: mux [-l] COMMAND..');
    if (operands.length > COMMANDS_MAX) yield* io.die(`at most ${COMMANDS_MAX} commands`);
    const sources: Source[] = [];
    const children: number[] = [];
    for (const n of operands.keys()) {
      const pipe = yield* process.pipe();
      if (typeof pipe === 'number') return yield* io.die(`cannot make a pipe: ${messageOf(pipe)}`);
      // The child's end stands where it looks for it.
      const first = process.args.length - operands.length;
      const pid = yield* process.fork(COMMAND, (first + n) * 256 + pipe[1]);
      if (pid < 0) yield* io.die(`cannot fork: ${messageOf(pid)}`);
      yield* process.close(pipe[1]);
      sources.push({ fd: pipe[0], number: n + 1, rest: '' });
      children.push(pid);
    }
    yield* new Mux(io, flags.has('l')).all(sources);
    let status = 0;
    for (const pid of children) {
      const ended = yield* process.wait({ pid });
      if (typeof ended !== 'number' && status === 0) status = ended[1] & 0xff;
    }
    return status;
  },
  children: [
    function* (process: Process, which: number): Op<number> {
      const io = new Io(process);
      const fd = which & 0xff;
      for (let other = STDOUT + 2; other < fd; other++) yield* process.close(other);
      yield* process.dup2(fd, STDOUT);
      yield* process.close(fd);
      const nothing = yield* process.open('/dev/null', 1);
      if (nothing >= 0) yield* process.dup2(nothing, STDIN);
      if (nothing > STDIN) yield* process.close(nothing);
      const script = process.args[which >> 8] ?? '';
      const error = yield* process.exec('sh', ['sh', '-c', script]);
      return yield* io.die(`sh: ${messageOf(error)}`);
    },
  ],
};
