/**
 * What the Unix promises its processes, tried on the real one in the modes that differ: memory,
 * processes, pipes, files, and that a process which misbehaves hurts nobody else.
 */
import { describe, expect, test } from 'vitest';

import type { Mode, Parameters } from '../../../lab/modes.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import type { RamMedium } from '../../../machine/disk.ts';
import { TRIALS } from './behaviour-programs.ts';
import { type Files, runOnHost } from './host.ts';
import {
  boot,
  type Booted,
  Image,
  LIMIT,
  type RealOutcome,
  runReal,
  status,
  treeOf,
} from './real.ts';

const programs = [...PROGRAMS, status, ...TRIALS];
const SINGLE = ['bare', 'exokernel', 'vm'] as const;
const SHARED = ['exokernel', 'vm'] as const;

const FILES: Files = { 'some/text': 'one\ntwo\n', other: 'x'.repeat(10_000), digits: '0' };
const image = new Image(treeOf(FILES), 3000);

interface Options {
  readonly mode?: Mode;
  readonly parameters?: Partial<Parameters>;
  readonly limit?: number;
  readonly image?: Image;
}

function run(scripts: readonly string[], options: Options = {}): RealOutcome {
  const { mode = 'exokernel', parameters = {}, limit = LIMIT, image: disk = image } = options;
  return runReal(disk, scripts, { mode, parameters, programs, limit });
}

/** Standard output of one script that ends, and of which no kernel complains. */
function output(script: string, options: Options = {}): string {
  const { stdout, ended, complaints } = run([script], options);
  expect({ ended, complaints }).toEqual({ ended: true, complaints: [] });
  return stdout[0] ?? '';
}

/** The same, on several configurations that nothing here may depend on. */
function everywhere(script: string, wanted: string): void {
  for (const mode of SINGLE) expect(output(script, { mode }), mode).toBe(wanted);
  const parameters = { sliceCycles: 20_000 };
  expect(output(script, { parameters }), 'short slices').toBe(wanted);
}

const lines = (text: string): string[] => text.split('\n').filter((line) => line !== '');

describe('memory', () => {
  test('fork shares it copy on write, in both directions', () => {
    const wanted =
      'base true\nchild 100 0\ngrandchild 400\ngrandchild 3\n' +
      'parent 200 201\nparent 1\nchild 300 3\nparent 4\n';
    everywhere('cow', wanted);
  });

  test.each(SINGLE)('no page is lost: %s', (mode) => {
    // The first round makes pages that stay: pipes, file windows. Orphans end during the sort.
    const round = 'seq 1 300 | sort | cat | wc -l; bad null; bad memory; pipes 99 5000; forks 6';
    const free = 'seq 1 9999 | sort -r | cat | head -n 0; free';
    const script = `${round}; ${free}; forks 100; ${free}; orphans 10; ${free}; ${round}; ${free}`;
    const { stdout, ended } = run([script], { mode });
    const counts = lines(stdout[0] ?? '').filter((line) => /^\d{4}$/.test(line));
    expect({ ended, different: new Set(counts).size, counts: counts.length }).toEqual({
      ended: true,
      different: 1,
      counts: 4,
    });
  });

  test.each(SINGLE)('more than there is costs the process: %s', (mode) => {
    const [stdout = ''] = run(['bad memory; status "bad memory"; forks 3; echo after'], {
      mode,
    }).stdout;
    expect(stdout).toMatch(
      /^begins memory\nunix: process \d+, environment \d+, killed: cause 15 at/,
    );
    expect(stdout).toMatch(/=status 139=after\n$/);
    expect(stdout).not.toContain('goes on');
  });
});

describe('processes', () => {
  test('exec replaces the program and its memory', () => {
    everywhere(
      'status execs',
      'missing -2\ntoo long -7\nfresh true 0 ["fresh","a","","b c"]\n=status 9=',
    );
  });

  test('exit statuses', () => {
    const script = [0, 1, 2, 3, 127, 255].map((n) => `status "exits ${n}"`).join('; ');
    everywhere(script, [0, 1, 2, 3, 127, 255].map((n) => `=status ${n}=`).join(''));
  });

  test('wait', () => {
    everywhere('waits', 'none -10\nfour true 10,11,12,13 -10\nlate 19\n');
  });

  test('more children than there are rows', () => {
    const stdout = output(`echo x${' | cat'.repeat(70)}; echo after`);
    expect(stdout).toMatch(/sh: cannot (fork|make a pipe): /);
    expect(stdout).toMatch(/after\n$/);
  });
});

