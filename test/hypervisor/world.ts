/** A host whose memory may be short, its swap area, and the checks of invariants.ts as it runs. */
import { RamMedium } from '../../machine/disk.ts';
import { type Guest } from '../../kernel/hypervisor/hypervisor.ts';
import type { HypervisorConfig } from '../../kernel/hypervisor/state.ts';
import { type Host, host } from './host.ts';
import { watch } from './invariants.ts';

export const SWAP_FIRST = 64;
const SWAP_BLOCKS = 4000;

/** A host with `spare` pages beside the hypervisor's own tables. */
export function world(
  guests: readonly Guest[],
  spare: number,
  config: Partial<HypervisorConfig> = {},
  every = 31,
): Host {
  const full: HypervisorConfig = {
    sliceCycles: 50_001,
    backing: 'touch',
    secondStage: '4KiB',
    swap: { firstBlock: SWAP_FIRST, blocks: SWAP_BLOCKS },
    ...config,
  };
  const boot = (pages: number): Host =>
    host(guests, full, { pages, medium: new RamMedium(SWAP_FIRST + SWAP_BLOCKS) });
  const own = boot(2048).hypervisor.state.end;
  const made = boot(own + spare);
  watch(made.machine, made.hypervisor, every);
  return made;
}
