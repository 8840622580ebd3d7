/**
 * pwd: the working directory, found by its number: in each directory above, the name that has the
 * number of the one below.
 */
import type { Op } from '../../syscalls.ts';
import type { Process, Program } from '../process.ts';
import { Io, messageOf } from './io.ts';

const DEPTH_MAX = 1000; // of a tree that goes round there is no end

/** The name that directory `below` has in the one above it; '' of the topmost, or an error. */
function* nameOf(process: Process, below: string): Op<string | number> {
  const own = yield* process.stat(below);
  if (typeof own === 'number') return own;
  const names = yield* process.readdir(`${below}/..`);
  if (typeof names === 'number') return names;
  const above = yield* process.stat(`${below}/..`);
  if (typeof above === 'number' || above.inode === own.inode) return '';
  for (const name of names) {
    const stat = yield* process.stat(`${below}/../${name}`);
    if (typeof stat !== 'number' && stat.inode === own.inode) return name;
  }
  return '';
}

export const pwd: Program = {
  name: 'pwd',
  *main(process) {
    const io = new Io(process);
    let path = '';
    let below = '.';
    for (let depth = 0; depth < DEPTH_MAX; depth++) {
      const name = yield* nameOf(process, below);
      if (typeof name === 'number') return yield* io.die(messageOf(name));
      if (name === '') break;
      path = `/${name}${path}`;
      below += '/..';
    }
    yield* io.out.text(`${path === '' ? '/' : path}\n`);
    return yield* io.end();
  },
};
