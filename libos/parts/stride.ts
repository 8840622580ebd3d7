/**
 * A stride scheduler in the library: who holds slices gives them to its clients in proportion to
 * their tickets, by directed yield. The kernel knows nothing of it. Waldspurger and Weihl, "Stride
 * Scheduling", MIT/LCS/TM-528, 1995; Aegis (SOSP 1995), section 7.3, which does this in 100 lines.
 *
 * Each client has a pass, which grows by STRIDE / tickets with each turn; whose is least has the
 * turn. Who cannot run is passed over and then level with the others: a share is not saved up.
 *
 *     client (3 words):  environment id, 0 if free | tickets | pass, modulo 2^32
 */
import { Status } from '../../kernel/abi.ts';
import type { Op, Syscalls, UserPort } from '../syscalls.ts';

const STRIDE = 1 << 20; // pass of a turn with one ticket
type Place = { readonly at: number; readonly key: number };
const Client = { env: 0, tickets: 4, pass: 8, bytes: 12 } as const;

/** Memory that a scheduler of `clients` clients needs, zero-filled: bytes. */
export const strideBytes = (clients: number): number => 4 + clients * Client.bytes;

export class Stride {
  readonly #port: UserPort;
  readonly #sys: Syscalls;
  readonly #now: number; // address: pass of the last turn
  readonly #first: number; // address
  readonly #clients: number;

  /** @param at our own memory, strideBytes(clients) bytes */
  constructor(sys: Syscalls, at: number, clients: number) {
    this.#port = sys.port;
    this.#sys = sys;
    this.#now = at;
    this.#first = at + 4;
    this.#clients = clients;
  }

  /** `env` has a share from now on, of 1 to STRIDE tickets. False: there is no room. */
  *add(env: number, tickets: number): Op<boolean> {
    const free = yield* this.#find(0);
    if (free < 0) return false;
    yield* this.#port.store(free + Client.env, env);
    yield* this.#port.store(free + Client.tickets, tickets);
    yield* this.#port.store(free + Client.pass, yield* this.#port.load(this.#now));
    return true;
  }

  *remove(env: number): Op<void> {
    const at = yield* this.#find(env);
    if (at >= 0) yield* this.#port.store(at + Client.env, 0);
  }

  /** Gives the rest of the slice to the client whose turn it is. False: none can run. */
  *serve(): Op<boolean> {
    let key = -Infinity;
    for (;;) {
      const next = yield* this.#behind(key);
      if (next === null) return false;
      key = next.key;
      const env = yield* this.#port.load(next.at + Client.env);
      const { status } = yield* this.#sys.yieldTo(env);
      if (status === Status.badEnvironment) yield* this.remove(env);
      if (status !== Status.ok) continue;
      yield* this.#took(next.at);
      return true;
    }
  }

  /** The client that is furthest behind of those after `key`: by pass, then by place. */
  *#behind(key: number): Op<Place | null> {
    const now = yield* this.#port.load(this.#now);
    let best: Place | null = null;
    for (let n = 0; n < this.#clients; n++) {
      const at = this.#first + n * Client.bytes;
      if ((yield* this.#port.load(at + Client.env)) === 0) continue;
      const lead = ((yield* this.#port.load(at + Client.pass)) - now) | 0;
      const own = lead * this.#clients + n;
      if (own > key && (best === null || own < best.key)) best = { at, key: own };
    }
    return best;
  }

  /** The client at `at` has had its turn; who was passed over for it is level with it. */
  *#took(at: number): Op<void> {
    const port = this.#port;
    const now = yield* port.load(at + Client.pass);
    for (let n = 0; n < this.#clients; n++) {
      const other = this.#first + n * Client.bytes + Client.pass;
      if ((((yield* port.load(other)) - now) | 0) < 0) yield* port.store(other, now);
    }
    yield* port.store(this.#now, now);
    const stride = Math.round(STRIDE / (yield* port.load(at + Client.tickets)));
    yield* port.store(at + Client.pass, now + stride);
  }

  *#find(env: number): Op<number> {
    for (let n = 0; n < this.#clients; n++) {
      const at = this.#first + n * Client.bytes;
      if ((yield* this.#port.load(at + Client.env)) === env) return at;
    }
    return -1;
  }
}
