/**
 * Live migration by pre-copy: the guest runs on while its memory is sent, then what it wrote
 * meanwhile, and so on; when little is left, or it writes faster than can be sent, it is stopped
 * and the rest goes. Xen's rule: fewer than 50 pages, or five rounds. Clark et al. (NSDI 2005).
 *
 * Who drives it is outside of both machines, as their operator is: it is told by `pass` to let both
 * go on for as long as the link takes. The disk is not moved: both hosts reach the same blocks. The
 * target keeps what has come apart until all of it is there.
 */
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Hypervisor } from './hypervisor.ts';
import { type Guest, type Refusal, refuse } from './life.ts';
import type { SavedPage } from './saving.ts';

export interface Link {
  readonly bytesPerCycle: number;
  /** Both hosts run on for so many cycles. */
  pass(cycles: number): void;
}

export interface Migrated {
  /** row at the target */
  readonly vm: number;
  /** pages sent in each round, the last with the guest stopped */
  readonly rounds: readonly number[];
  readonly bytes: number;
  /** cycles for which it ran nowhere */
  readonly downtime: number;
}

const FEW = 50; // pages
const ROUNDS = 5;
const HEADER = 8; // bytes beside a page's contents: its number, a check
const STATE = 1024; // bytes of the machine itself, generously
const DRAIN = 10_000; // cycles between looks at requests under way
const PATIENCE = 1000; // such looks

/** Moves `vm` of `source` to `target`, as a machine with `guest`'s supervisor. */
export function migrate(
  source: Hypervisor,
  vm: number,
  target: Hypervisor,
  guest: Guest,
  link: Link,
): Migrated | Refusal {
  const mayNot = source.prepareMove(vm);
  if (mayNot !== null) return mayNot;
  const there = new Map<number, SavedPage>(); // what the target has by now
  const rounds: number[] = [];
  let bytes = 0;
  const send = (pages: readonly SavedPage[]): number => {
    for (const page of pages) there.set(page.page, page);
    rounds.push(pages.length);
    const size = pages.length * (PAGE_BYTES + HEADER);
    bytes += size;
    return Math.ceil(size / link.bytesPerCycle);
  };

  let pages = source.pagesOf(vm);
  for (let round = 0; ; round++) {
    link.pass(send(pages));
    pages = source.writtenPages(vm);
    if (pages.length < FEW || round + 1 >= ROUNDS) break;
  }
  source.pause(vm, true);
  let waited = 0;
  for (let n = 0; !source.isQuiet(vm); n++) {
    if (n === PATIENCE) {
      source.pause(vm, false);
      return refuse('its disk requests do not end: it stays where it is');
    }
    link.pass(DRAIN);
    waited += DRAIN;
  }
  const saved = source.save(vm);
  if ('refused' in saved) {
    source.pause(vm, false);
    return saved;
  }
  // What it wrote since the log was last read, its devices and its host for it included.
  const last = [...pages, ...source.writtenPages(vm)];
  const transfer = send(last) + Math.ceil(STATE / link.bytesPerCycle);
  link.pass(transfer);
  const made = target.restore(guest, { ...saved, memory: [...there.values()] });
  if (typeof made !== 'number') {
    source.pause(vm, false);
    return made;
  }
  target.pause(made, false);
  source.destroy(vm);
  return { vm: made, rounds, bytes: bytes + STATE, downtime: waited + transfer };
}
