/**
 * The shell's inside: runs the tree of a script. What cannot be done in the shell itself is a fork,
 * and no object survives one: a child is given the text of its command, reads it once more, and
 * finds what else it needs in the heap:
 *
 *     word 0: bytes of the text | 1: of the values and words of its command, if those are known
 *     word 2: descriptor to read from, -1 its parent's | 3: to write to | 4: to close
 *     word 5: address of the state | 6: bytes of it | 7: the last exit status
 *     word 8: 1 if it is a job | 9: lowest descriptor that its parent has put aside
 *     word 10: 1 if it reads from nowhere | 11: loops around it | the text | the values and words
 *
 * The state is strings, each ended by a zero byte, of which the first character tells: `0` the
 * name of the shell, `p` a parameter, `v` a variable, `e` one that is exported, `!` the last job.
 */
import type { Op } from '../../syscalls.ts';
import {
  Errno,
  O_APPEND,
  O_CREATE,
  O_READ,
  O_TRUNCATE,
  O_WRITE,
  OPEN_MAX,
  Poll,
  type Process,
  Signal,
  STDIN,
  STDOUT,
  STOPPED,
} from '../process.ts';
import { WORK } from '../work.ts';
import { bytesOf, textOf } from './bytes.ts';
import { type Io, messageOf } from './io.ts';
import { SumProblem } from './shell-sums.ts';
import {
  type Command,
  type Item,
  type List,
  parseScript,
  type Piece,
  type Pipeline,
  type Redirection,
  type Script,
  type Stage,
  SyntaxProblem,
  type Word,
} from './shell-syntax.ts';
import { expand, expandOne, isLike, type Meaning } from './shell-words.ts';

const TROUBLE = 2;
const CANNOT_RUN = 126;
const NOT_FOUND = 127;
const SIGNALLED = 128;
export const INTERRUPTED = SIGNALLED + Signal.INT;
/** Child function of every program that has a shell in it. */
const STAGE = 0;
const RECORD = 48; // bytes
const NONE = -1;
const LINE = 512; // bytes of a file that are read at a time
const ASIDE = 10; // descriptors from here on are put aside while others stand in for them
const DOCUMENT_MAX = 4096; // bytes: what a pipe holds

/** ^C, or what makes no sense: the line that runs is given up. */
export class GivenUp extends Error {
  readonly status: number;
  constructor(status: number) {
    super('given up');
    this.status = status;
  }
}

/** A pipeline that was left behind: its group is the pid of its first process. */
export interface Job {
  readonly text: string;
  readonly group: number;
  readonly last: number;
  readonly left: Set<number>;
  stopped: boolean;
}

/** What a child is to do: see the record. */
interface Errand {
  readonly text: string;
  /** values of assignments, and words */
  readonly given?: readonly string[];
  readonly input?: number;
  readonly output?: number;
  readonly spare?: number;
  readonly isQuiet?: boolean;
}

/** Something that the shell does itself; the first word is its name. */
export type BuiltIn = (shell: Shell, words: readonly string[]) => Op<number>;
/** Those in front of which assignments stay. */
const SPECIAL = [
  '',
  ':',
  '.',
  'break',
  'continue',
  'eval',
  'exit',
  'export',
  'set',
  'shift',
  'unset',
];

export class Shell {
  readonly io: Io;
  readonly process: Process;
  status = 0;
  group = 0; // our own, if we control jobs
  readonly jobs = new Map<number, Job>(); // in the background, or stopped: by number
  name = 'sh';
  parameters: readonly string[] = [];
  lastJob = 0;
  /** loops that are being left, and whether the last of them is begun anew */
  leaving = 0;
  again = false;
  loops = 0;
  readonly #builtIns: Readonly<Record<string, BuiltIn>>;
  readonly #values = new Map<string, string>();
  readonly #exported = new Set<string>();
  readonly #meaning: Meaning;
  #script: Script = { list: [], textOf: () => '' };
  #changed = true;
  #state = { address: 0, room: 0, bytes: 0 };
  #record = { address: 0, room: 0 };
  #aside = OPEN_MAX; // lowest that is in use
  #substituted = 0; // exit status of the last commands within a word

