/**
 * /proc: what the process table and the kernel's exposed tables say, as text, made when a file is
 * opened. Nothing of it is on the disk: /proc/meminfo, and for each process /proc/PID/status and
 * /proc/PID/maps, which is read in its page tables and swap maps.
 */
import { Env, ENV_PAGES, envIndex, EnvState, Info, MAP_READ, MAP_WRITE } from '../../kernel/abi.ts';
import type { Op } from '../syscalls.ts';
import {
  at,
  BUILD_WINDOW,
  Control,
  FILE_WINDOW,
  HEAP,
  INFO,
  LEAVES_MAX,
  PAGE,
  PROCESS_MAX,
  Row,
  RowState,
  sharedPage,
  STACK,
  STORE_BUFFER,
  STORE_BUFFER_PAGES,
  SWAP_COUNTS,
  UAREA,
  User,
  VIEWS,
  WINDOW_PAGES,
} from './layout.ts';
import { Errno, type Stat } from './process.ts';
import type { Shared } from './shared.ts';
import type { Space } from './space.ts';
import { WORK } from './work.ts';

const NAME = 64; // bytes of a program's name that are shown
const INODES = 0x7f000000; // of files here: more than a disk has
const MEMINFO = 'meminfo';
const STATUS = 'status';
const MAPS = 'maps';
const MAPS_MAX = 90; // lines: what a page has room for

const STATES: Readonly<Record<number, string>> = {
  [EnvState.free]: 'gone',
  [EnvState.made]: 'made',
  [EnvState.ready]: 'ready',
  [EnvState.sleeping]: 'sleeping',
  [EnvState.calling]: 'calling',
  [EnvState.receiving]: 'receiving',
  [EnvState.zombie]: 'zombie',
};

/** The parts of a path below /proc; null: it is somewhere else. */
export function procPath(path: string): readonly string[] | null {
  if (!path.startsWith('/proc')) return null;
  const [first, ...rest] = path.split('/').filter((part) => part !== '' && part !== '.');
  return first === 'proc' ? rest : null;
}

export class Proc {
  readonly #shared: Shared;
  readonly #space: Space;

  constructor(shared: Shared, space: Space) {
    this.#shared = shared;
    this.#space = space;
  }

  *stat(parts: readonly string[]): Op<Stat | number> {
    const [first = '', second = ''] = parts;
    const pid = yield* this.#pid(first);
    const isOwn = pid > 0 && (second === STATUS || second === MAPS);
    const isFile = (parts.length === 1 && first === MEMINFO) || isOwn;
    const isDirectory = parts.length === 0 || (parts.length === 1 && pid > 0);
    if (!(isDirectory || isFile) || parts.length > 2) return Errno.ENOENT;
    const inode = INODES + Math.max(pid, 0) * 4 + Number(isFile) + Number(second === MAPS);
    return { inode, directory: isDirectory, bytes: 0, mode: isFile ? 0o444 : 0o555, links: 1 };
  }

