/**
 * The page-table walker: Sv39 in one stage, Sv39 over Sv39x4 in two, with A and D bits set by
 * hardware, superpages, and walk caches that can be switched off. Every reference is counted and
 * charged. Without caches a 4 KiB translation takes exactly 3 references on one stage and 15 on
 * two: (n + 1)(m + 1) - 1.
 *
 * RISC-V Privileged Architecture: "Virtual Address Translation Process", "Guest-Page Faults". An
 * implicit access that fails in the second stage reports the original access type and, as
 * guest-physical address, the one that could not be translated.
 *
 * It trusts the tables to be anything at all: a page number beyond memory, a reserved bit, a
 * misaligned superpage or a pointer in the last level is a fault, never an error of the simulator.
 */
import type { Memory } from './memory.ts';
import {
  isLeaf,
  LEVELS,
  PTE_A,
  PTE_D,
  PTE_FLAGS,
  PTE_G,
  PTE_R,
  PTE_U,
  PTE_V,
  PTE_W,
  PTE_X,
  ptePpn,
  vpnIndex,
} from './sv39.ts';
import { FRACTURED } from './tlb.ts';
import { PAGE_BYTES } from './units.ts';

/** Address space and guest that a hart translates for. */
export interface Regime {
  readonly vmid: number; // 0: no guest
  readonly asid: number;
  readonly root: number; // page of the first-stage root (guest-physical in a guest); -1 is Bare
  readonly guestRoot: number; // page of the second-stage root (16 KiB aligned); -1 without a guest
  /** a guest's supervisor in user mode: its accesses, by its direct map, are a user's */
  readonly lowered?: boolean;
}

const POINTERS = 32; // cached non-leaf entries, direct-mapped
const NESTED = 64; // cached second-stage translations

export class Walker {
  readonly #memory: Memory;
  readonly #charge: (references: number) => void;
  readonly #caches: boolean;
  // Page-walk cache: which leaf table (host page) serves 2 MiB of a space.
  readonly #pointerKey = new Float64Array(POINTERS).fill(-1);
  readonly #pointerTable = new Int32Array(POINTERS);
  readonly #pointerGuest = new Int32Array(POINTERS); // the table's guest-physical page
  // Nested TLB: guest-physical page to host page.
  readonly #nestedKey = new Float64Array(NESTED).fill(-1);
  readonly #nestedPpn = new Int32Array(NESTED);
  readonly #nestedWrite = new Uint8Array(NESTED);

  // What the last walk found.
  ppn = 0;
  flags = 0;
  level = 0;
  /** Of a fault: 1 first stage, 2 second stage. */
  faultStage = 0;
  faultGpa = 0;

  #references = 0;
  #gPpn = 0;
  #gFlags = 0;
  #gLevel = 0;

  constructor(memory: Memory, caches: boolean, charge: (references: number) => void) {
    this.#memory = memory;
    this.#caches = caches;
    this.#charge = charge;
  }

  /**
   * Translates `vpn`. True: `ppn`, `flags` and `level` (of the smaller leaf) hold the result.
   * @param user true for user accesses: the leaf must have U, and a supervisor's must not need it
   */
  walk(regime: Regime, vpn: number, write: boolean, user: boolean): boolean {
    this.#references = 0;
    const found =
      regime.root < 0 ? this.#bare(regime, vpn, write) : this.#tables(regime, vpn, write, user);
    this.#charge(this.#references);
    return found;
  }

