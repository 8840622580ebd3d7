/** The calls on capabilities and accounts, and revocation. */
import * as abi from '../../kernel/abi.ts';
import { type Call, need } from './caller.ts';
import * as e from './effects.ts';
import * as m from './model.ts';
import type { Account, World } from './model.ts';
import { nextSave, save, SAVE_ROWS } from './disk.ts';

export function capForge(c: Call): void {
  const [env, there] = [c.env(0), c.slot(1)];
  c.slot(2);
  const [name, rights] = [c.name(3), c.rights(5)];
  c.over(2, env, 0);
  c.under(2, name, rights | abi.GRANT);
  need(!env.caps.has(there), 'occupied', 1);

  env.caps.set(there, { name, rights });
}
export function capDrop(c: Call): void {
  const [env, there] = [c.env(0), c.slot(1)];
  c.slot(2);
  c.over(2, env, 0);
  need(env.caps.has(there), 'noCapability', 1);
  const ofEnv = (key: number): boolean => c.w.pages[key >>> 9]?.env === env.row;
  const justifies = [...c.w.leaves].some(([key, { slot }]) => slot === there && ofEnv(key));
  need(!justifies, 'busy', 1);

  env.caps.delete(there);
  if (env.window?.slot === there) env.window = undefined;
}
export function capOffer(c: Call): void {
  const [to, slot] = [m.idOf(c.env(0)), c.slot(1)];
  const [name, rights] = [c.name(2), c.rights(4)];
  c.under(1, name, rights | abi.GRANT);

  c.me.offer = { to, slot, name, rights };
}
export function capAcquire(c: Call): void {
  const [granter, slot] = [c.alive(0), c.slot(1)];
  const { offer } = granter;
  need(offer?.to === m.idOf(c.me), 'absent', 0);
  // What it has lost it does not offer.
  const { name, rights } = offer;
  const cap = granter.caps.get(offer.slot);
  const may = cap && m.has(cap.rights, rights | abi.GRANT) && m.dominates(cap.name, name);
  need(may, 'absent', 0);
  need(!c.me.caps.has(slot), 'occupied', 1);

  c.me.caps.set(slot, { name, rights });
  granter.offer = undefined;
}

export function accountCreate(c: Call): void {
  const at = c.integer(0, 1, abi.ACCOUNTS - 1);
  const parent = c.account(1);
  c.slot(2);
  const [name, minimum] = [c.name(3), c.integer(5, 0, c.w.pages.length)];
  need(!c.w.accounts.has(at), 'notFree', 0);
  c.under(2, parent.name, abi.ALL_RIGHTS);
  const isProper = m.dominates(parent.name, name) && parent.name.length < name.length;
  need(isProper, 'notPermitted', 3);

  const opened = m.newAccount(at, parent.at, name, minimum);
  if (parent.at !== 0) opened.tenant = parent.tenant;
  c.w.accounts.set(at, opened);
}
export function accountMove(c: Call): void {
  const [from, to] = [c.account(0), c.account(1)];
  need(from !== to, 'badArgument', 1);
  c.slot(2);
  const resource = m.sure(m.RESOURCE_NAMES[c.integer(3, 0, 4)]);
  const amount = c.integer(4, 1);
  c.under(2, from.name, abi.REVOKE);
  need(amount <= m.room(c.w, from, resource), 'quota', 4);
  need(resource !== 'pages' || amount <= m.spare(from), 'quota', 4);

  e.allot(from, to, c.a(3), amount);
}
export function accountClose(c: Call): void {
  const account = c.account(0, 1);
  c.slot(1);
  c.under(1, account.name, abi.ALL_RIGHTS);
  const uses = m.RESOURCE_NAMES.some((name) => m.used(c.w, account.at, name) > 0);
  const others = [...c.w.accounts.values()];
  const isNamed = others.some(
    ({ parent, wanted, taker }) => parent === account.at || (wanted > 0 && taker === account.at),
  );
  need(!uses && !isNamed && account.wanted === 0, 'busy', 0);

  const parent = m.sure(c.w.accounts.get(account.parent));
  account.limits.forEach((limit, n) => {
    e.allot(account, parent, n, limit);
  });
  c.w.accounts.delete(account.at);
}

/** Slot argument 1 has REVOKE over the parent of an account: nobody has it over his own by that. */
function superior(c: Call, { parent }: Account): void {
  c.under(1, m.sure(c.w.accounts.get(parent)).name, abi.REVOKE);
}
/** An upcall to the account's first environment. */
const tellHolder = (w: World, { holder }: Account, kind: number): void => {
  e.announce(w, m.envBy(w, holder), kind);
};
export function revoke(c: Call): void {
  const from = c.account(0, 1);
  c.slot(1);
  const taker = c.account(2);
  need(taker !== from, 'badArgument', 2);
  const first = c.page(3).at;
  const pages = c.integer(4, 1, c.w.pages.length - first);
  const count = c.count(5, 0, abi.LOSSES);
  const cycles = c.integer(6, 10_000, 2 ** 31 - 1);
  superior(c, from);
  c.under(1, taker.name, abi.REVOKE, 2);
  need(count === 0 || from.wanted === 0, 'busy', 0);
  const loose = m.used(c.w, from.at, 'pages') - m.keptBy(c.w, from.at);
  need(count <= loose && count <= m.spare(from), 'quota', 5);

  from.wanted = count;
  if (count === 0) return;
  Object.assign(from, { taker: taker.at, first, pages, deadline: c.w.now + cycles });
  tellHolder(c.w, from, abi.Upcall.revoke);
}
export function repossess(c: Call) {
  const { w } = c;
  const from = c.account(0, 1);
  c.slot(1);
  superior(c, from);
  need(from.wanted > 0, 'absent', 0);
  need(w.now >= from.deadline, 'notReady', 0);
  const page = c.pageOf(2, abi.PageKind.user);
  const isTheirs = page.account === from.at && m.isInRange(from, page) && !page.kept;
  need(isTheirs, 'notPermitted', 2);
  const canSave = !nextSave(w, from) || SAVE_ROWS.some((row) => !w.requests.has(row));
  need(canSave, 'full', 2);

  const block = save(w, from, page);
  e.handOver(w, from);
  e.giveUp(w, page, from.taker);
  from.ring.set(from.losses % abi.LOSSES, [page.at, block]);
  from.losses++;
  tellHolder(w, from, abi.Upcall.repossessed);
  return e.sweep(w, page, block);
}
