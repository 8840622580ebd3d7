/**
 * `npm run lines`: lines that are neither blank nor comment, by part: what one must trust. And what
 * the exokernel's buy, file by file, in the words that the files open with.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { aligned, number } from './report.ts';

const PARTS: readonly (readonly [name: string, paths: readonly string[]])[] = [
  ['exokernel, its interface included', ['kernel', 'kernel/exokernel']],
  ['unikernel', ['kernel/unikernel']],
  ['hypervisor', ['kernel/hypervisor']],
  ['machine', ['machine']],
  ['libos/unix, without programs', ['libos/unix', 'libos/unix/fs']],
  ['the programs of the Unix', ['libos/unix/programs']],
  ['libos/kv', ['libos/kv']],
  ['libos/parts', ['libos/parts']],
  ['libos/gc', ['libos/gc']],
  ['libos/realtime', ['libos/realtime']],
  ["the tutorial's library OS", ['examples/pager.ts']],
  ['libos/minimal', ['libos/minimal']],
  ['check/specification', ['check/specification']],
];

const KERNEL = ['kernel', 'kernel/exokernel'];

interface Source {
  readonly path: string;
  readonly text: string;
}

/** The TypeScript files that lie directly in these folders, or are named. */
function sources(root: string, folders: readonly string[]): Source[] {
  return folders
    .flatMap((folder) => {
      if (folder.endsWith('.ts')) return [folder];
      const files = readdirSync(`${root}/${folder}`).filter((file) => file.endsWith('.ts'));
      return files.map((file) => `${folder}/${file}`);
    })
    .map((path) => ({ path, text: readFileSync(`${root}/${path}`, 'utf8') }));
}

/** Lines that are neither blank nor comment; `*name()` of a generator is none. */
export const codeLinesOf = (text: string): number =>
  text.split('\n').filter((line) => /\S/.test(line) && !/^\s*(\/\/|\/\*|\*(\s|\/|$))/.test(line))
    .length;

const codeLines = ({ text }: Source): number => codeLinesOf(text);

/** Lines of code in the TypeScript files that lie directly in these folders. */
export const linesOf = (root: string, folders: readonly string[]): number =>
  sources(root, folders).reduce((sum, source) => sum + codeLines(source), 0);

/** The first sentence of the comment that a file opens with. */
function purpose({ text }: Source): string {
  const opening = /^\/\*\*([\s\S]*?)\*\//.exec(text)?.[1] ?? '';
  const words = opening
    .replace(/^\s*\* ?/gm, ' ')
    .replace(/\s+/g, ' ')
    .trim();
  return /^.*?[.;](?=\s|$)/.exec(words)?.[0].slice(0, -1) ?? words;
}

export function lineTable(root: string): string {
  const parts = aligned(
    PARTS.map(([name, folders]) => [name, number(linesOf(root, folders))]),
    1,
  );
  const files = sources(root, KERNEL).sort((x, y) => codeLines(y) - codeLines(x));
  const width = Math.max(...files.map(({ path }) => path.length));
  const bought = files.map(
    (file) =>
      `${file.path.padEnd(width)}  ${number(codeLines(file)).padStart(4)}  ${purpose(file)}`,
  );
  const [specification, kernel] = [linesOf(root, ['check/specification']), linesOf(root, KERNEL)];
  const percent = Math.round((100 * specification) / kernel);
  const share = `The specification is ${percent} % of the exokernel.`;
  return [...parts, share, '', 'What the exokernel buys with them:', '', ...bought].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(`${lineTable(fileURLToPath(new URL('..', import.meta.url)))}\n`);
}