describe('pipes and descriptors', () => {
  const sum = ((): number => {
    let total = 0;
    for (let n = 0; n < 50_000; n++) {
      total = (Math.imul(total, 31) + ((n * n * 7 + (n >> 8)) & 0xff)) | 0;
    }
    return total;
  })();

  test.each([
    [50_000, 50_000],
    [50_000, 77],
    [100, 50_000],
    [4096, 4096],
    [4097, 4095],
    [1000, 999],
  ])('reads of %i bytes, writes of %i', (read, write) => {
    expect(output(`pipes ${read} ${write}`)).toBe(`read 50000 ${sum}\n`);
  });

  test('one waits for the other, in every mode', () => {
    everywhere('pipes 300 20000; pipes 20000 300', `read 50000 ${sum}\n`.repeat(2));
  });

  test('the other end is gone', () => {
    const bad = 'bad -9,-9,-9,-9,-9\n'.repeat(5);
    everywhere(
      'ends',
      'five 5\nend 0\nend 0\nclosed -9\nnobody reads -32\ngone -32\nnone left 0\nwrong -9 -9\n' +
        `${bad}bad -9,-9,-9,-9\n`,
    );
  });

  test('a stage that stops reading ends those before it', () => {
    everywhere('seq 1 100000 | head -n 2; seq 1 100000 | cat | cat | head -n 1', '1\n2\n1\n');
  });

  test('dup2, and an offset shared by parent and child', () => {
    everywhere('dups', '3456\n789abcde\ncannot -9\nmany -24 15\n');
  });
});

describe('a process that misbehaves', () => {
  const own = ['null', 'wild', 'odd', 'readonly', 'yield'];
  const thrown = ['throw', 'strange', 'past', 'further', 'bounds'];
  const steady = 'seq 1 2000 | sort -n | sha256sum; forks 4; cat some/text';
  const undisturbed = runOnHost(FILES, 'seq 1 2000 | sort -n | sha256sum; cat some/text').stdout;

  test.each(SINGLE)('dies alone, by a fault of its own: %s', (mode) => {
    for (const what of own) {
      const { stdout, ended } = run([`bad ${what}; status "bad ${what}"; echo after`], { mode });
      expect({ ended, stdout }).toEqual({
        ended: true,
        stdout: [
          expect.stringMatching(
            new RegExp(
              `^begins ${what}\nunix: process \\d+, environment \\d+, killed: ` +
                `cause \\d+ at 0x[0-9a-f]+\nbegins ${what}\n=status 139=after\n$`,
            ),
          ),
        ],
      });
    }
  });

  test.each(SINGLE)('dies alone, by an exception: %s', (mode) => {
    for (const what of thrown) {
      const { stdout, complaints, ended } = run([`status "bad ${what}"; echo after`], { mode });
      expect(ended).toBe(true);
      // The kernel of a virtual machine has no console but its own.
      const said = mode === 'vm' ? (stdout[0] ?? '') : complaints.join('\n');
      expect(said).toMatch(/environment \d+: \S/);
      expect(stdout[0]).toMatch(/=status 139=after\n$/);
      expect(stdout[0]).not.toContain('goes on');
    }
  });

  test.each(SINGLE)('survives absurd calls, as it was refused them all: %s', (mode) => {
    expect(output('bad absurd; echo after', { mode })).toBe('begins absurd\nafter\n');
  });

  test.each(SHARED)('leaves the other tenant alone: %s', (mode) => {
    const all = [...own, ...thrown, 'absurd', 'memory'];
    const { stdout, ended } = run([all.map((what) => `bad ${what}`).join('; '), steady], { mode });
    expect({ ended, stdout: stdout[1] }).toEqual({ ended: true, stdout: undisturbed });
  });

  test.each(SHARED)('for ever, leaves the other tenant its time: %s', (mode) => {
    const scripts = ['bad loop | bad work', steady];
    const { stdout, ended } = run(scripts, { mode, limit: 150e6 });
    expect({ ended, stdout: stdout[1] }).toEqual({ ended: false, stdout: undisturbed });
  });

  test.each(SINGLE)('for ever, leaves its own Unix its time: %s', (mode) => {
    const script = 'bad loop | seq 1 3 | sort -r | bad work | seq 4 2000 | sort -n | tee';
    const { stdout, ended } = run([script.replace(' | tee', '')], { mode, limit: 150e6 });
    expect(ended).toBe(false);
    expect(stdout[0]).toContain(runOnHost({}, 'seq 4 2000').stdout);
  });
});

