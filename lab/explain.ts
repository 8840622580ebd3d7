/**
 * `exoscope explain`: one event, step by step, as the machine charged it, modes in columns. Each
 * step has what it was, how often, what it cost, and the file and line that did it: the machine
 * tells a listener of every charge, and the listener takes a stack trace there.
 */
import { fileURLToPath } from 'node:url';
import { RISCV } from '../machine/costs.ts';
import { USER_LAYER } from '../machine/counters.ts';
import { RamMedium } from '../machine/disk.ts';
import type { Hart } from '../machine/hart.ts';
import { Cause } from '../machine/machine.ts';
import type { TraceEvent } from '../machine/trace.ts';
import { Env, envIndex, MAP_READ, MAP_WRITE, Start } from '../kernel/abi.ts';
import { image, LibOS, type Op, type UserPort } from '../libos/libos.ts';
import { FreePages } from '../libos/parts/free-pages.ts';
import { build, diskFor, type Mode } from './modes.ts';
import { aligned, number } from './report.ts';

export const EXPLAINED = ['fault', 'call', 'slice', 'disk-read'] as const;
export type Explained = (typeof EXPLAINED)[number];

const TITLES: Readonly<Record<Explained, string>> = {
  fault: 'the first touch of a page: fault, upcall, allocation, mapping, return',
  call: 'a null kernel call',
  slice: 'the end of a time slice while both tenants want the CPU',
  'disk-read': 'one 4 KiB block read from the disk, from the call until the data is there',
};

interface Step {
  readonly where: string;
  readonly what: string;
  readonly layer: number;
  count: number;
  cycles: number;
}

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const PAGE = 4096;
const HEAP = Start.freePages * PAGE;

/** Records charges between `start` and `stop`, equal neighbours as one step. */
class Recorder {
  readonly steps: Step[] = [];
  total = 0;
  #on = false;
  #from = 0;
  #charged = 0;
  #hart: Hart | null = null;

  attach(hart: Hart): void {
    this.#hart = hart;
    hart.listener = (event, layer) => {
      this.#hear(event, layer);
    };
  }

