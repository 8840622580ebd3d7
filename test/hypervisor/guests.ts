/** Guests that tests of the hypervisor share: two kernels with a library OS, and one that checks. */
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Op } from '../../machine/user-port.ts';
import { Cause } from '../../kernel/supervisor.ts';
import { Exokernel } from '../../kernel/exokernel/exokernel.ts';
import type { Guest } from '../../kernel/hypervisor/hypervisor.ts';
import { Unikernel } from '../../kernel/unikernel/unikernel.ts';
import { minimal } from '../../libos/minimal/minimal.ts';
import { program, Script } from '../machine/script.ts';

export const PRIMES = 'minimal: 9592 primes below 100000\n';

const tenant = { image: 0, quota: 64, firstBlock: 0, blocks: 4 };

/** The minimal libOS on a kernel of its own: 25 pages of sieve, and the kernel's tables. */
export function good(channel: number, exo = false, more: Partial<Guest> = {}): Guest {
  const supervisor = exo
    ? new Exokernel({ environments: 8, extents: 4, slices: 4, sliceCycles: 20_000 }, [tenant])
    : new Unikernel({ environments: 8, sliceCycles: 20_000 }, tenant, channel);
  const at = { firstBlock: channel * 6, blocks: 6, channel };
  return { supervisor, images: [minimal], pages: 160, ...at, ...more };
}

/**
 * A program that fills `pages` pages from few patterns, computes, changes some and reads all back;
 * it prints how many words were not what it had written.
 */
export function patterns(
  channel: number,
  pages: number,
  kinds: number,
  steps: readonly number[],
): Guest {
  const at = (page: number): number => (8 + page) * PAGE_BYTES;
  const body = program(function* (port) {
    const expected = Array.from({ length: pages }, (_, page) => page % kinds);
    const fill = function* (page: number, kind: number): Op<void> {
      expected[page] = kind;
      for (let word = 0; word < 8; word++)
        yield* port.store(at(page) + word * 512, kind * 1000 + word);
    };
    for (let page = 0; page < pages; page++) yield* fill(page, page % kinds);
    for (const step of steps) {
      port.work(60_000) ?? (yield* port.fault());
      yield* fill(step % pages, step % (kinds + 2));
    }
    let wrong = 0;
    for (let page = 0; page < pages; page++) {
      for (let word = 0; word < 8; word++) {
        const want = (expected[page] ?? 0) * 1000 + word;
        if ((yield* port.load(at(page) + word * 512)) !== want) wrong++;
      }
    }
    yield* port.call(1, wrong);
  });
  const supervisor = new Script({
    boot: (s) => {
      s.space(1);
      for (let page = 0; page < pages; page++) s.map(1, 8 + page);
      s.start(1);
    },
    trap: (s, { cause }) => {
      if (cause !== Cause.environmentCall) return false;
      const wrong = s.machine.contexts.argument(1, 1);
      s.machine.console(0, new TextEncoder().encode(`${wrong} wrong`));
      s.machine.contexts.setResult(1, 0);
      return true;
    },
  });
  return { supervisor, images: [body], pages: pages + 32, firstBlock: 0, blocks: 0, channel };
}
