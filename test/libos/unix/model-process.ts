/**
 * A model of a Unix process, for testing programs before and beside the real one: plain, slow, same
 * interface. Files, pipes and descriptors are host objects; memory is real, demand-zero pages of a
 * real machine behind a real user port. Processes run one after another: fork runs the child to its
 * end before it returns, on the parent's memory, which is put back afterwards. Pipes are therefore
 * unbounded, and a read that would wait for ever is an error of the test.
 */
import { MAP_READ, MAP_WRITE, Status } from '../../../kernel/abi.ts';
import { Unikernel } from '../../../kernel/unikernel/unikernel.ts';
import { image, LibOS, type Op, type UserPort } from '../../../libos/libos.ts';
import { FreePages } from '../../../libos/parts/free-pages.ts';
import {
  ARG_MAX,
  Errno,
  O_APPEND,
  O_CREATE,
  O_DIRECTORY,
  O_EXCLUSIVE,
  O_READ,
  O_TRUNCATE,
  O_WRITE,
  OPEN_MAX,
  Poll,
  type PollFor,
  type Process,
  type Program,
  type Room,
  type Stat,
  type WaitFor,
} from '../../../libos/unix/process.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import { PhysicalMachine } from '../../../machine/physical.ts';

const PAGE = 4096;
const LEAF = 512 * PAGE; // bytes that one leaf table maps
const HEAP = LEAF; // from the second leaf table on
const HEAP_END = 128 * LEAF;
const NAME_MAX = 255;

export interface Outcome {
  readonly stdout: string; // a byte a character
  readonly stderr: string;
  readonly status: number;
  readonly cycles: number;
}

export interface ModelConfig {
  readonly storm?: boolean;
  readonly sliceCycles?: number;
  /** a heap whose pieces do not adjoin */
  readonly scattered?: boolean;
  /** standard output is a pipe that nobody reads */
  readonly broken?: boolean;
}

/**
 * Runs scripts one after another, a boot each, on one tree.
 * @param files contents by path; a path with / at the end is a directory
 */
export function runModel(
  files: Readonly<Record<string, string>>,
  scripts: readonly string[],
  config: ModelConfig = {},
): Outcome {
  const world = new World(config.scattered === true);
  world.root.entries.set('in', new Directory(world.inode()));
  for (const [path, text] of Object.entries(files)) world.plant(`/in/${path}`, text);
  let cycles = 0;
  for (const script of scripts) cycles += world.boot(script, config);
  return { stdout: world.stdout, stderr: world.stderr, status: world.status, cycles };
}

// ---- files --------------------------------------------------------------------------------------

class File {
  readonly inode: number;
  #bytes = new Uint8Array(0);
  length = 0;
  mode = 0o644;
  links = 1;

  constructor(inode: number) {
    this.inode = inode;
  }

