/**
 * The worst number of memory references of each call, whatever its arguments and whatever stands in
 * the tables: what makes a kernel path bounded. The kernel asserts it after every call; a test
 * tries to reach it. Walks of the page tables behind a reference are the machine's and come on top.
 */
import { Call, type CallName } from '../abi.ts';

// Per entry of a list or a range, at most: 50 references of an unmapping (each the last of a
// quarantined page), 17 of a change of flags, 34 of a mapping, 22 of a leaf that is taken away, 18
// of a page of a disk request, 20 of a predicate's term. The rest is counted, with some room.
const WORST: Record<CallName, number> = {
  null: 0,
  yield: 260,
  sleep: 320,
  notify: 30,
  envCreate: 160,
  envStart: 40,
  envDestroy: 80,
  envReap: 460,
  upcallSet: 10,
  pageAllocate: 30,
  pageFree: 80,
  accessAdd: 20,
  accessRemove: 400,
  tableCreate: 120,
  tableDestroy: 460,
  pageMap: 50,
  pageUnmap: 3300,
  pageProtect: 1100,
  capForge: 30,
  capDrop: 25,
  sliceAllocate: 40,
  sliceFree: 40,
  ipcWindow: 15,
  ipcCall: 340,
  ipcReplyWait: 160,
  extentSplit: 3000,
  diskRequest: 700,
  consoleWrite: 10,
  batch: 0, // BATCH_MAX calls, each within its own
  capOffer: 20,
  capAcquire: 25,
  pageMapList: 2200,
  pageCopy: 30,
  pageLimit: 25,
  pageKeep: 35,
  pageSweep: 460,
  envSuspend: 40,
  ipcSend: 120,
  extentJoin: 3000,
  accountCreate: 120,
  accountMove: 40,
  accountClose: 70,
  revoke: 90,
  repossess: 700,
  saveBlock: 40,
};

/** By call number. */
export const REFERENCES: readonly number[] = (() => {
  const bounds: number[] = [];
  for (const [name, worst] of Object.entries(WORST)) bounds[Call[name as CallName]] = worst;
  return bounds;
})();
