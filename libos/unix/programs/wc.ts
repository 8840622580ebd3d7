/**
 * wc: counts lines, words and bytes, in GNU's columns. A word begins at a printable character and
 * ends at white space, as in the C locale.
 */
import type { Op } from '../../syscalls.ts';
import { Errno, type Process, type Program } from '../process.ts';
import { WORK } from '../work.ts';
import { count, NEWLINE } from './bytes.ts';
import { Io } from './io.ts';
import { parseOptions } from './options.ts';

const PIPE_WIDTH = 7; // columns of a number when the size is not known beforehand

interface Counts {
  lines: number;
  words: number;
  bytes: number;
}

export const wc: Program = {
  name: 'wc',
  *main(process) {
    const io = new Io(process);
    const { flags, operands } = yield* parseOptions(io, 'lwc');
    const shown = (letter: string): boolean => flags.size === 0 || flags.has(letter);
    const alone = operands.length < 2 && flags.size === 1;
    const width = alone ? 1 : yield* widthFor(process, operands);
    const total: Counts = { lines: 0, words: 0, bytes: 0 };
    const print = function* (counts: Counts, name: string): Op<void> {
      const columns = [];
      if (shown('l')) columns.push(String(counts.lines).padStart(width));
      if (shown('w')) columns.push(String(counts.words).padStart(width));
      if (shown('c')) columns.push(String(counts.bytes).padStart(width));
      if (name !== '') columns.push(name);
      io.port.work(WORK.formatLine) ?? (yield* io.port.fault());
      yield* io.out.text(`${columns.join(' ')}\n`);
    };
    yield* io.forEachInput(operands, function* (fd, name) {
      const counts: Counts = { lines: 0, words: 0, bytes: 0 };
      const error = yield* countInput(io, fd, shown('w'), counts);
      yield* print(counts, operands.length === 0 ? '' : name);
      total.lines += counts.lines;
      total.words += counts.words;
      total.bytes += counts.bytes;
      return error;
    });
    if (operands.length > 1) yield* print(total, 'total');
    return yield* io.end();
  },
};

function* countInput(io: Io, fd: number, words: boolean, counts: Counts): Op<number> {
  let inWord = false;
  return yield* io.forEachChunk(fd, function* (bytes) {
    io.port.work(bytes.length * WORK.scanByte) ?? (yield* io.port.fault());
    counts.bytes += bytes.length;
    counts.lines += count(bytes, NEWLINE, 0, bytes.length);
    if (!words) return;
    for (const byte of bytes) {
      if (byte === 0x20 || (byte >= 0x09 && byte <= 0x0d)) inWord = false;
      else if (!inWord && byte > 0x20 && byte < 0x7f) {
        inWord = true;
        counts.words++;
      }
    }
  });
}

/** As many columns as the sum of all sizes has digits; at least 7 if something has no size. */
function* widthFor(process: Process, operands: readonly string[]): Op<number> {
  let [sum, least] = [0, operands.length === 0 ? PIPE_WIDTH : 1];
  for (const name of operands) {
    const stat = name === '-' ? Errno.EINVAL : yield* process.stat(name);
    if (typeof stat !== 'number' && !stat.directory) sum += stat.bytes;
    else if (typeof stat !== 'number' || name === '-') least = PIPE_WIDTH;
  }
  return Math.max(String(sum).length, least);
}
