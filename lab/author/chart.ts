/**
 * Who owns what, over time, as text: pages, blocks of the disk and slice positions, each tenant a
 * letter. A page of a strip stands for as many pages as it takes to fit the line; whose most of
 * them are is drawn. Read from the kernel's tables, uncharged.
 */
import { Extent, Info } from '../../kernel/abi.ts';
import type { Built } from '../modes.ts';
import { number } from '../report.ts';
import type { Eyes } from './eyes.ts';
import type { Observer } from './run.ts';

const WIDTH = 64; // characters of a strip
const KERNEL = '#';
const FREE = '.';
const QUARANTINED = '?';

export interface Moment {
  readonly at: number; // cycle
  readonly pages: string;
  readonly blocks: string;
  readonly slices: string;
  /** pages by tenant, from 1 */
  readonly held: readonly number[];
}

export const LEGEND =
  `a, b, c: tenants 1, 2, 3, in capitals their tables; ${KERNEL} the kernel's, ${FREE} free, ` +
  `${QUARANTINED} given up but still reached`;

/** Looks every so many cycles, and keeps what it saw. */
export class Chart implements Observer {
  readonly every: number;
  readonly moments: Moment[] = [];
  readonly #tenants: number;

  constructor(every: number, tenants: number) {
    this.every = every;
    this.#tenants = tenants;
  }

  look(built: Built, eyes: Eyes, now: number): void {
    if (!eyes.protects || eyes.info(Info.sliceVector) === 0) return; // not up yet
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
    this.moments.push({
      at: now,
      pages: strip(used(pages)),
      blocks: strip(this.#blocks(built, eyes)),
      slices: slices.join(''),
      held,
    });
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
  for (const { at, pages, blocks, slices, held } of moments) {
    const picture = [pages, blocks, slices].join('\n');
    if (picture === before) continue;
    before = picture;
    const counts = held.map((count, n) => `${letterOf(n + 1)} ${count}`).join(', ');
    lines.push(
      `cycle ${number(at)}: pages held: ${counts}`,
      `  pages   ${pages}`,
      `  blocks  ${blocks}`,
      `  slices  ${slices}`,
      '',
    );
  }
  return lines.join('\n');
}
