/**
 * The hypervisor: multiplexes its machine by pretending to be several. It boots any supervisor in
 * a VirtualMachine, by nested paging: a unikernel, an exokernel, from the same code.
 *
 * It trusts its machine and no guest. It owes each guest a machine of its own whose memory, disk
 * and interrupts nobody else touches; it hides which pages and blocks they really are, and when the
 * CPU is elsewhere. The guests' supervisors are its only objects; all its state is tables.
 */
import { assert } from '../../machine/assert.ts';
import { PAGE_BYTES } from '../../machine/units.ts';
import {
  Cause,
  type Context,
  type Machine,
  REGISTERS_ALL,
  type Supervisor,
  type Trap,
  writeDirectMap,
} from '../supervisor.ts';
import { completions, connect, doorbell, lookAround } from './disk.ts';
import { startFree } from './free-pages.ts';
import {
  admit,
  cannotLimit,
  dropShell,
  endVm,
  type Guest,
  makeShell,
  makeVm,
  reap,
  type Refusal,
  refuse,
  rowFor,
} from './life.ts';
import { Neighbours } from './neighbours.ts';
import { takeComposed } from './composed.ts';
import { NestedPaging } from './nested.ts';
import { PageTypes } from './page-types.ts';
import { takeParavirt } from './paravirt-pages.ts';
import { isPassed, listen, registersOf, wake } from './passthrough.ts';
import { back, Backing, giveUp } from './pages.ts';
import { admitParavirt, ParavirtPaging } from './paravirt.ts';
import type { Answered, GuestPort, Paging } from './paging.ts';
import {
  ask,
  askNoMore,
  block,
  hopeless,
  lowerLimit,
  reclaim,
  stepDown,
  unblock,
  wakeWaiters,
} from './revocation.ts';
import {
  cannotRestore,
  cannotSave,
  pack,
  readMemory,
  readPage,
  type Saved,
  type SavedPage,
  shareMemory,
  STAYS,
  writePage,
} from './saving.ts';
import { peekPage } from './second-stage.ts';
import { ShadowPaging } from './shadow.ts';
import { type ShadowPages, ShadowTables, takeShadow } from './shadow-tables.ts';
import { scan } from './sharing.ts';
import {
  askAnew,
  choose,
  disarm,
  entering,
  interrupt,
  leaving,
  makeUnready,
  publish,
  setPaused,
  timesOf,
  wait,
} from './slices.ts';
import {
  Cpu,
  type Exit,
  EXITS,
  type HypervisorConfig,
  type Mode,
  State,
  Vm,
  VmState,
} from './state.ts';
import { startSlots } from './swap.ts';
import { type Monitor, type SavedMachine, VirtualMachine } from './virtual-machine.ts';

export type { Guest, Refusal };

/** Shadow pages for a guest of so many pages: its tables, and some that it used before. */
export const shadowPool = (pages: number): number =>
  Math.min(512, Math.max(48, Math.ceil(pages / 16)));

/** Rows for which the host's ASIDs suffice, where its own satp translates for guests. */
const ROWS_WITH_ASIDS = Math.floor((2 ** 16 - 1) / ShadowTables.asids);

export class Hypervisor implements Supervisor, Monitor {
  readonly #config: HypervisorConfig;
  readonly #guests: readonly Guest[]; // of the start
  #state: State | null = null; // views of machine memory, made once at boot
  readonly #machines: (VirtualMachine | undefined)[] = []; // by row: what a machine has of ours
  readonly #of: (Guest | undefined)[] = []; // by row

  constructor(config: HypervisorConfig, guests: readonly Guest[]) {
    assert(guests.length > 0 || (config.rows ?? 0) > 0, 'hypervisor: a guest to run');
    assert(
      config.secondStage === '4KiB' || config.backing === 'populate',
      'hypervisor: large pages are populated, not touched',
    );
    this.#config = config;
    this.#guests = guests;
  }

