/**
 * The command line as a function: arguments in, two streams and an exit status out. Exit status 0:
 * done, and every output verified; 1: something is not verified, or a library OS failed; 2: the
 * command makes no sense, one line says why; 70: the simulator itself failed.
 */
import { Command, CommanderError } from 'commander';
import * as commands from './commands/index.ts';
import type { Terminal } from './commands/command.ts';
import { InternalFailure } from './compare.ts';
import { UsageError } from './tree.ts';

export const INTERNAL = 70;

/** Runs `exoscope ARGS`; never throws. The exit status is the terminal's. */
export async function exoscope(args: readonly string[], terminal: Terminal): Promise<number> {
  const program = new Command('exoscope')
    .description('The same library OS on an exokernel and in virtual machines, counted.')
    .configureOutput({ writeOut: terminal.out, outputError: () => undefined })
    .showHelpAfterError(false)
    .exitOverride();
  for (const add of Object.values(commands)) add(program, terminal);
  try {
    await program.parseAsync(args, { from: 'user' });
  } catch (error) {
    terminal.status = fail(error, terminal);
  }
  return terminal.status;
}

/** One line, and the status that says whose mistake it was. */
function fail(error: unknown, { err }: Terminal): number {
  if (error instanceof CommanderError) {
    if (error.exitCode === 0) return 0; // help or version was asked for
    const text = error.message.replace(/^error: /, '').split('\n')[0] ?? '';
    err(`exoscope: ${text} (exoscope --help lists what there is)\n`);
    return 2;
  }
  if (error instanceof UsageError) {
    err(`exoscope: ${error.message}\n`);
    return 2;
  }
  if (error instanceof InternalFailure) err(`\nexoscope: ${error.message}\n`);
  else err(`\nexoscope: ${error instanceof Error ? (error.stack ?? '') : String(error)}\n`);
  return INTERNAL;
}
