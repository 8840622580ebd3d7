// Loaded before the command line and, as workers inherit it, before each of its workers: an
// exokernel that breaks a promise at its 2000th trap.
import { register } from 'tsx/esm/api';

register({ tsconfig: false });
const { Exokernel } = await import('../../kernel/exokernel/exokernel.ts');
const { assert } = await import('../../machine/assert.ts');
const { trap } = Exokernel.prototype;
const traps = new WeakMap();

Exokernel.prototype.trap = function (...args) {
  const count = (traps.get(this) ?? 0) + 1;
  traps.set(this, count);
  assert(count < 2000, 'planted: fewer than 2000 traps');
  return trap.apply(this, args);
};
