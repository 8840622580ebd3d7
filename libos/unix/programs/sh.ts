/**
 * sh: `sh -c SCRIPT`, `sh FILE`, or commands from standard input, a line at a time; -i asks for
 * each with a prompt. Each stage of a pipeline is a fork. No object of this program survives one:
 * the script lies in the heap, with it the variables, and a record for the stage, by which the
 * child finds its command and the pipes that it stands between:
 *
 *     word 0: address of the command's text | 1: its bytes
 *     word 2: descriptor to read from, -1 its parent's | 3: to write to | 4: to close
 *     word 5: address of the variables | 6: the last exit status | 7: 1 if it controls jobs
 *
 * Variables: `name=value`, each ended by a zero byte, and one more at the end.
 * Built in: cd, exit, wait, jobs, fg, bg, kill, and assignments.
 */
import type { Op } from '../../syscalls.ts';
import {
  Errno,
  O_APPEND,
  O_CREATE,
  O_READ,
  O_TRUNCATE,
  O_WRITE,
  type Process,
  type Program,
  Signal,
  STDIN,
  STDOUT,
  STOPPED,
} from '../process.ts';
import { WORK } from '../work.ts';
import { bytesOf, textOf } from './bytes.ts';
import { killOperands } from './kill.ts';
import { Io, messageOf } from './io.ts';
import {
  type Command,
  parseCommand,
  parseScript,
  type Pipeline,
  type Redirection,
  SyntaxProblem,
  Unfinished,
} from './shell-syntax.ts';
import { expand, expandOne, type Lookup } from './shell-words.ts';

const TROUBLE = 2;
const CANNOT_RUN = 126;
const NOT_FOUND = 127;
const STAGE = 0; // child function
const INTERRUPTED = 1; // handler
const RECORD = 32; // bytes
const STAGES_MAX = 128;
const NONE = -1;
const BUILT_IN = ['cd', 'exit', 'wait', 'jobs', 'fg', 'bg', 'kill'];
const SIGNALLED = 128;
const VARIABLES = 4096; // bytes of them
const LINE = 4096; // bytes read at a time

export const sh: Program = {
  name: 'sh',
  *main(process) {
    const io = new Io(process, TROUBLE);
    const [, flag, script] = process.args;
    const shell = new Shell(io);
    yield* shell.begin();
    if (flag === '-c') {
      if (script === undefined) return yield* io.die('-c needs a script');
      return yield* shell.script(script);
    }
    if (flag !== undefined && flag !== '-i') {
      const fd = yield* process.open(flag, O_READ);
      if (fd < 0) return yield* io.die(`${flag}: ${messageOf(fd)}`);
      let text = '';
      const error = yield* io.forEachChunk(fd, function* (bytes) {
        text += textOf(bytes);
      });
      yield* process.close(fd);
      if (error < 0) return yield* io.die(`${flag}: ${messageOf(error)}`);
      return yield* shell.script(text);
    }
    return yield* shell.lines(flag === '-i');
  },
  children: [
    stage,
    function* () {
      return 0; // ^C is for what runs, not for the shell
    },
  ],
};

/** A pipeline that was left behind: its group is the pid of its first process. */
interface Job {
  readonly text: string;
  readonly group: number;
  readonly last: number;
  readonly left: Set<number>;
  stopped: boolean;
}

class Shell {
  readonly #io: Io;
  #text = 0; // address of what runs
  #room = 0; // bytes there
  #records = 0; // address of the records of the pipeline's stages
  #variables = 0; // address
  #source = '';
  #status = 0;
  #group = 0; // our own, if we control jobs
  readonly #jobs = new Map<number, Job>(); // in the background, or stopped: by number
  readonly #values = new Map<string, string>();

  constructor(io: Io) {
    this.#io = io;
  }

  *begin(): Op<void> {
    this.#records = yield* this.#io.allocate(STAGES_MAX * RECORD);
    this.#variables = yield* this.#io.allocate(VARIABLES);
  }

  /** Runs all of a script; its exit status. What does not parse runs not at all. */
  *script(script: string): Op<number> {
    const parsed = yield* this.#parse(script);
    if (parsed instanceof SyntaxProblem) return yield* this.#io.die(parsed.message);
    yield* this.#all(script, parsed);
    return this.#status;
  }

