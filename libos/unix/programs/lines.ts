/**
 * Memory that grows, and input by whole lines of any length. The lines stand in simulated memory;
 * `bytes` is the host's copy of them, loaded once.
 */
import type { Op } from '../../syscalls.ts';
import { BUFFER, type Io } from './io.ts';

const GROWTH_MAX = 1 << 20; // bytes

/** A piece of heap that can grow; what it holds keeps its offsets. */
export class Region {
  readonly #io: Io;
  base = 0;
  size = 0;

  constructor(io: Io) {
    this.#io = io;
  }

  /**
   * Grows by as much again, up to a megabyte, in place: the heap goes on where the region ends. If
   * something else was allocated there, moves to where there is room for twice as much.
   */
  *grow(): Op<void> {
    const io = this.#io;
    if (this.size === 0) {
      this.base = yield* io.allocate(2 * BUFFER);
      this.size = 2 * BUFFER;
      return;
    }
    const growth = Math.min(this.size, GROWTH_MAX);
    const fresh = yield* io.allocate(growth);
    if (fresh !== this.base + this.size) {
      const elsewhere = yield* io.allocate(2 * this.size);
      io.port.copy(elsewhere, this.base, this.size) ?? (yield* io.port.fault());
      this.base = elsewhere;
      this.size *= 2;
      return;
    }
    this.size += growth;
  }
}

/** Reads a descriptor by whole lines: bytes [0, whole) of `bytes`, and of memory from `base` on. */
export class LineReader {
  readonly #io: Io;
  readonly #fd: number;
  readonly #delimiter: number;
  readonly #region: Region;
  #have = 0; // bytes in the region: whole lines, then the beginning of one
  #ended = false;
  bytes = new Uint8Array(0);
  whole = 0;
  /** what ended the input, if it was an error */
  error = 0;

  constructor(io: Io, fd: number, delimiter: number) {
    this.#io = io;
    this.#fd = fd;
    this.#delimiter = delimiter;
    this.#region = new Region(io);
  }

  get base(): number {
    return this.#region.base;
  }

  /** The same memory for another file. */
  reuse(fd: number): LineReader {
    const next = new LineReader(this.#io, fd, this.#delimiter);
    next.#region.base = this.#region.base;
    next.#region.size = this.#region.size;
    next.bytes = this.bytes;
    return next;
  }

  /**
   * Discards what stands before `keep`, moves the rest to the front and reads on until at least one
   * more line is whole; the last may lack its delimiter. False if there is no more.
   */
  *more(keep: number): Op<boolean> {
    const { process, port } = this.#io;
    const rest = this.#have - keep;
    if (keep > 0 && rest > 0) {
      port.copy(this.base, this.base + keep, rest) ?? (yield* port.fault());
      this.bytes.copyWithin(0, keep, this.#have);
    }
    this.#have = rest;
    this.whole -= keep;
    while (!this.#ended) {
      if (this.#have === this.#region.size) yield* this.#grow();
      const room = Math.min(BUFFER, this.#region.size - this.#have);
      const got = yield* process.read(this.#fd, this.base + this.#have, room);
      if (got <= 0) {
        this.error = got;
        this.#ended = true;
        const more = this.#have > this.whole;
        this.whole = this.#have;
        return more;
      }
      const from = this.#have;
      port.read(this.base + from, this.bytes, from, got) ?? (yield* port.fault());
      this.#have += got;
      const last = this.bytes.lastIndexOf(this.#delimiter, this.#have - 1);
      if (last >= from) {
        this.whole = last + 1;
        return true;
      }
    }
    return false;
  }

  /** Where the line that begins at `from` ends: at its delimiter, or at the end of the input. */
  lineEnd(from: number): number {
    const end = this.bytes.indexOf(this.#delimiter, from);
    return end < 0 || end >= this.whole ? this.whole : end;
  }

  *#grow(): Op<void> {
    yield* this.#region.grow();
    const bytes = new Uint8Array(this.#region.size);
    bytes.set(this.bytes.subarray(0, this.#have));
    this.bytes = bytes;
  }
}
