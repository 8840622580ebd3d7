/**
 * The TLB: 4 KiB entries in sets, superpages beside them, all tagged with VMID and ASID. It holds
 * what walks found and knows nothing of page tables. A direct-mapped 512-entry second level with a
 * small first level is usual on small RISC-V cores; sets and ways here are a parameter, 0 included,
 * because no result of a program may depend on them.
 */
import { GIGAPAGE_PAGES, MEGAPAGE_PAGES, PTE_G } from './sv39.ts';

/** A guest's number and an address space's number in one tag: VMID 0 is the host. */
export const spaceTag = (vmid: number, asid: number): number => (vmid << 16) | asid;

const EMPTY = -1;
/** Of an entry's flags: a part of a first-stage superpage that the second stage splits. */
export const FRACTURED = 1 << 12;
const SUPERPAGES = 16; // entries, fully associative

export class Tlb {
  readonly #sets: number; // a power of two, or 0: no TLB
  readonly #ways: number;
  readonly #vpn: Int32Array; // [sets × ways] virtual page, EMPTY if unused
  readonly #space: Int32Array; // [sets × ways] VMID << 16 | ASID
  readonly #flags: Int32Array; // [sets × ways] PTE flags, both stages combined
  readonly #ppn: Int32Array; // [sets × ways] host physical page
  readonly #next: Uint8Array; // [sets] way to replace next
  readonly #superVpn = new Int32Array(SUPERPAGES).fill(EMPTY); // first page of the superpage
  readonly #superPages = new Int32Array(SUPERPAGES); // pages it covers
  readonly #superSpace = new Int32Array(SUPERPAGES);
  readonly #superFlags = new Int32Array(SUPERPAGES);
  readonly #superPpn = new Int32Array(SUPERPAGES);
  #superNext = 0;
  #superUsed = false;
  #fractured = false;

  /** Of the entry that `find` found. */
  ppn = 0;
  flags = 0;

  constructor(sets: number, ways: number) {
    this.#sets = sets;
    this.#ways = ways;
    const n = sets * ways;
    this.#vpn = new Int32Array(n).fill(EMPTY);
    this.#space = new Int32Array(n);
    this.#flags = new Int32Array(n);
    this.#ppn = new Int32Array(n);
    this.#next = new Uint8Array(sets);
  }

