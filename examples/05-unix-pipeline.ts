/**
 * 05 a Unix: how large is an operating system that nobody has to trust?
 *
 * It is a library: processes, fork, pipes, files and a shell, unprivileged, in its own environments.
 * Two tenants run one each, on the same machine, and share nothing but the exokernel.
 *
 *     $ sort fruit | uniq -c | sort -n | head -n 2
 *           1 fig
 *           2 pear
 *     the other tenant printed the same: true
 *
 * Now change this line: SCRIPT. The programs that there are: libos/unix/programs/index.ts.
 */
import { RISCV } from '../machine/costs.ts';
import { run as runWorkload } from '../lab/experiment.ts';
import type { Node } from '../lab/mkfs.ts';
import { main } from './show.ts';

const SCRIPT = 'sort fruit | uniq -c | sort -n | head -n 2';
const FRUIT = 'pear\napple\nfig\napple\npear\napple\n';

export function show(): string {
  const bytes = new TextEncoder().encode(FRUIT);
  const root: Node = {
    kind: 'directory',
    entries: new Map<string, Node>([['fruit', { kind: 'file', bytes }]]),
  };
  const facts = { files: 1, bytes: bytes.length, largestText: './fruit' };
  const sizes = { directories: 1, blocks: 8, skipped: 0 };
  const { stdout } = runWorkload({
    workload: {
      name: 'pipeline',
      title: SCRIPT,
      kind: 'io',
      boots: () => [SCRIPT],
      hostCommand: () => SCRIPT,
      needsDisk: () => 0,
    },
    mode: 'exokernel',
    tree: { root, facts, ...sizes, largestFile: bytes.length, largestText: bytes.length },
    profile: RISCV.name,
    seed: 1,
  });
  const [first = '', second = ''] = stdout.map((one) => new TextDecoder().decode(one));
  return `$ ${SCRIPT}\n${first}the other tenant printed the same: ${first === second}\n`;
}
main(import.meta, show);
