/**
 * A person's program, written twice: quicksort 20,000 words, then put them into a hash table. Once
 * as user code through the port, once as plain functions on a raw typed array.
 */
import { assert } from '../machine/assert.ts';
import type { Op, UserPort } from '../machine/user-port.ts';
import type { Board } from './board.ts';
import { agree, race, type Contestant } from './race.ts';

const ITEMS = 20_000;
const SLOTS = 32_768; // of the hash table: a key and its count each; open addressing, no key is 0
const TABLE = 32 * 4096; // address
const TABLE_BYTES = SLOTS * 8;

export interface Program {
  readonly rawMs: number;
  readonly portMs: number;
}

export function* program(board: Board): Op<Program> {
  const { port, words } = board;
  const raw: Contestant = {
    batch: ITEMS,
    run: function* (n) {
      return rawProgram(words, n);
    },
  };
  const ported: Contestant = { batch: ITEMS, run: (n) => portProgram(port, n) };

  yield* raw.run(ITEMS);
  const expected = words.slice();
  words.fill(0);
  yield* ported.run(ITEMS);
  assert(
    words.every((word, n) => word === expected[n]),
    'program: both leave the same memory',
  );
  for (let n = 1; n < ITEMS; n++) {
    assert((words[n - 1] ?? 0) <= (words[n] ?? 0), 'program: the words are sorted');
  }
  yield* agree([raw, ported], ITEMS);

  const [rawNs, portNs] = yield* race(board, [raw, ported]);
  const ms = (perItem: number | undefined): number => ((perItem ?? NaN) * ITEMS) / 1e6;
  return { rawMs: ms(rawNs), portMs: ms(portNs) };
}

const next = (x: number): number => (Math.imul(x, 1_103_515_245) + 12_345) | 0;
const slotOf = (key: number): number => Math.imul(key, 0x9e3779b1) >>> 17;

// ---- through the port ---------------------------------------------------------------------------

function* portProgram(port: UserPort, items: number): Op<number> {
  let x = 1;
  for (let at = 0; at < items * 4; at += 4) {
    x = next(x);
    port.store32(at, x | 1) ?? (yield* port.fault());
  }
  yield* portSort(port, 0, (items - 1) * 4);
  port.fill(TABLE, 0, TABLE_BYTES) ?? (yield* port.fault());
  let probes = 0;
  for (let at = 0; at < items * 4; at += 4) {
    probes += yield* portPut(port, port.load32(at) ?? (yield* port.fault()));
  }
  return probes;
}

function* portSort(port: UserPort, first: number, last: number): Op<void> {
  let [low, high] = [first, last];
  while (low < high) {
    const pivot = port.load32(((low + high) >>> 3) << 2) ?? (yield* port.fault());
    let [i, j] = [low, high];
    while (i <= j) {
      let a = port.load32(i) ?? (yield* port.fault());
      while (a < pivot) a = port.load32((i += 4)) ?? (yield* port.fault());
      let b = port.load32(j) ?? (yield* port.fault());
      while (b > pivot) b = port.load32((j -= 4)) ?? (yield* port.fault());
      if (i > j) break;
      port.store32(i, b) ?? (yield* port.fault());
      port.store32(j, a) ?? (yield* port.fault());
      i += 4;
      j -= 4;
    }
    // The smaller part by a call, the larger in this frame: the stack stays short.
    if (j - low < high - i) {
      yield* portSort(port, low, j);
      low = i;
    } else {
      yield* portSort(port, i, high);
      high = j;
    }
  }
}

function* portPut(port: UserPort, key: number): Op<number> {
  let slot = slotOf(key);
  for (let probes = 1; ; probes++) {
    const at = TABLE + slot * 8;
    const found = port.load32(at) ?? (yield* port.fault());
    if (found === 0) port.store32(at, key) ?? (yield* port.fault());
    if (found === 0 || found === key) {
      const count = port.load32(at + 4) ?? (yield* port.fault());
      port.store32(at + 4, count + 1) ?? (yield* port.fault());
      return probes;
    }
    slot = (slot + 1) & (SLOTS - 1);
  }
}

// ---- on a raw typed array -----------------------------------------------------------------------

function rawProgram(words: Int32Array, items: number): number {
  let x = 1;
  for (let at = 0; at < items * 4; at += 4) {
    x = next(x);
    words[at >>> 2] = x | 1;
  }
  rawSort(words, 0, (items - 1) * 4);
  words.fill(0, TABLE >>> 2, (TABLE + TABLE_BYTES) >>> 2);
  let probes = 0;
  for (let at = 0; at < items * 4; at += 4) probes += rawPut(words, words[at >>> 2] as number);
  return probes;
}

function rawSort(words: Int32Array, first: number, last: number): void {
  let [low, high] = [first, last];
  while (low < high) {
    const pivot = words[(low + high) >>> 3] as number;
    let [i, j] = [low, high];
    while (i <= j) {
      let a = words[i >>> 2] as number;
      while (a < pivot) a = words[(i += 4) >>> 2] as number;
      let b = words[j >>> 2] as number;
      while (b > pivot) b = words[(j -= 4) >>> 2] as number;
      if (i > j) break;
      words[i >>> 2] = b;
      words[j >>> 2] = a;
      i += 4;
      j -= 4;
    }
    if (j - low < high - i) {
      rawSort(words, low, j);
      low = i;
    } else {
      rawSort(words, i, high);
      high = j;
    }
  }
}

function rawPut(words: Int32Array, key: number): number {
  let slot = slotOf(key);
  for (let probes = 1; ; probes++) {
    const at = TABLE + slot * 8;
    const found = words[at >>> 2] as number;
    if (found === 0) words[at >>> 2] = key;
    if (found === 0 || found === key) {
      words[(at + 4) >>> 2] = (words[(at + 4) >>> 2] as number) + 1;
      return probes;
    }
    slot = (slot + 1) & (SLOTS - 1);
  }
}
