/**
 * sh: `sh -c SCRIPT`. Each stage of a pipeline is a fork. No object of this program survives one:
 * the script lies in the heap, and with it a record for the stage, by which the child finds its
 * command and the pipes that it stands between:
 *
 *     word 0: address of the command's text | 1: its bytes
 *     word 2: descriptor to read from, -1 its parent's | 3: to write to | 4: to close
 *
 * Built in: cd, exit.
 */
import type { Op } from '../../syscalls.ts';
import {
  Errno,
  O_CREATE,
  O_READ,
  O_TRUNCATE,
  O_WRITE,
  type Process,
  type Program,
  STDIN,
  STDOUT,
} from '../process.ts';
import { WORK } from '../work.ts';
import { bytesOf, textOf } from './bytes.ts';
import { Io, messageOf } from './io.ts';
import {
  type Command,
  parseCommand,
  parseScript,
  type Pipeline,
  type Redirection,
  SyntaxProblem,
} from './shell-syntax.ts';

const TROUBLE = 2;
const CANNOT_RUN = 126;
const NOT_FOUND = 127;
const STAGE = 0; // child function
const RECORD = 20; // bytes
const STAGES_MAX = 128;
const NONE = -1;
const BUILT_IN = ['cd', 'exit'];

export const sh: Program = {
  name: 'sh',
  *main(process) {
    const io = new Io(process, TROUBLE);
    const [, flag, script] = process.args;
    if (flag !== '-c' || script === undefined) return yield* io.die('usage: sh -c SCRIPT');
    io.port.work(script.length * WORK.scanByte) ?? (yield* io.port.fault());
    const parsed = attempt(() => parseScript(script));
    if (parsed instanceof SyntaxProblem) return yield* io.die(parsed.message);
    const shell = new Shell(io, script);
    yield* shell.begin();
    let status = 0;
    for (const pipeline of parsed) {
      if (pipeline.length > STAGES_MAX) return yield* io.die('pipeline too long');
      status = yield* shell.run(pipeline, status);
    }
    return status;
  },
  children: [stage],
};

class Shell {
  readonly #io: Io;
  readonly #script: string;
  #text = 0; // address of the script
  #records = 0; // address of the records of the pipeline's stages

  constructor(io: Io, script: string) {
    this.#io = io;
    this.#script = script;
  }

  /** Puts the script where children will find it. */
  *begin(): Op<void> {
    const { port } = this.#io;
    const bytes = bytesOf(this.#script);
    this.#text = yield* this.#io.allocate(Math.max(1, bytes.length));
    this.#records = yield* this.#io.allocate(STAGES_MAX * RECORD);
    port.write(this.#text, bytes, 0, bytes.length) ?? (yield* port.fault());
  }

  /** Runs a pipeline to its end; the status of its last command. */
  *run(pipeline: Pipeline, status: number): Op<number> {
    const { process } = this.#io;
    const [only] = pipeline;
    if (pipeline.length === 1 && only !== undefined) {
      const command = parseCommand(this.#script.slice(only.start, only.end));
      const [name] = command.words;
      if (name === undefined || BUILT_IN.includes(name)) {
        return yield* builtIn(this.#io, command, status);
      }
    }
    const children = new Set<number>();
    let [input, last] = [NONE, NONE];
    for (const [n, { start, end }] of pipeline.entries()) {
      const pipe = n + 1 < pipeline.length ? yield* process.pipe() : ([NONE, NONE] as const);
      if (typeof pipe === 'number') {
        yield* this.#io.complain(`cannot make a pipe: ${messageOf(pipe)}`);
        last = NONE;
        break;
      }
      const record = this.#records + n * RECORD;
      const words = [this.#text + start, end - start, input, pipe[1], pipe[0]];
      for (const [at, word] of words.entries()) {
        yield* this.#io.port.store(record + at * 4, word);
      }
      last = yield* process.fork(STAGE, record);
      if (input !== NONE) yield* process.close(input);
      if (pipe[1] !== NONE) yield* process.close(pipe[1]);
      input = pipe[0];
      if (last < 0) {
        yield* this.#io.complain(`cannot fork: ${messageOf(last)}`);
        break;
      }
      children.add(last);
    }
    if (last < 0 && input !== NONE) yield* process.close(input);
    return yield* this.#waitFor(children, last);
  }

  *#waitFor(children: Set<number>, last: number): Op<number> {
    let status = TROUBLE;
    while (children.size > 0) {
      const ended = yield* this.#io.process.wait();
      if (typeof ended === 'number') break;
      children.delete(ended[0]);
      if (ended[0] === last) status = ended[1] & 0xff;
    }
    return status;
  }
}

/** The child: connects its pipes and becomes the command that the record tells of. */
function* stage(process: Process, record: number): Op<number> {
  const { port } = process;
  const io = new Io(process, TROUBLE);
  const text = yield* port.load(record);
  const bytes = new Uint8Array(yield* port.load(record + 4));
  const input = yield* port.load(record + 8);
  const output = yield* port.load(record + 12);
  const spare = yield* port.load(record + 16);
  port.read(text, bytes, 0, bytes.length) ?? (yield* port.fault());
  port.work(bytes.length * WORK.scanByte) ?? (yield* port.fault());
  if (spare !== NONE) yield* process.close(spare);
  if (input !== NONE) yield* move(process, input, STDIN);
  if (output !== NONE) yield* move(process, output, STDOUT);

  const command = parseCommand(textOf(bytes));
  const [name] = command.words;
  if (name === undefined || BUILT_IN.includes(name)) return yield* builtIn(io, command, 0);
  for (const redirection of command.redirections) {
    const fd = yield* openFor(io, redirection);
    if (fd < 0) return TROUBLE;
    yield* move(process, fd, redirection.fd);
  }
  const error = yield* process.exec(name, command.words);
  yield* io.complain(`${name}: ${error === Errno.ENOENT ? 'not found' : messageOf(error)}`);
  return error === Errno.ENOENT ? NOT_FOUND : CANNOT_RUN;
}

/** cd, exit, or nothing but redirections, whose files are made. */
function* builtIn(io: Io, command: Command, status: number): Op<number> {
  const { process } = io;
  for (const redirection of command.redirections) {
    const fd = yield* openFor(io, redirection);
    if (fd < 0) return TROUBLE;
    yield* process.close(fd);
  }
  const [name, argument] = command.words;
  if (name === 'exit') {
    const wanted = argument === undefined ? status : Number(argument);
    if (!Number.isInteger(wanted)) yield* io.die(`exit: ${argument ?? ''}: bad number`);
    return yield* process.exit(wanted & 0xff);
  }
  if (name === undefined) return 0;
  const error = yield* process.chdir(argument ?? '/');
  if (error >= 0) return 0;
  yield* io.complain(`cd: ${argument ?? '/'}: ${messageOf(error)}`);
  return TROUBLE;
}

function* openFor(io: Io, { direction, path }: Redirection): Op<number> {
  const flags = direction === '<' ? O_READ : O_WRITE | O_CREATE | O_TRUNCATE;
  const fd = yield* io.process.open(path, flags);
  if (fd < 0) yield* io.failed(path, fd);
  return fd;
}

function* move(process: Process, from: number, to: number): Op<void> {
  if (from === to) return;
  yield* process.dup2(from, to);
  yield* process.close(from);
}

function attempt<T>(act: () => T): T | SyntaxProblem {
  try {
    return act();
  } catch (error) {
    if (error instanceof SyntaxProblem) return error;
    throw error;
  }
}
