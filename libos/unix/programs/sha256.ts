/**
 * SHA-256 (FIPS 180-4), incremental, over host bytes. What it costs the simulated processor is
 * charged by its caller.
 */

const BLOCK = 64;

/** First 32 bits of the fractional parts of roots of the first primes: sections 4.2.2, 5.3.3. */
const primes = [...Array(312).keys()].slice(2).filter((n) => {
  for (let d = 2; d * d <= n; d++) if (n % d === 0) return false;
  return true;
});
const fraction = (x: number): number => Math.floor((x - Math.floor(x)) * 2 ** 32) | 0;
const K = Int32Array.from(primes.slice(0, 64), (p) => fraction(Math.cbrt(p)));
const INITIAL = Int32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p)));

export class Sha256 {
  readonly #hash = INITIAL.slice();
  readonly #schedule = new Int32Array(64);
  readonly #held = new Uint8Array(BLOCK); // the beginning of a block
  #heldBytes = 0;
  #bytes = 0;

  update(bytes: Uint8Array): this {
    this.#bytes += bytes.length;
    let at = 0;
    if (this.#heldBytes > 0) {
      at = Math.min(BLOCK - this.#heldBytes, bytes.length);
      this.#held.set(bytes.subarray(0, at), this.#heldBytes);
      this.#heldBytes += at;
      if (this.#heldBytes < BLOCK) return this;
      this.#compress(this.#held, 0);
    }
    for (; at + BLOCK <= bytes.length; at += BLOCK) this.#compress(bytes, at);
    this.#held.set(bytes.subarray(at));
    this.#heldBytes = bytes.length - at;
    return this;
  }

  /** Ends the message; its digest in hexadecimal. */
  hex(): string {
    const length = this.#bytes;
    const padding = new Uint8Array(BLOCK + (BLOCK - ((length + 8) % BLOCK)));
    padding[0] = 0x80;
    const end = padding.length - ((length + padding.length) % BLOCK);
    const view = new DataView(padding.buffer);
    view.setUint32(end - 8, Math.floor(length / 2 ** 29));
    view.setUint32(end - 4, (length << 3) >>> 0);
    this.update(padding.subarray(0, end));
    return Array.from(this.#hash, (word) => (word >>> 0).toString(16).padStart(8, '0')).join('');
  }

  /** One block: section 6.2.2. */
  #compress(bytes: Uint8Array, start: number): void {
    const w = this.#schedule;
    const hash = this.#hash;
    for (let t = 0, at = start; t < 16; t++, at += 4) {
      w[t] =
        ((bytes[at] as number) << 24) |
        ((bytes[at + 1] as number) << 16) |
        ((bytes[at + 2] as number) << 8) |
        (bytes[at + 3] as number);
    }
    for (let t = 16; t < 64; t++) {
      const x = w[t - 2] as number;
      const y = w[t - 15] as number;
      const s1 = ((x >>> 17) | (x << 15)) ^ ((x >>> 19) | (x << 13)) ^ (x >>> 10);
      const s0 = ((y >>> 7) | (y << 25)) ^ ((y >>> 18) | (y << 14)) ^ (y >>> 3);
      w[t] = (s1 + (w[t - 7] as number) + s0 + (w[t - 16] as number)) | 0;
    }
    let a = hash[0] as number;
    let b = hash[1] as number;
    let c = hash[2] as number;
    let d = hash[3] as number;
    let e = hash[4] as number;
    let f = hash[5] as number;
    let g = hash[6] as number;
    let h = hash[7] as number;
    for (let t = 0; t < 64; t++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + (K[t] as number) + (w[t] as number)) | 0;
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g;
      g = f;
      f = e;
      e = (d + t1) | 0;
      d = c;
      c = b;
      b = a;
      a = (t1 + t2) | 0;
    }
    hash[0] = ((hash[0] as number) + a) | 0;
    hash[1] = ((hash[1] as number) + b) | 0;
    hash[2] = ((hash[2] as number) + c) | 0;
    hash[3] = ((hash[3] as number) + d) | 0;
    hash[4] = ((hash[4] as number) + e) | 0;
    hash[5] = ((hash[5] as number) + f) | 0;
    hash[6] = ((hash[6] as number) + g) | 0;
    hash[7] = ((hash[7] as number) + h) | 0;
  }
}
