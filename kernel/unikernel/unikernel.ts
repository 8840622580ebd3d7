/**
 * The unikernel: answers the kernel interface for one tenant by procedure call, in the tenant's own
 * privilege, with nothing protected. It drives the Machine directly: a mapping is a store into a
 * page table, and no name is checked. On the bare machine it is the limit, what the work costs when
 * nobody is kept from anything; in a virtual machine it is what people mean by a libOS on a
 * hypervisor.
 *
 * It trusts its tenant with everything that its machine has. Arguments are checked only so far that
 * a wild one is refused and not obeyed: a page number that does not exist, a row beyond a table.
 */
import { assert } from '../../machine/assert.ts';
import { ENTRIES, pte, PTE_A, PTE_D, PTE_U, PTE_V, ptePpn } from '../../machine/sv39.ts';
import { NEVER } from '../../machine/units.ts';
import {
  ARITY,
  BATCH_MAX,
  Call,
  CONSOLE_MAX,
  DISK_BLOCKS_MAX,
  DISK_FLUSH,
  DISK_FORCE,
  DISK_WRITE,
  Env,
  ENV_INDEX_BITS,
  ENV_PAGES,
  envId,
  envIndex,
  EnvState,
  FAULT_FRAME_WORDS,
  FAULT_FRAMES,
  Info,
  MAP_READ,
  MAP_SOFT,
  MAP_WRITE,
  PAGE_OWNER_SHIFT,
  PAGE_PAGES,
  PageKind,
  READ,
  Start,
  Status,
  Upcall,
  WRITE,
} from '../abi.ts';
import {
  Cause,
  type Context,
  Layout,
  loadTick,
  type Machine,
  REGISTERS_ALL,
  REGISTERS_YIELD,
  storeTick,
  type Supervisor,
  type Table,
  type Tenant,
  type Trap,
  writeDirectMap,
} from '../supervisor.ts';

export interface UnikernelConfig {
  readonly environments: number;
  /** cycles after which the scheduler of the libOS is asked again */
  readonly sliceCycles: number;
}

/** Words of a private environment record. */
const Own = {
  registers: 0, // 32
  saved: 32,
  upcallEntry: 33, // per kind, entry + 1
  upcallFrame: 36,
  windowTable: 39,
  windowIndex: 40,
  queueHead: 41,
  queueTail: 42,
  queueNext: 43,
  message: 44, // 4
  words: 48,
} as const;
const Cpu = { current: 0, owner: 1, end: 2, installed: 4, next: 5, words: 8 } as const;
const Tag = { env: 0, words: 1 } as const;
const TAGS = 64;
const POSITIONS = 16;
const CALL_CHAIN = 8;
const DECODE = 6; // instructions, as in the exokernel

interface Tables {
  readonly info: Table;
  readonly env: Table;
  readonly pageWord: Table;
  readonly base: Table; // per table page: first virtual page that it translates
  readonly own: Table;
  readonly cpu: Table;
  readonly tag: Table;
  readonly root: number;
  readonly end: number;
}

type Answer = readonly [status: number, value: number] | null;
const OK: Answer = [Status.ok, 0];

export class Unikernel implements Supervisor {
  readonly #config: UnikernelConfig;
  readonly #tenant: Tenant;
  readonly #channel: number;
  #machine: Machine | null = null;
  #tables: Tables | null = null;

  /** @param channel of the console that its output goes to */
  constructor(config: UnikernelConfig, tenant: Tenant, channel: number) {
    this.#config = config;
    this.#tenant = tenant;
    this.#channel = channel;
  }

  get #m(): Machine {
    assert(this.#machine !== null, 'unikernel: booted');
    return this.#machine;
  }
  get #t(): Tables {
    assert(this.#tables !== null, 'unikernel: booted');
    return this.#tables;
  }

