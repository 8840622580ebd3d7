/** The console: bytes out, on the channel of the caller's account. */
import { Account, CONSOLE_MAX, Status } from '../abi.ts';
import { payer } from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
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
