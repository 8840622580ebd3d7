/**
 * CRC-32C (Castagnoli; RFC 3720, appendix B.4): finds every burst of up to 32 flipped bits, and any
 * other damage but for one in 2^32. It keeps nobody out who means harm. Whoever takes the checksum
 * of bytes that host code holds owes the clock CRC_CYCLES for each.
 */

/** Cycles a byte: choice, table-driven by bytes: a load, an exclusive or, a shift, the loop. */
export const CRC_CYCLES = 2;

const POLYNOMIAL = 0x82f63b78;

const TABLE: Int32Array = Int32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ POLYNOMIAL : value >>> 1;
  return value;
});

/** Goes on from checksum `sum` (0 to begin with) over bytes `from` to `to` of the array. */
export function crc32c(sum: number, bytes: Uint8Array, from = 0, to = bytes.length): number {
  let value = ~sum;
  for (let n = from; n < to; n++) {
    value = (TABLE[(value ^ (bytes[n] ?? 0)) & 0xff] ?? 0) ^ (value >>> 8);
  }
  return ~value;
}
