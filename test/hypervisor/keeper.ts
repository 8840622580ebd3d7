/**
 * A library OS that has pages and looks after them: what the tests of balloon and watermarks ask
 * for memory. Asked for some it frees the last, or does not; each holds a word of its own.
 */
import {
  Info,
  MAP_READ,
  MAP_WRITE,
  PAGE_GIVEN,
  PageKind,
  Start,
  Status,
} from '../../kernel/abi.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import { image, type Image, LibOS, type Op, type UserPort } from '../../libos/libos.ts';

export const HOLDS = 40; // pages of a keeper
export const END = 60_000_000; // cycles: then it says how it went
export const RW = MAP_READ | MAP_WRITE;
export const at = (virtualPage: number): number => virtualPage * PAGE_BYTES;
export const info = (port: UserPort, word: number): Op<number> =>
  port.load(at(Start.infoPage) + word * 4);

class Keeper extends LibOS {
  readonly #complies: boolean;
  readonly #pages: number[] = [];
  #leaf = 0;
  #given = 0;
  #wrong = 0;
  #asked = 0;

  constructor(port: UserPort, complies: boolean) {
    super(port);
    this.#complies = complies;
  }

  override *main(...[, , , leaf = 0]: number[]): Op<void> {
    this.#leaf = leaf;
    while (this.#pages.length < HOLDS) yield* this.#take(false);
    yield* this.catchRevocation();
    let events = 0;
    while (this.port.cycles() < END) {
      const back = -(yield* info(this.port, Info.balloon));
      // As many as the owner can do without: on the exokernel, when the broker allots them again.
      for (let n = 0; n < Math.min(back, this.#given); n++) {
        if (yield* this.#take(true)) this.#given--;
        else break;
      }
      for (let n = 0; n < this.#pages.length; n++) {
        if ((yield* this.port.load(this.#at(n))) !== 1000 + n) this.#wrong++;
      }
      events = (yield* this.sys.sleep(events, 100_000)).value;
    }
    yield* this.print(`${this.#pages.length} pages, ${this.#wrong} wrong, asked ${this.#asked}`);
    yield* this.#release(); // nobody wants it now
  }

  #at = (n: number): number => at(Start.freePages + n);

  /** One more page: one that is in the balloon, or one that is not. */
  *#take(given: boolean): Op<boolean> {
    const n = this.#pages.length;
    const total = yield* info(this.port, Info.pages);
    let page = 0;
    for (; page < total; page++) {
      const word = yield* this.port.load(at(Start.pagePages) + page * 4);
      if ((word & 0xff) === PageKind.free && ((word & PAGE_GIVEN) !== 0) === given) break;
    }
    if ((yield* this.sys.pageAllocate(page, 0)).status !== Status.ok) return false;
    yield* this.sys.pageMap(this.#leaf, Start.freePages + n, page, 0, 0, RW, 0);
    if ((yield* this.port.load(this.#at(n) + 64)) !== 0) this.#wrong++;
    yield* this.port.store(this.#at(n), 1000 + n);
    yield* this.port.store(this.#at(n) + 64, 7); // whoever has the page next must not see it
    this.#pages.push(page);
    return true;
  }

  override *onRevoke(wanted: number): Op<void> {
    this.#asked++;
    for (let n = 0; this.#complies && n < wanted; n++) {
      if (yield* this.#release()) this.#given++;
      else this.#wrong++;
    }
  }

  *#release(): Op<boolean> {
    const page = this.#pages.pop() ?? -1;
    yield* this.sys.pageUnmap(this.#leaf, Start.freePages + this.#pages.length, 1, 0);
    return (yield* this.sys.pageFree(page, 0)).status === Status.ok;
  }
}
export const keeper = (complies: boolean): Image =>
  image('keeper', (port) => new Keeper(port, complies));
