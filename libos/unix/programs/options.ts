/**
 * Command lines as getopt reads them: clusters of one-letter flags, flags with a value (`-n 1` or
 * `-n1`), `--` ends them, operands may stand between them unless the program says otherwise.
 */
import type { Op } from '../../syscalls.ts';
import type { Io } from './io.ts';

export interface Options {
  readonly flags: ReadonlySet<string>;
  readonly values: ReadonlyMap<string, string>;
  readonly operands: readonly string[];
}

/**
 * Parses the process's arguments; a wrong flag ends the program.
 * @param valued letters of the flags that take a value
 * @param permute false: the first operand ends the flags, as for programs that run others
 */
export function* parseOptions(io: Io, known: string, valued = '', permute = true): Op<Options> {
  const flags = new Set<string>();
  const values = new Map<string, string>();
  const operands: string[] = [];
  const args = io.process.args.slice(1);
  for (let arg = args.shift(); arg !== undefined; arg = args.shift()) {
    const over = operands.length > 0 && !permute;
    if (over || arg === '--') {
      operands.push(...(over ? [arg] : []), ...args);
      break;
    }
    if (arg.length < 2 || !arg.startsWith('-')) {
      operands.push(arg);
      continue;
    }
    for (let at = 1; at < arg.length; at++) {
      const letter = arg.charAt(at);
      if (valued.includes(letter)) {
        const value = at + 1 < arg.length ? arg.slice(at + 1) : args.shift();
        if (value === undefined) yield* io.die(`option requires an argument -- '${letter}'`);
        values.set(letter, value ?? '');
        break;
      }
      if (!known.includes(letter)) yield* io.die(`invalid option -- '${letter}'`);
      flags.add(letter);
    }
  }
  return { flags, values, operands };
}

/** A whole number of at least `least`, or the end of the program. */
export function* parseNumber(io: Io, text: string, least: number): Op<number> {
  const value = /^[+-]?[0-9]+$/.test(text) ? Number(text) : NaN;
  if (!(value >= least && Number.isSafeInteger(value))) yield* io.die(`invalid number: ${text}`);
  return value;
}