  write(at: number, bytes: Uint8Array): void {
    const end = at + bytes.length;
    if (end > this.#bytes.length) {
      const larger = new Uint8Array(2 * end);
      larger.set(this.#bytes);
      this.#bytes = larger;
    }
    this.#bytes.set(bytes, at);
    this.length = Math.max(this.length, end);
  }

  read(at: number, bytes: number): Uint8Array {
    return this.#bytes.slice(at, Math.min(this.length, at + bytes));
  }
}

class Directory {
  readonly inode: number;
  readonly entries = new Map<string, File | Directory>();
  mode = 0o755;
  constructor(inode: number) {
    this.inode = inode;
  }
}

/** An open file: what descriptors of any number of processes share. */
interface Opened {
  references: number;
  read(bytes: number): Uint8Array | number;
  write(bytes: Uint8Array): number;
  /** sets the offset if there is one, and tells it; cuts the file off */
  seek?(to: number, from: 'start' | 'here' | 'end'): number;
  truncate?(bytes: number): number;
  /** what poll says of it; without: always ready */
  ready?(): number;
  closed(): void;
}

const openedFile = (file: File, flags: number): Opened => {
  let offset = 0;
  return {
    references: 1,
    read: (bytes) => {
      if ((flags & O_READ) === 0) return Errno.EBADF;
      const got = file.read(offset, bytes);
      offset += got.length;
      return got;
    },
    write: (bytes) => {
      if ((flags & O_WRITE) === 0) return Errno.EBADF;
      if ((flags & O_APPEND) !== 0) offset = file.length;
      file.write(offset, bytes);
      offset += bytes.length;
      return bytes.length;
    },
    seek: (to, from) => {
      const base = from === 'start' ? 0 : from === 'here' ? offset : file.length;
      if (base + to < 0) return Errno.EINVAL;
      return (offset = base + to);
    },
    truncate: (bytes) => {
      if ((flags & O_WRITE) === 0) return Errno.EBADF;
      const kept = file.read(0, bytes);
      file.length = 0;
      file.write(0, new Uint8Array(bytes));
      file.write(0, kept);
      return 0;
    },
    closed: () => undefined,
  };
};

/** It opens, and cannot be read. */
const openedDirectory = (): Opened => ({
  references: 1,
  read: () => Errno.EISDIR,
  write: () => Errno.EBADF,
  closed: () => undefined,
});

const openedNothing = (): Opened => ({
  references: 1,
  read: () => new Uint8Array(0),
  write: (bytes) => bytes.length,
  closed: () => undefined,
});

const openedSink = (sink: (text: string) => void): Opened => ({
  references: 1,
  read: () => Errno.EBADF,
  write: (bytes) => {
    sink(Buffer.from(bytes).toString('latin1'));
    return bytes.length;
  },
  closed: () => undefined,
});

function openedPipe(): readonly [Opened, Opened] {
  const data = new File(0);
  let [readers, writers, offset] = [1, 1, 0];
  const read: Opened = {
    references: 1,
    read: (bytes) => {
      const got = data.read(offset, bytes);
      offset += got.length;
      if (got.length === 0 && writers > 0) throw new Error('model: this read would never end');
      return got;
    },
    write: () => Errno.EBADF,
    ready: () => (offset < data.length ? Poll.IN : 0) | (writers === 0 ? Poll.HUP : 0),
    closed: () => readers--,
  };
  const write: Opened = {
    references: 1,
    read: () => Errno.EBADF,
    write: (bytes) => {
      if (readers === 0) return Errno.EPIPE;
      data.write(data.length, bytes);
      return bytes.length;
    },
    closed: () => writers--,
  };
  return [read, write];
}

/** The disk and the console: what outlives a process, and the disk a boot. */
class World {
  #inodes = 0;
  readonly root = new Directory(this.inode());
  readonly scattered: boolean;
  stdout = '';
  stderr = '';
  status = 0;
  pids = 1;

  constructor(scattered: boolean) {
    this.scattered = scattered;
  }

  inode(): number {
    return ++this.#inodes;
  }

  /** Boots a machine and runs `sh -c script` in /in; the cycles it took. */
  boot(
    script: string,
    { storm = false, broken = false, sliceCycles = 100_000 }: ModelConfig,
  ): number {
    let finished = false;
    const end = (): void => void (finished = true);
    const made = image('model', (port) => new ModelSystem(port, this, script, broken, end));
    let trouble = '';
    const machine = new PhysicalMachine({
      pages: 32_768,
      images: [made],
      storm,
      output: (_channel, bytes) => (trouble += Buffer.from(bytes).toString('latin1')),
    });
    const tenant = { image: 0, quota: 32_768, firstBlock: 0, blocks: 0 };
    machine.boot(new Unikernel({ environments: 8, sliceCycles }, tenant, 1));
    const begun = machine.now();
    machine.run();
    if (!finished) throw new Error(`model: the machine stopped: ${trouble}`);
    return machine.now() - begun;
  }

  plant(path: string, text: string): void {
    const parts = path.split('/').slice(1);
    const name = parts.pop() ?? '';
    let at = this.root;
    for (const part of parts) {
      let next = at.entries.get(part);
      if (next === undefined) at.entries.set(part, (next = new Directory(this.inode())));
      if (next instanceof File) throw new Error(`model: ${path} runs through a file`);
      at = next;
    }
    if (name === '') return;
    const file = new File(this.inode());
    file.write(0, Buffer.from(text, 'latin1'));
    at.entries.set(name, file);
  }

