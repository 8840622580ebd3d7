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
import { FAULT_FRAMES, Start, Upcall } from '../kernel/abi.ts';
import { type Op, Syscalls, type UserPort } from './syscalls.ts';

export type { Image, Op, UserPort };

const PAGE = 4096;
/** Where word of upcalls is left on the start page: frames of faults, then the slice masks. */
const FRAMES = Start.stackPage * PAGE;
const BEGIN_MASK = FRAMES + 4 * (1 + FAULT_FRAMES * 4);
const END_MASK = BEGIN_MASK + 4;
/** Where handlers save the registers of what they interrupted, a register file per nesting. */
const SAVED = FRAMES + 1024;
const REGISTER_BYTES = 128;

/** Entries of every libOS: 0 is `main`, its own begin at OWN_ENTRIES. */
const FAULT = 1;
const BEGIN = 2;
const END = 3;
export const OWN_ENTRIES = 4;

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

  /** Own environment id, from the first argument of whatever entry it was started at. */
  self = 0;

  /** Functions that other environments can be started at: number OWN_ENTRIES and up. */
  entries(): readonly Entry[] {
    return [];
  }

  /** Switches upcalls of faults on; they were off until now. */
  *catchFaults(): Op<void> {
    yield* this.port.store(FRAMES, 0);
    yield* this.sys.upcallSet(Upcall.fault, FAULT, FRAMES);
  }

  *catchSlices(): Op<void> {
    yield* this.port.store(BEGIN_MASK, 0);
    yield* this.port.store(END_MASK, 0);
    yield* this.sys.upcallSet(Upcall.sliceBegin, BEGIN, BEGIN_MASK);
    yield* this.sys.upcallSet(Upcall.sliceEnd, END, END_MASK);
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
    const slice = (mask: number, handler: () => Op<void>): Entry =>
      function* (): Op<void> {
        yield* saved(FAULT_FRAMES + 1, handler);
        yield* port.store(mask, 0);
      };
    return [
      started((...args) => this.main(...args)),
      fault,
      slice(BEGIN_MASK, () => this.onSliceBegin()),
      slice(END_MASK, () => this.onSliceEnd()),
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
