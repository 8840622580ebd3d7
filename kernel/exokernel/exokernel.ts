/**
 * The exokernel: says who owns what, never how to use it. A supervisor of any Machine: on the
 * hardware, or inside a virtual machine, unchanged.
 *
 * It trusts its machine and nobody else. It owes every environment that its resources are touched
 * by those alone who dominate their names, and that a refused call has changed nothing. The object
 * has no state: `state` is a set of views of tables in machine memory.
 */
import { assert } from '../../machine/assert.ts';
import {
  Account,
  ARITY,
  BATCH_MAX,
  Call,
  CALL_COUNT,
  ENV_PAGES,
  Extent,
  Info,
  MAP_READ,
  MAP_WRITE,
  type Name,
  packName,
  PAGE_PAGES,
  PageKind,
  Resource,
  Start,
  Status,
} from '../abi.ts';
import {
  Cause,
  type Context,
  type Machine,
  type Supervisor,
  type Tenant,
  TENANT_PAGES,
  type Trap,
  writeDirectMap,
} from '../supervisor.ts';
import { pte, PTE_V } from '../../machine/sv39.ts';
import { type Answer, type Claims, type KernelCall, ok, refuse } from './answer.ts';
import { accountClose, accountCreate, accountMove, allot, charge, putAccount } from './accounts.ts';
import { REFERENCES } from './bounds.ts';
import { accessAdd, capAcquire, capDrop, capForge, capOffer } from './capabilities.ts';
import { consoleRead, consoleWrite, typed } from './console.ts';
import { completions, diskRequest, saveBlock } from './disk.ts';
import {
  extentJoin,
  extentSplit,
  firstExtent,
  readTable,
  startExtents,
  TABLE_BLOCKS,
} from './extents.ts';
import {
  envCreate,
  envDestroy,
  envReap,
  envStart,
  envSuspend,
  makeEnv,
  startEnv,
} from './environments.ts';
import { kill } from './life.ts';
import { ipcCall, ipcReplyWait, ipcSend, ipcWindow } from './ipc.ts';
import { requestsOf } from './requests.ts';
import { repossess, revoke } from './revocation.ts';
import {
  accessRemove,
  bind,
  pageMap,
  pageMapList,
  pageProtect,
  pageSweep,
  pageUnmap,
} from './bindings.ts';
import {
  asked,
  claimPage,
  pageAllocate,
  pageCopy,
  pageFree,
  pageKeep,
  pageLimit,
} from './pages.ts';
import { makeRoot, tableCreate, tableDestroy } from './tables.ts';
import {
  dispatch,
  leave,
  notify,
  sleep,
  sliceAllocate,
  sliceFree,
  tick,
  yieldTo,
} from './slices.ts';
import {
  Cpu,
  DISK_TAGS,
  type ExokernelConfig,
  EXTENTS_MAX,
  PageRecord,
  SLICE_MIN,
  SLICES_MAX,
  State,
} from './state.ts';
import { pushFault, upcallSet } from './upcalls.ts';

const nullCall: KernelCall = () => ok();

const nameOf = (tenant: Tenant, number: number): Name => packName(tenant.name ?? [number]);

/** One function per call number. */
const CALLS: readonly KernelCall[] = (() => {
  const calls: KernelCall[] = [];
  const named: Record<keyof typeof Call, KernelCall> = {
    null: nullCall,
    yield: yieldTo,
    sleep,
    notify,
    envCreate,
    envStart,
    envDestroy,
    envReap,
    upcallSet,
    pageAllocate,
    pageFree,
    accessAdd,
    accessRemove,
    tableCreate,
    tableDestroy,
    pageMap,
    pageUnmap,
    pageProtect,
    capForge,
    capDrop,
    sliceAllocate,
    sliceFree,
    ipcWindow,
    ipcCall,
    ipcReplyWait,
    extentSplit,
    diskRequest,
    consoleWrite,
    batch: nullCall, // performed by the kernel itself: see #batch
    capOffer,
    capAcquire,
    pageMapList,
    pageCopy,
    pageLimit,
    pageKeep,
    pageSweep,
    envSuspend,
    ipcSend,
    extentJoin,
    accountCreate,
    accountMove,
    accountClose,
    revoke,
    repossess,
    saveBlock,
    consoleRead,
  };
  for (const [name, call] of Object.entries(named)) calls[Call[name as keyof typeof Call]] = call;
  assert(calls.length === CALL_COUNT, 'exokernel: each call number has its function');
  return calls;
})();

