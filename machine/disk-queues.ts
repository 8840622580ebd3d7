/**
 * Queues of the disk that its supervisor can give away, as the virtual functions of an NVMe drive
 * behind an IOMMU. A guest drives its queue by stores to a page of its own and to a doorbell that
 * is mapped into it; the device fetches requests from there, moves data there, and writes
 * completions there, all by guest-physical addresses, which the second stage translates (iohgatp,
 * RISC-V IOMMU Architecture). A completion sets a bit of the guest's interrupt file: a guest that
 * runs takes it itself; of one that does not, its hypervisor can ask to be told (hgeie).
 *
 * Trusts who gives a queue away, and no word of who drives it. What it asks beyond its blocks or
 * its memory fails, request by request; a doorbell that makes no sense stops that queue.
 *
 * The IOMMU has no cache: each transfer is translated when it happens. What it and the device do
 * beside the hart costs the hart nothing.
 */
import type { DiskRequest, Job, Source } from './disk.ts';
import type { Memory } from './memory.ts';
import { PAGE_BYTES } from './units.ts';
import { Walker } from './walker.ts';

export const DISK_QUEUES = 8;

export const REQUEST_WRITE = 1;
export const REQUEST_FORCE = 2;
export const REQUEST_FLUSH = 4;

/** Words of a queue's page. */
export const QueuePage = {
  produced: 0, // completions, by the device
  completions: 16, // QUEUE_COMPLETIONS words: tag | failed << 31
  slots: 96, // QUEUE_SLOTS times SLOT_WORDS: tag, flags, block, count, then the pages
} as const;
export const QUEUE_COMPLETIONS = 64;
export const QUEUE_SLOTS = 8; // a power of two
export const SLOT_WORDS = 68;
const SLOT_PAGES = SLOT_WORDS - 4;
/** Requests that a queue has in hand at most. */
export const QUEUE_DEPTH = 16;

/** What a queue may reach. */
export interface Assignment {
  /** page of the second-stage root that translates for it */
  readonly root: number;
  /** guest page of its requests and completions */
  readonly page: number;
  /** its blocks: it names them from 0 */
  readonly firstBlock: number;
  readonly blocks: number;
}

/** What a queue's driver has of it. */
export interface QueueRegisters {
  /** Reads a register, as a driver does to find out whether the device is there. */
  probe(): void;
  /** The doorbell: so many requests have been put into slots so far. */
  ring(requested: number): void;
  /** Takes the bit of its interrupt file, if it is set. */
  takeInterrupt(): boolean;
}

/** What their owner can do with the queues of a disk. */
export interface DiskQueues {
  readonly count: number;
  assign(queue: number, to: Assignment): void;
  /** Function-level reset: it reaches nothing any more, now and by what was under way. */
  reset(queue: number): void;
  /** Whether its completions are told to the owner, until one has been (hgeie). */
  listen(queue: number, on: boolean): void;
  /** A queue whose completion is to be told, or that has stopped; -1 if there is none. */
  claim(): number;
  /** Whether it has stopped: its driver rang without sense. */
  isStopped(queue: number): boolean;
  registers(queue: number): QueueRegisters;
}

/** One queue: all of it is the device's own, but its page. */
class Queue {
  to: Assignment | null = null;
  taken = 0;
  produced = 0;
  inHand = 0;
  waiting: DiskRequest[] = [];
  pending = false;
  listens = false;
  stopped = false;
}

/** The hardware behind DiskQueues: what is waiting in the queues is served in turn. */
export class Queues implements Source {
  readonly #memory: Memory;
  readonly #iommu: Walker;
  readonly #queues = Array.from({ length: DISK_QUEUES }, () => new Queue());
  #last = 0; // that was served

  constructor(memory: Memory) {
    this.#memory = memory;
    this.#iommu = new Walker(memory, false, () => undefined);
  }

  assign(n: number, to: Assignment): void {
    const queue = new Queue();
    queue.to = to;
    this.#queues[n] = queue;
  }

  /** What it had in hand belongs to nobody: see `#job`. */
  reset(n: number): void {
    this.#at(n).to = null;
    this.#queues[n] = new Queue();
  }

  clear(): void {
    for (let n = 0; n < DISK_QUEUES; n++) this.reset(n);
  }

  listen(n: number, on: boolean): void {
    this.#at(n).listens = on;
  }

