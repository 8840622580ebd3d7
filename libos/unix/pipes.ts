/**
 * Pipes: a ring of one page shared by both ends, counters in the control page, and sleep. Whoever
 * finds nothing to do leaves its environment id and sleeps until the other end posts an event; the
 * event count is read before looking, so no wakeup is lost.
 */
import { Env, envIndex } from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import { at, COMMON, Control, PAGE, Pipe, PIPE_BUFFERS, SHARED_PIPES, TERMINAL } from './layout.ts';
import { Errno } from './process.ts';
import type { Shared } from './shared.ts';
import type { TerminalInput } from './terminal.ts';

export class Pipes {
  readonly #port: UserPort;
  readonly #sys: Syscalls;
  readonly #shared: Shared;

  readonly #signalled: () => Op<boolean>;

  /** @param signalled whether a signal was handled just now */
  constructor(sys: Syscalls, shared: Shared, signalled: () => Op<boolean>) {
    this.#signalled = signalled;
    this.#port = sys.port;
    this.#sys = sys;
    this.#shared = shared;
  }

  #get(pipe: number, word: number): Op<number> {
    return this.#shared.control(Control.pipes + pipe * Pipe.words + word);
  }

  #set(pipe: number, word: number, value: number): Op<number> {
    return this.#shared.setControl(Control.pipes + pipe * Pipe.words + word, value);
  }

  /** A new pipe with one reader and one writer; its number, or an error. */
  *make(): Op<number> {
    yield* this.#shared.lock();
    let pipe = 0;
    while (pipe < TERMINAL && !(yield* this.#isFree(pipe))) pipe++;
    if (pipe < TERMINAL) {
      for (let word = 0; word < Pipe.words; word++) yield* this.#set(pipe, word, 0);
      yield* this.#set(pipe, Pipe.readers, 1);
      yield* this.#set(pipe, Pipe.writers, 1);
    }
    yield* this.#shared.unlock();
    if (pipe === TERMINAL) return Errno.EMFILE;
    const shared = Control.shared + SHARED_PIPES + pipe;
    if ((yield* this.#shared.control(shared)) !== 0) return pipe;
    const page = yield* this.#shared.take();
    if (page < 0) {
      yield* this.#set(pipe, Pipe.readers, 0);
      yield* this.#set(pipe, Pipe.writers, 0);
      return Errno.ENOMEM;
    }
    yield* this.#shared.setControl(shared, page);
    return pipe;
  }

  /** A pipe that holds `bytes`, at most a page, and has a reader and no writer. */
  *holding(bytes: Uint8Array): Op<number> {
    const pipe = yield* this.make();
    if (pipe < 0) return pipe;
    this.#port.write(at(PIPE_BUFFERS + pipe), bytes, 0, bytes.length) ??
      (yield* this.#port.fault());
    yield* this.#set(pipe, Pipe.tail, bytes.length);
    yield* this.count(pipe, Pipe.writers, -1);
    return pipe;
  }

  *#isFree(pipe: number): Op<boolean> {
    return (yield* this.#get(pipe, Pipe.readers)) + (yield* this.#get(pipe, Pipe.writers)) === 0;
  }

  /** One more name of an end, or one less. The last one wakes the other end. */
  *count(pipe: number, end: number, by: number): Op<void> {
    yield* this.#shared.lock();
    const left = (yield* this.#get(pipe, end)) + by;
    yield* this.#set(pipe, end, left);
    yield* this.#shared.unlock();
    if (left === 0)
      yield* this.#wake(pipe, end === Pipe.writers ? Pipe.readerWaits : Pipe.writerWaits);
  }

  *read(pipe: number, va: number, bytes: number): Op<number> {
    for (;;) {
      const seen = yield* this.#events();
      const head = yield* this.#get(pipe, Pipe.head);
      const ready = ((yield* this.#get(pipe, Pipe.tail)) - head) | 0;
      if (ready > 0) {
        const count = Math.min(ready, bytes);
        yield* this.#move(pipe, head, va, count, false);
        yield* this.#set(pipe, Pipe.head, head + count);
        yield* this.#wake(pipe, Pipe.writerWaits);
        return count;
      }
      if ((yield* this.#get(pipe, Pipe.writers)) === 0) return 0;
      if (yield* this.#signalled()) return Errno.EINTR;
      yield* this.#wait(pipe, Pipe.readerWaits, seen, function* (this: Pipes): Op<boolean> {
        const tail = yield* this.#get(pipe, Pipe.tail);
        return tail === head && (yield* this.#get(pipe, Pipe.writers)) > 0;
      });
    }
  }

  /** Reads a line of the terminal, or a part of one. */
  *readLine(terminal: TerminalInput, va: number, bytes: number): Op<number> {
    for (;;) {
      const seen = yield* this.#events();
      const ready = yield* terminal.ready(bytes);
      if (ready < 0) return 0;
      if (ready > 0) return yield* this.read(TERMINAL, va, ready);
      if (yield* this.#signalled()) return Errno.EINTR;
      yield* this.#wait(TERMINAL, Pipe.readerWaits, seen, function* (): Op<boolean> {
        return true;
      });
    }
  }

  *write(pipe: number, va: number, bytes: number): Op<number> {
    let done = 0;
    while (done < bytes) {
      const seen = yield* this.#events();
      if ((yield* this.#get(pipe, Pipe.readers)) === 0) return Errno.EPIPE;
      const tail = yield* this.#get(pipe, Pipe.tail);
      const room = PAGE - ((tail - (yield* this.#get(pipe, Pipe.head))) | 0);
      if (room > 0) {
        const count = Math.min(room, bytes - done);
        yield* this.#move(pipe, tail, va + done, count, true);
        yield* this.#set(pipe, Pipe.tail, tail + count);
        done += count;
        yield* this.#wake(pipe, Pipe.readerWaits);
        continue;
      }
      if (yield* this.#signalled()) return done > 0 ? done : Errno.EINTR;
      yield* this.#wait(pipe, Pipe.writerWaits, seen, function* (this: Pipes): Op<boolean> {
        const full = ((tail - (yield* this.#get(pipe, Pipe.head))) | 0) >= PAGE;
        return full && (yield* this.#get(pipe, Pipe.readers)) > 0;
      });
    }
    return done;
  }

  *#move(pipe: number, position: number, va: number, bytes: number, put: boolean): Op<void> {
    const ring = at(PIPE_BUFFERS + pipe);
    for (let done = 0; done < bytes;) {
      const from = (position + done) & (PAGE - 1);
      const part = Math.min(bytes - done, PAGE - from);
      const moved = put
        ? this.#port.copy(ring + from, va + done, part)
        : this.#port.copy(va + done, ring + from, part);
      if (moved === undefined) yield* this.#port.fault();
      done += part;
    }
  }

  *#wait(pipe: number, word: number, seen: number, still: (this: Pipes) => Op<boolean>): Op<void> {
    yield* this.#set(pipe, word, this.#self);
    // Looked at again after leaving word: the other end may have moved in between.
    if (yield* still.call(this)) yield* this.#sys.sleep(seen);
    yield* this.#set(pipe, word, 0);
  }

  *#wake(pipe: number, word: number): Op<void> {
    const waiting = yield* this.#get(pipe, word);
    if (waiting === 0) return;
    yield* this.#set(pipe, word, 0);
    yield* this.#shared.wake(waiting, COMMON);
  }

  #events(): Op<number> {
    return this.#shared.env(envIndex(this.#self), Env.events);
  }

  /** Set once, when the process starts. */
  self(env: number): void {
    this.#self = env;
  }
  #self = 0;
}
