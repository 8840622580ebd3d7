/**
 * The witness: listens to a machine and can say afterwards what befell a library OS, in the words
 * of its author: his own source line, the argument by its name, the page of the call, whose the
 * named thing is, what was mapped at a faulting address, and the last steps of the environment.
 *
 * It is an instrument of the lab: trace events and reads of memory. It charges nothing, and a run
 * with a witness is the same run.
 */
import { fileURLToPath } from 'node:url';
import type { Hart } from '../../machine/hart.ts';
import { Cause } from '../../machine/machine.ts';
import type { TraceEvent } from '../../machine/trace.ts';
import { Call, Env, envIndex, EnvState, Status, Upcall } from '../../kernel/abi.ts';
import { number } from '../report.ts';
import { type CallPage, callPages, callText, reasons, statusName } from './abi-page.ts';
import { Eyes, type Mapping, namedBy } from './eyes.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const STEPS = 10; // remembered of each environment
const REFUSALS = 200; // different ones remembered of each tenant
const PAGE = 4096;
const LOOPS = 10_000; // faults at one address, one after the other: its handler mends nothing
const FRAMES = 30; // of a stack trace: enough to come from a stub through a library to its user
/** No refusals: success, a step of a longer call, and the end of a wait. */
const NO_REFUSALS: readonly number[] = [Status.ok, Status.again, Status.interrupted];

interface Step {
  readonly at: number; // cycle
  readonly text: string;
  readonly trace: Error | null; // of the instruction, if it was one
  answer: string;
}

/** The end of an environment: of its own will with a status that says failure, or not. */
export interface Obituary {
  readonly context: number;
  readonly exit: boolean;
  readonly text: string;
}

/** A refusal, as often as it came from one line. */
export interface Refusal {
  readonly text: string;
  count: number;
}

/** What one environment did of late. */
class Memory {
  readonly owner: number;
  readonly context: number;
  readonly steps: Step[] = [];
  total = 0;
  words: readonly number[] = []; // of the call that waits for its answer
  call: Step | null = null;
  fault: { readonly cause: number; readonly address: number; readonly step: Step } | null = null;
  again = 0; // faults in a row at that address, no call in between but refused ones
  /** the last instruction that trapped: if its trap was left pending, there `yield*` is missing */
  trapped: Step | null = null;

  constructor(owner: number, context: number) {
    this.owner = owner;
    this.context = context;
  }

  add(step: Step): Step {
    this.total++;
    this.steps.push(step);
    if (this.steps.length > STEPS) this.steps.shift();
    return step;
  }
}

export class Witness {
  readonly #hart: Hart;
  readonly #eyes: (owner: number) => Eyes;
  readonly #files: readonly string[];
  readonly #memories = new Map<string, Memory>();
  readonly #refusals = new Map<number, Map<string, Refusal>>();
  readonly #obituaries = new Map<number, Obituary[]>();
  readonly #dead = new Set<string>();
  #last: Memory | null = null;

  /** @param files of the authors: lines in them are preferred to lines of libraries */
  constructor(hart: Hart, eyes: (owner: number) => Eyes, files: readonly string[]) {
    this.#hart = hart;
    this.#eyes = eyes;
    this.#files = files;
    Error.stackTraceLimit = FRAMES;
    hart.listener = (event, _layer, now) => {
      this.#hear(event, now);
    };
  }

  /** What became of the environments of a tenant that died of something, a paragraph each. */
  obituaries(owner: number): readonly Obituary[] {
    return this.#obituaries.get(owner) ?? [];
  }

