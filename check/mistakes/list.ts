/**
 * Mistakes that students of JOS really made, made on purpose in this kernel and this Unix, one at a
 * time: each is a text of the source, what to put in its place, and the test that must then fail.
 * `npm run mistakes` tries them all; test/mistakes.test.ts holds that each text is still there.
 */
export interface Mistake {
  /** its place among the thirteen, with a letter if it can be made in several places */
  readonly number: string;
  readonly title: string;
  readonly file: string;
  /** found exactly once in the file */
  readonly text: string;
  readonly instead: string;
  /** which test catches it: its file, and a part of its full name */
  readonly test: readonly [file: string, name: string];
}

export interface Inexpressible {
  readonly number: string;
  readonly title: string;
  readonly why: string;
}

const BINDINGS = 'kernel/exokernel/bindings.ts';
const SLICES = 'kernel/exokernel/slices.ts';
const SPACE = 'libos/unix/space.ts';

const ATTACKS = 'test/kernel/attacks.test.ts';
const UNIX = 'test/programs/unix.test.ts';
const FAULTS = 'test/programs/faults.test.ts';
const ENVIRONMENTS = 'test/programs/environments.test.ts';
const WHOSE = 'test/programs/whose.test.ts';
const FORKS = 'test/libos/unix/forks.test.ts';

