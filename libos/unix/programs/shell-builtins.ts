/** What a shell does itself, since it is about the shell: its variables, its jobs, its loops. */
import type { Op } from '../../syscalls.ts';
import { O_READ, Signal, STDIN } from '../process.ts';
import { textOf } from './bytes.ts';
import { messageOf } from './io.ts';
import { killOperands } from './kill.ts';
import { type BuiltIn, GivenUp, type Job, type Shell } from './shell.ts';
import { cyclesOf } from './sleep.ts';

const TROUBLE = 2;
const NOT_FOUND = 127;
const TIMED_OUT = 142; // of read: as if SIGALRM had ended it
const NAME = /^[A-Za-z_][A-Za-z_0-9]*$/;
const NONE = -1;

/** By name: the exit status, of words of which the first is the name. */
export const BUILT_INS: Readonly<Record<string, BuiltIn>> = {
  *':'() {
    return 0;
  },

  *cd({ io, process }, [, path = '/']) {
    const error = yield* process.chdir(path);
    if (error >= 0) return 0;
    yield* io.complain(`cd: ${path}: ${messageOf(error)}`);
    return TROUBLE;
  },

  *exit({ io, process, status }, [, operand]) {
    const wanted = operand === undefined ? status : Number(operand);
    if (!Number.isInteger(wanted)) yield* io.die(`exit: ${operand ?? ''}: bad number`);
    return yield* process.exit(wanted & 0xff);
  },

  // In front of redirections and programs it is the shell's own affair.
  *exec() {
    return 0;
  },

  *eval(shell, words) {
    return yield* shell.inner(words.slice(1).join(' '));
  },

  *'.'(shell, [, path]) {
    const { io, process } = shell;
    if (path === undefined) return yield* givesUp(shell, '.: needs a file');
    const fd = yield* process.open(path, O_READ);
    if (fd < 0) return yield* givesUp(shell, `.: ${path}: ${messageOf(fd)}`);
    let text = '';
    yield* io.forEachChunk(fd, function* (bytes) {
      text += textOf(bytes);
    });
    yield* process.close(fd);
    return yield* shell.inner(text);
  },

  // ---- variables --------------------------------------------------------------------------------

  *export(shell, words) {
    const operands = words.slice(words[1] === '-p' ? 2 : 1);
    if (operands.length === 0) return yield* list(shell, true);
    for (const operand of operands) {
      const [name = ''] = operand.split('=', 1);
      if (!NAME.test(name)) return yield* givesUp(shell, `export: ${name}: bad variable name`);
      if (operand.length > name.length) shell.assign(name, operand.slice(name.length + 1));
      shell.export(name);
    }
    return 0;
  },

  *unset(shell, words) {
    for (const name of words.slice(1)) {
      if (!NAME.test(name)) return yield* givesUp(shell, `unset: ${name}: bad variable name`);
      shell.unset(name);
    }
    return 0;
  },

  *set(shell, words) {
    const [, first] = words;
    if (first === undefined) return yield* list(shell, false);
    if (/^[-+]./.test(first) && first !== '--') {
      return yield* givesUp(shell, `set: ${first}: unsupported`);
    }
    shell.setParameters(words.slice(first === '--' ? 2 : 1));
    return 0;
  },

  *shift(shell, [, operand = '1']) {
    const count = /^[0-9]+$/.test(operand) ? Number(operand) : NaN;
    if (!(count <= shell.parameters.length)) {
      return yield* givesUp(shell, `shift: ${operand}: cannot shift so many`);
    }
    shell.setParameters(shell.parameters.slice(count));
    return 0;
  },

  *read(shell, words) {
    let [raw, cycles, at] = [false, Infinity, 1];
    for (; words[at]?.startsWith('-') === true; at++) {
      if (words[at] === '-r') raw = true;
      else if (words[at] === '-t') cycles = cyclesOf(words[++at] ?? '') ?? NaN;
      else return yield* fails(shell, `read: ${words[at] ?? ''}: unsupported`);
    }
    const names = words.slice(at);
    if (Number.isNaN(cycles)) return yield* fails(shell, 'read: -t needs a time in seconds');
    if (names.length === 0 || !names.every((name) => NAME.test(name))) {
      return yield* fails(shell, 'read: needs names of variables');
    }
    return yield* read(shell, names, raw, shell.process.port.cycles() + cycles);
  },

  // ---- loops ------------------------------------------------------------------------------------

  break: (shell, words) => leave(shell, words, false),
  continue: (shell, words) => leave(shell, words, true),

  // ---- jobs -------------------------------------------------------------------------------------

  *wait(shell, [, operand]) {
    if (operand === undefined) {
      yield* shell.waitFor(new Set([NONE]), NONE); // until there is no child
      shell.jobs.clear();
      return 0;
    }
    const known = operand.startsWith('%') ? yield* job(shell, 'wait', operand) : null;
    const pid = known === null ? Number(operand) : known[1].last;
    const before = shell.ended.get(pid);
    if (before !== undefined) return before;
    const isOurs = [...shell.jobs.values()].some(({ left }) => left.has(pid));
    return isOurs ? yield* shell.waitFor(new Set([pid]), pid) : NOT_FOUND;
  },

  *jobs(shell) {
    yield* shell.gather();
    for (const [number, { text, stopped }] of shell.jobs) {
      yield* shell.say(`[${number}] ${stopped ? 'Stopped' : 'Running'} ${text}\n`);
    }
    return 0;
  },

  fg: (shell, [, operand]) => goOn(shell, 'fg', operand),
  bg: (shell, [, operand]) => goOn(shell, 'bg', operand),

  /** `kill [-SIGNAL] PID|%JOB..` */
  *kill(shell, words) {
    const { io, process } = shell;
    const { signal, targets } = killOperands(words.slice(1));
    if (signal < 0) return yield* fails(shell, `kill: ${words[1] ?? ''}: invalid signal`, 1);
    let status = targets.length > 0 ? 0 : 2;
    for (const target of targets) {
      let pid = Number(target);
      let stopped = false;
      if (target.startsWith('%')) {
        const found = yield* job(shell, 'kill', target);
        if (found === null) return 1;
        pid = found[1].group === 0 ? found[1].last : -found[1].group;
        ({ stopped } = found[1]);
      }
      const error = yield* process.kill(pid, signal);
      // A stopped job is to hear of it now.
      if (error >= 0 && stopped) yield* process.kill(pid, Signal.CONT);
      if (error >= 0) continue;
      yield* io.complain(`kill: ${target}: ${messageOf(error)}`);
      status = 1;
    }
    return status;
  },
};