  /** Every refusal that a tenant met, the same one from the same line once. */
  refusals(owner: number): readonly Refusal[] {
    return [...(this.#refusals.get(owner)?.values() ?? [])];
  }

  /** Whether the tenant's environment ever trapped: else it did nothing at all. */
  acted(owner: number, context: number): boolean {
    return (this.#memories.get(`${owner}/${context}`)?.total ?? 0) > 0;
  }

  /** Whether what is being printed comes from a kernel: it speaks while no call of anyone waits. */
  get kernelSpeaks(): boolean {
    return this.#last === null || this.#last.call === null;
  }

  /** A kernel says that a program ends: it had a fault that nobody handles. */
  hearKernel(): void {
    const memory = this.#last;
    if (memory === null || memory.fault === null || this.#isDead(memory)) return;
    this.#bury(memory, this.#faultText(memory));
  }

  /** The same of a first environment that ended badly without a word; `status` is its exit's. */
  closing(owner: number, context: number, status: number): void {
    const memory = this.#memories.get(`${owner}/${context}`);
    if (memory === undefined || this.#isDead(memory)) return;
    const excess = this.#eyes(owner).env(context, Env.excess);
    const why =
      excess > 0
        ? `destroyed by the kernel: it overran its slice ${excess} times (docs/ABI.md#time)`
        : `destroyed from outside, exit status ${status}`;
    this.#bury(memory, [why]);
  }

  /** Whether an environment faults at one address again and again. */
  loops(owner: number, context: number): boolean {
    return (this.#memories.get(`${owner}/${context}`)?.again ?? 0) >= LOOPS;
  }

  /** What is to be said of one that does. */
  loopText(owner: number, context: number): string {
    const memory = this.#memories.get(`${owner}/${context}`);
    if (memory === undefined) return '';
    const [what = '', ...about] = this.#faultText(memory);
    const count = number(memory.again + 1);
    return [
      `tenant ${owner} faults at one address for ever: ${what.replace(/^uncaught /, '')}`,
      ...about.map((line) => `  ${line}`),
      `  ${count} times in a row: its handler returns true, and has mended nothing`,
      ...this.#lastRefusals(owner).map((line) => `  ${line}`),
    ].join('\n');
  }

  #lastRefusals(owner: number): string[] {
    const refused = this.refusals(owner).slice(-2);
    if (refused.length === 0) return [];
    const texts = refused.map(({ text, count }) => times(text, count).replace(/^/gm, '  '));
    return ['it had been refused:', ...texts.join('\n').split('\n')];
  }

  /** Where an environment that still exists stands: its last call and the line of it. */
  whereabouts(owner: number, context: number): string {
    const memory = this.#memories.get(`${owner}/${context}`);
    const step = memory?.steps.at(-1);
    return step === undefined ? '' : `${step.text}${this.#place(step.trace)}`;
  }

  #isDead({ owner, context }: Memory): boolean {
    return this.#dead.has(`${owner}/${context}`);
  }

  #memory(context: number): Memory {
    const { owner } = this.#hart.counters;
    const key = `${owner}/${context}`;
    let memory = this.#memories.get(key);
    if (memory === undefined || this.#dead.has(key)) {
      memory = new Memory(owner, context); // a row that is used again is another environment
      this.#memories.set(key, memory);
      this.#dead.delete(key);
    }
    this.#last = memory;
    return memory;
  }

  #hear(event: TraceEvent, now: number): void {
    switch (event.what) {
      case 'user-trap':
        this.#hearTrap(event, now);
        return;
      case 'answer':
        this.#hearAnswer(event);
        return;
      case 'upcall': {
        const kind = event.entry - 1;
        const name = Object.entries(Upcall).find(([, n]) => n === kind)?.[0] ?? String(event.entry);
        const memory = this.#memory(event.context);
        memory.add({ at: now, text: `upcall: ${name}`, trace: null, answer: '' });
        return;
      }
      case 'thrown': {
        const memory = this.#memory(event.context);
        memory.call = null;
        this.#bury(memory, this.#thrownText(memory, event.error));
        return;
      }
      default:
    }
  }

  #hearTrap(event: Extract<TraceEvent, { what: 'user-trap' }>, at: number): void {
    const { cause, tval, words, context } = event;
    const access = cause === Cause.loadPageFault || cause === Cause.storePageFault;
    const misaligned = cause === Cause.loadMisaligned || cause === Cause.storeMisaligned;
    const isCall = cause === Cause.environmentCall;
    if (!isCall && !access && !misaligned) return; // timers, thread switches, second-stage faults
    const memory = this.#memory(context);
    const text = isCall ? callText(words) : `${faultName(cause)} at ${hex(tval)}`;
    const step = memory.add({ at, text, trace: new Error(), answer: '' });
    memory.trapped = step;
    memory.call = isCall ? step : null;
    memory.words = words;
    if (!isCall) {
      memory.again = memory.fault?.address === tval ? memory.again + 1 : 0;
      memory.fault = { cause, address: tval, step };
    }
    // Its own end, with a status that says failure: what a handler that gives up does.
    const own = words[0] === Call.envDestroy && envIndex(words[1] ?? -1) === context;
    if (isCall && own && words[3] !== 0) {
      const gaveUp = memory.fault !== null && words[3] === -1;
      const why = gaveUp ? this.#faultText(memory) : [`ended itself with status ${words[3]}`];
      this.#bury(memory, why, !gaveUp);
    }
  }

  #hearAnswer({ context, status, value }: Extract<TraceEvent, { what: 'answer' }>): void {
    const memory = this.#memories.get(`${this.#hart.counters.owner}/${context}`);
    const step = memory?.call;
    if (memory === undefined || step === undefined || step === null) return;
    memory.call = null;
    const ok = NO_REFUSALS.includes(status);
    step.answer =
      ok && status === Status.ok ? ` = ${value}` : ` = ${statusName(status)} (${value})`;
    if (!ok) this.#refuse(memory, step, status, value);
    else if (status === Status.ok) memory.again = 0;
  }