  boot(machine: Machine): void {
    const layout = new Layout(machine, 0);
    const t: Tables = {
      info: layout.table(1, 1024),
      env: layout.table(this.#config.environments, Env.words),
      pageWord: layout.table(machine.pages, 1),
      base: layout.table(machine.pages, 1),
      own: layout.table(this.#config.environments, Own.words),
      cpu: layout.table(1, Cpu.words),
      tag: layout.table(TAGS, Tag.words),
      root: layout.pages(1),
      end: layout.end,
    };
    this.#machine = machine;
    this.#tables = t;
    writeDirectMap(machine, t.root);
    machine.setAddressSpace({ root: t.root, asid: 0 });
    machine.fence();
    machine.setTimer(NEVER);
    t.info.put(0, Info.pages, machine.pages);
    t.info.put(0, Info.environments, this.#config.environments);
    t.info.put(0, Info.slices, POSITIONS);
    t.info.put(0, Info.sliceCycles, this.#config.sliceCycles);
    t.info.put(0, Info.page, t.info.firstPage);
    t.info.put(0, Info.envPage, t.env.firstPage);
    t.info.put(0, Info.envPages, t.env.pages);
    t.info.put(0, Info.pagePage, t.pageWord.firstPage);
    for (let page = 0; page < t.end; page++) t.pageWord.put(page, 0, PageKind.kernel);
    let page = t.end;
    const take = (kind: number): number => {
      this.#setKind(page, kind, 1);
      machine.zeroPage(page);
      return page++;
    };
    const root = take(PageKind.root);
    const middle = take(PageKind.middle);
    const leaf = take(PageKind.leaf);
    const stack = take(PageKind.user);
    writeDirectMap(machine, root);
    const read = MAP_READ | PTE_U | PTE_V;
    const updates = [
      { table: root, index: 0, value: pte(middle, PTE_V) },
      { table: middle, index: 0, value: pte(leaf, PTE_V) },
      { table: leaf, index: Start.stackPage, value: pte(stack, read | MAP_WRITE) },
    ];
    const show = (table: Table, limit: number, at: number): void => {
      for (let n = 0; n < Math.min(limit, table.pages); n++) {
        updates.push({ table: leaf, index: at + n, value: pte(table.firstPage + n, read) });
      }
    };
    show(t.info, 1, Start.infoPage);
    show(t.env, ENV_PAGES, Start.envPages);
    show(t.pageWord, PAGE_PAGES, Start.pagePages);
    machine.writePtes(updates);
    const { image, quota, blocks } = this.#tenant;
    const self = this.#makeEnv(1, root, 1, 1, 1);
    t.info.put(0, Info.sliceVector, self);
    this.#start(1, image, 0, [self, root, middle, leaf, quota, 0, blocks]);
  }

  // ---- supervisor -------------------------------------------------------------------------------

  dispatch(): Context | null {
    const { cpu, env } = this.#t;
    const m = this.#m;
    let next = cpu.get(0, Cpu.current);
    if (next === 0 || env.get(next, Env.state) !== EnvState.ready) {
      const owner = cpu.get(0, Cpu.owner);
      next = owner === 0 ? 0 : this.#runner(owner);
      if (next === 0) next = this.#nextSlice();
      cpu.put(0, Cpu.current, next);
      if (next === 0) {
        m.setTimer(NEVER);
        return null;
      }
    }
    this.#enter(next);
    return m.contexts.context(next);
  }

  trap({ cause, tval }: Trap): void {
    const { cpu, own } = this.#t;
    const m = this.#m;
    const current = cpu.get(0, Cpu.current);
    if (current > 0 && cause !== Cause.environmentCall) {
      m.contexts.save(current, own.address(current, Own.registers), REGISTERS_ALL);
      own.put(current, Own.saved, REGISTERS_ALL);
    }
    switch (cause) {
      case Cause.environmentCall: {
        const answer = this.#call(current, (n) => m.contexts.argument(current, n + 1));
        if (answer !== null) m.contexts.setResult(current, answer[0], answer[1]);
        return;
      }
      case Cause.timerInterrupt:
        this.#tick();
        return;
      case Cause.externalInterrupt:
        this.#completions();
        return;
      case Cause.threadEnd:
        this.#kill(current, 0);
        return;
      default: {
        if (cause !== Cause.userException && this.#pushFault(current, cause, tval)) return;
        const why =
          cause === Cause.userException
            ? m.contexts.failure(current)
            : `cause ${cause} at 0x${tval.toString(16)}, and no handler for it`;
        m.console(0, new TextEncoder().encode(`environment ${this.#id(current)}: ${why}\n`));
        this.#kill(current, -1);
      }
    }
  }

  /** One call. Null: the answer comes later, or was given. */
  #call(caller: number, claim: (n: number) => number): Answer {
    return this.#perform(this.#m.contexts.argument(caller, 0), caller, claim);
  }

  #perform(number: number, caller: number, claim: (n: number) => number): Answer {
    const m = this.#m;
    const t = this.#t;
    m.work(DECODE);
    const page = (n: number): boolean => Number.isInteger(n) && n >= t.end && n < m.pages;
    switch (number) {
      case Call.null:
      case Call.capForge:
      case Call.capDrop:
      case Call.accessAdd:
      case Call.accessRemove:
        return OK; // nobody is kept from anything
      case Call.yield:
        return this.#yield(caller, claim(0));
      case Call.sleep:
        return this.#sleep(caller, claim(0));
      case Call.notify: {
        const env = this.#row(claim(0));
        if (env < 0) return [Status.badEnvironment, 0];
        this.#post(env);
        return OK;
      }
      case Call.envCreate:
        return this.#envCreate(caller, claim);
      case Call.envStart: {
        const env = this.#row(claim(0));
        if (env < 0 || t.env.get(env, Env.state) !== EnvState.made) {
          return [Status.badEnvironment, 0];
        }
        if (!m.contexts.hasEntry(claim(1), claim(2))) return [Status.badArgument, 1];
        this.#start(env, claim(1), claim(2), [claim(0), claim(3), claim(4)]);
        return OK;
      }
      case Call.envDestroy: {
        const env = this.#row(claim(0));
        if (env < 0 || t.env.get(env, Env.state) === EnvState.zombie) {
          return [Status.badEnvironment, 0];
        }
        this.#kill(env, claim(2) | 0);
        return env === caller ? null : OK;
      }
      case Call.envReap:
        return this.#envReap(claim(0));
      case Call.upcallSet: {
        const kind = claim(0);
        if (!(kind === Upcall.fault || kind === Upcall.sliceBegin || kind === Upcall.sliceEnd)) {
          return [Status.badArgument, 0];
        }
        const entry = claim(1);
        if (entry !== -1 && !m.contexts.hasEntry(t.env.get(caller, Env.image), entry)) {
          return [Status.badArgument, 1];
        }
        t.own.put(caller, Own.upcallEntry + kind, entry + 1);
        t.own.put(caller, Own.upcallFrame + kind, claim(2) | 0);
        return OK;
      }
      case Call.pageAllocate:
        if (!page(claim(0))) return [Status.badArgument, 0];
        if (this.#kind(claim(0)) !== PageKind.free) return [Status.notFree, 0];
        m.zeroPage(claim(0));
        this.#setKind(claim(0), PageKind.user, caller);
        return OK;
      case Call.pageFree:
        if (!page(claim(0))) return [Status.badArgument, 0];
        this.#setKind(claim(0), PageKind.free, 0);
        return OK;
      case Call.tableCreate:
        if (!page(claim(0)) || !page(claim(2))) return [Status.badArgument, 0];
        return this.#tableCreate(claim(0), claim(1), claim(2));
      case Call.tableDestroy:
        return this.#tableDestroy(claim(0));
      case Call.pageMap:
        return this.#pageMap(claim(0), claim(1), claim(2), claim(5));
      case Call.pageUnmap:
        return this.#pageUnmap(claim(0), claim(1), claim(2));
      case Call.pageProtect:
        return this.#pageProtect(claim(0), claim(1), claim(2));
      case Call.sliceAllocate:
      case Call.sliceFree: {
        const position = claim(0);
        if (!Number.isInteger(position) || position < 0 || position >= POSITIONS) {
          return [Status.badArgument, 0];
        }
        const free = number === Call.sliceFree;
        t.info.put(0, Info.sliceVector + position, free ? 0 : claim(1));
        return OK;
      }
      case Call.ipcWindow:
        if (!page(claim(0))) return [Status.badArgument, 0];
        t.own.put(caller, Own.windowTable, claim(0) + 1);
        t.own.put(caller, Own.windowIndex, claim(1));
        return OK;
      case Call.ipcCall:
        return this.#ipcCall(caller, claim);
      case Call.ipcReplyWait:
        return this.#ipcReplyWait(caller, claim);
      case Call.diskRequest:
        return this.#diskRequest(caller, claim);
      case Call.batch:
        return this.#batch(caller, claim(0), claim(1));
      case Call.consoleWrite: {
        if (!(claim(1) >= 0 && claim(1) <= CONSOLE_MAX)) return [Status.tooMany, 1];
        const bytes = m.readUser(claim(0), claim(1));
        if (bytes === null) return [Status.badAddress, 0];
        m.console(this.#channel, bytes);
        return [Status.ok, bytes.length];
      }
      default:
        return [Status.badCall, 0]; // extentSplit among them: there is one extent, the disk
    }
  }

  /** Several calls from one list: here they save nothing but the way in. */
  #batch(caller: number, list: number, count: number): Answer {
    let address = list;
    if (!(count >= 1 && count <= BATCH_MAX)) return [Status.tooMany, 1];
    for (let done = 0; done < count; done++) {
      const number = this.#m.loadUser(address);
      const arity = number === null ? -1 : (ARITY[number] ?? -1);
      if (number === null || arity < 0) return [Status.badCall, done];
      const words: number[] = [];
      for (let n = 1; n <= arity; n++) words.push(this.#m.loadUser(address + n * 4) ?? 0);
      const answer = this.#perform(number, caller, (n) => words[n] ?? 0);
      if (answer === null || answer[0] !== Status.ok) return [answer?.[0] ?? Status.badCall, done];
      address += (arity + 1) * 4;
    }
    return [Status.ok, count];
  }

  // ---- environments -----------------------------------------------------------------------------

  #id(index: number): number {
    return envId(index, this.#t.env.get(index, Env.generation));
  }

  #row(id: number): number {
    const { env } = this.#t;
    if (!Number.isInteger(id) || id < 0 || id >= 2 ** 31) return -1;
    const index = envIndex(id);
    if (index === 0 || index >= env.rows) return -1;
    if (env.get(index, Env.generation) !== id >>> ENV_INDEX_BITS) return -1;
    return env.get(index, Env.state) === EnvState.free ? -1 : index;
  }

  #envCreate(caller: number, claim: (n: number) => number): Answer {
    const [index, root, patronId] = [claim(0), claim(1), claim(5)];
    const { env, end } = this.#t;
    if (!Number.isInteger(index) || index < 1 || index >= env.rows) return [Status.badArgument, 0];
    if (env.get(index, Env.state) !== EnvState.free) return [Status.notFree, 0];
    if (!Number.isInteger(root) || root < end || root >= this.#m.pages) {
      return [Status.badArgument, 1];
    }
    const patron = patronId === -1 ? caller : this.#row(patronId);
    if (patron < 0) return [Status.badEnvironment, 5];
    this.#m.zeroPage(root);
    writeDirectMap(this.#m, root);
    this.#setKind(root, PageKind.root, index);
    this.#t.base.put(root, 0, 0);
    return [Status.ok, this.#makeEnv(index, root, caller, patron, 1)];
  }

  #makeEnv(index: number, root: number, parent: number, patron: number, account: number): number {
    const { env, own } = this.#t;
    const generation = (env.get(index, Env.generation) + 1) & 0x1ffff;
    for (let word = 0; word < Env.words; word++) env.put(index, word, 0);
    env.put(index, Env.generation, generation);
    env.put(index, Env.parent, parent);
    env.put(index, Env.patron, patron === index ? envId(index, generation) : this.#id(patron));
    env.put(index, Env.root, root);
    env.put(index, Env.account, account);
    env.put(index, Env.state, EnvState.made);
    for (let word = Own.saved; word < Own.words; word++) own.put(index, word, 0);
    this.#m.fence(index);
    return this.#id(index);
  }

  #start(env: number, image: number, entry: number, args: readonly number[]): void {
    const { contexts } = this.#m;
    contexts.create(env, image, 'supervisor');
    contexts.start(env, entry, args);
    this.#t.env.put(env, Env.image, image);
    this.#wake(env);
  }

  #kill(index: number, exitStatus: number): void {
    const { env, cpu } = this.#t;
    if (this.#m.contexts.exists(index)) this.#m.contexts.destroy(index);
    env.put(index, Env.state, EnvState.zombie);
    env.put(index, Env.exitStatus, exitStatus);
    if (cpu.get(0, Cpu.current) === index) cpu.put(0, Cpu.current, 0);
    this.#tell(env.get(index, Env.patron), index);
  }

  #envReap(id: number): Answer {
    const env = this.#row(id);
    const t = this.#t;
    if (env < 0) return [Status.badEnvironment, 0];
    if (t.env.get(env, Env.state) !== EnvState.zombie) return [Status.notReady, 0];
    if (t.cpu.get(0, Cpu.installed) === env) {
      this.#m.setAddressSpace({ root: t.root, asid: 0 });
      t.cpu.put(0, Cpu.installed, 0);
    }
    this.#setKind(t.env.get(env, Env.root), PageKind.user, env);
    this.#m.fence(env);
    t.env.put(env, Env.state, EnvState.free);
    return OK;
  }

  // ---- pages ------------------------------------------------------------------------------------

  #kind(page: number): number {
    return this.#t.pageWord.get(page, 0) & 0xff;
  }

  #setKind(page: number, kind: number, owner: number): void {
    this.#t.pageWord.put(page, 0, kind | (owner << PAGE_OWNER_SHIFT));
  }

  #owner(page: number): number {
    return this.#t.pageWord.get(page, 0) >>> PAGE_OWNER_SHIFT;
  }

