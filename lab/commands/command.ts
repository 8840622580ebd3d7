/**
 * What a subcommand is: a function that adds itself to the program, and a terminal that it prints
 * to. lab/commands/index.ts lists them, a line each. Nothing here ends the process, so a test runs
 * the whole command line as a function.
 */
import { type Command, InvalidArgumentError } from 'commander';

/** Where a command prints, and the exit status that it leaves. */
export interface Terminal {
  readonly out: (text: string) => void;
  readonly err: (text: string) => void;
  /** whether the other end of `err` can go back over a line */
  readonly redraws: boolean;
  status: number;
}

export type Subcommand = (program: Command, terminal: Terminal) => void;

/** A list of names out of `known`, comma-separated. */
export function choice<T>(what: string, known: readonly T[], name: (item: T) => string) {
  return (text: string): T[] =>
    text.split(',').map((word) => {
      const found = known.find((item) => name(item) === word.trim());
      if (found !== undefined) return found;
      throw new InvalidArgumentError(
        `no ${what} '${word.trim()}'; there are ${known.map(name).join(', ')}`,
      );
    });
}

/** A whole number in a range. */
export function whole(least: number, most = Number.MAX_SAFE_INTEGER) {
  const range = most < Number.MAX_SAFE_INTEGER ? `to ${most}` : 'up';
  return (text: string): number => {
    const n = Number(text);
    if (text.trim() !== '' && Number.isSafeInteger(n) && n >= least && n <= most) return n;
    throw new InvalidArgumentError(`a whole number from ${least} ${range}, please`);
  };
}