  #refuse(memory: Memory, step: Step, status: number, argument: number): void {
    const { owner, words } = memory;
    let mine = this.#refusals.get(owner);
    if (mine === undefined) this.#refusals.set(owner, (mine = new Map<string, Refusal>()));
    const key = `${words[0]} ${status} ${argument} ${this.#line(step.trace)}`;
    const known = mine.get(key);
    if (known !== undefined) known.count++;
    else if (mine.size < REFUSALS) {
      const text = this.#refusalText(memory, step, status, argument);
      mine.set(key, { text, count: 1 });
    }
  }

  #refusalText(memory: Memory, step: Step, status: number, argument: number): string {
    const { owner, context, words } = memory;
    const page = callPages().get(words[0] ?? -1);
    const lines = [`refused: ${step.text}${this.#place(step.trace)}`];
    if (page === undefined) return `${lines[0]}\n  no such call: docs/ABI.md has them all`;
    if (page.name === 'batch')
      return [...lines, ...this.#batchText(memory, status, argument)].join('\n');
    const arg = page.args[argument] ?? '';
    const why = reasons(page.number, status, argument);
    lines.push(`  ${statusName(status)}, argument ${argument} (${arg}): ${why}`);
    const about = this.#about(owner, context, page, words, [argument]);
    return [...lines, ...about.map((text) => `  ${text}`), `  see ${page.link}`].join('\n');
  }

  /**
   * Which record of a batch was refused, read where it stands. Its answer does not say which
   * argument it was: those that the status can be about.
   */
  #batchText({ owner, context, words }: Memory, status: number, done: number): string[] {
    const eyes = this.#eyes(owner);
    let at = words[1] ?? 0;
    for (let n = 0; n < done; n++) {
      at += 4 * (1 + (callPages().get(eyes.userWord(context, at))?.args.length ?? 0));
    }
    const page = callPages().get(eyes.userWord(context, at));
    const head = `  record ${done + 1} at ${hex(at)} was refused ${statusName(status)}`;
    const before = done === 0 ? 'nothing was done' : `the ${done} before it are done`;
    if (page === undefined)
      return [`${head}; ${before}`, `  see ${callPages().get(Call.batch)?.link}`];
    const record = [
      page.number,
      ...page.args.map((_, n) => eyes.userWord(context, at + 4 + n * 4)),
    ];
    const faulty = [
      ...new Set(
        page.refusals
          .filter((refusal) => refusal.status === statusName(status))
          .map((refusal) => refusal.argument),
      ),
    ];
    const whys = faulty.map(
      (n) => `${n} (${page.args[n] ?? ''}): ${reasons(page.number, status, n)}`,
    );
    return [
      `${head}; ${before}`,
      `    ${callText(record)}`,
      ...whys.map((why, n) => `    ${n === 0 ? 'argument' : 'or argument'} ${why}`),
      ...this.#about(owner, context, page, record, faulty).map((text) => `    ${text}`),
      `  see ${page.link}`,
    ];
  }

  /** What stands in the slots at fault; whose the named things are: of them, or else of all. */
  #about(
    owner: number,
    context: number,
    page: CallPage,
    words: readonly number[],
    faulty: readonly number[],
  ): string[] {
    const eyes = this.#eyes(owner);
    const about = new Set<string>();
    for (const n of faulty) {
      if (page.args[n]?.includes('slot') !== true) continue;
      const held = eyes.slot(context, (words[n + 1] ?? -1) & 0xff);
      if (held !== null) about.add(held);
    }
    const own = faulty.some((n) => namedBy(page.name, page.args[n] ?? '') !== null);
    page.args.forEach((name, n) => {
      const kind = namedBy(page.name, name);
      if (kind === null || (own && !faulty.includes(n))) return;
      const whose = eyes.owner(kind, words[n + 1] ?? -1);
      if (whose !== null) about.add(whose);
    });
    return [...about];
  }

  #thrownText(memory: Memory, error: unknown): string[] {
    const said = describe(error);
    const lines = [`threw ${said}${this.#place(error instanceof Error ? error : null)}`];
    if (said.startsWith('UnhandledTrap') || said.startsWith('returned past')) {
      const { trapped } = memory;
      if (trapped !== null) {
        lines.push(
          `the trap: ${trapped.text}${this.#place(trapped.trace)}: there \`yield*\` lacks`,
        );
      }
    } else if (/iterable|Symbol\.iterator/.test(said)) {
      lines.push(
        'main and handlers are generators: write `*main(...)`, and `yield*` what they call',
      );
    }
    return lines;
  }

  #faultText(memory: Memory): string[] {
    const { fault, owner, context } = memory;
    if (fault === null) return [];
    const { cause, address, step } = fault;
    const where = `page ${Math.floor(address / PAGE)}, byte ${address % PAGE}`;
    const lines = [
      `uncaught ${faultName(cause)} at ${hex(address)} (${where})${this.#place(step.trace)}`,
    ];
    const mappings = this.#eyes(owner).mappings(context);
    const base = address - (address % PAGE);
    const here = mappings.find(({ va }) => va === base);
    if (here !== undefined) {
      lines.push(`mapped there: ${this.#mappingText(owner, here)}`);
      if (cause === Cause.loadMisaligned || cause === Cause.storeMisaligned) {
        lines.push('a word lies at a multiple of 4');
      }
    } else {
      const nearest = mappings.reduce<Mapping | null>(
        (best, one) =>
          best === null || Math.abs(one.va - base) < Math.abs(best.va - base) ? one : best,
        null,
      );
      lines.push(
        nearest === null
          ? 'nothing is mapped there, nor anywhere else'
          : `nothing is mapped there; the nearest is ${hex(nearest.va)}: ` +
              this.#mappingText(owner, nearest),
      );
    }
    return lines;
  }

  #mappingText(owner: number, { page, writable }: Mapping): string {
    const rights = writable ? 'read and write' : 'read only';
    const whose = this.#eyes(owner).owner('page', page);
    return `page ${page}, ${rights}${whose === null ? '' : `; ${whose}`}`;
  }

  #bury(memory: Memory, why: readonly string[], exit = false): void {
    const { owner, context, steps, total } = memory;
    const key = `${owner}/${context}`;
    if (this.#dead.has(key)) return;
    this.#dead.add(key);
    const listed = steps.map(
      (step) =>
        `    ${number(step.at).padStart(12)}  ${step.text}${step.answer}` +
        this.#place(step.trace, '  '),
    );
    const text = [
      `environment row ${context} of tenant ${owner}: ${why[0] ?? 'died'}`,
      ...why.slice(1).map((line) => `  ${line}`),
      ...(steps.length === 0 ? [] : [`  its last ${steps.length} steps of ${total}, by cycle:`]),
      ...listed,
      ...this.#lastRefusals(owner).map((line) => `  ${line}`),
    ].join('\n');
    const all = this.#obituaries.get(owner);
    if (all === undefined) this.#obituaries.set(owner, [{ context, exit, text }]);
    else all.push({ context, exit, text });
  }

  // ---- source lines -----------------------------------------------------------------------------

  #place(trace: Error | null, before = ', at '): string {
    const line = this.#line(trace);
    return line === '' ? '' : `${before}${line}`;
  }

  /** The innermost line of the author's; of a library, if the author has none. */
  #line(trace: Error | null): string {
    return trace === null ? '' : lineOf(trace.stack ?? '', this.#files);
  }
}

