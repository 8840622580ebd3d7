/**
 * The terminal, /dev/tty: what is typed at the console, by lines. The scheduler, who hears of
 * arrivals, puts bytes into a ring that nobody else writes to; control characters are taken out on
 * the way: ^C sends SIGINT to the foreground group, ^Z SIGTSTP, ^D ends the input, and ^V takes the
 * next as it is. Editing a line is the affair of whoever sits in front of it.
 */
import type { Op, Syscalls } from '../syscalls.ts';
import { at, Control, PAGE, Pipe, PIPE_BUFFERS, SHARED_PIPES, TERMINAL } from './layout.ts';
import { Signal } from './process.ts';
import type { Shared } from './shared.ts';
import { postGroup } from './signals.ts';

const CTRL_C = 3;
const CTRL_D = 4;
const CTRL_V = 22;
const CTRL_Z = 26;
const FIFO = 16; // bytes that one call takes
const ENDED = 1; // ^D was typed
const LITERAL = 2; // ^V was

export class TerminalInput {
  readonly #sys: Syscalls;
  readonly #shared: Shared;

  constructor(sys: Syscalls, shared: Shared) {
    this.#sys = sys;
    this.#shared = shared;
  }

  #word(word: number): number {
    return Control.pipes + TERMINAL * Pipe.words + word;
  }

  /** The first who opens it makes its ring. False: no page is left. */
  *open(): Op<boolean> {
    const shared = this.#shared;
    if ((yield* shared.control(Control.terminal)) !== 0) return true;
    const page = yield* shared.take();
    if (page < 0) return false;
    yield* shared.setControl(Control.shared + SHARED_PIPES + TERMINAL, page);
    yield* shared.setControl(this.#word(Pipe.readers), 1);
    yield* shared.setControl(this.#word(Pipe.writers), 1);
    yield* shared.setControl(Control.terminal, 1);
    // What came before somebody listened is still there.
    yield* shared.wake(yield* shared.control(Control.init), 1);
    return true;
  }

  /** Takes in what has been typed. The scheduler's: it waits for no lock, and looks later. */
  *feed(): Op<void> {
    const { port } = this.#sys;
    const shared = this.#shared;
    if ((yield* shared.control(Control.terminal)) === 0) return;
    for (;;) {
      if ((yield* shared.control(Control.lock)) !== 0) return;
      const tail = yield* shared.control(this.#word(Pipe.tail));
      const used = (tail - (yield* shared.control(this.#word(Pipe.head)))) | 0;
      if (PAGE - used < FIFO) {
        // Whoever reads makes room, and says so to us: bit 0.
        const waits = yield* shared.control(this.#word(Pipe.writerWaits));
        yield* shared.setControl(this.#word(Pipe.writerWaits), waits | 1);
        return;
      }
      const bytes = yield* this.#sys.consoleRead();
      if (bytes.length === 0) return;
      let end = tail;
      for (const byte of bytes) {
        if (!(yield* this.#isPlain(byte))) continue;
        const to = at(PIPE_BUFFERS + TERMINAL) + (end & (PAGE - 1));
        port.store8(to, byte) ?? (yield* port.fault());
        end = (end + 1) | 0;
      }
      yield* shared.setControl(this.#word(Pipe.tail), end);
      yield* shared.wakeAll(TERMINAL);
    }
  }

  /** False: the byte meant something, which has happened. */
  *#isPlain(byte: number): Op<boolean> {
    const shared = this.#shared;
    const flags = yield* shared.control(Control.terminalFlags);
    if ((flags & LITERAL) !== 0) {
      yield* shared.setControl(Control.terminalFlags, flags & ~LITERAL);
      return true;
    }
    if (byte === CTRL_V) yield* shared.setControl(Control.terminalFlags, flags | LITERAL);
    else if (byte === CTRL_D) {
      yield* shared.setControl(Control.terminalFlags, flags | ENDED);
    } else if (byte === CTRL_C || byte === CTRL_Z) {
      const signal = byte === CTRL_C ? Signal.INT : Signal.TSTP;
      yield* postGroup(shared, yield* shared.control(Control.foreground), signal);
    } else return true;
    return false;
  }

  /**
   * Bytes that can be read now: up to the end of a line; -1 at the end of input, 0 if none.
   * @param takes whether the end of input has been read then
   */
  *ready(bytes: number, takes = true): Op<number> {
    const { port } = this.#sys;
    const shared = this.#shared;
    const head = yield* shared.control(this.#word(Pipe.head));
    const all = ((yield* shared.control(this.#word(Pipe.tail))) - head) | 0;
    for (let n = 0; n < Math.min(all, bytes); n++) {
      const from = at(PIPE_BUFFERS + TERMINAL) + ((head + n) & (PAGE - 1));
      if ((port.load8(from) ?? (yield* port.fault())) === 0x0a) return n + 1;
    }
    const flags = yield* shared.control(Control.terminalFlags);
    if (all === 0 && (flags & ENDED) !== 0) {
      if (takes) yield* shared.setControl(Control.terminalFlags, flags & ~ENDED);
      return -1;
    }
    // A line that the end of input, or the buffer's, cuts off.
    return all >= bytes || (flags & ENDED) !== 0 ? Math.min(all, bytes) : 0;
  }
}
