/**
 * The hart's rules of virtualisation, a row each: whose a trap is, and what of a supervisor's acts
 * leaves the guest. Sections are those of the RISC-V Privileged Architecture, "Hypervisor
 * Extension". What fences drop is held by tlb.test.ts, the data of faults by walker.test.ts.
 */
import { describe, expect, test } from 'vitest';

import { RamMedium } from '../../machine/disk.ts';
import type { Machine, Privilege } from '../../machine/machine.ts';
import { PhysicalMachine } from '../../machine/physical.ts';
import { NEVER, PAGE_BYTES } from '../../machine/units.ts';
import { Cause } from '../../kernel/supervisor.ts';
import { type Guest, Hypervisor } from '../../kernel/hypervisor/hypervisor.ts';
import { type Exit, EXITS, type HypervisorConfig } from '../../kernel/hypervisor/state.ts';
import { Cell, program, Script } from './script.ts';

const CONFIG: HypervisorConfig = { sliceCycles: 1e9, backing: 'populate', secondStage: '4KiB' };

const guestOf = (supervisor: Guest['supervisor'], more: Partial<Guest> = {}): Guest => ({
  supervisor,
  images: [],
  pages: 128,
  firstBlock: 0,
  blocks: 4,
  channel: 1,
  ...more,
});

function boot(guest: Guest): { machine: PhysicalMachine; hypervisor: Hypervisor } {
  const machine = new PhysicalMachine({ pages: 2048, images: [], medium: new RamMedium(16) });
  const hypervisor = new Hypervisor(CONFIG, [guest]);
  machine.boot(hypervisor);
  machine.run(1e8);
  return { machine, hypervisor };
}

// ---- whose a trap is ------------------------------------------------------------------------------

const idle = (): Script => new Script({ boot: (s) => s.put(Cell.current, -1) });

/** Machines of every kind, and a machine inside each that may have one. */
function machines(): Record<string, Machine> {
  const found: Record<string, Machine> = {};
  for (const translation of ['nested', 'shadow'] as const) {
    const one = boot(guestOf(idle(), { translation })).hypervisor.machines[0];
    const inner = new Hypervisor({ ...CONFIG, backing: 'touch' }, [
      guestOf(idle(), { translation }),
    ]);
    boot(guestOf(inner, { pages: 600, nestedPages: 16 }));
    const two = inner.machines[0];
    if (one === undefined || two === undefined) throw new Error('it has booted');
    found[translation] = one;
    found[`${translation} in nested`] = two;
  }
  found['hardware'] = new PhysicalMachine({ pages: 16, images: [] });
  return found;
}

const OWN = [
  Cause.illegalInstruction,
  Cause.loadMisaligned,
  Cause.storeMisaligned,
  Cause.environmentCall,
  Cause.loadPageFault,
  Cause.storePageFault,
  Cause.userException,
  Cause.threadEnd,
];
const SECOND = [Cause.loadGuestPageFault, Cause.storeGuestPageFault];
const TIMER = [Cause.timerInterrupt];

/** Section "Trap Delegation Registers": medeleg, and hedeleg of each hypervisor on the way. */
const DELEGATION: readonly (readonly [string, string, readonly Cause[], Privilege, number])[] = [
  ['hardware', 'there is one supervisor', [...OWN, ...SECOND, ...TIMER], 'user', 0],
  ['nested', 'what can be delegated is', OWN, 'user', 1],
  ['nested', 'a timer is noticed where it belongs', TIMER, 'user', 1],
  ['nested', 'a second-stage fault cannot be', SECOND, 'user', 0],
  ['shadow', "nothing is: its programs are the hypervisor's", OWN, 'user', 0],
  ['shadow', 'a procedure call crosses nothing', [Cause.environmentCall], 'supervisor', 1],
  ['shadow', 'a timer is noticed where it belongs', TIMER, 'user', 1],
  ['nested in nested', 'both hypervisors delegate', OWN, 'user', 2],
  ['nested in nested', "the one second stage is the outer's", SECOND, 'user', 0],
  ['shadow in nested', 'to the hypervisor of the tables', OWN, 'user', 1],
  ['shadow in nested', "the second stage is the outer's", SECOND, 'user', 0],
];

