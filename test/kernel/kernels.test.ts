/**
 * One program that makes a valid use of every call, on the exokernel and on the unikernel: what it is
 * told, and what it can see afterwards in memory, the exposed tables and on the disk, is the same.
 * So a library OS runs unchanged on either, as far as it does what it may.
 */
import { describe, expect, test } from 'vitest';
import {
  Account,
  Call,
  type CallName,
  DISK_FORCE,
  DISK_WRITE,
  Env,
  EnvState,
  Extent,
  Info,
  MAP_READ,
  Operator,
  packName,
  PageKind,
  READ,
  Resource,
  Start,
  Status,
  Upcall,
  WRITE,
  Woken,
} from '../../kernel/abi.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { image, type Op, type UserPort } from '../../libos/libos.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Entry } from '../../machine/user-port.ts';
import { at, BATCH, COMMON, FIRST, Jos, MEMORY, OWN, RW } from '../programs/jos.ts';
import { CALLS, callName, statusName } from './harness.ts';

/** What the unikernel does not know: nothing is taken by force, for nothing tells who maps a page. */
const UNKNOWN: readonly CallName[] = ['repossess', 'pageSweep'];

const [TABLES, WARD, PART] = [500, 20, 3]; // index of exposed tables; an account; an extent
const BLOCKS = 12;

/** What a call answered, and what is seen of it. */
type Seen = readonly (string | number)[];

class Everything extends Jos {
  readonly #report: (name: CallName, ...seen: Seen) => void;
  readonly #faults: string[] = [];
  readonly #own: number[] = []; // pages of the child that is asked

  constructor(port: UserPort, report: (name: CallName, ...seen: Seen) => void) {
    super(port);
    this.#report = report;
  }

  // ---- what it looks at -------------------------------------------------------------------------

