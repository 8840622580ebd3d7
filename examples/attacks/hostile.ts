/**
 * What the attacks of this folder are made of: a library OS that waits until its victim has what is
 * worth attacking, tries one thing, and says what came of it; and the victim, tenant 1, which has a
 * secret on a page and on its disk and looks after it. Each attack is an ordinary library OS:
 * `exoscope run examples/attacks/victim.ts examples/attacks/map-page.ts`.
 */
import { Info, MAP_READ, MAP_WRITE, PageKind, READ, Start, WRITE } from '../../kernel/abi.ts';
import { image, type Image, LibOS, type Op, type UserPort } from '../../libos/libos.ts';
import { FreePages } from '../../libos/parts/free-pages.ts';

export const PAGE = 4096;
export const RW = MAP_READ | MAP_WRITE;
export const RIGHTS = READ | WRITE;
export const VICTIM = 1; // tenant, and account
export const SECRET = 4711;
/** Virtual page at which both put what they map. */
export const HERE = Start.freePages;
/** Cycles: the victim has its secret; has it on a page more; looks whether it is harmed. */
export const READY = 1_000_000;
export const MOVE = 3_000_000;
export const LATER = 6_000_000;

export abstract class Hostile extends LibOS {
  protected leaf = 0;
  protected extent = 0;
  protected readonly free = new FreePages(this.sys);

  override *main(...[, , , leaf = 0, , extent = 0]: number[]): Op<void> {
    this.leaf = leaf;
    this.extent = extent;
    yield* this.until(READY);
    const what = yield* this.attack();
    yield* this.print(what === null ? 'the attack failed\n' : `the attack SUCCEEDED: ${what}\n`);
  }

  /** What it could do that it must not be able to, or null. */
  abstract attack(): Op<string | null>;

  *until(cycle: number): Op<void> {
    for (let seen = 0; this.port.cycles() < cycle;) {
      seen = (yield* this.sys.sleep(seen, cycle - this.port.cycles())).value;
    }
  }

  *info(word: number): Op<number> {
    return yield* this.port.load(Start.infoPage * PAGE + word * 4);
  }

  /** The highest page of that kind of the victim's account, as the exposed table has it. */
  *victimPage(kind: number = PageKind.user): Op<number> {
    let found = -1;
    const pages = yield* this.info(Info.pages);
    for (let page = 0; page < pages; page++) {
      const word = yield* this.port.load(Start.pagePages * PAGE + page * 4);
      if ((word & 0xff) === kind && ((word >>> 8) & 0xff) === VICTIM) found = page;
    }
    return found;
  }

  /** A page of our own, mapped `n` pages above HERE. */
  *ownPage(n: number): Op<number> {
    const page = yield* this.free.take(0);
    yield* this.sys.pageMap(this.leaf, HERE + n, page, 0, 0, RW, 0);
    return page;
  }
}

export const hostile = (name: string, make: (port: UserPort) => Hostile): Image =>
  image(name, make);
