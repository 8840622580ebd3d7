/**
 * sort: lines in byte order, as with LC_ALL=C. -r backwards, -n by leading number, -u one of each,
 * -z lines end with NUL. The text and an index of its lines (offset and length, a word each) lie in
 * the heap; the comparisons are made on the host's copy, counted, and charged.
 */
import type { Op } from '../../syscalls.ts';
import { type Program } from '../process.ts';
import { WORK } from '../work.ts';
import { NEWLINE } from './bytes.ts';
import { BUFFER, Io } from './io.ts';
import { Region } from './lines.ts';
import { mergeSort } from './merge-sort.ts';
import { parseOptions } from './options.ts';

const TROUBLE = 2;
const ENTRY = 8; // bytes of an index entry

export const sort: Program = {
  name: 'sort',
  *main(process) {
    const io = new Io(process, TROUBLE);
    const { flags, operands } = yield* parseOptions(io, 'rnuz');
    const delimiter = flags.has('z') ? 0 : NEWLINE;
    const text = new Region(io);
    const bytes = yield* readAll(io, text, operands, delimiter);
    if (io.status !== 0) return yield* io.end();

    const { port } = io;
    const index = yield* indexLines(io, bytes, delimiter);
    const at = yield* io.allocate(Math.max(ENTRY, index.byteLength));
    const stored = new Uint8Array(index.buffer);
    port.write(at, stored, 0, stored.length) ?? (yield* port.fault());

    const lines = new Lines(bytes, index, flags.has('n'), flags.has('r'), flags.has('u'));
    const { order, comparisons } = mergeSort(index.length / 2, (a, b) => lines.compare(a, b));
    port.work(comparisons * WORK.compare) ?? (yield* port.fault());
    port.work(lines.takeWork()) ?? (yield* port.fault());
    const sorted = new Uint8Array(permuted(index, order).buffer);
    port.write(at, sorted, 0, sorted.length) ?? (yield* port.fault());

    port.read(at, sorted, 0, sorted.length) ?? (yield* port.fault());
    for (const [n, line] of order.entries()) {
      if (flags.has('u') && n > 0) {
        const same = lines.compare(order[n - 1] ?? 0, line) === 0;
        port.work(WORK.compare + lines.takeWork()) ?? (yield* port.fault());
        if (same) continue;
      }
      const [offset, length] = lines.entry(line);
      yield* io.out.copy(text.base + offset, length + 1);
    }
    return yield* io.end();
  },
};

/** Reads all inputs into the region, each line with its delimiter; the host's copy of it. */
function* readAll(
  io: Io,
  text: Region,
  operands: readonly string[],
  delimiter: number,
): Op<Uint8Array> {
  const { process, port } = io;
  let used = 0;
  yield* io.forEachInput(operands, function* (fd) {
    const from = used;
    for (;;) {
      if (used === text.size) yield* text.grow();
      const room = Math.min(BUFFER, text.size - used);
      const got = yield* process.read(fd, text.base + used, room);
      if (got < 0) return got;
      used += got;
      if (got > 0) continue;
      if (used === from) return 0;
      const last = port.load8(text.base + used - 1) ?? (yield* port.fault());
      if (last === delimiter) return 0;
      port.store8(text.base + used, delimiter) ?? (yield* port.fault());
      used++;
      return 0;
    }
  });
  const bytes = new Uint8Array(used);
  port.read(text.base, bytes, 0, used) ?? (yield* port.fault());
  return bytes;
}

/** Offset and length of each line: [lines × 2]. */
function* indexLines(io: Io, bytes: Uint8Array, delimiter: number): Op<Int32Array> {
  io.port.work(bytes.length * WORK.scanByte) ?? (yield* io.port.fault());
  const index: number[] = [];
  for (let start = 0; start < bytes.length;) {
    const end = bytes.indexOf(delimiter, start);
    index.push(start, end - start);
    start = end + 1;
  }
  return Int32Array.from(index);
}

function permuted(index: Int32Array, order: Int32Array): Int32Array {
  const sorted = new Int32Array(index.length);
  order.forEach((line, n) => sorted.set(index.subarray(line * 2, line * 2 + 2), n * 2));
  return sorted;
}

/** Compares lines by number, and keeps account of the bytes that it looked at. */
class Lines {
  readonly #bytes: Uint8Array;
  readonly #index: Int32Array;
  readonly #numeric: boolean;
  readonly #sign: number;
  readonly #unique: boolean;
  #looked = 0;

  constructor(
    bytes: Uint8Array,
    index: Int32Array,
    numeric: boolean,
    reverse: boolean,
    unique: boolean,
  ) {
    this.#bytes = bytes;
    this.#index = index;
    this.#numeric = numeric;
    this.#sign = reverse ? -1 : 1;
    this.#unique = unique;
  }

  entry(line: number): readonly [offset: number, length: number] {
    return [this.#index[line * 2] ?? 0, this.#index[line * 2 + 1] ?? 0];
  }

  /** Cycles for the bytes that were looked at since the last time. */
  takeWork(): number {
    const cycles = this.#looked * WORK.compareByte;
    this.#looked = 0;
    return cycles;
  }

  /** Equal numbers are told apart by their bytes, unless only one of them is wanted. */
  compare(a: number, b: number): number {
    const byNumber = this.#numeric ? this.#compareNumbers(a, b) : 0;
    if (byNumber !== 0) return this.#sign * byNumber;
    return this.#numeric && this.#unique ? 0 : this.#sign * this.#compareBytes(a, b);
  }

  #compareBytes(a: number, b: number): number {
    const bytes = this.#bytes;
    const from = this.#index[a * 2] as number;
    const to = this.#index[b * 2] as number;
    const lengthA = this.#index[a * 2 + 1] as number;
    const lengthB = this.#index[b * 2 + 1] as number;
    const length = Math.min(lengthA, lengthB);
    for (let n = 0; n < length; n++) {
      const difference = (bytes[from + n] as number) - (bytes[to + n] as number);
      if (difference !== 0) {
        this.#looked += n + 1;
        return difference;
      }
    }
    this.#looked += length;
    return lengthA - lengthB;
  }

  #compareNumbers(a: number, b: number): number {
    const x = this.#number(a);
    const y = this.#number(b);
    if (x.sign !== y.sign) return x.sign - y.sign;
    const size = x.whole.length - y.whole.length;
    if (size !== 0) return x.sign * size;
    const [p, q] = [x.whole + x.fraction, y.whole + y.fraction];
    return p === q ? 0 : x.sign * (p < q ? -1 : 1);
  }

  /** The number that a line begins with, of any length; no needless zeros, sign 0 if it is 0. */
  #number(line: number): { sign: number; whole: string; fraction: string } {
    const [offset, length] = this.entry(line);
    const bytes = this.#bytes;
    const end = offset + length;
    let at = offset;
    while (at < end && (bytes[at] === 0x20 || bytes[at] === 0x09)) at++;
    const negative = at < end && bytes[at] === 0x2d;
    if (negative) at++;
    const digits = (): string => {
      let text = '';
      for (; at < end; at++) {
        const byte = bytes[at] ?? 0;
        if (byte < 0x30 || byte > 0x39) break;
        text += String.fromCharCode(byte);
      }
      return text;
    };
    const whole = digits().replace(/^0+/, '');
    let fraction = '';
    if (at < end && bytes[at] === 0x2e) {
      at++;
      fraction = digits().replace(/0+$/, '');
    }
    this.#looked += at - offset;
    const zero = whole === '' && fraction === '';
    return { sign: zero ? 0 : negative ? -1 : 1, whole, fraction };
  }
}
