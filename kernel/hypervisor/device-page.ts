/**
 * The device page: the guest's last, which the guest's machine and the hypervisor share. Neither
 * trusts what the other wrote there.
 *
 * The disk's requests stand in slots, its completions in a ring of their own. All indices count up
 * for ever, in 32 bits; whoever asks to be told names the count at which (an event index, as in
 * Xen's ring macros), and is told once.
 */

import {
  QUEUE_COMPLETIONS,
  QUEUE_SLOTS,
  QueuePage,
  SLOT_WORDS,
} from '../../machine/disk-queues.ts';

/** Words of the page. A queue of the hardware's (passthrough) has its own where all have them. */
export const Ring = {
  produced: QueuePage.produced, // completions, by the hypervisor or the device
  consumed: 1, // of those, by the guest
  outstanding: 2, // requests that the guest has handed over and not seen end
  requested: 3, // requests put into slots, by the guest
  steal: 4, // version, odd while it is written; cycles, two words
  target: 7, // pages that it is asked to give up
  ballooned: 8, // pages that it has given up
  taken: 9, // of the requests, by the hypervisor: those slots are free
  requestEvent: 10, // `requested` at which the hypervisor asks to be notified
  completionEvent: 11, // `produced` at which the guest asks for an interrupt
  completions: QueuePage.completions, // RING_SLOTS words: tag | failed << 31
  slots: QueuePage.slots, // REQUEST_SLOTS times SLOT_WORDS: tag, flags, block, count, the pages
} as const;
export const RING_SLOTS = QUEUE_COMPLETIONS;
export const REQUEST_SLOTS = QUEUE_SLOTS; // the emulated disk uses the first

/** Address of slot `index` in the page at `ring`. */
export const slotAt = (ring: number, index: number): number =>
  ring + (Ring.slots + ((index >>> 0) % REQUEST_SLOTS) * SLOT_WORDS) * 4;

/** Whether who asked to be told at `event` is to be told of a step from `old` to `now`. */
export const isDue = (old: number, now: number, event: number): boolean =>
  (now - event) >>> 0 < (now - old) >>> 0;