  /** Path as a list of names from the root, `.` and `..` resolved by the text of it. */
  resolve(cwd: readonly string[], path: string): readonly string[] {
    const parts = path.startsWith('/') ? [] : [...cwd];
    for (const part of path.split('/')) {
      if (part === '..') parts.pop();
      else if (part !== '' && part !== '.') parts.push(part);
    }
    return parts;
  }

  lookUp(parts: readonly string[]): File | Directory | number {
    let at: File | Directory = this.root;
    for (const part of parts) {
      if (part.length > NAME_MAX) return Errno.ENAMETOOLONG;
      if (at instanceof File) return Errno.ENOTDIR;
      const next = at.entries.get(part);
      if (next === undefined) return Errno.ENOENT;
      at = next;
    }
    return at;
  }
}

// ---- memory -------------------------------------------------------------------------------------

class ModelSystem extends LibOS {
  readonly #pages: FreePages;
  readonly #world: World;
  readonly #script: string;
  readonly #broken: boolean;
  readonly #finished: () => void;
  readonly #leaves = new Map<number, number>();
  readonly #mapped = new Set<number>(); // virtual pages of the heap
  #middle = 0;

  constructor(port: UserPort, world: World, script: string, broken: boolean, finished: () => void) {
    super(port);
    this.#pages = new FreePages(this.sys);
    this.#world = world;
    this.#script = script;
    this.#broken = broken;
    this.#finished = finished;
  }

