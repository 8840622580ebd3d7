/** `exoscope compare`, the default: workloads on real files in every mode, verified, explained. */
import { accessSync, constants, existsSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, resolve } from 'node:path';
import { Option } from 'commander';
import { PROFILES } from '../../machine/costs.ts';
import { DISKS } from '../../kernel/hypervisor/state.ts';
import { compare, type Comparison, json, writeWhole } from '../compare.ts';
import { parametersFor, QUOTA_MAX, SORT_MAX } from '../experiment.ts';
import { SWAP_MAX } from '../../libos/unix/swap.ts';
import { ALL_MODES, type Mode, MODES, type Parameters } from '../modes.ts';
import { exitTable, legend, number, table, why } from '../report.ts';
import { defaultTree, loadTree, UsageError } from '../tree.ts';
import { type Workload, WORKLOADS } from '../workloads.ts';
import { choice, type Subcommand, type Terminal, whole } from './command.ts';

const DISK_MAX = 1024; // MiB a tenant, unless --disk says otherwise

interface CompareOptions {
  readonly input?: string;
  readonly workload?: readonly Workload[];
  readonly mode?: readonly Mode[];
  readonly json?: string;
  readonly exits?: boolean;
  readonly profile: string;
  readonly seed: number;
  readonly memory?: number;
  readonly swap?: number;
  readonly slice?: number;
  readonly backing?: Parameters['backing'];
  readonly secondStage?: Parameters['secondStage'];
  readonly walkCaches: boolean;
  readonly diskModel: Parameters['disk'];
  readonly jobs: number;
  readonly disk: number;
  readonly watchdog: number;
}

const typescript = dirname(createRequire(import.meta.url).resolve('typescript/package.json'));

export const compareCommand: Subcommand = (program, terminal) => {
  program
    .command('compare', { isDefault: true })
    .description(
      'run workloads on real files in every mode, verify, and say what each cost and why',
    )
    .option(
      '--input <dir>',
      'directory of real files; default: the type declarations of TypeScript',
    )
    .option(
      '--workload <names>',
      'some of the workloads',
      choice('workload', WORKLOADS, (w) => w.name),
    )
    .option(
      '--mode <names>',
      'some of the modes',
      choice('mode', ALL_MODES, (mode) => mode),
    )
    .option('--json <file>', 'write the results there as well')
    .option('--exits', 'and exits of virtual machines by cause, of each hypervisor of a mode')
    .addOption(
      new Option('--profile <name>', 'cost profile')
        .choices(PROFILES.map(({ name }) => name))
        .default(PROFILES[0]?.name),
    )
    .option('--seed <n>', 'of entropy and mishaps', whole(1), 1)
    .option('--memory <pages>', 'pages that each tenant may use', whole(1024, QUOTA_MAX))
    .option(
      '--swap <pages>',
      "room on each tenant's disk for pages that its memory has none for",
      whole(0, SWAP_MAX),
    )
    .option('--slice <cycles>', 'length of a time slice', whole(20_000))
    .addOption(new Option('--backing <when>', 'of guest memory').choices(['populate', 'touch']))
    .addOption(
      new Option('--second-stage <size>', 'of its pages').choices(['4KiB', '2MiB', '1GiB']),
    )
    .addOption(
      new Option('--disk-model <name>', "of virtual machines' disks")
        .choices(DISKS)
        .default(DISKS[0]),
    )
    .option('--no-walk-caches', 'switch page-walk and nested translation caches off')
    .option('--disk <MiB>', 'largest disk of a tenant', whole(1), DISK_MAX)
    .option('--jobs <n>', 'runs at a time; 0: as many as cores', whole(0), 0)
    .option('--watchdog <seconds>', 'host time a run may take without an access', whole(1), 60)
    .action(async (options: CompareOptions) => {
      terminal.status = await runCompare(options, terminal);
    });
};

