/**
 * What a comparison says: one aligned table, and under it why the modes differ, in sentences made
 * from the counts. A sentence names the primitives whose counts account for most of a difference.
 */
import { type CostProfile, cyclesOf } from '../machine/costs.ts';
import type { Counts } from '../machine/counters.ts';
import { EXITS } from '../kernel/hypervisor/state.ts';
import type { Exits, Result } from './experiment.ts';
import { ALL_MODES, type Mode, MODE_TITLES } from './modes.ts';

type Counted = Pick<Result, 'mode' | 'counts' | 'cycles'>;
type Counting = Pick<Result, 'workload' | 'mode' | 'exits'>;

/** What every table of modes shows. */
export const COUNTED: readonly (readonly [title: string, of: (result: Counted) => string])[] = [
  ['mode', ({ mode }) => mode],
  ['kernel calls', ({ counts }) => number(counts.kernelCalls)],
  ['upcalls', ({ counts }) => number(counts.upcalls)],
  ['VM exits', ({ counts }) => number(counts.vmExits)],
  ['walk refs', ({ counts }) => number(counts.pageWalkReferences)],
  ['TLB misses', ({ counts }) => number(counts.tlbMisses)],
  ['zeroed', ({ counts }) => number(counts.pagesZeroed)],
  ['copied', ({ counts }) => number(counts.pagesCopied)],
  ['disk rd', ({ counts }) => number(counts.diskReads)],
  ['disk wr', ({ counts }) => number(counts.diskWrites)],
  ['cycles', ({ cycles }) => number(cycles)],
];

const COLUMNS: readonly (readonly [title: string, of: (result: Result) => string])[] = [
  ['workload', ({ workload }) => workload],
  ...COUNTED,
];

export function table(results: readonly Result[]): string {
  const bare = new Map(
    results.filter(({ mode }) => mode === 'bare').map((result) => [result.workload, result.cycles]),
  );
  const rows = results.map((result) => {
    const base = bare.get(result.workload);
    const ratio = base === undefined ? '-' : (result.cycles / base).toFixed(3);
    const verified = result.verified ? 'yes' : 'NO';
    return [...COLUMNS.map(([, of]) => of(result)), ratio, verified];
  });
  const titles = [...COLUMNS.map(([title]) => title), 'to bare', 'verified'];
  const lines = aligned([titles, ...rows], 2);
  // A line of air between workloads.
  const spaced: string[] = [];
  lines.forEach((line, n) => {
    const here = rows[n - 1]?.[0];
    if (n > 0 && here !== rows[n - 2]?.[0]) spaced.push('');
    spaced.push(line);
  });
  return spaced.join('\n');
}

/**
 * Exits by cause, a column for each hypervisor of each mode, the outermost first. What a guest's
 * guest does is told to its own hypervisor by the outer one: the last line says what that costs.
 */
export function exitTable(results: readonly Counting[]): string {
  const sum = (exits: Exits): number => EXITS.reduce((all, exit) => all + (exits[exit] ?? 0), 0);
  const parts: string[] = [];
  for (const workload of new Set(results.map((result) => result.workload))) {
    const mine = results.filter((result) => result.workload === workload);
    const columns = mine.flatMap(({ mode, exits }) =>
      exits.map((counts, level) => ({
        title: `${mode} ${level}`,
        counts,
        inner: exits[level + 1],
      })),
    );
    if (columns.length === 0) continue;
    const row = (title: string, of: (counts: Exits) => number): string[] => [
      title,
      ...columns.map(({ counts }) => number(of(counts))),
    ];
    const causes = EXITS.filter((exit) => columns.some(({ counts }) => (counts[exit] ?? 0) > 0));
    const rows = [
      [`exits, ${workload}`, ...columns.map(({ title }) => title)],
      ...causes.map((exit) => row(exit, (counts) => counts[exit] ?? 0)),
      row('all', sum),
    ];
    if (columns.some(({ inner }) => inner !== undefined)) {
      const each = columns.map(({ counts, inner }) =>
        inner === undefined ? '' : (sum(counts) / sum(inner)).toFixed(2),
      );
      rows.push(['for each inner one', ...each]);
    }
    parts.push(aligned(rows, 1).join('\n'));
  }
  return parts.join('\n\n');
}

/** Columns padded to equal width: the first `left` of them to the left, the others to the right. */
export function aligned(rows: readonly (readonly string[])[], left: number): string[] {
  const widths = rows[0]?.map((_, column) =>
    Math.max(...rows.map((row) => row[column]?.length ?? 0)),
  );
  return rows.map((row) =>
    row
      .map((cell, column) => {
        const width = widths?.[column] ?? 0;
        return column < left ? cell.padEnd(width) : cell.padStart(width);
      })
      .join('  ')
      .trimEnd(),
  );
}

