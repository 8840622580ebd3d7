/**
 * `exoscope map FILE...`: who owns pages, blocks and slices while library OSes run, as text: what
 * an exokernel exposes to all, and what a hypervisor keeps to itself. Exit status 0: drawn; 1: a
 * library OS hangs; 2: the command or a file makes no sense.
 */
import { fileURLToPath } from 'node:url';
import { drawn, HOST_LEGEND, LEGEND, TOUCHED } from '../author/chart.ts';
import { checkFile } from '../author/libos-file.ts';
import { revokes } from '../author/run.ts';
import { UsageError } from '../tree.ts';
import { type Subcommand, whole } from './command.ts';
import { revocationOf, runInWorkers } from './run.ts';

const DEFAULT = fileURLToPath(new URL('../../examples/pager.ts', import.meta.url));
const MODES = ['exokernel', 'vm', 'exokernel-in-vm'] as const;

const WATCHDOG = 10; // seconds

interface MapOptions {
  readonly every: number;
  readonly mode: string;
  readonly tenants?: number;
  readonly memory: number;
  readonly slice: number;
  readonly cycles: number;
  readonly revoke?: ReturnType<typeof revocationOf>;
  readonly deadline: number;
}

export const mapCommand: Subcommand = (program, terminal) => {
  program
    .command('map')
    .description('draw who owns pages, blocks and slices while library OSes run')
    .argument('[files...]', 'library OSes; default: examples/pager.ts, twice')
    .option('--every <cycles>', 'between two looks', whole(1000), 100_000)
    .option('--mode <name>', MODES.join(', '), 'exokernel')
    .option('--tenants <n>', 'default: one for each file', whole(1, 16))
    .option('--memory <pages>', 'pages that each may use', whole(16, 4096), 64)
    .option('--slice <cycles>', 'length of a time slice', whole(20_000), 100_000)
    .option('--cycles <max>', 'stop then', whole(1), 100_000_000)
    .option('--revoke <pages@cycles>', 'as of `exoscope run`', revocationOf)
    .option('--deadline <cycles>', 'how long a tenant has then', whole(10_000), 200_000)
    .action(async (files: readonly string[], options: MapOptions) => {
      const mode = MODES.find((name) => name === options.mode);
      if (mode === undefined) {
        throw new UsageError(
          `--mode ${options.mode}: nobody says there who owns what; there are ${MODES.join(', ')}`,
        );
      }
      const paths = (files.length === 0 ? [DEFAULT, DEFAULT] : files).map(checkFile);
      const { memory, slice, cycles, revoke, deadline, every } = options;
      if (revoke !== undefined && !revokes(mode)) {
        throw new UsageError(`--revoke: nobody asks for pages in mode ${mode}; --mode exokernel`);
      }
      const revocation = revoke === undefined ? null : { ...revoke, deadline };
      const tenants = Math.max(options.tenants ?? 0, paths.length);
      const touched = mode === 'vm';
      const spec = { mode, tenants, memory, slice, seed: 1, limit: cycles, revocation, touched };
      const ran = await runInWorkers([spec], paths, WATCHDOG, terminal, every);
      if (ran === null) terminal.status = 1;
      else {
        const legends = {
          exokernel: [LEGEND],
          vm: [HOST_LEGEND, TOUCHED],
          'exokernel-in-vm': [LEGEND, HOST_LEGEND],
        }[mode];
        terminal.out(`${legends.join('\n')}\n\n${drawn(ran[0]?.moments ?? [])}`);
      }
    });
};
