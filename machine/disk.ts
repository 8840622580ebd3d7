/**
 * The disk: 4 KiB blocks behind a bounded queue, served one request at a time. Requests are
 * asynchronous, carry a scatter list of physical pages and move their bytes by DMA when they end,
 * with an interrupt. A volatile write cache keeps writes until a flush or a forced write (FUA); a
 * power cut loses or tears what it holds, sector by sector, as a seed decides.
 *
 * Beside its supervisor's queue there can be others, which it serves in turn (disk-queues.ts).
 *
 * Trusts its supervisor: a block past the end or a full queue that was not asked about is a Bug.
 * Checking callers is the kernel's work.
 */
import { assert } from './assert.ts';
import type { DiskQueues } from './disk-queues.ts';
import { BLOCK_BYTES, SECTOR_BYTES, type Tick } from './units.ts';

export const DISK_QUEUE = 256; // requests
export const SCATTER = 64; // pages of one request

export interface DiskRequest {
  /** chosen by the supervisor, returned with the completion */
  readonly tag: number;
  readonly write: boolean;
  /** first block; the scatter list's pages follow one another on the disk */
  readonly block: number;
  readonly pages: readonly number[];
  /** write through to the medium before completing */
  readonly force?: boolean;
  /** no data: everything completed before is durable when this completes */
  readonly flush?: boolean;
}

export interface DiskCompletion {
  readonly tag: number;
  readonly ok: boolean;
}

/** What a supervisor sees of a disk. */
export interface DiskPort {
  readonly blocks: number;
  /** Requests that the queue still takes. */
  room(): number;
  submit(request: DiskRequest): void;
  /** The oldest completion not yet taken, or null: reading it acknowledges it. */
  complete(): DiskCompletion | null;
  /** Queues that can be given away. A virtual disk has none. */
  readonly queues?: DiskQueues;
}

/** A request that is being served, whoever's it is. */
export interface Job {
  readonly request: DiskRequest;
  /** Page of memory that it means by `page`; -1: it may not. */
  locate(page: number, write: boolean): number;
  ended(ok: boolean): void;
}

/** Other queues than the supervisor's. */
export interface Source {
  /** The request to be served next, or null. */
  take(): Job | null;
  /** Power is gone. */
  clear(): void;
}

const NONE: Source = { take: () => null, clear: () => undefined };

/** Where blocks are kept: host memory, or a file behind the command line. */
export interface Medium {
  readonly blocks: number;
  read(block: number, into: Uint8Array): void;
  write(block: number, from: Uint8Array): void;
}

/** A medium in host memory. Absent blocks read as zero. */
export class RamMedium implements Medium {
  readonly blocks: number;
  readonly #base: ReadonlyMap<number, Uint8Array> | null;
  readonly #written = new Map<number, Uint8Array>();

  /** @param base contents to start from, shared and never written */
  constructor(blocks: number, base: ReadonlyMap<number, Uint8Array> | null = null) {
    this.blocks = blocks;
    this.#base = base;
  }

  read(block: number, into: Uint8Array): void {
    const bytes = this.#written.get(block) ?? this.#base?.get(block);
    if (bytes === undefined) into.fill(0);
    else into.set(bytes);
  }

  write(block: number, from: Uint8Array): void {
    this.#written.set(block, from.slice());
  }

