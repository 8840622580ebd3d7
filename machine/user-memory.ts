/**
 * A supervisor's accesses to user memory (SUM set), page by page through the user's own mapping:
 * written once for every machine. `locate` translates one user page, or says null where the user
 * itself could not go; it never throws for what a user did.
 */
import type { Hart } from './hart.ts';
import { PAGE_BYTES } from './units.ts';

/** Host page of user virtual page `vpn`, or null. */
export type Locate = (vpn: number, write: boolean) => number | null;

const isAddress = (va: number): boolean => Number.isInteger(va) && va >= 0 && va < 2 ** 32;

export function loadUser(hart: Hart, locate: Locate, va: number): number | null {
  if (!isAddress(va) || va % 4 !== 0) return null;
  hart.countReference('load');
  const page = locate(va >>> 12, false);
  return page === null ? null : hart.memory.get(page * PAGE_BYTES + (va % PAGE_BYTES));
}

export function storeUser(hart: Hart, locate: Locate, va: number, value: number): boolean {
  if (!isAddress(va) || va % 4 !== 0) return false;
  hart.countReference('store');
  const page = locate(va >>> 12, true);
  if (page === null) return false;
  hart.memory.put(page * PAGE_BYTES + (va % PAGE_BYTES), value);
  return true;
}

export function readUser(hart: Hart, locate: Locate, va: number, bytes: number): Uint8Array | null {
  if (!isAddress(va) || !Number.isInteger(bytes) || bytes < 0 || va + bytes > 2 ** 32) return null;
  const copy = new Uint8Array(bytes);
  for (let at = 0; at < bytes;) {
    const from = va + at;
    const part = Math.min(bytes - at, PAGE_BYTES - (from % PAGE_BYTES));
    const page = locate(Math.floor(from / PAGE_BYTES), false);
    if (page === null) return null;
    const start = page * PAGE_BYTES + (from % PAGE_BYTES);
    copy.set(hart.memory.u8.subarray(start, start + part), at);
    hart.charge('user-copy', Math.ceil(part / hart.zeroBytesPerCycle));
    at += part;
  }
  return copy;
}
