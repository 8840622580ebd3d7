/**
 * Power cuts. After each the store must be as the model was after some number of operations: no
 * fewer than were synced, no more than were begun. So no acknowledged put is lost, no value is
 * invented, and nothing comes back out of order.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  type Act,
  after,
  contents,
  diskOf,
  doing,
  live,
  type Model,
  type Perishable,
} from './lives.ts';

const SEED = fc.readConfigureGlobal().seed ?? 1;

/** xorshift32: a stream of numbers from 0 to n - 1. */
function dice(seed: number): (n: number) => number {
  let x = seed | 1;
  return (n) => {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    return (x >>> 0) % n;
  };
}

/** Acts on few keys, so that there is much to clean. Each value says which act wrote it. */
function script(count: number, roll: (n: number) => number, from = 0): Act[] {
  return Array.from({ length: count }, (_, n) => {
    const key = `key ${roll(40)}`;
    const value = roll(5) === 0 ? null : `${from + n}:`.padEnd(4 + roll(8) * roll(200), 'x');
    return { key, value, sync: roll(4) === 0 };
  });
}

/** The number of acts after which the model is what was found, between the two; -1: none. */
function prefix(models: readonly Model[], found: Model, least: number, most: number): number {
  for (let n = most; n >= least; n--) if (same(models[n] ?? new Map(), found)) return n;
  return -1;
}
const same = (a: Model, b: Model): boolean =>
  a.size === b.size && [...a].every(([key, value]) => b.get(key) === value);

function modelsOf(acts: readonly Act[], first: Model = new Map()): Model[] {
  const models = [first];
  for (const act of acts) models.push(after(models.at(-1) ?? first, act));
  return models;
}

/**
 * Does the acts once, and looks at what is left if power goes during each block that is written:
 * with all, some or none of its sectors.
 */
function cutEverywhere(acts: readonly Act[], roll: (n: number) => number): void {
  const models = modelsOf(acts);
  const medium = diskOf(24);
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
  const work = doing(acts, (what, upTo) => {
    expect(what).not.toBe('full');
    if (what === 'done') done = upTo;
    else synced = upTo;
  });
  let cleanings = 0;
  const { said, ended } = live(medium, function* (direct) {
    yield* work(direct);
    ({ cleanings } = yield* direct.store.counts());
  });
  expect([said, ended, done]).toEqual(['', true, acts.length]);
  expect(cleanings).toBeGreaterThan(4);
  expect(cuts.length).toBeGreaterThan(60);
  cuts.forEach((cut, n) => {
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
  cutEverywhere(script(330, roll), roll);
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

/** `npm run crashes` does 10,000. */
const PUTS = Number(process.env['EXOSCOPE_PUTS'] ?? 2_000);

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
