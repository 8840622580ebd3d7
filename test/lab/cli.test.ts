/**
 * The command line as its users meet it: a process, its exit status, its two streams and what it
 * leaves behind. Few spawns, as each costs a second: what needs no process is run in this one.
 */
import { spawn } from 'node:child_process';
import { accessSync, chmodSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

import { exoscope as inProcess } from '../../lab/exoscope.ts';
import { EXPLAINED } from '../../lab/explain.ts';
import type { Result } from '../../lab/experiment.ts';
import { directoryOf, SMALL, text } from './trees.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const LIMIT = 60_000; // ms: a loaded machine is slow

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs the command line; `plant` is a module that is loaded before it, into workers too. */
function exoscope(args: readonly string[], plant: string | null = null): Promise<Ended> {
  const command =
    plant === null
      ? [join(ROOT, 'bin/exoscope.js')]
      : ['--import', new URL(plant, import.meta.url).href, join(ROOT, 'bin/exoscope.js')];
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [...command, ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const streams = { stdout: '', stderr: '' };
    child.stdout.setEncoding('utf8').on('data', (part: string) => (streams.stdout += part));
    child.stderr.setEncoding('utf8').on('data', (part: string) => (streams.stderr += part));
    child.on('close', (status) => {
      resolve({ status, ...streams });
    });
  });
}

describe('a command that makes no sense', () => {
  const tree = (): string => directoryOf({ a: text(10) });
  const denied = (): string => {
    const directory = directoryOf({ 'in/a': 'x' });
    chmodSync(join(directory, 'in'), 0);
    return join(directory, 'in');
  };
  const isReadable = (directory: string): boolean => {
    try {
      accessSync(directory, constants.R_OK);
      return true;
    } catch {
      return false;
    }
  };

  const CASES: readonly (readonly [name: string, args: () => string[], says: RegExp])[] = [
    ['no such input', () => ['--input', '/nope/nowhere'], /--input \/nope\/nowhere: no such dir/],
    ['a file as input', () => ['--input', join(tree(), 'a')], /not a directory/],
    ['an unknown option', () => ['--frobnicate'], /unknown option.*--frobnicate/],
    ['an unknown workload', () => ['--workload', 'read,nope'], /no workload 'nope'.*sha256/],
    ['an unknown mode', () => ['--mode', 'metal'], /no mode 'metal'.*exokernel-in-vm/],
    ['an unknown profile', () => ['--profile', 'z80'], /--profile/],
    ['an extra argument', () => ['compare', 'more'], /too many arguments|more/],
    ['an unknown command', () => ['frobnicate'], /frobnicate|too many arguments|unknown command/],
    ['explain what', () => ['explain', 'everything'], /disk-read/],
    ['explain nothing', () => ['explain'], /missing required argument/],
    ['a seed that is none', () => ['--seed', '1.5'], /--seed.*whole number/],
    ['a slice that is too short', () => ['--slice', '100'], /--slice.*20000/],
    ['memory that is none', () => ['--memory', 'much'], /--memory.*whole number/],
    ['more memory than there may be', () => ['--memory', '40000'], /--memory.*31500/],
    ['a swap area that is too large', () => ['--swap', '24577'], /--swap.*24576/],
    ['a swap area that is none', () => ['shell', '--swap', 'some'], /--swap.*whole number/],
    ['a model of disks that is none', () => ['--disk-model', 'tape'], /--disk-model.*passthrough/],
    ['no number at all', () => ['--jobs', ''], /--jobs.*whole number/],
    ['an option without its value', () => ['--input'], /argument missing|--input/],
    [
      'a report into nowhere',
      () => ['--input', tree(), '--json', '/nope/nowhere/out.json'],
      /--json .*cannot write/,
    ],
    ['a report onto a directory', () => ['--input', tree(), '--json', tree()], /is a directory/],
    [
      'a disk that is too small',
      () => ['--input', directoryOf({ a: 'x'.repeat(3_000_000) }), '--disk', '2'],
      /needs a disk of \d+ MiB.*--disk/,
    ],
    [
      'a text that is too large',
      () => ['--input', directoryOf({ a: 'x\n'.repeat(15_000_000) })],
      /sort cannot hold \.\/a, 30000000 bytes/,
    ],
    [
      'megapages backed when touched',
      () => ['--backing', 'touch', '--second-stage', '2MiB'],
      /--backing touch.*4KiB/,
    ],
  ];

  test.each(CASES)('%s: is refused in one line, with exit status 2', async (_, args, says) => {
    const streams = { stdout: '', stderr: '' };
    const status = await inProcess(args(), {
      out: (text) => void (streams.stdout += text),
      err: (text) => void (streams.stderr += text),
      redraws: false,
      status: 0,
    });
    expect({ status, stdout: streams.stdout }).toEqual({ status: 2, stdout: '' });
    expect(streams.stderr).toMatch(/^exoscope: .+\n$/);
    expect(streams.stderr).toMatch(says);
  });

  test(
    'a process tells it by its exit status',
    async () => {
      const { status, stdout, stderr } = await exoscope(['--frobnicate']);
      expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
      expect(stderr).toMatch(/^exoscope: unknown option.*\n$/);
    },
    LIMIT,
  );

  test(
    'an input that cannot be read',
    async (context) => {
      const directory = denied();
      const readable = isReadable(directory);
      if (readable) chmodSync(directory, 0o700);
      context.skip(readable, 'nothing can be denied to this user');
      const { status, stdout, stderr } = await exoscope(['--input', directory]);
      chmodSync(directory, 0o700);
      expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
      expect(stderr).toMatch(/^exoscope: --input .*permission denied.*\n$/);
    },
    LIMIT,
  );
});

