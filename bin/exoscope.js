#!/usr/bin/env node
// The launcher of the `exoscope` command. The sources are TypeScript and are run as they are, so it
// registers the loader and hands over. The command line runs in this same process: its arguments,
// its streams and its exit code are those of lab/cli.ts.
import { register } from 'tsx/esm/api';

register({ tsconfig: false }); // the one where the user stands is not ours
await import('../lab/cli.ts');
