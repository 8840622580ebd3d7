/**
 * Makes a store inside a tenant whose first environment is another library OS: an environment of
 * the same tenant, on a part of its extent and with a share of its pages. So it is where tenants
 * cannot call each other, each in a virtual machine; and so it can be anywhere.
 *
 * The tenant trusts the store with that part of the disk and that number of pages; the kernel sees
 * one tenant.
 */
import { Env, envIndex, type Name, packName, READ, Start, WRITE } from '../../kernel/abi.ts';
import { makeChild } from '../parts/child.ts';
import type { Op, Syscalls } from '../syscalls.ts';
import { LODGER_ENTRY } from './kv.ts';

const PAGE = 4096;

export interface LodgeSpec {
  /** number of the image that holds the store */
  readonly image: number;
  /** our own id: the store is an environment of the tenant that we are one of */
  readonly self: number;
  /** our capability of the tenant's name */
  readonly slot: number;
  readonly pages: number;
  readonly extent: number;
  readonly firstBlock: number;
  readonly blocks: number;
  /** an empty entry of our first leaf table */
  readonly window: { readonly leaf: number; readonly index: number };
  readonly take: () => Op<number>;
  readonly put: (page: number) => Op<void>;
  readonly patron?: number;
}

/** Guard of the store in tenant `tenant`. */
export const lodgerName = (tenant: number): Name => packName([tenant, 0x6b, 0x76]);

const TENANT_SLOT = 1; // of the store: for the extent

/**
 * Id of the store's environment, or -1: no page or no row was left. It has no slice of its own: it
 * runs while it is called.
 */
export function* startStore(sys: Syscalls, spec: LodgeSpec): Op<number> {
  const { image, self, pages, extent, firstBlock, blocks } = spec;
  const row = Start.envPages * PAGE + envIndex(self) * Env.words * 4;
  const tenant = ((yield* sys.port.load(row + Env.nameA * 4)) >>> 8) & 0xff;
  return yield* makeChild(sys, {
    ...spec,
    image,
    entry: LODGER_ENTRY,
    name: lodgerName(tenant),
    capabilities: [{ name: packName([tenant]), rights: READ | WRITE }],
    words: ([root, middle, leaf]) => [
      ...[root, middle, leaf],
      ...[pages, extent, TENANT_SLOT, firstBlock, blocks],
    ],
  });
}
