/**
 * Which policy a store should have when half of its memory is taken away: `npx tsx
 * lab/kv-policies.ts` prints a table. A store serves point reads of a small hot set while scans go
 * over everything; then another environment, which has the right to revoke and nothing else over
 * it, takes half of its frames. All is the same in every row but the policy: how the store's cache
 * replaces blocks, and which frames it parts with.
 */
import { fileURLToPath } from 'node:url';
import { Account, Info, MAP_READ, Start, Status } from '../kernel/abi.ts';
import { environmentIn } from '../libos/kv/client.ts';
import { Kv } from '../libos/kv/kv.ts';
import { KEY_SCRATCH } from '../libos/kv/memory.ts';
import type { Store } from '../libos/kv/store.ts';
import { image, LibOS, type Op } from '../libos/libos.ts';
import { type Policy, POLICIES } from '../libos/parts/replacement.ts';
import { countsOf } from '../libos/parts/transfers.ts';
import { RISCV } from '../machine/costs.ts';
import { RamMedium } from '../machine/disk.ts';
import { build, diskFor } from './modes.ts';
import { aligned, number } from './report.ts';

const PAGE = 4096;
const BLOCKS = 512;
const FRAMES = 160;
const REVOKED = FRAMES / 2;
const KEYS = 1_200;
const VALUE = 1_000; // bytes: all values are about 300 blocks
const HOT = 60; // keys, each in a block of its own
const ROUNDS = 120;
const HOT_A_ROUND = 20;
const SCANNED_A_ROUND = 100;
const ASK = 32; // pages of one revocation
const DEADLINE = 50_000_000; // cycles
const POLL = 20_000; // cycles
/** Row of the broker's environment: the second tenant's. */
export const BROKER_ROW = 2;
const LIMIT = 1e13; // cycles

export interface Phase {
  readonly reads: number; // uses of blocks, on the disk or in the cache
  readonly misses: number;
  readonly refaults: number;
}
export interface Outcome {
  readonly policy: string;
  readonly before: Phase;
  readonly after: Phase;
  /** frames at the end */
  readonly frames: number;
}

const keyOf = (n: number): Uint8Array => new TextEncoder().encode(`key ${String(n).padStart(6)}`);

/** A store that is used by a program in its own environment. */
class Loaded extends Kv {
  readonly #report: (phase: 'before' | 'after', counts: Phase, frames: number) => void;

  readonly #rounds: number;

  constructor(port: Kv['port'], policy: Policy, rounds: number, report: Loaded['report']) {
    super(port, { policy, frames: FRAMES });
    this.#rounds = rounds;
    this.#report = report;
  }
  get report(): (phase: 'before' | 'after', counts: Phase, frames: number) => void {
    return this.#report;
  }

  override *main(...args: number[]): Op<void> {
    const [self = 0, root = 0, middle = 0, leaf = 0, pages = 0, extent = 0, blocks = 0] = args;
    const place = { self, root, middle, leaf, pages, extent, extentSlot: 0, firstBlock: 0, blocks };
    if (!(yield* this.open(place))) return;
    const { store } = this.memory;
    for (let n = 0; n < KEYS; n++) yield* this.#put(store, keyOf(n));
    let [turn, next] = [0, 0];
    for (const phase of ['before', 'after'] as const) {
      const start = yield* store.counts();
      for (let round = 0; round < this.#rounds; round++) {
        for (let n = 0; n < HOT_A_ROUND; n++) {
          const hot = turn++ % HOT;
          yield* store.get(keyOf(hot * (KEYS / HOT)));
          yield* this.memory.comply();
        }
        next = yield* this.#scan(store, next);
        yield* this.memory.comply();
      }
      const end = yield* store.counts();
      const counts = {
        reads: end.hits + end.misses - start.hits - start.misses,
        misses: end.misses - start.misses,
        refaults: end.refaults - start.refaults,
      };
      this.#report(phase, counts, yield* this.memory.frames());
      if (phase === 'before') yield* this.#say();
    }
  }

