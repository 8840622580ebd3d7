/** Lets a batch of calls overwrite itself: what was harmless when it began names the victim's page. */
import { Call, MAP_READ } from '../../kernel/abi.ts';
import type { Op } from '../../libos/libos.ts';
import { HERE, Hostile, hostile, PAGE, SECRET } from './hostile.ts';

class ChangeBatch extends Hostile {
  override *attack(): Op<string | null> {
    const batch = yield* this.ownPage(0);
    const other = yield* this.ownPage(1);
    const harmless = yield* this.free.take(0);
    // The first call copies the second page, on which the second call is another, over the first.
    const copy = [Call.pageCopy, batch, 0, 0, other, 0, 0];
    const map = (page: number): number[] => [
      ...[Call.pageMap, this.leaf, HERE + 2, page],
      ...[0, 0, MAP_READ, 0],
    ];
    yield* this.#write(HERE, [...copy, ...map(harmless)]);
    yield* this.#write(HERE + 1, [...copy, ...map(yield* this.victimPage())]);
    const { value } = yield* this.port.call(Call.batch, HERE * PAGE, 2);
    if (value !== 2) return null;
    const got = yield* this.port.load((HERE + 2) * PAGE);
    return got === SECRET ? 'a call that nobody checked mapped the secret' : null;
  }

  *#write(page: number, words: readonly number[]): Op<void> {
    for (const [n, word] of words.entries()) yield* this.port.store(page * PAGE + n * 4, word);
  }
}

export default hostile('change-batch', (port) => new ChangeBatch(port));
