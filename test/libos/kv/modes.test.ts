/**
 * One program on one store, in every mode: the store is an environment of the program's own tenant,
 * because tenants in different virtual machines cannot call each other. What the program prints is
 * the same, byte for byte.
 */
import { describe, expect, test } from 'vitest';
import { MAP_READ, MAP_WRITE, Start } from '../../../kernel/abi.ts';
import { build, diskFor, ALL_MODES, type Mode, sideBySide } from '../../../lab/modes.ts';
import { KvClient } from '../../../libos/kv/client.ts';
import { kv } from '../../../libos/kv/kv.ts';
import { startStore } from '../../../libos/kv/lodge.ts';
import { image, LibOS, type Op } from '../../../libos/libos.ts';
import { FreePages } from '../../../libos/parts/free-pages.ts';
import { RISCV } from '../../../machine/costs.ts';
import { RamMedium } from '../../../machine/disk.ts';
import { bytes, text } from './rig.ts';

const PAGE = 4096;
const BLOCKS = 64;
const TENANTS = 2;

/** A program that makes its store in its own tenant. */
class Household extends LibOS {
  override *main(
    self: number,
    _root: number,
    _middle: number,
    leaf: number,
    _quota: number,
    extent: number,
    blocks: number,
  ): Op<void> {
    const { sys, port } = this;
    const free = new FreePages(sys);
    const server = yield* startStore(sys, {
      image: 1,
      self,
      slot: 0,
      pages: 200,
      extent,
      firstBlock: 16,
      blocks: blocks - 16,
      window: { leaf, index: Start.freePages + 8 },
      take: () => free.take(0),
      put: function* () {},
    });
    const pages: number[] = [];
    for (let n = 0; n < 2; n++) {
      const page = yield* free.take(0);
      yield* sys.pageMap(leaf, Start.freePages + n, page, 0, 0, MAP_READ | MAP_WRITE, 0);
      pages.push(page);
    }
    const store = new KvClient(sys, server, { address: Start.freePages * PAGE, pages, slot: 0 });
    const print = function* (line: string): Op<void> {
      const out = bytes(`${line}\n`);
      const at = Start.stackPage * PAGE + 512;
      port.write(at, out, 0, out.length) ?? (yield* port.fault());
      yield* sys.consoleWrite(at, out.length);
    };
    yield* print(`connected: ${yield* store.connect()}`);
    for (const round of [1, 2]) {
      const boots = text((yield* store.get(bytes('rounds'))).value);
      yield* print(`round ${round}, rounds before: "${boots}"`);
      for (let n = 0; n < 120; n++) {
        const status = yield* store.put(
          bytes(`key ${n % 37}`),
          bytes(`${round}.${n} `.repeat(2 * n)),
        );
        if (status !== 0) yield* print(`put ${n}: ${status}`);
      }
      yield* print(`removed: ${yield* store.remove(bytes('key 7'))}`);
      yield* print(`put: ${yield* store.put(bytes('rounds'), bytes(boots + round), true)}`);
      const { pairs, more, status } = yield* store.scan(bytes('key 3'), bytes('key 5'));
      const list = pairs.map(({ key, value }) => `${text(key)}:${value.length}`);
      yield* print(`${status} ${more} ${list.join(' ')}`);
    }
    yield* store.close();
  }
}
const household = image('household', (port) => new Household(port));

function run(mode: Mode, storm = false, count = TENANTS): string[] {
  const numbers = Array.from({ length: count }, (_, n) => n + 1);
  const groups = sideBySide(mode) ? [numbers] : numbers.map((n) => [n]);
  const said = new Map<number, string>();
  for (const tenants of groups) {
    const { machine } = build({
      mode,
      tenants,
      images: [household],
      others: [kv()],
      medium: new RamMedium(diskFor(tenants.length, BLOCKS)),
      profile: RISCV,
      storm,
      parameters: {
        quota: 320,
        blocks: BLOCKS,
        sliceCycles: 50_000,
        backing: 'populate',
        secondStage: '4KiB',
        walkCaches: true,
        seed: 1,
      },
      output: (channel, out) => said.set(channel, (said.get(channel) ?? '') + text(out)),
    });
    expect(machine.run(1e11)).toBe('halted');
  }
  expect(said.get(0) ?? '').toBe('');
  return numbers.map((n) => said.get(n) ?? '');
}

describe('the store in every mode', () => {
  const expected = run('bare');

  test('bare prints what the program is to print', () => {
    expect(expected[0]).toContain('connected: true\nround 1, rounds before: ""\n');
    expect(expected[0]).toContain('round 2, rounds before: "1"\n');
    expect(expected[0]).not.toContain('put 1');
    expect(expected[1]).toBe(expected[0]);
  });

  test.each(ALL_MODES.filter((mode) => mode !== 'bare' && mode !== 'vm-nested'))(
    '%s prints the same',
    (mode) => {
      expect(run(mode)).toEqual(expected);
    },
  );

  test('a spurious interrupt before each access changes nothing', () => {
    expect(run('exokernel', true, 1)).toEqual(expected.slice(0, 1));
  });
});
