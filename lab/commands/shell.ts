/**
 * `exoscope shell`: the Unix on the host's terminal, or on a script through a pipe. Exit status:
 * of the shell; 2: the command makes no sense; 70: the simulator failed. ^C at the terminal is for
 * what runs there. A signal of the host's ends it as any program (to a shell: 130 for SIGINT), and
 * a disk in a file is then what a power cut leaves.
 */
import { Option } from 'commander';
import { ALL_MODES } from '../modes.ts';
import { QUOTA_MAX } from '../experiment.ts';
import { runShell, type ShellOptions, SWAP } from '../shell.ts';
import { SWAP_MAX } from '../../libos/unix/swap.ts';
import { type Subcommand, whole } from './command.ts';

const MEMORY = 4096; // pages

export const shellCommand: Subcommand = (program, terminal) => {
  program
    .command('shell')
    .description("the Unix on this terminal, or on standard input's script; ^D ends it")
    .addOption(
      new Option('--mode <name>', 'what it runs on').choices(ALL_MODES).default('exokernel'),
    )
    .option('--input <dir>', 'directory of real files, to be found as /in')
    .option('--memory <pages>', 'pages that it may use', whole(1024, QUOTA_MAX), MEMORY)
    .option(
      '--swap <pages>',
      `room on the disk for pages that memory has none for; 0: none (default: ${SWAP})`,
      whole(0, SWAP_MAX),
    )
    .option('--disk <file>', 'keep the disk in a file, made if it is not there')
    .action(async (options: ShellOptions) => {
      terminal.status = await runShell(options, process);
    });
};