  /** Forgets cached pointers of a guest (first stage): sfence.vma. */
  fence(vmid: number): void {
    for (let n = 0; n < POINTERS; n++) {
      if (Math.floor((this.#pointerKey[n] ?? -1) / 2 ** 43) === vmid) this.#pointerKey[n] = -1;
    }
  }

  /** Forgets everything that depends on second-stage tables: hfence.gvma. */
  fenceGuest(): void {
    this.#pointerKey.fill(-1);
    this.#nestedKey.fill(-1);
  }

  #bare(regime: Regime, vpn: number, write: boolean): boolean {
    if (regime.guestRoot < 0) {
      this.ppn = vpn;
      this.flags = PTE_V | PTE_R | PTE_W | PTE_A | PTE_D;
      this.level = 2;
      return vpn < this.#memory.pages || this.#fault(1, 0);
    }
    if (!this.#guest(regime, vpn, write)) return this.#fault(2, vpn * PAGE_BYTES);
    this.ppn = this.#gPpn;
    this.flags = this.#gFlags & ~PTE_U;
    this.level = this.#gLevel;
    return true;
  }

  #tables(regime: Regime, vpn: number, write: boolean, user: boolean): boolean {
    const memory = this.#memory;
    const guest = regime.guestRoot >= 0;
    let level = LEVELS - 1;
    let table = regime.root; // guest-physical in a guest, until translated
    let host = -1; // its host page, once known
    const key = (regime.vmid * 65_536 + regime.asid) * 2 ** 27 + (vpn >>> 9);
    const slot = (vpn >>> 9) % POINTERS;
    if (this.#caches && this.#pointerKey[slot] === key) {
      level = 0;
      host = this.#pointerTable[slot] ?? 0;
      table = this.#pointerGuest[slot] ?? 0;
    }
    for (; level >= 0; level--) {
      if (host < 0) {
        if (guest) {
          if (!this.#guest(regime, table, false)) return this.#fault(2, table * PAGE_BYTES);
          host = this.#gPpn;
        } else {
          if (table >= memory.pages) return this.#fault(1, 0);
          host = table;
        }
      }
      if (level === 0 && this.#caches) {
        this.#pointerKey[slot] = key;
        this.#pointerTable[slot] = host;
        this.#pointerGuest[slot] = table;
      }
      const pa = host * PAGE_BYTES + vpnIndex(vpn, level) * 8;
      this.#references++;
      const entry = memory.get(pa) >>> 0;
      const valid = (entry & PTE_V) !== 0 && memory.get(pa + 4) === 0;
      if (!valid || (entry & (PTE_R | PTE_W)) === PTE_W) return this.#fault(1, 0);
      if (!isLeaf(entry)) {
        if (level === 0 || (entry & (PTE_A | PTE_D | PTE_U)) !== 0) return this.#fault(1, 0);
        table = ptePpn(entry);
        host = -1;
        continue;
      }
      return this.#leaf(regime, vpn, write, user, level, table, pa, entry);
    }
    return this.#fault(1, 0);
  }

  #leaf(
    regime: Regime,
    vpn: number,
    write: boolean,
    user: boolean,
    level: number,
    table: number,
    pa: number,
    entry: number,
  ): boolean {
    const span = 1 << (9 * level); // pages
    const base = ptePpn(entry);
    if (base % span !== 0) return this.#fault(1, 0);
    if (user !== ((entry & PTE_U) !== 0)) return this.#fault(1, 0);
    if ((entry & (write ? PTE_W : PTE_R)) === 0) return this.#fault(1, 0);
    const page = base + (vpn % span);
    let flags = entry | PTE_A;
    if (write) flags |= PTE_D;
    if (regime.guestRoot < 0) {
      if (page >= this.#memory.pages) return this.#fault(1, 0);
      this.ppn = page;
      this.level = level;
    } else {
      // Marking A or D is an implicit store to the guest's table, and translated as one.
      const update = flags !== entry;
      if (update && !this.#guest(regime, table, true)) return this.#fault(2, table * PAGE_BYTES);
      if (!this.#guest(regime, page, write)) return this.#fault(2, page * PAGE_BYTES);
      this.ppn = this.#gPpn;
      this.level = Math.min(level, this.#gLevel);
      const writable = (this.#gFlags & (PTE_W | PTE_D)) === (PTE_W | PTE_D);
      if (update) this.#memory.put(pa, flags);
      // Both stages must allow a store without another walk.
      this.flags = flags & (writable ? PTE_FLAGS : PTE_FLAGS & ~PTE_D);
      if (level > this.level) this.flags |= FRACTURED;
      return true;
    }
    if (flags !== entry) this.#memory.put(pa, flags);
    this.flags = flags & PTE_FLAGS;
    return true;
  }

  /** Second stage: guest-physical page to host page. U must be set in every leaf. */
  #guest(regime: Regime, page: number, write: boolean): boolean {
    const key = regime.vmid * 2 ** 29 + page;
    const slot = page % NESTED;
    if (this.#caches && this.#nestedKey[slot] === key) {
      const writable = this.#nestedWrite[slot] === 1;
      if (!write || writable) {
        this.#gPpn = this.#nestedPpn[slot] ?? 0;
        this.#gFlags = PTE_V | PTE_R | PTE_A | (writable ? PTE_W | PTE_D : 0);
        this.#gLevel = 0;
        return true;
      }
    }
    const memory = this.#memory;
    let table = regime.guestRoot;
    // The root is four pages: its index has two bits more.
    let index = page >>> 18;
    if (index >= 2048) return false;
    for (let level = LEVELS - 1; level >= 0; level--) {
      const pa = table * PAGE_BYTES + index * 8;
      this.#references++;
      const entry = memory.get(pa) >>> 0;
      if ((entry & PTE_V) === 0 || memory.get(pa + 4) !== 0) return false;
      if ((entry & (PTE_R | PTE_W)) === PTE_W) return false;
      if (!isLeaf(entry)) {
        if (level === 0) return false;
        table = ptePpn(entry);
        if (table >= memory.pages) return false;
        index = vpnIndex(page, level - 1);
        continue;
      }
      const span = 1 << (9 * level);
      const base = ptePpn(entry);
      if (base % span !== 0 || (entry & PTE_U) === 0) return false;
      if ((entry & (write ? PTE_W : PTE_R)) === 0) return false;
      const found = base + (page % span);
      if (found >= memory.pages) return false;
      let flags = entry | PTE_A;
      if (write) flags |= PTE_D;
      if (flags !== entry) memory.put(pa, flags);
      this.#gPpn = found;
      this.#gFlags = flags;
      this.#gLevel = level;
      if (this.#caches) {
        this.#nestedKey[slot] = key;
        this.#nestedPpn[slot] = this.#gPpn;
        this.#nestedWrite[slot] = (flags & (PTE_W | PTE_D)) === (PTE_W | PTE_D) ? 1 : 0;
      }
      return true;
    }
    return false;
  }

  #fault(stage: number, gpa: number): boolean {
    this.faultStage = stage;
    this.faultGpa = gpa;
    return false;
  }
}

/** The permissions that a TLB entry must keep of what a walk found. */
export const KEPT = PTE_R | PTE_W | PTE_X | PTE_U | PTE_G | PTE_D | FRACTURED;
