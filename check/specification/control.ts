/** The calls on environments, and those that give time away, wait, or pass messages. */
import * as abi from '../../kernel/abi.ts';
import * as e from './effects.ts';
import * as m from './model.ts';
import type { Account, Call, Env } from './model.ts';
import * as g from './guards.ts';
import { alive, bad, between, env, held, integer, no, only, over } from './guards.ts';
import { owned, page, slot, spendable, under, word } from './guards.ts';
import { giveBack, mistermed, predicate, run, termsOf, turn } from './waiting.ts';

const { made, ready, sleeping, calling, receiving, zombie, free } = abi.EnvState;
const { root, leaf, user } = abi.PageKind;
const { ok, interrupted } = abi.Status;
const theEnv = (c: Call): Env => c.env(0);
const isIn = (c: Call, ...states: readonly number[]): boolean => states.includes(c.env(0).state);
const patron = (c: Call): Env | undefined => (c.a(5) === -1 ? c.me : c.maybeEnv(5));
const charged = (c: Call): Account | undefined =>
  c.a(6) === -1 ? c.payer() : c.w.accounts.get(c.a(6));
const owner = (c: Call): Env | undefined => m.envBy(c.w, c.slice(0).owner);
/** Why the caller may not wait for the terms at argument 2, or nothing. */
function unfit(c: Call): string | undefined {
  const terms = c.words(c.a(2), c.a(3) * 4);
  if (terms.includes(undefined)) return 'unread';
  return termsOf(terms.map(m.sure))
    .map((term) => mistermed(c.w, c.me, term))
    .find((wrong) => wrong);
}

// ---- messages -----------------------------------------------------------------------------------

const MESSAGE = [1, 2, 3, 4].map(word);
const message = (c: Call): number[] => [1, 2, 3, 4].map((n) => c.a(n) | 0);
const isGrant = (c: Call): boolean => c.a(5) !== -1;
const granting = (c: Call) => ({ rights: c.a(7) % 256, entry: Math.floor(c.a(7) / 256) });
const mapFlags = (c: Call): number =>
  abi.MAP_READ | (c.a(7) % 256 === abi.READ ? 0 : abi.MAP_WRITE);
/** Whether the receiver has named a place for a page, and it is free. */
function hasPlace(c: Call): boolean {
  const { row, window = { table: -1, index: 512, slot: -1 }, caps } = c.env(0);
  const may = (caps.get(window.slot)?.rights ?? 0) & granting(c).rights;
  const there = c.w.pages[window.table];
  return (
    there?.kind === leaf &&
    there.env === row &&
    may === granting(c).rights &&
    window.index < 512 &&
    !c.w.leaves.has(window.table * 512 + window.index)
  );
}
/** A page that the caller answers for, and what the receiver does with it. */
const GRANT = only(
  isGrant,
  slot(6),
  g.flat(owned(5, 6)).filter((_, n) => n !== 2), // the slot
  bad(7, (c) => [1, 3].includes(granting(c).rights) && between(granting(c).entry, 1, 3)),
  no('occupied', 7, (c) => !!c.page(5).entries[granting(c).entry]),
  no('sharing', 7, (c) => !g.fits(c, c.page(5), mapFlags(c))),
  no('notReady', 0, (c) => !hasPlace(c)),
);
/** Message and page arrive, both or neither; the window moves up. */
function deliver(c: Call, to: Env): void {
  const { window = { table: 0, index: 0, slot: 0 }, caps } = to;
  if (isGrant(c)) {
    const { rights, entry } = granting(c);
    c.page(5).entries[entry] = { name: m.sure(caps.get(window.slot)).name, rights, going: false };
    const granted = { page: c.page(5).at, slot: window.slot, entry, flags: mapFlags(c) };
    c.w.leaves.set(window.table * 512 + window.index++, granted);
  }
  e.tell(c.w, to, ok, m.idOf(c.me), ...message(c), isGrant(c) ? window.index : 0);
}
const other = no('badEnvironment', 0, (c) => [undefined, c.me].includes(c.maybeEnv(0)));

