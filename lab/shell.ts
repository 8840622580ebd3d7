/**
 * A Unix of its own on the host's terminal: what is typed goes to the console's channel, what it
 * prints comes as it prints it. Editing lines is the affair of the host's readline; control
 * characters go through, so ^C reaches the programs in the foreground and not this one.
 *
 * The disk may be a file of the host. Whatever ends this process, the file is what a power cut
 * would leave: the file system's journal answers for it.
 */
import {
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readSync,
  statSync,
  writeSync,
} from 'node:fs';
import { createInterface, type Interface } from 'node:readline';
import { PROFILES, RISCV } from '../machine/costs.ts';
import { type Medium, RamMedium } from '../machine/disk.ts';
import type { PhysicalMachine } from '../machine/physical.ts';
import { kv } from '../libos/kv/kv.ts';
import { geometry, MAGIC } from '../libos/unix/fs/format.ts';
import { PROGRAMS } from '../libos/unix/programs/index.ts';
import { SWAP_MAX } from '../libos/unix/swap.ts';
import { unix } from '../libos/unix/unix.ts';
import { makeFileSystem, type Node } from './mkfs.ts';
import { build, diskFor, type Mode } from './modes.ts';
import { InternalFailure } from './compare.ts';
import { loadTree, UsageError } from './tree.ts';

const BLOCK = 4096;
const LEAST = 16_384; // blocks of a disk: 64 MiB
export const SWAP = 4096; // blocks: 16 MiB
const STORE = { image: 1, pages: 256, blocks: 512 }; // at the disk's end: 2 MiB
const STEP = 2e6; // cycles between two looks at the host's terminal
const CHANNEL = 1;
const CTRL_C = 3;
const END = 4; // ^D, and what the first script says its exit status with
const LITERAL = 22; // ^V
const CTRL_Z = 26;
const RC = `cd /in; sh < /dev/tty; s=$?; sync; echo ${String.fromCharCode(END)}$s\n`;

export interface ShellOptions {
  readonly mode: Mode;
  readonly input?: string;
  readonly memory: number;
  /** blocks for pages, between file system and store; default: SWAP, or as the disk has it */
  readonly swap?: number;
  readonly disk?: string;
}

/** The streams of the host. */
export interface Host {
  readonly stdin: NodeJS.ReadStream;
  readonly stdout: NodeJS.WriteStream;
}

/** Runs until the shell ends; the exit status of its last command. */
export async function runShell(options: ShellOptions, host: Host): Promise<number> {
  const { medium, blocks, close } = openDisk(options);
  try {
    const output = new Output(host);
    const { machine } = build({
      mode: options.mode,
      tenants: [CHANNEL],
      images: [unix(PROGRAMS, STORE)],
      others: [kv()],
      medium,
      profile: PROFILES[0] ?? RISCV,
      parameters: {
        quota: options.memory,
        blocks,
        sliceCycles: 1_000_000,
        backing: 'populate',
        secondStage: '2MiB',
        walkCaches: true,
        seed: 1,
      },
      output: (_channel, bytes) => {
        output.take(bytes);
      },
    });
    const input = new Input(host, output, machine);
    const status = await drive(machine, input, output);
    input.close();
    machine.powerOff();
    return status;
  } finally {
    close();
  }
}

async function drive(machine: PhysicalMachine, input: Input, output: Output): Promise<number> {
  for (;;) {
    const halted = machine.run(machine.now() + STEP) === 'halted';
    output.flush();
    if (halted && output.status !== null) return output.status;
    if (halted && input.ended && !input.endAgain()) {
      throw new InternalFailure('the Unix has stopped without a word');
    }
    if (halted) await input.arrival();
    else await new Promise((resolve) => setImmediate(resolve));
    input.deliver();
  }
}

