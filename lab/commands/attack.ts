/**
 * `exoscope attack`: hostile library OSes, live against the exokernel, each with the check that
 * stopped it; with --break, without that check. Exit status 0: all is as it should be (all stopped,
 * or without the check at least one is not); 1: it is not; 2: no such attack or check.
 */
import { runAttacks, tellAttacks } from '../attacks/attack.ts';
import { attacks } from '../attacks/list.ts';
import { UsageError } from '../tree.ts';
import type { Subcommand } from './command.ts';

interface AttackOptions {
  readonly only?: string;
  readonly break?: string;
  readonly list?: boolean;
}

export const attackCommand: Subcommand = (program, terminal) => {
  program
    .command('attack')
    .description('run attacks against the exokernel, and name the check that stops each')
    .option('--only <names>', 'some of the attacks')
    .option('--break <check>', 'switch a check off: FILE:LINE or FILE:FUNCTION as printed')
    .option('--list', 'say which attacks there are')
    .action(async (options: AttackOptions) => {
      const all = attacks();
      if (options.list === true) {
        terminal.out(all.map(({ name, does }) => `${name.padEnd(16)} ${does}\n`).join(''));
        return;
      }
      const names = options.only?.split(',') ?? all.map(({ name }) => name);
      for (const name of names) {
        if (!all.some((one) => one.name === name)) {
          const there = all.map((one) => one.name).join(', ');
          throw new UsageError(`--only ${name}: no such attack; there are ${there}`);
        }
      }
      const off = options.break ?? null;
      const results = await runAttacks(names, off);
      terminal.out(tellAttacks(all, results, off));
      const won = results.some((result) => result.won);
      terminal.status = won === (off !== null) ? 0 : 1;
    });
};
