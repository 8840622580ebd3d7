/**
 * The console: bytes out and in, on the tenant's channel, whichever environment asks. What is
 * written is the tenant's own affair; owed is a bound on it, and that an address nobody mapped is
 * refused.
 */
import { CONSOLE_MAX, EnvState, Status } from '../abi.ts';
import { messageOf } from '../supervisor.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { post } from './life.ts';
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

/** consoleRead(): takes what has arrived: how many bytes, at most 16, and these as four words. */
export function consoleRead(state: State, caller: number): null {
  const bytes = state.machine.consoleRead(state.channel);
  state.machine.contexts.setResult(caller, Status.ok, bytes.length, ...messageOf(bytes));
  return null;
}

/** Something arrived: an event for the first environment. */
export function typed(state: State): void {
  if (state.stateOf(FIRST) !== EnvState.free) post(state, FIRST);
}

const FIRST = 1; // row
