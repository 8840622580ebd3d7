/**
 * The shell against the host's own `sh`: scripts made up of all of its grammar must print the same
 * and end with the same status. What is compared is the shell's, so programs of the scripts are few.
 */
import { spawnSync } from 'node:child_process';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { LONG } from '../../tiers.ts';
import { runOnHost } from './host.ts';
import { runModel } from './model-process.ts';

const FILES = { f: 'one two\nthree\n', g: '' };
const hasShell = spawnSync('sh', ['-c', 'exit 7']).status === 7;

// ---- scripts made up ----------------------------------------------------------------------------

const variable = fc.constantFrom('x', 'y');
const plain = fc.constantFrom('a', 'b', 'cc', '1', '2', "'d  e'", '"  "', "''", 'if', 'f*', '"f*"');

/** A sum of small numbers and of variables that hold some. */
const sum = fc
  .array(
    fc.tuple(fc.constantFrom('+', '-', '*', '<', '==', '&&', '||'), fc.integer({ min: 0, max: 9 })),
    {
      minLength: 1,
      maxLength: 3,
    },
  )
  .map((parts) => `$((n${parts.map(([operator, n]) => ` ${operator} ${n}`).join('')}))`);

const { script } = fc.letrec<
  Record<'word' | 'simple' | 'command' | 'pipeline' | 'list' | 'script', string>
>((tie) => ({
  word: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    { arbitrary: plain, weight: 6 },
    { arbitrary: variable.map((name) => `$${name}`), weight: 3 },
    { arbitrary: variable.map((name) => `"$${name}"`), weight: 3 },
    {
      arbitrary: fc.constantFrom('$#', '$?', '"$@"', '$*', '"$1"', '$2', '"a$@b"', '${#x}'),
      weight: 3,
    },
    { arbitrary: sum, weight: 2 },
    {
      arbitrary: fc
        .tuple(variable, fc.constantFrom(':-', '-', ':+', '+', ':='), plain)
        .map(([name, how, word]) => `\${${name}${how}${word.replaceAll('"', '')}}`),
      weight: 2,
    },
    { arbitrary: tie('list').map((list) => `$( ${list}\n)`), weight: 1 },
    { arbitrary: tie('list').map((list) => `"$( ${list}\n)"`), weight: 1 },
    { arbitrary: fc.tuple(tie('word'), tie('word')).map((words) => words.join('')), weight: 1 },
  ),
  simple: fc.oneof(
    fc.array(tie('word'), { maxLength: 4 }).map((words) => `echo ${words.join(' ')}`),
    fc.tuple(variable, tie('word')).map(([name, word]) => `${name}=${word}`),
    fc.array(tie('word'), { maxLength: 3 }).map((words) => `set -- ${words.join(' ')}`),
    fc.tuple(tie('word'), tie('word')).map(([a, b]) => `[ "${bare(a)}" = "${bare(b)}" ]`),
    fc.tuple(variable, tie('word')).map(([name, word]) => `${name}=${word} sh -c 'echo "<$x$y>"'`),
    fc.constantFrom(
      ...[
        'true',
        'false',
        ':',
        'read x',
        'read x y < f',
        'cat f',
        'cat nope',
        'export x',
        'unset y',
      ],
      ...['break', 'continue', 'n=$((n + 1))', 'cd .', 'wait', 'eval "echo \$x"', 'nosuch'],
      ...['[ $n -lt 3 ]', '[ a = b -o ! "" ]', '[ -f f -a -d . ]', '(exit 3)', 'shift 0'],
    ),
  ),
  command: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    { arbitrary: tie('simple'), weight: 8 },
    { arbitrary: tie('list').map((list) => `{ ${list}\n}`), weight: 1 },
    { arbitrary: tie('list').map((list) => `(${list}\n)`), weight: 1 },
    {
      arbitrary: fc
        .tuple(tie('list'), tie('list'), tie('list'))
        .map(([a, b, c]) => `if ${a}\nthen ${b}\nelse ${c}\nfi`),
      weight: 2,
    },
    {
      arbitrary: fc.tuple(fc.constantFrom('while', 'until !'), tie('list')).map(
        // Whatever is in it, it ends: z grows.
        ([word, list]) => `${word} [ \${#z} -lt 3 ]\ndo z=z$z; ${list}\ndone`,
      ),
      weight: 1,
    },
    {
      arbitrary: fc
        .tuple(fc.array(tie('word'), { maxLength: 3 }), tie('list'))
        .map(([words, list]) => `for x in ${words.join(' ')}\ndo ${list}\ndone`),
      weight: 2,
    },
    {
      arbitrary: fc
        .tuple(tie('word'), tie('word'), tie('list'), tie('list'))
        .map(
          ([a, b, c, d]) => `case ${a} in ${b}|b*) ${c}\n;; [!a-c]?) ${d}\n;; *) echo other\nesac`,
        ),
      weight: 1,
    },
    {
      arbitrary: fc
        .tuple(fc.constantFrom('E', "'E'"), tie('word'))
        .map(([end, word]) => `{ cat <<${end}\n$x ${bare(word)}\nE\n}`),
      weight: 1,
    },
    {
      arbitrary: fc
        .tuple(
          tie('list'),
          fc.constantFrom('> g', '>> g', '2> /dev/null', '< f', '> g 2> /dev/null'),
        )
        .map(([list, redirection]) => `{ ${list}\n} ${redirection}`),
      weight: 1,
    },
  ),
  pipeline: fc.oneof(
    { arbitrary: tie('command'), weight: 5 },
    { arbitrary: tie('command').map((command) => `! ${command}`), weight: 1 },
    { arbitrary: tie('command').map((command) => `${command} | cat`), weight: 1 },
  ),
  list: fc
    .tuple(
      tie('pipeline'),
      fc.array(fc.tuple(fc.constantFrom('\n', '\n', ' && ', ' || '), tie('pipeline')), {
        maxLength: 2,
      }),
    )
    .map(([first, rest]) => first + rest.flat().join('')),
  script: fc
    .array(tie('list'), { minLength: 1, maxLength: 4 })
    .map((lists) => `n=2; x=1\n${lists.join('\n')}\necho "$? $x $y $n $#"; cat g\n`),
}));

/** Within double quotes there are no others; commands need theirs. */
const bare = (word: string): string => (/\$\([^(]/.test(word) ? '$x' : word.replace(/["']/g, ''));

function same(text: string): void {
  const host = runOnHost(FILES, text);
  const model = runModel(FILES, [text]);
  expect({ stdout: model.stdout, status: model.status }, text).toEqual({ ...host });
}

describe.skipIf(!hasShell)('as the host sh', () => {
  test('scripts made up', () => {
    fc.assert(fc.property(script, same), { numRuns: LONG ? 2000 : 20 });
  });
});
