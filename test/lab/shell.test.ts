/** `exoscope shell` on a script through a pipe, as a process of the host: output, exit status. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

let directory = '';
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), 'exoscope-shell-'));
});
afterAll(() => {
  rmSync(directory, { recursive: true, force: true });
});

function shell(script: string, ...args: string[]): { out: string; err: string; status: number } {
  const command = ['--import', 'tsx', 'lab/cli.ts', 'shell', ...args];
  const ran = spawnSync(process.execPath, command, { input: script, encoding: 'utf8' });
  return { out: ran.stdout, err: ran.stderr, status: ran.status ?? -1 };
}

/** The session that the README shows. */
const SESSION = `seq 1 5 > numbers; echo 6 >> numbers
cat numbers | tail -n 3 | tr 456 abc
x=numbers; true && wc -l < $x
mkdir d; mv numbers d; ln d/numbers again; ls d again
echo 'three lines
of one
string'
sh -c 'kill $$; echo no'; echo $?; sh -c 'kill -9 $$; echo no'; echo $?
sh -c 'exit 7'
`;
const PRINTED = 'a\nb\nc\n6\nagain\n\nd:\nnumbers\nthree lines\nof one\nstring\n143\n137\n';

describe('through a pipe', () => {
  test.each(['exokernel', 'vm'])('%s: a session, and its exit status', (mode) => {
    expect(shell(SESSION, '--mode', mode)).toEqual({ out: PRINTED, err: '', status: 7 });
  });

  /** Sessions that the page of the Unix shows, with what it prints under each. */
  const page = readFileSync(new URL('../../libos/unix/README.md', import.meta.url), 'utf8');
  const shown = [...page.matchAll(/^ {4}\$ (.*shell.*)\n((?: {4}[^$].*\n)+)/gm)];

  test.each(shown.map(([, command = '', printed = '']) => [command, printed]))(
    '%s',
    (command, printed) => {
      const { stdout, stderr } = spawnSync('bash', ['-c', command], { encoding: 'utf8' });
      const lines = printed.replace(/^ {4}/gm, '').split('...');
      const pattern = lines.map((part) => part.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('.*');
      expect(stdout).toMatch(new RegExp(`^${pattern}$`));
      expect(stderr).toBe('');
    },
  );

  test('a disk in a file is there the next time, with the swap area that it was made with', () => {
    const disk = join(directory, 'disk');
    expect(shell('echo kept > f; ls\n', '--disk', disk, '--swap', '100')).toMatchObject({
      out: 'f\n',
      status: 0,
    });
    const refused = shell('ls\n', '--disk', disk, '--swap', '200');
    expect(refused).toMatchObject({ out: '', status: 2 });
    expect(refused.err).toBe(
      `exoscope: --disk ${disk} has a swap area of 100 pages already: leave --swap out\n`,
    );
    const area = 'grep "Swap pages:" /proc/meminfo\n';
    expect(shell(area, '--disk', disk).out).toBe('Swap pages: 100\n');
    expect(shell('cat f; rm f; cat f\n', '--disk', disk)).toMatchObject({ status: 1 });
    const other = join(directory, 'other');
    writeFileSync(other, 'no disk');
    const { err, status } = shell('', '--disk', other);
    expect(err).toBe(
      `exoscope: --disk ${other}: holds no file system that exoscope shell has made\n`,
    );
    expect(status).toBe(2);
    expect(readFileSync(other, 'utf8')).toBe('no disk');
  });
});
