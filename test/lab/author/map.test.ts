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
    expect(chart.moments.at(0)?.exposed?.held).toEqual([6, 6]);
    expect(chart.moments.at(-1)?.exposed?.held).toEqual([31, 31]);
    const text = drawn(chart.moments);
    expect(text).toMatch(/^ {2}pages {3}#+[abAB.]+$/m);
    expect(text).toMatch(/^ {2}slices {2}(ab){8}$/m);
  });

  test('of virtual machines it counts what the hypervisor gave to whom', () => {
    const chart = new Chart(50_000, 2);
    const spec = { ...SPEC, mode: 'vm' as const, touched: true };
    const { tenants, cycles } = runMode(spec, [minimal], [], () => undefined, chart);
    const alone = runMode(spec, [minimal], []);
    expect({ tenants, cycles }).toEqual({ tenants: alone.tenants, cycles: alone.cycles });
    const hosts = chart.moments.map(({ host }) => host);
    const held = hosts.map((host) => host?.guests.map((guest) => guest.held) ?? []);
    // More and more, as the programs touch more; and no exokernel says anything.
    const [first = [], last = []] = [held.at(0), held.at(-1)];
    expect(first).toHaveLength(2);
    last.forEach((pages, n) => {
      expect(pages).toBeGreaterThan((first[n] ?? 0) + 20);
    });
    expect(chart.moments.every(({ exposed }) => exposed === null)).toBe(true);
    // The strip, a letter a page, is drawn from the ledger and the counts from the guests' rows.
    const { pages = '', guests = [] } = hosts.at(-1) ?? {};
    expect(pages.length).toBeLessThanOrEqual(64);
    const text = drawn(chart.moments);
    expect(text).toMatch(/^ {2}host pages {3}#+[AaBb#]+\.+$/m);
    expect(text).toMatch(/^ {2}host blocks {2}A+B+\.*$/m);
    expect(text).toContain(
      `guest A: ${guests[0]?.held} host pages behind its ${guests[0]?.pages}, ` +
        `${guests[0]?.tables} of tables`,
    );
  });

  test('of an exokernel in a virtual machine it shows both views', async () => {
    let out = '';
    const status = await exoscope(['map', '--mode', 'exokernel-in-vm', '--cycles', '1000000'], {
      out: (text) => void (out += text),
      err: (text) => void (out += text),
      redraws: false,
      status: 0,
    });
    expect(status).toBe(0);
    expect(out).toContain(
      "This is the operator's view, from the hypervisor's own tables: no guest has it.",
    );
    expect(out).toMatch(
      /pages held: a \d+, b \d+\n {2}pages .*\n.*\n.*\n {2}guest A: \d+ host pages/,
    );
  });

  test.each([
    [['--mode', 'bare'], /--mode bare: nobody says there who owns what/],
    [['--mode', 'vm', '--revoke', '8@1000'], /--revoke: nobody asks for pages in mode vm/],
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
