/** The victim: a secret on a page and on the disk, looked after once the attack is over. */
import { DISK_WRITE } from '../../kernel/abi.ts';
import { image, type Op } from '../../libos/libos.ts';
import { countsOf, Transfers } from '../../libos/parts/transfers.ts';
import { HERE, Hostile, LATER, PAGE, SECRET } from './hostile.ts';

class Victim extends Hostile {
  override *main(...[self = 0, , , leaf = 0, , extent = 0]: number[]): Op<void> {
    this.leaf = leaf;
    const list = yield* this.ownPage(1);
    const page = yield* this.ownPage(0);
    yield* this.port.store(HERE * PAGE, SECRET);
    yield* this.port.store((HERE + 1) * PAGE, page);
    const place = { extent, extentSlot: 0, pageSlot: 0, ...countsOf(self) };
    yield* new Transfers(this.sys, place).move(0, 1, (HERE + 1) * PAGE, DISK_WRITE);
    yield* this.until(LATER);
    const kept = yield* this.port.load(HERE * PAGE);
    const room = yield* this.free.take(0);
    yield* this.print(kept === SECRET && list >= 0 ? 'unharmed\n' : `HARMED: ${kept}\n`);
    if (room < 0) yield* this.print('HARMED: no page left of those it was allotted\n');
  }

  override *attack(): Op<string | null> {
    return null;
  }
}

export default image('victim', (port) => new Victim(port));
