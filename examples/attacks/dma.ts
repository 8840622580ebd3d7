/** Has the disk write into the victim's page: devices go past page tables. */
import { Status } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { HERE, Hostile, hostile, PAGE } from './hostile.ts';

class Dma extends Hostile {
  override *attack(): Op<string | null> {
    yield* this.ownPage(0);
    yield* this.port.store(HERE * PAGE, yield* this.victimPage());
    const list = HERE * PAGE;
    const { status } = yield* this.sys.diskRequest(this.extent, 0, 0, 1, list, 0, 0);
    return status === Status.ok ? "the disk wrote over the victim's page" : null;
  }
}

export default hostile('dma', (port) => new Dma(port));