  override *main(_self: number, _root: number, middle: number): Op<void> {
    this.#middle = middle;
    yield* this.catchFaults();
    const world = this.#world;
    const shell = PROGRAMS.find(({ name }) => name === 'sh');
    if (shell === undefined) throw new Error('model: there is a shell');
    const [read, write] = openedPipe();
    read.closed();
    const descriptors = new Map<number, Opened>([
      [0, openedFile(new File(0), O_READ)],
      [1, this.#broken ? write : openedSink((text) => (world.stdout += text))],
      [2, openedSink((text) => (world.stderr += text))],
    ]);
    const args = ['sh', '-c', this.#script];
    const process = new ModelProcess(this, world, shell, args, descriptors, ['in'], HEAP);
    world.status = yield* process.live(shell.main(process));
    this.#finished();
  }

  override *onFault(_cause: number, address: number): Op<boolean> {
    if (address < HEAP || address >= HEAP_END) return false;
    const index = Math.floor(address / LEAF);
    let leaf = this.#leaves.get(index);
    if (leaf === undefined) {
      leaf = yield* this.#pages.take(0);
      const made = yield* this.sys.tableCreate(this.#middle, index, leaf, 0, [-1, -1], 0);
      if (made.status !== Status.ok) return false;
      this.#leaves.set(index, leaf);
    }
    const page = yield* this.#pages.take(0);
    const at = Math.floor(address / PAGE);
    const flags = MAP_READ | MAP_WRITE;
    const { status } = yield* this.sys.pageMap(leaf, at % 512, page, 0, 0, flags, 0);
    this.#mapped.add(at);
    return status === Status.ok;
  }

  *save(): Op<ReadonlyMap<number, Uint8Array>> {
    const saved = new Map<number, Uint8Array>();
    for (const at of this.#mapped) {
      const bytes = new Uint8Array(PAGE);
      this.port.read(at * PAGE, bytes, 0, PAGE) ?? (yield* this.port.fault());
      saved.set(at, bytes);
    }
    return saved;
  }

  /** Pages that have come since are zeros again. */
  *restore(saved: ReadonlyMap<number, Uint8Array>): Op<void> {
    const zeros = new Uint8Array(PAGE);
    for (const at of this.#mapped) {
      const bytes = saved.get(at) ?? zeros;
      this.port.write(at * PAGE, bytes, 0, PAGE) ?? (yield* this.port.fault());
    }
  }
}

// ---- processes ----------------------------------------------------------------------------------

class Exit extends Error {
  readonly status: number;
  constructor(status: number) {
    super();
    this.status = status;
  }
}

class Exec extends Error {
  readonly program: Program;
  readonly args: readonly string[];
  readonly environment: readonly string[];
  constructor(program: Program, args: readonly string[], environment: readonly string[]) {
    super();
    this.program = program;
    this.args = args;
    this.environment = environment;
  }
}

class ModelProcess implements Process {
  readonly port: UserPort;
  readonly pid: number;
  args: readonly string[];
  environment: readonly string[];
  readonly #system: ModelSystem;
  readonly #world: World;
  #program: Program;
  readonly #descriptors: Map<number, Opened>;
  #cwd: readonly string[];
  #top: number;
  readonly #ended: (readonly [number, number])[] = [];

  constructor(
    system: ModelSystem,
    world: World,
    program: Program,
    args: readonly string[],
    descriptors: Map<number, Opened>,
    cwd: readonly string[],
    top: number,
    environment: readonly string[] = [],
  ) {
    this.environment = environment;
    this.port = system.port;
    this.pid = world.pids++;
    this.args = args;
    this.#system = system;
    this.#world = world;
    this.#program = program;
    this.#descriptors = descriptors;
    this.#cwd = cwd;
    this.#top = top;
  }

  /** Runs code of this process, and what it execs, to the end; the exit status. */
  *live(start: Op<number>): Op<number> {
    let code = start;
    for (;;) {
      try {
        const status = yield* code;
        this.#closeAll();
        return status;
      } catch (error) {
        if (error instanceof Exit) {
          this.#closeAll();
          return error.status;
        }
        if (!(error instanceof Exec)) throw error;
        this.#program = error.program;
        this.args = error.args;
        this.environment = error.environment;
        code = error.program.main(this);
      }
    }
  }

  *open(path: string, flags: number): Op<number> {
    if (path === '/dev/null') return this.#install(openedNothing());
    const parts = this.#world.resolve(this.#cwd, path);
    let node = this.#world.lookUp(parts);
    if (node === Errno.ENOENT && (flags & O_CREATE) !== 0) {
      const parent = this.#world.lookUp(parts.slice(0, -1));
      if (typeof parent === 'number') return parent;
      if (parent instanceof File) return Errno.ENOTDIR;
      node = new File(this.#world.inode());
      parent.entries.set(parts.at(-1) ?? '', node);
    } else if (typeof node !== 'number' && (flags & O_EXCLUSIVE) !== 0) return Errno.EEXIST;
    if (typeof node === 'number') return node;
    if (node instanceof Directory) {
      return (flags & O_WRITE) === 0 ? this.#install(openedDirectory()) : Errno.EISDIR;
    }
    if ((flags & O_DIRECTORY) !== 0) return Errno.ENOTDIR;
    const needs = ((flags & O_READ) === 0 ? 0 : 0o400) | ((flags & O_WRITE) === 0 ? 0 : 0o200);
    if ((node.mode & needs) !== needs) return Errno.EACCES;
    if ((flags & O_TRUNCATE) !== 0) node.length = 0;
    return this.#install(openedFile(node, flags));
  }

  *close(fd: number): Op<number> {
    const opened = this.#descriptors.get(fd);
    if (opened === undefined) return Errno.EBADF;
    this.#descriptors.delete(fd);
    if (--opened.references === 0) opened.closed();
    return 0;
  }

  *read(fd: number, va: number, bytes: number): Op<number> {
    const got = this.#descriptors.get(fd)?.read(bytes) ?? Errno.EBADF;
    if (typeof got === 'number') return got;
    this.port.write(va, got, 0, got.length) ?? (yield* this.port.fault());
    return got.length;
  }

  *write(fd: number, va: number, bytes: number): Op<number> {
    const data = new Uint8Array(bytes);
    this.port.read(va, data, 0, bytes) ?? (yield* this.port.fault());
    return this.#descriptors.get(fd)?.write(data) ?? Errno.EBADF;
  }

  *pipe(): Op<readonly [number, number] | number> {
    const [read, write] = openedPipe();
    const readFd = this.#install(read);
    const writeFd = this.#install(write);
    return writeFd < 0 ? Errno.EMFILE : [readFd, writeFd];
  }

  *dup2(from: number, to: number): Op<number> {
    const opened = this.#descriptors.get(from);
    if (opened === undefined || to < 0 || to >= OPEN_MAX) return Errno.EBADF;
    if (from === to) return to;
    opened.references++;
    yield* this.close(to);
    this.#descriptors.set(to, opened);
    return to;
  }

  // Nobody else runs meanwhile: what is not ready now never is, and time passes at once.
  *poll(wanted: readonly PollFor[], cycles: number): Op<readonly number[] | number> {
    const found = wanted.map(({ fd, events }) => {
      const opened = this.#descriptors.get(fd);
      if (fd < 0) return 0;
      if (opened === undefined) return Poll.NVAL;
      return (opened.ready?.() ?? Poll.IN | Poll.OUT) & (events | Poll.HUP);
    });
    if (cycles < 0 && found.every((events) => events === 0)) {
      throw new Error('model: this poll would never end');
    }
    return found;
  }

  *stat(path: string): Op<Stat | number> {
    const node = this.#world.lookUp(this.#world.resolve(this.#cwd, path));
    if (typeof node === 'number') return node;
    const directory = node instanceof Directory;
    const { inode, mode } = node;
    const [bytes, links] = directory ? [0, 1] : [node.length, node.links];
    return { inode, directory, bytes, mode, links };
  }

  *mkdir(path: string): Op<number> {
    const parts = this.#world.resolve(this.#cwd, path);
    if (typeof this.#world.lookUp(parts) !== 'number') return Errno.EEXIST;
    const parent = this.#world.lookUp(parts.slice(0, -1));
    if (typeof parent === 'number') return parent;
    if (parent instanceof File) return Errno.ENOTDIR;
    parent.entries.set(parts.at(-1) ?? '', new Directory(this.#world.inode()));
    return 0;
  }

  *readdir(path: string): Op<readonly string[] | number> {
    const node = this.#world.lookUp(this.#world.resolve(this.#cwd, path));
    if (typeof node === 'number') return node;
    return node instanceof File ? Errno.ENOTDIR : [...node.entries.keys()];
  }

  /** The directory of a path's last name, that name, and what it stands for. */
  #place(
    path: string,
  ): { parent: Directory; name: string; node: File | Directory | number } | number {
    const parts = this.#world.resolve(this.#cwd, path);
    const parent = this.#world.lookUp(parts.slice(0, -1));
    if (typeof parent === 'number') return parent;
    if (parent instanceof File) return Errno.ENOTDIR;
    return { parent, name: parts.at(-1) ?? '', node: this.#world.lookUp(parts) };
  }

  *unlink(path: string, only?: 'file' | 'directory'): Op<number> {
    const place = this.#place(path);
    if (typeof place === 'number') return place;
    const { parent, name, node } = place;
    if (typeof node === 'number') return node;
    if (node instanceof Directory) {
      if (only === 'file') return Errno.EISDIR;
      if (node.entries.size > 0) return Errno.ENOTEMPTY;
    } else if (only === 'directory') return Errno.ENOTDIR;
    else node.links--;
    parent.entries.delete(name);
    return 0;
  }

  *rename(from: string, to: string): Op<number> {
    const [source, target] = [this.#place(from), this.#place(to)];
    if (typeof source === 'number') return source;
    if (typeof source.node === 'number') return source.node;
    if (typeof target === 'number') return target;
    const there = target.node;
    if (there === source.node) return 0;
    if (typeof there !== 'number') {
      const onto = there instanceof Directory;
      if (onto !== source.node instanceof Directory) return onto ? Errno.EISDIR : Errno.ENOTDIR;
      if (onto && there.entries.size > 0) return Errno.ENOTEMPTY;
      if (!onto) there.links--;
    }
    const inside = (at: File | Directory): boolean =>
      at === target.parent || (at instanceof Directory && [...at.entries.values()].some(inside));
    if (source.node instanceof Directory && inside(source.node)) return Errno.EINVAL;
    source.parent.entries.delete(source.name);
    target.parent.entries.set(target.name, source.node);
    return 0;
  }

  *link(from: string, to: string): Op<number> {
    const [source, target] = [this.#place(from), this.#place(to)];
    if (typeof source === 'number') return source;
    if (typeof source.node === 'number') return source.node;
    if (source.node instanceof Directory) return Errno.EPERM;
    if (typeof target === 'number') return target;
    if (typeof target.node !== 'number') return Errno.EEXIST;
    source.node.links++;
    target.parent.entries.set(target.name, source.node);
    return 0;
  }

  *chmod(path: string, mode: number): Op<number> {
    const node = this.#world.lookUp(this.#world.resolve(this.#cwd, path));
    if (typeof node === 'number') return node;
    node.mode = mode;
    return 0;
  }

  *truncate(fd: number, bytes: number): Op<number> {
    return this.#descriptors.get(fd)?.truncate?.(bytes) ?? Errno.EBADF;
  }

  *seek(fd: number, offset: number, from: 'start' | 'here' | 'end'): Op<number> {
    return this.#descriptors.get(fd)?.seek?.(offset, from) ?? Errno.EBADF;
  }

  *fsync(fd: number): Op<number> {
    return this.#descriptors.has(fd) ? 0 : Errno.EBADF;
  }

  *room(): Op<Room> {
    return { blocks: 1000, freeBlocks: 500, freeInodes: 100 };
  }

  *chdir(path: string): Op<number> {
    const parts = this.#world.resolve(this.#cwd, path);
    const node = this.#world.lookUp(parts);
    if (typeof node === 'number') return node;
    if (node instanceof File) return Errno.ENOTDIR;
    this.#cwd = parts;
    return 0;
  }

  *sync(): Op<number> {
    return 0;
  }

  *openStore(): Op<number> {
    return Errno.ENXIO;
  }
  *closeStore(): Op<void> {}

  *heap(bytes: number): Op<number> {
    if (this.#world.scattered) this.#top += PAGE;
    const address = this.#top;
    this.#top += Math.ceil(bytes / PAGE) * PAGE;
    return this.#top > HEAP_END ? Errno.ENOMEM : address;
  }

  *fork(child: number, argument: number): Op<number> {
    const start = this.#program.children?.[child];
    if (start === undefined) return Errno.EINVAL;
    const saved = yield* this.#system.save();
    const descriptors = new Map(this.#descriptors);
    for (const opened of descriptors.values()) opened.references++;
    const process = new ModelProcess(
      this.#system,
      this.#world,
      this.#program,
      this.args,
      descriptors,
      this.#cwd,
      this.#top,
      this.environment,
    );
    const status = yield* process.live(start(process, argument));
    yield* this.#system.restore(saved);
    this.#ended.push([process.pid, status]);
    return process.pid;
  }

  *exec(
    name: string,
    args: readonly string[],
    environment: readonly string[] = this.environment,
  ): Op<number> {
    const program = PROGRAMS.find((one) => one.name === name);
    if (program === undefined) return Errno.ENOENT;
    if ([...args, ...environment].join('\0').length + 1 > ARG_MAX) return Errno.E2BIG;
    throw new Exec(program, args, environment);
  }

  *wait({ pid }: WaitFor = {}): Op<readonly [pid: number, status: number] | number> {
    const at = pid === undefined ? 0 : this.#ended.findIndex(([one]) => one === pid);
    return at < 0 ? Errno.ECHILD : (this.#ended.splice(at, 1)[0] ?? Errno.ECHILD);
  }

  // Processes run one after another: there is nobody to be signalled.
  *kill(_pid: number, signal: number): Op<number> {
    return signal === 0 ? 0 : Errno.ESRCH;
  }
  *handle(): Op<number> {
    return 0;
  }
  *setGroup(): Op<number> {
    return 0;
  }
  *setForeground(): Op<void> {}

  *exit(status: number): Op<never> {
    throw new Exit(status);
  }

  #install(opened: Opened): number {
    for (let fd = 0; fd < OPEN_MAX; fd++) {
      if (this.#descriptors.has(fd)) continue;
      this.#descriptors.set(fd, opened);
      return fd;
    }
    return Errno.EMFILE;
  }

  #closeAll(): void {
    for (const opened of this.#descriptors.values()) {
      if (--opened.references === 0) opened.closed();
    }
    this.#descriptors.clear();
  }
}
