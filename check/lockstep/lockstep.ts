/**
 * Programs in lock step: a small machine with three tenants, on which whoever runs takes the next
 * step of a program, and a follower between it and the kernel. The first difference from the
 * specification ends the run.
 */
import { ARITY, Call, EnvState, Start, Status } from '../../kernel/abi.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import type { ExokernelConfig } from '../../kernel/exokernel/state.ts';
import type { Tenant } from '../../kernel/supervisor.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Image, Op, UserPort } from '../../machine/user-port.ts';
import type { Raw } from '../invariants/raw.ts';
import type { Env, World } from '../specification/model.ts';
import type { Happening } from '../specification/specification.ts';
import {
  CALL_NAMES,
  Follower,
  isRefusal,
  type KernelUnderTest,
  type Seen,
  statusName,
} from './follower.ts';
import { Operands, SCRATCH } from './operands.ts';
import { isCall, printStep, type Step } from './program.ts';

export type MakeKernel = (config: ExokernelConfig, tenants: readonly Tenant[]) => KernelUnderTest;

export const PAGES = 84;
const BLOCKS = 40; // of the disk
const CONFIG: ExokernelConfig = { environments: 10, slices: 5, sliceCycles: 10_000, extents: 8 };
const TENANTS: readonly Tenant[] = [0, 1, 2].map((n) => ({
  image: 0,
  quota: n === 2 ? 4 : 14,
  minimum: n === 2 ? 0 : 1,
  firstBlock: n * 12,
  blocks: 12,
}));

/** Entries of the image that programs run on. */
export const Entry = { main: 0, prober: 1, handler: 2 } as const; // handlers by kind of upcall
/** Frames of the upcalls, by kind. */
export const frameOf = (kind: number): number =>
  Start.stackPage * PAGE_BYTES + (kind === 0 ? 0 : 1024 + kind * 4);
const BATCH = SCRATCH + 512; // calls of a batch

const CHUNK = 3_000; // cycles between two looks whether the program is over
const EXITS_EACH = 60; // kernel exits that a step may take
const TRAIL = 12; // lines told of a failure

/** What runs did: how often each call was answered in which way. */
export class Tally {
  programs = 0;
  steps = 0;
  skipped = 0;
  exits = 0;
  calls = 0;
  /** `call status`, and of a refusal the argument */
  readonly answers = new Map<string, number>();
  readonly happenings = new Map<Happening['what'], number>();

  seen(what: Happening['what'], call: Seen | null): void {
    this.exits++;
    this.happenings.set(what, (this.happenings.get(what) ?? 0) + 1);
    if (call === null) return;
    this.calls++;
    const key = answerOf(call);
    this.answers.set(key, (this.answers.get(key) ?? 0) + 1);
  }
}
function answerOf({ number, answer }: Seen): string {
  const [name, status] = [CALL_NAMES[number] ?? 'none', statusName(answer?.status ?? Status.ok)];
  // Of a batch the value is how many of its calls were performed.
  const blames = answer !== undefined && isRefusal(answer) && name !== 'batch';
  return blames ? `${name} ${status} ${answer.value}` : `${name} ${status}`;
}

/** A step whose operands have been looked up. */
interface Act {
  readonly verb: string;
  readonly number: number; // of a call
  readonly args: readonly number[];
  readonly words: readonly (readonly [address: number, word: number])[];
}

export interface LockstepOptions {
  readonly tally?: Tally;
  /** Looked at after each kernel exit: what is wrong, if anything. */
  readonly audit?: (raw: Raw) => readonly string[];
  readonly make?: MakeKernel;
}

export class Lockstep {
  readonly machine: PhysicalMachine;
  readonly #follower: Follower;
  readonly #tally: Tally;
  readonly #steps: readonly Step[];
  readonly #trail: string[] = [];
  #next = 0;
  #asked = -1; // step for whose environment the CPU was yielded
  #done = false;
  #failure: Error | null = null;

  constructor(steps: readonly Step[], options: LockstepOptions = {}) {
    const { tally = new Tally(), audit, make } = options;
    this.#steps = steps;
    this.#tally = tally;
    this.machine = new PhysicalMachine({
      pages: PAGES,
      images: [this.#image()],
      medium: new RamMedium(BLOCKS),
      tlbSets: 8,
      tlbWays: 2,
    });
    const kernel = make?.(CONFIG, TENANTS) ?? new Exokernel(CONFIG, TENANTS);
    this.#follower = new Follower(kernel, {
      ...(audit === undefined ? {} : { audit }),
      seen: (what, call) => {
        tally.seen(what, call);
        if (call !== null) this.#trail.push(`# ${callText(call)}`);
      },
      failed: (why) => {
        this.#fail(why);
      },
    });
    this.machine.boot(this.#follower);
  }

