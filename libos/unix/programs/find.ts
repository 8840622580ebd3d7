/**
 * find: `find [PATH..] [-type f|d] [-print|-print0]`: everything beneath each path, a directory
 * before what it holds, in the order of the directory.
 */
import type { Op } from '../../syscalls.ts';
import { type Program } from '../process.ts';
import { WORK } from '../work.ts';
import { join } from './bytes.ts';
import { Io, messageOf } from './io.ts';

export const find: Program = {
  name: 'find',
  *main(process) {
    const io = new Io(process);
    const args = process.args.slice(1);
    const tests = args.findIndex((arg) => arg.startsWith('-'));
    const paths = tests < 0 ? args : args.slice(0, tests);
    const rest = tests < 0 ? [] : args.slice(tests);
    let type = '';
    let end = '\n';
    for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
      if (word === '-type') type = rest.shift() ?? '';
      else if (word === '-print0') end = '\0';
      else if (word !== '-print') return yield* io.die(`unknown predicate '${word}'`);
      if (!['', 'f', 'd'].includes(type)) return yield* io.die(`unknown type '${type}'`);
    }
    const visit = function* (path: string): Op<void> {
      const stat = yield* process.stat(path);
      if (typeof stat === 'number') return yield* io.complain(`'${path}': ${messageOf(stat)}`);
      if (type === '' || (type === 'd') === stat.directory) {
        io.port.work(WORK.formatLine) ?? (yield* io.port.fault());
        yield* io.out.text(path + end);
      }
      if (!stat.directory) return;
      const names = yield* process.readdir(path);
      if (typeof names === 'number') return yield* io.complain(`'${path}': ${messageOf(names)}`);
      for (const name of names) yield* visit(join(path, name));
    };
    for (const path of paths.length === 0 ? ['.'] : paths) yield* visit(path);
    return yield* io.end();
  },
};
