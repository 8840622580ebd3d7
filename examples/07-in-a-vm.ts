/**
 * 07 the same file in a VM: what does a library OS notice of what it runs on?
 *
 * Nothing. The pager of example 03 prints the same four times; no line of it asks where it is. What
 * differs is counted outside of it.
 *
 *     bare             sum 396; 36 faults, 24 blocks read, 28 written
 *     exokernel        sum 396; 36 faults, 24 blocks read, 28 written
 *     vm               sum 396; 36 faults, 24 blocks read, 28 written
 *     exokernel-in-vm  sum 396; 36 faults, 24 blocks read, 28 written
 *
 *     crosses into a kernel for each mapping:  exokernel, exokernel-in-vm
 *     leaves its virtual machine for the disk: vm, exokernel-in-vm
 *
 * Now change this line: run it yourself, `npx tsx lab/cli.ts run examples/pager.ts --mode all`, and
 * look at the table; or another file of this folder.
 */
import type { ModeResult } from '../lab/author/run.ts';
import { MODES } from '../lab/modes.ts';
import { fifo, pager } from './pager.ts';
import { main, outputs, run } from './show.ts';

export function show(): string {
  const results = MODES.map((mode) => run([pager(fifo)], { mode }));
  const those = (which: (result: ModeResult) => boolean): string =>
    results.flatMap((result) => (which(result) ? [result.mode] : [])).join(', ');
  return [
    ...results.map((result) => `${result.mode.padEnd(15)}  ${outputs(result).trimEnd()}`),
    '',
    `crosses into a kernel for each mapping:  ${those(({ counts }) => counts.kernelCalls > 0)}`,
    `leaves its virtual machine for the disk: ${those(({ counts }) => counts.vmExits > 0)}`,
    '',
  ].join('\n');
}
main(import.meta, show);
