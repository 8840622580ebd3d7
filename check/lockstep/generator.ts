/**
 * Random programs. Most steps are valid calls, as far as the moment allows; of the others one
 * operand is a near miss, now and then two. Noise finds nothing.
 */
import type { CallName } from '../../kernel/abi.ts';
import { Entry, frameOf } from './lockstep.ts';
import { isCall, parse, type Step } from './program.ts';

/** A source of numbers: the next, from 0 to below `n`. */
export type Dice = (n: number) => number;

/** Programs differ, seeds agree: mulberry32. */
export function dice(seed: number): Dice {
  let state = seed >>> 0;
  return (n) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * n);
  };
}

/**
 * Forms of steps: how often, and the step, in which `~` is any number, and `?` one below 16. Calls
 * that build state come more often than those that take a program out.
 */
const FORMS: readonly (readonly [weight: number, step: string])[] = (
  [
    ['null', 0.5],
    ['yield ready~ | yield -1 | yield other~', 2],
    ['sleep seen ? 0 0 | sleep seen 6000 0 0 | sleep -1 -1 0 0 | sleep seen -1 0 0', 1],
    ['sleep seen ?00 list 1 : pair~ test~ ? 7 | sleep seen -1 list 1 : pair~ test~ 0 7', 1],
    ['sleep seen 7000 list 2 : pair~ test~ ? 7 pair~ test~ ? 8', 0.5],
    ['sleep seen 0 list 1 : published~ test~ ? 9 | sleep seen 0 list 1 : table~ 0 0 9', 0.5],
    ['sleep seen 0 list 1 : mispair~ mistest~ 0 9 | sleep seen 0 list 1 : pair~ mistest~ 0 9', 1],
    ['notify self 0 | notify child~ over', 2],
    ['envCreate row~ idle~ by under~ -1 -1 | envCreate row~ idle~ by under~ other~ -1', 3],
    [
      'envCreate row~ idle~ by under~ -1 account~ | envCreate row~ idle~ full~ deeper~ self any~',
      1,
    ],
    ['envStart made~ 0 0 ? ? over', 4],
    ['envDestroy kid~ over ? | envDestroy kid~ over ? | envDestroy self 0 1', 1.5],
    ['envReap zombie~ over | envReap zombie~ over | envReap child~ over', 2],
    ['envSuspend kid~ over 1 | envSuspend suspended~ over 0 | envSuspend suspended~ over 0', 1],
    ['upcallSet 0 2 FRAME0 | upcallSet 1 3 FRAME1 | upcallSet 2 4 FRAME2', 1],
    ['upcallSet 3 5 FRAME3 | upcallSet 4 6 FRAME4 | upcallSet 2 -1 0 | upcallSet 1 -1 0', 1],
    ['pageAllocate free~ full~ | pageAllocate free~+tag full~', 6],
    ['pageFree idle~ by | pageFree own~ by', 2],
    ['accessAdd own~ by hole~ under~ 1 | accessAdd own~ by hole~ guard~ 3', 3],
    ['accessAdd own~+tag by hole~ guard~ 15', 1],
    ['accessRemove shared~ by entry~ | accessRemove mapped~ by 0', 2],
    ['tableCreate root~ hook~ idle~ by 0 0 over', 1],
    ['tableCreate middle~ hook~ idle~3 by idle~4 idle~5 over', 3],
    ['tableCreate middle~ ? idle~ by idle~ loose~ over', 1],
    ['tableDestroy bare~ over | tableDestroy bare~ over | tableDestroy leaf~ over', 1.5],
    ['pageMap leaf~ gap~ usable~ by its 2 over | pageMap leaf~ gap~ writable~ by its 6 over', 8],
    ['pageMap leaf~ gap~ published~ 0 0 2 over | pageMap leaf~ gap~ view~ 0 0 2 over', 1],
    ['pageMap ownleaf~ gap~ table~ 0 0 2 mine~ | pageMap ownleaf~ gap~ table~ 0 0 2 empty~', 0.5],
    ['pageMapList leaf~ gap~ 2 list by 2 over : pair~ pair~', 1],
    ['pageMapList leaf~ place~ 3 list by 6 over : wpair~ wpair~ wpair~', 1],
    ['pageMapList leaf~ place~ 1 list by 2 over : mispair~', 0.25],
    ['pageMapList leaf~ gap~ 1 list mine~ 2 over : mispair~', 0.25],
    ['pageMapList leaf~ 300 17 list by 2 over : pair~ MANY', 1],
    [
      'pageUnmap leaf~ filled~ 1 over | pageUnmap leaf~ 256 8 over | pageUnmap leaf~ 300 64 over',
      3,
    ],
    ['pageUnmap leaf~ 0 64 over | pageUnmap leaf~ 0 65 over', 0.5],
    ['pageUnmap strangerleaf~ place~ 1 mine~ | pageProtect strangerleaf~ place~ 1 2 mine~', 0.5],
    ['pageMapList strangerleaf~ place~ 1 0 0 2 mine~', 0.25],
    ['pageMap strangerleaf~ place~ own~ by 0 2 mine~', 0.25],
    ['pageMapList strangerleaf~ place~ 1 0 0 2 empty~', 0.3],
    ['pageProtect leaf~ filled~ 1 2 over | pageProtect leaf~ filled~ 1 6 over', 2],
    ['pageProtect leaf~ 256 8 6 over | pageProtect leaf~ 300 64 6 over', 1],
    ['pageProtect ownleaf~ 340 17 6 over | pageProtect ownleaf~ 340 65 6 over', 0.5],
    ['pageMapList ownleaf~ gap~ 1 list by 6 over : wpair~', 0.25],
    ['pageProtect ownleaf~ filled~ 1 6 over', 0.25],
    ['pageLimit own~ by 17 0 | pageLimit mapped~ by -1 0', 0.5],
    ['pageCopy writable~ by its usable~ by its', 1],
    ['pageCopy usable~ by its writable~ by its | pageCopy own~ by ? own~ by ?', 0.5],
    ['pageLimit own~ by -1 -1 | pageLimit own~ by ? ? | pageLimit own~ by 1 1', 1],
    ['pageLimit mapped~ by -1 0', 0.3],
    [
      'pageKeep loose~ by 1 | pageKeep loose~ by 1 | pageKeep loose~ by 0 | pageKeep own~ by 1',
      1.5,
    ],
    ['pageSweep quarantined~', 2],
    ['capForge self empty~ full~ under~ ? | capForge kid~ empty~ over under~ 15', 3],
    ['capDrop self cap~ 0 | capDrop kid~ cap~ over', 1],
    ['capOffer other~ full~ under~ 15 | capOffer kid~ full~ under~ ?', 2],
    ['capAcquire offering~ empty~ | capAcquire offering~ empty~ | capAcquire offering~ mine~', 3],
    ['accountCreate opening~ account~ over deeper~ ?', 1],
    ['accountMove purse~ any~ over ? 1 | accountMove purse~ account~ over 0 2', 2],
    ['accountMove purse~ account~ over 1 1 | accountMove purse~ account~ over 2 1', 1],
    ['accountMove purse~ account~ over 3 1 | accountMove purse~ account~ over 4 1', 1],
    ['accountClose poor~ over', 1],
    ['revoke ward~ over any~ 0 84 1 10000 | revoke ward~ over purse~ 0 84 2 12000', 3],
    ['revoke ward~ over purse~ 0 84 0 10000 | revoke ward~ over purse~ 0 84 4 10000', 1],
    ['repossess ripe~ over asked~ | repossess due~ over asked~ | repossess ripe~ over page~', 5],
    [
      'repossess ward~ over page~ | repossess ripe~ mine~ page~ | repossess ripe~ empty~ page~',
      0.6,
    ],
    ['accountClose account~ ? | accountClose account~ mine~', 0.5],
    [
      'ipcCall waiting~ 1 2 3 4 foreign~ mine~ 257 | ipcSend waiting~ 1 2 3 4 foreign~ mine~ 257',
      0.4,
    ],
    ['ipcReplyWait client~ 1 2 3 4 foreign~ mine~ 257', 0.4],
    ['ipcReplyWait client~ 1 2 3 4 own~ empty~ 257 | ipcReplyWait client~ 1 2 3 4 own~ by ?', 0.4],
    ['envStart made~ 0 0 1 2 empty~', 0.2],
    ['envReap zombie~ empty~', 0.2],
    ['sliceAllocate vacantslice~ kid~ empty~', 0.2],
    ['tableCreate middle~ 0 idle~3 by idle~4 idle~5 over', 0.5],
    ['tableCreate anymiddle~ 3 idle~3 by idle~4 idle~5 mine~', 0.5],
    ['tableCreate anymiddle~ 3 idle~3 by idle~4 idle~5 empty~', 0.3],
    ['pageCopy own~ by 0 foreign~ mine~ 0 | pageCopy foreign~ mine~ 0 own~ by 0', 0.4],
    ['pageCopy own~ by 0 idle~ empty~ 0 | pageCopy own~ empty~ 0 idle~ by 0', 0.4],
    ['pageLimit foreign~ mine~ 1 1 | accessAdd foreign~ mine~ 1 under~ 1', 0.3],
    ['saveBlock ? extent~ over ? | saveBlock ? -1 full~ 0 | saveBlock ? anyextent~ full~ ?', 2],
    ['sliceAllocate vacantslice~ self over | sliceAllocate vacantslice~ kid~ over', 3],
    ['sliceFree heldslice~ mine~ | sliceFree slice~ over', 1.5],
    [
      'ipcWindow ownleaf~ gap~ mine~ | ipcWindow ownleaf~ gap~ mine~ | ipcWindow leaf~ gap~ mine~',
      3,
    ],
    ['ipcCall waiting~ 1 2 3 4 -1 0 0 | ipcCall open~ 1 2 3 4 own~ by grant~', 4],
    ['ipcCall other~ 1 2 3 4 -1 0 0', 1],
    ['ipcCall open~ 1 2 3 4 shared~ by 257 | ipcSend open~ 1 2 3 4 shared~ by 513', 0.7],
    ['ipcSend waiting~ 1 2 3 4 -1 0 0 | ipcSend open~ 5 6 7 8 own~ by grant~', 3],
    ['ipcReplyWait -1 0 0 0 0 -1 0 0 | ipcReplyWait client~ 5 6 7 8 -1 0 0', 4],
    ['ipcReplyWait guest~ 5 6 7 8 own~ by grant~ | ipcReplyWait guest~ 5 6 7 8 shared~ by 257', 3],
    ['extentSplit extent~ over vacantextent~ 2 under~', 1],
    ['extentSplit extent~+tag over vacantextent~ 1 under~', 1],
    ['extentJoin joint~ over next', 1],
    ['extentJoin first~ over next', 1],
    ['extentJoin extent~ over anyextent~', 1],
    ['diskRequest extent~ over 0 1 list by 0 : wpair~', 1.5],
    ['diskRequest extent~ over 1 1 list by 1 : pair~', 1.5],
    [
      'diskRequest extent~ over 0 2 list by 3 : pair~ pair~ | diskRequest extent~ over 0 0 0 0 4',
      1,
    ],
    ['diskRequest extent~ over 0 1 list by 1 : mispair~', 0.25],
    ['diskRequest extent~ over 0 1 list mine~ 0 : mispair~', 0.25],
    ['consoleWrite list 9 | consoleWrite 4098 ?', 1],
    ['batch batch 3 : null : pageAllocate free~ full~ : accessAdd own~ by hole~ guard~ 3', 1],
    ['batch batch 2 : pageFree idle~ by : notify self 0', 1],
    ['work ?00 | work 4000 | work 12000', 4],
    ['load PLACE | store PLACE ? | load STACK | store STACK ?', 4],
    ['throw | return', 0.2],
    ['spoil ?', 0.3],
    ['type 1 65 | type 2 ? | type 20 9', 0.5],
    ['consoleRead', 0.5],
    ['trap 99 | trap -1 | trap 1.5', 0.2],
  ] as const
).flatMap(([forms, weight]) => {
  const all = forms.split(' | ');
  return all.map((form) => [weight / all.length, form] as const);
});
const TOTAL = FORMS.reduce((sum, [weight]) => sum + weight, 0);

