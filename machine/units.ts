/**
 * Sizes and units that all of the machine shares. Time is a Tick: one cycle of the hart's clock,
 * a whole number below 2^53. Pages and blocks have one size, so that a block fills a page.
 */

export const PAGE_BYTES = 4096;
export const PAGE_WORDS = 1024; // 32-bit words
export const BLOCK_BYTES = PAGE_BYTES;
export const SECTOR_BYTES = 512; // what the disk writes atomically

/** A moment or a span in cycles. */
export type Tick = number;

/** A moment that never comes. */
export const NEVER: Tick = Number.POSITIVE_INFINITY;
