/**
 * What host code owes the clock: cycles for each byte, line or comparison that TypeScript works on
 * outside simulated memory. One published table, the same in every mode. All are choices for a
 * small in-order core, rounded; they cancel in every ratio between modes, and shift all of them
 * towards 1.
 */
export const WORK = {
  /** looking at each byte once: counting lines, searching for a delimiter */
  scanByte: 1,
  /** searching for a fixed string */
  searchByte: 1,
  /** SHA-256, portable C */
  sha256Byte: 12,
  /** one comparison of two lines, beside their bytes */
  compare: 10,
  /** each byte that a comparison looked at */
  compareByte: 1,
  /** formatting one line of output, beside its bytes */
  formatLine: 40,
  /** a command of a shell: its tree walked, its words made, what it is looked up */
  command: 500,
} as const;
