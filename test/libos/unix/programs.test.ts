/**
 * The programs, each against the host's own tool: same script, same tree, same bytes on standard
 * output, same exit status. They run on the model of a process; the real one runs the same table.
 */
import { createHash } from 'node:crypto';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { quoted, type TreeFacts, WORKLOADS } from '../../../lab/workloads.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import { mergeSort } from '../../../libos/unix/programs/merge-sort.ts';
import { Sha256 } from '../../../libos/unix/programs/sha256.ts';
import { parseScript, SyntaxProblem } from '../../../libos/unix/programs/shell-syntax.ts';
import { AWKWARD, CASES, LANGUAGE } from './cases.ts';
import { runOnHost } from './host.ts';
import { runModel } from './model-process.ts';

/** Short texts are compared as such, long ones by digest: a difference should print. */
const shown = (text: string): string =>
  text.length < 5000
    ? text
    : `${text.slice(0, 200)}.. ${text.length} bytes, ` +
      createHash('sha256').update(text, 'latin1').digest('hex');

describe('as on the host', () => {
  test.each([...CASES, ...LANGUAGE])('$name', ({ script, files }) => {
    const host = runOnHost(files, script);
    const { stdout, status } = runModel(files, [script]);
    expect({ stdout: shown(stdout), status }).toEqual({
      stdout: shown(host.stdout),
      status: host.status,
    });
  });
});

test('as on the host, with texts made up', () => {
  const script =
    'wc t; sort t; sort -n t; sort -nr t; sort -u t; sort -nu t; sort -rz t; uniq -c t; uniq t;' +
    'grep -aFn ab t; grep -aFc a t; head -n 2 t; cat t | xargs -0 -n 1 echo; sha256sum t';
  const text = fc.string({ unit: fc.constantFrom(...'ab\n\n\0 \t019-.\xff'), maxLength: 60 });
  fc.assert(
    fc.property(text, (t) => {
      expect(runModel({ t }, [script]).stdout).toBe(runOnHost({ t }, script).stdout);
    }),
  );
});

describe('workloads', () => {
  const tree: TreeFacts = {
    files: Object.keys(AWKWARD).length,
    bytes: Object.values(AWKWARD).join('').length,
    largestText: "./it's a 'large' text",
  };
  const files = { ...AWKWARD, "it's a 'large' text": AWKWARD['lines'] ?? '' };

  test.each(WORKLOADS)('$name', ({ boots, hostCommand }) => {
    const { stdout, stderr } = runModel(files, boots(tree));
    expect(shown(stdout)).toBe(shown(runOnHost(files, hostCommand(tree)).stdout));
    expect(stderr).toBe('');
    expect(stdout).not.toBe('');
  });

  test('compute takes about ten million cycles', () => {
    const compute = WORKLOADS.find(({ name }) => name === 'compute');
    const { cycles } = runModel({}, compute?.boots(tree) ?? []);
    expect(cycles).toBeGreaterThan(9e6);
    expect(cycles).toBeLessThan(12e6);
  });

  test('an empty tree', () => {
    const none: TreeFacts = { files: 0, bytes: 0, largestText: null };
    for (const { boots, hostCommand } of WORKLOADS) {
      expect(runModel({}, boots(none)).stdout).toBe(runOnHost({}, hostCommand(none)).stdout);
    }
  });

  test('a quoted word is one word on both sides', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 126 }), { maxLength: 12 }), (codes) => {
        const word = `./${String.fromCharCode(...codes).replaceAll('/', '_')}`;
        const script = `cat ${quoted(word)}`;
        const files = { [word.slice(2)]: 'here' };
        fc.pre(!['./', './.', './..'].includes(word));
        expect(runModel(files, [script]).stdout).toBe('here');
        expect(runOnHost(files, script).stdout).toBe('here');
      }),
      { numRuns: 20 },
    );
  });
});

