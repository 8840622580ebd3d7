/**
 * Runs one workload in one mode and counts. Nothing here depends on the host's clock: the same
 * tree, parameters and seed give the same result, byte for byte.
 *
 * What is measured is the work: each tenant's counters from the moment its Unix says that it is up
 * (an empty console write) until the machine has nothing left to do. A workload of two boots is
 * powered off in between, and both are counted.
 */
import { createHash } from 'node:crypto';
import { Bug } from '../machine/assert.ts';
import { PROFILES, RISCV } from '../machine/costs.ts';
import { EVENTS, type Counts, type Event } from '../machine/counters.ts';
import { RamMedium } from '../machine/disk.ts';
import type { PhysicalMachine } from '../machine/physical.ts';
import type { TraceEvent } from '../machine/trace.ts';
import { PROGRAMS } from '../libos/unix/programs/index.ts';
import { unix } from '../libos/unix/unix.ts';
import { geometry } from '../libos/unix/fs/format.ts';
import type { Hypervisor } from '../kernel/hypervisor/hypervisor.ts';
import { EXITS, type Exit } from '../kernel/hypervisor/state.ts';
import { makeFileSystem, type Node } from './mkfs.ts';
import { build, diskFor, type Mode, type Parameters, sideBySide } from './modes.ts';
import type { Tree } from './tree.ts';
import type { Workload } from './workloads.ts';

export const TENANTS = 2;
const BLOCK = 4096;

export interface Result {
  readonly experiment: 'compare';
  readonly workload: string;
  readonly mode: Mode;
  readonly tenants: number;
  readonly parameters: Parameters;
  readonly counts: Counts;
  /** cycles of tenants, kernels and hypervisor together; idle time left out */
  readonly cycles: number;
  /** the same, by who ran: the supervisor at depth 0, those in guests, user code */
  readonly cyclesByLayer: { readonly outer: number; readonly inner: number; readonly user: number };
  /** of the whole run, booting included: exits by cause, of each hypervisor, the outermost first */
  readonly exits: readonly Exits[];
  readonly hostCommand: string;
  readonly stdoutSha256: string;
  readonly verified: boolean;
  /** messages of kernels about environments that they destroyed */
  readonly complaints: readonly string[];
}

export type Exits = Readonly<Partial<Record<Exit, number>>>;

export interface Run {
  readonly workload: Workload;
  readonly mode: Mode;
  readonly tree: Tree;
  readonly profile: string;
  readonly seed: number;
  readonly parameters?: Partial<Parameters>;
  /** cycles after which a run that does not end is stopped */
  readonly limit?: number;
  readonly programs?: typeof PROGRAMS;
  readonly storm?: boolean;
  /** called now and then while it runs */
  readonly alive?: () => void;
}

/** What a run printed and counted; whether it is right is said by verify.ts. */
export interface Outcome {
  readonly result: Omit<Result, 'verified' | 'hostCommand'>;
  /** standard output of each tenant */
  readonly stdout: readonly Uint8Array[];
  /** false: it was stopped at the limit */
  readonly ended: boolean;
}

const LIMIT = 4e12; // cycles
const STEP = 2e7; // cycles between two signs of life

/** Pages of a tenant: two of them, and their tables, are as many as the Unix counts. */
export const QUOTA_MAX = 31_500;
const QUOTA_LEAST = 4096;
const HEAP_FACTOR = 4; // pages of heap that a page of the largest file may take to be sorted
/** Bytes of the largest text that a tenant's memory can sort. */
export const SORT_MAX = Math.floor((QUOTA_MAX - QUOTA_LEAST) / HEAP_FACTOR) * BLOCK;

/** Sizes that follow from the tree: the same in every mode. */
export function parametersFor(tree: Tree, workload: Workload): Parameters {
  const heap = Math.ceil(tree.largestFile / BLOCK) * HEAP_FACTOR;
  const written = Math.ceil(workload.needsDisk(tree.facts) / BLOCK);
  const data = tree.blocks + written + tree.directories + 256;
  let blocks = data;
  while (blocks - geometry(blocks).data < data) blocks += 64;
  // An inode for each file, and for its copy.
  blocks = Math.max(blocks, (tree.facts.files + tree.directories) * 4 + 256);
  return {
    quota: Math.min(QUOTA_LEAST + heap, QUOTA_MAX),
    blocks,
    sliceCycles: 1_000_000,
    backing: 'populate',
    secondStage: '2MiB',
    walkCaches: true,
    disk: 'emulated',
    seed: 1,
  };
}

