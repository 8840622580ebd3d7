/**
 * Tidy: the source text is held to the rules of test/tidy-rules.ts, and the rules to planted bad
 * text. The files are those that git tracks or would track.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';

import * as rules from './tidy-rules.ts';
import type { Rule, SourceFile } from './tidy-rules.ts';

const ROOT = join(import.meta.dirname, '..');

describe('the source', () => {
  const files = sources();

  test('is found', () => {
    expect(files.map((file) => file.path)).toContain('test/tidy.test.ts');
  });

  for (const [name, rule] of Object.entries(rules.RULES)) {
    test(name, () => {
      expect(rules.report(rule(files))).toEqual([]);
    });
  }
});

/** What a rule finds in planted files, given as path and text. */
const found = (rule: Rule, planted: Readonly<Record<string, string>>): string[] =>
  rules.report(rule(Object.entries(planted).map(([path, text]) => ({ path, text }))));

const one = (rule: Rule, path: string, text: string): string[] => found(rule, { [path]: text });

describe('the rules find what is planted', () => {
  const refused: readonly (readonly [from: string, statement: string])[] = [
    ['machine/a.ts', `import { x } from '../kernel/abi.ts';`],
    ['machine/a.ts', `import type { X } from '../libos/x.ts';`],
    ['machine/a.ts', `import * as fs from 'node:fs';`],
    ['machine/a.ts', `import { x } from 'tinypool';`],
    ['machine/a.ts', `export * from '../lab/x.ts';`],
    ['machine/a.ts', `export type { X } from '../lab/x.ts';`],
    ['machine/a.ts', `const x = await import('../lab/x.ts');`],
    ['machine/a.ts', `const x = await import(name);`],
    ['machine/a.ts', `type X = import('../lab/x.ts').X;`],
    ['machine/a.ts', `import x = require('../lab/x.ts');`],
    ['kernel/abi.ts', `import type { X } from './supervisor.ts';`],
    ['kernel/abi.ts', `import { x } from '../machine/units.ts';`],
    ['kernel/abi.ts', `export { x } from '../machine/units.ts';`],
    ['kernel/exokernel/a.ts', `import { x } from '../../libos/libos.ts';`],
    ['kernel/exokernel/a.ts', `import { x } from '../../check/x.ts';`],
    ['libos/unix/a.ts', `import { x } from '../../machine/port.ts';`],
    ['libos/unix/a.ts', `import type { X } from '../../machine/units.ts';`],
    ['libos/unix/a.ts', `import { x } from '../../kernel/supervisor.ts';`],
    ['libos/unix/a.ts', `import { x } from '../../lab/x.ts';`],
    ['libos/unix/a.ts', `import * as os from 'node:os';`],
    ['lab/a.ts', `import { x } from '../test/x.ts';`],
    ['check/a.ts', `import { x } from '../bench/x.ts';`],
    ['check/specification/a.ts', `import { x } from '../../kernel/exokernel/state.ts';`],
    ['check/specification/a.ts', `import type { Raw } from '../invariants/raw.ts';`],
    ['check/specification/a.ts', `import { readFileSync } from 'node:fs';`],
    ['check/lockstep/abstraction.ts', `import { sure } from '../specification/model.ts';`],
    ['examples/01-first.ts', `import { x } from '../lint/x.ts';`],
  ];
  test.each(refused)('imports: %s may not say %s', (path, statement) => {
    const violations = one(rules.importTable, path, `// A file.\n\n${statement}\n`);
    expect(violations).toHaveLength(1);
    expect(violations[0]).toMatch(new RegExp(`^${path}:3 imports `));
  });

  const allowed: readonly (readonly [from: string, statement: string])[] = [
    ['machine/a.ts', `import { x } from './units.ts';`],
    ['machine/a.ts', `// import { x } from '../lab/x.ts';`],
    ['machine/a.ts', `const text = "import { x } from '../lab/x.ts'";`],
    ['kernel/abi.ts', `import type { X } from '../machine/units.ts';`],
    ['kernel/exokernel/a.ts', `import { x } from '../../machine/machine.ts';`],
    ['kernel/hypervisor/a.ts', `import { x } from '../supervisor.ts';`],
    ['libos/unix/a.ts', `import { x } from '../parts/pool.ts';`],
    ['libos/unix/a.ts', `import { x } from '../../kernel/abi.ts';`],
    ['libos/unix/a.ts', `import type { Op } from '../../machine/user-port.ts';`],
    ['lab/a.ts', `import { x } from '../kernel/exokernel/pages.ts';`],
    ['lab/a.ts', `import * as fs from 'node:fs';`],
    ['check/a.ts', `import { x } from '../lab/x.ts';`],
    ['check/specification/a.ts', `import * as abi from '../../kernel/abi.ts';`],
    ['check/specification/a.ts', `import { need } from './caller.ts';`],
    ['check/lockstep/abstraction.ts', `import type { World } from '../specification/model.ts';`],
    ['test/a.test.ts', `import { x } from '../machine/physical.ts';`],
  ];
  test.each(allowed)('imports: %s may say %s', (path, statement) => {
    expect(one(rules.importTable, path, statement)).toEqual([]);
  });

  test('physical-machine: in code, not in a comment', () => {
    const text = '// Never PhysicalMachine.\nconst text = `a PhysicalMachine`;\n';
    expect(one(rules.kernelNamesMachine, 'kernel/a.ts', text)).toEqual([]);
    expect(one(rules.kernelNamesMachine, 'kernel/a.ts', `${text}new PhysicalMachine();`)).toEqual([
      'kernel/a.ts:3 physical-machine "PhysicalMachine": kernel/ names Machine',
    ]);
    expect(
      one(rules.kernelNamesMachine, 'kernel/a.ts', `${text}f(\`\${PhysicalMachine}\`)`),
    ).toHaveLength(1);
    expect(one(rules.kernelNamesMachine, 'lab/a.ts', 'new PhysicalMachine();')).toEqual([]);
  });

  test('dead-file: nobody imports it, or only itself', () => {
    const planted = {
      'lab/cli.ts': `import { used } from './used.ts';`,
      'lab/used.ts': `import type { Used } from './used.ts';`,
      'machine/dead.ts': `import { self } from './dead.ts';`,
      'check/dead.ts': '',
      'test/a.test.ts': `import { tested } from '../kernel/tested.ts';`,
      'kernel/tested.ts': '',
      'examples/01-first.ts': '',
    };
    expect(found(rules.noDeadFiles, planted)).toEqual([
      'machine/dead.ts:1 dead-file no other file imports this one',
      'check/dead.ts:1 dead-file no other file imports this one',
    ]);
  });

  const hostly = [
    'const t = Date.now();',
    'const t = new Date();',
    'const t = performance.now();',
    'const r = Math.random();',
    'setTimeout(f, 1);',
    'setInterval(f, 1);',
    'globalThis.x = 1;',
    'process.exit(1);',
    'const { env } = process;',
    'const b = Buffer.alloc(1);',
    'let b: Buffer;',
    'const p = new Promise(f);',
    'const clock = { Date };',
    'function f() { const process = 1; } process.exit(1);',
    '{ const process = 1; } f((): void => process.exit(1));',
  ];
  test.each(hostly)('host-name: %s', (text) => {
    for (const path of ['machine/a.ts', 'kernel/a.ts', 'libos/unix/a.ts']) {
      const violations = one(rules.noHostNames, path, text);
      expect(violations).toHaveLength(1);
      expect(violations[0]).toMatch(/:\d+ host-name /);
    }
    expect(one(rules.noHostNames, 'lab/a.ts', text)).toEqual([]);
  });

  const homely = [
    '// Date.now() would be wrong here.',
    `const text = 'new Date';`,
    'const x = a.process.mapping(1);',
    'function f(process: Process) { return process.mapping(1); }',
    'const f = ({ process }: { process: Process }) => process.exit();',
    'const f = ([process]: readonly Process[]) => { if (process) process.exit(); };',
    'for (const process of all) process.exit();',
    `import { process } from './process.ts'; process.exit();`,
    `import * as process from './process.ts'; process.exit();`,
    'class Buffer {} const b = new Buffer();',
    'type T = { process: number; Date: number };',
    'class C { process = 1; performance() { return this.process; } }',
    'const x = { process: 1 };',
    'const m = Math.floor(1);',
  ];
  test.each(homely)('host-name: not %s', (text) => {
    expect(one(rules.noHostNames, 'libos/unix/a.ts', text)).toEqual([]);
  });

  const evasions = [
    'let x: any;',
    'let x:any;',
    'f(x as any);',
    'f(x as unknown as Y);',
    'f(`${x as any}`);',
  ];
  test.each(evasions)('evasion: %s', (text) => {
    expect(one(rules.noEvasions, 'bench/a.ts', text)).toHaveLength(1);
  });

  test('evasion: over two lines', () => {
    expect(one(rules.noEvasions, 'bench/a.ts', 'f(x as unknown\n  as Y);')).toHaveLength(1);
  });

  test('evasion: not in prose, strings or patterns', () => {
    const text = '// exposed: any environment reads it as any\nf(": any", `: any`, /: any/);';
    expect(one(rules.noEvasions, 'bench/a.ts', text)).toEqual([]);
  });

  // Spelt in halves, or this file would be found.
  const marks = [
    ['TO', 'DO'],
    ['FIX', 'ME'],
    ['XX', 'X'],
    ['@ts-', 'ignore'],
    ['@ts-', 'nocheck'],
    ['@ts-', 'expect-error'],
  ].map((halves) => halves.join(''));
  test.each(marks)('mark: %s', (mark) => {
    expect(one(rules.noMarks, 'test/a.ts', `f();\n// ${mark}: later`)).toHaveLength(1);
    expect(one(rules.noMarks, 'test/a.ts', `f('${mark}')`)).toHaveLength(1);
  });

  test('mark: a whole word only', () => {
    const longer = marks.slice(0, 3).map((mark) => `${mark}S`);
    expect(one(rules.noMarks, 'test/a.ts', `// ${longer.join(' ')} any@ts-check`)).toEqual([]);
  });

  test.each(['if (mode) f();', 'x = mode === 1;', 'f(a.mode !== b);', 'switch (mode) {}'])(
    'mode: %s',
    (text) => {
      expect(one(rules.noModes, 'libos/unix/a.ts', text)).toHaveLength(1);
      expect(one(rules.noModes, 'lab/a.ts', text)).toEqual([]);
      expect(one(rules.noModes, 'libos/unix/a.ts', `// ${text}`)).toEqual([]);
    },
  );

  test('opening: code, or a plain comment', () => {
    for (const text of ['const x = 1;', '\n// late', '/* plain */', `import 'x';`]) {
      expect(one(rules.opensWithComment, 'libos/a.ts', text)).toEqual([
        'libos/a.ts:1 opening a file opens with a comment: what it is for',
      ]);
    }
    for (const text of ['/** A file. */', '// A file.', '#!/usr/bin/env node\n// A file.']) {
      expect(one(rules.opensWithComment, 'libos/a.ts', text)).toEqual([]);
    }
  });

  test('columns: the 101st', () => {
    const line = '×'.repeat(100);
    expect(one(rules.lineLength, 'check/a.ts', `${line}\n${line}`)).toEqual([]);
    expect(one(rules.lineLength, 'check/a.ts', `${line}\n${line}×`)).toEqual([
      'check/a.ts:2 columns 101 > 100',
    ]);
  });

  test('every rule is among those that the source is held to', () => {
    const held = new Set(Object.values(rules.RULES));
    const tried = [
      rules.importTable,
      rules.kernelNamesMachine,
      rules.noDeadFiles,
      rules.noHostNames,
      rules.noEvasions,
      rules.noMarks,
      rules.noModes,
      rules.opensWithComment,
      rules.lineLength,
    ];
    expect(held).toEqual(new Set(tried));
  });
});

function sources(): SourceFile[] {
  // The owner of the checkout does not matter for reading its list of files.
  const arguments_ = ['-c', 'safe.directory=*', 'ls-files', '-co', '--exclude-standard', '*.ts'];
  const listed = execFileSync('git', arguments_, { cwd: ROOT, encoding: 'utf8' });
  return [...new Set(listed.split('\n'))]
    .filter((path) => path !== '' && existsSync(join(ROOT, path)))
    .map((path) => ({ path, text: readFileSync(join(ROOT, path), 'utf8') }));
}
