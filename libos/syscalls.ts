/**
 * Typed stubs of the kernel interface: one method per call, the same on every kernel. They trust
 * the kernel's answer and add nothing to it. A refusal is a value: check `status`.
 */
import { BATCH_MAX, Call, type Name } from '../kernel/abi.ts';
import type { CallResult, Op, UserPort } from '../machine/user-port.ts';

export type { CallResult, Op, UserPort };

/** Memory that a batch is written to. */
export const BATCH_BYTES = 512;

/** A page to grant with a message: which, by which slot of ours, what rights, as which entry. */
export interface Grant {
  readonly page: number;
  readonly slot: number;
  readonly rights: number;
  readonly entry: number;
}

/** What ipcCall and ipcReplyWait deliver. */
export interface Message {
  readonly status: number;
  readonly from: number; // environment id, the kernel's word
  readonly words: readonly [number, number, number, number];
  /** index in the window's table at which a granted page stands, or -1 */
  readonly granted: number;
}

export class Syscalls {
  readonly port: UserPort;

  constructor(port: UserPort) {
    this.port = port;
  }

  nullCall(): Op<CallResult> {
    return this.port.call(Call.null);
  }
  /** Gives the rest of the slice to `env`, or back (-1). */
  yieldTo(env: number): Op<CallResult> {
    return this.port.call(Call.yield, env);
  }
  /**
   * Waits until the event count differs from `seen`, `cycles` have passed (-1: for ever), or the
   * predicate of `terms` terms at `address` holds. Result registers 1 and 2 say why.
   */
  sleep(seen: number, cycles = -1, address = 0, terms = 0): Op<CallResult> {
    return this.port.call(Call.sleep, seen, cycles, address, terms);
  }
  notify(env: number, slot: number): Op<CallResult> {
    return this.port.call(Call.notify, env, slot);
  }
  envCreate(
    index: number,
    root: number,
    slot: number,
    name: Name,
    patron: number,
    account = -1,
  ): Op<CallResult> {
    return this.port.call(Call.envCreate, index, root, slot, name.a, name.b, patron, account);
  }
  envStart(
    env: number,
    image: number,
    entry: number,
    args: readonly [number, number],
    slot: number,
  ): Op<CallResult> {
    return this.port.call(Call.envStart, env, image, entry, args[0], args[1], slot);
  }
  envSuspend(env: number, slot: number, suspended: 0 | 1): Op<CallResult> {
    return this.port.call(Call.envSuspend, env, slot, suspended);
  }
  envDestroy(env: number, slot: number, exitStatus: number): Op<CallResult> {
    return this.port.call(Call.envDestroy, env, slot, exitStatus);
  }
  envReap(env: number, slot: number): Op<CallResult> {
    return this.port.call(Call.envReap, env, slot);
  }
  upcallSet(kind: number, entry: number, frame: number): Op<CallResult> {
    return this.port.call(Call.upcallSet, kind, entry, frame);
  }
  pageAllocate(page: number, slot: number): Op<CallResult> {
    return this.port.call(Call.pageAllocate, page, slot);
  }
  pageFree(page: number, slot: number): Op<CallResult> {
    return this.port.call(Call.pageFree, page, slot);
  }
  accessAdd(page: number, slot: number, entry: number, name: Name, rights: number): Op<CallResult> {
    return this.port.call(Call.accessAdd, page, slot, entry, name.a, name.b, rights);
  }
  accessRemove(page: number, slot: number, entry: number): Op<CallResult> {
    return this.port.call(Call.accessRemove, page, slot, entry);
  }
  tableCreate(
    parent: number,
    index: number,
    page: number,
    slot: number,
    ledgers: readonly [number, number],
    envSlot: number,
  ): Op<CallResult> {
    const [first, second] = ledgers;
    return this.port.call(Call.tableCreate, parent, index, page, slot, first, second, envSlot);
  }
  tableDestroy(table: number, envSlot: number): Op<CallResult> {
    return this.port.call(Call.tableDestroy, table, envSlot);
  }
  pageMap(
    table: number,
    index: number,
    page: number,
    slot: number,
    entry: number,
    flags: number,
    envSlot: number,
  ): Op<CallResult> {
    return this.port.call(Call.pageMap, table, index, page, slot, entry, flags, envSlot);
  }
  pageUnmap(table: number, index: number, count: number, envSlot: number): Op<CallResult> {
    return this.port.call(Call.pageUnmap, table, index, count, envSlot);
  }
  pageProtect(
    table: number,
    index: number,
    count: number,
    flags: number,
    envSlot: number,
  ): Op<CallResult> {
    return this.port.call(Call.pageProtect, table, index, count, flags, envSlot);
  }
  /** Maps `count` pages whose words (page | access entry << 28) stand at `list`. */
  pageMapList(
    table: number,
    index: number,
    count: number,
    list: number,
    slot: number,
    flags: number,
    envSlot: number,
  ): Op<CallResult> {
    return this.port.call(Call.pageMapList, table, index, count, list, slot, flags, envSlot);
  }
  pageCopy(
    to: number,
    toSlot: number,
    toEntry: number,
    from: number,
    fromSlot: number,
    fromEntry: number,
  ): Op<CallResult> {
    return this.port.call(Call.pageCopy, to, toSlot, toEntry, from, fromSlot, fromEntry);
  }
  pageLimit(page: number, slot: number, leaves: number, writers: number): Op<CallResult> {
    return this.port.call(Call.pageLimit, page, slot, leaves, writers);
  }
  pageKeep(page: number, slot: number, keep: 0 | 1): Op<CallResult> {
    return this.port.call(Call.pageKeep, page, slot, keep);
  }
  pageSweep(page: number): Op<CallResult> {
    return this.port.call(Call.pageSweep, page);
  }
  capForge(env: number, there: number, here: number, name: Name, rights: number): Op<CallResult> {
    return this.port.call(Call.capForge, env, there, here, name.a, name.b, rights);
  }
  capDrop(env: number, there: number, here: number): Op<CallResult> {
    return this.port.call(Call.capDrop, env, there, here);
  }
  capOffer(env: number, slot: number, name: Name, rights: number): Op<CallResult> {
    return this.port.call(Call.capOffer, env, slot, name.a, name.b, rights);
  }
  capAcquire(env: number, slot: number): Op<CallResult> {
    return this.port.call(Call.capAcquire, env, slot);
  }
  sliceAllocate(position: number, env: number, slot: number): Op<CallResult> {
    return this.port.call(Call.sliceAllocate, position, env, slot);
  }
  sliceFree(position: number, slot: number): Op<CallResult> {
    return this.port.call(Call.sliceFree, position, slot);
  }
  ipcWindow(table: number, index: number, slot: number): Op<CallResult> {
    return this.port.call(Call.ipcWindow, table, index, slot);
  }
  ipcCall(env: number, words: readonly number[], grant: Grant | null = null): Op<Message> {
    return this.#message(Call.ipcCall, env, words, grant);
  }
  ipcReplyWait(env: number, words: readonly number[], grant: Grant | null = null): Op<Message> {
    return this.#message(Call.ipcReplyWait, env, words, grant);
  }
  /** Tells `env`, which waits for a message, and gives it the rest of the slice; does not wait. */
  ipcSend(env: number, words: readonly number[], grant: Grant | null = null): Op<Message> {
    return this.#message(Call.ipcSend, env, words, grant);
  }
  extentSplit(
    extent: number,
    slot: number,
    fresh: number,
    blocks: number,
    name: Name,
  ): Op<CallResult> {
    return this.port.call(Call.extentSplit, extent, slot, fresh, blocks, name.a, name.b);
  }
  extentJoin(extent: number, slot: number, neighbour: number): Op<CallResult> {
    return this.port.call(Call.extentJoin, extent, slot, neighbour);
  }
  saveBlock(place: number, extent: number, slot: number, block: number): Op<CallResult> {
    return this.port.call(Call.saveBlock, place, extent, slot, block);
  }
  accountCreate(
    account: number,
    parent: number,
    slot: number,
    name: Name,
    minimum: number,
  ): Op<CallResult> {
    return this.port.call(Call.accountCreate, account, parent, slot, name.a, name.b, minimum);
  }
  accountMove(
    from: number,
    to: number,
    slot: number,
    resource: number,
    amount: number,
  ): Op<CallResult> {
    return this.port.call(Call.accountMove, from, to, slot, resource, amount);
  }
  accountClose(account: number, slot: number): Op<CallResult> {
    return this.port.call(Call.accountClose, account, slot);
  }
  /** Asks `account` for `count` pages of the range within `cycles`, in favour of `taker`. */
  revoke(
    account: number,
    slot: number,
    taker: number,
    range: { readonly first: number; readonly pages: number },
    count: number,
    cycles: number,
  ): Op<CallResult> {
    const { first, pages } = range;
    return this.port.call(Call.revoke, account, slot, taker, first, pages, count, cycles);
  }
  repossess(account: number, slot: number, page: number): Op<CallResult> {
    return this.port.call(Call.repossess, account, slot, page);
  }
  diskRequest(
    extent: number,
    slot: number,
    block: number,
    count: number,
    list: number,
    pageSlot: number,
    flags: number,
  ): Op<CallResult> {
    return this.port.call(Call.diskRequest, extent, slot, block, count, list, pageSlot, flags);
  }
  /**
   * Several calls in one crossing: lists of call number and arguments, written to `scratch` first
   * (BATCH_BYTES of our memory). Stops at the first that is refused; returns how many were done.
   */
  *batch(scratch: number, calls: readonly (readonly number[])[]): Op<number> {
    let from = 0;
    while (from < calls.length) {
      const words: number[] = [];
      let count = 0;
      for (const call of calls.slice(from, from + BATCH_MAX)) {
        if ((words.length + call.length) * 4 > BATCH_BYTES) break;
        words.push(...call);
        count++;
      }
      const bytes = new Uint8Array(Int32Array.from(words).buffer);
      if (this.port.write(scratch, bytes, 0, bytes.length) === undefined) yield* this.port.fault();
      const { status, value } = yield* this.port.call(Call.batch, scratch, count);
      if (status !== 0) return from + value;
      from += count;
    }
    return from;
  }
  consoleWrite(address: number, bytes: number): Op<CallResult> {
    return this.port.call(Call.consoleWrite, address, bytes);
  }
  /** What has been typed and not yet been taken: at most 16 bytes. */
  *consoleRead(): Op<Uint8Array> {
    const { value } = yield* this.port.call(Call.consoleRead);
    const words = Int32Array.from([1, 2, 3, 4], (n) => this.port.result(n));
    return new Uint8Array(words.buffer).subarray(0, value);
  }

  *#message(call: number, env: number, words: readonly number[], grant: Grant | null): Op<Message> {
    const word = (n: number): number => words[n] ?? 0;
    const given =
      grant === null ? [-1, 0, 0] : [grant.page, grant.slot, grant.rights | (grant.entry << 8)];
    const [page, slot, rights] = given as [number, number, number];
    const { port } = this;
    const { status, value } = yield* port.call(
      call,
      env,
      word(0),
      word(1),
      word(2),
      word(3),
      page,
      slot,
      rights,
    );
    const got = (n: number): number => port.result(n);
    return {
      status,
      from: value,
      words: [got(1), got(2), got(3), got(4)],
      granted: got(5) - 1,
    };
  }
}
