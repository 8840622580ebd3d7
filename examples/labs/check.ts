/**
 * Checks of the lab sheets: `npx tsx examples/labs/check.ts pages mine/pages.ts`. Exit status 0: it
 * does what the sheet asks; 1: not yet, and what is missing; 2: no such lab, or no such file.
 */
import { fileURLToPath } from 'node:url';
import { runAttacks } from '../../lab/attacks/attack.ts';
import { checkFile, loadImage } from '../../lab/author/libos-file.ts';
import { runMode } from '../../lab/author/run.ts';
import { UsageError } from '../../lab/tree.ts';

/** What is missing, a line each; nothing: passed. */
type Check = (path: string) => Promise<string[]>;

const MODES = ['exokernel', 'vm'] as const;
const BROKEN = 'envSuspend'; // the call of lab 6

/** The library OS prints this, in every mode; `dies`: and then makes a mistake that it must not catch. */
const prints =
  (expected: string, dies = false): Check =>
  async (path) => {
    const image = await loadImage(path);
    return MODES.flatMap((mode) => {
      const spec = { mode, tenants: 1, memory: 128, slice: 100_000, seed: 1, limit: 1e8 };
      const [result] = runMode({ ...spec, revocation: null }, [image], [path]).tenants;
      if (result === undefined) return [`${mode}: nothing ran`];
      const missing: string[] = [];
      if (result.output !== expected) {
        missing.push(`${mode}: prints ${JSON.stringify(result.output)}`);
        missing.push(`${' '.repeat(mode.length)}  wanted ${JSON.stringify(expected)}`);
      }
      if (dies !== (result.fate === 'failed')) {
        missing.push(dies ? `${mode}: caught what is beyond the heap` : result.account.join('\n'));
      }
      return missing;
    });
  };

const breaks: Check = async (path) => {
  const [result] = await runAttacks([path], null);
  if (result?.won !== false) return ['it succeeds against the whole kernel: report that!'];
  if (!result.refusal.startsWith(`refused: ${BROKEN}(`)) {
    return [`its last refusal is not of ${BROKEN}`];
  }
  return result.check?.within === BROKEN ? [] : [`without the check of ${BROKEN} it still fails`];
};

export const CHECKS: Readonly<Record<string, Check>> = {
  pages: prints('4 pages hold 14; 2 were given back\n'),
  faults: prints('5 faults, the guard page was touched 1 time\n', true),
  fork: prints('parent 1, child 7, copies 1\nparent 1, child 2, copies 1\n'),
  scheduling: prints('after 8 turns: 6 and 2\nafter 40: 30 and 10\n'),
  storage: prints('blocks hold 11 22 33\n'),
  'break-the-kernel': breaks,
};

/** @returns what is missing */
export async function check(lab: string, file: string): Promise<string[]> {
  const one = CHECKS[lab];
  if (one === undefined) {
    throw new UsageError(`no lab '${lab}'; there are ${Object.keys(CHECKS).join(', ')}`);
  }
  return one(checkFile(file));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [lab = '', file = ''] = process.argv.slice(2);
  try {
    const missing = await check(lab, file);
    const said = missing.length === 0 ? 'passed' : `not yet:\n${missing.join('\n')}`;
    process.stdout.write(`${lab}: ${said}\n`);
    process.exitCode = missing.length === 0 ? 0 : 1;
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    process.stderr.write(`check: ${error.message}\n`);
    process.exitCode = 2;
  }
}
