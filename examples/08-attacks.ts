/**
 * 08 attacks: which line of the kernel stops which attack?
 *
 * Thirteen hostile library OSes (examples/attacks/) are run live, on a kernel whose every refusal,
 * and every fence of the TLB, stands behind a switch. For each the outermost check is sought
 * without which it succeeds.
 *
 *     change-batch     stopped by pageMap, else: a call that nobody checked mapped the secret
 *     destroy          stopped by envDestroy, else: the victim is dead
 *     disk-block       stopped by diskRequest, else: it read the secret off the disk
 *     dma              stopped by fetchList, else: the disk wrote over the victim's page
 *     exhaust          stopped by pageAllocate, else: it took every free page of the machine
 *     forge-upwards    stopped by capForge, else: it is above everybody, and read the secret
 *     jump-window      stopped by ipcSend, else: its page stands where the victim expects a partner's
 *     map-page         stopped by pageMap, else: it read the secret
 *     plant-page       stopped by pageUnmap, else: the victim's mapping is gone
 *     stale-mapping    stopped by pageUnmap, else: it read the secret by a mapping that is gone
 *     stale-name       stopped by named, else: a name of something gone freed what stands there now
 *     steal-slice      stopped by sliceFree, else: position 0 is the victim's no more
 *     write-own-table  stopped by pageMap, else: it mapped the secret itself, and read it
 *
 * Now change this line: write a fourteenth into examples/attacks/; it is run with the others. Or
 * see one in full: `npx tsx lab/cli.ts attack --only dma`.
 */
import { runAttacks } from '../lab/attacks/attack.ts';
import { attacks } from '../lab/attacks/list.ts';
import { main } from './show.ts';

export async function show(): Promise<string> {
  const results = await runAttacks(
    attacks().map(({ name }) => name),
    null,
  );
  return results
    .map(({ name, check }) => {
      const otherwise = /SUCCEEDED: (.*)/.exec(check?.without ?? '')?.[1] ?? '?';
      return `${name.padEnd(15)}  stopped by ${check?.within}, else: ${otherwise}\n`;
    })
    .join('');
}
main(import.meta, show);
