/** The console: bytes out and in, on the channel of the caller's account. */
import { Account, ACCOUNTS, CONSOLE_MAX, Status } from '../abi.ts';
import { messageOf } from '../supervisor.ts';
import { payer } from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { post } from './life.ts';
import { isWord, type State } from './state.ts';

/**
 * consoleWrite(address, bytes): writes at most CONSOLE_MAX bytes of the caller's memory.
 *
 * @refuses badArgument 0 (not an address); badArgument 1 (not a count); tooMany 1 (more than
 *   4096); badAddress 0 (the bytes cannot be read)
 */
export function consoleWrite(state: State, caller: number, claim: Claims): Answer {
  const [address, bytes] = [claim(0), claim(1)];
  if (!isWord(address) || address < 0) return refuse(Status.badArgument, 0);
  if (!Number.isInteger(bytes) || bytes < 0) return refuse(Status.badArgument, 1);
  if (bytes > CONSOLE_MAX) return refuse(Status.tooMany, 1);
  const copy = state.machine.readUser(address, bytes);
  if (copy === null) return refuse(Status.badAddress, 0);

  state.machine.console(state.account.get(payer(state, caller), Account.tenant), copy);
  return ok(bytes);
}

/**
 * consoleRead(): takes what has arrived on that channel. The answer is how many bytes, at most 16,
 * and they themselves as four words, the first byte lowest.
 */
export function consoleRead(state: State, caller: number): null {
  const channel = state.account.get(payer(state, caller), Account.tenant);
  const bytes = state.machine.consoleRead(channel);
  state.machine.contexts.setResult(caller, Status.ok, bytes.length, ...messageOf(bytes));
  return null;
}

/** Something arrived on a channel: an event for the first environment of its tenant. */
export function typed(state: State, channel: number): void {
  if (channel >= ACCOUNTS || state.account.get(channel, Account.valid) === 0) return;
  if (state.account.get(channel, Account.tenant) !== channel) return;
  const holder = state.row(state.account.get(channel, Account.holder));
  if (holder > 0) post(state, holder);
}
