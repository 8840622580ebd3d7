/**
 * Breaches of the hypervisor's invariants, one for each id of the protection catalogue: what the
 * catalogue names as the mutant that its property must kill, made in this hypervisor, and the test
 * that must then fail. `npm run mistakes` tries these too.
 */
import type { Mistake } from './list.ts';

const HYPERVISOR = 'kernel/hypervisor/hypervisor.ts';
const PAGES = 'kernel/hypervisor/pages.ts';
const SHADOWS = 'kernel/hypervisor/shadow-tables.ts';
const MACHINE = 'kernel/hypervisor/virtual-machine.ts';
const DISK = 'kernel/hypervisor/disk.ts';

const EXITS = 'test/hypervisor/exits.test.ts';
const SHADOW = 'test/hypervisor/shadow.test.ts';
const DIFFERENTIAL = 'test/machine/differential.test.ts';
const SAVING = 'test/hypervisor/saving.test.ts';
const SLICES = 'test/hypervisor/slices.test.ts';
const SWAPPING = 'test/hypervisor/pages.test.ts';

export const BREACHES: readonly Mistake[] = [
  {
    number: 'HYP-01',
    title: 'a guest that touches memory beyond its own is given some',
    file: PAGES,
    text:
      'page >= row.get(vm, Vm.pages)) return Backing.refused;\n' +
      '  const place = find(state, vm, page);',
    instead: 'page >= 2 ** 20) return Backing.refused;\n  const place = find(state, vm, page);',
    test: [EXITS, 'a guest that breaks the rules stops alone'],
  },
  {
    number: 'HYP-02',
    title: 'a shadow entry is writable though the guest has not set W, or not yet D',
    file: SHADOWS,
    text: 'const may = (leaf & PTE_W) !== 0 && (leaf & PTE_D) !== 0;',
    instead: 'const may = (leaf & PTE_V) !== 0;',
    test: [SHADOW, 'allow what guest and host allow'],
  },
  {
    number: 'HYP-03',
    title: 'a table of the guest that is in sync is not guarded against its stores',
    file: SHADOWS,
    text: 'if (may && (host & 2) !== 0 && !this.#guarded(page) && this.#mayWrite(page)) {',
    instead: 'if (may && (host & 2) !== 0 && this.#mayWrite(page)) {',
    test: [DIFFERENTIAL, 'a random supervisor sees what it would see on the hardware'],
  },
  {
    number: 'HYP-04',
    title: "a page is handed over with the last holder's words on it",
    file: PAGES,
    text: 'countGiven(state, vm, -1);\n  state.machine.zeroPage(host);',
    instead: 'countGiven(state, vm, -1);',
    test: ['test/hypervisor/renaming.test.ts', 'a guest sees the same on whichever host pages'],
  },
  {
    number: 'HYP-05',
    title: 'a guest says to whom time counts, though it was not let',
    file: MACHINE,
    text: 'if (this.#spec.accounts) this.hart.attribute(owner, this.hart.counters.layer);',
    instead: 'this.hart.attribute(owner, this.hart.counters.layer);',
    test: [
      'test/hypervisor/intercepted.test.ts',
      'whatever a guest asks of its machine stays in it',
    ],
  },
  {
    number: 'HYP-06',
    title: "the accessed bit of a walk in software is not set in the guest's table",
    file: SHADOWS,
    text: 'const leaf = (entry | PTE_A | (write ? PTE_D : 0)) >>> 0;',
    instead: 'const leaf = (entry | (write ? PTE_D : 0)) >>> 0;',
    test: [DIFFERENTIAL, 'a random supervisor sees what it would see on the hardware'],
  },
  {
    number: 'HYP-07',
    title: 'an interrupt is taken off the list before it is told',
    file: HYPERVISOR,
    text: 'guest.inject(pending);',
    instead: '',
    test: ['test/hypervisor/balloon.test.ts', 'pages go to the hypervisor and come back'],
  },
  {
    number: 'HYP-08',
    title: "a disk request reaches beyond the guest's blocks",
    file: DISK,
    text: 'if (block + count > state.vm.get(vm, Vm.blocks)) return false;',
    instead: '',
    test: [EXITS, 'a guest that breaks the rules stops alone'],
  },
  {
    number: 'HYP-09',
    title: 'a saved machine forgets when its timer was to go off',
    file: MACHINE,
    text: '    this.#timer = saved.timer;\n    this.#interrupts = saved.interrupts;',
    instead: '    this.#interrupts = saved.interrupts;',
    test: [SAVING, 'save and restore'],
  },
  {
    number: 'HYP-10',
    title: "the hypervisor of a hypervisor keeps what the inner one's fence is to drop",
    file: 'kernel/hypervisor/composed.ts',
    text: 'if (at !== null) this.#drop(at.row, at.index);',
    instead: '',
    test: ['test/hypervisor/nesting.test.ts', 'leaves are no wider than the inner table'],
  },
  {
    number: 'HYP-11',
    title: 'the first byte of what a guest prints is lost',
    file: HYPERVISOR,
    text: 'state.machine.console(shared ? channel : state.vm.get(vm, Vm.channel), bytes);',
    instead:
      'state.machine.console(shared ? channel : state.vm.get(vm, Vm.channel), bytes.subarray(1));',
    test: ['test/lab/experiment.test.ts', 'on a small tree'],
  },
  {
    number: 'HYP-12',
    title: 'what a device writes is not noted in the log of writes',
    file: DISK,
    text: 'if (theirs) told.written(vm, state.page.get(host, Page.guest));',
    instead: '',
    test: [SHADOW, 'the log of writes misses none'],
  },
  {
    number: 'HYP-13',
    title: 'a page is taken from a guest whose TLB still has it',
    file: 'kernel/hypervisor/second-stage.ts',
    text: 'if ((place.entry & PTE_V) !== 0) state.changed(vm, page);',
    instead: '',
    test: [SWAPPING, 'what was written comes back'],
  },
  {
    number: 'HYP-14',
    title: 'what no machine can do stops the host, not the guest that tried it',
    file: MACHINE,
    text: 'if (gpa % align !== 0) this.#stop(gpa);',
    instead: "assert(gpa % align === 0, 'aligned');",
    test: [EXITS, 'a guest that breaks the rules stops alone'],
  },
  {
    number: 'HYP-15',
    title: 'the second-stage tables of one that has ended are not given back',
    file: PAGES,
    text: '    give(state, table);\n',
    instead: '',
    test: ['test/hypervisor/life.test.ts', 'gives everything back, whenever it comes'],
  },
  {
    number: 'HYP-16',
    title: 'who waits to be woken is given the CPU by its weight and the wakeups',
    file: 'kernel/hypervisor/slices.ts',
    text: 'if (now >= loadTick(state.cpu, 0, Cpu.end)) return false;',
    instead: '',
    test: [SLICES, 'shares'],
  },
  {
    number: 'HYP-17',
    title: "a guest's user is let at what is its supervisor's",
    file: SHADOWS,
    text: 'if (ptePpn(entry) % span !== 0 || kernel === ((entry & PTE_U) !== 0)) return',
    instead: 'if (ptePpn(entry) % span !== 0) return',
    test: [SHADOW, 'allow what guest and host allow'],
  },
  {
    number: 'HYP-18',
    title: 'a batch of hypercalls is as long as the guest says',
    file: 'kernel/hypervisor/hypercalls.ts',
    text: "if (count < 0 || count > BATCH_MAX) return types.refuse('no hypercall that there is');",
    instead: '',
    test: ['test/hypervisor/paravirt.test.ts', 'stops the guest (HYP-18)'],
  },
  {
    number: 'HYP-19',
    title: 'a table of the second stage is charged to nobody',
    file: PAGES,
    text:
      '      state.own(fresh, PageKind.table, vm);\n      state.vm.add(vm, Vm.tables, 1);\n' +
      '      machine.zeroPage(fresh);',
    instead: '      state.own(fresh, PageKind.table, vm);\n      machine.zeroPage(fresh);',
    test: [SWAPPING, 'what was written comes back'],
  },
  {
    number: 'HYP-20',
    title: "time on the way into the hypervisor is nobody's",
    file: HYPERVISOR,
    text: 'leaving(this.state, since - this.state.machine.profile.trapEntry.value);',
    instead: '',
    test: [SLICES, 'adds up, and run is what the machine itself counted'],
  },
];
