/**
 * Jobs in workers, as many at a time as there are cores, with a watchdog on the host's clock: code
 * that loops without a simulated access cannot be preempted by the simulation. The watchdog looks
 * at a heart that the worker beats, and asks V8 for the stack of one whose heart stands still.
 */
import { Session } from 'node:inspector';
import { availableParallelism } from 'node:os';
import { Tinypool } from 'tinypool';

/** Words of a heart: beats so far, and the worker's thread. */
export const Heart = { beats: 0, thread: 1, words: 2 } as const;

export const newHeart = (): Int32Array =>
  new Int32Array(new SharedArrayBuffer(Heart.words * Int32Array.BYTES_PER_ELEMENT));

/** Called by a worker that takes a job. */
export function startHeart(heart: Int32Array, thread: number): () => void {
  Atomics.store(heart, Heart.thread, thread);
  return () => {
    Atomics.add(heart, Heart.beats, 1);
  };
}

export interface PoolSpec {
  /** jobs at a time; 0: as many as cores */
  readonly jobs: number;
  /** seconds without a beat after which a job is given up */
  readonly watchdog: number;
}

/** A job whose heart stood still, and where it loops if V8 could be asked. */
export class Hung extends Error {
  override readonly name = 'Hung';
  readonly loop: string;
  constructor(seconds: number, loop: string) {
    super(`no simulated access for ${seconds} s of host time`);
    this.loop = loop;
  }
}

const LOOK = 250; // ms between two looks
const ASK = 5_000; // ms that V8 may take for a stack
const PATIENCE = 500; // ms that the pool may take to end

/** Runs every message, results in their order. Rejects with the first failure, or `Hung`. */
export async function inWorkers<T>(
  messages: readonly { readonly heart: Int32Array }[],
  { jobs, watchdog }: PoolSpec,
  ended: (result: T, index: number) => T,
  failed: (error: unknown, index: number) => T,
): Promise<T[]> {
  const pool = new Tinypool({
    filename: new URL('../bin/worker.js', import.meta.url).href,
    minThreads: 1,
    maxThreads: Math.min(jobs || availableParallelism(), messages.length),
  });
  const start = async (message: { readonly heart: Int32Array }, index: number): Promise<T> => {
    const watch = watchHeart(message.heart, watchdog);
    try {
      return ended((await Promise.race([pool.run(message), watch.hung])) as T, index);
    } catch (error) {
      return failed(error, index);
    } finally {
      watch.stop();
    }
  };
  try {
    return await Promise.all(messages.map(start));
  } finally {
    await Promise.race([pool.destroy(), new Promise((resolve) => setTimeout(resolve, PATIENCE))]);
  }
}

interface Watch {
  readonly hung: Promise<never>;
  readonly stop: () => void;
}

/** Watches from the first sign of life on: before it, the job waits for its turn. */
function watchHeart(heart: Int32Array, seconds: number): Watch {
  let [beats, since] = [-1, 0];
  let bark: (error: Error) => void = () => undefined;
  const hung = new Promise<never>((_, reject) => (bark = reject));
  hung.catch(() => undefined);
  const timer = setInterval(() => {
    const thread = heart[Heart.thread] ?? 0;
    const now = heart[Heart.beats] ?? 0;
    if (thread === 0) return;
    if (now !== beats) [beats, since] = [now, performance.now()];
    else if (performance.now() - since > seconds * 1000) {
      clearInterval(timer);
      void stackOf(thread).then((loop) => {
        bark(new Hung(seconds, loop));
      });
    }
  }, LOOK);
  return {
    hung,
    stop: () => {
      clearInterval(timer);
    },
  };
}

/** The stack of a worker that is busy, as V8's debugger sees it; '' if it does not say in time. */
function stackOf(thread: number): Promise<string> {
  const session = new Session();
  session.connect();
  const stack = new Promise<string>((resolve) => {
    const ask = (sessionId: string, id: number, method: string, params: object = {}): void => {
      const message = JSON.stringify({ id, method, params });
      session.post('NodeWorker.sendMessageToWorker', { sessionId, message });
    };
    session.on('NodeWorker.attachedToWorker', ({ params: { sessionId, workerInfo } }) => {
      if (workerInfo.workerId !== String(thread)) return;
      ask(sessionId, 1, 'Debugger.enable');
      ask(sessionId, 2, 'Debugger.pause');
    });
    session.on('NodeWorker.receivedMessageFromWorker', ({ params: { sessionId, message } }) => {
      const { id, method, params, result } = JSON.parse(message) as Told;
      if (method === 'Debugger.paused') {
        const callFrameId = params?.callFrames?.[0]?.callFrameId;
        const expression = 'Error.stackTraceLimit = 30, new Error().stack';
        ask(sessionId, 3, 'Debugger.evaluateOnCallFrame', { callFrameId, expression });
      } else if (id === 3) {
        ask(sessionId, 4, 'Debugger.disable'); // a worker that is paused cannot be ended
        resolve(typeof result?.result?.value === 'string' ? result.result.value : '');
      }
    });
    session.post('NodeWorker.enable', { waitForDebuggerOnStart: false });
    setTimeout(() => {
      resolve('');
    }, ASK).unref();
  });
  return stack.finally(() => {
    session.disconnect();
  });
}

/** What V8's debugger tells, as far as it is read here. */
interface Told {
  readonly id?: number;
  readonly method?: string;
  readonly params?: { readonly callFrames?: readonly { readonly callFrameId: string }[] };
  readonly result?: { readonly result?: { readonly value?: unknown } };
}