  /** What paravirtual guests share. */
  get #neighbours(): Neighbours {
    return new Neighbours(this.state, (vm) => {
      const paging = this.#machines[vm]?.paging;
      return paging instanceof ParavirtPaging ? paging.types : null;
    });
  }

  get state(): State {
    assert(this.#state !== null, 'hypervisor: booted');
    return this.#state;
  }

  /** The virtual machines, by row, for tests and tools. */
  get machines(): readonly (VirtualMachine | undefined)[] {
    return this.#machines;
  }

  boot(machine: Machine): void {
    const rows = Math.max(this.#config.rows ?? 0, this.#guests.length);
    const state = new State(machine, this.#config, rows, (vm, page) => {
      this.#machines[vm]?.changed(page);
    });
    this.#state = state;
    // Not for every address space: shadow roots have something else there.
    writeDirectMap(machine, state.root, false);
    machine.setAddressSpace({ root: state.root, asid: 0 });
    machine.fence();
    disarm(state);
    startFree(state);
    startSlots(state);
    for (const guest of this.#guests) {
      const made = this.#make(guest);
      const why = typeof made === 'number' ? '' : made.refused;
      assert(typeof made === 'number', `hypervisor: the first guests can be made: ${why}`);
    }
  }

  #make(guest: Guest): number | Refusal {
    const { state } = this;
    const no = admit(state, guest) ?? admitParavirt(state.config, guest);
    if (no !== null) return no;
    const vm = rowFor(state, guest.pages);
    if (vm < 0) return refuse(`all ${state.vm.rows} rows are taken: destroy a virtual machine`);
    if (
      guest.translation !== undefined &&
      guest.translation !== 'nested' &&
      vm >= ROWS_WITH_ASIDS
    ) {
      return refuse(
        `row ${vm} has no ASIDs: ${ROWS_WITH_ASIDS} machines without nested paging can be`,
      );
    }
    const failed = makeVm(state, vm, guest);
    if (failed !== null) return failed;
    const paging = this.#paging(vm, guest);
    if (paging === null) {
      endVm(state, vm);
      state.vm.put(vm, Vm.state, VmState.free);
      return refuse('there is no memory for the tables of its translation');
    }
    const { pages, blocks, images } = guest;
    const spec = {
      vm,
      pages,
      blocks,
      disk: guest.disk ?? 'emulated',
      queue: registersOf(state, vm),
      posted: isPosted(guest),
      paging,
      images,
      accounts: guest.accounts === true,
      transactional: this.#config.swap !== undefined,
      restarts: guest.restarts === true,
    };
    this.#of[vm] = guest;
    this.#machines[vm] = new VirtualMachine(state.machine, this, spec, guest.supervisor);
    if (spec.queue !== null && !spec.posted) listen(state, vm, true);
    return vm;
  }

  /** How the guest's memory is translated; null if there is no room for what that takes. */
  #paging(vm: number, guest: Guest): ((port: GuestPort) => Paging) | null {
    const { state } = this;
    // ASID 0 is the hypervisor's own; a row's are the same whatever the mode.
    const firstAsid = 1 + vm * ShadowTables.asids;
    if (guest.translation === 'paravirt') {
      const taken = takeParavirt(state, vm);
      if (taken === null) return null;
      const types = new PageTypes(state, vm, taken, firstAsid);
      return (port) => new ParavirtPaging(port, state, types, this.#neighbours);
    }
    if (guest.translation !== 'shadow') {
      const root = state.vm.get(vm, Vm.root);
      const { nestedPages = 0 } = guest;
      if (nestedPages === 0) return (port) => new NestedPaging(port, state, root, null);
      const composed = takeComposed(state, vm, nestedPages);
      return composed && ((port) => new NestedPaging(port, state, root, composed));
    }
    const pool = guest.shadowPages ?? shadowPool(guest.pages);
    const pages: ShadowPages | null = takeShadow(state, vm, pool);
    if (pages === null) return null;
    return (port) => new ShadowPaging(port, state, pages, firstAsid);
  }

  // ---- control, between runs of the machine -----------------------------------------------------

  /** Creates a virtual machine; its row. It boots when its turn comes. */
  create(guest: Guest): number | Refusal {
    return this.#control(() => this.#make(guest));
  }

  /** Prepares `count` shells for machines of `pages` pages. Returns how many it made. */
  prepare(pages: number, count: number): number {
    return this.#control(() => {
      const { state } = this;
      let made = 0;
      for (; made < count; made++) {
        const vm = rowFor(state, -1);
        if (vm < 0 || !makeShell(state, vm, pages)) break;
      }
      return made;
    });
  }

  /** A paused virtual machine does not run; interrupts wait for it. */
  pause(vm: number, paused: boolean): Refusal | null {
    return this.#about(vm, () => {
      setPaused(this.state, vm, paused);
      return null;
    });
  }

  /** Asks a virtual machine to give up `pages` in all; it chooses which, and may decline. */
  balloon(vm: number, pages: number): Refusal | null {
    return this.#about(vm, (is) => {
      const all = this.state.vm.get(vm, Vm.pages) - 1;
      if (is === VmState.shell || is === VmState.stopped) return refuse('it does not run');
      if (!Number.isInteger(pages) || pages < 0 || pages > all) {
        return refuse(`${pages} pages of ${all}: ask for 0 to ${all}`);
      }
      if (isPassed(this.state, vm)) {
        return refuse('its disk is passed through: a device reaches all of its pages');
      }
      ask(this.state, vm, pages);
      return null;
    });
  }

  /** Lets a virtual machine hold so many pages: what it has beyond is swapped, blindly. */
  limit(vm: number, pages: number): Refusal | null {
    return this.#about(vm, (is) => {
      if (is === VmState.shell || is === VmState.stopped) return refuse('it does not run');
      const no = cannotLimit(this.state, vm, pages);
      if (no === null) lowerLimit(this.state, vm, pages);
      return no;
    });
  }

  /** Ends a virtual machine: all that it had is free, or will be when its devices are done. */
  destroy(vm: number): Refusal | null {
    return this.#about(vm, (is) => {
      const { state } = this;
      if (is === VmState.shell) dropShell(state, vm);
      else if (is !== VmState.stopped) this.#end(vm);
      state.vm.put(vm, Vm.state, VmState.dying);
      state.add(Cpu.dying, 1);
      this.#reap(vm);
      return null;
    });
  }

  /** A paused virtual machine as data. */
  save(vm: number): Saved | Refusal {
    return this.#about(vm, () => {
      const { state } = this;
      const no = cannotSave(state, vm) ?? this.#pinned(vm);
      if (no !== null) return no;
      const machine = this.#machines[vm]?.saved() ?? 'no guest came for it';
      if (typeof machine === 'string') return refuse(machine);
      return pack(state, vm, { ...machine, interrupts: machine.interrupts | state.pendingOf(vm) });
    });
  }

  /** Its memory does not hold what the guest wrote, but host page numbers. */
  #pinned(vm: number): Refusal | null {
    if (this.#of[vm]?.translation !== 'paravirt') return null;
    return refuse('the tables of a paravirtual machine name host pages: it stays where it is');
  }

  /** Makes a virtual machine that goes on where `saved` was, paused; its row. */
  restore(guest: Guest, saved: Saved): number | Refusal {
    return this.#control(() => {
      const { state } = this;
      const no = cannotRestore(saved, guest.pages, guest.blocks);
      if (no !== null) return no;
      return this.#becoming(guest, saved.machine, (vm) =>
        saved.memory.every((page) => writePage(state, vm, page)),
      );
    });
  }

  /** Makes a virtual machine that goes on where paused `parent` is, on the same pages; its row. */
  clone(parent: number, guest: Guest): number | Refusal {
    return this.#about(parent, () => {
      const { state } = this;
      const no = cannotSave(state, parent) ?? this.#pinned(parent);
      if (no !== null) return no;
      if (guest.blocks > 0) return refuse('a clone would write to the disk of another: no blocks');
      if (state.config.backing !== 'touch') return refuse('clones take pages backed on touch');
      const pages = state.vm.get(parent, Vm.pages);
      if (guest.pages !== pages) return refuse(`a clone has the ${pages} pages of its parent`);
      const machine = this.#machines[parent]?.saved() ?? 'no guest came for it';
      if (typeof machine === 'string') return refuse(machine);
      const interrupts = machine.interrupts | state.pendingOf(parent);
      return this.#becoming(guest, { ...machine, interrupts }, (vm) =>
        shareMemory(state, parent, vm),
      );
    });
  }

  #becoming(guest: Guest, machine: SavedMachine, fill: (vm: number) => boolean): number | Refusal {
    if (guest.disk === 'passthrough') {
      return refuse('what was saved has its requests in a page: give it an emulated or split disk');
    }
    if (guest.supervisor.attach === undefined) {
      return refuse('its supervisor cannot take over a machine that another booted');
    }
    if (guest.translation === 'paravirt') {
      return refuse('a paravirtual machine begins where it boots: take another translation');
    }
    const vm = this.#make(guest);
    if (typeof vm !== 'number') return vm;
    setPaused(this.state, vm, true);
    if (!fill(vm)) {
      this.#end(vm);
      this.state.vm.put(vm, Vm.state, VmState.free);
      return refuse('there is no memory for its pages');
    }
    connect(this.state, vm);
    this.#machines[vm]?.adopt(machine, guest.supervisor);
    return vm;
  }

  /** From now on pages that `vm` writes are noted. Refused: it cannot be moved. */
  prepareMove(vm: number): Refusal | null {
    return this.#about(vm, () => {
      const no = this.#pinned(vm);
      if (no !== null) return no;
      if (isPassed(this.state, vm)) return refuse(STAYS);
      const machine = this.#machines[vm]?.saved() ?? 'no guest came for it';
      if (typeof machine === 'string') return refuse(machine);
      if (this.state.config.swap !== undefined) return refuse('what is swapped out cannot be sent');
      this.#machines[vm]?.arm();
      return null;
    });
  }

  /** All pages that `vm` ever touched. */
  pagesOf(vm: number): SavedPage[] {
    return this.#control(() => readMemory(this.state, vm));
  }

  /** The pages that `vm` wrote since it was last asked, the device page always. */
  writtenPages(vm: number): SavedPage[] {
    return this.#control(() => {
      const { state } = this;
      const words = this.#machines[vm]?.written() ?? [];
      const device = state.vm.get(vm, Vm.pages) - 1;
      const pages = [];
      for (let page = 0; page <= device; page++) {
        const written = ((words[page >>> 5] ?? 0) & (1 << (page & 31))) !== 0 || page === device;
        const saved = written ? readPage(state, vm, page) : null;
        if (saved !== null) pages.push(saved);
      }
      return pages;
    });
  }

  /** Whether no disk request of `vm` is under way. */
  isQuiet(vm: number): boolean {
    return this.#control(() => this.state.vm.get(vm, Vm.outstanding) === 0);
  }

  /** Something to do with one that is there. */
  #about<T>(vm: number, act: (is: number) => T): T | Refusal {
    return this.#control(() => {
      const { vm: row } = this.state;
      const there = Number.isInteger(vm) && vm >= 0 && vm < row.rows;
      const is = there ? row.get(vm, Vm.state) : VmState.free;
      if (is !== VmState.free && is !== VmState.dying) return act(is);
      return refuse(`there is no virtual machine ${vm}`);
    });
  }

  /** From now on, or no longer, the pages that a guest writes are noted. */
  logWrites(vm: number, on: boolean): void {
    this.#control(() => {
      const paging = this.#machines[vm]?.paging;
      if (on) paging?.arm();
      else paging?.disarm();
    });
  }

  /** Guest pages written since they were last asked for, a bit each in words of 32. */
  written(vm: number): number[] {
    return this.#control(() => {
      const words = this.#machines[vm]?.paging.collect() ?? [];
      // The device page, which the hypervisor writes as it likes.
      const page = this.state.vm.get(vm, Vm.pages) - 1;
      words[page >>> 5] = (words[page >>> 5] ?? 0) | (1 << (page & 31));
      return words;
    });
  }

  /**
   * Work of the hypervisor that no trap asked for, in its own regime: whoever ran last left his in
   * the hart. Afterwards it chooses anew who runs.
   */
  #control<T>(act: () => T): T {
    const { state } = this;
    const { machine } = state;
    const { hart } = machine;
    hart.install(machine.regime());
    hart.enterLayer(Math.min(machine.level, 2));
    this.#home();
    const current = state.get(Cpu.current) - 1;
    if (current >= 0) leaving(state, machine.now());
    const result = act();
    if (state.get(Cpu.current) === current + 1 && current >= 0) {
      entering(state, current);
    }
    askAnew(state);
    return result;
  }

  // ---- Supervisor -------------------------------------------------------------------------------

  dispatch(): Context | null {
    const { state } = this;
    const { machine } = state;
    reclaim(state);
    let vm = choose(state);
    for (let poor = hopeless(state); vm < 0 && poor >= 0; poor = hopeless(state)) {
      this.#stop(poor, 0, 'no memory is left for it');
      vm = choose(state);
    }
    if (vm < 0) return null;
    const guest = this.#machines[vm];
    assert(guest !== undefined, 'hypervisor: each row has its machine');
    const last = state.get(Cpu.last) - 1;
    if (last !== vm) {
      // A world switch: one guest's control registers out, the other's in.
      this.#machines[last]?.paging.switched(false);
      guest.paging.switched(true);
      if (this.#of[vm]?.accounts === true) guest.attributeAgain();
      else machine.attribute(state.vm.get(vm, Vm.channel) & 63);
      state.put(Cpu.last, vm + 1);
      publish(state, vm);
    }
    const pending = state.vm.get(vm, Vm.pending);
    if (pending !== 0) {
      state.vm.put(vm, Vm.pending, 0);
      guest.paging.interrupted();
      guest.inject(pending);
    }
    const passed = this.#of[vm]?.disk === 'passthrough';
    if (passed && isPosted(this.#of[vm])) listen(state, vm, false);
    this.#registers(vm, false);
    entering(state, vm);
    guest.paging.inside();
    return guest.vcpu;
  }

  /** satp is ours again, if a guest ran under shadow tables: before anything reads memory. */
  #home(): void {
    const { machine, root } = this.state;
    if (machine.regime().root !== root) machine.setAddressSpace({ root, asid: 0 });
  }

  trap(trap: Trap): void {
    const { cause } = trap;
    const { state } = this;
    const since = state.machine.now();
    this.#home();
    const vm = state.get(Cpu.current) - 1;
    if (vm >= 0) this.#enter(vm, since);
    if (this.#config.swap !== undefined && !MISSES.includes(cause)) stepDown(state, vm);
    this.#told(vm, trap);
    if (vm >= 0 && this.#of[vm]?.disk === 'split' && !lookAround(state, vm)) this.#nonsense(vm);
  }

  #told(vm: number, trap: Trap): void {
    const { cause, tval, gpa } = trap;
    const { state } = this;
    const inner = MEMORY.includes(cause) ? this.#machines[vm]?.paging.innerFault(trap) : null;
    if (inner !== null && inner !== undefined) {
      state.count(vm, inner === 'given' ? 'reflect' : 'compose');
      state.vm.put(vm, Vm.base, state.vm.get(vm, Vm.ins));
      this.#answer(vm, inner, gpa);
      return;
    }
    if (vm >= 0) state.count(vm, EXIT_OF[cause] ?? 'reflect');
    switch (cause) {
      case Cause.timerInterrupt:
        // Whoever's slice is over: dispatch sees to it.
        if ((this.#config.sharing ?? 0) > 0) scan(state, this.#config.sharing ?? 0);
        return;
      case Cause.externalInterrupt:
        this.#completions();
        // Its guest may be the one that runs: dispatch injects.
        return;
      case Cause.consoleInterrupt:
        this.#typed(tval);
        return;
      case Cause.virtualInstruction:
        wait(state, vm, tval);
        if (this.#of[vm]?.disk === 'passthrough') listen(state, vm, true);
        return;
      case Cause.loadGuestPageFault:
      case Cause.storeGuestPageFault:
        // What came back for what went before has served: the guest's program got on.
        state.vm.put(vm, Vm.base, state.vm.get(vm, Vm.ins));
        this.#backed(vm, gpa, back(state, vm, Math.floor(gpa / PAGE_BYTES)));
        return;
      case Cause.guestBlocked:
        if (state.vm.get(vm, Vm.waitsFor) !== 0) this.#block(vm);
        return;
      case Cause.guestStopped:
        this.#stop(vm, tval, this.#machines[vm]?.paging.why());
        return;
      default:
        this.#answer(vm, this.#machines[vm]?.paging.trapped(trap) ?? 'stop', tval);
    }
  }

  #answer(vm: number, answered: Answered, address: number): void {
    if (answered === 'stop') this.#stop(vm, address);
    else if (answered === 'wait') this.#block(vm);
  }

  #backed(vm: number, gpa: number, backing: number): void {
    if (backing === Backing.refused) this.#stop(vm, gpa);
    else if (backing === Backing.wait) this.#block(vm);
  }

  #block(vm: number): void {
    makeUnready(this.state, vm, VmState.blocked);
    block(this.state, vm);
  }

  #completions(): void {
    const { state } = this;
    completions(state, {
      written: (vm, page) => {
        this.#machines[vm]?.paging.wrote(page);
      },
      pageCame: (vm, page, ok) => {
        if (!ok) this.#stop(vm, page * PAGE_BYTES, 'the disk cannot give a page of it back');
        else if (state.vm.get(vm, Vm.waitsFor) === page + 1) unblock(state, vm);
      },
      nonsense: (vm) => {
        this.#nonsense(vm);
      },
    });
    wake(
      state,
      (vm) => isPosted(this.#of[vm]),
      (vm) => {
        this.#stop(vm, 0, 'it rang the doorbell of its disk without sense');
      },
    );
    wakeWaiters(state);
    for (let vm = 0; state.get(Cpu.dying) > 0 && vm < state.vm.rows; vm++) this.#reap(vm);
  }

  #reap(vm: number): void {
    if (!reap(this.state, vm)) return;
    this.#machines[vm] = undefined;
    this.#of[vm] = undefined;
  }

  // ---- exits in the middle of a guest's handler -------------------------------------------------

  memory(vm: number, gpa: number): number {
    return this.exit(vm, 'memory', () => back(this.state, vm, Math.floor(gpa / PAGE_BYTES)));
  }

  doorbell(vm: number): boolean {
    return this.exit(vm, 'disk', () => doorbell(this.state, vm));
  }

  console(vm: number, channel: number, bytes: Uint8Array): void {
    const { state } = this;
    this.exit(vm, 'console', () => {
      // The buffer is copied out of the guest, as its kernel had copied it out of its user.
      state.machine.work(Math.ceil(bytes.length / 8));
      const shared = this.#of[vm]?.accounts === true;
      state.machine.console(shared ? channel : state.vm.get(vm, Vm.channel), bytes);
    });
  }

  consoleRead(vm: number, channel: number): Uint8Array {
    const { state } = this;
    return this.exit(vm, 'console', () => {
      const shared = this.#of[vm]?.accounts === true;
      return state.machine.consoleRead(shared ? channel : state.vm.get(vm, Vm.channel));
    });
  }

  /** Something arrived on a channel: the guest that it belongs to hears of it. */
  #typed(channel: number): void {
    const { state } = this;
    for (let vm = 0; vm < state.vm.rows; vm++) {
      const guest = this.#of[vm];
      if (guest === undefined) continue;
      if (guest.accounts !== true && state.vm.get(vm, Vm.channel) !== channel) continue;
      interrupt(state, vm, 1 << channel);
      return;
    }
  }

  peek(vm: number, gpa: number): number | null {
    const page = peekPage(this.state, vm, Math.floor(gpa / PAGE_BYTES));
    return page < 0 ? null : this.state.machine.peek(page * PAGE_BYTES + (gpa % PAGE_BYTES));
  }

  entropy(vm: number): number {
    return this.exit(vm, 'entropy', () => this.state.machine.entropy());
  }

  give(vm: number, page: number): void {
    this.exit(vm, 'balloon', () => {
      const { state } = this;
      const pages = state.vm.get(vm, Vm.pages) - 1; // the device page is not the guest's to give
      const own = Number.isInteger(page) && page >= 0 && page < pages;
      if (own && this.#machines[vm]?.paging.yields(page) === true) giveUp(state, vm, page);
      wakeWaiters(state);
    });
  }

  exit<T>(vm: number, exit: Exit | ((result: T) => Exit), act: () => T): T {
    this.#enter(vm, this.state.machine.now());
    const result = act();
    this.state.count(vm, typeof exit === 'string' ? exit : exit(result));
    this.#registers(vm, false);
    entering(this.state, vm);
    return result;
  }

  /** @param since the clock on the way in: what came before it was the guest's time */
  #enter(vm: number, since: number): void {
    leaving(this.state, since - this.state.machine.profile.trapEntry.value);
    this.#registers(vm, true);
    this.#machines[vm]?.paging.exited();
  }

  /** The guest's registers, to its row or back: stores and loads like any others. */
  #registers(vm: number, out: boolean): void {
    const { machine, vm: row } = this.state;
    for (let n = 0; n < REGISTERS_ALL; n++) {
      const at = row.address(vm, Vm.registers + n);
      if (out) machine.store(at, 0);
      else machine.load(at);
    }
  }

  /** A guest that broke a rule stops for ever; nobody else notices. */
  #stop(vm: number, address: number, why = ''): void {
    this.#end(vm);
    const at = `guest-physical 0x${address.toString(16)}`;
    const text = `virtual machine ${vm}: stopped at ${at}${why === '' ? '' : `: ${why}`}\n`;
    this.state.machine.console(0, new TextEncoder().encode(text));
  }

  /** What stands in its ring makes no sense. */
  #nonsense(vm: number): void {
    const device = this.state.vm.get(vm, Vm.pages) - 1;
    this.#stop(vm, device * PAGE_BYTES, 'its disk ring makes no sense');
  }

  #end(vm: number): void {
    const { state } = this;
    stepDown(state, vm);
    if (state.get(Cpu.last) === vm + 1) state.put(Cpu.last, 0);
    askNoMore(state, vm);
    endVm(state, vm);
    this.#machines[vm]?.ended();
    wakeWaiters(state);
  }

  /** Time of a vCPU by what it was at; the four add up to `elapsed`, to the cycle. */
  times(vm: number): Record<Mode | 'elapsed', number> {
    return timesOf(this.state, vm);
  }

  /** Exits of a VM by cause, for reports. */
  exits(vm: number): Record<Exit, number> {
    const counts: Partial<Record<Exit, number>> = {};
    EXITS.forEach((exit, n) => {
      counts[exit] = this.state.peek(vm, Vm.exits + n);
    });
    return counts as Record<Exit, number>;
  }
}

/** Whether the guest has an interrupt file: not one whose supervisor runs in user mode. */
const isPosted = (guest: Guest | undefined): boolean =>
  (guest?.translation ?? 'nested') === 'nested';

const MEMORY: readonly number[] = [Cause.loadGuestPageFault, Cause.storeGuestPageFault];

/** Traps of a guest that does not get on. */
const MISSES: readonly number[] = [Cause.guestBlocked, Cause.externalInterrupt];

/** Under which cause a trap that leaves the guest is booked. */
const EXIT_OF: Partial<Record<number, Exit>> = {
  [Cause.timerInterrupt]: 'timer',
  [Cause.externalInterrupt]: 'interrupt',
  [Cause.consoleInterrupt]: 'interrupt',
  [Cause.virtualInstruction]: 'wait',
  [Cause.loadGuestPageFault]: 'memory',
  [Cause.storeGuestPageFault]: 'memory',
  [Cause.loadPageFault]: 'fault',
  [Cause.storePageFault]: 'fault',
  [Cause.guestStopped]: 'memory',
  [Cause.guestBlocked]: 'restart',
};
