/** `exoscope new`: what it writes runs as it is, and nothing that exists is written over. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, describe, expect, test } from 'vitest';
import { runMode } from '../../../lab/author/run.ts';
import { writeSkeleton } from '../../../lab/author/skeleton.ts';
import { exoscope } from '../../../lab/exoscope.ts';
import { MODES } from '../../../lab/modes.ts';
import type { Image } from '../../../libos/libos.ts';

const ROOT = fileURLToPath(new URL('../../..', import.meta.url));
const SPEC = { tenants: 2, memory: 256, slice: 100_000, seed: 1, limit: 1e9, revocation: null };

mkdirSync(join(ROOT, 'mine'), { recursive: true });
const inside = mkdtempSync(join(ROOT, 'mine', 'test-'));
const outside = mkdtempSync(join(tmpdir(), 'exoscope-'));
afterAll(() => {
  rmSync(inside, { recursive: true, force: true });
  rmSync(outside, { recursive: true, force: true });
});

describe('a skeleton', () => {
  const written = writeSkeleton('my-first', inside);

  test('runs as it is, in every mode', async () => {
    const loaded = (await import(pathToFileURL(written.libos).href)) as { default: Image };
    for (const mode of MODES) {
      const { tenants } = runMode({ ...SPEC, mode }, [loaded.default], []);
      expect(tenants.map(({ output, fate }) => ({ output, fate }))).toEqual(
        [1, 2].map(() => ({ output: 'my-first: the sum is 499500\n', fate: 'ended' })),
      );
    }
  });

  test('and its test says what is printed', () => {
    const text = readFileSync(written.test, 'utf8');
    expect(text).toContain("import libos from './my-first.ts'");
    expect(text).toContain('my-first: the sum is 499500');
    expect(text).not.toMatch(/skeleton/i);
  });

  test('is not written over', () => {
    writeFileSync(written.libos, '// mine\n');
    expect(() => writeSkeleton('my-first', inside)).toThrow(/my-first\.ts exists; take another/);
    expect(readFileSync(written.libos, 'utf8')).toBe('// mine\n');
  });

  test('outside a checkout needs the package, and then imports it by name', () => {
    expect(() => writeSkeleton('there', outside)).toThrow(
      /outside a checkout of Exoscope, and no package 'exoscope' is found/,
    );
    mkdirSync(join(outside, 'node_modules'));
    symlinkSync(ROOT, join(outside, 'node_modules', 'exoscope'));
    const { libos, checkout } = writeSkeleton('there', outside);
    expect(checkout).toBe(false);
    expect(readFileSync(libos, 'utf8')).toContain("from 'exoscope/libos/libos.ts'");
  });

  test('has a name that can be one', async () => {
    let err = '';
    const status = await exoscope(['new', 'No Name', '--dir', inside], {
      out: () => undefined,
      err: (text) => void (err += text),
      redraws: false,
      status: 0,
    });
    expect(status).toBe(2);
    expect(err).toMatch(/^exoscope: new No Name: a name has small letters.*\n$/);
  });
});