  /** Runs standard input a line at a time; further lines where one is not a whole. */
  *lines(prompts: boolean): Op<number> {
    const io = this.#io;
    const buffer = yield* io.allocate(LINE);
    if (prompts) {
      this.#group = io.process.pid;
      yield* io.process.setGroup(io.process.pid, 0);
      yield* io.process.setForeground(io.process.pid);
      yield* io.process.handle(Signal.INT, INTERRUPTED);
      yield* io.process.handle(Signal.TSTP, 'ignore');
    }
    let [text, waiting, ended] = ['', '', false];
    while (!ended) {
      if (prompts) yield* this.#say(text === '' ? '$ ' : '> ');
      while (!waiting.includes('\n')) {
        const got = yield* io.process.read(STDIN, buffer, LINE);
        if (got === Errno.EINTR) {
          text = waiting = '';
          if (prompts) yield* this.#say('\n$ ');
          continue;
        }
        ended = got <= 0;
        if (ended) break;
        const bytes = new Uint8Array(got);
        io.port.read(buffer, bytes, 0, got) ?? (yield* io.port.fault());
        waiting += textOf(bytes);
      }
      const end = ended ? waiting.length : waiting.indexOf('\n') + 1;
      text += waiting.slice(0, end);
      waiting = waiting.slice(end);
      const parsed = yield* this.#parse(text);
      if (parsed instanceof Unfinished && !ended) continue;
      if (parsed instanceof SyntaxProblem) {
        yield* io.complain(parsed.message);
        this.#status = TROUBLE;
        if (!prompts) return TROUBLE;
      } else yield* this.#all(text, parsed);
      text = '';
    }
    return this.#status;
  }

