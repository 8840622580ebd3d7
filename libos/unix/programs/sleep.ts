/**
 * sleep: `sleep SECONDS..`, of simulated time. timeout: `timeout SECONDS COMMAND [ARGUMENT..]` ends
 * a command that takes longer (exit status 124). Both wait in poll, which the end of a child
 * interrupts.
 */
import type { Op } from '../../syscalls.ts';
import { Errno, type Program, SECOND, Signal } from '../process.ts';
import { Io, messageOf } from './io.ts';
import { parseOptions } from './options.ts';

const TIMED_OUT = 124;
const TROUBLE = 125;
const CANNOT_RUN = 126;
const NOT_FOUND = 127;
const [COMMAND, HEARD] = [0, 1]; // children
const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** `1`, `.5`, `2m`: cycles of so much time; null if it is none. */
export function cyclesOf(text: string): number | null {
  const found = /^([0-9]+\.?[0-9]*|\.[0-9]+)([smhd]?)$/.exec(text);
  if (found === null) return null;
  const cycles = Math.ceil(Number(found[1]) * (UNITS[found[2] ?? ''] ?? 1) * SECOND);
  return Number.isSafeInteger(cycles) ? cycles : null;
}

export const sleep: Program = {
  name: 'sleep',
  *main(process) {
    const io = new Io(process);
    const { operands: words } = yield* parseOptions(io, '');
    if (words.length === 0) return yield* io.die('missing operand');
    let cycles = 0;
    for (const word of words) {
      const more = cyclesOf(word);
      if (more === null) yield* io.complain(`invalid time interval '${word}'`);
      cycles += more ?? 0;
    }
    if (io.status === 0) yield* process.poll([], cycles);
    return io.status;
  },
};

export const timeout: Program = {
  name: 'timeout',
  *main(process) {
    const io = new Io(process, TROUBLE);
    const [, time = '', command] = process.args;
    if (command === undefined) return yield* io.die('usage: timeout SECONDS COMMAND [ARGUMENT..]');
    const cycles = cyclesOf(time);
    if (cycles === null) return yield* io.die(`invalid time interval '${time}'`);
    yield* process.handle(Signal.CHLD, HEARD);
    const pid = yield* process.fork(COMMAND, 0);
    if (pid < 0) return yield* io.die(`cannot fork: ${messageOf(pid)}`);
    const until = process.port.cycles() + cycles;
    // As in a Unix, no time at all is no limit.
    for (let left = cycles; cycles > 0 && left > 0; left = until - process.port.cycles()) {
      const ended = yield* process.wait({ pid, noHang: true });
      if (typeof ended !== 'number' && ended[0] === pid) return ended[1];
      yield* process.poll([], left);
    }
    if (cycles > 0) yield* process.kill(pid, Signal.TERM);
    for (;;) {
      const ended = yield* process.wait({ pid });
      if (ended === Errno.EINTR) continue;
      if (cycles > 0) return TIMED_OUT;
      return typeof ended === 'number' ? TROUBLE : ended[1];
    }
  },
  children: [
    function* (process): Op<number> {
      const io = new Io(process, TROUBLE);
      const [, , command = '', ...words] = process.args;
      yield* process.handle(Signal.CHLD, 'default');
      const error = yield* process.exec(command, [command, ...words]);
      yield* io.complain(`failed to run command '${command}': ${messageOf(error)}`);
      return error === Errno.ENOENT ? NOT_FOUND : CANNOT_RUN;
    },
    function* () {
      return 0; // that it came is all: poll ends
    },
  ],
};
