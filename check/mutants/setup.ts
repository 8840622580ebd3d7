/** Property tests under mutation: the first counterexample is enough, nobody reads a shrunk one. */
import * as fc from 'fast-check';

fc.configureGlobal({ ...fc.readConfigureGlobal(), endOnFailure: true });
