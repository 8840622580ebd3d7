/**
 * The refusal tables in lock step: each refusal of docs/ABI.md, in a call that is also wrong in
 * every later way, is what the specification says too, and the world is left as it was. So the
 * order of its guards is that of the page.
 */
import { expect, test } from 'vitest';
import { Call, type CallName } from '../../kernel/abi.ts';
import { Follower, type Seen, statusName } from '../../check/lockstep/follower.ts';
import { CALLS } from '../kernel/harness.ts';
import { type Mistake, REFUSALS, World } from '../kernel/refusals/index.ts';

/** A world in lock step, and what the specification answers to rows of a call's table. */
class Trial {
  readonly #answers = new Map<number, Seen['answer']>(); // the last of each call
  readonly #world = new World({
    follow: (kernel) =>
      new Follower(kernel, {
        seen: (_, call) => {
          if (call !== null) this.#answers.set(call.number, call.answer);
        },
      }),
  });

  succeeds(name: CallName): void {
    const { rig, a } = this.#world;
    rig.calls(a.row, name, ...REFUSALS[name].valid(this.#world));
  }
  answer(name: CallName, mistake: Mistake, n: number): string {
    const [world, { valid, mistakes }] = [this.#world, REFUSALS[name]];
    mistake.prepare?.(world);
    const args = valid(world);
    for (let k = mistakes.length - 1; k >= n; k--) mistakes[k]?.spoil(args, world);
    world.rig.call(world.a.row, name, ...args);
    const answer = this.#answers.get(Call[name]);
    return `${statusName(answer?.status ?? -1)} ${answer?.value}: ${mistake.why}`;
  }
}
const due = ({ status, argument, why }: Mistake): string => `${status} ${argument}: ${why}`;

test('the specification refuses as the tables say, whatever else is wrong', () => {
  const trial = new Trial();
  for (const name of CALLS) {
    REFUSALS[name].mistakes.forEach((mistake, n) => {
      if (mistake.prepare !== undefined) return;
      expect(`${name} ${trial.answer(name, mistake, n)}`).toBe(`${name} ${due(mistake)}`);
    });
  }
});

/** Rows that change the world for good, after a call that succeeded. */
const LATE = CALLS.flatMap((name) =>
  REFUSALS[name].mistakes.flatMap((mistake, n) =>
    mistake.prepare === undefined ? [] : [{ name, n, mistake, why: mistake.why }],
  ),
);
test.each(LATE)('$name: $why', ({ name, n, mistake }) => {
  const trial = new Trial();
  trial.succeeds(name);
  expect(trial.answer(name, mistake, n)).toBe(due(mistake));
});