export const CONTROL = {
  null: [() => 0],
  yield: [
    only(
      (c) => c.a(0) !== -1,
      env(0),
      no('notReady', 0, (c) => !turn(c.w, c.env(0))),
    ),
    (c) => (c.a(0) === -1 ? giveBack(c.w, c.me) : void (c.w.current = run(c.w, c.env(0)))),
  ],
  sleep: [
    integer(0),
    integer(1, -1, 2 ** 31 - 1),
    integer(3, 0),
    no('tooMany', 3, (c) => c.a(3) > abi.PREDICATE_TERMS),
    g.usableList(unfit, 2, 2),
    ({ w, me, a, words }) => {
      const terms = words(a(2), a(3) * 4).map(m.sure);
      const [found, { event, predicate: held, deadline: late }] = [
        predicate(w, me, terms),
        abi.Woken,
      ];
      const answer = (...why: number[]): 'later' => (e.tell(w, me, ok, me.events, ...why), 'later');
      if (me.events !== (a(0) | 0) || e.interrupts(w, me)) return answer(event, 0);
      if (typeof found === 'number') return answer(held, found);
      if (a(1) === 0) return answer(late, 0);
      Object.assign(me, { state: sleeping, deadline: a(1) < 0 ? 0 : w.now + a(1), terms });
      giveBack(w, me);
      return 'later';
    },
  ],
  notify: [env(0), slot(1), over(1, theEnv), (c) => e.post(c.w, c.env(0))],
  envCreate: [
    bad(0, (c) => between(c.a(0), 1, c.w.envs.length - 1)),
    no('notFree', 0, (c) => c.w.envs[c.a(0)]?.state !== free),
    slot(2),
    g.name(3),
    no('badEnvironment', 5, (c) => !patron(c)),
    held(2),
    under(2, (c) => c.name(3), abi.ALL_RIGHTS),
    only(
      (c) => ![c.me, m.envBy(c.w, c.me.patron)].includes(patron(c)),
      under(2, (c) => m.sure(patron(c)).name, abi.WRITE, 5),
    ),
    page(1),
    g.kind(1, user),
    g.answering(1, 2),
    spendable(1),
    bad(6, charged),
    only(
      (c) => charged(c) !== c.payer(),
      under(2, (c) => m.sure(charged(c)).name, abi.WRITE, 6),
    ),
    no('notPermitted', 6, (c) => !m.dominates(m.sure(charged(c)).name, c.name(3))),
    no('quota', 6, (c) => m.room(c.w, m.sure(charged(c)), 'environments') < 1),
    (c) => {
      const [{ at: account, holder }, name] = [m.sure(charged(c)), c.name(3)];
      const fresh = m.newEnv(c.a(0), (m.sure(c.w.envs[c.a(0)]).generation + 1) & 0x1ffff);
      const theirs = { root: c.page(1).at, parent: c.me.row, patron: m.idOf(m.sure(patron(c))) };
      c.w.envs[fresh.row] = Object.assign(fresh, { state: made, name, account, ...theirs });
      fresh.caps.set(0, { name, rights: abi.ALL_RIGHTS });
      e.retype(c.page(1), root, fresh.row);
      if (!m.envBy(c.w, holder)) m.sure(charged(c)).holder = m.idOf(fresh);
      return m.idOf(fresh);
    },
  ],
  envStart: [
    env(0),
    bad(1, (c) => c.w.hasEntry(c.a(1), 0)),
    bad(2, (c) => c.w.hasEntry(c.a(1), c.a(2))),
    word(3),
    word(4),
    slot(5),
    over(5, theEnv),
    no('notReady', 0, (c) => !isIn(c, made)),
    ({ w, a, env: of }) => {
      w.log.push(['start', of(0).row, a(1), a(2), a(0), a(3), a(4)]);
      of(0).image = a(1);
      e.wake(w, of(0));
    },
  ],
  envSuspend: [
    alive(0),
    slot(1),
    integer(2, 0, 1),
    over(1, theEnv),
    (c) => {
      c.env(0).suspended = c.a(2) === 1;
      if (c.a(2) === 0 && isIn(c, ready)) e.tellPatron(c.w, c.env(0));
    },
  ],
  envDestroy: [
    alive(0),
    slot(1),
    word(2),
    over(1, theEnv),
    (c) => (e.kill(c.w, c.env(0), c.a(2) | 0), c.env(0) === c.me ? 'later' : 0),
  ],
  envReap: [
    env(0),
    slot(1),
    over(1, theEnv),
    no('notReady', 0, (c) => !isIn(c, zombie)),
    g.empty(0, (c) => c.env(0).root),
    no('busy', 0, (c) => c.env(0).submitted !== c.env(0).done),
    ({ w, env: of }) => {
      const { row, generation, root: table } = of(0);
      if (e.unbind(w, m.sure(w.pages[table]))) return e.step(0);
      e.unmakeTable(w, m.sure(w.pages[table]));
      w.entered = w.entered === row ? 0 : w.entered;
      w.envs[row] = m.newEnv(row, generation);
      return 0;
    },
  ],
  upcallSet: [
    integer(0, 0, abi.UPCALL_KINDS - 1),
    bad(1, (c) => c.a(1) === -1 || c.w.hasEntry(c.me.image, c.a(1))),
    no('badAddress', 2, (c) => !between(c.a(2), 0, 2 ** 32 - 1) || c.a(2) % 4 !== 0),
    ({ me, a }) => (
      a(1) === -1 ? me.upcalls.delete(a(0)) : me.upcalls.set(a(0), { entry: a(1), frame: a(2) }),
      0
    ),
  ],
  sliceAllocate: [
    bad(0, (c) => c.maybeSlice(0)),
    alive(1),
    slot(2),
    over(2, (c) => c.env(1)),
    no('notFree', 0, (c) => m.isAlive(owner(c))),
    no(
      'quota',
      1,
      ({ w, slice, env: of }) =>
        (slice(0).owner === 0 || slice(0).account !== of(1).account) &&
        m.room(w, m.sure(w.accounts.get(of(1).account)), 'slices') < 1,
    ),
    ({ a, slice, env: of }) =>
      Object.assign(slice(0), {
        owner: a(1),
        account: of(1).account,
        generation: slice(0).generation + 1,
      }),
  ],
  sliceFree: [
    bad(0, (c) => c.maybeSlice(0)),
    slot(1),
    no('absent', 0, (c) => c.slice(0).owner === 0),
    over(1, (c) => (m.isAlive(owner(c)) ? m.sure(owner(c)) : c.me)), // a dead one's: anybody
    ({ slice }) => Object.assign(slice(0), { owner: 0, generation: slice(0).generation + 1 }),
  ],
  ipcWindow: [
    page(0),
    g.kind(0, leaf),
    no('notPermitted', 0, (c) => c.page(0).env !== c.me.row),
    g.index(1),
    slot(2),
    held(2),
    (c) => (c.me.window = { table: c.page(0).at, index: c.a(1), slot: c.a(2) }),
  ],
  ipcCall: [
    other,
    no('notReady', 0, (c) => isIn(c, zombie, made)),
    MESSAGE,
    GRANT,
    no('notReady', 0, (c) => isGrant(c) && !isIn(c, receiving)),
    (c) => {
      const [{ w, me }, to] = [c, c.env(0)];
      Object.assign(me, { state: calling, partner: m.idOf(to), message: message(c) });
      if (to.state === receiving) deliver(c, to);
      else to.queue = [...to.queue, me.row];
      if (to.state === receiving) to.state = ready;
      w.current = run(w, to);
      return 'later';
    },
  ],
  ipcSend: [
    other,
    no('notReady', 0, (c) => !isIn(c, receiving)),
    MESSAGE,
    GRANT,
    (c) => {
      deliver(c, c.env(0));
      e.wake(c.w, c.env(0));
      c.w.current = run(c.w, c.env(0)) || c.w.current;
      return 0;
    },
  ],
  ipcReplyWait: [
    only(
      (c) => c.a(0) !== -1,
      env(0),
      no(
        'notReady',
        0,
        (c) =>
          !isIn(c, calling) ||
          c.env(0).partner !== m.idOf(c.me) ||
          c.me.queue.includes(c.env(0).row),
      ),
    ),
    MESSAGE,
    bad(5, (c) => !isGrant(c) || c.a(0) !== -1),
    GRANT,
    (c) => {
      const [{ w, me }, client] = [c, c.maybeEnv(0)];
      if (client) deliver(c, client);
      if (client) e.wake(w, client);
      const next = w.envs[me.queue[0] ?? -1];
      if (next) e.unqueue(w, next);
      if (next) e.tell(w, me, ok, m.idOf(next), ...next.message, 0);
      else if (e.interrupts(w, me)) e.tell(w, me, interrupted, 0);
      else [me.state, w.current] = [receiving, run(w, client)];
      return 'later';
    },
  ],
} satisfies g.Rules;
