/**
 * test and [: one condition. `-e -f -d -s PATH`, `-n -z TEXT`, `TEXT`, `A = B`, `A != B`, numbers
 * by `-eq -ne -lt -le -gt -ge`, `!` before any. Exit status: 0 true, 1 false, 2 no condition.
 */
import type { Op } from '../../syscalls.ts';
import { type Process, type Program } from '../process.ts';
import { Io } from './io.ts';

const TROUBLE = 2;

const NUMBERS: Readonly<Record<string, (a: number, b: number) => boolean>> = {
  '-eq': (a, b) => a === b,
  '-ne': (a, b) => a !== b,
  '-lt': (a, b) => a < b,
  '-le': (a, b) => a <= b,
  '-gt': (a, b) => a > b,
  '-ge': (a, b) => a >= b,
};

function* ofPath(process: Process, operator: string, path: string): Op<boolean> {
  const stat = yield* process.stat(path);
  if (typeof stat === 'number') return false;
  if (operator === '-s') return stat.bytes > 0 || stat.directory;
  return operator === '-e' || stat.directory === (operator === '-d');
}

function* number(io: Io, text: string): Op<number> {
  if (!/^ *[+-]?[0-9]+ *$/.test(text)) yield* io.die(`${text}: integer expected`);
  return Number(text);
}

function* holds(io: Io, words: readonly string[]): Op<boolean> {
  const [first = '', second = '', third = ''] = words;
  if (words.length === 3 && (second === '=' || second === '!=')) {
    return (first === third) === (second === '=');
  }
  const compare = NUMBERS[second];
  if (words.length === 3 && compare !== undefined) {
    return compare(yield* number(io, first), yield* number(io, third));
  }
  if (words.length > 1 && first === '!') return !(yield* holds(io, words.slice(1)));
  if (words.length < 2) return first !== '';
  if (words.length === 2 && ['-n', '-z'].includes(first))
    return (second !== '') === (first === '-n');
  if (words.length === 2 && ['-e', '-f', '-d', '-s'].includes(first)) {
    return yield* ofPath(io.process, first, second);
  }
  return yield* io.die(`not a condition: ${words.join(' ')}`);
}

function* main(process: Process): Op<number> {
  const io = new Io(process, TROUBLE);
  const words = process.args.slice(1);
  if (process.args[0] === '[' && words.pop() !== ']') yield* io.die('missing ]');
  return (yield* holds(io, words)) ? 0 : 1;
}

export const test: Program = { name: 'test', main };
export const bracket: Program = { name: '[', main };
