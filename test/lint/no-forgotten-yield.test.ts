/**
 * The lint rule on user code that forgets `yield*`: each row is a place where a call can stand.
 * The invalid rows are mistakes that compile; the valid ones are how this project really writes.
 */
import { RuleTester } from '@typescript-eslint/rule-tester';
import { afterAll, describe, it } from 'vitest';

import { noForgottenYield } from '../../lint/no-forgotten-yield.ts';

RuleTester.afterAll = afterAll;
RuleTester.describe = describe;
RuleTester.it = it;
RuleTester.itOnly = it.only;
RuleTester.describeSkip = describe.skip;
RuleTester.itSkip = it.skip;

const tester = new RuleTester({
  languageOptions: {
    parserOptions: {
      projectService: { allowDefaultProject: ['*.ts'], defaultProject: 'tsconfig.json' },
      tsconfigRootDir: `${import.meta.dirname}/../..`,
    },
  },
});

const declarations = `
type Op<T> = Generator<unknown, T, void>;
declare class UserPort {
  load32(va: number): number | undefined;
  store32(va: number, value: number): number | undefined;
  work(cycles: number): number | undefined;
  fault(): Op<number>;
  load(va: number): Op<number>;
  now(): number;
}
declare class Cache { lookup(key: number): number | undefined }
declare const port: UserPort;
declare const cache: Cache;
declare const entries: ((n: number) => Op<void>)[];
declare function helper(n: number): Op<number>;
declare function plain(): Generator<string>;
declare function run(op: Op<number>): void;
declare function later(f: () => void): void;
declare function spawn(f: () => Op<number>): void;
`;

const FIRST = declarations.split('\n').length; // line of the row's own first line

/** The row's code as the body of a piece of user code. */
const inOp = (body: string): string =>
  `${declarations}export function* main(): Op<unknown> {\n${body}\n}`;
const atTop = (text: string): string => declarations + text;

type Message = 'dropped' | 'yielded' | 'consumed' | 'iterated' | 'lostTrap';
const wrong = (name: string, messageId: Message, code: string) => ({
  name,
  code,
  errors: [{ messageId }],
});
const right = (name: string, code: string) => ({ name, code });

tester.run('no-forgotten-yield', noForgottenYield, {
  invalid: [
    wrong('a bare call', 'dropped', inOp('helper(3); return 0;')),
    wrong('a bare call of the sugar', 'dropped', inOp('port.load(8); return 0;')),
    wrong('a bare call of the fault', 'dropped', inOp('port.fault(); return 0;')),
    wrong('a call made void', 'dropped', inOp('void helper(3); return 0;')),
    wrong('a call behind a condition', 'dropped', inOp('cache.lookup(1) && helper(3); return 0;')),
    wrong('a call in one branch', 'dropped', inOp('port.now() > 1 ? helper(1) : 0; return 0;')),
    wrong('a call behind `?.`', 'dropped', inOp('entries[0]?.(1); return 0;')),
    wrong('a callback that returns it to nobody', 'dropped', inOp('later(() => helper(3));')),
    wrong('the same with `return`', 'dropped', inOp('later(() => { return helper(3); });')),
    wrong('`yield` of a call', 'yielded', inOp('return yield helper(3);')),
    wrong('`yield` of a variable', 'yielded', inOp('const op = helper(3); return yield op;')),
    wrong('arithmetic', 'consumed', inOp('return String(1) + helper(3);')),
    wrong('a comparison', 'consumed', inOp('return helper(3) === undefined;')),
    wrong('a condition', 'consumed', inOp('if (helper(3)) return 1; return 0;')),
    wrong('a loop condition', 'consumed', inOp('while (helper(3)) { return 1; } return 0;')),
    wrong('a negation', 'consumed', inOp('return !helper(3);')),
    wrong('a template', 'consumed', inOp('return `${helper(3)}`;')),
    wrong('the left of `??`', 'consumed', inOp('return port.load(8) ?? 0;')),
    wrong('`await`', 'consumed', atTop('export const f = async () => { await helper(3); };')),
    wrong('for-of over an Op', 'iterated', inOp('for (const x of helper(3)) return x; return 0;')),
    wrong('a spread of an Op', 'iterated', inOp('return [...helper(3)];')),
    wrong('a plain generator, dropped', 'dropped', inOp('plain(); return 0;')),

    wrong('a dropped store', 'lostTrap', inOp('port.store32(8, 1); return 0;')),
    wrong('a dropped load', 'lostTrap', inOp('port.load32(8); return 0;')),
    wrong('dropped work', 'lostTrap', inOp('void port.work(10); return 0;')),
    wrong('a store behind a condition', 'lostTrap', inOp('cache.lookup(1) && port.work(1);')),
    wrong('a default for the trap', 'lostTrap', inOp('return port.load32(8) ?? 0;')),
    {
      name: 'each mistake of a function is reported, in its place',
      code: inOp('helper(1);\nport.work(2);\nyield helper(3);\nreturn 0;'),
      errors: [
        { messageId: 'dropped', data: { call: 'helper' }, line: FIRST + 1 },
        { messageId: 'lostTrap', data: { call: 'port.work' }, line: FIRST + 2 },
        { messageId: 'yielded', line: FIRST + 3 },
      ],
    },
  ],

  valid: [
    right('delegation', inOp('return yield* helper(3);')),
    right('delegation as a statement', inOp('yield* helper(3); return 0;')),
    right('delegation in arithmetic', inOp('return (yield* helper(3)) + (yield* port.load(8));')),
    right('delegation to either', inOp('return yield* (port.now() > 1 ? helper(1) : helper(2));')),
    right('a handler that may be absent', inOp('return yield* (entries[0]?.(1) ?? helper(2));')),
    right('the primitive', inOp('return port.load32(8) ?? (yield* port.fault());')),
    right('the primitive as a statement', inOp('port.work(2) ?? (yield* port.fault()); return 0;')),
    right('a bailing helper', atTop('export const f = () => port.store32(8, 1) !== undefined;')),
    right('a kept load', inOp('const v = port.load32(8); return v ?? (yield* port.fault());')),
    right('returned', atTop('export function f(): Op<number> { return helper(3); }')),
    right('the body of an arrow', atTop('export const f = (n: number) => helper(n);')),
    right('an arrow that is expected to make one', atTop('spawn(() => helper(3));')),
    right('passed on', atTop('run(helper(3)); run(port.load(8));')),
    right('a variable', inOp('const op = helper(3); return yield* op;')),
    right('a property', atTop('export const o = { code: helper(3) };')),
    right(
      'a field',
      atTop(
        'export class C { op: Op<number> | null = null; f = helper(1);\n' +
          'go(): void { this.op = helper(3); this.op ??= helper(4); } }',
      ),
    ),
    right('an element', atTop('export const all = [helper(1), helper(2)];')),
    right('a default', atTop('export const f = (op: Op<number> = helper(3)) => op;')),
    right('driven by hand, as a supervisor does', atTop('export const r = helper(3).next();')),
    right('a plain generator in for-of', atTop('for (const s of plain()) String(s);')),
    right('a plain generator spread', atTop('export const all = [...plain()];')),
    right('`yield` of a number', inOp('yield 3; yield; return 0;')),
    right('a dropped lookup of another class', inOp('cache.lookup(3); return 0;')),
    right('a dropped call of the port that cannot trap', inOp('port.now(); return 0;')),
    right('iterators of collections', atTop('new Map<number, number>().values();')),
  ],
});
