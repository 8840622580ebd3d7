/**
 * What a library OS is: a class with a `main` and upcall handlers, all of them user code, one
 * instance per environment. It is unprivileged; a mistake in it hurts its own environment and
 * nobody else. Instances share no JavaScript object: what environments share lies in shared pages
 * or behind IPC.
 *
 * `image` turns such a class into a program that a machine can load. Entry 0 is `main`; further
 * entries are the functions that the class lists, by number, because a kernel knows numbers only.
 */
import type { Entry, Image } from '../machine/user-port.ts';
import { FAULT_FRAME_WORDS, FAULT_FRAMES, Start, Upcall, UPCALL_KINDS } from '../kernel/abi.ts';
import { type Op, Syscalls, type UserPort } from './syscalls.ts';

export type { Image, Op, UserPort };

const PAGE = 4096;
/**
 * Where word of upcalls is left on the start page: frames of faults, then a mask per other kind.
 */
const FRAMES = Start.stackPage * PAGE;
const MASKS = FRAMES + 4 * (1 + FAULT_FRAMES * FAULT_FRAME_WORDS);
const maskOf = (kind: number): number => MASKS + 4 * (kind - 1);
/** How many critical sections we are in, and whether the slice ended meanwhile. */
const CRITICAL = maskOf(UPCALL_KINDS);
const INTERRUPTED = CRITICAL + 4;
/** Where handlers save the registers of what they interrupted: per fault, then per other kind. */
const SAVED = FRAMES + 1024;
const REGISTER_BYTES = 128;
/** What is left of the start page: text on its way to the console, a half for each who prints. */
const TEXT = SAVED + (FAULT_FRAMES + UPCALL_KINDS) * REGISTER_BYTES;
const TEXT_BYTES = (FRAMES + PAGE - TEXT) / 2;

/** Entries of every libOS: `main`, a handler of each upcall, and from OWN_ENTRIES on its own. */
const entryOf = (kind: number): number => 1 + kind;
export const OWN_ENTRIES = 1 + UPCALL_KINDS;

export abstract class LibOS {
  readonly port: UserPort;
  readonly sys: Syscalls;

  constructor(port: UserPort) {
    this.port = port;
    this.sys = new Syscalls(port);
  }

  /** Where the first environment of a tenant starts: see StartArguments in the kernel's abi.ts. */
  abstract main(...args: number[]): Op<void>;

  /** A fault of this environment, the faulting access waiting beneath. True: try it again. */
  *onFault(_cause: number, _address: number): Op<boolean> {
    yield* this.sys.envDestroy(this.self, 0, -1);
    return false;
  }
  *onSliceBegin(): Op<void> {}
  *onSliceEnd(): Op<void> {
    yield* this.sys.yieldTo(-1);
  }
  /** `wanted` pages are to be freed within `cycles`; which, is ours to choose. */
  *onRevoke(_wanted: number, _cycles: number): Op<void> {}
  /** Pages were taken by force, `losses` so far: the loss table says which, and where they went. */
  *onRepossessed(_losses: number): Op<void> {}

  /** Own environment id, from the first argument of whatever entry it was started at. */
  self = 0;

  /** Text to the console. A handler may print in the middle of what it interrupted printing. */
  *print(text: string): Op<void> {
    const bytes = new TextEncoder().encode(text);
    const at = TEXT + Math.min(this.#printing, 1) * TEXT_BYTES;
    this.#printing++;
    for (let done = 0; done < bytes.length; done += TEXT_BYTES) {
      const part = Math.min(TEXT_BYTES, bytes.length - done);
      yield* bulk(this.port, this.port.write(at, bytes, done, part));
      yield* this.sys.consoleWrite(at, part);
    }
    this.#printing--;
  }
  #printing = 0;

  /** Functions that other environments can be started at: number OWN_ENTRIES and up. */
  entries(): readonly Entry[] {
    return [];
  }

  /** Switches upcalls of faults on; they were off until now. */
  *catchFaults(): Op<void> {
    yield* this.port.store(FRAMES, 0);
    yield* this.sys.upcallSet(Upcall.fault, entryOf(Upcall.fault), FRAMES);
  }

  *catchSlices(): Op<void> {
    yield* this.#catch(Upcall.sliceBegin);
    yield* this.#catch(Upcall.sliceEnd);
  }

  *catchRevocation(): Op<void> {
    yield* this.#catch(Upcall.revoke);
    yield* this.#catch(Upcall.repossessed);
  }

  /**
   * Takes note of an upcall of this kind: the next may come, though the handler has not returned.
   * For a handler that switches threads, and so may return much later.
   */
  *acknowledge(kind: number): Op<void> {
    yield* this.port.store(maskOf(kind), 0);
  }

  *#catch(kind: number): Op<void> {
    yield* this.acknowledge(kind);
    yield* this.sys.upcallSet(kind, entryOf(kind), maskOf(kind));
  }

