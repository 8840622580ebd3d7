/**
 * The state that all processes of this Unix share: free pages and their counts, the process table.
 * It lies in shared pages and is touched word by word; a spin lock that yields guards what takes
 * more than one store. Processes of one Unix trust one another's library; other tenants cannot
 * reach these pages.
 */
import { Env, envIndex, ENV_INDEX_BITS, EnvState, Status } from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';
import {
  at,
  COMMON,
  CONTROL,
  Control,
  COUNTS,
  ENVS,
  FREE,
  Pipe,
  PROCESS_MAX,
  PROCESSES,
  Row,
  RowState,
} from './layout.ts';

/** Cycles of one sleep; who waits longer sleeps again. */
export const SLEEP_MAX = 2 ** 31 - 1;

const LOST = 128; // no page has so many mappings: counts of a lost one go down from 256

const control = (word: number): number => at(CONTROL) + word * 4;
const row = (pid: number, word: number): number => at(PROCESSES) + (pid * Row.words + word) * 4;

export class Shared {
  readonly port: UserPort;
  readonly #sys: Syscalls;

  constructor(sys: Syscalls) {
    this.port = sys.port;
    this.#sys = sys;
  }

  // ---- words ------------------------------------------------------------------------------------

  control(word: number): Op<number> {
    return this.port.load(control(word));
  }
  setControl(word: number, value: number): Op<number> {
    return this.port.store(control(word), value);
  }
  row(pid: number, word: number): Op<number> {
    return this.port.load(row(pid, word));
  }
  setRow(pid: number, word: number, value: number): Op<number> {
    return this.port.store(row(pid, word), value);
  }

  // ---- the lock ---------------------------------------------------------------------------------

  /** Takes the lock; whoever finds it taken gives its slice back to the scheduler. */
  *lock(): Op<void> {
    const { port } = this;
    while ((port.swap32(control(Control.lock), 1) ?? (yield* port.fault())) !== 0) {
      const { status } = yield* this.#sys.yieldTo(yield* this.control(Control.init));
      if (status !== Status.ok) yield* this.#sys.yieldTo(-1);
    }
  }

  *unlock(): Op<void> {
    yield* this.setControl(Control.lock, 0);
  }

  // ---- pages ------------------------------------------------------------------------------------

  /** Takes a page with count 1; -1 if none is left. Its contents are whatever they were. */
  *take(): Op<number> {
    yield* this.lock();
    const free = yield* this.control(Control.free);
    if (free === 0) {
      yield* this.unlock();
      return -1;
    }
    const page = yield* this.port.load(at(FREE) + (free - 1) * 4);
    yield* this.setControl(Control.free, free - 1);
    yield* this.#setCount(page, 1);
    yield* this.unlock();
    return page;
  }

  /** `count` pages, or none at all. */
  *takeMany(count: number): Op<readonly number[] | null> {
    const pages = [];
    for (let n = 0; n < count; n++) {
      const page = yield* this.take();
      if (page < 0) {
        for (const taken of pages) yield* this.drop(taken);
        return null;
      }
      pages.push(page);
    }
    return pages;
  }

  /** One more mapping of a page. */
  *keep(page: number): Op<void> {
    yield* this.lock();
    yield* this.#setCount(page, (yield* this.#count(page)) + 1);
    yield* this.unlock();
  }

  /** One mapping less; the last one frees the page. */
  *drop(page: number): Op<void> {
    yield* this.lock();
    const count = yield* this.#count(page);
    yield* this.#setCount(page, count - 1);
    if (count === 1) {
      const free = yield* this.control(Control.free);
      yield* this.port.store(at(FREE) + free * 4, page);
      yield* this.setControl(Control.free, free + 1);
    }
    yield* this.unlock();
  }

  /** A page was taken by force: whoever lets go of it frees nothing. */
  lost(page: number): Op<void> {
    return this.#setCount(page, 0);
  }

  /** Whether it was. */
  *isLost(page: number): Op<boolean> {
    const count = yield* this.#count(page);
    return count === 0 || count > LOST;
  }

  *isShared(page: number): Op<boolean> {
    return (yield* this.#count(page)) > 1;
  }

  *#count(page: number): Op<number> {
    return this.port.load8(at(COUNTS) + page) ?? (yield* this.port.fault());
  }

  *#setCount(page: number, count: number): Op<void> {
    if (this.port.store8(at(COUNTS) + page, count) === undefined) yield* this.port.fault();
  }

  // ---- processes --------------------------------------------------------------------------------

  /** Claims a free row; its number, or -1. */
  *claimRow(parent: number): Op<number> {
    yield* this.lock();
    for (let pid = 1; pid < PROCESS_MAX; pid++) {
      if ((yield* this.row(pid, Row.state)) !== RowState.free) continue;
      for (let word = 0; word < Row.words; word++) yield* this.setRow(pid, word, 0);
      yield* this.setRow(pid, Row.state, RowState.building);
      yield* this.setRow(pid, Row.parent, parent);
      yield* this.unlock();
      return pid;
    }
    yield* this.unlock();
    return -1;
  }

  /** A word of the exposed record of an environment. */
  env(index: number, word: number): Op<number> {
    return this.port.load(at(ENVS) + (index * Env.words + word) * 4);
  }

  /** State of the environment with this id; free if its row has another holder by now. */
  *stateOf(id: number): Op<number> {
    const index = envIndex(id);
    const state = yield* this.env(index, Env.state);
    const generation = yield* this.env(index, Env.generation);
    return generation === id >>> ENV_INDEX_BITS ? state : EnvState.free;
  }

  /** Cycle count until which a sleeping environment sleeps at most; 0: for ever. */
  *deadlineOf(id: number): Op<number> {
    const index = envIndex(id);
    const low = yield* this.env(index, Env.deadline);
    return (yield* this.env(index, Env.deadline + 1)) * 2 ** 32 + (low >>> 0);
  }

  /** Wakes an environment that sleeps, or will: an event for it. */
  *wake(env: number, slot: number): Op<void> {
    yield* this.#sys.notify(env, slot);
  }

  /**
   * Wakes all who wait at either end of a pipe: whoever finds nothing to do there waits again. It
   * takes the masks word by word without the lock, which who schedules may not wait for; who sets
   * its bit meanwhile stores that last, and has at worst an event too many for others.
   */
  *wakeAll(pipe: number): Op<void> {
    const { port } = this;
    const first = Control.pipes + pipe * Pipe.words + Pipe.readerWaits;
    for (let n = 0; n < 4; n++) {
      if ((yield* this.control(first + n)) === 0) continue;
      let mask = port.swap32(control(first + n), 0) ?? (yield* port.fault());
      for (; mask !== 0; mask &= mask - 1) {
        const pid = (n & 1) * 32 + 31 - Math.clz32(mask & -mask);
        const env = pid === 0 ? this.control(Control.init) : this.row(pid, Row.env);
        yield* this.wake(yield* env, COMMON);
      }
    }
  }

  /** Index of an environment that looked free just now, from the hint on; -1 if there is none. */
  *freeEnv(limit: number): Op<number> {
    const from = yield* this.control(Control.nextEnv);
    for (let n = 0; n < limit - 1; n++) {
      const index = 1 + ((from + n) % (limit - 1));
      if ((yield* this.env(index, Env.state)) !== EnvState.free) continue;
      yield* this.setControl(Control.nextEnv, index);
      return index;
    }
    return -1;
  }
}
