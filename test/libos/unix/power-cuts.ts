/**
 * Power cuts at moments drawn at random, all along one run: what each would leave on the medium is
 * copied, and a fresh machine mounts the copy. Looked at afterwards are the medium itself, by
 * fsck.ts, and whether everything is there that a `sync` before the cut had returned for.
 */
import type { Mode } from '../../../lab/modes.ts';
import { fsck } from './fsck.ts';
import { boot, Image, LIMIT, treeOf } from './real.ts';

export interface Cuts {
  readonly files: number;
  readonly cuts: number;
  readonly mode: Mode;
  readonly seed: number;
}

export interface Outcome {
  readonly cuts: number;
  /** how many cuts fell behind each of the syncs */
  readonly after: readonly number[];
  /** cuts that left a commit in the journal, for the mount to finish */
  readonly replayed: number;
  readonly problems: readonly string[];
}

const SYNCED = '=synced\n';
const STEPS = [
  'cp -r t a',
  // Beside files that are made: names that change, a file that is cut off and written anew.
  'cp -r t b; mv a c; ln c/d0/f0 e; rm -r b; cp c/d0/f1 b',
  'mkdir g; mv c g/h; seq 1 3000 > b; rm e; seq 1 100 | tee -a b | wc -l; cp -r g/h i',
];

export function cutPower({ files, cuts, mode, seed }: Cuts): Outcome {
  const random = generator(seed);
  const sources: Record<string, string> = {};
  for (let n = 0; n < files; n++) {
    const bytes = Math.floor(random() * 3 * 4096 * random());
    sources[`t/d${n % 40}/f${Math.floor(n / 40)}`] = `${n} `.repeat(Math.ceil(bytes / 4));
  }
  const image = new Image(treeOf(sources), 4 * files * 2 + 1200);
  const script = STEPS.map((step) => `${step}; sync; echo =synced`).join('; ');
  const medium = image.medium([script]);
  const { machine, outcome } = boot(image, medium, 1, { mode });

  // How long it takes, from a run of its own: the moments are drawn from that.
  const rehearsal = boot(image, image.medium([script]), 1, { mode });
  if (rehearsal.machine.run(LIMIT) !== 'halted') throw new Error('power cuts: the run ends');
  const moments = Array.from({ length: cuts }, () =>
    Math.floor(random() * rehearsal.machine.now()),
  );
  moments.sort((a, b) => a - b);

  const problems: string[] = [];
  const after = STEPS.map(() => 0).concat(0);
  let replayed = 0;
  for (const moment of moments) {
    machine.run(Math.max(moment, machine.now()));
    const synced = (outcome().stdout[0] ?? '').split(SYNCED).length - 1;
    after[synced] = (after[synced] ?? 0) + 1;
    const left = medium.copy();
    machine.device.survivors(random, left);
    const where = `cut at cycle ${moment}, after ${synced} syncs`;
    const raw = fsck(left);
    for (const problem of raw.problems) problems.push(`${where}: ${problem}`);
    image.rewrite(left, ['true']);
    const again = boot(image, left, 1, { mode });
    if (again.machine.run(LIMIT) !== 'halted') problems.push(`${where}: no recovery`);
    for (const complaint of again.outcome().complaints) problems.push(`${where}: ${complaint}`);
    again.machine.powerOff();
    const { problems: found, tree } = fsck(left);
    for (const problem of found) problems.push(`${where}, recovered: ${problem}`);
    for (const lost of missing(synced, sources, tree)) problems.push(`${where}: ${lost}`);
    if (raw.replayed) replayed++;
    if (problems.length > 10) break;
  }
  return { cuts: moments.length, after, replayed, problems };
}

/** What `synced` syncs owe, and the tree lacks. */
function missing(
  synced: number,
  sources: Readonly<Record<string, string>>,
  tree: ReadonlyMap<string, string>,
): string[] {
  /** Whether all of the source tree stands at one of these places, whole. */
  const whole = (...places: readonly string[]): string[] => {
    const lost = places.map((place) => {
      const gone = Object.entries(sources).find(
        ([path, text]) => tree.get(path.replace('t/', `/in/${place}/`)) !== text,
      );
      return gone === undefined ? null : `${place} lacks ${gone[0]}`;
    });
    return lost.includes(null) ? [] : [lost.join(', ')];
  };
  const due = whole('t');
  if (synced === 1) due.push(...whole('a', 'c'));
  if (synced === 2) due.push(...whole('c', 'g/h'));
  if (synced === 3) due.push(...whole('g/h'), ...whole('i'));
  const has = (path: string): boolean => tree.has(`/in/${path}`);
  if (synced === 2 && !has('b')) due.push('b is lost');
  const seq = (n: number): string => Array.from({ length: n }, (_, k) => `${k + 1}\n`).join('');
  if (synced === 3 && tree.get('/in/b') !== seq(3000) + seq(100)) due.push('b is another');
  if (synced === 3 && (has('a/') || has('c/') || has('e'))) due.push('what was removed is back');
  return due;
}

/** Numbers from 0 to 1 (mulberry32). */
function generator(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let x = Math.imul(state ^ (state >>> 15), 1 | state);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}
