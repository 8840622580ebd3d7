/** uniq: of adjacent equal lines, one; with -c, how many there were. Standard input or one file. */
import type { Op } from '../../syscalls.ts';
import { type Program } from '../process.ts';
import { WORK } from '../work.ts';
import { NEWLINE } from './bytes.ts';
import { Io } from './io.ts';
import { LineReader } from './lines.ts';
import { parseOptions } from './options.ts';

export const uniq: Program = {
  name: 'uniq',
  *main(process) {
    const io = new Io(process);
    const { flags, operands } = yield* parseOptions(io, 'c');
    if (operands.length > 1) return yield* io.die(`extra operand '${operands[1] ?? ''}'`);
    yield* io.forEachInput(operands, (fd) => collapse(io, fd, flags.has('c')));
    return yield* io.end();
  },
};

/** The line that the next are compared with stays in front of the reader's buffer. */
function* collapse(io: Io, fd: number, counted: boolean): Op<number> {
  const reader = new LineReader(io, fd, NEWLINE);
  const { port } = io;
  let [kept, keptEnd, repeats] = [0, 0, 0];
  const print = function* (): Op<void> {
    port.work(WORK.formatLine) ?? (yield* port.fault());
    if (counted) yield* io.out.text(`${String(repeats).padStart(7)} `);
    yield* io.out.copy(reader.base + kept, keptEnd - kept);
    yield* io.out.text('\n');
  };
  for (let at = 0; ;) {
    if (at >= reader.whole) {
      const moved = kept;
      const was = reader.whole;
      if (!(yield* reader.more(moved))) break;
      [at, kept, keptEnd] = [was - moved, 0, keptEnd - moved];
    }
    const end = reader.lineEnd(at);
    const looked = repeats === 0 ? -1 : sameBytes(reader.bytes, kept, keptEnd, at, end);
    const compared = repeats === 0 ? 0 : WORK.compare + Math.abs(looked) * WORK.compareByte;
    port.work((end + 1 - at) * WORK.scanByte + compared) ?? (yield* port.fault());
    if (looked >= 0 && repeats > 0) repeats++;
    else {
      if (repeats > 0) yield* print();
      [kept, keptEnd, repeats] = [at, end, 1];
    }
    at = end + 1;
  }
  [kept, keptEnd] = [0, keptEnd - kept];
  if (repeats > 0) yield* print();
  return reader.error;
}

/** How many bytes were compared: their length if the lines are equal, else negative. */
function sameBytes(bytes: Uint8Array, a: number, aEnd: number, b: number, bEnd: number): number {
  if (aEnd - a !== bEnd - b) return -1;
  for (let n = 0; n < aEnd - a; n++) if (bytes[a + n] !== bytes[b + n]) return -1 - n;
  return aEnd - a;
}