describe('a trap reaches first', () => {
  const all = machines();
  test.each(DELEGATION)('%s: %s', (kind, _why, causes, privilege, level) => {
    for (const cause of causes) {
      expect([cause, all[kind]?.trapLevel(cause, privilege)]).toEqual([cause, level]);
    }
  });
});

// ---- what exits -----------------------------------------------------------------------------------

type Act = (m: Machine, s: Script) => void;
type Exits = Partial<Record<Exit, number>>;
const NONE: Exits = {};

/** Acts of a guest's supervisor: what they take in hardware's guest mode, and in user mode. */
const ACTS: readonly (readonly [string, string, Act, Exits, Exits])[] = [
  [
    'satp',
    "hstatus.VTVM is set for shadow tables only: vsatp is the guest's own",
    (m, s) => m.setAddressSpace(s.spaceOf(1)),
    NONE,
    { satp: 1 },
  ],
  ['sfence.vma', 'hstatus.VTVM, as above', (m) => m.fence(), NONE, { fence: 1 }],
  ['sfence.vma of a page', 'hstatus.VTVM', (m) => m.fence(1, 3), NONE, { fence: 1 }],
  ['sfence.vma of a space', 'hstatus.VTVM', (m) => m.fence(1), NONE, { fence: 1 }],
  [
    'stimecmp',
    "henvcfg.STCE (Sstc): vstimecmp is the guest's own",
    (m) => m.setTimer(NEVER),
    NONE,
    { stimecmp: 1 },
  ],
  ['the clock', 'htimedelta, hcounteren.TM', (m) => m.now(), NONE, NONE],
  ['stolen time', 'memory that both know', (m) => m.stolen(), NONE, NONE],
  ['memory', 'the second stage has it', (m) => m.store(40 * PAGE_BYTES, 1), NONE, NONE],
  ['computation', 'nothing to trap', (m) => m.work(10), NONE, NONE],
  [
    'console',
    'a device: no memory is behind it',
    (m) => m.console(0, Uint8Array.of(1)),
    { console: 1 },
    { console: 1 },
  ],
  ['entropy', 'a device', (m) => m.entropy(), { entropy: 1 }, { entropy: 1 }],
];

/** Acts of a guest's supervisor that is a hypervisor: "Virtual Instruction Exceptions". */
const EXTENSION: readonly (readonly [string, Act, Exits])[] = [
  ['hgatp', ({ guestMode: g }) => g?.select(3, 40), { hgatp: 1 }],
  ['a vs* register', ({ guestMode: g }) => g?.moveRegisters(1), { register: 1 }],
  ['each of them', ({ guestMode: g }) => g?.moveRegisters(5), { register: 5 }],
  ['none', ({ guestMode: g }) => g?.moveRegisters(0), NONE],
  ['hfence.gvma', ({ guestMode: g }) => g?.fence(3), { hfence: 1 }],
  ['hfence.gvma of a page', ({ guestMode: g }) => g?.fence(3, 7), { hfence: 1 }],
  [
    'sret to its guest, and what that traps',
    ({ guestMode: g }) => {
      g?.select(3, 40);
      g?.enter();
      g?.leave(Cause.environmentCall);
    },
    { hgatp: 1, enter: 1, reflect: 1 },
  ],
  [
    'and what is told to a supervisor that has the hart already',
    ({ guestMode: g }) => g?.leave(Cause.environmentCall),
    NONE,
  ],
];

/** Exits that `act` takes, by cause. */
function exitsOf(act: Act, more: Partial<Guest>): Exits {
  const counts = (times: number): Record<Exit, number> => {
    const supervisor = new Script({
      trap: (s, { cause }) => {
        if (cause !== Cause.environmentCall) return false;
        for (let n = 0; n < times; n++) act(s.machine, s);
        s.machine.contexts.setResult(1, 0);
        return true;
      },
    });
    const body = program(function* (port) {
      yield* port.call(0);
    });
    return boot(guestOf(supervisor, { images: [body], ...more })).hypervisor.exits(0);
  };
  const [few, many] = [counts(3), counts(13)];
  const each: Exits = {};
  for (const exit of EXITS) {
    if (many[exit] !== few[exit]) each[exit] = (many[exit] - few[exit]) / 10;
  }
  return each;
}

