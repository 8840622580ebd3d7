/**
 * A failing program made short: steps are taken out by halves, quarters and at last one by one, and
 * what is left has its operands made plain, as long as it still fails. Operands are bound late, so
 * what remains keeps its meaning.
 */
import type { Step } from './program.ts';

const RUNS_MOST = 600;

/**
 * @param fails whether a program fails still
 * @param most how often it may be asked
 */
export function shrink(
  program: readonly Step[],
  fails: (steps: readonly Step[]) => boolean,
  most = RUNS_MOST,
): readonly Step[] {
  let steps = program;
  let left = most;
  const takes = (fewer: readonly Step[]): boolean => {
    if (left-- <= 0 || !fails(fewer)) return false;
    steps = fewer;
    return true;
  };
  for (let before = -1; before !== steps.length && left > 0;) {
    before = steps.length;
    for (let size = steps.length >> 1; size > 0; size >>= 1) {
      // From the end, so that who is needed by a later step is tried after it.
      for (let at = steps.length - size; at >= 0; at -= size) {
        takes([...steps.slice(0, at), ...steps.slice(at + size)]);
      }
    }
  }
  for (let n = 0; n < steps.length && left > 0; n++) {
    for (const plainer of plainerThan(steps[n])) takes(steps.with(n, plainer));
  }
  return steps;
}

/** Steps that say the same with less. */
function plainerThan(step: Step | undefined): Step[] {
  if (step === undefined) return [];
  const tries: Step[] = step.row === 0 ? [] : [{ ...step, row: 0 }];
  step.operands.forEach((operand, n) => {
    const plain = operand.replace(/~\d+/, '~0');
    if (plain !== operand) tries.push({ ...step, operands: step.operands.with(n, plain) });
  });
  return tries;
}
