/**
 * The programs that experiments run: for each, a shell script for the simulated Unix and a command
 * for the host's own tools that must print the same bytes. So every measurement is a test as well.
 *
 * The input tree is the working directory of both. A workload may power the machine off between its
 * scripts; then the second boot finds on the disk what the first left there.
 */

export interface TreeFacts {
  readonly files: number;
  readonly bytes: number;
  /** path of the largest text file, relative, like `./a/b`; null if there is none */
  readonly largestText: string | null;
}

export interface Workload {
  readonly name: string;
  readonly title: string;
  /** scripts for `sh -c`, one for each boot */
  readonly boots: (tree: TreeFacts) => readonly string[];
  /** for the host's sh with LC_ALL=C; prints what all boots print together */
  readonly hostCommand: (tree: TreeFacts) => string;
  /** bytes that are written to the disk beyond the tree */
  readonly needsDisk: (tree: TreeFacts) => number;
  readonly kind: 'io' | 'process' | 'compute';
}

const EVERY_FILE = 'find . -type f -print0 | sort -z | xargs -0 -r';
const READ = `${EVERY_FILE} cat | wc -lc`;
const GREP = `${EVERY_FILE} grep -aFHn function`;
const SUMS = `${EVERY_FILE} sha256sum`;
const ECHOES = 'seq 1 200 | xargs -n 1 echo';

const PRIMES_BELOW = 24_000; // about 10 million cycles of trial division

const PER_FILE = 3 * 4096; // bytes: its last block, its inode, its directory's share
const PER_DISK = 1 << 20;

/** A word that every shell takes as it stands. */
export const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** One boot of a script that both sides understand, which writes nothing. */
function same(
  name: string,
  title: string,
  kind: Workload['kind'],
  script: (tree: TreeFacts) => string,
): Workload {
  return {
    name,
    title,
    kind,
    boots: (tree) => [script(tree)],
    hostCommand: script,
    needsDisk: () => 0,
  };
}

export const WORKLOADS: readonly Workload[] = [
  same('read', 'read every file: cat | wc', 'io', () => READ),
  same('grep', 'search every file for a word', 'io', () => GREP),
  same('sort', 'sort the largest text, count equal lines', 'io', ({ largestText }) =>
    largestText === null ? 'true' : `sort ${quoted(largestText)} | uniq -c`,
  ),
  {
    name: 'copy',
    title: 'copy the tree, power off, boot, verify the copy',
    kind: 'io',
    boots: () => ['cp -r . /copy; sync', `cd /copy; ${SUMS}`],
    hostCommand: () => SUMS,
    needsDisk: ({ files, bytes }) => bytes + files * PER_FILE + PER_DISK,
  },
  same('fork', '200 times fork, exec and exit', 'process', () => ECHOES),
  same('sha256', 'SHA-256 of every file', 'io', () => SUMS),
  {
    name: 'compute',
    title: 'count primes: no memory, no calls',
    kind: 'compute',
    boots: () => [`primes ${PRIMES_BELOW}`],
    hostCommand: () => `seq 2 ${PRIMES_BELOW} | factor | awk 'NF==2' | wc -l`,
    needsDisk: () => 0,
  },
];
