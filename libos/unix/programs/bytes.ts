/**
 * Bytes and strings. File names and arguments are strings in which each character is one byte
 * (latin1), so any name survives; order by code unit is then order by byte.
 */

export const NEWLINE = 10;
const PART = 8192; // characters made by one call of fromCharCode

export function bytesOf(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n) & 0xff;
  return bytes;
}

export function textOf(bytes: Uint8Array, from = 0, to: number = bytes.length): string {
  let text = '';
  for (let at = from; at < to; at += PART) {
    text += String.fromCharCode(...bytes.subarray(at, Math.min(at + PART, to)));
  }
  return text;
}

/** Where `pattern` first stands in bytes [from, to), or -1. */
export function indexOf(bytes: Uint8Array, pattern: Uint8Array, from: number, to: number): number {
  const first = pattern[0];
  if (first === undefined) return from <= to ? from : -1;
  for (let at = from; ; at++) {
    at = bytes.indexOf(first, at);
    if (at < 0 || at + pattern.length > to) return -1;
    let n = 1;
    while (n < pattern.length && bytes[at + n] === pattern[n]) n++;
    if (n === pattern.length) return at;
  }
}

/** How often `byte` stands in bytes [from, to). */
export function count(bytes: Uint8Array, byte: number, from: number, to: number): number {
  let found = 0;
  for (let at = from; at < to; at++) if (bytes[at] === byte) found++;
  return found;
}

/** A path and a name in it. */
export const join = (path: string, name: string): string =>
  path.endsWith('/') ? path + name : `${path}/${name}`;

/** `c` of `a/b/c/`. */
export const lastName = (path: string): string => path.replace(/\/+$/, '').replace(/^.*\//s, '');
