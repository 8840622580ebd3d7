/**
 * `exoscope new NAME`: a skeleton of a library OS, and what to do with it. Exit status 0: written;
 * 2: the name or the place makes no sense, or something is there already.
 */
import { relative } from 'node:path';
import { writeSkeleton } from '../author/skeleton.ts';
import type { Subcommand } from './command.ts';

export const newCommand: Subcommand = (program, terminal) => {
  program
    .command('new')
    .description('write a commented skeleton of a library OS, with a test')
    .argument('<name>', 'of it: small letters, digits and hyphens')
    .option('--dir <directory>', 'where; default: `mine` in a checkout, else here')
    .action((name: string, { dir }: { dir?: string }) => {
      const { libos, test, checkout } = writeSkeleton(name, dir);
      const [file, its] = [libos, test].map((path) => relative('.', path));
      const exoscope = checkout ? 'npx tsx lab/cli.ts' : 'npx exoscope';
      terminal.out(
        `wrote ${file} and ${its}\n\n` +
          `    ${exoscope} run ${file} --mode all\n` +
          `    npx vitest run ${its}\n\n` +
          'docs/tutorial.md goes on from here; docs/ABI.md has every call\n',
      );
    });
};
