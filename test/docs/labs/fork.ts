/** Model solution of lab 3. */
import { Fork, PAGE, PARENT, STORE } from '../../../examples/labs/fork.ts';
import { MAP_READ, MAP_WRITE, Status } from '../../../kernel/abi.ts';
import { image, type Op } from '../../../libos/libos.ts';

class Solved extends Fork {
  override *onFault(cause: number, address: number): Op<boolean> {
    const who = Math.floor(address / PAGE) - PARENT;
    const old = this.at[who];
    if (cause !== STORE || old === undefined) return false;
    const flags = MAP_READ | MAP_WRITE;
    if (this.at[1 - who] !== old) {
      return (yield* this.sys.pageProtect(this.leaf, PARENT + who, 1, flags, 0)).status === 0;
    }
    const copy = yield* this.free.take(0);
    yield* this.sys.pageCopy(copy, 0, 0, old, 0, 0);
    yield* this.sys.pageUnmap(this.leaf, PARENT + who, 1, 0);
    this.at[who] = copy;
    this.copies++;
    const { status } = yield* this.sys.pageMap(this.leaf, PARENT + who, copy, 0, 0, flags, 0);
    return status === Status.ok;
  }
}

export default image('fork', (port) => new Solved(port));
