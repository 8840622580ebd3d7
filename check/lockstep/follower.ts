/**
 * A follower stands between a machine and a kernel, with the specification beside it. After every
 * trap what the kernel answered and did at its door, who runs, the abstract state read out of
 * memory, and the words of every user page are what the specification says; and a refused call has
 * changed no word of memory besides. The first difference is told, and ends it.
 *
 * It trusts the machine, and neither the kernel nor the programs.
 */
import {
  Call,
  type CallName,
  EnvState,
  PageKind,
  Status,
  type StatusName,
} from '../../kernel/abi.ts';
import type { State as KernelState } from '../../kernel/exokernel/state.ts';
import {
  Cause,
  type Context,
  type Machine,
  type Supervisor,
  type Trap,
} from '../../kernel/supervisor.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { PAGE_BYTES, PAGE_WORDS } from '../../machine/units.ts';
import { Raw } from '../invariants/raw.ts';
import type { Event, World } from '../specification/model.ts';
import { type Answer, happen, type Happening } from '../specification/specification.ts';
import { stateOf } from './abstraction.ts';
import { differences, show } from './compare.ts';
import { TOOK, Watched } from './watched.ts';

/** A kernel to be tested: the exokernel, or somebody's own with the same tables. */
export interface KernelUnderTest extends Supervisor {
  /** its tables, once booted */
  readonly state: KernelState;
}

/** A call that was made, and what it was answered; nothing if the answer comes later. */
export interface Seen {
  readonly caller: number;
  readonly number: number;
  readonly args: readonly number[];
  readonly answer: Answer | undefined;
}

export interface Watchers {
  /** Looked at after each kernel exit: what is wrong, if anything. */
  readonly audit?: (raw: Raw) => readonly string[];
  /** After each trap. */
  readonly seen?: (what: Happening['what'], call: Seen | null) => void;
  /** What went wrong: a difference, or what the kernel threw. Default: it is thrown. */
  readonly failed?: (why: Error) => void;
}

export class Divergence extends Error {
  override readonly name = 'Divergence';
}

const STATUS_NAMES = Object.keys(Status) as StatusName[];
export const CALL_NAMES = Object.keys(Call) as CallName[];
export const statusName = (status: number): string =>
  STATUS_NAMES.find((name) => Status[name] === status) ?? String(status);
/** `again` is no refusal, a step was done; nor is `interrupted`, a wait is over. */
export const isRefusal = ({ status }: Answer): boolean =>
  status !== Status.ok && status !== Status.again && status !== Status.interrupted;

export class Follower implements Supervisor {
  readonly #kernel: KernelUnderTest;
  readonly #watchers: Watchers;
  #machine: PhysicalMachine | null = null;
  #watched: Watched | null = null;
  #raw: Raw | null = null;
  #happening: ((over: Watched['over']) => Happening) | null = null;
  /** As the specification has it; null until the kernel has booted. */
  world: World | null = null;

  constructor(kernel: KernelUnderTest, watchers: Watchers = {}) {
    this.#kernel = kernel;
    this.#watchers = watchers;
  }

  boot(machine: Machine): void {
    if (!(machine instanceof PhysicalMachine)) throw new Error('lock step is on the hardware');
    this.#machine = machine;
    this.#watched = new Watched(machine);
    this.#kernel.boot(this.#watched);
    this.#raw = new Raw(machine, this.#kernel.state);
  }

