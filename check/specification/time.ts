/**
 * Time: sleepers and predicates, callers and whom they wait for, the round of slices, and
 * interrupts. docs/ABI.md, "Time".
 */
import * as abi from '../../kernel/abi.ts';
import { listed, mayUse, need, refusal } from './caller.ts';
import * as e from './effects.ts';
import * as m from './model.ts';
import type { Env, World } from './model.ts';

const { ready, sleeping, calling } = abi.EnvState;
const { ok, notPermitted, badEnvironment } = abi.Status;
const { published, user } = abi.PageKind;

// ---- predicates ---------------------------------------------------------------------------------

type Term = readonly number[]; // where, what, value, tag
export const termsOf = (words: readonly number[]): Term[] =>
  words.flatMap((_, n) => (n % 4 === 0 ? [words.slice(n, n + 4)] : []));
/** Word of memory that a term names, if `env` may read it. */
export function termAt(w: World, env: Env, [where = 0, what = 0]: Term): number {
  const [page, entry] = listed(w, where);
  const [word, operator, slot] = [what & 0xffff, (what >>> 16) & 15, (what >>> 20) & 15];
  const wellFormed = word < 1024 && operator <= abi.Operator.greater && what >>> 25 === 0;
  need(page && entry < abi.ACCESS_ENTRIES && wellFormed, 'badArgument', 2);
  need(page.kind === published || page.kind === user, 'wrongKind', 2);
  if (page.kind === user) mayUse(env, slot, page, entry, abi.READ, [2, 2]);
  return page.at * 1024 + word;
}
/** The tag of the first product that is true, if any; `broken` if a word may not be read. */
export function predicate(w: World, env: Env, words: readonly number[]) {
  const terms = termsOf(words);
  if (terms.some((term) => refusal(() => termAt(w, env, term)))) return 'broken';
  let product = true;
  for (const [n, term] of terms.entries()) {
    const [, what = 0, value = 0, tag = 0] = term;
    const now = m.sure(w.memory[termAt(w, env, term)]);
    const compared = [now === value, now !== value, now < value, now > value];
    product &&= m.sure(compared[(what >>> 16) & 15]);
    if ((what & (1 << 24)) === 0 && n + 1 < terms.length) continue;
    if (product) return tag;
    product = true;
  }
  return undefined;
}

// ---- who runs when somebody has the CPU ---------------------------------------------------------

/** Whom `env` waits for in the end, itself perhaps: the first that waits for nobody alive. */
export function endOf(w: World, env: Env | undefined, hops = 8): Env | undefined {
  if (!env || hops === 0 || env.suspended) return undefined;
  const callee = m.envBy(w, env.partner);
  return env.state === calling && m.isAlive(callee) ? endOf(w, callee, hops - 1) : env;
}
/** The row of who runs when `start` has the CPU, woken if it must be; 0 if nobody can. */
export function run(w: World, start: Env | undefined): number {
  const env = endOf(w, start);
  if (env?.state === ready) return env.row;
  if (env?.state === calling) {
    e.unqueue(w, env);
    e.tell(w, env, badEnvironment, 0);
    return e.rise(env).row;
  }
  if (env?.state !== sleeping) return 0;
  const found = predicate(w, env, env.terms);
  const isDue = env.deadline !== 0 && w.now >= env.deadline;
  if (found === 'broken') e.wake(w, env, notPermitted, 2, abi.Woken.predicate, 0);
  else if (found !== undefined) e.wake(w, env, ok, env.events, abi.Woken.predicate, found);
  else if (isDue) e.wake(w, env, ok, env.events, abi.Woken.deadline, 0);
  return env.state === sleeping ? 0 : env.row;
}
/** The rest of a borrowed slice goes back to its owner; an owner gives it up. */
export function giveBack(w: World, env: Env): void {
  if (w.cpu.owner === env.row) endSlice(w);
  w.cpu.current = 0;
}

// ---- the round of slices ------------------------------------------------------------------------

const TURN_MIN = 5_000; // cycles: a shorter turn is added to the next
const EXCESS_MAX = 8;
const DEBT_MAX = 2 ** 30;

