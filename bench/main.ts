/**
 * npm run bench: how fast the simulator itself is, against the goals that its engine was chosen
 * for. Each goal is a ratio whose two sides are measured in this run, in turns.
 *
 *     npm run bench -- --json FILE    also writes the goals as JSON
 *
 * Exit status 1 if a goal is missed, 2 for an option or a file that will not do.
 */
import { writeFileSync } from 'node:fs';
import { availableParallelism, loadavg } from 'node:os';
import { parseArgs } from 'node:util';
import { bulk, loads } from './accesses.ts';
import { onBoard } from './board.ts';
import { environments } from './environments.ts';
import { inProcesses, NONE } from './processes.ts';
import { program } from './program.ts';
import { systems } from './systems.ts';

interface Goal {
  readonly id: string;
  readonly what: string;
  readonly measured: number;
  readonly limit: number;
  readonly met: boolean;
  /** both sides of the ratio, for people */
  readonly sides: string;
}

const HEAP_NOISE = 0.5; // bytes a hit: the counters themselves allocate now and then

function measure(): { goals: Goal[]; figures: [what: string, value: string][] } {
  const [checkInGenerator = NONE, checkInHelper = NONE] = inProcesses('checks');
  const [thousand = NONE, hundredThousand = NONE] = inProcesses('switches');
  const [[physical, virtual] = NONE] = inProcesses('supervisor');
  const load = onBoard(loads);
  const copy = onBoard(bulk);
  const whole = onBoard(program);
  const system = systems();
  const crowd = environments();

  const goals = [
    atMost('1', 'load that hits, generator / raw', load.generator, load.raw, 4),
    atMost('2', 'load that hits, plain helper / raw', load.helper, load.rawHelper, 4),
    atMost('3', 'load at depth 16 / depth 1', load.depth16, load.depth1, 1.25),
    atMost('4', 'yield* port.load() / raw', load.sugar, load.raw, 8),
    noHeap('4-heap', 'heap bytes for each of its hits', load.sugarBytes, load.controlBytes),
    atMost('5', 'sort and hash table / raw', whole.portMs, whole.rawMs, 6, 'ms'),
    atMost('7', 'switch among 1,000 / bare trap', ...thousand, 2),
    atMost('7-many', 'switch among 100,000 / bare trap', ...hundredThousand, 2.5),
    atMost('9', 'copy of 4 KiB / raw copyWithin', copy.page, copy.rawPage, 3),
    atLeast('9-words', 'copy of 4 KiB by words / in bulk', copy.pageByWords, copy.page, 20),
    atMost('10', 'load / load without its check, generator', ...checkInGenerator, 1.05),
    atMost('10-plain', 'the same in a plain helper', ...checkInHelper, 1.05),
    atMost('11', '10,000 environments, 100,000 slices, MiB', crowd.mebibytes, 1, 512, 'MiB'),
  ];
  const figures: [string, string][] = [
    ['trap and resume (kernel call and answer)', `${thousand[1].toFixed(0)} ns`],
    ['copy of 64 bytes', `${copy.bytes64.toFixed(0)} ns`],
    ["supervisor's load, on the hardware", `${physical.toFixed(1)} ns`],
    ["supervisor's load, in a virtual machine", `${virtual.toFixed(1)} ns`],
    ['slice switch among 10,000 environments', `${(crowd.nanoseconds / 1000).toFixed(1)} us`],
    ['minimal on the exokernel, boot to halt', `${system.exokernelMs.toFixed(1)} ms`],
    ['minimal in a virtual machine, boot to halt', `${system.virtualMs.toFixed(1)} ms`],
  ];
  return { goals, figures };
}

function atMost(id: string, what: string, a: number, b: number, limit: number, unit = 'ns'): Goal {
  const measured = a / b;
  return { id, what, measured, limit, met: measured <= limit, sides: sides(a, b, unit) };
}

function atLeast(id: string, what: string, a: number, b: number, limit: number): Goal {
  const measured = a / b;
  const goal = { id, what: `${what}, at least`, measured, limit, met: measured >= limit };
  return { ...goal, sides: sides(a, b, 'ns') };
}

/** The control says that an allocation would have been seen. */
function noHeap(id: string, what: string, measured: number, control: number): Goal {
  const limit = HEAP_NOISE;
  const met = measured <= limit && control > 16;
  return { id, what, measured, limit, met, sides: `a generator each: ${control.toFixed(0)} bytes` };
}

const sides = (a: number, b: number, unit: string): string => `${digits(a)} / ${digits(b)} ${unit}`;
const digits = (x: number): string => x.toFixed(x < 100 ? 2 : 0);

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows.reduce<number[]>(
    (wide, row) => row.map((cell, n) => Math.max(wide[n] ?? 0, cell.length)),
    [],
  );
  const numeric = (cell: string): boolean => /^[\d.]+$/.test(cell);
  const pad = (cell: string, n: number): string =>
    numeric(cell) ? cell.padStart(widths[n] ?? 0) : cell.padEnd(widths[n] ?? 0);
  return rows.map((row) => row.map(pad).join('  ').trimEnd()).join('\n');
}

function main(args: readonly string[]): number {
  let json: string | undefined;
  try {
    ({ json } = parseArgs({ args: [...args], options: { json: { type: 'string' } } }).values);
  } catch (error) {
    const [line] = (error instanceof Error ? error.message : String(error)).split('\n');
    console.error(`bench: ${line ?? ''}`);
    return 2;
  }
  const load = (loadavg()[0] ?? 0).toFixed(2);
  console.log(`node ${process.version}, ${availableParallelism()} processors, load ${load}\n`);
  const { goals, figures } = measure();
  const rows = goals.map(({ id, what, measured, limit, met, sides }) => [
    id,
    what,
    measured.toFixed(2),
    String(limit),
    met ? 'met' : 'MISSED',
    sides,
  ]);
  console.log(table([['goal', 'what', 'measured', 'limit', '', 'sides'], ...rows]));
  console.log(`\n${table(figures)}`);
  if (json !== undefined && !write(json, goals)) return 2;
  const missed = goals.filter(({ met }) => !met);
  if (missed.length > 0) console.log(`\nMISSED: ${missed.map(({ id }) => id).join(', ')}`);
  return missed.length > 0 ? 1 : 0;
}

/** False if the file cannot be written. */
function write(file: string, goals: readonly Goal[]): boolean {
  const kept = goals.map(({ sides: _, ...goal }) => goal);
  try {
    writeFileSync(file, `${JSON.stringify({ goals: kept }, null, 2)}\n`);
    return true;
  } catch (error) {
    console.error(`bench: ${error instanceof Error ? error.message : String(error)}`);
    return false;
  }
}

process.exitCode = main(process.argv.slice(2));
