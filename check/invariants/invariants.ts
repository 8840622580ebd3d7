/**
 * The invariants of protection, as data: an id of the catalogue, what it says, and a function that
 * computes it from machine truth by a second route. Each looks at all pages, environments, slots
 * and requests, never at what was touched last. docs/INVARIANTS.md says of each where the kernel
 * keeps it, and which test dies without it.
 */
import {
  ACCESS_ENTRIES,
  CAP_SLOTS,
  Env,
  envIndex,
  EnvState,
  Extent,
  Info,
  PageKind,
  Queued,
  READ,
  WRITE,
} from '../../kernel/abi.ts';
import { Cpu, PageRecord, Private } from '../../kernel/exokernel/state.ts';
import {
  Bit,
  bytesOf,
  emptyProblem,
  type Facts,
  type Invariant,
  isGivenKind,
  isGoing,
  isPrefix,
  isTableKind,
  isWellFormed,
  type Leaf,
  listProblem,
  viewList,
  VPNS,
} from './facts.ts';

const NONE: ReadonlySet<number> = new Set<number>();
const at = ({ page, vpn, env }: Leaf): string => `page ${page} at ${vpn} of environment ${env}`;
const needOf = ({ flags }: Leaf): number => READ | ((flags & Bit.W) !== 0 ? WRITE : 0);

/** Leaves that stand by a slot and an access entry; what is being taken away justifies nothing. */
const standing = ({ leaves, raw }: Facts): Leaf[] =>
  leaves.filter(
    ({ kind, page, slot, entry }) =>
      kind === PageKind.user &&
      slot < CAP_SLOTS &&
      entry < ACCESS_ENTRIES &&
      !isGoing(raw, page, entry),
  );