/**
 * Runs the workload. If a kernel or the machine breaks a promise to itself, runs it again, which is
 * the same run, and throws what happened last before it, an event a line.
 */
export function run(spec: Run): Outcome {
  try {
    return perform(spec, () => undefined);
  } catch (error) {
    if (!(error instanceof Bug)) throw error;
    const name = title(spec.workload.name, spec.mode, spec.seed);
    throw new Bug(`${name}: ${error.message}\n${tail(spec, error)}`, { cause: error });
  }
}

/** What a run is called in messages. */
export const title = (workload: string, mode: Mode, seed: number): string =>
  `${workload} ${mode}, seed ${seed}`;

const TAIL = 32; // events

function tail(spec: Run, bug: Bug): string {
  const events: string[] = [];
  let again = '  this time it did not happen: the run is not the same run twice';
  try {
    perform(spec, (machine) => {
      machine.hart.listener = (event, layer, now) => {
        const text = describe(event);
        if (text === null) return;
        events.push(`  ${now}  layer ${layer}  ${text}`);
        if (events.length > TAIL) events.shift();
      };
    });
  } catch (error) {
    if (error instanceof Bug && error.message === bug.message) again = '';
    else again = `  this time it was another: ${String(error)}`;
  }
  const where = (bug.stack ?? '').split('\n').slice(1, 5);
  return [...where, `the last ${events.length} events, by cycle:`, ...events, again]
    .filter((line) => line !== '')
    .join('\n');
}

function describe(event: TraceEvent): string | null {
  switch (event.what) {
    case 'trap':
      return `trap, cause ${event.cause}, level ${event.level}, at 0x${event.tval.toString(16)}`;
    case 'exit':
      return `exit, ${event.cause}`;
    case 'upcall':
      return `upcall of context ${event.context}, entry ${event.entry}`;
    default:
      return null;
  }
}

function perform(spec: Run, watch: (machine: PhysicalMachine) => void): Outcome {
  const { workload, mode, tree, alive } = spec;
  const sizes = parametersFor(tree, workload);
  const { swap = 0 } = spec.parameters ?? {};
  const blocks = sizes.blocks + swap;
  const parameters = { ...sizes, seed: spec.seed, ...spec.parameters, blocks };
  const scripts = workload.boots(tree.facts);
  const image = unix(spec.programs ?? PROGRAMS);
  const profile = PROFILES.find(({ name }) => name === spec.profile) ?? RISCV;
  const numbers = Array.from({ length: TENANTS }, (_, n) => n + 1);
  const groups = sideBySide(mode) ? [numbers] : numbers.map((n) => [n]);
  const totals = new Tally();
  const stdout: Uint8Array[][] = numbers.map(() => []);
  const complaints: string[] = [];
  let ended = true;
  const exits: Partial<Record<Exit, number>>[] = [];

  for (const tenants of groups) {
    const file = new Map<number, Uint8Array>();
    const first = makeFileSystem(withScript(tree.root, scripts[0] ?? ''), sizes.blocks);
    for (const [block, bytes] of first) {
      tenants.forEach((_, n) => file.set(n * blocks + block, bytes));
    }
    const medium = new RamMedium(diskFor(tenants.length, blocks), file);
    scripts.forEach((script, boot) => {
      if (boot > 0) rewriteScript(medium, file, script, blocks, tenants.length);
      const snapshots = new Map<number, Tally>();
      const { machine, hypervisors } = build({
        mode,
        tenants,
        images: [image],
        medium,
        profile,
        parameters,
        storm: spec.storm === true,
        output: (channel, bytes) => {
          if (channel === 0) complaints.push(new TextDecoder('latin1').decode(bytes).trimEnd());
          else if (bytes.length > 0) stdout[channel - 1]?.push(bytes);
          else snapshots.set(channel, Tally.of(machine, channel));
        },
      });
      watch(machine);
      ended = drive(machine, spec.limit ?? LIMIT, alive) && ended;
      for (const [channel, before] of snapshots) {
        totals.add(Tally.of(machine, channel).minus(before));
      }
      hypervisors.forEach((hypervisor, level) => {
        addExits((exits[level] ??= {}), hypervisor);
      });
      machine.powerOff();
    });
  }

  const outputs = stdout.map(join);
  const hashes = outputs.map((bytes) => createHash('sha256').update(bytes).digest('hex'));
  const agree = hashes.every((hash) => hash === hashes[0]);
  return {
    result: {
      experiment: 'compare',
      workload: workload.name,
      mode,
      tenants: TENANTS,
      parameters,
      counts: totals.counts(),
      cycles: totals.cycles,
      cyclesByLayer: {
        outer: totals.layers[0] ?? 0,
        inner: (totals.layers[1] ?? 0) + (totals.layers[2] ?? 0),
        user: totals.layers[3] ?? 0,
      },
      exits,
      stdoutSha256: agree ? (hashes[0] ?? '') : hashes.join(' '),
      complaints,
    },
    stdout: outputs,
    ended,
  };
}

