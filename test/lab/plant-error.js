// Loaded before the command line and before each of its workers: a program that prints one byte
// too many.
import { register } from 'tsx/esm/api';

register({ tsconfig: false });
const { PROGRAMS } = await import('../../libos/unix/programs/index.ts');

const seq = PROGRAMS.find(({ name }) => name === 'seq');
const { main } = seq;
seq.main = function* (process) {
  const at = yield* process.heap(1);
  yield* process.port.store(at, 0x30);
  yield* process.write(1, at, 1);
  return yield* main(process);
};
