/** Lab 6, break the kernel: the skeleton. The sheet is docs/labs/6-break-the-kernel.md. */
import type { Op } from '../../libos/libos.ts';
import { Hostile, hostile } from '../attacks/hostile.ts';

export class Freeze extends Hostile {
  /** YOURS: stop the victim by the call that only those above it may make. */
  override *attack(): Op<string | null> {
    return null;
  }
}

export default hostile('freeze', (port) => new Freeze(port));
