/**
 * Where things lie in an environment of the garbage-collected library OS, and what a word means.
 * Everything of which it is said "root" here is looked at by the collector, nothing else is.
 *
 * The heap is mapped twice. The program sees it at HEAP, by rights that change: that is the write
 * barrier and the read barrier. The collector sees the same pages at ALIAS, always writable.
 *
 *     word:  ....1  small integer, shifted by two        ...000  a pair's address, 0 is none
 *            ...010 a symbol or another constant         ...100  a procedure: a pair's address + 4
 *            ...110 a primitive of the language          ...011  (collector) where the pair went
 */
import { Start } from '../../kernel/abi.ts';

export const PAGE = 4096;
export const PAIR = 8; // bytes
const FIRST = Start.freePages * PAGE;

/** Words of the library's own, on the first page. */
const variable = (n: number): number => FIRST + n * 4;
export const NEXT = variable(0); // where the next new pair goes
export const OLD = variable(1); // where the next old pair goes
export const SPACE = variable(2); // first byte of the half that is in use
export const FROM = variable(3); // first byte of the half that is being emptied, or 0
export const LOCK = variable(4); // 1: somebody scans
export const WANTED = variable(5); // 1: the program waits for the lock
/** Counts, for who wants to know. */
export const Count = {
  minor: variable(8), // collections of the nursery
  major: variable(9), // and of the old space
  barrier: variable(10), // faults: the first store to an old page since it was last scanned
  trapped: variable(11), // faults: a page that the collector had not reached
  background: variable(12), // pages that its thread scanned
  copied: variable(13), // pairs
  returned: variable(14), // pages given back when they were asked for
} as const;

/** Registers of the language's machine, roots. */
export const register = (n: number): number => variable(32 + n);
export const REGISTERS = 8;
export const STATES = variable(512); // a word a page of the heap
export const PHYSICAL = FIRST + PAGE; // a word a page of the heap: what stands behind it, or 0
export const GLOBALS = FIRST + 2 * PAGE; // a word a symbol, roots
export const GLOBALS_MAX = 1024;
export const STACK = FIRST + 3 * PAGE; // roots, up to the stack pointer
export const STACK_PAGES = 8;
export const STACK_END = STACK + STACK_PAGES * PAGE;
export const OWN_PAGES = 3 + STACK_PAGES; // from FIRST on

/** The heap: the nursery, then the two halves of the old space. */
export const HEAP_PAGES = 512; // at most: one leaf table, and one for the alias
export const HEAP = HEAP_PAGES * PAGE;
export const ALIAS = HEAP; // distance from a pair's address to where the collector sees it
/** Of a page of the old space. */
export const State = {
  clean: 0, // the program may read it; a store faults
  dirty: 1, // stored to since it was last scanned: may point into the nursery
  unscanned: 2, // may point into the half that is being emptied: any access faults
} as const;

// ---- words --------------------------------------------------------------------------------------

export const NIL = 2;
export const TRUE = 10;
export const FALSE = 18;
const CONSTANTS = 3; // symbols are numbered from here on
export const symbol = (id: number): number => ((id + CONSTANTS) << 3) | 2;
export const symbolId = (word: number): number => (word >>> 3) - CONSTANTS;
export const isSymbol = (word: number): boolean => (word & 7) === 2 && word >>> 3 >= CONSTANTS;
export const integer = (n: number): number => (n << 2) | 1;
export const integerOf = (word: number): number => word >> 2;
export const isInteger = (word: number): boolean => (word & 3) === 1;
export const primitive = (n: number): number => (n << 3) | 6;
export const primitiveOf = (word: number): number => word >>> 3;
export const isPrimitive = (word: number): boolean => (word & 7) === 6;
export const isPair = (word: number): boolean => (word & 7) === 0 && word !== 0;
export const isProcedure = (word: number): boolean => (word & 7) === 4;
/** Pairs and procedures lie in the heap. */
export const isPointer = (word: number): boolean => (word & 3) === 0 && word !== 0;
export const addressOf = (word: number): number => word & ~7;
export const PROCEDURE = 4;
const WENT = 3;
export const went = (to: number): number => to | WENT;
export const hasGone = (word: number): boolean => (word & 7) === WENT;
