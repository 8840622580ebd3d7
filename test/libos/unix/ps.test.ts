/** ps and df against what they are made of: /proc, and the blocks that a checker finds in use. */
import { describe, expect, test } from 'vitest';

import { boot, Image, LIMIT, treeOf } from './real.ts';
import { runOnHost } from './host.ts';

const image = new Image(treeOf({ a: 'x'.repeat(50_000) }), 600);

function said(script: string, mode: 'exokernel' | 'vm'): string {
  const built = boot(image, image.medium([script]), 1, { mode });
  expect(built.machine.run(LIMIT)).toBe('halted');
  expect(built.outcome().complaints).toEqual([]);
  return built.outcome().stdout[0] ?? '';
}

describe.each(['exokernel', 'vm'] as const)('%s', (mode) => {
  test('ps says what /proc says, of who sleeps and who is stopped', () => {
    const script =
      'sleep 900 & s=$!; sh -c "kill -STOP \\$\\$; :; sleep 1" & t=$!; sleep 1; ps; ps -f; echo "$s $t"; ' +
      'kill -9 $s $t; wait; ps -x; echo $?; ps y';
    const text = said(script, mode);
    const [, sleeper = '', stopped = ''] = /^(\d+) (\d+)$/m.exec(text) ?? [];
    const rows = text.split('\n').map((line) => line.trim().split(/ +/));
    expect(rows[0]).toEqual(['PID', 'S', 'CMD']);
    expect(rows).toContainEqual([sleeper, 'S', 'sleep']);
    expect(rows).toContainEqual([stopped, 'T', 'sh']);
    expect(rows.filter((row) => row.join(' ').endsWith(' R ps'))).toHaveLength(1);
    expect(rows).toContainEqual(['PID', 'PPID', 'PGID', 'S', 'HEAP', 'CMD']);
    const full = rows.find((row) => row[0] === sleeper && row.length === 6);
    expect(full?.slice(3)).toEqual(['S', expect.stringMatching(/^\d+$/), 'sleep']);
    expect(text).toContain("ps: invalid option -- 'x'\n1\nps: extra operand 'y'\n");
  });

  test('df counts the blocks of a file, and heads its table as the host does', () => {
    const text = said('df; seq 1 20000 > b; df -P; df nope; rm b; df /', mode);
    const lines = text.split('\n');
    const host = runOnHost({}, 'df -P .').stdout.split('\n')[0] ?? '';
    expect(lines[0]?.split(/ +/)).toEqual(host.split(/ +/));
    const tables = lines.filter((line) => line.startsWith('unix ')).map((line) => line.split(/ +/));
    const [before = [], during = [], after = []] = tables.map((row) => row.slice(1, 4).map(Number));
    const [all = 0, used = 0, free = 0] = before;
    expect(all).toBe(600 * 4);
    expect(used + free).toBe(all);
    // 108,894 bytes: 27 blocks, and one that points to those beyond the first.
    expect([during[1], during[2]]).toEqual([used + 28 * 4, free - 28 * 4]);
    expect(after).toEqual(before);
    expect(tables[0]?.[4]).toBe(`${Math.ceil((used * 100) / all)}%`);
    expect(text).toContain('df: nope: No such file or directory\n');
  });
});
