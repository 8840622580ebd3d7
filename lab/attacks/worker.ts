/**
 * Runs attacks in a thread of its own, on a kernel whose every refusal and every fence of the TLB
 * stands behind a switch, by the same transform that check/mutants uses: so it can be said which
 * check stopped an attack, and what comes of the attack without that check.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { register } from 'node:module';
import { parentPort, workerData } from 'node:worker_threads';
import ts from 'typescript';
import { instrument, type Site, SWITCHES } from '../../check/mutants/sites.ts';
import type { TraceEvent } from '../../machine/trace.ts';
import type { RunSpec } from '../author/run.ts';
import { tellVictim, UNHARMED } from './attack.ts';
import { fileOf } from './list.ts';

export interface AttackOrder {
  readonly names: readonly string[];
  /** `capabilities.ts:57` or `capabilities.ts:check`: checks that are switched off */
  readonly off: string | null;
}

export interface Check {
  readonly file: string;
  readonly line: number;
  readonly within: string;
  readonly text: string;
  /** what attacker and victim printed without it */
  readonly without: string;
}

interface Ran {
  readonly name: string;
  /** what attacker and victim printed, and what befell them */
  readonly attacker: string;
  readonly victim: string;
  /** the attacker did what it wanted, or the victim was harmed */
  readonly won: boolean;
  /** the attacker's last */
  readonly refusal: string;
}

export interface Attacked extends Ran {
  /** the check that stopped it: without it the attack succeeds */
  readonly check: Check | null;
}

/** What the thread answers: results, or that no check has the name that was given. */
export type AttackAnswer =
  { readonly results: readonly Attacked[] } | { readonly unknown: readonly string[] };

const ROOT = new URL('../../', import.meta.url);
const KERNEL = ['kernel', 'kernel/exokernel'];
const ATTACKER = 2; // tenant
const ECALL = 8;
const SPEC: RunSpec = {
  mode: 'exokernel',
  tenants: 2,
  memory: 64,
  slice: 100_000,
  seed: 1,
  limit: 1e9,
  revocation: null,
};

/** Puts the kernel's sources behind switches: for modules of this thread that load it from now. */
function instrumentKernel(): Site[] {
  const sites: Site[] = [];
  const sources: Record<string, string> = {};
  for (const folder of KERNEL) {
    for (const name of readdirSync(new URL(folder, ROOT)).sort()) {
      if (!name.endsWith('.ts')) continue;
      const file = `${folder}/${name}`;
      const url = new URL(file, ROOT);
      const made = instrument(file, readFileSync(url, 'utf8'), sites.length + 1);
      sites.push(...made.sites);
      const { outputText } = ts.transpileModule(made.code, {
        compilerOptions: { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext },
      });
      sources[url.href] = outputText;
    }
  }
  register('../../bin/sources.js', { parentURL: import.meta.url, data: sources });
  return sites;
}

const nameOf = ({ file, line }: Site): string => `${file.split('/').at(-1)}:${line}`;
/** What stands between an attack and its victim: a refusal, or that the TLB forgets a binding. */
const isCheck = ({ kind, text }: Site): boolean => kind === 'refusal' || isFence(text);
const isFence = (text: string): boolean => /^(fenceAll|(state\.)?machine\.fence)\(/.test(text);
const functionOf = ({ file, within }: Site): string => `${file.split('/').at(-1)}:${within}`;

async function attack({ names, off }: AttackOrder): Promise<AttackAnswer> {
  const sites = instrumentKernel();
  const checks = sites.filter(isCheck);
  const chosen = checks.filter((site) => nameOf(site) === off || functionOf(site) === off);
  if (off !== null && chosen.length === 0) {
    return { unknown: [...new Set(checks.map(functionOf))].sort() };
  }
  const numbers = (some: readonly Site[]): ReadonlySet<number> =>
    new Set(some.map(({ number }) => number));
  const isRefusal = numbers(checks.filter(({ kind }) => kind === 'refusal'));
  const fences = numbers(checks.filter(({ kind }) => kind !== 'refusal'));
  let isOff: ReadonlySet<number> = new Set();
  let trail: number[] = []; // what refused since the last call, the innermost check first
  let fenced: number[] = []; // fences of the attacker's calls, the innermost first
  let isAttacker = false; // whose call it is
  const $on = (site: number): boolean => {
    if (isOff.has(site)) return false;
    if (isRefusal.has(site)) trail.push(site);
    if (isAttacker && fences.has(site)) fenced.unshift(site);
    return true;
  };
  Object.assign(globalThis, { [SWITCHES]: { $on, $beat: () => undefined } });
  const { runMode } = await import('../author/run.ts');
  const { loadImage } = await import('../author/libos-file.ts');
  const victim = await loadImage(fileOf('victim'));

  /**
   * One run of one attack with some checks off; and what may have stopped it, the innermost first:
   * fences, and the trail of the last refusal.
   */
  const once = async (name: string, without: readonly number[]): Promise<[Ran, number[]]> => {
    const image = await loadImage(fileOf(name));
    isOff = new Set(without);
    let last: number[] = [];
    fenced = [];
    const hear = (event: TraceEvent, tenant: number): void => {
      if (event.what === 'user-trap') isAttacker = tenant === ATTACKER;
      if (tenant !== ATTACKER) return;
      if (event.what === 'user-trap' && event.cause === ECALL) trail = [];
      if (event.what === 'answer' && event.status !== 0 && trail.length > 0) last = trail;
    };
    const files = [fileOf(name), fileOf('hostile')];
    const observer = { every: SPEC.limit, look: () => undefined, hear };
    const { tenants } = runMode(SPEC, [victim, image], files, () => undefined, observer);
    const [theirs = '', mine = ''] = tenants.map((one) => [one.output, ...one.account].join(''));
    const refusal = tenants[1]?.refusals.at(-1)?.text ?? '';
    const won = mine.includes('SUCCEEDED') || theirs !== UNHARMED;
    return [{ name, attacker: mine, victim: theirs, won, refusal }, [...fenced, ...last]];
  };

  /** The same, of a kernel that may break down without its check: then nothing is proved. */
  const attempt = async (name: string, without: number): Promise<Ran | null> => {
    try {
      const [ran] = await once(name, [without]);
      return ran.won ? ran : null;
    } catch {
      return null;
    }
  };

  const results: Attacked[] = [];
  for (const name of names) {
    const [ran, last] = await once(
      name,
      chosen.map(({ number }) => number),
    );
    let check: Check | null = null;
    // The outermost check without which the attack succeeds: the one that is about this call.
    for (const number of ran.won || off !== null ? [] : [...new Set(last)].reverse()) {
      const without = await attempt(name, number);
      const site = sites[number - 1];
      if (without === null || site === undefined) continue;
      const { file, line, within, text } = site;
      check = {
        file,
        line,
        within,
        text,
        without: `${without.attacker}${tellVictim(without.victim, true)}`,
      };
      break;
    }
    results.push({ ...ran, check });
  }
  return { results };
}

parentPort?.postMessage(await attack(workerData as AttackOrder));
