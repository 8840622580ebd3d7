/**
 * The device page: the guest's last, which the guest's machine and the hypervisor share. Neither
 * trusts what the other wrote there.
 */

/**
 * Words: completions that the hypervisor produced, in order; the
 * guest's consumer index; one request, as the doorbell hands it over; and what the guest is told.
 */
export const Ring = {
  produced: 0,
  consumed: 1,
  outstanding: 2,
  steal: 4, // version, odd while it is written; cycles, two words
  target: 7, // pages that it is asked to give up
  ballooned: 8, // pages that it has given up
  completions: 16, // RING_SLOTS words: tag | failed << 31
  request: 512, // tag, flags, block, count, then the pages
} as const;
export const RING_SLOTS = 64;