/** Instructions of decoding a call number and branching to its function. */
const DECODE = 6;

export class Exokernel implements Supervisor {
  readonly #config: ExokernelConfig;
  readonly #tenants: readonly Tenant[];
  #state: State | null = null; // views of machine memory, made once at boot

  constructor(config: ExokernelConfig, tenants: readonly Tenant[]) {
    assert(config.slices >= 1 && config.slices <= SLICES_MAX, 'exokernel: 1 to 64 slices');
    assert(config.sliceCycles >= SLICE_MIN, 'exokernel: a slice is long enough to be used');
    assert(tenants.length <= config.slices, 'exokernel: a slice for each tenant');
    assert(config.extents >= 1 && config.extents <= EXTENTS_MAX, 'exokernel: 1 to 120 extents');
    this.#config = config;
    this.#tenants = tenants;
  }

  /** The tables, for tests and tools that read the machine. */
  get state(): State {
    assert(this.#state !== null, 'exokernel: booted');
    return this.#state;
  }

  boot(machine: Machine): void {
    const state = new State(machine, this.#config);
    this.#state = state;
    writeDirectMap(machine, state.root);
    machine.setAddressSpace({ root: state.root, asid: 0 });
    machine.fence();
    this.#publish(state);
    const { blocks } = machine.disk;
    const fits = (t: Tenant): boolean =>
      t.blocks === 0 || t.firstBlock + t.blocks <= blocks - TABLE_BLOCKS;
    assert(this.#tenants.every(fits), 'exokernel: the last two blocks are for the extent table');
    // Else when the copies have been read: an interrupt.
    if (!readTable(state)) this.#start(state);
  }

  /** Says where the exposed tables are, and marks their pages and the kernel's own. */
  #publish(state: State): void {
    const { environments, slices, sliceCycles, extents } = this.#config;
    for (const [word, value] of [
      [Info.pages, state.machine.pages],
      [Info.environments, environments],
      [Info.slices, slices],
      [Info.sliceCycles, sliceCycles],
      [Info.page, state.info.firstPage],
      [Info.envPage, state.env.firstPage],
      [Info.envPages, state.env.pages],
      [Info.pagePage, state.pageWord.firstPage],
      [Info.recordPage, state.page.firstPage],
      [Info.accountPage, state.account.firstPage],
      [Info.lossPage, state.loss.firstPage],
      [Info.extentPage, state.extent.firstPage],
      [Info.extents, extents],
      [Info.queuePage, state.queue.firstPage],
      [Info.requests, DISK_TAGS],
    ] as const) {
      state.setInfo(word, value);
    }
    for (let page = 0; page < state.firstPrivate; page++) {
      state.setPage(page, PageKind.published, 0, 0);
    }
    for (let page = state.firstPrivate; page < state.end; page++) {
      state.setPage(page, PageKind.kernel, 0, 0);
    }
  }

  /**
   * Accounts and first environments of the tenants; what they are not allotted is the reserve's.
   */
  #start(state: State): void {
    const { environments, slices, extents } = this.#config;
    const { account } = state;
    const requests = requestsOf(state);
    account.put(0, Account.valid, 1);
    const all = {
      [Resource.pages]: state.machine.pages - state.end,
      [Resource.slices]: slices,
      [Resource.environments]: environments - 1,
      [Resource.extents]: extents,
      [Resource.requests]: requests,
    };
    for (const [resource, count] of Object.entries(all)) {
      account.put(0, Account.limit + Number(resource), count);
    }
    const tenants = this.#tenants.length;
    const share = (count: number): number => Math.floor(count / tenants);
    this.#tenants.forEach((tenant, n) => {
      const number = n + 1;
      const { a, b } = nameOf(tenant, number);
      putAccount(state, number, 0, a, b, tenant.minimum ?? 0);
      const give = (resource: number, amount: number): void => {
        allot(state, 0, number, resource, amount);
      };
      give(Resource.pages, tenant.quota + TENANT_PAGES);
      give(Resource.slices, Math.ceil((slices - n) / tenants));
      give(Resource.environments, share(environments - 1));
      give(Resource.requests, share(requests));
    });
    const reserve = account.get(0, Account.limit + Resource.pages);
    assert(reserve >= 0, 'exokernel: the tenants are given no more pages than there are');
    startExtents(state, this.#tenants);
    this.#tenants.forEach((tenant, n) => {
      this.#makeTenant(state, tenant, n + 1);
    });
    // Equidistant positions: who holds k of n slices gets one every n/k.
    for (let position = 0; position < slices && tenants > 0; position++) {
      const number = 1 + (position % tenants);
      state.setInfo(Info.sliceVector + position, state.id(number));
      state.setInfo(Info.sliceAccount + position, number);
      charge(state, number, Resource.slices);
    }
  }

  /** The first environment of a tenant, from the first free pages, as Start describes it. */
  #makeTenant(state: State, tenant: Tenant, number: number): void {
    const { machine } = state;
    const { a, b } = nameOf(tenant, number);
    let page = state.end;
    const take = (): number => {
      while (state.kind(page) !== PageKind.free) page++;
      claimPage(state, page, number, a, b);
      return page;
    };
    const [root, middle, leaf, ledger0, ledger1, stack] = [0, 1, 2, 3, 4, 5].map(take) as Six;
    makeRoot(state, root, number);
    const self = makeEnv(state, number, root, a, b, number, number, number);
    for (const [table, parent, kind] of [
      [middle, root, PageKind.middle],
      [leaf, middle, PageKind.leaf],
    ] as const) {
      state.retype(table, kind, number);
      state.page.put(table, PageRecord.parent, parent);
      state.page.put(parent, PageRecord.leaves, 1);
      machine.writePtes([{ table: parent, index: 0, value: pte(table, PTE_V) }]);
    }
    [ledger0, ledger1].forEach((ledger, n) => {
      state.page.put(leaf, PageRecord.ledger + n, ledger);
      state.retype(ledger, PageKind.ledger, number);
    });
    this.#mapStart(state, leaf, number, stack);
    const extent = firstExtent(state, number);
    const blocks = extent < 0 ? 0 : state.extent.get(extent, Extent.count);
    const { image, quota } = tenant;
    startEnv(state, number, image, 0, [self, root, middle, leaf, quota, extent, blocks]);
  }

  /** Stack and exposed tables, where Start says. */
  #mapStart(state: State, leaf: number, env: number, stack: number): void {
    bind(state, leaf, Start.stackPage, stack, PageKind.user, 0, 0, MAP_READ | MAP_WRITE, env);
    const show = (first: number, count: number, at: number): void => {
      for (let n = 0; n < count; n++) {
        bind(state, leaf, at + n, first + n, PageKind.published, 0, 0, MAP_READ, env);
      }
    };
    show(state.info.firstPage, 1, Start.infoPage);
    show(state.env.firstPage, Math.min(ENV_PAGES, state.env.pages), Start.envPages);
    show(state.pageWord.firstPage, Math.min(PAGE_PAGES, state.pageWord.pages), Start.pagePages);
  }

  attach(machine: Machine): void {
    this.#state = new State(machine, this.#config);
  }

  dispatch(): Context | null {
    return dispatch(this.state);
  }

  trap(trap: Trap): void {
    const { state } = this;
    const since = state.machine.now();
    const current = state.cpu.get(0, Cpu.current);
    if (current > 0) leave(state, current, trap.cause === Cause.environmentCall);
    switch (trap.cause) {
      case Cause.environmentCall:
        this.#call(state, current);
        return;
      case Cause.timerInterrupt:
        tick(state);
        return;
      case Cause.externalInterrupt:
        if (completions(state, since)) this.#start(state);
        asked(state);
        return;
      case Cause.consoleInterrupt:
        typed(state, trap.tval);
        return;
      case Cause.threadEnd:
        kill(state, current, 0);
        return;
      default:
        this.#fault(state, current, trap);
    }
  }

  #call(state: State, caller: number): void {
    const { machine } = state;
    const { contexts } = machine;
    const number = contexts.argument(caller, 0);
    machine.work(DECODE);
    const call = Number.isInteger(number) ? CALLS[number] : undefined;
    if (call === undefined) {
      contexts.setResult(caller, Status.badCall, 0);
      return;
    }
    const claim = (n: number): number => contexts.argument(caller, n + 1);
    const answer =
      number === Call.batch
        ? this.#batch(state, caller, claim)
        : bounded(state, number, () => call(state, caller, claim));
    if (answer !== null) contexts.setResult(caller, answer.status, answer.value);
  }

  /**
   * batch(address, count): performs 1 to BATCH_MAX calls in one crossing, in order, each as if it
   * had been made alone; stops at the first that is refused. What was done before stays done. The
   * value is how many were performed; of a refusal, the status is the refused call's.
   *
   * @refuses badArgument 1 (below 1); tooMany 1 (more than 32); badAddress 0 (a record cannot be
   *   read); badCall 0 (a record is of no call, or of one that may wait)
   * @source Xok: batched calls, not atomic, stopping at the first failure.
   */
  #batch(state: State, caller: number, claim: Claims): Answer {
    const { machine } = state;
    let address = claim(0);
    const count = claim(1);
    if (!Number.isInteger(count) || count < 1) return refuse(Status.badArgument, 1);
    if (count > BATCH_MAX) return refuse(Status.tooMany, 1);
    for (let done = 0; done < count; done++) {
      const number = machine.loadUser(address);
      if (number === null) return { status: Status.badAddress, value: done };
      machine.work(DECODE);
      const arity = ARITY[number] ?? -1;
      const call = CALLS[number];
      if (arity < 0 || call === undefined) return { status: Status.badCall, value: done };
      // Fetched once: what is checked is what is used.
      const words: number[] = [];
      for (let n = 1; n <= arity; n++) {
        const word = machine.loadUser(address + n * 4);
        if (word === null) return { status: Status.badAddress, value: done };
        words.push(word);
      }
      const answer = bounded(state, number, () => call(state, caller, (n) => words[n] ?? 0));
      assert(answer !== null, 'exokernel: no call that may wait is in a batch');
      if (answer.status !== Status.ok) return { status: answer.status, value: done };
      address += (arity + 1) * 4;
    }
    return ok(count);
  }

  /** What a program did is its own affair: its handler's, or its end. */
  #fault(state: State, env: number, { cause, tval }: Trap): void {
    const { machine } = state;
    if (cause !== Cause.userException && pushFault(state, env, cause, tval)) return;
    const why =
      cause === Cause.userException
        ? machine.contexts.failure(env)
        : `cause ${cause} at 0x${tval.toString(16)}, and no handler for it`;
    const text = `environment ${state.id(env)}: ${printable(why)}\n`;
    machine.console(0, new TextEncoder().encode(text));
    kill(state, env, -1);
  }
}

/** One call, held to its bound: no argument and no other environment's state makes it longer. */
function bounded(state: State, number: number, call: () => Answer | null): Answer | null {
  const before = state.machine.references();
  const answer = call();
  const references = state.machine.references() - before;
  const bound = REFERENCES[number] ?? 0;
  assert(
    references <= bound,
    `exokernel: call ${number} made ${references} references of ${bound}`,
  );
  return answer;
}

const WHY_MAX = 200; // characters

/** What a program threw is its own text: one line, so that it cannot write another's obituary. */
const printable = (text: string): string => text.slice(0, WHY_MAX).replace(/[^\x20-\x7e]/g, '?');

type Six = [number, number, number, number, number, number];
