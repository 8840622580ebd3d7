/**
 * The unikernel: the kernel interface for one tenant, by procedure call, in the tenant's own
 * privilege. On the bare machine it is the limit, what the work costs when nobody is kept from
 * anything; in a virtual machine it is what people mean by a libOS on a hypervisor. It trusts its
 * tenant with all that its machine has, and protects nothing: arguments are checked only so far
 * that a wild number does not become a wild store. The object has no state, as the exokernel's.
 */
import { assert } from '../../machine/assert.ts';
import { pte, PTE_U, PTE_V } from '../../machine/sv39.ts';
import { NEVER } from '../../machine/units.ts';
import {
  Account,
  ARITY,
  BATCH_MAX,
  Call,
  ENV_PAGES,
  Info,
  MAP_READ,
  MAP_WRITE,
  packName,
  PAGE_PAGES,
  PageKind,
  Start,
  Status,
} from '../abi.ts';
import {
  Cause,
  type Context,
  type Machine,
  type PteUpdate,
  type Supervisor,
  type Table,
  type Tenant,
  type Trap,
  writeDirectMap,
} from '../supervisor.ts';
import { accountClose, accountCreate, accountMove, asked, putAccount, revoke } from './accounts.ts';
import { type Answer, type Claims, ok, refuse } from './answer.ts';
import { consoleRead, consoleWrite, typed } from './console.ts';
import { completions, diskRequest } from './disk.ts';
import { extentJoin, extentSplit, putExtent } from './extents.ts';
import {
  envCreate,
  envDestroy,
  envReap,
  envStart,
  envSuspend,
  makeEnv,
  startEnv,
} from './environments.ts';
import { ipcCall, ipcReplyWait, ipcSend, ipcWindow } from './ipc.ts';
import { kill } from './life.ts';
import {
  pageAllocate,
  pageCopy,
  pageFree,
  pageMap,
  pageMapList,
  pageProtect,
  pageUnmap,
  tableCreate,
  tableDestroy,
} from './pages.ts';
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
import { ACCOUNT, Cpu, DISK_TAGS, EXTENTS, SLICES, State, type UnikernelConfig } from './state.ts';
import { pushFault, upcallSet } from './upcalls.ts';

export type { UnikernelConfig } from './state.ts';

/** Instructions of decoding a call number and branching to its function, as in the exokernel. */
const DECODE = 6;

export class Unikernel implements Supervisor {
  readonly #config: UnikernelConfig;
  readonly #tenant: Tenant;
  readonly #channel: number;
  #state: State | null = null; // views of machine memory, made once at boot

  /** @param channel of the console that its output goes to */
  constructor(config: UnikernelConfig, tenant: Tenant, channel: number) {
    this.#config = config;
    this.#tenant = tenant;
    this.#channel = channel;
  }

