/** A neighbour that hogs: every page that it gets, and every cycle, for a while. */
import { Info, PageKind, Start, Status } from '../../kernel/abi.ts';
import { image, LibOS, type Op } from '../../libos/libos.ts';

const PAGE = 4096;
const WHILE = 3_000_000; // cycles

class Hog extends LibOS {
  override *main(...[, , , , quota = 0]: number[]): Op<void> {
    const pages = yield* this.port.load(Start.infoPage * PAGE + Info.pages * 4);
    let taken = 0;
    for (let page = 0; page < pages; page++) {
      const word = yield* this.port.load(Start.pagePages * PAGE + page * 4);
      if ((word & 0xff) !== PageKind.free) continue;
      if ((yield* this.sys.pageAllocate(page, 0)).status === Status.ok) taken++;
    }
    const end = this.port.cycles() + WHILE;
    while (this.port.cycles() < end) this.port.work(1000) ?? (yield* this.port.fault());
    const more = taken > quota ? 'more than' : 'no more than';
    yield* this.print(`I took ${more} my allotment, and all the time that I got\n`);
  }
}

export default image('hog', (port) => new Hog(port));