  *names(parts: readonly string[]): Op<readonly string[] | number> {
    const stat = yield* this.stat(parts);
    if (typeof stat === 'number') return stat;
    if (!stat.directory) return Errno.ENOTDIR;
    if (parts.length === 1) return [STATUS, MAPS];
    const names = [MEMINFO];
    for (let pid = 1; pid < PROCESS_MAX; pid++) {
      if ((yield* this.#pid(String(pid))) > 0) names.push(String(pid));
    }
    return names;
  }

  /** What a file holds now; EISDIR, ENOENT. */
  *text(parts: readonly string[]): Op<string | number> {
    const stat = yield* this.stat(parts);
    if (typeof stat === 'number') return stat;
    if (stat.directory) return Errno.EISDIR;
    const pid = yield* this.#pid(parts[0] ?? '');
    const make = parts[1] === MAPS ? this.#mapsOf.bind(this) : this.#statusOf.bind(this);
    const lines = pid > 0 ? yield* this.#own(pid, make) : yield* this.#meminfo();
    if (lines === null) return Errno.ENOENT; // it has gone meanwhile
    const { port } = this.#shared;
    port.work(lines.length * WORK.formatLine) ?? (yield* port.fault());
    return lines.map(([name, value]) => `${name}: ${value}\n`).join('');
  }

  /** The process of that name, or -1. */
  *#pid(name: string): Op<number> {
    if (!/^[1-9][0-9]?$/.test(name) || Number(name) >= PROCESS_MAX) return -1;
    const state = yield* this.#shared.row(Number(name), Row.state);
    return state === RowState.running || state === RowState.ended ? Number(name) : -1;
  }

  /** Under the lock: so long nobody buries it, and its pages are its own. */
  *#own(pid: number, make: (pid: number) => Op<Lines>): Op<Lines | null> {
    const shared = this.#shared;
    yield* shared.lock();
    const lines = (yield* this.#pid(String(pid))) < 0 ? null : yield* make(pid);
    yield* shared.unlock();
    return lines;
  }

  *#statusOf(pid: number): Op<Lines> {
    const shared = this.#shared;
    const { port } = shared;
    const row = (word: number): Op<number> => shared.row(pid, word);
    const env = yield* row(Row.env);
    const stopped = (yield* row(Row.stopped)) !== 0;
    const state = STATES[yield* shared.stateOf(env)] ?? 'unknown';
    const view = at(BUILD_WINDOW);
    const own = yield* this.#space.through(
      BUILD_WINDOW,
      yield* row(Row.uarea),
      MAP_READ,
      function* (): Op<{ name: string; end: number; leaves: number }> {
        const bytes = new Uint8Array(NAME);
        port.read(view + User.arguments, bytes, 0, NAME) ?? (yield* port.fault());
        const name = String.fromCharCode(...bytes).split('\0')[0] ?? '';
        const end = (yield* port.load(view + User.end * 4)) >>> 0;
        return { name, end, leaves: yield* port.load(view + User.leaves * 4) };
      },
    );
    return [
      ['Name', own.name],
      ['Pid', pid],
      ['PPid', yield* row(Row.parent)],
      ['Group', yield* row(Row.group)],
      ['State', stopped ? 'stopped' : state],
      ['Environment', envIndex(env)],
      ['Heap pages', (own.end - at(HEAP)) / PAGE],
      ['Leaf tables', own.leaves],
      ['Pending signals', (yield* row(Row.pending)) >>> 0],
    ];
  }

  /** Neighbouring pages that are mapped alike, or are on the disk, a line; as many as fit. */
  *#mapsOf(pid: number): Op<Lines> {
    const [space, { port }] = [this.#space, this.#shared];
    const uarea = yield* this.#shared.row(pid, Row.uarea);
    const view = at(BUILD_WINDOW);
    const [tables, maps] = yield* space.through(BUILD_WINDOW, uarea, MAP_READ, function* (): Op<
      readonly [number[], Uint32Array]
    > {
      const found: number[] = [];
      const leaves = yield* port.load(view + User.leaves * 4);
      for (let n = 0; n < leaves; n++) {
        found.push(yield* port.load(view + (User.tables + n * 3) * 4));
      }
      return [found, yield* space.swap.maps(view)];
    });
    const lines: (readonly [string, string])[] = [];
    let run = { first: 0, pages: 0, what: '' };
    const end = (): void => {
      if (run.what === '') return;
      const hex = (page: number): string => `0x${at(page).toString(16).padStart(8, '0')}`;
      const range = `${hex(run.first)}-${hex(run.first + run.pages)}`;
      lines.push([range, `${run.what}, ${run.pages} page${run.pages === 1 ? '' : 's'}`]);
    };
    for (const [n, table] of tables.entries()) {
      const entries = yield* space.swap.words(table);
      const map = maps[n] ?? 0;
      const blocks = map === 0 ? null : yield* space.swap.words(map);
      for (let index = 0; index * 2 < entries.length; index++) {
        const page = n * (entries.length / 2) + index;
        const what = describe(page, entries[index * 2] ?? 0, blocks?.[index] ?? 0);
        if (what === run.what) run = { ...run, pages: run.pages + 1 };
        else {
          end();
          run = { first: page, pages: 1, what };
        }
      }
      port.work(entries.length) ?? (yield* port.fault());
    }
    end();
    return lines.length <= MAPS_MAX
      ? lines
      : [...lines.slice(0, MAPS_MAX), ['and more', lines.length - MAPS_MAX]];
  }

  *#meminfo(): Op<Lines> {
    const shared = this.#shared;
    const info = (word: number): Op<number> => shared.port.load(at(INFO) + word * 4);
    const rows = yield* info(Info.environments);
    const seen = Math.min(rows, Math.floor((ENV_PAGES * PAGE) / (Env.words * 4)));
    const swap = yield* shared.control(Control.swapBlocks);
    let used = 0;
    for (let n = 0; n < seen; n++) {
      if ((yield* shared.env(n, Env.state)) !== EnvState.free) used++;
    }
    return [
      ['Machine pages', yield* info(Info.pages)],
      ['Free pages', yield* shared.control(Control.free)],
      ['Swap pages', swap],
      ['Swap pages used', swap - (yield* shared.control(Control.swapFree))],
      ['Swap pages written', yield* shared.control(Control.swapOut)],
      ['Swap pages read', yield* shared.control(Control.swapIn)],
      ['Environments', rows],
      ['Environments used', used],
      ['Slice cycles', yield* info(Info.sliceCycles)],
      ['Disk requests', yield* info(Info.diskQueued)],
    ];
  }
}

/** What stands at a virtual page, by its entry and the block that it has; '': nothing. */
function describe(page: number, entry: number, block: number): string {
  const on = block === 0 ? '' : ' and on the disk';
  if ((entry & 1) === 0) return block === 0 ? '' : '--- heap, on the disk';
  const rights = `r${(entry & MAP_WRITE) === 0 ? '-' : 'w'}-`;
  return `${rights} ${place(page)}${page < HEAP ? '' : on}`;
}

function place(page: number): string {
  if (page >= HEAP) return 'heap';
  if (page === STACK) return 'stack';
  if (page === UAREA) return 'u-area';
  if (page >= VIEWS && page < VIEWS + LEAVES_MAX) return 'own tables';
  if (page >= FILE_WINDOW && page < FILE_WINDOW + WINDOW_PAGES) return 'file window';
  if (page >= STORE_BUFFER && page < STORE_BUFFER + STORE_BUFFER_PAGES) return 'store';
  return sharedPage(page) >= 0 || page >= SWAP_COUNTS ? 'shared' : 'exposed';
}

type Lines = readonly (readonly [name: string, value: string | number])[];
