/**
 * Extents of blocks by physical name, each guarded by a name: split to allocate, joined to free,
 * never overlapping. Their table outlives the machine: every change is a generation, and two copies
 * of the table, one of them whole at every moment, lie in the last blocks of the disk.
 *
 *     copy (a block):  magic | generation | rows | checksum | rows × (first ... generation)
 *
 * A generation is durable, and said to be (Info.extentDurable), when the forced write of its copy
 * is complete; a power cut before that leaves the one before, or this one, whole. The copy that is
 * written is never that of the durable generation. One write is in flight; what changes meanwhile
 * is written after it, at once. At boot the newest whole copy counts; with none, and none damaged
 * but the one that a first write could have torn, the disk is fresh and divided as configured.
 */
import {
  Account,
  ALL_RIGHTS,
  DISK_FORCE,
  DISK_WRITE,
  Extent,
  Info,
  Queued,
  Resource,
  Status,
} from '../abi.ts';
import { assert } from '../../machine/assert.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import type { Tenant } from '../supervisor.ts';
import { allot, charge, covers, credit, hasRoom, payer } from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { capOf, check, isName, wordsAt, nameOf } from './capabilities.ts';
import { KERNEL, putPayer, submit, TABLE_TAG } from './requests.ts';
import { Cpu, extentNamed, EXTENTS_MAX, isSlot, type State } from './state.ts';

/** Blocks at the end of the disk that are nobody's: one for each copy of the table. */
export const TABLE_BLOCKS = 2;

const MAGIC = 0x7478_6f45; // 'Eoxt'
const Head = { magic: 0, generation: 1, rows: 2, checksum: 3, words: 4 } as const;
/** Of a row, `first` to `generation` are kept: who pays and what is in flight is of this boot. */
const KEPT = Extent.generation + 1;
const MIX = 3; // instructions of adding a word to a checksum

/** Status 0 if `slot` of `caller` dominates the guard of a valid extent with `rights`. */
export function checkExtent(
  state: State,
  caller: number,
  extent: number,
  slot: number,
  rights: number,
): number {
  if (state.extent.get(extent, Extent.valid) === 0) return Status.absent;
  return check(
    state,
    capOf(state, caller, slot),
    wordsAt(state.extent, extent, Extent.nameA),
    rights,
  );
}

/**
 * extentSplit(extent, slot, new extent, blocks, name a, name b): cuts the last `blocks` blocks off
 * an extent and makes them `new extent`, a free row, guarded by the given name, at the expense of
 * the caller's account. Names of the extent that carry its generation are stale. The value is the
 * first block of the new one. It is durable when Info.extentDurable has reached the generation.
 *
 * @refuses badArgument 0 (not a row, or stale); badArgument 1 (not a slot); badArgument 2 (not a
 *   row, or stale); badArgument 3 (below 1); badArgument 4 (the two words are not a name); absent 0
 *   (no such extent); noCapability 1 (the slot is empty); notPermitted 1 (it does not dominate the
 *   guard with all rights); notPermitted 4 (the slot does not dominate the new name); notFree 2
 *   (the row is taken); busy 0 (transfers are in flight); tooMany 3 (as many as the extent has, or
 *   more); notPermitted 4 (the account's name does not dominate the new name); quota 2 (the account
 *   has no extent left)
 * @source Xok (SOSP 1997): regions of the disk by capability.
 */
