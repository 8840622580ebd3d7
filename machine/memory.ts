/**
 * Physical memory: 4 KiB pages in one fixed buffer, a WebAssembly.Memory so that machine code can
 * share it later. It trusts its callers (hart, walker, DMA) to have translated and checked.
 *
 * Every write that is not a user program's own fast store goes through `put`, `zeroPage`,
 * `copyPage` or `dma`. While watched, each of them leaves a journal record (for undo) and keeps a
 * 64-bit hash of all of memory up to date (for "a refused call changes nothing"). Unwatched, a put
 * is a plain store. A watched machine sends user stores through here too: the hash is exact.
 */
import { assert } from './assert.ts';
import { PAGE_BYTES, PAGE_WORDS } from './units.ts';

declare const WebAssembly: {
  readonly Memory: new (size: { initial: number; maximum: number }) => { buffer: ArrayBuffer };
};

/** Two 32-bit lanes. Equal memories have equal hashes; all zero hashes to 0, 0. */
export interface Hash {
  readonly a: number;
  readonly b: number;
}

interface WholePage {
  readonly ppn: number;
  readonly words: Int32Array; // [PAGE_WORDS], what stood there before
}

/** Not linear in index or value: linear keys lose states silently. Zero words weigh nothing. */
function mix(word: number, value: number, seed: number): number {
  if (value === 0) return 0;
  let h = Math.imul(word + 1, seed) ^ 0x9e3779b9;
  h = Math.imul(h ^ (h >>> 15), 0x85ebca6b) ^ value;
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  h = Math.imul(h ^ (h >>> 16), seed | 1);
  return h ^ (h >>> 15);
}
const SEED_A = 0x27d4eb2f;
const SEED_B = 0x165667b1;

/** What writes replaced, newest last: enough to take them back. */
export class Journal {
  readonly words: number[] = []; // word index, old value, alternating
  readonly wholes: WholePage[] = []; // pages written whole
  readonly order: number[] = []; // 0 a word record, 1 a page record

  clear(): void {
    this.words.length = 0;
    this.wholes.length = 0;
    this.order.length = 0;
  }
}

export class Memory {
  readonly pages: number;
  readonly i32: Int32Array; // [pages × PAGE_WORDS]
  readonly u8: Uint8Array; // [pages × PAGE_BYTES], the same bytes, little-endian
  #watched = false;
  #journal: Journal | null = null;
  #hashing = false;
  #a = 0;
  #b = 0;

  /** @param pages count, 1 to 2^20 (4 GiB) */
  constructor(pages: number) {
    assert(Number.isInteger(pages) && pages >= 1 && pages <= 2 ** 20, 'memory: 1 page to 4 GiB');
    const granules = Math.ceil((pages * PAGE_BYTES) / 65_536);
    const { buffer } = new WebAssembly.Memory({ initial: granules, maximum: granules });
    this.pages = pages;
    this.i32 = new Int32Array(buffer, 0, pages * PAGE_WORDS);
    this.u8 = new Uint8Array(buffer, 0, pages * PAGE_BYTES);
  }

  /** True while journal or hash wants to hear of every write. */
  get watched(): boolean {
    return this.#watched;
  }

  /** The word at byte address `pa`, signed. */
  get(pa: number): number {
    const value = this.i32[pa >>> 2];
    assert(value !== undefined, 'memory: a read is inside physical memory');
    return value;
  }

