/** A neighbour that crashes: it throws in the middle of its work. */
import { image, LibOS, type Op } from '../../libos/libos.ts';

class Crash extends LibOS {
  override *main(): Op<void> {
    yield* this.print('I crash\n');
    throw new Error('a mistake');
  }
}

export default image('crash', (port) => new Crash(port));
