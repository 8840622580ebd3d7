/** The calls on environments, slices and upcalls, and protected control transfer. */
import * as abi from '../../kernel/abi.ts';
import { between, type Call, need } from './caller.ts';
import * as e from './effects.ts';
import * as m from './model.ts';
import { giveBack, predicate, run, termAt, termsOf } from './time.ts';
import type { Env, Page, World } from './model.ts';

const { free, made, ready, sleeping, calling, receiving, zombie } = abi.EnvState;
const { ok, interrupted } = abi.Status;
const { root, leaf, user } = abi.PageKind;

export function yieldTo(c: Call): 'told' {
  const { w, me } = c;
  const runner = c.a(0) === -1 ? 0 : run(w, c.env(0));
  need(c.a(0) === -1 || runner !== 0, 'notReady', 0);

  e.tell(w, me, ok, 0);
  if (c.a(0) === -1) giveBack(w, me);
  else w.cpu.current = runner;
  return 'told';
}
export function sleep(c: Call): 'told' {
  const { w, me } = c;
  const [seen, cycles] = [c.integer(0), c.integer(1, -1, 2 ** 31 - 1)];
  const count = c.count(3, 0, abi.PREDICATE_TERMS);
  const words = Array.from({ length: count * abi.Term.words }, (_, n) => {
    const word = c.load(c.a(2) + n * 4);
    need(word !== undefined, 'badAddress', 2);
    return word;
  });
  for (const term of termsOf(words)) termAt(w, me, term);

  const found = predicate(w, me, words);
  const answer = (why: number, tag: number): unknown => e.tell(w, me, ok, me.events, why, tag);
  if (me.events !== (seen | 0) || e.interrupts(w, me)) answer(abi.Woken.event, 0);
  else if (typeof found === 'number') answer(abi.Woken.predicate, found);
  else if (cycles === 0) answer(abi.Woken.deadline, 0);
  else {
    const deadline = cycles < 0 ? 0 : w.now + cycles;
    Object.assign(me, { state: sleeping, deadline, terms: words });
    giveBack(w, me);
  }
  return 'told';
}
export function notify(c: Call): void {
  const env = c.env(0);
  c.slot(1);
  c.over(1, env);

  e.post(c.w, env);
}

// ---- environments -------------------------------------------------------------------------------

export function envCreate(c: Call): number {
  const { w, me } = c;
  const row = c.integer(0, 1, w.envs.length - 1);
  need(w.envs[row]?.state === free, 'notFree', 0);
  c.slot(2);
  const name = c.name(3);
  const patron = c.a(5) === -1 ? me : c.env(5);
  c.under(2, name, abi.ALL_RIGHTS);
  const isNear = patron === me || patron === m.envBy(w, me.patron);
  const cap = m.sure(me.caps.get(c.a(2)));
  need(isNear || m.dominates(cap.name, patron.name), 'notPermitted', 5);
  const page = c.spendable(1, 2);
  const account = c.a(6) === -1 ? c.payer : c.account(6);
  if (account !== c.payer) c.under(2, account.name, abi.WRITE, 6);
  need(m.dominates(account.name, name), 'notPermitted', 6);
  c.paidFor(page, name, 1);
  need(m.room(w, account, 'environments') > 0, 'quota', 6);

  const env = m.newEnv(row, (m.sure(w.envs[row]).generation + 1) & 0x1ffff);
  const theirs = { root: page.at, parent: me.row, patron: m.idOf(patron), account: account.at };
  w.envs[row] = Object.assign(env, { state: made, name, ...theirs });
  env.caps.set(0, { name, rights: abi.ALL_RIGHTS });
  e.retype(page, root, row);
  if (!m.envBy(w, account.holder)) account.holder = m.idOf(env);
  return m.idOf(env);
}
export function envStart(c: Call): void {
  const env = c.env(0);
  const [image, entry] = [c.a(1), c.a(2)];
  need(c.w.hasEntry(image, 0), 'badArgument', 1);
  need(c.w.hasEntry(image, entry), 'badArgument', 2);
  c.word(3);
  c.word(4);
  c.slot(5);
  c.over(5, env);
  need(env.state === made, 'notReady', 0);

  c.w.log.push(['start', env.row, image, entry, c.a(0), c.a(3), c.a(4)]);
  env.image = image;
  e.wake(c.w, env);
}
export function envSuspend(c: Call): void {
  const env = c.alive(0);
  c.slot(1);
  const suspended = c.integer(2, 0, 1) === 1;
  c.over(1, env);

  env.suspended = suspended;
  if (suspended && env === c.me) c.w.cpu.current = 0;
  if (!suspended && env.state === ready) e.tellPatron(c.w, env);
}
export function envDestroy(c: Call): 'told' | 0 {
  const env = c.alive(0);
  c.slot(1);
  const status = c.word(2);
  c.over(1, env);

  e.kill(c.w, env, status);
  return env === c.me ? 'told' : 0;
}
export function envReap(c: Call) {
  const env = c.env(0);
  c.slot(1);
  c.over(1, env);
  need(env.state === zombie, 'notReady', 0);
  need(m.isEmpty(c.w, env.root) && env.submitted === env.done, 'busy', 0);

  const answer = e.unmakeTable(c.w, m.sure(c.w.pages[env.root]));
  if (answer.status !== ok) return answer;
  if (c.w.cpu.entered === env.row) c.w.cpu.entered = 0;
  c.w.envs[env.row] = m.newEnv(env.row, env.generation);
  return answer;
}
export function upcallSet(c: Call): void {
  const [kind, entry, frame] = [c.integer(0, 0, abi.UPCALL_KINDS - 1), c.a(1), c.a(2)];
  need(entry === -1 || c.w.hasEntry(c.me.image, entry), 'badArgument', 1);
  need(between(frame, 0, 2 ** 32 - 1) && frame % 4 === 0, 'badAddress', 2);

  c.me.upcalls.delete(kind);
  if (entry !== -1) c.me.upcalls.set(kind, { entry, frame });
}

