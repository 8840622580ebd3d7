/** cat: copies files, or standard input, to standard output. It never looks at a byte. */
import { type Program, STDOUT } from '../process.ts';
import { Io } from './io.ts';
import { parseOptions } from './options.ts';

export const cat: Program = {
  name: 'cat',
  *main(process) {
    const io = new Io(process);
    const { operands } = yield* parseOptions(io, 'u');
    yield* io.forEachInput(operands, function* (fd) {
      const { read, written } = yield* io.pour(fd, STDOUT);
      if (written < 0) yield* io.outputFailed(written);
      return read;
    });
    return io.status;
  },
};
