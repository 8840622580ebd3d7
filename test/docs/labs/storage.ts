/** Model solution of lab 5. */
import { BUFFER, LIST, Storage } from '../../../examples/labs/storage.ts';
import { DISK_FORCE, DISK_WRITE } from '../../../kernel/abi.ts';
import { image, type Op } from '../../../libos/libos.ts';

class Solved extends Storage {
  override *save(block: number, value: number): Op<void> {
    yield* this.port.store(BUFFER, value);
    if (this.disk !== null) yield* this.disk.move(block, 1, LIST, DISK_WRITE | DISK_FORCE);
  }

  override *read(block: number): Op<number> {
    if (this.disk !== null) yield* this.disk.move(block, 1, LIST, 0);
    return yield* this.port.load(BUFFER);
  }
}

export default image('storage', (port) => new Solved(port));
