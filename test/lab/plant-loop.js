// Loaded before the command line and before each of its workers: an exokernel that hangs.
import { register } from 'tsx/esm/api';

register({ tsconfig: false });
const { Exokernel } = await import('../../kernel/exokernel/exokernel.ts');

Exokernel.prototype.dispatch = () => {
  for (;;);
};
