/**
 * A library OS for one program that allocates without end: a Lisp on a generational, concurrent
 * collector whose barriers are page rights. The kernel knows nothing of it: it changes rights when
 * asked, and forwards the faults.
 *
 * Thread 0 runs the program, the other one collects; they take turns when a slice begins.
 */
import { Upcall } from '../../kernel/abi.ts';
import { image, type Image, LibOS, type Op, OWN_ENTRIES } from '../libos.ts';
import { FreePages } from '../parts/free-pages.ts';
import { Collector } from './collector.ts';
import { Heap, type Shape } from './heap.ts';
import { Lisp } from './lisp.ts';
import { type LispProgram, PROGRAMS } from './programs.ts';

export const SHAPE: Shape = { nursery: 12, half: 48 };

class Gc extends LibOS {
  readonly #programs: readonly LispProgram[];
  readonly #heap: Heap;
  readonly #lisp: Lisp;

  constructor(port: LibOS['port'], programs: readonly LispProgram[], shape: Shape) {
    super(port);
    this.#programs = programs;
    this.#heap = new Heap(this.sys, new FreePages(this.sys), shape);
    this.#lisp = new Lisp(port, (roots) => new Collector(port, this.#heap, roots));
  }

  override *main(_self: number, _root: number, middle: number, leaf: number): Op<void> {
    const { collector } = this.#lisp;
    yield* this.#heap.bind(leaf, middle);
    yield* this.catchFaults();
    collector.use(this.port.spawn(OWN_ENTRIES, this.self));
    yield* this.catchSlices();
    yield* this.catchRevocation();
    yield* this.#lisp.begin();
    for (const { name, text } of this.#programs) {
      yield* this.print(`${name}: ${yield* this.#lisp.run(text)}\n`);
    }
  }

  override entries(): readonly (() => Op<void>)[] {
    return [() => this.#lisp.collector.background()];
  }

  override onFault(cause: number, address: number): Op<boolean> {
    return this.#lisp.collector.fault(cause, address);
  }

  override *onSliceBegin(): Op<void> {
    yield* this.acknowledge(Upcall.sliceBegin);
    yield* this.#lisp.collector.turn();
  }

  override onRevoke(wanted: number): Op<void> {
    return this.#lisp.collector.revoked(wanted);
  }
}

/** The programs, one after the other, on a heap of this shape. */
export function gc(programs: readonly LispProgram[] = PROGRAMS, shape: Shape = SHAPE): Image {
  return image('gc', (port) => new Gc(port, programs, shape), 1);
}