  /** Writes the word at byte address `pa`. */
  put(pa: number, value: number): void {
    const word = pa >>> 2;
    assert(word < this.i32.length, 'memory: a write is inside physical memory');
    if (this.#watched) this.#note(word, value | 0);
    this.i32[word] = value;
  }

  /** Writes one byte; the journal and the hash see its whole word. */
  putByte(pa: number, value: number): void {
    const shift = (pa & 3) * 8;
    const word = this.get(pa);
    this.put(pa, (word & ~(0xff << shift)) | ((value & 0xff) << shift));
  }

  zeroPage(ppn: number): void {
    if (this.#watched) this.#noteWhole(ppn, null);
    // The host has no memory behind pages that were never written, zeros included.
    const { i32 } = this;
    const end = (ppn + 1) * PAGE_WORDS;
    let word = ppn * PAGE_WORDS;
    while (word < end && i32[word] === 0) word++;
    if (word < end) i32.fill(0, word, end);
  }

  copyPage(to: number, from: number): void {
    const source = this.page(from);
    if (this.#watched) this.#noteWhole(to, source);
    this.i32.copyWithin(to * PAGE_WORDS, from * PAGE_WORDS, (from + 1) * PAGE_WORDS);
  }

  /** A device writes a whole page. `bytes` is PAGE_BYTES long. */
  dma(ppn: number, bytes: Uint8Array): void {
    if (this.#watched) {
      const copy = bytes.slice();
      this.#noteWhole(ppn, new Int32Array(copy.buffer));
    }
    this.u8.set(bytes, ppn * PAGE_BYTES);
  }

  /** The words of one page, not a copy: never hand it to user code. */
  page(ppn: number): Int32Array {
    assert(ppn >= 0 && ppn < this.pages, 'memory: the page exists');
    return this.i32.subarray(ppn * PAGE_WORDS, (ppn + 1) * PAGE_WORDS);
  }

  /** The bytes of one page, not a copy: for devices. */
  bytes(ppn: number): Uint8Array {
    assert(ppn >= 0 && ppn < this.pages, 'memory: the page exists');
    return this.u8.subarray(ppn * PAGE_BYTES, (ppn + 1) * PAGE_BYTES);
  }

  /** From now on keeps the hash. Costs one pass over memory. */
  startHash(): void {
    const { a, b } = this.computeHash();
    this.#a = a;
    this.#b = b;
    this.#hashing = true;
    this.#watched = true;
  }

  hash(): Hash {
    assert(this.#hashing, 'memory: the hash was asked for');
    return { a: this.#a, b: this.#b };
  }

  /** The same hash from scratch, by a second route: what tests hold `hash` against. */
  computeHash(): Hash {
    let a = 0;
    let b = 0;
    const { i32 } = this;
    for (let word = 0; word < i32.length; word++) {
      const value = i32[word] ?? 0;
      if (value === 0) continue;
      a ^= mix(word, value, SEED_A);
      b ^= mix(word, value, SEED_B);
    }
    return { a, b };
  }

  /** Starts a journal: what is written from here on can be taken back by `rollback`. */
  begin(): void {
    assert(this.#journal === null, 'memory: one transaction at a time');
    this.exchange(new Journal());
  }

  commit(): void {
    assert(this.#journal !== null, 'memory: a commit ends a transaction');
    this.exchange(null);
  }

  /** Undoes every write since `begin`, newest first. */
  rollback(): void {
    const journal = this.exchange(null);
    assert(journal !== null, 'memory: a rollback ends a transaction');
    this.undo(journal);
  }

  /**
   * From now on writes are noted in `journal`, or nowhere; returns where they were until now. For
   * machines within the machine: each notes what its own supervisor does.
   */
  exchange(journal: Journal | null): Journal | null {
    const was = this.#journal;
    this.#journal = journal;
    this.#watched = this.#hashing || journal !== null;
    return was;
  }

  /** Undoes what `journal` noted, newest first, and empties it. Nothing may be noting now. */
  undo(journal: Journal): void {
    assert(this.#journal === null, 'memory: undoing is not noted');
    const { words, wholes, order } = journal;
    for (let n = order.length - 1; n >= 0; n--) {
      if (order[n] === 0) {
        const old = words.pop() ?? 0;
        const word = words.pop() ?? 0;
        this.#rehash(word, this.i32[word] ?? 0, old);
        this.i32[word] = old;
      } else {
        const whole = wholes.pop();
        assert(whole !== undefined, 'memory: each page record has its page');
        const start = whole.ppn * PAGE_WORDS;
        for (let w = 0; w < PAGE_WORDS; w++) {
          this.#rehash(start + w, this.i32[start + w] ?? 0, whole.words[w] ?? 0);
        }
        this.i32.set(whole.words, start);
      }
    }
    journal.clear();
  }

  #rehash(word: number, old: number, now: number): void {
    if (!this.#hashing || old === now) return;
    this.#a ^= mix(word, old, SEED_A) ^ mix(word, now, SEED_A);
    this.#b ^= mix(word, old, SEED_B) ^ mix(word, now, SEED_B);
  }

  #note(word: number, value: number): void {
    const old = this.i32[word] ?? 0;
    if (old === value) return;
    if (this.#journal !== null) {
      this.#journal.words.push(word, old);
      this.#journal.order.push(0);
    }
    this.#rehash(word, old, value);
  }

  #noteWhole(ppn: number, incoming: Int32Array | null): void {
    const before = this.page(ppn);
    if (this.#journal !== null) {
      this.#journal.wholes.push({ ppn, words: before.slice() });
      this.#journal.order.push(1);
    }
    if (!this.#hashing) return;
    const start = ppn * PAGE_WORDS;
    for (let w = 0; w < PAGE_WORDS; w++) {
      this.#rehash(start + w, before[w] ?? 0, incoming === null ? 0 : (incoming[w] ?? 0));
    }
  }
}
