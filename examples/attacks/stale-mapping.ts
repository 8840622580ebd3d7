/** Frees a page, and goes on reading it by the mapping that it had, when the victim has it. */
import { Status } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { HERE, Hostile, hostile, MOVE, PAGE, RW, SECRET } from './hostile.ts';

class StaleMapping extends Hostile {
  override *attack(): Op<string | null> {
    const victims = yield* this.victimPage();
    let page = yield* this.free.take(0);
    while (page < victims) page = yield* this.free.take(0); // the victim looks behind its own
    yield* this.sys.pageMap(this.leaf, HERE, page, 0, 0, RW, 0);
    yield* this.port.load(HERE * PAGE); // the TLB has it from now on
    yield* this.catchFaults();
    yield* this.sys.pageUnmap(this.leaf, HERE, 1, 0);
    if ((yield* this.sys.pageFree(page, 0)).status !== Status.ok) return null;
    yield* this.until(MOVE + 1_000_000);
    const got = yield* this.port.load(HERE * PAGE);
    return got === SECRET ? 'it read the secret by a mapping that is gone' : null;
  }

  /** Nothing is mapped there: something else, so that the load ends. */
  override *onFault(): Op<boolean> {
    yield* this.ownPage(0);
    return true;
  }
}

export default hostile('stale-mapping', (port) => new StaleMapping(port));
