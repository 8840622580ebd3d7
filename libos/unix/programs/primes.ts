/**
 * primes: `primes N` counts the primes up to N by trial division. It computes and does nothing
 * else: no memory, no calls but for the line that it prints. Every division is charged.
 */
import { type Program } from '../process.ts';
import { Io } from './io.ts';
import { parseNumber } from './options.ts';

/** A round of the inner loop: remainder 20, square 3, two compares and an increment. */
const ROUND = 26;
/** What each number costs beside its rounds. */
const CANDIDATE = 5;

export const primes: Program = {
  name: 'primes',
  *main(process) {
    const io = new Io(process);
    const [, text = '', ...rest] = process.args;
    if (rest.length > 0) return yield* io.die('usage: primes N');
    const limit = yield* parseNumber(io, text, 0);
    let found = 0;
    for (let n = 2; n <= limit; n++) {
      let rounds = 1;
      let divisor = 2;
      while (divisor * divisor <= n && n % divisor !== 0) {
        divisor++;
        rounds++;
      }
      if (divisor * divisor > n) found++;
      io.port.work(CANDIDATE + rounds * ROUND) ?? (yield* io.port.fault());
    }
    yield* io.out.text(`${found}\n`);
    return yield* io.end();
  },
};
