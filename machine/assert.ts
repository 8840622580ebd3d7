/**
 * Our own mistakes. A Bug is thrown when the simulator or a kernel breaks a promise it made to
 * itself; nobody catches it but the test runner and the command line (exit status 70).
 * Asserts are never compiled out: a kernel that has lost its invariants must not go on.
 */

export class Bug extends Error {
  override readonly name = 'Bug';
  readonly #ours = true;

  /** Whether `error` is one of ours: asked of what programs threw, so no code of theirs may run. */
  static is(error: unknown): error is Bug {
    return typeof error === 'object' && error !== null && #ours in error && error.#ours;
  }
}

/** Throws Bug unless `claim` holds. `words` states the claim positively. */
export function assert(claim: boolean, words: string): asserts claim {
  if (!claim) throw new Bug(`broken promise: ${words}`);
}

/** Ends a switch over a union: a new member fails to compile until it is handled. */
export function unreachable(value: never): never {
  throw new Bug(`unreachable: ${String(value)}`);
}
