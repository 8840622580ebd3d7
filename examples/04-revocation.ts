/**
 * 04 revocation: how does a library OS lose pages?
 *
 * Visibly. It is asked, it has a deadline, and it chooses which pages it can best do without. What
 * it has not given by then is taken, and it is told which. Nobody waits for it.
 *
 *     polite:   asked for 4 pages
 *     polite:   gave 4 of my choice, 8 are left, page 0 still holds 100
 *     stubborn: asked for 4 pages, and go on
 *     stubborn: lost 4 pages by force, 8 are left
 *     broker:   tenant 1 gave 4 of 4 pages in time
 *     broker:   tenant 2 gave 0 of 4 pages in time
 *     broker:   tenant 2 lost 4 pages by force
 *
 * Now change this line: let `polite` free only 2, and see whose choice the other two are.
 */
import { Start } from '../kernel/abi.ts';
import { image, LibOS, type Op } from '../libos/libos.ts';
import { FreePages } from '../libos/parts/free-pages.ts';
import { MAP_READ, MAP_WRITE } from '../kernel/abi.ts';
import { main, outputs, run } from './show.ts';

const PAGE = 4096;
const HEAP = Start.freePages;
const PAGES = 12;
const UNTIL = 1_500_000; // cycles

/** Has twelve pages, works on them, and counts what is left. */
abstract class Holder extends LibOS {
  protected leaf = 0;
  protected readonly pages: number[] = [];
  protected left = PAGES;

  override *main(...[, , , leaf = 0]: number[]): Op<void> {
    this.leaf = leaf;
    const free = new FreePages(this.sys);
    yield* this.catchFaults();
    yield* this.catchRevocation();
    for (let n = 0; n < PAGES; n++) {
      const page = yield* free.take(0);
      this.pages.push(page);
      yield* this.sys.pageMap(leaf, HEAP + n, page, 0, 0, MAP_READ | MAP_WRITE, 0);
      yield* this.port.store((HEAP + n) * PAGE, 100 + n);
    }
    while (this.port.cycles() < UNTIL) this.port.work(1000) ?? (yield* this.port.fault());
  }
}

class Polite extends Holder {
  override *onRevoke(wanted: number): Op<void> {
    yield* this.print(`polite:   asked for ${wanted} pages\n`);
    for (let given = 0; given < wanted; given++) {
      const page = this.pages.pop() ?? 0; // the last ones are the least needed
      yield* this.sys.pageUnmap(this.leaf, HEAP + this.pages.length, 1, 0);
      yield* this.sys.pageFree(page, 0);
      this.left--;
    }
    const kept = yield* this.port.load(HEAP * PAGE);
    yield* this.print(
      `polite:   gave ${wanted} of my choice, ${this.left} are left, page 0 still holds ${kept}\n`,
    );
  }
}

class Stubborn extends Holder {
  override *onRevoke(wanted: number): Op<void> {
    yield* this.print(`stubborn: asked for ${wanted} pages, and go on\n`);
  }
  override *onRepossessed(losses: number): Op<void> {
    this.left = PAGES - losses;
    if (losses < 4) return;
    yield* this.print(`stubborn: lost ${losses} pages by force, ${this.left} are left\n`);
  }
}

const polite = image('polite', (port) => new Polite(port));
const stubborn = image('stubborn', (port) => new Stubborn(port));

export function show(): string {
  const revocation = { pages: 4, at: 400_000, deadline: 200_000 };
  const result = run([polite, stubborn], { revocation });
  return outputs(result) + result.broker.replace(/^(?=.)/gm, 'broker:   ');
}
main(import.meta, show);
