/**
 * Who owns what, over time, as text: pages, blocks of the disk and slice positions, each tenant a
 * letter; and below a hypervisor the host's pages and blocks, each guest a letter. A page of a
 * strip stands for as many pages as it takes to fit the line; whose most of them are is drawn. Read
 * from the tables of kernel and hypervisor, uncharged.
 */
import { Extent, Info } from '../../kernel/abi.ts';
import type { TraceEvent } from '../../machine/trace.ts';
import type { Built } from '../modes.ts';
import { number } from '../report.ts';
import type { Eyes } from './eyes.ts';
import { type Guest, HostEyes, type HostUse } from './host-eyes.ts';
import type { Observer } from './run.ts';

const WIDTH = 64; // characters of a strip
const KERNEL = '#';
const FREE = '.';
const QUARANTINED = '?';

/** What an exokernel's exposed tables say: every library OS can see it. */
interface Exposed {
  readonly pages: string;
  readonly blocks: string;
  readonly slices: string;
  /** pages by tenant, from 1 */
  readonly held: readonly number[];
}

/** What a hypervisor's tables say, which no guest can see. */
interface Host {
  readonly pages: string;
  readonly blocks: string;
  readonly guests: readonly Guest[];
}

export interface Moment {
  readonly at: number; // cycle
  readonly exposed: Exposed | null;
  readonly host: Host | null;
}

export const LEGEND =
  `a, b, c: tenants 1, 2, 3, in capitals their tables; ${KERNEL} the kernel's, ${FREE} free, ` +
  `${QUARANTINED} given up but still reached`;
export const HOST_LEGEND = [
  `host: A, B, C: guests 1, 2, 3, in small letters the tables of their second stages;`,
  `${KERNEL} the hypervisor's, ${FREE} free, = shared, ~ on the way to or from the swap area.`,
  "This is the operator's view, from the hypervisor's own tables: no guest has it.",
].join('\n');
export const TOUCHED = 'A page is given when it is touched first.';

/** Looks every so many cycles, and keeps what it saw. */
export class Chart implements Observer {
  readonly every: number;
  readonly moments: Moment[] = [];
  readonly #tenants: number;
  #isUp = false; // somebody's program has run, so its kernel has tables

  constructor(every: number, tenants: number) {
    this.every = every;
    this.#tenants = tenants;
  }

  hear({ what }: TraceEvent): void {
    if (what === 'user-trap') this.#isUp = true;
  }

  look(built: Built, eyes: Eyes, now: number): void {
    // The kernel of a guest boots in its own time.
    const isBooted = built.hypervisor === null || this.#isUp;
    const isUp = isBooted && eyes.protects && eyes.info(Info.sliceVector) !== 0;
    const exposed = isUp ? this.#exposed(built, eyes) : null;
    const host = built.hypervisor === null ? null : hostOf(built);
    if (exposed !== null || host !== null) this.moments.push({ at: now, exposed, host });
  }

