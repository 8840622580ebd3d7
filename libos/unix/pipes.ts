/**
 * Pipes: a ring of one page shared by both ends, counters in the control page, and sleep. One
 * process at a time moves bytes in or out of a pipe, and says so in a word that others find under
 * the lock; the bytes count when head or tail has been moved on, one store, so whoever dies in the
 * middle has moved nothing. Who finds nothing to do sets its bit among those who wait, still under
 * the lock, and sleeps until somebody has moved bytes or closed the last name of an end; its event
 * count was read before it looked, so no wakeup is lost.
 */
import { Env, envIndex } from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import { at, Control, Kind, PAGE, Pipe, PIPE_BUFFERS, SHARED_PIPES, TERMINAL } from './layout.ts';
import { Errno, PIPE_BUF, Poll } from './process.ts';
import type { Shared } from './shared.ts';
import type { Space } from './space.ts';
import type { TerminalInput } from './terminal.ts';

/** What a try to move bytes comes to when there are none to move, and not now. */
const NOTHING = 0;
const OVER = -1;

/** An end that is polled, the terminal's too; `events` are those that the caller waits for. */
export interface End {
  readonly pipe: number;
  readonly kind: number;
  readonly events: number;
}

export class Pipes {
  readonly #port: UserPort;
  readonly #sys: Syscalls;
  readonly #shared: Shared;
  readonly #space: Space;
  readonly #signalled: () => Op<boolean>;
  readonly #self: number;
  readonly #pid: number;