  *#kind(page: number): Op<string> {
    const word = yield* this.port.load(at(Start.pagePages) + page * 4);
    const kind = word & 0xff;
    return Object.entries(PageKind).find(([, number]) => number === kind)?.[0] ?? `${kind}`;
  }
  /** Word `word` of an exposed table that begins at the page that `first` tells. */
  *#exposed(first: number, word: number): Op<number> {
    const page = (yield* this.info(first)) + Math.floor((word * 4) / PAGE_BYTES);
    yield* this.sys.pageMap(this.leaf, TABLES, page, OWN, 0, MAP_READ, OWN);
    const value = yield* this.port.load(at(TABLES) + ((word * 4) % PAGE_BYTES));
    yield* this.sys.pageUnmap(this.leaf, TABLES, 1, OWN);
    return value;
  }
  *#extent(row: number): Op<Seen> {
    const seen = [];
    for (const word of [Extent.first, Extent.count, Extent.nameA, Extent.valid]) {
      seen.push(yield* this.#exposed(Info.extentPage, row * Extent.words + word));
    }
    return seen;
  }
  *#account(row: number, ...words: readonly number[]): Op<Seen> {
    const seen = [];
    for (const word of words) {
      seen.push(yield* this.#exposed(Info.accountPage, row * Account.words + word));
    }
    return seen;
  }
  override *onFault(cause: number, address: number): Op<boolean> {
    this.#faults.push(`${cause} at ${address.toString(16)}`);
    const [page, index] = [yield* this.take(), Math.floor(address / PAGE_BYTES)];
    yield* this.sys.pageUnmap(this.leaf, index, 1, OWN);
    yield* this.map(index, page);
    return true;
  }
  /** In the child alone: gives back what it was asked for. */
  override *onRevoke(wanted: number, cycles: number): Op<void> {
    yield* this.port.store(at(MEMORY + 6) + 4, wanted);
    const inTime = cycles > 0 && cycles <= 1_000_000 ? 1 : 0;
    yield* this.port.store(at(MEMORY + 6) + 8, inTime);
    for (let n = 0; n < wanted; n++) yield* this.sys.pageFree(this.#own.pop() ?? 0, COMMON);
  }
  #faulted(): string {
    return this.#faults.splice(0).join();
  }

  // ---- the calls, one after another -------------------------------------------------------------

  *#call(name: CallName, ...args: readonly number[]): Op<string> {
    const { status, value } = yield* this.port.call(Call[name], ...args);
    return `${statusName(status)} ${value}`;
  }

  override *umain(): Op<void> {
    yield* this.catchFaults();
    yield* this.#memory();
    yield* this.#sharing();
    yield* this.#time();
    yield* this.#environments();
    yield* this.#disk();
    yield* this.#accounts();
  }

  *#memory(): Op<void> {
    const { leaf, port } = this;
    const report = this.#report;
    report('null', yield* this.#call('null'));
    const text = new TextEncoder().encode('said\n');
    port.write(BATCH, text, 0, text.length) ?? (yield* port.fault());
    report('consoleWrite', yield* this.#call('consoleWrite', BATCH, text.length));
    const read = yield* this.#call('consoleRead');
    report('consoleRead', read, ...[1, 2, 3, 4].map((n) => port.result(n)));
    let page = 0;
    while ((yield* this.#kind(page)) !== 'free') page++;
    report(
      'pageAllocate',
      yield* this.#call('pageAllocate', page, COMMON),
      yield* this.#kind(page),
    );
    const map = yield* this.#call('pageMap', leaf, MEMORY, page, COMMON, 0, RW, OWN);
    yield* port.store(at(MEMORY), 77);
    report('pageMap', map, yield* port.load(at(MEMORY)), this.#faulted());
    const protect = yield* this.#call('pageProtect', leaf, MEMORY, 1, MAP_READ, OWN);
    yield* port.store(at(MEMORY), 78); // faults: another page is put there
    report('pageProtect', protect, yield* port.load(at(MEMORY) + 4), this.#faulted());
    const unmap = yield* this.#call('pageUnmap', leaf, MEMORY, 1, OWN);
    const gone = yield* port.load(at(MEMORY));
    report('pageUnmap', unmap, gone, this.#faulted());
    yield* port.store(BATCH, page);
    const other = yield* this.take();
    yield* port.store(BATCH + 4, other);
    const list = yield* this.#call('pageMapList', leaf, MEMORY + 1, 2, BATCH, COMMON, RW, OWN);
    report('pageMapList', list, yield* port.load(at(MEMORY + 1)), yield* port.load(at(MEMORY + 2)));
    const copy = yield* this.#call('pageCopy', other, COMMON, 0, page, COMMON, 0);
    report('pageCopy', copy, yield* port.load(at(MEMORY + 2)));
    yield* this.sys.pageUnmap(leaf, MEMORY + 1, 2, OWN);
    report('pageFree', yield* this.#call('pageFree', page, COMMON), yield* this.#kind(page));
    const [table, first, second] = [yield* this.take(), yield* this.take(), yield* this.take()];
    const made = yield* this.#call(
      'tableCreate',
      this.middle,
      1,
      table,
      COMMON,
      first,
      second,
      OWN,
    );
    const there = yield* this.#kind(table);
    yield* this.map(0, other, RW, table);
    report('tableCreate', made, there, yield* port.load(at(512)));
    yield* this.sys.pageUnmap(table, 0, 1, OWN);
    const destroyed = yield* this.#call('tableDestroy', table, OWN);
    report('tableDestroy', destroyed, yield* this.#kind(table), yield* this.#kind(first));
    for (const [n, word] of [Call.null, Call.pageFree, other, COMMON].entries()) {
      yield* port.store(BATCH + n * 4, word);
    }
    report('batch', yield* this.#call('batch', BATCH, 2), yield* this.#kind(other));
  }

  *#sharing(): Op<void> {
    const report = this.#report;
    const { a, b } = this.commonName(5);
    const page = yield* this.take();
    report('accessAdd', yield* this.#call('accessAdd', page, COMMON, 1, a, b, READ));
    report('accessRemove', yield* this.#call('accessRemove', page, COMMON, 1));
    report('pageLimit', yield* this.#call('pageLimit', page, COMMON, 4, 2));
    report('pageKeep', yield* this.#call('pageKeep', page, COMMON, 1));
    report('pageKeep', yield* this.#call('pageKeep', page, COMMON, 0));
    report('capForge', yield* this.#call('capForge', this.self, 7, COMMON, a, b, READ));
    report('capDrop', yield* this.#call('capDrop', this.self, 7, OWN));
    const entry = yield* this.#call('upcallSet', Upcall.sliceBegin, -1, at(Start.stackPage));
    report('upcallSet', entry);
  }

  *#time(): Op<void> {
    const { port, sys } = this;
    const report = this.#report;
    report('yield', yield* this.#call('yield', -1));
    const before = yield* this.env(this.self, Env.events);
    const told = yield* this.#call('notify', this.self, OWN);
    report('notify', told, (yield* this.env(this.self, Env.events)) - before);
    const woken = Object.keys(Woken);
    const why = function* (seen: number, cycles: number, terms: number): Op<Seen> {
      const { status } = yield* sys.sleep(seen, cycles, BATCH, terms);
      return [statusName(status), woken[port.result(1)] ?? '', port.result(2)];
    };
    const events = before + 1;
    report('sleep', ...(yield* why(before, -1, 0)));
    const since = port.cycles();
    report('sleep', ...(yield* why(events, 30_000, 0)), port.cycles() - since >= 30_000 ? 1 : 0);
    const page = yield* this.info(Info.page);
    const slices = yield* this.info(Info.slices);
    const term = [page, Info.slices | (Operator.equal << 16) | (1 << 24), slices, 9];
    for (const [n, word] of term.entries()) yield* port.store(BATCH + n * 4, word);
    report('sleep', ...(yield* why(events, -1, 1)));
  }

  *#environments(): Op<void> {
    const { port, sys } = this;
    const report = this.#report;
    const child = yield* this.exofork();
    if (child === null) throw new Error('no environment');
    const { env, leaf } = child;
    const seen = function* (this: Everything): Op<Seen> {
      const words = [];
      for (const word of [Env.state, Env.patron, Env.nameA, Env.parent, Env.exitStatus] as const) {
        words.push(yield* this.env(env, word));
      }
      return words;
    }.bind(this);
    report('envCreate', env, ...(yield* seen()));
    let free = 0;
    while ((yield* this.info(Info.sliceVector + free)) !== 0) free++;
    const taken = yield* this.#call('sliceAllocate', free, env, COMMON);
    report('sliceAllocate', taken, (yield* this.info(Info.sliceVector + free)) === env ? 1 : 0);
    const program = yield* this.env(this.self, Env.image);
    const started = yield* this.#call('envStart', env, program, FIRST, leaf, this.self, COMMON);
    report('envStart', started, (yield* seen())[0] ?? '');
    while ((yield* this.env(env, Env.state)) !== EnvState.receiving) yield* sys.yieldTo(-1);
    report('ipcWindow', yield* port.load(at(MEMORY + 9))); // what the child was told: see below
    const page = yield* this.allocate(MEMORY + 4);
    yield* port.store(at(MEMORY + 4), 4711);
    const grant = { page, slot: COMMON, rights: READ | WRITE, entry: 1 };
    const reply = yield* sys.ipcCall(env, [1, 2, 3, 4], grant);
    report('ipcCall', reply.status, reply.from === env ? 1 : 0, ...reply.words);
    report('ipcReplyWait', yield* port.load(at(MEMORY + 4) + 4)); // the child wrote that
    const { a, b } = this.commonName(6);
    report('capOffer', yield* this.#call('capOffer', env, COMMON, a, b, READ));
    report('capAcquire', ...(yield* sys.ipcCall(env, [2])).words);
    report('ipcSend', (yield* sys.ipcSend(env, [5, 6, 7, 8])).status);
    while ((yield* port.load(at(MEMORY + 4) + 8)) !== 5) yield* sys.yieldTo(-1);
    const suspended = yield* this.#call('envSuspend', env, COMMON, 1);
    report('envSuspend', suspended, yield* this.env(env, Env.suspended));
    yield* sys.envSuspend(env, COMMON, 0);
    const destroyed = yield* this.#call('envDestroy', env, COMMON, 12);
    report('envDestroy', destroyed, ...(yield* seen()));
    const freed = yield* this.#call('sliceFree', free, COMMON);
    report('sliceFree', freed, yield* this.info(Info.sliceVector + free));
    // The page that was granted is still mapped here: reaping frees the others.
    const status = yield* this.reap(child);
    report(
      'envReap',
      status,
      yield* this.env(env, Env.state),
      yield* this.#kind(child.pages[0] ?? 0),
    );
  }
  override entries(): readonly Entry[] {
    return [
      this.child(
        function* (this: Everything, parent: number): Op<void> {
          const { sys, port } = this;
          const window = yield* sys.ipcWindow(this.leaf, 400, OWN);
          let [client, answer] = [-1, window.status];
          for (;;) {
            const { from, words, granted } = yield* sys.ipcReplyWait(client, [answer, 9, 8, 7]);
            client = from;
            answer = granted;
            if (granted >= 0) {
              answer = (yield* port.load(at(granted))) + granted;
              yield* port.store(at(granted) + 4, 99);
            } else if (words[0] === 2) {
              answer = (yield* sys.capAcquire(parent, 5)).status;
            } else if (words[0] === 5) {
              yield* port.store(at(400) + 8, words[0]);
              client = -1;
            }
          }
        }.bind(this),
      ),
      this.child(
        function* (this: Everything): Op<void> {
          yield* this.catchRevocation();
          this.#own.push(yield* this.take(), yield* this.take());
          yield* this.port.store(at(MEMORY + 6) + 12, this.#own[0] ?? 0);
          for (;;) yield* this.sys.sleep(yield* this.env(this.self, Env.events));
        }.bind(this),
      ),
    ];
  }

  *#disk(): Op<void> {
    const { port, sys } = this;
    const report = this.#report;
    const { a, b } = packName([this.account, 7]);
    const split = yield* this.#call('extentSplit', this.extent, OWN, PART, 4, a, b);
    const whole = yield* this.#extent(this.extent);
    report('extentSplit', split, ...whole, ...(yield* this.#extent(PART)));
    const durable = (yield* this.info(Info.extentDurable)) > 0;
    report('extentSplit', durable || (yield* this.info(Info.extentGeneration)) > 0 ? 1 : 0);
    const page = yield* this.allocate(MEMORY + 5);
    yield* port.store(at(MEMORY + 5), 1234);
    yield* port.store(BATCH, page);
    const { value } = yield* sys.diskRequest(
      PART,
      OWN,
      2,
      1,
      BATCH,
      COMMON,
      DISK_WRITE | DISK_FORCE,
    );
    while ((yield* this.env(this.self, Env.diskDone)) < value) {
      yield* sys.sleep(yield* this.env(this.self, Env.events));
    }
    report('diskRequest', value, yield* this.env(this.self, Env.diskFailed));
    report('saveBlock', yield* this.#call('saveBlock', 0, PART, OWN, 1));
    const join = yield* this.#call('extentJoin', this.extent, OWN, PART);
    report('extentJoin', join, ...(yield* this.#extent(this.extent)));
    report('extentJoin', (yield* this.#extent(PART))[3] ?? '');
  }

  *#accounts(): Op<void> {
    const { sys } = this;
    const report = this.#report;
    const mine = yield* this.env(this.self, Env.account);
    const name = this.commonName();
    const limit = Account.limit + Resource.pages;
    const created = yield* this.#call('accountCreate', WARD, mine, OWN, name.a, name.b, 1);
    const { parent, valid, minimum, nameA } = Account;
    report(
      'accountCreate',
      created,
      ...(yield* this.#account(WARD, valid, parent, nameA, minimum)),
    );
    const before = (yield* this.#account(mine, limit))[0] as number;
    const moved = yield* this.#call('accountMove', mine, WARD, OWN, Resource.pages, 5);
    const left = (yield* this.#account(mine, limit))[0] as number;
    report('accountMove', moved, before - left, ...(yield* this.#account(WARD, limit)));
    // Somebody on that account takes two pages, is asked for one, and gives it.
    yield* sys.accountMove(mine, WARD, OWN, Resource.environments, 1);
    yield* sys.accountMove(mine, WARD, OWN, Resource.slices, 1);
    yield* this.allocate(MEMORY + 6);
    const child = yield* this.exofork(WARD);
    if (child === null) throw new Error('no environment');
    const shared = yield* this.#entry(MEMORY + 6);
    yield* this.map(MEMORY + 6, shared, RW, child.leaf);
    yield* this.start(child, FIRST + 1);
    while ((yield* this.env(child.env, Env.state)) !== EnvState.sleeping) yield* sys.yieldTo(-1);
    const total = yield* this.info(Info.pages);
    const asked = yield* this.#call('revoke', WARD, OWN, mine, 0, total, 1, 1_000_000);
    const given = function* (this: Everything): Op<number> {
      return (yield* this.#account(WARD, Account.wanted))[0] as number;
    }.bind(this);
    while ((yield* given()) !== 0) yield* sys.yieldTo(-1);
    const [wanted, inTime] = [yield* this.#shared(1), yield* this.#shared(2)];
    report('revoke', asked, wanted, inTime, ...(yield* this.#account(WARD, limit)));
    const withdrawn = yield* this.#call('revoke', WARD, OWN, mine, 0, total, 0, 50_000);
    report('revoke', withdrawn, (yield* this.#account(mine, limit))[0] === left + 1 ? 1 : 0);
    // All that it still has: a page, and its position.
    yield* sys.envDestroy(child.env, COMMON, 0);
    yield* sys.pageFree(yield* this.#shared(3), COMMON);
    let position = 0;
    while ((yield* this.info(Info.sliceVector + position)) !== child.env) position++;
    yield* sys.sliceFree(position, COMMON);
    yield* sys.pageUnmap(this.leaf, MEMORY + 6, 1, OWN);
    yield* this.reap(child);
    const page = yield* this.take();
    report('pageSweep', yield* this.#call('pageSweep', page));
    report('repossess', yield* this.#call('repossess', WARD, OWN, page));
    const closed = yield* this.#call('accountClose', WARD, OWN);
    const back = (yield* this.#account(mine, limit))[0] as number;
    report('accountClose', closed, back - left, ...(yield* this.#account(WARD, valid)));
  }

  #shared(n: number): Op<number> {
    return this.port.load(at(MEMORY + 6) + n * 4);
  }
  /** Page that is mapped at `index`. */
  *#entry(index: number): Op<number> {
    yield* this.sys.pageMap(this.leaf, TABLES, this.leaf, OWN, 0, MAP_READ, OWN);
    const entry = yield* this.port.load(at(TABLES) + index * 8);
    yield* this.sys.pageUnmap(this.leaf, TABLES, 1, OWN);
    return entry >>> 10;
  }
}

interface Run {
  readonly seen: readonly string[];
  readonly calls: ReadonlySet<string>;
  readonly said: string;
  readonly block: readonly number[];
}

function run(kernel: 'exokernel' | 'unikernel'): Run {
  const seen: string[] = [];
  const calls = new Set<string>();
  const make = (port: UserPort): Everything =>
    new Everything(port, (name, ...words) => {
      calls.add(name);
      seen.push(`${name}: ${words.join(' ')}`);
    });
  const tenant = { image: 0, quota: 120, minimum: 1, firstBlock: 0, blocks: BLOCKS };
  const medium = new RamMedium(BLOCKS + 4);
  let said = '';
  const machine = new PhysicalMachine({
    pages: 400,
    images: [image('everything', make, 2)],
    medium,
    output: (_, bytes) => (said += new TextDecoder().decode(bytes)),
  });
  machine.type(1, new TextEncoder().encode('typed'));
  const sliceCycles = 20_000;
  machine.boot(
    kernel === 'exokernel'
      ? new Exokernel({ environments: 12, slices: 16, sliceCycles, extents: 16 }, [tenant])
      : new Unikernel({ environments: 12, sliceCycles }, tenant, 1),
  );
  machine.run(40_000_000);
  const bytes = new Uint8Array(PAGE_BYTES);
  const block = Array.from({ length: BLOCKS }, (_, n) => {
    medium.read(n, bytes);
    return new DataView(bytes.buffer).getInt32(0, true);
  });
  return { seen, calls, said, block };
}

describe('a valid use of every call', () => {
  const [exokernel, unikernel] = [run('exokernel'), run('unikernel')];
  const of = ({ seen }: Run, name: string): string[] =>
    seen.filter((line) => line.startsWith(`${name}:`));

  test('none is left out, on either kernel', () => {
    expect([...exokernel.calls].sort()).toEqual([...CALLS].sort());
    expect([...unikernel.calls].sort()).toEqual([...CALLS].sort());
  });
  test.each(CALLS.filter((name) => !UNKNOWN.includes(name)))('%s', (name) => {
    expect(of(unikernel, name)).toEqual(of(exokernel, name));
  });
  test.each(UNKNOWN)('%s: nothing is taken by force without protection', (name) => {
    expect(of(unikernel, name)).toEqual([`${name}: ${statusName(Status.badCall)} 0`]);
  });
  test('what was printed and written to the disk', () => {
    expect(unikernel.said).toBe(exokernel.said);
    expect(unikernel.block).toEqual(exokernel.block);
    expect(exokernel.block).toContain(1234);
  });
  test('no other number is a call', () => {
    expect(callName(CALLS.length)).toBe(`${CALLS.length}`);
  });
});
