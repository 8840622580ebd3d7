/**
 * Every invariant bites: in a machine with one thing wrong it is the one that says so, and in a
 * sound one none says anything. And docs/INVARIANTS.md lists them all, as they are.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { auditAll, BOOKS, INVARIANTS } from '../../check/invariants/index.ts';
import { Account, Env, Extent, Info, PageKind, Queued, Start } from '../../kernel/abi.ts';
import { CAP_WORDS, Cpu, PageRecord, Private, type State } from '../../kernel/exokernel/state.ts';
import type { Table } from '../../kernel/supervisor.ts';
import { PAGE_BYTES, PAGE_WORDS } from '../../machine/units.ts';
import type { Raw } from '../../check/invariants/raw.ts';
import { World } from '../kernel/refusals/index.ts';

const ALL = [...INVARIANTS, ...BOOKS];

/** A word of memory, and what is to stand there instead of what does. */
type Change = readonly [word: number, value: number];
interface Ruin {
  readonly what: string;
  readonly words: (world: World, raw: Raw, state: State) => readonly Change[];
}
const cell = (table: Table, row: number, column: number): number =>
  table.firstPage * PAGE_WORDS + row * table.columns + column;
const entry = (table: number, index: number): number => table * PAGE_WORDS + index * 2;
const RIGHTS = PageRecord.access + 2;
const W = 4; // of an entry

/** Of each invariant, something that only it, or it as well, must see. */
const RUINS: Readonly<Record<string, Ruin>> = {
  'MEM-01': {
    what: 'a page of the kernel is said to be free',
    words: (_, __, { pageWord, firstPrivate }) => [[cell(pageWord, firstPrivate, 0), 0]],
  },
  'MEM-02': {
    what: 'a user page that nobody pays for',
    words: ({ own }, _, { pageWord }) => [[cell(pageWord, own, 0), PageKind.user]],
  },
  'MEM-03': {
    what: 'an access entry that is gone, and its leaf is not',
    words: ({ borrowed }, raw, { page }) => [
      [cell(page, borrowed, RIGHTS + CAP_WORDS), raw.page(borrowed, RIGHTS + CAP_WORDS) & ~1],
    ],
  },
  'MEM-04': {
    what: 'a writable leaf by a capability to read',
    words: ({ a }, raw, { secret }) => {
      const at = Private.caps + 2;
      return [[cell(secret, a.row, at), raw.secret(a.row, at) & ~2]];
    },
  },
  'MEM-05': {
    what: 'a leaf that names no memory',
    words: ({ a }, raw) => [[entry(a.leaf, 300), (raw.pages << 10) | 0x13]],
  },
  'MEM-06': {
    what: 'a table that hangs in two places',
    words: ({ a }, raw) => [[entry(a.middle, 200), raw.entry(a.middle, 0)]],
  },
  'MEM-07': {
    what: 'a view of a table that can be written',
    words: ({ a }, raw) => [[entry(a.leaf, Start.infoPage), raw.entry(a.leaf, Start.infoPage) | W]],
  },
  'MEM-08': {
    what: 'a leaf that shows the kernel',
    words: ({ a, kernel }, _) => [[entry(a.leaf, 300), (kernel << 10) | 0x13]],
  },
  'MEM-13': {
    what: 'a page that counts a leaf too many',
    words: ({ mapped }, raw, { page }) => [
      [cell(page, mapped, PageRecord.leaves), raw.page(mapped, PageRecord.leaves) + 1],
    ],
  },
  'MEM-14': {
    what: 'a free page that is pinned',
    words: ({ free }, _, { page }) => [[cell(page, free, PageRecord.pins), 1]],
  },
  'MEM-15': {
    what: 'a request to a page that is free',
    words: ({ free }, raw, { queue }) => [
      [cell(queue, 0, Queued.pages), free | (raw.queued(0, Queued.pages) & ~0x0fffffff)],
    ],
  },
  'TLB-01': {
    what: 'a leaf for reading, and the TLB lets it be written',
    words: ({ a }, raw) =>
      [Start.stackPage].map((index) => [entry(a.leaf, index), raw.entry(a.leaf, index) & ~W]),
  },
  'TLB-04': {
    what: 'a leaf that is gone, and the TLB still has it',
    words: ({ a }) => [[entry(a.leaf, Start.stackPage), 0]],
  },
  'CAP-02': {
    what: 'a capability whose name is too long',
    words: ({ b }, raw, { secret }) => {
      const at = Private.caps;
      return [[cell(secret, b.row, at), raw.secret(b.row, at) | 15]];
    },
  },
  'CAP-03': {
    what: 'a list that does not begin where it does',
    words: ({ mapped }, _, { page }) => [[cell(page, mapped, RIGHTS + 1), 0]],
  },
  'CAP-14': {
    what: 'a slot that is emptied, and justifies leaves',
    words: ({ a }, _, { secret }) => [[cell(secret, a.row, Private.caps + 2), 0]],
  },
  'DSK-01': {
    what: 'two extents of the same block',
    words: (_, raw, { extent }) => [[cell(extent, 1, Extent.first), raw.extent(0, Extent.first)]],
  },
  'DSK-02': {
    what: 'a request beyond its extent',
    words: (_, raw, { queue }) => [[cell(queue, 0, Queued.block), raw.machine.disk.blocks]],
  },
  'CPU-01': {
    what: 'who runs waits for a call',
    words: ({ a }, _, { env }) => [[cell(env, a.row, Env.state), 5]],
  },
  'UPC-01': {
    what: 'who runs has another root',
    words: ({ b }, raw, { env }) => [
      [cell(env, raw.cpu(Cpu.current), Env.root), raw.env(b.row, Env.root)],
    ],
  },
  'IPC-06': {
    what: 'a queue that has lost its end',
    words: ({ a }, _, { secret }) => [[cell(secret, a.row, Private.queueTail), 3]],
  },
  'KM-07': {
    what: 'one request more than is told',
    words: (_, raw, { info }) => [[cell(info, 0, Info.diskQueued), raw.info(Info.diskQueued) - 1]],
  },
  'AVL-03': {
    what: 'an allotment out of nothing',
    words: (_, raw, { account }) => [
      [cell(account, 2, Account.limit), raw.account(2, Account.limit) + 1],
    ],
  },
  'KM-02': {
    what: 'a page that is charged twice',
    words: (_, raw, { account }) => [
      [cell(account, 1, Account.used), raw.account(1, Account.used) + 1],
    ],
  },
  'ACC-01': {
    what: 'a child that is not counted',
    words: (_, raw, { account }) => [
      [cell(account, 1, Account.children), raw.account(1, Account.children) - 1],
    ],
  },
  'ACC-02': {
    what: 'a page of a name that its payer has no say over',
    words: ({ own }, raw, { page }) => [
      [cell(page, own, RIGHTS - 2), raw.page(own, RIGHTS - 2) ^ 0x700],
    ],
  },
  'ACC-03': {
    what: 'a page that is kept, and not counted',
    words: ({ own }, raw, { pageWord }) => [
      [cell(pageWord, own, 0), (1 << 30) | raw.word(pageWord.firstPage, own)],
    ],
  },
  'ACC-04': {
    what: 'an environment that nobody pays for',
    words: ({ b }, _, { env }) => [[cell(env, b.row, Env.account), 60]],
  },
};

