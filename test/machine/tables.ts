/**
 * Page tables for tests: written straight into a Memory, and walked again by a model that is plain
 * arithmetic from the privileged specification, one stage at a time, on BigInt entries.
 */
import type { Memory } from '../../machine/memory.ts';
import { PTE_A, PTE_D, PTE_R, PTE_U, PTE_V, PTE_W, PTE_X } from '../../machine/sv39.ts';
import { PAGE_BYTES } from '../../machine/units.ts';

/** All of a 64-bit entry. */
export function getEntry(memory: Memory, table: number, index: number): bigint {
  const pa = table * PAGE_BYTES + index * 8;
  return (BigInt(memory.get(pa + 4) >>> 0) << 32n) | BigInt(memory.get(pa) >>> 0);
}

export function putEntry(memory: Memory, table: number, index: number, entry: bigint): void {
  const pa = table * PAGE_BYTES + index * 8;
  memory.put(pa, Number(entry & 0xffffffffn) | 0);
  memory.put(pa + 4, Number((entry >> 32n) & 0xffffffffn) | 0);
}

export const entryOf = (ppn: number, flags: number): bigint => (BigInt(ppn) << 10n) | BigInt(flags);

/** Builds tables by hand: pages come one after another from `next`. */
export class Tables {
  readonly memory: Memory;
  next: number;

  constructor(memory: Memory, next: number) {
    this.memory = memory;
    this.next = next;
  }

  take(count = 1, align = 1): number {
    const first = Math.ceil(this.next / align) * align;
    this.next = first + count;
    return first;
  }

  /** Maps `vpn` at `level` under a first-stage root (or a second-stage one of four pages). */
  map(root: number, vpn: number, ppn: number, flags: number, level = 0): void {
    let table = root;
    for (let at = 2; at > level; at--) {
      const index = at === 2 ? vpn >>> 18 : (vpn >>> (9 * at)) & 511;
      const entry = getEntry(this.memory, table, index);
      if ((entry & 1n) === 0n) {
        const fresh = this.take();
        putEntry(this.memory, table, index, entryOf(fresh, PTE_V));
        table = fresh;
      } else table = Number(entry >> 10n);
    }
    const index = level === 2 ? vpn >>> 18 : (vpn >>> (9 * level)) & 511;
    putEntry(this.memory, table, index, entryOf(ppn, flags));
  }
}

export interface Access {
  readonly write: boolean;
  readonly user: boolean;
}

export type Walked =
  | { readonly ppn: number; readonly stage: 0 }
  | { readonly stage: 1 }
  | { readonly stage: 2; readonly gpa: number };

const bit = (entry: bigint, flag: number): boolean => (entry & BigInt(flag)) !== 0n;

/**
 * "Virtual Address Translation Process", steps 1 to 8, hardware A and D. `reach` finds the host
 * page behind a page that the tables name, for a load or a store; null ends the walk.
 */
function stage(
  memory: Memory,
  root: number,
  vpn: number,
  topIndex: number,
  access: Access,
  reach: (page: number, write: boolean) => number | null,
): number | null {
  let table = root;
  for (let level = 2; level >= 0; level--) {
    const host = reach(table, false);
    if (host === null) return null;
    const index = level === 2 ? topIndex : Math.floor(vpn / 512 ** level) % 512;
    // An index beyond 511 stands in the second to fourth page of a wide root.
    const [at, slot] = [host + Math.floor(index / 512), index % 512];
    if (at >= memory.pages) return null;
    const entry = getEntry(memory, at, slot);
    // Bits 54 up are reserved; of the page number, bits 32 up name nothing here (sv39.ts): a fault.
    if (!bit(entry, PTE_V) || entry >> 32n !== 0n) return null;
    if (!bit(entry, PTE_R) && bit(entry, PTE_W)) return null;
    const ppn = Number(entry >> 10n);
    if (!bit(entry, PTE_R | PTE_X)) {
      if (level === 0 || bit(entry, PTE_A | PTE_D | PTE_U)) return null;
      table = ppn;
      continue;
    }
    if (!bit(entry, access.write ? PTE_W : PTE_R)) return null;
    if (bit(entry, PTE_U) !== access.user) return null;
    const span = 512 ** level;
    if (ppn % span !== 0) return null;
    const page = ppn + (vpn % span);
    if (reach(page, access.write) === null) return null;
    const updated = entry | BigInt(PTE_A | (access.write ? PTE_D : 0));
    if (updated !== entry) {
      if (reach(table, true) === null) return null;
      putEntry(memory, at, slot, updated);
    }
    return page;
  }
  return null;
}

/** One stage over memory. Changes A and D bits in `memory`, as hardware does. */
export function walkOnce(memory: Memory, root: number, vpn: number, access: Access): Walked {
  const inside = (page: number): number | null => (page < memory.pages ? page : null);
  const ppn = stage(memory, root, vpn, Math.floor(vpn / 2 ** 18) % 512, access, inside);
  return ppn === null ? { stage: 1 } : { stage: 0, ppn };
}

/** Two stages. What the second stage refuses is its fault, with the guest's address. */
export function walkTwice(
  memory: Memory,
  root: number,
  guestRoot: number,
  vpn: number,
  access: Access,
): Walked {
  let refused: number | null = null;
  const inside = (page: number): number | null => (page < memory.pages ? page : null);
  const second = (page: number, write: boolean): number | null => {
    const top = Math.floor(page / 2 ** 18);
    const user = { write, user: true };
    const host = top >= 2048 ? null : stage(memory, guestRoot, page, top, user, inside);
    if (host === null) refused = page * PAGE_BYTES;
    return host;
  };
  const index = Math.floor(vpn / 2 ** 18) % 512;
  const page = root < 0 ? vpn : stage(memory, root, vpn, index, access, second);
  if (refused !== null) return { stage: 2, gpa: refused };
  if (page === null) return { stage: 1 };
  const host = second(page, access.write);
  return host === null ? { stage: 2, gpa: page * PAGE_BYTES } : { stage: 0, ppn: host };
}
