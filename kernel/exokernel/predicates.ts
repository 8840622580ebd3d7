/**
 * Wakeup predicates: what a sleeper waits for, as a sum of products of comparisons of memory words
 * with numbers. The kernel evaluates one when somebody would run the sleeper, in bounded time, and
 * keeps no object for it: the terms lie in the sleeper's private record.
 *
 * Pages are not pinned, or a sleeper could hold back whoever takes a page back. So authority to
 * read each is asked for again every time, and a predicate that has lost it is broken: the sleeper
 * is woken and told, instead of waiting for what it may not see. Xok (SOSP 1997), section 3.
 */
import { PAGE_BYTES, PAGE_WORDS } from '../../machine/units.ts';
import { Env, Operator, PageKind, READ, Status, Term } from '../abi.ts';
import { type Answer, ok, refuse } from './answer.ts';
import { capOf, checkPage } from './capabilities.ts';
import { LISTED_PAGE } from './bindings.ts';
import { isEntry, pageNamed, Private, type State } from './state.ts';

const ARGUMENT = 2; // of sleep: where the terms stand

/** The words of `terms` terms, fetched once; or why the caller may not wait for that. */
export function fetchTerms(
  state: State,
  caller: number,
  address: number,
  terms: number,
): number[] | Answer {
  const words: number[] = [];
  for (let n = 0; n < terms * Term.words; n++) {
    const word = state.machine.loadUser(address + n * 4);
    if (word === null) return refuse(Status.badAddress, ARGUMENT);
    words.push(word);
  }
  for (let at = 0; at < words.length; at += Term.words) {
    const fit = checkTerm(state, caller, words[at + Term.where] ?? 0, words[at + Term.what] ?? 0);
    if (fit.status !== Status.ok) return fit;
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

/** What the predicate of sleeper `env` says now: see `evaluate`. */
export const holds = (state: State, env: number): Answer | null =>
  evaluate(state, env, state.env.get(env, Env.terms), (n) =>
    state.secret.get(env, Private.predicate + n),
  );

/**
 * The tag of the first product that is true, null if none is, or a refusal if `env` may not read
 * some word any more: every term is asked, so that a broken one does not hide behind a false one.
 */
export function evaluate(
  state: State,
  env: number,
  terms: number,
  word: (n: number) => number,
): Answer | null {
  let [product, found] = [true, null as Answer | null];
  for (let n = 0; n < terms; n++) {
    const at = n * Term.words;
    const what = word(at + Term.what);
    const readable = checkTerm(state, env, word(at + Term.where), what);
    if (readable.status !== Status.ok) return refuse(Status.notPermitted, ARGUMENT);
    const now = state.machine.load(readable.value * PAGE_BYTES + offsetOf(what) * 4);
    product &&= compare(now, operatorOf(what), word(at + Term.value));
    if (!isLast(what) && n + 1 < terms) continue;
    if (product) found ??= ok(word(at + Term.tag));
    product = true;
  }
  return found;
}

/** The page that a term reads, if `env` may. */
function checkTerm(state: State, env: number, where: number, what: number): Answer {
  const [page, entry] = [pageNamed(state, where & LISTED_PAGE), where >>> 28];
  const wellFormed = offsetOf(what) < PAGE_WORDS && operatorOf(what) <= Operator.greater;
  if (page < 0 || !isEntry(entry) || !wellFormed || what >>> 25 !== 0) {
    return refuse(Status.badArgument, ARGUMENT);
  }
  const kind = state.kind(page);
  if (kind === PageKind.published) return ok(page);
  if (kind !== PageKind.user) return refuse(Status.wrongKind, ARGUMENT);
  const may = checkPage(state, capOf(state, env, (what >>> 20) & 0xf), page, entry, READ);
  return may === Status.ok ? ok(page) : refuse(may, ARGUMENT);
}

const offsetOf = (what: number): number => what & 0xffff;
const operatorOf = (what: number): number => (what >>> 16) & 0xf;
const isLast = (what: number): boolean => ((what >>> 24) & 1) !== 0;

/** Words are signed. */
function compare(word: number, operator: number, value: number): boolean {
  switch (operator) {
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