/** `name (file:line)` of the innermost frame of `files`, or else of a library OS. */
export function lineOf(stack: string, files: readonly string[]): string {
  let library = '';
  for (const text of stack.split('\n')) {
    const found = /^\s+at (?:(.*) \()?(?:file:\/\/)?(\/[^()]*):(\d+):\d+\)?$/.exec(text);
    if (found === null) continue;
    const [, name = '', path = '', line = ''] = found;
    const short = path.startsWith(ROOT) ? path.slice(ROOT.length) : path;
    const inside = short !== path && !files.includes(path);
    const place = `${short}:${line}${name === '' ? '' : ` (${name})`}`;
    if (!inside && !path.includes('/node_modules/')) return place;
    if (library === '' && /^(libos|examples|test|docs)\//.test(short)) library = place;
  }
  return library;
}

export const times = (text: string, count: number): string =>
  count === 1 ? text : text.replace(/^refused:/, `refused ${number(count)} times:`);

function describe(error: unknown): string {
  try {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  } catch {
    return 'an exception that cannot be printed';
  }
}

const hex = (address: number): string => `0x${(address >>> 0).toString(16).padStart(8, '0')}`;

/** `loadPageFault` as `load page fault`. */
function faultName(cause: number): string {
  const name = Object.entries(Cause).find(([, value]) => value === cause)?.[0] ?? `cause ${cause}`;
  return name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}

/** States of an environment in words. */
export const STATE_NAMES = new Map<number, string>(
  Object.entries(EnvState).map(([name, state]) => [state, name]),
);
