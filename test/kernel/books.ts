/** The books of check/, as the tests of the kernel ask for them. */
export { accountsOf, pagesOf, stock, usedBy } from '../../check/invariants/books.ts';
export { books } from '../../check/invariants/index.ts';
