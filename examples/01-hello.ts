/**
 * 01 hello: what is the least that a library OS is?
 *
 * A class with a `main`. The kernel has made it an environment: an address space of a few pages, a
 * share of the CPU, a capability for its own name. All else it asks for, by name.
 *
 *     hello from environment row 1, which may take 256 pages
 *
 * Now change this line: let `main` throw, and run the file by `exoscope run` to see whose line it
 * was. Or run it as two tenants: `npx tsx lab/cli.ts run examples/01-hello.ts --tenants 2`.
 */
import { envIndex } from '../kernel/abi.ts';
import { image, LibOS, type Op } from '../libos/libos.ts';
import { main, outputs, run } from './show.ts';

class Hello extends LibOS {
  override *main(...[self = 0, , , , quota = 0]: number[]): Op<void> {
    yield* this.print(
      `hello from environment row ${envIndex(self)}, which may take ${quota} pages\n`,
    );
  }
}

const hello = image('hello', (port) => new Hello(port));
export default hello;

export const show = (): string => outputs(run([hello]));
main(import.meta, show);
