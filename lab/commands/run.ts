/**
 * `exoscope run FILE...`: an author's library OS in any mode. Exit status 0: all is well; 1: it
 * failed, did not end, or printed something else in another mode; 2: the command or the file makes
 * no sense; 70: the simulator failed.
 */
import { basename } from 'node:path';
import { Option } from 'commander';
import { checkFile } from '../author/libos-file.ts';
import type { LibosJob, LibosOutcome } from '../author/job.ts';
import type { Revocation } from '../author/broker.ts';
import { tell } from '../author/report.ts';
import { revokes, type RunSpec } from '../author/run.ts';
import { lineOf } from '../author/witness.ts';
import { InternalFailure } from '../compare.ts';
import { QUOTA_MAX } from '../experiment.ts';
import { legend } from '../report.ts';
import { type Mode, MODES } from '../modes.ts';
import { Hung, inWorkers, newHeart } from '../pool.ts';
import { UsageError } from '../tree.ts';
import { choice, type Subcommand, type Terminal, whole } from './command.ts';

const TENANTS_MAX = 16;
const MEMORY_LEAST = 16; // pages
const ASKED_MAX = 32; // pages of one revocation
const DEADLINE = 200_000; // cycles

export interface RunOptions {
  readonly mode: readonly Mode[];
  readonly tenants?: number;
  readonly memory: number;
  readonly slice: number;
  readonly seed: number;
  readonly revoke?: Pick<Revocation, 'pages' | 'at'>;
  readonly deadline: number;
  readonly cycles: number;
  readonly watchdog: number;
  readonly trace?: string;
  readonly json?: boolean;
}

export const runCommand: Subcommand = (program, terminal) => {
  const modes = choice('mode', MODES, (mode) => mode);
  program
    .command('run')
    .description('run a library OS of your own, a TypeScript file as it is')
    .argument('<files...>', 'library OSes: tenants run them in turn')
    .option(
      '--mode <names>',
      '`all`, or some of the modes',
      (text) => (text === 'all' ? MODES : modes(text)),
      ['exokernel'] as readonly Mode[],
    )
    .option('--tenants <n>', 'default: one for each file', whole(1, TENANTS_MAX))
    .option('--memory <pages>', 'pages that each may use', whole(MEMORY_LEAST, QUOTA_MAX), 1024)
    .option('--slice <cycles>', 'length of a time slice', whole(20_000), 100_000)
    .option('--seed <n>', 'of entropy and mishaps', whole(1), 1)
    .option(
      '--revoke <pages@cycles>',
      'a broker asks each tenant for pages at that cycle, and takes what is not given',
      revocationOf,
    )
    .option('--deadline <cycles>', 'how long a tenant has then', whole(10_000), DEADLINE)
    .option('--cycles <max>', 'stop a run that lasts longer', whole(1), 1_000_000_000)
    .option('--watchdog <seconds>', 'host time that it may take without an access', whole(1), 10)
    .addOption(new Option('--trace <what>', 'say more').choices(['refusals']))
    .option('--json', 'print the results as JSON instead')
    .action(async (files: readonly string[], options: RunOptions) => {
      terminal.status = await runFilesOf(files, options, terminal);
    });
};

/** `8@500000`. */
export function revocationOf(text: string): Pick<Revocation, 'pages' | 'at'> {
  const [pages = '', at = '', ...more] = text.split('@');
  if (more.length > 0 || at === '') throw new UsageError(`--revoke ${text}: say PAGES@CYCLES`);
  return { pages: whole(1, ASKED_MAX)(pages), at: whole(0, 2 ** 31 - 1)(at) };
}

async function runFilesOf(
  files: readonly string[],
  options: RunOptions,
  terminal: Terminal,
): Promise<number> {
  const paths = files.map(checkFile);
  const { mode: modes, revoke, deadline, memory, slice, seed, cycles, watchdog } = options;
  const tenants = options.tenants ?? paths.length;
  const revocation = revoke === undefined ? null : { ...revoke, deadline };
  if (revocation !== null && !modes.some(revokes)) {
    throw new UsageError(
      `--revoke: nobody asks for pages in mode ${modes.join(', ')}; add --mode exokernel`,
    );
  }
  if (tenants < paths.length) {
    throw new UsageError(`--tenants ${tenants}: there are ${paths.length} files to run`);
  }
  if (memory * tenants > QUOTA_MAX) {
    const most = Math.floor(QUOTA_MAX / tenants);
    throw new UsageError(
      `--memory ${memory}: the largest machine has ${QUOTA_MAX} pages for tenants; ` +
        `${most} each would fit ${tenants}`,
    );
  }
  const specs = modes.map((mode) => ({
    mode,
    tenants,
    memory,
    slice,
    seed,
    limit: cycles,
    revocation,
  }));
  const outcomes = await runInWorkers(specs, paths, watchdog, terminal);
  if (outcomes === null) return 1;
  const results = outcomes.map(({ result }) => result);
  const titles = Array.from(
    { length: tenants },
    (_, n) => `tenant ${n + 1} (${basename(paths[n % paths.length] ?? '')})`,
  );
  // Who is asked for pages is asked at another moment of its work in each mode.
  const compared = revocation === null ? modes : [];
  const { text, ok } = tell(results, titles, compared, options.trace === 'refusals');
  if (options.json === true) terminal.out(`${JSON.stringify({ schema: 1, ok, results })}\n`);
  else terminal.out(modes.length > 1 ? `${legend(modes)}\n\n${text}` : text);
  return ok ? 0 : 1;
}

/** Runs files in workers; null: one of them hangs, which has been said. */
export async function runInWorkers(
  specs: readonly RunSpec[],
  paths: readonly string[],
  watchdog: number,
  terminal: Terminal,
  every?: number,
): Promise<Ran[] | null> {
  const jobs = specs.map((spec): LibosJob => {
    const job = { what: 'libos' as const, spec, files: paths, heart: newHeart() };
    return every === undefined ? job : { ...job, every };
  });
  const hung = (error: unknown): LibosOutcome => {
    if (!(error instanceof Hung)) {
      throw new InternalFailure(error instanceof Error ? error.message : String(error));
    }
    const line = lineOf(error.loop, paths);
    return { hung: `${error.message}${line === '' ? '' : `; it loops at ${line}`}` };
  };
  const outcomes = await inWorkers(jobs, { jobs: 0, watchdog }, (one: LibosOutcome) => one, hung);
  const ran: Ran[] = [];
  for (const outcome of outcomes) {
    if ('unusable' in outcome) throw new UsageError(outcome.unusable);
    if ('hung' in outcome) {
      terminal.err(
        `exoscope: ${names(paths)}: ${outcome.hung}. A loop without an access or a call cannot ` +
          'be preempted: put `yield* port.work(n)` into it\n',
      );
      return null;
    }
    ran.push(outcome);
  }
  return ran;
}

type Ran = Extract<LibosOutcome, { readonly result: unknown }>;

const names = (paths: readonly string[]): string => paths.map((path) => basename(path)).join(', ');
