/** sha256sum: digests of files or standard input, in GNU's format. */
import { type Program } from '../process.ts';
import { WORK } from '../work.ts';
import { Io } from './io.ts';
import { parseOptions } from './options.ts';
import { Sha256 } from './sha256.ts';

const ESCAPES: Readonly<Record<string, string>> = { '\\': '\\\\', '\n': '\\n', '\r': '\\r' };

export const sha256sum: Program = {
  name: 'sha256sum',
  *main(process) {
    const io = new Io(process);
    const { operands } = yield* parseOptions(io, '');
    yield* io.forEachInput(operands, function* (fd, name) {
      const hash = new Sha256();
      const error = yield* io.forEachChunk(fd, function* (bytes) {
        io.port.work(bytes.length * WORK.sha256Byte) ?? (yield* io.port.fault());
        hash.update(bytes);
      });
      if (error < 0) return error;
      const escaped = name.replace(/[\\\n\r]/g, (character) => ESCAPES[character] ?? '');
      io.port.work(WORK.formatLine) ?? (yield* io.port.fault());
      yield* io.out.text(`${escaped === name ? '' : '\\'}${hash.hex()}  ${escaped}\n`);
      return 0;
    });
    return yield* io.end();
  },
};
