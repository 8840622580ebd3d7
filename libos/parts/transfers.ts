/**
 * Disk transfers, one after another: queues a request, sleeps until it is complete, says whether it
 * worked. It promises that a transfer that returned true has moved every block of it, and that one
 * that returned false may have moved any part; what is durable is the flags' affair. It trusts its
 * environment to make no other requests meanwhile, or success and failure could not be told apart.
 */
import { Env, envIndex, Start, Status } from '../../kernel/abi.ts';
import type { Op, Syscalls } from '../syscalls.ts';

export interface DiskPlace {
  readonly extent: number;
  readonly extentSlot: number;
  /** block of the extent that is block 0 here; default 0 */
  readonly base?: number;
  readonly pageSlot: number;
  /** addresses of our own diskDone, diskFailed and event counts in the exposed table */
  readonly done: number;
  readonly failed: number;
  readonly events: number;
}

/** Where environment `self` finds its own counts, if the exposed table stands where Start says. */
export function countsOf(self: number): Pick<DiskPlace, 'done' | 'failed' | 'events'> {
  const row = Start.envPages * 4096 + envIndex(self) * Env.words * 4;
  return {
    done: row + Env.diskDone * 4,
    failed: row + Env.diskFailed * 4,
    events: row + Env.events * 4,
  };
}

export class Transfers {
  readonly #sys: Syscalls;
  readonly #place: DiskPlace;

  constructor(sys: Syscalls, place: DiskPlace) {
    this.#sys = sys;
    this.#place = place;
  }

  /**
   * Moves `count` blocks from block `block` on, to or from the pages whose words
   * stand at `list`; `flags` as of diskRequest. False: the disk failed it, or it was refused.
   */
  *move(block: number, count: number, list: number, flags: number): Op<boolean> {
    const { extent, extentSlot, base = 0, pageSlot, done, failed, events } = this.#place;
    const { port } = this.#sys;
    const before = yield* port.load(failed);
    let ticket = 0;
    for (;;) {
      const seen = yield* port.load(events);
      const { status, value } = yield* this.#sys.diskRequest(
        extent,
        extentSlot,
        base + block,
        count,
        list,
        pageSlot,
        flags,
      );
      ticket = value;
      if (status === Status.ok) break;
      if (status !== Status.full) return false;
      yield* this.#sys.sleep(seen); // somebody's completion makes room
    }
    for (;;) {
      const seen = yield* port.load(events);
      if ((yield* port.load(done)) - ticket >= 0) break;
      yield* this.#sys.sleep(seen);
    }
    return (yield* port.load(failed)) === before;
  }
}
