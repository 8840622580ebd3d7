/**
 * The front half of a virtual disk: what a guest's machine has in place of a disk's registers. Its
 * supervisor sees a DiskPort and no more, whichever of the models stands behind it. All that is
 * here is the guest's own work, charged as accesses to its memory, and trusted by nobody: what the
 * back half reads of the device page is a claim.
 *
 * A request is put into the page when the handler that made it can no longer be rolled back.
 */
import type { DiskCompletion, DiskPort, DiskRequest } from '../../machine/disk.ts';
import { isDue, REQUEST_SLOTS, Ring, RING_SLOTS, slotAt } from './device-page.ts';
import {
  type QueueRegisters,
  REQUEST_FLUSH,
  REQUEST_FORCE,
  REQUEST_WRITE,
} from '../../machine/disk-queues.ts';
import { type DiskModel, GUEST_QUEUE } from './state.ts';

/** What the front half asks of the machine that it is part of. */
export interface FrontPort {
  load(pa: number): number;
  store(pa: number, value: number): void;
  /** Acts when what the supervisor does now can no longer be undone. */
  finally(act: () => void): void;
  /** Sees to it that the pages are there. */
  touch(pages: readonly number[]): void;
  /** Into the hypervisor, which looks at the ring, and stops us if it makes no sense. */
  notify(): void;
  /** The queue of the host's disk that was passed through to it. */
  readonly queue: QueueRegisters | null;
}

/** @param ring guest-physical address of the device page */
export function frontEnd(
  model: DiskModel,
  blocks: number,
  ring: number,
  port: FrontPort,
): DiskPort {
  const kinds = { emulated: Emulated, split: Split, passthrough: Passthrough };
  return new kinds[model](blocks, ring, port);
}

/** A doorbell for each request: one exit, and an interrupt for each completion. */
class Emulated implements DiskPort {
  readonly blocks: number;
  protected readonly ring: number;
  protected readonly port: FrontPort;

  constructor(blocks: number, ring: number, port: FrontPort) {
    this.blocks = blocks;
    this.ring = ring;
    this.port = port;
  }

  room(): number {
    return GUEST_QUEUE - this.get(Ring.outstanding);
  }

  submit(request: DiskRequest): void {
    this.put(Ring.outstanding, this.get(Ring.outstanding) + 1);
    // What it moves must be here when it is handed over, and nothing can wait then.
    this.port.touch(request.pages);
    this.port.finally(() => {
      this.handOver(request);
    });
  }

  complete(): DiskCompletion | null {
    const consumed = this.get(Ring.consumed);
    if (consumed === this.get(Ring.produced) && this.isEmpty(consumed)) return null;
    const word = this.get(Ring.completions + ((consumed >>> 0) % RING_SLOTS));
    this.put(Ring.consumed, (consumed + 1) | 0);
    this.put(Ring.outstanding, this.get(Ring.outstanding) - 1);
    return { tag: word & 0x7fffffff, ok: word >= 0 };
  }

  protected handOver(request: DiskRequest): void {
    this.write(0, request);
    this.port.notify();
  }

  /** No completion is left to take: whether that is the last word. */
  protected isEmpty(_consumed: number): boolean {
    return true;
  }

  /** Writes a request into its slot. */
  protected write(index: number, request: DiskRequest): void {
    const { tag, block, pages } = request;
    const flags =
      (request.write ? REQUEST_WRITE : 0) |
      (request.force === true ? REQUEST_FORCE : 0) |
      (request.flush === true ? REQUEST_FLUSH : 0);
    const at = slotAt(this.ring, index);
    [tag, flags, block, pages.length, ...pages].forEach((word, n) => {
      this.port.store(at + n * 4, word);
    });
  }

  protected get(word: number): number {
    return this.port.load(this.ring + word * 4);
  }
  protected put(word: number, value: number): void {
    this.port.store(this.ring + word * 4, value);
  }
}

/** Requests wait in the ring for a back half that runs anyway; it is notified if it asks to be. */
class Split extends Emulated {
  protected override handOver(request: DiskRequest): void {
    const { port } = this;
    const old = this.get(Ring.requested);
    // No slot is free: the back half takes what is there, whether it asked to be told or not.
    if ((old - this.get(Ring.taken)) >>> 0 >= REQUEST_SLOTS) port.notify();
    this.write(old, request);
    const now = (old + 1) | 0;
    this.put(Ring.requested, now);
    if (isDue(old, now, this.get(Ring.requestEvent))) port.notify();
  }

  /** Before it waits it asks to be told of the next one, and looks once more. */
  protected override isEmpty(consumed: number): boolean {
    const event = (consumed + 1) | 0;
    if (this.get(Ring.completionEvent) === event) return true;
    this.put(Ring.completionEvent, event);
    return this.get(Ring.produced) === consumed;
  }
}

/** A queue of the hardware's: slots and completions are the same, the doorbell is the device's. */
class Passthrough extends Emulated {
  override room(): number {
    this.port.queue?.probe();
    return super.room();
  }

  protected override handOver(request: DiskRequest): void {
    const old = this.get(Ring.requested);
    this.write(old, request);
    const now = (old + 1) | 0;
    this.put(Ring.requested, now);
    this.port.queue?.ring(now);
  }
}
