/**
 * What a refusal table is, and the mistakes that many calls share. Row n of a table is the valid
 * call with mistake n made on top of every later one, so that the order of checks is tested with
 * the checks.
 */
import { type CallName, packName, type StatusName } from '../../../kernel/abi.ts';
import { Slot, type World, WORLD_PAGES } from './world.ts';

export interface Mistake {
  readonly status: StatusName;
  /** index of the argument at fault */
  readonly argument: number;
  readonly why: string;
  readonly spoil: (args: number[], world: World) => void;
  /** changes the world for good: such a row is tried last */
  readonly prepare?: (world: World) => void;
}

export type Domain = 'page' | 'env' | 'slot' | 'index' | 'entry' | 'other';

export interface Table {
  readonly domains: readonly Domain[];
  /** a call that succeeds */
  readonly valid: (world: World) => number[];
  /** the caller waits afterwards */
  readonly waits?: true;
  /** several calls in one: the value of a refusal is how many were performed */
  readonly performs?: true;
  /** wild values that the call accepts, by argument: words are words, -1 may mean nobody */
  readonly accepts?: Readonly<Record<number, readonly number[]>>;
  readonly mistakes: readonly Mistake[];
}

/** The tables of some calls. */
export type Tables = Readonly<Partial<Record<CallName, Table>>>;

// ---- mistakes -----------------------------------------------------------------------------------

type Spoil = Mistake['spoil'];
export const set =
  (argument: number, value: number): Spoil =>
  (args) => {
    args[argument] = value;
  };
export const put =
  (values: (world: World) => Readonly<Record<number, number>>): Spoil =>
  (args, world) => {
    for (const [argument, value] of Object.entries(values(world))) args[Number(argument)] = value;
  };
export const m = (status: StatusName, argument: number, why: string, spoil: Spoil): Mistake => ({
  status,
  argument,
  why,
  spoil,
});

export const badSlot = (argument: number): Mistake =>
  m('badArgument', argument, 'not a slot', set(argument, 16));
export const badPage = (argument: number): Mistake =>
  m('badArgument', argument, 'not a page', set(argument, WORLD_PAGES));
export const noTable = (argument: number, why: string): Mistake =>
  m(
    'wrongKind',
    argument,
    why,
    put((w) => ({ [argument]: w.own })),
  );
export const stale = (argument: number): Mistake =>
  m(
    'badEnvironment',
    argument,
    'no such environment',
    put((w) => ({ [argument]: w.stale })),
  );
/** Authority over an environment: another tenant's, by an empty slot, then by one that strays. */
export const overEnv = (env: number, slot: number, pick: (w: World) => number): Mistake[] => [
  m('noCapability', slot, 'the environment is another and the slot is empty', (args, w) => {
    [args[env], args[slot]] = [pick(w), Slot.empty];
  }),
  m('notPermitted', slot, 'the slot does not dominate its guard with WRITE', (args, w) => {
    [args[env], args[slot]] = [pick(w), Slot.full];
  }),
];
export const ownedPage = (page: number, slot: number): Mistake[] => [
  badPage(page),
  m(
    'wrongKind',
    page,
    'not a user page',
    put((w) => ({ [page]: w.a.leaf })),
  ),
  badSlot(slot),
  m('noCapability', slot, 'the slot is empty', set(slot, Slot.empty)),
  m('notPermitted', slot, 'the slot does not dominate entry 0 with GRANT', set(slot, Slot.writer)),
];
export const badName = (argument: number): Mistake =>
  m('badArgument', argument, 'the two words are not a name', set(argument, 8));
export const badWord = (argument: number): Mistake =>
  m('badArgument', argument, 'not a word', set(argument, 2 ** 32));
export const WORDS = [-1, 2 ** 31];

/** The name of something new. */
export const forged = packName([1, 5]);
