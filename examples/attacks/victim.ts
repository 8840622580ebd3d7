/** The victim: a secret on a page and on the disk, looked after once the attack is over. */
import { DISK_WRITE, MAP_READ } from '../../kernel/abi.ts';
import { image, type Op } from '../../libos/libos.ts';
import { countsOf, Transfers } from '../../libos/parts/transfers.ts';
import { HERE, Hostile, LATER, MOVE, PAGE, RW, SECRET } from './hostile.ts';

const COPY = HERE + 2; // where the secret stands too, from MOVE on
const TABLE = HERE + 3; // its own leaf table, to look at
const WINDOW = HERE + 4; // kept for a page that a partner is going to grant

class Victim extends Hostile {
  override *main(...[self = 0, , , leaf = 0, , extent = 0]: number[]): Op<void> {
    this.leaf = leaf;
    const list = yield* this.ownPage(1);
    const page = yield* this.ownPage(0);
    yield* this.sys.pageMap(leaf, TABLE, leaf, 0, 0, MAP_READ, 0);
    yield* this.sys.ipcWindow(leaf, WINDOW, 0);
    yield* this.port.store(HERE * PAGE, SECRET);
    yield* this.port.store((HERE + 1) * PAGE, page);
    const place = { extent, extentSlot: 0, pageSlot: 0, ...countsOf(self) };
    yield* new Transfers(this.sys, place).move(0, 1, (HERE + 1) * PAGE, DISK_WRITE);
    yield* this.until(MOVE);
    const copy = yield* this.free.take(0);
    if (copy >= 0) {
      yield* this.sys.pageMap(leaf, COPY, copy, 0, 0, RW, 0);
      yield* this.port.store(COPY * PAGE, SECRET);
    }
    yield* this.until(LATER);
    // The table first: what the TLB has kept says nothing of what it is now.
    const harm: string[] = [];
    const here = yield* this.#mapped(HERE);
    if (here !== page) harm.push(`its secret is not mapped where it was: ${here || 'nothing'} is`);
    if ((yield* this.#mapped(WINDOW)) !== 0) harm.push("a stranger's page stands in its window");
    if (copy < 0) harm.push('no page left of those it was allotted');
    const kept = yield* this.port.load(HERE * PAGE);
    if (kept !== SECRET || list < 0) harm.push(`${kept} stands where its secret was`);
    const told = harm.map((what) => `HARMED: ${what}\n`).join('');
    yield* this.print(told === '' ? 'unharmed\n' : told);
  }

  /** The page that is mapped there, 0: none. */
  *#mapped(index: number): Op<number> {
    return (yield* this.port.load(TABLE * PAGE + index * 8)) >>> 10;
  }

  override *attack(): Op<string | null> {
    return null;
  }
}

export default image('victim', (port) => new Victim(port));
