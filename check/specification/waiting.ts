/** Who runs when somebody has the CPU: sleepers and predicates, callers and whom they wait for. */
import * as abi from '../../kernel/abi.ts';
import { tell, unqueue, wake } from './effects.ts';
import { misuse } from './guards.ts';
import * as m from './model.ts';
import type { Env, World } from './model.ts';

const { ready, sleeping, calling } = abi.EnvState;
type Term = readonly number[]; // where, what, value, tag
export const termsOf = (words: readonly number[]): Term[] =>
  words.flatMap((_, n) => (n % 4 === 0 ? [words.slice(n, n + 4)] : []));
/** Why `env` may not wait for a term, or nothing. */
export function mistermed(w: World, env: Env, [where = 0, what = 0]: Term): string | undefined {
  const [at, entry] = m.pairOf(w, where);
  const target = w.pages[at];
  const isOdd = (what & 0xffff) >= 1024 || ((what >>> 16) & 15) > 3 || what >>> 25 !== 0;
  if (!target || entry >= abi.ACCESS_ENTRIES || isOdd) return 'unnamed';
  if (target.kind === abi.PageKind.published) return undefined;
  return target.kind === abi.PageKind.user
    ? misuse(env, (what >>> 20) & 15, target, entry, abi.READ)
    : 'kind';
}
/** The tag of the first product that is true, if any; `broken` if a word may not be read. */
export function predicate(
  w: World,
  env: Env,
  words: readonly number[],
): number | 'broken' | undefined {
  const terms = termsOf(words);
  if (terms.some((term) => mistermed(w, env, term))) return 'broken';
  let product = true;
  for (const [n, [where = 0, what = 0, value = 0, tag = 0]] of terms.entries()) {
    const now = w.memory[m.pairOf(w, where)[0] * 1024 + (what & 0xffff)] ?? 0;
    const isLast = (what & (1 << 24)) !== 0 || n + 1 === terms.length;
    product &&=
      [now === value, now !== value, now < value, now > value][(what >>> 16) & 15] === true;
    if (product && isLast) return tag;
    product ||= isLast;
  }
  return undefined;
}
/** Whom `env` waits for in the end, itself perhaps: the first that waits for nobody alive. */
export function endOf(w: World, env: Env | undefined, hops = 8): Env | undefined {
  if (!env || hops === 0 || env.suspended) return undefined;
  const callee = m.envBy(w, env.partner);
  return env.state === calling && m.isAlive(callee) ? endOf(w, callee, hops - 1) : env;
}
/** Who runs when `start` has the CPU, and what it is told first. */
export function turn(w: World, start: Env | undefined): [env: Env, told: number[]] | undefined {
  const env = endOf(w, start);
  if (env?.state === ready) return [env, []];
  if (env?.state === calling) return [env, [abi.Status.badEnvironment, 0]];
  if (env?.state !== sleeping) return undefined;
  const found = predicate(w, env, env.terms);
  if (found === 'broken') return [env, [abi.Status.notPermitted, 2, abi.Woken.predicate, 0]];
  const isDue = env.deadline !== 0 && w.now >= env.deadline;
  const why = found === undefined ? [abi.Woken.deadline, 0] : [abi.Woken.predicate, found];
  return found === undefined && !isDue ? undefined : [env, [abi.Status.ok, env.events, ...why]];
}
/** The row of who runs when `start` has the CPU, woken if it must be; 0 if nobody can. */
export function run(w: World, start: Env | undefined): number {
  const [next, told = []] = turn(w, start) ?? [];
  if (!next || told.length === 0) return next?.row ?? 0;
  unqueue(w, next);
  if (next.state === sleeping) wake(w, next, ...told);
  else tell(w, next, ...told);
  next.state = ready;
  return next.row;
}
/** The rest of a borrowed slice goes back to its owner; an owner gives it up. */
export function giveBack(w: World, env: Env): void {
  if (w.owner === m.idOf(env)) w.owner = 0;
  w.current = 0;
}
