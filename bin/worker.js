// The worker of a pool: workers do not inherit the loader, so this registers it again, then offers
// what lab/worker.ts does. A pool names this file, not lab/worker.ts.
import { register as registerRequire } from 'tsx/cjs/api';
import { register } from 'tsx/esm/api';

register({ tsconfig: false });
registerRequire(); // for files of users whose package says nothing of modules
const { default: work } = await import('../lab/worker.ts');

export default work;