  /** Runs the program to its end, or to the first difference, which it throws. */
  run(): void {
    const tally = this.#tally;
    tally.programs++;
    const fuel = tally.exits + (this.#steps.length + 20) * EXITS_EACH;
    while (!this.#done) {
      if (tally.exits > fuel) this.#fail(new Error('the program makes no progress'));
      else if (this.machine.run(this.machine.now() + CHUNK) === 'halted') break;
    }
    if (this.#failure === null) return;
    const lines = [this.#failure.message, ...this.#trail.slice(-TRAIL)];
    throw new Error(lines.join('\n'), { cause: this.#failure });
  }

  /** The steps that were done, and under each the calls that came of it. */
  get trail(): readonly string[] {
    return this.#trail;
  }

  #fail(why: Error): void {
    this.#failure ??= why;
    this.#done = true;
  }

  // ---- the programs -----------------------------------------------------------------------------

  /** What environment `row` is to do now; null: nothing any more. */
  #take(row: number): Act | null {
    const { world } = this.#follower;
    const me = world?.envs[row];
    while (world !== null && me !== undefined && !this.#done) {
      const step = this.#steps[this.#next];
      if (step === undefined) break;
      const other = world.envs[step.row];
      const waits = other !== undefined && other !== me && canRun(other);
      if (waits && this.#asked !== this.#next) {
        this.#asked = this.#next;
        return { verb: 'yield', number: Call.yield, args: [idOf(other)], words: [] };
      }
      this.#next++;
      const act = resolve(world, me, step);
      if (act === null) {
        this.#tally.skipped++;
        continue;
      }
      this.#tally.steps++;
      this.#trail.push(printStep({ ...step, row }));
      const [first = 0, second = 0] = act.args;
      if (act.verb === 'spoil') this.machine.device.failBlock(first);
      else if (act.verb === 'type') this.machine.type(first, Uint8Array.of(second));
      else return act;
    }
    this.#done = true;
    return null;
  }

  #image(): Image {
    const load = (port: UserPort): ((...args: number[]) => Op<void>)[] => {
      let [row, home] = [0, 0];
      let probe: () => number | undefined = () => 0;
      const act = (): Act | null => {
        try {
          return this.#take(row);
        } catch (error) {
          this.#fail(error instanceof Error ? error : new Error(String(error)));
          return null;
        }
      };
      /** One step; false if the program is to return. */
      function* perform(one: Act | null): Op<boolean> {
        if (one === null) {
          port.work(2 * CHUNK) ?? (yield* port.fault());
          return true;
        }
        const [first = 0, second = 0] = one.args;
        for (const [va, word] of one.words) port.store32(va, word) ?? (yield* port.fault());
        switch (one.verb) {
          case 'work':
            port.work(first) ?? (yield* port.fault());
            return true;
          case 'throw':
            throw new Error('as the program says');
          case 'return':
            return false;
          case 'load':
          case 'store': {
            probe = () => (one.verb === 'load' ? port.load32(first) : port.store32(first, second));
            home = port.thread();
            const prober = port.spawn(Entry.prober);
            if (prober >= 0) yield* port.switchTo(prober);
            return true;
          }
          default:
            yield* port.call(one.number, ...one.args);
            return true;
        }
      }
      const handler = (kind: number) =>
        function* (): Op<void> {
          const [here, back] = [port.thread(), home];
          yield* perform(act());
          const frame = frameOf(kind);
          if (kind > 0) {
            port.store32(frame, 0) ?? (yield* port.fault());
            return;
          }
          const standing = port.load32(frame) ?? (yield* port.fault());
          port.store32(frame, standing - 1) ?? (yield* port.fault());
          // Whoever probed is left where it faulted.
          if (here !== back) yield* port.switchTo(back);
        };
      return [
        function* (self = 0): Op<void> {
          row = self & 0x3fff;
          let goes = true;
          while (goes) goes = yield* perform(act());
        },
        function* (): Op<void> {
          probe() ?? (yield* port.fault());
          yield* port.switchTo(home);
        },
        ...[0, 1, 2, 3, 4].map(handler),
      ];
    };
    return { name: 'lockstep', entryCount: 7, load };
  }
}

const idOf = ({ generation, row }: Env): number => generation * 2 ** 14 + row;
const canRun = ({ state, suspended }: Env): boolean => state === EnvState.ready && !suspended;

/** A call as it came, and what it was answered. */
function callText(seen: Seen): string {
  const { caller, number, args, answer } = seen;
  const name = CALL_NAMES[number];
  const arity = ARITY[number] ?? 0;
  const shown = name === 'batch' ? 2 : name === 'yield' ? 1 : arity < 0 ? args.length : arity;
  const told = answer === undefined ? 'later' : `${statusName(answer.status)} ${answer.value}`;
  return `e${caller} ${name ?? number}(${args.slice(0, shown).join(', ')}): ${told}`;
}

/** The operands of a step, as the world stands; null if one of them stands for nothing. */
function resolve(world: World, me: Env, { verb, operands, lists }: Step): Act | null {
  const scope = new Operands(world, me);
  const words: [number, number][] = [];
  let at: number = verb === 'batch' ? BATCH : SCRATCH;
  const all = (tokens: readonly string[]): number[] | null => {
    const found = tokens.map((token) => (token === 'batch' ? [BATCH] : scope.resolve(token)));
    return found.includes(undefined) ? null : found.flatMap((values) => values ?? []);
  };
  for (const list of lists) {
    const [name = ''] = list;
    const values = all(isCall(name) ? list.slice(1) : list);
    if (values === null) return null;
    for (const word of isCall(name) ? [Call[name], ...values] : values) {
      words.push([at, word]);
      at += 4;
    }
  }
  const args = all(operands);
  if (args === null) return null;
  const number = verb === 'trap' ? (args[0] ?? 0) : isCall(verb) ? Call[verb] : -1;
  return { verb, number, args, words };
}
