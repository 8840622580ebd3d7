/** The README tells the truth: what it shows is what the commands print. */
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { RISCV } from '../machine/costs.ts';
import { run } from '../lab/experiment.ts';
import { explain } from '../lab/explain.ts';
import { lineTable } from '../lab/lines.ts';
import { MODES } from '../lab/modes.ts';
import { number } from '../lab/report.ts';
import { defaultTree } from '../lab/tree.ts';
import { WORKLOADS } from '../lab/workloads.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const readme = readFileSync(`${root}README.md`, 'utf8');
const indented = (text: string): string =>
  text
    .trimEnd()
    .split('\n')
    .map((line) => (line === '' ? '' : `    ${line}`))
    .join('\n');

describe('README', () => {
  test('the line counts are those of `npm run lines`', () => {
    expect(readme).toContain(indented(lineTable(root)));
  });

  test('minimal has the number of lines that the map says, and fewer than 60', () => {
    const lines = readFileSync(`${root}libos/minimal/minimal.ts`, 'utf8').trimEnd().split('\n');
    expect(lines.length).toBeLessThan(60);
    expect(readme).toContain(`one to copy, in ${lines.length} lines`);
  });

  test('the explained event is what `explain call` prints', () => {
    expect(readme).toContain(indented(explain('call', ['bare', 'exokernel', 'vm'])));
  });

  // The quickest two of the seven: their rows stand in the README with today's counts.
  test.each(['fork', 'compute'])('the rows of %s are what npm start prints', (name) => {
    const typescript = dirname(createRequire(import.meta.url).resolve('typescript/package.json'));
    const tree = defaultTree(typescript);
    const workload = WORKLOADS.find((candidate) => candidate.name === name);
    if (workload === undefined) throw new Error(`no workload ${name}`);
    for (const mode of MODES) {
      const { result } = run({ workload, mode, tree, profile: RISCV.name, seed: 1 });
      const row = readme
        .split('\n')
        .find((line) => line.trim().startsWith(`${name} `) && line.includes(` ${mode} `));
      expect(row, `${name} ${mode}`).toContain(` ${number(result.cycles)} `);
    }
  });

  test('the line for the shell prints what it says', () => {
    const line = /^ {4}(printf .*cli\.ts shell)$/m.exec(readme)?.[1] ?? '';
    const printed = execFileSync('bash', ['-c', line], { cwd: root, encoding: 'utf8' });
    expect(printed).toBe('a\nb\n');
  });
});
