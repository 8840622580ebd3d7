/**
 * The run loop: one class for the physical hart and for every vCPU, so a vCPU is a Context and
 * nesting is recursion. Nothing is ever suspended in the middle of JavaScript: the stack unwinds at
 * each trap.
 *
 * Laws (the contract suite holds them): `dispatch` is called exactly once after each trap told to
 * this supervisor and never after an outer one; the outer timer wins; a trap for an outer level
 * leaves the current context where it is; a supervisor that throws Blocked is rolled back and told
 * the same trap again.
 */
import { E } from './counters.ts';
import type { Hart } from './hart.ts';
import { Cause, type Context, type Privilege, type Supervisor, type Trap } from './machine.ts';
import type { Tick } from './units.ts';
import type { Regime } from './walker.ts';

/**
 * Thrown through a supervisor that cannot go on now: its handler is rolled back and the trap
 * delivered again later. The machine throws it, never the supervisor.
 */
export class Blocked extends Error {
  override readonly name = 'Blocked';
  readonly trap: Trap;
  constructor(trap: Trap) {
    super('the supervisor waits for its machine');
    this.trap = trap;
  }
}

/** What the loop needs of the machine whose supervisor it drives. */
export interface LoopMachine {
  readonly level: number;
  readonly hart: Hart;
  /** Whether what runs here does so in guest mode of the machine below, as a nested guest does. */
  readonly inGuestMode: boolean;
  regime(): Regime;
  timer(): Tick;
  /** Takes the pending external interrupt, if there is one. */
  takeInterrupt(): boolean;
  /** Takes the pending interrupt of a console channel: which, or -1. */
  takeTyped(): number;
  /** When the next device event of this machine is due; NEVER if none, or not ours to know. */
  nextEvent(): Tick;
  /** Runs device events that are due. */
  poll(): void;
  privilegeOf(context: Context): Privilege;
  /** The way into the supervisor, with a trap that interrupted `from`: hardware's part, charged. */
  entered(trap: Trap, from: Context | null): void;
  /** The way out of it, to `to` or to waiting. */
  left(to: Context | null): void;
  /** A call in the supervisor's own privilege returns: nothing is crossed. */
  returned(): void;
  /** True while handlers must be undoable. */
  readonly transactional: boolean;
  begin(): void;
  /** What was put off happens now. May itself be Blocked: then all is to be rolled back. */
  commit(): void;
  /** Undoes the handler that `blocked` ended; what its outer supervisor is told. */
  rollback(blocked: Trap): Trap;
}

export class HartLoop implements Context {
  readonly #machine: LoopMachine;
  readonly #supervisor: Supervisor;
  #current: Context | null = null;
  #pending: Trap | null = null;
  #booted = false;

  readonly #boot: () => void;

  /** @param boot what the first run begins with: a guest boots on its own time */
  constructor(machine: LoopMachine, supervisor: Supervisor, boot: () => void = () => undefined) {
    this.#machine = machine;
    this.#supervisor = supervisor;
    this.#boot = boot;
  }

  get inGuestMode(): boolean {
    return this.#machine.inGuestMode;
  }

  /** True while the supervisor waits for an interrupt. */
  get idle(): boolean {
    return this.#booted && this.#current === null && this.#pending === null;
  }

  /** Its hypervisor has taken a trap of the guest's programs, and gives it on; how to undo that. */
  inject(got: Trap): () => void {
    const was = this.#pending;
    this.#pending = { ...got, level: this.#machine.level };
    return () => {
      this.#pending = was;
    };
  }

  /**
   * Runs until the clock reaches `until`, or a trap for an outer level. A wait for an interrupt
   * carries the deadline out in `tval`, NEVER included.
   */
  run(until: Tick): Trap {
    const machine = this.#machine;
    const { hart, level } = machine;
    if (!this.#booted) {
      const blocked = this.#start();
      if (blocked !== null) return blocked;
    }
    for (;;) {
      if (this.#pending !== null) {
        const blocked = this.#deliver(this.#pending);
        if (blocked !== null) return blocked;
      }
      machine.poll();
      const now = hart.now();
      if (now >= until) return trap(Cause.timerInterrupt, level - 1, 0);
      if (machine.takeInterrupt()) {
        this.#pending = trap(Cause.externalInterrupt, level, 0);
        continue;
      }
      const channel = machine.takeTyped();
      if (channel >= 0) {
        this.#pending = trap(Cause.consoleInterrupt, level, channel);
        continue;
      }
      const timer = machine.timer();
      if (now >= timer) {
        this.#pending = trap(Cause.timerInterrupt, level, 0);
        continue;
      }
      if (this.#current === null) {
        const wake = Math.min(timer, machine.nextEvent());
        return trap(Cause.virtualInstruction, level - 1, wake);
      }
      const end = Math.min(until, timer, machine.nextEvent());
      const storm = hart.storm;
      const got = this.#current.run(end);
      if (got.level < level) return got;
      if (got.cause === Cause.timerInterrupt) {
        // The loop's head knows whose timer it was; only a storm's trap is told as it comes.
        if (storm && hart.now() < end) this.#deliverFree(got);
        continue;
      }
      this.#pending = got;
    }
  }

