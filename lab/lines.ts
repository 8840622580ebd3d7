/** `npm run lines`: lines that are neither blank nor comment, by part: what one must trust. */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { aligned, number } from './report.ts';

const PARTS: readonly (readonly [name: string, paths: readonly string[]])[] = [
  ['exokernel, its interface included', ['kernel', 'kernel/exokernel']],
  ['unikernel', ['kernel/unikernel']],
  ['hypervisor', ['kernel/hypervisor']],
  ['machine', ['machine']],
  ['libos/unix, without programs', ['libos/unix']],
  ['libos/minimal', ['libos/minimal']],
];

/** Lines of code in the TypeScript files that lie directly in these folders. */
export function linesOf(root: string, folders: readonly string[]): number {
  let lines = 0;
  for (const folder of folders) {
    for (const file of readdirSync(`${root}/${folder}`)) {
      if (!file.endsWith('.ts')) continue;
      const text = readFileSync(`${root}/${folder}/${file}`, 'utf8');
      lines += text
        .split('\n')
        .filter((line) => /\S/.test(line) && !/^\s*(\/\/|\/?\*)/.test(line)).length;
    }
  }
  return lines;
}

export function lineTable(root: string): string {
  return aligned(
    PARTS.map(([name, folders]) => [name, number(linesOf(root, folders))]),
    1,
  ).join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(`${lineTable(fileURLToPath(new URL('..', import.meta.url)))}\n`);
}