  constructor(io: Io, builtIns: Readonly<Record<string, BuiltIn>>) {
    this.#builtIns = builtIns;
    this.io = io;
    this.process = io.process;
    this.#meaning = {
      process: io.process,
      look: (name) => this.look(name),
      parameters: () => this.parameters,
      assign: (name, value) => {
        this.assign(name, value);
      },
      run: (commands) => this.#output(commands),
    };
    for (const entry of io.process.environment) {
      const at = entry.indexOf('=');
      const name = entry.slice(0, at);
      if (!/^[A-Za-z_]\w*$/.test(name)) continue;
      this.#values.set(name, entry.slice(at + 1));
      this.#exported.add(name);
    }
  }

  // ---- variables --------------------------------------------------------------------------------

  look(name: string): string | undefined {
    if (name === '?') return String(this.status);
    if (name === '$') return String(this.process.pid);
    if (name === '#') return String(this.parameters.length);
    if (name === '!') return this.lastJob === 0 ? undefined : String(this.lastJob);
    if (name === '@' || name === '*') return this.parameters.join(' ');
    if (name === '0') return this.name;
    if (/^[0-9]+$/.test(name)) return this.parameters[Number(name) - 1];
    return this.#values.get(name);
  }

  assign(name: string, value: string): void {
    if (name === 'IFS') throw new SyntaxProblem('unsupported: IFS (words are split at blanks)');
    this.#values.set(name, value.replaceAll('\0', ''));
    this.#changed = true;
  }

  unset(name: string): void {
    this.#values.delete(name);
    this.#exported.delete(name);
    this.#changed = true;
  }

  export(name: string): void {
    this.#exported.add(name);
    this.#changed = true;
  }

  setParameters(parameters: readonly string[]): void {
    this.parameters = parameters;
    this.#changed = true;
  }

  /** Names and values, in order. */
  variables(exported: boolean): readonly (readonly [name: string, value: string])[] {
    const all = [...this.#values].filter(([name]) => !exported || this.#exported.has(name));
    return all.sort(([a], [b]) => (a < b ? -1 : 1));
  }

  environment(): string[] {
    return this.variables(true).map(([name, value]) => `${name}=${value}`);
  }

  /** Where children find them. */
  *#keepState(): Op<void> {
    if (!this.#changed) return;
    const entries = [`0${this.name}`, `!${this.lastJob}`];
    for (const one of this.parameters) entries.push(`p${one}`);
    for (const [name, value] of this.#values) {
      entries.push(`${this.#exported.has(name) ? 'e' : 'v'}${name}=${value}`);
    }
    const bytes = bytesOf(entries.map((one) => `${one}\0`).join(''));
    this.#state = yield* this.#put(this.#state, bytes);
    this.#changed = false;
  }

  /** Bytes in the heap, at a place that grows with them. */
  *#put(
    place: { readonly address: number; readonly room: number },
    bytes: Uint8Array,
  ): Op<{ address: number; room: number; bytes: number }> {
    let { address, room } = place;
    if (bytes.length > room) {
      room = 2 * bytes.length;
      address = yield* this.io.allocate(room);
    }
    const { port } = this.process;
    port.write(address, bytes, 0, bytes.length) ?? (yield* port.fault());
    return { address, room, bytes: bytes.length };
  }

  *#inherit(address: number, length: number): Op<void> {
    const { port } = this.process;
    const bytes = new Uint8Array(length);
    port.read(address, bytes, 0, length) ?? (yield* port.fault());
    const parameters: string[] = [];
    this.#values.clear();
    this.#exported.clear();
    for (const entry of textOf(bytes).split('\0')) {
      const rest = entry.slice(1);
      const at = rest.indexOf('=');
      const kind = entry.charAt(0);
      if (kind === '0') this.name = rest;
      else if (kind === '!') this.lastJob = Number(rest);
      else if (kind === 'p') parameters.push(rest);
      else if (kind !== '') this.#values.set(rest.slice(0, at), rest.slice(at + 1));
      if (kind === 'e') this.#exported.add(rest.slice(0, at));
    }
    this.parameters = parameters;
  }

  // ---- scripts ----------------------------------------------------------------------------------

  /** A script as a tree, or why it is none. */
  *parse(text: string): Op<Script | SyntaxProblem> {
    const { port } = this.process;
    port.work(text.length * WORK.scanByte) ?? (yield* port.fault());
    try {
      return parseScript(text);
    } catch (error) {
      if (error instanceof SyntaxProblem) return error;
      throw error;
    }
  }

  /** Runs a script, or complains; GivenUp if it makes no sense on the way. */
  *run(script: Script): Op<number> {
    const before = this.#script;
    this.#script = script;
    try {
      return yield* this.#list(script.list);
    } catch (error) {
      if (!(error instanceof SyntaxProblem) && !(error instanceof SumProblem)) throw error;
      yield* this.io.complain(error.message);
      throw new GivenUp(TROUBLE);
    } finally {
      this.#script = before;
    }
  }

  /** A script within one that runs: `eval` and the like. */
  *inner(text: string): Op<number> {
    const parsed = yield* this.parse(text);
    if (parsed instanceof SyntaxProblem) throw parsed;
    if (parsed.list.length === 0) return 0;
    return yield* this.run(parsed);
  }

  *#list(list: List): Op<number> {
    for (const item of list) {
      if (item.background) this.status = yield* this.#behind(item);
      else yield* this.#item(item);
      if (this.leaving > 0) break;
    }
    return this.status;
  }

  *#item({ pipelines }: Item): Op<void> {
    for (const pipeline of pipelines) {
      if (pipeline.when === '&&' && this.status !== 0) continue;
      if (pipeline.when === '||' && this.status === 0) continue;
      const status = yield* this.#pipeline(pipeline);
      this.status = pipeline.negated && this.leaving === 0 ? Number(status === 0) : status;
      if (this.leaving > 0) return;
    }
  }

  *#pipeline({ stages }: Pipeline): Op<number> {
    const [only] = stages;
    if (stages.length === 1 && only !== undefined) return yield* this.#command(only, false);
    return yield* this.#wait(yield* this.#start(stages));
  }

  /** A job in the background: of several pipelines, a shell of its own runs them. */
  *#behind(item: Item): Op<number> {
    const [only] = item.pipelines;
    const stages = item.pipelines.length === 1 && only?.negated === false ? only.stages : [item];
    const job = yield* this.#start(stages, true);
    if (job.left.size === 0) return TROUBLE;
    const number = this.#add(job);
    this.lastJob = job.last;
    this.#changed = true;
    if (this.group !== 0) yield* this.say(`[${number}] ${job.last}\n`);
    return 0;
  }

  // ---- commands ---------------------------------------------------------------------------------

  /** @param isLast this process has nothing else to do: a program may take its place */
  *#command(stage: Stage, isLast: boolean): Op<number> {
    const { command } = stage;
    const { port } = this.process;
    port.work(WORK.command) ?? (yield* port.fault());
    if (command.kind === 'simple') return yield* this.#simple(command, stage, isLast);
    if (command.kind === 'subshell' && !isLast)
      return yield* this.#wait(yield* this.#start([stage]));
    return yield* this.within(command.redirections, () => this.#compound(command));
  }

  *#compound(command: Command): Op<number> {
    switch (command.kind) {
      case 'group':
      case 'subshell':
        return yield* this.#list(command.body);
      case 'if':
        for (const { condition, body } of command.branches) {
          const holds = (yield* this.#list(condition)) === 0;
          if (this.leaving > 0) return this.status;
          if (holds) return yield* this.#list(body);
        }
        return command.otherwise.length === 0 ? 0 : yield* this.#list(command.otherwise);
      case 'while':
      case 'until':
        return yield* this.#loop(command.body, () => this.#goesOn(command));
      case 'for': {
        const words =
          command.words === null ? [...this.parameters] : yield* this.#words(command.words);
        return yield* this.#loop(
          command.body,
          function* (this: Shell): Op<boolean> {
            const next = words.shift();
            if (next !== undefined) this.assign(command.name, next);
            return next !== undefined;
          }.bind(this),
        );
      }
      case 'case': {
        const text = yield* expandOne(command.word, this.#meaning);
        for (const { patterns, body } of command.branches) {
          for (const pattern of patterns) {
            if (!(yield* isLike(text, pattern, this.#meaning))) continue;
            return body.length === 0 ? 0 : yield* this.#list(body);
          }
        }
        return 0;
      }
      case 'simple':
        return 0; // is none
    }
  }

  *#goesOn({ kind, condition }: Command & { readonly kind: 'while' | 'until' }): Op<boolean> {
    const status = yield* this.#list(condition);
    return (status === 0) === (kind === 'while');
  }

  *#loop(body: List, goesOn: () => Op<boolean>): Op<number> {
    let status = 0;
    this.loops++;
    while ((yield* goesOn()) && this.leaving === 0) {
      status = yield* this.#list(body);
      // A loop of nothing but built-ins hears of signals here.
      yield* this.process.poll([], 0);
      if (this.leaving === 0) continue;
      if (this.leaving > 1 || !this.again) break;
      this.leaving = 0;
    }
    if (this.leaving > 0) {
      this.leaving--;
      status = 0;
    }
    this.loops--;
    return status;
  }

  #words(words: readonly Word[]): Op<string[]> {
    return expand(words, this.#meaning);
  }

  *#simple(
    command: Command & { readonly kind: 'simple' },
    stage: Stage,
    isLast: boolean,
  ): Op<number> {
    const plain = plainName(command.words[0]);
    // A child may as well find out what its words are, if nothing comes of that here.
    const values = command.assignments.map(({ value }) => value);
    const isHarmless = [...command.words, ...values].every((word) => word.every(isInert));
    const isOurs = plain === null || Object.hasOwn(this.#builtIns, plain);
    if (!isOurs && !isLast && isHarmless) {
      return yield* this.#wait(yield* this.#start([stage]));
    }
    this.#substituted = 0;
    const words = yield* this.#words(command.words);
    const [name] = words;
    if (name === undefined || Object.hasOwn(this.#builtIns, name)) {
      return yield* this.#here(command, words);
    }
    const given: string[] = [];
    for (const value of values) given.push(yield* expandOne(value, this.#meaning));
    given.push(...words);
    if (isLast) return yield* this.#become(command, given);
    return yield* this.#wait(yield* this.#start([stage], false, given));
  }

  /** Assignments, and what is built in. */
  *#here(
    { assignments, redirections }: Command & { readonly kind: 'simple' },
    words: readonly string[],
  ): Op<number> {
    const [name = ''] = words;
    const before = assignments.map(({ name: one }) => [one, this.#values.get(one)] as const);
    for (const { name: one, value } of assignments) {
      this.assign(one, yield* expandOne(value, this.#meaning));
    }
    if (name === 'exec' && words.length > 1) {
      if (!(yield* this.#redirect(redirections))) return TROUBLE;
      return yield* this.#replace(words.slice(1), this.environment());
    }
    if (name === 'exec') return (yield* this.#redirect(redirections)) ? 0 : TROUBLE;
    const substituted = this.#substituted;
    const status = yield* this.within(
      redirections,
      function* (this: Shell): Op<number> {
        const builtIn = this.#builtIns[name];
        return builtIn === undefined ? substituted : yield* builtIn(this, words);
      }.bind(this),
    );
    if (SPECIAL.includes(name)) return status;
    // Only for as long as it took.
    for (const [one, value] of before) {
      if (value === undefined) this.unset(one);
      else this.assign(one, value);
    }
    return status;
  }

  /** Becomes the program. @param given values of the assignments, and the words */
  *#become(
    { assignments, redirections }: Command & { readonly kind: 'simple' },
    given: readonly string[],
  ): Op<number> {
    for (const [n, { name }] of assignments.entries()) {
      this.assign(name, given[n] ?? '');
      this.export(name);
    }
    if (!(yield* this.#redirect(redirections))) return TROUBLE;
    return yield* this.#replace(given.slice(assignments.length), this.environment());
  }

  *#replace(words: readonly string[], environment: readonly string[]): Op<number> {
    const [name = ''] = words;
    const error = yield* this.process.exec(name, words, environment);
    yield* this.io.complain(`${name}: ${error === Errno.ENOENT ? 'not found' : messageOf(error)}`);
    return yield* this.process.exit(error === Errno.ENOENT ? NOT_FOUND : CANNOT_RUN);
  }

  // ---- descriptors ------------------------------------------------------------------------------

  /** Runs something with redirections, and puts back what was there before. */
  *within(redirections: readonly Redirection[], body: () => Op<number>): Op<number> {
    if (redirections.length === 0) return yield* body();
    const { process } = this;
    const before = this.#aside;
    const kept: [fd: number, aside: number][] = [];
    try {
      for (const redirection of redirections) {
        if (this.#aside <= ASIDE) {
          yield* this.io.complain('too many redirections within one another');
          return TROUBLE;
        }
        const isOpen = (yield* process.dup2(redirection.fd, this.#aside - 1)) >= 0;
        if (isOpen) this.#aside--;
        kept.push([redirection.fd, isOpen ? this.#aside : NONE]);
        if (!(yield* this.#redirect([redirection]))) return TROUBLE;
      }
      return yield* body();
    } finally {
      for (const [fd, aside] of kept.reverse()) {
        if (aside === NONE) yield* process.close(fd);
        else yield* move(process, aside, fd);
      }
      this.#aside = before;
    }
  }

  /** Makes redirections; false after a complaint. */
  *#redirect(redirections: readonly Redirection[]): Op<boolean> {
    for (const redirection of redirections) {
      const fd = yield* this.#open(redirection);
      if (fd < 0) return false;
      if (redirection.direction !== '>&') yield* move(this.process, fd, redirection.fd);
      else if ((yield* this.process.dup2(fd, redirection.fd)) < 0) {
        yield* this.io.complain(`${fd}: ${messageOf(Errno.EBADF)}`);
        return false;
      }
    }
    return true;
  }

  /** The descriptor that a redirection leads to; complains if there is none. */
  *#open({ direction, target }: Redirection): Op<number> {
    const text = yield* expandOne(target, this.#meaning);
    if (direction === '>&') return Number(text);
    if (direction === '<<') return yield* this.#document(text);
    const how = direction === '>>' ? O_APPEND : O_TRUNCATE;
    const flags = direction === '<' ? O_READ : O_WRITE | O_CREATE | how;
    const opened = yield* this.process.open(text, flags);
    if (opened < 0) yield* this.io.failed(text, opened);
    return opened;
  }

  /** A pipe that holds a here-document. */
  *#document(text: string): Op<number> {
    if (text.length > DOCUMENT_MAX) {
      yield* this.io.complain(`more than ${DOCUMENT_MAX} bytes behind <<: use a file`);
      return NONE;
    }
    const pipe = yield* this.process.pipe();
    if (typeof pipe === 'number') {
      yield* this.io.complain(`cannot make a pipe: ${messageOf(pipe)}`);
      return NONE;
    }
    this.#record = yield* this.#put(this.#record, bytesOf(text));
    yield* this.process.write(pipe[1], this.#record.address, text.length);
    yield* this.process.close(pipe[1]);
    return pipe[0];
  }

  *say(text: string): Op<void> {
    yield* this.io.out.text(text);
    yield* this.io.out.flush();
  }

  // ---- children ---------------------------------------------------------------------------------

  /** Forks a child that goes on at `stage`; its pid, or an error. */
  *#fork(errand: Errand): Op<number> {
    yield* this.#keepState();
    const { text, given = [], input = NONE, output = NONE, spare = NONE } = errand;
    const expanded = given.map((word) => `${word}\0`).join('');
    const header = Int32Array.of(
      ...[text.length, expanded.length, input, output, spare],
      ...[this.#state.address, this.#state.bytes, this.status, Number(this.group !== 0)],
      ...[this.#aside, Number(errand.isQuiet === true), this.loops],
    );
    const bytes = new Uint8Array(RECORD + text.length + expanded.length);
    bytes.set(new Uint8Array(header.buffer));
    bytes.set(bytesOf(text + expanded), RECORD);
    this.#record = yield* this.#put(this.#record, bytes);
    return yield* this.process.fork(STAGE, this.#record.address);
  }

  /** Starts the stages of a pipeline; those that could be. */
  *#start(stages: readonly (Stage | Item)[], isBehind = false, given?: readonly string[]): Op<Job> {
    const { process, io } = this;
    const left = new Set<number>();
    let group = 0;
    let [input, last] = [NONE, NONE];
    for (const [n, stage] of stages.entries()) {
      const pipe = n + 1 < stages.length ? yield* process.pipe() : ([NONE, NONE] as const);
      if (typeof pipe === 'number') {
        yield* io.complain(`cannot make a pipe: ${messageOf(pipe)}`);
        last = NONE;
        break;
      }
      const errand = { text: this.#script.textOf(stage), input, output: pipe[1], spare: pipe[0] };
      const isQuiet = isBehind && n === 0 && this.group === 0;
      last = yield* this.#fork({ ...errand, isQuiet, ...(given === undefined ? {} : { given }) });
      if (input !== NONE) yield* process.close(input);
      if (pipe[1] !== NONE) yield* process.close(pipe[1]);
      input = pipe[0];
      if (last < 0) {
        yield* io.complain(`cannot fork: ${messageOf(last)}`);
        break;
      }
      left.add(last);
      if (this.group !== 0) {
        group = group === 0 ? last : group;
        yield* process.setGroup(last, group);
      }
    }
    if (last < 0 && input !== NONE) yield* process.close(input);
    const [from, to] = [stages[0]?.start ?? 0, stages.at(-1)?.end ?? 0];
    const text = this.#script.textOf({ start: from, end: to }).split('\n')[0] ?? '';
    return { text, group, last, left, stopped: false };
  }

  /** What commands print; their exit status is kept. */
  *#output(commands: string): Op<string> {
    const { process } = this;
    const pipe = yield* process.pipe();
    if (typeof pipe === 'number') {
      yield* this.io.complain(`cannot make a pipe: ${messageOf(pipe)}`);
      throw new GivenUp(TROUBLE);
    }
    const pid = yield* this.#fork({ text: commands, output: pipe[1], spare: pipe[0] });
    yield* process.close(pipe[1]);
    let text = '';
    if (pid < 0) yield* this.io.complain(`cannot fork: ${messageOf(pid)}`);
    else {
      yield* this.io.forEachChunk(pipe[0], function* (bytes) {
        text += textOf(bytes);
      });
    }
    yield* process.close(pipe[0]);
    this.#substituted = pid < 0 ? TROUBLE : yield* this.waitFor(new Set([pid]), pid);
    return text.replace(/\n+$/, '').replaceAll('\0', '');
  }

  // ---- lines ------------------------------------------------------------------------------------

  /**
   * A line with its newline, and not a byte more than that: what is left is for others. Without a
   * newline the input has ended, or it is late.
   * @param until cycle count
   */
  *line(fd: number, until: number): Op<{ readonly text: string; readonly late: boolean }> {
    const { process } = this;
    if (this.#line === 0) this.#line = yield* this.io.allocate(LINE);
    // Of a file what was too much is given back; all else comes byte by byte.
    const most = (yield* process.seek(fd, 0, 'here')) >= 0 ? LINE : 1;
    let text = '';
    while (!text.endsWith('\n')) {
      if (until !== Infinity) {
        const left = Math.max(0, until - process.port.cycles());
        const found = yield* process.poll([{ fd, events: Poll.IN }], left);
        if (typeof found !== 'number' && found[0] === 0) return { text, late: true };
      }
      const got = yield* process.read(fd, this.#line, most);
      if (got === Errno.EINTR) continue;
      if (got <= 0) break;
      const bytes = new Uint8Array(got);
      process.port.read(this.#line, bytes, 0, got) ?? (yield* process.port.fault());
      const part = textOf(bytes);
      const end = part.indexOf('\n') + 1;
      if (end > 0 && end < got) yield* process.seek(fd, end - got, 'here');
      text += end > 0 ? part.slice(0, end) : part;
    }
    return { text, late: false };
  }
  #line = 0; // address

  // ---- jobs -------------------------------------------------------------------------------------

  #add(job: Job): number {
    let number = 1;
    while (this.jobs.has(number)) number++;
    this.jobs.set(number, job);
    return number;
  }

  /** Waits for a job that ^C is for meanwhile; it may stop instead of ending. */
  *#wait(job: Job): Op<number> {
    const { process } = this;
    if (this.group === 0) return yield* this.waitFor(job.left, job.last);
    yield* process.setForeground(job.group);
    const status = yield* this.waitFor(job.left, job.last);
    yield* process.setForeground(this.group);
    if (status >= STOPPED) {
      job.stopped = true;
      yield* this.say(`\n[${this.#add(job)}] Stopped ${job.text}\n`);
      return SIGNALLED + (status & 0x7f);
    }
    // Who typed ^C meant all of the line.
    if (status === INTERRUPTED) throw new GivenUp(status);
    return status;
  }

  /** Has a job in the foreground. */
  foreground(job: Job): Op<number> {
    return this.#wait(job);
  }

  /** Waits for children; the exit status of `last`, or STOPPED and a signal. */
  *waitFor(children: Set<number>, last: number): Op<number> {
    let status = TROUBLE;
    while (children.size > 0) {
      const ended = yield* this.process.wait({ stopped: this.group !== 0 });
      if (ended === Errno.EINTR) continue;
      if (typeof ended === 'number') break;
      const [pid, how] = ended;
      if (how >= STOPPED) {
        if (children.has(pid)) return how;
        continue;
      }
      this.#forget(pid, how & 0xff);
      children.delete(pid);
      if (pid === last) status = how & 0xff;
    }
    return status;
  }

  /** Exit statuses of jobs that have ended, for who waits for them later. */
  readonly ended = new Map<number, number>();

  /** A process has ended: a job without processes is done. */
  #forget(pid: number, status: number): void {
    for (const [number, { left, last }] of this.jobs) {
      if (pid === last) this.ended.set(pid, status);
      if (left.delete(pid) && left.size === 0) this.jobs.delete(number);
    }
  }

  /** Those that have ended since somebody looked. */
  *gather(): Op<void> {
    for (;;) {
      const ended = yield* this.process.wait({ noHang: true });
      if (typeof ended === 'number' || ended[0] === 0) return;
      this.#forget(ended[0], ended[1] & 0xff);
    }
  }

  // ---- the child --------------------------------------------------------------------------------

  /** Connects pipes and runs the command that the record tells of; its exit status. */
  *errand(record: number): Op<number> {
    const { process, io } = this;
    const { port } = process;
    const words: number[] = [];
    for (let at = 0; at < RECORD; at += 4) words.push(yield* port.load(record + at));
    const [length = 0, expanded = 0, input = NONE, output = NONE, spare = NONE] = words;
    const [state = 0, bytes = 0, status = 0, isJob = 0, aside = OPEN_MAX] = words.slice(5);
    const text = new Uint8Array(length + expanded);
    port.read(record + RECORD, text, 0, text.length) ?? (yield* port.fault());
    yield* this.#inherit(state, bytes);
    this.status = status;
    this.loops = words[11] ?? 0;
    for (let fd = aside; fd < OPEN_MAX; fd++) yield* process.close(fd);
    if (spare !== NONE) yield* process.close(spare);
    if (input !== NONE) yield* move(process, input, STDIN);
    else if (words[10] === 1) {
      const nothing = yield* process.open('/dev/null', O_READ);
      if (nothing >= 0) yield* move(process, nothing, STDIN);
    }
    if (output !== NONE) yield* move(process, output, STDOUT);
    if (isJob !== 0) {
      yield* process.handle(Signal.INT, 'default');
      yield* process.handle(Signal.TSTP, 'default');
    }
    const parsed = yield* this.parse(textOf(text, 0, length));
    if (parsed instanceof SyntaxProblem) return yield* io.die(parsed.message);
    this.#script = parsed;
    const given = textOf(text, length).split('\0').slice(0, -1);
    try {
      const [item] = parsed.list;
      const stages = item?.pipelines.length === 1 ? (item.pipelines[0]?.stages ?? []) : [];
      const [only] = stages;
      const alone = parsed.list.length === 1 && stages.length === 1;
      if (only === undefined || !alone || item?.pipelines[0]?.negated !== false) {
        return yield* this.run(parsed);
      }
      if (given.length > 0 && only.command.kind === 'simple') {
        return yield* this.#become(only.command, given);
      }
      return yield* this.#command(only, true);
    } catch (error) {
      if (error instanceof GivenUp) return error.status;
      if (!(error instanceof SyntaxProblem) && !(error instanceof SumProblem)) throw error;
      return yield* io.die(error.message);
    }
  }
}

/** The name of a command, if it needs no looking. */
function plainName(word: Word | undefined): string | null {
  const [piece] = word ?? [];
  const isPlain = word?.length === 1 && piece?.kind === 'text' && !piece.quoted;
  return isPlain && !/[*?[]/.test(piece.text) ? piece.text : null;
}

/** Whether expanding it neither changes a variable nor can go wrong. */
const isInert = ({ kind, how }: Piece): boolean =>
  kind === 'text' || (kind === 'variable' && how === undefined);

function* move(process: Process, from: number, to: number): Op<void> {
  if (from === to) return;
  yield* process.dup2(from, to);
  yield* process.close(from);
}
