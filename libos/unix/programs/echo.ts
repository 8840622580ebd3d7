/** echo: its arguments, with blanks between. -n: no newline. */
import { type Program } from '../process.ts';
import { WORK } from '../work.ts';
import { Io } from './io.ts';

export const echo: Program = {
  name: 'echo',
  *main(process) {
    const io = new Io(process);
    const words = process.args.slice(1);
    const flags = words.findIndex((word) => word !== '-n');
    const skipped = flags < 0 ? words.length : flags;
    io.port.work(WORK.formatLine) ?? (yield* io.port.fault());
    yield* io.out.text(words.slice(skipped).join(' ') + (skipped > 0 ? '' : '\n'));
    return yield* io.end();
  },
};
