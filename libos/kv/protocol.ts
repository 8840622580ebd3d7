/**
 * What the store and those who use it say to each other: four words each way (parts/messages.ts),
 * and a buffer of pages that the client owns and has granted to the store.
 *
 *     buffer:  0 key, or first key of a scan | 256 last key of a scan | 512 value, or what is found
 *     what a scan found, per key:  key bytes | value bytes | status | key | value, up to a
 *     multiple of 4; a value that cannot be read is empty, and its status says why
 *
 * Neither side trusts the other: the store checks every number and copies before it looks; a client
 * can take its pages back at any time, also while it is being served.
 */
import { operation } from '../parts/messages.ts';

export const KEY_MAX = 250; // bytes; a key has at least one
export const VALUE_MAX = 61_440; // bytes
export const BUFFER_PAGES_MAX = 16;

export const KEY_AT = 0;
export const LAST_AT = 256;
export const DATA_AT = 512;

/** Header of each key that a scan found; key and value follow, the next one at a multiple of 4. */
export const Entry = { keyBytes: 0, valueBytes: 4, status: 8, bytes: 12 } as const;

/** Statuses of replies. */
export const KvStatus = {
  ok: 0,
  absent: 1, // no such key
  badRequest: 2, // no such operation, or a number that makes no sense in it
  noSession: 3, // attach first: never done, or the store needed the place for others
  tooLarge: 4, // beyond what the store, or the buffer, can hold: word 1 says how much there is
  full: 5, // the extent, or the memory for keys, is used up
  disk: 6, // the disk failed
  corrupt: 7, // what the disk gave back is not what was written
  revoked: 8, // a page of the buffer was taken away meanwhile
  quota: 9, // your tenant has as much as it may: word 1 says how many bytes that is, word 2 has
  busy: 10, // all sessions are others', who are not done: ask again later
} as const;
export type KvStatusName = keyof typeof KvStatus;

/** Flags of put and remove. */
export const DURABLE = 1; // answered when no power cut can undo it
/** Flags of scan. */
export const AFTER = 1; // the first key itself is not wanted

export const PROTOCOL = {
  /** Asks for room for a page, so that it can be granted: busy, or the store waits for it. */
  hello: operation(1),
  /** The page that comes with it is the next one of the sender's buffer. */
  attach: operation(2, [], ['pages']),
  /** The store gives up the sender's pages. */
  detach: operation(3),
  /** The value into the buffer; word 1: its bytes. */
  get: operation(4, ['keyBytes'], ['valueBytes']),
  /** The value that stands in the buffer is the key's from now on. */
  put: operation(5, ['keyBytes', 'valueBytes', 'flags'], ['most', 'has']),
  remove: operation(6, ['keyBytes', 'flags']),
  /** Answered when everything that was answered before is durable. */
  sync: operation(7),
  /**
   * Keys from the first on up to and without the last (0 bytes: no end), as many as fit. `more`: go
   * on behind the last key given; see server.ts for what all answers together are.
   */
  scan: operation(8, ['firstBytes', 'lastBytes', 'flags'], ['count', 'bytes', 'more']),
} as const;