const world = new World();
const { raw, machine } = world.rig;

test('a sound machine has no breach', () => {
  expect(auditAll(raw, true)).toEqual([]);
});

test.each(Object.entries(RUINS))('%s is seen', (id, { words }) => {
  // The stack of whoever runs is in the TLB.
  world.rig.does(world.a.row, function* (port) {
    port.store32(Start.stackPage * PAGE_BYTES + 2000, 1) ?? (yield* port.fault());
  });
  const { i32 } = machine.memory;
  const changes = words(world, raw, world.rig.kernel.state);
  const before = changes.map(([word]) => i32[word] ?? 0);
  for (const [word, value] of changes) i32[word] = value;
  const told = auditAll(raw, true).filter((line) => line.startsWith(`${id}:`));
  changes.forEach(([word], n) => (i32[word] = before[n] ?? 0));
  expect(told).not.toEqual([]);
  expect(auditAll(raw, true), 'it was put back').toEqual([]);
});

test('there is a ruin for every invariant', () => {
  expect(Object.keys(RUINS).sort()).toEqual(ALL.map(({ id }) => id).sort());
});

// ---- the document -------------------------------------------------------------------------------

describe('docs/INVARIANTS.md', () => {
  const text = readFileSync('docs/INVARIANTS.md', 'utf8');
  const read = (path: string): string => readFileSync(path, 'utf8');
  const rows = text
    .split('\n')
    .filter((line) => /^\| [A-Z]+-\d/.test(line))
    .map((line) => line.slice(2, -2).split(' | '));

  test('lists the invariants in the order of the code, by id and sentence', () => {
    const listed = rows.filter((row) => row.length === 4).map(([id, sentence]) => [id, sentence]);
    expect(listed).toEqual(ALL.map(({ id, sentence }) => [id, sentence]));
  });

  test('says of each where the kernel keeps it: functions that are there', () => {
    for (const [id, , kept = ''] of rows.filter((row) => row.length === 4)) {
      const places = [...kept.matchAll(/`([\w-]+\.ts):(#?\w+)`/g)];
      expect(places.length, id).toBeGreaterThan(0);
      for (const [, file = '', name = ''] of places) {
        const source = read(`kernel/exokernel/${file}`);
        const declared = new RegExp(`(function|const) ${name}\\b|^  ${name}\\(`, 'm');
        expect(declared.test(source), `${file}:${name}`).toBe(true);
      }
    }
  });

  test('names tests that are there', () => {
    const named = [...text.matchAll(/`(test\/[\w/.-]+\.test\.ts)`: "([^"]+)"/g)];
    expect(named.length).toBeGreaterThan(60);
    for (const [, file = '', title = ''] of named) {
      // Titles stand in quotes of three kinds; the number of programs is put in.
      const source = read(file);
      expect(source.includes(title), `${file}: ${title}`).toBe(true);
    }
  });

  test('has every id of the catalogue once', () => {
    const families = { MEM: 20, TLB: 6, CAP: 16, DSK: 20, CPU: 15, IPC: 9, NET: 10, UPC: 8 };
    const more = { KM: 10, CON: 11, AVL: 8, NI: 17, HYP: 20 };
    const ids = rows.flatMap(([first = '']) =>
      first.split(', ').flatMap((part) => {
        const [from = '', to = from] = part.split(' to ');
        const [family = '', low] = from.split('-');
        const [, high] = to.split('-');
        const count = Number(high) - Number(low) + 1;
        return Array.from(
          { length: count },
          (_, n) => `${family}-${String(Number(low) + n).padStart(2, '0')}`,
        );
      }),
    );
    const due = Object.entries({ ...families, ...more, ACC: 4 }).flatMap(([family, count]) =>
      Array.from({ length: count }, (_, n) => `${family}-${String(n + 1).padStart(2, '0')}`),
    );
    expect(ids.toSorted()).toEqual(due.toSorted());
  });
});
