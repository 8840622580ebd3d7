/**
 * Many virtual machines: 1,000 of `minimal` on a unikernel each, created one after another and run
 * to their first output in one simulation. What one more costs must not depend on how many there
 * are: cycles of the hypervisor, and time of the host, for each tenth.
 *
 * `npx tsx bench/virtual-machines.ts [COUNT]` prints it.
 */
import { fileURLToPath } from 'node:url';
import { assert } from '../machine/assert.ts';
import { RamMedium } from '../machine/disk.ts';
import { PhysicalMachine } from '../machine/physical.ts';
import { Hypervisor } from '../kernel/hypervisor/hypervisor.ts';
import { Cpu } from '../kernel/hypervisor/state.ts';
import { Unikernel } from '../kernel/unikernel/unikernel.ts';
import { minimal } from '../libos/minimal/minimal.ts';
import { processorTime } from './race.ts';

const FILE = fileURLToPath(import.meta.url);
const GUEST_PAGES = 96;
const HELD = 52; // host pages of a guest, its tables included, at most
const FIRST_LINE = 'minimal: 9592 primes below 100000\n';

export interface Created {
  /** virtual machines before it */
  readonly before: number;
  /** cycles of its creation, and until its first output */
  readonly create: number;
  readonly output: number;
  /** microseconds of the host's processor for both */
  readonly host: number;
}

/** Creates `count` virtual machines, each when the one before has printed its line. */
export function virtualMachines(count: number): { created: Created[]; pages: number } {
  let printed = 0;
  const machine = new PhysicalMachine({
    pages: 4096 + count * HELD,
    images: [],
    medium: new RamMedium(1),
    output: (_channel, bytes) => {
      assert(new TextDecoder().decode(bytes) === FIRST_LINE, 'virtual machines: the right output');
      printed++;
    },
  });
  const hypervisor = new Hypervisor(
    { sliceCycles: 100_000, backing: 'touch', secondStage: '4KiB', rows: count },
    [],
  );
  machine.boot(hypervisor);
  const created: Created[] = [];
  for (let before = 0; before < count; before++) {
    const from = processorTime();
    const at = machine.now();
    const tenant = { image: 0, quota: 64, firstBlock: 0, blocks: 0 };
    const vm = hypervisor.create({
      supervisor: new Unikernel({ environments: 4, sliceCycles: 50_000 }, tenant, 1),
      images: [minimal],
      pages: GUEST_PAGES,
      firstBlock: 0,
      blocks: 0,
      channel: 1,
    });
    assert(typeof vm === 'number', 'virtual machines: there is room for one more');
    const create = machine.now() - at;
    machine.run(Number.POSITIVE_INFINITY, () => printed > before);
    const output = machine.now() - at - create;
    created.push({ before, create, output, host: (processorTime() - from) / 1000 });
  }
  assert(printed === count, 'virtual machines: each has printed its line');
  const free = machine.memory.get(hypervisor.state.cpu.address(0, Cpu.free));
  return { created, pages: machine.pages - free };
}

function main(count: number): void {
  const { created, pages } = virtualMachines(count);
  console.log(`${count} virtual machines of minimal, each to its first output\n`);
  console.log('    before   create cycles   output cycles   host us');
  const mean = (part: readonly Created[], of: (one: Created) => number): number =>
    Math.round(part.reduce((n, one) => n + of(one), 0) / part.length);
  const step = Math.max(1, Math.floor(count / 10));
  for (let from = 0; from < count; from += step) {
    const part = created.slice(from, from + step);
    const columns = [
      [String(from), 10],
      [mean(part, ({ create }) => create).toLocaleString('en'), 16],
      [mean(part, ({ output }) => output).toLocaleString('en'), 16],
      [mean(part, ({ host }) => host).toLocaleString('en'), 10],
    ] as const;
    console.log(columns.map(([text, width]) => text.padStart(width)).join(''));
  }
  const mebibytes = Math.round(process.resourceUsage().maxRSS / 1024);
  console.log(`\n${pages.toLocaleString('en')} host pages in use, ${mebibytes} MiB of the host`);
}

if (process.argv[1] === FILE) main(Number(process.argv[2] ?? 1000));
