/**
 * Programs: what environments do, step by step, as a text that can be kept, sent and replayed. A
 * step is done by whoever runs when its turn comes, or by the environment of the row that it names,
 * to which the CPU is yielded first if it can run. A line is a step, and # begins a remark:
 *
 *     e1 pageMap leaf~0 gap~2 usable~3 by its 6 over
 *     diskRequest extent~0 over 0 1 list by 1 | pair~2          words that lie at `list`
 *     batch list 2 | null | pageFree idle~0 by                  calls of a batch
 *     work 12000 · load 0x100000 · store 0x100000 7             what programs do besides calls
 *     throw · return                                            how they end
 *     type 1 65                                                 a byte arrives on channel 1
 *     spoil 3                                                   the disk fails at block 3, for ever
 */
import { Call, type CallName } from '../../kernel/abi.ts';

export interface Step {
  /** row, 0: whoever runs */
  readonly row: number;
  readonly verb: string;
  readonly operands: readonly string[];
  /** what stands behind bars: words of a list, or calls of a batch with their operands */
  readonly lists: readonly (readonly string[])[];
}

/** What a step can be besides a call: how many operands each takes. */
export const ACTS: Readonly<Record<string, number>> = {
  work: 1,
  load: 1,
  store: 2,
  throw: 0,
  return: 0,
  spoil: 1,
  type: 2,
  trap: 1, // a call that there is none: its number
};
export const isCall = (verb: string): verb is CallName => Object.hasOwn(Call, verb);

export function parse(text: string): Step[] {
  return text.split('\n').flatMap((line, n) => {
    const code = line.replace(/#.*/, '').trim();
    return code === '' ? [] : [parseStep(code, n + 1)];
  });
}

function parseStep(code: string, line: number): Step {
  const [head = [], ...lists] = code.split('|').map((part) => part.trim().split(/\s+/));
  const row = /^e(\d+)$/.exec(head[0] ?? '')?.[1];
  const [verb = '', ...operands] = row === undefined ? head : head.slice(1);
  if (!isCall(verb) && operands.length !== ACTS[verb]) {
    throw new Error(
      `line ${line}: "${code}" is neither a call nor one of ${Object.keys(ACTS).join(', ')}`,
    );
  }
  return { row: Number(row ?? 0), verb, operands, lists };
}

export const printStep = ({ row, verb, operands, lists }: Step): string =>
  [
    [...(row === 0 ? [] : [`e${row}`]), verb, ...operands].join(' '),
    ...lists.map((list) => list.join(' ')),
  ].join(' | ');

export const print = (steps: readonly Step[]): string => steps.map(printStep).join('\n');