/** What the Unix prints, on its way to the host. */
class Output {
  readonly #host: Host;
  readonly #text = new TextDecoder();
  #waiting = '';
  #line = ''; // the last line, not yet ended
  #said = ''; // after END
  status: number | null = null;
  /** told of what is printed, and of the line that the cursor stands on */
  onText: (text: string, line: string) => void;

  constructor(host: Host) {
    this.#host = host;
    this.onText = (text) => void this.#host.stdout.write(text);
  }

  take(bytes: Uint8Array): void {
    this.#waiting += this.#text.decode(bytes, { stream: true });
  }

  flush(): void {
    let text = this.#waiting;
    this.#waiting = '';
    const end = text.indexOf(String.fromCharCode(END));
    if (end >= 0 || this.#said !== '') {
      this.#said += end >= 0 ? text.slice(end) : text;
      text = end >= 0 ? text.slice(0, end) : '';
      const number = /^.(\d+)\n/su.exec(this.#said)?.[1];
      if (number !== undefined) this.status = Number(number);
    }
    if (text === '') return;
    this.#line = (this.#line + text).split('\n').at(-1) ?? '';
    this.onText(text, this.#line);
  }
}

/** What is typed on the host, or comes through a pipe. */
class Input {
  readonly #machine: PhysicalMachine;
  readonly #pending: number[] = [];
  readonly #lines: Interface | null = null;
  #wake: () => void = () => undefined;
  #patience = 64;
  ended = false;

  constructor(host: Host, output: Output, machine: PhysicalMachine) {
    this.#machine = machine;
    if (host.stdin.isTTY) this.#lines = this.#interactive(host, output);
    else this.#piped(host);
  }

  #interactive(host: Host, output: Output): Interface {
    const lines = createInterface({ input: host.stdin, output: host.stdout, prompt: '' });
    output.onText = (text, line) => {
      host.stdout.write(text);
      // What it printed last is the prompt that readline draws the line behind.
      lines.setPrompt(line);
      if (!text.endsWith('\n')) {
        host.stdout.write(`\r`);
        lines.prompt(true);
      }
    };
    this.#type('sh -i; exit $?\n');
    lines.on('line', (line) => {
      lines.setPrompt('');
      this.#type(`${line}\n`);
    });
    lines.on('SIGINT', () => {
      host.stdout.write('^C');
      lines.write(null, { ctrl: true, name: 'u' });
      this.#put([CTRL_C]);
    });
    lines.on('SIGTSTP', () => {
      this.#put([CTRL_Z]);
    });
    lines.on('close', () => {
      this.#end();
    });
    return lines;
  }

  #piped({ stdin }: Host): void {
    stdin.on('data', (bytes: Buffer) => {
      this.#literal(bytes);
    });
    stdin.on('end', () => {
      this.#end();
    });
  }

