/**
 * A ring buffer over shared memory between two environments that do not trust each other: one sends
 * messages of bytes, the other receives them. Each keeps its own index in its own memory and only
 * shows a copy; what the other shows is a claim, checked before it is used, and fetched once.
 *
 *     shared:   receiver's index | sender's index | 8 words unused | data, a power of two of bytes
 *     message:  bytes, a word | the bytes, up to a multiple of 4; it may go round the end
 *
 * It promises each side: whatever the other writes to the shared memory, nothing outside of the
 * data is read or written, no message is taken that is longer than the caller has room for, and a
 * lie that can be told is told (`lied`): from then on the ring is dead for who noticed. It cannot
 * promise that the bytes of a message are what was sent: the sender may change them at any time.
 */
import type { Op, UserPort } from '../syscalls.ts';

const Shared = { received: 0, sent: 4, data: 64 } as const;
const Own = { index: 0, dead: 4 } as const;
export const RING_OWN_BYTES = 8;

/** What came of it, if not a number of bytes. */
export const Ring = { wait: -1, lied: -2, tooLong: -3 } as const;

/** Bytes of data in a ring of so many bytes of shared memory: the power of two that fits. */
export const ringData = (shared: number): number =>
  2 ** Math.floor(Math.log2(shared - Shared.data));

export interface RingSpec {
  /** address of the shared memory, zero-filled when the ring is made */
  readonly shared: number;
  readonly bytes: number;
  /** address of RING_OWN_BYTES of our own memory, zero-filled */
  readonly own: number;
}

class End {
  protected readonly port: UserPort;
  protected readonly spec: RingSpec;
  protected readonly size: number;

  constructor(port: UserPort, spec: RingSpec) {
    this.port = port;
    this.spec = spec;
    this.size = ringData(spec.bytes);
  }

  protected *index(): Op<number> {
    return yield* this.port.load(this.spec.own + Own.index);
  }
  protected *isDead(): Op<boolean> {
    return (yield* this.port.load(this.spec.own + Own.dead)) !== 0;
  }
  protected *lied(): Op<number> {
    yield* this.port.store(this.spec.own + Own.dead, 1);
    return Ring.lied;
  }
  /** Our index goes on, and is shown. */
  protected *advance(to: number, shown: number): Op<void> {
    yield* this.port.store(this.spec.own + Own.index, to);
    yield* this.port.store(this.spec.shared + shown, to);
  }

  /** Moves bytes between the ring, from index `index` on, and a host array. */
  protected *move(index: number, bytes: Uint8Array, write: boolean): Op<void> {
    const { port } = this;
    for (let done = 0; done < bytes.length;) {
      const at = (index + done) & (this.size - 1);
      const part = Math.min(bytes.length - done, this.size - at);
      const from = this.spec.shared + Shared.data + at;
      const moved = write
        ? port.write(from, bytes, done, part)
        : port.read(from, bytes, done, part);
      if (moved === undefined) yield* port.fault();
      done += part;
    }
  }
  /** The address of the word at `index`: words do not go round the end. */
  protected word(index: number): number {
    return this.spec.shared + Shared.data + (index & (this.size - 1));
  }
}

const padded = (bytes: number): number => Math.ceil(bytes / 4) * 4;

export class RingSender extends End {
  /** Sends a message: its bytes, or Ring.wait (no room now), Ring.tooLong (never), Ring.lied. */
  *send(message: Uint8Array): Op<number> {
    const takes = 4 + padded(message.length);
    if (takes > this.size) return Ring.tooLong;
    if (yield* this.isDead()) return Ring.lied;
    const own = yield* this.index();
    const theirs = yield* this.port.load(this.spec.shared + Shared.received);
    const used = (own - theirs) | 0;
    if (used < 0 || used > this.size) return yield* this.lied();
    if (used + takes > this.size) return Ring.wait;
    yield* this.port.store(this.word(own), message.length);
    yield* this.move(own + 4, message, true);
    yield* this.advance((own + takes) | 0, Shared.sent);
    return message.length;
  }
}

export class RingReceiver extends End {
  /** Takes the next message into the array: its bytes, or Ring.wait, Ring.tooLong, Ring.lied. */
  *receive(into: Uint8Array): Op<number> {
    if (yield* this.isDead()) return Ring.lied;
    const own = yield* this.index();
    const theirs = yield* this.port.load(this.spec.shared + Shared.sent);
    const there = (theirs - own) | 0;
    if (there < 0 || there > this.size || (there & 3) !== 0) return yield* this.lied();
    if (there === 0) return Ring.wait;
    const length = yield* this.port.load(this.word(own));
    if (length < 0 || 4 + padded(length) > there) return yield* this.lied();
    if (length > into.length) return Ring.tooLong;
    yield* this.move(own + 4, into.subarray(0, length), false);
    yield* this.advance((own + 4 + padded(length)) | 0, Shared.received);
    return length;
  }
}