  *#say(text: string): Op<void> {
    yield* this.#io.out.text(text);
    yield* this.#io.out.flush();
  }

  *#parse(script: string): Op<readonly Pipeline[] | SyntaxProblem> {
    const { port } = this.#io;
    port.work(script.length * WORK.scanByte) ?? (yield* port.fault());
    try {
      return parseScript(script);
    } catch (error) {
      if (error instanceof SyntaxProblem) return error;
      throw error;
    }
  }

  /** Puts the script where children will find it, and runs its pipelines. */
  *#all(script: string, pipelines: readonly Pipeline[]): Op<void> {
    const { port } = this.#io;
    const bytes = bytesOf(script);
    if (bytes.length > this.#room) {
      this.#text = yield* this.#io.allocate(bytes.length);
      this.#room = bytes.length;
    }
    port.write(this.#text, bytes, 0, bytes.length) ?? (yield* port.fault());
    this.#source = script;
    for (const pipeline of pipelines) {
      if (pipeline.when === '&&' && this.#status !== 0) continue;
      if (pipeline.when === '||' && this.#status === 0) continue;
      if (pipeline.stages.length > STAGES_MAX) return yield* this.#io.die('pipeline too long');
      this.#status = yield* this.#run(pipeline);
    }
  }

  readonly #look: Lookup = (name) => {
    if (name === '?') return String(this.#status);
    if (name === '$') return String(this.#io.process.pid);
    return this.#values.get(name) ?? '';
  };

  /** Runs a pipeline to its end, or leaves it behind; the status of its last command. */
  *#run({ stages, background }: Pipeline): Op<number> {
    const { process } = this.#io;
    const [only] = stages;
    if (stages.length === 1 && only !== undefined && !background) {
      const command = parseCommand(this.#source.slice(only.start, only.end));
      const words = yield* expand(process, command.words, this.#look);
      const [name] = words;
      if (name === undefined || BUILT_IN.includes(name)) {
        return yield* this.#builtIn(command, words);
      }
    }
    const children = new Set<number>();
    const jobs = this.#group === 0 ? 0 : 1;
    let group = 0;
    let [input, last] = [NONE, NONE];
    for (const [n, { start, end }] of stages.entries()) {
      const pipe = n + 1 < stages.length ? yield* process.pipe() : ([NONE, NONE] as const);
      if (typeof pipe === 'number') {
        yield* this.#io.complain(`cannot make a pipe: ${messageOf(pipe)}`);
        last = NONE;
        break;
      }
      const record = this.#records + n * RECORD;
      const words = [this.#text + start, end - start, input, pipe[1], pipe[0]];
      for (const [at, word] of [...words, this.#variables, this.#status, jobs].entries()) {
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
      if (this.#group !== 0) {
        group = group === 0 ? last : group;
        yield* process.setGroup(last, group);
      }
    }
    if (last < 0 && input !== NONE) yield* process.close(input);
    const text = this.#source.slice(only?.start ?? 0, stages.at(-1)?.end ?? 0);
    if (background && last >= 0) {
      const number = this.#add({ text, group, last, left: children, stopped: false });
      if (this.#group !== 0) yield* this.#say(`[${number}] ${last}\n`);
      return 0;
    }
    return yield* this.#foreground({ text, group, last, left: children, stopped: false });
  }

  #add(job: Job): number {
    let number = 1;
    while (this.#jobs.has(number)) number++;
    this.#jobs.set(number, job);
    return number;
  }

  /** Waits for a job that ^C is for meanwhile; it may stop instead of ending. */
  *#foreground(job: Job): Op<number> {
    const { process } = this.#io;
    if (this.#group === 0) return yield* this.#waitFor(job.left, job.last);
    yield* process.setForeground(job.group);
    const status = yield* this.#waitFor(job.left, job.last);
    yield* process.setForeground(this.#group);
    if (status >= STOPPED) {
      job.stopped = true;
      yield* this.#say(`\n[${this.#add(job)}] Stopped ${job.text}\n`);
    }
    return status >= STOPPED ? SIGNALLED + (status & 0x7f) : status;
  }

  *#waitFor(children: Set<number>, last: number): Op<number> {
    let status = TROUBLE;
    while (children.size > 0) {
      const ended = yield* this.#io.process.wait({ stopped: this.#group !== 0 });
      if (ended === Errno.EINTR) continue;
      if (typeof ended === 'number') break;
      const [pid, how] = ended;
      if (how >= STOPPED) {
        if (children.has(pid)) return how;
        continue;
      }
      this.#forget(pid);
      children.delete(pid);
      if (pid === last) status = how & 0xff;
    }
    return status;
  }

  /** A process has ended: a job without processes is done. */
  #forget(pid: number): void {
    for (const [number, { left }] of this.#jobs) {
      if (left.delete(pid) && left.size === 0) this.#jobs.delete(number);
    }
  }

  /** The job that `%n`, or nothing, means; null after a complaint. */
  *#job(name: string, text = ''): Op<[number, Job] | null> {
    const number = text === '' ? [...this.#jobs.keys()].at(-1) : Number(text.replace(/^%/, ''));
    const job = this.#jobs.get(number ?? 0);
    if (job !== undefined) return [number ?? 0, job];
    yield* this.#io.complain(`${name}: ${text === '' ? 'no current job' : `no job ${text}`}`);
    return null;
  }

  /** Those that have ended since somebody looked. */
  *#gather(): Op<void> {
    for (;;) {
      const ended = yield* this.#io.process.wait({ noHang: true });
      if (typeof ended === 'number' || ended[0] === 0) return;
      this.#forget(ended[0]);
    }
  }

  /** cd, exit, wait, jobs, assignments, or nothing but redirections, whose files are made. */
  *#builtIn(command: Command, words: readonly string[]): Op<number> {
    const io = this.#io;
    for (const redirection of command.redirections) {
      const fd = yield* openFor(io, redirection, this.#look);
      if (fd < 0) return TROUBLE;
      if (redirection.direction !== '>&') yield* io.process.close(fd);
    }
    switch (words[0]) {
      case 'wait':
        yield* this.#waitFor(new Set([NONE]), NONE); // until there is no child
        this.#jobs.clear();
        return 0;
      case 'jobs': {
        yield* this.#gather();
        for (const [number, { text, stopped }] of this.#jobs) {
          yield* this.#say(`[${number}] ${stopped ? 'Stopped' : 'Running'} ${text}\n`);
        }
        return 0;
      }
      case 'fg':
      case 'bg': {
        const found = yield* this.#job(words[0], words[1]);
        if (found === null) return 1;
        const [number, job] = found;
        job.stopped = false;
        if (job.group !== 0) yield* io.process.kill(-job.group, Signal.CONT);
        if (words[0] === 'bg') return 0;
        this.#jobs.delete(number);
        yield* this.#say(`${job.text}\n`);
        return yield* this.#foreground(job);
      }
      case 'kill':
        return yield* this.#kill(words.slice(1));
      case undefined:
        for (const { name, value } of command.assignments) {
          this.#values.set(name, expandOne(value, this.#look));
        }
        return yield* this.#keepVariables();
      default:
        return yield* builtIn(io, words, this.#status);
    }
  }

  /** `kill [-SIGNAL] PID|%JOB..` */
  *#kill(words: readonly string[]): Op<number> {
    const io = this.#io;
    const { signal, targets } = killOperands(words);
    if (signal < 0) {
      yield* io.complain(`kill: ${words[0] ?? ''}: invalid signal`);
      return 1;
    }
    let status = targets.length > 0 ? 0 : 2;
    for (const target of targets) {
      let pid = Number(target);
      let stopped = false;
      if (target.startsWith('%')) {
        const found = yield* this.#job('kill', target);
        if (found === null) return 1;
        pid = found[1].group === 0 ? found[1].last : -found[1].group;
        ({ stopped } = found[1]);
      }
      const error = yield* io.process.kill(pid, signal);
      // A stopped job is to hear of it now.
      if (error >= 0 && stopped) yield* io.process.kill(pid, Signal.CONT);
      if (error >= 0) continue;
      yield* io.complain(`kill: ${target}: ${messageOf(error)}`);
      status = 1;
    }
    return status;
  }

  /** Where children find them. */
  *#keepVariables(): Op<number> {
    const { port } = this.#io;
    const text = [...this.#values].map(([name, value]) => `${name}=${value}\0`).join('');
    const bytes = bytesOf(`${text}\0`);
    if (bytes.length > VARIABLES) return yield* this.#io.die('too many variables');
    port.write(this.#variables, bytes, 0, bytes.length) ?? (yield* port.fault());
    return 0;
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
  const variables = yield* port.load(record + 20);
  const status = yield* port.load(record + 24);
  port.read(text, bytes, 0, bytes.length) ?? (yield* port.fault());
  port.work(bytes.length * WORK.scanByte) ?? (yield* port.fault());
  if (spare !== NONE) yield* process.close(spare);
  if (input !== NONE) yield* move(process, input, STDIN);
  if (output !== NONE) yield* move(process, output, STDOUT);

  if ((yield* port.load(record + 28)) !== 0) {
    yield* process.handle(Signal.INT, 'default');
    yield* process.handle(Signal.TSTP, 'default');
  }
  const command = parseCommand(textOf(bytes));
  const hasVariables = [...command.words, ...command.redirections.map(({ target }) => target)].some(
    (word) => word.some(({ kind }) => kind === 'variable'),
  );
  const values = hasVariables
    ? yield* readVariables(process, variables)
    : new Map<string, string>();
  const look: Lookup = (name) => (name === '?' ? String(status) : (values.get(name) ?? ''));
  const words = yield* expand(process, command.words, look);
  for (const redirection of command.redirections) {
    const fd = yield* openFor(io, redirection, look);
    if (fd < 0) return TROUBLE;
    if (redirection.direction === '>&') yield* process.dup2(fd, redirection.fd);
    else yield* move(process, fd, redirection.fd);
  }
  const [name] = words;
  if (name === undefined || BUILT_IN.includes(name)) return yield* builtIn(io, words, status);
  const error = yield* process.exec(name, words);
  yield* io.complain(`${name}: ${error === Errno.ENOENT ? 'not found' : messageOf(error)}`);
  return error === Errno.ENOENT ? NOT_FOUND : CANNOT_RUN;
}

function* readVariables(process: Process, address: number): Op<Map<string, string>> {
  const { port } = process;
  const bytes = new Uint8Array(VARIABLES);
  port.read(address, bytes, 0, VARIABLES) ?? (yield* port.fault());
  const values = new Map<string, string>();
  for (const entry of textOf(bytes).split('\0')) {
    const at = entry.indexOf('=');
    if (at < 0) break;
    values.set(entry.slice(0, at), entry.slice(at + 1));
  }
  return values;
}

/** cd and exit; the others make no sense in a child, and do nothing there. */
function* builtIn(io: Io, words: readonly string[], status: number): Op<number> {
  const { process } = io;
  const [name, argument] = words;
  if (name === 'exit') {
    const wanted = argument === undefined ? status : Number(argument);
    if (!Number.isInteger(wanted)) yield* io.die(`exit: ${argument ?? ''}: bad number`);
    return yield* process.exit(wanted & 0xff);
  }
  if (name !== 'cd') return 0;
  const error = yield* process.chdir(argument ?? '/');
  if (error >= 0) return 0;
  yield* io.complain(`cd: ${argument ?? '/'}: ${messageOf(error)}`);
  return TROUBLE;
}

/** The descriptor that a redirection leads to; complains if there is none. */
function* openFor(io: Io, { direction, target }: Redirection, look: Lookup): Op<number> {
  const path = expandOne(target, look);
  if (direction === '>&') return Number(path);
  const how = direction === '>>' ? O_APPEND : O_TRUNCATE;
  const flags = direction === '<' ? O_READ : O_WRITE | O_CREATE | how;
  const opened = yield* io.process.open(path, flags);
  if (opened < 0) yield* io.failed(path, opened);
  return opened;
}

function* move(process: Process, from: number, to: number): Op<void> {
  if (from === to) return;
  yield* process.dup2(from, to);
  yield* process.close(from);
}
