/**
 * `npm run lockstep`: random programs on the exokernel with the specification beside it, and what
 * they reached. A failing program is shrunk and printed as a text that `--replay` takes.
 *
 * Exit status: 0 no difference, 1 a difference, 2 bad usage, 3 some refusal or call was not reached
 * (asked for with --complete).
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { auditAll } from '../invariants/index.ts';
import { coverageTable, refusalsOf, unreached } from './coverage.ts';
import { dice, randomProgram } from './generator.ts';
import { Lockstep, Tally } from './lockstep.ts';
import { parse, print, type Step } from './program.ts';
import { shrink } from './shrink.ts';

const USAGE = `usage: npm run lockstep -- [--runs N] [--seed S] [--complete] [--json FILE]
       npm run lockstep -- --replay FILE
  --runs N       random programs, default 200
  --seed S       of the first, an integer; default 1; the n-th has seed S + n
  --complete     fail (3) if some call never succeeded or some refusal was never reached
  --json FILE    write what was counted
  --replay FILE  run the program that stands there, and no others
`;

class Usage extends Error {}

function integer(text: string, name: string, least: number): number {
  const n = Number(text);
  if (Number.isInteger(n) && n >= least) return n;
  throw new Usage(`--${name} ${text}: an integer from ${least} on is wanted`);
}

/** What a program fails with, if it does. */
function failure(steps: readonly Step[], tally = new Tally()): string | null {
  try {
    new Lockstep(steps, { tally, audit: (raw) => auditAll(raw, true) }).run();
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

function report(steps: readonly Step[], why: string): void {
  const short = shrink(steps, (fewer) => failure(fewer) !== null);
  console.log(`a difference, in ${short.length} steps of ${steps.length}:\n`);
  console.log(`${print(short)}\n\n${failure(short) ?? why}`);
}

/** Runs one program, and tells what each step came to. */
function replay(steps: readonly Step[]): number {
  const lockstep = new Lockstep(steps);
  try {
    lockstep.run();
    console.log([...lockstep.trail, 'no difference'].join('\n'));
    return 0;
  } catch (error) {
    console.log([...lockstep.trail, String(error)].join('\n'));
    return 1;
  }
}

function main(args: readonly string[]): number {
  const { values } = parseArgs({
    args: [...args],
    options: {
      runs: { type: 'string', default: '200' },
      seed: { type: 'string', default: '1' },
      complete: { type: 'boolean', default: false },
      json: { type: 'string' },
      replay: { type: 'string' },
    },
  });
  if (values.replay !== undefined) {
    return replay(parse(readFileSync(values.replay, 'utf8')));
  }
  const [runs, seed] = [integer(values.runs, 'runs', 1), integer(values.seed, 'seed', 0)];
  const rows = refusalsOf(
    readFileSync(fileURLToPath(new URL('../../docs/ABI.md', import.meta.url)), 'utf8'),
  );
  const tally = new Tally();
  for (let n = 0; n < runs; n++) {
    const steps = randomProgram(dice(seed + n));
    const why = failure(steps, tally);
    if (why === null) continue;
    console.log(`seed ${seed + n}`);
    report(steps, why);
    return 1;
  }
  const { user, system } = process.cpuUsage();
  const seconds = (user + system) / 1e6;
  const missing = unreached(tally, rows);
  const counts = { ...tally, answers: Object.fromEntries(tally.answers), missing };
  const happenings = Object.fromEntries(tally.happenings);
  if (values.json !== undefined) {
    const text = JSON.stringify({ seed, runs, seconds, ...counts, happenings }, null, 2);
    writeFileSync(values.json, `${text}\n`);
  }
  console.log(coverageTable(tally, rows));
  console.log(`\ntraps: ${JSON.stringify(happenings)}`);
  console.log(
    `${tally.programs} programs from seed ${seed}, ${tally.steps} steps (${tally.skipped} idle), ` +
      `${tally.calls} calls, ${tally.exits} kernel exits; no difference`,
  );
  console.log(
    `${seconds.toFixed(1)} s of CPU: ${Math.round(tally.calls / seconds)} calls a second`,
  );
  console.log(missing.length === 0 ? 'all is reached' : `not reached: ${missing.join(', ')}`);
  return values.complete && missing.length > 0 ? 3 : 0;
}

try {
  process.exitCode = main(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`);
  process.exitCode = 2;
}