  start(): void {
    if (this.#on || this.total > 0 || this.#hart === null) return;
    this.#on = true;
    this.#from = this.#hart.now();
    this.#charged = 0;
  }

  stop(): void {
    if (!this.#on || this.#hart === null) return;
    this.#on = false;
    this.total = this.#hart.now() - this.#from;
    const user = this.total - this.#charged;
    if (user > 0) this.#add('(user code and its accesses)', 'user', USER_LAYER, user);
  }

  onTrap: (cause: number) => void = () => undefined;
  onReturn: () => void = () => undefined;

  #hear(event: TraceEvent, layer: number): void {
    if (event.what === 'trap') {
      this.onTrap(event.cause);
      if (this.#on) this.#add(`-- trap: ${causeName(event.cause)}`, 'trap', layer, 0);
    } else if (event.what === 'exit' && this.#on) {
      this.#add(`-- exit: ${event.cause}`, 'exit', layer, 0);
    } else if (event.what === 'upcall' && this.#on) {
      this.#add(`-- upcall to entry ${event.entry}`, 'upcall', layer, 0);
    } else if (event.what === 'charge' && this.#on) {
      this.#charged += event.cycles;
      this.#add(caller(), event.why, layer, event.cycles);
    }
    if (event.what === 'return') this.onReturn();
  }

  idle(cycles: number): void {
    if (!this.#on) return;
    this.#charged += cycles;
    this.#add('(idle: the device works)', 'wait', 0, cycles);
  }

  #add(where: string, what: string, layer: number, cycles: number): void {
    const last = this.steps[this.steps.length - 1];
    if (last?.where === where && last.what === what && last.layer === layer) {
      last.count++;
      last.cycles += cycles;
    } else this.steps.push({ where, what, layer, count: 1, cycles });
  }
}

/** The innermost source line that is not the machine's accounting. */
function caller(): string {
  const lines = (new Error().stack ?? '').split('\n');
  let machine = '';
  for (const line of lines) {
    const found = /\(?(?:file:\/\/)?([^()\s]+\.ts):(\d+):\d+\)?$/.exec(line);
    if (found === null) continue;
    const file = (found[1] ?? '').replace(ROOT, '');
    if (file.startsWith('lab/explain')) continue;
    const place = `${file}:${found[2] ?? ''}`;
    // The virtual machine is hardware to whoever runs inside; its exits name themselves.
    const hardware = file.startsWith('machine/') || file.endsWith('virtual-machine.ts');
    if (file.startsWith('kernel/supervisor') || hardware) {
      if (machine === '' && !/machine\/(hart|user-memory)\.ts/.test(file)) machine = place;
      continue;
    }
    if (file.startsWith('kernel/') || file.startsWith('libos/')) {
      // A charge that user code caused by missing the TLB belongs to the walker.
      return file.startsWith('libos/') ? machine || place : place;
    }
  }
  return machine;
}

/** A cause in words, as machine.ts names it, and its number. */
function causeName(cause: number): string {
  const named = Object.entries(Cause).find(([, value]) => value === cause)?.[0] ?? '?';
  return `${named.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)} (${cause})`;
}

/** A libOS that does one thing while the recorder listens. */
class Subject extends LibOS {
  readonly #event: Explained;
  readonly #recorder: Recorder;
  readonly #first: () => boolean;
  readonly #pages: FreePages;
  #leaf = 0;

  constructor(port: UserPort, event: Explained, recorder: Recorder, first: () => boolean) {
    super(port);
    this.#event = event;
    this.#recorder = recorder;
    this.#first = first;
    this.#pages = new FreePages(this.sys);
  }

  override *main(
    self: number,
    _root: number,
    _middle: number,
    leaf: number,
    _quota: number,
    extent: number,
  ): Op<void> {
    this.#leaf = leaf;
    yield* this.catchFaults();
    const shown = this.#first();
    // Once for nothing, so that what is shown is the usual case and not the first.
    for (let round = 0; round < 2; round++) {
      if (shown && round === 1 && this.#event !== 'slice') this.#recorder.start();
      yield* this.#act(round, self, extent);
      if (shown && round === 1 && this.#event !== 'slice') this.#recorder.stop();
    }
  }

  *#act(round: number, self: number, extent: number): Op<void> {
    const { port } = this;
    const at = HEAP + round * PAGE;
    switch (this.#event) {
      case 'fault':
        yield* port.store(at, 1);
        return;
      case 'call':
        yield* this.sys.nullCall();
        return;
      case 'slice':
        for (let n = 0; n < 300_000; n++) yield* port.store(HEAP, n);
        return;
      case 'disk-read': {
        const page = this.#frames[round] ?? (yield* this.#mapFresh(round));
        yield* port.store(HEAP + 8 * PAGE, page);
        const row = Start.envPages * PAGE + envIndex(self) * Env.words * 4;
        const list = HEAP + 8 * PAGE;
        const { value } = yield* this.sys.diskRequest(extent, 0, round, 1, list, 0, 0);
        for (;;) {
          const seen = yield* port.load(row + Env.events * 4);
          if ((yield* port.load(row + Env.diskDone * 4)) - value >= 0) break;
          yield* this.sys.sleep(seen);
        }
        yield* port.load(at);
      }
    }
  }

  readonly #frames: number[] = [];

  *#mapFresh(round: number): Op<number> {
    // Both rounds' pages and the list's page come before the recorder listens.
    for (let n = 0; n < 2; n++) {
      const page = yield* this.#pages.take(0);
      yield* this.sys.pageMap(this.#leaf, Start.freePages + n, page, 0, 0, RW, 0);
      this.#frames.push(page);
    }
    return this.#frames[round] ?? 0;
  }

  override *onFault(_cause: number, address: number): Op<boolean> {
    const page = yield* this.#pages.take(0);
    const index = Math.floor(address / PAGE);
    return (yield* this.sys.pageMap(this.#leaf, index, page, 0, 0, RW, 0)).status === 0;
  }
}

const RW = MAP_READ | MAP_WRITE;

function record(event: Explained, mode: Mode): Recorder {
  const recorder = new Recorder();
  let started = 0;
  const subject = image(
    'explain',
    (port) => new Subject(port, event, recorder, () => started++ === 0),
  );
  const { machine } = build({
    mode,
    tenants: mode === 'bare' || event !== 'slice' ? [1] : [1, 2],
    images: [subject],
    medium: new RamMedium(diskFor(2, 32)),
    profile: RISCV,
    parameters: {
      quota: 256,
      blocks: 32,
      sliceCycles: 50_000,
      backing: 'populate',
      secondStage: '2MiB',
      walkCaches: true,
      seed: 1,
    },
    output: () => undefined,
  });
  recorder.attach(machine.hart);
  if (event === 'slice') {
    // From a timer trap, once things run evenly, to the first user instruction after it.
    let timers = 0;
    recorder.onTrap = (cause) => {
      if (cause === Cause.timerInterrupt && ++timers === 4) recorder.start();
    };
    recorder.onReturn = () => {
      recorder.stop();
    };
  }
  const { hart } = machine;
  const skip = hart.skipTo.bind(hart);
  hart.skipTo = (at: number): void => {
    recorder.idle(at - hart.now());
    skip(at);
  };
  machine.run(5e8);
  return recorder;
}

const LAYERS = ['outer kernel', 'inner kernel', 'inner kernel', 'user'];

/** The event's steps in each mode, side by side. */
export function explain(event: Explained, modes: readonly Mode[]): string {
  const columns = modes.map((mode) => ({ mode, recorder: record(event, mode) }));
  const cells = columns.map(({ recorder }) => recorder.steps.map(cell));
  const height = Math.max(...cells.map(({ length }) => length));
  const rows: string[][] = [columns.map(({ mode }) => mode.toUpperCase())];
  rows.push(columns.map(({ recorder }) => `${number(recorder.total)} cycles in all`));
  rows.push(columns.map(() => ''));
  for (let n = 0; n < height; n++) rows.push(cells.map((column) => column[n] ?? ''));
  const sums = columns.map(({ recorder }) => {
    const by = new Map<string, number>();
    for (const { layer, cycles } of recorder.steps) {
      const name = LAYERS[layer] ?? '';
      by.set(name, (by.get(name) ?? 0) + cycles);
    }
    return [...by].map(([name, cycles]) => `${name} ${number(cycles)}`).join(', ');
  });
  rows.push(
    columns.map(() => ''),
    sums,
  );
  return `${event}: ${TITLES[event]}\n\n${aligned(rows, modes.length).join('\n')}\n`;
}

function cell({ where, what, count, cycles }: Step): string {
  if (where.startsWith('--')) return where;
  const times = count > 1 ? ` x${count}` : '';
  return `${number(cycles).padStart(7)}  ${`${what}${times}`.padEnd(16)} ${where}`;
}