describe('files', () => {
  test('paths', () => {
    const wanted = '-2 -2 -20 -21 -36 3 -36 -17 -17 -39 -2 0 0 -2 -2\ntrue true\n';
    everywhere('paths', wanted);
  });

  test('many in one directory', () => {
    const stdout = output('many m 300; ls m | sort | sha256sum; find m -type f | wc -l');
    const host =
      'mkdir m; i=0; while [ $i -lt 300 ]; do n=$(printf "%*s" $((i % 97)) "" | tr " " n)$i; ' +
      '[ $((i % 3)) = 0 ] || echo $i > m/$n; i=$((i + 1)); done; ls m | sort | sha256sum';
    expect(stdout).toBe(`200\n${runOnHost({}, host).stdout}200\n`);
  });

  test('bytes at every offset', () => {
    everywhere('patches', 'true 0 true\n');
  });

  test('beyond the indirect block; overwritten, cut short, removed', () => {
    const script =
      'seq 1 700000 > big; sha256sum big; wc -c big; echo short > big; cat big; ls; ' +
      'seq 1 200000 > big; sha256sum big; rm big; ls';
    const disk = new Image(treeOf(FILES), 1800);
    // The disk holds it once: blocks that did not come back would be missing.
    const twice = `${script}; ${script}`;
    const host = runOnHost(FILES, twice).stdout;
    expect(output(twice, { image: disk })).toBe(host);
  });

  test('what is written is there after a boot', () => {
    const write = 'seq 1 50000 > a; mkdir d; cp -r some d/copy; echo x > other';
    const scripts = [`${write}; sync`, `${write}; sync`];
    const medium = image.medium(scripts);
    const first = booted(medium, 2);
    expect(first.machine.run(LIMIT)).toBe('halted');
    first.machine.powerOff();
    const read = 'sha256sum a; cat d/copy/text other; find . | sort';
    image.rewrite(medium, [read, read]);
    const second = booted(medium, 2, 'vm');
    expect(second.machine.run(LIMIT)).toBe('halted');
    const host = runOnHost(FILES, `${write}; ${read}`).stdout;
    expect(second.outcome().stdout).toEqual([host, host]);
  });
});

function booted(
  medium: RamMedium,
  tenants = 1,
  mode: Mode = 'exokernel',
  disk: Image = image,
): Booted {
  return boot(disk, medium, tenants, { mode, programs });
}

