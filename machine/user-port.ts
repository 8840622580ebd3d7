/**
 * What user code may name of the hart: types only. A libOS is handed the one UserPort of its
 * simulation; it cannot make one, and what it can call there are unprivileged instructions.
 */
export type { CallResult, Entry, Image, Op, UserPort } from './port.ts';