  /** Whether `table` is a table and `index` in it: else a store would go anywhere. */
  #place(table: number, index: number, kind: number): boolean {
    if (!Number.isInteger(table) || table < this.#t.end || table >= this.#m.pages) return false;
    if (!Number.isInteger(index) || index < 0 || index >= ENTRIES) return false;
    return this.#kind(table) === kind;
  }

  /** First virtual page that a table translates. */
  #base(table: number): number {
    return this.#t.base.get(table, 0);
  }

  #tableCreate(parent: number, index: number, page: number): Answer {
    const top = this.#kind(parent) === PageKind.root;
    if (!this.#place(parent, index, top ? PageKind.root : PageKind.middle)) {
      return [Status.wrongKind, 0];
    }
    this.#m.zeroPage(page);
    this.#setKind(page, top ? PageKind.middle : PageKind.leaf, this.#owner(parent));
    this.#t.base.put(page, 0, this.#base(parent) + index * (top ? ENTRIES * ENTRIES : ENTRIES));
    this.#m.writePtes([{ table: parent, index, value: pte(page, PTE_V) }]);
    return OK;
  }

  /** The parent forgets it by its own entry: whoever asks has emptied it, or does not care. */
  #tableDestroy(table: number): Answer {
    const exists = Number.isInteger(table) && table >= this.#t.end && table < this.#m.pages;
    const kind = exists ? this.#kind(table) : 0;
    if (kind !== PageKind.leaf && kind !== PageKind.middle) return [Status.wrongKind, 0];
    const env = this.#owner(table);
    this.#unhang(this.#t.env.get(env, Env.root), table, kind === PageKind.leaf);
    this.#setKind(table, PageKind.user, env);
    this.#m.fence(env);
    return OK;
  }

  /** Finds the entry that names `table`: a scan of the tables above it, charged as it goes. */
  #unhang(root: number, table: number, leaf: boolean): void {
    const m = this.#m;
    const middles = leaf ? this.#children(root) : [root];
    for (const above of middles) {
      for (let index = 0; index < ENTRIES / (above === root ? 2 : 1); index++) {
        const entry = m.readPtes(above, index, 1)[0] ?? 0;
        if ((entry & PTE_V) !== 0 && ptePpn(entry) === table) {
          m.writePtes([{ table: above, index, value: 0 }]);
          return;
        }
      }
    }
  }

  #children(root: number): number[] {
    const found = [];
    for (let index = 0; index < 4; index++) {
      const entry = this.#m.readPtes(root, index, 1)[0] ?? 0;
      if ((entry & PTE_V) !== 0) found.push(ptePpn(entry));
    }
    return found;
  }

  #pageMap(table: number, index: number, page: number, flags: number): Answer {
    if (!this.#place(table, index, PageKind.leaf)) return [Status.wrongKind, 0];
    if (!Number.isInteger(page) || page < 0 || page >= this.#m.pages)
      return [Status.badArgument, 2];
    const kept = flags & (MAP_READ | MAP_WRITE | MAP_SOFT);
    this.#m.writePtes([{ table, index, value: pte(page, kept | PTE_U | PTE_V) }]);
    return OK;
  }

  #pageUnmap(table: number, index: number, count: number): Answer {
    if (!this.#place(table, index, PageKind.leaf)) return [Status.wrongKind, 0];
    if (!Number.isInteger(count) || count < 1 || index + count > ENTRIES) {
      return [Status.badArgument, 2];
    }
    const updates = [];
    const entries = this.#m.readPtes(table, index, count);
    for (let n = 0; n < count; n++) {
      if (((entries[n] ?? 0) & PTE_V) !== 0) updates.push({ table, index: index + n, value: 0 });
    }
    this.#m.writePtes(updates);
    const owner = this.#owner(table);
    // Past a few entries one fence of the space is cheaper than one for each page.
    if (updates.length > 4) this.#m.fence(owner);
    else for (const { index: at } of updates) this.#m.fence(owner, this.#base(table) + at);
    return [Status.ok, updates.length];
  }

  #pageProtect(table: number, index: number, flags: number): Answer {
    if (!this.#place(table, index, PageKind.leaf)) return [Status.wrongKind, 0];
    const old = this.#m.readPtes(table, index, 1)[0] ?? 0;
    if ((old & PTE_V) === 0) return [Status.absent, 1];
    const kept = (flags & (MAP_READ | MAP_WRITE | MAP_SOFT)) | (old & (PTE_A | PTE_D));
    this.#m.writePtes([{ table, index, value: pte(ptePpn(old), kept | PTE_U | PTE_V) }]);
    this.#m.fence(this.#owner(table), this.#base(table) + index);
    return OK;
  }

  // ---- the CPU ----------------------------------------------------------------------------------

  #yield(caller: number, id: number): Answer {
    const { cpu } = this.#t;
    const target = id === -1 ? 0 : this.#row(id);
    if (target < 0) return [Status.badEnvironment, 0];
    const runner = target === 0 ? 0 : this.#runner(target);
    if (target > 0 && runner === 0) return [Status.notReady, 0];
    this.#m.contexts.setResult(caller, Status.ok, 0);
    if (target === 0 && cpu.get(0, Cpu.owner) === caller) cpu.put(0, Cpu.owner, 0);
    cpu.put(0, Cpu.current, runner);
    return null;
  }

  #sleep(caller: number, seen: number): Answer {
    const { env, cpu } = this.#t;
    const events = env.get(caller, Env.events);
    if (events !== (seen | 0)) return [Status.ok, events];
    env.put(caller, Env.state, EnvState.sleeping);
    this.#m.contexts.setResult(caller, Status.ok, events);
    if (cpu.get(0, Cpu.owner) === caller) cpu.put(0, Cpu.owner, 0);
    cpu.put(0, Cpu.current, 0);
    return null;
  }

  #post(index: number): void {
    const { env } = this.#t;
    env.add(index, Env.events, 1);
    if (env.get(index, Env.state) === EnvState.sleeping) this.#wake(index);
  }

  #wake(index: number): void {
    const { env } = this.#t;
    env.put(index, Env.state, EnvState.ready);
    this.#tell(env.get(index, Env.patron), index);
  }

  #tell(patronId: number, about: number): void {
    const { env } = this.#t;
    const patron = this.#row(patronId);
    if (patron < 0 || patron === about) return;
    env.add(patron, Env.events, 1);
    if (env.get(patron, Env.state) === EnvState.sleeping)
      env.put(patron, Env.state, EnvState.ready);
  }

  #runner(index: number): number {
    const { env } = this.#t;
    let at = index;
    for (let hop = 0; hop < CALL_CHAIN; hop++) {
      const is = env.get(at, Env.state);
      if (is === EnvState.ready) return at;
      if (is !== EnvState.calling) return 0;
      const callee = this.#row(env.get(at, Env.partner));
      if (callee < 0 || env.get(callee, Env.state) === EnvState.zombie) {
        this.#m.contexts.setResult(at, Status.badEnvironment, 0);
        env.put(at, Env.state, EnvState.ready);
        return at;
      }
      at = callee;
    }
    return 0;
  }

  #nextSlice(): number {
    const { info, cpu } = this.#t;
    const m = this.#m;
    let position = info.get(0, Info.slicePosition);
    for (let n = 0; n < POSITIONS; n++) {
      position = (position + 1) % POSITIONS;
      const owner = this.#row(info.get(0, Info.sliceVector + position));
      const runner = owner < 0 ? 0 : this.#runner(owner);
      if (runner === 0) continue;
      info.put(0, Info.slicePosition, position);
      cpu.put(0, Cpu.owner, owner);
      const end = m.now() + this.#config.sliceCycles;
      storeTick(cpu, 0, Cpu.end, end);
      m.setTimer(end);
      this.#enter(runner);
      this.#pushSlice(runner, Upcall.sliceBegin);
      return runner;
    }
    return 0;
  }

  /** The slice's end is announced; there is nobody to be unfair to. */
  #tick(): void {
    const { cpu } = this.#t;
    if (this.#m.now() < loadTick(cpu, 0, Cpu.end)) return;
    const current = cpu.get(0, Cpu.current);
    if (current === 0) return;
    if (this.#pushSlice(current, Upcall.sliceEnd)) {
      const end = this.#m.now() + this.#config.sliceCycles;
      storeTick(cpu, 0, Cpu.end, end);
      this.#m.setTimer(end);
      return;
    }
    cpu.put(0, Cpu.current, 0);
    cpu.put(0, Cpu.owner, 0);
  }

  #enter(index: number): void {
    const { cpu, env, own } = this.#t;
    const { contexts } = this.#m;
    const installed = cpu.get(0, Cpu.installed);
    if (installed !== index) {
      if (installed !== 0 && contexts.exists(installed) && own.get(installed, Own.saved) === 0) {
        contexts.save(installed, own.address(installed, Own.registers), REGISTERS_YIELD);
        own.put(installed, Own.saved, REGISTERS_YIELD);
      }
      this.#m.setAddressSpace({ root: env.get(index, Env.root), asid: index });
      this.#m.attribute(this.#channel & 63);
      cpu.put(0, Cpu.installed, index);
    }
    const saved = own.get(index, Own.saved);
    if (saved > 0) {
      contexts.restore(index, own.address(index, Own.registers), saved);
      own.put(index, Own.saved, 0);
    }
  }

  // ---- upcalls ----------------------------------------------------------------------------------

  #pushFault(index: number, cause: number, address: number): boolean {
    const { own } = this.#t;
    const m = this.#m;
    const entry = own.get(index, Own.upcallEntry + Upcall.fault);
    if (entry === 0 || !m.contexts.hasRoom(index)) return false;
    const frames = own.get(index, Own.upcallFrame + Upcall.fault) >>> 0;
    const standing = m.loadUser(frames);
    if (standing === null || standing < 0 || standing >= FAULT_FRAMES) return false;
    const at = frames + (1 + standing * FAULT_FRAME_WORDS) * 4;
    if (!m.storeUser(at, cause) || !m.storeUser(at + 4, address | 0)) return false;
    if (!m.storeUser(frames, standing + 1)) return false;
    m.contexts.upcall(index, entry - 1, [cause, address]);
    return true;
  }

  #pushSlice(index: number, kind: number): boolean {
    const { own } = this.#t;
    const m = this.#m;
    const entry = own.get(index, Own.upcallEntry + kind);
    if (entry === 0) return false;
    const mask = own.get(index, Own.upcallFrame + kind) >>> 0;
    if (m.loadUser(mask) !== 0 || !m.contexts.hasRoom(index) || !m.storeUser(mask, 1)) return false;
    m.contexts.upcall(index, entry - 1, []);
    return true;
  }

  // ---- messages ---------------------------------------------------------------------------------

  #ipcCall(caller: number, claim: (n: number) => number): Answer {
    const { env, cpu } = this.#t;
    const target = this.#row(claim(0));
    if (target < 0 || target === caller) return [Status.badEnvironment, 0];
    const is = env.get(target, Env.state);
    if (is === EnvState.zombie || is === EnvState.made) return [Status.notReady, 0];
    const waits = is === EnvState.receiving;
    if (!waits && claim(5) !== -1) return [Status.notReady, 0];
    const index = this.#grant(target, claim(5), claim(7));
    if (index < 0) return [Status.notReady, 0];
    env.put(caller, Env.state, EnvState.calling);
    env.put(caller, Env.partner, this.#id(target));
    const words = [1, 2, 3, 4].map((n) => claim(n) | 0);
    if (waits) {
      this.#deliver(caller, target, words, index);
      env.put(target, Env.state, EnvState.ready);
    } else this.#enqueue(caller, target, words);
    cpu.put(0, Cpu.current, this.#runner(target));
    return null;
  }

  #ipcReplyWait(caller: number, claim: (n: number) => number): Answer {
    const { env, cpu, own } = this.#t;
    const client = claim(0) === -1 ? 0 : this.#row(claim(0));
    if (client < 0) return [Status.badEnvironment, 0];
    if (client > 0) {
      const waits = env.get(client, Env.state) === EnvState.calling;
      if (!waits || this.#row(env.get(client, Env.partner)) !== caller) return [Status.notReady, 0];
      const index = this.#grant(client, claim(5), claim(7));
      if (index < 0) return [Status.notReady, 0];
      this.#deliver(
        caller,
        client,
        [1, 2, 3, 4].map((n) => claim(n) | 0),
        index,
      );
      this.#wake(client);
    }
    const next = this.#dequeue(caller);
    if (next > 0) {
      const words = [0, 1, 2, 3].map((n) => own.get(next, Own.message + n));
      this.#deliver(next, caller, words, 0);
      return null;
    }
    env.put(caller, Env.state, EnvState.receiving);
    cpu.put(0, Cpu.current, client);
    return null;
  }

  #deliver(from: number, to: number, words: readonly number[], granted: number): void {
    this.#m.contexts.setResult(to, Status.ok, this.#id(from), ...words, granted);
  }

  #enqueue(caller: number, target: number, words: readonly number[]): void {
    const { own } = this.#t;
    words.forEach((word, n) => {
      own.put(caller, Own.message + n, word);
    });
    const tail = own.get(target, Own.queueTail);
    if (tail === 0) own.put(target, Own.queueHead, caller);
    else own.put(tail, Own.queueNext, caller);
    own.put(target, Own.queueTail, caller);
  }

  #dequeue(server: number): number {
    const { own, env } = this.#t;
    for (;;) {
      const head = own.get(server, Own.queueHead);
      if (head === 0) return 0;
      const next = own.get(head, Own.queueNext);
      own.put(server, Own.queueHead, next);
      if (next === 0) own.put(server, Own.queueTail, 0);
      own.put(head, Own.queueNext, 0);
      if (env.get(head, Env.state) === EnvState.calling) return head;
    }
  }

  /** Maps a page into the receiver's window; index + 1, 0 without a page, -1 if it cannot be. */
  #grant(to: number, page: number, given: number): number {
    const { own } = this.#t;
    if (page === -1) return 0;
    const table = own.get(to, Own.windowTable) - 1;
    const index = own.get(to, Own.windowIndex);
    if (table < 0 || index >= ENTRIES) return -1;
    const flags = MAP_READ | ((given & WRITE) !== 0 ? MAP_WRITE : 0);
    const mapped = this.#pageMap(table, index, page, flags);
    if (mapped === null || mapped[0] !== Status.ok || (given & READ) === 0) return -1;
    own.put(to, Own.windowIndex, index + 1);
    return index + 1;
  }

  // ---- the disk ---------------------------------------------------------------------------------

  #diskRequest(caller: number, claim: (n: number) => number): Answer {
    const { env, tag: tags, info } = this.#t;
    const m = this.#m;
    const [block, count, list, flags] = [claim(2), claim(3), claim(4), claim(6)];
    const flush = (flags & DISK_FLUSH) !== 0;
    if (!(count >= 0 && count <= DISK_BLOCKS_MAX)) return [Status.tooMany, 3];
    if (!(block >= 0 && block + count <= m.disk.blocks)) return [Status.badArgument, 2];
    const pages = [];
    for (let n = 0; n < count; n++) {
      const word = m.loadUser(list + n * 4);
      if (word === null) return [Status.badAddress, 4];
      const page = word & 0x0fffffff;
      if (page >= m.pages) return [Status.badArgument, 4];
      pages.push(page);
    }
    let tag = 0;
    while (tag < TAGS && tags.get(tag, Tag.env) !== 0) tag++;
    if (tag === TAGS || m.disk.room() === 0) return [Status.full, 0];
    tags.put(tag, Tag.env, this.#id(caller));
    info.add(0, Info.diskQueued, 1);
    info.put(0, Info.diskArm, block);
    const number = env.add(caller, Env.diskSubmitted, 1);
    const force = (flags & DISK_FORCE) !== 0;
    m.disk.submit({ tag, write: (flags & DISK_WRITE) !== 0, block, pages, force, flush });
    return [Status.ok, number];
  }

  #completions(): void {
    const { env, tag: tags, info } = this.#t;
    const { disk } = this.#m;
    for (let done = disk.complete(); done !== null; done = disk.complete()) {
      const index = this.#row(tags.get(done.tag, Tag.env));
      tags.put(done.tag, Tag.env, 0);
      info.add(0, Info.diskQueued, -1);
      if (index < 0) continue;
      env.add(index, Env.diskDone, 1);
      if (!done.ok) env.add(index, Env.diskFailed, 1);
      if (env.get(index, Env.state) !== EnvState.zombie) this.#post(index);
    }
  }
}
