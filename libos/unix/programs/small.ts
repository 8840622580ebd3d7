/** true, false and sync: programs of one line. */
import { type Program } from '../process.ts';
import { Io, messageOf } from './io.ts';

export const yes: Program = {
  name: 'true',
  *main() {
    return 0;
  },
};

export const no: Program = {
  name: 'false',
  *main() {
    return 1;
  },
};

export const sync: Program = {
  name: 'sync',
  *main(process) {
    const io = new Io(process);
    const error = yield* process.sync();
    if (error < 0) yield* io.complain(messageOf(error));
    return io.status;
  },
};
