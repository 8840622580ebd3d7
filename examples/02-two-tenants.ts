/**
 * 02 two library OSes: can one read what the other has?
 *
 * Everybody sees who owns which page: the table is exposed. Seeing is not reaching: to map a page
 * takes a capability that dominates a name on the page's access list.
 *
 *     keeper: wrote 4711 into a page of mine
 *     keeper: 4711 is still there
 *     reader: I see 7 pages of account 1
 *     reader: mapping the keeper's user pages: 0 mapped, refused with notPermitted
 *
 * Now change this line: let the keeper add the reader's name to the page, by
 * `accessAdd(page, 0, 1, packName([2]), READ)`, and the reader map by access entry 1 instead of 0.
 */
import { Info, MAP_READ, MAP_WRITE, PageKind, Start, Status } from '../kernel/abi.ts';
import { image, LibOS, type Op } from '../libos/libos.ts';
import { FreePages } from '../libos/parts/free-pages.ts';
import { main, outputs, run } from './show.ts';

const PAGE = 4096;
const HERE = Start.freePages; // virtual page
const WHILE = 500_000; // cycles

class Keeper extends LibOS {
  override *main(...[, , , leaf = 0]: number[]): Op<void> {
    const page = yield* new FreePages(this.sys).take(0);
    yield* this.sys.pageMap(leaf, HERE, page, 0, 0, MAP_READ | MAP_WRITE, 0);
    yield* this.port.store(HERE * PAGE, 4711);
    yield* this.print('keeper: wrote 4711 into a page of mine\n');
    yield* this.sys.sleep(0, WHILE);
    yield* this.print(`keeper: ${yield* this.port.load(HERE * PAGE)} is still there\n`);
  }
}

class Reader extends LibOS {
  override *main(...[, , , leaf = 0]: number[]): Op<void> {
    yield* this.sys.sleep(0, WHILE / 2);
    const pages = yield* this.port.load(Start.infoPage * PAGE + Info.pages * 4);
    let [seen, mapped] = [0, 0];
    const refusals = new Set<string>();
    for (let page = 0; page < pages; page++) {
      const word = yield* this.port.load(Start.pagePages * PAGE + page * 4);
      if (((word >>> 8) & 0xff) !== 1) continue;
      seen++;
      if ((word & 0xff) !== PageKind.user) continue;
      const { status } = yield* this.sys.pageMap(leaf, HERE, page, 0, 0, MAP_READ, 0);
      if (status === Status.ok) mapped++;
      else refusals.add(status === Status.notPermitted ? 'notPermitted' : String(status));
    }
    yield* this.print(`reader: I see ${seen} pages of account 1\n`);
    const why = [...refusals].join(', ');
    yield* this.print(
      `reader: mapping the keeper's user pages: ${mapped} mapped, refused with ${why}\n`,
    );
  }
}

const keeper = image('keeper', (port) => new Keeper(port));
const reader = image('reader', (port) => new Reader(port));

export const show = (): string => outputs(run([keeper, reader]));
main(import.meta, show);
