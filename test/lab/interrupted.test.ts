/**
 * ^C on the host: `exoscope shell` and `exoscope run` end as programs do that a signal ends (a
 * shell says 130), and what they leave behind is in order: a disk in a file is what a power cut
 * leaves, of which nothing that was synchronised is lost.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, watch, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

import { RamMedium } from '../../machine/disk.ts';
import { fsck } from '../libos/unix/fsck.ts';

const BLOCK = 4096;
const EXOSCOPE = [process.execPath, '--import', 'tsx', 'lab/cli.ts'] as const;
let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'exoscope-interrupted-'));
});
afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

interface Ended {
  readonly out: string;
  readonly status: number | null;
  readonly signal: string | null;
}

/** What a process prints; `act` is told of all of it each time that there is more. */
async function watched(child: ChildProcess, act: (out: string) => void): Promise<Ended> {
  let out = '';
  const hear = (bytes: Buffer): void => {
    out += bytes.toString('latin1');
    act(out);
  };
  child.stdout?.on('data', hear);
  child.stderr?.on('data', hear);
  return await new Promise((resolve) => {
    child.on('close', (status, signal) => {
      resolve({ out, status, signal });
    });
  });
}

describe('^C, while input comes through a pipe', () => {
  test.each([1, 4])('the disk holds what %i syncs were for', async (syncs) => {
    const disk = join(directory, `disk-${syncs}`);
    const child = spawn(EXOSCOPE[0], [...EXOSCOPE.slice(1), 'shell', '--disk', disk]);
    child.stdin.write(
      'n=0; while :; do n=$((n + 1)); seq 1 $((n * 1000)) > f$n; sync; echo "synced $n"; done\n',
    );
    const ended = await watched(child, (out) => {
      if (out.includes(`synced ${syncs}\n`)) child.kill('SIGINT');
    });
    expect(ended).toMatchObject({ status: null, signal: 'SIGINT' });
    const told = [...ended.out.matchAll(/synced (\d+)/g)].length;
    expect(told).toBeGreaterThanOrEqual(syncs);

    // First as it lies there, then as the Unix finds it.
    const bytes = readFileSync(disk);
    const blocks = bytes.length / BLOCK;
    const medium = new RamMedium(blocks);
    for (let n = 0; n < blocks; n++) medium.write(n, bytes.subarray(n * BLOCK, (n + 1) * BLOCK));
    const { problems, tree } = fsck(medium);
    expect(problems).toEqual([]);
    for (let n = 1; n <= told; n++) {
      expect(tree.get(`/in/f${n}`)?.split('\n')).toHaveLength(n * 1000 + 1);
    }
    const again = spawnSync(EXOSCOPE[0], [...EXOSCOPE.slice(1), 'shell', '--disk', disk], {
      input: `tail -n 1 f${told}; echo new > g; cat g\n`,
      encoding: 'utf8',
    });
    expect(again).toMatchObject({ status: 0, stdout: `${told * 1000}\nnew\n`, stderr: '' });
  });
});

describe('^C, while a library OS runs', () => {
  test('nothing is left running', async () => {
    const [file, mark] = [join(directory, 'endless.ts'), join(directory, 'mark')];
    const libos = join(import.meta.dirname, '../../libos/libos.ts');
    writeFileSync(
      file,
      `import { writeFileSync } from 'node:fs';\n` +
        `import { image, LibOS, type Op } from ${JSON.stringify(libos)};\n` +
        `class Endless extends LibOS {\n` +
        `  override *main(): Op<void> {\n` +
        `    writeFileSync(${JSON.stringify(mark)}, '');\n` +
        `    for (;;) this.port.work(1000) ?? (yield* this.port.fault());\n  }\n}\n` +
        `export default image('endless', (port) => new Endless(port));\n`,
    );
    const words = [...EXOSCOPE.slice(1), 'run', file, '--cycles', String(2 ** 40)];
    const watching = watch(directory);
    const child = spawn(EXOSCOPE[0], words);
    watching.on('change', (_, name) => {
      if (name === 'mark') child.kill('SIGINT');
    });
    const ended = await watched(child, () => undefined);
    watching.close();
    expect(ended).toEqual({ out: '', status: null, signal: 'SIGINT' });
  });
});
