// The thread in which attacks run: registers the loader, then hands over.
import { register } from 'tsx/esm/api';

register({ tsconfig: false });
await import('../lab/attacks/worker.ts');