/** Near misses, by what they stand in for: the first that fits. */
const MISSES: readonly (readonly [of: RegExp, misses: readonly string[]])[] = (
  [
    [/^(by|over|full|mine|giver|empty|cap)/, 'empty~ mine~ giver~ ? 16 -1 NaN 1.5 0'],
    [
      /^(own|idle|shared|loose|mapped|free|usable|writable|asked|quarantined|published)/,
      'foreign~ page~ free~ table~ published~ private~ own~ own~+stale mapped~ leaf~ 84 -1 NaN',
    ],
    [
      /^(leaf|ownleaf|root|middle|bare|table|view)/,
      'own~ page~ middle~ root~ table~ free~ leaf~+stale 84 -1 NaN',
    ],
    [
      /^(self|child|kid|made|zombie|dead|suspended|ready|waiting|open|other|client|guest|offering)/,
      'gone~ stranger~ dead~ other~ made~ self child~ 0 -1 NaN 4294967296',
    ],
    [/^(under|guard|deeper|name)/, 'name:9 name:1.17.3.4.5.6.7 guard~ under~ name: name:2 NOT'],
    [
      /^(extent|vacantextent|next|first|joint|anyextent)/,
      'anyextent~ vacantextent~ extent~+stale 8 -1 NaN',
    ],
    [
      /^(account|purse|any|ward|poor|due|ripe|opening)/,
      'any~ account~ opening~ purse~ 0 64 -1 NaN',
    ],
    [/^(slice|vacantslice|heldslice)/, 'slice~ heldslice~ slice~+stale 5 -1 NaN'],
    [/^(gap|place|filled|hook)/, 'filled~ place~ 0 1 255 256 511 512 -1 1.5'],
    [/^(its|hole|entry|grant)/, '0 1 2 3 4 257 513 769 1025 2 -1 NaN entry~'],
  ] as const
).map(([of, misses]) => [of, misses.split(' ')]);
const ODD = (
  '? ? 16 -1 0 1 2 4 8 64 65 257 512 1024 4097 65535 4294967295 4294967296 ' +
  '-2147483649 9007199254740992 NaN 1.5 list 6146'
).split(' ');