// ---- positions of the slice vector --------------------------------------------------------------

export function sliceAllocate(c: Call): void {
  const [slice, env] = [c.slice(0), c.alive(1)];
  c.slot(2);
  c.over(2, env);
  need(!m.isAlive(m.envBy(c.w, slice.owner)), 'notFree', 0);
  const account = m.accountOf(c.w, env);
  const pays = slice.owner !== 0 && slice.account === account.at;
  need(pays || m.room(c.w, account, 'slices') > 0, 'quota', 1);

  const generation = slice.generation + 1;
  Object.assign(slice, { owner: c.a(1), account: account.at, generation });
}
export function sliceFree(c: Call): void {
  const slice = c.slice(0);
  c.slot(1);
  need(slice.owner !== 0, 'absent', 0);
  const owner = m.envBy(c.w, slice.owner);
  if (m.isAlive(owner)) c.over(1, owner);

  Object.assign(slice, { owner: 0, account: 0, generation: slice.generation + 1 });
}

// ---- protected control transfer -----------------------------------------------------------------

export function ipcWindow(c: Call): void {
  const table = c.pageOf(0, leaf);
  need(table.env === c.me.row, 'notPermitted', 0);
  const [index, slot] = [c.index(1), c.slot(2)];
  c.held(2);

  c.me.window = { table: table.at, index, slot };
}

type Grant = { page: Page; entry: number; rights: number } | undefined;

/** Arguments 1 to 4. */
const message = (c: Call): number[] => [1, 2, 3, 4].map((n) => c.word(n));
/** Arguments 5 to 7: a page that the sender answers for, for the receiver's window. */
function grant(c: Call, to: Env | undefined): Grant {
  if (c.a(5) === -1) return undefined;
  c.slot(6);
  const page = c.pageOf(5, user);
  c.answers(6, page);
  const [rights, entry] = [c.a(7) % 256, Math.floor(c.a(7) / 256)];
  const isOne = (rights === 1 || rights === 3) && between(entry, 1, abi.ACCESS_ENTRIES - 1);
  need(isOne, 'badArgument', 7);
  need(!page.entries[entry], 'occupied', 7);
  need(m.fits(c.w, page, 1, rights === 3 ? 1 : 0), 'sharing', 7);
  const { table = -1, index = 0, slot = -1 } = to?.window ?? {};
  const isOpen = c.w.pages[table]?.kind === leaf && c.w.pages[table].env === to?.row;
  const place = isOpen && index < 512 && !c.w.leaves.has(table * 512 + index);
  need(place && m.has(to?.caps.get(slot)?.rights ?? 0, rights), 'notReady', 0);
  return { page, entry, rights };
}
/** Sender, words and page arrive together. */
function deliver(w: World, from: Env, to: Env, words: readonly number[], given?: Grant): void {
  const { window } = to;
  if (!given || !window) {
    e.tell(w, to, ok, m.idOf(from), ...words, 0);
    return;
  }
  const { page, entry, rights } = given;
  const { slot } = window;
  page.entries[entry] = { name: m.sure(to.caps.get(slot)).name, rights, going: false };
  const flags = abi.MAP_READ | (rights === 3 ? abi.MAP_WRITE : 0);
  w.leaves.set(window.table * 512 + window.index, { page: page.at, slot, entry, flags });
  window.index++;
  e.tell(w, to, ok, m.idOf(from), ...words, window.index);
}
/** Argument 0: anybody but the caller. */
function other(c: Call): Env {
  const env = c.env(0);
  need(env !== c.me, 'badEnvironment', 0);
  return env;
}

export function ipcCall(c: Call): 'told' {
  const { w, me } = c;
  const to = other(c);
  need(to.state !== zombie && to.state !== made, 'notReady', 0);
  const words = message(c);
  const given = grant(c, to);
  const hears = to.state === receiving;
  need(hears || !given, 'notReady', 0);

  Object.assign(me, { state: calling, partner: m.idOf(to) });
  if (hears) {
    deliver(w, me, to, words, given);
    e.rise(to);
  } else {
    me.message = words;
    to.queue = [...to.queue, me.row];
  }
  w.cpu.current = run(w, to);
  return 'told';
}
export function ipcSend(c: Call): 'told' {
  const { w, me } = c;
  const to = other(c);
  need(to.state === receiving, 'notReady', 0);
  const words = message(c);
  const given = grant(c, to);

  deliver(w, me, to, words, given);
  e.wake(w, to);
  e.tell(w, me, ok, 0);
  w.cpu.current = run(w, to) || w.cpu.current;
  return 'told';
}
export function ipcReplyWait(c: Call): 'told' {
  const { w, me } = c;
  const client = c.a(0) === -1 ? undefined : c.env(0);
  const waits = client?.state === calling && client.partner === m.idOf(me);
  need(!client || (waits && !me.queue.includes(client.row)), 'notReady', 0);
  const words = message(c);
  need(client || c.a(5) === -1, 'badArgument', 5);
  const given = grant(c, client);

  if (client) {
    deliver(w, me, client, words, given);
    e.wake(w, client);
  }
  const next = w.envs[me.queue[0] ?? -1];
  if (next) {
    const { message: queued } = next;
    e.unqueue(w, next);
    deliver(w, next, me, queued);
  } else if (e.interrupts(w, me)) e.tell(w, me, interrupted, 0);
  else {
    me.state = receiving;
    w.cpu.current = run(w, client);
  }
  return 'told';
}
