/** `exoscope explain EVENT`: one event, step by step, modes in columns. */
import { explain, EXPLAINED } from '../explain.ts';
import { ALL_MODES, type Mode } from '../modes.ts';
import { choice, type Subcommand } from './command.ts';

export const explainCommand: Subcommand = (program, terminal) => {
  program
    .command('explain')
    .description(`one event, step by step, modes in columns: ${EXPLAINED.join(', ')}`)
    .addArgument(program.createArgument('<event>', 'which').choices(EXPLAINED))
    .option(
      '--mode <names>',
      'some of the modes',
      choice('mode', ALL_MODES, (mode) => mode),
    )
    .action((event: (typeof EXPLAINED)[number], options: { mode?: readonly Mode[] }) => {
      terminal.out(explain(event, options.mode ?? ['bare', 'exokernel', 'vm']));
    });
};
