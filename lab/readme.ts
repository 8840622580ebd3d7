/**
 * `npm run readme`: puts into the README what its commands print today. A block stands between
 * `<!-- NAME -->` and `<!-- end -->`, indented; test/readme.test.ts holds the blocks to the truth.
 * With names, only those: `npm run readme -- lines explain`.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** Of each block: what prints it, as arguments of tsx. */
const BLOCKS: Readonly<Record<string, readonly string[]>> = {
  start: ['lab/cli.ts', 'compare'],
  explain: ['lab/cli.ts', 'explain', 'call'],
  lines: ['lab/lines.ts'],
};

const names = process.argv.length > 2 ? process.argv.slice(2) : Object.keys(BLOCKS);
let readme = readFileSync(`${ROOT}README.md`, 'utf8');
for (const name of names) {
  const block = new RegExp(`(<!-- ${name} -->\n\n)[^]*?(\n\n<!-- end -->)`);
  const command = BLOCKS[name];
  if (command === undefined || !block.test(readme)) {
    process.stderr.write(`readme: no block ${name}; there are ${Object.keys(BLOCKS).join(', ')}\n`);
    process.exit(2);
  }
  const printed = execFileSync(process.execPath, ['--import', 'tsx', ...command], {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const indented = printed.trimEnd().replace(/^(?=.)/gm, '    ');
  readme = readme.replace(block, (_, open: string, close: string) => open + indented + close);
}
writeFileSync(`${ROOT}README.md`, readme);
