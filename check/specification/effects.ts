/** What befalls environments, pages and accounts, whatever the cause: calls, ticks, completions. */
import * as abi from '../../kernel/abi.ts';
import * as m from './model.ts';
import type { Account, Env, Page, World } from './model.ts';

const { made, ready, sleeping, receiving, zombie } = abi.EnvState;
const { ok, interrupted, again } = abi.Status;
const { free, user, quarantined } = abi.PageKind;

// ---- environments -------------------------------------------------------------------------------

/** Status, value and further words in the result registers of `env`. */
export const tell = (w: World, { row }: Env, ...words: readonly number[]): unknown =>
  w.log.push(['result', row, ...words]);
/** It waits for nothing any more. */
export const rise = (env: Env): Env => Object.assign(env, m.AWAKE, { state: ready });
/** An event: it wakes a sleeper. */
export function post(w: World, env: Env): void {
  env.events = (env.events + 1) | 0;
  if (env.state === sleeping) wake(w, env, ok, env.events, abi.Woken.event, 0);
}
/** It can run, and its patron hears of it; what it waited for is told. */
export function wake(w: World, env: Env, ...words: readonly number[]): void {
  if (words.length > 0) tell(w, env, ...words);
  rise(env);
  tellPatron(w, env);
}
/** Who schedules it hears that it can run, or is dead; a patron's own patron hears nothing. */
export function tellPatron(w: World, env: Env): void {
  const patron = m.envBy(w, env.patron);
  if (!patron || patron === env) return;
  patron.events = (patron.events + 1) | 0;
  if (patron.state !== sleeping) return;
  tell(w, patron, ok, patron.events, abi.Woken.event, 0);
  rise(patron);
}
export function kill(w: World, env: Env, exitStatus: number): void {
  if (env.state !== made) w.log.push(['end', env.row]);
  unqueue(w, env);
  for (const row of env.queue) m.sure(w.envs[row]).message = [];
  Object.assign(env, m.AWAKE, { state: zombie, exitStatus, queue: [], offer: undefined });
  env.upcalls.clear();
  env.pending.clear();
  if (w.cpu.current === env.row) w.cpu.current = 0;
  tellPatron(w, env);
}
/** It is in nobody's queue any more. */
export function unqueue(w: World, env: Env): void {
  for (const server of w.envs) server.queue = server.queue.filter((row) => row !== env.row);
  env.message = [];
}

// ---- upcalls ------------------------------------------------------------------------------------

/** An upcall, which is masked while one of its kind is outstanding: what became of it. */
export function push(w: World, env: Env, kind: number, ...args: readonly number[]) {
  const { entry, frame } = env.upcalls.get(kind) ?? { entry: -1, frame: -1 };
  if (entry < 0) return 'unwanted';
  const standing = m.load(w, env, frame) ?? 0;
  if (standing !== 0) return 'outstanding';
  if (!w.hasRoom(env.row) || !m.store(w, env, frame, 1)) return kill(w, env, -1);
  w.log.push(['upcall', env.row, entry, ...args]);
  return 'done';
}
/** An upcall for who does not run: it ends a wait for events or calls, not one for a reply. */
export function announce(w: World, env: Env | undefined, kind: number): void {
  if (!m.isAlive(env)) return;
  env.pending.add(kind);
  if (w.cpu.entered === env.row) w.cpu.entered = 0;
  post(w, env);
  if (env.upcalls.has(kind) && env.state === receiving) wake(w, env, interrupted, 0);
}
/** Whether the caller must not wait, because an upcall could be pushed to it now. */
export function interrupts(w: World, env: Env): boolean {
  const due = [...env.pending].some(
    (kind) => m.load(w, env, env.upcalls.get(kind)?.frame ?? -1) === 0,
  );
  if (due) w.cpu.entered = 0;
  return due;
}
/** What a program did is its own affair: its handler's, or its end. */
export function fault(w: World, env: Env, cause: number, address: number): void {
  const { entry = 0, frame = -1 } = env.upcalls.get(abi.Upcall.fault) ?? {};
  const standing = m.load(w, env, frame) ?? -1;
  const fits = standing >= 0 && standing < abi.FAULT_FRAMES && w.hasRoom(env.row);
  const at = frame + 4 + standing * abi.FAULT_FRAME_WORDS * 4;
  const isWritten =
    fits &&
    [cause, address | 0, 0, 0].every((word, n) => m.store(w, env, at + n * 4, word)) &&
    m.store(w, env, frame, standing + 1);
  w.log.push(isWritten ? ['upcall', env.row, entry, cause, address] : ['obituary', 0]);
  if (!isWritten) kill(w, env, -1);
}

