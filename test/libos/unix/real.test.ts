/**
 * The programs on the real Unix, in every mode, against the host's own tools: the table that the
 * model of a process answers too. Scripts that change the tree get a machine of their own; the
 * others share one, a row of them for each tenant.
 */
import { isDeepStrictEqual } from 'node:util';
import { describe, expect, test } from 'vitest';

import { MODES, type Mode, sideBySide } from '../../../lab/modes.ts';
import { quoted } from '../../../lab/workloads.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import { AWKWARD, type Case, CASES, LANGUAGE } from './cases.ts';
import { runOnHost } from './host.ts';
import { Image, type RealConfig, runReal, shown, split, status, treeOf } from './real.ts';

const ROW = 1900; // bytes of a script: what the arguments of one process hold
const BLOCKS = 4096;

const image = new Image(treeOf(AWKWARD), BLOCKS);
const programs = [...PROGRAMS, status];
const changes = ({ script }: Case): boolean =>
  />|\b(cp|mv|ln|rm|rmdir|mkdir|touch|tee|chmod) /.test(script);
const command = ({ script }: Case): string => `status ${quoted(script)}`;

/** Cases side by side in as few scripts as hold them. */
function rows(cases: readonly Case[]): Case[][] {
  const all: Case[][] = [];
  let length = ROW;
  for (const one of cases) {
    length += command(one).length + 1;
    if (length >= ROW || changes(one)) {
      all.push([]);
      length = changes(one) ? ROW : command(one).length + 1;
    }
    all[all.length - 1]?.push(one);
  }
  return all;
}

type Outcome = ReturnType<typeof split>[number];

/** What the host's shell makes of the same row. */
const HOST_STATUS = `status() { sh -c "$1"; printf '=status %d=' $?; }\n`;
const onHost = new Map<string, readonly Outcome[]>();
function expected(script: string): readonly Outcome[] {
  let found = onHost.get(script);
  if (found === undefined) {
    found = split(runOnHost(AWKWARD, HOST_STATUS + script).stdout);
    onHost.set(script, found);
  }
  return found;
}

/** Runs the cases, as many tenants at a time as the mode has; those that went wrong, by name. */
function differences(cases: readonly Case[], config: Omit<RealConfig, 'programs'>): unknown {
  const wrong: Record<string, unknown> = {};
  const left = rows(cases);
  const most = sideBySide(config.mode) ? 3 : 1;
  while (left.length > 0) {
    const tenants = left.splice(0, most);
    const scripts = tenants.map((row) => row.map(command).join('\n'));
    const { stdout, complaints, ended } = runReal(image, scripts, { ...config, programs });
    tenants.forEach((row, tenant) => {
      const got = split(stdout[tenant] ?? '');
      const host = expected(scripts[tenant] ?? '');
      row.forEach(({ name }, n) => {
        const [here, there] = [got[n], host[n]];
        if (here !== undefined && isDeepStrictEqual(here, there)) return;
        wrong[name] = {
          status: `${here?.status} instead of ${there?.status}`,
          got: shown(here?.stdout ?? 'nothing'),
          host: shown(there?.stdout ?? 'nothing'),
        };
      });
    });
    if (complaints.length > 0) wrong[`kernel: ${scripts.join(' | ')}`] = complaints;
    if (!ended) wrong[`does not end: ${scripts.join(' | ')}`] = stdout.map(shown);
  }
  return wrong;
}

const LARGE = /long|lines|binary|many|all names|seq: |-0$|seq$|prefixes/;
const SMALL = CASES.filter(({ name, script }) => !LARGE.test(script) && !LARGE.test(name));
const FEW = SMALL.filter((one, n) => n % 3 === 0 && (!changes(one) || n % 2 === 0));
const STORMY = FEW.filter((_, n) => n % 3 === 0);
const only = (...words: readonly string[]): Case[] =>
  CASES.filter(({ name }) => words.some((word) => name.includes(word)));

describe('as on the host', () => {
  test.each(['bare', 'exokernel', 'vm'] as const)('%s', { timeout: 60_000 }, (mode) => {
    expect(differences(CASES, { mode })).toEqual({});
  });
  test("the shell's language", () => {
    const parameters = { sliceCycles: 50_001 };
    expect(differences(LANGUAGE, { mode: 'exokernel', parameters })).toEqual({});
  });
  test('exokernel-in-vm, some', () => {
    const cases = [...FEW, ...only('cp: a tree', 'sort: many', 'sh: many stages', 'xargs: -0')];
    expect(differences(cases, { mode: 'exokernel-in-vm' })).toEqual({});
  });
});

describe('under stress', () => {
  test.each(MODES)(
    'a trap before every access: %s',
    (mode: Mode) => {
      const cases = [...STORMY, ...only('sh: redirections in')];
      expect(differences(cases, { mode, storm: true })).toEqual({});
    },
    120_000,
  );

  test.each(MODES)('slices of 20,000 cycles: %s', (mode: Mode) => {
    const cases = [
      ...FEW,
      ...only('sh: pipeline', 'sh: many stages', 'xargs: items', 'cp: a tree'),
    ];
    expect(differences(cases, { mode, parameters: { sliceCycles: 20_000 } })).toEqual({});
  });

  test.each(['vm', 'exokernel-in-vm'] as const)('memory backed when touched: %s', (mode) => {
    const parameters = { backing: 'touch', secondStage: '4KiB' } as const;
    expect(differences(FEW, { mode, parameters })).toEqual({});
  });

  test.each(['vm', 'exokernel-in-vm'] as const)('small pages, no walk caches: %s', (mode) => {
    const parameters = { secondStage: '4KiB', walkCaches: false } as const;
    const cases = only('sh: pipeline', 'cp: a tree', 'sort: many lines');
    expect(differences(cases, { mode, parameters })).toEqual({});
  });

  test('few pages: caches are replaced', () => {
    const parameters = { quota: 1400 };
    const cases = [...only('cp: a file', 'sha256sum: files', 'cat: long', 'wc: several')];
    expect(differences(cases, { mode: 'exokernel', parameters })).toEqual({});
  });
});