  /** Tells the broker that it may begin; idle pages are given back first, and are not the point. */
  *#say(): Op<void> {
    const broker = yield* environmentIn(this.sys, BROKER_ROW);
    yield* this.sys.ipcSend(broker, [yield* this.memory.idle()]);
  }

  *#put(store: Store, key: Uint8Array): Op<void> {
    const { port } = this;
    port.write(KEY_SCRATCH, key, 0, key.length) ?? (yield* port.fault());
    // What the value is does not matter: so much of a page that is there.
    yield* store.put(key, KEY_SCRATCH, [{ from: Start.stackPage * PAGE, bytes: VALUE }]);
  }

  /** The next keys from number `from` on, round and round. */
  *#scan(store: Store, from: number): Op<number> {
    let count = 0;
    yield* store.scan(keyOf(from), new Uint8Array(), false, function* () {
      count++;
      return yield* isLess(count, SCANNED_A_ROUND);
    });
    return from + count >= KEYS ? 0 : from + count;
  }
}
function* isLess(count: number, limit: number): Op<boolean> {
  return count < limit;
}

/** Has REVOKE over all tenants. When it is told to, it takes pages from the first, by asking. */
export class Broker extends LibOS {
  readonly #pages: number;

  constructor(port: LibOS['port'], pages = REVOKED) {
    super(port);
    this.#pages = pages;
  }

  override *main(self: number, _root: number, _middle: number, leaf: number): Op<void> {
    const { sys, port } = this;
    const accounts = yield* port.load(Start.infoPage * PAGE + Info.accountPage * 4);
    const view = Start.freePages;
    yield* sys.pageMap(leaf, view, accounts, 0, 0, MAP_READ, 0);
    const idle = (yield* sys.ipcReplyWait(-1, [])).words[0];
    const { events } = countsOf(self);
    const row = view * PAGE + Account.words * 4;
    const pages = yield* port.load(Start.infoPage * PAGE + Info.pages * 4);
    for (let left = this.#pages + idle; left > 0; left -= ASK) {
      const count = Math.min(ASK, left);
      const { status } = yield* sys.revoke(1, 0, 2, { first: 0, pages }, count, DEADLINE);
      if (status !== Status.ok) throw new Error(`refused: ${status}`);
      while ((yield* port.load(row + Account.wanted * 4)) > 0) {
        yield* sys.sleep(yield* port.load(events), POLL);
      }
    }
  }
}

/** The load with one policy: so many rounds before the revocation, and as many after it. */
export function measure(policy: Policy, rounds = ROUNDS): Outcome {
  const phases: Partial<Record<'before' | 'after', Phase>> = {};
  let frames = 0;
  const said: string[] = [];
  const loaded = image(
    'kv under load',
    (port) =>
      new Loaded(port, policy, rounds, (phase, counts, count) => {
        phases[phase] = counts;
        frames = count;
      }),
    1,
  );
  const { machine } = build({
    mode: 'exokernel',
    tenants: [1, 2],
    images: [loaded, image('broker', (port) => new Broker(port))],
    tenant: (tenant) => (tenant === BROKER_ROW ? { name: [] } : {}),
    medium: new RamMedium(diskFor(2, BLOCKS)),
    profile: RISCV,
    parameters: {
      quota: 320,
      blocks: BLOCKS,
      sliceCycles: 100_000,
      backing: 'populate',
      secondStage: '4KiB',
      walkCaches: true,
      seed: 1,
    },
    output: (_, bytes) => said.push(new TextDecoder().decode(bytes)),
  });
  machine.run(LIMIT);
  const { before, after } = phases;
  if (before === undefined || after === undefined || said.length > 0) {
    throw new Error(`the load did not end: ${said.join('')}`);
  }
  return { policy: policy.name, before, after, frames };
}

export function policyTable(outcomes: readonly Outcome[]): string {
  const phase = ['blocks used', 'misses', 'refaults'];
  const over = ['', 'before', '', '', 'after', '', ''];
  const head = ['policy', ...phase, ...phase];
  const rows = outcomes.map(({ policy, before, after }) => [
    policy,
    ...[before.reads, before.misses, before.refaults].map(number),
    ...[after.reads, after.misses, after.refaults].map(number),
  ]);
  return [
    `${KEYS} keys on about ${Math.ceil((KEYS * VALUE) / PAGE)} blocks, ${HOT} of them hot; ` +
      `${FRAMES} frames, then ${FRAMES - REVOKED}`,
    '',
    ...aligned([over, head, ...rows], 1),
  ].join('\n');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(`${policyTable(POLICIES.map((policy) => measure(policy)))}\n`);
}
