/** seq: `seq [FIRST] LAST`: whole numbers, one per line. */
import { type Program } from '../process.ts';
import { WORK } from '../work.ts';
import { Io } from './io.ts';
import { parseNumber } from './options.ts';

export const seq: Program = {
  name: 'seq',
  *main(process) {
    const io = new Io(process);
    const numbers: number[] = [];
    for (const text of process.args.slice(1)) {
      numbers.push(yield* parseNumber(io, text, -Infinity));
    }
    const last = numbers.pop();
    const first = numbers.pop() ?? 1;
    if (last === undefined || numbers.length > 0) return yield* io.die('usage: seq [FIRST] LAST');
    for (let n = first; n <= last; n++) {
      io.port.work(WORK.formatLine) ?? (yield* io.port.fault());
      yield* io.out.text(`${n}\n`);
    }
    return yield* io.end();
  },
};
