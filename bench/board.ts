/**
 * The board that user programs are measured on: a real PhysicalMachine, Sv39 tables laid by hand,
 * timer slices, and the smallest supervisor that can run one program to its end. Beside the user
 * port it hands out what the program is compared with: the same pages as a raw typed array.
 */
import { assert } from '../machine/assert.ts';
import { PhysicalMachine } from '../machine/physical.ts';
import { pte, PTE_R, PTE_U, PTE_V, PTE_W } from '../machine/sv39.ts';
import { NEVER, PAGE_BYTES, PAGE_WORDS } from '../machine/units.ts';
import type { Op, UserPort } from '../machine/user-port.ts';
import {
  Cause,
  type Context,
  type Machine,
  type Supervisor,
  type Trap,
  writeDirectMap,
} from '../kernel/supervisor.ts';
import { SLICE, type Timer } from './race.ts';

const ROOT = 1; // page of each table
const MIDDLE = 2;
const LEAF = 3;
const FIRST = 4; // physical page of virtual page 0
export const USER_PAGES = 256; // mapped from address 0 on: every access hits the table in front
const PROGRAM = 1; // context

/** What a program under measurement has. */
export interface Board extends Timer {
  readonly port: UserPort;
  /** the program's memory without a machine around it: index = address / 4 */
  readonly words: Int32Array;
  /** the same as bytes: index = address */
  readonly bytes: Uint8Array;
}

/** Writes tables that map USER_PAGES from address 0 on, and installs them. */
export function mapUser(machine: Machine): void {
  for (const page of [ROOT, MIDDLE, LEAF]) machine.zeroPage(page);
  writeDirectMap(machine, ROOT);
  machine.writePtes([
    { table: ROOT, index: 0, value: pte(MIDDLE, PTE_V) },
    { table: MIDDLE, index: 0, value: pte(LEAF, PTE_V) },
  ]);
  for (let n = 0; n < USER_PAGES; n++) {
    const value = pte(FIRST + n, PTE_V | PTE_R | PTE_W | PTE_U);
    machine.writePtes([{ table: LEAF, index: n, value }]);
  }
  machine.setAddressSpace({ root: ROOT, asid: 1 });
  machine.fence();
}

/** Pages that a machine must have for `mapUser`. */
export const BOARD_PAGES = FIRST + USER_PAGES;

/** Runs user code on a fresh board until it ends, and returns what it returned. */
export function onBoard<T>(program: (board: Board) => Op<T>): T {
  const supervisor = new OneProgram();
  let result: { readonly value: T } | null = null;
  const main = (port: UserPort) =>
    function* (): Op<void> {
      const { memory } = machine;
      const first = FIRST * PAGE_WORDS;
      const board: Board = {
        port,
        words: memory.i32.subarray(first, first + USER_PAGES * PAGE_WORDS),
        bytes: memory.u8.subarray(FIRST * PAGE_BYTES, (FIRST + USER_PAGES) * PAGE_BYTES),
        get slice() {
          return supervisor.slice;
        },
        set slice(cycles: number) {
          supervisor.slice = cycles;
        },
      };
      result = { value: yield* program(board) };
    };
  const image = { name: 'bench', entryCount: 1, load: (port: UserPort) => [main(port)] };
  const machine = new PhysicalMachine({ pages: BOARD_PAGES, images: [image] });
  machine.boot(supervisor);
  machine.run();
  const ended = result as { readonly value: T } | null;
  assert(ended !== null, 'board: the program ran to its end');
  return ended.value;
}

/** Runs one program in slices, answers its calls with 0, and stops at whatever else it does. */
class OneProgram implements Supervisor {
  slice = SLICE;
  #machine: Machine | null = null;

  boot(machine: Machine): void {
    this.#machine = machine;
    mapUser(machine);
    machine.setTimer(machine.now() + this.slice);
    machine.contexts.create(PROGRAM, 0, 'user');
    machine.contexts.start(PROGRAM, 0, []);
  }

  dispatch(): Context | null {
    const { contexts } = this.#booted();
    return contexts.exists(PROGRAM) ? contexts.context(PROGRAM) : null;
  }

  trap({ cause }: Trap): void {
    const machine = this.#booted();
    if (cause === Cause.timerInterrupt) machine.setTimer(machine.now() + this.slice);
    else if (cause === Cause.environmentCall) machine.contexts.setResult(PROGRAM, 0, 0);
    else {
      const failure = machine.contexts.failure(PROGRAM);
      assert(cause === Cause.threadEnd, `board: the program ends well, not ${cause} ${failure}`);
      machine.setTimer(NEVER);
      machine.contexts.destroy(PROGRAM);
    }
  }

  #booted(): Machine {
    assert(this.#machine !== null, 'board: booted');
    return this.#machine;
  }
}
