/**
 * 03 own paging: who decides which page goes when memory is short?
 *
 * The library OS: `examples/pager.ts` has eight frames and a program that goes three times through
 * twelve pages. An ordinary policy, first in first out, always throws out just what is needed
 * next. One that knows its program does not.
 *
 *     fifo:    sum 396; 36 faults, 24 blocks read, 28 written
 *     newest:  sum 396; 22 faults, 10 blocks read, 14 written
 *
 * Now change this line: `newest` in examples/pager.ts. Can you do better than 22 faults?
 */
import { fifo, newest, pager } from './pager.ts';
import { main, outputs, run } from './show.ts';

export const show = (): string =>
  `fifo:    ${outputs(run([pager(fifo)]))}newest:  ${outputs(run([pager(newest)]))}`;
main(import.meta, show);
