/**
 * ps: the processes of this Unix, by what /proc says of each; nothing is asked of the kernel. -f
 * shows more. df: how full the file system is, in the manner of `df -P`, in blocks of 1024 bytes.
 */
import type { Op } from '../../syscalls.ts';
import { Errno, O_READ, type Process, type Program } from '../process.ts';
import { textOf } from './bytes.ts';
import { Io, messageOf } from './io.ts';
import { parseOptions } from './options.ts';

const PROC = '/proc';
/** What /proc calls a state, and the letter that ps shows. */
const STATES: Readonly<Record<string, string>> = {
  ...{ ready: 'R', sleeping: 'S', calling: 'D', receiving: 'S', stopped: 'T', zombie: 'Z' },
};

/** A file of /proc as its fields; or an error. */
function* fieldsOf(io: Io, path: string): Op<ReadonlyMap<string, string> | number> {
  const fd = yield* io.process.open(path, O_READ);
  if (fd < 0) return fd;
  let text = '';
  const error = yield* io.forEachChunk(fd, function* (bytes) {
    text += textOf(bytes);
  });
  yield* io.process.close(fd);
  if (error < 0) return error;
  const lines = text.split('\n').map((line) => /^(.*?): (.*)$/.exec(line));
  return new Map(lines.map((line) => [line?.[1] ?? '', line?.[2] ?? '']));
}

function* main(process: Process): Op<number> {
  const io = new Io(process);
  const { flags, operands } = yield* parseOptions(io, 'ef');
  if (operands.length > 0) return yield* io.die(`extra operand '${operands[0] ?? ''}'`);
  const names = yield* process.readdir(PROC);
  if (typeof names === 'number') return yield* io.die(`${PROC}: ${messageOf(names)}`);
  const full = flags.has('f');
  const title = full ? '  PID  PPID  PGID S HEAP CMD\n' : '  PID S CMD\n';
  yield* io.out.text(title);
  for (const name of names.filter((one) => /^[0-9]+$/.test(one))) {
    const fields = yield* fieldsOf(io, `${PROC}/${name}/status`);
    if (fields === Errno.ENOENT) continue; // it has ended meanwhile
    if (typeof fields === 'number') {
      yield* io.failed(`${PROC}/${name}/status`, fields);
      continue;
    }
    const field = (what: string, width: number): string =>
      (fields.get(what) ?? '?').padStart(width);
    const state = STATES[fields.get('State') ?? ''] ?? '?';
    const more = full ? `${field('PPid', 6)}${field('Group', 6)}` : '';
    const heap = full ? `${field('Heap pages', 5)}` : '';
    yield* io.out.text(`${field('Pid', 5)}${more} ${state}${heap} ${field('Name', 0)}\n`);
  }
  return yield* io.end();
}

export const ps: Program = { name: 'ps', main };

const FILE_SYSTEM = 'unix'; // there is one
const BLOCK_KIB = 4;

export const df: Program = {
  name: 'df',
  *main(process) {
    const io = new Io(process);
    const { operands } = yield* parseOptions(io, 'kP');
    for (const path of operands) {
      const stat = yield* process.stat(path);
      if (typeof stat === 'number') yield* io.failed(path, stat);
    }
    if (operands.length > 0 && io.status !== 0) return io.status;
    const room = yield* process.room();
    if (typeof room === 'number') return yield* io.die(messageOf(room));
    const [all, free] = [room.blocks * BLOCK_KIB, room.freeBlocks * BLOCK_KIB];
    const used = all - free;
    const percent = `${all === 0 ? 0 : Math.ceil((used * 100) / all)}%`;
    const rows = [
      ['Filesystem', '1024-blocks', 'Used', 'Available', 'Capacity', 'Mounted on'],
      [FILE_SYSTEM, String(all), String(used), String(free), percent, '/'],
    ] as const;
    const width = (column: 1 | 2 | 3): number =>
      Math.max(rows[0][column].length, rows[1][column].length);
    for (const row of rows) {
      const numbers = ([1, 2, 3] as const).map((n) => row[n].padStart(width(n))).join(' ');
      yield* io.out.text(`${row[0].padEnd(10)} ${numbers} ${row[4].padStart(8)} ${row[5]}\n`);
    }
    return yield* io.end();
  },
};
