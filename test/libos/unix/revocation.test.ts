/**
 * A Unix that is asked for pages in the middle of its work gives them, by its own choice and in
 * time, and prints what it prints unasked: on an exokernel by revocation, in a virtual machine by
 * the balloon. What is taken by force costs those their lives who had it, and nobody is given wrong
 * memory. Neither kernel nor hypervisor is found in an unsound state meanwhile.
 */
import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { auditAll } from '../../../check/invariants/index.ts';
import { Raw } from '../../../check/invariants/raw.ts';
import { Exokernel } from '../../../kernel/exokernel/exokernel.ts';
import { measure, type Outcome, type Spec, WORK } from '../../../lab/unix-revocation.ts';
import type { Program } from '../../../libos/unix/process.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import { violations } from '../../hypervisor/invariants.ts';
import { LONG } from '../../tiers.ts';
import { print } from './real.ts';

const PAGE = 4096;
const RUNS = LONG ? 60 : 5;
const THIRD = WORK.quota / 3;

/** Looks at whoever supervises, every time. */
const watch: Spec['watch'] = ({ machine, hypervisor, kernels }) => {
  const [kernel] = kernels;
  if (hypervisor !== null) expect(violations(machine, hypervisor)).toEqual([]);
  else if (kernel instanceof Exokernel) {
    expect(auditAll(new Raw(machine, kernel.state), true)).toEqual([]);
  }
};

const known = new Map<string, Outcome>();
function alone(mode: Spec['mode']): Outcome {
  const outcome = known.get(mode) ?? measure({ ...WORK, mode });
  known.set(mode, outcome);
  return outcome;
}

const asked = (mode: Spec['mode'], at: number, pages: number, spec: Partial<Spec> = {}): Outcome =>
  measure({ ...WORK, mode, watch, asking: { at, pages, how: 'ask' }, ...spec });

describe('asked for a third of its memory in the middle', () => {
  test('on the exokernel, at any moment', () => {
    const { ended, output } = alone('exokernel');
    fc.assert(
      fc.property(fc.double({ min: 0.1, max: 0.9, noNaN: true }), (part) => {
        const got = asked('exokernel', Math.floor(part * ended), THIRD);
        expect({ ...got, cycles: 0, waited: 0, ended: 0, blocks: 0 }).toEqual({
          ...{ output, complaints: '', given: THIRD, taken: 0 },
          ...{ cycles: 0, waited: 0, ended: 0, blocks: 0 },
        });
      }),
      { numRuns: RUNS, endOnFailure: !LONG },
    );
  });

  test.each(['vm', 'vm-shadow', 'exokernel-in-vm'] as const)('%s', (mode) => {
    const { ended, output } = alone(mode);
    const got = asked(mode, Math.floor(ended / 3), THIRD);
    expect({ output: got.output, complaints: got.complaints }).toEqual({ output, complaints: '' });
    expect(got.given).toBe(THIRD);
  });

  test('with short slices', () => {
    const slice = 20_000;
    const { ended, output } = measure({ ...WORK, mode: 'exokernel', slice });
    const got = asked('exokernel', Math.floor(ended / 3), THIRD, { slice });
    expect([got.output, got.given, got.taken]).toEqual([output, THIRD, 0]);
  });
});

describe('what goes first', () => {
  const at = 2_500_000;

  test('free pages, while there are many: nobody notices', () => {
    const quiet = measure({ ...WORK, quota: 1200, mode: 'exokernel' });
    const got = asked('exokernel', at, 64, { quota: 1200 });
    expect([got.given, got.output]).toEqual([64, quiet.output]);
    expect(got.blocks).toBe(quiet.blocks);
  });

  test('then the block cache: without a swap area it gives that and no more', () => {
    const quiet = measure({ ...WORK, swap: 0, mode: 'exokernel' });
    const some = asked('exokernel', at, 96, { swap: 0 });
    expect([some.given, some.output]).toEqual([96, quiet.output]);
    // All that it has, when no sort is to come: it keeps what it needs, and goes on.
    const late = Math.floor(quiet.ended * 0.6);
    const most = asked('vm', late, WORK.quota, { swap: 0 });
    expect(most.given).toBeGreaterThan(150);
    expect(most.given).toBeLessThan(450);
    expect(most.output).toBe(quiet.output);
  });
});

// ---- by force -----------------------------------------------------------------------------------

const HEAP = 50; // pages

/** Writes its pages and looks at them again, time after time; says whether they held. */
const checker: Program = {
  name: 'checker',
  *main(process) {
    const { port } = process;
    const pages = yield* process.heap(HEAP * PAGE);
    let wrong = 0;
    for (let round = 1; round <= 6; round++) {
      for (let n = 0; n < HEAP; n++) yield* port.store(pages + n * PAGE, round * 1000 + n);
      if (port.work(30_000) === undefined) yield* port.fault();
      for (let n = 0; n < HEAP; n++) {
        if ((yield* port.load(pages + n * PAGE)) !== round * 1000 + n) wrong++;
      }
    }
    yield* print(process, 2, wrong === 0 ? 'held\n' : `wrong ${wrong}\n`);
    return 0;
  },
};

const CHECKED: Spec = {
  mode: 'exokernel',
  files: { few: WORK.files['few'] ?? '' },
  script: 'checker | checker | checker; checker; sort few > sorted; sync; wc -l < sorted; echo end',
  quota: 500,
  swap: 200,
  minimum: 100,
  programs: [...PROGRAMS, checker],
  slice: 50_000,
};

test('pages taken by force, at any moment, any of them: who lost some ends, nobody is wrong', () => {
  const alone = measure(CHECKED);
  expect(alone.output).toBe('held\nheld\nheld\nheld\n300\nend\n');
  let [ended, lived] = [0, 0];
  const moments = fc.record({
    at: fc.double({ min: 0.15, max: 0.9, noNaN: true }),
    from: fc.double({ min: 0.05, max: 0.55, noNaN: true }),
    pages: fc.constantFrom(20, 60, 150),
  });
  fc.assert(
    fc.property(moments, ({ at, from, pages }) => {
      const asking = { at: Math.floor(at * alone.ended), pages, how: 'force', from } as const;
      const got = measure({ ...CHECKED, watch, asking });
      expect(got.taken).toBe(pages);
      const lines = got.output.trimEnd().split('\n');
      const killed = lines.filter((line) => /^unix: .*(by force|out of memory)$/.test(line));
      const rest = lines.filter((line) => !killed.includes(line) && !/^(held|300|end)$/.test(line));
      // What the dead no longer did is told by those who missed it, and that is all.
      for (const line of rest)
        expect(line, got.output).toMatch(/^(0|$|.*: (Input\/output|No such file).*)$/);
      ended += killed.length;
      lived += lines.filter((line) => line === 'held').length;
    }),
    {
      numRuns: LONG ? 100 : 8,
      endOnFailure: !LONG,
      examples: [[{ at: 0.4, from: 0.2, pages: 20 }]], // some are ended, others live
    },
  );
  expect(ended).toBeGreaterThan(0);
  expect(lived).toBeGreaterThan(0);
});
