/**
 * Wakeup predicates: what a sleeper waits for, as a sum of products of comparisons of memory words
 * with numbers, evaluated when somebody would run it. Any word of memory may be named, the tenant
 * being trusted with all of it; owed is that a page outside the machine is refused.
 */
import { PAGE_BYTES, PAGE_WORDS } from '../../machine/units.ts';
import { Env, Operator, Status, Term } from '../abi.ts';
import { type Answer, refuse } from './answer.ts';
import { pageAt, Private, type State } from './state.ts';

const ARGUMENT = 2; // of sleep: where the terms stand
const LISTED_PAGE = 0x0fffffff;

/** The words of `terms` terms, fetched once. */
export function fetchTerms(state: State, address: number, terms: number): number[] | Answer {
  const words: number[] = [];
  for (let n = 0; n < terms * Term.words; n++) {
    const word = state.machine.loadUser(address + n * 4);
    if (word === null) return refuse(Status.badAddress, ARGUMENT);
    words.push(word);
  }
  for (let at = 0; at < words.length; at += Term.words) {
    const offset = (words[at + Term.what] ?? 0) & 0xffff;
    const page = pageOf(words[at + Term.where] ?? 0);
    if (page >= state.machine.pages || offset >= PAGE_WORDS) {
      return refuse(Status.badArgument, ARGUMENT);
    }
  }
  return words;
}

/** The sleeper `env` waits for these terms from now on. */
export function keepTerms(state: State, env: number, words: readonly number[]): void {
  words.forEach((word, n) => {
    state.secret.put(env, Private.predicate + n, word);
  });
  state.env.put(env, Env.terms, words.length / Term.words);
}

/** The tag of the first product of sleeper `env` that is true now, null if none is. */
export const holds = (state: State, env: number): number | null =>
  evaluate(state, state.env.get(env, Env.terms), (n) =>
    state.secret.get(env, Private.predicate + n),
  );

/** The tag of the first product that is true, null if none is. */
export function evaluate(state: State, terms: number, word: (n: number) => number): number | null {
  let product = true;
  for (let n = 0; n < terms; n++) {
    const at = n * Term.words;
    const what = word(at + Term.what);
    const address = pageOf(word(at + Term.where)) * PAGE_BYTES + (what & 0xffff) * 4;
    product &&= compare(state.machine.load(address), what >>> 16, word(at + Term.value));
    if (((what >>> 24) & 1) === 0 && n + 1 < terms) continue;
    if (product) return word(at + Term.tag);
    product = true;
  }
  return null;
}

const pageOf = (where: number): number => pageAt(where & LISTED_PAGE);

/** Words are signed. */
function compare(word: number, operator: number, value: number): boolean {
  switch (operator & 0xf) {
    case Operator.equal:
      return word === value;
    case Operator.notEqual:
      return word !== value;
    case Operator.less:
      return word < value;
    default:
      return word > value;
  }
}
