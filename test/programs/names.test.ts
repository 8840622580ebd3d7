/** The programs of JOS and Xok that behave here as they do there: each is a test by its name. */
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';

const JOS =
  'faultread faultreadkernel faultwrite faultwritekernel buggyhello evilhello faultdie faultalloc ' +
  'faultallocbad faultnostack faultbadhandler faultevilhandler dumbfork forktree yield spin ' +
  'stresssched sendpage pingpong primes fairness testpipe testpiperace testfile testfdsharing ' +
  'testpteshare';
const XOK = 'nullkerncall env-perf ipctest ppstates wk-test externalalloc micropart alarm tsleep';

const folder = 'test/programs';
const source = readdirSync(folder)
  .filter((file) => file.endsWith('.test.ts') && file !== 'names.test.ts')
  .map((file) => readFileSync(`${folder}/${file}`, 'utf8'))
  .join('\n');
/** Title of a test or a group of tests: `name: what it shows`, or several names. */
const titles = [...source.matchAll(/(?:test|describe)(?:\.each\([^\n]*\))?\(\s*['"]([^'"]+)/g)]
  .concat([...source.matchAll(/^\s+'([\w, -]+): %d is an address/gm)])
  .map(([, title = '']) => (title.split(':')[0] ?? '').split(', '))
  .flat();

test.each(`${JOS} ${XOK}`.split(' '))('%s is a test', (name) => {
  expect(titles).toContain(name);
});
