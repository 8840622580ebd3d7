/** What befalls environments, pages and accounts, whatever the cause: calls, ticks, completions. */
import * as abi from '../../kernel/abi.ts';
import * as m from './model.ts';
import type { Account, Env, Page, World } from './model.ts';

const { made, ready, sleeping, receiving, zombie } = abi.EnvState;
const { ok, interrupted } = abi.Status;
const { free, user, quarantined } = abi.PageKind;

// ---- environments -------------------------------------------------------------------------------

/** Status, value and further words in the result registers of `env`. */
export const tell = (w: World, { row }: Env, ...words: readonly number[]): unknown =>
  w.log.push(['result', row, ...words]);
/** An event: it wakes a sleeper. */
export function post(w: World, env: Env): void {
  env.events = (env.events + 1) | 0;
  if (env.state === sleeping) wake(w, env, ok, env.events, abi.Woken.event, 0);
}
/** It can run, and its patron hears of it; what it waited for is told. */
export function wake(w: World, env: Env, ...words: readonly number[]): void {
  if (words.length > 0) tell(w, env, ...words);
  env.state = ready;
  tellPatron(w, env);
}
/** Who schedules it hears that it can run, or is dead; a patron's own patron hears nothing. */
export function tellPatron(w: World, env: Env): void {
  const patron = m.envBy(w, env.patron);
  if (!patron || patron === env) return;
  patron.events = (patron.events + 1) | 0;
  if (patron.state !== sleeping) return;
  tell(w, patron, ok, patron.events, abi.Woken.event, 0);
  patron.state = ready;
}
export function kill(w: World, env: Env, exitStatus: number): void {
  if (env.state !== made) w.log.push(['end', env.row]);
  unqueue(w, env);
  Object.assign(env, { state: zombie, exitStatus, queue: [], pending: new Set() });
  if (w.current === env.row) w.current = 0;
  tellPatron(w, env);
}
export function unqueue(w: World, { row }: Env): void {
  for (const server of w.envs) server.queue = server.queue.filter((queued) => queued !== row);
}

// ---- upcalls ------------------------------------------------------------------------------------

/** An upcall, which is masked while one of its kind is outstanding: what became of it. */
export function push(w: World, env: Env, kind: number, ...args: readonly number[]) {
  const { entry, frame } = env.upcalls.get(kind) ?? { entry: -1, frame: -1 };
  const [standing, mask] = [m.load(w, env, frame), m.wordAt(w, env, frame, true)];
  if (entry < 0) return 'unwanted';
  if (standing !== undefined && standing !== 0) return 'outstanding';
  if (standing === undefined || mask === undefined || !w.hasRoom(env.row)) return kill(w, env, -1);
  w.memory[mask] = 1;
  w.log.push(['upcall', env.row, entry, ...args]);
  return 'done';
}
/** An upcall for who does not run: it ends a wait for events or calls, not one for a reply. */
export function announce(w: World, env: Env | undefined, kind: number): void {
  if (!m.isAlive(env)) return;
  env.pending.add(kind);
  if (w.entered === env.row) w.entered = 0;
  post(w, env);
  if (env.upcalls.has(kind) && env.state === receiving) wake(w, env, interrupted, 0);
}
/** Whether the caller must not wait, because an upcall could be pushed to it now. */
export function interrupts(w: World, env: Env): boolean {
  const due = [...env.pending].some(
    (kind) => m.load(w, env, env.upcalls.get(kind)?.frame ?? -1) === 0,
  );
  if (due) w.entered = 0;
  return due;
}
/** `env` runs next: if another did before, it is told what is pending. */
export function enter(w: World, env: Env): void {
  const { wanted, deadline, losses } = m.sure(w.accounts.get(env.account));
  const args = new Map([
    [abi.Upcall.revoke, [wanted, Math.max(0, deadline - w.now)]],
    [abi.Upcall.repossessed, [losses]],
  ]);
  for (const [kind, told] of w.entered === env.row ? [] : args) {
    if (env.pending.has(kind) && push(w, env, kind, ...told) !== 'outstanding')
      env.pending.delete(kind);
  }
  w.current = w.entered = env.row;
}
/** What a program did is its own affair: its handler's, or its end. */
export function fault(w: World, env: Env, cause: number, address: number): void {
  const { entry = 0, frame = -1 } = env.upcalls.get(abi.Upcall.fault) ?? {};
  const standing = m.load(w, env, frame) ?? -1;
  const fits = standing >= 0 && standing < abi.FAULT_FRAMES && w.hasRoom(env.row);
  const written = [cause, address | 0, 0, 0, standing + 1].every((word, n) => {
    const va = n === 4 ? frame : frame + (1 + standing * abi.FAULT_FRAME_WORDS + n) * 4;
    const at = fits ? m.wordAt(w, env, va, true) : undefined;
    if (at !== undefined) w.memory[at] = word;
    return at !== undefined;
  });
  w.log.push(written ? ['upcall', env.row, entry, cause, address] : ['obituary', 0]);
  if (!written) kill(w, env, -1);
}

// ---- pages --------------------------------------------------------------------------------------

/** Another kind for a page that stays charged to whom it was, and kept if it was. */
export const retype = (page: Page, kind: number, env = 0, parent = -1, index = 0): Page =>
  Object.assign(page, { kind, env, parent, index, ledgers: [] });
export function unmakeTable(w: World, table: Page): void {
  for (const page of [...table.ledgers.map((ledger) => m.sure(w.pages[ledger])), table])
    retype(page, user);
}
/** Takes every right to a page away; as long as something reaches it, `account` pays. */
export function giveUp(w: World, page: Page, account: number): void {
  Object.assign(page, {
    kind: quarantined,
    account,
    kept: false,
    entries: page.entries.map(() => undefined),
  });
  settle(w, page);
}
/** A quarantined page that nothing reaches any more is free, and counts as given back. */
export function settle(w: World, page: Page): void {
  if (page.kind !== quarantined || m.isReached(w, page.at)) return;
  const account = m.sure(w.accounts.get(page.account));
  Object.assign(page, {
    kind: free,
    account: 0,
    limits: [-1, -1],
    generation: (page.generation + 1) | 0,
  });
  if (account.wanted > 0 && isAskedFor(account, page)) handOver(w, account);
}
/** Takes up to STEP_LEAVES mappings away: by a given entry, or by any. Whether some remain. */
export function unbind(w: World, page: Page, entry = -1): boolean {
  const found = m.mappings(w, page.at, entry);
  for (const [key] of found.slice(0, abi.STEP_LEAVES)) w.leaves.delete(key);
  return found.length > abi.STEP_LEAVES;
}
/** A step was done, and more remain. */
export const step = (value: number): unknown => ({ status: abi.Status.again, value });
export function sweep(w: World, page: Page, value = 0): unknown {
  const again = unbind(w, page);
  settle(w, page);
  return again ? step(value) : value;
}

// ---- accounts -----------------------------------------------------------------------------------

export function allot(from: Account, to: Account, resource: number, amount: number): void {
  from.limits[resource] = m.sure(from.limits[resource]) - amount;
  to.limits[resource] = m.sure(to.limits[resource]) + amount;
}
export const isAskedFor = ({ first, pages }: Account, { at }: Page): boolean =>
  at >= first && at < first + pages;
/** One page less is wanted, and its allotment is the taker's. */
export function handOver(w: World, account: Account): void {
  allot(account, m.sure(w.accounts.get(account.taker)), abi.Resource.pages, 1);
  account.wanted--;
}
