/**
 * sh: `sh -c SCRIPT [NAME ARGUMENT..]`, `sh FILE [ARGUMENT..]`, or commands from standard input, a
 * line at a time; -i asks for each with a prompt, and controls jobs. ^C gives up the line that
 * runs. Exit status: of the last command; 2 if a script makes no sense, and then nothing of it ran.
 */
import type { Op } from '../../syscalls.ts';
import { Errno, O_READ, type Process, type Program, Signal, STDIN } from '../process.ts';
import { textOf } from './bytes.ts';
import { Io, messageOf } from './io.ts';
import { GivenUp, INTERRUPTED, Shell } from './shell.ts';
import { BUILT_INS } from './shell-builtins.ts';
import { SyntaxProblem, Unfinished } from './shell-syntax.ts';

const TROUBLE = 2;
const HANDLER = 1; // child function
const LINE = 4096; // bytes of a line at the terminal

export const sh: Program = {
  name: 'sh',
  *main(process) {
    const io = new Io(process, TROUBLE);
    const shell = new Shell(io, BUILT_INS);
    const [name = 'sh', flag, ...rest] = process.args;
    shell.name = name;
    if (flag === '-c') {
      const [script, given, ...parameters] = rest;
      if (script === undefined) return yield* io.die('-c needs a script');
      shell.name = given ?? name;
      shell.parameters = parameters;
      return yield* runAll(shell, script);
    }
    if (flag === undefined || flag === '-i') return yield* runLines(shell, flag === '-i');
    if (flag.startsWith('-'))
      return yield* io.die(`${flag}: unsupported; -c SCRIPT, -i, or a file`);
    const fd = yield* process.open(flag, O_READ);
    if (fd < 0) return yield* io.die(`${flag}: ${messageOf(fd)}`);
    let text = '';
    const error = yield* io.forEachChunk(fd, function* (bytes) {
      text += textOf(bytes);
    });
    yield* process.close(fd);
    if (error < 0) return yield* io.die(`${flag}: ${messageOf(error)}`);
    shell.name = flag;
    shell.parameters = rest;
    return yield* runAll(shell, text);
  },
  children: [
    (process: Process, record: number): Op<number> =>
      new Shell(new Io(process, TROUBLE), BUILT_INS).errand(record),
    // ^C is for what runs, or ends what the shell itself does: no call of ours is in the middle.
    function* () {
      throw new GivenUp(INTERRUPTED);
    },
  ],
};

/** Runs all of a script; its exit status. What does not parse runs not at all. */
function* runAll(shell: Shell, script: string): Op<number> {
  const parsed = yield* shell.parse(script);
  if (parsed instanceof SyntaxProblem) return yield* shell.io.die(parsed.message);
  try {
    return yield* shell.run(parsed);
  } catch (error) {
    if (error instanceof GivenUp) return error.status;
    throw error;
  }
}

/** Runs standard input a line at a time; further lines where one is not a whole. */
function* runLines(shell: Shell, prompts: boolean): Op<number> {
  const { process, io } = shell;
  if (prompts) {
    shell.group = process.pid;
    yield* process.setGroup(process.pid, 0);
    yield* process.setForeground(process.pid);
    yield* process.handle(Signal.INT, HANDLER);
    yield* process.handle(Signal.TSTP, 'ignore');
  }
  const buffer = yield* io.allocate(LINE);
  let text = '';
  for (;;) {
    try {
      if (prompts) yield* shell.say(text === '' ? '$ ' : '> ');
      const line = prompts
        ? yield* typed(shell, buffer)
        : (yield* shell.line(STDIN, Infinity)).text;
      text += line;
      const parsed = yield* shell.parse(text);
      if (parsed instanceof Unfinished && line !== '') continue;
      const isProblem = parsed instanceof SyntaxProblem;
      if (isProblem) {
        yield* io.complain(parsed.message);
        shell.status = TROUBLE;
        if (!prompts) return TROUBLE;
      }
      text = '';
      if (!isProblem) yield* shell.run(parsed);
      if (line === '') return shell.status;
    } catch (error) {
      if (!(error instanceof GivenUp)) throw error;
      shell.status = error.status;
      if (!prompts) return shell.status;
      text = '';
      yield* process.setForeground(shell.group);
      if (error.status === INTERRUPTED) yield* shell.say('\n');
    }
  }
}

/** A line of the terminal; '' at its end. */
function* typed({ process }: Shell, buffer: number): Op<string> {
  let text = '';
  while (!text.endsWith('\n')) {
    const got = yield* process.read(STDIN, buffer, LINE);
    if (got === Errno.EINTR) continue;
    if (got <= 0) break;
    const bytes = new Uint8Array(got);
    process.port.read(buffer, bytes, 0, got) ?? (yield* process.port.fault());
    text += textOf(bytes);
  }
  return text;
}