/** A script that uses what is special so wrongly is not to go on. */
function* givesUp({ io }: Shell, text: string): Op<number> {
  yield* io.complain(text);
  throw new GivenUp(TROUBLE);
}

function* fails({ io }: Shell, text: string, status = TROUBLE): Op<number> {
  yield* io.complain(text);
  return status;
}

/** Variables as a script would set them. */
function* list(shell: Shell, exported: boolean): Op<number> {
  for (const [name, value] of shell.variables(exported)) {
    const quoted = `'${value.replaceAll("'", `'"'"'`)}'`;
    yield* shell.io.out.text(`${exported ? 'export ' : ''}${name}=${quoted}\n`);
  }
  yield* shell.io.out.flush();
  return 0;
}

function* leave(
  shell: Shell,
  [name = '', operand = '1']: readonly string[],
  again: boolean,
): Op<number> {
  const levels = /^[1-9][0-9]*$/.test(operand) ? Number(operand) : 0;
  if (levels === 0) return yield* givesUp(shell, `${name}: ${operand}: bad number`);
  shell.leaving = Math.min(levels, shell.loops);
  shell.again = again;
  return 0;
}

/** The job that `%n`, or nothing, means; null after a complaint. */
function* job(shell: Shell, name: string, text = ''): Op<readonly [number, Job] | null> {
  const { jobs, io } = shell;
  const number = text === '' ? [...jobs.keys()].at(-1) : Number(text.replace(/^%/, ''));
  const found = jobs.get(number ?? 0);
  if (found !== undefined) return [number ?? 0, found];
  yield* io.complain(`${name}: ${text === '' ? 'no current job' : `no job ${text}`}`);
  return null;
}

function* goOn(shell: Shell, how: 'fg' | 'bg', operand?: string): Op<number> {
  const found = yield* job(shell, how, operand);
  if (found === null) return 1;
  const [number, one] = found;
  one.stopped = false;
  if (one.group !== 0) yield* shell.process.kill(-one.group, Signal.CONT);
  if (how === 'bg') return 0;
  shell.jobs.delete(number);
  yield* shell.say(`${one.text}\n`);
  return yield* shell.foreground(one);
}

// ---- read ---------------------------------------------------------------------------------------

/** A line into variables: split at blanks, what is left into the last. */
function* read(shell: Shell, names: readonly string[], raw: boolean, until: number): Op<number> {
  const letters: { readonly text: string; readonly quoted: boolean }[] = [];
  let status = 0;
  for (let more = true; more && status === 0;) {
    more = false;
    const line = yield* shell.line(STDIN, until);
    if (!line.text.endsWith('\n')) status = line.late ? TIMED_OUT : 1;
    const text = line.text.replace(/\n$/, '');
    for (let at = 0; at < text.length; at++) {
      const quoted = !raw && text.charAt(at) === '\\';
      if (quoted && at + 1 === text.length) more = true;
      else letters.push({ text: text.charAt(quoted ? ++at : at), quoted });
    }
  }
  const isBlank = (at: number): boolean => {
    const letter = letters[at];
    return letter !== undefined && !letter.quoted && ' \t'.includes(letter.text);
  };
  let at = 0;
  for (const [n, name] of names.entries()) {
    while (isBlank(at)) at++;
    let end = at;
    if (n + 1 < names.length) while (end < letters.length && !isBlank(end)) end++;
    else for (end = letters.length; end > at && isBlank(end - 1);) end--;
    shell.assign(
      name,
      letters
        .slice(at, end)
        .map(({ text }) => text)
        .join(''),
    );
    at = end;
  }
  return status;
}
