/**
 * The receiving side of the serial channels: bytes that somebody typed wait here until a supervisor
 * takes them, a few at a time. An interrupt tells of arrivals, one a channel however many bytes.
 * Trusts the host with what it types and when; the same bytes at the same time give the same run.
 */
import { assert } from './assert.ts';
import { CONSOLE_CHANNELS, CONSOLE_FIFO } from './machine.ts';

export class Terminals {
  readonly #waiting = new Map<number, number[]>(); // bytes by channel, oldest first
  readonly #arrived: number[] = []; // channels, oldest first

  type(channel: number, bytes: Uint8Array): void {
    assert(channel >= 1 && channel <= CONSOLE_CHANNELS, 'console: the channel can be typed at');
    const queue = this.#waiting.get(channel) ?? [];
    queue.push(...bytes);
    this.#waiting.set(channel, queue);
    if (!this.#arrived.includes(channel)) this.#arrived.push(channel);
  }

  /** The channel whose interrupt is pending longest, which it is no more; -1 if there is none. */
  interrupt(): number {
    return this.#arrived.shift() ?? -1;
  }

  /** Takes bytes of a channel; `restore` puts them back. */
  read(channel: number): { readonly bytes: Uint8Array; readonly restore: () => void } {
    const queue = this.#waiting.get(channel) ?? [];
    const bytes = Uint8Array.from(queue.splice(0, CONSOLE_FIFO));
    return { bytes, restore: () => queue.unshift(...bytes) };
  }
}
