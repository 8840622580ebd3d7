/**
 * The kernel allocates nothing after boot. Its tables are laid out once; what it keeps between two
 * traps are words in them. Here the kernel's objects are looked through, private fields included,
 * before and after a thousand calls of every sort, and its source is searched for anything outside
 * them that could hold something.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { Session } from 'node:inspector';
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PageKind } from '../../kernel/abi.ts';
import { CALLS, Rig } from './harness.ts';
import { audit } from '../../check/invariants/index.ts';

interface Remote {
  readonly type: string;
  readonly subtype?: string;
  readonly className?: string;
  readonly description?: string;
  readonly objectId?: string;
  readonly value?: unknown;
}
interface Property {
  readonly name: string;
  readonly value?: Remote;
}
interface Properties {
  readonly result: readonly Property[];
  readonly privateProperties?: readonly Property[];
  readonly internalProperties?: readonly Property[];
}

/** Every field below `object`, private ones too, in words; the machine is not the kernel's. */
function fieldsOf(object: object): string[] {
  const session = new Session();
  session.connect();
  const found: string[] = [];
  const look = (path: string, { type, className, objectId, value, description }: Remote): void => {
    const machine = className?.endsWith('Machine') === true;
    if (objectId === undefined || type === 'function' || machine) {
      found.push(`${path} = ${description ?? JSON.stringify(value)}`);
      return;
    }
    found.push(`${path}: ${className ?? ''}`);
    const parameters = { objectId, ownProperties: true };
    session.post('Runtime.getProperties', parameters, (error, answer: object) => {
      if (error !== null) throw error;
      const { result, privateProperties, internalProperties } = answer as Properties;
      const inside = (internalProperties ?? []).filter(({ name }) => name === '[[Entries]]');
      for (const { name, value: next } of [...result, ...(privateProperties ?? []), ...inside]) {
        if (next !== undefined && name !== '__proto__') look(`${path}.${name}`, next);
      }
    });
  };
  const holder = globalThis as { looked?: object };
  holder.looked = object;
  session.post('Runtime.evaluate', { expression: 'globalThis.looked' }, (error, answer: object) => {
    if (error !== null) throw error;
    look('kernel', (answer as { result: Remote }).result);
  });
  delete holder.looked;
  session.disconnect();
  return found;
}

test('looking through an object finds its private fields, and what has changed in them', () => {
  class Counter {
    #count = 0;
    readonly list = new Map<string, number[]>();
    add(): void {
      this.#count++;
      this.list.set('all', [this.#count]);
    }
  }
  const counter = new Counter();
  const before = fieldsOf(counter);
  expect(before).toContain('kernel.#count = 0');
  counter.add();
  const after = fieldsOf(counter);
  expect(after).toContain('kernel.#count = 1');
  expect(after.length).toBeGreaterThan(before.length);
});

test('no field of the kernel changes, and no page becomes its own, whatever it is asked', () => {
  const operand = fc.oneof(
    fc.nat(20),
    fc.nat(100),
    fc.constantFrom(-1, 300, 2048, 4096, 6144, (1 << 14) | 1, (1 << 14) | 2),
  );
  const call = fc.tuple(fc.constantFrom(...CALLS), fc.array(operand, { minLength: 8 }));
  fc.assert(
    fc.property(fc.array(call, { minLength: 200, maxLength: 200 }), (calls) => {
      const rig = new Rig();
      const own = (): number[] =>
        Array.from({ length: rig.raw.pages }, (_, page) => page).filter((page) => {
          const kind = rig.raw.kind(page);
          return kind === PageKind.kernel || kind === PageKind.published;
        });
      const [fields, pages] = [fieldsOf(rig.kernel), own()];
      expect(fields).toContain('kernel.#state.secret.rows = 16');
      for (const [n, [name, args]] of calls.entries()) {
        const { row } = n % 2 === 0 ? rig.a : rig.b;
        if (rig.lane(rig.raw.id(row)).done) rig.calls(row, name, ...args);
      }
      expect(fieldsOf(rig.kernel)).toEqual(fields);
      expect(own()).toEqual(pages);
      expect(audit(rig.raw, undefined, true)).toEqual([]);
    }),
    { numRuns: 5 },
  );
});

describe('nothing outside the kernel’s objects holds anything', () => {
  const folder = 'kernel/exokernel';
  const files = [...readdirSync(folder).map((file) => `${folder}/${file}`), 'kernel/supervisor.ts'];
  /** At the top of a module: a variable, or a container that could be filled. */
  const KEEPS = /^(export )?(let|var) |^(export )?const \w+(: [^=]+)? = (new |\[\]|\{\})/m;
  test.each(files)('%s', (file) => {
    expect(KEEPS.exec(readFileSync(file, 'utf8'))?.[0]).toBeUndefined();
  });
  test('the search finds what it is for', () => {
    for (const line of [
      'let at = 0;',
      'export let b;',
      'const seen = new Map();',
      'const l = [];',
    ]) {
      expect(KEEPS.test(`// a\n${line}\n`)).toBe(true);
    }
    expect(KEEPS.test('const LIMIT = 5;\n  let inside = 0;\nconst t = [1, 2];\n')).toBe(false);
  });
});