export function extentSplit(state: State, caller: number, claim: Claims): Answer {
  const [extent, fresh] = [extentNamed(state, claim(0)), extentNamed(state, claim(2))];
  const [slot, blocks, a, b] = [claim(1), claim(3), claim(4), claim(5)];
  if (extent < 0) return refuse(Status.badArgument, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  if (fresh < 0) return refuse(Status.badArgument, 2);
  if (!Number.isInteger(blocks) || blocks < 1) return refuse(Status.badArgument, 3);
  if (!isName(a, b)) return refuse(Status.badArgument, 4);
  const may = checkExtent(state, caller, extent, slot, ALL_RIGHTS);
  if (may !== Status.ok) return refuse(may, may === Status.absent ? 0 : 1);
  const under = check(state, capOf(state, caller, slot), nameOf(a, b), ALL_RIGHTS);
  if (under !== Status.ok) return refuse(under, 4);
  if (state.extent.get(fresh, Extent.valid) !== 0) return refuse(Status.notFree, 2);
  if (state.extent.get(extent, Extent.transfers) !== 0) return refuse(Status.busy, 0);
  const count = state.extent.get(extent, Extent.count);
  if (blocks >= count) return refuse(Status.tooMany, 3);
  const account = payer(state, caller);
  // Or those who allotted the row could not take it back by name.
  if (!covers(state, account, nameOf(a, b))) return refuse(Status.notPermitted, 4);
  if (!hasRoom(state, account, Resource.extents)) return refuse(Status.quota, 2);

  const first = state.extent.get(extent, Extent.first) + count - blocks;
  state.extent.put(extent, Extent.count, count - blocks);
  state.extent.add(extent, Extent.generation, 1);
  putExtent(state, fresh, first, blocks, a, b, account);
  changed(state);
  return ok(first);
}

/**
 * extentJoin(extent, slot, neighbour): adds to an extent the blocks of `neighbour`, which begins
 * where it ends, and frees that row. Names of either that carry a generation are stale. The value
 * is how many blocks the extent has now.
 *
 * @refuses badArgument 0 (not a row, or stale); badArgument 1 (not a slot); badArgument 2 (not a
 *   row, or stale); absent 0 (no such extent); noCapability 1 (the slot is empty); notPermitted 1
 *   (it does not dominate the guard with all rights); absent 2 (no such extent); notPermitted 2
 *   (the slot does not dominate the neighbour's guard); badArgument 2 (it does not begin where the
 *   extent ends); busy 0 (transfers are in flight); busy 2 (transfers are in flight)
 */
export function extentJoin(state: State, caller: number, claim: Claims): Answer {
  const [extent, neighbour] = [extentNamed(state, claim(0)), extentNamed(state, claim(2))];
  const slot = claim(1);
  if (extent < 0) return refuse(Status.badArgument, 0);
  if (!isSlot(slot)) return refuse(Status.badArgument, 1);
  if (neighbour < 0) return refuse(Status.badArgument, 2);
  const may = checkExtent(state, caller, extent, slot, ALL_RIGHTS);
  if (may !== Status.ok) return refuse(may, may === Status.absent ? 0 : 1);
  const other = checkExtent(state, caller, neighbour, slot, ALL_RIGHTS);
  if (other !== Status.ok) return refuse(other, 2);
  const { extent: table } = state;
  const count = table.get(extent, Extent.count);
  const end = table.get(extent, Extent.first) + count;
  if (table.get(neighbour, Extent.first) !== end) return refuse(Status.badArgument, 2);
  if (table.get(extent, Extent.transfers) !== 0) return refuse(Status.busy, 0);
  if (table.get(neighbour, Extent.transfers) !== 0) return refuse(Status.busy, 2);

  const blocks = count + table.get(neighbour, Extent.count);
  table.put(extent, Extent.count, blocks);
  table.add(extent, Extent.generation, 1);
  table.put(neighbour, Extent.valid, 0);
  table.add(neighbour, Extent.generation, 1);
  credit(state, table.get(neighbour, Extent.account), Resource.extents);
  changed(state);
  return ok(blocks);
}

/** Fills free row `extent`. */
function putExtent(
  state: State,
  extent: number,
  first: number,
  count: number,
  a: number,
  b: number,
  account: number,
): void {
  state.extent.put(extent, Extent.first, first);
  state.extent.put(extent, Extent.count, count);
  state.extent.put(extent, Extent.nameA, a);
  state.extent.put(extent, Extent.nameB, b);
  state.extent.put(extent, Extent.valid, 1);
  state.extent.put(extent, Extent.account, account);
  charge(state, account, Resource.extents);
}

// ---- the table on the disk ----------------------------------------------------------------------

const firstCopy = (state: State): number => state.machine.disk.blocks - TABLE_BLOCKS;
const word = (state: State, n: number): number => state.staging * PAGE_BYTES + n * 4;

/** Queues the transfer of a copy between the staging page and its block. */
function transfer(state: State, block: number, flags: number): void {
  const pages = [state.staging];
  submit(state, TABLE_TAG, { env: KERNEL, account: 0, extent: -1, block, flags, pages });
}

/** The table is another from now on. */
function changed(state: State): void {
  state.info.add(0, Info.extentGeneration, 1);
  putPayer(state, TABLE_TAG);
  write(state);
}

/** Writes the generation that stands, unless it is durable, or another is being written. */
function write(state: State): void {
  if (state.queue.get(TABLE_TAG, Queued.env) !== 0) return;
  const durable = state.info.get(0, Info.extentDurable);
  let generation = state.info.get(0, Info.extentGeneration);
  if (generation === durable) return;
  // Or it would overwrite the copy that counts until it is complete itself.
  const same = ((generation ^ durable) & 1) === 0;
  if (same) generation = state.info.add(0, Info.extentGeneration, 1);
  stage(state, generation);
  transfer(state, firstCopy(state) + (generation & 1), DISK_WRITE | DISK_FORCE);
}

/** Fills the staging page. */
function stage(state: State, generation: number): void {
  const { machine, config } = state;
  const head = [MAGIC, generation, config.extents];
  let sum = 0;
  const put = (n: number, value: number): void => {
    machine.store(word(state, n), value);
    machine.work(MIX);
    sum = mix(sum, value);
  };
  head.forEach((value, n) => {
    put(n, value);
  });
  for (let row = 0; row < config.extents; row++) {
    for (let n = 0; n < KEPT; n++) {
      put(Head.words + row * KEPT + n, state.extent.get(row, n));
    }
  }
  machine.store(word(state, Head.checksum), sum);
}

/** Of two sequences that differ in one word, the sums differ for certain. */
const mix = (sum: number, value: number): number =>
  Math.imul(((sum << 5) | (sum >>> 27)) ^ value, 0x9e37_79b1);

/** Begins to read the copies. False: the disk is too small to have any, or to have an extent. */
export function readTable(state: State): boolean {
  if (firstCopy(state) < 1) return false;
  transfer(state, firstCopy(state), 0);
  return true;
}

/** A transfer of the table is over. True: that was the last one of boot. */
export function tableDone(state: State, worked: boolean): boolean {
  const { queue, info } = state;
  const block = queue.get(TABLE_TAG, Queued.block);
  if ((queue.get(TABLE_TAG, Queued.flags) & DISK_WRITE) !== 0) {
    // What the disk failed to write stays as it is: the next change tries again.
    if (!worked) return false;
    info.put(0, Info.extentDurable, state.machine.load(word(state, Head.generation)));
    write(state);
    return false;
  }
  if (!worked || !accept(state)) state.cpu.add(0, Cpu.damaged, 1);
  if (block !== firstCopy(state)) return true;
  transfer(state, block + 1, 0);
  return false;
}

/** Takes the copy in the staging page over, if it is whole and newer. False: it is damaged. */
function accept(state: State): boolean {
  const { machine, info, config } = state;
  const at = (n: number): number => machine.load(word(state, n));
  if (at(Head.magic) !== MAGIC) return true; // never written
  const [generation, rows] = [at(Head.generation), at(Head.rows)];
  if (rows < 1 || rows > EXTENTS_MAX) return false;
  let sum = mix(mix(mix(0, MAGIC), generation), rows);
  for (let n = 0; n < rows * KEPT; n++) sum = mix(sum, at(Head.words + n));
  machine.work(rows * KEPT * MIX);
  if (sum !== at(Head.checksum)) return false;
  // Or blocks of somebody's would be nobody's.
  assert(rows <= config.extents, 'exokernel: as many extents as the table on the disk has');
  const before = info.get(0, Info.extentDurable);
  if (before !== 0 && ((generation - before) | 0) <= 0) return true;

  for (let row = 0; row < rows; row++) {
    for (let n = 0; n < KEPT; n++) state.extent.put(row, n, at(Head.words + row * KEPT + n));
  }
  state.setInfo(Info.extentGeneration, generation);
  state.setInfo(Info.extentDurable, generation);
  return true;
}

/**
 * Charges the extents of the disk, or on a fresh one makes those of the configuration; shares the
 * rows out. Accounts 1 and on are the tenants', in order. With both copies damaged there are no
 * extents, and whoever mends the disk finds it as it was.
 */
export function startExtents(state: State, tenants: readonly Tenant[]): void {
  const { extents } = state.config;
  let free = extents;
  for (let row = 0; row < extents; row++) {
    if (state.extent.get(row, Extent.valid) === 0) continue;
    const account = payerOf(state, row, tenants.length);
    state.extent.put(row, Extent.account, account);
    if (account !== 0) allot(state, 0, account, Resource.extents, 1);
    charge(state, account, Resource.extents);
    free--;
  }
  const unknown = state.cpu.get(0, Cpu.damaged) === TABLE_BLOCKS;
  const fresh = state.info.get(0, Info.extentGeneration) === 0 && !unknown;
  const share = Math.floor(free / Math.max(1, tenants.length));
  let made = 0;
  tenants.forEach(({ firstBlock, blocks }, n) => {
    const account = n + 1;
    allot(state, 0, account, Resource.extents, share);
    if (!fresh || blocks === 0) return;
    const a = state.account.get(account, Account.nameA);
    putExtent(state, n, firstBlock, blocks, a, state.account.get(account, Account.nameB), account);
    made++;
  });
  if (made > 0) changed(state);
}

/** Whether the account's name dominates the guard of an extent. */
export const coversExtent = (state: State, account: number, extent: number): boolean =>
  covers(state, account, wordsAt(state.extent, extent, Extent.nameA));

/** The tenant whose name the guard is under: the prefix says who pays. The reserve, if nobody's. */
function payerOf(state: State, row: number, tenants: number): number {
  for (let account = 1; account <= tenants; account++) {
    if (coversExtent(state, account, row)) return account;
  }
  return 0;
}

/** The first extent that the account's name dominates: a tenant begins with it. -1: none. */
export function firstExtent(state: State, account: number): number {
  for (let row = 0; row < state.config.extents; row++) {
    const valid = state.extent.get(row, Extent.valid) !== 0;
    if (valid && coversExtent(state, account, row)) return row;
  }
  return -1;
}
