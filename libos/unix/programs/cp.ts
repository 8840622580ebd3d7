/**
 * cp: `cp FILE FILE`, `cp FILE.. DIRECTORY`, `cp -r SOURCE TARGET`. Data streams through one
 * buffer. As everywhere, into a directory that exists, and onto a name that does not.
 */
import type { Op } from '../../syscalls.ts';
import { Errno, O_CREATE, O_READ, O_TRUNCATE, O_WRITE, type Program } from '../process.ts';
import { join, lastName } from './bytes.ts';
import { Io, messageOf } from './io.ts';
import { parseOptions } from './options.ts';

export const cp: Program = {
  name: 'cp',
  *main(process) {
    const io = new Io(process);
    const { flags, operands } = yield* parseOptions(io, 'rR');
    const target = operands.at(-1);
    const sources = operands.slice(0, -1);
    if (target === undefined || sources.length === 0) return yield* io.die('missing file operand');
    const stat = yield* process.stat(target);
    const into = typeof stat !== 'number' && stat.directory;
    if (!into && sources.length > 1) return yield* io.die(`target '${target}': Not a directory`);
    const copy = new Copy(io, flags.has('r') || flags.has('R'));
    for (const source of sources) {
      yield* copy.any(source, into ? join(target, lastName(source)) : target);
    }
    return io.status;
  },
};

class Copy {
  readonly #io: Io;
  readonly #recursive: boolean;
  #top = -1; // inode of the directory made first: not to be copied into itself

  constructor(io: Io, recursive: boolean) {
    this.#io = io;
    this.#recursive = recursive;
  }

  *any(from: string, to: string): Op<void> {
    const io = this.#io;
    const stat = yield* io.process.stat(from);
    if (typeof stat === 'number') {
      return yield* io.complain(`cannot stat '${from}': ${messageOf(stat)}`);
    }
    const there = yield* io.process.stat(to);
    if (stat.directory) {
      if (!this.#recursive) {
        return yield* io.complain(`-r not specified; omitting directory '${from}'`);
      }
      return yield* this.#directory(from, to, stat.inode);
    }
    if (typeof there !== 'number') {
      if (there.inode === stat.inode) {
        return yield* io.complain(`'${from}' and '${to}' are the same file`);
      }
      if (there.directory) {
        return yield* io.complain(`cannot overwrite directory '${to}' with non-directory`);
      }
    }
    yield* this.#file(from, to);
  }

  *#file(from: string, to: string): Op<void> {
    const io = this.#io;
    const { process } = io;
    const source = yield* process.open(from, O_READ);
    if (source < 0) {
      return yield* io.complain(`cannot open '${from}' for reading: ${messageOf(source)}`);
    }
    const target = yield* process.open(to, O_WRITE | O_CREATE | O_TRUNCATE);
    if (target < 0) {
      yield* io.complain(`cannot create regular file '${to}': ${messageOf(target)}`);
    } else {
      const { read, written } = yield* io.pour(source, target);
      if (read < 0) yield* io.complain(`error reading '${from}': ${messageOf(read)}`);
      if (written < 0) yield* io.complain(`error writing '${to}': ${messageOf(written)}`);
      const closed = yield* process.close(target);
      if (closed < 0) yield* io.complain(`failed to close '${to}': ${messageOf(closed)}`);
    }
    yield* process.close(source);
  }

  *#directory(from: string, to: string, inode: number): Op<void> {
    const io = this.#io;
    const { process } = io;
    if (inode === this.#top) {
      return yield* io.complain(`cannot copy a directory, '${from}', into itself`);
    }
    const names = yield* process.readdir(from);
    if (typeof names === 'number') {
      return yield* io.complain(`cannot access '${from}': ${messageOf(names)}`);
    }
    const made = yield* process.mkdir(to);
    const stat = yield* process.stat(to);
    if (typeof stat === 'number' || (made < 0 && made !== Errno.EEXIST)) {
      return yield* io.complain(`cannot create directory '${to}': ${messageOf(made)}`);
    }
    if (!stat.directory) {
      return yield* io.complain(`cannot overwrite non-directory '${to}' with directory '${from}'`);
    }
    if (this.#top < 0) this.#top = stat.inode;
    for (const name of names) yield* this.any(join(from, name), join(to, name));
  }
}
