/**
 * Single accesses and bulk operations, each written twice: through the port, and on a raw typed
 * array in the same loop. Sums are compared, so that both sides are known to read the same words.
 */
import { getHeapStatistics } from 'node:v8';
import type { Op, UserPort } from '../machine/user-port.ts';
import type { Board } from './board.ts';
import { agree, race, type Contestant } from './race.ts';
import { StrippedPort } from './stripped-port.ts';

const AREA = 128 * 1024; // bytes: 32 pages, in the table in front of the TLB all the time
const BATCH = 200_000; // accesses
const PAGE = 4096;
const TO = AREA; // where copies go
const HITS = 1_000_000; // in which the heap may not grow
const HEAP_PARTS = 100;

// ---- the loops: one body each, so that V8 learns each for itself --------------------------------

function* rawLoop(words: Int32Array, port: UserPort, n: number): Op<number> {
  let sum = 0;
  for (let k = 0; k < n; k++) {
    const va = (k << 2) & (AREA - 1);
    sum = (sum + (words[va >>> 2] ?? (yield* port.fault()))) | 0;
  }
  return sum;
}

function* portLoop(port: UserPort, n: number): Op<number> {
  let sum = 0;
  for (let k = 0; k < n; k++) {
    const va = (k << 2) & (AREA - 1);
    sum = (sum + (port.load32(va) ?? (yield* port.fault()))) | 0;
  }
  return sum;
}

function* strippedLoop(port: StrippedPort, n: number): Op<number> {
  let sum = 0;
  for (let k = 0; k < n; k++) {
    const va = (k << 2) & (AREA - 1);
    sum = (sum + (port.load32(va) ?? (yield* port.fault()))) | 0;
  }
  return sum;
}

function* sugarLoop(port: UserPort, n: number): Op<number> {
  let sum = 0;
  for (let k = 0; k < n; k++) {
    const va = (k << 2) & (AREA - 1);
    sum = (sum + (yield* port.load(va))) | 0;
  }
  return sum;
}

/** What sugar without a shared iterator would be: the control of the allocation figure. */
function* generatorLoop(port: UserPort, n: number): Op<number> {
  const load = function* (va: number): Op<number> {
    return port.load32(va) ?? (yield* port.fault());
  };
  let sum = 0;
  for (let k = 0; k < n; k++) sum = (sum + (yield* load((k << 2) & (AREA - 1)))) | 0;
  return sum;
}

/** How far a plain helper has come: it leaves early on a trap and goes on later. */
interface Progress {
  k: number;
  sum: number;
}

function rawHelper(words: Int32Array, n: number, progress: Progress): boolean {
  let { k, sum } = progress;
  for (; k < n; k++) {
    const value = words[((k << 2) & (AREA - 1)) >>> 2];
    if (value === undefined) break;
    sum = (sum + value) | 0;
  }
  progress.k = k;
  progress.sum = sum;
  return k === n;
}

function portHelper(port: UserPort, n: number, progress: Progress): boolean {
  let { k, sum } = progress;
  for (; k < n; k++) {
    const value = port.load32((k << 2) & (AREA - 1));
    if (value === undefined) break;
    sum = (sum + value) | 0;
  }
  progress.k = k;
  progress.sum = sum;
  return k === n;
}

function strippedHelper(port: StrippedPort, n: number, progress: Progress): boolean {
  let { k, sum } = progress;
  for (; k < n; k++) {
    const value = port.load32((k << 2) & (AREA - 1));
    if (value === undefined) break;
    sum = (sum + value) | 0;
  }
  progress.k = k;
  progress.sum = sum;
  return k === n;
}

/** Runs a helper to its end; the generator only takes the traps. */
function* helped(
  helper: (n: number, progress: Progress) => boolean,
  fault: () => Op<number>,
  n: number,
): Op<number> {
  const progress: Progress = { k: 0, sum: 0 };
  while (!helper(n, progress)) {
    progress.sum = (progress.sum + (yield* fault())) | 0;
    progress.k++;
  }
  return progress.sum;
}

/** `depth` frames of user code, the loop in the innermost. */
function* nested(depth: number, port: UserPort, n: number): Op<number> {
  return depth === 1 ? yield* portLoop(port, n) : yield* nested(depth - 1, port, n);
}

// ---- races --------------------------------------------------------------------------------------

/** Nanoseconds a load, by the way it is written. */
export interface Loads {
  readonly raw: number;
  readonly generator: number;
  readonly sugar: number;
  readonly sugarBytes: number; // of heap, per hit
  readonly controlBytes: number; // the same for a generator per access
  readonly rawHelper: number;
  readonly helper: number;
  readonly depth1: number;
  readonly depth16: number;
}

export function* loads(board: Board): Op<Loads> {
  const { port, words } = board;
  fillWithNoise(words);
  const fault = (): Op<number> => port.fault();

  const raw = side((n) => rawLoop(words, port, n));
  const generator = side((n) => portLoop(port, n));
  const sugar = side((n) => sugarLoop(port, n));
  const plainRaw = side((n) => helped((end, at) => rawHelper(words, end, at), fault, n));
  const plain = side((n) => helped((end, at) => portHelper(port, end, at), fault, n));
  const deep = side((n) => nested(16, port, n));
  const shallow = side((n) => nested(1, port, n));
  yield* agree([raw, generator, sugar, plainRaw, plain, deep], BATCH);

  const [rawNs, generatorNs, sugarNs] = yield* race(board, [raw, generator, sugar]);
  const [rawPlainNs, plainNs] = yield* race(board, [plainRaw, plain]);
  const [shallowNs, deepNs] = yield* race(board, [shallow, deep]);
  return {
    raw: at(rawNs),
    generator: at(generatorNs),
    sugar: at(sugarNs),
    sugarBytes: yield* heapPerHit(board, (n) => sugarLoop(port, n)),
    controlBytes: yield* heapPerHit(board, (n) => generatorLoop(port, n)),
    rawHelper: at(rawPlainNs),
    helper: at(plainNs),
    depth1: at(shallowNs),
    depth16: at(deepNs),
  };
}

