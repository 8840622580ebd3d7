/**
 * Extents of the tenant's blocks: split to allocate, joined to free. Nothing guards them, and their
 * table does not outlive the machine: at each boot there is one extent again, of all blocks. Owed
 * are rows that exist and extents that do not overlap.
 */
import { Extent, EXTENT_BITS, Info, Status } from '../abi.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { indexOf, type State } from './state.ts';

/** Row of an extent by name, or -1 if there is no such row. */
export function extentAt(state: State, name: number): number {
  const row = indexOf(name, EXTENT_BITS);
  return row < state.extent.rows ? row : -1;
}

export function putExtent(
  state: State,
  row: number,
  first: number,
  count: number,
  a: number,
  b: number,
): void {
  [first, count, a, b, 1].forEach((word, n) => {
    state.extent.put(row, Extent.first + n, word);
  });
}

/** extentSplit(extent, -, new extent, blocks, name a, name b): cuts the last `blocks` off. */
export function extentSplit(state: State, claim: Claims): Answer {
  const [row, fresh, blocks] = [extentAt(state, claim(0)), extentAt(state, claim(2)), claim(3)];
  const { extent: table } = state;
  if (row < 0) return refuse(Status.badArgument, 0);
  if (fresh < 0) return refuse(Status.badArgument, 2);
  if (!Number.isInteger(blocks) || blocks < 1) return refuse(Status.badArgument, 3);
  if (table.get(row, Extent.valid) === 0) return refuse(Status.absent, 0);
  if (table.get(fresh, Extent.valid) !== 0) return refuse(Status.notFree, 2);
  const count = table.get(row, Extent.count);
  if (blocks >= count) return refuse(Status.tooMany, 3);

  const first = table.get(row, Extent.first) + count - blocks;
  table.put(row, Extent.count, count - blocks);
  putExtent(state, fresh, first, blocks, claim(4), claim(5));
  changed(state, row);
  return ok(first);
}

/** extentJoin(extent, -, neighbour): adds the blocks of `neighbour`, and frees that row. */
export function extentJoin(state: State, claim: Claims): Answer {
  const [row, neighbour] = [extentAt(state, claim(0)), extentAt(state, claim(2))];
  const { extent: table } = state;
  if (row < 0) return refuse(Status.badArgument, 0);
  if (neighbour < 0) return refuse(Status.badArgument, 2);
  if (table.get(row, Extent.valid) === 0) return refuse(Status.absent, 0);
  if (table.get(neighbour, Extent.valid) === 0) return refuse(Status.absent, 2);
  const count = table.get(row, Extent.count);
  const end = table.get(row, Extent.first) + count;
  if (table.get(neighbour, Extent.first) !== end) return refuse(Status.badArgument, 2);

  const blocks = count + table.get(neighbour, Extent.count);
  table.put(row, Extent.count, blocks);
  table.put(neighbour, Extent.valid, 0);
  table.add(neighbour, Extent.generation, 1);
  changed(state, row);
  return ok(blocks);
}

/** As durable as it gets: who waits for that must not wait for ever. */
function changed(state: State, row: number): void {
  state.extent.add(row, Extent.generation, 1);
  state.setInfo(Info.extentDurable, state.info.add(0, Info.extentGeneration, 1));
}
