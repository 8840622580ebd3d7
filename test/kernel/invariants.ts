/** The invariants of check/, as the tests of the kernel ask for them. */
export { audit, noWitness, type Witness } from '../../check/invariants/index.ts';