/** The same with and without the check for a forgotten `yield*`. */
export interface Checks {
  readonly generator: number;
  readonly generatorStripped: number;
  readonly helper: number;
  readonly helperStripped: number;
}

export function* checks(board: Board): Op<Checks> {
  const { port, words } = board;
  fillWithNoise(words);
  const stripped = new StrippedPort(port, words);
  const generator = [side((n) => portLoop(port, n)), side((n) => strippedLoop(stripped, n))];
  const helper = [
    side((n) =>
      helped(
        (end, at) => portHelper(port, end, at),
        () => port.fault(),
        n,
      ),
    ),
    side((n) =>
      helped(
        (end, at) => strippedHelper(stripped, end, at),
        () => stripped.fault(),
        n,
      ),
    ),
  ];
  yield* agree([...generator, ...helper], BATCH);
  const [generatorNs, generatorStripped] = yield* race(board, generator);
  const [helperNs, helperStripped] = yield* race(board, helper);
  return {
    generator: at(generatorNs),
    generatorStripped: at(generatorStripped),
    helper: at(helperNs),
    helperStripped: at(helperStripped),
  };
}

const side = (run: (n: number) => Op<number>): Contestant => ({ batch: BATCH, run });

/**
 * Bytes that the heap grows by in each of a million hits, in one slice: no trap allocates. They are
 * taken in parts: a part in which the heap was collected has shrunk it, and is left out.
 */
function* heapPerHit(board: Board, run: (n: number) => Op<number>): Op<number> {
  const { slice } = board;
  board.slice = 2 ** 29;
  yield* run(2 * slice); // past the timer of the old slice
  let grown = 0;
  let counted = 0;
  for (let part = 0; part < HEAP_PARTS; part++) {
    const before = getHeapStatistics().used_heap_size;
    yield* run(HITS / HEAP_PARTS);
    const growth = getHeapStatistics().used_heap_size - before;
    if (growth < 0) continue;
    grown += growth;
    counted += HITS / HEAP_PARTS;
  }
  board.slice = slice;
  return grown / counted;
}

// ---- bulk ---------------------------------------------------------------------------------------

/** Nanoseconds for one operation. */
export interface Bulk {
  readonly rawPage: number;
  readonly page: number;
  readonly pageByWords: number;
  readonly bytes64: number;
}

function* rawCopies(bytes: Uint8Array, size: number, n: number): Op<number> {
  for (let k = 0; k < n; k++) bytes.copyWithin(TO, 0, size);
  return n;
}

function* copies(port: UserPort, size: number, n: number): Op<number> {
  for (let k = 0; k < n; k++) port.copy(TO, 0, size) ?? (yield* port.fault());
  return n;
}

function* wordCopies(port: UserPort, n: number): Op<number> {
  for (let k = 0; k < n; k++) {
    for (let at = 0; at < PAGE; at += 4) {
      const value = port.load32(at) ?? (yield* port.fault());
      port.store32(TO + at, value) ?? (yield* port.fault());
    }
  }
  return n;
}

export function* bulk(board: Board): Op<Bulk> {
  const { port, words, bytes } = board;
  fillWithNoise(words);
  /** Each way must really have copied: the target is wiped before and compared after. */
  const checked = function* (run: (n: number) => Op<number>, size: number): Op<void> {
    bytes.fill(0, TO, TO + PAGE);
    yield* run(1);
    const same = bytes.subarray(0, size).every((byte, n) => bytes[TO + n] === byte);
    if (!same) throw new Error('bench: the copy equals its source');
  };
  const raw = (n: number): Op<number> => rawCopies(bytes, PAGE, n);
  const page = (n: number): Op<number> => copies(port, PAGE, n);
  const byWords = (n: number): Op<number> => wordCopies(port, n);
  const small = (n: number): Op<number> => copies(port, 64, n);
  yield* checked(raw, PAGE);
  yield* checked(page, PAGE);
  yield* checked(byWords, PAGE);
  yield* checked(small, 64);

  const [rawNs, pageNs, wordsNs, smallNs] = yield* race(board, [
    { batch: 10_000, run: raw },
    { batch: 10_000, run: page },
    { batch: 200, run: byWords },
    { batch: 20_000, run: small },
  ]);
  return { rawPage: at(rawNs), page: at(pageNs), pageByWords: at(wordsNs), bytes64: at(smallNs) };
}

/** Small numbers: a sum that overflows is added up in doubles, and hides what a load costs. */
function fillWithNoise(words: Int32Array): void {
  let x = 1;
  for (let n = 0; n < words.length; n++) {
    x = (Math.imul(x, 1_103_515_245) + 12_345) | 0;
    words[n] = x >>> 22;
  }
}

const at = (ns: number | undefined): number => ns ?? NaN;
