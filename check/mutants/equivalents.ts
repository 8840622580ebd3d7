/**
 * Sites that no test can kill, because switched off they change nothing that anyone can tell, each
 * with the reason. One that is killed all the same, or that is no site any more, is an error.
 */
export interface Equivalent {
  /** as `npm run mutants` prints it: file, function, text, and which of several */
  readonly key: string;
  readonly why: string;
}

export const EQUIVALENTS: readonly Equivalent[] = [];