  /** Looks `vpn` up in `space`; on a hit `ppn` and `flags` hold the translation. */
  find(vpn: number, space: number): boolean {
    if (this.#sets === 0) return false;
    const first = (vpn & (this.#sets - 1)) * this.#ways;
    for (let n = first; n < first + this.#ways; n++) {
      if (this.#vpn[n] === vpn && this.#matches(this.#space[n] ?? 0, this.#flags[n] ?? 0, space)) {
        this.ppn = this.#ppn[n] ?? 0;
        this.flags = this.#flags[n] ?? 0;
        return true;
      }
    }
    if (!this.#superUsed) return false;
    for (let n = 0; n < SUPERPAGES; n++) {
      const start = this.#superVpn[n] ?? EMPTY;
      if (start === EMPTY || vpn < start || vpn >= start + (this.#superPages[n] ?? 0)) continue;
      if (!this.#matches(this.#superSpace[n] ?? 0, this.#superFlags[n] ?? 0, space)) continue;
      this.ppn = (this.#superPpn[n] ?? 0) + (vpn - start);
      this.flags = this.#superFlags[n] ?? 0;
      return true;
    }
    return false;
  }

  /**
   * Adds a translation and returns the virtual page that lost its entry, or -1.
   * @param level of the smaller of the two stages' leaves: 0 is 4 KiB, 1 is 2 MiB, 2 is 1 GiB
   */
  fill(vpn: number, space: number, ppn: number, flags: number, level: number): number {
    if (this.#sets === 0) return EMPTY;
    if (level > 0) {
      const pages = level === 1 ? MEGAPAGE_PAGES : GIGAPAGE_PAGES;
      const start = vpn - (vpn % pages);
      let n = this.#superVpn.findIndex(
        (first, k) => first === start && this.#superSpace[k] === space,
      );
      if (n < 0) {
        n = this.#superNext;
        this.#superNext = (n + 1) % SUPERPAGES;
      }
      const lost = this.#superVpn[n] ?? EMPTY;
      this.#superVpn[n] = start;
      this.#superPages[n] = pages;
      this.#superSpace[n] = space;
      this.#superFlags[n] = flags;
      this.#superPpn[n] = ppn - (vpn - start);
      this.#superUsed = true;
      return lost;
    }
    const set = vpn & (this.#sets - 1);
    const first = set * this.#ways;
    let n = -1;
    for (let way = first; way < first + this.#ways; way++) {
      if (this.#vpn[way] === vpn && this.#space[way] === space) n = way;
    }
    if (n < 0) {
      const way = this.#next[set] ?? 0;
      this.#next[set] = way + 1 === this.#ways ? 0 : way + 1;
      n = first + way;
    }
    if ((flags & FRACTURED) !== 0) this.#fractured = true;
    const lost = this.#vpn[n] ?? EMPTY;
    this.#vpn[n] = vpn;
    this.#space[n] = space;
    this.#flags[n] = flags;
    this.#ppn[n] = ppn;
    return lost;
  }

  /** False: there is no TLB, and nobody may keep copies of what it would hold. */
  get exists(): boolean {
    return this.#sets > 0;
  }

  /**
   * sfence.vma with an address: all sizes, global entries included if `asid` is null. True if a
   * superpage went, and with it translations of other pages.
   */
  dropPage(vpn: number, vmid: number, asid: number | null): boolean {
    let superpage = false;
    if (this.#sets === 0) return superpage;
    if (this.#fractured) superpage = this.#dropFractured(vpn, vmid, asid);
    const first = (vpn & (this.#sets - 1)) * this.#ways;
    for (let n = first; n < first + this.#ways; n++) {
      if (
        this.#vpn[n] === vpn &&
        this.#named(this.#space[n] ?? 0, this.#flags[n] ?? 0, vmid, asid)
      ) {
        this.#vpn[n] = EMPTY;
      }
    }
    for (let n = 0; n < SUPERPAGES; n++) {
      const start = this.#superVpn[n] ?? EMPTY;
      if (start === EMPTY || vpn < start || vpn >= start + (this.#superPages[n] ?? 0)) continue;
      if (this.#named(this.#superSpace[n] ?? 0, this.#superFlags[n] ?? 0, vmid, asid)) {
        this.#superVpn[n] = EMPTY;
        superpage = true;
      }
    }
    return superpage;
  }

  /** One address of a split superpage stands for all of them. */
  #dropFractured(vpn: number, vmid: number, asid: number | null): boolean {
    let dropped = false;
    for (let n = 0; n < this.#vpn.length; n++) {
      const flags = this.#flags[n] ?? 0;
      const near = ((this.#vpn[n] ?? EMPTY) ^ vpn) >>> 18 === 0; // no superpage is larger
      if ((flags & FRACTURED) === 0 || !near) continue;
      if (!this.#named(this.#space[n] ?? 0, flags, vmid, asid)) continue;
      dropped ||= this.#vpn[n] !== EMPTY;
      this.#vpn[n] = EMPTY;
    }
    return dropped;
  }

  /** sfence.vma without an address: one address space of a guest (or the host), or all of them. */
  dropSpace(vmid: number, asid: number | null): void {
    for (let n = 0; n < this.#vpn.length; n++) {
      if (this.#named(this.#space[n] ?? 0, this.#flags[n] ?? 0, vmid, asid)) this.#vpn[n] = EMPTY;
    }
    for (let n = 0; n < SUPERPAGES; n++) {
      if (this.#named(this.#superSpace[n] ?? 0, this.#superFlags[n] ?? 0, vmid, asid)) {
        this.#superVpn[n] = EMPTY;
      }
    }
  }

  /** Everything. */
  clear(): void {
    this.#vpn.fill(EMPTY);
    this.#superVpn.fill(EMPTY);
    this.#superUsed = false;
  }

  /** All entries, for tests that hold the TLB against the tables. */
  *entries(): Generator<{ vpn: number; space: number; ppn: number; flags: number; pages: number }> {
    for (let n = 0; n < this.#vpn.length; n++) {
      const vpn = this.#vpn[n] ?? EMPTY;
      if (vpn === EMPTY) continue;
      const [space, ppn, flags] = [this.#space[n] ?? 0, this.#ppn[n] ?? 0, this.#flags[n] ?? 0];
      yield { vpn, space, ppn, flags, pages: 1 };
    }
    for (let n = 0; n < SUPERPAGES; n++) {
      const vpn = this.#superVpn[n] ?? EMPTY;
      if (vpn === EMPTY) continue;
      const pages = this.#superPages[n] ?? 0;
      const [space, ppn] = [this.#superSpace[n] ?? 0, this.#superPpn[n] ?? 0];
      yield { vpn, space, ppn, flags: this.#superFlags[n] ?? 0, pages };
    }
  }

  /** A global entry serves every ASID of its VMID. */
  #matches(space: number, flags: number, wanted: number): boolean {
    if (space === wanted) return true;
    return (flags & PTE_G) !== 0 && space >>> 16 === wanted >>> 16;
  }

  /** Fences that name an ASID spare global entries. */
  #named(space: number, flags: number, vmid: number, asid: number | null): boolean {
    if (space >>> 16 !== vmid) return false;
    return asid === null || ((space & 0xffff) === asid && (flags & PTE_G) === 0);
  }
}
