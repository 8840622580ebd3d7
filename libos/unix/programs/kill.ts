/** kill: `kill [-SIGNAL] PID..`, by name or number; a pid below 0 is a group. */
import { type Program, Signal } from '../process.ts';
import { Io, messageOf } from './io.ts';

/** The signal (TERM by default; -1 if there is none such) and whom it is for. */
export function killOperands(words: readonly string[]): { signal: number; targets: string[] } {
  const targets = [...words];
  const option = targets[0] ?? '';
  if (!option.startsWith('-') || option === '--') {
    return { signal: Signal.TERM, targets: option === '--' ? targets.slice(1) : targets };
  }
  targets.shift();
  const name = option === '-s' ? (targets.shift() ?? '') : option.slice(1);
  const bare = name.toUpperCase().replace(/^SIG/, '');
  const byName = Object.entries(Signal).find(([one]) => one === bare)?.[1];
  const signal = byName ?? (/^[0-9]+$/.test(name) && Number(name) < 32 ? Number(name) : -1);
  return { signal, targets: targets[0] === '--' ? targets.slice(1) : targets };
}

export const kill: Program = {
  name: 'kill',
  *main(process) {
    const io = new Io(process);
    const { signal, targets } = killOperands(process.args.slice(1));
    if (signal < 0) yield* io.die(`${process.args[1] ?? ''}: invalid signal`);
    if (targets.length === 0) yield* io.die('usage: kill [-SIGNAL] PID..');
    for (const target of targets) {
      const error = yield* process.kill(Number(target), signal);
      if (error < 0) yield* io.complain(`${target}: ${messageOf(error)}`);
    }
    return io.status;
  },
};