/** Adds up the exits of all virtual machines of a hypervisor. */
function addExits(to: Partial<Record<Exit, number>>, hypervisor: Hypervisor): void {
  for (let vm = 0; vm < hypervisor.state.vm.rows; vm++) {
    const exits = hypervisor.exits(vm);
    for (const exit of EXITS) to[exit] = (to[exit] ?? 0) + exits[exit];
  }
}

/** Runs until nothing is left to do. False if the limit came first. */
function drive(machine: PhysicalMachine, limit: number, alive?: () => void): boolean {
  for (let until = STEP; until < limit; until += STEP) {
    alive?.();
    if (machine.run(Math.max(until, machine.now() + STEP)) === 'halted') return true;
  }
  return false;
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

const RC_BYTES = BLOCK; // the script's file fills a block, so that it can be exchanged

/** The tree as /in, and /etc/rc with the script that the first shell runs. */
function withScript(tree: Node, script: string): Node {
  const etc = new Map<string, Node>([['rc', { kind: 'file', bytes: rc(script) }]]);
  return {
    kind: 'directory',
    entries: new Map<string, Node>([
      ['etc', { kind: 'directory', entries: etc }],
      ['in', tree],
    ]),
  };
}

function rc(script: string): Uint8Array {
  const text = `cd /in; ${script}\n`;
  const bytes = new Uint8Array(RC_BYTES).fill(0x20);
  for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n) & 0xff;
  return bytes;
}

/** Between two boots: the script's block is exchanged on the medium, as by another machine. */
function rewriteScript(
  medium: RamMedium,
  file: ReadonlyMap<number, Uint8Array>,
  script: string,
  blocks: number,
  tenants: number,
): void {
  const fresh = rc(script);
  const found = [...file].find(
    ([block, bytes]) => block < blocks && bytes.length === BLOCK && startsLikeScript(bytes),
  );
  if (found === undefined) throw new Error('experiment: the script is on the disk');
  for (let n = 0; n < tenants; n++) medium.write(found[0] + n * blocks, fresh);
}

function startsLikeScript(bytes: Uint8Array): boolean {
  const mark = 'cd /in; ';
  for (let n = 0; n < mark.length; n++) if (bytes[n] !== mark.charCodeAt(n)) return false;
  return bytes[BLOCK - 1] === 0x20;
}

/** Counters and cycles of one owner, or sums and differences of them. */
class Tally {
  readonly #events = new Float64Array(EVENTS.length);
  readonly layers = new Float64Array(4);

  static of(machine: PhysicalMachine, owner: number): Tally {
    const tally = new Tally();
    machine.hart.settle();
    const { counters } = machine.hart;
    const totals = counters.totals(owner);
    EVENTS.forEach((event, n) => (tally.#events[n] = totals[event]));
    for (let layer = 0; layer < 4; layer++) tally.layers[layer] = counters.cycles(owner, layer);
    return tally;
  }

  minus(other: Tally): Tally {
    const tally = new Tally();
    this.#events.forEach((value, n) => (tally.#events[n] = value - (other.#events[n] ?? 0)));
    this.layers.forEach((value, n) => (tally.layers[n] = value - (other.layers[n] ?? 0)));
    return tally;
  }

  add(other: Tally): void {
    other.#events.forEach((value, n) => (this.#events[n] = (this.#events[n] ?? 0) + value));
    other.layers.forEach((value, n) => (this.layers[n] = (this.layers[n] ?? 0) + value));
  }

  get cycles(): number {
    return this.layers.reduce((sum, cycles) => sum + cycles, 0);
  }

  counts(): Counts {
    const counts: Partial<Record<Event, number>> = {};
    EVENTS.forEach((event, n) => (counts[event] = this.#events[n] ?? 0));
    return counts as Counts;
  }
}
