/**
 * Runs an author's library OS in one mode: what each tenant printed, what it cost, and what became
 * of each. The result is plain data. Same files, same spec: the same result, bit for bit.
 */
import { RISCV } from '../../machine/costs.ts';
import { type Counts, EVENTS, USER_LAYER } from '../../machine/counters.ts';
import { RamMedium } from '../../machine/disk.ts';
import type { TraceEvent } from '../../machine/trace.ts';
import { Env, EnvState } from '../../kernel/abi.ts';
import type { Image } from '../../libos/libos.ts';
import { build, type Built, diskFor, type Mode, type Parameters, sideBySide } from '../modes.ts';
import { broker, type Revocation } from './broker.ts';
import { Eyes } from './eyes.ts';
import { type Refusal, STATE_NAMES, Witness } from './witness.ts';

export interface RunSpec {
  readonly mode: Mode;
  readonly tenants: number;
  /** pages that each tenant may use */
  readonly memory: number;
  readonly slice: number; // cycles
  readonly seed: number;
  /** cycles after which a run that does not end is stopped */
  readonly limit: number;
  readonly revocation: Revocation | null;
  /** a hypervisor backs each page when it is touched first; default: all when it makes a guest */
  readonly touched?: boolean;
}

export type Fate =
  | 'ended' // its first environment returned from main
  | 'waits' // it waits for something that will never come: a server at the end of the day
  | 'runs' // it ran when the limit came
  | 'failed';

export interface TenantResult {
  readonly tenant: number;
  readonly output: string; // bytes as latin-1
  readonly fate: Fate;
  /** how it stands, in words; of one that failed, a paragraph for each death */
  readonly account: readonly string[];
  readonly refusals: readonly Refusal[];
}

export interface ModeResult {
  readonly mode: Mode;
  readonly tenants: readonly TenantResult[];
  /** what the broker said, if there was one */
  readonly broker: string;
  readonly counts: Counts;
  /** of tenants, kernels and hypervisor; idle time left out */
  readonly cycles: number;
}

/** Looks at a machine while it runs. */
export interface Observer {
  /** cycles between two looks */
  readonly every: number;
  readonly look: (built: Built, eyes: Eyes, now: number) => void;
  /** what the machine tells, with the tenant that it concerns */
  readonly hear?: (event: TraceEvent, tenant: number) => void;
}

export const BLOCKS = 64; // of each tenant's disk
const STEP = 1e6; // cycles between two signs of life
const BROKER_PAGES = 64;

/** Whether something in this mode can ask a library OS for pages. */
export const revokes = (mode: Mode): boolean => mode === 'exokernel' || mode === 'exokernel-in-vm';

/** @param files of the authors, for the source lines in what is said */
export function runMode(
  spec: RunSpec,
  images: readonly Image[],
  files: readonly string[],
  alive: () => void = () => undefined,
  observer: Observer | null = null,
): ModeResult {
  const { mode } = spec;
  const numbers = Array.from({ length: spec.tenants }, (_, n) => n + 1);
  const revocation = revokes(mode) ? spec.revocation : null;
  const groups = sideBySide(mode) ? [numbers] : numbers.map((n) => [n]);
  const tally = new Float64Array(EVENTS.length);
  const results: TenantResult[] = [];
  let [said, cycles] = ['', 0];
  for (const tenants of groups) {
    const run = perform(spec, tenants, images, files, revocation, alive, observer);
    results.push(...run.results);
    said += run.said;
    cycles += run.cycles;
    run.counts.forEach((count, n) => (tally[n] = (tally[n] ?? 0) + count));
  }
  const counts = Object.fromEntries(EVENTS.map((event, n) => [event, tally[n] ?? 0])) as Counts;
  return { mode, tenants: results, broker: said, counts, cycles };
}

interface Performed {
  readonly results: readonly TenantResult[];
  readonly said: string;
  readonly counts: readonly number[];
  readonly cycles: number;
}

