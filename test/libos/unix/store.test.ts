/**
 * Unix programs and the key-value store: kvput and kvget in a shell, the store an environment of
 * the same tenant. One script in every mode, on one disk for two boots; what it prints is the same.
 */
import { describe, expect, test } from 'vitest';

import { ALL_MODES, type Mode } from '../../../lab/modes.ts';
import type { RamMedium } from '../../../machine/disk.ts';
import { boot, Image, LIMIT, type RealConfig, treeOf } from './real.ts';

const FILES = 1024; // blocks
const STORE = { pages: 256, blocks: 512 };
const LONG = 'all work and no play. '.repeat(2700).slice(0, 59_000);
const image = new Image(treeOf({ long: LONG, longer: LONG.repeat(2) }), FILES, STORE.blocks);

const FIRST = [
  'echo hello | kvput greeting; kvget greeting | tr a-z A-Z',
  'kvput long < long; kvget long | wc -c; kvget long > copy; sha256sum < long; sha256sum < copy',
  'kvget nothing; echo missing $?',
  'kvput longer < longer; echo long $?',
  'kvget longer; echo kept $?',
  'kvput greeting < /dev/null; kvget greeting; echo empty $?',
  'echo again | kvput greeting; kvput 2>/dev/null; echo usage $?',
  'seq 3000 | kvput many; kvget many | kvput more; kvget more | sha256sum; seq 3000 | sha256sum',
  'kvget many | tail -n 1; kvget many | head -n 1',
  'sync',
].join('\n');
const SECOND = 'kvget greeting; kvget long | sha256sum; kvget more | wc -l';
const SHORT = 'echo hello | kvput greeting; kvget greeting | tr a-z A-Z; kvget nothing; sync';

function run(config: RealConfig, medium: RamMedium, script: string): string {
  image.rewrite(medium, [script]);
  const { machine, outcome } = boot(image, medium, 1, { store: STORE, ...config });
  expect(machine.run(LIMIT)).toBe('halted');
  const { stdout, complaints } = outcome();
  expect(complaints).toEqual([]);
  return stdout[0] ?? '';
}

function twice(mode: Mode, config: Partial<RealConfig> = {}): readonly string[] {
  const medium = image.medium(['']);
  return [FIRST, SECOND].map((script) => run({ mode, ...config }, medium, script));
}

describe('kvput and kvget', () => {
  const expected = twice('bare');
  const digest = expected[1]?.split('\n')[1] ?? '';

  test('print what they are to print, and what is kept outlives the machine', () => {
    expect(digest).toMatch(/^[0-9a-f]{64} /);
    const digests = expected[0]?.match(/[0-9a-f]{64} {2}-/g)?.slice(2) ?? [];
    expect(new Set(digests).size).toBe(1);
    const tooLong = 'kvput: value too long: at most 61440 bytes, and half a segment of the store';
    expect(expected[0]).toBe(
      `HELLO\n${LONG.length}\n${digest}\n${digest}\nmissing 1\n${tooLong}\nlong 2\nkept 1\n` +
        `empty 0\nusage 2\n${digests.join('\n')}\n3000\n1\n`,
    );
    expect(expected[1]).toBe(`again\n${digest}\n3000\n`);
  });

  test.each(ALL_MODES.filter((mode) => mode !== 'bare' && mode !== 'vm-nested'))(
    '%s prints the same',
    (mode) => {
      expect(twice(mode)).toEqual(expected);
    },
  );

  test('short slices, and a trap before every access, change nothing', () => {
    expect(twice('exokernel', { parameters: { sliceCycles: 20_000 } })).toEqual(expected);
    const config: RealConfig = { mode: 'exokernel-in-vm', storm: true };
    expect(run(config, image.medium(['']), SHORT)).toBe('HELLO\n');
  });

  test('the pages come back, program after program', () => {
    const lines = Array.from({ length: 60 }, (_, n) => `echo ${n} | kvput k; kvget k`);
    const medium = image.medium(['']);
    const config: RealConfig = { mode: 'exokernel', parameters: { quota: 1400 } };
    const said = run(config, medium, lines.join('\n'));
    expect(said).toBe(Array.from({ length: 60 }, (_, n) => `${n}\n`).join(''));
  });

  test('without a store they say so', () => {
    const plain = new Image(treeOf({}), FILES);
    const { machine, outcome } = boot(plain, plain.medium(['kvget k; echo $?']), 1, {
      mode: 'exokernel',
    });
    expect(machine.run(LIMIT)).toBe('halted');
    expect(outcome().stdout[0]).toBe('kvget: the key-value store: No such device or address\n2\n');
  });
});