// ---- pages --------------------------------------------------------------------------------------

/** Another kind for a page that stays charged to whom it was, and kept if it was. */
export const retype = (page: Page, kind: number, env = 0, parent = -1, index = 0): Page =>
  Object.assign(page, { kind, env, parent, index, ledgers: [] });
/** A step of it: read-only mappings of the table go first. */
export function unmakeTable(w: World, table: Page) {
  if (unbind(w, table)) return stepped(true);
  for (const page of [...table.ledgers.map((ledger) => m.sure(w.pages[ledger])), table])
    retype(page, user);
  return stepped(false);
}
/** Takes every right to a page away; as long as something reaches it, `account` pays. */
export function giveUp(w: World, page: Page, account: number): void {
  const entries = page.entries.map(() => undefined);
  Object.assign(page, { kind: quarantined, account, kept: false, entries });
  settle(w, page);
}
/** A quarantined page that nothing reaches any more is free, and counts as given back. */
export function settle(w: World, page: Page): void {
  if (page.kind !== quarantined || m.isReached(w, page.at)) return;
  const account = m.accountOf(w, page);
  const generation = (page.generation + 1) | 0;
  Object.assign(page, { kind: free, account: 0, limits: [-1, -1], generation });
  if (account.wanted > 0 && m.isInRange(account, page)) handOver(w, account);
}
/** Takes up to STEP_LEAVES mappings away: by a given entry, or by any. Whether some remain. */
export function unbind(w: World, page: Page, entry = -1): boolean {
  const found = m.mappings(w, page.at, entry);
  for (const [key] of found.slice(0, abi.STEP_LEAVES)) w.leaves.delete(key);
  return found.length > abi.STEP_LEAVES;
}
/** What a call answers that has done its work, or a step of it. */
export const stepped = (remains: boolean, value = 0) => ({ status: remains ? again : ok, value });
export function sweep(w: World, page: Page, value = 0) {
  const remains = unbind(w, page);
  settle(w, page);
  return stepped(remains, value);
}

// ---- accounts -----------------------------------------------------------------------------------

export function allot(from: Account, to: Account, resource: number, amount: number): void {
  from.limits[resource] = m.sure(from.limits[resource]) - amount;
  to.limits[resource] = m.sure(to.limits[resource]) + amount;
}
/** One page less is wanted, and its allotment is the taker's. */
export function handOver(w: World, account: Account): void {
  allot(account, m.sure(w.accounts.get(account.taker)), abi.Resource.pages, 1);
  account.wanted--;
}

// ---- the disk -----------------------------------------------------------------------------------

/** Queues a request in the first free row from `from` on, for whose slice it is to pay. */
export function submit(w: World, from: number, request: Omit<m.Request, 'position'>): void {
  let row = from;
  while (w.requests.has(row)) row++;
  const { owner, position } = w.cpu;
  w.requests.set(row, { ...request, position: owner === 0 ? -1 : position });
  const { flags, block, pages } = request;
  w.log.push(['disk', row, flags, block, ...pages.map(([at]) => at)]);
}
/** The extents are others from now on. */
export function changeExtents(w: World): void {
  w.kept.generation = (w.kept.generation + 1) | 0;
  w.kept.payer = w.cpu.owner === 0 ? -1 : w.cpu.position;
  const underway = w.requests.get(TABLE_ROW);
  if (underway) underway.position = w.kept.payer;
  writeExtents(w);
}
/** Row of the requests that write the extent table: one at a time. */
export const TABLE_ROW = 63;
/** Writes the table to that of the two last blocks where the durable generation is not. */
export function writeExtents(w: World): void {
  const { kept, requests } = w;
  if (requests.has(TABLE_ROW) || kept.generation === kept.durable) return;
  if (((kept.generation ^ kept.durable) & 1) === 0) kept.generation = (kept.generation + 1) | 0;
  kept.staged = kept.generation;
  const block = w.blocks - 2 + (kept.generation & 1);
  const flags = abi.DISK_WRITE | abi.DISK_FORCE;
  submit(w, TABLE_ROW, { env: -1, account: 0, extent: -1, block, flags, pages: [] });
  m.sure(requests.get(TABLE_ROW)).position = kept.payer;
}