  /** The tables, for tests and tools that read the machine. */
  get state(): State {
    assert(this.#state !== null, 'unikernel: booted');
    return this.#state;
  }

  boot(machine: Machine): void {
    const state = new State(machine, this.#config, this.#channel);
    this.#state = state;
    writeDirectMap(machine, state.root);
    machine.setAddressSpace({ root: state.root, asid: 0 });
    machine.fence();
    machine.setTimer(NEVER);
    state.setInfo(Info.pages, machine.pages);
    state.setInfo(Info.environments, this.#config.environments);
    state.setInfo(Info.slices, SLICES);
    state.setInfo(Info.sliceCycles, this.#config.sliceCycles);
    state.setInfo(Info.page, state.info.firstPage);
    state.setInfo(Info.envPage, state.env.firstPage);
    state.setInfo(Info.envPages, state.env.pages);
    state.setInfo(Info.pagePage, state.pageWord.firstPage);
    state.setInfo(Info.extentPage, state.extent.firstPage);
    state.setInfo(Info.extents, EXTENTS);
    state.setInfo(Info.accountPage, state.account.firstPage);
    for (let page = 0; page < state.end; page++) state.setKind(page, PageKind.kernel, 0, 0);
    this.#makeTenant(state, this.#tenant);
  }

  /** The first environment, from the first free pages, as Start describes it. */
  #makeTenant(state: State, tenant: Tenant): void {
    const { machine } = state;
    let page = state.end;
    const take = (kind: number): number => {
      state.setKind(page, kind, 1, ACCOUNT);
      machine.zeroPage(page);
      return page++;
    };
    const root = take(PageKind.root);
    const middle = take(PageKind.middle);
    const leaf = take(PageKind.leaf);
    const stack = take(PageKind.user);
    writeDirectMap(machine, root);
    machine.writePtes([
      { table: root, index: 0, value: pte(middle, PTE_V) },
      { table: middle, index: 0, value: pte(leaf, PTE_V) },
      ...startMappings(state, leaf, stack),
    ]);
    const name = packName(tenant.name ?? [1]);
    putAccount(state, ACCOUNT, 0, name.a, name.b, tenant.minimum ?? 0);
    const all = [machine.pages - state.end, SLICES, this.#config.environments - 1, EXTENTS];
    [...all, DISK_TAGS].forEach((amount, what) => {
      state.account.put(ACCOUNT, Account.limit + what, amount);
    });
    if (tenant.blocks > 0) putExtent(state, 0, tenant.firstBlock, tenant.blocks, name.a, name.b);
    const self = makeEnv(state, 1, root, name, 1, 1, ACCOUNT);
    state.setInfo(Info.sliceVector, self);
    const { image, quota, blocks } = tenant;
    startEnv(state, 1, image, 0, [self, root, middle, leaf, quota, 0, blocks]);
  }

  attach(machine: Machine): void {
    this.#state = new State(machine, this.#config, this.#channel);
  }

  dispatch(): Context | null {
    return dispatch(this.state);
  }

  trap(trap: Trap): void {
    const { state } = this;
    const current = state.cpu.get(0, Cpu.current);
    if (current > 0 && trap.cause !== Cause.environmentCall) leave(state, current);
    switch (trap.cause) {
      case Cause.environmentCall:
        this.#call(state, current);
        return;
      case Cause.timerInterrupt:
        tick(state);
        return;
      case Cause.externalInterrupt:
        completions(state);
        asked(state);
        return;
      case Cause.consoleInterrupt:
        typed(state);
        return;
      case Cause.threadEnd:
        kill(state, current, 0);
        return;
      default:
        this.#fault(state, current, trap);
    }
  }

  #call(state: State, caller: number): void {
    const { contexts } = state.machine;
    const number = contexts.argument(caller, 0);
    const answer = this.#perform(state, number, caller, (n) => contexts.argument(caller, n + 1));
    if (answer !== null) contexts.setResult(caller, answer.status, answer.value);
  }

  /** One call. `null`: the answer comes later (the caller waits). */
  #perform(state: State, number: number, caller: number, claim: Claims): Answer | null {
    state.machine.work(DECODE);
    switch (number) {
      case Call.null:
      case Call.capForge:
      case Call.capDrop:
      case Call.accessAdd:
      case Call.accessRemove:
      case Call.capOffer:
      case Call.capAcquire:
      case Call.pageLimit:
      case Call.pageKeep:
      case Call.saveBlock:
        return ok(); // nobody is kept from anything
      case Call.yield:
        return yieldTo(state, caller, claim);
      case Call.sleep:
        return sleep(state, caller, claim);
      case Call.notify:
        return notify(state, claim);
      case Call.envCreate:
        return envCreate(state, caller, claim);
      case Call.envStart:
        return envStart(state, claim);
      case Call.envSuspend:
        return envSuspend(state, claim);
      case Call.envDestroy:
        return envDestroy(state, caller, claim);
      case Call.envReap:
        return envReap(state, claim);
      case Call.upcallSet:
        return upcallSet(state, caller, claim);
      case Call.pageAllocate:
        return pageAllocate(state, caller, claim);
      case Call.pageFree:
        return pageFree(state, claim);
      case Call.tableCreate:
        return tableCreate(state, claim);
      case Call.tableDestroy:
        return tableDestroy(state, claim);
      case Call.pageMap:
        return pageMap(state, claim);
      case Call.pageMapList:
        return pageMapList(state, claim);
      case Call.pageCopy:
        return pageCopy(state, claim);
      case Call.pageUnmap:
        return pageUnmap(state, claim);
      case Call.pageProtect:
        return pageProtect(state, claim);
      case Call.sliceAllocate:
        return sliceAllocate(state, claim);
      case Call.sliceFree:
        return sliceFree(state, claim);
      case Call.ipcWindow:
        return ipcWindow(state, caller, claim);
      case Call.ipcCall:
        return ipcCall(state, caller, claim);
      case Call.ipcReplyWait:
        return ipcReplyWait(state, caller, claim);
      case Call.ipcSend:
        return ipcSend(state, caller, claim);
      case Call.extentSplit:
        return extentSplit(state, claim);
      case Call.extentJoin:
        return extentJoin(state, claim);
      case Call.accountCreate:
        return accountCreate(state, claim);
      case Call.accountMove:
        return accountMove(state, claim);
      case Call.accountClose:
        return accountClose(state, claim);
      case Call.revoke:
        return revoke(state, claim);
      case Call.diskRequest:
        return diskRequest(state, caller, claim);
      case Call.consoleWrite:
        return consoleWrite(state, claim);
      case Call.consoleRead:
        return consoleRead(state, caller);
      case Call.batch:
        return this.#batch(state, caller, claim);
      default:
        return refuse(Status.badCall, 0); // nothing is taken by force: who maps a page is not known
    }
  }

  /** batch(address, count): performs several calls from one list; saves nothing but the way in. */
  #batch(state: State, caller: number, claim: Claims): Answer {
    const { machine } = state;
    let address = claim(0);
    const count = claim(1);
    if (!(count >= 1 && count <= BATCH_MAX)) return refuse(Status.tooMany, 1);
    for (let done = 0; done < count; done++) {
      const number = machine.loadUser(address);
      const arity = number === null ? -1 : (ARITY[number] ?? -1);
      if (number === null || arity < 0) return { status: Status.badCall, value: done };
      const words: number[] = [];
      for (let n = 1; n <= arity; n++) words.push(machine.loadUser(address + n * 4) ?? 0);
      const answer = this.#perform(state, number, caller, (n) => words[n] ?? 0);
      if (answer === null) return { status: Status.badCall, value: done };
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
    machine.console(0, new TextEncoder().encode(`environment ${state.id(env)}: ${why}\n`));
    kill(state, env, -1);
  }
}

/** Stack and exposed tables, where Start says. */
function startMappings(state: State, leaf: number, stack: number): PteUpdate[] {
  const read = MAP_READ | PTE_U | PTE_V;
  const updates: PteUpdate[] = [
    { table: leaf, index: Start.stackPage, value: pte(stack, read | MAP_WRITE) },
  ];
  const show = (table: Table, limit: number, at: number): void => {
    for (let n = 0; n < Math.min(limit, table.pages); n++) {
      updates.push({ table: leaf, index: at + n, value: pte(table.firstPage + n, read) });
    }
  };
  show(state.info, 1, Start.infoPage);
  show(state.env, ENV_PAGES, Start.envPages);
  show(state.pageWord, PAGE_PAGES, Start.pagePages);
  return updates;
}
