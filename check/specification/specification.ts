/**
 * The exokernel once more, as simply as it can be said: docs/ABI.md made executable. A call either
 * is refused, and the world stays as it was, or has its effect. check/lockstep holds the kernel to
 * it, and adds what is no call: interrupts, faults, and the passing of time.
 */
import * as abi from '../../kernel/abi.ts';
import { AUTHORITY } from './authority.ts';
import { CONTROL } from './control.ts';
import { tell } from './effects.ts';
import { bad, between, type Effect, flat, type Guard, integer, no, type Rules } from './guards.ts';
import { MEMORY } from './memory.ts';
import { Call, type Env, sure, wordAt, type World } from './model.ts';

export type Answer = { readonly status: number; readonly value: number };
const answer = (status: abi.StatusName, value: number): Answer => ({
  status: abi.Status[status],
  value,
});

/** Bytes at an address of the caller's, undefined where it could not read them. */
const bytes = ({ w, me, a }: Call): (number | undefined)[] =>
  Array.from({ length: a(1) }, (_, n) => {
    const [va, within] = [a(0) + n, (a(0) + n) % 4];
    const word = w.memory[wordAt(w, me, va - within) ?? -1];
    return word === undefined ? undefined : (word >>> (8 * within)) & 255;
  });
/** The calls of a batch, one after the other, up to the first that is refused. */
function perform({ w, me, a }: Call): Answer {
  for (let [done, at] = [0, a(0)]; done < a(1); done++) {
    const number = w.memory[wordAt(w, me, at) ?? -1];
    const arity = abi.ARITY[number ?? 0] ?? -1;
    const words = new Call(w, me, a).words(at + 4, arity < 0 ? 0 : arity);
    if (number === undefined || words.includes(undefined)) return answer('badAddress', done);
    const given = arity < 0 ? answer('badCall', 0) : call(w, me, number, (n) => words[n] ?? 0);
    if (given?.status !== abi.Status.ok) return { status: given?.status ?? -1, value: done };
    at += (arity + 1) * 4;
  }
  return answer('ok', a(1));
}
const REST = {
  consoleWrite: [
    integer(0, 0, 2 ** 32 - 1),
    integer(1, 0),
    no('tooMany', 1, (c) => c.a(1) > abi.CONSOLE_MAX),
    no('badAddress', 0, (c) => bytes(c).includes(undefined)),
    (c) => {
      c.w.log.push(['print', c.payer().tenant, ...bytes(c).map(sure)]);
      return c.a(1);
    },
  ],
  // Nobody types at the specification's world: that is no act of an environment.
  consoleRead: [(c) => (tell(c.w, c.me, abi.Status.ok, 0, 0, 0, 0, 0), 'later')],
  batch: [
    bad(1, (c) => between(c.a(1), 1)),
    no('tooMany', 1, (c) => c.a(1) > abi.BATCH_MAX),
    perform,
  ],
} satisfies Rules;
const RULES: Readonly<Record<abi.CallName, Rules[string]>> = {
  ...MEMORY,
  ...AUTHORITY,
  ...CONTROL,
  ...REST,
};
/** Of a call, by number: its guards in order, and its effect. */
export const CALLS: readonly { name: abi.CallName; guards: Guard[]; effect: Effect | undefined }[] =
  (Object.keys(abi.Call) as abi.CallName[]).map((name) => ({
    name,
    guards: flat(RULES[name].filter((one) => typeof one !== 'function')),
    effect: RULES[name].find((one) => typeof one === 'function'),
  }));

/** Environment `me` makes a call. Nothing, if the answer has been told, or comes later. */
export function call(
  w: World,
  me: Env,
  number: number,
  a: (n: number) => number,
): Answer | undefined {
  const [c, rule] = [new Call(w, me, a), CALLS[number]];
  if (!rule) return answer('badCall', 0);
  const refusal = rule.guards.find(({ refuses }) => refuses(c));
  if (refusal) return answer(refusal.status, refusal.argument);
  const given = sure(rule.effect)(c);
  if (given === 'later') return undefined;
  if (typeof given === 'object' && given && 'status' in given) return given as Answer;
  return answer('ok', typeof given === 'number' ? given : 0);
}
