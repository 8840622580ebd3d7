/**
 * Sites that no test can kill, because switched off they change nothing that anyone can tell, each
 * with the reason. One that is killed all the same, or that is no site any more, is an error.
 */
export interface Equivalent {
  /** as `npm run mutants` prints it: file, function, text, and which of several */
  readonly key: string;
  readonly why: string;
}

export const EQUIVALENTS: readonly Equivalent[] = [
  {
    key: 'kernel/exokernel/exokernel.ts boot: machine.fence()',
    why:
      'a fence after satp is written is demanded by the architecture; here nothing has been ' +
      'cached before the first translation',
  },
  {
    key: 'kernel/exokernel/environments.ts makeEnv: state.machine.fence(index)',
    why:
      'an ASID that is handed on is fenced, whoever had it; each leaf and each table of the last ' +
      'holder was fenced when it was taken, so this machine has nothing of it cached',
  },
];
