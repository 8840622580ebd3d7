/** The process around the command line: its arguments, its streams, its exit status. */
import { exoscope, INTERNAL } from './exoscope.ts';

process.exitCode = await exoscope(process.argv.slice(2), {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  redraws: process.stderr.isTTY,
  status: 0,
});
// A worker that loops for ever would keep the process.
if (process.exitCode === INTERNAL) process.exit(INTERNAL);