export const INVARIANTS: readonly Invariant[] = [
  {
    id: 'MEM-01',
    sentence:
      'Every page has exactly one kind, and it is what the layout and the tables make of it.',
    check: ({ raw, pages, ledgers }, say) => {
      const { info, secret, end } = raw.state;
      const serves = new Set(ledgers.map(([ledger]) => ledger));
      for (const page of pages) {
        const kind = raw.kind(page);
        const published = page >= info.firstPage && page < secret.firstPage;
        const kernel = page >= secret.firstPage && page < end;
        say(kind <= PageKind.quarantined, () => `page ${page} has kind ${kind}`);
        say(published === (kind === PageKind.published), () => `page ${page}: published`);
        say(kernel === (kind === PageKind.kernel), () => `page ${page}: kernel`);
        say(serves.has(page) === (kind === PageKind.ledger), () => `page ${page}: ledger`);
      }
    },
  },
  {
    id: 'MEM-02',
    sentence: 'A page is free if and only if nobody pays for it, and whose it is has a name.',
    check: ({ raw, pages, ledgers }, say) => {
      const serves = new Set(ledgers.map(([ledger]) => ledger));
      const unpaid: readonly number[] = [PageKind.free, PageKind.published, PageKind.kernel];
      for (const page of pages) {
        const kind = raw.kind(page);
        const owned = !unpaid.includes(kind);
        const account = raw.accountOf(page);
        say(owned === account > 0, () => `page ${page} of kind ${kind}: account ${account}`);
        const belongs = isTableKind(kind) || serves.has(page);
        say(belongs === raw.envOf(page) > 0, () => `page ${page}: environment ${raw.envOf(page)}`);
        const named = raw.access(page, 0).rights > 0;
        const due = owned && kind !== PageKind.quarantined;
        say(named === due, () => `page ${page} of kind ${kind}: access entry 0`);
      }
    },
  },
  {
    id: 'MEM-03',
    sentence: 'Whoever maps a user page does so by an access entry that grants as much now.',
    check: (facts, say) => {
      for (const leaf of standing(facts)) {
        const { rights } = facts.raw.access(leaf.page, leaf.entry);
        const need = needOf(leaf);
        say((rights & need) === need, () => `${at(leaf)}: entry ${leaf.entry} grants less`);
      }
    },
  },
  {
    id: 'MEM-04',
    sentence: 'And by a capability of its own that dominates the entry, with as many rights, now.',
    check: (facts, say) => {
      const { raw, leaves } = facts;
      for (const leaf of leaves) {
        const known = leaf.slot < CAP_SLOTS && leaf.entry < ACCESS_ENTRIES;
        say(!isGivenKind(leaf.kind) || known, () => `${at(leaf)}: bad justification`);
      }
      for (const leaf of standing(facts)) {
        const cap = raw.cap(leaf.env, leaf.slot);
        const granted = raw.access(leaf.page, leaf.entry);
        const need = needOf(leaf);
        say((cap.rights & need) === need, () => `${at(leaf)}: slot ${leaf.slot} has less`);
        const under = isPrefix(bytesOf(cap), bytesOf(granted));
        say(under, () => `${at(leaf)}: slot ${leaf.slot} strays`);
      }
    },
  },
  {
    id: 'MEM-05',
    sentence: 'What a walk of the tables finds is memory, for every address of every environment.',
    check: ({ leaves }, say) => {
      for (const leaf of leaves) say(leaf.kind >= 0, () => `${at(leaf)} is beyond memory`);
    },
  },
  {
    id: 'MEM-06',
    sentence: 'A table hangs in one place, at its own level, under its own environment’s root.',
    check: ({ raw, pages, hangs, ledgers }, say) => {
      const up = new Map<number, number>();
      for (const { page, kind, env, sound } of hangs) {
        up.set(page, (up.get(page) ?? 0) + 1);
        say(sound, () => `an entry under the root of ${env} is no pointer: to ${page}`);
        say(raw.kind(page) === kind, () => `page ${page} is used as kind ${kind}`);
        say(raw.envOf(page) === env, () => `table ${page} hangs under ${env}`);
      }
      for (const page of pages) {
        const due = isTableKind(raw.kind(page)) ? 1 : 0;
        say((up.get(page) ?? 0) === due, () => `page ${page} hangs in ${up.get(page)} places`);
      }
      const tables = new Map<number, number>();
      for (const [ledger, table] of ledgers) {
        say(!tables.has(ledger), () => `ledger ${ledger} serves two tables`);
        tables.set(ledger, table);
        say(raw.envOf(ledger) === raw.envOf(table), () => `ledger ${ledger} is not its table’s`);
      }
    },
  },
  {
    id: 'MEM-07',
    sentence: 'No user writes a table, a ledger or the kernel, and the kernel’s half is its own.',
    check: ({ raw, leaves, envs }, say) => {
      for (const leaf of leaves) {
        const { flags, kind } = leaf;
        const plain = (flags & (Bit.U | Bit.G | Bit.X | Bit.R)) === (Bit.U | Bit.R);
        say(plain, () => `${at(leaf)} has flags ${flags}`);
        const writable = (flags & Bit.W) !== 0;
        say(isGivenKind(kind) || !writable, () => `${at(leaf)} of kind ${kind} is writable`);
      }
      const direct = Bit.V | Bit.R | Bit.W | Bit.G | Bit.A | Bit.D;
      for (const env of envs) {
        const root = raw.env(env, Env.root);
        for (let top = 256; top < 512; top++) {
          const due = top === 256 ? direct : 0;
          say(raw.entry(root, top) === due, () => `root ${root}[${top}] is not the direct map`);
        }
      }
    },
  },
  {
    id: 'MEM-08',
    sentence: 'Of what is not a user page users see published pages and views of tables, no more.',
    check: ({ leaves }, say) => {
      for (const leaf of leaves) {
        const { kind } = leaf;
        const seen = kind === PageKind.published || isTableKind(kind) || isGivenKind(kind);
        say(seen, () => `${at(leaf)} of kind ${kind} is seen`);
      }
    },
  },
  {
    id: 'MEM-13',
    sentence: 'Counts of leaves, writers, views, pins and entries are what they count.',
    check: (facts, say) => {
      const { raw, pages, pins, views, writers, mapped, filled, envs, justified } = facts;
      for (const page of pages) {
        const count = (word: number): number => raw.page(page, word);
        const kind = raw.kind(page);
        const pinned = pins.get(page) ?? 0;
        if (pinned > 0) facts.witness.pinned++;
        say(count(PageRecord.pins) === pinned, () => `page ${page} has ${pinned} pins`);
        const seen = views.get(page) ?? writers.get(page) ?? 0;
        say(count(PageRecord.views) === seen, () => `page ${page} has ${seen} views or writers`);
        const leaves = isTableKind(kind) ? filled.get(page) : mapped.get(page);
        const counted = isTableKind(kind) || isGivenKind(kind);
        const same = count(PageRecord.leaves) === (leaves ?? 0);
        say(!counted || same, () => `page ${page} has ${leaves} leaves or entries`);
      }
      for (const env of envs) {
        for (let slot = 0; slot < CAP_SLOTS; slot++) {
          const { rights, last } = raw.cap(env, slot);
          const due = justified.get(env * CAP_SLOTS + slot) ?? 0;
          say(rights === 0 || last === due, () => `slot ${slot} of ${env} justifies ${due} leaves`);
        }
      }
    },
  },
  {
    id: 'MEM-14',
    sentence: 'Nothing reaches a free page, and something still reaches a quarantined one.',
    check: ({ raw, pages, requests }, say) => {
      for (const page of pages) {
        const word = (n: number): number => raw.page(page, n);
        const kind = raw.kind(page);
        const reached = word(PageRecord.leaves) + word(PageRecord.pins);
        const used = reached !== 0 || word(PageRecord.views) !== 0;
        say(kind !== PageKind.free || !used, () => `free page ${page} is in use`);
        say(kind !== PageKind.quarantined || reached > 0, () => `page ${page} should be free`);
        if (kind !== PageKind.free) continue;
        for (let entry = 0; entry < ACCESS_ENTRIES; entry++) {
          const { rights } = raw.access(page, entry);
          say(rights === 0, () => `free page ${page} has access entry ${entry}`);
        }
      }
      for (const tag of requests) {
        const id = raw.queued(tag, Queued.env);
        const stands = id === -1 || raw.id(envIndex(id)) === id;
        say(stands, () => `disk request ${tag} is of a stale ${id}`);
      }
    },
  },
  {
    id: 'MEM-15',
    sentence: 'A page with a request in flight is a user page, quarantined, or the kernel’s own.',
    check: ({ raw, pins }, say) => {
      for (const page of pins.keys()) {
        const kind = raw.kind(page);
        const may = isGivenKind(kind) || page === raw.state.staging;
        say(may, () => `page ${page} is in flight, of kind ${kind}`);
      }
    },
  },
  {
    id: 'TLB-01',
    sentence: 'A TLB entry is what a walk would find, or weaker.',
    check: ({ raw, leaves, witness }, say) => {
      const walk = new Map(leaves.map((leaf) => [leaf.env * VPNS + leaf.vpn, leaf]));
      for (const { vpn, space, ppn, flags, pages } of raw.machine.hart.tlbEntries()) {
        if ((flags & Bit.G) !== 0) {
          const direct = (flags & Bit.U) === 0 && vpn - ppn === 2 ** 26;
          say(direct, () => `global entry for ${vpn}`);
          continue;
        }
        witness.tlb++;
        const leaf = walk.get(space * VPNS + vpn);
        if (leaf === undefined) continue; // that is TLB-04
        const more = flags & (Bit.R | Bit.W | Bit.X) & ~leaf.flags;
        const weaker = more === 0 && (flags & Bit.U) === (leaf.flags & Bit.U);
        const same = ppn === leaf.page && pages === 1;
        say(same && weaker, () => `TLB maps ${vpn} of space ${space} to ${ppn}, ${flags}`);
      }
    },
  },
  {
    id: 'TLB-04',
    sentence: 'No TLB entry is left of a mapping, a page or an environment that is gone.',
    check: ({ raw, leaves }, say) => {
      const walk = new Set(leaves.map(({ env, vpn }) => env * VPNS + vpn));
      for (const { vpn, space, flags } of raw.machine.hart.tlbEntries()) {
        const stands = (flags & Bit.G) !== 0 || walk.has(space * VPNS + vpn);
        say(stands, () => `TLB maps ${vpn} of space ${space}: no leaf`);
      }
    },
  },
  {
    id: 'CAP-02',
    sentence: 'Names are well formed, and forging has not left the name that it began with.',
    check: ({ raw, envs, pages, open }, say) => {
      for (const page of pages) {
        if (raw.kind(page) !== PageKind.user) continue;
        for (let entry = 0; entry < ACCESS_ENTRIES; entry++) {
          const granted = raw.access(page, entry);
          const fine = granted.rights === 0 || isWellFormed(granted);
          say(fine, () => `page ${page}: the name of entry ${entry}`);
        }
      }
      for (const env of envs) {
        const guard = { a: raw.env(env, Env.nameA), b: raw.env(env, Env.nameB) };
        for (let slot = 0; slot < CAP_SLOTS; slot++) {
          const cap = raw.cap(env, slot);
          if (cap.rights === 0) continue;
          say(isWellFormed(cap), () => `slot ${slot} of ${env} has a malformed name`);
          // Of whom nothing was offered: the first byte, the tenant, stays.
          const same = (cap.a & 0xff) > 0 && bytesOf(cap)[0] === bytesOf(guard)[0];
          say(open || same, () => `slot ${slot} of ${env} is of another tenant`);
        }
      }
    },
  },
  {
    id: 'CAP-03',
    sentence: 'Each access entry’s list has exactly the leaves that it justifies, each once.',
    check: ({ raw, pages, listed }, say) => {
      for (const page of pages) {
        const kind = raw.kind(page);
        const entries = isGivenKind(kind) ? [0, 1, 2, 3] : isTableKind(kind) ? [viewList] : [];
        if (isTableKind(kind)) {
          say(raw.access(page, 0).last === 0, () => `table ${page} has a list of leaves`);
        }
        for (const entry of entries) {
          const due = listed.get(page * ACCESS_ENTRIES + entry) ?? NONE;
          const empty = raw.access(page, entry).rights === 0 && !isGoing(raw, page, entry);
          const idle = kind === PageKind.user && empty;
          const wrong = idle
            ? emptyProblem(raw, page, entry, due.size)
            : listProblem(raw, page, entry, due);
          say(wrong === '', () => `list of page ${page}, entry ${entry}: ${wrong}`);
        }
      }
    },
  },
  {
    id: 'CAP-14',
    sentence: 'An empty slot justifies nothing.',
    check: ({ raw, envs, justified }, say) => {
      for (const env of envs) {
        for (let slot = 0; slot < CAP_SLOTS; slot++) {
          const count = justified.get(env * CAP_SLOTS + slot) ?? 0;
          const stands = raw.cap(env, slot).rights > 0 || count === 0;
          say(stands, () => `empty slot ${slot} of ${env} justifies ${count} leaves`);
        }
      }
    },
  },
  {
    id: 'DSK-01',
    sentence: 'A block is in one extent at most, and none is beyond the disk.',
    check: ({ raw }, say) => {
      const taken = new Set<number>();
      for (let extent = 0; extent < raw.state.extent.rows; extent++) {
        if (raw.extent(extent, Extent.valid) === 0) continue;
        const first = raw.extent(extent, Extent.first);
        for (let n = 0; n < raw.extent(extent, Extent.count); n++) {
          const block = first + n;
          say(!taken.has(block), () => `block ${block} is in two extents`);
          say(block < raw.machine.disk.blocks - 2, () => `block ${block} is no extent’s`);
          taken.add(block);
        }
      }
    },
  },
  {
    id: 'DSK-02',
    sentence: 'A request in flight lies within one extent that stands, which counts it.',
    check: ({ raw, requests }, say) => {
      const transfers = new Map<number, number>();
      for (const tag of requests) {
        const extent = raw.queued(tag, Queued.extent);
        if (extent < 0) continue; // the kernel's own, of the extent table
        transfers.set(extent, (transfers.get(extent) ?? 0) + 1);
        const from = raw.queued(tag, Queued.block) - raw.extent(extent, Extent.first);
        const end = from + raw.queued(tag, Queued.count);
        const inside = from >= 0 && end <= raw.extent(extent, Extent.count);
        const stands = raw.extent(extent, Extent.valid) !== 0;
        say(inside && stands, () => `request ${tag} leaves extent ${extent}`);
      }
      for (let extent = 0; extent < raw.state.extent.rows; extent++) {
        const count = raw.extent(extent, Extent.transfers);
        const due = transfers.get(extent) ?? 0;
        say(count === due, () => `extent ${extent} counts ${count} transfers, not ${due}`);
      }
    },
  },
  {
    id: 'CPU-01',
    sentence: 'Who has the CPU is ready, and alone.',
    check: ({ raw }, say) => {
      const current = raw.cpu(Cpu.current);
      if (current === 0) return;
      const ready = raw.stateOf(current) === EnvState.ready;
      say(ready, () => `${current} runs and is not ready`);
      say(raw.cpu(Cpu.installed) === current, () => `${current} runs in another’s space`);
    },
  },
  {
    id: 'UPC-01',
    sentence: 'And runs in its own address space: its root, its ASID.',
    check: ({ raw }, say) => {
      const current = raw.cpu(Cpu.current);
      if (current === 0) return;
      const { root, asid } = raw.machine.regime();
      say(root === raw.env(current, Env.root), () => `${current} runs on root ${root}`);
      say(asid === current, () => `${current} runs with ASID ${asid}`);
    },
  },
  {
    id: 'IPC-06',
    sentence: 'Who waits at a door stands in its queue exactly once, and the queue has its ends.',
    check: ({ raw, envs, witness }, say) => {
      const queued = new Set<number>();
      for (const server of envs) {
        if (raw.stateOf(server) === EnvState.zombie) witness.zombies++;
        let last = 0;
        let next = raw.secret(server, Private.queueHead);
        for (let hops = 0; next !== 0 && hops < raw.rows; hops++) {
          const caller = next;
          witness.queued++;
          say(!queued.has(caller), () => `environment ${caller} stands in two queues`);
          queued.add(caller);
          const calls = raw.stateOf(caller) === EnvState.calling;
          say(calls, () => `${caller} stands in a queue and does not call`);
          const here = raw.env(caller, Env.partner) === raw.id(server);
          say(here, () => `${caller} queues at the wrong door`);
          last = caller;
          next = raw.secret(caller, Private.queueNext);
        }
        say(next === 0, () => `the queue of ${server} is a ring`);
        const tail = raw.secret(server, Private.queueTail);
        say(tail === last, () => `the queue of ${server} ends at ${last}, not at ${tail}`);
      }
      for (const env of envs) {
        const stands = raw.secret(env, Private.queuePrevious) !== 0;
        // Whose callee has been reaped stands in a queue without ends until he would be run.
        const gone = !raw.live(raw.env(env, Env.partner));
        const right = stands ? gone || queued.has(env) : !queued.has(env);
        say(right, () => `${env}: queued?`);
      }
    },
  },
  {
    id: 'KM-07',
    sentence: 'Requests in flight are as many as the information page says.',
    check: ({ raw, requests }, say) => {
      const told = raw.info(Info.diskQueued);
      say(told === requests.length, () => `${requests.length} requests in flight, told ${told}`);
    },
  },
];
