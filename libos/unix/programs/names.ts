/** Programs that change names and modes: mv, ln, rm, rmdir, mkdir, touch, chmod. */
import type { Op } from '../../syscalls.ts';
import { Errno, O_CREATE, O_WRITE, type Process, type Program } from '../process.ts';
import { join, lastName } from './bytes.ts';
import { Io, messageOf } from './io.ts';
import { type Options, parseOptions } from './options.ts';

/** A program of options and operands, of which it needs some. */
function program(
  name: string,
  known: string,
  least: number,
  act: (io: Io, options: Options) => Op<void>,
): Program {
  return {
    name,
    *main(process) {
      const io = new Io(process);
      const options = yield* parseOptions(io, known);
      if (options.operands.length < least) yield* io.die('missing operand');
      yield* act(io, options);
      return yield* io.end();
    },
  };
}

/** `name SOURCE TARGET`, or `name SOURCE.. DIRECTORY`: `act` gets each source and its new name. */
function* eachTarget(
  io: Io,
  operands: readonly string[],
  act: (from: string, to: string) => Op<void>,
): Op<void> {
  const target = operands.at(-1) ?? '';
  const sources = operands.slice(0, -1);
  const stat = yield* io.process.stat(target);
  const into = typeof stat !== 'number' && stat.directory;
  if (!into && sources.length > 1) yield* io.die(`target '${target}': Not a directory`);
  for (const from of sources) yield* act(from, into ? join(target, lastName(from)) : target);
}

export const mv = program('mv', 'f', 2, function* (io, { operands }) {
  yield* eachTarget(io, operands, function* (from, to) {
    const error = yield* io.process.rename(from, to);
    if (error < 0) yield* io.complain(`cannot move '${from}' to '${to}': ${messageOf(error)}`);
  });
});

export const ln = program('ln', 'f', 2, function* (io, { flags, operands }) {
  yield* eachTarget(io, operands, function* (from, to) {
    if (flags.has('f')) yield* io.process.unlink(to, 'file');
    const error = yield* io.process.link(from, to);
    if (error < 0) yield* io.complain(`failed to create hard link '${to}': ${messageOf(error)}`);
  });
});

export const rm = program('rm', 'rRf', 0, function* (io, { flags, operands }) {
  const force = flags.has('f');
  if (operands.length === 0 && !force) yield* io.die('missing operand');
  for (const path of operands) {
    if (/^(.*\/)?\.\.?\/*$/.test(path)) {
      yield* io.complain(`refusing to remove '.' or '..' directory: skipping '${path}'`);
    } else yield* remove(io, path, flags.has('r') || flags.has('R'), force);
  }
});

function* remove(io: Io, path: string, recursive: boolean, force: boolean): Op<void> {
  const { process } = io;
  const stat = yield* process.stat(path);
  if (stat === Errno.ENOENT && force) return;
  let error = typeof stat === 'number' ? stat : 0;
  if (typeof stat !== 'number') {
    if (stat.directory && !recursive) error = Errno.EISDIR;
    else if (stat.directory) {
      const names = yield* process.readdir(path);
      if (typeof names === 'number') error = names;
      else for (const name of names) yield* remove(io, join(path, name), true, force);
    }
    if (error === 0) error = yield* process.unlink(path, stat.directory ? 'directory' : 'file');
  }
  if (error < 0) yield* io.complain(`cannot remove '${path}': ${messageOf(error)}`);
}

export const rmdir = program('rmdir', '', 1, function* (io, { operands }) {
  for (const path of operands) {
    const error = yield* io.process.unlink(path, 'directory');
    if (error < 0) yield* io.complain(`failed to remove '${path}': ${messageOf(error)}`);
  }
});

export const mkdir = program('mkdir', 'p', 1, function* (io, { flags, operands }) {
  const { process } = io;
  for (const path of operands) {
    let error = 0;
    const parents = flags.has('p') ? parentsOf(path) : [];
    for (const parent of parents) error = yield* makeUnlessThere(process, parent);
    if (error >= 0) {
      error = flags.has('p') ? yield* makeUnlessThere(process, path) : yield* process.mkdir(path);
    }
    if (error < 0) yield* io.complain(`cannot create directory '${path}': ${messageOf(error)}`);
  }
});

/** `a` and `a/b` of `a/b/c`. */
function parentsOf(path: string): string[] {
  const parents: string[] = [];
  for (let at = path.indexOf('/', 1); at > 0; at = path.indexOf('/', at + 1)) {
    parents.push(path.slice(0, at));
  }
  return parents;
}

function* makeUnlessThere(process: Process, path: string): Op<number> {
  const error = yield* process.mkdir(path);
  if (error !== Errno.EEXIST) return error;
  const stat = yield* process.stat(path);
  return typeof stat !== 'number' && stat.directory ? 0 : Errno.EEXIST;
}

export const touch = program('touch', 'c', 1, function* (io, { flags, operands }) {
  for (const path of operands) {
    const stat = yield* io.process.stat(path);
    if (stat === Errno.ENOENT && flags.has('c')) continue;
    if (typeof stat !== 'number') continue; // files have no times
    const fd = yield* io.process.open(path, O_WRITE | O_CREATE);
    if (fd < 0) yield* io.complain(`cannot touch '${path}': ${messageOf(fd)}`);
    else yield* io.process.close(fd);
  }
});

export const chmod = program('chmod', '', 2, function* (io, { operands }) {
  const [mode = '', ...paths] = operands;
  for (const path of paths) {
    const stat = yield* io.process.stat(path);
    if (typeof stat === 'number') {
      yield* io.complain(`cannot access '${path}': ${messageOf(stat)}`);
      continue;
    }
    const wanted = changed(stat.mode, mode);
    if (wanted === null) yield* io.die(`invalid mode: '${mode}'`);
    const error = yield* io.process.chmod(path, wanted ?? 0);
    if (error < 0) yield* io.complain(`changing permissions of '${path}': ${messageOf(error)}`);
  }
});

const WHO: Readonly<Record<string, number>> = { u: 0o700, g: 0o070, o: 0o007, a: 0o777 };
const BITS: Readonly<Record<string, number>> = { r: 0o444, w: 0o222, x: 0o111 };

/** A mode after a change: `644`, or clauses as `u+w,go-rx`; null if it makes no sense. */
function changed(mode: number, text: string): number | null {
  if (/^[0-7]{1,4}$/.test(text)) {
    const wanted = parseInt(text, 8);
    return wanted <= 0o777 ? wanted : null;
  }
  let result = mode;
  for (const clause of text.split(',')) {
    const parts = /^([ugoa]*)([-+=])([rwx]*)$/.exec(clause);
    if (parts === null) return null;
    const [, who = '', how, which = ''] = parts;
    const mask = [...(who === '' ? 'a' : who)].reduce((all, one) => all | (WHO[one] ?? 0), 0);
    const bits = mask & [...which].reduce((all, one) => all | (BITS[one] ?? 0), 0);
    if (how === '+') result |= bits;
    else if (how === '-') result &= ~bits;
    else result = (result & ~mask) | bits;
  }
  return result;
}