describe('of what a supervisor does, exits', () => {
  for (const [name, rule, act, nested, shadow] of ACTS) {
    test(`${name}: ${rule}`, () => {
      expect(exitsOf(act, { translation: 'nested' })).toEqual(nested);
      expect(exitsOf(act, { translation: 'nested', nestedPages: 16 })).toEqual(nested);
      expect(exitsOf(act, { translation: 'shadow' })).toEqual(shadow);
    });
  }
  test.each(EXTENSION)('of the extension: %s', (_name, act, exits) => {
    expect(exitsOf(act, { nestedPages: 16 })).toEqual(exits);
  });
  test('and without the extension there is none of it', () => {
    for (const more of [{ nestedPages: 0 }, { translation: 'shadow' as const }]) {
      const { hypervisor } = boot(guestOf(idle(), more));
      expect(hypervisor.machines[0]?.guestMode).toBe(null);
    }
  });
});

describe('waiting and waking', () => {
  /** Waits `times` times for its own timer; exits, and times that it was told. */
  function naps(times: number, more: Partial<Guest>): { exits: Exits; told: number } {
    const supervisor = new Script({
      boot: (s) => {
        s.put(Cell.current, -1);
        s.setTimer(s.machine.now() + 5000);
      },
      trap: (s, { cause }) => {
        if (cause !== Cause.timerInterrupt) return false;
        s.put(Cell.own, s.get(Cell.own) + 1);
        if (s.get(Cell.own) < times) s.setTimer(s.machine.now() + 5000);
        return true;
      },
    });
    const { hypervisor } = boot(guestOf(supervisor, more));
    const told = hypervisor.machines[0]?.peek(Cell.own * 4) ?? -1;
    return { exits: hypervisor.exits(0), told };
  }
  test.each(['nested', 'shadow'] as const)('WFI: hstatus.VTW, an exit each; %s', (translation) => {
    const [few, many] = [naps(2, { translation }), naps(12, { translation })];
    expect([few.told, many.told]).toEqual([2, 12]);
    expect((many.exits.wait ?? 0) - (few.exits.wait ?? 0)).toBe(10);
    // vstimecmp goes off by itself in a guest that runs; one that waits is woken by its hypervisor.
    expect((many.exits.stimecmp ?? 0) - (few.exits.stimecmp ?? 0)).toBe(
      translation === 'shadow' ? 20 : 0, // it disarms, and sets anew
    );
  });

  /** Takes `times` interrupts of its disk. */
  function interrupts(times: number, more: Partial<Guest>): { exits: Exits; told: number } {
    const submit = (s: Script): void => {
      s.machine.disk.submit({ tag: 1, write: true, block: 0, pages: [40] });
    };
    const supervisor = new Script({
      boot: (s) => {
        s.put(Cell.current, -1);
        submit(s);
      },
      trap: (s, { cause }) => {
        if (cause !== Cause.externalInterrupt) return false;
        s.put(Cell.own, s.get(Cell.own) + 1);
        while (s.machine.disk.complete() !== null);
        if (s.get(Cell.own) < times) submit(s);
        return true;
      },
    });
    const { hypervisor } = boot(guestOf(supervisor, more));
    const told = hypervisor.machines[0]?.peek(Cell.own * 4) ?? -1;
    return { exits: hypervisor.exits(0), told };
  }
  test.each(['nested', 'shadow'] as const)(
    'hvip: one interrupt told, none twice; %s',
    (translation) => {
      const [few, many] = [interrupts(2, { translation }), interrupts(12, { translation })];
      expect([few.told, many.told]).toEqual([2, 12]);
      expect((many.exits.disk ?? 0) - (few.exits.disk ?? 0)).toBe(10);
      expect((many.exits.wait ?? 0) - (few.exits.wait ?? 0)).toBe(10);
    },
  );
});
