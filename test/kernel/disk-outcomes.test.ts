/**
 * What is exposed of a disk request while it stands and when it is over: counters of its owner, the
 * arm, the row of the queue with who owes the interrupt, the extent that it holds.
 */
import { afterEach, describe, expect, test } from 'vitest';
import {
  Call,
  DISK_WRITE,
  Env,
  EnvState,
  Extent,
  Info,
  Queued,
  Resource,
  Status,
} from '../../kernel/abi.ts';
import { TABLE_TAG } from '../../kernel/exokernel/requests.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { books } from './books.ts';
import { BLOCKS, Rig, type RigConfig, SCRATCH } from './harness.ts';
import { audit } from './invariants.ts';

let rig: Rig;
const boot = (config: RigConfig = {}): Rig => {
  rig = new Rig(config);
  const { row, stack } = rig.b;
  rig.does(row, function* (port) {
    port.store32(SCRATCH, stack) ?? (yield* port.fault());
  });
  return rig;
};
afterEach(() => {
  expect([...audit(rig.raw), ...books(rig.raw)]).toEqual([]);
});

const COUNTERS = [Env.diskSubmitted, Env.diskDone, Env.diskFailed, Env.events];
const counters = (): number[] => COUNTERS.map((word) => rig.raw.env(rig.b.row, word));
const request = (block: number): number =>
  rig.must(rig.b.row, 'diskRequest', rig.b.extent, 0, block, 1, SCRATCH, 0, DISK_WRITE);
const over = (): void => {
  for (let n = 0; rig.raw.info(Info.diskQueued) > 0; n++) {
    if (n > 1_000) throw new Error('the request does not end');
    rig.run(20_000);
  }
};

describe('a request', () => {
  test('stands in the queue, moves the arm, holds its extent; then none of it', () => {
    const { b } = boot();
    const first = rig.raw.extent(b.extent, Extent.first);
    over(); // the extent table's own
    let served = -1;
    rig.onExit = (seen) => {
      if (seen?.number === Call.diskRequest) served = rig.raw.info(Info.slicePosition);
    };
    expect(request(5)).toBe(1);
    const tag = rig.raw.queued(0, Queued.env) === b.id ? 0 : 1;
    const words = [Queued.env, Queued.block, Queued.count, Queued.extent, Queued.pages];
    expect(words.map((word) => rig.raw.queued(tag, word))).toEqual([
      b.id,
      first + 5,
      1,
      b.extent,
      b.stack,
    ]);
    // Who was served when it was made owes the interrupt.
    expect(rig.raw.queued(tag, Queued.position)).toBe(served + 1);
    expect(rig.raw.info(Info.diskArm)).toBe(first + 5);
    expect(rig.raw.extent(b.extent, Extent.transfers)).toBe(1);
    const splits = (): number =>
      rig.call(b.row, 'extentSplit', b.extent, 0, 4, 4, ...nameOf(b.extent)).status;
    expect(splits()).toBe(Status.busy);
    over();
    expect(rig.raw.extent(b.extent, Extent.transfers)).toBe(0);
    expect(rig.raw.queued(tag, Queued.env)).toBe(0);
    expect(splits()).toBe(Status.ok);
    expect(rig.raw.extent(b.extent, Extent.count)).toBe(12);
  });

  test('that the disk performs is done, and told as an event', () => {
    boot();
    const [submitted = 0, done = 0, failed = 0, events = 0] = counters();
    request(3);
    over();
    expect(counters()).toEqual([submitted + 1, done + 1, failed, events + 1]);
  });

  test('that the disk cannot perform is done too, and counted as failed', () => {
    const { b } = boot();
    rig.machine.device.failBlock(rig.raw.extent(b.extent, Extent.first) + 3);
    const [submitted = 0, done = 0, failed = 0, events = 0] = counters();
    request(3);
    over();
    expect(counters()).toEqual([submitted + 1, done + 1, failed + 1, events + 1]);
  });

  test('wakes its owner that sleeps', () => {
    const { b } = boot();
    request(3);
    const seen = rig.raw.env(b.row, Env.events);
    expect(rig.calls(b.row, 'sleep', seen, -1, 0, 0)).toBe(false);
    over();
    expect(rig.raw.stateOf(b.row)).toBe(EnvState.ready);
    rig.settle(b.row);
    expect(rig.answer(b.row).value).toBe(seen + 1);
  });
});

describe('the table of extents', () => {
  const made = (): number => rig.raw.info(Info.extentGeneration);
  const durable = (): number => rig.raw.info(Info.extentDurable);

  test('is durable on a fresh disk when boot is over', () => {
    boot();
    over();
    expect([made(), durable()]).toEqual([1, 1]);
  });

  test('is written at the expense of whoever changed it, after a split and after a join', () => {
    const { b } = boot();
    over();
    let served = -1;
    rig.onExit = (seen) => {
      if (seen?.number === Call.extentSplit || seen?.number === Call.extentJoin) {
        served = rig.raw.info(Info.slicePosition);
      }
    };
    const writes = (generation: number): void => {
      expect(made()).toBe(generation);
      expect(rig.raw.queued(TABLE_TAG, Queued.position)).toBe(served + 1);
      over();
      expect(durable()).toBe(generation);
    };
    rig.must(b.row, 'extentSplit', b.extent, 0, 4, 4, ...nameOf(b.extent));
    writes(2);
    rig.must(b.row, 'extentJoin', b.extent, 0, 4);
    writes(3);
  });

  test('says after a reboot whose account each extent is charged to', () => {
    const medium = new RamMedium(BLOCKS);
    boot({ machine: { medium } });
    over();
    rig.machine.powerOff();
    rig = new Rig({ machine: { medium } });
    const accounts = [0, 1].map((row) => rig.raw.extent(row, Extent.account));
    expect(accounts).toEqual([1, 2]);
    rig.must(rig.b.row, 'extentSplit', 1, 0, 4, 4, ...nameOf(1));
    expect(rig.raw.used(2, Resource.extents)).toBe(2);
    rig.must(rig.b.row, 'extentJoin', 1, 0, 4);
    expect(rig.raw.used(2, Resource.extents)).toBe(1);
  });
});

const nameOf = (extent: number): [number, number] => [
  rig.raw.extent(extent, Extent.nameA),
  rig.raw.extent(extent, Extent.nameB),
];

describe('a table of extents on the disk that says of so many rows', () => {
  test.each([0, -1, 121, 2 ** 31 - 1])('%i is damaged, and nobody reads past its block', (rows) => {
    const medium = new RamMedium(BLOCKS);
    boot({ machine: { medium } });
    over();
    rig.machine.powerOff();
    // The first generation stands in the second place.
    const bytes = new Uint8Array(PAGE_BYTES);
    medium.read(BLOCKS - 1, bytes);
    new DataView(bytes.buffer).setInt32(8, rows, true);
    medium.write(BLOCKS - 2, bytes);
    medium.write(BLOCKS - 1, bytes);
    rig = new Rig({ machine: { medium } });
    // With both copies damaged nothing is made up.
    expect(rig.raw.info(Info.extentGeneration)).toBe(0);
    expect(rig.raw.extent(0, Extent.valid)).toBe(0);
  });
});
