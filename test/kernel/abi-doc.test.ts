/**
 * docs/ABI.md is the interface for people: it has exactly the calls of kernel/abi.ts, by number,
 * and of each the refusals that the tables of refusals/ provoke, in the same order.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { ARITY, Call, CALL_COUNT, Status } from '../../kernel/abi.ts';
import { CALLS } from './harness.ts';
import { REFUSALS } from './refusals/index.ts';

interface Entry {
  readonly name: string;
  readonly number: number;
  readonly signature: string;
  readonly refusals: readonly string[];
}

/** Entries of the page: `## name (number)`, a signature in code, `1. status (argument): why`. */
function entriesOf(text: string): Entry[] {
  return text
    .split(/^## /m)
    .slice(1)
    .flatMap((section) => {
      const head = /^(\w+) \((\d+)\)\n/.exec(section);
      if (head === null) return [];
      const signature = /^ {4}(.*)$/m.exec(section)?.[1] ?? '';
      const refusals = [...section.matchAll(/^\d+\. `(\w+)` \((\d)\): (.+)$/gm)].map(
        ([, status, argument, why]) => `${status} (${argument}): ${why}`,
      );
      return [{ name: head[1] ?? '', number: Number(head[2]), signature, refusals }];
    });
}

const entries = entriesOf(readFileSync('docs/ABI.md', 'utf8'));

describe('docs/ABI.md', () => {
  test('has the calls of the interface, by number', () => {
    const documented = entries.map(({ name, number }) => `${name} ${number}`);
    expect(documented).toEqual(CALLS.map((name) => `${name} ${Call[name]}`));
    expect(entries).toHaveLength(CALL_COUNT);
  });

  for (const name of CALLS) {
    test(`${name}: its arguments and its refusals in order`, () => {
      const entry = entries.find((one) => one.name === name);
      const due = REFUSALS[name].mistakes.map(
        ({ status, argument, why }) => `${status} (${argument}): ${why}`,
      );
      expect(entry?.refusals).toEqual(due);
      const inside = /\((.*)\)/.exec(entry?.signature ?? '')?.[1] ?? '';
      const listed = inside === '' ? 0 : inside.split(',').length;
      expect(listed).toBe(REFUSALS[name].domains.length);
      const arity = ARITY[Call[name]] ?? NaN;
      if (arity >= 0) expect(listed, 'words of a record in a batch').toBe(arity);
    });
  }

  test('has every status', () => {
    const text = readFileSync('docs/ABI.md', 'utf8');
    for (const [name, number] of Object.entries(Status)) {
      expect(text).toContain(`| ${number} | \`${name}\` |`);
    }
  });
});
