/**
 * Message stubs: typed requests and replies over ipcCall. A protocol lists its operations by number
 * with the words that each sends and gets back; the names are for the compiler, and nothing of them
 * crosses.
 *
 *     request:  operation | three words          reply:  status | three words
 *
 * It promises the asker the fields of a reply whose sender is who was asked, or the kernel's
 * refusal; it promises the server that what it parsed is an operation of the protocol. It makes no
 * promise about the words: they are claims of whoever sent them, and any number at all.
 */
import { Status } from '../../kernel/abi.ts';
import type { Grant, Message, Op, Syscalls } from '../syscalls.ts';

export interface Operation<A extends string, R extends string> {
  readonly number: number;
  readonly request: readonly A[]; // at most three
  readonly reply: readonly R[]; // at most three
}

export const operation = <const A extends string = never, const R extends string = never>(
  number: number,
  request: readonly A[] = [],
  reply: readonly R[] = [],
): Operation<A, R> => ({ number, request, reply });

export type Protocol = Readonly<Record<string, Operation<string, string>>>;
type Fields<N extends string> = { readonly [K in N]: number };

/** `kernel`: the call's own status; the rest is only there if that is ok. */
export type Answer<R extends string> = Fields<R> & {
  readonly kernel: number;
  readonly status: number;
};

/** A request of some operation of the protocol, by name. */
export type Request<P extends Protocol> = {
  [K in keyof P]: P[K] extends Operation<infer A, string>
    ? { readonly name: K; readonly fields: Fields<A> }
    : never;
}[keyof P];

const named = <N extends string>(names: readonly N[], words: readonly number[]): Fields<N> =>
  Object.fromEntries(names.map((name, n) => [name, words[n + 1] ?? 0])) as Fields<N>;

/** Asks `server`, perhaps granting it a page, and waits for the reply. */
export function* ask<A extends string, R extends string>(
  sys: Syscalls,
  server: number,
  what: Operation<A, R>,
  fields: Fields<A>,
  grant: Grant | null = null,
): Op<Answer<R>> {
  const words = [what.number, ...what.request.map((name) => fields[name])];
  const { status: kernel, words: reply } = yield* sys.ipcCall(server, words, grant);
  return { ...named(what.reply, reply), kernel, status: kernel === Status.ok ? reply[0] : -1 };
}

/** What a message asks for; null: nothing that the protocol has. */
export function parse<P extends Protocol>(protocol: P, words: Message['words']): Request<P> | null {
  for (const [name, { number, request }] of Object.entries(protocol)) {
    if (number === words[0]) return { name, fields: named(request, words) } as Request<P>;
  }
  return null;
}