  /** Another medium with the same contents. */
  copy(): RamMedium {
    const copy = new RamMedium(this.blocks, this.#base);
    for (const [block, bytes] of this.#written) copy.#written.set(block, bytes);
    return copy;
  }
}

export interface DiskTiming {
  readonly access: Tick;
  readonly block: Tick;
  readonly flush: Tick;
}

/** The hardware behind a DiskPort: the queue, the cache and the arm. */
export class Disk {
  readonly blocks: number;
  readonly #medium: Medium;
  readonly #timing: DiskTiming;
  readonly #page: (ppn: number) => Uint8Array;
  readonly #dma: (ppn: number, bytes: Uint8Array) => void;
  readonly #source: Source;
  readonly #queue: DiskRequest[] = []; // oldest first; queue[0] may be being served
  #job: Job | null = null; // that is being served
  #own = false; // whether that is queue[0]
  readonly #done: DiskCompletion[] = [];
  readonly #cache = new Map<number, Uint8Array>(); // written, not yet durable
  readonly #buffer = new Uint8Array(BLOCK_BYTES);
  readonly #failing = new Map<number, number>(); // block: requests that are still to fail
  #doneAt: Tick | null = null;

  /**
   * @param page bytes of a physical page, @param dma writes one whole
   * @param source other queues
   */
  constructor(
    medium: Medium,
    timing: DiskTiming,
    page: (ppn: number) => Uint8Array,
    dma: (ppn: number, bytes: Uint8Array) => void,
    source: Source = NONE,
  ) {
    this.#source = source;
    this.blocks = medium.blocks;
    this.#medium = medium;
    this.#timing = timing;
    this.#page = page;
    this.#dma = dma;
  }

  get room(): number {
    return DISK_QUEUE - this.#queue.length;
  }

  /** Takes a request; returns when it will end if it is now the one being served, else null. */
  submit(request: DiskRequest, now: Tick): Tick | null {
    assert(this.room > 0, 'disk: the queue has room');
    assert(request.pages.length <= SCATTER, 'disk: the scatter list is short enough');
    assert(
      request.block >= 0 && request.block + request.pages.length <= this.blocks,
      'disk: the blocks exist',
    );
    this.#queue.push(request);
    return this.start(now);
  }

  /** Begins to serve what waits, if it serves nothing: when that will end, else null. */
  start(now: Tick): Tick | null {
    if (this.#job !== null) return null;
    // In turn: whoever was not served last.
    const other = this.#own ? this.#source.take() : null;
    const own = other === null ? this.#ownJob() : null;
    this.#job = other ?? own ?? this.#source.take();
    this.#own = own !== null;
    if (this.#job === null) return null;
    const { pages, flush, force } = this.#job.request;
    const work = this.#timing.access + this.#timing.block * pages.length;
    this.#doneAt = now + work + (flush === true || force === true ? this.#timing.flush : 0);
    return this.#doneAt;
  }

  #ownJob(): Job | null {
    const request = this.#queue[0];
    if (request === undefined) return null;
    return {
      request,
      locate: (page) => page,
      ended: (ok) => {
        this.#queue.shift();
        this.#done.push({ tag: request.tag, ok });
      },
    };
  }

  /** Ends the request due at `now`; returns when the next one will end, or null if idle. */
  finish(now: Tick): Tick | null {
    assert(this.#doneAt === now, 'disk: requests end exactly when due');
    const job = this.#job;
    assert(job !== null, 'disk: there is a request to end');
    job.ended(this.#perform(job));
    this.#job = null;
    this.#doneAt = null;
    return this.start(now);
  }

  complete(): DiskCompletion | null {
    return this.#done.shift() ?? null;
  }

  /** Puts a completion back: the handler that took it was rolled back. */
  uncomplete(done: DiskCompletion): void {
    this.#done.unshift(done);
  }

  /** Whether what is being served is a request of its supervisor. */
  get servesOwn(): boolean {
    return this.#job !== null && this.#own;
  }

  get pending(): boolean {
    return this.#done.length > 0;
  }

  /** Requests that touch this block fail from now on, or the next so many: a mishap. */
  failBlock(block: number, times = Infinity): void {
    this.#failing.set(block, times);
  }

  /**
   * Power is lost: the queue is gone, and each sector of each cached write is kept or lost as
   * `chance` says (0 to 1). What was flushed stays. Afterwards the disk is as a new one on the
   * same medium.
   */
  powerCut(chance: () => number): void {
    this.survivors(chance, this.#medium);
    this.#cache.clear();
    this.#queue.length = 0;
    this.#done.length = 0;
    this.#job = null;
    this.#source.clear();
    this.#doneAt = null;
  }

  /** Writes to `medium`, a copy of this disk's, what a power cut now would leave; nothing ends. */
  survivors(chance: () => number, medium: Medium): void {
    for (const [block, bytes] of this.#cache) {
      medium.read(block, this.#buffer);
      for (let at = 0; at < BLOCK_BYTES; at += SECTOR_BYTES) {
        if (chance() < 0.5) this.#buffer.set(bytes.subarray(at, at + SECTOR_BYTES), at);
      }
      medium.write(block, this.#buffer);
    }
  }

  /** Power goes in good order: everything cached becomes durable. */
  shutDown(): void {
    this.#flush();
  }

  #perform(job: Job): boolean {
    const { request } = job;
    if (request.flush === true) {
      this.#flush();
      return true;
    }
    for (let n = 0; n < request.pages.length; n++) {
      const times = this.#failing.get(request.block + n) ?? 0;
      if (times === 0) continue;
      this.#failing.set(request.block + n, times - 1);
      return false;
    }
    const pages = request.pages.map((page) => job.locate(page, !request.write));
    if (pages.some((page) => page < 0)) return false;
    pages.forEach((page, n) => {
      const block = request.block + n;
      if (!request.write) {
        const cached = this.#cache.get(block);
        if (cached === undefined) this.#medium.read(block, this.#buffer);
        this.#dma(page, cached ?? this.#buffer);
      } else if (request.force === true) {
        this.#cache.delete(block);
        this.#medium.write(block, this.#page(page));
      } else {
        this.#cache.set(block, this.#page(page).slice());
      }
    });
    return true;
  }

  #flush(): void {
    for (const [block, bytes] of this.#cache) this.#medium.write(block, bytes);
    this.#cache.clear();
  }
}
