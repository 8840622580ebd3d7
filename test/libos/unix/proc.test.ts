/** /proc against the tables that it is made of, read by the test's own program and on the machine. */
import { describe, expect, test } from 'vitest';

import { Env, EnvState, Info } from '../../../kernel/abi.ts';
import type { Op } from '../../../libos/syscalls.ts';
import { at, Control, CONTROL, ENVS, INFO, PAGE } from '../../../libos/unix/layout.ts';
import { O_WRITE, type Program, Signal } from '../../../libos/unix/process.ts';
import { PROGRAMS } from '../../../libos/unix/programs/index.ts';
import { boot, Image, LIMIT, print, treeOf } from './real.ts';

/** Forks a child that waits and one that is stopped, and runs the script beside them. */
const watched: Program = {
  name: 'watched',
  *main(process) {
    const { port } = process;
    yield* process.heap(5 * PAGE);
    const pipe = yield* process.pipe();
    if (typeof pipe === 'number') return 1;
    const stopped = yield* process.fork(0, pipe[0]);
    yield* process.kill(stopped, Signal.STOP);
    yield* process.wait({ pid: stopped, stopped: true });
    yield* process.setGroup(stopped, 0);
    const shell = yield* process.fork(1, stopped);
    yield* process.wait({ pid: shell });
    const info = (word: number): Op<number> => port.load(at(INFO) + word * 4);
    const rows = yield* info(Info.environments);
    let used = 0;
    let dead = 0;
    for (let n = 0; n < rows; n++) {
      const state = yield* port.load(at(ENVS) + (n * Env.words + Env.state) * 4);
      if (state !== EnvState.free) used++;
      if (state === EnvState.zombie) dead++;
    }
    const free = yield* port.load(at(CONTROL) + Control.free * 4);
    const facts = [process.pid, stopped, yield* info(Info.pages), free, rows, used, dead];
    yield* print(process, 1, `facts ${facts.join(' ')}\n`);
    yield* print(process, 1, `refused ${yield* process.open('/proc/meminfo', O_WRITE)}`);
    yield* print(process, 1, ` ${yield* process.open(`/proc/${stopped}`, O_WRITE)}\n`);
    yield* process.kill(stopped, Signal.KILL);
    yield* process.wait();
    return 0;
  },
  children: [
    function* (process, fd): Op<number> {
      return yield* process.read(fd, yield* process.heap(PAGE), 1);
    },
    function* (process, pid): Op<number> {
      const script = `cat /proc/${pid}/status /proc/${pid}/maps /proc/meminfo; ls /proc; ls /proc/${pid} /proc/99`;
      return yield* process.exec('sh', ['sh', '-c', script]);
    },
  ],
};

const image = new Image(treeOf({}), 512);

describe('/proc', () => {
  test.each(['bare', 'exokernel', 'vm'] as const)('says what the tables say: %s', (mode) => {
    const programs = [...PROGRAMS, watched];
    const built = boot(image, image.medium(['watched']), 1, { mode, programs });
    expect(built.machine.run(LIMIT)).toBe('halted');
    const { stdout, complaints } = built.outcome();
    expect(complaints).toEqual([]);
    const [said = ''] = stdout;
    // Of its six heap pages it has touched none.
    const mapped = [
      ...said.matchAll(/^0x([0-9a-f]{8})-0x([0-9a-f]{8}): (r[w-]-) (.*), (\d+) page/gm),
    ];
    const rows = mapped.map(([, from, to, rights, what, pages]) => {
      expect((Number(`0x${to}`) - Number(`0x${from}`)) / PAGE).toBe(Number(pages));
      return `${rights} ${what}`;
    });
    for (const row of ['rw- stack', 'rw- u-area', 'r-- exposed', 'rw- shared']) {
      expect(rows).toContain(row);
    }
    expect(rows.filter((row) => row.includes('heap'))).toEqual([]);
    const facts = /facts (.*)\n/.exec(said)?.[1]?.split(' ').map(Number) ?? [];
    const [self = 0, stopped = 0, pages = 0, free = 0, limit = 0, used = 0, dead = 0] = facts;
    const field = (name: string): string =>
      new RegExp(`^${name}: (.*)$`, 'm').exec(said)?.[1] ?? `no ${name}`;
    expect(field('Name')).toBe('watched');
    expect([field('Pid'), field('PPid'), field('Group')].map(Number)).toEqual([
      ...[stopped, self, stopped],
    ]);
    expect(field('State')).toBe('stopped');
    expect(field('Heap pages')).toBe('6'); // five of before the fork, and one of its own
    expect([field('Machine pages'), field('Environments')].map(Number)).toEqual([pages, limit]);
    if (mode !== 'vm') expect(pages).toBe(built.machine.pages);
    expect(field('Slice cycles')).toBe('1000000');
    // While cat ran there were the shell and cat besides; they have given their pages back.
    expect(Number(field('Environments used'))).toBe(used - dead + 2);
    const then = Number(field('Free pages'));
    expect(then).toBeLessThan(free);
    expect(then).toBeGreaterThan(free - 200);
    const names = said.split('\n').filter((line) => /^(\d+|meminfo|status)$/.test(line));
    expect(names).toContain('meminfo');
    expect(names).toContain('status');
    for (const pid of [self, stopped]) expect(names).toContain(String(pid));
    expect(said).toContain("ls: cannot access '/proc/99': No such file or directory\n");
    expect(said).toContain('refused -13 -21\n');
  });
});