  /**
   * Runs `body` as a critical section: a slice that ends within it is given up when the last
   * section is left, instead of in the middle. No lock is taken and nobody is asked: two words of
   * our own memory are written. It defers and does not mask. Who is not out by the end of the grace
   * period is preempted all the same, and forfeits a turn. For one hart, and for state that no
   * other environment shares. Needs `catchSlices`. Xok: critical sections.
   */
  *critical<T>(body: () => Op<T>): Op<T> {
    const { port } = this;
    const depth = yield* port.load(CRITICAL);
    yield* port.store(CRITICAL, depth + 1);
    try {
      return yield* body();
    } finally {
      yield* port.store(CRITICAL, depth);
      if (depth === 0 && (yield* port.load(INTERRUPTED)) !== 0) yield* this.#endSlice();
    }
  }

  *#endSlice(): Op<void> {
    yield* this.port.store(INTERRUPTED, 0);
    yield* this.onSliceEnd();
  }

  *#deferred(): Op<void> {
    if ((yield* this.port.load(CRITICAL)) === 0) yield* this.#endSlice();
    else yield* this.port.store(INTERRUPTED, 1);
  }

  /** What was deferred in an earlier slice has been overtaken. */
  *#begun(): Op<void> {
    yield* this.port.store(INTERRUPTED, 0);
    yield* this.onSliceBegin();
  }

  /** Every entry as the kernel starts it: own id first, handlers between saving and restoring. */
  allEntries(): readonly Entry[] {
    const { port } = this;
    const started = (entry: Entry): Entry => {
      const libos = this;
      return function* (...args: number[]): Op<void> {
        libos.self = args[0] ?? 0;
        yield* entry(...args);
      };
    };
    const saved = function* (depth: number, handler: () => Op<void>): Op<void> {
      const at = SAVED + depth * REGISTER_BYTES;
      yield* bulk(port, port.write(at, port.registers(), 0, REGISTER_BYTES));
      yield* handler();
      yield* bulk(port, port.read(at, new Uint8Array(REGISTER_BYTES), 0, REGISTER_BYTES));
    };
    const libos = this;
    const fault: Entry = function* (cause, address): Op<void> {
      const standing = yield* port.load(FRAMES);
      yield* saved(standing, function* () {
        const again = yield* libos.onFault(cause ?? 0, address ?? 0);
        if (!again) yield* libos.sys.envDestroy(libos.self, 0, -1);
      });
      yield* port.store(FRAMES, standing - 1);
    };
    const masked = (kind: number, handler: (...args: number[]) => Op<void>): Entry =>
      function* (...args): Op<void> {
        yield* saved(FAULT_FRAMES + kind, () => handler(...args));
        yield* libos.acknowledge(kind);
      };
    return [
      started((...args) => this.main(...args)),
      fault,
      masked(Upcall.sliceBegin, () => this.#begun()),
      masked(Upcall.sliceEnd, () => this.#deferred()),
      masked(Upcall.revoke, (wanted = 0, cycles = 0) => this.onRevoke(wanted, cycles)),
      masked(Upcall.repossessed, (losses = 0) => this.onRepossessed(losses)),
      ...this.entries().map(started),
    ];
  }
}

function* bulk(port: UserPort, done: number | undefined): Op<void> {
  if (done === undefined) yield* port.fault();
}

/**
 * The program that a machine loads: a fresh instance of the class for each environment.
 * @param own how many entries the class lists itself
 */
export function image(name: string, make: (port: UserPort) => LibOS, own = 0): Image {
  return {
    name,
    entryCount: OWN_ENTRIES + own,
    load: (port) => make(port).allEntries(),
  };
}
