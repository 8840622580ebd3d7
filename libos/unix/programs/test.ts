/**
 * test and [: a condition. `-e -f -d -s -r -w -x PATH`, `-n -z TEXT`, `TEXT`, `A = B`, `A != B`,
 * numbers by `-eq -ne -lt -le -gt -ge`; `!`, `( )`, `-a`, and, less tightly, `-o`. Up to four words
 * mean what POSIX says of so many, so that texts may look like operators. Exit status: 0 true, 1
 * false, 2 no condition.
 */
import type { Op } from '../../syscalls.ts';
import { type Process, type Program } from '../process.ts';
import { Io } from './io.ts';

const TROUBLE = 2;
const PATHS = ['-e', '-f', '-d', '-s', '-r', '-w', '-x'];
const PERMISSIONS: Readonly<Record<string, number>> = { '-r': 0o400, '-w': 0o200, '-x': 0o100 };

const NUMBERS: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  '-eq': (a, b) => a === b,
  '-ne': (a, b) => a !== b,
  '-lt': (a, b) => a < b,
  '-le': (a, b) => a <= b,
  '-gt': (a, b) => a > b,
  '-ge': (a, b) => a >= b,
};
const isUnary = (word: string): boolean => word === '-n' || word === '-z' || PATHS.includes(word);
const isBinary = (word: string): boolean =>
  word === '=' || word === '!=' || Object.hasOwn(NUMBERS, word);

class Condition {
  readonly #io: Io;
  readonly #words: readonly string[];
  #at = 0;

  constructor(io: Io, words: readonly string[]) {
    this.#io = io;
    this.#words = words;
  }

  /** What all the words say. */
  *holds(): Op<boolean> {
    const words = this.#words;
    const [first = '', second = '', third = '', fourth = ''] = words;
    const inner = (part: readonly string[]): Op<boolean> => new Condition(this.#io, part).holds();
    if (words.length <= 1) return first !== '';
    if (words.length === 3 && isBinary(second)) return yield* this.#binary(first, second, third);
    if (words.length === 3 && (second === '-a' || second === '-o')) {
      const [a, b] = [first !== '', third !== ''];
      return second === '-a' ? a && b : a || b;
    }
    if (words.length <= 4 && first === '!') return !(yield* inner(words.slice(1)));
    if (words.length === 2 && isUnary(first)) return yield* this.#unary(first, second);
    if (words.length === 3 && first === '(' && third === ')') return second !== '';
    if (words.length === 4 && first === '(' && fourth === ')') return yield* inner([second, third]);
    const value = yield* this.#or();
    return this.#at === words.length ? value : yield* this.#wrong();
  }

  *#wrong(): Op<never> {
    return yield* this.#io.die(`not a condition: ${this.#words.join(' ')}`);
  }

  *#or(): Op<boolean> {
    let value = yield* this.#and();
    while (this.#words[this.#at] === '-o') {
      this.#at++;
      value = (yield* this.#and()) || value;
    }
    return value;
  }

  *#and(): Op<boolean> {
    let value = yield* this.#not();
    while (this.#words[this.#at] === '-a') {
      this.#at++;
      value = (yield* this.#not()) && value;
    }
    return value;
  }

  *#not(): Op<boolean> {
    const [word, next = '', third] = this.#words.slice(this.#at, this.#at + 3);
    if (word === undefined) return yield* this.#wrong();
    if (third !== undefined && isBinary(next)) {
      this.#at += 3;
      return yield* this.#binary(word, next, third);
    }
    this.#at++;
    if (word === '!') return !(yield* this.#not());
    if (word === '(') {
      const value = yield* this.#or();
      return this.#words[this.#at++] === ')' ? value : yield* this.#wrong();
    }
    if (isUnary(word) && this.#at < this.#words.length) {
      return yield* this.#unary(word, this.#words[this.#at++] ?? '');
    }
    return word !== '';
  }

  *#binary(first: string, operator: string, second: string): Op<boolean> {
    const compare = NUMBERS[operator];
    if (compare === undefined) return (first === second) === (operator === '=');
    return compare(yield* this.#number(first), yield* this.#number(second));
  }

  *#number(text: string): Op<number> {
    if (!/^ *[+-]?[0-9]+ *$/.test(text)) yield* this.#io.die(`${text}: integer expected`);
    return Number(text);
  }

  *#unary(operator: string, word: string): Op<boolean> {
    if (operator === '-n' || operator === '-z') return (word !== '') === (operator === '-n');
    const stat = yield* this.#io.process.stat(word);
    if (typeof stat === 'number') return false;
    const permission = PERMISSIONS[operator];
    if (permission !== undefined) return (stat.mode & permission) !== 0;
    if (operator === '-s') return stat.bytes > 0 || stat.directory;
    return operator === '-e' || stat.directory === (operator === '-d');
  }
}

function* main(process: Process): Op<number> {
  const io = new Io(process, TROUBLE);
  const words = process.args.slice(1);
  if (process.args[0] === '[' && words.pop() !== ']') yield* io.die('missing ]');
  return (yield* new Condition(io, words).holds()) ? 0 : 1;
}

export const test: Program = { name: 'test', main };
export const bracket: Program = { name: '[', main };
