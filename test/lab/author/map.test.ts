/** `exoscope map`: strips of who owns what, and how they change. */
import { describe, expect, test } from 'vitest';
import { Chart, drawn } from '../../../lab/author/chart.ts';
import { runMode } from '../../../lab/author/run.ts';
import { exoscope } from '../../../lab/exoscope.ts';
import { minimal } from '../../../libos/minimal/minimal.ts';

const SPEC = {
  mode: 'exokernel' as const,
  tenants: 2,
  memory: 64,
  slice: 50_000,
  seed: 1,
  limit: 1e8,
  revocation: null,
};

describe('exoscope map', () => {
  test('counts every page of every tenant, and a run that is looked at is the same run', () => {
    const chart = new Chart(10_000, 2);
    const { tenants, cycles } = runMode(SPEC, [minimal], [], () => undefined, chart);
    const alone = runMode(SPEC, [minimal], []);
    expect({ tenants, cycles }).toEqual({ tenants: alone.tenants, cycles: alone.cycles });
    // 6 pages of each first environment, and 25 of its sieve in the end.
    expect(chart.moments.at(0)?.held).toEqual([6, 6]);
    expect(chart.moments.at(-1)?.held).toEqual([31, 31]);
    const text = drawn(chart.moments);
    expect(text).toMatch(/^ {2}pages {3}#+[abAB.]+$/m);
    expect(text).toMatch(/^ {2}slices {2}(ab){8}$/m);
  });

  test.each([
    [['--mode', 'vm'], /--mode vm: only an exokernel says who owns what/],
    [['nowhere.ts'], /no such file/],
    [['--every', '1'], /--every.*from 1000/],
  ])('%j makes no sense: exit status 2', async (args, says) => {
    let [out, err] = ['', ''];
    const status = await exoscope(['map', ...args], {
      out: (text) => void (out += text),
      err: (text) => void (err += text),
      redraws: false,
      status: 0,
    });
    expect({ status, out }).toEqual({ status: 2, out: '' });
    expect(err).toMatch(says);
  });
});