async function runCompare(options: CompareOptions, terminal: Terminal): Promise<number> {
  const tree = options.input === undefined ? defaultTree(typescript) : loadTree(options.input);
  const workloads = options.workload ?? WORKLOADS;
  const modes = options.mode ?? MODES;
  const parameters: Partial<Parameters> = {
    ...(options.memory === undefined ? {} : { quota: options.memory }),
    ...(options.swap === undefined ? {} : { swap: options.swap }),
    ...(options.slice === undefined ? {} : { sliceCycles: options.slice }),
    ...(options.backing === undefined ? {} : { backing: options.backing }),
    ...(options.secondStage === undefined ? {} : { secondStage: options.secondStage }),
    ...(options.backing === 'touch' ? { secondStage: '4KiB' as const } : {}),
    walkCaches: options.walkCaches,
    disk: options.diskModel,
  };
  const { backing, secondStage = '4KiB' } = options;
  if (backing === 'touch' && secondStage !== '4KiB') {
    throw new UsageError(
      '--backing touch goes with --second-stage 4KiB: large pages are populated',
    );
  }
  for (const workload of workloads) {
    const blocks = parametersFor(tree, workload).blocks + (options.swap ?? 0);
    if (blocks / 256 > options.disk) {
      throw new UsageError(
        `${workload.name} needs a disk of ${Math.ceil(blocks / 256)} MiB for this tree, ` +
          `--disk allows ${options.disk}; raise it, or name a smaller --input`,
      );
    }
  }
  if (tree.largestText > SORT_MAX && workloads.some(({ name }) => name === 'sort')) {
    throw new UsageError(
      `sort cannot hold ${tree.facts.largestText ?? ''}, ${tree.largestText} bytes: ` +
        `${SORT_MAX} are the most; leave the workload out, or name a smaller --input`,
    );
  }
  if (options.json !== undefined) checkWritable(options.json);

  const spec: Comparison = {
    workloads,
    modes,
    tree,
    input: options.input === undefined ? null : resolve(options.input),
    typescript,
    profile: PROFILES.find(({ name }) => name === options.profile) ?? raise(options.profile),
    seed: options.seed,
    parameters,
    jobs: options.jobs,
    watchdog: options.watchdog,
    progress: (done, all, what) => {
      showProgress(terminal, done, all, what);
    },
  };
  const { facts, skipped } = tree;
  terminal.out(
    `${number(facts.files)} files, ${number(facts.bytes)} bytes, two tenants, ` +
      `profile ${spec.profile.name}, seed ${spec.seed}` +
      `${options.diskModel === DISKS[0] ? '' : `, ${options.diskModel} disks in guests`}` +
      `${skipped > 0 ? `; left out ${skipped} that are neither file nor directory` : ''}\n\n` +
      `${legend(modes)}\n\n`,
  );
  const { results, mismatches } = await compare(spec);
  if (terminal.redraws) terminal.err('\r\x1b[K');
  const because = why(results, spec.profile);
  terminal.out(`${table(results)}\n${because === '' ? '' : `\n${because}\n`}`);
  if (options.exits === true) terminal.out(`\n${exitTable(results)}\n`);
  if (options.json !== undefined) writeWhole(options.json, json(spec, results));
  const wrong = results.filter(({ verified }) => !verified).length;
  if (wrong === 0) {
    terminal.out(
      `\nverified: all ${results.length} outputs equal the host's own tools, byte for byte\n`,
    );
    return 0;
  }
  terminal.out(`\nNOT verified: ${wrong} of ${results.length}\n${mismatches.join('\n')}\n`);
  return 1;
}

function raise(profile: string): never {
  throw new UsageError(`--profile ${profile}: there are ${PROFILES.map((p) => p.name).join(', ')}`);
}

function checkWritable(file: string): void {
  const directory = dirname(resolve(file));
  try {
    accessSync(directory, constants.W_OK);
  } catch {
    throw new UsageError(`--json ${file}: cannot write into ${directory}`);
  }
  if (existsSync(file) && statSync(file).isDirectory()) {
    throw new UsageError(`--json ${file}: is a directory; name a file`);
  }
}

function showProgress({ redraws, err }: Terminal, done: number, all: number, what: string): void {
  err(redraws ? `\r\x1b[K[${done}/${all}] ${what}` : `[${done}/${all}] ${what}\n`);
}
