/** Programs on text and bytes: tail, tee, cut, tr. */
import type { Op } from '../../syscalls.ts';
import { O_APPEND, O_CREATE, O_TRUNCATE, O_WRITE, type Program } from '../process.ts';
import { WORK } from '../work.ts';
import { bytesOf, NEWLINE } from './bytes.ts';
import { Io, messageOf } from './io.ts';
import { LineReader } from './lines.ts';
import { parseNumber, parseOptions } from './options.ts';

/** tail: the last 10 lines, or the last N with -n N; -n +N from line N on. */
export const tail: Program = {
  name: 'tail',
  *main(process) {
    const io = new Io(process);
    const { values, operands } = yield* parseOptions(io, '', 'n');
    const text = values.get('n') ?? '10';
    const lines = yield* parseNumber(io, text.replace(/^-/, ''), 0);
    let first = true;
    yield* io.forEachInput(operands, function* (fd, name) {
      if (operands.length > 1) {
        const title = name === '-' ? 'standard input' : name;
        yield* io.out.text(`${first ? '' : '\n'}==> ${title} <==\n`);
      }
      first = false;
      return yield* text.startsWith('+') ? skip(io, fd, lines - 1) : last(io, fd, lines);
    });
    return yield* io.end();
  },
};

/** All but the first `lines` lines. */
function* skip(io: Io, fd: number, lines: number): Op<number> {
  let left = lines;
  return yield* io.forEachChunk(fd, function* (bytes) {
    let from = 0;
    while (left > 0 && from < bytes.length) if (bytes[from++] === NEWLINE) left--;
    io.port.work(from * WORK.scanByte) ?? (yield* io.port.fault());
    yield* io.out.put(bytes, from);
  });
}

/** The last `lines` lines: as much of the input is kept as may be needed. */
function* last(io: Io, fd: number, lines: number): Op<number> {
  let kept: Uint8Array = new Uint8Array(0);
  const error = yield* io.forEachChunk(fd, function* (bytes) {
    io.port.work(bytes.length * WORK.scanByte) ?? (yield* io.port.fault());
    const all = new Uint8Array(kept.length + bytes.length);
    all.set(kept);
    all.set(bytes, kept.length);
    kept = all.slice(lastLines(all, lines));
  });
  yield* io.out.put(kept);
  return error;
}

/** Where the last `lines` lines begin; the last of them may lack its end. */
function lastLines(bytes: Uint8Array, lines: number): number {
  if (lines === 0) return bytes.length;
  let left = lines;
  for (let at = bytes.length - 2; at >= 0; at--) {
    if (bytes[at] === NEWLINE && --left === 0) return at + 1;
  }
  return 0;
}

/** tee: standard input to standard output and to files; -a appends. */
export const tee: Program = {
  name: 'tee',
  *main(process) {
    const io = new Io(process);
    const { flags, operands } = yield* parseOptions(io, 'a');
    const fds: number[] = [];
    for (const path of operands) {
      const how = flags.has('a') ? O_APPEND : O_TRUNCATE;
      const fd = yield* process.open(path, O_WRITE | O_CREATE | how);
      if (fd < 0) yield* io.failed(path, fd);
      else fds.push(fd);
    }
    const buffer = yield* io.buffer();
    yield* io.forEachChunk(0, function* (bytes) {
      yield* io.out.copy(buffer, bytes.length);
      yield* io.out.flush();
      for (const fd of fds) {
        const written = yield* process.write(fd, buffer, bytes.length);
        if (written < 0) yield* io.complain(messageOf(written));
      }
    });
    return yield* io.end();
  },
};

/** cut: -d C -f LIST fields, -c LIST bytes of each line; LIST as `1,3-5,7-`. */
export const cut: Program = {
  name: 'cut',
  *main(process) {
    const io = new Io(process);
    const { flags, values, operands } = yield* parseOptions(io, 's', 'dfcb');
    const fields = values.get('f');
    const list = fields ?? values.get('c') ?? values.get('b');
    const ranges = list === undefined ? null : rangesOf(list);
    if (list === undefined) yield* io.die('you must specify a list of bytes or fields');
    if (ranges === null) yield* io.die(`invalid list: '${list ?? ''}'`);
    const delimiter = bytesOf(values.get('d') ?? '\t');
    if (delimiter.length !== 1) yield* io.die('the delimiter must be a single character');
    const wanted = (n: number): boolean => (ranges ?? []).some(([a, b]) => n >= a && n <= b);
    yield* io.forEachInput(operands, function* (fd) {
      const reader = new LineReader(io, fd, NEWLINE);
      for (let used = 0; yield* reader.more(used); used = reader.whole) {
        io.port.work(reader.whole * WORK.scanByte) ?? (yield* io.port.fault());
        for (let from = 0; from < reader.whole;) {
          const end = reader.lineEnd(from);
          const line = reader.bytes.subarray(from, end);
          const out =
            fields === undefined
              ? line.filter((_, n) => wanted(n + 1))
              : fieldsOf(line, delimiter[0] ?? 0, wanted, flags.has('s'));
          if (out !== null) {
            yield* io.out.put(out);
            yield* io.out.text('\n');
          }
          from = end + 1;
        }
      }
      return reader.error;
    });
    return yield* io.end();
  },
};