  /**
   * @param self environment id and process on whose behalf all is done
   * @param signalled whether a signal was handled just now
   */
  constructor(
    sys: Syscalls,
    shared: Shared,
    space: Space,
    self: { readonly env: number; readonly pid: number },
    signalled: () => Op<boolean>,
  ) {
    this.#port = sys.port;
    this.#sys = sys;
    this.#shared = shared;
    this.#space = space;
    this.#self = self.env;
    this.#pid = self.pid;
    this.#signalled = signalled;
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

  /** One more name of an end, or one less. The last one wakes who waits at the other. */
  *count(pipe: number, end: number, by: number): Op<void> {
    yield* this.#shared.lock();
    const left = (yield* this.#get(pipe, end)) + by;
    yield* this.#set(pipe, end, left);
    yield* this.#shared.unlock();
    if (left === 0) yield* this.#shared.wakeAll(pipe);
  }

  /** On behalf of a process that was ended, perhaps while it moved bytes, or before it said so. */
  *abandon(pipe: number, pid: number): Op<void> {
    const mover = Control.movers + pipe;
    if ((yield* this.#shared.control(mover)) === pid) yield* this.#shared.setControl(mover, 0);
    yield* this.#shared.wakeAll(pipe);
  }

  read(pipe: number, va: number, bytes: number): Op<number> {
    return this.#read(pipe, va, bytes, () => this.#filled(pipe));
  }

  /** Reads a line of the terminal, or a part of one. */
  readLine(terminal: TerminalInput, va: number, bytes: number): Op<number> {
    return this.#read(TERMINAL, va, bytes, () => terminal.ready(bytes));
  }

  /** Bytes to be read; OVER if none will ever come. */
  *#filled(pipe: number): Op<number> {
    const filled = ((yield* this.#get(pipe, Pipe.tail)) - (yield* this.#get(pipe, Pipe.head))) | 0;
    return filled === 0 && (yield* this.#get(pipe, Pipe.writers)) === 0 ? OVER : filled;
  }

  *#read(pipe: number, va: number, bytes: number, ready: () => Op<number>): Op<number> {
    if (bytes === 0) return 0;
    for (;;) {
      const seen = yield* this.#events();
      const moved = yield* this.#attempt(pipe, Pipe.readerWaits, ready, (count) =>
        this.#out(pipe, va, Math.min(count, bytes)),
      );
      if (moved !== NOTHING) return Math.max(0, moved);
      if (yield* this.#signalled()) return Errno.EINTR;
      yield* this.#sys.sleep(seen);
    }
  }

  /** Up to PIPE_BUF bytes go in one piece; of more, as many at a time as there is room for. */
  *write(pipe: number, va: number, bytes: number): Op<number> {
    const least = bytes <= PIPE_BUF ? bytes : 1;
    for (let done = 0; done < bytes;) {
      const seen = yield* this.#events();
      const room = (): Op<number> => this.#room(pipe, least);
      const moved = yield* this.#attempt(pipe, Pipe.writerWaits, room, (count) =>
        this.#in(pipe, va + done, Math.min(count, bytes - done)),
      );
      if (moved === OVER) return Errno.EPIPE;
      done += moved;
      if (moved !== NOTHING) continue;
      if (yield* this.#signalled()) return done > 0 ? done : Errno.EINTR;
      yield* this.#sys.sleep(seen);
    }
    return bytes;
  }

  /**
   * What is so of each of these ends, as poll says it; if nothing is, we are among those who wait
   * at all of them.
   */
  *look(ends: readonly End[], terminal: TerminalInput): Op<number[]> {
    yield* this.#shared.lock();
    const found: number[] = [];
    for (const { pipe, kind } of ends) {
      if (kind === Kind.terminal) {
        found.push(
          (yield* terminal.ready(PAGE, false)) === NOTHING ? Poll.OUT : Poll.IN | Poll.OUT,
        );
      } else if (kind === Kind.pipeRead) found.push(yield* this.#readable(pipe));
      else found.push(yield* this.#writable(pipe));
    }
    const isReady = ends.some(({ events }, n) => ((found[n] ?? 0) & events) !== 0);
    for (const { pipe, kind } of isReady ? [] : ends) {
      yield* this.#join(pipe, kind === Kind.pipeWrite ? Pipe.writerWaits : Pipe.readerWaits);
    }
    yield* this.#shared.unlock();
    return found;
  }

  *#readable(pipe: number): Op<number> {
    const filled = yield* this.#filled(pipe);
    if (filled === OVER) return Poll.HUP;
    const ended = filled > 0 && (yield* this.#get(pipe, Pipe.writers)) === 0;
    return (filled > 0 ? Poll.IN : 0) | (ended ? Poll.HUP : 0);
  }

  *#writable(pipe: number): Op<number> {
    const room = yield* this.#room(pipe, PIPE_BUF);
    return room === OVER ? Poll.ERR : room === NOTHING ? 0 : Poll.OUT;
  }

  /** Bytes that fit, if they are `least`; OVER if nobody will ever read them. */
  *#room(pipe: number, least: number): Op<number> {
    if ((yield* this.#get(pipe, Pipe.readers)) === 0) return OVER;
    const room =
      PAGE - (((yield* this.#get(pipe, Pipe.tail)) - (yield* this.#get(pipe, Pipe.head))) | 0);
    return room >= least ? room : NOTHING;
  }

  /**
   * Moves bytes if `ready` says how many: how many it were. NOTHING: we are among those who wait.
   * Busy all the while: who is stopped by force in the middle would stop all others here.
   */
  #attempt(
    pipe: number,
    waits: number,
    ready: () => Op<number>,
    move: (count: number) => Op<number>,
  ): Op<number> {
    return this.#space.busy(
      function* (this: Pipes): Op<number> {
        const shared = this.#shared;
        const mover = Control.movers + pipe;
        yield* shared.lock();
        const isFree = (yield* shared.control(mover)) === 0;
        const count = isFree ? yield* ready() : NOTHING;
        if (count === NOTHING) yield* this.#join(pipe, waits);
        else if (count > 0) yield* shared.setControl(mover, this.#pid);
        yield* shared.unlock();
        if (count <= 0) return count;
        const moved = yield* move(count);
        yield* shared.lock();
        yield* shared.setControl(mover, 0);
        yield* shared.unlock();
        yield* shared.wakeAll(pipe);
        return moved;
      }.bind(this),
    );
  }

  /** Among those who wait at an end; under the lock. */
  *#join(pipe: number, waits: number): Op<void> {
    const word = waits + (this.#pid >> 5);
    const mask = yield* this.#get(pipe, word);
    yield* this.#set(pipe, word, mask | (1 << (this.#pid & 31)));
  }

  *#out(pipe: number, va: number, bytes: number): Op<number> {
    const head = yield* this.#get(pipe, Pipe.head);
    yield* this.#move(pipe, head, va, bytes, false);
    yield* this.#set(pipe, Pipe.head, head + bytes);
    return bytes;
  }

  *#in(pipe: number, va: number, bytes: number): Op<number> {
    const tail = yield* this.#get(pipe, Pipe.tail);
    yield* this.#move(pipe, tail, va, bytes, true);
    yield* this.#set(pipe, Pipe.tail, tail + bytes);
    return bytes;
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

  #events(): Op<number> {
    return this.#shared.env(envIndex(this.#self), Env.events);
  }
}
