/** Runs attacks in their thread, and says what became of each and which check it was. */
import { Worker } from 'node:worker_threads';
import { UsageError } from '../tree.ts';
import type { Attack } from './list.ts';
import type { AttackAnswer, Attacked, AttackOrder } from './worker.ts';

/** What the victim prints if it sees no harm. */
export const UNHARMED = 'unharmed\n';

/** @param off a check that is switched off, `file.ts:line` or `file.ts:function` */
export async function runAttacks(
  names: readonly string[],
  off: string | null,
): Promise<readonly Attacked[]> {
  const order: AttackOrder = { names, off };
  const worker = new Worker(new URL('../../bin/attacks.js', import.meta.url), {
    workerData: order,
  });
  const answer = await new Promise<AttackAnswer>((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  await worker.terminate();
  if ('results' in answer) return answer.results;
  const file = off?.split(':')[0] ?? '';
  const near = answer.unknown.filter((name) => name.startsWith(file));
  throw new UsageError(
    `--break ${off}: no such check; ` +
      (near.length > 0
        ? `in ${file} there are ${near.map((name) => name.split(':')[1]).join(', ')}`
        : 'say FILE:FUNCTION or FILE:LINE as `exoscope attack` prints them'),
  );
}

export function tellAttacks(
  all: readonly Attack[],
  results: readonly Attacked[],
  off: string | null,
): string {
  const parts = results.map((result) => {
    const does = all.find(({ name }) => name === result.name)?.does ?? '';
    return `${result.name}: ${does}\n${verdict(result, off)}\n`;
  });
  const won = results.filter((result) => result.won).length;
  const summary =
    off === null
      ? `${results.length - won} of ${results.length} attacks were stopped\n`
      : `without ${off}: ${won} of ${results.length} attacks succeed\n`;
  return `${parts.join('\n')}\n${summary}`;
}

function verdict(
  { name, attacker, victim, check, refusal, won }: Attacked,
  off: string | null,
): string {
  const said = [`${attacker}${tellVictim(victim, won)}`];
  if (refusal !== '' && !won) said.push(refusal);
  if (check !== null) {
    const { file, line, within, text, without } = check;
    said.push(
      `stopped by ${within} in ${file}:${line}`,
      `    ${text}`,
      'without that line:',
      indented(without),
      `    exoscope attack --only ${name} --break ${file.split('/').at(-1)}:${line}`,
    );
  } else if (off === null) said.push('no single check of the kernel stops it');
  return indented(said.map((part) => part.trimEnd()).join('\n'));
}

/** What became of the victim: of a secret that was read it knows nothing. */
export function tellVictim(victim: string, won: boolean): string {
  if (victim === '') return 'victim: silent for ever';
  return `victim: ${won && victim === UNHARMED ? 'it notices nothing' : victim}`;
}

const indented = (text: string): string => text.trimEnd().replace(/^(?=.)/gm, '    ');
