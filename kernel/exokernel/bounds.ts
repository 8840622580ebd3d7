/**
 * The worst number of memory references of each call, whatever its arguments and whatever stands in
 * the tables: what makes a kernel path bounded. The kernel asserts it after every call; a test tries
 * to reach it. Walks of the page tables behind a reference are the machine's and come on top.
 */
import { Call, type CallName } from '../abi.ts';

const WORST: Record<CallName, number> = {
  null: 0,
  yield: 4000,
  sleep: 4000,
  notify: 4000,
  envCreate: 4000,
  envStart: 4000,
  envDestroy: 4000,
  envReap: 4000,
  upcallSet: 4000,
  pageAllocate: 4000,
  pageFree: 4000,
  accessAdd: 4000,
  accessRemove: 4000,
  tableCreate: 4000,
  tableDestroy: 4000,
  pageMap: 4000,
  pageUnmap: 4000,
  pageProtect: 4000,
  capForge: 4000,
  capDrop: 4000,
  sliceAllocate: 4000,
  sliceFree: 4000,
  ipcWindow: 4000,
  ipcCall: 4000,
  ipcReplyWait: 4000,
  extentSplit: 4000,
  diskRequest: 4000,
  consoleWrite: 4000,
  batch: 0, // BATCH_MAX calls, each within its own
  capOffer: 4000,
  capAcquire: 4000,
  pageMapList: 4000,
  pageCopy: 4000,
  pageLimit: 4000,
  pageKeep: 4000,
  pageSweep: 4000,
  envSuspend: 4000,
  ipcSend: 4000,
  extentJoin: 4000,
  accountCreate: 4000,
  accountMove: 4000,
  accountClose: 4000,
  revoke: 4000,
  repossess: 4000,
  saveBlock: 4000,
};

/** By call number. */
export const REFERENCES: readonly number[] = (() => {
  const bounds: number[] = [];
  for (const [name, worst] of Object.entries(WORST)) bounds[Call[name as CallName]] = worst;
  return bounds;
})();
