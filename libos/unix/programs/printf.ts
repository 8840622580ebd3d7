/**
 * printf: `printf FORMAT [ARGUMENT..]`. Conversions %s %d %i %u %x %X %o %c %b %% with a width, a
 * precision and the flags `-`, `0`, `+` and blank; backslashes as in C. The format is used as often
 * as there are arguments.
 */
import type { Op } from '../../syscalls.ts';
import type { Program } from '../process.ts';
import { WORK } from '../work.ts';
import { Io } from './io.ts';

const ESCAPES: Readonly<Record<string, string>> = {
  ...{ n: '\n', t: '\t', r: '\r', a: '\x07', b: '\b', f: '\f', v: '\v', '\\': '\\' },
};
const PART = /%([-+ 0]*)([0-9]*)(?:\.([0-9]*))?(.?)|\\([0-7]{1,3}|[^])|[^%\\]+|\\/gy;

/** What stands behind a backslash; as it is if it means nothing. */
const escaped = (text: string): string =>
  /^[0-7]/.test(text)
    ? String.fromCharCode(parseInt(text, 8) & 0xff)
    : (ESCAPES[text] ?? `\\${text}`);

const unescaped = (text: string): string =>
  text.replace(/\\(0?[0-7]{1,3}|[^])/g, (_, one: string) =>
    escaped(one.replace(/^0(?=[0-7])/, '')),
  );

class Printer {
  readonly #io: Io;
  readonly #words: string[];

  constructor(io: Io, words: readonly string[]) {
    this.#io = io;
    this.#words = [...words];
  }

  get isDone(): boolean {
    return this.#words.length === 0;
  }

  /** Once through the format; false if it uses no argument. */
  *once(format: string): Op<boolean> {
    const before = this.#words.length;
    for (const [all, flags = '', width = '', precision, conversion, escape] of format.matchAll(
      PART,
    )) {
      if (escape !== undefined) yield* this.#io.out.text(escaped(escape));
      else if (conversion === undefined) yield* this.#io.out.text(all);
      else {
        const text = yield* this.#converted(conversion, flags, precision);
        yield* this.#io.out.text(padded(text, flags, Number(width), conversion));
      }
    }
    return this.#words.length < before;
  }

  *#converted(conversion: string, flags: string, precision?: string): Op<string> {
    if (conversion === '%') return '%';
    if (!'sdiuxXocb'.includes(conversion) || conversion === '') {
      return yield* this.#io.die(`%${conversion}: invalid directive`);
    }
    const word = this.#words.shift() ?? '';
    const most = precision === undefined ? Infinity : Number(precision);
    if (conversion === 's') return word.slice(0, most);
    if (conversion === 'b') return unescaped(word).slice(0, most);
    if (conversion === 'c') return word.slice(0, 1);
    const value = yield* this.#number(word);
    const radix = { x: 16, X: 16, o: 8 }[conversion] ?? 10;
    const isSigned = conversion === 'd' || conversion === 'i';
    const whole = isSigned ? value : BigInt.asUintN(64, value);
    const sign =
      whole < 0n ? '-' : !isSigned ? '' : (/[+]/.exec(flags)?.[0] ?? /[ ]/.exec(flags)?.[0] ?? '');
    const digits = (whole < 0n ? -whole : whole).toString(radix);
    const text = sign + digits.padStart(precision === undefined ? 0 : Number(precision), '0');
    return conversion === 'X' ? text.toUpperCase() : text;
  }

  *#number(word: string): Op<bigint> {
    if (word === '') return 0n;
    if (/^["']./.test(word)) return BigInt(word.charCodeAt(1));
    const found = /^\s*([-+]?)(0x[0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)/.exec(word);
    const [all = '', sign, digits = '0'] = found ?? [];
    if (all.length < word.length) {
      yield* this.#io.out.flush();
      const wrong = found === null ? 'expected a numeric value' : 'value not completely converted';
      yield* this.#io.complain(`'${word}': ${wrong}`);
    }
    const value = BigInt(/^0[0-7]/.test(digits) ? `0o${digits.slice(1)}` : digits);
    return sign === '-' ? -value : value;
  }
}

function padded(text: string, flags: string, width: number, conversion: string): string {
  if (flags.includes('-')) return text.padEnd(width);
  if (!flags.includes('0') || !'diuxXo'.includes(conversion)) return text.padStart(width);
  const sign = /^[-+ ]/.exec(text)?.[0] ?? '';
  return sign + text.slice(sign.length).padStart(width - sign.length, '0');
}

export const printf: Program = {
  name: 'printf',
  *main(process) {
    const io = new Io(process);
    const [format, ...words] = process.args.slice(process.args[1] === '--' ? 2 : 1);
    if (format === undefined) return yield* io.die('missing operand');
    const printer = new Printer(io, words);
    for (let again = true; again;) {
      io.port.work(WORK.formatLine) ?? (yield* io.port.fault());
      again = (yield* printer.once(format)) && !printer.isDone;
    }
    return yield* io.end();
  },
};