export const MISTAKES: readonly Mistake[] = [
  {
    number: '1a',
    title: 'an entry is emptied and filled again, and the TLB still has the old page',
    file: BINDINGS,
    text: 'fenceAll(state, env, table, updates);',
    instead: '',
    test: [ATTACKS, 'a stale translation after pageUnmap'],
  },
  {
    number: '1b',
    title: 'an entry loses a right, and the TLB still grants it',
    file: BINDINGS,
    text: 'fenceAll(state, place.value, table, updates);',
    instead: '',
    test: [ATTACKS, 'a stale right after pageProtect'],
  },
  {
    number: '2',
    title: "a forked child takes itself for its parent: the parent's pid stays in its u-area",
    file: SPACE,
    text: 'yield* put(User.pid, pid);',
    instead: '',
    test: [FORKS, 'own pid'],
  },
  {
    number: '3',
    title: 'the address of a fault is not rounded down to its page',
    file: SPACE,
    text: 'const page = Math.floor(address / PAGE);',
    instead: 'const page = address / PAGE;',
    test: [UNIX, 'testpipe'],
  },
  {
    number: '4a',
    title: "a user's pointer is looked up in the address space of who ran before",
    file: SLICES,
    text: '    let lives = enter(state, next);\n',
    instead:
      '    if (begins) pushSliceUpcall(state, next, Upcall.sliceBegin);\n    begins = false;\n' +
      '    let lives = enter(state, next);\n',
    test: [WHOSE, 'a slice upcall leaves word in the memory of who registered'],
  },
  {
    number: '4b',
    title: "a mapping is checked against its maker's capability, not that of who gets it",
    file: BINDINGS,
    text: 'badArgument, 4);\n    const may = checkPage(state, capOf(state, env, slot),',
    instead: 'badArgument, 4);\n    const may = checkPage(state, capOf(state, caller, slot),',
    test: [WHOSE, 'a page is mapped for an environment by what that environment may'],
  },
  {
    number: '5',
    title: 'where a granted page goes is not moved on after one has come',
    file: 'kernel/exokernel/ipc.ts',
    text: 'secret.put(to, Private.windowIndex, index + 1);',
    instead: '',
    test: [ATTACKS, 'a grant into a filled window'],
  },
  {
    number: '6',
    title: 'the parent keeps a writable entry of what it shares copy on write',
    file: SPACE,
    text: 'const { status } = yield* sys.pageProtect(ours, index, length, COW, COMMON);',
    instead: 'const status: number = Status.ok;',
    test: [UNIX, 'forktree'],
  },
  {
    number: '8a',
    title: 'an environment is started with raised privilege',
    file: 'kernel/exokernel/environments.ts',
    text: "contexts.create(env, image, 'user');",
    instead: "contexts.create(env, image, 'supervisor');",
    test: ['test/programs/ipc.test.ts', 'ipctest: a ping is two kernel calls'],
  },
  {
    number: '8b',
    title: 'an environment runs without a timer interrupt',
    file: SLICES,
    text: 'storeTick(cpu, 0, Cpu.end, end);\n        machine.setTimer(end);',
    instead: 'storeTick(cpu, 0, Cpu.end, end);',
    test: [ENVIRONMENTS, 'spin'],
  },
  {
    number: '9a',
    title: 'a mapping that is refused has been counted: its page can never be freed',
    file: BINDINGS,
    text: 'if (isFilled(state, table, index)) return refuse(Status.occupied, 1);\n  if (may.value',
    instead:
      'state.page.add(page, PageRecord.leaves, 1);\n' +
      '  if (isFilled(state, table, index)) return refuse(Status.occupied, 1);\n' +
      '  state.page.add(page, PageRecord.leaves, -1);\n  if (may.value',
    test: ['test/kernel/refusals.test.ts', 'pageMap'],
  },
  {
    number: '9b',
    title: 'a fork that cannot have all its pages keeps those that it had',
    file: 'libos/unix/shared.ts',
    text: 'for (const taken of pages) yield* this.drop(taken);',
    instead: '',
    test: [FORKS, 'a fork that cannot be done takes no pages'],
  },
  {
    number: '10',
    title: 'an id of an environment that is no more names its successor',
    file: 'kernel/exokernel/state.ts',
    text: 'if (this.env.get(index, Env.generation) !== id >>> ENV_INDEX_BITS) return -1;',
    instead: '',
    test: [ATTACKS, 'the id of an environment that is no more'],
  },
  {
    number: '11',
    title: 'what is replaced by itself is given up first: the last name of a pipe is gone',
    file: 'libos/unix/unix-process.ts',
    text: 'if (from === to) return to;',
    instead: '',
    test: [FORKS, 'a name of itself'],
  },
  {
    number: '12a',
    title: 'a page is mapped writable by an entry that lets it be read',
    file: BINDINGS,
    text:
      'return refuse(Status.badArgument, 4);\n' +
      '    const may = checkPage(state, capOf(state, env, slot), page, entry, rightsOf(flags));',
    instead:
      'return refuse(Status.badArgument, 4);\n' +
      '    const may = checkPage(state, capOf(state, env, slot), page, entry, READ);',
    test: [ATTACKS, 'writing through a read-only mapping of a shared page'],
  },
  {
    number: '12b',
    title: 'a read-only mapping is made writable',
    file: BINDINGS,
    text: 'const may = checkPage(state, cap, page, entry, READ | WRITE);',
    instead: 'const may = checkPage(state, cap, page, entry, READ);',
    test: [ATTACKS, 'writing through a read-only mapping of a shared page'],
  },
  {
    number: '12c',
    title: 'a list of pages is mapped writable by entries that let them be read',
    file: BINDINGS,
    text:
      'return refuse(Status.wrongKind, 3);\n' +
      '  const may = checkPage(state, cap, page, entry, rightsOf(flags));',
    instead:
      'return refuse(Status.wrongKind, 3);\n' +
      '  const may = checkPage(state, cap, page, entry, READ);',
    test: ['test/kernel/refusals.test.ts', 'pageMapList'],
  },
  {
    number: '13a',
    title: "a fault of the kernel's own, on a bad pointer, is told to the caller's handler",
    file: 'kernel/exokernel/console.ts',
    text: 'if (copy === null) return',
    instead:
      'if (copy === null) state.machine.contexts.upcall(caller, 1, [13, address]);\n' +
      '  if (copy === null) return',
    test: [FAULTS, 'faultallocbad'],
  },
  {
    number: '13b',
    title: 'the same, of the list of a batch',
    file: 'kernel/exokernel/exokernel.ts',
    text: 'if (number === null) return',
    instead:
      'if (number === null) pushFault(state, caller, 13, address);\n' +
      '      if (number === null) return',
    test: [FAULTS, 'faultallocbad'],
  },
];

/** Mistakes of the thirteen that cannot be made here, and why. */
export const INEXPRESSIBLE: readonly Inexpressible[] = [
  {
    number: '6',
    title: "the parent's entry is demoted before the child's is made",
    why:
      'nothing can be written in between: both calls are made of entries read before, by a ' +
      'process that is in fork with its one thread, and whose stack is no part of the heap; ' +
      'so the orders cannot be told apart, and what is made instead is that it is not demoted',
  },
  {
    number: '7',
    title: 'the stack is written after the child is made and before it is marked',
    why:
      'a child does not return from fork on a copy of the stack, it starts at a function with ' +
      'its arguments in registers; stack page and u-area are its own from the start, not marked',
  },
];
