/**
 * The refusal tables: for each call a valid example, and its refusals in their documented order,
 * each with a way to earn it. docs/ABI.md lists the same refusals; abi-doc.test.ts holds the two
 * together.
 */
import type { CallName } from '../../../kernel/abi.ts';
import { CALLS } from '../harness.ts';
import { ACCOUNTING } from './accounts.ts';
import { CAPABILITIES } from './capabilities.ts';
import { CONSOLE } from './console.ts';
import { CONTROL } from './control.ts';
import { CPU } from './cpu.ts';
import { DISK } from './disk.ts';
import { ENVIRONMENTS } from './environments.ts';
import { MEMORY } from './memory.ts';
import type { Table } from './tables.ts';

export type { Domain, Mistake, Table } from './tables.ts';
export { World, WORLD_PAGES } from './world.ts';

/** By concern: a call without a table, or a table of no call, does not compile. */
const tables: Readonly<Record<CallName, Table>> = {
  ...CPU,
  ...ENVIRONMENTS,
  ...MEMORY,
  ...CAPABILITIES,
  ...ACCOUNTING,
  ...CONTROL,
  ...DISK,
  ...CONSOLE,
};

/** In the order of the call numbers. */
export const REFUSALS = Object.fromEntries(
  CALLS.map((name) => [name, tables[name]]),
) as typeof tables;