function pick<T>(list: readonly T[], roll: Dice): T {
  const one = list[roll(list.length)];
  if (one === undefined) throw new Error('a list to pick from is empty');
  return one;
}

function fill(form: string, roll: Dice): string {
  return form
    .replaceAll(/MANY/g, () => Array.from({ length: 16 }, () => 'again').join(' '))
    .replaceAll(/PLACE/g, () => String((256 + roll(8)) * 4096))
    .replaceAll(/STACK/g, () => String(4096 + 3000 + 4 * roll(8)))
    .replaceAll(/FRAME(\d)/g, (_, kind: string) => String(frameOf(Number(kind))))
    .replaceAll('~', (_, at: number) => (/\d/.test(form[at + 1] ?? '') ? '~' : `~${roll(4096)}`))
    .replaceAll('?', () => String(roll(16)))
    .replaceAll(' : ', ' | ');
}

/** One random step. */
export function randomStep(roll: Dice): Step {
  let left = (roll(2 ** 30) / 2 ** 30) * TOTAL;
  const [, form = 'null'] = FORMS.find(([weight]) => (left -= weight) < 0) ?? [];
  const [step] = parse(fill(form, roll));
  if (step === undefined) throw new Error(`no step: ${form}`);
  const row = roll(3) > 0 ? 1 + roll(9) : 0;
  const operands = [...step.operands];
  const lists = step.lists.map((list) => [...list]);
  // Three in ten have an operand spoilt.
  if (isCall(step.verb)) {
    for (let n = roll(10) < 3 ? 1 + Math.floor(roll(8) / 7) : 0; n > 0; n--) spoil(operands, roll);
    if (lists.length > 0 && roll(8) === 0) spoil(pick(lists, roll), roll);
  }
  return { row, verb: step.verb, operands, lists };
}