  #type(text: string): void {
    this.#literal(Buffer.from(text));
  }

  /** Bytes that mean themselves. */
  #literal(bytes: Uint8Array): void {
    const plain = [...bytes].flatMap((byte) => {
      return [CTRL_C, END, LITERAL, CTRL_Z].includes(byte) ? [LITERAL, byte] : [byte];
    });
    this.#put(plain);
  }

  #put(bytes: readonly number[]): void {
    this.#pending.push(...bytes);
    this.#wake();
  }

  #end(): void {
    if (this.ended) return;
    this.ended = true;
    // For the shell in front, and for the one behind it.
    this.#put([END]);
  }

  /** Another ^D: who took the last one was not the shell. False: that was said often enough. */
  endAgain(): boolean {
    this.#put([END]);
    return --this.#patience > 0;
  }

  async arrival(): Promise<void> {
    if (this.#pending.length > 0) return;
    await new Promise<void>((resolve) => (this.#wake = resolve));
  }

  deliver(): void {
    if (this.#pending.length === 0) return;
    this.#machine.type(CHANNEL, Uint8Array.from(this.#pending.splice(0)));
  }

  /** The terminal is as it was. */
  close(): void {
    this.#lines?.close();
  }
}

// ---- the disk -----------------------------------------------------------------------------------

interface OpenDisk {
  readonly medium: Medium;
  readonly blocks: number;
  readonly close: () => void;
}

function openDisk({ input, disk, swap }: ShellOptions): OpenDisk {
  const own = (swap ?? SWAP) + STORE.blocks; // of a disk that is made now
  if (disk === undefined) {
    const { file, blocks } = fresh(input, own);
    return { medium: new RamMedium(diskFor(1, blocks), file), blocks, close: () => undefined };
  }
  const there = existsSync(disk);
  if (there && input !== undefined) {
    throw new UsageError(
      `--disk ${disk} is there already, with files of its own: leave --input out`,
    );
  }
  if (there && !statSync(disk).isFile()) throw new UsageError(`--disk ${disk}: is no file`);
  let descriptor: number;
  try {
    descriptor = openSync(disk, there ? 'r+' : 'wx+');
  } catch {
    throw new UsageError(`--disk ${disk}: cannot be opened for writing`);
  }
  const close = (): void => {
    closeSync(descriptor);
  };
  if (!there) {
    const { file, blocks } = fresh(input, own);
    ftruncateSync(descriptor, diskFor(1, blocks) * BLOCK);
    const medium = new FileMedium(descriptor, diskFor(1, blocks));
    for (const [block, bytes] of file) medium.write(block, bytes);
    return { medium, blocks, close };
  }
  const words = new Int32Array(2);
  readSync(descriptor, words, 0, 8, 0);
  const [magic, files = 0] = words;
  const pages = statSync(disk).size / BLOCK - diskFor(1, files + STORE.blocks);
  if (
    magic !== MAGIC ||
    files <= 0 ||
    !(Number.isInteger(pages) && pages >= 0 && pages <= SWAP_MAX)
  ) {
    close();
    throw new UsageError(`--disk ${disk}: holds no file system that exoscope shell has made`);
  }
  if (swap !== undefined && swap !== pages) {
    close();
    throw new UsageError(
      `--disk ${disk} has a swap area of ${pages} pages already: leave --swap out`,
    );
  }
  const blocks = files + pages + STORE.blocks;
  return { medium: new FileMedium(descriptor, diskFor(1, blocks)), blocks, close };
}

/**
 * A file system with the host's files as /in, and room for as much again; and `behind` blocks that
 * are not its own.
 */
function fresh(
  input: string | undefined,
  behind: number,
): { file: Map<number, Uint8Array>; blocks: number } {
  const empty: Node = { kind: 'directory', entries: new Map<string, Node>() };
  const tree = input === undefined ? null : loadTree(input);
  const script: Node = { kind: 'file', bytes: Buffer.from(RC, 'latin1') };
  const root: Node = {
    kind: 'directory',
    entries: new Map<string, Node>([
      ['etc', { kind: 'directory', entries: new Map([['rc', script]]) }],
      ['in', tree?.root ?? empty],
    ]),
  };
  let blocks = Math.max(LEAST, ((tree?.blocks ?? 0) + (tree?.directories ?? 0)) * 2);
  blocks = Math.max(blocks, ((tree?.facts.files ?? 0) + (tree?.directories ?? 0)) * 4);
  blocks += geometry(blocks).data;
  return { file: makeFileSystem(root, blocks), blocks: blocks + behind };
}

/** Blocks of a host file. */
class FileMedium implements Medium {
  readonly blocks: number;
  readonly #descriptor: number;

  constructor(descriptor: number, blocks: number) {
    this.#descriptor = descriptor;
    this.blocks = blocks;
  }

  read(block: number, into: Uint8Array): void {
    readSync(this.#descriptor, into, 0, BLOCK, block * BLOCK);
  }

  write(block: number, from: Uint8Array): void {
    writeSync(this.#descriptor, from, 0, BLOCK, block * BLOCK);
  }
}
