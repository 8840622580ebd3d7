/**
 * What `exoscope run` says: what each tenant printed, what each mode cost, whether the outputs are
 * the same in all modes, and of what failed, why.
 */
import type { Mode } from '../modes.ts';
import { aligned, COUNTED } from '../report.ts';
import type { ModeResult, TenantResult } from './run.ts';
import { times } from './witness.ts';

export interface Told {
  readonly text: string;
  readonly ok: boolean;
}

/** @param titles of the tenants, in order @param trace whether all refusals are wanted */
export function tell(
  results: readonly ModeResult[],
  titles: readonly string[],
  compared: readonly Mode[],
  trace: boolean,
): Told {
  const parts: string[] = [];
  const [first] = results;
  const differing = differences(results, titles, compared);
  for (const { tenant, output } of first?.tenants ?? []) {
    parts.push(`${titles[tenant - 1]}${only(results, first)}:\n${indented(output)}`);
  }
  if (results.some(({ broker }) => broker !== '')) {
    const said = results.find(({ broker }) => broker !== '')?.broker ?? '';
    parts.push(`memory broker:\n${indented(said)}`);
  }
  parts.push(counters(results));
  for (const result of results) parts.push(...fates(result, results.length > 1, trace));
  const failed = results.flatMap(({ tenants }) => tenants).filter(({ fate }) => fate === 'failed');
  const stuck = results.flatMap(({ tenants }) => tenants).filter(({ fate }) => fate === 'runs');
  if (differing.length > 0) parts.push(...differing);
  else if (compared.length > 1) {
    parts.push(`outputs are the same in all ${compared.length} modes compared`);
  }
  const ok = failed.length === 0 && stuck.length === 0 && differing.length === 0;
  return { text: `${parts.filter((part) => part !== '').join('\n\n')}\n`, ok };
}

const only = (results: readonly ModeResult[], first: ModeResult | undefined): string =>
  results.length > 1 ? '' : `, ${first?.mode}`;

const indented = (text: string): string =>
  text === '' ? '    (nothing)' : text.trimEnd().replace(/^(?=.)/gm, '    ');

function counters(results: readonly ModeResult[]): string {
  const rows = results.map((result) => COUNTED.map(([, of]) => of(result)));
  return aligned([COUNTED.map(([title]) => title), ...rows], 1).join('\n');
}

function fates({ mode, tenants }: ModeResult, several: boolean, trace: boolean): string[] {
  const before = several ? `${mode}: ` : '';
  return tenants.flatMap((result) => [
    ...result.account.map((text) => `${before}${text}`),
    ...(trace ? traced(before, result) : []),
  ]);
}

const traced = (before: string, { tenant, refusals }: TenantResult): string[] =>
  refusals.map(({ text, count }) => `${before}tenant ${tenant}: ${times(text, count)}`);

/** For each tenant and mode that printed something else than the first mode: where it differs. */
function differences(
  results: readonly ModeResult[],
  titles: readonly string[],
  compared: readonly Mode[],
): string[] {
  const [first, ...others] = results.filter(({ mode }) => compared.includes(mode));
  if (first === undefined) return [];
  return others.flatMap((other) =>
    first.tenants.flatMap(({ tenant, output }) => {
      const theirs = other.tenants.find((one) => one.tenant === tenant)?.output ?? '';
      if (theirs === output) return [];
      const [here, there] = [output.split('\n'), theirs.split('\n')];
      const line = here.findIndex((text, n) => text !== there[n]);
      const at = line < 0 ? here.length : line;
      return [
        `${titles[tenant - 1]}: outputs DIFFER from line ${at + 1} on\n` +
          `    ${first.mode.padEnd(15)} ${here[at] ?? '(ends)'}\n` +
          `    ${other.mode.padEnd(15)} ${there[at] ?? '(ends)'}`,
      ];
    }),
  );
}
