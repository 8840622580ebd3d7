/**
 * docs/ABI.md as data: the calls by number, their arguments by name, and the reason of each
 * refusal. test/kernel/abi-doc.test.ts holds the page to the kernel, so what is said from here is
 * what the kernel means.
 */
import { readFileSync } from 'node:fs';
import { Status } from '../../kernel/abi.ts';

export interface CallPage {
  readonly name: string;
  readonly number: number;
  readonly args: readonly string[];
  readonly refusals: readonly {
    readonly status: string;
    readonly argument: number;
    readonly why: string;
  }[];
  /** where the page has it, as a link */
  readonly link: string;
}

const PAGE = new URL('../../docs/ABI.md', import.meta.url);
const STATUS_NAMES = new Map<number, string>(
  Object.entries(Status).map(([name, number]) => [number, name]),
);

let cached: ReadonlyMap<number, CallPage> | null = null;

/** Every call of the page, by number. */
export function callPages(): ReadonlyMap<number, CallPage> {
  cached ??= parse(readFileSync(PAGE, 'utf8'));
  return cached;
}

function parse(text: string): ReadonlyMap<number, CallPage> {
  const pages = new Map<number, CallPage>();
  for (const section of text.split(/^## /m).slice(1)) {
    const head = /^(\w+) \((\d+)\)\n/.exec(section);
    if (head === null) continue;
    const [, name = '', number = ''] = head;
    const signature = /^ {4}\w+\((.*)\)$/m.exec(section)?.[1] ?? '';
    pages.set(Number(number), {
      name,
      number: Number(number),
      args: signature === '' ? [] : signature.split(',').map((arg) => arg.trim()),
      refusals: [...section.matchAll(/^\d+\. `(\w+)` \((\d)\): (.+)$/gm)].map(
        ([, status = '', argument = '', why = '']) => ({ status, argument: Number(argument), why }),
      ),
      link: `docs/ABI.md#${name.toLowerCase()}-${number}`,
    });
  }
  return pages;
}

export const statusName = (status: number): string =>
  STATUS_NAMES.get(status) ?? `status ${status}`;

/** `pageMap(table 905, index 256, ...)`, from the words of an ecall. */
export function callText(words: readonly number[]): string {
  const number = words[0] ?? NaN;
  const page = callPages().get(number);
  if (page === undefined) return `call ${number}`;
  const args = page.args.map((arg, n) => `${arg} ${wordText(arg, words[n + 1] ?? 0)}`);
  return `${page.name}(${args.join(', ')})`;
}

const wordText = (arg: string, word: number): string =>
  arg.endsWith('address') && word > 0 ? `0x${word.toString(16)}` : String(word);

/** What the page says of a refusal: all reasons that have this status and argument. */
export function reasons(number: number, status: number, argument: number): string {
  const found = (callPages().get(number)?.refusals ?? []).filter(
    (refusal) => refusal.status === statusName(status) && refusal.argument === argument,
  );
  return found.map(({ why }) => why).join('; or ');
}
