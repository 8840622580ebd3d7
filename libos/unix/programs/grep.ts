/**
 * grep: lines that contain a fixed string, as `grep -aF` prints them. -H file names, -h none, -n
 * line numbers, -c counts only. Every file is taken for text; a pattern that would be a regular
 * expression is refused unless -F says that it is none.
 */
import type { Op } from '../../syscalls.ts';
import { type Program, STDIN } from '../process.ts';
import { WORK } from '../work.ts';
import { bytesOf, count, indexOf, NEWLINE } from './bytes.ts';
import { Io } from './io.ts';
import { LineReader } from './lines.ts';
import { parseOptions } from './options.ts';

const TROUBLE = 2;
const NO_MATCH = 1;

export const grep: Program = {
  name: 'grep',
  *main(process) {
    const io = new Io(process, TROUBLE);
    const { flags, operands } = yield* parseOptions(io, 'aFHhnc');
    const [pattern, ...files] = operands;
    if (pattern === undefined) return yield* io.die('a pattern is missing');
    if (pattern.includes('\n')) return yield* io.die('one pattern only');
    if (!flags.has('F') && /[.[*^$\\]/.test(pattern)) {
      return yield* io.die('fixed strings only: use -F');
    }
    const named = flags.has('H') || (files.length > 1 && !flags.has('h'));
    let matched = false;
    let reader = new LineReader(io, STDIN, NEWLINE);
    yield* io.forEachInput(files, function* (fd, name) {
      reader = reader.reuse(fd);
      const label = name === '-' ? '(standard input)' : name;
      const search = new Search(io, reader, bytesOf(pattern), named ? `${label}:` : '');
      const lines = yield* search.run(flags.has('n'), flags.has('c'));
      if (lines > 0) matched = true;
      return reader.error;
    });
    if (!matched && io.status === 0) io.status = NO_MATCH;
    return yield* io.end();
  },
};

class Search {
  readonly #io: Io;
  readonly #reader: LineReader;
  readonly #pattern: Uint8Array;
  readonly #label: string;

  constructor(io: Io, reader: LineReader, pattern: Uint8Array, label: string) {
    this.#io = io;
    this.#reader = reader;
    this.#pattern = pattern;
    this.#label = label;
  }

  /** Prints what the flags ask for; the number of lines that match. */
  *run(numbered: boolean, counting: boolean): Op<number> {
    const io = this.#io;
    const reader = this.#reader;
    const pattern = this.#pattern;
    const perByte = WORK.searchByte + (numbered && !counting ? WORK.scanByte : 0);
    let [lines, line] = [0, 1]; // lines that match; number of the line at `counted`
    while (yield* reader.more(reader.whole)) {
      const { bytes, whole } = reader;
      io.port.work(whole * perByte) ?? (yield* io.port.fault());
      let counted = 0;
      for (let at = 0; at < whole;) {
        const found = indexOf(bytes, pattern, at, whole);
        if (found < 0) break;
        const start = found === 0 ? 0 : bytes.lastIndexOf(NEWLINE, found - 1) + 1;
        const end = reader.lineEnd(found);
        at = end + 1;
        lines++;
        if (counting) continue;
        line += numbered ? count(bytes, NEWLINE, counted, start) : 0;
        counted = start;
        yield* this.#print(numbered ? `${line}:` : '', start, end);
      }
      if (numbered) line += count(bytes, NEWLINE, counted, whole);
    }
    if (counting) yield* io.out.text(`${this.#label}${lines}\n`);
    return lines;
  }

  *#print(prefix: string, start: number, end: number): Op<void> {
    const { out, port } = this.#io;
    port.work(WORK.formatLine) ?? (yield* port.fault());
    yield* out.text(this.#label + prefix);
    yield* out.copy(this.#reader.base + start, end - start);
    yield* out.text('\n');
  }
}
