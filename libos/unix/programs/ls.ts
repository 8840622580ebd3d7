/** ls: names in byte order, one per line. -A those that begin with a dot too; -1 is understood. */
import type { Op } from '../../syscalls.ts';
import { type Program } from '../process.ts';
import { WORK } from '../work.ts';
import { Io, messageOf } from './io.ts';
import { mergeSort } from './merge-sort.ts';
import { parseOptions } from './options.ts';

const TROUBLE = 2;

export const ls: Program = {
  name: 'ls',
  *main(process) {
    const io = new Io(process, TROUBLE);
    const { flags, operands } = yield* parseOptions(io, '1A');
    const files: string[] = [];
    const directories: string[] = [];
    for (const path of operands.length === 0 ? ['.'] : operands) {
      const stat = yield* process.stat(path);
      if (typeof stat === 'number') {
        yield* io.complain(`cannot access '${path}': ${messageOf(stat)}`);
      } else (stat.directory ? directories : files).push(path);
    }
    yield* printSorted(io, files);
    for (const [n, path] of (yield* sortNames(io, directories)).entries()) {
      const names = yield* process.readdir(path);
      if (typeof names === 'number') {
        yield* io.failed(path, names);
        continue;
      }
      if (n > 0 || files.length > 0) yield* io.out.text('\n');
      if (operands.length > 1) yield* io.out.text(`${path}:\n`);
      yield* printSorted(
        io,
        names.filter((name) => flags.has('A') || !name.startsWith('.')),
      );
    }
    return yield* io.end();
  },
};

function* printSorted(io: Io, names: readonly string[]): Op<void> {
  for (const name of yield* sortNames(io, names)) {
    io.port.work(WORK.formatLine) ?? (yield* io.port.fault());
    yield* io.out.text(`${name}\n`);
  }
}

function* sortNames(io: Io, names: readonly string[]): Op<readonly string[]> {
  const name = (n: number): string => names[n] ?? '';
  let looked = 0;
  const { order, comparisons } = mergeSort(names.length, (a, b) => {
    looked += Math.min(name(a).length, name(b).length);
    return name(a) < name(b) ? -1 : Number(name(a) > name(b));
  });
  const cycles = comparisons * WORK.compare + looked * WORK.compareByte;
  io.port.work(cycles) ?? (yield* io.port.fault());
  return Array.from(order, name);
}