  trap(trap: Trap): void {
    const [watched, machine] = [this.#watched, this.#machine];
    if (watched === null || machine === null) return;
    const now = watched.stop();
    this.#happening = this.world === null ? null : enter(machine, this.world, trap, now);
    this.#try(() => {
      this.#kernel.trap(trap);
    });
  }

  dispatch(): Context | null {
    let next: Context | null = null;
    this.#try(() => (next = this.#kernel.dispatch()));
    const [watched, machine, raw] = [this.#watched, this.#machine, this.#raw];
    if (watched === null || machine === null || raw === null) return next;
    watched.go();
    const happening = this.#happening?.(watched.over);
    if (this.world !== null && happening !== undefined) {
      const { world } = this;
      this.#try(() => {
        this.#leave(machine, raw, world, happening, watched.events);
      });
    } else if (this.world === null && raw.stateOf(1) !== EnvState.free) {
      this.world = firstWorld(machine, raw, watched);
    }
    return next;
  }

  /** The kernel has done its work: so must it be. */
  #leave(
    machine: PhysicalMachine,
    raw: Raw,
    world: World,
    happening: Happening,
    did: readonly Event[],
  ): void {
    const caller = world.cpu.current;
    const answer = happen(world, happening);
    const wrong = [
      ...events(did, world.log),
      ...differences(stateOf(raw), bare(world)).map((one) => `state${one}`),
      ...wrongWords(machine, world),
    ];
    const call = happening.what === 'call' ? { caller, answer, ...argumentsOf(happening) } : null;
    // Of a refused batch what was performed before is done.
    const isWhole = call?.number !== Call.batch || answer?.value === 0;
    if (answer !== undefined && isRefusal(answer) && isWhole) {
      wrong.push(...changed(machine, raw, world, caller));
    }
    wrong.push(...(this.#watchers.audit?.(raw) ?? []));
    this.#watchers.seen?.(happening.what, call);
    if (wrong.length > 0) throw new Divergence(wrong.join('\n'));
  }

  /** A kernel that throws has failed as well. */
  #try(act: () => void): void {
    try {
      act();
    } catch (error) {
      const why = error instanceof Error ? error : new Error(String(error));
      if (this.#watchers.failed === undefined) throw why;
      this.#watchers.failed(why);
    }
  }
}

const KINDS: ReadonlyMap<Cause, Happening['what']> = new Map([
  [Cause.timerInterrupt, 'tick'],
  [Cause.consoleInterrupt, 'typed'],
  [Cause.externalInterrupt, 'interrupt'],
  [Cause.threadEnd, 'end'],
  [Cause.userException, 'exception'],
]);
const ARGUMENTS = 8;

/** What a trap is; and the world is as the kernel finds it. */
function enter(machine: PhysicalMachine, world: World, { cause, tval }: Trap, now: number) {
  world.memory.set(machine.memory.i32);
  world.now = now;
  world.log = [];
  const what = KINDS.get(cause) ?? 'fault';
  if (cause !== Cause.environmentCall) {
    return (over: Watched['over']) =>
      ({ what, cause, address: tval, channel: tval, took: TOOK, over }) as Happening;
  }
  const args = Array.from({ length: ARGUMENTS + 1 }, (_, n) =>
    machine.contexts.argument(world.cpu.current, n),
  );
  return (): Happening => ({ what: 'call', number: args[0] ?? 0, a: (n) => args[n + 1] ?? 0 });
}

const argumentsOf = ({ number, a }: Happening & { what: 'call' }) => ({
  number,
  args: Array.from({ length: ARGUMENTS }, (_, n) => a(n)),
});

function firstWorld(machine: PhysicalMachine, raw: Raw, watched: Watched): World {
  return {
    ...stateOf(raw),
    log: [],
    now: 0,
    memory: new Int32Array(machine.memory.i32.length),
    hasEntry: (image, entry) => machine.contexts.hasEntry(image, entry),
    // Of the frames that a thread may have, upcalls and faults of one environment take a third.
    hasRoom: () => true,
    arrived: (channel) => (watched.read.channel === channel ? watched.read.bytes : []),
  };
}

/** The world without what happened at the door, and what is the machine's. */
function bare({ pages, leaves, envs, accounts, slices, extents, ...rest }: World): unknown {
  const { requests, cpu, kept, blocks, sliceCycles } = rest;
  const state = { pages, leaves, envs, accounts, slices, extents };
  return { ...state, requests, cpu, kept, blocks, sliceCycles };
}

const TABLE_ROW = 63; // of requests: what it is written from is the kernel's own page

/** What happened at the door, in any order, is what should have. */
function events(did: readonly Event[], due: readonly Event[]): string[] {
  const text = (event: Event): string =>
    (event[0] === 'disk' && event[1] === TABLE_ROW ? event.slice(0, 4) : event).join(' ');
  const [is, wanted] = [did.map(text).sort(), due.map(text).sort()];
  return is.join('\n') === wanted.join('\n')
    ? []
    : [`at the door: ${show(is)}, should be ${show(wanted)}`];
}

/** Words of user pages are what they should be. */
function wrongWords({ memory: { u8, i32 } }: PhysicalMachine, { memory, pages }: World): string[] {
  const due = Buffer.from(memory.buffer);
  for (const { at, kind } of pages) {
    const [from, to] = [at * PAGE_BYTES, (at + 1) * PAGE_BYTES];
    if (kind !== PageKind.user || due.compare(u8, from, to, from, to) === 0) continue;
    for (let word = at * PAGE_WORDS; word < (at + 1) * PAGE_WORDS; word++) {
      if (memory[word] === i32[word]) continue;
      return [`word ${word & 1023} of page ${at}: ${i32[word]}, should be ${memory[word]}`];
    }
  }
  return [];
}

/**
 * KM-03: a refused call has changed nothing but where the kernel saved the caller's registers, and
 * the accessed bits that the hardware set while the kernel read the caller's memory. The world's
 * memory is as the kernel found it, for to the specification nothing has changed either.
 */
function changed(machine: PhysicalMachine, raw: Raw, world: World, caller: number): string[] {
  const { u8, i32 } = machine.memory;
  const was = Buffer.from(world.memory.buffer);
  for (let page = 0; page < machine.pages; page++) {
    const [from, to] = [page * PAGE_BYTES, (page + 1) * PAGE_BYTES];
    if (was.compare(u8, from, to, from, to) === 0) continue;
    for (let word = page * PAGE_WORDS; word < (page + 1) * PAGE_WORDS; word++) {
      const difference = (world.memory[word] ?? 0) ^ (i32[word] ?? 0);
      if (difference === 0 || raw.isSaveArea(word, caller)) continue;
      if (raw.isAccessedBit(word, difference)) continue;
      return [`KM-03: a refused call changed ${raw.describe(word)}`];
    }
  }
  return [];
}
