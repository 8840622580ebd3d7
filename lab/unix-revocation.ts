/**
 * What it costs a Unix to give pages back: `npx tsx lab/unix-revocation.ts` prints a table. The
 * same scripts run with nobody asking; with a part of the memory asked for in the middle, which the
 * Unix gives by its own choice; and with as much taken by force, by an environment that has the
 * right to, and stops the Unix meanwhile.
 */
import { fileURLToPath } from 'node:url';
import { Account, Info, MAP_READ, PageKind, Start, Status } from '../kernel/abi.ts';
import { kv } from '../libos/kv/kv.ts';
import { image, LibOS, type Op, type UserPort } from '../libos/libos.ts';
import { countsOf } from '../libos/parts/transfers.ts';
import { PROGRAMS } from '../libos/unix/programs/index.ts';
import type { Program } from '../libos/unix/process.ts';
import { unix } from '../libos/unix/unix.ts';
import { RISCV } from '../machine/costs.ts';
import { RamMedium } from '../machine/disk.ts';
import { Vm } from '../kernel/hypervisor/state.ts';
import { makeFileSystem, type Node } from './mkfs.ts';
import { build, type Built, diskFor, type Mode } from './modes.ts';
import { aligned, number } from './report.ts';

const PAGE = 4096;
const UNIX = 1; // tenant, and account
const BROKER = 2;
const ASK = 32; // pages of one revocation
const POLL = 20_000; // cycles
const DEADLINE = 20_000_000; // cycles: two turns of the disk for each page, and more
const AT_ONCE = 10_000; // cycles: as little as the kernel allows
const LIMIT = 1e11;

/** How a superior goes about it. */
export interface Asking {
  /** cycle at which it begins */
  readonly at: number;
  readonly pages: number;
  readonly how: 'ask' | 'force';
  /** where pages are taken first, as a part of memory: who takes them knows nothing of the Unix */
  readonly from?: number;
}
export interface Outcome {
  readonly output: string;
  /** what kernels said about environments that they destroyed */
  readonly complaints: string;
  /** pages given in time, and taken by force */
  readonly given: number;
  readonly taken: number;
  /** cycles from the first request to the last page */
  readonly waited: number;
  /** cycles of the Unix and of kernels on its behalf; idle time left out */
  readonly cycles: number;
  /** until it had nothing left to do, or until `at` at least */
  readonly ended: number;
  readonly blocks: number; // moved
}
export interface Spec {
  readonly mode: Mode;
  readonly script: string;
  readonly files: Readonly<Record<string, string>>;
  readonly quota: number;
  readonly swap: number; // blocks
  readonly minimum?: number;
  readonly asking?: Asking;
  readonly programs?: readonly Program[];
  readonly slice?: number;
  /** called now and then, and at the end */
  readonly watch?: (built: Built) => void;
}

/** What the superior found out. */
interface Report {
  given: number;
  taken: number;
  waited: number;
}

/** Has REVOKE over all tenants. */
class Superior extends LibOS {
  readonly #asking: Asking;
  readonly #report: Report;

  constructor(port: UserPort, asking: Asking, report: Report) {
    super(port);
    this.#asking = asking;
    this.#report = report;
  }

