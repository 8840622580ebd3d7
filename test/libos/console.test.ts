/**
 * The console's receiving side, from the machine to a library OS: what is typed at a channel reaches
 * that tenant, in order and whole, wakes it, and nobody else; in every mode.
 */
import { describe, expect, test } from 'vitest';
import { Env, envIndex, Start } from '../../kernel/abi.ts';
import { build, diskFor, type Mode, MODES, sideBySide } from '../../lab/modes.ts';
import { image, LibOS, type Op } from '../../libos/libos.ts';
import { RISCV } from '../../machine/costs.ts';
import { RamMedium } from '../../machine/disk.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';

const TEXT = Start.stackPage * 4096 + 512;

/** Says again what is typed, and sleeps in between. */
class Echo extends LibOS {
  override *main(self: number): Op<void> {
    const events = Start.envPages * 4096 + (envIndex(self) * Env.words + Env.events) * 4;
    for (;;) {
      const seen = yield* this.port.load(events);
      const bytes = yield* this.sys.consoleRead();
      if (bytes.length === 0) {
        yield* this.sys.sleep(seen);
        continue;
      }
      if (this.port.write(TEXT, bytes, 0, bytes.length) === undefined) yield* this.port.fault();
      yield* this.sys.consoleWrite(TEXT, bytes.length);
    }
  }
}
const ECHO = image('echo', (port) => new Echo(port));

const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

function booted(mode: Mode, storm = false): { machine: PhysicalMachine; said: string[] } {
  const said = ['', '', ''];
  const tenants = sideBySide(mode) ? [1, 2] : [1];
  const { machine } = build({
    mode,
    tenants,
    images: [ECHO],
    medium: new RamMedium(diskFor(2, 16)),
    profile: RISCV,
    parameters: {
      quota: 64,
      blocks: 16,
      sliceCycles: 100_000,
      backing: 'populate',
      secondStage: '2MiB',
      walkCaches: true,
      seed: 1,
    },
    output: (channel, bytes) => (said[channel] += new TextDecoder('latin1').decode(bytes)),
    storm,
  });
  return { machine, said };
}

const LINE = 'what a serial line hands over sixteen bytes at a time, it hands over whole\n';

describe.each(MODES)('%s', (mode) => {
  test.each([false, true])('a line, then another; storm %s', (storm) => {
    const { machine, said } = booted(mode, storm);
    expect(machine.run(1e9)).toBe('halted');
    expect(said).toEqual(['', '', '']);
    machine.type(1, bytesOf(LINE));
    expect(machine.run(2e9)).toBe('halted');
    expect(said).toEqual(['', LINE, '']);
    machine.type(1, bytesOf('a'));
    machine.type(1, bytesOf('b'));
    expect(machine.run(3e9)).toBe('halted');
    expect(said).toEqual(['', `${LINE}ab`, '']);
  });

  test.runIf(sideBySide(mode))('each tenant hears its own channel alone', () => {
    const { machine, said } = booted(mode);
    machine.type(2, bytesOf('two'));
    machine.type(1, bytesOf('one'));
    expect(machine.run(1e9)).toBe('halted');
    expect(said).toEqual(['', 'one', 'two']);
    machine.type(3, bytesOf('nobody'));
    expect(machine.run(2e9)).toBe('halted');
    expect(said).toEqual(['', 'one', 'two']);
  });
});

test('a handler that is rolled back has taken nothing', () => {
  let said = '';
  const machine = new PhysicalMachine({
    pages: 2048,
    images: [ECHO],
    medium: new RamMedium(32),
    output: (_, bytes) => (said += new TextDecoder('latin1').decode(bytes)),
    restarts: true,
  });
  machine.boot(
    new Exokernel({ environments: 8, slices: 4, sliceCycles: 100_000, extents: 8 }, [
      { image: 0, quota: 64, firstBlock: 0, blocks: 16 },
    ]),
  );
  machine.run(1e9);
  machine.type(1, bytesOf(LINE));
  expect(machine.run(2e9)).toBe('halted');
  expect(said).toBe(LINE);
});
