/**
 * Sv39 page-table entries, as the RISC-V Privileged Architecture has them (section "Sv39:
 * Page-Based 39-bit Virtual-Memory System"; G-stage: "Two-Stage Address Translation").
 *
 *      63      54 53                    10 9   8 7 6 5 4 3 2 1 0
 *     | must be 0 | physical page number  | RSW |D|A|G|U|X|W|R|V|
 *
 * A machine here has at most 4 GiB, so a page number fits into bits 10 to 31 and the whole of the
 * upper word must be zero: an entry with any of it set faults. RSW belongs to software.
 */

export const PTE_V = 1 << 0;
export const PTE_R = 1 << 1;
export const PTE_W = 1 << 2;
export const PTE_X = 1 << 3;
export const PTE_U = 1 << 4;
export const PTE_G = 1 << 5;
export const PTE_A = 1 << 6;
export const PTE_D = 1 << 7;
export const PTE_FLAGS = 0x3ff;

export const ENTRIES = 512; // per table
export const LEVELS = 3; // root is level 2, leaf table level 0

/** The direct map: supervisor virtual page = DIRECT_VPN + physical page (root entries 256 up). */
export const DIRECT_VPN = 1 << 26;
export const DIRECT_INDEX = 256;
export const GIGAPAGE_PAGES = 1 << 18;
export const MEGAPAGE_PAGES = 1 << 9;

export const pte = (ppn: number, flags: number): number => ((ppn << 10) | flags) >>> 0;
export const ptePpn = (entry: number): number => entry >>> 10;
export const isLeaf = (entry: number): boolean => (entry & (PTE_R | PTE_W | PTE_X)) !== 0;

/** The table index that virtual page `vpn` uses at `level`. */
export const vpnIndex = (vpn: number, level: number): number => (vpn >>> (9 * level)) & 511;
