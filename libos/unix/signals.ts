/**
 * Signals: a word of pending ones in each process's row, in pages that the processes of one Unix
 * share. Whoever sends sets a bit and posts an event, which the kernel allows for environments of
 * our own name alone; the target looks when it makes a system call or wakes within one. A process
 * that makes none is stopped and ended by the scheduler, but handles nothing.
 */
import type { Op } from '../syscalls.ts';
import { COMMON, PROCESS_MAX, Row, RowState } from './layout.ts';
import { Errno, Signal } from './process.ts';
import type { Shared } from './shared.ts';

export const SIGNALS = 32;
const bit = (signal: number): number => 1 << signal;

/** Their default is to do nothing. */
const QUIET = bit(Signal.CHLD) | bit(Signal.CONT);
const STOPS = bit(Signal.STOP) | bit(Signal.TSTP);
/** Cannot be caught or ignored. */
export const FIRM = bit(Signal.KILL) | bit(Signal.STOP);

export const isStop = (signal: number): boolean => (bit(signal) & STOPS) !== 0;
export const isQuiet = (signal: number): boolean => (bit(signal) & QUIET) !== 0;

/** The first of the pending signals that ends a process with its own way with `own`; or 0. */
export function deadly(pending: number, own: number): number {
  const fatal = pending & ~QUIET & ~STOPS & (~own | FIRM);
  return fatal === 0 ? 0 : 31 - Math.clz32(fatal & -fatal);
}

/** Sends a signal to process `pid`; ESRCH if there is none. The caller holds no lock. */
export function* send(shared: Shared, pid: number, signal: number): Op<number> {
  yield* shared.lock();
  const sent = yield* post(shared, pid, signal);
  yield* shared.unlock();
  return sent;
}

/** As send, while nobody else can touch the rows. */
export function* post(shared: Shared, pid: number, signal: number): Op<number> {
  if (!(pid > 0 && pid < PROCESS_MAX)) return Errno.ESRCH;
  if ((yield* shared.row(pid, Row.state)) !== RowState.running) return Errno.ESRCH;
  if (signal === 0) return 0;
  const own = yield* shared.row(pid, Row.own);
  if (isQuiet(signal) && signal !== Signal.CONT && (own & bit(signal)) === 0) return 0;
  let pending = (yield* shared.row(pid, Row.pending)) | bit(signal);
  if (signal === Signal.CONT || signal === Signal.KILL) {
    pending &= ~STOPS;
    yield* shared.setRow(pid, Row.stopped, 0);
  }
  yield* shared.setRow(pid, Row.pending, pending);
  yield* shared.wake(yield* shared.row(pid, Row.env), COMMON);
  return 0;
}

/** Sends a signal to all of a group; ESRCH if it is empty. */
export function* postGroup(shared: Shared, group: number, signal: number): Op<number> {
  let sent: number = Errno.ESRCH;
  for (let pid = 1; pid < PROCESS_MAX; pid++) {
    if ((yield* shared.row(pid, Row.state)) !== RowState.running) continue;
    if ((yield* shared.row(pid, Row.group)) !== group) continue;
    if ((yield* post(shared, pid, signal)) === 0) sent = 0;
  }
  return sent;
}

/** Takes the first pending signal of `pid`; 0 if there is none. */
export function* take(shared: Shared, pid: number): Op<number> {
  if ((yield* shared.row(pid, Row.pending)) === 0) return 0;
  yield* shared.lock();
  const pending = yield* shared.row(pid, Row.pending);
  const first = pending & -pending;
  yield* shared.setRow(pid, Row.pending, pending & ~first);
  yield* shared.setRow(pid, Row.patience, 0);
  yield* shared.unlock();
  return first === 0 ? 0 : 31 - Math.clz32(first);
}
