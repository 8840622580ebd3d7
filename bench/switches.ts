/**
 * Traps and switches: contexts that do nothing but call the kernel, and a supervisor that answers
 * each call and runs the next context. With one context that is the bare trap-and-resume; with many
 * it is the same work and a switch, so their ratio is what a switch costs.
 */
import { assert } from '../machine/assert.ts';
import { PhysicalMachine } from '../machine/physical.ts';
import { NEVER } from '../machine/units.ts';
import type { Op, UserPort } from '../machine/user-port.ts';
import {
  Cause,
  type Context,
  type Machine,
  type Supervisor,
  type Trap,
} from '../kernel/supervisor.ts';
import { BOARD_PAGES, mapUser } from './board.ts';
import { median, processorTime } from './race.ts';

const CROWD = 1_000;
const MULTITUDE = 100_000;
const BATCH = 100_000; // traps: every context of the multitude once
const WARM_RUNS = 4;
const ROUNDS = 11;

/** Nanoseconds from a trap to the next, by the number of contexts that take turns. */
export interface Switches {
  readonly one: number;
  readonly thousand: number;
  readonly hundredThousand: number;
}

export function switches(): Switches {
  const rings = [1, CROWD, MULTITUDE].map((contexts) => new Ring(contexts));
  for (let n = 0; n < WARM_RUNS; n++) for (const ring of rings) ring.turn(BATCH);
  const turns = rings.map((): number[] => []);
  for (let round = 0; round < ROUNDS; round++) {
    rings.forEach((ring, n) => turns[n]?.push(ring.turn(BATCH)));
  }
  const [one, thousand, hundredThousand] = turns.map(median) as [number, number, number];
  return { one, thousand, hundredThousand };
}

/** A machine whose contexts call the kernel in turn. */
class Ring {
  readonly #supervisor: RoundRobin;
  readonly #machine: PhysicalMachine;
  readonly #cycles: number; // from one trap to the next

  constructor(contexts: number) {
    const caller = (port: UserPort) =>
      function* (): Op<void> {
        for (;;) {
          const { status, value } = yield* port.call(NULL_CALL);
          assert(status === 0 && value === NULL_CALL, 'switches: each call has its own answer');
        }
      };
    const image = { name: 'caller', entryCount: 1, load: (port: UserPort) => [caller(port)] };
    this.#supervisor = new RoundRobin(contexts);
    this.#machine = new PhysicalMachine({ pages: BOARD_PAGES, images: [image] });
    this.#machine.boot(this.#supervisor);
    this.turn(contexts, 1);
    const from = this.#machine.now();
    const before = this.#supervisor.traps;
    this.#machine.run(from + 1_000);
    this.#cycles = (this.#machine.now() - from) / (this.#supervisor.traps - before);
  }

  /** Takes about `count` traps and returns nanoseconds for each. */
  turn(count: number, cycles = this.#cycles): number {
    const before = this.#supervisor.traps;
    const until = this.#machine.now() + Math.round(count * cycles);
    const from = processorTime();
    this.#machine.run(until);
    return (processorTime() - from) / (this.#supervisor.traps - before);
  }
}

const NULL_CALL = 7;

/** Contexts 1 to `count`, each until its next call. Not restartable: its turn is in a field. */
class RoundRobin implements Supervisor {
  readonly #count: number;
  #machine: Machine | null = null;
  #current = 1;
  traps = 0;

  constructor(count: number) {
    this.#count = count;
  }

  boot(machine: Machine): void {
    this.#machine = machine;
    mapUser(machine);
    machine.setTimer(NEVER);
    for (let n = 1; n <= this.#count; n++) {
      machine.contexts.create(n, 0, 'user');
      machine.contexts.start(n, 0, []);
    }
  }

  dispatch(): Context | null {
    assert(this.#machine !== null, 'switches: booted');
    return this.#machine.contexts.context(this.#current);
  }

  trap({ cause }: Trap): void {
    assert(this.#machine !== null, 'switches: booted');
    assert(cause === Cause.environmentCall, 'switches: contexts do nothing but call');
    const { contexts } = this.#machine;
    contexts.setResult(this.#current, 0, contexts.argument(this.#current, 0));
    this.#current = this.#current === this.#count ? 1 : this.#current + 1;
    this.traps++;
  }
}
