/**
 * The exokernel once more, as simply as it can be said: docs/ABI.md made executable. A call either
 * is refused, and the world stays as it was, or has its effect; then somebody runs. check/lockstep
 * holds a kernel to it, after every trap.
 */
import * as abi from '../../kernel/abi.ts';
import * as authority from './authority.ts';
import { Call, need, refusal } from './caller.ts';
import * as control from './control.ts';
import * as disk from './disk.ts';
import * as effects from './effects.ts';
import * as memory from './memory.ts';
import { type Env, sure, type World } from './model.ts';
import * as time from './time.ts';

export type Answer = { readonly status: number; readonly value: number };
/** Gives the value, 0 if it says nothing, or a whole answer; `told` if that has been, or comes. */
type Act = (c: Call) => Answer | number | 'told' | undefined;
type Silent = (c: Call) => void;

function consoleWrite(c: Call): number {
  const [address, count] = [c.integer(0, 0, 2 ** 32 - 1), c.count(1, 0, abi.CONSOLE_MAX)];
  const bytes = Array.from({ length: count }, (_, n) => {
    const within = (address + n) % 4;
    const word = c.load(address + n - within);
    need(word !== undefined, 'badAddress', 0);
    return (word >>> (8 * within)) & 255;
  });

  c.w.log.push(['print', c.payer.tenant, ...bytes]);
  return count;
}
function consoleRead(c: Call): 'told' {
  const bytes = c.w.arrived(c.payer.tenant);
  const word = (n: number): number =>
    bytes.slice(n * 4, n * 4 + 4).reduce((sum, byte, k) => sum | (byte << (8 * k)), 0);
  effects.tell(c.w, c.me, abi.Status.ok, bytes.length, word(0), word(1), word(2), word(3));
  return 'told';
}
/** The calls of a batch, one after the other, up to the first that is refused. */
function batch(c: Call): Answer {
  const count = c.count(1, 1, abi.BATCH_MAX);
  let at = c.a(0);
  for (let done = 0; done < count; done++) {
    const stop = (status: number): Answer => ({ status, value: done });
    const number = c.load(at);
    if (number === undefined) return stop(abi.Status.badAddress);
    const arity = abi.ARITY[number] ?? -1;
    if (arity < 0) return stop(abi.Status.badCall);
    const words = Array.from({ length: arity }, (_, n) => c.load(at + 4 + n * 4));
    if (words.includes(undefined)) return stop(abi.Status.badAddress);
    const status = answer(c.w, c.me, number, (n) => words[n] ?? 0)?.status;
    if (status !== abi.Status.ok) return stop(sure(status));
    at += (arity + 1) * 4;
  }
  return { status: abi.Status.ok, value: count };
}

const CALLS: Readonly<Record<abi.CallName, Act | Silent>> = {
  ...authority,
  ...control,
  ...disk,
  ...memory,
  null: () => 0,
  yield: control.yieldTo,
  consoleWrite,
  consoleRead,
  batch,
};
const NAMES = Object.keys(abi.Call) as abi.CallName[];

/** Environment `me` makes a call: its answer, unless that has been told, or comes later. */
function answer(w: World, me: Env, number: number, a: (n: number) => number): Answer | undefined {
  const name = NAMES[number];
  if (name === undefined) return { status: abi.Status.badCall, value: 0 };
  let given: ReturnType<Act | Silent>;
  const refused = refusal(() => (given = CALLS[name](new Call(w, me, a))));
  if (refused) return { status: abi.Status[refused.status], value: refused.argument };
  if (given === 'told') return undefined;
  return typeof given === 'object' ? given : { status: abi.Status.ok, value: given ?? 0 };
}

/** What a trap is to a supervisor: a call, a fault, the timer, or requests that are over. */
export type Happening =
  | { readonly what: 'call'; readonly number: number; readonly a: (n: number) => number }
  | { readonly what: 'fault'; readonly cause: number; readonly address: number }
  | { readonly what: 'exception' }
  | { readonly what: 'end' }
  | { readonly what: 'tick' }
  | { readonly what: 'typed'; readonly channel: number }
  | { readonly what: 'interrupt'; readonly over: readonly Over[]; readonly took: number };
/** A request is over: its row. Seeing to it has taken the kernel `took` cycles. */
export type Over = { readonly row: number; readonly worked: boolean };

/** Something happens, and somebody runs then. What a call was answered, if that was at once. */
export function happen(w: World, happening: Happening): Answer | undefined {
  const me = sure(w.envs[w.cpu.current]);
  let told: Answer | undefined;
  switch (happening.what) {
    case 'call':
      told = answer(w, me, happening.number, happening.a);
      if (told) effects.tell(w, me, told.status, told.value);
      break;
    case 'fault':
      effects.fault(w, me, happening.cause, happening.address);
      break;
    case 'exception':
      w.log.push(['obituary', 0]);
      effects.kill(w, me, -1);
      break;
    case 'end':
      effects.kill(w, me, 0);
      break;
    case 'tick':
      time.tick(w);
      break;
    case 'typed':
      time.typed(w, happening.channel);
      break;
    case 'interrupt':
      for (const { row, worked } of happening.over) {
        w.now += happening.took;
        time.complete(w, row, worked, happening.took);
      }
  }
  time.dispatch(w);
  return told;
}