describe('complaints', () => {
  test.each([
    ['cat nope', 'cat: nope: No such file or directory\n'],
    ['cat dir', 'cat: dir: Is a directory\n'],
    ['cat plain/x', 'cat: plain/x: Not a directory\n'],
    ['nosuch a b', 'sh: nosuch: not found\n'],
    ['cd nope', 'sh: cd: nope: No such file or directory\n'],
    ['cat < nope', 'sh: nope: No such file or directory\n'],
    ['seq 1 2 | xargs nosuch', 'xargs: nosuch: No such file or directory\n'],
    ['wc -q', "wc: invalid option -- 'q'\n"],
    ['grep "a.b" plain', 'grep: fixed strings only: use -F\n'],
    ['cp -r . ./dir', "cp: cannot copy a directory, './dir', into itself\n"],
    ['cp dir x', "cp: -r not specified; omitting directory 'dir'\n"],
    ['find nope', "find: 'nope': No such file or directory\n"],
    ['head -n', "head: option requires an argument -- 'n'\n"],
    ['head -n x', 'head: invalid number: x\n'],
    ['primes', 'primes: invalid number: \n'],
  ])('%s', (script, stderr) => {
    const outcome = runModel(AWKWARD, [script]);
    expect(outcome.stderr).toBe(stderr);
    expect(outcome.status).not.toBe(0);
  });

  test('none about a pipe that nobody reads', () => {
    for (const program of ['cat plain', 'seq 1 9', 'sort lines', 'grep -aF o lines', 'ls']) {
      const { status, stderr } = runModel(AWKWARD, [program], { broken: true });
      expect({ program, status, stderr }).toEqual({ program, status: 141, stderr: '' });
    }
  });

  test('an item that no command line holds', () => {
    const { stderr, status } = runModel({ long: 'x'.repeat(2100) }, ['cat long | xargs echo']);
    expect({ stderr, status }).toEqual({ stderr: 'xargs: argument line too long\n', status: 1 });
  });

  test.each([
    '(a',
    'a && ',
    'a || | b',
    '& a',
    'echo $(a',
    'echo $(a;;)',
    'echo ${x%y}',
    'echo ${',
    'echo $-',
    'echo $((1',
    'f() { a; }',
    'f () (a)',
    'a 2>&x',
    'echo `a`',
    'cat ~',
    '| a',
    'a |',
    'a | ; b',
    ';',
    'a ;; b',
    'a >',
    'a > > b',
    "echo 'a",
    'echo "a',
    'if a; then b',
    'if a; b; fi',
    'if ; then b; fi',
    'then a',
    'while a; do; done',
    'while a; done',
    'for 1 in a; do b; done',
    'for x in a do b; done',
    'for x in a; b; done',
    '{ a',
    '{ }',
    '( )',
    'a; }',
    'a )',
    'case a in b) c',
    'case a b) c;; esac',
    'cat <<E',
    'cat <<E\ntext',
    'cat <<$x\nx\n$x',
    '! ! a',
    '!',
    'a &&! ',
    'if a; then b; fi c',
  ])('the shell refuses %s, and runs nothing', (script) => {
    expect(() => parseScript(script)).toThrow(SyntaxProblem);
    const { stdout, status } = runModel({}, [`echo before\n${script}`]);
    expect({ stdout, status }).toEqual({ stdout: '', status: 2 });
  });
});

describe('under stress', () => {
  const script = 'cat lines | sort | uniq -c | head -n 20; seq 1 3 | xargs -n1 echo; sha256sum nul';
  const expected = (): string => runOnHost(AWKWARD, script).stdout;

  test('a trap before every access', () => {
    expect(runModel(AWKWARD, [script], { storm: true }).stdout).toBe(expected());
  });

  test('slices of a thousand cycles', () => {
    expect(runModel(AWKWARD, [script], { sliceCycles: 1000 }).stdout).toBe(expected());
  });

  test('a heap in pieces', () => {
    const long = 'sort longer | wc -lc; grep -aFc q longer; uniq -c longer | sha256sum';
    expect(runModel(AWKWARD, [long], { scattered: true }).stdout).toBe(
      runOnHost(AWKWARD, long).stdout,
    );
  });

  test('the same cycles each time', () => {
    const cycles = (): number => runModel(AWKWARD, [script]).cycles;
    expect(cycles()).toBe(cycles());
  });
});

describe('work is charged', () => {
  const size = (name: string): number => AWKWARD[name]?.length ?? 0;
  test.each([
    ['sha256sum longer', 12 * size('longer')],
    ['wc longer', size('longer')],
    ['grep -aF z longer', size('longer')],
    ['grep -aFn z longer', 2 * size('longer')],
    ['uniq longer', 2 * size('longer')],
    ['sort lines', size('lines') + 20_000 * Math.log2(20_000) * 10 * 0.9],
    ['head -n 1 longer', size('longer') / 2],
    ['cat longer | xargs -0 -r true', size('longer') / 2],
    ['seq 1 1000', 1000 * 40],
    ['primes 5000', 1e6],
  ])('%s', (script, least) => {
    const idle = runModel(AWKWARD, ['true']).cycles;
    expect(runModel(AWKWARD, [script]).cycles - idle).toBeGreaterThan(least);
  });
});

describe('parts', () => {
  test('the programs have names of their own', () => {
    expect(new Set(PROGRAMS.map(({ name }) => name)).size).toBe(PROGRAMS.length);
  });

  test('SHA-256, in any pieces', () => {
    fc.assert(
      fc.property(fc.array(fc.uint8Array({ maxLength: 200 })), (pieces) => {
        const hash = new Sha256();
        for (const piece of pieces) hash.update(piece);
        const expected = createHash('sha256').update(Buffer.concat(pieces)).digest('hex');
        expect(hash.hex()).toBe(expected);
      }),
    );
  });

  test('SHA-256, of lengths around a block', () => {
    for (let length = 0; length < 300; length++) {
      const bytes = new Uint8Array(length).fill(length);
      const expected = createHash('sha256').update(bytes).digest('hex');
      expect(new Sha256().update(bytes).hex()).toBe(expected);
    }
  });

  test('the sort is a sort, and stable', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(9)), (keys) => {
        const key = (n: number): number => keys[n] ?? 0;
        const { order } = mergeSort(keys.length, (a, b) => key(a) - key(b));
        const expected = keys.map((_, n) => n).sort((a, b) => key(a) - key(b) || a - b);
        expect([...order]).toEqual(expected);
      }),
    );
  });
});