function owe({ slices }: World, position: number, cycles: number): void {
  const slice = slices[position];
  if (slice) slice.debt = Math.min(slice.debt + Math.max(0, cycles), DEBT_MAX);
}
/** What ran beyond the slice that is being served, grace included, is owed. */
function endSlice(w: World): void {
  const { cpu } = w;
  owe(w, cpu.position, w.now - cpu.end + (cpu.grace ? abi.GRACE : 0));
  Object.assign(cpu, { current: 0, owner: 0, end: 0, grace: false });
}
/** A timer trap. The slice's end may be announced first, and overrun. */
export function tick(w: World): void {
  const { cpu } = w;
  const env = w.envs[cpu.current];
  if (!env || cpu.current === 0 || w.now < cpu.end) return;
  if (!cpu.grace && e.push(w, env, abi.Upcall.sliceEnd) === 'done') {
    owe(w, cpu.position, w.now - cpu.end);
    const end = w.now + abi.GRACE;
    Object.assign(cpu, { grace: true, told: env.row, end, timer: end });
    return;
  }
  if (cpu.grace && cpu.told === env.row) {
    owe(w, cpu.position, w.sliceCycles);
    if (++env.excess > EXCESS_MAX) e.kill(w, env, -1);
  }
  endSlice(w);
}
/** Who runs next; 0 is nobody, until an interrupt. */
export function dispatch(w: World): number {
  const { cpu, envs } = w;
  for (;;) {
    let begins = false;
    if (envs[cpu.current]?.state !== ready) {
      cpu.current = cpu.owner === 0 ? 0 : run(w, envs[cpu.owner]);
      if (cpu.current === 0) {
        if (cpu.owner !== 0) endSlice(w);
        cpu.current = nextTurn(w);
        begins = true;
      }
    }
    const env = m.sure(envs[cpu.current]);
    if (env.row === 0) return rest(w);
    enter(w, env);
    if (begins && m.isAlive(env)) e.push(w, env, abi.Upcall.sliceBegin);
    if (m.isAlive(env)) return env.row;
  }
}
/** `env` runs next: if another did before, it is told what is pending. */
function enter(w: World, env: Env): void {
  if (w.cpu.entered === env.row) return;
  w.cpu.entered = env.row;
  w.cpu.told = 0;
  const { wanted, deadline, losses } = m.accountOf(w, env);
  const args = new Map([
    [abi.Upcall.revoke, [wanted, Math.max(0, deadline - w.now)]],
    [abi.Upcall.repossessed, [losses]],
  ]);
  for (const [kind, told] of args) {
    if (env.pending.has(kind) && e.push(w, env, kind, ...told) !== 'outstanding')
      env.pending.delete(kind);
  }
}
/** Goes on to the next position that can run and pay, and starts its slice: who runs then. */
function nextTurn(w: World): number {
  const { cpu, slices, sliceCycles } = w;
  const from = cpu.position;
  for (let round = 0; round < 2; round++) {
    let least = Infinity;
    for (let n = 1; n <= slices.length; n++) {
      const position = (from + n) % slices.length;
      const slice = m.sure(slices[position]);
      const owner = m.envBy(w, slice.owner);
      const runner = run(w, owner);
      const turn = sliceCycles - slice.debt;
      if (runner !== 0 && turn >= TURN_MIN) {
        slice.debt = 0;
        const end = w.now + turn;
        Object.assign(cpu, { position, owner: owner?.row, grace: false, end, timer: end });
        return runner;
      }
      // One too short is added to the next; one that nobody can use pays, and is gone.
      slice.debt = runner === 0 ? Math.max(0, -turn) : -turn;
      const env = m.sure(w.envs[runner]);
      if (runner !== 0) env.excess = Math.max(0, env.excess - 1);
      if (runner !== 0) least = Math.min(least, slice.debt);
    }
    if (least === Infinity) return 0;
    // If all who could run owe too much, nobody waits while they pay.
    const turns = Math.max(0, Math.ceil((least + TURN_MIN) / sliceCycles) - 1);
    for (const slice of slices)
      if (slice.debt > 0) slice.debt = Math.max(0, slice.debt - turns * sliceCycles);
  }
  return 0;
}
/** Until the first deadline that a position would run somebody for. */
function rest(w: World): number {
  const sleepers = w.slices.map(({ owner }) => endOf(w, m.envBy(w, owner)));
  const deadlines = sleepers.flatMap((env) => (env?.state === sleeping ? env.deadline : []));
  w.cpu.timer = Math.min(Infinity, ...deadlines.filter((at) => at > 0));
  return 0;
}

// ---- interrupts ---------------------------------------------------------------------------------

/** The request in a row is over; telling so has taken `took` cycles. */
export function complete(w: World, row: number, worked: boolean, took: number): void {
  const { env: id, account: at, block, pages, position } = m.sure(w.requests.get(row));
  w.requests.delete(row);
  for (const [page] of pages) e.settle(w, m.sure(w.pages[page]));
  if (row === e.TABLE_ROW && worked) {
    w.kept.durable = w.kept.staged;
    e.writeExtents(w);
  }
  // A loss that could not be saved is not said to have been.
  const ring = w.accounts.get(at)?.ring;
  if (row !== e.TABLE_ROW && id === -1 && !worked)
    ring?.forEach(([page, to], n) => {
      if (to === block + 1) ring.set(n, [page, 0]);
    });
  const env = m.envBy(w, id);
  if (env) env.done++;
  if (env && !worked) env.failed++;
  if (m.isAlive(env)) e.post(w, env);
  // Whose request it was owes it, and the slice that it fell into is that much longer.
  owe(w, position, 2 * took);
  if (w.cpu.owner !== 0) w.cpu.timer = w.cpu.end += 2 * took;
}
/** Something arrived on a channel of the console: the tenant's first environment hears of it. */
export function typed(w: World, channel: number): void {
  const account = w.accounts.get(channel);
  const holder = account?.tenant === channel && m.envBy(w, account.holder);
  if (holder) e.post(w, holder);
}