describe('the disk', () => {
  const saved = 'seq 1 20000 > a; mkdir d; many d/many 60; cp -r some d/copy; sync; echo synced';
  const read = 'sha256sum a; find d -type f | sort | xargs cat | sha256sum; cat d/copy/text';
  const more = 'mkdir e; many e/m 200; seq 1 20000 > e/b; cp -r d e/d';
  const host = runOnHost(
    FILES,
    'seq 1 20000 > a; mkdir d d/many; i=0; while [ $i -lt 60 ]; do ' +
      'n=$(printf "%*s" $((i % 97)) "" | tr " " n)$i; ' +
      `[ $((i % 3)) = 0 ] || echo $i > d/many/$n; i=$((i + 1)); done; cp -r some d/copy; ${read}`,
  ).stdout;

  // Cycles after which power is lost: at once, and while more is being written.
  test.each([0, 2e6, 7e6, 23e6])('loses power %d cycles after a sync', (later) => {
    const medium = image.medium([`${saved}; ${more}; sync; ${more}`]);
    const { machine, outcome } = booted(medium);
    machine.run(LIMIT, () => outcome().stdout[0]?.endsWith('synced\n') === true);
    if (later > 0) machine.run(machine.now() + later);
    machine.powerCut();
    image.rewrite(medium, [read]);
    const again = booted(medium);
    expect(again.machine.run(LIMIT)).toBe('halted');
    expect(again.outcome()).toEqual({ stdout: [host], complaints: [] });
  });

  test('is full', () => {
    const disk = new Image(treeOf(FILES), 400);
    const script =
      'seq 1 400000 > big; echo x > small; cat small; mkdir e; cat some/text; sha256sum other; ' +
      'wc -c digits; rm big; seq 1 1000 > small; sha256sum small; mkdir f; ls';
    const stdout = output(script, { image: disk });
    expect(stdout).toContain('seq: write error: No space left on device\n');
    const digest = runOnHost(FILES, 'sha256sum other; wc -c digits').stdout;
    expect(stdout).toContain(`one\ntwo\n${digest}`);
    const after = runOnHost(FILES, 'seq 1 1000 > small; sha256sum small').stdout;
    expect(stdout).toContain(after);
    expect(stdout).toMatch(/\nf\n/);
  });

  test('is full in the middle of a copy', () => {
    const disk = new Image(treeOf({ ...FILES, large: 'y'.repeat(600_000) }), 400);
    const stdout = output('cp large a; cp large b; cp large c; sha256sum large', { image: disk });
    expect(stdout).toMatch(/cp: .*No space left on device\n/);
    const digest = runOnHost({ large: 'y'.repeat(600_000) }, 'sha256sum large').stdout;
    expect(stdout.endsWith(digest)).toBe(true);
  });

  test('has no inodes left', () => {
    const disk = new Image(treeOf(FILES), 300); // 160 inodes, and 200 of one block each are wanted
    const stdout = output('status "many m 170"; echo y > y; cat some/text; ls m | wc -l', {
      image: disk,
    });
    expect(stdout).toContain('=status 1=');
    expect(stdout).toContain('No space left on device');
    expect(stdout).toContain('one\ntwo\n');
  });

  test.each(SINGLE)('fails to read a block: %s', (mode) => {
    const bytes = (n: number): string => String.fromCharCode(65 + n).repeat(4096);
    const files = { bad: Array.from({ length: 20 }, (_, n) => bytes(n)).join(''), good: 'fine\n' };
    const disk = new Image(treeOf(files), 500);
    const script = 'cat bad | wc -c; cat good; sha256sum good';
    const medium = disk.medium([script]);
    const { machine, outcome } = booted(medium, 1, mode, disk);
    const block = new Uint8Array(4096);
    for (let n = 0; n < disk.blocks; n++) {
      medium.read(n, block);
      if (Buffer.from(block).toString('latin1') === bytes(10)) machine.device.failBlock(n);
    }
    expect(machine.run(LIMIT)).toBe('halted');
    const [stdout = ''] = outcome().stdout;
    // Everything before it is read, the first ten blocks, though they are read ahead together.
    expect(stdout).toContain('cat: bad: Input/output error\n');
    expect(stdout).toContain(`${10 * 4096}\n`);
    expect(stdout.endsWith(runOnHost(files, 'cat good; sha256sum good').stdout)).toBe(true);
  });

  test('fails to write a block', () => {
    const script = 'seq 1 3000 > a; cp some/text b; status sync; cat b; wc -c a; echo after';
    const medium = image.medium([script]);
    const { machine, outcome } = booted(medium);
    // Which block a file gets is the file system's affair: the first that is free.
    const block = new Uint8Array(4096);
    medium.read(1, block);
    const free = Array.from({ length: 3000 }, (_, n) => n).find(
      (n) => ((block[n >> 3] ?? 0) & (1 << (n & 7))) === 0,
    );
    machine.device.failBlock((free ?? 0) + 1);
    expect(machine.run(LIMIT)).toBe('halted');
    expect(outcome().stdout[0]).toMatch(
      /=status 1=one\ntwo\n +13893 a\nafter\n$|=status 1=one\ntwo\n13893 a\nafter\n$/,
    );
    machine.powerOff();
    image.rewrite(medium, ['cat b']);
    const again = booted(medium);
    again.machine.run(LIMIT);
    expect(again.outcome().stdout).toEqual(['one\ntwo\n']);
  });
});