/** 1234567 as 1,234,567. */
export const number = (n: number): string =>
  Math.round(n)
    .toString()
    .replace(/\B(?=(\d{3})+(?!\d))/g, ',');

/** What cycles go to, by counts times profile: enough of the parts to explain a difference. */
const PARTS: readonly (readonly [
  name: string,
  of: (counts: Counts, cycles: ReturnType<typeof cyclesOf>) => number,
])[] = [
  [
    'traps and their returns',
    (counts, cycles) => counts.traps * (cycles.trapEntry + cycles.trapReturn),
  ],
  ['procedure calls', (counts, cycles) => counts.procedureCalls * cycles.procedureCall],
  [
    'table words that supervisors read and write',
    (counts, { reference, instructionsPerReference }) =>
      counts.supervisorReferences * (reference + instructionsPerReference),
  ],
  ['page-walk references', (counts, cycles) => counts.pageWalkReferences * cycles.walkReference],
  ['control registers', (counts, cycles) => counts.csrAccesses * cycles.csr],
  ['fences', (counts, cycles) => counts.fences * cycles.fence],
  ['device registers', (counts, cycles) => counts.mmioAccesses * cycles.mmio],
  [
    'pages zeroed by supervisors',
    (counts, cycles) => (counts.pagesZeroed * 4096) / cycles.zeroBytesPerCycle,
  ],
];

interface Difference {
  readonly cycles: number;
  readonly parts: readonly { readonly name: string; readonly cycles: number }[];
}

function difference(to: Result, from: Result, profile: CostProfile): Difference {
  const cycles = cyclesOf(profile);
  const parts = PARTS.map(([name, of]) => ({
    name,
    cycles: of(to.counts, cycles) - of(from.counts, cycles),
  }));
  const whole = to.cycles - from.cycles;
  const rest = whole - parts.reduce((sum, part) => sum + part.cycles, 0);
  return {
    cycles: whole,
    parts: [...parts, { name: 'everything else', cycles: rest }].sort(
      (a, b) => Math.abs(b.cycles) - Math.abs(a.cycles),
    ),
  };
}

/** Three or four sentences on why the modes differ in these results. */
export function why(results: readonly Result[], profile: CostProfile): string {
  const find = (workload: string, mode: Mode): Result | undefined =>
    results.find((result) => result.workload === workload && result.mode === mode);
  const workloads = [...new Set(results.map(({ workload }) => workload))];
  const sentences: string[] = [];
  const pairs: readonly (readonly [Mode, Mode])[] = [
    ['exokernel', 'bare'],
    ['vm', 'bare'],
    ['exokernel', 'vm'],
    ['exokernel-in-vm', 'exokernel'],
    ['vm-shadow', 'vm-nested'],
    ['vm-paravirt', 'vm-nested'],
    ['vm-paravirt', 'vm-shadow'],
    ['vm-in-vm', 'vm'],
  ];
  for (const [to, from] of pairs) {
    const both = workloads.flatMap((workload) => {
      const [a, b] = [find(workload, to), find(workload, from)];
      return a === undefined || b === undefined
        ? []
        : [{ workload, a, b, ratio: a.cycles / b.cycles }];
    });
    const sorted = both.sort((a, b) => b.ratio - a.ratio);
    const [most, least] = [sorted[0], sorted[sorted.length - 1]];
    if (most === undefined || least === undefined) continue;
    sentences.push(sentence(to, from, most, least, profile));
  }
  return sentences.join('\n');
}

interface Pair {
  readonly workload: string;
  readonly a: Result;
  readonly b: Result;
  readonly ratio: number;
}

function sentence(to: Mode, from: Mode, most: Pair, least: Pair, profile: CostProfile): string {
  const { cycles, parts } = difference(most.a, most.b, profile);
  const [first, second] = parts;
  const range =
    most === least
      ? `${most.ratio.toFixed(3)} (${most.workload})`
      : `${least.ratio.toFixed(3)} (${least.workload}) to ` +
        `${most.ratio.toFixed(3)} (${most.workload})`;
  const named = [first, second]
    .filter((part) => part !== undefined && Math.abs(part.cycles) > Math.abs(cycles) * 0.05)
    .map((part) => `${signed(part?.cycles ?? 0)} for ${part?.name ?? ''}`)
    .join(' and ');
  const because = named === '' ? '' : `, of which ${named}`;
  return (
    `${to} against ${from}: ${range} in cycles. In ${most.workload} the difference is ` +
    `${signed(cycles)} cycles${because}.`
  );
}

const signed = (n: number): string => `${n < 0 ? '-' : '+'}${number(Math.abs(n))}`;

export function legend(modes: readonly Mode[]): string {
  const listed = ALL_MODES.filter((mode) => modes.includes(mode));
  const width = Math.max(15, ...listed.map(({ length }) => length));
  return listed.map((mode) => `  ${mode.padEnd(width)}  ${MODE_TITLES[mode]}`).join('\n');
}
