/** All invariants of a machine at once. */
import { BOOKS } from './books.ts';
import { Facts, type Invariant, noWitness, type Witness } from './facts.ts';
import { INVARIANTS } from './invariants.ts';
import type { Raw } from './raw.ts';

export { BOOKS, type Invariant, INVARIANTS, noWitness, type Witness };

function breaches(facts: Facts, invariants: readonly Invariant[]): string[] {
  const wrong: string[] = [];
  for (const { id, check } of invariants) {
    check(facts, (holds, words) => {
      if (!holds) wrong.push(`${id}: ${words()}`);
    });
  }
  return wrong;
}

/**
 * All breaches of protection, none in a sound machine: `id: what is wrong`.
 * @param open capabilities were offered to strangers, or somebody's name dominates everybody's
 */
export const audit = (raw: Raw, witness: Witness = noWitness(), open = false): string[] =>
  breaches(new Facts(raw, witness, open), INVARIANTS);

/** All that is wrong with the accounts. */
export const books = (raw: Raw): string[] => breaches(new Facts(raw, noWitness(), false), BOOKS);

/** Both. */
export const auditAll = (raw: Raw, open = false): string[] =>
  breaches(new Facts(raw, noWitness(), open), [...INVARIANTS, ...BOOKS]);
