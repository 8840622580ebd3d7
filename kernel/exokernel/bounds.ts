/**
 * The worst number of memory references of each call, whatever its arguments and whatever stands in
 * the tables: what makes a kernel path bounded. The kernel asserts it after every call; a test
 * drives each call to within a tenth of it, so it is not generous. Walks of the page tables behind
 * a reference are the machine's and come on top.
 */
import { Call, type CallName } from '../abi.ts';

// Per entry of a list or a range, at most: 36 of an unmapping (each the last of a quarantined page
// that is asked for), 11 of a change of flags, 21 of a mapping, 18 of a leaf that is taken away by
// force, 12 of a page of a disk request, 25 of a predicate's term that is slept with. A check of a
// capability takes 5, a row of the extent table 12, another environment of a chain of calls 6.
const WORST: Record<CallName, number> = {
  null: 0,
  yield: 160,
  sleep: 228,
  notify: 18,
  envCreate: 100,
  envStart: 18,
  envDestroy: 28,
  envReap: 272,
  upcallSet: 3,
  pageAllocate: 19,
  pageFree: 52,
  accessAdd: 13,
  accessRemove: 304,
  tableCreate: 75,
  tableDestroy: 256,
  pageMap: 36,
  pageUnmap: 2400,
  pageProtect: 770,
  capForge: 15,
  capDrop: 12,
  sliceAllocate: 32,
  sliceFree: 20,
  ipcWindow: 7,
  ipcCall: 170,
  ipcReplyWait: 78,
  extentSplit: 1500,
  diskRequest: 480,
  consoleWrite: 2,
  batch: 256, // words of its records; its calls are each within their own
  capOffer: 9,
  capAcquire: 17,
  pageMapList: 1370,
  pageCopy: 16,
  pageLimit: 11,
  pageKeep: 22,
  pageSweep: 330,
  envSuspend: 18,
  ipcSend: 64,
  extentJoin: 1500,
  accountCreate: 84,
  accountMove: 17,
  accountClose: 43,
  revoke: 52,
  repossess: 420,
  saveBlock: 17,
  consoleRead: 2,
};

/** By call number. */
export const REFERENCES: readonly number[] = (() => {
  const bounds: number[] = [];
  for (const [name, worst] of Object.entries(WORST)) bounds[Call[name as CallName]] = worst;
  return bounds;
})();