  /** Whether `claim` would find one: a line to the owner's hart. */
  get calls(): boolean {
    return this.#queues.some(isCalling);
  }

  claim(): number {
    const n = this.#queues.findIndex(isCalling);
    if (n >= 0) this.#at(n).listens = false;
    return n;
  }

  isStopped(n: number): boolean {
    return this.#at(n).stopped;
  }

  takeInterrupt(n: number): boolean {
    const queue = this.#at(n);
    const was = queue.pending;
    queue.pending = false;
    return was;
  }

  /** The doorbell. The requests that it fetched and found good; they wait to be served. */
  ring(n: number, requested: number): DiskRequest[] {
    const queue = this.#at(n);
    const fetched: DiskRequest[] = [];
    if (queue.to === null || queue.stopped) return fetched;
    const count = (requested - queue.taken) >>> 0;
    if (count > QUEUE_SLOTS || queue.inHand + count > QUEUE_DEPTH) {
      queue.stopped = true;
      queue.listens = true;
      return fetched;
    }
    for (; queue.taken !== (requested | 0); queue.taken = (queue.taken + 1) | 0) {
      queue.inHand++;
      const { tag, request } = this.#fetch(queue.to, queue.taken);
      if (request === null) this.#ended(queue, queue.to, tag, false);
      else fetched.push(request);
    }
    queue.waiting.push(...fetched);
    return fetched;
  }

  take(): Job | null {
    for (let turn = 1; turn <= DISK_QUEUES; turn++) {
      const n = (this.#last + turn) % DISK_QUEUES;
      const queue = this.#at(n);
      const request = queue.waiting.shift();
      if (request === undefined) continue;
      this.#last = n;
      return this.#job(queue, request);
    }
    return null;
  }

  #job(queue: Queue, request: DiskRequest): Job {
    return {
      request,
      locate: (page, write) => (queue.to === null ? -1 : this.#locate(queue.to, page, write)),
      ended: (ok) => {
        if (queue.to !== null) this.#ended(queue, queue.to, request.tag, ok);
      },
    };
  }

  /** A request as its slot has it now, each word read once; null if the queue may not ask that. */
  #fetch(to: Assignment, index: number): { tag: number; request: DiskRequest | null } {
    const page = this.#locate(to, to.page, false);
    const at = QueuePage.slots + ((index >>> 0) % QUEUE_SLOTS) * SLOT_WORDS;
    const slot = page * PAGE_BYTES + at * 4;
    const word = (n: number): number => (page < 0 ? -1 : this.#memory.get(slot + n * 4));
    const [tag, flags, block, count] = [word(0), word(1), word(2), word(3)];
    const inside = block >= 0 && count >= 0 && count <= SLOT_PAGES && block + count <= to.blocks;
    if (!inside || tag < 0) return { tag, request: null };
    const pages = Array.from({ length: count }, (_, n) => word(4 + n));
    const write = (flags & REQUEST_WRITE) !== 0;
    const force = (flags & REQUEST_FORCE) !== 0;
    const flush = (flags & REQUEST_FLUSH) !== 0;
    return { tag, request: { tag, write, force, flush, block: to.firstBlock + block, pages } };
  }

  #ended(queue: Queue, to: Assignment, tag: number, ok: boolean): void {
    queue.inHand--;
    const page = this.#locate(to, to.page, true);
    if (page < 0) return;
    const at = page * PAGE_BYTES;
    const entry = QueuePage.completions + ((queue.produced >>> 0) % QUEUE_COMPLETIONS);
    queue.produced = (queue.produced + 1) | 0;
    this.#memory.put(at + entry * 4, ok ? tag : tag | 0x80000000);
    this.#memory.put(at + QueuePage.produced * 4, queue.produced);
    queue.pending = true;
  }

  /** Page of memory behind a guest page; -1 if the second stage does not allow it. */
  #locate(to: Assignment, page: number, write: boolean): number {
    if (page < 0) return -1;
    const regime = { vmid: 0, asid: 0, root: -1, guestRoot: to.root };
    return this.#iommu.walk(regime, page, write, true) ? this.#iommu.ppn : -1;
  }

  #at(n: number): Queue {
    const queue = this.#queues[n];
    if (queue === undefined) throw new RangeError(`disk: there is no queue ${n}`);
    return queue;
  }
}

const isCalling = (queue: Queue): boolean => queue.listens && (queue.pending || queue.stopped);
