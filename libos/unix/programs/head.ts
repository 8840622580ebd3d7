/** head: the first 10 lines of files or standard input, or the first N with -n N. */
import type { Op } from '../../syscalls.ts';
import { type Program } from '../process.ts';
import { WORK } from '../work.ts';
import { NEWLINE } from './bytes.ts';
import { BUFFER, Io } from './io.ts';
import { parseNumber, parseOptions } from './options.ts';

export const head: Program = {
  name: 'head',
  *main(process) {
    const io = new Io(process);
    const { values, operands } = yield* parseOptions(io, '', 'n');
    const lines = yield* parseNumber(io, values.get('n') ?? '10', 0);
    let first = true;
    yield* io.forEachInput(operands, function* (fd, name) {
      if (operands.length > 1) {
        const title = name === '-' ? 'standard input' : name;
        yield* io.out.text(`${first ? '' : '\n'}==> ${title} <==\n`);
      }
      first = false;
      return yield* printLines(io, fd, lines);
    });
    return yield* io.end();
  },
};

/** It stops reading when it has enough. */
function* printLines(io: Io, fd: number, lines: number): Op<number> {
  const { process, port } = io;
  const buffer = yield* io.buffer();
  const bytes = new Uint8Array(BUFFER);
  for (let left = lines; left > 0;) {
    const got = yield* process.read(fd, buffer, BUFFER);
    if (got <= 0) return got;
    port.read(buffer, bytes, 0, got) ?? (yield* port.fault());
    let end = 0;
    while (end < got && left > 0) if (bytes[end++] === NEWLINE) left--;
    port.work(end * WORK.scanByte) ?? (yield* port.fault());
    yield* io.out.copy(buffer, end);
  }
  return 0;
}