  /** A storm's trap costs nothing: the clock stands where it stood. */
  #deliverFree(got: Trap): void {
    const { hart } = this.#machine;
    const at = hart.now();
    this.#deliver({ ...got, level: this.#machine.level });
    hart.refundTo(at);
  }

  /** Tells the supervisor one trap and asks once what runs next; the trap stays if it blocks. */
  #deliver(got: Trap): Trap | null {
    const machine = this.#machine;
    const { hart } = machine;
    this.#enter();
    const call =
      got.cause === Cause.environmentCall &&
      this.#current !== null &&
      machine.privilegeOf(this.#current) === 'supervisor';
    let next: Context | null;
    try {
      if (machine.transactional) machine.begin();
      this.#count(got, call);
      if (call) hart.charge('procedure-call', hart.costs.procedureCall);
      else machine.entered(got, this.#current);
      this.#supervisor.trap(got);
      next = this.#supervisor.dispatch();
      if (!call || (next !== null && machine.privilegeOf(next) === 'user')) machine.left(next);
      else machine.returned();
      if (machine.transactional) machine.commit();
    } catch (error) {
      this.#pending = got;
      return this.#blocked(error);
    }
    if (hart.listener !== null) hart.tell({ what: 'return', level: machine.level });
    this.#pending = null;
    this.#current = next;
    return null;
  }

  /** Who runs, while no trap waits to be told: all that the loop has. Null: there is more to it. */
  get rest(): { readonly current: Context | null } | null {
    return this.#booted && this.#pending === null ? { current: this.#current } : null;
  }

  /** Goes on where another loop was, instead of booting. */
  resume(current: Context | null): void {
    this.#booted = true;
    this.#current = current;
  }

  #start(): Trap | null {
    const machine = this.#machine;
    this.#enter();
    try {
      if (machine.transactional) machine.begin();
      this.#boot();
      this.#current = this.#supervisor.dispatch();
      machine.left(this.#current);
      if (machine.transactional) machine.commit();
    } catch (error) {
      return this.#blocked(error);
    }
    this.#booted = true;
    return null;
  }

  /** A handler could not go on: it leaves no trace, and is begun anew when it can. */
  #blocked(error: unknown): Trap {
    if (!(error instanceof Blocked)) throw error;
    const machine = this.#machine;
    const told = machine.rollback(error.trap);
    machine.hart.counters.add(E.restarts, 1);
    return told;
  }

  #enter(): void {
    const { hart, level } = this.#machine;
    hart.install(this.#machine.regime());
    hart.enterLayer(Math.min(level, 2));
  }

  #count({ cause, tval }: Trap, call: boolean): void {
    const { hart, level } = this.#machine;
    const { counters } = hart;
    if (hart.listener !== null) hart.tell({ what: 'trap', cause, level, tval });
    if (call) {
      counters.add(E.procedureCalls, 1);
      return;
    }
    counters.add(E.traps, 1);
    const guest = this.#current instanceof HartLoop;
    if (guest) counters.add(E.vmExits, 1);
    // What a hypervisor takes first counts as the call or the fault that it is when it is given on.
    if (cause === Cause.environmentCall) counters.add(E.kernelCalls, guest ? 0 : 1);
    else if (cause === Cause.loadPageFault || cause === Cause.storePageFault) {
      counters.add(E.pageFaults, guest ? 0 : 1);
    } else if (cause === Cause.loadGuestPageFault || cause === Cause.storeGuestPageFault) {
      counters.add(E.guestPageFaults, 1);
    } else if (cause === Cause.timerInterrupt) counters.add(E.timerInterrupts, 1);
    else if (cause === Cause.externalInterrupt || cause === Cause.consoleInterrupt) {
      counters.add(E.externalInterrupts, 1);
    }
  }
}

const trap = (cause: Cause, level: number, tval: number): Trap => ({ cause, tval, gpa: 0, level });
