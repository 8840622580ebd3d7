/**
 * Some ratios depend on where V8 happens to place the code of a loop, or the objects of a heap, for
 * as long as the process lives. They are measured in several processes, and the median one counts.
 * This file is parent and child: started by itself, with what to measure, it prints the figures.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { checks } from './accesses.ts';
import { onBoard } from './board.ts';
import { median } from './race.ts';
import { switches } from './switches.ts';
import { supervisorLoads } from './systems.ts';

const FILE = fileURLToPath(import.meta.url);
const PROCESSES = 5;

/** Both sides of a ratio, in nanoseconds. */
export type Pair = readonly [a: number, b: number];

const MEASURES = {
  checks: (): readonly Pair[] => {
    const { generator, generatorStripped, helper, helperStripped } = onBoard(checks);
    return [
      [generator, generatorStripped],
      [helper, helperStripped],
    ];
  },
  switches: (): readonly Pair[] => {
    const { one, thousand, hundredThousand } = switches();
    return [
      [thousand, one],
      [hundredThousand, one],
    ];
  },
  supervisor: (): readonly Pair[] => {
    const { physical, virtual } = supervisorLoads();
    return [[physical, virtual]];
  },
};

/** The pairs of a measure, each from the process whose ratio is the median. */
export function inProcesses(measure: keyof typeof MEASURES): readonly Pair[] {
  const runs = Array.from({ length: PROCESSES }, () => {
    const args = [...process.execArgv, FILE, measure];
    return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8' })) as Pair[];
  });
  return (runs[0] ?? []).map((_, n) => middle(runs.map((pairs) => pairs[n] ?? NONE)));
}

/** What a process did not measure: no goal is met by it. */
export const NONE: Pair = [NaN, NaN];

function middle(pairs: readonly Pair[]): Pair {
  const ratio = ([a, b]: Pair): number => a / b;
  const wanted = median(pairs.map(ratio));
  return pairs.find((pair) => ratio(pair) === wanted) ?? NONE;
}

if (process.argv[1] === FILE) {
  const measure = Object.entries(MEASURES).find(([name]) => name === process.argv[2]);
  console.log(JSON.stringify(measure?.[1]() ?? []));
}
