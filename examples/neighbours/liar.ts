/** A neighbour that lies: it names as its own what is not, in call after call. */
import { Call, CALL_COUNT, Status } from '../../kernel/abi.ts';
import { image, LibOS, type Op } from '../../libos/libos.ts';

const LIES = 2000;
const WAITS: readonly number[] = [Call.yield, Call.sleep, Call.ipcCall, Call.ipcReplyWait];
/** What would be its own affair: its end, its upcalls, what it prints. */
const OWN: readonly number[] = [Call.envDestroy, Call.upcallSet, Call.consoleWrite, Call.batch];

class Liar extends LibOS {
  override *main(): Op<void> {
    let refused = 0;
    let state = 1;
    const next = (bound: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return (state >>> 8) % bound;
    };
    for (let n = 0; n < LIES; n++) {
      const call = next(CALL_COUNT);
      if (WAITS.includes(call) || OWN.includes(call)) continue;
      const args = Array.from({ length: 8 }, () => next(300));
      const { status } = yield* this.port.call(call, ...args);
      if (status !== Status.ok) refused++;
    }
    yield* this.print(
      `I lied a thousand times and more, and was ${refused > 1000 ? '' : 'not '}refused\n`,
    );
  }
}

export default image('liar', (port) => new Liar(port));