function spoil(operands: string[], roll: Dice): void {
  const at = roll(operands.length);
  const was = operands[at];
  if (was === undefined) return;
  const [, misses = ODD] = MISSES.find(([of]) => of.test(was)) ?? [];
  // Anything may stand anywhere, but for names: they are two words.
  const isName = /^(under|guard|deeper|name)/.test(was);
  operands[at] = fill(pick(roll(8) === 0 && !isName ? ODD : misses, roll), roll);
  if (operands[at] === 'NOT') operands.splice(at, 1, fill(pick(ODD, roll), roll), '0');
}

/** What each tenant begins with: handlers, an account with a child that can be asked for pages. */
export const PRELUDE = [1, 2]
  .flatMap((row) =>
    [
      ...[0, 1, 2, 3, 4].map(
        (kind) => `upcallSet ${kind} ${Entry.handler + kind} ${frameOf(kind)}`,
      ),
      `accountCreate ${row + 20} ${row} 0 name:${row}.17 1`,
      `accountMove ${row} ${row + 20} 0 0 5`,
      `accountMove ${row} ${row + 20} 0 2 1`,
      ...[0, 0, 0, 0, 0, 0].map(() => 'pageAllocate free~0 0'),
      `envCreate row~0 idle~0 by name:${row}.17 -1 ${row + 20}`,
      `tableCreate root~1 0 idle~0 by 0 0 over`,
      'tableCreate middle~1 0 idle~0 by idle~1 idle~2 over',
      `accessAdd idle~0 by 1 name:${row}.17 3`,
      'pageMap leaf~1 1 usable~1 by its 6 over',
      'envStart made~0 0 0 1 2 over',
      `ipcWindow ownleaf~0 256 0`,
      // More mappings of one page, by one entry, than a step takes away.
      'pageAllocate free~0 0',
      `accessAdd idle~0 by 2 name:${row} 3`,
      fill('pageMapList ownleaf~0 340 17 list by 2 over : pair~1 MANY', () => 0),
    ].map((line) => `e${row} ${line}`),
  )
  .concat(
    [4, 5].flatMap((row) => [
      ...[0, 1, 3, 4].map(
        (kind) => `e${row} upcallSet ${kind} ${Entry.handler + kind} ${frameOf(kind)}`,
      ),
      `e${row} pageAllocate free~0 0`,
      `e${row} pageAllocate free~0 0`,
      `e${row} pageAllocate free~0 0`,
      fill(`e${row} pageMapList ownleaf~0 300 17 list by 2 over : pair~4 MANY`, () => 0),
      `e${row} ipcWindow ownleaf~0 256 0`,
    ]),
  )
  .join('\n');

export const STEPS = 240; // of a random program, beside the prelude

/** A random program: the prelude, and steps of which some kinds are left out. */
export function randomProgram(roll: Dice, steps = STEPS): Step[] {
  const prelude = parse(PRELUDE);
  // Each program does without some calls, or they would hide what the others do.
  const missing = new Set<string>();
  for (let n = roll(6); n > 0; n--) missing.add(pick(NAMES, roll));
  const random: Step[] = [];
  while (random.length < steps) {
    const step = randomStep(roll);
    if (!missing.has(step.verb)) random.push(step);
  }
  return [...prelude, ...random];
}
const NAMES: readonly CallName[] = [
  ...new Set(FORMS.map(([, form]) => form.split(' ')[0] ?? '').filter(isCall)),
];