/** The wanted fields of a line; a line without a delimiter whole, or not at all. */
function fieldsOf(
  line: Uint8Array,
  delimiter: number,
  wanted: (n: number) => boolean,
  strict: boolean,
): Uint8Array | null {
  if (!line.includes(delimiter)) return strict ? null : line;
  const out: number[] = [];
  let [field, any] = [1, false];
  for (let from = 0; from <= line.length; field++) {
    const at = line.indexOf(delimiter, from);
    const end = at < 0 ? line.length : at;
    if (wanted(field)) {
      if (any) out.push(delimiter);
      out.push(...line.subarray(from, end));
      any = true;
    }
    from = end + 1;
  }
  return Uint8Array.from(out);
}

function rangesOf(list: string): (readonly [number, number])[] | null {
  const ranges: (readonly [number, number])[] = [];
  for (const part of list.split(',')) {
    const parts = /^(\d*)(-?)(\d*)$/.exec(part);
    if (parts === null || part === '' || part === '-') return null;
    const [, from = '', dash, to = ''] = parts;
    const first = from === '' ? 1 : Number(from);
    const end = to === '' ? Infinity : Number(to);
    if (first < 1 || end < first) return null;
    ranges.push([first, dash === '' ? first : end]);
  }
  return ranges;
}

/** tr: SET1 SET2 translates, -d SET1 deletes, -s squeezes repeats of the last set. */
export const tr: Program = {
  name: 'tr',
  *main(process) {
    const io = new Io(process);
    const { flags, operands } = yield* parseOptions(io, 'dsc');
    const deletes = flags.has('d');
    const [first, second] = operands.map(setOf);
    if (first === undefined) yield* io.die('missing operand');
    if (!deletes && !flags.has('s') && second === undefined) yield* io.die('two sets are needed');
    let from = first ?? [];
    if (flags.has('c')) {
      const kept = new Set(from);
      from = Array.from({ length: 256 }, (_, n) => n).filter((n) => !kept.has(n));
    }
    const map = Uint8Array.from({ length: 256 }, (_, n) => n);
    if (!deletes && second !== undefined) {
      from.forEach((byte, n) => (map[byte] = second[Math.min(n, second.length - 1)] ?? byte));
    }
    const gone = new Set(deletes ? from : []);
    const squeezed = new Set(flags.has('s') ? (second ?? from) : []);
    let before = -1;
    yield* io.forEachChunk(0, function* (bytes) {
      io.port.work(bytes.length * WORK.scanByte) ?? (yield* io.port.fault());
      const out = new Uint8Array(bytes.length);
      let length = 0;
      for (const byte of bytes) {
        if (gone.has(byte)) continue;
        const to = map[byte] ?? byte;
        if (to === before && squeezed.has(to)) continue;
        out[length++] = to;
        before = to;
      }
      yield* io.out.put(out, 0, length);
    });
    return yield* io.end();
  },
};

const ESCAPES: Readonly<Record<string, number>> = { n: 10, t: 9, r: 13, '\\': 92, 0: 0 };
const CLASSES: Readonly<Record<string, string>> = {
  lower: 'a-z',
  upper: 'A-Z',
  digit: '0-9',
  alpha: 'A-Za-z',
  alnum: '0-9A-Za-z',
  space: '\\t\\n\v\f\\r ',
};

/** Bytes of a set: `a-z`, `\n`, `[:upper:]`. */
function setOf(text: string): number[] {
  const plain = text.replace(/\[:([a-z]+):\]/g, (whole, name: string) => CLASSES[name] ?? whole);
  const set: number[] = [];
  const next = (at: number): [number, number] => {
    const escape = plain.charAt(at) === '\\' ? ESCAPES[plain.charAt(at + 1)] : undefined;
    return escape === undefined ? [plain.charCodeAt(at) & 0xff, at + 1] : [escape, at + 2];
  };
  for (let at = 0; at < plain.length;) {
    const [from, after] = next(at);
    at = after;
    if (plain.charAt(at) === '-' && at + 1 < plain.length) {
      const [to, end] = next(at + 1);
      for (let byte = from; byte <= to; byte++) set.push(byte);
      at = end;
    } else set.push(from);
  }
  return set;
}