describe('a comparison', () => {
  test(
    'prints a table and writes JSON, whole',
    async () => {
      const directory = directoryOf(SMALL);
      const out = directoryOf({ 'old.json': 'not JSON' });
      const run = (file: string, jobs: string): Promise<Ended> =>
        exoscope([
          '--input',
          directory,
          '--workload',
          'read,fork',
          '--mode',
          'vm,bare,exokernel',
          '--json',
          join(out, file),
          '--jobs',
          jobs,
        ]);
      const [first, second] = await Promise.all([run('old.json', '2'), run('new.json', '1')]);
      expect(first.status).toBe(0);
      expect(first.stdout).toMatch(/verified: all 6 outputs equal the host's own tools/);
      expect(first.stdout).toMatch(/^6 files, [\d,]+ bytes, two tenants/);
      expect(first.stderr).toMatch(/\[6\/6\]/);
      // Neither how many run at a time nor when: the same, byte for byte.
      expect(second.stdout).toBe(first.stdout);
      const text = readFileSync(join(out, 'old.json'), 'utf8');
      expect(readFileSync(join(out, 'new.json'), 'utf8')).toBe(text);
      expect(readdirSync(out).sort()).toEqual(['new.json', 'old.json']);
      const { schema, machine, results } = JSON.parse(text) as {
        schema: number;
        machine: { profile: string; cycles: Record<string, number> };
        results: Result[];
      };
      expect(schema).toBe(1);
      expect(machine.profile).toBe('riscv-inorder');
      expect(results.map(({ workload, mode }) => `${workload} ${mode}`)).toEqual([
        'read vm',
        'read bare',
        'read exokernel',
        'fork vm',
        'fork bare',
        'fork exokernel',
      ]);
      for (const result of results) {
        expect(result.verified).toBe(true);
        expect(result.cycles).toBeGreaterThan(0);
        expect(result.stdoutSha256).toMatch(/^[0-9a-f]{64}$/);
      }
    },
    LIMIT,
  );

  test(
    'that is not verified says where, and ends with 1',
    async () => {
      const out = directoryOf({ 'dir/': '' });
      const { status, stdout } = await exoscope(
        [
          '--input',
          directoryOf({ a: text(3) }),
          '--workload',
          'fork,compute',
          '--mode',
          'exokernel',
          '--json',
          join(out, 'out.json'),
        ],
        './plant-error.js',
      );
      expect(status).toBe(1);
      expect(stdout).toMatch(/NOT verified: 1 of 2\n/);
      expect(stdout).toMatch(
        /fork exokernel tenant 1: \d+ bytes, the host prints \d+; they differ at byte/,
      );
      expect(stdout).toMatch(/fork exokernel tenant 2: /);
      expect(stdout).toMatch(/\bNO\n/);
      const { results } = JSON.parse(readFileSync(join(out, 'out.json'), 'utf8')) as {
        results: Result[];
      };
      expect(results.map(({ verified }) => verified)).toEqual([false, true]);
    },
    LIMIT,
  );

  test(
    'in which the simulator fails says what came before, and ends with 70',
    async () => {
      const out = directoryOf({ 'dir/': '' });
      const { status, stderr } = await exoscope(
        [
          '--input',
          directoryOf({ a: text(3) }),
          '--workload',
          'fork',
          '--mode',
          'exokernel,bare',
          '--seed',
          '5',
          '--json',
          join(out, 'out.json'),
        ],
        './plant-bug.js',
      );
      expect(status).toBe(70);
      expect(stderr).toContain('fork exokernel, seed 5: broken promise: planted: fewer than 2000');
      expect(stderr.match(/^ {2}\d+ {2}layer \d {2}(trap|upcall|exit)\b/gm)).toHaveLength(32);
      expect(existsSync(join(out, 'out.json'))).toBe(false);
    },
    LIMIT,
  );

  test(
    'that hangs is given up, and ends with 70',
    async () => {
      const { status, stderr } = await exoscope(
        [
          '--input',
          directoryOf({ a: text(3) }),
          '--workload',
          'fork',
          '--mode',
          'exokernel',
          '--watchdog',
          '1',
        ],
        './plant-loop.js',
      );
      expect(status).toBe(70);
      expect(stderr).toMatch(/exoscope: fork exokernel: no simulated access for 1 s/);
    },
    LIMIT,
  );
});

describe('explain', () => {
  test(
    'has columns of steps, each with the line that did it',
    async () => {
      const sizes = new Map<string, number>();
      const lines = (file: string): number => {
        let count = sizes.get(file);
        if (count === undefined) {
          const path = join(ROOT, file);
          count = existsSync(path) ? readFileSync(path, 'utf8').split('\n').length : 0;
          sizes.set(file, count);
        }
        return count;
      };
      const explained = await Promise.all(
        EXPLAINED.map(async (event) => ({ event, ...(await exoscope(['explain', event])) })),
      );
      for (const { event, status, stdout, stderr } of explained) {
        expect({ event, status, stderr }).toEqual({ event, status: 0, stderr: '' });
        expect(stdout).toMatch(new RegExp(`^${event}: .+\\n\\nBARE +EXOKERNEL +VM *\\n`));
        const places = [...stdout.matchAll(/([\w/-]+\.ts):(\d+)/g)];
        expect(places.length, event).toBeGreaterThan(5);
        for (const [place, file, line] of places) {
          expect(lines(file ?? ''), place).toBeGreaterThanOrEqual(Number(line));
        }
        const totals = /^([\d,]+) cycles in all +([\d,]+) cycles in all +([\d,]+) cycles/m.exec(
          stdout,
        );
        const [bare, exokernel, vm] = (totals ?? [])
          .slice(1)
          .map((n) => Number(n.replaceAll(',', '')));
        expect(bare, event).toBeGreaterThan(0);
        if (event !== 'slice') expect(exokernel, event).toBeGreaterThan(bare ?? 0);
        expect(vm, event).toBeGreaterThan(0);
      }
    },
    LIMIT,
  );

  test(
    'in some of the modes',
    async () => {
      const { stdout } = await exoscope(['explain', 'call', '--mode', 'exokernel-in-vm,bare']);
      expect(stdout).toMatch(/\nEXOKERNEL-IN-VM +BARE *\n/);
    },
    LIMIT,
  );
});