  override *main(self: number, _root: number, _middle: number, leaf: number): Op<void> {
    const { sys, port } = this;
    const { at, pages, how } = this.#asking;
    const accounts = yield* this.#info(Info.accountPage);
    yield* sys.pageMap(leaf, Start.freePages, accounts, 0, 0, MAP_READ, 0);
    const { events } = countsOf(self);
    const until = function* (cycle: number): Op<void> {
      while (port.cycles() < cycle) {
        yield* sys.sleep(yield* port.load(events), cycle - port.cycles());
      }
    };
    yield* until(at);
    const began = port.cycles();
    const holder = yield* this.#account(Account.holder);
    // Who does not run cannot comply.
    if (how === 'force') yield* sys.envSuspend(holder, 0, 1);
    const range = { first: 0, pages: yield* this.#info(Info.pages) };
    const time = how === 'ask' ? DEADLINE : AT_ONCE;
    for (let left = pages; left > 0; left -= ASK) {
      const count = Math.min(ASK, left);
      const { status } = yield* sys.revoke(UNIX, 0, BROKER, range, count, time);
      if (status !== Status.ok) break; // it has no more above its minimum
      const deadline = port.cycles() + time;
      while ((yield* this.#wanted()) > 0 && port.cycles() < deadline) {
        yield* until(Math.min(port.cycles() + POLL, deadline));
      }
      this.#report.given += count - (yield* this.#wanted());
      if ((yield* this.#wanted()) > 0) yield* this.#take();
      this.#report.waited = port.cycles() - began;
    }
    if (how === 'force') yield* sys.envSuspend(holder, 0, 0);
  }

  /** By name: what is still wanted. */
  *#take(): Op<void> {
    const pages = yield* this.#info(Info.pages);
    const first = Math.floor((this.#asking.from ?? 0.25) * pages);
    for (let n = 0; n < pages; n++) {
      const page = (first + n) % pages;
      if ((yield* this.#wanted()) === 0) return;
      const word = yield* this.port.load(Start.pagePages * PAGE + page * 4);
      if ((word & 0xff) !== PageKind.user || ((word >>> 8) & 0xff) !== UNIX) continue;
      let { status } = yield* this.sys.repossess(UNIX, 0, page);
      if (status === Status.ok || status === Status.again) this.#report.taken++;
      while (status === Status.again) ({ status } = yield* this.sys.pageSweep(page));
    }
  }

  #wanted(): Op<number> {
    return this.#account(Account.wanted);
  }
  #account(word: number): Op<number> {
    return this.port.load(Start.freePages * PAGE + (UNIX * Account.words + word) * 4);
  }
  *#info(word: number): Op<number> {
    return yield* this.port.load(Start.infoPage * PAGE + word * 4);
  }
}

function diskOf(files: Spec['files'], script: string, blocks: number): Map<number, Uint8Array> {
  const file = (text: string): Node => ({ kind: 'file', bytes: Buffer.from(text, 'latin1') });
  const directory = (entries: readonly (readonly [string, Node])[]): Node => ({
    kind: 'directory',
    entries: new Map(entries),
  });
  const tree = Object.entries(files).map(([name, text]) => [name, file(text)] as const);
  const root = directory([
    ['etc', directory([['rc', file(`cd /in; ${script}\n`)]])],
    ['in', directory(tree)],
  ]);
  return makeFileSystem(root, blocks);
}

/**
 * Runs a script in a Unix that somebody asks for pages meanwhile: by a revocation where there is an
 * exokernel, by the balloon in a virtual machine of its own.
 */
export function measure(spec: Spec): Outcome {
  const { mode, script, files, quota, swap, asking, programs = PROGRAMS } = spec;
  const bytes = Object.values(files).reduce((sum, text) => sum + text.length + PAGE, 0);
  const filesBlocks = 512 + Math.ceil((bytes * 3) / PAGE);
  const blocks = filesBlocks + swap;
  const report: Report = { given: 0, taken: 0, waited: 0 };
  const [balloons, revokes] = [mode === 'vm' || mode === 'vm-shadow', mode.startsWith('exokernel')];
  const superior =
    asking === undefined || !revokes
      ? []
      : [image('superior', (port) => new Superior(port, asking, report))];
  let [output, complaints] = ['', ''];
  const built = build({
    mode,
    tenants: superior.length > 0 ? [UNIX, BROKER] : [UNIX],
    images: [unix(programs), ...superior],
    others: [kv()],
    tenant: (n) =>
      n === BROKER ? { name: [], quota: 8, blocks: 0 } : { minimum: spec.minimum ?? 0 },
    medium: new RamMedium(diskFor(2, blocks), diskOf(files, script, filesBlocks)),
    profile: RISCV,
    parameters: {
      quota,
      blocks,
      sliceCycles: spec.slice ?? 200_000,
      backing: 'populate',
      secondStage: '4KiB',
      walkCaches: true,
      seed: 1,
    },
    output: (channel, text) => {
      if (channel === 0) complaints += Buffer.from(text).toString('latin1');
      else if (channel === UNIX) output += Buffer.from(text).toString('latin1');
    },
  });
  const { machine, hypervisor } = built;
  let halted = false;
  if (balloons && asking !== undefined) {
    halted = machine.run(asking.at) === 'halted';
    hypervisor?.balloon(0, asking.pages);
  }
  while (!halted && machine.now() < LIMIT) {
    halted = machine.run(machine.now() + 2e6) === 'halted';
    spec.watch?.(built);
  }
  const { counters } = machine.hart;
  machine.hart.settle();
  const totals = counters.totals(UNIX);
  const cycles = [0, 1, 2, 3].reduce((sum, layer) => sum + counters.cycles(UNIX, layer), 0);
  const moved = totals.diskReads + totals.diskWrites;
  if (balloons && hypervisor !== null) {
    const at = hypervisor.state.vm.address(0, Vm.ballooned);
    report.given = machine.memory.get(at);
  }
  return { output, complaints, ...report, cycles, ended: machine.now(), blocks: moved };
}

// ---- the table ----------------------------------------------------------------------------------

const LINES = 3000;
const lines = Array.from({ length: LINES }, (_, n) => `${(n * 7919) % LINES} ${'x'.repeat(90)}\n`);
/** What a lab does: many small processes, a large one, a pipeline, files that are written. */
export const WORK: Pick<Spec, 'files' | 'script' | 'quota' | 'swap' | 'minimum'> = {
  files: { lines: lines.join(''), few: lines.slice(0, 300).join('') },
  script: [
    'sort lines | uniq -c | sha256sum',
    'seq 1 25 | xargs -n 1 echo | sha256sum',
    'cp lines more; cat more few | wc; sync; sha256sum more',
  ].join('; '),
  quota: 600,
  swap: 600,
  minimum: 100, // pages
};
/** A third of its memory, in the middle of the sort. */
const PART = WORK.quota / 3;
const AT = 2_500_000; // cycles

function row(name: string, outcome: Outcome, alone: Outcome): string[] {
  const { output, given, taken, waited, cycles, blocks } = outcome;
  const more = (cycles / alone.cycles - 1) * 100;
  const moved = given + taken;
  return [
    name,
    number(given),
    number(taken),
    moved === 0 ? '' : number(Math.round(waited / moved)),
    number(cycles),
    outcome === alone ? '' : `${more > 0 ? '+' : ''}${more.toFixed(1)} %`,
    number(blocks),
    output === alone.output ? 'the same' : 'another',
  ];
}

export function revocationTable(mode: Mode): string {
  const alone = measure({ ...WORK, mode });
  const asked = (how: Asking['how']): Outcome =>
    measure({ ...WORK, mode, asking: { at: AT, pages: PART, how } });
  return [
    `${mode}: ${PART} of ${WORK.quota} pages, from cycle ${number(AT)} on`,
    '',
    ...aligned(
      [
        ['', 'given', 'taken', 'cycles a page', 'cycles', '', 'blocks', 'output'],
        row('nobody asks', alone, alone),
        row('asked', asked('ask'), alone),
        row('by force', asked('force'), alone),
      ],
      1,
    ),
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(`${revocationTable('exokernel')}\n`);
}
