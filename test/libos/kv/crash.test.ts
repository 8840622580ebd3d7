/**
 * Power cuts. After each the store must be as the model was after some number of operations: no
 * fewer than were synced, no more than were begun. So no acknowledged put is lost, no value is
 * invented, and nothing comes back out of order.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { StoreCounts } from '../../../libos/kv/store.ts';
import type { Disk } from '../../../machine/disk.ts';
import {
  type Act,
  contents,
  dice,
  diskOf,
  doing,
  type LifeConfig,
  live,
  type Model,
  modelsOf,
  type Perishable,
  prefix,
  script,
} from './lives.ts';

const SEED = fc.readConfigureGlobal().seed ?? 1;
/** `npm run crashes` does 10,000, and looks at every cut. */
const PUTS = Number(process.env['EXOSCOPE_PUTS'] ?? 2_000);
const ALL = PUTS >= 10_000;

interface Cutting {
  readonly blocks?: number;
  /** of the cuts that are not within a checkpoint, one in so many is looked at */
  readonly oneIn?: number;
  readonly disk?: LifeConfig['disk'];
  readonly onAct?: (n: number) => void;
  readonly checkpoints?: number; // that there are at least
}

/**
 * Does the acts once, and looks at what is left if power goes during each block that is written:
 * with all, some or none of its sectors.
 */
function cutEverywhere(acts: readonly Act[], roll: (n: number) => number, how: Cutting = {}): void {
  const { blocks = 24, oneIn = 1, disk, onAct, checkpoints = 1 } = how;
  const models = modelsOf(acts);
  const medium = diskOf(blocks);
  let [done, synced] = [0, 0];
  const cuts: { medium: Perishable; done: number; synced: number }[] = [];
  medium.onWrite = () => {
    const copy = medium.copy();
    const kind = cuts.length % 3;
    copy.deathAt = 1;
    copy.keeps = () => kind === 0 || (kind === 1 && roll(2) === 0);
    cuts.push({ medium: copy, done, synced });
  };
  const written: [number, Uint8Array][] = [];
  const write = medium.write.bind(medium);
  medium.write = (block, from) => {
    written.push([block, from.slice()]);
    write(block, from);
  };
  const during = new Set<number>(); // acts in which a checkpoint was written
  let counts: StoreCounts | null = null;
  const { said, ended } = live(
    medium,
    function* (direct) {
      for (const [n, act] of acts.entries()) {
        onAct?.(n);
        const report = (what: string, upTo: number): void => {
          expect(what).not.toBe('full');
          if (what === 'done') done = n + upTo;
          else synced = n + upTo;
        };
        yield* doing([act], report)(direct);
        const before = counts?.checkpoints ?? 0;
        counts = yield* direct.store.counts();
        if (counts.checkpoints > before) during.add(n);
      }
    },
    disk === undefined ? {} : { disk },
  );
  expect([said, ended, done]).toEqual(['', true, acts.length]);
  const { cleanings } = (counts as StoreCounts | null) ?? { cleanings: 0 };
  expect(cleanings).toBeGreaterThan(2);
  expect(during.size).toBeGreaterThanOrEqual(checkpoints);
  expect(cuts.length).toBeGreaterThan(60);
  cuts.forEach((cut, n) => {
    if (n % oneIn !== 0 && !during.has(cut.done)) return;
    const [block, from] = written[n] ?? [0, new Uint8Array()];
    cut.medium.write(block, from);
    cut.medium.revive();
    const found = contents(cut.medium);
    if (typeof found === 'string') throw new Error(`cut at write ${n + 1}: ${found}`);
    // One act may have been under way.
    const at = prefix(models, found, cut.synced, Math.min(cut.done + 1, acts.length));
    if (at < 0) throw new Error(`cut at write ${n + 1}: not as after ${cut.synced} acts or more`);
    // Looking at it was a life too: its recovery has written an epoch, and changed nothing.
    if (n % 8 === 0) expect(contents(cut.medium)).toEqual(found);
  });
}

test('a cut at every single block write of a run: a prefix that has all that was synced', () => {
  const roll = dice(SEED);
  cutEverywhere(script(330, roll), roll, { checkpoints: 2 });
});

test('a cut at every write of a checkpoint of several segments', () => {
  const roll = dice(SEED ^ 0xc4ec);
  const key = (n: number): string => `${n} `.padEnd(180, 'k');
  const acts = Array.from({ length: 700 }, (_, n) => ({
    key: key(n < 120 ? n : roll(120)),
    value: n > 120 && roll(5) === 0 ? null : `${n}`.padEnd(300 + roll(300), 'v'),
    sync: n % 16 === 0,
  }));
  cutEverywhere(acts, roll, { blocks: 96, oneIn: ALL ? 1 : 100, checkpoints: 2 });
});

test('a cut at every write of a run in which blocks go bad', () => {
  const roll = dice(SEED ^ 0xbad);
  let disk: Disk | null = null;
  const bad = [9, 17, 30, 31];
  const onAct = (n: number): void => {
    if (n % 50 === 20) disk?.failBlock(bad[Math.floor(n / 50)] ?? 0, n === 70 ? 2 : Infinity);
  };
  cutEverywhere(script(330, roll), roll, {
    ...{ blocks: 36, oneIn: ALL ? 1 : 2, onAct },
    disk: (device) => (disk = device),
  });
});

test('a key that was removed stays so, however long its old value stands in a cold segment', () => {
  const roll = dice(SEED);
  const value = 'v'.repeat(380);
  const put = (key: string, sync = false): Act => ({ key, value, sync });
  const acts = [
    // A segment full, and a little of the next, where it is said that the key was removed.
    put('gone'),
    ...Array.from({ length: 17 }, (_, n) => put(`cold ${n}`)),
    put('warm'),
    { key: 'gone', value: null, sync: true },
    put('warm'),
    ...Array.from({ length: 250 }, (_, n) => put(`other ${roll(60)}`, n % 5 === 0)),
  ];
  cutEverywhere(acts, roll);
});

test(`one store, ${PUTS} puts, the power cut again and again`, () => {
  const roll = dice(SEED ^ 0x5eed);
  const medium = diskOf(64);
  let model: Model = new Map();
  let [total, puts, lives, cut] = [0, 0, 0, 0];
  while (puts < PUTS) {
    const acts = script(400, roll, total);
    const models = modelsOf(acts, model);
    let [done, synced] = [0, 0];
    medium.revive();
    medium.deathAt = 1 + roll(160);
    medium.keeps = () => roll(2) === 0;
    const report = (what: string, upTo: number): void => {
      if (medium.dead) return; // answered to nobody
      expect(what).not.toBe('full');
      if (what === 'done') done = upTo;
      else synced = upTo;
    };
    const { said } = live(medium, doing(acts, report), { isOver: () => medium.dead });
    expect(said).toBe('');
    medium.revive();
    const found = contents(medium);
    if (typeof found === 'string') throw new Error(`life ${lives}: ${found}`);
    const at = prefix(models, found, synced, Math.min(done + 1, acts.length));
    if (at < 0) throw new Error(`life ${lives}: not as after ${synced} to ${done + 1} acts`);
    if (at < acts.length) cut++;
    puts += acts.slice(0, at).filter(({ value }) => value !== null).length;
    model = models[at] ?? model;
    total += at;
    lives++;
  }
  expect(cut).toBeGreaterThan(PUTS / 500); // lives that ended early
});
