/**
 * The console: bytes out, on the tenant's channel, whichever environment writes. What is written is
 * the tenant's own affair; owed is a bound on it, and that an address nobody mapped is refused.
 */
import { CONSOLE_MAX, Status } from '../abi.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import type { State } from './state.ts';

/** consoleWrite(address, bytes): writes at most CONSOLE_MAX bytes of the caller's memory. */
export function consoleWrite(state: State, claim: Claims): Answer {
  const [address, bytes] = [claim(0), claim(1)];
  if (!(bytes >= 0 && bytes <= CONSOLE_MAX)) return refuse(Status.tooMany, 1);
  const copy = state.machine.readUser(address, bytes);
  if (copy === null) return refuse(Status.badAddress, 0);

  state.machine.console(state.channel, copy);
  return ok(copy.length);
}
