/**
 * Whatever an author's file can be, `exoscope run` says what is wrong in one message with his own
 * line, and the other tenants are unharmed. One pool of workers runs all the files.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { LibosJob, LibosOutcome } from '../../../lab/author/job.ts';
import { checkFile } from '../../../lab/author/libos-file.ts';
import { exoscope } from '../../../lab/exoscope.ts';
import { inWorkers, newHeart } from '../../../lab/pool.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const MINIMAL = join(ROOT, 'libos/minimal/minimal.ts');
const PRIMES = 'minimal: 9592 primes below 100000\n';

const HEAD = `import { image, LibOS, type Op } from '${ROOT}libos/libos.ts';\n`;
/** A library OS whose main is `body`, which begins on line 4. */
const libos = (body: string): string =>
  `${HEAD}class Mine extends LibOS {\n  override *main(...[self, , , leaf]: number[]): Op<void> {\n` +
  `${body}\n  }\n}\nexport default image('mine', (port) => new Mine(port));\n`;

interface Case {
  readonly text: string;
  readonly says: readonly (string | RegExp)[];
  readonly fate?: 'runs';
}

const CASES: Readonly<Record<string, Case>> = {
  'does not compile': {
    text: `${HEAD}class {{\n`,
    says: [/^mine\.ts:2:\d+: does not compile: /],
  },
  'exports nothing': {
    text: 'const a = 1;\n',
    says: ['exports no image', 'export default image('],
  },
  'exports the class': {
    text: `${HEAD}export default class Mine extends LibOS {}\n`,
    says: ['its export is a class, not an image', 'export default image('],
  },
  'imports what is not there': {
    text: `import './nowhere.ts';\n`,
    says: ['nowhere.ts', 'which is not there', 'exoscope/libos/libos.ts'],
  },
  'throws while it is loaded': {
    text: `${HEAD}throw new RangeError('no luck');\n`,
    says: ['threw RangeError: no luck while it was loaded', 'mine.ts:2'],
  },
  throws: {
    text: libos(`    yield* this.sys.nullCall();\n    throw new RangeError('no luck');`),
    says: ['threw RangeError: no luck, at ', 'mine.ts:5 (Mine.main)', 'null() = 0'],
  },
  'ends the process': {
    text: libos(`    yield* this.sys.nullCall();\n    process.exit(0);`),
    says: ['threw Error: process.exit: a library OS has no process', 'mine.ts:5 (Mine.main)'],
  },
  'touches what is not mapped': {
    text: libos(`\n    yield* this.port.store(0x140008, 1);`),
    says: [
      'uncaught store page fault at 0x00140008 (page 320, byte 8), at ',
      'mine.ts:5 (Mine.main)',
      /nothing is mapped there; the nearest is 0x0004\d000: page \d+, read only; page \d+ is the kernel's/,
    ],
  },
  'writes what it may only read': {
    text: libos(`    yield* this.port.store(0x2000, 1);`),
    says: ['uncaught store page fault at 0x00002000', 'mapped there: page 0, read only'],
  },
  'touches a word across': {
    text: libos(`    yield* this.port.load(0x2002);`),
    says: ['uncaught load misaligned at 0x00002002', 'a word lies at a multiple of 4'],
  },
  'gives up in its handler': {
    text: libos(`    yield* this.catchFaults();\n    yield* this.port.load(0x150000);`),
    says: ['uncaught load page fault at 0x00150000', 'mine.ts:5', 'upcall: fault'],
  },
  'forgets to yield': {
    text: libos(`    this.port.load(0x150000);\n    this.port.load(0x2000);`),
    says: ['threw UnhandledTrap', 'the trap: load page fault at 0x00150000, at ', 'mine.ts:4'],
  },
  'has a main that is no generator': {
    text: `${HEAD}class Mine extends LibOS { main() {} }\nexport default image('m', (p) => new Mine(p));\n`,
    says: ['threw TypeError', 'main and handlers are generators'],
  },
  'returns at once': {
    text: libos(''),
    says: ['main returned at once, without a call or an access'],
  },
  'asks for more than there is': {
    text: libos(
      `    const { pages } = { pages: 1 << 20 };\n    for (let n = 0; n < 40; n++)\n` +
        `      yield* this.sys.pageAllocate(pages - n, 0);\n    throw new Error('no page');`,
    ),
    says: [
      'threw Error: no page',
      'refused 39 times: pageAllocate(',
      'argument 0 (page): not a page',
      'mine.ts:6 (Mine.main)',
      'docs/ABI.md#pageallocate-9',
    ],
  },
  'mends nothing in its handler': {
    text: libos(
      `    yield* this.catchFaults();\n    yield* this.port.store(0x150000, 1);\n  }\n` +
        `  override *onFault() {\n    yield* this.sys.pageMap(0, 336, 0, 0, 0, 6, 0);\n    return true;`,
    ),
    says: [
      /^tenant 1 faults at one address for ever: store page fault at 0x00150000 .*mine\.ts:5 \(Mine\.main\)/,
      'nothing is mapped there',
      /\d+,\d{3} times in a row: its handler returns true, and has mended nothing/,
      /refused [\d,]+ times: pageMap\(.*mine\.ts:8 \(Mine\.onFault\)/,
    ],
    fate: 'runs',
  },
  'has a call of a batch refused': {
    text: libos(
      `    const unmap = [16, leaf, 300, 1, 0];\n    const map = [15, leaf, 300, 0, 0, 0, 6, 0];\n` +
        `    const done = yield* this.sys.batch(0x1800, [unmap, map]);\n` +
        `    throw new Error('done: ' + done);`,
    ),
    says: [
      'threw Error: done: 1',
      /refused: batch\(address 0x1800, count 2\), at .*mine\.ts:6 \(Mine\.main\)/,
      /record 2 at 0x00001814 was refused notPermitted; the 1 before it are done/,
      /pageMap\(table \d+, index 300, page 0, slot 0, access entry 0, flags 6, env slot 0\)/,
      'argument 5 (flags): W, and not a user page',
      "page 0 is the kernel's",
      'docs/ABI.md#pagemap-15',
    ],
  },
  'goes past its allotment': {
    text: libos(
      `    for (let page = 0; page < 4000; page++) yield* this.sys.pageAllocate(page, 0);\n` +
        `    throw new Error('enough');`,
    ),
    says: ['quota, argument 0 (page): the account has no page left', 'mine.ts:4 (Mine.main)'],
  },
};

let folder = '';
const outcomes = new Map<string, LibosOutcome>();

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'exoscope-'));
  writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
  const names = Object.keys(CASES);
  const jobs = names.map((name, n): LibosJob => {
    const own = mkdtempSync(join(folder, `${n}-`));
    const file = join(own, 'mine.ts');
    writeFileSync(file, CASES[name]?.text ?? '');
    const spec = {
      mode: 'exokernel' as const,
      tenants: 2,
      memory: 64,
      slice: 50_000,
      seed: 1,
      limit: 1e8,
      revocation: null,
    };
    return { what: 'libos', spec, files: [file, MINIMAL], heart: newHeart() };
  });
  const ran = await inWorkers<LibosOutcome>(
    jobs,
    { jobs: 1, watchdog: 60 },
    (outcome) => outcome,
    (error) => {
      throw error;
    },
  );
  names.forEach((name, n) => {
    const outcome = ran[n];
    if (outcome !== undefined) outcomes.set(name, outcome);
  });
}, 120_000);

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe('a file that', () => {
  test.each(Object.keys(CASES))('%s is told in one message', (name) => {
    const outcome = outcomes.get(name);
    if (outcome === undefined || 'hung' in outcome) throw new Error('it ran');
    const [mine, other] = 'result' in outcome ? outcome.result.tenants : [];
    const said = 'unusable' in outcome ? outcome.unusable : mine?.account.join('\n');
    for (const part of CASES[name]?.says ?? []) {
      if (typeof part === 'string') expect(said).toContain(part);
      else expect(said).toMatch(part);
    }
    if (mine === undefined) return;
    expect(mine.fate).toBe(CASES[name]?.fate ?? 'failed');
    expect(other).toMatchObject({ fate: 'ended', output: PRIMES, account: [] });
  });

  test('does not exist, or is no source, is refused before anything runs', () => {
    expect(() => checkFile('nowhere.ts')).toThrow(/^nowhere.ts: no such file; .*exoscope new/);
    expect(() => checkFile(ROOT)).toThrow(/not a TypeScript or JavaScript file/);
  });

  test('never yields is given up, with the line that loops', async () => {
    const file = join(folder, 'loops.ts');
    writeFileSync(file, libos('    let n = 0;\n    for (;;) {\n      n = (n + 1) % 7;\n    }'));
    // A process of its own: the debugger that is asked for the line is the process's.
    const child = spawn(process.execPath, [
      join(ROOT, 'bin/exoscope.js'),
      ...['run', file, '--watchdog', '1'],
    ]);
    let said = '';
    child.stderr.setEncoding('utf8').on('data', (part: string) => (said += part));
    const status = await new Promise((resolve) => child.on('close', resolve));
    expect(status).toBe(1);
    expect(said).toMatch(/^exoscope: loops\.ts: no simulated access for 1 s.*\n$/);
    expect(said).toMatch(/it loops at .*loops\.ts:[56] \(Mine\.main\)/);
  }, 30_000);
});

