/**
 * Makes an environment that finds the world as a tenant's first does (Start, in the kernel's
 * abi.ts): three tables, a stack page, the exposed tables read-only; and besides some capabilities
 * and some words on its stack page. Whoever makes it names its row, its name and every page.
 *
 * It promises an environment that is ready at its entry, or -1, and then every page that it took is
 * put back. It trusts the kernel's exposed tables for where they are.
 */
import {
  ENV_PAGES,
  EnvState,
  Env,
  Info,
  MAP_READ,
  MAP_WRITE,
  type Name,
  PAGE_PAGES,
  READ,
  Start,
  Status,
  WRITE,
} from '../../kernel/abi.ts';
import type { Op, Syscalls } from '../syscalls.ts';

const PAGE = 4096;
const CHILD_ENTRY = 1; // of the stack page: the child's right to it
const PAGES = 6; // root, middle, leaf, two ledgers, stack
const RW = MAP_READ | MAP_WRITE;
/** Where a child finds its words: on its stack page, behind the upcall frames. */
export const CHILD_WORDS = Start.stackPage * PAGE + 512;
export const CHILD_WORDS_MAX = 128;

export interface ChildSpec {
  readonly image: number;
  readonly entry: number;
  readonly args?: readonly [number, number];
  /** guard of the child, and its capability 0 */
  readonly name: Name;
  /** our capability: dominates the name with all rights, and answers for the pages */
  readonly slot: number;
  /** further capabilities of the child, from slot 1 on: names that `slot` dominates, and rights */
  readonly capabilities?: readonly { readonly name: Name; readonly rights: number }[];
  /** words for its stack page, at most CHILD_WORDS_MAX, given the pages of its three tables */
  readonly words?: (tables: readonly [number, number, number]) => readonly number[];
  readonly patron?: number;
  readonly account?: number;
  /** entry of our first leaf table, empty: through it the stack page is filled */
  readonly window: { readonly leaf: number; readonly index: number };
  readonly take: () => Op<number>;
  readonly put: (page: number) => Op<void>;
}

/** Id of the child, or -1. */
export function* makeChild(sys: Syscalls, spec: ChildSpec): Op<number> {
  const pages: number[] = [];
  for (let n = 0; n < PAGES; n++) {
    const page = yield* spec.take();
    if (page >= 0) pages.push(page);
  }
  const env = pages.length === PAGES ? yield* create(sys, spec, pages[0] ?? 0) : -1;
  if (env < 0) {
    for (const page of pages) yield* spec.put(page);
    return -1;
  }
  yield* furnish(sys, spec, env, pages);
  const { image, entry, args = [0, 0], slot } = spec;
  const { status } = yield* sys.envStart(env, image, entry, args, slot);
  return status === Status.ok ? env : -1;
}

/** Some free row of the environment table, by looking. */
function* create(sys: Syscalls, spec: ChildSpec, root: number): Op<number> {
  const { port } = sys;
  const { slot, name, patron = -1, account = -1 } = spec;
  const rows = yield* port.load(Start.infoPage * PAGE + Info.environments * 4);
  const seen = Math.min(rows, Math.floor((ENV_PAGES * PAGE) / (Env.words * 4)));
  for (let row = 1; row < seen; row++) {
    const state = yield* port.load(Start.envPages * PAGE + (row * Env.words + Env.state) * 4);
    if (state !== EnvState.free) continue;
    const { status, value } = yield* sys.envCreate(row, root, slot, name, patron, account);
    if (status === Status.ok) return value;
    if (status !== Status.notFree) return -1; // else somebody was quicker with this row
  }
  return -1;
}

function* furnish(sys: Syscalls, spec: ChildSpec, env: number, pages: readonly number[]): Op<void> {
  const { port } = sys;
  const { slot, window } = spec;
  const [root = 0, middle = 0, leaf = 0, ledger0 = 0, ledger1 = 0, stack = 0] = pages;
  yield* sys.tableCreate(root, 0, middle, slot, [0, 0], slot);
  yield* sys.tableCreate(middle, 0, leaf, slot, [ledger0, ledger1], slot);
  yield* sys.pageMap(window.leaf, window.index, stack, slot, 0, RW, 0);
  const words = new Uint8Array(Int32Array.from(spec.words?.([root, middle, leaf]) ?? []).buffer);
  const at = window.index * PAGE + (CHILD_WORDS % PAGE);
  port.write(at, words, 0, words.length) ?? (yield* port.fault());
  yield* sys.pageUnmap(window.leaf, window.index, 1, 0);
  for (const [n, { name, rights }] of (spec.capabilities ?? []).entries()) {
    yield* sys.capForge(env, n + 1, slot, name, rights);
  }
  yield* sys.accessAdd(stack, slot, CHILD_ENTRY, spec.name, READ | WRITE);
  yield* sys.pageMap(leaf, Start.stackPage, stack, 0, CHILD_ENTRY, RW, slot);
  const info = (word: number): Op<number> => port.load(Start.infoPage * PAGE + word * 4);
  const show = function* (first: number, count: number, to: number): Op<void> {
    for (let n = 0; n < count; n++) {
      yield* sys.pageMap(leaf, to + n, first + n, 0, 0, MAP_READ, slot);
    }
  };
  yield* show(yield* info(Info.page), 1, Start.infoPage);
  const envPages = Math.min(ENV_PAGES, yield* info(Info.envPages));
  yield* show(yield* info(Info.envPage), envPages, Start.envPages);
  const tablePages = Math.ceil((yield* info(Info.pages)) / (PAGE / 4));
  yield* show(yield* info(Info.pagePage), Math.min(PAGE_PAGES, tablePages), Start.pagePages);
}

/** The word that the maker left at place `n`. */
export const childWord = (sys: Syscalls, n: number): Op<number> =>
  sys.port.load(CHILD_WORDS + n * 4);