  #exposed(built: Built, eyes: Eyes): Exposed {
    const held = Array.from({ length: this.#tenants }, () => 0);
    const pages = Array.from({ length: eyes.pages }, (_, page) => {
      const { kind, account } = eyes.page(page);
      if (kind === 'free') return FREE;
      if (kind === 'kernel' || kind === 'published') return KERNEL;
      if (kind === 'quarantined') return QUARANTINED;
      const tenant = eyes.tenantOf(account);
      held[tenant - 1] = (held[tenant - 1] ?? 0) + 1;
      const letter = letterOf(tenant);
      return kind === 'user' ? letter : letter.toUpperCase();
    });
    const slices = Array.from({ length: eyes.info(Info.slices) }, (_, position) =>
      eyes.info(Info.sliceVector + position) === 0
        ? FREE
        : letterOf(eyes.tenantOf(eyes.info(Info.sliceAccount + position))),
    );
    const blocks = strip(this.#blocks(built, eyes));
    return { pages: strip(used(pages)), blocks, slices: slices.join(''), held };
  }

  #blocks(built: Built, eyes: Eyes): string[] {
    const blocks = Array.from({ length: built.machine.disk.blocks }, () => KERNEL);
    for (let row = 0; row < eyes.extents; row++) {
      if (eyes.extent(row, Extent.valid) === 0) continue;
      const [first, count] = [eyes.extent(row, Extent.first), eyes.extent(row, Extent.count)];
      const letter = letterOf(eyes.tenantOf(eyes.extent(row, Extent.account)));
      blocks.fill(letter, first, first + count);
    }
    return blocks;
  }
}

const HOST_LETTERS: Readonly<Partial<Record<HostUse, string>>> = {
  hypervisor: KERNEL,
  free: FREE,
  shared: '=',
  moving: '~',
  limbo: QUARANTINED,
};

function hostOf(built: Built): Host {
  const eyes = new HostEyes(built);
  const guests = eyes.guests();
  const pages = Array.from({ length: eyes.pages }, (_, page) => {
    const { use, guest } = eyes.page(page);
    const letter = letterOf(guest);
    return HOST_LETTERS[use] ?? (use === 'table' ? letter : letter.toUpperCase());
  });
  const blocks = Array.from({ length: built.machine.disk.blocks }, () => FREE);
  guests.forEach(({ firstBlock, blocks: count }, n) => {
    blocks.fill(letterOf(n + 1).toUpperCase(), firstBlock, firstBlock + count);
  });
  return { pages: strip(used(pages)), blocks: strip(blocks), guests };
}

const letterOf = (tenant: number): string =>
  tenant >= 1 && tenant <= 26 ? String.fromCharCode(96 + tenant) : FREE;

/** Without the free end of memory, which says nothing, but for a little of it. */
function used(pages: readonly string[]): string[] {
  const last = pages.findLastIndex((letter) => letter !== FREE);
  return pages.slice(0, Math.min(pages.length, Math.ceil((last + 2) / WIDTH) * WIDTH));
}

/** A line of at most WIDTH characters: of each stretch the letter that is there most often. */
function strip(letters: readonly string[]): string {
  const each = Math.max(1, Math.ceil(letters.length / WIDTH));
  let line = '';
  for (let at = 0; at < letters.length; at += each) {
    const counts = new Map<string, number>();
    for (const letter of letters.slice(at, at + each)) {
      counts.set(letter, (counts.get(letter) ?? 0) + 1);
    }
    line += [...counts].reduce((best, one) => (one[1] > best[1] ? one : best))[0];
  }
  return line;
}

/** The moments, those alike as one. */
export function drawn(moments: readonly Moment[]): string {
  const lines: string[] = [];
  let before = '';
  for (const { at, exposed, host } of moments) {
    const picture = [...(exposed === null ? [] : strips(exposed)), ...hostStrips(host)];
    if (picture.join('\n') === before) continue;
    before = picture.join('\n');
    const held = exposed?.held.map((count, n) => `${letterOf(n + 1)} ${count}`) ?? [];
    const counts = exposed === null ? '' : `: pages held: ${held.join(', ')}`;
    lines.push(`cycle ${number(at)}${counts}`, ...picture, '');
  }
  return lines.join('\n');
}

const strips = ({ pages, blocks, slices }: Exposed): string[] => [
  `  pages   ${pages}`,
  `  blocks  ${blocks}`,
  `  slices  ${slices}`,
];

function hostStrips(host: Host | null): string[] {
  if (host === null) return [];
  return [
    ...host.guests.map((guest, n) => `  ${guestText(guest, letterOf(n + 1).toUpperCase())}`),
    `  host pages   ${host.pages}`,
    `  host blocks  ${host.blocks}`,
  ];
}

/** `guest A: 120 host pages behind its 200, 5 of tables`, and what else there is. */
function guestText(guest: Guest, letter: string): string {
  const also = (['shared', 'swapped', 'ballooned'] as const)
    .filter((what) => guest[what] > 0)
    .map((what) => `, ${guest[what]} ${what}`);
  return (
    `guest ${letter}: ${guest.held} host pages behind its ${guest.pages}, ` +
    `${guest.tables} of tables${also.join('')}`
  );
}
