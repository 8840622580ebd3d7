/**
 * The real Unix, for tests: machines of `lab/modes.ts` on disks of `lab/mkfs.ts`, with a script for
 * each tenant. Tenants of one machine have disks of their own, with the same tree.
 */
import { createHash } from 'node:crypto';

import { makeFileSystem, type Node } from '../../../lab/mkfs.ts';
import { build, type Built, diskFor, type Mode, type Parameters } from '../../../lab/modes.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import { O_CREATE, O_WRITE, type Process, type Program } from '../../../libos/unix/process.ts';
import type { Op } from '../../../libos/syscalls.ts';
import { kv } from '../../../libos/kv/kv.ts';
import { type StoreSpec, unix } from '../../../libos/unix/unix.ts';
import { RISCV } from '../../../machine/costs.ts';
import { RamMedium } from '../../../machine/disk.ts';
import type { Files } from './host.ts';

const BLOCK = 4096;
const MARK = 'cd /in; ';
export const LIMIT = 3e10; // cycles

export interface RealConfig {
  readonly mode: Mode;
  readonly parameters?: Partial<Parameters>;
  readonly storm?: boolean;
  readonly programs?: readonly Program[];
  readonly limit?: number;
  /** behind the file system on each tenant's disk; the parameter `blocks` counts both */
  readonly store?: Omit<StoreSpec, 'image'>;
}

export interface RealOutcome {
  /** of each tenant, a byte a character; standard error goes to the console as well */
  readonly stdout: readonly string[];
  /** what kernels said about environments that they destroyed */
  readonly complaints: readonly string[];
  /** false: stopped at the limit */
  readonly ended: boolean;
}

/** Files by path as a tree for a disk; a path with / at the end is a directory. */
export function treeOf(files: Files): Node {
  interface Building {
    readonly kind: 'directory';
    readonly entries: Map<string, Node>;
  }
  const top: Building = { kind: 'directory', entries: new Map<string, Node>() };
  for (const [path, text] of Object.entries(files)) {
    const parts = path.split('/');
    const name = parts.pop() ?? '';
    let at = top;
    for (const part of parts) {
      let next = at.entries.get(part);
      if (next === undefined) {
        next = { kind: 'directory', entries: new Map<string, Node>() };
        at.entries.set(part, next);
      }
      at = next as Building;
    }
    if (name !== '') at.entries.set(name, { kind: 'file', bytes: Buffer.from(text, 'latin1') });
  }
  return top;
}

const rc = (script: string): Uint8Array => {
  const bytes = Buffer.alloc(BLOCK, ' ');
  if (bytes.write(`${MARK}${script}`, 'latin1') !== MARK.length + script.length) {
    throw new Error('real: the script is too long');
  }
  return bytes;
};

/** A tree on a disk: shared by any number of machines, none of which writes to it. */
export class Image {
  readonly blocks: number;
  readonly #base: ReadonlyMap<number, Uint8Array>;
  readonly #script: number;

  /** @param behind blocks of each tenant's disk that are not the file system's */
  constructor(tree: Node, blocks: number, behind = 0) {
    this.blocks = blocks + behind;
    const etc: Node = {
      kind: 'directory',
      entries: new Map([['rc', { kind: 'file', bytes: rc('') }]]),
    };
    const entries = new Map<string, Node>([
      ['etc', etc],
      ['in', tree],
    ]);
    this.#base = makeFileSystem({ kind: 'directory', entries }, blocks);
    const found = [...this.#base].find(
      ([, bytes]) => Buffer.from(bytes).toString('latin1', 0, MARK.length) === MARK,
    );
    this.#script = found?.[0] ?? -1;
  }