describe('exoscope run', () => {
  interface Said {
    readonly status: number;
    readonly out: string;
    readonly err: string;
  }
  const run = async (...args: string[]): Promise<Said> => {
    let [out, err] = ['', ''];
    const status = await exoscope(['run', ...args], {
      out: (text) => void (out += text),
      err: (text) => void (err += text),
      redraws: false,
      status: 0,
    });
    return { status, out, err };
  };

  test('in all modes: outputs by tenant, a row for each mode, and they are the same', async () => {
    const { status, out, err } = await run(MINIMAL, '--mode', 'all', '--tenants', '2');
    expect({ status, err }).toEqual({ status: 0, err: '' });
    for (const n of [1, 2]) expect(out).toContain(`tenant ${n} (minimal.ts):\n    ${PRIMES}`);
    for (const mode of ['bare', 'exokernel', 'vm', 'exokernel-in-vm']) {
      expect(out).toMatch(new RegExp(`^${mode} +\\d`, 'm'));
    }
    expect(out).toContain('outputs are the same in all 4 modes compared');
  }, 30_000);

  test('what differs between modes is shown, with exit status 1', async () => {
    const file = join(folder, 'differs.ts');
    const body =
      '    const text = new TextEncoder().encode(`leaf ${leaf}\\n`);\n' +
      '    this.port.write(0x1800, text, 0, text.length) ?? (yield* this.port.fault());\n' +
      '    yield* this.sys.consoleWrite(0x1800, text.length);';
    writeFileSync(file, libos(body));
    const { status, out } = await run(file, '--mode', 'exokernel,vm');
    expect(status).toBe(1);
    expect(out).toMatch(
      /outputs DIFFER from line 1 on\n {4}exokernel +leaf \d+\n {4}vm +leaf \d+\n/,
    );
  }, 30_000);

  test('a file that exports nothing is told so as CommonJS, too', async () => {
    const own = mkdtempSync(join(folder, 'commonjs-'));
    writeFileSync(join(own, 'package.json'), '{}');
    writeFileSync(join(own, 'mine.ts'), 'const a = 1;\n');
    const { status, err } = await run(join(own, 'mine.ts'));
    expect([status, err]).toEqual([2, expect.stringContaining('mine.ts: exports no image; write')]);
  }, 30_000);

  test.each([
    [['nowhere.ts'], /no such file/],
    [[MINIMAL, MINIMAL, '--tenants', '1'], /--tenants 1: there are 2 files/],
    [[MINIMAL, '--memory', '31000', '--tenants', '2'], /--memory 31000: .* 15750 each would fit 2/],
    [[MINIMAL, '--memory', '9'], /--memory.*from 16 to/],
    [[MINIMAL, '--mode', 'metal'], /no mode 'metal'/],
    [[MINIMAL, '--revoke', '8'], /--revoke 8: say PAGES@CYCLES/],
    [[MINIMAL, '--revoke', '99@1'], /whole number from 1 to 32/],
    [[MINIMAL, '--revoke', '8@1', '--mode', 'vm'], /nobody asks for pages in mode vm/],
    [[], /missing required argument/],
  ])('%j makes no sense: exit status 2', async (args, says) => {
    const { status, out, err } = await run(...args);
    expect({ status, out }).toEqual({ status: 2, out: '' });
    expect(err).toMatch(/^exoscope: .+\n$/);
    expect(err).toMatch(says);
  });
});
