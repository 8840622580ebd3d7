/**
 * The batch of hypercalls: a page that a paravirtual guest writes, and that the hypervisor carries
 * out whenever the guest crosses to it: entries of tables, fences, an address space, the timer. So
 * all that a handler changes shares one crossing, the way back to the program as a rule.
 *
 * The guest's words are claims: each is fetched once, checked, and done in order. An element that
 * is refused stops the guest; those before it stay done.
 */
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Machine } from '../supervisor.ts';
import type { PageTypes } from './page-types.ts';
import { BARE } from './paging.ts';

/** Words of the page. */
export const Batch = {
  count: 0,
  marks: 8, // MARKS words, the guest's own: which entries may be among the elements
  elements: 16,
} as const;
export const MARKS = 8;
export const ELEMENT = 4; // words: Call, and three arguments
export const BATCH_MAX = (PAGE_BYTES / 4 - Batch.elements) / ELEMENT;

export const Call = {
  update: 1, // guest-physical address of an entry, value
  fence: 2, // ASID or ALL, virtual page or ALL
  space: 3, // root page or BARE, ASID
  timer: 4, // low word, high word
} as const;
export const ALL = -1;

/** Does what stands in the batch of `page`. False: an element makes no sense. */
export function runBatch(machine: Machine, types: PageTypes, page: number): boolean {
  const at = page * PAGE_BYTES;
  const count = machine.load(at + Batch.count * 4);
  if (count === 0) return true;
  if (count < 0 || count > BATCH_MAX) return types.refuse('no hypercall that there is');
  for (let n = 0; n < count; n++) {
    const word = (k: number): number => machine.load(at + (Batch.elements + n * ELEMENT + k) * 4);
    if (!runCall(machine, types, word(0), word(1), word(2))) return false;
  }
  machine.store(at + Batch.count * 4, 0);
  return true;
}

function runCall(
  machine: Machine,
  types: PageTypes,
  call: number,
  first: number,
  second: number,
): boolean {
  switch (call) {
    case Call.update:
      if (first % 8 !== 0) return types.refuse('no kind of entry that there is');
      return types.write(first >>> 0, second >>> 0);
    case Call.fence:
      types.fence(first === ALL ? null : first & 0xffff, second === ALL ? null : second >>> 0);
      return true;
    case Call.space:
      return types.use(first === BARE ? BARE : first >>> 0, second & 0xffff);
    case Call.timer:
      machine.moveRegisters(1);
      return true;
    default:
      return types.refuse('no hypercall that there is');
  }
}
