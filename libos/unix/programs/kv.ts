/**
 * kvput and kvget: `kvput KEY` keeps standard input under a key in the key-value store that lodges
 * with this Unix, `kvget KEY` writes what is kept there to standard output. The value is read into,
 * and written from, the pages granted to the store: no copy on this side.
 *
 * Exit status: 0; 1 no such key (of kvget); 2 anything else, with a line that says what.
 */
import type { KvClient } from '../../kv/client.ts';
import { KEY_MAX, KvStatus, VALUE_MAX } from '../../kv/protocol.ts';
import type { Op } from '../../syscalls.ts';
import { type Program, STDIN, STDOUT } from '../process.ts';
import { bytesOf } from './bytes.ts';
import { Io, messageOf } from './io.ts';
import { parseOptions } from './options.ts';

const TROUBLE = 2;

/** What a status other than ok says, for people. */
function why(status: number): string {
  switch (status) {
    case KvStatus.tooLarge:
      return `value too long: at most ${VALUE_MAX} bytes, and half a segment of the store`;
    case KvStatus.full:
      return 'the store is full';
    case KvStatus.quota:
      return 'this tenant has used up its part of the store';
    case KvStatus.disk:
      return 'the disk failed';
    case KvStatus.corrupt:
      return 'the disk gave back something else than was written';
    default:
      return `the store refuses: status ${status}`;
  }
}

/** The key that the command line names, and a session with the store; or the end of the program. */
function* begin(io: Io): Op<{ readonly key: Uint8Array; readonly store: KvClient }> {
  const { operands } = yield* parseOptions(io, '');
  const key = bytesOf(operands[0] ?? '');
  if (operands.length !== 1 || key.length < 1 || key.length > KEY_MAX) {
    yield* io.die(`usage: ${io.process.args[0] ?? ''} KEY (1 to ${KEY_MAX} bytes)`);
  }
  const store = yield* io.process.openStore();
  if (typeof store !== 'number') return { key, store };
  return yield* io.die(`the key-value store: ${messageOf(store)}`);
}

export const kvput: Program = {
  name: 'kvput',
  *main(process) {
    const io = new Io(process, TROUBLE);
    const { key, store } = yield* begin(io);
    let bytes = 0;
    for (;;) {
      // One byte more than the most: that tells a value that is too long from one that just fits.
      const room = VALUE_MAX + 1 - bytes;
      const got = yield* process.read(STDIN, store.data + bytes, room);
      if (got < 0) yield* io.die(`standard input: ${messageOf(got)}`);
      bytes += got;
      if (bytes > VALUE_MAX) yield* io.die(why(KvStatus.tooLarge));
      if (got === 0) break;
    }
    const status = yield* store.putInPlace(key, bytes);
    if (status !== KvStatus.ok) yield* io.die(why(status));
    return io.status;
  },
};

export const kvget: Program = {
  name: 'kvget',
  *main(process) {
    const io = new Io(process, TROUBLE);
    const { key, store } = yield* begin(io);
    const { status, valueBytes } = yield* store.getInPlace(key);
    if (status === KvStatus.absent) return 1;
    if (status !== KvStatus.ok) yield* io.die(why(status));
    const written = yield* process.write(STDOUT, store.data, valueBytes);
    if (written < 0) yield* io.outputFailed(written);
    return io.status;
  },
};