  /** A disk for as many tenants as there are scripts. */
  medium(scripts: readonly string[]): RamMedium {
    const base = new Map<number, Uint8Array>();
    scripts.forEach((script, n) => {
      for (const [block, bytes] of this.#base) base.set(n * this.blocks + block, bytes);
      base.set(n * this.blocks + this.#script, rc(script));
    });
    return new RamMedium(diskFor(scripts.length, this.blocks), base);
  }

  /** Exchanges the scripts on a disk that a machine has worked on. */
  rewrite(medium: RamMedium, scripts: readonly string[]): void {
    scripts.forEach((script, n) => {
      medium.write(n * this.blocks + this.#script, rc(script));
    });
  }
}

export interface Booted extends Built {
  readonly outcome: () => Omit<RealOutcome, 'ended'>;
}

/** A machine with a tenant for each script, not yet run. */
export function boot(
  image: Image,
  medium: RamMedium,
  tenants: number,
  { mode, parameters, storm = false, programs = PROGRAMS, store }: RealConfig,
): Booted {
  const stdout = Array.from({ length: tenants }, () => '');
  const complaints: string[] = [];
  const built = build({
    mode,
    tenants: stdout.map((_, n) => n + 1),
    images: [unix(programs, store === undefined ? null : { image: 1, ...store })],
    others: [kv()],
    medium,
    profile: RISCV,
    parameters: {
      quota: 4096,
      blocks: image.blocks,
      sliceCycles: 1_000_000,
      backing: 'populate',
      secondStage: '2MiB',
      walkCaches: true,
      seed: 1,
      ...parameters,
    },
    storm,
    output: (channel, bytes) => {
      const text = Buffer.from(bytes).toString('latin1');
      if (channel === 0) complaints.push(text.trimEnd());
      else stdout[channel - 1] += text;
    },
  });
  return { ...built, outcome: () => ({ stdout: [...stdout], complaints: [...complaints] }) };
}

/** Runs a script for each tenant, all on one machine. */
export function runReal(image: Image, scripts: readonly string[], config: RealConfig): RealOutcome {
  const { machine, outcome } = boot(image, image.medium(scripts), scripts.length, config);
  const ended = machine.run(config.limit ?? LIMIT) === 'halted';
  return { ...outcome(), ended };
}

// ---- scripts in rows ----------------------------------------------------------------------------

const END = '=status ';

/** Runs `sh -c SCRIPT` with standard error in a file, and prints what it ended with. */
export const status: Program = {
  name: 'status',
  *main(process) {
    const pid = yield* process.fork(0, 0);
    if (pid < 0) return 1;
    const ended = yield* process.wait();
    const text = typeof ended === 'number' ? `error ${ended}` : String(ended[1] & 0xff);
    yield* print(process, 1, `${END}${text}=`);
    return 0;
  },
  children: [
    function* (process): Op<number> {
      const fd = yield* process.open('/err', O_WRITE | O_CREATE);
      yield* process.dup2(fd, 2);
      yield* process.close(fd);
      return yield* process.exec('sh', ['sh', '-c', process.args[1] ?? '']);
    },
  ],
};

/** Writes text to a descriptor, by way of fresh heap. */
export function* print(process: Process, fd: number, text: string): Op<number> {
  const bytes = Buffer.from(text, 'latin1');
  const at = yield* process.heap(Math.max(1, bytes.length));
  if (process.port.write(at, bytes, 0, bytes.length) === undefined) yield* process.port.fault();
  return yield* process.write(fd, at, bytes.length);
}

/** Output and exit status of each script that `status` ran. */
export function split(stdout: string): { stdout: string; status: number }[] {
  const parts = stdout.split(/=status (\d+)=/);
  const found = [];
  for (let n = 0; n + 1 < parts.length; n += 2) {
    found.push({ stdout: parts[n] ?? '', status: Number(parts[n + 1]) });
  }
  const rest = parts[parts.length - 1] ?? '';
  return rest === '' ? found : [...found, { stdout: rest, status: -1 }];
}

/** Short texts are compared as such, long ones by digest: a difference should print. */
export const shown = (text: string): string =>
  text.length < 2000
    ? text
    : `${text.slice(0, 200)}.. ${text.length} bytes, ` +
      createHash('sha256').update(text, 'latin1').digest('hex');