function perform(
  spec: RunSpec,
  tenants: readonly number[],
  images: readonly Image[],
  files: readonly string[],
  revocation: Revocation | null,
  alive: () => void,
  observer: Observer | null,
): Performed {
  const { mode } = spec;
  const brokerNumber = revocation === null ? 0 : tenants.length + 1;
  const own = Array.from({ length: spec.tenants }, (_, n) => images[n % images.length]).filter(
    (image) => image !== undefined,
  );
  const output = new Map<number, string>();
  const print = (channel: number, bytes: Uint8Array): void => {
    output.set(channel, (output.get(channel) ?? '') + Buffer.from(bytes).toString('latin1'));
  };
  let witness: Witness | null = null;
  const built = build({
    mode,
    tenants: revocation === null ? tenants : [...tenants, brokerNumber],
    images: revocation === null ? own : [...own, broker(tenants.length, revocation)],
    tenant: (n) => (n === brokerNumber ? { name: [], quota: BROKER_PAGES, blocks: 0 } : {}),
    medium: new RamMedium(diskFor(tenants.length + 1, BLOCKS)),
    profile: RISCV,
    parameters: parametersOf(spec),
    output: (channel, bytes) => {
      if (channel === 0 || witness?.kernelSpeaks === true) witness?.hearKernel();
      else print(channel, bytes);
    },
  });
  const { machine } = built;
  const place = (n: number): number => Math.max(0, tenants.indexOf(n));
  const eyesOf = (tenant: number): Eyes => new Eyes(built, mode === 'vm' ? place(tenant) : 0);
  witness = new Witness(machine.hart, eyesOf, files);
  const { listener } = machine.hart;
  const hear = observer?.hear?.bind(observer);
  if (hear !== undefined) {
    machine.hart.listener = (event, layer, now) => {
      hear(event, machine.hart.counters.owner);
      listener?.(event, layer, now);
    };
  }
  const rowOf = (tenant: number): number => (revokesNothing(mode) ? 1 : place(tenant) + 1);
  const told = witness;
  const isOver = (tenant: number): boolean => {
    if (told.loops(tenant, rowOf(tenant))) return true;
    return eyesOf(tenant).env(rowOf(tenant), Env.state) === EnvState.zombie;
  };
  // What is left are tenants that get nowhere: nothing more would be seen.
  const isVain = (): boolean =>
    tenants.some((tenant) => told.loops(tenant, rowOf(tenant))) && tenants.every(isOver);
  const halted = drive(built, spec.limit, alive, observer, eyesOf(tenants[0] ?? 1), isVain);
  machine.hart.settle();

  const { counters } = machine.hart;
  const all = tenants.map((n) => counters.totals(n));
  const layers = [0, 1, 2, USER_LAYER];
  return {
    results: tenants.map((tenant) => {
      const row = rowOf(tenant); // of its first environment
      const text = output.get(tenant) ?? '';
      return resultOf(built, tenant, row, eyesOf(tenant), witness, halted, text);
    }),
    said: output.get(brokerNumber) ?? '',
    counts: EVENTS.map((event) => all.reduce((sum, totals) => sum + totals[event], 0)),
    cycles: tenants.reduce(
      (sum, n) => sum + layers.reduce((all, layer) => all + counters.cycles(n, layer), 0),
      0,
    ),
  };
}

/** A kernel for each tenant: its first environment is row 1 of each. */
const revokesNothing = (mode: Mode): boolean => !revokes(mode);

function parametersOf({ memory, slice, seed, touched = false }: RunSpec): Parameters {
  return {
    quota: memory,
    blocks: BLOCKS,
    sliceCycles: slice,
    backing: touched ? 'touch' : 'populate',
    secondStage: touched ? '4KiB' : '2MiB',
    walkCaches: true,
    disk: 'emulated',
    seed,
  };
}

/** Runs until nothing is left to do; or in vain, or to the limit: then false. */
function drive(
  built: Built,
  limit: number,
  alive: () => void,
  observer: Observer | null,
  eyes: Eyes,
  isVain: () => boolean,
): boolean {
  const { machine } = built;
  const step = observer === null ? STEP : Math.min(STEP, observer.every);
  observer?.look(built, eyes, machine.now());
  for (let until = step; machine.now() < limit; until += step) {
    alive();
    const stop = machine.run(Math.min(until, limit));
    observer?.look(built, eyes, machine.now());
    if (stop === 'halted') return true;
    if (isVain()) return false;
    until = Math.max(until, Math.floor(machine.now() / step) * step);
  }
  return false;
}

function resultOf(
  { machine }: Built,
  tenant: number,
  row: number,
  eyes: Eyes,
  witness: Witness,
  halted: boolean,
  output: string,
): TenantResult {
  const state = eyes.env(row, Env.state);
  const status = eyes.env(row, Env.exitStatus);
  if (state === EnvState.zombie && status !== 0) witness.closing(tenant, row, status);
  // Of other environments, only what they did not choose: an exit status is between relatives.
  const deaths = witness.obituaries(tenant).filter(({ context, exit }) => context === row || !exit);
  const texts = deaths.map(({ text }) => text);
  const refusals = witness.refusals(tenant);
  const result = { tenant, output, refusals };
  const idle =
    !witness.acted(tenant, row) && machine.hart.counters.cycles(tenant, USER_LAYER) < 100;
  if (deaths.some(({ context }) => context === row)) {
    return { ...result, fate: 'failed', account: texts };
  }
  if (state === EnvState.zombie && idle) {
    const account = [
      `tenant ${tenant}: main returned at once, without a call or an access: ` +
        'is the work in `*main`, and called with `yield*`?',
    ];
    return { ...result, fate: 'failed', account };
  }
  if (state === EnvState.zombie) return { ...result, fate: 'ended', account: texts };
  if (witness.loops(tenant, row)) {
    const account = [...texts, witness.loopText(tenant, row)];
    return { ...result, fate: 'runs', account };
  }
  const at = witness.whereabouts(tenant, row);
  const last = at === '' ? '' : `; its last step: ${at}`;
  if (halted) {
    const how = STATE_NAMES.get(state) ?? '?';
    const account = [...texts, `tenant ${tenant} waits for ever, ${how}${last}`];
    return { ...result, fate: 'waits', account };
  }
  return { ...result, fate: 'runs', account: [...texts, `tenant ${tenant} had not ended${last}`] };
}
