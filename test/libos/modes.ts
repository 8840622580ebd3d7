/** Two tenants of any library OS in any mode of lab/modes.ts, and what each printed. */
import { build, diskFor, type Mode, type Parameters, sideBySide } from '../../lab/modes.ts';
import type { Image } from '../../libos/libos.ts';
import { RISCV } from '../../machine/costs.ts';
import { RamMedium } from '../../machine/disk.ts';

export const LIMIT = 2e10; // cycles
const PARAMETERS: Parameters = {
  quota: 1024,
  blocks: 64,
  sliceCycles: 50_000,
  backing: 'populate',
  secondStage: '4KiB',
  walkCaches: true,
  disk: 'emulated',
  seed: 1,
};

export interface ModeRun {
  /** of each tenant; what kernels say of the dead is the first of `complaints` */
  readonly texts: readonly string[];
  readonly complaints: string;
  readonly medium: RamMedium;
  readonly blocks: number;
}

export function modeRun(
  mode: Mode,
  image: Image,
  disk: (blocks: number) => RamMedium = (blocks) => new RamMedium(blocks),
  parameters: Partial<Parameters> = {},
): ModeRun {
  const all = { ...PARAMETERS, ...parameters };
  const texts = ['', '', ''];
  const medium = disk(diskFor(2, all.blocks));
  const groups = sideBySide(mode) ? [[1, 2]] : [[1], [2]];
  for (const tenants of groups) {
    // One at a time, each tenant has its own part of the disk all the same.
    const own = (tenants[0] ?? 1) - 1;
    const part = tenants.length > 1 ? medium : new Part(medium, own * all.blocks);
    const { machine } = build({
      mode,
      tenants,
      images: [image],
      medium: part,
      profile: RISCV,
      parameters: all,
      output: (channel, bytes) => {
        texts[channel] += new TextDecoder().decode(bytes);
      },
    });
    machine.run(LIMIT);
    machine.powerOff();
  }
  const [complaints = '', ...rest] = texts;
  return { texts: rest, complaints, medium, blocks: all.blocks };
}

/** A medium that begins in the middle of another. */
class Part {
  readonly blocks: number;
  readonly #whole: RamMedium;
  readonly #first: number;
  constructor(whole: RamMedium, first: number) {
    this.#whole = whole;
    this.#first = first;
    this.blocks = whole.blocks - first;
  }
  read(block: number, into: Uint8Array): void {
    this.#whole.read(this.#first + block, into);
  }
  write(block: number, from: Uint8Array): void {
    this.#whole.write(this.#first + block, from);
  }
}
